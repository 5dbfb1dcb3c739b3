"""`PartitionGame-v0`: cut tables, physics by hand, episodes against plain Python, masks, turns, agents and errors."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mec_jax.envs.partition_game import Params, PartitionGame
from mec_jax.interop.partition_game import PartitionGameAgents
from mec_jax.physics.partition_game import (
    UNITS,
    Allocation,
    Game,
    change_members,
    is_feasible,
    make_game,
    nobody,
    resource_use,
    response_times,
    shed,
    total_utility,
    used,
    utilities,
)
from mec_jax.profiles.layers import layer_table
from mec_jax.profiles.partition_game import load_cut_table
from tests.documents import CUTS, write

KEY = jax.random.key(0)
CHURN = {"join_probability": 0.1, "leave_probability": 0.08}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> PartitionGame:
    return PartitionGame(write(tmp_path_factory.mktemp("tiny"), CUTS), num_devices=4)


def random_rollout(env: PartitionGame, params: Params, key: Any, steps: int) -> Any:
    """States before, observations, actions, rewards and infos [step] of random cuts, fitting or not."""

    def step(carry: Any, key: Any) -> Any:
        observation, state = carry
        action_key, step_key = jax.random.split(key)
        action = env.action_space(params).sample(action_key)
        after, next_state, reward, _, info = env.step_env(step_key, state, action, params)
        return (after, next_state), (state, observation, action, reward, info)

    reset_key, key = jax.random.split(key)
    return jax.lax.scan(step, env.reset_env(reset_key, params), jax.random.split(key, steps))[1]


rollout = jax.jit(random_rollout, static_argnums=(0, 3))
rollouts = jax.jit(jax.vmap(random_rollout, (None, None, 0, None)), static_argnums=(0, 3))


# --- Cut tables ---


def test_the_authors_network_has_the_costs_of_their_code() -> None:
    table = load_cut_table()
    flops = np.array(table.flops)
    assert table.num_cuts == 10 and len(table.bits) == 11
    assert flops.sum() / 2 == pytest.approx(236.6e6, rel=1e-3)
    percent = 100 * np.cumsum(flops) / flops.sum()
    np.testing.assert_allclose(percent, [9.4, 9.4, 9.4, 36.8, 63.7, 63.7, 71.6, 85.8, 100, 100], atol=0.06)
    kibibytes = np.array(table.bits) / 8 / 1024
    np.testing.assert_allclose(kibibytes, [27.6, 441, 441, 110, 110, 60.5, 18, 9, 8, 4, 4], atol=0.3)
    assert kibibytes[0] == 4 * 84 * 84 / 1024
    assert [cut for cut in range(1, 11) if kibibytes[cut] < kibibytes[0]] == [6, 7, 8, 9, 10]
    floats = load_cut_table("coknight_resnet_float32")
    assert floats.flops == table.flops and floats.bits == (4 * table.bits[0], *table.bits[1:])


def test_other_networks_and_profiles_are_cut_where_one_tensor_goes_on() -> None:
    for network, macs in (("resnet18", 1_814_073_344), ("mobilenet_v2", 300_774_272)):
        table, layers = load_cut_table(network), layer_table(network)
        assert table.layer_names == tuple(layer.name for layer in layers if layer.cut)
        assert sum(table.flops) == 2 * macs and table.bits[0] == 3 * 224 * 224 * 8
        assert table.bits[1:] == tuple(32 * layer.output_elements for layer in layers if layer.cut)
    profile = load_cut_table("vgg16_image")
    assert profile.num_cuts == len(profile.bits) - 1 and profile.bits[0] == 3 * 224 * 224 * 8


# --- Physics ---


def test_response_times_are_those_computed_by_hand() -> None:
    # 10 and 30 FLOP; 8, 4 and 2 bit; devices of 1 and 5 FLOP/s, an edge of 20 FLOP/s, a link of 2 bit/s.
    times = response_times(
        jnp.array([10.0, 30]), jnp.array([8.0, 4, 2]), jnp.array([1.0, 5]), *map(jnp.array, (20.0, 2.0))
    )
    np.testing.assert_allclose(times, [[2 + 5, 10 + 1.5 + 3, 40], [2 + 5, 2 + 1.5 + 3, 8]], rtol=1e-6)
    np.testing.assert_allclose(utilities(times), [[33, 25.5, 0], [1, 1.5, 0]], rtol=1e-6)
    use = resource_use(jnp.array([10.0, 30]), jnp.array([8.0, 4, 2]), jnp.array([1.0, 3]), jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(use, [[[40, 30, 0], [120, 90, 0]], [[8, 4, 0], [4, 2, 0]]])


@pytest.mark.parametrize("elastic", [False, True])
def test_what_fits_exactly_fits_and_hardly_more(elastic: bool) -> None:
    """Ten uses of a tenth fit, whatever the rounding of floats; a millionth more does not."""
    for part, fits in ((1.0, True), (1 + 1e-6, False)):
        for devices in (3, 7, 10):
            use = jnp.full((2, devices, 1), 0.1 * part)
            use = jnp.concatenate([use, jnp.zeros_like(use)], axis=2)
            room = jnp.full(2, 0.1 if elastic else 0.1 * devices)
            game = make_game(jnp.ones((devices, 2)), use, room, jnp.array(elastic))
            everyone = jnp.ones(devices, bool)
            assert is_feasible(game, jnp.zeros(devices, int), everyone) == fits
            if elastic:  # as many as are there
                assert is_feasible(game, jnp.zeros(devices, int), everyone.at[0].set(False)) == fits


def test_uses_far_beyond_the_capacity_do_not_overflow() -> None:
    use = jnp.concatenate([jnp.full((2, 100, 1), 1e9), jnp.zeros((2, 100, 1))], axis=2)
    game = make_game(jnp.ones((100, 2)), use, jnp.ones(2), jnp.array(False))
    everyone = jnp.ones(100, bool)
    assert used(game, jnp.zeros(100, int), everyone).tolist() == [2 * UNITS] * 2
    assert not is_feasible(game, jnp.zeros(100, int), everyone) and is_feasible(game, jnp.ones(100, int), everyone)


def test_who_leaves_takes_along_what_was_used(tiny: PartitionGame) -> None:
    game = tiny.game(jnp.zeros(4, int), tiny.params(compute_capacity=1e9, bandwidth_capacity=1e9))
    everyone = jnp.ones(4, bool)
    cut = jnp.array([0, 1, 2, 3])
    before = Allocation(cut, everyone, used(game, cut, everyone))
    after = change_members(game, before, jnp.array([True, False, True, False]))
    assert after.cut.tolist() == [0, 3, 2, 3]
    np.testing.assert_array_equal(after.used, used(game, after.cut, after.present))
    none = change_members(game, after, jnp.zeros(4, bool))
    assert none.used.tolist() == [0, 0] and none.cut.tolist() == nobody(game).cut.tolist()


# --- Episodes ---


@pytest.mark.parametrize("elastic", [False, True])
def test_whole_episodes_agree_with_plain_python(tiny: PartitionGame, elastic: bool) -> None:
    """Cuts, their fallback, rewards, turns, and that all fits at all times; in exact numbers."""
    params = tiny.params(elastic=elastic, **CHURN)
    before, _, action, reward, info = jax.tree.map(np.asarray, rollouts(tiny, params, jax.random.split(KEY, 8), 60))
    flops, bits = (np.asarray(x, float) for x in (params.layer_flops, params.bits))
    back = np.append(np.cumsum(flops[::-1])[::-1], 0)
    limits = np.array([params.compute_capacity, params.bandwidth_capacity], float)
    uses = np.stack([back, np.append(bits[:-1], 0)])
    fell = shed = 0
    for episode in range(8):
        cut, fresh, turn, here = [3] * 4, np.zeros(4, bool), 3, np.zeros(4, bool)
        for step in range(60):
            now = before.context.present[episode, step]
            fresh = (fresh & now) | (now & ~here)
            cut = [k if there else 3 for k, there in zip(cut, now, strict=True)]
            room = limits * (now.sum() if elastic else 1) * (1 + 1e-6)
            state = before.allocation.cut[episode, step]
            if (uses[:, cut].sum(1) > room).any():
                shed += 1
                cut = state.tolist()  # who goes local is tested with the solvers
            assert state.tolist() == cut and (uses[:, cut].sum(1) <= room).all()
            order = [(turn + 1 + ahead) % 4 for ahead in range(4)]
            candidates = [i for i in order if fresh[i]] or [i for i in order if now[i]]
            if candidates:
                turn = candidates[0]
                assert before.turn[episode, step] == turn
                others = uses[:, [k for i, k in enumerate(cut) if i != turn]].sum(1)
                wanted = int(action[episode, step])
                fits = (others + uses[:, wanted] <= room).all()
                fell += not fits
                cut[turn] = wanted if fits else 3
                fresh[turn] = False
            else:
                turn = int(before.turn[episode, step])
            assert info["cut"][episode, step].tolist() == cut
            speed = np.asarray(params.device_speed, float)[before.context.kind[episode, step]]
            local = (back[0] - back)[None] / speed[:, None]
            edge = back / float(params.edge_speed) + (bits + bits[-1]) / float(params.link_rate)
            times = local + np.append(edge[:-1], 0)
            saved = np.where(now, times[:, 3] - times[np.arange(4), cut], 0)
            np.testing.assert_allclose(info["utility"][episode, step], saved, rtol=1e-4, atol=1e-8)
            expected = saved.sum() / float(params.reference_utility)
            assert reward[episode, step] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            here = now
    assert fell > 20 and (shed > 0) == elastic


def test_ledgers_of_states_equal_their_recomputation(tiny: PartitionGame) -> None:
    params = tiny.params(**CHURN)
    before = rollouts(tiny, params, jax.random.split(KEY, 8), 60)[0]
    game = tiny.game(before.context.kind[0, 0], params)  # uses are the same of all kinds
    again = jax.vmap(jax.vmap(lambda a: used(game, a.cut, a.present)))(before.allocation)
    np.testing.assert_array_equal(before.allocation.used, again)


def test_measures_are_means_over_steps(tiny: PartitionGame) -> None:
    params = tiny.params(**CHURN)
    before, _, _, reward, info = jax.tree.map(np.asarray, rollout(tiny, params, KEY, 60))
    measures = tiny.measures({name: x[-1] for name, x in info.items()}, jnp.array(60), params)
    present = before.context.present
    total = np.mean(info["utility"].sum(1))
    assert float(measures["utility"]) == pytest.approx(total, rel=1e-5)
    assert reward.mean() * float(params.reference_utility) == pytest.approx(total, rel=1e-5)
    for name, values in (("cut_variance", info["cut"]), ("utility_variance", info["utility"])):
        spread = [np.var(row[there]) if there.any() else 0 for row, there in zip(values, present, strict=True)]
        assert float(measures[name]) == pytest.approx(np.mean(spread), rel=1e-4)


def test_without_limits_the_best_cuts_earn_one_a_step_on_average() -> None:
    env = PartitionGame()
    params = env.params(compute_capacity=1e15, bandwidth_capacity=1e15, present_probability=1, leave_probability=0)

    @jax.jit
    @jax.vmap
    def best(key: Any) -> Any:
        context = env.first_context(key, params)
        game = env.game(context.kind, params)
        return total_utility(game, jnp.argmax(game.utility, axis=1), context.present) / params.reference_utility

    assert float(jnp.mean(best(jax.random.split(KEY, 400)))) == pytest.approx(1, abs=0.04)


# --- Contexts, masks and observations ---


def test_contexts_depend_on_the_key_and_change_at_the_declared_rates() -> None:
    env = PartitionGame(num_devices=4000)
    params = env.params(join_probability=0.3, leave_probability=0.2, kind_weight=[1, 2, 5])
    first = env.first_context(KEY, params)
    after = env.next_context(jax.random.key(1), first, params)
    assert first.present.mean() == pytest.approx(2 / 3, abs=0.04)
    for context in (first, after):
        np.testing.assert_allclose(np.bincount(context.kind) / 4000, [0.125, 0.25, 0.625], atol=0.04)
    assert after.present[first.present].mean() == pytest.approx(0.8, abs=0.04)
    assert after.present[~first.present].mean() == pytest.approx(0.3, abs=0.05)
    np.testing.assert_array_equal(after.kind[first.present], first.kind[first.present])


def test_contexts_do_not_depend_on_actions(tiny: PartitionGame) -> None:
    params = tiny.params(**CHURN)
    step = jax.jit(tiny.step_env)
    ends = []
    for action in (0, 3):
        _, state = tiny.reset(KEY, params)
        for key in jax.random.split(KEY, 10):
            _, state, *_ = step(key, state, jnp.array(action), params)
        ends.append(state.context)
    chex.assert_trees_all_equal(*ends)


def test_masks_allow_just_the_cuts_that_fit(tiny: PartitionGame) -> None:
    params = tiny.params(**CHURN)
    before, observation, _, _, _ = rollouts(tiny, params, jax.random.split(KEY, 8), 60)
    game = tiny.game(before.context.kind[0, 0], params)

    def by_trial(allocation: Allocation, turn: Any) -> Any:
        def fits(cut: Any) -> Any:
            return is_feasible(game, allocation.cut.at[turn].set(cut), allocation.present)

        nobody_there = ~allocation.present[turn]
        return jnp.where(nobody_there, jnp.arange(4) == 3, jax.vmap(fits)(jnp.arange(4)))

    masks = jax.vmap(jax.vmap(lambda o: tiny.action_mask(o, params)["action"]))(observation)
    np.testing.assert_array_equal(masks, jax.vmap(jax.vmap(by_trial))(before.allocation, before.turn))
    assert masks[..., -1].all() and 0.2 < masks[..., 0].mean() < 0.9


def test_with_nobody_there_nothing_happens(tiny: PartitionGame) -> None:
    params = tiny.params(present_probability=0, join_probability=0, reference_utility=1)
    observation, state = tiny.reset(KEY, params)
    assert tiny.action_mask(observation, params)["action"].tolist() == [False, False, False, True]
    assert not observation[8 + 4 :].any() and observation[:2].tolist() == [1, 1]
    for action in (0, 3):
        _, after, reward, _, info = tiny.step_env(KEY, state, jnp.array(action), params)
        assert reward == 0 and after.allocation.used.tolist() == [0, 0] and info["present"] == 0


@pytest.mark.parametrize("elastic", [False, True])
def test_the_situation_is_read_back_from_the_observation(tiny: PartitionGame, elastic: bool) -> None:
    params = tiny.params(elastic=elastic, **CHURN)
    before, observation, *_ = rollouts(tiny, params, jax.random.split(KEY, 8), 60)
    now = jax.vmap(jax.vmap(lambda o: tiny.situation(o, params)))(observation)
    present = np.asarray(before.context.present)
    np.testing.assert_array_equal(now.turn[present.any(-1)], before.turn[present.any(-1)])
    np.testing.assert_array_equal(now.fresh, before.fresh)
    chex.assert_trees_all_equal(now.allocation, before.allocation)
    game = jax.vmap(jax.vmap(lambda kind: tiny.game(kind, params)))(before.context.kind)
    np.testing.assert_allclose(now.game.utility[present], game.utility[present], rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(now.game.use, game.use)


# --- Agents ---


@pytest.mark.full
def test_agents_see_and_do_what_the_controller_does_in_their_turn(tiny: PartitionGame) -> None:
    params = tiny.params(**CHURN)
    view = PartitionGameAgents(tiny, params)
    assert view.agents == [f"device_{i}" for i in range(4)] and view.num_agents == 4
    step, control = jax.jit(view.step_env), jax.jit(tiny.step_env)
    observations, state = view.reset(KEY)
    moved = 0
    for number, key in enumerate(jax.random.split(KEY, 15)):
        available = view.get_avail_actions(state)
        actor = view.agents[int(state.turn)]
        actions = {}
        for index, agent in enumerate(view.agents):
            assert observations[agent].shape == view.observation_space(agent).shape
            allowed_cuts = np.flatnonzero(available[agent])
            if agent != actor:  # the others can only keep theirs
                assert allowed_cuts.tolist() == [state.allocation.cut[index]]
            actions[agent] = jnp.asarray(allowed_cuts[number % len(allowed_cuts)])
        # What the others say does not matter.
        noise = {agent: action if agent == actor else jnp.asarray(0) for agent, action in actions.items()}
        _, same, *_ = step(key, state, noise)
        _, expected, reward, _, info = control(key, state, actions[actor], params)
        observations, after, rewards, dones, infos = step(key, state, actions)
        chex.assert_trees_all_close(after, expected, same)
        for index, agent in enumerate(view.agents):
            own = info["utility"][index] / params.reference_utility
            assert float(rewards[agent]) == pytest.approx(float(own), abs=1e-6)
        assert sum(map(float, rewards.values())) == pytest.approx(float(reward), abs=1e-5)
        assert set(dones) == {*view.agents, "__all__"} and set(infos) == set(view.agents)
        moved += bool((after.allocation.cut != state.allocation.cut).any())
        state = after
    assert moved > 3


def test_an_agent_reads_its_own_place_first(tiny: PartitionGame) -> None:
    params = tiny.params(present_probability=1)
    view = PartitionGameAgents(tiny, params)
    observations, state = view.reset(KEY)
    speeds = np.log10(np.asarray(params.device_speed)[state.context.kind] / 1e9)
    for index, agent in enumerate(view.agents):
        assert float(observations[agent][3]) == pytest.approx(speeds[index], abs=1e-5)
    np.testing.assert_array_equal(observations[view.agents[int(state.turn)]], tiny.observe(KEY, state, None, params))


def test_agents_can_share_the_reward_and_start_anew_at_the_end(tiny: PartitionGame) -> None:
    params = tiny.params(max_steps_in_episode=2, present_probability=1, leave_probability=0)
    view = PartitionGameAgents(tiny, params, shared_reward=True)
    _, state = view.reset(KEY)
    nobody_moves = {agent: jnp.asarray(0) for agent in view.agents}
    for last in (False, True):
        _, state, rewards, dones, _ = view.step(KEY, state, nobody_moves)
        assert all(bool(done) == last for done in dones.values())
        assert len({float(reward) for reward in rewards.values()}) == 1 and float(rewards[view.agents[0]]) > 0
    assert state.time == 0  # the next episode


# --- Construction ---


def test_wrong_arguments_are_refused(tiny: PartitionGame) -> None:
    for static in ({"num_devices": 0}, {"num_kinds": 2.5}, {"num_devices": True}):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            PartitionGame(**static)
    params = tiny.default_params
    _, state = tiny.reset(KEY, params)
    with pytest.raises(ValueError, match=r"action of shape \(2,\): it must be one cut"):
        tiny.step_env(KEY, state, jnp.zeros(2, int), params)
    # Out of range is clipped.
    _, _, _, _, info = tiny.step_env(KEY, state, jnp.array(99), params)
    assert (info["cut"] == 3).all()


def test_shedding_ends_where_the_ledger_says_more_than_there_is_to_shed() -> None:
    """As in the midst of an episode whose parameters are replaced; such a loop never ended."""
    utility, use = jnp.array([[2.0, 1.0, 0.0]] * 2), jnp.zeros((2, 2, 3), jnp.int32)
    game = Game(utility, use, jnp.ones(2, jnp.int32), jnp.asarray(False))
    before = Allocation(jnp.array([0, 1]), jnp.ones(2, bool), jnp.array([5, 0], jnp.int32))
    after = shed(game, before)
    assert after.cut.tolist() == [2, 2] and after.used.tolist() == [5, 0]
