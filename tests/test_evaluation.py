import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Array
from scipy import stats

import mec_jax
from algos.algorithms import make_env
from mec_jax import statistics
from mec_jax.envs.multi_exit import AllocationAction
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params
from mec_jax.episodes import PROTOCOL, Episodes, evaluation_keys, play_episode, play_episodes
from mec_jax.evaluation import Report, compare, evaluate
from mec_jax.statistics import (
    bootstrap_interval,
    interquartile_mean,
    mean_interval,
    normalised_score,
    probability_of_improvement,
    summary,
)

pytestmark = pytest.mark.slow

ENV = MultiUEOffloading(num_ues=2)
# Short episodes in which everything is random: distances, numbers of tasks, first decisions.
RANDOM = ENV.params(tasks_mean=20.0)
KEYS = evaluation_keys(8)
LOCAL = OffloadAction(cut=jnp.array([5, 5]), channel=jnp.array([0, 0]), power=jnp.array([1.0, 1.0]))
MIXED = OffloadAction(cut=jnp.array([1, 2]), channel=jnp.array([1, 1]), power=jnp.array([0.02, 1.0]))


traces_of_static: list[tuple[int, ...]] = []


def static(action: OffloadAction, observation: Array, key: Array) -> OffloadAction:
    traces_of_static.append(observation.shape)
    return action


def random(params: Params, observation: Array, key: Array) -> OffloadAction:
    return ENV.action_space(params).sample(key)


def assert_same_episodes(x: Episodes, y: Episodes) -> None:
    for name in x.columns():
        np.testing.assert_allclose(getattr(x, name), getattr(y, name), rtol=1e-4, err_msg=name)


def test_all_local_reads_as_in_the_paper() -> None:
    episodes = play_episodes(ENV, ENV.evaluation_params(), static, LOCAL, KEYS)
    assert np.all(episodes.frames == 19)  # 200 tasks of 45.887 ms take 18.35 frames of 0.5 s
    assert np.all(episodes.finished == 400)
    assert np.all(episodes.terminated)
    np.testing.assert_allclose(episodes.latency, 0.0475, rtol=1e-6)
    np.testing.assert_allclose(episodes.task_latency, 0.045887, rtol=1e-5)
    np.testing.assert_allclose(episodes.energy, 0.045887 * 2.1454, rtol=1e-5)
    np.testing.assert_allclose(episodes.objective, 200 * 0.045887 * (1 + 0.47 * 2 * 2.1454), rtol=1e-5)


def test_equals_a_plain_loop_over_frames() -> None:
    params = ENV.evaluation_params()
    step = jax.jit(ENV.step_env)
    _, state = ENV.reset_env(jax.random.key(0), params)
    terminated, rewards, energy = False, [], 0.0
    while not terminated:
        _, state, reward, terminated, info = step(jax.random.key(0), state, MIXED, params)
        rewards.append(float(reward))
        energy += float(info["energy"])
    assert len(rewards) > 3

    expected = {
        "episode_return": np.sum(rewards),
        "frames": len(rewards),
        "finished": 400,
        "latency": len(rewards) * 0.5 * 2 / 400,
        "task_latency": np.sum(state.busy) / 400,
        "energy": energy / 400,
        "objective": np.max(state.busy) + 0.47 * energy,
        "terminated": True,
    }
    for name, column in play_episodes(ENV, params, static, MIXED, KEYS).columns().items():
        np.testing.assert_allclose(column, expected[name], rtol=1e-4, err_msg=name)


def test_same_keys_same_episodes_whoever_is_beside_them() -> None:
    episodes = play_episodes(ENV, RANDOM, random, RANDOM, KEYS)
    assert len(np.unique(episodes.episode_return)) == 8
    jax.tree.map(np.testing.assert_array_equal, episodes, play_episodes(ENV, RANDOM, random, RANDOM, KEYS))
    order = np.random.default_rng(0).permutation(8)
    shuffled = play_episodes(ENV, RANDOM, random, RANDOM, KEYS[order])
    assert_same_episodes(shuffled, jax.tree.map(lambda x: x[order], episodes))
    alone = play_episodes(ENV, RANDOM, random, RANDOM, KEYS[5:6])
    assert_same_episodes(alone, jax.tree.map(lambda x: x[5:6], episodes))


def test_truncated_episodes_are_flagged_among_terminated_ones() -> None:
    params = RANDOM.replace(max_steps_in_episode=jnp.array(2))
    cut, whole = (play_episodes(ENV, p, static, LOCAL, KEYS) for p in (params, RANDOM))
    assert 0 < np.sum(cut.terminated) < 8
    assert np.all(whole.terminated)
    np.testing.assert_array_equal(cut.terminated, whole.frames <= 2)
    np.testing.assert_array_equal(cut.frames, np.minimum(whole.frames, 2))
    np.testing.assert_array_equal(cut.terminated, cut.finished == whole.finished)
    ended = np.asarray(cut.terminated)
    assert_same_episodes(*(jax.tree.map(lambda x: x[ended], episodes) for episodes in (cut, whole)))


def test_compiles_once_for_all_parameters_and_equal_environments() -> None:
    play_episodes(ENV, RANDOM, static, LOCAL, KEYS)
    before = len(traces_of_static)
    equal = MultiUEOffloading(num_ues=2)
    play_episodes(equal, equal.evaluation_params(equal.params(beta=3.0)), static, MIXED, KEYS)
    assert len(traces_of_static) == before > 0


def test_parameters_can_be_swept_by_vmap() -> None:
    def energies(beta: Array) -> Episodes:
        return play_episodes(ENV, ENV.evaluation_params(ENV.params(beta=beta)), static, LOCAL, evaluation_keys(1))

    swept = jax.vmap(energies)(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(swept.energy, 0.045887 * 2.1454, rtol=1e-5)
    np.testing.assert_allclose(swept.objective[:, 0], [9.1774, 9.1774 + 400 * 0.045887 * 2.1454], rtol=1e-5)


def test_an_episode_can_be_given_up() -> None:
    @jax.jit
    def play(limit: Array) -> Episodes:
        def cheap(so_far: Episodes) -> Array:
            return so_far.episode_return > limit

        return play_episode(ENV, ENV.evaluation_params(), static, LOCAL, jax.random.key(0), cheap)

    short, whole = play(jnp.array(-0.3)), play(jnp.array(-9.0))
    assert short.frames < whole.frames == 19
    assert not short.terminated
    assert whole.episode_return < short.episode_return <= -0.3


def test_keys_of_more_episodes_extend_those_of_fewer() -> None:
    few, many = (jax.random.key_data(evaluation_keys(number)) for number in (3, 100))
    np.testing.assert_array_equal(few, many[:3])
    assert len(np.unique(many, axis=0)) == 100


def test_summary_is_plain_and_orders_its_numbers() -> None:
    episodes = play_episodes(ENV, RANDOM, random, RANDOM, KEYS)
    report: dict[str, Any] = json.loads(json.dumps(summary(episodes)))
    assert tuple(report) == tuple(episodes.columns())
    for name, numbers in report.items():
        values = np.asarray(getattr(episodes, name), float)
        assert numbers["mean"] == pytest.approx(values.mean())
        assert values.min() <= numbers["low"] <= numbers["iqm"] <= numbers["high"] <= values.max(), name
    assert report["latency"]["low"] < report["latency"]["high"]


FINITE = st.floats(-1e3, 1e3, width=32)
TABLES = hnp.arrays(float, hnp.array_shapes(min_dims=1, max_dims=2, max_side=6), elements=FINITE)


def test_interquartile_mean_by_hand() -> None:
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == 3.5
    assert interquartile_mean([[1, 2], [3, 100]]) == 2.5
    assert np.isnan(interquartile_mean([1, 2, 3, np.nan])), "a diverged run is not trimmed away"


@given(TABLES)
def test_bootstrap_interval_is_seeded_and_within_the_scores(scores: np.ndarray) -> None:
    low, high = bootstrap_interval(scores, resamples=50, seed=3)
    assert (low, high) == bootstrap_interval(scores, resamples=50, seed=3)
    assert scores.min() - 1e-6 <= low <= high <= scores.max() + 1e-6


def test_bootstrap_interval_agrees_with_scipy() -> None:
    scores = np.random.default_rng(0).exponential(size=40)
    for statistic in (interquartile_mean, np.mean):
        ours = bootstrap_interval(scores, statistic, level=0.9, resamples=20_000)
        theirs = stats.bootstrap(
            (scores,), statistic, confidence_level=0.9, method="percentile", n_resamples=20_000, rng=1
        )
        np.testing.assert_allclose(ours, theirs.confidence_interval, rtol=0.02)


def test_bootstrap_resamples_runs_within_each_task() -> None:
    tasks = np.array([0.0, 1.0, 5.0, 9.0])
    alike = np.tile(tasks, (3, 1))  # runs do not differ, tasks do
    assert bootstrap_interval(alike, np.mean) == (tasks.mean(), tasks.mean())
    low, high = bootstrap_interval(alike.T, np.mean)  # tasks do not differ, runs do
    assert low < tasks.mean() < high
    assert bootstrap_interval(alike[:, 1], np.mean) == bootstrap_interval(alike[:, 1:2], np.mean) == (1, 1)


def test_bootstrap_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(10, 3))
    whole = bootstrap_interval(scores)
    monkeypatch.setattr(statistics, "_BLOCK", 1000)
    np.testing.assert_allclose(bootstrap_interval(scores), whole, atol=0.05)


def test_bootstrap_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    intervals = [
        bootstrap_interval(generator.normal(loc=2, size=(15, 2)), np.mean, resamples=200, seed=seed)
        for seed in range(400)
    ]
    covered = np.mean([low <= 2 <= high for low, high in intervals])
    assert 0.89 < covered < 0.98


@given(
    hnp.arrays(int, hnp.array_shapes(min_dims=1, max_dims=2, max_side=6), elements=st.integers(0, 9)),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_probability_of_improvement_is_a_probability_of_ranks(x: np.ndarray, runs: int, draw: Any) -> None:
    y = np.asarray([draw.choice(x) for _ in range(runs)])
    better = probability_of_improvement(x, y)
    assert 0 <= better <= 1
    assert better + probability_of_improvement(y, x) == pytest.approx(1)
    assert better == probability_of_improvement(4 * x - 1, 4 * y - 1)


def test_probability_of_improvement_is_the_u_statistic() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.integers(6, size=(7, 3)), generator.integers(5, size=(4, 3))
    u = stats.mannwhitneyu(x, y, axis=0).statistic
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(u / 28))
    assert probability_of_improvement(np.array([1, 2]), np.array([0])) == 1
    assert probability_of_improvement(np.array([1, 2]), np.array([1, 3])) == (0.5 + 0 + 1 + 0) / 4


def test_normalised_score_runs_from_random_to_bound() -> None:
    np.testing.assert_allclose(normalised_score([-3, -1, -2, -5], random=-3, bound=-1), [0, 1, 0.5, -1])


@pytest.mark.parametrize("scores", [np.zeros(0), np.zeros((2, 0)), np.zeros((2, 2, 2)), np.float64(1)])
def test_scores_of_another_shape_are_refused(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="scores of shape"):
        bootstrap_interval(scores)
    with pytest.raises(ValueError, match="scores of shape"):
        probability_of_improvement(scores, np.ones(3))


def test_scores_of_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="scores of 2 and 3 tasks"):
        probability_of_improvement(np.zeros((4, 2)), np.zeros((4, 3)))


# Reports


@pytest.mark.full
def test_newcomers_are_scored_between_random_and_the_optimum() -> None:
    env, _ = mec_jax.make("MultiExitAllocation-v0")

    def everything_local(observation: Array, key: Array) -> AllocationAction:
        return AllocationAction(jnp.full(5, 13), jnp.ones(5))

    def uniform(observation: Array, key: Array) -> AllocationAction:
        return env.action_space(env.default_params).sample(key)

    policies: Any = {"Local": everything_local, "Two runs": [everything_local, uniform]}
    report = evaluate("MultiExitAllocation-v0", policies, episodes=32)
    rows = report.rows
    assert list(rows)[:2] == ["Local", "Two runs"] and list(rows)[-1] == "Exact optimum"
    assert rows["Random"]["score"] == 0 and rows["Exact optimum"]["score"] == 1
    for name in ("return", "cost", "latency", "energy", "score"):
        assert rows["Local"][name] == pytest.approx(rows["Device-only-EAR"][name], rel=1e-5)
    assert rows["Two runs"]["runs"] == 2
    returns = rows["Local"]["return"], rows["Random"]["return"]  # the same keys draw the same actions
    assert rows["Two runs"]["return"] == pytest.approx(np.mean(returns), rel=1e-5)
    assert rows["Two runs"]["return_interval"] == pytest.approx(sorted(returns), rel=1e-5)
    content = json.loads(report.json())
    assert (content["env_id"], content["protocol"], content["episodes"]) == ("MultiExitAllocation-v0", PROTOCOL, 32)
    table = [line for line in report.markdown().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1


@pytest.mark.full
def test_savings_are_measured_against_local() -> None:
    report = evaluate("MultiUEOffloading-v0", {"Mine": lambda observation, key: LOCAL}, episodes=2, num_ues=2)
    mine = report.rows["Mine"]
    assert mine["by frames"] == pytest.approx(0, abs=1e-6) and mine["energy saved"] == pytest.approx(0, abs=1e-6)
    assert mine["time saved"] == pytest.approx(1 - 0.0475 / 0.045887, rel=1e-3)
    against = "time saved: task_latency, by frames: latency, energy saved: energy"
    assert f"Saved against Local's ({against})." in report.caption()


def test_environments_without_rulers_have_no_score() -> None:
    env, params = make_env("CartPole-v1", {}, {})
    keys = evaluation_keys(4)
    played = play_episodes(env, params, lambda nothing, observation, key: 0, None, keys)
    report = compare(env, params, {"Left": [played]}, keys)
    assert list(report.rows) == ["Left"] and "score" not in report.headers() and "score" not in report.rows["Left"]
    assert 8 <= report.rows["Left"]["return"] <= 11  # pushed to one side only, the pole falls within ten steps


def test_measures_are_named_when_one_is_missing() -> None:
    episodes = play_episodes(ENV, ENV.evaluation_params(), static, LOCAL, KEYS)
    with pytest.raises(AttributeError, match="no 'speed'"):
        _ = episodes.speed


def report_of(terminated: dict[str, float]) -> Report:
    row = {"runs": 1, "return": -1.0, "return_interval": (-1, -1)}
    rows = {name: {**row, "terminated": share} for name, share in terminated.items()}
    return Report("Any-v0", PROTOCOL, 2, (), rows)


def test_policies_that_never_finish_are_said_to_be_cut_off() -> None:
    report = report_of({"Fine": 1.0, "Half": 0.5, "Never": 0.0})
    assert [report.cells(name)[0] for name in report.rows] == ["Fine", "Half (50% cut off)", "Never (100% cut off)"]
    endless = report_of({"One": 0.0, "Other": 0.0})  # truncation is how every episode ends
    assert [endless.cells(name)[0] for name in endless.rows] == ["One", "Other"]


def test_the_interval_of_a_few_runs_is_that_of_a_t_test() -> None:
    values = np.random.default_rng(0).normal(1, 2, 6)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(mean_interval(values), expected, rtol=1e-12)
    assert mean_interval(np.array([0.5, 0.5, 0.5])) == (0.5, 0.5)
    assert np.isnan(mean_interval(np.array([1.0]))).all() and np.isnan(mean_interval(np.array([1.0, np.nan]))).all()


@pytest.mark.parametrize("runs", [2, 5, 10])
def test_the_interval_of_a_few_runs_misses_as_seldom_as_it_says(runs: int) -> None:
    """2000 draws without an effect: 5 % are missed, with a standard deviation of half a per cent."""
    drawn = np.random.default_rng(1).normal(size=(2000, runs))
    missed = np.mean([not low <= 0 <= high for low, high in map(mean_interval, drawn)])
    assert abs(missed - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000)
