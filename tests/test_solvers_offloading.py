import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mec_jax.envs.offloading import MIN_POWER, MultiUEOffloading, OffloadAction
from mec_jax.episodes import Episodes, evaluation_keys, play_episodes
from mec_jax.solvers.offloading.policies import baselines, static
from mec_jax.solvers.offloading.search import StaticSolution, best_static

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

KEY = jax.random.key(0)
PAIR = MultiUEOffloading(num_ues=2, num_channels=1)
LOCAL_LATENCY, LOCAL_ENERGY = 0.045887, 0.045887 * 2.1454  # s, J per task


def test_baselines_are_known_by_name_and_made_once() -> None:
    assert list(baselines(PAIR)) == ["Local", "All-edge", "Random"]
    twin = MultiUEOffloading(num_ues=2, num_channels=1)
    assert baselines(twin)["Local"] is baselines(PAIR)["Local"], "or jit would compile it again"
    assert baselines(MultiUEOffloading())["Local"] is not baselines(PAIR)["Local"]


@pytest.mark.parametrize("name", ["Local", "All-edge", "Random"])
def test_baselines_take_valid_actions(name: str) -> None:
    env = MultiUEOffloading(num_ues=5, profile=["resnet18", "vgg11", "mobilenetv2", "vgg11", "resnet18"])
    params = env.params(power_max=[0.1, 0.2, 0.3, 0.4, 0.5])
    action = baselines(env)[name](params, jnp.zeros(20), KEY)
    assert isinstance(action, OffloadAction)
    assert env.action_space(params).contains(action)
    if name == "Local":
        np.testing.assert_array_equal(action.cut, 5)
        np.testing.assert_array_equal(action.channel, 0)
        np.testing.assert_array_equal(action.power, np.float32(MIN_POWER))
    if name == "All-edge":
        np.testing.assert_array_equal(action.cut, 0)
        np.testing.assert_array_equal(action.channel, [0, 1, 0, 1, 0])
        np.testing.assert_array_equal(action.power, params.power_max)


def test_random_draws_anew_from_every_key() -> None:
    env = MultiUEOffloading()
    random = jax.vmap(lambda key: baselines(env)["Random"](env.params(), jnp.zeros(20), key))
    actions = random(jax.random.split(KEY, 500))
    np.testing.assert_array_equal(np.unique(actions.cut), np.arange(6))
    np.testing.assert_array_equal(np.unique(actions.channel), np.arange(2))
    assert len(np.unique(actions.power)) > 2000
    assert np.mean(actions.power) == pytest.approx(0.5, abs=0.05)


def test_baselines_play() -> None:
    params = PAIR.evaluation_params()
    play = partial(play_episodes, PAIR, params, policy_params=params, keys=evaluation_keys(1))
    local, edge = (play(policy=baselines(PAIR)[name]) for name in ("Local", "All-edge"))
    np.testing.assert_allclose(local.latency, 0.0475, rtol=1e-6)  # by frame rounding
    np.testing.assert_allclose(local.task_latency, LOCAL_LATENCY, rtol=1e-5)
    np.testing.assert_allclose(local.energy, LOCAL_ENERGY, rtol=1e-5)
    # The first task is local. Then the two, each 8000 times the noise, share 1 MHz.
    sending = 1.204224e6 / (1e6 * np.log2(1 + 8000 / 8001))
    np.testing.assert_allclose(edge.task_latency, (LOCAL_LATENCY + 199 * sending) / 200, rtol=1e-3)


@pytest.fixture(scope="module")
def grid() -> Episodes:
    """Every cut and a few powers of both UEs in the evaluation scenario."""
    powers = [1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0]
    table = np.array(list(itertools.product(range(6), range(6), powers, powers)), np.float32)
    cut = jnp.asarray(table[:, :2], jnp.int32)
    actions = OffloadAction(cut, jnp.zeros_like(cut), jnp.asarray(table[:, 2:]))

    def play(action: OffloadAction) -> Episodes:
        return play_episodes(PAIR, PAIR.evaluation_params(), static, action, evaluation_keys(1))

    episodes: Episodes = jax.jit(lambda: jax.lax.map(play, actions, batch_size=100))()
    assert np.sum(episodes.terminated) > 1000
    return jax.tree.map(lambda x: x[np.asarray(episodes.terminated)], episodes)


@pytest.mark.parametrize("objective", ["return", "objective"])
def test_best_static_is_at_least_as_good_as_a_grid(grid: Episodes, objective: Any) -> None:
    found = best_static(PAIR, PAIR.evaluation_params(), KEY, objective=objective, restarts=2, generations=40)
    if objective == "return":
        assert found.episode_return >= np.max(grid.episode_return)
    else:
        assert found.episodes.objective <= np.min(grid.objective)


def test_best_static_meets_the_published_numbers_of_three_ues() -> None:
    env = MultiUEOffloading(num_ues=3)

    def savings(beta: float) -> tuple[float, float]:
        episodes = best_static(env, env.evaluation_params(env.params(beta=beta)), KEY).episodes
        assert episodes.terminated
        return 1 - float(episodes.latency[0]) / LOCAL_LATENCY, 1 - float(episodes.energy[0]) / LOCAL_ENERGY

    assert savings(0.0)[0] >= 0.49
    latency, energy = savings(0.47)
    assert latency >= 0.47
    assert energy >= 0.76


def small_search(params: Any) -> StaticSolution:
    return best_static(PAIR, params, KEY, num_episodes=3, restarts=1, generations=6, population=8)


def test_best_static_reports_what_its_action_does() -> None:
    params = PAIR.params(tasks_mean=20.0)
    found = small_search(params)
    again = play_episodes(PAIR, params, static, found.action, evaluation_keys(3))
    for name in again.columns():
        np.testing.assert_allclose(getattr(found.episodes, name), getattr(again, name), rtol=1e-4, err_msg=name)
    assert found.episode_return == pytest.approx(float(jnp.mean(again.episode_return)), rel=1e-4)
    assert len(np.unique(found.episodes.episode_return)) == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, found, small_search(params)))


@settings(max_examples=20)
@given(st.floats(0, 100), st.floats(1, 100), st.integers(1, 50), st.floats(1e-3, 10))
def test_best_static_is_valid_and_never_worse_than_local(
    beta: float, distance: float, tasks: int, power_max: float
) -> None:
    numbers = {"beta": beta, "distance_min": distance, "distance_max": distance, "power_max": power_max}
    params = PAIR.params(tasks_mean=tasks, tasks_poisson=False, first_random=False, **numbers)
    found = small_search(params)
    local = play_episodes(PAIR, params, baselines(PAIR)["Local"], params, evaluation_keys(1))
    assert np.all(found.episodes.terminated)
    assert found.episode_return >= local.episode_return[0] * (1 + 1e-5)
    assert PAIR.action_space(params).contains(found.action)


def test_best_static_says_so_if_no_action_terminates() -> None:
    assert not np.any(small_search(PAIR.evaluation_params(max_frames=1)).episodes.terminated)


def test_best_static_refuses_what_it_cannot_do() -> None:
    params = PAIR.evaluation_params()
    with pytest.raises(ValueError, match="must be 'return' or 'objective'"):
        best_static(PAIR, params, KEY, objective="latency")
    with pytest.raises(ValueError, match="at least 4"):
        best_static(PAIR, params, KEY, population=3)
