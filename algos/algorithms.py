"""The algorithms by name (`mec_jax.contracts.Algorithm`), and the problems that they train on."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
from gymnax.environments import environment
from numpy.typing import ArrayLike

from mec_jax.contracts import Algorithm, Problem
from mec_jax.files import check_count, did_you_mean, reason, shown
from mec_jax.interop.foreign import as_problem
from mec_jax.registry import find, make, registered_envs, static_arguments

__all__ = ["algorithm", "algorithms", "make_env", "register_algorithm"]

_ALGORITHMS: dict[str, Algorithm | str] = {
    "mahppo": "algos.mahppo:ALGORITHM",
    "ppo": "algos.ppo:ALGORITHM",
    "drl_es": "algos.drl_es:ALGORITHM",
}


def algorithms() -> tuple[str, ...]:
    """Names, in order of registration."""
    return tuple(_ALGORITHMS)


def register_algorithm(name: str, where: Algorithm | str) -> None:
    """Register an algorithm for the trainers' host loop and `mec-jax`.

    Args:
        name: Its name.
        where: The algorithm, or where it is, "module:NAME", imported on first use.

    Raises:
        ValueError: If the name is empty or taken.
    """
    if not name or name in _ALGORITHMS:
        raise ValueError(f"algorithm name {name!r} is {'taken' if name else 'empty'}: choose another")
    _ALGORITHMS[name] = where


def algorithm(name: str) -> Algorithm:
    """An algorithm by name.

    Raises:
        ValueError: If there is none of that name.
        TypeError: If what is registered is no algorithm.
    """
    if name not in _ALGORITHMS:
        hint = did_you_mean(name, _ALGORITHMS)
        raise ValueError(f"no algorithm {name!r}: {hint}choose from {', '.join(_ALGORITHMS)}")
    found = find(_ALGORITHMS[name])
    if not isinstance(found, Algorithm):
        raise TypeError(f"{name!r} is registered as {found!r}: it must be a mec_jax.contracts.Algorithm")
    return found


def make_env(env_id: str, static: Mapping[str, object], numbers: Mapping[str, ArrayLike]) -> tuple[Problem, Any]:
    """Problem and parameters by id: of the suite, or else of gymnax.

    Args:
        env_id: Registered id.
        static: Arguments of its constructor.
        numbers: Fields of its parameters that differ from the defaults.

    Raises:
        ValueError: If there is no such id, or an argument or number does not fit.
    """
    if env_id in registered_envs:
        env, _ = make(env_id, **static_arguments(env_id, **static))
    else:
        import gymnax

        if env_id not in gymnax.registered_envs:
            make(env_id)  # says what there is
        env = as_problem(_make_foreign(env_id, static)).called(env_id)
    return env, env.params(**numbers)


def _make_foreign(env_id: str, static: Mapping[str, Any]) -> environment.Environment:
    """An environment of gymnax. Its constructors check nothing, so it is also traced once if arguments are given.

    Raises:
        ValueError: If there is no such argument, or the environment can't be played with it.
    """
    import gymnax

    default, _ = gymnax.make(env_id)
    if not static:
        return default
    known = {name: about.default for name, about in inspect.signature(type(default)).parameters.items()}
    for name, value in static.items():
        if name not in known:
            raise ValueError(f"{env_id} has no argument {name!r}: {did_you_mean(name, known)}it takes {known}")
        if isinstance(known[name], bool) and not isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value)}: it must be true or false")
        if type(known[name]) is int:
            check_count(name, value, 0)
    try:
        env, params = gymnax.make(env_id, **static)
        key = jax.random.key(0)
        _, state = jax.eval_shape(env.reset, key, params)
        jax.eval_shape(env.step, key, state, env.action_space(params).sample(key), params)
    except Exception as error:
        given = ", ".join(f"{name} {shown(value)}" for name, value in static.items())
        raise ValueError(f"{env_id} can't be played with {given} ({type(error).__name__}: {reason(error)})") from None
    return env
