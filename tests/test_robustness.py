"""Hostile inputs: a hundredth of each campaign of `benchmarks.robustness`, and what it keeps."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness.campaign import wrong
from benchmarks.harness.results import RESULTS, ROOT
from benchmarks.robustness.__main__ import CAMPAIGNS, page, results
from benchmarks.robustness.corrupt_files import policy_fates
from benchmarks.robustness.hostile_observations import observation_fates
from mec_jax.registry import find


@pytest.mark.full
@pytest.mark.parametrize("surface", CAMPAIGNS)
def test_a_hundredth_of_each_campaign_ends_as_it_may(surface, tmp_path):
    campaign = find(CAMPAIGNS[surface])
    assert callable(campaign)
    fates = campaign(100, 1, tmp_path)
    assert not wrong({"inputs": 100, "fates": fates, "peak_bytes": 0})


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:overflow encountered", "ignore:Casting complex values")
def test_decisions_on_what_is_no_observation_are_found(tmp_path):
    def careless(policy, observation, rng):
        numbers = np.nan_to_num(np.asarray(observation, np.float32))
        return policy.act(np.where(numbers < 1e30, numbers, 0), rng)

    fates = observation_fates(200, 1, tmp_path, careless)
    assert fates["taken though it is not finite"] and any(end.startswith("crash: ") for end in fates)


@pytest.mark.full
def test_forged_policies_that_nobody_checks_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("mec_jax.policy.check_metadata", lambda metadata: None)
    assert wrong({"inputs": 100, "fates": policy_fates(100, 1, tmp_path), "peak_bytes": 0})


def test_the_committed_campaigns_are_whole_and_nothing_in_them_went_wrong():
    found = results(RESULTS / "robustness")
    assert list(found) == list(CAMPAIGNS)
    for surface, result in found.items():
        assert result["inputs"] >= 10_000, surface
        assert not wrong(result), surface
    assert (RESULTS / "robustness.md").read_text() == page(found)


def test_what_is_wrong_in_a_campaign_is_told(tmp_path: Path):
    fine = {"inputs": 2, "fates": {"taken: a valid input": 2}, "peak_bytes": 2**30}
    assert not wrong(fine)
    assert wrong({**fine, "fates": {"taken: a valid input": 1, "crash: KeyError: 'x'": 1}})
    assert wrong({**fine, "inputs": 3})
    assert wrong({**fine, "peak_bytes": 3 * 2**30})


def test_the_readme_says_what_was_measured() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    runs = re.search(r"^(\d+ of \d+) runs, ended (\d+) times, .*: ok$", (RESULTS / "kill_resume.txt").read_text(), re.M)
    assert runs is not None
    assert f"{runs[1]} runs that were ended {runs[2]} times by INT, TERM and KILL" in readme
    assert f"10 000 hostile inputs to each of {len(CAMPAIGNS)} surfaces" in readme
