"""A `train` process that trains together with others: its options, and how it ends when one of them does."""

import atexit
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

from algos.cli import stop
from algos.cli.arguments import HOSTS, option

_said = ""


def join(arguments: Sequence[str]) -> None:
    """Do so, if the options say it: wait for the others. Before that, what is wrong with the options is said.

    Raises:
        ValueError: If an option is missing or out of its range, or the first process can't listen.
    """
    global _said
    given = {name: option(arguments, name) for name in HOSTS}
    asks = {"-h", "--help"} & {*arguments}
    if arguments[:1] != ["train"] or asks or all(value is None for value in given.values()):
        return
    devices = option(arguments, "--devices")
    if devices is None and all(option(arguments, name) is None for name in ("--resume", "--from")):
        given["--devices"] = None
    coordinator, processes, process = _checked(given, devices)
    from algos import hosts

    _quiet()
    _said = hosts.not_found(coordinator, processes)
    hosts.on_abort(lambda: _die(_said))
    hosts.join(coordinator, processes, process)
    _said = hosts.LOST
    atexit.register(leave, 1)  # of a traceback; before JAX's own, which waits


def leave(code: Any) -> None:
    """End one process of several at once with this code: in the orderly way it would wait for the others."""
    jax = sys.modules.get("jax")  # importing it takes long
    if jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def _checked(given: dict[str, str | None], devices: str | None) -> tuple[str, int, int]:
    """HOST:PORT, number of processes, and which this is."""
    if missing := [name for name, value in given.items() if value is None]:
        raise ValueError(f"{', '.join(HOSTS)} and --devices go together: {' and '.join(missing)} missing")
    coordinator, *numbers = (str(value) for value in given.values())
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator is {coordinator!r}: name HOST:PORT, the first process's host and a free port")
    for name, number in zip(HOSTS[1:], numbers, strict=True):
        if not (number.isascii() and number.isdecimal()) or len(number) > 5:
            raise ValueError(f"{name} is {number!r}: give a whole number")
    processes, process = map(int, numbers)
    if processes < 2:
        raise ValueError(f"--processes is {processes}: several are 2 or more, and one needs no {', '.join(HOSTS)}")
    if process >= processes:
        raise ValueError(f"--process is {process}: of {processes} it is from 0 to {processes - 1}")
    if devices is not None and devices.isdecimal() and (int(devices) % processes or devices == "0"):
        raise ValueError(f"--devices is {devices}: {processes} processes share a multiple of {processes}")
    return coordinator, processes, process


def _quiet() -> None:
    """Python alone writes from here on: what libraries say of lost connections is for their developers."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    own = [os.dup(number) for number in (1, 2)]
    for name, number, descriptor in zip(("stdout", "stderr"), (1, 2), own, strict=True):
        setattr(sys, name, open(descriptor, "w", buffering=1, errors="backslashreplace"))  # noqa: SIM115, for good
        os.dup2(nowhere, number)
    stop.write_to(*own)
    logging.basicConfig(format="mec-jax: %(message)s", force=True)


def _die(text: str) -> None:
    os.write(sys.stderr.fileno(), f"mec-jax: {text}\n".encode())
    os._exit(2)
