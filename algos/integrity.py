"""Digests: what was written can be told from what a disk, a network or an editor made of it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SEAL = "sha256"
"""The field of a sealed JSON file that holds the digest of the others."""


def digest(fields: Mapping[str, Any]) -> str:
    """sha256 of what JSON fields say, however they are laid out in the file; arrays of one number are numbers."""
    return hashlib.sha256(json.dumps(fields, sort_keys=True, default=float).encode()).hexdigest()


def sealed(fields: Mapping[str, Any]) -> str:
    """JSON text of the fields, and of their digest as the last one."""
    return json.dumps({**fields, SEAL: digest(fields)}, indent=2, default=float) + "\n"


def unsealed(text: str) -> tuple[dict[str, Any], bool]:
    """The fields of a JSON text, and whether it was sealed: older files are not.

    Raises:
        ValueError: If they are not what was sealed.
        RecursionError: If it nests too deep.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError(f"it holds a {type(fields).__name__}, not fields by name")
    seal = fields.pop(SEAL, None)
    if seal is not None and seal != digest(fields):
        raise ValueError("its sha256 digest differs: it was changed after it was written")
    return fields, seal is not None


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of each file under a folder, by its path there.

    Raises:
        OSError: If one cannot be read.
    """
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
