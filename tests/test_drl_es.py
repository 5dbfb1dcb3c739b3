"""DRL-ES: its evolution and its baseline, and that it learns what is known to be best."""

import dataclasses
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from algos import drl_es
from algos.actor import actor_policy, each_slot
from algos.algorithms import make_env
from algos.drl_es import Config, HParams, advantages, along_ranks, make_trainer, selected
from algos.run_config import as_arrays
from mec_jax.contracts import preset_for
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.observations import Slots
from tests.toys import EACH_KIND, Forever, Target

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
BANDIT: dict[str, Any] = {"horizon": 1, "fitness_episodes": 64, "starts": 64, "episodes": 8, "trunk": (32,)}
SMALL: dict[str, Any] = {"fitness_episodes": 2, "starts": 2, "episodes": 2, "horizon": 3, "trunk": (8,)}


# Evolution


def test_selection_takes_the_fittest_and_stays_where_none_is_fitter() -> None:
    family = {"a": jnp.arange(12.0).reshape(4, 3), "b": jnp.arange(4)}
    chosen = selected(family, jnp.array([0.0, -1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(chosen["a"], [6, 7, 8])
    assert chosen["b"] == 2
    assert selected(family, jnp.zeros(4))["b"] == 0, "equals stay with theta"


def test_the_fittest_are_carried_in_order_and_equals_as_they_stand() -> None:
    family = {"a": jnp.arange(10.0).reshape(5, 2)}
    fitness = jnp.array([1.0, -jnp.inf, 3.0, 1.0, 2.0])
    np.testing.assert_array_equal(drl_es.fittest(family, fitness, 4)["a"][:, 0], [4, 8, 0, 6])
    np.testing.assert_array_equal(drl_es.fittest(family, fitness, 3, after=1)["a"][:, 0], [8, 0])
    assert drl_es.fittest(family, fitness, 1, after=1)["a"].shape == (0, 2)


def test_children_of_a_carried_population_are_of_its_parents() -> None:
    config = Config(population="carried", children=400, parents=3, mirrored=True)
    theta, others = {"a": jnp.zeros(1)}, {"a": jnp.array([[1.0], [2.0]])}
    state = drl_es.CarriedState(theta, None, None, KEY, jnp.zeros((), jnp.int32), others)  # type: ignore[arg-type]
    parent = np.asarray(drl_es._parents(state, KEY, config)["a"][:, 0])
    np.testing.assert_array_equal(parent[:200], parent[200:], "children of a pair have the same parent")
    counts = np.bincount(parent.astype(int), minlength=3)
    assert counts.sum() == 400 and counts.min() > 90  # 133 each, four standard deviations


def test_a_carried_population_of_theta_alone_is_none() -> None:
    """There are no other parents, and a checkpoint takes no empty array."""
    env = Target()
    config = Config(children=2, population="carried", parents=1, **SMALL)
    state = jax.eval_shape(make_trainer(env, config).init, as_arrays(HParams()), env.default_params, KEY)
    assert isinstance(state, drl_es.TrainState) and all(x.size for x in jax.tree.leaves(state))


@pytest.mark.full
def test_what_a_generation_carries_are_its_next_best() -> None:
    """Five parents are the whole family of four children, if REINFORCE leaves theta alone."""
    env = Target()
    config = Config(num_iterations=1, updates_per_chunk=1, children=4, parents=5, population="carried", **SMALL)
    trainer, hparams = make_trainer(env, dataclasses.replace(config, horizon=1)), as_arrays(HParams(lr=0.0, sigma=0.1))
    start = jax.jit(trainer.init)(hparams, env.default_params, KEY)
    state, _ = jax.jit(trainer.run)(start, hparams, env.default_params)
    # Theta of before is in it, and no two of it are equal.
    theta = jax.tree.leaves(start.actor)[0]
    family = jnp.concatenate([jax.tree.leaves(state.actor)[0][None], jax.tree.leaves(state.others)[0]])
    distance = np.asarray(jnp.abs(family - theta).reshape(5, -1).max(1))
    assert (distance == 0).sum() == 1 and (np.unique(family.reshape(5, -1), axis=0).shape[0]) == 5


def test_ranked_noise_points_up_a_slope() -> None:
    rng = np.random.default_rng(0)
    slope, noise = rng.normal(size=6), rng.normal(size=(4000, 6))
    theta = jnp.asarray(rng.normal(size=6))
    moved = along_ranks(theta, jnp.asarray(noise), jnp.asarray(np.exp(noise @ slope)), jnp.array(0.1))
    step = np.asarray(moved - theta)
    cosine = step @ slope / np.linalg.norm(step) / np.linalg.norm(slope)
    assert cosine > 0.99, "ranks see no monotone transformation of the fitness"
    # E[eps * rank] = slope / |slope| * E[z * (Phi(z) - 1/2)], the last 1 / (2 sqrt(pi)).
    np.testing.assert_allclose(np.linalg.norm(step), 0.1 / (2 * np.sqrt(np.pi)), rtol=0.05)


@pytest.mark.parametrize(
    ("evolution", "population"), [("selection", "theta"), ("selection", "carried"), ("gradient", "theta")]
)
def test_evolution_alone_climbs_to_the_known_optimum(evolution: Any, population: Any) -> None:
    counts = {**BANDIT, "fitness_episodes": 32, "starts": 1, "episodes": 2, "trunk": (8,)}
    chosen = {"evolution": evolution, "population": population}
    config = Config(num_iterations=300, mirrored=True, children=32, **chosen, **counts)
    hparams = HParams(lr=0.0, sigma=0.1, es_lr=0.5, log_std=-3.0)
    assert learned_return(config, hparams) > -0.3


def test_reinforce_alone_learns_the_known_optimum() -> None:
    config = Config(num_iterations=400, children=0, **BANDIT)
    assert learned_return(config, HParams(lr=1e-2, gamma=0.0, entropy=0.0)) > -0.3


def learned_return(config: Config, hparams: HParams) -> float:
    env = Target(masked=True)
    params, trainer = env.default_params, make_trainer(env, config)
    policy = actor_policy(env, config, deterministic=True)

    def score(state: drl_es.TrainState) -> float:
        played = play_episodes(env, params, policy, (drl_es.learned(state), params), evaluation_keys(256))
        return float(played.episode_return.mean())

    assert score(jax.jit(trainer.init)(as_arrays(hparams), params, KEY)) < -2.5
    state, metrics = jax.jit(trainer.train)(as_arrays(hparams), params, KEY)
    assert (metrics.episode_return <= 0).all()  # a forbidden choice would have earned 10
    return score(state)


@pytest.mark.full
def test_children_meet_the_same_scenarios_and_noise() -> None:
    """With children equal to theta, all fitnesses are equal though scenarios and actions are random."""
    env, params = mec_jax.make("NeuronAllocation-Dynamic-v0")
    counts = {**SMALL, "horizon": 7}  # the last piece of a layer earns the whole
    train = jax.jit(make_trainer(env, Config(num_iterations=4, updates_per_chunk=2, children=8, **counts)).train)
    _, metrics = train(as_arrays(HParams(sigma=0.0)), params, KEY)
    assert (metrics.gain == 0).all() and (metrics.improved == 0).all()
    assert metrics.fitness[0] != metrics.fitness[1]
    _, metrics = train(as_arrays(HParams(sigma=0.3)), params, KEY)
    assert (metrics.gain > 0).any() and (metrics.improved[metrics.gain > 0] == 1).all()


# REINFORCE


def test_advantage_is_the_return_to_go_less_its_mean_over_the_scenario() -> None:
    rng = np.random.default_rng(1)
    frames, scenarios, episodes, gamma = 7, 3, 4, 0.9
    length = rng.integers(1, frames + 1, scenarios * episodes)
    alive = np.arange(frames)[:, None] < length
    reward = np.where(alive, rng.normal(size=alive.shape), 0)
    expected = np.zeros(alive.shape)
    for scenario in range(scenarios):
        lanes = range(scenario * episodes, (scenario + 1) * episodes)
        for t in range(frames):
            to_go = {
                lane: sum(gamma ** (k - t) * reward[k, lane] for k in range(t, frames))
                for lane in lanes
                if alive[t, lane]
            }
            for lane, value in to_go.items():
                expected[t, lane] = value - np.mean(list(to_go.values()))
    expected /= np.sqrt(np.sum(expected**2) / alive.sum())
    found = advantages(jnp.asarray(reward), jnp.asarray(alive), episodes, gamma)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_episodes_end_and_count_once() -> None:
    config = dataclasses.replace(Config(num_iterations=1, updates_per_chunk=1, children=2, **SMALL), horizon=25)
    env = Forever()  # one a frame, for ten frames
    trainer = make_trainer(env, config)
    _, metrics = jax.jit(trainer.train)(as_arrays(HParams()), env.default_params, KEY)
    assert metrics.episode_return[0] == metrics.fitness[0] == 10
    assert metrics.frames[0] == 25 * (3 * 2 + 2 * 2) == trainer.num_frames


# One program


@pytest.mark.full
def test_lanes_of_a_sweep_in_one_program_equal_runs_chunk_by_chunk() -> None:
    env = Target()
    params = env.default_params
    trainer = make_trainer(env, Config(num_iterations=6, updates_per_chunk=2, children=2, **{**SMALL, "horizon": 1}))
    hparams = as_arrays(HParams(sigma=0.1))
    state, run = jax.jit(trainer.init)(hparams, params, KEY), jax.jit(trainer.run)
    for _ in range(trainer.num_chunks):
        state, chunk = run(state, hparams, params)

    @jax.jit
    @chex.assert_max_traces(1)
    def sweep(sigmas: Any, keys: Any) -> Any:
        def one(sigma: Any, key: Any) -> Any:
            return trainer.train(dataclasses.replace(hparams, sigma=sigma), params, key)

        return jax.vmap(one)(sigmas, keys)

    keys = jnp.stack([jax.random.key(1), KEY])
    sweep(jnp.array([0.5, 0.2]), keys)
    lanes, metrics = sweep(jnp.array([0.2, 0.1]), keys)
    lane = jax.tree.map(lambda x: x[1], lanes.actor)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-2, atol=1e-4), lane, state.actor)
    assert trainer.num_frames == metrics.frames[1, -1] == chunk.frames[-1]


@pytest.mark.full
@pytest.mark.parametrize("name", EACH_KIND)
def test_drl_es_trains_on_every_kind_of_environment(name: str) -> None:
    env, params = make_env(name, {}, {})
    preset = preset_for(drl_es.PRESETS, env.traits)
    config = dataclasses.replace(drl_es.PRESETS[preset][0], num_iterations=1, updates_per_chunk=1, children=2, **SMALL)
    state, metrics = jax.jit(make_trainer(env, config).train)(as_arrays(HParams()), params, KEY)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((state.actor, metrics)))
    observation, _ = env.reset(KEY, params)
    action = actor_policy(env, config)((drl_es.learned(state), params), observation, KEY)
    assert env.action_space(params).contains(action)


# Slots


def test_slots_are_scored_alike_wherever_they_stand() -> None:
    env, params = mec_jax.make("NeuronAllocation-v0")
    config = Config(per_slot=True)
    state = jax.jit(make_trainer(env, config).init)(as_arrays(HParams()), params, KEY)
    observation = jax.random.normal(KEY, (env.traits.slots.common + 21,))
    common, own = observation[:-21], observation[-21:].reshape(3, 7)
    actor = drl_es.make_actor(env, config)

    def logits(slots: Any) -> Any:
        x = jnp.concatenate([common, slots.reshape(-1)])[None]
        return np.asarray(actor.apply(state.actor, x)[0][0])

    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(logits(own[order]), logits(own)[np.asarray(order)], rtol=1e-4)
    each = each_slot(Slots(7, 3, 7), observation[None])
    np.testing.assert_array_equal(each[1], jnp.concatenate([common, own[1]]))


# Errors


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"children": -1}, "children is -1"),
        ({"children": 3, "mirrored": True}, "even if they are mirrored"),
        ({"episodes": 1}, "episodes is 1: it must be a whole number from 2"),
        ({"horizon": -1}, "horizon is -1"),
        ({"num_iterations": 10}, "no multiple of the 50 updates_per_chunk"),
        ({"evolution": "best"}, "evolution is 'best': choose from selection, gradient"),
        ({"evolution": "gradient", "children": 1}, "to rank them takes at least 2"),
        ({"population": "all"}, "population is 'all': choose from theta, carried"),
        ({"population": "carried", "evolution": "gradient"}, "set evolution to 'selection'"),
        ({"population": "carried", "parents": 12}, "parents is 12: of theta and 10 children, 1 to 11 can be"),
        ({"population": "carried", "parents": 0}, "parents is 0"),
        ({"activation": "gelu"}, r"activation is 'gelu': did you mean 'relu'\? choose from tanh, relu"),
        ({"trunk": (8, 0)}, "trunk is"),
        ({"per_slot": True}, "has no slots to score"),
    ],
)
def test_counts_that_do_not_fit_are_named(changes: dict[str, Any], says: str) -> None:
    env, _ = mec_jax.make("MultiExitAllocation-v0")
    with pytest.raises(ValueError, match=says):
        make_trainer(env, dataclasses.replace(Config(), **changes))
