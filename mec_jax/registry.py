"""Environments by id. An id is written here once; a variant is the same class with other keyword arguments."""

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mec_jax.files import did_you_mean

if TYPE_CHECKING:
    from mec_jax.contracts import Problem

__all__ = ["find", "join_gymnax", "make", "register", "registered_envs", "static_arguments"]

registered_envs: list[str] = []
"""Public environment ids, in order of registration."""


class _Entry(NamedTuple):
    """How to build an environment."""

    constructor: "str | Callable[..., Problem]"
    static: MappingProxyType[str, object]


_entries: dict[str, _Entry] = {}


def find(where: object) -> object:
    """What stands at "module:NAME", imported on first use; anything else than a text is what it is."""
    if not isinstance(where, str):
        return where
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)


def register(env_id: str, constructor: "str | Callable[..., Problem]", **static: object) -> None:
    """Register an environment with `mec_jax.make` and with `gymnax.make`.

    Args:
        env_id: Public id, `Name-v0`.
        constructor: A `Problem` class or a function that returns one, or where it is, "module:NAME".
        **static: Arguments of the constructor that make this variant; they can still be replaced in `make`.

    Raises:
        ValueError: If the id is empty or taken.
    """
    if not env_id or env_id in _entries:
        raise ValueError(f"environment id {env_id!r} is {'taken' if env_id else 'empty'}: choose another")
    _entries[env_id] = _Entry(constructor, MappingProxyType(static))
    registered_envs.append(env_id)
    if "gymnax" in sys.modules:
        join_gymnax()


def make(env_id: str, **static: object) -> tuple[Any, Any]:  # of the classes that the id stands for
    """Build a registered environment.

    Args:
        env_id: One of `registered_envs`.
        **static: Arguments of the environment's constructor: what sets its shapes.

    Returns:
        The environment and its default parameters, whose every number can be replaced, swept and vmapped without
        recompiling.

    Raises:
        ValueError: If there is no such id, an argument does not fit, or it would need more memory than the limit
            (`mec_jax.memory`).
    """
    env = _construct(env_id, static)
    return env, env.default_params


def static_arguments(env_id: str, /, **static: object) -> dict[str, object]:
    """The arguments of a registered environment's constructor, the defaults of those not given included.

    Raises:
        ValueError: If there is no such id or an argument does not fit.
    """
    if env_id not in registered_envs:
        hint = did_you_mean(env_id, registered_envs)
        raise ValueError(f"no environment {env_id!r}: {hint}Registered: {', '.join(registered_envs)}")
    entry = _entries[env_id]
    signature = inspect.signature(_constructor(entry))
    try:
        bound = signature.bind(**{**entry.static, **static})
    except TypeError as error:
        raise ValueError(f"{env_id}: {error}; it takes {signature}") from error
    bound.apply_defaults()
    return dict(bound.arguments)


def _constructor(entry: _Entry) -> "Callable[..., Problem]":
    found = find(entry.constructor)
    assert callable(found)
    return found


def _construct(env_id: str, static: dict[str, object]) -> "Problem":
    from mec_jax.memory import check_problem  # JAX comes with the first environment

    arguments = static_arguments(env_id, **static)
    env = _constructor(_entries[env_id])(**arguments).called(env_id)
    check_problem(env)
    return env


def join_gymnax() -> None:
    """Let `gymnax.make` find all that is registered; called when gymnax is imported."""
    import gymnax

    for env_id in registered_envs:
        if env_id not in gymnax.registered_envs:
            gymnax.register(env_id, functools.partial(_construct_for_gymnax, env_id))


def _construct_for_gymnax(env_id: str, **static: object) -> "Problem":
    return _construct(env_id, static)


register("MultiUEOffloading-v0", "mec_jax.envs.offloading:MultiUEOffloading")
_EXITS = "mec_jax.envs.multi_exit:MultiExitAllocation"
register("MultiExitAllocation-v0", _EXITS)
register("MultiExitAllocation-Video-v0", _EXITS, profile="vgg16_video")
register("MultiExitAllocation-Compressed-v0", _EXITS, profile="vgg16_compressed")
register("MultiExitAllocation-Markov-v0", _EXITS, markov=True)
register("MultiExitAllocation-Video-Markov-v0", _EXITS, profile="vgg16_video", markov=True)
register("MultiExitAllocation-Compressed-Markov-v0", _EXITS, profile="vgg16_compressed", markov=True)
_NEURONS = "mec_jax.envs.neuron_allocation:NeuronAllocation"
register("NeuronAllocation-v0", _NEURONS)
register("NeuronAllocation-Dynamic-v0", _NEURONS, conditions="dynamic")
register("NeuronAllocation-Slots-v0", _NEURONS, conditions="slots")
register("NeuronSharing-v0", "mec_jax.envs.neuron_sharing:NeuronSharing")
register("PartitionGame-v0", "mec_jax.envs.partition_game:PartitionGame")
_COMPRESSED = "mec_jax.envs.compressed_inference:CompressedInference"
register("CompressedInference-v0", _COMPRESSED, predictor="alexnet")
register("CompressedInference-RegNet-v0", _COMPRESSED, network="regnet_x_400mf", predictor="regnet_x_400mf")
register("CompressedInference-Anchored-v0", _COMPRESSED)
register("CompressedInference-Anchored-RegNet-v0", _COMPRESSED, network="regnet_x_400mf")
