"""The notebooks run from their first cell to their last, and the first one installs what the others need."""

import ast
import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

COLAB = Path(__file__).resolve().parents[1] / "colab"

NOTEBOOKS = {
    "quickstart": (100_000, "over both problems by"),
    "export_to_pytorch": (40_960, "phone 2: cut after "),
    "sweep": (1, "learning rate "),
}
"""Frames to train for, and what only a whole run prints."""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_a_notebook_imports_from_here_is_there(name: str) -> None:
    cells = nbformat.read(COLAB / f"{name}.ipynb", as_version=4).cells
    code = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    found = [node for node in ast.walk(code) if isinstance(node, ast.ImportFrom) and node.module]
    ours = [node for node in found if str(node.module).split(".")[0] in ("mec_jax", "algos")]
    assert len(ours) > 3
    for node in ours:
        module = importlib.import_module(str(node.module))
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.full
@pytest.mark.parametrize("path", sorted(COLAB.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, last = NOTEBOOKS[path.stem]
    monkeypatch.setenv("NUM_FRAMES", str(frames))
    monkeypatch.setenv("SWEEP_FOLDER", str(tmp_path / "sweep"))
    monkeypatch.setenv("CONFIG", '{"num_envs": 8, "rollout": 4, "updates_per_chunk": 1}')
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # they are kept without
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(COLAB)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert last in printed
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))


# The first cell

CELL = (COLAB / "first_cell.py").read_text()


@pytest.fixture
def cell() -> Any:
    """What the first cell defines, without what it does."""
    kinds = ast.Import | ast.ImportFrom | ast.FunctionDef
    defined: list[ast.stmt] = [node for node in ast.parse(CELL).body if isinstance(node, kinds)]
    head = defined[: next(i for i, node in enumerate(defined) if ast.unparse(node) == "import jax")]
    names: dict[str, Any] = {"REPOSITORY": ""}
    exec(compile(ast.Module(head, []), "first_cell", "exec"), names)
    return SimpleNamespace(names=names, **names)


def fake_nvidia_smi(folder: Path, prints: str, code: int = 0) -> str:
    """A PATH on which nvidia-smi prints this."""
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{prints}'\nexit {code}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_the_first_cells_are_the_same() -> None:
    notebooks = sorted(COLAB.glob("*.ipynb"))
    assert len(notebooks) >= len(NOTEBOOKS)
    for path in notebooks:
        cells = nbformat.read(path, as_version=4).cells
        first = next(cell for cell in cells if cell.cell_type == "code")
        assert first.source == CELL.rstrip("\n"), f"{path.name}: copy colab/first_cell.py into its first code cell"


@pytest.mark.parametrize(
    ("prints", "code", "build", "said"),
    [
        ("550.54.15, 7.5\\n", 0, "cuda12", ""),  # a T4 in Colab
        ("580.65.06, 8.0\\n", 0, "cuda13", ""),  # an A100
        ("580.65.06, 9.0\\n580.65.06, 9.0\\n", 0, "cuda13", ""),
        ("590.10, 12.0\\n", 0, "cuda13", ""),
        ("580.65.06, 7.0\\n", 0, "cuda12", ""),  # a V100, which CUDA 13 does not know
        ("580.65.06, 8.0\\n580.65.06, 6.0\\n", 0, "cuda12", ""),
        ("525.60.13, 5.2\\n", 0, "cuda12", ""),
        ("470.82.01, 7.5\\n", 0, "", "Driver 470, compute capability 7.5: too old"),
        ("580.65.06, 3.7\\n", 0, "", "Driver 580, compute capability 3.7: too old"),
        ("No devices were found\\n", 6, "", "no GPU that JAX can use"),
        ("No devices were found\\n", 0, "", "no GPU that JAX can use"),
        ("550.54.15, [N/A]\\n", 0, "", "no GPU that JAX can use"),
        ("", 0, "", "no GPU that JAX can use"),
    ],
)
def test_driver_and_gpu_choose_the_build(
    prints: str,
    code: int,
    build: str,
    said: str,
    cell: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", fake_nvidia_smi(tmp_path / "bin", prints, code))
    assert cell.jax_build() == build
    printed = capsys.readouterr().out
    assert said in printed and ("everything runs on the CPU" in printed) == (build == "")


def test_without_nvidia_smi_it_is_the_cpu(
    cell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cell.jax_build() == ""
    assert capsys.readouterr().out.count("\n") == 1


@pytest.fixture
def pip(cell: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """pip's arguments; it makes a wheel, and installs nothing."""
    calls = []

    def pip(*arguments: str) -> None:
        calls.append([*arguments])
        if arguments[0] == "wheel":
            write_wheel(Path(arguments[arguments.index("-w") + 1]))
        else:
            calls.append([Path(arguments[arguments.index("-c") + 1]).read_text()])

    monkeypatch.setitem(cell.names, "pip", pip)
    return calls


def write_wheel(folder: Path) -> Path:
    with zipfile.ZipFile(path := folder / "mec_jax-0.1.0-py3-none-any.whl", "w") as file:
        file.writestr("mec_jax/constraints.txt", "numpy==1.2.3\n")
    return path


def test_it_takes_the_checkout_then_a_wheel_then_the_address(
    cell: Any, pip: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cell.names, "is_installed", lambda: False)
    (tmp_path / "repository" / "colab").mkdir(parents=True)
    (tmp_path / "repository" / "colab" / "first_cell.py").write_text("")
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    with pytest.raises(SystemExit, match=r"put its wheel, mec_jax-\*\.whl, beside this notebook"):
        cell.install()
    assert pip == []
    monkeypatch.setitem(cell.names, "REPOSITORY", "git+https://example.org/mec_jax")
    cell.install("cuda12")
    assert pip[0][-1] == "git+https://example.org/mec_jax" and pip[1][-1].startswith("mec_jax[cuda12] @ file:///")
    assert pip.pop() == ["numpy==1.2.3\n"]
    pip.clear()
    beside = write_wheel(tmp_path / "away")
    cell.install()
    assert [call[-1] for call in pip] == [f"mec_jax[] @ {beside.as_uri()}", "numpy==1.2.3\n"]
    for place in ("repository", "repository/colab"):
        monkeypatch.chdir(tmp_path / place)
        pip.clear()
        cell.install()
        assert pip[0][0] == "wheel" and pip[0][-1] == str(tmp_path / "repository")


def test_more_extras_of_what_is_installed(cell: Any, pip: list[list[str]]) -> None:
    assert cell.is_installed()
    cell.install("torch")
    assert pip[0][-1] == "mec_jax[torch]" and pip[1] == [(COLAB.parent / "constraints.txt").read_text()]


def test_what_pip_refuses_is_said(cell: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"pip install did not succeed: [^$]*nowhere\.txt"):
        cell.pip("install", "-c", str(tmp_path / "nowhere.txt"), "mec_jax")


def test_a_loaded_package_that_was_replaced_asks_for_a_restart(
    cell: Any, pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ModuleType("matplotlib")
    old.__version__ = "1.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "matplotlib", old)
    with pytest.raises(SystemExit, match="matplotlib came in another version: restart the runtime"):
        cell.install("torch")
    assert len(pip) == 2


@pytest.mark.full
def test_the_first_cell_works_in_an_empty_folder_with_the_wheel_alone(tmp_path: Path) -> None:
    """On a machine whose driver is too old, in a fresh environment; then again, with nothing left to do."""

    def run(*command: object, **settings: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "PYTHON"))}
        line, where = [str(part) for part in command], tmp_path / "empty"
        return subprocess.run(
            line, cwd=where, env=environment | settings, check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "empty").mkdir()
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", ".", COLAB.parent)
    (wheel,) = (tmp_path / "empty").iterdir()
    constraints = (COLAB.parent / "constraints.txt").read_text()
    assert zipfile.ZipFile(wheel).read("mec_jax/constraints.txt").decode() == constraints
    run(sys.executable, "-m", "venv", tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    settings = {
        "PATH": fake_nvidia_smi(tmp_path / "bin", "470.82.01, 7.5\\n"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    for _ in range(2):
        said = run(python, "-c", CELL, **settings)
        assert "Driver 470, compute capability 7.5: too old for JAX, so everything runs on the CPU.\n" in said
        assert said.splitlines()[-1].startswith("[CpuDevice(id=0)")
    assert any((tmp_path / "cache" / "mec_jax").iterdir())
    versions = run(python, "-m", "pip", "freeze").splitlines()
    ours = [line for line in versions if not line.startswith("mec-jax @")]
    assert len(ours) + 1 == len(versions) > 40 and set(ours) <= set(constraints.splitlines())
