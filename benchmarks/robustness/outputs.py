"""Hostile places to write to: what is there is replaced by a whole file, or it is refused and stays as it is.

    python -m benchmarks.robustness outputs

At the place there is nothing, or a file, a folder, a link, a pipe, a socket or a device; its folder is there or not,
may be written to or not; its name has many endings, or is none. What writes is each function that commands write with,
and one that an error ends in the middle.
"""

import os
import pty
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from algos.cli.export import Export
from benchmarks.harness.campaign import REFUSED, TAKEN, WHOLE, fate
from benchmarks.robustness.corrupt_files import example_policy, same_policy
from mec_jax.files import check_folder, whole_file, write_text
from mec_jax.policy import Policy, load_policy, save_policy
from mec_jax.render.pictures import check_path, whole_picture

TEXT = "whole\n"
NAMES = (
    *(
        "a.npz",
        "a.png",
        "a.onnx",
        "A.NPZ",
        "a.SVG",
        "a",
        ".npz",
        "a b.npz",
        "a\nb.npz",
        "é.npz",
        "-a.npz",
        "\udce9.npz",
    ),
    "x" * 251 + ".npz",
)
ODD = ("", ".", "..", "../", "a\0b.npz", "x" * 252 + ".npz", "x" * 300, "no/where.npz", "file/a.npz")
MODES = (0o600, 0o644, 0o640, 0o444, 0o777)
REPLACED = ("nothing", "file", "hard link")
"""All that a file may take the place of."""


def furnish(folder: Path, terminal: str, rng: np.random.Generator) -> tuple[Path, str]:
    """Put something at a place in an empty folder; the place, and what is there."""
    (folder / "file").write_text("mine")
    if rng.random() < 0.2:
        return folder / ODD[int(rng.integers(len(ODD)))], "odd"
    parent = folder / "parent"
    parent.mkdir()
    path = parent / NAMES[int(rng.integers(len(NAMES)))]
    makers: Mapping[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "file": lambda: path.write_text("old"),
        "hard link": lambda: os.link(folder / "file", path),
        "folder": path.mkdir,
        "full folder": lambda: (path / "x").mkdir(parents=True),
        "pipe": lambda: os.mkfifo(path),
        "socket": lambda: os.mknod(path, stat.S_IFSOCK | 0o600),
        "device": lambda: _device(path, terminal),
        "link to a file": lambda: path.symlink_to("../file"),
        "link to a folder": lambda: path.symlink_to(".."),
        "link to nothing": lambda: path.symlink_to("nowhere"),
        "link to itself": lambda: path.symlink_to(path.name),
        "link to a device": lambda: path.symlink_to(terminal),
    }
    what = (*REPLACED, *makers)[int(rng.integers(len(REPLACED) + len(makers)))]
    makers[what]()
    if what in ("file", "hard link"):
        path.chmod(MODES[int(rng.integers(len(MODES)))])
    if rng.random() < 0.1:
        parent.chmod(0o555)
    if rng.random() < 0.1:
        parent.rename(folder / "real")
        parent.symlink_to("real")
    return path, what


def _device(path: Path, terminal: str) -> None:
    """A device like /dev/null, or where only links are allowed to be made one to a terminal."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        path.symlink_to(terminal)


def _text(path: Path) -> bool:
    write_text(path, TEXT)
    return path.read_text() == TEXT


def _picture(path: Path) -> bool:
    with whole_picture(check_path(path)) as unfinished:
        unfinished.write_text(TEXT)
    return path.read_text() == TEXT and path.suffix.lower() in (".png", ".svg")


def _policy(path: Path, policy: Policy) -> bool:
    save_policy(path, policy.arrays, policy.metadata)
    return same_policy(load_policy(path), policy) and path.suffix.lower() == ".npz"


def _export(path: Path) -> bool:
    """`mec-jax export` of a run that is not there: it is not even looked for, or nothing is written."""
    Export(path.parent / "no run", path).run()
    return False


def _folder(path: Path) -> bool:
    check_folder(path).mkdir(parents=True, exist_ok=True)
    (path / "report.md").write_text(TEXT)
    return True


class _CutShortError(Exception):
    """What ends a writer in the middle."""


def _cut_short(path: Path) -> bool:
    try:
        with whole_file(path) as unfinished:
            unfinished.write_text(TEXT[:3])
            raise _CutShortError
    except _CutShortError:
        return True


def contents(folder: Path) -> dict[Path, tuple[Any, ...]]:
    """What is in a folder: kinds, permissions and devices, and what files hold and links point to."""
    found: dict[Path, tuple[Any, ...]] = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        held = path.read_bytes() if stat.S_ISREG(about.st_mode) else path.readlink() if path.is_symlink() else b""
        found[path] = (about.st_mode, about.st_rdev, held)
    return found


class _Place:
    """A place, and what was there before it was written to."""

    def __init__(self, folder: Path, terminal: str, rng: np.random.Generator) -> None:
        self.folder = folder
        self.path, self.what = furnish(folder, terminal, rng)
        self.before = contents(folder)
        self.free = self.what in REPLACED and os.access(self.path.parent, os.W_OK)
        self.free = self.free and (self.what == "nothing" or os.access(self.path, os.W_OK))

    def unchanged(self, end: str) -> str:
        """That end, if all is as it was."""
        return end if contents(self.folder) == self.before else f"not {end}: something changed at {self.what}"

    def written(self, right: bool) -> str:
        """`TAKEN` if a whole file is there, may be, and has the right permissions, and all else is the same."""
        after, place = contents(self.folder), self.path.parent.resolve() / self.path.name
        others = [{at: held for at, held in found.items() if at != place} for found in (self.before, after)]
        if not right or not self.free or others[0] != others[1]:
            return f"written to {self.path.name!r}, where there was {self.what}"
        mode = stat.S_IMODE(after[place][0])
        expected = stat.S_IMODE(self.before[place][0]) if place in self.before else 0o644
        return TAKEN if mode == expected else f"permissions {mode:o} of {self.what}, not {expected:o}"

    def filled(self, right: bool) -> str:
        """`TAKEN` if there is a folder with a report, and all else is the same."""
        after = contents(self.folder)
        kept = all(after.get(at) == held for at, held in self.before.items())
        there = right and self.what in ("nothing", "folder", "full folder", "link to a folder", "odd")
        return TAKEN if kept and there else f"a folder in the place of {self.what}"


def fates(count: int, seed: int, folder: Path) -> Counter[str]:
    """What becomes of places that are written to."""
    rng = np.random.default_rng(seed)
    policy = example_policy(folder / "policy.npz")
    writers: tuple[tuple[Callable[[Path], bool], Callable[[_Place, bool], str]], ...] = (
        (_text, _Place.written),
        (_picture, _Place.written),
        (lambda path: _policy(path, policy), _Place.written),
        (_export, _Place.written),
        (_folder, _Place.filled),
        (_cut_short, lambda place, _: place.unchanged(WHOLE)),
    )
    found: Counter[str] = Counter()
    controller, worker = pty.openpty()
    umask = os.umask(0o022)
    try:
        for index in range(count):
            (folder / "at").mkdir()
            place = _Place(folder / "at", os.ttyname(worker), rng)
            write, verdict = writers[index % len(writers)]
            named = "" if write is _export else repr(str(place.path))
            ended = fate(lambda: write(place.path), lambda right: verdict(place, right), named)  # noqa: B023
            if ended == REFUSED:
                ended = place.unchanged(REFUSED) if write is not _text or not place.free else "refused without a reason"
            found[ended] += 1
            for parent in (folder / "at").rglob("*"):
                if parent.is_dir():
                    parent.chmod(0o755)
            shutil.rmtree(folder / "at")
    finally:
        os.umask(umask)
        os.close(controller)
        os.close(worker)
    return found
