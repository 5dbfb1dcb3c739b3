"""Hostile inputs: a hundredth of each campaign of `benchmarks.robustness`, and what it keeps."""

from pathlib import Path

import pytest

from benchmarks.harness.campaign import wrong
from benchmarks.harness.results import RESULTS
from benchmarks.robustness.__main__ import CAMPAIGNS, page, results
from mec_jax.registry import find


@pytest.mark.full
@pytest.mark.parametrize("surface", CAMPAIGNS)
def test_a_hundredth_of_each_campaign_ends_as_it_may(surface, tmp_path):
    campaign = find(CAMPAIGNS[surface])
    assert callable(campaign)
    fates = campaign(100, 1, tmp_path)
    assert not wrong({"inputs": 100, "fates": fates, "peak_bytes": 0})


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
