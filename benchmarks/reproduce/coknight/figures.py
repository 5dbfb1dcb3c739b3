"""The figures of the reproduction of Dai et al. 2022 (Coknight)."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from benchmarks.reproduce.coknight.data import ACTORS, CROSSING, DEVICE_SPEED, FEW_ACTORS, LOG_CUTS, LOGS, NUM_CUTS
from benchmarks.reproduce.coknight.partition import DEFP, MILP, Reductions, Times
from benchmarks.reproduce.coknight.timeline import BANDWIDTHS, FIG9, FIG11, MOST_ACTORS, World, coknights
from benchmarks.reproduce.coknight.timeline_claims import NEAR_CROSSING

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
