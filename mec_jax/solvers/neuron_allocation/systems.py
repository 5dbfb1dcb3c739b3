"""Latency of the systems that Huang et al. 2022 (DeColla) compare, for one request; s."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import ArrayLike

from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.episodes import play_episodes
from mec_jax.physics.partition import cut_times, work_after, work_before
from mec_jax.solvers.neurons import baselines


def mobile_only(flops: ArrayLike, speed: float) -> float:
    """All layers on one device: sum of F_l / c.

    Args:
        flops: FLOP of each layer.
        speed: FLOP/s, c.
    """
    return float(np.sum(np.asarray(flops, float)) / speed)


class Offloaded(NamedTuple):
    """An inference cut between a device and the edge."""

    latency: float  # s
    device_flops: float  # FLOP before the cut


def partition_offloading(
    flops: ArrayLike, cut_bits: ArrayLike, speed: float, bandwidth: float, edge_speed: float
) -> Offloaded:
    """The first s layers on a device and the others at an edge server, with the best s (Neurosurgeon):
    min over s of F_<=s / c + D_s / B + F_>s / f.

    Args:
        flops: FLOP of each layer.
        cut_bits: bit `[layer + 1]` sent if s layers run on the device; the last is usually 0.
        speed: FLOP/s, c.
        bandwidth: bit/s, B.
        edge_speed: FLOP/s, f.

    Raises:
        ValueError: If there is not one more cut than layers.
    """
    work, bits = np.asarray(flops, float), np.asarray(cut_bits, float)
    before = work_before(work)
    if bits.shape != before.shape:
        raise ValueError(f"cut_bits has shape {bits.shape}: it must be {before.shape}, one more than layers")
    latency = np.sum(cut_times(before, bits, work_after(work), speed, bandwidth, edge_speed), axis=0)
    best = np.argmin(latency)
    return Offloaded(float(latency[best]), float(before[best]))


def hierarchical(
    flops: ArrayLike, output_bits: ArrayLike, speed: ArrayLike, bandwidth: ArrayLike, table_overhead: float = 0.0
) -> float:
    """Contiguous blocks of layers on one device after the other: sum of W_d / c_d + D_d / B_d, and the upkeep of the
    IP table.

    Blocks get work in proportion to speeds, as far as layers allow (the paper does not say how it divides them): each
    layer goes to the device in whose part of the work its middle lies.

    Args:
        flops: FLOP of each layer.
        output_bits: bit of each layer's output; the last layer of a block sends its own, that of the network too.
        speed: FLOP/s `[device]`.
        bandwidth: bit/s `[device]`.
        table_overhead: s for all devices together; the paper names it and gives no number.
    """
    work, bits = np.asarray(flops, float), np.asarray(output_bits, float)
    speed, bandwidth = np.asarray(speed, float), np.asarray(bandwidth, float)
    middle = (np.cumsum(work) - work / 2) / np.sum(work)
    device = np.minimum(np.searchsorted(np.cumsum(speed) / np.sum(speed), middle), speed.size - 1)
    last = np.append(device[1:] != device[:-1], True)
    return float(np.sum(work / speed[device]) + np.sum(bits[last] / bandwidth[device[last]]) + table_overhead)


def intra_layer(env: NeuronAllocation, params: Params, keys: Array) -> Float[np.ndarray, " episode"]:
    """Each layer divided among the devices by shortest completion: DeColla's mechanism without learning.

    Args:
        env: The environment.
        params: The scenario.
        keys: Keys `[episode]`.
    """
    return np.asarray(play_episodes(env, params, baselines(env)["Shortest completion"], params, keys).latency)
