"""A network that is really pruned, cut, given a codec and trained again: the offline stage of Mu et al. 2024.

In their order: prune, fine-tune, cut, add the codec, train all of it end to end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mec_jax.profiles.compression import Compressible
from mec_jax.split.bottleneck import Bottleneck, Settings
from mec_jax.split.graph import CutGraph
from mec_jax.split.images import Images
from mec_jax.split.pruning import prune
from mec_jax.split.training import Batch, batches, fit

__all__ = ["Compressed", "Recipe", "compress"]


@dataclass(frozen=True)
class Recipe:
    """How a compressed network is trained."""

    rate: float  # largest learning rate, of fine-tuning and of training end to end
    finetune: int = 16  # batches after pruning
    joint: int = 8  # batches with the codec
    batch: int = 128  # images
    start: int = 512  # images whose features the codec starts from
    criterion: str = "l1"  # which filters leave: `mec_jax.split.pruning.CRITERIA`
    bfloat16: bool = False  # whether training multiplies in it, as `mec_jax.split.training.fit` can


class Compressed(nn.Module):
    """Device part, codec and server part: what a compressed network does with images.

    Attributes:
        prefix: On the device.
        codec: Its encoder on the device, its decoder on the server; None where nothing is packed.
        suffix: On the server.
    """

    def __init__(self, prefix: nn.Module, codec: Bottleneck | None, suffix: nn.Module) -> None:
        super().__init__()
        self.prefix, self.codec, self.suffix = prefix, codec, suffix

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [image, class]."""
        feature = self.prefix(x)
        return self.suffix(feature if self.codec is None else self.codec(feature))


def compress(
    module: nn.Module,
    space: Compressible,
    sparsity: Sequence[float],
    cut: int,
    codec: Sequence[float],
    images: Images,
    recipe: Recipe,
    seed: int,
    snr: float | None = None,
) -> Compressed:
    """Prunes, fine-tunes, cuts, adds the codec and trains all of it.

    Args:
        module: A trained network with the layers of `space`; it stays as it is.
        space: What can be decided.
        sparsity: Of each unit.
        cut: Layers that the device runs; at the first and the last there is no codec.
        codec: The eight settings.
        images: To train on.
        recipe: How.
        seed: Of the order of images, and of noise.
        snr: dB. If given, every second batch with the codec goes through a channel of this signal-to-noise ratio.

    Raises:
        ValueError: If something is out of range or does not fit the network.
    """
    space.sent_bits(sparsity, cut, codec)  # refuses a cut that is not there, before anything is trained
    if cut not in (0, len(space.layers)):
        Settings.of(codec, flat=len(space.layers[cut - 1].output_shape) == 1)
    generator = torch.Generator().manual_seed(seed)
    example = images.inputs(images.train.images[:1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # of dropout, noise and the codec's start
        pruned = prune(module, space, sparsity, example, recipe.criterion)
        pruned.to(memory_format=torch.channels_last)  # RegNet trains in half the time
        data = batches(images, recipe.finetune + recipe.joint, recipe.batch, generator)
        if recipe.finetune:
            fit(pruned, data, recipe.finetune, recipe.rate, bfloat16=recipe.bfloat16)
        whole = _cut(pruned, space, cut, codec, images, recipe, example)
        if recipe.joint:
            fit(whole, _through_channel(whole, data, snr), recipe.joint, recipe.rate, bfloat16=recipe.bfloat16)
        if whole.codec is not None:
            whole.codec.snr = None
    return whole.to(memory_format=torch.contiguous_format).eval()  # files of tensors take no other


def _through_channel(whole: Compressed, data: Iterator[Batch], snr: float | None) -> Iterator[Batch]:
    """The same batches; every second one meets noise."""
    for number, batch in enumerate(data):
        if whole.codec is not None:
            whole.codec.snr = snr if number % 2 else None
        yield batch


def _cut(
    pruned: nn.Module,
    space: Compressible,
    cut: int,
    codec: Sequence[float],
    images: Images,
    recipe: Recipe,
    example: torch.Tensor,
) -> Compressed:
    layers = space.layers
    if cut in (0, len(layers)):
        ends = (nn.Identity(), pruned) if cut == 0 else (pruned, nn.Identity())
        return Compressed(ends[0], None, ends[1])
    # Dropout does nothing at work, and after one a feature may be flattened that the table has as an image.
    last = next(layer for layer in reversed(layers[:cut]) if layer.kind != "dropout")
    prefix, suffix = CutGraph(pruned, example).split(last.name)
    with torch.inference_mode():
        features = prefix(images.inputs(images.train.images[: recipe.start]))
    return Compressed(prefix, Bottleneck(features.clone(), codec), suffix)
