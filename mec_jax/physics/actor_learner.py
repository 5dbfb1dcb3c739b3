"""Timeline of a distributed actor-learner: actors, the link they share, and the learner's accelerator.

Derived from Dai et al. 2022 ("Towards Scalable and Efficient Deep-RL in Edge Computing", Coknight), whose section 5
measures three frameworks and models none: SEED-RL (cut y = 0, every layer at the learner), IMPALA (y = K, every layer
at the actor) and what lies between. It is a closed queueing network here. Each of N actors repeats a step for ever:

- think: step the environment, run the layers up to the cut, and call the learner (a delay, as every actor has its own
  processor);
- link: one queue for all, of the cut's tensor and of what synchronises actor and learner, spread over the steps: the
  step's part of the trajectory, and a step's part of the model that the actor pulls;
- edge: one queue for all, of the remaining layers at the learner's accelerator and of the step's part of training.

Synchronisation and training go on beside the actor in the paper. Charging them to its steps keeps the capacity of
link and accelerator exact, and makes the step of a lone actor too long by just these two demands.

With exponential service times and first come, first served queues the network has a product form, and mean value
analysis is exact (Reiser and Lavenberg 1980). With steadier service, the throughput lies between that and the
asymptotic bound. The paper's times are means of FLOP and bit over a speed (eqs. 4 to 6), so that both are needed.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mec_jax.physics.partition import cut_times

type Number = float | Float[Array, ""]


class Machines(NamedTuple):
    """What the paper's equations leave to the machines."""

    environment_time: Number  # s to step the environment
    call_time: Number  # s of a remote call outside of link and accelerator (encoding, latency); none at y = K
    device_speed: Number  # f_d, FLOP/s that a device reaches
    edge_speed: Number  # f_e, FLOP/s that the accelerator reaches on one request
    dispatch_time: Number  # s that a request holds the accelerator besides its FLOP; none at y = K
    training_time: Number  # s of the accelerator to learn from one step
    bandwidth: Number  # tr, bit/s of the link
    headers: Number  # bit on the link for a bit of payload, >= 1
    trajectory_bits: Number  # bit of a step in the trajectory that the actor uploads
    model_bits: Number  # bit of the model that the actor pulls
    pull_interval: Number  # steps between two pulls
    upload_at_zero: Number  # part of the trajectory uploaded at y = 0, where the learner has seen all but the rewards


class Demands(NamedTuple):
    """Mean seconds that one step of one actor asks of each station."""

    think: Float[Array, ""]  # s, of the actor itself
    link: Float[Array, ""]  # s, of the shared link
    edge: Float[Array, ""]  # s, of the accelerator while it serves one request at a time


class Timeline(NamedTuple):
    """Means of a closed network with 1 to N actors."""

    throughput: Float[Array, " actor"]  # steps/s of all actors together
    step_time: Float[Array, " actor"]  # s of a step of one actor
    link_queue: Float[Array, " actor"]  # requests waiting for or on the link
    edge_queue: Float[Array, " actor"]  # requests waiting for or in the accelerator
    link_use: Float[Array, " actor"]  # part of the time that the link is busy
    edge_use: Float[Array, " actor"]  # part of the time that the accelerator is busy


class Bounds(NamedTuple):
    """What no distribution of the service times can leave."""

    lower: Float[Array, " actor"]  # steps/s, if every actor waited for all the others at each queue
    upper: Float[Array, " actor"]  # steps/s, if none waited until a station is full


def link_bits(bits: Float[Array, " cut"], cut: Int[Array, ""], machines: Machines) -> Float[Array, ""]:
    """What one step puts on the link, headers included, bit.

    Args:
        bits: b_0 to b_K of the policy network, b_0 the raw input, [K + 1].
        cut: y, 0 to K.
        machines: Speeds, times and sizes.

    Returns:
        The cut's tensor (none at K), the step's part of the trajectory and its part of the pulled model (none at 0,
        where the actor holds no layer).
    """
    tensor = jnp.where(cut < bits.size - 1, bits[cut], 0)
    trajectory = machines.trajectory_bits * jnp.where(cut > 0, 1, machines.upload_at_zero)
    model = jnp.where(cut > 0, machines.model_bits / machines.pull_interval, 0)
    return machines.headers * (tensor + trajectory + model)


def step_demands(
    flops: Float[Array, " layer"], bits: Float[Array, " cut"], cut: Int[Array, ""], machines: Machines
) -> Demands:
    """Demands of one step at a cut: the terms of eq. 6 station by station, and what it leaves out.

    The action that comes back is taken for a part of the call: it has a few bytes, not eq. 6's b_K.

    Args:
        flops: c_1 to c_K, FLOP of each layer, [K].
        bits: b_0 to b_K, bit, [K + 1].
        cut: y, 0 to K.
        machines: Speeds, times and sizes.
    """
    on_device = jnp.where(jnp.arange(flops.size) < cut, flops, 0).sum()
    remote = cut < flops.size
    time = cut_times(
        on_device,
        link_bits(bits, cut, machines),
        flops.sum() - on_device,
        machines.device_speed,
        machines.bandwidth,
        machines.edge_speed,
    )
    think = machines.environment_time + time.device + jnp.where(remote, machines.call_time, 0)
    inference = jnp.where(remote, machines.dispatch_time + time.server, 0)
    return Demands(think, time.link, inference + machines.training_time)


def mean_value_analysis(demands: Demands, rates: Float[Array, " actor"]) -> Timeline:
    """Exact means of the closed network for every number of actors from 1 to N.

    The edge serves at a rate that may depend on how many requests are there, which is how batches speed it up. Its
    idle time comes from the network without it, p_0(n) = p_0(n - 1) X(n) / X_without(n), and not as 1 minus the rest,
    which loses all digits when it is small (Reiser 1981).

    Args:
        demands: Of one step; thinking takes time.
        rates: Of the edge with 1 to N requests there, relative to one at a time, [N]; ones without batches. N is
            their number.
    """
    num_actors = rates.size
    present = jnp.arange(1, num_actors + 1)

    def add_actor(carry: tuple, n: Int[Array, ""]) -> tuple:
        link_queue, edge_marginal, other_queue = carry  # of n - 1 actors; `other_queue` in the network without the edge
        link_time = demands.link * (1 + link_queue)
        service = demands.edge / rates
        edge_time = (present * service * edge_marginal[:-1]).sum()
        throughput = n / (demands.think + link_time + edge_time)
        other_time = demands.link * (1 + other_queue)
        other_throughput = n / (demands.think + other_time)
        idle = edge_marginal[0] * throughput / other_throughput
        edge_marginal = jnp.concatenate([idle[None], throughput * service * edge_marginal[:-1]])
        link_queue = throughput * link_time
        timeline = Timeline(
            throughput=throughput,
            step_time=n / throughput,
            link_queue=link_queue,
            edge_queue=throughput * edge_time,
            link_use=throughput * demands.link,
            edge_use=1 - idle,
        )
        return (link_queue, edge_marginal, other_throughput * other_time), timeline

    zero = jnp.zeros((), rates.dtype)
    empty = jnp.zeros(num_actors + 1, rates.dtype).at[0].set(1)
    return jax.lax.scan(add_actor, (zero, empty, zero), present)[1]


def batch_rates(num_actors: int, batch: Number, shared: Number) -> Float[Array, " actor"]:
    """Rates of an accelerator that serves what is there as one batch, relative to one request at a time.

    A batch of j takes `shared` of the time of one request, and the rest j times. The law has no memory of when a batch
    began: what arrives joins it, so that this is what batches gain at most.

    Args:
        num_actors: N, static.
        batch: Largest batch, >= 1.
        shared: Part of the time of one request that a batch takes only once, such as reading the weights; 0 to 1.
    """
    together = jnp.minimum(jnp.arange(1, num_actors + 1), batch).astype(float)
    return together / (shared + (1 - shared) * together)


def asymptotic_bounds(demands: Demands, num_actors: int) -> Bounds:
    """Bounds on the throughput of 1 to N actors with an edge without batches.

    X <= min(n / (Z + D_link + D_edge), 1 / D_link, 1 / D_edge), and X >= n / (Z + n (D_link + D_edge)).

    Args:
        demands: Of one step.
        num_actors: N, static.
    """
    n = jnp.arange(1, num_actors + 1)
    queued = demands.link + demands.edge
    alone = n / (demands.think + queued)
    capacity = 1 / jnp.maximum(demands.link, demands.edge)
    return Bounds(n / (demands.think + n * queued), jnp.minimum(alone, capacity))
