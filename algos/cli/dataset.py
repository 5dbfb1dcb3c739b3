"""`mec-jax dataset`: imports PyTorch only when it runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

from algos.cli.console import console

if TYPE_CHECKING:
    import torch

__all__ = ["Dataset"]

_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class Dataset:
    """Show the image data sets that codecs and pruned networks are trained on, whether they are there, and how to get
    them; of one, load it and say what it holds.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """A data set's name, or `folder` for any folder of images with a subfolder for each class."""
    folder: Path | None = None
    """Where it is; by default where its package would put it, or data/."""
    side: int = 32
    """Pixels: smaller images get a black margin, larger ones are resized."""

    def run(self) -> None:
        """Print the table, or what the data set holds."""
        try:
            from mec_jax.split import images
        except ModuleNotFoundError as error:
            raise ValueError(
                f"dataset needs PyTorch (no module {error.name!r}): pip install 'mec_jax[torch]'"
            ) from None

        if self.name is None:
            table = Table("data set", "there", "looked for in", "how to get it", title="data sets", box=SIMPLE_HEAD)
            for name in images.DATASETS:
                default = images.default_folder(name)
                where = default if default is None or self.folder is None else self.folder
                # A folder that happens to be called data/ is no data set.
                there = images.is_there(name, self.folder) and not (name == "folder" and self.folder is None)
                shown = "scikit-learn" if where is None else str(where)
                table.add_row(name, "yes" if there else "no", shown, images.how_to_get(name))
            console.print(table)
            console.print("`mec-jax dataset NAME` loads one and says what it holds, `--folder` says where it is")
            return
        with console.status(f"reading {self.name}"):
            found = images.load_images(self.name, self.side, self.folder)
        shape = " x ".join(map(str, found.train.images.shape[1:]))
        console.print(
            f"{found.name}: {len(found.train.labels)} images to train on, {len(found.test.labels)} to test on"
        )
        console.print(f"each {shape}, mean {_each(found.mean)}, standard deviation {_each(found.deviation)}, of 0 to 1")
        more = len(found.classes) - _SHOWN_CLASSES
        names = ", ".join(found.classes[:_SHOWN_CLASSES]) + (f" and {more} more" if more > 0 else "")
        console.print(f"{len(found.classes)} classes: {names}")


def _each(channels: "torch.Tensor") -> str:
    return ", ".join(f"{value:.3f}" for value in channels.flatten().tolist())
