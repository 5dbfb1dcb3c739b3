"""The methods of Ma et al. 2025 over bandwidth: latency, energy and cost."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from algos import ppo
from algos.actor import actor_policy
from algos.runs import as_arrays
from mec_jax.contracts import Policy
from mec_jax.envs.multi_exit import MultiExitAllocation, Params
from mec_jax.episodes import evaluation_keys
from mec_jax.physics.multi_exit import Costs, split_costs
from mec_jax.solvers import multi_exit as solvers

SETUPS = {
    "image": "MultiExitAllocation-v0",
    "video": "MultiExitAllocation-Video-v0",
    "compressed": "MultiExitAllocation-Compressed-v0",
}

BANDWIDTHS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)  # Mbit/s

DRAWS = 8
"""Draws that FP-AR and Random are averaged over."""


def trained(env: MultiExitAllocation, config: ppo.Config | None = None) -> Policy:
    """PPO's policy, preset `bandit`, seed 0: trained at the defaults of all but bandwidth and speeds, which vary."""
    default, hparams, _ = ppo.PRESETS["bandit"]
    config = config or default
    trainer = ppo.make_trainer(env, config)
    state, _ = jax.jit(trainer.train)(as_arrays(hparams), env.default_params, jax.random.key(0))
    policy, learned = actor_policy(env, config, deterministic=True), ppo.learned(state)
    return lambda params, observation, key: policy((learned, params), observation, key)


LEARNED: dict[str, Callable[[MultiExitAllocation], Policy]] = {"ACO-DRL": trained}
"""Learned policies by name: each is measured and drawn with the rest at the defaults it was trained for, and the claims
on ACO-DRL are judged by that of this name. Elsewhere, and if there is none, the optimum stands in for it."""

OPTIMUM, DEVICE_ONLY, EDGE_ONLY, FIXED, RANDOM = "Optimum", "Device-only-EAR", "Edge-only-EAR", "FP-AR", "Random"
ACO, SPINN = "ACO-EAR", "SPINN-EAR"
SHARED_ACO, SHARED_SPINN = "ACO-EAR, shared", "SPINN-EAR, shared"
PAPERS = (ACO, SPINN, DEVICE_ONLY, EDGE_ONLY, FIXED)
METRICS = {"latency": "s", "energy": "J", "cost": ""}

Curves = Mapping[str, Mapping[str, np.ndarray]]
"""[method][metric] of one set-up and setting: means over devices, [bandwidth]."""

SENSITIVITY: dict[str, dict[str, Any]] = {
    "defaults": {},
    "f_e = 0.25 TFLOP/s": {"edge_speed": 0.25e12},
    "f_e = 0.5 TFLOP/s": {"edge_speed": 0.5e12},
    "f_e = 2 TFLOP/s": {"edge_speed": 2e12},
    "f_e = 5 TFLOP/s": {"edge_speed": 5e12},
    "input of 1 bit a value (JPEG)": {"input_bits": 3 * 224 * 224},
    "input of 32 bit a value": {"input_bits": 32 * 3 * 224 * 224},
    "h = 0": {"branch_flops": 0.0},
    "h = 2 % of a mean layer": {"branch_flops": 0.02 * 30e9 / 13},
    "h = 10 % of a mean layer": {"branch_flops": 0.1 * 30e9 / 13},
    "w = 0.1": {"latency_weight": 0.1},
    "w = 0.3": {"latency_weight": 0.3},
    "w = 0.7": {"latency_weight": 0.7},
    "w = 0.9": {"latency_weight": 0.9},
}


def own_slices(env: MultiExitAllocation, params: Params, observation: Any, key: Any) -> Costs:
    """The best splits if each device owns 1/n of the edge, used or not, as the paper words EAR.

    The environment grants what is not used to the others, so that this is no policy of it.
    """
    scenario = env.situation(observation, params)
    options = env.options(scenario, params)
    fixed, root = solvers.cost_terms(options, scenario.edge_speed, params.latency_weight)
    split = jnp.argmin(fixed + env.num_devices * root**2, axis=1)
    share = jnp.full(env.num_devices, 1 / env.num_devices)
    return split_costs(options, split, share, scenario.edge_speed, params.latency_weight)


def of_policy(policy: Policy, env: MultiExitAllocation, params: Params, observation: Any, key: Any) -> Costs:
    """What a policy costs."""
    return env.costs(env.situation(observation, params), policy(params, observation, key), params)


def methods(env: MultiExitAllocation) -> dict[str, Callable[..., Costs]]:
    """What is compared but for learned policies, by name: functions of environment, parameters, observation and key."""
    policies = {OPTIMUM: solvers.oracle_policy(env)}
    baselines = dict(solvers.baselines(env))
    shared = {SHARED_ACO: baselines.pop(ACO), SHARED_SPINN: baselines.pop(SPINN)}
    costs = {name: partial(of_policy, policy) for name, policy in (policies | baselines | shared).items()}
    return costs | {ACO: own_slices, SPINN: own_slices}


def measure(
    env: MultiExitAllocation, settings: Sequence[Mapping[str, Any]], bandwidths: Sequence[float]
) -> list[Curves]:
    """Curves of all methods at nominal speeds, one for each setting of the parameters."""
    points = [env.params(**_scenario(setting, bandwidth)) for setting in settings for bandwidth in bandwidths]
    columns = jax.tree.map(lambda *x: jnp.stack(x), *points)
    keys = evaluation_keys(DRAWS)
    curves: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in settings]
    learned = {name: partial(of_policy, make(env)) for name, make in LEARNED.items()}
    for name, method in (methods(env) | learned).items():
        count = 1 if name in learned else len(settings)
        params = jax.tree.map(lambda x, count=count: x[: count * len(bandwidths)], columns)
        own = solvers.spinn_exits if name in (SPINN, SHARED_SPINN) else lambda x: x

        def means(one: Params, key: Any, method: Any = method, own: Any = own) -> Any:
            one = own(one)
            costs = method(env, one, env.reset_env(key, one)[0], key)
            return {metric: jnp.mean(getattr(costs, metric)) for metric in METRICS}

        # One point after the other: FP-AR tries 1000 shares for each key.
        measured = jax.jit(partial(jax.lax.map, lambda one, means=means: jax.vmap(means, (None, 0))(one, keys)))(params)
        for metric, values in measured.items():
            table = np.asarray(values, float).mean(1).reshape(count, len(bandwidths))
            for curve, row in zip(curves, table, strict=False):
                curve.setdefault(name, {})[metric] = row
    return list(curves)


def _scenario(setting: Mapping[str, Any], bandwidth: float) -> dict[str, Any]:
    """Parameters at nominal speeds and one bandwidth (Mbit/s)."""
    fixed = {"device_speed_spread": 1, "edge_speed_spread": 1}
    return fixed | {"bandwidth_min": 1e6 * bandwidth, "bandwidth_max": 1e6 * bandwidth} | dict(setting)


def optimal_splits(env: MultiExitAllocation, setting: Mapping[str, Any], bandwidths: Sequence[float]) -> np.ndarray:
    """Splits of the optimum at nominal speeds, [bandwidth, device]."""
    rows = []
    for bandwidth in bandwidths:
        params = env.params(**_scenario(setting, bandwidth))
        observation, _ = env.reset(jax.random.key(0), params)
        rows.append(np.asarray(_decide(env, params, observation)))
    return np.array(rows)


@partial(jax.jit, static_argnames="env")
def _decide(env: MultiExitAllocation, params: Params, observation: Any) -> Any:
    return solvers.oracle_policy(env)(params, observation, jax.random.key(0)).split
