"""A sweep: what defines it, its folder, and the loop that asks for choices, runs them and keeps what they came to.

The folder can be killed at any moment. `sweep.json` says what is swept, and `trials.jsonl` grows by the runs of each
program's call; what is asked next follows from both, so that a sweep goes on as if it had never been stopped.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from algos.integrity import sealed, unsealed
from algos.run_config import MAX_BYTES, SEED, RunConfig, run_of
from algos.runs import lock
from algos.sweep.journal import Journal, Key, Record
from algos.sweep.lanes import devices
from algos.sweep.population import lengths, steps
from algos.sweep.proposals import check_sampler, propose
from algos.sweep.scoring import Result, Runner
from algos.sweep.space import Axis, Space, with_point
from mec_jax.evaluation import Scale
from mec_jax.files import check_choice, check_count, check_folder, read_text, reason, remove_unfinished, write_text

__all__ = ["Plan", "Progress", "Study", "Sweep", "read_study", "study_from"]

SCHEDULES = ("full", "halving", "pbt")
STUDY, TRIALS = "sweep.json", "trials.jsonl"
LOCK = ".lock"
"""A file of its own: the others are replaced, and whoever locks a file locks what it was then."""
PRESET = -1
"""Trial of the preset itself."""
ASKED_RUNS = {"cpu": 16, "gpu": 256}
"""Runs that are asked for at a time where what came before decides: more are less well chosen, fewer idle."""


@dataclass(frozen=True)
class Study:
    """All that defines a sweep; `sweep.json` holds it.

    Raises:
        ValueError: If a count or the sampler does not fit.
    """

    base: RunConfig  # what points change; its seed is the first
    space: Space
    sampler: str
    choices: int  # how many are tried, each on every problem
    seeds: int  # runs of each choice on each problem
    frames: int | None  # budget of environment frames a run; None: the preset's
    episodes: int  # of the evaluation scenario
    asked: int  # choices at a time, where what came before decides
    fresh: int  # runs on seeds that nothing was chosen by, of the best and of the preset
    schedule: str = "full"  # or successive halving, or population-based training
    eta: int = 3  # of successive halving: one choice of so many goes on, so many times as far
    every: int = 1  # chunks between two perturbations of population-based training

    def __post_init__(self) -> None:
        check_count("points", self.choices)
        check_count("seeds", self.seeds, most=10_000)
        check_count("episodes", self.episodes, most=1_000_000)
        check_count("fresh", self.fresh, least=0, most=10_000)
        SEED._replace(name="the last seed").check(self.base.seed + self.seeds + self.fresh - 1)
        check_sampler(self.sampler, self.space, self.choices)
        if not self.space.axes:
            raise ValueError("nothing is swept: name a field and its values, such as hparams.gamma=0.9,0.99")
        unknown = [axis.name for axis in self.space.choices if axis.name.startswith("config.") and not axis.values]
        if self.sampler == "tpe" and unknown:
            raise ValueError(f"{unknown[0]} is static, and tpe may ask for what does not fit: give values, not a range")
        check_choice("schedule", self.schedule, SCHEDULES)
        check_count("eta", self.eta, least=2)
        check_count("every", self.every)
        if self.schedule != "full":
            self._check_population()

    def _check_population(self) -> None:
        names = [axis.name for axis in self.space.choices]
        if static := [name for name in names if name.startswith("config.")]:
            raise ValueError(f"{static[0]} is static, and a population shares one program: take the schedule full")
        if self.sampler == "tpe":
            raise ValueError("the sampler tpe asks by what it was told, a population begins at once: take sobol")
        if self.schedule == "halving":
            return
        if not names:
            raise ValueError("population-based training perturbs hyper-parameters: sweep some hparams")
        if len(self.problems) > 1 or self.seeds > 1:
            raise ValueError("population-based training has one problem and one seed: sweep others apart")
        if self.choices < 4:
            raise ValueError(f"{self.choices} choices are no population: take 4 at least")

    @functools.cached_property
    def problems(self) -> list[dict[str, Any]]:
        """Values of each."""
        return self.space.problem_points()

    def run(self, choice: Mapping[str, Any], problem: int, seed: int) -> RunConfig:
        """A run: of a choice on a problem."""
        return with_point(self.base, {**choice, **self.problems[problem], "seed": seed}).within(self.frames)

    def keys(self, trial: int) -> list[Key]:
        """The runs of a trial."""
        seeds = range(self.base.seed, self.base.seed + self.seeds)
        return [Key(trial, problem, seed) for problem in range(len(self.problems)) for seed in seeds]

    @property
    def fresh_seeds(self) -> range:
        """Seeds that nothing is chosen by."""
        return range(self.base.seed + self.seeds, self.base.seed + self.seeds + self.fresh)

    def fields(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    def without_size(self) -> dict[str, Any]:
        """What must agree for two sweeps to be one: all but how long it goes on. A population has its size."""
        grows = ("fresh", "asked", *(("choices",) if self.schedule == "full" else ()))
        return {name: value for name, value in self.fields().items() if name not in grows}


def read_study(folder: Path) -> Study:
    """The study of a sweep's folder.

    Raises:
        ValueError: If it is none, or damaged.
    """
    file = folder / STUDY
    try:
        fields, is_sealed = unsealed(read_text(file, MAX_BYTES))
        if not is_sealed:
            raise ValueError("it has no digest")
        return study_from(fields)
    except OSError as error:
        raise ValueError(f"{str(folder)!r} is no sweep's folder ({file}: {error.strerror})") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({reason(error)}): undo the change, or sweep again") from None


def study_from(fields: Mapping[str, Any]) -> Study:
    """The study of what JSON holds of it.

    Raises:
        ValueError: If a field is out of its range.
        TypeError: If other fields are there, or not all.
        KeyError: If a part is not there.
    """
    base, axes = run_of(fields["base"]), fields["space"]
    found = {part: tuple(_axis(axis) for axis in axes[part]) for part in ("choices", "problems")}
    return Study(**{**fields, "base": base, "space": Space(**found)})


def _axis(fields: dict[str, Any]) -> Axis:
    values = tuple(tuple(value) if isinstance(value, list) else value for value in fields["values"])
    return Axis(**{**fields, "values": values})


class Plan(NamedTuple):
    """What a sweep will run."""

    choices: int
    problems: int
    seeds: int
    fresh: int  # runs on fresh seeds, at most
    programs: int  # compiled, at most
    asked: int | None  # environment frames of each run that were asked for; None: nobody did
    frames: int  # that are run, by the first program, of one that is trained to its end
    total: int  # of all runs but those on fresh seeds
    bytes: int  # that its calls keep at once, estimated
    at_once: int  # runs
    devices: int
    seconds: float  # that all runs take on a CPU, estimated; programs of other shapes are taken to be like the first

    @property
    def runs(self) -> int:
        """All but those on fresh seeds."""
        return self.choices * self.problems * self.seeds


class Progress(NamedTuple):
    """What is known meanwhile."""

    done: float  # runs, parts of them included
    runs: int
    seconds_left: float  # NaN until a run is done
    best: float  # mean score of the best choice on a problem so far; NaN if there is none


class Sweep:
    """A sweep in its folder, one process at a time.

    Args:
        folder: Where it is kept.
        study: What is swept. Where a sweep of the same study is, it goes on; None takes what is there.

    Attributes:
        study: What is swept.
        records: What runs came to, by key.

    Raises:
        ValueError: If the folder is in use, can't be written, or has another study.
    """

    def __init__(self, folder: Path, study: Study | None = None) -> None:
        self.folder = folder
        with self.writing():
            if study is None or (folder / STUDY).exists():
                there = read_study(folder)
                if study is not None and study.without_size() != there.without_size():
                    other = [
                        name for name, value in study.without_size().items() if value != there.without_size()[name]
                    ]
                    raise ValueError(
                        f"{str(folder)!r} holds a sweep with another {', '.join(other)}: name another folder, or "
                        f"leave out what differs"
                    )
                study = there if study is None else dataclasses.replace(study, asked=there.asked)
            else:
                check_folder(folder)
                # What is hidden may be of a process that was killed before it had written anything whole.
                if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
                    raise ValueError(f"{str(folder)!r} is not empty and holds no sweep: name another folder")
                folder.mkdir(parents=True, exist_ok=True)
            self.study = study
            if not (folder / STUDY).exists():
                write_text(folder / STUDY, sealed(study.fields()))
            (folder / LOCK).touch()
            self._lock = lock(folder / LOCK)
            remove_unfinished(folder)
            write_text(folder / STUDY, sealed(study.fields()))
            self._journal = Journal(folder / TRIALS)
        self.runner = Runner(study.episodes)

    @property
    def records(self) -> Mapping[Key, Record]:
        """What runs came to."""
        return self._journal.records

    def close(self) -> None:
        """Let others go on with the folder."""
        self._lock.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Errors of the file system as errors of use."""
        try:
            yield
        except OSError as error:
            raise ValueError(
                f"the sweep's folder {str(self.folder)!r} can't be read or written ({reason(error)}): make room, or "
                "name another"
            ) from None

    def plan(self) -> Plan:
        """What it will run. Nothing is compiled.

        Raises:
            ValueError: If a run would need more memory than the limit, or its parts do not go together.
        """
        study, problems = self.study, len(self.study.problems)
        axes = [axis for axis in study.space.axes if axis.name.startswith(("config.", "static."))]
        sizes = [len(axis.values) or int(axis.high - axis.low) + 1 for axis in axes]
        first = study.run(self.choices(0, 1)[0], 0, study.base.seed)
        runs = study.choices * problems * study.seeds
        lanes = self.runner.lanes(first, runs)
        share = 1.0
        if study.schedule == "halving":
            rungs = lengths(study.choices, lanes.trainer.num_chunks, study.eta)
            share = sum(count * chunks for count, chunks in steps(rungs)) / (study.choices * rungs[-1][1])
        return Plan(
            study.choices,
            problems,
            study.seeds,
            study.fresh * (2 * problems + 1 if problems > 1 else 2),
            min(math.prod(sizes), study.choices * problems),
            study.frames,
            lanes.trainer.num_frames,
            round(share * runs * lanes.trainer.num_frames),
            lanes.bytes,
            lanes.size,
            len(devices()),
            share * runs * lanes.seconds / len(devices()),
        )

    def choices(self, first: int, count: int) -> list[dict[str, Any]]:
        """Choices of the next trials: as they were run, if they were."""
        history = [(self.choice(trial), self.worth(trial)) for trial in range(first)]
        known = {trial: self.choice(trial) for trial in range(first, first + count) if trial in self._journal.choices}
        if len(known) == count:
            return [known[trial] for trial in range(first, first + count)]
        asked = propose(self.study.sampler, self.study.space, self.study.base.seed, history, count)
        return [known.get(first + place, choice) for place, choice in enumerate(asked)]

    def choice(self, trial: int) -> dict[str, Any]:
        """What a trial tried."""
        return self._journal.choices[trial]

    def worth(self, trial: int) -> float:
        """Mean over problems and seeds; NaN if a run of it diverged."""
        return float(np.mean([self.records[key].result.worth for key in self.study.keys(trial)]))

    def run(self, report: Callable[[Progress], None] = lambda progress: None) -> None:
        """Run what has not been run.

        Raises:
            ValueError: If the folder can't be written.
        """
        adaptive = self.study.sampler == "tpe"
        step = self.study.asked if adaptive else self.study.choices
        for first in range(0, self.study.choices, step):
            count = min(step, self.study.choices - first)
            choices = self.choices(first, count)
            keys = [key for trial in range(first, first + count) for key in self.study.keys(trial)]
            self.fill({key: choices[key.trial - first] for key in keys}, report)

    def add(self, records: Sequence[Record]) -> None:
        """Keep records.

        Raises:
            OSError: If they can't be written.
        """
        self._journal.add(records)

    def fill(
        self, wanted: Mapping[Key, dict[str, Any]], report: Callable[[Progress], None] = lambda progress: None
    ) -> None:
        """Run those of these runs that are not on record.

        Args:
            wanted: The choice of each.
            report: Called meanwhile.
        """
        due = [key for key in wanted if key not in self.records]
        runs = [self.study.run(wanted[key], key.problem, key.seed) for key in due]
        there = sum(key.trial != PRESET and key.seed not in self.study.fresh_seeds for key in self.records)
        total = max(self.study.choices * len(self.study.keys(0)), there + len(due))
        start: list[float] = []
        best = self.best_worth()

        def told(done: float) -> None:
            if not start:
                start.extend((time.monotonic(), done))
                left = math.nan
            else:
                rate = (time.monotonic() - start[0]) / max(done - start[1], 1e-9)
                left = rate * (total - there - done)
            report(Progress(there + done, total, left, best))

        for found in self.runner.results(runs, told):
            with self.writing():
                self.add([Record(due[place], wanted[due[place]], result) for place, result in found])
            best = self.best_worth()

    def keep(self, records: Iterable[Record]) -> None:
        """Take what runs came to elsewhere; what is on record stays.

        Raises:
            ValueError: If the folder can't be written.
        """
        with self.writing():
            self._journal.add(record for record in records if record.key not in self.records)

    def finished(self) -> list[int]:
        """Trials all of whose runs are on record; of a sweep that had more points once, the first ones."""
        trials = sorted({key.trial for key in self.records if 0 <= key.trial < self.study.choices})
        return [trial for trial in trials if all(key in self.records for key in self.study.keys(trial))]

    def results(self, trial: int, problem: int, seeds: Sequence[int]) -> list[Result]:
        """Of some runs."""
        return [self.records[Key(trial, problem, seed)].result for seed in seeds]

    def mean_worth(self, trial: int, problem: int) -> float:
        """Mean over seeds; NaN if one diverged."""
        seeds = range(self.study.base.seed, self.study.base.seed + self.study.seeds)
        return float(np.mean([result.worth for result in self.results(trial, problem, seeds)]))

    def best(self, problem: int | None = None) -> int | None:
        """The trial with the greatest mean worth on a problem; without one, by the mean score over all problems. None
        if there is none that did not diverge, or, over several problems, where there are no scores.
        """
        worth = {trial: self.mean(trial, problem) for trial in self.furthest(problem)}
        finite = {trial: value for trial, value in worth.items() if math.isfinite(value)}
        return max(finite, key=lambda trial: finite[trial], default=None)

    def furthest(self, problem: int | None) -> list[int]:
        """Of the trials that are done, those that were trained longest: under successive halving the last rung's."""
        if self.study.schedule != "halving":
            return self.finished()
        problems = range(len(self.study.problems)) if problem is None else [problem]
        length = {
            trial: sum(len(self.records[Key(trial, one, self.study.base.seed)].result.curve) for one in problems)
            for trial in self.finished()
        }
        longest = max(length.values(), default=0)
        return [trial for trial, rungs in length.items() if rungs == longest]

    def scale(self, problem: int) -> Scale | None:
        """Of a problem."""
        return self.runner.scale(self.study.run({}, problem, self.study.base.seed))

    def is_scored(self, problem: int | None) -> bool:
        """Whether choices are ranked by score on a problem; without one on all."""
        problems = range(len(self.study.problems)) if problem is None else [problem]
        return all(self.scale(one) is not None for one in problems)

    def mean(self, trial: int, problem: int | None) -> float:
        """What a trial is ranked by: its mean worth over seeds on a problem, or without one the mean score over all,
        which is NaN where there are no scores.
        """
        if problem is not None:
            return self.mean_worth(trial, problem)
        if len(self.study.problems) == 1:
            return self.worth(trial)
        return float(np.mean([self.records[key].result.score for key in self.study.keys(trial)]))

    def best_worth(self) -> float:
        """Of the best choice on any problem so far; NaN if there is none."""
        found = [
            self.mean_worth(trial, problem) for trial in self.finished() for problem in range(len(self.study.problems))
        ]
        return max((value for value in found if math.isfinite(value)), default=math.nan)

    def confirm(self, report: Callable[[Progress], None] = lambda progress: None) -> None:
        """Run the best on each problem, the best over all, and the preset on fresh seeds."""
        wanted: dict[Key, dict[str, Any]] = {}
        overall = self.best()
        is_pbt = self.study.schedule == "pbt"  # whose winner has no hyper-parameters, but a history of them
        for problem in range(len(self.study.problems)):
            for trial in dict.fromkeys((self.best(problem), overall, PRESET)):
                if trial is not None and (trial == PRESET or not is_pbt):
                    choice = {} if trial == PRESET else self.choice(trial)
                    wanted |= {Key(trial, problem, seed): choice for seed in self.study.fresh_seeds}
        self.fill(wanted, report)
