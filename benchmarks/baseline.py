"""What the code computed at one commit, so that later ones can be held against it (tests/test_baseline.py).

    python -m benchmarks.baseline            # writes tests/data/baseline

Traces of every environment, parameters of every trainer on every family after three updates, the policies exported
from them, and the return of every ruler in every environment of the leaderboard.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

import mec_jax
from algos.algorithms import algorithm
from algos.export import export_policy
from algos.run_config import RunConfig, as_arrays
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import solver_of
from mec_jax.policy import load_policy
from mec_jax.solvers.offloading import lower_bounds

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "data" / "baseline"

LANES, STEPS = 2, 24
"""Of a trace."""

EPISODES = 16
"""Of a ruler."""

FAMILIES: dict[str, dict[str, Any]] = {
    "MultiUEOffloading-v0": {"num_ues": 3},
    "MultiExitAllocation-v0": {},
    "MultiExitAllocation-Compressed-Markov-v0": {},
    "NeuronAllocation-v0": {},
    "NeuronSharing-v0": {},
    "PartitionGame-v0": {},
}
"""One environment of each kind, with its statics."""

OFFLOADING_UES = (3, 5, 10)
"""Sizes of the leaderboard."""


CHAOTIC = "MultiUEOffloading-v0"
"""There a rounding error grows up to a thousandfold a frame: on another machine, long episodes are others. So episodes
of training are short, and so are traces, in float64."""


def trace(env_id: str) -> dict[str, np.ndarray]:
    """Observations [lane, step, observation], rewards and ends of `env.step` with random actions."""
    lanes, steps = (LANES * STEPS // 2, 2) if env_id == CHAOTIC else (LANES, STEPS)

    def lane(key: jax.Array) -> tuple[jax.Array, ...]:
        reset_key, key = jax.random.split(key)
        _, state = env.reset(reset_key, params)

        def step(state: Any, key: jax.Array) -> tuple[Any, tuple[jax.Array, ...]]:
            action_key, step_key = jax.random.split(key)
            action = env.action_space(params).sample(action_key)
            observation, state, reward, terminated, truncated, _ = env.step(step_key, state, action, params)
            return state, (observation, reward, terminated, truncated)

        return jax.lax.scan(step, state, jax.random.split(key, steps))[1]

    with jax.enable_x64(env_id == CHAOTIC):
        env, params = mec_jax.make(env_id)
        found = jax.jit(jax.vmap(lane))(jax.random.split(jax.random.key(13), lanes))
    return dict(zip(("observation", "reward", "terminated", "truncated"), map(np.asarray, found), strict=True))


def small_runs() -> list[RunConfig]:
    """A run of three updates of every trainer on every family that it fits.

    Adam's epsilon is large, so that a gradient near 0 moves its parameter by little: another machine's rounding errors
    stay rounding errors.
    """
    ppo, drl_es, mahppo = (algorithm(name) for name in ("ppo", "drl_es", "mahppo"))
    runs = []

    def add(learner: Any, env_id: str, preset: str, config: dict[str, Any]) -> None:
        static, hparams = dict(FAMILIES[env_id]), learner.hparams(adam_eps=1e-2)
        params = {"max_steps_in_episode": 2} if env_id == CHAOTIC else {}
        runs.append(RunConfig(learner.name, env_id, static, params, preset, 0, learner.config(**config), hparams))

    critics: dict[str, Any] = {
        "num_frames": 96,
        "num_envs": 4,
        "rollout": 8,
        "epochs": 2,
        "minibatches": 2,
        "updates_per_chunk": 1,
    }
    critics |= {"trunk": (8,), "critic": (8,)}
    counts = {"num_iterations": 3, "children": 2, "fitness_episodes": 2, "starts": 2, "episodes": 2, "horizon": 12}
    for env_id in FAMILIES:
        slots = env_id.startswith("Neuron")
        add(ppo, env_id, "small", {**critics, "per_slot": slots})
        es = {**counts, "updates_per_chunk": 1, "trunk": (8,), "per_slot": slots, "normalise_observation": not slots}
        add(drl_es, env_id, "small", es)
    for inputs in ("state", "hinges"):
        add(mahppo, "MultiUEOffloading-v0", inputs, {**critics, "head": 4, "inputs": inputs})
    return runs


def run_name(run: RunConfig) -> str:
    """Of its file."""
    return f"{run.algorithm}_{run.preset}_{run.env_id}"


def trained(run: RunConfig) -> tuple[Any, int]:
    """What the run's policy learned in three updates, and frames."""
    env, params = run.make_env()
    learner = algorithm(run.algorithm)
    trainer = learner.make_trainer(env, run.config)
    state, _ = jax.jit(trainer.train)(as_arrays(run.hparams), params, jax.random.key(run.seed))
    return learner.learned(state), trainer.num_frames


def flattened(learned: Any) -> dict[str, np.ndarray]:
    """Arrays by path."""
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(learned)}


def decisions(file: Path, num: int = 8) -> dict[str, np.ndarray]:
    """What an exported policy decides on random observations."""
    policy = load_policy(file)
    size = policy.metadata["observation"]["size"]
    observations = np.random.default_rng(5).uniform(0, 1, (num, size)).astype(np.float32)
    said = policy.distribution(observations)
    return {f"{name}/{field}": getattr(part, field) for name, part in said.items() for field in part._fields}


def rulers(env_id: str, static: dict[str, Any]) -> dict[str, list[float]]:
    """Returns of all rulers in the episodes of the protocol, by name."""
    env, params = mec_jax.make(env_id, **static)
    solver = solver_of(env)
    assert solver is not None
    played = solver.rulers(env, env.evaluation_params(params), evaluation_keys(EPISODES)).episodes
    return {name: np.asarray(episodes.episode_return, float).tolist() for name, episodes in played.items()}


def leaderboard_ids() -> list[tuple[str, dict[str, Any]]]:
    """Environments of the leaderboard."""
    others: list[tuple[str, dict[str, Any]]] = [
        (env_id, {}) for env_id in mec_jax.registered_envs if env_id != "MultiUEOffloading-v0"
    ]
    return [*(("MultiUEOffloading-v0", {"num_ues": n}) for n in OFFLOADING_UES), *others]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    arrays = {f"{env_id}/{name}": x for env_id in mec_jax.registered_envs for name, x in trace(env_id).items()}
    np.savez_compressed(FOLDER / "traces.npz", **arrays)  # type: ignore[arg-type]
    parameters: dict[str, np.ndarray] = {}
    for run in small_runs():
        learned, frames = trained(run)
        name = run_name(run)
        parameters |= {f"{name}{path}": x for path, x in flattened(learned).items()}
        export_policy(FOLDER / f"{name}.npz", run, learned, frames, {})
        parameters |= {f"{name}/decision/{part}": x for part, x in decisions(FOLDER / f"{name}.npz").items()}
        print(name, flush=True)
    np.savez_compressed(FOLDER / "parameters.npz", **parameters)  # type: ignore[arg-type]
    found = []
    for env_id, static in leaderboard_ids():
        returns = rulers(env_id, static)
        found.append({"env_id": env_id, "static": static, "returns": returns})
        if env_id == "MultiUEOffloading-v0":
            env, params = mec_jax.make(env_id, **static)
            found[-1]["lower_bounds"] = lower_bounds(env, env.evaluation_params(params))._asdict()
        print(env_id, static, flush=True)
    (FOLDER / "rulers.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
