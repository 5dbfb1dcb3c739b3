"""Whole files or none, in the place of regular files alone, and bounded reading."""

import os
import pty
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.robustness.corrupt_files import example_policy
from benchmarks.robustness.outputs import fates
from mec_jax import files
from mec_jax.files import (
    check_choice,
    check_count,
    check_file,
    check_folder,
    read_bytes,
    read_text,
    shown,
    whole_file,
    write_text,
)
from mec_jax.policy import Policy, load_policy, save_policy
from mec_jax.profiles import load_profile
from tests.errors import error_of


@pytest.fixture
def terminal() -> Iterator[str]:
    """A device that nothing depends on."""
    controller, worker = pty.openpty()
    yield os.ttyname(worker)
    os.close(controller)
    os.close(worker)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return example_policy(tmp_path_factory.mktemp("example") / "policy.npz")


def save(path: Path, policy: Policy) -> None:
    save_policy(path, policy.arrays, policy.metadata)


ODD_PLACES: dict[str, tuple[Callable[[Path, str], Any], str]] = {
    "folder": (lambda path, _: path.mkdir(), "it is a folder; name a regular file"),
    "pipe": (lambda path, _: os.mkfifo(path), "it is a pipe; name a regular file"),
    "socket": (lambda path, _: os.mknod(path, stat.S_IFSOCK | 0o600), "it is a socket; name a regular file"),
    "device": (lambda path, terminal: path.symlink_to(terminal), "it is a link to '/dev/pts/"),
    "link": (lambda path, _: path.symlink_to("mine"), "it is a link to 'mine'; name that, or another file"),
    "dangling link": (lambda path, _: path.symlink_to("nowhere"), "it is a link to 'nowhere'"),
    "looping link": (lambda path, _: path.symlink_to(path.name), "it is a link to "),
}


@pytest.mark.parametrize("what", ODD_PLACES)
def test_only_a_regular_file_is_replaced(what: str, tmp_path: Path, terminal: str, policy: Policy) -> None:
    make, said = ODD_PLACES[what]
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "out.npz"
    make(path, terminal)
    before = path.lstat()
    for write in (check_file, lambda path: write_text(path, "new"), lambda path: save(path, policy)):
        assert f"{str(path)!r}: {said}" in error_of(write, path)
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["mine", "out.npz"]
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_hard_link_is_replaced_and_its_other_name_keeps_what_it_held(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    os.link(tmp_path / "mine", tmp_path / "also")
    write_text(tmp_path / "also", "new")
    assert [(tmp_path / name).read_text() for name in ("mine", "also")] == ["mine", "new"]


def test_a_replaced_file_keeps_its_permissions_and_a_new_one_has_the_umask(tmp_path: Path) -> None:
    (private := tmp_path / "private").write_text("old")
    private.chmod(0o600)
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "new")
        with whole_file(private) as unfinished:
            assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600, "others could read what is being written"
            unfinished.write_text("new")
    finally:
        os.umask(before)
    assert private.read_text() == "new"
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("private", "new")] == [0o600, 0o640]


def test_what_is_write_protected_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "file").write_text("old")
    monkeypatch.setattr(os, "access", lambda at, mode: at != path)  # as it is for all but root
    with pytest.raises(ValueError, match="write-protected; name another file"):
        write_text(path, "new")
    monkeypatch.setattr(os, "access", lambda at, mode: at != tmp_path)
    with pytest.raises(ValueError, match="existing folder that you may write to"):
        check_file(tmp_path / "new")
    with pytest.raises(ValueError, match="you may not write to"):
        check_folder(tmp_path / "new" / "newer")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["policy.onnx", "policy", "policy.npz.txt", ".npz"])
def test_a_policy_has_the_ending_of_what_is_written(name: str, tmp_path: Path, policy: Policy) -> None:
    with pytest.raises(ValueError, match=r"can't write policy file .*: its name must end in \.npz"):
        save(tmp_path / name, policy)
    assert check_file(tmp_path / "A.NPZ", endings=(".npz",)) == tmp_path / "A.NPZ"
    assert not list(tmp_path.iterdir())


def test_a_folder_is_there_or_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "linked").symlink_to(tmp_path)
    for name in ("new", "no/where", "linked/new", "", "linked"):
        assert check_folder(tmp_path / name) == tmp_path / name
    assert check_folder("no/where") == Path("no/where")
    for name, said in (
        ("file", "is a file; name another folder"),
        ("file/new", "Not a directory"),
        ("dangling/new", "is a link to nothing"),
        ("x" * 300, "File name too long"),
        ("a\0b", "null"),
    ):
        with pytest.raises(ValueError) as error:
            check_folder(tmp_path / name, "--out")
        assert str(error.value).startswith(f"can't write to --out {str(tmp_path / name)!r}: ") and said in str(
            error.value
        )


READERS: tuple[Callable[[str], Any], ...] = (lambda path: read_bytes(path, 1000), load_policy, load_profile)


@pytest.mark.parametrize("read", READERS, ids=["bytes", "policy", "profile"])
def test_devices_pipes_and_sockets_are_not_read(read: Callable[[str], Any], tmp_path: Path) -> None:
    """Reading /dev/zero ends when memory does, reading a pipe that no one writes to never."""
    os.mkfifo(tmp_path / "pipe")
    os.mknod(tmp_path / "socket", stat.S_IFSOCK | 0o600)
    (tmp_path / "zero").symlink_to("/dev/zero")
    for path, said in (("/dev/zero", "a device"), ("zero", "a device"), ("pipe", "a pipe"), ("socket", "a socket")):
        with pytest.raises((OSError, ValueError), match=f"it is {said}, no regular file"):
            read(str(tmp_path / path))
    with pytest.raises((OSError, ValueError), match="Is a directory"):
        read(str(tmp_path))


@pytest.mark.parametrize("read", READERS, ids=["bytes", "policy", "profile"])
def test_what_is_read_has_a_limit(read: Callable[[str], Any], tmp_path: Path) -> None:
    (path := tmp_path / "large").write_text("")
    os.truncate(path, 2**40)  # a hole: it takes no room
    with pytest.raises((OSError, ValueError), match=r"it has 1099511627776 bytes, at most \d+ are read"):
        read(str(path))


def test_a_text_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "é\r\n")
    (tmp_path / "link").symlink_to("text")
    assert read_text(tmp_path / "link", 4) == "é\r\n"
    with pytest.raises(OSError, match="it has 4 bytes, at most 3 are read"):
        read_text(tmp_path / "text", 3)
    (tmp_path / "text").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(tmp_path / "text", 4)


def test_counts_are_whole_and_fit_an_index() -> None:
    values: tuple[Any, ...] = (0, -1, 2**31, 10**400, 10**5000, True, 1.0, "3", None, [3], float("nan"))
    for value in values:
        message = error_of(check_count, "num_ues", value)
        assert message.startswith("num_ues is ")
        assert message.endswith(": it must be a whole number of at least 1 and at most 2147483647")
    assert check_count("num_ues", files.MAX_COUNT) == 2**31 - 1
    assert check_count("seed", 2**32 - 1, 0, 2**32 - 1) == 2**32 - 1


def test_choices_are_names() -> None:
    others: tuple[Any, ...] = ([], {}, None, 3, "shred")
    for value in others:
        message = error_of(check_choice, "medium", value, ("private", "shared"))
        assert message.startswith("unknown medium ") and message.endswith("choose from private, shared")
    assert check_choice("medium", "shared", ("private", "shared")) == "shared"


def test_what_is_shown_is_short() -> None:
    values: tuple[Any, ...] = ("x" * 5000, 10**400, 10**5000, [[[[[[[[[[]]]]]]]]]], {str(i): i for i in range(999)})
    assert all(len(shown(value)) < 100 for value in values)
    assert shown("resnet18") == "'resnet18'"


def test_the_campaign_of_outputs_sees_a_device_that_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sound").mkdir()
    (tmp_path / "careless").mkdir()
    sound = fates(60, 3, tmp_path / "sound")
    monkeypatch.setattr(files, "check_file", lambda path, *_: Path(path))
    careless = fates(60, 3, tmp_path / "careless")
    assert all(end in ("refused with one clear line", "taken: a valid input") or "effect" in end for end in sound)
    assert any("where there was" in end for end in careless)
