"""Rulers of neuron allocation: baselines, a layer's optimum against brute force, the bound, latency of systems."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.evaluation import solver_of
from mec_jax.physics.neuron_allocation import Devices, Pieces
from mec_jax.profiles.neurons import load_neuron_table
from mec_jax.solvers import neuron_allocation as solvers

pytestmark = pytest.mark.slow

KEY = jax.random.key(3)
IDS = ("NeuronAllocation-v0", "NeuronAllocation-Dynamic-v0", "NeuronAllocation-Slots-v0")


def random_devices(rng: np.random.Generator, number: int, absent: int = 0) -> Devices:
    speed, bandwidth = 10 ** rng.uniform(8.5, 9.5, number), 10 ** rng.uniform(7.5, 9, number)
    failure = np.where(np.arange(number) < absent, 0, np.inf)
    return Devices(*(jnp.asarray(x, jnp.float32) for x in (speed, bandwidth, failure)))


def random_pieces(rng: np.random.Generator, number: int, equal: bool, empty: int = 0) -> Pieces:
    size = np.full(number, 3.0) if equal else np.sort(rng.integers(1, 6, number)).astype(float)
    size[number - empty :] = 0
    flops, own, output = 10 ** rng.uniform([5, 3, 3], [6, 5, 5])
    numbers = (size * flops, 10 ** rng.uniform(3, 6), size * own, size * output)
    return Pieces(*(jnp.asarray(x, jnp.float32) for x in numbers))


def first_actions(env: NeuronAllocation, params: Params, name: str, number: int) -> tuple[Any, list[int]]:
    """The first context of an episode, and what a baseline decides in it."""
    policy = jax.jit(lambda observation, key: solvers.baselines(env)[name](params, observation, key))
    step = jax.jit(env.step_env)
    observation, state = env.reset(KEY, params)
    context, actions = state.context, []
    for key in jax.random.split(KEY, number):
        actions.append(int(policy(observation, key)))
        observation, state, *_ = step(key, state, jnp.array(actions[-1]), params)
    return context, actions


# --- Baselines ---


def test_average_takes_turns_over_layers_among_those_that_are_there() -> None:
    env = NeuronAllocation(conditions="slots", num_devices=9)
    params = env.params(leave_probability=0, join_probability=0, failure_probability=0)
    context, actions = first_actions(env, params, "Average", 14)
    present = np.flatnonzero(context.present)
    assert 2 <= len(present) <= 8
    assert actions == [int(present[turn % len(present)]) for turn in range(14)]


def test_least_takes_the_strongest_whatever_waits_there() -> None:
    env, params = mec_jax.make(IDS[2])
    context, actions = first_actions(env, params, "Least", 6)
    free = np.where(context.present, 1 - context.usage, 0)
    assert actions == [int(np.argmax(free))] * 6


def test_random_takes_all_that_are_there_alike_and_no_other() -> None:
    env, params = mec_jax.make(IDS[2])
    observation, state = env.reset(KEY, params)
    keys = jax.random.split(KEY, 20_000)
    actions = jax.vmap(lambda key: solvers.random(env, params, observation, key))(keys)
    counts, present = np.bincount(actions, minlength=100), np.asarray(state.context.present)
    assert not counts[~present].any()
    np.testing.assert_allclose(counts[present], 20_000 / present.sum(), rtol=0.25)


def test_shortest_completion_is_the_device_that_returns_the_piece_first() -> None:
    env, params = mec_jax.make(IDS[1])
    policy = jax.jit(lambda observation: solvers.shortest_completion(env, params, observation, KEY))
    step = jax.jit(env.step_env)
    observation, state = env.reset(KEY, params)
    for number in range(12):
        chosen = int(policy(observation))
        choices = [slot for slot in range(3) if state.context.present[slot]]
        returns = {}
        for slot in choices:
            _, after, *_ = step(KEY, state, jnp.array(slot), params)
            returns[slot] = float(after.completion[state.piece])
        assert len(choices) > 1 and returns[chosen] <= min(returns.values()) * (1 + 1e-5)
        observation, state, *_ = step(jax.random.key(number), state, jnp.array(chosen), params)


# --- The optimum of a layer ---


def test_the_assignment_problem_finds_what_brute_force_finds_for_equal_pieces() -> None:
    rng = np.random.default_rng(0)
    for instance in range(20):
        devices = random_devices(rng, 3, absent=instance % 2)
        pieces = random_pieces(rng, 5, equal=True, empty=instance % 3)
        resend = instance % 4 == 3
        fast = solvers.layer_optimum(pieces, devices, resend, 2e9)
        force = solvers.layer_optimum(pieces, devices, resend, 2e9, by_force=True)
        assert fast.slowdown == pytest.approx(force.slowdown, rel=1e-5)
        # Its cost is that of its assignment, and no absent device is in it.
        filled = np.pad(fast.device, (0, 5 - fast.device.size), constant_values=fast.device[0])
        cost = solvers.assignment_slowdowns(
            jnp.asarray(filled)[None], pieces, devices, jnp.array(resend), jnp.array(0.0), jnp.array(2e9)
        )
        assert fast.device.size == 5 - instance % 3 and fast.slowdown == pytest.approx(float(cost[0]), rel=1e-5)


def test_shortest_completion_is_the_optimum_of_equal_pieces() -> None:
    """Each position time grows along its device, so that the smallest ones are taken one by one."""
    rng = np.random.default_rng(1)
    for _ in range(10):
        pieces, devices = random_pieces(rng, 6, equal=True), random_devices(rng, 4)
        times = solvers.position_times(pieces, devices, jnp.array(False), jnp.array(0.0))
        greedy = np.sort(np.asarray(times, float).ravel())[:6].sum() * 2e9 / float(pieces.flops[0])
        assert solvers.layer_optimum(pieces, devices, False, 2e9).slowdown == pytest.approx(greedy, rel=1e-6)


def test_too_many_assignments_and_no_device_are_refused() -> None:
    rng = np.random.default_rng(2)
    with pytest.raises(ValueError, match="20 devices and 6 unequal pieces have more than 1000000 assignments"):
        solvers.layer_optimum(random_pieces(rng, 6, equal=False), random_devices(rng, 20), False, 2e9)
    with pytest.raises(ValueError, match="no device is there"):
        solvers.layer_optimum(random_pieces(rng, 6, equal=True), random_devices(rng, 3, absent=3), False, 2e9)


# --- Whole episodes ---


def test_shortest_completion_is_within_one_percent_of_the_optimum_on_the_testbed() -> None:
    """The bound is exact there: it is the sum of the optima of the layers, found by `layer_optimum`."""
    env, params = mec_jax.make(IDS[0])
    keys = evaluation_keys(16)
    played = play_episodes(env, params, solvers.baselines(env)["Shortest completion"], params, keys)
    bound = solvers.bound(env, params, keys)
    assert (played.episode_return <= bound.episode_return * (1 - 1e-5)).all()
    assert (played.episode_return >= bound.episode_return * 1.01).all()
    contexts = jax.jit(solvers.episode_contexts, static_argnums=0)(env, params, keys[0])
    optimum = 0.0
    for layer in range(env.num_layers):
        devices = env.devices(jax.tree.map(lambda x, layer=layer: x[layer], contexts), params)
        pieces = env.pieces(jnp.array(layer), params)
        optimum += solvers.layer_optimum(pieces, devices, False, float(params.reference_speed)).slowdown
    assert float(bound.slowdown[0]) * 318 == pytest.approx(optimum, rel=1e-5)


@pytest.mark.full
@pytest.mark.parametrize("env_id", IDS)
def test_no_baseline_exceeds_the_bound(env_id: str) -> None:
    env, params = mec_jax.make(env_id)
    played = solvers.rulers(env, params, evaluation_keys(16)).episodes
    assert list(played) == ["Random", "Average", "Least", "Shortest completion", "Lower bound"]
    assert solver_of(env) is solvers.SOLVER
    bound = played.pop("Lower bound")
    for name, episodes in played.items():
        assert (episodes.episode_return <= bound.episode_return * (1 - 1e-5)).all(), name
        assert (episodes.latency >= bound.latency * (1 - 1e-5)).all(), name
        assert set(episodes.measures) == set(bound.measures) == {"slowdown", "latency", "reassigned", "lost"}
    means = {name: float(episodes.episode_return.mean()) for name, episodes in played.items()}
    # Least is the worst of all, against Fig. 5a of the paper.
    assert means["Least"] < means["Random"] < means["Average"] < means["Shortest completion"]


@pytest.mark.full
def test_no_policy_exceeds_the_bound_where_pieces_are_lost() -> None:
    env = NeuronAllocation(conditions="dynamic", num_devices=2, num_pieces=4)
    for cheap in (False, True):  # even if it pays to lose them
        numbers = {"lost_slowdown": 0.5} if cheap else {}
        params = env.params(failure_probability=0.05, join_probability=0.5, failure_window=0.5, **numbers)
        keys = evaluation_keys(64)
        bound = solvers.bound(env, params, keys)
        lost = 0
        for name in ("Random", "Shortest completion"):
            episodes = play_episodes(env, params, solvers.baselines(env)[name], params, keys)
            assert (episodes.episode_return <= bound.episode_return * (1 - 1e-5) + 1e-6).all(), name
            lost += int(np.sum(np.asarray(episodes.lost) > 0))
        assert lost > 12


def test_contexts_are_those_of_played_episodes() -> None:
    env = NeuronAllocation(conditions="dynamic")
    params = env.default_params
    contexts = jax.jit(solvers.episode_contexts, static_argnums=0)(env, params, KEY)

    def decide(carry: Any, _: None) -> Any:
        state, key = carry
        key, _, step_key = jax.random.split(key, 3)
        return (env.step_env(step_key, state, jnp.array(1), params)[1], key), (state.layer, state.piece, state.context)

    key, reset_key = jax.random.split(KEY)
    start = (env.reset(reset_key, params)[1], key)
    layer, piece, seen = jax.jit(lambda start: jax.lax.scan(decide, start, length=100)[1])(start)
    starts = np.flatnonzero(piece == 0)
    assert layer[starts].tolist() == list(range(17))
    for mine, played in zip(contexts, seen, strict=True):
        np.testing.assert_array_equal(mine[:17], played[starts])


# --- Systems ---


def test_latencies_of_systems_are_those_computed_by_hand() -> None:
    flops, bits = [4.0, 2.0, 6.0], [10.0, 3.0, 8.0, 0.0]
    assert solvers.mobile_only(flops, 2) == 6
    # Cuts after 0, 1, 2, 3 layers: 10 + 1.2, 2 + 3 + 0.8, 3 + 8 + 0.6, 6.
    assert solvers.partition_offloading(flops, bits, speed=2, bandwidth=1, edge_speed=10).latency == pytest.approx(5.8)
    assert solvers.partition_offloading(flops, bits, speed=2, bandwidth=1e-3, edge_speed=10) == (6, 12)
    # Two thirds of the work to the second device: its part starts at 4 of 12 FLOP.
    found = solvers.hierarchical(flops, [3.0, 8.0, 1.0], speed=[1, 2], bandwidth=[1, 0.5], table_overhead=0.25)
    assert found == pytest.approx(4 + 3 + 8 / 2 + 1 / 0.5 + 0.25)
    with pytest.raises(ValueError, match=r"cut_bits has shape \(3,\): it must be \(4,\)"):
        solvers.partition_offloading(flops, bits[:3], 2, 1, 10)


def test_collaboration_pays_on_fast_links_and_not_on_those_of_the_paper() -> None:
    """At 10 or 20 Mbit/s and 32 bit, exchanging every layer takes longer than computing it all on one device."""
    env = NeuronAllocation()
    table = load_neuron_table("mobilenet_v2")
    alone = solvers.mobile_only(np.array(table.neurons) * np.array(table.neuron_flops), 0.7 * 3e9)
    assert alone == pytest.approx(0.287, abs=0.001)
    fixed = {"usage_low": 0.3, "usage_high": 0.3}
    fast = solvers.intra_layer(env, env.params(**fixed), evaluation_keys(1))
    assert fast[0] < 0.7 * alone
    links = {"bandwidth_low": 20e6, "bandwidth_high": 20e6, "bits_per_element": 32}
    slow = solvers.intra_layer(env, env.params(**fixed, **links), evaluation_keys(1))
    assert slow[0] > 20 * alone
