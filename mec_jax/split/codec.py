"""Packs a feature into 8 bits an element before it is sent.

Uniform quantisation over the range of the tensor: code = round((x - low) / step) with step = (high - low) / 255. It is
off by at most half a step, needs no training, and sends 64 bit besides the codes.
"""

from typing import NamedTuple

import torch

__all__ = ["BITS_PER_ELEMENT", "HEADER_BITS", "Encoded", "decode", "encode"]

BITS_PER_ELEMENT = 8
HEADER_BITS = 64
"""`low` and `step`, two float32 numbers."""

_LARGEST_CODE = 2**BITS_PER_ELEMENT - 1


class Encoded(NamedTuple):
    """What is sent."""

    codes: torch.Tensor  # uint8, of the feature's shape
    low: torch.Tensor  # [] float32
    step: torch.Tensor  # [] float32; 0 if all elements are the same

    @property
    def bits(self) -> int:
        """Size in bit."""
        return BITS_PER_ELEMENT * self.codes.numel() + HEADER_BITS


def encode(feature: torch.Tensor) -> Encoded:
    """Quantises a tensor of floats.

    Raises:
        ValueError: If it is empty, not made of floats, or not finite.
    """
    if not feature.is_floating_point() or feature.numel() == 0:
        kind = f"{list(feature.shape)} of {feature.dtype}"
        raise ValueError(f"a feature {kind} can't be quantised: cut where floats cross")
    low, high = (bound.float() for bound in feature.aminmax())
    step = (high - low) / _LARGEST_CODE
    if not torch.isfinite(step):
        raise ValueError("the feature holds a NaN, an infinity or too wide a range: look at the network or its input")
    # A range under the least number that float32 has is none.
    scale = torch.where(step > 0, step, torch.ones_like(step))
    codes = ((feature.float() - low) / scale).round_().clamp_(0, _LARGEST_CODE).to(torch.uint8)
    return Encoded(codes, low, step)


def decode(encoded: Encoded, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The feature, of that type, each element off by at most half a step and what `dtype` rounds."""
    return (encoded.codes.float() * encoded.step + encoded.low).to(dtype)
