"""`NeuronAllocation-v0` and its variants: the DeepRM identity, an event simulation, failures, contexts and errors."""

from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from benchmarks.robustness import failures
from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.physics.neuron_allocation import Devices, Pieces, finish_layer, piece_sizes
from mec_jax.profiles.layers import layer_table
from mec_jax.profiles.neurons import load_neuron_table
from tests.documents import NEURONS, write

IDS = ("NeuronAllocation-v0", "NeuronAllocation-Dynamic-v0", "NeuronAllocation-Slots-v0")
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> NeuronAllocation:
    return NeuronAllocation(write(tmp_path_factory.mktemp("tiny"), NEURONS), conditions="dynamic")


def random_rollout(env: NeuronAllocation, params: Params, key: Any, steps: int) -> Any:
    """States before, rewards, ends and infos [step] of random actions, empty slots among them; without a reset."""

    def step(state: Any, key: Any) -> Any:
        action_key, step_key = jax.random.split(key)
        action = env.action_space(params).sample(action_key)
        _, after, reward, terminated, info = env.step_env(step_key, state, action, params)
        return after, (state, after.slot, reward, terminated, info)

    reset_key, key = jax.random.split(key)
    return jax.lax.scan(step, env.reset_env(reset_key, params)[1], jax.random.split(key, steps))[1]


rollout = jax.jit(random_rollout, static_argnums=(0, 3))
rollouts = jax.jit(jax.vmap(random_rollout, (None, None, 0, None)), static_argnums=(0, 3))


# --- What neurons cost ---


def test_neurons_of_mobilenet_v2_are_those_of_the_layer_table() -> None:
    table = load_neuron_table("mobilenet_v2")
    layers = [layer for layer in layer_table("mobilenet_v2") if layer.kind in ("conv", "linear")]
    assert table.num_layers == len(layers) == 53
    work = np.array(table.neurons) * np.array(table.neuron_flops)
    np.testing.assert_allclose(work[:-1].sum() + work[-1] + 1000, 2 * 300_774_272)
    assert (sum(table.input_elements), sum(table.output_elements)) == (6_767_200, 6_679_112)
    assert sum(table.own_inputs) == 17 and table.layer_names[1] == "features.1.conv.0.0" and table.own_inputs[1]
    assert table.neuron_flops[0] == 2 * 3 * 3 * 3 * 112 * 112 and table.neuron_flops[1] == 2 * 9 * 112 * 112
    assert (table.neurons[-1], table.neuron_flops[-1]) == (1000, 2 * 1280 - 1)


def test_neurons_of_mobilenet_v1_are_those_of_its_paper() -> None:
    table = load_neuron_table("mobilenet_v1")
    assert (table.num_layers, sum(table.own_inputs)) == (28, 13)
    macs = np.sum(np.array(table.neurons) * np.array(table.neuron_flops)) / 2
    assert macs == pytest.approx(569e6, rel=1e-3)


def test_pieces_hold_all_neurons_the_smaller_first_and_the_empty_last() -> None:
    for neurons in range(1, 40):
        sizes = np.asarray(piece_sizes(jnp.array(neurons), 6))
        assert sizes.sum() == neurons and sizes.max() - sizes[sizes > 0].min() <= 1
        assert (np.diff(sizes[sizes > 0]) >= 0).all() and (np.diff(np.sign(sizes)) <= 0).all()


def test_pieces_add_up_to_their_layer(tiny: NeuronAllocation) -> None:
    params = tiny.params(bits_per_element=4)
    for layer, content in enumerate(NEURONS["layers"]):
        pieces = tiny.pieces(jnp.array(layer), params)
        np.testing.assert_allclose(pieces.flops.sum(), content["neurons"] * content["neuron_flops"], rtol=1e-6)
        np.testing.assert_allclose(pieces.output_bits.sum(), 4 * content["output_elements"], rtol=1e-6)
        given = (pieces.shared_bits, pieces.own_bits.sum())
        expected = (0, 4 * content["input_elements"])
        np.testing.assert_allclose(given, expected if content["own_inputs"] else expected[::-1], rtol=1e-6)


# --- Physics ---


def test_a_layer_on_two_devices_takes_the_time_computed_by_hand() -> None:
    # 100 bit of shared input at 10 bit/s; 2, 4, 6 FLOP at 1 and 2 FLOP/s; 10 bit of output each.
    pieces = Pieces(jnp.array([2.0, 4, 6]), jnp.array(100.0), jnp.zeros(3), jnp.full(3, 10.0))
    devices = Devices(jnp.array([1.0, 2]), jnp.array([10.0, 10]), jnp.array([jnp.inf, jnp.inf]))
    execute = jax.jit(failures.execute)
    schedule = failures.Schedule(pieces, devices, jnp.array([0, 1, 0]), *map(jnp.array, (0.0, False, 2.0)))
    outcome = execute(schedule)
    np.testing.assert_allclose(outcome.completion, [10 + 2 + 1, 10 + 2 + 1, 10 + 2 + 6 + 1])
    again = execute(schedule._replace(resend=jnp.array(True)))
    np.testing.assert_allclose(again.completion, [13, 13, 20 + 6 + 1])  # the second input arrives at 20 s
    # Device 0 fails at 15 s: piece 2, expected at 19 s, is missed at 38 s; device 1 has the input.
    failing = devices._replace(failure=jnp.array([15.0, jnp.inf]))
    outcome = execute(schedule._replace(devices=failing))
    np.testing.assert_allclose(outcome.completion, [13, 13, 38 + 3 + 1])
    assert outcome.results.tolist() == [1, 1, 1] and outcome.reassigned == 1
    # With both gone, it stays without a result.
    outcome = execute(schedule._replace(devices=devices._replace(failure=jnp.array([15.0, 20.0]))))
    assert outcome.results.tolist() == [1, 1, 0] and np.isinf(outcome.completion[2]) and outcome.reassigned == 0


def test_a_layer_that_is_not_active_submits_nothing_again() -> None:
    pieces = Pieces(jnp.array([2.0]), jnp.array(0.0), jnp.zeros(1), jnp.zeros(1))
    devices = Devices(jnp.ones(2), jnp.ones(2), jnp.array([1.0, jnp.inf]))
    queue, one = failures.empty_queue(2, jnp.float32), jnp.array(1.0)
    arguments = (queue, devices, pieces, jnp.array([0]), jnp.array([2.0]), one * 0, jnp.array(False), one)
    assert finish_layer(*arguments, active=False).reassigned == 0
    assert finish_layer(*arguments).reassigned == 1


def test_a_thousand_random_failure_schedules_lose_and_double_no_piece() -> None:
    """One in a hundred of those of `benchmarks.robustness.failures`, a tenth simulated event by event."""
    schedules = failures.random_schedules(NeuronAllocation(), 1000, seed=1)
    outcome = jax.jit(jax.vmap(failures.execute))(schedules)
    assert int(np.sum(outcome.reassigned)) > 300
    assert np.mean(np.isinf(np.asarray(schedules.devices.failure)).any(1)) < 0.9
    found = failures.violations(schedules, outcome, simulated=100)
    assert not any(found.values()), found


# --- Episodes ---


@pytest.mark.parametrize("numbers", [{}, {"decision_time": 0.002, "resend_input": True, "timeout_factor": 1.3}])
def test_whole_episodes_with_failures_agree_with_a_simulation_of_events(tiny: NeuronAllocation, numbers: Any) -> None:
    """Completion times, reassignments, latency, and that the return is minus the sum of the simulated slowdowns."""
    params = tiny.params(failure_probability=0.3, join_probability=0.5, failure_window=0.6, **numbers)
    counts = [6, 4, 6]
    before, slot, reward, terminated, info = jax.tree.map(
        np.asarray, rollouts(tiny, params, jax.random.split(KEY, 60), sum(counts))
    )
    scale, lost_slowdown = float(params.reference_slowdown), float(params.lost_slowdown)
    stranded = resubmitted = 0
    for episode in range(60):
        slowdown, latency, reassigned, finished, step = 0.0, 0.0, 0, 0, -1
        for layer, count in enumerate(counts):
            step += count
            context = jax.tree.map(lambda x, at=(episode, step): x[at], before.context)
            pieces = tiny.pieces(jnp.array(layer), params)
            one = failures.simulate(
                failures.Schedule(
                    pieces,
                    tiny.devices(context, params),
                    slot[episode, step],
                    params.decision_time,
                    params.resend_input,
                    params.timeout_factor,
                )
            )
            assert info["layer_done"][episode, step]
            np.testing.assert_allclose(info["completion"][episode, step], one.completion, rtol=1e-5)
            ideal = np.asarray(pieces.flops, float)[:count] / float(params.reference_speed)
            returned = np.isfinite(one.completion[:count])
            slowdown += np.sum(np.where(returned, np.array(one.completion[:count]) / ideal, lost_slowdown))
            latency += max((x for x in one.completion if np.isfinite(x)), default=0)
            reassigned, finished = reassigned + one.reassigned, finished + len(one.queue)
            if terminated[episode, step]:
                break
        assert terminated[episode, step] and not terminated[episode, :step].any()
        slowdown += lost_slowdown * sum(counts[layer + 1 :])
        stranded += bool(info["stranded"][episode, step])
        assert info["stranded"][episode, step] == (finished < sum(counts))
        assert (info["finished"][episode, step], info["lost"][episode, step]) == (finished, sum(counts) - finished)
        assert info["reassigned"][episode, step] == reassigned
        resubmitted += reassigned
        np.testing.assert_allclose(info["latency"][episode, step], latency, rtol=1e-5)
        np.testing.assert_allclose(reward[episode, : step + 1].astype(float).sum() * scale, -slowdown, rtol=1e-5)
    assert stranded >= 2 and resubmitted >= 10  # both happened


@pytest.mark.parametrize("env_id", IDS[:2])
def test_the_return_is_minus_the_sum_of_slowdowns(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    steps = int(env.num_decisions(params))
    before, _, reward, terminated, info = rollouts(env, params, jax.random.split(KEY, 8), steps)
    assert steps == 318 and terminated[:, -1].all()
    flops = jax.vmap(env.pieces, (0, None))(before.layer[0], params).flops
    for episode in range(8):
        if terminated[episode, :-1].any():  # stranded: in the simulation's test
            continue
        done = np.flatnonzero(info["layer_done"][episode])
        assert len(done) == 53
        ideal = np.asarray(flops, float)[done] / float(params.reference_speed)
        slowdown = np.sum(np.asarray(info["completion"], float)[episode, done] / ideal)
        returned = np.sum(np.asarray(reward, float)[episode]) * float(params.reference_slowdown)
        assert returned == pytest.approx(-slowdown, rel=1e-5)
        measures = env.measures({name: x[episode, -1] for name, x in info.items()}, jnp.array(steps), params)
        assert float(measures["slowdown"]) == pytest.approx(slowdown / 318, rel=1e-5)
        assert measures["latency"] == info["latency"][episode, -1] and measures["lost"] == 0


def test_intervals_between_decisions_are_charged_as_they_pass(tiny: NeuronAllocation) -> None:
    params = tiny.params(decision_time=1e-4, failure_probability=0)
    _, _, reward, _, info = rollout(tiny, params, KEY, 6)
    ideal = tiny.pieces(jnp.array(0), params).flops / params.reference_speed
    # Nothing returns within 0.5 ms: five intervals with all six pieces in the system.
    assert float(info["completion"][-1].min()) > 5e-4
    np.testing.assert_allclose(reward[:5] * params.reference_slowdown, -1e-4 * jnp.sum(1 / ideal), rtol=1e-4)
    assert reward[5] < reward[4]


def test_an_episode_says_so_when_no_device_is_left(tiny: NeuronAllocation) -> None:
    params = tiny.params(failure_probability=1, failure_window=1e-6, lost_slowdown=500)
    _, _, reward, terminated, info = rollout(tiny, params, KEY, 6)
    assert terminated.tolist() == info["stranded"].tolist() == [False] * 5 + [True]
    assert info["lost"][-1] == 16 and info["finished"][-1] == 0
    np.testing.assert_allclose(jnp.sum(reward) * params.reference_slowdown, -16 * 500, rtol=1e-6)
    # Leaving with notice finishes the layer, but nobody is there for the next.
    params = tiny.params(failure_probability=0, leave_probability=1, join_probability=0, lost_slowdown=500)
    _, _, _, terminated, info = rollout(tiny, params, KEY, 6)
    assert terminated[-1] and info["stranded"][-1] and not terminated[:-1].any()
    assert (info["finished"][-1], info["lost"][-1]) == (6, 10)


def test_round_robin_under_nominal_conditions_earns_minus_one_a_layer() -> None:
    env = NeuronAllocation()
    params = env.params(usage_low=0.4, usage_high=0.4)
    step = jax.jit(env.step_env)
    _, state = env.reset(KEY, params)
    total = 0.0
    for decision in range(318):
        _, state, reward, terminated, _ = step(KEY, state, jnp.array(decision % 3), params)
        total += float(reward)
    assert terminated and total == pytest.approx(-53, rel=1e-5)


def test_an_episode_that_is_cut_off_is_truncated_and_a_whole_one_is_not(tiny: NeuronAllocation) -> None:
    for steps, ends in ((5, [False, True]), (16, [True, False])):
        params = tiny.params(max_steps_in_episode=steps, failure_probability=0, leave_probability=0)
        step = jax.jit(tiny.step)
        _, state = tiny.reset(KEY, params)
        for _ in range(steps):
            _, state, _, terminated, truncated, _ = step(KEY, state, jnp.array(0), params)
        assert [bool(terminated), bool(truncated)] == ends


# --- Contexts, slots and observations ---


def test_contexts_depend_on_the_key_and_not_on_actions(tiny: NeuronAllocation) -> None:
    params = tiny.params(failure_probability=0.2, join_probability=0.9)
    step = jax.jit(tiny.step_env)
    ends = []
    for action in (0, 2):
        _, state = tiny.reset(KEY, params)
        for key in jax.random.split(KEY, 10):
            _, state, *_ = step(key, state, jnp.array(action), params)
        ends.append(state.context)
    chex.assert_trees_all_equal(*ends)


def test_contexts_change_at_the_declared_rates_and_stay_in_range() -> None:
    env = NeuronAllocation(conditions="slots", num_devices=2000)
    params = env.params(usage_change=0.25, bandwidth_change=0.5, failure_probability=0.1, leave_probability=0.2)
    first = env.first_context(KEY, params)
    after = env.next_context(jax.random.key(1), first, jnp.array(1), params)
    assert first.present.mean() == pytest.approx(0.5, abs=0.04)
    np.testing.assert_array_equal(first.failure == 0, ~first.present)
    failed = np.asarray(first.present & np.isfinite(first.failure))
    assert failed.sum() / first.present.sum() == pytest.approx(0.1, abs=0.03)
    assert not after.present[failed].any()
    stayed = after.present[first.present & ~failed].mean()
    assert stayed == pytest.approx(0.8, abs=0.05)
    assert after.present[~first.present].mean() == pytest.approx(0.01, abs=0.01)
    assert np.mean(after.usage != first.usage) == pytest.approx(0.25, abs=0.04)
    assert np.mean(after.bandwidth != first.bandwidth) == pytest.approx(0.5, abs=0.04)
    for context in (first, after):
        assert 0.1 <= context.usage.min() < 0.15 and 0.85 < context.usage.max() <= 0.9
        assert context.bandwidth.min() >= 1e8 * 0.999 and context.bandwidth.max() <= 1e9 * 1.001
    layer_time = params.neurons[1] * params.neuron_flops[1] / params.reference_speed
    instants = np.asarray(after.failure)[np.isfinite(after.failure) & (after.failure > 0)]
    assert instants.max() <= layer_time and instants.mean() == pytest.approx(float(layer_time) / 2, rel=0.2)


def test_the_testbed_is_static_and_somebody_is_there_at_the_start() -> None:
    env = NeuronAllocation()
    params = env.default_params
    first = env.first_context(KEY, params)
    chex.assert_trees_all_equal(first, env.next_context(jax.random.key(1), first, jnp.array(1), params))
    alone = jax.vmap(env.first_context, (0, None))(jax.random.split(KEY, 50), env.params(present_probability=0))
    np.testing.assert_array_equal(alone.present.sum(1), 1)


def test_slots_hold_the_strongest_devices_that_are_there(tmp_path: Path) -> None:
    env = NeuronAllocation(write(tmp_path, NEURONS), conditions="slots", num_devices=20, num_slots=4)
    params = env.params(device_speed=np.linspace(1e9, 3e9, 20))
    context = env.first_context(KEY, params)
    speed = np.where(context.present, (1 - context.usage) * params.device_speed, 0)
    devices = env.devices(context, params)
    strongest = np.argsort(-speed)[:4]
    np.testing.assert_allclose(devices.speed, speed[strongest], rtol=1e-6)
    np.testing.assert_array_equal(devices.bandwidth, context.bandwidth[strongest])
    observation, state = env.reset(KEY, params)
    assert observation.shape == env.observation_space(params).shape
    _, after, *_ = env.step_env(KEY, state, jnp.array(3), params)
    assert after.slot[0] == 3 and after.queue.up[3] > 0 and not after.queue.up[:3].any()


def test_empty_slots_are_masked_zeros_and_their_choice_falls_to_the_next() -> None:
    env, params = mec_jax.make(IDS[2])
    observation, state = env.reset(KEY, params)
    mask = env.action_mask(observation, params)["action"]
    np.testing.assert_array_equal(mask, state.context.present)
    assert 20 < mask.sum() < 80
    assert not observation[7:].reshape(100, 7)[~mask].any()
    present = np.flatnonzero(mask)
    for action in (int(np.flatnonzero(~mask)[0]), 99, -5, 1000, int(present[3])):
        inside = min(max(action, 0), 99)
        expected = present[present >= inside][0] if (present >= inside).any() else present[0]
        assert env.valid_action(jnp.array(action), state.context.present) == expected


@pytest.mark.parametrize("env_id", IDS[1:])
def test_the_situation_is_read_back_from_the_observation(env_id: str) -> None:
    env = mec_jax.make(env_id)[0]
    params = env.params(decision_time=1e-5)
    step = jax.jit(env.step_env)
    _, state = env.reset(KEY, params)
    for number in range(10):
        observation, state, *_ = step(jax.random.key(number), state, jnp.array(number), params)
    now = jax.jit(env.situation)(observation, params)
    present = np.asarray(state.context.present)
    assert (now.layer, now.piece) == (1, 4) and (now.layer, now.piece) == (state.layer, state.piece)
    np.testing.assert_array_equal(now.present, present)
    speed = (1 - state.context.usage) * params.device_speed
    np.testing.assert_allclose(now.speed[present], speed[present], rtol=1e-5)
    np.testing.assert_allclose(now.bandwidth[present], state.context.bandwidth[present], rtol=1e-5)
    np.testing.assert_array_equal(now.queue.informed[present], state.queue.informed[present])
    for read, free in zip(now.queue[:3], state.queue[:3], strict=True):
        np.testing.assert_allclose(read[present], np.maximum(free - 5e-5, 0)[present], rtol=1e-4, atol=1e-8)
    assert max(float(x[present].max()) for x in now.queue[:3]) > 0


# --- Statics, parameters, spaces and errors ---


@pytest.mark.parametrize(
    ("static", "message"),
    [
        (
            {"conditions": "testbeds"},
            "unknown conditions 'testbeds': did you mean 'testbed'. choose from testbed, dynamic, slots",
        ),
        ({"network": "mobilenet"}, "can't read neuron table 'mobilenet'"),
        ({"num_devices": 0}, "num_devices is 0: it must be a whole number of at least 1"),
        ({"num_pieces": 2.5}, "num_pieces is 2.5"),
        ({"num_slots": True}, "num_slots is True"),
        ({"num_slots": 4}, "4 slots for 3 devices"),
    ],
)
def test_bad_statics_are_refused(static: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronAllocation(**static)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"timeout_factor": 0.5}, "timeout_factor is 0.5: it must be finite and >= 1"),
        ({"usage_high": 1}, "usage_high is 1: it must be finite and >= 0 and <= 0.99"),
        ({"usage_low": 0.95}, "usage_low .* exceeds usage_high"),
        ({"bandwidth_low": 2e9}, "bandwidth_low .* exceeds bandwidth_high"),
    ],
)
def test_bad_numbers_are_refused(tiny: NeuronAllocation, numbers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.params(**numbers)
