"""The arrows of docs/architecture.md: its table is the declaration, and what the modules import is held against it."""

import ast
import graphlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROW = re.compile(r"^\| (`[^|]+) \|[^|]+\| ([^|]+) \|$", re.MULTILINE)  # room, what it holds, what it may import
MAX_LINES = 500
CODE = ("mec_jax", "algos")
ABOVE = {"mec_jax": {"algos", "benchmarks", "tests"}, "algos": {"benchmarks", "tests"}}
"""What each package must not know, not even the types of it."""


class Imports(NamedTuple):
    """What a module imports, by name: modules, or names in them."""

    when_run: frozenset[str]  # in functions, too
    for_types: frozenset[str]  # under TYPE_CHECKING: no arrow, as nothing is imported when the program runs


def imports_of(source: str) -> Imports:
    """What a module imports, `import_module` of a given name included."""
    tree = ast.parse(source)
    guarded = {
        inside
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inside in ast.walk(statement)
    }
    found: tuple[set[str], set[str]] = (set(), set())
    for node in ast.walk(tree):
        found[node in guarded].update(_named(node))
    return Imports(*map(frozenset, found))


def _named(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module, names, 0):
            yield from (f"{module}.{alias.name}" for alias in names)
        case ast.ImportFrom():
            raise ValueError(f"line {node.lineno} imports by dots: name the module in full")
        case ast.Call(ast.Name("import_module") | ast.Attribute(attr="import_module"), [ast.Constant(str(name))]):
            yield name


def module_of(name: str, modules: Mapping[str, object]) -> str | None:
    """The module that an imported name is, or stands in; None if it is none of these."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """By module, which of the others it imports. A package is its `__init__`; being inside is no arrow."""
    arrows = {}
    for module, source in sources.items():
        targets = (module_of(name, sources) for name in imports_of(source).when_run)
        arrows[module] = {target for target in targets if target is not None} - {module}
    return arrows


def cycle(arrows: Mapping[str, set[str]]) -> list[str]:
    """The modules of an import cycle, if there is one."""
    try:
        graphlib.TopologicalSorter(arrows).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def room_of(module: str, rooms: Mapping[str, object]) -> str:
    """The innermost room that a module is in.

    Raises:
        KeyError: If it is in none.
    """
    room = module_of(module, rooms)
    # A package is a room of its own, not that of a module which the table forgets.
    if room is None or (room in CODE and room != module):
        raise KeyError(f"{module} is in no room: add it to the table of {PAGE.name}")
    return room


def wrong_arrows(arrows: Mapping[str, set[str]], rooms: Mapping[str, set[str]]) -> list[str]:
    """Imports that no way along the arrows of the rooms allows."""
    allowed: dict[str, set[str]] = {}
    for room in graphlib.TopologicalSorter(rooms).static_order():
        allowed[room] = {room}.union(*(allowed[below] for below in rooms[room]))
    return [
        f"{module} -> {target}"
        for module, targets in sorted(arrows.items())
        for target in sorted(targets)
        if room_of(target, rooms) not in allowed[room_of(module, rooms)]
    ]


def table(page: str) -> dict[str, set[str]]:
    """The page's table of rooms: of each, which others it may import. A room is called by the module of its path."""
    rows = [tuple(re.findall(r"`([^`]+)`", cell) for cell in row) for row in ROW.findall(page)]
    names = [_module(path) for paths, _ in rows for path in paths]
    short = {name.rpartition(".")[2]: {name} for name in names}
    assert rows and len(short) == len(names), "no table, or two rooms of one name"
    short["mec_jax"] = {name for name in names if name.startswith("mec_jax")}  # algos may use all of it
    return {_module(path): set().union(*(short[name] for name in below)) for paths, below in rows for path in paths}


def _module(path: str) -> str:
    return path.removesuffix("/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """By module."""
    files = [path for package in CODE for path in sorted((ROOT / package).rglob("*.py"))]
    return {_module(path.relative_to(ROOT).as_posix()): path.read_text() for path in files}


@pytest.fixture(scope="module")
def rooms() -> dict[str, set[str]]:
    return table(PAGE.read_text())


# What the modules are


def test_no_import_cycle(sources: dict[str, str]) -> None:
    assert cycle(graph(sources)) == []


def test_arrows_go_one_way(sources: dict[str, str], rooms: dict[str, set[str]]) -> None:
    assert wrong_arrows(graph(sources), rooms) == []


def test_every_room_is_there_and_every_module_in_one(sources: dict[str, str], rooms: dict[str, set[str]]) -> None:
    assert {room_of(module, rooms) for module in sources} == set(rooms)


def test_types_of_what_is_above_are_named_only_within_a_package(sources: dict[str, str]) -> None:
    for module, source in sources.items():
        found = imports_of(source)
        known = {name.partition(".")[0] for name in found.when_run | found.for_types}
        assert not known & ABOVE[module.partition(".")[0]], module


def test_no_long_file(sources: dict[str, str]) -> None:
    assert {module: len(text.splitlines()) for module, text in sources.items() if text.count("\n") > MAX_LINES} == {}


def test_every_public_module_says_what_it_is(sources: dict[str, str]) -> None:
    public = {name: text for name, text in sources.items() if not name.rpartition(".")[2].startswith("_")}
    assert [name for name, text in public.items() if not ast.get_docstring(ast.parse(text))] == []


def test_contracts_name_their_types(sources: dict[str, str]) -> None:
    assert not _uses(sources["mec_jax.contracts"], "typing.Any")


@pytest.mark.parametrize("folder", [*CODE, "benchmarks", "tests"])
def test_no_path_is_patched(folder: str) -> None:
    assert [path.name for path in (ROOT / folder).rglob("*.py") if _uses(path.read_text(), "sys.path")] == []


def _uses(source: str, dotted: str) -> bool:
    """Whether a name of another module is imported from it or written out."""
    found = imports_of(source)
    attributes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute))
    return dotted in found.when_run | found.for_types or any(ast.unparse(node) == dotted for node in attributes)


# That the checks find what they are for

ROOMS: dict[str, set[str]] = {"low": set(), "middle": {"low"}, "high": {"middle"}}


def test_a_cycle_is_found_also_through_a_function() -> None:
    sources = {"low.a": "from low import b", "low.b": "def f():\n    import low.c", "low.c": "from low.a import x"}
    assert set(cycle(graph(sources))) == set(sources)


def test_a_cycle_through_a_module_named_by_text_is_found() -> None:
    sources = {"low.a": "import low.b", "low.b": "importlib.import_module('low.a')"}
    assert set(cycle(graph(sources))) == set(sources)


def test_a_wrong_arrow_is_found() -> None:
    sources = {"low.a": "def f():\n    from high.b import g", "high.b": "from low.c import h", "low.c": ""}
    assert wrong_arrows(graph(sources), ROOMS) == ["low.a -> high.b"]


def test_only_the_types_of_what_is_above_may_be_named() -> None:
    guarded = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from high.b import g\nelse:\n    import middle.c"
    )
    assert imports_of(guarded).for_types == {"high.b.g"}
    sources = {"low.a": guarded, "middle.c": "", "high.b": "import low.a"}
    assert wrong_arrows(graph(sources), ROOMS) == ["low.a -> middle.c"]
    assert cycle(graph(sources)) == []


def test_a_module_in_no_room_is_found() -> None:
    with pytest.raises(KeyError, match="add it"):
        room_of("mec_jax.new", {"mec_jax": set(), "mec_jax.old": set()})


def test_relative_imports_are_refused() -> None:
    with pytest.raises(ValueError, match="in full"):
        imports_of("from . import a")


def test_any_type_and_patched_paths_are_found() -> None:
    for source in ("from typing import Any", "import typing\nx: dict[str, typing.Any] = {}"):
        assert _uses(source, "typing.Any")
    for source in ("import sys\nsys.path.insert(0, '.')", "from sys import path"):
        assert _uses(source, "sys.path")
    assert not _uses("import os\nfrom typing import cast\nx = os.path.join('sys.path')", "sys.path")
