"""Policies of `MultiUEOffloading-v0` that need no search: baselines of Hao et al. 2022, constant actions, rotations."""

from collections.abc import Mapping
from functools import cache, partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mec_jax.contracts import Policy
from mec_jax.envs.offloading import MIN_POWER, MultiUEOffloading, OffloadAction, Params, State, seen
from mec_jax.episodes import start_key
from mec_jax.solvers.policies import for_env


def local(env: MultiUEOffloading, params: Params, observation: Array, key: Array) -> OffloadAction:
    """Every UE runs the whole network itself."""
    ue = jnp.zeros(env.num_ues, jnp.int32)
    return OffloadAction(ue + env.num_points - 1, ue, jnp.full_like(params.power_max, MIN_POWER))


def all_edge(env: MultiUEOffloading, params: Params, observation: Array, key: Array) -> OffloadAction:
    """Every UE sends its raw input at full power, the UEs spread over the channels in turn."""
    ue = jnp.arange(env.num_ues, dtype=jnp.int32)
    return OffloadAction(jnp.zeros_like(ue), ue % env.num_channels, params.power_max)


def uniform(env: MultiUEOffloading, params: Params, observation: Array, key: Array) -> OffloadAction:
    """A uniform draw from the action space in every frame."""
    return env.action_space(params).sample(key)


def static(action: OffloadAction, observation: Array, key: Array) -> OffloadAction:
    """The same action in every frame: a policy whose parameters are that action."""
    return action


def rotate(table: OffloadAction, observation: Array, key: Array) -> OffloadAction:
    """Slot s of the table `[slot]` for the UE with the s-th largest share of its tasks left.

    The UEs take turns in good and poor slots, and so finish together.
    """
    rank = jnp.argsort(jnp.argsort(-seen(observation).tasks_left))
    return jax.tree.map(lambda x: x[rank], table)


@cache
def baselines(env: MultiUEOffloading) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["Local"], params, keys)`.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    return for_env(env, {"Local": local, "All-edge": all_edge, "Random": uniform})


@partial(jax.jit, static_argnames="env")
def start_state(env: MultiUEOffloading, params: Params, key: Array) -> State:
    """State in which `play_episode` starts the episode with this key."""
    return env.reset_env(start_key(key)[1], params)[1]
