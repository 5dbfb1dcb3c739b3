"""What the trainers' jitted updates share: schedule, chunks, minibatches and gradient steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from algos.devices import gathered, shared
from algos.rollout import Scalar
from mec_jax.contracts import Trainer
from mec_jax.files import MAX_COUNT
from mec_jax.ranges import Checked, Count


class Metrics(NamedTuple):
    """Of one update of an actor and a critic."""

    frames: Int[Array, ""]  # environment frames so far
    episode_return: Float[Array, ""]  # mean over the episodes that ended; NaN if none did
    actor_loss: Float[Array, ""]
    critic_loss: Float[Array, ""]
    entropy: Float[Array, ""]  # nat; MAHPPO: per UE
    kl: Float[Array, ""]  # nat, old to new policy; MAHPPO: per UE
    clipped: Float[Array, ""]  # share of ratios outside the clip range


@dataclass(frozen=True)
class Rollouts(Checked):
    """Counts of a trainer that plays environments side by side and passes several times over what it saw."""

    num_frames: Count = 500_000  # environment frames in all; what runs are whole chunks, at least one
    num_envs: Count = 64  # environments side by side
    rollout: Count = 32  # frames of each environment per update
    epochs: Count = 4  # passes over the rollout per update
    minibatches: Count = 4  # per pass
    updates_per_chunk: Count = 10  # evaluation, logs and checkpoints come between chunks


class Schedule(NamedTuple):
    """Counts of a run."""

    batch: int  # frames an update
    num_chunks: int
    num_updates: int


def schedule(config: Rollouts) -> Schedule:
    """The schedule of a trainer's `Config`.

    Raises:
        ValueError: If the minibatches do not divide the batch.
    """
    batch = config.num_envs * config.rollout
    if batch % config.minibatches:
        raise ValueError(
            f"{config.minibatches} minibatches do not divide {config.num_envs} environments x {config.rollout} "
            "frames: change one of them"
        )
    num_chunks = max(1, config.num_frames // (batch * config.updates_per_chunk))
    return Schedule(batch, num_chunks, num_chunks * config.updates_per_chunk)


def in_chunks(
    init: Callable[..., Any],
    update: Callable[..., tuple[Any, Any]],
    updates_per_chunk: int,
    plan: Schedule,
) -> Trainer:
    """A trainer from its first state and one `update(state, hparams, env_params)` that returns state and metrics.

    Raises:
        ValueError: If the run has more frames than an int32 counts.
    """
    num_frames = plan.num_updates * plan.batch
    if num_frames > MAX_COUNT:
        raise ValueError(
            f"the run has {num_frames} environment frames, {plan.num_updates} updates of {plan.batch}: of more than "
            f"{MAX_COUNT} the count overflows, so take fewer frames an update, updates a chunk or updates in all"
        )

    def run(state: Any, hparams: PyTree, env_params: PyTree) -> tuple[Any, Any]:
        return jax.lax.scan(lambda state, _: update(state, hparams, env_params), state, length=updates_per_chunk)

    def train(hparams: PyTree, env_params: PyTree, key: Array) -> tuple[Any, Any]:
        state, metrics = jax.lax.scan(
            lambda state, _: run(state, hparams, env_params), init(hparams, env_params, key), length=plan.num_chunks
        )
        return state, jax.tree.map(jnp.concatenate, metrics)

    return Trainer(init, run, train, plan.num_chunks, num_frames)


class ActorCritic(NamedTuple):
    """What minibatches change."""

    actor: PyTree
    critic: PyTree
    actor_opt: optax.OptState
    critic_opt: optax.OptState


type Loss = Float[Array, ""]


def learn(
    networks: ActorCritic,
    actor_loss: Callable[[PyTree, PyTree], tuple[Loss, tuple[Array, ...]]],
    critic_loss: Callable[[PyTree, PyTree], Loss],
    samples: PyTree,
    indices: Int[Array, "minibatch sample"],
    hparams: Any,
    lr_scale: Scalar,
) -> tuple[ActorCritic, tuple[Array, ...]]:
    """A step of the actor and one of the critic per minibatch; and the means of their losses and what goes with them.

    Args:
        networks: Before.
        actor_loss: Of parameters and a minibatch; and what to report of it.
        critic_loss: Of parameters and a minibatch.
        samples: Leaves [sample, ...].
        indices: Of the samples of each minibatch.
        hparams: Has `actor_lr`, `critic_lr`, `max_grad_norm` and `adam_eps`.
        lr_scale: Factor of both learning rates.
    """

    def step(params: PyTree, gradient: PyTree, opt: optax.OptState, lr: Scalar) -> tuple[PyTree, optax.OptState]:
        return descend(params, gradient, opt, lr * lr_scale, hparams.max_grad_norm, hparams.adam_eps)

    def minibatch(networks: ActorCritic, index: Int[Array, " sample"]) -> tuple[ActorCritic, tuple[Array, ...]]:
        def gradients(index: Int[Array, " sample"]) -> Any:
            sample = shared(jax.tree.map(lambda x: x[index], samples))
            of_actor = jax.value_and_grad(actor_loss, has_aux=True)(networks.actor, sample)
            return of_actor, jax.value_and_grad(critic_loss)(networks.critic, sample)

        ((a_loss, extra), a_gradient), (c_loss, c_gradient) = gradients(shared(index))
        actor, actor_opt = step(networks.actor, a_gradient, networks.actor_opt, hparams.actor_lr)
        critic, critic_opt = step(networks.critic, c_gradient, networks.critic_opt, hparams.critic_lr)
        return ActorCritic(actor, critic, actor_opt, critic_opt), (a_loss, c_loss, *extra)

    samples = gathered(samples)
    networks, losses = jax.lax.scan(minibatch, networks, indices)
    return networks, jax.tree.map(jnp.mean, losses)


def shuffled(key: Array, epochs: int, minibatches: int, batch: int) -> Int[Array, "minibatch sample"]:
    """Indices of the minibatches of all epochs; within an epoch without replacement."""
    order = jax.random.bits(key, (epochs, batch))
    return jnp.argsort(order, axis=1).reshape(epochs * minibatches, batch // minibatches)


def descend(
    params: PyTree, gradient: PyTree, opt: optax.OptState, lr: Scalar, max_grad_norm: Scalar, adam_eps: Scalar
) -> tuple[PyTree, optax.OptState]:
    """One step of Adam, the gradient clipped to a global norm. All numbers may be traced."""
    norm = optax.tree.norm(gradient)
    gradient = jax.tree.map(lambda g: g * jnp.minimum(1, max_grad_norm / (norm + 1e-12)), gradient)
    step, opt = optax.scale_by_adam(eps=adam_eps).update(gradient, opt)
    return jax.tree.map(lambda p, s: p - lr * s, params, step), opt
