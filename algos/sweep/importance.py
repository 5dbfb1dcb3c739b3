"""How much each hyper-parameter matters for being among the best (PED-ANOVA, Watanabe et al. 2023, in Optuna)."""

import math
import warnings

from algos.sweep.extras import needs
from algos.sweep.proposals import distributions, labelled
from algos.sweep.study import Sweep

__all__ = ["FEWEST", "importance"]

FEWEST = 8
"""Choices below which nothing is said."""


def importance(sweep: Sweep, problem: int | None) -> dict[str, float]:
    """Share of each choice's axis, greatest first; empty where there are too few choices or one axis alone.

    Args:
        sweep: Where trials were run.
        problem: On which; None: by the mean score over all.

    Raises:
        ValueError: If Optuna is not installed.
    """
    optuna = needs("optuna", "the importance of hyper-parameters")
    space = sweep.study.space
    worth = {trial: sweep.mean(trial, problem) for trial in sweep.finished()}
    worth = {trial: value for trial, value in worth.items() if math.isfinite(value)}
    if len(worth) < FEWEST or len(space.choices) < 2 or len(set(worth.values())) < 2:
        return {}
    furthest, known = set(sweep.furthest(problem)), distributions(space)
    # Only the order counts, and who was left behind comes after who went on.
    order = sorted(worth, key=lambda trial: (trial in furthest, worth[trial]))
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=labelled(space, sweep.choice(trial)), distributions=known, value=float(rank)
            )
            for rank, trial in enumerate(order)
        ]
    )
    quantile = max(0.1, 4 / len(worth))  # the best four at least
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=quantile)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {str(name): float(share) for name, share in found.items()}
