"""The curves of Ma et al. 2025 (multi-exit partitioning) over bandwidth."""
