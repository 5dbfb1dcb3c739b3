"""What each layer of a DNN costs - FLOP, MAC, parameters, elements - worked out from a description of the network.

A network is described by its operations in the order in which they run, without shapes: those follow from the image.
Layers carry the names that torchvision gives to its modules and, in residual blocks, to the nodes of its traced graphs.

    >>> [(layer.name, layer.output_shape) for layer in layer_table("alexnet")][:2]
    [('features.0', (64, 55, 55)), ('features.1', (64, 55, 55))]
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from mec_jax.files import check_count, did_you_mean

__all__ = ["NETWORKS", "Kind", "Layer", "layer_table"]

Kind = Literal["conv", "linear", "relu", "maxpool", "avgpool", "dropout", "batchnorm", "add"]
"""ReLU6 is a "relu", a depthwise or grouped convolution a "conv"."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One layer at work on one image. Shapes are (channels, height, width), or (features,) at a linear layer."""

    name: str
    kind: Kind
    input_shape: Shape  # of each of the two inputs where the kind is "add"
    output_shape: Shape
    flops: int  # FLOP by Table I of Mu et al. 2024, see `layer_table`
    macs: int  # multiply-accumulates of convolutions and linear layers; PyTorch's FLOP counter says 2 * macs
    parameters: int  # trained ones: the running statistics of a batch normalisation do not count
    cut: bool  # whether exactly one tensor, this layer's output, goes on: False inside a residual block
    groups: int = 1  # of a convolution; as many as channels come in: depthwise

    @property
    def input_elements(self) -> int:
        """Elements of `input_shape`."""
        return math.prod(self.input_shape)

    @property
    def output_elements(self) -> int:
        """Elements of `output_shape`, D of Table I: what a cut after this layer sends."""
        return math.prod(self.output_shape)


def layer_table(
    network: str,
    image: tuple[int, int, int] = (3, 224, 224),
    num_classes: int = 1000,
    widths: Mapping[str, int] = MappingProxyType({}),
) -> tuple[Layer, ...]:
    """The layers of a network in the order in which they run.

    FLOP are counted as in Table I of S. Mu et al., IEEE Internet of Things Journal 11(4), 2024, with C, H, W of the
    input (i) and the output (o) and kernel K; the last three lines are ours:

        conv       2 H_o W_o (C_i K^2 + 1) C_o, the 1 also without a bias; C_i is the channels of one group
        linear     (2 C_i - 1) C_o, for C_i flattened elements
        maxpool    K^2 H_o W_o C_o
        relu, avgpool, dropout   H_i W_i C_i
        batchnorm  2 H_i W_i C_i, a scale and a shift
        add        H_i W_i C_i
        flattening, softmax      nothing, and no layer either

    Args:
        network: One of `NETWORKS`. "alexnet", "vgg11", "vgg16", "resnet18", "mobilenet_v2" and "regnet_x_400mf" are
            torchvision's,
            "mobilenet_v1" is Table 1 of Howard et al. 2017. "coknight_resnet" is the one for 4x84x84 Atari frames in
            the code of Dai et al. 2022 (github.com/daihao42/coknight), with two blocks in each of its five stages; its
            policy is counted without the last reward, one more input, and its value head is left out.
        image: Channels, height and width of the input.
        num_classes: Outputs of the last layer.
        widths: Channels that come out of layers, by name, where they are others: of a pruned network. Of a grouped
            convolution each group keeps as many. Layers whose outputs are added need the same.

    Raises:
        ValueError: No such network, sizes that are no whole numbers above 0, an image too small for a kernel, or widths
            that do not fit.
    """
    if network not in NETWORKS:
        hint = did_you_mean(network, NETWORKS)
        raise ValueError(f"unknown network {network!r}: {hint}use one of {', '.join(NETWORKS)}")
    if not (isinstance(image, tuple | list) and len(image) == 3):
        raise ValueError(f"image must be three whole numbers (channels, height, width) > 0, not {image!r}")
    for axis, size in zip(("channels", "height", "width"), image, strict=True):
        check_count(f"{axis} of the image", size)
    check_count("num_classes", num_classes)

    operations = tuple(_NETWORKS[network](num_classes))
    if widths:
        operations = _with_widths(operations, dict(widths))
    try:
        return tuple(_layers(operations, tuple(image)))
    except _TooSmall as error:
        side = next(side for side in itertools.count(1) if _fits(operations, (image[0], side, side)))
        raise ValueError(
            f"image {tuple(image)} is too small for {network}: {error}; use at least {side} x {side} pixels"
        ) from None


# The vocabulary of descriptions. No operation says how many channels come in, so that another number of filters in
# one layer needs no change in the next.


@dataclass(frozen=True)
class _Operation:
    name: str
    kind: Kind
    channels: int | None = None  # that come out; None: as many as come in
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    group_width: int | None = None  # input channels that a filter sees: 1 is depthwise; None: all
    bias: bool = True
    size: int | None = None  # height and width that an adaptive "avgpool" gives


@dataclass(frozen=True)
class _Residual:
    """Output of `body` plus that of `shortcut`, which may be empty."""

    name: str
    body: tuple[_Operation, ...]
    shortcut: tuple[_Operation, ...] = ()


_Description = Iterable[_Operation | _Residual]


def _with_widths(description: _Description, widths: dict[str, int]) -> tuple[_Operation | _Residual, ...]:
    """Takes the widths that it has used out of `widths`; at the end none must be left."""

    def narrowed(operation: _Operation) -> _Operation:
        width = widths.pop(operation.name, None)
        if width is None:
            return operation
        check_count(f"width of {operation.name}", width)
        if operation.channels is None or width > operation.channels:
            full = f"at most {operation.channels}" if operation.channels else "another one: its width is its input's"
            raise ValueError(f"layer {operation.name!r} can't have {width} channels: give {full}")
        if operation.group_width is None:
            return replace(operation, channels=width)
        kept, rest = divmod(width * operation.group_width, operation.channels)
        if rest:
            groups = operation.channels // operation.group_width
            raise ValueError(f"layer {operation.name!r} has {groups} groups: {width} channels do not divide among them")
        return replace(operation, channels=width, group_width=kept)

    parts = tuple(
        replace(part, body=tuple(map(narrowed, part.body)), shortcut=tuple(map(narrowed, part.shortcut)))
        if isinstance(part, _Residual)
        else narrowed(part)
        for part in description
    )
    if widths:
        raise ValueError(f"there is no layer {next(iter(widths))!r} whose width could be set")
    return parts


def _conv(
    name: str,
    channels: int | None,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    group_width: int | None = None,
    bias: bool = True,
) -> _Operation:
    return _Operation(name, "conv", channels, kernel, stride, padding, group_width, bias)


def _linear(name: str, features: int) -> _Operation:
    return _Operation(name, "linear", features)


def _maxpool(name: str, kernel: int, stride: int, padding: int = 0) -> _Operation:
    return _Operation(name, "maxpool", kernel=kernel, stride=stride, padding=padding)


def _avgpool(name: str, size: int) -> _Operation:
    return _Operation(name, "avgpool", size=size)


def _numbered(module: str, *operations: _Operation) -> Iterator[_Operation]:
    """The operations of a sequential module, which are named by their place."""
    return (replace(operation, name=f"{module}.{place}") for place, operation in enumerate(operations))


_RELU = _Operation("", "relu")
_DROPOUT = _Operation("", "dropout")
_BATCHNORM = _Operation("", "batchnorm")


# The networks.


def _alexnet(num_classes: int) -> _Description:
    yield from _numbered(
        "features",
        *(_conv("", 64, 11, stride=4, padding=2), _RELU, _maxpool("", 3, stride=2)),
        *(_conv("", 192, 5, padding=2), _RELU, _maxpool("", 3, stride=2)),
        *(_conv("", 384, 3, padding=1), _RELU),
        *(_conv("", 256, 3, padding=1), _RELU),
        *(_conv("", 256, 3, padding=1), _RELU, _maxpool("", 3, stride=2)),
    )
    yield _avgpool("avgpool", 6)
    yield from _numbered(
        "classifier",
        *(_DROPOUT, _linear("", 4096), _RELU),
        *(_DROPOUT, _linear("", 4096), _RELU),
        _linear("", num_classes),
    )


def _vgg(num_classes: int, depths: tuple[int, ...]) -> _Description:
    features: list[_Operation] = []
    for channels, depth in zip((64, 128, 256, 512, 512), depths, strict=True):
        features += [_conv("", channels, 3, padding=1), _RELU] * depth + [_maxpool("", 2, stride=2)]
    yield from _numbered("features", *features)
    yield _avgpool("avgpool", 7)
    yield from _numbered(
        "classifier",
        *(_linear("", 4096), _RELU, _DROPOUT),
        *(_linear("", 4096), _RELU, _DROPOUT),
        _linear("", num_classes),
    )


def _resnet_stage(name: str, channels: int, stride: int) -> _Description:
    """Two basic blocks; the first has a convolution in its shortcut where it changes the shape."""
    for block, block_stride in (f"{name}.0", stride), (f"{name}.1", 1):
        body = (
            _conv(f"{block}.conv1", channels, 3, block_stride, 1, bias=False),
            replace(_BATCHNORM, name=f"{block}.bn1"),
            replace(_RELU, name=f"{block}.relu"),
            _conv(f"{block}.conv2", channels, 3, 1, 1, bias=False),
            replace(_BATCHNORM, name=f"{block}.bn2"),
        )
        downsample = (_conv("", channels, 1, block_stride, bias=False), _BATCHNORM) if block_stride > 1 else ()
        yield _Residual(block, body, tuple(_numbered(f"{block}.downsample", *downsample)))
        yield replace(_RELU, name=f"{block}.relu_1")


def _resnet18(num_classes: int) -> _Description:
    yield _conv("conv1", 64, 7, stride=2, padding=3, bias=False)
    yield replace(_BATCHNORM, name="bn1")
    yield replace(_RELU, name="relu")
    yield _maxpool("maxpool", 3, stride=2, padding=1)
    for stage, channels in enumerate((64, 128, 256, 512), start=1):
        yield from _resnet_stage(f"layer{stage}", channels, stride=1 if stage == 1 else 2)
    yield _avgpool("avgpool", 1)
    yield _linear("fc", num_classes)


def _coknight_resnet(num_actions: int) -> _Description:
    yield _conv("conv1", 64, 7, stride=2, padding=3, bias=False)
    yield replace(_RELU, name="relu")
    yield _maxpool("maxpool1", 3, stride=2, padding=1)
    yield from _without_batchnorm(_resnet_stage("layer1", 64, stride=1))
    yield from _without_batchnorm(_resnet_stage("layer2", 128, stride=2))
    yield _maxpool("maxpool2", 3, stride=2, padding=1)
    for stage, channels in enumerate((256, 512, 1024), start=3):
        yield from _without_batchnorm(_resnet_stage(f"layer{stage}", channels, stride=2))
    yield _avgpool("avgpool", 1)
    yield replace(_RELU, name="relu_1")
    yield _linear("fc", 256)
    yield replace(_RELU, name="relu_2")
    yield _linear("policy", num_actions)


def _without_batchnorm(description: _Description) -> _Description:
    for part in description:
        if isinstance(part, _Residual):
            body, shortcut = (
                tuple(operation for operation in branch if operation.kind != "batchnorm")
                for branch in (part.body, part.shortcut)
            )
            yield replace(part, body=body, shortcut=shortcut)
        elif part.kind != "batchnorm":
            yield part


def _conv_bn_relu(
    module: str, channels: int | None, kernel: int, stride: int = 1, group_width: int | None = None
) -> tuple[_Operation, ...]:
    conv = _conv("", channels, kernel, stride, kernel // 2, group_width, bias=False)
    return tuple(_numbered(module, conv, _BATCHNORM, _RELU))


def _mobilenet_v1(num_classes: int) -> _Description:
    yield from _conv_bn_relu("features.0", 32, 3, stride=2)
    pairs = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
    for block, (channels, stride) in enumerate(pairs, start=1):
        yield from _conv_bn_relu(f"features.{block}.depthwise", None, 3, stride, group_width=1)
        yield from _conv_bn_relu(f"features.{block}.pointwise", channels, 1)
    yield _avgpool("avgpool", 1)
    yield _linear("fc", num_classes)


def _mobilenet_v2(num_classes: int) -> _Description:
    yield from _conv_bn_relu("features.0", 32, 3, stride=2)
    stages = (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
    inputs, place = 32, 1
    for expansion, channels, depth, first_stride in stages:  # Table 2 of Sandler et al. 2018
        for stride in (first_stride, *(1,) * (depth - 1)):
            block = _inverted_bottleneck(f"features.{place}.conv", inputs * expansion, channels, stride, expansion > 1)
            if stride == 1 and channels == inputs:
                yield _Residual(f"features.{place}", block)
            else:
                yield from block
            inputs, place = channels, place + 1
    yield from _conv_bn_relu("features.18", 1280, 1)
    yield _avgpool("avgpool", 1)
    yield from _numbered("classifier", _DROPOUT, _linear("", num_classes))


def _inverted_bottleneck(module: str, width: int, channels: int, stride: int, expands: bool) -> tuple[_Operation, ...]:
    """To `width` channels, a depthwise convolution there, and down to `channels` without a ReLU."""
    expand = _conv_bn_relu(f"{module}.0", width, 1) if expands else ()
    place = 1 if expands else 0
    return (
        *expand,
        *_conv_bn_relu(f"{module}.{place}", None, 3, stride, group_width=1),
        _conv(f"{module}.{place + 1}", channels, 1, bias=False),
        replace(_BATCHNORM, name=f"{module}.{place + 2}"),
    )


def _regnet_x_400mf(num_classes: int) -> _Description:
    yield from _conv_bn_relu("stem", 32, 3, stride=2)
    for stage, (channels, depth) in enumerate(((32, 1), (64, 2), (160, 7), (400, 12)), start=1):
        for block in range(depth):
            name, stride = f"trunk_output.block{stage}.block{stage}-{block}", 2 if block == 0 else 1
            *last, _ = _conv_bn_relu(f"{name}.f.c", channels, 1)
            body = (
                *_conv_bn_relu(f"{name}.f.a", channels, 1),
                *_conv_bn_relu(f"{name}.f.b", channels, 3, stride, group_width=16),
                *last,
            )
            *shortcut, _ = _conv_bn_relu(f"{name}.proj", channels, 1, stride) if block == 0 else (_RELU,)
            yield _Residual(name, body, tuple(shortcut))
            yield replace(_RELU, name=f"{name}.activation")
    yield _avgpool("avgpool", 1)
    yield _linear("fc", num_classes)


_NETWORKS: MappingProxyType[str, Callable[[int], _Description]] = MappingProxyType(
    {
        "alexnet": _alexnet,
        "vgg11": partial(_vgg, depths=(1, 1, 2, 2, 2)),
        "vgg16": partial(_vgg, depths=(2, 2, 3, 3, 3)),
        "resnet18": _resnet18,
        "mobilenet_v1": _mobilenet_v1,
        "mobilenet_v2": _mobilenet_v2,
        "regnet_x_400mf": _regnet_x_400mf,
        "coknight_resnet": _coknight_resnet,
    }
)

NETWORKS = tuple(_NETWORKS)
"""Names that `layer_table` knows."""


# From operations to layers.


class _TooSmall(ValueError):
    """A kernel is larger than what it is laid over."""


def _layers(description: _Description, shape: Shape) -> Iterator[Layer]:
    for part in description:
        if isinstance(part, _Residual):
            body, shortcut = (tuple(_layers(branch, shape)) for branch in (part.body, part.shortcut))
            # The block's input, or what the shortcut made of it, goes on beside each of these.
            yield from (replace(layer, cut=False) for layer in body + shortcut)
            beside = shortcut[-1].output_shape if shortcut else shape
            shape = body[-1].output_shape
            if beside != shape:
                raise ValueError(f"the outputs that meet at {part.name!r} have other widths: give them the same")
            part = _Operation(f"{part.name}.add", "add")
        layer = _layer(part, shape)
        yield layer
        shape = layer.output_shape


def _layer(operation: _Operation, shape: Shape) -> Layer:
    if operation.kind == "linear":
        shape = (math.prod(shape),)
    output_shape = _output_shape(operation, shape)
    elements, channels, outputs = math.prod(shape), shape[0], math.prod(output_shape)
    flops, macs, parameters, groups = elements, 0, 0, 1
    match operation.kind:
        case "conv":
            width = operation.group_width or channels
            window, groups = width * operation.kernel**2, channels // width  # inputs of one filter
            flops, macs = 2 * (window + 1) * outputs, window * outputs
            parameters = (window + operation.bias) * output_shape[0]
        case "linear":
            flops, macs, parameters = (2 * channels - 1) * outputs, channels * outputs, (channels + 1) * outputs
        case "maxpool":
            flops = operation.kernel**2 * outputs
        case "batchnorm":
            flops, parameters = 2 * elements, 2 * channels
    return Layer(operation.name, operation.kind, shape, output_shape, flops, macs, parameters, True, groups)


def _output_shape(operation: _Operation, shape: Shape) -> Shape:
    channels = operation.channels or shape[0]
    match operation.kind:
        case "linear":
            return (channels,)
        case "avgpool":
            assert operation.size is not None
            return (channels, operation.size, operation.size)
        case "conv" | "maxpool":
            padded = [size + 2 * operation.padding for size in shape[1:]]
            if min(padded) < operation.kernel:
                raise _TooSmall(
                    f"layer {operation.name!r} lays a kernel of {operation.kernel} x {operation.kernel} "
                    f"over {padded[0]} x {padded[1]} elements"
                )
            return (channels, *((size - operation.kernel) // operation.stride + 1 for size in padded))
        case _:
            return shape


def _fits(operations: _Description, image: Shape) -> bool:
    try:
        tuple(_layers(operations, image))
    except _TooSmall:
        return False
    return True
