"""Damaged run folders: no other state than one that was written, and no damage that nobody hears of.

    python -m benchmarks.robustness run_folders

A whole folder is damaged as disks, people and sync programs do it: bytes of a file as in `corrupt_files`; files lost,
exchanged, renamed or replaced by others; checkpoints lost, renamed or copied; rows of the table lost, doubled or
exchanged; other values in the configuration or in a checkpoint's manifest. Then it is read as `train --resume` or
`evaluate` does, up to the point where all is checked, and of a hundred inputs two are read to the end, where states are
compared bit for bit. Three ends are good. It is refused, naming what is damaged. That is named, and the checkpoint
before it is taken, which counts as refused, too. The newest checkpoint is taken, and no byte differs that the state and
the table are made of.
"""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from algos import runs
from algos.algorithms import algorithm
from benchmarks.harness.campaign import REFUSED, WHOLE, fate
from benchmarks.robustness.corrupt_files import damaged, damaged_json

TO_THE_END = 100
"""Of so many inputs two, one for each way of reading, are read to the end: that takes a second."""

type Files = Mapping[str, bytes]


class Example(NamedTuple):
    """A run folder that is whole."""

    path: Path
    files: Files  # by path in the folder
    states: Mapping[int, Files]  # by update, the bytes of each array


def files_of(folder: Path) -> dict[str, bytes]:
    """Content by path in the folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arrays_of(state: Any) -> dict[str, bytes]:
    """Bytes of each array of a state."""
    leaves = jax.tree_util.tree_leaves_with_path(state._replace(key=jax.random.key_data(state.key)))
    return {jax.tree_util.keystr(name): np.asarray(leaf).tobytes() for name, leaf in leaves}


def example(path: Path) -> Example:
    """A folder as a run of three chunks leaves it. Nothing was learned: the arrays are random numbers."""
    from algos.export import export_policy
    from algos.mahppo import Config, HParams

    small = Config(num_frames=96, num_envs=4, rollout=8, updates_per_chunk=1, trunk=(16,), head=8, critic=(16,))
    static = {"num_ues": 2, "num_channels": 2, "profile": "resnet18"}
    run = runs.RunConfig("mahppo", "MultiUEOffloading-v0", static, {"beta": 0.3}, "fast", 3, small, HParams())
    env, params = run.make_env()
    learner = algorithm(run.algorithm)
    init = jax.jit(learner.make_trainer(env, run.config).init)
    folder, states = runs.RunFolder(path, run), {}
    for update in (1, 2, 3):
        state = init(runs.as_arrays(run.hparams), params, jax.random.key(update))._replace(update=np.int32(update))
        states[update] = arrays_of(state)
        folder.save(update, state, 32 * update, {"evaluation/episode_return": -1.5 / update, "training/kl": np.nan})
    folder.close()
    export_policy(path / "policy.npz", run, learner.learned(state), 96, score={})
    for name in ("comparison.json", "curve.png"):
        (path / name).write_bytes(np.random.default_rng(0).bytes(3000))
    return Example(path, files_of(path), states)


def damage(path: Path, files: Files, rng: np.random.Generator) -> str:
    """Damage a folder; the path of what was damaged in it."""
    one, other = (str(name) for name in rng.choice(sorted(files), 2, replace=False))
    match int(rng.integers(10)):
        case 0:
            flip(path / one, rng)
        case 1 | 2:
            (path / one).write_bytes(damaged(files[one], rng))
        case 3:
            (path / one).unlink()
        case 4:
            (path / one).write_bytes(files[other])
            if rng.random() < 0.5:
                (path / other).write_bytes(files[one])
                return f"{one} {other}"
        case 5:
            (path / one).rename(path / f"{one}~")
        case 6:
            return lose_checkpoints(path / runs.CHECKPOINTS, rng)
        case 7:
            one = runs.METRICS
            (path / one).write_bytes(other_rows(files[one], rng))
        case 8:
            one = runs.CONFIG
            (path / one).write_bytes(damaged_json(files[one], rng))
        case 9:
            one = f"{runs.CHECKPOINTS}/{rng.integers(2, 4)}/manifest.json"
            (path / one).write_bytes(damaged_json(files[one], rng))
    return one


def flip(file: Path, rng: np.random.Generator) -> None:
    """Flip one bit of a file that is not empty."""
    content = bytearray(file.read_bytes())
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    file.write_bytes(content)


def lose_checkpoints(folder: Path, rng: np.random.Generator) -> str:
    """Something happens to whole checkpoints."""
    older, newer = folder / "2", folder / "3"
    match int(rng.integers(6)):
        case 0:
            shutil.rmtree(folder)
        case 1:
            shutil.rmtree(older)
            shutil.rmtree(newer)
        case 2:
            shutil.rmtree(newer)
        case 3:
            shutil.rmtree(older)
        case 4:
            older.rename(folder / "4")
        case 5:
            shutil.copytree(newer, folder / "5")
    return runs.CHECKPOINTS


def other_rows(table: bytes, rng: np.random.Generator) -> bytes:
    """A table of other rows: lost, doubled, exchanged, a column of another name."""
    lines = table.splitlines(keepends=True)
    line, other = (int(i) for i in rng.integers(len(lines), size=2))
    match int(rng.integers(4)):
        case 0:
            del lines[line]
        case 1:
            lines.insert(line, lines[other])
        case 2:
            lines[line], lines[other] = lines[other], lines[line]
        case 3:
            lines[0] = lines[0].replace(b"episode_return", b"return")
    return b"".join(lines)


def verdict_of(found: runs.Verified, rows: bool, damaged_path: str, whole: Example, path: Path) -> str:
    """What becomes of a folder of which something is taken."""
    named, checkpoint = "; ".join(found.notes), found.checkpoint
    if checkpoint is None:
        return "begins anew, though there were checkpoints"
    prefix = f"{runs.CHECKPOINTS}/{checkpoint.name}/"
    written = {name: content for name, content in whole.files.items() if name.startswith(prefix)}
    if not written or {f"{prefix}{name}": content for name, content in files_of(checkpoint).items()} != written:
        return f"takes a checkpoint with {damaged_path} damaged"
    if found.config != _fields(whole.files[runs.CONFIG]):
        return "takes another configuration"
    chunks = int(checkpoint.name)
    table = b"".join(whole.files[runs.METRICS].splitlines(keepends=True)[: 1 + chunks])
    if rows and found.table != table:
        return "takes other rows"
    if not rows and not files_of(path).get(runs.METRICS, b"").startswith(table) and runs.METRICS not in named:
        return "reads a curve of other rows"
    if chunks < 3 and not named:
        return f"takes an older checkpoint in silence, {damaged_path} being damaged"
    return REFUSED if named else WHOLE


def _fields(config: bytes) -> dict[str, Any]:
    return {name: value for name, value in json.loads(config).items() if name != "sha256"}


def fate_of(path: Path, whole: Example, damaged_path: str, rows: bool, to_the_end: bool) -> str:
    """What becomes of a folder in which something was damaged."""

    def read() -> tuple[runs.Verified, Files | None]:
        try:
            found = runs.verified(path, rows)
        except ValueError as error:
            if not any(str(path / name.split("/")[0]) in str(error) for name in damaged_path.split()):
                raise KeyError(f"names no {damaged_path}") from error
            raise
        if not to_the_end:
            return found, None
        if not rows:
            return found, arrays_of(runs.load_run(path)[1])
        folder = runs.RunFolder(path)
        folder.close()
        return found, arrays_of(folder.state)

    def verdict(done: tuple[runs.Verified, Files | None]) -> str:
        found, state = done
        if state is not None and state not in whole.states.values():
            return f"another state, {damaged_path} being damaged"
        return verdict_of(found, rows, damaged_path, whole, path)

    return fate(read, verdict)


def fates_of(
    whole: Example,
    count: int,
    seed: int,
    folder: Path,
    hurt: Callable[[Path, Files, np.random.Generator], str] = damage,
) -> Counter[str]:
    """What becomes of copies of a folder in which something is damaged."""
    rng = np.random.default_rng(seed)
    fates: Counter[str] = Counter()
    path = folder / "damaged"
    for index in range(count):
        shutil.copytree(whole.path, path)
        damaged_path = hurt(path, whole.files, rng)
        fates[fate_of(path, whole, damaged_path, bool(index % 2), index % TO_THE_END < 2)] += 1
        shutil.rmtree(path)
    return fates


def run_folder_fates(count: int, seed: int, folder: Path) -> Counter[str]:
    """What becomes of damaged run folders."""
    log = logging.getLogger(runs.__name__)
    before = log.level
    log.setLevel(logging.ERROR)  # the notes are read, not printed
    try:
        return fates_of(example(folder / "whole"), count, seed, folder)
    finally:
        log.setLevel(before)
