"""One protocol for keys and episodes: which keys are played, and how an episode splits its own.

Whatever else follows an episode - a bound of it, a plan for it, a recording - takes `start_key` and `step_keys` from
here, so that all describe the same episodes.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, PyTree

from mec_jax.contracts import Episodes, Policy
from mec_jax.spaces import contains

__all__ = [
    "EVALUATION_SEED",
    "PROTOCOL",
    "Episodes",
    "Policy",
    "evaluation_keys",
    "play_episode",
    "play_episodes",
    "start_key",
    "step_keys",
]

PROTOCOL = 1
"""Version of the protocol: of scenarios (`Problem.evaluation_params`), keys and statistics. Scores of different
versions do not compare.
"""

EVALUATION_SEED = 2022
"""Seed of `evaluation_keys`."""

type PlainPolicy = Callable[[Array, Array], PyTree]
"""`policy(observation, key) -> action` of one episode."""


class Playable[S, P, A](Protocol):
    """What is played: a `Problem`, or what stands in for one."""

    def bounded(self, params: P) -> P:
        """As of a `Problem`, like all that follows: the parameters as they count."""

    def action_space(self, params: P) -> spaces.Space:
        """What `step_env` takes."""

    def reset_env(self, key: Array, params: P) -> tuple[Array, S]:
        """The start of an episode."""

    def step_env(
        self, key: Array, state: S, action: A, params: P
    ) -> tuple[Array, S, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        """A step."""

    def is_truncated(self, state: S, params: P) -> Bool[Array, ""]:
        """Whether the episode is cut off."""

    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: P) -> dict[str, Array]:
        """What an episode cost."""


def evaluation_keys(num_episodes: int) -> Array:
    """Keys `[episode]` of the protocol; more episodes extend fewer."""
    key = jax.random.key(EVALUATION_SEED, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_episodes))


def start_key(key: Array) -> tuple[Array, Array]:
    """Of an episode's key: the key that goes on, and the one that it is reset with."""
    key, reset_key = jax.random.split(key)
    return key, reset_key


def step_keys(key: Array) -> tuple[Array, Array, Array]:
    """Of the key that goes on: the next one, and those of the policy and of the environment in this step."""
    key, policy_key, step_key = jax.random.split(key, 3)
    return key, policy_key, step_key


@partial(jax.jit, static_argnames=("env", "policy"))
def play_episodes[S, P, A](
    env: Playable[S, P, A], params: P, policy: Policy, policy_params: PyTree, keys: Array
) -> Episodes:
    """Play one whole episode per key, all at once, to termination or truncation.

    An episode depends on its key alone, not on those beside it. (To float tolerance: another batch size
    changes the order of float sums, and that can in rare cases move an event over the end of a frame.)

    `Episodes.outside` counts the actions that are outside their space (`mec_jax.spaces.contains`): the environments of
    the suite clip them, and refuse a choice that is no whole number by its type.

    Args:
        env: The environment; static.
        params: Its parameters; traced.
        policy: `(policy_params, observation, key) -> action` of one episode; static.
        policy_params: What the policy reads; traced.
        keys: Typed keys `[episode]`, e.g. `evaluation_keys(16)`.
    """
    return jax.vmap(lambda key: play_episode(env, params, policy, policy_params, key))(keys)


def play_episode[S, P, A](
    env: Playable[S, P, A],
    params: P,
    policy: Policy,
    policy_params: PyTree,
    key: Array,
    goes_on: Callable[[Episodes], Bool[Array, ""]] | None = None,
) -> Episodes:
    """Play one whole episode; `play_episodes` for one key, to be mapped and compiled by the caller.

    Args:
        env: As in `play_episodes`.
        params: As in `play_episodes`.
        policy: As in `play_episodes`.
        policy_params: As in `play_episodes`.
        key: Key of the episode.
        goes_on: Ends the episode early when it turns false of the episode so far.
    """

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        so_far, state = carry[0], carry[2]
        more = ~(so_far.terminated | env.is_truncated(state, params))
        return more if goes_on is None else more & goes_on(so_far)

    def frame(carry: tuple) -> tuple:
        so_far, observation, state, key = carry
        key, policy_key, step_key = step_keys(key)
        action = policy(policy_params, observation, policy_key)
        observation, state, reward, terminated, info = env.step_env(step_key, state, action, params)
        frames = so_far.frames + 1
        outside = so_far.outside + ~contains(space, action)
        total, measures = so_far.episode_return + reward, env.measures(info, frames, params)
        return Episodes(total, frames, terminated, measures, outside), observation, state, key

    params = env.bounded(params)
    space = env.action_space(params)
    key, reset_key = start_key(key)
    observation, state = env.reset_env(reset_key, params)
    none = jnp.zeros((), jnp.int32)
    blank = Episodes(jnp.zeros(()), none, jnp.zeros((), bool), {}, none)
    shapes = jax.eval_shape(lambda start: frame(start)[0], (blank, observation, state, key))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.while_loop(unfinished, frame, (nothing, observation, state, key))[0]
