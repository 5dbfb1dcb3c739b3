"""Recorded episodes and their pictures."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

import mec_jax
from algos import cli, export, mahppo, runs
from algos.cli.console import console
from algos.run_config import RunConfig
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params
from mec_jax.episodes import Episodes, Policy, play_episode
from mec_jax.physics.frame import COMPUTING, FREE, TRANSMITTING
from mec_jax.physics.radio import interference, path_gain, uplink_rate
from mec_jax.policy import load_policy, save_policy
from mec_jax.render import Recording, animate_episode, draw_episode, record_episode, write_episode
from mec_jax.render import offloading as chart
from mec_jax.solvers import offloading
from mec_jax.solvers.offloading.policies import baselines

pytestmark = pytest.mark.slow

KEY = jax.random.key(7)
ENV: MultiUEOffloading = mec_jax.make("MultiUEOffloading-v0", num_ues=3)[0]
PARAMS: Params = ENV.params(tasks_mean=30, distance_min=20, distance_max=60, first_random=False)
MIXED = OffloadAction(jnp.array([1, 3, 0]), jnp.array([0, 1, 0]), jnp.array([0.2, 0.5, 1.0]))


def mixed(action: OffloadAction, observation: jax.Array, key: jax.Array) -> OffloadAction:
    """Computes and sends, with and without interference, and sends raw input."""
    return action


PLAYERS: dict[str, tuple[Policy, Any]] = {
    "mixed": (mixed, MIXED),
    "random": (baselines(ENV)["Random"], PARAMS),
    "local": (baselines(ENV)["Local"], PARAMS),
}


@pytest.fixture(scope="module", params=PLAYERS)
def player(request: pytest.FixtureRequest) -> tuple[Policy, Any]:
    return PLAYERS[request.param]


@pytest.fixture(scope="module")
def recording(player: tuple[Policy, Any]) -> Recording:
    return record_episode(ENV, PARAMS, *player, KEY)


@pytest.fixture(scope="module")
def episode(player: tuple[Policy, Any]) -> Episodes:
    policy, policy_params = player
    play = jax.jit(lambda params, policy_params: play_episode(ENV, params, policy, policy_params, KEY))
    return jax.tree.map(np.asarray, play(PARAMS, policy_params))


@pytest.fixture(scope="module")
def interfering() -> Recording:
    return record_episode(ENV, PARAMS, *PLAYERS["mixed"], KEY)


def duration(recording: Recording) -> np.ndarray:
    return recording.end - recording.start


# --- The recording is the episode ---


def test_recording_is_the_episode_that_is_evaluated(recording: Recording, episode: Episodes) -> None:
    assert len(recording.reward) == episode.frames
    assert recording.finished.sum() == episode.finished
    assert recording.terminated == episode.terminated
    np.testing.assert_allclose(recording.reward.sum(), episode.episode_return, rtol=1e-4)
    np.testing.assert_allclose(recording.energy.sum() / episode.finished, episode.energy, rtol=1e-4)


def test_events_add_up_to_their_frames(recording: Recording, episode: Episodes) -> None:
    frames = np.arange(len(recording.reward))
    joules = (recording.power * duration(recording)[:, None]).sum(axis=1)
    left = np.array([recording.tasks_left[recording.frame == frame][0].sum() for frame in frames])
    np.testing.assert_allclose(np.bincount(recording.frame, joules), recording.energy, rtol=1e-4)
    np.testing.assert_array_equal(-np.diff(left, append=0), recording.finished)
    busy = (duration(recording)[:, None] * (recording.mode != FREE)).sum(axis=0)
    np.testing.assert_allclose(busy.sum() / episode.finished, episode.task_latency, rtol=1e-4)
    np.testing.assert_allclose(busy.max() + PARAMS.beta * recording.energy.sum(), episode.objective, rtol=1e-4)


def test_events_follow_one_another_without_gaps(recording: Recording) -> None:
    assert recording.start[0] == 0
    np.testing.assert_array_equal(recording.start[1:], recording.end[:-1])
    assert (duration(recording) >= 0).all()
    np.testing.assert_array_equal(recording.frame[:-1] + 1, np.ceil(recording.end[:-1] / recording.frame_time))
    # A UE is busy until it has no task left, and free from then on.
    np.testing.assert_array_equal(recording.mode != FREE, recording.tasks_left > 0)
    assert (np.diff(recording.tasks_left, axis=0) <= 0).all()


def test_each_task_computes_its_front_part_and_sends_its_feature(recording: Recording) -> None:
    for ue in range(ENV.num_ues):
        for left in range(1, recording.tasks_left[0, ue] + 1):
            (events,) = np.nonzero(recording.tasks_left[:, ue] == left)
            cut, channel = recording.cut[events, ue], recording.channel[events, ue]
            assert (cut == cut[0]).all() and (channel == channel[0]).all()
            mode, seconds = recording.mode[events, ue], duration(recording)[events]
            assert (np.diff(mode) >= 0).all()  # computes, then transmits
            np.testing.assert_allclose(
                seconds[mode == COMPUTING].sum(), PARAMS.front_time[ue, cut[0]], rtol=1e-4, atol=1e-6
            )
            sent = (recording.rate[events, ue] * seconds).sum()
            np.testing.assert_allclose(sent, PARAMS.feature_bits[ue, cut[0]], rtol=1e-4, atol=1)


def test_rates_are_those_of_the_radio(interfering: Recording) -> None:
    _, state = ENV.reset(jax.random.split(KEY)[1], PARAMS)
    sending = interfering.mode == TRANSMITTING
    channel = jnp.asarray(interfering.channel)
    same = sending[:, 0] & sending[:, 2] & (interfering.channel[:, 0] == interfering.channel[:, 2])
    assert same.any() and (sending.any(axis=1) & ~same).any()
    received = jnp.asarray(interfering.power) * path_gain(state.distance, PARAMS.path_loss)
    others = jax.vmap(interference)(received, jnp.asarray(sending), channel)
    expected = uplink_rate(received, PARAMS.noise[channel] + others, PARAMS.bandwidth[channel])
    np.testing.assert_allclose(interfering.rate[sending], np.asarray(expected)[sending], rtol=1e-4)
    assert (interfering.rate[~sending] == 0).all()


def test_episodes_that_are_cut_off_end_with_tasks_in_hand() -> None:
    recording = record_episode(ENV, PARAMS.replace(max_steps_in_episode=2), *PLAYERS["mixed"], KEY)
    assert not recording.terminated
    assert len(recording.reward) == 2
    assert recording.end[-1] == 2 * recording.frame_time
    assert (recording.tasks_left[-1] > 0).any()
    assert "cut off" in draw_episode(recording).get_suptitle()


def test_other_environments_and_misshapen_actions_are_one_clear_error() -> None:
    with pytest.raises(ValueError, match="Pendulum cannot be drawn: only a MultiUEOffloading can"):
        record_episode(SimpleNamespace(name="Pendulum"), PARAMS, mixed, MIXED, KEY)  # type: ignore[arg-type]
    wide = jax.tree.map(lambda x: jnp.append(x, x[:1]), MIXED)
    with pytest.raises(ValueError, match=r"action of shapes .*\(4,\)"):
        record_episode(ENV, PARAMS, mixed, wide, KEY)


# --- The picture shows the recording ---


def bars(figure: Figure, edged: bool) -> np.ndarray:
    """Corners `[bar, corner, (s, row)]` of those with an edge (a whole phase) or without (rates)."""
    collections = [artist for artist in gantt(figure).collections if isinstance(artist, PolyCollection)]
    chosen = [artist for artist in collections if (len(artist.get_edgecolor()) > 0) == edged]
    return np.array([np.asarray(path.vertices)[:4] for artist in chosen for path in artist.get_paths()])


def gantt(figure: Figure) -> Any:
    (axes,) = (axes for axes in figure.axes if any(label.get_text() == "UE 0" for label in axes.get_yticklabels()))
    return axes


def test_bars_show_phases_and_their_area_is_what_is_sent(interfering: Recording) -> None:
    number = len(interfering.reward)
    figure = draw_episode(interfering, (0, number))
    phases, rates = bars(figure, edged=True), bars(figure, edged=False)
    height = np.ptp(phases[..., 1], axis=1)
    np.testing.assert_allclose(height, height[0])
    mode = interfering.mode
    busy = (duration(interfering)[:, None] * (mode != FREE)).sum()
    np.testing.assert_allclose(np.ptp(phases[..., 0], axis=1).sum(), busy, rtol=1e-6)
    area = (np.ptp(rates[..., 0], axis=1) * np.ptp(rates[..., 1], axis=1)).sum()
    sent = (duration(interfering)[:, None] * interfering.rate).sum()
    np.testing.assert_allclose(area / height[0] * interfering.rate.max(), sent, rtol=1e-6)
    markers = sum(
        len(artist.get_offsets()) for artist in gantt(figure).collections if not isinstance(artist, PolyCollection)
    )
    assert markers == interfering.finished.sum()


def test_panels_share_the_time_of_the_frames_asked_for(interfering: Recording) -> None:
    number = len(interfering.reward)
    for frames, shown in (((1, 3), (1, 3)), ((0, number), (0, number)), (None, None)):
        figure = draw_episode(interfering, frames, title="Mixed")
        limits = gantt(figure).get_xlim()
        panels = [axes for axes in figure.axes if axes.get_ylabel() == "tasks left"]
        assert [axes.get_xlim() for axes in panels] == [limits, (0, number * interfering.frame_time)]
        assert shown is None or limits == tuple(frame * interfering.frame_time for frame in shown)
        assert figure.get_suptitle().startswith("Mixed: return ")
    assert limits[0] == interfering.frame_time  # the second frame: the first begins with tasks of no one's choice


@pytest.mark.parametrize("num_ues", [1, 20])
def test_one_and_many_ues_are_drawn(num_ues: int, interfering: Recording, tmp_path: Path) -> None:
    columns = ("mode", "tasks_left", "cut", "channel", "rate", "power")
    copies: dict[str, Any] = {
        name: np.resize(getattr(interfering, name).T, (num_ues, len(interfering.mode))).T for name in columns
    }
    many = interfering._replace(**copies, num_channels=9)._replace(channel=copies["channel"] + 7)
    write_episode(many, tmp_path / "episode.svg")
    written = (tmp_path / "episode.svg").read_text()
    assert f"UE {num_ues - 1}" in written and f"UE {num_ues} " not in written


# --- Files ---


def test_png_is_a_picture_and_nothing_else_is_left(interfering: Recording, tmp_path: Path) -> None:
    path = tmp_path / "episode.png"
    path.write_text("an older picture")
    write_episode(interfering, path)
    picture = matplotlib.image.imread(path)
    assert min(picture.shape[:2]) > 400
    assert np.ptp(picture[..., :3]) > 0.5
    assert list(tmp_path.iterdir()) == [path]


def test_gif_moves_through_time(interfering: Recording, tmp_path: Path) -> None:
    path = tmp_path / "episode.gif"
    animate_episode(interfering, path, (0, 3), pictures_per_frame=1, dpi=20)
    with Image.open(path) as gif:
        pictures = [np.asarray(picture.convert("RGB")) for picture in ImageSequence.Iterator(gif)]
    shown = chart._legible_frames(interfering, 0)
    assert len(pictures) == 4 - min(shown, 3) > 1
    assert all((one != other).any() for one, other in itertools.pairwise(pictures))
    animate_episode(interfering, path, max_pictures=2, dpi=20)
    with Image.open(path) as gif:
        assert len(list(ImageSequence.Iterator(gif))) == 2
    assert list(tmp_path.iterdir()) == [path]


def test_paths_that_cannot_be_written_are_one_clear_error(interfering: Recording, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("mine")
    for name, words in (
        ("episode.jpeg", r"episode.jpeg.*\.png or \.pdf or \.svg or \.gif"),
        ("episode", r"episode.*\.png"),
        ("folder.png", "can't write picture .*folder.png.*it is a folder"),
        ("missing/episode.png", "can't write picture .*missing.*existing folder"),
        ("file/episode.gif", "can't write picture .*file.*Not a directory"),
    ):
        with pytest.raises(ValueError, match=words):
            write_episode(interfering, tmp_path / name)
    with pytest.raises(ValueError, match=r"must end in \.gif"):
        animate_episode(interfering, tmp_path / "episode.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


@pytest.mark.parametrize("frames", [(-1, 2), (2, 2), (3, 1), (0, 10_000)])
def test_frames_that_are_not_there_are_one_clear_error(
    frames: tuple[int, int], interfering: Recording, tmp_path: Path
) -> None:
    for name in ("episode.png", "episode.gif"):
        with pytest.raises(ValueError, match=f"frames {frames[0]}:{frames[1]}: the episode has"):
            write_episode(interfering, tmp_path / name, frames)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_keeps_the_old_file(
    interfering: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "episode.png"
    path.write_text("an older picture")

    def disk_full(figure: Figure, file: Path, **_: Any) -> None:
        file.write_text("half a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", disk_full)
    with pytest.raises(ValueError, match=r"episode.png.*No space left on device"):
        write_episode(interfering, path)
    assert path.read_text() == "an older picture"
    assert list(tmp_path.iterdir()) == [path]


# --- The command ---


@pytest.fixture(autouse=True)
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search for the best static action is tested with the solvers; one line as wide as the longest path."""

    def best_static(env: MultiUEOffloading, params: Params, key: jax.Array) -> SimpleNamespace:
        return SimpleNamespace(action=offloading.local(env, params, jnp.empty(0), key))

    monkeypatch.setattr(offloading, "best_static", best_static)
    monkeypatch.setattr(console, "_width", 200)


@pytest.mark.parametrize("name", ["local", "All_Edge", "best-static"])
def test_baselines_are_drawn(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "episode.png"
    cli.main(["render", name, "--out", str(out), "--num-ues", "2", "--frames", "1:3"])
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
    assert str(out) in capsys.readouterr().out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunConfig, Any, Path]:
    """A run's configuration, its actors as they are before training, and its exported policy."""
    config = mahppo.Config(trunk=(8,), head=8, critic=(8,))
    hparams = mahppo.PRESETS["fast"][1]
    static = {"num_ues": 2, "num_channels": 2, "profile": "resnet18"}
    run = RunConfig("mahppo", "MultiUEOffloading-v0", static, {"beta": 0.3}, "fast", 3, config, hparams)
    env, params = run.make_env()
    actors = mahppo.make_actors(env, config).init(KEY, jnp.zeros((1, 8)), params.power_max)
    path = tmp_path_factory.mktemp("trained") / "policy.npz"
    export.export_policy(path, run, actors, 0, score={})
    return run, actors, path


@pytest.mark.full
def test_trained_policies_are_drawn_from_run_and_file_alike(
    trained: tuple[RunConfig, Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, actors, file = trained
    drawn = []
    monkeypatch.setattr(chart.OffloadingChart, "write", staticmethod(lambda *arguments: drawn.append(arguments)))
    monkeypatch.setattr(runs, "load_run", lambda path: (run, SimpleNamespace(actors=actors)))
    for path in (file.parent, file):
        for options in ((), ("--seed", "1"), ("--deterministic",), ("--params", "path_loss", "2.5")):
            cli.main(["render", str(path), "--out", str(tmp_path / "episode.gif"), *options])
    assert {title for *_, title in drawn} == {"MAHPPO, preset fast, seed 3"}
    rewards = [recording.reward for recording, *_ in drawn]
    for from_run, from_file in zip(rewards[:4], rewards[4:], strict=True):
        np.testing.assert_array_equal(from_run, from_file)
    assert len({tuple(reward) for reward in rewards}) == 4


def assert_fails(capsys: pytest.CaptureFixture[str], arguments: Sequence[Any], *fragments: str) -> None:
    """One line on stderr, exit code 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["render", *(str(argument) for argument in arguments)])
    error = capsys.readouterr().err
    assert stop.value.code == 2, error
    assert error.startswith("mec-jax: ") and error.count("\n") == 1, error
    for fragment in fragments:
        assert fragment in error


def test_wrong_arguments(
    trained: tuple[RunConfig, Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ("--out", tmp_path / "episode.png")
    for arguments, fragments in (
        (("locall", *out), ("'locall'", "did you mean 'local'?", "policy.npz", "best-static")),
        (("nowhere/policy.npz", *out), ("nowhere/policy.npz", "run folder")),
        ((tmp_path, *out), ("no run folder",)),
        (("local", "--out", tmp_path / "episode.bmp"), ("episode.bmp", ".png", ".gif")),
        (("local", "--out", tmp_path / "missing" / "episode.png"), ("can't write picture", "existing folder")),
        (("local", *out, "--frames", "a:b"), ("--frames", "'a:b'")),
        (("local", *out, "--frames", "3:3"), ("frames 3:3",)),
        (("local", *out, "--seed", "-1"), ("--seed",)),
        (("local", *out, "--num-ues", "0"), ("num_ues is 0",)),
        (("local", *out, "--params", "betta", "1"), ("betta",)),
        (("random", *out, "--deterministic"), ("--deterministic",)),
        ((trained[2], *out, "--num-ues", "3"), ("--num-ues", "its own")),
    ):
        assert_fails(capsys, arguments, *fragments)
    assert not list(tmp_path.iterdir())


def test_policies_of_another_environment(
    trained: tuple[RunConfig, Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = load_policy(trained[2])
    other = tmp_path / "policy.npz"
    save_policy(other, policy.arrays, json.loads(json.dumps(dict(policy.metadata))) | {"env_id": "Nowhere-v0"})
    assert_fails(capsys, [other, "--out", tmp_path / "episode.png"], "Nowhere-v0", "MultiUEOffloading-v0")
    assert list(tmp_path.iterdir()) == [other]
