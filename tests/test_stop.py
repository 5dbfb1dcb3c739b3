"""Ctrl-C and SIGTERM: the program ends within seconds. `benchmarks.robustness.kill_resume` does it at many moments."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from algos import cli
from benchmarks.robustness.kill_resume import CHUNKS, OPTIONS, PROMPT, Train, rows, wrong_end

pytestmark = pytest.mark.usefixtures("foreground")

ROOT = Path(__file__).resolve().parents[1]
BUSY = """
import hashlib, signal, sys, time
from algos.cli import stop
from mec_jax.files import whole_file
if "background" in sys.argv:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
stop.install()
stop.last_words("more", lambda seconds: time.sleep(seconds if "slow" in sys.argv else 0))
with whole_file(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9) if "library" in sys.argv else time.sleep(600)
"""
"""Writes a file, then sleeps, or computes for minutes without a step of Python."""


def busy(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BUSY, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("where", ["python", "library"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_with_one_line_and_nothing_half_written(
    number: signal.Signals, where: str, tmp_path: Path
) -> None:
    process = busy(tmp_path / "file.txt", where)
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, errors = process.communicate(timeout=PROMPT)
    assert (process.returncode, errors) == (128 + number, "mec-jax: stopped; more\n")
    assert list(tmp_path.iterdir()) == []


def test_in_a_library_while_a_checkpoint_takes_long_and_with_a_second_signal(tmp_path: Path) -> None:
    process = busy(tmp_path / "file.txt", "library", "slow")
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PROMPT)
    assert (process.returncode, errors) == (130, "mec-jax: stopped; more\n")


def test_a_background_job_ignores_ctrl_c(tmp_path: Path) -> None:
    process = busy(tmp_path / "file.txt", "background")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PROMPT)
    assert process.returncode == 143


def test_who_calls_the_command_line_keeps_its_signals(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        cli.main(["list", "--help"])
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_an_import_is_ended_at_once() -> None:
    train = Train("mahppo", "--help")
    train.wait_for(train.catches_signals)
    code, errors, seconds = train.stop(signal.SIGINT)
    assert not wrong_end(signal.SIGINT, code, errors, seconds, Path()) and code == 130


@pytest.mark.full
def test_training_is_ended_at_any_moment(tmp_path: Path) -> None:
    """While it compiles, trains and makes its results, each resuming the one before."""
    path = tmp_path / "run"
    begin: tuple[str, ...] = (*OPTIONS, "--out", str(path))
    for number, done, wait in ((signal.SIGTERM, 0, 2.0), (signal.SIGINT, 1, 0.0), (signal.SIGINT, CHUNKS, 1.0)):
        train = Train(*begin)
        train.wait_for(lambda done=done: (path / "tensorboard").exists() and len(rows(path)) >= done)  # type: ignore[misc]
        time.sleep(wait)
        code, errors, seconds = train.stop(number)
        assert code == 128 + number
        assert wrong_end(number, code, errors, seconds, path) == ""
        assert f"mec-jax train --resume {path}" in errors
        begin = ("--resume", str(path))
