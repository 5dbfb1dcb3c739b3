"""The timeline of Figs. 9 to 11 of Dai et al. 2022 (Coknight): rates, GPU use and traffic at every cut."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.reproduce.coknight.data import (
    ACTORS,
    BANDWIDTHS,
    CALL_TIME,
    DEFAULTS,
    DEVICE_SPEED,
    ENVIRONMENT_TIME,
    FAST_ETHERNET,
    FEW_ACTORS,
    FITTED,
    HEADERS,
    LIMITED,
    LOG_CUTS,
    MIB,
    MODEL_BYTES,
    MOST_ACTORS,
    NEEDED_USE,
    NETWORKS,
    NUM_CUTS,
    PIXELS,
    PULL_INTERVAL,
    ROOMY,
    SMALL_FRAMES,
    TABLE,
    TRAINING_TIME,
    TRAJECTORY_BITS,
    V100,
    V100_SPEED,
    WIRED,
    WORK,
)
from benchmarks.reproduce.coknight.frameworks import crossing
from benchmarks.reproduce.coknight.measured import CrossingMap, Windows, World
from benchmarks.reproduce.coknight.windows import simulate
from mec_jax.physics import actor_learner as law

EDGE_TIMES, SPEEDS = np.geomspace(5e-4, 1.5e-2, 31), np.geomspace(1e9, 3e10, 31)  # s and FLOP/s, of the map
MAPPED_CUTS = (3, 4)

SENSITIVITY: dict[str, dict[str, float]] = {
    DEFAULTS: {},
    SMALL_FRAMES: {"pixel_bytes": 1},
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


class _Setting(NamedTuple):
    """What a row of `SENSITIVITY` changes."""

    bits: np.ndarray
    given: law.Machines
    rates: Any
    steady: bool
    even: bool


def _setting(changes: Mapping[str, float]) -> _Setting:
    rest = dict(changes)
    bits = cut_bits(rest.pop("pixel_bytes", 4))
    batch, shared = rest.pop("batch", 1), rest.pop("shared", 0)
    even, steady = bool(rest.pop("even", 0)), bool(rest.pop("steady", 0))
    return _Setting(bits, machines(**rest), law.batch_rates(MOST_ACTORS, batch, shared), steady, even)


def _edge_speeds(here: _Setting) -> dict[str, float]:
    """f_e of both GPUs, FLOP/s. That of the fitted one is the highest, to 1 %, with which Seed-RL keeps it busy as in
    Fig. 9.
    """
    candidates = np.geomspace(1e9, 1e14, 1200)
    use = _seed_use(here.bits, here.given, candidates, here.rates[:ACTORS], here.steady, here.even)
    return {FITTED: float(candidates[np.asarray(use) >= NEEDED_USE].max()), V100: V100_SPEED}


def measure(changes: Mapping[str, float]) -> dict[str, World]:
    """Timelines with some numbers changed, of both GPUs."""
    here = _setting(changes)
    bandwidths = jnp.array([*NETWORKS.values(), *(8e6 * x for x in BANDWIDTHS)])
    named = len(NETWORKS)
    worlds = {}
    for gpu, speed in _edge_speeds(here).items():
        given = _with_edge(here.given, speed, here.even)
        rate, use, traffic = map(np.asarray, _timelines(here.bits, given, bandwidths, here.rates, here.steady))
        worlds[gpu] = World(
            gpu=gpu,
            edge_time=WORK / speed,
            throughput=rate[:named],
            edge_use=use[:named, :, ACTORS - 1],
            traffic=traffic[:named, :, ACTORS - 1],
            fig10=rate[named:, :, FEW_ACTORS - 1].T,
        )
    return worlds


def simulate_windows(seconds: int) -> dict[str, dict[str, Windows]]:
    """Seconds of the frameworks in the setting of the defaults, by the GPU and what runs on which network."""
    here = _setting({})
    found: dict[str, dict[str, Windows]] = {}
    for gpu, speed in _edge_speeds(here).items():
        found[gpu] = {}
        for name, cut in LOG_CUTS.items():
            for network in (WIRED, LIMITED) if name.startswith("cut") else (WIRED,):
                bandwidth = NETWORKS[network]
                given = here.given._replace(edge_speed=speed, bandwidth=bandwidth)
                demands = law.step_demands(jnp.asarray(TABLE.flops), jnp.asarray(here.bits), jnp.array(cut), given)
                found[gpu][f"{name}, {network}"] = simulate(
                    float(demands.think), float(demands.link), float(demands.edge), bandwidth, ACTORS, seconds
                )
    return found


@partial(jax.jit, static_argnames="cut")
def _crossings(cut: int, bits: Any, edge_times: Any, speeds: Any) -> tuple[Any, Any]:
    """Throughput of Seed-RL and at a cut on 1 Gbit/s, [edge time, device speed, actor]."""
    flops, rates = jnp.asarray(TABLE.flops), jnp.ones(MOST_ACTORS)

    def one(edge_time: Any, speed: Any) -> tuple[Any, ...]:
        given = machines(edge_speed=WORK / edge_time, device_speed=speed, bandwidth=NETWORKS[ROOMY])
        return tuple(
            law.mean_value_analysis(law.step_demands(flops, bits, jnp.array(y), given), rates).throughput
            for y in (0, cut)
        )

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(edge_times, speeds)


def crossing_map(cuts: Sequence[int], edge_times: np.ndarray, speeds: np.ndarray) -> CrossingMap:
    """Actors from which on Coknight is faster at each of the cuts."""
    actors = {}
    for cut in cuts:
        seed, ours = map(np.asarray, _crossings(cut, cut_bits(4), edge_times, speeds))
        found = [[crossing(*pair) for pair in zip(*row, strict=True)] for row in zip(seed, ours, strict=True)]
        actors[cut] = np.array(found, float)
    return CrossingMap(edge_times, speeds, actors)
