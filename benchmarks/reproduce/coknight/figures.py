"""The figures of the reproduction of Dai et al. 2022 (Coknight), each of what was measured."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.figure import Figure

from benchmarks.reproduce.coknight.data import (
    ACTORS,
    BANDWIDTHS,
    CROSSING,
    DEFAULTS,
    DEFP,
    DEVICE_SPEED,
    FEW_ACTORS,
    LIMITED,
    LOG_CUTS,
    LOGS,
    MILP,
    MOST_ACTORS,
    NUM_CUTS,
)
from benchmarks.reproduce.coknight.frameworks import frameworks
from benchmarks.reproduce.coknight.measured import Density, Measured
from benchmarks.reproduce.coknight.timeline_claims import FIG9, FIG11, NEAR_CROSSING

SHOWN = {"Seed-RL": "k-", "cut 3": "C0-", "cut 4": "C1-", "best cut": "C2-", "IMPALA": "C3--"}
WIDTHS = {"Seed-RL": 3.5, "cut 3": 2.2, "cut 4": 1.2, "best cut": 1.2, "IMPALA": 1.2}  # as some coincide
MARKERS = "osv^Dxp"


def draw_fig9(data: Measured) -> Figure:
    """Densities of GPU use and traffic over simulated seconds; solid on the full link, dashed on the limited one.

    IMPALA's GPU use is next to nothing, and its density so high that it is cut off.
    """
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for row, (gpu, found) in zip(figure.subplots(2, 2), data.windows.items(), strict=True):
        for name, windows in found.items():
            framework, network = name.split(", ")
            style = SHOWN[framework].rstrip("-") + ("--" if network == LIMITED else "-")
            for axes, density, scale in ((row[0], windows.use, 100), (row[1], windows.traffic, 1)):
                axes.plot(*_steps(density, scale), style, linewidth=WIDTHS[framework], label=name)
        highest = max(windows.use.density.max() for name, windows in found.items() if not name.startswith("IMPALA"))
        row[0].set_ylim(0, 1.1 * highest / 100)
        for share in (60, 90):
            row[0].axvline(share, color="0.7", linewidth=0.8)
        for axes in row:
            axes.set_title(f"{gpu}, {ACTORS} actors")
            axes.set_ylabel("density")
        row[0].set_xlabel("GPU use, %")
        row[0].set_xlim(0, 100)
        row[1].set_xlabel("traffic, MB/s")
        row[1].set_xlim(0, 14)
        row[1].legend(fontsize=7)
    return figure


def _steps(of: Density, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a density's steps, of the bins between the first and the last that was seen."""
    seen = np.flatnonzero(of.counts)
    bins = slice(seen[0], seen[-1] + 1)
    x = scale * of.edges[seen[0] : seen[-1] + 2].repeat(2)
    return x, np.concatenate([[0], (of.density[bins] / scale).repeat(2), [0]])


def draw_fig9_cuts(data: Measured) -> Figure:
    """Mean GPU use and traffic against the cut, with what the paper and its logs say."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    use, traffic = figure.subplots(1, 2)
    for (gpu, world), style in zip(data.worlds[DEFAULTS].items(), ("-", ":"), strict=True):
        for network, color in zip(FIG9, ("C0", "C1"), strict=True):
            label = f"{gpu}, {network}"
            use.plot(100 * world.use_on(network), color + style, marker=".", label=label)
            traffic.plot(world.traffic_on(network), color + style, marker=".", label=label)
    for share in (60, 90):
        use.axhline(share, color="0.7", linewidth=0.8)
    places = [LOG_CUTS[name] for name in LOGS]
    traffic.plot(places, list(LOGS.values()), "kx", label="the authors' logs")
    use.set_ylabel("GPU use, %")
    traffic.set_ylabel("traffic, MiB/s")
    for axes in (use, traffic):
        axes.set_xlabel(f"cut y: 0 is Seed-RL, {NUM_CUTS} is IMPALA")
        axes.set_ylim(bottom=0)
    traffic.legend(fontsize=7)
    return figure


def draw_fig10(data: Measured) -> Figure:
    """Throughput against bandwidth."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for axes, (gpu, world) in zip(figure.subplots(1, 2), data.worlds[DEFAULTS].items(), strict=True):
        for name, rate in frameworks(world.fig10).items():
            axes.plot(BANDWIDTHS, rate, SHOWN[name], linewidth=WIDTHS[name], marker=".", label=name)
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


def draw_fig11(data: Measured) -> Figure:
    """Throughput against actors, and where the crossing lies."""
    figure = Figure(figsize=(12, 9.6), layout="constrained")
    grid = figure.subplots(3, 2)
    worlds = data.worlds[DEFAULTS]
    actors = np.arange(1, MOST_ACTORS + 1)
    for row, network in zip(grid[:2], FIG11, strict=True):
        for axes, (gpu, world) in zip(row, worlds.items(), strict=True):
            for name, rate in frameworks(world.rates(network)).items():
                axes.plot(actors, rate, SHOWN[name], linewidth=WIDTHS[name], label=name)
            axes.axvline(CROSSING, color="0.7", linewidth=0.8)
            axes.set_title(f"{gpu}, {network}")
            axes.set_xlabel("actors")
            axes.set_ylabel("req/s")
    grid[0, 0].legend(fontsize=7)
    crossings = data.crossings
    for axes, (cut, found) in zip(grid[2], crossings.actors.items(), strict=True):
        x, y = crossings.speeds / 1e9, 1e3 * crossings.edge_times
        image = axes.pcolormesh(x, y, found, vmin=0, vmax=MOST_ACTORS)
        if np.isfinite(found).any():
            axes.contour(x, y, np.ma.masked_invalid(found), NEAR_CROSSING, colors="w")
        for world in worlds.values():
            axes.plot(DEVICE_SPEED / 1e9, 1e3 * world.edge_time, "wx")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"actors at the crossing, cut {cut}, 1 Gbit/s")
        axes.set_xlabel("f_d, GFLOP/s")
        axes.set_ylabel("GPU time of an inference, ms")
        figure.colorbar(image, ax=axes)
    return figure


def draw_fig12(data: Measured) -> Figure:
    """Total reduction and variances of each algorithm with both servers, and the operations of DEFP."""
    figure = Figure(figsize=(16, 9.6), layout="constrained")
    grid = figure.subplots(3, 4)
    table, of = data.tables[DEFAULTS], data.operations
    titles = ("total latency reduction, s", "reduction, % of MILP's", "strategy variance Var(y)", "Var(u), s^2")
    for row, (server, found) in zip(grid[:2], table.found.items(), strict=True):
        for index, (name, values) in enumerate(found.items()):
            mean = {metric: x.mean(1) for metric, x in values.items()}
            shown = (
                mean["reduction"] * table.sizes,
                100 * mean["reduction"] / found[MILP]["reduction"].mean(1),
                mean["var_cut"],
                mean["var_utility"],
            )
            for axes, numbers in zip(row, shown, strict=True):
                axes.plot(table.sizes, numbers, label=name, **_style(name, index))
        for axes, title in zip(row, titles, strict=True):
            axes.set_title(title)
            axes.set_xlabel(f"actors, {server} server")
        for axes in row[1:]:
            axes.set_xscale("log", base=2)
            axes.set_xticks(table.sizes, labels=list(map(str, table.sizes)))
    grid[0, 0].legend(fontsize=7)
    for axes, x, y, name in zip(
        grid[2],
        (of.sizes, of.cuts),
        (of.by_size, of.by_cuts),
        (f"actors, K = {NUM_CUTS}", f"cuts K, {of.devices} actors"),
        strict=False,
    ):
        axes.loglog(x, y, "C0-", marker=".", label="counted")
        axes.loglog(x, y[-1] * (np.array(x) / x[-1]) ** 2, "0.7", label="quadratic")
        axes.set_xticks(x, labels=list(map(str, x)))
        axes.set_xticks([], minor=True)
        axes.set_xlabel(name)
        axes.set_ylabel("operations of DEFP")
        axes.legend(fontsize=7)
    for axes in grid[2, 2:]:
        axes.axis("off")
    return figure


def _style(name: str, index: int) -> dict[str, object]:
    """MILP is a broad band below, DEFP lies on top of all with open diamonds: they and others often coincide."""
    if name == MILP:
        return {"color": "0.75", "linewidth": 7, "marker": "s", "markersize": 9, "zorder": 1}
    if name == DEFP:
        return {"color": "C0", "marker": "D", "markersize": 8, "markerfacecolor": "none", "zorder": 10}
    return {"color": f"C{index}", "linewidth": 1, "marker": MARKERS[index], "markersize": 4}


FIGURES: Mapping[str, Callable[[Measured], Figure]] = {
    "fig9": draw_fig9,
    "fig9_cuts": draw_fig9_cuts,
    "fig10": draw_fig10,
    "fig11": draw_fig11,
    "fig12": draw_fig12,
}
