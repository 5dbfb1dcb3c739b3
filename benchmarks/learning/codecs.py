"""Rate against accuracy of trained codecs, cut by cut, and JALAD's sizes and times (Hao et al. 2022, Figs. 4 and 13).

    python -m benchmarks.learning.codecs                              # ResNet18 and MobileNetV2 on Fashion-MNIST
    python -m benchmarks.learning.codecs --page                       # the page of what is there
    python -m benchmarks.learning.codecs --data cifar10 --folder DIR  # or caltech101 --side 224
    python -m benchmarks.learning.codecs --data digits --networks resnet18 --epochs 1 --tuning-epochs 0 --seeds 1

At each of the four cuts of the bundled profiles a search trains codecs of ever fewer channels until one costs more than
the budget (`mec_jax.split.codec_training`). Every codec that is trained is a row of OUT/rates.csv at once: the command
may be stopped at any time and goes on, also with more seeds. First all cuts with the first seed, then the next one,
whose searches begin where those before ended. The codecs themselves, with the fine-tuned networks, are kept in the
user's cache folder.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from matplotlib.figure import Figure
from torch import nn

from benchmarks.harness.machine import described, machine
from benchmarks.harness.networks import trained
from benchmarks.harness.results import command_line, write_result
from benchmarks.learning.codec_tables import BUDGET, OUT, PROFILES, JaladRow, Row, best_rates, read_rows, write_rows
from mec_jax.profiles import load_profile
from mec_jax.profiles.compression import FLOAT_BITS
from mec_jax.split.autoencoder import save_codec
from mec_jax.split.codec_training import CodecTraining, largest_rate, train_codec
from mec_jax.split.graph import CutGraph
from mec_jax.split.images import DATASETS, Images, load_images
from mec_jax.split.jalad import measure_jalad
from mec_jax.split.networks import STEMS
from mec_jax.split.training import accuracy

START_RATE = 64  # where the search begins
IMAGES = 2000  # to train a codec on
EPOCHS, TUNING_EPOCHS = 8, 2  # of them: some 130 and 30 batches where the paper has 1700 and 570
TESTED = 2500  # of the test images
JALAD_IMAGES = 200  # whose features are coded


def codec_file(key: tuple[Any, ...]) -> Path:
    """Where the codec of a row is kept."""
    return Path(platformdirs.user_cache_dir("mec_jax")) / "codecs" / ("-".join(map(str, key)) + ".safetensors")


@dataclass(frozen=True)
class Campaign:
    """What is to be trained."""

    out: Path
    settings: CodecTraining
    count: int  # images to train codecs on
    threads: int = 1

    def run(self, networks: Sequence[str], images: Images, seeds: int) -> None:
        """Train what is missing, and write each row as soon as there is one."""
        torch.set_num_threads(self.threads)
        self.out.mkdir(parents=True, exist_ok=True)
        write_result(self.out / "machine.json", json.dumps(self._machine(), indent=2) + "\n")
        for seed in range(seeds):
            for network in networks:
                module = trained(network, images)
                base = accuracy(module, images, images.test)
                self._jalad(network, module, images)
                for cut in load_profile(PROFILES[network]).points[1:-1]:
                    self._search(network, module, base, cut, images, seed)
                write_page(self.out)

    def _machine(self) -> dict[str, Any]:
        torches = {name: metadata.version(name) for name in ("torch", "torchvision")}
        return {**machine(), **torches, "threads": f"{self.threads} threads"}

    def _search(self, network: str, module: nn.Module, base: float, cut: str, images: Images, seed: int) -> None:
        few = images.fewer(min(self.count, len(images.train.labels)), seed)
        side = images.train.images.shape[-1]
        channels = CutGraph(module, images.inputs(images.test.images[:1])).point(cut).shape[1]
        rows = {row.key: row for row in read_rows(self.out / "rates.csv", Row)}
        epochs = self.settings.epochs, self.settings.tuning_epochs

        def lost(sent: int) -> float:
            key = (network, few.name, side, cut, sent, *epochs, seed)
            if key not in rows:
                started = time.perf_counter()
                name = f"{network} with stride 1 in {STEMS[network]}"
                found = train_codec(module, name, cut, few, sent, self.settings, seed, base)
                file = codec_file(key)
                file.parent.mkdir(parents=True, exist_ok=True)
                save_codec(file, found)
                about = found.about
                rows[key] = Row(
                    *(network, few.name, side, cut, channels, sent, about.bits, about.rate, *epochs, seed),
                    *(about.accuracy_without, about.accuracy_frozen, about.accuracy),
                    seconds=round(time.perf_counter() - started, 1),
                )
                write_rows(self.out / "rates.csv", rows.values())
                print(f"{network} {cut} {about.rate:g}: {about.accuracy:.4f} of {base:.4f}, seed {seed}", flush=True)
            return rows[key].loss

        start = max(1, channels * FLOAT_BITS // (self.settings.bits * START_RATE))
        alike = (network, few.name, side, cut, *epochs)
        within = [row.sent for row in rows.values() if row.setting == alike and row.seed < seed and row.loss <= BUDGET]
        start = min(within, default=start)  # where earlier seeds ended, which spares the way there
        largest_rate(lost, channels, start, BUDGET)

    def _jalad(self, network: str, module: nn.Module, images: Images) -> None:
        rows = {row.key: row for row in read_rows(self.out / "jalad.csv", JaladRow)}
        side = images.train.images.shape[-1]
        cuts = load_profile(PROFILES[network]).points[1:-1]
        if all((network, images.name, side, cut) in rows for cut in cuts):
            return
        inputs = images.inputs(images.test.images[:JALAD_IMAGES])
        for cut, cost in zip(cuts, measure_jalad(CutGraph(module, inputs[:1]), inputs, cuts), strict=True):
            row = JaladRow(
                *(network, images.name, side, cut, cost.elements),
                *(round(cost.bits, 1), round(cost.bits_spread, 1), round(cost.entropy, 4), round(cost.commonest, 4)),
                *(float(f"{seconds:.4g}") for seconds in (cost.quantise_time, cost.code_time, cost.decode_time)),
            )
            rows[row.key] = row
        write_rows(self.out / "jalad.csv", rows.values())


# The page


def grouped(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, list[Row]]]:
    """Rows by setting and cut, in the order of the file."""
    result: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for row in rows:
        network, data_set, side, _, *epochs = row.setting
        result.setdefault((network, data_set, side, *epochs), {}).setdefault(row.cut, []).append(row)
    return result


def page(rows: Sequence[Row], jalad: Sequence[JaladRow], about: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    lines = [
        *("# Codecs: rate against accuracy", ""),
        "Codecs of Hao et al. 2022 (`mec_jax.split.autoencoder`), trained as in sections 2.4 and 6.1: 1 x 1",
        "convolutions and 8-bit quantisation, the codec alone by Adam at 0.1 (mean square + 0.1 cross-entropies), then",
        "all parameters at 1e-4. Rates count from 32 bit an element (eq. 3). At each cut the search goes on to fewer",
        f"channels until more than {100 * BUDGET:g} % of accuracy are lost, on {TESTED} test images at most; the paper",
        "chooses by the test images as well. Training multiplies in bfloat16.",
        "The networks are torchvision's with stride 1 in the first convolution, trained by",
        "`benchmarks.harness.networks`, one for all seeds: a seed draws the codec, its images and their order.",
        "**Other images and a smaller input than the paper's Caltech-101 at 224 x 224**, whose rates are given, too.",
        *("", "    python -m benchmarks.learning.codecs            # train what is missing; goes on where it was", ""),
        f"Machine: {described(about, ('threads',), ('torch', 'torchvision'))}. Times are taken beside other jobs.",
        "",
    ]
    for setting, cuts in grouped(rows).items():
        network, data_set, side, epochs, tuning = setting
        theirs = _paper_rates(network)
        base = next(iter(cuts.values()))[0].accuracy_without
        lines += [
            *(f"## {network}, {data_set} at {side} x {side}", ""),
            f"{epochs} epochs, {tuning} of fine-tuning. Without a codec {100 * base:.2f} % are right.",
            *("", "| cut after | C | R: accuracy lost in %, before fine-tuning in parentheses; mean of seeds |"),
            *("|---|---|---|",),
        ]
        for cut, some in cuts.items():
            lines.append(f"| {cut} | {some[0].channels} | {'; '.join(_losses(some))} |")
        lines += [
            "",
            f"| cut after | largest R within {100 * BUDGET:g} %, each seed | the paper's R | JALAD's R | its bit an "
            "element | entropy | JALAD's ms: quantise, code, decode | its coder, Mbit/s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        coded = {row.cut: row for row in jalad if (row.network, row.side) == (network, side) and _same(row, data_set)}
        for cut, some in cuts.items():
            best = ", ".join(f"{rate:g}" if rate else "none" for rate in best_rates(some))
            lines.append(f"| {cut} | {best} | {theirs.get(cut, 0):g} | {' | '.join(_jalad_cells(coded.get(cut)))} |")
        lines.append("")
    lines += [
        "![Rate against accuracy](rates.png)" if rows else "No codec is trained yet.",
        "",
        "A profile of such codecs: `mec-jax profile nets.py:network --image 3 32 32 --codec FILE...` with the files",
        "that the command leaves in `mec_jax/codecs` in the user's cache folder, and a file nets.py:",
        *("", "    from mec_jax.split.networks import small_image_network"),
        *("    def network():", '        return small_image_network("resnet18", 10, 0)', ""),
        "JALAD: 8-bit quantisation over the feature's own range, then Huffman codes (`mec_jax.split.jalad`), which",
        f"lose no more than the quantisation. Sizes are means over {JALAD_IMAGES} test images, each coded on its own,",
        "with its table and 64 bit of range; times are medians on one core. At 32 x 32 a feature of a late cut has few",
        "elements, and the table and zlib's start weigh more than at 224 x 224.",
    ]
    return "\n".join(lines).rstrip() + "\n"


def _same(row: JaladRow, data_set: str) -> bool:
    """Codecs may be trained on some of the images."""
    return data_set == row.data_set or data_set.rpartition("-")[0] == row.data_set


def _paper_rates(network: str) -> dict[str, float]:
    file = resources.files("mec_jax.profiles") / "data" / f"{PROFILES[network]}.json"
    return {cut["name"]: cut["compression_rate"] for cut in json.loads(file.read_text())["cuts"]}


def _losses(rows: Sequence[Row]) -> Iterator[str]:
    for rate in sorted({row.rate for row in rows}):
        some = [row for row in rows if row.rate == rate]
        lost = 100 * np.array([row.loss for row in some])
        frozen = 100 * np.mean([row.accuracy_without - row.accuracy_frozen for row in some])
        spread = f" ± {lost.std(ddof=1):.2f}" if len(lost) > 1 else ""
        yield f"{rate:g}: {lost.mean():.2f}{spread} ({frozen:.1f})"


def _jalad_cells(row: JaladRow | None) -> list[str]:
    if row is None:
        return ["-"] * 5
    return [
        f"{FLOAT_BITS * row.elements / row.bits:.1f}",
        f"{row.bits / row.elements:.2f}",
        f"{row.entropy:.2f}",
        ", ".join(f"{1e3 * seconds:.3f}" for seconds in (row.quantise_s, row.code_s, row.decode_s)),
        f"{8e-6 * row.elements / row.code_s:.0f}",
    ]


def figure(rows: Sequence[Row]) -> Figure:
    """Accuracy lost against rate, a panel a setting and a line a cut: mean, least and most over seeds."""
    settings = grouped(rows)
    drawn = Figure(figsize=(5 * len(settings), 3.6), layout="constrained")
    panels = drawn.subplots(1, len(settings), squeeze=False)[0]
    for axes, (setting, cuts) in zip(panels, settings.items(), strict=True):
        for cut, some in cuts.items():
            rates = sorted({row.rate for row in some})
            lost = [[100 * row.loss for row in some if row.rate == rate] for rate in rates]
            means = [float(np.mean(each)) for each in lost]
            spread = [[mean - min(e) for mean, e in zip(means, lost, strict=True)]]
            spread.append([max(e) - mean for mean, e in zip(means, lost, strict=True)])
            axes.errorbar(rates, means, spread, marker="o", capsize=3, label=cut)
        axes.axhline(100 * BUDGET, color="0.6", linestyle="--")
        axes.set(title=f"{setting[0]}, {setting[1]}", xlabel="rate R", ylabel="accuracy lost in %", xscale="log")
        axes.set_xscale("log", base=2)
        axes.legend()
    return drawn


def write_page(out: Path) -> None:
    """README.md and the picture, from what the folder holds."""
    rows, jalad = read_rows(out / "rates.csv", Row), read_rows(out / "jalad.csv", JaladRow)
    if rows:
        figure(rows).savefig(out / "rates.png", dpi=90)
    write_result(out / "README.md", page(rows, jalad, json.loads((out / "machine.json").read_text())))


def main(argv: list[str] | None = None) -> None:
    """Train what is missing, and write the page."""
    parser = command_line("benchmarks.learning.codecs", __doc__, OUT)
    parser.add_argument("--page", action="store_true", help="train nothing: write the page of what is there")
    parser.add_argument("--data", choices=DATASETS, default="fashion-mnist", help="images (default: fashion-mnist)")
    parser.add_argument("--folder", type=Path, help="where they are")
    parser.add_argument("--side", type=int, default=32, help="pixels (default: 32)")
    parser.add_argument("--networks", nargs="+", choices=tuple(PROFILES), default=tuple(PROFILES))
    parser.add_argument("--seeds", type=int, default=3, help="codecs of each kind (default: 3)")
    parser.add_argument("--images", type=int, default=IMAGES, help=f"to train a codec on (default: {IMAGES})")
    for name, default, of, theirs in (
        ("--epochs", EPOCHS, "the codec alone", CodecTraining.epochs),
        ("--tuning-epochs", TUNING_EPOCHS, "all", CodecTraining.tuning_epochs),
    ):
        parser.add_argument(
            name, type=int, default=default, help=f"of {of} (default: {default}; the paper's: {theirs})"
        )
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    args = parser.parse_args(argv)
    for name, least in (("seeds", 1), ("images", 1), ("epochs", 1), ("tuning_epochs", 0), ("threads", 1)):
        if getattr(args, name) < least:
            parser.error(f"--{name.replace('_', '-')} is {getattr(args, name)}: it must be at least {least}")
    if args.page:
        write_page(args.out)
        return
    settings = CodecTraining(epochs=args.epochs, tuning_epochs=args.tuning_epochs, bfloat16=True)
    images = load_images(args.data, args.side, args.folder)
    images = replace(images, test=images.test.some(slice(TESTED)))
    try:
        Campaign(args.out, settings, args.images, args.threads).run(args.networks, images, args.seeds)
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
        sys.exit(130)
    print(f"page: {args.out / 'README.md'}")


if __name__ == "__main__":
    main()
