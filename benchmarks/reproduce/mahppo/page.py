"""Reproduce Figs. 8 to 13 and Theorem 1 of Hao et al. 2022 (MAHPPO): figures, and a page with a verdict on each claim.

    python -m benchmarks.reproduce.mahppo                          # everything; about an hour on 2 cores
    python -m benchmarks.reproduce.mahppo --only fig12 theorem1    # some figures
    python -m benchmarks.reproduce.mahppo --frames 1000000         # longer runs

Every experiment is one program, vmapped over seeds and traced numbers, and leaves one file in OUT/data. The command
can be stopped at any time and goes on with the experiments whose file is missing or was made with other settings.
Results: OUT/README.md, with the figures beside it.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.harness import page
from benchmarks.harness.experiments import Experiment, Results, description, measure_all
from benchmarks.harness.machine import VERSIONS, described
from benchmarks.harness.results import RESULTS, command_line, typed, write_result
from benchmarks.harness.verdicts import Verdict
from benchmarks.reproduce.mahppo.claims import CLAIMS, Claim
from benchmarks.reproduce.mahppo.experiments import EVALUATION_EPISODES, FINAL_ROUNDS, Surrogate
from benchmarks.reproduce.mahppo.figures import FIGURES, draw
from benchmarks.reproduce.mahppo.plan import FRAMES, SIZES, plan

MODULE = "benchmarks.reproduce.mahppo"
OUT = RESULTS / "mahppo"

TITLES = {
    "fig8": "Fig. 8: convergence of the three methods",
    "fig9": "Fig. 9: learning rate, sample reuse, memory",
    "fig10": "Fig. 10: convergence by the number of UEs",
    "fig11": "Fig. 11: latency and energy by the number of UEs",
    "fig12": "Fig. 12: beta",
    "fig13": "Fig. 13: other networks",
    "theorem1": "Theorem 1: P2 in place of P1",
}

NOTES = {
    "fig8": "Lines are means and bands standard deviations over seeds. The best static action is a search, as in "
    "`mec_jax.solvers.offloading`. The last frame of an episode, nearly empty, costs about -0.6 whatever the policy, "
    "because the reward divides by at least 0.8 tasks: returns are to be compared with that in mind. Frames of 3 s "
    "round the latency up far more than those of 0.5 s: JALAD's is to be compared by P1, which takes true times.",
    "fig9": "A third of the frames of the other figures, and learning rates that stay constant; apart from what is "
    "swept they are 1e-3. The reference hyper-parameters (one environment, 80 small minibatches per 1024 frames) cost "
    "some 20 minutes a run, so that values at which something is best need not carry over: the trends are the claim. "
    "Reuse counts passes over the memory; the paper's 80 is outside the range. A minibatch is a quarter of the memory, "
    "and a memory of M frames comes from M/16 environments.",
    "fig10": "The learning rate of the preset falls to zero, so that a curve is flat at its end by design; what "
    "convergence says is that it was so before.",
    "fig11": "Latency as in the paper: frames x 0.5 s x N / tasks, for all but the dashed line. The savings at N = 3 "
    "are given against Local's true 45.887 ms and against 47.5 ms, which Local takes when it is counted in whole "
    "frames like the others.",
    "fig12": "One program: beta is traced. The best static action is searched for at each beta.",
    "fig13": "The compression rates of Fig. 13 (a, b) are part of the profiles and are not reproduced here.",
    "theorem1": "P1 is eq. 10 with true times; P2 is eq. 11 with the mean number of tasks finished in a frame, for "
    "policies on the evaluation scenario at N = 5. The proof compares two policies by T and K. As all tasks are done, "
    "K T is their number: P2 is P1, in whole frames, divided by K. That is a bound only if K <= 1. If the policies "
    "take different numbers of frames, there is a beta small enough, as the proof says; it must be smaller than the "
    "time between the makespans divided by the energy between the policies, and no one beta does for all pairs. If "
    "they take equally many (the proof's case 1, with K equal), P2 compares their energy alone and P1 does not.",
}


def write_page(folder: Path, planned: Sequence[Experiment], command: str) -> dict[Claim, Verdict]:
    """Draw the figures and write README.md from the result files in `folder`; the verdicts.

    Args:
        folder: Where the results are.
        planned: The experiments of the command, to tell which files were made with other settings.
        command: What made them.
    """
    results = Results.load(folder)
    verdicts = {claim: claim.verdict(results) for claim in CLAIMS}
    sections = []
    for name, title in TITLES.items():
        lines = [f"## {title}", ""]
        figure = draw(name, results)
        if figure is not None:
            figure.savefig(folder / f"{name}.png", dpi=110)
            lines += [f"![{title}]({name}.png)", ""]
        table = ["| The paper says | Verdict | Measured |", "|---|---|---|"]
        table += [
            f"| {claim.words} | **{verdict.status}** | {verdict.text} |"
            for claim, verdict in verdicts.items()
            if claim.figure == name
        ]
        sections.append("\n".join([*lines, *table, "", NOTES[name]]))
    text = "\n\n".join([_head(results, verdicts, command), *sections, _surrogates(), _settings(results, planned)])
    write_result(folder / "README.md", text + "\n")
    return verdicts


def _head(results: Results, verdicts: Mapping[Claim, Verdict], command: str) -> str:
    seconds = sum(content["wall_s"] for content in results.values())
    machines = {described(content["machine"], ("device", "python"), VERSIONS) for content in results.values()}
    return "\n".join(
        [
            *page.head(
                "Figs. 8 to 13 of Hao et al. 2022",
                'Z. Hao, G. Xu, Y. Luo, H. Hu, J. An, S. Mao, "Multi-Agent Collaborative Inference via DNN Decoupling: '
                "Intermediate Feature Compression and Edge Learning\", 2022, with this package's MAHPPO, preset fast.",
                command,
                list(verdicts.values()),
                "Verdicts are computed from the data, with 95 % bootstrap intervals over seeds in brackets; the "
                "thresholds are in `claims.py` and `theorem.py` of `benchmarks/reproduce/mahppo` and in "
                "`benchmarks/harness/verdicts.py`. Policies are measured with sampled actions on the evaluation "
                "scenario (every UE at 50 m with 200 tasks), "
                f"by {EVALUATION_EPISODES} episodes in curves and {EVALUATION_EPISODES * FINAL_ROUNDS} at the end.",
            ),
            *(f"Machine: {name}." for name in sorted(machines)),
            f"Time: {seconds / 3600:.2f} h in all, of one process; the command runs two at a time.",
        ]
    )


def _surrogates() -> str:
    jalad = Surrogate()
    return "\n".join(
        [
            "## What stands in for what is not public",
            "",
            "JALAD's sizes and coding times (the paper's Figs. 4 and 7) are not published as numbers. The surrogate "
            f"takes the same cuts with 8-bit features, entropy coded {jalad.entropy_ratio:g} to 1, at "
            f"{jalad.coder_rate / 1e6:g} Mbit/s and {jalad.coder_power:g} W on top of the published front parts "
            "(which hold the autoencoder's own, small, cost). The ratio is an estimate for features that are half "
            "zeros; the speed is chosen so that coding costs what section 6.2 says of ResNet18. Verdicts on JALAD are "
            "therefore never plain. Its networks read the state through the hinges of preset fast, whose scale suits "
            "frames of 0.5 s and not its 3 s: another handicap for it. The profiles are in `profiles/`.",
            "",
            "Not reproduced here: Figs. 4 to 7 and 13 (a, b), which measure networks and a device and not policies.",
        ]
    )


def _settings(results: Results, planned: Sequence[Experiment]) -> str:
    now = {experiment.name: description(experiment) for experiment in planned}
    lines = [
        "## Experiments",
        "",
        "| experiment | points x seeds | frames of a run | frames/s of all | s | cut off at the end | settings |",
        "|" + "---|" * 7,
    ]
    for name, content in results.items():
        settings = content["experiment"]
        same = "as planned" if settings == now.get(name) else "of another command"
        cells = ["-"] * 4
        if "final" in content:
            speed = content["frames_per_s"]
            cells = [
                f"{len(settings['points'])} x {settings['seeds']}",
                f"{content['frames'][-1]:,}".replace(",", " "),
                "-" if speed is None else f"{speed:,.0f}".replace(",", " "),
                f"{100 * results.final(name, 'cut_off').mean():.2g} %",
            ]
        lines.append(f"| {name} | {' | '.join(cells[:3])} | {content['wall_s']:.0f} | {cells[3]} | {same} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    parser = command_line(MODULE, __doc__, OUT)
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
    figures = plan(args.frames, args.seeds, args.ues)
    chosen = {experiment.name: experiment for name in args.only for experiment in figures[name]}
    every = [experiment for experiments in figures.values() for experiment in experiments]
    try:
        measure_all(list(chosen.values()), args.out, args.jobs, args.redo)
    except KeyboardInterrupt:
        print("stopped; the same command goes on")
        sys.exit(130)
    verdicts = write_page(args.out, every, typed(MODULE, argv))
    page.print_verdicts(args.out, ((claim.figure, claim.words, verdict) for claim, verdict in verdicts.items()))
