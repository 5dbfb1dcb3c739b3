import contextlib
import copy
import csv
import dataclasses
import functools
import io
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from algos import cli, export, loop, mahppo
from algos.cli.console import console
from algos.run_config import RunConfig
from algos.runs import load_run
from mec_jax.policy import load_policy, save_policy
from mec_jax.solvers import offloading

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
POLICIES = ("MAHPPO", "Local", "All-edge", "Random", "Best static")
FRAMES = [32, 64, 96]
ENVIRONMENT = ("--num-ues", "2", "--params", "beta", "0.3")
SIZES = (
    *("--config.num-frames", "96", "--config.num-envs", "4", "--config.rollout", "8", "--config.epochs", "2"),
    *("--config.minibatches", "2", "--config.updates-per-chunk", "1"),
    *("--config.trunk", "16", "--config.head", "8", "--config.critic", "16"),
)


@pytest.fixture(scope="module", autouse=True)
def short_search() -> Iterator[None]:
    """The search for the best static action is tested with the solvers; a table as wide as a pipe's."""
    with pytest.MonkeyPatch.context() as patch:
        small = functools.partial(offloading.best_static, restarts=1, generations=10, population=40)
        patch.setattr(offloading, "best_static", small)
        patch.setattr(console, "_width", 80)
        yield


def train(out: Path, *more: str) -> str:
    """Train a tiny run; what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        cli.main(["train", "mahppo", *ENVIRONMENT, *SIZES, "--seed", "3", "--out", str(out), *more])
    return printed.getvalue()


class Trained(NamedTuple):
    path: Path
    printed: str


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    path = tmp_path_factory.mktemp("trained") / "deep" / "run"
    return Trained(path, train(path))


@pytest.fixture
def run_copy(trained: Trained, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.path, tmp_path / "copy"))


def assert_fails(capsys: pytest.CaptureFixture[str], arguments: Sequence[Any], *fragments: str) -> None:
    """One line on stderr, exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert error.startswith("mec-jax: ")
    assert error.count("\n") == 1, error
    assert error.endswith("\n")
    for fragment in fragments:
        assert fragment in error


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table_of(printed: str) -> str:
    return printed[printed.index("policy") : printed.index("256 episodes")]


# What the commands do


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list"])
    printed = capsys.readouterr().out
    for name in ("MultiUEOffloading-v0", "mahppo", "fast", "reference", "paper", "resnet18", "vgg11", "mobilenetv2"):
        assert name in printed


def test_a_run_leaves_whole_files_and_no_others(trained: Trained) -> None:
    names = {path.name for path in trained.path.iterdir()}
    expected = (
        "config.json",
        "metrics.csv",
        "tensorboard",
        "curve.png",
        "checkpoints",
        "policy.npz",
        "comparison.json",
    )
    assert names == set(expected)
    assert sorted(int(path.name) for path in (trained.path / "checkpoints").iterdir()) == [2, 3]
    assert not [name for name in files(trained.path) if "partial" in name or "tmp" in name]


def test_config_gives_the_run_back(trained: Trained) -> None:
    run, state = load_run(trained.path)
    config = mahppo.Config(
        num_frames=96,
        num_envs=4,
        rollout=8,
        epochs=2,
        minibatches=2,
        updates_per_chunk=1,
        trunk=(16,),
        head=8,
        critic=(16,),
        inputs="hinges",
    )
    static = {"num_ues": 2, "num_channels": 2, "profile": "resnet18"}
    hparams = mahppo.PRESETS["fast"][1]
    assert run == RunConfig("mahppo", "MultiUEOffloading-v0", static, {"beta": 0.3}, "fast", 3, config, hparams)
    assert state.update == 3
    assert state.observation.shape == (4, 8)
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)


def rows_of(path: Path) -> list[dict[str, float]]:
    with (path / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_metrics_have_one_row_a_chunk(trained: Trained) -> None:
    rows = rows_of(trained.path)
    assert [row["frames"] for row in rows] == FRAMES
    assert (np.diff([row["wall_time"] for row in rows]) >= 0).all()
    evaluated = ("episode_return", "frames", "terminated", "energy", "finished", "latency", "objective", "task_latency")
    learned = ("episode_return", "actor_loss", "critic_loss", "entropy", "kl", "clipped")
    names = ["wall_time", "frames", *(f"evaluation/{name}" for name in evaluated)]
    assert list(rows[0]) == [*names, *(f"training/{name}" for name in learned)]
    for row in rows:
        assert row["evaluation/finished"] == 400
        assert all(np.isfinite(value) for name, value in row.items() if name != "training/episode_return")


def events(path: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of the files: records of length, CRC, Event, CRC, the last perhaps cut off."""
    scalars: dict[str, list[tuple[int, float]]] = {}
    for file in sorted((path / "tensorboard").iterdir()):
        content = file.read_bytes()
        while len(content) > 8 and len(content) >= 16 + struct.unpack("<Q", content[:8])[0]:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.session_log.status == SessionLog.START:  # from here on anew
                scalars = {tag: [x for x in values if x[0] < event.step] for tag, values in scalars.items()}
            for value in event.summary.value:
                scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


def test_tensorboard_shows_what_the_table_holds(trained: Trained) -> None:
    scalars = events(trained.path)
    rows = rows_of(trained.path)
    for name in set(rows[0]) - {"wall_time", "frames"}:
        finite = [(row["frames"], row[name]) for row in rows if np.isfinite(row[name])]
        np.testing.assert_allclose(scalars.pop(name, []), finite, rtol=1e-6)
    assert not scalars


def test_curve_is_a_picture(trained: Trained) -> None:
    assert (trained.path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n")
    picture = matplotlib.image.imread(trained.path / "curve.png")
    assert min(picture.shape[:2]) > 400
    assert np.ptp(picture[..., :3]) > 0.5


def test_progress_and_comparison_are_printed(trained: Trained) -> None:
    assert "frames" in trained.printed
    assert "96/96" in trained.printed
    lines = table_of(trained.printed).splitlines()
    for name in POLICIES:
        (line,) = (line for line in lines if line.strip().startswith(name))
        assert "±" in line
        assert "…" not in line
    assert str(trained.path) in trained.printed.replace("\n", "")


def test_comparison_has_rulers(trained: Trained) -> None:
    comparison = json.loads((trained.path / "comparison.json").read_text())["rows"]
    assert tuple(comparison) == POLICIES
    assert comparison["Random"]["score"] == pytest.approx(0, abs=1e-6)
    assert comparison["Best static"]["score"] == pytest.approx(1, abs=1e-6)
    local = comparison["Local"]
    assert local["task_latency"] == pytest.approx(0.045887, rel=1e-4)
    assert local["energy"] == pytest.approx(0.045887 * 2.1454, rel=1e-4)
    assert local["energy saved"] == pytest.approx(0)
    assert local["time saved"] == pytest.approx(1 - 0.0475 / 0.045887, rel=1e-3)
    assert local["by frames"] == pytest.approx(0)
    for row in comparison.values():
        low, high = row["return_interval"]
        assert low <= row["return"] <= high
        assert row["terminated"] == 1


@pytest.mark.full
@pytest.mark.parametrize("options", [(), ("--deterministic",)])
def test_run_and_exported_policy_evaluate_alike(
    trained: Trained, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    tables = []
    for path in (trained.path, trained.path / "policy.npz"):
        cli.main(["evaluate", str(path), *options])
        tables.append(table_of(capsys.readouterr().out))
    assert tables[0] == tables[1]
    assert (tables[0] == table_of(trained.printed)) == (options == ())


def test_export_writes_what_train_exported(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again.npz"
    cli.main(["export", str(trained.path), "--out", str(out)])
    assert str(out) in capsys.readouterr().out.replace("\n", "")
    exported, again = load_policy(trained.path / "policy.npz"), load_policy(out)
    assert set(exported.arrays) == set(again.arrays)
    for name, value in exported.arrays.items():
        np.testing.assert_array_equal(value, again.arrays[name])
    assert {**exported.metadata, "score": {}} == dict(again.metadata)
    comparison = json.loads((trained.path / "comparison.json").read_text())
    assert exported.metadata["score"]["return"] == comparison["rows"]["MAHPPO"]["return"]
    assert exported.metadata["provenance"]["frames"] == 96
    assert exported.metadata["provenance"]["seed"] == 3
    assert exported.metadata["env_params"]["beta"] == pytest.approx(0.3)


WITHOUT_JAX = """
import sys
import numpy as np
from mec_jax.policy import load_policy
policy, states = load_policy(sys.argv[1]), np.load(sys.argv[2])
said, action = policy.distribution(states), policy.act(states)
assert "jax" not in sys.modules
np.savez(sys.argv[3], cut=action.cut, channel=action.channel, power=action.power, cut_logits=said["cut"].logits,
         channel_logits=said["channel"].logits, mean=said["power"].mean, std=said["power"].std)
"""


@pytest.mark.parametrize("power_std", ["softplus", "sigmoid"])
def test_exported_policy_decides_like_flax(trained: Trained, tmp_path: Path, power_std: Any) -> None:
    run, state = load_run(trained.path)
    policy_file = trained.path / "policy.npz"
    actors = state.actors
    if power_std != run.config.power_std:  # and a policy that is less uniform than one of three updates
        config = dataclasses.replace(run.config, power_std=power_std)
        run = dataclasses.replace(run, config=config, env_params={"power_max": [0.5, 2.0]})
        rng = np.random.default_rng(1)
        actors = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape), x.dtype) / x.shape[-2] ** 0.5, actors)
        policy_file = tmp_path / "policy.npz"
        export.export_policy(policy_file, run, actors, frames=0, score={})
    env, params = run.make_env()
    states = np.random.default_rng(0).uniform(0, 1, (10_000, 8)).astype(np.float32)
    states[:100] *= 20

    np.save(tmp_path / "states.npy", states)
    names = [str(name) for name in (policy_file, tmp_path / "states.npy", tmp_path / "decided.npz")]
    subprocess.run([sys.executable, "-c", WITHOUT_JAX, *names], check=True, cwd=ROOT)
    found = np.load(tmp_path / "decided.npz")

    policy: Any = jax.jit(mahppo.make_actors(env, run.config).apply)(actors, states, params.power_max)
    cut, channel, power = policy.distributions
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    close(found["mean"], power.loc)
    close(found["std"], power.scale)
    close(found["power"], np.clip(power.mode(), 1e-10, params.power_max))
    for name, head in (("cut", cut), ("channel", channel)):
        logits = np.asarray(head.logits)
        # Logits are up to a constant.
        close(
            found[f"{name}_logits"] - found[f"{name}_logits"].mean(-1, keepdims=True),
            logits - logits.mean(-1, keepdims=True),
        )
        second, first = np.moveaxis(np.sort(logits, axis=-1)[..., -2:], -1, 0)
        clear = first - second > 2e-5
        assert clear.mean() > 0.99
        np.testing.assert_array_equal(found[name][clear], np.asarray(head.mode())[clear])


# What ends a run early


def test_a_run_that_diverges_before_its_first_checkpoint_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    for option, out in (("--hparams.actor-lr", tmp_path / "new"), ("--hparams.critic-lr", tmp_path / "mine")):
        arguments = ["train", "mahppo", *ENVIRONMENT, *SIZES, option, "1e30", "--out", out]
        assert_fails(capsys, arguments, "diverged after frame 0", "learning rate")
    assert [*tmp_path.rglob("*")] == [tmp_path / "mine"]


def test_a_run_that_diverges_keeps_its_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def steeper(hparams: Any) -> Any:
        """The first update has the learning rate of the start, and the next a far greater one, than is allowed."""
        given = loop_arrays(hparams)
        vars(given)["final_lr"] = jnp.asarray(1e30)
        return given

    loop_arrays = loop.as_arrays
    monkeypatch.setattr(loop, "as_arrays", steeper)
    out = tmp_path / "run"
    arguments = ["train", "mahppo", *ENVIRONMENT, *SIZES, "--out", out]
    assert_fails(capsys, arguments, "diverged after frame 32", "learning rate")
    assert not (out / "policy.npz").exists()
    assert not (out / "comparison.json").exists()
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["1"]
    _, state = load_run(out)
    assert state.update == 1
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.actors))


# Errors of use


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("mahppo", "--env", "MultiUEOffload-v0"), ("MultiUEOffload-v0", "did you mean 'MultiUEOffloading-v0'?")),
        (("mahppo", "--preset", "quick"), ("quick", "fast", "reference", "paper")),
        (("mahppo", "--preset=quick"), ("quick", "fast", "reference", "paper")),
        (("mahpo",), ("mahpo", "mahppo")),
        (("mahppo", "--profile", "resnet19"), ("resnet19", "resnet18")),
        (("mahppo", "--num-ues", "0"), ("num_ues is 0",)),
        (("mahppo", "--params", "betta", "0.1"), ("betta", "beta")),
        (("mahppo", "--params", "beta", "-1"), ("beta",)),
        (("mahppo", "--config.minibatches", "7"), ("7 minibatches",)),
        (("mahppo", "--config.num-envs", "0"), ("num_envs",)),
        (("mahppo", "--seed", "-1"), ("--seed is -1",)),
        (("mahppo", "--seed", str(2**70)), ("--seed is",)),
    ],
)
def test_wrong_arguments_of_train(
    arguments: tuple[str, ...], fragments: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert_fails(capsys, ["train", *arguments, "--out", out], *fragments)
    assert not out.exists()


def test_run_folder_in_use_or_out_of_reach(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    assert_fails(capsys, ["train", "mahppo", "--out", used], str(used), "not empty", "--out")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        assert_fails(capsys, ["train", "mahppo", "--out", out], str(out), "can't write to --out")
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_what_is_no_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], trained: Trained) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"\xff\xd8")
    assert_fails(capsys, [command, folder], str(folder), "no run folder")
    (folder / "config.json").write_bytes((trained.path / "config.json").read_bytes())
    assert_fails(capsys, [command, folder], str(folder), "no checkpoint")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "holiday.jpg"]
    assert_fails(capsys, [command, tmp_path / "missing"], "missing")


def at(content: dict[str, Any], *keys: str, value: Any = None) -> str:
    """JSON text of a copy with the value under `keys` replaced, or removed."""
    content = copy.deepcopy(content)
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    if value is None:
        del parent[keys[-1]]
    else:
        parent[keys[-1]] = value
    return json.dumps(content)


def without_digests(run: Path) -> dict[str, Any]:
    """Make a run folder one of before there were digests; its configuration."""
    config: dict[str, Any] = json.loads((run / "config.json").read_text())
    del config["sha256"]
    (run / "config.json").write_text(json.dumps(config))
    for manifest in run.glob("checkpoints/*/manifest.json"):
        manifest.unlink()
    return config


def test_damaged_config(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run_copy / "config.json"
    text = file.read_text()
    good = without_digests(run_copy)
    damaged: list[str | bytes] = [
        *("", "{}", "[]", "null", text[: len(text) // 2], "[" * 10_000, b"\xff\xfe\x00"),
        *(at(good, key) for key in good if key != "devices"),  # older files have none: it was one
        *(
            at(good, key, value=value)
            for key in ("env_static", "env_params", "config", "hparams")
            for value in (3, "x")
        ),
        at(good, "env_id", value=7),
        at(good, "env_id", value="Nowhere-v0"),
        at(good, "algorithm", value="dqn"),
        at(good, "env_static", "profile", value=1.5),
        at(good, "env_static", "num_ues", value=-1),
        at(good, "env_static", "moons", value=1),
        at(good, "env_params", "beta", value="much"),
        at(good, "config", "num_envs", value="many"),
        at(good, "config", "rollout", value=0),
        at(good, "config", "trunk", value="wide"),
        at(good, "config", "head", value=0),
        at(good, "config", "power_std", value="exp"),
        at(good, "config", "layers", value=3),
        at(good, "hparams", "actor_lr", value="fast"),
    ]
    for content in damaged:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert_fails(capsys, ["evaluate", run_copy], str(run_copy))


def test_a_damaged_checkpoint_of_before_there_were_digests(run_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    without_digests(run_copy)
    newest = run_copy / "checkpoints" / "3" / "default"
    whole = files(newest)
    data = [name for name in whole if Path(name).parent == Path("d")]
    assert data
    for name in ("manifest.ocdbt", "_METADATA", *data):
        for content in (whole[name][: len(whole[name]) // 2], b"", None):
            if content is None:
                (newest / name).unlink()
            else:
                (newest / name).write_bytes(content)
            assert_fails(capsys, ["evaluate", run_copy], str(newest.parent), "damaged", "copy the run folder again")
        (newest / name).write_bytes(whole[name])
    assert load_run(run_copy)[1].update == 3


def test_an_older_run_of_another_machine_is_taken_with_a_warning(
    trained: Trained, run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What its checkpoint says of devices is not read."""
    without_digests(run_copy)
    (run_copy / "checkpoints" / "3" / "default" / "_sharding").unlink()
    _, state = load_run(run_copy)
    assert caplog.messages == [f"{run_copy} has no digests: if it is damaged, no one can tell"]
    np.testing.assert_array_equal(
        state.actors["params"]["cut_0"]["kernel"], load_run(trained.path)[1].actors["params"]["cut_0"]["kernel"]
    )
    assert len(caplog.messages) == 1


def test_damaged_and_foreign_policies(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (trained.path / "policy.npz").read_bytes()
    file = tmp_path / "policy.npz"
    for content in (b"", whole[: len(whole) // 2], whole[:-1], whole[:200] + whole[300:], b"not a policy"):
        file.write_bytes(content)
        assert_fails(capsys, ["evaluate", file], str(file))
    np.savez(file, weights=np.ones(3))
    assert_fails(capsys, ["evaluate", file], str(file))

    # Whole policies, but of another algorithm: Flax would refuse them, or play something else.
    policy = load_policy(trained.path / "policy.npz")

    def save(arrays: dict[str, Any], *keys: str, value: Any = None) -> None:
        metadata = json.loads(json.dumps(dict(policy.metadata)))
        save_policy(file, arrays, json.loads(at(metadata, *keys, value=value)) if keys else metadata)

    arrays = dict(policy.arrays)
    changes: tuple[tuple[tuple[str, ...], Any], ...] = (
        (("network", "activation"), "tanh"),
        (("observation", "normalisation"), {"mean": [0.5] * 8, "std": [1.0] * 8}),
        (("network", "heads"), [{**policy.metadata["network"]["heads"][0], "layers": ["cut_0", "cut_1"]}]),
        (("provenance",), {"author": "someone"}),
        (("provenance", "algorithm"), "dqn"),
        (("env_id",), "Nowhere-v0"),
        (("env_params",), {**policy.metadata["env_params"], "gravity": 9.81}),
        (("env_static",), {"num_ues": 2, "moons": 1}),
    )
    for keys, value in changes:
        read = ("hinges", "trunk", "cut") if "heads" in keys else ""
        only = {name: x for name, x in arrays.items() if name.startswith(read)}
        save(only, *keys, value=value)
        assert_fails(capsys, ["evaluate", file], "mec-jax: ")
    wider = {**arrays, "channel_0/kernel": np.ones((2, 16, 9)), "channel_0/bias": np.ones((2, 9))}
    save({**wider, "channel_1/kernel": np.ones((2, 9, 2))})
    assert_fails(capsys, ["evaluate", file], "arrays")
    save({**arrays, "hinges/bias": arrays["hinges/bias"] + 1})
    assert_fails(capsys, ["evaluate", file], "arrays")
    save(arrays, "provenance", "seed", value=0.5)
    assert_fails(capsys, ["evaluate", file], str(file), "seed is 0.5: it must be a whole number")
    heads = policy.metadata["network"]["heads"]
    save(arrays, "network", "heads", value=[*heads[:2], {**heads[2], "std": "exp"}])
    assert_fails(capsys, ["evaluate", file], str(file), "power_std is 'exp': choose from softplus, sigmoid")
    save(arrays)
    assert export.import_policy(file)[0].seed == 3


@pytest.mark.parametrize("episodes", ["0", "-3"])
def test_no_episodes(trained: Trained, episodes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_fails(capsys, ["evaluate", trained.path, "--episodes", episodes], "--episodes", "at least 1")


def test_export_out_of_reach(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    for out in (tmp_path / "file" / "policy.npz", tmp_path / "missing" / "policy.npz"):
        assert_fails(capsys, ["export", trained.path, "--out", out], str(out))
    assert_fails(capsys, ["export", trained.path / "policy.npz", "--out", tmp_path / "policy.npz"], "no run folder")
    assert files(tmp_path) == before


def test_the_installed_command_fails_with_code_2() -> None:
    """As a process of its own: what libraries print when they are imported would show."""
    command = [sys.executable, "-m", "algos.cli", "evaluate", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("mec-jax: ")
    assert done.stderr.count("\n") == 1
