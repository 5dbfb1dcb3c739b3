"""Allocation of a layer's neurons to IoT devices (Huang et al. 2022, "Toward Decentralized and Collaborative Deep
Learning Inference for Intelligent IoT Devices", DeColla).

One requester has a DNN computed by the devices around it. The neurons of each layer are cut into K pieces; the
controller sends each piece to a device, and the next layer starts when all results are back. Physics, and what the
paper leaves open of it, in `mec_jax.physics.neuron_allocation`.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple, override

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
    piece_fields,
    read_queue,
    some_present,
)
from mec_jax.files import check_choice, check_count
from mec_jax.observations import Block, ObservationTable
from mec_jax.parameters import parameter
from mec_jax.physics.neuron_allocation import (
    MEDIA,
    Channels,
    Devices,
    Medium,
    Pieces,
    Queue,
    after_submission,
    channels_of,
    empty_queue,
    finish_layer,
    plan,
    submit,
)

_DYNAMIC = {
    "usage_low": 0.1,
    "usage_high": 0.9,
    "usage_change": 0.1,
    "bandwidth_low": 1e8,
    "bandwidth_high": 1e9,
    "bandwidth_change": 0.1,
    "present_probability": 0.926,
    "join_probability": 0.1,
    "leave_probability": 0.003,
    "failure_probability": 0.005,
}
CONDITIONS: Mapping[str, Mapping[str, float]] = {
    "testbed": {
        **TESTBED,
        "usage_change": 0.0,
        "bandwidth_change": 0.0,
        "join_probability": 0.0,
        "leave_probability": 0.0,
    },
    # Usage and links change every ten layers; a device is there for 125 layers and away for 10, on average.
    "dynamic": _DYNAMIC,
    # A crowd: about half of the devices are there at any time.
    "slots": _DYNAMIC | {"present_probability": 0.5, "join_probability": 0.01, "leave_probability": 0.005},
}
"""What differs between the registered environments; assumed where the paper says nothing."""


class Situation(NamedTuple):
    """What a controller sees, in the order of slots. Speeds and bandwidths of absent devices are those of the units."""

    layer: Int[Array, ""]
    piece: Int[Array, ""]  # the next one
    present: Bool[Array, " slot"]
    speed: Float[Array, " slot"]  # FLOP/s that are free
    bandwidth: Float[Array, " slot"]  # bit/s
    queue: Queue  # s from now, at least 0


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """Where the inference stands, and what the episode has cost so far."""

    time: Int[Array, ""]  # decisions taken
    layer: Int[Array, ""]
    piece: Int[Array, ""]  # the next one of the layer
    context: Context
    queue: Queue  # [slot] s after the layer's start
    slot: Int[Array, " piece"]  # where each piece of the layer went
    completion: Float[Array, " piece"]  # s after the layer's start, as expected after the last submission
    charged: Float[Array, ""]  # slowdowns of the layer that were charged already
    slowdown: Float[Array, ""]  # sum over the pieces of the episode
    latency: Float[Array, ""]  # s, sum over the layers
    finished: Int[Array, ""]  # pieces with a result
    reassigned: Int[Array, ""]  # submissions beyond the first ones
    lost: Int[Array, ""]  # pieces that will have no result


@struct.dataclass(kw_only=True)
class Params(NeuronParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    usage_change: Float[Array, ""] = parameter(
        "conditions", "1", "assumed", "probability that usage is drawn anew after a layer", least=0, most=1
    )
    bandwidth_change: Float[Array, ""] = parameter(
        "conditions", "1", "assumed", "probability that a bandwidth is drawn anew after a layer", least=0, most=1
    )
    join_probability: Float[Array, ""] = parameter(
        "conditions", "1", "assumed", "of an absent device, after a layer", least=0, most=1
    )
    leave_probability: Float[Array, ""] = parameter(
        "conditions", "1", "assumed", "of a device, after a layer and with notice", least=0, most=1
    )


class NeuronAllocation(NeuronProblem[State, Params]):
    """`NeuronAllocation-v0` and its variants: a device for each piece of each layer.

    A decision assigns the next piece of the current layer; pieces of a layer are submitted one after the other from
    its start on, the smaller ones first. After its last piece, time goes on until all results are there. Empty pieces
    (of layers with fewer neurons than pieces) are skipped: MobileNetV2 has none, and 53 * 6 decisions. Usage of the
    devices, bandwidths and membership change between layers; devices fail within. All of that depends on keys alone.

    Slots: if there are more devices than slots, a slot i holds the i-th strongest of those present (free FLOP/s);
    else device i. Choices of an absent device fall to the next slot, cyclically, that is not empty. Choices out of
    range are clipped, and refused if they are no whole numbers by their type.

    Reward: with P_j the time of piece j from the start of its layer until its result is there, T_j = g_j / F_ref its
    ideal time and S_j = P_j / T_j its slowdown, an interval dt earns -dt * (sum of 1 / T_j over the layer's pieces
    without a result), divided by `reference_slowdown`. So the undiscounted return is -(sum of all S_j) /
    reference_slowdown (the identity of DeepRM, which the paper quotes). With a `decision_time` of 0 all pieces of a
    layer are submitted at its start, and the last one of a layer earns the whole.

    An episode terminates after the last layer, or when a layer cannot be finished because every device failed, or
    nobody is there when one starts: `info["stranded"]`. Each piece without a result is then charged `lost_slowdown`.

    Observation: layer / L, piece / K, pieces left of the layer / K, log10(FLOP of the piece / 1 MFLOP), and
    log10(1 + bits / 100 kbit) of the shared input, the own input and the output; then for each slot 1 if a device is
    there, log10(free speed / 1 GFLOP/s), log10(bandwidth / 100 Mbit/s), 1 if it has the shared input, and
    log10(1 + backlog / T_j) of its link to it, its processor and its link back, T_j that of the piece. All are 0 for
    an empty slot. `situation` reads it back. Failures are not seen before the next layer.

    `info` holds, of the layer that the step has ended, `completion` (s, [piece]) and `results` ([piece] in the message
    queue), valid where `layer_done`; `stranded`; and of the episode so far `slowdown` (sum), `latency` (s), `finished`,
    `reassigned` and `lost` (pieces).

    Two findings. At the paper's 20 Mbit/s and 32 bit per element, an honest exchange of every layer takes MobileNetV2
    10 s on three Pis, against 0.3 s of computing on one: links alone would decide, and collaboration would
    never pay. The defaults have 1 Gbit/s and 8 bit, where it does. And `Least` (all to the strongest) is worse than
    `Random` and `Average` in all three environments, whose links are private.

    The medium (`mec_jax.physics.neuron_allocation`): off private links, a submission can delay outputs that are not
    sent yet, so that `State.completion` and what is charged follow what is planned after each submission. The backlog
    of the link to a device is then that until its channel has sent all inputs submitted so far, that of the link back
    until the channel has nothing left to send. The bound is valid on all media, and `reference_slowdown` and
    `lost_slowdown` are those of private links on all of them, so that returns compare. On one shared channel at 50
    Mbit/s `Least` is better than `Random` and `Average`, as it sends the shared input once; at 1 Gbit/s it is not.

    Args:
        network: Name of a network or JSON file of its neurons (`mec_jax.profiles.neurons`).
        conditions: "testbed" (static), "dynamic" or "slots": which defaults the numbers have.
        num_devices: Devices that may be there; 3, or 100 under the conditions "slots", if absent.
        num_slots: Devices that can be chosen from, M_c; all if absent.
        num_pieces: Of a layer, K.
        medium: What pieces are exchanged over: a full-duplex link to each device ("private"), a half-duplex one
            ("half_duplex"), or one channel for all devices and both directions ("shared").

    Raises:
        ValueError: If the network, conditions or medium are unknown, or a number is not whole, below 1, or leaves slots
            over.
    """

    params_type = Params
    solver = "mec_jax.solvers.neuron_allocation:SOLVER"

    def __init__(
        self,
        network: str | os.PathLike[str] = "mobilenet_v2",
        conditions: str = "testbed",
        num_devices: int | None = None,
        num_slots: int | None = None,
        num_pieces: int = 6,
        medium: Medium = "private",
    ) -> None:
        check_choice("medium", medium, MEDIA)
        check_choice("conditions", conditions, CONDITIONS)
        default = 100 if conditions == "slots" else 3
        super().__init__(network, default if num_devices is None else num_devices, num_pieces)
        self.conditions = conditions
        self.medium = medium
        self._num_slots = check_count("num_slots", self.num_devices if num_slots is None else num_slots)
        if self.num_slots > self.num_devices:
            raise ValueError(f"{self.num_slots} slots for {self.num_devices} devices: have at most as many")

    @property
    @override
    def num_slots(self) -> int:
        return self._num_slots

    @property
    def channels(self) -> Channels | None:
        """Which channel carries what; nothing if links are private, which need no plan."""
        return None if self.medium == "private" else channels_of(self.medium, self.num_slots)

    @property
    @override
    def traits(self) -> Traits:
        return Traits(discrete=True, continuous=False, slots=self.table.slots)

    @property
    @override
    def table(self) -> ObservationTable:
        common = Block(piece_fields(self.num_layers, self.num_pieces))
        return ObservationTable((common, Block(DEVICE_FIELDS, "slot", self.num_slots)))

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        return {**super().given(numbers), **CONDITIONS[self.conditions]}

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Float[Array, " observation"], State]:
        nothing, zero = jnp.zeros_like(params.reference_speed), jnp.zeros((), jnp.int32)
        state = State(
            time=zero,
            layer=zero,
            piece=zero,
            context=self.first_context(key, params),
            queue=empty_queue(self.num_slots, nothing.dtype),
            slot=jnp.zeros(self.num_pieces, jnp.int32),
            completion=jnp.zeros(self.num_pieces, nothing.dtype),
            charged=nothing,
            slowdown=nothing,
            latency=nothing,
            finished=zero,
            reassigned=zero,
            lost=zero,
        )
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: Int[Array, ""], params: Params) -> Step[State]:
        layer, piece = self._layer(state), state.piece
        pieces, devices = self.pieces(layer, params), self.devices(state.context, params)
        now = (piece + 1) * params.decision_time
        slot = self.valid_action(action, devices.failure > 0)
        chosen = state.slot.at[piece].set(slot)
        queue, expected = self._submit(state, devices, pieces, slot, chosen, now, params)
        count = jnp.minimum(params.neurons[layer], self.num_pieces)
        done = piece + 1 >= count
        outcome = finish_layer(
            queue,
            devices,
            pieces,
            chosen,
            expected,
            now,
            params.resend_input,
            params.timeout_factor,
            done,
            self.channels,
        )

        # What the pieces have cost until now, or until the end of the layer.
        exists = pieces.flops > 0
        ideal = jnp.where(exists, pieces.flops, 1) / params.reference_speed
        returned = (jnp.arange(self.num_pieces) <= piece) & (expected <= devices.failure[chosen])
        until_now = jnp.minimum(jnp.where(returned, expected, jnp.inf), now)
        lost = exists & (outcome.results == 0)
        until_end = jnp.where(lost, params.lost_slowdown * ideal, outcome.completion)
        spent = jnp.sum(jnp.where(exists, jnp.where(done, until_end, until_now) / ideal, 0))

        following = self.next_context(key, state.context, jnp.minimum(layer + 1, self.num_layers - 1), params)
        context = jax.tree.map(lambda new, old: jnp.where(done, new, old), following, state.context)
        more = layer + 1 < self.num_layers
        stranded = done & (jnp.any(lost) | (more & ~jnp.any(following.present)))
        counts = jnp.minimum(params.neurons, self.num_pieces)
        unstarted = jnp.sum(jnp.where(jnp.arange(self.num_layers) > layer, counts, 0))
        lost_now = jnp.where(stranded, jnp.sum(lost) + unstarted, 0)
        cost = spent - state.charged + jnp.where(stranded, unstarted * params.lost_slowdown, 0)

        def count_if_done(value: Array) -> Array:
            return jnp.where(done, value, jnp.zeros_like(value))

        state = state.replace(
            time=state.time + 1,
            layer=state.layer + done,
            piece=jnp.where(done, 0, piece + 1),
            context=context,
            queue=jax.tree.map(lambda x: jnp.where(done, jnp.zeros_like(x), x), queue),
            slot=chosen,
            completion=expected,
            charged=jnp.where(done, 0, spent),
            slowdown=state.slowdown + cost,
            latency=state.latency + count_if_done(jnp.max(jnp.where(lost, 0, outcome.completion))),
            finished=state.finished + count_if_done(jnp.sum(outcome.results)),
            reassigned=state.reassigned + count_if_done(outcome.reassigned),
            lost=state.lost + lost_now,
        )
        info = {
            "layer_done": done,
            "completion": outcome.completion,
            "results": outcome.results,
            "stranded": stranded,
            "slowdown": state.slowdown,
            "latency": state.latency,
            "finished": state.finished,
            "reassigned": state.reassigned,
            "lost": state.lost,
        }
        reward = -cost / params.reference_slowdown
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), info

    @override
    def quantities(self, state: State, params: Params) -> dict[str, Array]:
        layer, queue = self._layer(state), state.queue
        pieces, devices = self.pieces(layer, params), self.devices(state.context, params)
        now = (state.piece + 1) * params.decision_time
        backlogs = {name: jnp.maximum(getattr(queue, name) - now, 0) for name in ("down", "cpu", "up")}
        return {
            **self.piece_quantities(layer, state.piece, pieces, params),
            "layer": state.layer,  # itself, which after the last is one more than there are
            **self.device_quantities(devices, devices.failure > 0, queue.informed, backlogs),
        }

    @override
    def situation(self, observation: Float[Array, " observation"], params: Params) -> Situation:
        common, slots = self.table.split(observation)
        layer, piece = self.read_piece(common)
        return Situation(
            layer=layer,
            piece=piece,
            present=slots["present"] > 0,
            speed=SPEED_UNIT * 10 ** slots["speed"],
            bandwidth=BANDWIDTH_UNIT * 10 ** slots["bandwidth"],
            queue=read_queue(slots, self.ideal_time(layer, piece, params)),
        )

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return (state.layer >= self.num_layers) | (state.lost > 0)

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        """Of an episode, from the last step's `info`: mean slowdown of its pieces, latency (s), and how many pieces
        were reassigned or lost.
        """
        return {
            "slowdown": info["slowdown"] / self.num_decisions(params),
            "latency": info["latency"],
            "reassigned": info["reassigned"],
            "lost": info["lost"],
        }

    def devices(self, context: Context, params: Params) -> Devices:
        """The devices of the slots."""
        speed = (1 - context.usage) * params.device_speed
        devices = Devices(speed, context.bandwidth, context.failure)
        if self.num_slots == self.num_devices:
            return devices
        _, strongest = jax.lax.top_k(jnp.where(context.present, speed, 0), self.num_slots)
        return Devices(*(x[strongest] for x in devices))

    def first_context(self, key: Array, params: Params) -> Context:
        """The context of the first layer; what changes is as it is in the long run."""
        draw = self._draws(key, params)
        present = some_present(draw.member, params.present_probability)
        failure = self._failure(draw, present, jnp.zeros((), jnp.int32), params)
        return Context(self._usage(draw, params), self._bandwidth(draw, params), present, failure)

    def next_context(self, key: Array, context: Context, layer: Int[Array, ""], params: Params) -> Context:
        """The context of a layer, from that of the layer before. Who failed there is away at least for this one."""
        draw = self._draws(key, params)
        stays = jnp.isinf(context.failure) & (draw.member >= params.leave_probability)
        present = jnp.where(context.present, stays, draw.member < params.join_probability)
        usage = jnp.where(draw.usage_changes < params.usage_change, self._usage(draw, params), context.usage)
        changes = draw.bandwidth_changes < params.bandwidth_change
        bandwidth = jnp.where(changes, self._bandwidth(draw, params), context.bandwidth)
        return Context(usage, bandwidth, present, self._failure(draw, present, layer, params))

    def _submit(
        self,
        state: State,
        devices: Devices,
        pieces: Pieces,
        slot: Int[Array, ""],
        chosen: Int[Array, " piece"],
        now: Float[Array, ""],
        params: Params,
    ) -> tuple[Queue, Float[Array, " piece"]]:
        """The queue after the next piece went to a slot, and when each result is expected."""
        if self.channels is None:
            after = after_submission(state.queue, devices, pieces, state.piece, now, params.resend_input)
            return submit(state.queue, after, slot), state.completion.at[state.piece].set(after.up[slot])
        number = jnp.arange(self.num_pieces)
        time = jnp.where(number <= state.piece, (number + 1) * params.decision_time, jnp.inf)
        return plan(devices, pieces, chosen, time, params.resend_input, self.channels)

    def _layer(self, state: State) -> Int[Array, ""]:
        return jnp.minimum(state.layer, self.num_layers - 1)  # after the last, anything that is defined

    def _draws(self, key: Array, params: Params) -> "_Draws":
        uniform = jax.random.uniform(key, (len(_Draws._fields), self.num_devices), params.reference_speed.dtype)
        return _Draws(*uniform)

    def _usage(self, draw: "_Draws", params: Params) -> Float[Array, " device"]:
        return params.usage_low + (params.usage_high - params.usage_low) * draw.usage

    def _bandwidth(self, draw: "_Draws", params: Params) -> Float[Array, " device"]:
        return params.bandwidth_low * (params.bandwidth_high / params.bandwidth_low) ** draw.bandwidth

    def _failure(
        self, draw: "_Draws", present: Bool[Array, " device"], layer: Int[Array, ""], params: Params
    ) -> Float[Array, " device"]:
        alone = params.neurons[layer] * params.neuron_flops[layer] / params.reference_speed
        return failure_times(present, draw.fails, draw.instant, alone, params)


class _Draws(NamedTuple):
    """Uniform numbers [device] that a layer's context is made of."""

    usage: Float[Array, " device"]
    usage_changes: Float[Array, " device"]
    bandwidth: Float[Array, " device"]
    bandwidth_changes: Float[Array, " device"]
    member: Float[Array, " device"]
    fails: Float[Array, " device"]
    instant: Float[Array, " device"]
