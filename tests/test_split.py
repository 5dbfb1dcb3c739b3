"""Cut points, the two halves, early exits, channel splits and the codec, on networks with random weights."""

import functools
import json
import math
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mec_jax.profiles.layers import NETWORKS, layer_table
from mec_jax.split.channels import split_channels
from mec_jax.split.codec import decode, encode
from mec_jax.split.exits import UNDECIDED, Answers, MultiExit
from mec_jax.split.graph import CutGraph, split
from tests.errors import error_of

pytestmark = pytest.mark.usefixtures("one_thread")

# Image sizes are small where every layer still has something to see.
SIDES = {"resnet18": 64, "vgg11": 32, "mobilenet_v2": 64, "alexnet": 63, "regnet_x_400mf": 64}


@functools.cache
def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None).eval()


def image(side: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


@functools.cache
def graph_of(name: str) -> CutGraph:
    return CutGraph(network(name), image(SIDES[name]))


# Cut points


@pytest.mark.parametrize("name", SIDES)
def test_every_legal_cut_gives_halves_bit_equal_to_the_network(name: str) -> None:
    x, graph = image(SIDES[name]), graph_of(name)
    assert len(graph.points) > 20
    with torch.inference_mode():
        whole = network(name)(x.clone())
        for point in graph.points:
            prefix, suffix = graph.split(point.index)
            feature = prefix(x.clone())
            if point.dtype is not None:
                assert (tuple(feature.shape), feature.dtype) == (point.shape, point.dtype), point
            assert torch.equal(suffix(feature), whole), point


@pytest.mark.parametrize("name", ["alexnet", "vgg11", "resnet18", "mobilenet_v2"])
def test_cut_points_are_those_of_the_layer_table(name: str) -> None:
    side = SIDES[name]
    found = {point.name.replace("adaptive_avg_pool2d", "avgpool"): point.shape[1:] for point in graph_of(name).points}
    table = {layer.name: layer.output_shape for layer in layer_table(name, (3, side, side)) if layer.cut}
    assert found.pop("input") == (3, side, side)
    del found["flatten"], found["local"]
    *_, last = table
    del table[last]  # after it the network has ended: "local"
    assert found.keys() == table.keys()
    # The table drops out before it flattens.
    differing = {layer for layer in found if found[layer] != table[layer]}
    assert differing <= {"classifier.0"}
    assert all(math.prod(found[layer]) == math.prod(table[layer]) for layer in found)


def test_the_first_point_sends_the_input_and_the_last_nothing() -> None:
    module, x = network("resnet18"), image(64)
    first, last = (graph_of("resnet18").points[i] for i in (0, -1))
    assert (first.name, first.shape, first.elements, first.parameter_bytes) == ("input", (1, 3, 64, 64), 3 * 64 * 64, 0)
    assert (last.name, last.elements, last.dtype) == ("local", 0, None)
    with torch.inference_mode():
        prefix, suffix = split(module, 0, x)
        assert prefix(x) is x and torch.equal(suffix(x.clone()), module(x.clone()))
        prefix, suffix = split(module, last.index, x)
        assert torch.equal(prefix(x.clone()), module(x.clone())) and suffix(x) is x


def test_resnet18_cuts_are_as_large_as_in_the_bundled_profile() -> None:
    content = json.loads((resources.files("mec_jax.profiles") / "data" / "resnet18.json").read_text())
    graph = CutGraph(network("resnet18"), image(224))
    for cut in content["cuts"]:
        assert list(graph.point(cut["name"]).shape) == [1, *cut["feature_shape"]]


def test_a_cut_is_named_by_its_index_its_layer_or_a_module_that_ends_there() -> None:
    graph = graph_of("resnet18")
    assert graph.point("layer2.0") == graph.point("layer2.0.relu_1") == graph.points[graph.point("layer2.0").index]
    assert graph.point("layer4") == graph.point("layer4.1.relu_1")
    assert graph.point("fc") == graph.point("local") == graph.points[-1]
    assert "there is no cut 24: give 0 (send the input) to 23 (local)" in error_of(graph.point, 24)
    assert "there is no cut -1" in error_of(graph.point, -1)
    assert "no layer 'layer2.0.relu_2' to cut after, did you mean 'layer2.0.relu_1'?" in error_of(
        graph.point, "layer2.0.relu_2"
    )
    assert error_of(graph.point, "layer2.0.bn1") == (
        "more than one tensor crosses after 'layer2.0.bn1': cut at 'layer1.1.add', 'layer1.1.relu_1', 'layer2.0.add', "
        "'layer2.0.relu_1'"
    )


def test_halves_share_the_networks_parameters_and_have_no_others() -> None:
    prefix, suffix = graph_of("resnet18").split("layer2")
    parameters = [{id(p) for p in module.parameters()} for module in (network("resnet18"), prefix, suffix)]
    assert parameters[0] == parameters[1] | parameters[2]
    assert not parameters[1] & parameters[2]


def test_segments_between_cuts_chain() -> None:
    graph, x = graph_of("alexnet"), image(63)
    with torch.inference_mode():
        feature = x.clone()
        for start, stop in ((0, "features.2"), ("features.2", 9), (9, "local")):
            feature = graph.segment(start, stop)(feature)
        assert torch.equal(feature, network("alexnet")(x.clone()))
    assert "cut 3 comes before 4" in error_of(graph.segment, 4, 3)


def test_parameter_and_activation_bytes_by_hand() -> None:
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2, bias=False)).eval()
    points = CutGraph(module, torch.zeros(1, 4)).points
    assert [point.parameter_bytes for point in points] == [0, 4 * 40, 4 * 40, 4 * 56]
    assert [point.activation_bytes for point in points] == [16, 48, 48, 48]  # in place: no third tensor


class LoopsOverTheShape(nn.Module):
    """Stops torch.fx, not torch.export."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        x = self.conv(x) * self.scale
        for row in range(x.shape[2]):
            x = x + x[:, :, row : row + 1] * self.scale
        return x.relu_()


def test_what_torch_fx_cannot_trace_is_cut_by_torch_export() -> None:
    module, x = LoopsOverTheShape().eval(), image(6)
    graph = CutGraph(module, x)
    assert [point.name for point in graph.points] == [
        "input",
        "conv.conv2d",
        "mul",
        "add",
        "add_1",
        "add_2",
        "add_3",
        "local",
    ]
    with torch.inference_mode():
        for point in graph.points:
            prefix, suffix = graph.split(point.index)
            assert torch.equal(suffix(prefix(x)), module(x)), point


class BranchesOnValues(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class AddsTwo(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def test_module_that_cannot_be_cut_is_one_clear_error() -> None:
    assert "traced neither by torch.fx (" in error_of(CutGraph, BranchesOnValues().eval(), torch.ones(2))
    assert "in training mode: call its eval() first" in error_of(CutGraph, nn.Linear(2, 2), torch.ones(1, 2))
    assert "give one tensor" in error_of(CutGraph, nn.ReLU().eval(), [1.0])
    message = error_of(CutGraph, nn.Linear(2, 2).eval(), torch.ones(1, 3))
    assert "does not run on an example of shape [1, 3]" in message
    assert "a module with several inputs needs a wrapper" in error_of(CutGraph, AddsTwo().eval(), torch.ones(2))


class MutatesUnseen(nn.Module):
    """Its in-place result is never used by name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        view = y.view(-1)
        view.add_(1)
        return self.last(y)


def test_operations_in_place_whose_result_no_one_names_are_kept() -> None:
    module, x = MutatesUnseen().eval(), torch.ones(1, 3)
    graph = CutGraph(module, x)
    for point in graph.points:
        prefix, suffix = graph.split(point.index)
        assert torch.equal(suffix(prefix(x)), module(x)), point


# Counts against PyTorch, on tensors without values


def on_meta(name: str, side: int = 224, **named: Any) -> tuple[nn.Module, int]:
    """A network without values, and its FLOP by PyTorch's counter."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet works its widths out with tensors
        module = torchvision.models.get_model(name, weights=None, **named).eval()
        with FlopCounterMode(display=False) as counter:
            module(torch.empty(1, 3, side, side))
    return module, counter.get_total_flops()


IN_TORCHVISION = [name for name in NETWORKS if name in torchvision.models.list_models()]


def test_torchvision_has_six_of_the_layer_tables_networks() -> None:
    assert IN_TORCHVISION == ["alexnet", "vgg11", "vgg16", "resnet18", "mobilenet_v2", "regnet_x_400mf"]


@pytest.mark.parametrize("name", IN_TORCHVISION)
def test_layer_table_has_torchvisions_parameters_and_multiply_accumulates(name: str) -> None:
    module, flops = on_meta(name)
    table = layer_table(name)
    assert sum(layer.parameters for layer in table) == sum(p.numel() for p in module.parameters())
    assert 2 * sum(layer.macs for layer in table) == flops
    of_layers = dict(module.named_modules())
    for layer in table:
        if layer.kind in ("conv", "linear", "batchnorm"):
            assert layer.parameters == sum(p.numel() for p in of_layers[layer.name].parameters()), layer.name


def test_alexnet_with_ten_classes_has_1_4203_gflop_by_pytorchs_counter() -> None:
    _, flops = on_meta("alexnet", num_classes=10)
    assert round(flops / 1e9, 4) == 1.4203
    assert flops == 2 * sum(layer.macs for layer in layer_table("alexnet", num_classes=10))


def test_mobilenet_v2_has_300_8_million_macs_by_pytorchs_counter() -> None:
    assert round(on_meta("mobilenet_v2")[1] / 2e6, 1) == 300.8


# Channels of one layer over workers


@functools.cache
def layers_of(name: str) -> tuple[tuple[str, nn.Module, tuple[int, ...]], ...]:
    """Convolutions and linear layers of a network that differ, and what shape they read."""
    found: dict[str, tuple[str, nn.Module, tuple[int, ...]]] = {}

    def note(path: str, layer: nn.Module, inputs: Any) -> None:
        shape = tuple(inputs[0].shape)
        found.setdefault(f"{layer} {shape}", (path, layer, shape))

    hooks = [
        layer.register_forward_pre_hook(functools.partial(note, path))
        for path, layer in network(name).named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        network(name)(image(SIDES[name]))
    for hook in hooks:
        hook.remove()
    return tuple(found.values())


@pytest.mark.parametrize("name", SIDES)
def test_channels_of_every_layer_split_over_three_workers_give_the_layer(name: str) -> None:
    generator = torch.Generator().manual_seed(2)
    assert len(layers_of(name)) >= 8
    with torch.inference_mode():
        for path, layer, shape in layers_of(name):
            x = torch.randn(shape, generator=generator)
            workers = split_channels(layer, 3)
            parts = [worker(x) for worker in workers]
            torch.testing.assert_close(torch.cat(parts, workers[0].dim), layer(x), rtol=1e-5, atol=1e-5, msg=path)
            assert [part.shape[workers[0].dim] for part in parts] == [w.outputs.stop - w.outputs.start for w in workers]


@given(
    groups=st.sampled_from([1, 2, 3, 6]),
    given_a_group=st.integers(1, 4),
    read_a_group=st.integers(1, 2),
    num_workers=st.integers(1, 6),
    bias=st.booleans(),
    padding=st.sampled_from([(0, "zeros"), (1, "reflect"), ("same", "zeros")]),
)
def test_grouped_convolutions_split_anywhere_give_the_layer(
    groups: int, given_a_group: int, read_a_group: int, num_workers: int, bias: bool, padding: tuple[Any, str]
) -> None:
    inputs, outputs = groups * read_a_group, groups * given_a_group
    amount, mode = padding
    layer = nn.Conv2d(inputs, outputs, 3, padding=amount, padding_mode=mode, groups=groups, bias=bias, dilation=1)
    torch.manual_seed(4)
    x = torch.randn(2, inputs, 5, 6)
    with torch.inference_mode():
        workers = split_channels(layer, min(num_workers, outputs))
        torch.testing.assert_close(torch.cat([worker(x) for worker in workers], -3), layer(x), rtol=1e-5, atol=1e-5)
        unbatched = torch.cat([worker(x[0]) for worker in workers], workers[0].dim)
    torch.testing.assert_close(unbatched, layer(x[0]), rtol=1e-5, atol=1e-5)
    assert [worker.outputs.start for worker in workers[1:]] == [worker.outputs.stop for worker in workers[:-1]]


def test_a_worker_reads_only_the_groups_it_computes_and_has_its_own_weights() -> None:
    depthwise = nn.Conv2d(8, 8, 3, groups=8)
    workers = split_channels(depthwise, 2)
    assert [(worker.inputs, worker.outputs) for worker in workers] == [(slice(0, 4),) * 2, (slice(4, 8),) * 2]
    x = torch.randn(1, 8, 5, 5)
    x_without = x.clone()
    x_without[:, 4:] = torch.nan
    assert torch.equal(workers[0](x), workers[0](x_without))
    assert sum(p.numel() for p in workers[0].parameters()) == sum(p.numel() for p in depthwise.parameters()) // 2
    before = workers[0](x)
    with torch.no_grad():
        depthwise.weight.zero_()
    assert torch.equal(workers[0](x), before)


@pytest.mark.parametrize(
    ("layer", "num_workers", "said"),
    [
        (nn.Linear(3, 4), 0, "0 workers: give a whole number from 1 to 4"),
        (nn.Linear(3, 4), 5, "5 workers: give a whole number from 1 to 4"),
        (nn.Conv2d(3, 4, 1), 2.0, "2.0 workers"),
        (nn.ReLU(), 2, "a ReLU can't be split by channels"),
        (nn.ConvTranspose2d(3, 4, 1), 2, "a ConvTranspose2d can't be split by channels"),
        (nn.LazyLinear(3), 2, "a LazyLinear can't be split by channels"),
    ],
)
def test_channels_that_cannot_be_split_say_why(layer: nn.Module, num_workers: Any, said: str) -> None:
    assert said in error_of(split_channels, layer, num_workers)


# Early exits


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


@functools.cache
def multi_exit(threshold: float | tuple[float, ...]) -> MultiExit:
    torch.manual_seed(3)
    # Batch normalisation with these statistics spreads the logits: images leave at all exits.
    trunk = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(inplace=True)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.Conv2d(8, 16, 3)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
    ).eval()
    whole = MultiExit(trunk, image(12), {"5": head(16), "2": head(8)}, threshold)
    with torch.no_grad():
        for stage in whole.stages[:-1]:
            stage.head[-1].weight.mul_(8)
    return whole


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return 3 * image(12, batch=64) * torch.linspace(0, 2, 64)[:, None, None, None]


def test_each_image_leaves_at_the_first_exit_that_is_sure(images: torch.Tensor) -> None:
    whole = multi_exit((0.4, 0.3))
    with torch.inference_mode():
        answers, logits = whole(images.clone()), whole.all_logits(images.clone())
    assert answers.feature.shape[0] == 0
    sure = [each.softmax(-1).amax(-1) >= least for each, least in zip(logits, (0.4, 0.3, 0.0), strict=True)]
    first = torch.stack(sure).float().argmax(0)
    assert torch.equal(answers.exit, first) and set(first.tolist()) == {0, 1, 2}
    expected = torch.stack(logits)[first, torch.arange(len(images))]
    torch.testing.assert_close(answers.logits, expected, rtol=1e-4, atol=1e-5)  # the batches differ in size


def test_prefix_answers_early_and_suffix_the_rest_at_every_cut(images: torch.Tensor) -> None:
    whole = multi_exit((0.4, 0.3))
    with torch.inference_mode():
        expected = whole(images.clone())
        undecided = []
        for cut in range(len(whole.points)):
            prefix, suffix = whole.split(cut)
            between: Answers = prefix(images.clone())
            assert between.feature.shape[0] == (between.exit == UNDECIDED).sum()
            undecided.append(between.feature.shape[0])
            answers = suffix(between)
            assert torch.equal(answers.exit, expected.exit)
            assert torch.equal(answers.logits, expected.logits)
    assert undecided[0] == 64 and undecided[-1] == 0 and len(set(undecided)) == 4
    assert undecided == sorted(undecided, reverse=True)


def test_with_one_image_early_answers_are_the_heads_and_late_ones_the_networks(images: torch.Tensor) -> None:
    with torch.inference_mode():
        never, always = multi_exit(2.0), multi_exit(1e-9)
        for one in images[:4, None]:
            answers = never(one.clone())
            assert answers.exit.tolist() == [2] and torch.equal(answers.logits, never.all_logits(one.clone())[-1])
            answers = always(one.clone())
            assert answers.exit.tolist() == [0] and torch.equal(answers.logits, always.all_logits(one.clone())[0])
            prefix, _ = always.split("2")
            assert prefix(one.clone()).feature.shape == (0, 8, 10, 10), "nothing is left to send"


def test_a_prefix_holds_no_later_layers() -> None:
    prefix, suffix = multi_exit(0.9).split("4")
    in_prefix, in_suffix = ({id(p) for p in half.parameters()} for half in (prefix, suffix))
    assert len(in_prefix) == 6 and len(in_suffix) == 6 and not in_prefix & in_suffix


def test_heads_can_be_trained(images: torch.Tensor) -> None:
    whole = multi_exit(0.9)
    labels = torch.arange(64) % 10
    loss = sum(nn.functional.cross_entropy(logits, labels) for logits in whole.all_logits(images.clone()))
    loss.backward()
    assert all(parameter.grad is not None for parameter in whole.parameters())
    whole.zero_grad()


@pytest.mark.parametrize(
    ("heads", "threshold", "said"),
    [
        ({}, 0.9, "give one head or more"),
        ({0: head(3)}, 0.9, "each at its own cut between the input and the end"),
        ({"2": head(8), 3: head(8)}, 0.9, "each at its own cut"),
        ({"2": head(8)}, (0.9, 0.9), "thresholds (0.9, 0.9) for 1 exits"),
        ({"2": head(8)}, 0.0, "thresholds (0.0,) for 1 exits: give one above 0"),
        ({"2": head(7)}, 0.9, "the head at '2' does not fit [1, 8, 10, 10]"),
        ({"2": nn.Flatten()}, 0.9, "the head at '2' gives [1, 800]: make it [1, 10]"),
    ],
)
def test_heads_that_do_not_fit_say_why(heads: Any, threshold: Any, said: str) -> None:
    trunk = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    assert said in error_of(MultiExit, trunk.eval(), image(12), heads, threshold)


# Codec


@given(values=st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20))
def test_a_decoded_feature_is_off_by_half_a_step_at_most(values: list[float]) -> None:
    feature = torch.tensor(values)
    sent = encode(feature)
    assert sent.codes.dtype == torch.uint8 and sent.bits == 8 * len(values) + 64
    error = (decode(sent).double() - feature.double()).abs().max()
    assert error <= 0.5 * float(sent.step) + 4e-7 * float(feature.abs().max()) + 1e-38


def test_the_ends_of_the_range_and_a_constant_come_back() -> None:
    sent = encode(torch.tensor([[-2.0, 0.1, 3.0]]))
    torch.testing.assert_close(decode(sent)[0, [0, 2]], torch.tensor([-2.0, 3.0]))
    assert decode(encode(torch.full((2, 2), 7.25))).tolist() == [[7.25, 7.25], [7.25, 7.25]]
    assert decode(encode(torch.ones(3).half()), torch.float16).dtype == torch.float16


@pytest.mark.parametrize(
    "feature", [torch.tensor([1.0, torch.nan]), torch.tensor([torch.inf, 0.0]), torch.tensor([-3e38, 3e38])]
)
def test_a_feature_without_a_finite_range_is_refused(feature: torch.Tensor) -> None:
    assert "holds a NaN, an infinity or too wide a range" in error_of(encode, feature)


def test_a_feature_that_holds_no_floats_is_refused() -> None:
    assert "a feature [2] of torch.int64 can't be quantised" in error_of(encode, torch.arange(2))
    assert "a feature [0] of torch.float32 can't be quantised" in error_of(encode, torch.zeros(0))


def test_the_package_and_its_command_need_no_pytorch_until_they_run() -> None:
    code = "import mec_jax.split, algos.cli.profile, sys; sys.exit(any(m in sys.modules for m in ('torch', 'jax')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
