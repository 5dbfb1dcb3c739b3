"""One layer computed by several workers, each of which has some of its output channels."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

__all__ = ["ChannelWorker", "split_channels"]


class _Piece(NamedTuple):
    """Output channels that one convolution gives: of whole groups, or of a part of one group."""

    inputs: slice
    outputs: slice
    groups: int


class ChannelWorker(nn.Module):
    """Computes the output channels `outputs` of a layer from the layer's whole input, of which it reads `inputs`.

    Takes copies of the weights, so that it can be sent to its worker alone.
    """

    def __init__(self, layer: nn.Conv2d | nn.Linear, outputs: slice) -> None:
        super().__init__()
        self.outputs = outputs
        if isinstance(layer, nn.Linear):
            pieces = [_Piece(slice(0, layer.in_features), outputs, 1)]
            layers = [_linear(layer, outputs)]
        else:
            pieces = list(_pieces(layer, outputs))
            layers = [_conv(layer, piece) for piece in pieces]
        self.inputs = slice(pieces[0].inputs.start, pieces[-1].inputs.stop)
        self.dim = -1 if isinstance(layer, nn.Linear) else -3  # axis of the channels
        self._reads = [piece.inputs for piece in pieces]
        self.layers = nn.ModuleList(layers).train(layer.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output channels `outputs`, from its whole input."""
        results = []
        for reads, layer in zip(self._reads, self.layers, strict=True):
            width = reads.stop - reads.start
            part = x if width == x.shape[self.dim] else x.narrow(self.dim, reads.start, width)
            results.append(layer(part))
        return results[0] if len(results) == 1 else torch.cat(results, self.dim)


def split_channels(layer: nn.Module, num_workers: int) -> list[ChannelWorker]:
    """Spreads the output channels of a layer over workers, as evenly as they divide.

    Args:
        layer: A Conv2d, grouped and depthwise ones included, or a Linear.
        num_workers: At least 1 and at most the number of output channels.

    Returns:
        Workers whose outputs, concatenated along `worker.dim` (-3 of a Conv2d, -1 of a Linear), are the layer's.

    Raises:
        ValueError: If it is another layer, or there are too few or too many workers.
    """
    if not isinstance(layer, nn.Conv2d | nn.Linear) or isinstance(layer, nn.LazyConv2d | nn.LazyLinear):
        raise ValueError(f"a {type(layer).__name__} can't be split by channels: give a Conv2d or Linear with its sizes")
    channels = layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features
    if not isinstance(num_workers, int) or not 1 <= num_workers <= channels:
        raise ValueError(f"{num_workers!r} workers: give a whole number from 1 to {channels}, the output channels")
    bounds = [channels * worker // num_workers for worker in range(num_workers + 1)]
    return [ChannelWorker(layer, slice(*pair)) for pair in itertools.pairwise(bounds)]


def _pieces(layer: nn.Conv2d, outputs: slice) -> Iterator[_Piece]:
    """A convolution gives equally many channels of each of its groups: the ends of `outputs` may need their own."""
    given, read = layer.out_channels // layer.groups, layer.in_channels // layer.groups  # channels of one group
    start = outputs.start
    while start < outputs.stop:
        group = start // given
        whole = (outputs.stop - start) // given if start % given == 0 else 0
        if whole > 0:
            stop, groups = start + whole * given, whole
        else:
            stop, groups = min(outputs.stop, (group + 1) * given), 1
        yield _Piece(slice(group * read, (group + groups) * read), slice(start, stop), groups)
        start = stop


def _conv(layer: nn.Conv2d, piece: _Piece) -> nn.Conv2d:
    part = nn.utils.skip_init(
        nn.Conv2d,
        piece.inputs.stop - piece.inputs.start,
        piece.outputs.stop - piece.outputs.start,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        piece.groups,
        layer.bias is not None,
        layer.padding_mode,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    return _with_weights(part, layer, piece.outputs)


def _linear(layer: nn.Linear, outputs: slice) -> nn.Linear:
    part = nn.utils.skip_init(
        nn.Linear,
        layer.in_features,
        outputs.stop - outputs.start,
        layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    return _with_weights(part, layer, outputs)


def _with_weights[Layer: nn.Module](part: Layer, layer: nn.Module, outputs: slice) -> Layer:
    with torch.no_grad():
        part.weight.copy_(layer.weight[outputs])
        if layer.bias is not None:
            part.bias.copy_(layer.bias[outputs])
    return part
