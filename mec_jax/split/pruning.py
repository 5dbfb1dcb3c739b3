"""Structured pruning: takes whole filters out of a network, as many as the sparsity of each of its units says.

Which filters: those of least L1 norm (Li et al. 2017), or those nearest to all others (the geometric median: He et al.
2019, FPGM). What leaves with them - the next layers' inputs, batch normalisation, the other side of a shortcut -
torch-pruning finds. Its own FPGM importance (1.6.1) fails on grouped convolutions, hence the one here, which both use.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
import torch_pruning
from torch import nn

from mec_jax.files import check_choice
from mec_jax.profiles.compression import Compressible, Unit

__all__ = ["CRITERIA", "counted_flops", "prune"]


def l1(filters: torch.Tensor) -> torch.Tensor:
    """L1 norm of each filter, [filter] of [filter, weight]."""
    return filters.abs().sum(1)


def geometric_median(filters: torch.Tensor) -> torch.Tensor:
    """Sum of distances from each filter to all others: the least stands for its neighbours best, and goes first."""
    return torch.cdist(filters, filters).sum(1)


CRITERIA: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType({"l1": l1, "fpgm": geometric_median})
"""How much each filter counts, by the name of the criterion."""


def prune(
    module: nn.Module,
    space: Compressible,
    sparsity: Sequence[float],
    example: torch.Tensor,
    criterion: str = "l1",
) -> nn.Module:
    """A copy of a network without the filters that count least, whose parameters can be trained, frozen ones too.

    Args:
        module: A network with the layers of `space`, in evaluation mode; it stays as it is.
        space: What can be pruned.
        sparsity: Of each unit, 0 <= psi < 1.
        example: An input of the network, for the dependencies.
        criterion: "l1" or "fpgm". All filters are judged before any leaves.

    Raises:
        ValueError: If there is no such criterion, a sparsity is out of range or missing, or a layer is not there.
    """
    counts = CRITERIA[check_choice("criterion", criterion, CRITERIA)]
    widths = space.widths(sparsity)
    module = copy.deepcopy(module).eval().requires_grad_()  # without gradients no dependencies are found
    layers = dict(module.named_modules())
    for unit in space.units:
        for name in unit.layers:
            found = layers.get(name)
            width = getattr(found, "out_channels", getattr(found, "out_features", None))
            if width != unit.channels:
                raise ValueError(
                    f"{type(module).__name__} has no layer {name!r} of {unit.channels} channels: give {space.network}"
                )
    graph = torch_pruning.DependencyGraph()
    with torch.enable_grad():  # it follows the gradients
        graph.build_dependency(module, example.clone())
    leaving = [_leaving(graph, layers, unit, widths[unit.layers[0]], counts) for unit in space.units]
    for chosen in leaving:
        for name, indices in chosen.items():
            if indices:
                group = graph.get_pruning_group(layers[name], _out(layers[name]), idxs=indices)
                group.prune()
    return module


def counted_flops(module: nn.Module, example: torch.Tensor) -> dict[str, int]:
    """FLOPs of each convolution and linear layer of a module at work on one image, counted on the module itself.

    By Table I of Mu et al. 2024, as `mec_jax.profiles.layers.layer_table` does from a description.
    """
    counted: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def hook(layer: nn.Module, _: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if isinstance(layer, nn.Conv2d):
                window = layer.weight[0].numel()
                counted[name] = 2 * (window + 1) * output[0].numel()
            else:
                counted[name] = (2 * layer.weight.shape[1] - 1) * output[0].numel()

        return hook

    hooks = [
        layer.register_forward_hook(note(name))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.inference_mode():
            module(example.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def _out(layer: nn.Module) -> Callable[..., nn.Module]:
    if isinstance(layer, nn.Linear):
        return torch_pruning.prune_linear_out_channels
    return torch_pruning.prune_conv_out_channels


def _leaving(
    graph: torch_pruning.DependencyGraph,
    layers: Mapping[str, nn.Module],
    unit: Unit,
    kept: int,
    counts: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, list[int]]:
    """Channels that leave each group of tied layers of a unit, by the name of a layer of the group."""
    width, places = unit.channels // unit.groups, torch.arange(unit.channels)
    done: set[str] = set()
    leaving = {}
    for name in unit.layers:
        if name in done:
            continue
        group = graph.get_pruning_group(layers[name], _out(layers[name]), idxs=places.tolist())
        tied = {
            id(dependency.target.module)
            for dependency, _ in group
            if graph.is_out_channel_pruning_fn(dependency.handler)
        }
        members = [other for other in unit.layers if id(layers[other]) in tied]
        done.update(members)
        importance = sum(_relative(counts(layers[other].weight.detach().flatten(1))) for other in members)
        # A grouped convolution has one weight for the same place in each group: the same places leave all of them.
        importance = importance.view(unit.groups, width).mean(0)
        first = importance.argsort(stable=True)[: width - kept // unit.groups].sort().values
        leaving[name] = (torch.arange(unit.groups)[:, None] * width + first).flatten().tolist()
    return leaving


def _relative(importance: torch.Tensor) -> torch.Tensor:
    """So that layers that are tied together count alike."""
    return importance / importance.mean().clamp_min(1e-12)
