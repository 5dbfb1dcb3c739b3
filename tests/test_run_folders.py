"""Damaged run folders: what is not as it was written is refused, or named and not taken."""

import contextlib
import csv
import itertools
import json
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from algos import checkpoints, runs
from algos.checkpoints import Manifest
from algos.integrity import sealed, unsealed
from algos.runs import RunFolder, load_run, verified
from benchmarks.harness.campaign import REFUSED, WHOLE
from benchmarks.robustness.run_folders import Example, Files, arrays_of, example, fates_of, files_of, flip
from tests.errors import error_of
from tests.test_cli import without_digests

MEND = ": train again, or copy the folder again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return example(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def run(whole: Example, tmp_path: Path) -> Path:
    """A copy: updates 2 and 3 are there, and three rows."""
    return Path(shutil.copytree(whole.path, tmp_path / "run"))


def read_by(path: Path) -> list[Callable[[], object]]:
    """Ways to read a folder, to the end."""
    return [lambda: load_run(path), lambda: RunFolder(path)]


def test_a_whole_folder_is_what_was_written(run: Path, whole: Example, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(run)
    folder.close()
    assert arrays_of(folder.state) == arrays_of(load_run(run)[1]) == whole.states[3]
    assert [row["frames"] for row in folder.rows] == [32, 64, 96]
    left = files_of(run)
    assert {name: left[name] for name in whole.files} == whole.files
    assert not caplog.messages


def test_the_newest_whole_checkpoint_is_taken_and_the_damaged_one_is_named(
    run: Path, whole: Example, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    newest, older = run / "checkpoints" / "3", run / "checkpoints" / "2"
    (data,) = (newest / "default" / "d").iterdir()
    flip(data, np.random.default_rng(0))
    for _, state in (load_run(run), load_run(run)):
        assert arrays_of(state) == whole.states[2]
    said = f"{newest} is damaged ({data.relative_to(newest)}: changed): {older} is taken"
    assert caplog.messages == [said, said]
    folder = RunFolder(run)
    assert caplog.messages == [said] * 3
    assert arrays_of(folder.state) == whole.states[2]
    assert [row["frames"] for row in folder.rows] == [32, 64]
    row = {name: value for name, value in folder.rows[0].items() if name not in ("wall_time", "frames")}
    folder.save(3, folder.state._replace(update=np.int32(3)), 96, row)
    folder.close()
    assert arrays_of(load_run(run)[1]) == {**whole.states[2], ".update": np.int32(3).tobytes()}
    assert len(caplog.messages) == 3
    assert capfd.readouterr() == ("", "")


def test_no_whole_checkpoint_is_one_error_that_names_them(run: Path) -> None:
    (run / "checkpoints" / "3" / "manifest.json").unlink()
    flip(run / "checkpoints" / "2" / "default" / "_METADATA", np.random.default_rng(0))
    before = files_of(run)
    for read in read_by(run):
        said = error_of(read)
        assert said.startswith(f"{run}/checkpoints/3 is damaged (manifest.json: No such file or directory); ")
        assert said.endswith(f"{run}/checkpoints/2 is damaged (default/_METADATA: changed){MEND}")
    assert files_of(run) == before


def test_checkpoints_that_were_removed_are_missed(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(run / "checkpoints" / "3")
    assert load_run(run)[1].update == 2
    assert caplog.messages == [
        f"{run}/metrics.csv has more rows, but no checkpoint of them is there: {run}/checkpoints/2 is taken"
    ]
    for left in ("checkpoints/2", "checkpoints"):
        shutil.rmtree(run / left)
        before = files_of(run)
        for read in read_by(run):
            assert error_of(read) == f"{run}/checkpoints holds no checkpoint, but metrics.csv has rows{MEND}"
        assert files_of(run) == before


def test_checkpoints_of_other_updates_or_runs_are_not_taken(run: Path) -> None:
    older, newer = run / "checkpoints" / "2", run / "checkpoints" / "3"
    newer.rename(run / "checkpoints" / "4")
    assert "checkpoints/4 is damaged (manifest.json: of another checkpoint)" in verified(run, rows=True).notes[0]
    older.rename(newer)
    assert error_of(verified, run, rows=True).count("of another checkpoint") == 2
    (run / "checkpoints" / "4").rename(older)
    older.rename(run / "checkpoints" / "1")
    newer.rename(older)
    (run / "checkpoints" / "1").rename(newer)
    other, _ = unsealed((run / "config.json").read_text())
    (run / "config.json").write_text(sealed({**other, "seed": 4}))
    assert error_of(verified, run, rows=True).count(f"of another run than {run}/config.json") == 2


def test_a_file_too_many_or_too_few_in_a_checkpoint(run: Path) -> None:
    (run / "checkpoints" / "3" / "default" / "notes.txt").write_text("mine")
    (run / "checkpoints" / "2" / "default" / "_sharding").unlink()
    said = error_of(verified, run, rows=True)
    assert "3 is damaged (default/notes.txt: not of it)" in said and "2 is damaged (default/_sharding: missing)" in said


def test_a_manifest_of_the_same_content_is_not_the_one_that_was_written(run: Path) -> None:
    manifest = run / "checkpoints" / "3" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"\n", b"\r\n"))
    assert verified(run, rows=True).notes == [
        f"{manifest.parent} is damaged (manifest.json: changed): {run}/checkpoints/2 is taken"
    ]


def test_digests_cannot_be_lost_in_silence(run: Path) -> None:
    """Without any, the folder would be one of before there were digests: only its configuration says that it is not."""
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    assert error_of(verified, run, rows=True).count("manifest.json: No such file") == 2
    config = json.loads((run / "config.json").read_text())
    config["sha257"] = config.pop("sha256")
    (run / "config.json").write_text(json.dumps(config))
    assert "sha257" in error_of(load_run, run)


@pytest.mark.parametrize("left", [0, 10])
def test_a_kill_between_a_checkpoint_and_its_row(
    left: int, run: Path, whole: Example, caplog: pytest.LogCaptureFixture
) -> None:
    table = whole.files["metrics.csv"]
    *_, row = table.splitlines(keepends=True)
    (run / "metrics.csv").write_bytes(table[: len(table) - len(row) + left])
    load_run(run)
    folder = RunFolder(run)
    folder.close()
    assert arrays_of(folder.state) == whole.states[3]
    assert (run / "metrics.csv").read_bytes() == table
    assert caplog.messages == [f"{run}/metrics.csv lacks the last row, which {run}/checkpoints/3 has"] * 2


def test_a_checkpoint_that_was_being_removed_is_removed(run: Path) -> None:
    shutil.copytree(run / "checkpoints" / "2" / "default", run / "checkpoints" / "1" / "default")
    RunFolder(run).close()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "3"]


@pytest.mark.parametrize("older", [False, True])
def test_damaged_rows_are_refused(older: bool, run: Path, whole: Example, caplog: pytest.LogCaptureFixture) -> None:
    if older:
        without_digests(run)
    text = whole.files["metrics.csv"].decode()
    header, first, second, third = text.splitlines(keepends=True)
    damaged: list[str] = [
        *("", header, header + first, header + first + third, header + first + second + second),
        *(text.replace(",64,", ",x,"), text.replace("wall_time", "time"), text.replace("frames", "frame", 1)),
        *(f"\0{text}", f"\udcff{text}"),
    ]
    if not older:
        damaged += [text.replace("-0.75", "-0.76"), text.replace("kl", "k1"), text.replace("\r\n", "\n", 1)]
    for content in damaged:
        (run / "metrics.csv").write_bytes(content.encode(errors="surrogateescape"))
        assert f"{run}/metrics.csv is damaged" in error_of(RunFolder, run)
    if not older:
        assert load_run(run)[1].update == 3  # a policy needs no rows
        assert caplog.messages == [f"{run}/metrics.csv is damaged: its sha256 digest differs"]


def test_columns_of_another_version(run: Path) -> None:
    folder = RunFolder(run)
    assert "other columns" in error_of(folder.save, 4, folder.state, 128, {"evaluation/episode_return": 0.0})
    folder.close()
    assert load_run(run)[1].update == 3


def test_who_changes_the_configuration_is_told(run: Path, whole: Example) -> None:
    config = json.loads(whole.files["config.json"])
    for changed in ({"seed": 4}, {"hparams": {**config["hparams"], "gamma": 0.9}}, {"sha256": "x"}):
        (run / "config.json").write_text(json.dumps({**config, **changed}))
        for read in read_by(run):
            said = error_of(read)
            assert said.startswith(f"{run}/config.json is damaged (its sha256 digest differs") and "undo" in said
    (run / "config.json").write_text(json.dumps(config, indent=8, sort_keys=True))  # laid out in another way
    assert arrays_of(load_run(run)[1]) == whole.states[3]


@pytest.mark.full
def test_200_flipped_bits_are_refused_or_named_or_without_effect(whole: Example, tmp_path: Path) -> None:
    turns = itertools.cycle(sorted(whole.files))

    def one_bit(path: Path, _: Files, rng: np.random.Generator) -> str:
        name = next(turns)
        flip(path / name, rng)
        return name

    fates = fates_of(whole, 200, 0, tmp_path, one_bit)
    assert fates.total() == 200 and set(fates) == {REFUSED, WHOLE}
    assert fates[REFUSED] > 80  # the older checkpoint and the results are not read


def test_the_campaign_finds_a_run_that_trusts_its_files(
    whole: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trusting(checkpoint: Path) -> Manifest:
        return Manifest(**unsealed((checkpoint / "manifest.json").read_text())[0])

    monkeypatch.setattr(runs, "verify", trusting)
    assert any("takes a checkpoint with" in fate for fate in fates_of(whole, 60, 0, tmp_path))


class StillWriting:
    """In place of orbax's: fails while a thread of it writes other parts."""

    threads: ClassVar[list[threading.Thread]] = []

    def save(self, folder: Path, **_: Any) -> None:
        def write() -> None:
            end = time.monotonic() + 0.2
            for part in itertools.takewhile(lambda _: time.monotonic() < end, itertools.count()):
                with contextlib.suppress(OSError):
                    (folder / str(part)).mkdir(parents=True, exist_ok=True)

        self.threads.append(threading.Thread(target=write))
        self.threads[-1].start()
        time.sleep(0.1)
        raise OSError("os_error_code='28'")


def test_parts_that_are_still_written_do_not_hide_why_a_save_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "_checkpointer", lambda: contextlib.nullcontext(StillWriting()))
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, Manifest(1, "", "", 0, "", {}), {})
    StillWriting.threads.pop().join()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of orbax's threads; the CLI hides it
@pytest.mark.parametrize("most", [100, 9000, 20_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    most: int, run: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """No file may get more bytes: a stand-in for a full disk. The first limit stops the events of a row as well, the
    others two parts of a checkpoint.
    """
    folder = RunFolder(run)
    row = {name: value for name, value in folder.rows[0].items() if name not in ("wall_time", "frames")}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))

    def save() -> None:
        folder.save(4, folder.state, 128, row)
        folder.finish()

    try:
        said = error_of(save)
        assert error_of(folder.close) == said
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert said.startswith(f"run folder {str(run)!r} cannot be written (File too large): make room, and `mec-jax train")
    assert capfd.readouterr() == ("", "") and not caplog.messages
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["2", "3"]
    assert load_run(run)[1].update == 3
    folder = RunFolder(run)
    folder.save(4, folder.state, 128, row)
    folder.close()
    with (run / "metrics.csv").open(newline="") as table:
        assert [float(row["frames"]) for row in csv.DictReader(table)] == [32, 64, 96, 128]
