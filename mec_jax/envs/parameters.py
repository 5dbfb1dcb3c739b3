"""Numbers of an environment's `Params`: checked where they are known, of the right type and shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

_KINDS = {bool: "True or False", int: "whole and", float: "finite and"}


def is_traced(value: Any) -> bool:
    """Whether the value is known only when the program runs, so that it can't be checked."""
    return isinstance(value, jax.core.Tracer)


def number(
    name: str,
    value: Any,
    shape: tuple[int, ...],
    kind: type,
    least: float | None = None,
    most: float | None = None,
) -> Array:
    """A field of `Params`.

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
