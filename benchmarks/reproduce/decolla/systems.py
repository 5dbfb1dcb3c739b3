"""The systems that Huang et al. 2022 (DeColla) compare; latencies are of the model, not of machines.

Hierarchical is in `hierarchical`; DeColla as any policy allocates is in `inference`, and here on private links with
failures.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks.reproduce.decolla.hierarchical import Parts
from benchmarks.reproduce.decolla.readings import (
    DEVICE_SPEED,
    DEVICES,
    IMAGE_BITS,
    MBPS,
    NETWORK,
    RULES,
    USAGE,
    Reading,
)
from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.physics.neuron_allocation import Devices, Queue, after_submission, empty_queue, finish_layer, submit
from mec_jax.profiles.layers import layer_table
from mec_jax.profiles.neurons import load_neuron_table
from mec_jax.solvers import neuron_allocation as solvers


def parts_of(network: str = NETWORK) -> Parts:
    """The parts of a generated network; FLOP are those of `load_neuron_table`."""
    table = load_neuron_table(network)
    place = {name: index for index, name in enumerate(table.layer_names)}
    work = np.array(table.neurons) * np.array(table.neuron_flops)
    current, ends = -1, list[int]()
    for layer in layer_table(network):
        current = place.get(layer.name, current)
        if layer.cut and current >= 0 and (not ends or ends[-1] != current):
            ends.append(current)
    starts = [0, *(end + 1 for end in ends[:-1])]
    inputs = np.array(table.input_elements)[starts]
    return Parts(
        np.add.reduceat(work, starts), inputs, np.append(inputs[1:], table.output_elements[-1])
    )  # what the next part reads may be less than the layer put out: pooling comes between


class Inference(NamedTuple):
    """One inference by DeColla's mechanism."""

    latency: Any  # s
    busy: Any  # [device] s that each computes, without failures
    piece_time: Any  # [layer, piece] s from the start of the layer, as expected


def decolla(
    env: NeuronAllocation,
    params: Params,
    devices: Devices,
    timeout_factor: Float[Array, ""],
) -> Inference:
    """Each layer divided by shortest completion, as `mec_jax.solvers.neuron_allocation.intra_layer` does, with
    failures that the requester learns of by timeouts alone.

    After a layer in which a result was missing, the requester has asked who is there. Until then it goes on submitting
    to a device that has failed.

    Args:
        env: The environment whose layers these are; static.
        params: Of these, the layers, bits and the rule of exchange count.
        devices: FLOP/s that are free, bit/s, and failures in s after the request, infinite without one.
        timeout_factor: kappa.
    """
    speed, failure = devices.speed, devices.failure
    now = jnp.zeros_like(speed[0])

    def run_layer(carry: tuple, index: Array) -> tuple[tuple, tuple]:
        start, found = carry
        pieces = env.pieces(index, params)
        here = devices._replace(failure=jnp.maximum(failure - start, 0))

        def assign(queue: Queue, piece: Array) -> tuple[Queue, tuple[Array, Array]]:
            after = after_submission(queue, here, pieces, piece, now, params.resend_input)
            device = jnp.argmin(jnp.where(found, jnp.inf, after.up))
            return submit(queue, after, device), (device, after.up[device])

        queue = empty_queue(speed.size, speed.dtype)
        queue, (device, expected) = jax.lax.scan(assign, queue, jnp.arange(env.num_pieces))
        outcome = finish_layer(queue, here, pieces, device, expected, now, params.resend_input, timeout_factor)
        latency = jnp.max(outcome.completion)
        missing = jnp.any((pieces.flops > 0) & (expected > here.failure[device]))
        busy = jnp.zeros_like(speed).at[device].add(pieces.flops) / speed
        return (start + latency, found | (missing & (failure <= start + latency))), (busy, expected)

    (latency, _), (busy, expected) = jax.lax.scan(
        run_layer, (now, jnp.zeros(speed.size, bool)), jnp.arange(env.num_layers)
    )
    return Inference(latency, jnp.sum(busy, axis=0), expected)


@partial(jax.jit, static_argnames="env")
def _decolla(env: NeuronAllocation, params: Params, devices: Devices, timeout_factor: Array) -> Inference:
    return jax.vmap(decolla, (None, None, 0, None))(env, params, devices, timeout_factor)


def decolla_runs(
    env: NeuronAllocation,
    reading: Reading,
    speed: np.ndarray,
    bandwidth: np.ndarray,
    failure: np.ndarray | None = None,
    timeout_factor: float = 1,
) -> Inference:
    """Many inferences; arrays `[run, device]` and `bandwidth` `[run]` of all links (bit/s)."""
    params = env.params(bits_per_element=reading.decolla_bits, resend_input=reading.resend)
    links = np.broadcast_to(np.asarray(bandwidth, float)[:, None], speed.shape)
    failure = np.full(speed.shape, np.inf) if failure is None else failure
    devices = Devices(*(jnp.asarray(x, jnp.float32) for x in (speed, links, failure)))
    found = _decolla(env, params, devices, jnp.asarray(timeout_factor, jnp.float32))
    return jax.tree.map(lambda x: np.asarray(x, float), found)


def offloaded(parts: Parts, bits: float, speed: float, bandwidth: float, edge_speed: float) -> solvers.Offloaded:
    """Latency (s) of partition-offloading, and FLOP that stay on the device."""
    cut_bits = np.append(parts.input_elements * bits, 0.0)
    cut_bits[0] = parts.input_elements[0] * min(bits, IMAGE_BITS)
    return solvers.partition_offloading(parts.flops, cut_bits, speed, bandwidth, edge_speed)


def exchange_latencies(env: NeuronAllocation, bits: float, rule: str, bandwidths: Sequence[float]) -> np.ndarray:
    """Latency of DeColla (s) at bandwidths (Mbit/s), all devices at `USAGE`."""
    speed = (1 - USAGE) * DEVICE_SPEED
    links = np.array(bandwidths) * MBPS
    if rule == RULES[2]:
        # No worse than this: the work divided evenly to the last FLOP, whatever the layer.
        elements = sum(env.network.input_elements) + sum(env.network.output_elements)
        work = np.sum(np.array(env.network.neurons) * np.array(env.network.neuron_flops))
        return elements * bits / links + work / (DEVICES * speed)
    reading = Reading(bits, bits, rule == RULES[1], 0)
    return decolla_runs(env, reading, np.full((links.size, DEVICES), speed), links).latency


def crossover(bandwidths: Sequence[float], ours: np.ndarray, theirs: np.ndarray) -> float:
    """Least bandwidth from which on `ours` is less, NaN without one; to the grid."""
    better = np.logical_and.accumulate((ours < theirs)[::-1])[::-1]
    return float(np.asarray(bandwidths)[np.argmax(better)]) if better.any() else float("nan")
