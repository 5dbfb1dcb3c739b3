"""Nothing wrong gets into an environment in silence: parameters, actions, and policies that send them."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

import mec_jax
from algos.algorithms import make_env
from benchmarks.harness.campaign import wrong
from benchmarks.robustness import hostile_environments
from mec_jax.contracts import Problem
from mec_jax.envs.offloading import MIN_POWER, OffloadAction
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.evaluation import compare
from mec_jax.parameters import RANGES, within
from mec_jax.physics.frame import TRANSMITTING, Given, Task, Uplink, play_frame, start_clock
from mec_jax.physics.multi_exit import survival
from mec_jax.physics.neuron_allocation import LATEST, Devices, Pieces, empty_queue, finish_layer
from mec_jax.physics.partition_game import Allocation, change_members, make_game
from mec_jax.spaces import DiscreteArray, NamedTupleSpace, Simplex, clipped_choice, contains
from tests.toys import Forever

KEY = jax.random.key(0)
CLASSES = (
    "MultiUEOffloading-v0",
    "MultiExitAllocation-v0",
    "NeuronAllocation-v0",
    "NeuronSharing-v0",
    "PartitionGame-v0",
    "CompressedInference-Anchored-v0",
)

# Parameters


def test_parameters_put_in_by_replace_count_within_their_declared_range() -> None:
    env, params = mec_jax.make("NeuronSharing-v0")
    table = env.parameters()
    for name, value, counts in (
        ("device_speed", -1.0, 1.0),
        ("device_speed", np.inf, RANGES["FLOP/s"][1]),
        ("device_speed", np.nan, 1.0),
        ("usage_low", 2, 0.99),
        ("timeout_factor", np.nan, 1.0),
        ("neurons", -(2**31), 1),
        ("neurons", 2.5, 2),
        ("max_steps_in_episode", -5, 1),
    ):
        found = getattr(env.bounded(params.replace(**{name: value})), name)
        np.testing.assert_array_equal(
            found, np.full(np.shape(getattr(params, name)), counts, found.dtype), err_msg=name
        )
        assert found.dtype == jnp.asarray(getattr(params, name)).dtype, name
    raised = env.bounded(params.replace(usage_low=0.9))
    assert raised.usage_high == raised.usage_low == np.float32(0.9)
    assert all(about.least < about.most for about in table.values() if about.kind is not bool)


@pytest.mark.parametrize("env_id", CLASSES)
def test_parameters_in_range_stay_bit_for_bit(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    before, after = jax.tree.map(jnp.asarray, params), env.bounded(params)
    same = jax.tree.map(
        lambda x, y: x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes(), before, after
    )
    assert all(jax.tree.leaves(same))


def test_a_parameter_of_another_shape_is_one_error_that_names_it() -> None:
    env, params = mec_jax.make("PartitionGame-v0")
    with pytest.raises(ValueError, match=r"^link_rate has shape \(2,\): it must fit \(\)"):
        env.reset(KEY, params.replace(link_rate=jnp.ones(2)))


def test_traced_parameters_are_clipped_when_given_too() -> None:
    env, _ = mec_jax.make("MultiExitAllocation-v0")
    made = jax.jit(lambda speed, low: env.params(device_speed=speed, bandwidth_min=low))(-1.0, 1e9)
    assert np.all(made.device_speed == 1) and made.bandwidth_max == made.bandwidth_min == 1e9
    assert np.isfinite(made.reference_cost)


@pytest.mark.parametrize("value", [1e30, np.nan, -1.0])
def test_what_overflows_is_refused_where_it_is_known(value: float) -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    with pytest.raises(ValueError, match=r"^edge_speed is .*: it must be finite and >= 1 and <= 1e"):
        env.params(edge_speed=value)
    with pytest.raises(ValueError, match=r"^edge_speed is .*: it must be finite and >= 1 and <= 1e"):
        compare(env, params.replace(edge_speed=jnp.float32(value)), {}, evaluation_keys(1))


def test_within_keeps_what_is_there_and_takes_nan_for_the_least() -> None:
    x = np.array([np.nan, -np.inf, -0.0, 0.3, np.inf], np.float32)
    np.testing.assert_array_equal(within(jnp.asarray(x), 0.0, 1.0), np.array([0, 0, -0.0, 0.3, 1], np.float32))
    assert np.signbit(within(jnp.asarray(x), 0.0, 1.0)[2])


# Physics at the ends of the ranges


def test_exits_that_no_task_takes_leave_all_to_the_last() -> None:
    left = survival(jnp.zeros((1, 3)), jnp.ones((1, 3), bool))
    np.testing.assert_array_equal(left, [[1, 1, 1, 0]])


def test_nothing_to_send_on_a_dead_link_is_never_due() -> None:
    one = jnp.ones(1)
    task = Task(0 * one, one, 0 * one, jnp.zeros(1, int), one, one)
    given = Given(task, task, Uplink(one, 0 * one, jnp.array(False)), jnp.ones(1, int))
    frame = play_frame(given, start_clock(given, jnp.array(0.5), jnp.full(1, TRANSMITTING), 0 * one))
    assert frame.left == 0 and frame.finished == 0 and frame.busy == frame.energy == 0.5


def test_timeouts_end_before_time_overflows() -> None:
    inf = jnp.inf
    devices = Devices(jnp.ones(3), jnp.ones(3), jnp.array([1.0, 1e9, inf]))
    pieces = Pieces(jnp.full(1, 1e12), jnp.array(0.0), jnp.zeros(1), jnp.zeros(1))
    start = (empty_queue(3, jnp.float32), devices, pieces, jnp.zeros(1, int), jnp.full(1, 1e12), jnp.array(0.0))
    outcome = finish_layer(*start, jnp.array(False), jnp.array(1e30))
    assert outcome.completion == pytest.approx(LATEST, rel=1e-3) and outcome.results == 1 and outcome.reassigned == 1


def test_a_ledger_of_another_game_sheds_what_there_is_and_no_more() -> None:
    utility, use = jnp.array([[1.0, 0.0]]), jnp.array([[[0.5, 0.0]], [[0.5, 0.0]]])
    game = make_game(utility, use, jnp.ones(2), jnp.array(False))
    there = jnp.ones(1, bool)
    shed = change_members(game, Allocation(jnp.zeros(1, int), there, jnp.full(2, 2**30)), there)
    assert shed.cut == 1


# Actions


@pytest.mark.parametrize("env_id", CLASSES)
def test_a_float_for_a_choice_is_one_error_that_names_it(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    whole: Any = env.action_space(params).sample(KEY)
    first, *others = whole if isinstance(whole, tuple) else (whole,)
    name = getattr(whole, "_fields", ("action",))[0]
    broken = jnp.full(first.shape, jnp.nan)
    _, state = jax.eval_shape(env.reset_env, KEY, params)
    with pytest.raises(ValueError, match=f"^{name} is of type float32: a choice is a whole number"):
        jax.eval_shape(env.step_env, KEY, state, type(whole)(broken, *others) if others else broken, params)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32, np.uint32, bool])
def test_choices_of_all_widths_are_clipped_to_the_nearer_end(dtype: Any) -> None:
    top = True if dtype is bool else np.iinfo(dtype).max
    bottom = False if dtype is bool else np.iinfo(dtype).min
    for num_choices in (2, 1000):
        found = clipped_choice(np.array([bottom, top], dtype), num_choices)
        np.testing.assert_array_equal(found, [0, min(int(top), num_choices - 1)])
        assert found.dtype == jnp.int32


def test_a_space_contains_what_is_of_its_type_shape_and_range() -> None:
    space = NamedTupleSpace(OffloadAction, (DiscreteArray(3, (2,)), spaces.Discrete(2), spaces.Box(0.0, 1.0, (2,))))
    fine = OffloadAction(jnp.array([0, 2]), jnp.array(1), jnp.array([0.0, 1.0]))
    assert contains(space, fine) and space.contains(fine) and contains(space, tuple(fine))
    for broken in (
        fine._replace(cut=jnp.array([0, 3])),
        fine._replace(cut=jnp.array([0.0, 2.0])),
        fine._replace(cut=jnp.array(0)),
        fine._replace(channel=jnp.array(0.5)),
        fine._replace(power=jnp.array([0.0, jnp.nan])),
        fine._replace(power=jnp.array(0.5)),
        fine[:2],
        jnp.zeros(3),
    ):
        assert not contains(space, broken), broken
    assert not contains(Simplex(2), jnp.array([0.5, 0.6])) and contains(Simplex(2), jnp.array([0.5, 0.5]))
    both = spaces.Dict({"cut": spaces.Discrete(2)})
    assert contains(both, {"cut": 1}) and not contains(both, {"cut": 2}) and not contains(both, {})


def test_actions_outside_their_space_are_counted_and_reported() -> None:
    env, params, keys = Forever(), Forever().default_params, evaluation_keys(4)
    sent = {"Fine": 0, "Wild": 7, "Low": -1}
    played = {name: [play_episodes(env, params, _sends, jnp.int32(action), keys)] for name, action in sent.items()}
    report = compare(env, params, played, keys)
    counts = {name: (row["outside"], row["actions"]) for name, row in report.rows.items()}
    assert counts == {"Fine": (0, 40), "Wild": (40, 40), "Low": (40, 40)}
    assert "Actions outside their space: Wild 40 of 40, Low 40 of 40." in report.markdown()
    assert json.loads(report.json())["rows"]["Wild"]["outside"] == 40
    assert "outside" not in compare(env, params, {"Fine": played["Fine"]}, keys).caption()


def _sends(action: Any, observation: Any, key: Any) -> Any:
    return action


def test_floats_for_choices_of_foreign_environments_are_counted() -> None:
    env, params = make_env("CartPole-v1", {}, {})
    keys = evaluation_keys(2)
    played = play_episodes(env, params, lambda nothing, observation, key: jnp.float32(1), None, keys)
    np.testing.assert_array_equal(played.outside, played.frames)


@pytest.mark.slow
def test_nan_counts_as_the_least_power_and_is_told() -> None:
    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=2)
    params = params.replace(max_steps_in_episode=3)
    broken, least = (OffloadAction(jnp.zeros(2, int), jnp.zeros(2, int), jnp.full(2, x)) for x in (jnp.nan, MIN_POWER))
    wrong, fine = (play_episodes(env, params, _sends, action, evaluation_keys(2)) for action in (broken, least))
    np.testing.assert_array_equal(wrong.episode_return, fine.episode_return)
    np.testing.assert_array_equal(wrong.outside, wrong.frames)
    np.testing.assert_array_equal(fine.outside, 0)


# The campaigns can fail


@pytest.mark.full
def test_campaigns_find_parameters_and_actions_that_are_not_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_environments, "_shares", lambda count: [("MultiExitAllocation-v0", count)])

    def found(campaign: Any) -> dict[str, int]:
        fates = campaign(60, 0, Path())
        return wrong({"inputs": 60, "fates": fates, "peak_bytes": 0})

    assert not found(hostile_environments.parameter_fates) and not found(hostile_environments.action_fates)
    jax.clear_caches()
    monkeypatch.setattr(Problem, "bounded", lambda self, params: params)
    monkeypatch.setattr("mec_jax.envs.multi_exit.clipped_choice", lambda choice, num_choices, name: choice)
    assert found(hostile_environments.parameter_fates) and found(hostile_environments.action_fates)
    jax.clear_caches()
