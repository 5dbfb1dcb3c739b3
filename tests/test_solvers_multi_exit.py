"""Rulers of the multi-exit environments: the joint optimum against brute force, baselines, bounds, exact DP."""

import itertools
import json
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from benchmarks.solvers import multi_exit_bruteforce
from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation, Params, Situation
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.physics.multi_exit import Options, chosen, edge_shares, split_costs
from mec_jax.solvers import multi_exit as solvers
from mec_jax.solvers.multi_exit import bounds

pytestmark = pytest.mark.slow

KEY = jax.random.key(7)


def instances(number: int, num_devices: int, num_splits: int, seed: int = 0) -> tuple[Options, Any, Any]:
    """Options [instance, device, split] without the order that networks have, edge speeds and weights."""
    generator = np.random.default_rng(seed)
    shape = (number, num_devices, num_splits)
    times = generator.exponential(size=(4, *shape))
    work = generator.exponential(size=shape) * (generator.uniform(size=shape) > 0.2)
    speed, weight = generator.uniform(0.2, 3, number), generator.uniform(0.05, 1, (number, num_devices))
    tables = (jnp.asarray(table, jnp.float32) for table in (times[0], times[1], work, times[2], times[3]))
    return Options(*tables), jnp.asarray(speed, jnp.float32), jnp.asarray(weight, jnp.float32)


def total_cost(options: Options, split: Any, share: Any, speed: Any, weight: Any) -> float:
    return float(jnp.sum(split_costs(options, jnp.asarray(split), jnp.asarray(share), speed, weight).cost))


# --- The joint optimum ---


@pytest.mark.parametrize("capacity", [64, 2])  # 2 overflows, and goes on on the host
def test_the_optimum_is_that_of_brute_force_over_all_splits(capacity: int) -> None:
    options, speed, weight = instances(200, 4, 5)
    found = solvers.joint_optima(options, speed, weight, capacity)
    assert found.overflow.any() == (capacity == 2)
    for index in range(200):
        one, edge_speed, weights = jax.tree.map(lambda x, index=index: x[index], (options, speed, weight))
        terms = solvers.cost_terms(one, edge_speed, weights)
        _, best = multi_exit_bruteforce.best_of_all(np.asarray(terms.fixed, float), np.asarray(terms.root, float))
        assert found.cost[index] == pytest.approx(best, rel=3e-6)
        assert found.lower_bound[index] == found.cost[index]
    # The costs are those of the splits and shares, not only of the formula.
    for index in range(0, 200, 20):
        one, edge_speed, weights = jax.tree.map(lambda x, index=index: x[index], (options, speed, weight))
        cost = total_cost(one, found.split[index], found.share[index], edge_speed, weights)
        assert found.cost[index] == pytest.approx(cost, rel=3e-6)
        assert found.share[index].sum() == pytest.approx(1, rel=1e-6) or found.share[index].sum() == 0


def test_without_the_host_an_overflow_is_flagged_and_its_bound_still_holds() -> None:
    options, speed, weight = instances(200, 6, 6, seed=1)
    found = jax.jit(jax.vmap(partial(solvers.joint_optimum, capacity=2)))(options, speed, weight)
    exact = solvers.joint_optima(options, speed, weight)
    assert 0.02 < found.overflow.mean() < 1
    assert (found.lower_bound <= exact.cost * (1 + 1e-6)).all()
    assert (found.cost >= exact.cost * (1 - 1e-6)).all()
    np.testing.assert_allclose(found.cost[~found.overflow], exact.cost[~found.overflow], rtol=1e-6)
    assert np.median(found.cost / exact.cost) < 1.001


@pytest.mark.parametrize(("num_devices", "num_splits"), [(1, 1), (1, 4), (2, 1), (3, 2)])
def test_the_optimum_of_the_smallest_sizes(num_devices: int, num_splits: int) -> None:
    options, speed, weight = instances(20, num_devices, num_splits)
    found = solvers.joint_optima(options, speed, weight)
    terms = jax.vmap(solvers.cost_terms)(options, speed, weight)
    for index in range(20):
        fixed, root = (np.asarray(x[index], float) for x in terms)
        assert found.cost[index] == pytest.approx(multi_exit_bruteforce.best_of_all(fixed, root)[1], rel=3e-6)


def test_the_optimum_on_the_printed_tables_is_that_of_brute_force_over_537824_splits() -> None:
    env = mec_jax.make("MultiExitAllocation-Compressed-v0")[0]
    params = env.params(edge_speed=0.6e12)
    scenario = env.situation(env.reset(KEY, params)[0], params)
    options = env.options(scenario, params)
    found = solvers.joint_optimum(options, scenario.edge_speed, params.latency_weight)
    terms = solvers.cost_terms(options, scenario.edge_speed, params.latency_weight)
    split, best = multi_exit_bruteforce.best_of_all(*(np.asarray(x, float) for x in terms))
    np.testing.assert_array_equal(found.split, split)
    assert not found.overflow and float(found.cost) == pytest.approx(best, rel=3e-6)


def test_closed_form_shares_are_better_than_a_thousand_random_ones() -> None:
    options, speed, weight = jax.tree.map(lambda x: x[0], instances(1, 5, 3))
    split = jnp.array([0, 1, 2, 0, 1])
    work = chosen(options.edge_work, split)
    share = solvers.optimal_shares(work, weight)
    assert float(share.sum()) == pytest.approx(1, rel=1e-6)
    random = np.random.default_rng(0).dirichlet(np.ones(5), 1000)
    near = np.asarray(share) * np.exp(0.02 * np.random.default_rng(1).normal(size=(1000, 5)))
    others = jnp.concatenate([jnp.asarray(random, jnp.float32), jnp.asarray(near, jnp.float32)])
    others = jax.vmap(edge_shares, (0, None))(others, work)
    costs = jax.vmap(lambda s: jnp.sum(split_costs(options, split, s, speed, weight).cost))(others)
    assert total_cost(options, split, share, speed, weight) <= float(costs.min()) * (1 + 1e-6)
    assert not solvers.optimal_shares(jnp.zeros(5), weight).any()


def test_splits_under_equal_shares_are_those_of_brute_force() -> None:
    options, speed, weight = instances(100, 3, 4, seed=2)
    # A device without any local option can't be alone: the last split is local, as in a network.
    options = options._replace(edge_work=options.edge_work.at[:, :, -1].set(0))
    split = jax.vmap(solvers.equal_share_splits)(options, speed, weight)

    def cost(one: Options, split: Any, edge_speed: Any, weights: Any) -> Any:
        share = edge_shares(jnp.ones(3), chosen(one.edge_work, split))
        return jnp.sum(split_costs(one, split, share, edge_speed, weights).cost)

    every = jnp.array(list(itertools.product(range(4), repeat=3)))
    best = jax.vmap(lambda *x: jnp.min(jax.vmap(cost, (None, 0, None, None))(x[0], every, *x[1:])))
    np.testing.assert_allclose(jax.vmap(cost)(options, split, speed, weight), best(options, speed, weight), rtol=1e-5)


def test_thousands_of_scenarios_compile_once() -> None:
    chex.clear_trace_counter()

    @jax.jit
    @jax.vmap
    @chex.assert_max_traces(n=1)
    def solve(*instance: Any) -> solvers.JointOptimum:
        return solvers.joint_optimum(*instance)

    for seed in range(3):
        found = solve(*instances(500, 3, 4, seed))
    assert found.split.shape == (500, 3) and not found.overflow.any()


# --- Baselines ---


@pytest.mark.parametrize("env_id", ["MultiExitAllocation-v0", "MultiExitAllocation-Compressed-v0"])
def test_no_baseline_beats_the_oracle(env_id: str) -> None:
    """On 1 % of the scenarios of `benchmarks.solvers.multi_exit_bruteforce`, which takes the video set-up, too."""
    env, params = mec_jax.make(env_id)
    ratios = multi_exit_bruteforce.cost_ratios(env, params, 100)
    assert set(ratios) == set(solvers.baselines(env))
    for name, ratio in ratios.items():
        assert ratio.min() >= 1 - 1e-5, name
    assert ratios["ACO-EAR"].mean() <= min(ratio.mean() for ratio in ratios.values()) + 1e-6


def test_baselines_are_what_the_paper_says() -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    observation = env.reset(KEY, params)[0]
    actions = {name: policy(params, observation, KEY) for name, policy in solvers.baselines(env).items()}
    assert (actions["Device-only-EAR"].split == 13).all() and (actions["Edge-only-EAR"].split == 0).all()
    assert (actions["FP-AR"].split == 6).all()
    for name, action in actions.items():
        assert env.action_space(params).contains(action), name
        if name.endswith("EAR"):
            np.testing.assert_allclose(action.share, 0.2, rtol=1e-6)
    # Its best of 1000 is better than most, and worse than the closed form.
    scenario = env.situation(observation, params)

    def cost(share: Any) -> Any:
        return jnp.sum(env.costs(scenario, AllocationAction(actions["FP-AR"].split, share), params).cost)

    work = chosen(env.options(scenario, params).edge_work, actions["FP-AR"].split)
    random = jax.vmap(lambda key: env.action_space(params).sample(key).share)(jax.random.split(KEY, 100))
    found = float(cost(actions["FP-AR"].share))
    assert float(cost(solvers.optimal_shares(work, params.latency_weight))) <= found
    assert found <= float(jnp.quantile(jax.vmap(cost)(random), 0.1))


def test_spinn_installs_exits_at_every_15_percent_of_the_flops() -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    exits = solvers.spinn_exits(params)
    done = np.cumsum(env.profile.layer_flops) / np.sum(env.profile.layer_flops)
    expected = {int(np.argmax(done >= 0.15 * k)) for k in range(1, 7)} | {12}
    for row in exits.exit_installed:
        assert set(np.flatnonzero(row)) == expected
    again = solvers.spinn_exits(exits)
    np.testing.assert_array_equal(again.exit_installed, exits.exit_installed)
    # Tasks leave later than with an exit wherever some want to.
    options, spinn = (env.options(env.situation(env.reset(KEY, params)[0], x), x) for x in (params, exits))
    assert (spinn.local_time[:, -1] > options.local_time[:, -1]).all()


def test_policies_are_kept_for_equal_environments() -> None:
    one, other = (mec_jax.make("MultiExitAllocation-v0")[0] for _ in range(2))
    assert solvers.baselines(one)["ACO-EAR"] is solvers.baselines(other)["ACO-EAR"]
    assert solvers.oracle_policy(one) is solvers.oracle_policy(other)


# --- Bounds ---


def two_devices(folder: Path, **numbers: Any) -> tuple[MultiExitAllocation, Params]:
    """A chain with the slowest and the fastest device, at nominal speeds: small enough to be solved."""
    data = resources.files("mec_jax.profiles") / "data" / "multi_exit" / "vgg16_compressed.json"
    content = json.loads(data.read_text(encoding="utf-8"))
    content["devices"] = [content["devices"][0], content["devices"][-1]]
    path = folder / "two.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    env = mec_jax.make("MultiExitAllocation-Markov-v0", profile=path)[0]
    still = {"device_speed_spread": 1, "edge_speed_spread": 1, "edge_speed": 2e11}
    return env, env.params(**(still | numbers))


def returns(env: MultiExitAllocation, params: Params, act: Any, keys: Any) -> Any:
    """Returns [key] of whole episodes; `act(observation, state) -> action`."""
    steps = int(params.max_steps_in_episode)

    def episode(key: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            observation, state = carry
            observation, state, reward, *_ = env.step_env(key, state, act(observation, state), params)
            return (observation, state), reward

        reset_key, key = jax.random.split(key)
        return jnp.sum(jax.lax.scan(step, env.reset_env(reset_key, params), jax.random.split(key, steps))[1])

    return jax.jit(jax.vmap(episode))(keys)


@pytest.mark.full
def test_no_baseline_exceeds_the_bound_of_the_bandit_and_the_oracle_reaches_it() -> None:
    env, params = mec_jax.make("MultiExitAllocation-Compressed-v0")
    keys = evaluation_keys(32)
    bound = solvers.bound(env, params, keys)
    assert (bound.frames == 1).all() and bound.terminated.all()
    for name, episodes in solvers.play_baselines(env, params, keys).items():
        assert (episodes.episode_return <= bound.episode_return * (1 - 1e-5)).all(), name
    oracle = play_episodes(env, params, solvers.oracle_policy(env), params, keys)
    np.testing.assert_allclose(oracle.episode_return, bound.episode_return, rtol=1e-6)
    np.testing.assert_allclose(bound.energy, oracle.energy, rtol=1e-6)


@pytest.mark.full
def test_no_policy_exceeds_the_bound_of_the_chain() -> None:
    env = mec_jax.make("MultiExitAllocation-Markov-v0")[0]
    params = env.params(max_steps_in_episode=8)
    keys = evaluation_keys(32)
    bound = solvers.bound(env, params, keys)
    assert (bound.frames == 8).all() and not bound.terminated.any()
    for policy in (solvers.oracle_policy(env), solvers.baselines(env)["Device-only-EAR"]):
        episodes = play_episodes(env, params, policy, params, keys)
        assert (episodes.episode_return <= bound.episode_return * (1 - 1e-5)).all()
    scale = env.num_devices / params.reference_cost
    np.testing.assert_allclose(bound.episode_return, -scale * bound.measures["cost"] * bound.frames, rtol=1e-5)


def test_the_bound_is_found_where_the_first_capacity_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    env = mec_jax.make("MultiExitAllocation-Compressed-v0")[0]
    params = env.params(edge_speed=2.5e11)
    keys = evaluation_keys(32)
    expected = solvers.bound(env, params, keys)
    monkeypatch.setattr(solvers, "CAPACITY", 1)
    assert bounds._overflows(env, params, keys, 1).any()
    again = solvers.bound(env, params, keys)
    np.testing.assert_allclose(again.episode_return, expected.episode_return, rtol=1e-6)


@pytest.mark.full
def test_dynamic_programming_lies_between_the_oracle_and_the_bound(tmp_path: Path) -> None:
    env, params = two_devices(tmp_path, switch_cost=0.2, max_steps_in_episode=20)
    plan = solvers.switching_optimum(env, params)
    table = jnp.asarray(plan.split)

    def planned(observation: Any, state: Any) -> AllocationAction:
        joint = table[state.time, state.level, state.split[0], state.split[1]]
        split = jnp.stack([joint // 14, joint % 14])
        work = chosen(env.options(env.situation(observation, params), params).edge_work, split)
        return AllocationAction(split, solvers.optimal_shares(work, params.latency_weight))

    def blind(observation: Any, state: Any) -> AllocationAction:
        return solvers.oracle_policy(env)(params, observation, KEY)

    keys = jax.random.split(KEY, 1000)
    planned_returns, blind_returns = returns(env, params, planned, keys), returns(env, params, blind, keys)
    bound = returns(env, params.replace(switch_cost=jnp.array(0.0)), blind, keys)
    # What it says it costs is what it costs, and no episode of either exceeds its bound.
    error = 4 * float(planned_returns.std()) / np.sqrt(len(keys))
    assert float(planned_returns.mean()) == pytest.approx(-plan.start_cost / float(params.reference_cost), abs=error)
    assert (planned_returns <= bound * (1 - 1e-5)).all() and (blind_returns <= bound * (1 - 1e-5)).all()
    gain = planned_returns - blind_returns
    assert float(gain.mean()) > 4 * float(gain.std()) / np.sqrt(len(keys)) > 0


def test_dynamic_programming_with_free_switches_is_the_oracle(tmp_path: Path) -> None:
    env, params = two_devices(tmp_path, switch_cost=0, max_steps_in_episode=5)
    plan = solvers.switching_optimum(env, params)
    costs = []
    for level in range(int(params.bandwidth_levels)):
        bandwidth = env.bandwidth(jnp.array(level), params)
        now = Situation(bandwidth, params.edge_speed, params.device_speed, jnp.full(2, 13))
        costs.append(solvers.joint_optimum(env.options(now, params), now.edge_speed, params.latency_weight).cost)
    assert plan.start_cost == pytest.approx(5 * float(np.mean(costs)), rel=1e-5)  # the start is stationary


def test_dynamic_programming_takes_the_best_of_all_plans(tmp_path: Path) -> None:
    """With two steps and a constant bandwidth, against every pair of joint splits."""
    env, params = two_devices(
        tmp_path, switch_cost=0.03, max_steps_in_episode=2, bandwidth_stay=1, bandwidth_min=3e6, bandwidth_max=3e6
    )
    plan = solvers.switching_optimum(env, params)
    scenario = env.situation(env.reset(KEY, params)[0], params)
    terms = solvers.cost_terms(env.options(scenario, params), scenario.edge_speed, params.latency_weight)
    fixed, root = (solvers.sum_over_devices(np.asarray(x, float)) for x in terms)
    splits = np.indices((14, 14)).reshape(2, -1)
    costs = (fixed + root**2).ravel()
    changes = (splits[:, :, None] != splits[:, None]).sum(0)  # [joint, joint]
    total = costs[:, None] + costs + 0.03 * (changes + changes[-1][:, None])
    assert plan.start_cost == pytest.approx(total.min(), rel=1e-5)


def test_dynamic_programming_refuses_what_it_cannot_hold_or_has_no_chain() -> None:
    env, params = mec_jax.make("MultiExitAllocation-Markov-v0")
    with pytest.raises(ValueError, match=r"537824 splits"):
        solvers.switching_optimum(env, params)
    env, params = mec_jax.make("MultiExitAllocation-v0")
    with pytest.raises(ValueError, match=r"MultiExitAllocation-v0 has no chain"):
        solvers.switching_optimum(env, params)
