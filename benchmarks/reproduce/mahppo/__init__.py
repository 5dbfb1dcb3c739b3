"""Figs. 8 to 13 and Theorem 1 of Hao et al. 2022 (MAHPPO)."""
