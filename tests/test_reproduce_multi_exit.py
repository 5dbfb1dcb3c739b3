"""The reproduction of the multi-exit curves: measuring, verdicts on made-up curves, the page."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from algos import ppo
from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.multi_exit import claims, page
from benchmarks.reproduce.multi_exit import curves as measuring
from benchmarks.reproduce.multi_exit.curves import ACO, DEVICE_ONLY, EDGE_ONLY, FIXED, OPTIMUM, SHARED_ACO, SPINN
from mec_jax.envs.multi_exit import AllocationAction
from mec_jax.episodes import evaluation_keys
from mec_jax.physics.multi_exit import split_costs
from mec_jax.solvers import multi_exit as solvers
from mec_jax.solvers.multi_exit import policies
from tests.patching import set_everywhere

pytestmark = pytest.mark.slow

BANDWIDTHS = (1, 5, 15, 30, 60, 100)
METHODS = (OPTIMUM, ACO, SHARED_ACO, SPINN, DEVICE_ONLY, EDGE_ONLY, FIXED)


def made_up(**factors: Any) -> dict[str, dict[str, np.ndarray]]:
    """Curves of 1 for the optimum and 2 for the others, times a factor (by metric) for a method."""
    curves = {
        name: {metric: np.full(len(BANDWIDTHS), 1.0 if name == OPTIMUM else 2.0) for metric in measuring.METRICS}
        for name in METHODS
    }
    for name, by_metric in factors.items():
        for metric, factor in by_metric.items():
            curves[name.replace("_", "-")][metric] = curves[name.replace("_", "-")][metric] * np.asarray(factor)
    return curves


def status(claim_id: str, curves: Any) -> Status:
    claim = next(claim for claim in claims.CLAIMS if claim.id == claim_id)
    return claim.judge(BANDWIDTHS, curves).status


EVERY = {"latency": 1.5, "energy": 1.5, "cost": 1.5}
FALLING = np.array([10, 5, 2, 1, 1, 1])
RISING = np.array([1, 1, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("claim_id", "factors", "expected"),
    [
        ("I1", {"SPINN-EAR": EVERY}, Status.HOLDS),
        ("I1", {}, Status.HOLDS),  # no worse is enough
        ("I1", {"SPINN-EAR": {"cost": 0.9}}, Status.ONLY_WHEN),
        ("I1", {"SPINN-EAR": {"cost": 0.9, "energy": 0.9, "latency": 0.9}}, Status.FAILS),
        ("I3", {}, Status.HOLDS),
        ("I3", {"ACO-EAR": {"latency": 0.4}}, Status.ONLY_WHEN),
        ("I4", {"FP-AR": EVERY}, Status.HOLDS),
        ("I4", {}, Status.FAILS),
        ("I5", {"Edge-only-EAR": {"energy": 0.4}}, Status.HOLDS),
        ("I5", {"Edge-only-EAR": {"energy": 0.4 * FALLING}}, Status.ONLY_WHEN),
        ("I5", {}, Status.FAILS),
        ("I6", {"Edge-only-EAR": {"latency": FALLING}}, Status.HOLDS),
        ("I6", {}, Status.FAILS),
        ("I7", {"ACO-EAR": {"energy": 0.5}, "ACO-EAR, shared": {"energy": 0.5}}, Status.HOLDS),
        ("I7", {"ACO-EAR": {"energy": 0.5}}, Status.ONLY_WHEN),
        ("I8", {}, Status.HOLDS),
        ("I8", {name: {"latency": 0.51, "cost": 0.51} for name in (ACO, SHARED_ACO)}, Status.FAILS),
        ("I9", {}, Status.HOLDS),
        ("I9", {"FP-AR": {"cost": 1 / RISING}}, Status.ONLY_WHEN),
        ("I9", {name: {"cost": 1 / RISING} for name in METHODS}, Status.FAILS),
        ("V1", {"SPINN-EAR": {"cost": 1.3, "energy": 1.3, "latency": 1.3}}, Status.FAILS),
        ("V4", {"FP-AR": {"energy": 0.9, "latency": 1.1}}, Status.HOLDS),
        ("V4", {"FP-AR": {"latency": 1.1}}, Status.ONLY_WHEN),
        ("V5", {DEVICE_ONLY: EVERY, EDGE_ONLY: EVERY}, Status.HOLDS),
        ("V5", {}, Status.FAILS),
        ("V6", {}, Status.HOLDS),
        ("V6", {OPTIMUM: {"latency": 3, "cost": 3}}, Status.FAILS),
    ],
)
def test_verdicts_follow_the_curves(claim_id: str, factors: Any, expected: Status) -> None:
    assert status(claim_id, made_up(**factors)) is expected


def test_a_learned_policy_is_what_claims_on_it_are_judged_by() -> None:
    curves = made_up()
    assert status("I3", curves) is Status.HOLDS
    curves["ACO-DRL"] = {metric: np.full(len(BANDWIDTHS), 3.0) for metric in measuring.METRICS}
    assert status("I3", curves) is Status.FAILS


def test_runs_of_bandwidths_are_named() -> None:
    assert claims.ranges((1, 2, 5, 10, 20), np.array([True, False, True, True, True])) == "1, 5 to 20 Mbit/s"


def test_slices_of_ones_own_are_best_device_by_device() -> None:
    env = mec_jax.make("MultiExitAllocation-Compressed-v0")[0]
    params = env.params(bandwidth_min=5e6, bandwidth_max=5e6, edge_speed=3e11)
    observation, _ = env.reset(evaluation_keys(1)[0], params)
    found = measuring.own_slices(env, params, observation, None).cost
    scenario = env.situation(observation, params)
    options = env.options(scenario, params)
    for split in range(14):
        splits = jnp.full(5, split)
        costs = split_costs(options, splits, jnp.full(5, 0.2), scenario.edge_speed, params.latency_weight)
        assert (found <= costs.cost * (1 + 1e-6)).all()
    shared = policies.aco(env, params, observation, jnp.zeros(()))
    assert env.costs(scenario, shared, params).cost.sum() <= found.sum() * (1 + 1e-6)


def test_a_trained_policy_decides_in_the_environment_it_was_trained_for() -> None:
    env, params = mec_jax.make("MultiExitAllocation-Compressed-v0")
    counts: Any = {"num_frames": 20_000, "num_envs": 512, "rollout": 1, "updates_per_chunk": 5}
    policy = measuring.trained(env, ppo.Config(**counts, trunk=(32,), critic=(32,)))
    observation, _ = env.reset(evaluation_keys(1)[0], params)
    key = evaluation_keys(2)[1]
    costs = measuring.of_policy(policy, env, params, observation, key)
    random = measuring.of_policy(solvers.baselines(env)["Random"], env, params, observation, key)
    assert 0 < costs.cost.sum() < random.cost.sum()


def test_the_page_is_written_from_measured_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def local(env: Any) -> Any:
        def policy(params: Any, observation: Any, key: Any) -> AllocationAction:
            return AllocationAction(jnp.full(env.num_devices, env.num_layers), jnp.ones(env.num_devices))

        return policy

    set_everywhere(
        monkeypatch,
        "benchmarks.reproduce.multi_exit",
        LEARNED={"Learned": local},
        SENSITIVITY={"defaults": {}, "w = 0.9": {"latency_weight": 0.9}},
        SETUPS={"image": "MultiExitAllocation-v0", "video": "MultiExitAllocation-v0"},
        BANDWIDTHS=(1, 30, 100),
        DRAWS=1,
    )
    monkeypatch.setattr(policies, "FIXED_SPLIT_SHARES", 10)
    page.main(["--out", str(tmp_path)])
    text = (tmp_path / "README.md").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    for claim in claims.CLAIMS:
        assert f"| {claim.id} | {claim.words} | **" in text
    content = json.loads((tmp_path / "curves.json").read_text())
    default = content["curves"]["image"]
    assert len(default) == 10 and all(len(curve["cost"]) == 3 for curve in default.values())
    np.testing.assert_allclose(default["Learned"]["latency"], default[DEVICE_ONLY]["latency"])
    for name, curve in default.items():
        assert (np.array(curve["cost"]) >= np.array(default[OPTIMUM]["cost"]) * (1 - 1e-5)).all(), name
        mean = (np.array(curve["latency"]) + curve["energy"]) / 2
        np.testing.assert_allclose(curve["cost"], mean, rtol=1e-5)
    assert text.count("| w = 0.9 |") == 2  # in both tables of the sensitivity
    assert np.shape(content["splits"]["image"]) == (3, 5)
