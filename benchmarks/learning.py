"""How well MAHPPO learns: several seeds in one vmapped program, and a leaderboard of all that was measured.

    python benchmarks/learning.py --preset fast --ues 5         # train 5 seeds, write results/learning/fast_5ues.json
    python benchmarks/learning.py                               # leaderboard and curves of all that is there

A run is evaluated as `mec-jax train` does, by sampled actions on the evaluation scenario (every UE at 50 m with 200
tasks, beta 0.47). The score is 0 for Random and 1 for the best known plan. Intervals are 95 % bootstrap intervals of
the mean over seeds.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

if __name__ == "__main__" and not __package__:  # run as a file: find the package beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import mec_jax
from algos.mahppo import PRESETS, make_policy, make_trainer
from algos.runs import as_arrays
from benchmarks.machine import machine
from mec_jax.envs.offloading import MultiUEOffloading, Params
from mec_jax.evaluation import Episodes, bootstrap_interval, evaluation_keys, normalised_score, play_episodes
from mec_jax.solvers.offloading import baselines, best_static, static
from mec_jax.solvers.offloading_plans import best_known

RESULTS = Path(__file__).parent / "results"

LAST_TESTS = 30
"""Evaluations whose mean is compared with the recorded runs."""

RECORDED = {5: (-0.59, -0.88, -0.93), 3: (-0.49,)}
"""Runs of the authors' code by UEs: mean return of the last 30 tests near 300 000 frames, one episode a test."""


def train(preset: str, num_ues: int, seeds: range, num_frames: int | None, episodes: int = 4) -> dict[str, Any]:
    """Learning curves and final results of some seeds.

    Args:
        preset: Name in `PRESETS`.
        num_ues: UEs.
        seeds: Seeds of the runs.
        num_frames: Environment frames of each run; those of the preset if None.
        episodes: Episodes of each evaluation during training.
    """
    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=num_ues)
    config, hparams = PRESETS[preset]
    config = dataclasses.replace(config, num_frames=num_frames or config.num_frames)
    if preset == "reference":
        config = dataclasses.replace(config, updates_per_chunk=1)  # the authors test after every buffer
    trainer, policy, scenario = make_trainer(env, config), make_policy(env, config), env.evaluation_params(params)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    state = jax.jit(jax.vmap(trainer.init, (None, None, 0)))(as_arrays(hparams), params, keys)
    run = jax.jit(jax.vmap(trainer.run, (0, None, None)))

    @jax.jit
    def evaluate(actors: Any, keys: jax.Array) -> Episodes:
        return jax.vmap(lambda one: play_episodes(env, scenario, policy, (one, params), keys))(actors)

    curve, frames = [], []
    for _ in range(trainer.num_chunks):
        state, metrics = run(state, as_arrays(hparams), params)
        curve.append(np.mean(evaluate(state.actors, evaluation_keys(episodes)).episode_return, axis=1))
        frames.append(int(metrics.frames[0, -1]))
    final = evaluate(state.actors, evaluation_keys(256))
    return {
        "preset": preset,
        "num_ues": num_ues,
        "seeds": list(seeds),
        "frames": frames,
        "curve": np.stack(curve, axis=1).tolist(),  # [seed, chunk]
        "episodes": {name: np.mean(x, axis=1).tolist() for name, x in final.columns().items()},  # [seed]
        "config": dataclasses.asdict(config),
        "machine": machine(),
    }


def rulers(env: MultiUEOffloading, scenario: Params) -> dict[str, tuple[float, ...]]:
    """Return, s and J per task of what needs no learning."""
    found = {}
    for name, policy in baselines(env).items():
        played = play_episodes(env, scenario, policy, scenario, evaluation_keys(256))
        found[name] = tuple(float(np.mean(x)) for x in (played.episode_return, played.latency, played.energy))
    action = best_static(env, scenario, jax.random.key(0)).action
    played = play_episodes(env, scenario, static, action, evaluation_keys(1))
    found["Best static"] = tuple(float(np.mean(x)) for x in (played.episode_return, played.latency, played.energy))
    known = best_known(env, scenario)
    if known is None:
        raise ValueError(f"no plan is stored for {env.num_ues} UEs: run benchmarks/best_known.py first")
    found["Best known"] = (known.episode_return, known.latency, known.energy)
    return found


def with_interval(values: list[float], scale: float = 1.0, digits: int = 2) -> str:
    """Mean of some seeds and its interval."""
    scaled = scale * np.asarray(values)
    low, high = bootstrap_interval(scaled, statistic=np.mean)
    return f"{scaled.mean():.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def report(folder: Path) -> None:
    """Write `leaderboard.md` and `learning.png` from the runs in `folder`."""
    from matplotlib.figure import Figure

    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    numbers = sorted({run["num_ues"] for run in runs})
    lines = ["# Leaderboard of `MultiUEOffloading-v0`", "", *(__doc__ or "").strip().splitlines()[-3:], ""]
    figure = Figure(figsize=(4.5 * len(numbers), 3.6), layout="constrained")
    for axes, num_ues in zip(figure.subplots(1, len(numbers), squeeze=False)[0], numbers, strict=True):
        env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=num_ues)
        known = rulers(env, env.evaluation_params(params))
        random, best = known["Random"][0], known["Best known"][0]
        lines += [f"## {num_ues} UEs", "", "| | return | ms | mJ | score |", "|---|---|---|---|---|"]
        for name, (value, latency, energy) in known.items():
            score = normalised_score(value, random, best)
            lines.append(f"| {name} | {value:.3f} | {1e3 * latency:.1f} | {1e3 * energy:.1f} | {score:.2f} |")
        notes = []
        for run in (run for run in runs if run["num_ues"] == num_ues):
            played = run["episodes"]
            score = with_interval(normalised_score(played["episode_return"], random, best), digits=3)
            name = f"MAHPPO, preset {run['preset']}, {len(run['seeds'])} seeds, {run['frames'][-1]} frames"
            columns = (
                with_interval(played["episode_return"], digits=3),
                with_interval(played["latency"], 1e3, 1),
                with_interval(played["energy"], 1e3, 1),
            )
            lines.append(f"| {name} | {' | '.join(columns)} | {score} |")
            about = run["machine"]
            notes.append(
                f"Preset {run['preset']}: seeds {run['seeds'][0]} to {run['seeds'][-1]} end at returns "
                f"{', '.join(f'{x:.3f}' for x in played['episode_return'])}, on {about['cpu']}."
            )
            if run["preset"] == "reference" and num_ues in RECORDED:
                last = np.asarray(run["curve"])[:, -LAST_TESTS:].mean(axis=1)
                authors = ", ".join(f"{x:.2f}" for x in RECORDED[num_ues])
                notes.append(
                    f"Mean return of its last {LAST_TESTS} tests by seed: {', '.join(f'{x:.2f}' for x in last)}; mean "
                    f"{with_interval(last.tolist())}. The authors' code, recorded runs: {authors}."
                )
                axes.axhspan(min(RECORDED[num_ues]) - 0.005, max(RECORDED[num_ues]) + 0.005, color="0.85", zorder=0)
            curve = np.asarray(run["curve"])
            (line,) = axes.plot(run["frames"], curve.mean(axis=0), label=f"preset {run['preset']}")
            axes.fill_between(run["frames"], curve.min(axis=0), curve.max(axis=0), alpha=0.2, color=line.get_color())
        for color, name in zip(("C2", "C3", "k"), ("Local", "Best static", "Best known"), strict=True):
            axes.axhline(known[name][0], color=color, linestyle="--", linewidth=1, label=name)
        axes.set_ylim(2 * known["Local"][0], 0)
        axes.set_title(f"{num_ues} UEs")
        axes.set_xlabel("environment frames")
        axes.set_ylabel("return (mean and range of the seeds)")
        axes.legend(loc="lower right", fontsize="small")
        lines += ["", *notes, ""]
    (RESULTS / "leaderboard.md").write_text("\n".join(lines))
    figure.savefig(RESULTS / "learning.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, help="train with it; without, only the report is written")
    parser.add_argument("--ues", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--frames", type=int, help="of each run, instead of the preset's")
    args = parser.parse_args()
    folder = RESULTS / "learning"
    if args.preset is None:
        report(folder)
        return
    result = train(args.preset, args.ues, range(args.first_seed, args.first_seed + args.seeds), args.frames)
    folder.mkdir(exist_ok=True)
    path = folder / f"{args.preset}_{args.ues}ues.json"
    path.write_text(json.dumps(result) + "\n")
    print(path, {name: np.round(x, 4).tolist() for name, x in result["episodes"].items()})


if __name__ == "__main__":
    main()
