"""What policies of `CompressedInference` are measured against: the paper's baselines, its optimizer
run anew for each episode, and a bound.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mec_jax.contracts import Column, Episodes, Rulers, Solver
from mec_jax.envs.compressed_inference import CompressedInference, Outcome, Params, Situation
from mec_jax.episodes import start_key
from mec_jax.physics.compression import total
from mec_jax.solvers.compression.baselines import compare
from mec_jax.solvers.compression.bounds import Relaxed, lower_bound, relaxed
from mec_jax.solvers.compression.mqhoa import Config
from mec_jax.solvers.compression.policies import baselines
from mec_jax.solvers.compression.problem import Problem
from mec_jax.solvers.policies import play_each

__all__ = ["COLUMNS", "SOLVER", "bound", "problem_of", "rulers", "searches", "situation_of"]

COLUMNS = (
    Column("ms", "latency", 1e3),
    Column("accuracy", "accuracy", digits=4),
    Column("within the budget", "feasible", digits=3),
    Column("kbit", "sent_bits", 1e-3),
    Column("device MFLOP", "device_flops", 1e-6),
)
"""Measures in a table: means over episodes, that of the latency over what is deployed."""

RESTARTS = 16
"""Runs of MQHOA for each method and episode."""

BUDGETS = 8
"""Budgets that the bound is worked out for."""


def rulers(env: CompressedInference, params: Params, keys: Key[Array, " episode"]) -> Rulers:
    """The baselines, MQHOA over all variables, and the bound."""
    played = play_each(env, params, baselines(env), keys) | searches(env, params, keys)
    played["Lower bound"] = bound(env, params, keys)
    return Rulers(played, zero="Random", one="MQHOA", bound="Lower bound")


def searches(env: CompressedInference, params: Params, keys: Key[Array, " episode"]) -> dict[str, Episodes]:
    """Episodes of those baselines that search, each anew for the situation of each episode, and of the search over all
    variables (`mec_jax.solvers.compression.compare`), which is the best known.
    """
    found = _searched(env, env.bounded(params), keys, Config(), RESTARTS)
    return {name: _episodes(env, params, outcome) for name, outcome in found.items()}


@partial(jax.jit, static_argnames=("env", "config", "restarts"))
def _searched(
    env: CompressedInference, params: Params, keys: Key[Array, " episode"], config: Config, restarts: int
) -> dict[str, Outcome]:
    def episode(key: Key[Array, ""]) -> dict[str, Outcome]:
        situation = situation_of(env, params, key)
        problem = problem_of(env, params, situation)
        found = dict(compare(problem, jax.random.fold_in(key, 1), config, restarts))
        found["MQHOA"] = found.pop("Joint")
        # Those that search nothing are policies.
        searched = {name: one for name, one in found.items() if name not in baselines(env)}
        return {name: env.outcome(situation, one.strategy, params) for name, one in searched.items()}

    return jax.vmap(episode)(keys)


def problem_of(env: CompressedInference, params: Params, situation: Situation) -> Problem:
    """What an episode asks, as optimizers take it."""
    first, last = env.cut_range(params)
    return Problem(
        costs=env.costs,
        model=env.model,
        device_speed=situation.device_speed,
        rate=situation.rate,
        server_speed=params.server_speed,
        snr_db=params.snr,
        budget=situation.budget,
        first_cut=first,
        last_cut=last,
    )


def bound(env: CompressedInference, params: Params, keys: Key[Array, " episode"]) -> Episodes:
    """Episodes whose return no policy exceeds.

    Proof. An episode's return is its last reward, as the others are 0. If what was decided is within the budget, that
    is minus the logarithm of its latency, which is no less than `lower_bound` of a budget that is no less. If not, the
    network as it was is deployed at a legal cut, and the reward is at most minus the logarithm of that latency: no less
    than the least over all legal cuts.

    The budgets are `BUDGETS` of the range that they are drawn from, evenly in the logarithm: each episode has the bound
    of the next one above its own.
    """
    params = env.bounded(params)
    # A little more than the range, so that rounding leaves no budget above the last.
    low, high = float(params.budget_min), float(params.budget_max) * (1 + 1e-5)
    budgets = jnp.array(np.geomspace(low, high, BUDGETS + 1)[1:])
    situations = jax.jit(jax.vmap(partial(situation_of, env, params)))(keys)
    number = np.searchsorted(np.asarray(budgets), np.asarray(situations.budget))
    seconds = np.zeros(len(number), np.asarray(situations.rate).dtype)
    for which in np.unique(number):
        allowed = relaxed(env.costs, env.model, float(params.snr), float(budgets[which]))
        mine = number == which

        seconds[mine] = _bounds(env, params, allowed, jax.tree.map(lambda x, mine=mine: x[mine], situations))
    return _episodes(env, params, _of_bound(env, params, situations, jnp.array(seconds)))


@partial(jax.jit, static_argnames="env")
def _bounds(
    env: CompressedInference, params: Params, allowed: Relaxed, situations: Situation
) -> Float[Array, " episode"]:
    """Of strategies within the budget, s. One episode after the other: a bound looks at thousands of cases."""
    first, last = env.cut_range(params)

    def least(situation: Situation) -> Float[Array, ""]:
        return lower_bound(allowed, situation.device_speed, situation.rate, params.server_speed, first, last)

    return jax.lax.map(least, situations)


@partial(jax.jit, static_argnames="env")
def _of_bound(
    env: CompressedInference, params: Params, situations: Situation, seconds: Float[Array, " episode"]
) -> Outcome:
    first, last = env.cut_range(params)

    def episode(situation: Situation, compressed: Float[Array, ""]) -> Outcome:
        place = jnp.arange(env.num_cuts)
        untouched = total(env.times(situation, jnp.zeros(env.num_units), params))
        legal = jnp.where((place >= first) & (place <= last), untouched, jnp.inf)
        least = jnp.minimum(compressed, jnp.min(legal))
        nothing = jnp.zeros_like(least)
        return Outcome(
            reward=-jnp.log(least),
            latency=least,
            accuracy=env.model.base - situation.budget,
            feasible=jnp.array(True),
            sent_bits=nothing,
            device_flops=nothing,
        )

    return jax.vmap(episode)(situations, seconds)


def situation_of(env: CompressedInference, params: Params, key: Key[Array, ""]) -> Situation:
    """That of an episode: what it is about hangs on its key alone."""
    _, reset_key = start_key(key)
    _, state = env.reset_env(reset_key, params)
    situation: Situation = state.situation
    return situation


def _episodes(env: CompressedInference, params: Params, outcome: Outcome) -> Episodes:
    """Episodes, as if played, that come to these outcomes; cut off earlier, an episode earns nothing."""
    info = outcome._asdict()
    reward = info.pop("reward")
    limit = env.bounded(params).max_steps_in_episode
    whole = jnp.broadcast_to(jnp.asarray(limit) >= env.num_decisions, reward.shape)
    frames = jnp.broadcast_to(jnp.minimum(limit, env.num_decisions), reward.shape).astype(jnp.int32)
    none = jnp.zeros(reward.shape, jnp.int32)
    return Episodes(jnp.where(whole, reward, 0), frames, whole, env.measures(info, frames, params), none)


SOLVER = Solver(COLUMNS, baselines, rulers)
