"""Real images to train and test on: Fashion-MNIST, CIFAR-10, Caltech-101, scikit-learn's digits, or a folder.

All come as three channels of one size, so that one network fits all. Nothing is downloaded: `how_to_get` says for each
where it is to be had.
"""

import dataclasses
import errno
import importlib.util
import itertools
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
from torchvision.transforms.v2.functional import pil_to_tensor, resize

from mec_jax.files import check_count, did_you_mean, read_bytes, reason

__all__ = [
    "DATASETS",
    "FASHION_MNIST",
    "MAX_SIDE",
    "Images",
    "Labelled",
    "default_folder",
    "how_to_get",
    "is_there",
    "load_images",
]

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package `dataset-fashion-mnist` puts it."""

TEST_SHARE = 5
"""Of images that nobody has divided, one in so many of each class is for testing."""

MAX_SIDE = 1024
"""Pixels of an image: all images are in memory at once."""

MAX_BYTES = 2**32
"""Of all images of a data set in memory."""

_MAX_BYTES = 2**30  # of a file of images, packed or not
_IDX_MAGIC = {3: 2051, 1: 2049}  # of idx files of bytes, by their number of axes
_BACKGROUND = "BACKGROUND_Google"  # a folder of Caltech-101 that is none of its 101 classes
_CIFAR10, _CALTECH101 = "cifar-10-batches-py", Path("caltech101", "101_ObjectCategories")


class Labelled(NamedTuple):
    """Images and what they show."""

    images: torch.Tensor  # [image, 3, side, side] uint8
    labels: torch.Tensor  # [image] int64

    def some(self, taken: slice | torch.Tensor) -> "Labelled":
        """Those of a slice, or of these numbers."""
        return Labelled(self.images[taken], self.labels[taken])


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

    def fewer(self, count: int, seed: int = 0) -> "Images":
        """The data set with so many of its training images, drawn by chance; its name says so.

        Mean and deviation stay those of all: a network trained on all is given what it was trained on.

        Raises:
            ValueError: If it has not as many.
        """
        check_count("the number of training images", count, most=len(self.train.labels))
        if count == len(self.train.labels):
            return self
        taken = torch.randperm(len(self.train.labels), generator=torch.Generator().manual_seed(seed))[:count]
        return dataclasses.replace(self, name=f"{self.name}-{count}", train=self.train.some(taken))


def load_images(name: str, side: int = 32, folder: Path | None = None) -> Images:
    """A data set, every image of `side` x `side`.

    Args:
        name: One of `DATASETS`, or "folder" for any folder of images, one subfolder a class; if it has the subfolders
            "train" and "test", these are the two parts, else one image in five of each class, by its path, is for
            testing.
        side: Pixels. Smaller images get a black margin, others are resized.
        folder: Where it is; by default where its package or torchvision would put it.

    Raises:
        ValueError: If there is no such data set, it is not there, it can't be read, or its labels are none of classes.
    """
    check_count("side", side, most=MAX_SIDE)
    _check_name(name)
    where = default_folder(name) if folder is None else folder
    try:
        train, test, classes = _LOADERS[name](where, side)
    except (OSError, RuntimeError, zlib.error, ImportError) as error:
        raise ValueError(f"can't read {name} in {str(where)!r} ({reason(error)}): {how_to_get(name)}") from None
    for part, labelled in (("train", train), ("test", test)):
        if not len(labelled.labels):
            raise ValueError(f"{name} in {str(where)!r} has no image to {part} on: {how_to_get(name)}")
        if (label := int(labelled.labels.max())) >= len(classes):
            raise ValueError(
                f"{name} in {str(where)!r} has the label {label} in its {part} part, and {len(classes)} classes: "
                f"{how_to_get(name)}"
            )
    if len(classes) < 2:
        raise ValueError(f"{name} in {str(where)!r} has one class, {classes[0]!r}: give a folder for each of several")
    return Images(name, train, test, classes, *_moments(train.images))


def default_folder(name: str) -> Path | None:
    """Where a data set is looked for; None if it needs no folder.

    Raises:
        ValueError: If there is no such data set.
    """
    return _DEFAULTS.get(_check_name(name))


def is_there(name: str, folder: Path | None = None) -> bool:
    """Whether something like the data set is there. Only `load_images` knows whether it is whole.

    Raises:
        ValueError: If there is no such data set.
    """
    default = default_folder(name)
    if default is None:
        return importlib.util.find_spec("sklearn") is not None
    where = default if folder is None else folder
    parts: Mapping[str, tuple[str | Path, ...]] = {
        "cifar10": (_CIFAR10,),
        "caltech101": (_CALTECH101,),
        "fashion-mnist": (_TRAIN, f"{_TRAIN}.gz"),
    }
    return any((where / part).exists() for part in parts.get(name, (".",)))


def how_to_get(name: str) -> str:
    """Where a data set is to be had, and how it must lie.

    Raises:
        ValueError: If there is no such data set.
    """
    return _HOW_TO_GET[_check_name(name)]


def _check_name(name: str) -> str:
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}: {did_you_mean(name, DATASETS)}use one of {', '.join(DATASETS)}")
    return name


def _moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel, [3, 1, 1], of 0..1.

    By how often each of the 256 values occurs: as floats the images would take eight times their memory.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).double()
    shares = counts / counts.sum(1, keepdim=True)
    mean = shares @ values
    deviation = ((shares * (values - mean[:, None]) ** 2).sum(1)).sqrt().clamp_min(1e-3)
    return mean.float()[:, None, None], deviation.float()[:, None, None]


def _fitted(images: torch.Tensor, side: int) -> torch.Tensor:
    """[image, 3, side, side] of [image, 1 or 3, height, width], uint8."""
    height, width = images.shape[-2:]
    if max(height, width) > side:
        size = [max(1, round(side * length / max(height, width))) for length in (height, width)]
        images = resize(images, size, antialias=True)
        height, width = size
    above, left = (side - height) // 2, (side - width) // 2
    images = functional.pad(images, (left, side - width - left, above, side - height - above))
    return images.expand(-1, 3, -1, -1).contiguous()


def _check_memory(count: int, side: int) -> None:
    if (needed := 3 * side**2 * count) > MAX_BYTES:
        size, most = needed / 2**30, MAX_BYTES / 2**30
        raise ValueError(
            f"{count} images of {side} x {side} need {size:.1f} GiB, at most {most:g} are taken: give a smaller side, "
            "or fewer images"
        )


def _labelled(images: Any, labels: Any, side: int) -> Labelled:
    found = torch.as_tensor(np.asarray(images))
    _check_memory(len(found), side)
    return Labelled(_fitted(found, side), torch.as_tensor(np.asarray(labels, np.int64)))


_TRAIN = "train-images-idx3-ubyte"


def _fashion_mnist(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    def part(prefix: str) -> Labelled:
        images, labels = _idx(folder, f"{prefix}-images-idx3-ubyte", 3), _idx(folder, f"{prefix}-labels-idx1-ubyte", 1)
        if len(images) != len(labels):
            raise OSError(f"{prefix} has {len(images)} images and {len(labels)} labels")
        return _labelled(images[:, None].copy(), labels, side)

    classes = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
    return part("train"), part("t10k"), classes


def _idx(folder: Path, file: str, axes: int) -> np.ndarray:
    """The bytes of an idx file, packed or not: a magic number and the length of each axis, 4 bytes each, go before."""
    packed = folder / f"{file}.gz"
    if packed.exists():
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # a gzip file
        content = unpack.decompress(read_bytes(packed, _MAX_BYTES), _MAX_BYTES)
        if not unpack.eof:
            raise OSError(f"{packed.name} ends early, or has more than {_MAX_BYTES} bytes")
    else:
        content = read_bytes(folder / file, _MAX_BYTES)
    header = 4 * (1 + axes)
    magic, *shape = np.frombuffer(content[: len(content[:header]) // 4 * 4], ">u4").tolist() or [0]
    if magic != _IDX_MAGIC[axes] or len(shape) != axes or len(content) - header != int(np.prod(shape, dtype=object)):
        raise OSError(f"{file} is no whole idx file of {axes} axes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _cifar10(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    parts = [torchvision.datasets.CIFAR10(folder, train) for train in (True, False)]
    train, test = (_labelled(each.data.transpose(0, 3, 1, 2).copy(), each.targets, side) for each in parts)
    return train, test, tuple(parts[0].classes)


def _caltech101(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    return _divided(folder / _CALTECH101, side, _BACKGROUND)


def _folder(folder: Path, side: int) -> tuple[Labelled, Labelled, tuple[str, ...]]:
    if not {"train", "test"} <= set(os.listdir(folder)):
        return _divided(folder, side)
    (train, classes), (test, others) = (_images_of(folder / part, side) for part in ("train", "test"))
    if classes != others:
        odd = sorted(set(classes) ^ set(others))
        raise ValueError(f"only one of {str(folder)!r}/train and /test has the classes {', '.join(odd)}: both need all")
    return _joined(train), _joined(test), classes


def _divided(folder: Path, side: int, without: str = "") -> tuple[Labelled, Labelled, tuple[str, ...]]:
    found, classes = _images_of(folder, side, without)
    found.sort(key=lambda each: (each[2], zlib.crc32(each[0].encode())))  # the same on every machine
    train: _Found = []
    test: _Found = []
    for _, group in itertools.groupby(found, key=lambda each: each[2]):
        of_class = list(group)
        few = len(of_class) // TEST_SHARE
        test += of_class[:few]
        train += of_class[few:]
    return _joined(train), _joined(test), classes


_Found = list[tuple[str, torch.Tensor, int]]


class _Folders(torchvision.datasets.ImageFolder):
    """A folder of images for each class, without one that is none."""

    def __init__(self, folder: Path, without: str) -> None:
        self._without = without
        super().__init__(folder)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Names of the classes, and their labels."""
        found, _ = super().find_classes(directory)
        classes = [name for name in found if name != self._without]
        return classes, {name: label for label, name in enumerate(classes)}


def _images_of(folder: Path, side: int, without: str = "") -> tuple[_Found, tuple[str, ...]]:
    """Path in the folder, image [1, 3, side, side] and class of each, and the names of the classes."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {str(folder)!r}")
    try:
        listed = _Folders(folder, without)
    except FileNotFoundError as error:
        raise ValueError(f"{str(folder)!r} has no images in a folder for each class ({reason(error)})") from None
    _check_memory(len(listed.samples), side)
    found = []
    for path, label in listed.samples:
        try:
            image = pil_to_tensor(listed.loader(path))
        except Exception as error:  # whatever a damaged file makes of its reader, by its kind
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
