"""The networks that are pruned and cut, trained on a data set: one per network and data set, kept outside the tree."""

import json
from pathlib import Path

import platformdirs
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mec_jax.files import write_text
from mec_jax.split.images import Images
from mec_jax.split.networks import small_image_network
from mec_jax.split.training import accuracy, batches, fit

EPOCHS = {"alexnet": 3, "mobilenet_v2": 4, "regnet_x_400mf": 4, "resnet18": 3}
RATE = {"alexnet": 3e-4, "mobilenet_v2": 4e-3, "regnet_x_400mf": 4e-3, "resnet18": 2e-3}
DECAY = 1e-2
BATCH = 128
SHIFT = 2  # pixels
SEED = 0


def trained(network: str, images: Images, seed: int = SEED) -> nn.Module:
    """A network, trained on first use: some 20 minutes on two cores."""
    folder = Path(platformdirs.user_cache_dir("mec_jax")) / "networks"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{network}-{images.name}-{images.train.images.shape[-1]}-{seed}"
    weights, about = folder / f"{name}.safetensors", folder / f"{name}.json"
    module = small_image_network(network, len(images.classes), seed)
    if not about.exists():
        count = EPOCHS[network] * len(images.train.labels) // BATCH
        data = batches(images, count, BATCH, torch.Generator().manual_seed(seed), SHIFT)
        module.to(memory_format=torch.channels_last)  # RegNet trains in half the time
        fit(module, data, count, RATE[network], weight_decay=DECAY, bfloat16=True)
        module.to(memory_format=torch.contiguous_format)
        save_file(module.state_dict(), weights)
        found = {"accuracy": accuracy(module, images, images.test), "epochs": EPOCHS[network]}
        write_text(about, json.dumps(found) + "\n")
    module.load_state_dict(load_file(weights))
    return module.eval()
