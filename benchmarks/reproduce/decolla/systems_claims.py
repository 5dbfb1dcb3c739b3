"""What Huang et al. 2022 (DeColla) claim of Fig. 6, and what is said of it here; how the results decide."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.harness.verdicts import Status, Verdict, by_point, interval, shown
from benchmarks.reproduce.decolla.readings import (
    COUNTINGS,
    DECOLLA,
    HIERARCHICAL,
    MBPS,
    MEDIA,
    MOBILE,
    PARTITION,
    PLANS,
    RULES,
)
from benchmarks.reproduce.decolla.settings import (
    CHANGE,
    Data,
    both,
    course,
    decolla,
    judged,
    listed,
    merged,
    over,
)

STABLE = 0.1  # largest part of a fall that lies above the middle of the axis, of what is said to be stable there
TIE = 0.01  # relative difference below which two systems are affected alike
EVEN = 1e-4  # largest variance of device use, and difference of two, that counts as none: 1 % of the time
DRAMATIC = 2.0  # least factor of what is said to rise dramatically
MOST = 0.5  # of the FLOP
BUSY = 0.5  # least usage that is called high
FROM = 10.0  # Mbit/s, the paper's crossover
SIGNIFICANT = 1.2  # least ratio of what is said to be significant
RATIO = 2.5  # of Fig. 6f
ALL_SECONDS, ALONE_SECONDS = 43, 0.29  # of K1
NEAR_OPTIMUM = 0.009  # of K3

WHO = ("shortest completion", "learned")
"""Who allocates in Fig. 6d."""


def sides(data: Data) -> dict[str, tuple[str, str]]:
    """What is open where DeColla and Hierarchical meet: medium and split."""
    return {f"{MEDIA[medium]}, {split}": (medium, split) for medium in data.media for split in data.splits}


def edges(data: Data) -> dict[str, str]:
    """The edge's speed."""
    return {f"edge {edge} GFLOP/s": edge for edge in data.edges}


def media(data: Data) -> dict[str, str]:
    """Of the exchange."""
    return {MEDIA[medium]: medium for medium in data.media}


def curve(data: Data, reading: str, axis: str, *path: str) -> dict[str, np.ndarray]:
    """A system's arrays along an axis of a sweep."""
    found: Any = data.of("sweep", reading)[axis]
    for name in path:
        found = found[name]
    return {key: np.array(values, float) for key, values in found.items()}


def latencies(data: Data, reading: str, axis: str, variant: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """s of Hierarchical and of DeColla, [point], for one of `sides`."""
    medium, split = variant
    return curve(data, reading, axis, HIERARCHICAL, split)["latency"], decolla(data, reading, axis, medium)["latency"]


# Fig. 6a


def hierarchical_settles(data: Data) -> Verdict:
    x = data.axis("sweep", "bandwidths")

    def one(reading: str, split: str) -> Verdict:
        latency = curve(data, reading, "bandwidth", HIERARCHICAL, split)["latency"]
        falls = course("B", x, latency, False, "s")
        above = (latency[len(x) // 2] - latency[-1]) / max(latency[0] - latency[-1], 1e-12)
        text = f"{falls.text} Mbit/s; {100 * above:.1f} % of the fall lies above {x[len(x) // 2]:g}"
        return judged(falls.status is Status.HOLDS and above <= STABLE, text)

    return over(one, data.readings, {split: split for split in data.splits})


def partition_is_best(data: Data) -> Verdict:
    x = data.axis("sweep", "bandwidths")
    variants = {f"edge {edge} GFLOP/s, private links": (edge, "private") for edge in data.edges}
    variants |= {
        f"edge {data.edges[0]} GFLOP/s, {MEDIA[medium]}": (data.edges[0], medium)
        for medium in data.media
        if medium != "private"
    }

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        edge, medium = variant
        rest = [
            curve(data, reading, "bandwidth", MOBILE)["latency"],
            *(curve(data, reading, "bandwidth", HIERARCHICAL, split)["latency"] for split in data.splits),
            decolla(data, reading, "bandwidth", medium)["latency"],
        ]
        ratio = np.min(rest, axis=0) / curve(data, reading, "bandwidth", PARTITION, edge)["latency"]
        text = listed("B", x, ratio, "= best of the others / Partition-offloading") + " Mbit/s"
        return by_point("B", x, (ratio >= 1 + CHANGE).tolist(), text)

    return over(one, data.readings, variants)


def mobile_does_not_care(data: Data) -> Verdict:
    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        medium, split = variant
        curves = {
            MOBILE: curve(data, reading, "bandwidth", MOBILE),
            PARTITION: curve(data, reading, "bandwidth", PARTITION, data.edges[0]),
            HIERARCHICAL: curve(data, reading, "bandwidth", HIERARCHICAL, split),
            DECOLLA: decolla(data, reading, "bandwidth", medium),
        }
        spread = {name: float(np.max(row["latency"]) / np.min(row["latency"])) for name, row in curves.items()}
        text = "worst over best latency: " + ", ".join(f"{s:.3g} ({n})" for n, s in spread.items())
        others = min(value for name, value in spread.items() if name != MOBILE)
        return judged(spread[MOBILE] * (1 + TIE) <= others, text)

    return over(one, data.readings, sides(data))


def bandwidth_helps(data: Data) -> Verdict:
    x = data.axis("sweep", "bandwidths")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        theirs, ours = latencies(data, reading, "bandwidth", variant)
        return both({HIERARCHICAL: course("B", x, theirs, False, "s"), DECOLLA: course("B", x, ours, False, "s")})

    return over(one, data.readings, sides(data))


def decolla_beats_hierarchical(data: Data) -> Verdict:
    every = data.axis("sweep", "bandwidths")
    above = np.array(every) >= FROM
    x = [b for b, inside in zip(every, above, strict=True) if inside]

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        theirs, ours = latencies(data, reading, "bandwidth", variant)
        ratio = (theirs / ours)[above]
        return by_point("B", x, (ratio > 1).tolist(), listed("B", x, ratio, "= Hierarchical / DeColla") + " Mbit/s")

    return over(one, data.readings, sides(data))


def crossover(bandwidths: Sequence[float], ours: np.ndarray, theirs: np.ndarray) -> float:
    """Least bandwidth from which on `ours` is less, NaN without one; to the grid."""
    better = np.logical_and.accumulate((ours < theirs)[::-1])[::-1]
    return float(np.asarray(bandwidths)[np.argmax(better)]) if better.any() else float("nan")


def crossover_at_10(data: Data) -> Verdict:
    x = data.axis("sweep", "bandwidths")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        theirs, ours = latencies(data, reading, "bandwidth", variant)
        found = crossover(x, ours, theirs)
        text = "none on the axis" if np.isnan(found) else f"from {found:g} Mbit/s on, of {x[0]:g} and more"
        return judged(found == FROM, f"DeColla is faster: {text}")

    return over(one, data.readings, sides(data))


# Fig. 6b


def partition_does_not_care(data: Data) -> Verdict:
    x = data.axis("sweep", "usages")

    def one(reading: str, edge: str) -> Verdict:
        rows = {
            MOBILE: curve(data, reading, "usage", MOBILE),
            HIERARCHICAL: curve(data, reading, "usage", HIERARCHICAL, data.splits[0]),
            DECOLLA: decolla(data, reading, "usage", data.media[0]),
            PARTITION: curve(data, reading, "usage", PARTITION, edge),
        }
        growth = {name: float(row["latency"][-1] / row["latency"][0]) for name, row in rows.items()}
        text = f"latency at {x[-1]:g} / at {x[0]:g}: " + ", ".join(f"{g:.3g} ({n})" for n, g in growth.items())
        return judged(growth[PARTITION] * (1 + TIE) <= min(g for n, g in growth.items() if n != PARTITION), text)

    return over(one, data.readings, edges(data))


def goes_to_the_edge(data: Data) -> Verdict:
    x = data.axis("sweep", "usages")

    def one(reading: str, edge: str) -> Verdict:
        part = curve(data, reading, "usage", PARTITION, edge)["edge"]
        idle = "all of it is there already: " if part.min() == 1 else ""
        holds = part[-1] > MOST and part[-1] - part[0] >= CHANGE and bool(np.all(np.diff(part) >= 0))
        return judged(holds, idle + listed("usage", x, part, "of the FLOP at the edge"))

    return over(one, data.readings, edges(data))


def mobile_suffers(data: Data) -> Verdict:
    x = data.axis("sweep", "usages")
    latency = curve(data, data.readings[0], "usage", MOBILE)["latency"]
    rises = bool(np.all(np.diff(latency) > 0)) and latency[-1] >= DRAMATIC * latency[0]
    return judged(rises, listed("usage", x, latency, "s"))


def decolla_under_load(data: Data) -> Verdict:
    every = data.axis("sweep", "usages")
    busy = np.array(every) >= BUSY
    x = [usage for usage, inside in zip(every, busy, strict=True) if inside]

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        theirs, ours = latencies(data, reading, "usage", variant)
        ratio = (theirs / ours)[busy]
        return by_point("usage", x, (ratio > 1).tolist(), listed("usage", x, ratio, "= Hierarchical / DeColla"))

    return over(one, data.readings, sides(data))


def table_upkeep(data: Data) -> Verdict:
    x, reading = data.axis("sweep", "bandwidths"), data.readings[0]
    theirs = curve(data, reading, "bandwidth", HIERARCHICAL, data.splits[0])["latency"]
    needed = (decolla(data, reading, "bandwidth", data.media[0])["latency"] - theirs)[x.index(FROM)]
    return Verdict(
        Status.NOT_PUBLIC,
        f"no time is given; with {reading}, for DeColla to be as fast at {FROM:g} Mbit/s the table would have to cost "
        f"{max(needed, 0):.3g} s an inference",
    )


# Fig. 6c


def even_course(name: str, x: list[float], values: np.ndarray, rising: bool) -> Verdict:
    """`course` of a variance of device use."""
    verdict = course(name, x, values, rising, least=EVEN)
    even = f"even throughout, below {EVEN:g}: " if values.max() <= EVEN else ""
    return Verdict(verdict.status, even + verdict.text)


def mobile_variance_rises(data: Data) -> Verdict:
    values = curve(data, data.readings[0], "bandwidth", MOBILE)["variance"]
    return even_course("B", data.axis("sweep", "bandwidths"), values, True)


def partition_variance_rises(data: Data) -> Verdict:
    x = data.axis("sweep", "bandwidths")

    def one(reading: str, edge: str) -> Verdict:
        return even_course("B", x, curve(data, reading, "bandwidth", PARTITION, edge)["variance"], True)

    return over(one, data.readings, edges(data))


def decolla_variance_falls(data: Data) -> Verdict:
    x = data.axis("sweep", "bandwidths")

    def one(reading: str, medium: str) -> Verdict:
        return even_course("B", x, decolla(data, reading, "bandwidth", medium)["variance"], False)

    return over(one, data.readings, media(data))


def decolla_is_balanced(data: Data) -> Verdict:
    """Against the others that compute on the devices at all: who leaves them idle uses them evenly."""
    x = data.axis("sweep", "bandwidths")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        medium, split = variant
        offloaded = curve(data, reading, "bandwidth", PARTITION, data.edges[0])
        others = [
            curve(data, reading, "bandwidth", MOBILE)["variance"],
            np.where(offloaded["edge"] < 1, offloaded["variance"], np.inf),
            curve(data, reading, "bandwidth", HIERARCHICAL, split)["variance"],
        ]
        ours, rest = decolla(data, reading, "bandwidth", medium)["variance"], np.min(others, axis=0)
        text = f"{listed('B', x, ours)}; least of the others {listed('B', x, rest)} Mbit/s"
        return by_point("B", x, (ours < rest).tolist(), text)

    return over(one, data.readings, sides(data))


# Fig. 6d


def tasks_of(data: Data, reading: str, table: str, who: str) -> np.ndarray:
    """DeColla's variance (by counting) or "latency" (s), [number of tasks, seed]; shortest completion has one seed."""
    x, found = data.axis("tasks", "tasks"), data.of("tasks", reading)
    if who == WHO[0]:
        return np.array(found[DECOLLA][table], float)[:, None]
    rows = []
    for number in x:
        run = data.results[f"learned_tasks{number:g}"]["learned"][reading]
        busy, end, latency = (np.array(run[name], float) for name in ("busy", "end", "latency"))
        over_time = end if table == COUNTINGS[0] else np.maximum(found["window"], end)
        rows.append(latency if table == "latency" else np.var(busy / over_time[:, None], axis=1))
    return np.stack(rows)


def highest(values: np.ndarray) -> np.ndarray:
    """Upper ends of the intervals over seeds, [point] of [point, seed]."""
    return np.array([interval(row)[1] if row.size > 1 else row[0] for row in values])


def rises_then_falls(values: np.ndarray, x: list[float]) -> Verdict:
    """Holds if the largest variance is not the first, and the last is below it by `CHANGE`."""
    holds = values.max() > (1 + CHANGE) * values[0] and values[-1] < (1 - CHANGE) * values.max()
    return judged(holds, listed("tasks", x, values))


def mobile_fills_up(data: Data) -> Verdict:
    x, row = data.axis("tasks", "tasks"), data.of("tasks", data.readings[0])[MOBILE]
    return merged({"any reading": {name: rises_then_falls(np.array(row[name], float), x) for name in COUNTINGS}})


def partition_fills_up(data: Data) -> Verdict:
    x = data.axis("tasks", "tasks")
    variants = {f"{name}, {words}": (name, edge) for name in COUNTINGS for words, edge in edges(data).items()}

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        counting, edge = variant
        return rises_then_falls(np.array(data.of("tasks", reading)[PARTITION][edge][counting], float), x)

    return over(one, data.readings, variants)


def allocations() -> dict[str, tuple[str, str]]:
    """What is open of DeColla's variance under concurrent tasks: how it is counted, and who allocates."""
    return {f"{counting}, {who}": (counting, who) for who in WHO for counting in COUNTINGS}


def decolla_evens_out(data: Data) -> Verdict:
    x = data.axis("tasks", "tasks")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        return even_course("tasks", x, tasks_of(data, reading, *variant).mean(1), False)

    return over(one, data.readings, allocations())


def decolla_shares_evenly(data: Data) -> Verdict:
    x = data.axis("tasks", "tasks")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        ours, theirs = tasks_of(data, reading, *variant), np.array(data.of("tasks", reading)[MOBILE][variant[0]], float)
        text = f"{listed('tasks', x, ours.mean(1))}; Mobile-only {listed('tasks', x, theirs)}"
        return by_point("tasks", x, (highest(ours) <= theirs + EVEN).tolist(), text)

    return over(one, data.readings, allocations())


def decolla_is_fast_together(data: Data) -> Verdict:
    x = data.axis("tasks", "tasks")
    rivals = {f"than {MOBILE}": (MOBILE, "")}
    rivals |= {f"than {PARTITION} with {words}": (PARTITION, edge) for words, edge in edges(data).items()}
    variants = {f"{words}, {who}": (*rival, who) for words, rival in rivals.items() for who in WHO}

    def one(reading: str, variant: tuple[str, str, str]) -> Verdict:
        system, edge, who = variant
        row = data.of("tasks", reading)[system]
        theirs = np.array((row if system == MOBILE else row[edge])["latency"], float)
        ours = tasks_of(data, reading, "latency", who)
        text = listed("tasks", x, theirs / ours.mean(1), f"= {system}'s latency / DeColla's")
        return by_point("tasks", x, (highest(ours) < theirs).tolist(), text)

    return over(one, data.readings, variants)


# Fig. 6e


def plans(data: Data) -> dict[str, tuple[str, str]]:
    """How Hierarchical divides the layers, and whether it knows of the usages."""
    return {f"{split}, {plan}": (split, plan) for split in data.splits for plan in PLANS}


def hierarchical_slows(data: Data) -> Verdict:
    x = data.axis("loaded", "usages")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        split, plan = variant
        latency = np.array(data.of("loaded", reading)[HIERARCHICAL][split][plan]["processing"], float)
        ratio = latency[-1] / latency[0]
        text = f"{shown(latency[0])} s at {x[0]:g}, {shown(latency[-1])} s at {x[-1]:g}; ratio {shown(ratio)}"
        return judged(interval(ratio)[0] >= SIGNIFICANT, text)

    return over(one, data.readings, plans(data))


def compare_loaded(data: Data, metric: str, least: float) -> Verdict:
    """Holds at a usage if the whole interval of the ratio, run by run, lies above `least`."""
    x = data.axis("loaded", "usages")

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        split, plan = variant
        found = data.of("loaded", reading)
        theirs = np.array(found[HIERARCHICAL][split][plan][metric], float)
        ratio = theirs / np.array(found[DECOLLA][metric], float)
        holds = [interval(row)[0] > least for row in ratio]
        return by_point("usage", x, holds, listed("usage", x, ratio.mean(1), "= Hierarchical / DeColla"))

    return over(one, data.readings, plans(data))


# Fig. 6f


def ratio_of_failures(data: Data) -> Verdict:
    x = data.axis("lost", "kappas")
    variants = {
        f"{split}, {words} lost, {cut} trials": (split, lost, cut)
        for split in data.splits
        for lost, words in (("1", "one"), ("2", "two"))
        for cut in ("interrupted", "all")
    }

    def one(reading: str, variant: tuple[str, str, str]) -> Verdict:
        split, lost, cut = variant
        mean, low, _ = np.array(data.of("lost", reading)[split][lost][cut]["ratio"], float).T
        return by_point("kappa", x, (low >= RATIO).tolist(), listed("kappa", x, mean))

    return over(one, data.readings, variants)


def smaller_timeout(data: Data) -> Verdict:
    variants = {
        f"{split}, {words}": (split, piece)
        for split in data.splits
        for words, piece in (("on average", "piece"), ("always", "longest piece"))
    }

    def one(reading: str, variant: tuple[str, str]) -> Verdict:
        split, piece = variant
        found = data.of("lost", reading)["expected"]
        text = f"{piece} {1e3 * found[piece]:.3g} ms, block {1e3 * found[split]:.3g} ms"
        return judged(found[piece] < found[split], text)

    return over(one, data.readings, variants)


# Ours


def exchange_is_long(data: Data) -> Verdict:
    found = data.results["exchange"]
    seconds = 32 * sum(found["elements"]) / (FROM * MBPS)
    inputs, outputs = (elements / 1e6 for elements in found["elements"])
    text = f"{inputs:.2f} M and {outputs:.2f} M elements, {seconds:.1f} s; alone {found['mobile']:.3f} s"
    holds = round(seconds) == ALL_SECONDS and round(found["mobile"], 2) == ALONE_SECONDS
    return judged(holds, text)


def no_crossover(data: Data) -> Verdict:
    found = data.results["exchange"]
    grid, theirs = found["experiment"]["grid"], np.array(found["32"][HIERARCHICAL], float)
    at = {rule: crossover(grid, np.array(found["32"][rule], float), theirs) for rule in RULES}
    text = ", ".join(f"{mbps(value)} ({rule})" for rule, value in at.items())
    return judged(not any(value <= FROM for value in at.values()), f"DeColla beats Hierarchical from {text}")


def greedy_is_optimal(data: Data) -> Verdict:
    excess = np.array(data.results["optimum"]["excess"], float)
    text = f"at most {100 * excess.max():.2f} % above the optimum in {excess.size} episodes of NeuronAllocation-v0"
    return judged(excess.max() <= NEAR_OPTIMUM, text)


def mbps(value: float) -> str:
    """A bandwidth, or that there is none."""
    return "nowhere" if np.isnan(value) else f"{value:.0f} Mbit/s"
