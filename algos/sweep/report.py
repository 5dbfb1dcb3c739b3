"""What a sweep leaves in its folder: tables, the best as a run, importance, pictures, and a page with all of it."""

import dataclasses
import math

import numpy as np

from algos.algorithms import algorithm
from algos.integrity import unsealed
from algos.sweep import tables
from algos.sweep.extras import has
from algos.sweep.importance import importance
from algos.sweep.journal import Key
from algos.sweep.pictures import measure_name, problem_name, write_pictures
from algos.sweep.rungs import POLICY, SCHEDULE, WINNER
from algos.sweep.study import PRESET, Study, Sweep
from algos.sweep.tables import Gain, Mean, best_run, gains, means, train_line
from mec_jax.files import write_text

__all__ = ["REPORT", "gain_words", "preset_name", "report", "text"]

REPORT = "report.md"
_TOP = 5  # choices of each problem in the page


def report(sweep: Sweep) -> list[str]:
    """Write everything; the names of the files."""
    names = [*tables.write_tables(sweep), *tables.write_best(sweep), *write_pictures(sweep)]
    if has("plotly"):
        from algos.sweep.page import write_page

        names.append(write_page(sweep))
    write_text(sweep.folder / REPORT, text(sweep))
    names += [name for name in (POLICY, SCHEDULE) if (sweep.folder / name).exists()]
    return [*names, REPORT]


def text(sweep: Sweep) -> str:
    """The page in Markdown."""
    study = sweep.study
    lines = [f"# {study.base.algorithm} on {study.base.env_id}", "", *_about(sweep), ""]
    found = means(sweep)
    for problem in range(len(study.problems)):
        lines += [f"## {problem_name(sweep, problem)}", "", *_table(sweep, found, problem), ""]
        lines += [*_best(sweep, problem), ""]
    if len(study.problems) > 1:
        lines += ["## Over all problems", "", *_best(sweep, None), ""]
    return "\n".join([*lines, *_importance(sweep), ""])


def _about(sweep: Sweep) -> list[str]:
    study = sweep.study
    sizes = {"choice": study.choices, "problem": len(study.problems), "seed": study.seeds}
    counts = ", ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in sizes.items())
    about = f"{counts}: sampler {study.sampler}, preset {study.base.preset}."
    about += {
        "full": "",
        "halving": f" Successive halving: of {study.eta} choices the best goes on, {study.eta} times as far.",
        "pbt": f" Population-based training: perturbed every {study.every} chunk{'s' * (study.every > 1)}.",
    }[study.schedule]
    swept = ", ".join(f"`{axis.text()}`" for axis in study.space.axes)
    lines = [f"{about} Swept: {swept}."]
    scales = [sweep.scale(problem) for problem in range(len(study.problems))]
    named: dict[str, list[str]] = {}
    for problem, scale in enumerate(scales):
        if scale is not None:
            named.setdefault(f"0 = {scale.zero}, 1 = {scale.one}", []).append(problem_name(sweep, problem))
    for ends, problems in named.items():
        where = "" if len(named) == 1 else f" in {', in '.join(problems)}"
        lines.append(f"Score: {ends}, on the evaluation scenario{where}.")
    diverged = sum(record.result.diverged for record in sweep.records.values())
    if diverged:
        lines.append(f"{diverged} run{'s' * (diverged > 1)} diverged.")
    return lines


def _table(sweep: Sweep, found: list[Mean], problem: int) -> list[str]:
    names = [axis.name for axis in sweep.study.space.choices]
    is_scored = sweep.is_scored(problem)
    header = ["trial", *names, measure_name(sweep, problem), "95 % interval", *["return"] * is_scored]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    rows = [row for row in found if row.problem == problem]
    for row in rows[:_TOP]:
        choice = sweep.choice(row.trial)
        worth = "diverged" if row.diverged else f"{row.worth:.4f}"
        spread = "" if not math.isfinite(row.low) else f"[{row.low:.4f}, {row.high:.4f}]"
        values = [tables.written(choice[name]) for name in names]
        returns = [f"{row.episode_return:.4f}"] * is_scored
        lines.append(f"| {' | '.join([str(row.trial), *values, worth, spread, *returns])} |")
    if len(rows) > _TOP:
        lines += ["", f"The best {_TOP} of {len(rows)}."]
    return lines


def _best(sweep: Sweep, problem: int | None) -> list[str]:
    run = best_run(sweep, problem)
    if run is None:
        if problem is not None:
            return ["Every choice diverged."]
        if not sweep.is_scored(None):
            return ["Without scores, returns of several problems don't compare."]
        return ["Every choice diverged on a problem at least."]
    if sweep.study.schedule == "pbt":
        return [_winner_words(sweep)]
    lines = []
    gain = next((gain for gain in gains(sweep) if gain.problem == problem), None)
    if gain is not None:
        lines += [gain_words(gain, measure_name(sweep, problem), preset_name(sweep.study)), ""]
    return [*lines, "```sh", train_line(run), "```"]


def _winner_words(sweep: Sweep) -> str:
    """What population-based training came to."""
    about, _ = unsealed((sweep.folder / WINNER).read_text())
    words = (
        f"The best member is `{POLICY}`, and how its hyper-parameters changed is in `{SCHEDULE}`: no single run gives "
        f"it. On {sweep.study.episodes} episodes by which nothing was chosen its {measure_name(sweep, 0)} is "
        f"{about['worth']:.4f} [{about['low']:.4f}, {about['high']:.4f}]"
    )
    fresh = [sweep.records[Key(PRESET, 0, seed)].result.worth for seed in sweep.study.fresh_seeds]
    if not fresh:
        return f"{words}."
    preset = f"{np.mean(fresh):.4f}, from {min(fresh):.4f} to {max(fresh):.4f} over {len(fresh)} seeds"
    words += f"; that of {preset_name(sweep.study)} is {preset}."
    return f"{words} The population took {sweep.study.choices} times as many frames."


def preset_name(study: Study) -> str:
    """What the best is held against: the preset, but for its budget, or what the options made of it."""
    base = study.base
    defaults = algorithm(base.algorithm).presets[base.preset]
    plain = dataclasses.replace(base, config=defaults.config, hparams=defaults.hparams).within(study.frames)
    return "the preset" if plain == base else "the preset with the options given"


def gain_words(gain: Gain, measure: str, preset: str = "the preset") -> str:
    """A gain in a sentence, over what `preset` names."""
    if not math.isfinite(gain.gain):
        return f"Trial {gain.trial} or {preset} diverged on a fresh seed."
    if gain.is_preset:
        return f"Trial {gain.trial}, the best, is {preset} itself."
    if gain.seeds == 1:
        return (
            f"Trial {gain.trial} against {preset} on a fresh seed: {measure} {gain.best:.4f} against "
            f"{gain.preset:.4f}. One seed tells nothing apart: take more with `--fresh`."
        )
    verdict = "better than" if gain.low > 0 else "worse than" if gain.high < 0 else "not told apart from"
    return (
        f"Trial {gain.trial} is {verdict} {preset}: {measure} {gain.best:.4f} against {gain.preset:.4f}, paired "
        f"difference {gain.gain:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over {gain.seeds} fresh seeds, by which "
        "nothing was chosen. (What it scored in the sweep is too high: it was chosen for it.)"
    )


def _importance(sweep: Sweep) -> list[str]:
    if not has("optuna"):
        return ["Importance of the hyper-parameters needs optuna: pip install 'mec-jax[sweep]'."]
    problems: list[int | None] = [*range(len(sweep.study.problems))]
    rows = {
        problem_name(sweep, problem): shares
        for problem in problems
        if problem is not None and (shares := importance(sweep, problem))
    }
    if not rows:
        return []
    names = [axis.name for axis in sweep.study.space.choices]
    lines = ["## Importance", "", f"| problem | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    lines += [
        f"| {name} | {' | '.join(f'{shares.get(axis, 0):.2f}' for axis in names)} |" for name, shares in rows.items()
    ]
    return [*lines, "", "Shares by which a hyper-parameter tells the best choices from the others (PED-ANOVA)."]
