"""Reproduce Figs. 5 and 6 of Huang et al. 2022 (DeColla): learning, latency, device use, failures; judge its claims.

    python -m benchmarks.reproduce.decolla    # about a minute on 2 cores

The paper gives curves without numbers, and neither the bits that devices exchange nor the rule by which they do. So
each claim is judged in several readings of the exchange. Shortest completion stands for DeColla's learned allocation:
in what is static, as here, it is all but the optimum (K3). Results: OUT/README.md, one figure a panel, and data.json.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.harness import page
from benchmarks.harness.experiments import rounded
from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, typed, write_result
from benchmarks.harness.verdicts import Verdict
from benchmarks.reproduce.decolla import learning
from benchmarks.reproduce.decolla.claims import (
    CLAIMS,
    exchange_is_long,
    greedy_is_optimal,
    in_readings,
    mbps,
    no_crossover,
)
from benchmarks.reproduce.decolla.figures import draw
from benchmarks.reproduce.decolla.panels import READINGS, RUNS, Panels, measure
from benchmarks.reproduce.decolla.systems import DEVICE_SPEED, DEVICES, EDGE_SPEED, NETWORK, USAGE, Exchange, exchanges
from mec_jax.envs.neuron_allocation import NeuronAllocation

MODULE = "benchmarks.reproduce.decolla"
OUT = RESULTS / "decolla"
CROSSOVERS = tuple(np.geomspace(1, 1e5, 101))  # Mbit/s, where the exchange rules are compared
EPISODES = 16  # of K3


@dataclass(frozen=True)
class Section:
    """A figure of the paper: our picture of it, and the verdicts on what is said of it."""

    name: str  # of the file of the picture, too
    title: str
    verdicts: Mapping[tuple[str, str], Verdict]  # by id and words of the claim
    picture: Figure | None = None
    notes: Sequence[str] = field(default=())  # lines below the table

    def lines(self) -> Iterator[str]:
        """In Markdown."""
        yield from (f"## {self.title}", "")
        if self.picture is not None:
            yield from (f"![{self.title}]({self.name}.png)", "")
        yield from page.verdict_table(named(self.verdicts), said="It is said")
        yield from ("", *self.notes)


def named(verdicts: Mapping[tuple[str, str], Verdict]) -> Iterator[tuple[str, str, Verdict]]:
    """Id, words, verdict."""
    return ((claim, words, verdict) for (claim, words), verdict in verdicts.items())


TITLES = {
    "6a": "Fig. 6a: latency against bandwidth",
    "6b": "Fig. 6b: latency against CPU usage",
    "6c": "Fig. 6c: variance of device use against bandwidth",
    "6d": "Fig. 6d: variance of device use against concurrent tasks",
    "6e": "Fig. 6e: one device's CPU usage goes up",
    "6f": "Fig. 6f: one or two devices disconnect",
}


def figure_6(measured: Mapping[str, Panels]) -> list[Section]:
    """The panels of Fig. 6, each claim judged in all readings.

    Args:
        measured: By reading.
    """
    return [
        Section(
            name=f"fig{panel}",
            title=TITLES[panel],
            verdicts={
                (claim.id, claim.words): in_readings({name: claim.judge(panels) for name, panels in measured.items()})
                for claim in claims
            },
            picture=draw(panel, measured),
        )
        for panel, claims in CLAIMS.items()
    ]


def figure_5(folder: Path) -> Section:
    """Convergence, from what `benchmarks.learning.curves` left in `folder`, and the time of a decision.

    Raises:
        ValueError: If the runs are not there.
    """
    try:
        curves = {env_id: learning.read_curves(env_id, folder) for env_id in learning.ENVIRONMENTS}
    except FileNotFoundError as error:
        raise ValueError(f"no {error.filename}: run python -m benchmarks.learning.curves --missing first") from None
    return Section(
        name="fig5",
        title="Fig. 5: convergence of DRL-ES and DRL, and the time of a decision",
        verdicts=learning.verdicts(curves),
        picture=learning.draw_curves(curves),
        notes=learning.notes(curves),
    )


def exchange_section(env: NeuronAllocation, rows: Sequence[Exchange], episodes: int) -> Section:
    """What the exchange costs under each rule, and what this suite says of the problem."""
    notes = [
        f"DeColla with {DEVICES} devices at {100 * USAGE:.0f} % usage, and from which bandwidth on it is faster than "
        "Hierarchical with the same bits, and than one device alone. The third rule is a lower bound on the latency: "
        "one medium carries every input once for all devices and every output once, and work divides evenly.",
        "",
        "| bit | exchange | 10 Mbit/s | 20 Mbit/s | 1 Gbit/s | beats Hierarchical from | beats one device from |",
        "|" + "---|" * 7,
        *(
            f"| {row.bits:g} | {row.rule} | {' | '.join(f'{x:.3g} s' for x in row.latency)} | "
            f"{mbps(row.beats_hierarchical)} | {mbps(row.beats_mobile)} |"
            for row in rows
        ),
        "",
    ]
    verdicts = {
        ("K1", "All elements of MobileNetV2 take 43 s at 10 Mbit/s and 32 bit, one device 0.29 s"): exchange_is_long(
            env
        ),
        ("K2", "The crossover at 10 Mbit/s does not follow from an exchange after each layer"): no_crossover(rows),
        ("K3", "Shortest completion is within 0.9 % of the optimum on the testbed"): greedy_is_optimal(env, episodes),
    }
    return Section("exchange", "What the exchange costs", verdicts, notes=notes)


def write_page(folder: Path, sections: Sequence[Section], command: str, seconds: float) -> None:
    """Write README.md and the pictures.

    Args:
        folder: Where to.
        sections: In order.
        command: What made them.
        seconds: How long that took.
    """
    lines = [
        *page.head(
            "Collaborative inference within layers, Huang et al. 2022 (DeColla)",
            'Y. Huang et al., "Toward Decentralized and Collaborative Deep Learning Inference for Intelligent IoT '
            'Devices", IEEE Network 2022.',
            command,
            [verdict for section in sections for verdict in section.verdicts.values()],
            "Verdicts are computed; the thresholds are in `claims.py` and `learning.py` of "
            "`benchmarks/reproduce/decolla`.",
        ),
        f"MobileNetV2 on {DEVICES} devices of {DEVICE_SPEED / 1e9:g} GFLOP/s, an edge of {EDGE_SPEED / 1e9:g}: both "
        "assumed, from 6 % of the peak of the machines that the paper names. Links alike. The paper's axes and curves "
        "are not public as numbers, and it does not say what devices exchange; so each claim is judged in these "
        "readings:",
        "",
        *(
            f"- {name}: {reading.bits:g} bit an element, {reading.decolla_bits:g} within a layer of DeColla; links of "
            f"{reading.bandwidth:g} Mbit/s where they do not vary."
            for name, reading in READINGS.items()
        ),
        "",
        "DeColla is shortest completion here. Hierarchical has blocks in proportion to speeds and no IP table. "
        "Failures are found by timeouts alone, kappa times the time expected of the block or piece, in both.",
        "",
        page.taken_on(seconds),
        "",
    ]
    lines += (line for section in sections for line in section.lines())
    pictures = {section.name: section.picture for section in sections if section.picture is not None}
    page.save_figures(folder, pictures, dpi=100)
    write_result(folder / "README.md", "\n".join(lines).rstrip() + "\n")


def plain(value: Any) -> Any:
    """For JSON: arrays as lists of six digits, of trials their means."""
    if isinstance(value, Mapping):
        return {name: plain(x) for name, x in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 2 and value.shape[1] > RUNS:
        value = value.mean(1)
    if isinstance(value, np.ndarray) and value.dtype == bool:
        value = value.mean()
    return rounded(value)


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    parser = command_line(MODULE, __doc__, OUT)
    parser.add_argument("--learning", type=Path, default=learning.LEARNING, help="folder of the learning runs")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    env = NeuronAllocation(NETWORK, num_devices=DEVICES)
    measured = {name: measure(env, reading) for name, reading in READINGS.items()}
    sections = [
        figure_5(args.learning),
        *figure_6(measured),
        exchange_section(env, exchanges(env, CROSSOVERS), EPISODES),
    ]
    write_page(args.out, sections, typed(MODULE, argv), time.perf_counter() - start)
    write_result(args.out / "data.json", json.dumps({"machine": machine(), "measured": plain(measured)}) + "\n")
    page.print_verdicts(args.out, (row for section in sections for row in named(section.verdicts)))
