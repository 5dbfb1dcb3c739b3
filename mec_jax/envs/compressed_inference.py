"""Pruning, cutting and packing one network for one device, link and accuracy budget (Mu et al. 2024, "Joint pruning,
partition and feature compression").

The paper searches anew for every device and link. Here an episode draws them, and a policy decides in turn how much of
each unit is pruned (as AMC does, He et al. 2018), where the network is cut, and how the feature is packed: one policy
for all of them.
"""

import math
import os
from collections.abc import Mapping
from functools import cache
from itertools import zip_longest
from typing import NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mec_jax.contracts import CutProfile, Cuts, Problem, Step, Traits
from mec_jax.files import check_choice, content_sha256, shown
from mec_jax.observations import Block, ObservationField, ObservationTable, Quantity
from mec_jax.parameters import parameter, within
from mec_jax.physics.accuracy import NOISELESS, Predictor, anchored, input_names, inputs, predict, predictor
from mec_jax.physics.compression import (
    CompressibleCosts,
    Strategy,
    canonical,
    costs,
    latency,
    sent_bits,
    strategy_of,
    total,
    unpacked,
)
from mec_jax.physics.partition import CutTimes
from mec_jax.profiles.compression import COMPRESSIBLE, MAX_SPARSITY, NO_CODEC, SETTINGS, Compressible, compressible
from mec_jax.profiles.regressors import load_regressor
from mec_jax.spaces import NamedTupleSpace, clipped_choice
from mec_jax.transforms import FLAG, LOG10, LOG10_1P, ONE_HOT, Transform

CHOICES = {
    name: SETTINGS[[setting.name for setting in SETTINGS].index(f"{of}_{name}")].choices
    for name, of in (("kernel", "conv"), ("stride", "conv"), ("layers", "linear"), ("bits", "conv"))
}
"""What the choices of a codec stand for. A convolutional and a linear one have the same for bits."""

OFF = {"kernel": 0, "stride": 0, "layers": 0, "bits": len(CHOICES["bits"]) - 1}
"""Which of them is no codec: the one that is left where a setting does not apply."""


class CompressAction(NamedTuple):
    """Decision of one step, of which a step takes its own parts. What is out of range is clipped, NaN counts as 0, and
    choices are refused if they are no whole numbers by their type.
    """

    cut: Int[Array, ""]  # place in `Compressible.cuts`
    kernel: Int[Array, ""]  # of a convolutional codec: which of `CHOICES`, like the next ones
    stride: Int[Array, ""]  # of a convolutional codec
    layers: Int[Array, ""]  # of a linear codec
    bits: Int[Array, ""]  # of an element that is sent
    amount: Float[Array, ""]  # 0..1: sparsity / MAX_SPARSITY of a unit; log-scaled, the share of channels a codec sends
    width: Float[Array, ""]  # 0..1: log-scaled, of the layer between, in a linear codec of two layers


class Situation(NamedTuple):
    """What an episode is about."""

    device_speed: Float[Array, ""]  # FLOP/s
    rate: Float[Array, ""]  # bit/s of the uplink
    budget: Float[Array, ""]  # of accuracy that may be lost, 0 to 1


class Outcome(NamedTuple):
    """What comes of a strategy."""

    reward: Float[Array, ""]  # of the whole episode
    latency: Float[Array, ""]  # s, of what is deployed
    accuracy: Float[Array, ""]  # predicted, of what was decided
    feasible: Bool[Array, ""]  # that is within the budget
    sent_bits: Float[Array, ""]  # bit, of what is deployed, like the next one
    device_flops: Float[Array, ""]  # FLOP


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """What the episode is about, and what is decided so far: the rest is as if nothing were compressed and the device
    ran all of it.
    """

    time: Int[Array, ""]  # decisions taken
    situation: Situation
    sparsity: Float[Array, " unit"]
    cut: Int[Array, ""]  # place in `Compressible.cuts`
    codec: Float[Array, " setting"]  # in the one form of `mec_jax.physics.compression.canonical`
    accuracy: Float[Array, ""]  # predicted


@struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    max_steps_in_episode: int = parameter("units + 2", "decisions", "ours", "until truncation", least=1)
    # From a Raspberry Pi 3B+ to a Jetson TK1.
    device_speed_min: Float[Array, ""] = parameter(0.2e9, "FLOP/s", "section VI-A", "log-uniform from here")
    device_speed_max: Float[Array, ""] = parameter(326.4e9, "FLOP/s", "section VI-A", not_below="device_speed_min")
    # The axis of Figs. 7 and 8; 3G to WiFi are 1.19 to 54.19 Mbit/s.
    rate_min: Float[Array, ""] = parameter(0.01e6, "bit/s", "Figs. 7 and 8", "log-uniform from here")
    rate_max: Float[Array, ""] = parameter(100e6, "bit/s", "Figs. 7 and 8", not_below="rate_min")
    # The paper's is 2 %.
    budget_min: Float[Array, ""] = parameter(
        0.005, "1", "assumed", "accuracy that may be lost, uniform from here", least=1e-4, most=1
    )
    budget_max: Float[Array, ""] = parameter(0.05, "1", "assumed", least=1e-4, most=1, not_below="budget_min")
    server_speed: Float[Array, ""] = parameter(10600e9, "FLOP/s", "section VI-A", "a P100")
    # Beyond -20 dB nothing is left of a feature.
    snr: Float[Array, ""] = parameter(
        NOISELESS, "dB", "ours", "of the channel's noise on a feature; 60 is none", least=-20.0, most=NOISELESS
    )
    # The paper's range is inside the network: 1 to the last but one (Fig. 6). By default all local and all at the
    # server are choices as well.
    first_cut: Int[Array, ""] = parameter(0, "cut", "ours", "first place in the list of cuts that is allowed", least=0)
    last_cut: Int[Array, ""] = parameter("the last", "cut", "ours", "last one", least=0, not_below="first_cut")
    # An accuracy one budget too low costs as much as an e-fold latency.
    penalty: Float[Array, ""] = parameter(
        1.0, "1", "assumed", "for accuracy that lacks, in units of the budget", least=0, most=1e3
    )


class CompressedInference(Problem[State, Params, CompressAction]):
    """`CompressedInference-v0` and `-RegNet-v0`: sparsities, cut and codec of one network, in turn.

    Their accuracy is predicted from networks that were really compressed, on Fashion-MNIST at 32 x 32, while FLOP and
    bits are those of 224 x 224. In `CompressedInference-Anchored-v0` and `-Anchored-RegNet-v0` it is a declared law.

    An episode draws the device's speed, the rate of its uplink and how much accuracy may be lost, and is one decision
    for each prunable unit, in order, then the cut, then the codec; it terminates after that. What a step does not ask
    for has one choice left by the masks, and its numbers count nothing. An illegal cut falls to the nearest legal one,
    and settings of a codec that does not apply - a linear one's where the feature has height and width, a convolutional
    one's where it is flat, all where the input or nothing is sent - are those of no codec.

    Reward: 0 until the last decision, which earns minus the natural logarithm of the latency in s. The accuracy of what
    was decided is predicted (`mec_jax.physics.accuracy`); if it is below base - budget, an operator would not deploy
    it: then the latency is that of the network as it was, cut in the same place and without a codec, and the reward
    loses `penalty` times what lacks, in units of the budget. So nothing that breaks the budget earns more than what
    needs no accuracy at all, and no reward is above minus the logarithm of the least latency within the budget or
    without compression.

    What encoder and decoder cost is neglected, as in the paper: then of a codec's kernel, layers and width only the
    accuracy speaks, and to the predictor "anchored" they are all alike.

    Observation: 1 at the decision that is due; of the unit that is due, 1 if there is one, log10(channels / 64) and its
    share of FLOP; the sparsities / 0.95; FLOP left / FLOP; log10(1 + bits sent / 1 Mbit); log10(device speed /
    1 GFLOP/s), log10(rate / 1 Mbit/s), budget / 1 %; (predicted accuracy - base + budget) / budget; for each cut log10
    of what device and server compute and of all it takes without a codec, both s; 1 at the cut that was chosen, and
    the same two of it; then the masks: for each choice 1 if it is allowed. `situation` reads back what the episode is
    about.

    `info` holds `latency` (s), `accuracy`, `feasible`, `sent_bits` and `device_flops`, as in `Outcome`, of what is
    decided so far.

    Args:
        network: "alexnet" or "regnet_x_400mf" (`mec_jax.profiles.compression`).
        predictor: "anchored", the declared law through the paper's four points, which is no measurement; or the name or
            JSON file of a regressor that was fitted to measurements (`mec_jax.profiles.regressors`), of which
            "alexnet" and "regnet_x_400mf" come with the package.

    Raises:
        ValueError: If the network or predictor is unknown, or they do not fit together.
    """

    params_type = Params
    traits = Traits(discrete=True, continuous=True, at_end=True)
    solver = "mec_jax.solvers.compression.rulers:SOLVER"
    chart = "mec_jax.render.compressed_inference:CHART"

    def __init__(self, network: str = "alexnet", predictor: str | os.PathLike[str] = "anchored") -> None:
        check_choice("network", network, COMPRESSIBLE)
        if not isinstance(predictor, str | os.PathLike):
            raise ValueError(f"predictor is {shown(predictor)}: it must be a name or the path of a JSON file")
        self.network: Compressible = compressible(network)
        self.predictor = os.fspath(predictor)
        self.num_units = len(self.network.units)
        self.num_cuts = len(self.network.cuts)
        _model(network, self.predictor, _is_x64())  # which refuses what does not fit

    @property
    def num_decisions(self) -> int:
        """Of an episode."""
        return self.num_units + 2

    @property
    def costs(self) -> CompressibleCosts:
        """What the network costs, arrays."""
        return _costs(self.network.network, _is_x64())

    @property
    def model(self) -> Predictor:
        """What predicts its accuracy, arrays."""
        return _model(self.network.network, self.predictor, _is_x64())

    @property
    @override
    def table(self) -> ObservationTable:
        units, cuts = self.num_units, self.num_cuts
        seconds, chosen = Transform(LOG10), Transform(LOG10, where="is_cut")
        fields = (
            ObservationField(
                "decision", "1", "1 at the decision that is due", units + 2, Transform(ONE_HOT, where="due")
            ),
            ObservationField("pruning", "1", "1 if it is a unit's sparsity", 1, Transform(FLAG)),
            ObservationField(
                "channels", "channels", "log10(the unit's / 64)", 1, Transform(LOG10, scale=64.0, where="pruning")
            ),
            ObservationField("share", "1", "FLOP of the unit's layers / all", 1, Transform(where="pruning")),
            ObservationField("sparsity", "1", "sparsity / 0.95", units, Transform(scale=MAX_SPARSITY)),
            ObservationField("work", "FLOP", "FLOP that are left / unpruned", 1, Transform(over=("whole_work",))),
            ObservationField(
                "sent_bits", "bit", "log10(1 + bits sent / 1 Mbit)", 1, Transform(LOG10_1P, scale=1e6, where="is_cut")
            ),
            ObservationField(
                "device_speed", "FLOP/s", "log10(device speed / 1 GFLOP/s)", 1, Transform(LOG10, scale=1e9)
            ),
            ObservationField("rate", "bit/s", "log10(rate / 1 Mbit/s)", 1, Transform(LOG10, scale=1e6)),
            ObservationField("budget", "1", "accuracy that may be lost / 1 %", 1, Transform(scale=0.01)),
            ObservationField(
                "margin", "1", "(predicted accuracy - base + budget) / budget", 1, Transform(over=("budget",))
            ),
            ObservationField("computing", "s", "log10(computing of each cut / 1 s)", cuts, seconds),
            ObservationField("latency", "s", "log10(latency of each cut without a codec / 1 s)", cuts, seconds),
            ObservationField("cut", "cut", "1 at the cut that was chosen", cuts, Transform(ONE_HOT, where="is_cut")),
            ObservationField("chosen_computing", "s", "log10(its computing / 1 s)", 1, chosen),
            ObservationField("chosen_latency", "s", "log10(its latency without a codec / 1 s)", 1, chosen),
            *(
                ObservationField(f"allowed_{name}", "1", f"1 where the {name} is allowed", count, Transform(FLAG))
                for name, count in self._counts.items()
            ),
        )
        # Whether a decision is due, and whether the cut is chosen.
        beside = (Quantity("whole_work", "FLOP"), Quantity("due", "1"), Quantity("is_cut", "1"))
        return ObservationTable((Block(fields, beside=beside),))

    @property
    def _counts(self) -> dict[str, int]:
        """How many choices there are, by part of an action."""
        return {"cut": self.num_cuts, **{name: len(choices) for name, choices in CHOICES.items()}}

    @property
    @override
    def mask_entries(self) -> dict[str, range]:
        return {name: self.table.entries(f"allowed_{name}") for name in self._counts}

    @property
    @override
    def cuts(self) -> Cuts:
        network, layers = self.network, self.network.layers
        content = {
            "network": network.network,
            "image": list(network.image),
            "num_classes": network.num_classes,
            "layers": [[layer.name, layer.flops, layer.output_elements] for layer in layers],
        }
        points = ("input", *(layers[cut - 1].name for cut in network.cuts[1:-1]), "local")
        return Cuts("cut", (CutProfile(network.network, content_sha256(content), points),))

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        return {"max_steps_in_episode": self.num_decisions, "last_cut": self.num_cuts - 1}

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Float[Array, " observation"], State]:
        speed, rate, budget = jax.random.uniform(key, (3,), params.server_speed.dtype)
        situation = Situation(
            device_speed=params.device_speed_min * (params.device_speed_max / params.device_speed_min) ** speed,
            rate=params.rate_min * (params.rate_max / params.rate_min) ** rate,
            budget=params.budget_min + (params.budget_max - params.budget_min) * budget,
        )
        untouched = self.untouched(self.num_cuts - 1)
        state = State(
            time=jnp.zeros((), jnp.int32),
            situation=situation,
            **untouched._asdict(),
            accuracy=self.accuracy(untouched, params),
        )
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: CompressAction, params: Params) -> Step[State]:
        action = self.valid_action(action)
        first, last = self.cut_range(params)
        at_unit = jnp.arange(self.num_units) == state.time
        sparsity = jnp.where(at_unit, action.amount * MAX_SPARSITY, state.sparsity)
        cut = jnp.where(state.time == self.num_units, jnp.clip(action.cut, first, last), state.cut)
        codec = jnp.where(state.time == self.num_units + 1, self.codec(action), state.codec)
        strategy = canonical(self.costs, Strategy(sparsity, cut, codec))
        accuracy = self.accuracy(strategy, params)
        state = state.replace(time=state.time + 1, **strategy._asdict(), accuracy=accuracy)
        outcome = self.judged(state.situation, strategy, accuracy, params)
        over = self.is_terminated(state, params)
        reward = jnp.where(state.time == self.num_decisions, outcome.reward, 0)
        info = {name: value for name, value in outcome._asdict().items() if name != "reward"}
        return self.observe(key, state, action, params), state, reward, over, info

    @override
    def observe(
        self, key: Array, state: State, action: CompressAction | None, params: Params
    ) -> Float[Array, " observation"]:
        return self.table.observe(self.quantities(state, params), params, params.server_speed.dtype)

    @override
    def quantities(self, state: State, params: Params) -> dict[str, Array]:
        network, situation, time = self.costs, state.situation, state.time
        dtype = params.server_speed.dtype
        channels, share, work = _unit_features(self.network)
        unit = jnp.minimum(time, self.num_units)  # the last one is none
        times = self.times(situation, state.sparsity, params)
        computing = times.device + times.server
        is_cut = time > self.num_units
        allowed = {f"allowed_{name}": mask for name, mask in self._allowed(state, params).items()}
        return {
            "decision": jnp.minimum(time, self.num_decisions - 1),
            "due": time < self.num_decisions,
            "pruning": time < self.num_units,
            "channels": jnp.array(channels, dtype)[unit],
            "share": jnp.array(share, dtype)[unit],
            "sparsity": state.sparsity,
            "work": times.device[-1] * situation.device_speed,  # the last cut leaves the server nothing
            "whole_work": jnp.array(work, dtype),
            "sent_bits": sent_bits(network, Strategy(state.sparsity, state.cut, state.codec)),
            **situation._asdict(),
            "margin": state.accuracy - (self.model.base - situation.budget),
            "computing": computing,
            "latency": total(times),
            "is_cut": is_cut,
            "cut": state.cut,
            "chosen_computing": computing[state.cut],
            "chosen_latency": total(times)[state.cut],
            **allowed,
        }

    def situation(self, observation: Float[Array, " observation"]) -> tuple[Int[Array, ""], Situation]:
        """Which decision is due, and what the episode is about, read back to rounding errors: so that heuristics are
        policies of the observation.
        """
        (seen,) = self.table.split(observation)
        situation = Situation(1e9 * 10 ** seen["device_speed"], 1e6 * 10 ** seen["rate"], seen["budget"] / 100)
        return jnp.argmax(seen["decision"]), situation

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return state.time >= self.num_decisions

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        """Of what is decided in the end, from the last step's `info`: latency (s), predicted accuracy, 1 if it is
        within the budget, bits that are sent and FLOP of the device.
        """
        return {**info, "feasible": info["feasible"].astype(info["latency"].dtype)}

    @override
    def action_space(self, params: Params) -> NamedTupleSpace:
        numbers = [spaces.Box(0.0, 1.0, (), params.server_speed.dtype) for _ in ("amount", "width")]
        choices = [spaces.Discrete(count) for count in self._counts.values()]
        return NamedTupleSpace(CompressAction, (*choices, *numbers))

    # What comes of a strategy.

    def accuracy(self, strategy: Strategy, params: Params) -> Float[Array, ""]:
        """What is predicted."""
        found = predict(self.model, inputs(self.costs, strategy, params.snr))
        return found.astype(params.server_speed.dtype)

    def outcome(self, situation: Situation, strategy: Strategy, params: Params) -> Outcome:
        """What comes of a strategy, whose cut falls to the nearest legal one."""
        first, last = self.cut_range(params)
        strategy = strategy._replace(cut=jnp.clip(strategy.cut, first, last))
        return self.judged(situation, strategy, self.accuracy(strategy, params), params)

    def judged(self, situation: Situation, strategy: Strategy, accuracy: Float[Array, ""], params: Params) -> Outcome:
        """What comes of a strategy of that accuracy."""
        least = self.model.base - situation.budget
        feasible = accuracy >= least
        untouched = self.untouched(strategy.cut)
        deployed: Strategy = jax.tree.map(lambda x, y: jnp.where(feasible, x, y), strategy, untouched)
        speed, rate, _ = situation
        times = latency(self.costs, deployed, speed, rate, params.server_speed)
        lacks = jnp.where(feasible, 0, (least - accuracy) / situation.budget)
        return Outcome(
            reward=-jnp.log(total(times)) - params.penalty * lacks,
            latency=total(times),
            accuracy=accuracy,
            feasible=feasible,
            sent_bits=sent_bits(self.costs, deployed),
            device_flops=times.device * speed,
        )

    def times(self, situation: Situation, sparsity: Float[Array, " unit"], params: Params) -> CutTimes[Array]:
        """What each cut takes without a codec, [cut]."""
        speed, rate, _ = situation
        return unpacked(self.costs, sparsity, speed, rate, params.server_speed)

    def untouched(self, cut: ArrayLike) -> Strategy:
        """Nothing pruned and nothing packed, cut there."""
        return Strategy(jnp.zeros(self.num_units), jnp.asarray(cut, jnp.int32), jnp.array(NO_CODEC, float))

    # Actions

    def cut_range(self, params: Params) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """First and last place in the list of cuts that is allowed."""
        most = self.num_cuts - 1
        return jnp.minimum(params.first_cut, most), jnp.minimum(params.last_cut, most)

    def valid_action(self, action: CompressAction) -> CompressAction:
        """The action, clipped to what is possible.

        Raises:
            ValueError: If a part is no single number, or a choice no whole one by its type.
        """
        shapes = [jnp.shape(part) for part in action]
        if shapes != [()] * len(CompressAction._fields):
            raise ValueError(
                f"action of shapes {shapes}: each part of a CompressAction must be one number; use jax.vmap for a batch"
            )
        action = CompressAction(*action)
        amount, width = (within(jnp.asarray(x, float), 0.0, 1.0) for x in (action.amount, action.width))
        choices = {name: clipped_choice(getattr(action, name), count, name) for name, count in self._counts.items()}
        return CompressAction(**choices, amount=amount, width=width)

    def codec(self, action: CompressAction) -> Float[Array, " setting"]:
        """The settings that a `valid_action` stands for, of both codecs."""
        coordinate = {
            "share": action.amount,
            "width": action.width,
            **{name: (getattr(action, name) + 0.5) / len(choices) for name, choices in CHOICES.items()},
        }
        settings = [coordinate[setting.name.partition("_")[-1]] for setting in SETTINGS]
        point = jnp.concatenate([jnp.zeros(self.num_units + 1), jnp.stack(settings)])
        return strategy_of(self.costs, point).codec

    def _allowed(self, state: State, params: Params) -> dict[str, Bool[Array, " choice"]]:
        """By part of the action, which choices are allowed at the decision that is due."""
        first, last = self.cut_range(params)
        place = jnp.arange(self.num_cuts)
        cutting, packing = state.time == self.num_units, state.time == self.num_units + 1
        packing &= self.costs.packed[state.cut]
        flat = self.costs.flat[state.cut]
        applies = {"kernel": packing & ~flat, "stride": packing & ~flat, "layers": packing & flat, "bits": packing}
        return {
            "cut": jnp.where(cutting, (place >= first) & (place <= last), place == first),
            **{name: (jnp.arange(len(CHOICES[name])) == OFF[name]) | free for name, free in applies.items()},
        }


def _is_x64() -> bool:
    return jnp.result_type(float) == jnp.float64


@cache
def _costs(network: str, x64: bool) -> CompressibleCosts:
    """Of a network, in the precision that is in force. They are kept, and so must not be of the trace that asks."""
    with jax.ensure_compile_time_eval():
        return costs(compressible(network))


@cache
def _model(network: str, name: str, x64: bool) -> Predictor:
    """What predicts a network's accuracy.

    Raises:
        ValueError: If there is no such predictor, or it reads something else.
    """
    with jax.ensure_compile_time_eval():
        if name == "anchored":
            return anchored(compressible(network))
        regressor = load_regressor(name)
        expected = input_names(compressible(network))
        if regressor.inputs != expected:
            off = next(pair for pair in zip_longest(regressor.inputs, expected) if pair[0] != pair[1])
            raise ValueError(
                f"predictor {name!r} does not fit {network}: of its inputs, {shown(off[0])} must be {shown(off[1])}, "
                f"and there must be {len(expected)}"
            )
        return predictor(regressor)


@cache
def _unit_features(network: Compressible) -> tuple[np.ndarray, np.ndarray, float]:
    """Channels of each unit and its share of FLOP, with one entry more, of no unit; and all FLOP."""
    layers = network.layers
    whole = math.fsum(layer.flops for layer in layers)
    share = [math.fsum(layer.flops for layer in layers if layer.name in unit.layers) / whole for unit in network.units]
    return np.array([*(unit.channels for unit in network.units), 1]), np.array([*share, 0]), whole
