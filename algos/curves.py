"""Learning curves of runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mec_jax.evaluation import Report
from mec_jax.files import whole_file
from mec_jax.statistics import bootstrap_interval

CURVE_EPISODES = 16
"""Episodes of the evaluations during training: the first of the protocol's keys, for curves and rulers alike."""

type Curve = tuple[Float[np.ndarray, " chunk"], Float[np.ndarray, " chunk"]]
"""Environment frames, and the mean return of the evaluation there."""


def read_curve(folder: Path) -> Curve:
    """The curve of a run folder.

    Raises:
        ValueError: If its `metrics.csv` is missing or damaged.
    """
    file = folder / "metrics.csv"
    try:
        with file.open(newline="") as table:
            rows = [(float(row["frames"]), float(row["evaluation/episode_return"])) for row in csv.DictReader(table)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} cannot be read ({error}): train again, or copy the folder again") from None
    frames, returns = np.array(rows).reshape(-1, 2).T
    return frames, returns


def plot_curves(path: Path, curves: Mapping[str, Sequence[Curve]], report: Report) -> None:
    """Draw curves by name, the rulers of the report as lines. Of several runs, their mean and its 95 % interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    rulers = ruler_lines(report)
    for name, runs in curves.items():
        check_bound(name, runs, report, rulers)
    lowest = []
    for i, (name, runs) in enumerate(curves.items()):
        length = min(len(frames) for frames, _ in runs)
        frames = runs[0][0][:length]
        returns = np.stack([returns[:length] for _, returns in runs])
        mean = returns.mean(0)
        axes.plot(frames, mean, color=f"C{i}", label=name if len(runs) == 1 else f"{name}, {len(runs)} runs")
        if len(runs) > 1:
            bands = [bootstrap_interval(column, statistic=np.mean) for column in returns.T]
            axes.fill_between(frames, *np.transpose(bands), color=f"C{i}", alpha=0.25, linewidth=0)
        lowest.append(mean.min())
    for i, (name, value) in enumerate(reversed(rulers.items())):
        axes.axhline(value, color=f"C{len(curves) + i}", linestyle="--", label=name)
    axes.set_ylim(*_limits(min(lowest), list(rulers.values())))
    axes.set_xlabel("environment frames")
    axes.set_ylabel("return on the evaluation scenario")
    axes.legend(loc="lower right")
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, dpi=120)


def ruler_lines(report: Report, episodes: int = CURVE_EPISODES) -> dict[str, float]:
    """Mean return of each ruler in the episodes that the curves are measured on: the first of those of the report."""
    return {name: float(np.mean(returns[:episodes])) for name, returns in report.ruler_returns.items()}


def check_bound(name: str, runs: Sequence[Curve], report: Report, lines: Mapping[str, float]) -> None:
    """Refuse curves that rise above what no policy exceeds: they and it are of other episodes, or the bound is wrong.

    Args:
        name: Of the curves.
        runs: Curves.
        report: On the environment's rulers.
        lines: Of `ruler_lines`.

    Raises:
        ValueError: If one does by more than rounding errors.
    """
    if report.bound is None:
        return
    bound = lines[report.bound]
    # Sums of some hundred float32 rewards, and a bound that reads observations in float32: some 1e-5 of the return.
    most = bound + 1e-4 * abs(bound)
    highest = max(float(np.max(returns)) for _, returns in runs)
    if highest > most:
        raise ValueError(f"{name} has a return of {highest:.6g} in {report.env_id}, above {report.bound}, {bound:.6g}")


def _limits(lowest: float, rulers: Sequence[float]) -> tuple[float | None, float | None]:
    """Of the returns' axis, where there are rulers: some are hundreds of times worse than what is worth looking at."""
    if not rulers:
        return None, None
    top, middle = max(rulers), float(np.median(rulers))
    reach = top - middle
    bottom = max(min(lowest, middle), middle - 3 * reach)
    return bottom - 0.1 * reach, top + 0.2 * reach
