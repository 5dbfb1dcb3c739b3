"""Tables of neurons and of cuts: read from files, and refused by name of what is wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mec_jax.profiles.neurons import load_neuron_table
from mec_jax.profiles.partition_game import load_cut_table
from tests.documents import CUTS, NEURONS, replaced, write


def test_a_table_of_neurons_is_read_from_a_file(tmp_path: Path) -> None:
    table = load_neuron_table(write(tmp_path, NEURONS))
    assert (table.name, table.neurons, table.own_inputs) == ("tiny", (8, 4, 13), (False, True, False))
    assert table.neuron_flops == (1e6, 3e5, 2e6) and table.output_elements == (8000, 4000, 13)


def test_a_table_of_cuts_is_read_from_a_file(tmp_path: Path) -> None:
    table = load_cut_table(write(tmp_path, CUTS))
    assert (table.name, table.flops, table.bits) == ("tiny", (4e6, 0, 1e7), (1e5, 2e5, 5e4, 100))
    assert (table.layer_names, table.source) == (("conv", "pool", "linear"), "all: made up")


@pytest.mark.parametrize(
    ("load", "content", "message"),
    [
        *(
            (load, replaced(content, field, value), message)
            for load, content in ((load_neuron_table, NEURONS), (load_cut_table, CUTS))
            for field, value, message in (
                ("schema", 2, "schema version 2"),
                ("layers", [], "at least one"),
                ("source", {}, "source"),
                ("layers.2.name", "", r"layers\[2\].name"),
                ("layer", [], "unknown field 'layer', did you mean 'layers'"),
            )
        ),
        (load_neuron_table, replaced(NEURONS, "layers.0.neurons", 1.5), r"layers\[0\].neurons' must be a whole number"),
        (load_neuron_table, replaced(NEURONS, "layers.1.neuron_flops", 0), r"layers\[1\].neuron_flops"),
        (load_neuron_table, replaced(NEURONS, "layers.2.own_inputs", 1), r"\[2\].own_inputs' must be true or false"),
        (load_cut_table, replaced(CUTS, "input_bits", 0), "input_bits"),
        (load_cut_table, replaced(CUTS, "layers.0.flops", -1), r"layers\[0\].flops"),
        (load_cut_table, replaced(CUTS, "layers.1.bits", "x"), r"layers\[1\].bits"),
        (load_cut_table, replaced(CUTS, "layers", [{"name": "none", "flops": 0, "bits": 1}]), "no layer has any work"),
        *((load_neuron_table, text, r"neuron table .*network.json") for text in ("{", "[]", "null")),
        *((load_cut_table, text, r"cut table .*network.json") for text in ("{", "[]", "null")),
    ],
)
def test_a_malformed_table_is_refused_by_name_of_the_field(
    tmp_path: Path, load: Callable[[Path], Any], content: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, content))


def test_a_missing_table_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match=r"can't read neuron table 'mobilenet_v3'.*mobilenet_v2"):
        load_neuron_table("mobilenet_v3")
    with pytest.raises(ValueError, match=r"can't read cut table 'coknight-resnet'.*did you mean 'coknight_resnet'"):
        load_cut_table("coknight-resnet")
