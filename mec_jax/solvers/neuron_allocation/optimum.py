"""The exact optimum of one layer of `NeuronAllocation-v0`."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment

from mec_jax.physics.neuron_allocation import Devices, Pieces
from mec_jax.solvers.neurons import assignment_slowdowns, position_times

MAX_ASSIGNMENTS = 10**6
"""Assignments that `layer_optimum` tries, at most."""


class LayerOptimum(NamedTuple):
    """The best assignment of a layer's pieces while no device fails."""

    device: np.ndarray  # [piece] of pieces that are not empty
    slowdown: float  # sum over pieces


_assignment_slowdowns = jax.jit(assignment_slowdowns)
_position_times = jax.jit(position_times)


def layer_optimum(
    pieces: Pieces, devices: Devices, resend: bool, reference_speed: float, by_force: bool = False
) -> LayerOptimum:
    """The least sum of slowdowns of a layer on private links while no device fails and decisions take no time; on the
    host.

    Pieces of equal size: the p-th result of a device comes at a time that depends on the device and p alone
    (`position_times`), so that the best choice of positions is an assignment problem, solved by
    `scipy.optimize.linear_sum_assignment`. Of unequal size: all assignments are tried. Pieces are submitted in their
    order, as in the environment.

    Args:
        pieces: Of the layer.
        devices: All of them.
        resend: As in `position_times`.
        reference_speed: FLOP/s, F_ref.
        by_force: Whether to try all assignments of equal pieces, too.

    Raises:
        ValueError: If unequal pieces have more than `MAX_ASSIGNMENTS` assignments, or no device is there.
    """
    present = np.flatnonzero(np.asarray(devices.failure) > 0)
    if not present.size:
        raise ValueError("no device is there: at least one must have a failure time > 0")
    flops = np.asarray(pieces.flops, np.float64)
    flops = flops[flops > 0]
    once, never = jnp.asarray(resend), jnp.zeros_like(devices.speed[0])
    if np.all(flops == flops[0]) and not by_force:
        times = np.asarray(_position_times(pieces, devices, once, never), np.float64)[present, : flops.size]
        row, column = linear_sum_assignment(times.reshape(1, -1) * reference_speed / flops[:, None])
        cost = times.reshape(-1)[column] * reference_speed / flops[row]
        return LayerOptimum(present[column // flops.size], float(np.sum(cost)))
    if present.size**flops.size > MAX_ASSIGNMENTS:
        raise ValueError(
            f"{present.size} devices and {flops.size} unequal pieces have more than {MAX_ASSIGNMENTS} assignments: "
            "use fewer, or the bound"
        )
    every = present[np.array(list(itertools.product(range(present.size), repeat=flops.size)))]
    padded = np.pad(every, ((0, 0), (0, pieces.flops.size - flops.size)), constant_values=present[0])
    speed = jnp.asarray(reference_speed, devices.speed.dtype)
    costs = np.asarray(_assignment_slowdowns(jnp.asarray(padded), pieces, devices, once, never, speed))
    best = int(np.argmin(costs))
    return LayerOptimum(every[best], float(costs[best]))
