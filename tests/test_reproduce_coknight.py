"""The reproduction of Coknight's figures: measuring, verdicts on made-up results, the page."""

import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.harness.page import render
from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.coknight import (
    __main__,
    cases,
    data,
    figures,
    frameworks,
    measure,
    measured,
    partition,
    partition_claims,
    theorems,
    timeline,
    windows,
)
from benchmarks.reproduce.coknight.data import (
    ACTORS,
    BY_DENSITY,
    BY_UTILITY,
    DEFAULTS,
    DEFP,
    ELASTIC,
    FITTED,
    FIXED,
    IGREEDY,
    LIMITED,
    MILP,
    NASH,
    NUM_CUTS,
    OWN_SPEEDS,
    ROOMY,
    V100,
    WIRED,
)
from benchmarks.reproduce.coknight.measured import (
    CrossingMap,
    Knapsacks,
    Measured,
    Operations,
    Potential,
    Table,
    World,
)
from benchmarks.reproduce.coknight.page import REPRODUCTION
from mec_jax.physics import actor_learner
from mec_jax.physics.partition_game import is_feasible
from tests.patching import set_everywhere

pytestmark = pytest.mark.slow

CLAIMS = {claim.id: claim for claim in REPRODUCTION.claims}
N = np.arange(1, data.MOST_ACTORS + 1)
SIZES = (8, 16, 32)
OPERATIONS = Operations(
    sizes=SIZES,
    by_size=np.array([1.0, 4.0, 16.0]),
    cuts=(5, 10, 20),
    by_cuts=np.array([1.0, 4.0, 16.0]),
    devices=8,
    agreed=6,
    games=6,
    seconds={512: 0.1},
)

# Made-up results


def world(
    seed: Any = 100.0,
    ours: Any = 100.0,
    impala: Any = 100.0,
    use: Any = 0.5,
    traffic: Any = 1.0,
    seed10: Any = 100.0,
    ours10: Any = 100.0,
    impala10: Any = 100.0,
    gpu: str = FITTED,
) -> World:
    """What is given fits [network, actor]; use and traffic [network, cut]; and [bandwidth] of Fig. 10."""
    shape = len(data.NETWORKS), NUM_CUTS + 1
    throughput = np.empty((*shape, N.size))
    throughput[:, 1:-1] = np.broadcast_to(ours, (shape[0], N.size))[:, None]
    throughput[:, 0], throughput[:, -1] = seed, impala
    fig10 = np.empty((shape[1], len(data.BANDWIDTHS)))
    fig10[1:-1], fig10[0], fig10[-1] = ours10, seed10, impala10
    return World(gpu, 0.01, throughput, np.broadcast_to(use, shape), np.broadcast_to(traffic, shape), fig10)


def by_cut(**values: float) -> np.ndarray:
    """[cut] with these values at cuts named c0, c1 and so on, 0.1 elsewhere."""
    column = np.full(NUM_CUTS + 1, 0.1)
    for name, value in values.items():
        column[int(name[1:])] = value
    return column


def limited(rate: float) -> np.ndarray:
    """[network, actor] with this rate at 10 MB/s, 100 elsewhere."""
    return np.array([[100.0], [rate], [100.0]])


def falling(last: float) -> np.ndarray:
    """[bandwidth], this at the last of Fig. 10, 100 elsewhere."""
    return np.append(np.full(len(data.BANDWIDTHS) - 1, 100.0), last)


def table(**changes: Any) -> Table:
    """Every algorithm as good as the optimum, but for `name__metric=value` or `name__metric__server=value`."""
    names = {"milp": MILP, "defp": DEFP, "igreedy": IGREEDY, "density": BY_DENSITY, "utility": BY_UTILITY, "nash": NASH}
    found = {
        server: {name: {m: np.full((len(SIZES), 6), 1.0) for m in data.METRICS} for name in names.values()}
        for server in (ELASTIC, FIXED)
    }
    for key, value in changes.items():
        name, metric, *server = key.split("__")
        for place in server or (ELASTIC, FIXED):
            values = np.asarray(value, float)
            found[place][names[name]][metric] = np.broadcast_to(
                values if values.ndim == 2 else np.reshape(values, (-1, 1)), (len(SIZES), 6)
            )
    return Table(SIZES, found)


def made_up(**changes: Any) -> Measured:
    """Results with one setting of the timeline, alike with both GPUs, and one of the games.

    Args:
        changes: Arguments of `world` and `table`, or parts of `Measured`.
    """
    parts = {name: changes.pop(name) for name in Measured._fields if name in changes}
    of_table = {name: changes.pop(name) for name in list(changes) if "__" in name}
    whole: dict[str, Any] = {
        "machine": {},
        "seconds": 1.0,
        "worlds": {DEFAULTS: {gpu: world(**changes, gpu=gpu) for gpu in (FITTED, V100)}},
        "crossings": CrossingMap(np.ones(1), np.ones(1), {}),
        "windows": {},
        "tables": {DEFAULTS: table(**of_table)},
        "operations": OPERATIONS,
        "knapsacks": Knapsacks(10, (3, 5), 10, 10),
        "potential": Potential(10, 10, 10, 10, 5.0),
    }
    return Measured(**whole | parts)


TRAFFIC = by_cut(c0=11.25, c3=10.56, c4=9.88, c10=2.0)
SATURATING = 100 * N / (N + 1)
LATE = np.where(N < 36, 0.9, 1.2) * 100
ALL_FAR = {f"{name}__reduction": 0.5 for name in ("igreedy", "density", "utility")}
ALL_LOCAL = {
    f"{name}__{metric}": x
    for name in ("igreedy", "density", "utility")
    for metric, x in (("local", 2), ("var_cut", 0.5))
}
NOISY = np.linspace(0.85, 1.05, 6) * np.ones((3, 1))
"""Near the optimum on average, but not with the whole interval."""


VERDICTS: list[tuple[str, Any, Status]] = [
    ("C1", {}, Status.NOT_RUN),
    ("G1", {"use": by_cut(c0=0.95)}, Status.HOLDS),
    ("G1", {}, Status.NOT_PUBLIC),
    ("G2", {"use": 0.6}, Status.HOLDS),
    ("G2", {"use": by_cut(c4=0.6)}, Status.ONLY_WHEN),
    ("G2", {"use": by_cut(c4=0.7)}, Status.FAILS),
    ("G3", {"use": by_cut(c0=0.9)}, Status.HOLDS),
    ("G3", {"use": by_cut(c0=0.9), "ours": limited(80)}, Status.ONLY_WHEN),
    ("G3", {"use": by_cut(c0=0.9), "ours": 80.0}, Status.FAILS),
    ("G3", {}, Status.FAILS),
    ("T1", {"traffic": by_cut(c0=11.4)}, Status.HOLDS),
    ("T1", {"traffic": by_cut(c0=5.0)}, Status.FAILS),
    ("T1", {"traffic": np.array([[11.4], [9.5], [40.0]])}, Status.FAILS),  # the cap alone does not count
    ("T2", {"traffic": TRAFFIC}, Status.HOLDS),
    ("T2", {"traffic": TRAFFIC * np.where(np.arange(NUM_CUTS + 1) == 4, 2, 1)}, Status.ONLY_WHEN),
    ("T2", {"traffic": by_cut(c0=10.7, c3=11.2, c4=10.4, c10=2.0)}, Status.FAILS),  # each within 10 %
    ("T3", {"ours": 91.0}, Status.HOLDS),
    ("T3", {"ours": 95.0}, Status.ONLY_WHEN),  # cut 3 is nearer to it than to 1, cut 4 is not
    ("T3", {"ours": 102.0}, Status.FAILS),  # the wrong sign
    ("T3", {"ours": 50.0}, Status.FAILS),
    ("T4", {"seed": limited(90)}, Status.HOLDS),
    ("T4", {}, Status.FAILS),
    ("B1", {"seed10": falling(10)}, Status.HOLDS),
    ("B1", {"seed10": falling(60)}, Status.FAILS),
    ("B2", {"seed10": falling(10), "ours10": falling(50)}, Status.HOLDS),
    ("B2", {"seed10": falling(10), "ours10": falling(10)}, Status.FAILS),
    ("B3", {"ours10": falling(30), "impala10": falling(31)}, Status.HOLDS),
    ("B3", {"ours10": falling(30)}, Status.ONLY_WHEN),  # with y = K
    ("B3", {"impala10": falling(50)}, Status.FAILS),
    ("S1", {"ours": LATE}, Status.HOLDS),
    ("S1", {}, Status.FAILS),  # alike
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
    ("R1", {"ours": 102.0}, Status.HOLDS),
    ("R1", {"ours": 143.0}, Status.FAILS),  # not slightly
    ("R1", {"ours": 100.0}, Status.FAILS),
    ("R2", {"ours": 98.0}, Status.HOLDS),
    ("R2", {"ours": 60.0}, Status.FAILS),
    ("R2", {"ours": 100.0}, Status.FAILS),
    ("P1", {}, Status.HOLDS),
    ("P1", {"defp__reduction__elastic": (1, 0.9, 1)}, Status.ONLY_WHEN),
    ("P1", {"defp__reduction": NOISY}, Status.FAILS),
    ("P1", {"defp__reduction": 0.9}, Status.FAILS),
    ("P2", ALL_FAR, Status.HOLDS),
    ("P2", ALL_FAR | {"utility__reduction": 1}, Status.ONLY_WHEN),
    ("P2", {}, Status.FAILS),
    ("P3", {"defp__var_cut": 0.5, "defp__var_utility": 0.5}, Status.HOLDS),
    ("P3", {"defp__var_cut": (0.5, 0.9, 1.1)}, Status.ONLY_WHEN),  # with few devices
    ("P3", {"milp__var_cut": 0, "milp__var_utility": 0}, Status.FAILS),  # nothing is less than 0
    ("P4", {"defp__reduction": (0.8, 0.9, 1)}, Status.HOLDS),
    ("P4", {"defp__reduction": (1, 1, 0.98)}, Status.FAILS),
    ("P5", {}, Status.HOLDS),
    ("P5", {"defp__reduction": (1, 1, 0.5)}, Status.ONLY_WHEN),
    ("P5", {"defp__reduction": (1, 1, 0.5), "milp__reduction": (1, 1, 0.5)}, Status.FAILS),
    ("P6", ALL_LOCAL, Status.HOLDS),
    ("P6", {}, Status.FAILS),
    ("P7", {}, Status.HOLDS),
    ("P7", {"nash__reduction__fixed": 0.5}, Status.ONLY_WHEN),
    ("P7", {"nash__reduction": 0.5}, Status.FAILS),
    ("P8", {}, Status.HOLDS),
    ("P8", {"operations": OPERATIONS._replace(by_size=np.array(SIZES, float) ** 3)}, Status.FAILS),
    ("P8", {"operations": OPERATIONS._replace(by_cuts=np.array([1.0, 8.0, 64.0]))}, Status.FAILS),
    ("P8", {"operations": OPERATIONS._replace(agreed=5)}, Status.FAILS),
    ("N1", {}, Status.HOLDS),
    ("N1", {"knapsacks": Knapsacks(10, (3, 5), 10, 1)}, Status.ONLY_WHEN),
    ("N1", {"knapsacks": Knapsacks(10, (3, 5), 9, 1)}, Status.FAILS),
    ("N2", {}, Status.HOLDS),
    ("N2", {"potential": Potential(10, 10, 10, 7, 5.0)}, Status.ONLY_WHEN),
    ("N2", {"potential": Potential(10, 9, 10, 7, 5.0)}, Status.FAILS),
]


@pytest.mark.parametrize(("claim_id", "changes", "expected"), VERDICTS)
def test_verdicts_follow_from_what_was_measured(claim_id: str, changes: Any, expected: Status) -> None:
    verdict = CLAIMS[claim_id].verdict(made_up(**changes))
    assert verdict.status is expected, verdict.text


def test_every_claim_that_is_judged_could_fail() -> None:
    """Timings of G1 are not public: short of knowing them, it can only say so."""
    failing = {claim_id for claim_id, _, expected in VERDICTS if expected is Status.FAILS}
    failing |= {claim_id for claim_id, _, expected in VERDICTS if expected is Status.NOT_PUBLIC}
    assert failing == set(CLAIMS) - {"C1"}
    assert [claim_id for claim_id, _, expected in VERDICTS if expected is Status.NOT_PUBLIC] == ["G1"]


def test_what_flips_over_the_settings_is_undetermined() -> None:
    """By the GPU, by a row, and only the cases that do."""
    worlds = {DEFAULTS: {FITTED: world(ours=102.0), V100: world(ours=98.0, gpu=V100)}}
    for claim_id in ("R1", "R2"):
        verdict = CLAIMS[claim_id].verdict(made_up(worlds=worlds))
        assert verdict.status is Status.UNDETERMINED and "[1 of 2] (cut 3, 100 Mbit/s)" in verdict.text
    tables = {DEFAULTS: table(), OWN_SPEEDS: table(defp__reduction__fixed=0.9)}
    verdict = CLAIMS["P1"].verdict(made_up(tables=tables))
    assert verdict.status is Status.ONLY_WHEN and verdict.text.startswith("elastic; else undetermined. ")
    tables[OWN_SPEEDS] = table(defp__reduction=(1, 0.9, 1))
    verdict = CLAIMS["P1"].verdict(made_up(tables=tables))
    assert verdict.text.startswith("elastic at N = 8, 32 / fixed at N = 8, 32; else undetermined. ")
    of_use = {DEFAULTS: 0.5, "f_d = 1 GFLOP/s": 0.95}
    uses = {row: {gpu: world(use=use, gpu=gpu) for gpu in (FITTED, V100)} for row, use in of_use.items()}
    assert CLAIMS["G1"].verdict(made_up(worlds=uses)).status is Status.UNDETERMINED


def test_in_one_setting_a_claim_is_judged_on_its_cases_alone() -> None:
    one = {claim.id: claim for claim in cases.in_one_setting(REPRODUCTION.claims)}
    assert set(one) == set(CLAIMS) - {"C1", "G1", "P8", "N1", "N2"}
    assert one["G2"].verdict(world(use=by_cut(c4=0.6))).text.startswith("cut 4, 100 Mbit/s / cut 4, 10 MB/s. GPU use")
    assert one["P1"].verdict(table(defp__reduction=(1, 0.9, 1))).text.startswith("elastic at N = 8, 32 / fixed at")


def test_the_power_of_a_square_is_two() -> None:
    np.testing.assert_allclose(partition_claims.power(SIZES, np.array(SIZES) ** 2), 2)


# The timeline


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
    assert frameworks.crossing(np.array([1.0, 2, 3, 4]), np.array(ours, float)) == expected


def test_the_timeline_is_fitted_to_what_it_says() -> None:
    found = timeline.measure({})
    fast = found[V100]
    np.testing.assert_allclose(found[FITTED].use_on(WIRED)[0], data.NEEDED_USE, rtol=0.01)
    np.testing.assert_allclose(data.WORK / found[FITTED].edge_time, data.FITTED_SPEED, rtol=0.02)
    impala = fast.traffic_on(WIRED)[NUM_CUTS]  # f_d is fitted as if nothing else took time
    np.testing.assert_allclose(impala, data.LOGS["IMPALA"], rtol=0.05)
    assert (fast.traffic_on(WIRED) <= data.FAST_ETHERNET / 8 / data.MIB * (1 + 1e-5)).all()
    bits = np.array(data.TABLE.bits) + data.TRAJECTORY_BITS
    rates = fast.rates(WIRED)[:, -1]
    np.testing.assert_allclose(rates[3], rates[1] * bits[1] / bits[3], rtol=1e-3)  # full
    assert (np.diff(fast.fig10, axis=1) <= 1e-3).all(), "less bandwidth makes no one faster"
    even = timeline.measure({"even": 1})[FITTED]
    uses = even.use_on(ROOMY) / even.rates(ROOMY)[:, ACTORS - 1]
    np.testing.assert_allclose(uses[3], uses[0], rtol=1e-3)


def test_batches_steady_service_and_small_frames_change_what_they_should() -> None:
    plain, batched = (timeline.measure(changes)[V100] for changes in ({}, {"batch": 8, "shared": 0.5}))
    assert (batched.rates(ROOMY)[0, 20:] > plain.rates(ROOMY)[0, 20:]).all()
    steady = timeline.measure({"steady": 1})[V100]
    assert (steady.rates(ROOMY) >= plain.rates(ROOMY) * (1 - 1e-5)).all()
    small = timeline.measure({"pixel_bytes": 1})[V100]
    assert small.rates(WIRED)[0, -1] > 2 * plain.rates(WIRED)[0, -1]
    # No raw frame is sent at cut 4: the same numbers go in, and other lanes beside them may round otherwise.
    np.testing.assert_allclose(small.rates(ROOMY)[4], plain.rates(ROOMY)[4], rtol=1e-5)


def test_crossings_of_the_map_are_those_of_the_timeline() -> None:
    found = timeline.measure({})[V100].rates(ROOMY)
    edge_time = data.WORK / data.V100_SPEED
    place = timeline.crossing_map((4,), np.array([edge_time]), np.array([data.DEVICE_SPEED])).actors[4]
    assert place[0, 0] == frameworks.crossing(found[0], found[4])


@pytest.mark.parametrize(("link", "edge"), [(0.012, 0.011), (0.012, 0.002), (0.001, 0.011)])
def test_simulated_seconds_have_the_means_of_the_law(link: float, edge: float) -> None:
    """To 5 standard errors, from batches of a minute, which hardly depend on each other."""
    demands = actor_learner.Demands(*map(jnp.array, (0.08, link, edge)))
    found = jax.jit(actor_learner.mean_value_analysis)(demands, jnp.ones(ACTORS))
    for seconds, use in zip(
        windows.busy_seconds(0.08, link, edge, ACTORS, 1200, seed=3), (found.link_use, found.edge_use), strict=True
    ):
        assert seconds.size == 1200 and seconds.min() >= 0 and seconds.max() <= 1 + 1e-9
        minutes = seconds.reshape(20, 60).mean(1)
        assert abs(minutes.mean() - float(use[-1])) < 5 * minutes.std() / np.sqrt(20) + 1e-4
    sent = windows.simulate(0.08, link, edge, 8e6, ACTORS, 100).traffic  # 1 MB/s while the link is busy
    assert sent.counts.sum() == 100
    # Of 100 random seconds; use of the link lies in 0 to 1, so that 0.15 is three standard errors at least.
    np.testing.assert_allclose(sent.mean, float(found.link_use[-1]), atol=0.15)
    np.testing.assert_allclose((sent.density * np.diff(sent.edges)).sum(), 1)


def test_busy_time_is_split_at_the_seconds() -> None:
    begin, until = np.array([0.0, 60.5, 61.2, 62.9]), np.array([60.25, 60.75, 62.5, 63.5])
    np.testing.assert_allclose(windows._per_second(begin, until, 63), [0.25 + 0.25, 0.8, 0.5 + 0.1])


# The games


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


@pytest.mark.full
def test_partitions_keep_below_the_optimum_and_within_capacity() -> None:
    rows = [{}, {"compute": 0.25, "bandwidth": 0.25}]
    whole, half = (found.found for found in partition.partitions(rows, (8,), 2))
    assert (half[ELASTIC][MILP]["reduction"] < whole[ELASTIC][MILP]["reduction"]).all(), "half the capacity"
    for found in (whole, half):
        for server in found.values():
            for name, values in server.items():
                assert (values["reduction"] <= server[MILP]["reduction"] * (1 + 1e-5)).all(), name
                assert ((values["local"] >= 0) & (values["local"] <= 1)).all()
    speeds = jnp.asarray(data.DEVICE_SPEEDS)[jnp.arange(8) % 3]
    one = partition.game(speeds, jnp.array(True), partition.game_numbers({}))
    random = jax.jit(partition.random_cuts)
    cuts = [np.asarray(random(one, key).cut) for key in jax.random.split(jax.random.key(0), 5)]
    assert all(is_feasible(one, jnp.asarray(cut), jnp.ones(8, bool)) for cut in cuts)
    assert len({cut.tobytes() for cut in cuts}) > 1


# The theorems


@pytest.mark.full
def test_a_knapsack_is_the_game_of_theorem_1() -> None:
    """Values, weights and capacity are those of the game, and so is the optimum, by trying all subsets of both."""
    generator = np.random.default_rng(5)
    for _ in range(10):
        one = theorems.knapsack(generator)
        game = theorems.as_game(one)
        # Differences of response times of up to 21 s, whose float32 roundings are 1e-6 each.
        np.testing.assert_allclose(game.utility, np.stack([one.values, 0 * one.values], 1), atol=1e-5)
        everyone = jnp.ones(one.values.size, bool)
        for choice in itertools.islice(itertools.product((0, 1), repeat=one.values.size), 0, None, 7):
            fits = bool(is_feasible(game, 1 - jnp.array(choice), everyone))  # item i is taken if device i is cut at 0
            assert fits == (np.array(choice) @ one.weights <= one.capacity)
    assert theorems.best_value(theorems.Knapsack(np.array([6, 5, 5]), np.array([3, 2, 2]), 4)) == 10
    found = theorems.check_knapsacks(20)
    assert found.same == found.number == 20 and found.alike < 20


def test_the_potential_is_exact_where_both_states_fit() -> None:
    found = theorems.check_potential(200)
    assert found.feasible + found.infeasible == 200 and found.feasible > 20
    assert found.feasible_equal == found.feasible and found.infeasible_equal < found.infeasible


@pytest.mark.parametrize("elastic", [False, True])
def test_the_algorithm_that_is_counted_is_the_solver(elastic: bool) -> None:
    solver = jax.jit(theorems.solvers.defp)
    for size in (1, 2, 9):
        game = theorems.random_game(size, 4)._replace(elastic=jnp.array(elastic))
        if elastic:
            game = game._replace(capacity=game.capacity // size)
        cut, operations = theorems.counted_defp(game)
        assert cut == np.asarray(solver(game).cut).tolist()
        assert 0 < operations <= size * 5 + size * (size - 1) / 2 * (5 + 5 * 6)  # each s, and each t of those that fit
        if size == 1:
            assert operations == 5


# The page


@pytest.mark.full
def test_the_page_is_written_from_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_everywhere(
        monkeypatch,
        "benchmarks.reproduce.coknight",
        SENSITIVITY={DEFAULTS: {}, "f_d = 10 GFLOP/s": {"device_speed": 1e10}},
        GAMES={DEFAULTS: {}, OWN_SPEEDS: {"own_speeds": 1}},
        SIZES=(4, 8),
        DRAWS=2,
        WINDOWS=60,
        SIZES_COUNTED=(2, 3, 4),
        CUTS_COUNTED=(2, 3, 4),
        DEVICES_COUNTED=4,
        SIZES_TIMED=(4,),
        REPEATS=1,
        KNAPSACKS=5,
        MOVES=50,
        EDGE_TIMES=timeline.EDGE_TIMES[::15],
        SPEEDS=timeline.SPEEDS[::15],
    )
    __main__.main(["--out", str(tmp_path)])
    text = (tmp_path / "README.md").read_text()
    for name in figures.FIGURES:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert f"({name}.png)" in text
    for claim in REPRODUCTION.claims:
        assert f"| {claim.id} | {claim.where}: {claim.words} | **" in text
    assert text.count("| f_d = 10 GFLOP/s, V100 |") == 1 and text.count(f"| {OWN_SPEEDS} |") == 1
    content = json.loads((tmp_path / measured.DATA).read_text())
    assert np.shape(content["worlds"][DEFAULTS][V100]["throughput"]) == (3, NUM_CUTS + 1, data.MOST_ACTORS)
    rate = content["worlds"][DEFAULTS][V100]["throughput"][0][0][ACTORS - 1]
    assert f"{rate:.1f} / " in text  # Seed-RL, in the table of cuts
    again = render(REPRODUCTION, tmp_path)
    assert again.text == text and set(again.figures) == set(figures.FIGURES)
    (tmp_path / "README.md").unlink()
    before = (tmp_path / measured.DATA).read_bytes()
    __main__.main(["--out", str(tmp_path), "--page"])
    assert (tmp_path / "README.md").read_text() == text and (tmp_path / measured.DATA).read_bytes() == before


def test_numbers_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    """But for their digits; and what never crosses is NaN."""
    world_ = timeline.measure({})[V100]
    back = measured._world(V100, json.loads(json.dumps(measure._world(world_))))
    for name in ("edge_time", "throughput", "edge_use", "traffic", "fig10"):
        np.testing.assert_allclose(getattr(world_, name), getattr(back, name), rtol=6e-5)  # five digits are kept
    assert json.loads(json.dumps(measure.shortened(np.array([1.0, np.nan])))) == [1.0, None]
    assert world_.rates(LIMITED).shape == (NUM_CUTS + 1, data.MOST_ACTORS)
