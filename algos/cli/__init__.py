"""`mec-jax`: list, train, evaluate, export, render and profile from the command line, one file a command."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tyro

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mec-jax`. Errors of use end it with one line and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else [*arguments]  # a submodule is called list
    try:
        with _warnings_in_a_line():
            tyro.extras.subcommand_cli_from_dict(_commands(arguments), prog="mec-jax", args=arguments).run()
    except (ValueError, OSError) as error:
        print(f"mec-jax: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mec-jax: stopped", file=sys.stderr)
        sys.exit(130)


@contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"mec-jax: {message}", file=sys.stderr)
        yield


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
