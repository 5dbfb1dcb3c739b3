"""`mec-jax`: list, train, sweep, evaluate, export, render, profile, dataset: the command line, one file a command."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from algos.cli import processes, stop
from algos.cli.arguments import devices_for
from mec_jax.files import reason

__all__ = ["main"]

TRACEBACK = "MEC_JAX_TRACEBACK"
"""Environment variable: if it is set, what is no error of use ends with its traceback."""

_MAX_LINE = 600  # characters of an error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mec-jax`. Errors of use end it with one line and exit code 2, what is a bug with one and 1.

    Args:
        arguments: By default those of the process, which then also ends at once on Ctrl-C and SIGTERM.
    """
    if arguments is None:
        stop.install()
        logging.basicConfig(format="mec-jax: %(message)s")
        sys.unraisablehook = lambda _: None  # of threads of libraries: who waits for them gets the error
    arguments = sys.argv[1:] if arguments is None else [*arguments]  # a submodule is called list
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        try:
            _check_surroundings(arguments)
            import tyro  # takes long

            from algos.cli.shared import Compiling  # starts JAX

            command = tyro.extras.subcommand_cli_from_dict(_commands(arguments), prog="mec-jax", args=arguments)
            if isinstance(command, Compiling):
                command.use_cache()
            command.run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:  # `mec-jax list | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(1)
    except (ValueError, OSError) as error:
        _end(str(error), 2)
    except SystemExit as error:  # of wrong options
        processes.leave(error.code)
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        _end(f"this is a bug: {type(error).__name__}: {reason(error)}; {TRACEBACK}=1 shows where", 1)


def _end(text: str, code: int) -> None:
    """Say one line that a terminal shows as it is, and exit. A long one loses its middle."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))
    if len(text) > _MAX_LINE:
        text = f"{text[: _MAX_LINE // 2]} ... {text[-_MAX_LINE // 2 :]}"
    print(f"mec-jax: {text}", file=sys.stderr)
    processes.leave(code)
    sys.exit(code)


def _check_surroundings(arguments: Sequence[str]) -> None:
    """Refuse a working folder that is gone, and settings of the environment that JAX can't start with; and start it.

    Raises:
        ValueError: If there are any.
    """
    try:
        os.getcwd()
    except FileNotFoundError:
        raise ValueError("the working folder is gone: change to another") from None
    if flags := os.environ.get("XLA_FLAGS"):  # one that it does not know ends the process
        code = "from jaxlib import xla_client; xla_client.make_cpu_client()"
        started = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, errors="replace")
        if started.returncode != 0:
            said = started.stderr.strip().rpartition("] ")[2]
            raise ValueError(f"XLA does not start with XLA_FLAGS={flags!r} ({said}): mend it or unset it")
    import jax

    devices_for(arguments)
    processes.join(arguments)
    try:
        jax.devices()
    except RuntimeError as error:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        raise ValueError(f"JAX does not start with JAX_PLATFORMS={platforms!r} ({reason(error)})") from None


def _commands(arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    from algos.cli import sweep, train
    from algos.cli.dataset import Dataset
    from algos.cli.evaluate import Evaluate
    from algos.cli.export import Export
    from algos.cli.list import List
    from algos.cli.profile import Profile
    from algos.cli.render import Render

    commands: dict[str, Callable[..., Any]] = {
        "list": List,
        "evaluate": Evaluate,
        "export": Export,
        "render": Render,
        "profile": Profile,
        "dataset": Dataset,
    }
    made = {"train": train.command, "sweep": sweep.command}
    for name, command in made.items():
        if not arguments or arguments[0] not in (*commands, *made.keys() - {name}):
            commands[name] = command(arguments)
    return commands
