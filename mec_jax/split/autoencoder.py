"""The codec of Hao et al. 2022, section 2: fewer channels by a convolution, fewer bits by quantisation, and back.

A 1 x 1 convolution makes C' channels of a feature's C (section 2.2), each element becomes a whole number of c_q bits
(eq. 1), all of them are packed into bytes and sent; the server does it backwards (eq. 2 and another 1 x 1 convolution).
The rate is R = C / C' * 32 / c_q (eq. 3). The range of eq. 1 is collected beforehand, so that it is not sent.

A trained codec is one file: safetensors, with what it is in the header. `split.codec_training` makes them.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mec_jax.files import check_count, check_file, read_bytes, reason, write_bytes
from mec_jax.profiles.compression import FLOAT_BITS
from mec_jax.profiles.reader import Fields
from mec_jax.split.codec import MAX_BITS, pack, unpack
from mec_jax.split.graph import CutGraph, CutPoint

__all__ = [
    "Autoencoder",
    "CodecAbout",
    "Packed",
    "TrainedCodec",
    "channels_at_rate",
    "codecs_for",
    "load_codec",
    "save_codec",
    "with_codec",
]

MAX_BYTES = 2**30
"""Of a codec's file."""

_SCHEMA = 1
_KEY, _DIGEST = "mec_jax.codec", "sha256"  # in the file's header
_NETWORK = "network."  # before the names of a fine-tuned network's tensors


class Packed(NamedTuple):
    """What is sent: bytes. The shape is known to both sides."""

    payload: torch.Tensor  # [byte] uint8
    shape: tuple[int, ...]  # of the codes, [image, C', H, W]

    @property
    def bits(self) -> int:
        """Size in bit."""
        return 8 * self.payload.numel()


class Autoencoder(nn.Module):
    """A codec for features [image, C, H, W] of any height and width.

    In training mode, eq. 1 takes the range of the batch, and rounding has the gradient 1; in evaluation mode it takes
    the range that `collect` was given, and what is outside is clipped. Until then the range is -1 to 1.

    Args:
        channels: C.
        sent: C', from 1 to C.
        bits: c_q, 1 to `codec.MAX_BITS`.
        biased: Round as the authors' program does, round(z - 0.5), which decoding does not undo: half a step too low.

    Raises:
        ValueError: If a number is out of range.
    """

    low: torch.Tensor  # [] range of what is quantised
    high: torch.Tensor  # []

    def __init__(self, channels: int, sent: int, bits: int = 8, biased: bool = False) -> None:
        super().__init__()
        self.channels = check_count("channels", channels)
        self.sent = check_count("the number of channels sent", sent, most=channels)
        self.bits = check_count("bits", bits, most=MAX_BITS)
        self.biased = biased
        self.encoder = nn.Conv2d(channels, sent, 1)
        self.decoder = nn.Conv2d(sent, channels, 1)
        self.register_buffer("low", torch.tensor(-1.0))
        self.register_buffer("high", torch.tensor(1.0))
        self.eval()

    @property
    def rate(self) -> float:
        """R of eq. 3, whole bytes left aside."""
        return _rate(self.channels, self.sent, self.bits)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """The feature as the server gets it, [image, C, H, W]."""
        reduced = self.encoder(feature)
        if not self.training:
            return self.decoder(self._numbers(self._codes(reduced, self.low, self.high), self.low, self.high))
        low, high = reduced.detach().aminmax()
        rounded = self._numbers(self._codes(reduced.detach(), low, high), low, high)
        return self.decoder(reduced + (rounded - reduced).detach())

    @torch.no_grad()
    def encode(self, feature: torch.Tensor) -> Packed:
        """What the UE sends of a feature [image, C, H, W].

        Raises:
            ValueError: If the feature has another number of axes or channels.
        """
        if feature.dim() != 4 or feature.shape[1] != self.channels:
            raise ValueError(
                f"a feature {list(feature.shape)} does not fit a codec for [image, {self.channels}, height, width]: "
                "take the codec of this cut"
            )
        codes = self._codes(self.encoder(feature), self.low, self.high)
        return Packed(pack(codes, self.bits), tuple(codes.shape))

    @torch.no_grad()
    def decode(self, packed: Packed) -> torch.Tensor:
        """The feature, from what was sent.

        Raises:
            ValueError: If it was sent with another codec.
        """
        if len(packed.shape) != 4 or packed.shape[1] != self.sent:
            raise ValueError(f"codes {list(packed.shape)} do not have {self.sent} channels: take the codec of this cut")
        codes = unpack(packed.payload, self.bits, torch.Size(packed.shape).numel()).reshape(packed.shape)
        return self.decoder(self._numbers(codes, self.low, self.high))

    @torch.no_grad()
    def collect(self, features: Iterable[torch.Tensor]) -> None:
        """Take the range of eq. 1 from a set of features, [image, C, H, W] each.

        Raises:
            ValueError: If the encoder gives what is not finite.
        """
        bounds = [self.encoder(feature).aminmax() for feature in features]
        low, high = min(bound.min for bound in bounds), max(bound.max for bound in bounds)
        if not torch.isfinite(high - low):
            raise ValueError("the encoder gives numbers that are not finite: train it at a lower rate")
        self.low.copy_(low)
        self.high.copy_(high)

    def _codes(self, reduced: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Eq. 1."""
        scaled = (reduced - low) / self._step(low, high)
        rounded = (scaled - 0.5 if self.biased else scaled).round_()
        return rounded.clamp_(0, 2**self.bits - 1).to(torch.uint8 if self.bits <= 8 else torch.int32)

    def _numbers(self, codes: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """Eq. 2."""
        return codes.to(low.dtype) * self._step(low, high) + low

    def _step(self, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        step = (high - low) / (2**self.bits - 1)
        return torch.where(step > 0, step, torch.ones_like(step))  # a range of one number


def _rate(channels: int, sent: int, bits: int) -> float:
    """Eq. 3."""
    return channels / sent * FLOAT_BITS / bits


def channels_at_rate(channels: int, rate: float, bits: int = 8) -> int:
    """C' at which a codec has the rate.

    Raises:
        ValueError: If it is no whole number from 1 to `channels`.
    """
    sent = channels * FLOAT_BITS / (rate * bits) if rate > 0 else 0.0
    if abs(sent - round(sent)) > 1e-9 * channels or not 1 <= round(sent) <= channels:  # a rate may be 128 / 3
        most = channels * FLOAT_BITS / bits
        raise ValueError(
            f"rate {rate:g} makes {sent:g} of {channels} channels with {bits} bits: give {most:g} divided by a whole "
            f"number from 1 to {channels}"
        )
    return round(sent)


def with_codec(graph: CutGraph, cut: int | str, codec: nn.Module) -> nn.Module:
    """The whole network with the codec at a cut, as one module."""
    prefix, suffix = graph.split(cut)
    return nn.Sequential(prefix, codec, suffix)


# Files


@dataclass(frozen=True)
class CodecAbout:
    """What a trained codec is, and where it comes from."""

    network: str
    data_set: str  # with the number of images, where not all were trained on
    cut: str  # as `CutGraph` names it
    feature_shape: tuple[int, int, int]  # C, H, W
    sent: int  # channels
    bits: int  # of an element
    biased: bool
    rate: float  # R of eq. 3
    accuracy_without: float  # share of test images, of the network without a codec
    accuracy_frozen: float  # with the codec, before the network was fine-tuned
    accuracy: float  # with the codec in the end
    source: tuple[tuple[str, str], ...]  # (what, where it comes from): settings, machine, versions, date


@dataclass(frozen=True)
class TrainedCodec:
    """A codec with what it is, and the weights of the network that was fine-tuned with it, if any."""

    codec: Autoencoder
    about: CodecAbout
    network: Mapping[str, torch.Tensor]  # a state dict; empty if the network stayed as it was

    @property
    def loss(self) -> float:
        """Accuracy that it costs."""
        return self.about.accuracy_without - self.about.accuracy

    def point(self, graph: CutGraph) -> CutPoint:
        """The cut point that it is for.

        Raises:
            ValueError: If the network has none of this name, or features of another shape cross there.
        """
        about = self.about
        try:
            point = graph.point(about.cut)
        except ValueError as error:
            raise ValueError(f"the codec for {about.cut!r} of {about.network} does not fit: {error}") from None
        if point.shape[1:] != about.feature_shape:
            raise ValueError(
                f"the codec for {about.cut!r} of {about.network} takes features {_by(about.feature_shape)}, here they "
                f"are {_by(point.shape[1:]) or 'not there'}: give the network and the image size that it was trained on"
            )
        return point

    def tuned(self, module: nn.Module) -> nn.Module:
        """A copy of the network with the weights that were fine-tuned with the codec.

        Raises:
            ValueError: If these are another network's.
        """
        result = copy.deepcopy(module)
        if self.network:
            try:
                result.load_state_dict(self.network)
            except RuntimeError as error:
                raise ValueError(
                    f"the codec was fine-tuned with another network than this one ({reason(error)}): give "
                    f"{self.about.network}"
                ) from None
        return result.eval()


def codecs_for(graph: CutGraph, codecs: Sequence[TrainedCodec]) -> dict[int, TrainedCodec]:
    """Trained codecs by the index of their cut.

    Raises:
        ValueError: If one does not fit the network, or there are two for a cut.
    """
    placed: dict[int, TrainedCodec] = {}
    for trained in codecs:
        point = trained.point(graph)
        if point.index in placed:
            raise ValueError(f"there are two codecs for the cut {point.name!r}: give one")
        placed[point.index] = trained
    return placed


def save_codec(path: Path, trained: TrainedCodec) -> None:
    """Writes a trained codec as one whole file, or nothing.

    Args:
        path: Ends in .safetensors.
        trained: What to write.

    Raises:
        ValueError: If the path can't be written, or safetensors is not installed.
    """
    check_file(path, "codec file", (".safetensors",))
    tensors = {
        **{name: tensor.detach().cpu().contiguous() for name, tensor in trained.codec.state_dict().items()},
        **{_NETWORK + name: tensor.detach().cpu().contiguous() for name, tensor in trained.network.items()},
    }
    about = json.dumps({"schema": _SCHEMA, **asdict(trained.about), "source": dict(trained.about.source)})
    header = {_KEY: about, _DIGEST: _sha256(about, tensors)}
    try:
        write_bytes(path, _safetensors().save(tensors, header))
    except OSError as error:
        raise ValueError(
            f"can't write codec file {str(path)!r}: {reason(error)}; name one in a folder that has room"
        ) from None


def load_codec(path: Path | str) -> TrainedCodec:
    """Reads a trained codec.

    Raises:
        ValueError: If the file is not there, damaged, no codec's, or does not hold what it says; or safetensors is not
            installed.
    """
    library = _safetensors()
    try:
        content = read_bytes(path, MAX_BYTES)
    except OSError as error:
        raise ValueError(
            f"can't read codec file {str(path)!r} ({reason(error)}): give a file that save_codec or "
            "benchmarks.learning.codecs wrote"
        ) from None
    try:
        return _read(content, library)
    except ValueError as error:
        raise ValueError(f"codec file {str(path)!r}: {error}") from None


def _read(content: bytes, library: Any) -> TrainedCodec:
    try:
        tensors = library.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        text, digest = header[_KEY], header[_DIGEST]
    except Exception as error:  # of the library, by the kind of damage; or a header without these
        raise ValueError(f"it is damaged or no codec's ({reason(error)}): train or copy it again") from None
    if _sha256(text, tensors) != digest:
        raise ValueError("it is damaged, as its digest is another: train or copy it again")
    about = _about(text)
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(_NETWORK)}
    channels = about.feature_shape[0]
    expected = {
        **{"encoder.weight": (about.sent, channels, 1, 1), "encoder.bias": (about.sent,)},
        **{"decoder.weight": (channels, about.sent, 1, 1), "decoder.bias": (channels,), "low": (), "high": ()},
    }
    # Before there are weights of its size.
    if {name: tuple(tensor.shape) for name, tensor in own.items()} != expected:
        raise ValueError(f"its weights are not those of {about.sent} of {channels} channels: train it again")
    codec = Autoencoder(channels, about.sent, about.bits, about.biased)
    codec.load_state_dict(own)
    if not all(torch.isfinite(tensor).all() for tensor in own.values()) or not codec.low <= codec.high:
        raise ValueError("its weights or its range are not finite: train it again")
    network = {name.removeprefix(_NETWORK): tensor for name, tensor in tensors.items() if name.startswith(_NETWORK)}
    return TrainedCodec(codec.eval(), about, network)


_ABOUT = tuple(CodecAbout.__dataclass_fields__)


def _about(text: str) -> CodecAbout:
    """What the header says, each field checked; the digest is right, so that whoever wrote it has erred."""
    fields = Fields.of(json.loads(text), "", ("schema", *_ABOUT))
    if fields.values["schema"] != _SCHEMA:
        raise ValueError(f"field 'schema' is {fields.values['schema']!r}: this version reads {_SCHEMA}")
    shape = tuple(map(int, fields.numbers("feature_shape", 3, "numbers: C, H, W", positive=True)))
    about = CodecAbout(
        network=fields.text("network"),
        data_set=fields.text("data_set"),
        cut=fields.text("cut"),
        feature_shape=(shape[0], shape[1], shape[2]),
        sent=fields.count("sent"),
        bits=fields.count("bits"),
        biased=fields.truth("biased"),
        rate=fields.number("rate", positive=True),
        source=fields.source(),
        accuracy_without=fields.number("accuracy_without"),
        accuracy_frozen=fields.number("accuracy_frozen"),
        accuracy=fields.number("accuracy"),
    )
    if about.rate != _rate(shape[0], about.sent, about.bits):
        raise ValueError(f"field 'rate' is {about.rate:g}, which its channels and bits do not make")
    if max(about.accuracy_without, about.accuracy_frozen, about.accuracy) > 1:
        raise ValueError("an accuracy is above 1: it must be a share")
    return about


def _sha256(about: str, tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ValueError(f"codec files need {error.name}: pip install 'mec_jax[compress]'") from None
    return safetensors.torch


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
