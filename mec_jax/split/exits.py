"""Early exits: a network that answers as soon as it is sure enough.

An exit is a head, a small classifier, on the tensor at a cut point. An image leaves at the first exit whose softmax is
at least as high as a threshold for some class (Teerapittayanon et al. 2016, BranchyNet, with the largest probability in
place of the entropy); the network's own output is the last exit and always answers.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from mec_jax.split.graph import CutGraph

__all__ = ["UNDECIDED", "Answers", "MultiExit"]

UNDECIDED = -1
"""Exit of an image that none has answered."""


class Answers(NamedTuple):
    """What is known of a batch after some exits."""

    logits: torch.Tensor  # [batch, class]; 0 where no exit has answered
    exit: torch.Tensor  # [batch] int64, the exit that answered, UNDECIDED if none has
    feature: torch.Tensor  # [images undecided, ...] what goes on, in the batch's order


class MultiExit(nn.Module):
    """A classifier with early exits.

    Exits are counted from 0 in the network's order; the last one is the network's own output. To train the heads, or
    all, call `train()`, which also switches the layers of `module`, and fit `all_logits`.

    Args:
        module: A classifier in evaluation mode that gives logits, [batch, class]; its parameters are shared.
        example: An input, for the shapes.
        heads: At each cut, by index or name as in `CutGraph`, a module that turns the tensor there into logits.
        threshold: Least probability of an answer, one for all early exits or one for each in the network's order. Above
            1, no image leaves early.

    Attributes:
        points: The cut points of the network.

    Raises:
        ValueError: If the module can't be cut so, a head does not fit, or the thresholds are not as many as heads.
    """

    def __init__(
        self,
        module: nn.Module,
        example: torch.Tensor,
        heads: Mapping[int | str, nn.Module],
        threshold: float | tuple[float, ...] = 0.9,
    ) -> None:
        super().__init__()
        self._graph = CutGraph(module, example)
        self.points = self._graph.points
        last = len(self.points) - 1
        placed = sorted(((self._graph.point(cut).index, head) for cut, head in heads.items()), key=lambda pair: pair[0])
        cuts = [cut for cut, _ in placed]
        if not cuts or len(set(cuts)) < len(cuts) or cuts[0] == 0 or cuts[-1] == last:
            raise ValueError("give one head or more, each at its own cut between the input and the end")
        thresholds = threshold if isinstance(threshold, tuple) else (threshold,) * len(cuts)
        if len(thresholds) != len(cuts) or not all(value > 0 for value in thresholds):
            raise ValueError(f"thresholds {thresholds} for {len(cuts)} exits: give one above 0, or one for each")
        self._stops = [*cuts, last]  # where the stages end
        self.stages = nn.ModuleList(
            _Stage(self._graph.segment(start, stop), index, head, sure)
            for index, (start, stop, head, sure) in enumerate(
                zip((0, *cuts), self._stops, (*(head for _, head in placed), None), (*thresholds, 0.0), strict=True)
            )
        )
        self.eval()
        with torch.no_grad():
            shape = module(example.clone()).shape
        self._check_heads(example, shape)
        self.start = _Start(shape[-1])

    def _check_heads(self, feature: torch.Tensor, shape: torch.Size) -> None:
        for stop, stage in zip(self._stops[:-1], self.stages, strict=False):
            name = self.points[stop].name
            with torch.no_grad():
                feature = stage.layers(feature.clone())
                try:
                    logits = stage.head(feature.clone())
                except RuntimeError as error:
                    raise ValueError(f"the head at {name!r} does not fit {list(feature.shape)}: {error}") from None
            if logits.shape != shape:
                raise ValueError(
                    f"the head at {name!r} gives {list(logits.shape)}: make it {list(shape)}, as the network"
                )

    def all_logits(self, x: torch.Tensor) -> list[torch.Tensor]:
        """The logits of every exit, [batch, class] each."""
        logits = []
        for stage in self.stages:
            x = stage.layers(x)
            logits.append(stage.logits(x))
        return logits

    def forward(self, x: torch.Tensor) -> Answers:
        """Answers of a batch; none is undecided."""
        answers = self.start(x)
        for stage in self.stages:
            answers = stage(answers)
        return answers

    def split(self, cut: int | str) -> tuple[nn.Module, nn.Module]:
        """Prefix, from images to `Answers`, and suffix, from those to final ones, at any cut.

        The prefix has the exits up to the cut and may answer early: when its feature is empty, nothing is left to send.
        `suffix(prefix(x))` is `forward(x)`.

        Raises:
            ValueError: If there is no such cut.
        """
        point = self._graph.point(cut).index
        done = sum(stop <= point for stop in self._stops)
        prefix = [self.start, *self.stages[:done]]
        suffix = list(self.stages[done:])
        if suffix:
            whole = suffix[0]
            begin = self._stops[done - 1] if done else 0
            prefix.append(_Stage(self._graph.segment(begin, point)))
            rest = self._graph.segment(point, self._stops[done])
            suffix[0] = _Stage(rest, whole.index, whole.head, whole.threshold)
        return nn.Sequential(*prefix).eval(), nn.Sequential(*suffix).eval()


class _Start(nn.Module):
    """Before the first layer nothing is decided."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: torch.Tensor) -> Answers:
        undecided = torch.full(x.shape[:1], UNDECIDED, dtype=torch.int64, device=x.device)
        return Answers(torch.zeros((len(x), self.num_classes), dtype=x.dtype, device=x.device), undecided, x)


class _Stage(nn.Module):
    """Layers and the exit after them: by its head, without one by what the layers give; no exit if `index` is None."""

    def __init__(
        self, layers: nn.Module, index: int | None = None, head: nn.Module | None = None, threshold: float = 0.0
    ) -> None:
        super().__init__()
        self.layers, self.index, self.head, self.threshold = layers, index, head, threshold

    def logits(self, feature: torch.Tensor) -> torch.Tensor:
        # The head may work in place, and the feature goes on.
        return feature if self.head is None else self.head(feature.clone())

    def forward(self, answers: Answers) -> Answers:
        if len(answers.feature) == 0:  # some layers refuse an empty batch
            return answers
        answers = answers._replace(feature=self.layers(answers.feature))
        if self.index is None:
            return answers
        logits = self.logits(answers.feature)
        if self.head is None:
            sure = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        else:
            sure = logits.softmax(-1).amax(-1) >= self.threshold
        leaving = (answers.exit == UNDECIDED).nonzero()[:, 0][sure]
        return Answers(
            answers.logits.index_copy(0, leaving, logits[sure]),
            answers.exit.index_fill(0, leaving, self.index),
            answers.feature[~sure] if sure.any() else answers.feature,
        )
