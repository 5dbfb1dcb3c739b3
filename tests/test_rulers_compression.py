"""What policies of `CompressedInference` are measured against: baselines, searches, and a bound above all."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from mec_jax.envs.compressed_inference import CompressedInference, Outcome, Situation
from mec_jax.episodes import evaluation_keys, play_episodes, start_key
from mec_jax.physics.compression import Strategy, strategy_of
from mec_jax.profiles.compression import SETTINGS
from mec_jax.solvers.compression.baselines import compare
from mec_jax.solvers.compression.mqhoa import Config
from mec_jax.solvers.compression.policies import baselines
from mec_jax.solvers.compression.rulers import bound, problem_of
from tests.test_compressed_inference import IDS, SUM, actions_of, exact_latency, one, play
from tests.tolerance import ROUNDING

pytestmark = pytest.mark.slow

EPISODES = 8


@pytest.fixture(scope="module")
def alexnet() -> CompressedInference:
    return mec_jax.make(IDS[0])[0]


def situations(env: CompressedInference, params: Any, keys: jax.Array) -> Situation:
    return jax.jit(jax.vmap(lambda key: env.reset_env(start_key(key)[1], params)[1].situation))(keys)


@pytest.mark.parametrize("cuts", [{}, {"first_cut": 3, "last_cut": 19}])
def test_policies_that_search_nothing_are_their_cuts_by_the_integer_laws(
    alexnet: CompressedInference, cuts: dict[str, int]
) -> None:
    params, keys = alexnet.params(**cuts), evaluation_keys(EPISODES)
    first, last = (int(place) for place in alexnet.cut_range(params))
    about = situations(alexnet, params, keys)

    def exact(cut: int) -> np.ndarray:
        strategy = alexnet.untouched(cut)
        return np.array([exact_latency(alexnet, strategy, one(about, i), 10600e9) for i in range(EPISODES)])

    best = np.min([exact(cut) for cut in range(first, last + 1)], axis=0)
    for name, expected in (("All_Local", exact(last)), ("All_Server", exact(first)), ("Neurosurgeon", best)):
        found = play_episodes(alexnet, params, baselines(alexnet)[name], params, keys)
        np.testing.assert_allclose(found.latency, expected, rtol=SUM * ROUNDING, err_msg=name)
        off = np.abs(np.asarray(found.episode_return) + np.log(expected))
        assert (off <= SUM * ROUNDING * (1 + np.abs(np.log(expected)))).all() and not found.outside.any()
        assert np.all(found.feasible == 1) and np.all(found.frames == alexnet.num_decisions)


def test_the_random_policy_draws_every_choice_that_is_allowed_and_no_other(alexnet: CompressedInference) -> None:
    params = alexnet.params(first_cut=1, last_cut=20)
    _, state = alexnet.reset_env(jax.random.key(0), params)
    keys = jax.random.split(jax.random.key(1), 512)
    for number, cut in ((0, 21), (7, 21), (8, 4), (8, 17), (8, 20)):
        now = state.replace(time=jnp.array(number), cut=jnp.array(cut))
        observation = alexnet.observe(jax.random.key(0), now, None, params)
        drawn = jax.vmap(baselines(alexnet)["Random"], (None, None, 0))(params, observation, keys)
        for name, mask in alexnet.action_mask(observation, params).items():
            assert set(np.unique(getattr(drawn, name))) == set(np.flatnonzero(mask)), (name, number, cut)


@pytest.mark.full
def test_what_a_search_finds_is_what_its_actions_earn(alexnet: CompressedInference) -> None:
    params = alexnet.params(budget_min=0.02, budget_max=0.02)
    keys = evaluation_keys(EPISODES)
    resets = jax.vmap(lambda key: start_key(key)[1])(keys)
    about = situations(alexnet, params, keys)

    @jax.jit
    @jax.vmap
    def searched(situation: Situation, key: jax.Array) -> tuple[Strategy, Outcome]:
        found = compare(problem_of(alexnet, params, situation), key, Config(scales=6), 2)["Joint"].strategy
        return found, alexnet.outcome(situation, found, params)

    strategies, outcome = searched(about, keys)
    actions = actions_of(alexnet, strategies)
    _, (_, states, _, _, info) = play(alexnet, params, actions, resets)
    np.testing.assert_array_equal(states.cut[:, -1], strategies.cut)
    # A share goes through a logarithm and back, where it may come to be another number of channels: of 4096, one.
    np.testing.assert_allclose(info["latency"][:, -1], outcome.latency, rtol=2e-3)
    assert info["feasible"][:, -1].mean() > 0.7 and np.all(outcome.feasible)
    # A search is no worse than the best cut of the network as it was, where its particles start.
    best = play_episodes(alexnet, params, baselines(alexnet)["Neurosurgeon"], params, keys)
    assert np.all(outcome.reward >= best.episode_return - 1e-5)


@pytest.mark.parametrize("cuts", [{}, {"first_cut": 1, "last_cut": 20}])
def test_nothing_is_above_the_bound(alexnet: CompressedInference, cuts: dict[str, int]) -> None:
    params, keys = alexnet.params(budget_min=0.02, budget_max=0.02, **cuts), evaluation_keys(EPISODES)
    about = situations(alexnet, params, keys)
    most = bound(alexnet, params, keys)
    points = jax.random.uniform(jax.random.key(3), (512, alexnet.num_units + 1 + len(SETTINGS)))
    # Of those drawn anywhere none is within the budget: some are pruned and packed a little.
    mild = points.at[:256, :7].multiply(0.3).at[:256, 8:].set(1 - 0.3 * points[:256, 8:])

    @jax.jit
    def outcomes(situation: Situation) -> Outcome:
        strategies = jax.vmap(lambda point: strategy_of(alexnet.costs, point))(mild)
        return jax.vmap(lambda strategy: alexnet.outcome(situation, strategy, params))(strategies)

    found = jax.vmap(outcomes)(about)
    assert 0.05 < np.mean(found.feasible) < 0.95
    assert np.all(found.reward <= most.episode_return[:, None])
    plain = play_episodes(alexnet, params, baselines(alexnet)["Neurosurgeon"], params, keys)
    assert np.all(plain.episode_return <= most.episode_return)
    assert np.all(most.latency > 0) and np.all(most.frames == alexnet.num_decisions)


@pytest.mark.full
def test_the_bound_of_a_larger_budget_is_no_less_and_short_episodes_earn_nothing(alexnet: CompressedInference) -> None:
    keys = evaluation_keys(2)
    small, large = (bound(alexnet, alexnet.params(budget_min=b, budget_max=b), keys) for b in (0.01, 0.04))
    assert np.all(small.episode_return <= large.episode_return) and np.any(small.latency > large.latency)
    params = alexnet.params(max_steps_in_episode=5, budget_min=0.01, budget_max=0.01)
    cut_off = bound(alexnet, params, keys)
    played = play_episodes(alexnet, params, baselines(alexnet)["Random"], params, keys)
    for name in ("episode_return", "frames", "terminated"):
        np.testing.assert_array_equal(getattr(cut_off, name), getattr(played, name))
