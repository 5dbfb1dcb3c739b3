"""PPO: its distributions, normalisation and updates, and that it learns what is known to be best."""

import dataclasses
from functools import partial
from typing import Any, override

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from algos import ppo
from algos.actor import actor_policy
from algos.algorithms import make_env
from algos.distributions import heads_of, hybrid, to_action
from algos.normalise import CLIP, merge, moments, standardise
from algos.rollout import Transition, gae
from algos.run_config import as_arrays
from mec_jax.contracts import preset_for
from mec_jax.episodes import evaluation_keys, play_episodes
from tests.toys import EACH_KIND, SPACE, Forever, Mixed, Target

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


HEADS = heads_of(SPACE)
OUTPUTS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 10)), jnp.float32)
LOG_STD = jnp.array([-0.5, 0.3, 0.0, 0.7])


# Distributions


def test_heads_name_and_size_the_parts_of_an_action() -> None:
    assert [(head.name, head.kind, head.shape, head.num_outputs) for head in HEADS] == [
        ("choice", "categorical", (2,), 6),
        ("amount", "gaussian", (2,), 2),
        ("share", "simplex", (2,), 2),
    ]
    nested = spaces.Dict({"a": spaces.Discrete(4), "b": spaces.Tuple((spaces.Box(-1.0, 1.0, ()), spaces.Discrete(2)))})
    assert [(head.name, head.num_outputs) for head in heads_of(nested)] == [("a", 4), ("0", 1), ("1", 2)]
    action = to_action(nested, (jnp.array(3), jnp.array(0.5), jnp.array(1)))
    assert action == {"a": 3, "b": (0.5, 1)}


def test_a_space_without_distribution_is_named() -> None:
    with pytest.raises(ValueError, match=r"no distribution for level.*Discrete, DiscreteArray, Simplex"):
        heads_of(spaces.Dict({"level": spaces.Box(0, 9, (2,), jnp.int32)}))


def test_density_and_entropy_are_those_of_independent_parts() -> None:
    policy = hybrid(HEADS, OUTPUTS, LOG_STD)
    raw, log_prob = policy.sample_and_log_prob(seed=KEY)
    logits = special.log_softmax(OUTPUTS[:, :6].reshape(5, 2, 3), axis=-1)
    chosen = np.take_along_axis(logits, np.asarray(raw[0])[..., None], -1)[..., 0].sum(-1)
    gaussians = np.concatenate(raw[1:], axis=1)
    density = stats.norm.logpdf(gaussians, OUTPUTS[:, 6:], np.exp(LOG_STD)).sum(-1)
    np.testing.assert_allclose(log_prob, chosen + density, rtol=1e-4)
    np.testing.assert_allclose(policy.log_prob(raw), log_prob, rtol=1e-4)
    entropy = -(np.exp(logits) * logits).sum((-1, -2)) + stats.norm.entropy(scale=np.exp(LOG_STD)).sum()
    np.testing.assert_allclose(policy.entropy(), entropy, rtol=1e-4)


def test_vmapped_distribution_equals_the_batched_one() -> None:
    batched = hybrid(HEADS, OUTPUTS, LOG_STD)
    raw = batched.sample(seed=KEY)
    alone = jax.vmap(lambda x, action: hybrid(HEADS, x, LOG_STD).log_prob(action))(OUTPUTS, raw)
    np.testing.assert_allclose(alone, batched.log_prob(raw), rtol=1e-5)


def test_actions_lie_in_their_space() -> None:
    raw = hybrid(HEADS, 5 * OUTPUTS, LOG_STD).sample(seed=KEY)
    actions = jax.vmap(partial(to_action, SPACE))(raw)
    assert isinstance(actions, Mixed)
    assert jax.vmap(SPACE.contains)(actions).all()
    np.testing.assert_allclose(actions.amount, np.clip(2 + 2 * raw[1], 0, 4), rtol=1e-6)
    np.testing.assert_allclose(actions.share, special.softmax(np.asarray(raw[2]), axis=-1), rtol=1e-5)


def test_unbounded_boxes_take_the_raw_number() -> None:
    (head,) = heads_of(spaces.Box(-jnp.inf, jnp.inf, (3,)))
    np.testing.assert_array_equal(head.to_action(jnp.array([-700.0, 0.0, 3.5])), [-700, 0, 3.5])


def test_masked_choices_are_never_taken() -> None:
    allowed = jnp.array([[True, False, True], [False, True, False]])
    policy = hybrid(HEADS, OUTPUTS, LOG_STD, {"choice": allowed})
    choices = np.asarray(policy.sample(seed=KEY, sample_shape=(1000,))[0])
    assert set(np.unique(choices[..., 0])) == {0, 2}
    assert set(np.unique(choices[..., 1])) == {1}
    pairs = special.log_softmax(OUTPUTS[:, [0, 2]], axis=-1)
    gaussians = stats.norm.entropy(scale=np.exp(LOG_STD)).sum()
    np.testing.assert_allclose(policy.entropy(), -(np.exp(pairs) * pairs).sum(-1) + gaussians, rtol=1e-4)


# Moments and advantages


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(-100, 100), st.integers(0, 1000))
def test_merged_moments_are_those_of_all_samples(first: int, second: int, shift: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(first, 3)), rng.normal(shift, 2, size=(second, 3))
    found, samples = merge(moments(jnp.asarray(x)), moments(jnp.asarray(y))), np.concatenate([x, y])
    np.testing.assert_allclose(found.mean, samples.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.var, samples.var(0), rtol=1e-3, atol=1e-3)
    assert found.weight == first + second
    assert np.abs(standardise(found, 1e6 * jnp.ones(3))).max() <= CLIP


def test_gae_equals_the_sum_of_discounted_errors_within_each_episode() -> None:
    rng = np.random.default_rng(0)
    shape = (12, 7)
    reward, value, next_value = rng.normal(size=(3, *shape))
    terminated, truncated = rng.random((2, *shape)) < 0.15
    done = terminated | truncated
    expected = np.zeros(shape)
    for env in range(shape[1]):
        for start in range(shape[0]):
            weight = 1.0
            for t in range(start, shape[0]):
                worth = 0 if terminated[t, env] else next_value[t, env]
                expected[start, env] += weight * (reward[t, env] + 0.9 * worth - value[t, env])
                weight *= 0.9 * 0.8
                if done[t, env]:
                    break
    frames = Transition(None, None, None, None, *(jnp.asarray(x) for x in (reward, terminated, done)))
    np.testing.assert_allclose(gae(frames, jnp.asarray(value), jnp.asarray(next_value), 0.9, 0.8), expected, atol=1e-5)


# Learning


BANDIT = ppo.Config(
    num_frames=100_000, num_envs=512, rollout=1, minibatches=2, updates_per_chunk=5, trunk=(32,), critic=(32,)
)


def test_mixed_actions_and_masks_are_learned_to_the_known_optimum() -> None:
    env = Target(masked=True)
    params, config = env.default_params, BANDIT
    trainer = ppo.make_trainer(env, config)
    state, metrics = jax.jit(trainer.train)(as_arrays(ppo.HParams(actor_lr=3e-3, critic_lr=3e-3)), params, KEY)
    policy = actor_policy(env, config, deterministic=True)
    played = play_episodes(env, params, policy, (ppo.learned(state), params), evaluation_keys(256))
    assert played.terminated.all()
    assert played.episode_return.mean() > -0.15
    assert metrics.episode_return[0] < -3
    assert (metrics.episode_return <= 0).all()  # a forbidden choice would have earned 10


def test_truncated_episodes_are_worth_what_would_have_come() -> None:
    config = ppo.Config(
        num_frames=60_000, num_envs=16, rollout=15, trunk=(4,), critic=(16,), normalise_observation=False
    )
    env = Forever()
    trainer = ppo.make_trainer(env, config)
    hparams = ppo.HParams(critic_lr=1e-2, gamma=0.9)
    state, _ = jax.jit(trainer.train)(as_arrays(hparams), env.default_params, KEY)
    value: Any = ppo.MLP((*config.critic, 1), config.activation).apply(state.critic, jnp.ones((1, 1)))
    assert float(value[0, 0]) == pytest.approx(1 / (1 - 0.9), rel=0.05)  # of a terminated one at most 6.5


@pytest.mark.full
def test_normalised_rewards_do_not_change_with_their_scale() -> None:
    class Scaled(Forever):
        def __init__(self, scale: float) -> None:
            self.scale = scale

        @override
        def step_env(self, key: Any, state: Any, action: Any, params: Any) -> tuple:
            observation, state, _, terminated, info = super().step_env(key, state, action, params)
            return observation, state, self.scale * action.astype(float), terminated, info

    config = ppo.Config(num_frames=2000, num_envs=8, rollout=10, minibatches=2, normalise_reward=True, trunk=(4,))
    states = []
    for scale in (1.0, 1024.0):
        trainer = ppo.make_trainer(Scaled(scale), config)
        states.append(jax.jit(trainer.train)(as_arrays(ppo.HParams()), Forever().default_params, KEY)[0])
    # To the prior weight of the moments.
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-2), states[0].actor, states[1].actor)
    assert float(states[1].returns.var) > 1e5 * float(states[0].returns.var)


# One program


@pytest.fixture(scope="module")
def bandit() -> tuple[Any, Any, Any]:
    env = Target()
    config = ppo.Config(
        num_frames=512, num_envs=32, rollout=1, minibatches=2, updates_per_chunk=4, trunk=(8,), critic=(8,)
    )
    return env, ppo.make_trainer(env, config), env.default_params


@pytest.mark.full
def test_lanes_of_a_sweep_equal_single_runs_and_share_one_program(bandit: tuple) -> None:
    _, trainer, params = bandit
    keys = jax.random.split(KEY, 2)
    rates = jnp.array([1e-3, 1e-2])

    @jax.jit
    @chex.assert_max_traces(1)
    def sweep(rates: Any, keys: Any) -> Any:
        def one(rate: Any, key: Any) -> Any:
            return trainer.train(dataclasses.replace(as_arrays(ppo.HParams()), actor_lr=rate), params, key)

        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(rates, keys)

    state, metrics = sweep(rates, keys)
    assert (metrics.frames[..., -1] == 512).all() and trainer.num_frames == 512
    sweep(2 * rates, keys)
    assert metrics.episode_return.shape == (2, 2, 16)
    alone, _ = jax.jit(trainer.train)(as_arrays(ppo.HParams(actor_lr=1e-2)), params, keys[0])
    lane = jax.tree.map(lambda x: x[1, 0], state.actor)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-4), lane, alone.actor)


@pytest.mark.full
@pytest.mark.parametrize("name", EACH_KIND)
def test_ppo_trains_on_every_kind_of_environment(name: str) -> None:
    env, params = make_env(name, {}, {})
    config = ppo.Config(
        num_frames=1, num_envs=4, rollout=4, minibatches=2, updates_per_chunk=1, trunk=(8,), critic=(8,)
    )
    hparams = ppo.PRESETS[preset_for(ppo.PRESETS, env.traits)][1]
    state, metrics = jax.jit(ppo.make_trainer(env, config).train)(as_arrays(hparams), params, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.actor, state.critic, metrics.actor_loss)))
    observation, _ = env.reset(KEY, params)
    action = actor_policy(env, config)((ppo.learned(state), params), observation, KEY)
    assert env.action_space(params).contains(action)
