"""What CONTRIBUTING and docs/architecture.md name is there, and their commands can be typed."""

import importlib
import re
import shlex
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from algos import cli
from tests.__main__ import TIERS
from tests.test_readme import TEST

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("CONTRIBUTING.md", "docs/architecture.md")
PACKAGES = ("mec_jax", "algos", "benchmarks", "tests")
MADE_BY_A_RUN = {"config.json", "metrics.csv", "comparison.json", "curve.png", "policy.npz"}
A_FILE = re.compile(r".*\.(py|md|sh|toml|txt|json|csv|png|npz)$")


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.S)


def quoted(page: str) -> list[str]:
    """What stands in backticks outside of blocks."""
    return re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text_of(page), flags=re.S))


def is_path(words: str) -> bool:
    return " " not in words and ("/" in words or A_FILE.match(words) is not None) and words not in MADE_BY_A_RUN


def is_there(dotted: str) -> bool:
    """Whether a module, or a name in one, can be had."""
    module, _, rest = dotted, "", ""
    while True:
        try:
            found: object = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            rest = f"{last}.{rest}" if rest else last
            if not module:
                return False
    for name in filter(None, rest.split(".")):
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


def can_be_typed(command: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether a command of this repository exists, with its options."""
    words = shlex.split(command)
    if words[:2] == ["python", "-m"]:
        return find_spec(words[2]) is not None and (words[2] != "tests" or words[3:4] in ([], *([x] for x in TIERS)))
    with pytest.raises(SystemExit) as ended:
        cli.main([*words[1:2], "--help"])
    shown = capsys.readouterr().out
    expected = [shlex.join(words[:2]), *(word for word in words if word.startswith("--"))]
    return not ended.value.code and all(word in shown for word in expected)


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page: str) -> None:
    named = [words for words in quoted(page) if is_path(words)]
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text_of(page))
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_modules_and_what_they_hold_exist(page: str) -> None:
    dotted = {words for words in quoted(page) if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+", words)}
    assert len(dotted) > 5
    assert [name for name in sorted(dotted) if not is_there(name)] == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_typed(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    commands = {words for words in quoted(page) if words.startswith(("python -m ", "mec-jax "))}
    assert commands
    assert [command for command in sorted(commands) if not can_be_typed(command, capsys)] == []


def test_set_up_is_that_of_the_readme() -> None:
    (block,) = blocks("CONTRIBUTING.md", "sh")
    install, tests = block.strip().splitlines()
    assert f"{install} && {tests.removesuffix(' fast')}" == TEST


def test_the_example_runs_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = blocks("docs/architecture.md", "python")
    exec(block, {})
    assert capsys.readouterr().out.splitlines() == re.findall(r"^print.*  # (.*)$", block, re.M)


def test_marks_and_limits_are_those_in_force() -> None:
    settings = tomllib.loads(text_of("pyproject.toml"))
    marks = [mark.partition(":")[0] for mark in settings["tool"]["pytest"]["ini_options"]["markers"]]
    assert {"slow", "full"} <= set(marks) & set(quoted("CONTRIBUTING.md"))
    assert f"at most {settings['tool']['ruff']['line-length']} characters" in text_of("CONTRIBUTING.md")


def test_what_is_not_there_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert is_there("mec_jax.contracts.Problem.table") and is_there("mec_jax.solvers.offloading")
    for name in ("mec_jax.contracts.Problems", "mec_jax.nothing", "nothing.at.all"):
        assert not is_there(name)
    for command in ("mec-jax nothing", "mec-jax list --nothing", "python -m benchmarks.no", "python -m tests slow"):
        assert not can_be_typed(command, capsys)
