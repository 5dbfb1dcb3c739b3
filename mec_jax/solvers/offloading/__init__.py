"""Rulers of `MultiUEOffloading-v0`: baselines, best static action and rotation, best known plans, proven bounds."""

from mec_jax.solvers.offloading.bounds import LowerBounds, least_energy, lower_bounds
from mec_jax.solvers.offloading.plans import best_known, best_plan, play_plan
from mec_jax.solvers.offloading.policies import all_edge, baselines, local, rotate, static, uniform
from mec_jax.solvers.offloading.rulers import SOLVER, rulers
from mec_jax.solvers.offloading.search import StaticSolution, best_static

__all__ = [
    "SOLVER",
    "LowerBounds",
    "StaticSolution",
    "all_edge",
    "baselines",
    "best_known",
    "best_plan",
    "best_static",
    "least_energy",
    "local",
    "lower_bounds",
    "play_plan",
    "rotate",
    "rulers",
    "static",
    "uniform",
]
