"""Training, fine-tuning and testing of classifiers on images that fit into memory."""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from mec_jax.split.images import Images, Labelled

__all__ = ["Batch", "accuracy", "batches", "fit"]

type Batch = tuple[torch.Tensor, torch.Tensor]
"""Inputs [image, 3, side, side] and labels [image]."""


def batches(images: Images, count: int, batch: int, generator: torch.Generator, shift: int = 0) -> Iterator[Batch]:
    """Batches of the training images, in epochs each in a random order.

    Args:
        images: The data set.
        count: Batches.
        batch: Images in each.
        generator: Of the order and the changes.
        shift: If above 0, each batch is mirrored every second time and moved by up to so many pixels.
    """
    part = images.train
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(count):
        while len(order) < batch:
            order = torch.cat([order, torch.randperm(len(part.labels), generator=generator)])
        taken, order = order[:batch], order[batch:]
        inputs = images.inputs(part.images[taken])
        if shift:
            if torch.rand((), generator=generator) < 0.5:
                inputs = inputs.flip(-1)
            moves = torch.randint(-shift, shift + 1, (2,), generator=generator).tolist()
            inputs = torch.roll(inputs, moves, (-2, -1))
        yield inputs, part.labels[taken]


def fit(
    module: nn.Module,
    data: Iterator[Batch],
    count: int,
    rate: float,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = functional.cross_entropy,
    parameters: Callable[[nn.Module], Iterator[nn.Parameter]] = nn.Module.parameters,
    weight_decay: float = 0.0,
    bfloat16: bool = False,
) -> None:
    """Trains a classifier with Adam, whose rate falls to 0 over the batches by a cosine after a short rise.

    Args:
        module: It is changed, and left in evaluation mode.
        data: At least `count` batches.
        count: Batches to take.
        rate: Largest learning rate.
        loss: Of the outputs and the labels.
        parameters: Which of the module's are trained.
        weight_decay: Of AdamW.
        bfloat16: Multiply in bfloat16, which takes half the time where a processor has instructions for it.
    """
    trained = list(parameters(module))
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=count + 1, pct_start=0.15)
    module.train()
    for _ in range(count):
        inputs, labels = next(data)
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            found = loss(module(inputs), labels)
        found.backward()
        optimiser.step()
        schedule.step()
    module.eval()


@torch.inference_mode()
def accuracy(module: nn.Module, images: Images, part: Labelled, batch: int = 256) -> float:
    """Share of images whose class has the largest output."""
    right = 0
    for start in range(0, len(part.labels), batch):
        inputs = images.inputs(part.images[start : start + batch])
        right += int((module(inputs).argmax(-1) == part.labels[start : start + batch]).sum())
    return right / len(part.labels)
