"""The notebooks run from their first cell to their last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

COLAB = Path(__file__).resolve().parents[1] / "colab"

NOTEBOOKS = {"quickstart": (100_000, "[beta, seed, update]"), "export_to_pytorch": (40_960, "phone 2: cut after ")}
"""Frames to train for, and what only a whole run prints."""


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
