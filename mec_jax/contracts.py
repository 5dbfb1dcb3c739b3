"""What an environment, a solver and an algorithm owe each other.

An environment is a `Problem`: a gymnax environment that also says what it is like (`Traits`), what its numbers and
observations mean, which scenario it is measured in, and which `Solver` rules it. An `Algorithm` trains on any problem
that suits it and leaves a policy. `mec_jax.testing` checks all three, on anyone's.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, Self, cast, override

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, PyTree
from numpy.typing import ArrayLike

from mec_jax.observations import ObservationTable, Slots
from mec_jax.parameters import Parameter, check, clipped, fill, parameters
from mec_jax.spaces import num_choices

__all__ = [
    "Algorithm",
    "Chart",
    "Column",
    "CutProfile",
    "Cuts",
    "Episodes",
    "Network",
    "Policy",
    "Preset",
    "Problem",
    "Rulers",
    "Solver",
    "Step",
    "Trainer",
    "Traits",
    "preset_for",
]


# Environments


@dataclass(frozen=True)
class Traits:
    """What a problem is like, as far as the choice of hyper-parameters depends on it."""

    discrete: bool  # some part of an action is a choice
    continuous: bool  # some part of an action is a number
    one_decision: bool = False  # an episode is one decision
    exogenous: bool = False  # what comes next depends on actions only by what it costs to change them
    in_turn: bool = False  # one of several players decides at each step
    at_end: bool = False  # all that an episode earns comes with its last decision
    contended: bool = False  # several requesters meet on the same devices
    slots: Slots | None = None  # an action chooses one of them, and the observation ends with a row for each

    @property
    def hybrid(self) -> bool:
        """Whether an action has choices and numbers."""
        return self.discrete and self.continuous


class CutProfile(NamedTuple):
    """A network that can be cut, as its profile has it."""

    name: str
    sha256: str  # of what the profile says (`mec_jax.files.content_sha256`)
    points: tuple[str, ...]  # [choice] where each choice cuts: "input", a layer's name, "local"


class Cuts(NamedTuple):
    """Which part of an action cuts networks, and where."""

    part: str
    profiles: tuple[CutProfile, ...]  # one, or one for each entry of the part


type Step[S] = tuple[Float[Array, " observation"], S, Float[Array, ""], Bool[Array, ""], dict[str, Array]]
"""Observation, state, reward, termination and `info` after an action."""


class Problem[S: environment.EnvState, P: environment.EnvParams, A](environment.Environment[S, P], ABC):
    """A decision problem: one episode, unbatched, all of whose numbers are traced.

    Environments with equal statics are equal: jit takes them for one and compiles them once. So a constructor leaves
    what sets shapes, hashable, and nothing else.

    What a subclass writes as `reset_env`, `step_env` and `observe` is given its parameters within their declared ranges
    (`bounded`): whatever was put in by `replace`, traced or not.
    """

    env_id = ""
    """The id it was made by; nothing if it was made by its class."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name in ("reset_env", "step_env", "observe"):
            if name in vars(cls):
                setattr(cls, name, _of_bounded(vars(cls)[name]))

    @override
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._statics() == other._statics()

    @override
    def __hash__(self) -> int:
        return hash((type(self), *self._statics().values()))

    def _statics(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "env_id"}

    def called(self, env_id: str) -> Self:
        """This environment, under that id."""
        self.env_id = env_id
        return self

    @property
    @override
    def name(self) -> str:
        return self.env_id or type(self).__name__

    # What it declares.

    @property
    @abstractmethod
    def traits(self) -> Traits:
        """What it is like."""

    @property
    @abstractmethod
    def table(self) -> ObservationTable:
        """What its observations are made of."""

    @property
    @abstractmethod
    def params_type(self) -> type[P]:
        """The class of its parameters, fields declared with `mec_jax.parameters.parameter`."""

    @property
    def axes(self) -> Mapping[str, int]:
        """Lengths of the axes that the parameters have."""
        return {}

    @property
    def cuts(self) -> Cuts | None:
        """What its actions cut, if they do: exported policies carry the names, so that they drive no other network."""
        return None

    @property
    def solver(self) -> "Solver | str | None":
        """What rules it, or where that is, "module:NAME"."""
        return None

    @property
    def chart(self) -> "Chart | str | None":
        """What draws its episodes, or where that is, "module:NAME"."""
        return None

    # Parameters.

    def parameters(self) -> dict[str, Parameter]:
        """The table of its parameters by name."""
        return parameters(self.params_type)

    def given(self, numbers: Mapping[str, ArrayLike]) -> Mapping[str, ArrayLike]:
        """Defaults that its statics decide, such as those of its network.

        Args:
            numbers: What the user gives; a default may hang on it.
        """
        return {}

    def derived(self, params: P) -> Mapping[str, ArrayLike]:
        """Defaults that are worked out from the other parameters; their own fields are 1 meanwhile."""
        return {}

    def check_params(self, values: Mapping[str, ArrayLike]) -> None:
        """Refuse parameters that do not go together.

        Raises:
            ValueError: If some do not. Traced values can't be checked.
        """

    def params(self, /, **numbers: ArrayLike) -> P:
        """The defaults, with some fields replaced.

        Args:
            **numbers: Fields; a number where an array is due holds for all its entries.

        Raises:
            ValueError: If there is no such field, the shape does not fit or a value is out of range.
        """
        table, axes = self.parameters(), self.axes
        values = fill(table, axes, self.given(numbers), numbers)
        self.check_params(values)
        missing = {
            name: jnp.ones(tuple(axes[axis] for axis in table[name].axes)) for name in table if name not in values
        }
        params = self.params_type(**values, **missing)
        if not missing:
            return params
        worked_out = self.derived(params)
        return params.replace(**{name: check(table[name], worked_out[name], axes) for name in missing})

    @property
    @override
    def default_params(self) -> P:
        return self.params()

    def bounded(self, params: P) -> P:
        """The parameters as they count: each within its declared range (`mec_jax.parameters.clipped`)."""
        return _bounded(self, params)

    def evaluation_params(self, params: P | None = None) -> P:
        """The scenario it is measured in; by default the one it is trained on.

        Args:
            params: What else holds; the defaults if absent.
        """
        return self.default_params if params is None else params

    # Episodes.

    @abstractmethod
    @override
    def reset_env(self, key: Array, params: P) -> tuple[Array, S]:
        """Observation and state at the start of an episode."""

    @abstractmethod
    @override
    def step_env(self, key: Array, state: S, action: A, params: P) -> Step[S]:
        """What an action leads to."""

    @abstractmethod
    @override
    def observe(self, key: Array, state: S, action: A | None, params: P) -> Array:
        """The observation of a state."""

    def quantities(self, state: S, params: P) -> Mapping[str, Array]:
        """What its observation is made of, by name and in the units of its table: what a device gives to
        `mec_jax.policy.Policy.observation`. Only for a table with transforms, which `ObservationTable.observe` takes.
        """
        raise NotImplementedError(f"{self.name} does not say what its observations are made of")

    @abstractmethod
    @override
    def is_terminated(self, state: S, params: P) -> Bool[Array, ""]:
        """Whether the episode came to its end."""

    @override
    def is_truncated(self, state: S, params: P) -> Bool[Array, ""]:
        # What is over was not cut off.
        return super().is_truncated(state, self.bounded(params)) & ~self.is_terminated(state, params)

    @abstractmethod
    @override
    def action_space(self, params: P) -> spaces.Space:
        """What `step_env` takes."""

    @override
    def observation_space(self, params: P) -> spaces.Space:
        return spaces.Box(-jnp.inf, jnp.inf, (self.table.size,), jnp.result_type(float))

    @property
    @override
    def num_actions(self) -> int:
        """Of choices, how many joint ones there are; with numbers among them, as in gymnax, how many entries."""
        return num_choices(self.action_space(self.default_params))

    def action_mask(self, observation: Array, params: P) -> dict[str, Bool[Array, "..."]]:
        """By part of the action, which choices are allowed; parts that are not named are free."""
        return {name: observation[jnp.array(entries)] > 0 for name, entries in self.mask_entries.items()}

    @property
    def mask_entries(self) -> Mapping[str, range]:
        """By part of the action that is one choice, the entries of the observation that are positive where it is
        allowed. An exported policy knows no other masks.
        """
        return {}

    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: P) -> dict[str, Array]:
        """What an episode cost beside its return, from the last step's `info`."""
        return {}


@partial(jax.jit, static_argnames="env", inline=True)
def _bounded[P: environment.EnvParams](env: Problem, params: P) -> P:
    return clipped(env.parameters(), env.axes, params)


def _of_bounded[R](method: Callable[..., R]) -> Callable[..., R]:
    """A method of a `Problem` whose last argument is parameters, with those that are `bounded`."""

    @wraps(method)
    def of_bounded(self: Problem, *arguments: object, **named: object) -> R:
        if "params" in named:
            return method(self, *arguments, **named | {"params": bounded(self, named["params"])})
        return method(self, *arguments[:-1], bounded(self, arguments[-1]), **named)

    def bounded(env: Problem, params: object) -> environment.EnvParams:
        return env.bounded(cast(environment.EnvParams, params))

    return of_bounded


# Policies and what their episodes cost


class Policy(Hashable, Protocol):
    """Plays one episode, unbatched. It is compiled once per object: keep it, and vary `policy_params`."""

    def __call__(self, policy_params: PyTree, observation: Array, key: Array, /) -> PyTree:
        """Action for the observation."""


class Episodes(NamedTuple):
    """What whole episodes cost. `episodes.latency` is short for `episodes.measures["latency"]`."""

    episode_return: Float[Array, " episode"]  # sum of rewards, undiscounted
    frames: Int[Array, " episode"]
    terminated: Bool[Array, " episode"]  # the problem came to its end; if not, the costs are of a part
    measures: dict[str, Array]  # [episode] each: what `Problem.measures` says
    outside: Int[Array, " episode"] | int = 0  # frames whose action was outside its space

    def __getattr__(self, name: str) -> Array:
        if isinstance(self.measures, dict) and name in self.measures:
            return self.measures[name]
        raise AttributeError(f"episodes have no {name!r}: choose from {', '.join(Episodes._fields)} or a measure")

    def columns(self) -> dict[str, Array]:
        """All that episodes cost by name."""
        return {
            "episode_return": self.episode_return,
            "frames": self.frames,
            "terminated": self.terminated,
            **self.measures,
        }


# Solvers


class Column(NamedTuple):
    """A measure in a table."""

    header: str
    measure: str
    scale: float = 1.0  # from the measure's unit to the header's
    digits: int = 1  # after the point
    savings: Mapping[str, str] = MappingProxyType({})  # header of 1 - measure / reference's: which measure of that


@dataclass(frozen=True)
class Rulers:
    """What policies are measured against: episodes of baselines, optima and bounds, by name, in the table's order."""

    episodes: dict[str, Episodes]
    zero: str  # whose score is 0
    one: str  # whose score is 1: the optimum, a bound or the best known
    bound: str | None = None  # what no policy exceeds in the return of any episode
    reference: str | None = None  # what savings are counted against


@dataclass(frozen=True)
class Solver[E, P]:
    """What needs no learning in an environment E with parameters P."""

    columns: tuple[Column, ...]  # measures in a table
    baselines: Callable[[E], Mapping[str, Policy]]  # their parameters are those of the environment
    rulers: Callable[[E, P, Array], Rulers]  # (environment, scenario, keys [episode])


class Chart[E, P, R](Protocol):
    """Draws episodes of an environment E with parameters P, from a recording R."""

    def record(self, env: E, params: P, policy: Policy, policy_params: PyTree, key: Array) -> R:
        """Play the episode that `mec_jax.episodes.play_episode` plays with the same arguments, and note all of it."""

    def write(self, recording: R, path: Path, frames: tuple[int, int] | None, title: str) -> None:
        """Write a picture of some frames of it, or an animation if the name ends in `.gif`."""


# Algorithms


class Preset[C, H](NamedTuple):
    """A set of hyper-parameters, and which problems it is for."""

    config: C
    hparams: H
    suits: Callable[[Traits], bool] = lambda traits: False


def preset_for(presets: Mapping[str, Preset], traits: Traits) -> str:
    """Name of the first preset that suits; of the first of all if none does."""
    return next((name for name, preset in presets.items() if preset.suits(traits)), next(iter(presets)))


class Trainer[H, S, M](NamedTuple):
    """`train` runs everything in one jit; `init` and `run` are the same in chunks, for a host loop.

    All can be jitted, and vmapped over keys, hyper-parameters and environment parameters. Metrics are a NamedTuple of
    one number for each update: `frames` counts those of the environment so far, and what must stay finite has a name
    that ends in "loss".
    """

    init: Callable[[H, PyTree, Array], S]  # (hparams, env_params, key) -> state
    run: Callable[[S, H, PyTree], tuple[S, M]]  # (state, hparams, env_params) -> state, metrics [update]: one chunk
    train: Callable[[H, PyTree, Array], tuple[S, M]]  # (hparams, env_params, key) -> state, metrics: all chunks
    num_chunks: int
    num_frames: int  # environment frames of all chunks: what is run of those that a Config asks for


@dataclass(frozen=True)
class Network:
    """A learned policy as a file holds it (`mec_jax.policy`)."""

    arrays: Mapping[str, np.ndarray]
    action: str  # name of the action's type
    observation_size: int
    network: Mapping[str, object]  # metadata: layers and heads
    normalisation: Mapping[str, object] | Literal["as the environment returns it"]


@dataclass(frozen=True)
class Algorithm[C, H, S, L]:
    """A way to learn a policy: static Config C, traced hyper-parameters H, training state S, learned parameters L.

    Config and HParams refuse what is out of its range when they are made (`mec_jax.ranges.Checked` and `Traced`).
    The Config is frozen and has a field `updates_per_chunk`. The state has a field `update`, the number of updates
    done, and a field `key`.
    """

    name: str
    config: type[C]
    hparams: type[H]
    presets: Mapping[str, Preset[C, H]]
    deterministic: bool  # it is measured by its likeliest actions, not by samples
    make_trainer: Callable[[Problem, C], Trainer]  # a ValueError if they do not go together
    make_policy: Callable[[Problem, C, bool], Policy]  # its parameters are (learned(state), env_params)
    learned: Callable[[S], L]  # what the policy reads
    trained: Callable[[S], PyTree]  # all that gradients move, which must stay finite
    to_network: Callable[[Problem, PyTree, C, L], Network]  # for export, with the environment's parameters
    from_network: Callable[[Network], tuple[C, L]]  # what `to_network` was given; other fields of the Config default
    budget: str = "num_frames"  # field of the Config that says how long a run is; of another name, it counts updates
    lanes: Callable[[C], int] = lambda config: 1  # side by side: any number of devices that divides it may share them

    def within(self, env: Problem, config: C, frames: int) -> C:
        """The Config for a budget of environment frames: as many whole chunks as go into it, one at least.

        Raises:
            ValueError: If the counts do not fit together.
        """
        length = frames
        if self.budget != "num_frames":
            trainer = self.make_trainer(env, config)
            updates: int = vars(config)["updates_per_chunk"]
            length = max(1, frames // (trainer.num_frames // trainer.num_chunks)) * updates
        return dataclasses.replace(config, **{self.budget: length})  # type: ignore[type-var]
