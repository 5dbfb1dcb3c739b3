"""The reproduction command: experiments that are kept, verdicts on made-up data, the page."""

import dataclasses
import json
import math

import numpy as np
import pytest

from algos.mahppo import Config, HParams
from benchmarks.harness import experiments, verdicts
from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import Status
from benchmarks.reproduce.mahppo import claims, page, theorem
from benchmarks.reproduce.mahppo import experiments as runs
from benchmarks.reproduce.mahppo import plan as plans
from benchmarks.reproduce.mahppo.experiments import CoderSpeeds, Policies, Rulers, Scenario, Surrogate, Training
from mec_jax.profiles import load_profile

pytestmark = pytest.mark.slow

TINY = Training(
    "tiny",
    Scenario(2),
    Config(128, num_envs=4, rollout=8, epochs=1, minibatches=1, updates_per_chunk=2, trunk=(8,), head=4, critic=(8,)),
    HParams(),
    seeds=2,
    points=({"beta": 0.1, "actor_lr": 1e-2}, {"beta": 10.0, "actor_lr": 0.0}),
)
SEEDS, CHUNKS = 5, 20


def test_an_experiment_is_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "EVALUATION_EPISODES", 2)  # few lanes compile faster
    experiments.measure_all([TINY], tmp_path, jobs=1)
    file = experiments.result_file(tmp_path, "tiny")
    results, before = Results.load(tmp_path), file.stat().st_mtime_ns
    assert results["tiny"]["frames"] == [0, 64, 128]
    assert results.curve("tiny", "episode_return").shape == (2, 2, 3)
    assert results.final("tiny", "latency").shape == (2, 2)
    learnt, untrained = results.curve("tiny", "energy")  # by point
    assert len(np.unique(learnt)) == 6
    assert np.all(untrained == untrained[:, :1])  # with a learning rate of 0 nothing is learnt
    tasks, energy = results.final("tiny", "finished"), results.final("tiny", "energy")
    np.testing.assert_allclose(results.final("tiny", "total_energy"), tasks * energy, rtol=1e-3)
    assert np.all(results.final("tiny", "cut_off") == 0)

    experiments.measure_all([TINY], tmp_path, jobs=1)
    assert file.stat().st_mtime_ns == before
    assert not experiments.is_measured(dataclasses.replace(TINY, seeds=3), tmp_path)
    file.write_text(file.read_text()[:-100])
    assert not experiments.is_measured(TINY, tmp_path)


def test_surrogate_is_a_profile_with_larger_and_slower_features(tmp_path):
    env, _ = Scenario(2, "resnet18", Surrogate(), {"frame_time": 3.0}).make(tmp_path)
    jalad, bundled = env.profiles[0], load_profile("resnet18")
    assert jalad == load_profile(tmp_path / "profiles" / "jalad_resnet18.json")
    assert jalad.bits[1:-1] == (802816 / 1, 401408 / 1, 200704 / 1, 100352 / 1)  # 4 bit a value
    assert jalad.front_time[-1] == bundled.front_time[-1]
    np.testing.assert_allclose(np.subtract(jalad.front_time, bundled.front_time)[1], 64 * 56 * 56 * 8 / 20e6)
    energy = np.multiply(jalad.front_time, jalad.front_power) - np.multiply(bundled.front_time, bundled.front_power)
    np.testing.assert_allclose(energy[1:-1], np.subtract(jalad.front_time, bundled.front_time)[1:-1] * 1.0)


# Verdicts


def around(*means):
    """Five seeds around each mean, [point, seed]."""
    return np.array(means, float)[:, None] + 0.01 * np.arange(-2, 3)


def test_trend():
    x = [1, 2, 3, 4]
    assert verdicts.trend("x", x, around(1, 2, 3, 4), True, "").status == Status.HOLDS
    assert verdicts.trend("x", x, around(1, 2, 3, 4), False, "").status == Status.FAILS
    assert verdicts.trend("x", x, around(4, 3, 2, 1), False, "").status == Status.HOLDS
    assert verdicts.trend("x", x, around(1, 1, 1, 1), True, "").status == Status.FAILS
    assert verdicts.trend("x", x[:2], around(1, 2), True, "").status == Status.NOT_RUN
    assert "1.00 [1.00, 1.00]" in verdicts.trend("x", x, around(1, 2, 3, 4), True, "").text


def test_beyond_tells_points_apart():
    values, bounds = around(1, 2), np.array([1.5, 1.5])
    verdict = verdicts.beyond("x", [7, 8], values, bounds, below=True, unit="s")
    assert verdict.status == Status.ONLY_WHEN and verdict.text.startswith("x = 7: 1 [")
    assert verdicts.beyond("x", [7, 8], values - 1, bounds, below=True, unit="s").status == Status.HOLDS
    assert verdicts.beyond("x", [7, 8], values, bounds - 1, below=True, unit="s").status == Status.FAILS
    unsure = np.array([[1.0, 2.0, 1.0, 2.0, 1.4]])
    assert verdicts.beyond("x", [7], unsure, np.array([1.5]), below=True, unit="s").status == Status.FAILS


def test_greater_together_and_of_surrogate():
    holds = verdicts.greater(np.arange(5) + 10.0, np.arange(5.0), ("a", "b"))
    fails = verdicts.greater(np.arange(5.0), np.arange(5.0), ("a", "b"))
    assert (holds.status, fails.status) == (Status.HOLDS, Status.FAILS)
    assert verdicts.together({"a": holds, "b": holds}).status == Status.HOLDS
    assert verdicts.together({"a": fails, "b": fails}).status == Status.FAILS
    assert verdicts.together({"a": fails, "b": holds}).status == Status.ONLY_WHEN
    assert claims.of_surrogate(holds).status == Status.ONLY_WHEN
    assert claims.of_surrogate(fails).status == Status.NOT_PUBLIC


def test_converged_settling_and_reaching():
    frames = list(range(0, 1000, 50))
    flat = np.minimum(np.linspace(-5, 5, 20), -1)[None] * np.ones((5, 1))
    rising = np.linspace(-5, -1, 20)[None] * np.ones((5, 1))
    assert verdicts.converged("N", [5], [flat], -1.8).status == Status.HOLDS
    assert verdicts.converged("N", [5], [rising], -1.8).status == Status.FAILS
    assert verdicts.frames_to_reach(rising, frames, -3).tolist() == [500] * 5
    assert verdicts.frames_to_reach(rising, frames, 0).tolist() == [950] * 5  # never
    assert verdicts.settling_frames(flat, frames, 0.5).tolist() == [350] * 5
    assert verdicts.settling_frames(np.full((2, 20), 3.0), frames, 0.5).tolist() == [0, 0]


def test_wrong_order():
    assert theorem.wrong_order(np.array([1, 2, 3.0]), np.array([1, 2, 3.0])) == 0
    assert theorem.wrong_order(np.array([1, 2, 3.0]), np.array([2, 1, 3.0])) == pytest.approx(1 / 3)
    assert theorem.wrong_order(np.array([1, 1.0]), np.array([2, 1.0])) == 0  # the proxy says nothing
    assert math.isclose(theorem.wrong_order(np.array([1, 2.0]), np.array([2, 1.0]), np.eye(2, dtype=bool)), 0)


# The page


def made_up(experiment):
    """A result like what the paper describes: costs rise with N, latency rises and energy falls with beta."""
    generator = np.random.default_rng(0)
    if isinstance(experiment, Policies):
        number = 60
        frames = generator.integers(10, 40, number)
        energy = generator.uniform(10, 90, number)
        columns = {
            "kind": [0] * number,
            "frames": frames,
            "finished": [1000] * number,
            "makespan": 0.5 * frames - 0.25,
            "total_energy": energy,
            "return_0": -0.5 * frames**2 / 1000,
            "return_slope": -energy * frames / 1000,
            "cut_off": [0] * number,
        }
        return {"policies": {name: np.asarray(column).tolist() for name, column in columns.items()}}
    n = experiment.scenario.num_ues
    if isinstance(experiment, Training):
        noise = 1 + 0.002 * generator.standard_normal((len(experiment.points), SEEDS))
        beta = np.array([[point.get("beta", 0.47)] for point in experiment.points])
        slow = 3 if experiment.scenario.jalad else 1
        latency = slow * noise * (0.018 + 0.001 * n + 0.004 * np.log10(1 + beta))
        energy = slow * noise * (0.018 + 0.003 * n - 0.005 * np.log10(1 + beta))
        final = {
            "episode_return": -noise * n / 4,
            "frames": latency / 0.5 * 200,
            "finished": 200.0 * n * np.ones_like(noise),
            "latency": latency,
            "task_latency": latency - 1e-3,
            "energy": energy,
            "total_energy": 200 * n * energy,
            "objective": 200 * (latency + n * beta * energy) - 0.25,
            "cut_off": np.zeros_like(noise),
        }
        fall = np.exp(-np.arange(CHUNKS) / 2)
        curves = {
            "episode_return": final["episode_return"][..., None] * (1 + 8 * fall),
            "latency": latency[..., None] * (1 + fall),
            "energy": energy[..., None] * (1 + fall),
            "value_loss": noise[..., None] * (0.01 + fall),
        }
        tables = {"final": final, "curves": curves}
        listed = {key: {name: value.tolist() for name, value in table.items()} for key, table in tables.items()}
        return {"frames": list(range(0, 1000 * CHUNKS, 1000)), "frames_per_s": None, **listed}
    number = len(experiment.coder_rates if isinstance(experiment, CoderSpeeds) else experiment.points)
    local = {"latency": 0.0475, "task_latency": 0.045887, "energy": 0.0984, "episode_return": -1.83}
    local |= {"objective": 200 * (0.045887 + n * 0.47 * 0.0984)}
    ways = {"Local": 1.0, "Best static": 0.6}
    return {"rulers": {way: {name: [x * value] * number for name, value in local.items()} for way, x in ways.items()}}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Folder with made-up results of everything."""
    folder = tmp_path_factory.mktemp("results")
    machine = {"cpu": "abacus", "cores": 1, "device": "cpu", "python": "3"}
    machine |= dict.fromkeys(("mec-jax", "jax", "jaxlib", "flax"), "1")
    for experiment in [one for several in plans.plan(9_999, SEEDS, (3, 5, 10)).values() for one in several]:
        content = {"experiment": experiments.description(experiment), "machine": machine, "wall_s": 9.0}
        file = experiments.result_file(folder, experiment.name)
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content | made_up(experiment)))
    return folder


def test_the_page_has_all_figures_and_verdicts(measured, capsys):
    page.main(["--frames", "9999", "--ues", "3", "5", "10", "--out", str(measured)])
    assert capsys.readouterr().out.startswith("0 experiments to run")  # all are there with these settings
    text = (measured / "README.md").read_text()
    for name in page.TITLES:
        assert (measured / f"{name}.png").stat().st_size > 10_000
        assert f"({name}.png)" in text
    assert "not run" not in text and "of another command" not in text and "nan" not in text
    assert text.count("\n| ") >= len(claims.CLAIMS)


def test_made_up_data_get_the_verdicts_they_were_made_for(measured):
    results = Results.load(measured)
    statuses = {claim.words: claim.verdict(results).status for claim in claims.CLAIMS}
    assert statuses["Latency rises with beta"] == Status.HOLDS
    assert statuses["Energy falls as beta rises"] == Status.HOLDS
    assert statuses["Below 0.1, beta matters little"] == Status.HOLDS
    assert statuses["Its savings shrink as N grows"] == Status.HOLDS
    assert statuses["MAHPPO needs less than Local at every N"] == Status.HOLDS
    assert statuses["JALAD always needs more than Local"] == Status.NOT_PUBLIC  # energy: less at N = 3
    assert statuses["With JALAD's features nothing beats running locally (ResNet18)"] == Status.NOT_PUBLIC
    assert statuses["The objective of P2 is an upper bound of that of P1"] == Status.FAILS
    assert statuses["For small beta, the better of two policies in P2 is the better in P1"] == Status.HOLDS
    assert statuses["The cumulative reward is minus the objective of P2"] == Status.HOLDS


@pytest.mark.parametrize(
    ("latency", "energy", "status", "words"),
    [
        (0.020, 0.02, Status.HOLDS, "-56 %, in whole frames -58 %"),
        (0.0207, 0.02, Status.ONLY_WHEN, "mean of the seeds, in whole frames"),
        (0.0225, 0.02, Status.FAILS, "-51 %, in whole frames -53 %"),
        (0.020, 0.04, Status.FAILS, "-59 %"),
    ],
)
def test_the_savings_are_told_with_both_denominators(measured, monkeypatch, latency, energy, status, words):
    monkeypatch.setattr(claims, "known_costs", lambda profile, n: None)
    results = Results.load(measured)
    final = results["mahppo_resnet18_n3"]["final"]
    final["latency"], final["energy"] = [[latency] * SEEDS], [[energy] * SEEDS]
    verdict = claims.fig11_savings(results)
    assert verdict.status == status and words in verdict.text


def test_the_savings_count_the_best_known_plan(measured, monkeypatch):
    results = Results.load(measured)
    monkeypatch.setattr(claims, "known_costs", lambda profile, n: {"latency": 0.020, "energy": 0.023})
    verdict = claims.fig11_savings(results)
    assert verdict.status == Status.ONLY_WHEN and verdict.text.startswith("one counts: best known plan.")


def test_missing_results_are_named(measured):
    results = Results.load(measured)
    del results["jalad_resnet18_n5"]
    verdict = claims.CLAIMS[0].verdict(results)
    assert verdict == verdicts.Verdict(Status.NOT_RUN, "lacks jalad_resnet18_n5")


def test_plan_shares_experiments_between_figures():
    figures = plans.plan(100_000, 5, (3, 5))
    by_name: dict[str, experiments.Experiment] = {}
    for several in figures.values():
        for experiment in several:
            assert by_name.setdefault(experiment.name, experiment) == experiment
    assert isinstance(by_name["rulers_beta"], Rulers)
    memories = [by_name[f"memory_{memory}"] for memory in plans.MEMORIES]
    for memory, training in zip(plans.MEMORIES, memories, strict=True):
        assert isinstance(training, Training)
        assert training.config.num_envs * training.config.rollout == memory
