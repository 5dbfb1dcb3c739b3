"""The campaign of codecs: it goes on where it was, says what it measured, and its numbers drive JALAD's profiles."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.learning import codecs
from benchmarks.learning.codec_profile import best_codecs
from benchmarks.learning.codec_tables import JaladRow, Row, read_rows, write_rows
from benchmarks.learning.codecs import Campaign, best_rates, main, page
from mec_jax.split.autoencoder import load_codec
from mec_jax.split.codec_training import CodecTraining
from mec_jax.split.images import load_images
from mec_jax.split.networks import small_image_network
from tests.errors import error_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ROW = Row("resnet18", "digits-60", 16, "maxpool", 64, 4, 8, 64.0, 1, 0, 0, 0.9, 0.7, 0.89, 1.5)


class Stopped(Exception):
    pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(codecs.platformdirs, "user_cache_dir", lambda _: str(tmp_path / "cache"))
    monkeypatch.setattr(codecs, "JALAD_IMAGES", 2)
    monkeypatch.setattr(codecs, "trained", lambda network, images: small_image_network(network, 10, 0))
    return tmp_path / "cache"


def test_a_campaign_that_is_stopped_goes_on_to_the_same_rows(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = load_images("digits", 16)
    images = replace(images, test=type(images.test)(images.test.images[:20], images.test.labels[:20]))
    monkeypatch.setattr(codecs, "BUDGET", 1.0)  # the search goes on to the last channel
    monkeypatch.setattr(codecs, "START_RATE", 128)  # 2 of 64 channels
    kept = load_profile_points("layer4.0")
    monkeypatch.setattr(codecs, "load_profile", lambda _: kept)
    train, calls = codecs.train_codec, []

    def stopping(*arguments: Any) -> Any:
        calls.append(arguments[4])
        if len(calls) == 3:
            raise Stopped
        return train(*arguments)

    monkeypatch.setattr(codecs, "train_codec", stopping)
    whole, parts = (
        Campaign(tmp_path / name, CodecTraining(epochs=1, tuning_epochs=0), 30) for name in ("whole", "parts")
    )
    with pytest.raises(Stopped):
        parts.run(["resnet18"], images, 2)
    assert len(read_rows(tmp_path / "parts" / "rates.csv", Row)) == 2
    jalad = (tmp_path / "parts" / "jalad.csv").read_text()
    parts.run(["resnet18"], images, 1)
    assert len(calls) == 6, "16, 8, then again the one that was stopped, 4, 2, 1"
    parts.run(["resnet18"], images, 1)
    assert len(calls) == 6, "nothing is missing"
    assert (tmp_path / "parts" / "jalad.csv").read_text() == jalad, "JALAD is not measured anew"
    whole.run(["resnet18"], images, 1)
    assert len(calls) == 11
    rows = [read_rows(tmp_path / name / "rates.csv", Row) for name in ("parts", "whole")]
    assert [replace(row, seconds=0) for row in rows[0]] == [replace(row, seconds=0) for row in rows[1]]
    assert [row.sent for row in rows[0]] == [16, 8, 4, 2, 1]
    files = sorted((cache / "codecs").iterdir())
    assert len(files) == 5
    about = load_codec(files[0]).about
    assert (about.network, about.cut) == ("resnet18 with stride 1 in conv1", "layer4.0.relu_1")
    parts.run(["resnet18"], images, 2)
    assert calls[11:] == [1], "the second seed begins where the first ended"
    assert "resnet18, digits-30 at 16 x 16" in (tmp_path / "parts" / "README.md").read_text()
    assert (tmp_path / "parts" / "rates.png").stat().st_size > 1000


def load_profile_points(cut: str) -> Any:
    """A profile of one cut."""

    class Some:
        points = ("input", cut, "local")

    return Some()


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, sent=2, rate=128.0, accuracy=0.1 + 0.2)]
    write_rows(tmp_path / "rates.csv", rows)
    assert read_rows(tmp_path / "rates.csv", Row) == rows
    assert read_rows(tmp_path / "none.csv", Row) == []


def test_the_best_rate_is_the_largest_within_the_budget_for_each_seed() -> None:
    def row(rate: float, lost: float, seed: int) -> Row:
        return replace(ROW, rate=rate, accuracy=ROW.accuracy_without - lost, seed=seed)

    rows = [row(64, 0.01, 0), row(128, 0.0199, 0), row(256, 0.03, 0), row(64, 0.04, 1), row(32, 0.0, 1), row(64, 1, 2)]
    assert best_rates(rows) == [128, 32, 0]


def test_the_page_has_what_was_measured_and_what_the_paper_has() -> None:
    about = {"cpu": "a CPU", "cores": 2, "threads": "1 threads", "torch": "2", "torchvision": "1"}
    jalad = JaladRow("resnet18", "digits", 16, "maxpool", 4096, 8192.0, 10.0, 1.5, 0.6, 1e-4, 2e-4, 3e-4)
    text = page([ROW, replace(ROW, seed=1, accuracy=0.86)], [jalad], about)
    assert "| maxpool | 64 | 64: 2.50 ± 2.12 (20.0) |" in text
    assert "| maxpool | 64, none | 64 | 16.0 | 2.00 | 1.50 | 0.100, 0.200, 0.300 | 164 |" in text
    assert "a CPU, 2 cores, 1 threads; torch 2, torchvision 1" in text
    assert "| maxpool | 64 | 64 | - | - | - | - | - |" in page([ROW], [], about)
    assert "No codec is trained yet." in page([], [], about)


def test_the_page_is_written_without_training(tmp_path: Path) -> None:
    write_rows(tmp_path / "rates.csv", [ROW])
    about = {"cpu": "a CPU", "cores": 2, "threads": "1 threads", "torch": "2", "torchvision": "1"}
    (tmp_path / "machine.json").write_text(json.dumps(about))
    main(["--page", "--out", str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == page([ROW], [], about)


@pytest.mark.parametrize("option", ["--seeds", "--images", "--epochs", "--threads"])
def test_numbers_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option, "0"])
    assert f"{option} is 0: it must be at least 1" in capsys.readouterr().err


def test_images_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert "can't read cifar10" in error_of(main, ["--data", "cifar10", "--folder", str(tmp_path)])
    assert torch.get_num_threads() == 1


def test_a_profile_takes_at_each_cut_the_codec_that_sends_least_within_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codecs.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    cuts = ("maxpool", "layer2.0", "layer3.0", "layer4.0")
    rows = [
        replace(ROW, side=32, cut=cut, sent=sent, accuracy=0.9 - lost, seed=seed)
        for cut in cuts
        for sent, lost, seed in ((4, 0.001, 0), (2, 0.019, 0), (1, 0.03, 0), (1, 0.0, 1))
    ]
    with pytest.raises(SystemExit, match="there is no codec of resnet18 at maxpool"):
        best_codecs(rows)
    for row in rows:
        path = codecs.codec_file(row.key)
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert {cut: row.sent for cut, row in best_codecs(rows).items()} == dict.fromkeys(cuts, 2)
