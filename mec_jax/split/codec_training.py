"""Training of codecs in the two stages of Hao et al. 2022, section 2.4, and the largest rate that accuracy allows.

First the network stays as it is and the codec learns to give its features back, Lae = distance(T, T') + xi *
cross-entropy of what the frozen rest makes of them (eq. 4). Then all parameters, the codec's too, are fine-tuned on the
cross-entropy at a small learning rate. The numbers are those of section 6.1.
"""

import copy
import math
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mec_jax.files import check_choice, check_count
from mec_jax.split.autoencoder import Autoencoder, CodecAbout, TrainedCodec, with_codec
from mec_jax.split.graph import CutGraph
from mec_jax.split.images import Images
from mec_jax.split.training import accuracy, batches, fit

__all__ = ["DISTANCES", "CodecTraining", "Searched", "largest_rate", "train_codec"]

CACHE_BYTES = 2**30
"""Features of the training images are kept if they need no more: those of early cuts do, whose prefix is quick."""


def _norm(recovered: torch.Tensor, feature: torch.Tensor) -> torch.Tensor:
    return (recovered - feature).flatten(1).norm(dim=1).mean()


DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": functional.mse_loss,
    "norm": _norm,
    "smooth_l1": functional.smooth_l1_loss,
}
"""Between features: the mean square; the norm of each image's difference, which is eq. 4 to the letter; and what the
authors' program takes. A norm adds up thousands of elements, so that 0.1 cross-entropies beside it count for nothing:
on digits with one channel in 16, half of the images were right before fine-tuning, and 87 % with the other two. With
xi as large as the paper found best, eq. 4 must mean a mean.
"""


@dataclass(frozen=True)
class CodecTraining:
    """Settings of section 6.1, and what the paper leaves out."""

    epochs: int = 30
    batch: int = 128
    rate: float = 0.1  # of Adam
    xi: float = 0.1  # weight of the cross-entropy
    tuning_epochs: int = 10  # 0: the network stays as it is
    tuning_rate: float = 1e-4
    bits: int = 8
    biased: bool = False
    distance: str = "mse"
    annealed: bool = False
    """Whether the first stage's learning rate falls to 0 by a cosine; the paper names none. With few batches it is no
    better: what is gained at the end is lost before."""
    bfloat16: bool = False
    """Whether the network multiplies in bfloat16 while the codec is trained; the codec itself does not in the first
    stage. Testing never does."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("tuning_epochs", 0)):
            check_count(name, getattr(self, name), least)
        for name in ("rate", "xi", "tuning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be a finite number of at least 0")
        check_choice("distance", self.distance, DISTANCES)


def train_codec(
    module: nn.Module,
    name: str,
    cut: str,
    images: Images,
    sent: int,
    settings: CodecTraining | None = None,
    seed: int = 0,
    base_accuracy: float | None = None,
) -> TrainedCodec:
    """A codec for a cut, trained with a copy of the network.

    Args:
        module: A classifier of these images, in evaluation mode; it stays as it is.
        name: What it is called.
        cut: Where it is cut; the feature must have channels, height and width.
        images: What it was trained on.
        sent: Channels that are sent.
        settings: By default the paper's.
        seed: Of the codec's weights and of the order of the images.
        base_accuracy: The network's share of right test images, if known.

    Raises:
        ValueError: If the cut is not there or its feature is another, or a number is out of range.
    """
    settings = settings or CodecTraining()
    generator = torch.Generator().manual_seed(seed)
    network = copy.deepcopy(module).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    graph = CutGraph(network, images.inputs(images.train.images[:1]))
    point = graph.point(cut)
    if len(point.shape) != 4:
        raise ValueError(f"what crosses at {cut!r} is {list(point.shape[1:])}: cut where there are channels in a plane")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        codec = Autoencoder(point.shape[1], sent, settings.bits, settings.biased)
    if base_accuracy is None:
        base_accuracy = accuracy(network, images, images.test)
    prefix, suffix = graph.split(cut)
    features = _Features(prefix, images, settings.batch, point.elements)
    _fit_codec(codec, suffix, features, settings, generator)
    codec.collect(features.all())
    whole = with_codec(graph, cut, codec)
    frozen = tuned = accuracy(whole, images, images.test)
    if settings.tuning_epochs:
        network.requires_grad_(True)
        count = settings.tuning_epochs * math.ceil(len(images.train.labels) / settings.batch)
        data = batches(images, count, settings.batch, generator)
        fit(whole, data, count, settings.tuning_rate, bfloat16=settings.bfloat16)
        codec.collect(_Features(prefix, images, settings.batch, point.elements, keep=False).all())
        tuned = accuracy(whole, images, images.test)
    about = CodecAbout(
        network=name,
        data_set=images.name,
        cut=point.name,
        feature_shape=(point.shape[1], point.shape[2], point.shape[3]),
        sent=sent,
        bits=settings.bits,
        biased=settings.biased,
        rate=codec.rate,
        accuracy_without=base_accuracy,
        accuracy_frozen=frozen,
        accuracy=tuned,
        source=tuple(_provenance(settings, images, seed).items()),
    )
    tensors = network.state_dict() if settings.tuning_epochs else {}
    state = {key: value.detach().contiguous() for key, value in tensors.items()}
    return TrainedCodec(codec.eval().requires_grad_(False), about, state)


class _Features:
    """What crosses at a cut for the training images, in batches, computed once if memory allows."""

    def __init__(self, prefix: nn.Module, images: Images, batch: int, elements: int, keep: bool = True) -> None:
        self._prefix, self._images, self._batch = prefix, images, batch
        self._kept: torch.Tensor | None = None
        if keep and 4 * elements * len(images.train.labels) <= CACHE_BYTES:
            self._kept = torch.cat([*self.all()])

    def _of(self, taken: torch.Tensor) -> torch.Tensor:
        if self._kept is not None:
            return self._kept[taken]
        with torch.no_grad():
            return self._prefix(self._images.inputs(self._images.train.images[taken]))

    def all(self) -> Iterator[torch.Tensor]:
        """In the order of the images."""
        return map(self._of, torch.arange(len(self._images.train.labels)).split(self._batch))

    def epoch(self, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """With labels, in a random order."""
        labels = self._images.train.labels
        for taken in torch.randperm(len(labels), generator=generator).split(self._batch):
            yield self._of(taken), labels[taken]


def _fit_codec(
    codec: Autoencoder, suffix: nn.Module, features: _Features, settings: CodecTraining, generator: torch.Generator
) -> None:
    """The first stage."""
    optimiser = torch.optim.Adam(codec.parameters(), lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.epochs)
    distance = DISTANCES[settings.distance]
    codec.train()
    for _ in range(settings.epochs):
        for feature, labels in features.epoch(generator):
            recovered = codec(feature)
            loss = distance(recovered, feature)
            if settings.xi:
                with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                    logits = suffix(recovered.clone())  # which may begin with a layer that works in place
                loss = loss + settings.xi * functional.cross_entropy(logits.float(), labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        if settings.annealed:
            schedule.step()
    codec.eval()


def _provenance(settings: CodecTraining, images: Images, seed: int) -> dict[str, str]:
    numbers = ", ".join(f"{name} {value}" for name, value in asdict(settings).items())
    return {
        "method": "Hao et al. 2022, sections 2 and 6.1: https://github.com/Hao840/MAHPPO is the authors' program",
        "settings": f"{numbers}, seed {seed}",
        "images": f"{len(images.train.labels)} to train on, {len(images.test.labels)} to test on, of {images.name}",
        "versions": f"Python {platform.python_version()}, torch {metadata.version('torch')}, torchvision "
        f"{metadata.version('torchvision')}; {platform.machine()}, {torch.get_num_threads()} threads",
        "date": time.strftime("%Y-%m-%d"),
    }


# The largest rate


class Searched(NamedTuple):
    """What a search has tried."""

    tried: dict[int, float]  # accuracy lost by the number of channels sent
    best: int | None  # the least number within the budget


def largest_rate(lost: Callable[[int], float], channels: int, start: int, budget: float = 0.02) -> Searched:
    """The fewest channels that lose no more accuracy than a budget, among `channels` halved again and again.

    From `start` on, as long as the loss is within the budget half as many are tried; or, if it is not, twice as many
    until it is. So the search takes for granted that fewer channels never lose less, and tries few.

    Args:
        lost: Accuracy lost by so many channels.
        channels: Of the feature.
        start: Where to begin; the next halved number below is taken.
        budget: Largest loss.
    """
    check_count("start", start, most=channels)
    halved = []
    while channels >= 1:
        halved.append(channels)
        channels //= 2
    place = next(i for i, count in enumerate(halved) if count <= start)
    tried: dict[int, float] = {}
    best = None

    def within(place: int) -> bool:
        tried[halved[place]] = lost(halved[place])
        return tried[halved[place]] <= budget

    if within(place):
        while place + 1 < len(halved) and within(place + 1):
            place += 1
        best = halved[place]
    while best is None and place > 0:
        place -= 1
        best = halved[place] if within(place) else None
    return Searched(tried, best)
