"""Results on disk, a line each, in the order in which they came.

A line has the digest of what it says. One that a kill cut off, or a disk spoiled, is left out with a warning: that run
is run again.
"""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from algos.integrity import SEAL, digest, unsealed
from algos.sweep.scoring import Result
from mec_jax.files import read_bytes, reason, write_bytes

__all__ = ["Journal", "Key", "Record", "line_of", "record_of"]

MAX_BYTES = 2**31
"""Of a journal."""

_log = logging.getLogger(__name__)


class Key(NamedTuple):
    """Which run of a sweep."""

    trial: int  # the choice; -1: the preset
    problem: int
    seed: int


class Record(NamedTuple):
    """A run and what it came to."""

    key: Key
    choice: dict[str, Any]  # values by name
    result: Result


class Journal:
    """The records of a sweep.

    Args:
        path: The file; it need not be there yet.

    Attributes:
        records: By key, in order.
        choices: By trial.

    Raises:
        OSError: If it can't be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[Key, Record] = {}
        self.choices: dict[int, dict[str, Any]] = {}
        if not path.exists():
            return
        lines = read_bytes(path, MAX_BYTES).splitlines(keepends=True)
        kept = []
        for number, line in enumerate(lines, 1):
            try:
                record = record_of(line.decode())
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                if number < len(lines) or line.endswith(b"\n"):
                    _log.warning("%s", f"line {number} of {path} is damaged ({reason(error)}): its run is run again")
                continue
            self._note(record)
            kept.append(line)
        if len(kept) < len(lines):
            write_bytes(path, b"".join(kept))

    def add(self, records: Iterable[Record]) -> None:
        """Write records to the end, and to the disk.

        Raises:
            OSError: If they can't be written.
        """
        new = list(records)
        with self.path.open("ab") as file:
            file.write("".join(map(line_of, new)).encode())
            file.flush()
            os.fsync(file.fileno())
        for record in new:
            self._note(record)

    def _note(self, record: Record) -> None:
        self.records[record.key] = record
        self.choices[record.key.trial] = record.choice


def line_of(record: Record) -> str:
    """A record with its digest."""
    fields = {**record.key._asdict(), "choice": record.choice, "result": record.result._asdict()}
    return json.dumps(fields | {SEAL: digest(fields)}) + "\n"


def record_of(text: str) -> Record:
    """The record of a line.

    Raises:
        ValueError: If it is not what was written.
        TypeError: If its result has other fields.
        KeyError: If it lacks a field.
        RecursionError: If it nests too deep.
    """
    fields, is_sealed = unsealed(text)
    if not is_sealed or not text.endswith("\n"):
        raise ValueError("it is cut off")
    result = Result(**fields["result"])
    result = result._replace(curve=tuple((frames, mean) for frames, mean in result.curve))
    choice = {name: tuple(value) if isinstance(value, list) else value for name, value in fields["choice"].items()}
    return Record(Key(fields["trial"], fields["problem"], fields["seed"]), choice, result)
