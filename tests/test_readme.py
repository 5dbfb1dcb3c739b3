"""What the README tells a user to type works as printed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.S)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
TRAIN, TEST, SWEEP = (block.strip() for block in SHELL)


def test_second_command_is_what_ci_runs() -> None:
    assert TEST in (ROOT / ".ci" / "run").read_text().splitlines()


def test_both_commands_set_up_alike_so_that_ci_covers_the_first() -> None:
    assert TRAIN.split(" && ")[0] == TEST.split(" && ")[0]
    assert TRAIN.split(" && ")[1] == TEST.split(" && ")[1].replace("-e '.[test]'", ".")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first command's run, with a small budget."""
    program, *arguments = shlex.split(TRAIN.split(" && ")[2])
    assert program == ".venv/bin/mec-jax"
    folder = tmp_path_factory.mktemp("readme")
    small = shlex.split("--config.num-frames 6000 --config.num-envs 16 --config.updates-per-chunk 2 --num-ues 5")
    command = [sys.executable, "-m", "algos.cli", *arguments, *small, "--out", "run"]
    subprocess.run(command, cwd=folder, check=True, env=_environment())
    return folder


def test_first_command_trains_and_leaves_a_policy(run_folder: Path) -> None:
    assert {"policy.npz", "curve.png", "metrics.csv", "comparison.json"} <= {
        p.name for p in (run_folder / "run").iterdir()
    }
    comparison = json.loads((run_folder / "run" / "comparison.json").read_text())["rows"]
    assert comparison["Best known"]["score"] == pytest.approx(1)
    assert comparison["Best known"]["return"] > comparison["Best static"]["return"]


def test_sweep_command_leaves_its_best_and_a_picture(tmp_path: Path) -> None:
    program, *arguments = shlex.split(SWEEP)
    assert program == ".venv/bin/mec-jax"
    arguments[arguments.index("--frames") + 1], arguments[arguments.index("--seeds") + 1] = "32", "1"
    small = shlex.split("--config.num-envs 8 --config.rollout 2 --episodes 2 --fresh 1")
    command = [sys.executable, "-m", "algos.cli", *arguments, *small, "--out", "found"]
    subprocess.run(command, cwd=tmp_path, check=True, env=_environment())
    assert {"best.json", "scores.png", "trials.csv"} <= {path.name for path in (tmp_path / "found").iterdir()}
    assert len((tmp_path / "found" / "trials.csv").read_text().splitlines()) == 1 + 64


def test_python_of_each_section_runs_as_printed(run_folder: Path) -> None:
    assert len(PYTHON) == 4
    (run_folder / "policy.npz").write_bytes((run_folder / "run" / "policy.npz").read_bytes())
    for block in PYTHON:
        subprocess.run([sys.executable, "-c", block], cwd=run_folder, check=True, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
