"""What an exported policy's file holds, what is wrong with one that holds something else, and files of schema 1 and 2.

The file is an uncompressed `.npz` of three kinds of entries: the networks' float32 arrays by path, `LAYER/kernel`
[net, inputs, outputs] and `LAYER/bias` [net, outputs]; `metadata`, JSON text as bytes; and `sha256`, the digest of both
(`digest`). The metadata:

    {
      "schema": 3, "kind": "mec_jax policy",
      "env_id": "MultiUEOffloading-v0",
      "env_static": {"num_ues": 3, "num_channels": 2},
      "env_params": {"beta": 0.47, "power_max": [1.0, 0.5, 1.0]},
      "action": "OffloadAction",
      "observation": {
        "size": 12,
        "blocks": [
          {"of": "UE", "repeats": 3, "fields": [
            {"name": "tasks_left", "unit": "tasks", "formula": "tasks left / tasks given", "count": 1, "transform":
             {"function": "linear", "offset": 0.0, "times": [], "scale": 1.0, "over": ["tasks_given"], "where": ""}},
            "..."], "beside": [{"name": "tasks_given", "unit": "tasks"}]}
        ],
        "normalisation": "as the environment returns it"
      },
      "cuts": {"head": "cut", "profiles": [
        {"name": "resnet18", "sha256": "ae92f8cd0dbf1796065d7eda37f4e711bee73c34f51e715a0fbe2a9b0832fc0c",
         "points": ["input", "maxpool", "layer2.0", "layer3.0", "layer4.0", "local"]}
      ]},
      "network": {
        "stacked": 3, "activation": "relu", "trunk": ["trunk_0", "trunk_1"],
        "heads": [
          {"name": "cut", "kind": "categorical", "layers": ["cut_0", "cut_1"], "shape": [3], "size": 6},
          {"name": "power", "kind": "gaussian", "layers": ["power_0", "power_1"], "shape": [3], "size": 1,
           "mean": "sigmoid", "std": "softplus", "std_min": 1e-6, "scale": [1.0, 0.5, 1.0], "offset": 0.0,
           "low": 1e-10, "high": [1.0, 0.5, 1.0]}
        ]
      },
      "provenance": {"algorithm": "...", "seed": 0}, "score": {}
    }

The observation is its blocks one after the other. In a block the fields stand one after the other, each with `count`
entries, and all of that `repeats` times, once for each of what "of" names (nothing, where they stand once). A field's
"formula" says in words how the quantity "name", in "unit", stands in the observation, and "transform" as a rule,
`mec_jax.transforms.Transform`, or null where there is none: function((x - offset) * times / scale / over), 0 where
"where" is 0. "times", "over" and "where" name quantities, those "beside" the fields included, of the same block or of
one that stands once; or, as "env_params.NAME", the first two a parameter that is one number or one a repetition, and
> 0. Names are given once. "normalisation" may instead be
{"mean": [size], "std": [size], "clip": c}: (observation - mean) / std, then clipped to -c..c, or not at all without
"clip". "provenance", "score" and "env_static" hold what their writer likes; "env_params" holds numbers and nested lists
of numbers.

"stacked" networks of the same layers stand side by side, and each reads the whole observation. The activation, "relu"
or "tanh", follows each trunk layer and stands between the layers of a head; none follows a head's last layer. The
action has one field for each head, in that order, of the head's "shape": [], [n] or [n, k]. Of several networks, each
puts out the entries at its own index of the first axis, whose length is their number. A last layer puts out `size`
logits for each of its entries, if the head is categorical; else the raw means of all its entries and then their raw
standard deviations:

    mean = f(raw mean) * scale + offset      f is "linear" or "sigmoid"
    std = g(raw std) * scale + std_min       g is "softplus", "sigmoid" or "exp"

What is drawn is clipped to low..high. "scale", "offset", "low" and "high" are one number or of the head's shape. A head
of kind "simplex" is a gaussian one whose action is the softmax of what is drawn, along its last axis.

"cuts" says where the choices of a head cut which network, by the profile that the policy was trained on: one profile,
or one for each entry of the head. "points" has a name for each choice, "sha256" is `mec_jax.files.content_sha256` of
the profile. It is null if no head cuts, and "unknown" in files that were of schema 1 or 2.

A file has at most 128 MiB, 2**14 entries, metadata of 16 MiB, an observation of 2**20 numbers, and 256 each of layers
in the trunk, heads, and layers in a head.

A categorical head of shape [] may have "allowed", an entry of the observation for each choice: the choice may be taken
where that is positive, else its logit is float32's least number. If the network has "per_slot", {"common": c, "slots":
n, "features": f}, the observation is c values and then f for each of n slots; the one network reads the c values and
those of one slot, n times, and its one categorical head puts out one logit for each.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mec_jax.files import reason
from mec_jax.transforms import FUNCTIONS, ONE_HOT, PARAMS

SCHEMA = 3
"""Version of the metadata that is written."""

KIND = "mec_jax policy"
"""What the metadata calls the file."""

AS_RETURNED: Final = "as the environment returns it"
"""Normalisation where the network reads the observation unchanged."""

UNKNOWN: Final = "unknown"
"""Cuts of which the file does not say where they are."""

MAX_METADATA = 2**24
"""Bytes of the metadata: of what is a byte there, Python makes up to 50."""

MAX_ENTRIES = 2**20
"""Of an observation."""

_MAX_PARTS = 256  # layers of the trunk, heads, layers of a head

ACTIVATIONS = ("relu", "tanh")
STDS = ("softplus", "sigmoid", "exp")

_Floats = NDArray[np.float32]
_float32 = functools.partial(np.asarray, dtype=np.float32)


def observation_names(blocks: Iterable[Mapping[str, Any]]) -> list[str]:
    """What each entry of an observation is, from the blocks of its metadata."""
    names = []
    for block in blocks:
        for index in range(block["repeats"]):
            start = f"{block['of']} {index}: " if block["of"] else ""
            for field in block["fields"]:
                ends = [""] if field["count"] == 1 else [f" [{i}]" for i in range(field["count"])]
                names += [f"{start}{field['formula']}{end}" for end in ends]
    return names


def digest(metadata: bytes, arrays: Mapping[str, _Floats]) -> bytes:
    """sha256 of the metadata's bytes and, for each array by sorted path, of its path, shape and bytes."""
    found = hashlib.sha256(metadata)
    for name in sorted(arrays):
        found.update(f"\0{name} {arrays[name].shape}\0".encode() + np.asarray(arrays[name], "<f4").tobytes())
    return found.digest()


action_class = functools.lru_cache(namedtuple)
"""The type of an action, by its name and those of its fields: two policies of one kind have one class."""


def upgrade(metadata: Any) -> Any:
    """Metadata of schema 1 or 2, as JSON gives it, in schema 3; any other as it is. What is malformed stays so.

    Schema 1 had one network for each UE or one for all: the first without shapes, the second with them. Schema 2 knew
    neither transforms nor cuts.
    """
    for schema, upgraded in ((1, _from_1), (2, _from_2)):
        if isinstance(metadata, dict) and type(metadata.get("schema")) is int and metadata["schema"] == schema:
            try:
                metadata = upgraded(metadata)
            except (KeyError, TypeError, AttributeError):
                return metadata
    return metadata


def _from_1(metadata: dict[str, Any]) -> dict[str, Any]:
    seen, network = metadata["observation"], metadata["network"]
    texts, stacked = seen["per_ue"], network["stacked"]
    fields = [{"name": text, "unit": "1", "formula": text, "count": 1} for text in texts]
    block = {"of": "UE" if stacked > 1 else "", "repeats": stacked, "fields": fields}
    heads = [_upgraded_head(head, stacked) for head in network["heads"]]
    static = {_RENAMED.get(name, name): value for name, value in metadata["env_static"].items()}
    observation = {name: value for name, value in seen.items() if name != "per_ue"} | {"blocks": [block]}
    changed = {"observation": observation, "network": {**network, "heads": heads}, "env_static": static}
    return {**metadata, **changed, "schema": 2}


def _from_2(metadata: dict[str, Any]) -> dict[str, Any]:
    seen = metadata["observation"]
    blocks = [
        {**block, "fields": [{**field, "transform": None} for field in block["fields"]], "beside": []}
        for block in seen["blocks"]
    ]
    return {**metadata, "observation": {**seen, "blocks": blocks}, "cuts": UNKNOWN, "schema": 3}


_RENAMED = {"scenario": "conditions"}
"""Arguments of constructors that were called otherwise when files had schema 1."""


def _upgraded_head(head: dict[str, Any], stacked: int) -> dict[str, Any]:
    offset = {} if head["kind"] == "categorical" else {"offset": 0.0}
    return {"shape": [stacked], **offset, **head}


def as_json(metadata: Mapping[str, Any]) -> Any:
    """The metadata as JSON gives it back."""
    try:
        return json.loads(json.dumps(metadata, default=lambda value: value.tolist(), allow_nan=False))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        mend = "put texts, finite numbers, lists and objects in it"
        raise ValueError(f"the metadata can't be written as JSON ({reason(error)}); {mend}") from None


def read_only(name: str, value: ArrayLike) -> _Floats:
    """A copy of an array as the file holds it.

    Raises:
        ValueError: If it is not made of finite real numbers.
    """
    given = np.asarray(value)
    if given.dtype.kind not in "fiuV":  # bfloat16 calls itself V
        raise ValueError(f"array {name!r} is of type {given.dtype}; give real numbers")
    with np.errstate(over="ignore"):
        array = np.array(given, np.float32, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"array {name!r} holds a NaN or infinity; take a policy that has not diverged")
    array.flags.writeable = False
    return array


_Rule = tuple[str, Callable[[Any], bool]]  # what a value from JSON must be, and whether it is


def _list_of(rule: _Rule, least: int = 1, most: int = MAX_ENTRIES) -> _Rule:
    says = f"a list of {least} or more, each {rule[0]}" + f", at most {most}" * (most < MAX_ENTRIES)
    return says, lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(rule[1], value))


def _one_of(*choices: str) -> _Rule:
    return f"one of {', '.join(choices)}", lambda value: value in choices


def _numbers(*shapes: tuple[int, ...], above: float = -np.inf) -> _Rule:
    """Finite float32 numbers in one of these shapes; if none are given, numbers or truth values in equal rows."""

    def holds(value: Any) -> bool:
        try:
            array = np.asarray(value)
        except ValueError:  # ragged, or nested too deeply
            return False
        if array.dtype.kind not in ("fiu" if shapes else "fiub") or (shapes and array.shape not in shapes):
            return False
        with np.errstate(over="ignore"):
            array = _float32(array)  # may become infinite, or 0, by that
        return bool((np.isfinite(array) & (array > above)).all())

    says = " or ".join(
        f"{' x '.join(map(str, shape))} finite numbers" if shape else "a finite number"
        for shape in dict.fromkeys(shapes)
    )
    return (says or "finite numbers in equal rows") + " > 0" * (above == 0), holds


_OBJECT: _Rule = ("an object", lambda value: isinstance(value, dict))
_TEXT: _Rule = ("a text", lambda value: isinstance(value, str) and value.strip() != "")
_NAME: _Rule = ("letters, digits and _", lambda value: _TEXT[1](value) and value.isascii() and value.isidentifier())
_COUNT: _Rule = ("a whole number, 1 to 2**31 - 1", lambda value: type(value) is int and 1 <= value < 2**31)
_ENTRIES: _Rule = ("a whole number, 1 to 2**20", lambda value: type(value) is int and 1 <= value <= MAX_ENTRIES)
_REPEATS: _Rule = ("a whole number, 0 to 2**20", lambda value: type(value) is int and 0 <= value <= MAX_ENTRIES)
_NAMES = _list_of(_NAME, 0, _MAX_PARTS)
_ONE: _Rule = ("1", lambda value: type(value) is int and value == 1)
_NOTHING: _Rule = ("a text", lambda value: isinstance(value, str))
_NORMALISATION: _Rule = (f"'{AS_RETURNED}' or an object", lambda value: value == AS_RETURNED or _OBJECT[1](value))
_NULLABLE: _Rule = ("null or an object", lambda value: value is None or _OBJECT[1](value))
_CUTS: _Rule = (f"null, '{UNKNOWN}' or an object", lambda value: value == UNKNOWN or _NULLABLE[1](value))
_SHA256: _Rule = (
    "64 hexadecimal digits",
    lambda value: isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"),
)
_VERSION = f"{SCHEMA}; export the policy again, or install the mec_jax that wrote it"

_METADATA: dict[str, _Rule] = {
    "kind": (KIND, lambda value: value == KIND),
    "schema": (_VERSION, lambda value: type(value) is int and value == SCHEMA),
    **dict.fromkeys(("env_id", "action"), _TEXT),
    **dict.fromkeys(("env_static", "env_params", "observation", "network", "provenance", "score"), _OBJECT),
    "cuts": _CUTS,
}
_OBSERVATION = {"size": _ENTRIES, "blocks": _list_of(_OBJECT), "normalisation": _NORMALISATION}
_BLOCK = {"of": _NOTHING, "repeats": _REPEATS, "fields": _list_of(_OBJECT), "beside": _list_of(_OBJECT, 0)}
_FIELD = {**dict.fromkeys(("name", "unit", "formula"), _TEXT), "count": _ENTRIES, "transform": _NULLABLE}
_BESIDE = dict.fromkeys(("name", "unit"), _TEXT)
_TRANSFORM = {
    "function": _one_of(*FUNCTIONS),
    "offset": _numbers(()),
    "scale": _numbers((), above=0),
    **dict.fromkeys(("times", "over"), _list_of(_TEXT, 0, 16)),
    "where": _NOTHING,
}
_PROFILE = {"name": _TEXT, "sha256": _SHA256, "points": _list_of(_TEXT)}
_NETWORK = {
    "stacked": _COUNT,
    "activation": _one_of(*ACTIVATIONS),
    "trunk": _NAMES,
    "heads": _list_of(_OBJECT, 1, _MAX_PARTS),
}
_SLOTS = {"common": _COUNT, "slots": _COUNT, "features": _COUNT}
_HEAD = {
    "name": _NAME,
    "kind": _one_of("categorical", "gaussian", "simplex"),
    "layers": _list_of(_NAME, 1, _MAX_PARTS),
    "size": _COUNT,
}


def _check(value: dict[str, Any], rules: Mapping[str, _Rule], where: str = "") -> None:
    """Refuses an object with a field missing, wrong or too many."""
    for name, (says, holds) in rules.items():
        if name not in value or not holds(value[name]):
            given = json.dumps(value[name]) if name in value else "missing"
            raise ValueError(f"field '{where}{name}' is {_short(given)}: it must be {says}")
    if unknown := value.keys() - rules.keys():
        raise ValueError(f"unknown field '{where}{_short(min(unknown))}'; known are {', '.join(rules)}")


def check_metadata(metadata: Any) -> None:
    """Refuse metadata that describe no policy.

    Raises:
        ValueError: If they do not; it says what to change.
    """
    _check({"metadata": metadata}, {"metadata": _OBJECT})
    _check(metadata, _METADATA)
    params, observation, network = (metadata[name] for name in ("env_params", "observation", "network"))
    _check(params, dict.fromkeys(params, _numbers()), "env_params.")
    _check(observation, _OBSERVATION, "observation.")
    _check(network, _NETWORK | ({"per_slot": _OBJECT} if "per_slot" in network else {}), "network.")
    size = observation["size"]
    _check_blocks(observation)
    _check_transforms(observation["blocks"], params)
    if (normalisation := observation["normalisation"]) != AS_RETURNED:
        rules = {"mean": _numbers((size,)), "std": _numbers((size,), above=0), "clip": _numbers((), above=0)}
        _check({"clip": 1} | normalisation, rules, "observation.normalisation.")

    if "per_slot" in network:
        _check_slots(network, size)
    for index, head in enumerate(network["heads"]):
        where = f"network.heads[{index}]."
        rules = _head_rules(head, network["stacked"])
        if "allowed" in head:
            rules["allowed"] = _entries_of(size, head.get("size"))
            if head.get("kind") != "categorical" or head.get("shape") != [] or network["stacked"] != 1:
                raise ValueError(f"'{where}allowed' is for a categorical head of shape []: leave it out")
        _check(head, rules, where)
        if head["kind"] == "categorical":
            continue
        if head["std_min"] < 0 or (_float32(head["low"]) > _float32(head["high"])).any():
            raise ValueError(f"'{where}low' must be at most '{where}high', and '{where}std_min' at least 0")
    try:
        action_class(metadata["action"], tuple(head["name"] for head in network["heads"]))
    except ValueError as error:
        raise ValueError(f"'action' and the heads' names must suit a namedtuple ({error}); choose others") from None
    if isinstance(metadata["cuts"], dict):
        _check_cuts(metadata["cuts"], network["heads"])


def _entries_of(size: int, count: Any) -> _Rule:
    """Entries of an observation of that size, so many."""
    says = f"{count} whole numbers, each below {size}"

    def holds(value: Any) -> bool:
        return isinstance(value, list) and len(value) == count and all(type(x) is int and 0 <= x < size for x in value)

    return says, holds


def _check_slots(network: Mapping[str, Any], size: int) -> None:
    _check(network["per_slot"], _SLOTS, "network.per_slot.")
    common, slots, features = (network["per_slot"][name] for name in ("common", "slots", "features"))
    if size != common + slots * features:
        raise ValueError(f"'observation.size' is {size}: 'network.per_slot' makes it {common + slots * features}")
    (head, *others) = network["heads"]
    if others or head.get("kind") != "categorical" or head.get("shape") != [] or head.get("size") != slots:
        raise ValueError(f"'network.per_slot' needs one head, categorical, of shape [] and size {slots}")


def _check_blocks(observation: Mapping[str, Any]) -> None:
    total = 0  # counted, not listed: a file may claim more entries than there is memory
    for index, block in enumerate(observation["blocks"]):
        where = f"observation.blocks[{index}]."
        _check(block, _BLOCK, where)
        for number, field in enumerate(block["fields"]):
            _check(field, _FIELD, f"{where}fields[{number}].")
            if field["transform"] is not None:
                _check(field["transform"], _TRANSFORM, f"{where}fields[{number}].transform.")
        for number, quantity in enumerate(block["beside"]):
            _check(quantity, _BESIDE, f"{where}beside[{number}].")
        if not block["of"] and block["repeats"] != 1:
            raise ValueError(f"field '{where}of' is empty: say what there are {block['repeats']} of")
        total += block["repeats"] * sum(field["count"] for field in block["fields"])
    if observation["size"] != total:
        raise ValueError(f"field 'observation.size' is {observation['size']}: the blocks make it {total}")


def _check_transforms(blocks: list[dict[str, Any]], params: Mapping[str, Any]) -> None:
    """Refuse transforms that name what is not there or has other axes."""
    alone = {name for block in blocks if not block["of"] for name in _single(block)}
    for index, block in enumerate(blocks):
        known = alone | _single(block)
        shapes = ((), (block["repeats"],)) if block["of"] else ((),)
        positive = _numbers(*shapes, above=0)
        for number, field in enumerate(block["fields"]):
            where = f"observation.blocks[{index}].fields[{number}].transform"
            transform = field["transform"] or {"times": [], "over": [], "where": ""}
            for name in (*transform["times"], *transform["over"]):
                if name.startswith(PARAMS):
                    _check({name: params.get(name[len(PARAMS) :])}, {name: positive}, f"{where} names ")
                elif name not in known:
                    raise ValueError(f"'{where}' names {_short(name)!r}, which is no quantity with one number here")
            if transform["where"] and transform["where"] not in known:
                raise ValueError(f"'{where}.where' is {_short(transform['where'])!r}, which is no quantity here")


def _single(block: Mapping[str, Any]) -> set[str]:
    """Quantities that are one number, or one a repetition."""
    fields = (field for field in block["fields"] if field["count"] == 1 or _function(field) == ONE_HOT)
    return {quantity["name"] for quantity in (*fields, *block["beside"])}


def _function(field: Mapping[str, Any]) -> Any:
    return (field["transform"] or {}).get("function")


def _check_cuts(cuts: dict[str, Any], heads: list[dict[str, Any]]) -> None:
    """Refuse cuts that are not those of one of the heads."""
    _check(cuts, {"head": _TEXT, "profiles": _list_of(_OBJECT)}, "cuts.")
    head = next((head for head in heads if head["name"] == cuts["head"]), None)
    if head is None or head["kind"] != "categorical":
        raise ValueError(f"'cuts.head' is {_short(cuts['head'])!r}, which is no categorical head: name one")
    entries = head["shape"][-1] if head["shape"] else 1
    if len(cuts["profiles"]) not in (1, entries):
        raise ValueError(f"'cuts.profiles' are {len(cuts['profiles'])}: have one, or {entries}, one for each entry")
    for index, profile in enumerate(cuts["profiles"]):
        _check(profile, _PROFILE, f"cuts.profiles[{index}].")
        if len(profile["points"]) != head["size"]:
            size = f"head {head['name']!r} has {head['size']} choices"
            raise ValueError(f"'cuts.profiles[{index}].points' are {len(profile['points'])}: {size}; name each")


def _head_rules(head: Mapping[str, Any], stacked: int) -> dict[str, _Rule]:
    """What the fields of a head must be."""
    rules = {**_HEAD, "shape": _shape(stacked)}
    if head.get("kind") not in ("gaussian", "simplex"):
        return rules
    entries = tuple(head["shape"]) if rules["shape"][1](head.get("shape")) else ()
    rules |= {"size": _ONE, "mean": _one_of("linear", "sigmoid"), "std": _one_of(*STDS), "std_min": _numbers(())}
    if head.get("kind") == "simplex" and head.get("shape") == []:
        rules |= {"shape": _list_of(_COUNT)}
    bounds = dict.fromkeys(("low", "high", "offset"), _numbers((), entries))
    return rules | {"scale": _numbers((), entries, above=0), **bounds}


def _shape(stacked: int) -> _Rule:
    most = "a list of at most 2 whole numbers, each at least 1"

    def holds(value: Any) -> bool:
        if not isinstance(value, list) or len(value) > 2 or not all(map(_COUNT[1], value)):
            return False
        return stacked == 1 or value[:1] == [stacked]

    return most if stacked == 1 else f"{most}, the first {stacked} as many as networks", holds


def check_arrays(arrays: Mapping[str, _Floats], metadata: Mapping[str, Any]) -> None:
    """Refuse arrays that are not those of the metadata's networks.

    Raises:
        ValueError: If they are not; it says what to change.
    """
    network = metadata["network"]
    chains = [(head, [*network["trunk"], *head["layers"]]) for head in network["heads"]]
    names = {f"{layer}/{part}" for _, layers in chains for layer in layers for part in ("kernel", "bias")}
    if wrong := sorted(names ^ arrays.keys()):
        what = f"no array {wrong[0]!r}" if wrong[0] in names else f"an array {wrong[0]!r} that no layer has"
        raise ValueError(f"there is {what}; name every layer and give its kernel and bias")
    for head, layers in chains:
        stacked, width = network["stacked"], metadata["observation"]["size"]
        slots = network.get("per_slot")
        if slots:
            width = slots["common"] + slots["features"]
        for layer in layers:
            inputs, width = width, max((1, *arrays[f"{layer}/kernel"].shape[-1:]))
            for name, shape in ((f"{layer}/kernel", (stacked, inputs, width)), (f"{layer}/bias", (stacked, width))):
                if arrays[name].shape != shape:
                    raise ValueError(f"array {name!r} has shape {arrays[name].shape}: it must be {shape}")
        entries = math.prod(head["shape"]) // stacked
        outputs = 1 if slots else entries * (head["size"] if head["kind"] == "categorical" else 2)
        if width != outputs:
            needs = f"{head['kind']} head {head['name']!r} of size {head['size']} needs {outputs}"
            raise ValueError(f"array '{layers[-1]}/kernel' has {width} outputs: {needs}; mend the array or the size")


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}..."
