import copy
import errno
import hashlib
import io
import itertools
import json
import math
import os
import pickle
import subprocess
import sys
import time
import timeit
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from mec_jax.policy import AS_RETURNED, KIND, SCHEMA, Categorical, Gaussian, Policy, load_policy, save_policy

UES, CUTS, CHANNELS = 3, 4, 2
SIZE = 4 * UES
HIGH = [1.0, 0.5, 2.0]  # W; float32 holds them
POWER = {
    **{"name": "power", "kind": "gaussian", "layers": ["power_0", "power_1"], "size": 1},
    **{"mean": "sigmoid", "std": "softplus", "std_min": 1e-3, "scale": HIGH, "low": 1e-10, "high": HIGH},
}
METADATA: dict[str, Any] = {
    **{"schema": SCHEMA, "kind": KIND, "env_id": "MultiUEOffloading-v0"},
    "env_static": {"num_ues": UES, "num_channels": CHANNELS, "profile": "resnet18"},
    "env_params": {"beta": 0.47, "paper_reward": False, "power_max": HIGH, "front_time": [[0, 0.1]] * UES},
    "action": "OffloadAction",
    "observation": {
        "size": SIZE,
        "per_ue": ["tasks left / tasks given", "time left", "bits left", "distance"],
        "normalisation": AS_RETURNED,
    },
    "network": {
        "stacked": UES,
        "activation": "relu",
        "trunk": ["trunk_0", "trunk_1"],
        "heads": [
            {"name": "cut", "kind": "categorical", "layers": ["cut_0", "cut_1"], "size": CUTS},
            {"name": "channel", "kind": "categorical", "layers": ["channel_0"], "size": CHANNELS},
            POWER,
        ],
    },
    "provenance": {"algorithm": "mahppo", "seed": 7},
    "score": {"normalised": 0.9, "return": None},
}
LEFT_OUT = object()


def at(*keys: str | int, value: Any) -> dict[str, Any]:
    """`METADATA` with the value under `keys` replaced or left out."""
    content = copy.deepcopy(METADATA)
    parent: Any = content
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
            last = head["size"] if head["kind"] == "categorical" else 2
            inputs, width = width, last if index == len(layers) - 1 else hidden + index
            arrays[f"{layer}/kernel"] = rng.normal(size=(UES, inputs, width), scale=0.5).astype(np.float32)
            arrays[f"{layer}/bias"] = rng.normal(size=(UES, width), scale=0.5).astype(np.float32)
    return arrays


ARRAYS = make_arrays()
OBSERVATION = np.random.default_rng(1).uniform(size=SIZE).astype(np.float32)
POLICY = Policy(ARRAYS, METADATA)


def changed(name: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    """`ARRAYS` with one replaced, added or left out."""
    return {key: x for key, x in (ARRAYS | {name: value}).items() if x is not None}


def same(policy: Policy, other: Policy) -> bool:
    return (
        policy.metadata == other.metadata
        and policy.arrays.keys() == other.arrays.keys()
        and all(np.array_equal(value, other.arrays[name]) for name, value in policy.arrays.items())
    )


def error_of(call: Callable[..., object], *args: Any) -> str:
    with pytest.raises(ValueError) as caught:
        call(*args)
    assert type(caught.value) is ValueError, "not a subclass with a message of its own"
    assert caught.value.__cause__ is None and len(str(caught.value)) < 600
    return str(caught.value)


def load_error(folder: Path, content: bytes) -> str:
    """What `load_policy` says of a file with these bytes, less the file's name."""
    path = folder / "policy.npz"
    path.write_bytes(content)
    message = error_of(load_policy, path)
    start = f"policy file {str(path)!r}: "
    assert message.startswith(start)
    return message.removeprefix(start)


def digest(metadata: bytes, arrays: dict[str, np.ndarray]) -> np.ndarray:
    total = hashlib.sha256(metadata)
    for name in sorted(arrays):
        total.update(f"\0{name} {arrays[name].shape}\0".encode() + arrays[name].astype("<f4").tobytes())
    return np.frombuffer(total.digest(), np.uint8)


def forged(
    metadata: bytes | dict[str, Any] = METADATA,
    arrays: dict[str, np.ndarray] = ARRAYS,
    save: Callable[..., None] = np.savez,
    entries: dict[str, np.ndarray] | None = None,
) -> bytes:
    """A file with a right digest, written by other means; `entries` replaces whole entries."""
    text = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    file = io.BytesIO()
    content = {"metadata": np.frombuffer(text, np.uint8), "sha256": digest(text, arrays)}
    save(file, **(arrays | content | (entries or {})))
    return file.getvalue()


def rezipped(content: bytes, entry: str, data: bytes) -> bytes:
    """The archive with the bytes of one entry replaced or added, and every CRC right."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in dict.fromkeys([*old.namelist(), entry]):
            new.writestr(name, data if name == entry else old.read(name))
    return file.getvalue()


def npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a policy file."""
    path = tmp_path_factory.mktemp("valid") / "policy.npz"
    save_policy(path, ARRAYS, METADATA)
    return path.read_bytes()


# Files.


def test_what_is_saved_is_loaded_and_saved_again_to_the_same_bytes(tmp_path: Path, valid: bytes) -> None:
    (tmp_path / "other").write_bytes(b"")
    path = str(tmp_path / "policy.npz")  # a text will do, too
    save_policy(path, ARRAYS, METADATA)
    policy = load_policy(path)
    assert same(policy, POLICY) and policy.metadata == METADATA
    assert all(np.array_equal(x, y) for x, y in zip(policy.act(OBSERVATION), POLICY.act(OBSERVATION), strict=True))
    assert sorted(os.listdir(tmp_path)) == ["other", "policy.npz"]
    assert os.stat(path).st_mode == (tmp_path / "other").stat().st_mode, "others may not read it"
    save_policy(path, policy.arrays, policy.metadata)
    assert Path(path).read_bytes() == valid


def test_file_is_open_to_any_npz_reader_and_writer(tmp_path: Path, valid: bytes) -> None:
    with np.load(io.BytesIO(valid), allow_pickle=False) as data:
        assert set(data) == {*ARRAYS, "metadata", "sha256"}
        assert all(data[name].dtype == np.float32 and np.array_equal(data[name], ARRAYS[name]) for name in ARRAYS)
        text = data["metadata"].tobytes()
        assert json.loads(text) == METADATA and np.array_equal(data["sha256"], digest(text, ARRAYS))
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
    (tmp_path / "policy.npz").write_bytes(forged())
    assert same(load_policy(tmp_path / "policy.npz"), POLICY)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("exists", [True, False])
def test_failed_write_leaves_the_folder_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, call: str, exists: bool
) -> None:
    path = tmp_path / "policy.npz"
    if exists:
        path.write_bytes(b"the old one")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ValueError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        save_policy(path, ARRAYS, METADATA)
    if isinstance(error, OSError):
        assert f"can't write policy file {str(path)!r}: No space left on device; give" in str(caught.value)
    assert os.listdir(tmp_path) == (["policy.npz"] if exists else [])
    assert not exists or path.read_bytes() == b"the old one"


@pytest.mark.parametrize("name", ["missing/policy.npz", "file/policy.npz", "folder", "a\0b.npz", "x" * 300])
def test_impossible_place_is_named_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    message = error_of(save_policy, tmp_path / name, ARRAYS, METADATA)
    assert f"can't write policy file {str(tmp_path / name)!r}" in message
    assert "give a file name in an existing folder" in message
    error_of(save_policy, tmp_path / "policy.npz", ARRAYS, at("network", value=LEFT_OUT))  # what is no policy
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and os.listdir(tmp_path / "folder") == []


@pytest.mark.parametrize("name", ["missing.npz", "missing/policy.npz", "folder", "x" * 300])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / name, str(tmp_path / name)):
        message = error_of(load_policy, path)
        assert message.startswith(f"policy file {str(path)!r}: it can't be read (")
        assert "give the path of a policy file" in message


def test_file_too_large_for_the_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.npz"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    start = time.perf_counter()
    assert "it has 1099511627776 bytes, a policy at most 1073741824" in error_of(load_policy, path)
    assert time.perf_counter() - start < 1
    monkeypatch.setattr("mec_jax.policy._MAX_BYTES", 1000)
    assert "bytes, a file at most 1000: make the network smaller" in error_of(save_policy, path, ARRAYS, METADATA)
    path.write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", lambda _: np.zeros(2**60))
    assert "Unable to allocate" in error_of(load_policy, path)


BOMB = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }\n"
BAD_FILES: list[tuple[Callable[[], bytes], str]] = [
    (lambda: b"", "no policy (File is not a zip file); copy or export it again"),
    (lambda: b"\x89PNG\r\n\x1a\n" + bytes(500), "not a zip file"),
    (lambda: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }\n"), "not a zip file"),
    (lambda: pickle.dumps(METADATA), "not a zip file"),
    (lambda: forged()[:-30], "not a zip file"),
    (lambda: forged(save=np.savez_compressed), "it is compressed"),
    (lambda: forged(entries={"x": np.zeros(3, np.float32)}), "its sha256 digest differs"),
    (lambda: forged(entries={"x": np.array([{}], object)}), "Object arrays cannot be loaded"),
    (lambda: forged(entries={"sha256": np.zeros(32, np.uint8)}), "sha256 digest differs"),
    (lambda: forged(entries={"cut_1/bias": ARRAYS["cut_1/bias"][::-1]}), "sha256 digest differs"),
    (lambda: forged(entries={"metadata": np.array("text")}), "sha256 digest differs"),
    (lambda: rezipped(forged(), "readme.txt", b"hello"), "damaged or no policy"),
    (lambda: rezipped(forged(), "x.npy", npy(BOMB)), "Unable to allocate"),
    (lambda: rezipped(forged(), "x.npy", npy(BOMB.replace("10", "-1"))), "damaged or no policy"),
    (lambda: rezipped(forged(), "x.npy", npy("[" * 9000)), "damaged or no policy"),
    (lambda: rezipped(forged(), "x.npy", npy("{1: 2, 'a': 3}\n")), "damaged or no policy"),
    (lambda: forged(b"\xff\xfe"), "damaged or no policy"),
    (lambda: forged(b"{"), "damaged or no policy"),
    (lambda: forged(b"[" * 100_000), "damaged or no policy"),
    (lambda: forged(b'{"a": 1' + b"0" * 5000 + b"}"), "damaged or no policy"),
    (lambda: forged(b"null"), "field 'metadata' is null: it must be an object"),
    (lambda: forged(b"{}"), f"field 'kind' is missing: it must be {KIND}"),
    (lambda: forged(json.dumps(METADATA).replace("0.47", "NaN").encode()), "can't be written as JSON"),
    (lambda: forged(json.dumps(METADATA).replace("0.47", "1e999").encode()), "can't be written as JSON"),
    (lambda: forged(at("schema", value=2)), "field 'schema' is 2: it must be 1; export the policy again, or install"),
    (lambda: forged(at("network", "stacked", value=1)), "'network.stacked' is 1"),
    (lambda: forged(arrays=changed("cut_0/bias", None)), "no array 'cut_0/bias'"),
    (lambda: forged(arrays=changed("x", np.zeros(3, np.float32))), "an array 'x' that no layer has"),
    (lambda: forged(arrays=changed("cut_0/bias", np.full((3, 8), np.inf, np.float32))), "holds a NaN or infinity"),
]


@pytest.mark.parametrize(("content", "said"), BAD_FILES)
def test_file_that_is_no_policy_says_why(tmp_path: Path, content: Callable[[], bytes], said: str) -> None:
    assert said in load_error(tmp_path, content())


@pytest.mark.parametrize("entry", ["metadata", "cut_0/bias"])
def test_changed_byte_that_the_archive_does_not_notice_is_refused(tmp_path: Path, valid: bytes, entry: str) -> None:
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        data = bytearray(archive.read(entry + ".npy"))
    data[data.index(b"0.47") + 3 if entry == "metadata" else -4] ^= 1
    assert "its sha256 digest differs" in load_error(tmp_path, rezipped(valid, entry + ".npy", bytes(data)))


def test_archive_that_unpacks_to_more_than_the_file_has_is_refused_unread(tmp_path: Path, valid: bytes) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.npy", bytes(50_000_000))
    assert "it has no entry 'sha256.npy'" in load_error(tmp_path, file.getvalue())
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sha256.npy", b"")
    assert len(file.getvalue()) < 100_000 and "it is compressed" in load_error(tmp_path, file.getvalue())
    place = valid.index(b"PK\x01\x02") + 20  # sizes of the first entry of the central directory
    assert "it is compressed" in load_error(tmp_path, valid[:place] + b"\xf0\xff\xff\x7f" * 2 + valid[place + 8 :])


def test_damaged_file_is_a_value_error_or_the_policy_that_was_saved(tmp_path: Path, valid: bytes) -> None:
    path, refused = tmp_path / "policy.npz", 0
    for seed in range(300):  # cut short, with bytes changed, zeroed, lost or added, or of random content
        rng = np.random.default_rng(seed)
        place, length = int(rng.integers(len(valid))), int(rng.integers(1, 200))
        head, tail, rest = valid[:place], valid[place:], valid[place + length :]
        flipped = head + bytes([tail[0] ^ int(rng.integers(1, 256))]) + tail[1:]
        noise = valid[:4] + rng.bytes(len(valid) - 26) + valid[-22:]
        zeroed = head + bytes(min(length, len(tail))) + rest
        path.write_bytes([head, flipped, zeroed, head + rest, head + rng.bytes(length) + tail, noise][seed % 6])
        try:
            policy = load_policy(path)
        except ValueError as error:
            assert type(error) is ValueError and str(error).startswith(f"policy file {str(path)!r}: ")
            refused += 1
        else:  # an archive holds bytes that no one reads, such as dates
            assert same(policy, POLICY), seed
    assert refused > 200


def test_no_flipped_bit_of_the_content_is_overlooked(tmp_path: Path, valid: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        ends = [*[info.header_offset for info in archive.infolist()][1:], archive.start_dir]
        sizes = [info.file_size for info in archive.infolist()]
    rng = np.random.default_rng(0)
    for end, size in zip(ends, sizes, strict=True):
        place = end - int(rng.integers(1, size + 1))
        content = valid[:place] + bytes([valid[place] ^ 1 << int(rng.integers(8))]) + valid[place + 1 :]
        assert "Bad CRC-32" in load_error(tmp_path, content)


# The forward pass.


def by_hand(metadata: dict[str, Any], arrays: dict[str, np.ndarray], observation: np.ndarray) -> dict[str, np.ndarray]:
    """Each head's logits, or mean and standard deviation, [ue, ...], in float64 and one UE after the other."""
    network, normal = metadata["network"], metadata["observation"]["normalisation"]
    x = observation.astype(float)
    if normal != AS_RETURNED:
        x = (x - normal["mean"]) / normal["std"]
        x = x.clip(-normal.get("clip", np.inf), normal.get("clip", np.inf))
    said: dict[str, list[Any]] = {head["name"]: [] for head in network["heads"]}
    for n, head in itertools.product(range(UES), network["heads"]):
        h = x
        for index, layer in enumerate([*network["trunk"], *head["layers"]]):
            if index:
                h = np.tanh(h) if network["activation"] == "tanh" else h * (h > 0)
            h = h @ arrays[f"{layer}/kernel"][n].astype(float) + arrays[f"{layer}/bias"][n]
        if head["kind"] == "gaussian":
            scale = np.broadcast_to(head["scale"], UES)[n]
            exp, sigmoid = np.exp(h[1]), 1 / (1 + np.exp(-h))
            std = {"softplus": np.log(1 + exp), "sigmoid": sigmoid[1], "exp": exp}[head["std"]]
            h = np.array([scale * sigmoid[0], std * scale + head["std_min"]])
        said[head["name"]].append(h)
    return {name: np.array(rows) for name, rows in said.items()}


NORMAL = ("observation", "normalisation")
HEAD = ("network", "heads", 2)
VARIANTS = {
    "relu": METADATA,
    "tanh": at("network", "activation", value="tanh"),
    "sigmoid": at(*HEAD, "std", value="sigmoid"),
    "exp": at(*HEAD, "std", value="exp"),
    "no trunk": at("network", "trunk", value=[]),
    "one scale": at(*HEAD, "scale", value=0.25),
    "clipped": at(*NORMAL, value={"mean": np.linspace(0, 1, SIZE), "std": np.linspace(0.01, 1, SIZE), "clip": 2.5}),
    "unclipped": at(*NORMAL, value={"mean": [0.5] * SIZE, "std": [0.1] * SIZE}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_distributions_are_those_computed_by_hand(name: str) -> None:
    arrays = make_arrays(VARIANTS[name], seed=2)
    policy = Policy(arrays, VARIANTS[name])
    for observation in np.random.default_rng(3).uniform(size=(5, SIZE)):
        want, said = by_hand(VARIANTS[name], arrays, observation), policy.distribution(observation)
        assert list(said) == ["cut", "channel", "power"]
        cut, channel, power = said.values()
        assert isinstance(cut, Categorical) and isinstance(channel, Categorical) and isinstance(power, Gaussian)
        np.testing.assert_allclose(cut.logits, want["cut"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(channel.logits, want["channel"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.stack([power.mean, power.std], 1), want["power"], rtol=1e-5)
        assert all(part.dtype == np.float32 for head in said.values() for part in head)


def test_action_without_a_generator_is_the_likeliest() -> None:
    observations = np.random.default_rng(4).uniform(size=(50, SIZE))
    actions = POLICY.act(observations)
    for i, observation in enumerate(observations):
        want = by_hand(METADATA, ARRAYS, observation)
        np.testing.assert_array_equal(actions.cut[i], want["cut"].argmax(1))
        np.testing.assert_array_equal(actions.channel[i], want["channel"].argmax(1))
        np.testing.assert_allclose(actions.power[i], want["power"][:, 0], rtol=1e-5)
    assert len(np.unique(actions.cut)) > 1


@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 3), (0,)])
def test_leading_axes_are_a_batch(lead: tuple[int, ...]) -> None:
    observations = np.random.default_rng(5).uniform(size=(*lead, SIZE))
    actions = POLICY.act(observations)
    for said in (actions, POLICY.act(observations, np.random.default_rng(0))):
        assert [(part.shape, part.dtype) for part in said] == [((*lead, UES), t) for t in ("int32", "int32", "float32")]
    for index in np.ndindex(lead):
        for got, want in zip(actions, POLICY.act(observations[index]), strict=True):
            np.testing.assert_allclose(got[index], want, rtol=1e-5)


def test_sampled_frequencies_are_the_probabilities() -> None:
    count = 40_000
    observations, want = np.tile(OBSERVATION, (count, 1)), by_hand(METADATA, ARRAYS, OBSERVATION)
    actions, again, other = (POLICY.act(observations, np.random.default_rng(seed)) for seed in (6, 6, 7))
    assert all(np.array_equal(x, y) for x, y in zip(actions, again, strict=True))
    assert not np.array_equal(actions.power, other.power)

    def check(frequency: np.ndarray, p: np.ndarray) -> None:
        np.testing.assert_array_less(np.abs(frequency - p), 4.5 * np.sqrt(p * (1 - p) / count))

    for name in ("cut", "channel"):
        p = np.exp(want[name]) / np.exp(want[name]).sum(1, keepdims=True)
        check((getattr(actions, name)[..., None] == np.arange(p.shape[1])).mean(0), p)
    mean, std = want["power"].T
    assert (actions.power.min(0) == np.float32(1e-10)).all() and (actions.power.max(0) == HIGH).all()
    for x in np.linspace(0.1, 0.9, 5)[:, None] * HIGH:
        check((actions.power <= x).mean(0), scipy.stats.norm.cdf(x, mean, std))


@pytest.mark.parametrize(("raw", "mean"), [(-1e4, 0.0), (-100.0, math.exp(-100)), (0.0, 0.5), (1e4, 1.0)])
@pytest.mark.parametrize("std", ["softplus", "sigmoid"])
def test_saturated_gaussians_are_exact_and_silent(raw: float, mean: float, std: str) -> None:
    arrays = {name: np.zeros_like(value) for name, value in ARRAYS.items()}
    arrays["power_1/bias"] += np.float32(raw)
    with np.errstate(all="raise"):
        power = Policy(arrays, at(*HEAD, "std", value=std)).distribution(OBSERVATION)["power"]
    assert isinstance(power, Gaussian)
    np.testing.assert_allclose(power.mean, mean * np.float32(HIGH), rtol=1e-5, atol=1e-43)
    softplus = raw if raw > 50 else math.log1p(math.exp(raw))
    want = (softplus if std == "softplus" else mean) * np.float32(HIGH) + 1e-3
    np.testing.assert_allclose(power.std, want, rtol=1e-5)


def test_likeliest_power_is_clipped_too() -> None:
    metadata = at(*HEAD, value=POWER | {"low": [0.005, 0.02, 0.03], "high": [0.01, 0.02, 0.03]})
    arrays = ARRAYS | {"power_1/bias": ARRAYS["power_1/bias"] + np.float32(50)}
    np.testing.assert_array_equal(Policy(arrays, metadata).act(OBSERVATION).power, np.float32([0.01, 0.02, 0.03]))


def test_one_decision_takes_well_below_a_millisecond() -> None:
    policy = Policy(make_arrays(hidden=256), METADATA)
    durations = timeit.repeat(lambda: policy.act(OBSERVATION), number=1, repeat=200)
    assert min(durations) < 1e-3


# What the user holds.


def test_action_is_the_environments() -> None:
    from mec_jax import make
    from mec_jax.envs.offloading import OffloadAction

    action = POLICY.act(OBSERVATION, np.random.default_rng(0))
    assert type(action).__name__ == OffloadAction.__name__ and action._fields == OffloadAction._fields
    env, params = make("MultiUEOffloading-v0", num_ues=UES, num_channels=CHANNELS)
    space = env.action_space(params.replace(power_max=np.array(HIGH, np.float32)))
    assert space.contains(OffloadAction(*action))
    assert type(action) is type(Policy(make_arrays(seed=9), METADATA).act(OBSERVATION))


def test_policy_is_a_frozen_copy_of_arrays_of_any_type() -> None:
    assert repr(POLICY) == "<Policy for MultiUEOffloading-v0, 3 UEs: OffloadAction(cut, channel, power)>"
    arrays = {name: np.asfortranarray(value.astype(np.float64)) for name, value in ARRAYS.items()}
    metadata = at("env_params", value={"beta": np.float32(0.5), "power_max": np.array(HIGH, np.float32)})
    policy = Policy(arrays, metadata)
    with pytest.raises(FrozenInstanceError):
        policy.metadata = {}  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        policy.arrays["cut_1/bias"][0, 0] = 1
    arrays["cut_1/bias"] += 100
    metadata["network"]["activation"] = "tanh"
    assert same(policy, Policy(ARRAYS, at("env_params", value={"beta": 0.5, "power_max": HIGH})))
    assert all(value.dtype == np.float32 for value in policy.arrays.values())


def test_loading_and_acting_need_no_jax(tmp_path: Path, valid: bytes) -> None:
    (tmp_path / "policy.npz").write_bytes(valid)
    code = (
        "import sys, numpy as np\n"
        "from mec_jax.policy import load_policy\n"
        f"action = load_policy(sys.argv[1]).act(np.zeros({SIZE}), np.random.default_rng(0))\n"
        "assert not {'jax', 'flax', 'gymnax', 'scipy'} & set(sys.modules), 'imported'\n"
        "print(action.cut.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "policy.npz"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"({UES},)"), done.stderr


class Elsewhere:
    """A tensor of another library that NumPy can't read."""

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (OBSERVATION[:-1], "shape (11,): give [..., 12], for each of 3 UEs tasks left / tasks given, time left"),
        (OBSERVATION.reshape(UES, 4), "has shape (3, 4)"),
        (np.float32(1), "has shape ()"),
        ([], "has shape (0,)"),
        (OBSERVATION.astype(complex), "of type complex128, not made of real numbers: give"),
        (OBSERVATION > 0, "of type bool"),
        (OBSERVATION.astype(str), "not made of real numbers"),
        (None, "of type object"),
        ([[1.0], [1.0, 2.0]], "is no array"),
        (Elsewhere(), "is no array (can't convert cuda:0"),
        (np.where(np.arange(SIZE) == 5, np.nan, OBSERVATION), "holds a NaN"),
        (np.where(np.arange(SIZE) == 5, np.inf, OBSERVATION), "holds a NaN, or a number too large"),
        (np.full(SIZE, 1e300), "too large for float32"),
        (np.full(SIZE, 3e38), "the network overflows on this observation"),
    ],
)
def test_wrong_observation_says_what_to_give(observation: Any, said: str) -> None:
    assert said in error_of(POLICY.act, observation) and said in error_of(POLICY.distribution, observation)


def test_whole_numbers_and_lists_are_observations() -> None:
    want = POLICY.act(np.ones(SIZE, np.float32)).power
    assert np.array_equal(POLICY.act([1] * SIZE).power, want)
    assert np.array_equal(POLICY.act(np.ones(SIZE, np.float16)).power, want)


# What a policy must be.


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (changed("cut_1/bias", None), "no array 'cut_1/bias'; name every layer"),
        (changed("cut_2/bias", np.zeros((UES, 2))), "an array 'cut_2/bias' that no layer has"),
        ({}, "no array 'channel_0/bias'"),
        (changed("trunk_0/kernel", ARRAYS["trunk_0/kernel"][:, :-1]), "(3, 11, 8): it must be (3, 12, 8)"),
        (changed("trunk_0/kernel", ARRAYS["trunk_0/kernel"][1:]), "(2, 12, 8): it must be (3, 12, 8)"),
        (changed("trunk_0/kernel", ARRAYS["trunk_0/kernel"][0]), "'trunk_0/kernel' has shape (12, 8)"),
        (changed("trunk_0/kernel", np.zeros(())), "'trunk_0/kernel' has shape ()"),
        (changed("trunk_0/kernel", np.zeros((UES, SIZE, 0))), "(3, 12, 0): it must be (3, 12, 1)"),
        (changed("cut_0/kernel", np.zeros((UES, 8, 10))), "(3, 8, 10): it must be (3, 9, 10)"),
        (changed("cut_0/bias", np.zeros((UES, 9))), "'cut_0/bias' has shape (3, 9): it must be (3, 10)"),
        (changed("cut_0/bias", np.zeros(10)), "'cut_0/bias' has shape (10,)"),
        (
            changed("channel_0/kernel", np.zeros((UES, 9, 3))) | {"channel_0/bias": np.zeros((UES, 3))},
            "'channel_0/kernel' has 3 outputs: categorical head 'channel' of size 2 needs 2",
        ),
        (
            changed("power_1/kernel", np.zeros((UES, 10, 1))) | {"power_1/bias": np.zeros((UES, 1))},
            "'power_1/kernel' has 1 outputs: gaussian head 'power' of size 1 needs 2",
        ),
        (changed("cut_1/bias", np.full((UES, CUTS), np.nan)), "'cut_1/bias' holds a NaN or infinity"),
        (changed("cut_1/bias", np.full((UES, CUTS), 1e300)), "'cut_1/bias' holds a NaN or infinity"),
        (changed("cut_1/bias", np.zeros((UES, CUTS), complex)), "'cut_1/bias' is of type complex128"),
        (changed("cut_1/bias", np.full((UES, CUTS), None)), "'cut_1/bias' is of type object"),
    ],
)
def test_bad_array_is_named(arrays: dict[str, np.ndarray], said: str) -> None:
    assert said in error_of(Policy, arrays, METADATA)


BAD_METADATA: list[tuple[tuple[str | int, ...], Any, str]] = [
    (("kind",), LEFT_OUT, f"field 'kind' is missing: it must be {KIND}"),
    (("schema",), 2, "field 'schema' is 2: it must be 1; export the policy again, or install the mec_jax that"),
    (("schema",), True, "field 'schema' is true"),
    (("schema",), LEFT_OUT, "field 'schema' is missing"),
    (("score",), LEFT_OUT, "field 'score' is missing: it must be an object"),
    (("colour",), 1, "unknown field 'colour'; known are kind, schema"),
    (("env_id",), "", "field 'env_id' is \"\": it must be a text"),
    (("env_static",), [], "field 'env_static' is []: it must be an object"),
    (("env_static", "num_ues"), LEFT_OUT, "'network.stacked' is 3, 'env_static.num_ues' None: they must be equal"),
    (("env_static", "num_ues"), 2, "'network.stacked' is 3, 'env_static.num_ues' 2: they must be equal"),
    (("env_params", "beta"), "0.47", "field 'env_params.beta' is \"0.47\": it must be finite numbers"),
    (
        ("env_params", "beta"),
        [[1], [2, 3]],
        "field 'env_params.beta' is [[1], [2, 3]]: it must be finite numbers in equal",
    ),
    (("env_params", "beta"), math.nan, "can't be written as JSON"),
    (("action",), "Offload Action", "must suit a namedtuple (Type names and field names must be valid identifiers"),
    (("action",), "class", "must suit a namedtuple (Type names and field names cannot be a keyword: 'class')"),
    (("observation",), "x", "field 'observation' is \"x\": it must be an object"),
    (("observation", "size"), 12.0, "field 'observation.size' is 12.0: it must be a whole number"),
    (("observation", "size"), 9, "field 'observation.size' is 9: it must be 4 values times 3 UEs"),
    (("observation", "per_ue"), [], "field 'observation.per_ue' is []: it must be a list of 1 or more, each a text"),
    (("observation", "per_ue"), [1, 2, 3, 4], "field 'observation.per_ue' is [1, 2, 3, 4]: it must be a list"),
    (NORMAL, "none", "it must be 'as the environment returns it' or an object"),
    (NORMAL, {"mean": [0] * 11, "std": [1] * 12}, "0]: it must be 12 finite numbers"),
    (NORMAL, {"mean": [0] * 12, "std": [1] * 11 + [0]}, "0]: it must be 12 finite numbers > 0"),
    (
        NORMAL,
        {"mean": [0] * 12, "std": [1] * 12, "clip": -1},
        "normalisation.clip' is -1: it must be a finite number > 0",
    ),
    (("network", "activation"), "gelu", "field 'network.activation' is \"gelu\": it must be one of relu, tanh"),
    (("network", "trunk"), "trunk_0", "field 'network.trunk' is \"trunk_0\": it must be a list"),
    (("network", "trunk"), ["../x"], "each letters, digits and _"),
    (("network", "heads"), [], "field 'network.heads' is []: it must be a list of 1 or more, each an object"),
    (("network", "heads", 0), 3, "it must be a list of 1 or more, each an object"),
    (
        ("network", "heads", 0, "kind"),
        "beta",
        "'network.heads[0].kind' is \"beta\": it must be one of categorical, gaussian",
    ),
    (("network", "heads", 0, "std"), "exp", "unknown field 'network.heads[0].std'"),
    (("network", "heads", 0, "size"), 5, "categorical head 'cut' of size 5 needs 5"),
    (("network", "heads", 0, "layers"), [], "field 'network.heads[0].layers' is []: it must be a list of 1 or more"),
    (("network", "heads", 0, "name"), "power", "Encountered duplicate field name: 'power'"),
    (("network", "heads", 0, "name"), [], "field 'network.heads[0].name' is []: it must be letters"),
    (("network", "heads", 0, "name"), "_cut", "cannot start with an underscore: '_cut'"),
    ((*HEAD, "std_min"), LEFT_OUT, "field 'network.heads[2].std_min' is missing: it must be a finite number"),
    ((*HEAD, "std_min"), -1, "'network.heads[2].std_min' at least 0"),
    ((*HEAD, "size"), 2, "field 'network.heads[2].size' is 2: it must be 1"),
    ((*HEAD, "mean"), "tanh", "it must be one of sigmoid"),
    ((*HEAD, "std"), "relu", "it must be one of softplus, sigmoid, exp"),
    ((*HEAD, "scale"), [1.0], "'network.heads[2].scale' is [1.0]: it must be a finite number or 3 finite numbers > 0"),
    ((*HEAD, "scale"), 0, "'network.heads[2].scale' is 0: it must be a finite number or 3 finite numbers > 0"),
    ((*HEAD, "high"), 1e39, "'network.heads[2].high' is 1e+39: it must be a finite number or 3 finite numbers"),
    ((*HEAD, "high"), True, "'network.heads[2].high' is true: it must be a finite number or 3 finite numbers"),
    ((*HEAD, "low"), 1.5, "'network.heads[2].low' must be at most 'network.heads[2].high'"),
    (("provenance",), {"path": Path("x")}, "can't be written as JSON"),
    (("provenance",), {("a",): 1}, "can't be written as JSON"),
]


@pytest.mark.parametrize(("keys", "value", "said"), BAD_METADATA)
def test_bad_metadata_is_named_with_what_it_must_be(keys: tuple[str | int, ...], value: Any, said: str) -> None:
    assert said in error_of(Policy, ARRAYS, at(*keys, value=value))


def paths_into(content: Any) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in paths_into(value))


DEEP: Any = json.loads("[" * 500 + "]" * 500)
LOOP: dict[str, Any] = {}
LOOP["loop"] = LOOP
ODD = (None, True, 0, -1, 3, 10**30, 10**400, 2.5, 1e39, 1e-60, math.inf, "", "cut", [], [3], {}, DEEP, LOOP)


@pytest.mark.parametrize("part", METADATA)
def test_odd_value_anywhere_is_a_value_error_or_a_policy_that_acts(part: str) -> None:
    for path in paths_into({part: METADATA[part]}):
        for value in (*ODD, LEFT_OUT):
            try:
                policy = Policy(ARRAYS, at(*path, value=value))
            except ValueError as error:
                assert type(error) is ValueError and 10 < len(str(error)) < 600
            else:
                assert all(part.shape == (UES,) for part in policy.act(OBSERVATION))
