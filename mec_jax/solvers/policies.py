"""What the baselines of all problems have in common."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from jaxtyping import Array, PyTree

from mec_jax.contracts import Episodes, Policy
from mec_jax.episodes import Playable, play_episodes


def for_env[E](env: E, named: Mapping[str, Callable[[E, PyTree, Array, Array], PyTree]]) -> Mapping[str, Policy]:
    """Policies `(env, params, observation, key) -> action` as those of one environment, whose parameters they read."""
    return MappingProxyType({name: partial(policy, env) for name, policy in named.items()})


def play_each[S, P, A](
    env: Playable[S, P, A], params: P, policies: Mapping[str, Policy], keys: Array
) -> dict[str, Episodes]:
    """Episodes of all policies by name, with the environment's parameters for theirs."""
    return {name: play_episodes(env, params, policy, params, keys) for name, policy in policies.items()}
