"""What policies of `MultiExitAllocation-v0` and its variants are measured against."""

from jaxtyping import Array, Key

from mec_jax.contracts import Column, Rulers, Solver
from mec_jax.envs.multi_exit import MultiExitAllocation, Params
from mec_jax.solvers.multi_exit.bounds import bound
from mec_jax.solvers.multi_exit.policies import baselines, play_baselines

COLUMNS = (Column("cost", "cost", digits=4), Column("ms", "latency", 1e3), Column("mJ", "energy", 1e3))
"""Measures in a table: means over devices and steps."""


def rulers(env: MultiExitAllocation, params: Params, keys: Key[Array, " episode"]) -> Rulers:
    """The baselines and the bound, which in a bandit is the exact optimum."""
    name = "Optimum with free switches" if env.markov else "Exact optimum"
    played = play_baselines(env, params, keys) | {name: bound(env, params, keys)}
    return Rulers(played, zero="Random", one=name, bound=name)


SOLVER = Solver(COLUMNS, baselines, rulers)
