"""A trained policy as one file that needs NumPy alone: on a device, beside PyTorch, in another language.

The file is an uncompressed `.npz` of three kinds of entries: the networks' float32 arrays by path,
`LAYER/kernel` [net, inputs, outputs] and `LAYER/bias` [net, outputs], one network for each UE; `metadata`,
JSON text as bytes; and `sha256`, the digest of both. The metadata:

    {
      "schema": 1,
      "kind": "mec_jax policy",
      "env_id": "MultiUEOffloading-v0",
      "env_static": {"num_ues": 5, "num_channels": 2},
      "env_params": {"beta": 0.47, "power_max": [1.0, 1.0, 1.0, 1.0, 1.0]},
      "action": "OffloadAction",
      "observation": {
        "size": 20,
        "per_ue": ["tasks left / tasks given", "time left / local time", "bits left / 1 204 224", "..."],
        "normalisation": "as the environment returns it"
      },
      "network": {
        "stacked": 5,
        "activation": "relu",
        "trunk": ["trunk_0", "trunk_1"],
        "heads": [
          {"name": "cut", "kind": "categorical", "layers": ["cut_0", "cut_1"], "size": 6},
          {"name": "power", "kind": "gaussian", "layers": ["power_0", "power_1"], "size": 1,
           "mean": "sigmoid", "std": "softplus", "std_min": 1e-6,
           "scale": [1.0, 1.0, 1.0, 1.0, 1.0], "low": 1e-10, "high": [1.0, 1.0, 1.0, 1.0, 1.0]}
        ]
      },
      "provenance": {"algorithm": "...", "seed": 0},
      "score": {}
    }

"normalisation" may instead be {"mean": [size], "std": [size], "clip": c}: (observation - mean) / std, then
clipped to -c..c, or not at all without "clip". "provenance" and "score" hold what their writer likes, and so
does "env_static" besides "num_ues"; "env_params" holds numbers and nested lists of numbers.

Every network reads the whole observation. The activation, "relu" or "tanh", follows each trunk layer and
stands between the layers of a head; none follows a head's last layer. A categorical head puts out `size`
logits, a gaussian head `size` raw means, then `size` raw standard deviations:

    mean = sigmoid(raw mean) * scale
    std = f(raw std) * scale + std_min       f is "softplus", "sigmoid" or "exp"

What is drawn is clipped to low..high. "scale", "low" and "high" are one number, or one for each UE. The
action has one field for each head, in that order.
"""

import functools
import hashlib
import io
import json
import keyword
import math
import os
import reprlib
import secrets
import stat
import zipfile
from collections import Counter, namedtuple
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["AS_RETURNED", "KIND", "SCHEMA", "Categorical", "Gaussian", "Policy", "load_policy", "save_policy"]

SCHEMA = 1
"""Version of the metadata."""

KIND = "mec_jax policy"
"""What the metadata calls the file."""

AS_RETURNED = "as the environment returns it"
"""The observation's "normalisation" when the network reads it unchanged."""

_METADATA, _DIGEST = "metadata", "sha256"
_SUFFIX = ".npy"
_MAX_BYTES = 2**30  # of a file: no policy needs more, and a device must not run out of memory over one
_AGAIN = "copy it again, or export it again with save_policy"

_FIELDS = (
    *("schema", "kind", "env_id", "env_static", "env_params"),
    *("action", "observation", "network", "provenance", "score"),
)
_HEAD_FIELDS = ("name", "kind", "layers", "size")
_GAUSSIAN_FIELDS = (*_HEAD_FIELDS, "mean", "std", "std_min", "scale", "low", "high")

type _Floats = NDArray[np.float32]
type _Layer = tuple[_Floats, _Floats]  # kernel [net, inputs, outputs], bias [net, 1, outputs]


def _relu(x: _Floats) -> _Floats:
    return np.maximum(x, 0)


def _sigmoid(x: _Floats) -> _Floats:
    power = np.exp(-np.abs(x))
    return np.where(x < 0, power, 1) / (1 + power)


def _softplus(x: _Floats) -> _Floats:
    return np.logaddexp(x, np.float32(0))


_ACTIVATIONS: dict[str, Callable[[_Floats], _Floats]] = {"relu": _relu, "tanh": np.tanh}
_MEANS: dict[str, Callable[[_Floats], _Floats]] = {"sigmoid": _sigmoid}
_STDS: dict[str, Callable[[_Floats], _Floats]] = {"softplus": _softplus, "sigmoid": _sigmoid, "exp": np.exp}


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

    mean: NDArray[np.float32]  # [..., ue], or [..., ue, size] with a size above 1
    std: NDArray[np.float32]  # as the mean

    def mode(self) -> NDArray[np.float32]:
        """The mean."""
        return self.mean

    def sample(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random number."""
        return self.mean + self.std * rng.standard_normal(self.mean.shape, dtype=np.float32)


class _CategoricalHead(NamedTuple):
    layers: list[_Layer]

    def distribution(self, raw: _Floats) -> Categorical:
        return Categorical(raw)

    def bounded(self, value: NDArray[Any]) -> NDArray[Any]:
        return value


class _GaussianHead(NamedTuple):
    layers: list[_Layer]
    size: int
    mean: Callable[[_Floats], _Floats]
    std: Callable[[_Floats], _Floats]
    std_min: np.float32
    scale: _Floats  # [ue], or [ue, 1] with a size above 1; so are low and high
    low: _Floats
    high: _Floats

    def distribution(self, raw: _Floats) -> Gaussian:
        mean, std = raw[..., : self.size], raw[..., self.size :]
        if self.size == 1:
            mean, std = mean[..., 0], std[..., 0]
        return Gaussian(self.mean(mean) * self.scale, self.std(std) * self.scale + self.std_min)

    def bounded(self, value: NDArray[Any]) -> NDArray[Any]:
        return np.minimum(np.maximum(value, self.low), self.high)


class _Normaliser(NamedTuple):
    mean: _Floats  # [observation]
    std: _Floats  # [observation]
    clip: np.float32


class _Network(NamedTuple):
    """The metadata and arrays, checked and ready to run."""

    num_ues: int
    size: int  # of an observation
    layout: str  # of an observation, in words
    normaliser: _Normaliser | None
    activation: Callable[[_Floats], _Floats]
    trunk: list[_Layer]
    heads: dict[str, _CategoricalHead | _GaussianHead]
    action: type[Any]  # the NamedTuple's class


@dataclass(frozen=True, eq=False, repr=False)
class Policy:
    """Decides for all UEs from one observation. Takes copies of what it is given.

    Args:
        arrays: The network's arrays by path; the module's docstring has their names and shapes.
        metadata: What the network means; the module's docstring has the fields. NumPy and JAX arrays in it
            become lists and numbers.

    Raises:
        ValueError: If they don't describe a policy; the message says what to change.
    """

    arrays: Mapping[str, NDArray[Any]]  # float32, read-only
    metadata: Mapping[str, Any]
    _network: _Network = field(init=False)

    def __post_init__(self) -> None:
        metadata = json.loads(_to_json(self.metadata))
        _check_version(metadata)
        arrays = {str(name): _read_only(name, value) for name, value in self.arrays.items()}
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "_network", _network(metadata, arrays))

    def __repr__(self) -> str:
        action = f"{self.metadata['action']}({', '.join(self._network.heads)})"
        return f"<Policy for {self.metadata['env_id']}, {self._network.num_ues} UEs: {action}>"

    def __reduce__(self) -> tuple[Any, ...]:  # the action's class, made at run time, can't be pickled
        return Policy, (self.arrays, self.metadata)

    def act(self, observation: ArrayLike, rng: np.random.Generator | None = None) -> Any:
        """Decides.

        Args:
            observation: [..., values per UE * ue], in the environment's order.
            rng: Draws the action; without it the action is the likeliest one.

        Returns:
            A NamedTuple like the environment's action, e.g. `OffloadAction(cut, channel, power)`, each
            [..., ue]: int32 for a categorical head, float32 within its bounds for a gaussian one.

        Raises:
            ValueError: If the observation has another shape, isn't made of real numbers or isn't finite.
        """
        network = self._network
        said = self.distribution(observation)
        chosen = []
        for name, head in network.heads.items():
            chosen.append(head.bounded(said[name].mode() if rng is None else said[name].sample(rng)))
        return network.action(*chosen)

    def distribution(self, observation: ArrayLike) -> dict[str, Categorical | Gaussian]:
        """What the heads say, by name and in the action's order: logits, or mean and standard deviation.

        Args:
            observation: As for `act`.

        Raises:
            ValueError: As for `act`.
        """
        network = self._network
        with np.errstate(all="ignore"):  # what overflows is refused
            x = _observation(observation, network)
            batch, x = x.shape[:-1], x.reshape(-1, x.shape[-1])
            if network.normaliser is not None:
                mean, std, clip = network.normaliser
                x = np.clip((x - mean) / std, -clip, clip)
            for kernel, bias in network.trunk:
                x = network.activation(x @ kernel + bias)  # [net, batch, outputs]
            said = {}
            for name, head in network.heads.items():
                raw = _head_outputs(x, head.layers, network.activation)
                raw = raw.swapaxes(0, 1).reshape(*batch, network.num_ues, raw.shape[-1])
                said[name] = head.distribution(raw)
        if not all(np.isfinite(part).all() for parts in said.values() for part in parts):
            raise ValueError("the network overflows on this observation: give it numbers like those it was trained on")
        return said


def save_policy(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], metadata: Mapping[str, Any]) -> None:
    """Writes a policy that `load_policy` will read, or else leaves the folder as it was.

    Args:
        path: The file, `NAME.npz`; an existing one is replaced once the new one is complete.
        arrays: As for `Policy`; a policy's own `arrays` will do.
        metadata: As for `Policy`.

    Raises:
        ValueError: If they don't describe a policy or the file can't be written; the message says what to
            change.
    """
    policy = Policy({name: np.asarray(value) for name, value in arrays.items()}, metadata)
    text = _to_json(policy.metadata).encode()
    entries = {name: np.asarray(value, "<f4") for name, value in policy.arrays.items()}
    entries[_METADATA] = np.frombuffer(text, np.uint8)
    entries[_DIGEST] = np.frombuffer(_digest(text, policy.arrays), np.uint8)
    if (size := sum(value.nbytes + 1024 for value in entries.values())) > _MAX_BYTES:
        raise ValueError(f"the policy has {size} bytes, a file at most {_MAX_BYTES}: make the network smaller")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, value in entries.items():
            with archive.open(name + _SUFFIX, "w") as member:
                np.lib.format.write_array(member, value, version=(1, 0), allow_pickle=False)
    try:
        _write(Path(path), content.getbuffer())
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise ValueError(
            f"can't write policy file {os.fspath(path)!r}: {_reason(error)}; give a file name in an existing "
            "folder that you may write to and that has room"
        ) from None


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Reads a policy.

    Args:
        path: A file that `save_policy` wrote.

    Raises:
        ValueError: If it can't be read, isn't a policy, is damaged or contradicts itself; the message
            says what is wrong and what to do.
    """
    try:
        return _decode(_read(Path(path)))
    except (ValueError, MemoryError) as error:
        message = str(error) or f"it needs more memory than there is; {_AGAIN}"
    raise ValueError(f"policy file {os.fspath(path)!r}: {message}")


def _observation(value: ArrayLike, network: _Network) -> _Floats:
    try:
        x = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors on another device
        raise ValueError(f"the observation is no array ({_reason(error)}): give {network.layout}") from None
    if x.dtype.kind not in "fiu":
        raise ValueError(f"the observation is of type {x.dtype}: give real numbers, {network.layout}")
    if x.shape[-1:] != (network.size,):
        raise ValueError(f"the observation has shape {x.shape}: give {network.layout}")
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise ValueError("the observation holds a NaN, or a number too large for float32: give finite ones")
    return x


def _head_outputs(x: _Floats, layers: list[_Layer], activation: Callable[[_Floats], _Floats]) -> _Floats:
    for kernel, bias in layers[:-1]:
        x = activation(x @ kernel + bias)
    kernel, bias = layers[-1]
    return x @ kernel + bias


# Files.


def _write(path: Path, content: memoryview) -> None:
    """Replaces the file at once: whoever looks sees the old one or the whole new one."""
    temporary = path.parent / f".mec_jax-{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> bytes:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a regular file")
        if status.st_size > _MAX_BYTES:
            raise ValueError(f"it has {status.st_size} bytes, a policy at most {_MAX_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"it can't be read ({_reason(error)}); give the path of a file that save_policy wrote"
        ) from None


def _decode(content: bytes) -> Policy:
    members = _unzip(content)
    text = _parse_npy(_METADATA, members.pop(_METADATA), np.dtype(np.uint8)).tobytes()
    digest = _parse_npy(_DIGEST, members.pop(_DIGEST), np.dtype(np.uint8)).tobytes()
    metadata = _parse_json(text)
    _check_version(metadata)  # first, so that a file of another version is called that and not damaged
    arrays = {name: _parse_npy(name, member, np.dtype("<f4")) for name, member in members.items()}
    if _digest(text, arrays) != digest:
        raise ValueError(f"it is damaged (its sha256 digest differs); {_AGAIN}")
    return Policy(arrays, metadata)


def _digest(metadata: bytes, arrays: Mapping[str, _Floats]) -> bytes:
    """sha256 of the metadata's bytes and, for each array by sorted path, of its path, shape and bytes."""
    digest = hashlib.sha256(metadata)
    for name in sorted(arrays):
        digest.update(f"\0{name} {arrays[name].shape}\0".encode())
        digest.update(np.asarray(arrays[name], "<f4").tobytes())
    return digest.digest()


def _unzip(content: bytes) -> dict[str, bytes]:
    """The archive's entries by name. What the archive says of their sizes is checked before they are read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            for name in (_METADATA + _SUFFIX, _DIGEST + _SUFFIX):
                if name not in names:
                    raise ValueError(f"it has no entry {name!r}")
            if len(set(names)) < len(names):
                raise ValueError("it has two entries of one name")
            if strange := [name for name in names if not name.endswith(_SUFFIX)]:
                raise ValueError(f"entry {_show(strange[0])} is no array")
            if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
                raise ValueError("it is compressed")
            if (size := sum(info.file_size for info in infos)) > len(content):
                raise ValueError(f"it claims {size} bytes and has {len(content)}")
            return {info.filename.removesuffix(_SUFFIX): archive.read(info) for info in infos}
    except Exception as error:  # zipfile raises BadZipFile, EOFError, NotImplementedError, struct.error ...
        raise ValueError(f"it is not a whole policy file ({_reason(error)}); {_AGAIN}") from None


def _parse_npy(name: str, member: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Only what `save_policy` writes: format 1.0, C order, and exactly as many bytes as the shape needs."""
    try:
        stream = io.BytesIO(member)
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("another version of the npy format")
        shape, fortran, stored = np.lib.format.read_array_header_1_0(stream)
        if stored != dtype or fortran:
            raise ValueError(f"type {stored}, not {dtype}" if stored != dtype else "Fortran order")
        start = stream.tell()
        if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != len(member) - start:
            raise ValueError(f"shape {_show(shape)} doesn't fit its {len(member) - start} bytes")
        return np.frombuffer(member, dtype, offset=start).reshape(shape)
    except Exception as error:  # NumPy parses the header as Python: MemoryError, RecursionError ...
        raise ValueError(f"it has a damaged array {_show(name)} ({_reason(error)}); {_AGAIN}") from None


def _parse_json(text: bytes) -> Any:
    try:
        return json.loads(text.decode(), object_pairs_hook=_unique_fields)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it has damaged metadata ({_reason(error)}); {_AGAIN}") from None


def _unique_fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field stands twice in one object")
    return fields


def _to_json(metadata: Mapping[str, Any]) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return dict(value)
        if hasattr(value, "tolist"):
            return value.tolist()
        raise ValueError(f"{_show(value)} is no JSON value")

    try:
        return json.dumps(metadata, default=plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"the metadata can't be written as JSON ({_reason(error)}); put texts, finite numbers, lists and "
            "objects in it"
        ) from None


# What a policy must be.


def _check_version(metadata: object) -> None:
    if not isinstance(metadata, dict) or metadata.get("kind") != KIND:
        raise ValueError(f'the metadata is not that of a policy: "kind" must be "{KIND}"')
    version = metadata.get("schema")
    if isinstance(version, bool) or version != SCHEMA:
        raise ValueError(
            f"schema version {_show(version)} is not known, only {SCHEMA}; export the policy again, or "
            "install the mec_jax that wrote it"
        )


def _read_only(name: str, value: ArrayLike) -> _Floats:
    given = np.asarray(value)
    if given.dtype.kind not in "fiuV":  # bfloat16 calls itself V
        raise ValueError(f"array {_show(name)} is of type {given.dtype}; give real numbers")
    with np.errstate(over="ignore"):
        array = np.array(given, np.float32, order="C")
    if not np.isfinite(array).all():
        raise ValueError(f"array {_show(name)} holds a NaN or infinity; take a policy that has not diverged")
    array.flags.writeable = False
    return array


def _network(metadata: dict[str, Any], arrays: Mapping[str, _Floats]) -> _Network:
    _fields(metadata, "", _FIELDS)
    _text(metadata["env_id"], "env_id")
    for name in ("env_static", "provenance", "score"):
        _object(metadata[name], name)
    num_ues = _count(metadata["env_static"].get("num_ues"), "env_static.num_ues")
    for name, value in _object(metadata["env_params"], "env_params").items():
        if not _is_numeric(value):
            raise ValueError(
                f"field {_show('env_params.' + name)} must be finite numbers in equal rows, not {_show(value)}"
            )

    observation = _fields(metadata["observation"], "observation.", ("size", "per_ue", "normalisation"))
    per_ue = _texts(observation["per_ue"], "observation.per_ue")
    size = _count(observation["size"], "observation.size")
    if size != len(per_ue) * num_ues or not per_ue:
        raise ValueError(
            f"field 'observation.size' is {_show(size)}: it must be {len(per_ue)} values times {_show(num_ues)} UEs"
        )

    network = _fields(metadata["network"], "network.", ("stacked", "activation", "trunk", "heads"))
    if _count(network["stacked"], "network.stacked") != num_ues:
        raise ValueError(
            f"field 'network.stacked' is {_show(network['stacked'])}: there must be a network for each of "
            f"{_show(num_ues)} UEs"
        )
    activation = _choice(network["activation"], "network.activation", _ACTIVATIONS)
    trunk = _layer_names(network["trunk"], "network.trunk")
    heads = network["heads"]
    if not isinstance(heads, list) or not heads:
        raise ValueError(f"field 'network.heads' must be a list of objects, not {_show(heads)}")
    for index, head in enumerate(heads):
        where = f"network.heads[{index}]."
        kind = head.get("kind") if isinstance(head, dict) else None
        _fields(head, where, _GAUSSIAN_FIELDS if kind == "gaussian" else _HEAD_FIELDS)
        _identifier(head["name"], where + "name")
        _choice(kind, where + "kind", {"categorical": None, "gaussian": None})
        _count(head["size"], where + "size")
        if not _layer_names(head["layers"], where + "layers"):
            raise ValueError(f"field '{where}layers' must name one layer or more")

    layers = [*trunk, *(layer for head in heads for layer in head["layers"])]
    _distinct(layers, "layer")
    _check_names(arrays, layers)
    trunk_layers, width = _chain(trunk, size, num_ues, arrays)
    return _Network(
        num_ues=num_ues,
        size=size,
        layout=f"[..., {size}], for each of {num_ues} UEs {', '.join(per_ue)}",
        normaliser=_normaliser(observation["normalisation"], size),
        activation=activation,
        trunk=trunk_layers,
        heads={
            head["name"]: _head(head, f"network.heads[{index}].", width, num_ues, arrays)
            for index, head in enumerate(heads)
        },
        action=_check_action(metadata["action"], [head["name"] for head in heads]),
    )


def _normaliser(value: object, size: int) -> _Normaliser | None:
    where = "observation.normalisation"
    if value == AS_RETURNED:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"field '{where}' must be {AS_RETURNED!r} or an object, not {_show(value)}")
    _fields(value, where + ".", ("mean", "std"), ("clip",))
    return _Normaliser(
        mean=_floats(value["mean"], where + ".mean", (size,)),
        std=_floats(value["std"], where + ".std", (size,), positive=True),
        clip=_float(value["clip"], where + ".clip", positive=True) if "clip" in value else np.float32(np.inf),
    )


def _head(
    head: dict[str, Any], where: str, width: int, num_ues: int, arrays: Mapping[str, _Floats]
) -> _CategoricalHead | _GaussianHead:
    size, categorical = head["size"], head["kind"] == "categorical"
    layers, outputs = _chain(head["layers"], width, num_ues, arrays)
    if outputs != (size if categorical else 2 * size):
        needs = "one output" if categorical else "a mean and a standard deviation"
        raise ValueError(
            f"array '{head['layers'][-1]}/kernel' has {outputs} outputs: head {_show(head['name'])} of size "
            f"{_show(size)} needs {needs} each; mend the size or the array"
        )
    if categorical:
        return _CategoricalHead(layers)

    def per_ue(name: str, *, positive: bool = False) -> _Floats:
        value = head[name]
        row = value if isinstance(value, list) else [value] * num_ues
        array = _floats(row, where + name, (num_ues,), positive=positive)
        return array if size == 1 else array[:, None]

    low, high = per_ue("low"), per_ue("high")
    if (low > high).any():
        raise ValueError(f"field '{where}low' is above '{where}high'; swap or mend them")
    std_min = _float(head["std_min"], where + "std_min")
    if std_min < 0:
        raise ValueError(f"field '{where}std_min' must be at least 0, not {_show(head['std_min'])}")
    return _GaussianHead(
        layers=layers,
        size=size,
        mean=_choice(head["mean"], where + "mean", _MEANS),
        std=_choice(head["std"], where + "std", _STDS),
        std_min=std_min,
        scale=per_ue("scale", positive=True),
        low=low,
        high=high,
    )


def _chain(names: Sequence[str], width: int, num_ues: int, arrays: Mapping[str, _Floats]) -> tuple[list[_Layer], int]:
    """The layers, each of which takes what the one before puts out, and the outputs of the last."""
    layers = []
    for name in names:
        kernel, bias = arrays[f"{name}/kernel"], arrays[f"{name}/bias"]
        if kernel.ndim != 3 or kernel.shape[:2] != (num_ues, width) or kernel.size == 0:
            raise ValueError(
                f"array '{name}/kernel' has shape {kernel.shape}: it must be ({num_ues}, {width}, outputs)"
            )
        width = kernel.shape[2]
        if bias.shape != (num_ues, width):
            raise ValueError(f"array '{name}/bias' has shape {bias.shape}: it must be ({num_ues}, {width})")
        layers.append((kernel, bias[:, None]))
    return layers, width


def _check_names(arrays: Mapping[str, _Floats], layers: Sequence[str]) -> None:
    expected = {f"{layer}/{part}" for layer in layers for part in ("kernel", "bias")}
    missing, unknown = expected - set(arrays), set(arrays) - expected
    if missing or unknown:
        said = [f"no array {_show(min(missing))}"] if missing else []
        said += [f"an array {_show(min(unknown))} that no layer has"] if unknown else []
        raise ValueError(f"there is {' and '.join(said)}; name every layer and give its kernel and bias")


def _check_action(action: object, heads: Sequence[str]) -> type[Any]:
    names = (_identifier(action, "action"), *heads)
    for name in names:
        if keyword.iskeyword(name) or name.startswith("_"):
            raise ValueError(f"{_show(name)} can't name an action or a head; choose a name that Python allows")
    _distinct(heads, "head")
    return _action_class(names[0], names[1:])


@functools.lru_cache  # two policies of one kind have one class
def _action_class(name: str, fields: tuple[str, ...]) -> type[Any]:
    def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:  # pickle can't import a class made at run time
        return _action, (name, fields, *self)

    return type(name, (namedtuple(name, fields),), {"__slots__": (), "__reduce__": reduce})


def _action(name: str, fields: tuple[str, ...], *values: Any) -> Any:
    return _action_class(name, fields)(*values)


def _fields(value: object, where: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """Checks that `value` is an object with these fields and no others."""
    fields = _object(value, where[:-1])
    for name in required:
        if name not in fields:
            raise ValueError(f"field '{where}{name}' is missing; add it")
    for name in fields:
        if name not in required and name not in optional:
            known = ", ".join((*required, *optional))
            raise ValueError(f"unknown field {_show(where + name)}; known are {known}")
    return fields


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"field '{where}' must be an object, not {_show(value)}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"field '{where}' must be a text, not {_show(value)}")
    return value


def _texts(value: object, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"field '{where}' must be a list of texts, not {_show(value)}")
    return value


def _layer_names(value: object, where: str) -> list[str]:
    return [_identifier(name, where) for name in _texts(value, where)]


def _identifier(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.isascii() or not value.isidentifier():
        raise ValueError(f"field '{where}' must be made of letters, digits and _, not {_show(value)}")
    return value


def _distinct(names: Sequence[str], what: str) -> None:
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{what} {_show(name)} stands {count} times; give each a name of its own")


def _choice[T](value: object, where: str, choices: Mapping[str, T]) -> T:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"field '{where}' must be one of {', '.join(choices)}, not {_show(value)}")
    return choices[value]


def _count(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"field '{where}' must be a whole number of at least 1, not {_show(value)}")
    return value


def _float(value: object, where: str, *, positive: bool = False) -> np.float32:
    return np.float32(_floats([value], where, (1,), positive=positive)[0])


def _floats(value: object, where: str, shape: tuple[int], *, positive: bool = False) -> _Floats:
    numbers = "a finite number" if shape == (1,) else f"{shape[0]} finite numbers"
    what = f"field '{where}' must be {numbers}{' > 0' * positive}, not {_show(value)}"
    if not isinstance(value, list) or not _is_numeric(value) or any(isinstance(x, bool) for x in value):
        raise ValueError(what)
    with np.errstate(over="ignore"):
        array = np.asarray(value, np.float32)  # may become infinite, or 0, by that
    if array.shape != shape or not np.isfinite(array).all() or (positive and not (array > 0).all()):
        raise ValueError(what)
    return array


def _is_numeric(value: object) -> bool:
    """Whether JSON's `value` is a number, a truth value or a nested list of them, all rows of one length."""
    try:
        array = np.asarray(value)
    except ValueError:  # ragged, or nested too deeply
        return False
    return array.dtype.kind in "fiub" and bool(np.isfinite(array).all())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return _short(str(error)) or type(error).__name__


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _show(value: object) -> str:
    """A short repr, in JSON's words for true, false and null."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)
