"""What loggers get of a run: the rows of its table, and an end."""

import csv
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from algos import loggers, loop, ppo
from algos.loggers import Logger, TensorBoard, logged
from algos.run_config import RunConfig
from algos.runs import RunFolder

CONFIG = ppo.Config(
    num_frames=48, num_envs=2, rollout=8, epochs=1, minibatches=1, updates_per_chunk=1, trunk=(4,), critic=(4,)
)
RUN = RunConfig("ppo", "CartPole-v1", {}, {}, "fast", 0, CONFIG, ppo.HParams())
CHUNKS = 3


class Recording:
    """Keeps what it gets; from a call on it fails."""

    def __init__(self, fails_at: int = CHUNKS) -> None:
        self.calls: list[tuple[dict[str, float], int]] = []
        self.closed = 0
        self.fails_at = fails_at

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        assert type(metrics) is dict and not self.closed
        if len(self.calls) == self.fails_at:
            raise ConnectionError("gone")
        self.calls.append((metrics, step))

    def close(self) -> None:
        self.closed += 1


def rows(path: Path) -> list[dict[str, float]]:
    with (path / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def train(path: Path, *to: Logger, run: RunConfig | None = RUN) -> None:
    folder = RunFolder(path, run)
    try:
        loop.train(RUN, folder, lambda _: None, to)
    finally:
        folder.close()


def documented(wandb: Any, monkeypatch: pytest.MonkeyPatch) -> Logger:
    """The adapter of the docstring, run with another module for wandb."""
    (code,) = re.findall(r"```python\n(.*?)```", str(loggers.__doc__), re.DOTALL)
    monkeypatch.setitem(__import__("sys").modules, "wandb", wandb)
    names: dict[str, Any] = {}
    exec(code, names)
    return names["WandB"]()


class Wandb(ModuleType):
    """wandb as far as the adapter knows it: `log` takes a dict and a step that never falls."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.projects: list[str] = []
        self.taken = Recording()

    def init(self, *, project: str) -> None:
        self.projects.append(project)

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        assert step is not None and all(step >= before for _, before in self.taken.calls)
        self.taken.log(data, step)

    def finish(self) -> None:
        self.taken.close()


def test_loggers_get_the_rows_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording one, and the documented one for Weights & Biases."""
    wandb, recording = Wandb(), Recording()
    train(tmp_path / "run", recording, documented(wandb, monkeypatch))
    table = rows(tmp_path / "run")
    assert len(table) == CHUNKS
    assert recording.calls == wandb.taken.calls == [(logged(row), int(row["frames"])) for row in table]
    assert "evaluation/episode_return" in recording.calls[0][0] and "training/actor_loss" in recording.calls[0][0]
    assert recording.closed == wandb.taken.closed == 1 and wandb.projects == ["mec_jax"]


def test_what_a_logger_raises_ends_the_run_and_the_run_goes_on_from_there(tmp_path: Path) -> None:
    failing, other = Recording(fails_at=1), Recording()
    with pytest.raises(ConnectionError):
        train(tmp_path / "run", failing, other)
    assert failing.closed == other.closed == 1 and len(other.calls) == 1
    assert len(rows(tmp_path / "run")) == 2
    rest = Recording()
    train(tmp_path / "run", rest, run=None)
    assert [step for _, step in rest.calls] == [48] and len(rows(tmp_path / "run")) == CHUNKS
    ended = Recording()
    train(tmp_path / "run", ended, run=None)
    assert (ended.calls, ended.closed) == ([], 1)


def test_what_has_no_value_is_not_logged() -> None:
    row = {"wall_time": 1.0, "frames": 2.0, "a": 3.0, "b": math.nan, "c": math.inf}
    assert logged(row) == {"a": 3.0}


def test_tensorboard_is_a_logger(tmp_path: Path) -> None:
    board: Logger = TensorBoard(tmp_path / "board")
    board.log({"a": 1.0}, 16)
    board.close()
    (file,) = (tmp_path / "board").iterdir()
    assert b"\x0a\x01a\x15\x00\x00\x80\x3f" in file.read_bytes()  # the tag, and 1 as float32
