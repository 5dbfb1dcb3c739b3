"""Whether the files that a device needs read and decide as here, where Python and NumPy are older and nothing else is.

    python -m tests.on_device FOLDER    # here: the files that a device needs, policies, and what is to be decided
    cd FOLDER && python on_device.py    # there, on Python 3.9 or later with NumPy alone

So this file runs on Python 3.9, too.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mec_jax import policy as reader

MODULES = (
    "mec_jax",
    *(f"mec_jax.{name}" for name in ("files", "policy", "policy_about", "policy_schema", "transforms")),
)
"""What `mec_jax.policy` imports of this package."""


def write(folder: Path) -> None:
    """What a device needs, and what it is to find: values in float64, and how far float32 may be off them."""
    from tests.tolerance import said_by

    here = Path(__file__).resolve().parent
    (folder / "mec_jax").mkdir()
    for module in MODULES:
        shutil.copy(str(sys.modules[module].__file__), folder / "mec_jax")
    shutil.copy(__file__, folder)
    expected: dict[str, Any] = {}
    for path in (*here.glob("data/baseline/*_*.npz"), *here.glob("data/policies/schema_*.npz")):
        shutil.copy(path, folder)
        policy = reader.load_policy(path)
        size = policy.metadata["observation"]["size"]
        observations = np.random.default_rng(0).uniform(0.01, 1, (16, size)).astype(np.float32)
        expected[f"{path.stem}/observations"] = observations
        for head, said in said_by(policy, observations).items():
            for name, part in zip(policy.distribution(observations)[head]._fields, said.parts):
                expected[f"{path.stem}/{head}/{name}"] = np.stack([part.value, part.error])
    recorded = np.load(here / "data" / "policies" / "recorded.npz")
    np.savez(folder / "expected.npz", **expected)
    quantities: dict[str, Any] = {name: recorded[name] for name in recorded.files if name.startswith("schema_3/")}
    np.savez(folder / "quantities.npz", **quantities)


def check(folder: Path) -> None:
    """Read, observe and decide."""
    assert {name for name in sys.modules if name.partition(".")[0] == "mec_jax"} == set(MODULES)
    expected = np.load(folder / "expected.npz")
    policies = sorted({name.partition("/")[0] for name in expected.files})
    for name in policies:
        policy = reader.load_policy(folder / f"{name}.npz")
        observations = expected[f"{name}/observations"]
        for head, said in policy.distribution(observations).items():
            for field, found in said._asdict().items():
                value, error = expected[f"{name}/{head}/{field}"]
                assert found.shape == value.shape and (np.abs(found - value) <= error).all(), (name, head, field)
        drawn = policy.act(observations, np.random.default_rng(0))
        assert all(np.isfinite(part).all() for part in drawn), name
    recorded = np.load(folder / "quantities.npz")
    start = "schema_3/quantities/"
    policy = reader.load_policy(folder / "schema_3.npz")
    quantities = {name[len(start) :]: recorded[name] for name in recorded.files if name.startswith(start)}
    found = policy.observation(**quantities)
    assert np.allclose(found, recorded["schema_3/observations"], rtol=1e-6, atol=1e-6)
    names = policy.cut_names(policy.act(found))
    assert set(names.tolist()) <= set(policy.cuts)
    hostile: list[Any] = [
        np.zeros(policy.metadata["observation"]["size"]),
        found[0] * np.nan,
        found[0, 1:],
        "x",
        None,
    ]
    for wrong in hostile:
        try:
            policy.act(wrong)
        except ValueError as error:
            assert str(error).startswith("the observation ")
        else:
            raise AssertionError(wrong)
    reader.save_policy(folder / "again.npz", policy.arrays, policy.metadata)
    again = reader.load_policy(folder / "again.npz")
    assert again.metadata == policy.metadata
    assert all(np.array_equal(array, policy.arrays[name]) for name, array in again.arrays.items())
    print(len(policies), "policies on Python", sys.version.split()[0], "with NumPy", np.__version__)


if __name__ == "__main__":
    write(Path(sys.argv[1])) if len(sys.argv) > 1 else check(Path())
