"""Recordings and charts of episodes: two files a problem, whose environment declares the chart.

Importing this package imports neither JAX nor matplotlib, so that a path can be checked before either is needed.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mec_jax.render.pictures import PICTURES, check_path

if TYPE_CHECKING:
    from mec_jax.render.offloading import animate_episode, draw_episode, write_episode
    from mec_jax.render.offloading_recording import Recording, record_episode

__all__ = [
    "PICTURES",
    "Recording",
    "animate_episode",
    "check_path",
    "draw_episode",
    "record_episode",
    "write_episode",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("mec_jax.render.offloading"), name)
    raise AttributeError(f"module 'mec_jax.render' has no attribute {name!r}")
