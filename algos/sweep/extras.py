"""Packages of the extra `sweep`, imported where they are needed."""

import importlib
from types import ModuleType

__all__ = ["has", "needs"]


def has(package: str) -> bool:
    """Whether it can be imported."""
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def needs(package: str, what: str) -> ModuleType:
    """The package.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        found = importlib.import_module(package)
    except ImportError:
        raise ValueError(f"{what} needs {package}: pip install 'mec-jax[sweep]'") from None
    if package == "optuna":
        found.logging.set_verbosity(found.logging.ERROR)
    return found
