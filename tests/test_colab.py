"""The notebooks run from their first cell to their last."""

import ast
import importlib
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

COLAB = Path(__file__).resolve().parents[1] / "colab"

NOTEBOOKS = {"quickstart": (100_000, "[beta, seed, update]"), "export_to_pytorch": (40_960, "phone 2: cut after ")}
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
def test_notebook_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, last = NOTEBOOKS[path.stem]
    monkeypatch.setenv("NUM_FRAMES", str(frames))
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # they are kept without
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(COLAB)}}).execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert last in printed
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
