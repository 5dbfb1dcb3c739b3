"""Playing environments side by side, and what their rewards are worth."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from algos.devices import lane_sum, over_lanes, shared

type Scalar = float | Float[Array, ""]


class Transition(NamedTuple):
    """One frame of one environment."""

    observation: PyTree
    final_observation: PyTree  # the next one, before any auto-reset
    action: PyTree  # as drawn from the policy's distribution
    log_prob: PyTree
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    done: Bool[Array, ""]  # terminated or truncated


class Ended(NamedTuple):
    """Episodes that ended within a rollout."""

    return_sum: Float[Array, "*device"]  # of one frame a part for each, of a rollout in all
    episodes: Int[Array, "*device"]

    def mean_return(self) -> Float[Array, ""]:
        """NaN if none ended."""
        return jnp.where(self.episodes > 0, self.return_sum / self.episodes, jnp.nan)


type Running = tuple[PyTree, PyTree, Float[Array, " env"]]
"""State, observation and return so far of the environments side by side."""


def start(env: Any, env_params: PyTree, key: Array, num_envs: int) -> Running:
    """Reset `num_envs` environments."""
    observation, env_state = over_lanes(env.reset, (0, None))(jax.random.split(key, num_envs), env_params)
    return env_state, observation, jnp.zeros(num_envs)


def play(
    env: Any,
    env_params: PyTree,
    act: Callable[[PyTree, Array], tuple[PyTree, PyTree, PyTree]],
    running: Running,
    key: Array,
    length: int,
) -> tuple[Running, Transition, Ended]:
    """Go on with the environments, each for `length` frames; those whose episode ends begin another.

    Args:
        env: A gymnax environment.
        env_params: Its parameters.
        act: `(observations [env], key) -> (what env.step takes, action, log-probability)`, all [env].
        running: The environments.
        key: Of all that is random.
        length: Frames.

    Returns:
        The environments afterwards, transitions [frame, env], and what ended.
    """
    num_envs = running[2].shape[0]

    def frame(running: Running, key: Array) -> tuple[Running, tuple[Transition, Ended]]:
        env_state, observation, episode_return = running
        action_key, step_key = jax.random.split(key)
        given, action, log_prob = act(observation, action_key)
        next_observation, env_state, reward, terminated, truncated, info = over_lanes(env.step, (0, 0, 0, None))(
            jax.random.split(step_key, num_envs), env_state, given, env_params
        )
        done = terminated | truncated
        transition = Transition(observation, info["final_observation"], action, log_prob, reward, terminated, done)
        episode_return = episode_return + reward
        ended = Ended(lane_sum(jnp.where(done, episode_return, 0)), lane_sum(done))
        return (env_state, next_observation, jnp.where(done, 0, episode_return)), (transition, ended)

    running, (transitions, ended) = jax.lax.scan(frame, shared(running), jax.random.split(key, length))
    return running, transitions, Ended(*(jnp.sum(x) for x in ended))


def discounted_sum(
    delta: Float[Array, "frame env"], decay: Scalar, done: Bool[Array, "frame env"]
) -> Float[Array, "frame env"]:
    """Sum of `delta` from each frame on, discounted by `decay` a frame, up to the end of its episode."""
    goes_on = 1.0 - done

    def step(carry: Array, x: tuple) -> tuple[Array, Array]:
        carry = x[0] + decay * x[1] * carry
        return carry, carry

    return jax.lax.scan(step, jnp.zeros_like(delta[0]), (delta, goes_on), reverse=True)[1]


def gae(
    transitions: Transition,
    value: Float[Array, "frame env"],
    next_value: Float[Array, "frame env"],
    gamma: Scalar,
    gae_lambda: Scalar,
) -> Float[Array, "frame env"]:
    """Generalised advantage estimates (Schulman et al. 2016).

    A terminated episode is worth nothing more; a truncated one is bootstrapped from its final observation, and no
    sum runs over the end of an episode.

    Args:
        transitions: [frame, env].
        value: Of their observations.
        next_value: Of their final observations.
        gamma: Discount a frame.
        gae_lambda: Between the one-step estimate (0) and the Monte-Carlo return (1).
    """
    next_value = jnp.where(transitions.terminated, 0, next_value)
    delta = transitions.reward + gamma * next_value - value
    return discounted_sum(delta, gamma * gae_lambda, transitions.done)
