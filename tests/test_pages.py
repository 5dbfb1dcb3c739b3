"""The committed pages follow from the committed data: text, arrays in pictures, and the summary that counts them."""

import json
import re
from functools import cache

import numpy as np
import pytest

from benchmarks.harness.claims import Origin, statuses
from benchmarks.harness.page import PLOTTED, Page, plotted, render
from benchmarks.harness.results import ROOT
from benchmarks.reproduce.summary import PAGE, PAPERS, reproduction, summary


@cache
def page(name: str) -> Page:
    """Of a paper, from the committed data."""
    return render(reproduction(name), reproduction(name).results)


def numbers(value):
    """Nested lists and tables as one list of leaves; numbers apart from the rest."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in [key, *numbers(value[key])]]
    if isinstance(value, list):
        return [len(value), *(leaf for item in value for leaf in numbers(item))]
    return [value]


@pytest.mark.parametrize("name", PAPERS)
def test_a_committed_page_is_what_its_command_writes_from_the_committed_data(name):
    folder = reproduction(name).results
    assert (folder / "README.md").read_text() == page(name).text


@pytest.mark.parametrize("name", PAPERS)
def test_the_arrays_in_the_committed_pictures_are_those_of_the_committed_data(name):
    folder = reproduction(name).results
    committed = json.loads((folder / PLOTTED).read_text())
    drawn = {figure: plotted(found) for figure, found in page(name).figures.items()}
    assert sorted(committed) == sorted(drawn) == sorted(path.stem for path in folder.glob("*.png"))
    for figure, axes in committed.items():
        then, now = numbers(axes), numbers(drawn[figure])
        assert len(then) == len(now)
        of = [i for i, leaf in enumerate(then) if isinstance(leaf, int | float) and not isinstance(leaf, bool)]
        assert [x for i, x in enumerate(then) if i not in set(of)] == [x for i, x in enumerate(now) if i not in set(of)]
        # Six digits are kept, of means that another processor adds in another order.
        np.testing.assert_allclose([now[i] for i in of], [then[i] for i in of], rtol=1e-5, atol=1e-12)


def test_what_reproduces_is_written_from_the_data_and_counts_as_the_pages_do():
    judged = {name: page(name).judged for name in PAPERS}
    text = PAGE.read_text()
    assert text == summary(judged)
    for name, found in judged.items():
        says = re.search(r"^(\d+) claims of the paper", (reproduction(name).results / "README.md").read_text(), re.M)
        row = re.search(rf"\({re.escape(f'../benchmarks/results/{name}/README.md')}\) \| (\d+) its own", text)
        assert says and row
        own = statuses(found, Origin.PAPER)
        assert int(says[1]) == int(row[1]) == sum(own.values())
    listed = [line for line in text.splitlines() if re.match(r"\| [A-Z][a-z]+ et al\. \d+ \| ", line)]
    assert len(listed) == sum(len(found) for found in judged.values())


def test_the_readme_counts_as_the_summary_does():
    row = re.search(r"\*\*all papers\*\* \| \*\*(\d+) their own\*\* \| (.*) \|", PAGE.read_text())
    assert row
    counts = [int(x) for x in re.findall(r"\d+", row[2])]
    told = ("hold", "hold only in part", "do not hold", "are undetermined", "need what is not public", "were not run")
    sentence = re.search(
        r"Of (\d+) claims of the five papers (.*?): \[what reproduces\]", (ROOT / "README.md").read_text(), re.S
    )
    assert sentence and sentence[1] == row[1]
    words = " ".join(sentence[2].split())
    assert [int(re.search(rf"(\d+) {one}", words)[1]) for one in told] == counts  # type: ignore[index]
