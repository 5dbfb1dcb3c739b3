"""Several requesters that share IoT devices, each with a DNN whose layers' neurons are divided among them.

The concurrent tasks of Huang et al. 2022 ("Toward Decentralized and Collaborative Deep Learning Inference for
Intelligent IoT Devices", DeColla, Figs. 5c and 6d), which the paper names and does not describe. One requester alone is
`mec_jax.envs.neuron_allocation`; physics, and what is open of it, in `mec_jax.physics.neuron_sharing`.
"""

import os
from typing import Any, NamedTuple, cast, override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from mec_jax.envs.base import MaskedEnvironment
from mec_jax.envs.neuron_allocation import (
    BANDWIDTH_UNIT,
    BITS_UNIT,
    COMMON_FEATURES,
    SLOT_FEATURES,
    SPEED_UNIT,
    WORK_UNIT,
    Context,
    NeuronAllocation,
)
from mec_jax.envs.parameters import number
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
from mec_jax.profiles.neurons import NeuronTable

OTHER_FEATURES = 3
"""Numbers of the observation for each other requester."""

# Numbers that are those of `NeuronAllocation`, its defaults on the testbed included.
_SAME = (
    "neurons",
    "neuron_flops",
    "input_elements",
    "output_elements",
    "own_inputs",
    "bits_per_element",
    "resend_input",
    "device_speed",
    "usage_low",
    "usage_high",
    "bandwidth_low",
    "bandwidth_high",
    "present_probability",
    "failure_probability",
    "failure_window",
    "timeout_factor",
    "decision_time",
    "reference_speed",
    "lost_slowdown",
    "reference_slowdown",
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
class Params(environment.EnvParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    max_steps_in_episode: Int[Array, ""]  # decisions until truncation; by default the networks need no more
    neurons: Int[Array, " layer"]
    neuron_flops: Float[Array, " layer"]  # FLOP of one neuron
    input_elements: Float[Array, " layer"]
    output_elements: Float[Array, " layer"]
    own_inputs: Bool[Array, " layer"]  # a neuron reads its own part of the input only
    bits_per_element: Float[Array, ""]  # 0: nothing is exchanged
    resend_input: Bool[Array, ""]  # the shared input goes along with every piece, not once a layer to a device
    device_speed: Float[Array, " device"]  # FLOP/s of an idle device
    usage_low: Float[Array, ""]  # a device's usage by others is uniform between the two
    usage_high: Float[Array, ""]
    bandwidth_low: Float[Array, ""]  # bit/s; a link's bandwidth is log-uniform between the two
    bandwidth_high: Float[Array, ""]  # bit/s
    present_probability: Float[Array, ""]  # of a device, when an episode starts; at least one is there
    failure_probability: Float[Array, ""]  # of a device, in an episode and without notice
    failure_window: Float[Array, ""]  # the instant is uniform in this times what the reference needs for a network
    timeout_factor: Float[Array, ""]  # kappa: of the expected time of a piece, until it is called missing
    decision_time: Float[Array, ""]  # s that a requester takes for each decision
    arrival_gap: Float[Array, ""]  # s from one request to the next
    reference_speed: Float[Array, ""]  # FLOP/s, F_ref of the ideal time of a piece
    lost_slowdown: Float[Array, ""]  # charged for a piece without a result
    reference_slowdown: Float[Array, ""]  # what the reward divides by


class NeuronSharing(MaskedEnvironment[State, Params]):
    """`NeuronSharing-v0`: a device for each piece of each layer of several inferences at once.

    Requester i asks at i times the arrival gap, and goes through the layers of the same network with a barrier after
    each, as in `NeuronAllocation`. Devices serve what all of them submit, first in, first out. The next decision is
    that of the requester whose piece is submitted next; of several, the first. Without a `decision_time` this is the
    one whose layer starts earliest, and all pieces of a layer are submitted at its start. A device's usage and
    bandwidth last for the episode; it may fail within, and then stays away. All of that depends on keys alone.

    Choices of a device that is not there when the requester's layer starts fall to the next one, cyclically, that is.

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

    def __init__(
        self,
        network: str | os.PathLike[str] = "mobilenet_v2",
        num_requesters: int = 2,
        num_devices: int = 3,
        num_pieces: int = 6,
    ) -> None:
        if isinstance(num_requesters, bool) or not isinstance(num_requesters, int) or num_requesters < 1:
            raise ValueError(f"num_requesters is {num_requesters!r}: it must be a whole number > 0")
        self.alone = NeuronAllocation(network, num_devices=num_devices, num_pieces=num_pieces)
        self.table: NeuronTable = self.alone.table
        self.num_requesters = num_requesters
        self.num_devices = num_devices
        self.num_pieces = num_pieces

    @property
    @override
    def name(self) -> str:
        return "NeuronSharing-v0"

    @property
    def num_layers(self) -> int:
        """Layers that have neurons, L."""
        return self.table.num_layers

    @override
    def params(self, **numbers: Any) -> Params:
        """The network's numbers and the defaults of `NeuronAllocation` on the testbed, with some fields replaced.

        Args:
            **numbers: Fields of `Params`; a number where an array is due holds for all layers or devices.

        Raises:
            ValueError: If there is no such field, the shape does not fit or a value is out of range.
        """
        known = ["max_steps_in_episode", "arrival_gap", *_SAME]
        if unknown := set(numbers) - set(known):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        alone = self.alone.params(**{name: numbers[name] for name in _SAME if name in numbers})
        decisions = self.num_requesters * sum(min(neurons, self.num_pieces) for neurons in self.table.neurons)
        return Params(
            max_steps_in_episode=number(
                "max_steps_in_episode", numbers.get("max_steps_in_episode", decisions), (), int, 1
            ),
            # All at once: the paper's concurrent tasks.
            arrival_gap=number("arrival_gap", numbers.get("arrival_gap", 0.0), (), float, 0),
            **{name: getattr(alone, name) for name in _SAME},
        )

    def evaluation_params(self, params: Params | None = None) -> Params:
        """The evaluation scenario: the training distribution.

        Args:
            params: What else holds; the defaults if absent.
        """
        return self.default_params if params is None else params

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
    def step_env(
        self, key: Array, state: State, action: Int[Array, ""], params: Params
    ) -> tuple[Float[Array, " observation"], State, Float[Array, ""], Bool[Array, ""], dict[str, Array]]:
        devices, pieces = self.devices(state.context, params), self.pieces(state.layer, params)
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
        use = jnp.where(makespan > 0, sharing.busy / jnp.where(makespan > 0, makespan, 1), 0)
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
        sharing, requester = state.sharing, state.requester
        layer, piece, start = state.layer[requester], sharing.submitted[requester], sharing.start[requester]
        pieces, devices = self.pieces(layer, params), self.devices(state.context, params)
        count = jnp.minimum(params.neurons[layer], self.num_pieces)
        piece = jnp.minimum(piece, count - 1)  # after the last, anything that is defined
        now = start + (piece + 1) * params.decision_time
        flops = pieces.flops[piece]

        def bits(x: Array) -> Array:
            return jnp.log10(1 + x / BITS_UNIT)

        def wait(until: Array) -> Array:
            return jnp.log10(1 + jnp.maximum(until - now, 0) * params.reference_speed / flops)

        common = [
            layer / self.num_layers,
            piece / self.num_pieces,
            (count - piece) / self.num_pieces,
            jnp.log10(flops / WORK_UNIT),
            bits(pieces.shared_bits),
            bits(pieces.own_bits[piece]),
            bits(pieces.output_bits[piece]),
        ]
        columns = [
            jnp.ones(self.num_devices),
            jnp.log10(devices.speed / SPEED_UNIT),
            jnp.log10(devices.bandwidth / BANDWIDTH_UNIT),
            sharing.informed[requester],
            wait(sharing.down),
            wait(sharing.cpu),
            wait(sharing.up),
        ]
        slots = jnp.where((devices.failure > start)[:, None], jnp.stack(columns, axis=1), 0)
        other = (requester + jnp.arange(1, self.num_requesters)) % self.num_requesters
        known = jnp.where(jnp.isfinite(sharing.expected), sharing.expected, -jnp.inf)
        back = jnp.maximum(jnp.max(known, axis=1), sharing.start)
        others = [state.layer / self.num_layers, sharing.submitted / self.num_pieces, wait(back)]
        rows = jnp.stack(others, axis=1)[other]
        parts = [jnp.stack(common), rows.reshape(-1), slots.reshape(-1)]
        return jnp.concatenate(parts).astype(params.reference_speed.dtype)

    def situation(self, observation: Float[Array, " observation"], params: Params) -> Situation:
        """What `observe` shows, read back to rounding errors: so that heuristics are policies of the observation."""
        layer = jnp.clip(jnp.round(observation[0] * self.num_layers), 0, self.num_layers - 1).astype(jnp.int32)
        piece = jnp.clip(jnp.round(observation[1] * self.num_pieces), 0, self.num_pieces - 1).astype(jnp.int32)
        common, devices, features = self.observation_slots
        others = observation[COMMON_FEATURES:common].reshape(self.num_requesters - 1, OTHER_FEATURES)
        columns = observation[common:].reshape(devices, features)
        ideal = self.pieces(layer, params).flops[piece] / params.reference_speed
        down, cpu, up = ((10 ** columns[:, i] - 1) * ideal for i in (4, 5, 6))
        return Situation(
            layer=layer,
            piece=piece,
            present=self.action_mask(observation, params)["action"],
            speed=SPEED_UNIT * 10 ** columns[:, 1],
            bandwidth=BANDWIDTH_UNIT * 10 ** columns[:, 2],
            queue=Queue(down, cpu, up, columns[:, 3] > 0.5),
            other_layer=jnp.round(others[:, 0] * self.num_layers).astype(jnp.int32),
            other_pieces=jnp.round(others[:, 1] * self.num_pieces).astype(jnp.int32),
            other_wait=(10 ** others[:, 2] - 1) * ideal,
        )

    @property
    def observation_slots(self) -> tuple[int, int, int]:
        """How an observation is made: common features, then of so many devices so many features each."""
        return COMMON_FEATURES + (self.num_requesters - 1) * OTHER_FEATURES, self.num_devices, SLOT_FEATURES

    @property
    @override
    def mask_entries(self) -> dict[str, range]:
        common, devices, features = self.observation_slots
        return {"action": range(common, common + devices * features, features)}

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return state.over

    @override
    def is_truncated(self, state: State, params: Params) -> Bool[Array, ""]:
        # Inferences that are over were not cut off.
        return super().is_truncated(state, params) & ~self.is_terminated(state, params)

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
    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(self.num_devices)

    @override
    def observation_space(self, params: Params) -> spaces.Box:
        common, devices, features = self.observation_slots
        size = common + devices * features
        return spaces.Box(-jnp.inf, jnp.inf, (size,), params.reference_speed.dtype)

    def num_decisions(self, params: Params) -> Int[Array, ""]:
        """Pieces of all layers of all requesters that are not empty."""
        return self.num_requesters * jnp.sum(jnp.minimum(params.neurons, self.num_pieces))

    def pieces(self, layer: Int[Array, "*requester"], params: Params) -> Pieces:
        """The pieces of a layer, or of one for each requester."""

        def of_layer(layer: Int[Array, ""]) -> Pieces:
            return self.alone.pieces(layer, cast(Any, params))  # which has these fields too

        return jax.vmap(of_layer)(layer) if jnp.ndim(layer) else of_layer(layer)

    def devices(self, context: Context, params: Params) -> Devices:
        """The devices; failures are s since the first request."""
        return Devices((1 - context.usage) * params.device_speed, context.bandwidth, context.failure)

    def context(self, key: Array, params: Params) -> Context:
        """What holds for an episode."""
        draw = _Draws(*jax.random.uniform(key, (len(_Draws._fields), self.num_devices), params.reference_speed.dtype))
        present = draw.member < params.present_probability
        # Requesters ask only when someone is there.
        present |= ~jnp.any(present) & (jnp.arange(self.num_devices) == jnp.argmin(draw.member))
        alone = jnp.sum(params.neurons * params.neuron_flops) / params.reference_speed
        tiny = jnp.finfo(alone.dtype).tiny  # 0 is for the absent
        instant = jnp.maximum(draw.instant * params.failure_window * alone, tiny)
        fails = draw.fails < params.failure_probability
        return Context(
            usage=params.usage_low + (params.usage_high - params.usage_low) * draw.usage,
            bandwidth=params.bandwidth_low * (params.bandwidth_high / params.bandwidth_low) ** draw.bandwidth,
            present=present,
            failure=jnp.where(present, jnp.where(fails, instant, jnp.inf), 0),
        )

    def valid_action(self, action: Int[Array, ""], present: Bool[Array, " device"]) -> Int[Array, ""]:
        """The device, clipped to those there are; instead of an absent one, the next that is there.

        Raises:
            ValueError: If the action is no scalar.
        """
        if jnp.shape(action) != ():
            raise ValueError(f"action of shape {jnp.shape(action)}: it must be one device; use jax.vmap for a batch")
        device = jnp.clip(jnp.asarray(action, jnp.int32), 0, self.num_devices - 1)
        ahead = (jnp.arange(self.num_devices) - device) % self.num_devices
        return jnp.argmin(jnp.where(present, ahead, self.num_devices)).astype(jnp.int32)


class _Draws(NamedTuple):
    """Uniform numbers [device] that a context is made of."""

    usage: Float[Array, " device"]
    bandwidth: Float[Array, " device"]
    member: Float[Array, " device"]
    fails: Float[Array, " device"]
    instant: Float[Array, " device"]
