"""What no policy of `MultiExitAllocation-v0` and its variants exceeds, and the exact optimum of small Markov chains."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mec_jax.contracts import Episodes
from mec_jax.envs.multi_exit import MultiExitAllocation, Params, Situation
from mec_jax.episodes import play_episodes, start_key, step_keys
from mec_jax.solvers.multi_exit.optimum import CAPACITY, cost_terms, joint_optimum
from mec_jax.solvers.multi_exit.policies import device_only, oracle_policy


def bound(env: MultiExitAllocation, params: Params, keys: Array) -> Episodes:
    """Episodes with the same scenarios as those of the keys, whose return no policy exceeds: the oracle's, with
    switches for free.

    Proof. Bandwidths and speeds depend on the key alone: whatever the policy, step t of an episode has the same
    scenario x_t, and its reward is -(C(a_t, x_t) + switch_cost * changes) / reference_cost. As switch_cost and the
    number of changes are at least 0, it is at most -C(a_t, x_t) / reference_cost, and at most
    -C*(x_t) / reference_cost with C* the least cost over all actions. The oracle reaches the latter in every step if
    switch_cost is 0, as no action changes what is to come. Summing over steps, no policy's return exceeds the
    oracle's with switch_cost 0. In a bandit, the bound is attained; over a Markov episode, only if switching is free.

    To rounding errors, those of the observation that the oracle reads included (some 1e-6 of the cost). Where the
    best share of a device is below `physics.multi_exit.MIN_SHARE`, the oracle is granted that much, at a cost to the
    others of as small a part of their time at the edge; no bundled network comes near it.

    Args:
        env: The environment; static.
        params: Its parameters; traced.
        keys: Keys `[episode]`, as for `play_episodes`.

    Raises:
        ValueError: If a scenario is too hard for the largest capacity tried.
    """
    free = params.replace(switch_cost=jnp.zeros_like(params.switch_cost))
    for capacity in (CAPACITY, 4 * CAPACITY, 16 * CAPACITY):  # memory grows with its square
        if not np.any(_overflows(env, free, keys, capacity)):
            return play_episodes(env, free, oracle_policy(env, capacity), free, keys)
    raise ValueError(
        f"more than {16 * CAPACITY} partial choices to compare: use joint_optima, which goes on on the host"
    )


@partial(jax.jit, static_argnames=("env", "capacity"))
def _overflows(env: MultiExitAllocation, params: Params, keys: Array, capacity: int) -> Bool[Array, " episode"]:
    """Whether the oracle exceeds its capacity in an episode, played as `play_episodes` plays it."""

    def overflow(observation: Array) -> Bool[Array, ""]:
        now = env.situation(observation, params)
        return joint_optimum(env.options(now, params), now.edge_speed, params.latency_weight, capacity).overflow

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        _, _, state, _ = carry
        return ~(env.is_terminated(state, params) | env.is_truncated(state, params))

    def step(carry: tuple) -> tuple:
        found, observation, state, key = carry
        key, _, step_key = step_keys(key)
        action = device_only(env, params, observation, key)
        found |= overflow(observation)
        observation, state, *_ = env.step_env(step_key, state, action, params)
        return found, observation, state, key

    def episode(key: Array) -> Bool[Array, ""]:
        key, reset_key = start_key(key)
        return jax.lax.while_loop(unfinished, step, (jnp.zeros((), bool), *env.reset_env(reset_key, params), key))[0]

    return jax.vmap(episode)(keys)


class SwitchingPlan(NamedTuple):
    """The best policy of an episode of the chain, in expectation."""

    start_cost: float  # expected sum over steps of the devices' costs and the switches
    split: np.ndarray  # [step, level, split of device 0, ..., split of device n - 1] joint index of the best splits


def switching_optimum(env: MultiExitAllocation, params: Params) -> SwitchingPlan:
    """The optimum of a bandwidth-Markov episode with switches, at nominal speeds, by dynamic programming on the host.

    Exact: shares change nothing that is to come, so that the closed form is best for any splits; all splits and
    levels are enumerated. The change of partitions is paid for device by device, so that the best successor is found
    one axis at a time. `np.unravel_index(index, (m + 1,) * n)` turns a joint index into splits.

    Args:
        env: An environment with `markov` and few devices.
        params: Its parameters; speeds are taken as nominal, whatever the spreads.

    Raises:
        ValueError: If the environment has no chain, or its table of splits would exceed 10^8 entries.
    """
    if not env.markov:
        raise ValueError(f"{env.name} has no chain: its optimum is the oracle")
    levels, steps = int(params.bandwidth_levels), int(params.max_steps_in_episode)
    shape = (env.num_layers + 1,) * env.num_devices
    entries = steps * levels * int(np.prod(shape))
    if entries > 10**8:
        raise ValueError(f"{steps} steps, {levels} levels and {int(np.prod(shape))} splits: more than 10^8 entries")
    costs = np.stack([_all_costs(env, params, level) for level in range(levels)])

    leave = (1 - float(params.bandwidth_stay)) / 2
    transition = np.eye(levels) * (1 - 2 * leave) + leave * (np.eye(levels, k=1) + np.eye(levels, k=-1))
    transition[0, 0] += leave
    transition[-1, -1] += leave

    switch = float(params.switch_cost)
    table = np.empty((steps, levels, *shape), np.int32)
    value = np.zeros((levels, *shape))  # of the splits in force, before the step
    for step in reversed(range(steps)):
        value = costs + np.tensordot(transition, value, 1)
        index = np.broadcast_to(np.arange(costs[0].size, dtype=np.int32).reshape(shape), value.shape)
        for axis in range(1, value.ndim):
            best = np.argmin(value, axis=axis, keepdims=True)
            moved = np.take_along_axis(value, best, axis) + switch
            stays = value <= moved
            index = np.where(stays, index, np.take_along_axis(index, best, axis))
            value = np.where(stays, value, moved)
        table[step] = index
    all_local = value.reshape(levels, -1)[:, -1]
    return SwitchingPlan(float(np.mean(all_local)), table)


def _all_costs(env: MultiExitAllocation, params: Params, level: int) -> np.ndarray:
    """Least costs over shares of all joint splits, [split of device 0, ...], at nominal speeds."""
    local = jnp.full(env.num_devices, env.num_layers, jnp.int32)
    bandwidth = env.bandwidth(jnp.asarray(level), params)
    options = env.options(Situation(bandwidth, params.edge_speed, params.device_speed, local), params)
    fixed, root = (np.asarray(x, np.float64) for x in cost_terms(options, params.edge_speed, params.latency_weight))
    return sum_over_devices(fixed) + sum_over_devices(root) ** 2


def sum_over_devices(table: Float[np.ndarray, "device split"]) -> np.ndarray:
    """The sum of the entries of all joint splits, with one axis for each device."""
    total = np.zeros(())
    for row in table:
        total = np.add.outer(total, row)
    return total
