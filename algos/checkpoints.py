"""Checkpoints on disk, each with the digests of its files and of what else its run rests on."""

import errno
import json
import logging
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree

from algos.hosts import is_key, plain, typed
from algos.integrity import file_digests, sealed, unsealed
from mec_jax.files import reason, write_text

MANIFEST = "manifest.json"
_ITEM = "default"  # what orbax's CheckpointManager calls a state that is alone; it wrote the older checkpoints

# Of a run on several processes the first alone saves and restores: orbax would wait for the others.
_ALONE = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})

# Orbax raises its errors, but also logs each of them, with tracebacks of its threads.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Manifest(NamedTuple):
    """What stands beside the state in a checkpoint's folder."""

    update: int  # number of updates done
    config: str  # digest of the run's config.json
    row: str  # what the chunk adds to metrics.csv: a line, and before the first one the header
    size: int  # byte of metrics.csv, this row included
    table: str  # sha256 of these
    files: dict[str, str]  # sha256 of each file, by its path in the folder


def checkpoints(folder: Path) -> list[Path]:
    """Folders of the checkpoints, newest first."""
    found = [path for path in folder.glob("[0-9]*") if re.fullmatch(r"0|[1-9]\d*", path.name, re.ASCII)]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def has_manifest(checkpoint: Path) -> bool:
    """Whether it has one at all: older checkpoints have none."""
    return (checkpoint / MANIFEST).exists()


def verify(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint that is whole: all that was written is there, and nothing else.

    Raises:
        ValueError: If it is not; says what is wrong.
    """
    try:
        text = (checkpoint / MANIFEST).read_bytes().decode()
        fields, _ = unsealed(text)
        manifest = Manifest(**fields)
        found = file_digests(checkpoint)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{MANIFEST}: {reason(error)}") from None
    if text != sealed(fields):
        raise ValueError(f"{MANIFEST}: changed")
    if manifest.update != int(checkpoint.name):
        raise ValueError(f"{MANIFEST}: of another checkpoint")
    del found[MANIFEST]
    for name in sorted(found.keys() | manifest.files):
        if found.get(name) != manifest.files.get(name):
            fault = "missing" if name not in found else "not of it" if name not in manifest.files else "changed"
            raise ValueError(f"{name}: {fault}")
    return manifest


def _checkpointer() -> ocp.Checkpointer:
    options = ocp.CompositeOptions(multiprocessing_options=_ALONE)
    handler = ocp.CompositeCheckpointHandler(composite_options=options)
    return ocp.Checkpointer(handler, multiprocessing_options=_ALONE)


def save(folder: Path, manifest: Manifest, state: PyTree) -> None:
    """Write a checkpoint aside, with the digests of its files, and rename it when all of it is on the disk.

    Args:
        folder: Of all checkpoints.
        manifest: All but the files.
        state: What to keep.

    Raises:
        OSError: If it cannot be written.
    """
    unfinished, whole = folder.absolute() / f"{manifest.update}.unfinished", folder / str(manifest.update)
    try:
        if jax.process_count() > 1:  # then orbax takes no arrays of one process's devices
            state = plain(state)
        with _checkpointer() as checkpointer:
            checkpointer.save(unfinished, args=ocp.args.Composite(**{_ITEM: ocp.args.StandardSave(state)}), force=True)
        for path in unfinished.rglob("*"):
            if path.is_file():
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
        write_text(unfinished / MANIFEST, sealed(manifest._replace(files=file_digests(unfinished))._asdict()))
    except Exception as error:
        _remove_when_written(unfinished)
        # Tensorstore puts what the disk says into the text of an error of its own.
        code = re.search(r"os_error_code='(\d+)'", str(error))
        raise OSError(errno.EIO, os.strerror(int(code[1])) if code else reason(error)) from None
    if whole.exists():  # damaged, so that the run came to this update again
        shutil.rmtree(whole)
    unfinished.rename(whole)


def _remove_when_written(unfinished: Path) -> None:
    """Remove what a failed save left, of whose parts orbax's threads may still write others: for a second, then it is
    left to whoever opens the run next.
    """
    for _ in range(100):
        remains = [*unfinished.parent.glob(f"{unfinished.name}*")]
        for path in remains:
            shutil.rmtree(path, ignore_errors=True)
        if not remains:
            return
        time.sleep(0.01)


def remove_old(newest: Path) -> None:
    """Of the checkpoints before this one, remove all but one."""
    before = [path for path in checkpoints(newest.parent) if int(path.name) < int(newest.name)]
    for path in before[1:]:
        shutil.rmtree(path)


def remove_unfinished_checkpoints(folder: Path) -> None:
    """Remove what killed processes left, in a folder that no other process writes to."""
    for path in folder.glob("*"):
        if re.search(r"\.unfinished|\.orbax-checkpoint-tmp$", path.name):
            shutil.rmtree(path)


def restore(checkpoint: Path, template: PyTree) -> Any:
    """The state in a checkpoint.

    Args:
        checkpoint: Its folder.
        template: Shapes, types and devices of the state.

    Raises:
        ValueError: If it holds another state, or cannot be read.
    """
    try:
        _check_shapes(checkpoint / _ITEM, template)
        args = ocp.args.Composite(**{_ITEM: ocp.args.StandardRestore(template)})
        with _checkpointer() as checkpointer:
            return typed(template, checkpointer.restore(checkpoint.absolute(), args=args)[_ITEM])
    except Exception as error:  # orbax and tensorstore raise many kinds
        raise ValueError(
            f"the checkpoint {str(checkpoint)!r} is damaged or of another version ({reason(error)}): "
            "copy the run folder again, or train again"
        ) from None


def _check_shapes(folder: Path, template: PyTree) -> None:
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
    template = jax.tree.map(lambda x: jax.eval_shape(jax.random.key_data, x) if is_key(x) else x, template)
    for path, leaf in jax.tree_util.tree_leaves_with_path(template):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if found.get(name) != leaf.shape:
            raise ValueError(f"{name} has shape {found.get(name)}, by the configuration {leaf.shape}")
