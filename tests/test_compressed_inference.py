"""`CompressedInference`: episodes against the integer laws, the constraint, masks and scenarios."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from mec_jax.envs.compressed_inference import CHOICES, OFF, CompressAction, CompressedInference, Situation, State
from mec_jax.physics.accuracy import inputs, predict
from mec_jax.physics.compression import Strategy, canonical, latency, strategy_of, total, unpacked
from mec_jax.profiles.compression import MAX_SPARSITY, NO_CODEC, SETTINGS, compressible
from mec_jax.profiles.regressors import Regressor, write_regressor
from mec_jax.solvers.compression.policies import actions_of as plan
from tests.errors import error_of
from tests.tolerance import ROUNDING, close

IDS = ("CompressedInference-Anchored-v0", "CompressedInference-Anchored-RegNet-v0")
KEY = jax.random.key(0)
EPISODES = 64

SUM = 256
"""Roundings of a latency: sums over some 50 terms of work, a quotient each, and their sum; of its logarithm, more."""


@pytest.fixture(scope="module", params=[IDS[0], pytest.param(IDS[1], marks=pytest.mark.full)])
def env(request: pytest.FixtureRequest) -> CompressedInference:
    return mec_jax.make(request.param)[0]


@pytest.fixture(scope="module")
def alexnet() -> CompressedInference:
    return mec_jax.make(IDS[0])[0]


def play(env: CompressedInference, params: Any, actions: CompressAction, keys: jax.Array) -> tuple[State, tuple]:
    """First states [episode], and what each step returned [episode, step]."""

    def episode(key: jax.Array, actions: CompressAction) -> tuple[State, tuple]:
        _, start = env.reset_env(key, params)

        def step(state: State, action: CompressAction) -> tuple[State, tuple]:
            out = env.step_env(key, state, action, params)
            return out[1], out

        return start, jax.lax.scan(step, start, actions)[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(episode))(keys, actions))


def keys_of(count: int = EPISODES) -> jax.Array:
    return jax.random.split(KEY, count)


def random_actions(env: CompressedInference, params: Any, count: int = EPISODES, steps: int | None = None) -> Any:
    keys = jax.random.split(jax.random.key(1), (count, steps or env.num_decisions))
    return jax.vmap(jax.vmap(env.action_space(params).sample))(keys)


def random_strategies(env: CompressedInference, count: int = EPISODES, **cuts: int) -> Strategy:
    size = env.num_units + 1 + len(SETTINGS)
    points = jax.random.uniform(jax.random.key(2), (count, size))
    return jax.vmap(lambda point: strategy_of(env.costs, point, **cuts))(points)


def actions_of(env: CompressedInference, strategies: Strategy) -> CompressAction:
    return jax.jit(jax.vmap(partial(plan, env)))(strategies)


def exact_latency(env: CompressedInference, strategy: Strategy, situation: Situation, server: float) -> float:
    """By the integer laws, s."""
    network = env.network
    sparsity, codec = ([float(x) for x in values] for values in (strategy.sparsity, strategy.codec))
    cut = network.cuts[int(strategy.cut)]
    work = [layer.flops for layer in network.pruned(sparsity)]
    device, link = math.fsum(work[:cut]), network.sent_bits(sparsity, cut, codec)
    speed, rate, _ = map(float, situation)
    return device / speed + link / rate + math.fsum(work[cut:]) / server


def one(tree: Any, index: int) -> Any:
    return jax.tree.map(lambda x: x[index], tree)


# Equal to the physics


def test_episodes_within_the_budget_earn_the_latency_of_the_integer_laws(env: CompressedInference) -> None:
    params = env.params(budget_min=1, budget_max=1)  # all is allowed
    strategies = random_strategies(env)
    start, (_, states, reward, over, info) = play(env, params, actions_of(env, strategies), keys_of())
    assert info["feasible"][:, -1].all()
    assert not over[:, :-1].any() and over[:, -1].all() and not reward[:, :-1].any()
    decided = Strategy(states.sparsity[:, -1], states.cut[:, -1], states.codec[:, -1])
    exact = np.array(
        [exact_latency(env, one(decided, i), one(start.situation, i), 10600e9) for i in range(len(reward))]
    )
    close(info["latency"][:, -1], exact, exact, SUM)
    # What is relative of the latency is absolute of its logarithm.
    close(reward[:, -1], -np.log(exact), 1 + np.abs(np.log(exact)), SUM)


@pytest.mark.slow
def test_the_actions_of_a_strategy_decide_on_its_canonical_form(env: CompressedInference) -> None:
    strategies = random_strategies(env)
    _, (_, states, *_) = play(env, env.default_params, actions_of(env, strategies), keys_of())
    form = jax.vmap(lambda one: canonical(env.costs, one))(strategies)
    np.testing.assert_array_equal(states.cut[:, -1], form.cut)
    close(states.sparsity[:, -1], np.asarray(form.sparsity, float), form.sparsity, 8)
    # Shares go through a logarithm of at most ln 1024, and back.
    expected = np.asarray(form.codec, float)
    assert (np.abs(states.codec[:, -1] - expected) <= 64 * math.log(1024) * ROUNDING * expected).all()
    assert {int(cut) for cut in form.cut} >= set(range(0, env.num_cuts, 8))


def test_what_is_over_budget_is_deployed_as_it_was_and_pays_for_what_lacks(env: CompressedInference) -> None:
    params = env.params(budget_min=0.01, budget_max=0.01, penalty=3)
    strategies = random_strategies(env)
    start, (_, states, reward, _, info) = play(env, params, actions_of(env, strategies), keys_of())
    cut = states.cut[:, -1]
    plain = jax.vmap(env.untouched)(cut)
    latencies = np.array([exact_latency(env, one(plain, i), one(start.situation, i), 10600e9) for i in range(len(cut))])
    lacks = float(env.model.base) - 0.01 - info["accuracy"][:, -1].astype(float)
    broken = lacks > 0
    assert broken.mean() > 0.5 and not info["feasible"][broken, -1].any()
    expected = -np.log(latencies) - 3 * lacks / 0.01
    # An accuracy is a difference of numbers of order 1; budget and penalty magnify its rounding.
    magnitudes = 1 + np.abs(np.log(latencies)) + (3 / 0.01) * 2
    close(reward[broken, -1], expected[broken], magnitudes[broken], SUM)
    close(info["latency"][broken, -1], latencies[broken], latencies[broken], SUM)


@pytest.mark.slow
def test_accuracy_is_that_of_the_predictor_at_the_snr(env: CompressedInference) -> None:
    strategies = random_strategies(env)
    noisy, quiet = (play(env, env.params(snr=snr), actions_of(env, strategies), keys_of())[1] for snr in (0.0, 60.0))
    for snr, (_, states, _, _, info) in ((0.0, noisy), (60.0, quiet)):
        decided = Strategy(*(getattr(states, name)[:, -1] for name in Strategy._fields))
        expected = jax.vmap(lambda s, snr=snr: predict(env.model, inputs(env.costs, s, snr)))(decided)
        np.testing.assert_allclose(info["accuracy"][:, -1], expected, rtol=0, atol=32 * ROUNDING)
    sends = np.asarray(strategies.cut) < env.num_cuts - 1
    lower = noisy[-1]["accuracy"][:, -1] < quiet[-1]["accuracy"][:, -1]
    np.testing.assert_array_equal(lower, sends)


@pytest.mark.slow
def test_nothing_counts_but_what_a_step_asks_for(env: CompressedInference) -> None:
    params = env.params(budget_min=0.05)
    free = random_actions(env, params)
    start, (observation, states, *_) = play(env, params, free, keys_of())

    def tamed(observation: jax.Array, action: CompressAction, number: jax.Array) -> CompressAction:
        masks = env.action_mask(observation, params)
        kept = {
            name: jnp.where(mask[getattr(action, name)], getattr(action, name), jnp.argmax(mask))
            for name, mask in masks.items()
        }
        asked = (number < env.num_units) | (number == env.num_units + 1)
        return CompressAction(**kept, amount=jnp.where(asked, action.amount, 0.3), width=action.width)

    first = jax.vmap(lambda state: env.observe(KEY, state, None, params))(start)
    before = jnp.concatenate([first[:, None], observation[:, :-1]], 1)
    numbers = jnp.broadcast_to(jnp.arange(env.num_decisions), before.shape[:2])
    # All cuts are legal by default, so that those taken are allowed.
    _, (_, again, *_) = play(env, params, jax.vmap(jax.vmap(tamed))(before, free, numbers), keys_of())
    jax.tree.map(np.testing.assert_array_equal, states, again)


# Masks


def test_masks_leave_one_choice_where_a_step_does_not_ask(env: CompressedInference) -> None:
    params = env.params(first_cut=2, last_cut=env.num_cuts - 3)
    actions = random_actions(env, params)
    start, (after, states, *_) = play(env, params, actions, keys_of())
    first = jax.vmap(lambda state: env.observe(KEY, state, None, params))(start)
    before = np.concatenate([first[:, None], after], 1)
    masks = jax.tree.map(np.asarray, jax.vmap(jax.vmap(lambda seen: env.action_mask(seen, params)))(before))
    legal = np.zeros(env.num_cuts, bool)
    legal[2:-2] = True
    for number in range(env.num_decisions + 1):
        cutting, packing = number == env.num_units, number == env.num_units + 1
        place = np.arange(env.num_cuts)
        np.testing.assert_array_equal(masks["cut"][:, number], np.tile(legal if cutting else place == 2, (EPISODES, 1)))
        flat = np.asarray(env.costs.flat)[states.cut[:, env.num_units]]
        for name, applies in (("kernel", ~flat), ("stride", ~flat), ("layers", flat), ("bits", flat | True)):
            off = np.arange(len(CHOICES[name])) == OFF[name]
            expected = np.where((packing & applies)[:, None], True, off)
            np.testing.assert_array_equal(masks[name][:, number], expected, err_msg=f"{name} at {number}")
    assert set(np.unique(states.cut[:, env.num_units])) <= set(range(2, env.num_cuts - 2))


@pytest.mark.parametrize("cut", [0, -1])
def test_there_is_nothing_to_pack_where_the_input_or_nothing_is_sent(env: CompressedInference, cut: int) -> None:
    place = range(env.num_cuts)[cut]
    params = env.params(first_cut=place, last_cut=place)
    _, (after, states, *_) = play(env, params, random_actions(env, params, 4), keys_of(4))
    masks = env.action_mask(after[0, env.num_units], params)
    assert all(mask.sum() == 1 for mask in masks.values())
    np.testing.assert_array_equal(states.codec[:, -1], np.tile(np.array(NO_CODEC, np.float32), (4, 1)))


def test_choices_that_are_off_are_no_codec() -> None:
    names = [setting.name for setting in SETTINGS]
    for name, place in OFF.items():
        places = [i for i, known in enumerate(names) if known.partition("_")[-1] == name]
        assert places and all(CHOICES[name][place] == NO_CODEC[i] for i in places)
        assert all(SETTINGS[i].choices == CHOICES[name] for i in places)


# What is seen


@pytest.mark.slow
def test_the_observation_says_what_is_decided_and_what_each_cut_would_take(env: CompressedInference) -> None:
    params = env.params(budget_min=0.02, budget_max=0.02)
    strategies = random_strategies(env, 8)
    _, (after, states, *_) = play(env, params, actions_of(env, strategies), keys_of(8))
    for i in range(8):
        for number in range(env.num_decisions):
            (seen,) = env.table.split(jnp.asarray(after[i, number]))
            state = one(one(states, i), number)
            assert np.flatnonzero(seen["decision"]).tolist() == [number + 1] * (number + 1 < env.num_decisions)
            assert (seen["pruning"] == 1) == (number + 1 < env.num_units)
            np.testing.assert_allclose(seen["sparsity"] * MAX_SPARSITY, state.sparsity, rtol=1e-6)
            times = unpacked(
                env.costs, state.sparsity, state.situation.device_speed, state.situation.rate, params.server_speed
            )
            # Decimal logarithms of some tens: what is relative of a number is absolute of its logarithm.
            close(10.0 ** seen["latency"], np.asarray(total(times), float), total(times), 4 * SUM)
            margin = (state.accuracy - env.model.base + 0.02) / 0.02
            assert seen["margin"] == pytest.approx(margin, abs=64 * ROUNDING / 0.02)
            is_cut = number >= env.num_units
            assert np.flatnonzero(seen["cut"]).tolist() == [int(state.cut)] * is_cut
            assert seen["chosen_latency"] == (seen["latency"][state.cut] if is_cut else 0)
            flops = math.fsum(layer.flops for layer in env.network.pruned([float(x) for x in state.sparsity]))
            whole = math.fsum(layer.flops for layer in env.network.layers)
            close(seen["work"], flops / whole, flops / whole, SUM)
            due, situation = env.situation(jnp.asarray(after[i, number]))
            if number + 1 < env.num_decisions:
                assert due == number + 1
            np.testing.assert_allclose(jnp.stack(situation), jnp.stack(state.situation), rtol=1e-5)


def test_unpacked_is_the_latency_of_each_cut_without_a_codec(env: CompressedInference) -> None:
    for strategy in (one(random_strategies(env, 3), i) for i in range(3)):
        found = unpacked(env.costs, strategy.sparsity, 3e9, 1e6, 1e13)
        for cut in range(env.num_cuts):
            plain = Strategy(strategy.sparsity, jnp.array(cut), jnp.array(NO_CODEC))
            for time, expected in zip(found, latency(env.costs, plain, 3e9, 1e6, 1e13), strict=True):
                close(time[cut], np.asarray(expected, float), expected, SUM)


# Scenarios, parameters, errors


def test_scenarios_span_the_ranges_of_the_parameters(alexnet: CompressedInference) -> None:
    draw = jax.jit(jax.vmap(lambda key, params: alexnet.reset_env(key, params)[1].situation, (0, None)))
    found = draw(keys_of(4096), alexnet.default_params)
    speed, rate, budget = (np.asarray(values, float) for values in found)
    for values, low, high in (
        (np.log(speed), np.log(0.2e9), np.log(326.4e9)),
        (np.log(rate), np.log(0.01e6), np.log(100e6)),
        (budget, 0.005, 0.05),
    ):
        part = (values - low) / (high - low)
        assert (part > -1e-5).all() and (part < 1 + 1e-5).all()
        assert abs(part.mean() - 0.5) < 5 / math.sqrt(12 * 4096)  # five standard errors
    fixed = alexnet.params(
        **{
            f"{name}_{end}": value
            for name, value in (("device_speed", 3e9), ("rate", 1.19e6))
            for end in ("min", "max")
        }
    )
    drawn = draw(keys_of(4), fixed)
    np.testing.assert_allclose([drawn.device_speed, drawn.rate], [[3e9] * 4, [1.19e6] * 4], rtol=1e-6)


def test_cuts_out_of_the_network_are_none(alexnet: CompressedInference) -> None:
    for first, last, expected in ((0, 10**9, (0, 21)), (10**9, 10**9, (21, 21)), (1, 20, (1, 20))):
        params = alexnet.params(first_cut=first, last_cut=last)
        assert tuple(map(int, alexnet.cut_range(params))) == expected
    assert "first_cut 5 exceeds last_cut 4" in error_of(alexnet.params, first_cut=5, last_cut=4)


def test_all_local_at_the_server_and_their_names(alexnet: CompressedInference) -> None:
    (profile,) = alexnet.cuts.profiles
    assert alexnet.cuts.part == "cut" and profile.points[:3] == ("input", "features.0", "features.1")
    assert profile.points[-1] == "local" and len(profile.points) == alexnet.num_cuts == 22
    situation = Situation(*map(jnp.float32, (0.2e9, 1e6, 0.02)))
    params = alexnet.default_params
    # 1.4225 GFLOP at 0.2 GFLOP/s; 3 * 224 * 224 * 32 bit at 1 Mbit/s.
    assert alexnet.outcome(situation, alexnet.untouched(21), params).latency == pytest.approx(7.1125, rel=1e-4)
    sent = alexnet.outcome(situation, alexnet.untouched(0), params)
    assert sent.latency == pytest.approx(4.8169 + 1.4225e9 / 10600e9, rel=1e-4) and sent.sent_bits == 4_816_896


def test_other_networks_and_predictors_are_other_environments(tmp_path: Path, alexnet: CompressedInference) -> None:
    path = tmp_path / "flat.json"
    names = (*(f"sparsity/{unit.name}" for unit in compressible("alexnet").units), "cut")
    names = (*names, *(setting.name for setting in SETTINGS), "snr_db")
    coefficients = np.array([-0.01] * 7 + [0.0] * 10)
    write_regressor(path, Regressor(names, "sum", 0.9, coefficients, (), 0.9))
    measured = mec_jax.make(IDS[0], predictor=path)[0]
    assert measured != alexnet and measured == mec_jax.make(IDS[0], predictor=str(path))[0]
    assert {alexnet, measured, mec_jax.make(IDS[1])[0]} == {alexnet, measured, mec_jax.make(IDS[1])[0], alexnet}
    half = alexnet.untouched(21)._replace(sparsity=jnp.full(7, 0.5))
    assert measured.accuracy(half, measured.default_params) == pytest.approx(0.9 - 7 * 0.005, abs=8 * ROUNDING)
    assert "'sparsity/conv1' must be 'sparsity/stem'" in error_of(mec_jax.make, IDS[1], predictor=path)
    assert "'anchred'" in error_of(mec_jax.make, IDS[0], predictor="anchred")
    assert "did you mean 'alexnet'" in error_of(mec_jax.make, IDS[0], network="alexnt")


def test_a_batch_or_a_broken_choice_is_refused(alexnet: CompressedInference) -> None:
    params = alexnet.default_params
    _, state = alexnet.reset_env(KEY, params)
    action = alexnet.action_space(params).sample(KEY)
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), action)
    assert "use jax.vmap for a batch" in error_of(alexnet.step_env, KEY, state, batch, params)
    assert "cut is of type float32" in error_of(alexnet.step_env, KEY, state, action._replace(cut=1.5), params)


@pytest.mark.slow
def test_numbers_in_double_precision_are_kept_apart(alexnet: CompressedInference) -> None:
    before = alexnet.costs.before.dtype
    with jax.enable_x64(True):
        env, params = mec_jax.make(IDS[0])
        observation, _ = env.reset_env(KEY, params)
        assert env.costs.before.dtype == observation.dtype == jnp.float64
    assert alexnet.costs.before.dtype == before == jnp.float32
