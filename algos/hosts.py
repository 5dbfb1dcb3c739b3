"""One run on the devices of several processes, of one machine or of several: each is called a process, the first leads.

All run the same chunks. The first alone evaluates, writes and prints; the others take from it what is run and where it
begins, so that they need no common folder. What connects them is `jax.distributed`; on CPUs gloo adds up.

`mec-jax train --coordinator` does it; in a script

    hosts.join("first-host:4567", 2, process)
    from algos import loop, run_config, runs  # they start JAX's devices: not before

    run = dataclasses.replace(run_config.new_run("ppo", "CartPole-v1"), devices=2)
    loop.train(run, runs.RunFolder(path, run) if hosts.leads() else None, print)
    hosts.part()

It is for runs that one host can't hold. On two cores that others kept busy, two processes of one device had 0.12 times
the speed of one process with both in the median chunk (PPO, CartPole-v1, 256 environments), and 0.17 times
(MultiUEOffloading-v0, 128), measured once: each step of a gradient waits for a message. A real network is not measured.

Whoever reaches the coordinator's port can join: the hosts' network is their own.

Of a process that ends the others learn in the next chunk; or, while they compute nothing together, from the coordinator
within `SILENCE`: JAX then aborts the process, of which `on_abort` makes a line.
"""

import contextlib
import ctypes
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

FOUND = 120
"""Seconds within which all processes must have started."""

SILENCE = 30
"""Seconds after which a process that says nothing counts as ended."""

LONGEST = 10 * 24 * 3600
"""Seconds that the others wait for the first at the end, while it evaluates and writes: as good as no limit."""

LOST = "another process of the run has ended or can't be reached: start all again, the first with --resume if it can"

_handlers: list[Any] = []  # of `on_abort`, as long as the process lives: C keeps no reference


def not_found(coordinator: str, processes: int) -> str:
    """What is said if the processes are not all there in time."""
    return (
        f"the {processes} processes of the run did not all come to {coordinator} within {FOUND} s: start each, "
        "with its own --process, and let --coordinator name the first one's host and a free port there"
    )


def join(coordinator: str, processes: int, process: int) -> None:
    """Wait for the other processes. Call it before anything that starts JAX's devices.

    Args:
        coordinator: HOST:PORT of the first process, which listens there.
        processes: Their number.
        process: Which this one is, from 0 on.

    Raises:
        ValueError: If the first one can't listen there. If they do not all come, JAX aborts the process: `on_abort`.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM ends a run
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            cluster_detection_method="deactivate",
            initialization_timeout=FOUND,
            heartbeat_timeout_seconds=SILENCE,
            shutdown_timeout_seconds=LONGEST,
        )
    except RuntimeError:
        raise ValueError(
            f"the first process can't listen at {coordinator}: name another port with --coordinator"
        ) from None


def on_abort(act: Callable[[], None]) -> None:
    """What is done when a library aborts the process. It must end it.

    Python's own handlers only take note of the signal, and come too late.
    """
    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: act())
    _handlers.append(handler)
    ctypes.CDLL(None).signal(int(signal.SIGABRT), handler)


def leads() -> bool:
    """Whether this process is the first; a process alone is."""
    return bool(jax.process_index() == 0)


def from_first(arrays: PyTree) -> Any:
    """Arrays as the first process has them, bit for bit; a process alone has its own. All call it, with equal shapes.

    Raises:
        ValueError: If a process has ended, or has other devices than this one.
    """
    if jax.process_count() == 1:
        return arrays
    leaves, structure = jax.tree.flatten(plain(arrays))
    sent = _sent(b"".join(x.tobytes() for x in leaves))
    ends = np.cumsum([x.nbytes for x in leaves])[:-1]
    parts = zip(np.split(np.frombuffer(sent, np.uint8), ends), leaves, strict=True)
    return typed(arrays, jax.tree.unflatten(structure, [part.view(x.dtype).reshape(x.shape) for part, x in parts]))


def text_from_first(text: str) -> str:
    """A text as the first process has it; what the others say is of no account. Errors as `from_first`."""
    if jax.process_count() == 1:
        return text
    written = text.encode()
    size = int.from_bytes(_sent(len(written).to_bytes(8)))
    return _sent(written if leads() else bytes(size)).decode()


def _sent(written: bytes) -> bytes:
    """What the first process has; the others as much of anything."""
    from jax.experimental import multihost_utils

    owned = Counter(device.process_index for device in jax.devices())
    if len(counts := {*owned.values()}) > 1:
        raise ValueError(
            f"the processes of the run have {min(counts)} to {max(counts)} devices: give all one --devices"
        )
    with together():
        return np.asarray(multihost_utils.broadcast_one_to_all(np.frombuffer(written, np.uint8)), np.uint8).tobytes()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What fails in a program that several processes run fails because one of them has ended.

    Raises:
        ValueError: If it does.
    """
    try:
        yield
    except (ValueError, RuntimeError):
        if jax.process_count() == 1:
            raise
        raise ValueError(LOST) from None


def waited(arrays: PyTree) -> Any:
    """Arrays, when all processes have computed them; a process alone does not wait."""
    return arrays if jax.process_count() == 1 else jax.block_until_ready(arrays)


def part() -> None:
    """Wait until all processes have come to the end. After it none is missed."""
    if jax.process_count() > 1:
        with together():
            jax.distributed.shutdown()


def plain(arrays: PyTree) -> Any:
    """As NumPy arrays, keys as their data."""
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if is_key(x) else x), arrays)


def typed(like: PyTree, arrays: PyTree) -> Any:
    """Arrays, and keys of their data wherever `like` has keys."""
    return jax.tree.map(
        lambda old, x: jax.random.wrap_key_data(x) if is_key(old) and not is_key(x) else x, like, arrays
    )


def is_key(x: Any) -> bool:
    """Whether it is an array of typed keys, or the shape of one."""
    return hasattr(x, "dtype") and bool(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))
