"""Baselines of `MultiExitAllocation-v0` and its variants, and the oracle."""

from collections.abc import Mapping
from functools import cache, partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mec_jax.contracts import Episodes, Policy
from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation, Params
from mec_jax.episodes import play_episodes
from mec_jax.physics.multi_exit import Options
from mec_jax.solvers.multi_exit.optimum import CAPACITY, cost_terms, joint_optimum
from mec_jax.solvers.policies import for_env


def oracle(env: MultiExitAllocation, capacity: int, params: Params, observation: Array, key: Array) -> AllocationAction:
    """The joint optimum of the scenario at hand. Of a Markov episode it is that of each step, blind to switches."""
    now = env.situation(observation, params)
    found = joint_optimum(env.options(now, params), now.edge_speed, params.latency_weight, capacity)
    return AllocationAction(found.split, found.share)


def device_only(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """Every device runs the whole network itself."""
    return _with_equal_shares(jnp.full(env.num_devices, env.num_layers, jnp.int32))


def edge_only(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """Every device sends its raw input, and all get equal shares."""
    return _with_equal_shares(jnp.zeros(env.num_devices, jnp.int32))


def aco(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """The best splits if the edge is shared equally among the devices that use it."""
    now = env.situation(observation, params)
    options = env.options(now, params)
    return _with_equal_shares(equal_share_splits(options, now.edge_speed, params.latency_weight))


def spinn(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """`aco` for a network with SPINN's exits.

    The exits belong to the network and not to the action: play it with `spinn_exits(params)` for what the paper
    compares. Played with other exits, it plans for the wrong ones.
    """
    return aco(env, spinn_exits(params), observation, key)


FIXED_SPLIT = 6  # "the partitioning layer for each model is randomly set to 6"
FIXED_SPLIT_SHARES = 1000  # "a total of 1000 exhaustive search iterations"


def fixed_partition(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """Split 6 everywhere (or the middle of a network with fewer layers), and the best of 1000 random shares."""
    now = env.situation(observation, params)
    split = jnp.full(env.num_devices, FIXED_SPLIT if env.num_layers > FIXED_SPLIT else env.num_layers // 2, jnp.int32)
    logits = jax.random.uniform(key, (FIXED_SPLIT_SHARES, env.num_devices), observation.dtype, -1, 1)
    shares = jax.nn.softmax(logits)

    def cost(share: Float[Array, " device"]) -> Float[Array, ""]:
        return jnp.sum(env.costs(now, AllocationAction(split, share), params).cost)

    return AllocationAction(split, shares[jnp.argmin(jax.vmap(cost)(shares))])


def uniform(env: MultiExitAllocation, params: Params, observation: Array, key: Array) -> AllocationAction:
    """A draw from the action space."""
    return env.action_space(params).sample(key)


def _with_equal_shares(split: Int[Array, " device"]) -> AllocationAction:
    return AllocationAction(split, jnp.full(split.shape, 1 / split.size))


def equal_share_splits(
    options: Options, edge_speed: Float[Array, ""], latency_weight: Float[Array, " device"]
) -> Int[Array, " device"]:
    """The exact best splits when the devices that use the edge share it equally.

    For each number k of users, a device's best splits with and without the edge are its own affair; the k devices
    that gain most are the users.

    Args:
        options: Costs of all splits.
        edge_speed: FLOP/s.
        latency_weight: w, in 0..1.
    """
    fixed, root = cost_terms(options, edge_speed, latency_weight)
    used = options.edge_work > 0
    alone = jnp.where(used, jnp.inf, fixed)
    alone_split, alone_cost = jnp.argmin(alone, axis=1), jnp.min(alone, axis=1)

    def with_users(number: Int[Array, ""]) -> tuple[Int[Array, " device"], Float[Array, ""]]:
        edge = jnp.where(used, fixed + number * root**2, jnp.inf)
        loss = jnp.min(edge, axis=1) - alone_cost
        rank = jnp.argsort(jnp.argsort(loss))
        uses = rank < number
        split = jnp.where(uses, jnp.argmin(edge, axis=1), alone_split)
        return split, jnp.sum(alone_cost) + jnp.sum(jnp.where(uses, loss, 0))

    splits, costs = jax.vmap(with_users)(jnp.arange(fixed.shape[0] + 1))
    return splits[jnp.argmin(costs)]


SPINN_INTERVAL = 0.15  # of the FLOPs of the layers


def spinn_exits(params: Params) -> Params:
    """The parameters with exits installed at every 15 % of the layers' FLOPs, as SPINN sets them, and at the end."""
    done = jnp.cumsum(params.layer_flops, axis=1)
    interval = jnp.floor(done / (SPINN_INTERVAL * done[:, -1:]))
    before = jnp.concatenate([jnp.zeros_like(interval[:, :1]), interval[:, :-1]], axis=1)
    return params.replace(exit_installed=(interval > before).at[:, -1].set(True))


@cache
def baselines(env: MultiExitAllocation) -> Mapping[str, Policy]:
    """Baselines by name. They read the environment's parameters as their own:
    `play_episodes(env, params, baselines(env)["ACO-EAR"], params, keys)`.

    SPINN-EAR belongs to a network with other exits: `play_baselines` plays it with those.

    Equal environments get the very same policies, so that what is compiled for them is kept.
    """
    named = {
        "Device-only-EAR": device_only,
        "Edge-only-EAR": edge_only,
        "ACO-EAR": aco,
        "SPINN-EAR": spinn,
        "FP-AR": fixed_partition,
        "Random": uniform,
    }
    return for_env(env, named)


def play_baselines(env: MultiExitAllocation, params: Params, keys: Array) -> dict[str, Episodes]:
    """Episodes of all baselines by name, SPINN-EAR with its own exits."""
    own = {"SPINN-EAR": spinn_exits(params)}
    return {
        name: play_episodes(env, own.get(name, params), policy, own.get(name, params), keys)
        for name, policy in baselines(env).items()
    }


@cache
def oracle_policy(env: MultiExitAllocation, capacity: int = CAPACITY) -> Policy:
    """The policy `oracle`; like the baselines it reads the environment's parameters as its own."""
    return partial(oracle, env, capacity)
