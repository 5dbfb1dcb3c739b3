"""The exact optimum of a small network, by enumeration.

Sparsities that keep as many channels are one strategy in its one form, as are shares that send as many. So there are
finitely many strategies: what each unit keeps, the cut, the channels that are sent, the stride, the bits, and what the
law "anchored" takes not to matter.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mec_jax.physics.accuracy import Anchored, inputs, predict
from mec_jax.physics.compression import CompressibleCosts, Strategy, latency, sent_bits, sent_channels
from mec_jax.physics.partition import Number
from mec_jax.profiles.compression import MAX_SPARSITY, NO_CODEC, SETTINGS, Compressible, Unit, kept
from mec_jax.profiles.layers import Layer
from mec_jax.solvers.compression.problem import BUDGET

__all__ = ["Enumeration", "enumerated", "optimum", "three_layers"]


@dataclass(frozen=True)
class _ThreeLayers(Compressible):
    """conv 3x3, ReLU, conv 3x3, ReLU, linear, ReLU, and a linear layer to the classes, which can't be pruned."""

    @property
    @override
    def layers(self) -> tuple[Layer, ...]:
        return self.pruned((0.0, 0.0, 0.0))

    @override
    def pruned(self, sparsity: object) -> tuple[Layer, ...]:
        first, second, third = self.widths(tuple(np.asarray(sparsity, float))).values()
        channels, *size = self.image
        a, b = (first, *size), (second, *size)
        return (
            _layer("conv1", "conv", self.image, a, channels * 9),
            _layer("relu1", "relu", a, a),
            _layer("conv2", "conv", a, b, first * 9),
            _layer("relu2", "relu", b, b),
            _layer("fc1", "linear", (second * size[0] * size[1],), (third,), second * size[0] * size[1]),
            _layer("relu3", "relu", (third,), (third,)),
            _layer("fc2", "linear", (third,), (self.num_classes,), third),
        )


def three_layers(channels: tuple[int, int, int] = (6, 8, 12), side: int = 8) -> Compressible:
    """A network of three layers that can be pruned, two convolutions and a linear one, small enough to enumerate.

    Args:
        channels: Of the three.
        side: Of its square image.
    """
    names = ("conv1", "conv2", "fc1")
    units = tuple(Unit(name, (name,), width) for name, width in zip(names, channels, strict=True))
    return _ThreeLayers("three layers", units, image=(3, side, side))


def _layer(name: str, kind: str, comes: tuple[int, ...], goes: tuple[int, ...], window: int = 0) -> Layer:
    """FLOP by Table I, as `mec_jax.profiles.layers.layer_table` counts them."""
    outputs = int(np.prod(goes))
    flops = {"conv": 2 * (window + 1), "linear": 2 * window - 1, "relu": 1}[kind] * outputs
    return Layer(name, kind, comes, goes, flops, window * outputs, 0, True)  # type: ignore[arg-type]


class Enumeration(NamedTuple):
    """All that can be best in some scenario of one SNR and budget. A choice is what each unit keeps."""

    costs: CompressibleCosts
    sparsity: Float[Array, "choice unit"]
    codec: Float[Array, "choice cut setting"]  # of those within the budget the one that sends least
    allowed: Float[Array, "choice cut"]  # 0, or infinite where no codec is within the budget


def enumerated(
    network: Compressible,
    costs: CompressibleCosts,
    model: Anchored,
    snr_db: float = np.inf,
    budget: float = BUDGET,
) -> Enumeration:
    """Tries every codec for every cut and every choice of what units keep.

    Args:
        network: A small one.
        costs: Its costs.
        model: Whose accuracy falls with sparsity and does not depend on a codec's kernel, depth and width.
        snr_db: dB.
        budget: Accuracy that may be lost.
    """
    sparsity = jnp.array(list(itertools.product(*map(_sparsities, network.units))), float)
    threshold = model.base - budget

    @jax.jit
    @jax.vmap
    def of_choice(psi: Array) -> tuple[Array, Array]:
        return jax.vmap(lambda cut: of_cut(psi, cut))(jnp.arange(costs.cuts.shape[0]))

    def of_cut(psi: Array, cut: Array) -> tuple[Array, Array]:
        def of_codec(codec: Array) -> Array:
            channels, _ = sent_channels(costs, Strategy(psi, cut, codec))
            shares = jnp.where(_SHARES, jnp.minimum(codec / channels, 1), codec)  # a codec says how many channels
            strategy = Strategy(psi, cut, shares)
            fits = predict(model, inputs(costs, strategy, snr_db)) >= threshold
            return jnp.append(shares, jnp.where(fits, sent_bits(costs, strategy), jnp.inf))

        tried = jax.vmap(of_codec)(codecs)
        best = jnp.argmin(tried[:, -1])
        return tried[best, :-1], jnp.where(tried[best, -1] < jnp.inf, 0, jnp.inf)

    codecs = jnp.array(_codecs(max(unit.channels for unit in network.units)), float)
    codec, allowed = of_choice(sparsity)
    return Enumeration(costs, sparsity, codec, allowed)


def optimum(
    every: Enumeration, device_speed: Number, rate: Number, server_speed: Number
) -> tuple[Float[Array, ""], Strategy]:
    """The least latency in s of all, and a strategy that has it; infinite if the budget allows none."""

    def of_cut(psi: Array, cut: Array, codec: Array, allowed: Array) -> Array:
        times = latency(every.costs, Strategy(psi, cut, codec), device_speed, rate, server_speed)
        return times.device + times.link + times.server + allowed

    cuts = jnp.arange(every.costs.cuts.shape[0])
    seconds = jax.vmap(jax.vmap(of_cut, (None, 0, 0, 0)), (0, None, 0, 0))(
        every.sparsity, cuts, every.codec, every.allowed
    )
    choice, cut = jnp.unravel_index(jnp.argmin(seconds), seconds.shape)
    return jnp.min(seconds), Strategy(every.sparsity[choice], cut, every.codec[choice, cut])


_SHARES = np.array([setting.name.endswith("share") for setting in SETTINGS])


def _sparsities(unit: Unit) -> list[float]:
    """One for each number of channels that can be kept; in a strategy's one form it is the least."""
    width = unit.channels // unit.groups
    return [1 - channels / width for channels in range(kept(width, 1, MAX_SPARSITY), width + 1)]


def _codecs(most: int) -> list[list[float]]:
    """Codecs whose shares are numbers of channels, from 1 to the most of any feature."""
    codecs = []
    places = {setting.name: place for place, setting in enumerate(SETTINGS)}
    strides, bits = SETTINGS[places["conv_stride"]].choices, SETTINGS[places["conv_bits"]].choices
    for channels, stride, bit in itertools.product(range(1, most + 1), strides, bits):
        codec = list(NO_CODEC)
        codec[places["conv_share"]] = codec[places["linear_share"]] = channels
        codec[places["conv_stride"]] = stride
        codec[places["conv_bits"]] = codec[places["linear_bits"]] = bit
        codecs.append(codec)
    return codecs
