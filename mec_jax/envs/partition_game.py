"""The actor-learner partition game (Dai et al. 2022, "Towards Scalable and Efficient Deep-RL in Edge Computing: A
Game-based Partition Approach", Coknight).

Actors run a DNN for each action they take. Each cuts it between itself and the learner's server, whose compute and
bandwidth are limited. Actors come and go; the controller picks their cuts. Physics in `mec_jax.physics.partition_game`.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int
from numpy.typing import ArrayLike

from mec_jax.contracts import CutProfile, Cuts, Problem, Step, Traits
from mec_jax.files import check_count
from mec_jax.observations import Block, ObservationField, ObservationTable, Quantity
from mec_jax.parameters import number, parameter
from mec_jax.physics.partition_game import (
    Allocation,
    Game,
    allowed,
    capacity,
    change_members,
    make_game,
    nobody,
    resource_use,
    response_times,
    take,
    used,
    utilities,
)
from mec_jax.profiles.partition_game import FLOAT_FRAMES, CutTable, load_cut_table
from mec_jax.spaces import clipped_choice
from mec_jax.transforms import FLAG, LOG10, ONE_HOT, Transform

SPEED_UNIT = 1e9
"""FLOP/s; the observation of a speed is the decimal logarithm in this unit."""

_RESOURCES = ("compute", "bandwidth")


def _speed(name: str, where: str) -> ObservationField:
    rule = Transform(LOG10, scale=SPEED_UNIT, where=where)
    return ObservationField(name, "FLOP/s", "log10(speed / 1 GFLOP/s)", 1, rule)


class Context(NamedTuple):
    """Who is there. It depends on keys alone, not on actions."""

    present: Bool[Array, " device"]
    kind: Int[Array, " device"]  # which speed it has; drawn anew when it comes


class Situation(NamedTuple):
    """What a controller sees."""

    turn: Int[Array, ""]  # the device that chooses
    fresh: Bool[Array, " device"]  # has not chosen since it came
    game: Game
    allocation: Allocation


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """Who is there and where they cut, and what the episode has saved so far."""

    time: Int[Array, ""]  # decisions taken
    context: Context
    allocation: Allocation
    fresh: Bool[Array, " device"]  # has not chosen since it came
    turn: Int[Array, ""]  # the device that chooses next
    utility: Float[Array, ""]  # s, sum over steps of the sum over devices
    cut_variance: Float[Array, ""]  # sum over steps
    utility_variance: Float[Array, ""]  # s^2, sum over steps


@struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """Every number of the problem. All are traced: replace, sweep or vmap any of them without recompiling."""

    # Some 13 changes of who is there.
    max_steps_in_episode: int = parameter(200, "decisions", "assumed", "until truncation", least=1)
    layer_flops: Float[Array, " layer"] = parameter("network", "FLOP", "network", least=0)
    bits: Float[Array, " cut"] = parameter("network", "bit", "network", "raw input, then each layer's output", least=0)
    # What an early and a late single-board computer and a core of a server reach in practice (the paper has a Raspberry
    # Pi 4B and Xeon cores, and no numbers): 237, 59 and 15 ms for the ResNet.
    device_speed: Float[Array, " kind"] = parameter("2 to 32 GFLOP/s", "FLOP/s", "assumed")
    kind_weight: Float[Array, " kind"] = parameter(
        1.0, "1", "assumed", "how often a device that comes is of this kind; divided by their sum"
    )
    # What a V100 reaches on single frames, a fourteenth of its peak: 0.5 ms for the ResNet.
    edge_speed: Float[Array, ""] = parameter(1e12, "FLOP/s", "assumed", "that one request gets")
    link_rate: Float[Array, ""] = parameter(8e7, "bit/s", "section 5", "of each device's link")
    request_rate: Float[Array, ""] = parameter(1.0, "1/s", "assumed", "of each device")
    # As many features as requests.
    bits_rate: Float[Array, ""] = parameter(
        1.0, "1/s", "assumed", "delta, bandwidth held for each bit of a feature", least=0
    )
    # Both are scarce: a quarter of what all devices would take if they sent the raw input of this network once a
    # second. Of an elastic edge, for each device that is there.
    compute_capacity: Float[Array, ""] = parameter("a quarter of all", "FLOP/s", "assumed")
    bandwidth_capacity: Float[Array, ""] = parameter("a quarter of all", "bit/s", "assumed")
    elastic: Bool[Array, ""] = parameter(False, "1", "assumed", "capacities are for each device that is there")
    # In the long run two of three are there. A device stays for 200 steps, or 30 turns; someone comes or goes every 15
    # steps.
    present_probability: Float[Array, ""] = parameter(
        2 / 3, "1", "assumed", "of a device, when an episode starts", least=0, most=1
    )
    join_probability: Float[Array, ""] = parameter(
        0.01, "1", "assumed", "of an absent device, after a step", least=0, most=1
    )
    leave_probability: Float[Array, ""] = parameter(0.005, "1", "assumed", "of a device, after a step", least=0, most=1)
    # What the devices that are there on average would save if the edge had no limits.
    reference_utility: Float[Array, ""] = parameter(
        "without limits", "s", "ours", "what the reward divides by", most=1e18
    )


class PartitionGame(Problem[State, Params, Int[Array, ""]]):
    """`PartitionGame-v0`: devices that come and go choose in turn where to cut.

    At each step one device chooses its cut, 0 (all at the edge) to K (all local); the others keep theirs. It is the
    turn of the next device, in the order of their numbers and cyclically, that has not chosen since it came; if all
    have, of the next that is there.
    Then the step earns its reward, and devices come and go: each present one leaves and each absent one joins with a
    probability of its own, of one of several speeds. A newcomer is local until it has chosen. Cuts that do not fit
    beside those of the others are masked; chosen all the same, they fall to K. Cuts out of range are clipped, and
    refused if they are no whole numbers by their type. With nobody there, nothing happens.

    Reward: the sum of the utilities of the devices that are there, that is the latency they save together against
    all local, divided by `reference_utility`: by default what the devices that are there on average would save
    if the edge had no limits. So a step earns at most about 1.

    Why it is a decision problem: devices share capacity, and whoever takes it keeps it until its next turn. A device
    that takes what is best for it blocks slower ones that would gain more, which can't push it out: best responses
    soon end in a Nash equilibrium that is worth about two thirds of the optimum, and stay there until somebody leaves.
    A good policy has each device leave room for those that gain more by it, those that may come included, and take it
    back when they leave. Everyone has several turns between two changes, so that such a policy comes close to the
    optimum of each population, `mec_jax.solvers.partition_game.bound`.

    Observation: parts of compute and bandwidth that are free for the device whose turn it is, its own included;
    present devices / number of devices; log10(its speed / 1 GFLOP/s); for each cut 1 if it is allowed, and 1 at its
    own; then for each device 1 if it is there, 1 if it is its turn, 1 if it has not chosen yet, log10(speed /
    1 GFLOP/s), and 1 at its cut. All are 0 for an absent device. `situation` reads it back.

    `info` holds, of the step, `utility` (s, [device], 0 where absent), `cut` ([device]) and `present` (number), and
    of the episode so far, as means over steps, `episode_utility` (s, sum over devices), `episode_cut_variance` and
    `episode_utility_variance` (s^2): variances over the devices that are there, the three metrics of Fig. 12.

    By default frames are sent as 32-bit floats, as the authors' traffic suggests. With 8-bit frames ("coknight_resnet")
    the raw frame is so small that all at the edge saves most per unit of either resource: the optimum gives the slowest
    devices cut 0 and the others K, and cuts between them only fill what is left.

    Args:
        network: Name of a network or JSON file of its layers (`mec_jax.profiles.partition_game`).
        num_devices: Devices that may be there.
        num_kinds: Speeds that they may have.

    Raises:
        ValueError: If the network is unknown, or a number is not whole or below 1.
    """

    params_type = Params
    traits = Traits(discrete=True, continuous=False, in_turn=True)
    solver = "mec_jax.solvers.partition_game:SOLVER"

    def __init__(
        self, network: str | os.PathLike[str] = FLOAT_FRAMES, num_devices: int = 10, num_kinds: int = 3
    ) -> None:
        self.network: CutTable = load_cut_table(network)
        self.num_devices = check_count("num_devices", num_devices)
        self.num_kinds = check_count("num_kinds", num_kinds)

    @property
    def num_cuts(self) -> int:
        """Layers of the network, K; cuts go from 0 to K."""
        return self.network.num_cuts

    @property
    @override
    def table(self) -> ObservationTable:
        cuts = self.num_cuts + 1
        compute, bandwidth = (f"{name} free for this device, its own included / capacity" for name in _RESOURCES)
        common = (
            ObservationField("free_compute", "FLOP/s", compute, 1, Transform(over=("whole_compute",))),
            ObservationField("free_bandwidth", "bit/s", bandwidth, 1, Transform(over=("whole_bandwidth",))),
            ObservationField(
                "members", "devices", "present devices / devices", 1, Transform(scale=float(self.num_devices))
            ),
            _speed("own_speed", "own_present"),
            ObservationField("allowed", "cut", "1 where the cut fits", cuts, Transform(FLAG)),
            ObservationField("own_cut", "cut", "1 at its own cut", cuts, Transform(ONE_HOT, where="own_present")),
        )
        each = (
            ObservationField("present", "1", "1 if it is there", 1, Transform(FLAG)),
            ObservationField("turn", "1", "1 if it is its turn", 1, Transform(FLAG, where="present")),
            ObservationField("fresh", "1", "1 if it has not chosen yet", 1, Transform(FLAG, where="present")),
            _speed("speed", "present"),
            ObservationField("cut", "cut", "1 at its cut", cuts, Transform(ONE_HOT, where="present")),
        )
        beside = (
            Quantity("whole_compute", "FLOP/s"),
            Quantity("whole_bandwidth", "bit/s"),
            Quantity("own_present", "1"),  # 0 if nobody is there
        )
        return ObservationTable((Block(common, beside=beside), Block(each, "device", self.num_devices)))

    @property
    @override
    def cuts(self) -> Cuts:
        return Cuts("action", (CutProfile(self.network.name, self.network.sha256, self.network.points),))

    @property
    @override
    def axes(self) -> dict[str, int]:
        return {"layer": self.num_cuts, "cut": self.num_cuts + 1, "kind": self.num_kinds}

    @override
    def given(self, numbers: Mapping[str, ArrayLike]) -> dict[str, ArrayLike]:
        network = self.network
        devices = jnp.where(number("elastic", numbers.get("elastic", False), (), bool), 1.0, self.num_devices)
        return {
            "layer_flops": np.array(network.flops),
            "bits": np.array(network.bits),
            "device_speed": np.geomspace(2e9, 32e9, self.num_kinds),
            "compute_capacity": 0.25 * devices * sum(network.flops),
            "bandwidth_capacity": 0.25 * devices * network.bits[0],
        }

    @override
    def derived(self, params: Params) -> dict[str, ArrayLike]:
        return {"reference_utility": self._unlimited(params)}

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Float[Array, " observation"], State]:
        context = self.first_context(key, params)
        allocation = nobody(self.game(context.kind, params))._replace(present=context.present)
        nothing = jnp.zeros_like(params.reference_utility)
        state = State(
            time=jnp.zeros((), jnp.int32),
            context=context,
            allocation=allocation,
            fresh=context.present,
            turn=self._next_turn(jnp.asarray(self.num_devices - 1), context.present, context.present),
            utility=nothing,
            cut_variance=nothing,
            utility_variance=nothing,
        )
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: Int[Array, ""], params: Params) -> Step[State]:
        context, turn = state.context, state.turn
        game = self.game(context.kind, params)
        allocation = take(game, state.allocation, turn, self.valid_action(action, game, state.allocation, turn))
        present, cut = allocation.present, allocation.cut
        utility = jnp.where(present, game.utility[jnp.arange(self.num_devices), cut], 0)
        total = jnp.sum(utility)

        following = self.next_context(key, context, params)
        fresh = following.present & (~present | (state.fresh & (jnp.arange(self.num_devices) != turn)))
        state = state.replace(
            time=state.time + 1,
            context=following,
            # Whoever comes uses nothing yet: it does not matter that this is still the game before.
            allocation=change_members(game, allocation, following.present),
            fresh=fresh,
            turn=self._next_turn(turn, following.present, fresh),
            utility=state.utility + total,
            cut_variance=state.cut_variance + variance(cut.astype(utility.dtype), present),
            utility_variance=state.utility_variance + variance(utility, present),
        )
        info = {
            "utility": utility,
            "cut": cut,
            "present": jnp.sum(present),
            "episode_utility": state.utility / state.time,
            "episode_cut_variance": state.cut_variance / state.time,
            "episode_utility_variance": state.utility_variance / state.time,
        }
        reward = total / params.reference_utility
        return self.observe(key, state, action, params), state, reward, self.is_terminated(state, params), info

    @override
    def observe(
        self, key: Array, state: State, action: Int[Array, ""] | None, params: Params
    ) -> Float[Array, " observation"]:
        return self.observe_as(state, state.turn, params)

    @override
    def quantities(self, state: State, params: Params) -> dict[str, Array]:
        return self.quantities_of(state, state.turn, params)

    def observe_as(self, state: State, device: Int[Array, ""], params: Params) -> Float[Array, " observation"]:
        """The observation with another device in the place of the one whose turn it is; the slots stay as they are."""
        return self.table.observe(self.quantities_of(state, device, params), params, params.reference_utility.dtype)

    def quantities_of(self, state: State, device: Int[Array, ""], params: Params) -> dict[str, Array]:
        """`quantities` with another device in the place of the one whose turn it is. Compute and bandwidth are in units
        of the game, as the observation has only their ratios.
        """
        present, allocation = state.context.present, state.allocation
        game = self.game(state.context.kind, params)
        whole = jnp.maximum(capacity(game, present), 1)
        pool = whole - allocation.used + game.use[:, device, allocation.cut[device]]
        speed = params.device_speed[state.context.kind]
        return {
            **{f"free_{name}": pool[index] for index, name in enumerate(_RESOURCES)},
            **{f"whole_{name}": whole[index] for index, name in enumerate(_RESOURCES)},
            "members": jnp.sum(present),
            "own_present": present[device],
            "own_speed": speed[device],
            "allowed": self._mask(game, allocation, device),
            "own_cut": allocation.cut[device],
            "present": present,
            "turn": jnp.arange(self.num_devices) == state.turn,
            "fresh": state.fresh,
            "speed": speed,
            "cut": allocation.cut,
        }

    def situation(self, observation: Float[Array, " observation"], params: Params) -> Situation:
        """What `observe` shows, read back, utilities to rounding errors: so that heuristics are policies of the
        observation. The utilities of absent devices are those of the unit of speed.
        """
        _, devices = self.table.split(observation)
        present = devices["present"] > 0.5
        cut = jnp.where(present, jnp.argmax(devices["cut"], axis=1), self.num_cuts).astype(jnp.int32)
        game = self._game(SPEED_UNIT * 10 ** devices["speed"], params)
        return Situation(
            turn=jnp.argmax(devices["turn"]).astype(jnp.int32),
            fresh=devices["fresh"] > 0.5,
            game=game,
            allocation=Allocation(cut, present, used(game, cut, present)),
        )

    @property
    @override
    def mask_entries(self) -> dict[str, range]:
        return {"action": self.table.entries("allowed")}

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return jnp.zeros((), bool)

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        """Of an episode, from the last step's `info`, as means over steps: latency saved by all devices together (s),
        and the variances of cuts and of latencies saved over the devices.
        """
        return {name: info[f"episode_{name}"] for name in ("utility", "cut_variance", "utility_variance")}

    @override
    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(self.num_cuts + 1)

    def game(self, kind: Int[Array, " device"], params: Params) -> Game:
        """The game among devices of these kinds."""
        return self._game(params.device_speed[kind], params)

    def first_context(self, key: Array, params: Params) -> Context:
        """Who is there when an episode starts."""
        member, kind = self._draws(key, params)
        return Context(member < params.present_probability, kind)

    def next_context(self, key: Array, context: Context, params: Params) -> Context:
        """Who is there after a step."""
        member, kind = self._draws(key, params)
        present = jnp.where(context.present, member >= params.leave_probability, member < params.join_probability)
        return Context(present, jnp.where(context.present, context.kind, kind))

    def valid_action(
        self, action: Int[Array, ""], game: Game, allocation: Allocation, turn: Int[Array, ""]
    ) -> Int[Array, ""]:
        """The cut, clipped to those there are; K if it does not fit.

        Raises:
            ValueError: If the action is no scalar, or no whole number by its type.
        """
        if jnp.shape(action) != ():
            raise ValueError(f"action of shape {jnp.shape(action)}: it must be one cut; use jax.vmap for a batch")
        cut = clipped_choice(action, self.num_cuts + 1)
        return jnp.where(self._mask(game, allocation, turn)[cut], cut, self.num_cuts)

    def _game(self, speed: Float[Array, " device"], params: Params) -> Game:
        times = response_times(params.layer_flops, params.bits, speed, params.edge_speed, params.link_rate)
        rates = (jnp.broadcast_to(rate, speed.shape) for rate in (params.request_rate, params.bits_rate))
        use = resource_use(params.layer_flops, params.bits, *rates)
        limits = jnp.stack([params.compute_capacity, params.bandwidth_capacity])
        return make_game(utilities(times), use, limits, params.elastic)

    def _mask(self, game: Game, allocation: Allocation, turn: Int[Array, ""]) -> Bool[Array, " cut"]:
        local = jnp.arange(self.num_cuts + 1) == self.num_cuts
        return local | (allowed(game, allocation, turn) & allocation.present[turn])

    def _next_turn(
        self, turn: Int[Array, ""], present: Bool[Array, " device"], fresh: Bool[Array, " device"]
    ) -> Int[Array, ""]:
        """The next device, cyclically, that has not chosen yet; else the next that is there."""
        ahead = (jnp.arange(self.num_devices) - turn - 1) % self.num_devices
        rank = jnp.where(fresh, ahead, jnp.where(present, ahead + self.num_devices, 3 * self.num_devices))
        return jnp.argmin(rank).astype(jnp.int32)

    def _draws(self, key: Array, params: Params) -> tuple[Float[Array, " device"], Int[Array, " device"]]:
        member, kind = jax.random.uniform(key, (2, self.num_devices), params.reference_utility.dtype)
        bounds = jnp.cumsum(params.kind_weight) / jnp.sum(params.kind_weight)
        return member, jnp.sum(kind[:, None] >= bounds[:-1], axis=1).astype(jnp.int32)

    def _unlimited(self, params: Params) -> Float[Array, ""]:
        """s that the devices that are there on average would save if the edge had no limits; 1 if nothing."""
        most = jnp.max(self._game(params.device_speed, params).utility, axis=1)
        mean = jnp.sum(most * params.kind_weight) / jnp.sum(params.kind_weight)
        saved = self.num_devices * params.present_probability * mean
        return jnp.where(saved > 0, saved, 1)


def variance(x: Float[Array, " device"], present: Bool[Array, " device"]) -> Float[Array, ""]:
    """Variance over the devices that are there; 0 of nobody."""
    count = jnp.maximum(jnp.sum(present), 1)
    mean = jnp.sum(jnp.where(present, x, 0)) / count
    return jnp.sum(jnp.where(present, (x - mean) ** 2, 0)) / count
