"""`mec-jax`: list, train, evaluate, export, render and profile from the command line, one file a command."""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from algos.cli import stop

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mec-jax`. Errors of use end it with one line and exit code 2.

    Args:
        arguments: By default those of the process, which then also ends at once on Ctrl-C and SIGTERM.
    """
    if arguments is None:
        stop.install()
        logging.basicConfig(format="mec-jax: %(message)s")
        sys.unraisablehook = lambda _: None  # of threads of libraries: who waits for them gets the error
    arguments = sys.argv[1:] if arguments is None else [*arguments]  # a submodule is called list
    import tyro  # takes long

    try:
        tyro.extras.subcommand_cli_from_dict(_commands(arguments), prog="mec-jax", args=arguments).run()
    except (ValueError, OSError) as error:
        print(f"mec-jax: {error}", file=sys.stderr)
        sys.exit(2)


def _commands(arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    from algos.cli import train
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
    }
    if not arguments or arguments[0] not in commands:
        commands["train"] = train.command(arguments)
    return commands
