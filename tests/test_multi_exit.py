"""`MultiExitAllocation-v0` and its variants: closed forms, scenarios, parameters, profiles, spaces and errors."""

import itertools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation
from mec_jax.physics.multi_exit import MIN_SHARE, edge_shares, survival
from mec_jax.profiles.layers import layer_table
from mec_jax.profiles.multi_exit import bundled_multi_exit_profiles, load_multi_exit_profile
from mec_jax.spaces import Simplex
from tests.documents import document, replaced, write
from tests.errors import error_of

BANDITS = ("MultiExitAllocation-v0", "MultiExitAllocation-Video-v0", "MultiExitAllocation-Compressed-v0")
CHAINS = tuple(name.replace("-v0", "-Markov-v0") for name in BANDITS)
KEY = jax.random.key(0)

TINY = document(
    "tiny",
    "two layers on two devices",
    input_bits=1000,
    layers=[
        {
            "name": "first",
            "flops": 100,
            "branch_flops": 10,
            "feature_shape": [2, 5, 5],
            "bits_per_element": 32,
            "compression_rate": 4,
        },
        {
            "name": "second",
            "flops": 200,
            "branch_flops": 20,
            "feature_shape": [1, 1, 1],
            "bits_per_element": 8,
            "compression_rate": 1,
        },
    ],
    devices=[
        {"power_w": 2, "transmit_power_w": 0.5, "speed_gflops": 1e-7, "exit_percent": [25, 75]},
        {"power_w": 4, "transmit_power_w": 1, "speed_gflops": 2e-7, "exit_percent": [0, 100]},
    ],
)


def tiny(tmp_path: Path, **static: Any) -> MultiExitAllocation:
    return mec_jax.make("MultiExitAllocation-v0", profile=write(tmp_path, TINY), **static)[0]


def still(env: MultiExitAllocation, **numbers: Any) -> Any:
    """Parameters with nothing random but the bandwidth of a chain."""
    return env.params(device_speed_spread=1, edge_speed_spread=1, **numbers)


def act(split: Any, share: Any) -> AllocationAction:
    return AllocationAction(jnp.asarray(split, jnp.int32), jnp.asarray(share, jnp.float32))


# --- Closed forms ---


def test_costs_of_a_tiny_network_are_those_computed_by_hand(tmp_path: Path) -> None:
    env = tiny(tmp_path)
    params = still(env, bandwidth_min=100, bandwidth_max=100, edge_speed=1000, latency_weight=[0.5, 0.25])
    _, state = env.reset(KEY, params)
    # Device 0 sends its input: both layers at the edge, where a quarter leaves by exit 1.
    edge_work = 100 + 10 + 0.75 * (200 + 20)
    first = np.array([10 + edge_work / (0.6 * 1000), 0.5 * 10])
    # Device 1 has no exit 1, computes layer 1 (100 FLOP at 200 FLOP/s) and sends 2 * 5 * 5 * 32 / 4 = 400 bit.
    second = np.array([0.5 + 4 + 220 / (0.4 * 1000), 4 * 0.5 + 1 * 4])
    *_, info = env.step_env(KEY, state, act([0, 1], [3.0, 2.0]), params)
    np.testing.assert_allclose([info["latency"], info["energy"]], (first + second) / 2, rtol=1e-6)
    cost = 0.5 * first.sum() + 0.25 * second[0] + 0.75 * second[1]
    assert float(info["cost"]) == pytest.approx(cost / 2, rel=1e-6)
    _, _, reward, *_ = env.step_env(KEY, state, act([0, 1], [3.0, 2.0]), params.replace(reference_cost=jnp.array(4.0)))
    assert float(reward) == pytest.approx(-cost / 4, rel=1e-6)
    # All local: 110 + 0.75 * 220 FLOP at 100 FLOP/s, 320 FLOP at 200 FLOP/s; nothing is sent, shares don't matter.
    *_, info = env.step_env(KEY, state, act([2, 2], [0.9, 0.1]), params)
    np.testing.assert_allclose(info["latency"], (2.75 + 1.6) / 2, rtol=1e-6)
    np.testing.assert_allclose(info["energy"], (2 * 2.75 + 4 * 1.6) / 2, rtol=1e-6)


@pytest.mark.parametrize("env_id", [*BANDITS, *CHAINS])
def test_everything_local_at_nominal_speed_earns_minus_one(env_id: str) -> None:
    env = mec_jax.make(env_id)[0]
    params = still(env)
    _, state = env.reset(KEY, params)
    n, m = env.num_devices, env.num_layers
    _, _, reward, *_ = env.step(KEY, state, act([m] * n, [0.0] * n), params)
    assert float(reward) == pytest.approx(-1, rel=1e-6)


def test_tasks_leave_by_the_first_installed_exit_that_is_not_before_theirs() -> None:
    exits = jnp.array([[0.1, 0.2, 0.3, 0.4]])
    every = survival(exits, jnp.array([[True] * 4]))
    np.testing.assert_allclose(every, [[1, 0.9, 0.7, 0.4, 0]], rtol=1e-6)
    some = survival(exits, jnp.array([[False, True, False, True]]))
    np.testing.assert_allclose(some, [[1, 1, 0.7, 0.7, 0]], rtol=1e-6)
    # An exit that no task takes changes nothing.
    skipped = survival(jnp.array([[0.5, 0.0, 0.5]]), jnp.array([[True, False, True]]))
    np.testing.assert_allclose(skipped, [[1, 0.5, 0.5, 0]], rtol=1e-6)


def test_no_work_and_no_bits_remain_after_all_tasks_have_left(tmp_path: Path) -> None:
    content = replaced(TINY, "devices.0.exit_percent", [100, 0])
    env = mec_jax.make("MultiExitAllocation-v0", profile=write(tmp_path, content))[0]
    params = still(env)
    options = env.options(env.situation(env.reset(KEY, params)[0], params), params)
    np.testing.assert_array_equal(options.edge_work[0, 1:], 0)
    np.testing.assert_array_equal(options.transmit_time[0, 1:], 0)
    *_, info = env.step(KEY, env.reset(KEY, params)[1], act([1, 2], [0.0, 0.0]), params)
    assert np.isfinite(info["latency"])


def test_work_is_conserved_over_splits() -> None:
    for env_id in BANDITS:
        env, params = mec_jax.make(env_id)
        options = env.options(env.situation(env.reset(KEY, params)[0], params), params)
        speed = env.reset(KEY, params)[1].device_speed[:, None]
        total = options.local_time * speed + options.edge_work
        np.testing.assert_allclose(total, jnp.broadcast_to(total[:, :1], total.shape), rtol=1e-5)
        assert (np.diff(options.local_time) > 0).all() and (np.diff(options.edge_work) < 0).all()


# --- Shares ---


@pytest.mark.parametrize(
    ("share", "work", "granted"),
    [
        ([1, 3], [1, 1], [0.25, 0.75]),
        ([0.2, 0.6], [1, 1], [0.25, 0.75]),
        ([1, 3], [1, 0], [1, 0]),
        ([1, 3], [0, 0], [0, 0]),
        ([0, 0], [1, 1], [0.5, 0.5]),
        ([0, 5], [1, 0], [1, 0]),
        ([np.nan, 2], [1, 1], [MIN_SHARE / (1 + MIN_SHARE), 1 / (1 + MIN_SHARE)]),
        ([-1, 2], [1, 1], [MIN_SHARE / (1 + MIN_SHARE), 1 / (1 + MIN_SHARE)]),
        ([np.inf, np.inf], [1, 1], [0.5, 0.5]),
        ([3e38, 3e38], [1, 1], [0.5, 0.5]),
        ([1e-30, 3e-30], [1, 1], [0.25, 0.75]),
        ([-np.inf, np.nan], [1, 1], [0.5, 0.5]),
    ],
)
def test_shares_are_granted_to_those_with_work_and_sum_to_one(share: Any, work: Any, granted: Any) -> None:
    got = edge_shares(jnp.asarray(share, jnp.float32), jnp.asarray(work, jnp.float32))
    np.testing.assert_allclose(got, granted, rtol=1e-6)


def test_costs_are_finite_whatever_the_action() -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    _, state = env.reset(KEY, params)
    for split, share in itertools.product(([-5] * 5, [0, 99, 3, 6, 13]), ([np.nan] * 5, [0, 1e38, -3, np.inf, 2])):
        _, after, reward, *_, info = env.step(KEY, state, act(split, share), params)
        chex.assert_tree_all_finite((reward, {name: info[name] for name in ("cost", "latency", "energy")}))
        expected = np.clip(split, 0, 13)
        *_, clipped = env.step(KEY, state, act(expected, share), params)
        assert info["cost"] == clipped["cost"]
        assert after.time == 0  # the next episode


# --- Scenarios ---


@pytest.mark.parametrize("env_id", [*BANDITS, *CHAINS])
def test_the_scenario_is_read_back_from_the_observation(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    key, action_key = jax.random.split(KEY)
    observation, state = env.reset(key, params)
    action = env.action_space(params).sample(action_key)
    observation, state, *_ = env.step_env(key, state, action, params)
    scenario = env.situation(observation, params)
    np.testing.assert_allclose(scenario.bandwidth, state.bandwidth, rtol=2e-6)
    np.testing.assert_allclose(scenario.edge_speed, state.edge_speed, rtol=2e-6)
    np.testing.assert_allclose(scenario.device_speed, state.device_speed, rtol=2e-6)
    in_force = state.split if env.markov else jnp.full(env.num_devices, env.num_layers)
    np.testing.assert_array_equal(scenario.split, in_force)
    assert np.abs(observation).max() < 2.5


def test_contexts_of_the_bandit_cover_their_ranges_evenly_in_the_logarithm() -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    _, states = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, 20_000), params)
    for values, low, high in (
        (states.bandwidth, 1e6, 100e6),
        (states.edge_speed, 1e12 / 1.5, 1.5e12),
        (states.device_speed[:, 2], 100e9 / 1.2, 120e9),
    ):
        position = np.log(np.asarray(values, float) / low) / np.log(high / low)
        assert (position.min(), position.max()) == pytest.approx((0, 1), abs=1e-3)
        np.testing.assert_allclose(np.histogram(position, 10, (-1e-6, 1 + 1e-6))[0], 2000, rtol=0.12)


def test_the_bandwidth_is_the_declared_markov_chain_and_its_start_is_stationary() -> None:
    env = mec_jax.make("MultiExitAllocation-Markov-v0")[0]
    params = env.params(bandwidth_levels=3, bandwidth_stay=0.6)
    np.testing.assert_allclose([env.bandwidth(level, params) for level in range(3)], [1e6, 1e7, 1e8], rtol=1e-6)
    keys = jax.random.split(KEY, 20_000)
    _, states = jax.jit(jax.vmap(env.reset, (0, None)))(keys, params)
    np.testing.assert_allclose(np.bincount(states.level) / 20_000, 1 / 3, rtol=0.05)
    for level, expected in ((0, [0.8, 0.2, 0]), (1, [0.2, 0.6, 0.2]), (2, [0, 0.2, 0.8])):
        after = jax.vmap(env.next_level, (0, None, None))(keys, jnp.array(level), params)
        np.testing.assert_allclose(np.bincount(after, minlength=3) / 20_000, expected, atol=0.01)


@pytest.mark.parametrize("env_id", ["MultiExitAllocation-v0", "MultiExitAllocation-Markov-v0"])
def test_scenarios_depend_on_the_key_and_not_on_actions(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    ends = []
    for seed in (1, 2):
        _, state = env.reset(KEY, params)
        for key in jax.random.split(KEY, 6):
            action = env.action_space(params).sample(jax.random.fold_in(key, seed))
            _, state, *_ = env.step_env(key, state, action, params)
        ends.append((state.bandwidth, state.edge_speed, state.device_speed))
    chex.assert_trees_all_equal(*ends)


def test_changed_partitions_are_counted_and_paid_for() -> None:
    env = mec_jax.make("MultiExitAllocation-Markov-v0")[0]
    params = env.params(switch_cost=0.3)
    free = params.replace(switch_cost=jnp.array(0.0))
    _, state = env.reset(KEY, params)
    # Nothing is deployed at the edge yet: three devices change.
    for split, changed in (([13, 0, 4, 13, 0], 3), ([13, 0, 4, 13, 0], 0), ([13, 0, 5, 0, 0], 2)):
        action = act(split, [1.0] * 5)
        _, after, reward, _, info = env.step_env(KEY, state, action, params)
        _, _, free_reward, _, _ = env.step_env(KEY, state, action, free)
        assert info["switches"] == changed
        np.testing.assert_allclose(free_reward - reward, 0.3 * changed / params.reference_cost, rtol=1e-4, atol=1e-6)
        state = after
    assert state.switches == 5


# --- Episodes ---


def test_episode_measures_are_means_over_steps() -> None:
    env, params = mec_jax.make("MultiExitAllocation-Markov-v0")
    _, state = env.reset(KEY, params)
    steps = []
    for key in jax.random.split(KEY, 5):
        _, state, _, _, info = env.step_env(key, state, env.action_space(params).sample(key), params)
        steps.append(info)
    measures = env.measures(info, jnp.array(5), params)
    assert set(measures) == {"cost", "latency", "energy", "switches"}
    for name, value in measures.items():
        np.testing.assert_allclose(value, np.mean([step[name] for step in steps]), rtol=1e-5)
    np.testing.assert_allclose(measures["cost"], (measures["latency"] + measures["energy"]) / 2, rtol=1e-5)


# --- Statics and parameters ---


# --- Spaces and gymnax ---


def test_the_simplex_holds_shares_that_sum_to_one() -> None:
    space = Simplex(3)
    samples = jax.vmap(space.sample)(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(samples.sum(1), 1, rtol=1e-6)
    assert (np.log(samples.max(1) / samples.min(1)) <= 2 + 1e-5).all()
    np.testing.assert_allclose(samples.mean(0), 1 / 3, atol=0.01)
    assert space.contains(jnp.array([0.5, 0.5, 0.0]))
    for wrong in ([0.5, 0.6, 0.0], [1.5, -0.5, 0.0], [np.nan, 0.5, 0.5], [0.0, 0.0, 0.0]):
        assert not space.contains(jnp.array(wrong))


# --- Profiles ---


@pytest.mark.parametrize("name", bundled_multi_exit_profiles())
def test_bundled_layers_are_those_of_the_generator(name: str) -> None:
    profile = load_multi_exit_profile(name)
    groups: list[list[Any]] = []
    for layer in layer_table("vgg16", image=(3, 224, 224), num_classes=1000):
        if layer.kind == "conv":
            groups.append([])
        if layer.kind not in ("conv", "relu", "maxpool"):
            break
        groups[-1].append(layer)
    assert profile.num_layers == len(groups) == 13
    assert list(profile.layer_flops) == [sum(layer.flops for layer in group) for group in groups]
    rate = 128 if name == "vgg16_compressed" else 1
    assert list(profile.feature_bits) == [32 * group[-1].output_elements / rate for group in groups]
    channels = np.array([group[-1].output_shape[0] for group in groups])
    elements = np.array([group[-1].output_elements for group in groups])
    np.testing.assert_array_equal(profile.branch_flops, elements + (2 * channels - 1) * 1000)


def test_bundled_devices_are_those_of_the_papers_tables() -> None:
    image, video = (load_multi_exit_profile(f"vgg16_{name}") for name in ("image", "video"))
    assert (image.num_devices, video.num_devices) == (5, 7)
    np.testing.assert_array_equal(np.divide(image.device_speed, 1e9), [50, 80, 100, 150, 200])
    np.testing.assert_array_equal(np.divide(video.device_speed, 1e9), [30, 60, 100, 120, 200, 250, 300])
    assert image.device_power == (0.5, 0.8, 1.2, 1.5, 2.0) and video.transmit_power[-1] == 0.6
    assert image.exit_totals == (100,) * 5 and video.exit_totals == (126, 111, 103, 102, 99, 95, 93)
    np.testing.assert_allclose(video.exit_probability[0][0], 15 / 126)
    for profile in (image, video):
        np.testing.assert_allclose(np.sum(profile.exit_probability, axis=1), 1, rtol=1e-12)
        assert {table for table, _ in profile.source} >= {"devices", "flops", "branch_flops", "input_bits"}
    assert load_multi_exit_profile("vgg16_compressed").exit_probability == image.exit_probability


def test_compressed_features_make_interior_cuts_smaller_than_the_input() -> None:
    profile = load_multi_exit_profile("vgg16_compressed")
    assert max(profile.feature_bits[1:]) < profile.input_bits


# --- Errors ---


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ["malformed JSON", "line 1"]),
        ("[]", ["one JSON object"]),
        (replaced(TINY, "schema", 2), ["schema", "2"]),
        (replaced(TINY, "layers", []), ["layers", "at least one"]),
        (replaced(TINY, "devices", {}), ["devices", "at least one"]),
        (replaced(TINY, "input_bits", ...), ["input_bits", "missing"]),
        (replaced(TINY, "layers.1.flops", 0), ["layers[1].flops", "> 0"]),
        (replaced(TINY, "layers.1.branch_flops", -1), ["layers[1].branch_flops", ">= 0"]),
        (replaced(TINY, "layers.0.feature_shape", [1, 2]), ["layers[0].feature_shape", "C, H, W"]),
        (replaced(TINY, "layers.0.flop", 1), ["layers[0].flop", "did you mean 'flops'"]),
        (replaced(TINY, "devices.0.power_w", "2"), ["devices[0].power_w", "number"]),
        (replaced(TINY, "devices.1.speed_gflops", 0), ["devices[1].speed_gflops", "> 0"]),
        (replaced(TINY, "devices.1.exit_percent", [100]), ["devices[1].exit_percent", "2 numbers"]),
        (replaced(TINY, "devices.1.exit_percent", [50, -50]), ["devices[1].exit_percent[1]", ">= 0"]),
        (replaced(TINY, "devices.0.exit_percent", [25, 76]), ["devices[0].exit_percent", "sums to 101", "exit_totals"]),
        (replaced(TINY, "exit_totals", [100]), ["exit_totals", "2 sums"]),
        (replaced(TINY, "exit_totals", [100, "x"]), ["exit_totals", "number"]),
        (replaced(TINY, "exit_totals", [100, 90]), ["devices[1].exit_percent", "sums to 100, not 90"]),
    ],
)
def test_malformed_profiles_are_one_clear_error(content: Any, words: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, content)
    message = error_of(load_multi_exit_profile, path)
    assert all(word in message for word in [*words, str(path)]), message


def test_printed_totals_are_divided_by(tmp_path: Path) -> None:
    content = replaced(TINY, "devices.0.exit_percent", [30, 90]) | {"exit_totals": [120, 100]}
    profile = load_multi_exit_profile(write(tmp_path, content))
    np.testing.assert_allclose(profile.exit_probability[0], [0.25, 0.75])
    assert profile.exit_totals == (120, 100)


@pytest.mark.parametrize(
    ("static", "words"),
    [
        ({"profile": "vgg16_imag"}, ["vgg16_imag", "did you mean 'vgg16_image'", "JSON file"]),
        ({"profile": "missing.json"}, ["missing.json", "No such file"]),
        ({"markov": 1}, ["markov", "1", "True or False"]),
        ({"num_devices": 3}, ["num_devices", "profile"]),
    ],
)
def test_wrong_statics_are_one_clear_error(static: dict[str, Any], words: list[str]) -> None:
    message = error_of(mec_jax.make, "MultiExitAllocation-v0", **static)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"latency_weight": 1.5}, ["latency_weight", ">= 0 and <= 1"]),
        ({"bandwidth_levels": 1}, ["bandwidth_levels", ">= 2"]),
        ({"bandwidth_min": 2e8}, ["bandwidth_min", "bandwidth_max"]),
        ({"device_speed_spread": 0.5}, ["device_speed_spread", ">= 1"]),
        ({"exit_probability": 0.5}, ["exit_probability", "6.5", "sum to 1"]),
        ({"exit_installed": False}, ["exit_installed", "last layer"]),
    ],
)
def test_wrong_parameters_are_one_clear_error(numbers: dict[str, Any], words: list[str]) -> None:
    message = error_of(mec_jax.make("MultiExitAllocation-v0")[0].params, **numbers)
    assert all(word in message for word in words), message


def test_actions_of_the_wrong_shape_are_one_clear_error() -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    _, state = env.reset(KEY, params)
    for wrong in (act([0] * 4, [1.0] * 4), act([0] * 5, 1.0), act([[0] * 5], [[1.0] * 5])):
        message = error_of(env.step, KEY, state, wrong, params)
        assert "action" in message and "(5,)" in message and "vmap" in message
