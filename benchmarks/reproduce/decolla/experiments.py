"""What is measured of the systems for Fig. 6 of Huang et al. 2022 (DeColla), and of the rulers over media."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from algos import drl_es
from algos.export import export_policy
from algos.run_config import RunConfig, as_arrays
from benchmarks.harness.experiments import rounded
from benchmarks.reproduce.decolla.hierarchical import SPLIT, block_times, by_flops, hierarchical
from benchmarks.reproduce.decolla.inference import alone, together, use_variance
from benchmarks.reproduce.decolla.readings import (
    BANDWIDTHS,
    COUNTINGS,
    DECOLLA,
    DEVICE_SPEED,
    DEVICES,
    EDGE_SPEEDS,
    HIERARCHICAL,
    KAPPAS,
    MBPS,
    MEDIA,
    MOBILE,
    NETWORK,
    PARTITION,
    PLANS,
    RULERS,
    RULES,
    RUNS,
    SHORTEST,
    STALE,
    TASKS,
    TRIALS,
    USAGE,
    USAGE_SPREAD,
    USAGES,
    WINDOW_TASKS,
    Reading,
)
from benchmarks.reproduce.decolla.systems import decolla_runs, exchange_latencies, offloaded, parts_of
from mec_jax import make, static_arguments
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.envs.neuron_sharing import NeuronSharing
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.policy import load_policy
from mec_jax.solvers import neuron_allocation as solvers
from mec_jax.solvers.neurons import baselines

Row = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """Figs. 6a to 6c: all systems along bandwidths, and along usages."""

    name: str
    reading: Reading
    network: str = NETWORK
    bandwidths: tuple[float, ...] = BANDWIDTHS
    usages: tuple[float, ...] = USAGES
    edge_speeds: tuple[float, ...] = EDGE_SPEEDS

    def run(self, folder: Path) -> Row:
        """By axis, "bandwidth" or "usage", what `systems` says."""
        wide = np.array(self.bandwidths) * MBPS
        usages = np.array(self.usages)
        fixed = np.full(usages.size, self.reading.bandwidth * MBPS)
        measure = partial(systems, self.network, self.reading, self.edge_speeds)
        return {"bandwidth": measure(wide, np.full(wide.size, USAGE)), "usage": measure(fixed, usages)}


def systems(
    network: str, reading: Reading, edge_speeds: Sequence[float], bandwidths: np.ndarray, usages: np.ndarray
) -> Row:
    """Latency (s) and variance (of device use) [point] of each system, at points of bandwidth (bit/s) and usage of all
    devices: of partition-offloading by the edge's speed (GFLOP/s), with the part of the FLOP at the `edge`; of
    Hierarchical by split; of DeColla by medium and ruler.
    """
    parts, speed = parts_of(network), (1 - usages) * DEVICE_SPEED
    others = [0.0] * (DEVICES - 1)
    took = np.array([solvers.mobile_only(parts.flops, c) for c in speed])
    found: Row = {MOBILE: _row(took, [[1.0, *others] for _ in speed] * took[:, None])}
    found[PARTITION] = {}
    for edge in edge_speeds:
        cuts = [offloaded(parts, reading.bits, c, b, edge) for c, b in zip(speed, bandwidths, strict=True)]
        latency, kept = (np.array([getattr(cut, name) for cut in cuts]) for name in ("latency", "device_flops"))
        row = _row(latency, [[flops / c, *others] for flops, c in zip(kept, speed, strict=True)])
        found[PARTITION][f"{edge / 1e9:g}"] = row | {"edge": rounded(1 - kept / np.sum(parts.flops))}
    found[HIERARCHICAL] = {}
    for name, split in SPLIT.items():
        runs = [
            hierarchical(parts, reading.bits, np.full(DEVICES, c), b, split)
            for c, b in zip(speed, bandwidths, strict=True)
        ]
        found[HIERARCHICAL][name] = _row(np.array([run.latency for run in runs]), [run.busy for run in runs])
    found[DECOLLA] = {}
    for medium in MEDIA:
        env = NeuronAllocation(network, num_devices=DEVICES, medium=medium)  # type: ignore[arg-type]
        found[DECOLLA][medium] = {}
        for ruler in RULERS:
            played = alone(env, reading, bandwidths, usages, baselines(env)[ruler])
            row = {"latency": rounded(played.latency), "variance": rounded(played.variance)}
            found[DECOLLA][medium][ruler] = row
    return found


def _row(latency: np.ndarray, busy: Any) -> Row:
    return {"latency": rounded(latency), "variance": rounded(use_variance(busy, latency))}


@dataclass(frozen=True)
class Concurrent:
    """Fig. 6d: several requests at once.

    Mobile-only and partition-offloading fill one device after the other, as the paper says: the next one is used when
    one has as many inferences as fill it, which is one while tasks run. Inferences wait for those before them on their
    device; the edge and its links are taken to be enough for all.
    """

    name: str
    reading: Reading
    network: str = NETWORK
    tasks: tuple[int, ...] = TASKS
    edge_speeds: tuple[float, ...] = EDGE_SPEEDS

    def run(self, folder: Path) -> Row:
        """Variance of device use [counting][system], mean latency (s) [system] and `window` (s).

        Of partition-offloading by the edge's speed (GFLOP/s). A list has one value for each number of tasks.
        """
        parts, c, bandwidth = parts_of(self.network), (1 - USAGE) * DEVICE_SPEED, self.reading.bandwidth * MBPS
        takes = solvers.mobile_only(parts.flops, c)
        window = WINDOW_TASKS * takes
        found: Row = {MOBILE: _filled(takes, takes, window, self.tasks), PARTITION: {}, "window": window}
        for edge in self.edge_speeds:
            cut = offloaded(parts, self.reading.bits, c, bandwidth, edge)
            filled = _filled(cut.latency, cut.device_flops / c, window, self.tasks)
            found[PARTITION][f"{edge / 1e9:g}"] = filled
        ours: Row = {name: [] for name in (*COUNTINGS, "latency")}
        for number in self.tasks:
            env = NeuronSharing(self.network, num_requesters=number, num_devices=DEVICES)
            played = together(env, self.reading, baselines(env)[SHORTEST])
            for counting, least in zip(COUNTINGS, (0.0, window), strict=True):
                ours[counting].append(rounded(use_variance(played.busy, max(least, played.end))))
            ours["latency"].append(rounded(played.latency))
        return found | {DECOLLA: ours}


def _filled(takes: float, computes: float, window: float, tasks: Sequence[int]) -> Row:
    """Of inferences of which each takes and computes so long (s)."""
    found: Row = {name: [] for name in (*COUNTINGS, "latency")}
    for number in tasks:
        for counting, full in zip(COUNTINGS, (1, WINDOW_TASKS), strict=True):
            device = np.arange(number) // full % DEVICES
            before = np.array([np.sum(device[:task] == device[task]) for task in range(number)])
            latency = takes + before * computes
            over = np.max(latency) if counting == COUNTINGS[0] else max(window, np.max(latency))
            busy = computes * np.bincount(device, minlength=DEVICES)
            found[counting].append(rounded(use_variance(busy, over)))
            if counting == COUNTINGS[0]:
                found["latency"].append(rounded(np.mean(latency)))
    return found


@dataclass(frozen=True)
class OneLoaded:
    """Fig. 6e: one device's usage goes up, those of the others are drawn, the same at each usage."""

    name: str
    reading: Reading
    network: str = NETWORK
    usages: tuple[float, ...] = USAGES
    runs: int = RUNS

    def run(self, folder: Path) -> Row:
        """`processing` and `waiting` (s) [usage, run]: Hierarchical's by split and plan, DeColla's on private links.

        Processing is the latency. Waiting is the time in which a device computes nothing for the inference, mean over
        devices.
        """
        rng = np.random.default_rng(0)
        usage = USAGE + rng.uniform(-USAGE_SPREAD, USAGE_SPREAD, (self.runs, DEVICES))
        loaded = rng.integers(DEVICES, size=self.runs)
        every = np.repeat(usage[None], len(self.usages), 0)
        every[:, np.arange(self.runs), loaded] = np.asarray(self.usages)[:, None]
        speed = (1 - every.reshape(-1, DEVICES)) * DEVICE_SPEED
        bandwidth = self.reading.bandwidth * MBPS
        before = np.tile((1 - usage) * DEVICE_SPEED, (len(self.usages), 1))

        def table(latency: Any, busy: Any) -> Row:
            waiting = np.asarray(latency) - np.mean(busy, axis=-1)
            shape = (len(self.usages), self.runs)
            both = {"processing": latency, "waiting": waiting}
            return {name: rounded(np.reshape(values, shape)) for name, values in both.items()}

        parts = parts_of(self.network)
        found: Row = {HIERARCHICAL: {}}
        for name, split in SPLIT.items():
            found[HIERARCHICAL][name] = {}
            for plan in PLANS:
                planned = before if plan == STALE else speed
                runs = [
                    hierarchical(parts, self.reading.bits, c, bandwidth, split, p)
                    for c, p in zip(speed, planned, strict=True)
                ]
                found[HIERARCHICAL][name][plan] = table([x.latency for x in runs], [x.busy for x in runs])
        env = NeuronAllocation(self.network, num_devices=DEVICES)
        ours = decolla_runs(env, self.reading, speed, np.full(len(speed), bandwidth))
        return found | {DECOLLA: table(ours.latency, ours.busy)}


@dataclass(frozen=True)
class Disconnected:
    """Fig. 6f: one or two devices disconnect; Hierarchical's over DeColla's latency on private links.

    In each trial the devices are drawn, and the instants, uniform over what each system takes undisturbed: so both are
    disturbed at the same part of their inference.
    """

    name: str
    reading: Reading
    network: str = NETWORK
    kappas: tuple[float, ...] = KAPPAS
    trials: int = TRIALS

    def run(self, folder: Path) -> Row:
        """`undisturbed` latencies (s), what is `expected` of pieces and blocks (s), and by split, devices lost and cut
        ("all" or "interrupted" trials) mean latencies and `ratio` [kappa] of [mean, low, high].
        """
        rng = np.random.default_rng(0)
        parts, env = parts_of(self.network), NeuronAllocation(self.network, num_devices=DEVICES)
        speed, bandwidth = np.full(DEVICES, (1 - USAGE) * DEVICE_SPEED), self.reading.bandwidth * MBPS
        calm_run = decolla_runs(env, self.reading, speed[None], np.array([bandwidth]))
        calm = {
            DECOLLA: float(calm_run.latency[0]),
            **{name: hierarchical(parts, self.reading.bits, speed, bandwidth, s).latency for name, s in SPLIT.items()},
        }
        speeds, links = np.tile(speed, (self.trials, 1)), np.full(self.trials, bandwidth)
        found: Row = {name: {} for name in SPLIT}
        for lost in (1, 2):
            gone = np.argsort(rng.uniform(size=(self.trials, DEVICES)), axis=1) < lost
            instant = np.where(gone, rng.uniform(size=(self.trials, DEVICES)), np.inf)
            ours = np.array(
                [
                    decolla_runs(env, self.reading, speeds, links, instant * calm[DECOLLA], kappa).latency
                    for kappa in self.kappas
                ]
            )
            for name, split in SPLIT.items():
                theirs = [
                    [
                        hierarchical(parts, self.reading.bits, speed, bandwidth, split, None, times, kappa)
                        for times in instant * calm[name]
                    ]
                    for kappa in self.kappas
                ]
                latency = np.array([[one.latency for one in row] for row in theirs])
                interrupted = np.array([one.interrupted for one in theirs[0]])
                found[name][str(lost)] = {
                    "all": _ratio(latency, ours),
                    "interrupted": _ratio(latency[:, interrupted], ours[:, interrupted]),
                    "part interrupted": rounded(np.mean(interrupted)),
                }
        expected = {"piece": np.mean(calm_run.piece_time), "longest piece": np.max(calm_run.piece_time)}
        for name, split in SPLIT.items():
            order = split(parts, self.reading.bits, speed, np.full(DEVICES, bandwidth))
            times = block_times(parts, self.reading.bits, order, speed, bandwidth)
            expected[name] = np.mean([compute + send for _, _, compute, send in times])
        return found | {
            "undisturbed": {name: rounded(value) for name, value in calm.items()},
            "expected": {name: rounded(value) for name, value in expected.items()},
        }


def _ratio(theirs: np.ndarray, ours: np.ndarray, resamples: int = 1000) -> Row:
    """Means [kappa] over trials, and of their ratio the 95 % bootstrap interval, trials resampled in pairs."""
    draw = np.random.default_rng(0).integers(ours.shape[1], size=(resamples, ours.shape[1]))
    spread = theirs[:, draw].mean(2) / ours[:, draw].mean(2)  # [kappa, resample]
    low, high = np.quantile(spread, [0.025, 0.975], axis=1)
    ratio = theirs.mean(1) / ours.mean(1)
    return {
        HIERARCHICAL: rounded(theirs.mean(1)),
        DECOLLA: rounded(ours.mean(1)),
        "ratio": rounded(np.stack([ratio, low, high], axis=1)),
    }


@dataclass(frozen=True)
class Exchanges:
    """What the exchange costs under each rule, at 32, 8 and 1 bit an element."""

    name: str
    network: str = NETWORK
    grid: tuple[float, ...] = tuple(float(f"{x:.4g}") for x in sorted({*np.geomspace(1, 1e5, 101), 10, 20, 1000}))

    def run(self, folder: Path) -> Row:
        """`mobile` (s), and by bits `hierarchical` and by rule latencies (s) along `grid` (Mbit/s); `elements`."""
        env, parts = NeuronAllocation(self.network, num_devices=DEVICES), parts_of(self.network)
        speed = np.full(DEVICES, (1 - USAGE) * DEVICE_SPEED)
        found: Row = {
            "mobile": solvers.mobile_only(parts.flops, speed[0]),
            "elements": [sum(env.network.input_elements), sum(env.network.output_elements)],
        }
        for bits in (32, 8, 1):
            blocks = [hierarchical(parts, bits, speed, b * MBPS, by_flops).latency for b in self.grid]
            rules = {rule: rounded(exchange_latencies(env, bits, rule, self.grid)) for rule in RULES}
            found[str(bits)] = {HIERARCHICAL: rounded(blocks), **rules}
        return found


@dataclass(frozen=True)
class Optimum:
    """Shortest completion against the exact optimum of the static testbed."""

    name: str
    episodes: int = 16

    def run(self, folder: Path) -> Row:
        """Mean `excess` of slowdown over the optimum, [episode]."""
        env, params = make("NeuronAllocation-v0")
        keys = evaluation_keys(self.episodes)
        greedy = play_episodes(env, params, solvers.baselines(env)[SHORTEST], params, keys).slowdown
        return {"excess": rounded(np.asarray(greedy) / np.asarray(solvers.bound(env, params, keys).slowdown) - 1)}


@dataclass(frozen=True)
class Rulers:
    """The rulers of an environment over media, bits and bandwidths."""

    name: str
    conditions: str
    media: tuple[str, ...] = tuple(MEDIA)
    bits: tuple[float, ...] = (8, 32)
    bandwidths: tuple[float, ...] = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # Mbit/s, the most of each link
    episodes: int = 16

    def run(self, folder: Path) -> Row:
        """Mean slowdown of a piece, by medium, bits and ruler, [bandwidth].

        Links spread below the bandwidth as much as under the environment's own conditions.
        """
        keys, found = evaluation_keys(self.episodes), dict[str, Any]()
        for medium in self.media:
            env = NeuronAllocation(conditions=self.conditions, num_devices=DEVICES, medium=medium)  # type: ignore[arg-type]
            own = env.default_params
            spread = float(own.bandwidth_high / own.bandwidth_low)
            found[medium] = {}
            for bits in self.bits:
                found[medium][f"{bits:g}"] = {ruler: [] for ruler in RULERS}
                for bandwidth in self.bandwidths:
                    high = bandwidth * MBPS
                    params = env.params(bits_per_element=bits, bandwidth_high=high, bandwidth_low=high / spread)
                    for ruler in RULERS:
                        played = play_episodes(env, params, baselines(env)[ruler], params, keys)
                        found[medium][f"{bits:g}"][ruler].append(rounded(np.mean(played.slowdown)))
        return {"slowdown": found}


@dataclass(frozen=True)
class Decisions:
    """How long a decision of an exported policy takes in NumPy, one observation at a time."""

    name: str
    env_id: str
    preset: str = "slots"
    decisions: int = 2000

    def run(self, folder: Path) -> Row:
        """`seconds` [median, 95 % quantile], and `slots`."""
        env, params = make(self.env_id)
        config, hparams, _ = drl_es.PRESETS[self.preset]
        state = drl_es.make_trainer(env, config).init(as_arrays(hparams), params, jax.random.key(0))
        run = RunConfig("drl_es", self.env_id, static_arguments(self.env_id), {}, self.preset, 0, config, hparams)
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "policy.npz"
            export_policy(path, run, drl_es.learned(state), 0, {})
            policy = load_policy(path)
        observation, seconds = np.asarray(env.reset(jax.random.key(0), params)[0]), []
        for _ in range(self.decisions):
            begin = time.perf_counter()
            policy.act(observation)
            seconds.append(time.perf_counter() - begin)
        return {"seconds": rounded(np.quantile(seconds, [0.5, 0.95])), "slots": env.traits.slots.slots}
