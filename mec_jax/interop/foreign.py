"""Environments of gymnax that are not of this suite, as problems: so that trainers need to know one kind only."""

import math
from typing import Any, override

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, PyTree
from numpy.typing import ArrayLike

from mec_jax.contracts import Problem, Step, Traits
from mec_jax.observations import ObservationTable, vector_table
from mec_jax.parameters import is_traced, number
from mec_jax.spaces import DiscreteArray

__all__ = ["Foreign", "as_problem"]


def as_problem(env: environment.Environment) -> Problem:
    """The environment itself, if it is a problem; else a view of it that is one."""
    return env if isinstance(env, Problem) else Foreign(env)


class Foreign(Problem[environment.EnvState, environment.EnvParams, PyTree]):
    """A gymnax environment without rulers, whose numbers and observations nobody has described.

    Args:
        env: The environment. Two views are equal if it is the same object.
    """

    def __init__(self, env: environment.Environment) -> None:
        self.env = env

    @property
    @override
    def name(self) -> str:
        return self.env_id or self.env.name

    @property
    @override
    def traits(self) -> Traits:
        space = self.action_space(self.default_params)
        parts = jax.tree.leaves(_parts(space), is_leaf=lambda part: isinstance(part, spaces.Space))
        choices = [isinstance(part, spaces.Discrete | DiscreteArray) for part in parts]
        limit = self.default_params.max_steps_in_episode
        return Traits(discrete=any(choices), continuous=not all(choices), one_decision=int(limit) == 1)

    @property
    @override
    def table(self) -> ObservationTable:
        observation, _ = jax.eval_shape(self.reset_env, jax.random.key(0), self.default_params)
        leaves = jax.tree_util.tree_leaves_with_path(observation)
        return vector_table({f"observation{jax.tree_util.keystr(path)}": leaf.shape for path, leaf in leaves})

    @property
    @override
    def params_type(self) -> type[environment.EnvParams]:
        return type(self.env.default_params)

    @override
    def params(self, /, **numbers: ArrayLike) -> environment.EnvParams:
        params = self.env.default_params
        if unknown := set(numbers) - set(vars(params)):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}: choose from {', '.join(vars(params))}")
        for name, value in numbers.items():
            if not is_traced(value):
                number(name, value, np.shape(getattr(params, name)), float, least=-math.inf)
        return params.replace(**{name: _alike(value, getattr(params, name)) for name, value in numbers.items()})

    @override
    def bounded(self, params: environment.EnvParams) -> environment.EnvParams:
        return params  # nobody has said what they may be

    @override
    def reset_env(self, key: Array, params: environment.EnvParams) -> tuple[Array, environment.EnvState]:
        return self.env.reset_env(key, params)

    @override
    def step_env(
        self, key: Array, state: environment.EnvState, action: PyTree, params: environment.EnvParams
    ) -> Step[environment.EnvState]:
        return self.env.step_env(key, state, action, params)

    @override
    def observe(
        self, key: Array, state: environment.EnvState, action: PyTree | None, params: environment.EnvParams
    ) -> Array:
        env: Any = self.env
        return env.observe(key, state, action, params)

    @override
    def is_terminated(self, state: environment.EnvState, params: environment.EnvParams) -> Bool[Array, ""]:
        return jnp.asarray(self.env.is_terminated(state, params))

    @override
    def is_truncated(self, state: environment.EnvState, params: environment.EnvParams) -> Bool[Array, ""]:
        return jnp.asarray(self.env.is_truncated(state, params))

    @override
    def action_space(self, params: environment.EnvParams) -> spaces.Space:
        return self.env.action_space(params)

    @override
    def observation_space(self, params: environment.EnvParams) -> spaces.Space:
        return self.env.observation_space(params)


def _parts(space: spaces.Space) -> PyTree:
    if isinstance(space, spaces.Tuple):
        return [_parts(part) for part in space.spaces]
    if isinstance(space, spaces.Dict):
        return [_parts(part) for part in space.spaces.values()]
    return space


def _alike(value: ArrayLike, default: object) -> ArrayLike:
    """A number of the default's kind, if it is one: programs are compiled for kinds, and 9 is as good as 9.0."""
    if type(default) is float and type(value) is int:
        return float(value)
    return int(value) if type(default) is int and type(value) is float and value.is_integer() else value
