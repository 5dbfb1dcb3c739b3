"""Statistics of scores: steady means, intervals, and comparisons of algorithms.

Scores of several runs are summed up by the interquartile mean with a bootstrap interval (Agarwal et al. 2021, "Deep
Reinforcement Learning at the Edge of the Statistical Precipice").
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats

from mec_jax.contracts import Episodes

__all__ = [
    "bootstrap_interval",
    "interquartile_mean",
    "mean_interval",
    "normalised_score",
    "probability_of_improvement",
    "summary",
]

_BLOCK = 2**22
"""Scores the bootstrap holds at once."""


def interquartile_mean(x: ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half of `x`: steadier than the mean, less wasteful than the median."""
    return stats.trim_mean(x, 0.25, axis=axis)


def bootstrap_interval(
    scores: Float[np.ndarray, "run *task"],
    statistic: Callable[..., Any] = interquartile_mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Stratified percentile bootstrap interval of a statistic of all scores.

    Stratified: the runs are resampled within each task, the tasks are fixed.

    Args:
        scores: `[run, task]`, or `[run]` for one task.
        statistic: NumPy function of an array and its `axis`.
        level: Probability to cover the true value; in truth it is less for a handful of runs.
        resamples: Number of bootstrap samples.
        seed: Of the generator: the same arguments give the same interval.

    Raises:
        ValueError: If there are no scores or they have another number of axes.
    """
    table = _run_by_task(scores)
    generator = np.random.default_rng(seed)
    values: list[Any] = []
    block = max(1, _BLOCK // table.size)
    for start in range(0, resamples, block):
        run = generator.integers(len(table), size=(min(block, resamples - start), *table.shape))
        sample = np.take_along_axis(table[None], run, axis=1)
        values.extend(statistic(sample.reshape(len(run), -1), axis=-1))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: Float[np.ndarray, " run"], level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of a handful of runs by Student's t, where a bootstrap covers far less than it says.

    Of paired differences it is the paired t test.

    Args:
        values: Of runs that are alike but for their seed.
        level: Probability to cover the true mean, if values are normal.

    Returns:
        Its ends; NaN of less than two values, or where one is not finite.
    """
    values = np.asarray(values, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return np.nan, np.nan
    reach = stats.t.ppf((1 + level) / 2, len(values) - 1) * stats.sem(values)
    return float(values.mean() - reach), float(values.mean() + reach)


def probability_of_improvement(x: Float[np.ndarray, "run *task"], y: Float[np.ndarray, "run *task"]) -> float:
    """Probability that a run of `x` beats one of `y` on the same task, ties counting half; mean over tasks.

    Args:
        x: Scores `[run, task]` or `[run]`, higher is better.
        y: Scores of the other algorithm; it may have another number of runs.

    Raises:
        ValueError: If there are no scores, or not of the same tasks.
    """
    x, y = _run_by_task(x), _run_by_task(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"scores of {x.shape[1]} and {y.shape[1]} tasks: both must have the same tasks")
    difference = x[:, None] - y[None]
    return float(np.mean((1 + np.sign(difference)) / 2))


def normalised_score(value: ArrayLike, random: ArrayLike, bound: ArrayLike) -> Any:
    """`(value - random) / (bound - random)`: 0 for the random policy, 1 for the best known one."""
    value, random, bound = (np.asarray(x, float) for x in (value, random, bound))
    return (value - random) / (bound - random)


def summary(episodes: Episodes) -> dict[str, dict[str, float]]:
    """Sum up each column of `episodes`: `mean`, `iqm`, and its 95 % bootstrap interval from `low` to `high`.

    The interval is over the episodes of one policy. That of an algorithm needs several training runs.
    """
    metrics = {}
    for name, column in episodes.columns().items():
        values = np.asarray(column, float)
        low, high = bootstrap_interval(values)
        iqm = float(interquartile_mean(values))
        metrics[name] = {"mean": float(values.mean()), "iqm": iqm, "low": low, "high": high}
    return metrics


def _run_by_task(scores: ArrayLike) -> Float[np.ndarray, "run task"]:
    table = np.asarray(scores, float)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ValueError(f"scores of shape {table.shape}: they must be [run] or [run, task] and not empty")
    return table.reshape(len(table), -1)
