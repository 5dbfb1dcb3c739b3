"""Figs. 7 to 11 of Mu et al. 2024."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.reproduce.mu.claims import JOINT, NAMES, SHORT, Data, latencies
from benchmarks.reproduce.mu.experiments import METHODS, NETWORKS

STYLES = {name: f"C{place}" for place, name in enumerate(name for name in METHODS if name != JOINT)} | {JOINT: "k"}


def _curve(axes: Axes, x: np.ndarray, values: np.ndarray, name: str, line: str = "-") -> None:
    width = 2.0 if name == JOINT else 1.0
    axes.plot(x, values, line, color=STYLES[name], label=name, linewidth=width, marker=".", markersize=4)


def over_rates(data: Data) -> Figure:
    """Figs. 7 and 8."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, squeeze=False)
    for row, network in zip(grid, NETWORKS, strict=True):
        for axes, device in zip(row, SHORT, strict=True):
            result = data.rates(network, device)
            rates = np.array(result["experiment"]["rates"]) / 1e6
            for name, values in latencies(result).items():
                _curve(axes, rates, values, name)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(f"{NAMES[network]}, {device}", fontsize="medium")
            axes.set_ylabel("latency, s")
    for axes in grid[1]:
        axes.set_xlabel("rate, Mbit/s")
    grid[0][0].legend(fontsize="x-small")
    return figure


def at_each_cut(data: Data) -> Figure:
    """Figs. 9 and 10."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    for axes, network in zip(figure.subplots(1, 2), NETWORKS, strict=True):
        result = data.cuts(network)
        for name, flops in result["flops"].items():
            marker = "*" if name == JOINT else "."
            axes.plot(
                np.array(flops) / 1e9, np.array(result["bits"][name]) / 1e6, marker, color=STYLES[name], label=name
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{NAMES[network]}: a point for each cut", fontsize="medium")
        axes.set_xlabel("work on the device, GFLOP")
        axes.set_ylabel("sent, Mbit")
        axes.legend(fontsize="x-small")
    return figure


def over_noise(data: Data) -> Figure:
    """Fig. 11."""
    figure = Figure(figsize=(6, 4.4), layout="constrained")
    axes = figure.subplots()
    result = data.noise()
    snrs = np.array(result["experiment"]["snrs"])
    for name, values in latencies(result).items():
        allowed = np.array(result["allowed"][name])
        _curve(axes, snrs, np.where(allowed, values, np.nan), name)
        if not allowed.all():
            axes.plot(snrs[~allowed], values[~allowed], "x", color=STYLES[name], markersize=5)
    axes.set_yscale("log")
    axes.set_xlabel("SNR, dB (x: beyond the accuracy budget)")
    axes.set_ylabel("latency, s")
    axes.legend(fontsize="x-small")
    return figure
