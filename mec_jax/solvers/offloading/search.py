"""Search on the simulator for the best constant action and the best rotation of `MultiUEOffloading-v0`."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from mec_jax.contracts import Episodes, Policy
from mec_jax.envs.offloading import MIN_POWER, MultiUEOffloading, OffloadAction, Params
from mec_jax.episodes import evaluation_keys, play_episode
from mec_jax.solvers.offloading.policies import local, static


class StaticSolution(NamedTuple):
    """Best static joint action found, or best table of a rotation."""

    action: OffloadAction
    episode_return: Float[Array, ""]  # mean over `episodes`
    episodes: Episodes  # [episode], played with the action


Objective = Literal["return", "objective"]

_STATICS = ("env", "objective", "num_episodes", "restarts", "generations", "population", "policy")


@partial(jax.jit, static_argnames=_STATICS)
def best_static(
    env: MultiUEOffloading,
    params: Params,
    key: Array,
    objective: Objective = "return",
    num_episodes: int = 1,
    restarts: int = 4,
    generations: int = 60,
    population: int = 120,
    episode_keys: Key[Array, " episode"] | None = None,
    policy: Policy = static,
) -> StaticSolution:
    """Search for the best joint action to repeat in every frame, by evolution on the simulator.

    It is a search: the return it finds is a lower bound of the best static action's, not a proof, and a
    policy that looks at the state can do better. The return is a jagged function of the action, because a
    nearly empty last frame costs up to about -0.6; P1 is smoother.

    Each restart measures the local action, then three generations of random ones, then children of the best
    quarter (`_children`). An episode is given up once it costs more than the worst action kept or twice the
    best: costs only grow, and the worst actions are the longest to play. Only actions whose episodes all
    terminate count; if there is none, `episodes.terminated` of the result says so.

    Args:
        env: The environment; static, like all that follows the key: other values compile anew.
        params: The scenario, usually `env.evaluation_params()`, with `beta >= 0`.
        key: Key of the search; the episodes have keys of their own.
        objective: `"return"` maximises the episode's return, `"objective"` minimises P1 (eq. 10).
        num_episodes: Number of `evaluation_keys` to average over. One does if the scenario is not random.
        restarts: Number of independent searches, one after the other.
        generations: Generations of each.
        population: Actions of a generation, played at once.
        episode_keys: Keys of the episodes to average over instead; traced.
        policy: What plays a joint action: `static` repeats it, `rotate` reads it as its table.

    Raises:
        ValueError: If there is no such objective or the population is too small.
    """
    if objective not in ("return", "objective"):
        raise ValueError(f"objective is {objective!r}: it must be 'return' or 'objective'")
    if population < 4:
        raise ValueError(f"population is {population}: it must be at least 4, as its best quarter breeds")
    if episode_keys is None:
        episode_keys = evaluation_keys(num_episodes)
    local_action = local(env, params, jnp.empty(0), key)

    def repeat(number: int) -> OffloadAction:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (number, env.num_ues)), local_action)

    def cost(episode: Episodes) -> Array:
        return -episode.episode_return if objective == "return" else episode.objective

    def measure(actions: OffloadAction, limit: Float[Array, ""]) -> Measured:
        def play(action: OffloadAction, key: Array) -> Episodes:
            # One cost above as many limits as there are episodes lifts their mean above the limit.
            return play_episode(
                env, params, policy, action, key, lambda so_far: cost(so_far) <= limit * len(episode_keys)
            )

        episodes = jax.vmap(jax.vmap(play, (None, 0)), (0, None))(actions, episode_keys)
        costs = jnp.where(episodes.terminated, cost(episodes), jnp.inf)
        return Measured(jnp.mean(costs, axis=1), actions, episodes)

    def generation(kept: Measured, numbered_key: tuple[Array, Array]) -> tuple[Measured, None]:
        number, key = numbered_key
        random, children = _children(env, params, kept.actions, population, key)
        actions = jax.tree.map(
            lambda *kinds: jnp.select([number == 0, number <= 3], kinds[:2], kinds[2]),
            repeat(population),
            random,
            children,
        )
        found = measure(actions, jnp.minimum(kept.costs[-1], 2 * kept.costs[0]))
        return cheapest(jax.tree.map(lambda *x: jnp.concatenate(x), found, kept), len(kept.costs)), None

    def search(key: Array) -> Measured:
        size = population // 4
        shapes = jax.eval_shape(measure, repeat(size), jnp.inf)
        nothing: Measured = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        nothing = nothing._replace(costs=jnp.full_like(nothing.costs, jnp.inf))
        numbered_keys = (jnp.arange(generations), jax.random.split(key, generations))
        kept, _ = jax.lax.scan(generation, nothing, numbered_keys)
        return jax.tree.map(lambda x: x[0], kept)

    found = jax.lax.map(search, jax.random.split(key, restarts))
    best: Measured = jax.tree.map(lambda x: x[jnp.argmin(found.costs)], found)
    return StaticSolution(best.actions, jnp.mean(best.episodes.episode_return), best.episodes)


class Measured(NamedTuple):
    """Candidates of a search."""

    costs: Float[Array, " candidate"]  # to be minimised
    actions: OffloadAction  # [candidate, ...]
    episodes: Episodes  # [candidate, ...]


def cheapest(measured: Measured, number: int) -> Measured:
    """The cheapest candidates in order, one of each cost: equal costs are the same behaviour in two guises."""
    order = jnp.argsort(measured.costs)
    costs = measured.costs[order]
    costs = costs.at[1:].set(jnp.where(costs[1:] == costs[:-1], jnp.inf, costs[1:]))
    order = order[jnp.argsort(costs)[:number]]
    best = jax.tree.map(lambda x: x[order], measured)
    return best._replace(costs=jnp.sort(costs)[:number])


def action_from_uniform(
    env: MultiUEOffloading,
    params: Params,
    cut: Float[Array, "*batch ue"],
    channel: Float[Array, "*batch ue"],
    power: Float[Array, "*batch ue"],
) -> OffloadAction:
    """Actions from uniform numbers in [0, 1). Powers crowd near the maximum and reach down to the minimum."""
    return OffloadAction(
        (cut * env.num_points).astype(jnp.int32),
        (channel * env.num_channels).astype(jnp.int32),
        params.power_max * (MIN_POWER / params.power_max) ** (power**3),
    )


def _children(
    env: MultiUEOffloading, params: Params, parents: OffloadAction, number: int, key: Array
) -> tuple[OffloadAction, OffloadAction]:
    """Random actions `[number, ue]`, and as many children of `parents [parent, ue]`.

    A child takes each UE's decision from one of two parents, draws one cut and one channel anew on average,
    and moves the logarithm of every power by a Cauchy step: mostly a little, now and then far.
    """
    parent_key, key = jax.random.split(key)
    mother, father = jax.random.randint(parent_key, (2, number), 0, len(parents.cut))
    # One draw for everything: each would add to the time it takes to compile.
    cut, channel, power, share, from_mother, new_cut, new_channel, step = jax.random.uniform(
        key, (8, number, env.num_ues), params.power_max.dtype
    )
    random = action_from_uniform(env, params, cut, channel, power)
    child = jax.tree.map(lambda x: jnp.where(from_mother < share[:, :1], x[mother], x[father]), parents)
    step = 0.1 * jnp.tan(jnp.pi * (step - 0.5))
    child = OffloadAction(
        jnp.where(new_cut < 1 / env.num_ues, random.cut, child.cut),
        jnp.where(new_channel < 1 / env.num_ues, random.channel, child.channel),
        jnp.clip(child.power * jnp.exp(step), MIN_POWER, params.power_max),
    )
    return random, child
