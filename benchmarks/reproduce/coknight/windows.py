"""Seconds of the closed network of `mec_jax.physics.actor_learner`, simulated one step after the other.

The paper's Fig. 9 shows how GPU use and traffic are distributed over the time of a run, where mean value analysis gives
means. The network is the same: actors think, queue for the link, then for the GPU, with exponential times.
"""

import heapq

import numpy as np

from benchmarks.reproduce.coknight.measured import Density, Windows

WARM_UP = 60  # s that are not counted
USE_EDGES = np.linspace(0, 1, 51)
TRAFFIC_EDGES = np.linspace(0, 14, 71)  # MB/s


def busy_seconds(
    think: float, link: float, edge: float, actors: int, seconds: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """How long the link and the GPU are busy in each second, [second] each.

    Both serve first come, first served: who leaves the link first gets the GPU first, so that steps can be followed
    in the order in which they reach the link, without a queue of events.

    Args:
        think: Mean s that an actor takes by itself for a step.
        link: Mean s on the link.
        edge: Mean s on the GPU.
        actors: How many.
        seconds: How many are simulated, after `WARM_UP`.
        seed: Of the generator.
    """
    generator = np.random.default_rng(seed)
    end = WARM_UP + seconds
    ready = (think * generator.exponential(size=actors)).tolist()
    heapq.heapify(ready)
    link_free = edge_free = 0.0
    spans: list[tuple[float, float, float, float]] = []
    while ready[0] < end:
        for thinks, sends, computes in generator.exponential((think, link, edge), size=(4096, 3)).tolist():
            began = max(ready[0], link_free)
            link_free = began + sends
            served = max(link_free, edge_free)
            edge_free = served + computes
            spans.append((began, link_free, served, edge_free))
            heapq.heapreplace(ready, edge_free + thinks)
    table = np.array(spans)
    return _per_second(table[:, 0], table[:, 1], end), _per_second(table[:, 2], table[:, 3], end)


def _per_second(begin: np.ndarray, until: np.ndarray, end: int) -> np.ndarray:
    """Busy time in each second after the first `WARM_UP`, of intervals that follow one another."""
    marks = np.arange(WARM_UP, end + 1)
    done = np.concatenate([[0], np.cumsum(until - begin)])
    last = np.searchsorted(begin, marks, side="right")  # intervals that have begun
    running = np.where(last > 0, np.maximum(until[np.maximum(last - 1, 0)] - marks, 0), 0)
    return np.diff(done[last] - running)


def simulate(think: float, link: float, edge: float, bandwidth: float, actors: int, seconds: int) -> Windows:
    """Densities of GPU use and traffic; the link carries its `bandwidth`, bit/s, while it is busy. See
    `busy_seconds`.
    """
    sending, computing = busy_seconds(think, link, edge, actors, seconds)
    return Windows(
        use=Density(USE_EDGES, np.histogram(np.clip(computing, 0, 1), USE_EDGES)[0]),
        traffic=Density(TRAFFIC_EDGES, np.histogram(sending * bandwidth / 8e6, TRAFFIC_EDGES)[0]),
    )
