"""What Dai et al. 2022 (Coknight) claim in Fig. 12 and Theorems 1 to 3, and how games and counts decide.

A judge on Fig. 12 gets the table of one row of `GAMES`; the page's verdict is over all of them (`cases.over_range`).
Intervals are 95 % bootstrap intervals over draws of the devices.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.harness.claims import Claim
from benchmarks.harness.verdicts import Status, Verdict, by_case, interval, shown
from benchmarks.reproduce.coknight.cases import Case, Cases, OverRange
from benchmarks.reproduce.coknight.data import DEFAULTS, DEFP, ELASTIC, FIXED, GREEDY, MILP, NASH
from benchmarks.reproduce.coknight.measured import Measured, Table

# Thresholds of the verdicts.

NEAR = 0.95  # of the optimum
FAR = 0.75  # of DEFP's reduction, at most, of what lies far below it
AT_OPTIMUM = 0.999
LINEAR = 1.1  # largest ratio of reductions a device of what grows nearly linearly
POWER, POWER_SLACK = 2, 0.05  # of the bound in N and in K, and by how much more a fit may be


def _ratio(table: Table, server: str, ours: str, theirs: str) -> np.ndarray:
    """Of reductions, [size, draw]."""
    found = table.found[server]
    return found[ours]["reduction"] / found[theirs]["reduction"]


def _near_optimum(table: Table) -> Cases:
    cases = {}
    for server in table.found:
        ratio = _ratio(table, server, DEFP, MILP)
        cases[server] = Case([interval(row)[0] >= NEAR for row in ratio], [shown(row, 100) for row in ratio])
    return Cases("DEFP's reduction as % of MILP's", cases, table.sizes)


def _far_above_greedy(table: Table) -> Cases:
    cases = {}
    for server in table.found:
        for name in GREEDY:
            ratio = _ratio(table, server, name, DEFP)
            words = [f"{100 * row.mean():.0f}" for row in ratio]
            cases[f"{name}, {server}"] = Case([interval(row)[1] <= FAR for row in ratio], words)
    return Cases("reduction as % of DEFP's", cases, table.sizes)


def _less_variance(table: Table) -> Cases:
    cases = {}
    for server, found in table.found.items():
        for metric, name in (("var_cut", "Var(y)"), ("var_utility", "Var(u)")):
            ours, theirs = found[DEFP][metric], found[MILP][metric]
            holds = [interval(row)[1] < 0 for row in ours - theirs]
            words = [_over(mine.mean(), other.mean()) for mine, other in zip(ours, theirs, strict=True)]
            cases[f"{name}, {server}"] = Case(holds, words)
    return Cases("DEFP's over MILP's", cases, table.sizes)


def _over(ours: float, theirs: float) -> str:
    """A ratio; 0 over 0 is none."""
    return f"{ours / theirs:.2f}" if theirs else "no MILP's"


def _reaches_optimum(table: Table) -> Cases:
    ratio = _ratio(table, FIXED, DEFP, MILP)
    words = ", ".join(
        f"{100 * row.mean():.2f} [{100 * interval(row)[0]:.2f}, {100 * interval(row)[1]:.2f}]" for row in ratio
    )
    about = f"% of MILP's at N = {', '.join(map(str, table.sizes))}, the last decides"
    return Cases(about, {FIXED: Case([interval(ratio[-1])[0] >= AT_OPTIMUM], [words])})


def _near_linear(table: Table) -> Cases:
    cases = {}
    for name in (DEFP, MILP):
        rows = table.found[ELASTIC][name]["reduction"][1:]
        ends = np.array([interval(row) for row in rows])
        each = rows.mean(1)
        words = f"{1e3 * each.min():.1f} to {1e3 * each.max():.1f}"
        cases[name] = Case([bool(ends[:, 1].max() <= LINEAR * ends[:, 0].min())], [words])
    return Cases(f"ms a device from {table.sizes[1]} to {table.sizes[-1]} devices", cases)


def _greedy_goes_local(table: Table) -> Cases:
    cases = {}
    for server, found in table.found.items():
        ours = found[DEFP]
        for name in GREEDY:
            local, spread = (found[name][metric] - ours[metric] for metric in ("local", "var_cut"))
            holds = [interval(more)[0] > 0 and interval(less)[1] < 0 for more, less in zip(local, spread, strict=True)]
            words = [
                f"{100 * more.mean():+.0f} and {less.mean():+.1f}" for more, less in zip(local, spread, strict=True)
            ]
            cases[f"{name}, {server}"] = Case(holds, words)
    return Cases("points of local devices and Var(y) more than DEFP", cases, table.sizes)


def _steps_reach_optimum(table: Table) -> Cases:
    cases = {}
    for server in table.found:
        worst = float(_ratio(table, server, NASH, MILP).min())
        cases[server] = Case([worst >= AT_OPTIMUM], [f"{100 * worst:.1f}"])
    return Cases("the worst Nash equilibrium that best responses from all-local end in, as % of MILP's", cases)


def power(x: Sequence[float], y: np.ndarray) -> float:
    """The exponent of y over x at the three largest x, where what is constant weighs least."""
    return float(np.polyfit(np.log(x[-3:]), np.log(y[-3:]), 1)[0])


def _polynomial(data: Measured) -> Verdict:
    of = data.operations
    devices, cuts = power(of.sizes, of.by_size), power(of.cuts, of.by_cuts)
    size, seconds = max(of.seconds.items())
    text = (
        f"N^{devices:.2f} from {of.sizes[-3]} to {of.sizes[-1]} devices, K^{cuts:.2f} from {of.cuts[-3]} to "
        f"{of.cuts[-1]} cuts with {of.devices} devices; {of.by_size[-1]:.0f} operations for {of.sizes[-1]} devices. "
        f"The counted algorithm ends in the solver's cuts in {of.agreed} of {of.games} games. Beside it, the solver "
        f"takes {1e3 * seconds:.0f} ms for {size} devices"
    )
    holds = max(devices, cuts) <= POWER + POWER_SLACK and of.agreed == of.games
    return Verdict(Status.HOLDS if holds else Status.FAILS, text)


def _knapsacks_are_games(data: Measured) -> Verdict:
    of = data.knapsacks
    cases = {
        "rates of requests of their own": (of.same == of.number, f"{of.same} of {of.number}"),
        "the same for all, as in eq. 19": (of.alike == of.number, f"{of.alike} of {of.number} can be written so"),
    }
    return by_case(cases, f"knapsacks of {of.items[0]} to {of.items[1]} items that keep their best value as a game: ")


def _exact_potential(data: Measured) -> Verdict:
    of = data.potential
    cases = {
        "both states fit": (of.feasible_equal == of.feasible, f"{of.feasible_equal} of {of.feasible}"),
        "a state does not fit": (of.infeasible_equal == of.infeasible, f"{of.infeasible_equal} of {of.infeasible}"),
    }
    about = f"moves with equal changes, where each player has {-of.penalty:g} in a state that does not fit: "
    return by_case(cases, about)


def _tables(data: Measured) -> Mapping[str, Table]:
    return data.tables


def _claim(claim_id: str, where: str, words: str, fails_if: str, cases: Callable[[Table], Cases]) -> Claim[Measured]:
    return Claim(claim_id, where, words, fails_if, OverRange(cases, _tables, (DEFAULTS,)))


PARTITION_CLAIMS: Sequence[Claim[Measured]] = (
    _claim(
        "P1",
        "Fig. 12",
        "DEFP is near MILP in total latency reduction",
        f"the interval of DEFP's reduction over MILP's did not lie above {100 * NEAR:.0f} %",
        _near_optimum,
    ),
    _claim(
        "P2",
        "Fig. 12",
        "the greedy algorithms lie far below DEFP",
        f"the interval of their reduction over DEFP's did not lie below {100 * FAR:.0f} %",
        _far_above_greedy,
    ),
    _claim(
        "P3",
        "Fig. 12",
        "DEFP has less variance than MILP",
        "the interval of the difference of the variances, of cuts y or utilities u, did not lie below 0",
        _less_variance,
    ),
    _claim(
        "P4",
        "Fig. 12",
        "with a fixed server DEFP comes to reach the optimum",
        f"with the most devices the interval of its reduction over MILP's did not lie above {100 * AT_OPTIMUM:.1f} %. "
        f"P1 says near, which {100 * NEAR:.0f} % are; the same results, as here, are more",
        _reaches_optimum,
    ),
    _claim(
        "P5",
        "Fig. 12",
        "with an elastic server the reductions grow nearly linearly",
        f"the reduction a device at one size were more than {LINEAR:g} times that at another, by the intervals",
        _near_linear,
    ),
    _claim(
        "P6",
        "Fig. 12",
        "greedy devices tend to run locally, so that variances are lower",
        "the interval of their part of local devices minus DEFP's did not lie above 0, or that of Var(y) not below",
        _greedy_goes_local,
    ),
    _claim(
        "P7",
        "section 5.2.3",
        "as a potential game it reaches the optimum by finitely many steps",
        f"in one game best responses ended below {100 * AT_OPTIMUM:.1f} % of MILP's reduction",
        _steps_reach_optimum,
    ),
    Claim(
        "P8",
        "Theorem 3",
        "DEFP takes O(K^2 N^2)",
        f"cuts checked for room and sums compared, counted in Algorithm 1, grew faster than N^{POWER + POWER_SLACK:g} "
        f"or K^{POWER + POWER_SLACK:g} over the three largest N and K, or the solver's cuts were others",
        _polynomial,
    ),
    Claim(
        "N1",
        "Theorem 1",
        "the problem is NP-complete: each knapsack is one",
        "a knapsack could not be written as a game by the construction of the proof, or its best value, by trying all "
        "subsets, were not that of the game's optimum, by the mixed integer program; of random small ones",
        _knapsacks_are_games,
    ),
    Claim(
        "N2",
        "Theorem 2",
        "the game, with its constraints, is an exact potential game",
        "a random move of one player changed the sum of utilities by something else than the mover's own",
        _exact_potential,
    ),
)
