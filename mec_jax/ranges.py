"""Hyper-parameters with their ranges, declared once: checks, `mec-jax list ALGORITHM` and sweeps read them here.

    @dataclass(frozen=True)
    class Config(Checked):
        num_envs: Count = 64
        trunk: Layers = (64, 64)
        activation: Literal["tanh", "relu"] = "tanh"

    class HParams(Traced):
        lr: NonNegative = 1e-3
        gamma: Share = 0.99

A range is an annotation of `annotated_types`, of whose names the usual ones are here. Whoever makes an object with a
value outside gets a ValueError. Values that are traced can't be checked, nor what JAX makes of the numbers of an object
(`jax.tree.map`, gradients, `vmap`): what comes of NaN there is NaN.
"""

import dataclasses
import math
from typing import Annotated, Any, Literal, NamedTuple, Self, dataclass_transform, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from annotated_types import Interval, MaxLen

from mec_jax.files import MAX_COUNT, did_you_mean, shown
from mec_jax.parameters import is_traced

__all__ = [
    "Checked",
    "Count",
    "Layers",
    "LogStd",
    "NonNegative",
    "Norm",
    "Positive",
    "Range",
    "Share",
    "Traced",
    "Whole",
    "Width",
    "check",
    "ranges",
]

TINY, HUGE = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
"""Programs compute with float32: what is smaller is 0 there, and what is greater infinite."""

Count = Annotated[int, Interval(ge=1, le=MAX_COUNT)]
Whole = Annotated[int, Interval(ge=0, le=MAX_COUNT)]
Width = Annotated[int, Interval(ge=1, le=2**16)]
Layers = Annotated[tuple[Width, ...], MaxLen(32)]
Share = Annotated[float, Interval(ge=0, le=1)]
NonNegative = Annotated[float, Interval(ge=0, le=HUGE)]
Positive = Annotated[float, Interval(ge=TINY, le=HUGE)]
Norm = Annotated[float, Interval(ge=TINY)]  # or infinite
LogStd = Annotated[float, Interval(ge=-20, le=20)]


class Range(NamedTuple):
    """What a field may be."""

    name: str
    kind: type  # bool, int, float or str
    least: float = -math.inf
    most: float = math.inf
    choices: tuple[Any, ...] = ()  # if there are any, it is one of them
    max_length: int | None = None  # of a tuple of such values, which may be empty; None: it is one value

    def words(self) -> str:
        """From where to where."""
        if self.choices:
            return ", ".join(map(str, self.choices))
        if self.kind is bool:
            return "True or False"
        if self.least > -HUGE and self.most < HUGE:
            return f"from {self.least:.10g} to {self.most:.10g}"
        low = "> 0 " if self.least == TINY else f">= {self.least:g} " if self.least > -HUGE else ""
        high = f"<= {self.most:g}" if self.most < HUGE else "and finite" if self.most == HUGE else "or infinite"
        return low + high

    def has(self, value: object) -> bool:
        """Whether a value, or all of a tuple if it is one of tuples, is of the kind and in the range. An array of
        numbers is if all entries are; what is traced is taken to be.
        """
        if self.max_length is not None:
            one = self._replace(max_length=None)
            return isinstance(value, tuple) and len(value) <= self.max_length and all(map(one.has, value))
        if self.choices:
            return isinstance(value, type(self.choices[0])) and value in self.choices
        if self.kind is bool:
            return isinstance(value, bool)
        if self.kind is float and isinstance(value, jax.Array | np.ndarray | np.number):
            if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
                return False
            numbers = self.least if is_traced(value) else np.asarray(value, np.float64)
            return bool(np.all((numbers >= self.least) & (numbers <= self.most)))
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else int | float):
            return False
        is_huge = isinstance(value, int) and abs(value) > HUGE  # also of a float that may be infinite
        return not is_huge and self.least <= value <= self.most

    def check(self, value: object) -> None:
        """Refuse a value that is outside, or of another kind.

        Raises:
            ValueError: If it is.
        """
        if self.has(value):
            return
        if self.choices:
            hint = did_you_mean(shown(value).strip("'"), self.choices)
            raise ValueError(f"{self.name} is {shown(value)}: {hint}choose from {self.words()}")
        kinds = {bool: "", int: "a whole number ", float: "a number "}
        several = "" if self.max_length is None else f"a tuple of at most {self.max_length}, each of them "
        raise ValueError(f"{self.name} is {shown(value)}: it must be {several}{kinds[self.kind]}{self.words()}")


def ranges(kind: type) -> dict[str, Range]:
    """The ranges of a dataclass by field.

    Raises:
        TypeError: If a field does not declare its range.
    """
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: _declared(field.name, hints[field.name]) for field in dataclasses.fields(kind)}


def _declared(name: str, annotation: Any) -> Range:
    """The range that a field's annotation declares."""
    base, limits = annotation, dict[str, Any]()
    if get_origin(annotation) is Annotated:
        base, *extras = get_args(annotation)
        for extra in extras:
            limits |= dataclasses.asdict(extra) if isinstance(extra, Interval | MaxLen) else {}
    if base is bool:
        return Range(name, bool)
    if get_origin(base) is Literal:
        return Range(name, type(get_args(base)[0]), choices=get_args(base))
    if get_origin(base) is tuple and limits.get("max_length") is not None:
        return _declared(name, get_args(base)[0])._replace(max_length=limits["max_length"])
    least, most = limits.get("ge"), limits.get("le")
    if base not in (int, float) or (least, most) == (None, None) or (limits["gt"], limits["lt"]) != (None, None):
        raise TypeError(
            f"{name}: {annotation} declares no range: take one of mec_jax.ranges, bool, a Literal, or "
            "Annotated[int or float, Interval(ge=..., le=...)], which has closed ends as float32 rounds"
        )
    lowest, highest = (-MAX_COUNT, MAX_COUNT) if base is int else (-math.inf, math.inf)
    return Range(name, base, lowest if least is None else least, highest if most is None else most)


def check(chosen: Any) -> None:
    """Refuse a dataclass with a value that is out of its field's range, or of another kind.

    Raises:
        ValueError: If there is one. Traced values can't be checked.
        TypeError: If a field does not declare its range.
    """
    for name, allowed in ranges(type(chosen)).items():
        allowed.check(getattr(chosen, name))


class Checked:
    """Base of a frozen dataclass, such as an algorithm's `Config`, that refuses values outside when it is made."""

    def __post_init__(self) -> None:
        check(self)


@dataclass_transform(frozen_default=True)
class Traced(Checked):
    """Base of an algorithm's `HParams`: a frozen dataclass whose fields are traced.

    It refuses values outside where someone makes it, not where JAX puts it together again: leaves may then be anything,
    such as axes, shapes or gradients. (`flax.struct.dataclass` does not tell the two apart.)
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        made: Any = dataclasses.dataclass(frozen=True)(cls)
        names = [field.name for field in dataclasses.fields(made)]
        keys = [jax.tree_util.GetAttrKey(name) for name in names]

        def values(tree: Any) -> tuple[list[Any], None]:
            return [getattr(tree, name) for name in names], None

        def with_keys(tree: Any) -> tuple[list[tuple[Any, Any]], None]:
            return list(zip(keys, values(tree)[0], strict=True)), None

        def rebuild(_: None, leaves: Any) -> Any:
            tree = object.__new__(cls)
            vars(tree).update(zip(names, leaves, strict=True))
            return tree

        jax.tree_util.register_pytree_with_keys(cls, with_keys, rebuild, values)

    def replace(self, **values: Any) -> Self:
        """The same with other values. Errors as of `check`."""
        return dataclasses.replace(self, **values)  # type: ignore[type-var]
