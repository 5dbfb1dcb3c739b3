"""Heuristics, exact optimum and bound of the partition game."""

from mec_jax.solvers.partition_game.bounds import bound, episode_contexts, play_defp
from mec_jax.solvers.partition_game.heuristics import (
    best_response,
    best_response_dynamics,
    defp,
    defp_arrive,
    defp_leave,
    igreedy,
    igreedy_arrive,
    largest_gains,
    ogreedy,
)
from mec_jax.solvers.partition_game.optimum import BestCuts, optimum
from mec_jax.solvers.partition_game.policies import baselines
from mec_jax.solvers.partition_game.rulers import COLUMNS, SOLVER, rulers

__all__ = [
    "COLUMNS",
    "SOLVER",
    "BestCuts",
    "baselines",
    "best_response",
    "best_response_dynamics",
    "bound",
    "defp",
    "defp_arrive",
    "defp_leave",
    "episode_contexts",
    "igreedy",
    "igreedy_arrive",
    "largest_gains",
    "ogreedy",
    "optimum",
    "play_defp",
    "rulers",
]
