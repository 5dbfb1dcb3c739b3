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
from dataclasses import dataclass

from mec_jax.profiles.layers import NETWORKS, layer_table
from mec_jax.profiles.reader import Fields, Reader

__all__ = ["NeuronTable", "load_neuron_table"]

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
    return _READER.read(network, others=NETWORKS)


def _generated(network: str) -> NeuronTable:
    image = (4, 84, 84) if network == "coknight_resnet" else (3, 224, 224)
    layers = [layer for layer in layer_table(network, image) if layer.kind in ("conv", "linear")]
    return NeuronTable(
        name=network,
        layer_names=tuple(layer.name for layer in layers),
        neurons=tuple(layer.output_shape[0] for layer in layers),
        neuron_flops=tuple(
            (2 * layer.macs if layer.kind == "conv" else layer.flops) / layer.output_shape[0] for layer in layers
        ),
        input_elements=tuple(layer.input_elements for layer in layers),
        output_elements=tuple(layer.output_elements for layer in layers),
        own_inputs=tuple(layer.groups == layer.input_shape[0] > 1 for layer in layers),
    )


def _table(fields: Fields) -> NeuronTable:
    layers = fields.objects("layers", _LAYER_FIELDS)
    fields.source()
    return NeuronTable(
        name=fields.text("name"),
        layer_names=tuple(layer.text("name") for layer in layers),
        neurons=tuple(layer.count("neurons") for layer in layers),
        neuron_flops=tuple(layer.number("neuron_flops", positive=True) for layer in layers),
        input_elements=tuple(layer.count("input_elements") for layer in layers),
        output_elements=tuple(layer.count("output_elements") for layer in layers),
        own_inputs=tuple(layer.truth("own_inputs") for layer in layers),
    )


_READER = Reader("neuron table", ("layers",), _table)
