"""The exact joint optimum of splits and shares of multi-exit networks.

For fixed splits the sum of the devices' costs is smallest with shares proportional to sqrt(w W_edge); it is then
`sum a_i(s_i) + (sum r_i(s_i))^2` with a the cost without the time at the edge and r = sqrt(w W_edge / f_e). The joint
optimum over all splits merges the devices one by one and keeps the nondominated pairs of sums. All is derived, as the
model is (`physics.multi_exit`).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.multi_exit import Options, chosen

CAPACITY = 32
"""Pairs of sums that the joint optimum holds by default: several times what the bundled profiles need."""

_BISECTIONS = 24

_SLACK = 1e-5
"""Relative margin for rounding in what is pruned."""


class Terms(NamedTuple):
    """The parts of the cost at optimal shares, `sum fixed + (sum root)^2`."""

    fixed: Float[Array, "device split"]  # a = w (T_loc + T_tr) + (1 - w) (E_loc + E_tr)
    root: Float[Array, "device split"]  # r = sqrt(w W_edge / f_e)


class JointOptimum(NamedTuple):
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
) -> JointOptimum:
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
    return JointOptimum(split, share, cost, jnp.where(overflow, jnp.minimum(bound, cost), cost), overflow)


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
def _joint_optima(options: Options, edge_speed: Array, latency_weight: Array, capacity: int) -> JointOptimum:
    return jax.vmap(partial(joint_optimum, capacity=capacity))(options, edge_speed, latency_weight)


def joint_optima(
    options: Options,
    edge_speed: Float[Array, " scenario"],
    latency_weight: Float[Array, "scenario device"],
    capacity: int = CAPACITY,
) -> JointOptimum:
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
