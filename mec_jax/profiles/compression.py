"""What can be decided when a network is pruned, cut and given a codec (Mu et al. 2024, section V), and what it costs.

A `Compressible` network has prunable units, each one or more layers whose filters leave together; cuts after its
layers; and eight codec settings, of which a convolutional codec uses four (where a feature has height and width) and a
linear one four. Mu et al. do not say what their eight are: these are ours.

All in NumPy and exact integers: `mec_jax.physics.compression` has the same laws traced, `mec_jax.split.pruning` does it
to a PyTorch network.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

from mec_jax.files import did_you_mean
from mec_jax.profiles.layers import Layer, layer_table

__all__ = [
    "COMPRESSIBLE",
    "FLOAT_BITS",
    "MAX_SPARSITY",
    "NO_CODEC",
    "SETTINGS",
    "Compressible",
    "Setting",
    "Unit",
    "compressible",
    "kept",
    "sent_channels",
]

FLOAT_BITS = 32
"""Bits of an element that no codec packs, of a feature as of the input: the paper's fp32."""

MAX_SPARSITY = 0.95
"""Eq. 8 has psi < 1; beyond this a layer of AlexNet keeps less than 4 filters."""


@dataclass(frozen=True)
class Unit:
    """Filters that one sparsity prunes."""

    name: str
    layers: tuple[str, ...]  # whose output channels leave together, or by the same share
    channels: int  # of each of these layers
    groups: int = 1  # each of which keeps as many


class Setting(NamedTuple):
    """One of the codec's settings."""

    name: str
    least: float
    most: float
    choices: tuple[float, ...] = ()  # nothing: a number from `least` to `most`, by its logarithm


SETTINGS = (
    Setting("conv_share", 1 / 256, 1.0),  # of the feature's channels that are sent
    Setting("conv_kernel", 1, 3, (1, 3)),  # of encoder and decoder
    Setting("conv_stride", 1, 2, (1, 2)),  # of the encoder; the decoder spreads each element
    Setting("conv_bits", 1, FLOAT_BITS, (1, 2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)),  # of an element; 32 are not quantised
    Setting("linear_share", 1 / 1024, 1.0),  # of the features that are sent
    Setting("linear_layers", 1, 2, (1, 2)),  # of encoder and of decoder
    Setting("linear_width", 1 / 16, 1.0),  # of the layer between, if there are two, as a share of the features
    Setting("linear_bits", 1, FLOAT_BITS, (1, 2, 3, 4, 5, 6, 7, 8, FLOAT_BITS)),
)
"""The eight codec settings. The first four are for a feature with height and width, the others for a flat one."""

NO_CODEC = (1.0, 1.0, 1.0, float(FLOAT_BITS), 1.0, 1.0, 1.0, float(FLOAT_BITS))
"""Settings at which a feature is sent as it is: there is no codec."""


def kept(channels: int, groups: int, sparsity: float) -> int:
    """Channels that a unit keeps: ceil((1 - psi) C) of each group's C, never none.

    The product is rounded to a millionth first, so that a sparsity of 1 - 3/4 keeps three of four in any precision.
    """
    width = channels // groups
    return groups * max(1, math.ceil(round((1 - sparsity) * width, 6)))


def sent_channels(channels: int, share: float) -> int:
    """Channels, or features, that a codec makes of so many: the nearest whole number (halves to even), never none."""
    return max(1, round(share * channels))


@dataclass(frozen=True)
class Compressible:
    """A network that can be pruned, cut and given a codec."""

    network: str  # of `mec_jax.profiles.layers.layer_table`
    units: tuple[Unit, ...]
    image: tuple[int, int, int] = (3, 224, 224)
    num_classes: int = 10

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All its layers, unpruned."""
        return layer_table(self.network, self.image, self.num_classes)

    @property
    def cuts(self) -> tuple[int, ...]:
        """Numbers of layers that the device can run: 0 sends the input, the last one sends nothing."""
        layers = self.layers
        return (0, *(place + 1 for place, layer in enumerate(layers) if layer.cut))

    def widths(self, sparsity: Sequence[float]) -> Mapping[str, int]:
        """Output channels of each prunable layer, by name.

        Raises:
            ValueError: If there is another number of sparsities, or one is outside 0 <= psi < 1.
        """
        if len(sparsity) != len(self.units):
            raise ValueError(f"{len(sparsity)} sparsities for {len(self.units)} units of {self.network}: give one each")
        for unit, share in zip(self.units, sparsity, strict=True):
            if not 0 <= share < 1:
                raise ValueError(f"sparsity {share} of {unit.name} leaves no filter or adds some: give 0 <= psi < 1")
        return {
            name: kept(unit.channels, unit.groups, share)
            for unit, share in zip(self.units, sparsity, strict=True)
            for name in unit.layers
        }

    def pruned(self, sparsity: Sequence[float]) -> tuple[Layer, ...]:
        """All its layers, pruned.

        Raises:
            ValueError: As `widths`.
        """
        return layer_table(self.network, self.image, self.num_classes, self.widths(sparsity))

    def sent_bits(self, sparsity: Sequence[float], cut: int, codec: Sequence[float]) -> int:
        """What the device sends, bit: the input at cut 0, nothing at the last, else what the codec makes of a feature.

        Raises:
            ValueError: As `widths`, or no cut is there.
        """
        layers = self.pruned(sparsity)
        if cut not in self.cuts:
            raise ValueError(f"{self.network} can't be cut after {cut} layers: give one of {list(self.cuts)}")
        if cut == len(layers):
            return 0
        if cut == 0:
            return layers[0].input_elements * FLOAT_BITS
        share, _, stride, bits = codec[:4]
        channels, *size = layers[cut - 1].output_shape
        if not size:
            share, _, _, bits = codec[4:]
            stride = 1
        sent = sent_channels(channels, share)
        return int(sent * math.prod(-(-side // int(stride)) for side in size) * bits)


def _alexnet() -> Compressible:
    names = {"conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8"}
    names |= {"conv5": "features.10", "fc1": "classifier.1", "fc2": "classifier.4"}
    channels = (64, 192, 384, 256, 256, 4096, 4096)
    return Compressible(
        "alexnet",
        tuple(Unit(name, (layer,), width) for (name, layer), width in zip(names.items(), channels, strict=True)),
    )


def _regnet() -> Compressible:
    """Nine sparsities: of the stem, and in each stage of what goes on (which shortcuts tie together) and of what the
    blocks compute inside, whose grouped convolutions keep as many channels in each group.
    """
    units = [Unit("stem", ("stem.0",), 32)]
    for stage, (channels, depth) in enumerate(((32, 1), (64, 2), (160, 7), (400, 12)), start=1):
        blocks = [f"trunk_output.block{stage}.block{stage}-{block}" for block in range(depth)]
        units.append(Unit(f"stage{stage}", (f"{blocks[0]}.proj.0", *(f"{name}.f.c.0" for name in blocks)), channels))
        inner = tuple(f"{name}.f.{part}.0" for name in blocks for part in "ab")
        units.append(Unit(f"stage{stage} inside", inner, channels, channels // 16))
    return Compressible("regnet_x_400mf", tuple(units))


_BUILDERS = MappingProxyType({"alexnet": _alexnet, "regnet_x_400mf": _regnet})
COMPRESSIBLE = tuple(_BUILDERS)
"""Names that `compressible` knows."""


@cache
def compressible(network: str) -> Compressible:
    """The network by its name.

    Raises:
        ValueError: If there is none.
    """
    if network not in _BUILDERS:
        hint = did_you_mean(network, _BUILDERS)
        raise ValueError(f"no compressible network {network!r}: {hint}use one of {', '.join(_BUILDERS)}")
    return _BUILDERS[network]()
