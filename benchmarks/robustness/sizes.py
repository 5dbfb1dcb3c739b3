"""Sizes of environments, from 1 to a thousand digits: refused at once, or really within the limit.

    python -m benchmarks.robustness sizes

Each input is one count of an environment's constructor and a limit of memory between 64 MiB and 1 GiB. What is taken
is built, and its parameters must be within the limit; what is small must not be refused.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

import mec_jax
from benchmarks.harness.campaign import REFUSED, TAKEN, fate
from mec_jax.memory import VARIABLE

COUNTS = {
    "MultiUEOffloading-v0": ("num_ues", "num_channels"),
    "NeuronAllocation-v0": ("num_devices", "num_pieces"),
    "NeuronAllocation-Slots-v0": ("num_devices", "num_slots"),
    "NeuronSharing-v0": ("num_requesters", "num_devices", "num_pieces"),
    "PartitionGame-v0": ("num_devices", "num_kinds"),
}
"""Arguments of the constructors that set sizes."""

BUILT = tuple(int(4**power) for power in range(1, 14))
"""Sizes that may be built. One of them takes seconds to trace, so they are drawn from a few."""


def size(rng: np.random.Generator) -> int:
    """One to try: that may be built, far beyond that, of very many digits, or none at all."""
    match int(rng.integers(8)):
        case 0:
            return int(10 ** rng.uniform(9, 18))
        case 1:
            return 10 ** int(rng.integers(19, 1000))
        case 2:
            return -int(rng.integers(0, 2**31))
        case 3:
            return int(rng.integers(2**28, 2**31))
        case _:
            return int(rng.choice(BUILT))


def size_fates(count: int, seed: int, folder: Path) -> Counter[str]:
    """What becomes of sizes of environments."""
    rng = np.random.default_rng(seed)
    arguments = [(env_id, name) for env_id, names in COUNTS.items() for name in names]
    drawn = [
        (*arguments[int(rng.integers(len(arguments)))], size(rng), float(2 ** rng.uniform(-4, 0))) for _ in range(count)
    ]
    return Counter(made_fate(*one) for one in sorted(drawn))  # so that what was traced is still known


def made_fate(env_id: str, name: str, number: int, gib: float) -> str:
    """What becomes of one size."""
    with mock.patch.dict(os.environ, {VARIABLE: str(gib)}):
        found = fate(lambda: mec_jax.make(env_id, **{name: number}), lambda made: within(made, gib))
    return "refused though it is small" if found == REFUSED and 1 <= number <= 16 else found


def within(made: tuple[Any, Any], gib: float) -> str:
    """`TAKEN` if the parameters are within the limit."""
    bytes_there = sum(leaf.nbytes for leaf in jax.tree.leaves(made[1]) if hasattr(leaf, "nbytes"))
    return TAKEN if bytes_there <= gib * 2**30 else f"taken with {bytes_there} byte"
