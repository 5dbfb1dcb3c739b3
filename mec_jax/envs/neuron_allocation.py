"""Allocation of a layer's neurons to IoT devices (Huang et al. 2022, "Toward Decentralized and Collaborative Deep
Learning Inference for Intelligent IoT Devices", DeColla).

One requester has a DNN computed by the devices around it. The neurons of each layer are cut into K pieces; the
controller sends each piece to a device, and the next layer starts when all results are back. Physics, and what the
paper leaves open of it, in `mec_jax.physics.neuron_allocation`.
"""

import os
from functools import partial
from typing import Any, NamedTuple, override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from mec_jax.envs.base import MaskedEnvironment
from mec_jax.envs.parameters import is_traced, number
from mec_jax.physics.neuron_allocation import (
    Devices,
    Pieces,
    Queue,
    after_submission,
    empty_queue,
    finish_layer,
    piece_sizes,
    submit,
)
from mec_jax.profiles.neurons import NeuronTable, load_neuron_table

SPEED_UNIT = 1e9
"""FLOP/s; the observation of a speed is the decimal logarithm in this unit, like the next ones."""
BANDWIDTH_UNIT = 1e8  # bit/s
WORK_UNIT = 1e6  # FLOP
BITS_UNIT = 1e5  # bit; of 1 + bits / unit, as a piece may have none

COMMON_FEATURES = 7
SLOT_FEATURES = 7

# What differs between the registered environments; assumed where the paper says nothing.
_SCENARIOS: dict[str, dict[str, Any]] = {
    # The paper's three Raspberry Pis on links alike. Fig. 6a has 30 % of each CPU in use, Fig. 6b varies it: here each
    # has a usage of its own, which lasts for the episode.
    "testbed": {
        "usage_low": 0.1,
        "usage_high": 0.7,
        "usage_change": 0.0,
        "bandwidth_low": 1e9,
        "bandwidth_high": 1e9,
        "bandwidth_change": 0.0,
        "present_probability": 1.0,
        "join_probability": 0.0,
        "leave_probability": 0.0,
        "failure_probability": 0.0,
    },
    # Usage and links change every ten layers; a device is there for 125 layers and away for 10, on average.
    "dynamic": {
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
    },
    # A crowd: about half of the devices are there at any time.
    "slots": {
        "usage_low": 0.1,
        "usage_high": 0.9,
        "usage_change": 0.1,
        "bandwidth_low": 1e8,
        "bandwidth_high": 1e9,
        "bandwidth_change": 0.1,
        "present_probability": 0.5,
        "join_probability": 0.01,
        "leave_probability": 0.005,
        "failure_probability": 0.005,
    },
}
_NAMES = {
    "testbed": "NeuronAllocation-v0",
    "dynamic": "NeuronAllocation-Dynamic-v0",
    "slots": "NeuronAllocation-Slots-v0",
}


class Context(NamedTuple):
    """What varies from layer to layer. It depends on keys alone, not on actions."""

    usage: Float[Array, " device"]  # of the processor by others, in 0..1
    bandwidth: Float[Array, " device"]  # bit/s of each direction of its link
    present: Bool[Array, " device"]
    failure: Float[Array, " device"]  # s after the layer's start; infinite: not in this layer; 0: absent


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
    completion: Float[Array, " piece"]  # s after the layer's start, as expected when submitted
    charged: Float[Array, ""]  # slowdowns of the layer that were charged already
    slowdown: Float[Array, ""]  # sum over the pieces of the episode
    latency: Float[Array, ""]  # s, sum over the layers
    finished: Int[Array, ""]  # pieces with a result
    reassigned: Int[Array, ""]  # submissions beyond the first ones
    lost: Int[Array, ""]  # pieces that will have no result


@struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    max_steps_in_episode: Int[Array, ""]  # decisions until truncation; by default the network needs no more
    neurons: Int[Array, " layer"]
    neuron_flops: Float[Array, " layer"]  # FLOP of one neuron
    input_elements: Float[Array, " layer"]
    output_elements: Float[Array, " layer"]
    own_inputs: Bool[Array, " layer"]  # a neuron reads its own part of the input only
    bits_per_element: Float[Array, ""]  # 0: nothing is exchanged
    resend_input: Bool[Array, ""]  # the shared input goes along with every piece, not once a layer to a device
    device_speed: Float[Array, " device"]  # FLOP/s of an idle device
    usage_low: Float[Array, ""]  # a device's usage is uniform between the two
    usage_high: Float[Array, ""]
    usage_change: Float[Array, ""]  # probability that it is drawn anew after a layer
    bandwidth_low: Float[Array, ""]  # bit/s; a link's bandwidth is log-uniform between the two
    bandwidth_high: Float[Array, ""]  # bit/s
    bandwidth_change: Float[Array, ""]  # probability that it is drawn anew after a layer
    present_probability: Float[Array, ""]  # of a device, when an episode starts; at least one is there
    join_probability: Float[Array, ""]  # of an absent device, after a layer
    leave_probability: Float[Array, ""]  # of a device, after a layer and with notice
    failure_probability: Float[Array, ""]  # of a device, in a layer and without notice
    failure_window: Float[Array, ""]  # the instant is uniform in this times what the reference needs for the layer
    timeout_factor: Float[Array, ""]  # kappa: of the expected time of a piece, until it is called missing
    decision_time: Float[Array, ""]  # s that the requester takes for each decision
    reference_speed: Float[Array, ""]  # FLOP/s, F_ref of the ideal time of a piece
    lost_slowdown: Float[Array, ""]  # charged for a piece without a result
    reference_slowdown: Float[Array, ""]  # what the reward divides by


class NeuronAllocation(MaskedEnvironment[State, Params]):
    """`NeuronAllocation-v0` and its variants: a device for each piece of each layer.

    A decision assigns the next piece of the current layer; pieces of a layer are submitted one after the other from
    its start on, the smaller ones first. After its last piece, time goes on until all results are there. Empty pieces
    (of layers with fewer neurons than pieces) are skipped: MobileNetV2 has none, and 53 * 6 decisions. Usage of the
    devices, bandwidths and membership change between layers; devices fail within. All of that depends on keys alone.

    Slots: if there are more devices than slots, a slot i holds the i-th strongest of those present (free FLOP/s);
    else device i. Choices of an absent device fall to the next slot, cyclically, that is not empty.

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
    `Random` and `Average` in all three environments, contrary to Fig. 5a.

    Args:
        network: Name of a network or JSON file of its neurons (`mec_jax.profiles.neurons`).
        scenario: "testbed" (static), "dynamic" or "slots": which defaults the numbers have.
        num_devices: Devices that may be there; 3, or 100 in the scenario "slots", if absent.
        num_slots: Devices that can be chosen from, M_c; all if absent.
        num_pieces: Of a layer, K.

    Raises:
        ValueError: If the network or the scenario is unknown, or a number is not whole, below 1, or leaves slots over.
    """

    def __init__(
        self,
        network: str | os.PathLike[str] = "mobilenet_v2",
        scenario: str = "testbed",
        num_devices: int | None = None,
        num_slots: int | None = None,
        num_pieces: int = 6,
    ) -> None:
        if scenario not in _SCENARIOS:
            raise ValueError(f"unknown scenario {scenario!r}: choose from {', '.join(_SCENARIOS)}")
        self.table: NeuronTable = load_neuron_table(network)
        self.scenario = scenario
        self.num_devices = (100 if scenario == "slots" else 3) if num_devices is None else num_devices
        self.num_slots = self.num_devices if num_slots is None else num_slots
        self.num_pieces = num_pieces
        for field in ("num_devices", "num_slots", "num_pieces"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{field} is {value!r}: it must be a whole number > 0")
        if self.num_slots > self.num_devices:
            raise ValueError(f"{self.num_slots} slots for {self.num_devices} devices: have at most as many")

    @property
    @override
    def name(self) -> str:
        return _NAMES[self.scenario]

    @property
    def num_layers(self) -> int:
        """Layers that have neurons, L."""
        return self.table.num_layers

    @override
    def params(self, **numbers: Any) -> Params:
        """The network's numbers and, for what the paper leaves out, documented defaults, with some fields replaced.

        Args:
            **numbers: Fields of `Params`; a number where an array is due holds for all layers or devices.

        Raises:
            ValueError: If there is no such field, the shape does not fit or a value is out of range.
        """
        table, layer = self.table, (self.num_layers,)
        decisions = sum(min(neurons, self.num_pieces) for neurons in table.neurons)
        scenario = _SCENARIOS[self.scenario]
        # (default, shape, kind, least, most); without a least value, numbers must be positive.
        defaults: dict[str, tuple[Any, tuple[int, ...], type, float | None, float | None]] = {
            "max_steps_in_episode": (decisions, (), int, 1, None),
            "neurons": (table.neurons, layer, int, 1, None),
            "neuron_flops": (table.neuron_flops, layer, float, None, None),
            "input_elements": (table.input_elements, layer, float, 0, None),
            "output_elements": (table.output_elements, layer, float, 0, None),
            "own_inputs": (table.own_inputs, layer, bool, None, None),
            # Features as 8-bit integers; see the class for why not 32 bit.
            "bits_per_element": (8.0, (), float, 0, None),
            "resend_input": (False, (), bool, None, None),
            # A Raspberry Pi 4: at 30 % usage it takes MobileNetV2's 0.6 GFLOP in 0.29 s.
            "device_speed": (3e9, (self.num_devices,), float, None, None),
            **{
                name: (scenario[name], (), float, None if name.startswith("bandwidth_") else 0, None)
                for name in ("bandwidth_low", "bandwidth_high")
            },
            # Some of the processor must be left, or a piece never ends.
            **{name: (scenario[name], (), float, 0, 0.99) for name in ("usage_low", "usage_high")},
            **{
                name: (scenario[name], (), float, 0, 1)
                for name in scenario
                if name.endswith("_change") or name.endswith("_probability")
            },
            # Long enough that most failures hit work under way.
            "failure_window": (1.0, (), float, 0, None),
            # kappa is not given. Twice the expected time is the usual first choice for a timeout.
            "timeout_factor": (2.0, (), float, 1, None),
            # The paper measures 1-2 ms a decision on a Pi: 318 would take longer than the inference. An exported
            # policy of this suite needs less than 0.1 ms, which is left out.
            "decision_time": (0.0, (), float, 0, None),
            # The nominal device at the paper's usage of 30 %.
            "reference_speed": (0.7 * 3e9, (), float, None, None),
        }
        known = [*defaults, "lost_slowdown", "reference_slowdown"]
        if unknown := set(numbers) - set(known):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        fields = {
            name: number(name, numbers.get(name, default), shape, kind, least, most)
            for name, (default, shape, kind, least, most) in defaults.items()
        }
        for name in ("usage", "bandwidth"):
            low, high = fields[f"{name}_low"], fields[f"{name}_high"]
            if not is_traced(low) and not is_traced(high) and low > high:
                raise ValueError(f"{name}_low {low} exceeds {name}_high {high}: swap them, or give both")
        one = jnp.ones_like(fields["reference_speed"])
        params = Params(**fields, lost_slowdown=one, reference_slowdown=one)
        nominal = _nominal_slowdown(self, params)
        # By default round-robin under nominal conditions earns -1 a layer, and a lost piece costs ten times what one
        # costs there: far more than a reassignment.
        reference = numbers.get("reference_slowdown", nominal / self.num_layers)
        lost = numbers.get("lost_slowdown", 10 * nominal / self.num_decisions(params))
        return params.replace(
            reference_slowdown=number("reference_slowdown", reference, (), float),
            lost_slowdown=number("lost_slowdown", lost, (), float, 0),
        )

    def evaluation_params(self, params: Params | None = None) -> Params:
        """The evaluation scenario: the training distribution, as the paper trains for the conditions that it meets.

        Args:
            params: What else holds; the defaults if absent.
        """
        return self.default_params if params is None else params

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
    def step_env(
        self, key: Array, state: State, action: Int[Array, ""], params: Params
    ) -> tuple[Float[Array, " observation"], State, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        layer, piece = self._layer(state), state.piece
        pieces, devices = self.pieces(layer, params), self.devices(state.context, params)
        now = (piece + 1) * params.decision_time
        slot = self.valid_action(action, devices.failure > 0)
        after = after_submission(state.queue, devices, pieces, piece, now, params.resend_input)
        queue = submit(state.queue, after, slot)
        chosen = state.slot.at[piece].set(slot)
        expected = state.completion.at[piece].set(after.up[slot])
        count = jnp.minimum(params.neurons[layer], self.num_pieces)
        done = piece + 1 >= count
        outcome = finish_layer(
            queue, devices, pieces, chosen, expected, now, params.resend_input, params.timeout_factor, done
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
    def observe(
        self, key: Array, state: State, action: Int[Array, ""] | None, params: Params
    ) -> Float[Array, " observation"]:
        layer = self._layer(state)
        pieces, devices = self.pieces(layer, params), self.devices(state.context, params)
        count = jnp.minimum(params.neurons[layer], self.num_pieces)
        now = (state.piece + 1) * params.decision_time
        flops = pieces.flops[state.piece]

        def bits(x: Array) -> Array:
            return jnp.log10(1 + x / BITS_UNIT)

        def backlog(free: Array) -> Array:
            return jnp.log10(1 + jnp.maximum(free - now, 0) * params.reference_speed / flops)

        common = [
            state.layer / self.num_layers,
            state.piece / self.num_pieces,
            (count - state.piece) / self.num_pieces,
            jnp.log10(flops / WORK_UNIT),
            bits(pieces.shared_bits),
            bits(pieces.own_bits[state.piece]),
            bits(pieces.output_bits[state.piece]),
        ]
        present = devices.failure > 0
        columns = [
            jnp.ones(self.num_slots),
            jnp.log10(devices.speed / SPEED_UNIT),
            jnp.log10(devices.bandwidth / BANDWIDTH_UNIT),
            state.queue.informed,
            backlog(state.queue.down),
            backlog(state.queue.cpu),
            backlog(state.queue.up),
        ]
        slots = jnp.where(present[:, None], jnp.stack(columns, axis=1), 0)
        return jnp.concatenate([jnp.stack(common), slots.reshape(-1)]).astype(params.reference_speed.dtype)

    def situation(self, observation: Float[Array, " observation"], params: Params) -> Situation:
        """What `observe` shows, read back to rounding errors: so that heuristics are policies of the observation."""
        layer = jnp.clip(jnp.round(observation[0] * self.num_layers), 0, self.num_layers - 1).astype(jnp.int32)
        piece = jnp.clip(jnp.round(observation[1] * self.num_pieces), 0, self.num_pieces - 1).astype(jnp.int32)
        columns = observation[COMMON_FEATURES:].reshape(self.num_slots, SLOT_FEATURES)
        ideal = self.pieces(layer, params).flops[piece] / params.reference_speed
        down, cpu, up = ((10 ** columns[:, i] - 1) * ideal for i in (4, 5, 6))
        return Situation(
            layer=layer,
            piece=piece,
            present=self.action_mask(observation, params)["action"],
            speed=SPEED_UNIT * 10 ** columns[:, 1],
            bandwidth=BANDWIDTH_UNIT * 10 ** columns[:, 2],
            queue=Queue(down, cpu, up, columns[:, 3] > 0.5),
        )

    @property
    def observation_slots(self) -> tuple[int, int, int]:
        """How an observation is made: common features, then of so many slots so many features each."""
        return COMMON_FEATURES, self.num_slots, SLOT_FEATURES

    @property
    @override
    def mask_entries(self) -> dict[str, range]:
        return {"action": range(COMMON_FEATURES, COMMON_FEATURES + self.num_slots * SLOT_FEATURES, SLOT_FEATURES)}

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return (state.layer >= self.num_layers) | (state.lost > 0)

    @override
    def is_truncated(self, state: State, params: Params) -> Bool[Array, ""]:
        # An inference that is over was not cut off.
        return super().is_truncated(state, params) & ~self.is_terminated(state, params)

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

    @override
    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(self.num_slots)

    @override
    def observation_space(self, params: Params) -> spaces.Box:
        size = COMMON_FEATURES + self.num_slots * SLOT_FEATURES
        return spaces.Box(-jnp.inf, jnp.inf, (size,), params.reference_speed.dtype)

    def num_decisions(self, params: Params) -> Int[Array, ""]:
        """Pieces of all layers that are not empty."""
        return jnp.sum(jnp.minimum(params.neurons, self.num_pieces))

    def pieces(self, layer: Int[Array, ""], params: Params) -> Pieces:
        """The pieces of a layer."""
        size = piece_sizes(params.neurons[layer], self.num_pieces)
        share = size / params.neurons[layer]
        input_bits = params.input_elements[layer] * params.bits_per_element
        return Pieces(
            flops=size * params.neuron_flops[layer],
            shared_bits=jnp.where(params.own_inputs[layer], 0, input_bits),
            own_bits=jnp.where(params.own_inputs[layer], input_bits * share, 0),
            output_bits=params.output_elements[layer] * params.bits_per_element * share,
        )

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
        present = draw.member < params.present_probability
        # The requester asks only when someone is there.
        present |= ~jnp.any(present) & (jnp.arange(self.num_devices) == jnp.argmin(draw.member))
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

    def valid_action(self, action: Int[Array, ""], present: Bool[Array, " slot"]) -> Int[Array, ""]:
        """The slot, clipped to those there are; instead of an empty one, the next that is not.

        Raises:
            ValueError: If the action is no scalar.
        """
        if jnp.shape(action) != ():
            raise ValueError(f"action of shape {jnp.shape(action)}: it must be one slot; use jax.vmap for a batch")
        slot = jnp.clip(jnp.asarray(action, jnp.int32), 0, self.num_slots - 1)
        ahead = (jnp.arange(self.num_slots) - slot) % self.num_slots
        return jnp.argmin(jnp.where(present, ahead, self.num_slots)).astype(jnp.int32)

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
        tiny = jnp.finfo(alone.dtype).tiny  # 0 is for the absent
        instant = jnp.maximum(draw.instant * params.failure_window * alone, tiny)
        fails = draw.fails < params.failure_probability
        return jnp.where(present, jnp.where(fails, instant, jnp.inf), 0)


class _Draws(NamedTuple):
    """Uniform numbers [device] that a layer's context is made of."""

    usage: Float[Array, " device"]
    usage_changes: Float[Array, " device"]
    bandwidth: Float[Array, " device"]
    bandwidth_changes: Float[Array, " device"]
    member: Float[Array, " device"]
    fails: Float[Array, " device"]
    instant: Float[Array, " device"]


@partial(jax.jit, static_argnames="env")
def _nominal_slowdown(env: NeuronAllocation, params: Params) -> Float[Array, ""]:
    """Sum of slowdowns of round-robin with every device there, at mean usage and bandwidth, without failures."""
    devices = Devices(
        speed=(1 - (params.usage_low + params.usage_high) / 2) * params.device_speed[: env.num_slots],
        bandwidth=jnp.full(env.num_slots, jnp.sqrt(params.bandwidth_low * params.bandwidth_high)),
        failure=jnp.full(env.num_slots, jnp.inf),
    )

    def layer_slowdown(layer: Int[Array, ""]) -> Float[Array, ""]:
        pieces = env.pieces(layer, params)

        def assign(queue: Queue, piece: Int[Array, ""]) -> tuple[Queue, Float[Array, ""]]:
            now, slot = (piece + 1) * params.decision_time, piece % env.num_slots
            after = after_submission(queue, devices, pieces, piece, now, params.resend_input)
            ideal = pieces.flops[piece] / params.reference_speed
            return submit(queue, after, slot), jnp.where(ideal > 0, after.up[slot] / ideal, 0)

        start = empty_queue(env.num_slots, params.reference_speed.dtype)
        return jnp.sum(jax.lax.scan(assign, start, jnp.arange(env.num_pieces))[1])

    return jnp.sum(jax.vmap(layer_slowdown)(jnp.arange(env.num_layers)))


dynamic = partial(NeuronAllocation, scenario="dynamic")
slots = partial(NeuronAllocation, scenario="slots")
