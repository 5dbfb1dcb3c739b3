"""Recordings and pictures of episodes of `CompressedInference`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

import mec_jax
from mec_jax.episodes import play_episode
from mec_jax.registry import find
from mec_jax.render.compressed_inference import CHART, Recording, draw_episode, record_episode, write_episode
from mec_jax.solvers.compression.policies import baselines
from tests.errors import error_of

KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def recording() -> Recording:
    env, params = mec_jax.make("CompressedInference-Anchored-v0")
    return record_episode(env, params, baselines(env)["Random"], params, KEY)


def test_a_recording_is_the_episode_that_is_evaluated(recording: Recording) -> None:
    env, params = mec_jax.make("CompressedInference-Anchored-v0")
    played = play_episode(env, params, baselines(env)["Random"], params, KEY)
    assert find(env.chart) is CHART
    assert len(recording.reward) == played.frames == 9
    assert recording.reward.sum() == pytest.approx(float(played.episode_return), rel=1e-5)
    assert recording.latency[-1] == pytest.approx(float(played.latency), rel=1e-5)
    # The codec makes what is sent less, and changes nothing else.
    own = recording.times[-1, recording.cut[-1]]
    np.testing.assert_allclose(recording.decided[-1, [0, 2]], own[[0, 2]], rtol=1e-5)
    assert recording.decided[-1, 1] <= own[1] * (1 + 1e-5)


def test_bars_are_sparsities_and_times(recording: Recording) -> None:
    figure = draw_episode(recording, title="Random")
    bars: list[Any] = [axes.patches for axes in figure.axes]
    pruned, _, cuts = bars
    np.testing.assert_allclose([bar.get_height() for bar in pruned], recording.sparsity[-1])
    tops = [bar.get_y() + bar.get_height() for bar in cuts[-23:]]
    np.testing.assert_allclose(tops[:-1], recording.times[-1].sum(axis=-1))
    np.testing.assert_allclose(tops[-1], recording.decided[-1].sum())
    assert "too much" in figure.get_suptitle() and figure.get_suptitle().startswith("Random: ")


def test_pictures_and_animations_are_written_whole(recording: Recording, tmp_path: Path) -> None:
    write_episode(recording, tmp_path / "episode.png")
    write_episode(recording, tmp_path / "episode.gif", (6, 9))
    with Image.open(tmp_path / "episode.png") as picture, Image.open(tmp_path / "episode.gif") as film:
        assert picture.size == (1320, 780) and len(list(ImageSequence.Iterator(film))) == 3
    says = error_of(write_episode, recording, tmp_path / "other.png", (8, 10))
    assert "frames 8:10: the episode has 9" in says and not (tmp_path / "other.png").exists()


def test_another_environment_is_refused() -> None:
    env, params = mec_jax.make("NeuronAllocation-v0")
    says = error_of(record_episode, env, params, baselines, params, KEY)
    assert "only a CompressedInference can" in says
