"""How well the algorithms learn: several seeds in one vmapped program, and a leaderboard of all that was measured.

    python benchmarks/learning.py --only mahppo_fast_MultiUEOffloading-v0_num_ues5   # train 5 seeds, keep the result
    python benchmarks/learning.py --missing                     # train all of TASKS that are not in results/learning
    python benchmarks/learning.py                               # leaderboard and curves of all that is there

A run is measured as `mec-jax train` does: on the environment's evaluation scenario, MAHPPO by sampled actions, others
by their likeliest ones. Scores are interquartile means over seeds; intervals are 95 % bootstrap intervals over seeds.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

if __name__ == "__main__" and not __package__:  # run as a file: find the package beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from algos.algorithms import algorithm, make_env, scenario_of
from algos.runs import as_arrays
from benchmarks.machine import machine
from mec_jax.evaluation import (
    Episodes,
    Report,
    bootstrap_interval,
    compare,
    evaluation_keys,
    interquartile_mean,
    play_episodes,
)

RESULTS = Path(__file__).parent / "results"

EPISODES = 256
"""Of the final evaluation."""

LAST_TESTS = 30
"""Evaluations whose mean is compared with the recorded runs."""

RECORDED = {5: (-0.59, -0.88, -0.93), 3: (-0.49,)}
"""Runs of the authors' code by UEs: mean return of the last 30 tests near 300 000 frames, one episode a test."""


class Task(NamedTuple):
    """What is trained on what."""

    algorithm: str
    preset: str
    env_id: str
    static: dict[str, Any]
    seeds: int

    @property
    def name(self) -> str:
        """Of its file."""
        static = "".join(f"_{key}{value}" for key, value in self.static.items())
        return f"{self.algorithm}_{self.preset}_{self.env_id}{static}"


_ES = ("slots", "slots_drl")
TASKS = (
    *(Task("mahppo", "fast", "MultiUEOffloading-v0", {"num_ues": n}, 5) for n in (3, 5, 10)),
    *(Task("mahppo", "reference", "MultiUEOffloading-v0", {"num_ues": n}, 5) for n in (3, 5)),
    *(Task("ppo", "hybrid", "MultiUEOffloading-v0", {"num_ues": n}, 5) for n in (3, 5)),
    *(Task("ppo", "bandit", f"MultiExitAllocation{variant}-v0", {}, 10) for variant in ("", "-Video", "-Compressed")),
    *(Task("ppo", "markov", f"MultiExitAllocation{v}-Markov-v0", {}, 5) for v in ("", "-Video", "-Compressed")),
    *(Task("drl_es", preset, f"NeuronAllocation{v}-v0", {}, 10) for v in ("", "-Dynamic") for preset in _ES),
    Task("drl_es", "crowd", "NeuronAllocation-Slots-v0", {}, 10),
    Task("drl_es", "sharing", "NeuronSharing-v0", {}, 10),
    Task("ppo", "game", "PartitionGame-v0", {}, 10),
    Task("ppo", "fast", "CartPole-v1", {}, 10),
    Task("ppo", "continuous", "Pendulum-v1", {}, 10),
)


def train(task: Task, num_frames: int | None = None, episodes: int = 16) -> dict[str, Any]:
    """Learning curves and final results of the seeds 0, 1, ...

    Args:
        task: What to train.
        num_frames: Environment frames of each run; those of the preset if None.
        episodes: Episodes of each evaluation during training.
    """
    learner = algorithm(task.algorithm)
    env, params = make_env(task.env_id, task.static, {})
    config, hparams = learner.PRESETS[task.preset]
    if num_frames is not None:
        length = {"num_frames": num_frames}
        if task.algorithm == "drl_es":
            chunk = config.updates_per_chunk
            frames = learner.make_trainer(env, config).num_frames * chunk // config.num_iterations
            length = {"num_iterations": chunk * max(1, num_frames // frames)}
        config = dataclasses.replace(config, **length)
    if task.preset == "reference":
        config = dataclasses.replace(config, updates_per_chunk=1)  # the authors test after every buffer
    trainer, policy = learner.make_trainer(env, config), learner.make_policy(env, config, learner.DETERMINISTIC)
    scenario = scenario_of(env, params)
    keys = jax.vmap(jax.random.key)(jnp.arange(task.seeds))
    state = jax.jit(jax.vmap(trainer.init, (None, None, 0)))(as_arrays(hparams), params, keys)
    begin = time.perf_counter()
    run = jax.jit(jax.vmap(trainer.run, (0, None, None))).lower(state, as_arrays(hparams), params).compile()
    compiling = time.perf_counter() - begin

    @jax.jit
    def evaluate(learned: Any, keys: jax.Array) -> Episodes:
        return jax.vmap(lambda one: play_episodes(env, scenario, policy, (one, scenario), keys))(learned)

    curve, frames, training = [], [], 0.0
    for _ in range(trainer.num_chunks):
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(run(state, as_arrays(hparams), params))
        training += time.perf_counter() - begin
        curve.append(np.mean(evaluate(learner.learned(state), evaluation_keys(episodes)).episode_return, axis=1))
        frames.append(int(metrics.frames[0, -1]))
    final = evaluate(learner.learned(state), evaluation_keys(EPISODES))
    return {
        **task._asdict(),
        "frames": frames,
        "curve": np.stack(curve, axis=1).tolist(),  # [seed, chunk]
        "episodes": {name: np.mean(x, axis=1).tolist() for name, x in final.columns().items()},  # [seed]
        "seconds": {"compiling": compiling, "training": training},  # all seeds together, without evaluations
        "config": dataclasses.asdict(config),
        "hparams": {key: float(value) for key, value in dataclasses.asdict(hparams).items()},
        "machine": machine(),
    }


def per_seed(run: dict[str, Any]) -> list[Episodes]:
    """The means of each seed, as the episode they stand for."""
    rows = [{name: jnp.asarray([values[i]]) for name, values in run["episodes"].items()} for i in range(run["seeds"])]
    return [Episodes(row.pop("episode_return"), row.pop("frames"), row.pop("terminated"), row) for row in rows]


def title(run: dict[str, Any]) -> str:
    """Environment and its constructor's arguments."""
    return ", ".join([run["env_id"], *(f"{name} {value}" for name, value in run["static"].items())])


def label(run: dict[str, Any]) -> str:
    """Algorithm and preset."""
    return f"{run['algorithm'].upper().replace('_', '-')}, {run['preset']}"


def notes(run: dict[str, Any], found: Report) -> list[str]:
    """What the table does not say of a run."""
    returns, seconds, about = run["episodes"]["episode_return"], run["seconds"], run["machine"]
    took = f" in {seconds['training']:.0f} s, after {seconds['compiling']:.0f} s of compiling," if seconds else ""
    low, high = bootstrap_interval(np.array(returns))
    lines = [
        f"- {label(run)}: seeds 0 to {run['seeds'] - 1} for {run['frames'][-1]} frames each, all at once,{took} on "
        f"{about['cpu']}, {about['cores']} cores; returns {', '.join(f'{x:.3f}' for x in returns)}; interquartile mean "
        f"{interquartile_mean(returns):.3f} [{low:.3f}, {high:.3f}]."
    ]
    ruler = list(found.rows)[-1]
    bound = found.rows[ruler]["return"]
    if run["env_id"].startswith("MultiExit"):
        excess = np.array(returns) / bound - 1
        lines.append(f"- Its cost exceeds that of {ruler} by {excess.mean():.2%}, at most {excess.max():.2%}.")
    if run["preset"] == "reference":
        recorded = RECORDED[run["static"]["num_ues"]]
        last = np.asarray(run["curve"])[:, -LAST_TESTS:].mean(axis=1)
        low, high = bootstrap_interval(last, statistic=np.mean)
        lines.append(
            f"- Mean return of its last {LAST_TESTS} tests by seed: {', '.join(f'{x:.2f}' for x in last)}; mean "
            f"{last.mean():.2f} [{low:.2f}, {high:.2f}]. The authors' code, recorded runs: "
            f"{', '.join(f'{x:.2f}' for x in recorded)}."
        )
    return lines


def report(folder: Path) -> None:
    """Write `leaderboard.md`, `leaderboard.json` and `learning.png` from the runs in `folder`."""
    from matplotlib.figure import Figure

    names = [task.name for task in TASKS]
    files = sorted(folder.glob("*.json"), key=lambda path: names.index(path.stem))
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in (json.loads(path.read_text()) for path in files):
        groups.setdefault(title(run), []).append(run)
    lines = ["# Leaderboard", "", *(__doc__ or "").strip().splitlines()[-3:], ""]
    columns = 3
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.4 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    results, keys = {}, evaluation_keys(EPISODES)
    for name, runs in groups.items():
        env, params = make_env(runs[0]["env_id"], runs[0]["static"], {})
        found = compare(env, scenario_of(env, params), {label(run): per_seed(run) for run in runs}, keys)
        results[name] = found.rows
        lines += [f"## {name}", "", *found.table(), "", *(line for run in runs for line in notes(run, found)), ""]
        draw(next(axes), name, runs, found)
    for unused in axes:
        unused.set_axis_off()
    (RESULTS / "leaderboard.md").write_text("\n".join(lines))
    (RESULTS / "leaderboard.json").write_text(json.dumps(results, indent=1) + "\n")
    figure.savefig(RESULTS / "learning.png", dpi=100)


def draw(axes: Any, name: str, runs: list[dict[str, Any]], found: Report) -> None:
    """Learning curves with the range of the seeds, and the best three rulers."""
    lowest = 0.0
    for run in runs:
        curve = np.asarray(run["curve"])
        (line,) = axes.plot(run["frames"], curve.mean(axis=0), label=label(run))
        axes.fill_between(run["frames"], curve.min(axis=0), curve.max(axis=0), alpha=0.2, color=line.get_color())
        lowest = min(lowest, curve.mean(axis=0).min())
        if run["preset"] == "reference":
            recorded = RECORDED[run["static"]["num_ues"]]
            axes.axhspan(min(recorded) - 0.005, max(recorded) + 0.005, color="0.85", zorder=0)
    rulers = sorted((row["return"], ruler) for ruler, row in found.rows.items() if row["runs"] == 1)[-3:]
    for i, (value, ruler) in enumerate(rulers):
        axes.axhline(value, color=f"C{len(runs) + i}", linestyle="--", linewidth=1, label=ruler)
    if rulers:
        top, bottom = rulers[-1][0], min(value for value, _ in rulers)
        axes.set_ylim(max(lowest, bottom - 3 * (abs(top) + top - bottom)), top + 0.1 * abs(top))
    axes.set_title(name, fontsize="medium")
    axes.set_xlabel("environment frames")
    axes.set_ylabel("return (mean and range)")
    axes.legend(loc="lower right", fontsize="small")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[task.name for task in TASKS], nargs="+", metavar="TASK", help="train these")
    parser.add_argument("--missing", action="store_true", help="train all that was not measured yet")
    parser.add_argument("--frames", type=int, help="of each run, instead of the preset's")
    args = parser.parse_args()
    folder = RESULTS / "learning"
    folder.mkdir(exist_ok=True)
    for task in TASKS:
        path = folder / f"{task.name}.json"
        if task.name in (args.only or ()) or (args.missing and not path.exists()):
            result = train(task, args.frames)
            path.write_text(json.dumps(result) + "\n")
            print(task.name, np.round(result["episodes"]["episode_return"], 4).tolist(), result["seconds"], flush=True)
    if not args.only:
        report(folder)


if __name__ == "__main__":
    main()
