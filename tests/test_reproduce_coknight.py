"""The reproduction of Coknight's figures: measuring, verdicts on made-up curves, the page."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.coknight import data, figures, page, partition, partition_claims, timeline, timeline_claims
from benchmarks.reproduce.coknight.data import NUM_CUTS
from benchmarks.reproduce.coknight.partition import (
    BY_DENSITY,
    BY_UTILITY,
    DEFP,
    ELASTIC,
    FIXED,
    IGREEDY,
    MILP,
    NASH,
    OWN_SPEEDS,
    Times,
)
from benchmarks.reproduce.coknight.timeline import FITTED, V100, Curves, World
from mec_jax.physics.partition_game import is_feasible
from tests.patching import set_everywhere

pytestmark = pytest.mark.slow

ROWS = len(timeline.NETWORKS) + len(timeline.BANDWIDTHS)
N = np.arange(1, timeline.MOST_ACTORS + 1)
SIZES = (8, 16, 32)
TIMES = Times((8, 16, 32), np.array([1.0, 4.0, 16.0]), (5, 10, 20), np.array([1.0, 2.0, 4.0]))


def world(seed: Any = 100.0, ours: Any = 100.0, impala: Any = 100.0, use: Any = 0.5, traffic: Any = 1.0) -> World:
    """Curves of both GPUs; what is given fits [bandwidth, actor] or, use and traffic, [bandwidth, cut, actor]."""
    throughput = np.empty((ROWS, NUM_CUTS + 1, N.size))
    throughput[:, 1:-1] = np.broadcast_to(ours, (ROWS, N.size))[:, None]
    throughput[:, 0], throughput[:, -1] = seed, impala
    curves = Curves(throughput, *(np.broadcast_to(x, throughput.shape) for x in (use, traffic)))
    return World({FITTED: 0.01, V100: 0.002}, {FITTED: curves, V100: curves})


def by_cut(**values: float) -> np.ndarray:
    """[bandwidth, cut, actor] with these values at cuts named c0, c1 and so on, 0.1 elsewhere."""
    column = np.full((1, NUM_CUTS + 1, 1), 0.1)
    for name, value in values.items():
        column[0, int(name[1:])] = value
    return column


def by_network(**values: float) -> np.ndarray:
    """[bandwidth, actor] with these values at 10 MB/s (`limit`) and at the last bandwidth (`last`), 100 elsewhere."""
    column = np.full((ROWS, 1), 100.0)
    column[1], column[-1] = values.get("limit", 100.0), values.get("last", 100.0)
    return column


LOGGED = by_cut(c0=11.25, c3=10.56, c4=9.88, c10=2.0)
SATURATING = 100 * N / (N + 1)
LATE = np.where(N < 36, 0.9, 1.2) * 100


@pytest.mark.parametrize(
    ("claim_id", "curves", "expected"),
    [
        ("C1", {}, Status.NOT_RUN),
        ("G1", {"use": by_cut(c0=0.95)}, Status.HOLDS),
        ("G1", {}, Status.NOT_PUBLIC),
        ("G2", {"use": by_cut(c4=0.6)}, Status.HOLDS),
        ("G2", {"use": by_cut(c4=0.7)}, Status.FAILS),
        ("G3", {"use": by_cut(c0=0.9)}, Status.HOLDS),
        ("G3", {"use": by_cut(c0=0.9), "ours": by_network(limit=80)}, Status.ONLY_WHEN),
        ("G3", {"use": by_cut(c0=0.9), "ours": 80.0}, Status.FAILS),
        ("G3", {}, Status.FAILS),
        ("T1", {"traffic": by_cut(c0=11.4)}, Status.HOLDS),
        ("T1", {"traffic": by_cut(c0=5.0)}, Status.FAILS),
        ("T2", {"traffic": LOGGED}, Status.HOLDS),
        ("T2", {"traffic": LOGGED * np.where(np.arange(NUM_CUTS + 1) == 4, 2, 1)[:, None]}, Status.ONLY_WHEN),
        ("T3", {"ours": 91.0}, Status.HOLDS),
        ("T3", {"ours": 100.0}, Status.ONLY_WHEN),  # cut 3 is near it, cut 4 is not
        ("T3", {"ours": 50.0}, Status.FAILS),
        ("T4", {"seed": by_network(limit=90)}, Status.HOLDS),
        ("T4", {}, Status.FAILS),
        ("B1", {"seed": by_network(last=10)}, Status.HOLDS),
        ("B1", {"seed": by_network(last=60)}, Status.FAILS),
        ("B2", {"seed": by_network(last=10), "ours": by_network(last=50)}, Status.HOLDS),
        ("B2", {"seed": by_network(last=10), "ours": by_network(last=10)}, Status.FAILS),
        ("B3", {"ours": by_network(last=30), "impala": by_network(last=31)}, Status.HOLDS),
        ("B3", {"ours": by_network(last=30)}, Status.FAILS),
        ("S1", {"ours": LATE}, Status.HOLDS),
        ("S1", {"ours": 50.0}, Status.FAILS),  # not slightly
        ("S1", {"ours": 110.0}, Status.FAILS),
        ("S2", {"ours": LATE}, Status.HOLDS),
        ("S2", {"ours": 110.0}, Status.FAILS),
        ("S2", {"ours": 90.0}, Status.FAILS),
        ("S3", {}, Status.ONLY_WHEN),  # an actor's rate alone
        ("S3", {"seed": 1000.0 / N, "ours": 1000.0 / N}, Status.HOLDS),
        ("S3", {"seed": 10.0 * N, "ours": 10.0 * N}, Status.FAILS),
        ("S4", {"ours": LATE}, Status.HOLDS),
        ("S4", {"ours": SATURATING}, Status.FAILS),
        ("R1", {"ours": 101.0}, Status.HOLDS),
        ("R1", {"ours": 100.0}, Status.FAILS),
        ("R2", {"ours": 99.0}, Status.HOLDS),
        ("R2", {"ours": 100.0}, Status.FAILS),
    ],
)
def test_verdicts_follow_the_timelines(claim_id: str, curves: Any, expected: Status) -> None:
    claim = next(claim for claim in timeline_claims.TIMELINE_CLAIMS if claim.id == claim_id)
    verdict = claim.judge(world(**curves))
    assert verdict.status is expected, verdict.text


def table(**changes: Any) -> partition.Reductions:
    """Every algorithm as good as the optimum, but for `name__metric=value` or `name__metric__server=value`."""
    names = {"milp": MILP, "defp": DEFP, "igreedy": IGREEDY, "density": BY_DENSITY, "utility": BY_UTILITY, "nash": NASH}
    found = {
        server: {name: {m: np.full((len(SIZES), 2), 1.0) for m in partition.METRICS} for name in names.values()}
        for server in (ELASTIC, FIXED)
    }
    for key, value in changes.items():
        name, metric, *server = key.split("__")
        for place in server or (ELASTIC, FIXED):
            found[place][names[name]][metric] = np.broadcast_to(np.reshape(value, (-1, 1)), (len(SIZES), 2))
    return found


ALL_FAR = {f"{name}__reduction": 0.5 for name in ("igreedy", "density", "utility")}
ALL_LOCAL = {
    f"{name}__{metric}": x
    for name in ("igreedy", "density", "utility")
    for metric, x in (("local", 2), ("var_cut", 0.5))
}


@pytest.mark.parametrize(
    ("claim_id", "changes", "expected"),
    [
        ("P1", {}, Status.HOLDS),
        ("P1", {"defp__reduction__elastic": (1, 0.9, 1)}, Status.ONLY_WHEN),
        ("P1", {"defp__reduction": 0.9}, Status.FAILS),
        ("P2", ALL_FAR, Status.HOLDS),
        ("P2", ALL_FAR | {"utility__reduction": 1}, Status.ONLY_WHEN),
        ("P2", {}, Status.FAILS),
        ("P3", {"defp__var_cut": 0.5, "defp__var_utility": 0.5}, Status.HOLDS),
        ("P3", {"defp__var_cut": 0.5}, Status.ONLY_WHEN),
        ("P3", {"milp__var_cut": 0, "milp__var_utility": 0}, Status.FAILS),  # nothing is less than 0
        ("P4", {"defp__reduction": (0.8, 0.9, 1)}, Status.HOLDS),
        ("P4", {"defp__reduction": (1, 1, 0.98)}, Status.FAILS),
        ("P5", {}, Status.HOLDS),
        ("P5", {"defp__reduction": (1, 1, 0.5)}, Status.ONLY_WHEN),
        ("P6", ALL_LOCAL, Status.HOLDS),
        ("P6", {}, Status.FAILS),
        ("P7", {}, Status.HOLDS),
        ("P7", {"nash__reduction__fixed": 0.5}, Status.ONLY_WHEN),
        ("P8", {}, Status.HOLDS),
    ],
)
def test_verdicts_follow_the_partitions(claim_id: str, changes: Any, expected: Status) -> None:
    claim = next(claim for claim in partition_claims.PARTITION_CLAIMS if claim.id == claim_id)
    verdict = claim.judge(table(**changes), SIZES, TIMES)
    assert verdict.status is expected, verdict.text


def test_cubic_growth_is_no_quadratic_one() -> None:
    claim = next(claim for claim in partition_claims.PARTITION_CLAIMS if claim.id == "P8")
    cubic = TIMES._replace(by_size=np.array(TIMES.sizes, float) ** 3)
    assert claim.judge(table(), SIZES, cubic).status is Status.FAILS
    np.testing.assert_allclose(partition_claims.power(TIMES.sizes, TIMES.by_size), 2)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ([1, 2, 3, 4], None),
        ([2, 2, 4, 5], 1),
        ([0, 2, 3, 9], 2),
        ([0, 9, 0, 9], 4),
        ([0, 2.5, 3, 4], 2),  # faster, then alike
    ],
)
def test_a_crossing_is_for_good(ours: list[float], expected: int | None) -> None:
    assert timeline.crossing(np.array([1.0, 2, 3, 4]), np.array(ours, float)) == expected


def test_the_timeline_is_fitted_to_what_it_says() -> None:
    found = timeline.measure({})
    fast = found.at(V100, "100 Mbit/s")
    np.testing.assert_allclose(found.at(FITTED, "100 Mbit/s").edge_use[0, data.ACTORS - 1], data.NEEDED_USE, rtol=0.01)
    impala = fast.traffic[NUM_CUTS, data.ACTORS - 1]  # f_d is fitted as if nothing else took time
    np.testing.assert_allclose(impala, data.LOGS["IMPALA"], rtol=0.05)
    assert (fast.traffic <= data.FAST_ETHERNET / 8 / data.MIB * (1 + 1e-5)).all()
    bits = np.array(data.TABLE.bits) + data.TRAJECTORY_BITS
    np.testing.assert_allclose(fast.throughput[3, -1], fast.throughput[1, -1] * bits[1] / bits[3], rtol=1e-3)  # full
    assert (np.diff(found.fig10(V100), axis=1) <= 1e-3).all(), "less bandwidth makes no one faster"
    even = timeline.measure({"even": 1})
    uses = even.at(FITTED, "1 Gbit/s").edge_use / even.at(FITTED, "1 Gbit/s").throughput
    np.testing.assert_allclose(uses[3], uses[0], rtol=1e-3)


def test_batches_steady_service_and_small_frames_change_what_they_should() -> None:
    plain, batched = timeline.measure({}), timeline.measure({"batch": 8, "shared": 0.5})
    at = "1 Gbit/s"
    assert (batched.at(V100, at).throughput[0, 20:] > plain.at(V100, at).throughput[0, 20:]).all()
    steady = timeline.measure({"steady": 1})
    assert (steady.at(V100, at).throughput >= plain.at(V100, at).throughput * (1 - 1e-5)).all()
    small = timeline.measure({"pixel_bytes": 1})
    assert small.at(V100, "100 Mbit/s").throughput[0, -1] > 2 * plain.at(V100, "100 Mbit/s").throughput[0, -1]
    np.testing.assert_allclose(small.at(V100, at).throughput[4], plain.at(V100, at).throughput[4], rtol=1e-5)


def test_crossings_of_the_map_are_those_of_the_timeline() -> None:
    found = timeline.measure({}).at(V100, "1 Gbit/s").throughput
    edge_time = data.WORK / data.V100_SPEED
    place = timeline.crossing_map(4, np.array([edge_time]), np.array([data.DEVICE_SPEED]))
    assert place[0, 0] == timeline.crossing(found[0], found[4])


def test_measures_of_an_allocation() -> None:
    gains = np.array([[3.0, 1, 0], [5, 4, 0], [2, 2, 0], [9, 9, 0]])
    found = partition.measures(gains, np.array([0, 1, 2, 2]))
    assert found == {"reduction": 7 / 4, "var_cut": 0.6875, "var_utility": np.var([3, 4, 0, 0]), "local": 0.5}


def test_a_game_has_the_times_and_capacities_that_the_page_says() -> None:
    speeds = jnp.array([1e9, 1e10])
    numbers = partition.game_numbers({})
    elastic, fixed = (partition.game(speeds, jnp.array(x), numbers) for x in (True, False))
    local = data.WORK / np.array([1e9, 1e10])
    bits = 8 * (4 * data.PIXELS) + data.TABLE.bits[-1]
    edge = data.WORK / data.V100_SPEED + bits / data.FAST_ETHERNET
    np.testing.assert_allclose(elastic.utility[:, 0], local - edge, rtol=1e-4)
    everyone = jnp.ones(2, bool)
    one, both = jnp.array([0, NUM_CUTS]), jnp.array([0, 0])  # half an inference each: one of two can be at the edge
    assert is_feasible(elastic, one, everyone) and not is_feasible(elastic, both, everyone)
    assert is_feasible(fixed, both, everyone)  # it has what 32 devices get


def test_partitions_keep_below_the_optimum_and_within_capacity() -> None:
    rows = [{}, {"compute": 0.25, "bandwidth": 0.25}]
    tables = partition.partitions(rows, (8,), 2)
    assert (tables[1][ELASTIC][MILP]["reduction"] < tables[0][ELASTIC][MILP]["reduction"]).all(), "half the capacity"
    for found in tables:
        for server in found.values():
            for name, values in server.items():
                assert (values["reduction"] <= server[MILP]["reduction"] * (1 + 1e-5)).all(), name
                assert ((values["local"] >= 0) & (values["local"] <= 1)).all()
    speeds = jnp.asarray(partition.DEVICE_SPEEDS)[jnp.arange(8) % 3]
    one = partition.game(speeds, jnp.array(True), partition.game_numbers({}))
    random = jax.jit(partition.random_cuts)
    cuts = [np.asarray(random(one, key).cut) for key in jax.random.split(jax.random.key(0), 5)]
    assert all(is_feasible(one, jnp.asarray(cut), jnp.ones(8, bool)) for cut in cuts)
    assert len({cut.tobytes() for cut in cuts}) > 1


def test_the_page_is_written_from_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_everywhere(
        monkeypatch,
        "benchmarks.reproduce.coknight",
        SENSITIVITY={"defaults": {}, "f_d = 10 GFLOP/s": {"device_speed": 1e10}},
        GAMES={"defaults": {}, OWN_SPEEDS: {"own_speeds": 1}},
        SIZES=(4, 8),
        DRAWS=2,
        SIZES_TIMED=(2, 3, 4),
        CUTS_TIMED=(2, 3, 4),
        DEVICES_TIMED=4,
        REPEATS=1,
        EDGE_TIMES=figures.EDGE_TIMES[::15],
        SPEEDS=figures.SPEEDS[::15],
    )
    page.main(["--out", str(tmp_path)])
    text = (tmp_path / "README.md").read_text()
    for name in ("fig9", "fig10", "fig11", "fig12"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert f"({name}.png)" in text
    for claim in (*timeline_claims.TIMELINE_CLAIMS, *partition_claims.PARTITION_CLAIMS):
        assert f"| {claim.id} | {claim.words} | **" in text
    assert "Fig. 8, the convergence of the three frameworks with V-trace, is not reproduced here." in text
    content = json.loads((tmp_path / "data.json").read_text())
    assert np.shape(content["throughput"][V100]) == (3, NUM_CUTS + 1, len(content["actors"]))
    assert np.shape(content["fig12"][OWN_SPEEDS][ELASTIC][DEFP]["reduction"]) == (2, 2)
    assert text.count("| f_d = 10 GFLOP/s |") == 1 and text.count(f"| {OWN_SPEEDS} |") == 1
    assert f"{content['throughput'][V100][0][0][4]:.1f} / " in text  # Seed-RL with 12 actors, in the table of cuts
