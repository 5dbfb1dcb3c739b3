"""The joint optimum of the multi-exit environments against brute force and against the baselines, and its speed.

    python -m benchmarks.solvers.multi_exit_bruteforce    # some minutes

Writes benchmarks/results/multi_exit_bruteforce.txt. Fails if brute force finds less, or a baseline beats the oracle.
"""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.solvers import multi_exit as solvers

RESULT = RESULTS / "multi_exit_bruteforce.txt"
BANDITS = ("MultiExitAllocation-v0", "MultiExitAllocation-Video-v0", "MultiExitAllocation-Compressed-v0")
BATCH = 500  # scenarios at once: FP-AR tries 1000 shares in each
TOLERANCE = 1e-5  # relative, float32


def best_of_all(fixed: np.ndarray, root: np.ndarray) -> tuple[np.ndarray, float]:
    """Splits and cost of the best of all joint splits, from the terms [device, split] of the cost."""
    costs = solvers.sum_over_devices(fixed) + solvers.sum_over_devices(root) ** 2
    best = int(np.argmin(costs))
    return np.array(np.unravel_index(best, costs.shape)), float(costs.flat[best])


def decide(env: MultiExitAllocation, params: Params, policy: Any, keys: Any) -> tuple[np.ndarray, AllocationAction]:
    """Total costs [key] and actions of a policy in the scenarios of the keys."""
    parts = [_decide(env, params, policy, keys[start : start + BATCH]) for start in range(0, len(keys), BATCH)]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


@partial(jax.jit, static_argnames=("env", "policy"))
def _decide(env: MultiExitAllocation, params: Params, policy: Any, keys: Any) -> Any:
    def one(key: Any) -> Any:
        observation, _ = env.reset_env(key, params)
        action = policy(params, observation, key)
        return jnp.sum(env.costs(env.situation(observation, params), action, params).cost), action

    return jax.vmap(one)(keys)


def cost_ratios(env: MultiExitAllocation, params: Params, number: int) -> dict[str, np.ndarray]:
    """Costs of each baseline divided by the oracle's, [scenario]; SPINN-EAR with its own exits."""
    keys = evaluation_keys(number)
    oracle, _ = decide(env, params, solvers.oracle_policy(env), keys)
    ratios = {}
    for name, policy in solvers.baselines(env).items():
        cost, _ = decide(env, solvers.spinn_exits(params) if name == "SPINN-EAR" else params, policy, keys)
        ratios[name] = np.asarray(cost / oracle)
    return ratios


def against_brute_force(env_id: str, number: int) -> str:
    """Compare with brute force in random scenarios; a line that says how it went."""
    env, params = mec_jax.make(env_id)
    worst, front = 0.0, 0
    for key in evaluation_keys(number):
        scenario = env.situation(env.reset(key, params)[0], params)
        options = env.options(scenario, params)
        found = solvers.joint_optimum(options, scenario.edge_speed, params.latency_weight)
        terms = solvers.cost_terms(options, scenario.edge_speed, params.latency_weight)
        split, cost = best_of_all(*(np.asarray(x, float) for x in terms))
        worst = max(worst, abs(float(found.cost) / cost - 1))
        front += int(np.any(np.asarray(found.split) != split))
    count = (env.num_layers + 1) ** env.num_devices
    if worst > TOLERANCE:
        raise SystemExit(f"{env_id}: the optimum is off by {worst:.1e}")
    return (
        f"{env_id}: {number} scenarios, all {count} splits of each: costs agree within {worst:.1e}, splits differ in "
        f"{front} (ties)"
    )


def speed(env_id: str, number: int) -> str:
    """Scenarios that the oracle solves in a second, observation to action."""
    env, params = mec_jax.make(env_id)
    observations = jax.jit(jax.vmap(lambda key: env.reset_env(key, params)[0]))(evaluation_keys(number))
    solve = jax.jit(jax.vmap(lambda observation: solvers.oracle_policy(env)(params, observation, jax.random.key(0))))
    jax.block_until_ready(solve(observations))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(solve(observations))
        seconds.append(time.perf_counter() - start)
    return f"{env_id}: {number / min(seconds):,.0f} scenarios/s (batch of {number}, best of 3)"


def against_baselines(env_id: str, number: int) -> list[str]:
    """Compare the costs with the baselines'; a table."""
    env, params = mec_jax.make(env_id)
    lines = [f"{env_id}, {number} scenarios", f"  {'cost / oracle':<16}  least      mean       largest"]
    for name, ratio in cost_ratios(env, params, number).items():
        lines.append(f"  {name:<16}  {ratio.min():.6f}  {ratio.mean():9.4f}  {ratio.max():9.4f}")
        if ratio.min() < 1 - TOLERANCE:
            raise SystemExit("\n".join([*lines, f"{name} beats the oracle"]))
    _, action = decide(env, params, solvers.oracle_policy(env), evaluation_keys(number))
    split = np.asarray(action.split)
    interior = np.mean((split > 0) & (split < env.num_layers))
    lines.append(
        f"  oracle: {100 * np.mean(split == 0):.1f} % of splits at the edge, {100 * interior:.1f} % between, "
        f"{100 * np.mean(split == env.num_layers):.1f} % on the device"
    )
    return lines


def chain(env_id: str, steps: int, episodes: int) -> str:
    """The exact optimum of a bandwidth-Markov episode between the oracle that is blind to switches and the bound."""
    env = mec_jax.make(env_id)[0]
    params = env.params(device_speed_spread=1, edge_speed_spread=1, max_steps_in_episode=steps)
    keys = evaluation_keys(episodes)
    optimum = -solvers.switching_optimum(env, params).start_cost / float(params.reference_cost)
    oracle = play_episodes(env, params, solvers.oracle_policy(env), params, keys)
    bound = solvers.bound(env, params, keys)
    return (
        f"{env_id}, nominal speeds, {steps} steps: oracle blind to switches {np.mean(oracle.episode_return):.3f}, "
        f"optimum by dynamic programming {optimum:.3f}, bound {np.mean(bound.episode_return):.3f}"
    )


def main(argv: list[str] | None = None) -> None:
    """Compare and write."""
    parser = command_line(__spec__.name, __doc__, RESULT)
    parser.add_argument("--scenarios", type=int, default=10_000, help="scenarios for the baselines (default: 10000)")
    parser.add_argument("--brute-force", type=int, default=50, help="scenarios for brute force (default: 50)")
    args = parser.parse_args(argv)
    lines = [described(machine(), versions=("jax", "jaxlib")), ""]
    lines += [against_brute_force(env_id, args.brute_force) for env_id in (BANDITS[0], BANDITS[2])]
    lines += ["", *(speed(env_id, args.scenarios) for env_id in BANDITS)]
    for env_id in BANDITS:
        lines += ["", *against_baselines(env_id, args.scenarios)]
    lines += ["", f"Mean returns, over {args.scenarios} episodes where they are played"]
    lines += [chain(env_id.replace("-v0", "-Markov-v0"), 20, args.scenarios) for env_id in (BANDITS[0], BANDITS[2])]
    write_result(args.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
