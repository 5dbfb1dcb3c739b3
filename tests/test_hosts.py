"""One run on the devices of several processes, here of one machine. What is refused costs no second process."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from algos import cli, hosts
from algos.cli.arguments import check_alone, devices_for
from tests.errors import error_of
from tests.test_devices import ROOT, SIZES, must_succeed, on_cpus
from tests.test_resume import assert_alike

RUN = ("ppo", "--env", "CartPole-v1", *SIZES)
LONG = (*RUN, "--config.num-frames", "320000")


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def shared(*of_first: str) -> list[subprocess.Popen[str]]:
    """Two processes of one device that train together: the first with these options, the other without."""
    joined = ("--coordinator", free_address(), "--processes", "2", "--devices", "2")
    command = ("algos.cli", "train")
    return [
        on_cpus(1, *command, *options, *joined, "--process", str(process), stdout=subprocess.PIPE)
        for process, options in enumerate((of_first, ()))
    ]


def wait_for_checkpoint(folder: Path, processes: Sequence[subprocess.Popen[str]]) -> None:
    while all(process.poll() is None for process in processes) and not (folder / "checkpoints" / "1").exists():
        time.sleep(0.001)


def must_be_silent(process: subprocess.Popen[str]) -> None:
    assert process.communicate(timeout=600) == ("", "") and process.returncode == 0


# What is trained


@pytest.mark.full
def test_two_processes_of_one_device_train_as_one_of_two_bit_for_bit(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    must_succeed(on_cpus(2, "algos.cli", "train", *RUN, "--devices", "2", "--out", str(alone)))
    first, other = shared(*RUN, "--out", str(together))
    must_succeed(first)
    must_be_silent(other)
    assert_alike(together, alone)


@pytest.mark.full
@pytest.mark.parametrize("case", ["ppo", "drl_es"])
def test_two_processes_of_two_devices_train_as_one_of_one(case: str) -> None:
    """Four add up in another order."""
    address = free_address()
    both = [on_cpus(2, "tests.on_hosts", address, process, case, "4") for process in ("0", "1")]
    for process in both:
        must_succeed(process)


@pytest.mark.full
def test_processes_that_are_killed_go_on_together(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = ("algos.cli", "train")
    must_succeed(on_cpus(2, *command, *RUN, "--devices", "2", "--out", str(whole)))
    processes = shared(*RUN, "--out", str(killed))
    wait_for_checkpoint(killed, processes)
    for process in processes:
        process.kill()
    for process in processes:
        process.communicate()
    assert processes[0].returncode == -signal.SIGKILL
    assert not (killed / "policy.npz").exists()
    first, other = shared("--resume", str(killed))
    must_succeed(first)
    must_be_silent(other)
    assert_alike(killed, whole)
    first, other = shared("--resume", str(killed))  # it had ended: its results are made again
    must_succeed(first)
    must_be_silent(other)
    assert_alike(killed, whole)


@pytest.mark.full
@pytest.mark.parametrize("dies", [0, 1])
def test_when_one_process_dies_the_others_end_with_a_line(dies: int, tmp_path: Path) -> None:
    processes = shared(*LONG, "--out", str(tmp_path / "run"))
    wait_for_checkpoint(tmp_path / "run", processes)
    processes[dies].terminate()
    _, said = processes[1 - dies].communicate(timeout=60)
    assert processes[1 - dies].returncode == 2 and said == f"mec-jax: {hosts.LOST}\n"
    _, last = processes[dies].communicate()
    goes_on = f"; `mec-jax train --resume {tmp_path / 'run'}` goes on" if dies == 0 else ""
    assert last == f"mec-jax: stopped{goes_on}\n"


# What is refused


@pytest.mark.full
def test_a_first_process_that_does_not_come_ends_the_others_with_a_line() -> None:
    code = "import sys; from algos import cli, hosts; hosts.FOUND = 5; cli.main()"
    options = ("--coordinator", free_address(), "--processes", "2", "--process", "1", "--devices", "2")
    ended = subprocess.run([sys.executable, "-c", code, "train", *options], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1 and ended.stdout == ""
    assert "did not all come to 127.0.0.1:" in ended.stderr and "within 5 s" in ended.stderr


GIVEN = {"--coordinator": "127.0.0.1:4567", "--processes": "2", "--process": "0", "--devices": "4"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--coordinator": None}, "go together: --coordinator missing"),
        ({"--processes": None, "--process": None}, "go together: --processes and --process missing"),
        ({"--coordinator": "somewhere"}, "--coordinator is 'somewhere': name HOST:PORT"),
        ({"--coordinator": "somewhere:0"}, "name HOST:PORT"),
        ({"--coordinator": ":4567"}, "name HOST:PORT"),
        ({"--devices": None}, "go together: --devices missing"),
        ({"--processes": "0"}, "--processes is 0"),
        ({"--processes": "1"}, "--processes is 1"),
        ({"--processes": "two"}, "--processes is 'two': give a whole number"),
        ({"--process": "2"}, "--process is 2: of 2 it is from 0 to 1"),
        ({"--process": "-1"}, "--process is '-1': give a whole number"),
        ({"--devices": "3"}, "--devices is 3: 2 processes share a multiple of 2"),
    ],
)
def test_options_of_several_processes(
    changed: dict[str, str | None], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [text for name, value in (GIVEN | changed).items() if value is not None for text in (name, value)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "ppo", *options])
    printed = capsys.readouterr()
    assert ended.value.code == 2 and said in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_they_stand_beside_resume() -> None:
    options = [text for name, value in GIVEN.items() for text in (name, value)]
    beside = ("--coordinator", "--processes", "--process", "--devices")
    check_alone(["train", "--resume", "run", *options], "--resume", "its file", beside)
    assert "leave out --coordinator" in error_of(
        check_alone, ["sweep", "--resume", "run", *options], "--resume", "its file"
    )


def test_each_process_makes_its_share_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, int] = {}
    monkeypatch.setattr("algos.cores.cores", lambda: 8)
    monkeypatch.setattr(jax.config, "update", asked.__setitem__)
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    devices_for(["train", "--devices", "6", "--processes", "2"])
    assert asked.pop("jax_num_cpu_devices") == 3
    for count in ("9", "0"):
        devices_for(["train", "--devices", "1", "--processes", count])
        assert not asked


def test_a_process_alone_asks_nobody() -> None:
    arrays = {"key": jax.random.key(1), "number": 1.5}
    assert hosts.from_first(arrays) is arrays and hosts.text_from_first("text") == "text"
    assert hosts.waited(arrays) is arrays and hosts.leads()
    hosts.part()
    with pytest.raises(RuntimeError, match="of its own"), hosts.together():
        raise RuntimeError("of its own")


def test_plain_arrays_become_keys_again() -> None:
    arrays = {"key": jax.random.key(1), "number": np.float32(1.5)}
    again = hosts.typed(arrays, hosts.plain(arrays))
    assert again["key"] == arrays["key"] and again["number"] == 1.5
    assert hosts.typed(arrays, arrays)["key"] is arrays["key"]
