"""One run on several devices. `tests.on_devices` does the comparing, in processes whose CPU is several devices."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import pytest

from algos import algorithms, devices, ppo, runs
from algos.cli.arguments import devices_for
from algos.run_config import RunConfig
from algos.runs import read_config
from mec_jax.contracts import Algorithm
from tests.errors import error_of
from tests.on_devices import CASES
from tests.test_resume import assert_alike

ROOT = Path(__file__).resolve().parents[1]
RUN = RunConfig("ppo", "CartPole-v1", {}, {}, "fast", 0, ppo.Config(num_envs=4), ppo.HParams())
SIZES = (
    *(
        "--config.num-frames",
        "96",
        "--config.num-envs",
        "4",
        "--config.rollout",
        "8",
        "--config.updates-per-chunk",
        "1",
    ),
    *("--config.trunk", "8", "--config.critic", "8", "--config.minibatches", "2"),
)


def on_cpus(count: int, *command: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """A process whose CPU is so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    environment = os.environ | {"XLA_FLAGS": flags}
    line = [sys.executable, "-m", *command]
    return subprocess.Popen(line, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)


def must_succeed(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said


# What is trained


def test_two_devices_train_as_one_does() -> None:
    must_succeed(on_cpus(2, "tests.on_devices", "ppo", "2"))


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_two_and_four_devices_train_as_one_does(case: str) -> None:
    must_succeed(on_cpus(4, "tests.on_devices", case, "2", "4"))


@pytest.mark.full
def test_long_runs_on_two_devices_end_as_well_as_on_one() -> None:
    must_succeed(on_cpus(2, "tests.on_devices", "--long"))


@pytest.mark.full
def test_a_run_on_two_devices_that_is_killed_ends_like_one_left_alone(tmp_path: Path) -> None:
    command = ("algos.cli", "train", "ppo", "--env", "CartPole-v1", *SIZES, "--devices", "2", "--out")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    must_succeed(on_cpus(2, *command, str(whole)))
    process = on_cpus(2, *command, str(killed))
    while process.poll() is None and not (killed / "checkpoints" / "1").exists():
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "policy.npz").exists() and read_config(killed).devices == 2
    alone = Path(shutil.copytree(killed, tmp_path / "alone"))
    must_succeed(on_cpus(2, "algos.cli", "train", "--resume", str(killed)))
    assert_alike(killed, whole)

    process = on_cpus(1, "algos.cli", "train", "--resume", str(alone))  # not on fewer
    _, said = process.communicate()
    assert process.returncode == 2 and "devices is 2, but JAX has 1 here" in said and said.count("\n") == 1
    must_succeed(on_cpus(1, "algos.cli", "evaluate", str(whole), "--episodes", "2"))  # that needs no more


# What is refused


def test_devices_divide_the_lanes() -> None:
    assert dataclasses.replace(RUN, devices=2).devices == 2
    said = error_of(dataclasses.replace, RUN, devices=3)
    assert "devices is 3" in said and "4, the lanes of ppo" in said and "take 2" in said
    for wrong in (0, -1, 1.5, None, True):
        assert "devices is" in error_of(dataclasses.replace, RUN, devices=wrong)


def test_an_algorithm_that_names_no_lanes_runs_on_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    said = {field.name: getattr(ppo.ALGORITHM, field.name) for field in dataclasses.fields(ppo.ALGORITHM)}
    del said["lanes"]
    monkeypatch.setitem(algorithms._ALGORITHMS, "alone", Algorithm(**said | {"name": "alone"}))
    run = dataclasses.replace(RUN, algorithm="alone")
    assert "does not divide 1, " in error_of(dataclasses.replace, run, devices=2)


def test_more_devices_than_there_are() -> None:
    there = len(jax.local_devices())
    assert f"devices is {there + 1}, but JAX has {there} here" in error_of(devices.mesh, there + 1)


def test_a_run_of_before_there_were_devices_is_one_on_one(tmp_path: Path) -> None:
    runs.RunFolder(tmp_path / "run", RUN).close()
    config = tmp_path / "run" / "config.json"
    fields = json.loads(config.read_text())
    assert fields.pop("devices") == 1
    del fields["sha256"]
    config.write_text(json.dumps(fields))
    assert read_config(tmp_path / "run").devices == 1


# The cores of a CPU


@pytest.mark.parametrize(
    ("arguments", "made"),
    [
        (("train", "ppo", "--devices", "2"), 2),
        (("train", "ppo", "--devices=2"), 2),
        (("train", "ppo", "--devices", "99"), 4),  # of four cores; then it is refused
        (("train", "--resume", "run"), 2),
        (("train", "--resume", "missing"), None),
        (("train", "ppo"), None),
        (("train", "ppo", "--devices", "x"), None),
        (("sweep", "ppo"), 4),
        (("evaluate", "--devices", "2"), None),
        ((), None),
    ],
)
def test_cores_become_devices(
    arguments: Sequence[str], made: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}
    runs.RunFolder(tmp_path / "run", dataclasses.replace(RUN, devices=2)).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("algos.cores.cores", lambda: 4)
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    devices_for(arguments)
    assert asked.get("jax_num_cpu_devices") == made
    asked.clear()
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    devices_for(arguments)
    assert not asked
