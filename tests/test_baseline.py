"""What the code computes is what it computed before the house was rebuilt (`benchmarks/baseline.py` wrote it then)."""

import json
from typing import Any

import numpy as np
import pytest

import mec_jax
from algos.run_config import RunConfig
from benchmarks import baseline
from mec_jax.solvers.offloading import lower_bounds

EPS = float(np.finfo(np.float32).eps)

# An entry of a trace is worked out by some tens of float32 operations, of an episode by some hundred sums; each rounds
# by eps of its magnitude, and another machine rounds in another order. Rewards and observations are of order 1 to 100.
TRACE_ROUNDINGS = 64
RETURN_ROUNDINGS = 512

# Three updates move a parameter by 3e-3 at most per update and pass. Adam's epsilon of 1e-2 holds the amplification of
# a gradient's rounding errors below 100, and gradients are sums of some 64 terms of order 1.
PARAMETER_TOLERANCE = 100 * 64 * EPS * 1e-2

# Rulers whose long episodes, or what is searched on them, are others where rounding is: means of 16 episodes then moved
# by up to 3.2 % and 0.6 % (without fused multiply-add, at 3, 5 and 10 UEs).
CHAOTIC_RULERS = {"Random": 0.05, "Best static": 0.01}

RULERS: list[dict[str, Any]] = json.loads((baseline.FOLDER / "rulers.json").read_text())
RUNS = baseline.small_runs()
with np.load(baseline.FOLDER / "traces.npz") as archive:
    TRACED = sorted({name.split("/")[0] for name in archive.files})


@pytest.fixture(scope="module")
def traces() -> dict[str, np.ndarray]:
    return dict(np.load(baseline.FOLDER / "traces.npz"))


@pytest.fixture(scope="module")
def parameters() -> dict[str, np.ndarray]:
    return dict(np.load(baseline.FOLDER / "parameters.npz"))


def assert_close(found: np.ndarray, expected: np.ndarray, roundings: int, name: str) -> None:
    tolerance = roundings * EPS * np.maximum(1, np.abs(expected.astype(float)))
    assert found.shape == expected.shape, name
    assert np.all(np.abs(found.astype(float) - expected) <= tolerance), name


@pytest.mark.parametrize("env_id", TRACED)
def test_traces_are_as_before(env_id: str, traces: dict[str, np.ndarray]) -> None:
    for name, found in baseline.trace(env_id).items():
        expected = traces[f"{env_id}/{name}"]
        if found.dtype == bool:
            np.testing.assert_array_equal(found, expected)
        else:
            assert_close(found, expected, TRACE_ROUNDINGS, name)


@pytest.mark.full
@pytest.mark.parametrize("run", RUNS, ids=baseline.run_name)
def test_three_updates_move_the_parameters_as_before(run: RunConfig, parameters: dict[str, np.ndarray]) -> None:
    learned, _ = baseline.trained(run)
    found = baseline.flattened(learned)
    assert found.keys() == {
        name.removeprefix(baseline.run_name(run))
        for name in parameters
        if name.startswith(f"{baseline.run_name(run)}[")
    }
    for name, value in found.items():
        expected = parameters[baseline.run_name(run) + name]
        # Moments of observations are sums of 96 of them, of order 1 to 10.
        tolerance = PARAMETER_TOLERANCE + 96 * EPS * np.abs(expected)
        assert np.all(np.abs(value - expected) <= tolerance), name


@pytest.mark.full
@pytest.mark.parametrize(
    "entry",
    RULERS,
    ids=lambda entry: entry["env_id"] + "".join(f"-{size}" for size in entry["static"].values()),
)
def test_rulers_and_bounds_are_as_before(entry: dict[str, Any]) -> None:
    found = baseline.rulers(entry["env_id"], entry["static"])
    assert list(found) == list(entry["returns"])
    for name, returns in found.items():
        before = np.array(entry["returns"][name])
        if entry["env_id"] == baseline.CHAOTIC and name in CHAOTIC_RULERS:
            assert np.mean(returns) == pytest.approx(np.mean(before), rel=CHAOTIC_RULERS[name]), name
        else:
            assert_close(np.array(returns), before, RETURN_ROUNDINGS, name)
    if "lower_bounds" in entry:
        env, params = mec_jax.make(entry["env_id"], **entry["static"])
        bounds: Any = lower_bounds(env, env.evaluation_params(params))._asdict()
        assert bounds == pytest.approx(entry["lower_bounds"], rel=1e-6)  # HiGHS' tolerances
