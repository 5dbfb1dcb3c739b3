"""Reproduce Figs. 5 and 6 of Huang et al. 2022 (DeColla): learning, latency, device use, failures; judge its claims.

    python -m benchmarks.reproduce.decolla           # measure what is not measured yet, and write the page
    python -m benchmarks.reproduce.decolla --page    # write the page of what is measured

Every experiment leaves one file in OUT/data; the command can be stopped at any time and goes on with those whose file
is missing or was made with other settings. The page, OUT/README.md and the pictures, follows from these files alone.

The paper gives curves without numbers, and neither what devices exchange nor over what, nor the speed of its edge. So
claims are judged over the range of these.
"""

import dataclasses
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.harness.claims import Claim, Judged
from benchmarks.harness.experiments import measure_all
from benchmarks.harness.machine import described
from benchmarks.harness.page import (
    Reproduction,
    claim_table,
    legend,
    picture,
    print_verdicts,
    sensitivity_table,
    write_page,
)
from benchmarks.harness.results import command_line
from benchmarks.harness.verdicts import shown
from benchmarks.reproduce.decolla.claims import CLAIMS
from benchmarks.reproduce.decolla.figures import FIGURES, best_up_to
from benchmarks.reproduce.decolla.learning_claims import DRL, ES, OURS, PAPER, best_until, final, settings, until_near
from benchmarks.reproduce.decolla.readings import (
    DEVICE_SPEED,
    DEVICES,
    EDGE_SPEED,
    EDGE_SPEEDS,
    HIERARCHICAL,
    MEDIA,
    READINGS,
    RULES,
    USAGE,
)
from benchmarks.reproduce.decolla.settings import EDGES, Data, load
from benchmarks.reproduce.decolla.systems_claims import crossover, mbps

TITLES = {
    "fig5": "Fig. 5: convergence of DRL-ES and DRL, and the time of a decision",
    "fig6a": "Fig. 6a: latency against bandwidth",
    "fig6b": "Fig. 6b: latency against CPU usage",
    "fig6c": "Fig. 6c: variance of device use against bandwidth",
    "fig6d": "Fig. 6d: variance of device use against concurrent tasks",
    "fig6e": "Fig. 6e: one device's CPU usage goes up",
    "fig6f": "Fig. 6f: one or two devices disconnect",
    "exchange": "What the exchange costs",
}
OF_EDGE = ("B1", "B2", "C2", "D2")
"""Claims that rest on the edge's speed, which is assumed."""
SHOWN = (10.0, 20.0, 1000.0)  # Mbit/s


def body(data: Data, judged: Sequence[Judged], drawn: Collection[str]) -> Iterator[str]:
    """Below the head."""
    yield from opening(data)
    notes = {"fig5": learning_notes, "fig6b": edge_table, "exchange": exchange_table}
    for name, claims in CLAIMS.items():
        yield from (f"## {TITLES[name]}", "")
        yield from picture(name, TITLES[name], drawn)
        ids = {claim.id for claim in claims}
        yield from claim_table(one for one in judged if one.claim.id in ids)
        yield ""
        if name in notes and (name != "fig5" or "fig5" in drawn):
            yield from notes[name](data)
        if name == "fig5":
            yield from least_table(data, drawn)


def opening(data: Data) -> Iterator[str]:
    """What is compared, over what range, and on which machine."""
    edges = ", ".join(f"{speed / 1e9:g}" for speed in EDGE_SPEEDS)
    yield (
        f"MobileNetV2 on {DEVICES} devices of {DEVICE_SPEED / 1e9:g} GFLOP/s, an edge of {EDGE_SPEED / 1e9:g}: both "
        "assumed, from 6 % of the peak of the machines that the paper names. Links alike. The paper's axes and curves "
        "are not public as numbers. What it leaves open is a range, and a claim that holds in one part of it and "
        "not in "
        "another is undetermined:"
    )
    yield ""
    for name, reading in READINGS.items():
        yield (
            f"- {name}: {reading.bits:g} bit an element, {reading.decolla_bits:g} within a layer of DeColla; links of "
            f"{reading.bandwidth:g} Mbit/s where they do not vary."
        )
    yield (
        f"- The medium of DeColla's exchange: {', '.join(MEDIA.values())}. The paper shapes the bandwidth of a "
        "wireless "
        "interface with Wonder Shaper, which is the last of these."
    )
    yield f"- The edge's speed: {edges} GFLOP/s."
    yield (
        "- How Hierarchical divides the layers: blocks by FLOP, in proportion to speeds, or the best blocks, found by "
        "dynamic programming. On links alike the best is always one block, on the strongest device: for a single "
        "request "
        "a chain only adds what it sends. No IP table in either."
    )
    yield ""
    yield (
        "DeColla is shortest completion on private links; on other media, where that is an estimate, the "
        "quickest of it, "
        "Random, Average and Least at each point. Where it says learned, it is what DRL-ES has learned, on private "
        "links; so are Figs. 6d to 6f. "
        "Failures are found by timeouts alone, kappa times the time expected of the block or piece, in both."
    )
    yield ""
    machines = sorted({described(content["machine"]) for content in data.results.values()})
    seconds = sum(content["wall_s"] for content in data.results.values())
    yield f"Machine: {'; '.join(machines)}. Time: {seconds:.0f} s in all, beside other jobs."
    yield ""


def learning_notes(data: Data) -> Iterator[str]:
    """How to read the figure."""
    found = settings(data, "testbed")
    ours, paper = found[OURS], data.results["paper_theta"]["experiment"]
    ratio = ours.frames[ES][-1] / ours.frames[DRL][-1]
    runs = [data.results[name] for name in ("paper_theta", "paper_carried", "paper_drl")]
    yield (
        f"Mean and range of {len(ours.slowdown[ES])} seeds, the axis of iterations up to the paper's 1500 and linear "
        "below the first evaluation. Each evaluation is 16 episodes, which the rulers play, too. An iteration of "
        "DRL-ES "
        f"has {ratio:.3g} times the frames of one of DRL, which is the same without children. The return is minus the "
        "mean slowdown but for a factor, so that Fig. 5b is Fig. 5a turned over. One network scores each device from "
        "the features of the piece and its own; the paper gives none. Figs. 5c and 5d need Raspberry Pis."
    )
    yield ""
    yield (
        f"Below are {PAPER}, as far as it gives them: learning rate .002, gamma 1, C = {paper['children']} "
        "children, and "
        f"a network of 100 outputs, 97 of them for empty slots; {len(found[PAPER].slowdown[ES])} seeds of "
        f"{paper['iterations']} iterations (of 1500: what {sum(run['wall_s'] for run in runs):.0f} s allow), "
        f"{paper['fitness_episodes']} episodes of each child and {paper['starts']} x {paper['episodes']} of REINFORCE. "
        "The children are of theta alone, or of a population that is carried on: the five fittest of a generation are "
        "the parents of the next, as in the references of the paper, which does not say."
    )
    yield ""
    yield "| on the testbed, mean slowdown at the end | DRL-ES | DRL | within 2 % of shortest completion |"
    yield "|---|---|---|---|"
    for name, curves in found.items():
        ends = [shown(final(curves, algorithm)) for algorithm in (ES, DRL)]
        near = [int(np.isfinite(until_near(curves, algorithm, curves.iterations)).sum()) for algorithm in (ES, DRL)]
        of = [len(curves.slowdown[algorithm]) for algorithm in (ES, DRL)]
        yield f"| {name} | {' | '.join(ends)} | {near[0]} of {of[0]} seeds, DRL {near[1]} of {of[1]} |"
    yield ""


def least_table(data: Data, drawn: Collection[str]) -> Iterator[str]:
    """Up to which bandwidth Least is best, over media."""
    yield from picture("least", "The rulers over media and bandwidths", drawn)
    yield "Bandwidths (Mbit/s) at which Least has a smaller slowdown than Random and Average:"
    yield ""
    yield "| environment | bit | " + " | ".join(MEDIA[medium] for medium in data.media) + " |"
    yield "|" + "---|" * (2 + len(data.media))
    for where, words in (("testbed", "testbed"), ("dynamic", "dynamic, the most of each link")):
        if f"rulers_{where}" not in data.results:
            continue
        content, best = data.results[f"rulers_{where}"]["experiment"], best_until(data, where)
        for bits in content["bits"]:
            cells = [best_up_to(content["bandwidths"], best[medium, f"{bits:g}"]) for medium in data.media]
            yield f"| {words} | {bits:g} | {' | '.join(cells)} |"
    yield ""
    yield (
        "All pieces on one device need its input once; spread over several, each needs it. Where one channel carries "
        "that, and it is slow, Least is best, as the paper says; where each device has a link of its own, or links are "
        "fast, it leaves devices idle and is worst."
    )
    yield ""


def edge_table(data: Data) -> Iterator[str]:
    """Claims that rest on the edge's speed."""
    every = {claim.id: claim for claims in CLAIMS.values() for claim in claims}
    claims: list[Claim[Data]] = [every[claim_id] for claim_id in OF_EDGE]
    rows: Mapping[str, Data] = {
        f"{reading}, edge of {edge} GFLOP/s": dataclasses.replace(data, readings=(reading,), edges=(edge,))
        for reading in list(READINGS)[:2]
        for edge in sorted(EDGES, key=float)
    }
    yield f"What rests on the edge's speed ({legend()}):"
    yield ""
    yield from sensitivity_table(rows, claims)
    yield ""


def exchange_table(data: Data) -> Iterator[str]:
    """What the exchange costs under each rule."""
    yield (
        f"DeColla with {DEVICES} devices at {100 * USAGE:.0f} % usage, and from which bandwidth on it is faster than "
        "Hierarchical (blocks by FLOP) with the same bits, and than one device alone. The third rule is a lower "
        "bound on "
        "the latency: one medium carries every input once for all devices and every output once, and work "
        "divides evenly."
    )
    yield ""
    yield "| bit | exchange | 10 Mbit/s | 20 Mbit/s | 1 Gbit/s | beats Hierarchical from | beats one device from |"
    yield "|" + "---|" * 7
    if "exchange" in data.results:
        found = data.results["exchange"]
        grid = found["experiment"]["grid"]
        for bits in ("32", "8", "1"):
            for rule in RULES:
                ours = found[bits][rule]
                theirs = (found[bits][HIERARCHICAL], [found["mobile"]] * len(grid))
                cells = [f"{ours[grid.index(value)]:.3g} s" for value in SHOWN]
                cells += [mbps(crossover(grid, np.array(ours), np.array(other))) for other in theirs]
                yield f"| {bits} | {rule} | {' | '.join(cells)} |"
    yield ""


REPRODUCTION = Reproduction(
    name="decolla",
    title="Collaborative inference within layers, Huang et al. 2022 (DeColla)",
    paper='Y. Huang et al., "Toward Decentralized and Collaborative Deep Learning Inference for Intelligent IoT '
    'Devices", '
    "IEEE Network 2022.",
    about_verdicts="Verdicts are computed from `data/`; intervals are 95 % bootstrap intervals.",
    load=load,
    claims=[claim for claims in CLAIMS.values() for claim in claims],
    figures=FIGURES,
    body=body,
)


def main(argv: list[str] | None = None) -> None:
    """Measure, judge and draw."""
    argv = sys.argv[1:] if argv is None else argv
    parser = command_line(REPRODUCTION.module, __doc__, REPRODUCTION.results)
    parser.add_argument("--page", action="store_true", help="only judge and draw what is measured")
    parser.add_argument("--jobs", type=int, default=1, help="experiments at a time (default: 1)")
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs is {args.jobs}: it must be at least 1")
    if not args.page:
        from benchmarks.reproduce.decolla.plan import plan  # JAX, which the page needs not

        measure_all(plan(), args.out, args.jobs)
    print_verdicts(args.out, write_page(REPRODUCTION, args.out))
