"""Reproduce Figs. 9 to 12 of Dai et al. 2022 (Coknight) and judge the paper's claims.

    python benchmarks/reproduce/coknight.py    # about two minutes on 2 cores

Figs. 9 to 11 come from the timeline of `mec_jax.physics.actor_learner`, Fig. 12 from the partition game and its
solvers. The figures' curves are not at hand, only what the text says of them, the authors' code and its traffic logs.
Results: OUT/README.md, a figure each and data.json.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

if __name__ == "__main__" and not __package__:  # run as a file: find the packages beside and above this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

matplotlib.use("Agg")

from matplotlib.figure import Figure

from benchmarks.machine import machine
from benchmarks.reproduce.verdicts import Status, Verdict
from benchmarks.time_to_target import write
from mec_jax.physics.actor_learner import (
    Machines,
    asymptotic_bounds,
    batch_rates,
    link_bits,
    mean_value_analysis,
    step_demands,
)
from mec_jax.physics.partition_game import (
    Allocation,
    Game,
    allowed,
    arrival,
    make_game,
    nobody,
    resource_use,
    response_times,
    take,
    utilities,
)
from mec_jax.profiles.partition_game import load_cut_table
from mec_jax.solvers import partition_game as solvers

RESULTS = Path(__file__).resolve().parents[1] / "results" / "coknight"

# What the paper, the authors' code (github.com/daihao42/coknight) and its logs say.

TABLE = load_cut_table("coknight_resnet")
NUM_CUTS = TABLE.num_cuts
WORK = sum(TABLE.flops)  # FLOP of one inference
PIXELS = 4 * 84 * 84
ACTORS = 12  # section 5.2.1
FEW_ACTORS = 6  # of Fig. 10
CROSSING = 36  # actors, section 5.2.3
MIB = 2**20  # B; the logs are dstat's, whose M is 2^20
LOGS = {"Seed-RL": 11.25, "cut 3": 10.56, "cut 4": 9.88, "IMPALA": 2.00}  # MiB/s, means
LOG_CUTS = {"Seed-RL": 0, "cut 3": 3, "cut 4": 4, "IMPALA": NUM_CUTS}
LOGGED_STEP_BYTES = 1923 * 1024 / (1514 / 1448) / 64  # of an upload of 64 steps in IMPALA's log, without headers
UNROLL, PULL_INTERVAL = 64, 512  # steps of an upload, and between two pulls of the model
STEP_BYTES = PIXELS + 57  # of a step in the trajectory: frame, logits of 6 actions, value, rewards, flags
MODEL_BYTES = 4 * 137_296_142  # of the code's network, mostly in layer5

# What none of them says: defaults, and why.

HEADERS = 1514 / 1448  # Ethernet, IP and TCP on a full frame, as dstat counts
FAST_ETHERNET = 100e6 * 1514 / 1538  # bit/s that dstat sees on a full 100 Mbit/s link
LIMIT = 8 * 10e6  # bit/s, Coknight's in section 5.2
TRAJECTORY_BITS = 8 * STEP_BYTES * (UNROLL + 1) / UNROLL
ENVIRONMENT_TIME = 2e-3  # s: four emulated frames and their scaling on one slow core
CALL_TIME = 1e-3  # s: gRPC and pickle of 110 KiB
LOG_RATE = LOGS["IMPALA"] * MIB / (HEADERS * TRAJECTORY_BITS / 8)  # steps/s of IMPALA in its log
DEVICE_SPEED = WORK / (ACTORS / LOG_RATE - ENVIRONMENT_TIME)  # FLOP/s, so that IMPALA runs at its log's rate
V100_SPEED = 0.25e12  # FLOP/s of one frame at a time: 1.9 ms, what about a hundred kernel launches take
TRAINING_TIME = 3 * WORK / 5e12  # s: forward and backward once a step, in batches that use a third of a V100
NEEDED_USE = 0.9  # GPU use of Seed-RL that Fig. 9 shows at least

NETWORKS = {"100 Mbit/s": FAST_ETHERNET, "10 MB/s": LIMIT, "1 Gbit/s": 10 * FAST_ETHERNET}
FIG9, FIG11 = ("100 Mbit/s", "10 MB/s"), ("100 Mbit/s", "1 Gbit/s")
BANDWIDTHS = (50, 40, 30, 20, 15, 12, 10, 8, 6, 5, 4, 3, 2)  # MB/s, Fig. 10
MOST_ACTORS = 128
MANY_ACTORS = 100  # large-scale in Fig. 11
FITTED, V100 = "GPU fitted", "V100"
PARTITIONED = tuple(range(1, NUM_CUTS))
SHOWN_CUTS = (3, 4, 5, 6)

# Thresholds of the verdicts.
CLOSE = 0.1  # relative difference of what is about the same
ABOUT_60 = (0.55, 0.65)  # GPU use
NEAR_CROSSING = (27, 45)  # actors: 36 and a quarter
SIGNIFICANT = 0.5  # part of the throughput that is left after a significant decline, at most
SAME = 1e-3  # relative difference of what is equally fast
SLIGHTLY = 1.25  # largest ratio of what is slightly faster

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


# The timeline


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


def machines(**changes: Any) -> Machines:
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
    return Machines(**(numbers | changes))


def cut_bits(pixel_bytes: float) -> np.ndarray:
    """b_0 to b_K in bit, with raw frames of so many bytes a pixel."""
    return np.array([8 * pixel_bytes * PIXELS, *TABLE.bits[1:]])


def _means(bits: Any, given: Machines, cut: Any, rates: Any, steady: Any) -> tuple[Any, Any]:
    """Throughput and GPU use, [actor]: of exponential service, or the bound that no service exceeds, if `steady`."""
    demands = step_demands(jnp.asarray(TABLE.flops), bits, cut, given)
    found, bound = mean_value_analysis(demands, rates), asymptotic_bounds(demands, rates.size).upper
    return jnp.where(steady, bound, found.throughput), jnp.where(steady, bound * demands.edge, found.edge_use)


@jax.jit
def _timelines(bits: Any, given: Machines, bandwidths: Any, rates: Any, steady: Any) -> tuple[Any, Any, Any]:
    def one(bandwidth: Any, cut: Any) -> tuple[Any, Any, Any]:
        here = given._replace(bandwidth=bandwidth)
        throughput, use = _means(bits, here, cut, rates, steady)
        return throughput, use, throughput * link_bits(bits, cut, here) / 8 / MIB

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(bandwidths, jnp.arange(NUM_CUTS + 1))


def _with_edge(given: Machines, speed: Any, even: Any) -> Machines:
    """The GPU takes `WORK / speed` for a whole inference; and for any part of it, if `even`."""
    return given._replace(
        edge_speed=jnp.where(even, jnp.inf, speed), dispatch_time=jnp.where(even, WORK / speed, given.dispatch_time)
    )


@jax.jit
def _seed_use(bits: Any, given: Machines, speeds: Any, rates: Any, steady: Any, even: Any) -> Any:
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
    given, rates = machines(**rest), batch_rates(MOST_ACTORS, batch, shared)
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
            mean_value_analysis(step_demands(flops, bits, jnp.array(y), given), rates).throughput for y in (0, cut)
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


# Claims on Figs. 9 to 11


def by_case(cases: Mapping[str, tuple[bool, str]], about: str = "") -> Verdict:
    """Holds in all cases, only in some, or in none; then what the words of the cases are about, and these."""
    text = about + "; ".join(f"{words} ({name})" for name, (_, words) in cases.items())
    held = [name for name, (holds, _) in cases.items() if holds]
    if len(held) == len(cases):
        return Verdict(Status.HOLDS, text)
    if not held:
        return Verdict(Status.FAILS, text)
    return Verdict(Status.ONLY_WHEN, f"{' / '.join(held)}. All cases: {text}")


def close(value: float, to: float) -> bool:
    """About the same."""
    return bool(abs(value / to - 1) <= CLOSE)


def _name(cuts: Sequence[int], gpu: str, network: str) -> str:
    """Of a case that holds at these cuts, if any."""
    return f"cut {', '.join(map(str, cuts))}, {gpu}, {network}" if cuts else f"{gpu}, {network}"


def _seed_fills_the_gpu(world: World) -> Verdict:
    use = world.at(V100, "100 Mbit/s").edge_use[0, ACTORS - 1]
    needed = world.edge_time[FITTED]
    text = (
        f"at {V100_SPEED / 1e12:g} TFLOP/s on one frame at a time the GPU is busy {100 * use:.0f} %; "
        f"{100 * NEEDED_USE:.0f} % take {1e3 * needed:.1f} ms a request ({WORK / needed / 1e9:.0f} GFLOP/s), "
        "to which the fitted GPU below is fitted"
    )
    if use >= NEEDED_USE:
        return Verdict(Status.HOLDS, text)
    return Verdict(Status.NOT_PUBLIC, f"how long a request holds the GPU: {text}")


def _sixty_percent(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        for network in FIG9:
            use = world.at(gpu, network).edge_use[:, ACTORS - 1]
            found = [cut for cut in PARTITIONED if ABOUT_60[0] <= use[cut] <= ABOUT_60[1]]
            words = ", ".join(f"{100 * use[cut]:.0f}" for cut in SHOWN_CUTS)
            cases[_name(found, gpu, network)] = bool(found), words
    return by_case(cases, f"% at cuts {', '.join(map(str, SHOWN_CUTS))}: ")


def _saves_gpu_at_no_loss(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        seed = world.at(gpu, "100 Mbit/s")
        for network in FIG9:
            here = world.at(gpu, network)
            saved = seed.edge_use[0, ACTORS - 1] - here.edge_use[:, ACTORS - 1]
            kept = here.throughput[:, ACTORS - 1] / seed.throughput[0, ACTORS - 1]
            found = [cut for cut in PARTITIONED if saved[cut] >= 0.25 and kept[cut] >= 1 - CLOSE]
            words = ", ".join(f"{100 * saved[cut]:.0f} at {100 * kept[cut]:.0f} %" for cut in SHOWN_CUTS)
            cases[_name(found, gpu, network)] = bool(found), words
    return by_case(cases, f"points saved at % of Seed-RL's rate at cuts {', '.join(map(str, SHOWN_CUTS))}: ")


def _seed_traffic(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        traffic = world.at(gpu, "100 Mbit/s").traffic[0, ACTORS - 1] * MIB / 1e6
        cases[gpu] = close(traffic, 12), f"{traffic:.1f} MB/s"
    return by_case(cases)


def _logged_traffic(world: World) -> Verdict:
    cases = {}
    for name, logged in LOGS.items():
        for gpu in world.curves:
            for network in FIG9 if name.startswith("cut") else FIG9[:1]:
                if name == "IMPALA" and gpu == V100:
                    continue
                traffic = world.at(gpu, network).traffic[LOG_CUTS[name], ACTORS - 1]
                note = " (f_d is fitted to it)" if name == "IMPALA" else ""
                cases[f"{name}, {gpu}, {network}"] = close(traffic, logged), f"{traffic:.2f} for {logged:.2f}{note}"
    return by_case(cases, "MiB/s: ")


def _logged_rates(world: World) -> Verdict:
    logged = {name: LOGS[name] / LOGS["Seed-RL"] for name in ("cut 3", "cut 4")}
    cases = {}
    for gpu in world.curves:
        for network in FIG9:
            seed = world.at(gpu, "100 Mbit/s").throughput[0, ACTORS - 1]
            for name, ratio in logged.items():
                found = world.at(gpu, network).throughput[LOG_CUTS[name], ACTORS - 1] / seed
                cases[f"{name}, {gpu}, {network}"] = close(found, ratio), f"{found:.2f} for {ratio:.2f}"
    return by_case(cases)


def _seed_at_the_limit(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        left = (
            world.at(gpu, "10 MB/s").throughput[0, ACTORS - 1] / world.at(gpu, "100 Mbit/s").throughput[0, ACTORS - 1]
        )
        cases[gpu] = bool(0.75 <= left <= 0.99), f"{100 * left:.0f} % of its rate are left"
    return by_case(cases)


def _fig10(world: World) -> Iterator[tuple[str, np.ndarray, Mapping[str, np.ndarray], np.ndarray]]:
    for gpu in world.curves:
        found = world.fig10(gpu)
        yield gpu, found[0], coknights(found), found[NUM_CUTS]


def _seed_declines(world: World) -> Verdict:
    cases = {}
    for gpu, seed, _, _ in _fig10(world):
        cases[gpu] = bool(seed[-1] / seed[0] <= SIGNIFICANT), f"{seed[0]:.0f} to {seed[-1]:.1f} requests/s"
    return by_case(cases)


def _coknight_declines_less(world: World) -> Verdict:
    cases = {}
    for gpu, seed, ours, _ in _fig10(world):
        for name, rate in ours.items():
            left, theirs = rate[-1] / rate[0], seed[-1] / seed[0]
            cases[f"{name}, {gpu}"] = bool(left >= (1 + CLOSE) * theirs), f"{100 * left:.0f} against {100 * theirs:.0f}"
    return by_case(cases, "% of the rate left at 2 MB/s, against Seed-RL's: ")


def _coknight_ends_as_impala(world: World) -> Verdict:
    cases = {}
    for gpu, _, ours, impala in _fig10(world):
        for name, rate in ours.items():
            cases[f"{name}, {gpu}"] = close(rate[-1], impala[-1]), f"{rate[-1]:.1f} for {impala[-1]:.1f}"
    return by_case(cases, "steps/s at 2 MB/s, for IMPALA's: ")


def _fig11(world: World) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rates of Seed-RL and of Coknight, [actor], for each GPU, network and choice of cuts."""
    for gpu in world.curves:
        for network in FIG11:
            throughput = world.at(gpu, network).throughput
            for name, ours in coknights(throughput).items():
                yield f"{name}, {gpu}, {network}", throughput[0], ours


def _seed_faster_when_few(world: World) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = seed[: CROSSING - 1] / ours[: CROSSING - 1]
        holds = bool((ratio >= 1 - SAME).all() and ratio.max() <= SLIGHTLY)
        cases[name] = holds, f"{ratio[3]:.2f}, {ratio[11]:.2f}, {ratio[34]:.2f}"
    return by_case(cases, "Seed-RL's rate over Coknight's at 4, 12, 35 actors: ")


def _crosses_near_36(world: World) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        place = crossing(seed, ours)
        holds = place is not None and NEAR_CROSSING[0] <= place <= NEAR_CROSSING[1]
        cases[name] = holds, "no crossing" if place is None else f"from {place} actors"
    return by_case(cases)


def _rates_decline(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        for network in FIG11:
            here = world.at(gpu, network).throughput
            rates = np.stack([here[0], best_partition(here)])
            total = bool((rates[:, MANY_ACTORS - 1] < rates[:, ACTORS - 1] * (1 - SAME)).all())
            each = rates[:, MANY_ACTORS - 1] * ACTORS / MANY_ACTORS / rates[:, ACTORS - 1]
            words = f"{100 * each[0]:.0f} and {100 * each[1]:.0f}"
            cases[f"an actor's rate, {gpu}, {network}"] = bool((each < 1 - CLOSE).all()), words
            words = ", ".join(f"{100 * left:.0f}" for left in each * MANY_ACTORS / ACTORS)
            cases[f"all actors' rate, {gpu}, {network}"] = total, words
    return by_case(cases, f"% left at {MANY_ACTORS} actors of the rate at {ACTORS}, Seed-RL and Coknight's best cut: ")


def _coknight_scales(world: World) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = ours[MANY_ACTORS - 1] / seed[MANY_ACTORS - 1]
        cases[name] = bool(ratio >= 1 + CLOSE), f"{ratio:.2f}"
    return by_case(cases, f"Coknight's rate over Seed-RL's at {MANY_ACTORS} actors: ")


def _faster(world: World, coknight: bool) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = ours[ACTORS - 1] / seed[ACTORS - 1]
        cases[name] = bool(ratio > 1 + SAME if coknight else ratio < 1 - SAME), f"{ratio:.2f}"
    return by_case(cases, "Coknight's rate over Seed-RL's: ")


def _not_run(world: World) -> Verdict:
    return Verdict(Status.NOT_RUN, "training on Atari games is not a part of this page")


@dataclass(frozen=True)
class Claim:
    """A claim of section 5.2, in our words, and what decides on it."""

    id: str
    words: str
    judge: Callable[..., Verdict]


TIMELINE_CLAIMS = (
    Claim("C1", "Fig. 8: Coknight converges like Seed-RL, IMPALA more slowly", _not_run),
    Claim("G1", "Fig. 9: Seed-RL uses more than 90 % of the GPU", _seed_fills_the_gpu),
    Claim("G2", "Fig. 9: Coknight uses about 60 % of the GPU", _sixty_percent),
    Claim("G3", "Fig. 9: Coknight saves about 30 points of GPU use at almost the same rate", _saves_gpu_at_no_loss),
    Claim("T1", "Fig. 9: Seed-RL sends about 12 MB/s", _seed_traffic),
    Claim(
        "T2", "Logs: traffic of 11.25 (Seed-RL), 10.56 (cut 3), 9.88 (cut 4) and 2.00 MiB/s (IMPALA)", _logged_traffic
    ),
    Claim(
        "T3",
        "Logs: Coknight's rate is 94 % (cut 3) and 88 % (cut 4) of Seed-RL's, as bytes a step are equal",
        _logged_rates,
    ),
    Claim("T4", "Limited to Coknight's 10 MB/s, Seed-RL would decline moderately", _seed_at_the_limit),
    Claim("B1", "Fig. 10: Seed-RL declines significantly from 50 to 2 MB/s", _seed_declines),
    Claim("B2", "Fig. 10: Coknight declines more moderately", _coknight_declines_less),
    Claim("B3", "Fig. 10: Coknight comes into line with IMPALA in the end", _coknight_ends_as_impala),
    Claim("S1", "Fig. 11: with fewer than 36 actors Seed-RL is slightly faster", _seed_faster_when_few),
    Claim("S2", "Fig. 11: the two cross near 36 actors", _crosses_near_36),
    Claim("S3", "Fig. 11: with more actors the rates of both decline", _rates_decline),
    Claim("S4", "Fig. 11: with many actors Coknight is faster", _coknight_scales),
    Claim("R1", "Section 5.2.1: with 12 actors Coknight is slightly faster than Seed-RL", lambda w: _faster(w, True)),
    Claim("R2", "Section 5.2.3: in the same runs Seed-RL is the faster one", lambda w: _faster(w, False)),
)


# The partition game


SIZES = (8, 16, 32, 64, 128, 256)  # devices
FIXED_FOR = 32  # devices: N r_0 of the server that does not grow
DRAWS = 6
"""Draws of devices that results are means over."""

ELASTIC, FIXED = "elastic", "fixed"
MILP, DEFP, IGREEDY, BY_DENSITY, BY_UTILITY, NASH, RANDOM = (
    "MILP",
    "DEFP",
    "IGreedy",
    "OGreedy, density",
    "OGreedy, utility",
    "Best responses",
    "Random",
)
GREEDY = (IGREEDY, BY_DENSITY, BY_UTILITY)
METRICS = ("reduction", "var_cut", "var_utility", "local")

# Where the paper gives no number: three types of devices, the Raspberry Pi 4B among them, and what the server has.
DEVICE_SPEEDS = (1e9, DEVICE_SPEED, 1e10)  # FLOP/s
REQUEST_RATE = 1.0  # 1/s, as eqs. 10 and 11 have no rate
SHARE = 0.5  # r_0: this part of a whole inference and of a raw frame per device and second

# Thresholds of the verdicts.
NEAR = 0.95  # of the optimum
FAR = 0.75  # of DEFP's reduction, at most, of what lies far below it
AT_OPTIMUM = 0.999
POWER_SLACK = 0.2  # by which a measured exponent may exceed the bound's

OWN_SPEEDS = "a speed of its own for each device"
GAMES: dict[str, dict[str, float]] = {
    "defaults": {},
    OWN_SPEEDS: {"own_speeds": 1},
    "frames of 1 byte a pixel": {"pixel_bytes": 1},
    "r_0 = 25 %": {"compute": 0.25, "bandwidth": 0.25},
    "r_0 = 75 %": {"compute": 0.75, "bandwidth": 0.75},
    "compute alone is scarce": {"bandwidth": 8},
    "bandwidth alone is scarce": {"compute": 8},
    "the fitted GPU": {"edge_speed": 5.3e10},
}

type Reductions = Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
"""[server][algorithm][metric] of one row of `GAMES`: means over devices, [size, draw]."""


def game(speeds: Any, elastic: Any, numbers: Mapping[str, Any]) -> Game:
    """The game of devices of these speeds, [device].

    Args:
        speeds: FLOP/s.
        elastic: Whether the server grows with the devices.
        numbers: Bytes of a pixel, f_e, and r_0 of compute and bandwidth as parts of an inference and a raw frame.
    """
    flops = jnp.asarray(TABLE.flops)
    bits = jnp.asarray(TABLE.bits).at[0].set(8 * PIXELS * numbers["pixel_bytes"])
    gains = utilities(response_times(flops, bits, speeds, numbers["edge_speed"], jnp.asarray(FAST_ETHERNET)))
    rate = jnp.full(speeds.shape, REQUEST_RATE)
    own = REQUEST_RATE * jnp.stack([numbers["compute"] * flops.sum(), numbers["bandwidth"] * bits[0]])
    return make_game(gains, resource_use(flops, bits, rate, rate), jnp.where(elastic, 1, FIXED_FOR) * own, elastic)


def game_numbers(changes: Mapping[str, float]) -> dict[str, float]:
    """The numbers of `game`, some of them changed."""
    return {"pixel_bytes": 4.0, "edge_speed": V100_SPEED, "compute": SHARE, "bandwidth": SHARE} | dict(changes)


def everyone(of: Game) -> Allocation:
    """All devices are there and run all themselves."""
    return nobody(of)._replace(present=jnp.ones(of.utility.shape[0], bool))


def random_cuts(of: Game, key: Any) -> Allocation:
    """Devices come in the order of their numbers, and each takes a random one of the cuts that fit."""

    def come(so_far: Allocation, turn: tuple[Any, Any]) -> tuple[Allocation, None]:
        device, key = turn
        so_far = arrival(of, so_far, device)
        logits = jnp.where(allowed(of, so_far, device), 0.0, -jnp.inf)
        return take(of, so_far, device, jax.random.categorical(key, logits)), None

    devices = of.utility.shape[0]
    return jax.lax.scan(come, nobody(of), (jnp.arange(devices), jax.random.split(key, devices)))[0]


ALGORITHMS: dict[str, Callable[[Game, Any], Allocation]] = {
    DEFP: lambda of, key: solvers.defp(of),
    IGREEDY: lambda of, key: solvers.igreedy(of),
    BY_DENSITY: lambda of, key: solvers.ogreedy(of, everyone(of).present, "density"),
    BY_UTILITY: lambda of, key: solvers.ogreedy(of, everyone(of).present, "utility"),
    NASH: lambda of, key: solvers.best_response_dynamics(of, everyone(of)),
    RANDOM: random_cuts,
}


@partial(jax.jit, static_argnames="algorithm")
def _cuts(algorithm: str, games: Game, keys: Any) -> Any:
    """Of many games, [game, device]."""
    return jax.vmap(ALGORITHMS[algorithm])(games, keys).cut


_games = jax.jit(jax.vmap(jax.vmap(jax.vmap(game, (0, None, 0)), (None, 0, None)), (0, None, None)))
"""`game` of many, [draw, server, row], with speeds of [draw, row, device]."""


def measures(gains: np.ndarray, cut: np.ndarray) -> dict[str, float]:
    """Of one allocation: mean latency reduction (s), variances of cut and reduction (s^2), part of local devices."""
    own = np.take_along_axis(gains, cut[:, None], axis=1)[:, 0]
    local = float(np.mean(cut == gains.shape[1] - 1))
    return dict(zip(METRICS, (float(own.mean()), float(cut.var()), float(own.var()), local), strict=True))


def partitions(
    rows: Sequence[Mapping[str, float]], sizes: Sequence[int], draws: int
) -> list[dict[str, dict[str, dict[str, np.ndarray]]]]:
    """Every algorithm and the optimum on the same games, one table of `Reductions` for each row of numbers."""
    servers = (ELASTIC, FIXED)
    empty = np.zeros((len(sizes), draws))
    tables: list[dict[str, dict[str, dict[str, np.ndarray]]]] = [
        {
            server: {name: {metric: empty.copy() for metric in METRICS} for name in (MILP, *ALGORITHMS)}
            for server in servers
        }
        for _ in rows
    ]
    own = np.array([bool(row.get("own_speeds", 0)) for row in rows])
    numbers = [game_numbers({name: value for name, value in row.items() if name != "own_speeds"}) for row in rows]
    stacked = {name: jnp.array([row[name] for row in numbers]) for name in numbers[0]}
    elastic = jnp.array([server == ELASTIC for server in servers])
    for place, size in enumerate(sizes):
        generator = np.random.default_rng(size)
        alike = generator.permuted(np.tile(np.resize(DEVICE_SPEEDS, size), (draws, 1)), axis=1)
        unlike = np.exp(generator.uniform(*np.log([min(DEVICE_SPEEDS), max(DEVICE_SPEEDS)]), size=alike.shape))
        speeds = np.where(own[:, None], unlike[:, None], alike[:, None])
        games = _games(speeds, elastic, stacked)
        lanes = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), games)
        keys = jax.random.split(jax.random.key(size), lanes.elastic.size)
        shape = draws, len(servers), len(rows)
        cuts = {name: np.asarray(_cuts(name, lanes, keys)).reshape(*shape, size) for name in ALGORITHMS}
        gains = np.asarray(games.utility, float)
        for draw, server, row in np.ndindex(*shape):
            one = jax.tree.map(lambda x, at=(draw, server, row): np.asarray(x[at]), games)
            found = {name: cut[draw, server, row] for name, cut in cuts.items()} | {MILP: solvers.optimum(one).cut}
            for name, cut in found.items():
                for metric, value in measures(gains[draw, server, row], cut).items():
                    tables[row][servers[server]][name][metric][place, draw] = value
    return tables


class Times(NamedTuple):
    """Seconds of DEFP on one game, medians of repeats."""

    sizes: Sequence[int]  # devices
    by_size: np.ndarray  # [size], with the network's cuts
    cuts: Sequence[int]  # K
    by_cuts: np.ndarray  # [cuts], with `DEVICES_TIMED` devices


SIZES_TIMED, CUTS_TIMED, DEVICES_TIMED, REPEATS = (64, 128, 256, 512), (5, 10, 20, 40), 128, 15


def defp_times(sizes: Sequence[int], cuts: Sequence[int], devices: int, repeats: int) -> Times:
    """How long DEFP takes for all to come, without compiling: random utilities and uses, as only shapes matter."""

    def seconds(size: int, num_cuts: int) -> float:
        generator = np.random.default_rng(size)
        gains, use = generator.uniform(size=(size, num_cuts + 1)), generator.uniform(size=(2, size, num_cuts + 1))
        gains[:, -1], use[:, :, -1] = 0, 0
        one = make_game(jnp.asarray(gains), jnp.asarray(use), jnp.full(2, size / 4), jnp.array(False))
        program = jax.jit(solvers.defp)
        jax.block_until_ready(program(one))
        marks = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(program(one))
            marks.append(time.perf_counter() - start)
        return float(np.median(marks))

    by_size = np.array([seconds(size, NUM_CUTS) for size in sizes])
    return Times(sizes, by_size, cuts, np.array([seconds(devices, num_cuts) for num_cuts in cuts]))


def power(x: Sequence[float], y: np.ndarray) -> float:
    """The exponent of y over x at the three largest x, where what is constant weighs least."""
    return float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0])


# Claims on Fig. 12. They get the table of one row, the sizes and the times.


def _near_optimum(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        ratio = found[DEFP]["reduction"] / found[MILP]["reduction"]
        cases[server] = bool((ratio.mean(1) >= NEAR).all()), f"{100 * ratio.mean(1).min():.1f}"
    return by_case(cases, "DEFP's reduction as % of MILP's, at the worst size: ")


def _far_above_greedy(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        for name in GREEDY:
            ratio = (found[name]["reduction"] / found[DEFP]["reduction"]).mean(1)
            words = ", ".join(f"{100 * x:.0f}" for x in ratio)
            cases[f"{name}, {server}"] = bool(ratio[-1] <= FAR), words
    return by_case(cases, f"reduction as % of DEFP's with {', '.join(map(str, sizes))} devices, the last decides: ")


def _less_variance(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        for metric, name in (("var_cut", "Var(y)"), ("var_utility", "Var(u)")):
            ours, theirs = found[DEFP][metric].mean(1), found[MILP][metric].mean(1)
            crowded = theirs > 0
            ratio = ours[crowded] / theirs[crowded]
            words = ", ".join(f"{x:.2f}" for x in ratio)
            cases[f"{name}, {server}"] = bool(ratio.size and ratio[-1] < 1 - SAME), words
    return by_case(cases, "DEFP's over MILP's where that is not 0, the largest size decides: ")


def _reaches_optimum(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    ratio = (table[FIXED][DEFP]["reduction"] / table[FIXED][MILP]["reduction"]).mean(1)
    text = f"{', '.join(f'{100 * x:.2f}' for x in ratio)} % of MILP's with {', '.join(map(str, sizes))} devices"
    return Verdict(Status.HOLDS if ratio[-1] >= AT_OPTIMUM else Status.FAILS, text)


def _near_linear(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for name in (DEFP, MILP):
        each = table[ELASTIC][name]["reduction"].mean(1)[1:]
        cases[name] = bool(each.max() / each.min() <= 1 + CLOSE), f"{1e3 * each.min():.1f} to {1e3 * each.max():.1f}"
    return by_case(cases, f"ms a device, with {sizes[1]} to {sizes[-1]} devices: ")


def _greedy_goes_local(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        for name in GREEDY:
            local, var = found[name]["local"][-1].mean(), found[name]["var_cut"][-1].mean()
            theirs, ours = found[DEFP]["local"][-1].mean(), found[DEFP]["var_cut"][-1].mean()
            words = f"{100 * local:.0f} and {100 * theirs:.0f} % local, Var(y) {var:.1f} and {ours:.1f}"
            cases[f"{name}, {server}"] = bool(local > theirs and var < ours), words
    return by_case(cases, f"it and DEFP, with {sizes[-1]} devices: ")


def _steps_reach_optimum(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        ratio = found[NASH]["reduction"] / found[MILP]["reduction"]
        cases[server] = bool(ratio.min() >= AT_OPTIMUM), f"{100 * ratio.min():.1f}"
    return by_case(cases, "the worst Nash equilibrium that best responses from all-local end in, as % of MILP's: ")


def _polynomial(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    devices, cuts = power(times.sizes, times.by_size), power(times.cuts, times.by_cuts)
    text = (
        f"time grows as N^{devices:.2f} from {times.sizes[-3]} to {times.sizes[-1]} devices and as K^{cuts:.2f} from "
        f"{times.cuts[-3]} to {times.cuts[-1]} cuts; {1e3 * times.by_size[-1]:.0f} ms for {times.sizes[-1]} devices"
    )
    holds = max(devices, cuts) <= 2 + POWER_SLACK
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


PARTITION_CLAIMS = (
    Claim("P1", "Fig. 12: DEFP is near MILP in total latency reduction", _near_optimum),
    Claim("P2", "Fig. 12: the greedy algorithms lie far below DEFP", _far_above_greedy),
    Claim("P3", "Fig. 12: DEFP has less variance than MILP", _less_variance),
    Claim("P4", "Fig. 12: with a fixed server DEFP comes to reach the optimum", _reaches_optimum),
    Claim("P5", "Fig. 12: with an elastic server the reductions grow nearly linearly", _near_linear),
    Claim("P6", "Fig. 12: greedy devices tend to run locally, so that variances are lower", _greedy_goes_local),
    Claim(
        "P7", "Section 5.2.3: as a potential game it reaches the optimum by finitely many steps", _steps_reach_optimum
    ),
    Claim("P8", "Theorem 3: DEFP takes O(K^2 N^2)", _polynomial),
)


# The page


COUNTS = (1, 2, 4, 8, 12, 16, 24, 36, 48, 64, 96, 128)  # actors in data.json
EDGE_TIMES, SPEEDS = np.geomspace(5e-4, 1.5e-2, 31), np.geomspace(1e9, 3e10, 31)  # s and FLOP/s, of the map
SHOWN = {"Seed-RL": "k-", "cut 3": "C0-", "cut 4": "C1-", "best cut": "C2-", "IMPALA": "C3--"}


def frameworks(throughput: np.ndarray) -> dict[str, np.ndarray]:
    """Of [cut, ...], by the names of `SHOWN`."""
    return {"Seed-RL": throughput[0], **coknights(throughput), "IMPALA": throughput[NUM_CUTS]}


def draw_fig9(world: World) -> Figure:
    """GPU use and traffic against the cut, with what the paper and its logs say."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    use, traffic = figure.subplots(1, 2)
    for gpu, style in zip(world.curves, ("-", ":"), strict=True):
        for network, color in zip(FIG9, ("C0", "C1"), strict=True):
            here = world.at(gpu, network)
            label = f"{gpu}, {network}"
            use.plot(100 * here.edge_use[:, ACTORS - 1], color + style, marker=".", label=label)
            traffic.plot(here.traffic[:, ACTORS - 1], color + style, marker=".", label=label)
    for share in (60, 90):
        use.axhline(share, color="0.7", linewidth=0.8)
    places = [LOG_CUTS[name] for name in LOGS]
    traffic.plot(places, list(LOGS.values()), "kx", label="the authors' logs")
    use.set_ylabel("GPU use, %")
    traffic.set_ylabel("traffic, MiB/s")
    for axes in (use, traffic):
        axes.set_xlabel("cut y: 0 is Seed-RL, 10 is IMPALA")
        axes.set_ylim(bottom=0)
    traffic.legend(fontsize=7)
    return figure


def draw_fig10(world: World) -> Figure:
    """Throughput against bandwidth."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, gpu in zip(figure.subplots(1, 2), world.curves, strict=True):
        for name, rate in frameworks(world.fig10(gpu)).items():
            axes.plot(BANDWIDTHS, rate, SHOWN[name], marker=".", label=name)
        axes.set_title(f"{gpu}, {FEW_ACTORS} actors")
        axes.set_xlabel("bandwidth, MB/s")
        axes.set_ylabel("steps/s")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks((50, 20, 10, 5, 2), labels=("50", "20", "10", "5", "2"))
        axes.set_xticks([], minor=True)
        axes.invert_xaxis()
        axes.legend(fontsize=7)
    return figure


def draw_fig11(world: World, maps: Mapping[int, np.ndarray]) -> Figure:
    """Throughput against actors, and where the crossing lies."""
    figure = Figure(figsize=(12, 9.6), layout="constrained")
    grid = figure.subplots(3, 2)
    actors = np.arange(1, MOST_ACTORS + 1)
    for row, network in zip(grid[:2], FIG11, strict=True):
        for axes, gpu in zip(row, world.curves, strict=True):
            for name, rate in frameworks(world.at(gpu, network).throughput).items():
                axes.plot(actors, rate, SHOWN[name], label=name)
            axes.axvline(CROSSING, color="0.7", linewidth=0.8)
            axes.set_title(f"{gpu}, {network}")
            axes.set_xlabel("actors")
            axes.set_ylabel("steps/s")
    grid[0, 0].legend(fontsize=7)
    for axes, (cut, found) in zip(grid[2], maps.items(), strict=True):
        image = axes.pcolormesh(SPEEDS / 1e9, 1e3 * EDGE_TIMES, found, vmin=0, vmax=MOST_ACTORS)
        if np.isfinite(found).any():
            axes.contour(SPEEDS / 1e9, 1e3 * EDGE_TIMES, np.ma.masked_invalid(found), NEAR_CROSSING, colors="w")
        for seconds in world.edge_time.values():
            axes.plot(DEVICE_SPEED / 1e9, 1e3 * seconds, "wx")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"actors at the crossing, cut {cut}, 1 Gbit/s")
        axes.set_xlabel("f_d, GFLOP/s")
        axes.set_ylabel("GPU time of an inference, ms")
        figure.colorbar(image, ax=axes)
    return figure


def draw_fig12(table: Reductions, sizes: Sequence[int], times: Times) -> Figure:
    """Total reduction and variances of each algorithm with both servers, and the time of DEFP."""
    figure = Figure(figsize=(16, 9.6), layout="constrained")
    grid = figure.subplots(3, 4)
    titles = ("total reduction, s", "reduction, % of MILP's", "Var(y)", "Var(u), s^2")
    for row, (server, found) in zip(grid[:2], table.items(), strict=True):
        for index, (name, values) in enumerate(found.items()):
            mean = {metric: x.mean(1) for metric, x in values.items()}
            shown = (
                mean["reduction"] * sizes,
                100 * mean["reduction"] / found[MILP]["reduction"].mean(1),
                mean["var_cut"],
                mean["var_utility"],
            )
            style = {MILP: "k-", DEFP: "C0--"}.get(name, f"C{index}-")
            for axes, numbers in zip(row, shown, strict=True):
                axes.plot(sizes, numbers, style, marker=".", label=name)
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel(f"devices, {server} server")
        for axes in row[1:]:
            axes.set_xscale("log", base=2)
    grid[0, 0].legend(fontsize=7)
    for axes, x, y, name in zip(
        grid[2], (times.sizes, times.cuts), (times.by_size, times.by_cuts), ("devices", "cuts K"), strict=False
    ):
        axes.loglog(x, 1e3 * y, "C0-", marker=".")
        axes.set_xticks(x, labels=list(map(str, x)))
        axes.set_xticks([], minor=True)
        axes.set_xlabel(name)
        axes.set_ylabel("DEFP, ms")
    for axes in grid[2, 2:]:
        axes.axis("off")
    return figure


class Report(NamedTuple):
    """All that was measured."""

    worlds: Mapping[str, World]  # by the rows of SENSITIVITY
    maps: Mapping[int, np.ndarray]  # crossings by cut
    tables: Mapping[str, Reductions]  # by the rows of GAMES
    sizes: Sequence[int]
    times: Times

    def verdicts(self) -> dict[Claim, Verdict]:
        """At the defaults."""
        world, table = self.worlds["defaults"], self.tables["defaults"]
        return {claim: claim.judge(world) for claim in TIMELINE_CLAIMS} | {
            claim: claim.judge(table, self.sizes, self.times) for claim in PARTITION_CLAIMS
        }


def write_page(folder: Path, report: Report, command: str, seconds: float) -> dict[Claim, Verdict]:
    """Write README.md, the figures and data.json; the verdicts.

    Args:
        folder: Where to.
        report: What was measured.
        command: What made it.
        seconds: How long that took.
    """
    verdicts = report.verdicts()
    world, table = report.worlds["defaults"], report.tables["defaults"]
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "fig9": draw_fig9(world),
        "fig10": draw_fig10(world),
        "fig11": draw_fig11(world, report.maps),
        "fig12": draw_fig12(table, report.sizes, report.times),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=90)
    statuses = [verdict.status for verdict in verdicts.values()]
    count = ", ".join(f'{statuses.count(status)} "{status}"' for status in Status if status in statuses)
    about = machine()
    lines = [
        "# Timeline and partition game, Dai et al. 2022 (Coknight)",
        "",
        'H. Dai, J. Wu, Y. Wang, C. Xu, "Towards Scalable and Efficient Deep-RL in Edge Computing: A Game-based '
        'Partition Approach", Journal of Parallel and Distributed Computing 168, 2022.',
        "",
        f"    {command}",
        "",
        f"{len(verdicts)} claims: {count}. Verdicts are computed; the thresholds are in "
        "`benchmarks/reproduce/coknight.py`. A claim on several cases holds in all, only in those that its verdict "
        "names first, or in none. The figures' curves are not at hand, only what the text says of them, the authors' "
        "code (github.com/daihao42/coknight) and its traffic logs. Fig. 8, the convergence of the three frameworks "
        "with V-trace, is not reproduced here.",
        "",
        f"Machine: {about['cpu']}, {about['cores']} cores; jax {about['jax']}. Time: {seconds:.0f} s.",
        "",
        "| | The paper says | Verdict | Measured |",
        "|---|---|---|---|",
        *(f"| {c.id} | {c.words} | **{v.status}** | {v.text} |" for c, v in verdicts.items()),
        "",
        *_findings(report),
        "",
        "## Figs. 9 to 11",
        "",
        "Means of a closed queueing network (`mec_jax.physics.actor_learner`). Coknight is what its logs name, cuts 3 "
        'and 4 for all actors, or "best cut": the cut inside the network that is fastest at each place, for all actors '
        "alike, which is more than its algorithm promises.",
        "",
        *_numbers(world),
        "",
        "![GPU use and traffic against the cut](fig9.png)",
        "",
        *_by_cut(world),
        "",
        "![Rate against bandwidth](fig10.png)",
        "",
        "![Rate against actors, and where the two cross](fig11.png)",
        "",
        f"White lines in the maps are {NEAR_CROSSING[0]} and {NEAR_CROSSING[1]} actors, crosses the two GPUs; where a "
        "map is white, the two do not cross.",
        "",
        *_sensitivity(report.worlds, TIMELINE_CLAIMS[1:], lambda claim, world: claim.judge(world)),
        "",
        "## Fig. 12",
        "",
        f"Devices of {', '.join(f'{speed / 1e9:.2g}' for speed in DEVICE_SPEEDS)} GFLOP/s, as many of each, in random "
        f"order; f_e = {V100_SPEED / 1e12:g} TFLOP/s for a request, 100 Mbit/s for each, {REQUEST_RATE:g} request/s. "
        f"The elastic server has N r_0, r_0 being {100 * SHARE:.0f} % of an inference and of a raw frame a second; the "
        f"fixed one has what that gives {FIXED_FOR} devices. The paper gives none of these. Means over {DRAWS} draws. "
        "The paper does not define OGreedy: choices are sorted by utility, or by utility over the sum of the parts of "
        "the two capacities that they use. Best responses start from all-local and end in a Nash equilibrium.",
        "",
        "![Reduction, variances and time](fig12.png)",
        "",
        *_reductions(table, report.sizes),
        "",
        *_sensitivity(
            report.tables, PARTITION_CLAIMS[:-1], lambda claim, row: claim.judge(row, report.sizes, report.times)
        ),
    ]
    write(folder / "README.md", "\n".join(lines) + "\n")
    write(folder / "data.json", json.dumps(_data(report, about)) + "\n")
    return verdicts


def _findings(report: Report) -> Iterator[str]:
    """What the numbers say beside the verdicts."""
    world = report.worlds["defaults"]
    pulled = LOG_RATE * HEADERS * (TRAJECTORY_BITS / 8 + MODEL_BYTES / PULL_INTERVAL) / 1e6
    gain = 100 * (1 / NEEDED_USE - 1)
    fitted = world.edge_time[FITTED]
    yield "## Findings"
    yield ""
    yield (
        "- The logs are of a full 100 Mbit/s link. They are dstat's, whose M is 2^20 byte, and the largest second is "
        f"11.7 of Seed-RL and 11.6 of either cut: 100 Mbit/s give {FAST_ETHERNET / 8 / MIB:.2f}. So cuts 3 and 4 were "
        'not held to 10 MB/s, and Seed-RL\'s "12 MB/s" is the limit of the link, not its need.'
    )
    yield (
        "- The authors' code divides frames by 255 before the cut, so that Seed-RL sends them in 32 bit: 110.25 KiB, "
        "exactly what cuts 3 and 4 send, and every actor uploads its trajectory. Traffic is then in proportion to "
        "steps, and these cuts save no bandwidth: only cuts from 5 on do, from 6 on if a pixel has one byte."
    )
    if "frames of 1 byte a pixel" in report.worlds:
        small = report.worlds["frames of 1 byte a pixel"]
        rates = small.at(FITTED, "100 Mbit/s").throughput[:, ACTORS - 1]
        yield (
            f"- With a byte a pixel {100 * NEEDED_USE:.0f} % GPU use would take "
            f"{1e3 * small.edge_time[FITTED]:.1f} ms a request, which is nearer to a V100; but then cut 3 has "
            f"{100 * rates[3] / rates[0]:.0f} % of Seed-RL's rate, against almost the same in the paper."
        )
    yield (
        f"- IMPALA's log is {LOG_RATE:.0f} steps/s of trajectories, in uploads of {UNROLL} steps, and nothing else. "
        f"Pulling the code's network ({MODEL_BYTES / 1e6:.0f} MB) once in {PULL_INTERVAL} steps would make it "
        f"{pulled:.0f} MB/s. So by default the model is not pulled over the link; two rows of the table below do it."
    )
    yield (
        f"- Figs. 9 and 11 do not fit one GPU. A use of {100 * NEEDED_USE:.0f} % with {ACTORS} actors leaves Seed-RL "
        f"at most {gain:.0f} % to gain from more actors, whatever the service times, so that a cut that relieves the "
        f"GPU overtakes it long before {CROSSING} actors. A crossing near that number takes a GPU that is several "
        "times faster (the map below; the crosses are the two GPUs)."
    )
    parts = []
    for gpu in world.curves:
        for network in FIG11:
            rates = world.at(gpu, network).throughput[:, ACTORS - 1]
            parts.append(f"{rates[3] / rates[0]:.2f} and {rates[4] / rates[0]:.2f} ({gpu}, {network})")
    yield (
        "- Which is faster, Seed-RL or Coknight? The text says both. By the logs Seed-RL is: cuts 3 and 4 send "
        f"{LOGS['cut 3'] / LOGS['Seed-RL']:.2f} and {LOGS['cut 4'] / LOGS['Seed-RL']:.2f} of its bytes, which are as "
        f"many a step. By the timeline with {ACTORS} actors they have {'; '.join(parts)} of its rate: on a full link "
        "they are nearly equal, Coknight is faster where the GPU is the bottleneck, Seed-RL where nothing is full."
    )
    yield (
        "- In a closed network one actor more never slows all of them down. That the rates of both decline can only "
        "mean an actor's own rate, or contention that the paper does not describe."
    )
    yield (
        f"- A GPU of 15.7 TFLOP/s that spends {1e3 * fitted:.1f} ms on {WORK / 1e6:.0f} MFLOP runs at "
        f"{100 * WORK / fitted / 15.7e12:.1f} % of its peak. The network has {MODEL_BYTES / 1e6:.0f} MB of weights, "
        "99.9 % of them after cut 4, and one frame at a time is bound by reading them and by launching kernels: FLOP "
        "(eq. 5) overstate what early cuts save."
    )
    for name in ("defaults", "frames of 1 byte a pixel"):
        if name in report.tables:
            found = report.tables[name][ELASTIC]
            shares = [
                f"{100 * (found[rule]['reduction'] / found[MILP]['reduction']).mean(1)[-1]:.0f} % ({rule})"
                for rule in (DEFP, *GREEDY, NASH)
            ]
            yield (
                f"- Of the optimum of Fig. 12, elastic server, {report.sizes[-1]} devices, {name}: {', '.join(shares)}."
            )
    if OWN_SPEEDS in report.tables:
        worst = {
            (name, server): 100 * (found[DEFP]["reduction"] / found[MILP]["reduction"]).mean(1).min()
            for name in ("defaults", OWN_SPEEDS)
            for server, found in report.tables[name].items()
        }
        yield (
            "- DEFP is near the optimum where devices come in three speeds, at worst "
            f"{worst['defaults', ELASTIC]:.0f} % (elastic) and {worst['defaults', FIXED]:.0f} % (fixed server) on "
            f"average at a size. With {OWN_SPEEDS} it is at {worst[OWN_SPEEDS, ELASTIC]:.0f} and "
            f"{worst[OWN_SPEEDS, FIXED]:.0f} %."
        )
    least = {
        rule: min(
            float((found[rule]["reduction"] / found[DEFP]["reduction"]).mean(1).min())
            for table in report.tables.values()
            for found in table.values()
        )
        for rule in (BY_DENSITY, BY_UTILITY)
    }
    yield (
        "- Sorted by density, offline greedy first gives everyone a late cut that uses next to nothing, saves little, "
        "and stays there: so it can lie far below DEFP, as the paper's does, unless raw frames are small. At the worst "
        f"size of all rows below it has {100 * least[BY_DENSITY]:.0f} % of DEFP's reduction, and "
        f"{100 * least[BY_UTILITY]:.0f} % sorted by utility."
    )


def _numbers(world: World) -> Iterator[str]:
    """What was given, fitted or assumed."""
    yield "| | value | from |"
    yield "|---|---|---|"
    fitted = world.edge_time[FITTED]
    for name, value, source in (
        ("actors", f"{ACTORS}; {FEW_ACTORS} in Fig. 10", "section 5.2"),
        ("network", f"{WORK / 1e6:.0f} MFLOP, {NUM_CUTS} cuts", "the code"),
        ("raw frame", "4 x 84 x 84 in 32 bit", "the code"),
        (
            "trajectory",
            f"{TRAJECTORY_BITS / 8e3:.1f} kB a step, at every cut",
            f"the code; IMPALA's log has {LOGGED_STEP_BYTES / 1e3:.1f} kB",
        ),
        ("model", "not pulled over the link", "IMPALA's log"),
        (
            "link",
            f"{FAST_ETHERNET / 8e6:.1f} MB/s with headers, or 10 MB/s, or 1 Gbit/s",
            "the logs; section 5.2; assumed",
        ),
        ("f_d", f"{DEVICE_SPEED / 1e9:.1f} GFLOP/s", f"fitted: IMPALA's log if it has {ACTORS} actors"),
        (
            f"f_e, {FITTED}",
            f"{WORK / fitted / 1e9:.0f} GFLOP/s, {1e3 * fitted:.1f} ms",
            f"fitted: Seed-RL keeps it busy {100 * NEEDED_USE:.0f} %",
        ),
        (
            f"f_e, {V100}",
            f"{V100_SPEED / 1e9:.0f} GFLOP/s, {1e3 * WORK / V100_SPEED:.1f} ms",
            "assumed: about a hundred kernel launches",
        ),
        ("environment step", f"{1e3 * ENVIRONMENT_TIME:g} ms", "assumed: four emulated frames and their scaling"),
        ("remote call", f"{1e3 * CALL_TIME:g} ms", "assumed: gRPC and pickle of 110 KiB"),
        (
            "training",
            f"{1e3 * TRAINING_TIME:.2f} ms a step",
            "assumed: each step once, forward and backward, 5 TFLOP/s in batches",
        ),
    ):
        yield f"| {name} | {value} | {source} |"


def _by_cut(world: World) -> Iterator[str]:
    """Rate, GPU use and traffic at each cut."""
    cases = [(gpu, network) for gpu in world.curves for network in FIG9]
    yield f"Steps/s / GPU use, % / MiB/s with {ACTORS} actors:"
    yield ""
    yield f"| cut | {' | '.join(f'{gpu}, {network}' for gpu, network in cases)} |"
    yield "|" + "---|" * (1 + len(cases))
    for cut in range(NUM_CUTS + 1):
        cells = []
        for case in cases:
            rate, use, traffic = (x[cut, ACTORS - 1] for x in world.at(*case))
            cells.append(f"{rate:.1f} / {100 * use:.0f} / {traffic:.2f}")
        yield f"| {cut} | {' | '.join(cells)} |"


def _reductions(table: Reductions, sizes: Sequence[int]) -> Iterator[str]:
    """Every algorithm at every size."""
    yield "Total latency reduction in s / Var(y) / Var(u) in 10^-3 s^2 / local devices in %:"
    for server, found in table.items():
        yield ""
        yield f"| {server} | {' | '.join(f'N = {size}' for size in sizes)} |"
        yield "|" + "---|" * (1 + len(sizes))
        for name, values in found.items():
            mean = {metric: x.mean(1) for metric, x in values.items()}
            cells = [
                f"{size * mean['reduction'][place]:.2f} / {mean['var_cut'][place]:.1f} / "
                f"{1e3 * mean['var_utility'][place]:.1f} / {100 * mean['local'][place]:.0f}"
                for place, size in enumerate(sizes)
            ]
            yield f"| {name} | {' | '.join(cells)} |"


def _sensitivity[T](
    rows: Mapping[str, T], claims: Sequence[Claim], judge: Callable[[Claim, T], Verdict]
) -> Iterator[str]:
    """How the verdicts depend on what the paper leaves out."""
    marks = {Status.HOLDS: "yes", Status.ONLY_WHEN: "partly", Status.FAILS: "no", Status.NOT_PUBLIC: "not public"}
    yield "Verdicts (holds, holds only when, does not hold, needs what is not public) with other numbers:"
    yield ""
    yield f"| | {' | '.join(claim.id for claim in claims)} |"
    yield "|" + "---|" * (1 + len(claims))
    for name, row in rows.items():
        yield f"| {name} | {' | '.join(marks[judge(claim, row).status] for claim in claims)} |"


def _data(report: Report, about: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults' numbers, rounded."""

    def rounded(values: Any) -> Any:
        return json.loads(
            json.dumps(np.asarray(values, float).tolist()), parse_float=lambda x: float(f"{float(x):.5g}")
        )

    world, times = report.worlds["defaults"], report.times
    return {
        "machine": about,
        "networks": list(NETWORKS),
        "actors": list(COUNTS),
        "bandwidths_mb_s": list(BANDWIDTHS),
        "edge_time_s": dict(world.edge_time),
        "throughput": {
            gpu: rounded(x.throughput[: len(NETWORKS), :, np.array(COUNTS) - 1]) for gpu, x in world.curves.items()
        },  # [network, cut, count]
        "fig10": {gpu: rounded(world.fig10(gpu)) for gpu in world.curves},  # [cut, bandwidth]
        "sizes": list(report.sizes),
        "fig12": {
            row: {
                server: {name: {metric: rounded(x) for metric, x in values.items()} for name, values in found.items()}
                for server, found in table.items()
            }
            for row, table in report.tables.items()
        },  # [size, draw]
        "defp_s": {
            "devices": dict(zip(map(str, times.sizes), times.by_size.tolist(), strict=True)),
            "cuts": dict(zip(map(str, times.cuts), times.by_cuts.tolist(), strict=True)),
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    report = Report(
        worlds={name: measure(changes) for name, changes in SENSITIVITY.items()},
        maps={cut: crossing_map(cut, EDGE_TIMES, SPEEDS) for cut in (3, 4)},
        tables=dict(zip(GAMES, partitions(list(GAMES.values()), SIZES, DRAWS), strict=True)),
        sizes=SIZES,
        times=defp_times(SIZES_TIMED, CUTS_TIMED, DEVICES_TIMED, REPEATS),
    )
    command = shlex.join(["python", "benchmarks/reproduce/coknight.py", *argv])
    for claim, verdict in write_page(args.out, report, command, time.perf_counter() - start).items():
        print(f"{claim.id}: {claim.words}: {verdict.status}")
    print(f"page: {args.out / 'README.md'}")


if __name__ == "__main__":
    main()
