"""The actor that PPO and DRL-ES train: one network for all parts of an action, and one distribution for them."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import distrax
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment
from jaxtyping import Array, Float, PyTree

from algos.distributions import Head, heads_of, hybrid, to_action
from algos.networks import ACTIVATIONS, StackedDense, init_parameters
from algos.normalise import CLIP, Moments, standardise
from mec_jax.contracts import Network, Policy, Problem
from mec_jax.interop.foreign import as_problem
from mec_jax.observations import Slots
from mec_jax.policy import AS_RETURNED
from mec_jax.spaces import NamedTupleSpace


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


def each_slot(slots: Slots, x: Float[Array, "batch observation"]) -> Float[Array, "row features"]:
    """What the network that the slots share reads, a row for each slot of each observation."""
    batch = x.shape[0]
    own = x[:, slots.common :].reshape(batch, slots.slots, slots.features)
    common = jnp.broadcast_to(x[:, None, : slots.common], (batch, slots.slots, slots.common))
    return jnp.concatenate([common, own], axis=-1).reshape(batch * slots.slots, -1)


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
            x = each_slot(self.slots, x)
        for i, features in enumerate(self.trunk):
            x = ACTIVATIONS[self.activation](StackedDense(1, features, name=f"trunk_{i}")(x))
        outputs = StackedDense(1, 1 if self.slots else self.num_outputs, name="head")(x)[0].reshape(batch, -1)
        if not self.num_gaussians:  # a checkpoint takes no empty array
            return outputs, jnp.zeros(0)
        return outputs, Constant(self.num_gaussians, name="log_std")()


def make_actor(env: Problem, config: ActorConfig) -> Actor:
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
    slots = env.traits.slots if config.per_slot else None
    if config.per_slot and slots is None:
        raise ValueError(f"{env.name} has no slots to score: leave out per_slot")
    return Actor(config.trunk, outputs, gaussians, config.activation, slots)


def init_actor(actor: Actor, key: Array, inputs: Float[Array, "batch observation"], log_std: Any = 0.0) -> PyTree:
    """Parameters of an actor that starts nearly uniform."""
    parameters = init_parameters(actor, key, inputs[:1], small=("head",))
    if actor.num_gaussians:
        parameters["params"]["log_std"]["bias"] += log_std
    return parameters


def distribution(
    env: Problem,
    env_params: PyTree,
    actor: Actor,
    parameters: PyTree,
    inputs: Float[Array, "batch observation"],
    observation: PyTree,
) -> distrax.Joint:
    """Distribution of raw actions [batch], from what the network reads and, for masks, the observations."""
    outputs, log_std = cast(tuple[Array, Array], actor.apply(parameters, inputs))
    masks = jax.vmap(env.action_mask, in_axes=(0, None))(observation, env_params)
    return hybrid(heads_of(env.action_space(env_params)), outputs, log_std, masks)


def flat(observation: PyTree) -> Float[Array, "batch observation"]:
    """Observations, [batch] of any structure, as one vector each."""
    leaves = [jnp.asarray(x, float) for x in jax.tree.leaves(observation)]
    return jnp.concatenate([x.reshape(x.shape[0], -1) for x in leaves], axis=1)


def actor_policy(env: Problem | Environment, config: ActorConfig, deterministic: bool = False) -> Policy:
    """The policy of a trained actor for `mec_jax.episodes`.

    Its parameters are `((actor parameters, moments of the observations), env_params)`.
    """
    env = as_problem(env)
    return partial(_act, env, make_actor(env, config), config.normalise_observation, deterministic)


def _act(
    env: Problem, actor: Actor, normalise: bool, deterministic: bool, parameters: tuple, observation: PyTree, key: Array
) -> PyTree:
    actor_params: PyTree
    observed: Moments
    (actor_params, observed), env_params = parameters
    batch = jax.tree.map(lambda x: jnp.asarray(x)[None], observation)
    inputs = standardise(observed, flat(batch)) if normalise else flat(batch)
    policy = distribution(env, env_params, actor, actor_params, inputs, batch)
    raw = policy.mode() if deterministic else policy.sample(seed=key)
    return to_action(env.action_space(env_params), tuple(part[0] for part in raw))


# As a file: one network whose last layer is cut into the heads

_NO_BOUND = float(np.finfo(np.float32).max)


def actor_to_network(env: Problem, env_params: PyTree, config: ActorConfig, learned: tuple[PyTree, Moments]) -> Network:
    """A trained actor as a file holds it; arguments as of `mec_jax.contracts.Algorithm.to_network`."""
    actor, observed = learned
    layers = {name: {part: np.asarray(x) for part, x in layer.items()} for name, layer in actor["params"].items()}
    last, log_std = layers.pop("head"), layers.pop("log_std", {"bias": np.zeros(0)})["bias"]
    slots = make_actor(env, config).slots
    space = env.action_space(env_params)
    heads, first, first_std = [], 0, 0
    for head in heads_of(space):
        num_outputs = 1 if slots else head.num_outputs
        outputs = slice(first, first + num_outputs)
        first += num_outputs
        kernel, bias = last["kernel"][..., outputs], last["bias"][..., outputs]
        if head.kind != "categorical":
            std = log_std[None, first_std : first_std + head.num_entries]
            first_std += head.num_entries
            kernel = np.concatenate([kernel, np.zeros_like(kernel)], axis=-1)
            bias = np.concatenate([bias, std], axis=-1)
        layers[f"head_{head.name}"] = {"kernel": kernel, "bias": bias}
        allowed = {"allowed": list(env.mask_entries[head.name])} if head.name in env.mask_entries else {}
        heads.append(_describe_head(head) | allowed)
    normalisation: Any = AS_RETURNED
    if config.normalise_observation:
        std = np.sqrt(np.asarray(observed.var) + np.float32(1e-8))
        normalisation = {"mean": np.asarray(observed.mean).tolist(), "std": std.tolist(), "clip": CLIP}
    return Network(
        arrays=flax.traverse_util.flatten_dict(layers, sep="/"),
        action=space.type.__name__ if isinstance(space, NamedTupleSpace) else "Action",
        observation_size=np.asarray(observed.mean).size,
        network={
            "stacked": 1,
            "activation": config.activation,
            "trunk": [f"trunk_{i}" for i in range(len(config.trunk))],
            "heads": heads,
            **({"per_slot": slots._asdict()} if slots else {}),
        },
        normalisation=normalisation,
    )


def _describe_head(head: Head) -> dict[str, Any]:
    about = {
        "name": head.name,
        "kind": head.kind,
        "layers": [f"head_{head.name}"],
        "size": head.size,
        "shape": list(head.shape),
    }
    if head.kind == "categorical":
        return about
    offset, scale = (0.0, 1.0)
    low, high = -_NO_BOUND, _NO_BOUND
    if head.kind == "gaussian":
        offset, scale = (np.broadcast_to(x, head.shape).tolist() for x in head.scaling())
        low, high = (
            np.broadcast_to(np.clip(x, -_NO_BOUND, _NO_BOUND), head.shape).tolist() for x in (head.low, head.high)
        )
    bounds = {"low": low, "high": high}
    return about | {"mean": "linear", "offset": offset, "scale": scale, "std": "exp", "std_min": 0.0, **bounds}


def actor_from_network[C](config: Callable[..., C], found: Network) -> tuple[C, tuple[PyTree, Moments]]:
    """What `actor_to_network` was given, and the algorithm's `Config`; fields that no actor has are the defaults."""
    network: Any = found.network
    seen: Any = found.normalisation
    arrays = flax.traverse_util.unflatten_dict(dict(found.arrays), sep="/")
    per_slot = "per_slot" in network
    layers = {name: arrays[name] for name in network["trunk"]}
    parts: dict[str, list[np.ndarray]] = {"kernel": [], "bias": []}
    log_std: list[np.ndarray] = []
    for head in network["heads"]:
        layer = arrays[f"head_{head['name']}"]
        outputs = 1 if per_slot else head["size"] * int(np.prod(head["shape"]))
        for name, columns in parts.items():
            columns.append(layer[name][..., :outputs])
        log_std.append(layer["bias"][0, outputs:])
    layers["head"] = {name: np.concatenate(columns, axis=-1) for name, columns in parts.items()}
    if any(map(len, log_std)):
        layers["log_std"] = {"bias": np.concatenate(log_std)}
    normalises = seen != AS_RETURNED
    mean, std = (np.float32(seen[name]) if normalises else np.ones(found.observation_size) for name in ("mean", "std"))
    observed = Moments(jnp.asarray(mean), jnp.asarray(std, jnp.float32) ** 2 - 1e-8, jnp.asarray(1.0))
    trunk = tuple(arrays[name]["bias"].shape[-1] for name in network["trunk"])
    about = config(trunk=trunk, activation=network["activation"], per_slot=per_slot, normalise_observation=normalises)
    return about, ({"params": jax.tree.map(jnp.asarray, layers)}, observed)
