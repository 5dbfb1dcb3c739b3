"""Pages of verdicts in Markdown: the text and the pictures that a folder of results makes, and nothing else."""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from benchmarks.harness.claims import Claim, Judged, Origin, counted, judge_all
from benchmarks.harness.experiments import Experiment, NotMeasured, measure_all, rounded
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.harness.verdicts import Status

MARKS = {
    Status.HOLDS: "yes",
    Status.ONLY_WHEN: "partly",
    Status.FAILS: "no",
    Status.UNDETERMINED: "?",
    Status.NOT_PUBLIC: "not public",
    Status.NOT_RUN: "not run",
}
"""Of statuses, where there is no room for words."""

PLOTTED = "plotted.json"
"""File of the arrays in a folder's pictures."""


@dataclass(frozen=True)
class Reproduction[D]:
    """What is made of one paper: everything follows from the files that measuring left in a folder."""

    name: str  # of its folder, here and in the results
    title: str
    paper: str  # authors, title, where, when
    about_verdicts: str  # how they come about
    load: Callable[[Path], D]
    claims: Sequence[Claim[D]]
    figures: Mapping[str, Callable[[D], Figure]]  # may raise `NotMeasured`
    body: Callable[[D, Sequence[Judged], Collection[str]], Iterable[str]]
    """Lines below the head, of the data, all verdicts and the names of the figures that there are."""
    dpi: int = 90

    @property
    def module(self) -> str:
        """What `python -m` runs."""
        return f"benchmarks.reproduce.{self.name}"

    @property
    def results(self) -> Path:
        """Folder of the committed results."""
        return RESULTS / self.name


class Page(NamedTuple):
    """What a folder of results makes."""

    text: str
    figures: dict[str, Figure]
    judged: list[Judged]


def render[D](reproduction: Reproduction[D], folder: Path) -> Page:
    """The page of the results in a folder.

    Args:
        reproduction: Whose.
        folder: Where measuring left its files.
    """
    data = reproduction.load(folder)
    judged = judge_all(reproduction.claims, data)
    figures = {}
    for name, draw in reproduction.figures.items():
        try:
            figures[name] = draw(data)
        except NotMeasured:
            continue
    lines = [
        *(f"# {reproduction.title}", "", reproduction.paper, ""),
        *(f"    python -m {reproduction.module}            # measure, judge, draw", ""),
        *(f"    python -m {reproduction.module} --page     # judge and draw what is measured", ""),
        *(f"{counted(judged)} {reproduction.about_verdicts}", ""),
        *reproduction.body(data, judged, figures),
    ]
    return Page("\n".join(lines).rstrip() + "\n", figures, judged)


def write_page(reproduction: Reproduction, folder: Path) -> list[Judged]:
    """Write README.md, the pictures and the arrays in them (`PLOTTED`) beside the results; the verdicts."""
    page = render(reproduction, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in page.figures.items():
        figure.savefig(folder / f"{name}.png", dpi=reproduction.dpi)
    write_result(folder / PLOTTED, json.dumps({name: plotted(figure) for name, figure in page.figures.items()}) + "\n")
    write_result(folder / "README.md", page.text)
    return page.judged


def measure_and_judge(
    reproduction: Reproduction, doc: str | None, plan: Callable[[], Sequence[Experiment]], argv: Sequence[str] | None
) -> None:
    """The command of a reproduction that has no options but where its results go and whether it measures.

    Args:
        reproduction: Whose.
        doc: Docstring of its module.
        plan: What it measures.
        argv: The command line, the process's if absent.
    """
    parser = command_line(reproduction.module, doc, reproduction.results)
    parser.add_argument("--page", action="store_true", help="measure nothing: judge and draw what is there")
    args = parser.parse_args(argv)
    if not args.page:
        measure_all(plan(), args.out, jobs=1)
    print_verdicts(args.out, write_page(reproduction, args.out))


def print_verdicts(folder: Path, judged: Iterable[Judged]) -> None:
    """For who waits at the terminal: each claim's status, and where the page is."""
    for claim, verdict in judged:
        print(f"{claim.id}: {claim.words}: {verdict.status}")
    print(f"page: {folder / 'README.md'}")


def claim_table(judged: Iterable[Judged]) -> Iterator[str]:
    """Each claim with what decides on it, what came of it and the numbers."""
    yield "| | Said | Verdict | It would fail if | Measured |"
    yield "|---|---|---|---|---|"
    for claim, verdict in judged:
        said = f"{claim.where}: {claim.words}"
        if claim.origin is not Origin.PAPER:
            said += f" ({claim.origin})"
        yield f"| {claim.id} | {said} | **{verdict.status}** | {claim.fails_if} | {verdict.text} |"


def picture(name: str, title: str, drawn: Collection[str]) -> Iterator[str]:
    """A picture, if there is one."""
    if name in drawn:
        yield from (f"![{title}]({name}.png)", "")


def sensitivity_table[D](settings: Mapping[str, D], claims: Sequence[Claim[D]]) -> Iterator[str]:
    """How verdicts depend on what a paper leaves out: a mark for each setting and claim."""
    yield f"| | {' | '.join(claim.id for claim in claims)} |"
    yield "|" + "---|" * (1 + len(claims))
    for setting, data in settings.items():
        yield f"| {setting} | {' | '.join(MARKS[claim.verdict(data).status] for claim in claims)} |"


def legend() -> str:
    """What the marks of a sensitivity table mean."""
    return ", ".join(f'"{mark}": {status}' for status, mark in MARKS.items())


# What is in a picture


def plotted(figure: Figure) -> list[dict[str, Any]]:
    """The arrays that a figure shows, by axes; to six digits, as another processor may round otherwise."""
    return [_of_axes(axes) for axes in figure.axes]


def _of_axes(axes: Axes) -> dict[str, Any]:
    return {
        "title": axes.get_title(),
        "labels": [axes.get_xlabel(), axes.get_ylabel()],
        "scales": [axes.get_xscale(), axes.get_yscale()],
        "limits": rounded([axes.get_xlim(), axes.get_ylim()]),
        "lines": [
            {"label": str(line.get_label()), "x": _numbers(line.get_xdata()), "y": _numbers(line.get_ydata())}
            for line in axes.get_lines()
        ],
        "areas": [
            rounded(np.ma.filled(np.ma.asarray(found.get_array(), float), np.nan).ravel())
            if isinstance(found, QuadMesh)
            else [rounded(path.vertices) for path in found.get_paths()]
            for found in axes.collections
        ],
        "bars": [rounded(patch.get_path().transformed(patch.get_patch_transform()).vertices) for patch in axes.patches],
    }


def _numbers(values: Any) -> Any:
    return rounded(np.asarray(values, float))
