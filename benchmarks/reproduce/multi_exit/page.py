"""Reproduce the curves of Ma et al. 2025 (multi-exit partitioning) over bandwidth, and judge the paper's claims.

    python -m benchmarks.reproduce.multi_exit           # about a quarter of an hour on 2 cores
    python -m benchmarks.reproduce.multi_exit --page    # judge and draw what is measured

Of the paper only the outline, the symbols and the tables are at hand: the model is derived from them, and the curves
are compared with what the text says of the paper's. Each set-up is measured thrice, with one file each in OUT/data: the
methods with one number of what the paper leaves out changed at a time, with three changed at once, and PPO. The command
goes on where it was stopped. Results: OUT/README.md and curves.png.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import mec_jax
from benchmarks.harness.claims import Judged
from benchmarks.harness.experiments import Results, rounded
from benchmarks.harness.machine import described
from benchmarks.harness.page import (
    Reproduction,
    claim_table,
    legend,
    measure_and_judge,
    picture,
    sensitivity_table,
)
from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.multi_exit.claims import CLAIMS, TABLE_BANDWIDTHS
from benchmarks.reproduce.multi_exit.curves import (
    ACO,
    BANDWIDTHS,
    DEFAULTS,
    DRAWS,
    EXITS,
    FIXED,
    JOINT,
    JOINT_BANDWIDTHS,
    LEARNED,
    LEARNED_SETTING,
    METRICS,
    OPTIMUM,
    RANDOM,
    SEEDS,
    SENSITIVITY,
    SETUPS,
    SHARED_ACO,
    SHARED_SPINN,
    SPINN,
    Curves,
    Measured,
    Setting,
    learned_curves,
    measure,
    optimal_splits,
)
from mec_jax.envs.multi_exit import MultiExitAllocation
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.solvers import multi_exit as solvers

PAPER_SETUPS = ("image", "video")


@dataclass(frozen=True)
class Methods:
    """The curves of one set-up in several settings."""

    name: str
    setup: str
    settings: Mapping[str, Mapping[str, Any]]
    bandwidths: Sequence[float]

    def run(self, folder: Path) -> dict[str, Any]:
        """Measure.

        Returns:
            `curves` [setting][method][metric], [bandwidth], and `splits` of the optimum at the first setting,
            [bandwidth, device], of `layers` layers.
        """
        env, _ = mec_jax.make(SETUPS[self.setup])
        found = measure(env, list(self.settings.values()), self.bandwidths)
        return {
            "curves": {
                setting: {
                    method: {m: rounded(values) for m, values in metrics.items()} for method, metrics in one.items()
                }
                for setting, one in zip(self.settings, found, strict=True)
            },
            "splits": optimal_splits(env, next(iter(self.settings.values())), self.bandwidths).tolist(),
            "layers": env.num_layers,
        }


@dataclass(frozen=True)
class LearnedPolicies:
    """PPO's policies of one set-up."""

    name: str
    setup: str
    bandwidths: Sequence[float]
    seeds: int

    def run(self, folder: Path) -> dict[str, Any]:
        """Train and measure.

        Returns:
            `curves` [metric], [seed, bandwidth].
        """
        found = learned_curves(mec_jax.make(SETUPS[self.setup])[0], self.bandwidths, self.seeds)
        return {"curves": {metric: rounded(values) for metric, values in found.items()}}


@dataclass(frozen=True)
class Chain:
    """The exact optimum of an episode whose bandwidth is a Markov chain, with all of the profile's devices."""

    name: str
    env_id: str
    steps: int
    episodes: int

    def run(self, folder: Path) -> dict[str, Any]:
        """Solve and play.

        Returns:
            `returns` at nominal speeds: `blind` of the oracle that does not look ahead and `bound`, means over the
            episodes, and `optimum`, the expectation of the dynamic program; and the number of `devices`.
        """
        env, _ = mec_jax.make(self.env_id)
        assert isinstance(env, MultiExitAllocation)
        params = env.params(device_speed_spread=1, edge_speed_spread=1, max_steps_in_episode=self.steps)
        keys = evaluation_keys(self.episodes)
        blind = play_episodes(env, params, solvers.oracle_policy(env), params, keys).episode_return
        returns = {
            "blind": np.mean(blind),
            "optimum": -solvers.switching_optimum(env, params).start_cost / float(params.reference_cost),
            "bound": np.mean(solvers.bound(env, params, keys).episode_return),
        }
        return {"returns": {name: rounded(value) for name, value in returns.items()}, "devices": env.num_devices}


CHAINS = ("MultiExitAllocation-Markov-v0", "MultiExitAllocation-Compressed-Markov-v0")


def plan() -> list[Methods | LearnedPolicies | Chain]:
    """What is measured."""
    return [
        *(Methods(f"methods_{setup}", setup, SENSITIVITY, BANDWIDTHS) for setup in SETUPS),
        *(Methods(f"exits_{setup}", setup, EXITS, BANDWIDTHS) for setup in PAPER_SETUPS),
        *(Methods(f"joint_{setup}", setup, JOINT, JOINT_BANDWIDTHS) for setup in PAPER_SETUPS),
        *(Chain(f"chain_{place}", env_id, steps=20, episodes=4096) for place, env_id in enumerate(CHAINS)),
        *(LearnedPolicies(f"learned_{setup}", setup, BANDWIDTHS, SEEDS) for setup in SETUPS),
    ]


def load(folder: Path) -> Measured:
    """What the files in `folder/data` hold; PPO counts by its worst seed at each bandwidth."""
    results = Results.load(folder)
    settings: dict[str, Setting] = {}
    for prefix, setups in (("methods_", SETUPS), ("exits_", PAPER_SETUPS), ("joint_", PAPER_SETUPS)):
        tables = {setup: results[f"{prefix}{setup}"] for setup in setups if f"{prefix}{setup}" in results}
        for table in tables.values():
            for setting in table["curves"]:
                curves = {setup: as_curves(one["curves"][setting]) for setup, one in tables.items()}
                settings[setting] = Setting(table["experiment"]["bandwidths"], curves)
    learned = {
        setup: {m: np.array(x, float) for m, x in results[f"learned_{setup}"]["curves"].items()}
        for setup in SETUPS
        if f"learned_{setup}" in results
    }
    if learned:
        defaults = settings[DEFAULTS]
        worst = {setup: {m: x.max(0) for m, x in found.items()} for setup, found in learned.items()}
        curves = {setup: {**defaults.curves[setup], LEARNED: found} for setup, found in worst.items()}
        settings[LEARNED_SETTING] = Setting(defaults.bandwidths, curves)
    tables = {setup: results[f"methods_{setup}"] for setup in SETUPS if f"methods_{setup}" in results}
    return Measured(
        settings,
        learned,
        {setup: np.array(table["splits"]) for setup, table in tables.items()},
        {setup: table["layers"] for setup, table in tables.items()},
        results,
    )


def as_curves(table: Mapping[str, Mapping[str, Sequence[float]]]) -> Curves:
    """Lists as arrays."""
    return {name: {metric: np.array(x, float) for metric, x in metrics.items()} for name, metrics in table.items()}


def draw(measured: Measured) -> Figure:
    """Latency, energy and cost against bandwidth, one row for each set-up."""
    bandwidths, curves = measured.settings[DEFAULTS]
    figure = Figure(figsize=(14, 3.6 * len(curves)), layout="constrained")
    grid = figure.subplots(len(curves), len(METRICS), squeeze=False)
    for row, (setup, curve) in zip(grid, curves.items(), strict=True):
        for axes, (metric, unit) in zip(row, METRICS.items(), strict=True):
            for index, (name, values) in enumerate(curve.items()):
                style = {OPTIMUM: "k-", SHARED_ACO: ":", SHARED_SPINN: ":"}.get(name, "-")
                color = {} if name == OPTIMUM else {"color": f"C{index}"}
                axes.plot(bandwidths, values[metric], style, label=name, linewidth=1.4, **color)
            if setup in measured.learned:
                mean = measured.learned[setup][metric].mean(0)
                axes.plot(bandwidths, mean, "k.", label=f"{LEARNED} (PPO), mean of {SEEDS} seeds")
            axes.set_xlim(0, 100)
            axes.set_yscale("log")
            axes.set_xlabel("bandwidth, Mbit/s")
            axes.set_ylabel(f"{metric}{', ' + unit if unit else ''}, mean over devices")
            axes.set_title(setup)
    grid[0, -1].legend(fontsize=7, ncols=2)
    return figure


def body(measured: Measured, judged: Sequence[Judged], drawn: Collection[str]) -> Iterator[str]:
    """The page below its head."""
    yield (
        "Only the outline, the symbols and the tables of the paper are at hand, neither its equations nor its curves: "
        "the model is derived from the symbols, and f_e, the input's bits, D_j, h, w and the image size are defaults "
        "of ours (`MultiExitAllocation.params`). So each claim is judged over the range of these: "
        f"{len(SENSITIVITY) + len(EXITS)} settings with one or two of them changed at a time and {len(JOINT)} with "
        "f_e, D_j and w changed at once; what holds in some and not in others is undetermined. The two tables are "
        "taken for the image (n = 5) and the video set-up (n = 7), whose exit rows do not sum to 100 % and are divided "
        "by their sums."
    )
    yield ""
    yield (
        f"The exact joint optimum stands in for ACO-DRL: the best that it could be. At the defaults PPO is judged, "
        f"too, by the worst of {SEEDS} seeds. ACO's choice of exits is that of another work, which is not at hand: "
        "by default all exits that some task leaves by are there, and in three settings those with which a task takes "
        "the least work (exact, by dynamic programming), which at the default h are the same. The paper's axes and "
        "curves are not public as numbers; ours go from 1 to 100 Mbit/s, as far as its text does."
    )
    yield ""
    yield (
        '"EAR" has two readings: each device owns 1/n of the edge, used or not, as the paper words it (ACO-EAR, '
        'SPINN-EAR), or the devices that use the edge share it equally ("shared"), which is what equal shares mean in '
        f"the environment. Costs are means over devices. Random and FP-AR are means over {DRAWS} draws."
    )
    yield ""
    machines = {described(content["machine"]) for content in measured.results.values()}
    seconds = sum(content["wall_s"] for content in measured.results.values())
    yield from (f"Machine: {', '.join(sorted(machines))}. Time: {seconds:.0f} s in all.", "")
    yield from picture("curves", "Latency, energy and cost against bandwidth", drawn)
    yield from (*claim_table(judged), "")
    yield from _learned(measured)
    yield from _summary(measured)
    yield from _costs(measured)
    yield from _sensitivity(measured)
    yield from _chains(measured)
    yield from _joint(measured)


def _learned(measured: Measured) -> Iterator[str]:
    """PPO beside the optimum."""
    yield from ("## PPO at the defaults", "")
    yield "Excess of its cost over the optimum's, mean over bandwidths; ACO-EAR with shared slices beside it."
    yield ""
    yield "| set-up | seeds, mean (worst) | ACO-EAR, shared |"
    yield "|---|---|---|"
    for setup, found in measured.learned.items():
        curve = measured.settings[DEFAULTS].curves[setup]
        excess = (found["cost"] / curve[OPTIMUM]["cost"] - 1).mean(1)
        shared = float(np.mean(curve[SHARED_ACO]["cost"] / curve[OPTIMUM]["cost"] - 1))
        yield f"| {setup} | {100 * excess.mean():.3f} % ({100 * excess.max():.3f} %) | {100 * shared:.3f} % |"
    yield ""


def _summary(measured: Measured) -> Iterator[str]:
    """Where splits and shares matter."""
    yield from ("## Where splits and shares matter", "")
    yield (
        "Splits of the optimum over all bandwidths and devices, and the mean over bandwidths of cost / optimum. "
        '"compressed" is not in the paper: its features are 128 times smaller, as measured elsewhere for VGG-11.'
    )
    yield ""
    compared = (ACO, SHARED_ACO, SPINN, FIXED, RANDOM)
    yield f"| set-up | all at the edge | between | all on the device | {' | '.join(compared)} |"
    yield "|" + "---|" * 9
    for setup, table in measured.splits.items():
        last = measured.layers[setup]
        parts = [np.mean(table == 0), np.mean((table > 0) & (table < last)), np.mean(table == last)]
        curve = measured.settings[DEFAULTS].curves[setup]
        ratios = [np.mean(curve[name]["cost"] / curve[OPTIMUM]["cost"]) for name in compared]
        cells = [f"{100 * part:.0f} %" for part in parts] + [f"{ratio:.4f}" for ratio in ratios]
        yield f"| {setup} | {' | '.join(cells)} |"
    yield ""


def _costs(measured: Measured) -> Iterator[str]:
    """Latency, energy and cost at some bandwidths."""
    bandwidths, curves = measured.settings[DEFAULTS]
    places = [(b, list(bandwidths).index(b)) for b in TABLE_BANDWIDTHS if b in bandwidths]
    yield "## Latency (ms) / energy (mJ) / cost (10^-3)"
    for setup, methods in curves.items():
        yield ""
        yield f"| {setup} | {' | '.join(f'{b} Mbit/s' for b, _ in places)} |"
        yield "|" + "---|" * (1 + len(places))
        for name, curve in methods.items():
            cells = [" / ".join(f"{1e3 * curve[metric][place]:.4g}" for metric in METRICS) for _, place in places]
            yield f"| {name} | {' | '.join(cells)} |"
    yield ""


def _alone(measured: Measured, names: Collection[str]) -> dict[str, Measured]:
    """Each of these settings as the only one, so that a claim is judged in it alone."""
    return {
        name: measured._replace(settings={DEFAULTS: one}) for name, one in measured.settings.items() if name in names
    }


def _sensitivity(measured: Measured) -> Iterator[str]:
    """How the verdicts depend on what the paper leaves out."""
    yield from ("## What the paper leaves out", "")
    yield f"Verdicts with one number changed at a time ({legend()})."
    yield ""
    yield from sensitivity_table(_alone(measured, {*SENSITIVITY, *EXITS, LEARNED_SETTING}), CLAIMS)
    yield ""
    yield "Mean over bandwidths of cost / optimum: ACO-EAR, the same shared, SPINN-EAR, FP-AR."
    yield ""
    setups = list(measured.settings[DEFAULTS].curves)
    yield f"| | {' | '.join(setups)} |"
    yield "|" + "---|" * (1 + len(setups))
    for setting in SENSITIVITY:
        cells = []
        for setup in setups:
            curve = measured.settings[setting].curves[setup]
            ratios = (curve[name]["cost"] / curve[OPTIMUM]["cost"] for name in (ACO, SHARED_ACO, SPINN, FIXED))
            cells.append(" / ".join(f"{np.mean(ratio):.4f}" for ratio in ratios))
        yield f"| {setting} | {' | '.join(cells)} |"
    yield ""


def _chains(measured: Measured) -> Iterator[str]:
    """Episodes with switches, which the paper does not have."""
    chains = [content for name, content in measured.results.items() if name.startswith("chain_")]
    if not chains:
        return
    yield from ("## Beyond the paper: a bandwidth that changes", "")
    yield (
        "Returns of episodes whose bandwidth is a Markov chain and where a new partition costs a switch, at nominal "
        "speeds: of the optimum of each step, blind to switches; of the exact optimum, by dynamic programming over all "
        "splits of all devices; and the bound, for which switches are free."
    )
    yield ""
    yield "| environment | devices | steps | blind | optimum | bound |"
    yield "|---|---|---|---|---|---|"
    for chain in chains:
        cells = " | ".join(f"{chain['returns'][name]:.3f}" for name in ("blind", "optimum", "bound"))
        yield f"| {chain['experiment']['env_id']} | {chain['devices']} | {chain['experiment']['steps']} | {cells} |"
    yield ""


def _joint(measured: Measured, best: int = 8) -> Iterator[str]:
    """Which settings of f_e, D_j and w satisfy the text."""
    alone = _alone(measured, JOINT)
    verdicts = {name: [claim.verdict(one).status for claim in CLAIMS] for name, one in alone.items()}

    def score(name: str) -> tuple[int, int]:
        return verdicts[name].count(Status.HOLDS), verdicts[name].count(Status.ONLY_WHEN)

    ranked = sorted(verdicts, key=score, reverse=True)
    never = [
        claim.id
        for place, claim in enumerate(CLAIMS)
        if all(found[place] is not Status.HOLDS for found in verdicts.values())
    ]
    yield from ("## Is there a setting that satisfies the text?", "")
    most, part = score(ranked[0])
    yield (
        (
            f"No setting of f_e, D_j and w satisfies all: of {len(verdicts)} that were tried, the best has {most} of "
            f"{len(CLAIMS)} claims hold and {part} hold in part. "
            if most < len(CLAIMS)
            else f"{ranked[0]} satisfies all {len(CLAIMS)} claims. "
        )
        + (f"In none of them {', '.join(never)} hold. " if never else "")
        + ("FP-AR, which cuts after layer 6, is what the size of the features decides: see the ratios above.")
    )
    yield ""
    yield f"The {best} best, and the defaults:"
    yield ""
    chosen = {name: alone[name] for name in ranked[:best]} | _alone(measured, {DEFAULTS})
    yield from sensitivity_table(chosen, CLAIMS)


REPRODUCTION = Reproduction(
    name="multi_exit",
    title="Latency, energy and cost against bandwidth, Ma et al. 2025",
    paper='Y. Ma, Y. Wang, B. Tang, "Joint Optimization of Model Partitioning and Resource Allocation for Multi-Exit '
    'DNNs in Edge-Device Collaboration", Electronics 2025, 14, 1647.',
    about_verdicts="Verdicts are computed from the curves.",
    load=load,
    claims=CLAIMS,
    figures={"curves": draw},
    body=body,
    dpi=100,
)


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    measure_and_judge(REPRODUCTION, __doc__, plan, argv)
