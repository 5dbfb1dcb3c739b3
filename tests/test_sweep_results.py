"""What is said of sweeps is what was measured: pages and README from committed results."""

import json
import re
import statistics

import pytest

from algos.sweep.journal import Journal
from algos.sweep.study import read_study
from benchmarks.harness.results import RESULTS, ROOT
from benchmarks.learning import sweeps as learning
from benchmarks.speed import sweeps as speed

README = " ".join((ROOT / "README.md").read_text().split())


def test_pages_follow_from_what_was_measured() -> None:
    assert (learning.FOLDER / "README.md").read_text() == learning.page(learning.FOLDER)
    kept = {"cpu": json.loads((RESULTS / "sweep_speed_cpu.json").read_text())}
    assert (RESULTS / "sweep_speed.md").read_text() == speed.page(kept)


def test_every_run_of_the_sweeps_is_there_and_whole() -> None:
    for name in learning.CASES:
        folder = learning.FOLDER / name
        study, records = read_study(folder), Journal(folder / "trials.jsonl").records
        wanted = {key for trial in range(study.choices) for key in study.keys(trial)}
        assert wanted <= set(records)
        about = json.loads((folder / "found.json").read_text())
        trial, seeds = about["gain"]["trial"], study.fresh_seeds
        best, preset = (
            [records[key].result.score for key in records if key.trial == which and key.seed in seeds]
            for which in (trial, -1)
        )
        assert len(best) == len(preset) == about["gain"]["seeds"] == 10
        assert statistics.mean(best) - statistics.mean(preset) == pytest.approx(about["gain"]["gain"])


def test_readme_says_what_sweeps_find_and_how_fast_they_are() -> None:
    found = {name: json.loads((learning.FOLDER / name / "found.json").read_text())["gain"] for name in learning.CASES}
    better = [name for name, gain in found.items() if gain["low"] > 0]
    said = re.search(r"(\d) of (\d) sweeps of 40 choices found a setting better than the preset", README)
    assert said is not None and said.groups() == (str(len(better)), str(len(found)))
    about = json.loads((RESULTS / "sweep_speed_cpu.json").read_text())
    own = statistics.median(about["seconds"]["lanes"])
    ratios = [f"{statistics.median(about['seconds'][way]) / own:.1f}" for way in ("vmap", "one", "processes")]
    said = re.search(
        r"take (\d+) s as a sweep: ([\d.]+) times as long vmapped, ([\d.]+) one by one, ([\d.]+) in", README
    )
    assert said is not None and said.groups() == (f"{own:.0f}", *ratios)
