"""Runs that are killed and go on from disk. `benchmarks.robustness.kill_resume` does it at many moments."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from algos import cli, loop, runs
from algos.run_config import RunConfig
from algos.runs import RunFolder, load_run
from benchmarks.robustness.kill_resume import leaves
from tests.test_cli import (
    ENVIRONMENT,
    FRAMES,
    ROOT,
    SIZES,
    assert_fails,
    at,
    events,
    files,
    rows_of,
    short_search,  # noqa: F401, used by all
    train,
    without_digests,
)

pytestmark = pytest.mark.slow

RESULTS = ("comparison.json", "policy.npz", "curve.png")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupts; beside it, in `after-FRAMES`, what a kill after each chunk would leave."""
    path = tmp_path_factory.mktemp("whole") / "run"
    uninterrupted = loop.train

    def with_snapshots(run: RunConfig, folder: RunFolder, report: Callable[[loop.Progress], None]) -> Any:
        def report_and_copy(progress: loop.Progress) -> None:
            report(progress)
            folder.finish()
            shutil.copytree(path, path.with_name(f"after-{progress.frames}"))

        return uninterrupted(run, folder, report_and_copy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", with_snapshots)
        train(path)
    return path


@pytest.fixture
def killed(whole: Path, tmp_path: Path) -> Path:
    """A copy of what a kill after the second of three chunks leaves."""
    return Path(shutil.copytree(whole.with_name("after-64"), tmp_path / "killed"))


def resume(path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What it printed."""
    capsys.readouterr()
    cli.main(["train", "--resume", str(path)])
    return capsys.readouterr().out


def left_by(path: Path) -> dict[str, Any]:
    """All that a run leaves but times, to be compared with `==`."""
    return {**leaves(path), "events": str(events(path))}  # as text, because a NaN is not equal to itself


def assert_alike(path: Path, whole: Path) -> None:
    found, expected = left_by(path), left_by(whole)
    assert [name for name in expected if found.get(name) != expected[name]] == []
    assert list(found) == list(expected)


@pytest.mark.full
def test_a_run_killed_in_another_process_ends_like_one_left_alone(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-m", "algos.cli", "train", "mahppo", *ENVIRONMENT, *SIZES, "--seed", "3"]
    process = subprocess.Popen([*command, "--out", str(path)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None and not (path / "checkpoints" / "1").exists():
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not any((path / name).exists() for name in RESULTS)
    resume(path, capsys)
    assert_alike(path, whole)


def test_what_a_kill_leaves_half_done_counts_for_nothing(
    whole: Path, killed: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = killed / "checkpoints"
    for name in ("3.unfinished", "3.unfinished.orbax-checkpoint-tmp", "3.orbax-checkpoint-tmp"):
        shutil.copytree(checkpoints / "2", checkpoints / name)  # not yet renamed: whole or not, no one knows
    (checkpoints / "1" / "_CHECKPOINT_METADATA").unlink()  # it was being removed
    (event_file,) = (killed / "tensorboard").iterdir()
    with event_file.open("ab") as file:
        file.write(b"\x20\0\0\0\0\0\0\0half")
    (killed / ".mec_jax-0123456789abcdef.json").write_text("{")
    for name in RESULTS:  # of a process that was stopped while it made them again
        (killed / name).write_text("old")
    before = (killed / "metrics.csv").read_bytes()

    printed = resume(killed, capsys)
    assert "96/96" in printed
    assert (killed / "metrics.csv").read_bytes().startswith(before)  # the times of the first rows as well
    assert [row["frames"] for row in rows_of(killed)] == FRAMES
    assert_alike(killed, whole)
    assert not caplog.messages


@pytest.mark.full
def test_after_damage_the_run_goes_on_from_the_checkpoint_before_and_ends_like_one_left_alone(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copytree(whole.with_name("after-96"), tmp_path / "killed"))
    newest = path / "checkpoints" / "3"
    for file in (newest / "default" / "d").iterdir():
        os.truncate(file, file.stat().st_size // 2)
    resume(path, capsys)
    (said,) = caplog.messages
    assert f"{newest} is damaged" in said and f"{path}/checkpoints/2 is taken" in said
    assert_alike(path, whole)
    load_run(path)
    assert len(caplog.messages) == 1  # it was replaced


@pytest.mark.full
def test_a_run_of_before_there_were_digests_goes_on_and_then_has_them(
    whole: Path, killed: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    without_digests(killed)
    with (killed / "metrics.csv").open("a") as table:  # the row came before the checkpoint
        table.write("1795230597.5,96" + 14 * ",0.25" + "\r\n1795230597.6,128,0.2")
    resume(killed, capsys)
    assert caplog.messages == [f"{killed} has no digests: if it is damaged, no one can tell"]
    assert_alike(killed, whole)
    load_run(killed)
    assert len(caplog.messages) == 1


@pytest.mark.full
def test_a_run_that_had_ended_gets_its_missing_results(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = Path(shutil.copytree(whole.with_name("after-96"), tmp_path / "ended"))
    monkeypatch.setattr(loop, "play_episodes", None)  # nothing is evaluated, let alone trained
    assert "had ended, after 96 frames" in resume(ended, capsys)
    assert_alike(ended, whole)


def test_one_process_at_a_time(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(killed)
    assert folder.state is not None
    assert folder.state.update == 2
    before = files(killed)
    assert_fails(capsys, ["train", "--resume", killed], str(killed), "a process trains")
    assert files(killed) == before
    assert load_run(killed)[1].update == 2  # reading is free
    folder.close()
    RunFolder(killed).close()


def test_a_file_system_without_locks(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(runs.fcntl, "flock", unsupported)
    RunFolder(killed).close()


def test_what_cannot_be_resumed(killed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_fails(capsys, ["train", "--resume", tmp_path / "missing"], "missing", "no run folder")
    config = killed / "config.json"
    good = json.loads(config.read_text())
    for changed in (at(good, "seed", value=4), at(good, "hparams", "gamma", value=0.9), at(good, "sha256", value="x")):
        config.write_text(changed)
        assert_fails(capsys, ["train", "--resume", killed], str(config), "damaged", "its sha256 digest differs", "undo")
    config.write_text(json.dumps(good, indent=8))  # laid out in another way
    good = without_digests(killed)
    config.write_text(at(good, "config", "layers", value=3))
    assert_fails(capsys, ["train", "--resume", killed], str(config), "damaged", "layers")
    config.write_text(at(good, "config", "head", value=9))
    assert_fails(capsys, ["train", "--resume", killed], "of another version", "has shape")
    config.unlink()
    assert_fails(capsys, ["train", "--resume", killed], str(config), "no run folder")


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (("--seed", "4"), ("config.json", "leave out --seed")),
        (("--config.num-envs=8", "--out", "elsewhere"), ("leave out --config.num-envs, --out",)),
        (("dqn",), ("no algorithm 'dqn'",)),
    ],
)
def test_options_beside_resume(
    options: tuple[str, ...], fragments: tuple[str, ...], killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(killed)
    assert_fails(capsys, ["train", f"--resume={killed}", *options], *fragments)
    assert files(killed) == before


def test_a_run_needs_an_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    assert_fails(capsys, ["train"], "algorithm", "mahppo")
