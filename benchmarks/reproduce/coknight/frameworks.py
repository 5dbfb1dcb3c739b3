"""What Coknight may be beside Seed-RL and IMPALA, and where it overtakes."""

import numpy as np

from benchmarks.reproduce.coknight.data import NUM_CUTS, PARTITIONED

SAME = 1e-3
"""Relative difference of what differs by rounding alone."""


def best_partition(throughput: np.ndarray) -> np.ndarray:
    """Throughput of the best cut inside the network at each place, [...] of [cut, ...]."""
    return throughput[list(PARTITIONED)].max(0)


def coknights(throughput: np.ndarray) -> dict[str, np.ndarray]:
    """What Coknight may be: the cuts of the logs, and the best cut inside the network at every place."""
    return {"cut 3": throughput[3], "cut 4": throughput[4], "best cut": best_partition(throughput)}


def frameworks(throughput: np.ndarray) -> dict[str, np.ndarray]:
    """All of them, of [cut, ...]."""
    return {"Seed-RL": throughput[0], **coknights(throughput), "IMPALA": throughput[NUM_CUTS]}


def crossing(seed: np.ndarray, other: np.ndarray) -> int | None:
    """Fewest actors from which on the other is never slower than Seed-RL and somewhere faster; None if never."""
    slower = np.flatnonzero(other < seed * (1 - SAME))
    first = int(slower[-1]) + 1 if slower.size else 0
    faster = np.flatnonzero(other[first:] > seed[first:] * (1 + SAME))
    return first + 1 if faster.size else None
