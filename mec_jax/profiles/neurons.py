"""What the neurons of each layer of a DNN cost, for networks whose layers are divided among devices.

A neuron is an output channel of a convolution or a unit of a linear layer. Tables come from the layer-table generator
(`mec_jax.profiles.layers`) or from a JSON file:

    {
      "schema": 1,
      "name": "two_layers",
      "description": "which network, on what",
      "source": {"layers": "where the numbers come from"},
      "layers": [
        {"name": "conv", "neurons": 8, "neuron_flops": 1800, "input_elements": 300, "output_elements": 800,
         "own_inputs": false}
      ]
    }

"neuron_flops" is the work of one neuron; elements are those of the whole layer. "own_inputs" says that a neuron reads
its own equal part of the input and not all of it, as in a depthwise convolution.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mec_jax.profiles import _decode, _fields, _number, _show, _source, _text
from mec_jax.profiles.layers import NETWORKS, layer_table

__all__ = ["NeuronTable", "load_neuron_table"]

_SCHEMA = 1
_FILE_FIELDS = ("schema", "name", "description", "source", "layers")
_LAYER_FIELDS = ("name", "neurons", "neuron_flops", "input_elements", "output_elements", "own_inputs")


@dataclass(frozen=True)
class NeuronTable:
    """Neurons of the layers that have any, in the order in which they run."""

    name: str
    layer_names: tuple[str, ...]  # [layer]
    neurons: tuple[int, ...]  # [layer]
    neuron_flops: tuple[float, ...]  # [layer] FLOP of one neuron
    input_elements: tuple[int, ...]  # [layer] of the whole layer
    output_elements: tuple[int, ...]  # [layer] of the whole layer
    own_inputs: tuple[bool, ...]  # [layer] whether a neuron reads its own part of the input only

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self.neurons)


def load_neuron_table(network: str | os.PathLike[str]) -> NeuronTable:
    """The neurons of a generated network, for one image of its usual size, or of a JSON file.

    With C, H, W of the input (i) and the output (o), kernel K and g groups, a neuron of a convolution takes
    2 K^2 (C_i / g) H_o W_o FLOP and one of a linear layer 2 C_i - 1. Layers without multiplications (activations,
    poolings, normalisations, which inference folds into the convolutions, and sums of residual blocks) have no
    neurons: they are left to whoever holds the layer's output, for free. MobileNetV2 has 53 layers and 300.8 million
    multiply-accumulates; 6.77 million elements go into them and 6.68 million come out.

    Args:
        network: One of `mec_jax.profiles.layers.NETWORKS`, or the path of a JSON file.

    Raises:
        ValueError: If there is no such network or file, or the file is malformed.
    """
    if isinstance(network, str) and network in NETWORKS:
        return _generated(network)
    path = os.fspath(network)
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"can't read neuron table {path!r}: {reason}; give the path of a readable JSON file, "
            f"or one of the networks {', '.join(NETWORKS)}"
        ) from None
    try:
        return _table(_decode(data))
    except ValueError as error:
        raise ValueError(f"neuron table {path!r}: {error}") from None


def _generated(network: str) -> NeuronTable:
    image = (4, 84, 84) if network == "coknight_resnet" else (3, 224, 224)
    layers = [layer for layer in layer_table(network, image) if layer.kind in ("conv", "linear")]
    return _of_rows(
        network,
        (
            (
                layer.name,
                layer.output_shape[0],
                (2 * layer.macs if layer.kind == "conv" else layer.flops) / layer.output_shape[0],
                layer.input_elements,
                layer.output_elements,
                layer.groups == layer.input_shape[0] > 1,
            )
            for layer in layers
        ),
    )


def _table(content: object) -> NeuronTable:
    # First, so that a file of another version is called that and not misspelt.
    version = content.get("schema", _SCHEMA) if isinstance(content, dict) else _SCHEMA
    if isinstance(version, bool) or version != _SCHEMA:
        raise ValueError(f'schema version {_show(version)} is not known; write "schema": {_SCHEMA} and its fields')
    if not isinstance(content, dict):
        raise ValueError(f"holds {_show(content)}; a table is one JSON object with fields {', '.join(_FILE_FIELDS)}")
    fields = _fields(content, "", _FILE_FIELDS)
    _text(fields, "description")
    _source(fields["source"])
    layers = fields["layers"]
    if not isinstance(layers, list) or not layers:
        raise ValueError(f"field 'layers' must be a list of at least one object, not {_show(layers)}")
    rows = []
    for index, item in enumerate(layers):
        where = f"layers[{index}]."
        layer = _fields(item, where, _LAYER_FIELDS)
        if not isinstance(layer["own_inputs"], bool):
            raise ValueError(f"field '{where}own_inputs' must be true or false, not {_show(layer['own_inputs'])}")
        rows.append(
            (
                _text(layer, "name", where),
                _count(layer, "neurons", where),
                _number(layer, "neuron_flops", where, positive=True),
                _count(layer, "input_elements", where),
                _count(layer, "output_elements", where),
                layer["own_inputs"],
            )
        )
    return _of_rows(_text(fields, "name"), rows)


def _count(fields: dict[str, object], key: str, where: str) -> int:
    value = _number(fields, key, where, positive=True)
    if value != int(value):
        raise ValueError(f"field '{where}{key}' must be a whole number, not {_show(fields[key])}")
    return int(value)


def _of_rows(name: str, rows: Iterable[tuple[str, int, float, int, int, bool]]) -> NeuronTable:
    names, neurons, flops, inputs, outputs, own = zip(*rows, strict=True)
    return NeuronTable(name, names, neurons, flops, inputs, outputs, own)
