"""DRL-ES (Huang et al. 2022, DeColla): evolution and REINFORCE in turns, for any environment of the suite and gymnax.

An iteration: children theta + sigma * eps are played from the same starts with the same random numbers. By selection
(the paper), the best of theta and its children is the new theta; by gradient (Salimans et al. 2017), theta moves along
the mean of eps weighted by rank. Then one step of REINFORCE on fresh episodes, with the mean over the episodes of a
start, frame by frame, as baseline. Without children it is the paper's "DRL".

With a carried population (Such et al. 2017, which the paper refers to), children are of the fittest of the generation
before: theta, as REINFORCE left it, and the next best. Each child's parent is drawn at random among them.

The evolution is the few lines of `selected`, `fittest` and `along_ranks`. evosax has them and forty more, but it keeps
the candidates itself as flat vectors, and would be the one dependency for lines that must alternate with gradients.
"""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from annotated_types import Interval
from gymnax.environments.environment import Environment
from jaxtyping import Array, Bool, Float, Int, PyTree

from algos.actor import (
    actor_from_network,
    actor_policy,
    actor_to_network,
    distribution,
    flat,
    init_actor,
    make_actor,
)
from algos.devices import over_lanes, shared
from algos.distributions import to_action
from algos.normalise import Moments, merge, moments, standardise
from algos.rollout import discounted_sum
from algos.updates import Schedule, descend, in_chunks
from mec_jax.contracts import Algorithm, Preset, Problem, Trainer
from mec_jax.files import MAX_COUNT
from mec_jax.interop.foreign import as_problem
from mec_jax.ranges import Checked, Count, Layers, LogStd, NonNegative, Norm, Positive, Share, Traced, Whole


@dataclass(frozen=True)
class Config(Checked):
    """What sets shapes and code paths: changing any of it compiles a new program."""

    num_iterations: Count = 1500  # of evolution and then REINFORCE
    children: Whole = 10  # 0: REINFORCE alone
    evolution: Literal["selection", "gradient"] = "selection"  # take the fittest, or a step along their gradient
    population: Literal["theta", "carried"] = "theta"  # whose children: theta's, or also those of the next best
    parents: Count = 5  # of a carried population, theta among them
    mirrored: bool = False  # children in pairs, parent +- sigma * eps
    fitness_episodes: Count = 8  # of each child, from as many starts
    starts: Count = 4  # of REINFORCE
    episodes: Annotated[int, Interval(ge=2, le=MAX_COUNT)] = 8  # of REINFORCE from each start; a baseline needs two
    horizon: Whole = 0  # frames; an episode counts no further; 0: until the environment truncates it
    updates_per_chunk: Count = 50  # iterations; evaluation, logs and checkpoints come between chunks
    trunk: Layers = (32, 32)  # hidden layers
    activation: Literal["tanh", "relu"] = "tanh"  # of the hidden layers
    per_slot: bool = False  # score each slot by one network that all slots share
    normalise_observation: bool = True  # by running moments


class HParams(Traced):
    """Traced numbers: sweep them with `jax.vmap` without recompiling."""

    lr: NonNegative = 2e-3  # of REINFORCE, the paper's
    final_lr: Share = 0.1  # fraction of all three step sizes reached at the end, linearly
    sigma: NonNegative = 0.02  # standard deviation of the children; the paper gives none
    es_lr: NonNegative = 0.05  # of the gradient flavour, which knows no scale of the fitness
    entropy: NonNegative = 1e-2  # bonus, per nat of all parts of the action
    final_entropy: Share = 0.0  # fraction of the entropy bonus reached at the end, linearly
    log_std: LogStd = 0.0  # of Gaussian parts at the start, with the bounds at -1 and 1
    gamma: Share = 1.0  # of REINFORCE, 1 in the paper; a child's fitness is not discounted
    max_grad_norm: Norm = 0.5  # of REINFORCE
    adam_eps: Positive = 1e-5  # in the denominator of Adam's steps


_SLOTS = Config(per_slot=True, normalise_observation=False)
_SHORT_SIGHT = HParams(lr=1e-2, sigma=0.02, entropy=1e-3, gamma=0.9)
MANY_SLOTS = 10
PRESETS = {
    "bandit": Preset(
        Config(starts=256, fitness_episodes=256), HParams(gamma=0.0), suits=lambda traits: traits.one_decision
    ),
    "crowd": Preset(
        replace(_SLOTS, num_iterations=300, fitness_episodes=2, starts=2, episodes=4, updates_per_chunk=15),
        _SHORT_SIGHT,
        suits=lambda traits: traits.slots is not None and traits.slots.slots > MANY_SLOTS,
    ),
    "sharing": Preset(
        replace(_SLOTS, num_iterations=200, updates_per_chunk=10),
        replace(_SHORT_SIGHT, gamma=0.98),
        suits=lambda traits: traits.slots is not None and traits.contended,
    ),
    "slots": Preset(_SLOTS, _SHORT_SIGHT, suits=lambda traits: traits.slots is not None),
    "slots_drl": Preset(replace(_SLOTS, children=0), _SHORT_SIGHT),
    "fast": Preset(Config(), HParams(), suits=lambda traits: True),
}
"""The first that suits is the default: `bandit` for episodes of one frame, `crowd` for a hundred slots, `sharing` for
several requesters, `slots` where one of several slots is chosen, `slots_drl` the same without evolution, `fast` for all
else. What an allocation costs shows at the end of its layer, six decisions on at most, and gamma 0.9 looks as far: with
1, learning took twice the frames (NeuronAllocation-Dynamic-v0, one seed). Where requesters meet, 0.98 was better.
"""


class TrainState(NamedTuple):
    """All that a run needs to go on."""

    actor: PyTree
    opt: optax.OptState
    observations: Moments  # of all observations before this iteration
    key: Array
    update: Int[Array, ""]  # iterations done


class CarriedState(NamedTuple):
    """`TrainState` and the population. A class of its own, so that checkpoints without one are read as before."""

    actor: PyTree
    opt: optax.OptState
    observations: Moments
    key: Array
    update: Int[Array, ""]
    others: PyTree  # parents of the next children beside theta, fittest first, [parent - 1]


type State = TrainState | CarriedState
"""By the population of `Config`."""


class Metrics(NamedTuple):
    """Of one iteration."""

    frames: Int[Array, ""]  # environment frames so far
    episode_return: Float[Array, ""]  # mean over the episodes of REINFORCE
    actor_loss: Float[Array, ""]
    entropy: Float[Array, ""]  # nat
    fitness: Float[Array, ""]  # of theta before the iteration; 0 without children
    gain: Float[Array, ""]  # of the best child over theta, at least 0
    improved: Float[Array, ""]  # 1 if a child was better than theta


class Episodes(NamedTuple):
    """Episodes side by side, each until it ends or to the horizon."""

    observation: PyTree  # [frame, episode]
    action: PyTree  # [frame, episode], raw
    reward: Float[Array, "frame episode"]  # 0 after the end
    alive: Bool[Array, "frame episode"]


def make_trainer(env: Problem | Environment, config: Config) -> Trainer:
    """Build the pure functions of a DRL-ES run.

    Args:
        env: A problem, or an environment of gymnax; its numbers come as `env_params`.
        config: Shapes and code paths.

    Raises:
        ValueError: If a field of `config` does not fit, or there is no distribution for the actions.
    """
    if config.evolution == "gradient" and config.children == 1:
        raise ValueError("children is 1: to rank them takes at least 2")
    if config.population == "carried":
        if config.evolution == "gradient":
            raise ValueError("population is 'carried', which a gradient does not have: set evolution to 'selection'")
        if config.parents > config.children + 1:
            most = config.children + 1
            raise ValueError(
                f"parents is {config.parents}: of theta and {config.children} children, 1 to {most} can be"
            )
    if config.mirrored and config.children % 2:
        raise ValueError(f"children is {config.children}: it must be even if they are mirrored")
    if config.num_iterations % config.updates_per_chunk:
        raise ValueError(
            f"num_iterations is {config.num_iterations}, no multiple of the {config.updates_per_chunk} "
            "updates_per_chunk: change one of them"
        )
    horizon = config.horizon or int(as_problem(env).default_params.max_steps_in_episode)
    evolved = (config.children + 1) * config.fitness_episodes if config.children else 0
    batch = horizon * (evolved + config.starts * config.episodes)
    plan = Schedule(batch, config.num_iterations // config.updates_per_chunk, config.num_iterations)
    env = as_problem(env)
    actor = make_actor(env, config)

    def read(observed: Moments, observation: Float[Array, "batch observation"]) -> Float[Array, "batch observation"]:
        return standardise(observed, observation) if config.normalise_observation else observation

    def init(hparams: HParams, env_params: PyTree, key: Array) -> State:
        key, actor_key, reset_key = jax.random.split(key, 3)
        reset_keys = jax.random.split(reset_key, config.starts * config.episodes)
        inputs = flat(jax.vmap(env.reset_env, in_axes=(0, None))(reset_keys, env_params)[0])
        parameters = init_actor(actor, actor_key, inputs, hparams.log_std)
        state = TrainState(
            actor=parameters,
            opt=optax.scale_by_adam(eps=hparams.adam_eps).init(parameters),
            observations=moments(inputs),
            key=key,
            update=jnp.zeros((), jnp.int32),
        )
        if config.population == "theta" or config.parents == 1:  # a checkpoint takes no empty array
            return state
        # Until there is a second generation, all parents are theta.
        others = jax.tree.map(lambda x: jnp.repeat(x[None], config.parents - 1, axis=0), parameters)
        return CarriedState(*state, others)

    def play(
        parameters: PyTree, observed: Moments, env_params: PyTree, key: Array, starts: int, episodes: int
    ) -> Episodes:
        """Play from each start, all that is random in the environment, so many episodes: [frame, start * episode].

        With the same key, other parameters meet the same starts and draw actions from the same noise.
        """
        start_key, action_key = jax.random.split(key)

        def keys(frame: Int[Array, ""] | int) -> Array:
            drawn = jax.random.split(jax.random.fold_in(start_key, frame), starts)
            return jnp.repeat(drawn, episodes, total_repeat_length=starts * episodes)

        def step(carry: tuple, frame: Int[Array, ""]) -> tuple[tuple, Episodes]:
            state, observation, alive = carry
            inputs = read(observed, flat(observation))
            policy = distribution(env, env_params, actor, parameters, inputs, observation)
            raw = policy.sample(seed=jax.random.fold_in(action_key, frame))
            action = jax.vmap(partial(to_action, env.action_space(env_params)))(raw)
            following, state, reward, terminated, _ = over_lanes(env.step_env, (0, 0, 0, None))(
                keys(frame + 1), state, action, env_params
            )
            truncated = jax.vmap(env.is_truncated, in_axes=(0, None))(state, env_params)
            seen = Episodes(observation, raw, jnp.where(alive, reward, 0), alive)
            return (state, following, alive & ~terminated & ~truncated), seen

        observation, state = over_lanes(env.reset_env, (0, None))(keys(0), env_params)
        start = (state, observation, jnp.ones(starts * episodes, bool))
        return jax.lax.scan(step, shared(start), jnp.arange(horizon))[1]

    def evolve(state: State, hparams: HParams, env_params: PyTree, scale: Array) -> tuple[State, Array]:
        """The state after the children's turn, and the fitness of [theta, *children]."""
        child_key, play_key = jax.random.split(jax.random.fold_in(state.key, 1))
        sigma = scale * hparams.sigma
        noise = _noise(state.actor, child_key, config)
        parents = state.actor
        if isinstance(state, CarriedState):
            parents = _parents(state, jax.random.fold_in(state.key, 3), config)
        family = jax.tree.map(
            lambda theta, parent, eps: jnp.concatenate([theta[None], parent + sigma * eps]),
            state.actor,
            parents,
            noise,
        )

        def fitness(parameters: PyTree) -> Float[Array, ""]:
            played = play(parameters, state.observations, env_params, play_key, config.fitness_episodes, 1)
            return jnp.mean(jnp.sum(played.reward, axis=0))

        fitnesses = jax.vmap(fitness)(family)
        fitnesses = jnp.where(jnp.isnan(fitnesses), -jnp.inf, fitnesses)  # argmax would take it for the best
        if config.evolution == "gradient":
            moved = along_ranks(state.actor, noise, fitnesses[1:], scale * hparams.es_lr)
            return state._replace(actor=moved), fitnesses
        if isinstance(state, CarriedState):
            state = state._replace(others=fittest(family, fitnesses, config.parents, after=1))
        return state._replace(actor=selected(family, fitnesses)), fitnesses

    def reinforce(
        state: State, hparams: HParams, env_params: PyTree, scale: Array, entropy: Array
    ) -> tuple[State, tuple[Array, Array, Array]]:
        key = jax.random.fold_in(state.key, 2)
        played = play(state.actor, state.observations, env_params, key, config.starts, config.episodes)
        advantage = advantages(played.reward, played.alive, config.episodes, hparams.gamma).reshape(-1)
        samples = shared(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), played))
        weight = samples.alive / jnp.sum(samples.alive)
        inputs = jnp.where(samples.alive[:, None], flat(samples.observation), 0)  # after the end it may be anything

        def loss(parameters: PyTree) -> tuple[Float[Array, ""], Float[Array, ""]]:
            policy = distribution(
                env, env_params, actor, parameters, read(state.observations, inputs), samples.observation
            )
            mean_entropy = jnp.sum(weight * policy.entropy())
            surrogate = jnp.sum(weight * advantage * policy.log_prob(samples.action))
            return -surrogate - entropy * mean_entropy, mean_entropy

        (value, mean_entropy), gradient = jax.value_and_grad(loss, has_aux=True)(state.actor)
        parameters, opt = descend(
            state.actor, gradient, state.opt, scale * hparams.lr, hparams.max_grad_norm, hparams.adam_eps
        )
        observed = (
            merge(state.observations, moments(inputs, samples.alive))
            if config.normalise_observation
            else state.observations
        )
        state = state._replace(actor=parameters, opt=opt, observations=observed)
        return state, (jnp.mean(jnp.sum(played.reward, axis=0)), value, mean_entropy)

    def update(state: State, hparams: HParams, env_params: PyTree) -> tuple[State, Metrics]:
        fraction = state.update / plan.num_updates
        scale = 1 - fraction * (1 - hparams.final_lr)
        entropy = hparams.entropy * (1 - fraction * (1 - hparams.final_entropy))
        fitness = jnp.zeros(1)
        if config.children:
            state, fitness = evolve(state, hparams, env_params, scale)
        state, (episode_return, loss, mean_entropy) = reinforce(state, hparams, env_params, scale, entropy)
        state = state._replace(key=jax.random.split(state.key)[0], update=state.update + 1)
        gain = jnp.max(fitness) - fitness[0]
        improved = (gain > 0).astype(float)
        frames = state.update * plan.batch
        return state, Metrics(frames, episode_return, loss, mean_entropy, fitness[0], gain, improved)

    return in_chunks(init, update, config.updates_per_chunk, plan)


def selected(family: PyTree, fitness: Float[Array, " member"]) -> PyTree:
    """The parameters [member] of the fittest; of equals the first."""
    best = jnp.argmax(fitness)
    return jax.tree.map(lambda x: x[best], family)


def fittest(family: PyTree, fitness: Float[Array, " member"], last: int, after: int = 0) -> PyTree:
    """The parameters [member] of the fittest but for the first `after`, up to the `last`-th; of equals the first."""
    order = jnp.argsort(-fitness)[after:last]
    return jax.tree.map(lambda x: x[order], family)


def along_ranks(theta: PyTree, noise: PyTree, fitness: Float[Array, " child"], step: Float[Array, ""]) -> PyTree:
    """A step up the estimated gradient of the fitness (Salimans et al. 2017), by ranks from -1/2 to 1/2.

    With ranks the estimate has no scale, so that the standard deviation of the children is left out. Equals share the
    mean of their ranks.

    Args:
        theta: Parameters.
        noise: eps of the children, [child].
        fitness: Of the children.
        step: Factor of the mean of rank times eps.
    """
    children = fitness.shape[0]
    worse = jnp.sum(fitness < fitness[:, None], axis=1)
    equal = jnp.sum(fitness == fitness[:, None], axis=1)
    rank = (worse + (equal - 1) / 2) / (children - 1) - 0.5
    return jax.tree.map(lambda x, eps: x + step / children * jnp.tensordot(rank, eps, 1), theta, noise)


def advantages(
    reward: Float[Array, "frame lane"], alive: Bool[Array, "frame lane"], episodes: int, gamma: Any
) -> Float[Array, "frame lane"]:
    """Returns from each frame on, less their mean over the episodes of the start that are alive; of unit variance.

    Args:
        reward: 0 after an episode's end; lanes are [start * episode].
        alive: Whether the frame belongs to the episode.
        episodes: From each start.
        gamma: Discount a frame.
    """
    to_go = discounted_sum(reward, gamma, ~alive)
    grouped, counts = (x.reshape(x.shape[0], -1, episodes) for x in (to_go, alive))
    mean = jnp.sum(grouped * counts, 2, keepdims=True) / jnp.maximum(jnp.sum(counts, 2, keepdims=True), 1)
    centred = jnp.where(counts, grouped - mean, 0).reshape(reward.shape)
    variance = jnp.sum(centred**2) / jnp.maximum(jnp.sum(alive), 1)
    return centred / jnp.sqrt(variance + 1e-8)


def learned(state: State) -> tuple[PyTree, Moments]:
    """What the policy of `make_policy` reads beside the environment's parameters: the actor, and how it normalises."""
    return state.actor, state.observations


def lanes(config: Config) -> int:
    """Episodes side by side of which devices may have equal shares: those of REINFORCE, and those of each child."""
    return math.gcd(config.starts * config.episodes, config.fitness_episodes if config.children else 0)


def _noise(theta: PyTree, key: Array, config: Config) -> PyTree:
    """eps of the children, standard normal, [child]; the second half is minus the first if they are mirrored."""
    drawn = config.children // 2 if config.mirrored else config.children
    leaves, treedef = jax.tree.flatten(theta)
    sizes = [leaf.size for leaf in leaves]
    flat_noise = jax.random.normal(key, (drawn, sum(sizes)))
    if config.mirrored:
        flat_noise = jnp.concatenate([flat_noise, -flat_noise])
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    parts = [
        flat_noise[:, start : start + leaf.size].reshape(config.children, *leaf.shape)
        for start, leaf in zip(starts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, parts)


def _parents(state: CarriedState, key: Array, config: Config) -> PyTree:
    """A parent for each child, [child]: theta and the others are equally likely; children of a pair have the same."""
    drawn = config.children // 2 if config.mirrored else config.children
    parent = jax.random.randint(key, (drawn,), 0, config.parents)
    parent = jnp.concatenate([parent, parent]) if config.mirrored else parent
    return jax.tree.map(lambda theta, others: jnp.concatenate([theta[None], others])[parent], state.actor, state.others)


ALGORITHM = Algorithm(
    name="drl_es",
    config=Config,
    hparams=HParams,
    presets=PRESETS,
    deterministic=True,
    make_trainer=make_trainer,
    make_policy=actor_policy,
    learned=learned,
    trained=lambda state: state.actor,
    to_network=actor_to_network,
    from_network=partial(actor_from_network, Config),
    budget="num_iterations",
    lanes=lanes,
)
