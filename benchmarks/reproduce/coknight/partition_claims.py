"""What Dai et al. 2022 (Coknight) claim in Fig. 12 and Theorem 3, and how the games decide.

A judge gets the table of one row of `GAMES`, the sizes and the times.
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.harness.verdicts import Status, Verdict, by_case
from benchmarks.reproduce.coknight.data import CLOSE, SAME, Claim
from benchmarks.reproduce.coknight.partition import DEFP, ELASTIC, FIXED, GREEDY, MILP, NASH, Reductions, Times

# Thresholds of the verdicts.

NEAR = 0.95  # of the optimum
FAR = 0.75  # of DEFP's reduction, at most, of what lies far below it
AT_OPTIMUM = 0.999
POWER_SLACK = 0.2  # by which a measured exponent may exceed the bound's


def power(x: Sequence[float], y: np.ndarray) -> float:
    """The exponent of y over x at the three largest x, where what is constant weighs least."""
    return float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0])


def _near_optimum(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        ratio = found[DEFP]["reduction"] / found[MILP]["reduction"]
        cases[server] = bool((ratio.mean(1) >= NEAR).all()), f"{100 * ratio.mean(1).min():.1f}"
    return by_case(cases, "DEFP's reduction as % of MILP's, at the worst size: ")


def _far_above_greedy(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        for name in GREEDY:
            ratio = (found[name]["reduction"] / found[DEFP]["reduction"]).mean(1)
            words = ", ".join(f"{100 * x:.0f}" for x in ratio)
            cases[f"{name}, {server}"] = bool(ratio[-1] <= FAR), words
    return by_case(cases, f"reduction as % of DEFP's with {', '.join(map(str, sizes))} devices, the last decides: ")


def _less_variance(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        for metric, name in (("var_cut", "Var(y)"), ("var_utility", "Var(u)")):
            ours, theirs = found[DEFP][metric].mean(1), found[MILP][metric].mean(1)
            crowded = theirs > 0
            ratio = ours[crowded] / theirs[crowded]
            words = ", ".join(f"{x:.2f}" for x in ratio)
            cases[f"{name}, {server}"] = bool(ratio.size and ratio[-1] < 1 - SAME), words
    return by_case(cases, "DEFP's over MILP's where that is not 0, the largest size decides: ")


def _reaches_optimum(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    ratio = (table[FIXED][DEFP]["reduction"] / table[FIXED][MILP]["reduction"]).mean(1)
    text = f"{', '.join(f'{100 * x:.2f}' for x in ratio)} % of MILP's with {', '.join(map(str, sizes))} devices"
    return Verdict(Status.HOLDS if ratio[-1] >= AT_OPTIMUM else Status.FAILS, text)


def _near_linear(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for name in (DEFP, MILP):
        each = table[ELASTIC][name]["reduction"].mean(1)[1:]
        cases[name] = bool(each.max() / each.min() <= 1 + CLOSE), f"{1e3 * each.min():.1f} to {1e3 * each.max():.1f}"
    return by_case(cases, f"ms a device, with {sizes[1]} to {sizes[-1]} devices: ")


def _greedy_goes_local(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        for name in GREEDY:
            local, var = found[name]["local"][-1].mean(), found[name]["var_cut"][-1].mean()
            theirs, ours = found[DEFP]["local"][-1].mean(), found[DEFP]["var_cut"][-1].mean()
            words = f"{100 * local:.0f} and {100 * theirs:.0f} % local, Var(y) {var:.1f} and {ours:.1f}"
            cases[f"{name}, {server}"] = bool(local > theirs and var < ours), words
    return by_case(cases, f"it and DEFP, with {sizes[-1]} devices: ")


def _steps_reach_optimum(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    cases = {}
    for server, found in table.items():
        ratio = found[NASH]["reduction"] / found[MILP]["reduction"]
        cases[server] = bool(ratio.min() >= AT_OPTIMUM), f"{100 * ratio.min():.1f}"
    return by_case(cases, "the worst Nash equilibrium that best responses from all-local end in, as % of MILP's: ")


def _polynomial(table: Reductions, sizes: Sequence[int], times: Times) -> Verdict:
    devices, cuts = power(times.sizes, times.by_size), power(times.cuts, times.by_cuts)
    text = (
        f"time grows as N^{devices:.2f} from {times.sizes[-3]} to {times.sizes[-1]} devices and as K^{cuts:.2f} from "
        f"{times.cuts[-3]} to {times.cuts[-1]} cuts; {1e3 * times.by_size[-1]:.0f} ms for {times.sizes[-1]} devices"
    )
    holds = max(devices, cuts) <= 2 + POWER_SLACK
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


PARTITION_CLAIMS = (
    Claim("P1", "Fig. 12: DEFP is near MILP in total latency reduction", _near_optimum),
    Claim("P2", "Fig. 12: the greedy algorithms lie far below DEFP", _far_above_greedy),
    Claim("P3", "Fig. 12: DEFP has less variance than MILP", _less_variance),
    Claim("P4", "Fig. 12: with a fixed server DEFP comes to reach the optimum", _reaches_optimum),
    Claim("P5", "Fig. 12: with an elastic server the reductions grow nearly linearly", _near_linear),
    Claim("P6", "Fig. 12: greedy devices tend to run locally, so that variances are lower", _greedy_goes_local),
    Claim(
        "P7", "Section 5.2.3: as a potential game it reaches the optimum by finitely many steps", _steps_reach_optimum
    ),
    Claim("P8", "Theorem 3: DEFP takes O(K^2 N^2)", _polynomial),
)
