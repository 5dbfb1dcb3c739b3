"""Experiments, each with one JSON file that keeps its result, and the results by name.

An experiment is a frozen dataclass with a `name` and `run(folder)`; `measure_all` runs those whose file is missing or
was made with other settings.
"""

import dataclasses
import json
import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from benchmarks.harness.machine import machine
from benchmarks.harness.results import write_result


class NotMeasured(Exception):
    """A verdict or figure lacks the result of an experiment."""


class Results(dict[str, dict[str, Any]]):
    """Contents of the result files by name of the experiment."""

    def __missing__(self, name: str) -> dict[str, Any]:
        raise NotMeasured(name)

    @classmethod
    def load(cls, folder: Path) -> "Results":
        """All files of `folder/data`."""
        return cls({file.stem: json.loads(file.read_text()) for file in sorted((folder / "data").glob("*.json"))})

    def final(self, name: str, metric: str) -> np.ndarray:
        """A cost of trained policies, [point, seed]; NaN where it was not finite."""
        return np.array(self[name]["final"][metric], float)

    def curve(self, name: str, metric: str) -> np.ndarray:
        """A curve, [point, seed, chunk]."""
        return np.array(self[name]["curves"][metric], float)

    def ruler(self, name: str, ruler: str, metric: str) -> np.ndarray:
        """A cost of a ruler, [point]."""
        return np.array(self[name]["rulers"][ruler][metric], float)

    def sizes(self, prefix: str) -> list[int]:
        """The N for which `prefix`N was measured.

        Raises:
            NotMeasured: If there is none.
        """
        found = sorted(int(name.removeprefix(prefix)) for name in self if name.startswith(prefix))
        if not found:
            raise NotMeasured(f"{prefix}N")
        return found

    def over_sizes(self, prefix: str, metric: str, sizes: Sequence[int]) -> np.ndarray:
        """A cost of the policies trained at each N, [N, seed]."""
        return np.concatenate([self.final(f"{prefix}{n}", metric) for n in sizes])

    def rulers_over_sizes(self, prefix: str, ruler: str, metric: str, sizes: Sequence[int]) -> np.ndarray:
        """A cost of a ruler at each N, [N]."""
        return np.concatenate([self.ruler(f"{prefix}{n}", ruler, metric) for n in sizes])


class Experiment(Protocol):
    """Something to be measured once."""

    @property
    def name(self) -> str:
        """Of its file."""

    def run(self, folder: Path) -> dict[str, Any]:
        """The result, ready for JSON; files it needs go to `folder`."""


def rounded(values: Any, digits: int = 6) -> Any:
    """Nested lists with so many digits; what is not finite becomes None, as JSON knows no NaN."""
    array = np.asarray(values, float)
    if array.ndim:
        return [rounded(x, digits) for x in array]
    return float(f"{array:.{digits}g}") if np.isfinite(array) else None


def description(experiment: Experiment) -> Any:
    """All its settings, as JSON gives them back."""
    assert dataclasses.is_dataclass(experiment) and not isinstance(experiment, type)
    return json.loads(json.dumps(dataclasses.asdict(experiment), default=float))


def result_file(folder: Path, name: str) -> Path:
    """Where the result of an experiment is kept."""
    return folder / "data" / f"{name}.json"


def is_measured(experiment: Experiment, folder: Path) -> bool:
    """Whether its file is there, whole, and made with the same settings."""
    try:
        kept = json.loads(result_file(folder, experiment.name).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(kept, dict) and kept.get("experiment") == description(experiment)


def measure(experiment: Experiment, folder: Path) -> float:
    """Run it and write_result its file, whole or not at all; the seconds it took."""
    begin = time.perf_counter()
    result = experiment.run(folder)
    seconds = time.perf_counter() - begin
    about = machine() | {"device": jax.devices()[0].device_kind}
    content = {"experiment": description(experiment), "machine": about, "wall_s": round(seconds, 1), **result}
    write_result(result_file(folder, experiment.name), json.dumps(content) + "\n")
    return seconds


def measure_all(experiments: Sequence[Experiment], folder: Path, jobs: int, redo: bool = False) -> None:
    """Run those that are not measured yet, `jobs` at a time, each in a process of its own; printing progress.

    Args:
        experiments: What to measure; they start in this order.
        folder: The results' folder.
        jobs: Processes; 1 runs everything in this one.
        redo: Run the measured ones too.
    """
    due = [experiment for experiment in experiments if redo or not is_measured(experiment, folder)]
    print(f"{len(due)} experiments to run, {len(experiments) - len(due)} measured before", flush=True)
    if jobs == 1:
        for experiment in due:
            print(f"{experiment.name}: {measure(experiment, folder):.0f} s", flush=True)
        return
    # With a share of the GPU's memory taken up front, a second process would find none.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    fresh = multiprocessing.get_context("spawn")  # XLA does not survive a fork
    with ProcessPoolExecutor(jobs, mp_context=fresh, max_tasks_per_child=1) as pool:
        running = {pool.submit(measure, experiment, folder): experiment.name for experiment in due}
        try:
            for done in as_completed(running):
                print(f"{running[done]}: {done.result():.0f} s", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
