import itertools
import json
import math
import re
import subprocess
import sys
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mec_jax.profiles.layers import NETWORKS, Layer, layer_table

ATARI = (4, 84, 84)
SHORTCUT = re.compile(r"\.(downsample|proj)\.")


def layer(name: str, table: tuple[Layer, ...]) -> Layer:
    (found,) = (layer for layer in table if layer.name == name)
    return found


def total(table: tuple[Layer, ...], cost: str) -> int:
    return sum(getattr(layer, cost) for layer in table)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        ("alexnet", 61_100_840),
        ("vgg11", 132_863_336),
        ("vgg16", 138_357_544),
        ("resnet18", 11_689_512),
        ("mobilenet_v1", 4_231_976),
        ("mobilenet_v2", 3_504_872),
        ("regnet_x_400mf", 5_495_976),
    ],
)
def test_parameters_are_as_many_as_the_published_models_have(network: str, parameters: int) -> None:
    assert total(layer_table(network), "parameters") == parameters


@pytest.mark.parametrize(
    ("network", "giga"),
    [
        ("alexnet", 0.714),
        ("vgg11", 7.609),
        ("vgg16", 15.470),
        ("resnet18", 1.814),
        ("mobilenet_v1", 0.569),
        ("mobilenet_v2", 0.301),
    ],
)
def test_macs_are_the_published_ones(network: str, giga: float) -> None:
    assert round(total(layer_table(network), "macs") / 1e9, 3) == giga


def test_mobilenet_v2_has_300_8_million_macs() -> None:
    assert round(total(layer_table("mobilenet_v2"), "macs") / 1e6, 1) == 300.8


def test_alexnet_with_ten_classes_costs_what_figure_6_needs() -> None:
    table = layer_table("alexnet", num_classes=10)
    assert round(total(table, "flops") / 1e9, 4) == 1.4225
    assert round(2 * total(table, "macs") / 1e9, 4) == 1.4203


def test_every_row_of_table_i_on_alexnet_by_hand() -> None:
    table = layer_table("alexnet", num_classes=10)
    flops = {each.name: each.flops for each in table}
    assert flops["features.0"] == 2 * 55 * 55 * (3 * 11**2 + 1) * 64
    assert flops["features.1"] == 55 * 55 * 64
    assert flops["features.2"] == 3**2 * 27 * 27 * 64
    assert flops["avgpool"] == 6 * 6 * 256
    assert flops["classifier.0"] == 6 * 6 * 256
    assert flops["classifier.6"] == (2 * 4096 - 1) * 10


def test_batchnorm_and_add_by_hand() -> None:
    table = layer_table("resnet18")
    assert layer("bn1", table).flops == 2 * 64 * 112 * 112
    assert layer("bn1", table).parameters == 2 * 64
    assert layer("layer1.0.add", table).flops == 64 * 56 * 56
    assert total(tuple(each for each in table if each.kind in ("batchnorm", "add")), "macs") == 0


def test_a_depthwise_filter_sees_one_channel() -> None:
    depthwise = layer("features.1.depthwise.0", layer_table("mobilenet_v1"))
    assert depthwise.input_shape == depthwise.output_shape == (32, 112, 112)
    assert depthwise.macs == 32 * 112 * 112 * 3**2
    assert depthwise.flops == 2 * 112 * 112 * (3**2 + 1) * 32
    assert depthwise.parameters == 32 * 3**2


def test_vgg16_has_thirteen_convolutions_at_five_sizes() -> None:
    convs = [each for each in layer_table("vgg16") if each.kind == "conv"]
    assert [each.output_shape[1] for each in convs] == [224, 224, 112, 112, 56, 56, 56, 28, 28, 28, 14, 14, 14]


BUNDLED = {"vgg11": "vgg11", "resnet18": "resnet18", "mobilenetv2": "mobilenet_v2"}


@pytest.mark.parametrize("profile", BUNDLED)
def test_cuts_of_the_bundled_profiles_are_cuts_of_the_same_shape(profile: str) -> None:
    content: Any = json.loads((resources.files("mec_jax.profiles") / "data" / f"{profile}.json").read_text())
    table = layer_table(BUNDLED[profile])
    for cut in content["cuts"]:
        # A cut is named by a module: its last layer is where the tensor leaves it.
        last = [each for each in table if f"{each.name}.".startswith(f"{cut['name']}.")][-1]
        assert last.cut
        assert list(last.output_shape) == cut["feature_shape"], cut["name"]


# Cumulative MAC in % of 236.6 M and KiB of fp32, by the ten modules after which the authors' code can cut.
COKNIGHT = {
    "conv1": (9.4, 441),
    "relu": (9.4, 441),
    "maxpool1": (9.4, 110),
    "layer1.1.relu_1": (36.8, 110),
    "layer2.1.relu_1": (63.7, 60.5),
    "maxpool2": (63.7, 18),
    "layer3.1.relu_1": (71.6, 9),
    "layer4.1.relu_1": (85.8, 8),
    "layer5.1.relu_1": (100, 4),
    "avgpool": (100, 4),
}


def test_coknight_resnet_has_the_ten_cuts_of_the_partition_game() -> None:
    table = layer_table("coknight_resnet", ATARI, num_classes=6)
    names = [each.name for each in table]
    macs = total(table[: names.index("avgpool") + 1], "macs")
    assert round(macs / 1e6, 1) == 236.6
    for name, (percent, kibibytes) in COKNIGHT.items():
        assert layer(name, table).cut
        front = table[: names.index(name) + 1]
        assert 100 * total(front, "macs") / macs == pytest.approx(percent, abs=0.06)
        assert round(front[-1].output_elements * 4 / 1024, 1 if kibibytes == 60.5 else None) == kibibytes


def test_one_tensor_crosses_outside_residual_blocks_and_two_inside() -> None:
    assert all(each.cut for network in ("alexnet", "vgg11", "vgg16", "mobilenet_v1") for each in layer_table(network))
    block = {each.name: each.cut for each in layer_table("resnet18") if each.name.startswith("layer2.0.")}
    assert block == {
        "layer2.0.conv1": False,
        "layer2.0.bn1": False,
        "layer2.0.relu": False,
        "layer2.0.conv2": False,
        "layer2.0.bn2": False,
        "layer2.0.downsample.0": False,
        "layer2.0.downsample.1": False,
        "layer2.0.add": True,
        "layer2.0.relu_1": True,
    }


def test_mobilenet_v2_adds_only_where_the_shape_stays() -> None:
    adds = [each.name for each in layer_table("mobilenet_v2") if each.kind == "add"]
    assert adds == [f"features.{place}.add" for place in (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)]
    inside = layer("features.2.conv.1.0", layer_table("mobilenet_v2"))
    assert inside.cut, "features.2 has no shortcut"


@given(
    network=st.sampled_from(NETWORKS),
    channels=st.integers(1, 4),
    height=st.integers(63, 300),
    width=st.integers(63, 300),
    num_classes=st.integers(1, 100),
)
def test_layers_fit_together_at_any_size(
    network: str, channels: int, height: int, width: int, num_classes: int
) -> None:
    table = layer_table(network, (channels, height, width), num_classes)
    assert table[0].input_shape == (channels, height, width)
    assert table[-1].output_shape == (num_classes,)
    assert table[-1].cut
    assert len({each.name for each in table}) == len(table)
    shape: tuple[int, ...] = table[0].input_shape
    block_input = shape
    for each in table:
        if each.name.endswith((".downsample.0", ".proj.0")):
            shape = block_input  # the shortcut starts where the block did
        assert math.prod(each.input_shape) == math.prod(shape), each.name
        shape = each.output_shape
        block_input = shape if each.cut else block_input
        assert each.flops > 0 and each.macs >= 0 and each.parameters >= 0
        assert (each.macs > 0) == (each.kind in ("conv", "linear"))
        assert (each.input_elements, each.output_elements) == tuple(
            map(math.prod, (each.input_shape, each.output_shape))
        )


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2", "regnet_x_400mf", "coknight_resnet"])
def test_both_branches_of_a_residual_block_end_in_one_shape(network: str) -> None:
    table = layer_table(network)
    block_input: tuple[int, ...] = ()
    for before, each in itertools.pairwise(table):
        if before.cut:
            block_input = before.output_shape
        if each.kind == "add":
            block = [inner for inner in table if inner.name.startswith(each.name.removesuffix("add"))]
            body = [inner for inner in block if not inner.cut and not SHORTCUT.search(inner.name)]
            shortcut = [inner.output_shape for inner in block if SHORTCUT.search(inner.name)] or [block_input]
            assert body[-1].output_shape == shortcut[-1] == each.input_shape


def test_unknown_network_lists_the_names_and_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown network 'ResNet-18': did you mean 'resnet18'\\? use one of alexnet"):
        layer_table("ResNet-18")
    with pytest.raises(ValueError, match="unknown network 'x': use one of"):
        layer_table("x")


@pytest.mark.parametrize(
    ("network", "name", "side"),
    [("alexnet", "features.12", 63), ("vgg11", "features.20", 32), ("vgg16", "features.30", 32)],
)
def test_image_too_small_names_the_layer_and_the_size_that_does(network: str, name: str, side: int) -> None:
    layer_table(network, (3, side, side))
    for image in ((3, side - 1, side), (3, side, side - 1)):
        with pytest.raises(ValueError) as caught:
            layer_table(network, image)
        assert type(caught.value) is ValueError
        assert f"image {image} is too small for {network}: layer '{name}'" in str(caught.value)
        assert f"use at least {side} x {side} pixels" in str(caught.value)


@pytest.mark.parametrize("image", [(3, 224), (3, 224, 224, 1), 224, "abc", None])
def test_image_that_is_no_three_sizes_is_refused(image: Any) -> None:
    with pytest.raises(ValueError, match="image must be three whole numbers"):
        layer_table("alexnet", image)


@pytest.mark.parametrize(
    ("image", "axis"),
    [((0, 224, 224), "channels"), ((3, -1, 224), "height"), ((3, 224.0, 224), "height"), ((3, 224, True), "width")],
)
def test_size_that_is_no_count_is_refused(image: Any, axis: str) -> None:
    with pytest.raises(ValueError, match=f"{axis} of the image is .*: it must be a whole number"):
        layer_table("alexnet", image)


@pytest.mark.parametrize("num_classes", [0, -1, 10.0, True, None])
def test_num_classes_that_is_no_count_is_refused(num_classes: Any) -> None:
    with pytest.raises(ValueError, match=r"num_classes is .*: it must be a whole number"):
        layer_table("alexnet", num_classes=num_classes)


def test_layer_tables_need_no_jax() -> None:
    code = "import mec_jax.profiles.layers as p, sys; p.layer_table('vgg16'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
