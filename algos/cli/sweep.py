"""`mec-jax sweep`: many runs side by side, searched, scored and kept."""

import math
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from algos.cli import stop
from algos.cli.arguments import check_alone, options
from algos.cli.console import console
from algos.cli.options import RunOptions, with_parts
from mec_jax.files import check_count, check_folder

if TYPE_CHECKING:
    from algos.sweep.storage import Address
    from algos.sweep.study import Plan, Progress, Study
    from algos.sweep.study import Sweep as Found


@dataclass(frozen=True)
class Sweep(RunOptions):
    """Try hyper-parameters on problems, with several seeds each; leave scores, pictures, and the best as a run."""

    over: tyro.conf.UseAppendAction[list[str]] = field(default_factory=list)
    """What is swept, once for each field: `--over hparams.actor_lr=log:1e-4..1e-2 --over params.beta=0.1,0.47,1`."""
    points: int | None = None
    """Choices of hyper-parameters times problems; a grid has them all."""
    seeds: int = 1
    """Runs of each point, with the seeds from `--seed` on."""
    sampler: str = ""
    """grid, random, sobol or tpe; by default a grid of values, Sobol points of ranges."""
    episodes: int = 64
    """Of the evaluation scenario, by which a run is scored."""
    fresh: int = 5
    """Runs of the best and of the preset on seeds that nothing was chosen by."""
    schedule: str = "full"
    """full: each run to its end; halving: of every `--eta` choices the best goes on, that many times as far; pbt: the
    worst quarter goes on from the states of the best, with its hyper-parameters perturbed."""
    eta: int = 3
    """Of halving."""
    every: int = 1
    """Chunks of updates between two perturbations of pbt."""
    out: Path | None = None
    """Folder; by default sweeps/ALGORITHM-ENV-TIME. One with the same sweep, stopped or not, goes on."""
    resume: Path | None = None
    """Folder whose sweep goes on; takes no other option but --no-cache."""
    study: str = ""
    """Run nothing, but make a study that any number of workers join: a journal's file on a folder that all see, or
    postgresql://USER@HOST/DATABASE#NAME."""
    lease: float = 120.0
    """Seconds of silence after which a worker of the study counts as gone, and others take up its trials."""
    join: str = ""
    """Study whose trials are run until all are done; takes `--out`, `--batch` and `--no-cache` alone."""
    batch: int | None = None
    """Choices that this worker takes at a time; by default as many as fill its devices."""

    def run(self) -> None:
        """Sweep and report."""
        from algos.sweep.study import Sweep as Found

        if self.join:
            work(self.join, self.out, self.batch)
            return
        if self.study:
            share(self.study, self._study(), self.lease)
            return
        if self.resume is not None:
            found = Found(self.resume)
        else:
            if self.out is not None:
                check_folder(self.out, "--out")
            study = self._study()
            found = Found(self.out or _folder(study), study)
        with closing(found):
            carry_out(found)

    def _study(self) -> "Study":
        from algos.sweep.call import study_of

        if self.points is not None:
            check_count("--points", self.points)
        check_count("--seeds", self.seeds, most=10_000)
        names = ("over", "points", "seeds", "sampler", "frames", "episodes", "fresh", "schedule", "eta", "every")
        return study_of(self.chosen(), **{name: getattr(self, name) for name in names})


def command(arguments: Sequence[str]) -> type[Sweep]:
    """The `sweep` command. Errors as of `with_parts`, and if `--resume` or `--join` has company."""
    check_alone(arguments, "--resume", "the sweep's sweep.json")
    check_alone(arguments, "--join", "the study", ("--out", "--batch"))
    names = {*options(arguments)}
    for name, other in (("--lease", "--study"), ("--batch", "--join")):
        if name in names and other not in names:
            raise ValueError(f"{name} is of shared studies alone: give {other}, too, or leave it out")
    if {"--study", "--out"} <= names:
        raise ValueError("--study runs nothing: give --out to --join")
    return with_parts(Sweep, arguments)


def _folder(study: "Study") -> Path:
    from algos.sweep.call import folder_of

    return folder_of(study)


def carry_out(found: "Found") -> None:
    """Run what it lacks, with a bar, and print what it came to."""
    from algos.sweep import call
    from algos.sweep.report import text

    stop.last_words(f"`mec-jax sweep --resume {shlex.quote(str(found.folder))}` goes on", lambda seconds: None)

    def planned(plan: "Plan") -> None:
        console.print(plan_words(plan), soft_wrap=True)

    with bar(found.study.base.algorithm) as progress:
        names = call.carry_out(found, planned, progress)
    console.print(text(found), soft_wrap=True)
    console.print(f"{len(found.records)} runs in {found.folder}: {', '.join(names)}", soft_wrap=True)


def share(address: str, study: "Study", lease: float) -> None:
    """Make a shared study, and say how it is joined."""
    from algos.sweep.storage import Address, create

    found = Address.of(address)
    create(found, study, lease)
    runs = study.choices * len(study.keys(0))
    console.print(
        f"{study.choices:,} choices, {runs:,} runs; on each machine `{join_command(found)}` takes part", soft_wrap=True
    )


def work(address: str, out: Path | None, batch: int | None) -> None:
    """Take part in a shared study, with a bar, and print what it came to if this worker is the last."""
    from algos.sweep.report import text
    from algos.sweep.shared import Worker
    from algos.sweep.storage import Address

    worker = Worker(Address.of(address), batch)
    stop.last_words(f"other workers go on, `{join_command(worker.address)}` joins again", worker.give_back)
    with bar(worker.study.base.algorithm) as progress:
        found, names = worker.work(out, progress)
    if found is None:
        again = f"{join_command(worker.address)} --out FOLDER"
        console.print(f"all is done, and another worker wrote the report; `{again}` writes it again", soft_wrap=True)
        return
    console.print(text(found), soft_wrap=True)
    console.print(f"{len(found.records)} runs in {found.folder}: {', '.join(names)}", soft_wrap=True)


def join_command(address: "Address") -> str:
    """What to type to take part in a study."""
    return f"mec-jax sweep --join {shlex.quote(str(address))}"


@contextmanager
def bar(name: str) -> Iterator[Callable[["Progress"], None]]:
    """A bar, and what shows progress on it."""
    from rich import progress as rich

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TextColumn("{task.fields[count]} runs  best {task.fields[best]}  left {task.fields[left]}  elapsed"),
        rich.TimeElapsedColumn(),
    )
    with rich.Progress(*columns, console=console) as shown:
        task = shown.add_task("compiling", total=1, count="", best="", left="")

        def progress(now: "Progress") -> None:
            shown.update(
                task,
                description=name,
                completed=now.done,
                total=now.runs,
                count=f"{now.done:.1f}/{now.runs}",
                best=f"{now.best:.4f}" if math.isfinite(now.best) else "-",
                left=time_words(now.seconds_left),
            )

        yield progress


def plan_words(plan: "Plan") -> str:
    """A plan in a line."""
    problems = f" x {plan.problems} problems" if plan.problems > 1 else ""
    programs = "1 program" if plan.programs == 1 else f"at most {plan.programs} programs"
    fresh = f", then {plan.fresh} runs at most on fresh seeds" if plan.fresh else ""
    asked = "" if plan.asked in (None, plan.frames) else f" ({plan.asked:,} asked: whole chunks are run)"
    return (
        f"{_counted(plan.runs, 'run')}: {_counted(plan.choices, 'choice')}{problems} x {_counted(plan.seeds, 'seed')}"
        f"{fresh}; {plan.frames:,} frames each{asked}, {plan.total:,} in all; {programs}, "
        f"{_counted(plan.at_once, 'run')} at once on {_counted(plan.devices, 'device')}, some "
        f"{plan.bytes / 2**20:,.0f} MiB, and on a CPU roughly {time_words(plan.seconds)} after compiling"
    )


def _counted(count: int, word: str) -> str:
    return f"{count:,} {word}{'s' * (count > 1)}"


def time_words(seconds: float) -> str:
    """A time in hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return "-"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
