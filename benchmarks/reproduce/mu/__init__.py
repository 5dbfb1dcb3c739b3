"""Figs. 6 to 11 and Table IV of Mu et al. 2024 (joint pruning, partition and feature compression)."""
