"""Spaces that gymnax lacks: integer arrays, the simplex, and tuples that keep their names; and whether something is in
a space, which gymnax's own take lightly: `Discrete(2)` contains 0.5, and `Box` what has another shape.
"""

import math
from collections.abc import Sequence
from typing import Any, override

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Int


def contains(space: spaces.Space, x: Any) -> Bool[Array, ""]:
    """Whether something is in a space: of its structure, its shapes, whole numbers where they are due, and in range."""
    if isinstance(space, spaces.Tuple | spaces.Dict):
        parts = space.spaces if isinstance(space, spaces.Tuple) else list(space.spaces.values())
        if isinstance(space, spaces.Dict):
            x = [x[name] for name in space.spaces] if isinstance(x, dict) and set(x) == set(space.spaces) else None
        if not isinstance(x, tuple | list) or len(x) != len(parts):
            return jnp.zeros((), bool)
        return jnp.all(jnp.stack([contains(part, value) for part, value in zip(parts, x, strict=True)]))
    found = jnp.asarray(x)
    broken = jnp.issubdtype(space.dtype, jnp.integer) and jnp.issubdtype(found.dtype, jnp.inexact)
    if broken or found.shape != space.shape:
        return jnp.zeros((), bool)
    return jnp.asarray(space.contains(found))


def clipped_choice(choice: Any, num_choices: int, name: str = "action") -> Int[Array, "..."]:
    """A choice, or an array of them, clipped to 0..num_choices - 1.

    Args:
        choice: Whole numbers.
        num_choices: How many there are.
        name: What errors call it.

    Raises:
        ValueError: If it is no whole number by its type. NaN can't be one.
    """
    found = jnp.asarray(choice)
    if jnp.issubdtype(found.dtype, jnp.inexact):
        raise ValueError(f"{name} is of type {found.dtype}: a choice is a whole number; round it, or take its argmax")
    found = found.astype(jnp.int32) if found.dtype.itemsize < 4 else found
    return jnp.clip(found, 0, num_choices - 1).astype(jnp.int32)


class DiscreteArray(spaces.Box):
    """Array of integers, each from 0 to `num_categories - 1`.

    A `Box` with integer bounds, so that conversions to other libraries know it.
    """

    def __init__(self, num_categories: int, shape: tuple[int, ...]) -> None:
        super().__init__(0, num_categories - 1, shape, jnp.int32)
        self.n = num_categories

    @override
    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, self.shape, 0, self.n, self.dtype)


class NamedTupleSpace(spaces.Tuple):
    """Product of spaces whose samples are of the given NamedTuple type."""

    def __init__(self, type_: type, parts: Sequence[spaces.Space]) -> None:
        super().__init__(tuple(parts))
        self.type = type_

    @property
    def names(self) -> tuple[str, ...]:
        """Fields of the type."""
        return tuple(field for field in self.type._fields)  # type: ignore[attr-defined]  # NamedTuples have them

    @override
    def sample(self, key: jax.Array) -> Any:
        return self.type(*super().sample(key))

    @override
    def contains(self, x: Any) -> jax.Array:
        return contains(self, x)


class Simplex(spaces.Box):
    """Shares of one whole: `[size]` numbers that are at least 0 and sum to 1.

    A `Box` from 0 to 1, so that conversions to other libraries know it. A sample is the softmax of logits that are
    uniform in [-1, 1]: uniform on the simplex, some share would often be so small that what divides by it has an
    infinite mean.
    """

    def __init__(self, size: int, dtype: Any = jnp.float32) -> None:
        super().__init__(0, 1, (size,), dtype)

    @override
    def sample(self, key: jax.Array) -> jax.Array:
        return jax.nn.softmax(jax.random.uniform(key, self.shape, self.dtype, -1, 1))

    @override
    def contains(self, x: jax.Array) -> jax.Array:
        return super().contains(x) & (jnp.abs(jnp.sum(x) - 1) <= 1e-5)


def num_choices(space: spaces.Space) -> int:
    """Of choices, how many joint ones there are; with numbers among them, as in gymnax, how many entries."""
    parts = space.spaces if isinstance(space, spaces.Tuple) else (space,)
    entries = [math.prod(part.shape) for part in parts]
    choices = [part.n for part in parts if isinstance(part, spaces.Discrete | DiscreteArray)]
    if len(choices) < len(parts):
        return sum(entries)
    return math.prod(int(n) ** count for n, count in zip(choices, entries, strict=True))
