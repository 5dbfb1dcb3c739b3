"""Real images to train and test on: Fashion-MNIST, CIFAR-10, Caltech-101, scikit-learn's digits, or a folder.

All come as three channels of one size, so that one network fits all. Nothing is downloaded: `how_to_get` says for each
where it is to be had.
"""

import gzip
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from torch.nn import functional

from mec_jax.files import check_count, did_you_mean, reason

__all__ = ["DATASETS", "FASHION_MNIST", "Images", "Labelled", "how_to_get", "load_images"]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts it."""

TEST_SHARE = 5
"""Of images that nobody has divided, one in so many is for testing."""


class Labelled(NamedTuple):
    """Images and what they show."""

    images: torch.Tensor  # [image, 3, side, side] uint8
    labels: torch.Tensor  # [image] int64


@dataclass(frozen=True)
class Images:
    """A data set, in two parts."""

    name: str
    train: Labelled
    test: Labelled
    classes: tuple[str, ...]
    mean: torch.Tensor  # [3, 1, 1] of the training images, 0..1
    deviation: torch.Tensor  # [3, 1, 1] of them

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """What a network is given, [image, 3, side, side] float32: the training images have mean 0 and variance 1."""
        return (images.float() / 255 - self.mean) / self.deviation


def load_images(name: str, side: int = 32, folder: Path | None = None) -> Images:
    """A data set, every image of `side` x `side`.

    Args:
        name: One of `DATASETS`, or "folder" for any folder of images, one subfolder a class; if it has the subfolders
            "train" and "test", these are the two parts, else one image in five, by its path, is for testing.
        side: Pixels. Smaller images get a black margin, others are resized.
        folder: Where it is; by default where its package or torchvision would put it.

    Raises:
        ValueError: If there is no such data set, it is not there, or it can't be read.
    """
    check_count("side", side)
    if name not in _LOADERS:
        raise ValueError(f"no data set {name!r}: {did_you_mean(name, DATASETS)}use one of {', '.join(DATASETS)}")
    where = _DEFAULTS.get(name) if folder is None else folder
    try:
        train, test, classes = _LOADERS[name](where, side)
    except (OSError, RuntimeError, EOFError, zlib.error, ImportError) as error:
        raise ValueError(f"can't read {name} in {str(where)!r} ({reason(error)}): {how_to_get(name)}") from None
    for part, labelled in (("train", train), ("test", test)):
        if not len(labelled.labels):
            raise ValueError(f"{name} in {str(where)!r} has no image to {part} on: {how_to_get(name)}")
    numbers = train.images.double() / 255
    mean, deviation = numbers.mean((0, 2, 3)), numbers.std((0, 2, 3)).clamp_min(1e-3)
    return Images(name, train, test, classes, *(each.float()[:, None, None] for each in (mean, deviation)))


def how_to_get(name: str) -> str:
    """Where a data set is to be had, and how it must lie."""
    return _HOW_TO_GET[name]


def _fitted(images: torch.Tensor, side: int) -> torch.Tensor:
    """[image, 3, side, side] of [image, 1 or 3, height, width], uint8."""
    height, width = images.shape[-2:]
    if max(height, width) > side:
        size = [max(1, round(side * length / max(height, width))) for length in (height, width)]
        images = torchvision.transforms.v2.functional.resize(images, size, antialias=True)
        height, width = size
    above, left = (side - height) // 2, (side - width) // 2
    images = functional.pad(images, (left, side - width - left, above, side - height - above))
    return images.expand(-1, 3, -1, -1).contiguous()


def _labelled(images: Any, labels: Any, side: int) -> Labelled:
    found = torch.as_tensor(np.asarray(images))
    return Labelled(_fitted(found, side), torch.as_tensor(np.asarray(labels, np.int64)))


def _fashion_mnist(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    def read(file: str, header: int) -> np.ndarray:
        packed = folder / f"{file}.gz"
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / file).read_bytes()
        return np.frombuffer(content, np.uint8, offset=header)

    def part(prefix: str, count: int) -> Labelled:
        images, labels = read(f"{prefix}-images-idx3-ubyte", 16), read(f"{prefix}-labels-idx1-ubyte", 8)
        if (images.size, labels.size) != (count * 784, count):
            raise OSError(f"{prefix} does not hold {count} images of 28 x 28")
        return _labelled(images.reshape(-1, 1, 28, 28).copy(), labels, side)

    classes = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
    return part("train", 60_000), part("t10k", 10_000), classes


def _cifar10(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    parts = [torchvision.datasets.CIFAR10(folder, train) for train in (True, False)]
    train, test = (_labelled(each.data.transpose(0, 3, 1, 2).copy(), each.targets, side) for each in parts)
    return train, test, tuple(parts[0].classes)


def _caltech101(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    return _divided(folder / "caltech101" / "101_ObjectCategories", side)


def _folder(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    if not {"train", "test"} <= set(os.listdir(folder)):
        return _divided(folder, side)
    (train, classes), (test, others) = (_images_of(folder / part, side) for part in ("train", "test"))
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(f"only one of {str(folder)!r}/train and /test has the classes {', '.join(odd)}: both need all")
    return _joined(train), _joined(test), classes


def _divided(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    found, classes = _images_of(folder, side)
    ordered = sorted(found, key=lambda each: zlib.crc32(each[0].encode()))  # the same on every machine
    few = len(ordered) // TEST_SHARE
    return _joined(ordered[few:]), _joined(ordered[:few]), classes


_Found = list[tuple[str, torch.Tensor, int]]


def _images_of(folder: Path, side: int) -> tuple[_Found, tuple[str, ...]]:
    """Path in the folder, image [1, 3, side, side] and class of each, and the names of the classes."""
    try:
        listed = torchvision.datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise ValueError(f"{str(folder)!r} has no images in a folder for each class ({reason(error)})") from None
    found = []
    for path, label in listed.samples:
        try:
            image = torchvision.transforms.v2.functional.pil_to_tensor(listed.loader(path))
        except OSError as error:
            raise ValueError(f"{path!r} is no image ({reason(error)}): take it out of the folder") from None
        found.append((os.path.relpath(path, folder), _fitted(image[None], side), label))
    return found, tuple(listed.classes)


def _joined(found: _Found) -> Labelled:
    if not found:
        return Labelled(torch.zeros((0, 3, 1, 1), dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    return Labelled(torch.cat([image for _, image, _ in found]), torch.tensor([label for *_, label in found]))


def _digits(folder: Path | None, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    few = len(images) // TEST_SHARE
    train, test = (_labelled(images[part], digits.target[part], side) for part in (slice(few, None), slice(few)))
    return train, test, tuple(map(str, range(10)))


_LOADERS: Mapping[str, Callable[[Any, int], tuple[Labelled, Labelled, tuple[str, ...]]]] = MappingProxyType(
    {
        "fashion-mnist": _fashion_mnist,
        "cifar10": _cifar10,
        "caltech101": _caltech101,
        "digits": _digits,
        "folder": _folder,
    }
)

_DEFAULTS = MappingProxyType(
    {"fashion-mnist": FASHION_MNIST, "cifar10": Path("data"), "caltech101": Path("data"), "folder": Path("data")}
)

DATASETS = tuple(_LOADERS)
"""Names that `load_images` knows."""

_HOW_TO_GET = MappingProxyType(
    {
        "fashion-mnist": (
            "install Debian's package dataset-fashion-mnist (30 MB), or put the four idx files of "
            "github.com/zalandoresearch/fashion-mnist into a folder and name it"
        ),
        "cifar10": (
            "unpack cifar-10-python.tar.gz of cs.toronto.edu/~kriz/cifar.html (170 MB) in a folder, so that it has "
            "cifar-10-batches-py, and name it"
        ),
        "caltech101": (
            "unpack caltech-101.zip of data.caltech.edu/records/mzrjq-6wc02 (140 MB), so that the folder has "
            "caltech101/101_ObjectCategories, and name it"
        ),
        "digits": "pip install scikit-learn",
        "folder": "name a folder with a subfolder of images for each class, or with train/ and test/ of such",
    }
)
