"""What a DNN costs that actors cut between themselves and a learner: FLOP of each layer, bits at each cut.

A layer is what lies between two points where the network can be cut. Tables come from the layer-table generator
(`mec_jax.profiles.layers`), from a bundled multi-exit profile or from a JSON file:

    {
      "schema": 1,
      "name": "two_layers",
      "description": "which network, on what",
      "source": {"layers": "where the numbers come from"},
      "input_bits": 225792,
      "layers": [
        {"name": "conv", "flops": 44255232, "bits": 3612672}
      ]
    }

"flops" is 2 * MAC of the layer and "bits" what its output has; those of the last layer are what an actor gets back.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass

from mec_jax.files import content_sha256
from mec_jax.profiles.layers import NETWORKS, layer_table
from mec_jax.profiles.multi_exit import bundled_multi_exit_profiles, load_multi_exit_profile
from mec_jax.profiles.reader import Fields, Reader

__all__ = ["FLOAT_FRAMES", "CutTable", "load_cut_table"]

_LAYER_FIELDS = ("name", "flops", "bits")

# After these modules the authors' code can cut; heads, 0.1 % of the work, stay where the last of them is.
_COKNIGHT_CUTS = (
    "conv1",
    "relu",
    "maxpool1",
    "layer1.1.relu_1",
    "layer2.1.relu_1",
    "maxpool2",
    "layer3.1.relu_1",
    "layer4.1.relu_1",
    "layer5.1.relu_1",
    "avgpool",
)
FLOAT_FRAMES = "coknight_resnet_float32"
"""The authors' network with frames sent as 32-bit floats."""

_FEATURE_BITS = 32  # of an element, as the authors send features
_PIXEL_BITS = 8


@dataclass(frozen=True)
class CutTable:
    """Costs of one network by layer. Cut y leaves the first y layers on the device: 0 none, K all."""

    name: str
    layer_names: tuple[str, ...]  # [layer]
    flops: tuple[float, ...]  # [layer] FLOP, 2 * MAC
    bits: tuple[float, ...]  # [cut] bit of the raw input, then of each layer's output
    source: str
    sha256: str  # of what the file says, or would say (`mec_jax.files.content_sha256`)

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the cuts: "input", after each layer but the last, "local"."""
        return ("input", *self.layer_names[:-1], "local")

    @property
    def num_cuts(self) -> int:
        """Number of layers K; cuts go from 0 to K."""
        return len(self.flops)


def load_cut_table(name_or_path: str | os.PathLike[str] = "coknight_resnet") -> CutTable:
    """The costs of a generated network, of a bundled multi-exit profile without its exits, or of a JSON file.

    "coknight_resnet" is the residual network of the authors' code (github.com/daihao42/coknight) for 4 x 84 x 84
    frames, with its ten cuts and without its heads: 236.6 million MAC. Other generated networks take one 3 x 224 x 224
    image and are cut wherever exactly one tensor goes on. Raw inputs have 8 bit an element, features 32.

    "coknight_resnet_float32" is the first with frames that are sent as 32-bit floats, 110 KiB and not 27.6. The
    authors' logs suggest that theirs are: all at the edge had more traffic, 11.25 MB/s, than a cut after layer 3 or 4
    (10.56 and 9.88), whose features have 110 KiB.

    Args:
        name_or_path: One of `mec_jax.profiles.layers.NETWORKS` or of `bundled_multi_exit_profiles()`, or
            "coknight_resnet_float32"; these win over files called alike. Or the path of a JSON file.

    Raises:
        ValueError: If there is no such network or file, or the file is malformed.
    """
    if isinstance(name_or_path, str) and name_or_path in (*NETWORKS, FLOAT_FRAMES):
        return _generated(name_or_path)
    profiles = bundled_multi_exit_profiles()
    if isinstance(name_or_path, str) and name_or_path in profiles:
        profile = load_multi_exit_profile(name_or_path)
        return CutTable(
            name=profile.name,
            layer_names=profile.layer_names,
            flops=profile.layer_flops,
            bits=(profile.input_bits, *profile.feature_bits),
            source=_joined(profile.source),
            sha256=profile.sha256,
        )
    return _READER.read(name_or_path, others=(*NETWORKS, FLOAT_FRAMES, *profiles))


def _generated(name: str) -> CutTable:
    network = "coknight_resnet" if name == FLOAT_FRAMES else name
    coknight = network == "coknight_resnet"
    layers = layer_table(network, (4, 84, 84) if coknight else (3, 224, 224))
    names: list[str] = []
    flops: list[float] = []
    bits = [float((_FEATURE_BITS if name == FLOAT_FRAMES else _PIXEL_BITS) * layers[0].input_elements)]
    work = 0
    for layer in layers:
        work += 2 * layer.macs
        if layer.name in _COKNIGHT_CUTS if coknight else layer.cut:
            names.append(layer.name)
            flops.append(float(work))
            bits.append(float(_FEATURE_BITS * layer.output_elements))
            work = 0
    rows = [dict(zip(_LAYER_FIELDS, row, strict=True)) for row in zip(names, flops, bits[1:], strict=True)]
    sha256 = content_sha256({"name": name, "input_bits": bits[0], "layers": rows})
    source = f"generated: mec_jax.profiles.layers, {network}"
    return CutTable(name, tuple(names), tuple(flops), tuple(bits), source, sha256)


def _table(fields: Fields) -> CutTable:
    layers = fields.objects("layers", _LAYER_FIELDS)
    flops = tuple(layer.number("flops") for layer in layers)
    if not sum(flops):
        raise ValueError("no layer has any work: give one of them 'flops' > 0")
    return CutTable(
        name=fields.text("name"),
        layer_names=tuple(layer.text("name") for layer in layers),
        flops=flops,
        bits=(fields.number("input_bits", positive=True), *(layer.number("bits") for layer in layers)),
        source=_joined(fields.source()),
        sha256=content_sha256(fields.values),
    )


def _joined(source: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{table}: {where}" for table, where in source)


_READER = Reader("cut table", ("input_bits", "layers"), _table)
