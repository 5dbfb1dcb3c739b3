"""PPO, one policy for all scenarios, beside MQHOA that is run anew for each: how much slower, and how fast decided.

    python -m benchmarks.learning.curves --only ppo_plan_CompressedInference-v0   # trains
    python -m benchmarks.learning.plans

Latencies are those of each evaluation scenario, by all seeds. What a decision takes is measured of a policy as it is at
the start, whose weights differ from a trained one's in nothing that costs time: a whole plan is a sparsity for each
unit, the cut and the codec. Results go to benchmarks/results/compression_plans.txt; machine that does nothing else.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mec_jax
from algos import ppo
from algos.export import export_policy
from algos.run_config import as_arrays, new_run
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.learning.curves import EPISODES, FOLDER
from benchmarks.speed.compression import seconds
from mec_jax.contracts import Rulers
from mec_jax.episodes import evaluation_keys, play_episode, start_key
from mec_jax.evaluation import solver_of
from mec_jax.policy import load_policy
from mec_jax.solvers.compression import SPACES, Config, compare, mqhoa
from mec_jax.solvers.compression.rulers import RESTARTS, problem_of
from mec_jax.statistics import bootstrap_interval, interquartile_mean, normalised_score

ENV_ID = "CompressedInference-v0"
RUN = FOLDER / f"ppo_plan_{ENV_ID}.json"
RESULT = RESULTS / "compression_plans.txt"
NEAR = (1.01, 1.05, 1.1, 1.5)  # times MQHOA's latency


def quality(run: dict[str, Any], rulers: Rulers) -> list[str]:
    """A row for each ruler and for PPO, and lines on the latency of single scenarios.

    Args:
        run: A file of `benchmarks.learning.curves`.
        rulers: In the same scenarios.
    """
    best = np.asarray(rulers.episodes[rulers.one].measures["latency"], float)
    at_zero, at_one = (float(np.mean(rulers.episodes[name].episode_return)) for name in (rulers.zero, rulers.one))
    width = max(map(len, rulers.episodes))
    lines = [f"  {'':<{width}}   return  score  latency / {rulers.one}'s, median  within the budget"]

    def row(name: str, returns: Any, latency: np.ndarray, feasible: Any) -> str:
        score = interquartile_mean(np.atleast_1d(normalised_score(returns, at_zero, at_one)))
        ratio = np.median(latency / best, axis=-1)
        return (
            f"  {name:<{width}} {np.mean(returns):8.3f} {score:6.3f} {np.mean(ratio):25.3f}  {np.mean(feasible):17.1%}"
        )

    for name, each in rulers.episodes.items():
        measures = {key: np.asarray(value, float) for key, value in each.measures.items()}
        lines.append(row(name, np.mean(each.episode_return), measures["latency"], measures["feasible"]))
    returns = np.array(run["episodes"]["episode_return"])
    latency, feasible = (np.array(run["each"][name], float) for name in ("latency", "feasible"))
    lines.append(row("PPO", returns, latency, feasible))
    ratio = latency / best
    middle = np.median(ratio, axis=1)
    shares = ", ".join(f"{(ratio <= near).mean():.0%} within {near:g}" for near in NEAR)
    intervals = {
        "return": bootstrap_interval(returns),
        "score": bootstrap_interval(normalised_score(returns, at_zero, at_one)),
        "median ratio": bootstrap_interval(middle, statistic=np.mean),
    }
    return [
        *lines,
        "",
        "PPO: the score is the interquartile mean over seeds; 95 % intervals over seeds: "
        + ", ".join(f"{name} [{low:.3f}, {high:.3f}]" for name, (low, high) in intervals.items()),
        f"  returns by seed {', '.join(f'{one:.3f}' for one in returns)}",
        f"  median ratio by seed {', '.join(f'{one:.3f}' for one in middle)}",
        f"  of all {ratio.size} plans {shares}; {(ratio < 1).mean():.1%} are faster than {rulers.one}'s; 5 % below "
        f"{np.quantile(ratio, 0.05):.3f}, 5 % above {np.quantile(ratio, 0.95):.3f}",
    ]


def decision_times() -> list[str]:
    """Lines on what it takes to plan for one scenario."""
    run = new_run("ppo", ENV_ID, preset="plan")
    env: Any
    env, params = run.make_env()
    trainer, policy = ppo.make_trainer(env, run.config), ppo.actor_policy(env, run.config, True)
    learned = ppo.learned(jax.jit(trainer.init)(as_arrays(run.hparams), params, jax.random.key(0)))
    key = evaluation_keys(1)[0]
    plan = jax.jit(lambda learned, key: play_episode(env, params, policy, (learned, params), key))
    situation = env.reset_env(start_key(key)[1], params)[1].situation
    problem = problem_of(env, params, situation)
    once = jax.jit(lambda problem, key: mqhoa(SPACES["Joint"], Config(), problem, key).best.latency)
    often = jax.jit(
        lambda problem, keys: jax.vmap(lambda key: mqhoa(SPACES["Joint"], Config(), problem, key).best.latency)(keys)
    )
    baselines = jax.jit(lambda problem, key: compare(problem, key, Config(), RESTARTS)["Joint"].latency)
    many = jax.random.split(key, RESTARTS)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.npz"
        export_policy(path, run, learned, frames=0, score={})
        numpy_policy = load_policy(path)
    observation = np.asarray(env.reset_env(start_key(key)[1], params)[0])
    steps = env.num_decisions

    def in_numpy() -> None:
        for _ in range(steps):
            numpy_policy.act(observation)

    times = {
        f"PPO, {steps} decisions, exported, NumPy": seconds(in_numpy),
        f"PPO, {steps} decisions and the environment, JAX": seconds(lambda: plan(learned, key)),
        "MQHOA, one run, JAX": seconds(lambda: once(problem, key)),
        f"MQHOA, {RESTARTS} runs side by side, JAX": seconds(lambda: often(problem, many)),
        f"MQHOA as the ruler: {RESTARTS} runs from all baselines' ends, JAX": seconds(lambda: baselines(problem, key)),
    }
    width = max(map(len, times))
    return ["Planning for one scenario, ms", *(f"  {name:<{width}} {1e3 * time:8.3f}" for name, time in times.items())]


def main(argv: list[str] | None = None) -> None:
    """Measure and write."""
    args = command_line(__spec__.name, __doc__, RESULT).parse_args(argv)
    if not RUN.exists():
        raise SystemExit(f"there is no {RUN.name}: train first, python -m benchmarks.learning.curves --only {RUN.stem}")
    run = json.loads(RUN.read_text())
    env: Any
    env, params = mec_jax.make(ENV_ID)
    scenario, keys = env.evaluation_params(params), evaluation_keys(EPISODES)
    solver = solver_of(env)
    assert solver is not None
    rulers = solver.rulers(env, scenario, keys)
    lines = [
        f"{ENV_ID}, {described({**machine(), 'device': jax.devices()[0].device_kind}, ['device'], ('jax', 'jaxlib'))}",
        f"{run['seeds']} seeds of PPO, {run['frames'][-1]} frames each, {EPISODES} scenarios of the protocol",
        "",
        *quality(run, rulers),
        "",
        *decision_times(),
    ]
    write_result(args.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
