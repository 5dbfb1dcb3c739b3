"""What is read of the arguments before there are commands."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mec_jax.files import read_text


def option(arguments: Sequence[str], name: str) -> str | None:
    """What is given for an option."""
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def options(arguments: Sequence[str]) -> list[str]:
    """Names of the options that are given, but for those that go with any."""
    names = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return [name for name in names if name not in ("--help", "--cache", "--no-cache")]


HOSTS = ("--coordinator", "--processes", "--process")
"""Options of a process that trains together with others."""


def check_alone(arguments: Sequence[str], name: str, source: str, beside: Sequence[str] = ()) -> None:
    """Refuse an option that takes all from somewhere, with others that say otherwise.

    Args:
        arguments: Of the process.
        name: The option.
        source: What says all, as an error calls it.
        beside: Options that say nothing of that.

    Raises:
        ValueError: If there are any.
    """
    names = options(arguments)
    others = [other for other in names if other not in (name, *beside)]
    if name in names and others:
        raise ValueError(f"{name} takes all from {source}: leave out {', '.join(others)}")


def devices_for(arguments: Sequence[str]) -> None:
    """Make devices of a CPU's cores: for a sweep all, for training as many as the run shares."""
    # What is wrong is said later; and JAX may have started, where `main` is called by other than `mec-jax`.
    with suppress(OSError, ValueError, TypeError, AttributeError, RecursionError, RuntimeError):
        command = arguments[0] if arguments else ""
        count = None if command == "sweep" else _shared(arguments) if command == "train" else 1
        if count is not None:
            count = max(count // max(int(option(arguments, "--processes") or 1), 1), 1)
        if count != 1:
            from algos.cores import share_cores

            share_cores(count)


def _shared(arguments: Sequence[str]) -> int:
    """Devices that the run to be trained shares."""
    folder, source = option(arguments, "--resume"), option(arguments, "--from")
    if (given := option(arguments, "--devices")) is not None:
        return int(given)
    file = Path(folder) / "config.json" if folder is not None else source
    return 1 if file is None else int(json.loads(read_text(file, 2**20)).get("devices", 1))
