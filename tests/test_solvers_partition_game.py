"""Heuristics and optimum of the partition game: brute force, the paper's algorithm in plain Python, churn, episodes."""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.solvers import partition_game as benchmark
from mec_jax.envs.partition_game import PartitionGame
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.physics.partition_game import (
    UNITS,
    Allocation,
    Game,
    arrival,
    capacity,
    departure,
    is_feasible,
    make_game,
    nobody,
    total_utility,
    used,
)
from mec_jax.solvers.partition_game import (
    COLUMNS,
    baselines,
    best_response_dynamics,
    bound,
    defp,
    defp_arrive,
    defp_leave,
    igreedy,
    igreedy_arrive,
    largest_gains,
    ogreedy,
    optimum,
    play_defp,
    rulers,
)
from tests.documents import cut_table, write

pytestmark = pytest.mark.slow

HEURISTICS = {name: jax.jit(jax.vmap(heuristic)) for name, heuristic in benchmark.HEURISTICS.items()}
ARRIVE = {"defp": jax.jit(defp_arrive), "igreedy": jax.jit(igreedy_arrive)}
LEAVE = {"defp": jax.jit(defp_leave), "igreedy": jax.jit(departure)}
GAINS = jax.jit(jax.vmap(largest_gains))
SINGLE = jax.jit(defp)


def one(games: Game, index: int) -> Game:
    return jax.tree.map(lambda x: x[index], games)


def tiny(utility: Any, compute: Any, capacity_: float) -> Game:
    """A game of one scarce resource."""
    use = np.stack([np.asarray(compute, float), np.zeros_like(compute, float)])
    return make_game(
        jnp.asarray(utility, float), jnp.asarray(use, float), jnp.array([capacity_, 1.0]), jnp.array(False)
    )


def plain_defp(game: Game) -> list[int]:
    """Algorithm 1 with the repairs, as loops over whole numbers."""
    utility, use = np.asarray(game.utility), np.asarray(game.use, np.int64)
    devices, cuts = utility.shape
    cut = [cuts - 1] * devices
    for player in range(devices):
        units = np.asarray(game.capacity, np.int64) * (player + 1 if game.elastic else 1)

        def fits(choice: dict[int, int], player: int = player, units: Any = units) -> bool:
            held = sum(use[:, i, choice.get(i, cut[i])] for i in range(player + 1))
            return bool((held <= units).all())

        def best_of(device: int, choices: list[int]) -> int:
            return choices[int(np.argmax(utility[device, choices]))]

        cut[player] = best_of(player, [s for s in range(cuts) if fits({player: s})])
        for i in range(player):
            best, pair = np.float32(-np.inf), (cut[i], cut[player])
            for s in range(cuts):
                feasible = [t for t in range(cuts) if fits({i: t, player: s})]
                if feasible:
                    t = best_of(i, feasible)
                    if utility[i, t] + utility[player, s] >= best:
                        best, pair = utility[i, t] + utility[player, s], (t, s)
            cut[i], cut[player] = pair
    return cut


# --- The optimum ---


def test_the_optimum_is_that_of_brute_force() -> None:
    games = benchmark.random_games(20, devices=4, cuts=4, seed=1)
    for index in range(20):
        game = one(games, index)
        found = optimum(game)
        assert found.utility == pytest.approx(benchmark.brute_force(game), abs=1e-6)
        assert is_feasible(game, jnp.asarray(found.cut), jnp.ones(4, bool))


def test_the_optimum_of_some_devices_leaves_the_others_local() -> None:
    game = one(benchmark.random_games(3, devices=5, cuts=4, seed=2, elastic=True), 1)
    present = np.array([True, False, True, True, False])
    found = optimum(game, present)
    assert (found.cut[~present] == 3).all()
    best = max(
        float(np.sum(np.asarray(game.utility, float)[np.flatnonzero(present), list(choice)]))
        for choice in itertools.product(range(4), repeat=3)
        if (
            np.sum(np.asarray(game.use, np.int64)[:, np.flatnonzero(present), list(choice)], axis=1)
            <= 3 * np.asarray(game.capacity)
        ).all()
    )
    assert found.utility == pytest.approx(best, abs=1e-6)
    assert optimum(game, np.zeros(5, bool)).utility == 0


def test_devices_that_are_alike_are_counted_and_not_permuted() -> None:
    """Ten that are alike, of which exactly seven fit: found however the capacity is rounded."""
    game = tiny([[5.0, 1.0, 0.0]] * 10, [[0.1, 0.05, 0.0]] * 10, 0.7)
    found = optimum(game)
    assert found.utility == pytest.approx(35) and sorted(found.cut) == [0] * 7 + [2] * 3


# --- The heuristics ---


def test_every_heuristic_is_feasible_keeps_its_ledger_and_never_beats_the_optimum() -> None:
    """One in a hundred of the instances of `benchmarks.solvers.partition_game`; the optimum of some of them."""
    for elastic in (False, True):
        games = benchmark.random_games(500, devices=6, cuts=5, seed=3, elastic=elastic)
        best = [optimum(one(games, index)).utility for index in range(10)]
        for name, heuristic in HEURISTICS.items():
            allocation = heuristic(games)
            feasible = jax.vmap(is_feasible)(games, allocation.cut, allocation.present)
            assert feasible.all(), name
            np.testing.assert_array_equal(
                allocation.used, jax.vmap(used)(games, allocation.cut, allocation.present), err_msg=name
            )
            reached = jax.vmap(total_utility)(games, allocation.cut, allocation.present)
            assert (np.asarray(reached)[:10] <= np.array(best) * (1 + 1e-5) + 1e-6).all(), name
            assert (np.asarray(reached) >= 0).all()


@pytest.mark.parametrize("elastic", [False, True])
def test_defp_is_the_algorithm_of_the_paper_with_its_repairs(elastic: bool) -> None:
    games = benchmark.random_games(500, devices=6, cuts=5, seed=4, elastic=elastic)
    batched = HEURISTICS["DEFP"](games)
    for index in range(25):
        assert batched.cut[index].tolist() == plain_defp(one(games, index))
    # Alone, and under two vmaps of which one holds the server fixed.
    game = one(games, 7)
    np.testing.assert_array_equal(SINGLE(game).cut, batched.cut[7])
    utilities = games.utility[:6].reshape(2, 3, *game.utility.shape)
    nested = jax.vmap(jax.vmap(lambda utility: defp(game._replace(utility=utility)).cut))(utilities)
    for index in range(6):
        expected = plain_defp(game._replace(utility=games.utility[index]))
        assert nested.reshape(6, -1)[index].tolist() == expected


def test_defp_is_near_the_optimum_where_the_server_is_fixed_and_a_greedy_newcomer_is_not() -> None:
    games = benchmark.network_games(500, devices=12, seed=5)
    best = np.array([optimum(one(games, index)).utility for index in range(20)])
    ratio = {}
    for name in ("DEFP", "IGreedy", "OGreedy, density", "OGreedy, utility"):
        found = HEURISTICS[name](games)
        reached = jax.vmap(total_utility)(games, found.cut, found.present)
        ratio[name] = np.mean(np.asarray(reached, float)[:20] / best)
    assert ratio["DEFP"] > 0.95 and ratio["OGreedy, utility"] > 0.93
    assert ratio["IGreedy"] < 0.8 and ratio["OGreedy, density"] < 0.7


def test_ogreedy_refuses_an_unknown_order() -> None:
    game = tiny([[1.0, 0.0]], [[1.0, 0.0]], 1.0)
    with pytest.raises(ValueError, match="by is 'size'"):
        ogreedy(game, jnp.ones(1, bool), "size")  # type: ignore[arg-type]


# --- The game ---


def test_the_potential_identity_holds_on_feasible_pairs_and_not_on_infeasible_ones() -> None:
    """Theorem 2: a move changes the potential by what it changes the mover's utility. With minus infinity for whoever
    is in an infeasible state, as the game needs, another's move can make a device infeasible that has not moved."""
    games = benchmark.random_games(30, devices=4, cuts=4, seed=6)
    rng = np.random.default_rng(0)
    everyone, checked = jnp.ones(4, bool), 0
    for index in range(30):
        game = one(games, index)
        cut = rng.integers(4, size=4)
        moved = cut.copy()
        moved[rng.integers(4)] = rng.integers(4)
        states = [jnp.asarray(x) for x in (cut, moved)]
        if all(is_feasible(game, x, everyone) for x in states):
            mover = int(np.argmax(cut != moved))
            change = total_utility(game, states[1], everyone) - total_utility(game, states[0], everyone)
            own = game.utility[mover, moved[mover]] - game.utility[mover, cut[mover]]
            assert float(change) == pytest.approx(float(own), abs=1e-5)
            checked += 1
    assert checked >= 8
    counter = benchmark.infeasible_counterexample(10)
    assert (counter.own_change, counter.potential_change) == (-10, -23)


def test_a_nash_state_need_not_be_optimal() -> None:
    game, state = benchmark.poor_equilibrium()
    alone, together = largest_gains(game, state)
    assert alone == 0 and together == 0  # three must move
    assert float(total_utility(game, state.cut, state.present)) == 3 and optimum(game).utility == pytest.approx(4)


def test_best_responses_end_in_a_nash_equilibrium() -> None:
    games = benchmark.random_games(500, devices=6, cuts=5, seed=7)
    alone, together = GAINS(games, HEURISTICS["Best responses"](games))
    assert np.all(np.asarray(alone) == 0) and np.mean(np.asarray(together) > 1e-4) > 0.3


def test_the_gains_left_are_those_of_trying_all_moves() -> None:
    games = benchmark.random_games(500, devices=6, cuts=5, seed=8)
    allocation = HEURISTICS["IGreedy"](games)
    alone, together = GAINS(games, allocation)
    for index in range(4):
        game, cut = one(games, index), np.asarray(allocation.cut[index])
        utility, use = np.asarray(game.utility, float), np.asarray(game.use, np.int64)
        gains = {1: 0.0, 2: 0.0}
        for movers in (1, 2):
            for who in itertools.combinations(range(6), movers):
                for choice in itertools.product(range(5), repeat=movers):
                    tried = cut.copy()
                    tried[list(who)] = choice
                    if (use[:, np.arange(6), tried].sum(1) <= UNITS).all():
                        gain = utility[np.arange(6), tried].sum() - utility[np.arange(6), cut].sum()
                        gains[movers] = max(gains[movers], gain)
        assert float(alone[index]) == pytest.approx(gains[1], abs=1e-5)
        assert float(together[index]) == pytest.approx(gains[2], abs=1e-5)


# --- Arrivals and departures ---


@settings(max_examples=25)
@given(
    events=st.lists(st.integers(0, 5), max_size=40),
    index=st.integers(0, 9),
    elastic=st.booleans(),
    name=st.sampled_from(["defp", "igreedy"]),
)
def test_after_any_arrivals_and_departures_the_ledger_is_right_and_all_fits(
    events: list[int], index: int, elastic: bool, name: str
) -> None:
    game = one(CHURN_GAMES[elastic], index)
    allocation = nobody(game)
    for device in events:
        change = LEAVE if allocation.present[device] else ARRIVE
        before = float(total_utility(game, allocation.cut, allocation.present))
        allocation = change[name](game, allocation, jnp.asarray(device))
        check(game, allocation)
        if change is ARRIVE:  # a newcomer never costs the others more than it gains
            after = float(total_utility(game, allocation.cut, allocation.present))
            assert after >= before - 1e-5
    for device in np.flatnonzero(allocation.present).tolist():
        allocation = LEAVE[name](game, allocation, jnp.asarray(device))
        check(game, allocation)
    assert not allocation.present.any() and allocation.used.tolist() == [0, 0]


CHURN_GAMES = {
    elastic: benchmark.random_games(10, devices=6, cuts=5, seed=9, elastic=elastic) for elastic in (False, True)
}


def check(game: Game, allocation: Allocation) -> None:
    cut, present = np.asarray(allocation.cut), np.asarray(allocation.present)
    from_scratch = np.asarray(game.use, np.int64)[:, np.arange(len(cut)), cut][:, present].sum(1)
    np.testing.assert_array_equal(allocation.used, from_scratch)
    assert (from_scratch <= np.asarray(capacity(game, allocation.present), np.int64)).all()
    assert (cut[~present] == game.utility.shape[1] - 1).all()


def test_arriving_one_by_one_is_arriving_all_at_once() -> None:
    for elastic in (False, True):
        game = one(CHURN_GAMES[elastic], 3)
        allocation, greedy = nobody(game), nobody(game)
        for device in range(6):
            allocation = ARRIVE["defp"](game, allocation, jnp.asarray(device))
            greedy = ARRIVE["igreedy"](game, greedy, jnp.asarray(device))
        for stepwise, whole in ((allocation, SINGLE(game)), (greedy, jax.jit(igreedy)(game))):
            np.testing.assert_array_equal(stepwise.cut, whole.cut)
            np.testing.assert_array_equal(stepwise.used, whole.used)


def test_a_departure_lets_another_use_what_is_free() -> None:
    game = tiny([[3.0, 0.0], [2.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]], 1.0)
    allocation = ARRIVE["defp"](game, ARRIVE["defp"](game, nobody(game), jnp.array(1)), jnp.array(0))
    assert allocation.cut.tolist() == [0, 1]
    assert LEAVE["defp"](game, allocation, jnp.array(0)).cut.tolist() == [1, 0]
    assert LEAVE["igreedy"](game, allocation, jnp.array(0)).cut.tolist() == [1, 1]


def test_an_elastic_server_that_shrinks_sends_local_who_gives_up_least() -> None:
    game = make_game(
        jnp.array([[4.0, 0.0], [3.0, 0.0], [0.0, 0.0]]),
        jnp.array([[[1.5, 0.0]] * 3, [[0.0, 0.0]] * 3]),
        jnp.array([1.0, 1.0]),
        jnp.array(True),
    )
    allocation = nobody(game)
    for device in range(3):
        allocation = arrival(game, allocation, jnp.array(device))
    both = jax.jit(best_response_dynamics)(game, allocation)
    assert both.cut[:2].tolist() == [0, 0]
    after = departure(game, both, jnp.array(2))
    assert after.cut.tolist() == [0, 1, 1]
    check(game, after)


# --- Episodes ---


def small_network(folder: Path) -> Path:
    """A network of three layers, as many cuts compile slowly."""
    return write(folder, cut_table(("conv", 4e6, 2e5), ("conv", 8e6, 5e4), ("linear", 2e6, 1e3)))


@pytest.mark.full
def test_no_ruler_exceeds_the_optimum_and_a_plan_comes_closer_to_it_than_greed(tmp_path: Path) -> None:
    env = PartitionGame(small_network(tmp_path), num_devices=5)
    params = env.params(max_steps_in_episode=60, link_rate=1e9)
    played = rulers(env, params, evaluation_keys(24)).episodes
    assert next(iter(played)) == "Random" and list(played)[-1] == "Optimum"
    returns = {name: np.asarray(episodes.episode_return, float) for name, episodes in played.items()}
    for name, episodes in played.items():
        assert (returns[name] <= returns["Optimum"] * (1 + 1e-5) + 1e-5).all(), name
        assert (episodes.frames == 60).all() and not episodes.terminated.any()
        mean = returns[name] * float(params.reference_utility) / 60
        np.testing.assert_allclose(episodes.utility, mean, rtol=1e-4, atol=1e-7)
        assert {column.measure for column in COLUMNS} <= set(episodes.measures)
    means = {name: x.mean() for name, x in returns.items()}
    assert means["Local"] == 0 < means["Random"] < means["IGreedy"] < 0.8 * means["OGreedy plan, utility"]
    assert means["OGreedy plan, utility"] > 0.85 * means["Optimum"] and means["DEFP"] > 0.95 * means["Optimum"]


def test_one_device_alone_reaches_the_optimum_in_the_very_same_episodes(tmp_path: Path) -> None:
    """It chooses in every step in which it is there: so policies, DEFP and bound see the same comings and goings."""
    env = PartitionGame(small_network(tmp_path), num_devices=1)
    params = env.params(
        max_steps_in_episode=40, join_probability=0.2, leave_probability=0.2, link_rate=1e9, bandwidth_capacity=6e4
    )
    keys = evaluation_keys(24)
    best = bound(env, params, keys)
    assert len(set(np.asarray(best.frames))) == 1 and np.std(best.episode_return) > 0
    responses = baselines(env)["Best responses"]
    for episodes in (play_defp(env, params, keys), play_episodes(env, params, responses, params, keys)):
        np.testing.assert_allclose(episodes.episode_return, best.episode_return, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(episodes.cut_variance, 0)
