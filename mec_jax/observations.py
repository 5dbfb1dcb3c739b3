"""What an observation is made of, declared once: the environment writes it by this table, heuristics read it back, and
exported policies carry it, so that a device builds the same vector from quantities in their units.

An observation is one vector of blocks. A block is a row of fields, once or for each of several UEs, devices or slots.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from mec_jax.files import did_you_mean
from mec_jax.transforms import PARAMS, Transform, argument, entries

__all__ = ["Block", "ObservationField", "ObservationTable", "Quantity", "Slots"]


@dataclass(frozen=True)
class ObservationField:
    """A quantity in an observation."""

    name: str  # what it is, e.g. "time left"
    unit: str  # of the quantity, "1" if it has none
    formula: str  # how it stands in the observation, in words, e.g. "time left / local time"
    count: int = 1  # entries
    transform: Transform | None = None  # the same as a rule; without one, only the environment knows how


class Quantity(NamedTuple):
    """What transforms refer to, but no field shows."""

    name: str
    unit: str


class Block(NamedTuple):
    """Fields one after the other, and that several times."""

    fields: tuple[ObservationField, ...]
    of: str = ""  # what there are several of, e.g. "UE"; nothing: the fields stand once
    repeats: int = 1
    beside: tuple[Quantity, ...] = ()  # one number for each repetition

    @property
    def features(self) -> int:
        """Entries of each repetition."""
        return sum(field.count for field in self.fields)


class Slots(NamedTuple):
    """An observation made of features of the whole, and then of each slot that can be chosen."""

    common: int  # features of the whole
    slots: int
    features: int  # of each slot


@dataclass(frozen=True)
class ObservationTable:
    """The blocks of an environment's observation."""

    blocks: tuple[Block, ...]

    @property
    def size(self) -> int:
        """Entries of the vector."""
        return sum(block.repeats * block.features for block in self.blocks)

    @property
    def slots(self) -> Slots:
        """The last block as slots, and all before it as what they have in common."""
        last = self.blocks[-1]
        return Slots(self.size - last.repeats * last.features, last.repeats, last.features)

    def names(self) -> list[str]:
        """One for each entry."""
        names = []
        for block in self.blocks:
            for index, field in itertools.product(range(block.repeats), block.fields):
                prefix = f"{block.of} {index}: " if block.of else ""
                entries = [""] if field.count == 1 else [f" [{i}]" for i in range(field.count)]
                names += [f"{prefix}{field.formula}{entry}" for entry in entries]
        return names

    def entries(self, name: str) -> range:
        """Where the entries of a field stand: of its repetitions or, in a block that stands once, of its counts.

        Raises:
            KeyError: If there is no such field.
        """
        start = 0
        for block in self.blocks:
            offset = start
            for field in block.fields:
                if field.name == name:
                    if block.of:
                        return range(offset, start + block.repeats * block.features, block.features)
                    return range(offset, offset + field.count)
                offset += field.count
            start += block.repeats * block.features
        known = [field.name for block in self.blocks for field in block.fields]
        raise KeyError(f"no field {name!r}: {did_you_mean(name, known)}there are {', '.join(known)}")

    def join(self, *values: Mapping[str, Array]) -> Float[Array, " observation"]:
        """The vector from what each block's fields are, by name: `[*repeats, *count]`, without axes of length one that
        are not there.
        """
        parts = []
        for block, given in zip(self.blocks, values, strict=True):
            columns = [given[field.name] for field in block.fields]
            shape = (block.repeats,)
            rows = [jnp.reshape(x, (*shape, field.count)) for x, field in zip(columns, block.fields, strict=True)]
            parts.append(jnp.concatenate(rows, axis=1).reshape(-1))
        return jnp.concatenate(parts)

    def observe(
        self, quantities: Mapping[str, Array], params: PyTree, dtype: jnp.dtype
    ) -> Float[Array, " observation"]:
        """The vector from quantities in their units.

        Args:
            quantities: By name, of each field and of what stands beside them: `[*repeats]`, of a field with several
                entries that is not one-hot `[*repeats, count]`. A field without a transform is taken as it is.
            params: The environment's numbers.
            dtype: Of the observation.
        """
        given = {name: jnp.asarray(value).astype(dtype) for name, value in quantities.items()}

        def term(name: str) -> Array:
            return getattr(params, name.removeprefix(PARAMS)) if name.startswith(PARAMS) else given[name]

        found = {}
        for field in (field for block in self.blocks for field in block.fields):
            x, rule = given[field.name], field.transform
            if rule is not None:
                there = given[rule.where] > 0 if rule.where else None
                x = entries(jnp, rule, argument(rule, x, term), field.count, there)
            found[field.name] = x
        return self.join(*[found] * len(self.blocks)).astype(dtype)

    def split(self, observation: Float[Array, " observation"]) -> tuple[dict[str, Array], ...]:
        """What `join` joined."""
        found = []
        start = 0
        for block in self.blocks:
            size = block.repeats * block.features
            rows = observation[start : start + size].reshape(block.repeats, block.features)
            start += size
            values: dict[str, Array] = {}
            offset = 0
            for field in block.fields:
                column = rows[:, offset : offset + field.count]
                shape = (*((block.repeats,) if block.of else ()), *((field.count,) if field.count > 1 else ()))
                values[field.name] = column.reshape(shape)
                offset += field.count
            found.append(values)
        return tuple(found)

    def describe(self) -> list[dict[str, object]]:
        """As an exported policy carries it."""
        return [
            {
                "of": block.of,
                "repeats": block.repeats,
                "fields": [
                    {**vars(field), "transform": field.transform and field.transform._asdict()}
                    for field in block.fields
                ],
                "beside": [quantity._asdict() for quantity in block.beside],
            }
            for block in self.blocks
        ]


def vector_table(shapes: Mapping[str, tuple[int, ...]]) -> ObservationTable:
    """The table of an observation of which nothing is known but its shapes."""
    fields = (ObservationField(name, "1", name, math.prod(shape)) for name, shape in shapes.items())
    return ObservationTable((Block(tuple(fields)),))
