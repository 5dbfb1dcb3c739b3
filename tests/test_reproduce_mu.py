"""Mu et al. 2024: what is drawn and kept of compressed networks, and claims that hold and fail on made-up numbers."""

import csv
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.mu import regressors, samples
from benchmarks.reproduce.mu.claims import CLAIMS, Data
from benchmarks.reproduce.mu.experiments import METHODS, NETWORKS, PI, TK1, chain
from benchmarks.reproduce.mu.page import REPRODUCTION, load
from benchmarks.reproduce.mu.quoted import MEASURED, OPTIMA, QUOTED, SAMPLED
from benchmarks.reproduce.mu.regressors import REGRESSORS, read_samples
from benchmarks.reproduce.mu.samples import NO_NOISE, Drawn, draw
from mec_jax.physics.compression import costs, flops
from mec_jax.profiles.compression import COMPRESSIBLE, NO_CODEC, compressible
from mec_jax.split.bottleneck import Settings
from mec_jax.split.images import Images, Labelled

BEST = "GradientBoostingRegressor"


@pytest.mark.parametrize("network", COMPRESSIBLE)
def test_networks_are_drawn_by_their_number_within_the_space(network: str) -> None:
    space = compressible(network)
    drawn = [draw(space, number) for number in range(150)]
    assert drawn[0].sparsity == (0.0,) * len(space.units) and drawn[0].codec == NO_CODEC and drawn[0].snr == NO_NOISE
    assert drawn == [draw(space, number) for number in range(150)] and len(set(drawn)) == 150
    for one in drawn:
        assert space.cuts[0] < one.cut < space.cuts[-1] and 0 < one.snr <= NO_NOISE
        flat = len(space.layers[one.cut - 1].output_shape) == 1
        Settings.of(one.codec, flat)  # which refuses what is out of range
        assert (one.codec[:4] if flat else one.codec[4:]) == NO_CODEC[:4]
        assert space.sent_bits(one.sparsity, one.cut, one.codec) > 0
    mean = np.mean([one.sparsity for one in drawn], 0)
    assert (mean > 0.1).all() and (mean < 0.4).all()


def test_a_stopped_table_goes_on_and_regressors_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = compressible("alexnet")

    def result(base: nn.Module, of: Any, drawn: Drawn, images: Images, number: int) -> dict[float, float]:
        if number == stop_at:
            raise KeyboardInterrupt
        lost = sum(drawn.sparsity) / 50
        return {NO_NOISE: 0.9 - lost} | ({drawn.snr: 0.85 - lost} if drawn.snr != NO_NOISE else {})

    part = Labelled(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    images = Images("made-up", part, part, ("a", "b"), torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    monkeypatch.setattr(regressors, "RESULTS", tmp_path)
    monkeypatch.setattr(samples, "load_images", lambda name: images)
    monkeypatch.setattr(samples, "trained", lambda network, images: nn.Sequential(nn.Flatten(), nn.Linear(48, 2)))
    monkeypatch.setattr(samples, "measured", result)
    path = regressors.samples_table("alexnet", "made-up")
    stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        samples.main("alexnet", "made-up", range(6))
    assert [row["number"] for row in csv.DictReader(path.open())] == ["0", "1", "1", "2", "2"]
    stop_at = 99
    samples.main("alexnet", "made-up", range(6))
    rows = list(csv.DictReader(path.open()))
    assert [int(row["number"]) for row in rows] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    for row in rows:
        drawn = draw(space, int(row["number"]))
        assert [float(row[f"sparsity/{unit.name}"]) for unit in space.units] == list(drawn.sparsity)
        assert float(row["snr_db"]) in (drawn.snr, NO_NOISE)
    read = read_samples(path, space)
    assert len(read.accuracy) == 11 and len(set(read.network.tolist())) == 6


def test_a_chain_costs_what_its_layers_cost() -> None:
    network, psi = chain(4, width=8), (0.0, 0.5, 0.25, 0.75)
    counted = [layer.flops for layer in network.pruned(psi)]
    assert counted == [(2 * 8 - 1) * 8, (2 * 8 - 1) * 4, (2 * 4 - 1) * 6, (2 * 6 - 1) * 2, (2 * 2 - 1) * 10]
    assert np.asarray(flops(costs(network), jnp.array(psi))).tolist() == counted


# Claims


def made_up(
    gain: float = 2.4, local: float = 1e3, lost: float = 0.01, off: float = 0.0, power: float = 1.0, best: str = BEST
) -> Data:
    """Results where the joint search is so many times as fast as the second best and `local` times as All_Local."""
    rates, results = [1e4, 1e6, 1e8], Results()
    curve = np.array([3.0, 2.0, 1.0])
    others = {name: (curve * gain * 2).tolist() for name in METHODS}
    of = others | {"Joint": curve.tolist(), "FPGM": (curve * gain).tolist(), "All_Local": [local * 3] * 3}
    server = {"All_Server": [1e3, 400, 0.5]}
    for network in NETWORKS:
        short = network.partition("_")[0]
        for device in (PI, TK1):
            curves = of | (server if device == PI else {"All_Server": [4e3, 2e3, 1e3]})
            name = f"rates_{short}_anchored_{device.split()[-1]}"
            results[name] = {"experiment": {"rates": rates}, "latency": curves, "everywhere": of}
        both = {name: [2.0, 2.0] for name in METHODS if not name.startswith("All_")} | {"Joint": [1.0, 1.0 * gain]}
        results[f"cuts_{short}_anchored"] = {"flops": both, "bits": both}
        for number in range(OPTIMA):
            for predictor in (SAMPLED, MEASURED):
                kept = {"accuracy": {"as it was": 0.9, "compressed": 0.9 - lost}}
                results[f"optimum_{predictor}_{short}_{number:02d}"] = kept
    noisy = of | {"All_Local": [90.0] * 3, "All_Server": [80.0, 60.0, 30.0]}
    allowed = {name: [True] * 3 for name in METHODS}
    results["noise_anchored"] = {"experiment": {"snrs": [0, 25, 50]}, "latency": noisy, "allowed": allowed}
    results["running_time"] = {"variables": [4, 8, 16], "seconds": [4**power, 8**power, 16**power]}
    claimed = {name: 0.9 - loss - off for name, (loss, _, _) in QUOTED.items()}
    results["quoted_points"] = {"accuracy": {"as it was": 0.9, **claimed}}
    table = {
        name: {
            "mse": [1e-4],
            "adjusted_r2": [0.8 if name == best else 0.5],
            "aic": [-9.0],
            "bic": [-9.0 - (name == best)],
        }
        for name in REGRESSORS
    }
    table[best]["aic"] = [-10.0]
    return Data(results, "anchored", {network: {"table": table} for network in NETWORKS})


def statuses(data: Data) -> dict[str, Status]:
    return {claim.id: claim.verdict(data).status for claim in CLAIMS}


def test_claims_hold_where_numbers_are_the_papers_and_better() -> None:
    found = statuses(made_up())
    assert {"e1", "f1", "g1", "h1", "k1", "k3", "l", "m", "n1", "n2", "o", "p", "q"} <= {
        name for name, status in found.items() if status is Status.HOLDS
    }


@pytest.mark.parametrize(
    ("data", "failing"),
    [
        (made_up(gain=0.5), {"e1", "f1", "g1", "h1", "k1", "o"}),
        (made_up(power=1.5), {"l"}),
        (made_up(lost=0.03), {"p", "q"}),
        (made_up(off=0.02), {"n1", "n2"}),
        (made_up(best="LinearRegression"), {"m"}),
    ],
)
def test_claims_fail_on_numbers_that_are_none_of_theirs(data: Data, failing: set[str]) -> None:
    found = statuses(data)
    assert {name: found[name] for name in failing if found[name] is Status.HOLDS} == {}


def test_a_loss_of_just_the_budget_is_within_it() -> None:
    assert 0.9 - (0.9 - 0.02) > 0.02  # in floating point
    assert statuses(made_up(lost=0.02))["p"] is Status.HOLDS


def test_claims_on_noise_need_methods_within_the_accuracy_budget() -> None:
    data = made_up()
    allowed = data.results["noise_anchored"]["allowed"]
    allowed |= {name: [False, True, True] for name in METHODS if name != "Joint"}
    assert {statuses(data)[claim] for claim in ("k1", "k2")} == {Status.UNDETERMINED}
    allowed |= {"Joint": [False, True, True], "All_Local": [True] * 3}
    assert {statuses(data)[claim] for claim in ("k1", "k2")} == {Status.FAILS}


def test_a_method_counts_at_the_noise_where_it_is_within_the_accuracy_budget() -> None:
    data = made_up()
    assert statuses(data)["k1"] is Status.HOLDS
    noise = data.results["noise_anchored"]
    noise["latency"] |= {"All_Server": [0.1, 0.1, 0.1]}
    noise["allowed"] |= {"All_Server": [False, False, True]}
    assert statuses(data)["k1"] is Status.ONLY_WHEN
    noise["allowed"] |= {"All_Server": [False, False, False]}
    assert statuses(data)["k1"] is Status.HOLDS


def test_the_figures_and_claims_of_the_committed_data_are_the_pages() -> None:
    data = load(REPRODUCTION.results)
    assert {f"rates_{short}_anchored_{device}" for short in ("alexnet", "regnet") for device in ("3B+", "TK1")} <= set(
        data.results
    )
    fixed = {claim.id: claim.verdict(data).status for claim in CLAIMS if claim.id in "abcd"}
    assert fixed == {"a": Status.HOLDS, "b": Status.HOLDS, "c": Status.ONLY_WHEN, "d": Status.HOLDS}
