"""Baselines of `CompressedInference` that decide from what they see: those that search nothing."""

from collections.abc import Mapping
from functools import cache

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from mec_jax.contracts import Policy
from mec_jax.envs.compressed_inference import CHOICES, OFF, CompressAction, CompressedInference, Params
from mec_jax.physics.compression import Strategy, canonical, unit_cube_of
from mec_jax.profiles.compression import SETTINGS
from mec_jax.solvers.policies import for_env

__all__ = ["actions_of", "baselines"]


def random(env: CompressedInference, params: Params, observation: Array, key: Array) -> CompressAction:
    """Numbers that are uniform, and choices that are uniform among those allowed."""
    action: CompressAction = env.action_space(params).sample(key)
    masks = env.action_mask(observation, params)
    keys = jax.random.split(jax.random.fold_in(key, 1), len(masks))
    chosen = {
        name: jax.random.categorical(one, jnp.where(mask, 0, -jnp.inf)).astype(jnp.int32)
        for (name, mask), one in zip(masks.items(), keys, strict=True)
    }
    return action._replace(**chosen)


def all_local(env: CompressedInference, params: Params, observation: Array, key: Array) -> CompressAction:
    """The device runs the network as it was; where that is not allowed, as much of it as may be."""
    allowed = env.action_mask(observation, params)["cut"]
    return _untouched(env, observation, allowed.shape[0] - 1 - jnp.argmax(allowed[::-1]))


def all_server(env: CompressedInference, params: Params, observation: Array, key: Array) -> CompressAction:
    """The server runs the network as it was; where that is not allowed, as much of it as may be."""
    return _untouched(env, observation, jnp.argmax(env.action_mask(observation, params)["cut"]))


def neurosurgeon(env: CompressedInference, params: Params, observation: Array, key: Array) -> CompressAction:
    """The best cut of the network as it was, read off the latencies that are seen."""
    (seen,) = env.table.split(observation)
    allowed = env.action_mask(observation, params)["cut"]
    return _untouched(env, observation, jnp.argmin(jnp.where(allowed, seen["latency"], jnp.inf)))


def _untouched(env: CompressedInference, observation: Array, cut: Int[Array, ""]) -> CompressAction:
    """Nothing pruned in a step that prunes, all sent as it is in the last one, and that cut."""
    choices = {name: jnp.array(place, jnp.int32) for name, place in OFF.items()}
    due, _ = env.situation(observation)
    share = jnp.where(due == env.num_decisions - 1, 1.0, 0.0)
    return CompressAction(cut=cut.astype(jnp.int32), **choices, amount=share, width=jnp.ones(()))


def actions_of(env: CompressedInference, strategy: Strategy) -> CompressAction:
    """The actions, [decision] each, that decide on a strategy of this suite's space: its canonical form comes of
    them but for rounding.
    """
    strategy = canonical(env.costs, strategy)
    units, names = env.num_units, [setting.name for setting in SETTINGS]
    point = unit_cube_of(env.costs, strategy)
    packed = dict(zip(names, point[units + 1 :], strict=True))
    flat = env.costs.flat[strategy.cut]
    number = jnp.arange(env.num_decisions)

    def at_last(value: Array, before: Array | int) -> Array:
        return jnp.where(number == units + 1, value, before)

    share, bits = (jnp.where(flat, packed[f"linear_{name}"], packed[f"conv_{name}"]) for name in ("share", "bits"))
    chosen = {
        "kernel": packed["conv_kernel"],
        "stride": packed["conv_stride"],
        "layers": packed["linear_layers"],
        "bits": bits,
    }
    first = jnp.zeros(env.num_decisions, int)
    return CompressAction(
        amount=at_last(share, jnp.append(point[:units], jnp.zeros(2))),
        width=at_last(packed["linear_width"], jnp.zeros(env.num_decisions)),
        cut=jnp.where(number == units, strategy.cut, first).astype(jnp.int32),
        **{
            name: at_last(jnp.floor(place * len(CHOICES[name])), OFF[name]).astype(jnp.int32)
            for name, place in chosen.items()
        },
    )


@cache
def baselines(env: CompressedInference) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["Neurosurgeon"], params, keys)`.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named = {"Random": random, "All_Local": all_local, "All_Server": all_server, "Neurosurgeon": neurosurgeon}
    return for_env(env, named)
