"""Does a sweep find what beats the preset? Three trainers, each with the tree-structured Parzen estimator.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m benchmarks.learning.sweeps   # fills results/sweeps
    XLA_FLAGS=... python -m benchmarks.learning.sweeps --readme                               # of the README
    python -m benchmarks.learning.sweeps --page                                               # its page alone

Of each the best of 40 choices, scored with 2 seeds, meets the preset on 10 seeds by which nothing was chosen, both with
the same budget of environment frames. What was stopped goes on.
"""

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from algos import cli
from algos.sweep import sweep
from algos.sweep.report import gain_words
from algos.sweep.tables import best_run, gains, train_line
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, ROOT, command_line, write_result

FOLDER = RESULTS / "sweeps"
KEPT = ("sweep.json", "trials.jsonl", "report.md", "scores.png", "learning.png")


class Case(NamedTuple):
    """A sweep."""

    algorithm: str
    env_id: str
    over: dict[str, str]
    frames: int
    run: dict[str, Any]


CASES = {
    "mahppo": Case(
        "mahppo",
        "MultiUEOffloading-v0",
        {
            "hparams.actor_lr": "log:3e-4..3e-2",
            "hparams.critic_lr": "log:3e-4..3e-2",
            "hparams.entropy": "log:1e-4..1e-1",
            "hparams.power_entropy": "log:1e-4..1e-1",
            "hparams.gae_lambda": "0.5..1",
            "hparams.clip": "0.1..0.4",
        },
        61_440,
        {"static": {"num_ues": 3}},
    ),
    "ppo": Case(
        "ppo",
        "MultiExitAllocation-Markov-v0",
        {
            "hparams.actor_lr": "log:3e-4..3e-2",
            "hparams.critic_lr": "log:3e-4..3e-2",
            "hparams.entropy": "log:1e-4..1e-1",
            "hparams.gamma": "0..0.99",
            "hparams.gae_lambda": "0..1",
            "hparams.clip": "0.1..0.4",
        },
        122_880,
        {},
    ),
    "drl_es": Case(
        "drl_es",
        "NeuronSharing-v0",
        {
            "hparams.lr": "log:1e-3..1e-1",
            "hparams.sigma": "log:1e-3..1e-1",
            "hparams.entropy": "log:1e-5..1e-1",
            "hparams.gamma": "0.8..1",
        },
        763_200,
        {},
    ),
}


def main() -> None:
    """Sweep, and write the page."""
    parser = command_line(__spec__.name, __doc__, FOLDER)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--readme", action="store_true", help="README's sweep, for its picture")
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    if args.readme:
        readme(args.out / "readme")
        return
    for name in args.only if not args.page else ():
        folder: Path = args.out / name
        case = CASES[name]
        options: dict[str, Any] = {"sampler": "tpe", "frames": case.frames, "fresh": 10, "out": folder, **case.run}
        found = sweep(case.algorithm, case.env_id, case.over, args.points, 2, progress=_say, **options)
        run, gain = best_run(found, 0), gains(found)[0]
        assert run is not None
        about = {
            "machine": machine(),
            "env": case.env_id,
            "frames": next(iter(found.records.values())).result.frames,
            "choices": found.study.choices,
            "runs": len(found.records),
            "diverged": sum(record.result.diverged for record in found.records.values()),
            "seconds": round(sum(record.result.seconds for record in found.records.values())),
            "line": train_line(run),
            "words": gain_words(gain, "score"),
            "gain": gain._asdict(),
        }
        write_result(folder / "found.json", json.dumps(about, indent=1) + "\n")
        keep(folder)
    write_result(args.out / "README.md", page(args.out))


def readme(folder: Path) -> None:
    """The sweep of the README's command."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    command = next(block for block in blocks if " sweep " in block)
    cli.main([*shlex.split(command)[1:], "--out", str(folder)])
    keep(folder)


def keep(folder: Path) -> None:
    """Remove what is made of the rest."""
    for file in folder.iterdir():
        if file.name not in (*KEPT, "found.json"):
            file.unlink()


def _say(progress: Any) -> None:
    print(
        f"{progress.done:.1f}/{progress.runs}, best {progress.best:.4f}, {progress.seconds_left:.0f} s left", flush=True
    )


def page(folder: Path) -> str:
    """The page, of what is there."""
    kept = {name: json.loads((folder / name / "found.json").read_text()) for name in CASES}
    better = [name for name, about in kept.items() if about["gain"]["low"] > 0]
    lines = [
        "# What a sweep finds",
        "",
        f"`python -m benchmarks.learning.sweeps`: {len(better)} of {len(kept)} sweeps found a setting that beats the "
        "preset on fresh seeds, with the same budget, by the whole interval. Presets are for longer runs.",
        "",
        "| | environment | frames a run | choices | preset | best | paired difference, 10 fresh seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, about in kept.items():
        gain = about["gain"]
        interval = f"[{gain['low']:+.4f}, {gain['high']:+.4f}]"
        lines.append(
            f"| [{name}]({name}/report.md) | `{about['env']}` | {about['frames']:,} | {about['choices']} | "
            f"{gain['preset']:.4f} | {gain['best']:.4f} | {gain['gain']:+.4f} {interval} |"
        )
    lines += ["", "Scores: 0 = Random, 1 = the bound or the best known plan of the environment.", ""]
    for name, about in kept.items():
        runs = f"{about['runs']} runs, {about['diverged']} diverged, {about['seconds']} s of computing"
        lines += [
            f"## {name}",
            "",
            about["words"],
            "",
            "```sh",
            about["line"],
            "```",
            "",
            f"![]({name}/learning.png)",
            "",
        ]
        lines += [f"{runs}; {described(about['machine'])}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
