"""Partitioning of a multi-exit DNN and allocation of the edge (Ma et al. 2025, "Joint Optimization of Model
Partitioning and Resource Allocation for Multi-Exit DNNs in Edge-Device Collaboration").

Each of n devices runs the first layers of a multi-exit DNN itself and sends what has not left by an early exit to an
edge server, which divides its speed among them. The controller picks the splits and the shares. Of the paper only the
outline, the symbols and the tables are at hand: the model is derived from them (`physics.multi_exit`).
"""

import os
from collections.abc import Mapping
from typing import NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mec_jax.contracts import CutProfile, Cuts, Problem, Step, Traits
from mec_jax.files import shown
from mec_jax.observations import Block, ObservationField, ObservationTable
from mec_jax.parameters import is_traced, parameter
from mec_jax.physics.multi_exit import Costs, Options, chosen, edge_shares, split_costs, split_options
from mec_jax.profiles.multi_exit import MultiExitProfile, load_multi_exit_profile
from mec_jax.spaces import DiscreteArray, NamedTupleSpace, Simplex, clipped_choice
from mec_jax.transforms import LOG10, ONE_HOT, Transform

BANDWIDTH_UNIT = 1e7
"""bit/s; the observation of a bandwidth is the decimal logarithm in this unit, like the next ones."""
DEVICE_SPEED_UNIT = 1e11  # FLOP/s
EDGE_SPEED_UNIT = 1e12  # FLOP/s
POWER_UNIT = 1.0  # W
TRANSMIT_POWER_UNIT = 0.1  # W


class AllocationAction(NamedTuple):
    """Decision of one step. Splits out of range are clipped, and refused if they are no whole numbers by their type;
    shares are granted by `physics.multi_exit.edge_shares`, where NaN and what is negative count as 0.
    """

    split: Int[Array, " device"]  # layers on the device: 0 = all at the edge, m = all on the device
    share: Float[Array, " device"]  # of the edge, >= 0; scaled to sum to 1 over the devices with work there


class Situation(NamedTuple):
    """What varies between and within episodes, as a controller sees it."""

    bandwidth: Float[Array, ""]  # bit/s of each device's link
    edge_speed: Float[Array, ""]  # FLOP/s
    device_speed: Float[Array, " device"]  # FLOP/s
    split: Int[Array, " device"]  # in force from the step before; m in the contextual bandit


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """The scenario, and what the episode has cost so far."""

    time: Int[Array, ""]  # steps played
    bandwidth: Float[Array, ""]  # bit/s
    level: Int[Array, ""]  # of the bandwidth, in the Markov chain
    edge_speed: Float[Array, ""]  # FLOP/s
    device_speed: Float[Array, " device"]  # FLOP/s
    split: Int[Array, " device"]  # of the step before; m at the start: nothing is deployed at the edge yet
    cost: Float[Array, ""]  # sum over steps of the mean over devices
    latency: Float[Array, ""]  # s, sum over steps of the mean over devices
    energy: Float[Array, ""]  # J, sum over steps of the mean over devices
    switches: Int[Array, ""]  # partitions changed


@struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    # The paper has no episodes. Fifty steps of a chain see most levels of the bandwidth.
    max_steps_in_episode: int = parameter("1, in a chain 50", "steps", "assumed", "until truncation", least=1)
    layer_flops: Float[Array, "device layer"] = parameter("profile", "FLOP", "profile", least=0)
    branch_flops: Float[Array, "device layer"] = parameter("profile", "FLOP", "profile", "exit after it", least=0)
    input_bits: Float[Array, " device"] = parameter("profile", "bit", "profile", "of the raw input", least=0)
    # The last is never sent.
    feature_bits: Float[Array, "device layer"] = parameter("profile", "bit", "profile", "if cut after it", least=0)
    exit_probability: Float[Array, "device layer"] = parameter(
        "profile", "1", "profile", "of a task to leave by the exit if all are installed", least=0, most=1
    )
    # An exit that no task takes would only cost its own work.
    exit_installed: Bool[Array, "device layer"] = parameter("where tasks leave", "1", "profile", "the last always is")
    device_power: Float[Array, " device"] = parameter("profile", "W", "profile", "while computing")
    transmit_power: Float[Array, " device"] = parameter("profile", "W", "profile", "while sending")
    device_speed: Float[Array, " device"] = parameter("profile", "FLOP/s", "profile", "nominal")
    # An episode has a speed log-uniform in nominal / spread .. nominal * spread: throttled or boosted by a fifth.
    device_speed_spread: Float[Array, ""] = parameter(1.2, "1", "assumed", "of the devices' speeds", least=1, most=1e3)
    # f_e is not given. Near the sum of the devices' speeds (0.58 and 1.06 TFLOP/s in the tables), neither side is idle
    # in the optimum and shares are scarce; benchmarks/reproduce/multi_exit sweeps it.
    edge_speed: Float[Array, ""] = parameter(1e12, "FLOP/s", "assumed", "nominal")
    # Other tenants of the server take up to a third, or leave as much more.
    edge_speed_spread: Float[Array, ""] = parameter(1.5, "1", "assumed", "as for the devices", least=1, most=1e3)
    # Time and energy count alike; the paper's weight is not given.
    latency_weight: Float[Array, " device"] = parameter(
        0.5, "1", "assumed", "w of w * seconds + (1 - w) * joules", least=0, most=1
    )
    bandwidth_min: Float[Array, ""] = parameter(1e6, "bit/s", "figures")
    bandwidth_max: Float[Array, ""] = parameter(100e6, "bit/s", "figures", not_below="bandwidth_min")
    # Of the Markov chain, spaced evenly in the logarithm: a step is about a factor of 2, and a level lasts five steps.
    bandwidth_levels: Int[Array, ""] = parameter(7, "1", "assumed", "of the chain", least=2)
    bandwidth_stay: Float[Array, ""] = parameter(
        0.8, "1", "assumed", "probability to stay at a level; the neighbours share the rest", least=0, most=1
    )
    # Assumed: a device that changes its split loads weights for 0.4 s (the 59 MB of VGG-16's convolutions at 150 MB/s)
    # at w = 1/2: about what a task of its own costs, so that following every change does not pay.
    switch_cost: Float[Array, ""] = parameter(
        "0, in a chain 0.2", "cost", "assumed", "per device that changes its split", least=0
    )
    reference_cost: Float[Array, ""] = parameter("all local", "cost", "ours", "what the reward divides by", most=1e30)


COMMON_FIELDS = (
    ObservationField("bandwidth", "bit/s", "log10(bandwidth / 10 Mbit/s)", 1, Transform(LOG10, scale=BANDWIDTH_UNIT)),
    ObservationField(
        "edge_speed", "FLOP/s", "log10(edge speed / 1 TFLOP/s)", 1, Transform(LOG10, scale=EDGE_SPEED_UNIT)
    ),
)
DEVICE_FIELDS = (
    ObservationField("speed", "FLOP/s", "log10(speed / 100 GFLOP/s)", 1, Transform(LOG10, scale=DEVICE_SPEED_UNIT)),
    ObservationField("power", "W", "log10(power / 1 W)", 1, Transform(LOG10, scale=POWER_UNIT)),
    ObservationField(
        "transmit_power", "W", "log10(transmit power / 0.1 W)", 1, Transform(LOG10, scale=TRANSMIT_POWER_UNIT)
    ),
)


class MultiExitAllocation(Problem[State, Params, AllocationAction]):
    """`MultiExitAllocation-v0` and its variants: split and share of the edge for every device.

    A contextual bandit: an episode is one decision in a random scenario, and terminates. With `markov` the bandwidth
    follows a Markov chain over the steps of an episode, which is truncated, and each device that changes its split
    pays for the switch. Situations depend on keys alone and not on actions.

    Reward: `-(sum of the devices' costs + switch_cost * partitions changed) / reference_cost`. By default the
    reference is what the devices cost at nominal speed with everything local: that earns -1 a step.

    Observation: log10(bandwidth / 10 Mbit/s) and log10(edge speed / 1 TFLOP/s), then per device, interleaved,
    log10(speed / 100 GFLOP/s), log10(power / 1 W), log10(transmit power / 0.1 W), mean exit / m, and with `markov`
    the split in force, one-hot. `situation` reads it back.

    `info` holds, of the step and as means over devices, `cost`, `latency` (s) and `energy` (J), then `switches`
    (partitions changed), and of the episode so far `episode_cost`, `episode_latency` and `episode_energy` (means over
    steps of the same) and `episode_switches` (sum). Costs are those of the devices, without switches.

    Args:
        profile: Name or JSON file of a multi-exit profile (`mec_jax.profiles.multi_exit`): network and devices.
        markov: Whether an episode is a bandwidth-Markov chain instead of one decision.

    Raises:
        ValueError: If the profile is unknown or malformed, or `markov` is no truth value.
    """

    params_type = Params
    solver = "mec_jax.solvers.multi_exit:SOLVER"

    def __init__(self, profile: str | os.PathLike[str] = "vgg16_image", markov: bool = False) -> None:
        if not isinstance(markov, bool):
            raise ValueError(f"markov is {shown(markov)}: it must be True or False")
        self.profile: MultiExitProfile = load_multi_exit_profile(profile)
        self.markov = markov
        self.num_devices = self.profile.num_devices
        self.num_layers = self.profile.num_layers

    @property
    @override
    def traits(self) -> Traits:
        return Traits(discrete=True, continuous=True, one_decision=not self.markov, exogenous=self.markov)

    @property
    @override
    def table(self) -> ObservationTable:
        share = Transform(scale=float(self.num_layers))
        fields = [*DEVICE_FIELDS, ObservationField("mean_exit", "layer", "mean exit / layers", 1, share)]
        if self.markov:
            # One-hot: what to keep is read off, not computed from a number.
            splits, rule = self.num_layers + 1, Transform(ONE_HOT)
            fields.append(ObservationField("split", "layer", "1 at the split in force", splits, rule))
        return ObservationTable((Block(COMMON_FIELDS), Block(tuple(fields), "device", self.num_devices)))

    @property
    @override
    def cuts(self) -> Cuts:
        return Cuts("split", (CutProfile(self.profile.name, self.profile.sha256, self.profile.points),))

    @property
    @override
    def axes(self) -> dict[str, int]:
        return {"device": self.num_devices, "layer": self.num_layers}

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        profile = self.profile
        exits = np.array(profile.exit_probability)
        installed = exits > 0
        installed[:, -1] = True
        return {
            "max_steps_in_episode": 50 if self.markov else 1,
            "layer_flops": np.array(profile.layer_flops),
            "branch_flops": np.array(profile.branch_flops),
            "input_bits": profile.input_bits,
            "feature_bits": np.array(profile.feature_bits),
            "exit_probability": exits,
            "exit_installed": installed,
            "device_power": np.array(profile.device_power),
            "transmit_power": np.array(profile.transmit_power),
            "device_speed": np.array(profile.device_speed),
            "switch_cost": 0.2 if self.markov else 0.0,
        }

    @override
    def derived(self, params: Params) -> dict[str, ArrayLike]:
        return {"reference_cost": self._local_cost(params)}

    @override
    def check_params(self, values: Mapping[str, ArrayLike]) -> None:
        exits, installed = values["exit_probability"], values["exit_installed"]
        if not is_traced(exits) and not np.allclose(np.asarray(exits).sum(axis=1), 1, atol=1e-3):
            sums = ", ".join(f"{total:g}" for total in np.asarray(exits).sum(axis=1))
            raise ValueError(f"exit_probability sums to {sums} over the layers: it must sum to 1 for each device")
        if not is_traced(installed) and not np.all(np.asarray(installed)[:, -1]):
            raise ValueError("exit_installed is False at the last layer: the tasks that are left leave there")

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Float[Array, " observation"], State]:
        uniform = jax.random.uniform(key, (2 + self.num_devices,), params.edge_speed.dtype)
        if self.markov:
            level = (uniform[0] * params.bandwidth_levels).astype(jnp.int32)  # the chain's stationary distribution
            bandwidth = self.bandwidth(level, params)
        else:
            level = jnp.zeros((), jnp.int32)
            bandwidth = params.bandwidth_min * (params.bandwidth_max / params.bandwidth_min) ** uniform[0]
        nothing = jnp.zeros_like(bandwidth)
        state = State(
            time=jnp.zeros((), jnp.int32),
            bandwidth=bandwidth,
            level=level,
            edge_speed=params.edge_speed * params.edge_speed_spread ** (2 * uniform[1] - 1),
            device_speed=params.device_speed * params.device_speed_spread ** (2 * uniform[2:] - 1),
            split=jnp.full(self.num_devices, self.num_layers, jnp.int32),
            cost=nothing,
            latency=nothing,
            energy=nothing,
            switches=jnp.zeros((), jnp.int32),
        )
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: AllocationAction, params: Params) -> Step[State]:
        split, share = self.valid_action(action)
        now = Situation(state.bandwidth, state.edge_speed, state.device_speed, state.split)
        costs = self.costs(now, AllocationAction(split, share), params)
        changed = jnp.sum(split != state.split)
        reward = -(jnp.sum(costs.cost) + params.switch_cost * changed) / params.reference_cost

        level, bandwidth = state.level, state.bandwidth
        if self.markov:
            level = self.next_level(key, level, params)
            bandwidth = self.bandwidth(level, params)
        cost, latency, energy = (jnp.mean(x) for x in (costs.cost, costs.latency, costs.energy))
        state = state.replace(
            time=state.time + 1,
            bandwidth=bandwidth,
            level=level,
            split=split,
            cost=state.cost + cost,
            latency=state.latency + latency,
            energy=state.energy + energy,
            switches=state.switches + changed,
        )
        info = {
            "cost": cost,
            "latency": latency,
            "energy": energy,
            "switches": changed,
            "episode_cost": state.cost / state.time,
            "episode_latency": state.latency / state.time,
            "episode_energy": state.energy / state.time,
            "episode_switches": state.switches,
        }
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), info

    @override
    def observe(
        self, key: Array, state: State, action: AllocationAction | None, params: Params
    ) -> Float[Array, " observation"]:
        return self.table.observe(self.quantities(state, params), params, params.edge_speed.dtype)

    @override
    def quantities(self, state: State, params: Params) -> dict[str, Array]:
        in_force = {"split": state.split} if self.markov else {}
        return {
            "bandwidth": state.bandwidth,
            "edge_speed": state.edge_speed,
            "speed": state.device_speed,
            "power": params.device_power,
            "transmit_power": params.transmit_power,
            "mean_exit": jnp.sum(params.exit_probability * jnp.arange(1, self.num_layers + 1), axis=1),
            **in_force,
        }

    def situation(self, observation: Float[Array, " observation"], params: Params) -> Situation:
        """What `observe` shows, read back to rounding errors: so that heuristics are policies of the observation."""
        common, devices = self.table.split(observation)
        if self.markov:
            in_force = jnp.argmax(devices["split"], axis=1).astype(jnp.int32)
        else:
            in_force = jnp.full(self.num_devices, self.num_layers, jnp.int32)
        return Situation(
            bandwidth=BANDWIDTH_UNIT * 10 ** common["bandwidth"],
            edge_speed=EDGE_SPEED_UNIT * 10 ** common["edge_speed"],
            device_speed=DEVICE_SPEED_UNIT * 10 ** devices["speed"],
            split=in_force,
        )

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return jnp.zeros((), bool) if self.markov else state.time >= 1

    @override
    def is_truncated(self, state: State, params: Params) -> Bool[Array, ""]:
        # A bandit's episode is over after its decision, not cut off.
        return super().is_truncated(state, params) if self.markov else jnp.zeros((), bool)

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        """What an episode cost, from the last step's `info`: means over steps and devices of cost, s and J.

        With `markov` also `switches`, the partitions changed per step.
        """
        measures = {name: info[f"episode_{name}"] for name in ("cost", "latency", "energy")}
        if self.markov:
            measures["switches"] = info["episode_switches"] / frames
        return measures

    @override
    def action_space(self, params: Params) -> NamedTupleSpace:
        splits = DiscreteArray(self.num_layers + 1, (self.num_devices,))
        return NamedTupleSpace(AllocationAction, (splits, Simplex(self.num_devices, params.edge_speed.dtype)))

    def options(self, now: Situation, params: Params) -> Options:
        """Costs of every split of every device."""
        return split_options(
            params.layer_flops,
            params.branch_flops,
            params.input_bits,
            params.feature_bits,
            params.exit_probability,
            params.exit_installed,
            now.device_speed,
            params.device_power,
            params.transmit_power,
            now.bandwidth,
        )

    def costs(self, now: Situation, action: AllocationAction, params: Params) -> Costs:
        """Costs of a `valid_action`, each device on its own, without switches."""
        options = self.options(now, params)
        share = edge_shares(action.share, chosen(options.edge_work, action.split))
        return split_costs(options, action.split, share, now.edge_speed, params.latency_weight)

    def bandwidth(self, level: Int[Array, ""], params: Params) -> Float[Array, ""]:
        """bit/s at a level of the Markov chain."""
        position = level / (params.bandwidth_levels - 1)
        return params.bandwidth_min * (params.bandwidth_max / params.bandwidth_min) ** position

    def next_level(self, key: Array, level: Int[Array, ""], params: Params) -> Int[Array, ""]:
        """One step of the Markov chain, a lazy random walk; at an end, a step out of it stays."""
        uniform = jax.random.uniform(key, (), params.edge_speed.dtype)
        leave = (1 - params.bandwidth_stay) / 2
        step = jnp.where(uniform < leave, -1, jnp.where(uniform >= 1 - leave, 1, 0))
        return jnp.clip(level + step, 0, params.bandwidth_levels - 1)

    def valid_action(self, action: AllocationAction) -> AllocationAction:
        """The action, with splits clipped to what is possible.

        Raises:
            ValueError: If a part is not of shape `[device]`, or a split no whole number by its type.
        """
        device = (self.num_devices,)
        shapes = [jnp.shape(part) for part in action]
        if shapes != [device, device]:
            raise ValueError(
                f"action of shapes {shapes}: it must be AllocationAction(split, share) of shape {device} each; "
                "use jax.vmap for a batch"
            )
        split, share = action
        return AllocationAction(clipped_choice(split, self.num_layers + 1, "split"), jnp.asarray(share))

    def _local_cost(self, params: Params) -> Float[Array, ""]:
        split = jnp.full(self.num_devices, self.num_layers, jnp.int32)
        nominal = Situation(params.bandwidth_max, params.edge_speed, params.device_speed, split)
        return jnp.sum(self.costs(nominal, AllocationAction(split, jnp.zeros(self.num_devices)), params).cost)
