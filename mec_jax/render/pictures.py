"""Files that pictures and animations go to."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mec_jax.files import check_file, reason, whole_file

PICTURES = (".png", ".pdf", ".svg")
"""Suffixes of pictures; `.gif` is an animation."""


def check_path(path: str | os.PathLike[str]) -> Path:
    """The path, if a picture or animation can be written there: to be known before a long computation.

    Raises:
        ValueError: If not.
    """
    return check_file(path, "picture", (*PICTURES, ".gif"))


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
        raise ValueError(f"can't write picture {str(path)!r}: {reason(error)}") from None
