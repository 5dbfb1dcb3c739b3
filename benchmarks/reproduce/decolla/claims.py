"""The claims of Huang et al. 2022 (DeColla) on Figs. 5 and 6, and what is said of them here."""

from functools import partial

from benchmarks.harness.claims import Claim, Origin
from benchmarks.reproduce.decolla import learning_claims as learning
from benchmarks.reproduce.decolla import systems_claims as systems
from benchmarks.reproduce.decolla.readings import MOBILE, TESTBEDS
from benchmarks.reproduce.decolla.settings import CHANGE, Data

OPEN = "over readings, media and Hierarchical's splits"


def _of_learning(letter: str, where: str) -> tuple[Claim[Data], ...]:
    """Claims on one environment; those of the paper count once, where it has its testbed."""
    at, said = TESTBEDS[where].words, Origin.PAPER if where == "testbed" else Origin.REPEAT
    near, within, last = f"{learning.NEAR:.0%}", f"{learning.WITHIN:.0%}", learning.LAST
    first = (
        f"the {{}} until a seed is within {near} of shortest completion: the interval of DRL's mean less DRL-ES's "
        "is not "
        "above 0"
    )
    end = f"mean slowdown of the last {last} evaluations: the interval of DRL's mean less DRL-ES's is not above 0"

    def claim(number: int, words: str, fails_if: str, judge: object, origin: Origin = said) -> Claim[Data]:
        return Claim(f"L{number}{letter}", "Fig. 5", f"{words}, on {at}", fails_if, judge, origin)  # type: ignore[arg-type]

    return (
        claim(
            1,
            "DRL-ES converges in fewer iterations than DRL",
            first.format("iterations"),
            partial(learning.faster, where=where, unit="iterations"),
        ),
        claim(
            2,
            "In fewer environment frames, too",
            first.format("frames"),
            partial(learning.faster, where=where, unit="frames"),
            Origin.OURS,
        ),
        claim(
            3,
            "DRL-ES ends better than DRL after as many iterations",
            end,
            partial(learning.ends_better, where=where, unit="iterations"),
        ),
        claim(
            4,
            "After as many frames, too",
            end + ", DRL-ES's when it has played as many frames",
            partial(learning.ends_better, where=where, unit="frames"),
            Origin.OURS,
        ),
        claim(
            5,
            "DRL-ES and DRL beat Random, Average and Least",
            f"the worst seed's mean slowdown of the last {last} evaluations is not below the best of the three",
            partial(learning.beats_baselines, where=where),
        ),
        claim(
            6,
            "Least beats Random and Average",
            "its mean slowdown, over media and bandwidths, is not below both of theirs",
            partial(learning.least_is_better, where=where),
        ),
        claim(
            7,
            f"DRL-ES is within {within} of shortest completion",
            f"the worst seed's mean slowdown of the last {last} evaluations is more than {within} above",
            partial(learning.near_the_greedy, where=where),
            Origin.OURS,
        ),
    )


_RISE = f"the last value is not beyond the first by {CHANGE:.0%} of it, or a step goes the other way by as much"
_VARIANCE = f"{_RISE}; changes below {systems.EVEN:g} are none"

CLAIMS: dict[str, tuple[Claim[Data], ...]] = {
    "fig5": (
        *_of_learning("a", "testbed"),
        *_of_learning("b", "dynamic"),
        Claim(
            "L8",
            "Figs. 5c, 5d",
            "A decision takes no more than 1 to 2 ms",
            f"95 % of the decisions of an exported policy do not end within {1e3 * learning.CLAIMED:g} ms",
            learning.quick_decisions,
        ),
    ),
    "fig6a": (
        Claim(
            "A1",
            "Fig. 6a",
            "Hierarchical's latency falls with bandwidth and settles",
            f"{_RISE}, or more than {systems.STABLE:.0%} of the fall lies above the middle bandwidth",
            systems.hierarchical_settles,
        ),
        Claim(
            "A2",
            "Fig. 6a",
            "Partition-offloading has the best latency",
            f"at a bandwidth another's is not longer by {CHANGE:.0%}",
            systems.partition_is_best,
        ),
        Claim(
            "A3",
            "Fig. 6a",
            "Mobile-only is the least affected by bandwidth",
            f"its worst over its best latency, times {1 + systems.TIE:g}, is above another's",
            systems.mobile_does_not_care,
        ),
        Claim(
            "A4",
            "Fig. 6a",
            "Bandwidth improves the latency of Hierarchical and of DeColla",
            f"of one of them {_RISE}",
            systems.bandwidth_helps,
        ),
        Claim(
            "A5",
            "Fig. 6a",
            f"From {systems.FROM:g} Mbit/s on DeColla is faster than Hierarchical",
            f"at a bandwidth of {systems.FROM:g} Mbit/s or more its latency is not below, {OPEN}",
            systems.decolla_beats_hierarchical,
        ),
        Claim(
            "A6",
            "Fig. 6a",
            f"It is {systems.FROM:g} Mbit/s from which on it is",
            f"the least bandwidth of the grid from which on it is faster is not {systems.FROM:g} Mbit/s, {OPEN}",
            systems.crossover_at_10,
        ),
    ),
    "fig6b": (
        Claim(
            "B1",
            "Fig. 6b",
            "Partition-offloading is the least affected by the devices' usage",
            f"its latency at the highest over that at the lowest usage, times {1 + systems.TIE:g}, is above another's",
            systems.partition_does_not_care,
        ),
        Claim(
            "B2",
            "Fig. 6b",
            "Most work goes to the edge as usage rises",
            f"the part of the FLOP at the edge ends at {systems.MOST:.0%} or less, does not rise by {CHANGE:g}, "
            "or falls",
            systems.goes_to_the_edge,
        ),
        Claim(
            "B3",
            "Fig. 6b",
            "Mobile-only's latency rises dramatically with usage",
            f"a step falls, or the last latency is below {systems.DRAMATIC:g} times the first",
            systems.mobile_suffers,
        ),
        Claim(
            "B4",
            "Fig. 6b",
            "DeColla is faster than Hierarchical when usage is high",
            f"at a usage of {systems.BUSY:g} or more its latency is not below, {OPEN}",
            systems.decolla_under_load,
        ),
        Claim(
            "B5",
            "Fig. 6b",
            "Hierarchical takes a lot of time for its IP table",
            "the time would have to be published",
            systems.table_upkeep,
        ),
    ),
    "fig6c": (
        Claim(
            "C1",
            "Fig. 6c",
            "Mobile-only's variance of device use rises a little with bandwidth",
            _VARIANCE,
            systems.mobile_variance_rises,
        ),
        Claim(
            "C2",
            "Fig. 6c",
            "Partition-offloading's variance rises with bandwidth",
            f"{_VARIANCE}; over the edge's speed",
            systems.partition_variance_rises,
        ),
        Claim(
            "C3",
            "Fig. 6c",
            "DeColla's variance falls with bandwidth",
            f"{_VARIANCE}; over media",
            systems.decolla_variance_falls,
        ),
        Claim(
            "C4",
            "Fig. 6c",
            "DeColla has the least variance",
            "at a bandwidth it is not below that of all others that compute on devices at all",
            systems.decolla_is_balanced,
        ),
    ),
    "fig6d": (
        Claim(
            "D1",
            "Fig. 6d",
            "Mobile-only's variance rises with the tasks until a device is full, then falls",
            f"the largest is not {CHANGE:.0%} above the first, or the last not {CHANGE:.0%} below the largest",
            systems.mobile_fills_up,
        ),
        Claim(
            "D2",
            "Fig. 6d",
            "So does Partition-offloading's",
            "as of D1; over the edge's speed",
            systems.partition_fills_up,
        ),
        Claim(
            "D3",
            "Fig. 6d",
            "DeColla's variance falls with the tasks",
            f"{_VARIANCE}; of shortest completion and of learned policies",
            systems.decolla_evens_out,
        ),
        Claim(
            "D4",
            "Fig. 6d",
            "DeColla uses the devices more evenly than Mobile-only",
            "at a number of tasks its variance, of learned policies the interval's upper end, is above by "
            f"{systems.EVEN:g}",
            systems.decolla_shares_evenly,
        ),
        Claim(
            "D5",
            "Fig. 6d",
            "DeColla is faster under concurrent tasks",
            "at a number of tasks its mean latency, of learned policies the interval's upper end, is not below "
            f"{MOBILE}'s or Partition-offloading's",
            systems.decolla_is_fast_together,
        ),
    ),
    "fig6e": (
        Claim(
            "E1",
            "Fig. 6e",
            "Hierarchical slows significantly as one device's usage rises",
            "the interval of its latency at the highest over that at the lowest usage begins below "
            f"{systems.SIGNIFICANT:g}",
            systems.hierarchical_slows,
        ),
        Claim(
            "E2",
            "Fig. 6e",
            "DeColla then takes less time",
            "at a usage the interval of Hierarchical's over DeColla's latency is not above 1",
            partial(systems.compare_loaded, metric="processing", least=1.0),
        ),
        Claim(
            "E3",
            "Fig. 6e",
            "In DeColla devices wait significantly less",
            f"at a usage the interval of Hierarchical's over DeColla's waiting is not above {systems.SIGNIFICANT:g}",
            partial(systems.compare_loaded, metric="waiting", least=systems.SIGNIFICANT),
        ),
    ),
    "fig6f": (
        Claim(
            "F1",
            "Fig. 6f",
            f"Interrupted, Hierarchical takes at least {systems.RATIO:g} times as long as DeColla",
            f"at a kappa the interval of the ratio begins below {systems.RATIO:g}",
            systems.ratio_of_failures,
        ),
        Claim(
            "F2",
            "Fig. 6f",
            "DeColla's timeout t2 is smaller than t1 of Hierarchical",
            "the time expected of a piece is not below that of a block, on average or of the longest piece",
            systems.smaller_timeout,
        ),
    ),
    "exchange": (
        Claim(
            "K1",
            "Exchange",
            f"All elements of MobileNetV2 take {systems.ALL_SECONDS} s at {systems.FROM:g} Mbit/s and 32 bit, one "
            "device "
            f"{systems.ALONE_SECONDS:g} s",
            f"they do not round to {systems.ALL_SECONDS} and {systems.ALONE_SECONDS:g} s",
            systems.exchange_is_long,
            Origin.OURS,
        ),
        Claim(
            "K2",
            "Exchange",
            f"The crossover at {systems.FROM:g} Mbit/s does not follow from an exchange after each layer",
            f"under a rule of exchange DeColla beats Hierarchical from {systems.FROM:g} Mbit/s on or from less, "
            "at 32 bit",
            systems.no_crossover,
            Origin.OURS,
        ),
        Claim(
            "K3",
            "Exchange",
            f"Shortest completion is within {100 * systems.NEAR_OPTIMUM:g} % of the optimum on the testbed",
            f"in an episode its slowdown is more than {100 * systems.NEAR_OPTIMUM:g} % above",
            systems.greedy_is_optimal,
            Origin.OURS,
        ),
    ),
}
"""By section of the page."""
