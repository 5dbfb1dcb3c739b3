"""Rulers of `NeuronAllocation-v0` and its variants, and the systems that the paper compares."""

from mec_jax.solvers.neuron_allocation.bounds import bound, episode_contexts
from mec_jax.solvers.neuron_allocation.optimum import MAX_ASSIGNMENTS, LayerOptimum, layer_optimum
from mec_jax.solvers.neuron_allocation.rulers import COLUMNS, SOLVER, rulers
from mec_jax.solvers.neuron_allocation.systems import (
    Offloaded,
    hierarchical,
    intra_layer,
    mobile_only,
    partition_offloading,
)
from mec_jax.solvers.neurons import (
    assignment_slowdowns,
    average,
    baselines,
    least,
    position_times,
    random,
    shortest_completion,
)

__all__ = [
    "COLUMNS",
    "MAX_ASSIGNMENTS",
    "SOLVER",
    "LayerOptimum",
    "Offloaded",
    "assignment_slowdowns",
    "average",
    "baselines",
    "bound",
    "episode_contexts",
    "hierarchical",
    "intra_layer",
    "layer_optimum",
    "least",
    "mobile_only",
    "partition_offloading",
    "position_times",
    "random",
    "rulers",
    "shortest_completion",
]
