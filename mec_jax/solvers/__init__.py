"""What needs no learning: published heuristics, exact optima and bounds, one folder a problem.

A folder has a `SOLVER` (`mec_jax.contracts.Solver`), to which its environment points.
"""
