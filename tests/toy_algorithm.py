"""A fourth algorithm in one file outside the package: plain REINFORCE (Williams 1992) on the shared actor."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from algos.actor import actor_from_network, actor_policy, actor_to_network, distribution, flat, init_actor, make_actor
from algos.algorithms import register_algorithm
from algos.distributions import to_action
from algos.normalise import Moments, merge, moments, standardise
from algos.rollout import discounted_sum, play, start
from algos.updates import Schedule, descend, in_chunks
from mec_jax.contracts import Algorithm, Preset, Problem, Trainer
from mec_jax.ranges import Checked, Count, Layers, NonNegative, Share, Traced


@dataclass(frozen=True)
class Config(Checked):
    """What sets shapes and code paths."""

    num_frames: Count = 100_000
    num_envs: Count = 64
    rollout: Count = 32
    updates_per_chunk: Count = 10
    trunk: Layers = (32,)
    activation: Literal["tanh", "relu"] = "tanh"
    per_slot: bool = False
    normalise_observation: bool = True


class HParams(Traced):
    """Traced numbers."""

    lr: NonNegative = 1e-2
    gamma: Share = 0.9


class TrainState(NamedTuple):
    actor: PyTree
    opt: optax.OptState
    observations: Moments
    env_state: PyTree  # [env]
    observation: PyTree  # [env]
    episode_return: Float[Array, " env"]
    key: Array
    update: Int[Array, ""]


class Metrics(NamedTuple):
    frames: Int[Array, ""]
    episode_return: Float[Array, ""]  # mean over the episodes that ended; NaN if none did
    actor_loss: Float[Array, ""]


def make_trainer(env: Problem, config: Config) -> Trainer:
    """Build the pure functions of a run."""
    batch = config.num_envs * config.rollout
    chunks = max(1, config.num_frames // (batch * config.updates_per_chunk))
    actor = make_actor(env, config)

    def read(state: TrainState, x: Array) -> Array:
        return standardise(state.observations, x) if config.normalise_observation else x

    def init(hparams: HParams, env_params: PyTree, key: Array) -> TrainState:
        key, actor_key, reset_key = jax.random.split(key, 3)
        running = start(env, env_params, reset_key, config.num_envs)
        inputs = flat(running[1])
        parameters = init_actor(actor, actor_key, inputs)
        opt = optax.scale_by_adam().init(parameters)
        return TrainState(parameters, opt, moments(inputs), *running, key, jnp.zeros((), jnp.int32))

    def update(state: TrainState, hparams: HParams, env_params: PyTree) -> tuple[TrainState, Metrics]:
        def draw(observation: PyTree, key: Array) -> tuple[PyTree, PyTree, Array]:
            policy = distribution(env, env_params, actor, state.actor, read(state, flat(observation)), observation)
            raw, log_prob = policy.sample_and_log_prob(seed=key)
            return jax.vmap(partial(to_action, env.action_space(env_params)))(raw), raw, log_prob

        key, rollout_key = jax.random.split(state.key)
        running = (state.env_state, state.observation, state.episode_return)
        running, played, ended = play(env, env_params, draw, running, rollout_key, config.rollout)
        gain = discounted_sum(played.reward, hparams.gamma, played.done)
        gain = ((gain - jnp.mean(gain)) / (jnp.std(gain) + 1e-8)).reshape(-1)
        frames = jax.tree.map(lambda x: x.reshape(batch, *x.shape[2:]), played)
        inputs = flat(frames.observation)

        def loss(parameters: PyTree) -> Float[Array, ""]:
            policy = distribution(env, env_params, actor, parameters, read(state, inputs), frames.observation)
            return -jnp.mean(policy.log_prob(frames.action) * gain)

        value, gradient = jax.value_and_grad(loss)(state.actor)
        parameters, opt = descend(state.actor, gradient, state.opt, hparams.lr, 0.5, 1e-8)
        seen, done = merge(state.observations, moments(inputs)), state.update + 1
        return TrainState(parameters, opt, seen, *running, key, done), Metrics(done * batch, ended.mean_return(), value)

    return in_chunks(init, update, config.updates_per_chunk, Schedule(batch, chunks, chunks * config.updates_per_chunk))


ALGORITHM: Algorithm[Config, HParams, TrainState, tuple[PyTree, Moments]] = Algorithm(
    name="reinforce",
    config=Config,
    hparams=HParams,
    presets={"default": Preset(Config(), HParams())},
    deterministic=True,
    make_trainer=make_trainer,
    make_policy=actor_policy,
    learned=lambda state: (state.actor, state.observations),
    trained=lambda state: state.actor,
    to_network=actor_to_network,
    from_network=partial(actor_from_network, Config),
)
register_algorithm("reinforce", ALGORITHM)
