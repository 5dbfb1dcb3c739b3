"""Damaged profile and policy files: each one clear ValueError, never a crash.

    python -m benchmarks.robustness profiles policies

A file is damaged as disks, networks and editors do it: bits flipped, bytes overwritten, cut out, doubled, exchanged,
the end lost; and a profile's JSON also by values of another type, size or sign, and by fields that are missing, unknown
or double. Damage may leave a file whole: a digit of a number, a letter of a description, a date in an archive that no
one reads. Then it must load: a policy unchanged, since it carries a digest, a profile with sensible numbers. Half of
the policies are forged instead (`benchmarks.robustness.forged_policies`).
"""

import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.campaign import WHOLE, fate
from benchmarks.robustness.forged_policies import examples, forge, forged, forged_fate
from mec_jax.policy import KIND, SCHEMA, Policy, load_policy, save_policy
from mec_jax.profiles import Profile, load_profile

VALUES: tuple[Any, ...] = (None, True, -1, 0, 1e999, -1e-9, math.nan, 10**30, "x", "", [], [1, 2], {}, {"x": 1}, [[[]]])
"""What stands in for a value of a profile."""


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file after an accident."""
    data = bytearray(content)
    start, stop = sorted(int(at) for at in rng.integers(0, len(data) + 1, 2))
    stop = min(stop, start + int(2 ** rng.uniform(0, 12)))
    match int(rng.integers(6)):
        case 0:
            for at in rng.integers(0, len(data), int(rng.integers(1, 9))):
                data[at] ^= 1 << int(rng.integers(8))
        case 1:
            data[start:stop] = rng.bytes(stop - start)
        case 2:
            data[start:stop] = bytes(stop - start)
        case 3:
            del data[start:stop]
        case 4:
            data[start:start] = data[start:stop]
        case 5:
            del data[start:]
    return bytes(data)


def damaged_json(content: bytes, rng: np.random.Generator) -> bytes:
    """A profile with one value or field wrong."""
    profile = json.loads(content)
    parents = [node for node in _nodes(profile) if isinstance(node, dict | list) and len(node) > 0]
    parent: Any = parents[int(rng.integers(len(parents)))]
    keys: list[Any] = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    key = keys[int(rng.integers(len(keys)))]
    match int(rng.integers(4)):
        case 0 | 1:
            parent[key] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
        case 2:
            del parent[key]
        case 3 if isinstance(parent, dict):
            parent[f"{key}_"] = parent.pop(key)
        case _:
            text = json.dumps(profile)
            field = json.dumps(key) + ":"
            return text.replace(field, f"{field} 1, {field}", 1).encode()
    return json.dumps(profile).encode()


def _nodes(value: Any) -> Iterator[Any]:
    yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _nodes(child)


def _fate(load: Callable[[Path], Any], path: Path, content: bytes, is_sound: Callable[[Any], bool]) -> str:
    """What becomes of a file with this content."""
    path.write_bytes(content)

    def verdict(loaded: Any) -> str:
        return WHOLE if is_sound(loaded) else f"loaded though it is not sound: {loaded!r}"

    return fate(lambda: load(path), verdict, repr(str(path)))


def sound_profile(profile: Profile) -> bool:
    """Whether an environment can use it."""
    numbers = (*profile.bits, *profile.front_time, *profile.front_power, profile.observation_time)
    return (
        all(math.isfinite(number) and number >= 0 for number in numbers)
        and len(profile.bits) == len(profile.front_time) == len(profile.front_power) >= 2
        and all(bits > 0 for bits in profile.bits[:-1])
        and profile.bits[-1] == 0
        and profile.observation_time > 0
    )


def example_policy(path: Path) -> Policy:
    """Writes and reads a small policy."""
    heads = [
        {"name": "cut", "kind": "categorical", "layers": ["cut_0"], "shape": [3], "size": 6},
        {
            **{"name": "power", "kind": "gaussian", "layers": ["power_0"], "shape": [3], "size": 1},
            **{
                "mean": "sigmoid",
                "offset": 0.0,
                "std": "softplus",
                "std_min": 1e-6,
                "scale": 1.0,
                "low": 1e-10,
                "high": [1.0, 0.5, 1.0],
            },
        },
    ]
    fields = [{"name": name, "unit": "1", "formula": name, "count": 1, "transform": None} for name in ("a", "b")]
    metadata = {
        **{"schema": SCHEMA, "kind": KIND, "env_id": "MultiUEOffloading-v0", "env_static": {"num_ues": 3}},
        **{"env_params": {"beta": 0.47}, "action": "Action", "provenance": {}, "score": {"return": -0.5}},
        "cuts": None,
        "observation": {
            "size": 6,
            "blocks": [{"of": "UE", "repeats": 3, "fields": fields, "beside": []}],
            "normalisation": {"mean": [0.0] * 6, "std": [1.0] * 6},
        },
        "network": {"stacked": 3, "activation": "relu", "trunk": ["trunk_0"], "heads": heads},
    }
    rng = np.random.default_rng(0)
    arrays = {}
    for layer, inputs, outputs in (("trunk_0", 6, 8), ("cut_0", 8, 6), ("power_0", 8, 2)):
        arrays[f"{layer}/kernel"] = rng.normal(size=(3, inputs, outputs))
        arrays[f"{layer}/bias"] = rng.normal(size=(3, outputs))
    save_policy(path, arrays, metadata)
    return load_policy(path)


def same_policy(policy: Policy, other: Policy) -> bool:
    """Whether two policies decide alike and say so."""
    return policy.metadata == other.metadata and {name: x.tobytes() for name, x in policy.arrays.items()} == {
        name: x.tobytes() for name, x in other.arrays.items()
    }


def profile_fates(count: int, seed: int, folder: Path) -> Counter[str]:
    """What becomes of damaged profiles, half of them damaged as bytes and half as JSON."""
    content = (resources.files("mec_jax.profiles") / "data" / "resnet18.json").read_bytes()
    rng = np.random.default_rng(seed)
    path = folder / "damaged.json"
    fates: Counter[str] = Counter()
    for index in range(count):
        broken = (damaged, damaged_json)[index % 2](content, rng)
        fates[_fate(load_profile, path, broken, sound_profile)] += 1
    return fates


def policy_fates(count: int, seed: int, folder: Path, load: Callable[[Path], Policy] = load_policy) -> Counter[str]:
    """What becomes of policies, half of them damaged and half forged by a writer who knows how to make a digest."""
    policy = example_policy(folder / "policy.npz")
    content = (folder / "policy.npz").read_bytes()
    others = examples(folder)
    rng = np.random.default_rng(seed)
    path = folder / "damaged.npz"
    fates: Counter[str] = Counter()
    for index in range(count):
        if index % 2:
            fates[_fate(load, path, damaged(content, rng), lambda loaded: same_policy(loaded, policy))] += 1
        else:
            forge(path, *forged(others[rng.integers(len(others))], rng))
            fates[forged_fate(path, load, rng)] += 1
    return fates
