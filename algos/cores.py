"""A CPU's cores as JAX's devices. Imports nothing that starts JAX, as it takes them for one device when it starts."""

import os

import jax

__all__ = ["cores", "share_cores"]


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(count: int | None = None) -> None:
    """Make devices of the cores, all by default. If XLA_FLAGS says how many, it stays with that.

    Call it before anything that starts JAX, such as the import of gymnax or of an environment.

    Raises:
        RuntimeError: If JAX has started with another number.
    """
    if "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    wanted = min(count or cores(), cores())
    try:
        jax.config.update("jax_num_cpu_devices", wanted)
    except RuntimeError:
        if len(jax.devices("cpu")) != wanted:
            raise
