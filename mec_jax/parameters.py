"""Parameters of an environment, declared once: the dataclass, the checks, `mec-jax list ENV` and the pages read this.

    @struct.dataclass(kw_only=True)
    class Params(environment.EnvParams):
        frame_time: Float[Array, ""] = parameter(0.5, "s", "section 6.3.1")
        bandwidth: Float[Array, " channel"] = parameter(1e6, "Hz", "section 6.3.1")

The annotation says the kind and the axes, `parameter` the rest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array
from numpy.typing import ArrayLike

from mec_jax.files import did_you_mean

__all__ = ["Parameter", "fill", "is_traced", "number", "parameter", "parameters"]

type Default = float | Sequence[float] | str
"""A number for all entries, one for each, or in words where it comes from: then the environment gives it."""

_KEY = "mec_jax parameter"
_KINDS = {bool: "True or False", int: "whole and", float: "finite and"}


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
    least: float | None  # without it, numbers must be positive
    most: float | None
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
    """Declare a field of `Params`. Arguments as the fields of `Parameter`."""
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
        table[field.name] = Parameter(field.name, kind, axes, is_python, **field.metadata[_KEY])
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
        if not is_traced(low) and not is_traced(high) and np.any(np.asarray(low) > np.asarray(high)):
            raise ValueError(f"{about.not_below} {low} exceeds {name} {high}: swap them, or give both")
    return values


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
        least: Least value; without it, numbers must be positive.
        most: Greatest value, if there is one.

    Raises:
        ValueError: If the value is out of range or does not fit. Traced values are only checked for shape.
    """
    bound = "" if kind is bool else " > 0" if least is None else f" >= {least:g}"
    bound += "" if most is None else f" and <= {most:g}"
    must = f"{name} is {value!r}: it must be {_KINDS[kind]}{bound}"
    try:
        array = jnp.asarray(value, kind)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(must) from error
    if not is_traced(array):
        given = np.asarray(array)
        valid = np.isfinite(given) if kind is float else np.asarray(value) == given
        if kind is not bool:
            valid = valid & (given > 0 if least is None else given >= least)
        if most is not None:
            valid = valid & (given <= most)
        if not np.all(valid):
            raise ValueError(must)
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError as error:
        raise ValueError(f"{name} has shape {array.shape}: it must fit {shape}") from error
