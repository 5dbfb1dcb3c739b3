"""Every algorithm keeps the contract of `mec_jax.testing.check_algorithm`. What is special has its own file."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

import mec_jax
from algos.algorithms import algorithm, algorithms
from mec_jax.contracts import Problem
from mec_jax.testing import check_algorithm
from tests.toys import Target

pytestmark = pytest.mark.slow

COUNTS = {"num_envs": 4, "rollout": 4, "epochs": 2, "minibatches": 2, "critic": (8,)}
SMALL: dict[str, tuple[Callable[[], Problem], dict[str, Any]]] = {
    "mahppo": (lambda: mec_jax.make("MultiUEOffloading-v0", num_ues=2)[0], {**COUNTS, "num_frames": 64, "head": 8}),
    "ppo": (Target, {**COUNTS, "num_frames": 64}),
    "drl_es": (Target, {"num_iterations": 4, "children": 2, "fitness_episodes": 2, "starts": 2, "episodes": 2}),
}
"""What each is checked on, and the fields of its Config that make two chunks of two updates there."""


def test_every_algorithm_is_covered() -> None:
    assert set(SMALL) == set(algorithms())


@pytest.mark.parametrize("name", SMALL)
def test_it_keeps_the_contract(name: str) -> None:
    learner, (make, changes) = algorithm(name), SMALL[name]
    config = dataclasses.replace(learner.config(), updates_per_chunk=2, trunk=(8,), **changes)
    env = make()
    assert learner.make_trainer(env, config).num_chunks == 2
    check_algorithm(learner, env, config)
