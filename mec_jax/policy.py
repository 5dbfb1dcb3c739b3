"""A trained policy as one file that needs NumPy alone: on a device, beside PyTorch, in another language.

policy = load_policy("policy.npz")
policy.quantities                                      # what to observe, with units and shapes
observation = policy.observation(distance=[50], ...)   # from these; `observation_names` tells its entries
action = policy.act(observation)                       # the likeliest action
action = policy.act(observation, np.random.default_rng())  # a sample
policy.check_profile("phone.json")                     # refuses another network's
policy.cut_names(action)                               # where the action cuts it

A device needs Python 3.9 or later, NumPy 1.21 or later, and of this package a folder `mec_jax` with six files:
`__init__.py`, `files.py`, `policy.py`, `policy_about.py`, `policy_schema.py` and `transforms.py`.

`mec_jax.policy_schema` describes the file.
"""

from __future__ import annotations

import functools
import io
import json
import os
import textwrap
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mec_jax.files import check_file, read_bytes, reason, write_bytes
from mec_jax.policy_about import About, numbers, refuse_no_choice
from mec_jax.policy_schema import (
    AS_RETURNED,
    KIND,
    MAX_METADATA,
    SCHEMA,
    action_class,
    as_json,
    check_arrays,
    check_metadata,
    digest,
    read_only,
    upgrade,
)

__all__ = ["AS_RETURNED", "KIND", "SCHEMA", "Categorical", "Gaussian", "Policy", "load_policy", "save_policy"]

_MAX_BYTES = 2**27  # of a file: no policy needs more, and reading one takes five times as much memory
_MAX_MEMBERS = 2**14  # of a file: two for each layer, and two

_Floats = NDArray[np.float32]
_Function = Callable[[_Floats], _Floats]


class Categorical(NamedTuple):
    """What a categorical head says: p(i) is proportional to exp(logits[i])."""

    logits: NDArray[np.float32]  # [..., *shape, size]

    def mode(self) -> NDArray[np.int32]:
        """The likeliest choice, [..., *shape]."""
        return np.argmax(self.logits, axis=-1).astype(np.int32)

    def sample(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """A random choice, [..., *shape], by the Gumbel-max trick."""
        return np.argmax(self.logits + rng.gumbel(size=self.logits.shape), axis=-1).astype(np.int32)


class Gaussian(NamedTuple):
    """What a gaussian or simplex head says, before anything is clipped or normalised."""

    mean: NDArray[np.float32]  # [..., *shape]
    std: NDArray[np.float32]  # [..., *shape]

    def mode(self) -> NDArray[np.float32]:
        """The mean."""
        return self.mean

    def sample(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A random number."""
        return self.mean + self.std * rng.standard_normal(self.mean.shape, dtype=np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Policy(About):
    """Decides from one observation.

    Takes copies of `arrays` and `metadata`, which `mec_jax.policy_schema` describes; NumPy and JAX arrays in the
    metadata become lists and numbers. If they don't describe a policy, a ValueError says what to change.
    """

    arrays: Mapping[str, NDArray[Any]]  # float32, read-only
    metadata: Mapping[str, Any]

    def __post_init__(self) -> None:
        metadata = as_json(self.metadata)
        check_metadata(metadata)
        arrays = {str(name): read_only(str(name), value) for name, value in self.arrays.items()}
        check_arrays(arrays, metadata)
        object.__setattr__(self, "metadata", metadata)
        object.__setattr__(self, "arrays", arrays)

    def __repr__(self) -> str:
        size, heads = self.metadata["observation"]["size"], self.metadata["network"]["heads"]
        action = f"{self.metadata['action']}({', '.join(head['name'] for head in heads)})"
        return f"<Policy for {self.metadata['env_id']}: {action} from {size} numbers>"

    def act(self, observation: ArrayLike, rng: np.random.Generator | None = None) -> Any:
        """Decides.

        Args:
            observation: [..., size], finite, each entry what `observation_names` says, as `observation` builds it.
            rng: Draws the action; without it the action is the likeliest one.

        Returns:
            A NamedTuple like the environment's action, e.g. `OffloadAction(cut, channel, power)`, each
            [..., *shape]: int32 for a categorical head, float32 within its bounds for a gaussian one.

        Raises:
            ValueError: If the observation is none, or allows no choice where some are masked.
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
        return action_class(self.metadata["action"], tuple(action))(*action.values())

    def distribution(self, observation: ArrayLike) -> dict[str, Categorical | Gaussian]:
        """What the heads say of an observation as for `act`, by name: logits, or mean and standard deviation."""
        network = self.metadata["network"]
        activation = _ACTIVATIONS[network["activation"]]
        said: dict[str, Categorical | Gaussian] = {}
        with np.errstate(all="ignore"):  # what overflows is refused
            seen = _observation(observation, self.metadata["observation"])
            x = _normalised(seen, self.metadata["observation"]["normalisation"])
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
                raw = self._dense(last, raw).swapaxes(0, 1)  # [batch, net, outputs]
                shape = (*batch, *head["shape"])
                if head["kind"] == "categorical":
                    logits = raw.reshape(*shape, head["size"])
                    if "allowed" in head:
                        allowed = seen[..., head["allowed"]] > 0
                        refuse_no_choice(head, allowed)
                        logits = np.where(allowed, logits, _LEAST)
                    said[head["name"]] = Categorical(logits)
                else:
                    mean, std = (part.reshape(shape) for part in np.split(raw, 2, axis=-1))
                    said[head["name"]] = _gaussian(mean, std, head)
        if not all(np.isfinite(part).all() for parts in said.values() for part in parts):
            raise ValueError("the network overflows on this observation: give it numbers like those it was trained on")
        return said

    def _dense(self, layer: str, x: _Floats) -> _Floats:
        return x @ self.arrays[f"{layer}/kernel"] + self.arrays[f"{layer}/bias"][:, None]


def _sigmoid(x: _Floats) -> _Floats:
    power = np.exp(-np.abs(x))
    return np.where(x < 0, power, 1) / (1 + power)


_ACTIVATIONS: dict[str, _Function] = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
_MEANS: dict[str, _Function] = {"linear": lambda x: x, "sigmoid": _sigmoid}
_STDS: dict[str, _Function] = {"softplus": lambda x: np.logaddexp(x, 0), "sigmoid": _sigmoid, "exp": np.exp}
_float32 = functools.partial(np.asarray, dtype=np.float32)
_LEAST = np.finfo(np.float32).min  # logit of a choice that is not allowed


def _each_slot(x: _Floats, common: int, slots: int, features: int) -> _Floats:
    """What a network reads that scores slots, a row for each slot of each observation."""
    own = x[:, common:].reshape(-1, features)
    return np.concatenate([np.repeat(x[:, :common], slots, axis=0), own], axis=1)


def _gaussian(mean: _Floats, std: _Floats, head: Mapping[str, Any]) -> Gaussian:
    """From the raw means and standard deviations, [..., *shape]."""
    scale, offset, std_min = (_float32(head[name]) for name in ("scale", "offset", "std_min"))
    return Gaussian(_MEANS[head["mean"]](mean) * scale + offset, _STDS[head["std"]](std) * scale + std_min)


def _observation(value: ArrayLike, about: Mapping[str, Any]) -> _Floats:
    """The observation as the environment returns it."""
    x = numbers("the observation", value, "fiu", functools.partial(_wanted, about))
    if x.shape[-1:] != (about["size"],):
        raise ValueError(f"the observation has shape {x.shape}: {_wanted(about)}")
    x = x.astype(np.float32, copy=False)
    if not np.isfinite(x).all():
        raise ValueError("the observation holds a NaN, or a number too large for float32: give finite ones")
    return x


def _normalised(x: _Floats, normal: Any) -> _Floats:
    """The observation as the network reads it."""
    if normal == AS_RETURNED:
        return x
    clip = _float32(normal.get("clip", np.inf))
    return np.clip((x - _float32(normal["mean"])) / _float32(normal["std"]), -clip, clip)


def _wanted(about: Mapping[str, Any]) -> str:
    """What to give instead. Only where there is an error: to word it takes longer than a decision."""
    return f"give [..., {about['size']}], {textwrap.shorten(_contents(about['blocks']), 200, placeholder=' ...')}"


def _contents(blocks: list[dict[str, Any]]) -> str:
    """The fields of an observation, in words."""
    parts = []
    for block in blocks:
        fields = (f"{f['formula']} [{f['count']}]" if f["count"] > 1 else f["formula"] for f in block["fields"])
        each = f"for each {block['of']} ({block['repeats']}) " if block["of"] else ""
        parts.append(each + ", ".join(fields))
    return "; ".join(parts)


# Files.


def save_policy(path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], metadata: Mapping[str, Any]) -> None:
    """Writes a policy that `load_policy` will read; else a ValueError says what to change, and no file changes."""
    policy = Policy({name: np.asarray(value) for name, value in arrays.items()}, metadata)
    text = json.dumps(policy.metadata).encode()
    if len(text) > MAX_METADATA:
        raise ValueError(f"the metadata have {len(text)} bytes, a file's at most {MAX_METADATA}: leave something out")
    about = {"metadata": text, "sha256": digest(text, policy.arrays)}
    entries: dict[str, Any] = {**policy.arrays, **{name: np.frombuffer(data, np.uint8) for name, data in about.items()}}
    content = io.BytesIO()
    np.savez(content, **entries)
    if (size := content.tell()) > _MAX_BYTES:
        raise ValueError(f"the policy has {size} bytes, a file at most {_MAX_BYTES}: make the network smaller")
    check_file(path, "policy file", (".npz",))
    try:
        write_bytes(path, content.getvalue())  # no view: CPython 3.12.1 crashes over one that an error still holds
    except OSError as error:
        mend = "give a file name in an existing folder that you may write to and that has room"
        raise ValueError(f"can't write policy file {os.fspath(path)!r}: {reason(error)}; {mend}") from None


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Reads a file that `save_policy` wrote, of any schema so far; of any other a ValueError says what is wrong."""
    start = f"policy file {os.fspath(path)!r}:"
    try:
        metadata, arrays = _read(Path(path))
    except OSError as error:
        raise ValueError(f"{start} it can't be read ({reason(error)}); give the path of a policy file") from None
    except Exception as error:  # zipfile, NumPy and json raise a dozen kinds
        raise ValueError(f"{start} it is damaged or no policy ({reason(error)}); copy or export it again") from None
    try:
        return Policy(arrays, upgrade(metadata))
    except (ValueError, MemoryError) as error:
        raise ValueError(f"{start} {error}") from None


def _read(path: Path) -> tuple[Any, dict[str, _Floats]]:
    """The metadata and arrays as they were written: their digest is right."""
    content = read_bytes(path, _MAX_BYTES)
    if (members := content.count(b"PK\1\2")) > _MAX_MEMBERS:  # before a list of them is made, which takes long
        raise ValueError(f"it has {members} entries, at most {_MAX_MEMBERS} are read")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if missing := {"metadata.npy", "sha256.npy"} - set(archive.namelist()):
            raise ValueError(f"it has no entry {min(missing)!r}")
        if any(info.compress_type for info in infos) or sum(info.file_size for info in infos) > len(content):
            raise ValueError("it is compressed")  # and may claim more than there is memory
        read = {info.filename.removesuffix(".npy"): io.BytesIO(archive.read(info)) for info in infos}
    arrays = {name: np.lib.format.read_array(member, allow_pickle=False) for name, member in read.items()}
    if odd := [name for name, array in arrays.items() if array.dtype.kind not in "fiu"]:
        raise ValueError(f"array {odd[0]!r} is of type {arrays[odd[0]].dtype}, not made of real numbers")
    text, written = arrays.pop("metadata").tobytes(), arrays.pop("sha256").tobytes()
    if digest(text, arrays) != written:
        raise ValueError("its sha256 digest differs")
    if len(text) > MAX_METADATA:
        raise ValueError(f"its metadata have {len(text)} bytes, at most {MAX_METADATA} are read")
    return json.loads(text.decode()), arrays
