"""What a DNN costs a user device (UE), by the point where it is cut: bits to send, seconds, watts.

A profile is a JSON file, bundled under `data/` or the user's own:

    {
      "schema": 1,
      "name": "resnet18",
      "description": "what was cut, and where",
      "source": {"time_and_power": "who measured, on what", "compression_rate": "..."},
      "input_bits": 1204224,
      "cuts": [
        {"name": "layer2.0", "feature_shape": [128, 28, 28], "bits_per_element": 32, "compression_rate": 64,
         "front_time_s": 0.01647, "front_power_w": 2.6328}
      ],
      "local": {"time_s": 0.045887, "power_w": 2.1454},
      "observation_time_s": 0.045887
    }

"source" says where each table comes from, under keys of the writer's choice. A cut sends
C * H * W * bits_per_element / compression_rate bit, rounded. "cuts" may be empty: the network then runs as a
whole, at the edge or at the UE. "observation_time_s" may be left out and is then the local time.
"""

import difflib
import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

__all__ = ["Profile", "bundled_profiles", "load_profile"]

_SCHEMA = 1

_DATA = resources.files(__name__) / "data"
_FILE_FIELDS = ("schema", "name", "description", "source", "input_bits", "cuts", "local")
_FILE_OPTIONAL_FIELDS = ("observation_time_s",)
_CUT_FIELDS = (
    "name",
    "feature_shape",
    "bits_per_element",
    "compression_rate",
    "front_time_s",
    "front_power_w",
)
_LOCAL_FIELDS = ("time_s", "power_w")
_MAX_DIGITS = 18  # of an integer in a file: no cost needs more, and a float holds it


@dataclass(frozen=True)
class Profile:
    """Costs of one network, one entry a point: 0 sends the raw input, the last runs wholly at the UE.

    Between them lie the cuts, in the file's order. "Front" is what the UE computes: the network up to the cut
    and the encoder of the feature.
    """

    name: str
    bits: tuple[float, ...]  # [point] bit to send; 0 at the last point and nowhere else
    front_time: tuple[float, ...]  # [point] s; 0 at point 0
    front_power: tuple[float, ...]  # [point] W; 0 at point 0
    observation_time: float  # s; what an observation divides the time left by
    source: tuple[tuple[str, str], ...]  # (table, where its numbers come from)

    @property
    def num_points(self) -> int:
        """Number of points: the raw input, the cuts, local."""
        return len(self.bits)


def bundled_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with the package, sorted."""
    return tuple(sorted(entry.name.removesuffix(".json") for entry in _DATA.iterdir() if entry.name.endswith(".json")))


def load_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """Loads a bundled profile by name, or a user's JSON file.

    Args:
      name_or_path: a name from `bundled_profiles()`, which wins over a file called alike; or a path:
        a `Path`, or a string that ends in `.json` or is an existing file.

    Raises:
      ValueError: no such profile, or a file that is not a valid profile; the message says what to change.
    """
    names = bundled_profiles()
    if name_or_path in names:
        return _parse(f"bundled profile {name_or_path!r}", (_DATA / f"{name_or_path}.json").read_bytes())
    path = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and not path.endswith(".json") and not os.path.isfile(path):
        raise ValueError(
            f"unknown profile {path!r}{_did_you_mean(path, names)}; use one of {', '.join(names)}, "
            "or the path of a JSON file"
        )
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"can't read profile file {path!r}: {reason}; give the path of a readable JSON file, "
            f"or one of the names {', '.join(names)}"
        ) from None
    return _parse(f"profile file {path!r}", data)


def _parse(origin: str, data: bytes) -> Profile:
    try:
        return _profile(_decode(data))
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


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
        raise ValueError("nested too deeply; a profile needs three levels") from None


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"field {_show(twice)} stands twice in one object; keep one")
    return fields


def _refuse_constant(constant: str) -> object:
    raise ValueError(f"{constant} is no number of a profile; write a finite one")


def _parse_int(text: str) -> int:
    if len(text.lstrip("-")) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text.lstrip('-'))} digits; write at most {_MAX_DIGITS}")
    return int(text)


def _profile(content: object) -> Profile:
    if not isinstance(content, dict):
        raise ValueError(f"holds {_show(content)}; a profile is one JSON object with fields {', '.join(_FILE_FIELDS)}")
    # First, so that a file of another version is called that and not misspelt.
    version = content.get("schema", _SCHEMA)
    if isinstance(version, bool) or version != _SCHEMA:
        raise ValueError(f'schema version {_show(version)} is not known; write "schema": {_SCHEMA} and its fields')
    fields = _fields(content, "", _FILE_FIELDS, _FILE_OPTIONAL_FIELDS)

    name = _text(fields, "name")
    _text(fields, "description")
    source = _source(fields["source"])
    bits = [_number(fields, "input_bits", positive=True)]
    times, powers = [0.0], [0.0]
    cuts = fields["cuts"]
    if not isinstance(cuts, list):
        raise ValueError(f"field 'cuts' must be a list of objects, not {_show(cuts)}")
    for index, item in enumerate(cuts):
        where = f"cuts[{index}]."
        cut = _fields(item, where, _CUT_FIELDS)
        _text(cut, "name", where)
        bits.append(_feature_bits(cut, where))
        times.append(_number(cut, "front_time_s", where))
        powers.append(_number(cut, "front_power_w", where))
    local = _fields(fields["local"], "local.", _LOCAL_FIELDS)
    bits.append(0.0)
    times.append(_number(local, "time_s", "local.", positive=True))
    powers.append(_number(local, "power_w", "local."))

    observation_time = times[-1]
    if "observation_time_s" in fields:
        observation_time = _number(fields, "observation_time_s", positive=True)
    return Profile(name, tuple(bits), tuple(times), tuple(powers), observation_time, source)


def _feature_bits(cut: dict[str, object], where: str) -> float:
    shape = cut["feature_shape"]
    if not (isinstance(shape, list) and len(shape) == 3 and all(_is_count(size) for size in shape)):
        raise ValueError(f"field '{where}feature_shape' must be three whole numbers [C, H, W] > 0, not {_show(shape)}")
    size = math.prod(shape) * _number(cut, "bits_per_element", where, positive=True)
    bits = size / _number(cut, "compression_rate", where, positive=True)
    if not math.isfinite(bits) or round(bits) < 1:
        raise ValueError(f"{where[:-1]} would send {bits:g} bit; mend its feature_shape or compression_rate")
    return float(round(bits))


def _source(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"field 'source' must be an object that names the source of each table, not {_show(value)}")
    return tuple((table, _text(value, table, "source.")) for table in value)


def _fields(value: object, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, object]:
    """Checks that `value` is an object with these fields and no others."""
    if not isinstance(value, dict):
        raise ValueError(f"field '{where[:-1]}' must be an object with {', '.join(required)}, not {_show(value)}")
    known = (*required, *optional)
    for key in value:
        if key not in known:
            raise ValueError(
                f"unknown field {_show(where + key)}{_did_you_mean(key, known)}; known are {', '.join(known)}"
            )
    for key in required:
        if key not in value:
            raise ValueError(f"field '{where}{key}' is missing; add it")
    return value


def _text(fields: dict[str, object], key: str, where: str = "") -> str:
    value = fields[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field {_show(where + key)} must be a text, not {_show(value)}")
    return value


def _number(fields: dict[str, object], key: str, where: str = "", *, positive: bool = False) -> float:
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"field '{where}{key}' must be a number, not {_show(value)}")
    # A JSON number such as 1e999 is read as infinity.
    if not math.isfinite(value) or value < 0 or (positive and value == 0):
        bound = "> 0" if positive else ">= 0"
        raise ValueError(f"field '{where}{key}' must be finite and {bound}, not {_show(value)}")
    return float(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _did_you_mean(word: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(word.lower(), known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _show(value: object) -> str:
    """A short repr, in JSON's words for true, false and null."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)
