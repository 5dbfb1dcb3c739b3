"""Workers of one shared sweep as an array of Slurm jobs, by submitit (`pip install submitit`).

    python docs/sweep_on_slurm.py /shared/lr.journal --workers 8 --gpus 1 --hours 4 --out /shared/lr

Jobs may begin one by one, be preempted and run out of time: Slurm queues them anew, and they join again.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import submitit
import tyro


@dataclass(frozen=True)
class Join(submitit.helpers.Checkpointable):
    """A worker; its progress is in the study."""

    study: str
    out: Path

    def __call__(self) -> None:
        """Run trials until all are done."""
        line = [sys.executable, "-m", "algos.cli", "sweep", "--join", self.study, "--out", str(self.out)]
        subprocess.run(line, check=True)


@dataclass(frozen=True)
class Options:
    """What is submitted."""

    study: tyro.conf.Positional[str]
    """A study that `mec-jax sweep ... --study` made, where all machines see it."""
    out: Path
    """Where the worker that is the last writes the report."""
    workers: int = 4
    """Jobs, of one machine each."""
    gpus: int = 0
    """Of each."""
    cpus: int = 4
    """Of each."""
    hours: float = 4.0
    """Of each, until Slurm queues it anew."""
    partition: str | None = None
    """Slurm's; by default Slurm's own choice."""
    logs: Path = Path("slurm")
    """Folder of what jobs print."""
    cluster: str | None = None
    """slurm, or local for processes of this machine; by default what is there."""
    wait: bool = False
    """Return when all have ended, not when they are submitted."""


def submit(options: Options) -> list[submitit.Job[None]]:
    """Submit the workers."""
    executor = submitit.AutoExecutor(options.logs, cluster=options.cluster)
    executor.update_parameters(
        name="mec-jax-sweep",
        timeout_min=round(60 * options.hours),
        gpus_per_node=options.gpus,
        cpus_per_task=options.cpus,
        slurm_partition=options.partition,
    )
    with executor.batch():
        jobs = [executor.submit(Join(options.study, options.out)) for _ in range(options.workers)]
    return jobs


if __name__ == "__main__":
    chosen = tyro.cli(Options)
    submitted = submit(chosen)
    print("submitted", *(job.job_id for job in submitted))
    if chosen.wait:
        for job in submitted:
            job.result()
