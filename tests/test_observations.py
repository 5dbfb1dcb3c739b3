"""What a device makes of quantities in their units is what the environment observes."""

import copy
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from jaxtyping import Array

import mec_jax
from benchmarks.robustness.exported import export_random
from mec_jax.contracts import Problem
from mec_jax.observations import Block, ObservationField, ObservationTable
from mec_jax.policy import Policy, load_policy
from mec_jax.split.policy import TorchPolicy
from mec_jax.transforms import Transform
from tests.errors import error_of
from tests.tolerance import FUNCTION, ROUNDING

OTHER_SHAPES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("MultiUEOffloading-v0", {"num_ues": 2, "profile": ["resnet18", "vgg11"]}, {}),
    ("NeuronAllocation-v0", {"num_devices": 5, "num_slots": 2, "medium": "shared"}, {"decision_time": 1e-3}),
    ("NeuronSharing-v0", {"num_requesters": 3}, {"failure_probability": 0.3}),
    ("NeuronSharing-v0", {"num_requesters": 1}, {}),
    ("PartitionGame-v0", {"num_devices": 2}, {"elastic": True, "present_probability": 0.2, "leave_probability": 0.5}),
]
"""Networks that differ, empty blocks, absent devices and nobody at all."""


ONE_OF_EACH_CLASS = (
    *("MultiUEOffloading-v0", "MultiExitAllocation-Markov-v0", "NeuronAllocation-Dynamic-v0", "NeuronSharing-v0"),
    *("PartitionGame-v0", "CompressedInference-Anchored-v0"),
)


def seen(env: Problem, state: Any, params: Any) -> tuple[dict[str, Array], Array]:
    """Quantities and observation of a state."""
    return dict(env.quantities(state, params)), env.observe(jax.random.key(0), state, None, params)


def starts(env: Problem, params: Any) -> tuple[dict[str, Array], Array]:
    """Of starts of episodes whose numbers are disturbed, [episode, ...]: to play compiles for long."""

    def start(key: Array) -> tuple[dict[str, Array], Array]:
        _, state = env.reset_env(key, params)
        factor = 0.25 + 0.75 * jax.random.uniform(key)  # at most 1: usage of a processor stays below it
        disturbed = jax.tree.map(lambda x: factor * (x + 0.01) if x.dtype == jax.numpy.float32 else x, state)
        return seen(env, disturbed, params)

    return jax.jit(jax.vmap(start))(jax.random.split(jax.random.key(0), 64))


def played(env: Problem, params: Any) -> tuple[dict[str, Array], Array]:
    """Of random episodes, [episode, step, ...]."""

    def episode(key: Array) -> tuple[dict[str, Array], Array]:
        def step(state: Any, key: Array) -> tuple[Any, tuple[dict[str, Array], Array]]:
            _, after, *_ = env.step_env(key, state, env.action_space(params).sample(key), params)
            return after, seen(env, state, params)

        return jax.lax.scan(step, env.reset_env(key, params)[1], jax.random.split(key, 24))[1]

    return jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 16))


def assert_alike(env: Problem, params: Any, policy: Policy, quantities: dict[str, Array], expected: Array) -> None:
    assert all(field.transform is not None for block in env.table.blocks for field in block.fields)
    assert quantities.keys() == policy.quantities.keys()
    found = policy.observation(**quantities)
    assert found.shape == expected.shape and found.dtype == np.float32
    # A quantity is rounded, goes through at most six operations and a logarithm, which makes what is relative of its
    # argument absolute, over ln 10.
    error = (FUNCTION + 6) * ROUNDING * (np.abs(expected) + 1)
    assert (np.abs(found - expected) <= error).all()
    one = {name: value[3] for name, value in quantities.items()}
    np.testing.assert_array_equal(policy.observation(**one), found[3])


@pytest.mark.parametrize("env_id", ONE_OF_EACH_CLASS)
def test_a_device_observes_what_the_environment_does(env_id: str, tmp_path: Path) -> None:
    run, _ = export_random(tmp_path / "policy.npz", "ppo", env_id)
    env, params = run.make_env()
    assert_alike(env, params, load_policy(tmp_path / "policy.npz"), *starts(env, params))


@pytest.mark.full
@pytest.mark.parametrize(
    ("env_id", "static", "numbers"),
    [*((env_id, {}, {}) for env_id in mec_jax.registered_envs), *OTHER_SHAPES],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_device_observes_whole_episodes(
    env_id: str, static: dict[str, Any], numbers: dict[str, Any], tmp_path: Path
) -> None:
    run, _ = export_random(tmp_path / "policy.npz", "ppo", env_id, static=static, numbers=numbers)
    env, params = run.make_env()
    assert_alike(env, params, load_policy(tmp_path / "policy.npz"), *played(env, params))


def test_quantities_are_physical_and_named_with_units(tmp_path: Path) -> None:
    export_random(tmp_path / "policy.npz", "mahppo", "MultiUEOffloading-v0", {"head": 8}, {"num_ues": 2})
    policy = load_policy(tmp_path / "policy.npz")
    assert {name: (about.unit, about.shape, about.each) for name, about in policy.quantities.items()} == {
        "tasks_left": ("tasks", (2,), "UE"),
        "time_left": ("s", (2,), "UE"),
        "bits_left": ("bit", (2,), "UE"),
        "distance": ("m", (2,), "UE"),
        "tasks_given": ("tasks", (2,), "UE"),
    }
    found = policy.observation(
        tasks_left=[50, 200], tasks_given=[200, 200], time_left=[0, 0.045887], bits_left=[602_112, 0], distance=[1, 100]
    )
    np.testing.assert_allclose(found, [0.25, 0, 0.5, 0, 1, 1, 0, 1], rtol=1e-6)  # 0.045887 s is the local time


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    path = tmp_path_factory.mktemp("game") / "policy.npz"
    export_random(path, "ppo", "PartitionGame-v0", static={"num_devices": 2})
    return load_policy(path)


GAME: dict[str, Any] = {
    **{"free_compute": 5e9, "whole_compute": 1e10, "free_bandwidth": 1e6, "whole_bandwidth": 2e6, "members": 1},
    **{"own_present": True, "own_speed": 2e9, "allowed": [False] * 10 + [True], "own_cut": 10},
    **{"present": [True, False], "turn": [True, False], "fresh": [1, 0], "speed": [2e9, 0.0], "cut": [10, 99]},
}


def test_what_is_not_there_may_be_anything(game: Policy) -> None:
    found = game.observation(**GAME)
    assert game.act(found).action == 10
    names = game.observation_names
    assert found[names.index("1 at its own cut [10]")] == 1 and found[names.index("device 0: 1 at its cut [10]")] == 1
    assert not found[[name.startswith("device 1") for name in names]].any()
    odd = GAME | {"speed": [2e9, np.nan], "fresh": [1, np.inf], "turn": [1, -3]}
    np.testing.assert_array_equal(game.observation(**odd), found)
    torch_too = TorchPolicy(game).observation(**{name: torch.tensor(value) for name, value in GAME.items()})
    np.testing.assert_array_equal(torch_too, found)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"speeds": [1, 2]}, "unknown quantity 'speeds': did you mean 'speed'? known are free_compute, "),
    ({"speed": [1e9]}, "quantity 'speed' has shape (1,): give speed in FLOP/s, [..., 2], one for each device"),
    ({"speed": 1e9}, "quantity 'speed' has shape ()"),
    ({"speed": [[1e9, 1e9]]}, "quantity 'speed' has batch axes [1], 'free_compute' has []: give all the same ones"),
    ({"speed": [0.0, 1e9]}, "quantity 'speed' is 0 at [0]: its logarithm is taken, so give finite numbers above 0"),
    ({"speed": [np.nan, 1e9]}, "quantity 'speed' is nan at [0]"),
    ({"speed": ["fast", "slow"]}, "quantity 'speed' is of type <U4, not made of real numbers: give speed in FLOP/s"),
    ({"speed": [[1], [1, 2]]}, "quantity 'speed' is no array"),
    ({"speed": None}, "quantity 'speed' is of type object"),
    ({"speed": [1j, 1]}, "quantity 'speed' is of type complex128"),
    ({"cut": [11, 0]}, "quantity 'cut' is 11 at [0]: it counts from 0, so give whole numbers below the number of ent"),
    ({"cut": [0.5, 0]}, "quantity 'cut' is 0.5 at [0]"),
    ({"fresh": [2, 0]}, "quantity 'fresh' is 2 at [0]: give 0 or 1"),
    ({"present": [0.5, 0]}, "quantity 'present' is 0.5 at [0]: give 0 or 1"),
    ({"own_present": 0.5}, "quantity 'own_present' is 0.5: it says what is there, so give 0 or 1"),
    ({"own_present": np.nan}, "quantity 'own_present' is nan: give finite numbers"),
    ({"free_compute": np.inf}, "quantity 'free_compute' is inf: give finite numbers that float32 holds"),
    ({"free_compute": 1e60}, "quantity 'free_compute' is 1e+60"),
    ({"whole_compute": 0}, "quantity 'whole_compute' is 0: 'free_compute' is divided by it, so give numbers above 0"),
]


@pytest.mark.parametrize(("changed", "said"), BAD, ids=[said for _, said in BAD])
def test_quantity_that_is_none_is_named_with_what_it_must_be(game: Policy, changed: dict[str, Any], said: str) -> None:
    assert said in error_of(game.observation, **(GAME | changed))


def test_missing_quantity_is_named(game: Policy) -> None:
    few = {name: value for name, value in GAME.items() if name != "speed"}
    said = "quantity 'speed' is missing: give speed in FLOP/s, [..., 2], one for each device"
    assert said in error_of(game.observation, **few)


def test_entries_without_a_rule_are_given_as_they_stand(game: Policy, tmp_path: Path) -> None:
    export_random(tmp_path / "policy.npz", "ppo", "Pendulum-v1")
    policy = load_policy(tmp_path / "policy.npz")
    np.testing.assert_array_equal(policy.observation(observation=[0.5, -1, 2]), np.array([0.5, -1, 2], np.float32))
    says = "quantity 'observation' is missing: give observation in 1, [..., 3], as it stands in the observation: observ"
    assert says in error_of(policy.observation)
    metadata = copy.deepcopy(dict(game.metadata))
    metadata["observation"]["blocks"][0]["fields"][2]["name"] = "speed"
    says = "the policy has two quantities 'speed': give `act` the observation"
    assert says in error_of(Policy(game.arrays, metadata).observation, **GAME)


def test_a_table_without_rules_observes_what_it_is_given() -> None:
    fields = (ObservationField("x", "1", "x", 2), ObservationField("y", "m", "2 y", 1, Transform(scale=0.5)))
    table = ObservationTable((Block(fields, "UE", 2),))
    found = table.observe({"x": jax.numpy.eye(2), "y": jax.numpy.array([1, 2])}, None, jax.numpy.float32)
    np.testing.assert_array_equal(found, [1, 0, 2, 0, 1, 4])
