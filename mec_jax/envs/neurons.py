"""What the two problems of dividing layers among IoT devices have in common: their numbers, their pieces, and what they
observe (Huang et al. 2022, DeColla). One requester is `neuron_allocation`, several are `neuron_sharing`.
"""

import os
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, Protocol, override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mec_jax.contracts import Problem
from mec_jax.files import check_count
from mec_jax.observations import ObservationField
from mec_jax.parameters import parameter
from mec_jax.physics.neuron_allocation import (
    Devices,
    Pieces,
    Queue,
    after_submission,
    empty_queue,
    piece_sizes,
    submit,
)
from mec_jax.profiles.neurons import NeuronTable, load_neuron_table
from mec_jax.spaces import clipped_choice
from mec_jax.transforms import FLAG, LOG10, LOG10_1P, Transform

SPEED_UNIT = 1e9
"""FLOP/s; the observation of a speed is the decimal logarithm in this unit, like the next ones."""
BANDWIDTH_UNIT = 1e8  # bit/s
WORK_UNIT = 1e6  # FLOP
BITS_UNIT = 1e5  # bit; of 1 + bits / unit, as a piece may have none

_BITS = Transform(LOG10_1P, scale=BITS_UNIT)
_THERE = "present"
_BACKLOG = Transform(LOG10_1P, times=("env_params.reference_speed",), over=("work",), where=_THERE)
"""Seconds over the ideal time of the next piece."""


def piece_fields(num_layers: int, num_pieces: int) -> tuple[ObservationField, ...]:
    """What an observation says of the next piece and its layer."""
    layers, pieces = (Transform(scale=float(count)) for count in (num_layers, num_pieces))
    return (
        ObservationField("layer", "layers", "layer / layers", 1, layers),
        ObservationField("piece", "pieces", "piece / pieces of a layer", 1, pieces),
        ObservationField("pieces_left", "pieces", "pieces left of the layer / pieces of a layer", 1, pieces),
        ObservationField("work", "FLOP", "log10(work of the piece / 1 MFLOP)", 1, Transform(LOG10, scale=WORK_UNIT)),
        ObservationField("shared_bits", "bit", "log10(1 + shared input / 100 kbit)", 1, _BITS),
        ObservationField("own_bits", "bit", "log10(1 + own input / 100 kbit)", 1, _BITS),
        ObservationField("output_bits", "bit", "log10(1 + output / 100 kbit)", 1, _BITS),
    )


def other_fields(num_layers: int, num_pieces: int) -> tuple[ObservationField, ...]:
    """What an observation says of each other requester, in cyclic order."""
    layers, pieces = (Transform(scale=float(count)) for count in (num_layers, num_pieces))
    wait = _BACKLOG._replace(where="")
    return (
        ObservationField("other_layer", "layers", "layer / layers", 1, layers),
        ObservationField("other_pieces", "pieces", "pieces submitted of it / pieces of a layer", 1, pieces),
        ObservationField("other_wait", "s", "log10(1 + wait / ideal time of the next piece)", 1, wait),
    )


DEVICE_FIELDS = (
    ObservationField("present", "1", "1 if a device is there", 1, Transform(FLAG)),
    ObservationField(
        "speed", "FLOP/s", "log10(free speed / 1 GFLOP/s)", 1, Transform(LOG10, scale=SPEED_UNIT, where=_THERE)
    ),
    ObservationField(
        "bandwidth", "bit/s", "log10(bandwidth / 100 Mbit/s)", 1, Transform(LOG10, scale=BANDWIDTH_UNIT, where=_THERE)
    ),
    ObservationField("informed", "1", "1 if it has the shared input", 1, Transform(FLAG, where=_THERE)),
    ObservationField("down", "s", "log10(1 + backlog of the link to it / ideal time of the piece)", 1, _BACKLOG),
    ObservationField("cpu", "s", "log10(1 + backlog of its processor / ideal time of the piece)", 1, _BACKLOG),
    ObservationField("up", "s", "log10(1 + backlog of the link back / ideal time of the piece)", 1, _BACKLOG),
)
"""Of each slot or device; all 0 where none is there."""

# The paper's three Raspberry Pis on links alike. Fig. 6a has 30 % of each CPU in use, Fig. 6b varies it: here each has
# a usage of its own, which lasts for the episode.
TESTBED: Mapping[str, float] = {
    "usage_low": 0.1,
    "usage_high": 0.7,
    "bandwidth_low": 1e9,
    "bandwidth_high": 1e9,
    "present_probability": 1.0,
    "failure_probability": 0.0,
}


class Context(NamedTuple):
    """The devices that may be there. It depends on keys alone, not on actions."""

    usage: Float[Array, " device"]  # of the processor by others, in 0..1
    bandwidth: Float[Array, " device"]  # bit/s of each direction of its link
    present: Bool[Array, " device"]
    failure: Float[Array, " device"]  # s after the start; infinite: not in this context; 0: absent


class Situation(Protocol):
    """What a heuristic sees of the next piece and of the slots, whichever of the two problems it is."""

    @property
    def layer(self) -> Int[Array, ""]:
        """Of the piece."""

    @property
    def piece(self) -> Int[Array, ""]:
        """The next one."""

    @property
    def present(self) -> Bool[Array, " slot"]:
        """Where a device is."""

    @property
    def speed(self) -> Float[Array, " slot"]:
        """FLOP/s that are free."""

    @property
    def bandwidth(self) -> Float[Array, " slot"]:
        """bit/s."""

    @property
    def queue(self) -> Queue:
        """s from now, at least 0."""


@struct.dataclass(kw_only=True)
class NeuronParams(environment.EnvParams):
    """Numbers of the network, the devices and the charges. All are traced."""

    max_steps_in_episode: int = parameter("all pieces", "decisions", "ours", "until truncation", least=1)
    neurons: Int[Array, " layer"] = parameter("network", "1", "network", least=1, most=10**6)
    neuron_flops: Float[Array, " layer"] = parameter("network", "FLOP", "network", "of one neuron", most=1e9)
    input_elements: Float[Array, " layer"] = parameter("network", "1", "network", least=0, most=1e9)
    output_elements: Float[Array, " layer"] = parameter("network", "1", "network", least=0, most=1e9)
    own_inputs: Bool[Array, " layer"] = parameter("network", "1", "network", "a neuron reads its own part of the input")
    # Features as 8-bit integers; NeuronAllocation says why not 32 bit. 0: nothing is exchanged.
    bits_per_element: Float[Array, ""] = parameter(8.0, "bit", "assumed", least=0, most=1e3)
    resend_input: Bool[Array, ""] = parameter(
        False, "1", "assumed", "the shared input goes along with every piece, not once a layer to a device"
    )
    # A Raspberry Pi 4: at 30 % usage it takes MobileNetV2's 0.6 GFLOP in 0.29 s.
    device_speed: Float[Array, " device"] = parameter(3e9, "FLOP/s", "assumed", "of an idle device")
    # Some of the processor must be left, or a piece never ends.
    usage_low: Float[Array, ""] = parameter(
        "conditions", "1", "Fig. 6b", "usage is uniform from it", least=0, most=0.99
    )
    usage_high: Float[Array, ""] = parameter(
        "conditions", "1", "Fig. 6b", "to this", least=0, most=0.99, not_below="usage_low"
    )
    bandwidth_low: Float[Array, ""] = parameter("conditions", "bit/s", "assumed", "it is log-uniform from this")
    bandwidth_high: Float[Array, ""] = parameter("conditions", "bit/s", "assumed", "to this", not_below="bandwidth_low")
    present_probability: Float[Array, ""] = parameter(
        "conditions", "1", "assumed", "of a device, when an episode starts; at least one is there", least=0, most=1
    )
    failure_probability: Float[Array, ""] = parameter(
        "conditions", "1", "assumed", "of a device, in a layer or shared episode, without notice", least=0, most=1
    )
    # Long enough that most failures hit work under way.
    failure_window: Float[Array, ""] = parameter(
        1.0,
        "1",
        "assumed",
        "the instant is uniform in this times what the reference needs for all of it",
        least=0,
        most=1e3,
    )
    # kappa is not given. Twice the expected time is the usual first choice for a timeout.
    timeout_factor: Float[Array, ""] = parameter(
        2.0, "1", "assumed", "of the expected time of a piece, until it is called missing", least=1, most=1e9
    )
    # The paper measures 1-2 ms a decision on a Pi: 318 would take longer than the inference. An exported policy of this
    # suite needs less than 0.1 ms, which is left out.
    decision_time: Float[Array, ""] = parameter(0.0, "s", "assumed", "a requester takes for each decision", least=0)
    # The nominal device at the paper's usage of 30 %.
    reference_speed: Float[Array, ""] = parameter(
        0.7 * 3e9, "FLOP/s", "assumed", "of the ideal time of a piece", least=1e3, most=1e12
    )
    # A lost piece costs ten times what one costs under nominal conditions: far more than a reassignment.
    lost_slowdown: Float[Array, ""] = parameter(
        "10 nominal pieces", "1", "ours", "charged for a piece without a result", least=0, most=1e12
    )
    # So that round-robin under nominal conditions earns -1 a layer.
    reference_slowdown: Float[Array, ""] = parameter(
        "a nominal layer", "1", "ours", "what the reward divides by", least=1e-3, most=1e12
    )


class NeuronProblem[S: environment.EnvState, P: NeuronParams](Problem[S, P, Int[Array, ""]]):
    """A device, or slot, for each piece of each layer.

    Args:
        network: Name of a network or JSON file of its neurons (`mec_jax.profiles.neurons`).
        num_devices: Devices that may be there.
        num_pieces: Of a layer, K.

    Raises:
        ValueError: If the network is unknown, or a number is not whole or below 1.
    """

    def __init__(self, network: str | os.PathLike[str], num_devices: int, num_pieces: int) -> None:
        self.network: NeuronTable = load_neuron_table(network)
        self.num_devices = check_count("num_devices", num_devices)
        self.num_pieces = check_count("num_pieces", num_pieces)

    @property
    def num_slots(self) -> int:
        """What an action chooses from."""
        return self.num_devices

    @property
    def num_layers(self) -> int:
        """Layers that have neurons, L."""
        return self.network.num_layers

    @property
    @override
    def axes(self) -> dict[str, int]:
        return {"layer": self.num_layers, "device": self.num_devices}

    @property
    @override
    def mask_entries(self) -> dict[str, range]:
        return {"action": self.table.entries("present")}

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        network = self.network
        return {
            "max_steps_in_episode": sum(min(neurons, self.num_pieces) for neurons in network.neurons),
            "neurons": jnp.array(network.neurons),
            "neuron_flops": jnp.array(network.neuron_flops),
            "input_elements": jnp.array(network.input_elements, float),
            "output_elements": jnp.array(network.output_elements, float),
            "own_inputs": jnp.array(network.own_inputs),
        }

    @override
    def derived(self, params: P) -> dict[str, ArrayLike]:
        nominal = _nominal_slowdown(self, params)
        pieces = jnp.sum(jnp.minimum(params.neurons, self.num_pieces))
        return {"reference_slowdown": nominal / self.num_layers, "lost_slowdown": 10 * nominal / pieces}

    @override
    def action_space(self, params: P) -> spaces.Discrete:
        return spaces.Discrete(self.num_slots)

    @abstractmethod
    def situation(self, observation: Float[Array, " observation"], params: P) -> Situation:
        """What `observe` shows, read back to rounding errors: so that heuristics are policies of the observation."""

    def num_decisions(self, params: P) -> Int[Array, ""]:
        """Pieces of all layers that are not empty."""
        return jnp.sum(jnp.minimum(params.neurons, self.num_pieces))

    def pieces(self, layer: Int[Array, ""], params: P) -> Pieces:
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

    def valid_action(self, action: Int[Array, ""], present: Bool[Array, " slot"]) -> Int[Array, ""]:
        """The slot, clipped to those there are; instead of an empty one, the next that is not.

        Raises:
            ValueError: If the action is no scalar, or no whole number by its type.
        """
        if jnp.shape(action) != ():
            raise ValueError(f"action of shape {jnp.shape(action)}: it must be one slot; use jax.vmap for a batch")
        slot = clipped_choice(action, self.num_slots)
        ahead = (jnp.arange(self.num_slots) - slot) % self.num_slots
        return jnp.argmin(jnp.where(present, ahead, self.num_slots)).astype(jnp.int32)

    @override
    def observe(self, key: Array, state: S, action: Int[Array, ""] | None, params: P) -> Float[Array, " observation"]:
        return self.table.observe(self.quantities(state, params), params, params.reference_speed.dtype)

    def piece_quantities(
        self, layer: Int[Array, ""], piece: Int[Array, ""], pieces: Pieces, params: P
    ) -> dict[str, Array]:
        """What an observation of the next piece is made of (`piece_fields`)."""
        return {
            "layer": layer,
            "piece": piece,
            "pieces_left": jnp.minimum(params.neurons[layer], self.num_pieces) - piece,
            "work": pieces.flops[piece],
            "shared_bits": pieces.shared_bits,
            "own_bits": pieces.own_bits[piece],
            "output_bits": pieces.output_bits[piece],
        }

    def device_quantities(
        self,
        devices: Devices,
        present: Bool[Array, " slot"],
        informed: Bool[Array, " slot"],
        queue: Mapping[str, Float[Array, " slot"]],
    ) -> dict[str, Array]:
        """What an observation of the slots is made of (`DEVICE_FIELDS`); the queue in s from now."""
        return {
            "present": present,
            "speed": devices.speed,
            "bandwidth": devices.bandwidth,
            "informed": informed,
            **queue,
        }

    def read_piece(self, seen: Mapping[str, Array]) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Layer and piece of an observation."""
        layer = jnp.clip(jnp.round(seen["layer"] * self.num_layers), 0, self.num_layers - 1).astype(jnp.int32)
        piece = jnp.clip(jnp.round(seen["piece"] * self.num_pieces), 0, self.num_pieces - 1).astype(jnp.int32)
        return layer, piece

    def ideal_time(self, layer: Int[Array, ""], piece: Int[Array, ""], params: P) -> Float[Array, ""]:
        """s that the reference device needs for a piece."""
        return self.pieces(layer, params).flops[piece] / params.reference_speed


def read_queue(seen: Mapping[str, Array], ideal: Float[Array, ""]) -> Queue:
    """The backlogs of an observation, in s from now."""
    down, cpu, up = ((10 ** seen[name] - 1) * ideal for name in ("down", "cpu", "up"))
    return Queue(down, cpu, up, seen["informed"] > 0.5)


def some_present(member: Float[Array, " device"], probability: Float[Array, ""]) -> Bool[Array, " device"]:
    """Who is there when an episode starts, from uniform numbers: somebody, as requesters ask only then."""
    present = member < probability
    return present | (~jnp.any(present) & (jnp.arange(member.size) == jnp.argmin(member)))


def failure_times(
    present: Bool[Array, " device"],
    fails: Float[Array, " device"],
    instant: Float[Array, " device"],
    alone: Float[Array, ""],
    params: NeuronParams,
) -> Float[Array, " device"]:
    """When each device fails, s after the start; infinite if it does not, 0 if it is absent.

    Args:
        present: Who is there.
        fails: Uniform numbers.
        instant: Uniform numbers.
        alone: s that the reference device needs for all of it.
        params: The environment's numbers.
    """
    tiny = jnp.finfo(alone.dtype).tiny  # 0 is for the absent
    times = jnp.maximum(instant * params.failure_window * alone, tiny)
    return jnp.where(present, jnp.where(fails < params.failure_probability, times, jnp.inf), 0)


@partial(jax.jit, static_argnames="env")
def _nominal_slowdown(env: NeuronProblem, params: NeuronParams) -> Float[Array, ""]:
    """Sum of slowdowns of round-robin with every device there, at mean usage and bandwidth, without failures.

    On private links, whatever the medium, so that returns compare.
    """
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
