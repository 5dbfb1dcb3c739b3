"""What `--help` says: of each option what it is, and nothing that was written for a checker."""

import re
from collections.abc import Sequence

import pytest

from algos import cli
from algos.algorithms import algorithms

FOR_CHECKERS = ("type: ignore", "noqa", "pragma", "fmt:", "mypy:")
COMMANDS = [(name,) for name in cli._commands(()) if name != "train"] + [("train", name) for name in algorithms()]


def options(page: str) -> dict[str, str]:
    """By option or argument, what the page says of it, with its default. Into a pipe it is written without frames."""
    said: dict[str, str] = {}
    for line in page.splitlines():
        if re.match(r"  (--?[a-z]|\[|[A-Z]{3})", line):
            name, *more = re.split(r" {2,}", line.strip(), maxsplit=1)
            said[name] = " ".join(more)
        elif line.startswith(" " * 8) and said:
            said[name] = f"{said[name]} {line.strip()}".strip()
    return said


@pytest.fixture(params=COMMANDS, ids=" ".join)
def page(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> str:
    command: Sequence[str] = request.param
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_each_option_is_described_and_no_comment_of_a_checker_is_shown(page: str) -> None:
    said = options(page)
    assert "-h, --help" in said and len(said) > 1
    assert [name for name, text in said.items() if not text or text.startswith("(")] == []
    assert [word for word in FOR_CHECKERS if word in " ".join(page.split())] == []


def test_an_option_without_description_is_found() -> None:
    page = "  --a INT   one\n            thing\n        (default: 1)\n  --b INT\n        (default: 2)\n  [STR]\n"
    assert options(page) == {"--a INT": "one thing (default: 1)", "--b INT": "(default: 2)", "[STR]": ""}
