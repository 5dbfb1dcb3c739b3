"""Policy files of a hostile writer, whose digest is right: refused, or policies that decide soundly and cost little.

One thing in the metadata or the arrays is of another type, size or name, or several agree on a size that would take
gigabytes. `mec_jax.policy.load_policy` must see it, or it must do no harm.
"""

import copy
import hashlib
import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.harness.campaign import TAKEN, fate
from benchmarks.robustness.hostile_observations import policies, valid_quantities, wrong_action
from mec_jax.policy import Policy, load_policy, save_policy

type Place = tuple[Any, ...]
"""Keys that lead to a value."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 0.5, -1e-9, 1e39, 1e-60, 1e999, math.nan),
    *(2**20, 2**20 + 1, 10**9, 2**31 - 1, 2**31, 2**63, 10**30, 10**400),
    *("", " ", "x", "cut", "power", "class", "__class__", "_x", "a b", "../x", "\0", "é", "\ud800", "x" * 10_000),
    *("linear", "one-hot", "log10", "flag", "env_params.beta", "env_params.", "present", "unknown", "tanh"),
    *([], [3], [1, 2], [[]], [None], ["x"] * 1000, [0] * 100_000, [[0] * 100] * 100, [1e39], ["cut", "cut"]),
    *({}, {"x": 1}, {"function": "linear"}, {"mean": [0], "std": [1]}),
)
"""What stands in for a value of the metadata."""

LARGE = (2**16, 2**20, 10**9, 2**31 - 1)
"""Sizes on which several fields agree."""


class File(NamedTuple):
    """What a policy file holds."""

    metadata: Any
    arrays: dict[str, np.ndarray]


def forge(path: Path, file: File, text: bytes | None = None) -> None:
    """Write a file with a right digest, as `save_policy` would not.

    Args:
        path: The file.
        file: What it holds.
        text: Instead of the metadata.
    """
    about = json.dumps(file.metadata).encode() if text is None else text
    digest = hashlib.sha256(about)
    for name in sorted(file.arrays):
        array = file.arrays[name]
        digest.update(f"\0{name} {array.shape}\0".encode(errors="surrogatepass"))
        digest.update(np.asarray(array.real, "<f4").tobytes() if array.dtype.kind in "fiubc" else array.tobytes())
    rest = {"metadata": np.frombuffer(about, np.uint8), "sha256": np.frombuffer(digest.digest(), np.uint8)}
    content = io.BytesIO()
    with np.errstate(over="ignore"), zipfile.ZipFile(content, "w") as archive:
        for name, array in {**file.arrays, **rest}.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", member.getvalue())
    path.write_bytes(content.getvalue())


def places(value: Any, path: Place = ()) -> Iterator[Place]:
    """Where in a JSON value others stand, but for the numbers of long lists."""
    children = value.items() if isinstance(value, dict) else enumerate(value[:8]) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from places(child, (*path, key))


def at(value: Any, path: Place) -> Any:
    """What stands there."""
    for key in path:
        value = value[key]
    return value


def forged(file: File, rng: np.random.Generator) -> tuple[File, bytes | None]:
    """The file after one act of a hostile writer, and a text instead of its metadata."""
    metadata, arrays = copy.deepcopy(file.metadata), dict(file.arrays)
    everywhere = list(places(metadata))
    path = everywhere[rng.integers(len(everywhere))]
    parent, key = at(metadata, path[:-1]), path[-1]
    match int(rng.integers(10)):
        case 0 | 1 | 2:
            parent[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
        case 3:
            del parent[key]
        case 4:
            parent[key] = copy.deepcopy(at(metadata, everywhere[rng.integers(len(everywhere))]))
        case 5:
            return File(_many(metadata, rng), arrays), None
        case 6 | 7:
            return File(_large(metadata, rng), arrays), None
        case 8:
            return File(metadata, _arrays(arrays, rng)), None
        case 9:
            return File(metadata, arrays), _text(rng)
    if isinstance(parent, dict) and rng.integers(8) == 0:
        parent[str(VALUES[28 + rng.integers(20)])] = 1
    return File(metadata, arrays), None


def _many(metadata: Any, rng: np.random.Generator) -> Any:
    """A list or an object with very many members."""
    lists = [path for path in places(metadata) if isinstance(at(metadata, path), list) and at(metadata, path)]
    chosen = at(metadata, lists[rng.integers(len(lists))])
    chosen += chosen[:1] * int(rng.choice([1, 300, 100_000], p=[0.45, 0.45, 0.1]))
    return metadata


def _large(metadata: Any, rng: np.random.Generator) -> Any:
    """Sizes that agree on what would take gigabytes."""
    seen, network = metadata["observation"], metadata["network"]
    size = int(rng.choice(LARGE))
    block = seen["blocks"][int(rng.integers(len(seen["blocks"])))]
    field = block["fields"][int(rng.integers(len(block["fields"])))]
    match int(rng.integers(4)):
        case 0:  # nothing of it, but very wide
            block["repeats"], field["count"], block["of"] = 0, size, "x"
        case 1:  # entries that no array needs, where slots share one network
            block["repeats"] = size
            if "per_slot" in network:
                network["per_slot"]["slots"] = network["heads"][0]["size"] = size
                network["heads"][0].pop("allowed", None)
        case 2:
            network["heads"][0]["size"] = size
        case 3:
            network["heads"][0]["shape"] = [network["stacked"], size]
    seen["size"] = sum(block["repeats"] * sum(field["count"] for field in block["fields"]) for block in seen["blocks"])
    if rng.integers(2):
        seen["normalisation"] = "as the environment returns it"
    return metadata


def _arrays(arrays: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One array of another type, shape or name."""
    name = sorted(arrays)[rng.integers(len(arrays))]
    array = arrays.pop(name)
    match int(rng.integers(6)):
        case 0:
            kinds = ("f8", "f2", "i8", "u1", "?", "c8", "S3", "U2", "M8[s]", "V7", ">f4")
            arrays[name] = array.astype(kinds[rng.integers(len(kinds))])
        case 1:
            arrays[name] = np.where(rng.random(array.shape) < 0.01, (np.nan, np.inf, -np.inf)[rng.integers(3)], array)
        case 2:
            arrays[name] = (array[..., :0], array[None], array.T, array.ravel(), array[..., 0], array[:0])[
                rng.integers(6)
            ]
        case 3:
            arrays[("x", "../x", "x" * 1000, "metadata2", f"{name}/kernel", "é")[rng.integers(6)]] = array
        case 4:
            arrays |= {name: array, f"{name}_": array}
        case 5:
            arrays[name] = array * np.float32(1e30)
    return arrays


def _text(rng: np.random.Generator) -> bytes:
    """What is no JSON object, or one that takes long to read."""
    texts = (b"", b"{", b"null", b"[]", b"1", b'"x"', b"\xff\xfe", b"NaN", b"[" * 10**6, b"[" * 10**6 + b"]" * 10**6)
    long = (b"1" * 10**6, b'{"x": ' + b"9" * 5000 + b"}", b"[" + b"{}," * 10**6 + b"1]", b" " * (2**24 + 1))
    chosen = long if rng.integers(8) == 0 else texts
    return chosen[rng.integers(len(chosen))]


def unsound(policy: Policy, folder: Path, rng: np.random.Generator) -> str:
    """What is wrong with a policy that was taken, or nothing."""
    size = policy.metadata["observation"]["size"]
    if len(policy.observation_names) != size or not repr(policy):
        return "its observation has other names"
    observations = np.abs(rng.normal(size=(2, size))).astype(np.float32)
    try:
        given: Mapping[str, Any] = valid_quantities(policy, rng)
        built = policy.observation(**given)
    except ValueError as error:  # what is valid by the rules that were forged may not be so by others
        if "\n" in str(error):
            return f"unclear: {error}"
    else:
        if built.shape[-1:] != (size,) or not np.isfinite(built).all():
            return "its quantities make no observation"
    for generator in (None, rng):
        try:
            action = policy.act(observations, generator)
        except ValueError as error:
            if "overflows" not in str(error):
                return f"unclear: {error}"
        else:
            if wrong := wrong_action(policy, observations, action):
                return wrong
    save_policy(folder / "again.npz", policy.arrays, policy.metadata)
    again = load_policy(folder / "again.npz")
    return "" if again.metadata == policy.metadata else "it is not what it is when it is saved and loaded"


def examples(folder: Path) -> list[File]:
    """Policies of each kind, as their files hold them."""
    return [File(json.loads(json.dumps(policy.metadata)), dict(policy.arrays)) for policy in policies(folder)]


def forged_fate(path: Path, load: Callable[[Path], Policy], rng: np.random.Generator) -> str:
    """What becomes of a file."""
    return fate(
        lambda: unsound(load(path), path.parent, rng),
        lambda wrong: f"taken though {wrong}" if wrong else TAKEN,
        repr(str(path)),
    )
