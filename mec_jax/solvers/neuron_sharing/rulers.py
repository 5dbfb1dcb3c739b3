"""What policies of `NeuronSharing-v0` are measured against."""

from jaxtyping import Array, Key

from mec_jax.contracts import Column, Rulers, Solver
from mec_jax.envs.neuron_sharing import NeuronSharing, Params
from mec_jax.solvers.neuron_sharing.bounds import bound
from mec_jax.solvers.neurons import baselines
from mec_jax.solvers.policies import play_each

COLUMNS = (
    Column("slowdown", "slowdown", digits=2),
    Column("ms", "latency", 1e3),
    Column("variance of use", "use_variance", digits=4),
    Column("lost", "lost", digits=3),
)
"""Measures in a table: mean slowdown of a piece, latency of an inference, device use, pieces without a result."""


def rulers(env: NeuronSharing, params: Params, keys: Key[Array, " episode"]) -> Rulers:
    """The baselines and the bound."""
    played = play_each(env, params, baselines(env), keys) | {"Lower bound": bound(env, params, keys)}
    return Rulers(played, zero="Random", one="Lower bound", bound="Lower bound")


SOLVER = Solver(COLUMNS, baselines, rulers)
