"""How the JSON files of this package are read: what is wrong in one is named, with its place and the mend.

Every file is one object with "schema" (1), "name", "description" and "source", which says where each table of numbers
comes from under keys of the writer's choice; what else it holds is its kind's own.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import resources

from mec_jax.files import did_you_mean, read_bytes, reason, shown

__all__ = ["MAX_BYTES", "Fields", "Reader", "feature_bits"]

MAX_BYTES = 2**22
"""Of a file; the largest that comes with the package has 4 KiB."""

_SCHEMA = 1
_EVERY_FILE = ("schema", "name", "description", "source")
_DATA = resources.files("mec_jax.profiles") / "data"
_MAX_DIGITS = 18  # of an integer in a file: no cost needs more, and a float holds it


@dataclass(frozen=True)
class Fields:
    """An object of a file, whose fields have the right names, and where in the file it stands.

    Each method gives one field's value, or a ValueError that names the field and what it must be.
    """

    values: Mapping[str, object]
    place: str = ""  # as in "cuts[0]"; the file's own object has none

    @classmethod
    def of(cls, value: object, place: str, required: Collection[str], optional: Collection[str] = ()) -> "Fields":
        """An object of a file.

        Raises:
            ValueError: If the value is no object, lacks a required field, or has an unknown one.
        """
        if not isinstance(value, dict):
            raise ValueError(f"field {_show(place)} must be an object with {', '.join(required)}, not {_show(value)}")
        fields = cls(value, place)
        known = (*required, *optional)
        for key in value:
            if key not in known:
                hint = did_you_mean(key, known)
                raise ValueError(f"unknown field {fields._named(key)}, {hint}known are {', '.join(known)}")
        for key in required:
            if key not in value:
                raise ValueError(f"field {fields._named(key)} is missing; add it")
        return fields

    def __contains__(self, key: str) -> bool:
        """Whether an optional field is there."""
        return key in self.values

    def text(self, key: str) -> str:
        """A text that is not blank."""
        value = self.values[key]
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"field {self._named(key)} must be a text, not {_show(value)}")
        return value

    def truth(self, key: str) -> bool:
        """True or false."""
        value = self.values[key]
        if not isinstance(value, bool):
            raise ValueError(f"field {self._named(key)} must be true or false, not {_show(value)}")
        return value

    def number(self, key: str, *, positive: bool = False) -> float:
        """A finite number >= 0, or > 0."""
        return _number(self.values[key], self._named(key), positive)

    def count(self, key: str) -> int:
        """A whole number > 0, also written as 8.0."""
        value = self.number(key, positive=True)
        if value != int(value):
            raise ValueError(f"field {self._named(key)} must be a whole number, not {_show(self.values[key])}")
        return int(value)

    def numbers(self, key: str, length: int, meaning: str, *, positive: bool = False) -> tuple[float, ...]:
        """A list of so many finite numbers, each >= 0, or > 0.

        Args:
            key: Of the field.
            length: Of the list.
            meaning: What the list holds, as in "numbers, one a layer".
            positive: Whether 0 is refused.

        Raises:
            ValueError: If the field is something else.
        """
        value = self.values[key]
        if not isinstance(value, list) or len(value) != length:
            raise ValueError(f"field {self._named(key)} must be a list of {length} {meaning}, not {_show(value)}")
        return tuple(_number(item, self._named(f"{key}[{index}]"), positive) for index, item in enumerate(value))

    def nested(self, key: str, required: Collection[str]) -> "Fields":
        """An object with these fields and no others."""
        return Fields.of(self.values[key], self._place(key), required)

    def objects(self, key: str, required: Collection[str], *, least: int = 1) -> tuple["Fields", ...]:
        """A list of at least `least` objects (0 or 1), each with these fields and no others."""
        value = self.values[key]
        if not isinstance(value, list) or len(value) < least:
            expected = "at least one object" if least else "objects"
            raise ValueError(f"field {self._named(key)} must be a list of {expected}, not {_show(value)}")
        return tuple(Fields.of(item, self._place(f"{key}[{index}]"), required) for index, item in enumerate(value))

    def source(self) -> tuple[tuple[str, str], ...]:
        """(Table, where its numbers come from) for each table that the field "source" names."""
        value = self.values["source"]
        if not isinstance(value, dict) or not value:
            raise ValueError(
                f"field 'source' must be an object that names the source of each table, not {_show(value)}"
            )
        tables = Fields(value, "source")
        return tuple((table, tables.text(table)) for table in value)

    def _place(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _named(self, key: str) -> str:
        return _show(self._place(key))


@dataclass(frozen=True)
class Reader[Content]:
    """Reads one kind of file: those that come with the package by their names, the user's by their paths."""

    kind: str  # as in "neuron table", for errors
    fields: tuple[str, ...]  # that each such file has, besides those of every file
    content: Callable[[Fields], Content]  # what a file's fields make
    optional: tuple[str, ...] = ()  # fields that may be left out
    folder: str | None = None  # of the files that come with the package, below data/; None: there are none

    def bundled(self) -> tuple[str, ...]:
        """Names of the files that come with the package, sorted."""
        if self.folder is None:
            return ()
        names = (entry.name for entry in (_DATA / self.folder).iterdir())
        return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))

    def read(self, name_or_path: str | os.PathLike[str], others: Collection[str] = ()) -> Content:
        """Reads a file of this kind.

        Args:
            name_or_path: A name from `bundled()`, which wins over a file called alike; or the path of a JSON file.
            others: Names that the caller knows besides, for the error.

        Raises:
            ValueError: If there is no such name or file, or the file is malformed; the message says what to change.
        """
        names = self.bundled()
        mend = f"give the path of a readable JSON file, or one of the names {', '.join((*others, *names))}"
        if not isinstance(name_or_path, str | os.PathLike):
            raise ValueError(f"{self.kind} is {shown(name_or_path)}: {mend}")
        path = os.fspath(name_or_path)
        try:
            if self.folder is not None and name_or_path in names:
                data = (_DATA / self.folder / f"{path}.json").read_bytes()
            else:
                data = read_bytes(path, MAX_BYTES)
        except OSError as error:
            hint = did_you_mean(path, (*others, *names))
            raise ValueError(f"can't read {self.kind} {path!r}: {reason(error)}; {hint}{mend}") from None
        try:
            return self._parse(_decode(data))
        except ValueError as error:
            raise ValueError(f"{self.kind} {path!r}: {error}") from None

    def _parse(self, content: object) -> Content:
        required = (*_EVERY_FILE, *self.fields)
        if not isinstance(content, dict):
            raise ValueError(
                f"holds {_show(content)}; a {self.kind} is one JSON object with fields {', '.join(required)}"
            )
        # First, so that a file of another version is called that and not misspelt.
        version = content.get("schema", _SCHEMA)
        if isinstance(version, bool) or version != _SCHEMA:
            raise ValueError(f'schema version {_show(version)} is not known; write "schema": {_SCHEMA} and its fields')
        fields = Fields.of(content, "", required, self.optional)
        fields.text("description")
        return self.content(fields)


def feature_bits(cut: Fields) -> float:
    """Bit to send for the feature at a cut: C * H * W * bits_per_element / compression_rate, rounded.

    Args:
        cut: Has "feature_shape", "bits_per_element" and "compression_rate".

    Raises:
        ValueError: If one of them is malformed, or less than one bit or no finite number of them would be sent.
    """
    shape = cut.values["feature_shape"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(_is_count(size) for size in shape)):
        raise ValueError(
            f"field '{cut.place}.feature_shape' must be three whole numbers [C, H, W] > 0, not {_show(shape)}"
        )
    size = math.prod(shape) * cut.number("bits_per_element", positive=True)
    bits = size / cut.number("compression_rate", positive=True)
    if not math.isfinite(bits) or round(bits) < 1:
        raise ValueError(f"{cut.place} would send {bits:g} bit; mend its feature_shape or compression_rate")
    return float(round(bits))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _number(value: object, name: str, positive: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"field {name} must be a number, not {_show(value)}")
    # A JSON number such as 1e999 is read as infinity.
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        bound = "> 0" if positive else ">= 0"
        raise ValueError(f"field {name} must be finite and {bound}, not {_show(value)}")
    return float(value)


def _decode(data: bytes) -> object:
    try:
        return json.loads(
            data.decode("utf-8-sig"),
            object_pairs_hook=_unique_fields,
            parse_constant=_refuse_constant,
            parse_int=_parse_int,
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save the file as UTF-8 JSON text") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"malformed JSON at line {error.lineno}, column {error.colno}: {error.msg}; mend it there"
        ) from None
    except RecursionError:
        raise ValueError("nested too deeply; three levels are enough") from None


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"field {_show(twice)} stands twice in one object; keep one")
    return fields


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no number of JSON; write a finite one")


def _parse_int(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text.lstrip('-'))} digits; write at most {_MAX_DIGITS}")
    return int(text)


def _show(value: object) -> str:
    """A short repr, in JSON's words for true, false and null."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return shown(value)
