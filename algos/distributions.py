"""Distributions over the action spaces of the suite and of gymnax: one factor for each part of an action.

A part is categorical (`Discrete`, `DiscreteArray`), Gaussian (`Box`) or Gaussian and then a softmax (`Simplex`). What
is drawn is the *raw* action, whose density is a plain product; `to_action` makes of it what the environment takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, PyTree

from mec_jax.spaces import DiscreteArray, NamedTupleSpace, Simplex

UNBOUNDED = 1e6
"""A bound of a `Box` beyond this says only that there is none."""


class Head(NamedTuple):
    """One part of an action and the network outputs it is made from."""

    name: str
    kind: Literal["categorical", "gaussian", "simplex"]
    shape: tuple[int, ...]  # of the part
    size: int  # choices of each entry; 1 unless categorical
    low: Float[Array, "..."] | float = 0.0  # of a Gaussian part; may be traced
    high: Float[Array, "..."] | float = 0.0

    @property
    def num_outputs(self) -> int:
        """Network outputs: logits, or the means of the Gaussians."""
        return self.size * self.num_entries

    @property
    def num_entries(self) -> int:
        """Entries of the part."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    def scaling(self) -> tuple[Array, Array]:
        """Offset and scale of a Gaussian part: a raw action from -1 to 1 spans the bounds, if there are any."""
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        bounded = (jnp.abs(low) < UNBOUNDED) & (jnp.abs(high) < UNBOUNDED)
        return jnp.where(bounded, (low + high) / 2, 0), jnp.where(bounded, (high - low) / 2, 1)

    def to_action(self, raw: Array) -> Array:
        """What the environment takes, from what was drawn, `[..., *shape]`."""
        if self.kind == "gaussian":
            offset, scale = self.scaling()
            return jnp.clip(offset + scale * raw, self.low, self.high)
        return jax.nn.softmax(raw) if self.kind == "simplex" else raw


def heads_of(space: spaces.Space) -> tuple[Head, ...]:
    """The parts of an action of the space.

    Raises:
        ValueError: If it holds a part that no distribution here fits.
    """
    return tuple(head for head in _heads(space, "action"))


def _heads(space: spaces.Space, name: str) -> list[Head]:
    if isinstance(space, spaces.Tuple):
        names = space.names if isinstance(space, NamedTupleSpace) else map(str, range(len(space.spaces)))
        return [head for part, name in zip(space.spaces, names, strict=True) for head in _heads(part, name)]
    if isinstance(space, spaces.Dict):
        return [head for name, part in space.spaces.items() for head in _heads(part, name)]
    if isinstance(space, spaces.Discrete | DiscreteArray):
        return [Head(name, "categorical", tuple(space.shape), int(space.n))]
    if isinstance(space, Simplex):
        return [Head(name, "simplex", tuple(space.shape), 1)]
    if isinstance(space, spaces.Box) and jnp.issubdtype(space.dtype, jnp.floating):
        return [Head(name, "gaussian", tuple(space.shape), 1, space.low, space.high)]
    raise ValueError(
        f"no distribution for {name}, a {space!r}: actions can be Discrete, DiscreteArray, Simplex, a Box of floats, "
        "or tuples and dictionaries of these"
    )


def hybrid(
    heads: Sequence[Head],
    outputs: Float[Array, "... output"],
    log_std: Float[Array, " gaussian"],
    masks: Mapping[str, Bool[Array, "..."]] | None = None,
) -> distrax.Joint:
    """Distribution of raw actions, a tuple with one part a head.

    Args:
        heads: Parts of the action.
        outputs: Of the network, as many as the heads' `num_outputs` in all.
        log_std: Of the entries of all heads that are not categorical, in their order.
        masks: By head, true where a choice is allowed, `[..., *shape, size]`; heads that lack one are free.
    """
    parts: list[Any] = []
    first = first_std = 0
    for head in heads:
        values = outputs[..., first : first + head.num_outputs]
        first += head.num_outputs
        batch = values.shape[:-1]
        if head.kind == "categorical":
            logits = values.reshape(*batch, *head.shape, head.size)
            if masks and head.name in masks:
                logits = jnp.where(masks[head.name], logits, jnp.finfo(logits.dtype).min)
            part: Any = distrax.Categorical(logits)
        else:
            std = jnp.exp(log_std[first_std : first_std + head.num_entries]).reshape(head.shape)
            first_std += head.num_entries
            mean = values.reshape(*batch, *head.shape)
            part = distrax.Normal(mean, jnp.broadcast_to(std, mean.shape))
        parts.append(distrax.Independent(part, len(head.shape)) if head.shape else part)
    return distrax.Joint(tuple(parts))


def to_action(space: spaces.Space, raw: Sequence[Array]) -> PyTree:
    """The action of the space from what `hybrid` drew."""
    parts = iter([head.to_action(part) for head, part in zip(heads_of(space), raw, strict=True)])

    def build(space: spaces.Space) -> PyTree:
        if isinstance(space, NamedTupleSpace):
            return space.type(*(build(part) for part in space.spaces))
        if isinstance(space, spaces.Tuple):
            return tuple(build(part) for part in space.spaces)
        if isinstance(space, spaces.Dict):
            return {name: build(part) for name, part in space.spaces.items()}
        return next(parts)

    return build(space)
