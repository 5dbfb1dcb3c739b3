"""The committed pages follow from the committed data: text, arrays in pictures, and the summary that counts them."""

import json
import re

import numpy as np
import pytest

from benchmarks.harness.claims import Origin, statuses
from benchmarks.harness.page import PLOTTED, plotted, render
from benchmarks.harness.results import ROOT
from benchmarks.reproduce.summary import PAGE, PAPERS, reproduction, summary


@pytest.fixture(scope="module")
def pages():
    """Of all papers, from the committed data."""
    found = {name: reproduction(name) for name in PAPERS}
    return {name: render(one, one.results) for name, one in found.items()}


def numbers(value):
    """Nested lists and tables as one list of leaves; numbers apart from the rest."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in [key, *numbers(value[key])]]
    if isinstance(value, list):
        return [len(value), *(leaf for item in value for leaf in numbers(item))]
    return [value]


@pytest.mark.parametrize("name", PAPERS)
def test_a_committed_page_is_what_its_command_writes_from_the_committed_data(pages, name):
    folder = reproduction(name).results
    assert (folder / "README.md").read_text() == pages[name].text


@pytest.mark.parametrize("name", PAPERS)
def test_the_arrays_in_the_committed_pictures_are_those_of_the_committed_data(pages, name):
    folder = reproduction(name).results
    committed = json.loads((folder / PLOTTED).read_text())
    drawn = {figure: plotted(found) for figure, found in pages[name].figures.items()}
    assert sorted(committed) == sorted(drawn) == sorted(path.stem for path in folder.glob("*.png"))
    for figure, axes in committed.items():
        then, now = numbers(axes), numbers(drawn[figure])
        assert len(then) == len(now)
        of = [i for i, leaf in enumerate(then) if isinstance(leaf, int | float) and not isinstance(leaf, bool)]
        assert [x for i, x in enumerate(then) if i not in set(of)] == [x for i, x in enumerate(now) if i not in set(of)]
        # Six digits are kept, of means that another processor adds in another order.
        np.testing.assert_allclose([now[i] for i in of], [then[i] for i in of], rtol=1e-5, atol=1e-12)


def test_what_reproduces_is_written_from_the_data_and_counts_as_the_pages_do(pages):
    judged = {name: page.judged for name, page in pages.items()}
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
    words = ("hold", "hold only in part", "do not hold", "are undetermined", "need what is not public", "were not run")
    told = ", ".join(f"{count} {word}" for count, word in zip(counts, words, strict=True) if count)
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"Of {row[1]} claims of the four papers {told}" in readme.replace(" and ", ", ").replace(",,", ",")
