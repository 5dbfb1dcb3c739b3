"""The methods of Ma et al. 2025 over bandwidth: latency, energy and cost."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from algos import ppo
from algos.actor import actor_policy
from algos.run_config import as_arrays
from benchmarks.harness.experiments import Results
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


SEEDS = 5
"""Runs of PPO, whose worst at each bandwidth is what claims on ACO-DRL are judged by."""

OPTIMUM, DEVICE_ONLY, EDGE_ONLY, FIXED, RANDOM = "Optimum", "Device-only-EAR", "Edge-only-EAR", "FP-AR", "Random"
ACO, SPINN = "ACO-EAR", "SPINN-EAR"
SHARED_ACO, SHARED_SPINN = "ACO-EAR, shared", "SPINN-EAR, shared"
PAPERS = (ACO, SPINN, DEVICE_ONLY, EDGE_ONLY, FIXED)
METRICS = {"latency": "s", "energy": "J", "cost": ""}

Curves = Mapping[str, Mapping[str, np.ndarray]]
"""[method][metric] of one set-up and setting: means over devices, [bandwidth]."""


class Setting(NamedTuple):
    """One setting of what the paper leaves out, or of what stands for ACO-DRL."""

    bandwidths: Sequence[float]  # Mbit/s
    curves: Mapping[str, Curves]  # of each set-up


class Measured(NamedTuple):
    """What a page is made of."""

    settings: Mapping[str, Setting]  # the defaults, by optimum and PPO; one number changed at a time; three at once
    learned: Mapping[str, Mapping[str, np.ndarray]]  # of each set-up: [metric], [seed, bandwidth]
    splits: Mapping[str, np.ndarray]  # of the optimum at the defaults, [bandwidth, device], of each set-up
    layers: Mapping[str, int]
    results: Results


DEFAULTS, LEARNED_SETTING, CHEAPEST = "the defaults", "the defaults, PPO", "ACO's exits by least work"
LEARNED = "ACO-DRL"

FEATURES = {"8 bit": 0.25, "1 bit": 1 / 32, "0.25 bit (compressed)": 1 / 128}
"""Of a feature value, and the part of the profile's 32 bit that they are."""

SENSITIVITY: dict[str, dict[str, Any]] = {
    DEFAULTS: {},
    CHEAPEST: {"cheapest_exits": True},
    "f_e = 0.25 TFLOP/s": {"edge_speed": 0.25e12},
    "f_e = 0.5 TFLOP/s": {"edge_speed": 0.5e12},
    "f_e = 2 TFLOP/s": {"edge_speed": 2e12},
    "f_e = 5 TFLOP/s": {"edge_speed": 5e12},
    **{f"D_j of {name}": {"features": part} for name, part in FEATURES.items()},
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
"""One number that the paper leaves out changed at a time."""

EXITS: dict[str, dict[str, Any]] = {
    f"{CHEAPEST}, h = {name} of a mean layer": {"cheapest_exits": True, "branch_flops": part * 30e9 / 13}
    for name, part in {"10 %": 0.1, "50 %": 0.5}.items()
}
"""ACO's exits where an exit costs more: at the default h those of least work are all that some task leaves by."""

JOINT: dict[str, dict[str, Any]] = {
    f"f_e = {speed:g}, D_j of {name}, w = {weight:g}": {
        "edge_speed": 1e12 * speed,
        "features": part,
        "latency_weight": weight,
    }
    for speed in (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
    for name, part in {"32 bit": 1.0, **FEATURES}.items()
    for weight in (0.1, 0.3, 0.5, 0.7, 0.9)
}
"""Three of them at once; f_e in TFLOP/s."""

JOINT_BANDWIDTHS = (1, 2, 5, 10, 15, 20, 30, 50, 70, 100)  # Mbit/s


@partial(jax.jit, static_argnames=("env", "config"))
def _train(env: MultiExitAllocation, config: ppo.Config, hparams: ppo.HParams, params: Params, keys: Any) -> Any:
    train = ppo.make_trainer(env, config).train
    return ppo.learned(jax.vmap(lambda key: train(hparams, params, key)[0])(keys))


def learned_curves(
    env: MultiExitAllocation, bandwidths: Sequence[float], seeds: int = SEEDS, config: ppo.Config | None = None
) -> dict[str, np.ndarray]:
    """By metric, what PPO's policies cost, [seed, bandwidth]: preset `bandit`, trained at the defaults of all but
    bandwidth and speeds, which vary.
    """
    default, hparams, _ = ppo.PRESETS["bandit"]
    config = config or default
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    actors = _train(env, config, as_arrays(hparams), env.default_params, keys)
    policy = actor_policy(env, config, deterministic=True)
    points = [env.params(**_scenario({}, bandwidth)) for bandwidth in bandwidths]
    columns = jax.tree.map(lambda *x: jnp.stack(x), *points)

    def means(actor: Any, params: Params) -> dict[str, Any]:
        key = jax.random.key(0)  # nothing is random
        observation = env.reset_env(key, params)[0]
        costs = env.costs(env.situation(observation, params), policy((actor, params), observation, key), params)
        return {metric: jnp.mean(getattr(costs, metric)) for metric in METRICS}

    found = jax.jit(jax.vmap(jax.vmap(means, (None, 0)), (0, None)))(actors, columns)
    return {metric: np.asarray(values, float) for metric, values in found.items()}


def cheapest_exits(params: Params) -> Params:
    """The parameters with those exits installed with which a task takes the least work in expectation, wherever the
    network is cut; the last always is. Exact, by dynamic programming over the exit before.

    The paper takes its exits from another work, which is not at hand; this is one that a good choice cannot beat.
    """
    flops, branch, leave = (
        np.asarray(x, float) for x in (params.layer_flops, params.branch_flops, params.exit_probability)
    )
    installed = np.zeros(flops.shape, bool)
    layers = flops.shape[1]
    for device in range(len(flops)):
        done = np.concatenate([[0.0], np.cumsum(flops[device])])  # FLOP of the layers before
        inside = 1 - np.concatenate([[0.0], np.cumsum(leave[device])])  # tasks still there after so many layers
        cost, follow = np.zeros(layers + 1), np.zeros(layers + 1, int)
        for last in reversed(range(layers)):
            places = np.arange(last + 1, layers + 1)
            tried = inside[last] * (done[places] - done[last] + branch[device, places - 1]) + cost[places]
            cost[last], follow[last] = tried.min(), places[tried.argmin()]
        place = 0
        while place < layers:
            place = follow[place]
            installed[device, place - 1] = True
    return params.replace(exit_installed=jnp.asarray(installed))


def parameters(env: MultiExitAllocation, setting: Mapping[str, Any], bandwidth: float) -> Params:
    """Of a setting at nominal speeds and one bandwidth (Mbit/s)."""
    numbers = dict(setting)
    part, cheapest = numbers.pop("features", 1.0), numbers.pop("cheapest_exits", False)
    params = env.params(**_scenario(numbers, bandwidth))
    params = params.replace(feature_bits=part * params.feature_bits)
    return cheapest_exits(params) if cheapest else params


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
    """Curves of all methods but learned ones at nominal speeds, one for each setting of the parameters."""
    points = [parameters(env, setting, bandwidth) for setting in settings for bandwidth in bandwidths]
    columns = jax.tree.map(lambda *x: jnp.stack(x), *points)
    keys = evaluation_keys(DRAWS)
    curves: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in settings]
    for name, method in methods(env).items():
        own = solvers.spinn_exits if name in (SPINN, SHARED_SPINN) else lambda x: x

        def means(one: Params, key: Any, method: Any = method, own: Any = own) -> Any:
            one = own(one)
            costs = method(env, one, env.reset_env(key, one)[0], key)
            return {metric: jnp.mean(getattr(costs, metric)) for metric in METRICS}

        # One point after the other: FP-AR tries 1000 shares for each key.
        measured = jax.jit(partial(jax.lax.map, lambda one, means=means: jax.vmap(means, (None, 0))(one, keys)))(
            columns
        )
        for metric, values in measured.items():
            table = np.asarray(values, float).mean(1).reshape(len(settings), len(bandwidths))
            for curve, row in zip(curves, table, strict=True):
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
        params = parameters(env, setting, bandwidth)
        observation, _ = env.reset(jax.random.key(0), params)
        rows.append(np.asarray(_decide(env, params, observation)))
    return np.array(rows)


@partial(jax.jit, static_argnames="env")
def _decide(env: MultiExitAllocation, params: Params, observation: Any) -> Any:
    return solvers.oracle_policy(env)(params, observation, jax.random.key(0)).split
