"""Which choices are tried next: a grid, random, Sobol points, or the tree-structured Parzen estimator of Optuna.

What is proposed follows from the seed and from what was tried before, and from nothing else: a sweep that was stopped
goes on as if it had not been.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import qmc

from algos.sweep.extras import needs
from algos.sweep.space import Axis, Space

__all__ = ["SAMPLERS", "check_sampler", "distributions", "propose", "told", "unlabelled"]

type Choice = dict[str, Any]
"""Values by the names of the axes that are choices."""

type History = Sequence[tuple[Choice, float]]
"""What was tried, in order, and its mean score; NaN of what diverged."""


def _grid(space: Space, seed: int, history: History, count: int) -> list[Choice]:
    return space.grid()[len(history) : len(history) + count]


def _random(space: Space, seed: int, history: History, count: int) -> list[Choice]:
    drawn = np.random.default_rng(seed).random((len(history) + count, len(space.choices)))
    return [_at(space.choices, row) for row in drawn[len(history) :]]


def _sobol(space: Space, seed: int, history: History, count: int) -> list[Choice]:
    last = len(history) + count
    engine = qmc.Sobol(max(len(space.choices), 1), scramble=True, rng=np.random.default_rng(seed))
    drawn = engine.random_base2(math.ceil(math.log2(max(last, 2))))
    return [_at(space.choices, row) for row in drawn[len(history) : last]]


def _at(axes: Sequence[Axis], shares: Sequence[float]) -> Choice:
    return {axis.name: axis.at(float(share)) for axis, share in zip(axes, shares, strict=False)}


def _tpe(space: Space, seed: int, history: History, count: int) -> list[Choice]:
    optuna = needs("optuna", "the sampler tpe")
    known = distributions(space)
    # Of asks that are told together, each counts as a bad one for those after it: they spread.
    sampler = optuna.samplers.TPESampler(multivariate=True, constant_liar=True, seed=seed + len(history))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    values = told([score for _, score in history])
    study.add_trials(
        [
            optuna.trial.create_trial(params=labelled(space, choice), distributions=known, value=value)
            for (choice, _), value in zip(history, values, strict=True)
        ]
    )
    return [unlabelled(space, study.ask(known).params) for _ in range(count)]


SAMPLERS: Mapping[str, Callable[[Space, int, History, int], list[Choice]]] = {
    "grid": _grid,
    "random": _random,
    "sobol": _sobol,
    "tpe": _tpe,
}
"""By name: `(space, seed, history, count) -> choices`."""


def propose(sampler: str, space: Space, seed: int, history: History, count: int) -> list[Choice]:
    """The next `count` choices."""
    return SAMPLERS[sampler](space, seed, history, count)


def check_sampler(sampler: str, space: Space, count: int | None) -> int:
    """The number of choices that a sweep tries.

    Args:
        sampler: Its name.
        space: The space.
        count: Choices that were asked for, None if nobody said.

    Raises:
        ValueError: If the sampler can't be had, or needs to be told how many.
    """
    if sampler == "tpe":
        needs("optuna", "the sampler tpe")
    if sampler == "grid":
        return len(space.grid())
    if count is None:
        raise ValueError(f"the sampler {sampler} never ends by itself: say how many points")
    return count


def told(scores: Sequence[float]) -> list[float]:
    """Scores as a sampler is told: what diverged is as bad as the worst that did not."""
    finite = [score for score in scores if math.isfinite(score)]
    worst = min(finite, default=0.0)
    return [score if math.isfinite(score) else worst for score in scores]


def distributions(space: Space) -> dict[str, Any]:
    """The axes that are choices as Optuna's distributions. Values are categories, known by their place."""
    optuna = needs("optuna", "Optuna's samplers")
    found: dict[str, Any] = {}
    for axis in space.choices:
        if axis.values:
            found[axis.name] = optuna.distributions.CategoricalDistribution([*range(len(axis.values))])
        elif axis.whole:
            found[axis.name] = optuna.distributions.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
        else:
            found[axis.name] = optuna.distributions.FloatDistribution(axis.low, axis.high, log=axis.log)
    return found


def labelled(space: Space, choice: Mapping[str, Any]) -> dict[str, Any]:
    """A choice as Optuna has it."""
    return {
        axis.name: axis.values.index(choice[axis.name]) if axis.values else choice[axis.name] for axis in space.choices
    }


def unlabelled(space: Space, params: Mapping[str, Any]) -> Choice:
    """A choice of what Optuna says; numbers are rounded as all that are drawn."""
    found: Choice = {}
    for axis in space.choices:
        value = params[axis.name]
        if axis.values:
            found[axis.name] = axis.values[value]
        elif axis.whole:
            found[axis.name] = int(value)
        else:
            found[axis.name] = axis.rounded(value)
    return found
