"""Pictures of a sweep: where the good choices are, and how the best learns beside the preset."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from algos.sweep.space import Axis, written
from algos.sweep.study import PRESET, Sweep
from mec_jax.files import whole_file
from mec_jax.statistics import mean_interval

__all__ = ["LEARNING", "SCORES", "Curves", "curves", "problem_name", "write_pictures"]

SCORES, LEARNING = "scores.png", "learning.png"
COLOURS = "viridis"


def problem_name(sweep: Sweep, problem: int) -> str:
    """A problem in words; of one alone, the environment."""
    values = sweep.study.problems[problem]
    words = [f"{name.partition('.')[2]} {written(value)}" for name, value in values.items()]
    return ", ".join(words) or sweep.study.base.env_id


def measure_name(sweep: Sweep, problem: int | None) -> str:
    """What choices are ranked by on a problem, or without one over all, in words."""
    return "score" if sweep.is_scored(problem) else "return"


def write_pictures(sweep: Sweep) -> list[str]:
    """Draw both into the sweep's folder; the names of the files."""
    from matplotlib.figure import Figure

    names = []
    trials = sweep.finished()
    problems = range(len(sweep.study.problems))
    if trials and sweep.study.space.choices:
        axes = sweep.study.space.choices
        width = 2 + 3.6 * len(problems) if len(axes) < 3 else max(6, 1.6 * len(axes) * len(problems))
        figure = Figure(figsize=(min(width, 24), 4), layout="constrained")
        panels = figure.subplots(1, len(problems), squeeze=False, sharey=len(axes) < 3)[0]
        draw = {1: _line, 2: _map}.get(len(axes), _parallel)
        for problem, panel in zip(problems, panels, strict=True):
            draw(sweep, axes, trials, problem, panel, figure, problem == problems[-1])
            panel.set_title(problem_name(sweep, problem), fontsize="medium")
        with whole_file(sweep.folder / SCORES) as unfinished:
            figure.savefig(unfinished, dpi=120)
        names.append(SCORES)
    figure = Figure(figsize=(min(2 + 3.6 * len(problems), 24), 3.6), layout="constrained")
    panels = figure.subplots(1, len(problems), squeeze=False)[0]
    for problem, panel in zip(problems, panels, strict=True):
        for place, (name, lines) in enumerate(curves(sweep, problem).items()):
            panel.plot(lines.frames, lines.mean, "o-", markersize=3, color=f"C{place}", label=name)
            error = np.abs([lines.low - lines.mean, lines.high - lines.mean])
            panel.errorbar(lines.frames, lines.mean, error, color=f"C{place}", linewidth=0, elinewidth=1)
        panel.set_title(problem_name(sweep, problem), fontsize="medium")
        panel.set_xlabel("environment frames")
        if panel.lines:
            panel.legend(fontsize="small")
    panels[0].set_ylabel(f"{measure_name(sweep, 0)} on the evaluation scenario")
    with whole_file(sweep.folder / LEARNING) as unfinished:
        figure.savefig(unfinished, dpi=120)
    return [*names, LEARNING]


class Curves(NamedTuple):
    """Over seeds, in score where there are scores."""

    frames: np.ndarray
    mean: np.ndarray
    low: np.ndarray  # 95 % interval of the mean
    high: np.ndarray


def curves(sweep: Sweep, problem: int) -> Mapping[str, Curves]:
    """Learning curves of the best on a problem, and of the preset where it was run, on the same seeds."""
    trial = sweep.best(problem)
    if trial is None:
        return {}
    fresh = sweep.study.fresh_seeds
    seeds: Sequence[int] = fresh or range(sweep.study.base.seed, sweep.study.base.seed + sweep.study.seeds)
    scale = sweep.scale(problem)
    found = {}
    if sweep.study.schedule == "pbt":  # its best can't be run again
        seeds = range(sweep.study.base.seed, sweep.study.base.seed + 1)
    for name, which in (("best", trial), *([("preset", PRESET)] if fresh else [])):
        if which == PRESET:
            seeds = fresh
        results = sweep.results(which, problem, seeds)
        frames = np.array([frame for frame, _ in results[0].curve])
        returns = np.array([[mean for _, mean in result.curve] for result in results])
        lines = returns if scale is None else scale.score(returns)
        low, high = np.transpose([mean_interval(column) for column in lines.T])
        found[name] = Curves(frames, lines.mean(0), low, high)
    return found


def _range(sweep: Sweep, trials: Sequence[int]) -> tuple[float, float]:
    """Of colours: what is far below the others has the lowest."""
    problems = range(len(sweep.study.problems))
    worth = np.array([sweep.mean(trial, problem) for trial in trials for problem in problems])
    finite = worth[np.isfinite(worth)]
    if not len(finite):
        return 0.0, 1.0
    top, middle = float(finite.max()), float(np.median(finite))
    low = max(float(finite.min()), middle - 3 * (top - middle))
    return (low, top) if low < top else (low - 1e-6, top + 1e-6)


def _line(
    sweep: Sweep, axes: Sequence[Axis], trials: Sequence[int], problem: int, panel: Any, figure: Any, last: bool
) -> None:
    (axis,) = axes
    at = [_place(axis, sweep.choice(trial)[axis.name]) for trial in trials]
    worth = [sweep.mean(trial, problem) for trial in trials]
    panel.plot(*np.transpose(sorted(zip(at, worth, strict=True))), "o-", markersize=3)
    low, high = _range(sweep, trials)
    panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    _scale_axis(panel, axis, "x")
    panel.set_ylabel(measure_name(sweep, problem) if problem == 0 else "")


def _map(
    sweep: Sweep, axes: Sequence[Axis], trials: Sequence[int], problem: int, panel: Any, figure: Any, last: bool
) -> None:
    x, y = axes
    at = np.array([[_place(axis, sweep.choice(trial)[axis.name]) for axis in axes] for trial in trials])
    worth = np.array([sweep.mean(trial, problem) for trial in trials])
    low, high = _range(sweep, trials)
    colours = {"vmin": low, "vmax": high, "cmap": COLOURS}
    if x.values and y.values:
        table, tried = np.full((len(y.values), len(x.values)), np.nan), {*map(tuple, at.astype(int).tolist())}
        for (column, row), value in zip(at.astype(int), worth, strict=True):
            table[row, column] = value
        shown = panel.imshow(table, origin="lower", aspect="auto", **colours)
        for row, column in np.ndindex(table.shape):
            text = f"{table[row, column]:.2f}" if math.isfinite(table[row, column]) else ""
            text = "diverged" if (column, row) in tried and not text else text
            is_light = table[row, column] > (low + high) / 2
            panel.text(column, row, text, ha="center", va="center", fontsize=7, color="black" if is_light else "white")
    else:
        good = np.isfinite(worth)
        panel.scatter(*at[~good].T, marker="x", color="tab:red", s=18, label="diverged")
        order = np.argsort(worth[good])  # the best on top
        shown = panel.scatter(*at[good][order].T, c=worth[good][order], s=36, **colours)
    for axis, which in ((x, "x"), (y, "y")):
        _scale_axis(panel, axis, which, named=which == "x" or problem == 0)
    if last:
        figure.colorbar(shown, ax=panel, label=measure_name(sweep, problem))


def _parallel(
    sweep: Sweep, axes: Sequence[Axis], trials: Sequence[int], problem: int, panel: Any, figure: Any, last: bool
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    low, high = _range(sweep, trials)
    colours: Any = ScalarMappable(Normalize(low, high), COLOURS)
    worth = {trial: sweep.mean(trial, problem) for trial in trials}
    order = sorted((trial for trial in trials if math.isfinite(worth[trial])), key=lambda trial: worth[trial])
    for trial in order:
        heights = [_share(axis, sweep.choice(trial)[axis.name]) for axis in axes]
        heights.append(min(max((worth[trial] - low) / (high - low), 0), 1))
        panel.plot(heights, color=colours.to_rgba(worth[trial]), linewidth=2 if trial == order[-1] else 0.8)
    names = [axis.name.partition(".")[2] for axis in axes]
    panel.set_xticks(range(len(axes) + 1), [*names, measure_name(sweep, problem)], rotation=20, ha="right")
    panel.set_ylim(-0.08, 1.08)
    panel.set_yticks([])
    for place, axis in enumerate(axes):
        panel.axvline(place, color="0.8", linewidth=0.8, zorder=0)
        ends = (axis.values[0], axis.values[-1]) if axis.values else (axis.low, axis.high)
        for end, height in zip(ends, (-0.06, 1.03), strict=True):
            text = f"{end:g}" if isinstance(end, int | float) and not isinstance(end, bool) else written(end)
            panel.text(place, height, text, ha="center", fontsize=7)
    if last:
        figure.colorbar(colours, ax=panel, label=measure_name(sweep, problem))


def _place(axis: Axis, value: Any) -> float:
    """On an axis: a number of a range as it is, one of values by its place among them."""
    return float(axis.values.index(value)) if axis.values else float(value)


def _share(axis: Axis, value: Any) -> float:
    """From 0 at one end to 1 at the other."""
    if axis.values:
        return axis.values.index(value) / max(len(axis.values) - 1, 1)
    ends = (axis.low, value, axis.high)
    low, at, high = (math.log(end) for end in ends) if axis.log else ends
    return (at - low) / (high - low)


def _scale_axis(panel: Any, axis: Axis, which: str, named: bool = True) -> None:
    from matplotlib.ticker import NullFormatter

    if axis.values:
        texts = [f"{value:g}" if isinstance(value, float) else written(value) for value in axis.values]
        getattr(panel, f"set_{which}ticks")(range(len(texts)), texts)
    else:
        if axis.log:
            getattr(panel, f"set_{which}scale")("log")
            getattr(panel, f"{which}axis").set_minor_formatter(NullFormatter())
        space = 0.03
        at = [math.log(end) if axis.log else end for end in (axis.low, axis.high)]
        wide = [at[0] - space * (at[1] - at[0]), at[1] + space * (at[1] - at[0])]
        getattr(panel, f"set_{which}lim")(*(math.exp(end) if axis.log else end for end in wide))
    if named:
        getattr(panel, f"set_{which}label")(axis.name)
