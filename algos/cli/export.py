"""`mec-jax export`: the policy of a run as a file that needs NumPy alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from algos.algorithms import algorithm
from algos.cli.console import console
from mec_jax.files import check_file


@dataclass(frozen=True)
class Export:
    """Write the policy of a run folder as an .npz that needs NumPy alone."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    out: Path = Path("policy.npz")
    """The file to write."""

    def run(self) -> None:
        """Write it."""
        from algos import export, runs

        check_file(self.out, "--out", (".npz",))
        run, state = runs.load_run(self.path)
        frames = int(state.update) * runs.frames_per_update(run)
        export.export_policy(self.out, run, algorithm(run.algorithm).learned(state), frames, score={})
        console.print(f"policy: {self.out}")
