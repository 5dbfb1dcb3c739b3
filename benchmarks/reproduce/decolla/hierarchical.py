"""Hierarchical inference as Huang et al. 2022 (DeColla) compare it: contiguous blocks of layers on one device after the
other, with failures.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks.reproduce.decolla.readings import BEST_SPLIT, FLOP_SPLIT


class Parts(NamedTuple):
    """Parts of a network that can run on different devices: what is between two residual sums stays together."""

    flops: np.ndarray  # [part] FLOP
    input_elements: np.ndarray  # [part]
    output_elements: np.ndarray  # [part]


type Split = Callable[[Parts, float, np.ndarray, np.ndarray], np.ndarray]
"""The device of each part, from the parts, bit of an element, FLOP/s `[device]` and bit/s `[device]`."""


def by_flops(parts: Parts, bits: float, speed: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """Blocks in proportion to speeds, by the rule of `mec_jax.solvers.neuron_allocation.hierarchical`."""
    work = parts.flops
    middle = (np.cumsum(work) - work / 2) / np.sum(work)
    return np.minimum(np.searchsorted(np.cumsum(speed) / np.sum(speed), middle), speed.size - 1)


def best_blocks(parts: Parts, bits: float, speed: np.ndarray, bandwidth: np.ndarray) -> np.ndarray:
    """Blocks of the least latency, sum of W_d / c_d + D_d / B_d, on any of the devices in any order; exact.

    Dynamic programming: least[used, n] is the least latency of the first n parts on the devices in `used`, each with
    one block, in whatever order. The last block adds what it computes and sends, whatever came before.
    """
    count, devices = parts.flops.size, speed.size
    before = np.append(0.0, np.cumsum(parts.flops))
    takes = (before[None] - before[:, None]) / speed[:, None, None]  # [device, start, end]
    sends = parts.output_elements * bits / bandwidth[:, None]  # [device, part]
    least = np.full((1 << devices, count + 1), np.inf)
    least[0, 0] = 0
    came = np.zeros((1 << devices, count + 1, 2), int)  # device and start of the last block
    for used in range(1, 1 << devices):
        for device in range(devices):
            if not used >> device & 1:
                continue
            start = least[used ^ 1 << device]
            for end in range(1, count + 1):
                latency = start[:end] + takes[device, :end, end] + sends[device, end - 1]
                first = int(np.argmin(latency))
                if latency[first] < least[used, end]:
                    least[used, end], came[used, end] = latency[first], (device, first)
    used, end = int(np.argmin(least[:, count])), count
    chosen = np.zeros(count, int)
    while end:
        device, start = came[used, end]
        chosen[start:end] = device
        used, end = used ^ 1 << int(device), int(start)
    return chosen


SPLIT: dict[str, Split] = {FLOP_SPLIT: by_flops, BEST_SPLIT: best_blocks}
"""By name."""


def block_times(
    parts: Parts, bits: float, device: np.ndarray, speed: np.ndarray, bandwidth: float
) -> list[tuple[int, int, float, float]]:
    """Of each block in order: device, first part, s to compute it, s to send its output on."""
    starts = np.flatnonzero(np.append(True, device[1:] != device[:-1]))
    ends = np.append(starts[1:], device.size)
    return [
        (
            int(device[start]),
            int(start),
            float(np.sum(parts.flops[start:end]) / speed[device[start]]),
            float(parts.output_elements[end - 1] * bits / bandwidth),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


class Hierarchical(NamedTuple):
    """One inference, block after block."""

    latency: float  # s
    busy: np.ndarray  # [device] s that each computes, without failures
    interrupted: bool  # a device failed before it had handed on its block


def hierarchical(
    parts: Parts,
    bits: float,
    speed: np.ndarray,
    bandwidth: float,
    split: Split = by_flops,
    planned_speed: np.ndarray | None = None,
    failure: np.ndarray | None = None,
    timeout_factor: float = 1,
) -> Hierarchical:
    """Blocks of layers on one device after the other, without upkeep of an IP table.

    A device that fails before it has handed on its block is missed after `timeout_factor` times the time expected of
    the block. The rest of the network, from that block on, is then planned anew for the others, and the block's input
    sent again; whoever had that is taken to have it still.

    Args:
        parts: Of the network.
        bits: bit of an element.
        speed: FLOP/s that are free, `[device]`.
        bandwidth: bit/s of all links.
        split: Plans the blocks.
        planned_speed: By which they are planned; `speed` if absent.
        failure: s after the request, `[device]`; none if absent.
        timeout_factor: kappa.
    """
    planned = speed if planned_speed is None else planned_speed
    failure = np.full(speed.size, np.inf) if failure is None else failure
    there, first, now, interrupted = np.arange(speed.size), 0, 0.0, False
    busy = np.zeros(speed.size)
    while first < parts.flops.size:
        rest = Parts(*(x[first:] for x in parts))
        device = there[split(rest, bits, planned[there], np.full(there.size, bandwidth))]
        for who, start, compute, send in block_times(rest, bits, device, speed, bandwidth):
            if now + compute + send > failure[who]:
                again = rest.input_elements[start] * bits / bandwidth
                now += timeout_factor * (compute + send) + again
                there, first, interrupted = there[there != who], first + start, True
                break
            now += compute + send
            busy[who] += compute
        else:
            break
    return Hierarchical(now, busy, interrupted)
