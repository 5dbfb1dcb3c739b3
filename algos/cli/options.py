"""What is read of the arguments before there are commands."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mec_jax.files import read_text


def option(arguments: Sequence[str], name: str) -> str | None:
    """What an option is given, if it is there."""
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def share_cores(arguments: Sequence[str]) -> None:
    """Make devices of a CPU's cores, as many as the run to be trained has use for: JAX makes one of all when it starts,
    as the import of gymnax has it do. If XLA_FLAGS says how many, it stays with that.
    """
    if not arguments or arguments[0] != "train" or "host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    folder = option(arguments, "--resume")
    # What is wrong is said later; and JAX may have started, where `main` is called by other than `mec-jax`.
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError):
        if folder is None:
            count = int(option(arguments, "--devices") or 1)
        else:
            count = int(json.loads(read_text(Path(folder) / "config.json", 2**20)).get("devices", 1))
        if count > 1:
            import jax

            jax.config.update("jax_num_cpu_devices", min(count, os.cpu_count() or 1))
