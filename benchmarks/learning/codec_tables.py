"""The tables that `benchmarks.learning.codecs` writes: read without PyTorch."""

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.harness.results import RESULTS, write_result

OUT = RESULTS / "codecs"
PROFILES = {"resnet18": "resnet18", "mobilenet_v2": "mobilenetv2"}
"""Networks that are measured, and the bundled profile that names the paper's cuts."""


BUDGET = 0.02
"""Accuracy that a codec may cost."""


@dataclass(frozen=True)
class Row:
    """A trained codec."""

    network: str
    data_set: str  # with the number of images that codecs are trained on
    side: int
    cut: str
    channels: int
    sent: int
    bits: int
    rate: float
    epochs: int
    tuning_epochs: int
    seed: int
    accuracy_without: float
    accuracy_frozen: float
    accuracy: float
    seconds: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What was asked for."""
        return (self.network, self.data_set, self.side, self.cut, self.sent, self.epochs, self.tuning_epochs, self.seed)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What all rows of a search and its repetitions with other seeds share."""
        return (self.network, self.data_set, self.side, self.cut, self.epochs, self.tuning_epochs)

    @property
    def loss(self) -> float:
        """Accuracy that it costs."""
        return self.accuracy_without - self.accuracy


@dataclass(frozen=True)
class JaladRow:
    """JALAD at a cut: `mec_jax.split.jalad.JaladCost`, of real images."""

    network: str
    data_set: str
    side: int
    cut: str
    elements: int
    bits: float  # sent of an image, mean
    bits_spread: float
    entropy: float  # bit an element
    commonest: float  # share of the commonest code
    quantise_s: float
    code_s: float
    decode_s: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What was asked for."""
        return (self.network, self.data_set, self.side, self.cut)


def read_rows[R: (Row, JaladRow)](path: Path, kind: type[R]) -> list[R]:
    """The rows of a table; none if it is not there."""
    if not path.exists():
        return []
    kinds: dict[str, Any] = {field.name: field.type for field in fields(kind)}
    with path.open(newline="") as file:
        return [kind(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]


def write_rows(path: Path, rows: Iterable[Row] | Iterable[JaladRow]) -> None:
    """A whole table."""
    text = io.StringIO()
    tables = [asdict(row) for row in rows]
    writer = csv.DictWriter(text, list(tables[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(tables)
    write_result(path, text.getvalue())


def best_rates(rows: Iterable[Row]) -> list[float]:
    """Of rows of one cut, the largest rate within the budget for each seed; 0 where none is."""
    by_seed: dict[int, float] = {}
    for row in rows:
        by_seed[row.seed] = max(by_seed.get(row.seed, 0), row.rate if row.loss <= BUDGET else 0)
    return [rate for _, rate in sorted(by_seed.items())]
