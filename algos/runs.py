"""A run's folder: config, metrics and checkpoints.

`config.json` defines the run and has a digest of itself. A checkpoint has the digests of its files, of `config.json`
and of `metrics.csv` up to its own row, and all are checked before anything is made of them. On disk a row comes after
its checkpoint: rows without one say that it was lost, not that a process was killed.
"""

import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import logging
import math
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
from jaxtyping import PyTree

from algos.algorithms import algorithm, algorithms
from algos.checkpoints import (
    Manifest,
    checkpoints,
    has_manifest,
    remove_old,
    remove_unfinished_checkpoints,
    restore,
    save,
    verify,
)
from algos.integrity import digest, sealed, unsealed
from algos.loggers import TensorBoard, logged
from algos.run_config import MAX_BYTES, RunConfig, as_arrays, run_of
from mec_jax.files import read_text, reason, remove_unfinished, write_bytes, write_text

CONFIG = "config.json"
METRICS = "metrics.csv"
CHECKPOINTS = "checkpoints"

_MEND = "train again, or copy the folder again"
_log = logging.getLogger(__name__)


class RunFolder:
    """A run's folder while it trains; one process at a time.

    It can be killed at any moment: files and checkpoints are written aside and renamed into place when they are whole.
    `metrics.csv` grows by a row after each checkpoint, which holds the row as well.

    Args:
        path: The folder. That of a new run must not exist or be empty.
        run: A new run; None goes on with the one that is there, from its newest whole checkpoint.

    Attributes:
        run: What is run.
        state: The checkpoint when the folder was opened; None if there was none.
        rows: Of `metrics.csv`, one a chunk.

    Raises:
        ValueError: If the folder is in use or cannot be written, if there is no run to go on with, or if nothing in it
            is whole that the run could go on from. A damaged checkpoint with a whole one before it is a warning.
    """

    def __init__(self, path: Path, run: RunConfig | None = None) -> None:
        self.path = path
        self.state: Any = None
        self.rows: list[dict[str, float]] = []
        self._was_there = path.exists()
        table = b""  # what metrics.csv holds
        with _writing(path, "name another with --out" if run is not None else "make it writable, or go on with a copy"):
            if run is not None:
                if path.exists() and any(path.iterdir()):
                    raise ValueError(f"run folder {str(path)!r} is not empty: name another with --out")
                path.mkdir(parents=True, exist_ok=True)
                self.run, self._config = run, dataclasses.asdict(run)
                write_text(path / CONFIG, sealed(self._config))
                self._lock = lock(path / CONFIG)
            else:
                _read_config(path)  # where there is no run, there is nothing to lock
                self._lock = lock(path / CONFIG)
                try:
                    table = self._take_up()
                except BaseException:
                    self._lock.close()
                    raise
            (path / CHECKPOINTS).mkdir(exist_ok=True)
            self._board = TensorBoard(path / "tensorboard")
            for row in self.rows:
                self._show(row)
        self._digest = hashlib.sha256(table)
        self._size = len(table)
        self._writer = ThreadPoolExecutor(1)
        self._saved: Future[None] = self._writer.submit(lambda: None)

    def _take_up(self) -> bytes:
        """Read the run that is there, and drop what `metrics.csv` has after its newest whole checkpoint."""
        remove_unfinished(self.path)
        remove_unfinished_checkpoints(self.path / CHECKPOINTS)
        found = verified(self.path, rows=True)
        self.run, template = _read_run(self.path, found.config)
        self._config, lines = found.config, found.table.splitlines(keepends=True)
        chunks = 0
        if found.checkpoint is not None:
            self.state = restore(found.checkpoint, template)
            chunks = int(self.state.update) // self.run.config.updates_per_chunk
        kept = b"".join(lines[: 1 + chunks])
        frames = self.run.config.updates_per_chunk * frames_per_update(self.run)
        try:  # a run of before there were digests may hold anything
            table = csv.DictReader(io.StringIO(kept.decode(), newline=""))
            self.rows = [{name: float(value) for name, value in row.items()} for row in table]
            done = [row["frames"] for row in self.rows if math.isfinite(row["wall_time"])]
            if done != [frames * (i + 1) for i in range(chunks)]:
                raise ValueError(f"not one row a chunk up to the checkpoint at frame {frames * chunks}")
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            raise ValueError(f"{self.path / METRICS} is damaged ({error!r}): {_MEND}") from None
        write_bytes(self.path / METRICS, kept)
        if found.checkpoint is not None:
            remove_old(found.checkpoint)
        _warn(found)
        return kept

    def _show(self, row: Mapping[str, float]) -> None:
        self._board.log(logged(row), int(row["frames"]), row["wall_time"])

    def save(self, update: int, state: PyTree, frames: int, metrics: Mapping[str, float]) -> None:
        """Write a checkpoint, and then its row of `metrics.csv`, in the background. The two newest are kept.

        Args:
            update: Updates done.
            state: After them.
            frames: Environment frames done.
            metrics: The row, but for its time and frames.

        Raises:
            ValueError: If it cannot be written, or the one before could not.
        """
        self.finish()
        row = {"wall_time": time.time(), "frames": frames, **metrics}
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(f"{self.path / METRICS} has other columns than this version writes: {_MEND}")
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(row))
        if not self.rows:
            table.writeheader()
        table.writerow(row)
        self.rows.append(row)
        self._digest.update(text.getvalue().encode())
        self._size += len(text.getvalue().encode())
        known = digest(self._config), text.getvalue(), self._size, self._digest.hexdigest()
        manifest = Manifest(update, *known, files={})
        self._saved = self._writer.submit(self._write, manifest, state)
        with self.writing():
            self._show(row)

    def _write(self, manifest: Manifest, state: PyTree) -> None:
        folder = self.path / CHECKPOINTS
        save(folder, manifest, state)
        with (self.path / METRICS).open("ab") as file:
            file.write(manifest.row.encode())
            file.flush()
            os.fsync(file.fileno())
        remove_old(folder / str(manifest.update))

    def finish(self, seconds: float | None = None) -> None:
        """Wait until the checkpoint is on disk, or for that time.

        Raises:
            ValueError: If it cannot be written.
        """
        wait([self._saved], seconds)
        if self._saved.done() and (error := self._saved.exception()) is not None:
            with self.writing():
                raise error

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Errors of the file system as errors of use that say how to go on."""
        return _writing(self.path, f"make room, and `{resume_command(self.path)}` goes on")

    def close(self) -> None:
        """Wait until everything is on disk.

        Raises:
            ValueError: If it cannot be written.
        """
        try:
            self.finish()
        finally:
            self._writer.shutdown()
            with contextlib.suppress(OSError):  # what is left of an event that could not be written
                self._board.close()
            self._lock.close()

    def remove(self) -> None:
        """Remove what it wrote, after `close`; and the folder, if it was not there before and nothing else is in it."""
        for folder in (CHECKPOINTS, "tensorboard"):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        for file in (METRICS, CONFIG):
            (self.path / file).unlink(missing_ok=True)
        if not self._was_there and not any(self.path.iterdir()):
            self.path.rmdir()


def resume_command(path: Path) -> str:
    """What to type to go on with a run."""
    return f"mec-jax train --resume {shlex.quote(str(path))}"


def frames_per_update(run: RunConfig) -> int:
    """Environment frames of an update of the run."""
    env, _ = run.make_env()
    trainer = algorithm(run.algorithm).make_trainer(env, run.config)
    return int(trainer.num_frames // (trainer.num_chunks * run.config.updates_per_chunk))


def load_run(path: Path) -> tuple[RunConfig, Any]:
    """Configuration and newest whole checkpoint of a run folder. Anything damaged beside them is a warning.

    Raises:
        ValueError: If it is no run folder, or its files are not as they were written.
    """
    found = verified(path, rows=False)
    run, template = _read_run(path, found.config)
    if found.checkpoint is None:
        raise ValueError(f"{str(path)!r} holds no checkpoint: train for longer")
    state = restore(found.checkpoint, template)
    _warn(found)
    return run, state


class Verified(NamedTuple):
    """What of a run folder is as it was written."""

    config: dict[str, Any]  # fields of config.json
    checkpoint: Path | None  # folder of the newest whole one; None if the run had not come to the first
    table: bytes  # metrics.csv up to there
    notes: list[str]  # what is damaged, and what is taken in its place


def verified(path: Path, rows: bool) -> Verified:
    """Check the files that a run consists of by their digests, before anything is made of them.

    A folder of before there were digests is taken as it is, with a note that says so.

    Args:
        path: The run folder.
        rows: Whether the rows must be whole as well; if not, damage of them is a note.

    Raises:
        ValueError: If it is no run folder, or holds no whole state of the run.
    """
    config, has_digest = _read_config(path)
    try:  # the rows first: a process that trains there adds to them after its checkpoints
        table = (path / METRICS).read_bytes() if (path / METRICS).exists() else b""
        there = checkpoints(path / CHECKPOINTS)
    except OSError as error:
        raise ValueError(f"run folder {str(path)!r} cannot be read ({reason(error)}): {_MEND}") from None
    if not there:
        if table:
            raise ValueError(f"{path / CHECKPOINTS} holds no checkpoint, but {METRICS} has rows: {_MEND}")
        return Verified(config, None, b"", [])
    if not has_digest and not any(map(has_manifest, there)):
        return Verified(config, there[0], table, [f"{path} has no digests: if it is damaged, no one can tell"])
    faults = []
    for checkpoint in there:
        try:
            manifest = verify(checkpoint)
            if manifest.config != digest(config):
                raise ValueError(f"of another run than {path / CONFIG}")
        except ValueError as error:
            faults.append(f"{checkpoint} is damaged ({error})")
            continue
        whole, note = _whole_rows(path / METRICS, table, checkpoint, manifest)
        if whole is None and rows:
            raise ValueError(f"{note}: {_MEND}")
        notes = [f"{fault}: {checkpoint} is taken" for fault in faults]
        if note and (whole is None or not faults):
            notes.append(note)
        return Verified(config, checkpoint, whole or b"", notes)
    raise ValueError(f"{'; '.join(faults)}: {_MEND}")


def _whole_rows(file: Path, table: bytes, checkpoint: Path, manifest: Manifest) -> tuple[bytes | None, str]:
    """The table up to a checkpoint's row, None if it is damaged, and what is to be said of it."""
    row = manifest.row.encode()
    before, after = table[: manifest.size - len(row)], table[manifest.size - len(row) :]
    whole = before + row
    if hashlib.sha256(whole).hexdigest() != manifest.table or row[: len(after)] != after[: len(row)]:
        return None, f"{file} is damaged: its sha256 digest differs"
    if len(after) < len(row):
        return whole, f"{file} lacks the last row, which {checkpoint} has"
    if len(after) > len(row):
        return whole, f"{file} has more rows, but no checkpoint of them is there: {checkpoint} is taken"
    return whole, ""


def _warn(found: Verified) -> None:
    if found.notes:
        _log.warning("%s", "; ".join(found.notes))


def _read_config(path: Path) -> tuple[dict[str, Any], bool]:
    """Fields of a run's configuration, and whether their digest is there and right: older files have none."""
    file = path / CONFIG
    try:
        return unsealed(read_text(file, MAX_BYTES))
    except OSError as error:
        raise ValueError(f"{str(path)!r} is no run folder ({file}: {error.strerror}): name one of `train`'s") from None
    except (ValueError, RecursionError) as error:
        mend = "a run is what this file said when it began, so undo the change, or train again"
        raise ValueError(f"{file} is damaged ({reason(error)}): {mend}") from None


def read_config(path: Path) -> RunConfig:
    """The run of a folder.

    Raises:
        ValueError: If it is no run folder, or its configuration is damaged or out of range.
    """
    return _run_of(path, _read_config(path)[0])


def _run_of(path: Path, fields: Mapping[str, Any]) -> RunConfig:
    """The run of a configuration."""
    file = path / CONFIG
    try:
        name = fields["algorithm"]
        run = run_of(dict(fields)) if name in algorithms() else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        why = reason(error) if type(error) is ValueError else repr(error)
        raise ValueError(f"{file} is damaged ({why}): {_MEND}") from None
    if run is None:
        known = f"only {', '.join(algorithms())} are"
        raise ValueError(f"{file} names an algorithm {name!r} that is not known: {known}")
    return run


def _read_run(path: Path, fields: Mapping[str, Any]) -> tuple[RunConfig, PyTree]:
    """The run of a configuration, and the shapes of its checkpoints."""
    file, run = path / CONFIG, _run_of(path, fields)
    try:
        env, params = run.make_env()
        trainer = algorithm(run.algorithm).make_trainer(env, run.config)
        template = jax.eval_shape(trainer.init, as_arrays(run.hparams), params, jax.random.key(0))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    except (TypeError, KeyError) as error:  # arguments of the environment of another type than `train` writes
        raise ValueError(f"{file} is damaged ({error!r}): {_MEND}") from None
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # of this machine, not the one that trained
    return run, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), template)


def lock(path: Path) -> IO[bytes]:
    """Keep other processes from training in the folder of `path` until this one ends, however that comes about, or the
    file is closed.
    """
    file = path.open("r+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"a process trains in {str(path.parent)!r} already: wait for it, or stop it") from None
    except OSError:
        pass  # a file system without locks
    return file


@contextlib.contextmanager
def _writing(path: Path, mend: str) -> Iterator[None]:
    """Errors of the file system as errors of use that say what to do."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"run folder {str(path)!r} cannot be written ({reason(error)}): {mend}") from None
