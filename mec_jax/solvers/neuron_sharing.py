"""Baselines and a bound of devices that several requesters share (`mec_jax.envs.neuron_sharing`)."""

import itertools
from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mec_jax.envs.neuron_sharing import NeuronSharing, Params
from mec_jax.evaluation import Column, Episodes, Policy, play_episodes
from mec_jax.physics.neuron_allocation import Devices, after_submission
from mec_jax.solvers.neuron_allocation import BOUND_ASSIGNMENTS, assignment_slowdowns, position_times

# Policies


def random(env: NeuronSharing, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """Any device that is there, each as likely: the paper's Random."""
    present = env.action_mask(observation, params)["action"]
    return jax.random.categorical(key, jnp.where(present, 0.0, -jnp.inf)).astype(jnp.int32)


def average(env: NeuronSharing, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """Each requester takes the devices that are there in turn, over its layers: the paper's Average."""
    now = env.situation(observation, params)
    turn = (now.layer * env.num_pieces + now.piece) % jnp.maximum(jnp.sum(now.present), 1)
    return jnp.argmax(jnp.cumsum(now.present) > turn).astype(jnp.int32)


def least(env: NeuronSharing, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """The device with the most free FLOP/s, whatever waits there: the paper's Least."""
    now = env.situation(observation, params)
    return jnp.argmax(jnp.where(now.present, now.speed, -1)).astype(jnp.int32)


def shortest_completion(env: NeuronSharing, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """The device that would return the piece first, what others wait for there included."""
    now = env.situation(observation, params)
    devices = Devices(now.speed, now.bandwidth, jnp.full(env.num_devices, jnp.inf))
    time = jnp.zeros_like(params.reference_speed)
    after = after_submission(now.queue, devices, env.pieces(now.layer, params), now.piece, time, params.resend_input)
    return jnp.argmin(jnp.where(now.present, after.up, jnp.inf)).astype(jnp.int32)


@cache
def baselines(env: NeuronSharing) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["Least"], params, keys)`.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named = {"Random": random, "Average": average, "Least": least, "Shortest completion": shortest_completion}
    return MappingProxyType({name: partial(policy, env) for name, policy in named.items()})


COLUMNS = (
    Column("slowdown", "slowdown", digits=2),
    Column("ms", "latency", 1e3),
    Column("variance of use", "use_variance", digits=4),
    Column("lost", "lost", digits=3),
)
"""Measures in a table: mean slowdown of a piece, latency of an inference, device use, pieces without a result."""


def rulers(env: NeuronSharing, params: Params, keys: Array) -> dict[str, Episodes]:
    """Episodes of the baselines and the bound.

    Args:
        env: The environment.
        params: The scenario.
        keys: Keys `[episode]`.
    """
    played = {name: play_episodes(env, params, policy, params, keys) for name, policy in baselines(env).items()}
    return played | {"Lower bound": bound(env, params, keys)}


# The bound of whole episodes


def bound(env: NeuronSharing, params: Params, keys: Array) -> Episodes:
    """What no policy exceeds in return, in the episodes of the keys.

    Proof. Let R requesters go through L layers. C_1 <= C_2 <= ... <= C_n are, for a layer of n pieces, the least of
    the position times of `mec_jax.solvers.neuron_allocation.position_times`, counted from the layer's start, of all
    devices that were there at the first request; T_(1) <= ... <= T_(n) are the ideal times of its pieces.

    (1) A requester's layer costs at least B_l = sum of C_i / T_(i) if all its pieces get a result. If it had idle
    devices for itself alone, this is (1) of `mec_jax.solvers.neuron_allocation.bound`. What others submit, and that a
    device has failed, takes nothing from any time: completion times of a first in, first out chain never shrink if it
    is not empty at first, or if other pieces come between. For the same reason it costs at least the best of all
    assignments of an idle layer, A_l, if no device fails; so the cost of an episode is at least R * sum of A_l.

    (2) If the layer lasts D, its last result comes at D >= C_n and the others as in (1), so that it costs at least
    B_l + (D - C_n) / T_(n), by the rearrangement inequality. Layers of a requester follow one another without a gap:
    its latency is the sum of its D. So it costs at least sum of B_l + (latency - sum of C_n) / T, with T the largest
    T_(n) of all layers, and all requesters together R * sum of B_l + (sum of latencies - R * sum of C_n) / T.

    (3) The k-th requester to finish does so no earlier than the devices can do the work W of k networks together, k W
    / sum of speeds, after the first request, or than its arrival and the sum of C_n. So the sum of latencies is at
    least that of k W / sum of speeds, less that of the arrivals, and at least R * sum of C_n.

    (4) Pieces can be lost only if every device fails that is there. Then a layer costs at least the sum of
    min(C_i / T_(n), lost_slowdown), by (3) of `mec_jax.solvers.neuron_allocation.bound`.

    The bound is the best of what holds, as is its latency: the mean of (3), or 0 if pieces can be lost. To rounding
    errors, some 1e-5 of the cost. It is exact for one requester where no device fails and layers have at most
    `BOUND_ASSIGNMENTS` assignments; with more it leaves out most of what waiting for one another costs.

    Args:
        env: The environment; static.
        params: Its parameters; traced.
        keys: Keys `[episode]`, as for `play_episodes`.
    """
    exact = env.num_devices**env.num_pieces <= BOUND_ASSIGNMENTS
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
            "use_variance": nothing,
            "reassigned": nothing,
            "lost": nothing,
        },
    )


@partial(jax.jit, static_argnames=("env", "exact"))
def _episode_bounds(
    env: NeuronSharing, exact: bool, params: Params, keys: Array
) -> tuple[Float[Array, " episode"], Float[Array, " episode"]]:
    """Least sums of slowdowns, and mean latencies (s)."""
    counts = jnp.minimum(params.neurons, env.num_pieces)
    every = (
        np.array(list(itertools.product(range(env.num_devices), repeat=env.num_pieces)), np.int32) if exact else None
    )
    requesters = env.num_requesters

    def layer_bound(layer: Int[Array, ""], devices: Devices) -> tuple[Array, ...]:
        pieces = env.pieces(layer, params)
        times = position_times(pieces, devices, params.resend_input, params.decision_time)
        earliest = jnp.sort(times.reshape(-1))[: env.num_pieces]
        exists = pieces.flops > 0
        weight = jnp.where(exists, params.reference_speed / jnp.where(exists, pieces.flops, 1), 0)
        least_weight = jnp.min(jnp.where(exists, weight, jnp.inf))
        cost = jnp.sum(jnp.where(exists, earliest * weight, 0))
        best = cost
        if every is not None:
            settings = (pieces, devices, params.resend_input, params.decision_time, params.reference_speed)
            best = jnp.min(assignment_slowdowns(jnp.asarray(every), *settings))
        with_losses = jnp.sum(jnp.where(exists, jnp.minimum(earliest * least_weight, params.lost_slowdown), 0))
        return cost, best, with_losses, earliest[counts[layer] - 1], least_weight

    def episode(key: Array) -> tuple[Array, Array]:
        context = env.context(jax.random.split(key)[1], params)  # the key that `play_episodes` resets with
        devices = env.devices(context, params)
        bounds = jax.lax.map(lambda layer: layer_bound(layer, devices), jnp.arange(env.num_layers))
        cost, best, with_losses, duration, weight = bounds
        work = jnp.sum(params.neurons * params.neuron_flops)
        speed = jnp.sum(jnp.where(devices.failure > 0, devices.speed, 0))
        arrivals = params.arrival_gap * jnp.arange(requesters)
        least_latencies = requesters * jnp.sum(duration)
        latencies = jnp.maximum(least_latencies, jnp.sum(jnp.arange(1, requesters + 1) * work / speed - arrivals))
        crowded = requesters * jnp.sum(cost) + (latencies - least_latencies) * jnp.min(weight)
        fails = jnp.any((devices.failure > 0) & jnp.isfinite(devices.failure))
        total = jnp.where(fails, crowded, jnp.maximum(crowded, requesters * jnp.sum(best)))
        may_lose = jnp.all(jnp.isfinite(devices.failure))
        total = jnp.where(may_lose, requesters * jnp.sum(with_losses), total)
        return total, jnp.where(may_lose, 0, latencies / requesters)

    return jax.lax.map(episode, keys, batch_size=16)
