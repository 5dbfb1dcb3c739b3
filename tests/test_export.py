"""Exported policies of PPO and DRL-ES: NumPy decides like Flax, and what was exported plays on."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from algos import cli, drl_es, ppo
from algos.actor import make_actor
from algos.algorithms import make_env
from algos.export import export_policy, import_policy
from algos.normalise import Moments
from algos.runs import RunConfig, as_arrays
from mec_jax.policy import Categorical, Policy, load_policy

ENVIRONMENTS = ("CartPole-v1", "Pendulum-v1", *mec_jax.registered_envs)


def random_run(name: str) -> tuple[RunConfig, Any, int]:
    """A run with random parameters, far from uniform, and the size of its observation."""
    env, params = make_env(name, {}, {})
    config = ppo.Config(trunk=(16, 8), activation="relu" if "Cart" in name else "tanh")
    size = int(np.prod(env.reset(jax.random.key(0), params)[0].shape))
    rng = np.random.default_rng(0)
    shapes = make_actor(env, config).init(jax.random.key(0), jnp.zeros((1, size)))
    actor = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32) / x.shape[-1] ** 0.5, shapes)
    observed = Moments(jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.uniform(0.5, 2, size)), jnp.array(9.0))
    static = {"num_ues": 5} if name == "MultiUEOffloading-v0" else {}
    return RunConfig("ppo", name, static, {}, "fast", 3, config, ppo.HParams()), (actor, observed), size


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_numpy_decides_like_flax(name: str, tmp_path: Path) -> None:
    run, learned, size = random_run(name)
    file = tmp_path / "policy.npz"
    export_policy(file, run, learned, frames=0, score={})
    env, params = run.make_env()
    states = np.random.default_rng(1).normal(size=(10_000, size)).astype(np.float32)
    policy = load_policy(file)
    found, said = policy.act(states), policy.distribution(states)

    flax: Any = ppo.make_policy(env, run.config, deterministic=True)
    shape = env.reset(jax.random.key(0), params)[0].shape
    actions = jax.jit(jax.vmap(lambda x: flax((learned, params), x.reshape(shape), jax.random.key(0))))(states)
    parts = actions if isinstance(actions, tuple) else (actions,)
    assert len(parts) == len(found)
    for name, mine, theirs in zip(found._fields, found, parts, strict=True):
        assert mine.shape == theirs.shape
        if isinstance(head := said[name], Categorical):
            best = np.sort(head.logits, axis=-1)
            none_allowed = best[..., -1] == np.finfo(np.float32).min  # then it is the first
            clear = (best[..., -1] - best[..., -2] > 2e-5) | none_allowed
            assert clear.mean() > 0.99
            np.testing.assert_array_equal(mine[clear], np.asarray(theirs)[clear])
        else:
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)

    sampled = policy.act(states, np.random.default_rng(0))
    space = env.action_space(params)
    given = jax.tree.map(jnp.asarray, tuple(sampled) if isinstance(actions, tuple) else sampled[0])
    assert jax.vmap(space.contains)(given).all()


@pytest.mark.parametrize("name", ["Pendulum-v1", "MultiExitAllocation-v0"])
def test_imported_policy_is_the_exported_one(name: str, tmp_path: Path) -> None:
    run, learned, _ = random_run(name)
    file = tmp_path / "policy.npz"
    export_policy(file, run, learned, frames=7, score={"return": -1.0})
    again, imported = import_policy(file)
    assert (again.algorithm, again.env_id, again.seed, again.config.trunk) == ("ppo", name, 3, (16, 8))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), learned[0], imported[0])
    np.testing.assert_allclose(imported[1].var, learned[1].var, rtol=1e-5)


def test_changed_policies_are_refused_with_the_field(tmp_path: Path) -> None:
    run, learned, _ = random_run("MultiExitAllocation-v0")
    file = tmp_path / "policy.npz"
    export_policy(file, run, learned, frames=0, score={})
    policy = load_policy(file)

    def changed(index: int, **fields: Any) -> dict[str, Any]:
        metadata = json.loads(json.dumps(dict(policy.metadata)))
        metadata["network"]["heads"][index].update(fields)
        return metadata

    for index, fields, says in (
        (0, {"shape": [4]}, "outputs"),
        (0, {"shape": [0]}, "shape"),
        (0, {"shape": [1, 1, 5]}, "shape"),
        (0, {"kind": "choice"}, "kind"),
        (1, {"shape": []}, "shape"),
        (1, {"mean": "sigmoid"}, "mean"),
        (1, {"offset": "x"}, "offset"),
        (1, {"scale": [1.0, 2.0]}, "scale"),
        (1, {"std_min": -1.0}, "std_min"),
    ):
        with pytest.raises(ValueError, match=says):
            Policy(policy.arrays, changed(index, **fields))
    metadata = json.loads(json.dumps(dict(policy.metadata)))
    metadata["network"]["stacked"] = 2
    with pytest.raises(ValueError, match="stacked"):
        Policy(policy.arrays, metadata)


def slots_policy(tmp_path: Path) -> tuple[Policy, RunConfig, Any]:
    name = "NeuronAllocation-v0"
    env, params = make_env(name, {}, {})
    config = drl_es.Config(trunk=(8,), per_slot=True)
    state = drl_es.make_trainer(env, config).init(as_arrays(drl_es.HParams()), params, jax.random.key(0))
    actor = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), state.actor)
    run = RunConfig("drl_es", name, mec_jax.static_arguments(name), {}, "slots", 0, config, drl_es.HParams())
    learned = (actor, state.observations)
    export_policy(tmp_path / "policy.npz", run, learned, frames=0, score={})
    return load_policy(tmp_path / "policy.npz"), run, learned


def test_policy_that_scores_slots_never_chooses_an_absent_device(tmp_path: Path) -> None:
    policy, run, learned = slots_policy(tmp_path)
    states = np.random.default_rng(0).normal(size=(1000, 28)).astype(np.float32)
    present = states[:, [7, 14, 21]] > 0
    states, present = states[present.any(1)], present[present.any(1)]
    rows = np.arange(len(states))
    assert present[rows, policy.act(states).action].all()
    for seed in range(3):
        assert present[rows, policy.act(states, np.random.default_rng(seed)).action].all()
    (action,) = policy.act(states[0])
    assert action.shape == ()
    again, imported = import_policy(tmp_path / "policy.npz")
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
    where: str, changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    policy, _, _ = slots_policy(tmp_path)
    metadata = json.loads(json.dumps(dict(policy.metadata)))
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


@pytest.mark.parametrize("name", ["CartPole-v1", "MultiExitAllocation-Markov-v0"])
def test_command_line_trains_evaluates_and_reports_several_runs(name: str, tmp_path: Path) -> None:
    for seed in (0, 1):
        command("train", "ppo", "--env", name, *TINY, "--seed", seed, "--out", tmp_path / str(seed))
        assert {path.name for path in (tmp_path / str(seed)).iterdir()} >= {"policy.npz", "curve.png", "metrics.csv"}
    runs, out = [tmp_path / "0", tmp_path / "1"], tmp_path / "report"
    printed = command("evaluate", *runs, "--episodes", 8, "--out", out)
    assert "PPO" in printed
    report = json.loads((out / "report.json").read_text())
    preset = "fast" if name == "CartPole-v1" else "markov"
    row = report["rows"][f"PPO, {preset}"]
    assert (row["runs"], report["episodes"], report["protocol"]) == (2, 8, 1)
    assert ("score" in row) == (name != "CartPole-v1")
    assert (out / "report.md").read_text().startswith(f"# {name}\n")
    assert (out / "curves.png").exists()
    if name != "CartPole-v1":
        rows = report["rows"]
        assert rows["Optimum with free switches"]["score"] == pytest.approx(1)
        assert all(row["return"] <= rows["Optimum with free switches"]["return"] + 1e-4 for row in rows.values())


def test_runs_with_other_hyper_parameters_are_not_summed_up(tmp_path: Path) -> None:
    for name, options in (("a", ()), ("b", ("--seed", "1")), ("c", ("--hparams.clip", "0.1"))):
        command("train", "ppo", "--env", "MultiExitAllocation-v0", *TINY, *options, "--out", tmp_path / name)
    runs = [tmp_path / name for name in "abc"]
    command("evaluate", *runs, "--episodes", 4, "--out", tmp_path / "report")
    rows = json.loads((tmp_path / "report" / "report.json").read_text())["rows"]
    assert {name: rows[name]["runs"] for name in list(rows)[:2]} == {"PPO, bandit": 2, "PPO, bandit (2)": 1}


def test_sizes_and_networks_of_any_environment_are_set_from_the_command_line(tmp_path: Path) -> None:
    small = (
        *("--config.num-iterations", "1", "--config.updates-per-chunk", "1", "--config.horizon", "2"),
        *("--config.children", "2", "--config.fitness-episodes", "1", "--config.scenarios", "1"),
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
