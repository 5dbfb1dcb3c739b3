"""Figs. 5 and 6 of Huang et al. 2022 (DeColla)."""
