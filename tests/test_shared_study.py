"""Sweeps that several workers share: each choice once, whoever is killed when, and the table that one process makes."""

import csv
import importlib.util
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tyro
from jax.errors import JaxRuntimeError

from algos import cli
from algos.cli import sweep
from algos.integrity import sealed
from algos.run_config import RunConfig, new_run
from algos.sweep import shared, tables
from algos.sweep.call import study_of
from algos.sweep.journal import Key, Record
from algos.sweep.scoring import Result, Runner
from algos.sweep.shared import Worker
from algos.sweep.storage import SWEEP, Address, Opened, create, opened
from algos.sweep.study import Study, Sweep
from tests.errors import error_of
from tests.postgresql import server

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {"num_envs": 4, "rollout": 8, "epochs": 1, "minibatches": 1, "trunk": (8,), "critic": (8,)}
RATES = {"hparams.actor_lr": "log:1e-4..1e-2"}
LONG = 600.0  # s: a lease that does not end


def study(over: Any = RATES, **settings: Any) -> Study:
    base = new_run("ppo", "CartPole-v1", config=CONFIG | {"num_frames": 256, "updates_per_chunk": 4})
    return study_of(base, over, **{"episodes": 4, "fresh": 1, **settings})


def result_of(run: RunConfig) -> Result:
    rate = run.hparams.actor_lr
    worth, diverged = rate * (1 + run.seed) * len(run.config.trunk) * run.env_params.get("gravity", 1), rate > 5e-3
    curve = ((128, worth / 2), (256, worth))
    return Result(*(math.nan,) * 3, worth, worth, 1.0, {}, 256, time.perf_counter(), diverged, curve)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Instead of training: what was run, in order. Trials are taken one at a time."""
    ran: list[RunConfig] = []

    def results(self: Runner, runs: Sequence[RunConfig], report: Any = None) -> Iterator[list[tuple[int, Result]]]:
        for place, run in enumerate(runs):
            ran.append(run)
            time.sleep(0.002)
            yield [(place, result_of(run))]

    monkeypatch.setattr(Runner, "results", results)
    monkeypatch.setattr(Worker, "check", lambda self: self.batch or 1)
    monkeypatch.setattr(shared, "write_report", tables.write_tables)
    return ran


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture
def journal(tmp_path: Path) -> Address:
    return Address.of(str(tmp_path / "study.journal"))


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=pytest.mark.full)])
def address(request: pytest.FixtureRequest, journal: Address) -> Address:
    if request.param == "journal":
        return journal
    return Address.of(f"{request.getfixturevalue('database')}#{request.node.name}")


def rows(folder: Path) -> list[dict[str, str]]:
    """Of the table of a sweep, but for seconds."""
    with (folder / tables.CSV).open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def one_process(folder: Path, of: Study) -> list[dict[str, str]]:
    found = Sweep(folder, of)
    found.run()
    tables.write_tables(found)
    found.close()
    return rows(folder)


def given(address: Address) -> str:
    """As it is given to a command."""
    return address.place if address.is_file else f"{address.place}#{address.name}"


def states(address: Address) -> Counter[str]:
    return Counter(trial.state.name for trial in opened(address).optuna.get_trials(deepcopy=False))


def in_parallel(*calls: Callable[[], Any]) -> list[Any]:
    found: list[Any] = [None] * len(calls)

    def call(place: int) -> None:
        found[place] = calls[place]()

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("sampler", ["grid", "random", "sobol"])
def test_workers_make_the_table_of_one_process(
    sampler: str, address: Address, ran: list[RunConfig], tmp_path: Path
) -> None:
    over = {"hparams.actor_lr": "log:1e-4..1e-2" + ":3" * (sampler == "grid"), "config.trunk": "8,8x8"}
    wanted = study({**over, "params.gravity": "5,9.8"}, points=12, sampler=sampler, seeds=2)
    expected = one_process(tmp_path / "alone", wanted)
    ran.clear()
    create(address, wanted, lease=1.0)
    outs = [tmp_path / name for name in ("first", "second", "third")]
    found = in_parallel(*(lambda out=out: Worker(address).work(out)[1] for out in outs))
    written = [rows(out) for out, names in zip(outs, found, strict=True) if names]  # by who was last, or came later
    assert written and all(table == expected for table in written)
    chosen = [run for run in ran if run.seed not in wanted.fresh_seeds]
    assert len(chosen) == len(expected) == 24 and max(Counter(map(repr, ran)).values()) == 1
    assert states(address) - Counter(FAIL=9) == {"COMPLETE": 6, "PRUNED": 1}  # some may have been given up unrun
    count = len(ran)  # who comes when all is done writes it again, and runs nothing
    Worker(address).work(tmp_path / "later")
    assert rows(tmp_path / "later") == expected and len(ran) == count


def test_trials_of_a_worker_that_is_gone_are_taken_up_where_they_were(
    address: Address, ran: list[RunConfig], tmp_path: Path
) -> None:
    wanted = study(points=4, seeds=2)
    create(address, wanted, lease=0.2)
    gone = Worker(address)  # takes three trials, ends a run of the first, and is never heard of again
    taken = gone._take(3)
    choice, trial = next(iter(taken.items()))
    key = Key(choice, 0, 0)
    run = wanted.run(gone._choice(trial), 0, 0)
    gone._keep(choice, Record(key, gone._choice(trial), result_of(run)))
    opened(address).optuna.ask()  # and another is killed before it has written its name
    Worker(address).work(tmp_path / "out")
    assert rows(tmp_path / "out") == one_process(tmp_path / "alone", wanted)
    assert ran.count(run) == 1  # alone: what was on record has not been run again
    assert states(address) == {"COMPLETE": 4, "PRUNED": 1, "FAIL": 4}


def test_a_worker_that_was_only_slow_tells_nothing_twice(
    address: Address, ran: list[RunConfig], tmp_path: Path
) -> None:
    wanted = study(points=2, seeds=1)
    create(address, wanted, lease=0.2)
    slow = Worker(address)
    taken = slow._take(2)
    Worker(address).work(tmp_path / "out")
    slow._run(taken, lambda done: None)
    assert slow._held == {} and states(address) == {"COMPLETE": 2, "PRUNED": 1, "FAIL": 2}


def test_a_worker_that_lives_keeps_its_trials(address: Address, ran: list[RunConfig], monkeypatch: Any) -> None:
    create(address, study(points=1), lease=0.25)
    other, busy = Worker(address), Worker(address)
    busy._take(1)
    threading.Thread(target=busy._beat, daemon=True).start()
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        other._tend(other._tries())
        time.sleep(0.02)
    assert states(address) == {"RUNNING": 1}
    busy._ended.set()


def test_of_two_tries_of_a_choice_one_is_run(address: Address, ran: list[RunConfig], tmp_path: Path) -> None:
    wanted = study(points=3, fresh=0)
    create(address, wanted, LONG)
    found = opened(address).optuna
    found.add_trials(found.get_trials())  # as if others had queued them, too
    Worker(address, batch=4).work(tmp_path / "out")
    assert len(ran) == 3 and states(address) == {"COMPLETE": 3, "PRUNED": 1, "FAIL": 3}


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (MemoryError("no room"), ValueError, "out of memory.*--batch"),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: no room"), ValueError, "out of memory.*--batch"),
        (JaxRuntimeError("INTERNAL: something"), JaxRuntimeError, "INTERNAL"),
        (KeyError("x"), KeyError, "x"),
    ],
)
def test_an_error_gives_back_what_was_running(
    error: Exception, kind: type[Exception], words: str, address: Address, ran: list[RunConfig], monkeypatch: Any
) -> None:
    wanted = study(points=4)
    create(address, wanted, LONG)
    with monkeypatch.context() as broken:

        def results(self: Runner, runs: Any, report: Any = None) -> Any:
            raise error

        broken.setattr(Runner, "results", results)
        with pytest.raises(kind, match=words):
            Worker(address, batch=3).work()
    assert states(address) == {"FAIL": 3, "WAITING": 1}
    begin = time.monotonic()
    worker = Worker(address)
    tries = worker._tries()
    worker._tend(tries)
    assert len(worker._take(9)) == 4 and time.monotonic() - begin < LONG  # at once, not when the lease ends


def test_what_diverged_is_a_result(address: Address, ran: list[RunConfig], tmp_path: Path) -> None:
    create(address, study({"hparams.actor_lr": [1e-3, 9e-3]}))
    Worker(address).work(tmp_path / "out")
    assert [row["diverged"] for row in rows(tmp_path / "out")] == ["False", "True"]
    assert [trial.value for trial in opened(address).optuna.get_trials()[:2]] == [1e-3, -math.inf]


def test_what_learns_is_asked_by_each_worker(address: Address, ran: list[RunConfig], tmp_path: Path) -> None:
    create(address, study({**RATES, "hparams.clip": "0.1..0.3"}, points=12, sampler="tpe"), lease=2.0)
    in_parallel(*(lambda out=out: Worker(address, 3).work(tmp_path / out) for out in ("a", "b")))
    tried = [(row["trial"], row["hparams.actor_lr"]) for out in tmp_path.glob("*/") for row in rows(out)]
    assert len({trial for trial, _ in tried}) == len({rate for _, rate in tried}) == 12


def test_half_a_line_of_a_killed_worker_is_taken_away(journal: Address, ran: list[RunConfig], tmp_path: Path) -> None:
    create(journal, study(points=2))
    whole = Path(journal.place).read_bytes()
    with open(journal.place, "ab") as file:
        file.write(b'{"op_code":8,"user_attr":"' + b"x" * 10_000)
    Worker(journal).work(tmp_path / "out")
    lines = Path(journal.place).read_bytes()
    assert lines.startswith(whole) and all(json.loads(line) for line in lines.splitlines())
    assert len(rows(tmp_path / "out")) == 2


def test_making_a_study_twice_changes_nothing(address: Address) -> None:
    create(address, study(points=2))
    create(address, study(points=2))
    assert states(address) == {"WAITING": 2}
    message = error_of(create, address, study(points=3))
    assert str(address) in message and "another choices" in message


def damaged(address: Address, change: Callable[[dict[str, Any]], Any]) -> None:
    found = opened(address).optuna
    fields = json.loads(found.user_attrs[SWEEP])
    fields.pop("sha256")
    found.set_user_attr(SWEEP, change(fields))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda fields: sealed(fields).replace('"ppo"', '"PPO"'), "damaged.*digest"),
        (lambda fields: sealed(fields | {"version": "0.0.1"}), "of mec-jax 0.0.1, this is .*: install"),
        (lambda fields: sealed(fields | {"study": {}}), "damaged"),
        (lambda fields: json.dumps(fields), "damaged.*no digest"),
        (lambda fields: 3, "damaged"),
        (lambda fields: None, "holds no sweep"),
    ],
)
def test_a_study_that_is_not_as_it_was_made(change: Any, words: str, address: Address) -> None:
    create(address, study(points=1))
    damaged(address, change)
    assert re.search(words, error_of(Worker, address))


def test_results_that_are_not_as_they_were_written(address: Address, ran: list[RunConfig], tmp_path: Path) -> None:
    create(address, study(points=2), LONG)
    worker = Worker(address)
    for choice, trial in worker._take(2).items():
        trial.set_user_attr(f"run {choice} 0 0", '{"trial": 0}')
    assert "damaged (trial 0" in error_of(worker._run, worker._held, lambda done: None)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", *map(str, arguments)])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1
    return said


def test_what_can_not_be_joined_is_one_line(
    journal: Address, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no study" in refused(capsys, "--join", journal) and not Path(journal.place).exists()
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    for arguments in (("ppo", "--env", "CartPole-v1", "--over", "hparams.clip=0.1,0.2", "--study"), ("--join",)):
        assert "no journal of Optuna" in refused(capsys, *arguments, notes) and notes.read_text() == "mine"
    assert "can't be reached" in refused(capsys, "--join", f"postgresql://user:word@/data?host={tmp_path}#lr")
    assert "can't be shared" in refused(capsys, "--join", "sqlite:///study.db")
    assert "no URL" in refused(capsys, "--join", "://")
    assert "leave out --seeds" in refused(capsys, "--join", journal, "--seeds", 3)
    assert "give --study, too" in refused(capsys, "ppo", "--lease", 3)
    assert "give --join, too" in refused(capsys, "ppo", "--study", journal, "--batch", 3)
    assert "give --out to --join" in refused(capsys, "ppo", "--study", journal, "--out", tmp_path)
    create(journal, study(points=1))
    assert "batch is 0" in refused(capsys, "--join", journal, "--batch", 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "is no sweep's folder" in refused(capsys, "--join", journal, "--out", tmp_path / "full")
    for package in ("psycopg", "optuna"):
        monkeypatch.setitem(sys.modules, package, None)
        said = refused(capsys, "--join", "postgresql://user@host/data")
        assert f"needs {package}: pip install 'mec-jax[sweep]'" in said


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    found = Address.of(f"postgresql://user:secret@/data?host={tmp_path}#lr")
    assert "secret" not in str(found) + error_of(opened, found) and str(found).endswith("#lr")


PAGE = (ROOT / "docs" / "sweeps.md").read_text()
COMMANDS = [
    line
    for line in [*"".join(re.findall(r"```sh\n(.*?)```", PAGE, re.S)).splitlines(), *re.findall(r"`([^`\n]+)`", PAGE)]
    if line.startswith(("mec-jax ", "python ")) and "..." not in line
]


def slurm() -> Any:
    found = importlib.util.spec_from_file_location("sweep_on_slurm", ROOT / "docs" / "sweep_on_slurm.py")
    assert found is not None and found.loader is not None
    module = sys.modules[found.name] = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_page_can_be_typed(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "mec-jax":
        tyro.cli(sweep.command(arguments), args=arguments[1:])
    else:
        assert arguments[0] == "docs/sweep_on_slurm.py"
        tyro.cli(slurm().Options, args=arguments[1:])


def test_all_commands_of_the_page_are_found() -> None:
    assert len(COMMANDS) >= 7


OPTIONS = (
    *("ppo", "--env", "CartPole-v1", "--config.num-frames", "40960", "--config.num-envs", "4", "--config.rollout", "8"),
    *("--config.updates-per-chunk", "320", "--config.trunk", "8", "--config.critic", "8", "--config.epochs", "1"),
    *("--config.minibatches", "1", "--episodes", "4", "--fresh", "1", "--points", "12"),
    *("--over", "hparams.actor_lr=log:1e-4..1e-2"),
)
LIMIT = 300.0  # s of one process


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test that failed has started ends with it."""
    yield
    for process in STARTED:
        if process.poll() is None:
            process.kill()
            process.communicate()
    STARTED.clear()


class Process:
    """`mec-jax sweep` in a process of its own."""

    def __init__(self, *options: Any) -> None:
        line = [sys.executable, "-m", "algos.cli", "sweep", *map(str, options)]
        self.process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        STARTED.append(self.process)

    def end(self) -> tuple[int, str]:
        said, errors = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, said + errors

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        return self.end()


def wait_for(condition: Callable[[], bool], *processes: Process) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end and all(each.process.poll() is None for each in processes)
        time.sleep(0.05)


def trials_of(study: Opened, worker: Process) -> set[str]:
    """States of the trials that a worker took."""
    trials = study.optuna.get_trials(deepcopy=False)
    return {trial.state.name for trial in trials if f"-{worker.process.pid}-" in trial.user_attrs.get("worker", "")}


def in_mid_batch(study: Opened, worker: Process) -> bool:
    """Whether a worker runs a trial after it has told another."""
    return {"RUNNING", "COMPLETE"} <= trials_of(study, worker)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("alone") / "out"
    code, said = Process(*OPTIONS, "--out", folder).end()
    assert code == 0, said
    return rows(folder)


@pytest.mark.full
def test_one_of_two_workers_is_killed(address: Address, alone: list[dict[str, str]], tmp_path: Path) -> None:
    assert Process(*OPTIONS, "--study", given(address), "--lease", 5).end()[0] == 0
    first, study = Process("--join", given(address), "--batch", 4, "--out", tmp_path / "first"), opened(address)
    wait_for(lambda: in_mid_batch(study, first), first)
    first.process.send_signal(signal.SIGSTOP)  # until the other is there, however long that takes
    second = Process("--join", given(address), "--batch", 4, "--out", tmp_path / "out")
    wait_for(lambda: bool(trials_of(study, second)), second)
    first.process.send_signal(signal.SIGCONT)
    time.sleep(0.2)
    assert first.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = second.end()
    assert code == 0, said
    assert rows(tmp_path / "out") == alone
    found = states(address)
    assert (found["COMPLETE"], found["PRUNED"], found["RUNNING"], found["WAITING"]) == (12, 1, 0, 0) and found["FAIL"]
    left = {"sweep.json", "trials.csv", "trials.parquet", "best.json", "report.md", "scores.png", "learning.png"}
    assert left <= {file.name for file in (tmp_path / "out").iterdir()}


@pytest.mark.full
def test_ctrl_c_gives_back_at_once(address: Address, foreground: None, tmp_path: Path) -> None:
    assert Process(*OPTIONS, "--study", given(address), "--lease", LONG).end()[0] == 0
    worker = Process("--join", given(address), "--batch", 4, "--out", tmp_path / "out")
    study = opened(address)  # once: each opening is a connection until it is collected
    wait_for(lambda: in_mid_batch(study, worker), worker)
    code, said = worker.stop(signal.SIGINT)
    assert code == 128 + signal.SIGINT and "--join" in said and "joins again" in said
    found = states(address)
    assert found["RUNNING"] == 0 and found["FAIL"] + found["COMPLETE"] + found["WAITING"] == 12


@pytest.mark.full
def test_jobs_of_submitit_share_a_study(alone: list[dict[str, str]], tmp_path: Path) -> None:
    place = tmp_path / "study.journal"
    assert Process(*OPTIONS, "--study", place).end()[0] == 0
    script = [sys.executable, ROOT / "docs" / "sweep_on_slurm.py", place, "--workers", 2, "--out", tmp_path / "out"]
    script += ["--cluster", "local", "--wait", "--logs", tmp_path / "logs"]
    settings = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*map(str, script)], env=settings, cwd=tmp_path, capture_output=True, text=True)
    logs = "".join(file.read_text() for file in (tmp_path / "logs").glob("*.err"))
    assert done.returncode == 0, done.stderr + logs
    assert rows(tmp_path / "out") == alone
