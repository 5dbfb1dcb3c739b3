"""Exported policies and back, and the commands from a run's first frame to a report on several."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import mec_jax
from algos import cli
from algos.actor import make_actor
from algos.algorithms import algorithm, make_env
from algos.export import export_policy, import_policy
from algos.normalise import Moments
from algos.run_config import RunConfig, as_arrays
from mec_jax import episodes
from mec_jax.contracts import Rulers, Solver
from mec_jax.envs.multi_exit import MultiExitAllocation, Params
from mec_jax.envs.partition_game import PartitionGame
from mec_jax.episodes import play_episodes
from mec_jax.policy import Policy, load_policy
from mec_jax.solvers.multi_exit.bounds import bound
from mec_jax.solvers.multi_exit.policies import baselines
from tests.tolerance import ROUNDING, close

BASELINE = Path(__file__).resolve().parent / "data" / "baseline"

MOMENTS = 6
"""Roundings of a variance: a file holds the root of it plus 1e-8, whose square less 1e-8 is what comes back."""


def random_run(name: str) -> tuple[RunConfig, Any]:
    """A run with random parameters, far from uniform."""
    env, _ = make_env(name, {}, {})
    ppo = algorithm("ppo")
    config = ppo.config(trunk=(16, 8))
    size = env.table.size
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(make_actor(env, config).init, jax.random.key(0), jnp.zeros((1, size)))
    actor = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32) / x.shape[-1] ** 0.5, shapes)
    observed = Moments(jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.uniform(0.5, 2, size)), jnp.array(9.0))
    return RunConfig("ppo", name, {}, {}, "fast", 3, config, ppo.hparams()), (actor, observed)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """A policy with a categorical head of shape [] and others."""
    file = tmp_path_factory.mktemp("exported") / "policy.npz"
    export_policy(file, *random_run("MultiExitAllocation-v0"), frames=0, score={})
    return load_policy(file)


@pytest.mark.parametrize("name", ["Pendulum-v1", "MultiExitAllocation-v0"])
def test_imported_policy_is_the_exported_one(name: str, tmp_path: Path) -> None:
    run, learned = random_run(name)
    file = tmp_path / "policy.npz"
    export_policy(file, run, learned, frames=7, score={"return": -1.0})
    again, imported = import_policy(file)
    assert (again.algorithm, again.env_id, again.seed, again.config.trunk) == ("ppo", name, 3, (16, 8))
    jax.tree.map(np.testing.assert_array_equal, imported[0], learned[0])
    np.testing.assert_array_equal(imported[1].mean, learned[1].mean)
    close(imported[1].var, learned[1].var, learned[1].var, MOMENTS)


@pytest.fixture(scope="module")
def recorded() -> dict[str, np.ndarray]:
    return dict(np.load(BASELINE / "parameters.npz"))


@pytest.mark.parametrize("file", sorted(BASELINE.glob("*_*.npz")), ids=lambda file: file.stem)
def test_files_of_schema_1_are_imported(file: Path, recorded: dict[str, np.ndarray]) -> None:
    run, learned = import_policy(file)
    assert file.stem == f"{run.algorithm}_{run.preset}_{run.env_id}"
    for path, value in jax.tree_util.tree_leaves_with_path(learned):
        expected = recorded[f"{file.stem}{jax.tree_util.keystr(path)}"]
        moment = path[-1].name if isinstance(path[-1], jax.tree_util.GetAttrKey) else ""
        if not moment or (moment == "mean" and run.config.normalise_observation):
            np.testing.assert_array_equal(value, expected)
        elif moment == "var" and run.config.normalise_observation:
            close(value, expected, expected + 1e-8, MOMENTS)


def test_changed_policies_are_refused_with_the_field(exported: Policy) -> None:
    def changed(index: int, **fields: Any) -> dict[str, Any]:
        metadata = copy.deepcopy(dict(exported.metadata))
        metadata["network"]["heads"][index].update(fields)
        return metadata

    for index, fields, says in (
        (0, {"shape": [4]}, "outputs"),
        (0, {"shape": [0]}, "shape"),
        (0, {"shape": [1, 1, 5]}, "shape"),
        (0, {"kind": "choice"}, "kind"),
        (1, {"shape": []}, "shape"),
        (1, {"mean": "tanh"}, "mean"),
        (1, {"offset": "x"}, "offset"),
        (1, {"scale": [1.0, 2.0]}, "scale"),
        (1, {"std_min": -1.0}, "std_min"),
    ):
        with pytest.raises(ValueError, match=says):
            Policy(exported.arrays, changed(index, **fields))
    metadata = copy.deepcopy(dict(exported.metadata))
    metadata["network"]["stacked"] = 2
    with pytest.raises(ValueError, match="the first 2 as many as networks"):
        Policy(exported.arrays, metadata)


@pytest.fixture(scope="module")
def slots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunConfig, Any]:
    """A file of a policy that scores slots, its run and what it learned."""
    name, drl_es = "NeuronAllocation-v0", algorithm("drl_es")
    env, params = make_env(name, {}, {})
    config = drl_es.config(trunk=(8,), per_slot=True)
    shapes = jax.eval_shape(
        drl_es.make_trainer(env, config).init, as_arrays(drl_es.hparams()), params, jax.random.key(0)
    )
    rng = np.random.default_rng(1)
    learned = jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.5, 2, x.shape), x.dtype), drl_es.learned(shapes))
    run = RunConfig("drl_es", name, mec_jax.static_arguments(name), {}, "slots", 0, config, drl_es.hparams())
    file = tmp_path_factory.mktemp("slots") / "policy.npz"
    export_policy(file, run, learned, frames=0, score={})
    return file, run, learned


def test_policy_that_scores_slots_never_chooses_an_absent_device(slots: tuple[Path, RunConfig, Any]) -> None:
    file, run, learned = slots
    policy = load_policy(file)
    states = np.random.default_rng(0).normal(size=(1000, 28)).astype(np.float32)
    present = states[:, [7, 14, 21]] > 0
    states, present = states[present.any(1)], present[present.any(1)]
    rows = np.arange(len(states))
    assert present[rows, policy.act(states).action].all()
    for seed in range(3):
        assert present[rows, policy.act(states, np.random.default_rng(seed)).action].all()
    (action,) = policy.act(states[0])
    assert action.shape == ()
    again, imported = import_policy(file)
    assert again.config.per_slot and again.config.trunk == run.config.trunk
    jax.tree.map(np.testing.assert_array_equal, imported[0], learned[0])


@pytest.mark.parametrize(
    ("where", "changes", "says"),
    [
        ("per_slot", {"slots": 4}, "'network.per_slot' makes it 35"),
        ("per_slot", {"slots": 0}, r"'network.per_slot.slots' is 0"),
        ("per_slot", {"more": 1}, "unknown field 'network.per_slot.more'"),
        ("head", {"size": 2}, "of shape \\[\\] and size 3"),
        ("head", {"allowed": [7, 14]}, "it must be 3 whole numbers, each below 28"),
        ("head", {"allowed": [7, 14, 28]}, "each below 28"),
        ("head", {"allowed": [7, 14, True]}, "each below 28"),
        ("head", {"allowed": "all"}, "each below 28"),
    ],
)
def test_slots_and_masks_that_do_not_fit_are_refused(
    where: str, changes: dict[str, Any], says: str, slots: tuple[Path, RunConfig, Any]
) -> None:
    policy = load_policy(slots[0])
    metadata = copy.deepcopy(dict(policy.metadata))
    network = metadata["network"]
    (network["per_slot"] if where == "per_slot" else network["heads"][0]).update(changes)
    with pytest.raises(ValueError, match=says):
        Policy(policy.arrays, metadata)


TINY = (
    *("--config.num-frames", "64", "--config.num-envs", "8", "--config.rollout", "4", "--config.trunk", "8"),
    *("--config.updates-per-chunk", "1", "--config.minibatches", "2", "--config.epochs", "1"),
)


def command(*arguments: Any) -> str:
    """What `mec-jax` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main([str(argument) for argument in arguments])
    return printed.getvalue()


@pytest.fixture
def few_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a report: a run is measured in 8 episodes, as `evaluate` is told to below, so both compile one program."""
    all_keys = episodes.evaluation_keys
    monkeypatch.setattr(episodes, "evaluation_keys", lambda num: all_keys(min(num, 8)))


def few_rulers(env: MultiExitAllocation, params: Params, keys: Array) -> Rulers:
    """Without most baselines, which are tested with the solvers and compile for long."""
    played = {name: play_episodes(env, params, baselines(env)[name], params, keys) for name in ("Random", "FP-AR")}
    return Rulers({**played, "Bound": bound(env, params, keys)}, zero="Random", one="Bound", bound="Bound")


def train(name: str, out: Path, *options: Any) -> None:
    command("train", "ppo", "--env", name, *TINY, *options, "--out", out)
    assert {path.name for path in out.iterdir()} >= {"policy.npz", "curve.png", "metrics.csv"}


def evaluate(runs: list[Path], out: Path) -> dict[str, Any]:
    """The report on runs, as the command wrote it."""
    printed = command("evaluate", *runs, "--episodes", 8, "--out", out)
    assert "PPO" in printed
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert (report["episodes"], report["protocol"]) == (8, 1)
    assert (out / "report.md").read_text().startswith(f"# {report['env_id']}\n")
    assert (out / "curves.png").exists()
    return report["rows"]


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.usefixtures("few_episodes")
def test_command_line_trains_evaluates_and_reports_several_runs_without_rulers(tmp_path: Path) -> None:
    for seed in (0, 1):
        train("CartPole-v1", tmp_path / str(seed), "--seed", seed)
    rows = evaluate([tmp_path / "0", tmp_path / "1"], tmp_path / "report")
    assert list(rows) == ["PPO, fast"]
    assert rows["PPO, fast"]["runs"] == 2 and "score" not in rows["PPO, fast"]


@pytest.mark.full
@pytest.mark.usefixtures("few_episodes")
def test_runs_with_other_hyper_parameters_are_not_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MultiExitAllocation, "solver", Solver((), baselines, few_rulers))
    for name, options in (("a", ()), ("b", ("--seed", "1")), ("c", ("--hparams.clip", "0.1"))):
        train("MultiExitAllocation-Markov-v0", tmp_path / name, *options)
    rows = evaluate([tmp_path / name for name in "abc"], tmp_path / "report")
    assert {name: rows[name]["runs"] for name in list(rows)[:2]} == {"PPO, markov": 2, "PPO, markov (2)": 1}
    assert len(rows) == 5 and all("score" in row for row in rows.values())
    best = rows["Bound"]
    assert best["score"] == pytest.approx(1)
    # A return adds up the rewards of its frames, each of which is worked out in some 64 operations.
    rounding = (best["frames"] + 64) * ROUNDING * abs(best["return"])
    assert all(row["return"] <= best["return"] + rounding for row in rows.values())


@pytest.mark.full
@pytest.mark.usefixtures("few_episodes")
def test_sizes_and_networks_of_any_environment_are_set_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PartitionGame, "solver", None)  # rulers that nobody looks at
    small = (
        *("--config.num-iterations", "1", "--config.updates-per-chunk", "1", "--config.horizon", "2"),
        *("--config.children", "2", "--config.fitness-episodes", "1", "--config.starts", "1"),
    )
    sizes = ("--profile", "coknight_resnet", "--static", "num_devices", "4")
    command("train", "drl_es", "--env", "PartitionGame-v0", *sizes, *small, "--out", tmp_path / "run")
    run, _ = import_policy(tmp_path / "run" / "policy.npz")
    assert run.env_static == {"network": "coknight_resnet", "num_devices": 4, "num_kinds": 3}
    policy = load_policy(tmp_path / "run" / "policy.npz")
    assert policy.metadata["network"]["heads"][0]["allowed"] == list(range(4, 15))
    command("export", tmp_path / "run", "--out", tmp_path / "again.npz")
    assert load_policy(tmp_path / "again.npz").metadata["provenance"]["frames"] == 2 * (3 + 8)


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("mahppo", "--env", "CartPole-v1"), ("mahppo is for MultiUEOffloading-v0", "CartPole-v1 with ppo")),
        (("ppo", "--env", "CartPoll-v1"), ("CartPoll-v1",)),
        (("ppo", "--env", "CartPole-v1", "--params", "moons", "1"), ("moons", "gravity")),
        (("ppo", "--env", "MultiExitAllocation-v0", "--num-ues", "3"), ("num_ues", "profile")),
        (("ppo", "--preset", "reference"), ("reference", "bandit")),
    ],
)
def test_what_does_not_fit_together(
    arguments: tuple[str, ...], fragments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", *arguments, "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert error.startswith("mec-jax: ")
    for fragment in fragments:
        assert fragment in error
    assert not (tmp_path / "run").exists()
