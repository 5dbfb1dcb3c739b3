"""The JSON files that tests write: profiles and tables of made-up networks."""

import copy
import json
from pathlib import Path
from typing import Any

type Document = dict[str, Any]


def document(name: str, description: str, **fields: Any) -> Document:
    """A file of schema 1."""
    return {"schema": 1, "name": name, "description": description, "source": {"all": "made up"}, **fields}


def replaced(content: Document, path: str, value: Any) -> Document:
    """A copy with a field, e.g. `layers.0.bits`, replaced, added, or removed if the value is `...`."""
    content = copy.deepcopy(content)
    place: Any = content
    *parents, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in parents:
        place = place[step]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return content


def write(folder: Path, content: Document | list[Any] | str) -> Path:
    """A document, or text that is none, in a folder."""
    path = folder / "network.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


_FIELDS = ("name", "neurons", "neuron_flops", "input_elements", "output_elements", "own_inputs")
_LAYERS = (
    ("conv", 8, 1e6, 3000, 8000, False),
    ("depthwise", 4, 3e5, 8000, 4000, True),  # fewer neurons than pieces
    ("linear", 13, 2e6, 4000, 13, False),
)
NEURONS = document("tiny", "three layers", layers=[dict(zip(_FIELDS, layer, strict=True)) for layer in _LAYERS])
"""A table of neurons."""


def cut_table(*layers: tuple[str, float, float]) -> Document:
    """A table of cuts whose layers have these names, FLOP and bits."""
    listed = [{"name": name, "flops": flops, "bits": bits} for name, flops, bits in layers]
    return document("tiny", "a few layers", input_bits=1e5, layers=listed)


CUTS = cut_table(("conv", 4e6, 2e5), ("pool", 0, 5e4), ("linear", 1e7, 100))
"""A table of cuts."""
