"""How quantities in their units become entries of an observation: one law for environments, which observe in JAX, and
for devices, which have NumPy alone. So this file runs on Python 3.9, too.

An entry is `function((x - offset) * times / scale / over)`, or 0 where `where` is not positive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["FLAG", "FUNCTIONS", "LINEAR", "LOG10", "LOG10_1P", "ONE_HOT", "PARAMS", "Transform", "argument", "entries"]

LINEAR = "linear"
"""The argument itself."""
LOG10 = "log10"
"""Its decimal logarithm; it is > 0."""
LOG10_1P = "log10(1 + x)"
"""That of 1 + the argument, which is >= 0."""
ONE_HOT = "one-hot"
"""1 at the entry that the argument counts from 0, and 0 at the others."""
FLAG = "flag"
"""The argument itself, which is 0 or 1."""
FUNCTIONS = (LINEAR, LOG10, LOG10_1P, ONE_HOT, FLAG)

PARAMS = "env_params."
"""What a name starts with that is one of the environment's parameters and not of a quantity."""


class Transform(NamedTuple):
    """What is done to a quantity x. `times`, `over` and `where` name other quantities or, the first two, parameters."""

    function: str = LINEAR
    offset: float = 0.0
    times: tuple[str, ...] = ()
    scale: float = 1.0
    over: tuple[str, ...] = ()
    where: str = ""


def argument(transform: Transform, x: Any, term: Callable[[str], Any]) -> Any:
    """What the transform's function is taken of, before it is.

    Args:
        transform: Of the quantity.
        x: The quantity, an array of NumPy or JAX.
        term: The array that a name in the transform stands for. Its axes are the first of those of x.
    """

    def fitted(name: str) -> Any:
        found = term(name)
        return found.reshape(found.shape + (1,) * (x.ndim - found.ndim))

    if transform.offset:
        x = x - transform.offset
    for name in transform.times:
        x = x * fitted(name)
    if transform.scale != 1:
        x = x / transform.scale
    for name in transform.over:
        x = x / fitted(name)
    return x


def entries(xp: Any, transform: Transform, x: Any, count: int, there: Any = None) -> Any:
    """The entries of a field, [...], or [..., count] where they are several.

    Args:
        xp: The module of x, `numpy` or `jax.numpy`.
        transform: Of the quantity.
        x: Its `argument`.
        count: Number of entries.
        there: Whether the quantity named by `where` is positive, whose axes are the first of those of x.
    """
    if transform.function == ONE_HOT:
        found = (x[..., None] == xp.arange(count)).astype(x.dtype)
    elif transform.function == LOG10:
        found = xp.log10(x)
    elif transform.function == LOG10_1P:
        found = xp.log10(1 + x)
    else:
        found = x
    if there is None:
        return found
    return xp.where(there.reshape(there.shape + (1,) * (found.ndim - there.ndim)), found, 0)
