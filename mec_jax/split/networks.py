"""torchvision's networks for small images: same weights, another stride in the first layer.

At 32 x 32 AlexNet's first convolution (stride 4) leaves too little for the poolings after it, and RegNetX's five
halvings leave one pixel. With stride 1 in the first convolution both fit, and every weight keeps the shape that
torchvision gives it: pruning, FLOPs at 224 x 224 and files are those of the network as published; what is measured on
small images is accuracy.
"""

import torch
import torchvision
from torch import nn

from mec_jax.files import did_you_mean

__all__ = ["STEMS", "small_image_network"]

STEMS = {"alexnet": "features.0", "mobilenet_v2": "features.0.0", "regnet_x_400mf": "stem.0", "resnet18": "conv1"}
"""First convolution of each network, whose stride becomes 1."""


def small_image_network(network: str, num_classes: int, seed: int) -> nn.Module:
    """A network with random weights whose first convolution has stride 1, in evaluation mode.

    Args:
        network: One of `STEMS`.
        num_classes: Outputs.
        seed: Of the weights.

    Raises:
        ValueError: If there is no such network.
    """
    if network not in STEMS:
        raise ValueError(f"no network {network!r}: {did_you_mean(network, STEMS)}use one of {', '.join(STEMS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = torchvision.models.get_model(network, weights=None, num_classes=num_classes)
    module.get_submodule(STEMS[network]).stride = (1, 1)
    return module.eval()
