"""Collaborative DNN inference at the edge as a suite of pure JAX decision problems.

`make` builds an environment and its parameters. Importing this package imports neither JAX nor an environment, so that
`mec_jax.policy` can drive a device that has NumPy alone.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mec_jax.registry import make, register, registered_envs, static_arguments

__all__ = ["make", "register", "registered_envs", "static_arguments"]

try:
    import wrapt
except ModuleNotFoundError:
    pass  # a device with NumPy alone
else:
    # `gymnax.make` finds the environments of the suite, too.
    wrapt.register_post_import_hook(lambda gymnax: import_module("mec_jax.registry").join_gymnax(), "gymnax")


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("mec_jax.registry"), name)
    raise AttributeError(f"module 'mec_jax' has no attribute {name!r}")
