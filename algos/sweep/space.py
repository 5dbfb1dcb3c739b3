"""What a sweep varies: hyper-parameters, which are choices, and what an environment is like, which are problems.

    hparams.actor_lr=log:1e-4..1e-2     from a range, evenly in the logarithm
    hparams.clip=0.1..0.3               from a range
    hparams.clip=0.1..0.3:5             five values, evenly spread
    config.trunk=64x64,128x64           values; layers are joined by x
    params.beta=0.1,0.47,1              a problem each
    static.num_ues=3,5                  a problem each, of other shapes

A field of `Config` or of the environment's constructor is static: each of its values is a program of its own.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from algos.algorithms import algorithm
from algos.run_config import RunConfig
from mec_jax.contracts import Problem
from mec_jax.files import did_you_mean, shown
from mec_jax.parameters import Parameter
from mec_jax.ranges import HUGE, Range, ranges
from mec_jax.registry import registered_envs, static_arguments

__all__ = ["MAX_VALUES", "Axis", "Space", "space", "with_point", "written"]

type Point = Mapping[str, Any]
"""Values by the names of axes."""

MAX_VALUES = 100_000
"""Of an axis: more are a slip of the finger."""

DIGITS = 6
"""Of numbers drawn from a range: a command line with them stays readable."""

_RANGE = re.compile(r"(?P<log>log:)?(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(?::(?P<count>[^:]+))?")


@dataclass(frozen=True)
class Axis:
    """What one field is taken from: values, or where there are none a range."""

    name: str  # PART.FIELD
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False  # evenly in the logarithm
    whole: bool = False  # whole numbers alone

    def at(self, share: float) -> Any:
        """The value at a share of the way, from 0 to below 1."""
        if self.values:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.whole:  # the ends as likely as the others
            low, high = self.low - 0.5, self.high + 0.5
            value = math.exp(_mix(math.log(low), math.log(high), share)) if self.log else _mix(low, high, share)
            return int(min(max(round(value), self.low), self.high))
        if self.log:
            value = math.exp(_mix(math.log(self.low), math.log(self.high), share))
        else:
            value = _mix(self.low, self.high, share)
        return self.rounded(value)

    def rounded(self, value: float) -> float:
        """A number of the range with few digits."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def spread(self, count: int) -> "Axis":
        """Values in place of the range, evenly from end to end."""
        shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
        inner = dataclasses.replace(self, whole=False)
        found = [inner.at(share) for share in shares]
        values = [round(value) for value in found] if self.whole else found
        return Axis(self.name, tuple(dict.fromkeys(values)))

    def text(self) -> str:
        """As a command line has it."""
        if self.values:
            return f"{self.name}={','.join(map(written, self.values))}"
        return f"{self.name}={'log:' if self.log else ''}{self.low:.12g}..{self.high:.12g}"


def _mix(low: float, high: float, share: float) -> float:
    return low + (high - low) * share


def written(value: Any) -> str:
    """A value as `--over` takes it."""
    if isinstance(value, tuple):
        return "x".join(map(str, value)) or "none"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Space:
    """Choices, of which the best is looked for, and problems, in each of which it is."""

    choices: tuple[Axis, ...]  # hparams.* and config.*
    problems: tuple[Axis, ...]  # params.* and static.*, values alone

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All."""
        return self.choices + self.problems

    @property
    def is_finite(self) -> bool:
        """Whether all choices are among values."""
        return all(axis.values for axis in self.choices)

    def problem_points(self) -> list[dict[str, Any]]:
        """Each problem, one at least."""
        return _products(self.problems)

    def grid(self) -> list[dict[str, Any]]:
        """Each choice, one at least.

        Raises:
            ValueError: If a choice is from a range.
        """
        for axis in self.choices:
            if not axis.values:
                raise ValueError(f"a grid has values: give {axis.text()} a count, such as {axis.text()}:5")
        return _products(self.choices)

    def names(self) -> list[str]:
        """Of all axes."""
        return [axis.name for axis in self.axes]


def _products(axes: Sequence[Axis]) -> list[dict[str, Any]]:
    names = [axis.name for axis in axes]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def space(base: RunConfig, over: Mapping[str, Any] | Iterable[str]) -> Space:
    """The space of what is given, by name or as texts "NAME=VALUES".

    Args:
        base: The run that is varied.
        over: By name a text as on the command line, or a sequence of values; or whole texts.

    Raises:
        ValueError: If a field is not there, its values do not fit or its range is empty.
    """
    env, _ = base.make_env()
    fields = _Fields(base, env)
    given: list[tuple[str, Any]] = []
    for item in over.items() if isinstance(over, Mapping) else [over] if isinstance(over, str) else over:
        name, values = item if isinstance(item, tuple) else _halves(item)
        given.append((name.replace("-", "_"), values))
    names = [name for name, _ in given]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is given twice: join its values by commas")
    axes = [fields.axis(name, values) for name, values in given]
    choices = tuple(axis for axis in axes if axis.name.startswith(("hparams.", "config.")))
    problems = tuple(axis for axis in axes if axis not in choices)
    for axis in problems:
        if not axis.values:
            raise ValueError(
                f"{axis.name} is a problem, not a choice, and each problem is swept by itself: give values, or a "
                f"range with a count, such as {axis.text()}:3"
            )
    return Space(choices, problems)


def _halves(text: str) -> tuple[str, str]:
    name, equals, values = text.partition("=")
    if not equals:
        raise ValueError(f"{shown(text)} has no =: write NAME=VALUES, such as hparams.actor_lr=log:1e-4..1e-2")
    return name.strip(), values.strip()


class _Fields:
    """What may be swept in a run."""

    def __init__(self, base: RunConfig, env: Problem) -> None:
        learner = algorithm(base.algorithm)
        self.base = base
        self.known: dict[str, Range | None] = {}  # None: a constructor or a gymnax environment checks it
        for part, kind in (("hparams", learner.hparams), ("config", learner.config)):
            self.known |= {f"{part}.{name}": about for name, about in ranges(kind).items()}
        if base.env_id in registered_envs:
            self.known |= {f"params.{name}": _range(about) for name, about in env.parameters().items()}
            self.known |= {f"static.{name}": None for name in static_arguments(base.env_id)}
        else:
            self.known |= {f"params.{name}": _of_default(name, x) for name, x in vars(env.default_params).items()}

    def axis(self, name: str, values: Any) -> Axis:
        if name not in self.known:
            tails = [full for full in self.known if full.partition(".")[2] == name]
            hint = f"did you mean {tails[0]!r}? " if tails else did_you_mean(name, self.known)
            what = f"{self.base.algorithm} on {self.base.env_id}"
            raise ValueError(f"{name} can't be swept with {what}: {hint}choose from {', '.join(self.known)}")
        about = self.known[name]
        if isinstance(values, str):
            axis = self._parsed(name, values, about)
        else:
            taken = list(values) if isinstance(values, Iterable) else [values]
            taken = [tuple(value) if isinstance(value, list) else _plain(value) for value in taken]
            if not taken:
                raise ValueError(f"{name} has no values: give some, or leave it out")
            axis = Axis(name, tuple(dict.fromkeys(taken)))
        if not axis.values and axis.low == axis.high:
            axis = Axis(name, (int(axis.low) if axis.whole else axis.low,))
        if not axis.values and not axis.low < axis.high:
            raise ValueError(f"{name} is from {axis.low:g} to {axis.high:g}: swap them")
        for value in axis.values or (axis.low, axis.high):
            self._check(name, _whole_if_it_is(value) if axis.whole or (about is None and not axis.values) else value)
        return axis

    def _parsed(self, name: str, text: str, about: Range | None) -> Axis:
        is_number = about is None or (about.kind in (int, float) and about.max_length is None)
        if ".." in text and is_number:
            found = _RANGE.fullmatch(text.strip())
            if found is None:
                raise ValueError(f"{name}={shown(text)}: write LOW..HIGH, log:LOW..HIGH or LOW..HIGH:COUNT")
            low, high = (_number(name, found[end]) for end in ("low", "high"))
            is_log, is_whole = found["log"] is not None, about is not None and about.kind is int
            if is_log and not low > 0:
                raise ValueError(f"{name}={shown(text)}: a logarithmic range begins above 0, not at {low:g}")
            if not low <= high or (low == high and found["count"]):
                raise ValueError(f"{name}={shown(text)}: the range must go up: swap its ends, or give one value")
            if is_whole and not (low.is_integer() and high.is_integer()):
                raise ValueError(f"{name}={shown(text)}: it takes whole numbers, give such ends")
            axis = Axis(name, (), low, high, is_log, is_whole)
            if found["count"] is None:
                return axis
            count = _number(name, found["count"])
            if count != int(count) or not 1 <= count <= MAX_VALUES:
                raise ValueError(f"{name}={shown(text)}: {found['count']} is no count from 1 to {MAX_VALUES}")
            spread = axis.spread(int(count))
            # A constructor may count: three from 3 to 5 are 3, 4 and 5.
            return spread if about is not None else Axis(name, tuple(map(_whole_if_it_is, spread.values)))
        items = [item.strip() for item in text.split(",")]
        if not all(items):
            raise ValueError(f"{name}={shown(text)}: write values with commas between, or a range LOW..HIGH")
        return Axis(name, tuple(dict.fromkeys(_read(name, item, about) for item in items)))

    def _check(self, name: str, value: Any) -> None:
        about = self.known[name]
        if about is not None:
            about._replace(name=name).check(value)
        if name.startswith(("params.", "static.")):
            try:
                with_point(self.base, {name: value}).make_env()
            except ValueError as error:
                raise ValueError(f"{name}={shown(value)}: {error}") from None


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _whole_if_it_is(value: float) -> float:
    return int(value) if float(value).is_integer() else value


def _of_default(name: str, default: object) -> Range | None:
    """The range of a parameter of gymnax: all that is known is the kind of its default."""
    kind = type(default)
    return Range(name, kind, -HUGE, HUGE) if kind in (int, float) else None


def _range(about: Parameter) -> Range:
    return Range(about.name, about.kind, about.least, about.most)


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name}: {shown(text)} is no number")
    return value


def _read(name: str, text: str, about: Range | None) -> Any:
    """A value of a text, by the kind of its field; `Range.check` sees to the rest."""
    if about is not None and about.max_length is not None:
        return tuple(_read(name, part, about._replace(max_length=None)) for part in text.split("x") if text != "none")
    kind = None if about is None else about.kind
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if kind is int:
        return int(value) if (value := _number(name, text)).is_integer() else value
    if kind is float:
        return float("inf") if text == "inf" else _number(name, text)
    try:  # an argument of a constructor
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def with_point(base: RunConfig, point: Point) -> RunConfig:
    """The run with the values of a point.

    Args:
        base: The run.
        point: By name: fields of the parts, and `seed`.

    Raises:
        ValueError: If one is out of its range, or not there.
    """
    parts: dict[str, dict[str, Any]] = {part: {} for part in ("hparams", "config", "params", "static")}
    for name, value in point.items():
        part, _, field = name.partition(".")
        if name == "seed":
            continue
        if part not in parts or (part in ("hparams", "config") and field not in vars(getattr(base, part))):
            raise ValueError(f"{shown(name)} is no field of a run: name it as a sweep does, such as hparams.actor_lr")
        parts[part][field] = value
    return dataclasses.replace(
        base,
        seed=point.get("seed", base.seed),
        config=dataclasses.replace(base.config, **parts["config"]),
        hparams=dataclasses.replace(base.hparams, **parts["hparams"]),
        env_params=base.env_params | parts["params"],
        env_static=base.env_static | parts["static"],
    )
