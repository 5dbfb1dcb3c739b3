"""`sweep(...)` and `scorer(...)`: a sweep, and a function to search with, in one call."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from algos.algorithms import algorithm
from algos.run_config import RunConfig, new_run
from algos.sweep.lanes import Lanes, devices
from algos.sweep.proposals import SAMPLERS, check_sampler, propose
from algos.sweep.report import report as write_report
from algos.sweep.rungs import run_rungs
from algos.sweep.scoring import Runner, Scorer
from algos.sweep.space import Space
from algos.sweep.space import space as make_space
from algos.sweep.study import ASKED_RUNS, Plan, Progress, Study, Sweep
from mec_jax.files import check_choice, check_count

__all__ = ["EPISODES", "FRESH", "folder_of", "scorer", "study_of", "sweep"]

EPISODES = 64
"""Of the evaluation scenario, that a run is measured by."""
MAX_RUNS = 100_000
"""Of a sweep: more are a slip of the finger."""
FRESH = 5
"""Seeds that nothing is chosen by, on which the best meets the preset."""


def study_of(
    base: RunConfig,
    over: Mapping[str, Any] | Iterable[str],
    points: int | None = None,
    seeds: int = 1,
    sampler: str = "",
    frames: int | None = None,
    episodes: int = EPISODES,
    fresh: int = FRESH,
    schedule: str = "full",
    eta: int = 3,
    every: int = 1,
) -> Study:
    """What defines a sweep around a run. Arguments and errors as of `sweep`."""
    base = base.within(frames)
    found = make_space(base, over)
    problems = len(found.problem_points())
    sampler = sampler or ("grid" if found.is_finite and points is None else "sobol")
    check_choice("sampler", sampler, SAMPLERS)
    check_count("seeds", seeds, most=10_000)
    if points is not None:
        check_count("points", points)
    _check_size(base, found, points, seeds, episodes)
    choices = check_sampler(sampler, found, None if points is None else max(1, points // problems))
    if sampler == "grid" and points not in (None, choices * problems):
        raise ValueError(
            f"the grid has {choices * problems} points, not {points}: leave out the number, or take another sampler"
        )
    asked = max(1, round(ASKED_RUNS.get(devices()[0].platform, ASKED_RUNS["gpu"]) / (problems * seeds)))
    study = Study(base, found, sampler, choices, seeds, frames, episodes, asked, fresh, schedule, eta, every)
    _check_programs(study)
    return study


def _check_programs(study: Study) -> None:
    """Refuse static fields that do not go together, which would end a sweep when their turn comes.

    Of ranges that a sampler asks in by what it was told, nothing is known yet.
    """
    axes = [axis for axis in study.space.choices if axis.name.startswith("config.")]
    names = [axis.name for axis in axes]
    if study.sampler == "tpe":
        known = Space(tuple(axis for axis in axes if axis.values), ())
        names, choices = [axis.name for axis in known.choices], known.grid()
    else:
        choices = propose(study.sampler, study.space, study.base.seed, [], study.choices if names else 1)
    for choice in {tuple(choice[name] for name in names): choice for choice in choices}.values():
        for problem in range(len(study.problems)):
            run = study.run(choice, problem, study.base.seed)
            env, _ = run.make_env()
            algorithm(run.algorithm).make_trainer(env, run.config)


def _check_size(base: RunConfig, found: Space, points: int | None, seeds: int, episodes: int) -> None:
    """Refuse what is a slip of the finger, and say how long it would take.

    Raises:
        ValueError: If there are more runs than `MAX_RUNS`.
    """
    sizes = [len(axis.values) for axis in found.axes if axis.values]
    count = math.prod(sizes) if points is None else points
    if count * seeds <= MAX_RUNS or (points is None and not found.is_finite):
        return
    grid = f"{' x '.join(map(str, sizes))} are " if points is None else ""
    hours = count * seeds * Lanes(base, episodes, 1).seconds / len(devices()) / 3600
    of_seeds = f"{seeds} seed{'s' * (seeds > 1)}"
    raise ValueError(
        f"{grid}{count} points with {of_seeds} would take some {hours:,.0f} hours on a CPU, and at "
        f"most {MAX_RUNS} runs are swept at once: take fewer values, or ranges and a number of points"
    )


def folder_of(study: Study) -> Path:
    """Where a sweep goes if nobody says."""
    return Path("sweeps") / f"{study.base.algorithm}-{study.base.env_id}-{time.strftime('%Y%m%d-%H%M%S')}"


def sweep(
    algorithm: str,
    env_id: str,
    over: Mapping[str, Any] | Iterable[str],
    points: int | None = None,
    seeds: int = 1,
    *,
    sampler: str = "",
    frames: int | None = None,
    episodes: int = EPISODES,
    fresh: int = FRESH,
    schedule: str = "full",
    eta: int = 3,
    every: int = 1,
    out: str | Path | None = None,
    planned: Callable[[Plan], None] = lambda plan: None,
    progress: Callable[[Progress], None] = lambda progress: None,
    **run: Any,
) -> Sweep:
    """Try points, each with several seeds, and keep what they came to.

    Where `out` holds the same sweep, stopped or not, it goes on; what it has is not run again.

    Args:
        algorithm: What to train with.
        env_id: Environment id, of the suite or of gymnax.
        over: What is swept (`algos.sweep.space`): by name a text or values, or whole texts NAME=VALUES.
        points: Choices of hyper-parameters times problems; a grid has them all.
        seeds: Runs of each, with the seeds from `seed` on.
        sampler: grid, random, sobol or tpe; by default a grid where there are values alone and no number of points,
            else Sobol points.
        frames: Budget of environment frames of a run, in whole chunks; by default the preset's.
        episodes: Of the evaluation scenario, by which runs are scored.
        fresh: Runs of the best and of the preset on seeds that nothing was chosen by.
        schedule: full, each run to its end; halving, where of `eta` choices the best one goes on `eta` times as far;
            or pbt, population-based training, where the worst quarter goes on from the states of the best with its
            hyper-parameters perturbed.
        eta: Of halving.
        every: Chunks of updates between two perturbations of pbt.
        out: Folder; by default sweeps/ALGORITHM-ENV-TIME.
        planned: Called with what will be run, before anything is compiled.
        progress: Called meanwhile.
        **run: As of `algos.run_config.new_run`: static, params, preset, seed, config, hparams.

    Raises:
        ValueError: If something is not there, does not fit or is too large, or the folder holds another sweep.
    """
    base = new_run(algorithm, env_id, **run)
    study = study_of(base, over, points, seeds, sampler, frames, episodes, fresh, schedule, eta, every)
    found = Sweep(Path(out) if out is not None else folder_of(study), study)
    with closing(found):
        carry_out(found, planned, progress)
    return found


def carry_out(
    found: Sweep,
    planned: Callable[[Plan], None] = lambda plan: None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> list[str]:
    """Run what a sweep lacks, confirm its best, and write what it leaves; the names of the files."""
    planned(found.plan())
    if found.study.schedule == "full":
        found.run(progress)
    else:
        run_rungs(found, progress)
    found.confirm(progress)
    return write_report(found)


def scorer(
    algorithm: str,
    env_id: str,
    frames: int | None = None,
    seeds: int = 1,
    *,
    episodes: int = EPISODES,
    seed: int = 0,
    **run: Any,
) -> Scorer:
    """A function `score(points) -> [point]`, so that any search is a few lines.

        score = scorer("mahppo", "MultiUEOffloading-v0", frames=20_480, seeds=3)
        rates = [1e-4, 1e-3, 1e-2]
        print(rates[score([{"hparams.actor_lr": rate} for rate in rates]).argmax()])

    All points of a call are one batch: those of one program run side by side. Arguments and errors as of `sweep`.
    """
    check_count("seeds", seeds, most=10_000)
    base = new_run(algorithm, env_id, seed=seed, **run)
    return Scorer(base, frames, range(seed, seed + seeds), Runner(episodes))
