"""Verdicts on made-up results: each kind holds where it should, and fails on a result that must fail it."""

import numpy as np
import pytest

from benchmarks.harness import verdicts
from benchmarks.harness.claims import Claim, Origin, counted, judge_all, statuses
from benchmarks.harness.experiments import NotMeasured
from benchmarks.harness.page import sensitivity_table
from benchmarks.harness.verdicts import Status, Verdict
from benchmarks.reproduce.mahppo import claims


def around(*means):
    """Five seeds around each mean, [point, seed]."""
    return np.array(means, float)[:, None] + 0.01 * np.arange(-2, 3)


def curves(*ends):
    """Curves [seed, chunk] of five seeds through these values at even distances."""
    steps = np.interp(np.linspace(0, len(ends) - 1, 20), np.arange(len(ends)), ends)
    return steps[None] * np.ones((5, 1))


HOLDS, FAILS = Verdict(Status.HOLDS, "a"), Verdict(Status.FAILS, "b")
X = [1, 2, 3, 4]
ACROSS = np.array([[1.0, 2.0, 1.0, 2.0, 1.4]])
KINDS = {
    "trend, flat": lambda: verdicts.trend("x", X, around(1, 1, 1, 1), True, ""),
    "trend, the other way": lambda: verdicts.trend("x", X, around(1, 2, 3, 4), False, ""),
    "monotone, falls at the end": lambda: verdicts.monotone("x", X, around(1, 2, 3, 2), True, ""),
    "monotone, one step alone": lambda: verdicts.monotone("x", X, around(1, 1, 1, 2), True, ""),
    "beyond, on the wrong side": lambda: verdicts.beyond("x", [7], around(2), np.array([1.5]), True, "s"),
    "beyond, interval across": lambda: verdicts.beyond("x", [7], ACROSS, np.array([1.5]), True, "s"),
    "converged, still rising": lambda: verdicts.converged("N", [5], [curves(-5, -1)]),
    "converged, slowly rising": lambda: verdicts.converged("N", [5], [curves(-9, -1.3, -1)]),
    "converged, still falling": lambda: verdicts.converged("N", [5], [curves(-1, -5)]),
    "greater, equal": lambda: verdicts.greater(np.arange(5.0), np.arange(5.0), ("a", "b")),
    "greater, less": lambda: verdicts.greater(np.arange(5.0), np.arange(5.0) + 9, ("a", "b")),
    "nearer, to no effect": lambda: verdicts.nearer({"a": (0.98, 0.9, 1.0)}),
    "nearer, wrong sign": lambda: verdicts.nearer({"a": (1.05, 0.95, 1.0)}),
    "by point": lambda: verdicts.by_point("x", [1, 2], [False, False], ""),
    "by case": lambda: verdicts.by_case({"a": (False, "1")}),
    "together": lambda: verdicts.together({"a": FAILS, "b": FAILS}),
    "together, one left open": lambda: verdicts.together({"a": FAILS, "b": Verdict(Status.NOT_PUBLIC, "")}),
    "in settings": lambda: verdicts.in_settings({"a": FAILS, "b": FAILS}, "a"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_verdict_fails_on_a_result_against_it(kind):
    assert KINDS[kind]().status == Status.FAILS


def test_trend():
    assert verdicts.trend("x", X, around(1, 2, 3, 4), True, "").status == Status.HOLDS
    assert verdicts.trend("x", X, around(4, 3, 2, 1), False, "").status == Status.HOLDS
    assert verdicts.trend("x", X[:2], around(1, 2), True, "").status == Status.NOT_RUN
    assert "1.00 [1.00, 1.00]" in verdicts.trend("x", X, around(1, 2, 3, 4), True, "").text


def test_monotone_needs_every_step():
    assert verdicts.monotone("x", X, around(1, 2, 3, 4), True, "").status == Status.HOLDS
    assert verdicts.monotone("x", X, around(1, 2, 3, 3.001), True, "").status == Status.HOLDS  # a step within the noise
    part = verdicts.monotone("x", [*X, 5], around(3, 1, 2, 3, 4), True, "")
    assert part.status == Status.ONLY_WHEN and part.text.startswith("x is at least 2: ")


def test_beyond_tells_points_apart():
    values, bounds = around(1, 2), np.array([1.5, 1.5])
    verdict = verdicts.beyond("x", [7, 8], values, bounds, below=True, unit="s")
    assert verdict.status == Status.ONLY_WHEN and verdict.text.startswith("x = 7: 1 [")
    assert verdicts.beyond("x", [7, 8], values - 1, bounds, below=True, unit="s").status == Status.HOLDS


def test_greater_nearer_together_and_of_surrogate():
    assert verdicts.greater(np.arange(5) + 10.0, np.arange(5.0), ("a", "b")).status == Status.HOLDS
    assert verdicts.nearer({"a": (0.91, 0.9, 1.0)}).status == Status.HOLDS
    assert verdicts.nearer({"a": (0.91, 0.9, 1.0), "b": (1.0, 0.9, 1.0)}).status == Status.ONLY_WHEN
    assert verdicts.together({"a": HOLDS, "b": HOLDS}).status == Status.HOLDS
    assert verdicts.together({"a": FAILS, "b": HOLDS}).status == Status.ONLY_WHEN
    assert claims.of_surrogate(HOLDS).status == Status.ONLY_WHEN
    assert claims.of_surrogate(FAILS).status == Status.NOT_PUBLIC


def test_what_flips_over_the_settings_is_undetermined():
    part = Verdict(Status.ONLY_WHEN, "c")
    flips = verdicts.in_settings({"a": HOLDS, "b": FAILS, "c": part}, "b")
    assert flips.status == Status.UNDETERMINED
    parts = (
        "holds in 1 of 3 settings (a)",
        "does not hold in 1 of 3 settings (b)",
        "holds only when in 1 of 3 settings (c)",
    )
    assert flips.text == f"{'; '.join(parts)}. With b: b"
    many = verdicts.in_settings({"a": HOLDS, **{f"b{i}": FAILS for i in range(9)}}, "a")
    assert many.text == "holds in 1 of 10 settings (a); does not hold in 9 of 10 settings. With a: a"
    assert verdicts.in_settings({"a": HOLDS, "b": HOLDS}, "a") == Verdict(Status.HOLDS, "a (so in all 2 settings)")
    assert verdicts.in_settings({"a": HOLDS, "b": part}, "a").status == Status.ONLY_WHEN
    assert verdicts.in_settings({"a": FAILS, "b": part}, "a").status == Status.UNDETERMINED
    hidden = Verdict(Status.NOT_PUBLIC, "d")
    assert verdicts.in_settings({"a": FAILS, "b": hidden}, "a").status == Status.FAILS  # nothing holds
    assert verdicts.in_settings({"a": HOLDS, "b": hidden}, "a").status == Status.UNDETERMINED


def test_converged_settling_and_reaching():
    frames = list(range(0, 1000, 50))
    flat, rising = np.minimum(curves(-5, 5), -1), curves(-5, -1)
    assert verdicts.converged("N", [5], [flat]).status == Status.HOLDS
    assert verdicts.converged("N", [5, 6], [flat, rising]).status == Status.ONLY_WHEN
    noisy = flat + 0.3 * np.array([-1, -1, 0, 1, 1])[:, None] * (np.arange(20) >= 16)
    assert verdicts.converged("N", [5], [noisy]).status == Status.FAILS  # some seeds still rise, others fall
    assert verdicts.frames_to_reach(rising, frames, -3).tolist() == [500] * 5
    assert verdicts.frames_to_reach(rising, frames, 0).tolist() == [950] * 5  # never
    assert verdicts.settling_frames(flat, frames, 0.5).tolist() == [350] * 5
    assert verdicts.settling_frames(np.full((2, 20), 3.0), frames, 0.5).tolist() == [0, 0]


def test_claims_are_counted_by_who_makes_them():
    def lacking(_):
        raise NotMeasured("a file")

    some: tuple[Claim[Verdict], ...] = (
        Claim("A", "Fig. 1", "x", "y", lambda _: HOLDS),
        Claim("B", "Fig. 1", "x", "y", lambda _: FAILS),
        Claim("C", "Fig. 1", "x", "y", lacking, Origin.REPEAT),
        Claim("D", "Fig. 1", "x", "y", lambda data: data, Origin.OURS),
    )
    judged = judge_all(some, HOLDS)
    assert judged[2].verdict == Verdict(Status.NOT_RUN, "lacks a file")
    assert statuses(judged, Origin.PAPER) == {Status.HOLDS: 1, Status.FAILS: 1}
    assert counted(judged) == (
        '2 claims of the paper: 1 "holds", 1 "does not hold"; 1 of them judged once more in another setting: '
        '1 "not run"; 1 of ours: 1 "holds".'
    )
    table = list(sensitivity_table({"here": HOLDS, "there": FAILS}, [some[1], some[3]]))
    assert table == ["| | B | D |", "|---|---|---|", "| here | no | yes |", "| there | no | no |"]
