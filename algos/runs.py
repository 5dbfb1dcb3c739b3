"""A run's folder: config, metrics and checkpoints."""

import csv
import dataclasses
import fcntl
import itertools
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree
from tensorboardX import SummaryWriter

from algos.algorithms import algorithm, algorithms, make_env
from mec_jax.contracts import Problem
from mec_jax.files import did_you_mean, reason, remove_unfinished, write_text
from mec_jax.ranges import Range, check

CONFIG = "config.json"
METRICS = "metrics.csv"
_SEED = Range("seed", int, 0, 2**32 - 1)


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run; `config.json` holds it.

    Raises:
        ValueError: If the seed or a hyper-parameter is out of its range.
    """

    algorithm: str
    env_id: str
    env_static: dict[str, Any]  # arguments of `mec_jax.make`
    env_params: dict[str, Any]  # fields of the environment's Params that differ from the defaults
    preset: str
    seed: int
    config: Any  # the algorithm's Config
    hparams: Any  # the algorithm's HParams

    def __post_init__(self) -> None:
        _SEED.check(self.seed)
        check(self.config)
        check(self.hparams)
        for name, value in dataclasses.asdict(self.hparams).items():
            if np.shape(value):
                raise ValueError(f"{name} has shape {np.shape(value)}: a run takes one number, a sweep is a vmap")

    def make_env(self) -> tuple[Problem, Any]:
        """Problem and parameters of the run."""
        return make_env(self.env_id, self.env_static, self.env_params)


class RunFolder:
    """A run's folder while it trains; one process at a time.

    It can be killed at any moment: files and checkpoints are written aside and renamed into place when they are whole,
    `metrics.csv` grows by a row before each checkpoint, and rows later than the newest checkpoint are dropped.

    Args:
        path: The folder. That of a new run must not exist or be empty.
        run: A new run; None goes on with the one that is there.

    Attributes:
        run: What is run.
        state: The newest checkpoint when the folder was opened; None if there was none.
        rows: Of `metrics.csv`, one a chunk.

    Raises:
        ValueError: If the folder is in use or cannot be written, or if there is no run to go on with or it is damaged.
    """

    def __init__(self, path: Path, run: RunConfig | None = None) -> None:
        self.path = path
        self.state: Any = None
        self.rows: list[dict[str, float]] = []
        self._was_there = path.exists()
        try:
            if run is not None:
                if path.exists() and any(path.iterdir()):
                    raise ValueError(f"run folder {str(path)!r} is not empty: name another with --out")
                path.mkdir(parents=True, exist_ok=True)
                write_text(path / CONFIG, json.dumps(dataclasses.asdict(run), indent=2, default=float) + "\n")
                self.run = run
                self._lock = _lock(path / CONFIG)
            else:
                self.run, template = _load_config(path)
                self._lock = _lock(path / CONFIG)
                try:
                    remove_unfinished(path)
                    self.state = _newest_checkpoint(path, template)
                    self._keep_rows()
                except BaseException:
                    self._lock.close()
                    raise
            # A kill takes events that were not flushed. TensorBoard hides what it has from step 0 on and gets all anew.
            self._board = SummaryWriter(str(path / "tensorboard"), purge_step=0)
            self._csv_file = (path / METRICS).open("a", newline="")
            self._checkpoints = _checkpoints(path)
        except OSError as error:
            mend = "name another with --out" if run is not None else "make it writable, or go on with a copy"
            raise ValueError(f"run folder {str(path)!r} cannot be written ({error.strerror}): {mend}") from None
        for row in self.rows:
            self._show(row)

    def _keep_rows(self) -> None:
        """Take the rows of `metrics.csv` that belong to `state`, and drop the others."""
        file, config = self.path / METRICS, self.run.config
        chunks = 0 if self.state is None else int(self.state.update) // config.updates_per_chunk
        lines: list[str] = []
        try:
            if chunks > 0:
                with file.open(newline="") as table:
                    lines = list(itertools.islice(table, 1 + chunks))
            self.rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]
            frames = config.updates_per_chunk * frames_per_update(self.run)
            if [row["frames"] for row in self.rows] != [frames * (i + 1) for i in range(chunks)]:
                raise ValueError(f"not one row a chunk up to the checkpoint at frame {frames * chunks}")
        except (FileNotFoundError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise ValueError(f"{file} is damaged ({error}): train again, or copy the folder again") from None
        write_text(file, "".join(lines))

    def _show(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            # A chunk in which no episode ended has no return.
            if name not in ("wall_time", "frames") and math.isfinite(value):
                self._board.add_scalar(name, value, int(row["frames"]), row["wall_time"])

    def log(self, frames: int, metrics: Mapping[str, float]) -> None:
        """Append one row to `metrics.csv` and to the TensorBoard events."""
        row = {"wall_time": time.time(), "frames": frames, **metrics}
        table = csv.DictWriter(self._csv_file, list(row))
        if not self.rows:
            table.writeheader()
        table.writerow(row)
        self._csv_file.flush()
        os.fsync(self._csv_file.fileno())  # no checkpoint without its row
        self.rows.append(row)
        self._show(row)

    def save(self, update: int, state: PyTree) -> None:
        """Write a checkpoint in the background; the two newest are kept."""
        self._checkpoints.save(update, args=ocp.args.StandardSave(state))

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._checkpoints.wait_until_finished()
        self._checkpoints.close()
        self._csv_file.close()
        self._board.close()
        self._lock.close()

    def remove(self) -> None:
        """Remove what it wrote, after `close`; and the folder, if it was not there before and nothing else is in it."""
        for folder in ("checkpoints", "tensorboard"):
            shutil.rmtree(self.path / folder, ignore_errors=True)
        for file in (METRICS, CONFIG):
            (self.path / file).unlink(missing_ok=True)
        if not self._was_there and not any(self.path.iterdir()):
            self.path.rmdir()


def frames_per_update(run: RunConfig) -> int:
    """Environment frames of an update of the run."""
    env, _ = run.make_env()
    trainer = algorithm(run.algorithm).make_trainer(env, run.config)
    return int(trainer.num_frames // (trainer.num_chunks * run.config.updates_per_chunk))


def load_run(path: Path) -> tuple[RunConfig, Any]:
    """Configuration and newest checkpoint of a run folder.

    Raises:
        ValueError: If it is no run folder, or its files are damaged.
    """
    run, template = _load_config(path)
    state = _newest_checkpoint(path, template)
    if state is None:
        raise ValueError(f"{str(path)!r} holds no checkpoint: train for longer")
    return run, state


def as_arrays[T](hparams: T) -> T:
    """Hyper-parameters as arrays, so that other values of them never compile anew.

    Raises:
        ValueError: If one is out of its range; traced ones can't be checked.
    """
    check(hparams)
    with np.errstate(over="ignore"):  # of what may be infinite
        return jax.tree.map(lambda x: jnp.asarray(x, float), hparams)


def read_config(path: Path) -> RunConfig:
    """The run of a folder.

    Raises:
        ValueError: If it is no run folder, or its configuration is damaged or out of range.
    """
    file = path / CONFIG
    try:
        fields = json.loads(file.read_text())
        name = fields["algorithm"]
        run = _parse(fields) if name in algorithms() else None
    except OSError as error:
        raise ValueError(f"{str(path)!r} is no run folder ({file}: {error.strerror}): name one of `train`'s") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = reason(error) if type(error) is ValueError else repr(error)
        raise ValueError(f"{file} is damaged ({why}): train again, or copy the folder again") from None
    if run is None:
        known = f"only {', '.join(algorithms())} are"
        raise ValueError(f"{file} names an algorithm {name!r} that is not known: {known}")
    return run


def _load_config(path: Path) -> tuple[RunConfig, PyTree]:
    """The run of a folder, and the shapes of its checkpoints."""
    file, run = path / CONFIG, read_config(path)
    try:
        env, params = run.make_env()
        trainer = algorithm(run.algorithm).make_trainer(env, run.config)
        template = jax.eval_shape(trainer.init, as_arrays(run.hparams), params, jax.random.key(0))
    except (TypeError, KeyError) as error:  # arguments of the environment of another type than `train` writes
        raise ValueError(f"{file} is damaged ({error!r}): train again, or copy the folder again") from None
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # of this machine, not the one that trained
    return run, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), template)


def _parse(fields: dict[str, Any]) -> RunConfig:
    learner = algorithm(fields["algorithm"])
    kinds = {"config": learner.config, "hparams": learner.hparams}
    return RunConfig(**{**fields, **{part: _made(part, kind, fields[part]) for part, kind in kinds.items()}})


def _made(part: str, kind: Any, values: dict[str, Any]) -> Any:
    """A `Config` or `HParams` of what JSON holds of it. A field that it does not name may be younger than the file: its
    default holds, and a warning says so.
    """
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - known):
        hint = did_you_mean(unknown[0], known)
        raise ValueError(f"{part} has no field {unknown[0]!r}: {hint}choose from {', '.join(known)}")
    for name in (name for name in known if name not in values):
        warnings.warn(f"{CONFIG} does not say {part}.{name}: {known[name]!r}, its default, is taken", stacklevel=2)
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _lock(path: Path) -> IO[bytes]:
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


def _checkpoints(path: Path) -> ocp.CheckpointManager:
    return ocp.CheckpointManager((path / "checkpoints").absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))


def _newest_checkpoint(path: Path, template: PyTree) -> Any:
    """Orbax renames a folder when all in it is whole. What a kill leaves under another name is never read, and is
    replaced when the run comes to that update again; an old checkpoint that was being removed is removed later.
    """
    if not (path / "checkpoints").is_dir():  # the manager would make it
        return None
    checkpoints = _checkpoints(path)
    try:
        newest = checkpoints.latest_step()
        if newest is None:
            return None
        _check(path / "checkpoints" / str(newest) / "default", template)
        return checkpoints.restore(newest, args=ocp.args.StandardRestore(template))
    except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
        raise ValueError(
            f"the checkpoint in {str(path)!r} is damaged or of another version ({reason(error)}): "
            "remove its newest folder under checkpoints/ to use the one before, or train again"
        ) from None
    finally:
        checkpoints.close()


def _check(folder: Path, template: PyTree) -> None:
    """Read all arrays of a checkpoint, one by one. Orbax reads them at once: if several are damaged or of another
    shape, it raises the error of one, and those of the others land on stderr.
    """
    store = tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.absolute()}/"}}
    ).result()
    values = {key.decode(): store.read(key).result().value for key in store.list().result()}
    header = "/.zarray"
    found = {
        name.removesuffix(header): tuple(json.loads(value)["shape"])
        for name, value in values.items()
        if name.endswith(header)
    }
    template = template._replace(key=jax.eval_shape(jax.random.key_data, template.key))
    for path, leaf in jax.tree_util.tree_leaves_with_path(template):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if found.get(name) != leaf.shape:
            raise ValueError(f"{name} has shape {found.get(name)}, by the configuration {leaf.shape}")
