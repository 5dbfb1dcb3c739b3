"""The results of Huang et al. 2022 (DeColla), the range of what the paper leaves open, and verdicts over it."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import Status, Verdict, in_settings
from benchmarks.reproduce.decolla.readings import (
    DECOLLA,
    EDGE_SPEED,
    EDGE_SPEEDS,
    KEYS,
    MEDIA,
    READINGS,
    RULERS,
    SHORTEST,
    SPLITS,
)

CHANGE = 0.05
"""Least relative change of what is said to rise, to fall or to be better."""
LISTED = 6
"""Values of a curve in the text of a verdict."""


def edge_name(speed: float) -> str:
    """GFLOP/s, as in the results."""
    return f"{speed / 1e9:g}"


EDGES = (edge_name(EDGE_SPEED), *(edge_name(speed) for speed in EDGE_SPEEDS if speed != EDGE_SPEED))
"""GFLOP/s; the assumed one comes first, as what comes first is what a verdict gives the numbers of."""


@dataclass(frozen=True)
class Data:
    """The results, and over what of the range claims are judged."""

    results: Results
    readings: tuple[str, ...] = tuple(READINGS)
    edges: tuple[str, ...] = EDGES
    media: tuple[str, ...] = tuple(MEDIA)
    splits: tuple[str, ...] = SPLITS

    def of(self, kind: str, reading: str) -> dict[str, Any]:
        """The result of an experiment in a reading."""
        return self.results[f"{kind}_{KEYS[reading]}"]

    def axis(self, kind: str, name: str) -> list[float]:
        """Values along an axis of an experiment that was run in every reading."""
        return list(self.of(kind, self.readings[0])["experiment"][name])


def load(folder: Path) -> Data:
    """What measuring left in a folder."""
    return Data(Results.load(folder))


def decolla(data: Data, reading: str, axis: str, medium: str) -> dict[str, np.ndarray]:
    """`latency` and `variance` of DeColla, [point].

    Shortest completion on private links; on other media, where that is an estimate, the quickest of the rulers.
    """
    rulers = data.of("sweep", reading)[axis][DECOLLA][medium]
    names = (SHORTEST,) if medium == "private" else RULERS
    found = {key: np.array([rulers[name][key] for name in names], float) for key in ("latency", "variance")}
    chosen = found["latency"].argmin(axis=0)
    return {key: np.take_along_axis(values, chosen[None], 0)[0] for key, values in found.items()}


def learned(data: Data, reading: str, axis: str, key: str) -> np.ndarray:
    """Of the learned policies for one request, on private links: [point, seed]."""
    return np.array(data.results["learned_alone"]["learned"][reading][axis][key], float)


# Verdicts


def over[V](
    judge: Callable[[str, V], Verdict], readings: Iterable[str], variants: Mapping[str, V], about: str = ""
) -> Verdict:
    """A claim over readings and, in each, over variants of what else is open; the first of both gives the numbers.

    Args:
        judge: Of a reading and a variant.
        readings: Of the exchange.
        variants: By name.
        about: What comes before the numbers.
    """
    every = {reading: {name: judge(reading, variant) for name, variant in variants.items()} for reading in readings}
    return merged(every, about)


def merged(every: Mapping[str, Mapping[str, Verdict]], about: str = "") -> Verdict:
    """`in_settings`, settings with the same status named together.

    Args:
        every: By reading and variant; a variant's name has parts, of which only those are told that matter.
        about: What comes before the numbers.
    """
    flat = {f"{reading} / {name}": verdict for reading, row in every.items() for name, verdict in row.items()}
    first = next(iter(flat.values()))
    if len(flat) == 1:
        return Verdict(first.status, about + first.text)
    named = flat if len({verdict.status for verdict in flat.values()}) == 1 else _grouped(every)
    return in_settings({name: Verdict(v.status, about + v.text) for name, v in named.items()}, next(iter(named)))


def _grouped(every: Mapping[str, Mapping[str, Verdict]]) -> dict[str, Verdict]:
    rows = {reading: _by_status(row) for reading, row in every.items()}
    names = [{status: words for status, (words, _) in row.items()} for row in rows.values()]
    if all(row == names[0] for row in names):  # readings make no difference
        return dict(next(iter(rows.values())).values())
    return {
        f"{reading} ({words})" if len(row) > 1 else reading: verdict
        for reading, row in rows.items()
        for words, verdict in row.values()
    }


def _by_status(row: Mapping[str, Verdict]) -> dict[Status, tuple[str, Verdict]]:
    """The variants of each status in words, by the fewest parts of their names that tell them apart."""
    parts = {name: name.split(", ") for name in row}
    count = len(next(iter(parts.values())))
    for kept in (kept for size in range(count + 1) for kept in itertools.combinations(range(count), size)):
        shorter = {name: ", ".join(parts[name][place] for place in kept) for name in row}
        if len({(words, row[name].status) for name, words in shorter.items()}) == len(set(shorter.values())):
            break
    found: dict[Status, tuple[list[str], Verdict]] = {}
    for name, verdict in row.items():
        words, _ = found.setdefault(verdict.status, ([], verdict))
        if shorter[name] not in words:
            words.append(shorter[name])
    return {status: (" / ".join(words), verdict) for status, (words, verdict) in found.items()}


def both(parts: Mapping[str, Verdict]) -> Verdict:
    """Of a claim that says several things at once: holds if all of them do."""
    text = "; ".join(f"{name}: {part.text}" for name, part in parts.items())
    holds = all(part.status is Status.HOLDS for part in parts.values())
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


def judged(holds: bool | np.bool_, text: str) -> Verdict:
    """Plainly."""
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


def listed(name: str, x: Sequence[float], values: np.ndarray, unit: str = "") -> str:
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
    return judged(holds, listed(name, x, values, unit))
