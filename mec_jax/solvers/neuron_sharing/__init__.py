"""Baselines and a bound of devices that several requesters share."""

from mec_jax.solvers.neuron_sharing.bounds import bound
from mec_jax.solvers.neuron_sharing.rulers import COLUMNS, SOLVER, rulers
from mec_jax.solvers.neurons import average, baselines, least, random, shortest_completion

__all__ = [
    "COLUMNS",
    "SOLVER",
    "average",
    "baselines",
    "bound",
    "least",
    "random",
    "rulers",
    "shortest_completion",
]
