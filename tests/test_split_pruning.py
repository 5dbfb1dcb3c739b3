"""Pruning: the filters that leave are those that count least, and what is left costs what the tables say."""

import math

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from mec_jax.profiles.compression import COMPRESSIBLE, Compressible, compressible
from mec_jax.split.graph import CutGraph
from mec_jax.split.networks import STEMS, small_image_network
from mec_jax.split.pruning import counted_flops, geometric_median, l1, prune
from tests.errors import error_of
from tests.tolerance import ROUNDING

pytestmark = pytest.mark.slow

SMALL = torch.zeros(1, 3, 32, 32)


@pytest.fixture(scope="module", params=COMPRESSIBLE)
def space(request: pytest.FixtureRequest) -> Compressible:
    return compressible(request.param)


@pytest.fixture(scope="module")
def network(space: Compressible) -> nn.Module:
    return small_image_network(space.network, space.num_classes, 0)


def sparsities(space: Compressible, seed: int) -> list[float]:
    return np.random.default_rng(seed).uniform(0, 0.95, len(space.units)).tolist()


@pytest.mark.parametrize("seed", [0, 1])
def test_flops_counted_on_the_pruned_module_are_those_of_table_i(
    space: Compressible, network: nn.Module, seed: int
) -> None:
    """With the first stride as published, at 224 x 224."""
    published = torchvision.models.get_model(space.network, weights=None, num_classes=10).eval()
    psi = sparsities(space, seed)
    pruned = prune(published, space, psi, torch.zeros(1, 3, 224, 224))
    table = {layer.name: layer.flops for layer in space.pruned(psi) if layer.kind in ("conv", "linear")}
    assert counted_flops(pruned, torch.zeros(1, 3, 224, 224)) == table
    assert sum(p.numel() for p in pruned.parameters()) == sum(layer.parameters for layer in space.pruned(psi))


def test_features_of_the_pruned_module_are_as_large_as_table_i_says(space: Compressible) -> None:
    published = torchvision.models.get_model(space.network, weights=None, num_classes=10).eval()
    psi = sparsities(space, 2)
    graph = CutGraph(prune(published, space, psi, torch.zeros(1, 3, 224, 224)), torch.zeros(1, 3, 224, 224))
    layers = space.pruned(psi)
    for cut in space.cuts[1:-1]:
        layer = layers[cut - 1]
        assert graph.point(layer.name).elements == layer.output_elements, layer.name


@pytest.mark.parametrize(
    ("name", "criterion"),
    [("alexnet", "l1"), ("regnet_x_400mf", "l1"), ("regnet_x_400mf", "fpgm")],  # AlexNet's distances take a minute
)
def test_filters_that_do_nothing_leave_first_and_nothing_changes(name: str, criterion: str) -> None:
    """Filters of zeros, and what follows them: without them the network computes the same. To the geometric median
    they are alike, and the others far from them.
    """
    space = compressible(name)
    emptied = small_image_network(space.network, 10, 1)
    with torch.no_grad():
        layers = dict(emptied.named_modules())
        for unit in space.units:
            width = unit.channels // unit.groups
            gone = [group * width + place for group in range(unit.groups) for place in range(0, width, 4)]
            for name in unit.layers:
                layers[name].weight[gone] = 0
                if layers[name].bias is not None:
                    layers[name].bias[gone] = 0
                norm = layers.get(f"{name.rpartition('.')[0]}.1") if space.network != "alexnet" else None
                if isinstance(norm, nn.BatchNorm2d):
                    norm.weight[gone], norm.bias[gone] = 0.0, 0.0
    left = prune(emptied, space, [0.25] * len(space.units), SMALL, criterion)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        before, after = emptied.double()(x), left.double()(x)
    # Float64 sums of the same numbers in another order: at most 9216 terms in each of some 70 layers.
    bound = 9216 * 70 * torch.finfo(torch.float64).eps * before.abs().max()
    assert before.std() > 0 and (before - after).abs().max() <= bound
    assert sum(p.numel() for p in left.parameters()) < 0.7 * sum(p.numel() for p in emptied.parameters())


def test_each_criterion_on_filters_by_hand() -> None:
    filters = torch.tensor([[3.0, -4.0], [0.0, 0.0], [3.0, 4.0]])
    assert l1(filters).tolist() == [7, 0, 7]
    # To the others: 5 + 8, 5 + 5, 8 + 5.
    assert geometric_median(filters).tolist() == pytest.approx([13, 10, 13], rel=4 * ROUNDING)


def test_the_network_that_is_pruned_stays_as_it_is(space: Compressible, network: nn.Module) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prune(network, space, [0.5] * len(space.units), SMALL)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_frozen_network_is_pruned_like_any() -> None:
    space = compressible("regnet_x_400mf")
    frozen = small_image_network(space.network, 10, 0).requires_grad_(False)
    with torch.no_grad():
        pruned = prune(frozen, space, [0.5] * len(space.units), SMALL)
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in frozen.parameters())
    assert all(p.requires_grad for p in pruned.parameters()) and not any(p.requires_grad for p in frozen.parameters())


def test_what_does_not_fit_is_refused(space: Compressible, network: nn.Module) -> None:
    units = len(space.units)
    assert "give one each" in error_of(prune, network, space, [0.5] * (units - 1), SMALL)
    for wrong in (1.0, -0.1, math.nan):
        assert "leaves no filter" in error_of(prune, network, space, [wrong] + [0.5] * (units - 1), SMALL)
    assert "did you mean 'fpgm'" in error_of(prune, network, space, [0.5] * units, SMALL, "fpgn")
    other = small_image_network("resnet18", 10, 0)
    assert f"give {space.network}" in error_of(prune, other, space, [0.5] * units, SMALL)


def test_a_network_for_small_images_has_the_weights_of_the_published_one() -> None:
    for name in STEMS:
        published = torchvision.models.get_model(name, weights=None, num_classes=7).state_dict()
        ours = small_image_network(name, 7, 0).state_dict()
        assert {key: value.shape for key, value in ours.items()} == {
            key: value.shape for key, value in published.items()
        }
    assert "did you mean 'alexnet'" in error_of(small_image_network, "alexnett", 10, 0)
