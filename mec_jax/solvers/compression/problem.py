"""What an optimizer of compressed inference is asked: the least latency within an accuracy budget (Mu et al. 2024,
eq. 6 to 9), over all variables or some of them.

Optimizers see the unit cube of a `Space`, whose points are strategies. `energy` ranks them: those within the budget by
their latency, behind them the others by what they lose beyond it, so that a search finds its way to what is allowed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.accuracy import Predictor, inputs, predict
from mec_jax.physics.compression import (
    CompressibleCosts,
    Strategy,
    canonical,
    latency,
    strategy_of,
    total,
    unit_cube_of,
)
from mec_jax.profiles.compression import NO_CODEC, SETTINGS

__all__ = [
    "BEYOND",
    "BUDGET",
    "PER_SCENARIO",
    "SPACES",
    "Found",
    "Problem",
    "Space",
    "energy",
    "evaluate",
    "plain",
    "problem",
]

BUDGET = 0.02
"""Accuracy that may be lost, section VI-A."""

BEYOND = 1e30
"""Energy of what loses more than the budget is this or more: more than any latency in s."""


class Problem(NamedTuple):
    """A network, what predicts its accuracy, and a scenario."""

    costs: CompressibleCosts
    model: Predictor
    device_speed: Float[Array, ""]  # FLOP/s
    rate: Float[Array, ""]  # bit/s
    server_speed: Float[Array, ""]  # FLOP/s
    snr_db: Float[Array, ""]  # dB
    budget: Float[Array, ""]  # accuracy that may be lost
    first_cut: Int[Array, ""]  # place of the first cut that is allowed
    last_cut: Int[Array, ""]  # place of the last


PER_SCENARIO = Problem(None, None, 0, 0, 0, 0, 0, 0, 0)  # type: ignore[arg-type] # axes, not arrays
"""Axes of a `jax.vmap` over scenarios of one network and predictor."""


def problem(
    costs: CompressibleCosts,
    model: Predictor,
    device_speed: float,
    rate: float,
    server_speed: float,
    snr_db: float = jnp.inf,
    budget: float = BUDGET,
    first_cut: int = 0,
    last_cut: int | None = None,
) -> Problem:
    """A problem of plain numbers.

    The cuts are all by default, those that send the input or nothing too; the paper's are those between (Fig. 6 and 7).

    Raises:
        ValueError: If no cut is left.
    """
    last = costs.cuts.shape[0] - 1 if last_cut is None else last_cut
    if not 0 <= first_cut <= last < costs.cuts.shape[0]:
        raise ValueError(
            f"no cut from {first_cut} to {last}: give places 0 <= first <= last <= {costs.cuts.shape[0] - 1}"
        )
    speed, bandwidth, server, snr, loss = (
        jnp.asarray(each, float) for each in (device_speed, rate, server_speed, snr_db, budget)
    )
    return Problem(costs, model, speed, bandwidth, server, snr, loss, jnp.asarray(first_cut), jnp.asarray(last))


class Found(NamedTuple):
    """A strategy and what it is worth."""

    strategy: Strategy  # in its one form
    latency: Float[Array, ""]  # s
    accuracy: Float[Array, ""]  # predicted
    allowed: Bool[Array, ""]  # within the budget
    energy: Float[Array, ""]


def evaluate(problem: Problem, strategy: Strategy) -> Found:
    """What a strategy is worth in a problem."""
    times = latency(problem.costs, strategy, problem.device_speed, problem.rate, problem.server_speed)
    seconds = total(times)
    accuracy = predict(problem.model, inputs(problem.costs, strategy, problem.snr_db))
    lost = problem.model.base - problem.budget - accuracy  # beyond the budget
    allowed = lost <= 0
    worth = jnp.where(allowed, jnp.minimum(seconds, BEYOND / 2), BEYOND * (1 + lost))
    return Found(canonical(problem.costs, strategy), seconds, accuracy, allowed, worth)


def plain(problem: Problem, cut: Int[Array, ""]) -> Strategy:
    """The network as it was, cut there."""
    return Strategy(jnp.zeros_like(problem.costs.width), cut, jnp.array(NO_CODEC))


# Spaces


@dataclass(frozen=True)
class Space:
    """Some of the variables, and how the others follow from them."""

    name: str
    size: Callable[[int], int]  # how many variables, of the number of units
    point: Callable[[Problem, Float[Array, " variable"]], Float[Array, " all"]]  # in the cube of all variables

    def strategy(self, problem: Problem, variables: Float[Array, " variable"]) -> Strategy:
        """The strategy at a point of this space's unit cube."""
        return strategy_of(problem.costs, self.point(problem, variables), problem.first_cut, problem.last_cut)

    def variables(self, problem: Problem) -> int:
        """How many variables it has in a problem."""
        return self.size(problem.costs.width.shape[0])


def energy(space: Space, problem: Problem, variables: Float[Array, " variable"]) -> Float[Array, ""]:
    """What to make small: the latency in s of what is within the accuracy budget, `BEYOND` and more of what is not."""
    return evaluate(problem, space.strategy(problem, variables)).energy


def _joined(problem: Problem, sparsity: Array, cut: Array, codec: Array | None = None) -> Float[Array, " all"]:
    """The point of all variables; without a codec that of `NO_CODEC`."""
    units = problem.costs.width.shape[0]
    if codec is None:
        codec = unit_cube_of(problem.costs, plain(problem, problem.first_cut))[units + 1 :]
    return jnp.concatenate([jnp.broadcast_to(sparsity, (units,)), cut[None], codec])


def _joint(problem: Problem, variables: Array) -> Array:
    return variables


def _prune_partition(problem: Problem, variables: Array) -> Array:
    return _joined(problem, variables[:-1], variables[-1])


def _two_step(problem: Problem, variables: Array) -> Array:
    """All units by one ratio, then the one before the split by another."""
    everywhere, before_split, cut = variables
    point = _joined(problem, everywhere, cut)
    place = strategy_of(problem.costs, point, problem.first_cut, problem.last_cut).cut
    is_it = jnp.arange(problem.costs.width.shape[0]) == problem.costs.feature[place]
    return _joined(problem, jnp.where(is_it, before_split, everywhere), cut)


def _fpgm(problem: Problem, variables: Array) -> Array:
    return _joined(problem, variables[0], variables[1])


def _bottlenet(problem: Problem, variables: Array) -> Array:
    return _joined(problem, jnp.zeros(()), variables[0], variables[1:])


def _cia(problem: Problem, variables: Array) -> Array:
    """One sparsity of all units, and what a codec sends, as a share of the channels, of 32 bit each."""
    sparsity, share, cut = variables
    point = _joined(problem, sparsity, cut)
    is_share = jnp.array([setting.name.endswith("share") for setting in SETTINGS])
    return point.at[-len(SETTINGS) :].set(jnp.where(is_share, share, point[-len(SETTINGS) :]))


SPACES = {
    space.name: space
    for space in (
        Space("Joint", lambda units: units + 1 + len(SETTINGS), _joint),
        Space("Prune_Partition", lambda units: units + 1, _prune_partition),
        Space("2-Step Pruning", lambda units: 3, _two_step),
        Space("FPGM", lambda units: 2, _fpgm),
        Space("BottleNet++", lambda units: 1 + len(SETTINGS), _bottlenet),
        Space("CIA", lambda units: 3, _cia),
    )
}
"""By the name of the method: all variables, and those of each baseline that searches (section VI-B).

- Prune_Partition: a sparsity of each unit and the cut.
- 2-Step Pruning: one sparsity for all units, another for the one whose feature is sent, and the cut.
- FPGM: one sparsity and the cut. What makes FPGM is which filters go, which is the accuracy predictor's to know.
- BottleNet++: the codec and the cut.
- CIA: one sparsity, one compression ratio and the cut. The paper's CIA learns both of each layer by reinforcement
  learning; as an optimizer beside the others it has one level of each.
"""
