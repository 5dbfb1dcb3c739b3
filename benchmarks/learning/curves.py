"""How well the algorithms learn: several seeds in one vmapped program, each task with one file in results/learning.

    python -m benchmarks.learning.curves --only mahppo_fast_MultiUEOffloading-v0_num_ues5   # 5 seeds
    python -m benchmarks.learning.curves --missing   # all of TASKS that are not in results/learning

Curves that share a panel are means over as many episodes: where the others have 4, say `--episodes 4`.

A run is measured as `mec-jax train` does: on the environment's evaluation scenario, MAHPPO by sampled actions, others
by their likeliest ones.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from algos.algorithms import algorithm, make_env
from algos.curves import CURVE_EPISODES
from algos.run_config import as_arrays
from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.contracts import Episodes
from mec_jax.episodes import evaluation_keys, play_episodes

FOLDER = RESULTS / "learning"

EPISODES = 256
"""Of the final evaluation."""


class Task(NamedTuple):
    """What is trained on what."""

    algorithm: str
    preset: str
    env_id: str
    static: dict[str, Any]
    seeds: int
    kept: tuple[str, ...] = ()  # measures that are kept of each episode, for what is said of single scenarios

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
    Task("ppo", "plan", "CompressedInference-v0", {}, 10, kept=("latency", "feasible")),
    Task("ppo", "fast", "CartPole-v1", {}, 10),
    Task("ppo", "continuous", "Pendulum-v1", {}, 10),
)


def train(
    task: Task,
    num_frames: int | None = None,
    episodes: int = CURVE_EPISODES,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Learning curves and final results of the seeds 0, 1, ...

    Args:
        task: What to train.
        num_frames: Environment frames of each run; those of the preset if None.
        episodes: Episodes of each evaluation during training.
        changes: Fields of the preset's `Config` that differ.
    """
    learner = algorithm(task.algorithm)
    env, params = make_env(task.env_id, task.static, {})
    config, hparams, _ = learner.presets[task.preset]
    config = dataclasses.replace(config, **(changes or {}))
    if num_frames is not None:
        length = {"num_frames": num_frames}
        if task.algorithm == "drl_es":
            chunk = config.updates_per_chunk
            frames = learner.make_trainer(env, config).num_frames * chunk // config.num_iterations
            length = {"num_iterations": chunk * max(1, num_frames // frames)}
        config = dataclasses.replace(config, **length)
    if task.preset == "reference":
        config = dataclasses.replace(config, updates_per_chunk=1)  # the authors test after every buffer
    trainer, policy = learner.make_trainer(env, config), learner.make_policy(env, config, learner.deterministic)
    scenario = env.evaluation_params(params)
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
        "curve_episodes": episodes,  # the first of the protocol
        "episodes": {name: np.mean(x, axis=1).tolist() for name, x in final.columns().items()},  # [seed]
        "each": {name: np.asarray(final.measures[name], float).tolist() for name in task.kept},  # [seed, episode]
        "seconds": {"compiling": compiling, "training": training},  # all seeds together, without evaluations
        "config": dataclasses.asdict(config),
        "hparams": {key: float(value) for key, value in dataclasses.asdict(hparams).items()},
        "machine": machine(),
    }


def main(argv: list[str] | None = None) -> None:
    """Train and keep."""
    parser = command_line(__spec__.name, __doc__, FOLDER)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--only", choices=[task.name for task in TASKS], nargs="+", metavar="TASK", help="train these")
    what.add_argument("--missing", action="store_true", help="train all that was not measured yet")
    parser.add_argument("--frames", type=int, help="of each run, instead of the preset's")
    parser.add_argument(
        "--episodes",
        type=int,
        default=CURVE_EPISODES,
        help="of each evaluation during training, as many as the other curves of the problem (default: %(default)s)",
    )
    args = parser.parse_args(argv)
    for task in TASKS:
        path = args.out / f"{task.name}.json"
        if task.name in (args.only or ()) or (args.missing and not path.exists()):
            result = train(task, args.frames, args.episodes)
            write_result(path, json.dumps(result) + "\n")
            print(task.name, np.round(result["episodes"]["episode_return"], 4).tolist(), result["seconds"], flush=True)


if __name__ == "__main__":
    main()
