"""What DEFP earns, and what no policy of `PartitionGame-v0` exceeds."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mec_jax.contracts import Episodes
from mec_jax.envs.partition_game import Context, Params, PartitionGame, variance
from mec_jax.episodes import start_key, step_keys
from mec_jax.physics.partition_game import Allocation, nobody
from mec_jax.solvers.partition_game.heuristics import defp_arrive, defp_leave
from mec_jax.solvers.partition_game.optimum import optimum


def play_defp(env: PartitionGame, params: Params, keys: Array) -> Episodes:
    """What DEFP earns in the episodes of the keys. It re-cuts all pairs of a newcomer at once, and one player's when
    somebody leaves, so that it needs no turns: more than the environment lets a policy do.

    Args:
        env: The environment.
        params: Its parameters.
        keys: Keys `[episode]`, as for `play_episodes`.
    """
    return _episodes(params, *_defp_episodes(env, params, int(params.max_steps_in_episode), keys))


@partial(jax.jit, static_argnames=("env", "steps"))
def _defp_episodes(env: PartitionGame, params: Params, steps: int, keys: Array) -> tuple[Array, Array, Array]:
    def step(allocation: Allocation, context: Context) -> tuple[Allocation, tuple[Array, Array, Array]]:
        game = env.game(context.kind, params)

        def follow(device: Array, allocation: Allocation, come: bool) -> Allocation:
            wants, here = context.present[device], allocation.present[device]
            after = (defp_arrive if come else defp_leave)(game, allocation, device)
            changes = (wants & ~here) if come else (here & ~wants)
            return jax.tree.map(lambda new, old: jnp.where(changes, new, old), after, allocation)

        for come in (False, True):
            allocation = jax.lax.fori_loop(0, env.num_devices, partial(follow, come=come), allocation)
        utility = jnp.take_along_axis(game.utility, allocation.cut[:, None], axis=1)[:, 0]
        utility = jnp.where(context.present, utility, 0)
        spread = variance(allocation.cut.astype(utility.dtype), context.present)
        return allocation, (jnp.sum(utility), spread, variance(utility, context.present))

    def episode(key: Array) -> tuple[Array, Array, Array]:
        contexts = episode_contexts(env, params, steps, key)
        return jax.lax.scan(step, nobody(env.game(contexts.kind[0], params)), contexts)[1]

    return jax.vmap(episode)(keys)


def bound(env: PartitionGame, params: Params, keys: Array) -> Episodes:
    """What no policy exceeds in return, in the episodes of the keys: at each step the optimum of who is there.

    Proof. Who is there at a step, and how fast, depends on the key alone (`PartitionGame.next_context`). The cuts at
    that step fit the capacity, as masks, arrivals, departures and `shed` keep them so. So the sum of utilities, which
    the step earns, is at most the greatest one that fits, `optimum` of that population; sum over steps. To HiGHS'
    tolerances, 1e-6.

    It is not always reached: cuts change one a step, so that after a change of the population some steps pass first.
    One mixed integer program is solved for each population, as counts of kinds, that the keys bring about: at most
    286 for ten devices of three kinds.

    Args:
        env: The environment.
        params: Its parameters, one scenario.
        keys: Keys `[episode]`, as for `play_episodes`.
    """
    contexts = _contexts(env, params, int(params.max_steps_in_episode), keys)
    present, kind = np.asarray(contexts.present), np.asarray(contexts.kind)
    counts = np.stack([np.sum(present & (kind == each), axis=-1) for each in range(env.num_kinds)], axis=-1)
    populations, which = np.unique(counts.reshape(-1, env.num_kinds), axis=0, return_inverse=True)
    found = np.array([_population_optimum(env, params, population) for population in populations])
    columns = found[which.reshape(counts.shape[:-1])]
    return _episodes(params, *(jnp.asarray(columns[..., index], float) for index in range(3)))


def _population_optimum(env: PartitionGame, params: Params, population: np.ndarray) -> tuple[float, float, float]:
    """Sum of utilities (s) of the optimum, and the variances of cuts and utilities."""
    total = int(population.sum())
    if not total:
        return 0.0, 0.0, 0.0
    # The others are absent, of any kind.
    kind = np.append(np.repeat(np.arange(env.num_kinds), population), np.zeros(env.num_devices - total, int))
    game = env.game(jnp.asarray(kind), params)
    best = optimum(game, np.arange(env.num_devices) < total)
    utility = np.asarray(game.utility)[np.arange(total), best.cut[:total]]
    return best.utility, float(np.var(best.cut[:total])), float(np.var(utility))


def episode_contexts(env: PartitionGame, params: Params, steps: int, key: Array) -> Context:
    """The contexts `[step, device]` of an episode that `play_episodes` plays with the key, whatever the policy.

    Args:
        env: The environment.
        params: Its parameters.
        steps: How many.
        key: Of the episode.
    """

    def step(carry: tuple[Array, Context], nothing: None) -> tuple[tuple[Array, Context], Context]:
        key, context = carry
        key, _, step_key = step_keys(key)
        return (key, env.next_context(step_key, context, params)), context

    key, reset_key = start_key(key)
    return jax.lax.scan(step, (key, env.first_context(reset_key, params)), length=steps)[1]


_contexts = jax.jit(jax.vmap(episode_contexts, (None, None, None, 0)), static_argnums=(0, 2))


def _episodes(params: Params, utility: Array, cut_variance: Array, utility_variance: Array) -> Episodes:
    """Episodes of columns `[episode, step]`."""
    episodes, steps = utility.shape
    return Episodes(
        episode_return=jnp.sum(utility, axis=1) / params.reference_utility,
        frames=jnp.full(episodes, steps, jnp.int32),
        terminated=jnp.zeros(episodes, bool),
        measures={
            "utility": jnp.mean(utility, axis=1),
            "cut_variance": jnp.mean(cut_variance, axis=1),
            "utility_variance": jnp.mean(utility_variance, axis=1),
        },
    )
