"""Packs a feature into 8 bits an element before it is sent, and codes of any width into bytes.

Uniform quantisation over the range of the tensor: code = round((x - low) / step) with step = (high - low) / 255. It is
off by at most half a step, needs no training, and sends 64 bit besides the codes. `split.autoencoder` has codecs that
are trained, `split.jalad` an entropy coder on top of this one.
"""

from typing import NamedTuple

import torch

from mec_jax.files import check_count

__all__ = ["BITS_PER_ELEMENT", "HEADER_BITS", "MAX_BITS", "Encoded", "decode", "encode", "pack", "unpack"]

BITS_PER_ELEMENT = 8
HEADER_BITS = 64
"""`low` and `step`, two float32 numbers."""

MAX_BITS = 16
"""Of a code that is packed; a float16 has as many."""

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


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of so many bits each, one after the other, in whole bytes: what is sent.

    Args:
        codes: Whole numbers from 0 to 2^bits - 1, of any shape.
        bits: 1 to `MAX_BITS`; the highest comes first. The last byte is filled up with zeros.

    Returns:
        [ceil(elements * bits / 8)] uint8.

    Raises:
        ValueError: If `bits` is out of range. What is above the lowest `bits` of a code is lost.
    """
    if check_count("bits", bits, most=MAX_BITS) == 8:
        return codes.flatten().to(torch.uint8)
    places = torch.arange(bits - 1, -1, -1, device=codes.device, dtype=torch.int32)
    each = (codes.flatten().to(torch.int32)[:, None] >> places & 1).flatten()
    each = torch.nn.functional.pad(each, (0, -len(each) % 8))
    weights = 2 ** torch.arange(7, -1, -1, device=codes.device, dtype=torch.int32)
    return (each.reshape(-1, 8) * weights).sum(1).to(torch.uint8)


def unpack(payload: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The codes that were packed.

    Args:
        payload: What `pack` gave, [byte] uint8.
        bits: Of a code.
        count: Number of codes.

    Returns:
        [count] uint8, or int32 if a code has more than 8 bits.

    Raises:
        ValueError: If so many codes have another number of bytes.
    """
    check_count("bits", bits, most=MAX_BITS)
    check_count("count", count, 0)
    if payload.dtype != torch.uint8 or payload.shape != (-(-count * bits // 8),):
        raise ValueError(
            f"{list(payload.shape)} of {payload.dtype} is not what {count} codes of {bits} bit are packed into: "
            f"{-(-count * bits // 8)} bytes; take the codec that they were sent with"
        )
    if bits == 8:
        return payload
    places = torch.arange(7, -1, -1, device=payload.device, dtype=torch.int32)
    each = (payload.to(torch.int32)[:, None] >> places & 1).flatten()[: count * bits]
    weights = 2 ** torch.arange(bits - 1, -1, -1, device=payload.device, dtype=torch.int32)
    return (each.reshape(count, bits) * weights).sum(1).to(torch.uint8 if bits <= 8 else torch.int32)
