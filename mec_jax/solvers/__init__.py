"""What needs no learning: published heuristics, exact optima and bounds, one file an environment.

The file of an environment has `rulers(env, params, keys)`, the episodes of all of them by name, with "Random" among
them and the bound or best known policy last; and `COLUMNS`, which measures a table shows.
"""

import importlib
from types import ModuleType
from typing import Any


def solver_of(env: Any) -> ModuleType | None:
    """The file of solvers for an environment; None for one that is not of this suite."""
    package, _, name = type(env).__module__.rpartition(".")
    return importlib.import_module(f"mec_jax.solvers.{name}") if package == "mec_jax.envs" else None
