"""Exported policies of any algorithm and environment without training: their parameters are random."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from algos.algorithms import algorithm, make_env
from algos.export import export_policy
from algos.normalise import Moments
from algos.run_config import RunConfig, as_arrays
from mec_jax.contracts import Problem


def export_random(
    path: Path,
    name: str,
    env_id: str,
    changes: Mapping[str, Any] | None = None,
    static: Mapping[str, Any] | None = None,
    numbers: Mapping[str, Any] | None = None,
) -> tuple[RunConfig, Any]:
    """Write a policy that decides clearly, but at random.

    Args:
        path: The file.
        name: Of the algorithm.
        env_id: Of the environment.
        changes: Of the algorithm's configuration.
        static: Arguments of the environment's constructor.
        numbers: Of the environment's parameters.

    Returns:
        The run that the file says it is from, and what was learned.
    """
    learner = algorithm(name)
    config = learner.config(**{"trunk": (16, 8), **(changes or {})})
    registered = env_id in mec_jax.registered_envs
    statics = mec_jax.static_arguments(env_id, **(static or {})) if registered else dict(static or {})
    run = RunConfig(name, env_id, statics, dict(numbers or {}), "small", 0, config, learner.hparams())
    env, params = make_env(env_id, statics, dict(numbers or {}))
    learned = random_learned(name, env, params, config)
    export_policy(path, run, learned, frames=0, score={})
    return run, learned


def random_learned(name: str, env: Problem, params: Any, config: Any) -> Any:
    """What the algorithm learns, at random, but of a size that decides clearly."""
    learner = algorithm(name)
    init = learner.make_trainer(env, config).init
    state = jax.eval_shape(init, as_arrays(learner.hparams()), params, jax.random.key(0))
    rng = np.random.default_rng(5)

    def draw(leaf: Any) -> Any:
        if isinstance(leaf, Moments):
            return Moments(draw(leaf.mean), jnp.abs(draw(leaf.var)) + 0.5, jnp.ones(leaf.weight.shape))
        width = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        return jnp.asarray(rng.normal(size=leaf.shape) / max(width, 1) ** 0.5, leaf.dtype)

    return jax.tree.map(draw, learner.learned(state), is_leaf=lambda leaf: isinstance(leaf, Moments))
