"""A worker on a shared study: it takes trials, runs them, and tells what they came to, until all are done.

Optuna's storage is the only thing between workers: it gives each trial that waits to one worker alone, and takes one
result of each. A worker that takes a trial writes its name there, and while it lives a beat under its name. Who sees
no new beat for as long as the lease, by its own clock, tells the trial failed: no two clocks are compared. (Optuna's
own heartbeat is for `optimize` alone, and journals have none.) A failed trial is put in the queue again, with what
those of its runs came to that were done.

Two workers may do that at the same moment: of several tries of one choice the first that may still succeed counts, and
whoever takes another gives it up.
"""

import contextlib
import itertools
import math
import os
import secrets
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from algos.sweep.call import folder_of
from algos.sweep.extras import needs
from algos.sweep.journal import Key, Record, line_of, record_of
from algos.sweep.lanes import devices
from algos.sweep.proposals import distributions, unlabelled
from algos.sweep.report import report as write_report
from algos.sweep.scoring import Runner
from algos.sweep.storage import TRIAL, Address, opened, reaching
from algos.sweep.study import ASKED_RUNS, Progress, Sweep, read_study
from mec_jax.files import check_count, check_folder, reason

__all__ = ["Worker"]

type Tries = Mapping[int, Sequence[Any]]
"""Trials of Optuna by choice, the first first."""

WORKER, RUN = "worker", "run"
"""Attributes of a trial: who runs it, and what its runs came to."""
BEATS = 4
"""In a lease."""
POLL = 5.0
"""Seconds, at most, until a worker without a trial looks again."""


class Worker:
    """One of any number that share a study.

    Args:
        address: Of the study.
        batch: Choices that it takes at a time; by default as many as fill its devices.

    Attributes:
        address: Of the study.
        study: What is swept.
        name: Of the worker: its machine, its process, and a token.

    Raises:
        ValueError: If there is no such study, it is damaged or of another version, its storage can't be reached, or a
            run needs more memory than the limit.
    """

    def __init__(self, address: Address, batch: int | None = None) -> None:
        if batch is not None:
            check_count("batch", batch)
        self.address = address
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._optuna, self.study, self.lease = opened(address)
        self.runner = Runner(self.study.episodes)
        self.batch = batch
        optuna = needs("optuna", "a shared study")
        state, self._taken_away = optuna.trial.TrialState, optuna.exceptions.UpdateFinishedTrialError
        self._waiting, self._running, self._failed = state.WAITING, state.RUNNING, state.FAIL
        self._pruned, self._done = state.PRUNED, (state.COMPLETE, state.PRUNED)
        self._held: dict[int, Any] = {}  # trials of Optuna by choice
        self._seen: dict[int, tuple[Any, float]] = {}  # sign of life of each trial of others, and when it was new
        self._ended = threading.Event()

    @property
    def confirmation(self) -> int:
        """The trial that comes after all choices: the best and the preset on fresh seeds."""
        return self.study.choices

    def check(self) -> int:
        """The choices that it takes at a time, if a run of them fits. Nothing is compiled.

        Raises:
            ValueError: If it does not.
        """
        study, a_choice = self.study, len(self.study.keys(0))
        platform = devices()[0].platform
        runs = len(devices()) if platform == "cpu" else ASKED_RUNS.get(platform, ASKED_RUNS["gpu"])
        runs = runs if self.batch is None else self.batch * a_choice
        first = self._tries()[0][0]
        choice = self._choice(first) if first.params else {}
        lanes = self.runner.lanes(study.run(choice, 0, study.base.seed), runs)
        return self.batch or max(1, round(min(runs, lanes.size) / a_choice))

    def work(
        self, out: Path | None = None, progress: Callable[[Progress], None] = lambda progress: None
    ) -> tuple[Sweep | None, list[str]]:
        """Run trials until all are done.

        Args:
            out: Where the report goes, if this worker is the one that confirms, or everything was done when it came;
                by default sweeps/ALGORITHM-ENV-TIME.
            progress: Called meanwhile.

        Returns:
            The sweep in its folder and the names of the files there; None and none if another worker wrote them.

        Raises:
            ValueError: If the storage can't be reached, the folder can't be written or has another study, or memory
                ran out. What was running is given back.
        """
        if out is not None:
            self._check_out(out)
        beats = threading.Thread(target=self._beat, daemon=True)
        beats.start()
        try:
            with self._giving_back():
                return self._work(out, progress)
        finally:
            self._ended.set()
            beats.join()

    def _work(self, out: Path | None, progress: Callable[[Progress], None]) -> tuple[Sweep | None, list[str]]:
        count, tries = self.check(), self._tries()
        if self._is_done(tries, self.confirmation):
            return self._written(out, progress)
        begin, start = time.monotonic(), self._count(tries)

        def told(done: float) -> None:
            here, total = self._count(tries) + done, self.study.choices * len(self.study.keys(0))
            left = (total - here) * (time.monotonic() - begin) / (here - start) if here > start else math.nan
            progress(Progress(here, total, left, self._best(tries)))

        while not self._is_done(tries, self.confirmation):
            self._tend(tries)
            taken = self._take(count)
            if self.confirmation in taken:
                return self._written(out, progress)
            told(0.0)
            if taken:
                self._run(taken, told)
            else:
                time.sleep(min(self.lease / BEATS, POLL))
            tries = self._tries()
        return None, []

    def give_back(self, seconds: float = threading.TIMEOUT_MAX) -> None:
        """Let others have at once what it runs; what takes longer than so many seconds they get when the lease ends."""

        def tell() -> None:
            for trial in tuple(self._held.values()):
                with contextlib.suppress(Exception):  # whatever it is, the lease ends
                    self._tell(trial, state=self._failed)

        telling = threading.Thread(target=tell, daemon=True)  # a signal may come while the main thread has the lock
        telling.start()
        telling.join(seconds)

    @contextlib.contextmanager
    def _giving_back(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.give_back()
            is_memory = isinstance(error, MemoryError) or (
                isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)
            )
            if not is_memory:
                raise
            raise ValueError(
                f"out of memory ({reason(error)}): other workers get what was running; join with a smaller --batch"
            ) from None

    def _check_out(self, out: Path) -> None:
        check_folder(out, "--out")
        if out.exists() and any(out.iterdir()) and read_study(out).without_size() != self.study.without_size():
            raise ValueError(f"{str(out)!r} holds another sweep: name another folder")

    def _beat(self) -> None:
        for beat in itertools.count():
            with contextlib.suppress(Exception):  # a storage that stays away is an error of the main thread's
                self._optuna.set_user_attr(f"{WORKER} {self.name}", beat)
            if self._ended.wait(self.lease / BEATS):
                return

    def _tries(self) -> Tries:
        found: dict[int, list[Any]] = {}
        with reaching(self.address):
            for trial in self._optuna.get_trials(deepcopy=False):
                if TRIAL in trial.user_attrs:
                    found.setdefault(trial.user_attrs[TRIAL], []).append(trial)
        return found

    def _finished(self, tries: Tries, choice: int) -> Any:
        """The try that counts; None if there is none yet."""
        return next((trial for trial in tries.get(choice, ()) if trial.state in self._done), None)

    def _is_done(self, tries: Tries, choice: int) -> bool:
        return self._finished(tries, choice) is not None

    def _count(self, tries: Tries) -> float:
        """Runs of choices that are done."""
        return sum(self._is_done(tries, choice) for choice in range(self.study.choices)) * len(self.study.keys(0))

    def _best(self, tries: Tries) -> float:
        finished = [self._finished(tries, choice) for choice in range(self.study.choices)]
        values = [trial.value for trial in finished if trial is not None and math.isfinite(trial.value)]
        return max(values, default=math.nan)

    def _tend(self, tries: Tries) -> None:
        """Fail the trials of workers that are gone, and queue again what failed."""
        optuna = needs("optuna", "a shared study")
        with reaching(self.address), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            beats = self._optuna.user_attrs
            for trial in [trial for several in tries.values() for trial in several if trial.state == self._running]:
                worker = trial.user_attrs.get(WORKER)
                sign = (worker, beats.get(f"{WORKER} {worker}"))
                known, since = self._seen.get(trial.number, (None, 0.0))
                if known != sign:
                    self._seen[trial.number] = sign, time.monotonic()
                elif time.monotonic() - since > self.lease:
                    self._tell(trial.number, state=self._failed)
            again = optuna.storages.RetryHeartbeatStaleTrialCallback()
            for several in self._tries().values():
                if all(trial.state == self._failed for trial in several):
                    again(self._optuna, several[-1])
            if self.confirmation not in tries and self._count(tries) == self.study.choices * len(self.study.keys(0)):
                waiting = optuna.create_trial(state=self._waiting, user_attrs={TRIAL: self.confirmation})
                self._optuna.add_trial(waiting)

    def _take(self, count: int) -> dict[int, Any]:
        """Trials for this worker alone, by choice; none if none waits."""
        known = distributions(self.study.space)
        with reaching(self.address):
            waiting = self._optuna.get_trials(deepcopy=False, states=(self._waiting,))
            for _ in range(min(count, len(waiting))):
                trial = self._optuna.ask(known)
                choice = trial.user_attrs.get(TRIAL)
                if choice is None or choice in self._held:  # others emptied the queue, and Optuna made a trial
                    self._tell(trial, state=self._failed)
                    continue
                self._held[choice] = trial
                with contextlib.suppress(self._taken_away):
                    trial.set_user_attr(WORKER, self.name)
            tries = self._tries()
            for choice, trial in tuple(self._held.items()):
                if any(other.state != self._failed for other in tries.get(choice, ()) if other.number < trial.number):
                    self._tell(trial, state=self._failed)
                    del self._held[choice]
        return dict(self._held)

    def _tell(self, trial: Any, value: float | None = None, state: Any = None) -> None:
        """Tell what a trial came to, unless somebody has."""
        with contextlib.suppress(self._taken_away):
            self._optuna.tell(trial, value, state=state, skip_if_finished=True)

    def _run(self, taken: Mapping[int, Any], told: Callable[[float], None]) -> None:
        study, known = self.study, {choice: self._records(trial) for choice, trial in taken.items()}
        choices = {choice: self._choice(trial) for choice, trial in taken.items()}
        due = [key for choice in taken for key in study.keys(choice) if key not in known[choice]]
        runs = [study.run(choices[key.trial], key.problem, key.seed) for key in due]
        there = sum(map(len, known.values()))
        self._tell_done(known)  # a worker may have been killed between its last run and this
        for found in self.runner.results(runs, lambda done: told(there + done)):
            for place, result in found:
                record = Record(due[place], choices[due[place].trial], result)
                self._keep(record.key.trial, record)
                known[record.key.trial][record.key] = record
            self._tell_done(known)

    def _keep(self, choice: int, record: Record) -> None:
        """Write what a run came to, unless its trial was taken away: another worker has it then."""
        if choice in self._held:
            try:
                with reaching(self.address):
                    name = f"{RUN} {record.key.trial} {record.key.problem} {record.key.seed}"
                    self._held[choice].set_user_attr(name, line_of(record))
            except self._taken_away:
                del self._held[choice]

    def _tell_done(self, known: Mapping[int, Mapping[Key, Record]]) -> None:
        for choice in [choice for choice in known if choice in self._held]:
            keys = self.study.keys(choice)
            if all(key in known[choice] for key in keys):
                worth = float(np.mean([known[choice][key].result.worth for key in keys]))
                with reaching(self.address):
                    self._tell(self._held[choice], worth if math.isfinite(worth) else -math.inf)
                del self._held[choice]

    def _choice(self, trial: Any) -> dict[str, Any]:
        try:
            return unlabelled(self.study.space, trial.params)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._damaged(trial, error) from None

    def _records(self, trial: Any) -> dict[Key, Record]:
        """What runs of a trial came to."""
        try:
            lines = [line for name, line in trial.user_attrs.items() if name.startswith(f"{RUN} ")]
            return {record.key: record for record in map(record_of, lines)}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise self._damaged(trial, error) from None

    def _damaged(self, trial: Any, error: Exception) -> ValueError:
        return ValueError(f"the study {self.address} is damaged (trial {trial.number}: {reason(error)}): sweep anew")

    def _written(self, out: Path | None, progress: Callable[[Progress], None]) -> tuple[Sweep, list[str]]:
        """Confirm the best, if that is not on record, and write the report."""
        tries = self._tries()
        sweep = Sweep(out or folder_of(self.study), self.study)
        with closing(sweep):
            sweep.runner = self.runner
            for choice in range(self.study.choices + 1):
                if (trial := self._finished(tries, choice)) is not None:
                    sweep.keep(self._records(trial).values())
            sweep.confirm(progress)
            names = write_report(sweep)
            if (trial := self._held.get(self.confirmation)) is not None:
                for record in sweep.records.values():
                    if record.key.seed in self.study.fresh_seeds:
                        self._keep(self.confirmation, record)
                with reaching(self.address):
                    self._tell(trial, state=self._pruned)  # it has no value: the best trial is a choice
        return sweep, names
