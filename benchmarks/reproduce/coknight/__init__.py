"""Figs. 9 to 12 of Dai et al. 2022 (Coknight)."""
