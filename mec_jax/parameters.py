"""Parameters of an environment, declared once: the dataclass, the checks, `mec-jax list ENV` and the pages read this.

    @struct.dataclass(kw_only=True)
    class Params(environment.EnvParams):
        frame_time: Float[Array, ""] = parameter(0.5, "s", "section 6.3.1")
        bandwidth: Float[Array, " channel"] = parameter(1e6, "Hz", "section 6.3.1")

The annotation says the kind and the axes, `parameter` the rest. Every number has a range: what its declaration says, or
else its unit (`RANGES`). Values that are known are refused outside of it, traced ones are clipped to it.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array
from numpy.typing import ArrayLike

from mec_jax.files import did_you_mean, shown

__all__ = ["RANGES", "Parameter", "clipped", "fill", "is_traced", "number", "parameter", "parameters", "within"]

type Default = float | Sequence[float] | str
"""A number for all entries, one for each, or in words where it comes from: then the environment gives it."""

RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "s": (1e-9, 1e9),
        "m": (1e-3, 1e6),
        "W": (1e-21, 1e6),  # thermal noise of 1 Hz is 4e-21 W
        "J": (1e-12, 1e12),
        "Hz": (1.0, 1e18),
        "bit": (1.0, 1e15),
        "bit/s": (1.0, 1e18),
        "FLOP": (1.0, 1e15),
        "FLOP/s": (1.0, 1e18),
        "1": (1e-6, 1e6),
        "1/s": (1e-6, 1e6),
        "s/J": (1e-9, 1e9),
        "cost": (1e-6, 1e9),
        "tasks": (1e-6, 1e4),  # one frame may finish them all, task by task
    }
)
"""By unit, the smallest positive and the largest number that a parameter may have where its declaration names none: far
from anything that is built, and such that what the environments multiply and add stays finite in float32.
"""

OTHER_UNITS = (1e-12, 1e12)
"""Range of a unit that is not among `RANGES`."""
WHOLE = (1, 10**9)
"""Range of whole numbers, whatever their unit."""

_KEY = "mec_jax parameter"
_KINDS = {bool: "True or False", int: "whole and", float: "finite and"}
_DTYPES = {bool: jnp.bool_, int: jnp.integer, float: jnp.floating}


class Parameter(NamedTuple):
    """One field of an environment's `Params`."""

    name: str
    kind: type  # bool, int or float
    axes: tuple[str, ...]  # names of its axes; none: one number
    is_python: bool  # an int of Python unless traced, as others expect for `max_steps_in_episode`
    default: Default
    unit: str  # "1" if it has none
    source: str  # in a word or two; "assumed" if nobody says
    about: str  # what it is, where the name does not say
    least: float  # of `RANGES` where none is declared
    most: float
    not_below: str | None  # another parameter


def parameter(
    default: Default,
    unit: str,
    source: str,
    about: str = "",
    *,
    least: float | None = None,
    most: float | None = None,
    not_below: str | None = None,
) -> Any:  # as of `dataclasses.field`: what the annotation says
    """Declare a field of `Params`. Arguments as the fields of `Parameter`; without `least`, numbers are positive."""
    said = {"default": default, "unit": unit, "source": source, "about": about}
    return struct.field(metadata={_KEY: {**said, "least": least, "most": most, "not_below": not_below}})


def parameters(params: type) -> dict[str, Parameter]:
    """The table of a `Params` class, by name.

    Raises:
        TypeError: If a field was not declared with `parameter`.
    """
    table = {}
    for field in dataclasses.fields(params):
        annotation: Any = field.type  # a type, as no file here postpones annotations
        if _KEY not in field.metadata:
            raise TypeError(f"{params.__qualname__}.{field.name}: declare it with mec_jax.parameters.parameter")
        is_python = annotation is int
        axes = () if is_python else tuple(annotation.dim_str.split())
        kind: type = int if is_python else _kind(annotation.dtypes[0])
        said = field.metadata[_KEY]
        usual = {bool: (False, True), int: WHOLE, float: RANGES.get(said["unit"], OTHER_UNITS)}[kind]
        bounds = {
            bound: kind(other if said[bound] is None else said[bound])
            for bound, other in zip(("least", "most"), usual, strict=True)
        }
        table[field.name] = Parameter(field.name, kind, axes, is_python, **{**said, **bounds})
    return table


def _kind(dtype: str) -> type:
    return bool if dtype.startswith("bool") else int if dtype.startswith("int") else float


def fill(
    table: Mapping[str, Parameter],
    axes: Mapping[str, int],
    given: Mapping[str, ArrayLike],
    numbers: Mapping[str, ArrayLike],
) -> dict[str, Array | int]:
    """Checked values of all parameters but those that are still to be derived.

    Args:
        table: The parameters.
        axes: Length of each axis.
        given: Defaults that the environment's statics decide; before those of the table.
        numbers: What the user gave; before all else.

    Raises:
        ValueError: If there is no such parameter, the shape does not fit or a value is out of range.
    """
    if unknown := sorted(set(numbers) - set(table)):
        hint = did_you_mean(unknown[0], table)
        raise ValueError(f"no parameter {', '.join(unknown)}: {hint}choose from {', '.join(table)}")
    values = {}
    for name, about in table.items():
        value: Any
        if name in numbers:
            value = numbers[name]
        elif name in given:
            value = given[name]
        elif isinstance(about.default, str):
            continue
        else:
            value = about.default
        values[name] = check(about, value, axes)
    for name, about in table.items():
        if about.not_below is None or name not in values or about.not_below not in values:
            continue
        low, high = values[about.not_below], values[name]
        if is_traced(low) or is_traced(high):
            values[name] = jnp.maximum(low, high)
        elif np.any(np.asarray(low) > np.asarray(high)):
            raise ValueError(f"{about.not_below} {low} exceeds {name} {high}: swap them, or give both")
    return values


def clipped[P: Any](table: Mapping[str, Parameter], axes: Mapping[str, int], params: P) -> P:
    """Parameters of the declared types and shapes, each within its range; what is there already stays bit for bit.

    NaN becomes the least value. What is below the parameter that it must not be below is raised to it.

    Args:
        table: The parameters.
        axes: Length of each axis.
        params: What was made of them by `replace`, traced or not.

    Raises:
        ValueError: If a shape does not fit.
    """
    leaves = [field.name for field in dataclasses.fields(params) if field.metadata.get("pytree_node", True)]
    values = {name: _clipped(table[name], getattr(params, name), axes) for name in leaves}
    for name in leaves:
        if (low := table[name].not_below) is not None:
            values[name] = jnp.maximum(values[low], values[name])
    # As if they were inputs: what reads them rounds as it did, and no lane clips them again.
    return jax.lax.optimization_barrier(params.replace(**values))


def _clipped(about: Parameter, value: ArrayLike, axes: Mapping[str, int]) -> Array:
    array = jnp.asarray(value)
    dtype = array.dtype if jnp.issubdtype(array.dtype, _DTYPES[about.kind]) else jnp.result_type(about.kind)
    if about.kind is not bool:
        array = within(array, about.least, about.most)
    return _spread(about.name, array.astype(dtype), shape_of(about, axes))


def within(x: Array, least: float | Array, most: float | Array) -> Array:
    """The numbers, those below or above their range clipped to it; NaN becomes the least."""
    return jnp.where(x >= least, jnp.minimum(x, most), least)


def shape_of(about: Parameter, axes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape of a parameter, given the length of each axis."""
    return tuple(axes[axis] for axis in about.axes)


def check(about: Parameter, value: ArrayLike, axes: Mapping[str, int]) -> Array | int:
    """A value of the parameter, of the right type and shape.

    Raises:
        ValueError: If it does not fit.
    """
    array = number(about.name, value, shape_of(about, axes), about.kind, about.least, about.most)
    return int(array) if about.is_python and not is_traced(array) else array


def is_traced(value: object) -> bool:
    """Whether the value is known only when the program runs, so that it can't be checked."""
    return isinstance(value, jax.core.Tracer)


def number(
    name: str,
    value: ArrayLike,
    shape: tuple[int, ...],
    kind: type,
    least: float | None = None,
    most: float | None = None,
) -> Array:
    """A checked number, or array of them.

    Args:
        name: What errors call it.
        value: A number, or an array that fits the shape.
        shape: What it is broadcast to.
        kind: `bool`, `int` or `float`.
        least: Least value, if there is one.
        most: Greatest value, if there is one.

    Raises:
        ValueError: If the value is out of range or does not fit. Traced values are clipped.
    """

    def wrong() -> ValueError:
        bound = "" if kind is bool or least is None else f" >= {least:g}"
        bound += "" if kind is bool or most is None else f" and <= {most:g}"
        return ValueError(f"{name} is {shown(value)}: it must be {_KINDS[kind]}{bound}")

    try:
        array = jnp.asarray(value, kind)
    except (OverflowError, TypeError, ValueError) as error:
        raise wrong() from error
    if is_traced(array):
        array = array if least is None or most is None else within(array, least, most)
    else:
        given = np.asarray(array)
        valid = np.isfinite(given) if kind is float else np.asarray(value) == given
        if least is not None:
            valid = valid & (given >= least)
        if most is not None:
            valid = valid & (given <= most)
        if not np.all(valid):
            raise wrong()
    return _spread(name, array, shape)


def _spread(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError as error:
        raise ValueError(f"{name} has shape {array.shape}: it must fit {shape}") from error
