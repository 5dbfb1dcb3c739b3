"""Profiles measured from PyTorch networks: what they hold, that environments play on them, and what is refused."""

import csv
import itertools
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from torch import nn

import mec_jax
from algos.cli.profile import Profile as Command
from benchmarks.harness.campaign import REFUSED, TAKEN, WHOLE
from benchmarks.robustness.corrupt_files import policy_fates, profile_fates
from mec_jax.envs.offloading import OffloadAction
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.policy import load_policy
from mec_jax.profiles import Profile, load_profile
from mec_jax.split import profile as module
from mec_jax.split.codec import decode, encode
from mec_jax.split.graph import CutGraph
from mec_jax.split.policy import load_torch_policy
from mec_jax.split.profile import choose_cuts, load_module, measure, write_profile
from tests.errors import error_of

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = """
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3, stride=2), nn.ReLU(inplace=True),
        nn.Flatten(), nn.Linear(36, 10),
    )

def nothing():
    return 1
"""
NAMES = ["input", "0", "1", "2", "3", "4", "local"]
X = torch.rand(1, 3, 17, 17, generator=torch.Generator().manual_seed(0))
MACS = [27 * 8 * 64, 72 * 4 * 9, 360]  # of the layers 0, 2 and 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "nets.py").write_text(NETWORK)
    return folder


@pytest.fixture(scope="module")
def graph(folder: Path) -> CutGraph:
    return CutGraph(load_module(f"{folder / 'nets.py'}:small"), X)


def command(folder: Path, **options: Any) -> Command:
    defaults: dict[str, Any] = {"image": (3, 17, 17), "repeats": 3, "warm_up": 1, "power": 2.0}
    model = str(options.pop("model", f"{folder / 'nets.py'}:small"))
    return Command(model, **(defaults | {"out": folder / "measured.json"} | options))


@pytest.fixture(scope="module")
def measured(folder: Path) -> Path:
    """A profile of all cuts, as the command writes it."""
    command(folder, cuts=("all",)).run()
    return folder / "measured.json"


# What is measured


def test_a_measured_profile_is_one_that_environments_load(measured: Path, graph: CutGraph) -> None:
    profile = load_profile(measured)
    assert profile.name == "small"
    elements = [point.elements for point in graph.points]
    assert elements == [867, 512, 512, 36, 36, 36, 0]
    assert profile.bits == (8.0 * 867, *(8.0 * count + 64 for count in elements[1:-1]), 0.0)
    assert profile.front_power == (0.0, *[2.0] * 6)
    assert profile.front_time[0] == 0 and min(profile.front_time[1:]) > 0
    assert profile.observation_time == profile.front_time[-1]
    content = json.loads(measured.read_text())
    assert [cut["name"] for cut in content["cuts"]] == NAMES[1:-1]
    assert [cut["feature_shape"] for cut in content["cuts"]] == [[8, 8, 8]] * 2 + [[4, 3, 3]] * 2 + [[36, 1, 1]]
    source = dict(profile.source)
    assert f"torch {metadata.version('torch')}" in source["time"] and "median of 3" in source["time"]
    assert source["power"] == "declared, not measured: 2 W"


def test_the_table_beside_it_has_all_that_was_measured(measured: Path, graph: CutGraph) -> None:
    with measured.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    profile = load_profile(measured)
    assert [row["name"] for row in rows] == NAMES[1:]
    numbers = [{name: float(value) for name, value in row.items() if name != "name"} for row in rows]
    for row, point, bits, seconds in zip(
        numbers, graph.points[1:], profile.bits[1:], profile.front_time[1:], strict=True
    ):
        assert row["bits"] == bits
        assert row["prefix_time_s"] + row["encoder_time_s"] == pytest.approx(seconds)
        assert row["energy_j"] == pytest.approx(2 * seconds)
        assert row["peak_memory_bytes"] == point.parameter_bytes + point.activation_bytes
        assert row["prefix_time_iqr_s"] >= 0 and row["encoder_time_iqr_s"] >= 0
    assert (rows[-1]["encoder_time_s"], rows[-1]["bits"]) == ("0.0", "0")
    first, second, third = itertools.accumulate(2 * macs for macs in MACS)
    assert [row["flops"] for row in numbers] == [first, first, second, second, second, third]


def test_the_size_in_the_profile_is_what_the_codec_sends(measured: Path, graph: CutGraph) -> None:
    profile = load_profile(measured)
    for point in graph.points[1:-1]:
        prefix, suffix = graph.split(point.index)
        with torch.inference_mode():
            sent = encode(prefix(X.clone()))
            assert sent.bits == profile.bits[point.index]
            error = suffix(decode(sent)) - graph.module(X.clone())
        assert error.abs().max() < 0.05


def test_points_take_turns_and_the_warm_up_does_not_count(graph: CutGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(1000))
    order = []

    def timed(call: Any, x: torch.Tensor) -> tuple[float, Any]:
        order.append("encode" if call is encode else sum(1 for _ in call.modules()))
        return float(next(seconds)), call(x)

    monkeypatch.setattr(module, "_timed", timed)
    costs = measure(graph, X, graph.points[1:3], repeats=4, warm_up=2).costs
    assert order == order[:5] * 6 and order[:5].count("encode") == 2
    # Turn t takes 5 t to 5 t + 4 s, turns 2 to 5 count.
    assert [cost.prefix.median for cost in costs] == [17.5, 19.5, 21.5]
    assert [cost.encoder.median for cost in costs] == [18.5, 20.5, 0]
    assert [cost.prefix.spread for cost in costs] == [7.5, 7.5, 7.5]


def test_useful_cuts_send_less_than_the_input_and_every_earlier_cut(graph: CutGraph) -> None:
    assert [point.name for point in choose_cuts(graph, ("useful",))] == ["0", "2"]
    assert [point.name for point in choose_cuts(graph, ("all",))] == NAMES[1:-1]
    assert [point.name for point in choose_cuts(graph, ("3", "1", "3"))] == ["1", "3"]


def test_threads_are_set_for_the_measurement_alone(graph: CutGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    during = []
    monkeypatch.setattr(module, "_measure", lambda *_: during.append(torch.get_num_threads()))
    measure(graph, X, (), num_threads=2)
    assert (during, torch.get_num_threads()) == ([2], 1)


# What plays on it


def always(cut: jax.Array, obs: jax.Array, key: jax.Array) -> OffloadAction:
    return OffloadAction(cut=cut[None], channel=jnp.zeros(1, int), power=jnp.ones(1))


def test_an_episode_on_a_measured_profile_takes_its_times_and_powers(measured: Path) -> None:
    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=1, num_channels=1, profile=str(measured))
    profile: Profile = env.profiles[0]
    # Sending takes next to no time: what is left is computing.
    scenario = env.evaluation_params(params).replace(bandwidth=jnp.array([1e18]), frame_time=jnp.array(0.005))
    for point, seconds in enumerate(profile.front_time):
        episode = play_episodes(env, scenario, always, jnp.array(point), evaluation_keys(1))
        assert bool(episode.terminated[0]) and int(episode.finished[0]) == 200
        # The evaluation scenario computes the first task locally.
        expected = (profile.front_time[-1] + 199 * seconds) / 200
        assert float(episode.task_latency[0]) == pytest.approx(expected, rel=1e-3, abs=1e-7)
        assert float(episode.energy[0]) == pytest.approx(2 * expected, rel=1e-3, abs=1e-7)


# Files


def test_failed_write_leaves_the_folder_as_it_was(
    tmp_path: Path, graph: CutGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurement = measure(graph, X, (), repeats=1)
    path = tmp_path / "profile.json"
    path.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    message = error_of(write_profile, path, "small", measurement, 5.0)
    assert "can't write profile file" in message and "No space left on device" in message
    assert [entry.name for entry in tmp_path.iterdir()] == ["profile.json"] and path.read_text() == "old"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "resnet_18"}, "no network 'resnet_18', did you mean 'resnet18'? give a name that torchvision knows"),
        ({"model": "none.py:f"}, "no Python file 'none.py': give file.py:factory"),
        ({"model": "nets.py:nothing"}, "gives a int: let it return an nn.Module"),
        ({"model": "nets.py:absent"}, "gives no network (AttributeError: "),
        ({"cuts": ("5x",)}, "there is no layer '5x' to cut after"),
        ({"cuts": ("input",)}, "'input' is in every profile: leave it out of the cuts"),
        ({"cuts": ("5",)}, "'local' is in every profile"),
        ({"out": Path("profile.txt")}, "can't write --out 'profile.txt': its name must end in .json"),
        (
            {"out": Path("nowhere/profile.json")},
            "can't write --out 'nowhere/profile.json': give a file name in an existing folder",
        ),
        ({"image": (3, 0, 17)}, "--image is (3, 0, 17)"),
        ({"image": (3, 18, 40)}, "does not run on an example of shape [1, 3, 18, 40]"),
        ({"power": 0.0}, "--power is 0.0: it must be a finite number of W above 0"),
        ({"repeats": 0}, "repeats is 0: it must be a whole number of at least 1"),
        ({"warm_up": -1}, "warm_up is -1: it must be a whole number of at least 0"),
        ({"threads": 0}, "num_threads is 0: it must be a whole number of at least 1"),
        ({"device": "abacus"}, "--device abacus does not work ("),
    ],
)
def test_command_that_cannot_be_done_says_why(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    assert said in error_of(command(folder, **({"out": Path("other.json")} | options)).run)
    assert sorted(folder.iterdir()) == before, "it leaves nothing behind"


def test_without_pytorch_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; from algos.cli.profile import Profile; Profile('resnet18').run()"
    root = Path(__file__).resolve().parents[1]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ended.stderr.endswith(
        "ValueError: profile needs PyTorch (no module 'torch'): pip install 'mec_jax[torch]'\n"
    )


def test_module_in_training_mode_is_measured_in_evaluation_mode(folder: Path) -> None:
    assert not any(part.training for part in load_module(f"{folder / 'nets.py'}:small").modules())
    assert isinstance(load_module("squeezenet1_1"), nn.Module)


# Damaged files: benchmarks.robustness.corrupt_files takes a hundred times as many


def test_damaged_profiles_are_refused_or_sound(tmp_path: Path) -> None:
    fates = profile_fates(100, 1, tmp_path)
    assert set(fates) <= {REFUSED, WHOLE}, fates
    assert fates[REFUSED] > 70


def test_damaged_policies_are_refused_or_whole_by_pytorch_too(tmp_path: Path) -> None:
    def load(path: Path) -> Any:
        load_torch_policy(path)
        return load_policy(path)

    fates = policy_fates(100, 1, tmp_path, load)
    assert set(fates) <= {REFUSED, WHOLE, TAKEN}, fates
    assert fates[REFUSED] > 80
