"""What neuron allocation and neuron sharing have in common: heuristics, and what a layer takes at least."""

import itertools
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mec_jax.contracts import Episodes, Policy
from mec_jax.envs.neurons import NeuronParams, NeuronProblem
from mec_jax.physics.neuron_allocation import (
    Channels,
    Devices,
    Pieces,
    Queue,
    after_submission,
    empty_queue,
    plan,
    submit,
)
from mec_jax.solvers.policies import for_env

BOUND_ASSIGNMENTS = 1000
"""Assignments of a layer up to which a bound tries all of them."""


def random(env: NeuronProblem, params: NeuronParams, observation: Array, key: Array) -> Int[Array, ""]:
    """Any device that is there, each as likely: the paper's Random."""
    present = env.action_mask(observation, params)["action"]
    return jax.random.categorical(key, jnp.where(present, 0.0, -jnp.inf)).astype(jnp.int32)


def average(env: NeuronProblem, params: NeuronParams, observation: Array, key: Array) -> Int[Array, ""]:
    """Each device that is there in turn, over the layers, for each requester apart: the paper's Average."""
    now = env.situation(observation, params)
    turn = (now.layer * env.num_pieces + now.piece) % jnp.maximum(jnp.sum(now.present), 1)
    return jnp.argmax(jnp.cumsum(now.present) > turn).astype(jnp.int32)


def least(env: NeuronProblem, params: NeuronParams, observation: Array, key: Array) -> Int[Array, ""]:
    """The device with the most free FLOP/s, whatever waits there: the paper's Least."""
    now = env.situation(observation, params)
    return jnp.argmax(jnp.where(now.present, now.speed, -1)).astype(jnp.int32)


def shortest_completion(env: NeuronProblem, params: NeuronParams, observation: Array, key: Array) -> Int[Array, ""]:
    """The device that would return the piece first, what waits there included: failures are not foreseen.

    On other media than private links that is an estimate: the input is sent after `down`, computed after `cpu`, and the
    output sent after both that and `up` of the pieces so far, which the piece itself may delay.
    """
    now = env.situation(observation, params)
    devices = Devices(now.speed, now.bandwidth, jnp.full(env.num_slots, jnp.inf))
    time = jnp.zeros_like(params.reference_speed)
    after = after_submission(now.queue, devices, env.pieces(now.layer, params), now.piece, time, params.resend_input)
    return jnp.argmin(jnp.where(now.present, after.up, jnp.inf)).astype(jnp.int32)


@cache
def baselines(env: NeuronProblem) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["Least"], params, keys)`.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named = {"Random": random, "Average": average, "Least": least, "Shortest completion": shortest_completion}
    return for_env(env, named)


def position_times(
    pieces: Pieces, devices: Devices, resend: Bool[Array, ""], decision_time: Float[Array, ""]
) -> Float[Array, "device position"]:
    """When a device would return its first, second, ... piece if it had only copies of the smallest one.

    On a private link. Infinite for absent devices; s after the start of the layer. Increasing along positions.

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
    channels: Channels | None = None,
) -> Float[Array, " assignment"]:
    """Sums of slowdowns of a layer while no device fails; infinite where an absent device is used.

    Args:
        device: Of each piece.
        pieces: Of the layer.
        devices: All of them.
        resend: As in `position_times`.
        decision_time: As in `position_times`.
        reference_speed: FLOP/s, F_ref.
        channels: Which carries what; private links if absent.
    """

    def slowdown(device: Int[Array, " piece"]) -> Float[Array, ""]:
        if channels is not None:
            time = (jnp.arange(device.size) + 1) * decision_time
            _, completion = plan(devices, pieces, device, time, resend, channels)
            every = jnp.where(devices.failure[device] > 0, completion, jnp.inf) * reference_speed / pieces.flops
            return jnp.sum(jnp.where(pieces.flops > 0, every, 0))

        def assign(queue: Queue, piece: Int[Array, ""]) -> tuple[Queue, Float[Array, ""]]:
            after = after_submission(queue, devices, pieces, piece, (piece + 1) * decision_time, resend)
            chosen = device[piece]
            taken = jnp.where(devices.failure[chosen] > 0, after.up[chosen], jnp.inf)
            flops = pieces.flops[piece]
            return submit(queue, after, chosen), jnp.where(flops > 0, taken * reference_speed / flops, 0)

        start = empty_queue(devices.speed.size, devices.speed.dtype)
        return jnp.sum(jax.lax.scan(assign, start, jnp.arange(device.size))[1])

    return jax.vmap(slowdown)(device)


class LayerBound(NamedTuple):
    """What a layer takes at least."""

    earliest: Float[Array, " piece"]  # s, C_1 <= C_2 <= ...: least position times of all devices
    least_weight: Float[Array, ""]  # 1/s, 1 / T_(n) of the largest piece
    cost: Float[Array, ""]  # sum of C_i / T_(i)
    best: Float[Array, ""]  # that of the best assignment if no device fails; the cost if not all are tried
    with_losses: Float[Array, ""]  # if pieces may be lost: sum of min(C_i / T_(n), lost_slowdown)


def layer_bound(
    env: NeuronProblem,
    layer: Int[Array, ""],
    devices: Devices,
    params: NeuronParams,
    channels: Channels | None = None,
) -> LayerBound:
    """What a layer takes at least on devices that are idle at its start.

    All assignments are tried where there are at most `BOUND_ASSIGNMENTS`.

    Args:
        env: The environment; static.
        layer: Which.
        devices: All of them.
        params: The environment's parameters.
        channels: On which assignments are tried; private links if absent.
    """
    pieces = env.pieces(layer, params)
    times = position_times(pieces, devices, params.resend_input, params.decision_time)
    earliest = jnp.sort(times.reshape(-1))[: env.num_pieces]
    exists = pieces.flops > 0
    weight = jnp.where(exists, params.reference_speed / jnp.where(exists, pieces.flops, 1), 0)
    least_weight = jnp.min(jnp.where(exists, weight, jnp.inf))
    cost = best = jnp.sum(jnp.where(exists, earliest * weight, 0))
    if env.num_slots**env.num_pieces <= BOUND_ASSIGNMENTS:
        every = jnp.asarray(all_assignments(env.num_slots, env.num_pieces))
        settings = (pieces, devices, params.resend_input, params.decision_time, params.reference_speed)
        best = jnp.min(assignment_slowdowns(every, *settings, channels))
    with_losses = jnp.sum(jnp.where(exists, jnp.minimum(earliest * least_weight, params.lost_slowdown), 0))
    return LayerBound(earliest, least_weight, cost, best, with_losses)


def may_lose(devices: Devices) -> Bool[Array, ""]:
    """Whether pieces can be lost: every device fails that is there."""
    return jnp.all(jnp.isfinite(devices.failure))


def some_fail(devices: Devices) -> Bool[Array, ""]:
    """Whether a device fails that is there."""
    return jnp.any((devices.failure > 0) & jnp.isfinite(devices.failure))


def all_assignments(num_devices: int, num_pieces: int) -> np.ndarray:
    """Every assignment of pieces to devices, [assignment, piece]."""
    return np.array(list(itertools.product(range(num_devices), repeat=num_pieces)), np.int32)


def bound_episodes(
    env: NeuronProblem,
    params: NeuronParams,
    slowdown: Float[Array, " episode"],
    latency: Float[Array, " episode"],
    names: tuple[str, ...],
) -> Episodes:
    """Episodes of which only slowdown and latency are bounded.

    Args:
        env: The environment.
        params: Its parameters.
        slowdown: Least sum over the pieces.
        latency: s.
        names: Of measures that are at least 0.
    """
    decisions = env.num_decisions(params)
    return Episodes(
        episode_return=-slowdown / params.reference_slowdown,
        frames=jnp.broadcast_to(decisions, slowdown.shape),
        terminated=jnp.ones(slowdown.shape, bool),
        measures={
            "slowdown": slowdown / decisions,
            "latency": latency,
            **{name: jnp.zeros_like(slowdown) for name in names},
        },
    )
