"""No committed learning curve lies above what no policy exceeds, in the episodes that it was measured on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algos.curves import check_bound, ruler_lines
from benchmarks.harness.results import RESULTS
from benchmarks.learning.leaderboard import curve_episodes, curves_of, title
from mec_jax.evaluation import Report

RULERS: dict[str, Any] = json.loads((RESULTS / "learning_rulers.json").read_text())
RUNS = sorted((RESULTS / "learning").glob("*.json"))


def report(name: str) -> Report:
    """One whose rulers have these returns in every episode."""
    rulers = RULERS[name]
    returns = {ruler: np.array([value]) for ruler, value in rulers["returns"].items()}
    return Report(name, 1, 1, (), {}, one=rulers["one"], bound=rulers["bound"], ruler_returns=returns)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_committed_curves_stay_below_the_bound(path: Path) -> None:
    run = json.loads(path.read_text())
    found = report(title(run))
    assert run["curve_episodes"] == RULERS[title(run)]["episodes"]
    check_bound(path.stem, curves_of(run), found, ruler_lines(found))


def test_a_curve_above_the_bound_is_refused() -> None:
    found = report("NeuronAllocation-v0")
    above = 0.999 * RULERS["NeuronAllocation-v0"]["returns"]["Lower bound"]
    with pytest.raises(ValueError, match=r"Mine has a return of .* above Lower bound"):
        check_bound("Mine", [(np.array([1.0]), np.array([above]))], found, ruler_lines(found))


def test_curves_of_other_episodes_are_refused_beside_each_other() -> None:
    run = json.loads((RESULTS / "learning" / "mahppo_fast_MultiUEOffloading-v0_num_ues3.json").read_text())
    assert curve_episodes([run, run]) == run["curve_episodes"]
    with pytest.raises(ValueError, match=r"num_ues 3 are means of unlike numbers of episodes"):
        curve_episodes([run, run | {"preset": "other", "curve_episodes": 16}])


def test_curves_with_a_bound_are_among_the_committed_ones() -> None:
    assert sum(RULERS[title(json.loads(path.read_text()))]["bound"] is not None for path in RUNS) >= 12
