"""Devices that cut one DNN between themselves and an edge server of limited compute and bandwidth (Dai et al. 2022,
"Towards Scalable and Efficient Deep-RL in Edge Computing: A Game-based Partition Approach", Coknight).

Cut y in 0..K: the first y layers run on the device, the others at the edge; 0 sends the raw input, K uses nothing of
the edge. Equations 4 to 11 of the paper, with these repairs: "tr" is a rate, though it is called a cost; a utility is
what is saved, T(K) - T(y), where equation 15 has the sign the other way; a device that runs all itself uses no
bandwidth, which equation 11 charges it for.

Uses are whole numbers, so that sums are exact in any order and a ledger that is kept over thousands of arrivals and
departures equals its recomputation bit for bit: see `in_units`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.partition import cut_times, work_after, work_before

UNITS = 2**29
"""Units of the edge's whole capacity, of each resource: two of them added still fit a 32-bit integer."""

ROUNDED_DOWN = 2.0**-22
"""By this part of itself, and at most one unit, a use is rounded down: so what fits exactly fits whatever the rounding
of floats. A feasible state exceeds the true capacity by less than 1e-6 of it, which is what MILP solvers allow, too.
"""


class Game(NamedTuple):
    """What each cut is worth to each device, and what it takes. Resources: FLOP/s and bit/s of the edge."""

    utility: Float[Array, "device cut"]  # s saved against the local run; 0 at the last cut
    use: Int[Array, "resource device cut"]  # units; 0 at the last cut
    capacity: Int[Array, " resource"]  # units; of an elastic server those that it adds for each device
    elastic: Bool[Array, ""]


class Allocation(NamedTuple):
    """Who is there, where they cut, and the ledger of what that uses."""

    cut: Int[Array, " device"]  # that of an absent device is K
    present: Bool[Array, " device"]
    used: Int[Array, " resource"]  # units


def response_times(
    layer_flops: Float[Array, " layer"],
    bits: Float[Array, " cut"],
    device_speed: Float[Array, " device"],
    edge_speed: Float[Array, ""],
    link_rate: Float[Array, ""],
) -> Float[Array, "device cut"]:
    """T of equation 6, in s: what the device computes, what the edge computes, and the feature and answer sent.

    Args:
        layer_flops: FLOP of each layer.
        bits: bit of the raw input and of each layer's output; the last are those of the answer.
        device_speed: FLOP/s.
        edge_speed: FLOP/s that one request gets at the edge.
        link_rate: bit/s, "tr".
    """
    front = work_before(layer_flops)
    time = cut_times(front, bits + bits[-1], front[-1] - front, device_speed[:, None], link_rate, edge_speed)
    return time.device + (time.server + time.link).at[-1].set(0)


def utilities(times: Float[Array, "device cut"]) -> Float[Array, "device cut"]:
    """What each cut saves against running all on the device, in s: equation 15 with its sign mended."""
    return times[..., -1:] - times


def resource_use(
    layer_flops: Float[Array, " layer"],
    bits: Float[Array, " cut"],
    request_rate: Float[Array, " device"],
    bits_rate: Float[Array, " device"],
) -> Float[Array, "resource device cut"]:
    """FLOP/s and bit/s of the edge that each cut takes, the left sides of equations 10 and 11; K takes nothing.

    Args:
        layer_flops: FLOP of each layer.
        bits: bit of the raw input and of each layer's output.
        request_rate: Requests/s; the paper has 1.
        bits_rate: delta of equation 11, 1/s: bandwidth held for each bit of the feature.
    """
    return jnp.stack([request_rate[:, None] * work_after(layer_flops), bits_rate[:, None] * bits.at[-1].set(0)])


def in_units(
    use: Float[Array, "resource device cut"], capacity: Float[Array, " resource"]
) -> Int[Array, "resource device cut"]:
    """Uses as whole units, `UNITS` of which are the capacity; more than twice the capacity counts as just that."""
    part = jnp.minimum(use / capacity[:, None, None], 2.0) * (1 - ROUNDED_DOWN)
    return jnp.floor(part * UNITS).astype(jnp.int32)


def make_game(
    utility: Float[Array, "device cut"],
    use: Float[Array, "resource device cut"],
    capacity: Float[Array, " resource"],
    elastic: Bool[Array, ""],
) -> Game:
    """The game of these utilities and uses.

    Args:
        utility: s; 0 at the last cut.
        use: FLOP/s and bit/s; 0 at the last cut.
        capacity: FLOP/s and bit/s; of an elastic server those for each device that is there.
        elastic: Whether the server grows with the number of devices: R = N r_0.
    """
    devices = utility.shape[0]
    whole = jnp.where(elastic, devices * capacity, capacity)
    units = jnp.where(elastic, UNITS // devices, UNITS).astype(jnp.int32)
    return Game(utility, in_units(use, whole), jnp.broadcast_to(units, (2,)), jnp.asarray(elastic))


def nobody(game: Game) -> Allocation:
    """The allocation before anyone has come."""
    devices, cuts = game.utility.shape
    return Allocation(jnp.full(devices, cuts - 1, jnp.int32), jnp.zeros(devices, bool), jnp.zeros(2, jnp.int32))


def capacity(game: Game, present: Bool[Array, " device"]) -> Int[Array, " resource"]:
    """Units that the server has while these devices are there."""
    return jnp.where(game.elastic, jnp.sum(present) * game.capacity, game.capacity)


def used(game: Game, cut: Int[Array, " device"], present: Bool[Array, " device"]) -> Int[Array, " resource"]:
    """Units that the present devices use, from scratch. More than twice the whole capacity is called just that."""
    held = jnp.take_along_axis(game.use, cut[None, :, None], axis=2)[..., 0]
    held = jnp.where(present, held, 0)
    # The sum of whole numbers is exact as long as it is no larger than this.
    overflows = jnp.sum(held.astype(jnp.float32), axis=1) > 2 * UNITS
    return jnp.where(overflows, 2 * UNITS, jnp.sum(held, axis=1))


def is_feasible(game: Game, cut: Int[Array, " device"], present: Bool[Array, " device"]) -> Bool[Array, ""]:
    """Whether what the present devices use is there."""
    return jnp.all(used(game, cut, present) <= capacity(game, present))


def total_utility(game: Game, cut: Int[Array, " device"], present: Bool[Array, " device"]) -> Float[Array, ""]:
    """Sum of the utilities of the present devices, in s: the potential of equation 23, and the goal."""
    return jnp.sum(jnp.where(present, jnp.take_along_axis(game.utility, cut[:, None], axis=1)[:, 0], 0))


def allowed(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Bool[Array, " cut"]:
    """Cuts that a device can take while the others keep theirs; K always is one."""
    free = capacity(game, allocation.present) - allocation.used
    pool = free + game.use[:, device, allocation.cut[device]]
    return jnp.all(game.use[:, device] <= pool[:, None], axis=0).at[-1].set(True)


def take(game: Game, allocation: Allocation, device: Int[Array, ""], cut: Int[Array, ""]) -> Allocation:
    """A device takes a cut, which must be allowed."""
    row = game.use[:, device]
    used = allocation.used + row[:, cut] - row[:, allocation.cut[device]]
    return Allocation(allocation.cut.at[device].set(cut), allocation.present, used)


def arrival(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Allocation:
    """A device comes, and runs all itself."""
    return change_members(game, allocation, allocation.present.at[device].set(True))


def departure(game: Game, allocation: Allocation, device: Int[Array, ""]) -> Allocation:
    """A device goes, with what it used."""
    return change_members(game, allocation, allocation.present.at[device].set(False))


def change_members(game: Game, allocation: Allocation, present: Bool[Array, " device"]) -> Allocation:
    """These devices are there from now on. Who goes frees what it used, who comes runs all itself; an elastic server
    that shrinks may send others local: see `shed`.
    """
    gone = allocation.present & ~present
    left = allocation.used - used(game, allocation.cut, gone)
    return shed(game, Allocation(jnp.where(present, allocation.cut, game.utility.shape[1] - 1), present, left))


def shed(game: Game, allocation: Allocation) -> Allocation:
    """Devices go local until the capacity holds, each time the one that gives up least per unit that it frees.

    The paper does not say what happens when an elastic server shrinks.
    """
    local = game.utility.shape[1] - 1
    device = jnp.arange(game.utility.shape[0])

    def can_shed(allocation: Allocation) -> Bool[Array, " device"]:
        return allocation.present & (allocation.cut != local)

    def exceeds(allocation: Allocation) -> Bool[Array, ""]:
        # A ledger of another game may say more than there is to shed.
        over = jnp.any(allocation.used > capacity(game, allocation.present))
        return over & jnp.any(can_shed(allocation))

    def drop(allocation: Allocation) -> Allocation:
        held = jnp.sum(game.use[:, device, allocation.cut].astype(jnp.float32), axis=0)
        dearest = jnp.finfo(jnp.float32).max  # who frees nothing comes last, but comes
        price = jnp.where(held > 0, game.utility[device, allocation.cut] / jnp.maximum(held, 1), dearest)
        worst = jnp.argmin(jnp.where(can_shed(allocation), jnp.minimum(price, dearest), jnp.inf))
        return take(game, allocation, worst, jnp.asarray(local, jnp.int32))

    return jax.lax.while_loop(exceeds, drop, allocation)
