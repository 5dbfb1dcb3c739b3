"""What reproduces: all claims of all papers in one table, from the data behind their pages.

python -m benchmarks.reproduce    # writes docs/what-reproduces.md
"""

import importlib
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness.claims import Judged, Origin, statuses
from benchmarks.harness.page import Reproduction, render
from benchmarks.harness.results import ROOT, command_line, write_result
from benchmarks.harness.verdicts import Status

PAPERS = {
    "mahppo": "Hao et al. 2022 (MAHPPO)",
    "multi_exit": "Ma et al. 2025 (multi-exit)",
    "coknight": "Dai et al. 2022 (Coknight)",
    "decolla": "Huang et al. 2022 (DeColla)",
    "mu": "Mu et al. 2024 (compression)",
}
"""By folder."""

PAGE = ROOT / "docs" / "what-reproduces.md"

NAMED = {Origin.PAPER: "its own", Origin.REPEAT: "judged once more", Origin.OURS: "ours"}


def reproduction(name: str) -> Reproduction:
    """That of a paper, by its folder."""
    found = importlib.import_module(f"benchmarks.reproduce.{name}.page").REPRODUCTION
    assert isinstance(found, Reproduction)
    return found


def judged_papers() -> dict[str, list[Judged]]:
    """All verdicts from the committed data, by folder."""
    found = {name: reproduction(name) for name in PAPERS}
    return {name: render(one, one.results).judged for name, one in found.items()}


def summary(papers: Mapping[str, list[Judged]]) -> str:
    """The page."""
    lines = [
        "# What reproduces",
        "",
        "Every claim of the papers that this suite implements, and what came of it here; written from the data behind "
        "the papers' pages by `python -m benchmarks.reproduce`, which a test compares. How each verdict is computed "
        "and what was measured is on the pages, with the figures.",
        "",
        "- **holds**: with the whole 95 % interval, beyond a threshold that is smaller than the effect.",
        "- **holds only when**: in some of the cases that the claim is about, which the page names; or wholly with "
        "some values of what the paper leaves out, and in part with all others.",
        "- **does not hold**: in none of them.",
        "- **undetermined**: it holds, be it in part, with some values of what the paper leaves out, and not with "
        "others.",
        "- **needs what is not public**, **not run**: as they say.",
        "",
        "A claim that is judged once more stands in another setting; ours are not in the papers. Of the fifth paper, "
        "on pruning, cutting and packing together, what is said of accuracy is judged by networks compressed on other "
        "images than its own, Fashion-MNIST at 32 x 32; its page has both predictors of accuracy side by side.",
        "",
        f"| paper | claims | {' | '.join(Status)} |",
        "|" + "---|" * (2 + len(Status)),
    ]
    for name, judged in papers.items():
        for origin, words in NAMED.items():
            if found := statuses(judged, origin):
                counts = " | ".join(str(found.get(status, 0)) for status in Status)
                link = f"[{PAPERS[name]}](../benchmarks/results/{name}/README.md)"
                lines.append(f"| {link} | {sum(found.values())} {words} | {counts} |")
    total = statuses([one for judged in papers.values() for one in judged], Origin.PAPER)
    counts = " | ".join(f"**{total.get(status, 0)}**" for status in Status)
    lines += [f"| **all papers** | **{sum(total.values())} their own** | {counts} |", ""]
    lines += ["| paper | | said | verdict | it would fail if |", "|---|---|---|---|---|"]
    for name, judged in papers.items():
        for claim, verdict in judged:
            said = f"{claim.where}: {claim.words}"
            said += "" if claim.origin is Origin.PAPER else f" ({NAMED[claim.origin]})"
            paper = PAPERS[name].split(" (")[0]
            lines.append(f"| {paper} | {claim.id} | {said} | **{verdict.status}** | {claim.fails_if} |")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Judge everything and write the page."""
    parser = command_line("benchmarks.reproduce", __doc__)
    parser.add_argument("--out", type=Path, default=PAGE, help="the page's file (default: docs/what-reproduces.md)")
    args = parser.parse_args(argv)
    write_result(args.out, summary(judged_papers()))
    print(f"page: {args.out}")
