"""Reproduce Figs. 8 to 13 and Theorem 1 of Hao et al. 2022 (MAHPPO): figures, and a page with a verdict on each claim.

    python benchmarks/reproduce/mahppo.py                          # everything; about an hour on 2 cores
    python benchmarks/reproduce/mahppo.py --only fig12 theorem1    # some figures
    python benchmarks/reproduce/mahppo.py --frames 1000000         # longer runs

Every experiment is one program, vmapped over seeds and traced numbers, and leaves one file in OUT/data. The command
can be stopped at any time and goes on with the experiments whose file is missing or was made with other settings.
Results: OUT/README.md, with the figures beside it.
"""

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run as a file: find the packages beside and above this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from algos.mahppo import PRESETS, Config
from benchmarks.reproduce.experiments import (
    EVALUATION_EPISODES,
    FINAL_ROUNDS,
    CoderSpeeds,
    Experiment,
    Policies,
    Rulers,
    Scenario,
    Surrogate,
    Training,
    description,
    measure_all,
)
from benchmarks.reproduce.mahppo_claims import CLAIMS, Claim
from benchmarks.reproduce.mahppo_figures import FIGURES, draw
from benchmarks.reproduce.verdicts import Results, Status, Verdict
from benchmarks.time_to_target import write

RESULTS = Path(__file__).resolve().parents[1] / "results" / "mahppo"

FRAMES = 400_000
"""Of a run by default: what fits into about an hour, and fewer than the preset's own."""

SIZES = (3, 4, 5, 6, 7, 8, 9, 10)
NETWORK_SIZES = (3, 5, 10)  # of Fig. 13

EVALUATIONS = 30
"""About so many in each training."""

TUNING_SHARE = 1 / 3
"""Share of the frames that a run of Fig. 9 takes: there are 70 of them, and their trends are the claim."""

TUNING = {"actor_lr": 1e-3, "critic_lr": 1e-3, "final_lr": 1.0, "final_entropy": 1.0}
"""Differences from the preset in Fig. 9: constant rates as in the paper, near the mean of the preset's."""

RATES = (1e-5, 1e-4, 1e-3, 1e-2)
REUSES = (1, 2, 4, 8, 16)  # passes over the memory
MEMORIES = (512, 1024, 2048, 4096, 8192)  # frames of an update
BETAS = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
CODER_RATES = (5e6, 10e6, 20e6, 50e6, 100e6, 200e6)  # bit/s

LONG_FRAME = {"frame_time": 3.0, "max_steps_in_episode": 10}
"""JALAD's frames (section 6.3.1), and as many simulated seconds to a training episode as with short ones."""
LONGER = 6
"""Times as long: a run takes that many fewer frames, of as much simulated time."""

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


def chunked(config: Config, frames: float) -> Config:
    """The configuration for so many frames, and `EVALUATIONS` of them."""
    batch = config.num_envs * config.rollout
    updates = max(1, round(frames / batch))
    return dataclasses.replace(config, num_frames=updates * batch, updates_per_chunk=max(1, updates // EVALUATIONS))


def plan(frames: int, seeds: int, sizes: Iterable[int]) -> dict[str, list[Experiment]]:
    """What each figure needs; figures share experiments, which then have one name.

    Args:
        frames: Environment frames of a run.
        seeds: Runs of each point.
        sizes: N of Figs. 10 and 11; Fig. 13 takes those of 3, 5 and 10 that are among them.
    """
    config, hparams = PRESETS["fast"]
    # Rollouts cover fewer frames where frames are longer, so that there are as many updates.
    long_config = dataclasses.replace(config, rollout=max(1, config.rollout // 4))
    surrogate = Surrogate()

    def trained(profile: str, n: int) -> list[Experiment]:
        rulers = Rulers(f"rulers_{profile}_n{n}", Scenario(n, profile))
        return [
            rulers,
            Training(f"mahppo_{profile}_n{n}", Scenario(n, profile), chunked(config, frames), hparams, seeds),
        ]

    def jalad(profile: str, n: int) -> Experiment:
        scenario = Scenario(n, profile, surrogate, LONG_FRAME)
        return Training(f"jalad_{profile}_n{n}", scenario, chunked(long_config, frames / LONGER), hparams, seeds)

    def tuning(name: str, points: tuple[dict[str, float], ...] = ({},), **changed: int) -> Experiment:
        changed_config = chunked(dataclasses.replace(config, **changed), frames * TUNING_SHARE)  # type: ignore[arg-type]
        return Training(name, Scenario(), changed_config, dataclasses.replace(hparams, **TUNING), seeds, points)

    betas = tuple({"beta": beta} for beta in BETAS)
    beta = Training("beta", Scenario(), chunked(config, frames), hparams, seeds, betas)
    sizes = sorted(sizes)
    by_size = [experiment for n in sizes for experiment in trained("resnet18", n)]
    networks = [(profile, n) for profile in ("vgg11", "mobilenetv2") for n in NETWORK_SIZES if n in sizes]
    return {
        "fig8": [
            *trained("resnet18", 5),
            jalad("resnet18", 5),
            Rulers("rulers_jalad_resnet18_n5", Scenario(5, "resnet18", surrogate, LONG_FRAME), objective="objective"),
            CoderSpeeds("coder_speed", Scenario(5, "resnet18", surrogate), CODER_RATES),
        ],
        "fig9": [
            trained("resnet18", 5)[0],
            tuning("learning_rate", tuple({"actor_lr": rate, "critic_lr": rate} for rate in RATES)),
            *(tuning(f"reuse_{epochs}", epochs=epochs) for epochs in REUSES),
            *(tuning(f"memory_{memory}", num_envs=memory // config.rollout) for memory in MEMORIES),
        ],
        "fig10": by_size,
        "fig11": [*by_size, *(jalad("resnet18", n) for n in sizes)],
        "fig12": [beta, Rulers("rulers_beta", Scenario(), betas)],
        "fig13": [experiment for profile, n in networks for experiment in (*trained(profile, n), jalad(profile, n))],
        "theorem1": [
            Policies("policies", Scenario(params={"paper_reward": True})),
            *trained("resnet18", 5),
            beta,
        ],
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
    write(folder / "README.md", text + "\n")
    return verdicts


def _head(results: Results, verdicts: Mapping[Claim, Verdict], command: str) -> str:
    statuses = [verdict.status for verdict in verdicts.values()]
    count = ", ".join(f'{statuses.count(status)} "{status}"' for status in Status if status in statuses)
    seconds = sum(content["wall_s"] for content in results.values())
    machines = {_machine(content["machine"]) for content in results.values()}
    return "\n".join(
        [
            "# Figs. 8 to 13 of Hao et al. 2022",
            "",
            'Z. Hao, G. Xu, Y. Luo, H. Hu, J. An, S. Mao, "Multi-Agent Collaborative Inference via DNN Decoupling: '
            "Intermediate Feature Compression and Edge Learning\", 2022, with this package's MAHPPO, preset fast.",
            "",
            f"    {command}",
            "",
            f"{len(verdicts)} claims: {count}. Verdicts are computed from the data, with 95 % bootstrap intervals over "
            "seeds in brackets; the thresholds are in `benchmarks/reproduce/mahppo_claims.py` and `verdicts.py`. "
            "Policies are measured with sampled actions on the evaluation scenario (every UE at 50 m with 200 tasks), "
            f"by {EVALUATION_EPISODES} episodes in curves and {EVALUATION_EPISODES * FINAL_ROUNDS} at the end.",
            "",
            *(f"Machine: {name}." for name in sorted(machines)),
            f"Time: {seconds / 3600:.2f} h in all, of one process; the command runs two at a time.",
        ]
    )


def _machine(about: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {about[name]}" for name in ("mec-jax", "jax", "jaxlib", "flax"))
    return f"{about['cpu']}, {about['cores']} cores, {about['device']}, Python {about['python']}; {versions}"


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(FIGURES), default=tuple(FIGURES), help="figures to make")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"environment frames of a run (default: {FRAMES})")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each point (default: 5)")
    parser.add_argument("--ues", type=int, nargs="+", default=SIZES, help="N of Figs. 10, 11 and 13 (default: 3 to 10)")
    parser.add_argument("--jobs", type=int, default=2, help="experiments at a time (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
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
    command = shlex.join(["python", "benchmarks/reproduce/mahppo.py", *argv])
    for claim, verdict in write_page(args.out, every, command).items():
        print(f"{claim.figure}: {claim.words}: {verdict.status}")
    print(f"page: {args.out / 'README.md'}")


if __name__ == "__main__":
    main()
