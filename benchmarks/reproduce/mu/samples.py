"""Accuracies of networks that were really pruned, cut, given a codec and trained again: what predictors are fitted to.

    python -m benchmarks.reproduce.mu.samples alexnet            # 300 networks, some 15 s each on two cores
    python -m benchmarks.reproduce.mu.samples regnet_x_400mf     # 150
    python -m benchmarks.reproduce.mu.samples alexnet 150 300    # some of them, beside another run

Each network is a line for a channel without errors and one for a channel with noise. A run that was stopped goes on
where it was; networks are drawn by their number, so that any number of runs make the same table. `OMP_NUM_THREADS=1`
before it leaves cores to what runs beside it.
"""

import csv
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.harness.machine import commit, machine
from benchmarks.harness.networks import trained
from benchmarks.harness.results import command_line
from benchmarks.reproduce.mu.regressors import samples_table
from mec_jax.files import write_text
from mec_jax.profiles.compression import MAX_SPARSITY, NO_CODEC, SETTINGS, Compressible, Setting, compressible
from mec_jax.split.compress import Compressed, Recipe, compress
from mec_jax.split.images import Images, Labelled, load_images
from mec_jax.split.training import accuracy

NUMBERS = {"alexnet": 300, "regnet_x_400mf": 150}
# At rates at which much is repaired, what was hardly damaged gets worse: unpruned, AlexNet goes from 89.0 % to 86.6 %
# at 2e-4, to 88.0 % at 1e-4, and stays at 5e-5; RegNet from 89.8 % to 86.8 % at 1e-3, 88.4 % at 5e-4, 89.2 % at 2e-4.
RECIPES = {
    "alexnet": Recipe(rate=5e-5, finetune=24, joint=12, bfloat16=True),
    "regnet_x_400mf": Recipe(rate=2e-4, finetune=24, joint=12, bfloat16=True),
}
MILD = {"alexnet": 1, "regnet_x_400mf": 2}
"""Power of the uniform number that bounds a network's sparsities: where there are more units, they cost more."""
TESTED = 2500  # of the test images; the others are for what is chosen by a predictor
NO_NOISE = 60.0  # dB: how a table says that all bits arrive


class Drawn(NamedTuple):
    """What is done to one network."""

    sparsity: tuple[float, ...]
    cut: int
    codec: tuple[float, ...]
    snr: float  # dB


def draw(space: Compressible, number: int) -> Drawn:
    """The network of this number; the first is the network as it is, trained as long.

    Sparsities and codecs are gentle in some networks and hard in others, as what keeps the accuracy is wanted most.
    """
    units, inner = len(space.units), space.cuts[1:-1]
    if number == 0:
        return Drawn((0.0,) * units, inner[0], NO_CODEC, NO_NOISE)
    rng = np.random.default_rng([2024, number])
    most = MAX_SPARSITY * rng.random() ** MILD[space.network]
    sparsity = rng.uniform(0, most, units) * (rng.random(units) > 0.1)
    cut = int(rng.choice(inner))
    codec = tuple(_setting(setting, rng) for setting in SETTINGS) if rng.random() > 0.15 else NO_CODEC
    return Drawn(tuple(sparsity.round(4).tolist()), cut, _effective(space, cut, codec), round(rng.uniform(0, 50), 2))


def _setting(setting: Setting, rng: np.random.Generator) -> float:
    if setting.choices:
        return float(rng.choice(setting.choices))
    return round(float(np.exp(rng.uniform(np.log(setting.least), np.log(setting.most)))), 6)


def _effective(space: Compressible, cut: int, codec: Sequence[float]) -> tuple[float, ...]:
    """Settings that a feature has no use for, as if there were no codec."""
    flat = len(space.layers[cut - 1].output_shape) == 1
    return (*NO_CODEC[:4], *codec[4:]) if flat else (*codec[:4], *NO_CODEC[4:])


def measured(base: nn.Module, space: Compressible, drawn: Drawn, images: Images, number: int) -> dict[float, float]:
    """Accuracy by signal-to-noise ratio."""
    snr = None if drawn.snr == NO_NOISE else drawn.snr
    found = compress(base, space, drawn.sparsity, drawn.cut, drawn.codec, images, RECIPES[space.network], number, snr)
    if found.codec is None:  # nothing or the input is sent
        return {NO_NOISE: accuracy(found, images, tested(images))}
    return over_channels(found, images, tested(images), sorted({NO_NOISE, drawn.snr}, reverse=True), number)


def tested(images: Images) -> Labelled:
    """The images that every network of the table is tested on."""
    return images.test.some(slice(TESTED))


@torch.inference_mode()
def over_channels(
    found: Compressed, images: Images, part: Labelled, snrs: Sequence[float], seed: int, batch: int = 256
) -> dict[float, float]:
    """Accuracy by signal-to-noise ratio, of features that are computed once."""
    assert found.codec is not None
    right = dict.fromkeys(snrs, 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(part.labels), batch):
            feature = found.prefix(images.inputs(part.images[start : start + batch]))
            for snr in snrs:
                found.codec.snr = None if snr == NO_NOISE else snr
                classes = found.suffix(found.codec(feature)).argmax(-1)
                right[snr] += int((classes == part.labels[start : start + batch]).sum())
    found.codec.snr = None
    return {snr: count / len(part.labels) for snr, count in right.items()}


def columns(space: Compressible) -> list[str]:
    units = [f"sparsity/{unit.name}" for unit in space.units]
    settings = [setting.name for setting in SETTINGS]
    return ["number", *units, "cut", *settings, "snr_db", "accuracy", "seconds", "base"]


def main(network: str, data: str, numbers: range) -> None:
    space, images, path = compressible(network), load_images(data), samples_table(network, data)
    path.parent.mkdir(parents=True, exist_ok=True)
    base = trained(network, images)
    digest = noted(path, base, space, images)
    done = numbers_in(path)
    for number in (number for number in numbers if number not in done):
        start, drawn = time.perf_counter(), draw(space, number)
        accuracies = measured(base, space, drawn, images, number)
        append(path, space, number, drawn, accuracies, time.perf_counter() - start, digest)


def numbers_in(path: Path) -> set[int]:
    """The networks of a table."""
    return {int(row["number"]) for row in csv.DictReader(path.open(newline=""))} if path.exists() else set()


def append(
    path: Path,
    space: Compressible,
    number: int,
    drawn: Drawn,
    accuracies: Mapping[float, float],
    seconds: float,
    digest: str,
) -> None:
    """Add a network's lines to a table, in one write."""
    fixed = [number, *drawn.sparsity, drawn.cut, *drawn.codec]
    lines = [[*fixed, snr, share, round(seconds, 1), digest] for snr, share in accuracies.items()]
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns(space), *lines] if is_new else lines)
    print(number, accuracies, round(seconds, 1), flush=True)


def noted(path: Path, base: nn.Module, space: Compressible, images: Images) -> str:
    """The digest of a base network, after a note beside a table of what it is."""
    digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in base.state_dict().values())).hexdigest()[:12]
    note(path.with_suffix(".json"), digest, accuracy(base, images, tested(images)), space, images)
    return digest


def note(path: Path, digest: str, base_accuracy: float, space: Compressible, images: Images) -> None:
    """Where the rows come from: one entry for each base network, as another machine trains another one."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found[digest] = {
        "network": f"{space.network} of torchvision, first convolution with stride 1",
        "images": f"{images.name}, {images.train.images.shape[-1]} x {images.train.images.shape[-1]}",
        "test_accuracy": base_accuracy,
        "tested": TESTED,
        "recipe": asdict(RECIPES[space.network]),
        "machine": machine(),
        "torch": torch.__version__,
        "commit": commit(),
    }
    write_text(path, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("network", choices=NUMBERS)
    parser.add_argument("first", nargs="?", type=int, default=0, help="number of a network (default: 0)")
    parser.add_argument("end", nargs="?", type=int, help="the one behind the last (default: as many as were planned)")
    args = parser.parse_args()
    main(args.network, "fashion-mnist", range(args.first, args.end or NUMBERS[args.network]))
