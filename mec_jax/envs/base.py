"""What the environments of the suite have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, override

import jax.numpy as jnp
from gymnax.environments import environment
from jaxtyping import Array, Bool, Float


class SuiteEnvironment[S: environment.EnvState, P: environment.EnvParams](environment.Environment[S, P]):
    """Environments with equal statics are equal: jit takes them for one and compiles them once."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    @property
    @override
    def default_params(self) -> P:
        return self.params()

    @abstractmethod
    def params(self, **numbers: Any) -> P:
        """The defaults, with some fields replaced."""


class MaskedEnvironment[S: environment.EnvState, P: environment.EnvParams](SuiteEnvironment[S, P]):
    """Some choices are not allowed at times, and the observation says which."""

    @property
    @abstractmethod
    def mask_entries(self) -> Mapping[str, Sequence[int]]:
        """By part of the action, the entries of the observation that are positive where a choice is allowed."""

    def action_mask(self, observation: Float[Array, " observation"], params: P) -> dict[str, Bool[Array, " choice"]]:
        """By part of the action, which choices are allowed."""
        return {name: observation[jnp.array(entries)] > 0 for name, entries in self.mask_entries.items()}
