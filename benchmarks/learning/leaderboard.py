"""Rankings of all that `benchmarks.learning.curves` measured, and pictures of its curves.

    python -m benchmarks.learning.leaderboard

Writes leaderboard.md, leaderboard.json and learning.png.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from algos.algorithms import make_env, scenario_of
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.learning.curves import EPISODES, FOLDER, TASKS
from mec_jax.contracts import Episodes
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import Report, compare
from mec_jax.statistics import bootstrap_interval, interquartile_mean

PROTOCOL = (
    "A run is measured as `mec-jax train` does: on the environment's evaluation scenario, MAHPPO by sampled actions,",
    "others by their likeliest ones. Scores are interquartile means over seeds; intervals are 95 % bootstrap intervals",
    "over seeds.",
)

LAST_TESTS = 30
"""Evaluations whose mean is compared with the recorded runs."""

RECORDED = {5: (-0.59, -0.88, -0.93), 3: (-0.49,)}
"""Runs of the authors' code by UEs: mean return of the last 30 tests near 300 000 frames, one episode a test."""


def per_seed(run: dict[str, Any]) -> list[Episodes]:
    """The means of each seed, as the episode they stand for."""
    rows = [{name: jnp.asarray([values[i]]) for name, values in run["episodes"].items()} for i in range(run["seeds"])]
    return [Episodes(row.pop("episode_return"), row.pop("frames"), row.pop("terminated"), row) for row in rows]


def title(run: dict[str, Any]) -> str:
    """Environment and its constructor's arguments."""
    return ", ".join([run["env_id"], *(f"{name} {value}" for name, value in run["static"].items())])


def label(run: dict[str, Any]) -> str:
    """Algorithm and preset."""
    return f"{run['algorithm'].upper().replace('_', '-')}, {run['preset']}"


def notes(run: dict[str, Any], found: Report) -> list[str]:
    """What the table does not say of a run."""
    returns, seconds, about = run["episodes"]["episode_return"], run["seconds"], run["machine"]
    took = f" in {seconds['training']:.0f} s, after {seconds['compiling']:.0f} s of compiling," if seconds else ""
    low, high = bootstrap_interval(np.array(returns))
    lines = [
        f"- {label(run)}: seeds 0 to {run['seeds'] - 1} for {run['frames'][-1]} frames each, all at once,{took} on "
        f"{about['cpu']}, {about['cores']} cores; returns {', '.join(f'{x:.3f}' for x in returns)}; interquartile mean "
        f"{interquartile_mean(returns):.3f} [{low:.3f}, {high:.3f}]."
    ]
    ruler = list(found.rows)[-1]
    bound = found.rows[ruler]["return"]
    if run["env_id"].startswith("MultiExit"):
        excess = np.array(returns) / bound - 1
        lines.append(f"- Its cost exceeds that of {ruler} by {excess.mean():.2%}, at most {excess.max():.2%}.")
    if run["preset"] == "reference":
        recorded = RECORDED[run["static"]["num_ues"]]
        last = np.asarray(run["curve"])[:, -LAST_TESTS:].mean(axis=1)
        low, high = bootstrap_interval(last, statistic=np.mean)
        lines.append(
            f"- Mean return of its last {LAST_TESTS} tests by seed: {', '.join(f'{x:.2f}' for x in last)}; mean "
            f"{last.mean():.2f} [{low:.2f}, {high:.2f}]. The authors' code, recorded runs: "
            f"{', '.join(f'{x:.2f}' for x in recorded)}."
        )
    return lines


def report(folder: Path, out: Path) -> None:
    """Write `leaderboard.md`, `leaderboard.json` and `learning.png` into `out` from the runs in `folder`."""
    names = [task.name for task in TASKS]
    files = sorted(folder.glob("*.json"), key=lambda path: names.index(path.stem))
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in (json.loads(path.read_text()) for path in files):
        groups.setdefault(title(run), []).append(run)
    lines = ["# Leaderboard", "", *PROTOCOL, ""]
    columns = 3
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.4 * rows), layout="constrained")
    axes = iter(figure.subplots(rows, columns, squeeze=False).flat)
    results, keys = {}, evaluation_keys(EPISODES)
    for name, runs in groups.items():
        env, params = make_env(runs[0]["env_id"], runs[0]["static"], {})
        found = compare(env, scenario_of(env, params), {label(run): per_seed(run) for run in runs}, keys)
        results[name] = found.rows
        lines += [f"## {name}", "", *found.table(), "", *(line for run in runs for line in notes(run, found)), ""]
        draw(next(axes), name, runs, found)
    for unused in axes:
        unused.set_axis_off()
    write_result(out / "leaderboard.md", "\n".join(lines))
    write_result(out / "leaderboard.json", json.dumps(results, indent=1) + "\n")
    figure.savefig(out / "learning.png", dpi=100)


def draw(axes: Any, name: str, runs: list[dict[str, Any]], found: Report) -> None:
    """Learning curves with the range of the seeds, and the best three rulers."""
    lowest = 0.0
    for run in runs:
        curve = np.asarray(run["curve"])
        (line,) = axes.plot(run["frames"], curve.mean(axis=0), label=label(run))
        axes.fill_between(run["frames"], curve.min(axis=0), curve.max(axis=0), alpha=0.2, color=line.get_color())
        lowest = min(lowest, curve.mean(axis=0).min())
        if run["preset"] == "reference":
            recorded = RECORDED[run["static"]["num_ues"]]
            axes.axhspan(min(recorded) - 0.005, max(recorded) + 0.005, color="0.85", zorder=0)
    rulers = sorted((row["return"], ruler) for ruler, row in found.rows.items() if row["runs"] == 1)[-3:]
    for i, (value, ruler) in enumerate(rulers):
        axes.axhline(value, color=f"C{len(runs) + i}", linestyle="--", linewidth=1, label=ruler)
    if rulers:
        top, bottom = rulers[-1][0], min(value for value, _ in rulers)
        axes.set_ylim(max(lowest, bottom - 3 * (abs(top) + top - bottom)), top + 0.1 * abs(top))
    axes.set_title(name, fontsize="medium")
    axes.set_xlabel("environment frames")
    axes.set_ylabel("return (mean and range)")
    axes.legend(loc="lower right", fontsize="small")


def main(argv: list[str] | None = None) -> None:
    """Rank and draw."""
    parser = command_line(__spec__.name, __doc__, RESULTS)
    parser.add_argument("--runs", type=Path, default=FOLDER, help="folder of the runs")
    args = parser.parse_args(argv)
    report(args.runs, args.out)


if __name__ == "__main__":
    main()
