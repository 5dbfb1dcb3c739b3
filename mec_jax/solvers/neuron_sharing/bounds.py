"""What no policy of `NeuronSharing-v0` exceeds."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mec_jax.contracts import Episodes
from mec_jax.envs.neuron_sharing import NeuronSharing, Params
from mec_jax.episodes import start_key
from mec_jax.solvers.neurons import bound_episodes, layer_bound, may_lose, some_fail


def bound(env: NeuronSharing, params: Params, keys: Array) -> Episodes:
    """What no policy exceeds in return, in the episodes of the keys.

    Proof. Let R requesters go through L layers. C_1 <= C_2 <= ... <= C_n are, for a layer of n pieces, the least of
    the position times of `mec_jax.solvers.neurons.position_times`, counted from the layer's start, of all
    devices that were there at the first request; T_(1) <= ... <= T_(n) are the ideal times of its pieces.

    (1) A requester's layer costs at least B_l = sum of C_i / T_(i) if all its pieces get a result. If it had idle
    devices for itself alone, this is (1) of `mec_jax.solvers.neuron_allocation.bound`. What others submit, and that a
    device has failed, takes nothing from any time: completion times of a first in, first out chain never shrink if it
    is not empty at first, or if other pieces come between. For the same reason it costs at least the best of all
    assignments of an idle layer, A_l, if no device fails; so the cost of an episode is at least R * sum of A_l.

    (2) If the layer lasts D, its last result comes at D >= C_n and the others as in (1), so that it costs at least
    B_l + (D - C_n) / T_(n), by the rearrangement inequality. Layers of a requester follow one another without a gap:
    its latency is the sum of its D. So it costs at least sum of B_l + (latency - sum of C_n) / T, with T the largest
    T_(n) of all layers, and all requesters together R * sum of B_l + (sum of latencies - R * sum of C_n) / T.

    (3) The k-th requester to finish does so no earlier than the devices can do the work W of k networks together, k W
    / sum of speeds, after the first request, or than its arrival and the sum of C_n. So the sum of latencies is at
    least that of k W / sum of speeds, less that of the arrivals, and at least R * sum of C_n.

    (4) Pieces can be lost only if every device fails that is there. Then a layer costs at least the sum of
    min(C_i / T_(n), lost_slowdown), by (3) of `mec_jax.solvers.neuron_allocation.bound`.

    The bound is the best of what holds, as is its latency: the mean of (3), or 0 if pieces can be lost. To rounding
    errors, some 1e-5 of the cost. It is exact for one requester where no device fails and layers have at most
    `BOUND_ASSIGNMENTS` assignments; with more it leaves out most of what waiting for one another costs.

    Args:
        env: The environment; static.
        params: Its parameters; traced.
        keys: Keys `[episode]`, as for `play_episodes`.
    """
    slowdown, latency = _episode_bounds(env, params, keys)
    return bound_episodes(env, params, slowdown, latency, ("use_variance", "reassigned", "lost"))


@partial(jax.jit, static_argnames="env")
def _episode_bounds(
    env: NeuronSharing, params: Params, keys: Array
) -> tuple[Float[Array, " episode"], Float[Array, " episode"]]:
    """Least sums of slowdowns, and mean latencies (s)."""
    counts = jnp.minimum(params.neurons, env.num_pieces)
    requesters = env.num_requesters

    def episode(key: Array) -> tuple[Array, Array]:
        devices = env.devices(env.context(start_key(key)[1], params), params)
        layers = jnp.arange(env.num_layers)
        found = jax.lax.map(lambda layer: layer_bound(env, layer, devices, params), layers)
        duration = found.earliest[layers, counts - 1]
        work = jnp.sum(params.neurons * params.neuron_flops)
        speed = jnp.sum(jnp.where(devices.failure > 0, devices.speed, 0))
        arrivals = params.arrival_gap * jnp.arange(requesters)
        least_latencies = requesters * jnp.sum(duration)
        latencies = jnp.maximum(least_latencies, jnp.sum(jnp.arange(1, requesters + 1) * work / speed - arrivals))
        crowded = requesters * jnp.sum(found.cost) + (latencies - least_latencies) * jnp.min(found.least_weight)
        total = jnp.where(some_fail(devices), crowded, jnp.maximum(crowded, requesters * jnp.sum(found.best)))
        loses = may_lose(devices)
        total = jnp.where(loses, requesters * jnp.sum(found.with_losses), total)
        return total, jnp.where(loses, 0, latencies / requesters)

    return jax.lax.map(episode, keys, batch_size=16)
