"""Small codecs that are trained with the network around them (Mu et al. 2024, Fig. 3): convolutional and linear.

The encoder shrinks a feature to fewer channels, or fewer features, the quantiser to a few bits, and the decoder brings
it back. A channel with noise in between sends the numbers themselves (joint source-channel coding: BottleNet++, Shao
and Zhang 2020): white Gaussian noise on them, of a power that the SNR gives. A codec starts from the principal
components of real features, so that little training is left to do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mec_jax.profiles.compression import FLOAT_BITS, NO_CODEC, SETTINGS, sent_channels

__all__ = ["Bottleneck", "Settings", "white_noise"]


class Settings(NamedTuple):
    """What one kind of codec uses of the eight settings."""

    share: float
    kernel: int
    stride: int
    layers: int
    width: float
    bits: int

    @classmethod
    def of(cls, codec: Sequence[float], flat: bool) -> "Settings":
        """For a flat feature, or for one with height and width.

        A share may be below the least, but not 0: in the one form of a strategy
        (`mec_jax.physics.compression.canonical`) it is that of the channels that are really sent, where rounding may
        leave less.

        Raises:
            ValueError: If a setting is out of range.
        """
        if len(codec) != len(SETTINGS):
            raise ValueError(
                f"{len(codec)} codec settings: give {len(SETTINGS)}, {', '.join(s.name for s in SETTINGS)}"
            )
        for value, setting in zip(codec, SETTINGS, strict=True):
            if setting.choices:
                is_valid, valid = value in setting.choices, f"one of {setting.choices}"
            elif setting.name.endswith("share"):
                is_valid, valid = 0 < value <= setting.most, f"above 0 and up to {setting.most}"
            else:
                is_valid, valid = setting.least <= value <= setting.most, f"{setting.least} to {setting.most}"
            if not is_valid:
                raise ValueError(f"codec setting {setting.name} is {value}: give {valid}")
        if flat:
            share, layers, width, bits = codec[4:]
            return cls(share, 1, 1, int(layers), width, int(bits))
        share, kernel, stride, bits = codec[:4]
        return cls(share, int(kernel), int(stride), 1, 1.0, int(bits))


class Bottleneck(nn.Module):
    """Encoder, quantiser, channel and decoder around one feature.

    Args:
        features: Real ones, [image, channel, height, width] or [image, feature], to start from.
        codec: The eight settings (`mec_jax.profiles.compression.SETTINGS`).

    Attributes:
        snr: Signal-to-noise ratio of the channel, dB; None sends bits that all arrive.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(self, features: torch.Tensor, codec: Sequence[float]) -> None:
        super().__init__()
        flat = features.ndim == 2
        self.settings = Settings.of(codec, flat)
        self.snr: float | None = None
        channels, self.size = features.shape[1], features.shape[2:]
        sent = sent_channels(channels, self.settings.share)
        self.is_identity = tuple(codec[4:] if flat else codec[:4]) == (NO_CODEC[4:] if flat else NO_CODEC[:4])
        if self.is_identity:
            self.encoder = self.decoder = nn.Identity()
        elif flat:
            self.encoder, self.decoder = _linear(features, sent, self.settings)
        else:
            self.encoder, self.decoder = _convolutional(features, sent, self.settings)
        with torch.no_grad():
            codes = self.encoder(features).transpose(0, 1).flatten(1)
        broad = (-1, *(1,) * len(self.size))
        low, high = torch.aminmax(codes, dim=1)
        self.register_buffer("low", low.view(broad))
        self.register_buffer("high", high.view(broad))

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """What the decoder makes of the feature."""
        codes = self.quantised(self.encoder(feature))
        if self.snr is not None:
            codes = codes + white_noise(codes, self.snr)
        if self.is_identity:
            return codes
        if self.settings.stride > 1:
            codes = functional.interpolate(codes, self.size, mode="nearest")
        return self.decoder(codes)

    def quantised(self, codes: torch.Tensor) -> torch.Tensor:
        """Numbers of a grid over each channel's range; gradients pass as if they were not rounded."""
        if self.settings.bits == FLOAT_BITS:
            return codes
        step = (self.high - self.low).clamp_min(1e-12) / (2**self.settings.bits - 1)
        clamped = torch.minimum(torch.maximum(codes, self.low), self.high)
        rounded = ((clamped - self.low) / step).round() * step + self.low
        return clamped + (rounded - clamped).detach()


def white_noise(signal: torch.Tensor, snr: float) -> torch.Tensor:
    """Gaussian noise of the power that `snr`, in dB, leaves it; the signal's power is its variance in each image."""
    power = signal.detach().flatten(1).var(1, correction=0).view(-1, *(1,) * (signal.ndim - 1))
    return torch.randn_like(signal) * (power / 10 ** (snr / 10)).sqrt()


def _components(rows: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [column] and first principal components [number, column] of [row, column]; rows of 0 if there are fewer."""
    mean = rows.mean(0)
    found = torch.zeros(number, rows.shape[1])
    most = min(number, *rows.shape)
    if rows.shape[1] <= rows.shape[0]:
        _, vectors = torch.linalg.eigh((rows - mean).T @ (rows - mean))
        found[:most] = vectors.T.flip(0)[:most]
    else:
        found[:most] = torch.pca_lowrank(rows, most, center=True, niter=2)[2].T
    return mean, found


def _convolutional(features: torch.Tensor, sent: int, settings: Settings) -> tuple[nn.Module, nn.Module]:
    """The encoder starts as the mean of each `stride` x `stride` patch in the first components, the decoder as they."""
    channels, kernel, stride = features.shape[1], settings.kernel, settings.stride
    # With a stride the kernel is even, so that patches meet.
    layer = nn.Conv2d(channels, sent, kernel if stride == 1 else kernel + 1, stride, kernel // 2)
    encoder = layer if stride == 1 else nn.Sequential(_Even(stride), layer)
    decoder = nn.Conv2d(sent, channels, kernel, padding=kernel // 2)
    rows = functional.avg_pool2d(features, stride, ceil_mode=True) if stride > 1 else features
    mean, vectors = _components(rows.transpose(0, 1).flatten(1).T, sent)
    with torch.no_grad():
        layer.weight.zero_()
        first = kernel // 2
        layer.weight[:, :, first : first + stride, first : first + stride] = vectors[:, :, None, None] / stride**2
        layer.bias.copy_(-vectors @ mean)
        decoder.weight.zero_()
        decoder.weight[:, :, kernel // 2, kernel // 2] = vectors.T
        decoder.bias.copy_(mean)
    return encoder, decoder


class _Even(nn.Module):
    """Repeats the last row and column until patches of the stride divide the feature."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        height, width = feature.shape[-2:]
        more = (0, -width % self.stride, 0, -height % self.stride)
        return functional.pad(feature, more, mode="replicate") if any(more) else feature


def _linear(features: torch.Tensor, sent: int, settings: Settings) -> tuple[nn.Module, nn.Module]:
    """One layer, or two with a ReLU between; of two, the outer starts as the first components and their negatives."""
    width = features.shape[1]
    mean, vectors = _components(features, sent)
    if settings.layers == 1:
        encoder, decoder = nn.Linear(width, sent), nn.Linear(sent, width)
        with torch.no_grad():
            encoder.weight.copy_(vectors)
            encoder.bias.copy_(-vectors @ mean)
            decoder.weight.copy_(vectors.T)
            decoder.bias.copy_(mean)
        return encoder, decoder
    between = max(2, round(settings.width * width))
    pairs = min(between // 2, sent)
    encoder = nn.Sequential(nn.Linear(width, between), nn.ReLU(), nn.Linear(between, sent))
    decoder = nn.Sequential(nn.Linear(sent, between), nn.ReLU(), nn.Linear(between, width))
    identity = torch.eye(pairs, sent)
    with torch.no_grad():
        # relu(x) - relu(-x) = x: what the layer between has room for goes through as it is.
        for layers, outer in ((encoder, vectors[:pairs]), (decoder, identity)):
            layers[0].weight[: 2 * pairs] = torch.cat([outer, -outer])
            layers[0].bias[: 2 * pairs] = torch.cat([-outer @ mean, outer @ mean]) if layers is encoder else 0.0
        encoder[2].weight.mul_(0.1)[:, : 2 * pairs] = torch.cat([identity, -identity]).T
        encoder[2].bias.zero_()
        decoder[2].weight.mul_(0.1)[:, : 2 * pairs] = torch.cat([vectors[:pairs], -vectors[:pairs]]).T
        decoder[2].bias.copy_(mean)
    return encoder, decoder
