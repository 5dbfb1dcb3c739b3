"""How good the optima, bounds and heuristics are: brute force, searches, churn."""
