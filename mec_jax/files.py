"""The small things that every room needs: whole files or none, names that were nearly right, counts."""

import contextlib
import difflib
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "abandon_files",
    "check_count",
    "did_you_mean",
    "reason",
    "remove_unfinished",
    "whole_file",
    "write_bytes",
    "write_text",
]


_UNFINISHED = ".mec_jax-"
_being_written: set[Path] = set()


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file to write beside `path`, put in its place at once when all went well, and removed when not.

    Whoever looks sees the old file or the whole new one, also after a power failure.

    Args:
        path: The file to replace. Its suffix is that of the file to write, as some writers go by it.

    Raises:
        OSError: As the file system has it; `path` is as it was.
    """
    path = Path(path)
    unfinished = path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}{path.suffix}"
    _being_written.add(unfinished)
    try:
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


def reason(error: BaseException) -> str:
    """What an error says, in one short line."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`did you mean 'x'? ` if a known name is like the word, else nothing."""
    names = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]!r}? " if close else ""


def check_count(name: str, value: Any, least: int = 1) -> int:
    """The value, if it is a whole number of at least `least`; truth values are none.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}: it must be a whole number of at least {least}")
    return value
