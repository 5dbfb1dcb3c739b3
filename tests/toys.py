"""Problems to learn in: small ones whose optimum is known, and one of each kind."""

from typing import Any, NamedTuple, override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from mec_jax.contracts import Problem, Traits
from mec_jax.observations import Block, ObservationField, ObservationTable
from mec_jax.parameters import parameter, within
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
    "CompressedInference-Anchored-v0",
)
"""Environments of all classes, of the suite and of gymnax: variants of one differ in numbers alone."""


class Mixed(NamedTuple):
    choice: Int[Array, " 2"]
    amount: Float[Array, " 2"]
    share: Float[Array, " 2"]


SPACE = NamedTupleSpace(Mixed, (DiscreteArray(3, (2,)), spaces.Box(0.0, 4.0, (2,)), Simplex(2)))


@struct.dataclass
class State(environment.EnvState):
    time: Int[Array, ""]
    context: Float[Array, ""]


@struct.dataclass(kw_only=True)
class OneStep(environment.EnvParams):
    max_steps_in_episode: int = parameter(1, "steps", "ours", least=1)


@struct.dataclass(kw_only=True)
class TenSteps(environment.EnvParams):
    max_steps_in_episode: int = parameter(10, "steps", "ours", least=1)


class Target(Problem[State, OneStep, Mixed]):
    """A bandit of all kinds of actions whose optimum, return 0, is known: pick the context's sign, four times it, and
    shares in the ratio 1 : 3. With a mask, choice 2 is forbidden and would earn a lot.
    """

    params_type = OneStep
    traits = Traits(discrete=True, continuous=True, one_decision=True)
    table = ObservationTable((Block((ObservationField("context", "1", "context"),)),))

    def __init__(self, masked: bool = False) -> None:
        self.masked = masked

    @override
    def action_mask(self, observation: Array, params: OneStep) -> dict[str, Bool[Array, "2 3"]]:
        return {"choice": jnp.array([[True, True, False]] * 2)} if self.masked else {}

    @override
    def reset_env(self, key: Array, params: OneStep) -> tuple[Array, State]:
        context = jax.random.uniform(key, (), minval=-1)
        state = State(time=jnp.zeros((), jnp.int32), context=context)
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: Mixed, params: OneStep) -> tuple:
        amount, share = within(action.amount, -1e6, 1e6), within(action.share, -1e6, 1e6)
        wrong = jnp.sum(action.choice != (state.context > 0))
        bonus = 10.0 * jnp.sum(action.choice == 2)
        far = jnp.sum((amount - 4 * jnp.abs(state.context)) ** 2) + 10 * (share[0] - 0.25) ** 2
        state = state.replace(time=state.time + 1)
        return self.observe(key, state, action, params), state, bonus - wrong - far, jnp.array(True), {}

    @override
    def observe(self, key: Array, state: State, action: Mixed | None, params: OneStep) -> Array:
        return self.table.join({"context": state.context})

    @override
    def is_terminated(self, state: State, params: OneStep) -> Array:
        return state.time >= 1

    @override
    def action_space(self, params: OneStep) -> NamedTupleSpace:
        return SPACE


class Forever(Problem[State, TenSteps, Int[Array, ""]]):
    """One a frame, and no end but truncation after 10 frames."""

    params_type = TenSteps
    traits = Traits(discrete=True, continuous=False)
    table = ObservationTable((Block((ObservationField("one", "1", "1"),)),))

    @override
    def reset_env(self, key: Array, params: TenSteps) -> tuple[Array, State]:
        return jnp.ones(1), State(time=jnp.zeros((), jnp.int32), context=jnp.zeros(()))

    @override
    def step_env(self, key: Array, state: State, action: Any, params: TenSteps) -> tuple:
        return jnp.ones(1), state.replace(time=state.time + 1), jnp.array(1.0), jnp.array(False), {}

    @override
    def observe(self, key: Array, state: State, action: Any, params: TenSteps) -> Array:
        return jnp.ones(1)

    @override
    def is_terminated(self, state: State, params: TenSteps) -> Array:
        return jnp.array(False)

    @override
    def action_space(self, params: TenSteps) -> spaces.Discrete:
        return spaces.Discrete(2)
