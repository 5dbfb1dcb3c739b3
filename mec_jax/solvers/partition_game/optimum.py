"""The exact optimum of a partition game, as a mixed integer program."""

from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import LinearConstraint, milp

from mec_jax.physics.partition_game import Game


class BestCuts(NamedTuple):
    """What a solver found on the host."""

    cut: np.ndarray  # [device]; K where a device is absent
    utility: float  # s, sum over the present devices


def optimum(game: Game, present: ArrayLike | None = None) -> BestCuts:
    """The greatest sum of utilities that fits, exactly: a multiple-choice knapsack of two dimensions, as a mixed
    integer program (equations 17 to 21) for HiGHS by `scipy.optimize.milp`, without a gap; on the host.

    Devices that are alike share one integer variable a cut, how many of them take it: the same optimum, and no search
    among their permutations. Utilities and capacities are scaled to 1, as HiGHS' tolerances are absolute: 1e-6.

    Args:
        game: One game, not batched.
        present: Who is there; all if absent.

    Raises:
        ValueError: If HiGHS finds no optimum.
    """
    game = jax.tree.map(np.asarray, game)
    devices, cuts = game.utility.shape
    here = np.ones(devices, bool) if present is None else np.asarray(present, bool)
    cut = np.full(devices, cuts - 1)
    if not here.any():
        return BestCuts(cut, 0.0)
    whole = np.asarray(game.capacity, float) * (here.sum() if game.elastic else 1)
    parts = game.use[:, here].astype(float) / whole[:, None, None]
    utility = game.utility[here].astype(float)
    rows = np.concatenate([utility, *parts], axis=1)
    _, first, kind, count = np.unique(rows, axis=0, return_index=True, return_inverse=True, return_counts=True)
    scale = max(float(np.max(np.abs(utility))), np.finfo(float).tiny)
    kinds = len(first)
    each = np.kron(np.eye(kinds), np.ones(cuts))
    result = milp(
        -utility[first].reshape(-1) / scale,
        integrality=np.ones(kinds * cuts),
        bounds=(0, np.repeat(count, cuts)),
        constraints=[
            LinearConstraint(each, count, count),
            LinearConstraint(parts[:, first].reshape(2, -1), -np.inf, 1),
        ],
        options={"mip_rel_gap": 0},
    )
    if result.x is None:
        raise ValueError(f"HiGHS found no optimum: {result.message}")
    taken = np.rint(result.x).astype(int).reshape(kinds, cuts)
    chosen = np.empty(here.sum(), int)
    for index in range(kinds):
        chosen[kind.reshape(-1) == index] = np.repeat(np.arange(cuts), taken[index])
    cut[here] = chosen
    return BestCuts(cut, float(np.sum(utility[np.arange(len(chosen)), chosen])))
