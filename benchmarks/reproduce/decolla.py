"""Reproduce Figs. 5 and 6 of Huang et al. 2022 (DeColla): learning, latency, device use, failures; judge its claims.

    python benchmarks/reproduce/decolla.py    # about a minute on 2 cores

The paper gives curves without numbers, and neither the bits that devices exchange nor the rule by which they do. So
each claim is judged in several readings of the exchange. Shortest completion stands for DeColla's learned allocation:
in what is static, as here, it is all but the optimum (K3). Results: OUT/README.md, one figure a panel, and data.json.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

if __name__ == "__main__" and not __package__:  # run as a file: find the packages beside and above this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

matplotlib.use("Agg")

from matplotlib.figure import Figure

from benchmarks.machine import machine
from benchmarks.reproduce import decolla_learning
from benchmarks.reproduce.decolla_systems import (
    COUNTINGS,
    DECOLLA,
    DEVICE_SPEED,
    DEVICES,
    EDGE_SPEED,
    HIERARCHICAL,
    MBPS,
    MOBILE,
    NETWORK,
    PARTITION,
    REPLANNED,
    SYSTEMS,
    USAGE,
    Exchange,
    Reading,
    concurrent,
    crossover,
    disconnected,
    exchanges,
    one_device_loaded,
    parts_of,
    systems,
)
from benchmarks.reproduce.verdicts import Status, Verdict, by_point, greater, shown, together
from benchmarks.time_to_target import write
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.evaluation import evaluation_keys, play_episodes
from mec_jax.solvers import neuron_allocation as solvers

RESULTS = Path(__file__).resolve().parents[1] / "results" / "decolla"

BANDWIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # Mbit/s; the paper's axis is not public
USAGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TASKS = (1, 2, 3, 4, 6)  # at once, Fig. 6d
RUNS = 10  # of Fig. 6e, as in the paper
KAPPAS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
TRIALS = 500  # of Fig. 6f
CROSSOVERS = tuple(np.geomspace(1, 1e5, 101))  # Mbit/s, where the exchange rules are compared
EPISODES = 16  # of K3


# Thresholds of the verdicts.
CHANGE = 0.05  # least relative change of what is said to rise or fall
STABLE = 0.1  # largest part of a fall that lies above the middle of the axis, of what is said to be stable there
EVEN = 1e-4  # largest variance of device use, and difference of two, that counts as none: 1 % of the time
SIGNIFICANT = 1.2  # least ratio of what is said to be significant
CLAIMED_RATIO = 2.5  # of Fig. 6f
LISTED = 6  # values of a curve in the text of a verdict

COLORS = {MOBILE: "C0", PARTITION: "C1", HIERARCHICAL: "C2", REPLANNED: "C4", DECOLLA: "C3"}


READINGS = {
    # The paper's bandwidth, and the numbers that PyTorch computes with.
    "32 bit, 20 Mbit/s": Reading(32, 32, False, 20),
    # The defaults of the environment.
    "8 bit, 1 Gbit/s": Reading(8, 8, False, 1000),
    # What no implementation can have: the others pay for their exchange, DeColla does not.
    "free for DeColla": Reading(32, 0, False, 20),
}
"""By name. What holds in the last only is owed to an exchange that costs nothing."""

Panels = dict[str, Any]
"""What was measured in one reading, arrays by panel and name: `figure_6` draws it, `CLAIMS` are judged by it."""


# Measuring


def measure(env: NeuronAllocation, reading: Reading) -> Panels:
    """All panels in one reading."""
    parts = parts_of()
    bandwidths, usages = np.array(BANDWIDTHS) * MBPS, np.array(USAGES)
    return {
        "bandwidth": systems(env, parts, reading, bandwidths, np.full(bandwidths.size, USAGE)),
        "usage": systems(env, parts, reading, np.full(usages.size, reading.bandwidth * MBPS), usages),
        "tasks": concurrent(parts, reading, TASKS),
        "loaded": one_device_loaded(env, parts, reading, USAGES, RUNS),
        "failure": disconnected(env, parts, reading, KAPPAS, TRIALS),
    }


# Claims


def listed(name: str, x: Sequence[float], values: np.ndarray, unit: str) -> str:
    """Values along an axis, at most `LISTED` of them, as text."""
    places = np.unique(np.linspace(0, len(x) - 1, min(LISTED, len(x))).round().astype(int))
    cells = ", ".join(f"{values[place]:.3g}" for place in places)
    return f"{cells}{' ' + unit if unit else ''} at {name} = {', '.join(f'{x[place]:g}' for place in places)}"


def course(
    name: str, x: Sequence[float], values: np.ndarray, rising: bool, unit: str = "", least: float = 1e-9
) -> Verdict:
    """Holds if the last value lies beyond the first by `CHANGE` of it and by `least`, and no step goes the other way by
    as much.
    """
    steps, sign = np.diff(values), 1 if rising else -1
    least = max(CHANGE * abs(float(values[0])), least)
    holds = sign * (values[-1] - values[0]) >= least and bool(np.all(sign * steps > -least))
    return Verdict(Status.HOLDS if holds else Status.FAILS, listed(name, x, values, unit))


def even_course(name: str, x: Sequence[float], values: np.ndarray, rising: bool) -> Verdict:
    """`course` of a variance of device use."""
    verdict = course(name, x, values, rising, least=EVEN)
    even = f"even throughout, below {EVEN:g}: " if values.max() <= EVEN else ""
    return Verdict(verdict.status, even + verdict.text)


def _hierarchical_settles(panels: Panels) -> Verdict:
    latency = panels["bandwidth"][HIERARCHICAL]["latency"]
    falls = course("B", BANDWIDTHS, latency, False, "s")
    above = (latency[len(latency) // 2] - latency[-1]) / max(latency[0] - latency[-1], 1e-12)
    holds = falls.status is Status.HOLDS and above <= STABLE
    text = f"{falls.text} Mbit/s; {100 * above:.1f} % of the fall lies above {BANDWIDTHS[len(latency) // 2]:g}"
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


def _partition_is_best(panels: Panels) -> Verdict:
    curves = panels["bandwidth"]
    rest = np.min([curves[name]["latency"] for name in SYSTEMS if name != PARTITION], axis=0)
    ratio = rest / curves[PARTITION]["latency"]
    text = listed("B", BANDWIDTHS, ratio, "= best of the others / Partition-offloading") + " Mbit/s"
    return by_point("B", BANDWIDTHS, (ratio >= 1).tolist(), text)


def _mobile_does_not_care(panels: Panels) -> Verdict:
    spread = {name: np.ptp(panels["bandwidth"][name]["latency"]) for name in SYSTEMS}
    text = "latency from the worst to the best bandwidth: " + ", ".join(f"{s:.3g} s ({n})" for n, s in spread.items())
    return Verdict(Status.HOLDS if spread[MOBILE] <= min(spread.values()) else Status.FAILS, text)


def _bandwidth_helps(panels: Panels) -> Verdict:
    return together(
        {
            name: course("B", BANDWIDTHS, panels["bandwidth"][name]["latency"], False, "s")
            for name in (HIERARCHICAL, DECOLLA)
        }
    )


def _decolla_beats_hierarchical(panels: Panels) -> Verdict:
    curves = panels["bandwidth"]
    above = np.array(BANDWIDTHS) >= 10
    ratio = (curves[HIERARCHICAL]["latency"] / curves[DECOLLA]["latency"])[above]
    points = [b for b, inside in zip(BANDWIDTHS, above, strict=True) if inside]
    text = listed("B", points, ratio, "= Hierarchical / DeColla") + " Mbit/s"
    return by_point("B", points, (ratio > 1).tolist(), text)


def _crossover_at_10(panels: Panels) -> Verdict:
    curves = panels["bandwidth"]
    found = crossover(BANDWIDTHS, curves[DECOLLA]["latency"], curves[HIERARCHICAL]["latency"])
    text = "none on the axis" if np.isnan(found) else f"from {found:g} Mbit/s on, of {BANDWIDTHS[0]:g} and more"
    return Verdict(Status.HOLDS if found == 10 else Status.FAILS, f"DeColla is faster: {text}")


def _partition_does_not_care(panels: Panels) -> Verdict:
    usage = panels["usage"]
    growth = {name: usage[name]["latency"][-1] / usage[name]["latency"][0] for name in SYSTEMS}
    text = f"latency at {USAGES[-1]:g} / at {USAGES[0]:g}: " + ", ".join(f"{g:.3g} ({n})" for n, g in growth.items())
    return Verdict(Status.HOLDS if growth[PARTITION] <= min(growth.values()) else Status.FAILS, text)


def _goes_to_the_edge(panels: Panels) -> Verdict:
    edge = panels["usage"][PARTITION]["edge"]
    holds = edge[-1] > 0.5 and bool(np.all(np.diff(edge) >= 0))
    return Verdict(Status.HOLDS if holds else Status.FAILS, listed("usage", USAGES, edge, "of the FLOP at the edge"))


def _mobile_suffers(panels: Panels) -> Verdict:
    return course("usage", USAGES, panels["usage"][MOBILE]["latency"], True, "s")


def _decolla_under_load(panels: Panels) -> Verdict:
    usage = panels["usage"]
    busy = [place for place, value in enumerate(USAGES) if value >= 0.5]
    ratio = (usage[HIERARCHICAL]["latency"] / usage[DECOLLA]["latency"])[busy]
    points = [USAGES[place] for place in busy]
    text = listed("usage", points, ratio, "= Hierarchical / DeColla")
    return by_point("usage", points, (ratio > 1).tolist(), text)


def _table_upkeep(panels: Panels) -> Verdict:
    place = list(BANDWIDTHS).index(10)
    needed = panels["bandwidth"][DECOLLA]["latency"] - panels["bandwidth"][HIERARCHICAL]["latency"]
    return Verdict(
        Status.NOT_PUBLIC,
        "no time is given; for DeColla to be as fast at 10 Mbit/s the table would have to cost "
        f"{max(needed[place], 0):.3g} s an inference",
    )


def _mobile_variance_rises(panels: Panels) -> Verdict:
    return even_course("B", BANDWIDTHS, panels["bandwidth"][MOBILE]["variance"], True)


def _partition_variance_rises(panels: Panels) -> Verdict:
    return even_course("B", BANDWIDTHS, panels["bandwidth"][PARTITION]["variance"], True)


def _decolla_variance_falls(panels: Panels) -> Verdict:
    return even_course("B", BANDWIDTHS, panels["bandwidth"][DECOLLA]["variance"], False)


def _decolla_is_balanced(panels: Panels) -> Verdict:
    """Against the others that compute on the devices at all: who leaves them idle uses them evenly."""
    curves = panels["bandwidth"]
    ours = curves[DECOLLA]["variance"]
    rest = np.min(
        [np.where(curve["edge"] < 1, curve["variance"], np.inf) for name, curve in curves.items() if name != DECOLLA],
        axis=0,
    )
    text = f"{listed('B', BANDWIDTHS, ours, '')}; least of the others {listed('B', BANDWIDTHS, rest, '')} Mbit/s"
    return by_point("B", BANDWIDTHS, (ours <= rest + EVEN).tolist(), text)


def _rises_then_falls(panels: Panels, system: str) -> Verdict:
    """Holds if the largest variance is not the first, and the last is below it by `CHANGE`."""
    parts = {}
    for counting in COUNTINGS:
        values = panels["tasks"][counting][system]
        holds = values.max() > (1 + CHANGE) * values[0] and values[-1] < (1 - CHANGE) * values.max()
        parts[counting] = Verdict(Status.HOLDS if holds else Status.FAILS, listed("tasks", TASKS, values, ""))
    return together(parts)


def _decolla_evens_out(panels: Panels) -> Verdict:
    return together(
        {counting: even_course("tasks", TASKS, panels["tasks"][counting][DECOLLA], False) for counting in COUNTINGS}
    )


def _decolla_shares_evenly(panels: Panels) -> Verdict:
    """Against the others that compute on the devices at all."""
    parts = {}
    for counting in COUNTINGS:
        ours, theirs = panels["tasks"][counting][DECOLLA], panels["tasks"][counting][MOBILE]
        text = f"{listed('tasks', TASKS, ours, '')}; Mobile-only {listed('tasks', TASKS, theirs, '')}"
        parts[counting] = by_point("tasks", TASKS, (ours <= theirs + EVEN).tolist(), text)
    return together(parts)


def _decolla_is_fast_together(panels: Panels) -> Verdict:
    latency = panels["tasks"]["latency"]
    parts = {}
    for name in (MOBILE, PARTITION):
        ratio = latency[name] / latency[DECOLLA]
        text = listed("tasks", TASKS, ratio, "= its latency / DeColla's")
        parts[name] = by_point("tasks", TASKS, (ratio > 1).tolist(), text)
    return together(parts)


def _hierarchical_slows(panels: Panels) -> Verdict:
    parts = {}
    for name in (HIERARCHICAL, REPLANNED):
        latency = panels["loaded"][name]["processing"]
        ratio = float(latency[-1].mean() / latency[0].mean())
        text = f"{shown(latency[0])} s at {USAGES[0]:g}, {shown(latency[-1])} s at {USAGES[-1]:g}"
        parts[name] = Verdict(Status.HOLDS if ratio >= SIGNIFICANT else Status.FAILS, text)
    return together(parts)


def _compare_loaded(panels: Panels, metric: str) -> Verdict:
    """Holds at a usage if the hierarchical mean is larger, the interval of the difference above 0."""
    parts = {}
    ours = panels["loaded"][DECOLLA][metric]
    for name in (HIERARCHICAL, REPLANNED):
        theirs = panels["loaded"][name][metric]
        holds = [greater(x, y, (name, DECOLLA)).status is Status.HOLDS for x, y in zip(theirs, ours, strict=True)]
        text = listed("usage", USAGES, theirs.mean(1) / ours.mean(1), "= ratio to DeColla")
        parts[name] = by_point("usage", USAGES, holds, text)
    return together(parts)


def _ratio_of_failures(panels: Panels) -> Verdict:
    panel = panels["failure"]
    parts = {}
    for lost, words in (("1", "one lost"), ("2", "two lost")):
        for cut, trials in (("all", slice(None)), ("interrupted", panel[lost]["interrupted"])):
            ratio = panel[lost][HIERARCHICAL][:, trials].mean(1) / panel[lost][DECOLLA][:, trials].mean(1)
            holds = (ratio >= CLAIMED_RATIO).tolist()
            parts[f"{words}, {cut}"] = by_point("kappa", KAPPAS, holds, listed("kappa", KAPPAS, ratio, ""))
    calm = panel["undisturbed"]
    verdict = together(parts)
    return Verdict(verdict.status, f"undisturbed {calm[HIERARCHICAL] / calm[DECOLLA]:.3g}; {verdict.text}")


def _smaller_timeout(panels: Panels) -> Verdict:
    expected = panels["failure"]["expected"]
    text = ", ".join(f"{name} {1e3 * value:.3g} ms" for name, value in expected.items())
    holds = {
        "on average": expected["piece"] < expected["block"],
        "always": expected["longest piece"] < expected["block"],
    }
    return together({name: Verdict(Status.HOLDS if held else Status.FAILS, text) for name, held in holds.items()})


@dataclass(frozen=True)
class Claim:
    """A claim, in our words, and what decides on it in one reading."""

    id: str
    words: str
    judge: Callable[[Panels], Verdict]


CLAIMS = {
    "6a": (
        Claim("A1", "Hierarchical's latency falls with bandwidth and settles", _hierarchical_settles),
        Claim("A2", "Partition-offloading has the best latency", _partition_is_best),
        Claim("A3", "Mobile-only is the least affected by bandwidth", _mobile_does_not_care),
        Claim("A4", "Bandwidth improves the latency of Hierarchical and of DeColla", _bandwidth_helps),
        Claim("A5", "From 10 Mbit/s on DeColla is faster than Hierarchical", _decolla_beats_hierarchical),
        Claim("A6", "It is 10 Mbit/s from which on it is", _crossover_at_10),
    ),
    "6b": (
        Claim("B1", "Partition-offloading is the least affected by the devices' usage", _partition_does_not_care),
        Claim("B2", "Most work goes to the edge as usage rises", _goes_to_the_edge),
        Claim("B3", "Mobile-only's latency rises dramatically with usage", _mobile_suffers),
        Claim("B4", "DeColla is faster than Hierarchical when usage is high", _decolla_under_load),
        Claim("B5", "Hierarchical takes a lot of time for its IP table", _table_upkeep),
    ),
    "6c": (
        Claim("C1", "Mobile-only's variance of device use rises a little with bandwidth", _mobile_variance_rises),
        Claim("C2", "Partition-offloading's variance rises with bandwidth", _partition_variance_rises),
        Claim("C3", "DeColla's variance falls with bandwidth", _decolla_variance_falls),
        Claim("C4", "DeColla has the least variance", _decolla_is_balanced),
    ),
    "6d": (
        Claim(
            "D1",
            "Mobile-only's variance rises with the tasks until a device is full, then falls",
            partial(_rises_then_falls, system=MOBILE),
        ),
        Claim("D2", "So does Partition-offloading's", partial(_rises_then_falls, system=PARTITION)),
        Claim("D3", "DeColla's variance falls with the tasks", _decolla_evens_out),
        Claim("D4", "DeColla uses the devices more evenly than Mobile-only", _decolla_shares_evenly),
        Claim("D5", "DeColla is faster under concurrent tasks", _decolla_is_fast_together),
    ),
    "6e": (
        Claim("E1", "Hierarchical slows significantly as one device's usage rises", _hierarchical_slows),
        Claim("E2", "DeColla then takes less time", partial(_compare_loaded, metric="processing")),
        Claim("E3", "In DeColla devices wait significantly less", partial(_compare_loaded, metric="waiting")),
    ),
    "6f": (
        Claim("F1", "Interrupted, Hierarchical takes at least 2.5 times as long as DeColla", _ratio_of_failures),
        Claim("F2", "DeColla's timeout t2 is smaller than t1 of Hierarchical", _smaller_timeout),
    ),
}
"""Of the paper, by panel."""


# Claims of this suite's own notes


def exchange_is_long(env: NeuronAllocation) -> Verdict:
    """43 s for all elements over one channel of 10 Mbit/s, 0.29 s on one device."""
    table = env.table
    elements = sum(table.input_elements), sum(table.output_elements)
    seconds = 32 * sum(elements) / (10 * MBPS)
    alone = solvers.mobile_only(parts_of().flops, (1 - USAGE) * DEVICE_SPEED)
    text = f"{elements[0] / 1e6:.2f} M and {elements[1] / 1e6:.2f} M elements, {seconds:.1f} s; alone {alone:.3f} s"
    holds = round(seconds) == 43 and round(alone, 2) == 0.29
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


def no_crossover(rows: Sequence[Exchange]) -> Verdict:
    """At 32 bit, no rule has the crossover at 10 Mbit/s or below; `NaN` is none at all."""
    full = [row for row in rows if row.bits == 32]
    text = "at 32 bit DeColla beats Hierarchical from " + ", ".join(
        f"{mbps(row.beats_hierarchical)} ({row.rule})" for row in full
    )
    return Verdict(Status.FAILS if any(row.beats_hierarchical <= 10 for row in full) else Status.HOLDS, text)


def greedy_is_optimal(env: NeuronAllocation, episodes: int) -> Verdict:
    """Mean slowdown of shortest completion over that of the exact optimum on the static testbed."""
    params, keys = env.default_params, evaluation_keys(episodes)
    greedy = play_episodes(env, params, solvers.baselines(env)["Shortest completion"], params, keys).slowdown
    excess = float(np.max(np.asarray(greedy) / np.asarray(solvers.bound(env, params, keys).slowdown))) - 1
    text = f"at most {100 * excess:.2f} % above the optimum in {episodes} episodes of {env.name}"
    return Verdict(Status.HOLDS if excess <= 0.009 else Status.FAILS, text)


def mbps(value: float) -> str:
    """A bandwidth, or that there is none."""
    return "nowhere" if np.isnan(value) else f"{value:.0f} Mbit/s"


# The page


@dataclass(frozen=True)
class Section:
    """A figure of the paper: our picture of it, and the verdicts on what is said of it."""

    name: str  # of the file of the picture, too
    title: str
    verdicts: Mapping[tuple[str, str], Verdict]  # by id and words of the claim
    picture: Figure | None = None
    notes: Sequence[str] = field(default=())  # lines below the table

    def lines(self) -> Iterator[str]:
        """In Markdown."""
        yield from (f"## {self.title}", "")
        if self.picture is not None:
            yield from (f"![{self.title}]({self.name}.png)", "")
        yield from ("| | It is said | Verdict | Measured |", "|---|---|---|---|")
        for (claim, words), verdict in self.verdicts.items():
            yield f"| {claim} | {words} | **{verdict.status}** | {verdict.text} |"
        yield from ("", *self.notes)


TITLES = {
    "6a": "Fig. 6a: latency against bandwidth",
    "6b": "Fig. 6b: latency against CPU usage",
    "6c": "Fig. 6c: variance of device use against bandwidth",
    "6d": "Fig. 6d: variance of device use against concurrent tasks",
    "6e": "Fig. 6e: one device's CPU usage goes up",
    "6f": "Fig. 6f: one or two devices disconnect",
}


def in_readings(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Of a claim judged in several readings; those in which the very same was measured are named together."""
    names: dict[Verdict, list[str]] = {}
    for name, verdict in verdicts.items():
        names.setdefault(verdict, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return together({" and ".join(f'"{x}"' for x in same): verdict for verdict, same in names.items()})


def figure_6(measured: Mapping[str, Panels]) -> list[Section]:
    """The panels of Fig. 6, each claim judged in all readings.

    Args:
        measured: By reading.
    """
    return [
        Section(
            name=f"fig{panel}",
            title=TITLES[panel],
            verdicts={
                (claim.id, claim.words): in_readings({name: claim.judge(panels) for name, panels in measured.items()})
                for claim in claims
            },
            picture=draw(panel, measured),
        )
        for panel, claims in CLAIMS.items()
    ]


def figure_5(folder: Path) -> Section:
    """Convergence, from what `benchmarks/learning.py` left in `folder`, and the time of a decision.

    Raises:
        ValueError: If the runs are not there.
    """
    try:
        curves = {env_id: decolla_learning.read_curves(env_id, folder) for env_id in decolla_learning.ENVIRONMENTS}
    except FileNotFoundError as error:
        raise ValueError(f"no {error.filename}: run benchmarks/learning.py --missing first") from None
    return Section(
        name="fig5",
        title="Fig. 5: convergence of DRL-ES and DRL, and the time of a decision",
        verdicts=decolla_learning.verdicts(curves),
        picture=decolla_learning.draw_curves(curves),
        notes=decolla_learning.notes(curves),
    )


def draw(panel: str, measured: Mapping[str, Panels]) -> Figure:
    """A panel, one column a reading."""
    rows = 2 if panel in ("6d", "6e", "6f") else 1
    figure = Figure(figsize=(4.6 * len(measured), 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, len(measured), squeeze=False)
    for column, (name, panels) in zip(grid.T, measured.items(), strict=True):
        column[0].set_title(name)
        DRAWERS[panel](column, panels)
    grid[0, -1].legend(fontsize=7)
    return figure


def _draw_systems(column: Sequence[Any], panels: Panels, axis: str, metric: str) -> None:
    x = BANDWIDTHS if axis == "bandwidth" else USAGES
    for name in SYSTEMS:
        column[0].plot(x, panels[axis][name][metric], ".-", color=COLORS[name], label=name)
    if axis == "bandwidth":
        column[0].set_xscale("log")
    if metric == "latency":
        column[0].set_yscale("log")
    column[0].set_xlabel("bandwidth, Mbit/s" if axis == "bandwidth" else "CPU usage of all devices")
    column[0].set_ylabel("latency, s" if metric == "latency" else "variance of device use")


def _draw_tasks(column: Sequence[Any], panels: Panels) -> None:
    for axes, counting in zip(column, COUNTINGS, strict=True):
        for name, values in panels["tasks"][counting].items():
            axes.plot(TASKS, values, ".-", color=COLORS[name], label=name)
        axes.set_xlabel("concurrent tasks")
        axes.set_ylabel(f"variance of device use, {counting}")


def _draw_loaded(column: Sequence[Any], panels: Panels) -> None:
    for axes, metric in zip(column, ("processing", "waiting"), strict=True):
        for name, values in panels["loaded"].items():
            axes.errorbar(
                USAGES, values[metric].mean(1), values[metric].std(1), fmt=".-", color=COLORS[name], label=name
            )
        axes.set_xlabel("CPU usage of one device")
        axes.set_ylabel(f"{metric}, s")


def _draw_failures(column: Sequence[Any], panels: Panels) -> None:
    panel = panels["failure"]
    for lost, words, line in (("1", "one lost", ".-"), ("2", "two lost", ".:")):
        for system in (HIERARCHICAL, DECOLLA):
            latency = panel[lost][system].mean(1)
            column[0].plot(KAPPAS, latency, line, color=COLORS[system], label=f"{system}, {words}")
        column[1].plot(KAPPAS, panel[lost][HIERARCHICAL].mean(1) / panel[lost][DECOLLA].mean(1), ".-", label=words)
    column[1].axhline(CLAIMED_RATIO, color="k", linestyle=":", label="the paper")
    for axes, words in zip(column, ("latency, s", "ratio"), strict=True):
        axes.set_xlabel("kappa")
        axes.set_ylabel(words)
    column[1].legend(fontsize=7)


DRAWERS: dict[str, Callable[[Sequence[Any], Panels], None]] = {
    "6a": partial(_draw_systems, axis="bandwidth", metric="latency"),
    "6b": partial(_draw_systems, axis="usage", metric="latency"),
    "6c": partial(_draw_systems, axis="bandwidth", metric="variance"),
    "6d": _draw_tasks,
    "6e": _draw_loaded,
    "6f": _draw_failures,
}


def exchange_section(env: NeuronAllocation, rows: Sequence[Exchange], episodes: int) -> Section:
    """What the exchange costs under each rule, and what this suite says of the problem."""
    notes = [
        f"DeColla with {DEVICES} devices at {100 * USAGE:.0f} % usage, and from which bandwidth on it is faster than "
        "Hierarchical with the same bits, and than one device alone. The third rule is a lower bound on the latency: "
        "one medium carries every input once for all devices and every output once, and work divides evenly.",
        "",
        "| bit | exchange | 10 Mbit/s | 20 Mbit/s | 1 Gbit/s | beats Hierarchical from | beats one device from |",
        "|" + "---|" * 7,
        *(
            f"| {row.bits:g} | {row.rule} | {' | '.join(f'{x:.3g} s' for x in row.latency)} | "
            f"{mbps(row.beats_hierarchical)} | {mbps(row.beats_mobile)} |"
            for row in rows
        ),
        "",
    ]
    verdicts = {
        ("K1", "All elements of MobileNetV2 take 43 s at 10 Mbit/s and 32 bit, one device 0.29 s"): exchange_is_long(
            env
        ),
        ("K2", "The crossover at 10 Mbit/s does not follow from an exchange after each layer"): no_crossover(rows),
        ("K3", "Shortest completion is within 0.9 % of the optimum on the testbed"): greedy_is_optimal(env, episodes),
    }
    return Section("exchange", "What the exchange costs", verdicts, notes=notes)


def write_page(folder: Path, sections: Sequence[Section], command: str, seconds: float) -> None:
    """Write README.md and the pictures.

    Args:
        folder: Where to.
        sections: In order.
        command: What made them.
        seconds: How long that took.
    """
    statuses = [verdict.status for section in sections for verdict in section.verdicts.values()]
    count = ", ".join(f'{statuses.count(status)} "{status}"' for status in Status if status in statuses)
    about = machine()
    lines = [
        "# Collaborative inference within layers, Huang et al. 2022 (DeColla)",
        "",
        'Y. Huang et al., "Toward Decentralized and Collaborative Deep Learning Inference for Intelligent IoT '
        'Devices", IEEE Network 2022.',
        "",
        f"    {command}",
        "",
        f"{len(statuses)} claims: {count}. Verdicts are computed; the thresholds are in "
        "`benchmarks/reproduce/decolla.py`.",
        "",
        f"MobileNetV2 on {DEVICES} devices of {DEVICE_SPEED / 1e9:g} GFLOP/s, an edge of {EDGE_SPEED / 1e9:g}: both "
        "assumed, from 6 % of the peak of the machines that the paper names. Links alike. The paper's axes and curves "
        "are not public as numbers, and it does not say what devices exchange; so each claim is judged in these "
        "readings:",
        "",
        *(
            f"- {name}: {reading.bits:g} bit an element, {reading.decolla_bits:g} within a layer of DeColla; links of "
            f"{reading.bandwidth:g} Mbit/s where they do not vary."
            for name, reading in READINGS.items()
        ),
        "",
        "DeColla is shortest completion here. Hierarchical has blocks in proportion to speeds and no IP table. "
        "Failures are found by timeouts alone, kappa times the time expected of the block or piece, in both.",
        "",
        f"Machine: {about['cpu']}, {about['cores']} cores; jax {about['jax']}. Time: {seconds:.0f} s.",
        "",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        lines += section.lines()
        if section.picture is not None:
            section.picture.savefig(folder / f"{section.name}.png", dpi=100)
    write(folder / "README.md", "\n".join(lines).rstrip() + "\n")


def plain(value: Any) -> Any:
    """For JSON: arrays as lists of six digits, of trials their means."""
    if isinstance(value, Mapping):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, np.ndarray):
        if value.ndim == 2 and value.shape[1] > RUNS:
            value = value.mean(1)
        return [plain(x) for x in value.tolist()] if value.dtype != bool else float(value.mean())
    return [plain(x) for x in value] if isinstance(value, list) else float(f"{value:.6g}")


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--learning", type=Path, default=decolla_learning.LEARNING, help="folder of the learning runs")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    env = NeuronAllocation(NETWORK, num_devices=DEVICES)
    measured = {name: measure(env, reading) for name, reading in READINGS.items()}
    sections = [
        figure_5(args.learning),
        *figure_6(measured),
        exchange_section(env, exchanges(env, CROSSOVERS), EPISODES),
    ]
    command = shlex.join(["python", "benchmarks/reproduce/decolla.py", *argv])
    write_page(args.out, sections, command, time.perf_counter() - start)
    write(args.out / "data.json", json.dumps({"machine": machine(), "measured": plain(measured)}) + "\n")
    for section in sections:
        for (claim, words), verdict in section.verdicts.items():
            print(f"{claim}: {words}: {verdict.status}")
    print(f"page: {args.out / 'README.md'}")


if __name__ == "__main__":
    main()
