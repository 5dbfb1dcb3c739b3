"""What Huang et al. 2022 (DeColla) claim of Fig. 6, and what is said of it here; how the panels decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.harness.verdicts import Status, Verdict, by_point, greater, shown, together
from benchmarks.reproduce.decolla.panels import BANDWIDTHS, KAPPAS, TASKS, USAGES, Panels
from benchmarks.reproduce.decolla.systems import (
    COUNTINGS,
    DECOLLA,
    DEVICE_SPEED,
    HIERARCHICAL,
    MBPS,
    MOBILE,
    PARTITION,
    REPLANNED,
    SYSTEMS,
    USAGE,
    Exchange,
    crossover,
    parts_of,
)
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.solvers import neuron_allocation as solvers

# Thresholds.
CHANGE = 0.05  # least relative change of what is said to rise or fall
STABLE = 0.1  # largest part of a fall that lies above the middle of the axis, of what is said to be stable there
EVEN = 1e-4  # largest variance of device use, and difference of two, that counts as none: 1 % of the time
SIGNIFICANT = 1.2  # least ratio of what is said to be significant
CLAIMED_RATIO = 2.5  # of Fig. 6f
LISTED = 6  # values of a curve in the text of a verdict


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


def exchange_is_long(env: NeuronAllocation) -> Verdict:
    """43 s for all elements over one channel of 10 Mbit/s, 0.29 s on one device."""
    table = env.network
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


def in_readings(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Of a claim judged in several readings; those in which the very same was measured are named together."""
    names: dict[Verdict, list[str]] = {}
    for name, verdict in verdicts.items():
        names.setdefault(verdict, []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return together({" and ".join(f'"{x}"' for x in same): verdict for verdict, same in names.items()})
