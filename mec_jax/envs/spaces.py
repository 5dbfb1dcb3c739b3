"""Spaces that gymnax lacks: integer arrays, and tuples that keep their names."""

from collections.abc import Sequence
from typing import Any, override

import jax
import jax.numpy as jnp
from gymnax.environments import spaces


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

    @override
    def sample(self, key: jax.Array) -> Any:
        return self.type(*super().sample(key))

    @override
    def contains(self, x: Any) -> jax.Array:
        return jnp.all(jnp.stack([space.contains(part) for space, part in zip(self.spaces, x, strict=True)]))
