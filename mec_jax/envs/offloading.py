"""Multi-UE hybrid-action offloading (Hao et al. 2022, "Multi-Agent Collaborative Inference via DNN Decoupling").

N UEs share C uplink channels to one edge server. Each has a number of DNN inference tasks to finish. In every frame
the controller picks per UE where to cut the network, on which channel to send the feature and with what power.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mec_jax.contracts import CutProfile, Cuts, Problem, Step, Traits
from mec_jax.files import check_count, shown
from mec_jax.memory import check_memory
from mec_jax.observations import Block, ObservationField, ObservationTable, Quantity
from mec_jax.parameters import parameter, within
from mec_jax.physics.frame import COMPUTING, FREE, TRANSMITTING, Clock, Given, Task, Uplink, play_frame, start_clock
from mec_jax.physics.radio import path_gain
from mec_jax.profiles import Profile, load_profile
from mec_jax.spaces import DiscreteArray, NamedTupleSpace, clipped_choice
from mec_jax.transforms import Transform

INPUT_BITS = 1_204_224
"""Observation normaliser of the bits left: a raw 3 x 224 x 224 input of 8 bit (reference implementation)."""

MIN_POWER = 1e-10
"""Lowest transmit power in W (reference implementation)."""

_PAIR_BYTES = 16
"""Byte in a step of each pair of UEs that may interfere."""


class OffloadAction(NamedTuple):
    """Decision of one frame. What is out of range is clipped, and NaN is the least power; a cut or channel that is no
    whole number by its type is refused.
    """

    cut: Int[Array, " ue"]  # 0 = send the input, last = run locally; used by the next task a UE starts
    channel: Int[Array, " ue"]  # used by the next task a UE starts
    power: Float[Array, " ue"]  # W, transmit power, from now on


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """What each UE is doing, and what the episode has cost so far."""

    time: Int[Array, ""]  # frames played
    tasks_given: Int[Array, " ue"]
    tasks_left: Int[Array, " ue"]  # the one in flight included
    mode: Int[Array, " ue"]  # FREE, COMPUTING or TRANSMITTING
    time_left: Float[Array, " ue"]  # s of computing
    bits_left: Float[Array, " ue"]  # bit to send; the whole feature while computing
    cut: Int[Array, " ue"]  # of the task in flight
    channel: Int[Array, " ue"]  # of the task in flight
    distance: Float[Array, " ue"]  # m to the base station
    energy: Float[Array, " ue"]  # J so far
    busy: Float[Array, " ue"]  # s with a task in hand so far


@struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    # The reference cuts training episodes at 60 frames; without that a UE at 100 m with little power can hold an
    # episode up for thousands.
    max_steps_in_episode: int = parameter(60, "frames", "reference", "until truncation", least=1)
    frame_time: Float[Array, ""] = parameter(0.5, "s", "section 6.3.1", "T0")
    beta: Float[Array, ""] = parameter(0.47, "s/J", "section 6.3.1", "weight of energy against time", least=0)
    finished_floor: Float[Array, ""] = parameter(0.8, "tasks", "reference", "least divisor of the reward")
    paper_reward: Bool[Array, ""] = parameter(False, "1", "reference", "eq. 12, sums over UEs, not means")
    all_interfere: Bool[Array, ""] = parameter(False, "1", "reference", "eq. 5 as printed: not only who sends there")
    bandwidth: Float[Array, " channel"] = parameter(1e6, "Hz", "section 6.3.1")
    noise: Float[Array, " channel"] = parameter(1e-9, "W", "section 6.3.1")
    path_loss: Float[Array, ""] = parameter(3.0, "1", "section 6.3.1", "exponent of the distance", least=0, most=10)
    power_max: Float[Array, " ue"] = parameter(1.0, "W", "section 6.3.1")
    distance_min: Float[Array, " ue"] = parameter(1.0, "m", "section 6.3.1")
    distance_max: Float[Array, " ue"] = parameter(100.0, "m", "section 6.3.1", not_below="distance_min")
    tasks_mean: Float[Array, " ue"] = parameter(200.0, "tasks", "section 6.3.1", "at the start of an episode")
    tasks_poisson: Bool[Array, ""] = parameter(True, "1", "section 6.3.1", "Poisson, at least 1, or just the mean")
    first_random: Bool[Array, ""] = parameter(True, "1", "reference", "first cut and channel, or local on channel 0")
    front_time: Float[Array, "ue point"] = parameter("profile", "s", "profile", "front part and encoder", least=0)
    front_power: Float[Array, "ue point"] = parameter("profile", "W", "profile", "while computing", least=0)
    feature_bits: Float[Array, "ue point"] = parameter("profile", "bit", "profile", "to send", least=0)
    time_scale: Float[Array, " ue"] = parameter("profile", "s", "reference", "normaliser of the time left")


class Seen(NamedTuple):
    """What the observation says of each UE, by column."""

    tasks_left: Float[Array, " ue"]
    time_left: Float[Array, " ue"]
    bits_left: Float[Array, " ue"]
    distance: Float[Array, " ue"]


UE_FIELDS = (
    ObservationField("tasks_left", "tasks", "tasks left / tasks given", 1, Transform(over=("tasks_given",))),
    ObservationField("time_left", "s", "time left / local time", 1, Transform(over=("env_params.time_scale",))),
    ObservationField("bits_left", "bit", "bits left / 1204224", 1, Transform(scale=INPUT_BITS)),
    ObservationField("distance", "m", "(distance - 1) / 99", 1, Transform(offset=1.0, scale=99.0)),
)
"""Columns of the observation, for each UE."""


def observation_table(num_ues: int) -> ObservationTable:
    """What the observation is made of."""
    return ObservationTable((Block(UE_FIELDS, "UE", num_ues, beside=(Quantity("tasks_given", "tasks"),)),))


def seen(observation: Float[Array, " observation"]) -> Seen:
    """The columns of an observation, as they are: normalised."""
    (columns,) = observation_table(observation.shape[-1] // len(UE_FIELDS)).split(observation)
    return Seen(**columns)


class MultiUEOffloading(Problem[State, Params, OffloadAction]):
    """`MultiUEOffloading-v0`: cut point, channel and transmit power for every UE in every frame.

    The dynamics are event driven and exact (`physics.frame`), as in the authors' public implementation. An episode
    terminates when all tasks are finished; the UEs that are free meanwhile use nothing and still count in the means.

    Observation, `[4 * ue]`, per UE: tasks left / tasks given, time left / local time, bits left / 1 204 224,
    (distance - 1) / 99. Reward: `-(T0 + beta * mean energy) / max(mean finished, 0.8)` of the frame, or eq. 12. The
    floor makes a nearly empty last frame cost about -0.6 whatever the policy.

    `info` holds, of the frame, `energy` (J, all UEs) and `finished` (tasks), and of the episode so far
    `episode_energy` (J), `episode_finished` (tasks), `latency` (s, mean true time per finished task) and
    `objective` (s, P1 of eq. 10: longest time of a UE plus beta times the energy).

    Args:
        num_ues: Number of UEs.
        num_channels: Number of uplink channels.
        profile: Name or JSON file of the DNN on the UEs, or one per UE. A network with fewer cut points than
            another has its local point repeated.

    Raises:
        ValueError: If a number is not positive, a profile is unknown or malformed, or there is not one per UE.
    """

    params_type = Params
    traits = Traits(discrete=True, continuous=True)
    solver = "mec_jax.solvers.offloading:SOLVER"
    chart = "mec_jax.render.offloading:CHART"

    def __init__(
        self,
        num_ues: int = 5,
        num_channels: int = 2,
        profile: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = "resnet18",
    ) -> None:
        self.num_ues = check_count("num_ues", num_ues)
        self.num_channels = check_count("num_channels", num_channels)
        check_memory(f"the interference of {num_ues} UEs", _PAIR_BYTES * num_ues**2)  # before there is a list of them
        if not isinstance(profile, str | os.PathLike | Sequence):
            raise ValueError(f"profile is {shown(profile)}: give a name or a path, or a list of them, one per UE")
        names = [profile] * num_ues if isinstance(profile, str | os.PathLike) else list(profile)
        if len(names) != num_ues:
            raise ValueError(f"{len(names)} profiles for {num_ues} UEs: give one, or one per UE")
        loaded = {name: load_profile(name) for name in dict.fromkeys(names)}
        self.profiles: tuple[Profile, ...] = tuple(loaded[name] for name in names)
        self.num_points = max(profile.num_points for profile in loaded.values())

    @property
    @override
    def table(self) -> ObservationTable:
        return observation_table(self.num_ues)

    @property
    @override
    def cuts(self) -> Cuts:
        def cut(profile: Profile) -> CutProfile:
            repeated = profile.points[-1:] * (self.num_points - profile.num_points)
            return CutProfile(profile.name, profile.sha256, profile.points + repeated)

        several = len(set(self.profiles)) > 1
        return Cuts("cut", tuple(map(cut, self.profiles if several else self.profiles[:1])))

    @property
    @override
    def axes(self) -> dict[str, int]:
        return {"ue": self.num_ues, "channel": self.num_channels, "point": self.num_points}

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        def points(column: Callable[[Profile], tuple[float, ...]]) -> np.ndarray:
            rows = [column(profile) for profile in self.profiles]
            return np.array([row + row[-1:] * (self.num_points - len(row)) for row in rows])

        return {
            "front_time": points(lambda profile: profile.front_time),
            "front_power": points(lambda profile: profile.front_power),
            "feature_bits": points(lambda profile: profile.bits),
            "time_scale": np.array([profile.observation_time for profile in self.profiles]),
        }

    @override
    def evaluation_params(self, params: Params | None = None, max_frames: int = 2000) -> Params:
        """The evaluation scenario of section 6.3.1 and the reference: d = 50 m, K = 200, first task local.

        Args:
            params: What else holds; the defaults if absent.
            max_frames: Truncation limit: far above any policy worth measuring, so that latency is not cut short.
        """
        params = self.default_params if params is None else params
        ues = jnp.ones_like(params.distance_min)
        return params.replace(
            distance_min=50 * ues,
            distance_max=50 * ues,
            tasks_mean=200 * ues,
            tasks_poisson=jnp.zeros_like(params.tasks_poisson),
            first_random=jnp.zeros_like(params.first_random),
            max_steps_in_episode=max_frames,
        )

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Float[Array, " observation"], State]:
        uniform = jax.random.uniform(key, (4, self.num_ues), params.frame_time.dtype)
        distance = params.distance_min + (params.distance_max - params.distance_min) * uniform[0]
        tasks = jnp.where(params.tasks_poisson, poisson(uniform[1], params.tasks_mean), params.tasks_mean)
        tasks = jnp.maximum(1, jnp.round(tasks)).astype(jnp.int32)
        cut = (uniform[2] * self.num_points).astype(jnp.int32)
        channel = (uniform[3] * self.num_channels).astype(jnp.int32)
        cut = jnp.where(params.first_random, cut, self.num_points - 1)
        channel = jnp.where(params.first_random, channel, 0)
        task = self._task(cut, channel, params)
        mode, _ = task.first_phase()
        nothing = jnp.zeros_like(distance)
        state = State(
            time=jnp.zeros((), jnp.int32),
            tasks_given=tasks,
            tasks_left=tasks,
            mode=mode,
            time_left=task.time,
            bits_left=task.bits,
            cut=cut,
            channel=channel,
            distance=distance,
            energy=nothing,
            busy=nothing,
        )
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: OffloadAction, params: Params) -> Step[State]:
        action = self.valid_action(action, params)
        given, clock = self.open_frame(state, action, params)
        frame = play_frame(given, clock)

        started = frame.finished > 0
        bits = jnp.where(started, given.upcoming.bits, given.current.bits)
        state = State(
            time=state.time + 1,
            tasks_given=state.tasks_given,
            tasks_left=state.tasks_left - frame.finished,
            mode=frame.mode,
            time_left=jnp.where(frame.mode == COMPUTING, frame.left, 0),
            bits_left=jnp.where(frame.mode == TRANSMITTING, frame.left, jnp.where(frame.mode == COMPUTING, bits, 0)),
            cut=jnp.where(started, action.cut, state.cut),
            channel=jnp.where(started, action.channel, state.channel),
            distance=state.distance,
            energy=state.energy + frame.energy,
            busy=state.busy + frame.busy,
        )
        reward = self._reward(frame.energy, frame.finished, params)
        episode_energy, episode_finished = (
            jnp.sum(state.energy),
            jnp.sum(state.tasks_given - state.tasks_left),
        )
        info = {
            "energy": jnp.sum(frame.energy),
            "finished": jnp.sum(frame.finished),
            "episode_energy": episode_energy,
            "episode_finished": episode_finished,
            "latency": jnp.sum(state.busy) / jnp.maximum(episode_finished, 1),
            "objective": jnp.max(state.busy) + params.beta * episode_energy,
        }
        return (
            self.observe(key, state, action, params),
            state,
            reward,
            self.is_terminated(state, params),
            info,
        )

    @override
    def observe(
        self, key: Array, state: State, action: OffloadAction | None, params: Params
    ) -> Float[Array, " observation"]:
        return self.table.observe(self.quantities(state, params), params, params.frame_time.dtype)

    @override
    def quantities(self, state: State, params: Params) -> dict[str, Array]:
        return {name: getattr(state, name) for name in (*Seen._fields, "tasks_given")}

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return jnp.all(state.mode == FREE)

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        """What an episode cost, from the last frame's `info`. If no task is finished, costs per task are those of one.

        `finished` tasks; `latency`, s per task as in the paper: frames * frame time * UEs / tasks; `task_latency`, s
        per task, mean of the true times; `energy`, J per task; `objective`, s, of P1 (eq. 10).
        """
        tasks = jnp.maximum(info["episode_finished"], 1)
        return {
            "finished": info["episode_finished"].astype(jnp.int32),
            "latency": frames * params.frame_time * self.num_ues / tasks,
            "task_latency": info["latency"],
            "energy": info["episode_energy"] / tasks,
            "objective": info["objective"],
        }

    @override
    def action_space(self, params: Params) -> NamedTupleSpace:
        ue = (self.num_ues,)
        return NamedTupleSpace(
            OffloadAction,
            (
                DiscreteArray(self.num_points, ue),
                DiscreteArray(self.num_channels, ue),
                spaces.Box(jnp.full_like(params.power_max, MIN_POWER), params.power_max, ue, params.power_max.dtype),
            ),
        )

    @override
    def observation_space(self, params: Params) -> spaces.Box:
        low = (0 - 1) / 99  # the distance's, at 0 m
        return spaces.Box(low, jnp.inf, (self.table.size,), params.frame_time.dtype)

    def open_frame(self, state: State, action: OffloadAction, params: Params) -> tuple[Given, Clock]:
        """What the physics of a frame start from, given a `valid_action`."""
        given = Given(
            current=self._task(state.cut, state.channel, params),
            upcoming=self._task(action.cut, action.channel, params),
            uplink=Uplink(
                power=action.power,
                received=action.power * path_gain(state.distance, params.path_loss),
                all_interfere=params.all_interfere,
            ),
            tasks_left=state.tasks_left,
        )
        left = jnp.where(state.mode == TRANSMITTING, state.bits_left, state.time_left)
        return given, start_clock(given, params.frame_time, state.mode, left)

    def _task(self, cut: Int[Array, " ue"], channel: Int[Array, " ue"], params: Params) -> Task:
        ue = jnp.arange(self.num_ues)
        return Task(
            time=params.front_time[ue, cut],
            power=params.front_power[ue, cut],
            bits=params.feature_bits[ue, cut],
            channel=channel,
            bandwidth=params.bandwidth[channel],
            noise=params.noise[channel],
        )

    def _reward(self, energy: Float[Array, " ue"], finished: Int[Array, " ue"], params: Params) -> Float[Array, ""]:
        # Sums and means have the same form: N times the mean is the sum.
        count = jnp.where(params.paper_reward, self.num_ues, 1)
        cost = params.frame_time + params.beta * jnp.mean(energy) * count
        return -cost / jnp.maximum(jnp.mean(finished.astype(energy.dtype)) * count, params.finished_floor)

    def valid_action(self, action: OffloadAction, params: Params) -> OffloadAction:
        """The action, clipped to what is possible.

        Raises:
            ValueError: If a part is not of shape `[ue]`, or a choice no whole number by its type.
        """
        ue = (self.num_ues,)
        shapes = [jnp.shape(part) for part in action]
        if shapes != [ue, ue, ue]:
            raise ValueError(
                f"action of shapes {shapes}: it must be OffloadAction(cut, channel, power) of shape {ue} each; "
                "use jax.vmap for a batch"
            )
        cut, channel, power = action
        return OffloadAction(
            clipped_choice(cut, self.num_points, "cut"),
            clipped_choice(channel, self.num_channels, "channel"),
            within(jnp.asarray(power, params.power_max.dtype), MIN_POWER, params.power_max),
        )


_TABLE = 512


def poisson(uniform: Float[Array, " ue"], mean: Float[Array, " ue"]) -> Float[Array, " ue"]:
    """Poisson numbers from uniform ones by inversion: far cheaper than rejection on thousands of lanes.

    The table spans 512 counts around the mean: 6 standard deviations and more up to a mean of 1700, fewer above.

    Args:
        uniform: In [0, 1).
        mean: Mean of the distribution, > 0.
    """
    first = jnp.floor(jnp.maximum(mean - _TABLE / 2, 0))
    count = first[:, None] + jnp.arange(_TABLE, dtype=mean.dtype)
    # p(k) / p(k - 1) = mean / k
    log_ratio = jnp.log(mean[:, None] / jnp.maximum(count, 1)).at[:, 0].set(0)
    log_weight = jnp.cumsum(log_ratio, axis=1)
    weight = jnp.exp(log_weight - jnp.max(log_weight, axis=1, keepdims=True))
    cumulative = jnp.cumsum(weight, axis=1)
    index = jax.vmap(jnp.searchsorted, in_axes=(0, 0, None))(cumulative, uniform * cumulative[:, -1], "right")
    return first + jnp.minimum(index, _TABLE - 1)
