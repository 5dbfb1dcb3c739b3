"""Optimizers of pruning, cut and codec together, the baselines of Mu et al. 2024, exact optima and a bound."""

from mec_jax.solvers.compression.baselines import BASELINES, all_local, all_server, compare, neurosurgeon
from mec_jax.solvers.compression.bounds import Relaxed, lower_bound, relaxed
from mec_jax.solvers.compression.enumeration import Enumeration, enumerated, optimum, three_layers
from mec_jax.solvers.compression.mqhoa import Config, Run, best_of_restarts, mqhoa
from mec_jax.solvers.compression.problem import (
    BEYOND,
    BUDGET,
    PER_SCENARIO,
    SPACES,
    Found,
    Problem,
    Space,
    energy,
    evaluate,
    plain,
    problem,
)
from mec_jax.solvers.compression.search import cma_es, random_search

__all__ = [
    "BASELINES",
    "BEYOND",
    "BUDGET",
    "PER_SCENARIO",
    "SPACES",
    "Config",
    "Enumeration",
    "Found",
    "Problem",
    "Relaxed",
    "Run",
    "Space",
    "all_local",
    "all_server",
    "best_of_restarts",
    "cma_es",
    "compare",
    "energy",
    "enumerated",
    "evaluate",
    "lower_bound",
    "mqhoa",
    "neurosurgeon",
    "optimum",
    "plain",
    "problem",
    "random_search",
    "relaxed",
    "three_layers",
]
