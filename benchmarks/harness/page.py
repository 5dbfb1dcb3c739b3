"""Pages of verdicts in Markdown."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.figure import Figure

from benchmarks.harness.machine import described, machine
from benchmarks.harness.verdicts import Status, Verdict

MARKS = {Status.HOLDS: "yes", Status.ONLY_WHEN: "partly", Status.FAILS: "no", Status.NOT_PUBLIC: "not public"}
"""Of statuses, where there is no room for words."""


class Claim(Protocol):
    """What a paper says, in our words."""

    @property
    def id(self) -> str:
        """By which it is named on the page."""

    @property
    def words(self) -> str:
        """What it says."""


def head(title: str, paper: str, command: str, verdicts: Collection[Verdict], about_them: str) -> list[str]:
    """The first lines: title, paper, what was typed, how many claims hold.

    Args:
        title: Of the page.
        paper: Authors, title, where.
        command: What made the page.
        verdicts: All of them.
        about_them: How they come about.
    """
    statuses = [verdict.status for verdict in verdicts]
    count = ", ".join(f'{statuses.count(status)} "{status}"' for status in Status if status in statuses)
    return [
        *(f"# {title}", "", paper, "", f"    {command}", ""),
        *(f"{len(statuses)} claims: {count}. {about_them}", ""),
    ]


def taken_on(seconds: float) -> str:
    """The machine, and the time that the page took."""
    return f"Machine: {described(machine())}. Time: {seconds:.0f} s."


def verdict_table(rows: Iterable[tuple[str, str, Verdict]], said: str = "The paper says") -> Iterator[str]:
    """Id, words and verdict of each claim."""
    yield f"| | {said} | Verdict | Measured |"
    yield "|---|---|---|---|"
    for name, words, verdict in rows:
        yield f"| {name} | {words} | **{verdict.status}** | {verdict.text} |"


def sensitivity_table[C: Claim](
    settings: Iterable[str], claims: Sequence[C], judge: Callable[[C, str], Verdict]
) -> Iterator[str]:
    """How the verdicts depend on what a paper leaves out: a mark for each setting and claim."""
    yield f"| | {' | '.join(claim.id for claim in claims)} |"
    yield "|" + "---|" * (1 + len(claims))
    for setting in settings:
        yield f"| {setting} | {' | '.join(MARKS[judge(claim, setting).status] for claim in claims)} |"


def save_figures(folder: Path, figures: Mapping[str, Figure], dpi: int) -> None:
    """As `folder/NAME.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=dpi)


def print_verdicts(folder: Path, verdicts: Iterable[tuple[str, str, Verdict]]) -> None:
    """For who waits at the terminal: each claim's status, and where the page is."""
    for name, words, verdict in verdicts:
        print(f"{name}: {words}: {verdict.status}")
    print(f"page: {folder / 'README.md'}")
