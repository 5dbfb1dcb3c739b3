"""A trained policy as one file that needs NumPy alone: on a device, beside PyTorch, in another language.

The file is an uncompressed `.npz` of three kinds of entries: the networks' float32 arrays by path,
`LAYER/kernel` [net, inputs, outputs] and `LAYER/bias` [net, outputs], one network for each UE; `metadata`,
JSON text as bytes; and `sha256`, the digest of both (`_digest`). The metadata:

    {
      "schema": 1, "kind": "mec_jax policy",
      "env_id": "MultiUEOffloading-v0",
      "env_static": {"num_ues": 3, "num_channels": 2},
      "env_params": {"beta": 0.47, "power_max": [1.0, 0.5, 1.0]},
      "action": "OffloadAction",
      "observation": {
        "size": 12,
        "per_ue": ["tasks left / tasks given", "time left / local time", "bits left / 1 204 224", "..."],
        "normalisation": "as the environment returns it"
      },
      "network": {
        "stacked": 3, "activation": "relu", "trunk": ["trunk_0", "trunk_1"],
        "heads": [
          {"name": "cut", "kind": "categorical", "layers": ["cut_0", "cut_1"], "size": 6},
          {"name": "power", "kind": "gaussian", "layers": ["power_0", "power_1"], "size": 1, "mean": "sigmoid",
           "std": "softplus", "std_min": 1e-6, "scale": [1.0, 0.5, 1.0], "low": 1e-10, "high": [1.0, 0.5, 1.0]}
        ]
      },
      "provenance": {"algorithm": "...", "seed": 0}, "score": {}
    }

"normalisation" may instead be {"mean": [size], "std": [size], "clip": c}: (observation - mean) / std, then
clipped to -c..c, or not at all without "clip". "provenance" and "score" hold what their writer likes, and so
does "env_static" besides "num_ues"; "env_params" holds numbers and nested lists of numbers.

Every network reads the whole observation. The activation, "relu" or "tanh", follows each trunk layer and
stands between the layers of a head; none follows a head's last layer. A categorical head puts out `size`
logits, a gaussian head, always of size 1, a raw mean and a raw standard deviation:

    mean = sigmoid(raw mean) * scale
    std = f(raw std) * scale + std_min       f is "softplus", "sigmoid" or "exp"

What is drawn is clipped to low..high. "scale", "low" and "high" are one number, or one for each UE. The
action has one field for each head, in that order.

One network may decide for all: then "stacked" is 1, and every head has a "shape", [] or [n] or [n, k], that of its
field. Its last layer puts out `size` logits for each entry, or the raw means of all entries and then their raw standard
deviations. The mean of such a gaussian head may be "linear", raw mean * scale + offset; "offset", "scale", "low" and
"high" are one number or of the head's shape. A head of kind "simplex" is a gaussian one whose action is the softmax of
what is drawn.

A categorical head of shape [] may have "allowed", an entry of the observation for each choice: the choice may be taken
where that is positive, else its logit is float32's least number. If the network has "per_slot", {"common": c, "slots":
n, "features": f}, the observation is c values and then f for each of n slots; the one network reads the c values and
those of one slot, n times, and its one categorical head puts out one logit for each.
"""

import functools
import hashlib
import io
import json
import operator
import os
import secrets
import zipfile
from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["AS_RETURNED", "KIND", "SCHEMA", "Categorical", "Gaussian", "Policy", "load_policy", "save_policy"]

SCHEMA = 1  # version of the metadata
KIND = "mec_jax policy"  # what the metadata calls the file
AS_RETURNED = "as the environment returns it"  # "normalisation" when the network reads the observation unchanged

_MAX_BYTES = 2**30  # of a file: no policy needs more, and a device must not run out of memory over one

type _Floats = NDArray[np.float32]
type _Function = Callable[[_Floats], _Floats]


class Categorical(NamedTuple):
    """What a categorical head says: p(i) is proportional to exp(logits[i])."""

    logits: NDArray[np.float32]  # [..., ue, size]

    def mode(self) -> NDArray[np.int32]:
        """The likeliest choice, [..., ue]."""
        return np.argmax(self.logits, axis=-1).astype(np.int32)

    def sample(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """A random choice, [..., ue], by the Gumbel-max trick."""
        return np.argmax(self.logits + rng.gumbel(size=self.logits.shape), axis=-1).astype(np.int32)


class Gaussian(NamedTuple):
    """What a gaussian head says, before anything is clipped."""

    mean: NDArray[np.float32]  # [..., ue]
    std: NDArray[np.float32]  # [..., ue]

    def mode(self) -> NDArray[np.float32]:
        """The mean."""
        return self.mean

    def sample(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random number."""
        return self.mean + self.std * rng.standard_normal(self.mean.shape, dtype=np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """Decides from one observation, for all UEs.

    Takes copies of `arrays` and `metadata`, which the module's docstring describes; NumPy and JAX arrays in the
    metadata become lists and numbers. If they don't describe a policy, a ValueError says what to change.
    """

    arrays: Mapping[str, NDArray[Any]]  # float32, read-only
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        metadata = _plain(self.metadata)
        _check_metadata(metadata)
        arrays = {str(name): _read_only(str(name), value) for name, value in self.arrays.items()}
        _check_arrays(arrays, metadata)
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "arrays", arrays)

    def __repr__(self) -> str:
        network = self.metadata["network"]
        action = f"{self.metadata['action']}({', '.join(head['name'] for head in network['heads'])})"
        return f"<Policy for {self.metadata['env_id']}, {network['stacked']} UEs: {action}>"

    def act(self, observation: ArrayLike, rng: np.random.Generator | None = None) -> Any:
        """Decides.

        Args:
            observation: [..., values per UE * ue], finite, in the environment's order; else a ValueError says so.
            rng: Draws the action; without it the action is the likeliest one.

        Returns:
            A NamedTuple like the environment's action, e.g. `OffloadAction(cut, channel, power)`, each
            [..., ue], or [..., *shape]: int32 for a categorical head, float32 within its bounds for a gaussian one.
        """
        said = self.distribution(observation)
        action: dict[str, NDArray[Any]] = {}
        for head in self.metadata["network"]["heads"]:
            name = head["name"]
            action[name] = said[name].mode() if rng is None else said[name].sample(rng)
            if head["kind"] == "gaussian":
                action[name] = np.clip(action[name], _float32(head["low"]), _float32(head["high"]))
            elif head["kind"] == "simplex":
                power = np.exp(action[name] - action[name].max(axis=-1, keepdims=True))
                action[name] = power / power.sum(axis=-1, keepdims=True)
        return _action_class(self.metadata["action"], tuple(action))(*action.values())

    def distribution(self, observation: ArrayLike) -> dict[str, Categorical | Gaussian]:
        """What the heads say of an observation as for `act`, by name: logits, or mean and standard deviation."""
        network = self.metadata["network"]
        activation = _ACTIVATIONS[network["activation"]]
        said: dict[str, Categorical | Gaussian] = {}
        with np.errstate(all="ignore"):  # what overflows is refused
            x = _observation(observation, self.metadata)
            batch, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
            if slots := network.get("per_slot"):
                x = _each_slot(x, **slots)
            for layer in network["trunk"]:
                x = activation(self._dense(layer, x))  # [net, batch, outputs]
            for head in network["heads"]:
                *hidden, last = head["layers"]
                raw = x
                for layer in hidden:
                    raw = activation(self._dense(layer, raw))
                raw = self._dense(last, raw).swapaxes(0, 1)
                raw = raw.reshape(*batch, *_entries(head, raw.shape[1:]))  # [..., ue, outputs]
                if "allowed" in head:
                    raw = np.where(np.asarray(observation)[..., head["allowed"]] > 0, raw, _LEAST)
                said[head["name"]] = Categorical(raw) if head["kind"] == "categorical" else _gaussian(raw, head)
        if not all(np.isfinite(part).all() for parts in said.values() for part in parts):
            raise ValueError("the network overflows on this observation: give it numbers like those it was trained on")
        return said

    def _dense(self, layer: str, x: _Floats) -> _Floats:
        return x @ self.arrays[f"{layer}/kernel"] + self.arrays[f"{layer}/bias"][:, None]


def _sigmoid(x: _Floats) -> _Floats:
    power = np.exp(-np.abs(x))
    return np.where(x < 0, power, 1) / (1 + power)


_ACTIVATIONS: dict[str, _Function] = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
_STDS: dict[str, _Function] = {"softplus": lambda x: np.logaddexp(x, 0), "sigmoid": _sigmoid, "exp": np.exp}
_float32 = functools.partial(np.asarray, dtype=np.float32)
_LEAST = np.finfo(np.float32).min  # logit of a choice that is not allowed
_action_class = functools.lru_cache(namedtuple)  # two policies of one kind have one class


def _each_slot(x: _Floats, common: int, slots: int, features: int) -> _Floats:
    """What a network reads that scores slots, a row for each slot of each observation."""
    own = x[:, common:].reshape(-1, features)
    return np.concatenate([np.repeat(x[:, :common], slots, axis=0), own], axis=1)


def _entries(head: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of what a head's last layer puts out, [net, outputs], by the entries of its action."""
    if "shape" not in head:
        return shape
    return (*head["shape"], head["size"]) if head["kind"] == "categorical" else (2, *head["shape"])


def _gaussian(raw: _Floats, head: Mapping[str, Any]) -> Gaussian:
    scale, std = _float32(head["scale"]), _STDS[head["std"]]
    if "shape" in head:
        axis = -1 - len(head["shape"])
        mean, deviation = np.take(raw, 0, axis), np.take(raw, 1, axis)
    else:
        mean, deviation = raw[..., 0], raw[..., 1]
    mean = _sigmoid(mean) * scale if head["mean"] == "sigmoid" else mean * scale + _float32(head["offset"])
    return Gaussian(mean, std(deviation) * scale + _float32(head["std_min"]))


def _observation(value: ArrayLike, metadata: Mapping[str, Any]) -> _Floats:
    """The observation as the network reads it."""
    size, per_ue, normal = (metadata["observation"][name] for name in ("size", "per_ue", "normalisation"))
    ues = metadata["network"]["stacked"]
    mend = f"give [..., {size}], {f'for each of {ues} UEs ' if ues > 1 else ''}{', '.join(per_ue)}"
    try:
        x = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on another device
        raise ValueError(f"the observation is no array ({_short(error)}): {mend}") from None
    if x.dtype.kind not in "fiu":
        raise ValueError(f"the observation is of type {x.dtype}, not made of real numbers: {mend}")
    if x.shape[-1:] != (size,):
        raise ValueError(f"the observation has shape {x.shape}: {mend}")
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise ValueError("the observation holds a NaN, or a number too large for float32: give finite ones")
    if normal == AS_RETURNED:
        return x
    clip = _float32(normal.get("clip", np.inf))
    return np.clip((x - _float32(normal["mean"])) / _float32(normal["std"]), -clip, clip)


# Files.


def save_policy(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], metadata: Mapping[str, Any]) -> None:
    """Writes a policy that `load_policy` will read; else a ValueError says what to change, and no file changes."""
    policy = Policy({name: np.asarray(value) for name, value in arrays.items()}, metadata)
    text = json.dumps(policy.metadata).encode()
    about = {"metadata": text, "sha256": _digest(text, policy.arrays)}
    entries: dict[str, Any] = {**policy.arrays, **{name: np.frombuffer(data, np.uint8) for name, data in about.items()}}
    content = io.BytesIO()
    np.savez(content, **entries)
    if (size := content.tell()) > _MAX_BYTES:
        raise ValueError(f"the policy has {size} bytes, a file at most {_MAX_BYTES}: make the network smaller")
    try:
        _write(Path(path), content.getbuffer())
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        mend = "give a file name in an existing folder that you may write to and that has room"
        raise ValueError(f"can't write policy file {os.fspath(path)!r}: {_short(error)}; {mend}") from None


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Reads a file that `save_policy` wrote; of any other a ValueError says what is wrong and what to do."""
    start = f"policy file {os.fspath(path)!r}:"
    try:
        metadata, arrays = _read(Path(path))
    except OSError as error:
        raise ValueError(f"{start} it can't be read ({_short(error)}); give the path of a policy file") from None
    except Exception as error:  # zipfile, NumPy and json raise a dozen kinds
        raise ValueError(f"{start} it is damaged or no policy ({_short(error)}); copy or export it again") from None
    try:
        return Policy(arrays, metadata)
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{start} {error}") from None


def _write(path: Path, content: memoryview) -> None:
    """Replaces the file at once: whoever looks sees the old one or the whole new one."""
    temporary = path.parent / f".mec_jax-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[Any, dict[str, _Floats]]:
    """The metadata and arrays as they were written: their digest is right."""
    if (size := path.stat().st_size) > _MAX_BYTES:
        raise ValueError(f"it has {size} bytes, a policy at most {_MAX_BYTES}")
    content = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if missing := {"metadata.npy", "sha256.npy"} - set(archive.namelist()):
            raise ValueError(f"it has no entry {min(missing)!r}")
        if any(info.compress_type for info in infos) or sum(info.file_size for info in infos) > len(content):
            raise ValueError("it is compressed")  # and may claim more than there is memory
        members = {info.filename.removesuffix(".npy"): io.BytesIO(archive.read(info)) for info in infos}
    arrays = {name: np.lib.format.read_array(member, allow_pickle=False) for name, member in members.items()}
    text, digest = arrays.pop("metadata").tobytes(), arrays.pop("sha256").tobytes()
    if _digest(text, arrays) != digest:
        raise ValueError("its sha256 digest differs")
    return json.loads(text.decode()), arrays


def _digest(metadata: bytes, arrays: Mapping[str, _Floats]) -> bytes:
    """sha256 of the metadata's bytes and, for each array by sorted path, of its path, shape and bytes."""
    digest = hashlib.sha256(metadata)
    for name in sorted(arrays):
        digest.update(f"\0{name} {arrays[name].shape}\0".encode() + np.asarray(arrays[name], "<f4").tobytes())
    return digest.digest()


def _short(value: object) -> str:
    text = " ".join(str(getattr(value, "strerror", None) or value).split()) or type(value).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


# What a policy must be.


def _plain(metadata: Mapping[str, Any]) -> Any:
    """The metadata as JSON gives it back."""
    try:
        return json.loads(json.dumps(metadata, default=lambda value: value.tolist(), allow_nan=False))
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        mend = "put texts, finite numbers, lists and objects in it"
        raise ValueError(f"the metadata can't be written as JSON ({_short(error)}); {mend}") from None


def _read_only(name: str, value: ArrayLike) -> _Floats:
    given = np.asarray(value)
    if given.dtype.kind not in "fiuV":  # bfloat16 calls itself V
        raise ValueError(f"array {name!r} is of type {given.dtype}; give real numbers")
    with np.errstate(over="ignore"):
        array = np.array(given, np.float32, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"array {name!r} holds a NaN or infinity; take a policy that has not diverged")
    array.flags.writeable = False
    return array


type _Rule = tuple[str, Callable[[Any], bool]]  # what a value from JSON must be, and whether it is


def _list_of(rule: _Rule, least: int = 1) -> _Rule:
    says = f"a list of {least} or more, each {rule[0]}"
    return says, lambda value: isinstance(value, list) and len(value) >= least and all(map(rule[1], value))


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

    says = " or ".join(f"{shape[0]} finite numbers" if shape else "a finite number" for shape in shapes)
    return (says or "finite numbers in equal rows") + " > 0" * (above == 0), holds


_OBJECT: _Rule = ("an object", lambda value: isinstance(value, dict))
_TEXT: _Rule = ("a text", lambda value: isinstance(value, str) and value.strip() != "")
_NAME: _Rule = ("letters, digits and _", lambda value: _TEXT[1](value) and value.isascii() and value.isidentifier())
_COUNT: _Rule = ("a whole number, 1 to 2**31 - 1", lambda value: type(value) is int and 1 <= value < 2**31)
_NAMES = _list_of(_NAME, 0)
_ONE: _Rule = ("1", lambda value: type(value) is int and value == 1)
_NORMALISATION: _Rule = (f"'{AS_RETURNED}' or an object", lambda value: value == AS_RETURNED or _OBJECT[1](value))
_VERSION = f"{SCHEMA}; export the policy again, or install the mec_jax that wrote it"

_METADATA: dict[str, _Rule] = {
    "kind": (KIND, lambda value: value == KIND),
    "schema": (_VERSION, lambda value: type(value) is int and value == SCHEMA),
    **dict.fromkeys(("env_id", "action"), _TEXT),
    **dict.fromkeys(("env_static", "env_params", "observation", "network", "provenance", "score"), _OBJECT),
}
_OBSERVATION = {"size": _COUNT, "per_ue": _list_of(_TEXT), "normalisation": _NORMALISATION}
_NETWORK = {"stacked": _COUNT, "activation": _one_of(*_ACTIVATIONS), "trunk": _NAMES, "heads": _list_of(_OBJECT)}
_SLOTS = {"common": _COUNT, "slots": _COUNT, "features": _COUNT}
_SHAPE: _Rule = (
    "a list of at most 2 whole numbers, each at least 1",
    lambda value: isinstance(value, list) and len(value) <= 2 and all(map(_COUNT[1], value)),
)
_HEAD = {
    "name": _NAME,
    "kind": _one_of("categorical", "gaussian", "simplex"),
    "layers": _list_of(_NAME),
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


def _check_metadata(metadata: Any) -> None:
    _check({"metadata": metadata}, {"metadata": _OBJECT})
    _check(metadata, _METADATA)
    params, observation, network = (metadata[name] for name in ("env_params", "observation", "network"))
    _check(params, dict.fromkeys(params, _numbers()), "env_params.")
    _check(observation, _OBSERVATION, "observation.")
    _check(network, _NETWORK | ({"per_slot": _OBJECT} if "per_slot" in network else {}), "network.")
    ues, size, values = network["stacked"], observation["size"], len(observation["per_ue"])
    shaped = any("shape" in head for head in network["heads"])
    if shaped and ues != 1:
        raise ValueError(f"'network.stacked' is {ues}: it must be 1 where a head has a 'shape'")
    if not shaped and (num_ues := metadata["env_static"].get("num_ues")) != ues:
        raise ValueError(f"'network.stacked' is {ues}, 'env_static.num_ues' {_short(num_ues)}: they must be equal")
    if size != values * ues:
        raise ValueError(f"field 'observation.size' is {size}: it must be {values} values times {ues} UEs")
    if (normalisation := observation["normalisation"]) != AS_RETURNED:
        rules = {"mean": _numbers((size,)), "std": _numbers((size,), above=0), "clip": _numbers((), above=0)}
        _check({"clip": 1} | normalisation, rules, "observation.normalisation.")

    if "per_slot" in network:
        _check_slots(network, size)
    for index, head in enumerate(network["heads"]):
        where = f"network.heads[{index}]."
        rules = _head_rules(head, shaped, ues)
        if "allowed" in head:
            rules["allowed"] = _entries_of(size, head.get("size"))
            if head.get("kind") != "categorical" or head.get("shape") != []:
                raise ValueError(f"'{where}allowed' is for a categorical head of shape []: leave it out")
        _check(head, rules, where)
        if head["kind"] == "categorical":
            continue
        if head["std_min"] < 0 or (_float32(head["low"]) > _float32(head["high"])).any():
            raise ValueError(f"'{where}low' must be at most '{where}high', and '{where}std_min' at least 0")
    try:
        _action_class(metadata["action"], tuple(head["name"] for head in network["heads"]))
    except ValueError as error:
        raise ValueError(f"'action' and the heads' names must suit a namedtuple ({error}); choose others") from None


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


def _head_rules(head: Mapping[str, Any], shaped: bool, ues: int) -> dict[str, _Rule]:
    """What the fields of a head must be; with `shaped`, heads have shapes and `ues` is 1."""
    rules = _HEAD | ({"shape": _SHAPE} if shaped else {"kind": _one_of("categorical", "gaussian")})
    if head.get("kind") not in ("gaussian", "simplex"):
        return rules
    entries: tuple[int, ...] = (ues,)
    if shaped and _SHAPE[1](head.get("shape")):
        entries = tuple(head["shape"])
    rules |= {"size": _ONE, "mean": _one_of("sigmoid"), "std": _one_of(*_STDS), "std_min": _numbers(())}
    if shaped:
        rules |= {"mean": _one_of("linear"), "offset": _numbers((), entries)}
        if head.get("kind") == "simplex" and not head.get("shape"):
            rules |= {"shape": _list_of(_COUNT)}
    return rules | {"scale": _numbers((), entries, above=0), **dict.fromkeys(("low", "high"), _numbers((), entries))}


def _check_arrays(arrays: Mapping[str, _Floats], metadata: Mapping[str, Any]) -> None:
    network = metadata["network"]
    chains = [(head, [*network["trunk"], *head["layers"]]) for head in network["heads"]]
    names = {f"{layer}/{part}" for _, layers in chains for layer in layers for part in ("kernel", "bias")}
    if wrong := sorted(names ^ arrays.keys()):
        what = f"no array {wrong[0]!r}" if wrong[0] in names else f"an array {wrong[0]!r} that no layer has"
        raise ValueError(f"there is {what}; name every layer and give its kernel and bias")
    for head, layers in chains:
        ues, width = network["stacked"], metadata["observation"]["size"]
        slots = network.get("per_slot")
        if slots:
            width = slots["common"] + slots["features"]
        for layer in layers:
            inputs, width = width, max((1, *arrays[f"{layer}/kernel"].shape[-1:]))
            for name, shape in ((f"{layer}/kernel", (ues, inputs, width)), (f"{layer}/bias", (ues, width))):
                if arrays[name].shape != shape:
                    raise ValueError(f"array {name!r} has shape {arrays[name].shape}: it must be {shape}")
        entries = functools.reduce(operator.mul, head.get("shape", ()), 1)
        outputs = 1 if slots else entries * (head["size"] if head["kind"] == "categorical" else 2)
        if width != outputs:
            needs = f"{head['kind']} head {head['name']!r} of size {head['size']} needs {outputs}"
            raise ValueError(f"array '{layers[-1]}/kernel' has {width} outputs: {needs}; mend the array or the size")
