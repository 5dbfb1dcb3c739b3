"""Sweeps: what runs come to, what is kept of them, and that nothing of it is lost or depends on how it was run."""

import csv
import dataclasses
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from algos import loop
from algos.algorithms import algorithm
from algos.cli import main
from algos.cli import sweep as cli
from algos.run_config import as_arrays, new_run, read_run
from algos.runs import RunFolder
from algos.sweep import Sweep, call, pictures, report, scorer, sweep
from algos.sweep.call import study_of
from algos.sweep.journal import Key
from algos.sweep.lanes import Lanes
from algos.sweep.report import gain_words, preset_name
from algos.sweep.scoring import Runner
from algos.sweep.study import read_study
from algos.sweep.tables import best_run, gains, means, train_line, trials
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import scale_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("toys")]

ENV_ID = "FadingChannel-v0"
ROOT = Path(__file__).resolve().parents[1]
SMALL: dict[str, Any] = {
    "num_envs": 8,
    "rollout": 4,
    "minibatches": 1,
    "epochs": 1,
    "updates_per_chunk": 2,
    "trunk": (4,),
    "critic": (4,),
}
OVER = {"hparams.actor_lr": "log:1e-3..1e-1", "params.energy_per_nat": [0.5, 2.0]}
OPTIONS: dict[str, Any] = {"config": SMALL, "frames": 128, "episodes": 4, "fresh": 2}
WORDS = shlex.split(
    f"sweep ppo --env {ENV_ID} --over hparams.actor_lr=log:1e-3..1e-1 --over params.energy_per_nat=0.5,2.0 "
    "--frames 128 --episodes 4 --fresh 2 --config.num-envs 8 --config.rollout 4 --config.minibatches 1 "
    "--config.epochs 1 --config.updates-per-chunk 2 --config.trunk 4 --config.critic 4"
)


def rows(found: Sweep) -> list[dict[str, Any]]:
    """The table, but for times; NaN, which equals nothing, as text."""
    return [{name: repr(value) for name, value in row.items() if name != "seconds"} for row in trials(found)]


def everything(found: Sweep) -> dict[Key, Any]:
    """All that is on record, but for times."""
    return {key: repr((record.choice, record.result._replace(seconds=0))) for key, record in found.records.items()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep") / "sobol"
    return sweep("ppo", ENV_ID, OVER, 6, 2, out=folder, **OPTIONS)


def test_each_choice_meets_each_problem_with_each_seed(unbroken: Sweep) -> None:
    found = trials(unbroken)
    assert [(row["trial"], row["params.energy_per_nat"], row["seed"]) for row in found] == [
        (trial, problem, seed) for trial in range(3) for problem in (0.5, 2.0) for seed in range(2)
    ]
    assert len({row["hparams.actor_lr"] for row in found}) == 3
    assert all(row["frames"] == 128 for row in found)


def test_a_score_is_what_the_rulers_of_its_problem_make_of_the_return(unbroken: Sweep) -> None:
    for row in trials(unbroken):
        run = new_run("ppo", ENV_ID, params={"energy_per_nat": row["params.energy_per_nat"]})
        env, params = run.make_env()
        scale = scale_of(env, env.evaluation_params(params), evaluation_keys(4))
        assert scale is not None and (scale.zero, scale.one) == ("Random", "Optimum")
        expected = (row["episode_return"] - scale.at_zero) / (scale.at_one - scale.at_zero)
        assert row["score"] == pytest.approx(expected, rel=1e-12)
        assert row["score_low"] <= row["score"] <= row["score_high"]


def test_a_run_of_a_sweep_is_the_run_that_train_does(unbroken: Sweep, tmp_path: Path) -> None:
    """The line that is printed, as config.json has it, and the returns of the same episodes."""
    trial = unbroken.best(1)
    assert trial is not None
    run = best_run(unbroken, 1)
    assert run == unbroken.study.run(unbroken.choice(trial), 1, 0)
    main([*shlex.split(train_line(run))[1:], "--out", str(tmp_path / "run")])
    assert RunFolder(tmp_path / "run").run == run
    with (tmp_path / "run" / "metrics.csv").open(newline="") as table:
        curve = [float(row["evaluation/episode_return"]) for row in csv.DictReader(table)]
    again = Lanes(run, 16, 1)([run])[0]
    # Two programs, other sums: of 20 float32 rewards, and of parameters after 4 updates, both to some 1e-5.
    np.testing.assert_allclose(again.curve, curve, rtol=1e-4)
    main(["train", "--from", str(unbroken.folder / "best-1.json"), "--out", str(tmp_path / "same")])
    assert RunFolder(tmp_path / "same").run == run
    main(["train", "--from", str(unbroken.folder / "best-1.json"), "--seed", "3", "--out", str(tmp_path / "other")])
    assert RunFolder(tmp_path / "other").run == dataclasses.replace(run, seed=3)


@pytest.mark.parametrize(
    "name", ["ppo", *(pytest.param(name, marks=pytest.mark.full) for name in ("mahppo", "drl_es"))]
)
def test_parameters_of_a_lane_are_those_of_a_run_alone_after_three_updates(name: str) -> None:
    configs: dict[str, tuple[str, dict[str, Any]]] = {
        "ppo": (ENV_ID, SMALL),
        "mahppo": ("MultiUEOffloading-v0", {**SMALL, "head": 4, "inputs": "state"}),
        "drl_es": (ENV_ID, {"num_iterations": 3, "children": 2, "fitness_episodes": 2, "starts": 2, "episodes": 2}),
    }
    env_id, config = configs[name]
    static = {"num_ues": 2} if name == "mahppo" else {}
    base = new_run(name, env_id, static=static, config={**config, "updates_per_chunk": 3}, frames=1)
    runs = [dataclasses.replace(base, seed=seed) for seed in range(2)]
    learner = algorithm(name)
    lanes = Lanes(base, 2, 2)
    for run in runs:
        given = lanes.given([run])
        state, _ = lanes.advance(lanes.start(given), given)
        env, params = run.make_env()
        hparams, key = as_arrays(run.hparams), jax.random.key(run.seed)
        trainer = learner.make_trainer(env, run.config)
        alone, _ = jax.jit(trainer.run)(jax.jit(trainer.init)(hparams, params, key), hparams, params)
        for x, y in zip(jax.tree.leaves(learner.trained(state)), jax.tree.leaves(learner.trained(alone)), strict=True):
            # Three steps of Adam: each is a learning rate times a ratio whose sums are rounded in another order.
            np.testing.assert_allclose(np.asarray(x)[0], np.asarray(y), rtol=1e-3, atol=1e-5)


def test_the_same_lane_is_the_same_bit_for_bit_wherever_it_stands(unbroken: Sweep) -> None:
    runs = [unbroken.study.run(unbroken.choice(trial), 0, 1) for trial in range(3)]
    lanes = Lanes(runs[0], 4, 3)
    for trial, run in enumerate(runs):
        (outcome,) = lanes([run])
        record = unbroken.records[Key(trial, 0, 1)]
        assert float(np.mean(np.asarray(outcome.episodes.episode_return, float))) == record.result.episode_return


def test_the_command_and_the_call_give_the_same_table(unbroken: Sweep, tmp_path: Path) -> None:
    main([*WORDS, "--points", "6", "--seeds", "2", "--out", str(tmp_path / "cli")])
    found = Sweep(tmp_path / "cli")
    assert rows(found) == rows(unbroken)
    with (
        (tmp_path / "cli" / "trials.csv").open(newline="") as one,
        (unbroken.folder / "trials.csv").open(newline="") as two,
    ):
        tables = [[{**row, "seconds": ""} for row in csv.DictReader(file)] for file in (one, two)]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 12


@pytest.mark.full
@pytest.mark.parametrize("sampler", ["sobol", "tpe"])
def test_a_sweep_that_was_killed_goes_on_as_if_it_had_not_been(sampler: str, tmp_path: Path) -> None:
    options = {**OPTIONS, "sampler": sampler}
    whole = sweep("ppo", ENV_ID, OVER, 36, 1, out=tmp_path / "whole", **options)
    words = [*WORDS, "--points", "36", "--sampler", sampler, "--out", str(tmp_path / "killed")]
    code = f"import tests.toy_env; from algos.cli import main; main({words})"
    journal = tmp_path / "killed" / "trials.jsonl"
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    there = journal.read_bytes().count(b"\n")
    assert 3 <= there < len(whole.records)
    with journal.open("ab") as file:
        file.write(b'{"trial": 7, "pro')  # as a kill in the middle of a line leaves it
    broken = sweep("ppo", ENV_ID, OVER, 36, 1, out=tmp_path / "killed", **options)
    assert everything(broken) == everything(whole)
    assert journal.read_bytes().count(b"\n") == len(whole.records)


@pytest.mark.full
@pytest.mark.usefixtures("foreground")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_ends_within_seconds_and_says_how_it_goes_on(number: int, code: int, tmp_path: Path) -> None:
    words = [*WORDS, "--points", "4000", "--out", str(tmp_path / "found")]
    program = f"import sys, tests.toy_env; from algos.cli import main; sys.argv[1:] = {words}; main()"
    journal = tmp_path / "found" / "trials.jsonl"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE) as process:
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 3):
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert f"stopped; `mec-jax sweep --resume {tmp_path / 'found'}` goes on" in said.decode()


def test_a_sweep_that_is_whole_runs_nothing_again(unbroken: Sweep) -> None:
    before = (unbroken.folder / "trials.jsonl").read_bytes()
    again = sweep("ppo", ENV_ID, OVER, 6, 2, out=unbroken.folder, **OPTIONS)
    assert (again.folder / "trials.jsonl").read_bytes() == before


def test_more_points_are_added_to_those_that_are_there(unbroken: Sweep, tmp_path: Path) -> None:
    few = sweep("ppo", ENV_ID, OVER, 2, 2, out=tmp_path / "grown", **OPTIONS)
    grown = sweep("ppo", ENV_ID, OVER, 6, 2, out=tmp_path / "grown", **OPTIONS)
    assert len(rows(few)) == 4
    assert rows(grown) == rows(unbroken)
    fewer = sweep("ppo", ENV_ID, OVER, 2, 2, out=tmp_path / "grown", **OPTIONS)
    assert rows(fewer) == rows(few)
    assert "1 choice, 2 problems" in (few.folder / "report.md").read_text() and fewer.finished() == [0]


def test_a_damaged_line_is_said_and_its_run_is_run_again(
    unbroken: Sweep, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    (folder / "sweep.json").write_bytes((unbroken.folder / "sweep.json").read_bytes())
    lines = (unbroken.folder / "trials.jsonl").read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"score": ', '"score": 1')
    (folder / "trials.jsonl").write_text("".join(lines))
    found = sweep("ppo", ENV_ID, OVER, 6, 2, out=folder, **OPTIONS)
    assert "line 3 of" in caplog.text and "is damaged" in caplog.text
    assert everything(found) == everything(unbroken)


def test_a_diverged_point_is_a_row_and_not_the_best(tmp_path: Path) -> None:
    over = {"hparams.critic_lr": [3e38, 1e-2], "hparams.clip": [0.2]}
    found = sweep("ppo", ENV_ID, over, out=tmp_path / "diverged", **OPTIONS)
    first, second = trials(found)
    assert first["diverged"] and math.isnan(first["score"])
    assert not second["diverged"] and math.isfinite(second["score"])
    assert found.best() == 1
    assert [row.trial for row in means(found)] == [1, 0]
    assert "diverged" in (found.folder / "report.md").read_text()
    assert read_run(found.folder / "best.json").hparams.critic_lr == 1e-2


def test_a_sweep_whose_every_run_diverged_ends_and_says_so(tmp_path: Path) -> None:
    found = sweep("ppo", ENV_ID, {"hparams.critic_lr": [3e38]}, out=tmp_path / "all", **OPTIONS)
    assert found.best() is None
    assert not (found.folder / "best.json").exists()
    assert "Every choice diverged." in (found.folder / "report.md").read_text()


@pytest.fixture(scope="module")
def half_scored(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """While the link is down in all slots, each policy is as good as the others: the second problem has no scores."""
    over = {"params.outage": [0.2, 1e3], "hparams.clip": [0.1, 0.3], "hparams.gamma": [0.5, 0.9]}
    out = tmp_path_factory.mktemp("half") / "scored"
    return sweep("ppo", ENV_ID, over, 2, sampler="random", out=out, **{**OPTIONS, "fresh": 1})


def test_a_problem_whose_rulers_are_worth_the_same_has_returns(half_scored: Sweep) -> None:
    first, second = trials(half_scored)
    assert math.isfinite(first["score"]) and math.isnan(second["score"])
    report = (half_scored.folder / "report.md").read_text()
    assert "gamma | score | 95 % interval | return |\n" in report
    assert "gamma | return | 95 % interval |\n" in report
    assert "Without scores, returns of several problems don't compare." in report
    assert "diverged" not in report


def test_one_fresh_seed_tells_nothing_apart(half_scored: Sweep) -> None:
    assert [(gain.seeds, math.isnan(gain.low), math.isnan(gain.high)) for gain in gains(half_scored)] == [
        (1, True, True)
    ] * 2
    report = (half_scored.folder / "report.md").read_text()
    assert "One seed tells nothing apart" in report
    assert "better than" not in report and "worse than" not in report
    assert "1 choice, 2 problems, 1 seed:" in report


def test_what_options_made_of_the_preset_is_not_called_the_preset(half_scored: Sweep) -> None:
    """`OPTIONS` has other networks than any preset."""
    assert "against the preset with the options given on a fresh seed" in (half_scored.folder / "report.md").read_text()
    plain = study_of(new_run("ppo", ENV_ID), {"hparams.clip": [0.1, 0.2]}, frames=128)
    gain = gains(half_scored)[0]._replace(seeds=2, low=0.1, high=0.2)
    assert "Trial 0 is better than the preset: score" in gain_words(gain, "score", preset_name(plain))


def test_how_a_sweep_goes_on_is_said_as_a_shell_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(cli.stop, "last_words", lambda words, finish: said.append(words))
    monkeypatch.setattr(call, "carry_out", lambda *given: [])
    monkeypatch.setattr(report, "text", lambda found: "")
    study = study_of(new_run("ppo", ENV_ID), {"hparams.clip": [0.1, 0.2]})
    with closing(Sweep(tmp_path / "two words", study)) as found:
        cli.carry_out(found)
    assert said == [f"`mec-jax sweep --resume '{found.folder}'` goes on"]


def test_a_picture_does_not_call_diverged_what_nobody_tried(half_scored: Sweep) -> None:
    figure = Figure()
    panel = figure.subplots()
    pictures._map(half_scored, half_scored.study.space.choices, [0], 0, panel, figure, True)
    assert sorted(text.get_text() for text in panel.texts)[:3] == ["", "", ""]
    assert "diverged" not in [text.get_text() for text in panel.texts]


@pytest.mark.parametrize("sampler", ["grid", "sobol", "tpe"])
def test_static_fields_that_do_not_go_together_are_refused_before_the_others_run(sampler: str, tmp_path: Path) -> None:
    points = None if sampler == "grid" else 8
    with pytest.raises(ValueError, match="3 minibatches do not divide"):
        sweep("ppo", ENV_ID, {"config.minibatches": [1, 3]}, points, sampler=sampler, out=tmp_path / "none", **OPTIONS)
    assert not (tmp_path / "none").exists()


def test_choices_that_diverged_on_a_problem_each_did_not_all_diverge(
    unbroken: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = Sweep.best
    monkeypatch.setattr(Sweep, "best", lambda self, problem=None: None if problem is None else best(self, problem))
    words = report.text(unbroken)
    assert "Every choice diverged on a problem at least." in words and "Every choice diverged.\n" not in words


@pytest.mark.full
def test_static_fields_are_programs_of_their_own(tmp_path: Path) -> None:
    over = {"config.trunk": [(4,), (8, 4)], "hparams.actor_lr": [1e-2]}
    found = sweep("ppo", ENV_ID, over, out=tmp_path / "static", **{**OPTIONS, "fresh": 0})
    assert found.plan().programs == 2
    for row, trunk in zip(trials(found), ((4,), (8, 4)), strict=True):
        run = new_run("ppo", ENV_ID, config={**SMALL, "trunk": trunk}, hparams={"actor_lr": 1e-2}, frames=128)
        (outcome,) = Lanes(run, 4, 1)([run])
        assert row["config.trunk"] == "x".join(map(str, trunk))
        assert row["episode_return"] == float(np.mean(np.asarray(outcome.episodes.episode_return, float)))


def test_the_best_of_each_problem_and_over_all_meet_the_preset_on_fresh_seeds(unbroken: Sweep) -> None:
    found = gains(unbroken)
    assert [gain.problem for gain in found] == [0, 1, None]
    for gain in found:
        problems = range(2) if gain.problem is None else [gain.problem]
        best = [np.mean([unbroken.records[Key(gain.trial, p, seed)].result.score for p in problems]) for seed in (2, 3)]
        preset = [np.mean([unbroken.records[Key(-1, p, seed)].result.score for p in problems]) for seed in (2, 3)]
        assert gain.best == pytest.approx(np.mean(best))
        assert gain.gain == pytest.approx(np.mean(best) - np.mean(preset))
        assert gain.low <= gain.gain <= gain.high
    worth = {trial: unbroken.mean(trial, 0) for trial in range(3)}
    assert unbroken.best(0) == max(worth, key=lambda trial: worth[trial])


def test_a_search_of_ones_own_is_a_function_and_a_loop() -> None:
    score = scorer("ppo", ENV_ID, 128, 2, config=SMALL, episodes=4)
    found = score([{"hparams.actor_lr": 1e-2}, {"hparams.critic_lr": 3e38}])
    assert math.isfinite(found[0]) and math.isnan(found[1])
    assert score([{"hparams.actor_lr": 1e-2}])[0] == found[0]
    with pytest.raises(ValueError, match="is no field of a run"):
        score([{"actor_lr": 1e-2}])


def test_everything_is_in_the_folder(unbroken: Sweep) -> None:
    from pyarrow import parquet

    names = {path.name for path in unbroken.folder.iterdir()}
    files = (
        "sweep.json trials.jsonl trials.csv trials.parquet best.json best-0.json best-1.json scores.png learning.png"
    )
    assert names == {*files.split(), "sweep.html", "report.md", ".lock"}
    table = parquet.read_table(unbroken.folder / "trials.parquet").to_pylist()
    assert repr(table) == repr(trials(unbroken))
    page = (unbroken.folder / "sweep.html").read_text()
    assert "Plotly.newPlot" in page and 'src="http' not in page
    report = (unbroken.folder / "report.md").read_text()
    run = best_run(unbroken, 0)
    assert run is not None and train_line(run) in report
    assert "Score: 0 = Random, 1 = Optimum" in report


def test_a_second_process_is_refused_while_the_first_one_works(tmp_path: Path) -> None:
    study = study_of(new_run("ppo", ENV_ID), {"hparams.clip": [0.1, 0.2]})
    with closing(Sweep(tmp_path / "mine", study)):
        for again in (study, None):
            with pytest.raises(ValueError, match=r"trains in .* already"):
                Sweep(tmp_path / "mine", again)
    Sweep(tmp_path / "mine").close()


def test_a_kill_in_the_very_first_write_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / ".mec_jax-0123456789abcdef.json").write_text("{")
    Sweep(tmp_path, study_of(new_run("ppo", ENV_ID), {"hparams.clip": [0.1, 0.2]})).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "sweep.json"]


def test_a_folder_of_another_sweep_is_refused(unbroken: Sweep, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds a sweep with another seeds"):
        sweep("ppo", ENV_ID, OVER, 6, 3, out=unbroken.folder, **OPTIONS)
    with pytest.raises(ValueError, match="holds a sweep with another space"):
        sweep("ppo", ENV_ID, {**OVER, "hparams.clip": [0.1, 0.2]}, 6, 2, out=unbroken.folder, **OPTIONS)
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no sweep"):
        sweep("ppo", ENV_ID, OVER, 6, 2, out=tmp_path, **OPTIONS)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "sweep.json").write_text(
        (unbroken.folder / "sweep.json").read_text().replace('"seeds": 2', '"seeds": 3')
    )
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        read_study(damaged)
    assert read_study(unbroken.folder) == unbroken.study
    assert json.loads((unbroken.folder / "sweep.json").read_text())["seeds"] == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"points": 0}, "points is 0"),
        ({"points": 10**6}, "1000000 points with 1 seed would take some "),
        ({"points": 10**9}, "at most 100000"),
        ({"points": None}, "never ends by itself: say how many points"),
        ({"points": None, "sampler": "grid"}, "a grid has values"),
        ({"sampler": "tpee"}, "did you mean 'tpe'?"),
        ({"seeds": 0}, "seeds is 0"),
        ({"frames": -1}, "num_frames is -1"),
        ({"episodes": 0}, "episodes is 0"),
        ({"preset": "fastt"}, "did you mean 'fast'?"),
        ({"hparams": {"gama": 1}}, "did you mean 'gamma'?"),
        ({"seed": 2**32 - 1}, "the last seed is 4294967297"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    options = {"points": 6, "seeds": 1, **OPTIONS, **changes}
    with pytest.raises(ValueError) as error:
        sweep("ppo", ENV_ID, OVER, out=tmp_path / "none", **options)
    assert said in str(error.value)
    assert not (tmp_path / "none").exists()


def test_a_grid_that_explodes_is_refused_with_how_long_it_would_take(tmp_path: Path) -> None:
    over = {"hparams.clip": "0.1..0.2:1000", "hparams.gamma": "0..1:1000"}
    with pytest.raises(ValueError, match=r"1000 x 1000 are 1000000 points with 2 seeds would take some \d+ hours"):
        sweep("ppo", ENV_ID, over, seeds=2, out=tmp_path / "none", **OPTIONS)


def test_lanes_that_run_at_once_come_to_the_same(unbroken: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: three of four lanes, two at a time."""
    runs = [unbroken.study.run(unbroken.choice(trial), 0, 1) for trial in range(3)]
    monkeypatch.setattr(Lanes, "_room", lambda self, needed, most: 2)
    lanes = Lanes(runs[0], 4, 3)
    assert lanes.size == 2
    runner = Runner(4)
    results = {place: result for found in runner.results(runs) for place, result in found}
    for trial in range(3):
        recorded = unbroken.records[Key(trial, 0, 1)].result
        # Sums of 20 float32 rewards, and of parameters after 4 updates, in another order.
        assert results[trial].episode_return == pytest.approx(recorded.episode_return, rel=1e-4)


def test_lanes_fill_a_gpu_s_memory_and_no_more(unbroken: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu:
        platform = "gpu"

        def memory_stats(self) -> dict[str, int]:
            return {"bytes_limit": 10 * 2**20}

    lanes = Lanes(unbroken.study.run(unbroken.choice(0), 0, 0), 4, 1)
    monkeypatch.setattr(lanes, "local", [Gpu()])
    room = 0.6 * 10 * 2**20
    assert lanes._room(2**20, 100) == int(room / 2**20) == 6
    assert lanes._room(2**20, 4) == 4
    assert lanes._room(2**40, 4) == 1


def test_the_loop_of_a_run_and_a_sweep_know_the_same_budget(tmp_path: Path) -> None:
    """DRL-ES counts iterations: as many whole chunks as the frames allow, one at least."""
    run = new_run(
        "drl_es", ENV_ID, config={"children": 0, "starts": 2, "episodes": 2, "updates_per_chunk": 2}, frames=400
    )
    env, _ = run.make_env()
    assert algorithm("drl_es").make_trainer(env, run.config).num_frames == 320  # 2 chunks of 2 iterations of 80 frames
    assert run.config.num_iterations == 4
    assert run.within(1).config.num_iterations == 2
    assert loop.algorithm is algorithm
