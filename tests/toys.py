"""Environments to learn in: small ones whose optimum is known, and one of each kind."""

from typing import Any, NamedTuple, override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from mec_jax.contracts import Problem, Traits
from mec_jax.observations import Block, ObservationField, ObservationTable
from mec_jax.parameters import parameter
from mec_jax.spaces import DiscreteArray, NamedTupleSpace, Simplex

EACH_KIND = (
    "CartPole-v1",
    "Pendulum-v1",
    "MultiUEOffloading-v0",
    "MultiExitAllocation-v0",
    "MultiExitAllocation-Compressed-Markov-v0",
    "NeuronAllocation-v0",
    "NeuronSharing-v0",
    "PartitionGame-v0",
)
"""Environments of all classes, of the suite and of gymnax: variants of one differ in numbers alone."""


class Mixed(NamedTuple):
    choice: Any
    amount: Any
    share: Any


SPACE = NamedTupleSpace(Mixed, (DiscreteArray(3, (2,)), spaces.Box(0.0, 4.0, (2,)), Simplex(2)))


@struct.dataclass
class State(environment.EnvState):
    time: Any
    context: Any


@struct.dataclass(kw_only=True)
class OneFrame(environment.EnvParams):
    max_steps_in_episode: int = parameter(1, "frames", "ours", least=1)


class Target(Problem[State, OneFrame, Mixed]):
    """A bandit of all kinds of actions whose optimum, return 0, is known: pick the context's sign, four times it, and
    shares in the ratio 1 : 3. With a mask, choice 2 is forbidden and would earn a lot.
    """

    params_type = OneFrame
    traits = Traits(discrete=True, continuous=True, one_decision=True)
    table = ObservationTable((Block((ObservationField("context", "1", "context"),)),))

    def __init__(self, masked: bool = False) -> None:
        self.masked = masked

    @override
    def action_mask(self, observation: Any, params: Any) -> dict[str, Any]:
        return {"choice": jnp.array([[True, True, False]] * 2)} if self.masked else {}

    @override
    def observe(self, key: Any, state: State, action: Mixed | None, params: Any) -> Any:
        return jnp.array([state.context])

    @override
    def reset_env(self, key: Any, params: Any) -> tuple[Any, State]:
        context = jax.random.uniform(key, (), minval=-1)
        return jnp.array([context]), State(time=0, context=context)

    @override
    def step_env(self, key: Any, state: State, action: Mixed, params: Any) -> tuple:
        wrong = jnp.sum(action.choice != (state.context > 0))
        bonus = 10.0 * jnp.sum(action.choice == 2)
        far = jnp.sum((action.amount - 4 * jnp.abs(state.context)) ** 2) + 10 * (action.share[0] - 0.25) ** 2
        state = state.replace(time=state.time + 1)
        return jnp.array([state.context]), state, bonus - wrong - far, jnp.array(True), {}

    @override
    def is_terminated(self, state: State, params: Any) -> Any:
        return state.time >= 1

    @override
    def action_space(self, params: Any) -> Any:
        return SPACE


class Forever(environment.Environment[State, environment.EnvParams]):
    """One a frame, and no end but truncation after 10 frames."""

    @property
    @override
    def default_params(self) -> environment.EnvParams:
        return environment.EnvParams(max_steps_in_episode=10)

    @override
    def reset_env(self, key: Any, params: Any) -> tuple[Any, State]:
        return jnp.ones(1), State(time=0, context=jnp.zeros(()))

    @override
    def step_env(self, key: Any, state: State, action: Any, params: Any) -> tuple:
        return jnp.ones(1), state.replace(time=state.time + 1), jnp.array(1.0), jnp.array(False), {}

    @override
    def is_terminated(self, state: State, params: Any) -> Any:
        return jnp.array(False)

    @override
    def action_space(self, params: Any) -> Any:
        return spaces.Discrete(2)
