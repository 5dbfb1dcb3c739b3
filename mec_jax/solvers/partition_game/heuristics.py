"""Heuristics of the partition game (`mec_jax.envs.partition_game`), after Dai et al. 2022
(Coknight): DEFP, incremental and offline greedy, best-response dynamics.

Heuristics are functions of a `Game` and an `Allocation` (`mec_jax.physics.partition_game`), of one instance and without
a batch axis; `jax.vmap` makes thousands. `defp_arrive`, `defp_leave` and `igreedy_arrive` follow a population that
comes and goes.

Findings about the paper; their numbers are in benchmarks/results/partition_game.txt.

- DEFP reaches 98 to 99 % of the optimum on average where devices have three speeds and the server is fixed; 91 to 93 %
  where each device has a speed of its own, and 90 % where the server grows with each arrival.
- Its final state is not one that no pair can improve: in a fifth to a half of the games of three speeds, and in most
  where speeds differ, two devices still can, as pairs are not tried again when later ones have freed something. Now
  and then even one can.
- A Nash state can be far from the optimum, and so can a state that no pair can improve: of a capacity of 2, one
  device uses 2 and gains 3, where two others would use 1 and gain 2 each. Best responses end at 50 to 65 % of the
  optimum.
- The potential identity of Theorem 2 holds on feasible pairs of states only. With a penalty for a state that does not
  fit, the mover's change is its own penalty, and that of the potential everyone's; an infinite one leaves
  differences between such states undefined.
- The order of Fig. 12, with an offline greedy far below DEFP and almost the same cut for all, comes out where frames
  are sent as 32-bit floats and the greedy is sorted by density: 48 %. Sorted by utility it is as good as DEFP; and
  with 8-bit frames, where all at the edge saves most per unit of either resource, both orders are.
- The cuts of DEFP do not vary less than those of the optimum, against Fig. 12, but where the server grows with each
  arrival, and there it saves less, too.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.partition_game import Allocation, Game, allowed, arrival, capacity, departure, nobody, take

# One device at a time


def best_response(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Int[Array, ""]:
    """The cut of a device that is worth most to it while the others keep theirs (equation 25)."""
    worth = jnp.where(allowed(game, allocation, device), game.utility[device], -jnp.inf)
    return jnp.argmax(worth).astype(jnp.int32)


def igreedy_arrive(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Allocation:
    """IGreedy: a newcomer takes its best response, and keeps it. Who leaves just frees what it used
    (`mec_jax.physics.partition_game.departure`).
    """
    allocation = arrival(game, allocation, device)
    return take(game, allocation, device, best_response(game, allocation, device))


def igreedy(game: Game) -> Allocation:
    """IGreedy when all devices come, in the order of their numbers."""
    devices = jnp.arange(game.utility.shape[0])
    return jax.lax.scan(lambda so_far, i: (igreedy_arrive(game, so_far, i), None), nobody(game), devices)[0]


def best_response_dynamics(game: Game, allocation: Allocation) -> Allocation:
    """Present devices take turns in their best responses until none wants to move: a pure Nash equilibrium.

    It ends, as each move raises the potential (Theorem 2), which has finitely many values.
    """
    devices = jnp.arange(game.utility.shape[0])

    def turn(carry: tuple[Allocation, Array], device: Array) -> tuple[tuple[Allocation, Array], None]:
        allocation, moved = carry
        best, now = best_response(game, allocation, device), allocation.cut[device]
        better = allocation.present[device] & (game.utility[device, best] > game.utility[device, now])
        return (take(game, allocation, device, jnp.where(better, best, now)), moved | better), None

    def sweep(carry: tuple[Allocation, Array]) -> tuple[Allocation, Array]:
        return jax.lax.scan(turn, (carry[0], jnp.zeros((), bool)), devices)[0]

    return jax.lax.while_loop(lambda carry: carry[1], sweep, (allocation, jnp.ones((), bool)))[0]


# All at once


def ogreedy(game: Game, present: Bool[Array, " device"], by: Literal["density", "utility"] = "density") -> Allocation:
    """OGreedy: the choices of all devices, best first; each that still fits, of a device without one, is taken.

    The paper names the offline greedy and does not define it. By density it can be far from the optimum, as in
    Fig. 12: tiny uses are the densest, and a device that has one gets no other.

    Args:
        game: The game.
        present: Who is there.
        by: "density", utility over the sum of the parts of each capacity that it uses; or "utility".

    Raises:
        ValueError: If `by` is neither.
    """
    if by not in ("density", "utility"):
        raise ValueError(f"by is {by!r}: it must be 'density' or 'utility'")
    cuts = game.utility.shape[1]
    parts = game.use / jnp.maximum(capacity(game, present), 1)[:, None, None]
    worth = game.utility / jnp.sum(parts, axis=0) if by == "density" else game.utility
    # What is worth nothing is no better than the local run, which everyone has already.
    worth = jnp.where(present[:, None] & (game.utility > 0), worth, -jnp.inf)
    order = jnp.argsort(-worth.reshape(-1))

    def choose(allocation: Allocation, choice: Array) -> tuple[Allocation, None]:
        device, cut = choice // cuts, choice % cuts
        now = allocation.cut[device]
        fits = allowed(game, allocation, device)[cut] & (now == cuts - 1) & (worth[device, cut] > -jnp.inf)
        return take(game, allocation, device, jnp.where(fits, cut, now)), None

    return jax.lax.scan(choose, nobody(game)._replace(present=present), order.astype(jnp.int32))[0]


# Pairs: the dynamic efficient fairness partition algorithm


def defp(game: Game) -> Allocation:
    """DEFP (algorithm 1) when all devices come, in the order of their numbers: `defp_arrive` of each, but faster."""
    cut, spare = _defp(game.utility, game.use, game.capacity, game.elastic)
    everyone = jnp.ones(game.utility.shape[0], bool)
    return Allocation(cut, everyone, capacity(game, everyone) - spare)


def defp_arrive(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Allocation:
    """DEFP for a newcomer: it re-cuts itself together with each present device in turn (algorithm 1).

    For each present device i, in the order of numbers: of all pairs of cuts (t of i, s of the newcomer) that fit what
    the others leave, the one with the greatest sum of utilities. Repairs and choices beside the paper's text: line 7
    reads u_N(s_N), not u_N(s_i); temporaries are those of the best pair; a pair can use its own holdings and what is
    free, not its holdings alone, for else whoever comes after the first stays local for ever; a newcomer that finds
    nobody takes its best response; among equal sums the last s (line 7 has >=) and the first t win.

    Args:
        game: The game.
        allocation: Before it comes.
        device: The newcomer.
    """
    return _revise(game, arrival(game, allocation, device), device)


def defp_leave(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Allocation:
    """DEFP for a departure: one of those who stay re-cuts itself with each of the others, as a newcomer does.

    The paper lets "a player" do so; here it is the one that misses most, in s, of what it would have alone.
    """
    allocation = departure(game, allocation, device)
    here = jnp.take_along_axis(game.utility, allocation.cut[:, None], axis=1)[:, 0]
    missing = jnp.where(allocation.present, jnp.max(game.utility, axis=1) - here, -jnp.inf)
    player = jnp.argmax(missing).astype(jnp.int32)
    revised = _revise(game, allocation, player)
    someone = jnp.any(allocation.present)
    return jax.tree.map(lambda new, old: jnp.where(someone, new, old), revised, allocation)


def largest_gains(game: Game, allocation: Allocation) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The most, in s, that the potential can gain by one present device's move, and by a joint move of two.

    Args:
        game: The game.
        allocation: A feasible one.
    """
    devices = game.utility.shape[0]
    number = jnp.arange(devices)
    held = game.use[:, number, allocation.cut]
    here = game.utility[number, allocation.cut]
    free = capacity(game, allocation.present) - allocation.used

    def alone(i: Array) -> Array:
        return game.utility[i, best_response(game, allocation, i)] - here[i]

    def gain(i: Array, j: Array) -> Array:
        rest = (free + held[:, i] + held[:, j])[:, None, None] - game.use[:, i, :, None] - game.use[:, j, None, :]
        sums = game.utility[i, :, None] + game.utility[j, None, :]
        best = jnp.max(jnp.where(jnp.all(rest >= 0, axis=0), sums, -jnp.inf))
        return jnp.where(allocation.present[j] & (i != j), best - here[i] - here[j], 0)

    one = jnp.where(allocation.present, jax.vmap(alone)(number), 0)
    two = jax.lax.map(
        lambda i: jnp.where(allocation.present[i], jnp.max(jax.vmap(gain, (None, 0))(i, number)), 0), number
    )
    return jnp.max(one), jnp.maximum(jnp.max(two), jnp.max(one))


def _revise(game: Game, allocation: Allocation, player: Array) -> Allocation:
    free = capacity(game, allocation.present) - allocation.used
    cut, spare = _revise_with_all(game.utility, game.use, allocation.present, allocation.cut, free, player)
    return Allocation(cut, allocation.present, capacity(game, allocation.present) - spare)


# The loops over pairs are written for arrays with any number of axes of lanes behind those that are named: with lanes
# last XLA vectorises over them, which under `jax.vmap` alone it does not.


def _lanes_last(function: Callable[..., tuple[Array, Array]]) -> Callable[..., tuple[Array, Array]]:
    """The function, which under `vmap` gets each new axis last; of length 1 where an argument is not batched."""

    @custom_vmap
    def call(*arguments: Array) -> tuple[Array, Array]:
        return function(*arguments)

    @call.def_vmap
    def batched(axis_size: int, in_batched: Any, *arguments: Array) -> tuple[tuple[Array, ...], tuple[bool, ...]]:
        lanes = (
            jnp.moveaxis(x, 0, -1) if is_batched else jnp.asarray(x)[..., None]
            for x, is_batched in zip(arguments, in_batched, strict=True)
        )
        out = call(*lanes)
        return tuple(jnp.moveaxis(x, -1, 0) for x in out), (True, True)

    return call


@_lanes_last
def _defp(utility: Array, use: Array, units: Array, elastic: Array) -> tuple[Array, Array]:
    """Cuts `[device, ...]` and free units `[resource, ...]` when all have come."""
    devices, cuts, *_ = utility.shape
    lanes = jnp.broadcast_shapes(utility.shape[2:], use.shape[3:], units.shape[1:], elastic.shape)
    added = jnp.broadcast_to(jnp.where(elastic, units, 0), (2, *lanes))
    free = jnp.broadcast_to(jnp.where(elastic, 0, units), (2, *lanes))
    everyone = jnp.ones((devices, *(1 for _ in lanes)), bool)

    def come(player: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        cut, free = carry
        rows = utility[player], use[0, player], use[1, player]
        return _with_partners(utility, use, everyone, player, cut, free + added, player, rows)

    return jax.lax.fori_loop(0, devices, come, (jnp.full((devices, *lanes), cuts - 1, jnp.int32), free))


@_lanes_last
def _revise_with_all(
    utility: Array, use: Array, present: Array, cut: Array, free: Array, player: Array
) -> tuple[Array, Array]:
    """Cuts `[device, ...]` and free units `[resource, ...]` when the player has re-cut itself with all others."""
    devices = utility.shape[0]
    lanes = jnp.broadcast_shapes(
        *(
            x.shape[named:]
            for x, named in zip((utility, use, present, cut, free, player), (2, 3, 1, 1, 1, 0), strict=True)
        )
    )
    cut, free = jnp.broadcast_to(cut, (devices, *lanes)), jnp.broadcast_to(free, (2, *lanes))
    player = jnp.broadcast_to(player, lanes)
    number = jnp.arange(devices).reshape(devices, *(1 for _ in lanes))
    mine = number == player
    rows = tuple(jnp.sum(jnp.where(mine[:, None], x, 0), axis=0) for x in (utility, use[0], use[1]))
    return _with_partners(utility, use, present & ~mine, devices, cut, free, player, rows)


def _with_partners(
    utility: Array,
    use: Array,
    active: Array,
    partners: Array | int,
    cut: Array,
    free: Array,
    player: Array,
    rows: tuple[Array, ...],
) -> tuple[Array, Array]:
    """The player re-cuts itself with each active device whose number is below `partners`.

    Args:
        utility: `[device, cut, ...]`.
        use: `[resource, device, cut, ...]`.
        active: `[device, ...]`; the player is not.
        partners: How many devices are tried.
        cut: `[device, ...]` now.
        free: `[resource, ...]` now, in units.
        player: Its number, `[...]` or a scalar.
        rows: Its utilities and uses of both resources, `[cut, ...]` each.
    """
    worth, compute, bandwidth = rows
    choices = range(worth.shape[0])
    lanes = cut.shape[1:]
    zero = jnp.zeros(lanes, jnp.int32)
    none = jnp.full(lanes, -jnp.inf, worth.dtype)

    def at(row: Array, choice: Array) -> Array:
        return sum((jnp.where(choice == k, row[k], 0) for k in choices), zero)

    def with_one(i: Array, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        cut, own, spare_compute, spare_bandwidth = carry
        # Barriers keep XLA from fusing all into one kernel, which recomputes the table and is 6 times slower.
        theirs, their_compute, their_bandwidth, now, is_active = jax.lax.optimization_barrier(
            (utility[i], use[0, i], use[1, i], cut[i], active[i])
        )
        pool_compute = spare_compute + at(their_compute, now) + at(compute, own)
        pool_bandwidth = spare_bandwidth + at(their_bandwidth, now) + at(bandwidth, own)
        rest_compute, rest_bandwidth = pool_compute - compute, pool_bandwidth - bandwidth  # [cut s of the player, ...]
        best = jnp.broadcast_to(none, rest_compute.shape)
        for k in choices:
            better = (their_compute[k] <= rest_compute) & (their_bandwidth[k] <= rest_bandwidth) & (theirs[k] > best)
            best = jnp.where(better, theirs[k], best)
        total, best, rest_compute, rest_bandwidth = jax.lax.optimization_barrier(
            (best + worth, best, rest_compute, rest_bandwidth)
        )
        most, other, left_compute, left_bandwidth = none, none, zero, zero
        s = t = zero
        for k in choices:  # the last of the greatest
            better = total[k] >= most
            most, other = jnp.where(better, total[k], most), jnp.where(better, best[k], other)
            left_compute = jnp.where(better, rest_compute[k], left_compute)
            left_bandwidth = jnp.where(better, rest_bandwidth[k], left_bandwidth)
            s = jnp.where(better, k, s)
        then_compute, then_bandwidth = left_compute, left_bandwidth
        for k in reversed(choices):  # the first that reaches it
            better = (their_compute[k] <= left_compute) & (their_bandwidth[k] <= left_bandwidth) & (theirs[k] == other)
            t = jnp.where(better, k, t)
            then_compute = jnp.where(better, left_compute - their_compute[k], then_compute)
            then_bandwidth = jnp.where(better, left_bandwidth - their_bandwidth[k], then_bandwidth)
        return (
            cut.at[i].set(jnp.where(is_active, t, now)),
            jnp.where(is_active, s, own),
            jnp.where(is_active, then_compute, spare_compute),
            jnp.where(is_active, then_bandwidth, spare_bandwidth),
        )

    number = jnp.arange(cut.shape[0]).reshape(cut.shape[0], *(1 for _ in lanes))
    mine = number == player
    own = jnp.sum(jnp.where(mine, cut, 0), axis=0)
    # Alone it takes its best response; with partners the first pair decides anew, whatever it starts from.
    spare_compute, spare_bandwidth = free[0] + at(compute, own), free[1] + at(bandwidth, own)
    most, own = none, zero
    for k in choices:
        better = (compute[k] <= spare_compute) & (bandwidth[k] <= spare_bandwidth) & (worth[k] > most)
        most, own = jnp.where(better, worth[k], most), jnp.where(better, k, own)
    start = cut, own, spare_compute - at(compute, own), spare_bandwidth - at(bandwidth, own)
    cut, own, spare_compute, spare_bandwidth = jax.lax.fori_loop(0, partners, with_one, start)
    return jnp.where(mine, own, cut), jnp.stack([spare_compute, spare_bandwidth])
