"""A sixth environment in one file outside the package: what a third party writes.

A device computes a task in each slot, itself or, while the link is up, at the edge over a channel that fades.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import override

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int, PyTree

import mec_jax
from mec_jax.contracts import Column, Policy, Problem, Rulers, Solver, Traits
from mec_jax.observations import Block, ObservationField, ObservationTable
from mec_jax.parameters import parameter
from mec_jax.solvers.policies import for_env, play_each

ENV_ID = "FadingChannel-v0"
TABLE = ObservationTable(
    (
        Block((ObservationField("gain", "1", "channel gain / mean gain"),)),
        Block((ObservationField("possible", "1", "1 where it is possible"),), "choice", 2),
    )
)


@struct.dataclass(kw_only=True)
class State(environment.EnvState):
    """The channel in this slot, and what the episode has cost so far."""

    time: Int[Array, ""]  # slots
    gain: Float[Array, ""]  # relative to its mean
    energy: Float[Array, ""]  # J


@struct.dataclass(kw_only=True)
class Params(environment.EnvParams):
    """Every number of the problem."""

    max_steps_in_episode: int = parameter(20, "slots", "assumed", least=1)
    local_energy: Float[Array, ""] = parameter(1.0, "J", "assumed", "of a task computed on the device")
    energy_per_nat: Float[Array, ""] = parameter(0.5, "J", "assumed", "to send a task at a rate of 1 nat/s/Hz")
    outage: Float[Array, ""] = parameter(0.2, "1", "assumed", "gain below which the link is down", least=0)


class FadingChannel(Problem[State, Params, Int[Array, ""]]):
    """`FadingChannel-v0`: compute here (0) or at the edge (1), which is refused while the link is down."""

    params_type, table = Params, TABLE
    traits = Traits(discrete=True, continuous=False, exogenous=True)
    mask_entries = MappingProxyType({"action": TABLE.entries("possible")})
    solver = "tests.toy_env:SOLVER"

    @override
    def reset_env(self, key: Array, params: Params) -> tuple[Array, State]:
        nothing = jnp.zeros_like(params.outage)
        state = State(time=jnp.zeros((), jnp.int32), gain=jax.random.exponential(key), energy=nothing)
        return self.observe(key, state, None, params), state

    @override
    def step_env(self, key: Array, state: State, action: Int[Array, ""], params: Params) -> tuple:
        sent = (action == 1) & (state.gain > params.outage)
        energy = jnp.where(sent, params.energy_per_nat / jnp.log1p(state.gain), params.local_energy)
        time, total = state.time + 1, state.energy + energy
        state = state.replace(time=time, gain=jax.random.exponential(key), energy=total)
        over = self.is_terminated(state, params)
        return self.observe(key, state, action, params), state, -energy, over, {"energy": total}

    @override
    def observe(self, key: Array, state: State, action: Int[Array, ""] | None, params: Params) -> Array:
        possible = jnp.stack([jnp.ones_like(state.gain), state.gain > params.outage])
        return self.table.join({"gain": state.gain}, {"possible": possible})

    @override
    def is_terminated(self, state: State, params: Params) -> Bool[Array, ""]:
        return jnp.zeros((), bool)

    @override
    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(2)

    @override
    def measures(self, info: dict[str, Array], frames: Int[Array, ""], params: Params) -> dict[str, Array]:
        return {"energy": info["energy"] / frames}


def uniform(env: FadingChannel, params: Params, observation: Array, key: Array) -> Array:
    """Any choice that is possible."""
    possible = env.action_mask(observation, params)["action"]
    return jax.random.categorical(key, jnp.where(possible, 0.0, -jnp.inf)).astype(jnp.int32)


def cheapest(env: FadingChannel, params: Params, observation: Array, key: Array) -> Array:
    """What costs least in this slot: the optimum, as no choice changes what comes."""
    cheaper = params.energy_per_nat < params.local_energy * jnp.log1p(TABLE.split(observation)[0]["gain"])
    return (cheaper & env.action_mask(observation, params)["action"][1]).astype(jnp.int32)


@cache
def baselines(env: FadingChannel) -> Mapping[str, Policy]:
    """Policies that need no search."""
    return for_env(env, {"Random": uniform, "Optimum": cheapest})


def rulers(env: FadingChannel, params: PyTree, keys: Array) -> Rulers:
    """Both policies, the second of which is a bound."""
    return Rulers(play_each(env, params, baselines(env), keys), zero="Random", one="Optimum", bound="Optimum")


SOLVER = Solver((Column("mJ", "energy", 1e3),), baselines, rulers)
mec_jax.register(ENV_ID, FadingChannel)
