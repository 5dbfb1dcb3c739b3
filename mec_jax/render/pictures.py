"""Files that pictures and animations go to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mec_jax.files import reason, whole_file

PICTURES = (".png", ".pdf", ".svg")
"""Suffixes of pictures; `.gif` is an animation."""


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path, if a picture or animation can be written there: to be known before a long computation.

    Raises:
        ValueError: If not.
    """
    path = Path(path)
    known = (*PICTURES, ".gif")
    if path.suffix.lower() not in known:
        raise ValueError(f"picture {str(path)!r}: its name must end in {', '.join(known[:-1])} or {known[-1]}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"picture {str(path)!r} cannot be written: name a file in a folder that exists and is yours")
    return path


@contextmanager
def whole_picture(path: Path) -> Iterator[Path]:
    """A file to write beside the path, put in its place if all goes well and removed if not.

    Raises:
        ValueError: If it cannot be written.
    """
    try:
        with whole_file(path) as unfinished:
            yield unfinished
    except OSError as error:
        raise ValueError(f"picture {str(path)!r} cannot be written ({reason(error)})") from None
