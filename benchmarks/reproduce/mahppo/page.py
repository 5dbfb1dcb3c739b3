"""Reproduce Figs. 8 to 13 and Theorem 1 of Hao et al. 2022 (MAHPPO): figures, and a page with a verdict on each claim.

    python -m benchmarks.reproduce.mahppo                          # everything; some four hours on 2 cores
    python -m benchmarks.reproduce.mahppo --page                   # judge and draw what is measured
    python -m benchmarks.reproduce.mahppo --only fig12 theorem1    # some figures
    python -m benchmarks.reproduce.mahppo --frames 1000000         # longer runs

Every experiment is one program, vmapped over seeds and traced numbers, and leaves one file in OUT/data. The command
can be stopped at any time and goes on with the experiments whose file is missing or was made with other settings. The
runs of the presets fast and reference are those of `benchmarks.learning.curves`. Results: OUT/README.md, with the
figures beside it.
"""

import json
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness.claims import Judged
from benchmarks.harness.experiments import Experiment, Results, description, measure_all
from benchmarks.harness.machine import VERSIONS, described
from benchmarks.harness.page import Reproduction, claim_table, picture, print_verdicts, write_page
from benchmarks.harness.results import command_line
from benchmarks.learning.codec_tables import JaladRow, Row, read_rows
from benchmarks.reproduce.mahppo import beyond_the_paper, claims, measured, tuning
from benchmarks.reproduce.mahppo.beyond_the_paper import AUTHORS, LONGER_SIZES
from benchmarks.reproduce.mahppo.experiments import EVALUATION_EPISODES, FINAL_ROUNDS, JALAD_TABLE, Surrogate
from benchmarks.reproduce.mahppo.figures import FIGURES
from benchmarks.reproduce.mahppo.plan import FRAMES, REUSES, SIZES, TUNING_SHARE, plan
from benchmarks.reproduce.mahppo.theorem import THEOREM_1

SECTIONS = {
    "fig8": ("Fig. 8: convergence of the three methods", claims.FIGURE_8),
    "fig9": ("Fig. 9: learning rate, sample reuse, memory", tuning.FIGURE_9),
    "fig10": ("Fig. 10: convergence by the number of UEs", claims.FIGURE_10),
    "fig11": ("Fig. 11: latency and energy by the number of UEs", claims.FIGURE_11),
    "measured": ("Figs. 4, 7 and 13 (b): compression as measured, and JALAD judged anew", measured.CLAIMS),
    "fig12": ("Fig. 12: beta", claims.FIGURE_12),
    "fig13": ("Fig. 13: other networks", claims.FIGURE_13),
    "theorem1": ("Theorem 1: P2 in place of P1", THEOREM_1),
    "presets": (
        "As printed, as in the authors' code, and beside a constant action",
        beyond_the_paper.CLAIMS,
    ),
}

NOTES = {
    "fig8": "Lines are means and bands standard deviations over seeds. The best static action is a search, as in "
    "`mec_jax.solvers.offloading`. The last frame of an episode, nearly empty, costs about -0.6 whatever the policy, "
    "because the reward divides by at least 0.8 tasks: returns are to be compared with that in mind. Frames of 3 s "
    "round the latency up far more than those of 0.5 s: JALAD's is to be compared by P1, which takes true times.",
    "fig9": f"{TUNING_SHARE:.2g} of the frames of the other figures, and learning rates that stay constant; apart from "
    "what is swept they are 1e-3, the memory has 2048 frames from 64 environments and is used "
    "4 times, in minibatches of a quarter of it: preset fast, not the paper's one environment, whose 80 "
    "small minibatches per 1024 frames take some ten times as long. So values at which something is best need not "
    f"carry over: the trends are the claim. Reuse counts passes over the memory, {', '.join(map(str, REUSES))} here, "
    "5 to 80 in the paper. A memory of M frames comes from M/32 environments. Upper row: the paper's axes.",
    "fig10": "The learning rate of the preset falls to zero, so that a curve is flat at its end by design. Where it "
    "still rose when the rate was nearly zero, it had not converged: longer runs would end higher.",
    "fig11": "Latency as in the paper: frames x 0.5 s x N / tasks, for all but the dashed line. The savings at N = 3 "
    "are given against Local's true 45.887 ms and against 47.5 ms, which Local takes when it is counted in whole "
    "frames like the others.",
    "measured": "Codecs and JALAD on real features of networks trained on Fashion-MNIST at 32 x 32, not Caltech-101 at "
    "224 x 224: [rates, times and machine](../codecs/README.md). Bits and seconds an element are carried over to the "
    "published front parts and feature sizes. No Jetson Nano was at hand: how much slower than that machine it codes "
    "is open, and verdicts that depend on it are undetermined. VGG11 and xi (Fig. 5) are not measured.",
    "fig12": "One program: beta is traced. The best static action is searched for at each beta. At beta of 0.1 and "
    "less the policies are slower than at 1 and than the best static action there: they are not trained to the end, so "
    "that neither the rise nor the flatness can be read off them (S3 below).",
    "fig13": "The compression rates of Fig. 13 (a, b) are part of the profiles.",
    "theorem1": "P1 is eq. 10 with true times; P2 is eq. 11 with the mean number of tasks finished in a frame, for "
    "policies on the evaluation scenario at N = 5. The proof compares two policies by T and K. As all tasks are done, "
    "K T is their number: P2 is P1, in whole frames, divided by K. That is a bound only if K <= 1. If the policies "
    "take different numbers of frames, there is a beta small enough, as the proof says; it must be smaller than the "
    "time between the makespans divided by the energy between the policies, and no one beta does for all pairs. If "
    "they take equally many (the proof's case 1, with K equal), P2 compares their energy alone and P1 does not.",
    "presets": "As printed (preset paper): joint ratio, Monte-Carlo returns as value targets (eq. 15), advantages by "
    "eq. 18 with those as baseline, Algorithm 1, 500 000 frames. Preset reference: the authors' code, 300 000 frames. "
    "As r_t + gamma V'(s_t+1) is V'(s_t), the advantage of eq. 18 is the sum over k of gamma (gamma lambda)^k (V - V') "
    "of the states to come: an action after which more comes than the critic expects is discouraged. So the printed "
    "method has the sign of its advantage the wrong way, the authors' code has not, and seeds end anywhere. The "
    "authors' code draws its first parameters as PyTorch does, preset reference from He-normal ones with nearly "
    "uniform policies (`initial`); it also lets advantages run over the end of an episode that is cut at 60 frames, "
    "which is not repeated here. Started like theirs, runs at N = 5 cannot be told from their three; that the start is "
    "the reason cannot be told either (R2). "
    "What the constant action lacks is the state: it cannot let the UE that is behind catch up; what a policy lacks "
    "that does not reach it is training.",
}


def load(folder: Path) -> Results:
    """The results in `folder/data`; from the folders beside it, as `preset_NAME_nN` the runs in `learning`, and the
    tables of `codecs`.
    """
    results = Results.load(folder)
    for name in (AUTHORS, "fast"):
        for n in LONGER_SIZES:
            file = folder.parent / "learning" / f"mahppo_{name}_MultiUEOffloading-v0_num_ues{n}.json"
            if file.exists():
                results[f"preset_{name}_n{n}"] = json.loads(file.read_text())
    rates, jalad = (folder.parent / "codecs" / f"{name}.csv" for name in ("rates", "jalad"))
    if rates.exists() and jalad.exists():
        results["codecs"] = {
            "rates": [asdict(row) for row in read_rows(rates, Row)],
            "jalad": [asdict(row) for row in read_rows(jalad, JaladRow)],
        }
    return results


def body(results: Results, judged: Sequence[Judged], drawn: Collection[str]) -> Iterator[str]:
    """The page below its head."""
    measured = {name: content for name, content in results.items() if "wall_s" in content}
    machines = {described(content["machine"], ("device", "python"), VERSIONS) for content in measured.values()}
    yield from (f"Machine: {name}." for name in sorted(machines))
    seconds = sum(content["wall_s"] for content in measured.values())
    about = "of one process, some of it beside other jobs; the command runs two at a time"
    yield from (f"Time: {seconds / 3600:.2f} h in all, {about}.", "")
    for name, (title, some) in SECTIONS.items():
        yield from (f"## {title}", "")
        yield from picture(name, title, drawn)
        yield from claim_table(one for one in judged if one.claim in some)
        yield from ("", NOTES[name], "")
    yield from _surrogates()
    yield from _experiments(measured)


def _surrogates() -> Iterator[str]:
    jalad = Surrogate()
    yield "## What stands in for what is not public"
    yield ""
    yield (
        "JALAD's sizes and coding times (the paper's Figs. 4 and 7) are not published as numbers. The surrogate "
        f"takes the same cuts with 8-bit features, entropy coded {jalad.entropy_ratio:g} to 1, at "
        f"{jalad.coder_rate / 1e6:g} Mbit/s and {jalad.coder_power:g} W on top of the published front parts "
        "(which hold the autoencoder's own, small, cost). The ratio is an estimate for features that are half "
        "zeros; the speed is chosen so that coding costs what section 6.2 says of ResNet18. Verdicts on JALAD are "
        "therefore never plain. Its networks read the state through the hinges of preset fast, whose scale suits "
        "frames of 0.5 s and not its 3 s: another handicap for it. The profiles are in `profiles/`."
    )
    yield ""
    yield "Not reproduced here: Figs. 5 and 13 (a); and Figs. 6 and 7, which measure a device."
    yield ""


def _experiments(measured: dict[str, dict]) -> Iterator[str]:
    now = {one.name: description(one) for several in plan(FRAMES, 5, SIZES).values() for one in several}
    yield from ("## Experiments", "")
    yield "| experiment | points x seeds | frames of a run | frames/s of all | s | cut off at the end | settings |"
    yield "|" + "---|" * 7
    for name, content in measured.items():
        settings = content["experiment"]
        same = "as planned" if settings == now.get(name) else "of another command"
        cells = ["-"] * 4
        if "final" in content:
            speed = content["frames_per_s"]
            cut_off = [x for row in content["final"]["cut_off"] for x in row]
            cells = [
                f"{len(settings['points'])} x {settings['seeds']}",
                f"{content['frames'][-1]:,}".replace(",", " "),
                "-" if speed is None else f"{speed:,.0f}".replace(",", " "),
                f"{100 * sum(cut_off) / len(cut_off):.2g} %",
            ]
        yield f"| {name} | {' | '.join(cells[:3])} | {content['wall_s']:.0f} | {cells[3]} | {same} |"


REPRODUCTION = Reproduction(
    name="mahppo",
    title="Figs. 8 to 13 of Hao et al. 2022",
    paper='Z. Hao, G. Xu, Y. Luo, H. Hu, J. An, S. Mao, "Multi-Agent Collaborative Inference via DNN Decoupling: '
    "Intermediate Feature Compression and Edge Learning\", 2022, with this package's MAHPPO, preset fast where no "
    "other is named.",
    about_verdicts="Verdicts are computed from the data, with 95 % bootstrap intervals over 5 seeds in brackets. "
    "Policies are measured with sampled actions on the evaluation scenario (every UE at 50 m with 200 tasks), "
    f"by {EVALUATION_EPISODES} episodes in curves and {EVALUATION_EPISODES * FINAL_ROUNDS} at the end.",
    load=load,
    claims=tuple(claim for _, some in SECTIONS.values() for claim in some),
    figures=FIGURES,
    body=body,
    dpi=110,
)


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    parser = command_line(REPRODUCTION.module, __doc__, REPRODUCTION.results)
    parser.add_argument("--page", action="store_true", help="measure nothing: judge and draw what is there")
    parser.add_argument("--only", nargs="+", choices=tuple(FIGURES), default=tuple(FIGURES), help="figures to make")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"environment frames of a run (default: {FRAMES})")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each point (default: 5)")
    parser.add_argument("--ues", type=int, nargs="+", default=SIZES, help="N of Figs. 10, 11 and 13 (default: 3 to 10)")
    parser.add_argument("--jobs", type=int, default=2, help="experiments at a time (default: 2)")
    parser.add_argument("--redo", action="store_true", help="run what is measured already, too")
    args = parser.parse_args(argv)
    for name, value in (("frames", args.frames), ("seeds", args.seeds), ("ues", min(args.ues)), ("jobs", args.jobs)):
        if value < 1:
            parser.error(f"--{name} is {value}: it must be at least 1")
    figures: dict[str, list[Experiment]] = plan(args.frames, args.seeds, args.ues)
    if "measured" in args.only and not JALAD_TABLE.exists():
        print("JALAD is not measured: python -m benchmarks.learning.codecs", file=sys.stderr)
        figures["measured"] = []
    chosen = {one.name: one for name in args.only for one in figures.get(name, ())}
    if not args.page:
        try:
            measure_all(list(chosen.values()), args.out, args.jobs, args.redo)
        except KeyboardInterrupt:
            print("stopped; the same command goes on")
            sys.exit(130)
    print_verdicts(args.out, write_page(REPRODUCTION, args.out))
