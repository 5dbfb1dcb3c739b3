"""PPO (Schulman et al. 2017) for any environment of the suite and of gymnax.

One actor decides all parts of the action at once (`algos.actor`); one critic.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from gymnax.environments.environment import Environment
from jaxtyping import Array, Float, Int, PyTree

from algos.actor import (
    actor_from_network,
    actor_policy,
    actor_to_network,
    distribution,
    flat,
    init_actor,
    make_actor,
)
from algos.devices import shared
from algos.distributions import to_action
from algos.networks import MLP, init_parameters
from algos.normalise import Moments, merge, moments, standardise
from algos.rollout import Ended, Transition, gae, play, start
from algos.updates import ActorCritic, Metrics, Rollouts, in_chunks, learn, schedule, shuffled
from mec_jax.contracts import Algorithm, Preset, Problem, Trainer
from mec_jax.interop.foreign import as_problem
from mec_jax.ranges import Layers, LogStd, NonNegative, Norm, Positive, Share, Traced


@dataclass(frozen=True)
class Config(Rollouts):
    """What sets shapes and code paths: changing any of it compiles a new program."""

    trunk: Layers = (64, 64)  # hidden layers of the actor
    critic: Layers = (64, 64)  # hidden layers
    activation: Literal["tanh", "relu"] = "tanh"  # of all hidden layers
    per_slot: bool = False  # the actor scores each slot by one network that all slots share
    normalise_observation: bool = True  # by running moments
    normalise_reward: bool = False  # by the running standard deviation of the discounted return


class HParams(Traced):
    """Traced numbers: sweep them with `jax.vmap` without recompiling."""

    actor_lr: NonNegative = 1e-3  # learning rate of the actor
    critic_lr: NonNegative = 1e-3  # and of the critic
    final_lr: Share = 0.0  # fraction of the learning rates reached at the end, linearly
    clip: Positive = 0.2  # of the ratio of new to old policy, to 1 - clip and 1 + clip
    entropy: NonNegative = 1e-2  # bonus, per nat of all parts of the action
    final_entropy: Share = 0.0  # fraction of the entropy bonus reached at the end, linearly
    log_std: LogStd = 0.0  # of Gaussian parts at the start, with the bounds at -1 and 1
    gamma: Share = 0.99  # discount of a frame
    gae_lambda: Share = 0.95  # of GAE: 0 is the one-step advantage, 1 the Monte-Carlo one
    max_grad_norm: Norm = 0.5  # of the actor and, apart from it, of the critic
    adam_eps: Positive = 1e-5  # in the denominator of Adam's steps


PRESETS = {
    "bandit": Preset(
        Config(num_envs=2048, rollout=1, trunk=(128, 128), critic=(128, 128)),
        HParams(gamma=0.0),
        suits=lambda traits: traits.one_decision,
    ),
    "markov": Preset(
        Config(num_frames=1_500_000, num_envs=256, trunk=(128, 128), critic=(128, 128), rollout=16),
        HParams(actor_lr=3e-3, critic_lr=3e-3, entropy=5e-3, gamma=0.8, gae_lambda=0.7),
        suits=lambda traits: traits.exogenous,
    ),
    "game": Preset(
        Config(num_frames=1_500_000, trunk=(128, 64), critic=(128, 64)),
        HParams(entropy=3e-3, gamma=0.9, gae_lambda=0.9),
        suits=lambda traits: traits.in_turn,
    ),
    "plan": Preset(
        Config(
            num_frames=3_000_000,
            num_envs=1024,
            rollout=9,
            minibatches=16,
            trunk=(256, 128),
            critic=(256, 128),
            activation="relu",
        ),
        HParams(critic_lr=3e-3, entropy=2e-3, log_std=-0.5, gamma=1.0),
        suits=lambda traits: traits.at_end,
    ),
    "hybrid": Preset(
        Config(num_frames=900_000, trunk=(128, 64), critic=(256, 128, 64), activation="relu"),
        HParams(actor_lr=1e-3, critic_lr=3e-3, entropy=3e-3, gamma=0.95, gae_lambda=0.9),
        suits=lambda traits: traits.hybrid,
    ),
    "continuous": Preset(
        Config(num_frames=1_000_000, normalise_reward=True),
        HParams(entropy=0.0, gamma=0.95),
        suits=lambda traits: traits.continuous,
    ),
    "fast": Preset(Config(), HParams(), suits=lambda traits: traits.discrete),
}
"""The first that suits is the default: `bandit` for episodes of one frame, `markov` for conditions that change as they
like and actions that matter for a few frames, `game` for devices that decide in turn, `plan` for episodes that earn
all at their end, `hybrid` for choices and numbers at once, `continuous` for numbers, `fast` for choices.
"""


class TrainState(NamedTuple):
    """All that a run needs to go on."""

    actor: PyTree
    critic: PyTree
    actor_opt: optax.OptState
    critic_opt: optax.OptState
    observations: Moments  # of all observations before this rollout
    returns: Moments  # of discounted returns
    discounted_return: Float[Array, " env"]  # of the running episodes, for `returns`
    env_state: PyTree  # [env]
    observation: PyTree  # [env]
    episode_return: Float[Array, " env"]  # of the running episodes
    key: Array
    update: Int[Array, ""]  # updates done


def make_trainer(env: Problem | Environment, config: Config) -> Trainer:
    """Build the pure functions of a PPO run.

    Args:
        env: A problem, or an environment of gymnax; its numbers come as `env_params`.
        config: Shapes and code paths.

    Raises:
        ValueError: If the counts of `config` do not fit together, or there is no distribution for the actions.
    """
    plan = schedule(config)
    env = as_problem(env)
    actor = make_actor(env, config)
    critic = MLP((*config.critic, 1), config.activation)

    def read(state: TrainState, observation: Float[Array, "batch observation"]) -> Float[Array, "batch observation"]:
        return standardise(state.observations, observation) if config.normalise_observation else observation

    def init(hparams: HParams, env_params: PyTree, key: Array) -> TrainState:
        key, actor_key, critic_key, reset_key = jax.random.split(key, 4)
        env_state, observation, episode_return = start(env, env_params, reset_key, config.num_envs)
        inputs = flat(observation)
        actor_params = init_actor(actor, actor_key, inputs, hparams.log_std)
        critic_params = init_parameters(critic, critic_key, inputs[:1])
        adam = optax.scale_by_adam(eps=hparams.adam_eps)
        return TrainState(
            actor=actor_params,
            critic=critic_params,
            actor_opt=adam.init(actor_params),
            critic_opt=adam.init(critic_params),
            observations=moments(inputs),
            returns=Moments(jnp.zeros(()), jnp.ones(()), jnp.array(1e-4)),
            discounted_return=jnp.zeros(config.num_envs),
            env_state=env_state,
            observation=observation,
            episode_return=episode_return,
            key=key,
            update=jnp.zeros((), jnp.int32),
        )

    def rollout(state: TrainState, env_params: PyTree) -> tuple[TrainState, Transition, Ended]:
        def draw(observation: PyTree, key: Array) -> tuple[PyTree, PyTree, Array]:
            policy = distribution(env, env_params, actor, state.actor, read(state, flat(observation)), observation)
            raw, log_prob = policy.sample_and_log_prob(seed=key)
            return jax.vmap(partial(to_action, env.action_space(env_params)))(raw), raw, log_prob

        key, rollout_key = jax.random.split(state.key)
        running = (state.env_state, state.observation, state.episode_return)
        running, transitions, ended = play(env, env_params, draw, running, rollout_key, config.rollout)
        env_state, observation, episode_return = running
        state = state._replace(env_state=env_state, observation=observation, episode_return=episode_return, key=key)
        return state, transitions, ended

    def scaled_rewards(state: TrainState, transitions: Transition, gamma: Any) -> tuple[TrainState, Transition]:
        """Rewards divided by the standard deviation of the discounted return, of which this updates the moments."""

        def add(carry: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
            reward, done = x
            carry = gamma * carry + reward
            return jnp.where(done, 0, carry), carry

        last, returns = jax.lax.scan(add, state.discounted_return, (transitions.reward, transitions.done))
        merged = merge(state.returns, moments(returns.reshape(-1)))
        reward = transitions.reward / jnp.sqrt(merged.var + 1e-8)
        return state._replace(returns=merged, discounted_return=last), transitions._replace(reward=reward)

    def update(state: TrainState, hparams: HParams, env_params: PyTree) -> tuple[TrainState, Metrics]:
        state, transitions, ended = rollout(state, env_params)
        if config.normalise_reward:
            state, transitions = scaled_rewards(state, transitions, hparams.gamma)
        frames = shared(jax.tree.map(lambda x: x.reshape(plan.batch, *x.shape[2:]), transitions))
        inputs = flat(frames.observation)
        observation = read(state, inputs)

        def values(x: Float[Array, "batch observation"]) -> Float[Array, "frame env"]:
            return cast(Array, critic.apply(state.critic, x)).reshape(transitions.reward.shape)

        value, next_value = values(observation), values(read(state, flat(frames.final_observation)))
        advantage = gae(transitions, value, next_value, hparams.gamma, hparams.gae_lambda)
        target = (advantage + value).reshape(-1)
        advantage = ((advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)).reshape(-1)
        samples = (frames.observation, observation, frames.action, frames.log_prob, advantage, target)
        fraction = state.update / plan.num_updates
        lr_scale = 1 - fraction * (1 - hparams.final_lr)
        entropy_scale = 1 - fraction * (1 - hparams.final_entropy)

        def actor_loss(params: PyTree, sample: tuple) -> tuple[Float[Array, ""], tuple]:
            seen, observation, action, old_log_prob, advantage, _ = sample
            policy = distribution(env, env_params, actor, params, observation, seen)
            log_ratio = policy.log_prob(action) - old_log_prob
            ratio, entropy = jnp.exp(log_ratio), jnp.mean(policy.entropy())
            clipped = jnp.clip(ratio, 1 - hparams.clip, 1 + hparams.clip)
            surrogate = jnp.minimum(ratio * advantage, clipped * advantage)
            return -jnp.mean(surrogate) - entropy_scale * hparams.entropy * entropy, (
                entropy,
                jnp.mean(ratio - 1 - log_ratio),
                jnp.mean(jnp.abs(ratio - 1) > hparams.clip),
            )

        def critic_loss(params: PyTree, sample: tuple) -> Float[Array, ""]:
            observation, target = sample[1], sample[-1]
            return jnp.mean((cast(Array, critic.apply(params, observation))[..., 0] - target) ** 2)

        key, index_key = jax.random.split(state.key)
        indices = shuffled(index_key, config.epochs, config.minibatches, plan.batch)
        networks = ActorCritic(state.actor, state.critic, state.actor_opt, state.critic_opt)
        networks, losses = learn(networks, actor_loss, critic_loss, samples, indices, hparams, lr_scale)
        state = state._replace(
            **networks._asdict(),
            observations=merge(state.observations, moments(inputs)),
            key=key,
            update=state.update + 1,
        )
        return state, Metrics(state.update * plan.batch, ended.mean_return(), *losses)

    return in_chunks(init, update, config.updates_per_chunk, plan)


def learned(state: TrainState) -> tuple[PyTree, Moments]:
    """What the policy of `make_policy` reads beside the environment's parameters: the actor, and how it normalises."""
    return state.actor, state.observations


ALGORITHM = Algorithm(
    name="ppo",
    config=Config,
    hparams=HParams,
    presets=PRESETS,
    deterministic=True,
    make_trainer=make_trainer,
    make_policy=actor_policy,
    learned=learned,
    trained=lambda state: (state.actor, state.critic),
    to_network=actor_to_network,
    from_network=partial(actor_from_network, Config),
    lanes=lambda config: config.num_envs,
)
