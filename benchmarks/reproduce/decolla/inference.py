"""Inferences by DeColla's mechanism in the suite's environments, as any policy allocates them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.reproduce.decolla.readings import DEVICE_SPEED, MBPS, USAGE, Reading
from mec_jax.contracts import Policy
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.envs.neuron_sharing import NeuronSharing

type Given = Callable[[Any], Any]
"""What a policy reads, of the environment's parameters."""


class Alone(NamedTuple):
    """One request at several points."""

    latency: np.ndarray  # [point] s
    variance: np.ndarray  # [point] of the part of the time in which each device computes


class Together(NamedTuple):
    """Several requests at once."""

    busy: Any  # [device] s that each computes
    end: Any  # s, of all
    latency: Any  # s, mean over requests


def use_variance(busy: Any, latency: Any) -> np.ndarray:
    """Variance over devices of the part of the time `[...]` in which each computes, busy `[..., device]`."""
    return np.var(np.asarray(busy, float) / np.asarray(latency, float)[..., None], axis=-1)


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of the same structure as one, [tree, ...]."""
    return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), *trees)


def alone(
    env: NeuronAllocation,
    reading: Reading,
    bandwidths: np.ndarray,
    usages: np.ndarray,
    policy: Policy,
    given: Given = lambda params: params,
) -> Alone:
    """Inferences on devices that are alike and always there.

    Args:
        env: The testbed, over any medium.
        reading: What is exchanged.
        bandwidths: bit/s `[point]`.
        usages: Of all devices `[point]`.
        policy: Allocates.
        given: Makes what the policy reads.
    """

    def at(bandwidth: Any, usage: Any) -> Any:
        return env.params(
            bits_per_element=reading.decolla_bits,
            resend_input=reading.resend,
            device_speed=DEVICE_SPEED,
            bandwidth_low=bandwidth,
            bandwidth_high=bandwidth,
            usage_low=usage,
            usage_high=usage,
        )

    points = [at(bandwidth, usage) for bandwidth, usage in zip(bandwidths, usages, strict=True)]
    busy, latency = _alone(env, policy, stacked(points), stacked([given(point) for point in points]))
    return Alone(np.asarray(latency, float), use_variance(busy, latency))


@partial(jax.jit, static_argnames=("env", "policy"))
def _alone(env: NeuronAllocation, policy: Policy, params: Any, reads: Any) -> tuple[Array, Array]:
    """s that each device computes `[point, device]`, and latency (s) `[point]`."""
    decisions = sum(min(neurons, env.num_pieces) for neurons in env.network.neurons)

    def inference(params: Any, reads: Any) -> tuple[Array, Array]:
        observation, state = env.reset_env(jax.random.key(0), params)

        def step(carry: tuple, key: Array) -> tuple[tuple, Array]:
            observation, state, busy = carry
            action = policy(reads, observation, key)
            device = env.valid_action(action, state.context.present)
            speed = (1 - state.context.usage) * params.device_speed
            takes = env.pieces(state.layer, params).flops[state.piece] / speed[device]
            observation, state, _reward, _over, info = env.step_env(key, state, action, params)
            return (observation, state, busy.at[device].add(takes)), info["latency"]

        start = (observation, state, jnp.zeros_like(params.device_speed))
        (_, _, busy), latency = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), decisions))
        return busy, latency[-1]

    return jax.vmap(inference)(params, reads)


def together(
    env: NeuronSharing, reading: Reading, policy: Policy, given: Given = lambda params: params, usage: float = USAGE
) -> Together:
    """Several requests at once on devices that are alike.

    Args:
        env: The requesters.
        reading: What is exchanged, and over what bandwidth.
        policy: Allocates.
        given: Makes what the policy reads.
        usage: Of all devices.
    """
    params = env.params(
        usage_low=usage,
        usage_high=usage,
        device_speed=DEVICE_SPEED,
        bandwidth_low=reading.bandwidth * MBPS,
        bandwidth_high=reading.bandwidth * MBPS,
        bits_per_element=reading.decolla_bits,
        resend_input=reading.resend,
    )
    return Together(*(np.asarray(x, float) for x in _together(env, policy, params, given(params))))


@partial(jax.jit, static_argnames=("env", "policy"))
def _together(env: NeuronSharing, policy: Policy, params: Any, reads: Any) -> tuple[Array, Array, Array]:
    key = jax.random.key(0)

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        observation, state = carry
        action = policy(reads, observation, key)
        observation, state, _reward, _over, info = env.step_env(key, state, action, params)
        return (observation, state), info["latency"]

    decisions = env.num_requesters * sum(min(neurons, env.num_pieces) for neurons in env.network.neurons)
    (_, state), latency = jax.lax.scan(step, env.reset_env(key, params), length=decisions)
    return state.sharing.busy, jnp.max(state.sharing.completion), latency[-1]
