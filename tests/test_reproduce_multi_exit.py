"""The reproduction of the multi-exit curves: measuring, verdicts on made-up curves, the page."""

import itertools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from algos import ppo
from benchmarks.harness.experiments import Results
from benchmarks.harness.page import PLOTTED
from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.multi_exit import claims, page
from benchmarks.reproduce.multi_exit import curves as measuring
from benchmarks.reproduce.multi_exit.curves import (
    ACO,
    DEFAULTS,
    DEVICE_ONLY,
    EDGE_ONLY,
    FIXED,
    LEARNED,
    OPTIMUM,
    SHARED_ACO,
    SPINN,
    Measured,
    Setting,
)
from mec_jax.episodes import evaluation_keys
from mec_jax.physics.multi_exit import split_costs
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


def over(**settings: Any) -> Measured:
    """What was measured, of curves by setting, alike in both set-ups."""
    found = {name: Setting(BANDWIDTHS, {"image": curves, "video": curves}) for name, curves in settings.items()}
    return Measured(found, {}, {}, {}, Results())


def status(claim_id: str, curves: Any) -> Status:
    claim = next(claim for claim in claims.CLAIMS if claim.id == claim_id)
    return claim.judge(over(**{DEFAULTS: curves})).status


SLIGHTLY = {"latency": 1.08, "energy": 1.08, "cost": 1.08}
EVERY = {"latency": 1.5, "energy": 1.5, "cost": 1.5}
FALLING = np.array([10, 5, 2, 1, 1, 1])
RISING = np.array([1, 1, 1, 2, 3, 4])


VERDICTS: list[tuple[str, Any, Status]] = [
    ("I1", {"SPINN-EAR": SLIGHTLY}, Status.HOLDS),
    ("I1", {}, Status.FAILS),  # no worse is not enough
    ("I1", {"SPINN-EAR": EVERY}, Status.FAILS),  # nor is far better slightly better
    ("I1", {"SPINN-EAR": SLIGHTLY | {"cost": 0.9}}, Status.ONLY_WHEN),
    ("I2", {}, Status.HOLDS),
    ("I2", {OPTIMUM: {"latency": 3, "cost": 3}}, Status.FAILS),
    ("I3", {}, Status.HOLDS),
    ("I3", {"ACO-EAR": {"latency": 0.4}}, Status.ONLY_WHEN),
    ("I3", {OPTIMUM: {"latency": 3, "cost": 3}}, Status.FAILS),
    ("I4", {"FP-AR": EVERY}, Status.HOLDS),
    ("I4", {}, Status.FAILS),
    ("I5", {"Edge-only-EAR": {"energy": 0.4}}, Status.HOLDS),
    ("I5", {"Edge-only-EAR": {"energy": 0.4 * FALLING}}, Status.ONLY_WHEN),
    ("I5", {}, Status.FAILS),
    ("I6", {"Edge-only-EAR": {"latency": FALLING}}, Status.HOLDS),
    ("I6", {}, Status.FAILS),
    ("I7", {"ACO-EAR": {"energy": 0.5}, "ACO-EAR, shared": {"energy": 0.5}}, Status.HOLDS),
    ("I7", {"ACO-EAR": {"energy": 0.5}}, Status.ONLY_WHEN),
    ("I7", {}, Status.FAILS),
    ("I8", {}, Status.HOLDS),
    ("I8", {name: {"latency": 0.51, "cost": 0.51} for name in (ACO, SHARED_ACO)}, Status.FAILS),
    ("I9", {}, Status.HOLDS),
    ("I9", {"FP-AR": {"cost": 1 / RISING}}, Status.ONLY_WHEN),
    ("I9", {name: {"cost": 1 / RISING} for name in METHODS}, Status.FAILS),
    ("I10", {}, Status.HOLDS),
    ("I10", {OPTIMUM: {"cost": 3}}, Status.FAILS),
    ("V1", {"SPINN-EAR": {"cost": 1.04}}, Status.HOLDS),
    ("V1", {"SPINN-EAR": {"cost": 1.3, "energy": 1.3, "latency": 1.3}}, Status.FAILS),
    ("V2", {}, Status.FAILS),
    ("V3", {OPTIMUM: {"latency": 3, "cost": 3}}, Status.FAILS),
    ("V4", {"FP-AR": {"energy": 1.1, "latency": 0.9}}, Status.FAILS),
    ("V4", {"FP-AR": {"energy": 0.9, "latency": 1.1}}, Status.HOLDS),
    ("V4", {"FP-AR": {"latency": 1.1}}, Status.ONLY_WHEN),
    ("V5", {DEVICE_ONLY: EVERY, EDGE_ONLY: EVERY}, Status.HOLDS),
    ("V5", {}, Status.FAILS),
    ("V6", {}, Status.HOLDS),
    ("V6", {OPTIMUM: {"latency": 3, "cost": 3}}, Status.FAILS),
]


@pytest.mark.parametrize(("claim_id", "factors", "expected"), VERDICTS)
def test_verdicts_follow_the_curves(claim_id: str, factors: Any, expected: Status) -> None:
    assert status(claim_id, made_up(**factors)) is expected


def test_every_claim_has_curves_that_fail_it() -> None:
    assert {claim for claim, _, found in VERDICTS if found is Status.FAILS} == {claim.id for claim in claims.CLAIMS}


def test_a_learned_policy_is_what_claims_on_it_are_judged_by() -> None:
    curves = made_up()
    assert status("I3", curves) is Status.HOLDS
    curves[LEARNED] = {metric: np.full(len(BANDWIDTHS), 3.0) for metric in measuring.METRICS}
    assert status("I3", curves) is Status.FAILS


def test_what_the_left_out_numbers_decide_is_undetermined() -> None:
    claim = next(claim for claim in claims.CLAIMS if claim.id == "I3")
    verdict = claim.judge(over(**{DEFAULTS: made_up(), "w = 0.9": made_up(Optimum={"latency": 3, "cost": 3})}))
    assert verdict.status is Status.UNDETERMINED
    assert verdict.text.startswith(
        f"holds in 1 of 2 settings ({DEFAULTS}); does not hold in 1 of 2 settings (w = 0.9). "
    )


def test_the_exits_of_least_work_are_those_of_brute_force() -> None:
    env, params = mec_jax.make("MultiExitAllocation-v0")
    params = params.replace(branch_flops=0.3 * params.layer_flops)  # so that it matters
    found = np.asarray(measuring.cheapest_exits(params).exit_installed)
    flops, branch, leave = (
        np.asarray(x, float) for x in (params.layer_flops, params.branch_flops, params.exit_probability)
    )
    for device in range(env.num_devices):
        work = {}
        for chosen in itertools.product((False, True), repeat=env.num_layers - 1):
            installed = np.array([*chosen, True])
            inside, total = 1.0, 0.0
            for layer in range(env.num_layers):
                total += inside * (flops[device, layer] + installed[layer] * branch[device, layer])
                if installed[layer]:
                    inside = 1 - leave[device, : layer + 1].sum()
            work[chosen] = total
        assert min(work, key=work.__getitem__) == tuple(found[device, :-1])
    assert 0 < found[:, :-1].sum() < found[:, :-1].size


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


@pytest.mark.full
def test_a_trained_policy_decides_in_the_environment_it_was_trained_for() -> None:
    env, _ = mec_jax.make("MultiExitAllocation-Compressed-v0")
    counts: Any = {"num_frames": 20_000, "num_envs": 512, "rollout": 1, "updates_per_chunk": 5}
    found = measuring.learned_curves(env, (10,), 2, ppo.Config(**counts, trunk=(32,), critic=(32,)))
    random = measuring.measure(env, [{}], (10,))[0]["Random"]["cost"]
    assert found["cost"].shape == (2, 1) and (found["cost"] > 0).all() and (found["cost"] < random).all()


@pytest.mark.full
def test_the_page_is_written_from_measured_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = ppo.Config(num_frames=1024, num_envs=512, rollout=1, updates_per_chunk=1, trunk=(8,), critic=(8,))
    monkeypatch.setitem(ppo.PRESETS, "bandit", ppo.PRESETS["bandit"]._replace(config=tiny))
    set_everywhere(
        monkeypatch,
        "benchmarks.reproduce.multi_exit",
        SENSITIVITY={DEFAULTS: {}, "w = 0.9": {"latency_weight": 0.9}},
        JOINT={"f_e = 5, D_j of 1 bit": {"edge_speed": 5e12, "features": 1 / 32}},
        SETUPS={"image": "MultiExitAllocation-v0", "video": "MultiExitAllocation-v0"},
        BANDWIDTHS=(1, 30, 100),
        JOINT_BANDWIDTHS=(1, 5, 30, 100),
        DRAWS=1,
        SEEDS=2,
        CHAINS=(),
    )
    monkeypatch.setattr(policies, "FIXED_SPLIT_SHARES", 10)
    page.main(["--out", str(tmp_path)])
    text, arrays = (tmp_path / "README.md").read_text(), (tmp_path / PLOTTED).read_text()
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    for claim in claims.CLAIMS:
        assert f"| {claim.id} | {claim.where}: {claim.words} | **" in text
    measured = page.load(tmp_path)
    default = measured.settings[DEFAULTS].curves["image"]
    assert len(default) == 9 and all(len(curve["cost"]) == 3 for curve in default.values())
    for name, curve in default.items():
        assert (curve["cost"] >= default[OPTIMUM]["cost"] * (1 - 1e-5)).all(), name
        np.testing.assert_allclose(curve["cost"], (curve["latency"] + curve["energy"]) / 2, rtol=1e-5)
    assert text.count("| w = 0.9 |") == 2  # in both tables of the sensitivity
    assert measured.splits["image"].shape == (3, 5) and measured.learned["video"]["cost"].shape == (2, 3)
    page.main(["--out", str(tmp_path), "--page"])  # from the same data
    assert ((tmp_path / "README.md").read_text(), (tmp_path / PLOTTED).read_text()) == (text, arrays)
