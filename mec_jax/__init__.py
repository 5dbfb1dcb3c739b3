"""Collaborative DNN inference at the edge as a suite of pure JAX decision problems.

`make` builds an environment and its parameters. Importing this module imports neither JAX nor an environment, so
that `mec_jax.policy` can drive a device that has NumPy alone.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any

import wrapt

__all__ = ["make", "register", "registered_envs", "static_arguments"]

registered_envs: list[str] = []
"""Public environment ids, in order of registration."""

_entry_points: dict[str, str | Callable[..., Any]] = {}


def register(env_id: str, entry_point: str | Callable[..., Any]) -> None:
    """Register an environment with `mec_jax.make` and, when gymnax is imported, with `gymnax.make`.

    Args:
        env_id: Public id, `Name-v0`.
        entry_point: `module:Class`, imported on first use, or a callable that returns an environment.

    Raises:
        ValueError: If the id is empty or taken.
    """
    if not env_id or env_id in _entry_points:
        raise ValueError(f"environment id {env_id!r} is {'taken' if env_id else 'empty'}: choose another")
    _entry_points[env_id] = entry_point
    registered_envs.append(env_id)

    def register_with_gymnax(gymnax: Any) -> None:
        gymnax.register(env_id, lambda **static: _construct(env_id, static))

    wrapt.register_post_import_hook(register_with_gymnax, "gymnax")


def make(env_id: str, **static: Any) -> tuple[Any, Any]:
    """Build a registered environment.

    Args:
        env_id: One of `registered_envs`.
        **static: Arguments of the environment's constructor: what sets its shapes.

    Returns:
        The environment and its default parameters, whose every number can be replaced, swept and vmapped without
        recompiling.

    Raises:
        ValueError: If there is no such id or an argument does not fit.
    """
    if env_id not in _entry_points:
        close = difflib.get_close_matches(env_id, registered_envs, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"no environment {env_id!r}: {hint}Registered: {', '.join(registered_envs)}")
    env = _construct(env_id, static)
    return env, env.default_params


def static_arguments(env_id: str, **static: Any) -> dict[str, Any]:
    """The arguments of a registered environment's constructor, the defaults of those not given included.

    Raises:
        ValueError: If an argument does not fit.
    """
    signature = inspect.signature(_entry_point(env_id))
    try:
        bound = signature.bind(**static)
    except TypeError as error:
        raise ValueError(f"{env_id}: {error}; it takes {signature}") from error
    bound.apply_defaults()
    return dict(bound.arguments)


def _construct(env_id: str, static: dict[str, Any]) -> Any:
    static_arguments(env_id, **static)
    return _entry_point(env_id)(**static)


def _entry_point(env_id: str) -> Callable[..., Any]:
    entry_point = _entry_points[env_id]
    if isinstance(entry_point, str):
        module, _, name = entry_point.partition(":")
        entry_point = getattr(importlib.import_module(module), name)
    return entry_point


register("MultiUEOffloading-v0", "mec_jax.envs.offloading:MultiUEOffloading")
register("MultiExitAllocation-v0", "mec_jax.envs.multi_exit:MultiExitAllocation")
register("MultiExitAllocation-Video-v0", "mec_jax.envs.multi_exit:video")
register("MultiExitAllocation-Compressed-v0", "mec_jax.envs.multi_exit:compressed")
register("MultiExitAllocation-Markov-v0", "mec_jax.envs.multi_exit:markov")
register("MultiExitAllocation-Video-Markov-v0", "mec_jax.envs.multi_exit:video_markov")
register("MultiExitAllocation-Compressed-Markov-v0", "mec_jax.envs.multi_exit:compressed_markov")
register("NeuronAllocation-v0", "mec_jax.envs.neuron_allocation:NeuronAllocation")
register("NeuronAllocation-Dynamic-v0", "mec_jax.envs.neuron_allocation:dynamic")
register("NeuronAllocation-Slots-v0", "mec_jax.envs.neuron_allocation:slots")
register("NeuronSharing-v0", "mec_jax.envs.neuron_sharing:NeuronSharing")
register("PartitionGame-v0", "mec_jax.envs.partition_game:PartitionGame")
