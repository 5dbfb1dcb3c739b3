"""`mec-jax train`: a run from its first frame to its report."""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from algos.algorithms import algorithm
from algos.cli import stop
from algos.cli.arguments import HOSTS, check_alone, option
from algos.cli.console import console
from algos.cli.options import RunOptions, with_parts
from algos.cli.shared import print_report, title
from mec_jax.files import check_folder

if TYPE_CHECKING:
    from algos.loop import Result
    from algos.run_config import RunConfig
    from algos.runs import RunFolder
    from mec_jax.contracts import Trainer


@dataclass(frozen=True)
class Train(RunOptions):
    """Train, compare with the rulers, and leave curve, checkpoint and policy in a run folder."""

    devices: int = 1
    """Devices that share the environments side by side. Those of a CPU are cores, which one device uses as well."""
    coordinator: str | None = None
    """HOST:PORT of the first of several processes that train this run together, each on its part of the devices."""
    processes: int | None = None
    """How many these are."""
    process: int | None = None
    """Which this is, from 0 on. That one takes the run; the others take it from there, and need --devices alone."""
    out: Path | None = None
    """Run folder; by default runs/ALGORITHM-SEED-TIME."""
    resume: Path | None = None
    """Run folder whose run goes on as if it had never been stopped; takes no option beside but --no-cache, and those of
    several processes."""
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """JSON file of a run, such as a sweep's best.json or a run's config.json; other options change it."""

    def run(self) -> None:
        """Train and report."""
        from algos.run_config import DEVICES

        if self.process:
            follow()
            return
        if self.algorithm or self.resume is None:
            algorithm(self.algorithm)
        if self.resume is not None:
            train(None, self.resume)
            return
        DEVICES._replace(name="--devices").check(self.devices)
        run = replace(self.chosen(), devices=self.devices)
        if self.out is not None:
            check_folder(self.out, "--out")
        name = f"{self.algorithm}-seed{self.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        train(run, self.out or Path("runs") / name)


def command(arguments: Sequence[str]) -> type[Train]:
    """The `train` command. Errors as of `with_parts`, and if `--resume` has company."""
    shares = ("--devices",) if option(arguments, "--coordinator") else ()  # the same on each host
    check_alone(arguments, "--resume", "the run's config.json", (*HOSTS, *shares))
    return with_parts(Train, arguments)


def follow() -> None:
    """Train the run of the process that leads, and write nothing."""
    from algos import hosts, loop
    from algos.run_config import run_of

    fields = json.loads(hosts.text_from_first(""))
    try:
        run = run_of(fields)
    except (TypeError, KeyError) as error:
        raise ValueError(f"the first process is of another version ({error!r}): install one on all hosts") from None
    loop.train(run, None, lambda _: None)
    hosts.part()


def train(run: "RunConfig | None", path: Path) -> None:
    """Train a new run, or if it is None the one in the folder from its newest checkpoint on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from algos import hosts, loop, runs

    is_new = run is not None
    if run is not None:
        _say_budget(run, _trainer(run))  # errors of use come before anything is written
    folder = runs.RunFolder(path, run)
    run = folder.run
    done = int(folder.rows[-1]["frames"]) if folder.rows else 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames  {task.fields[speed]}  return {task.fields[score]}"),
        TimeElapsedColumn(),
    )
    with _closing(folder, is_new):
        hosts.text_from_first(json.dumps(dataclasses.asdict(run)))
        stop.last_words(f"`{runs.resume_command(path)}` goes on", folder.finish)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=_trainer(run).num_frames, completed=done, speed="", score="")
            start: float | None = None

            def report(progress: loop.Progress) -> None:
                nonlocal start, done
                now = time.perf_counter()
                bar.update(
                    task,
                    description=run.algorithm,
                    completed=progress.frames,
                    total=progress.total_frames,
                    speed="" if start is None else f"{(progress.frames - done) / (now - start):,.0f}/s",
                    score=f"{progress.evaluation.episode_return.mean():.3f}",
                )
                start, done = now, progress.frames

            result = loop.train(run, folder, report)
            bar.update(task, description=run.algorithm)
        if start is None:
            console.print(f"the run had ended, after {result.frames} frames; its results are made again")
        with folder.writing():
            _report(run, result, path)
    console.print(
        f"in {path}: curve.png, policy.npz, checkpoints, metrics.csv, tensorboard, comparison.json, config.json"
    )
    hosts.part()


def _say_budget(run: "RunConfig", trainer: "Trainer") -> None:
    """Say what will be run, if it is not what was asked for."""
    budget = algorithm(run.algorithm).budget
    asked = vars(run.config)[budget] if budget == "num_frames" else trainer.num_frames
    if asked != trainer.num_frames:
        chunks = f"{trainer.num_chunks} chunk{'s' * (trainer.num_chunks > 1)}"
        console.print(
            f"{asked:,} frames asked: {trainer.num_frames:,} will be run, {chunks} of "
            f"{trainer.num_frames // trainer.num_chunks:,}; --config.updates-per-chunk makes them longer or shorter",
            soft_wrap=True,
        )


@contextmanager
def _closing(folder: "RunFolder", is_new: bool) -> Iterator[None]:
    """Close the folder; that of a new run which ends with an error before its first checkpoint is removed."""
    try:
        with closing(folder):
            yield
    except ValueError:
        if is_new and not folder.rows:
            folder.remove()
        raise


def _report(run: "RunConfig", result: "Result", path: Path) -> None:
    """Measure the policy, and write what the run leaves."""
    from algos.curves import plot_curves, read_curve
    from algos.export import export_policy
    from mec_jax.episodes import evaluation_keys, play_episodes
    from mec_jax.evaluation import compare
    from mec_jax.files import write_text

    with console.status("evaluating, and playing the rulers"):
        env, params = run.make_env()
        scenario, keys = env.evaluation_params(params), evaluation_keys(256)
        learner = algorithm(run.algorithm)
        policy = learner.make_policy(env, run.config, learner.deterministic)
        name = title(run.algorithm)
        played = play_episodes(env, scenario, policy, (result.learned, scenario), keys)
        comparison = compare(env, scenario, {name: [played]}, keys)
    print_report(comparison)
    write_text(path / "comparison.json", comparison.json())
    export_policy(path / "policy.npz", run, result.learned, result.frames, comparison.rows[name])
    plot_curves(path / "curve.png", {name: [read_curve(path)]}, comparison)


def _trainer(run: "RunConfig") -> "Trainer":
    env, _ = run.make_env()
    return algorithm(run.algorithm).make_trainer(env, run.config)
