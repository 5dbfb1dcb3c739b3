"""Baselines, exact optima and bounds of neuron allocation (`mec_jax.envs.neuron_allocation`), and the latency of the
systems that Huang et al. 2022 (DeColla) compare.
"""

import itertools
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from mec_jax.envs.neuron_allocation import Context, NeuronAllocation, Params
from mec_jax.evaluation import Column, Episodes, Policy, play_episodes
from mec_jax.physics.neuron_allocation import Devices, Pieces, Queue, after_submission, empty_queue, submit

# Policies


def random(env: NeuronAllocation, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """Any device that is there, each as likely: the paper's Random."""
    present = env.action_mask(observation, params)["action"]
    return jax.random.categorical(key, jnp.where(present, 0.0, -jnp.inf)).astype(jnp.int32)


def average(env: NeuronAllocation, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """Each device that is there in turn, over the layers: the paper's Average."""
    now = env.situation(observation, params)
    turn = (now.layer * env.num_pieces + now.piece) % jnp.maximum(jnp.sum(now.present), 1)
    return jnp.argmax(jnp.cumsum(now.present) > turn).astype(jnp.int32)


def least(env: NeuronAllocation, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """The device with the most free FLOP/s, whatever waits there: the paper's Least."""
    now = env.situation(observation, params)
    return jnp.argmax(jnp.where(now.present, now.speed, -1)).astype(jnp.int32)


def shortest_completion(env: NeuronAllocation, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """The device that would return the piece first, as far as one can know: failures are not foreseen."""
    now = env.situation(observation, params)
    devices = Devices(now.speed, now.bandwidth, jnp.full(env.num_slots, jnp.inf))
    time = jnp.zeros_like(params.reference_speed)
    after = after_submission(now.queue, devices, env.pieces(now.layer, params), now.piece, time, params.resend_input)
    return jnp.argmin(jnp.where(now.present, after.up, jnp.inf)).astype(jnp.int32)


@cache
def baselines(env: NeuronAllocation) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["Least"], params, keys)`.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named = {"Random": random, "Average": average, "Least": least, "Shortest completion": shortest_completion}
    return MappingProxyType({name: partial(policy, env) for name, policy in named.items()})


COLUMNS = (Column("slowdown", "slowdown", digits=2), Column("ms", "latency", 1e3), Column("lost", "lost", digits=3))
"""Measures in a table: mean slowdown of a piece, latency of the inference, pieces without a result."""


def rulers(env: NeuronAllocation, params: Params, keys: Array) -> dict[str, Episodes]:
    """Episodes of the baselines and the bound, which on a small static testbed is the exact optimum.

    Args:
        env: The environment.
        params: The scenario.
        keys: Keys `[episode]`.
    """
    played = {name: play_episodes(env, params, policy, params, keys) for name, policy in baselines(env).items()}
    return played | {"Lower bound": bound(env, params, keys)}


# The optimum of one layer

MAX_ASSIGNMENTS = 10**6
"""Assignments that `layer_optimum` tries, at most."""

BOUND_ASSIGNMENTS = 1000
"""Assignments of a layer up to which `bound` tries all of them."""


class LayerOptimum(NamedTuple):
    """The best assignment of a layer's pieces while no device fails."""

    device: np.ndarray  # [piece] of pieces that are not empty
    slowdown: float  # sum over pieces


def position_times(
    pieces: Pieces, devices: Devices, resend: Bool[Array, ""], decision_time: Float[Array, ""]
) -> Float[Array, "device position"]:
    """When a device would return its first, second, ... piece if it had only copies of the smallest one.

    Infinite for absent devices; s after the start of the layer. Increasing along positions.

    Args:
        pieces: Of the layer, the smallest one first.
        devices: All of them.
        resend: As in `mec_jax.physics.neuron_allocation.after_submission`.
        decision_time: s; the p-th piece on a device is submitted after p decisions at the earliest.
    """

    def add(queue: Queue, position: Int[Array, ""]) -> tuple[Queue, Float[Array, " device"]]:
        zero = jnp.zeros((), jnp.int32)
        queue = after_submission(queue, devices, pieces, zero, (position + 1) * decision_time, resend)
        return queue, queue.up

    start = empty_queue(devices.speed.size, devices.speed.dtype)
    _, times = jax.lax.scan(add, start, jnp.arange(pieces.flops.size))
    return jnp.where(devices.failure[:, None] > 0, times.T, jnp.inf)


def assignment_slowdowns(
    device: Int[Array, "assignment piece"],
    pieces: Pieces,
    devices: Devices,
    resend: Bool[Array, ""],
    decision_time: Float[Array, ""],
    reference_speed: Float[Array, ""],
) -> Float[Array, " assignment"]:
    """Sums of slowdowns of a layer while no device fails; infinite where an absent device is used.

    Args:
        device: Of each piece.
        pieces: Of the layer.
        devices: All of them.
        resend: As in `position_times`.
        decision_time: As in `position_times`.
        reference_speed: FLOP/s, F_ref.
    """

    def slowdown(device: Int[Array, " piece"]) -> Float[Array, ""]:
        def assign(queue: Queue, piece: Int[Array, ""]) -> tuple[Queue, Float[Array, ""]]:
            after = after_submission(queue, devices, pieces, piece, (piece + 1) * decision_time, resend)
            chosen = device[piece]
            taken = jnp.where(devices.failure[chosen] > 0, after.up[chosen], jnp.inf)
            flops = pieces.flops[piece]
            return submit(queue, after, chosen), jnp.where(flops > 0, taken * reference_speed / flops, 0)

        start = empty_queue(devices.speed.size, devices.speed.dtype)
        return jnp.sum(jax.lax.scan(assign, start, jnp.arange(device.size))[1])

    return jax.vmap(slowdown)(device)


_assignment_slowdowns = jax.jit(assignment_slowdowns)
_position_times = jax.jit(position_times)


def layer_optimum(
    pieces: Pieces, devices: Devices, resend: bool, reference_speed: float, by_force: bool = False
) -> LayerOptimum:
    """The least sum of slowdowns of a layer while no device fails and decisions take no time; on the host.

    Pieces of equal size: the p-th result of a device comes at a time that depends on the device and p alone
    (`position_times`), so that the best choice of positions is an assignment problem, solved by
    `scipy.optimize.linear_sum_assignment`. Of unequal size: all assignments are tried. Pieces are submitted in their
    order, as in the environment.

    Args:
        pieces: Of the layer.
        devices: All of them.
        resend: As in `position_times`.
        reference_speed: FLOP/s, F_ref.
        by_force: Whether to try all assignments of equal pieces, too.

    Raises:
        ValueError: If unequal pieces have more than `MAX_ASSIGNMENTS` assignments, or no device is there.
    """
    present = np.flatnonzero(np.asarray(devices.failure) > 0)
    if not present.size:
        raise ValueError("no device is there: at least one must have a failure time > 0")
    flops = np.asarray(pieces.flops, np.float64)
    flops = flops[flops > 0]
    once, never = jnp.asarray(resend), jnp.zeros_like(devices.speed[0])
    if np.all(flops == flops[0]) and not by_force:
        times = np.asarray(_position_times(pieces, devices, once, never), np.float64)[present, : flops.size]
        row, column = linear_sum_assignment(times.reshape(1, -1) * reference_speed / flops[:, None])
        cost = times.reshape(-1)[column] * reference_speed / flops[row]
        return LayerOptimum(present[column // flops.size], float(np.sum(cost)))
    if present.size**flops.size > MAX_ASSIGNMENTS:
        raise ValueError(
            f"{present.size} devices and {flops.size} unequal pieces have more than {MAX_ASSIGNMENTS} assignments: "
            "use fewer, or the bound"
        )
    every = present[np.array(list(itertools.product(range(present.size), repeat=flops.size)))]
    padded = np.pad(every, ((0, 0), (0, pieces.flops.size - flops.size)), constant_values=present[0])
    speed = jnp.asarray(reference_speed, devices.speed.dtype)
    costs = np.asarray(_assignment_slowdowns(jnp.asarray(padded), pieces, devices, once, never, speed))
    best = int(np.argmin(costs))
    return LayerOptimum(every[best], float(costs[best]))


# The bound of whole episodes


def bound(env: NeuronAllocation, params: Params, keys: Array) -> Episodes:
    """What no policy exceeds in return, in the episodes of the keys. Exact if no device can fail and there are at
    most `BOUND_ASSIGNMENTS` assignments of a layer: then each layer's best assignment is found by trying all.

    Proof. The context of a layer - who is there, how fast, when who fails - depends on the key alone, and queues are
    empty at its start, so that layers are problems of their own. Let C_1 <= C_2 <= ... be the times of
    `position_times` of all devices and positions, sorted.

    (1) If all n pieces of a layer get a result, the i-th result comes no earlier than C_i. For the p-th result that a
    device returns comes no earlier than its p-th position time: completion times of a first in, first out chain of
    servers never shrink if pieces get larger, come later or are preceded by others (whose results are lost), and the
    p-th piece on a device is submitted no earlier than the p-th decision. So the results come at times of which each
    is at least that of a position of its own, and the i-th smallest of those is at least C_i. The sum of
    P_j / T_j is then at least the sum of C_i / T_(i) with T_(1) <= T_(2) <= ... the ideal times, by the rearrangement
    inequality.

    (2) If no device fails in the layer, its cost is that of an assignment, so at least that of the best one.

    (3) Pieces can be lost only in a layer where every device that is there fails (or none is there), and after it. With
    s of them lost the cost of the layer is at least s * lost_slowdown + the sum over i <= n - s of C_i / T_(n), hence
    at least the sum of min(C_i / T_(n), lost_slowdown). In a later layer the cost is either that of (1) to (3), or
    lost_slowdown for each piece.

    The bound is, per layer, the best of what holds. Its latency is a lower bound, too: the sum of C_n, where no piece
    can have been lost. To rounding errors, some 1e-6 of the cost.

    Args:
        env: The environment; static.
        params: Its parameters; traced.
        keys: Keys `[episode]`, as for `play_episodes`.
    """
    exact = env.num_slots**env.num_pieces <= BOUND_ASSIGNMENTS
    slowdown, latency = _episode_bounds(env, exact, params, keys)
    decisions = env.num_decisions(params)
    nothing = jnp.zeros_like(slowdown)
    return Episodes(
        episode_return=-slowdown / params.reference_slowdown,
        frames=jnp.broadcast_to(decisions, slowdown.shape),
        terminated=jnp.ones(slowdown.shape, bool),
        measures={
            "slowdown": slowdown / decisions,
            "latency": latency,
            "reassigned": nothing,
            "lost": nothing,
        },
    )


@partial(jax.jit, static_argnames=("env", "exact"))
def _episode_bounds(
    env: NeuronAllocation, exact: bool, params: Params, keys: Array
) -> tuple[Float[Array, " episode"], Float[Array, " episode"]]:
    """Least sums of slowdowns, and latencies (s)."""
    counts = jnp.minimum(params.neurons, env.num_pieces)

    def layer_bound(layer: Int[Array, ""], context: Context) -> tuple[Array, Array, Array]:
        pieces, devices = env.pieces(layer, params), env.devices(context, params)
        times = position_times(pieces, devices, params.resend_input, params.decision_time)
        earliest = jnp.sort(times.reshape(-1))[: env.num_pieces]
        exists = pieces.flops > 0
        weight = jnp.where(exists, params.reference_speed / jnp.where(exists, pieces.flops, 1), 0)
        least_weight = jnp.min(jnp.where(exists, weight, jnp.inf))
        cost = jnp.sum(jnp.where(exists, earliest * weight, 0))
        if exact:
            best = jnp.min(
                assignment_slowdowns(
                    jnp.asarray(_all_assignments(env.num_slots, env.num_pieces)),
                    pieces,
                    devices,
                    params.resend_input,
                    params.decision_time,
                    params.reference_speed,
                )
            )
            fails = jnp.any((devices.failure > 0) & jnp.isfinite(devices.failure))
            cost = jnp.where(fails, cost, jnp.maximum(cost, best))
        may_lose = jnp.all(jnp.isfinite(devices.failure))
        with_losses = jnp.sum(jnp.where(exists, jnp.minimum(earliest * least_weight, params.lost_slowdown), 0))
        cost = jnp.where(may_lose, jnp.minimum(cost, with_losses), cost)
        return cost, earliest[counts[layer] - 1], may_lose

    def episode(key: Array) -> tuple[Array, Array]:
        contexts = episode_contexts(env, params, key)
        cost, latency, may_lose = jax.lax.map(lambda x: layer_bound(*x), (jnp.arange(env.num_layers), contexts))
        over = jnp.cumsum(may_lose) > 0  # in this layer, or before
        before = over & (jnp.cumsum(may_lose) - may_lose > 0)
        cost = jnp.where(before, jnp.minimum(cost, counts * params.lost_slowdown), cost)
        return jnp.sum(cost), jnp.sum(jnp.where(over, 0, latency))

    return jax.lax.map(episode, keys, batch_size=16)


def episode_contexts(env: NeuronAllocation, params: Params, key: Array) -> Context:
    """The contexts `[layer, device]` of an episode that `play_episodes` plays with the key, whatever the policy.

    Args:
        env: The environment.
        params: Its parameters.
        key: Of the episode.
    """

    def decision(carry: tuple, _: None) -> tuple[tuple, tuple[Array, Array, Context]]:
        key, layer, piece, context = carry
        key, _, step_key = jax.random.split(key, 3)
        done = piece + 1 >= jnp.minimum(params.neurons[jnp.minimum(layer, env.num_layers - 1)], env.num_pieces)
        following = env.next_context(step_key, context, jnp.minimum(layer + 1, env.num_layers - 1), params)
        after = jax.tree.map(lambda new, old: jnp.where(done, new, old), following, context)
        return (key, layer + done, jnp.where(done, 0, piece + 1), after), (layer, piece, context)

    key, reset_key = jax.random.split(key)
    zero = jnp.zeros((), jnp.int32)
    start = (key, zero, zero, env.first_context(reset_key, params))
    _, (layer, piece, context) = jax.lax.scan(decision, start, length=env.num_layers * env.num_pieces)
    # Steps beyond the last layer fall out of range, as do those that start no layer, and are dropped.
    where = jnp.where(piece == 0, layer, env.num_layers)
    return jax.tree.map(
        lambda x: jnp.zeros((env.num_layers, *x.shape[1:]), x.dtype).at[where].set(x, mode="drop"), context
    )


def _all_assignments(num_devices: int, num_pieces: int) -> np.ndarray:
    return np.array(list(itertools.product(range(num_devices), repeat=num_pieces)), np.int32)


# The systems that the paper compares, for one request; s


def mobile_only(flops: ArrayLike, speed: float) -> float:
    """All layers on one device: sum of F_l / c.

    Args:
        flops: FLOP of each layer.
        speed: FLOP/s, c.
    """
    return float(np.sum(np.asarray(flops, float)) / speed)


def partition_offloading(
    flops: ArrayLike, cut_bits: ArrayLike, speed: float, bandwidth: float, edge_speed: float
) -> float:
    """The first s layers on a device and the others at an edge server, with the best s (Neurosurgeon):
    min over s of F_<=s / c + D_s / B + F_>s / f.

    Args:
        flops: FLOP of each layer.
        cut_bits: bit `[layer + 1]` sent if s layers run on the device; the last is usually 0.
        speed: FLOP/s, c.
        bandwidth: bit/s, B.
        edge_speed: FLOP/s, f.

    Raises:
        ValueError: If there is not one more cut than layers.
    """
    done = np.concatenate([[0], np.cumsum(np.asarray(flops, float))])
    bits = np.asarray(cut_bits, float)
    if bits.shape != done.shape:
        raise ValueError(f"cut_bits has shape {bits.shape}: it must be {done.shape}, one more than layers")
    return float(np.min(done / speed + bits / bandwidth + (done[-1] - done) / edge_speed))


def hierarchical(
    flops: ArrayLike, output_bits: ArrayLike, speed: ArrayLike, bandwidth: ArrayLike, table_overhead: float = 0.0
) -> float:
    """Contiguous blocks of layers on one device after the other: sum of W_d / c_d + D_d / B_d, and the upkeep of the
    IP table.

    Blocks get work in proportion to speeds, as far as layers allow (the paper does not say how it divides them): each
    layer goes to the device in whose part of the work its middle lies.

    Args:
        flops: FLOP of each layer.
        output_bits: bit of each layer's output; the last layer of a block sends its own, that of the network too.
        speed: FLOP/s `[device]`.
        bandwidth: bit/s `[device]`.
        table_overhead: s for all devices together; the paper names it and gives no number.
    """
    work, bits = np.asarray(flops, float), np.asarray(output_bits, float)
    speed, bandwidth = np.asarray(speed, float), np.asarray(bandwidth, float)
    middle = (np.cumsum(work) - work / 2) / np.sum(work)
    device = np.minimum(np.searchsorted(np.cumsum(speed) / np.sum(speed), middle), speed.size - 1)
    last = np.append(device[1:] != device[:-1], True)
    return float(np.sum(work / speed[device]) + np.sum(bits[last] / bandwidth[device[last]]) + table_overhead)


def intra_layer(env: NeuronAllocation, params: Params, keys: Array) -> Float[np.ndarray, " episode"]:
    """Each layer divided among the devices by shortest completion: DeColla's mechanism without learning.

    Args:
        env: The environment.
        params: The scenario.
        keys: Keys `[episode]`.
    """
    return np.asarray(play_episodes(env, params, baselines(env)["Shortest completion"], params, keys).latency)
