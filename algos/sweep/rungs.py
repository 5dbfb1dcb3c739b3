"""Successive halving and population-based training of a sweep, rung by rung, each kept when it is done."""

import csv
import io
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from algos.algorithms import algorithm
from algos.checkpoints import Manifest, checkpoints, remove_old, remove_unfinished_checkpoints, restore, save, verify
from algos.export import export_policy
from algos.integrity import digest, sealed
from algos.sweep.journal import Record
from algos.sweep.lanes import Outcome, group
from algos.sweep.population import Crowd, Population, Rung, lengths, steps
from algos.sweep.scoring import result_of
from algos.sweep.space import with_point
from algos.sweep.study import Progress, Sweep
from mec_jax.contracts import Episodes
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.files import write_text
from mec_jax.statistics import bootstrap_interval

__all__ = ["POLICY", "SCHEDULE", "WINNER", "best_place", "run_rungs"]

RUNGS = "rungs"
POLICY, SCHEDULE, WINNER = "policy.npz", "schedule.csv", "winner.json"
_log = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What goes on from rung to rung; a checkpoint holds it."""

    crowd: Crowd
    returns: Float[Array, "rung member"]  # mean return of the evaluation scenario; NaN before and of who was gone
    frames: Int[Array, "rung member"]
    parents: Int[Array, "rung member"]  # whose state a member went on with after it
    numbers: Float[Array, "rung member axis"]  # swept hyper-parameters in it, of population-based training
    seconds: Float[Array, " member"]


def run_rungs(sweep: Sweep, report: Callable[[Progress], None]) -> None:
    """Run a sweep whose schedule is `halving` or `pbt`.

    Raises:
        ValueError: If it varies what a population can't, or the folder can't be written.
    """
    for problem in range(len(sweep.study.problems)):
        keys = (key for trial in range(sweep.study.choices) for key in sweep.study.keys(trial))
        if any(key not in sweep.records for key in keys if key.problem == problem):
            _Rungs(sweep, problem).run(report)


class _Rungs:
    """The population of a problem."""

    def __init__(self, sweep: Sweep, problem: int) -> None:
        study = sweep.study
        self.sweep, self.problem, self.is_halving = sweep, problem, study.schedule == "halving"
        self.choices = sweep.choices(0, study.choices)
        self.keys = [key for trial in range(study.choices) for key in study.keys(trial) if key.problem == problem]
        self.runs = [study.run(self.choices[key.trial], problem, key.seed) for key in self.keys]
        assert len(set(map(group, self.runs))) == 1
        self.lanes = sweep.runner.lanes(self.runs[0], len(self.runs))
        self.axes = () if self.is_halving else study.space.choices
        self.population = Population(self.lanes, len(self.runs), study.seeds, self.axes)
        chunks = self.lanes.trainer.num_chunks
        if self.is_halving:
            self.plan = lengths(study.choices, chunks, study.eta)
        else:
            self.plan = [
                (study.choices, min(done, chunks)) for done in range(study.every, chunks + study.every, study.every)
            ]
        self.folder = sweep.folder / RUNGS / str(problem)
        self.of = digest(study.without_size())

    def run(self, report: Callable[[Progress], None]) -> None:
        """From the newest rung that is whole to the last one."""
        study = self.sweep.study
        with self.sweep.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished_checkpoints(self.folder)
        kept, first = self._taken_up()
        work = [count * chunks for count, chunks in steps(self.plan)]
        begin, skipped = time.monotonic(), sum(work[:first])
        for place in range(first, len(self.plan)):
            is_last = place + 1 == len(self.plan)
            following = 0 if is_last else self.plan[place + 1][0]
            start = time.perf_counter()
            crowd, rung = self.population.advance(kept.crowd, steps(self.plan)[place][1], following)
            kept = self._noted(kept._replace(crowd=crowd), rung, place, time.perf_counter() - start)
            there, left_over = set(rung.member.tolist()), set(rung.parent.tolist())
            gone = there if is_last else there - left_over if self.is_halving else set()
            with self.sweep.writing():
                # Should a kill come between, the rung is run again: the last one while records are missing, and of
                # the others those that are there already stay.
                if is_last and not self.is_halving:
                    self._write_schedule(kept)
                    self._write_winner(kept, rung)
                self.sweep.add(self._records(kept, rung, place, gone - {-1}))
                if not is_last:
                    save(self.folder, Manifest(place + 1, self.of, "", 0, "", {}), kept)
                    remove_old(self.folder / str(place + 1))
            spent = sum(work[: place + 1])
            left = (time.monotonic() - begin) * (sum(work) - spent) / max(spent - skipped, 1)
            runs = len(self.runs) * len(study.problems)
            done_runs = (self.problem + spent / sum(work)) * len(self.runs)
            report(Progress(done_runs, runs, left, self.sweep.best_worth()))

    def _taken_up(self) -> tuple[Kept, int]:
        """What was kept, and the number of rungs that it has done."""
        crowd = self.population.start(self.runs, self.sweep.study.base.seed)
        rungs, members = len(self.plan), len(self.runs)
        new = Kept(
            crowd,
            jnp.full((rungs, members), jnp.nan),
            jnp.zeros((rungs, members), jnp.int32),
            jnp.full((rungs, members), -1),
            jnp.full((rungs, members, max(len(self.axes), 1)), jnp.nan),
            jnp.zeros(members),
        )
        for checkpoint in checkpoints(self.folder):
            try:
                if verify(checkpoint).config != self.of:
                    raise ValueError("of another sweep")
                shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), new)
                found = restore(checkpoint, shapes)
            except ValueError as error:
                _log.warning("%s", f"{checkpoint} is damaged ({error}): the sweep goes on from the one before")
                continue
            return found._replace(crowd=self.population.placed(found.crowd)), int(checkpoint.name)
        return new, 0

    def _noted(self, kept: Kept, rung: Rung, place: int, seconds: float) -> Kept:
        there = rung.member >= 0
        member = rung.member[there]
        means = np.mean(rung.played.episode_return, axis=1)[there]
        names = [axis.name.partition(".")[2] for axis in self.axes]
        numbers = np.zeros((len(member), max(len(names), 1)))  # a checkpoint takes no empty array
        for axis, name in enumerate(names):
            numbers[:, axis] = getattr(rung.given.hparams, name)[there]
        return kept._replace(
            returns=kept.returns.at[place, member].set(means),
            frames=kept.frames.at[place, member].set(rung.seen.frames[there]),
            parents=kept.parents.at[place, member].set(rung.parent[there]),
            numbers=kept.numbers.at[place, member].set(numbers),
            seconds=kept.seconds.at[member].add(seconds / len(member)),
        )

    def _records(self, kept: Kept, rung: Rung, place: int, members: set[int]) -> list[Record]:
        """Of those who go no further."""
        found = []
        frames, returns = np.asarray(kept.frames), np.asarray(kept.returns, float)
        for at in np.flatnonzero(np.isin(rung.member, sorted(members))):
            member = int(rung.member[at])
            if self.keys[member] in self.sweep.records:
                continue
            outcome = Outcome(
                jax.tree.map(lambda x, at=at: x[at], rung.played),
                returns[: place + 1, member],
                frames[: place + 1, member],
                float(rung.seen.training_return[at]),
                not rung.seen.finite[at],
            )
            result = result_of(outcome, self.sweep.runner.scale(self.runs[member]), float(kept.seconds[member]))
            found.append(Record(self.keys[member], self._choice(rung, member, int(at)), result))
        return found

    def _choice(self, rung: Rung, member: int, at: int) -> dict[str, Any]:
        """What a member had in the rung."""
        choice = dict(self.choices[self.keys[member].trial])
        for axis in self.axes:
            number = float(getattr(rung.given.hparams, axis.name.partition(".")[2])[at])
            choice[axis.name] = min(axis.values, key=lambda x: abs(x - number)) if axis.values else axis.rounded(number)
        return choice

    def _write_schedule(self, kept: Kept) -> None:
        """A row for each member and rung of population-based training."""
        text = io.StringIO(newline="")
        names = [axis.name for axis in self.axes]
        table = csv.writer(text)
        table.writerow(["rung", "member", "frames", "return", "goes_on_from", *names])
        parts = [np.asarray(part) for part in (kept.frames, kept.returns, kept.parents, kept.numbers)]
        for rung, member in np.ndindex(parts[0].shape):
            frames, mean, parent, numbers = (part[rung, member] for part in parts)
            table.writerow([rung, member, frames, float(mean), parent, *map(float, numbers)])
        write_text(self.sweep.folder / SCHEDULE, text.getvalue())

    def _write_winner(self, kept: Kept, rung: Rung) -> None:
        """The policy of the best member, and its score on episodes by which nothing was chosen."""
        at = best_place(rung)
        if at is None:
            return
        member, study = int(rung.member[at]), self.sweep.study
        run = with_point(self.runs[member], self._choice(rung, member, at))
        learner = algorithm(run.algorithm)
        env, params = run.make_env()
        learned = learner.learned(jax.tree.map(lambda x: x[at], kept.crowd.state))
        policy = learner.make_policy(env, run.config, learner.deterministic)
        keys = evaluation_keys(2 * study.episodes)[study.episodes :]
        played: Episodes = play_episodes(env, env.evaluation_params(params), policy, (learned, params), keys)
        returns = np.asarray(played.episode_return, float)
        scale = self.sweep.runner.scale(run)
        worth = returns if scale is None else scale.score(returns)
        low, high = bootstrap_interval(worth, statistic=np.mean)
        about = {"trial": self.keys[member].trial, "worth": float(worth.mean()), "low": low, "high": high}
        export_policy(self.sweep.folder / POLICY, run, learned, int(rung.seen.frames[at]), about)
        write_text(self.sweep.folder / WINNER, sealed(about))


def best_place(rung: Rung) -> int | None:
    """Where the best member stands, of equally good ones the first by number; None if all diverged."""
    means = np.mean(rung.played.episode_return, axis=1)
    means = np.where((rung.member >= 0) & rung.seen.finite & np.isfinite(means), means, -np.inf)
    at = int(np.lexsort((rung.member, -means))[0])
    return at if np.isfinite(means[at]) else None
