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

from algos.algorithms import make_env
from algos.curves import Curve, check_bound, ruler_lines
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.learning.curves import EPISODES, FOLDER, TASKS
from mec_jax.contracts import Episodes
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import Report, compare
from mec_jax.files import whole_file
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
    if run["env_id"].startswith("MultiExit"):
        excess = np.array(returns) / found.rows[found.one]["return"] - 1
        lines.append(f"- Its cost exceeds that of {found.one} by {excess.mean():.2%}, at most {excess.max():.2%}.")
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
    results, rulers, keys = {}, {}, evaluation_keys(EPISODES)
    for name, runs in groups.items():
        env, params = make_env(runs[0]["env_id"], runs[0]["static"], {})
        found = compare(env, env.evaluation_params(params), {label(run): per_seed(run) for run in runs}, keys)
        results[name] = found.rows
        episodes = curve_episodes(runs)
        lines_there = ruler_lines(found, episodes)
        rulers[name] = {"episodes": episodes, "one": found.one, "bound": found.bound, "returns": lines_there}
        for run in runs:
            check_bound(label(run), curves_of(run), found, lines_there)
        lines += [f"## {name}", "", *found.table(), "", *(line for run in runs for line in notes(run, found)), ""]
    write_result(out / "leaderboard.md", "\n".join(lines))
    write_result(out / "leaderboard.json", json.dumps(results, indent=1) + "\n")
    write_result(out / "learning_rulers.json", json.dumps(rulers, indent=1) + "\n")
    with whole_file(out / "learning.png") as unfinished:
        draw(groups, rulers).savefig(unfinished, dpi=100)


def curve_episodes(runs: list[dict[str, Any]]) -> int:
    """Episodes that the curves of a panel are means of: the first of the protocol, which its rulers play, too.

    Raises:
        ValueError: If the runs differ.
    """
    counts = {label(run): int(run["curve_episodes"]) for run in runs}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"curves of {title(runs[0])} are means of unlike numbers of episodes ({found}): train again")
    return next(iter(counts.values()))


def curves_of(run: dict[str, Any]) -> list[Curve]:
    """The curve of each seed."""
    return [(np.asarray(run["frames"]), np.asarray(curve)) for curve in run["curve"]]


def draw(groups: dict[str, list[dict[str, Any]]], rulers: dict[str, dict[str, Any]]) -> Figure:
    """Learning curves with the range of the seeds, and the rulers in the same episodes, by environment.

    Where there are rulers, the axis is the distance below the one whose score is 1, logarithmic: all
    can be seen, from Random to the last ten thousandth.
    """
    columns = 3
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(4.5 * columns, 3.4 * rows), layout="constrained")
    panels = iter(figure.subplots(rows, columns, squeeze=False).flat)
    for (name, runs), axes in zip(groups.items(), panels, strict=False):
        _draw_panel(axes, runs, rulers[name])
        axes.set_title(name, fontsize="medium")
        axes.set_xlabel("environment frames")
        axes.legend(loc="best", fontsize="x-small")
    for unused in panels:
        unused.set_axis_off()
    return figure


def _draw_panel(axes: Any, runs: list[dict[str, Any]], rulers: dict[str, Any]) -> None:
    one, lines = rulers["one"], rulers["returns"]
    top = lines[one] if one else 0.0

    def height(returns: Any) -> Any:
        return np.maximum(top - np.asarray(returns), 1e-6 * abs(top)) if one else np.asarray(returns)

    shown = []
    for run in runs:
        curve = np.asarray(run["curve"])
        (line,) = axes.plot(run["frames"], height(curve.mean(axis=0)), label=label(run))
        low, high = height(curve.max(axis=0)), height(curve.min(axis=0))
        axes.fill_between(run["frames"], low, high, alpha=0.2, color=line.get_color())
        shown += [low.min(), high.max()]
        if run["preset"] == "reference":
            recorded = RECORDED[run["static"]["num_ues"]]
            axes.axhspan(
                *(height(value) for value in (max(recorded) + 0.005, min(recorded) - 0.005)), color="0.85", zorder=0
            )
    if not one:
        axes.set_ylabel("return (mean and range)")
        return
    axes.set_yscale("log")
    # The best four below `one`, which a bound is not: others can be hundreds of times worse than what is worth seeing.
    nearest = sorted((name for name in lines if lines[name] < top), key=lambda name: lines[name])[-4:]
    for i, name in enumerate(reversed(nearest)):
        axes.axhline(height(lines[name]), color=f"C{len(runs) + i}", linestyle="--", linewidth=1, label=name)
        shown.append(height(lines[name]))
    axes.set_ylim(2 * max(shown), min(shown) / 2)  # better is higher
    axes.set_ylabel(f"return below {one}", fontsize="small")  # mean and range


def main(argv: list[str] | None = None) -> None:
    """Rank and draw."""
    parser = command_line(__spec__.name, __doc__, RESULTS)
    parser.add_argument("--runs", type=Path, default=FOLDER, help="folder of the runs")
    args = parser.parse_args(argv)
    report(args.runs, args.out)


if __name__ == "__main__":
    main()
