"""How a claim is judged over the cases that it is about and over the settings that the paper leaves out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from benchmarks.harness.claims import Claim
from benchmarks.harness.verdicts import Status, Verdict, in_part, in_settings
from benchmarks.reproduce.coknight.measured import Measured


class Case(NamedTuple):
    """Whether a claim holds in one case, and the numbers: one of each, or one for each of the points of `Cases`."""

    holds: Sequence[bool]
    words: Sequence[str]


@dataclass(frozen=True)
class Cases:
    """What a claim is about, in one setting."""

    about: str  # what the numbers are
    cases: Mapping[str, Case]
    points: tuple[int, ...] = ()  # devices N, if each case is judged at several

    def verdict(self) -> Verdict:
        """In this setting alone."""
        holds = {name: case.holds for name, case in self.cases.items()}
        words = [f"{', '.join(case.words)} ({name})" for name, case in self.cases.items()]
        text = f"{self.about}: {'; '.join(words)}"
        return in_part([held for case in holds.values() for held in case], f"{self.where(holds)}. {text}", text)

    def where(self, held: Mapping[str, Sequence[bool]]) -> str:
        """Names of the cases that are held, and the points if not all of them are."""
        names = []
        for name, at in held.items():
            if all(at):
                names.append(name)
            elif any(at):
                points = (str(point) for point, here in zip(self.points, at, strict=True) if here)
                names.append(f"{name} at N = {', '.join(points)}")
        return " / ".join(names)


def over_range(found: Mapping[str, Cases], told: Sequence[str]) -> Verdict:
    """The verdict over the settings that the paper leaves out.

    A case holds or does not if it is so in all settings, and else is undetermined. The claim holds if all its cases do;
    it holds only in those that hold in all settings, if there are some; where there are none, it is undetermined if a
    case is, and else does not hold.

    Args:
        found: By setting, all with the same cases.
        told: Settings whose numbers are told, the defaults.
    """
    some = found[told[0]]
    statuses = {
        name: [
            in_settings(
                {
                    setting: Verdict(Status.HOLDS if of.cases[name].holds[at] else Status.FAILS, "")
                    for setting, of in found.items()
                },
                told[0],
            ).status
            for at in range(len(case.holds))
        ]
        for name, case in some.cases.items()
    }
    words = []
    for name, case in some.cases.items():
        numbers = []
        for at in range(len(case.holds)):
            here = list(dict.fromkeys(found[setting].cases[name].words[at] for setting in told))
            count = sum(bool(of.cases[name].holds[at]) for of in found.values())
            numbers.append(f"{' / '.join(here)} [{count} of {len(found)}]")
        words.append(f"{', '.join(numbers)} ({name})")
    at_points = f" at N = {', '.join(map(str, some.points))}" if some.points else ""
    text = f"{some.about}{at_points}, with {' / '.join(told)} [settings in which it holds]: {'; '.join(words)}"
    flat = [status for of in statuses.values() for status in of]
    if Status.HOLDS in flat:
        held = {name: [status is Status.HOLDS for status in of] for name, of in statuses.items()}
        rest = sorted({str(status) for status in flat} - {str(Status.HOLDS)}, reverse=True)
        return in_part(
            [status is Status.HOLDS for status in flat], f"{some.where(held)}; else {' or '.join(rest)}. {text}", text
        )
    return Verdict(Status.UNDETERMINED if Status.UNDETERMINED in flat else Status.FAILS, text)


@dataclass(frozen=True)
class OverRange[S]:
    """The judge of a claim that depends on a setting."""

    cases: Callable[[S], Cases]
    settings: Callable[[Measured], Mapping[str, S]]
    told: tuple[str, ...]

    def __call__(self, data: Measured) -> Verdict:
        """Over all settings."""
        return over_range({name: self.cases(of) for name, of in self.settings(data).items()}, self.told)


def in_one_setting(claims: Sequence[Claim[Measured]]) -> list[Claim[Any]]:
    """Claims that depend on a setting, to be judged in one of them."""

    def alone(judge: OverRange[Any]) -> Callable[[Any], Verdict]:
        return lambda setting: judge.cases(setting).verdict()

    return [replace(claim, judge=alone(claim.judge)) for claim in claims if isinstance(claim.judge, OverRange)]
