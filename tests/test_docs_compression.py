"""What docs/compression.md shows runs, and prints what it says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "compression.md"


@pytest.mark.full
def test_the_page_on_compression_runs_from_top_to_bottom(one_thread: None) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    names: dict[str, object] = {}
    said = []
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block, str(PAGE), "exec"), names)
        said.append(printed.getvalue().splitlines())
        told = [
            line.partition("  # ")[2] for line in block.splitlines() if line.startswith("print(") and "  # [" in line
        ]
        assert [line for line in said[-1] if line.startswith("[")] == told
    assert len(blocks) == 4 and "Joint" in "".join(said[1])
    ((accuracy, base),) = re.findall(r"^\d+ ms, accuracy (0\.\d+) instead of (0\.\d+)$", said[2][0])
    assert float(base) - 0.02 <= float(accuracy) < float(base), "within the budget"
    assert 0 <= float(said[3][0]) <= 1
