"""What several commands do."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from algos.algorithms import algorithm
from algos.cli.console import console

if TYPE_CHECKING:
    from algos.run_config import RunConfig
    from mec_jax.evaluation import Report


@dataclass(frozen=True, kw_only=True)
class Compiling:
    """Base of the commands that compile programs."""

    cache: bool = True
    """Keep compiled programs in your cache folder, and load those of earlier runs; or compile all, and keep nothing."""

    def use_cache(self) -> None:
        """Do so in this process."""
        from algos.compilation_cache import compile_anew, keep_programs

        if self.cache:
            keep_programs()
        else:
            compile_anew()


def title(algorithm_name: str) -> str:
    """An algorithm's name in tables and pictures."""
    return algorithm_name.upper().replace("_", "-")


def load(path: Path) -> "tuple[RunConfig, Any]":
    """Run and what its policy learned, from a run folder or an exported policy."""
    from algos import export, runs

    if not path.is_dir():
        return export.import_policy(path)
    run, state = runs.load_run(path)
    return run, algorithm(run.algorithm).learned(state)


def given(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def print_report(report: "Report") -> None:
    """Print a report as a table."""
    table = Table(
        title=report.env_id,
        caption=report.caption(),
        box=SIMPLE_HEAD,  # with the one below, all columns fit into 80 characters
        collapse_padding=True,
        pad_edge=False,
    )
    names, *headers = report.headers()
    table.add_column(names, no_wrap=True)
    for header in headers:
        table.add_column(header.replace(" ", "\n"), justify="right", no_wrap=True)
    for name in report.rows:
        table.add_row(*report.cells(name))
    console.print(table)
