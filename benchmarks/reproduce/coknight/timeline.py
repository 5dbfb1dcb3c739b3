"""The timeline of Figs. 9 to 11 of Dai et al. 2022 (Coknight): rates, GPU use and traffic at every cut."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.reproduce.coknight.data import (
    ACTORS,
    CALL_TIME,
    DEVICE_SPEED,
    ENVIRONMENT_TIME,
    FAST_ETHERNET,
    FEW_ACTORS,
    HEADERS,
    LIMIT,
    MIB,
    MODEL_BYTES,
    NEEDED_USE,
    NUM_CUTS,
    PIXELS,
    PULL_INTERVAL,
    SAME,
    TABLE,
    TRAINING_TIME,
    TRAJECTORY_BITS,
    V100_SPEED,
    WORK,
)
from mec_jax.physics import actor_learner as law

NETWORKS = {"100 Mbit/s": FAST_ETHERNET, "10 MB/s": LIMIT, "1 Gbit/s": 10 * FAST_ETHERNET}
FIG9, FIG11 = ("100 Mbit/s", "10 MB/s"), ("100 Mbit/s", "1 Gbit/s")
BANDWIDTHS = (50, 40, 30, 20, 15, 12, 10, 8, 6, 5, 4, 3, 2)  # MB/s, Fig. 10
MOST_ACTORS = 128
FITTED, V100 = "GPU fitted", "V100"
PARTITIONED = tuple(range(1, NUM_CUTS))

SENSITIVITY: dict[str, dict[str, float]] = {
    "defaults": {},
    "frames of 1 byte a pixel": {"pixel_bytes": 1},
    "no trajectories at y = 0 (section 3.1)": {"upload_at_zero": 0},
    "model pulled, 549 MB (the code's network)": {"model_bits": 8.0 * MODEL_BYTES},
    "model pulled, 4.4 MB (IMPALA's network)": {"model_bits": 8 * 4.4e6},
    "f_d = 1 GFLOP/s": {"device_speed": 1e9},
    "f_d = 10 GFLOP/s": {"device_speed": 1e10},
    "f_d = 30 GFLOP/s": {"device_speed": 3e10},
    "environment 10 ms": {"environment_time": 0.01},
    "call 5 ms": {"call_time": 5e-3},
    "no training on the GPU": {"training_time": 0},
    "batches of up to 8, half shared": {"batch": 8, "shared": 0.5},
    "GPU time alike at every cut but K": {"even": 1},
    "no one waits before a station is full": {"steady": 1},
}


class Curves(NamedTuple):
    """What the timeline gives, [bandwidth, cut, actor]."""

    throughput: np.ndarray  # requests/s, or steps/s, of all actors
    edge_use: np.ndarray  # of the GPU
    traffic: np.ndarray  # MiB/s


class World(NamedTuple):
    """Timelines of one row of `SENSITIVITY`, for each of the two GPUs."""

    edge_time: Mapping[str, float]  # s of one whole inference on the GPU
    curves: Mapping[str, Curves]  # at the bandwidths of NETWORKS, then at BANDWIDTHS

    def at(self, gpu: str, network: str) -> Curves:
        """[cut, actor] on one network."""
        place = list(NETWORKS).index(network)
        return Curves(*(x[place] for x in self.curves[gpu]))

    def fig10(self, gpu: str) -> np.ndarray:
        """Throughput with few actors, [cut, bandwidth]."""
        return self.curves[gpu].throughput[len(NETWORKS) :, :, FEW_ACTORS - 1].T


def machines(**changes: Any) -> law.Machines:
    """The defaults with some numbers changed."""
    numbers = {
        "environment_time": ENVIRONMENT_TIME,
        "call_time": CALL_TIME,
        "device_speed": DEVICE_SPEED,
        "edge_speed": V100_SPEED,
        "dispatch_time": 0.0,
        "training_time": TRAINING_TIME,
        "bandwidth": FAST_ETHERNET,
        "headers": HEADERS,
        "trajectory_bits": TRAJECTORY_BITS,
        "model_bits": 0.0,
        "pull_interval": PULL_INTERVAL,
        "upload_at_zero": 1.0,
    }
    return law.Machines(**(numbers | changes))


def cut_bits(pixel_bytes: float) -> np.ndarray:
    """b_0 to b_K in bit, with raw frames of so many bytes a pixel."""
    return np.array([8 * pixel_bytes * PIXELS, *TABLE.bits[1:]])


def _means(bits: Any, given: law.Machines, cut: Any, rates: Any, steady: Any) -> tuple[Any, Any]:
    """Throughput and GPU use, [actor]: of exponential service, or the bound that no service exceeds, if `steady`."""
    demands = law.step_demands(jnp.asarray(TABLE.flops), bits, cut, given)
    found, bound = law.mean_value_analysis(demands, rates), law.asymptotic_bounds(demands, rates.size).upper
    return jnp.where(steady, bound, found.throughput), jnp.where(steady, bound * demands.edge, found.edge_use)


@jax.jit
def _timelines(bits: Any, given: law.Machines, bandwidths: Any, rates: Any, steady: Any) -> tuple[Any, Any, Any]:
    def one(bandwidth: Any, cut: Any) -> tuple[Any, Any, Any]:
        here = given._replace(bandwidth=bandwidth)
        throughput, use = _means(bits, here, cut, rates, steady)
        return throughput, use, throughput * law.link_bits(bits, cut, here) / 8 / MIB

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(bandwidths, jnp.arange(NUM_CUTS + 1))


def _with_edge(given: law.Machines, speed: Any, even: Any) -> law.Machines:
    """The GPU takes `WORK / speed` for a whole inference; and for any part of it, if `even`."""
    return given._replace(
        edge_speed=jnp.where(even, jnp.inf, speed), dispatch_time=jnp.where(even, WORK / speed, given.dispatch_time)
    )


@jax.jit
def _seed_use(bits: Any, given: law.Machines, speeds: Any, rates: Any, steady: Any, even: Any) -> Any:
    """GPU use of Seed-RL with as many actors as there are rates, [speed]."""
    return jax.vmap(lambda speed: _means(bits, _with_edge(given, speed, even), jnp.array(0), rates, steady)[1][-1])(
        speeds
    )


def measure(changes: Mapping[str, float]) -> World:
    """Timelines with some numbers changed.

    The fitted GPU is fitted to them: its f_e is the highest, to 1 %, with which Seed-RL keeps it busy as in Fig. 9.
    """
    rest = dict(changes)
    bits = cut_bits(rest.pop("pixel_bytes", 4))
    batch, shared = rest.pop("batch", 1), rest.pop("shared", 0)
    even, steady = bool(rest.pop("even", 0)), bool(rest.pop("steady", 0))
    given, rates = machines(**rest), law.batch_rates(MOST_ACTORS, batch, shared)
    candidates = np.geomspace(1e9, 1e14, 1200)
    use = _seed_use(bits, given, candidates, rates[:ACTORS], steady, even)
    speeds = {FITTED: float(candidates[np.asarray(use) >= NEEDED_USE].max()), V100: V100_SPEED}
    bandwidths = jnp.array([*NETWORKS.values(), *(8e6 * x for x in BANDWIDTHS)])
    curves = {
        gpu: Curves(*map(np.asarray, _timelines(bits, _with_edge(given, speed, even), bandwidths, rates, steady)))
        for gpu, speed in speeds.items()
    }
    return World({gpu: WORK / speed for gpu, speed in speeds.items()}, curves)


def crossing(seed: np.ndarray, other: np.ndarray) -> int | None:
    """Fewest actors from which on the other is never slower than Seed-RL and somewhere faster; None if never.

    What differs by rounding is neither.
    """
    slower = np.flatnonzero(other < seed * (1 - SAME))
    first = int(slower[-1]) + 1 if slower.size else 0
    faster = np.flatnonzero(other[first:] > seed[first:] * (1 + SAME))
    return first + 1 if faster.size else None


@partial(jax.jit, static_argnames="cut")
def _crossings(cut: int, bits: Any, edge_times: Any, speeds: Any) -> tuple[Any, Any]:
    """Throughput of Seed-RL and at a cut on 1 Gbit/s, [edge time, device speed, actor]."""
    flops, rates = jnp.asarray(TABLE.flops), jnp.ones(MOST_ACTORS)

    def one(edge_time: Any, speed: Any) -> tuple[Any, ...]:
        given = machines(edge_speed=WORK / edge_time, device_speed=speed, bandwidth=NETWORKS["1 Gbit/s"])
        return tuple(
            law.mean_value_analysis(law.step_demands(flops, bits, jnp.array(y), given), rates).throughput
            for y in (0, cut)
        )

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(edge_times, speeds)


def crossing_map(cut: int, edge_times: np.ndarray, speeds: np.ndarray) -> np.ndarray:
    """Actors from which on Coknight is faster at a cut, [edge time, device speed]; NaN if never."""
    seed, ours = map(np.asarray, _crossings(cut, cut_bits(4), edge_times, speeds))
    found = [[crossing(*pair) for pair in zip(*row, strict=True)] for row in zip(seed, ours, strict=True)]
    return np.array(found, float)


def best_partition(throughput: np.ndarray) -> np.ndarray:
    """Throughput of the best cut inside the network at each place, [...] of [cut, ...]."""
    return throughput[list(PARTITIONED)].max(0)


def coknights(throughput: np.ndarray) -> dict[str, np.ndarray]:
    """What Coknight may be: the cuts of the logs, and the best cut inside the network at every place."""
    return {"cut 3": throughput[3], "cut 4": throughput[4], "best cut": best_partition(throughput)}
