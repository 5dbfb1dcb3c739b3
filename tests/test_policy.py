import ast
import copy
import hashlib
import io
import itertools
import json
import math
import os
import re
import subprocess
import sys
import timeit
import zipfile
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import scipy.special
import scipy.stats

from mec_jax import policy as module
from mec_jax import policy_schema
from mec_jax.policy import KIND, Categorical, Gaussian, Policy, load_policy, save_policy
from tests import on_device
from tests.errors import error_of
from tests.tolerance import FUNCTION, assert_acts, assert_says, close, said_by

UES, CUTS, CHANNELS, SIZE = 3, 6, 2, 12
HIGH = np.array([1.0, 0.5, 1.0], np.float32)  # W

# The documented example, and what it leaves out.
METADATA: dict[str, Any] = json.loads("{" + str(policy_schema.__doc__).split("\n    {")[1].split("\n    }")[0] + "}")
METADATA["env_static"]["profile"] = "resnet18"
METADATA["env_params"] |= {"paper_reward": False, "front_time": [[0, 0.1]] * UES}
METADATA["observation"]["blocks"][0]["fields"][1:] = [
    {"name": "time_left", "unit": "s", "formula": "time left / time given", "count": 1, "transform": None},
    {"name": "gain", "unit": "1", "formula": "log10 path gain", "count": 2, "transform": None},
]
CHANNEL = {"name": "channel", "kind": "categorical", "layers": ["channel_0"], "shape": [UES], "size": CHANNELS}
METADATA["network"]["heads"].insert(1, CHANNEL)
METADATA["score"] = {"normalised": 0.9, "return": None}
NORMAL, BLOCK, HEAD = ("observation", "normalisation"), ("observation", "blocks", 0), ("network", "heads", 2)
CUT, RULE = ("cuts", "profiles", 0), (*BLOCK, "fields", 0, "transform")
PROFILE = METADATA["cuts"]["profiles"][0]
LEFT_OUT = object()


def at(*keys: str | int, value: Any) -> dict[str, Any]:
    """`METADATA` with the value under `keys` replaced or left out."""
    parent: Any = (content := copy.deepcopy(METADATA))
    for key in keys[:-1]:
        parent = parent[key]
    parent[keys[-1]] = value
    if value is LEFT_OUT:
        del parent[keys[-1]]
    return content


def make_arrays(metadata: dict[str, Any] = METADATA, hidden: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays that fit the metadata; the layers' widths differ."""
    rng = np.random.default_rng(seed)
    arrays: dict[str, np.ndarray] = {}
    for head in metadata["network"]["heads"]:
        width = SIZE
        for index, layer in enumerate(layers := [*metadata["network"]["trunk"], *head["layers"]]):
            last = math.prod(head["shape"][1:]) * (head["size"] if head["kind"] == "categorical" else 2)
            inputs, width = width, last if index == len(layers) - 1 else hidden + index
            arrays[f"{layer}/kernel"] = rng.normal(size=(UES, inputs, width), scale=0.5).astype(np.float32)
            arrays[f"{layer}/bias"] = rng.normal(size=(UES, width), scale=0.5).astype(np.float32)
    return arrays


ARRAYS = make_arrays()
DATA = Path(__file__).resolve().parent / "data"
BASELINE = DATA / "baseline"
SCHEMA_1 = sorted(BASELINE.glob("*_*.npz"))
assert len(SCHEMA_1) == 14
OBSERVATION = np.random.default_rng(1).uniform(size=SIZE).astype(np.float32)
POLICY = Policy(ARRAYS, METADATA)


def state(policy: Policy) -> object:
    return policy.metadata, {name: (array.dtype, array.tolist()) for name, array in policy.arrays.items()}


def extended(header: bytes) -> bytes:
    """A policy file with one more array, of this header and no values."""
    with zipfile.ZipFile(file := io.BytesIO(VALID), "a") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00\x80\x00" + header.ljust(128))
    return file.getvalue()


def forged(about: Any = METADATA, arrays: Any = ARRAYS, save: Any = np.savez, **entries: np.ndarray) -> bytes:
    """A file with a right digest, written by other means; `entries` replaces or adds whole entries."""
    text = about if isinstance(about, bytes) else json.dumps(about).encode()
    digest = hashlib.sha256(text)
    for name in sorted(arrays):
        digest.update(f"\0{name} {arrays[name].shape}\0".encode() + arrays[name].astype("<f4").tobytes())
    content = {"metadata": np.frombuffer(text, np.uint8), "sha256": np.frombuffer(digest.digest(), np.uint8)}
    save(file := io.BytesIO(), **(arrays | content | entries))
    return file.getvalue()


VALID = forged()
BOMB = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }"
SIZES = VALID.index(b"PK\x01\x02") + 20  # in the directory, of the first entry
BAD_FILES: list[tuple[bytes, str]] = [
    (b"", "it is damaged or no policy (File is not a zip file); copy or export it again"),
    (b"\x89PNG\r\n\x1a\n" + bytes(500), "not a zip file"),
    (VALID[:-30], "not a zip file"),
    (forged(save=lambda file, **_: np.savez(file, x=np.zeros(3))), "it has no entry 'metadata.npy'"),
    (forged(save=np.savez_compressed), "it is compressed"),
    (VALID[:SIZES] + b"\xf0\xff\xff\x7f" * 2 + VALID[SIZES + 8 :], "it is compressed"),
    (VALID.replace(b"0.47", b"0.48"), "Bad CRC-32 for file 'metadata.npy'"),
    (forged(metadata=np.frombuffer(b"{}", np.uint8)), "its sha256 digest differs"),
    (forged(**{"cut_1/bias": ARRAYS["cut_1/bias"][::-1]}), "its sha256 digest differs"),
    (forged(x=np.zeros(3, np.float32)), "its sha256 digest differs"),
    (forged(x=np.array([{}], object)), "Object arrays cannot be loaded when allow_pickle=False"),
    (forged(**{f"x{i}": np.zeros(0) for i in range(2**14)}), "it has 16400 entries, at most 16384 are read"),
    (forged(x=np.zeros(3, complex)), "array 'x' is of type complex128, not made of real numbers"),
    (extended(BOMB), "Unable to allocate"),
    (extended(b"[" * 128), "it is damaged or no policy"),
    *((forged(text), "it is damaged or no policy") for text in (b"\xff\xfe", b"{", b"[" * 100_000, b"1" * 5000)),
    (forged(b"null"), "field 'metadata' is null: it must be an object"),
    (forged(b"{}"), f"field 'kind' is missing: it must be {KIND}"),
    (forged(json.dumps(METADATA).replace("0.47", "NaN").encode()), "can't be written as JSON"),
    (forged(at("schema", value=4)), "field 'schema' is 4: it must be 3; export the policy again, or install the"),
    (forged(at("schema", value=1)), "field 'schema' is 1: it must be 3"),  # and then it would have "per_ue"
    (forged(arrays={}), "no array 'channel_0/bias'; name every layer"),
    (forged(arrays=ARRAYS | {"cut_0/bias": np.full((3, 10), np.inf)}), "'cut_0/bias' holds a NaN or infinity"),
]


@pytest.mark.parametrize(("content", "said"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_file_that_is_no_policy_says_why(tmp_path: Path, content: bytes, said: str) -> None:
    (path := tmp_path / "policy.npz").write_bytes(content)
    message = error_of(load_policy, path)
    assert message.startswith(f"policy file {str(path)!r}: ") and said in message


def test_no_error_is_worded_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """To word one takes four times as long as a decision."""
    monkeypatch.setattr("mec_jax.policy._wanted", lambda about: pytest.fail("worded"))
    POLICY.act(OBSERVATION)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    path = str(tmp_path / "policy.npz")  # a text will do, too
    save_policy(path, ARRAYS, METADATA)
    assert Path(path).read_bytes() == VALID, "another file format"
    policy = load_policy(path)
    assert state(policy) == state(POLICY) and policy.metadata == METADATA
    assert all(np.array_equal(x, y) for x, y in zip(policy.act(OBSERVATION), POLICY.act(OBSERVATION), strict=True))
    save_policy(path, policy.arrays, policy.metadata)
    assert Path(path).read_bytes() == VALID
    assert sorted(os.listdir(tmp_path)) == ["other", "policy.npz"]
    assert os.stat(path).st_mode == (tmp_path / "other").stat().st_mode, "others may not read it"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize(("call", "exists"), [*itertools.product(["fsync", "replace"], [False, True])])
def test_failed_write_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, call: str, exists: bool
) -> None:
    path = tmp_path / "policy.npz"
    if exists:
        path.write_bytes(b"the old one")
    monkeypatch.setattr(os, call, Mock(side_effect=error))
    with pytest.raises((ValueError, KeyboardInterrupt)) as caught:
        save_policy(path, ARRAYS, METADATA)
    said = f"can't write policy file {str(path)!r}: No space left on device; give a file name in an existing folder"
    assert said in str(caught.value) if isinstance(error, OSError) else caught.value is error
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the old one"] * exists


@pytest.mark.parametrize("name", ["missing/policy.npz", "file/policy.npz", "folder", "x" * 300, "a\0b.npz"])
def test_impossible_place_is_named_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    path = str(tmp_path / name)
    assert f"can't write policy file {path!r}: " in error_of(save_policy, path, ARRAYS, METADATA)
    error_of(save_policy, tmp_path / "policy.npz", ARRAYS, at("network", value=LEFT_OUT))
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["file", "folder"]
    message = error_of(load_policy, path)
    assert message.startswith(f"policy file {path!r}: it ") and ("; give the path of a" in message or "\0" in name)


def test_metadata_that_would_take_gigabytes_are_refused(tmp_path: Path) -> None:
    (path := tmp_path / "policy.npz").write_bytes(forged(at("provenance", value={"log": " " * 2**24})))
    assert "its metadata have 167" in error_of(load_policy, path)
    assert "the metadata have 167" in error_of(save_policy, path, ARRAYS, at("provenance", value={"log": " " * 2**24}))


def test_file_too_large_for_the_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path := tmp_path / "policy.npz").write_bytes(VALID)
    with monkeypatch.context() as patch:
        patch.setattr(module, "read_bytes", Mock(side_effect=MemoryError()))
        assert "(MemoryError)" in error_of(load_policy, path)
    os.truncate(path, 2**30 + 1)  # a hole: it takes no room
    assert "it has 1073741825 bytes, at most 134217728 are read" in error_of(load_policy, path)
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    assert "bytes, a file at most 1000: make the network smaller" in error_of(save_policy, path, ARRAYS, METADATA)


def test_damaged_file_is_a_value_error_or_the_policy_that_was_saved(tmp_path: Path) -> None:
    path, refused = tmp_path / "policy.npz", 0
    for seed in range(300):  # cut short, with bytes changed, zeroed, lost or added, or of random content
        rng = np.random.default_rng(seed)
        place, length = int(rng.integers(len(VALID))), int(rng.integers(1, 200))
        head, tail, rest = VALID[:place], VALID[place:], VALID[place + length :]
        flipped = head + bytes([tail[0] ^ int(rng.integers(1, 256))]) + tail[1:]
        noise = VALID[:4] + rng.bytes(len(VALID) - 26) + VALID[-22:]
        zeroed, longer = head + bytes(len(tail) - len(rest)) + rest, head + rng.bytes(length) + tail
        path.write_bytes([head, flipped, zeroed, head + rest, longer, noise][seed % 6])
        try:
            assert state(load_policy(path)) == state(POLICY)  # an archive holds bytes that no one reads, such as dates
        except ValueError as error:
            assert type(error) is ValueError and str(error).startswith(f"policy file {str(path)!r}: ")
            refused += 1
    assert refused > 200


VARIANTS = {
    "as documented": METADATA,
    "tanh": at("network", "activation", value="tanh"),
    "sigmoid": at(*HEAD, "std", value="sigmoid"),
    "no trunk": at("network", "trunk", value=[]),
    "exp, one scale": at(*HEAD, value=METADATA["network"]["heads"][2] | {"std": "exp", "scale": 0.25}),
    "clipped": at(*NORMAL, value={"mean": np.linspace(0.4, 0.6, SIZE), "std": np.linspace(0.01, 1, SIZE), "clip": 2}),
    "unclipped": at(*NORMAL, value={"mean": [0.5] * SIZE, "std": [0.1] * SIZE}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_distributions_are_those_of_float64(variant: str) -> None:
    policy = Policy(make_arrays(VARIANTS[variant], seed=2), VARIANTS[variant])
    observations = np.random.default_rng(3).uniform(size=(5, SIZE)).astype(np.float32)
    want = said_by(policy, observations)
    said = policy.distribution(observations)
    assert [*map(type, said.values())] == [Categorical, Categorical, Gaussian]
    assert all(part.dtype == np.float32 for parts in said.values() for part in parts)
    assert_says(said, want)
    assert_says(policy.distribution(observations[0]), said_by(policy, observations[0]))


def test_networks_side_by_side_are_as_if_each_were_alone() -> None:
    """The float64 value, too: worked out here for one network, one head and one observation after the other."""
    want = said_by(POLICY, OBSERVATION)
    for n, head in itertools.product(range(UES), METADATA["network"]["heads"]):
        x = OBSERVATION.astype(float)
        for index, layer in enumerate([*METADATA["network"]["trunk"], *head["layers"]]):
            if index:
                x = x * (x > 0)
            x = x @ ARRAYS[f"{layer}/kernel"][n].astype(float) + ARRAYS[f"{layer}/bias"][n]
        if head["kind"] == "gaussian":
            x = HIGH[n] * np.array([1 / (1 + np.exp(-x[0])), np.log(1 + np.exp(x[1]))]) + [0, float(np.float32(1e-6))]
        found = np.array([part.value[n] for part in want[head["name"]].parts])
        np.testing.assert_allclose(found.ravel(), x, rtol=1e-12, atol=1e-12)  # float64 both


@pytest.mark.parametrize("lead", [(), (1,), (50,), (2, 3), (0,)])
def test_action_without_a_generator_is_the_likeliest_of_each_in_the_batch(lead: tuple[int, ...]) -> None:
    observations = np.random.default_rng(4).uniform(size=(*lead, SIZE)).astype(np.float32)
    actions = POLICY.act(observations)
    for said in (actions, POLICY.act(observations, np.random.default_rng(0))):
        assert [(part.shape, part.dtype) for part in said] == [((*lead, UES), t) for t in ("int32", "int32", "float32")]
    assert_acts(actions._asdict(), said_by(POLICY, observations))
    assert lead != (50,) or len(np.unique(actions.cut)) > 1
    assert np.array_equal(POLICY.act([1] * SIZE).power, POLICY.act(np.ones(SIZE, np.float16)).power)


def test_what_is_drawn_has_the_probabilities_and_is_the_generators() -> None:
    observations = np.tile(OBSERVATION, (40_000, 1))
    want = {name: [part.value for part in said.parts] for name, said in said_by(POLICY, OBSERVATION).items()}
    actions, again, other = (POLICY.act(observations, np.random.default_rng(seed)) for seed in (6, 6, 7))
    assert all(np.array_equal(x, y) for x, y in zip(actions, again, strict=True))
    assert not np.array_equal(actions.power, other.power)

    def check(frequency: np.ndarray, p: np.ndarray) -> None:
        np.testing.assert_array_less(np.abs(frequency - p), 4.5 * np.sqrt(p * (1 - p) / len(observations)))

    for name, size in (("cut", CUTS), ("channel", CHANNELS)):
        p = scipy.special.softmax(want[name][0], -1)
        check((getattr(actions, name)[..., None] == np.arange(size)).mean(0), p)
    assert (actions.power.min(0) == np.float32(1e-10)).all() and (actions.power.max(0) == HIGH).all()
    for x in np.linspace(0.1, 0.9, 5)[:, None] * HIGH:
        check((actions.power <= x).mean(0), scipy.stats.norm.cdf(x, *want["power"]))


@pytest.mark.parametrize(("raw", "mean"), [(-1e4, 0.0), (-100.0, math.exp(-100)), (0.0, 0.5), (1e4, 1.0)])
@pytest.mark.parametrize("std", ["softplus", "sigmoid"])
def test_saturated_gaussians_are_exact_silent_and_clipped(raw: float, mean: float, std: str) -> None:
    metadata, low, high = at(*HEAD, "std", value=std), [0.2, 0.1, 0.1], [0.3, 0.1, 0.2]
    metadata["network"]["heads"][2] |= {"low": low, "high": high}
    arrays = {name: np.zeros_like(value) for name, value in ARRAYS.items()}
    arrays["power_1/bias"] += np.float32(raw)
    with np.errstate(all="raise"):
        power = Policy(arrays, metadata).distribution(OBSERVATION)["power"]
    assert isinstance(power, Gaussian)
    close(power.mean, mean * HIGH.astype(float), mean * HIGH, FUNCTION + 2)
    assert (power.mean > 0).all() or mean == 0
    factor = mean if std == "sigmoid" else raw if raw > 50 else math.log1p(math.exp(raw))
    expected = factor * HIGH.astype(float) + float(np.float32(1e-6))
    close(power.std, expected, expected, FUNCTION + 2)
    assert_says(Policy(arrays, metadata).distribution(OBSERVATION), said_by(Policy(arrays, metadata), OBSERVATION))
    assert np.array_equal(Policy(arrays, metadata).act(OBSERVATION).power, np.clip(mean * HIGH, low, high, dtype="f4"))


def test_action_is_the_environments_and_takes_well_below_a_millisecond() -> None:
    from mec_jax import make
    from mec_jax.envs.offloading import OffloadAction

    action = POLICY.act(OBSERVATION, np.random.default_rng(0))
    assert type(action).__name__ == OffloadAction.__name__ and action._fields == OffloadAction._fields
    env, params = make("MultiUEOffloading-v0", num_ues=UES, num_channels=CHANNELS)
    assert env.action_space(params.replace(power_max=HIGH)).contains(OffloadAction(*action))
    other = Policy(make_arrays(hidden=256), METADATA)
    assert type(action) is type(other.act(OBSERVATION)), "two policies of one kind have one class"
    assert min(timeit.repeat(lambda: other.act(OBSERVATION), number=1, repeat=200)) < 1e-3


def test_policy_is_a_frozen_copy_of_arrays_of_any_type() -> None:
    assert repr(POLICY) == "<Policy for MultiUEOffloading-v0: OffloadAction(cut, channel, power) from 12 numbers>"
    arrays = {name: np.asfortranarray(value.astype(float)) for name, value in ARRAYS.items()}
    arrays["cut_1/bias"] = ARRAYS["cut_1/bias"].copy()
    policy = Policy(arrays, metadata := at("env_params", value={"beta": np.float32(0.5), "power_max": HIGH}))
    with pytest.raises(FrozenInstanceError):
        policy.metadata = {}  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        policy.arrays["cut_1/bias"][0, 0] = 1
    arrays["cut_1/bias"] += 100
    metadata["network"]["activation"] = "tanh"
    assert state(policy) == state(Policy(ARRAYS, at("env_params", value={"beta": 0.5, "power_max": HIGH.tolist()})))


def test_loading_and_acting_need_numpy_alone(tmp_path: Path) -> None:
    (path := tmp_path / "policy.npz").write_bytes(VALID)
    code = f"""import sys
class NothingElse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {{"numpy", "mec_jax", *sys.stdlib_module_names}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, NothingElse())
import numpy as np, mec_jax.policy
policy = mec_jax.policy.load_policy(sys.argv[1])
policy.act(np.zeros({SIZE}), np.random.default_rng(0))
assert len(policy.observation_names) == {SIZE}"""
    subprocess.run([sys.executable, "-c", code, path], check=True)


def test_observation_names_tell_what_to_give() -> None:
    names = ["tasks left / tasks given", "time left / time given", "log10 path gain [0]", "log10 path gain [1]"]
    assert POLICY.observation_names == [f"UE {ue}: {name}" for ue in range(UES) for name in names]
    field = {"name": "load", "unit": "1", "formula": "log(load)", "count": 1, "transform": None}
    slots = {"of": "slot", "repeats": 2, "fields": [METADATA["observation"]["blocks"][0]["fields"][2]], "beside": []}
    blocks = [{"of": "", "repeats": 1, "fields": [field | {"count": 7}, field], "beside": []}, slots]
    common = [*(f"log(load) [{i}]" for i in range(7)), "log(load)"]
    rows = [f"slot {slot}: log10 path gain [{i}]" for slot in (0, 1) for i in (0, 1)]
    policy = Policy(ARRAYS, at("observation", "blocks", value=blocks))
    assert policy.observation_names == common + rows
    with pytest.raises(ValueError, match="for each slot"):
        policy.act(OBSERVATION[1:])


# What a device needs.


def test_the_files_that_are_named_are_all_that_a_device_needs(tmp_path: Path) -> None:
    on_device.write(tmp_path)
    named = re.search(r"with six files:\n(.*)\n\n", str(module.__doc__), re.DOTALL)
    assert named and set(re.findall(r"`(\w+\.py)`", named[1])) == {path.name for path in tmp_path.glob("mec_jax/*")}
    done = subprocess.run([sys.executable, "on_device.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("16 policies on Python ")


def test_what_a_device_needs_is_written_in_the_syntax_of_python_3_9() -> None:
    for name in (*on_device.MODULES, on_device.__name__):
        source = Path(str(sys.modules[name].__file__)).read_text()
        ast.parse(source, feature_version=(3, 9))
        assert "from __future__ import annotations" in source, "an annotation may be too new to be evaluated"


# Files of schema 1 and 2, and what the code that wrote them decided.


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(BASELINE / "parameters.npz"))


@pytest.mark.parametrize("file", SCHEMA_1, ids=lambda file: file.stem)
def test_files_of_schema_1_decide_as_they_did(file: Path, recorded: dict[str, np.ndarray], tmp_path: Path) -> None:
    entries = dict(np.load(file))
    assert json.loads(entries["metadata"].tobytes())["schema"] == 1
    policy = load_policy(file)
    size = policy.metadata["observation"]["size"]
    assert policy.metadata["schema"] == 3 and len(policy.observation_names) == size
    assert policy.arrays.keys() == entries.keys() - {"metadata", "sha256"}
    assert all(np.array_equal(array, entries[name]) for name, array in policy.arrays.items())

    observations = np.random.default_rng(5).uniform(0, 1, (8, size)).astype(np.float32)
    said, want = policy.distribution(observations), said_by(policy, observations)
    before = {
        name: [recorded[f"{file.stem}/decision/{name}/{field}"] for field in parts._fields]
        for name, parts in said.items()
    }
    assert len([name for name in recorded if name.startswith(f"{file.stem}/decision/")]) == sum(map(len, said.values()))
    assert_says(before, want)
    assert_says(said, want)
    assert_acts(policy.act(observations)._asdict(), want, share=0)
    # On one machine bit for bit, whatever machine it is.
    save_policy(tmp_path / "again.npz", policy.arrays, policy.metadata)
    again = load_policy(tmp_path / "again.npz")
    assert json.loads(np.load(tmp_path / "again.npz")["metadata"].tobytes())["schema"] == 3
    assert state(again) == state(policy)
    for name, parts in again.distribution(observations).items():
        assert all(np.array_equal(x, y) for x, y in zip(parts, said[name], strict=True))


@pytest.mark.parametrize("schema", [2, 3])
def test_files_of_later_schemas_decide_as_they_did(schema: int) -> None:
    path, recorded = DATA / "policies" / f"schema_{schema}.npz", np.load(DATA / "policies" / "recorded.npz")
    before, policy = json.loads(np.load(path)["metadata"].tobytes()), load_policy(path)
    assert before["schema"] == schema and policy.metadata["schema"] == 3
    assert policy.metadata["network"] == before["network"] and policy.metadata["env_params"] == before["env_params"]
    observations = recorded[f"schema_{schema}/observations"]
    want = said_by(policy, observations)
    assert_says({"action": [recorded[f"schema_{schema}/action/logits"]]}, want)
    assert_says(policy.distribution(observations), want)
    if schema == 3:
        names = [name for name in recorded.files if "/quantities/" in name]
        found = policy.observation(**{name.rpartition("/")[2]: recorded[name] for name in names})
        close(found, observations, np.abs(observations) + 1, FUNCTION + 6)


# The tolerance


def test_a_weight_changed_by_a_thousandth_is_seen() -> None:
    """Of the largest of each array: tanh lets all of them through, while a relu may be closed."""
    observations = np.random.default_rng(12).uniform(size=(64, SIZE)).astype(np.float32)
    want = said_by(Policy(ARRAYS, VARIANTS["tanh"]), observations)
    assert_says(Policy(ARRAYS, VARIANTS["tanh"]).distribution(observations), want)
    for name, array in ARRAYS.items():
        changed = array.copy()
        changed.flat[np.argmax(np.abs(array))] *= 1.001
        policy = Policy({**ARRAYS, name: changed}, VARIANTS["tanh"])
        with pytest.raises(AssertionError, match="may be"):
            assert_says(policy.distribution(observations), want)


def test_sums_in_any_order_are_close_and_others_are_not() -> None:
    rng = np.random.default_rng(13)
    terms = rng.normal(size=(20, 1000)).astype(np.float32)
    exact, magnitudes = terms.astype(float).sum(1), np.abs(terms).sum(1)
    for order in (terms, terms[:, ::-1], np.sort(terms, axis=1), rng.permuted(terms, axis=1)):
        for found in (np.cumsum(order, axis=1)[:, -1], order.sum(1), np.array([math.fsum(row) for row in order])):
            close(found, exact, magnitudes, terms.shape[1])
    wrong = terms.copy()
    wrong[3, 10] += 0.1
    for found in (wrong.sum(1), np.where(np.arange(20) == 7, np.nan, exact), exact[:-1]):
        with pytest.raises(AssertionError):
            close(found, exact, magnitudes, terms.shape[1])


# Masks


@pytest.fixture(scope="module")
def masked() -> Policy:
    """Its head may choose where an entry of the observation is positive: 11 cuts, in entries 4 to 14."""
    return load_policy(DATA / "policies" / "schema_3.npz")


def test_an_observation_that_allows_no_choice_is_refused_with_head_entries_and_row(masked: Policy) -> None:
    size = masked.metadata["observation"]["size"]
    (head,) = masked.metadata["network"]["heads"]
    observations = np.ones((2, 3, size), np.float32)
    observations[..., head["allowed"]] = -1
    observations[..., head["allowed"][7]] = 1e-30
    assert (masked.act(observations).action == 7).all()
    observations[1, 2, head["allowed"][7]] = 0
    entries = "4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14"
    for rng in (None, np.random.default_rng(0)):
        said = f"no choice of head 'action' (row 1, 2 of the batch): none of its entries {entries} is positive; one of"
        assert said in error_of(masked.act, observations, rng)
        assert f"no choice of head 'action': none of its entries {entries}" in error_of(masked.act, np.zeros(size), rng)
    assert "no choice of head 'action'" in error_of(masked.distribution, np.full(size, -1))
    tiny = np.zeros(size)
    tiny[head["allowed"][3]] = 1e-300  # 0 in float32, which is what a policy reads
    assert "no choice of head 'action'" in error_of(masked.act, tiny)


BAD_OBSERVATIONS: list[tuple[Any, str]] = [
    (OBSERVATION[:-1], "shape (11,): give [..., 12], for each UE (3) tasks left / tasks given, time left"),
    (OBSERVATION > 0, "of type bool, not made of real numbers: give"),
    ([[1.0], [1.0, 2.0]], "is no array"),
    (Mock(__array__=Mock(side_effect=TypeError("can't convert cuda:0"))), "is no array (can't convert cuda:0"),
    (np.where(np.arange(SIZE) == 5, np.nan, OBSERVATION), "holds a NaN, or a number too large for float32"),
    (np.full(SIZE, 3e38), "the network overflows on this observation"),
]
BAD_ARRAYS: list[tuple[str, Any, str]] = [
    ("cut_2/bias", np.zeros((UES, 2)), "an array 'cut_2/bias' that no layer has; name every layer"),
    ("trunk_0/kernel", np.zeros((UES, 11, 8)), "(3, 11, 8): it must be (3, 12, 8)"),
    ("trunk_0/kernel", np.zeros((UES, SIZE, 0)), "(3, 12, 0): it must be (3, 12, 1)"),
    ("trunk_0/kernel", np.zeros(()), "'trunk_0/kernel' has shape ()"),
    ("cut_0/bias", np.zeros(10), "'cut_0/bias' has shape (10,): it must be (3, 10)"),
    ("cut_1/bias", np.full((UES, CUTS), 1e300), "'cut_1/bias' holds a NaN or infinity"),
    ("cut_1/bias", np.zeros((UES, CUTS), complex), "'cut_1/bias' is of type complex128"),
]
BAD_METADATA: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("schema",), True, "field 'schema' is true: it must be 3; export the policy again"),
    (("colour",), 1, "unknown field 'colour'; known are kind, schema"),
    (("env_params", "beta"), [[1], [2, 3]], "is [[1], [2, 3]]: it must be finite numbers in equal rows"),
    (("observation", "size"), 12.0, "field 'observation.size' is 12.0: it must be a whole number"),
    (("observation", "per_ue"), ["x"], "unknown field 'observation.per_ue'; known are size, blocks, normalisation"),
    (("observation", "blocks"), [], "field 'observation.blocks' is []: it must be a list of 1 or more"),
    ((*BLOCK, "repeats"), 2, "field 'observation.size' is 12: the blocks make it 8"),
    ((*BLOCK, "of"), "", "field 'observation.blocks[0].of' is empty: say what there are 3 of"),
    ((*BLOCK, "fields", 2, "count"), 0, "field 'observation.blocks[0].fields[2].count' is 0: it must be a whole"),
    ((*BLOCK, "fields", 1, "unit"), LEFT_OUT, "field 'observation.blocks[0].fields[1].unit' is missing: it must be"),
    (NORMAL, "none", "it must be 'as the environment returns it' or an object"),
    (NORMAL, {"mean": [0] * 12, "std": [1] * 11 + [0]}, "0]: it must be 12 finite numbers > 0"),
    (NORMAL, {"mean": [0] * 12, "std": [1] * 12, "clip": -1}, "clip' is -1: it must be a finite number > 0"),
    (("network", "stacked"), 2, "at most 2 whole numbers, each at least 1, the first 2 as many as networks"),
    (("network", "activation"), "gelu", "field 'network.activation' is \"gelu\": it must be one of relu, tanh"),
    (("network", "trunk"), ["../x"], "each letters, digits and _"),
    (("network", "heads"), [], "field 'network.heads' is []: it must be a list of 1 or more, each an object"),
    (("network", "heads", 0, "kind"), "beta", 'heads[0].kind\' is "beta": it must be one of categorical, gaussian'),
    (("cuts",), LEFT_OUT, "field 'cuts' is missing: it must be null, 'unknown' or an object"),
    (("cuts",), "none", "field 'cuts' is \"none\": it must be null, 'unknown' or an object"),
    (("cuts", "head"), "power", "'cuts.head' is 'power', which is no categorical head: name one"),
    (("cuts", "profiles"), [], "field 'cuts.profiles' is []: it must be a list of 1 or more, each an object"),
    (("cuts", "profiles"), [PROFILE] * 2, "'cuts.profiles' are 2: have one, or 3, one for each entry"),
    ((*CUT, "sha256"), "0" * 63, "it must be 64 hexadecimal digits"),
    ((*CUT, "points"), ["input", "local"], "'cuts.profiles[0].points' are 2: head 'cut' has 6 choices; name each"),
    ((*CUT, "points"), [1, 2, 3, 4, 5, 6], "it must be a list of 1 or more, each a text"),
    ((*RULE, "function"), "exec", 'is "exec": it must be one of linear, log10, log10(1 + x), one-hot, flag'),
    ((*RULE, "scale"), 0, "fields[0].transform.scale' is 0: it must be a finite number > 0"),
    ((*RULE, "over"), ["tasks"], "transform' names 'tasks', which is no quantity with one number here"),
    ((*RULE, "times"), ["gain"], "transform' names 'gain', which is no quantity with one number here"),
    ((*RULE, "over"), ["env_params.gamma"], "names env_params.gamma' is null: it must be a finite number or 3 finite"),
    ((*RULE, "over"), ["env_params.front_time"], "it must be a finite number or 3 finite numbers > 0"),
    ((*RULE, "over"), ["tasks_given"] * 17, "it must be a list of 0 or more, each a text, at most 16"),
    ((*RULE, "where"), "env_params.beta", "transform.where' is 'env_params.beta', which is no quantity here"),
    ((*RULE, "power"), 2, "unknown field 'observation.blocks[0].fields[0].transform.power'; known are function"),
    ((*BLOCK, "beside"), [{"name": "x"}], "field 'observation.blocks[0].beside[0].unit' is missing"),
    (("observation", "size"), 2**20 + 1, "field 'observation.size' is 1048577: it must be a whole number, 1 to 2**20"),
    ((*BLOCK, "repeats"), 2**31 - 1, "blocks[0].repeats' is 2147483647: it must be a whole number, 0 to 2**20"),
    (("network", "trunk"), ["cut_0"] * 257, "each letters, digits and _, at most 256"),
    (("network", "heads", 1, "size"), 3, "'channel_0/kernel' has 2 outputs: categorical head 'channel' of size 3 ne"),
    (("network", "heads", 0, "size"), 5, "'cuts.profiles[0].points' are 6: head 'cut' has 5 choices; name each"),
    (("network", "heads", 0, "name"), "power", "Encountered duplicate field name: 'power'"),
    (("network", "heads", 0, "shape"), LEFT_OUT, "field 'network.heads[0].shape' is missing: it must be a list"),
    (("network", "heads", 0, "shape"), [UES, 2], "has 6 outputs: categorical head 'cut' of size 6 needs 12; mend the"),
    ((*HEAD, "offset"), LEFT_OUT, "field 'network.heads[2].offset' is missing: it must be a finite number or 3"),
    ((*HEAD, "std_min"), -1, "'network.heads[2].std_min' at least 0"),
    ((*HEAD, "scale"), [1, 1, 0], "scale' is [1, 1, 0]: it must be a finite number or 3 finite numbers > 0"),
    ((*HEAD, "high"), 1e39, "'network.heads[2].high' is 1e+39: it must be a finite number or 3 finite numbers"),
    ((*HEAD, "high"), True, "'network.heads[2].high' is true: it must be a finite number or 3 finite numbers"),
    ((*HEAD, "low"), 1.5, "'network.heads[2].low' must be at most 'network.heads[2].high'"),
    (("provenance",), {"path": Path("x")}, "can't be written as JSON"),
]
BAD: list[tuple[Any, ...]] = [
    *((POLICY.act, value, said) for value, said in BAD_OBSERVATIONS),
    *((Policy, ARRAYS | {name: value}, METADATA, said) for name, value, said in BAD_ARRAYS),
    *((Policy, ARRAYS, at(*keys, value=value), said) for keys, value, said in BAD_METADATA),
]


@pytest.mark.parametrize("call", BAD, ids=[call[-1] for call in BAD])
def test_what_is_bad_is_named_with_what_it_must_be(call: tuple[Any, ...]) -> None:
    assert call[-1] in error_of(*call[:-1])


def paths_into(content: Any) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in paths_into(value))


DEEP = json.loads("[" * 500 + "]" * 500)
ODD = [None, True, 0, -1, 3, 10**30, 10**400, 1e39, 1e-60, math.inf, "", "cut", [], [3], {}, DEEP, LEFT_OUT]


def test_odd_value_anywhere_is_a_value_error_or_a_policy_that_acts() -> None:
    for path, value in itertools.product(paths_into(METADATA), ODD):
        try:
            policy = Policy(ARRAYS, at(*path, value=value))
        except ValueError as error:
            assert type(error) is ValueError and 10 < len(str(error)) < 600
        else:
            assert all(part.shape == (UES,) for part in policy.act(OBSERVATION))
