"""Several requesters that share IoT devices, each with a DNN whose layers' neurons are divided among them.

The concurrent tasks of Huang et al. 2022 ("Toward Decentralized and Collaborative Deep Learning Inference for
Intelligent IoT Devices", DeColla, Figs. 5c and 6d), which the paper names and does not describe. One requester alone is
`mec_jax.envs.neuron_allocation`; physics, and what is open of it, in `mec_jax.physics.neuron_sharing`.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple, cast, override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mec_jax.contracts import Step, Traits
from mec_jax.envs.neurons import (
    BANDWIDTH_UNIT,
    DEVICE_FIELDS,
    SPEED_UNIT,
    TESTBED,
    Context,
    NeuronParams,
    NeuronProblem,
    failure_times,
    other_fields,
    piece_fields,
    read_queue,
    some_present,
)
from mec_jax.files import check_count
from mec_jax.observations import Block, ObservationTable
from mec_jax.parameters import parameter
from mec_jax.physics.neuron_allocation import Devices, Pieces, Queue
from mec_jax.physics.neuron_sharing import (
    Rules,
    Sharing,
    idle,
    layer_end,
    next_layer,
    next_submission,
    send_again,
    send_first,
)


class Situation(NamedTuple):
    """What a controller sees. Speeds and bandwidths of absent devices are those of the units."""

    layer: Int[Array, ""]  # of the requester whose piece it is
    piece: Int[Array, ""]  # the next one
    present: Bool[Array, " device"]
    speed: Float[Array, " device"]  # FLOP/s that are free
    bandwidth: Float[Array, " device"]  # bit/s
    queue: Queue  # s from now, at least 0
    other_layer: Int[Array, " other"]  # of the requesters after this one, cyclically
    other_pieces: Int[Array, " other"]  # of that layer that were submitted
    other_wait: Float[Array, " other"]  # s from now until the last of these should be back, or the layer starts


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """Where the inferences stand, and what the episode has cost so far."""

    time: Int[Array, ""]  # decisions taken
    requester: Int[Array, ""]  # whose piece is next
    layer: Int[Array, " requester"]
    context: Context  # [device] of the whole episode; failures in s since the first request
    sharing: Sharing
    over: Bool[Array, ""]  # every inference has its result, or no device is left
    charged: Float[Array, " requester"]  # slowdowns of its current layer that were charged already
    slowdown: Float[Array, ""]  # sum over the pieces of the episode
    finished: Int[Array, ""]  # pieces of ended layers with a result
    lost: Int[Array, ""]  # pieces that will have no result


@struct.dataclass(kw_only=True)
class Params(NeuronParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    # All at once: the paper's concurrent tasks.
    arrival_gap: Float[Array, ""] = parameter(0.0, "s", "Fig. 5c", "from one request to the next", least=0)


class NeuronSharing(NeuronProblem[State, Params]):
    """`NeuronSharing-v0`: a device for each piece of each layer of several inferences at once.

    Requester i asks at i times the arrival gap, and goes through the layers of the same network with a barrier after
    each, as in `NeuronAllocation`. Devices serve what all of them submit, first in, first out. The next decision is
    that of the requester whose piece is submitted next; of several, the first. Without a `decision_time` this is the
    one whose layer starts earliest, and all pieces of a layer are submitted at its start. A device's usage and
    bandwidth last for the episode; it may fail within, and then stays away. All of that depends on keys alone.

    Choices of a device that is not there when the requester's layer starts fall to the next one, cyclically, that is.
    Choices out of range are clipped, and refused if they are no whole numbers by their type.

    Reward: with P_j the time of piece j from the start of its requester's layer until its result is there, T_j =
    g_j / F_ref its ideal time and S_j = P_j / T_j its slowdown, an interval dt earns -dt * (sum of 1 / T_j over the
    pieces without a result of all layers that have started), divided by `reference_slowdown`. So the undiscounted
    return is -(sum of all S_j) / reference_slowdown (the identity of DeepRM). An interval is that from one decision to
    the next; the last one lasts until all results are there.

    An episode terminates after the last layer of all, or when a piece is missing or a layer starts and no device is
    left: `info["stranded"]`. Each piece without a result is then charged `lost_slowdown`.

    Observation: that of `NeuronAllocation` for the requester whose piece is next, with shared backlogs; before its
    devices, for each other requester, in cyclic order, layer / L, pieces submitted of it / K, and log10(1 + wait /
    T_j), the time until the last of these should be back or, before the first, until its layer starts, T_j that of the
    next piece. Failures are not seen before the requester's next layer. `situation` reads it back.

    `info` holds `layer_done` [requester], true for layers that end before the next decision, and of these `completion`
    (s since the first request, [requester, piece]) and `results` ([requester, piece] in the message queue);
    `stranded`; and of the episode so far `slowdown` (sum), `latency` (s, mean over requesters, from request to last
    result), `use_variance` (over devices, of the part of the time until the last result in which each computes),
    `finished`, `reassigned` and `lost` (pieces). With one requester all of it is as in `NeuronAllocation`, as long as
    nothing changes between layers there.

    Two findings with MobileNetV2. `Shortest completion`, all but optimal for one requester, has the least latency for
    two to four, and a larger slowdown than `Average` and even `Random`: it fills all queues alike, so that pieces of
    short layers, of which the slowdown is made, wait behind those of long ones everywhere. And from three requesters on
    three devices on, a device for each is faster than to divide all layers among all.

    Args:
        network: Name of a network or JSON file of its neurons (`mec_jax.profiles.neurons`).
        num_requesters: Inferences at once.
        num_devices: Devices that may be there.
        num_pieces: Of a layer, K.

    Raises:
        ValueError: If the network is unknown, or a number is not whole or below 1.
    """

    params_type = Params
    solver = "mec_jax.solvers.neuron_sharing:SOLVER"

    def __init__(
        self,
        network: str | os.PathLike[str] = "mobilenet_v2",
        num_requesters: int = 2,
        num_devices: int = 3,
        num_pieces: int = 6,
    ) -> None:
        super().__init__(network, num_devices, num_pieces)
        self.num_requesters = check_count("num_requesters", num_requesters)

    @property
    @override
    def traits(self) -> Traits:
        contended = self.num_requesters > 1
        return Traits(discrete=True, continuous=False, contended=contended, slots=self.table.slots)

    @property
    @override
    def table(self) -> ObservationTable:
        return self._table(self.num_requesters - 1)

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        given = super().given(numbers)
        decisions = self.num_requesters * cast(int, given["max_steps_in_episode"])
        return {**given, **TESTBED, "max_steps_in_episode": decisions}

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Float[Array, " observation"], State]:
        zero = jnp.zeros((), jnp.int32)
        arrival = jnp.arange(self.num_requesters) * params.arrival_gap
        state = State(
            time=zero,
            requester=zero,
            layer=jnp.zeros(self.num_requesters, jnp.int32),
            context=self.context(key, params),
            sharing=idle(arrival, self.num_devices, self.num_pieces),
            over=jnp.zeros((), bool),
            charged=jnp.zeros_like(arrival),
            slowdown=jnp.zeros_like(params.reference_speed),
            finished=zero,
            lost=zero,
        )
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: Int[Array, ""], params: Params) -> Step[State]:
        devices, pieces = self.devices(state.context, params), self.all_pieces(state.layer, params)
        rules = Rules(params.resend_input, params.timeout_factor, params.decision_time)
        more_layers = state.layer + 1 < self.num_layers
        device = self.valid_action(action, devices.failure > state.sharing.start[state.requester])
        sharing = send_first(state.sharing, devices, pieces, rules, state.requester, device)
        sharing, lost_all = send_again(sharing, devices, pieces, more_layers, rules)

        # Whose piece is next, and whether it is the first of a layer.
        submission = next_submission(sharing, pieces, more_layers, rules)
        following = jnp.argmin(submission).astype(jnp.int32)
        exists = pieces.flops > 0
        begins = sharing.submitted[following] >= jnp.sum(exists[following])
        end = layer_end(sharing, pieces)
        starts = jnp.where(begins, end[following], sharing.start[following])
        waits = jnp.isfinite(submission[following])
        stranded = lost_all | (waits & ~jnp.any(devices.failure > starts))
        over = stranded | ~waits

        # What the pieces of the current layers have cost until the next decision, or until the end of all.
        ideal = jnp.where(exists, pieces.flops, 1) / params.reference_speed
        until = jnp.where(over, jnp.inf, submission[following] - params.decision_time)
        spent_time = jnp.maximum(jnp.minimum(sharing.completion, until) - sharing.start[:, None], 0)
        lost = exists & ~jnp.isfinite(sharing.completion) & stranded
        spent = jnp.sum(jnp.where(exists, jnp.where(lost, params.lost_slowdown, spent_time / ideal), 0), axis=1)
        counts = jnp.minimum(params.neurons, self.num_pieces)
        later = jnp.where(jnp.arange(self.num_layers) > state.layer[:, None], counts, 0)
        unstarted = jnp.where(stranded, jnp.sum(later), 0)
        cost = jnp.sum(spent - state.charged) + unstarted * params.lost_slowdown

        moves = begins & ~over & (jnp.arange(self.num_requesters) == following)
        done = moves | over
        results = exists & jnp.isfinite(sharing.completion)
        # Latency so far, of what has returned.
        last = jnp.max(jnp.where(results, sharing.completion, sharing.start[:, None]), axis=1)
        arrival = jnp.arange(self.num_requesters) * params.arrival_gap
        makespan = jnp.max(last)
        # More than 1 of a device that worked for nothing until it failed.
        use = jnp.where(makespan > 0, jnp.minimum(sharing.busy / jnp.where(makespan > 0, makespan, 1), 1e9), 0)
        use_variance = jnp.var(use, where=devices.failure > 0)

        moved = next_layer(sharing, following, end[following])
        state = state.replace(
            time=state.time + 1,
            requester=following,
            layer=state.layer + moves,
            sharing=jax.tree.map(lambda new, old: jnp.where(begins & ~over, new, old), moved, sharing),
            over=over,
            charged=jnp.where(done, 0, spent),
            slowdown=state.slowdown + cost,
            finished=state.finished + jnp.sum(jnp.where(done[:, None], results, False)),
            lost=state.lost + jnp.sum(lost) + unstarted,
        )
        info = {
            "layer_done": done,
            "completion": sharing.completion,
            "results": results.astype(jnp.int32),
            "stranded": stranded,
            "slowdown": state.slowdown,
            "latency": jnp.mean(last - arrival),
            "use_variance": use_variance,
            "finished": state.finished,
            "reassigned": state.sharing.reassigned,
            "lost": state.lost,
        }
        reward = -cost / params.reference_slowdown
        return self.observe(key, state, action, params), state, reward, over, info

    @override
    def observe(
        self, key: Array, state: State, action: Int[Array, ""] | None, params: Params
    ) -> Float[Array, " observation"]:
        # Of all requesters, and then the others' rows: logarithms of fewer numbers at once differ in the last bit.
        whole = self._table(self.num_requesters)
        quantities = self._all_quantities(state, params)
        common, requesters, devices = whole.split(whole.observe(quantities, params, params.reference_speed.dtype))
        others = {name: column[self._others(state)] for name, column in requesters.items()}
        return self.table.join(common, others, devices)

    @override
    def quantities(self, state: State, params: Params) -> dict[str, Array]:
        found = self._all_quantities(state, params)
        others = [field.name for field in self.table.blocks[1].fields]
        return found | {name: found[name][self._others(state)] for name in others}

    def _table(self, num_rows: int) -> ObservationTable:
        """With rows for so many requesters."""
        common = Block(piece_fields(self.num_layers, self.num_pieces))
        requesters = Block(other_fields(self.num_layers, self.num_pieces), "other requester", num_rows)
        return ObservationTable((common, requesters, Block(DEVICE_FIELDS, "device", self.num_devices)))

    def _others(self, state: State) -> Int[Array, " other"]:
        """The requesters after the one whose piece is next, cyclically."""
        return (state.requester + jnp.arange(1, self.num_requesters)) % self.num_requesters

    def _all_quantities(self, state: State, params: Params) -> dict[str, Array]:
        """`quantities`, with the others' of all requesters."""
        sharing, requester = state.sharing, state.requester
        layer, piece, start = state.layer[requester], sharing.submitted[requester], sharing.start[requester]
        pieces, devices = self.pieces(layer, params), self.devices(state.context, params)
        count = jnp.minimum(params.neurons[layer], self.num_pieces)
        piece = jnp.minimum(piece, count - 1)  # after the last, anything that is defined
        now = start + (piece + 1) * params.decision_time
        backlogs = {name: jnp.maximum(getattr(sharing, name) - now, 0) for name in ("down", "cpu", "up")}
        known = jnp.where(jnp.isfinite(sharing.expected), sharing.expected, -jnp.inf)
        back = jnp.maximum(jnp.max(known, axis=1), sharing.start)
        return {
            **self.piece_quantities(layer, piece, pieces, params),
            "other_layer": state.layer,
            "other_pieces": sharing.submitted,
            "other_wait": jnp.maximum(back - now, 0),
            **self.device_quantities(devices, devices.failure > start, sharing.informed[requester], backlogs),
        }

    @override
    def situation(self, observation: Float[Array, " observation"], params: Params) -> Situation:
        common, others, slots = self.table.split(observation)
        layer, piece = self.read_piece(common)
        ideal = self.ideal_time(layer, piece, params)
        return Situation(
            layer=layer,
            piece=piece,
            present=slots["present"] > 0,
            speed=SPEED_UNIT * 10 ** slots["speed"],
            bandwidth=BANDWIDTH_UNIT * 10 ** slots["bandwidth"],
            queue=read_queue(slots, ideal),
            other_layer=jnp.round(others["other_layer"] * self.num_layers).astype(jnp.int32),
            other_pieces=jnp.round(others["other_pieces"] * self.num_pieces).astype(jnp.int32),
            other_wait=(10 ** others["other_wait"] - 1) * ideal,
        )

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return state.over

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        """Of an episode, from the last step's `info`: mean slowdown of its pieces, latency (s, mean over requesters),
        variance of device use, and how many pieces were reassigned or lost.
        """
        return {
            "slowdown": info["slowdown"] / self.num_decisions(params),
            "latency": info["latency"],
            "use_variance": info["use_variance"],
            "reassigned": info["reassigned"],
            "lost": info["lost"],
        }

    @override
    def num_decisions(self, params: Params) -> Int[Array, ""]:
        """Pieces of all layers of all requesters that are not empty."""
        return self.num_requesters * jnp.sum(jnp.minimum(params.neurons, self.num_pieces))

    def all_pieces(self, layer: Int[Array, " requester"], params: Params) -> Pieces:
        """The pieces of each requester's layer."""
        return jax.vmap(self.pieces, (0, None))(layer, params)

    def devices(self, context: Context, params: Params) -> Devices:
        """The devices; failures are s since the first request."""
        return Devices((1 - context.usage) * params.device_speed, context.bandwidth, context.failure)

    def context(self, key: Array, params: Params) -> Context:
        """What holds for an episode."""
        draw = _Draws(*jax.random.uniform(key, (len(_Draws._fields), self.num_devices), params.reference_speed.dtype))
        present = some_present(draw.member, params.present_probability)
        alone = jnp.sum(params.neurons * params.neuron_flops) / params.reference_speed
        return Context(
            usage=params.usage_low + (params.usage_high - params.usage_low) * draw.usage,
            bandwidth=params.bandwidth_low * (params.bandwidth_high / params.bandwidth_low) ** draw.bandwidth,
            present=present,
            failure=failure_times(present, draw.fails, draw.instant, alone, params),
        )


class _Draws(NamedTuple):
    """Uniform numbers [device] that a context is made of."""

    usage: Float[Array, " device"]
    bandwidth: Float[Array, " device"]
    member: Float[Array, " device"]
    fails: Float[Array, " device"]
    instant: Float[Array, " device"]
