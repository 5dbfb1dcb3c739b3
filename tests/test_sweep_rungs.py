"""Successive halving and population-based training: who goes on, from what, and that a kill changes nothing."""

import csv
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algos.algorithms import algorithm
from algos.export import import_policy
from algos.run_config import new_run
from algos.sweep import Sweep, rungs, sweep
from algos.sweep.call import study_of
from algos.sweep.journal import Key
from algos.sweep.lanes import Batch, Lanes, Seen, batch
from algos.sweep.population import Crowd, Population, Rung, lengths
from algos.sweep.rungs import POLICY, SCHEDULE
from algos.sweep.tables import best_run
from mec_jax.contracts import Episodes
from mec_jax.evaluation import evaluate
from mec_jax.policy import load_policy
from tests.test_sweep import OPTIONS, ROOT, everything

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("toys")]

ENV_ID = "FadingChannel-v0"
OVER = {"hparams.actor_lr": "log:1e-4..1e-1"}
HALVING: dict[str, Any] = {**OPTIONS, "frames": 256, "schedule": "halving", "eta": 2}  # 4 chunks
PBT: dict[str, Any] = {**OPTIONS, "frames": 256, "schedule": "pbt"}


@pytest.mark.parametrize(
    ("choices", "chunks", "eta", "rungs"),
    [
        (9, 9, 3, [(9, 1), (3, 3), (1, 9)]),
        (64, 3, 3, [(64, 1), (21, 3)]),
        (7, 100, 2, [(7, 25), (3, 50), (1, 100)]),
        (1, 5, 3, [(1, 5)]),
        (5, 1, 2, [(5, 1)]),
    ],
)
def test_rungs_of_successive_halving(choices: int, chunks: int, eta: int, rungs: list[tuple[int, int]]) -> None:
    assert lengths(choices, chunks, eta) == rungs


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return sweep("ppo", ENV_ID, OVER, 5, 2, out=tmp_path_factory.mktemp("halving") / "sweep", **HALVING)


def test_halving_keeps_the_choices_that_runs_by_themselves_would(halved: Sweep) -> None:
    """5 choices of 2 seeds after one chunk, 2 after two, 1 after all four; each run is what it is alone."""
    study = halved.study
    runs = {Key(trial, 0, seed): study.run(halved.choice(trial), 0, seed) for trial in range(5) for seed in range(2)}
    lanes = Lanes(next(iter(runs.values())), 4, 10)
    curves = {key: lanes([run])[0].curve for key, run in runs.items()}
    left = set(range(5))
    for count, chunks in ((5, 1), (2, 2), (1, 4)):
        mean = {trial: np.mean([curves[Key(trial, 0, seed)][chunks - 1] for seed in range(2)]) for trial in left}
        left = set(sorted(left, key=lambda trial: -mean[trial])[: {5: 2, 2: 1, 1: 1}[count]])
        if count == 1:
            break
    assert halved.best() == left.pop()
    assert sorted(halved.records[key].result.frames for key in runs) == [64] * 6 + [128] * 2 + [256] * 2
    for key in runs:
        result = halved.records[key].result
        found = np.array([mean for _, mean in result.curve])
        after = [frames // 64 - 1 for frames, _ in result.curve]
        np.testing.assert_allclose(found, curves[key][after], rtol=1e-5)  # another program: sums of 20 rewards


def test_the_plan_of_halving_says_what_is_run(halved: Sweep) -> None:
    plan = halved.plan()
    assert (plan.runs, plan.frames) == (10, 256)
    ran = sum(record.result.frames for key, record in halved.records.items() if key.trial >= 0 and key.seed < 2)
    assert plan.total == ran == 2 * 64 * (5 + 2 + 2)


def test_the_best_of_halving_went_furthest_whatever_others_scored(halved: Sweep) -> None:
    best = halved.best()
    assert best is not None
    assert halved.furthest(None) == [best]
    assert best_run(halved, None) == halved.study.run(halved.choice(best), 0, 0)


@pytest.mark.full
def test_a_choice_that_diverged_goes_no_further(tmp_path: Path) -> None:
    over = {"hparams.critic_lr": [3e38, 1e-2, 2e38, 1e38]}
    found = sweep("ppo", ENV_ID, over, out=tmp_path / "diverged", **HALVING)
    assert found.best() == 1
    assert [found.records[Key(trial, 0, 0)].result.diverged for trial in range(4)] == [True, False, True, True]
    assert found.records[Key(1, 0, 0)].result.frames == 256


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    over = {**OVER, "hparams.clip": "0.1..0.3", "hparams.gamma": [0.5, 0.8, 0.9]}
    return sweep("ppo", ENV_ID, over, 8, out=tmp_path_factory.mktemp("pbt") / "sweep", **PBT)


def rows(found: Sweep) -> list[dict[str, float]]:
    with (found.folder / SCHEDULE).open(newline="") as table:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(table)]


def test_the_worst_quarter_goes_on_from_the_best_with_other_numbers(population: Sweep) -> None:
    found = rows(population)
    by_rung = [[row for row in found if row["rung"] == rung] for rung in range(4)]
    assert [len(rung) for rung in by_rung] == [8] * 4
    for now, then in zip(by_rung, [*by_rung[1:], None], strict=True):
        means = np.array([row["return"] for row in now])
        parents = np.array([row["goes_on_from"] for row in now], int)
        moved = np.flatnonzero(parents != np.arange(8))
        if then is None:
            assert not len(moved)  # after the last rung there is nothing to go on
            continue
        assert len(moved) == 2
        assert means[moved].max() <= np.sort(means)[1]
        assert means[parents[moved]].min() >= np.sort(means)[-2]
        for member in range(8):
            numbers = [[row[member][name] for name in population.study.space.names()] for row in (now, then)]
            if member not in moved:
                assert numbers[0] == numbers[1]
                continue
            parent = [now[parents[member]][name] for name in population.study.space.names()]
            assert numbers[1] != parent
            assert 1e-4 <= numbers[1][0] <= 0.1 + 1e-6 and 0.1 - 1e-6 <= numbers[1][1] <= 0.3 + 1e-6
            assert np.float32(numbers[1][2]) in np.array([0.5, 0.8, 0.9], np.float32)


def test_the_best_member_leaves_as_a_policy_that_plays_as_it_did(population: Sweep) -> None:
    policy = load_policy(population.folder / POLICY)
    best = population.best()
    assert best is not None
    recorded = population.records[Key(best, 0, 0)].result.episode_return
    assert policy.metadata["provenance"]["frames"] == 256
    run, learned = import_policy(population.folder / POLICY)
    env, params = run.make_env()
    play = algorithm("ppo").make_policy(env, run.config, True)
    report = evaluate(ENV_ID, {"Best": lambda observation, key: play((learned, params), observation, key)}, 4)
    assert report.rows["Best"]["return"] == pytest.approx(recorded, rel=1e-5)  # sums of 20 float32 rewards
    assert "no single run gives it" in (population.folder / "report.md").read_text()
    assert not (population.folder / "best.json").exists()


@pytest.mark.full
def test_who_goes_on_from_whom_and_with_what_does_not_depend_on_places() -> None:
    """More devices or lanes than runs leave places empty, and the runs stand elsewhere."""
    study = study_of(new_run("ppo", ENV_ID), OVER, 9, schedule="pbt")
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-1, 9)]
    runs = [study.run({"hparams.actor_lr": rate}, 0, 0) for rate in rates]
    lanes = Lanes(runs[0], 4, 9)
    population = Population(lanes, 9, 1, study.space.choices)
    worth = np.array([3, 7, -np.inf, 7, 1, 7, 2, -np.inf, 5])  # two diverged, and three are equally good
    found = []
    for order in ([*range(9)], [3, -1, 0, 8, -1, 1, 7, 2, 4, -1, 5, 6]):
        member = np.array(order)
        population.places = len(order)
        standing = batch([runs[max(at, 0)] for at in order])
        state = jax.vmap(lanes.init)(standing)
        crowd = Crowd(state, standing, jnp.asarray(member), jax.random.key(0))
        scored = jnp.where(member >= 0, worth[member], -jnp.inf)
        after, parent = population._perturbed(crowd, scored, jnp.asarray(1), jax.random.key(1))
        at = np.argsort(member)[-9:]
        found.append((np.asarray(parent)[at], np.asarray(after.given.hparams.actor_lr)[at]))
    np.testing.assert_array_equal(found[0][0], [0, 1, 1, 3, 4, 5, 6, 3, 8])
    np.testing.assert_array_equal(found[1][0], found[0][0])
    np.testing.assert_array_equal(found[1][1], found[0][1])


def test_of_equally_good_members_the_first_is_the_best_wherever_it_stands() -> None:
    returns = jnp.array([[2.0, 2.0], [3.0, 1.0], [2.0, 2.0], [9.0, 9.0], [1.0, 1.0], [8.0, 8.0]])
    nothing, finite = jnp.zeros(6), jnp.array([True, True, True, True, True, False])
    played, seen = Episodes(returns, nothing, nothing, {}), Seen(nothing, nothing, finite)
    standing = np.array([2, 0, 1, -1, 3, 4])
    rung = Rung(standing, standing, played, seen, Batch(None, None, nothing))
    assert rungs.best_place(rung) == 1
    assert rungs.best_place(rung._replace(seen=seen._replace(finite=jnp.zeros(6, bool)))) is None


@pytest.mark.full
def test_a_population_that_was_stopped_before_it_had_left_all_leaves_it_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    short = {**PBT, "frames": 64, "fresh": 0}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rungs._Rungs, "_write_winner", stop)
        sweep("ppo", ENV_ID, OVER, 4, out=tmp_path / "sweep", **short)
    found = sweep("ppo", ENV_ID, OVER, 4, out=tmp_path / "sweep", **short)
    assert (found.folder / POLICY).exists()


@pytest.mark.full
def test_a_problem_that_is_done_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = {**OVER, "params.energy_per_nat": [0.5, 2.0]}
    short = {**HALVING, "frames": 64, "fresh": 0}
    begun = []
    run = rungs._Rungs.run

    def stopped(self: Any, report: Any) -> None:
        begun.append(self.problem)
        if begun == [0, 1]:
            raise KeyboardInterrupt
        run(self, report)

    monkeypatch.setattr(rungs._Rungs, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep("ppo", ENV_ID, over, 4, out=tmp_path / "sweep", **short)
    sweep("ppo", ENV_ID, over, 4, out=tmp_path / "sweep", **short)
    assert begun == [0, 1, 1]


@pytest.mark.parametrize("options", [HALVING, PBT], ids=["halving", "pbt"])
def test_a_population_does_not_grow(options: dict[str, Any], tmp_path: Path) -> None:
    """Who is left depends on all who began: what those left behind came to would be of another population."""
    for points in (4, 8):
        study = study_of(new_run("ppo", ENV_ID), OVER, points, schedule=options["schedule"])
        if points == 4:
            Sweep(tmp_path / "sweep", study).close()
            continue
        with pytest.raises(ValueError, match="holds a sweep with another choices"):
            Sweep(tmp_path / "sweep", study)


@pytest.mark.full
@pytest.mark.parametrize("options", [HALVING, PBT], ids=["halving", "pbt"])
def test_what_was_killed_goes_on_as_if_it_had_not_been(options: dict[str, Any], tmp_path: Path) -> None:
    long = {**options, "frames": 64 * 32, "fresh": 0}
    points = 16
    whole = sweep("ppo", ENV_ID, OVER, points, out=tmp_path / "whole", **long)
    words = shlex.split(
        f"sweep ppo --env {ENV_ID} --over hparams.actor_lr=log:1e-4..1e-1 --points {points} --frames {64 * 32} "
        f"--schedule {long['schedule']} --eta 2 --episodes 4 --fresh 0 --config.num-envs 8 --config.rollout 4 "
        "--config.minibatches 1 --config.epochs 1 --config.updates-per-chunk 2 --config.trunk 4 --config.critic 4"
    )
    if long["schedule"] == "pbt":
        words = [word for word in words if word not in ("--eta", "2")]
    code = f"import tests.toy_env; from algos.cli import main; main({[*words, '--out', str(tmp_path / 'killed')]})"
    rungs = tmp_path / "killed" / "rungs" / "0"
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        while process.poll() is None and not [path for path in rungs.glob("[0-9]") if path.name in "23456789"]:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    broken = sweep("ppo", ENV_ID, OVER, points, out=tmp_path / "killed", **long)
    assert everything(broken) == everything(whole)
    if long["schedule"] == "pbt":
        assert (broken.folder / SCHEDULE).read_bytes() == (whole.folder / SCHEDULE).read_bytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"over": {"config.trunk": [(4,), (8,)]}}, "config.trunk is static"),
        ({"sampler": "tpe"}, "asks by what it was told"),
        ({"eta": 1}, "eta is 1"),
        ({"schedule": "halfing"}, "did you mean 'halving'?"),
        ({"schedule": "pbt", "seeds": 2}, "one problem and one seed"),
        ({"schedule": "pbt", "over": {**OVER, "params.outage": [0.1, 0.2]}}, "one problem and one seed"),
        ({"schedule": "pbt", "points": 3}, "3 choices are no population"),
        ({"schedule": "pbt", "over": {"params.outage": [0.1]}}, "sweep some hparams"),
    ],
)
def test_what_a_population_can_t_do_is_said_first(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    options = {"over": OVER, "points": 5, **HALVING, **changes}
    with pytest.raises(ValueError) as error:
        sweep("ppo", ENV_ID, out=tmp_path / "none", **options)
    assert said in str(error.value)
    assert not (tmp_path / "none").exists()


def test_scores_of_a_population_are_finite(population: Sweep) -> None:
    assert all(math.isfinite(record.result.score) for record in population.records.values())
