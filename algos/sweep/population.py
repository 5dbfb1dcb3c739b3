"""Runs that go on together, a rung at a time: successive halving and population-based training.

A rung is one program: some chunks of every run that is left, their episodes of the evaluation scenario, who goes on,
and the states of those in the places of the others. How many runs and chunks it has are traced, so that all rungs
share the program.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, PyTree

from algos.run_config import RunConfig
from algos.sweep.lanes import Batch, Lanes, Seen, batch
from algos.sweep.space import Axis
from mec_jax.contracts import Episodes

__all__ = ["Crowd", "Population", "Rung", "lengths", "steps"]

QUARTER = 4
"""The worst of them take the place of the best."""
FACTORS = (0.8, 1.25)
"""By which a number is perturbed (Jaderberg et al. 2017); where its range is not logarithmic, by a tenth of it."""
RESAMPLED = 0.25
"""Probability that a number is drawn anew from its range instead."""


class Crowd(NamedTuple):
    """Runs and where they are, leaves [place]. Those that are left come first, dealt out to the devices in turn."""

    state: PyTree
    given: Batch
    member: Int[Array, " place"]  # which run stands there; -1: none
    key: Array  # of what is drawn between rungs


class Rung(NamedTuple):
    """What a rung came to, leaves [place] as the runs stood before it."""

    member: Int[np.ndarray, " place"]
    parent: Int[np.ndarray, " place"]  # whose state stands there after it; -1: none
    played: Episodes  # [place, episode]
    seen: Seen
    given: Batch  # before it


def lengths(choices: int, chunks: int, eta: int) -> list[tuple[int, int]]:
    """Of successive halving (Jamieson and Talwalkar 2016): choices of each rung, and chunks that are done after it.

    Each rung keeps one choice of `eta` and goes `eta` times as far, as often as choices and chunks allow; the last one
    goes to the end.

    Args:
        choices: At the beginning.
        chunks: Of a whole run.
        eta: At least 2.
    """
    cuts = 0
    while eta ** (cuts + 1) <= min(choices, chunks):
        cuts += 1
    return [(choices // eta**rung, chunks // eta ** (cuts - rung)) for rung in range(cuts + 1)]


def steps(rungs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of rungs, given as choices and chunks that are done after each: choices, and chunks that it adds."""
    befores = [0, *(done for _, done in rungs[:-1])]
    return [(count, done - before) for (count, done), before in zip(rungs, befores, strict=True)]


class Population:
    """The program of the rungs of a population.

    Args:
        lanes: Of the runs' group.
        size: Runs.
        seeds: Runs of each choice, which stand and fall together; members of a choice follow each other.
        axes: What population-based training perturbs, fields of the hyper-parameters; empty: successive halving.
    """

    def __init__(self, lanes: Lanes, size: int, seeds: int, axes: Sequence[Axis] = ()) -> None:
        self.lanes, self.size, self.seeds, self.axes = lanes, size, seeds, tuple(axes)
        self.places = -(-size // lanes.size) * lanes.size
        self._spread = NamedSharding(lanes.mesh, PartitionSpec("lane"))
        self._whole = NamedSharding(lanes.mesh, PartitionSpec())
        self._per_device = self.places // len(lanes.local)
        self._rung = jax.jit(self._traced)
        self._start = jax.jit(
            jax.shard_map(
                lambda given: jax.lax.map(lanes.init, given),
                mesh=self.lanes.mesh,
                in_specs=PartitionSpec("lane"),
                out_specs=PartitionSpec("lane"),
                check_vma=False,
            )
        )

    def placed(self, crowd: Crowd) -> Crowd:
        """A crowd on the devices."""
        state, given, member = jax.device_put(crowd[:3], self._spread)
        return Crowd(state, given, member, jax.device_put(crowd.key, self._whole))

    def start(self, runs: Sequence[RunConfig], seed: int) -> Crowd:
        """The crowd before training.

        Args:
            runs: By member; of a choice, one run a seed.
            seed: Of what is drawn between rungs.
        """
        at = self._dealt(np.arange(self.places))
        member = np.where(at < self.size, at, -1)
        given = batch([runs[max(place, 0)] for place in member])
        return self.placed(Crowd(self._start(given), given, jnp.asarray(member, jnp.int32), jax.random.key(seed)))

    def _dealt(self, place: Any) -> Any:
        """Which of those in order stands at a place: the devices are dealt one each in turn."""
        return (place % self._per_device) * len(self.lanes.local) + place // self._per_device

    def advance(self, crowd: Crowd, chunks: int, keep: int) -> tuple[Crowd, Rung]:
        """The crowd after a rung, and what the rung came to.

        Args:
            crowd: Before.
            chunks: Of each run.
            keep: Choices that go on, in successive halving; 0 after the last rung, which perturbs nothing.
        """
        there = int(np.sum(np.asarray(crowd.member) >= 0))
        turns = -(-there // self.lanes.size)
        after, (parent, played, seen) = self._rung(crowd, turns, chunks, keep)
        found = (crowd.member, parent, played, seen, crowd.given)
        return after, Rung(*(jax.tree.map(np.asarray, part) for part in found))

    def _traced(
        self, crowd: Crowd, turns: Array, chunks: Array, keep: Array
    ) -> tuple[Crowd, tuple[Array, Episodes, Seen]]:
        spec, none = PartitionSpec("lane"), PartitionSpec()
        run = jax.shard_map(
            self._on_a_device,
            mesh=self.lanes.mesh,
            in_specs=(spec, spec, none, none),
            out_specs=spec,
            check_vma=False,
        )
        state, played, seen = run(crowd.state, crowd.given, turns, chunks)
        alive = crowd.member >= 0
        worth = jnp.mean(played.episode_return, axis=1)
        worth = jnp.where(alive & seen.finite & jnp.isfinite(worth), worth, -jnp.inf)
        key, drawn = jax.random.split(crowd.key)
        crowd = crowd._replace(state=state, key=key)
        step = partial(self._perturbed, keep=keep, key=drawn) if self.axes else partial(self._halved, keep=keep)
        after, parent = step(crowd, worth)
        state, given, member = jax.lax.with_sharding_constraint(after[:3], self._spread)
        return Crowd(state, given, member, after.key), (parent, played, seen)

    def _on_a_device(self, state: PyTree, given: Batch, turns: Array, chunks: Array) -> tuple[PyTree, Episodes, Seen]:
        """Chunks and episodes of the first `turns` batches of lanes of a device; the others are left as they are."""
        lanes, at_once = self.lanes, self.lanes.at_once

        def lane(state: PyTree, one: Batch) -> tuple[PyTree, Episodes, Seen]:
            def chunk(_: Array, carry: tuple[PyTree, Seen]) -> tuple[PyTree, Seen]:
                state, before = carry
                state, seen = lanes.chunk(state, one)
                return state, seen._replace(finite=seen.finite & before.finite)

            shapes = jax.eval_shape(lanes.chunk, state, one)[1]
            blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)._replace(finite=jnp.ones((), bool))
            state, seen = jax.lax.fori_loop(0, chunks, chunk, (state, blank))
            return state, lanes.measure(state, one), seen

        def of(tree: PyTree, turn: Array) -> PyTree:
            return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, turn * at_once, at_once), tree)

        def turn(turn: Array, carry: tuple[PyTree, Episodes, Seen]) -> tuple[PyTree, Episodes, Seen]:
            some = of(carry[0], turn), of(given, turn)
            if at_once == 1:  # as vmap would make selects of branches
                alone = lane(*jax.tree.map(lambda x: x[0], some))
                found = jax.tree.map(lambda x: x[None], alone)
            else:
                found = jax.vmap(lane)(*some)
            return jax.tree.map(
                lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, turn * at_once, 0), carry, found
            )

        shapes = jax.eval_shape(jax.vmap(lane), state, given)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1:])
        return jax.lax.fori_loop(0, turns, turn, (state, *nothing))

    def _halved(self, crowd: Crowd, worth: Float[Array, " place"], keep: Array) -> tuple[Crowd, Array]:
        """The best choices, by their mean over seeds, in the first places."""
        choices = -(-self.size // self.seeds)
        choice = jnp.where(crowd.member >= 0, crowd.member // self.seeds, choices)  # the last holds who is gone
        mean = jax.ops.segment_sum(worth, choice, choices + 1) / self.seeds
        there = jnp.zeros(choices + 1, bool).at[choice].set(True).at[choices].set(False)
        order = jnp.lexsort((-mean, ~there))
        rank = jnp.zeros(choices + 1, jnp.int32).at[order].set(jnp.arange(choices + 1))
        goes_on = there[choice] & (rank[choice] < keep)
        queue = jnp.argsort(jnp.where(goes_on, crowd.member, self.size), stable=True)
        source = queue[self._dealt(jnp.arange(self.places))]
        state, given, member = jax.tree.map(lambda x: x[source], crowd[:3])
        member = jnp.where(goes_on[source], member, -1)
        return Crowd(state, given, member, crowd.key), member

    def _perturbed(self, crowd: Crowd, worth: Float[Array, " place"], keep: Array, key: Array) -> tuple[Crowd, Array]:
        """The worst quarter goes on from the states of the best, with their numbers perturbed."""
        alive = crowd.member >= 0
        by_rank = jnp.lexsort((crowd.member, -worth, ~alive))  # whatever the places, which the devices decide
        rank = jnp.zeros(self.places, jnp.int32).at[by_rank].set(jnp.arange(self.places))
        quarter = self.size // QUARTER
        is_worst = (rank >= self.size - quarter) & alive & (keep > 0)
        source = jnp.where(is_worst, by_rank[jnp.clip(rank - (self.size - quarter), 0)], jnp.arange(self.places))
        state, hparams = jax.tree.map(lambda x: x[source], (crowd.state, crowd.given.hparams))
        anew = jax.vmap(jax.random.fold_in)(state.key, crowd.member)  # or it would draw what its parent draws
        state = state._replace(key=jnp.where(is_worst, anew, state.key))
        for place, axis in enumerate(self.axes):
            name = axis.name.partition(".")[2]
            old = getattr(hparams, name)
            by_member = jnp.zeros(self.size, old.dtype).at[jnp.where(alive, crowd.member, self.size)].set(old)
            new = perturbed(axis, by_member, jax.random.fold_in(key, place))[crowd.member]
            hparams = hparams.replace(**{name: jnp.where(is_worst, new, old)})
        return Crowd(state, crowd.given._replace(hparams=hparams), crowd.member, crowd.key), crowd.member[source]


def perturbed(axis: Axis, old: Float[Array, " member"], key: Array) -> Float[Array, " member"]:
    """Other numbers of an axis: some steps away, or anew; of values one of the next ones."""
    step_key, new_key, which_key = jax.random.split(key, 3)
    up = jax.random.bernoulli(step_key, 0.5, old.shape)
    share = jax.random.uniform(new_key, old.shape)
    if axis.values:
        values = jnp.asarray(axis.values, old.dtype)
        at = jnp.argmin(jnp.abs(old[:, None] - values), axis=1) + jnp.where(up, 1, -1)
        return values[jnp.clip(at, 0, len(axis.values) - 1)]
    if axis.log:
        moved = old * jnp.where(up, FACTORS[1], FACTORS[0])
        drawn = jnp.exp(math.log(axis.low) + share * math.log(axis.high / axis.low))
    else:
        moved = old + jnp.where(up, 0.1, -0.1) * (axis.high - axis.low)
        drawn = axis.low + share * (axis.high - axis.low)
    found = jnp.where(jax.random.bernoulli(which_key, RESAMPLED, old.shape), drawn, moved)
    return jnp.clip(found, axis.low, axis.high)
