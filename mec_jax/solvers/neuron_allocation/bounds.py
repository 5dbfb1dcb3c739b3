"""What no policy of `NeuronAllocation-v0` and its variants exceeds."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mec_jax.contracts import Episodes
from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.envs.neurons import Context
from mec_jax.episodes import start_key, step_keys
from mec_jax.solvers.neurons import bound_episodes, layer_bound, may_lose, some_fail


def bound(env: NeuronAllocation, params: Params, keys: Array) -> Episodes:
    """What no policy exceeds in return, in the episodes of the keys. Exact if no device can fail and there are at
    most `BOUND_ASSIGNMENTS` assignments of a layer: then each layer's best assignment is found by trying all.

    Proof. The context of a layer - who is there, how fast, when who fails - depends on the key alone, and queues are
    empty at its start, so that layers are problems of their own. Let C_1 <= C_2 <= ... be the times of
    `position_times` of all devices and positions, sorted.

    (1) If all n pieces of a layer get a result, the i-th result comes no earlier than C_i. For the p-th result that a
    device returns comes no earlier than its p-th position time: completion times of a first in, first out chain of
    servers never shrink if pieces get larger, come later or are preceded by others (whose results are lost), and the
    p-th piece on a device is submitted no earlier than the p-th decision. So the results come at times of which each
    is at least that of a position of its own, and the i-th smallest of those is at least C_i. The sum of
    P_j / T_j is then at least the sum of C_i / T_(i) with T_(1) <= T_(2) <= ... the ideal times, by the rearrangement
    inequality. Position times are those of private links, which no medium beats: what a device is sent, computes and
    returns passes three first in, first out servers in the order of submission on all media, and off private links
    transmissions of its own or of others make it wait longer, as if it came later.

    (2) If no device fails in the layer, its cost is that of an assignment, on the environment's own medium, so at least
    that of the best one.

    (3) Pieces can be lost only in a layer where every device that is there fails (or none is there), and after it. With
    s of them lost the cost of the layer is at least s * lost_slowdown + the sum over i <= n - s of C_i / T_(n), hence
    at least the sum of min(C_i / T_(n), lost_slowdown). In a later layer the cost is either that of (1) to (3), or
    lost_slowdown for each piece.

    The bound is, per layer, the best of what holds. Its latency is a lower bound, too: the sum of C_n, where no piece
    can have been lost. To rounding errors, some 1e-6 of the cost.

    Args:
        env: The environment; static.
        params: Its parameters; traced.
        keys: Keys `[episode]`, as for `play_episodes`.
    """
    slowdown, latency = _episode_bounds(env, params, keys)
    return bound_episodes(env, params, slowdown, latency, ("reassigned", "lost"))


@partial(jax.jit, static_argnames="env")
def _episode_bounds(
    env: NeuronAllocation, params: Params, keys: Array
) -> tuple[Float[Array, " episode"], Float[Array, " episode"]]:
    """Least sums of slowdowns, and latencies (s)."""
    counts = jnp.minimum(params.neurons, env.num_pieces)

    def of_layer(layer: Int[Array, ""], context: Context) -> tuple[Array, Array, Array]:
        devices = env.devices(context, params)
        found, loses = layer_bound(env, layer, devices, params, env.channels), may_lose(devices)
        cost = jnp.where(some_fail(devices), found.cost, jnp.maximum(found.cost, found.best))
        cost = jnp.where(loses, jnp.minimum(cost, found.with_losses), cost)
        return cost, found.earliest[counts[layer] - 1], loses

    def episode(key: Array) -> tuple[Array, Array]:
        contexts = episode_contexts(env, params, key)
        cost, latency, loses = jax.lax.map(lambda x: of_layer(*x), (jnp.arange(env.num_layers), contexts))
        over = jnp.cumsum(loses) > 0  # in this layer, or before
        before = over & (jnp.cumsum(loses) - loses > 0)
        cost = jnp.where(before, jnp.minimum(cost, counts * params.lost_slowdown), cost)
        return jnp.sum(cost), jnp.sum(jnp.where(over, 0, latency))

    return jax.lax.map(episode, keys, batch_size=16)


def episode_contexts(env: NeuronAllocation, params: Params, key: Array) -> Context:
    """The contexts `[layer, device]` of an episode that `play_episodes` plays with the key, whatever the policy.

    Args:
        env: The environment.
        params: Its parameters.
        key: Of the episode.
    """

    def decision(carry: tuple, nothing: None) -> tuple[tuple, tuple[Array, Array, Context]]:
        key, layer, piece, context = carry
        key, _, step_key = step_keys(key)
        done = piece + 1 >= jnp.minimum(params.neurons[jnp.minimum(layer, env.num_layers - 1)], env.num_pieces)
        following = env.next_context(step_key, context, jnp.minimum(layer + 1, env.num_layers - 1), params)
        after = jax.tree.map(lambda new, old: jnp.where(done, new, old), following, context)
        return (key, layer + done, jnp.where(done, 0, piece + 1), after), (layer, piece, context)

    key, reset_key = start_key(key)
    zero = jnp.zeros((), jnp.int32)
    start = (key, zero, zero, env.first_context(reset_key, params))
    _, (layer, piece, context) = jax.lax.scan(decision, start, length=env.num_layers * env.num_pieces)
    # Steps beyond the last layer fall out of range, as do those that start no layer, and are dropped.
    where = jnp.where(piece == 0, layer, env.num_layers)
    return jax.tree.map(
        lambda x: jnp.zeros((env.num_layers, *x.shape[1:]), x.dtype).at[where].set(x, mode="drop"), context
    )
