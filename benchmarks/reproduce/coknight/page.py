"""Reproduce Figs. 9 to 12 of Dai et al. 2022 (Coknight) and judge the paper's claims.

    python -m benchmarks.reproduce.coknight    # about two minutes on 2 cores

Figs. 9 to 11 come from the timeline of `mec_jax.physics.actor_learner`, Fig. 12 from the partition game and its
solvers. The figures' curves are not at hand, only what the text says of them, the authors' code and its traffic logs.
Results: OUT/README.md, a figure each and data.json.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import page
from benchmarks.harness.experiments import rounded
from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, typed, write_result
from benchmarks.harness.verdicts import Verdict
from benchmarks.reproduce.coknight.data import V100_SPEED, Claim
from benchmarks.reproduce.coknight.figures import EDGE_TIMES, SPEEDS, draw_fig9, draw_fig10, draw_fig11, draw_fig12
from benchmarks.reproduce.coknight.partition import (
    CUTS_TIMED,
    DEVICE_SPEEDS,
    DEVICES_TIMED,
    DRAWS,
    FIXED_FOR,
    GAMES,
    REPEATS,
    REQUEST_RATE,
    SHARE,
    SIZES,
    SIZES_TIMED,
    defp_times,
    partitions,
)
from benchmarks.reproduce.coknight.partition_claims import PARTITION_CLAIMS
from benchmarks.reproduce.coknight.sections import Report, by_cut, findings, numbers, reductions
from benchmarks.reproduce.coknight.timeline import BANDWIDTHS, NETWORKS, SENSITIVITY, crossing_map, measure
from benchmarks.reproduce.coknight.timeline_claims import NEAR_CROSSING, TIMELINE_CLAIMS

MODULE = "benchmarks.reproduce.coknight"
OUT = RESULTS / "coknight"
COUNTS = (1, 2, 4, 8, 12, 16, 24, 36, 48, 64, 96, 128)  # actors in data.json
shortened = partial(rounded, digits=5)  # its numbers


def write_page(folder: Path, report: Report, command: str, seconds: float) -> dict[Claim, Verdict]:
    """Write README.md, the figures and data.json; the verdicts.

    Args:
        folder: Where to.
        report: What was measured.
        command: What made it.
        seconds: How long that took.
    """
    verdicts = report.verdicts()
    world, table = report.worlds["defaults"], report.tables["defaults"]
    figures = {
        "fig9": draw_fig9(world),
        "fig10": draw_fig10(world),
        "fig11": draw_fig11(world, report.maps),
        "fig12": draw_fig12(table, report.sizes, report.times),
    }
    page.save_figures(folder, figures, dpi=90)
    lines = [
        *page.head(
            "Timeline and partition game, Dai et al. 2022 (Coknight)",
            'H. Dai, J. Wu, Y. Wang, C. Xu, "Towards Scalable and Efficient Deep-RL in Edge Computing: A Game-based '
            'Partition Approach", Journal of Parallel and Distributed Computing 168, 2022.',
            command,
            list(verdicts.values()),
            "Verdicts are computed; the thresholds are in `timeline_claims.py` and `partition_claims.py` of "
            "`benchmarks/reproduce/coknight`. A claim on several cases holds in all, only in those that its verdict "
            "names first, or in none. The figures' curves are not at hand, only what the text says of them, the "
            "authors' code (github.com/daihao42/coknight) and its traffic logs. Fig. 8, the convergence of the three "
            "frameworks with V-trace, is not reproduced here.",
        ),
        page.taken_on(seconds),
        "",
        *page.verdict_table((claim.id, claim.words, verdict) for claim, verdict in verdicts.items()),
        "",
        *findings(report),
        "",
        "## Figs. 9 to 11",
        "",
        "Means of a closed queueing network (`mec_jax.physics.actor_learner`). Coknight is what its logs name, cuts 3 "
        'and 4 for all actors, or "best cut": the cut inside the network that is fastest at each place, for all actors '
        "alike, which is more than its algorithm promises.",
        "",
        *numbers(world),
        "",
        "![GPU use and traffic against the cut](fig9.png)",
        "",
        *by_cut(world),
        "",
        "![Rate against bandwidth](fig10.png)",
        "",
        "![Rate against actors, and where the two cross](fig11.png)",
        "",
        f"White lines in the maps are {NEAR_CROSSING[0]} and {NEAR_CROSSING[1]} actors, crosses the two GPUs; where a "
        "map is white, the two do not cross.",
        "",
        *_sensitivity(report.worlds, TIMELINE_CLAIMS[1:], lambda claim, row: claim.judge(report.worlds[row])),
        "",
        "## Fig. 12",
        "",
        f"Devices of {', '.join(f'{speed / 1e9:.2g}' for speed in DEVICE_SPEEDS)} GFLOP/s, as many of each, in random "
        f"order; f_e = {V100_SPEED / 1e12:g} TFLOP/s for a request, 100 Mbit/s for each, {REQUEST_RATE:g} request/s. "
        f"The elastic server has N r_0, r_0 being {100 * SHARE:.0f} % of an inference and of a raw frame a second; the "
        f"fixed one has what that gives {FIXED_FOR} devices. The paper gives none of these. Means over {DRAWS} draws. "
        "The paper does not define OGreedy: choices are sorted by utility, or by utility over the sum of the parts of "
        "the two capacities that they use. Best responses start from all-local and end in a Nash equilibrium.",
        "",
        "![Reduction, variances and time](fig12.png)",
        "",
        *reductions(table, report.sizes),
        "",
        *_sensitivity(
            report.tables,
            PARTITION_CLAIMS[:-1],
            lambda claim, row: claim.judge(report.tables[row], report.sizes, report.times),
        ),
    ]
    write_result(folder / "README.md", "\n".join(lines) + "\n")
    write_result(folder / "data.json", json.dumps(_data(report)) + "\n")
    return verdicts


def _sensitivity(rows: Iterable[str], claims: Sequence[Claim], judge: Callable[[Claim, str], Verdict]) -> Iterator[str]:
    """How the verdicts depend on what the paper leaves out."""
    yield "Verdicts (holds, holds only when, does not hold, needs what is not public) with other numbers:"
    yield ""
    yield from page.sensitivity_table(rows, claims, judge)


def _data(report: Report) -> dict[str, Any]:
    """The defaults' numbers, rounded."""
    world, times = report.worlds["defaults"], report.times
    return {
        "machine": machine(),
        "networks": list(NETWORKS),
        "actors": list(COUNTS),
        "bandwidths_mb_s": list(BANDWIDTHS),
        "edge_time_s": dict(world.edge_time),
        "throughput": {
            gpu: shortened(x.throughput[: len(NETWORKS), :, np.array(COUNTS) - 1]) for gpu, x in world.curves.items()
        },  # [network, cut, count]
        "fig10": {gpu: shortened(world.fig10(gpu)) for gpu in world.curves},  # [cut, bandwidth]
        "sizes": list(report.sizes),
        "fig12": {
            row: {
                server: {name: {metric: shortened(x) for metric, x in values.items()} for name, values in found.items()}
                for server, found in table.items()
            }
            for row, table in report.tables.items()
        },  # [size, draw]
        "defp_s": {
            "devices": dict(zip(map(str, times.sizes), times.by_size.tolist(), strict=True)),
            "cuts": dict(zip(map(str, times.cuts), times.by_cuts.tolist(), strict=True)),
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    args = command_line(MODULE, __doc__, OUT).parse_args(argv)
    start = time.perf_counter()
    report = Report(
        worlds={name: measure(changes) for name, changes in SENSITIVITY.items()},
        maps={cut: crossing_map(cut, EDGE_TIMES, SPEEDS) for cut in (3, 4)},
        tables=dict(zip(GAMES, partitions(list(GAMES.values()), SIZES, DRAWS), strict=True)),
        sizes=SIZES,
        times=defp_times(SIZES_TIMED, CUTS_TIMED, DEVICES_TIMED, REPEATS),
    )
    verdicts = write_page(args.out, report, typed(MODULE, argv), time.perf_counter() - start)
    page.print_verdicts(args.out, ((claim.id, claim.words, verdict) for claim, verdict in verdicts.items()))
