"""`mec-jax sweep`: many runs side by side, searched, scored and kept."""

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from algos.cli import stop
from algos.cli.arguments import check_resume
from algos.cli.console import console
from algos.cli.options import RunOptions, with_parts
from mec_jax.files import check_count, check_folder

if TYPE_CHECKING:
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

    def run(self) -> None:
        """Sweep and report."""
        from algos.sweep.study import Sweep as Found

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
    """The `sweep` command. Errors as of `with_parts`, and if `--resume` has company."""
    check_resume(arguments, "the sweep's sweep.json")
    return with_parts(Sweep, arguments)


def _folder(study: "Study") -> Path:
    from algos.sweep.call import folder_of

    return folder_of(study)


def carry_out(found: "Found") -> None:
    """Run what it lacks, with a bar, and print what it came to."""
    from rich import progress as rich

    from algos.sweep import call
    from algos.sweep.report import text

    stop.last_words(f"`mec-jax sweep --resume {found.folder}` goes on", lambda seconds: None)
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TextColumn("{task.fields[count]} runs  best {task.fields[best]}  left {task.fields[left]}  elapsed"),
        rich.TimeElapsedColumn(),
    )

    def planned(plan: "Plan") -> None:
        console.print(plan_words(plan), soft_wrap=True)

    with rich.Progress(*columns, console=console) as bar:
        task = bar.add_task("compiling", total=1, count="", best="", left="")

        def progress(now: "Progress") -> None:
            bar.update(
                task,
                description=found.study.base.algorithm,
                completed=now.done,
                total=now.runs,
                count=f"{now.done:.1f}/{now.runs}",
                best=f"{now.best:.4f}" if math.isfinite(now.best) else "-",
                left=time_words(now.seconds_left),
            )

        names = call.carry_out(found, planned, progress)
    console.print(text(found), soft_wrap=True)
    console.print(f"{len(found.records)} runs in {found.folder}: {', '.join(names)}", soft_wrap=True)


def plan_words(plan: "Plan") -> str:
    """A plan in a line."""
    problems = f" x {plan.problems} problems" if plan.problems > 1 else ""
    programs = "1 program" if plan.programs == 1 else f"at most {plan.programs} programs"
    fresh = f", then {plan.fresh} runs at most on fresh seeds" if plan.fresh else ""
    asked = "" if plan.asked in (None, plan.frames) else f" ({plan.asked:,} asked: whole chunks are run)"
    return (
        f"{plan.runs:,} runs: {plan.choices:,} choices{problems} x {plan.seeds} seed{'s' * (plan.seeds > 1)}{fresh}; "
        f"{plan.frames:,} frames each{asked}, {plan.runs * plan.frames:,} in all; {programs}, {plan.at_once} runs at "
        f"once on {plan.devices} device{'s' * (plan.devices > 1)}, some {plan.bytes / 2**20:,.0f} MiB, and "
        f"on a CPU roughly {time_words(plan.seconds)} after compiling"
    )


def time_words(seconds: float) -> str:
    """A time in hours, minutes and seconds."""
    if not math.isfinite(seconds):
        return "-"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
