"""The panels of Fig. 6 of Huang et al. 2022 (DeColla), one column a reading."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from benchmarks.reproduce.decolla.claims import CLAIMED_RATIO
from benchmarks.reproduce.decolla.panels import BANDWIDTHS, KAPPAS, TASKS, USAGES, Panels
from benchmarks.reproduce.decolla.systems import COUNTINGS, DECOLLA, HIERARCHICAL, MOBILE, PARTITION, REPLANNED, SYSTEMS

COLORS = {MOBILE: "C0", PARTITION: "C1", HIERARCHICAL: "C2", REPLANNED: "C4", DECOLLA: "C3"}


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
