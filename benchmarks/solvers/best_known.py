"""The best plans known of `MultiUEOffloading-v0`, and the lower bounds below them.

    python -m benchmarks.solvers.best_known                 # search on from the stored plans, all scenarios (hours)
    python -m benchmarks.solvers.best_known --ues 5 --profile resnet18 --rounds 8
    python -m benchmarks.solvers.best_known --rounds 0      # just replay the stored plans, and write the table
    python -m benchmarks.solvers.best_known --check 1000    # bounds against searches on random scenarios

The search rewrites `mec_jax.solvers.offloading.plans.KNOWN_PLANS` where it finds better; bounds.md and bounds.txt in
benchmarks/results tell what came out. A plan is tried with a little more noise too, so that no event hangs by a
rounding error, and must do the same in float32 and float64.

The check draws distances, tasks and first tasks as in training, beta from 0.01, 0.47 and 100, and what to search for
in turn. It exits 1 if any baseline or plan beats a lower bound, or a baseline the plan.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.contracts import Episodes
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.solvers.offloading import baselines, best_static, static
from mec_jax.solvers.offloading.bounds import least_energy, lower_bounds
from mec_jax.solvers.offloading.plans import (
    COSTS,
    KNOWN_PLANS,
    Objective,
    best_known,
    best_plan,
    known_env,
    known_scenario,
    play_plan,
)

PLANS = Path(str(KNOWN_PLANS))

SCENARIOS = [(3, "resnet18"), (5, "resnet18"), (10, "resnet18"), (5, "vgg11"), (5, "mobilenetv2")]
BETA = 0.47

SPARE_NOISE = 1e-5
"""Share of noise to add, with which plans are tried too: some ten float32 roundings of a rate."""

SAME = 2e-4
"""Largest relative difference between returns that are the same but for rounding and the spare noise."""

ROUNDING = 1e-5
"""Relative error of episodes in float32."""

OBJECTIVES: tuple[Objective, ...] = ("return", "objective", "latency")
BETAS = (0.01, BETA, 100.0)
UES = (2, 3, 5)


def play_exactly(entry: dict[str, Any]) -> dict[str, float]:
    """What a plan reaches, in float64; its return is NaN if it hangs by a rounding error.

    It must be the same in float32, and in both with the spare noise.
    """
    played = []
    for exact in (False, True):
        with jax.enable_x64(exact):
            env, scenario = known_env(entry), known_scenario(entry)
            plan = OffloadAction(*(jnp.asarray(np.asarray(entry[name])) for name in OffloadAction._fields))
            for spare in (SPARE_NOISE, 0.0):
                noisy = scenario.replace(noise=scenario.noise * (1 + spare))
                episodes = play_plan(env, noisy, plan, evaluation_keys(1))
                played.append(jax.tree.map(lambda x: float(x[0]), episodes))
    returns = np.array([episode.episode_return for episode in played])
    same = np.all(np.abs(returns - returns[-1]) <= SAME * np.abs(returns[-1]))
    true = played[-1]
    return {
        "return": true.episode_return if same and true.terminated else float("nan"),
        "frames": int(true.frames),
        "latency_s": true.latency,
        "energy_j": true.energy,
    }


def search(num_ues: int, profile: str, seed: int, rounds: int, generations: int, population: int) -> dict[str, Any]:
    """The stored plan or a better one, as it is stored."""
    entry: dict[str, Any] = {"num_ues": num_ues, "num_channels": 2, "profile": profile, "beta": BETA}
    env, scenario = known_env(entry), known_scenario(entry)
    known = best_known(env, scenario)
    plans = [] if known is None else [known.plan]
    # First the best whatever the rounding, then out of it one that stands some.
    for spare_noise in (0.0, SPARE_NOISE):
        found = best_plan(
            env,
            scenario,
            jax.random.key(seed),
            starts=plans,
            rounds=rounds,
            generations=generations,
            population=population,
            spare_noise=spare_noise,
        )
        plans.append(jax.tree.map(lambda x, frames=int(found.episode.frames): x[:frames], found.plan))
    entries = []
    for plan in plans:
        columns = {name: np.asarray(column).tolist() for name, column in plan._asdict().items()}
        entries.append(entry | play_exactly(entry | columns) | columns)
    return max(entries, key=lambda entry: np.nan_to_num(entry["return"], nan=-np.inf))


def write_plans(entries: Sequence[dict[str, Any]]) -> None:
    about = {
        "schema": 1,
        "description": "Best plans known: [frame][ue] of cut, channel and power (W). Replayed in float32 and float64.",
        "source": "found by python -m benchmarks.solvers.best_known",
    }
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    write_result(PLANS, json.dumps(about, indent=1)[:-2] + f',\n "plans": [\n{lines}\n]}}\n')


def stored() -> list[dict[str, Any]]:
    return json.loads(PLANS.read_text())["plans"] if PLANS.exists() else []


def write_table(out: Path) -> None:
    """Write `bounds.md` into `out` from the stored plans."""
    lines = [
        "# Best known plans and lower bounds",
        "",
        "Evaluation scenario: 2 channels, every UE at 50 m with 200 tasks, the first local, beta 0.47. Best known: a "
        "plan found by search. Bound: proven, for any policy; each number by itself, the energy at the number of "
        "frames of the best known plan. Saved: against the local 45.887 ms (resnet18) and its energy, per task.",
        "",
        "| UEs | network | best known: return | frames | ms | mJ | time saved | energy saved "
        "| bound: return | frames | ms | mJ | gap of return | of time |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in stored():
        env, scenario = known_env(entry), known_scenario(entry)
        bound = lower_bounds(env, scenario)
        energy = least_energy(env, scenario, entry["frames"])
        local_time = float(env.profiles[0].front_time[-1])
        local_energy = local_time * float(env.profiles[0].front_power[-1])
        lines.append(
            f"| {entry['num_ues']} | {entry['profile']} | {entry['return']:.4f} | {entry['frames']} "
            f"| {1e3 * entry['latency_s']:.1f} | {1e3 * entry['energy_j']:.2f} "
            f"| {1 - entry['latency_s'] / local_time:.1%} | {1 - entry['energy_j'] / local_energy:.1%} "
            f"| {-bound.cost:.4f} | {bound.frames} | {1e3 * bound.latency:.1f} | {1e3 * energy:.2f} "
            f"| {-entry['return'] / bound.cost - 1:.0%} | {entry['latency_s'] / bound.latency - 1:.0%} |"
        )
    write_result(out / "bounds.md", "\n".join(lines) + "\n")


Replays = list[Episodes]
"""The same episode without and with the spare noise."""


def play_all(
    env: MultiUEOffloading, params: Params, key: jax.Array, objective: Objective, generations: int, population: int
) -> dict[str, Replays]:
    """The episode with this key, by everyone there is."""
    keys = key[None]
    scenarios = [params, params.replace(noise=params.noise * (1 + SPARE_NOISE))]
    found = best_static(env, params, key, restarts=1, generations=generations, population=population, episode_keys=keys)
    starts = [jax.tree.map(lambda x: x[None], found.action)]
    plan = best_plan(env, params, key, objective, key, starts, 20, 3, generations, population).plan
    named = [(name, policy, params) for name, policy in baselines(env).items()]
    named.append(("Best static", static, found.action))
    played = {name: [play_episodes(env, x, policy, knows, keys) for x in scenarios] for name, policy, knows in named}
    return {"Plan": [play_plan(env, x, plan, keys) for x in scenarios]} | played


def compare(
    env: MultiUEOffloading, params: Params, key: jax.Array, played: dict[str, Replays], objective: Objective
) -> list[str]:
    """What is wrong with one scenario's results.

    A baseline beats the plan only if it does so with the spare noise too: a task that ends at the very end of a frame
    falls on either side of it with the number of episodes played at once.
    """
    failures = []
    bound = lower_bounds(env, params, key)
    best = float(COSTS[objective](played["Plan"][0])[0])
    for name, replays in played.items():
        episode = jax.tree.map(lambda x: float(x[0]), replays[0])
        cost = max(float(COSTS[objective](replay)[0]) for replay in replays)
        if not episode.terminated:
            continue
        pairs = {
            "frames": (episode.frames, bound.frames),
            "latency": (episode.latency, bound.latency * (1 - ROUNDING)),
            "energy": (episode.energy, bound.energy),
            "energy in these frames": (episode.energy, least_energy(env, params, int(episode.frames), key)),
            "objective": (episode.objective, bound.objective),
            "cost": (-episode.episode_return, bound.cost),
        }
        failures += [f"{name} has {what} {got}, bound {least}" for what, (got, least) in pairs.items() if got < least]
        if cost < best * (1 - ROUNDING):
            failures.append(f"{name} costs {cost}, the plan {best}")
    return failures


def check(
    scenarios: int, ues: Sequence[int] = UES, seed: int = 0, generations: int = 16, population: int = 40
) -> list[str]:
    """Failures, one line each."""
    failures = []
    for i in range(scenarios):
        turn = i % len(ues)
        env, objective = MultiUEOffloading(num_ues=ues[turn]), OBJECTIVES[turn]
        beta = BETAS[i // len(ues) % len(BETAS)]
        params = env.params(beta=beta, max_steps_in_episode=100, first_random=i % 2 == 0)
        key = jax.random.fold_in(jax.random.key(seed), i)
        played = play_all(env, params, key, objective, generations, population)
        where = f"scenario {i}: {env.num_ues} UEs, beta {beta}, {objective}"
        new = [f"{where}: {line}" for line in compare(env, params, key, played, objective)]
        print(*new, sep="\n", end="\n" if new else "", flush=True)
        failures += new
        if (i + 1) % 50 == 0:
            print(f"{i + 1} scenarios, {len(failures)} failures", flush=True)
    return failures


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__spec__.name, __doc__, RESULTS)
    parser.add_argument("--ues", type=int, help="only the scenarios of this number of UEs")
    parser.add_argument("--profile", help="only those of this network")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=24, help="0: do not search (default: 24)")
    parser.add_argument("--generations", type=int, default=60)
    parser.add_argument("--population", type=int, default=1024)
    parser.add_argument("--check", type=int, metavar="SCENARIOS", help="check bounds on random scenarios instead")
    args = parser.parse_args(argv)
    if args.check is not None:
        failures = check(args.check, seed=args.seed)
        about = machine()
        text = [
            f"{args.check} random scenarios of 2, 3 and 5 UEs, beta 0.01, 0.47 and 100: lower bounds <= plan, and "
            "plan <= Local, All-edge, Random and Best static.",
            f"{len(failures)} failures",
            *failures,
            f"{about['cpu']}, {about['cores']} core(s), Python {about['python']}, JAX {about['jax']}",
        ]
        print("\n".join(text))
        write_result(args.out / "bounds.txt", "\n".join(text) + "\n")
        return 1 if failures else 0

    entries = {(entry["num_ues"], entry["profile"]): entry for entry in stored()}
    for num_ues, profile in SCENARIOS:
        if args.rounds and args.ues in (None, num_ues) and args.profile in (None, profile):
            begin = time.perf_counter()
            entry = search(num_ues, profile, args.seed, args.rounds, args.generations, args.population)
            print({name: value for name, value in entry.items() if name not in OffloadAction._fields}, flush=True)
            print(f"{time.perf_counter() - begin:.0f} s", flush=True)
            if math.isnan(entry["return"]):
                print("the plan hangs by a rounding error: what was stored stays", flush=True)
                continue
            entries[num_ues, profile] = entry
            write_plans([entries[scenario] for scenario in SCENARIOS if scenario in entries])
    write_table(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
