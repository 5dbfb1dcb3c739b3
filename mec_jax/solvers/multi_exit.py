"""Rulers of `MultiExitAllocation-v0` and its variants: the exact joint optimum and the paper's baselines.

For fixed splits the sum of the devices' costs is smallest with shares proportional to sqrt(w W_edge); it is then
`sum a_i(s_i) + (sum r_i(s_i))^2` with a the cost without the time at the edge and r = sqrt(w W_edge / f_e). The joint
optimum over all splits merges the devices one by one and keeps the nondominated pairs of sums. All is derived, as the
model is (`physics.multi_exit`).
"""

from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation, Params, Scenario
from mec_jax.evaluation import Column, Episodes, Policy, play_episodes
from mec_jax.physics.multi_exit import Options, chosen

CAPACITY = 32
"""Pairs of sums that the joint optimum holds by default: several times what the bundled profiles need."""

_BISECTIONS = 24

_SLACK = 1e-5
"""Relative margin for rounding in what is pruned."""


# The joint optimum


class Terms(NamedTuple):
    """The parts of the cost at optimal shares, `sum fixed + (sum root)^2`."""

    fixed: Float[Array, "device split"]  # a = w (T_loc + T_tr) + (1 - w) (E_loc + E_tr)
    root: Float[Array, "device split"]  # r = sqrt(w W_edge / f_e)


class Optimum(NamedTuple):
    """Splits and shares of least total cost."""

    split: Int[Array, " device"]
    share: Float[Array, " device"]
    cost: Float[Array, ""]  # sum over devices
    lower_bound: Float[Array, ""]  # of any splits and shares; the cost itself if there was no overflow
    overflow: Bool[Array, ""]  # the capacity was too small: the cost is that of a good choice, maybe not the best


def cost_terms(options: Options, edge_speed: Float[Array, ""], latency_weight: Float[Array, " device"]) -> Terms:
    """The terms of the joint optimum."""
    weight = latency_weight[:, None]
    latency = options.local_time + options.transmit_time
    energy = options.local_energy + options.transmit_energy
    return Terms(weight * latency + (1 - weight) * energy, jnp.sqrt(weight * options.edge_work / edge_speed))


def optimal_shares(
    edge_work: Float[Array, " device"], latency_weight: Float[Array, " device"]
) -> Float[Array, " device"]:
    """Shares that minimise the weighted time at the edge, proportional to sqrt(w W_edge).

    All 0 if there is no work. A device with work but no weight on latency gets 0: its time is not counted.

    Args:
        edge_work: FLOP at the edge.
        latency_weight: w, in 0..1.
    """
    root = jnp.sqrt(latency_weight * edge_work)
    total = jnp.sum(root)
    return jnp.where(total > 0, root / jnp.where(total > 0, total, 1), 0)


def joint_optimum(
    options: Options,
    edge_speed: Float[Array, ""],
    latency_weight: Float[Array, " device"],
    capacity: int = CAPACITY,
) -> Optimum:
    """The exact optimum over all splits and shares, traced.

    For any price p, R^2 >= 2 p R - p^2: so `sum min over s of (a + 2 p r) - p^2` is a lower bound, and gives one for
    every partial choice too. The price is found by bisection; merging drops the partial choices whose bound exceeds
    the best choice that the bisection met, and those that are dominated. What is left is mostly a handful of pairs.

    Args:
        options: Costs of all splits of every device.
        edge_speed: FLOP/s.
        latency_weight: w, in 0..1.
        capacity: Pairs of sums held between merges; static.
    """
    terms = cost_terms(options, edge_speed, latency_weight)
    fixed, root = terms
    num_devices, num_splits = fixed.shape

    def priced(price: Float[Array, ""]) -> tuple[Int[Array, " device"], Float[Array, ""], Float[Array, ""]]:
        """Best splits at a price for roots, the bound it gives, and their sum of roots."""
        table = fixed + 2 * price * root
        split = jnp.argmin(table, axis=1)
        return split, jnp.sum(chosen(table, split)) - price**2, jnp.sum(chosen(root, split))

    def bisect(_: int, carry: tuple) -> tuple:
        low, high, best_price, bound, best_split, best_cost = carry
        price = (low + high) / 2
        split, new_bound, total = priced(price)
        cost = jnp.sum(chosen(fixed, split)) + total**2
        better, tighter = cost < best_cost, new_bound > bound
        # The bound is concave in the price, with slope 2 (total - price).
        return (
            jnp.where(total > price, price, low),
            jnp.where(total > price, high, price),
            jnp.where(tighter, price, best_price),
            jnp.where(tighter, new_bound, bound),
            jnp.where(better, split, best_split),
            jnp.where(better, cost, best_cost),
        )

    free = jnp.zeros_like(edge_speed)
    split, bound, total = priced(free)
    start = (free, jnp.sum(jnp.max(root, axis=1)), free, bound, split, jnp.sum(chosen(fixed, split)) + total**2)
    *_, price, bound, met_split, met_cost = jax.lax.fori_loop(0, _BISECTIONS, bisect, start)

    least = jnp.min(fixed + 2 * price * root, axis=1)
    rest = jnp.cumsum(least[::-1])[::-1] - least  # of the devices that are still to come
    limit = met_cost + _SLACK * jnp.abs(met_cost)

    def merge(front: tuple, device: tuple) -> tuple[tuple, None]:
        roots, fixeds, splits, overflow = front
        number, device_root, device_fixed, remaining = device
        new_roots = (roots[:, None] + device_root).reshape(-1)
        new_fixeds = (fixeds[:, None] + device_fixed).reshape(-1)
        bounds = new_fixeds + 2 * price * new_roots - price**2 + remaining
        negative, index = jax.lax.top_k(-bounds, capacity)
        promising = -negative <= limit
        overflow |= jnp.sum(bounds <= limit) > capacity
        roots = jnp.where(promising, new_roots[index], 0)
        fixeds = jnp.where(promising, new_fixeds[index], jnp.inf)
        splits = splits[index // num_splits].at[:, number].set(index % num_splits)
        # Of equal pairs the first stays.
        no_worse = (roots <= roots[:, None]) & (fixeds <= fixeds[:, None])
        first = jnp.tri(len(index), k=-1, dtype=bool)
        equal = (roots == roots[:, None]) & (fixeds == fixeds[:, None])
        dominated = jnp.any(no_worse & (~equal | first), axis=1)
        return (roots, jnp.where(dominated, jnp.inf, fixeds), splits, overflow), None

    # An infinite fixed part marks what is not there; an infinite root would be NaN at a price of 0.
    nothing = jnp.zeros((capacity,), fixed.dtype)
    empty = (nothing, nothing.at[1:].set(jnp.inf), jnp.zeros((capacity, num_devices), jnp.int32), jnp.zeros((), bool))
    devices = (jnp.arange(num_devices), root, fixed, rest)
    (roots, fixeds, splits, overflow), _ = jax.lax.scan(merge, empty, devices)

    costs = fixeds + roots**2
    best = jnp.argmin(costs)
    merged = costs[best] < met_cost
    split = jnp.where(merged, splits[best], met_split)
    cost = jnp.where(merged, costs[best], met_cost)
    share = optimal_shares(chosen(options.edge_work, split), latency_weight)
    return Optimum(split, share, cost, jnp.where(overflow, jnp.minimum(bound, cost), cost), overflow)


def host_optimum(terms: Terms) -> tuple[np.ndarray, float]:
    """The exact optimum in NumPy and float64, by merging alone and without a capacity.

    Args:
        terms: Of one scenario.

    Returns:
        Splits `[device]`, and the sum of the costs.
    """
    fixed, root = (np.asarray(x, np.float64) for x in terms)
    num_devices, num_splits = fixed.shape
    roots, fixeds, splits = np.zeros(1), np.zeros(1), np.zeros((1, 0), int)
    for device in range(num_devices):
        new_roots, new_fixeds = (
            (sums[:, None] + table[device]).ravel() for sums, table in ((roots, root), (fixeds, fixed))
        )
        order = np.lexsort((new_fixeds, new_roots))
        least = np.minimum.accumulate(new_fixeds[order])
        kept = order[np.concatenate([[True], least[1:] < least[:-1]])]
        roots, fixeds = new_roots[kept], new_fixeds[kept]
        splits = np.column_stack([splits[kept // num_splits], kept % num_splits])
    costs = fixeds + roots**2
    best = int(np.argmin(costs))
    return splits[best], float(costs[best])


@partial(jax.jit, static_argnames="capacity")
def _joint_optima(options: Options, edge_speed: Array, latency_weight: Array, capacity: int) -> Optimum:
    return jax.vmap(partial(joint_optimum, capacity=capacity))(options, edge_speed, latency_weight)


def joint_optima(
    options: Options,
    edge_speed: Float[Array, " scenario"],
    latency_weight: Float[Array, "scenario device"],
    capacity: int = CAPACITY,
) -> Optimum:
    """The exact optima of many scenarios: on the device, and on the host those for which the capacity is too small.

    Args:
        options: Costs of all splits, `[scenario, device, split]`.
        edge_speed: FLOP/s.
        latency_weight: w, in 0..1.
        capacity: As in `joint_optimum`.

    Returns:
        NumPy arrays `[scenario, ...]`; `overflow` says for which the host was needed, and the bounds are the costs.
    """
    found = jax.tree.map(np.array, _joint_optima(options, edge_speed, latency_weight, capacity))
    terms = jax.vmap(cost_terms)(options, edge_speed, latency_weight)
    for index in np.flatnonzero(found.overflow):
        split, cost = host_optimum(Terms(*(x[index] for x in terms)))
        found.split[index], found.cost[index], found.lower_bound[index] = split, cost, cost
        work = chosen(options.edge_work[index], jnp.asarray(split))
        found.share[index] = optimal_shares(work, latency_weight[index])
    return found


# Policies


def oracle(env: MultiExitAllocation, capacity: int, params: Params, observation: Array, key: Array) -> AllocationAction:
    """The joint optimum of the scenario at hand. Of a Markov episode it is that of each step, blind to switches."""
    scenario = env.scenario(observation, params)
    found = joint_optimum(env.options(scenario, params), scenario.edge_speed, params.latency_weight, capacity)
    return AllocationAction(found.split, found.share)


def device_only(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """Every device runs the whole network itself."""
    return _with_equal_shares(jnp.full(env.num_devices, env.num_layers, jnp.int32))


def edge_only(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """Every device sends its raw input, and all get equal shares."""
    return _with_equal_shares(jnp.zeros(env.num_devices, jnp.int32))


def aco(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """The best splits if the edge is shared equally among the devices that use it."""
    scenario = env.scenario(observation, params)
    options = env.options(scenario, params)
    return _with_equal_shares(equal_share_splits(options, scenario.edge_speed, params.latency_weight))


def spinn(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """`aco` for a network with SPINN's exits.

    The exits belong to the network and not to the action: play it with `spinn_exits(params)` for what the paper
    compares. Played with other exits, it plans for the wrong ones.
    """
    return aco(env, spinn_exits(params), observation, key)


FIXED_SPLIT = 6  # "the partitioning layer for each model is randomly set to 6"
FIXED_SPLIT_SHARES = 1000  # "a total of 1000 exhaustive search iterations"


def fixed_partition(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """Split 6 everywhere (or the middle of a network with fewer layers), and the best of 1000 random shares."""
    scenario = env.scenario(observation, params)
    split = jnp.full(env.num_devices, FIXED_SPLIT if env.num_layers > FIXED_SPLIT else env.num_layers // 2, jnp.int32)
    logits = jax.random.uniform(key, (FIXED_SPLIT_SHARES, env.num_devices), observation.dtype, -1, 1)
    shares = jax.nn.softmax(logits)

    def cost(share: Float[Array, " device"]) -> Float[Array, ""]:
        return jnp.sum(env.costs(scenario, AllocationAction(split, share), params).cost)

    return AllocationAction(split, shares[jnp.argmin(jax.vmap(cost)(shares))])


def uniform(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """A draw from the action space."""
    return env.action_space(params).sample(key)


def _with_equal_shares(split: Int[Array, " device"]) -> AllocationAction:
    return AllocationAction(split, jnp.full(split.shape, 1 / split.size))


def equal_share_splits(
    options: Options, edge_speed: Float[Array, ""], latency_weight: Float[Array, " device"]
) -> Int[Array, " device"]:
    """The exact best splits when the devices that use the edge share it equally.

    For each number k of users, a device's best splits with and without the edge are its own affair; the k devices
    that gain most are the users.

    Args:
        options: Costs of all splits.
        edge_speed: FLOP/s.
        latency_weight: w, in 0..1.
    """
    fixed, root = cost_terms(options, edge_speed, latency_weight)
    used = options.edge_work > 0
    alone = jnp.where(used, jnp.inf, fixed)
    alone_split, alone_cost = jnp.argmin(alone, axis=1), jnp.min(alone, axis=1)

    def with_users(number: Int[Array, ""]) -> tuple[Int[Array, " device"], Float[Array, ""]]:
        edge = jnp.where(used, fixed + number * root**2, jnp.inf)
        loss = jnp.min(edge, axis=1) - alone_cost
        rank = jnp.argsort(jnp.argsort(loss))
        uses = rank < number
        split = jnp.where(uses, jnp.argmin(edge, axis=1), alone_split)
        return split, jnp.sum(alone_cost) + jnp.sum(jnp.where(uses, loss, 0))

    splits, costs = jax.vmap(with_users)(jnp.arange(fixed.shape[0] + 1))
    return splits[jnp.argmin(costs)]


SPINN_INTERVAL = 0.15  # of the FLOPs of the layers


def spinn_exits(params: Params) -> Params:
    """The parameters with exits installed at every 15 % of the layers' FLOPs, as SPINN sets them, and at the end."""
    done = jnp.cumsum(params.layer_flops, axis=1)
    interval = jnp.floor(done / (SPINN_INTERVAL * done[:, -1:]))
    before = jnp.concatenate([jnp.zeros_like(interval[:, :1]), interval[:, :-1]], axis=1)
    return params.replace(exit_installed=(interval > before).at[:, -1].set(True))


@cache
def baselines(env: MultiExitAllocation) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["ACO-EAR"], params, keys)`.

    SPINN-EAR belongs to a network with other exits: `play_baselines` plays it with those.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named = {
        "Device-only-EAR": device_only,
        "Edge-only-EAR": edge_only,
        "ACO-EAR": aco,
        "SPINN-EAR": spinn,
        "FP-AR": fixed_partition,
        "Random": uniform,
    }
    return MappingProxyType({name: partial(policy, env) for name, policy in named.items()})


def play_baselines(env: MultiExitAllocation, params: Params, keys: Array) -> dict[str, Episodes]:
    """Episodes of all baselines by name, SPINN-EAR with its own exits."""
    own = {"SPINN-EAR": spinn_exits(params)}
    return {
        name: play_episodes(env, own.get(name, params), policy, own.get(name, params), keys)
        for name, policy in baselines(env).items()
    }


COLUMNS = (Column("cost", "cost", digits=4), Column("ms", "latency", 1e3), Column("mJ", "energy", 1e3))
"""Measures in a table: means over devices and steps."""


def rulers(env: MultiExitAllocation, params: Params, keys: Array) -> dict[str, Episodes]:
    """Episodes of the baselines and the bound, which in a bandit is the exact optimum.

    Args:
        env: The environment.
        params: The scenario.
        keys: Keys `[episode]`.
    """
    name = "Optimum with free switches" if env.markov else "Exact optimum"
    return play_baselines(env, params, keys) | {name: bound(env, params, keys)}


@cache
def oracle_policy(env: MultiExitAllocation, capacity: int = CAPACITY) -> Policy:
    """The policy `oracle`; like the baselines it reads the environment's parameters as its own."""
    return partial(oracle, env, capacity)


# Bounds


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
        scenario = env.scenario(observation, params)
        return joint_optimum(
            env.options(scenario, params), scenario.edge_speed, params.latency_weight, capacity
        ).overflow

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        _, _, state, _ = carry
        return ~(env.is_terminated(state, params) | env.is_truncated(state, params))

    def step(carry: tuple) -> tuple:
        found, observation, state, key = carry
        key, _, step_key = jax.random.split(key, 3)
        action = device_only(env, params, observation, key)
        found |= overflow(observation)
        observation, state, *_ = env.step_env(step_key, state, action, params)
        return found, observation, state, key

    def episode(key: Array) -> Bool[Array, ""]:
        key, reset_key = jax.random.split(key)
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
    options = env.options(Scenario(bandwidth, params.edge_speed, params.device_speed, local), params)
    fixed, root = (np.asarray(x, np.float64) for x in cost_terms(options, params.edge_speed, params.latency_weight))
    return sum_over_devices(fixed) + sum_over_devices(root) ** 2


def sum_over_devices(table: Float[np.ndarray, "device split"]) -> np.ndarray:
    """The sum of the entries of all joint splits, with one axis for each device."""
    total = np.zeros(())
    for row in table:
        total = np.add.outer(total, row)
    return total
