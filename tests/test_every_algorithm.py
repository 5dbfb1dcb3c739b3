"""Every algorithm keeps the contract of `mec_jax.testing.check_algorithm`. What is special has its own file."""

import dataclasses
from collections.abc import Callable
from typing import Any

import gymnax
import pytest

import mec_jax
from algos.algorithms import algorithm, algorithms
from mec_jax.contracts import Problem, preset_for
from mec_jax.interop.foreign import as_problem
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


@pytest.mark.parametrize(
    ("name", "of_ppo", "of_drl_es"),
    [
        ("CartPole-v1", "fast", "fast"),
        ("Pendulum-v1", "continuous", "fast"),
        ("MultiUEOffloading-v0", "hybrid", "fast"),
        ("MultiExitAllocation-v0", "bandit", "bandit"),
        ("MultiExitAllocation-Video-v0", "bandit", "bandit"),
        ("MultiExitAllocation-Compressed-v0", "bandit", "bandit"),
        ("MultiExitAllocation-Markov-v0", "markov", "fast"),
        ("MultiExitAllocation-Video-Markov-v0", "markov", "fast"),
        ("MultiExitAllocation-Compressed-Markov-v0", "markov", "fast"),
        ("NeuronAllocation-v0", "fast", "slots"),
        ("NeuronAllocation-Dynamic-v0", "fast", "slots"),
        ("NeuronAllocation-Slots-v0", "fast", "crowd"),
        ("NeuronSharing-v0", "fast", "sharing"),
        ("PartitionGame-v0", "game", "fast"),
        ("CompressedInference-v0", "plan", "fast"),
        ("CompressedInference-RegNet-v0", "plan", "fast"),
        ("CompressedInference-Anchored-v0", "plan", "fast"),
        ("CompressedInference-Anchored-RegNet-v0", "plan", "fast"),
    ],
)
def test_the_default_preset_suits_the_environment(name: str, of_ppo: str, of_drl_es: str) -> None:
    traits = as_problem(gymnax.make(name)[0]).traits
    chosen = [preset_for(algorithm(learner).presets, traits) for learner in ("ppo", "drl_es")]
    assert chosen == [of_ppo, of_drl_es]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("chunks", [0.01, 1, 2.9])
def test_a_budget_of_frames_is_as_many_whole_chunks_as_go_into_it(name: str, chunks: float) -> None:
    learner, (make, changes) = algorithm(name), SMALL[name]
    config = dataclasses.replace(learner.config(), updates_per_chunk=2, trunk=(8,), **changes)
    env = make()
    trainer = learner.make_trainer(env, config)
    chunk = trainer.num_frames // trainer.num_chunks
    asked = learner.within(env, config, max(1, int(chunks * chunk)))
    assert learner.make_trainer(env, asked).num_frames == max(1, int(chunks)) * chunk


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
def test_it_keeps_the_contract(name: str) -> None:
    learner, (make, changes) = algorithm(name), SMALL[name]
    config = dataclasses.replace(learner.config(), updates_per_chunk=2, trunk=(8,), **changes)
    env = make()
    assert learner.make_trainer(env, config).num_chunks == 2
    check_algorithm(learner, env, config)
