import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.solvers.best_known import check, play_exactly, stored
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.solvers.offloading.bounds import least_energy, lower_bounds
from mec_jax.solvers.offloading.plans import (
    best_known,
    best_plan,
    known_env,
    known_scenario,
    play_plan,
    record_plan,
)
from mec_jax.solvers.offloading.policies import baselines, rotate, static

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("optimised")]

KEY = jax.random.key(0)
ALONE = MultiUEOffloading(num_ues=1)
PAIR = MultiUEOffloading(num_ues=2)
ENTRIES = stored()
NAMES = [f"{entry['num_ues']}-{entry['profile']}" for entry in ENTRIES]


def test_bounds_of_one_ue_are_met_by_its_best_action() -> None:
    params = ALONE.evaluation_params()
    bound = lower_bounds(ALONE, params)
    rate = 1e6 * np.log2(1 + 8000)
    fastest = 0.004359 + 100352 / rate
    assert bound.makespan == pytest.approx(0.045887 + 199 * fastest, rel=1e-4)
    assert (bound.frames, bound.latency) == (5, 0.0125)
    at_point_1 = OffloadAction(jnp.array([1]), jnp.array([0]), jnp.array([1.0]))
    played = play_episodes(ALONE, params, static, at_point_1, evaluation_keys(1))
    assert played.frames[0] == bound.frames
    assert 1e3 * played.energy[0] == pytest.approx(17.7 + (98.4 - 17.7) / 200, abs=0.1)
    assert bound.cost <= -played.episode_return[0] <= 1.2 * bound.cost
    # With all the time of the world it would send the input, ever slower.
    assert bound.energy == pytest.approx((0.045887 * 2.1454 + 199 * 1204224 * math.log(2) * 125e-12) / 200, rel=1e-3)


def test_least_energy_falls_with_time_to_that_of_no_hurry() -> None:
    env = MultiUEOffloading(num_ues=3)
    params = env.evaluation_params()
    energies = [least_energy(env, params, frames) for frames in (5, 6, 8, 20, 1000, 100_000)]
    assert np.all(np.diff(energies) < 0)
    assert energies[-1] == pytest.approx(lower_bounds(env, params).energy, rel=0.02)
    with pytest.raises(ValueError, match="no lower bound for these parameters"):
        least_energy(env, params, 4)


def test_bounds_hold_for_a_channel_that_is_better_shared() -> None:
    """Weak UEs send more at once than in turns: their sum of rates is k log(1 + q / (1 + (k - 1) q))."""
    env = MultiUEOffloading(num_ues=4, num_channels=1)
    params = env.params(distance_min=100, distance_max=100, power_max=1e-4, tasks_poisson=False, first_random=False)
    params = params.replace(front_time=params.front_time * 0 + 1e-6 * (params.front_time > 0))
    params = params.replace(front_time=params.front_time.at[:, -1].set(10.0))
    together = OffloadAction(*(jnp.full(4, x, t) for x, t in ((3, int), (0, int), (1e-4, float))))
    params = params.replace(tasks_mean=params.tasks_mean * 0 + 5, max_steps_in_episode=jnp.array(10_000))
    played = play_episodes(env, params, static, together, evaluation_keys(1))
    bound = lower_bounds(env, params)
    assert played.terminated[0]
    assert bound.makespan <= played.frames[0] * 0.5
    sending = 4 * 4 * 25088 / (4e6 * np.log2(1 + 0.1 / 1.3))
    assert bound.makespan == pytest.approx(10 + sending, rel=0.2)


@pytest.mark.full
@pytest.mark.parametrize("flags", [{"paper_reward": True}, {"all_interfere": True}])
def test_bounds_hold_under_either_flag(flags: dict[str, bool]) -> None:
    params = PAIR.evaluation_params(PAIR.params(**flags))
    bound = lower_bounds(PAIR, params)
    for name, policy in baselines(PAIR).items():
        played = play_episodes(PAIR, params, policy, params, evaluation_keys(1))
        assert bound.cost <= -played.episode_return[0], name
        assert bound.objective <= played.objective[0], name
    actions = OffloadAction(jnp.array([1, 1]), jnp.array([0, 1]), jnp.array([1.0, 0.1]))
    played = play_episodes(PAIR, params, rotate, actions, evaluation_keys(1))
    assert bound.cost <= -played.episode_return[0]


@pytest.mark.full
def test_baselines_and_searches_never_beat_the_bounds() -> None:
    assert check(10, ues=[2]) == []


@pytest.fixture(scope="module")
def searched() -> Any:
    return best_plan(PAIR, PAIR.evaluation_params(), KEY, frames=20, rounds=3, generations=16, population=40)


@pytest.mark.full
def test_best_plan_reports_what_its_plan_does_and_beats_constant_actions(searched: Any) -> None:
    params = PAIR.evaluation_params()
    again = play_plan(PAIR, params, searched.plan, evaluation_keys(1))
    assert searched.episode.terminated
    assert searched.episode.episode_return == pytest.approx(float(again.episode_return[0]), rel=1e-4)
    assert searched.plan.cut.shape == (20, 2)
    assert PAIR.action_space(params).contains(jax.tree.map(lambda x: x[0], searched.plan))
    for name, policy in baselines(PAIR).items():
        played = play_episodes(PAIR, params, policy, params, evaluation_keys(1))
        assert searched.episode.episode_return > played.episode_return[0], name
    assert lower_bounds(PAIR, params).cost <= -searched.episode.episode_return


def test_recorded_plan_replays_its_policy() -> None:
    params = PAIR.params(tasks_mean=20.0)
    policy = baselines(PAIR)["Random"]
    key = evaluation_keys(1)[0]
    plan = record_plan(PAIR, params, policy, params, key, 60)
    played = play_plan(PAIR, params, plan, key[None])
    original = play_episodes(PAIR, params, policy, params, key[None])
    np.testing.assert_allclose(played.episode_return, original.episode_return, rtol=1e-4)


def test_best_plan_refuses_what_it_cannot_do() -> None:
    params = PAIR.evaluation_params()
    with pytest.raises(ValueError, match="must be one of 'return', 'objective', 'latency'"):
        best_plan(PAIR, params, KEY, "energy")  # type: ignore[arg-type]
    for numbers in ({"frames": 0}, {"rounds": 0}, {"population": 3}):
        with pytest.raises(ValueError, match=f"{next(iter(numbers))} is .*: it must be at least"):
            best_plan(PAIR, params, KEY, **numbers)  # type: ignore[arg-type]


def test_rotate_gives_the_first_slot_to_the_ue_with_most_left() -> None:
    table = OffloadAction(jnp.array([5, 1, 2]), jnp.array([0, 1, 0]), jnp.array([0.1, 0.2, 0.3]))
    observation = jnp.zeros((3, 4)).at[:, 0].set(jnp.array([0.2, 0.9, 0.5])).reshape(-1)
    np.testing.assert_array_equal(rotate(table, observation, KEY).cut, [2, 5, 1])


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_stored_plans_do_what_is_stored(entry: dict[str, Any]) -> None:
    """In float32 and in float64."""
    played = play_exactly(entry)
    for name in ("return", "frames", "latency_s", "energy_j"):
        assert played[name] == pytest.approx(entry[name], rel=1e-4), name


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_stored_plans_are_known_and_within_the_bounds(entry: dict[str, Any]) -> None:
    env, params = known_env(entry), known_scenario(entry)
    known = best_known(env, params)
    assert known is not None
    assert (known.episode_return, known.frames) == (entry["return"], entry["frames"])
    bound = lower_bounds(env, params)
    assert bound.cost <= -known.episode_return
    assert bound.frames <= known.frames
    assert least_energy(env, params, known.frames) <= known.energy
    assert best_known(env, params.replace(beta=params.beta + 0.01)) is None
    assert best_known(env, env.params()) is None
    assert best_known(env, env.evaluation_params(max_frames=known.frames - 1)) is None


def test_stored_plans_meet_the_published_savings() -> None:
    by_name = dict(zip(NAMES, ENTRIES, strict=True))
    three = by_name["3-resnet18"]
    assert 1 - three["latency_s"] / 0.045887 >= 0.56
    assert 1 - three["energy_j"] / (0.045887 * 2.1454) >= 0.76
    assert by_name["5-resnet18"]["return"] > -0.45
