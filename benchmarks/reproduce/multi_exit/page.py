"""Reproduce the curves of Ma et al. 2025 (multi-exit partitioning) over bandwidth, and judge the paper's claims.

    python -m benchmarks.reproduce.multi_exit    # about four minutes on 2 cores

Of the paper only the outline, the symbols and the tables are at hand: the model is derived from them, and the curves
are compared with what the text says of the paper's. Results: OUT/README.md, curves.png and curves.json.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import mec_jax
from benchmarks.harness import page
from benchmarks.harness.experiments import rounded
from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, typed, write_result
from benchmarks.harness.verdicts import Verdict
from benchmarks.reproduce.multi_exit.claims import CLAIMS, TABLE_BANDWIDTHS, Claim
from benchmarks.reproduce.multi_exit.curves import (
    ACO,
    BANDWIDTHS,
    DRAWS,
    FIXED,
    LEARNED,
    METRICS,
    OPTIMUM,
    RANDOM,
    SENSITIVITY,
    SETUPS,
    SHARED_ACO,
    SHARED_SPINN,
    SPINN,
    Curves,
    measure,
    optimal_splits,
)

MODULE = "benchmarks.reproduce.multi_exit"
OUT = RESULTS / "multi_exit"


def draw(curves: Mapping[str, Curves], bandwidths: Sequence[float]) -> Figure:
    """Latency, energy and cost against bandwidth, one row for each set-up."""
    figure = Figure(figsize=(14, 3.6 * len(curves)), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(curves), len(METRICS)))
    for row, (setup, curve) in zip(grid, curves.items(), strict=True):
        for axes, (metric, unit) in zip(row, METRICS.items(), strict=True):
            for index, (name, values) in enumerate(curve.items()):
                style = {OPTIMUM: "k-", SHARED_ACO: ":", SHARED_SPINN: ":"}.get(name, "-")
                color = {} if name == OPTIMUM else {"color": f"C{index}"}
                axes.plot(bandwidths, values[metric], style, label=name, linewidth=1.4, **color)
            axes.set_yscale("log")
            axes.set_xlabel("bandwidth, Mbit/s")
            axes.set_ylabel(f"{metric}{', ' + unit if unit else ''}, mean over devices")
            axes.set_title(setup)
    grid[0, -1].legend(fontsize=7, ncols=2)
    return figure


def write_page(
    folder: Path,
    curves: Mapping[str, Sequence[Curves]],
    splits: Mapping[str, np.ndarray],
    bandwidths: Sequence[float],
    command: str,
    seconds: float,
) -> dict[Claim, Verdict]:
    """Write README.md, the figure and the curves at the defaults; the verdicts on those.

    Args:
        folder: Where to.
        curves: Of each set-up, for each setting of `SENSITIVITY`.
        splits: Of the optimum at the defaults, [bandwidth, device], of each set-up.
        bandwidths: Mbit/s.
        command: What made them.
        seconds: How long that took.
    """
    verdicts = {claim: claim.judge(bandwidths, curves[claim.setup][0]) for claim in CLAIMS}
    at_defaults = {setup: settings[0] for setup, settings in curves.items()}
    page.save_figures(folder, {"curves": draw(at_defaults, bandwidths)}, dpi=100)
    lines = [
        *page.head(
            "Latency, energy and cost against bandwidth, Ma et al. 2025",
            'Y. Ma, Y. Wang, B. Tang, "Joint Optimization of Model Partitioning and Resource Allocation for Multi-Exit '
            'DNNs in Edge-Device Collaboration", Electronics 2025, 14, 1647.',
            command,
            list(verdicts.values()),
            "Verdicts are computed from the curves; the thresholds are in `benchmarks/reproduce/multi_exit/claims.py`.",
        ),
        "Only the outline, the symbols and the tables of the paper are at hand, neither its equations nor its curves: "
        "the model is derived from the symbols, and f_e, the input's bits, h, w and the image size are defaults of "
        "ours (`MultiExitAllocation.params`), swept below. The two tables are taken for the image (n = 5) and the "
        "video set-up (n = 7), whose exit rows do not sum to 100 % and are divided by their sums. "
        + (
            "ACO-DRL is PPO here, trained at the defaults (seed 0); in the sweep the exact optimum stands in for it. "
            if "ACO-DRL" in LEARNED
            else "The exact joint optimum stands in for ACO-DRL: the best that it could be. "
        )
        + "ACO's exits are all those that some task leaves by.",
        "",
        '"EAR" has two readings: each device owns 1/n of the edge, used or not, as the paper words it (ACO-EAR, '
        'SPINN-EAR), or the devices that use the edge share it equally ("shared"), which is what equal shares mean in '
        f"the environment. Costs are means over devices. Random and FP-AR are means over {DRAWS} draws.",
        "",
        page.taken_on(seconds),
        "",
        "![Latency, energy and cost against bandwidth](curves.png)",
        "",
        *page.verdict_table((claim.id, claim.words, verdict) for claim, verdict in verdicts.items()),
        "",
        *_summary(curves, splits, bandwidths),
        "",
        *_costs(curves, bandwidths),
        "",
        *_sensitivity(curves, bandwidths),
    ]
    write_result(folder / "README.md", "\n".join(lines) + "\n")
    content = {
        "bandwidths_mbps": list(bandwidths),
        "machine": machine(),
        "curves": {
            setup: {
                name: {metric: rounded(values) for metric, values in curve.items()} for name, curve in found.items()
            }
            for setup, found in at_defaults.items()
        },
        "splits": {setup: table.tolist() for setup, table in splits.items()},
    }
    write_result(folder / "curves.json", json.dumps(content) + "\n")
    return verdicts


def _summary(
    curves: Mapping[str, Sequence[Curves]], splits: Mapping[str, np.ndarray], bandwidths: Sequence[float]
) -> Iterator[str]:
    """Where splits and shares matter."""
    yield "## Where splits and shares matter"
    yield ""
    yield (
        "Splits of the optimum over all bandwidths and devices, and the mean over bandwidths of cost / optimum. "
        '"compressed" is not in the paper: its features are 128 times smaller, as measured elsewhere for VGG-11.'
    )
    yield ""
    compared = (ACO, SHARED_ACO, SPINN, FIXED, RANDOM)
    yield f"| set-up | all at the edge | between | all on the device | {' | '.join(compared)} |"
    yield "|" + "---|" * 9
    for setup, table in splits.items():
        last = mec_jax.make(SETUPS[setup])[0].num_layers
        parts = [np.mean(table == 0), np.mean((table > 0) & (table < last)), np.mean(table == last)]
        curve = curves[setup][0]
        ratios = [np.mean(curve[name]["cost"] / curve[OPTIMUM]["cost"]) for name in compared]
        cells = [f"{100 * part:.0f} %" for part in parts] + [f"{ratio:.4f}" for ratio in ratios]
        yield f"| {setup} | {' | '.join(cells)} |"


def _costs(curves: Mapping[str, Sequence[Curves]], bandwidths: Sequence[float]) -> Iterator[str]:
    """Latency, energy and cost at some bandwidths."""
    places = [(b, list(bandwidths).index(b)) for b in TABLE_BANDWIDTHS if b in bandwidths]
    yield "## Latency (ms) / energy (mJ) / cost (10^-3)"
    for setup, settings in curves.items():
        yield ""
        yield f"| {setup} | {' | '.join(f'{b} Mbit/s' for b, _ in places)} |"
        yield "|" + "---|" * (1 + len(places))
        for name, curve in settings[0].items():
            cells = [" / ".join(f"{1e3 * curve[metric][place]:.4g}" for metric in METRICS) for _, place in places]
            yield f"| {name} | {' | '.join(cells)} |"


def _sensitivity(curves: Mapping[str, Sequence[Curves]], bandwidths: Sequence[float]) -> Iterator[str]:
    """How the verdicts depend on what the paper leaves out."""
    yield "## What the paper leaves out"
    yield ""
    yield "Verdicts (holds, holds only when, does not hold) with one number changed at a time."
    yield ""
    place = {setting: index for index, setting in enumerate(SENSITIVITY)}
    yield from page.sensitivity_table(
        SENSITIVITY, CLAIMS, lambda claim, setting: claim.judge(bandwidths, curves[claim.setup][place[setting]])
    )
    yield ""
    yield "Mean over bandwidths of cost / optimum: ACO-EAR, the same shared, SPINN-EAR."
    yield ""
    yield f"| | {' | '.join(curves)} |"
    yield "|" + "---|" * (1 + len(curves))
    for index, setting in enumerate(SENSITIVITY):
        cells = []
        for settings in curves.values():
            cost = {name: settings[index][name]["cost"] for name in (OPTIMUM, ACO, SHARED_ACO, SPINN)}
            cells.append(" / ".join(f"{np.mean(cost[name] / cost[OPTIMUM]):.4f}" for name in (ACO, SHARED_ACO, SPINN)))
        yield f"| {setting} | {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    args = command_line(MODULE, __doc__, OUT).parse_args(argv)
    start = time.perf_counter()
    curves, splits = {}, {}
    for setup, env_id in SETUPS.items():
        env, _ = mec_jax.make(env_id)
        curves[setup] = measure(env, list(SENSITIVITY.values()), BANDWIDTHS)
        splits[setup] = optimal_splits(env, {}, BANDWIDTHS)
    seconds = time.perf_counter() - start
    verdicts = write_page(args.out, curves, splits, BANDWIDTHS, typed(MODULE, argv), seconds)
    page.print_verdicts(args.out, ((claim.id, claim.words, verdict) for claim, verdict in verdicts.items()))
