"""What a sweep leaves to read: its trials as CSV and Parquet, the means over seeds, and the best as a run."""

import csv
import dataclasses
import io
import json
import math
import shlex
from typing import Any, NamedTuple

import numpy as np

from algos.algorithms import algorithm
from algos.integrity import sealed
from algos.run_config import RunConfig
from algos.sweep.extras import has, needs
from algos.sweep.space import with_point, written
from algos.sweep.study import PRESET, Sweep
from mec_jax.files import whole_file, write_text
from mec_jax.statistics import mean_interval

__all__ = ["Gain", "Mean", "gains", "means", "train_line", "trials", "write_tables"]

CSV, PARQUET, BEST = "trials.csv", "trials.parquet", "best.json"


def trials(sweep: Sweep) -> list[dict[str, Any]]:
    """A row for each run of each trial: settings, seed, what it came to. Runs on fresh seeds are not among them."""
    study = sweep.study
    names = study.space.names()
    seeds = range(study.base.seed, study.base.seed + study.seeds)
    found = []
    for key in sorted(key for key in sweep.records if 0 <= key.trial < study.choices and key.seed in seeds):
        record = sweep.records[key]
        values = {**record.choice, **study.problems[key.problem]}
        result = record.result._asdict()
        measures, _ = result.pop("measures"), result.pop("curve")
        settings = {name: written(values[name]) if isinstance(values[name], tuple) else values[name] for name in names}
        found.append({"trial": key.trial, **settings, "seed": key.seed, **result, **measures})
    return found


def write_tables(sweep: Sweep) -> list[str]:
    """Write them to the sweep's folder; the names of the files. Parquet only where pyarrow is installed."""
    rows = trials(sweep)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns)
    table.writeheader()
    table.writerows(rows)
    write_text(sweep.folder / CSV, text.getvalue())
    if not has("pyarrow"):
        return [CSV]
    arrow, parquet = needs("pyarrow", "Parquet"), needs("pyarrow.parquet", "Parquet")
    with whole_file(sweep.folder / PARQUET) as unfinished:
        parquet.write_table(arrow.table({name: [row.get(name) for row in rows] for name in columns}), unfinished)
    return [CSV, PARQUET]


class Mean(NamedTuple):
    """A choice on a problem, over its seeds."""

    trial: int
    problem: int
    worth: float  # mean score, or return where there are no scores; NaN if a run diverged
    low: float  # 95 % interval over seeds; of one seed over episodes
    high: float
    episode_return: float
    diverged: int  # runs


def means(sweep: Sweep) -> list[Mean]:
    """Of all trials that are done, on each problem, the best of each first: of those that were trained longest."""
    study = sweep.study
    seeds = range(study.base.seed, study.base.seed + study.seeds)
    found = []
    for problem in range(len(study.problems)):
        rows = []
        for trial in sweep.finished():
            results = sweep.results(trial, problem, seeds)
            worth = np.array([result.worth for result in results])
            low, high = mean_interval(worth)
            if len(worth) == 1:
                low, high = results[0].score_low, results[0].score_high
            returns = float(np.mean([result.episode_return for result in results]))
            diverged = sum(result.diverged for result in results)
            rows.append(Mean(trial, problem, float(worth.mean()), low, high, returns, diverged))
        furthest = set(sweep.furthest(problem))
        rows.sort(key=lambda row: -row.worth if math.isfinite(row.worth) else math.inf)
        found += sorted(rows, key=lambda row: row.trial not in furthest)
    return found


class Gain(NamedTuple):
    """The best choice against the preset on the same seeds, by which nothing was chosen."""

    trial: int
    problem: int | None  # None: the mean over all problems
    is_preset: bool  # the best choice is the preset's
    best: float  # mean worth
    preset: float
    gain: float  # mean difference; NaN if a run diverged
    low: float  # its 95 % interval over seeds; NaN of one alone
    high: float
    seeds: int


def gains(sweep: Sweep) -> list[Gain]:
    """On each problem, and over all if there are several. None without fresh seeds."""
    seeds = sweep.study.fresh_seeds
    problems: list[int | None] = [*range(len(sweep.study.problems))]
    if len(problems) > 1:
        problems.append(None)
    found = []
    for problem in problems:
        trial = sweep.best(problem)
        if trial is None or not seeds or sweep.study.schedule == "pbt":
            continue
        best, preset = (_fresh(sweep, which, problem) for which in (trial, PRESET))
        difference = best - preset
        low, high = mean_interval(difference)
        found.append(
            Gain(
                trial,
                problem,
                with_point(sweep.study.base, sweep.choice(trial)) == sweep.study.base,
                float(best.mean()),
                float(preset.mean()),
                float(difference.mean()),
                low,
                high,
                len(seeds),
            )
        )
    return found


def _fresh(sweep: Sweep, trial: int, problem: int | None) -> np.ndarray:
    """Worth by fresh seed; without a problem the mean over all."""
    problems = range(len(sweep.study.problems)) if problem is None else [problem]
    each = [[result.worth for result in sweep.results(trial, one, sweep.study.fresh_seeds)] for one in problems]
    return np.mean(each, axis=0)


def best_run(sweep: Sweep, problem: int | None) -> RunConfig | None:
    """The best choice as a run on the problem; without one the best over all, on the problem that was not changed."""
    trial = sweep.best(problem)
    if trial is None:
        return None
    study, choice = sweep.study, sweep.choice(trial)
    if problem is None:
        return with_point(study.base, choice).within(study.frames)
    return study.run(choice, problem, study.base.seed)


def write_best(sweep: Sweep) -> list[str]:
    """Write `best.json`, of the best over all, and of several problems one file each; their names. None of
    population-based training, whose best is no run but a history.
    """
    if sweep.study.schedule == "pbt":
        return []
    several = len(sweep.study.problems) > 1
    named: list[tuple[str, int | None]] = [(BEST, None if several else 0)]
    named += [(f"best-{problem}.json", problem) for problem in range(len(sweep.study.problems))] if several else []
    names = []
    for name, problem in named:
        run = best_run(sweep, problem)
        if run is not None:
            write_text(sweep.folder / name, sealed(dataclasses.asdict(run)))
            names.append(name)
    return names


def train_line(run: RunConfig) -> str:
    """The command that trains a run: what differs from its preset and the environment's defaults is spelt out."""
    words = ["mec-jax", "train", run.algorithm, "--env", run.env_id, "--preset", run.preset, "--seed", str(run.seed)]
    for option, values in (("--static", run.own_static), ("--params", run.env_params)):
        if values:
            words += [option, *(_word(x) for item in values.items() for x in item)]
    defaults = algorithm(run.algorithm).presets[run.preset]
    for part, chosen, usually in (("config", run.config, defaults.config), ("hparams", run.hparams, defaults.hparams)):
        for name, value in vars(chosen).items():
            if value != getattr(usually, name):
                words += _option(part, name.replace("_", "-"), value)
    return shlex.join(words)


def _option(part: str, name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"--{part}.{'' if value else 'no-'}{name}"]
    return [f"--{part}.{name}", *map(str, value if isinstance(value, tuple) else (value,))]


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
