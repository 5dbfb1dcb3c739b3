"""The algorithms by name (`mec_jax.contracts.Algorithm`), and the problems that they train on."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import ArrayLike

from mec_jax.contracts import Algorithm, Problem
from mec_jax.files import did_you_mean
from mec_jax.interop.foreign import as_problem
from mec_jax.registry import find, make, registered_envs

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
        env, _ = make(env_id, **static)
    else:
        import gymnax

        if env_id not in gymnax.registered_envs:
            make(env_id)  # says what there is
        env = as_problem(gymnax.make(env_id, **static)[0]).called(env_id)
    return env, env.params(**numbers)
