"""The figures of Huang et al. 2022 (DeColla): Figs. 5 and 6, a column a reading, and Least over media."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.reproduce.decolla.learning_claims import BOUND, CARRIED, DRL, ES, NAIVE, OURS, PAPER, Curves, settings
from benchmarks.reproduce.decolla.readings import (
    AVERAGE,
    BEST_SPLIT,
    COUNTINGS,
    DECOLLA,
    FLOP_SPLIT,
    HIERARCHICAL,
    MEDIA,
    MOBILE,
    PARTITION,
    RULERS,
    SHORTEST,
    STALE,
    TESTBEDS,
)
from benchmarks.reproduce.decolla.settings import Data, decolla, learned
from benchmarks.reproduce.decolla.systems_claims import RATIO, WHO, curve, tasks_of

COLORS = {MOBILE: "C0", PARTITION: "C1", HIERARCHICAL: "C2", DECOLLA: "C3"}
LINES = {"private": "-", "half_duplex": "--", "shared": ":"}
FLOOR = 1e-12
"""Variance of device use below which the axis is linear, so that zeros are seen."""
ITERATIONS = 1500  # of the paper's Fig. 5


def _columns(data: Data, rows: int = 1, height: float = 3.8) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(4.8 * len(data.readings), height * rows), layout="constrained")
    grid = figure.subplots(rows, len(data.readings), squeeze=False)
    for axes, reading in zip(grid[0], data.readings, strict=True):
        axes.set_title(reading, fontsize="medium")
    return figure, grid


def _variance_axis(axes: Axes, what: str) -> None:
    axes.set_yscale("symlog", linthresh=FLOOR)
    axes.set_ylim(-FLOOR / 2, 1)
    axes.set_yticks([0, *(10.0**power for power in range(-12, 1, 2))])
    axes.set_ylabel(f"{what}\n(linear below {FLOOR:g})", fontsize="small")


def _seeds(axes: Axes, x: Sequence[float], values: np.ndarray, color: str, label: str, marker: str = "x-") -> None:
    """Mean and range of [point, seed]."""
    axes.plot(x, values.mean(1), marker, color=color, label=label, linewidth=0.8, markersize=4)
    axes.fill_between(x, values.min(1), values.max(1), color=color, alpha=0.15, linewidth=0)


def draw_systems(data: Data, axis: str, metric: str) -> Figure:
    """Figs. 6a to 6c."""
    figure, grid = _columns(data, height=4.2)
    x = data.axis("sweep", f"{axis}s")
    for axes, reading in zip(grid[0], data.readings, strict=True):
        axes.plot(x, curve(data, reading, axis, MOBILE)[metric], ".-", color=COLORS[MOBILE], label=MOBILE)
        edges = [curve(data, reading, axis, PARTITION, edge)[metric] for edge in data.edges]
        axes.plot(x, edges[0], ".-", color=COLORS[PARTITION], label=f"{PARTITION}, edge of {data.edges[0]} GFLOP/s")
        low, high = np.min(edges, axis=0), np.max(edges, axis=0)
        axes.fill_between(x, low, high, color=COLORS[PARTITION], alpha=0.15, label="edges of 3.5 to 350 GFLOP/s")
        for split, style in ((FLOP_SPLIT, ".-"), (BEST_SPLIT, "+--")):
            values = curve(data, reading, axis, HIERARCHICAL, split)[metric]
            axes.plot(x, values, style, color=COLORS[HIERARCHICAL], label=f"{HIERARCHICAL}, {split}")
        for medium in data.media:
            values = decolla(data, reading, axis, medium)[metric]
            axes.plot(x, values, f".{LINES[medium]}", color=COLORS[DECOLLA], label=f"{DECOLLA}, {MEDIA[medium]}")
        _seeds(axes, x, learned(data, reading, axis, metric), "C4", f"{DECOLLA}, learned, private links")
        if axis == "bandwidth":
            axes.set_xscale("log")
        axes.set_xlabel("bandwidth, Mbit/s" if axis == "bandwidth" else "CPU usage of all devices")
        if metric == "latency":
            axes.set_yscale("log")
            axes.set_ylabel("latency, s")
        else:
            _variance_axis(axes, "variance of device use")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)
    return figure


def draw_tasks(data: Data) -> Figure:
    """Fig. 6d, and the latency beside it."""
    figure, grid = _columns(data, rows=3, height=3.4)
    x = data.axis("tasks", "tasks")
    for column, reading in zip(grid.T, data.readings, strict=True):
        found = data.of("tasks", reading)
        for axes, table in zip(column, (*COUNTINGS, "latency"), strict=True):
            axes.plot(x, found[MOBILE][table], ".-", color=COLORS[MOBILE], label=MOBILE)
            for edge in data.edges:
                label = f"{PARTITION}, edge of {edge} GFLOP/s" if edge == data.edges[0] else None
                width = 1.5 if label else 0.5
                axes.plot(x, found[PARTITION][edge][table], ".-", color="C1", linewidth=width, label=label)
            ours = tasks_of(data, reading, table, WHO[0])
            axes.plot(x, ours[:, 0], ".-", color=COLORS[DECOLLA], label=f"{DECOLLA}, {WHO[0]}")
            _seeds(axes, x, tasks_of(data, reading, table, WHO[1]), "C4", f"{DECOLLA}, {WHO[1]}")
            axes.set_xlabel("concurrent tasks")
            if table == "latency":
                axes.set_yscale("log")
                axes.set_ylabel("mean latency, s")
            else:
                _variance_axis(axes, f"variance of device use, {table}")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    return figure


def draw_loaded(data: Data) -> Figure:
    """Fig. 6e."""
    figure, grid = _columns(data, rows=2)
    x = data.axis("loaded", "usages")
    for column, reading in zip(grid.T, data.readings, strict=True):
        found = data.of("loaded", reading)
        for axes, metric in zip(column, ("processing", "waiting"), strict=True):
            for split, color in ((FLOP_SPLIT, "C2"), (BEST_SPLIT, "C5")):
                for plan, rows in found[HIERARCHICAL][split].items():
                    values = np.array(rows[metric], float)
                    style = ".-" if plan == STALE else ".--"
                    axes.plot(x, values.mean(1), style, color=color, label=f"{HIERARCHICAL}, {split}, {plan}")
                    axes.fill_between(x, values.min(1), values.max(1), color=color, alpha=0.12, linewidth=0)
            _seeds(axes, x, np.array(found[DECOLLA][metric], float), COLORS[DECOLLA], DECOLLA, ".-")
            axes.set_yscale("log")
            axes.set_xlabel("CPU usage of one device")
            axes.set_ylabel(f"{metric}, s")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=7)
    return figure


def draw_failures(data: Data) -> Figure:
    """Fig. 6f."""
    figure, grid = _columns(data, rows=2)
    x = data.axis("lost", "kappas")
    for column, reading in zip(grid.T, data.readings, strict=True):
        found = data.of("lost", reading)
        for lost, words, style in (("1", "one lost", ".-"), ("2", "two lost", ".:")):
            for split, color in ((FLOP_SPLIT, "C2"), (BEST_SPLIT, "C5")):
                row = found[split][lost]["interrupted"]
                column[0].plot(x, row[HIERARCHICAL], style, color=color, label=f"{HIERARCHICAL}, {split}, {words}")
                mean, low, high = np.array(row["ratio"], float).T
                column[1].plot(x, mean, style, color=color)
                column[1].fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
            values = found[FLOP_SPLIT][lost]["interrupted"][DECOLLA]
            column[0].plot(x, values, style, color=COLORS[DECOLLA], label=f"{DECOLLA}, {words}")
        column[1].axhline(RATIO, color="k", linestyle=":", linewidth=1)
        for axes, words in zip(column, ("latency of interrupted trials, s", "Hierarchical / DeColla"), strict=True):
            axes.set_xlabel("kappa")
            axes.set_ylabel(words)
            axes.set_yscale("log")
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=7)
    return figure


def draw_curves(data: Data) -> Figure:
    """Fig. 5: slowdown against iterations and frames, from no iteration on; mean and range over seeds."""
    rows = {where.words: settings(data, name)[OURS] for name, where in TESTBEDS.items()}
    testbed = settings(data, "testbed")
    rows[f"the testbed, {PAPER}"] = testbed[PAPER]
    figure = Figure(figsize=(9.6, 3.7 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False)
    for row, (title, found) in zip(grid, rows.items(), strict=True):
        also = testbed[CARRIED] if PAPER in title else None
        for axes, unit in zip(row, ("iterations", "frames"), strict=True):
            _learning(axes, found, also, unit)
            axes.set_title(title.replace("`", ""), fontsize="medium")
    grid[0, 0].legend(fontsize=7)
    grid[-1, 0].legend(fontsize=7)
    return figure


def _learning(axes: Axes, found: Curves, also: Curves | None, unit: str) -> None:
    def plot(curves: Curves, name: str, label: str, color: str) -> None:
        x = (curves.iterations if unit == "iterations" else curves.frames)[name]
        axes.plot(x, curves.slowdown[name].mean(0), label=label, color=color)
        axes.fill_between(x, curves.slowdown[name].min(0), curves.slowdown[name].max(0), alpha=0.2, color=color)

    plot(found, ES, ES, "C0")
    if also is not None:
        plot(also, ES, f"{ES}, population carried", "C9")
    plot(found, DRL, DRL, "C1")
    for place, ruler in enumerate((*NAIVE, SHORTEST, BOUND)):
        axes.axhline(found.rulers[ruler], color=f"C{place + 2}", linestyle="--", linewidth=1, label=ruler)
    axes.set_ylabel("mean slowdown")
    axes.set_xlabel(unit if unit == "iterations" else "environment frames")
    first = found.iterations[ES][1] if unit == "iterations" else found.frames[DRL][1]
    axes.set_xscale("symlog", linthresh=first)
    axes.set_xlim(0, ITERATIONS if unit == "iterations" else None)


def draw_least(data: Data) -> Figure:
    """Slowdowns of the rulers on the testbed over media and bandwidths, as parts of Average's."""
    content = data.results["rulers_testbed"]
    x, bits = content["experiment"]["bandwidths"], content["experiment"]["bits"]
    figure = Figure(figsize=(4.2 * len(data.media), 3.4 * len(bits)), layout="constrained")
    grid = figure.subplots(len(bits), len(data.media), squeeze=False, sharex=True, sharey="row")
    for row, number in zip(grid, bits, strict=True):
        for axes, medium in zip(row, data.media, strict=True):
            found = {name: np.array(values) for name, values in content["slowdown"][medium][f"{number:g}"].items()}
            for place, ruler in enumerate(RULERS):
                axes.plot(x, found[ruler] / found[AVERAGE], ".-", color=f"C{place}", label=ruler)
            axes.set_xscale("log")
            axes.set_title(f"{MEDIA[medium]}, {number:g} bit", fontsize="medium")
        row[0].set_ylabel("mean slowdown / Average's")
    for axes in grid[-1]:
        axes.set_xlabel("bandwidth, Mbit/s")
    grid[0, -1].legend(fontsize=7)
    return figure


FIGURES: dict[str, Callable[[Data], Figure]] = {
    "fig5": draw_curves,
    "least": draw_least,
    "fig6a": partial(draw_systems, axis="bandwidth", metric="latency"),
    "fig6b": partial(draw_systems, axis="usage", metric="latency"),
    "fig6c": partial(draw_systems, axis="bandwidth", metric="variance"),
    "fig6d": draw_tasks,
    "fig6e": draw_loaded,
    "fig6f": draw_failures,
}
"""By name of the file."""


def best_up_to(x: Sequence[float], best: Sequence[bool]) -> str:
    """The bandwidths at which Least is best, in words."""
    held = [value for value, holds in zip(x, best, strict=True) if holds]
    if not held or all(best):
        return "at all" if held else "at none"
    below = all(best[: len(held)])
    return f"up to {held[-1]:g}" if below else ", ".join(f"{value:g}" for value in held)
