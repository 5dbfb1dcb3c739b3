"""The actor that PPO and DRL-ES train: one network for all parts of an action, and one distribution for them."""

from functools import partial
from typing import Any, NamedTuple, Protocol, cast

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from algos.distributions import heads_of, hybrid, to_action
from algos.networks import ACTIVATIONS, StackedDense, init_parameters
from algos.normalise import Moments, standardise
from mec_jax.evaluation import Policy


class ActorConfig(Protocol):
    """The fields of a trainer's `Config` that an actor depends on."""

    @property
    def trunk(self) -> tuple[int, ...]:
        """Hidden layers."""

    @property
    def activation(self) -> str:
        """Of `algos.networks.ACTIVATIONS`."""

    @property
    def per_slot(self) -> bool:
        """Score each slot by one network that all slots share."""

    @property
    def normalise_observation(self) -> bool:
        """By running moments."""


class Slots(NamedTuple):
    """An observation made of features of the whole, and then of each slot that can be chosen."""

    common: int  # features of the whole
    slots: int
    features: int  # of each slot

    def each(self, x: Float[Array, "batch observation"]) -> Float[Array, "row features"]:
        """What the network that the slots share reads, a row for each slot of each observation."""
        batch = x.shape[0]
        own = x[:, self.common :].reshape(batch, self.slots, self.features)
        common = jnp.broadcast_to(x[:, None, : self.common], (batch, self.slots, self.common))
        return jnp.concatenate([common, own], axis=-1).reshape(batch * self.slots, -1)


class Constant(nn.Module):
    """Numbers that no input changes."""

    features: int

    @nn.compact
    def __call__(self) -> Float[Array, " features"]:
        """The numbers."""
        return self.param("bias", nn.initializers.zeros, (self.features,))


class Actor(nn.Module):
    """Network outputs of an action's parts, and the logarithms of the Gaussians' standard deviations.

    Parameters are `trunk_I` and `head`, each with a `kernel` [1, inputs, outputs] and a `bias` [1, outputs], and
    `log_std` with a `bias` if there are Gaussians. With `slots`, the network reads one slot and puts out its logit.
    """

    trunk: tuple[int, ...]
    num_outputs: int
    num_gaussians: int
    activation: str
    slots: Slots | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch observation"]) -> tuple[Float[Array, "batch output"], Array]:
        """Outputs for all parts, one after the other, and the logarithms."""
        batch = x.shape[0]
        if self.slots is not None:
            x = self.slots.each(x)
        for i, features in enumerate(self.trunk):
            x = ACTIVATIONS[self.activation](StackedDense(1, features, name=f"trunk_{i}")(x))
        outputs = StackedDense(1, 1 if self.slots else self.num_outputs, name="head")(x)[0].reshape(batch, -1)
        if not self.num_gaussians:  # a checkpoint takes no empty array
            return outputs, jnp.zeros(0)
        return outputs, Constant(self.num_gaussians, name="log_std")()


def make_actor(env: Any, config: ActorConfig) -> Actor:
    """The actor network of `config` for `env`.

    Raises:
        ValueError: If there is no such activation, no distribution for the actions, or they are no slots though
            `per_slot` says so.
    """
    if config.activation not in ACTIVATIONS:
        raise ValueError(f"activation is {config.activation!r}: choose from {', '.join(ACTIVATIONS)}")
    heads = heads_of(env.action_space(env.default_params))
    gaussians = sum(head.num_entries for head in heads if head.kind != "categorical")
    outputs = sum(head.num_outputs for head in heads)
    slots = None
    if config.per_slot:
        if not hasattr(env, "observation_slots"):
            raise ValueError(f"{env.name} has no slots to score: leave out per_slot")
        slots = Slots(*env.observation_slots)
    return Actor(config.trunk, outputs, gaussians, config.activation, slots)


def init_actor(actor: Actor, key: Array, inputs: Float[Array, "batch observation"], log_std: Any = 0.0) -> PyTree:
    """Parameters of an actor that starts nearly uniform."""
    parameters = init_parameters(actor, key, inputs[:1], small=("head",))
    if actor.num_gaussians:
        parameters["params"]["log_std"]["bias"] += log_std
    return parameters


def distribution(
    env: Any,
    env_params: PyTree,
    actor: Actor,
    parameters: PyTree,
    inputs: Float[Array, "batch observation"],
    observation: PyTree,
) -> distrax.Joint:
    """Distribution of raw actions [batch], from what the network reads and, for masks, the observations.

    An environment may have a method `action_mask(observation, params)` that returns, by name of a part of the action,
    which choices are allowed.
    """
    outputs, log_std = cast(tuple[Array, Array], actor.apply(parameters, inputs))
    allowed = getattr(env, "action_mask", None)
    masks = jax.vmap(allowed, in_axes=(0, None))(observation, env_params) if allowed else None
    return hybrid(heads_of(env.action_space(env_params)), outputs, log_std, masks)


def flat(observation: PyTree) -> Float[Array, "batch observation"]:
    """Observations, [batch] of any structure, as one vector each."""
    leaves = [jnp.asarray(x, float) for x in jax.tree.leaves(observation)]
    return jnp.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)


def actor_policy(env: Any, config: ActorConfig, deterministic: bool = False) -> Policy:
    """The policy of a trained actor for `mec_jax.evaluation`.

    Its parameters are `((actor parameters, moments of the observations), env_params)`.
    """
    return partial(_act, env, make_actor(env, config), config.normalise_observation, deterministic)


def _act(
    env: Any, actor: Actor, normalise: bool, deterministic: bool, parameters: tuple, observation: PyTree, key: Array
) -> PyTree:
    actor_params: PyTree
    observed: Moments
    (actor_params, observed), env_params = parameters
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], observation)
    inputs = standardise(observed, flat(batch)) if normalise else flat(batch)
    policy = distribution(env, env_params, actor, actor_params, inputs, batch)
    raw = policy.mode() if deterministic else policy.sample(seed=key)
    return to_action(env.action_space(env_params), tuple(part[0] for part in raw))
