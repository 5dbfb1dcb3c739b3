"""The algorithms by name.

Each is a module with `Config` (static), `HParams` (traced), `PRESETS` by name and `default_preset(env)`, then
`make_trainer(env, config)`, `make_policy(env, config, deterministic)` for `mec_jax.evaluation`, whose parameters are
`(learned(state), env_params)`, and `DETERMINISTIC`: whether it is measured by its likeliest actions or by samples.
`make_trainer` raises a ValueError if algorithm and environment do not fit together.
"""

import importlib
from types import ModuleType
from typing import Any

import mec_jax

ALGORITHMS = ("mahppo", "ppo", "drl_es")


def algorithm(name: str) -> ModuleType:
    """The module of an algorithm.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"no algorithm {name!r}: choose from {', '.join(ALGORITHMS)}")
    return importlib.import_module(f"algos.{name}")


def make_env(env_id: str, static: dict[str, Any], numbers: dict[str, Any]) -> tuple[Any, Any]:
    """Environment and parameters by id: of the suite, or else of gymnax.

    Args:
        env_id: Registered id.
        static: Arguments of its constructor.
        numbers: Fields of its parameters that differ from the defaults.

    Raises:
        ValueError: If there is no such id, or an argument or number does not fit.
    """
    if env_id not in mec_jax.registered_envs:
        import gymnax

        if env_id not in gymnax.registered_envs:
            mec_jax.make(env_id)  # says what there is
        env, params = gymnax.make(env_id, **static)
        if unknown := set(numbers) - set(vars(params)):
            raise ValueError(f"no parameter {', '.join(sorted(unknown))}: choose from {', '.join(vars(params))}")
        return env, params.replace(**numbers)
    env, _ = mec_jax.make(env_id, **static)
    return env, env.params(**numbers)


def scenario_of(env: Any, params: Any) -> Any:
    """Parameters of the evaluation scenario of an environment; of a foreign one those it is trained with."""
    return env.evaluation_params(params) if hasattr(env, "evaluation_params") else params
