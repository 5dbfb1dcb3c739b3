import copy
import errno
import hashlib
import io
import json
import math
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mec_jax.policy import AS_RETURNED, KIND, SCHEMA, Categorical, Gaussian, Policy, load_policy, save_policy

UES, CUTS, CHANNELS = 3, 4, 2
SIZE = 4 * UES
HIGH = [1.0, 0.5, 2.0]  # W; float32 holds them

METADATA: dict[str, Any] = {
    "schema": SCHEMA,
    "kind": KIND,
    "env_id": "MultiUEOffloading-v0",
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
            {
                "name": "power",
                "kind": "gaussian",
                "layers": ["power_0", "power_1"],
                "size": 1,
                "mean": "sigmoid",
                "std": "softplus",
                "std_min": 1e-3,
                "scale": HIGH,
                "low": 1e-10,
                "high": HIGH,
            },
        ],
    },
    "provenance": {"algorithm": "mahppo", "seed": 7},
    "score": {"normalised": 0.9, "return": None},
}


def copy_and_parent(keys: tuple[str | int, ...]) -> tuple[dict[str, Any], Any]:
    """A copy of `METADATA`, and the object in it that holds the last key."""
    content = copy.deepcopy(METADATA)
    parent: Any = content
    for key in keys[:-1]:
        parent = parent[key]
    return content, parent


def at(*keys: str | int, value: Any) -> dict[str, Any]:
    """`METADATA` with the value under `keys` replaced."""
    content, parent = copy_and_parent(keys)
    parent[keys[-1]] = value
    return content


def without(*keys: str | int) -> dict[str, Any]:
    """`METADATA` with the last of `keys` left out."""
    content, parent = copy_and_parent(keys)
    del parent[keys[-1]]
    return content


def make_arrays(metadata: dict[str, Any] = METADATA, hidden: int = 8, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays that fit the metadata."""
    rng = np.random.default_rng(seed)
    network = metadata["network"]
    arrays: dict[str, np.ndarray] = {}

    def chain(names: list[str], width: int, outputs: int) -> None:
        for index, name in enumerate(names):
            wide = outputs if index == len(names) - 1 else hidden + index
            arrays[f"{name}/kernel"] = rng.normal(size=(UES, width, wide), scale=0.5).astype(np.float32)
            arrays[f"{name}/bias"] = rng.normal(size=(UES, wide), scale=0.5).astype(np.float32)
            width = wide

    chain(network["trunk"], SIZE, hidden)
    for head in network["heads"]:
        outputs = head["size"] * (2 if head["kind"] == "gaussian" else 1)
        chain(head["layers"], hidden if network["trunk"] else SIZE, outputs)
    return arrays


ARRAYS = make_arrays()
OBSERVATION = np.random.default_rng(1).uniform(size=SIZE).astype(np.float32)
POLICY = Policy(ARRAYS, METADATA)


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a policy file."""
    path = tmp_path_factory.mktemp("valid") / "policy.npz"
    save_policy(path, ARRAYS, METADATA)
    return path.read_bytes()


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
    assert len(str(caught.value)) < 600
    return str(caught.value)


def load_error(folder: Path, content: bytes) -> str:
    """What `load_policy` says of a file with these bytes, less the file's name."""
    path = folder / "policy.npz"
    path.write_bytes(content)
    start = f"policy file {str(path)!r}: "
    message = error_of(load_policy, path)
    assert message.startswith(start)
    return message.removeprefix(start)


# Files.


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    save_policy(path, ARRAYS, METADATA)
    policy = load_policy(path)
    assert os.listdir(tmp_path) == ["policy.npz"]
    assert policy.metadata == METADATA
    assert policy.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(policy.arrays[name], array)
        assert policy.arrays[name].dtype == np.float32
    for got, want in zip(policy.act(OBSERVATION), POLICY.act(OBSERVATION), strict=True):
        np.testing.assert_array_equal(got, want)


def test_saving_again_gives_the_same_bytes(tmp_path: Path, valid: bytes) -> None:
    path = str(tmp_path / "policy.npz")  # a text will do, too
    save_policy(path, ARRAYS, METADATA)
    loaded = load_policy(path)
    save_policy(path, loaded.arrays, loaded.metadata)
    assert Path(path).read_bytes() == valid


def test_file_is_open_to_any_npz_reader(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.npz", ARRAYS, METADATA)
    with np.load(tmp_path / "policy.npz", allow_pickle=False) as data:
        assert set(data) == {*ARRAYS, "metadata", "sha256"}
        assert json.loads(data["metadata"].tobytes()) == METADATA
        np.testing.assert_array_equal(data["cut_1/kernel"], ARRAYS["cut_1/kernel"])


def test_file_may_be_read_by_others(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    save_policy(tmp_path / "policy.npz", ARRAYS, METADATA)
    assert (tmp_path / "policy.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_arrays_in_the_metadata_become_lists() -> None:
    metadata = at("env_params", value={"beta": np.float32(0.47), "power_max": np.array(HIGH, np.float32)})
    assert Policy(ARRAYS, metadata).metadata["env_params"] == {
        "beta": float(np.float32(0.47)),
        "power_max": HIGH,
    }


def test_arrays_of_other_types_become_float32() -> None:
    arrays = {name: np.asfortranarray(value.astype(np.float64)) for name, value in ARRAYS.items()}
    assert same(Policy(arrays, METADATA), POLICY)


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
    if isinstance(error, OSError):
        message = error_of(save_policy, path, ARRAYS, METADATA)
        assert f"can't write policy file {str(path)!r}: No space left on device; give" in message
    else:
        with pytest.raises(KeyboardInterrupt):
            save_policy(path, ARRAYS, METADATA)
    assert os.listdir(tmp_path) == (["policy.npz"] if exists else [])
    assert not exists or path.read_bytes() == b"the old one"


@pytest.mark.parametrize("name", ["missing/policy.npz", "file/policy.npz", "folder", "a\0b.npz", "x" * 300])
def test_impossible_place_is_named_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    message = error_of(save_policy, tmp_path / name, ARRAYS, METADATA)
    assert f"can't write policy file {str(tmp_path / name)!r}" in message
    assert "give a file name in an existing folder" in message
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_what_is_no_policy_is_not_saved(tmp_path: Path) -> None:
    error_of(save_policy, tmp_path / "policy.npz", ARRAYS, without("network"))
    assert os.listdir(tmp_path) == []


# The forward pass.

SIZE_TWO = at("network", "heads", 2, "size", value=2)
NO_TRUNK = at("network", "trunk", value=[])
ONE_NUMBER = at("network", "heads", 2, "scale", value=0.25)
NORMALISED = at(
    *("observation", "normalisation"),
    value={"mean": np.linspace(0, 1, SIZE), "std": np.linspace(0.01, 1, SIZE), "clip": 2.5},
)
UNCLIPPED = at("observation", "normalisation", value={"mean": [0.5] * SIZE, "std": [0.1] * SIZE})


def activate(x: float, activation: str) -> float:
    return max(x, 0.0) if activation == "relu" else math.tanh(x)


def by_hand(metadata: dict[str, Any], arrays: dict[str, np.ndarray], observation: np.ndarray) -> dict[str, np.ndarray]:
    """Each head's parameters, `[ue, ...]`, one multiplication after the other."""
    network, normalisation = metadata["network"], metadata["observation"]["normalisation"]
    said: dict[str, list[Any]] = {head["name"]: [] for head in network["heads"]}
    for n in range(UES):

        def dense(name: str, x: list[float], n: int = n) -> list[float]:
            kernel, bias = arrays[f"{name}/kernel"][n], arrays[f"{name}/bias"][n]
            return [float(bias[j]) + sum(x[i] * float(kernel[i, j]) for i in range(len(x))) for j in range(len(bias))]

        h = [float(x) for x in observation]
        if isinstance(normalisation, dict):
            mean, std, clip = normalisation["mean"], normalisation["std"], normalisation.get("clip", math.inf)
            h = [max(-clip, min(clip, (x - mean[i]) / std[i])) for i, x in enumerate(h)]
        for name in network["trunk"]:
            h = [activate(x, network["activation"]) for x in dense(name, h)]
        for head in network["heads"]:
            x = h
            for index, name in enumerate(head["layers"]):
                x = dense(name, x if index == 0 else [activate(v, network["activation"]) for v in x])
            if head["kind"] == "categorical":
                said[head["name"]].append(x)
                continue
            size = head["size"]
            scale = head["scale"][n] if isinstance(head["scale"], list) else head["scale"]
            std_of = {
                "softplus": lambda v: math.log(1 + math.exp(v)),
                "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
                "exp": math.exp,
            }[head["std"]]
            said[head["name"]].append(
                [
                    [scale / (1 + math.exp(-v)) for v in x[:size]],
                    [std_of(v) * scale + head["std_min"] for v in x[size:]],
                ]
            )
    return {name: np.array(rows) for name, rows in said.items()}


@pytest.mark.parametrize(
    "metadata",
    [
        METADATA,
        at("network", "activation", value="tanh"),
        at("network", "heads", 2, "std", value="sigmoid"),
        at("network", "heads", 2, "std", value="exp"),
        SIZE_TWO,
        NO_TRUNK,
        ONE_NUMBER,
        NORMALISED,
        UNCLIPPED,
    ],
    ids=["relu", "tanh", "sigmoid", "exp", "size 2", "no trunk", "one scale", "normalised", "unclipped"],
)
def test_distributions_are_those_computed_by_hand(metadata: dict[str, Any]) -> None:
    arrays = make_arrays(metadata, seed=2)
    policy = Policy(arrays, metadata)
    for observation in np.random.default_rng(3).uniform(size=(5, SIZE)):
        want, said = by_hand(metadata, arrays, observation), policy.distribution(observation)
        assert list(said) == ["cut", "channel", "power"]
        cut, channel, power = said.values()
        assert isinstance(cut, Categorical) and isinstance(channel, Categorical)
        assert isinstance(power, Gaussian)
        np.testing.assert_allclose(cut.logits, want["cut"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(channel.logits, want["channel"], rtol=1e-5, atol=1e-5)
        mean, std = want["power"][:, 0], want["power"][:, 1]
        if metadata is not SIZE_TWO:
            mean, std = mean[:, 0], std[:, 0]
        np.testing.assert_allclose(power.mean, mean, rtol=1e-5)
        np.testing.assert_allclose(power.std, std, rtol=1e-5)
        assert all(part.dtype == np.float32 for head in said.values() for part in head)


def test_action_without_a_generator_is_the_likeliest() -> None:
    observations = np.random.default_rng(4).uniform(size=(50, SIZE))
    actions = POLICY.act(observations)
    for i, observation in enumerate(observations):
        want = by_hand(METADATA, ARRAYS, observation)
        np.testing.assert_array_equal(actions.cut[i], want["cut"].argmax(1))
        np.testing.assert_array_equal(actions.channel[i], want["channel"].argmax(1))
        np.testing.assert_allclose(actions.power[i], want["power"][:, 0, 0], rtol=1e-5)
    assert len(np.unique(actions.cut)) > 1


@pytest.mark.parametrize("lead", [(), (1,), (7,), (2, 3), (0,)])
def test_leading_axes_are_a_batch(lead: tuple[int, ...]) -> None:
    observations = np.random.default_rng(5).uniform(size=(*lead, SIZE))
    rng = np.random.default_rng(0)
    for actions in (POLICY.act(observations), POLICY.act(observations, rng)):
        assert all(part.shape == (*lead, UES) for part in actions)
        assert [part.dtype for part in actions] == [np.int32, np.int32, np.float32]
    actions = POLICY.act(observations)
    for index in np.ndindex(lead):
        alone = POLICY.act(observations[index])
        for got, want in zip(actions, alone, strict=True):
            np.testing.assert_allclose(got[index], want, rtol=1e-5)


def test_gaussian_head_of_size_two_keeps_its_axis() -> None:
    policy = Policy(make_arrays(SIZE_TWO), SIZE_TWO)
    assert policy.act(OBSERVATION).power.shape == (UES, 2)
    drawn = policy.act(np.tile(OBSERVATION, (500, 1)), np.random.default_rng(0)).power
    assert drawn.shape == (500, UES, 2)
    assert (drawn.max((0, 2)) == np.array(HIGH, np.float32)).all()


def test_sampled_frequencies_are_the_probabilities() -> None:
    count = 40_000
    actions = POLICY.act(np.tile(OBSERVATION, (count, 1)), np.random.default_rng(6))
    want = by_hand(METADATA, ARRAYS, OBSERVATION)
    for name, size in (("cut", CUTS), ("channel", CHANNELS)):
        probability = np.exp(want[name]) / np.exp(want[name]).sum(1, keepdims=True)
        frequency = (getattr(actions, name)[..., None] == np.arange(size)).mean(0)
        np.testing.assert_array_less(
            np.abs(frequency - probability), 4.5 * np.sqrt(probability * (1 - probability) / count)
        )


def test_sampled_power_is_the_clipped_gaussian() -> None:
    count = 40_000
    actions = POLICY.act(np.tile(OBSERVATION, (count, 1)), np.random.default_rng(6))
    want = by_hand(METADATA, ARRAYS, OBSERVATION)["power"]
    for n in range(UES):
        power, mean, std = actions.power[:, n], want[n, 0, 0], want[n, 1, 0]
        assert power.min() == np.float32(1e-10) and power.max() == HIGH[n]
        for x in np.linspace(0.1, 0.9, 5) * HIGH[n]:
            p = 0.5 * (1 + math.erf((x - mean) / std / math.sqrt(2)))
            assert abs((power <= x).mean() - p) < 4.5 * math.sqrt(p * (1 - p) / count)


def test_generator_alone_decides_what_is_drawn() -> None:
    observations = np.tile(OBSERVATION, (20, 1))
    first, again, other = (POLICY.act(observations, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(x, y) for x, y in zip(first, again, strict=True))
    assert not np.array_equal(first.power, other.power)


@pytest.mark.parametrize(("raw", "mean"), [(-1e4, 0.0), (-100.0, math.exp(-100)), (0.0, 0.5), (1e4, 1.0)])
@pytest.mark.parametrize("std", ["softplus", "sigmoid"])
def test_saturated_gaussians_are_exact_and_silent(raw: float, mean: float, std: str) -> None:
    arrays = {name: np.zeros_like(value) for name, value in ARRAYS.items()}
    arrays["power_1/bias"] += np.float32(raw)
    policy = Policy(arrays, at("network", "heads", 2, "std", value=std))
    with np.errstate(all="raise"):
        power = policy.distribution(OBSERVATION)["power"]
    assert isinstance(power, Gaussian)
    np.testing.assert_allclose(power.mean, mean * np.array(HIGH, np.float32), rtol=1e-5, atol=1e-43)
    softplus = raw if raw > 50 else math.log1p(math.exp(raw))
    want = (softplus if std == "softplus" else mean) * np.array(HIGH, np.float32) + 1e-3
    np.testing.assert_allclose(power.std, want, rtol=1e-5)


def test_likeliest_power_is_clipped_too() -> None:
    metadata = at("network", "heads", 2, "high", value=[0.01, 0.02, 0.03])
    metadata["network"]["heads"][2]["low"] = [0.005, 0.02, 0.03]
    arrays = ARRAYS | {"power_1/bias": ARRAYS["power_1/bias"] + np.float32(50)}
    np.testing.assert_array_equal(
        Policy(arrays, metadata).act(OBSERVATION).power, np.array([0.01, 0.02, 0.03], np.float32)
    )


def test_one_decision_takes_well_below_a_millisecond() -> None:
    policy = Policy(make_arrays(hidden=256), METADATA)
    policy.act(OBSERVATION)
    durations = []
    for _ in range(200):
        start = time.perf_counter()
        policy.act(OBSERVATION)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 1e-3


# What the user holds.


def test_action_is_the_environments() -> None:
    from mec_jax import make
    from mec_jax.envs.offloading import OffloadAction

    action = POLICY.act(OBSERVATION, np.random.default_rng(0))
    assert type(action).__name__ == OffloadAction.__name__
    assert action._fields == OffloadAction._fields
    env, params = make("MultiUEOffloading-v0", num_ues=UES, num_channels=CHANNELS)
    space = env.action_space(params.replace(power_max=np.array(HIGH, np.float32)))
    assert space.contains(OffloadAction(*action))


def test_actions_of_two_policies_are_of_one_class_and_can_be_sent_to_another_process() -> None:
    action = POLICY.act(OBSERVATION)
    assert type(action) is type(Policy(make_arrays(seed=9), METADATA).act(OBSERVATION))
    received = pickle.loads(pickle.dumps(action))
    assert type(received) is type(action)
    assert all(np.array_equal(x, y) for x, y in zip(action, received, strict=True))


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_policy_can_be_copied_and_sent_to_another_process(clone: Callable[[Policy], Policy]) -> None:
    assert same(clone(POLICY), POLICY)
    assert np.array_equal(clone(POLICY).act(OBSERVATION).power, POLICY.act(OBSERVATION).power)


def test_policy_is_frozen() -> None:
    arrays = {name: value.copy() for name, value in ARRAYS.items()}
    metadata = copy.deepcopy(METADATA)
    policy = Policy(arrays, metadata)
    with pytest.raises(FrozenInstanceError):
        policy.metadata = {}  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        policy.arrays["cut_1/bias"][0, 0] = 1
    arrays["cut_1/bias"] += 100
    metadata["network"]["activation"] = "tanh"
    assert same(policy, POLICY)


def test_repr_is_short() -> None:
    assert repr(POLICY) == "<Policy for MultiUEOffloading-v0, 3 UEs: OffloadAction(cut, channel, power)>"


def test_loading_and_acting_need_no_jax(tmp_path: Path) -> None:
    save_policy(tmp_path / "policy.npz", ARRAYS, METADATA)
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
        (
            OBSERVATION[:-1],
            "has shape (11,): give [..., 12], for each of 3 UEs tasks left / tasks given, time",
        ),
        (OBSERVATION.reshape(UES, 4), "has shape (3, 4)"),
        (np.float32(1), "has shape ()"),
        ([], "has shape (0,)"),
        (OBSERVATION.astype(complex), "of type complex128: give real numbers"),
        (OBSERVATION > 0, "of type bool"),
        (OBSERVATION.astype(str), "give real numbers"),
        (OBSERVATION.astype(object), "of type object"),
        (None, "of type object"),
        ([[1.0], [1.0, 2.0]], "is no array"),
        (Elsewhere(), "is no array (can't convert cuda:0"),
        (np.where(np.arange(SIZE) == 5, np.nan, OBSERVATION), "holds a NaN"),
        (np.where(np.arange(SIZE) == 5, np.inf, OBSERVATION), "holds a NaN, or a number too large"),
        (np.full(SIZE, 1e300), "too large for float32"),
        (np.full(SIZE, 3e38), "the network overflows on this observation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_observation_says_what_to_give(observation: Any, said: str) -> None:
    assert said in error_of(POLICY.act, observation)
    assert said in error_of(POLICY.distribution, observation)


def test_whole_numbers_and_lists_are_observations() -> None:
    want = POLICY.act(np.ones(SIZE, np.float32)).power
    assert np.array_equal(POLICY.act([1] * SIZE).power, want)
    assert np.array_equal(POLICY.act(np.ones(SIZE, np.float16)).power, want)


# What a policy must be.


def changed(name: str, value: np.ndarray | None) -> dict[str, np.ndarray]:
    """`ARRAYS` with one replaced, added or left out."""
    return {key: x for key, x in (ARRAYS | {name: value}).items() if x is not None}


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (changed("cut_1/bias", None), "no array 'cut_1/bias'; name every layer"),
        (changed("cut_2/bias", np.zeros((UES, 2))), "an array 'cut_2/bias' that no layer has"),
        ({}, "no array 'channel_0/bias'"),
        (
            changed("trunk_0/kernel", ARRAYS["trunk_0/kernel"][:, :-1]),
            "(3, 11, 8): it must be (3, 12, outputs)",
        ),
        (changed("trunk_0/kernel", ARRAYS["trunk_0/kernel"][1:]), "(2, 12, 8): it must be (3, 12, outputs)"),
        (changed("trunk_0/kernel", ARRAYS["trunk_0/kernel"][0]), "'trunk_0/kernel' has shape (12, 8)"),
        (changed("trunk_0/kernel", np.zeros((UES, SIZE, 0))), "(3, 12, 0): it must be (3, 12, outputs)"),
        (changed("cut_0/kernel", np.zeros((UES, 9, 8))), "(3, 9, 8): it must be (3, 8, outputs)"),
        (changed("cut_0/bias", np.zeros((UES, 9))), "'cut_0/bias' has shape (3, 9): it must be (3, 8)"),
        (changed("cut_0/bias", np.zeros(8)), "'cut_0/bias' has shape (8,)"),
        (
            changed("channel_0/kernel", np.zeros((UES, 8, 3))) | {"channel_0/bias": np.zeros((UES, 3))},
            "'channel_0/kernel' has 3 outputs: head 'channel' of size 2 needs one output each",
        ),
        (
            changed("power_1/kernel", np.zeros((UES, 8, 1))) | {"power_1/bias": np.zeros((UES, 1))},
            "'power_1/kernel' has 1 outputs: head 'power' of size 1 needs a mean and a standard deviation",
        ),
        (changed("cut_1/bias", np.full((UES, CUTS), np.nan)), "'cut_1/bias' holds a NaN or infinity"),
        (changed("cut_1/bias", np.full((UES, CUTS), 1e300)), "'cut_1/bias' holds a NaN or infinity"),
        (changed("cut_1/bias", np.zeros((UES, CUTS), complex)), "'cut_1/bias' is of type complex128"),
        (changed("cut_1/bias", np.full((UES, CUTS), None)), "'cut_1/bias' is of type object"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_array_is_named(arrays: dict[str, np.ndarray], said: str) -> None:
    assert said in error_of(Policy, arrays, METADATA)


HEAD = ("network", "heads", 2)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ([], "not that of a policy"),
        (without("kind"), f'"kind" must be "{KIND}"'),
        (at("schema", value=2), "schema version 2 is not known, only 1"),
        (at("schema", value=True), "schema version true"),
        (without("schema"), "schema version null"),
        (without("score"), "'score' is missing; add it"),
        (at("colour", value=1), "unknown field 'colour'; known are schema, kind"),
        (at("env_id", value=""), "'env_id' must be a text"),
        (without("env_static", "num_ues"), "'env_static.num_ues' must be a whole number"),
        (at("env_static", value=[]), "'env_static' must be an object, not []"),
        (at("env_static", "num_ues", value=2), "'observation.size' is 12: it must be 4 values times 2 UEs"),
        (at("env_params", "beta", value="0.47"), "'env_params.beta' must be finite numbers"),
        (at("env_params", "beta", value=[[1], [2, 3]]), "in equal rows, not [[1], [2, 3]]"),
        (at("env_params", "beta", value=math.nan), "can't be written as JSON"),
        (at("action", value="Offload Action"), "'action' must be made of letters"),
        (at("action", value="class"), "'class' can't name an action or a head"),
        (at("observation", value="x"), "'observation' must be an object"),
        (at("observation", "size", value=12.0), "'observation.size' must be a whole number"),
        (at("observation", "per_ue", value=[]), "it must be 0 values times 3 UEs"),
        (at("observation", "per_ue", value=[1, 2, 3, 4]), "'observation.per_ue' must be a list of texts"),
        (at("observation", "normalisation", value="none"), "must be 'as the environment returns it' or an"),
        (
            at("observation", "normalisation", value={"mean": [0] * 11, "std": [1] * 12}),
            "'observation.normalisation.mean' must be 12 finite numbers",
        ),
        (
            at("observation", "normalisation", value={"mean": [0] * 12, "std": [1] * 11 + [0]}),
            "'observation.normalisation.std' must be 12 finite numbers > 0",
        ),
        (
            at("observation", "normalisation", value={"mean": [0] * 12, "std": [1] * 12, "clip": -1}),
            "'observation.normalisation.clip' must be a finite number > 0",
        ),
        (at("network", "stacked", value=1), "'network.stacked' is 1: there must be a network for each of 3"),
        (at("network", "activation", value="gelu"), "must be one of relu, tanh, not 'gelu'"),
        (at("network", "trunk", value="trunk_0"), "'network.trunk' must be a list of texts"),
        (at("network", "trunk", value=["../x"]), "must be made of letters, digits and _, not '../x'"),
        (at("network", "heads", value=[]), "'network.heads' must be a list of objects"),
        (at("network", "heads", 0, value=3), "'network.heads[0]' must be an object, not 3"),
        (at("network", "heads", 0, "kind", value="beta"), "must be one of categorical, gaussian, not 'beta'"),
        (at("network", "heads", 0, "std", value="exp"), "unknown field 'network.heads[0].std'"),
        (at("network", "heads", 0, "size", value=5), "head 'cut' of size 5 needs one output each"),
        (at("network", "heads", 0, "layers", value=[]), "'network.heads[0].layers' must name one layer"),
        (at("network", "heads", 0, "name", value="power"), "head 'power' stands 2 times"),
        (at("network", "heads", 0, "name", value=[]), "'network.heads[0].name' must be made of"),
        (at("network", "heads", 0, "name", value="_cut"), "'_cut' can't name an action or a head"),
        (at("network", "heads", 1, "layers", value=["cut_1"]), "layer 'cut_1' stands 2 times"),
        (without(*HEAD, "std_min"), "'network.heads[2].std_min' is missing"),
        (at(*HEAD, "std_min", value=-1), "'network.heads[2].std_min' must be at least 0, not -1"),
        (at(*HEAD, "mean", value="tanh"), "'network.heads[2].mean' must be one of sigmoid"),
        (at(*HEAD, "std", value="relu"), "must be one of softplus, sigmoid, exp"),
        (at(*HEAD, "scale", value=[1.0]), "'network.heads[2].scale' must be 3 finite numbers > 0"),
        (at(*HEAD, "scale", value=0), "'network.heads[2].scale' must be 3 finite numbers > 0"),
        (at(*HEAD, "high", value=1e39), "'network.heads[2].high' must be 3 finite numbers"),
        (at(*HEAD, "high", value=True), "'network.heads[2].high' must be 3 finite numbers"),
        (at(*HEAD, "low", value=1.5), "'network.heads[2].low' is above 'network.heads[2].high'"),
        (at("provenance", value={"path": Path("x")}), "can't be written as JSON"),
        (at("provenance", value={("a",): 1}), "can't be written as JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_metadata_is_named_with_what_it_must_be(metadata: Any, said: str) -> None:
    assert said in error_of(Policy, ARRAYS, metadata)


def test_metadata_that_holds_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    assert "can't be written as JSON" in error_of(Policy, ARRAYS, at("score", value=loop))


def paths_into(content: Any) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        yield (key,)
        if isinstance(value, dict | list):
            yield from ((key, *rest) for rest in paths_into(value))


ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    10**30,
    10**400,
    2.5,
    1e39,
    1e-60,
    math.inf,
    "",
    "cut",
    [],
    [3],
    {},
)
DEEP: Any = json.loads("[" * 500 + "]" * 500)


@pytest.mark.parametrize("part", ["env_static", "env_params", "observation", "network", None])
def test_odd_value_anywhere_is_a_value_error_or_a_policy_that_acts(part: str | None) -> None:
    paths = [path for path in paths_into(METADATA) if part in (None, path[0])]
    for path in paths if part else [path for path in paths if len(path) == 1]:
        for value in (*ODD, DEEP):
            try:
                policy = Policy(ARRAYS, at(*path, value=value))
            except ValueError as error:
                assert type(error) is ValueError and 10 < len(str(error)) < 600
            else:
                assert all(part.shape == (UES,) for part in policy.act(OBSERVATION))


# Files that are no policies.


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


def npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + data


def test_file_written_by_other_means_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "policy.npz").write_bytes(forged())
    assert same(load_policy(tmp_path / "policy.npz"), POLICY)


@pytest.mark.parametrize("entry", ["metadata", "cut_0/bias"])
def test_changed_byte_that_the_archive_does_not_notice_is_refused(tmp_path: Path, valid: bytes, entry: str) -> None:
    with zipfile.ZipFile(io.BytesIO(valid)) as archive:
        data = archive.read(entry + ".npy")
    place = data.index(b"0.47") + 3 if entry == "metadata" else len(data) - 4
    data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    message = load_error(tmp_path, rezipped(valid, entry + ".npy", data))
    assert message.startswith("it is damaged (its sha256 digest differs); copy it again, or export it again")


def test_swapped_arrays_are_refused(tmp_path: Path) -> None:
    arrays = ARRAYS | {"trunk_0/bias": ARRAYS["trunk_1/bias"][:, :8], "trunk_1/bias": ARRAYS["trunk_0/bias"]}
    assert "sha256" in load_error(tmp_path, forged(entries=arrays))


BOMB = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: b"", "it is not a whole policy file (File is not a zip file); copy it again"),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(500), "not a zip file"),
        (lambda: npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }\n"), "not a zip file"),
        (lambda: pickle.dumps(METADATA), "not a zip file"),
        (lambda: forged(save=np.savez_compressed), "it is compressed"),
        (lambda: rezipped(forged(), "readme.txt", b"hello"), "'readme.txt' is no array"),
        (lambda: forged(entries={"x": np.zeros(3, np.float32)}), "sha256"),
        (
            lambda: forged(entries={"x": np.array([{}], object)}),
            "damaged array 'x' (type object, not float32)",
        ),
        (lambda: forged(entries={"x": np.zeros(3)}), "damaged array 'x' (type float64, not float32)"),
        (
            lambda: forged(entries={"x": np.zeros((2, 2), np.float32, "F")}),
            "damaged array 'x' (Fortran order)",
        ),
        (
            lambda: forged(entries={"metadata": np.array("text")}),
            "damaged array 'metadata' (type <U4, not uint8)",
        ),
        (lambda: forged(entries={"sha256": np.zeros(32, np.uint8)}), "sha256 digest differs"),
        (lambda: rezipped(forged(), "x.npy", npy(BOMB)), "damaged array 'x' (shape (1000000, 1000000, 1"),
        (lambda: rezipped(forged(), "x.npy", npy(BOMB.replace("10", "-1"))), "damaged array 'x'"),
        (lambda: rezipped(forged(), "x.npy", npy("[" * 9000)), "damaged array 'x'"),
        (lambda: rezipped(forged(), "x.npy", npy("x" * 60000)), "damaged array 'x'"),
        (lambda: rezipped(forged(), "x.npy", npy("{1: 2, 'a': 3}\n")), "damaged array 'x'"),
        (lambda: rezipped(forged(), "x.npy", b"\x93NUMPY\x02\x00"), "damaged array 'x' (another version"),
        (lambda: rezipped(forged(), "x.npy", b""), "damaged array 'x'"),
        (lambda: forged(b"\xff\xfe"), "damaged metadata"),
        (lambda: forged(b"{"), "damaged metadata"),
        (lambda: forged(b"[" * 100_000), "damaged metadata"),
        (lambda: forged(b'{"a": 1, "a": 2}'), "damaged metadata (a field stands twice"),
        (lambda: forged(b'{"a": 1' + b"0" * 5000 + b"}"), "damaged metadata"),
        (lambda: forged(b"null"), "not that of a policy"),
        (lambda: forged(json.dumps(METADATA).replace("0.47", "NaN").encode()), "can't be written as JSON"),
        (lambda: forged(json.dumps(METADATA).replace("0.47", "1e999").encode()), "can't be written as JSON"),
        (
            lambda: forged(at("schema", value=2), entries={"sha256": np.zeros(9, np.uint8)}),
            "schema version 2 is not known",
        ),
        (lambda: forged(at("network", "stacked", value=1)), "'network.stacked' is 1"),
        (lambda: forged(arrays=changed("cut_0/bias", None)), "no array 'cut_0/bias'"),
        (lambda: forged(arrays=ARRAYS | {"cut_0/bias": np.full((3, 8), np.inf)}), "damaged array"),
        (
            lambda: forged(arrays=ARRAYS | {"cut_0/bias": np.full((3, 8), np.inf, np.float32)}),
            "'cut_0/bias' holds a NaN or infinity",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_is_no_policy_says_why(tmp_path: Path, content: Callable[[], bytes], said: str) -> None:
    assert said in load_error(tmp_path, content())


def test_foreign_archive_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.npy", bytes(50_000_000))
    assert len(file.getvalue()) < 100_000
    assert "it has no entry 'sha256.npy'" in load_error(tmp_path, file.getvalue())
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("sha256.npy", b"")
    assert "it is compressed" in load_error(tmp_path, file.getvalue())


def test_archive_that_claims_more_than_the_file_has_is_refused(tmp_path: Path, valid: bytes) -> None:
    # Sizes of the first entry of the central directory.
    place = valid.index(b"PK\x01\x02") + 20
    content = valid[:place] + b"\xf0\xff\xff\x7f" * 2 + valid[place + 8 :]
    assert "it claims 21" in load_error(tmp_path, content)


def test_encrypted_archive_is_refused(tmp_path: Path, valid: bytes) -> None:
    place = valid.index(b"PK\x01\x02") + 8
    assert "encrypted" in load_error(tmp_path, valid[:place] + b"\x01" + valid[place + 1 :])


def test_doubled_entry_is_refused(tmp_path: Path, valid: bytes) -> None:
    file = io.BytesIO(valid)
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("metadata.npy", b"")
    assert "two entries of one name" in load_error(tmp_path, file.getvalue())


def test_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    start = time.perf_counter()
    assert "it has 1099511627776 bytes, a policy at most 1073741824" in error_of(load_policy, path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("name", ["missing.npz", "missing/policy.npz", "folder", "pipe", "a\0b", "x" * 300])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / name, str(tmp_path / name)):
        message = error_of(load_policy, path)
        assert message.startswith(f"policy file {str(path)!r}: it can't be read (")
        assert "give the path of a file that save_policy wrote" in message


def test_machine_without_the_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> bytes:
        raise MemoryError

    (tmp_path / "policy.npz").write_bytes(b"")
    monkeypatch.setattr(Path, "read_bytes", fail)
    assert "it needs more memory than there is" in error_of(load_policy, tmp_path / "policy.npz")


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """The file cut short, with bytes changed, zeroed, lost or added, or something else of its length."""
    kind, n = rng.integers(6), len(content)
    place = int(rng.integers(n))
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([content[place] ^ int(rng.integers(1, 256))]) + content[place + 1 :]
    if kind == 2:
        end = place + int(rng.integers(1, 2000))
        return content[:place] + bytes(len(content[place:end])) + content[end:]
    if kind == 3:
        return content[:place] + content[place + int(rng.integers(1, 200)) :]
    if kind == 4:
        return content[:place] + rng.bytes(int(rng.integers(1, 200))) + content[place:]
    return content[:4] + rng.bytes(n - 26) + content[-22:]


def test_damaged_file_is_a_value_error_or_the_policy_that_was_saved(tmp_path: Path, valid: bytes) -> None:
    refused = 0
    for seed in range(300):
        path = tmp_path / "policy.npz"
        path.write_bytes(damage(valid, np.random.default_rng(seed)))
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
