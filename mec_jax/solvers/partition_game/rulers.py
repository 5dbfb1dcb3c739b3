"""What policies of `PartitionGame-v0` are measured against."""

from jaxtyping import Array, Key

from mec_jax.contracts import Column, Rulers, Solver
from mec_jax.envs.partition_game import Params, PartitionGame
from mec_jax.solvers.partition_game.bounds import bound, play_defp
from mec_jax.solvers.partition_game.policies import baselines
from mec_jax.solvers.policies import play_each

COLUMNS = (
    Column("saved ms", "utility", 1e3),
    Column("Var(y)", "cut_variance", digits=2),
    Column("Var(u) ms^2", "utility_variance", 1e6, digits=0),
)
"""Measures in a table: latency saved by all devices together, and the variances of cuts and of latencies saved."""


def rulers(env: PartitionGame, params: Params, keys: Key[Array, " episode"]) -> Rulers:
    """The baselines, DEFP and the optimum."""
    played = play_each(env, params, baselines(env), keys)
    played |= {"DEFP": play_defp(env, params, keys), "Optimum": bound(env, params, keys)}
    return Rulers(played, zero="Random", one="Optimum", bound="Optimum")


SOLVER = Solver(COLUMNS, baselines, rulers)
