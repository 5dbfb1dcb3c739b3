"""Trained policies as files that need NumPy alone, and back (`mec_jax.policy_schema` describes the file)."""

import json
import math
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.serialization
import jax
import numpy as np
from jaxtyping import PyTree

from algos.algorithms import algorithm, algorithms
from algos.run_config import RunConfig, as_arrays
from mec_jax.contracts import Network, Problem
from mec_jax.policy import KIND, SCHEMA, load_policy, save_policy


def export_policy(path: Path, run: RunConfig, learned: PyTree, frames: int, score: Mapping[str, Any]) -> None:
    """Write a policy as a file that `mec_jax.policy.load_policy` reads.

    Args:
        path: The file.
        run: How it was trained.
        learned: What the algorithm's `learned` returned.
        frames: Frames it was trained for.
        score: What the file says of its score.

    Raises:
        ValueError: If the file cannot be written.
    """
    env, params = run.make_env()
    found = algorithm(run.algorithm).to_network(env, params, run.config, learned)
    about = {
        "schema": SCHEMA,
        "kind": KIND,
        "env_id": run.env_id,
        "env_static": run.env_static,
        "env_params": flax.serialization.to_state_dict(params),
        **_metadata(env, found),
        "provenance": {
            "algorithm": run.algorithm,
            "preset": run.preset,
            "seed": run.seed,
            "frames": frames,
            "date": time.strftime("%Y-%m-%d"),
            "versions": {name: metadata.version(name) for name in ("mec-jax", "jax", "flax", "numpy")},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
        },
        "score": dict(score),
    }
    save_policy(path, found.arrays, about)


def _metadata(env: Problem, found: Network) -> dict[str, Any]:
    """What the file says of the action, the observation and the network."""
    observation = {
        "size": found.observation_size,
        "blocks": env.table.describe(),
        "normalisation": found.normalisation,
    }
    return {
        "action": found.action,
        "observation": observation,
        "network": dict(found.network),
        "cuts": _cuts(env),
    }


def _cuts(env: Problem) -> dict[str, Any] | None:
    """What the file says of the networks that the actions cut."""
    cuts = env.cuts
    return cuts and {"head": cuts.part, "profiles": [profile._asdict() for profile in cuts.profiles]}


def import_policy(path: Path) -> tuple[RunConfig, PyTree]:
    """The run's environment, and what the algorithm's policy learned, from an exported file.

    Raises:
        ValueError: If it is no policy file of an algorithm of this package.
    """
    policy = load_policy(path)
    about = policy.metadata
    name = about["provenance"].get("algorithm")
    if name not in algorithms():
        raise ValueError(_foreign(path, f"its algorithm is {name!r}, not one of {', '.join(algorithms())}"))
    learner, seen = algorithm(name), about["observation"]
    in_file = Network(policy.arrays, about["action"], seen["size"], about["network"], seen["normalisation"])
    try:
        config, learned = learner.from_network(in_file)
        run = RunConfig(
            algorithm=name,
            env_id=about["env_id"],
            env_static=about["env_static"],
            env_params=about["env_params"],
            preset=about["provenance"]["preset"],
            seed=about["provenance"]["seed"],
            config=config,
            hparams=learner.hparams(),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(_foreign(path, f"no {error}")) from None
    except ValueError as error:
        raise ValueError(_foreign(path, str(error))) from None
    env, params = run.make_env()
    if isinstance(about["cuts"], dict) and about["cuts"] != json.loads(json.dumps(_cuts(env))):
        names = ", ".join(repr(profile["name"]) for profile in about["cuts"]["profiles"])
        raise ValueError(
            f"policy file {str(path)!r} was trained on another profile than the environment has now: bring back that "
            f"of {names}, or train again"
        )
    try:
        trainer = learner.make_trainer(env, config)
        state = jax.eval_shape(trainer.init, as_arrays(run.hparams), params, jax.random.key(0))
        shapes = jax.tree.map(np.shape, (learned, learner.learned(state)))
        if shapes[0] != shapes[1]:
            raise ValueError("they are of other shapes than its networks")
        again = learner.to_network(env, params, config, learned)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(_foreign(path, f"its arrays differ: {error}")) from None
    for part in ("action", "network", "normalisation"):
        if not _same(getattr(again, part), getattr(in_file, part)):
            raise ValueError(_foreign(path, f"its {part} differs"))
    if again.arrays.keys() != policy.arrays.keys() or any(
        not np.array_equal(array, policy.arrays[name]) for name, array in again.arrays.items()
    ):
        raise ValueError(_foreign(path, "its arrays differ"))
    return run, learned


def _foreign(path: Path, why: str) -> str:
    return f"policy file {str(path)!r} is not of this package's trainers ({why}): export one with `mec-jax export`"


def _same(x: Any, y: Any) -> bool:
    """Whether two pieces of metadata agree, numbers to rounding errors."""
    if isinstance(x, Mapping):
        return isinstance(y, Mapping) and x.keys() == y.keys() and all(_same(x[name], y[name]) for name in x)
    if isinstance(x, list | tuple):
        return isinstance(y, list | tuple) and len(x) == len(y) and all(map(_same, x, y))
    if isinstance(x, float) and isinstance(y, int | float):
        return math.isclose(x, y, rel_tol=1e-5)
    return bool(x == y)
