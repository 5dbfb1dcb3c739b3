"""The multi-scale quantum harmonic oscillator algorithm (Mu et al. 2024, algorithm 1), the paper's optimizer.

Particles wander by normal steps of one scale until they have settled, the worst is moved to their mean, and when all
are nearer than the scale it shrinks. A run is one loop whose body draws once for each particle, not loops in loops
that would wait for each other under `jax.vmap`: 1000 runs of all of AlexNet's variables take 837 steps on average, and
the slowest 1007. So compacting lanes (`mec_jax.physics.events.lane_while`) has nothing to gain, and does not.

What the paper leaves open, and what is made of it:

- The spread sigma is the greatest standard deviation of a variable, all of which have the unit cube's scale, and
  sigma_s starts as that cube's width, 1.
- Both inner loops run at least once; every loop has a cap.
- A draw beyond the accuracy budget is repeated (lines 12 to 14) up to `draws` times. The particles that still have
  none then stay, unless the last draw loses less than where they are: so a run that starts beyond the budget finds
  its way. Draws outside the cube are clipped to it.
- As printed, a draw is accepted if it beats the best of all, which freezes the other particles (line 16). The original
  algorithm compares with the particle's own place. Both are here: `Config.accept`.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from mec_jax.files import check_choice, check_count
from mec_jax.solvers.compression.problem import BEYOND, Found, Problem, Space, energy, evaluate

__all__ = ["Config", "Run", "best_of_restarts", "mqhoa"]


@dataclass(frozen=True)
class Config:
    """What the paper sets (section VI-A), and the caps that it does not have."""

    particles: int = 5
    scales: int = 20
    shrink: float = 1.3  # of the scale
    accept: Literal["own", "global"] = "own"  # a draw must beat its own particle's place, or the best of all
    draws: int = 8  # of a particle, until one is within the budget
    sweeps: int = 8  # over all particles, until the spread is steady
    moves: int = 8  # of the worst to the mean, until the spread is below the scale

    def __post_init__(self) -> None:
        """Raise a ValueError if a count is none, or the scale would not shrink."""
        for name in ("particles", "scales", "draws", "sweeps", "moves"):
            check_count(name, getattr(self, name))
        check_choice("accept", self.accept, ("own", "global"))
        if not self.shrink > 1:
            raise ValueError(f"shrink is {self.shrink}: give a number above 1, by which the scale is divided")


class Run(NamedTuple):
    """What a run found, and how long it took."""

    best: Found
    variables: Float[Array, " variable"]  # of the best, in the space's unit cube
    steps: Int[Array, ""]  # draws of all particles at once: `particles` strategies were looked at in each


class _State(NamedTuple):
    place: Float[Array, "particle variable"]
    energy: Float[Array, " particle"]
    best_place: Float[Array, " variable"]
    best_energy: Float[Array, ""]
    waiting: Bool[Array, " particle"]  # for a draw within the budget, in this sweep
    moving: Bool[Array, ""]  # the worst to the mean, next
    draws: Int[Array, ""]
    sweeps: Int[Array, ""]
    moves: Int[Array, ""]
    scale: Int[Array, ""]
    width: Float[Array, ""]  # sigma_s
    spread: Float[Array, ""]  # sigma at the end of the last sweep
    step: Int[Array, ""]


def mqhoa(
    space: Space,
    config: Config,
    problem: Problem,
    key: Key[Array, ""],
    start: Float[Array, " variable"] | None = None,
) -> Run:
    """One run.

    Args:
        space: The variables.
        config: Static.
        problem: One.
        key: Of the run.
        start: Where the first particle starts; all start anywhere if absent.
    """
    key, first = jax.random.split(key)
    place = jax.random.uniform(first, (config.particles, space.variables(problem)))
    if start is not None:
        place = place.at[0].set(jnp.clip(start, 0, 1))
    energies = jax.vmap(lambda each: energy(space, problem, each))(place)
    best = jnp.argmin(energies)
    state = _State(
        place=place,
        energy=energies,
        best_place=place[best],
        best_energy=energies[best],
        waiting=jnp.ones(config.particles, bool),
        moving=jnp.array(False),
        draws=jnp.array(0),
        sweeps=jnp.array(0),
        moves=jnp.array(0),
        scale=jnp.array(0),
        width=jnp.ones(()),
        spread=_spread(place),
        step=jnp.array(0),
    )

    def unfinished(state: _State) -> Bool[Array, ""]:
        return state.scale < config.scales

    def step(state: _State) -> _State:
        return _step(space, config, problem, key, state)

    end = jax.lax.while_loop(unfinished, step, state)
    return Run(evaluate(problem, space.strategy(problem, end.best_place)), end.best_place, end.step)


def _spread(place: Float[Array, "particle variable"]) -> Float[Array, ""]:
    return jnp.max(jnp.std(place, axis=0))


def _step(space: Space, config: Config, problem: Problem, key: Array, state: _State) -> _State:
    """Draw for each particle that waits, or move the worst to the mean; then see which loop goes on."""
    noise = jax.random.normal(jax.random.fold_in(key, state.step), state.place.shape)
    worst = jnp.arange(config.particles) == jnp.argmax(state.energy)
    mean = jnp.mean(state.place, axis=0)
    drawn = jnp.where(state.moving, mean, jnp.clip(state.place + state.width * noise, 0, 1))
    looked_at = jnp.where(state.moving, worst, state.waiting)
    found = jax.vmap(lambda each: energy(space, problem, each))(drawn)
    found = jnp.where(looked_at, found, jnp.inf)

    # One after the other, as the best of all changes with each that beats it.
    bar = state.energy if config.accept == "own" else _best_before(state.best_energy, found)
    allowed = found < BEYOND
    accepted = jnp.where(state.moving, allowed | (found < state.energy), found < bar) & looked_at
    place = jnp.where(accepted[:, None], drawn, state.place)
    best = jnp.argmin(found)
    better = found[best] < state.best_energy
    spread = _spread(place)

    # The loops, from the inmost out.
    waiting = state.waiting & ~allowed
    draws = state.draws + 1
    swept = ~state.moving & (~jnp.any(waiting) | (draws >= config.draws))
    sweeps = state.sweeps + swept
    settled = swept & ((jnp.abs(spread - state.spread) <= state.width) | (sweeps >= config.sweeps))
    moves = state.moves + state.moving
    shrinks = state.moving & ((spread <= state.width) | (moves >= config.moves))
    anew = swept | state.moving
    return _State(
        place=place,
        energy=jnp.where(accepted, found, state.energy),
        best_place=jnp.where(better, drawn[best], state.best_place),
        best_energy=jnp.minimum(found[best], state.best_energy),
        waiting=anew | waiting,
        moving=settled,
        draws=jnp.where(anew, 0, draws),
        sweeps=jnp.where(settled | state.moving, 0, sweeps),
        moves=jnp.where(shrinks, 0, moves),
        scale=state.scale + shrinks,
        width=jnp.where(shrinks, state.width / config.shrink, state.width),
        spread=jnp.where(anew, spread, state.spread),
        step=state.step + 1,
    )


def _best_before(best: Float[Array, ""], found: Float[Array, " particle"]) -> Float[Array, " particle"]:
    """The best of all when it is a particle's turn."""
    return jax.lax.cummin(jnp.concatenate([best[None], found[:-1]]))


def best_of_restarts(
    space: Space,
    config: Config,
    problem: Problem,
    keys: Key[Array, " restart"],
    starts: Float[Array, "start variable"] | None = None,
) -> Run:
    """The best of several runs, side by side; `steps` are those of all.

    Args:
        space: The variables.
        config: Static.
        problem: One.
        keys: One a run.
        starts: Where first particles start, in turn.
    """
    if starts is None:
        runs = jax.vmap(lambda key: mqhoa(space, config, problem, key))(keys)
    else:
        which = jnp.arange(keys.shape[0]) % starts.shape[0]
        runs = jax.vmap(lambda key, start: mqhoa(space, config, problem, key, start))(keys, starts[which])
    best = jnp.argmin(runs.best.energy)
    found: Run = jax.tree.map(lambda leaf: leaf[best], runs)
    return found._replace(steps=jnp.sum(runs.steps))
