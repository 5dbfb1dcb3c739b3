"""Policies of `PartitionGame-v0` that need no learning."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mec_jax.contracts import Policy
from mec_jax.envs.partition_game import Params, PartitionGame
from mec_jax.solvers.partition_game.heuristics import best_response, ogreedy
from mec_jax.solvers.policies import for_env


def random(env: PartitionGame, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """Any cut that fits, each as likely."""
    fits = env.action_mask(observation, params)["action"]
    return jax.random.categorical(key, jnp.where(fits, 0.0, -jnp.inf)).astype(jnp.int32)


def local(env: PartitionGame, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """All on the device, y = K: IMPALA."""
    return jnp.asarray(env.num_cuts, jnp.int32)


def greedy(env: PartitionGame, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """IGreedy: a newcomer takes its best response, and keeps it."""
    now = env.situation(observation, params)
    return jnp.where(
        now.fresh[now.turn], best_response(now.game, now.allocation, now.turn), now.allocation.cut[now.turn]
    )


def responsive(env: PartitionGame, params: Params, observation: Array, key: Array) -> Int[Array, ""]:
    """Each device takes its best response whenever it is its turn."""
    now = env.situation(observation, params)
    return best_response(now.game, now.allocation, now.turn)


def planned(
    by: Literal["density", "utility"], env: PartitionGame, params: Params, observation: Array, key: Array
) -> Int[Array, ""]:
    """Each device takes its cut in the offline greedy plan for all that are there; until there is room for it, its best
    response.
    """
    now = env.situation(observation, params)
    cut = ogreedy(now.game, now.allocation.present, by).cut[now.turn]
    fits = env.action_mask(observation, params)["action"]
    return jnp.where(fits[cut], cut, best_response(now.game, now.allocation, now.turn))


@cache
def baselines(env: PartitionGame) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["IGreedy"], params, keys)`.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named: dict[str, Callable[[PartitionGame, Params, Array, Array], Int[Array, ""]]] = {
        "Random": random,
        "Local": local,
        "IGreedy": greedy,
        "Best responses": responsive,
        "OGreedy plan, density": partial(planned, "density"),
        "OGreedy plan, utility": partial(planned, "utility"),
    }
    return for_env(env, named)
