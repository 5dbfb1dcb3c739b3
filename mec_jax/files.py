"""The small things that every room needs: whole files or none, bounded reading, names nearly right, counts."""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import json
import os
import reprlib
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "MAX_COUNT",
    "abandon_files",
    "check_choice",
    "check_count",
    "check_file",
    "check_folder",
    "content_sha256",
    "did_you_mean",
    "read_bytes",
    "read_text",
    "reason",
    "remove_unfinished",
    "shown",
    "whole_file",
    "write_bytes",
    "write_text",
]

MAX_COUNT = 2**31 - 1
"""Of anything: indices of arrays are int32."""

_UNFINISHED = ".mec_jax-"
_being_written: set[Path] = set()
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def check_file(path: str | os.PathLike[str], what: str = "file", endings: Collection[str] = ()) -> Path:
    """The path, if a whole file can be put there: to be known before long work.

    There may be nothing yet, or a regular file that may be written to. A link is not followed, as it would be replaced
    and not what it points to; folders, devices, pipes and sockets stay what they are.

    Args:
        path: The file.
        what: What errors call it.
        endings: That its name may have, in small or capital letters; any if there are none.

    Raises:
        ValueError: If not.
    """
    path = Path(path)
    start = f"can't write {what} {os.fspath(path)!r}"
    if endings and path.suffix.lower() not in endings:
        raise ValueError(f"{start}: its name must end in {' or '.join(endings)}")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
            raise ValueError(f"{start}: give a file name in an existing folder that you may write to") from None
        return path
    except (OSError, ValueError) as error:  # ValueError: a null byte
        raise ValueError(f"{start}: {reason(error)}; give a file name in an existing folder") from None
    if stat.S_ISLNK(mode):
        raise ValueError(f"{start}: it is a link to {os.readlink(path)!r}; name that, or another file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{start}: it is {_kind(mode)}; name a regular file, or one that is not there yet")
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{start}: it or its folder is write-protected; name another file")
    return path


def check_folder(path: str | os.PathLike[str], what: str = "folder") -> Path:
    """The path, if there is a folder to write to or one can be made: to be known before long work.

    A link to a folder is one, as nothing replaces it.

    Args:
        path: The folder.
        what: What errors call it.

    Raises:
        ValueError: If not.
    """
    path = Path(path)
    start = f"can't write to {what} {os.fspath(path)!r}"
    for folder in (path, *path.parents):  # the last of them is there
        named = "it" if folder == path else repr(str(folder))
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            if folder.is_symlink():
                raise ValueError(f"{start}: {named} is a link to nothing; name another folder") from None
            continue
        except (OSError, ValueError) as error:  # ValueError: a null byte
            raise ValueError(f"{start}: {reason(error)}; name another folder") from None
        if not stat.S_ISDIR(mode):
            raise ValueError(f"{start}: {named} is {_kind(mode)}; name another folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(f"{start}: you may not write to {named}; name another folder")
        break
    return path


def _kind(mode: int) -> str:
    """What a file is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "a file")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write beside `path`, put in its place at once when all went well, and removed when not.

    Whoever looks sees the old file or the whole new one, also after a power failure. A new file has the permissions
    that the umask leaves, one that replaces another has that one's, from its first byte on.

    Args:
        path: The file to replace. Its suffix is that of the file to write, as some writers go by it.

    Raises:
        ValueError: If it can't be put there, see `check_file`.
        OSError: As the file system has it; `path` is as it was.
    """
    path = check_file(path)
    unfinished = path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}{path.suffix}"
    _being_written.add(unfinished)
    try:
        os.close(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        if path.exists() and path.stat().st_mode != unfinished.stat().st_mode:
            unfinished.chmod(path.stat().st_mode & 0o777)
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
        _being_written.discard(unfinished)


def abandon_files() -> None:
    """Remove what this process is writing, as it is going to end without another word."""
    for unfinished in tuple(_being_written):
        unfinished.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder that no other process writes to."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        left.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a whole file or nothing. Errors as of `whole_file`."""
    with whole_file(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole UTF-8 text, line ends as they are, or nothing. Errors as of `whole_file`."""
    write_bytes(path, text.encode())


def read_bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """What a regular file holds: reading it neither waits nor takes more memory than said.

    Args:
        path: The file, or a link to it.
        most: Bytes that it may have.

    Raises:
        OSError: If it can't be read, is a folder, a device, a pipe or a socket, or has more bytes.
    """
    try:
        about = os.stat(path)
    except ValueError as error:  # a null byte, or what is no text
        raise OSError(errno.EINVAL, reason(error), os.fspath(path)) from None
    _check_readable(path, about, most)  # to open a device or a pipe may have effects of its own
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        about = os.fstat(descriptor)  # it may be another by now
        _check_readable(path, about, most)
        return file.read(about.st_size)


def _check_readable(path: str | os.PathLike[str], about: os.stat_result, most: int) -> None:
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, f"it is {_kind(about.st_mode)}, no regular file", os.fspath(path))
    if about.st_size > most:
        raise OSError(errno.EFBIG, f"it has {about.st_size} bytes, at most {most} are read", os.fspath(path))


def read_text(path: str | os.PathLike[str], most: int) -> str:
    """The UTF-8 text of a regular file of at most so many bytes. Errors as of `read_bytes`, and if it is no UTF-8."""
    return read_bytes(path, most).decode()


def reason(error: BaseException) -> str:
    """What an error says, in one short line."""
    if isinstance(error, ValueError) and "embedded null" in str(error):  # each Python words it in its own way
        return "a null byte in its name"
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def shown(value: object) -> str:
    """A short repr in one line, also of what is long, nested or has thousands of digits."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python writes no more digits
        return f"an {type(value).__name__} of thousands of digits"


def content_sha256(content: Mapping[str, Any]) -> str:
    """sha256 of what a profile says, as hexadecimal digits: of its JSON without "schema", "description" and "source",
    fields sorted, no spaces, and numbers as Python writes floats.
    """
    said = {name: value for name, value in content.items() if name not in ("schema", "description", "source")}
    floats = json.loads(json.dumps(said), parse_int=float)
    return hashlib.sha256(json.dumps(floats, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`did you mean 'x'? ` if a known name is like the word, else nothing."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]!r}? " if close else ""


def check_choice(name: str, value: Any, known: Collection[str]) -> str:
    """The value, if it is one of the known names.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(value, str) or value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise ValueError(f"unknown {name} {shown(value)}: {hint}choose from {', '.join(known)}")
    return value


def check_count(name: str, value: Any, least: int = 1, most: int = MAX_COUNT) -> int:
    """The value, if it is a whole number from `least` to `most`; truth values are none.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is {shown(value)}: it must be a whole number of at least {least} and at most {most}")
    return value
