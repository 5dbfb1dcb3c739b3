"""Optimizers of compressed inference against enumeration, each other and the bound."""

import json
import re
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from benchmarks.harness.results import RESULTS, ROOT
from benchmarks.reproduce.mu.quoted import MEASURED, OPTIMA, SAMPLED, optima_name
from mec_jax.physics.accuracy import Predictor, anchored, input_names, inputs, predict, predictor
from mec_jax.physics.compression import CompressibleCosts, costs, strategy_of
from mec_jax.profiles.compression import NO_CODEC, SETTINGS, compressible
from mec_jax.profiles.regressors import from_sklearn
from mec_jax.solvers import latency as plain_cuts
from mec_jax.solvers.compression import (
    BASELINES,
    BEYOND,
    BUDGET,
    PER_SCENARIO,
    SPACES,
    Config,
    Found,
    Problem,
    Relaxed,
    all_local,
    all_server,
    best_of_restarts,
    cma_es,
    compare,
    energy,
    enumerated,
    evaluate,
    lower_bound,
    mqhoa,
    neurosurgeon,
    optimum,
    plain,
    problem,
    random_search,
    relaxed,
    three_layers,
)
from mec_jax.solvers.compression.mqhoa import _best_before

pytestmark = pytest.mark.slow

SMALL = three_layers()
SMALL_COSTS = costs(SMALL)
SMALL_MODEL = anchored(SMALL, 0.9)
ALEXNET = compressible("alexnet")
QUICK = Config(scales=6, draws=3, sweeps=2, moves=2)
EQUAL = 1e-5
"""Two programs of one law: its some 40 roundings each, at most eps / 2 of it, and as many for what is subtracted."""


def scenarios(number: int, seed: int, of: CompressibleCosts, model: Predictor, **more: float) -> Problem:
    """Problems `[scenario]`: devices, links and servers from slow to fast, so that every kind of cut is best in one."""
    rng = np.random.default_rng(seed)
    times = 1 if of.width.shape[0] == 3 else 1000  # the small network's work
    device = times * 10 ** rng.uniform(5, 9, number)
    rate, server = 10 ** rng.uniform(4, 8, number), times * 10 ** rng.uniform(9, 11, number)
    each = jax.vmap(lambda *numbers: problem(of, model, *numbers, **more), out_axes=PER_SCENARIO)  # type: ignore[arg-type]
    return each(jnp.array(device, float), jnp.array(rate, float), jnp.array(server, float))


jitted_bound = jax.jit(jax.vmap(lower_bound, (None, 0, 0, 0)))


def bounds(of: Relaxed, problems: Problem) -> np.ndarray:
    """What nothing goes below, s [scenario]."""
    return np.asarray(jitted_bound(of, problems.device_speed, problems.rate, problems.server_speed))


def gentle(rng: np.random.Generator, number: int, units: int) -> np.ndarray:
    """Points of all variables, [number, variable]: strategies that prune few units, and most of them little."""
    points = rng.random((number, units + 9))
    points[:, :units] *= rng.random((number, 1)) ** 2 * (rng.random((number, units)) < 0.4)
    return points


def boosted(network: str) -> tuple[CompressibleCosts, Predictor]:
    """Gradient boosting, fitted to the declared law with noise."""
    net = compressible(network)
    of, law = costs(net), anchored(net, 0.9)
    rng = np.random.default_rng(0)
    read = jax.jit(jax.vmap(lambda point: inputs(of, strategy_of(of, point), 60.0)))
    seen = np.asarray(read(gentle(rng, 400, len(net.units))))
    accuracy = np.asarray(jax.vmap(lambda x: predict(law, x))(jnp.array(seen))) + rng.normal(0, 0.001, len(seen))
    fitted = GradientBoostingRegressor(n_estimators=40, random_state=0).fit(seen, accuracy)
    return of, predictor(from_sklearn(fitted, input_names(net), 0.9))


# The energy and the spaces


def test_the_energy_ranks_the_budget_before_the_latency() -> None:
    each = problem(SMALL_COSTS, SMALL_MODEL, 1e7, 1e5, 1e10)
    none, little, much = (
        evaluate(each, plain(each, jnp.array(7))._replace(sparsity=jnp.full(3, psi))) for psi in (0.0, 0.5, 0.8)
    )
    assert none.allowed and none.energy == none.latency and none.accuracy == np.float32(0.9)
    assert not little.allowed and not much.allowed
    assert none.energy < BEYOND <= little.energy < much.energy, "the less it loses the better"
    assert much.latency < none.latency


def test_a_rate_of_nothing_is_no_reason_to_break_the_budget() -> None:
    each = problem(SMALL_COSTS, SMALL_MODEL, 1e7, 0.0, 1e10)
    sends = evaluate(each, plain(each, jnp.array(0)))
    assert sends.allowed and sends.latency == jnp.inf and sends.energy < BEYOND


@pytest.mark.parametrize(("first", "last"), [(5, 4), (-1, 3), (0, 8)])
def test_no_cut_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="give places 0 <= first <= last <= 7"):
        problem(SMALL_COSTS, SMALL_MODEL, 1e7, 1e6, 1e10, first_cut=first, last_cut=last)


@pytest.mark.parametrize("name", [name for name in SPACES if name != "Joint"])
def test_a_baseline_varies_what_it_may_and_nothing_else(name: str) -> None:
    space, of = SPACES[name], costs(ALEXNET)
    each = problem(of, anchored(ALEXNET), 1e9, 1e6, 1e13)
    assert {name: space.variables(each) for name, space in SPACES.items()} == {
        "Joint": 16,
        "Prune_Partition": 8,
        "2-Step Pruning": 3,
        "FPGM": 2,
        "BottleNet++": 9,
        "CIA": 3,
    }
    points = np.random.default_rng(0).random((40, space.variables(each)))
    found = jax.jit(jax.vmap(lambda point: evaluate(each, space.strategy(each, point))))(points).strategy
    different = [len(np.unique(np.round(psi, 2))) for psi in np.asarray(found.sparsity)]
    prunes, packs = name != "BottleNet++", name in ("BottleNet++", "CIA")
    assert (np.asarray(found.sparsity).max() > 0) == prunes
    assert bool((np.asarray(found.codec) != np.array(NO_CODEC)).any()) == packs
    assert len(np.unique(found.cut)) > 10
    if name in ("FPGM", "CIA"):
        assert np.ptp(np.asarray(found.sparsity), axis=1).max() < 1 / 64 + 1e-3, "one sparsity, in whole channels"
    if name == "Prune_Partition":
        assert min(different) > 4
    if name == "CIA":
        shares = [setting.name.endswith("share") for setting in SETTINGS]
        others = np.asarray(found.codec)[:, ~np.array(shares)]
        assert (others == np.array(NO_CODEC)[~np.array(shares)]).all()


def test_two_step_pruning_prunes_once_more_before_the_split() -> None:
    of = costs(ALEXNET)
    each = problem(of, anchored(ALEXNET), 1e9, 1e6, 1e13)
    for cut in (1, 3, 9, 16):  # the feature of conv1, conv1, conv4, fc1
        at = (cut + 0.5) / 22
        psi = SPACES["2-Step Pruning"].strategy(each, jnp.array([0.2, 0.8, at])).sparsity
        (other,) = np.flatnonzero(psi > 0.5)
        assert other == int(of.feature[cut]) == {1: 0, 3: 0, 9: 3, 16: 5}[cut]
        np.testing.assert_allclose(np.delete(psi, other), 0.19, rtol=1e-5)


# MQHOA


@pytest.fixture(scope="module")
def small() -> tuple[Problem, np.ndarray]:
    """Ten scenarios of the small network, and the optimum of each in s."""
    problems = scenarios(10, 0, SMALL_COSTS, SMALL_MODEL)
    every = enumerated(SMALL, SMALL_COSTS, SMALL_MODEL)
    of_all = jax.jit(jax.vmap(optimum, (None, 0, 0, 0)))
    seconds, strategies = of_all(every, problems.device_speed, problems.rate, problems.server_speed)
    found = jax.jit(jax.vmap(evaluate, (PER_SCENARIO, 0)))(problems, strategies)
    assert found.allowed.all(), "what enumeration gives is within the budget"
    np.testing.assert_allclose(found.latency, seconds, rtol=EQUAL)
    assert len(np.unique(strategies.cut)) > 2, "scenarios must tell cuts apart"
    return problems, np.asarray(seconds)


@pytest.mark.parametrize("accept", ["own", "global"])
@pytest.mark.slow
def test_mqhoa_is_within_1_percent_of_the_enumerated_optimum(
    accept: str, small: tuple[Problem, np.ndarray], optimised: None
) -> None:
    problems, seconds = small
    config = Config(accept=accept)  # type: ignore[arg-type]

    @jax.jit
    @partial(jax.vmap, in_axes=(PER_SCENARIO, 0))
    def solve(each: Problem, key: jax.Array) -> Found:
        return best_of_restarts(SPACES["Joint"], config, each, jax.random.split(key, 32)).best

    found = solve(problems, jax.random.split(jax.random.key(0), 10))
    assert found.allowed.all()
    ratio = np.asarray(found.latency, float) / seconds
    assert ratio.min() > 1 - EQUAL, "nothing is better than the optimum"
    assert ratio.max() < 1.01


@pytest.mark.full
def test_a_run_keeps_the_best_it_saw_and_ends() -> None:
    each = problem(SMALL_COSTS, SMALL_MODEL, 1e7, 1e6, 1e10)
    space = SPACES["Prune_Partition"]
    run = jax.jit(jax.vmap(lambda key: mqhoa(space, QUICK, each, key)))(jax.random.split(jax.random.key(0), 32))
    assert run.best.allowed.mean() > 0.9
    assert run.steps.min() >= 2 * QUICK.scales
    most = QUICK.scales * QUICK.moves * (QUICK.sweeps * QUICK.draws + 1)
    assert run.steps.max() <= most, "every loop has a cap"
    np.testing.assert_allclose(run.best.energy, jax.vmap(lambda z: energy(space, each, z))(run.variables), rtol=EQUAL)


def test_a_run_is_never_worse_than_its_start() -> None:
    each = problem(SMALL_COSTS, SMALL_MODEL, 1e6, 1e4, 1e10)
    space, start = SPACES["FPGM"], jnp.array([0.0, 1.0])  # all local, as it was
    runs = jax.jit(jax.vmap(lambda key: mqhoa(space, QUICK, each, key, start)))(jax.random.split(jax.random.key(0), 32))
    assert (runs.best.energy <= all_local(each).energy * (1 + EQUAL)).all()


@pytest.mark.full
@pytest.mark.slow
def test_more_scales_find_better_places() -> None:
    each = problem(SMALL_COSTS, SMALL_MODEL, 1e7, 1e5, 1e10)
    medians = []
    for scales in (1, 12):
        config = Config(scales=scales)
        solve = jax.jit(jax.vmap(lambda key, config=config: mqhoa(SPACES["Joint"], config, each, key).best.energy))
        medians.append(float(jnp.median(solve(jax.random.split(jax.random.key(0), 64)))))
    assert medians[1] < 0.7 * medians[0], "5.3 and 2.7 ms"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"particles": 0}, "particles"),
        ({"shrink": 1.0}, "shrink is 1.0: give a number above 1"),
        ({"accept": "globl"}, "did you mean 'global'"),
        ({"draws": 1.5}, "draws"),
    ],
)
def test_a_wrong_configuration_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**wrong)


def test_as_printed_a_draw_must_beat_the_best_of_all_at_its_turn() -> None:
    found = jnp.array([4.0, 2.0, 2.5, jnp.inf, 1.0])  # one after the other; the fourth did not draw
    assert _best_before(jnp.array(3.0), found).tolist() == [3, 3, 2, 2, 2]


# Other searches


@pytest.mark.full
def test_random_search_gets_nearer_with_more_samples(small: tuple[Problem, np.ndarray]) -> None:
    problems, seconds = small
    keys = jax.random.split(jax.random.key(0), 10)
    means = []
    for samples in (64, 4096):
        search = jax.vmap(
            lambda each, key, n=samples: random_search(SPACES["Joint"], each, key, n, 64), (PER_SCENARIO, 0)
        )
        found = jax.jit(search)(problems, keys)
        assert (np.asarray(found.latency) > seconds * (1 - EQUAL))[np.asarray(found.allowed)].all()
        means.append(float(jnp.mean(jnp.log(found.energy))))
    assert means[1] < means[0]


def test_cma_es_finds_what_two_variables_need(monkeypatch: pytest.MonkeyPatch) -> None:
    each = problem(SMALL_COSTS, SMALL_MODEL, 1e6, 1e4, 1e10)  # slow link: all local, and one sparsity for all
    found = cma_es(SPACES["FPGM"], each, seed=1, evaluations=400, start=np.array([0.1, 0.9]))
    assert found.allowed and found.latency < all_local(each).latency
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(ValueError, match=r"pip install 'mec-jax\[compress\]'"):
        cma_es(SPACES["FPGM"], each, seed=1)


# Baselines


def test_plain_baselines_are_those_of_the_cut_alone() -> None:
    """All_Local, All_Server and Neurosurgeon against `mec_jax.solvers.latency`, which knows no compression."""
    workload = plain_cuts.workload(ALEXNET.layers)
    for device, rate in ((2e8, 1.19e6), (3e9, 54.19e6), (326.4e9, 11.22e6)):
        each = problem(costs(ALEXNET), anchored(ALEXNET), device, rate, plain_cuts.SERVER, first_cut=1, last_cut=20)
        for ours, theirs in (
            (all_local, plain_cuts.all_local),
            (all_server, plain_cuts.all_server),
            (neurosurgeon, plain_cuts.neurosurgeon),
        ):
            found, expected = jax.jit(ours)(each), theirs(workload, device, plain_cuts.SERVER, rate)
            np.testing.assert_allclose(found.latency, expected.latency, rtol=EQUAL)
            assert found.strategy.cut == expected.cut and found.allowed


@pytest.mark.full
@pytest.mark.slow
def test_no_baseline_beats_the_joint_search_nor_anything_the_bound() -> None:
    problems = scenarios(100, 1, SMALL_COSTS, SMALL_MODEL, snr_db=10.0)
    keys = jax.random.split(jax.random.key(0), 100)
    found = jax.vmap(lambda each, key: compare(each, key, QUICK, 2), (PER_SCENARIO, 0))(problems, keys)
    assert set(found) == {*BASELINES, "Joint"} and len(BASELINES) == 8
    bound = bounds(relaxed(SMALL_COSTS, SMALL_MODEL, 10.0), problems)
    for name, each in found.items():
        assert (found["Joint"].energy <= each.energy * (1 + EQUAL)).all(), name
        assert (bound <= each.latency)[np.asarray(each.allowed)].all(), name
        assert each.allowed.mean() > 0.9, name


# The bound


def test_the_bound_is_below_the_optimum_and_of_its_size(small: tuple[Problem, np.ndarray]) -> None:
    problems, seconds = small
    bound = bounds(relaxed(SMALL_COSTS, SMALL_MODEL), problems)
    assert (bound <= seconds).all()
    assert np.median(bound / seconds) > 0.4, "each unit has the whole budget: some of it is lost, not most"


@pytest.mark.parametrize("name", ["alexnet", "regnet_x_400mf", "boosted alexnet"])
def test_no_allowed_point_is_below_the_bound(name: str) -> None:
    """Where the bound would have to be wrong: at many points near the network as it was, where most are allowed."""
    network = compressible(name.split()[-1])
    of, model = boosted("alexnet") if "boosted" in name else (costs(network), anchored(network))
    problems = scenarios(20, 2, of, model)
    bound = bounds(relaxed(of, model), problems)
    rng = np.random.default_rng(0)
    points = gentle(rng, 400, len(network.units))
    space = SPACES["Joint"]
    at_points = jax.vmap(lambda each, point: evaluate(each, space.strategy(each, point)), (None, 0))
    found = jax.jit(jax.vmap(at_points, (PER_SCENARIO, None)))(problems, points)
    allowed = np.asarray(found.allowed)
    assert 0.05 < allowed.mean() < 0.95
    assert (np.asarray(found.latency) >= bound[:, None])[allowed].all()


def test_no_budget_leaves_what_is_not_compressed() -> None:
    problems = scenarios(5, 3, SMALL_COSTS, SMALL_MODEL)
    bound = bounds(relaxed(SMALL_COSTS, SMALL_MODEL, budget=0.0), problems)
    best = np.asarray(jax.jit(jax.vmap(neurosurgeon, (PER_SCENARIO,)))(problems).latency)
    # The least limit of a sparsity is one step of the grid, which may be a channel.
    assert (bound <= best).all() and (bound > 0.7 * best).all()
    assert (bounds(relaxed(SMALL_COSTS, SMALL_MODEL, budget=-0.01), problems) == np.inf).all()


def test_a_greater_budget_is_never_worse() -> None:
    assert BUDGET == 0.02
    problems = scenarios(5, 4, SMALL_COSTS, SMALL_MODEL)
    budgets = (0.0, 0.005, 0.02, 0.1)
    found = np.stack([bounds(relaxed(SMALL_COSTS, SMALL_MODEL, budget=budget), problems) for budget in budgets])
    assert (np.diff(found, axis=0) <= 0).all() and (found[0] > found[-1]).any()


def test_the_readme_says_what_was_measured() -> None:
    plans, measured = ((RESULTS / f"{name}.txt").read_text() for name in ("compression_plans", "compression"))
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("| `CompressedInference-v0`") :].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    told = {name.split(" (")[0].split(",")[0]: numbers for name, *numbers in cells}
    rows = re.findall(r"^  (\S.*?) +(-?[\d.]+) +(-?[\d.]+) +([\d.]+) +[\d.]+%$", plans, re.M)
    assert told.keys() == {name for name, *_ in rows} and len(rows) >= 11
    for name, value, score, ratio in rows:
        numbers = [cell.partition(" [")[0] for cell in told[name]]
        assert [float(numbers[0]), float(numbers[2])] == [round(float(value), 2), round(float(score), 2)], name
        assert float(numbers[1]) == pytest.approx(float(ratio), rel=0.005), name  # three digits
    intervals = {name: f"[{low}, {high}]" for name, low, high in re.findall(r"(\w+) \[(-?[\d.]+), (-?[\d.]+)\]", plans)}
    assert [cell.partition(" ")[2] for cell in told["PPO"]] == [
        intervals[name] for name in ("return", "ratio", "score")
    ]
    words = " ".join(readme.split())
    (own,) = re.findall(r"MQHOA, own place, 256 restarts .* (100 of 100) +([\d.]+)%", measured)
    assert f"{own[0]} scenarios, one run in {own[1]} %" in words
    (fast, slow) = (re.findall(rf"^  {name} +([\d.]+)$", plans, re.M)[0] for name in ("PPO, .*NumPy", "MQHOA as .*"))
    assert f"plans in {float(fast):.1f} ms where MQHOA takes {float(slow):.0f} ms" in words


def test_the_readme_says_how_many_optima_keep_the_accuracy() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    kept = []
    for kind, network in ((SAMPLED, "alexnet"), (SAMPLED, "regnet_x_400mf"), (MEASURED, "alexnet")):
        files = (RESULTS / "mu" / "data").glob(f"{optima_name(network, kind)}*.json")
        each = [json.loads(path.read_text())["accuracy"] for path in files]
        assert len(each) == OPTIMA
        kept.append(sum(one["as it was"] - one["compressed"] <= BUDGET + 1e-9 for one in each))
    assert f"Of {OPTIMA} optima {kept[0]} (AlexNet) and {kept[1]} (RegNet) lose no more than 2 %" in words
    assert f"after a round of them was fitted again {kept[2]} (AlexNet)" in words


def test_the_readme_says_how_fast_it_was() -> None:
    speed, decisions = ((RESULTS / f"compression_{name}.txt").read_text() for name in ("speed", "decisions"))
    words = " ".join((ROOT / "README.md").read_text().split())
    (rate, ratio), *_ = re.findall(r"GradientBoostingRegressor +(\S+) +\S+ +(\S+)", speed)
    (many,) = re.findall(r"anchored: side by side .*: ([\d.]+) times as fast", speed)
    (frames,) = re.findall(r"^CompressedInference-v0 +(\S+)", decisions, re.M)
    assert f"{frames} decisions/s at 4096 lanes; gradient boosting predicts {rate} candidates/s, {ratio} times" in words
    assert f"1000 runs of MQHOA side by side are {many} times as fast" in words
    assert f"Compressed inference ({speed.partition(', cpu')[0]})" in words
