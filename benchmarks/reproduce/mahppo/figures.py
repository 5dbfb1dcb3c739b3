"""The figures of the reproduction of Hao et al. 2022, one function each, drawn from the results."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.harness.experiments import NotMeasured, Results
from benchmarks.learning.leaderboard import RECORDED
from benchmarks.reproduce.mahppo.beyond_the_paper import AUTHORS, PRINTED, STATIC, UNIFORM
from benchmarks.reproduce.mahppo.claims import JALAD, RULERS, TRAINED, known_costs
from benchmarks.reproduce.mahppo.measured import NETWORKS, codec_rates, static_savings
from benchmarks.reproduce.mahppo.plan import PRESET_SIZES
from benchmarks.reproduce.mahppo.theorem import BETAS, GOOD, best_ones, frames_apart, pool, wrong_order

MAHPPO_COLOR, JALAD_COLOR, LOCAL_COLOR, STATIC_COLOR = "C0", "C1", "C2", "C3"
SURROGATE = "JALAD surrogate"
FRAMES = (0, 500)
"""Thousand frames of the paper's axes in Figs. 8 to 10."""
PAPER_RETURNS, PAPER_LOSSES = (-50, 0), (0, 0.05)
"""Of the paper's vertical axes in Fig. 9."""


def _band(axes: Axes, x: Sequence[float], values: np.ndarray, label: str, color: Any, dashed: bool = False) -> None:
    """Mean and standard deviation over seeds of values [seed, x]."""
    mean, spread = np.nanmean(values, 0), np.nanstd(values, 0)
    axes.plot(x, mean, "--" if dashed else "-", color=color, label=label)
    axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)


def _returns(axes: Axes, local: float) -> None:
    """Axes of returns; what lies far below Local is cut off."""
    axes.set_ylim(5 * local, 0)
    axes.set_xlim(FRAMES)
    axes.set_xlabel("thousand environment frames")
    axes.set_ylabel("return on the evaluation scenario")


def _thousands(results: Results, name: str) -> list[float]:
    return [frames / 1e3 for frames in results[name]["frames"]]


def _figure(columns: int, rows: int = 1) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(4.6 * columns, 3.5 * rows), layout="constrained")
    return figure, np.atleast_1d(figure.subplots(rows, columns))


def _shades(number: int) -> list[tuple[float, ...]]:
    return [colormaps["viridis"](x) for x in np.linspace(0, 0.9, number)]


def fig8(results: Results) -> Figure:
    """Returns, latency and energy while learning, N = 5."""
    figure, axes = _figure(3)
    ours, jalad, rulers = "mahppo_resnet18_n5", "jalad_resnet18_n5", "rulers_resnet18_n5"
    for axis, metric, scale in zip(axes, ("episode_return", "latency", "energy"), (1, 1e3, 1e3), strict=True):
        for name, color, label in ((ours, MAHPPO_COLOR, "MAHPPO"), (jalad, JALAD_COLOR, f"{SURROGATE}, 3 s frames")):
            seconds = np.array(results[name]["frames"]) * (3.0 if name == jalad else 0.5)
            values = scale * results.curve(name, metric)[0]
            _band(axis, list(seconds / 1e3), values, label, color)
            if metric == "episode_return" and name == jalad:
                _band(axis, list(seconds / 1e3), 6 * values, f"{SURROGATE}, six-fold", color, dashed=True)
        for name, color in (("Local", LOCAL_COLOR), ("Best static", STATIC_COLOR)):
            axis.axhline(scale * results.ruler(rulers, name, metric)[0], color=color, linestyle=":", label=name)
    local = {metric: results.ruler(rulers, "Local", metric)[0] for metric in ("episode_return", "latency", "energy")}
    axes[0].set_ylim(8 * local["episode_return"], 0)  # so that the six-fold line is there
    axes[0].set_ylabel("return on the evaluation scenario")
    for axis, metric, unit in zip(axes[1:], ("latency", "energy"), ("ms", "mJ"), strict=True):
        axis.set_ylim(0, 2.5e3 * local[metric])
        axis.set_ylabel(f"{metric}, {unit} per task")
    for axis in axes:
        axis.set_xlabel("simulated time in training, thousand s")
        axis.set_xlim(0, 0.5 * FRAMES[1])
    axes[0].legend(fontsize=8)
    return figure


def fig9(results: Results) -> Figure:
    """Learning rate, sample reuse and memory size, on the paper's axes and close up: returns, and the value loss."""
    figure, rows = _figure(4, 2)
    local = float(results.ruler("rulers_resnet18_n5", "Local", "episode_return")[0])
    rates = [point["actor_lr"] for point in results["learning_rate"]["experiment"]["points"]]
    for axes in rows:
        for i, (rate, color) in enumerate(zip(rates, _shades(len(rates)), strict=True)):
            curve = results.curve("learning_rate", "episode_return")[i]
            _band(axes[0], _thousands(results, "learning_rate"), curve, f"learning rate {rate:g}", color)
        for axis, prefix, metric, label in (
            (axes[1], "reuse_", "episode_return", "reuse"),
            (axes[2], "memory_", "episode_return", "memory"),
            (axes[3], "memory_", "value_loss", "memory"),
        ):
            sizes = results.sizes(prefix)
            for size, color in zip(sizes, _shades(len(sizes)), strict=True):
                name = f"{prefix}{size}"
                _band(axis, _thousands(results, name), results.curve(name, metric)[0], f"{label} {size}", color)
        for axis in axes[:3]:
            _returns(axis, local)
            axis.axhline(local, color=LOCAL_COLOR, linestyle=":", label="Local")
        axes[3].set(xlabel="thousand environment frames", ylabel="value loss")
    for axis, panel in zip(rows[0], "abcd", strict=True):
        axis.set_title(f"({panel})")
    for axis in rows[0, :3]:
        axis.set_ylim(PAPER_RETURNS)
    rows[0, 3].set(xlim=FRAMES, ylim=PAPER_LOSSES)
    for axis in rows[1]:
        axis.set_xlim(0, 150)
    rows[1, 3].set_yscale("log")
    for axis in rows[1]:
        axis.legend(fontsize=7)
    return figure


def _curves_over_sizes(axes: Axes, results: Results, profile: str) -> None:
    prefix = TRAINED.format(profile)
    sizes = results.sizes(prefix)
    for size, color in zip(sizes, _shades(len(sizes)), strict=True):
        name = f"{prefix}{size}"
        _band(axes, _thousands(results, name), results.curve(name, "episode_return")[0], f"N = {size}", color)
    rulers = f"{RULERS.format(profile)}{sizes[0]}"
    local = float(results.ruler(rulers, "Local", "episode_return")[0])
    axes.axhline(local, color=LOCAL_COLOR, linestyle=":", label="Local")
    _returns(axes, local)
    axes.legend(fontsize=8, ncols=2)


def _cost_over_sizes(axes: Axes, results: Results, profile: str, metric: str, unit: str) -> None:
    """Against N: mean and standard deviation of the trained policies, and the rulers."""
    for template, label, color in ((TRAINED, "MAHPPO", MAHPPO_COLOR), (JALAD, f"{SURROGATE}, 3 s frames", JALAD_COLOR)):
        prefix = template.format(profile)
        sizes = results.sizes(prefix)
        _band(axes, sizes, 1e3 * results.over_sizes(prefix, metric, sizes).T, label, color)
        if template == JALAD and metric == "latency":
            true = 1e3 * results.over_sizes(prefix, "task_latency", sizes).T
            _band(axes, sizes, true, f"{SURROGATE}, true time of a task", color, dashed=True)
    sizes = results.sizes(TRAINED.format(profile))
    for name, color in (("Local", LOCAL_COLOR), ("Best static", STATIC_COLOR)):
        ruler = results.rulers_over_sizes(RULERS.format(profile), name, metric, sizes)
        axes.plot(sizes, 1e3 * ruler, ":", marker=".", color=color, label=name)
    known = {n: costs[metric] for n in sizes if (costs := known_costs(results, profile, n))}
    if known:
        axes.plot(list(known), [1e3 * cost for cost in known.values()], "k*", label="Best known plan")
    axes.set(xlabel="N, UEs", ylabel=f"{metric}, {unit} per task")
    axes.set_xticks(sizes)
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
    axes.legend(fontsize=8, loc="upper left")


def fig10(results: Results) -> Figure:
    """Returns while learning, by N."""
    figure, axes = _figure(1)
    _curves_over_sizes(axes[0], results, "resnet18")
    return figure


def fig11(results: Results) -> Figure:
    """Latency and energy by N."""
    figure, axes = _figure(2)
    for axis, metric, unit in zip(axes, ("latency", "energy"), ("ms", "mJ"), strict=True):
        _cost_over_sizes(axis, results, "resnet18", metric, unit)
    return figure


def fig12(results: Results) -> Figure:
    """Latency and energy by beta."""
    figure, axes = _figure(2)
    betas = [point["beta"] for point in results["beta"]["experiment"]["points"]]
    for axis, metric, unit in zip(axes, ("latency", "energy"), ("ms", "mJ"), strict=True):
        _band(axis, betas, 1e3 * results.final("beta", metric).T, "MAHPPO", MAHPPO_COLOR)
        for name, color in (("Local", LOCAL_COLOR), ("Best static", STATIC_COLOR)):
            axis.plot(betas, 1e3 * results.ruler("rulers_beta", name, metric), ":", marker=".", color=color, label=name)
        axis.set(xscale="log", xlabel="beta, s/J", ylabel=f"{metric}, {unit} per task")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8)
    return figure


def fig13(results: Results) -> Figure:
    """Returns, latency and energy with VGG11 and MobileNetV2."""
    figure, axes = _figure(3, 2)
    for row, profile, title in zip(axes, ("vgg11", "mobilenetv2"), ("VGG11", "MobileNetV2"), strict=True):
        _curves_over_sizes(row[0], results, profile)
        for axis, metric, unit in zip(row[1:], ("latency", "energy"), ("ms", "mJ"), strict=True):
            _cost_over_sizes(axis, results, profile, metric, unit)
        for axis in row:
            axis.set_title(title)
    return figure


def theorem1(results: Results) -> Figure:
    """P2 against P1 at beta 0.47, and the pairs in the wrong order by beta."""
    figure, axes = _figure(2)
    policies = pool(results)
    for kind, label in enumerate(("random static", "random mixture", "trained")):
        some = policies.kind == kind
        axes[0].plot(policies.p1(0.47)[some], policies.p2(0.47)[some], ".", markersize=3, label=label)
    ends = np.array([policies.p1(0.47).min(), policies.p1(0.47).max()])
    axes[0].plot(ends, ends, "k:", label="P2 = P1")
    axes[0].set(xscale="log", yscale="log", xlabel="P1, s (beta 0.47)", ylabel="P2, s")
    apart = frames_apart(policies)
    for label, order in (
        ("all pairs", lambda beta: wrong_order(policies.p2(beta), policies.p1(beta))),
        ("at least a frame apart", lambda beta: wrong_order(policies.p2(beta), policies.p1(beta), apart)),
        (
            f"among the best {100 * GOOD:.0f} %",
            lambda beta: wrong_order(policies.p2(beta), policies.p1(beta), best_ones(policies, beta)),
        ),
    ):
        axes[1].plot(BETAS, [100 * order(beta) for beta in BETAS], marker=".", label=label)
    axes[0].set_xticks([20, 50, 100, 200], labels=["20", "50", "100", "200"])
    axes[0].set_xticks([], minor=True)
    axes[1].set(xscale="log", xlabel="beta, s/J", ylabel="pairs P2 puts in the wrong order, %")
    axes[1].set_ylim(bottom=0)
    for axis in axes:
        axis.legend(fontsize=8)
    return figure


def presets(results: Results) -> Figure:
    """Returns of the method as printed and of the authors' settings, with the authors' runs and the rulers."""
    figure, axes = _figure(len(PRESET_SIZES))
    for axis, n in zip(axes, PRESET_SIZES, strict=True):
        lines = [(PRINTED, "as printed", "C4"), (AUTHORS, "preset reference", "C5")]
        lines += [(UNIFORM, "preset reference, uniform start", "C6")] if n == 5 else []
        for name, label, color in lines:
            run = results[f"preset_{name}_n{n}"]
            _band(axis, [frames / 1e3 for frames in run["frames"]], np.array(run["curve"]), label, color)
        for i, value in enumerate(RECORDED[n]):
            axis.axhline(value, color="0.6", linewidth=0.8, label=None if i else "the authors' code, recorded")
        for name, color in (("Local", LOCAL_COLOR), (STATIC, STATIC_COLOR)):
            value = float(results.ruler(f"rulers_resnet18_n{n}", name, "episode_return")[0])
            axis.axhline(value, color=color, linestyle=":", label=name)
        _returns(axis, float(results.ruler(f"rulers_resnet18_n{n}", "Local", "episode_return")[0]))
        axis.set_title(f"N = {n}")
    axes[-1].legend(fontsize=8)
    return figure


def measured(results: Results) -> Figure:
    """Rates by cut, and what the best static action saves by how slowly UEs code."""
    drawn, axes = _figure(3)
    for axis, (profile, title) in zip(axes, NETWORKS.items(), strict=False):
        try:
            ours, jalad = codec_rates(results, profile)
        except NotMeasured:
            axis.set_title(f"{title}: not measured")
            continue
        for seed, rates in enumerate(np.array(list(ours.values())).T):
            axis.plot(
                range(len(ours)), rates, "o", color=MAHPPO_COLOR, alpha=0.5, label=None if seed else "autoencoder"
            )
        axis.plot(range(len(jalad)), list(jalad.values()), "s-", color=JALAD_COLOR, label="JALAD")
        axis.set_xticks(range(len(jalad)), list(jalad), fontsize=8)
        axis.set(title=title, ylabel="rate R", yscale="log")
        axis.legend(fontsize=8)
    slowdowns = results["coder_slowdown"]["experiment"]["slowdowns"]
    axes[2].plot(slowdowns, 100 * static_savings(results), "o-", color=STATIC_COLOR)
    axes[2].set(xlabel="UE's coder slower than measured by", ylabel="P1 saved against Local in %", xscale="log")
    return drawn


FIGURES: dict[str, Callable[[Results], Figure]] = {
    "fig8": fig8,
    "fig9": fig9,
    "fig10": fig10,
    "fig11": fig11,
    "measured": measured,
    "fig12": fig12,
    "fig13": fig13,
    "theorem1": theorem1,
    "presets": presets,
}
