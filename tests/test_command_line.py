"""What hostile arguments, settings and places come to: one line and exit code 2, and nothing is left behind."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import pytest
import torchvision
from torch import nn

import mec_jax
from algos import cli
from algos.algorithms import make_env
from algos.cli.console import console
from algos.cli.evaluate import Evaluate
from algos.cli.list import List
from benchmarks.harness.campaign import REFUSED, TAKEN
from benchmarks.robustness.command_line import fates
from mec_jax.envs.offloading import MultiUEOffloading
from mec_jax.registry import registered_envs, static_arguments
from mec_jax.split.profile import load_module
from tests.errors import error_of

ROOT = Path(__file__).resolve().parents[1]
OTHER_TYPES: tuple[Any, ...] = (
    *(3.5, float("nan"), float("inf"), -1, 2**31, 2**63, 10**400, 10**5000, "", "x" * 300, "a\nb", "a\0b", b"vgg11"),
    *([], {}, [[1]], [None], {"a": 1}, [["resnet18"]], ["resnet18", 3], object()),
)
NULLABLE = ("num_devices", "num_slots")  # of NeuronAllocation: None is the default


def command(*arguments: Any, **settings: str) -> subprocess.CompletedProcess[str]:
    """`mec-jax` as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", cli.TRACEBACK)}
    line = [sys.executable, "-m", "algos.cli", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=environment | settings, capture_output=True, text=True, timeout=120)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that calls `mec-jax` and gives the one line that it must end with."""

    def call(*arguments: Any) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        assert stop.value.code == 2, said
        assert said.startswith("mec-jax: ") and said.endswith("\n") and said[:-1].isprintable() and len(said) < 700, (
            said
        )
        return said

    return call


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("algos.runs.RunFolder", lambda *_: pytest.fail("it would train"))


# Constructors


@pytest.mark.parametrize("env_id", registered_envs)
def test_an_argument_of_another_type_is_one_clear_error(env_id: str) -> None:
    for name in static_arguments(env_id):
        for value in OTHER_TYPES:
            error_of(mec_jax.make, env_id, **{name: value})
        if name not in NULLABLE:
            error_of(mec_jax.make, env_id, **{name: None})
        if name != "markov":
            error_of(mec_jax.make, env_id, **{name: True})


def test_profiles_are_a_name_or_a_list_of_names() -> None:
    for value in (3, None, True, 1.5, {"a": 1}, {"resnet18"}):
        assert error_of(MultiUEOffloading, profile=value).startswith("profile is ")
    assert error_of(MultiUEOffloading, 2, profile=["resnet18", 3]).startswith("profile is 3: give the path")
    assert len(MultiUEOffloading(2, profile=["resnet18", "vgg11"]).profiles) == 2


@pytest.mark.parametrize("env_id", [[], {}, None, 3, ""])
def test_an_id_of_another_type_is_no_environment(env_id: Any) -> None:
    with pytest.raises(ValueError, match="no environment "):
        mec_jax.make(env_id)


@pytest.mark.parametrize(
    ("env_id", "static", "said"),
    [
        ("Catch-bsuite", {"scenario": []}, "has no argument 'scenario': "),
        ("Catch-bsuite", {"rows": "many"}, "rows is 'many': it must be a whole number"),
        ("Catch-bsuite", {"rows": 10**400}, "it must be a whole number"),
        ("Catch-bsuite", {"rows": None}, "rows is None"),
        ("FrozenLake-misc", {"is_slippery": 3}, "is_slippery is 3: it must be true or false"),
        ("FrozenLake-misc", {"map_name": "5x5"}, "can't be played with map_name '5x5' ("),
        ("FrozenLake-misc", {"success_rate": "often"}, "can't be played with success_rate 'often'"),
        ("CartPole-v1", {"num_ues": 3}, "CartPole-v1 has no argument 'num_ues'"),
    ],
)
def test_arguments_of_gymnax_are_checked(env_id: str, static: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as error:
        make_env(env_id, static, {})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_arguments_of_gymnax_that_fit_are_taken() -> None:
    env, _ = make_env("Catch-bsuite", {"rows": 4}, {"max_steps_in_episode": 7})
    assert env.table.size == 20


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "long", None, [1, 2]])
def test_numbers_of_gymnax_are_finite(value: Any) -> None:
    with pytest.raises(ValueError, match="gravity "):
        make_env("CartPole-v1", {}, {"gravity": value})
    assert make_env("CartPole-v1", {}, {"gravity": -1.6})[1].gravity == -1.6


@pytest.mark.parametrize("env_id", ["MultiUEOffloading-v0", "CartPole-v1"])
def test_arguments_called_like_those_of_functions_are_unknown_ones(env_id: str) -> None:
    for name in ("self", "env_id", "static", "numbers"):
        with pytest.raises(ValueError, match=name):
            make_env(env_id, {name: 3}, {})
        with pytest.raises(ValueError, match=name):
            make_env(env_id, {}, {name: 3})


# Options


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--static", "profile", "3"), "profile is 3"),
        (("--static", "scenario", "[]"), "unexpected keyword argument 'scenario'"),
        (("--static", "num_ues", "[" * 100_000), "--static num_ues has too many digits or brackets"),
        (("--static", "num_ues", "1" * 5000), "--static num_ues has too many digits or brackets"),
        (("--static", "num_ues", "1" * 400), "num_ues is 1111"),
        (("--static", "env_id", "3"), "unexpected keyword argument 'env_id'"),
        (("--params", "self", "3"), "no parameter self"),
        (("--seed", "1" * 400), "--seed is 1111"),
        (("--num-ues", str(2**63)), "num_ues is 9223372036854775808"),
        (("--profile", "x" * 5000), "can't read profile 'xxx"),
        (("--profile", "\x1b[31m\n"), "can't read profile"),
        (("--profile", "/dev/zero"), "it is a device, no regular file"),
        (("--out", "a\0b"), "can't write to --out"),
    ],
)
def test_train_refuses(
    arguments: Sequence[str], said: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in refused("train", "mahppo", *arguments)
    assert not list(tmp_path.iterdir())


def test_a_long_error_keeps_its_begin_and_its_end(refused: Any) -> None:
    said = refused("train", "mahppo", "--profile", "x" * 5000)
    assert said.startswith("mec-jax: can't read profile 'xxx") and said.endswith("mobilenetv2, resnet18, vgg11\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "nowhere", "--out", "policy.onnx"), "can't write --out 'policy.onnx': its name must end in .npz"),
        (("export", "nowhere", "--out", "linked.npz"), "can't write --out 'linked.npz': it is a link to 'mine'"),
        (("render", "nowhere", "--out", "linked.png"), "can't write picture 'linked.png': it is a link to 'mine'"),
        (("render", "x" * 300), "no policy 'xxx"),
        (("profile", "nowhere", "--out", "profile.npz"), "can't write --out 'profile.npz': its name must end in .json"),
        (("profile", "nowhere", "--out", "taken.json"), "can't write file 'taken.csv': it is a link to 'mine'"),
        (("profile", "nowhere", "--image", "3", "100000", "100000"), "with a product of at most 268435456"),
        (("profile", "nowhere", "--repeats", "9" * 30), "repeats is 999"),
        (("profile", "nowhere", "--threads", "5000"), "num_threads is 5000"),
        (("profile", "nowhere", "--device", "meta"), "--device meta does not work"),
        (("evaluate", "nowhere", "--out", "mine"), "can't write to --out 'mine': it is a file"),
        (("evaluate", "nowhere", "--out", "full"), "can't write file 'full/report.md': it is a link to '../mine'"),
        (("evaluate", "nowhere", "--episodes", "9" * 30), "--episodes is 999"),
        (("evaluate", "/dev/zero"), "it is a device, no regular file"),
        (("evaluate", "pipe"), "it is a pipe, no regular file"),
        (("evaluate", "a\0b"), "'a\\x00b': it can't be read (a null byte in its name)"),
        (("train", "--resume", "a\0b"), "is no run folder"),
        (("evaluate", "piped"), "piped/config.json: it is a pipe, no regular file"),
        (("list", "x" * 5000), "no environment 'xxx"),
    ],
)
def test_what_can_be_known_is_known_before_long_work(
    arguments: Sequence[str], said: str, refused: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy or network is not there, but the place is refused first; a pipe does not hang."""
    monkeypatch.chdir(tmp_path)
    Path("mine").write_text("mine")
    for name in ("linked.npz", "linked.png", "taken.csv"):
        Path(name).symlink_to("mine")
    for name in ("full", "piped"):
        Path(name).mkdir()
    Path("full/report.md").symlink_to("../mine")
    for name in ("pipe", "piped/config.json"):
        os.mkfifo(name)
    before = sorted(tmp_path.rglob("*"))
    assert said in refused(*arguments)
    assert sorted(tmp_path.rglob("*")) == before and Path("mine").read_text() == "mine"


def test_all_policies_are_read_before_the_first_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env, params = mec_jax.make("MultiUEOffloading-v0")
    run = type(
        "Run", (), {"env_id": "x", "env_static": {}, "algorithm": "ppo", "preset": "", "config": 0, "hparams": 0}
    )
    run.make_env = lambda: (env, params)  # type: ignore[attr-defined]

    def load(path: Path) -> tuple[Any, None]:
        if path.name == "absent.npz":
            raise ValueError("absent")
        return run, None

    monkeypatch.setattr("algos.cli.evaluate.load", load)
    monkeypatch.setattr("mec_jax.episodes.play_episodes", lambda *_: pytest.fail("played"))
    monkeypatch.setattr("algos.cli.evaluate.algorithm", lambda _: Learner)
    with pytest.raises(ValueError, match="absent"):
        Evaluate([tmp_path / "policy.npz", tmp_path / "absent.npz"]).run()


class Learner:
    deterministic = False
    make_policy = staticmethod(lambda *_: None)


def test_what_a_file_leaves_by_is_an_error_of_it(tmp_path: Path) -> None:
    (file := tmp_path / "nets.py").write_text(
        "import sys\ndef leave(): sys.exit(0)\ndef fail(): raise KeyError('a\\nb')\n"
    )
    assert "gives no network (SystemExit: 0)" in error_of(load_module, f"{file}:leave")
    assert "gives no network (KeyError: " in error_of(load_module, f"{file}:fail")


def test_a_pipe_is_no_python_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "nets.py")
    assert "no Python file" in error_of(load_module, f"{tmp_path / 'nets.py'}:small")


def test_no_weights_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(weights: str | None = None, weights_backbone: str | None = "IMAGENET1K_V1") -> nn.Module:
        assert weights is None and weights_backbone is None, "it would download"
        return nn.Identity()

    monkeypatch.setattr(torchvision.models, "get_model_builder", lambda _: build)
    monkeypatch.setattr(torchvision.models, "get_model", lambda _, **weights: build(**weights))
    assert isinstance(load_module("fcn_resnet50"), nn.Identity)


# The ends of the command


def test_a_bug_is_one_line_and_its_traceback_is_there_for_the_asking(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: List) -> None:
        raise KeyError("two\nlines")

    monkeypatch.setattr(List, "run", fail)
    with pytest.raises(KeyError):  # tests set MEC_JAX_TRACEBACK: none of their failures is hidden
        cli.main(["list"])
    monkeypatch.delenv(cli.TRACEBACK)
    with pytest.raises(SystemExit) as stop:
        cli.main(["list"])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("mec-jax: this is a bug: KeyError: ") and said.count("\n") == 1 and cli.TRACEBACK in said


def test_a_working_folder_that_is_gone_is_named(refused: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library ended the process over it."""
    with monkeypatch.context() as gone:
        gone.setattr(os, "getcwd", Mock(side_effect=FileNotFoundError))
        assert "the working folder is gone" in refused("list")


def test_names_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """A file called so ended the command after its work, or was printed under another name."""
    console.print("policy: a[/].npz, [red]b.npz, :smile:.npz")
    assert capsys.readouterr().out.strip() == "policy: a[/].npz, [red]b.npz, :smile:.npz"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"JAX_PLATFORMS": "nonsense"}, "JAX does not start with JAX_PLATFORMS='nonsense' (Unable to initialize"),
        ({"XLA_FLAGS": "--xla_nonsense"}, "XLA does not start with XLA_FLAGS='--xla_nonsense' (Unknown flag"),
        ({"XLA_FLAGS": "nonsense"}, "XLA does not start with XLA_FLAGS='nonsense' (Could not open file"),
        ({"JAX_ENABLE_X64": "nonsense"}, "JAX_ENABLE_X64"),
    ],
)
def test_settings_that_jax_does_not_start_with_are_named(settings: dict[str, str], said: str) -> None:
    done = command("list", **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mec-jax: ") and done.stderr.count("\n") == 1 and said in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "codes"), [("| true; echo ${PIPESTATUS[0]} >&2", "1\n"), (">&-; echo $? >&2", "0\n")]
)
def test_a_reader_that_leaves_and_no_stdout_are_quiet(shell: str, codes: str) -> None:
    line = f"{sys.executable} -m algos.cli list {shell}"
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("", codes)


# The campaign


@pytest.fixture
def sixty(tmp_path: Path) -> Iterator[Any]:
    yield lambda name: fates(60, 5, (tmp_path / name).mkdir() or tmp_path / name)
    jax.clear_caches()


@pytest.mark.full
def test_the_campaign_sees_a_traceback_and_what_is_left_behind(sixty: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(sixty("sound")) <= {REFUSED, TAKEN}
    with monkeypatch.context() as broken:
        broken.setattr("algos.cli.export.check_file", lambda path, *_: path.touch())
        broken.setattr("algos.cli.evaluate.check_count", lambda *_, **__: None.missing)  # type: ignore[attr-defined]
        found = sixty("broken")
    assert any(end.startswith("crash: AttributeError") for end in found)
    assert any(end.startswith("left behind") for end in found)
