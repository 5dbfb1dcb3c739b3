"""Verdicts on claims about results.

A verdict is computed, and each function says with which threshold. Intervals are 95 % bootstrap intervals over seeds.
What is plainly said to hold does so with the whole interval, and beyond a threshold that is smaller than the effect:
else the claim could not have failed.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import stats

from mec_jax.statistics import bootstrap_interval

SIGNIFICANT_RANK = 0.5
"""Least lower end of the interval of a rank correlation that counts as a trend."""

NAMED = 4
"""Settings that are named, and not only counted."""

STEADY = 0.05
"""Largest change from the last fifth but one of a curve to the last, of its end value, of what has converged."""


class Status(StrEnum):
    """What a verdict can be."""

    HOLDS = "holds"
    ONLY_WHEN = "holds only when"
    FAILS = "does not hold"
    UNDETERMINED = "undetermined"
    NOT_PUBLIC = "needs what is not public"
    NOT_RUN = "not run"


@dataclass(frozen=True)
class Verdict:
    """Status and the numbers behind it; of `ONLY_WHEN` the text begins with the condition."""

    status: Status
    text: str


def difference_interval(x: np.ndarray, y: np.ndarray, resamples: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of mean(x) - mean(y), each resampled on its own."""
    generator = np.random.default_rng(0)
    means = [z[generator.integers(len(z), size=(resamples, len(z)))].mean(1) for z in (x, y)]
    low, high = np.quantile(means[0] - means[1], [0.025, 0.975])
    return float(low), float(high)


def rank_trend(x: Sequence[float], values: np.ndarray, resamples: int = 2000) -> tuple[float, float, float]:
    """Rank correlation of x [point] with the means of values [point, seed], and its 95 % bootstrap interval."""
    generator = np.random.default_rng(0)
    seeds = generator.integers(values.shape[1], size=(resamples, *values.shape))
    means = np.take_along_axis(values[None], seeds, axis=2).mean(2)  # [resample, point]

    def correlation(means: np.ndarray) -> np.ndarray:
        ranks = stats.rankdata(means, axis=-1) - (len(x) + 1) / 2
        order = stats.rankdata(x) - (len(x) + 1) / 2
        spread = np.sqrt((ranks**2).sum(-1) * (order**2).sum())
        return np.divide(ranks @ order, spread, out=np.zeros_like(spread), where=spread > 0)

    low, high = np.quantile(correlation(means), [0.025, 0.975])
    return float(correlation(values.mean(1, keepdims=True).T)[0]), float(low), float(high)


def end_value(curves: np.ndarray) -> np.ndarray:
    """Mean of the last fifth of the evaluations, [...] of [..., chunk]."""
    return curves[..., -_fifth(curves) :].mean(-1)


def settling_frames(curves: np.ndarray, frames: Sequence[int], tolerance: float) -> np.ndarray:
    """Frames until the curve, smoothed over 3 evaluations, comes within `tolerance` of its end value for good."""
    kernel = np.ones(3) / 3
    padded = np.concatenate([curves[..., :1], curves, curves[..., -1:]], -1)
    smooth = np.apply_along_axis(np.convolve, -1, padded, kernel, "valid")
    far = np.abs(smooth - end_value(curves)[..., None]) > tolerance
    last_far = np.where(far.any(-1), far.shape[-1] - 1 - np.argmax(far[..., ::-1], -1), -1)
    return np.asarray(frames, float)[np.minimum(last_far + 1, far.shape[-1] - 1)]


def frames_to_reach(curves: np.ndarray, frames: Sequence[int], target: float) -> np.ndarray:
    """Frames of the first evaluation at or above `target`; of the last one if there is none."""
    reached = curves >= target
    index = np.where(reached.any(-1), np.argmax(reached, -1), curves.shape[-1] - 1)
    return np.asarray(frames, float)[index]


def fluctuation(curves: np.ndarray) -> np.ndarray:
    """Standard deviation of the steps between evaluations in the second half of a curve."""
    return np.diff(curves[..., curves.shape[-1] // 2 :]).std(-1)


def _fifth(curves: np.ndarray) -> int:
    return max(1, curves.shape[-1] // 5)


def trend(x_name: str, x: Sequence[float], values: np.ndarray, rising: bool, unit: str, scale: float = 1) -> Verdict:
    """Holds if the interval of the rank correlation lies beyond `SIGNIFICANT_RANK` on the claimed side."""
    if len(x) < 3:
        return Verdict(Status.NOT_RUN, f"a trend needs three values of {x_name}")
    correlation, low, high = rank_trend(x, values)
    holds = low >= SIGNIFICANT_RANK if rising else high <= -SIGNIFICANT_RANK
    text = f"{series(x_name, x, values, unit, scale)}; rank correlation {correlation:.2f} [{low:.2f}, {high:.2f}]"
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


def beyond(
    x_name: str, x: Sequence[float], values: np.ndarray, bounds: np.ndarray, below: bool, unit: str, scale: float = 1
) -> Verdict:
    """Holds at a point if the whole interval of the mean lies below (or above) the bound [point] of the point."""
    holds = []
    for column, bound in zip(values, bounds, strict=True):
        low, high = interval(column)
        holds.append(high < bound if below else low > bound)
    against = ", ".join(sorted({f"{scale * bound:.3g}" for bound in bounds}, key=float))
    text = f"{series(x_name, x, values, unit, scale)}, against {against} {unit}".rstrip()
    return by_point(x_name, x, holds, text)


def by_point(x_name: str, x: Sequence[float], holds: Sequence[bool], text: str) -> Verdict:
    """Holds, holds only at some points, or at none."""
    where = ", ".join(f"{value:g}" for value, held in zip(x, holds, strict=True) if held)
    return in_part(holds, f"{x_name} = {where}: {text}", text)


def by_case(cases: Mapping[str, tuple[bool, str]], about: str = "") -> Verdict:
    """Holds in all cases, only in some, or in none; then what the words of the cases are about, and these."""
    text = about + "; ".join(f"{words} ({name})" for name, (_, words) in cases.items())
    held = [name for name, (holds, _) in cases.items() if holds]
    return in_part([holds for holds, _ in cases.values()], f"{' / '.join(held)}. All cases: {text}", text)


def in_part(holds: Collection[bool], part: str, text: str) -> Verdict:
    """Holds everywhere, only somewhere, or nowhere.

    Args:
        holds: Where.
        part: The text if it holds only somewhere, the condition first.
        text: Else.
    """
    if all(holds):
        return Verdict(Status.HOLDS, text)
    return Verdict(Status.ONLY_WHEN, part) if any(holds) else Verdict(Status.FAILS, text)


def converged(x_name: str, x: Sequence[float], curves: Sequence[np.ndarray]) -> Verdict:
    """Holds for curves [seed, chunk] that no longer change: the whole interval of the change from the last fifth but
    one to the last lies within `STEADY` of the end value.
    """
    holds, words = [], []
    for curve in curves:
        fifth = _fifth(curve)
        end, before = end_value(curve), curve[:, -2 * fifth : -fifth].mean(1)
        change = (end - before) / abs(end.mean())
        low, high = interval(change)
        holds.append(max(abs(low), abs(high)) <= STEADY)
        words.append(f"{100 * change.mean():+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")
    about = f"change over the last fifth in % of the end value: {', '.join(words)}"
    return by_point(x_name, x, holds, f"{about} at {x_name} = {', '.join(f'{value:g}' for value in x)}")


def monotone(x_name: str, x: Sequence[float], values: np.ndarray, rising: bool, unit: str, scale: float = 1) -> Verdict:
    """Holds if values [point, seed] rise (or fall): at no step the whole interval of the difference lies on the other
    side, and at two at least it lies on that side. Holds only from some x on, if that is so there.
    """
    sign = 1 if rising else -1
    steps = [difference_interval(sign * after, sign * before) for before, after in itertools.pairwise(values)]
    text = series(x_name, x, values, unit, scale)
    first = max((step + 1 for step, (_, high) in enumerate(steps) if high < 0), default=0)
    if sum(low > 0 for low, _ in steps[first:]) < 2:
        return Verdict(Status.FAILS, text)
    return (
        Verdict(Status.ONLY_WHEN, f"{x_name} is at least {x[first]:g}: {text}")
        if first
        else Verdict(Status.HOLDS, text)
    )


def in_settings(verdicts: Mapping[str, Verdict], default: str) -> Verdict:
    """Of a claim judged over the range of what a paper leaves out, by setting: what it is everywhere; or undetermined
    if it holds, be it in part, in some settings and does not in others; it holds only in part if it does so in some
    settings and else throughout; and where nothing holds, it is the first of the other statuses.

    Args:
        verdicts: By setting.
        default: The setting whose numbers are told.
    """
    text = f"with {default}: {verdicts[default].text}"
    names: dict[Status, list[str]] = {}
    for name, verdict in verdicts.items():
        names.setdefault(verdict.status, []).append(name)
    if len(names) == 1:
        status = next(iter(names))
        return Verdict(status, f"{verdicts[default].text} (so in all {len(verdicts)} settings)")
    parts = "; ".join(f"{status} in {_few(found, len(verdicts))}" for status, found in names.items())
    text = f"{parts}. {text[0].upper()}{text[1:]}"
    others = names.keys() - {Status.HOLDS, Status.ONLY_WHEN}
    if not others:
        return Verdict(Status.ONLY_WHEN, text)
    return Verdict(_first(others) if others == names.keys() else Status.UNDETERMINED, text)


def _first(statuses: Collection[Status]) -> Status:
    """In the order of `Status`."""
    return next(status for status in Status if status in statuses)


def _few(names: Sequence[str], total: int) -> str:
    """How many of all settings these are, and which if they are few."""
    which = f" ({'; '.join(names)})" if len(names) <= NAMED else ""
    return f"{len(names)} of {total} settings{which}"


def nearer(cases: Mapping[str, tuple[float, float, float]], about: str = "") -> Verdict:
    """Holds for what lies nearer to the number that is claimed than to the one if there were no such effect.

    Args:
        cases: Found, claimed and without the effect, by name.
        about: What these are.
    """
    judged = {
        name: (
            abs(found - claimed) < abs(found - without),
            f"{found:.3g} for {claimed:.3g}, {without:.3g} without the effect",
        )
        for name, (found, claimed, without) in cases.items()
    }
    return by_case(judged, about)


def greater(more: np.ndarray, less: np.ndarray, names: tuple[str, str], unit: str = "", scale: float = 1) -> Verdict:
    """Holds if the interval of the difference of the means, first minus second, lies above 0."""
    low, high = difference_interval(scale * more, scale * less)
    text = (
        f"{names[0]} {shown(more, scale)}, {names[1]} {shown(less, scale)}{' ' + unit if unit else ''}; "
        f"difference [{low:.3g}, {high:.3g}]"
    )
    return Verdict(Status.HOLDS if low > 0 else Status.FAILS, text)


def together(parts: Mapping[str, Verdict]) -> Verdict:
    """Of a claim about several things, by name: holds for all, for some, or for none; and then the first that is so of
    any, of not holding, being undetermined, needing what is not public, not having been run.
    """
    text = "; ".join(f"{name}: {part.text}" for name, part in parts.items())
    statuses = {part.status for part in parts.values()}
    if len(statuses) == 1 and Status.ONLY_WHEN not in statuses:
        return Verdict(statuses.pop(), text)
    each = ", ".join(
        f"{name} ({'holds in part' if part.status is Status.ONLY_WHEN else part.status})"
        for name, part in parts.items()
    )
    if statuses.isdisjoint({Status.HOLDS, Status.ONLY_WHEN}):
        return Verdict(_first(statuses), f"{each}. {text}")
    return Verdict(Status.ONLY_WHEN, f"taken apart, {each}. {text}")


def interval(values: np.ndarray) -> tuple[float, float]:
    """Of the mean over seeds; without width if a value is not finite."""
    return bootstrap_interval(values, statistic=np.mean)


def shown(values: np.ndarray, scale: float = 1, unit: str = "") -> str:
    """Mean and interval over seeds."""
    low, high = interval(scale * values)
    return f"{scale * values.mean():.3g} [{low:.3g}, {high:.3g}]{' ' + unit if unit else ''}"


def series(x_name: str, x: Sequence[float], values: np.ndarray, unit: str, scale: float = 1) -> str:
    """Means over seeds with their intervals, point by point."""
    cells = ", ".join(shown(column, scale) for column in values)
    return f"{cells}{' ' + unit if unit else ''} at {x_name} = {', '.join(f'{value:g}' for value in x)}"
