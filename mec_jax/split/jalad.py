"""JALAD's compression (Li et al. 2018), the baseline of Hao et al. 2022: 8-bit quantisation, then Huffman coding.

A feature is quantised as in `split.codec`, over its own range, and the codes are entropy coded by the standard
library's zlib with the strategy `Z_HUFFMAN_ONLY`: raw deflate without matches, that is canonical Huffman codes of at
most 15 bits, with a table for each block of some 32 000 elements. It is C code that every machine has, and it needs no
training; the codes come back as they were.
"""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from mec_jax.files import check_count
from mec_jax.split import codec
from mec_jax.split.graph import CutGraph

__all__ = ["Coded", "JaladCost", "compress", "decode", "decompress", "encode", "measure_jalad"]

_RAW = -zlib.MAX_WBITS  # deflate without header and checksum: the radio link has its own
_BLOCKS = 9  # memory level: the most, 32 767 elements a block


class Coded(NamedTuple):
    """What is sent."""

    payload: bytes  # Huffman codes
    low: torch.Tensor  # [] float32, as in `codec.Encoded`
    step: torch.Tensor  # [] float32
    shape: tuple[int, ...]  # of the feature; known to both sides

    @property
    def bits(self) -> int:
        """Size in bit."""
        return 8 * len(self.payload) + codec.HEADER_BITS


def compress(codes: torch.Tensor) -> bytes:
    """Huffman codes of bytes.

    Args:
        codes: uint8, of any shape.
    """
    coder = zlib.compressobj(9, zlib.DEFLATED, _RAW, _BLOCKS, zlib.Z_HUFFMAN_ONLY)
    content = codes.contiguous().cpu().numpy()
    return coder.compress(content) + coder.flush()


def decompress(payload: bytes, shape: Sequence[int]) -> torch.Tensor:
    """The bytes that were coded, uint8.

    Raises:
        ValueError: If it is damaged, or of another shape.
    """
    count = int(np.prod(shape, dtype=np.int64))
    decoder = zlib.decompressobj(_RAW)
    try:
        content = decoder.decompress(payload, count + 1)  # no more memory than that
    except zlib.error as error:
        raise ValueError(f"what came is no Huffman coded feature ({error}): send it again") from None
    if len(content) != count or not decoder.eof or decoder.unused_data:
        raise ValueError(f"what came is not {count} elements of a feature {list(shape)}: send it again")
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy()).reshape(tuple(shape))


def encode(feature: torch.Tensor) -> Coded:
    """Quantises and codes a feature.

    Raises:
        ValueError: As `codec.encode`.
    """
    quantised = codec.encode(feature)
    return Coded(compress(quantised.codes), quantised.low, quantised.step, tuple(feature.shape))


def decode(coded: Coded, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The feature, each element off by at most half a step.

    Raises:
        ValueError: If it is damaged.
    """
    codes = decompress(coded.payload, coded.shape).to(coded.low.device)
    return codec.decode(codec.Encoded(codes, coded.low, coded.step), dtype)


@dataclass(frozen=True)
class JaladCost:
    """What JALAD makes of real features at one cut; times are medians over the images."""

    cut: str
    elements: int  # of a feature
    bits: float  # sent of an image, mean
    bits_spread: float  # standard deviation over images
    entropy: float  # bit an element, of all codes of an image, mean: a code without blocks can't send less
    commonest: float  # share of the commonest code, mean
    quantise_time: float  # s
    code_time: float  # s, of the entropy coder
    decode_time: float  # s, of both

    @property
    def rate(self) -> float:
        """Of 32 bit an element."""
        return 32 * self.elements / self.bits

    @property
    def coder_rate(self) -> float:
        """bit/s of 8-bit codes that the entropy coder takes."""
        return 8 * self.elements / self.code_time

    @property
    def encode_time(self) -> float:
        """s, of both."""
        return self.quantise_time + self.code_time


def measure_jalad(
    graph: CutGraph, inputs: torch.Tensor, cuts: Sequence[int | str], repeats: int = 5
) -> tuple[JaladCost, ...]:
    """Sizes and times of an image's features, cut by cut, on this machine.

    Args:
        graph: Of the network, trained: the features of random weights are no less noisy than the weights.
        inputs: Real images, [image, ...], each coded on its own.
        cuts: Indices or names.
        repeats: Of each image's coding; the median of all counts.

    Raises:
        ValueError: If there is no such cut, or its feature can't be quantised.
    """
    check_count("repeats", repeats)
    return tuple(_measured(graph, inputs, cut, repeats) for cut in cuts)


@torch.inference_mode()
def _measured(graph: CutGraph, inputs: torch.Tensor, cut: int | str, repeats: int) -> JaladCost:
    point = graph.point(cut)
    prefix = graph.segment(0, cut)
    sizes, entropies, commonest = [], [], []
    quantising, coding, decoding = [], [], []
    for image in inputs.split(1):
        feature = prefix(image.clone())
        for _ in range(repeats):
            started = time.perf_counter()
            quantised = codec.encode(feature)
            quantising.append(time.perf_counter() - started)
            started = time.perf_counter()
            payload = compress(quantised.codes)
            coding.append(time.perf_counter() - started)
            coded = Coded(payload, quantised.low, quantised.step, tuple(feature.shape))
            started = time.perf_counter()
            decode(coded)
            decoding.append(time.perf_counter() - started)
        shares = torch.bincount(quantised.codes.flatten().int(), minlength=256).double() / feature.numel()
        entropies.append(float(-torch.special.xlogy(shares, shares).sum() / np.log(2)))
        commonest.append(float(shares.max()))
        sizes.append(coded.bits)
    return JaladCost(
        cut=point.name,
        elements=point.elements // point.shape[0],
        bits=float(np.mean(sizes)),
        bits_spread=float(np.std(sizes)),
        entropy=float(np.mean(entropies)),
        commonest=float(np.mean(commonest)),
        quantise_time=float(np.median(quantising)),
        code_time=float(np.median(coding)),
        decode_time=float(np.median(decoding)),
    )
