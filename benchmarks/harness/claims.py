"""Claims as data: what is said, where, what decides on it and what would have made it fail."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from benchmarks.harness.experiments import NotMeasured
from benchmarks.harness.verdicts import Status, Verdict


class Origin(StrEnum):
    """Who says it."""

    PAPER = "the paper"
    REPEAT = "the paper, judged once more elsewhere"
    OURS = "ours"


@dataclass(frozen=True)
class Claim[D]:
    """A claim in our words, and what decides on it.

    `fails_if` says how it is measured and beyond which threshold it would not hold; its numbers are those of the
    constants that `judge` decides by.
    """

    id: str  # on its page
    where: str  # figure, section or theorem
    words: str
    fails_if: str
    judge: Callable[[D], Verdict]
    origin: Origin = Origin.PAPER

    def verdict(self, data: D) -> Verdict:
        """`NOT_RUN` if an experiment it needs is missing."""
        try:
            return self.judge(data)
        except NotMeasured as missing:
            return Verdict(Status.NOT_RUN, f"lacks {missing}")


class Judged(NamedTuple):
    """A claim and what came of it."""

    claim: Claim
    verdict: Verdict


def judge_all[D](claims: Iterable[Claim[D]], data: D) -> list[Judged]:
    """Each claim with its verdict."""
    return [Judged(claim, claim.verdict(data)) for claim in claims]


def statuses(judged: Collection[Judged], origin: Origin) -> dict[Status, int]:
    """How many verdicts of each status there are on claims of an origin; no zeros."""
    found = [verdict.status for claim, verdict in judged if claim.origin is origin]
    return {status: found.count(status) for status in Status if status in found}


def counted(judged: Sequence[Judged]) -> str:
    """How many claims hold: the paper's own first, apart from repeats and ours."""
    named = {
        Origin.PAPER: "claims of the paper",
        Origin.REPEAT: "of them judged once more in another setting",
        Origin.OURS: "of ours",
    }
    parts = []
    for origin, words in named.items():
        if found := statuses(judged, origin):
            counts = ", ".join(f'{number} "{status}"' for status, number in found.items())
            parts.append(f"{sum(found.values())} {words}: {counts}")
    return "; ".join(parts) + "."
