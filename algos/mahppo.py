"""MAHPPO: multi-agent hybrid proximal policy optimisation (Hao et al. 2022, section 5).

One actor per UE with its own parameters, all reading the global state, and one critic. Each actor has a categorical
head for the cut point, one for the channel and a Gaussian one for the transmit power.

Where the paper and the authors' public code differ, `Config` names both; `REFERENCE` follows the code, `PAPER` the
print, and `FAST` is tuned for wall time on a CPU.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, cast

import distrax
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

from algos.networks import MLP, StackedDense, init_parameters, init_uniform
from algos.rollout import Ended, Transition, discounted_sum, play, start
from algos.updates import ActorCritic, Metrics, Rollouts, in_chunks, learn, schedule, shuffled
from mec_jax.contracts import Algorithm, Network, Policy, Preset, Problem, Trainer
from mec_jax.envs.offloading import (
    MIN_POWER,
    UE_FIELDS,
    MultiUEOffloading,
    OffloadAction,
    Params,
    observation_table,
)
from mec_jax.memory import check_memory
from mec_jax.policy import AS_RETURNED
from mec_jax.ranges import Count, Layers, NonNegative, Norm, Positive, Share, Traced, Width


@dataclass(frozen=True)
class Config(Rollouts):
    """What sets shapes and code paths: changing any of it compiles a new program."""

    num_frames: Count = 1_000_000  # environment frames in all; what runs are whole chunks, at least one
    num_envs: Count = 256  # environments side by side
    updates_per_chunk: Count = 5  # evaluation, logs and checkpoints come between chunks
    trunk: Layers = (256, 128)  # shared layers of an actor
    head: Width = 64  # hidden layer of each actor head
    critic: Layers = (256, 128, 64)  # hidden layers
    inputs: Literal["state", "hinges"] = "state"
    """Networks read the observation as it is (paper and reference), or `hinges` of it, a fixed first layer."""
    ratio: Literal["joint", "per_head"] = "joint"
    """One ratio of the joint action of each UE (paper), or one per head and their mean (reference)."""
    value_target: Literal["gae", "monte_carlo", "one_step"] = "gae"
    """Advantage plus value, return of the trajectory (paper, eq. 15), or r + gamma V(s') (reference)."""
    advantage: Literal["gae", "paper", "reference"] = "gae"
    """Usual GAE, eq. 18 as printed (its baseline is the Monte-Carlo return), or GAE without the gamma (reference)."""
    sampling: Literal["shuffle", "draws"] = "shuffle"
    """Minibatches without replacement, or each drawn anew with replacement (paper and reference)."""
    power_std: Literal["softplus", "sigmoid"] = "softplus"
    """Activation of the standard deviation of the power head (reference: softplus)."""
    initial: Literal["he", "uniform"] = "he"
    """He-normal kernels and nearly uniform policies, or uniform kernels and biases, PyTorch's default (reference)."""


class HParams(Traced):
    """Traced numbers: sweep them with `jax.vmap` without recompiling."""

    actor_lr: NonNegative = 1e-3  # learning rate of the actors
    critic_lr: NonNegative = 1e-3  # and of the critic
    final_lr: Share = 0.0  # fraction of the learning rates reached at the end, linearly
    clip: Positive = 0.2  # of the ratio of new to old policy, to 1 - clip and 1 + clip
    entropy: NonNegative = 1e-3  # bonus of the categorical heads
    power_entropy: NonNegative = 1e-3  # bonus of the Gaussian head
    final_entropy: Share = 0.0  # fraction of the entropy bonus reached at the end, linearly
    gamma: Share = 0.95  # discount of a frame
    gae_lambda: Share = 0.95  # of GAE: 0 is the one-step advantage, 1 the Monte-Carlo one
    max_grad_norm: Norm = 0.5  # of all actors together and, apart from them, of the critic
    adam_eps: Positive = 1e-8  # in the denominator of Adam's steps


REFERENCE = Preset(
    Config(
        num_frames=300_000,
        num_envs=1,
        rollout=1024,
        epochs=20,
        minibatches=4,
        ratio="per_head",
        value_target="one_step",
        advantage="reference",
        sampling="draws",
    ),
    HParams(actor_lr=1e-4, critic_lr=1e-4, final_lr=1.0, final_entropy=1.0, max_grad_norm=jnp.inf),
)
"""The authors' code: buffer 1024, 80 minibatches of 256, two Adams without clipping."""

PAPER = Preset(
    replace(
        REFERENCE.config,
        num_frames=500_000,
        updates_per_chunk=4,
        ratio="joint",
        value_target="monte_carlo",
        advantage="paper",
        initial="uniform",
    ),
    REFERENCE.hparams,
)
"""As printed: eq. 15, 17 to 20 and Algorithm 1, 500 000 frames (Figs. 8 to 12; the text says 50 000), reuse 20
(Fig. 9; section 6.3.1 says 10). What the paper leaves open (Adam, initialisation, the activation of the standard
deviation) is the authors' code's. The reward is the environment's, whose `paper_reward` is eq. 12.

It does not learn reliably: the advantage of eq. 18 as printed discourages what ends better than the critic expects."""

FAST = Preset(
    Config(
        num_frames=900_000,
        num_envs=64,
        rollout=32,
        updates_per_chunk=10,
        trunk=(128, 64),
        head=32,
        inputs="hinges",
    ),
    HParams(actor_lr=3e-3, critic_lr=3e-3, entropy=1e-2, power_entropy=5e-3, gae_lambda=0.9),
    suits=lambda traits: True,
)
"""Many environments, larger batches, smaller networks."""

PRESETS = {"fast": FAST, "reference": REFERENCE, "paper": PAPER}


class Actors(nn.Module):
    """The actors of all UEs.

    Parameters are `trunk_I`, `cut_0`, `cut_1`, `channel_0`, ... each with a `kernel` [ue, inputs, outputs] and a
    `bias` [ue, outputs]: the layout of an exported policy (`mec_jax.policy`).
    """

    num_ues: int
    num_points: int
    num_channels: int
    trunk: tuple[int, ...]
    head: int
    inputs: str
    power_std: str

    @nn.compact
    def __call__(self, observation: Float[Array, "batch observation"], power_max: Float[Array, " ue"]) -> distrax.Joint:
        """Distribution of an `OffloadAction` with leaves [batch, ue], the power in W."""
        x = read(self.inputs, observation)
        for i, features in enumerate(self.trunk):
            x = nn.relu(StackedDense(self.num_ues, features, name=f"trunk_{i}")(x))

        def output(name: str, size: int) -> Float[Array, "batch ue size"]:
            hidden = nn.relu(StackedDense(self.num_ues, self.head, name=f"{name}_0")(x))
            return jnp.moveaxis(StackedDense(self.num_ues, size, name=f"{name}_1")(hidden), 0, 1)

        raw_mean, raw_std = jnp.moveaxis(output("power", 2), -1, 0)
        std = {"softplus": nn.softplus, "sigmoid": nn.sigmoid}[self.power_std](raw_std)
        return distrax.Joint(
            OffloadAction(
                cut=distrax.Categorical(output("cut", self.num_points)),
                channel=distrax.Categorical(output("channel", self.num_channels)),
                power=distrax.Normal(nn.sigmoid(raw_mean) * power_max, std * power_max + STD_MIN),
            )
        )


STD_MIN = 1e-4
"""W, keeps the density of the power finite."""


def hinges(num_ues: int) -> tuple[Float[np.ndarray, "observation hinge"], Float[np.ndarray, " hinge"]]:
    """Kernel and bias of the fixed first layer of `inputs="hinges"`; a ReLU follows.

    What a good policy turns on is small in the observation: who is behind by a few tasks of 200, and whether what
    is left fills the last frames. The layer puts both on a scale of one. With `t` the share of tasks left of a UE
    and `m` its mean over UEs, the hinges are, for each UE, its four observations scaled, 40 (t - m) and 80 (t - m) - 1
    with their mirror images 40 (m - t) and 80 (m - t) - 1, and 20 (k - t) for two k; and 20 (k - m) for several k. The
    constants are for some 200 tasks, of which a frame finishes 0.05 to 0.1.
    """
    check_memory(f"the hinges of {num_ues} UEs", 8 * 4 * num_ues * (4 * num_ues + 2 * (10 * num_ues + 11)))
    ends = np.array([0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.36, 0.44])
    share, time, bits, distance = (np.eye(num_ues * len(UE_FIELDS))[:, entries] for entries in _columns(num_ues))
    behind = share @ (np.eye(num_ues) - 1 / num_ues)
    mean = share @ np.ones((num_ues, 1)) / num_ues
    blocks = (
        (4 * share, 0),
        (4 * time, 0),
        (20 * bits, 0),
        (4 * distance, 0),
        (40 * behind, 0),
        (-40 * behind, 0),
        (80 * behind, -1),
        (-80 * behind, -1),
        (-20 * share, 20 * 0.1),
        (-20 * share, 20 * 0.2),
        (-20 * mean * np.ones(len(ends)), 20 * ends),
    )
    kernel = np.concatenate([kernel for kernel, _ in blocks], axis=1)
    bias = np.concatenate([np.broadcast_to(bias, kernel.shape[1]) for kernel, bias in blocks])
    return kernel.astype(np.float32), bias.astype(np.float32)


def _columns(num_ues: int) -> list[range]:
    """Entries of the observation, by column."""
    table = observation_table(num_ues)
    return [table.entries(field.name) for field in UE_FIELDS]


def read(inputs: str, observation: Float[Array, "... observation"]) -> Float[Array, "... input"]:
    """What the networks see of an observation, by `Config.inputs`."""
    if inputs == "state":
        return observation
    kernel, bias = hinges(observation.shape[-1] // len(UE_FIELDS))
    return nn.relu(jnp.matmul(observation, kernel, precision="highest") + bias)  # TF32 would blur small differences


class TrainState(NamedTuple):
    """All that a run needs to go on."""

    actors: PyTree
    critic: PyTree
    actors_opt: optax.OptState
    critic_opt: optax.OptState
    env_state: PyTree  # [env]
    observation: Float[Array, "env observation"]
    episode_return: Float[Array, " env"]  # of the running episodes
    key: Array
    update: Int[Array, ""]  # updates done


def make_trainer(env: Problem, config: Config) -> Trainer:
    """Build the pure functions of a MAHPPO run.

    Args:
        env: The environment; its numbers come as `env_params`.
        config: Shapes and code paths.

    Raises:
        ValueError: If the counts of `config` do not fit together, or `env` is another environment.
    """
    env = _offloading(env)
    plan = schedule(config)
    actors = make_actors(env, config)
    critic = MLP((*config.critic, 1))

    def act(parameters: PyTree, observation: Array, env_params: Params) -> distrax.Joint:
        return cast(distrax.Joint, actors.apply(parameters, observation, env_params.power_max))

    def evaluate(parameters: PyTree, observation: Array) -> Array:
        return cast(Array, critic.apply(parameters, read(config.inputs, observation)))[..., 0]

    def init(hparams: HParams, env_params: Params, key: Array) -> TrainState:
        key, actor_key, critic_key, reset_key = jax.random.split(key, 4)
        env_state, observation, episode_return = start(env, env_params, reset_key, config.num_envs)
        heads = ("cut_1", "channel_1", "power_1")
        actor_inputs, critic_input = (observation[:1], env_params.power_max), read(config.inputs, observation[:1])
        if config.initial == "he":
            actor_params = init_parameters(actors, actor_key, *actor_inputs, small=heads)
            critic_params = init_parameters(critic, critic_key, critic_input)
        else:
            actor_params = init_uniform(actors, actor_key, *actor_inputs)
            critic_params = init_uniform(critic, critic_key, critic_input)
        adam = optax.scale_by_adam(eps=hparams.adam_eps)
        return TrainState(
            actor_params,
            critic_params,
            adam.init(actor_params),
            adam.init(critic_params),
            env_state,
            observation,
            episode_return,
            key,
            jnp.zeros((), jnp.int32),
        )

    def rollout(state: TrainState, env_params: Params) -> tuple[TrainState, Transition, Ended]:
        def draw(observation: Array, key: Array) -> tuple[OffloadAction, OffloadAction, OffloadAction]:
            policy = act(state.actors, observation, env_params)
            action = policy.sample(seed=key)
            return action, action, head_log_probs(policy, action)

        key, rollout_key = jax.random.split(state.key)
        running = (state.env_state, state.observation, state.episode_return)
        running, transitions, ended = play(env, env_params, draw, running, rollout_key, config.rollout)
        env_state, observation, episode_return = running
        state = state._replace(env_state=env_state, observation=observation, episode_return=episode_return, key=key)
        return state, transitions, ended

    def update(state: TrainState, hparams: HParams, env_params: Params) -> tuple[TrainState, Metrics]:
        state, transitions, ended = rollout(state, env_params)
        value = evaluate(state.critic, transitions.observation)
        next_value = evaluate(state.critic, transitions.final_observation)
        advantage, target = advantages(config, hparams, transitions, value, next_value)
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
        samples = jax.tree.map(lambda x: x.reshape(plan.batch, *x.shape[2:]), (transitions, advantage, target))
        fraction = state.update / plan.num_updates
        lr_scale = 1 - fraction * (1 - hparams.final_lr)
        entropy_scale = 1 - fraction * (1 - hparams.final_entropy)

        def actor_loss(params: PyTree, sample: tuple) -> tuple[Float[Array, ""], tuple]:
            transition, advantage, _ = sample
            policy = act(params, transition.observation, env_params)
            log_ratios = jax.tree.map(jnp.subtract, head_log_probs(policy, transition.action), transition.log_prob)
            entropies = OffloadAction(*(head.entropy() for head in policy.distributions))
            weights = (hparams.entropy, hparams.entropy, hparams.power_entropy)
            bonus = entropy_scale * sum(w * jnp.mean(e) for w, e in zip(weights, entropies, strict=True))
            if config.ratio == "joint":
                ratio = jnp.exp(sum(log_ratios))
            else:
                ratio = jnp.exp(jnp.stack(log_ratios, -1))
                bonus = bonus / len(log_ratios)
            gain = advantage.reshape(-1, *[1] * (ratio.ndim - 1))
            surrogate = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - hparams.clip, 1 + hparams.clip) * gain)
            return -jnp.mean(surrogate) - bonus, (
                jnp.mean(sum(entropies)),
                jnp.mean(sum(jax.tree.map(lambda x: jnp.exp(x) - 1 - x, log_ratios))),
                jnp.mean(jnp.abs(ratio - 1) > hparams.clip),
            )

        def critic_loss(params: PyTree, sample: tuple) -> Float[Array, ""]:
            transition, _, target = sample
            return jnp.mean((evaluate(params, transition.observation) - target) ** 2)

        key, index_key = jax.random.split(state.key)
        if config.sampling == "draws":
            shape = (config.epochs * config.minibatches, plan.batch // config.minibatches)
            indices = jax.random.randint(index_key, shape, 0, plan.batch)
        else:
            indices = shuffled(index_key, config.epochs, config.minibatches, plan.batch)
        networks = ActorCritic(state.actors, state.critic, state.actors_opt, state.critic_opt)
        networks, losses = learn(networks, actor_loss, critic_loss, samples, indices, hparams, lr_scale)
        state = state._replace(
            actors=networks.actor,
            critic=networks.critic,
            actors_opt=networks.actor_opt,
            critic_opt=networks.critic_opt,
            key=key,
            update=state.update + 1,
        )
        return state, Metrics(state.update * plan.batch, ended.mean_return(), *losses)

    return in_chunks(init, update, config.updates_per_chunk, plan)


def _offloading(env: Problem) -> MultiUEOffloading:
    if not isinstance(env, MultiUEOffloading):
        raise ValueError(
            "mahppo is for MultiUEOffloading-v0: its actors have heads for cut, channel and power. Train on "
            f"{env.name} with ppo"
        )
    return env


def make_actors(env: Problem, config: Config) -> Actors:
    """The actor networks of `config` for `env`."""
    env = _offloading(env)
    return Actors(
        env.num_ues, env.num_points, env.num_channels, config.trunk, config.head, config.inputs, config.power_std
    )


def make_policy(env: Problem, config: Config, deterministic: bool = False) -> Policy:
    """The policy of trained actors for `mec_jax.episodes`: its parameters are `(learned(state), env_params)`."""
    return partial(_act, make_actors(env, config), deterministic)


def learned(state: TrainState) -> PyTree:
    """What the policy of `make_policy` reads beside the environment's parameters: the actors."""
    return state.actors


def _act(actors: Actors, deterministic: bool, parameters: tuple, observation: Array, key: Array) -> OffloadAction:
    actor_params, env_params = parameters
    policy = cast(distrax.Joint, actors.apply(actor_params, observation[None], env_params.power_max))
    action = policy.mode() if deterministic else policy.sample(seed=key)
    cut, channel, power = jax.tree.map(lambda x: x[0], action)
    return OffloadAction(cut, channel, jnp.clip(power, MIN_POWER, env_params.power_max))  # as an exported policy's


def head_log_probs(policy: distrax.Joint, action: OffloadAction) -> OffloadAction:
    """Log-probability of each head, [batch, ue]; the power unclipped."""
    return OffloadAction(*(head.log_prob(part) for head, part in zip(policy.distributions, action, strict=True)))


def advantages(
    config: Config,
    hparams: HParams,
    transitions: Transition,
    value: Float[Array, "frame env"],
    next_value: Float[Array, "frame env"],
) -> tuple[Float[Array, "frame env"], Float[Array, "frame env"]]:
    """Advantages and value targets of a rollout.

    A terminated episode is worth nothing more; a truncated one is bootstrapped from its final observation, and no
    sum runs over the end of an episode.
    """
    next_value = jnp.where(transitions.terminated, 0, next_value)
    one_step = transitions.reward + hparams.gamma * next_value
    goes_on = 1.0 - transitions.done

    def returns(carry: Float[Array, " env"], x: tuple) -> tuple[Float[Array, " env"], Float[Array, " env"]]:
        reward, goes_on, next_value = x
        carry = reward + hparams.gamma * jnp.where(goes_on > 0, carry, next_value)
        return carry, carry

    monte_carlo = jax.lax.scan(returns, next_value[-1], (transitions.reward, goes_on, next_value), reverse=True)[1]
    decay = hparams.gae_lambda * (1.0 if config.advantage == "reference" else hparams.gamma)
    baseline = monte_carlo if config.advantage == "paper" else value
    advantage = discounted_sum(one_step - baseline, decay, transitions.done)
    if config.value_target == "gae":
        return advantage, advantage + value
    return advantage, monte_carlo if config.value_target == "monte_carlo" else one_step


# As a file: one network a UE


def to_network(env: Problem, env_params: Params, config: Config, learned: PyTree) -> Network:
    """Trained actors as a file holds them; arguments as of `mec_jax.contracts.Algorithm.to_network`."""
    env = _offloading(env)
    power_max = np.asarray(env_params.power_max).tolist()
    power = {"mean": "sigmoid", "std": config.power_std, "std_min": STD_MIN, "scale": power_max, "offset": 0.0}
    fixed = _fixed_layers(env.num_ues, config)
    heads = [
        {"name": "cut", "kind": "categorical", "size": env.num_points},
        {"name": "channel", "kind": "categorical", "size": env.num_channels},
        {"name": "power", "kind": "gaussian", "size": 1, **power, "low": MIN_POWER, "high": power_max},
    ]
    arrays = flax.traverse_util.flatten_dict(fixed | learned["params"], sep="/")
    return Network(
        arrays={name: np.asarray(value) for name, value in arrays.items()},
        action="OffloadAction",
        observation_size=env.table.size,
        network={
            "stacked": env.num_ues,
            "activation": "relu",
            "trunk": [*fixed, *(f"trunk_{i}" for i in range(len(config.trunk)))],
            "heads": [
                {**head, "layers": [f"{head['name']}_0", f"{head['name']}_1"], "shape": [env.num_ues]} for head in heads
            ],
        },
        normalisation=AS_RETURNED,
    )


def from_network(found: Network) -> tuple[Config, PyTree]:
    """What `to_network` was given; other fields of the `Config` are the defaults."""
    network: Any = found.network
    arrays = flax.traverse_util.unflatten_dict(dict(found.arrays), sep="/")
    fixed = [name for name in network["trunk"] if not name.startswith("trunk_")]
    config = Config(
        trunk=tuple(arrays[name]["bias"].shape[-1] for name in network["trunk"] if name not in fixed),
        head=arrays["cut_0"]["bias"].shape[-1],
        inputs="hinges" if fixed else "state",
        power_std=network["heads"][2]["std"],
    )
    actors = {name: value for name, value in arrays.items() if name not in fixed}
    return config, {"params": jax.tree.map(jnp.asarray, actors)}


def _fixed_layers(num_ues: int, config: Config) -> dict[str, dict[str, np.ndarray]]:
    """Layers of an exported policy that are not trained, with the axis of the networks."""
    if config.inputs == "state":
        return {}
    layer = dict(zip(("kernel", "bias"), hinges(num_ues), strict=True))
    return {"hinges": {name: np.broadcast_to(array, (num_ues, *array.shape)) for name, array in layer.items()}}


ALGORITHM = Algorithm(
    name="mahppo",
    config=Config,
    hparams=HParams,
    presets=PRESETS,
    deterministic=False,  # as the authors evaluate; and where UEs compete for channels, chance breaks ties
    make_trainer=make_trainer,
    make_policy=make_policy,
    learned=learned,
    trained=lambda state: (state.actors, state.critic),
    to_network=to_network,
    from_network=from_network,
    lanes=lambda config: config.num_envs,
)
