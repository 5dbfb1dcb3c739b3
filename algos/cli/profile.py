"""`mec-jax profile`: imports PyTorch only when it runs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from algos.cli.console import console
from mec_jax.files import check_file, reason

__all__ = ["Profile"]

MAX_ELEMENTS = 2**28
"""Of an input: 1 GiB."""


@dataclass(frozen=True)
class Profile:
    """Measure a PyTorch network on this machine, cut by cut, and write a profile that the environments load."""

    model: Annotated[str, tyro.conf.Positional]
    """A network that torchvision knows, e.g. resnet18 (with random weights), or file.py:factory, a function there that
    returns an nn.Module."""
    cuts: tuple[str, ...] | None = None
    """Where to cut: names of layers or of modules that end there, e.g. maxpool layer2; `all`; or `useful`, where fewer
    bits are sent than anywhere before, which is the default without codecs. With codecs it is their cuts alone."""
    codec: tuple[Path, ...] = ()
    """Files of trained codecs (.safetensors), each for a cut of this network at this image size: what they send is
    what the profile says. At other cuts a feature is sent with 8 bits an element."""
    out: Path = Path("profile.json")
    """The profile to write. Beside it, in a .csv, comes all that was measured."""
    power: float = 5.0
    """W while the UE computes. It is taken from here, not measured; 5 is assumed."""
    image: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of the input."""
    repeats: int = 30
    """Measurements of each cut; the median counts."""
    warm_up: int = 3
    """Runs before them that don't count."""
    threads: int = 1
    """Threads on the CPU."""
    device: str = "cpu"
    """Where PyTorch computes, e.g. cuda."""

    def run(self) -> None:
        """Measure, write, and print the table."""
        try:
            import torch

            from mec_jax.split.autoencoder import codecs_for, load_codec
            from mec_jax.split.graph import CutGraph
            from mec_jax.split.profile import check_repeats, choose_cuts, load_module, measure, write_profile
        except ModuleNotFoundError as error:
            raise ValueError(
                f"profile needs PyTorch (no module {error.name!r}): pip install 'mec_jax[torch]'"
            ) from None

        check_file(self.out, "--out", (".json",))
        check_file(self.out.with_suffix(".csv"))
        if min(self.image) < 1 or math.prod(self.image) > MAX_ELEMENTS:
            raise ValueError(
                f"--image is {self.image}: give three whole numbers of at least 1, with a product of at most "
                f"{MAX_ELEMENTS}"
            )
        check_repeats(self.repeats, self.warm_up, self.threads)
        if not 0 < self.power < math.inf:
            raise ValueError(f"--power is {self.power}: it must be a finite number of W above 0")
        try:
            torch.rand(1, device=self.device).tolist()
        except Exception as error:  # an unknown device, one that is not there, or one that does not compute
            raise ValueError(f"--device {self.device} does not work ({reason(error)}): try cpu") from None
        trained = [load_codec(path) for path in self.codec]
        example = torch.rand(1, *self.image, device=self.device)
        graph = CutGraph(load_module(self.model).to(self.device), example)
        codecs = codecs_for(graph, trained)
        for each in trained:
            each.codec.to(self.device)
        own = [graph.points[index].name for index in sorted(codecs)]
        points = choose_cuts(graph, self.cuts if self.cuts is not None else own or ("useful",))
        if left := [graph.points[index].name for index in codecs if graph.points[index] not in points]:
            raise ValueError(f"there is a codec for {left[0]!r}, which is not among the cuts: add it to --cuts")
        with console.status(f"measuring {len(points) + 1} points"):
            measurement = measure(graph, example, points, self.repeats, self.warm_up, self.threads, codecs)
        name = self.model.rpartition(":")[2]
        csv = write_profile(self.out, name, measurement, self.power)

        table = Table(
            title=f"{name} on {measurement.machine}",
            caption="Median (interquartile range). FLOP: 2 for a multiply-accumulate. MB: parameters, activations.",
            box=SIMPLE_HEAD,
        )
        table.add_column("cut after")
        for header in ("kbit", "prefix ms", "encoder ms", "MFLOP", "MB", "mJ"):
            table.add_column(header, justify="right", no_wrap=True)
        table.add_row("input", f"{8e-3 * measurement.image.elements:.1f}", *["0"] * 5)
        for cost in measurement.costs:
            table.add_row(
                cost.point.name,
                f"{cost.bits / 1e3:.1f}",
                *(f"{1e3 * times.median:.2f} ({1e3 * times.spread:.2f})" for times in (cost.prefix, cost.encoder)),
                f"{cost.flops / 1e6:.1f}",
                f"{cost.memory / 1e6:.1f}",
                f"{1e3 * self.power * cost.time:.1f}",
            )
        console.print(table)
        console.print(f"profile: {self.out}, all that was measured: {csv}")
