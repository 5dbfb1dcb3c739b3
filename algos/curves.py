"""Learning curves of runs."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mec_jax.evaluation import Report, bootstrap_interval

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
    rulers = {name: row["return"] for name, row in report.rows.items() if name not in curves}
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
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)


def _limits(lowest: float, rulers: Sequence[float]) -> tuple[float | None, float | None]:
    """Of the returns' axis, where there are rulers: some are hundreds of times worse than what is worth looking at."""
    if not rulers:
        return None, None
    top, middle = max(rulers), float(np.median(rulers))
    reach = top - middle
    bottom = max(min(lowest, middle), middle - 3 * reach)
    return bottom - 0.1 * reach, top + 0.2 * reach
