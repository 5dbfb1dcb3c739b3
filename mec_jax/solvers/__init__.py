"""What needs no learning: published heuristics, exact optima and bounds, one file an environment."""
