"""Data sets: what loaders make of files as their owners lay them out, what is refused, what the command says."""

import gzip
import hashlib
import pickle
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from algos.cli.dataset import Dataset
from mec_jax.split.images import DATASETS, default_folder, how_to_get, is_there, load_images
from mec_jax.split.networks import STEMS, small_image_network
from tests.errors import error_of

pytestmark = pytest.mark.usefixtures("one_thread")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}i", 2048 + array.ndim, *array.shape) + array.tobytes()


def fashion(folder: Path, packed: bool = True, labels: Sequence[int] = (0, 3, 9)) -> np.ndarray:
    """The four files, with two images to test on; the training images are returned."""
    pixels = np.arange(len(labels) * 784, dtype=np.int64).astype(np.uint8).reshape(-1, 28, 28)
    for prefix, part in (("train", slice(None)), ("t10k", slice(2))):
        for name, array in (("images-idx3", pixels[part]), ("labels-idx1", np.array(labels, np.uint8)[part])):
            content = idx(array)
            path = folder / (f"{prefix}-{name}-ubyte" + ".gz" * packed)
            path.write_bytes(gzip.compress(content) if packed else content)
    return pixels


def picture(path: Path, color: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def tree(folder: Path, counts: dict[str, int]) -> None:
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            picture(folder / name / f"image_{number:04}.png", (10 * label, number, 200))


# What is loaded


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_gets_a_black_margin_and_three_channels(tmp_path: Path, packed: bool) -> None:
    pixels = fashion(tmp_path, packed)
    found = load_images("fashion-mnist", folder=tmp_path)
    assert (found.name, len(found.classes), found.classes[9]) == ("fashion-mnist", 10, "boot")
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == ([0, 3, 9], [0, 3])
    assert found.train.images.dtype == torch.uint8 and found.train.images.shape == (3, 3, 32, 32)
    for channel in range(3):
        np.testing.assert_array_equal(found.train.images[:, channel, 2:30, 2:30], pixels)
    margin = found.train.images.clone()
    margin[..., 2:30, 2:30] = 0
    assert not margin.any()


def test_training_images_have_mean_0_and_variance_1_as_inputs(tmp_path: Path) -> None:
    fashion(tmp_path)
    found = load_images("fashion-mnist", folder=tmp_path)
    exact = found.train.images.double() / 255
    # Means of 3 * 1024 numbers in float32: of as many roundings, magnitudes of 1.
    tolerance = 3 * 1024 * 2**-24
    torch.testing.assert_close(found.mean[:, 0, 0].double(), exact.mean((0, 2, 3)), atol=2**-24, rtol=0)
    inputs = found.inputs(found.train.images)
    assert inputs.dtype == torch.float32
    assert inputs.mean().abs() < tolerance and (inputs.var(correction=0) - 1).abs() < 4 * tolerance


def test_digits_come_with_scikit_learn() -> None:
    found = load_images("digits", side=8)
    assert found.train.images.shape == (1438, 3, 8, 8) and found.test.images.shape == (359, 3, 8, 8)
    assert found.train.images.max() == 255 and set(found.test.labels.tolist()) == set(range(10))


def cifar10(folder: Path, monkeypatch: pytest.MonkeyPatch, label: int = 7) -> np.ndarray:
    """Two images a batch, and torchvision told that these are the right ones."""
    dataset = torchvision.datasets.CIFAR10
    where = folder / "cifar-10-batches-py"
    where.mkdir()
    rng = np.random.default_rng(0)
    batches = {name: rng.integers(0, 256, (2, 3072), np.uint8) for name, _ in (*dataset.train_list, *dataset.test_list)}
    sums = {}
    for name, content in (
        *((name, {"data": data, "labels": [label, 1]}) for name, data in batches.items()),
        ("batches.meta", {"label_names": [f"class{i}" for i in range(10)]}),
    ):
        (where / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((where / name).read_bytes()).hexdigest()
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, part, [[name, sums[name]] for name, _ in getattr(dataset, part)])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": sums["batches.meta"]})
    return batches["test_batch"]


def test_cifar10_lies_as_torchvision_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = cifar10(tmp_path, monkeypatch)
    found = load_images("cifar10", folder=tmp_path)
    assert found.classes == tuple(f"class{i}" for i in range(10))
    assert found.train.images.shape == (10, 3, 32, 32) and found.train.labels.tolist() == [7, 1] * 5
    np.testing.assert_array_equal(found.test.images, pixels.reshape(2, 3, 32, 32))


def test_caltech101_has_no_background_and_a_fifth_of_each_class_to_test_on(tmp_path: Path) -> None:
    where = tmp_path / "caltech101" / "101_ObjectCategories"
    tree(where, {"BACKGROUND_Google": 5, "Faces": 10, "anchor": 6, "zebra": 3})
    found = load_images("caltech101", folder=tmp_path, side=8)
    assert found.classes == ("Faces", "anchor", "zebra")
    assert torch.bincount(found.test.labels).tolist() == [2, 1]
    assert torch.bincount(found.train.labels).tolist() == [8, 5, 3]
    # A class's color is its place in the tree: 10 is that of Faces, as 0 was the background's.
    assert found.train.images[found.train.labels == 0][:, 0].amax() == 10
    # 6 x 4 pixels in 8 x 8.
    inside = found.train.images[:, 2, 2:6, 1:7]
    assert (inside == 200).all() and found.train.images[:, 2].sum() == inside.sum()


def test_larger_images_keep_their_proportions(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(5):
            picture(tmp_path / name / f"{number}.png", (255, 255, 255), (40, 20))
    found = load_images("folder", folder=tmp_path, side=10)
    assert (found.train.images[:, :, 2:7] == 255).all()
    assert not found.train.images[:, :, :2].any() and not found.train.images[:, :, 7:].any()


def test_a_folder_that_is_divided_stays_so(tmp_path: Path) -> None:
    tree(tmp_path / "train", {"cat": 3, "dog": 2})
    tree(tmp_path / "test", {"cat": 1, "dog": 1})
    found = load_images("folder", folder=tmp_path)
    assert (found.classes, len(found.train.labels), len(found.test.labels)) == (("cat", "dog"), 5, 2)


def test_the_division_depends_on_names_in_the_folder_alone(tmp_path: Path) -> None:
    parts = []
    for place in ("here", "there/and/deep"):
        tree(tmp_path / place, {"cat": 20, "dog": 20})
        parts.append(load_images("folder", folder=tmp_path / place).test.images)
    assert torch.equal(*parts) and len(parts[0]) == 8


def test_fewer_images_are_some_of_them_and_their_name_says_so(tmp_path: Path) -> None:
    found = load_images("digits", side=8)
    few = found.fewer(100, seed=1)
    assert (few.name, len(few.train.labels), len(few.test.labels)) == ("digits-100", 100, 359)
    assert torch.equal(few.mean, found.mean) and torch.equal(few.test.images, found.test.images)
    whole = {image.numpy().tobytes(): int(label) for image, label in zip(*found.train, strict=True)}
    assert all(whole[image.numpy().tobytes()] == label for image, label in zip(*few.train, strict=True))
    assert not torch.equal(few.train.images, found.fewer(100, seed=2).train.images)
    assert found.fewer(1438) is found
    assert "the number of training images is 1439" in error_of(found.fewer, 1439)


@pytest.mark.parametrize("network", STEMS)
def test_networks_for_small_images_differ_from_torchvisions_in_one_stride(network: str) -> None:
    ours, theirs = small_image_network(network, 10, 3), torchvision.models.get_model(network, num_classes=10)
    assert ours.get_submodule(STEMS[network]).stride == (1, 1)
    assert theirs.get_submodule(STEMS[network]).stride != (1, 1)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    with torch.inference_mode():
        assert ours(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_an_unknown_network_for_small_images_is_refused() -> None:
    assert "no network 'resnet8': did you mean 'resnet18'?" in error_of(small_image_network, "resnet8", 10, 0)


# What is refused


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar10", "caltech101", "folder"])
def test_what_is_not_there_is_said_with_how_to_get_it(tmp_path: Path, name: str) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        if (name, folder) != ("folder", tmp_path):
            message = error_of(load_images, name, folder=folder)
            assert message.startswith(f"can't read {name} in {str(folder)!r} (") and message.endswith(how_to_get(name))
            assert not is_there(name, folder)


def test_an_unknown_data_set_is_refused() -> None:
    for call in (load_images, how_to_get, is_there, default_folder):
        assert "no data set 'fashion': did you mean 'fashion-mnist'?" in error_of(call, "fashion")
    assert "side is 0" in error_of(load_images, "digits", 0)
    assert "side is 100000" in error_of(load_images, "digits", 100_000)
    assert "1438 images of 1024 x 1024 need 4.2 GiB, at most 4 are taken" in error_of(load_images, "digits", 1024)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    assert "has no images in a folder for each class" in error_of(load_images, "folder", folder=tmp_path)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("none")
    assert "has no images in a folder for each class" in error_of(load_images, "folder", folder=tmp_path)
    picture(tmp_path / "alone.png", (0, 0, 0))
    assert "has no images in a folder for each class" in error_of(load_images, "folder", folder=tmp_path)


def test_classes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tree(tmp_path / "both" / "train", {"cat": 2, "dog": 2})
    tree(tmp_path / "both" / "test", {"cat": 1, "fox": 1})
    assert "/test has the classes dog, fox: both need all" in error_of(load_images, "folder", folder=tmp_path / "both")
    tree(tmp_path / "one", {"cat": 9})
    assert "has one class, 'cat': give a folder for each" in error_of(load_images, "folder", folder=tmp_path / "one")
    tree(tmp_path / "few", {"cat": 2, "dog": 2})
    assert "has no image to test on" in error_of(load_images, "folder", folder=tmp_path / "few")
    fashion(tmp_path, labels=(0, 1, 10))
    assert "has the label 10 in its train part, and 10 classes" in error_of(
        load_images, "fashion-mnist", folder=tmp_path
    )


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other magic", "short header", "counts"])
def test_a_damaged_idx_file_is_refused(tmp_path: Path, damage: str) -> None:
    fashion(tmp_path, packed=damage in ("cut", "flipped", "empty"))
    file = next(iter(sorted(tmp_path.glob("train-images*"))))
    content = bytearray(file.read_bytes())
    match damage:
        case "cut":
            content = content[:-20]
        case "flipped":
            content[len(content) // 2] ^= 255
        case "empty":
            content = content[:0]
        case "other magic":
            content[3] = 1
        case "short header":
            content = content[:6]
        case "counts":
            content[7] += 1
    file.write_bytes(content)
    message = error_of(load_images, "fashion-mnist", folder=tmp_path)
    assert message.startswith(f"can't read fashion-mnist in {str(tmp_path)!r} (")


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    fashion(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(2, np.uint8))))
    assert "train has 3 images and 2 labels" in error_of(load_images, "fashion-mnist", folder=tmp_path)


def test_a_damaged_cifar10_is_refused_before_it_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10(tmp_path, monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes() + b"x")
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("it was unpickled"))
    assert "can't read cifar10" in error_of(load_images, "cifar10", folder=tmp_path)


def test_labels_that_are_no_class_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar10(tmp_path, monkeypatch, label=10)
    assert "has the label 10 in its train part" in error_of(load_images, "cifar10", folder=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "text", "header"])
def test_a_damaged_image_is_named(tmp_path: Path, damage: str) -> None:
    tree(tmp_path, {"cat": 5, "dog": 5})
    file = tmp_path / "dog" / "image_0003.png"
    content = file.read_bytes()
    file.write_bytes(
        {"cut": content[:45], "text": b"a text", "header": content[:16] + b"\xff" * 8 + content[24:]}[damage]
    )
    message = error_of(load_images, "folder", folder=tmp_path)
    assert repr(str(file)) in message and message.endswith("take it out of the folder")


# The command


def test_the_command_shows_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Dataset(folder=tmp_path / "nowhere").run()
    shown = capsys.readouterr().out
    rows = {name: line for name in DATASETS for line in shown.splitlines() if line.split()[:1] == [name]}
    assert {name: row.split()[1] for name, row in rows.items()} == {
        name: "yes" if name == "digits" else "no" for name in DATASETS
    }
    fashion(tmp_path)
    Dataset(folder=tmp_path).run()
    assert any(line.split()[:2] == ["fashion-mnist", "yes"] for line in capsys.readouterr().out.splitlines())


def test_the_command_says_what_a_data_set_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path, {f"class{i:02}": 5 for i in range(14)})
    Dataset("folder", folder=tmp_path, side=16).run()
    shown = " ".join(capsys.readouterr().out.split())
    assert "folder: 56 images to train on, 14 to test on" in shown and "each 3 x 16 x 16" in shown
    assert "14 classes: class00, " in shown and shown.endswith("class11 and 2 more")


def test_the_command_that_cannot_be_done_says_why(tmp_path: Path) -> None:
    assert "did you mean 'digits'" in error_of(Dataset("digit").run)
    assert "has no images in a folder for each class" in error_of(Dataset("folder", folder=tmp_path).run)


def test_without_pytorch_the_command_says_what_to_install() -> None:
    code = "import sys; sys.modules['torch'] = None; from algos.cli.dataset import Dataset; Dataset().run()"
    root = Path(__file__).resolve().parents[1]
    ended = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert ended.stderr.endswith(
        "ValueError: dataset needs PyTorch (no module 'torch'): pip install 'mec_jax[torch]'\n"
    )
