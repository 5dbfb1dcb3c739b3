"""Where results are kept, how they are written, and the command lines of the scripts that do."""

import argparse
from pathlib import Path

from mec_jax import files

ROOT = Path(__file__).resolve().parents[2]
"""Of the repository."""

RESULTS = ROOT / "benchmarks" / "results"
"""What the scripts last printed."""


def write_result(path: Path, text: str) -> None:
    """Write a whole text or nothing, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)


def command_line(module: str, doc: str | None, out: Path | None = None) -> argparse.ArgumentParser:
    """The parser of a script, which says what its docstring does.

    Args:
        module: What `python -m` runs.
        doc: The docstring.
        out: Where the results go unless `--out` says otherwise: a file, or a folder if it has no suffix. No such
            option if absent.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if out is not None:
        kind = "file" if out.suffix else "folder"
        parser.add_argument("--out", type=Path, default=out, help=f"{kind} of the results (default: {out.name})")
    return parser
