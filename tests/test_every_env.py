"""Every registered environment keeps the contract of `mec_jax.testing.check_env`. What is special has its own file."""

from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import pytest
from gymnax.wrappers import LegacyStepAPIWrapper, LogWrapper

import mec_jax
from mec_jax.testing import check_env
from tests.toys import Forever

SMALL: dict[str, dict[str, Any]] = {
    "MultiUEOffloading-v0": {"num_ues": 2},
    "NeuronAllocation-Slots-v0": {"num_devices": 8, "num_slots": 8},
    "PartitionGame-v0": {"num_devices": 4},
}
"""Statics that save compile time; the contract does not depend on them."""

VARIANTS = [
    pytest.param(env_id, SMALL.get(env_id, {}), marks=[pytest.mark.full] * (env_id.count("-") > 1), id=env_id)
    for env_id in mec_jax.registered_envs
]
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("NeuronAllocation-v0", {"medium": "shared", "num_devices": 2, "num_pieces": 2})
]
"""Statics whose code is another one."""


@pytest.mark.parametrize(("env_id", "statics"), [*VARIANTS, *OPTIONS])
def test_it_keeps_the_contract(env_id: str, statics: dict[str, Any]) -> None:
    check_env(mec_jax.make(env_id, **statics)[0])


def test_each_id_is_another_environment_and_the_same_one_is_equal() -> None:
    once, again = ([mec_jax.make(env_id)[0] for env_id in mec_jax.registered_envs] for _ in range(2))
    assert once == again and list(map(hash, once)) == list(map(hash, again))
    assert len(set(once)) == len(mec_jax.registered_envs)


@pytest.mark.parametrize(
    ("env_id", "changes"),
    [
        ("MultiUEOffloading-v0", [{"num_channels": 1}, {"profile": "vgg11"}, {"num_ues": 3}]),
        (
            "NeuronAllocation-v0",
            [{"num_pieces": 5}, {"num_devices": 4}, {"network": "mobilenet_v1"}, {"medium": "shared"}],
        ),
        ("NeuronSharing-v0", [{"num_requesters": 3}, {"num_pieces": 5}, {"num_devices": 4}]),
        ("PartitionGame-v0", [{"num_devices": 4}, {"num_devices": 4, "network": "vgg16"}]),
        ("CompressedInference-Anchored-v0", [{"network": "regnet_x_400mf"}]),
    ],
)
def test_other_statics_make_another_environment(env_id: str, changes: list[dict[str, Any]]) -> None:
    every = {mec_jax.make(env_id)[0], *(mec_jax.make(env_id, **statics)[0] for statics in changes)}
    assert len(every) == 1 + len(changes)


@pytest.mark.parametrize("env_id", mec_jax.registered_envs)
def test_gymnax_makes_it_by_the_same_name(env_id: str) -> None:
    env, params = gymnax.make(env_id)
    assert env == mec_jax.make(env_id)[0] and env.name == env_id
    assert type(params.max_steps_in_episode) is int


@pytest.mark.parametrize("env_id", ["NeuronAllocation-v0", "NeuronSharing-v0"])
def test_a_batch_of_actions_is_refused(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    _, state = env.reset_env(jax.random.key(0), params)
    with pytest.raises(ValueError, match=r"action of shape \(2,\)"):
        env.step_env(jax.random.key(0), state, jnp.array([0, 1]), params)


def test_gymnax_wrappers_log_and_reset_episodes() -> None:
    env = Forever()
    params = env.params(max_steps_in_episode=2)
    wrapped = LegacyStepAPIWrapper(LogWrapper(env))
    _, state = wrapped.reset(jax.random.key(0), params)
    dones = []
    for key in jax.random.split(jax.random.key(0), 3):
        _, state, _, done, info = wrapped.step(key, state, env.action_space(params).sample(key), params)
        dones.append(bool(done))
        assert info["returned_episode"] == done
    assert dones == [False, True, False]
    assert (info["returned_episode_lengths"], info["returned_episode_returns"]) == (2, 2.0)
    assert state.env_state.time == 1
