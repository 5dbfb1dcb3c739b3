"""What policies of `NeuronAllocation-v0` and its variants are measured against."""

from jaxtyping import Array, Key

from mec_jax.contracts import Column, Rulers, Solver
from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.solvers.neuron_allocation.bounds import bound
from mec_jax.solvers.neurons import baselines
from mec_jax.solvers.policies import play_each

COLUMNS = (Column("slowdown", "slowdown", digits=2), Column("ms", "latency", 1e3), Column("lost", "lost", digits=3))
"""Measures in a table: mean slowdown of a piece, latency of the inference, pieces without a result."""


def rulers(env: NeuronAllocation, params: Params, keys: Key[Array, " episode"]) -> Rulers:
    """The baselines and the bound, which on a small static testbed is the exact optimum."""
    played = play_each(env, params, baselines(env), keys) | {"Lower bound": bound(env, params, keys)}
    return Rulers(played, zero="Random", one="Lower bound", bound="Lower bound")


SOLVER = Solver(COLUMNS, baselines, rulers)
