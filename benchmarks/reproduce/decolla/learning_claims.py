"""How the results decide on what Huang et al. 2022 (DeColla) say of Fig. 5, and on what is said of it here."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.harness.verdicts import Status, Verdict, difference_interval, in_settings
from benchmarks.reproduce.decolla.readings import AVERAGE, LEARNING_MEDIA, LEAST, MEDIA, RANDOM, SHORTEST
from benchmarks.reproduce.decolla.settings import Data, judged

ES, DRL, BOUND = "DRL-ES", "DRL", "Lower bound"
NAIVE = (RANDOM, AVERAGE, LEAST)
NEAR = 0.02  # a curve has converged where it is this near to shortest completion
WITHIN = 0.05  # of shortest completion
LAST = 3  # evaluations that an end value is the mean of
CLAIMED = 2e-3  # s, of a decision
PAPER, CARRIED = "the paper's settings", "the paper's settings, population carried"
OURS = "our settings"


@dataclass(frozen=True)
class Curves:
    """Mean slowdowns of the pieces that were learned in one environment, in the episodes of the rulers."""

    iterations: Mapping[str, np.ndarray]  # by algorithm, [evaluation]
    frames: Mapping[str, np.ndarray]  # [evaluation]
    slowdown: Mapping[str, np.ndarray]  # [seed, evaluation]
    rulers: Mapping[str, float]


def curves_of(data: Data, es: str, drl: str) -> Curves:
    """Of the experiments that learned by DRL-ES and DRL."""
    found = {ES: data.results[es], DRL: data.results[drl]}

    def arrays(name: str) -> dict[str, np.ndarray]:
        return {algorithm: np.array(content[name], float) for algorithm, content in found.items()}

    return Curves(arrays("iterations"), arrays("frames"), arrays("slowdown"), found[ES]["rulers"])


def settings(data: Data, where: str) -> dict[str, Curves]:
    """What was learned on the testbed, in our settings and the paper's, or in another environment."""
    ours = {OURS: curves_of(data, f"curve_{where}_es", f"curve_{where}_drl")}
    if where != "testbed":
        return ours
    paper = {PAPER: "paper_theta", CARRIED: "paper_carried"}
    return ours | {name: curves_of(data, es, "paper_drl") for name, es in paper.items()}


def in_all(verdicts: Mapping[str, Verdict]) -> Verdict:
    """`in_settings`; of one setting, its verdict."""
    return next(iter(verdicts.values())) if len(verdicts) == 1 else in_settings(verdicts, next(iter(verdicts)))


def until_near(curves: Curves, name: str, axis: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where each seed's curve first comes within `NEAR` of shortest completion; infinite if never."""
    near = curves.slowdown[name] <= (1 + NEAR) * curves.rulers[SHORTEST]
    return np.where(near.any(1), axis[name][near.argmax(1)], np.inf)


def faster(data: Data, where: str, unit: str) -> Verdict:
    """Whether the whole interval of the difference is in favour of DRL-ES; what never comes near counts by its end."""

    def one(curves: Curves) -> Verdict:
        axis = curves.iterations if unit == "iterations" else curves.frames
        es, drl = until_near(curves, ES, axis), until_near(curves, DRL, axis)
        ends = np.minimum(es, axis[ES][-1]), np.minimum(drl, axis[DRL][-1])
        low, high = difference_interval(ends[1], ends[0])
        text = (
            f"within {NEAR:.0%} of shortest completion after {_span(es)} {unit}, DRL {_span(drl)} (medians of seeds); "
            f"difference of means [{low:,.0f}, {high:,.0f}]"
        )
        return judged(low > 0, text)

    return in_all({name: one(curves) for name, curves in settings(data, where).items()})


def _span(values: np.ndarray) -> str:
    middle = float(np.quantile(values, 0.5, method="higher"))  # a seed's, so that one may be infinite
    return f"{_count(middle)} [{_count(values.min())}, {_count(values.max())}]"


def _count(value: float) -> str:
    return f"{value:,.0f}" if np.isfinite(value) else "never"


def final(curves: Curves, name: str) -> np.ndarray:
    """Mean slowdown of the last evaluations, by seed."""
    return curves.slowdown[name][:, -LAST:].mean(1)


def ends_better(data: Data, where: str, unit: str) -> Verdict:
    """Whether DRL-ES has the smaller slowdown after all iterations, or after as many frames as DRL had."""

    def one(curves: Curves) -> Verdict:
        drl, es = final(curves, DRL), final(curves, ES)
        if unit == "frames":
            place = int(np.searchsorted(curves.frames[ES], curves.frames[DRL][-1]))
            es = curves.slowdown[ES][:, max(0, place + 1 - LAST) : place + 1].mean(1)
        low, high = difference_interval(drl, es)
        return judged(low > 0, f"slowdown {es.mean():.4f}, DRL {drl.mean():.4f}; less by {low:+.4f} to {high:+.4f}")

    return in_all({name: one(curves) for name, curves in settings(data, where).items()})


def beats_baselines(data: Data, where: str) -> Verdict:
    """Whether every seed of both is better than Random, Average and Least, on the testbed over all media, too."""
    ends = {
        name: (max(final(curves, algorithm).max() for algorithm in (ES, DRL)), curves.rulers)
        for name, curves in settings(data, where).items()
    }
    if where == "testbed":
        for medium in LEARNING_MEDIA:
            runs = [data.results[f"{medium}_{key}"] for key in ("es", "drl")]
            for reading in [name for name in data.readings if name in runs[0]]:
                worst = max(max(run[reading]["slowdown"]) for run in runs)
                ends[f"{MEDIA[medium]}, {reading}"] = worst, runs[0][reading]["rulers"]
    verdicts = {}
    for name, (worst, rulers) in ends.items():
        text = f"worst seed {worst:.3f}; {', '.join(f'{ruler} {rulers[ruler]:.3f}' for ruler in NAIVE)}"
        verdicts[name] = judged(worst < min(rulers[ruler] for ruler in NAIVE), text)
    return in_all(verdicts)


def best_until(data: Data, where: str) -> dict[tuple[str, str], list[bool]]:
    """Whether Least has a smaller slowdown than Random and Average, by medium and bits, [bandwidth]."""
    found = data.results[f"rulers_{where}"]["slowdown"]
    best = {}
    for medium in reversed(data.media):  # what the paper's Wonder Shaper makes comes first
        for bits, rulers in found[medium].items():
            least, *others = (np.array(rulers[name], float) for name in (LEAST, RANDOM, AVERAGE))
            best[medium, bits] = (least < np.min(others, axis=0)).tolist()
    return best


def least_is_better(data: Data, where: str) -> Verdict:
    """Least against Random and Average, over media, bits and bandwidths."""
    content = data.results[f"rulers_{where}"]
    x, verdicts = content["experiment"]["bandwidths"], dict[str, Verdict]()
    for (medium, bits), best in best_until(data, where).items():
        rulers = content["slowdown"][medium][bits]
        for held in (True, False):
            points = [place for place, holds in enumerate(best) if holds == held]
            if points:
                together = points[-1] - points[0] + 1 == len(points) > 2
                ends = [x[points[0]], x[points[-1]]] if together else [x[place] for place in points]
                words = (" to " if together else " / ").join(f"{value:g}" for value in ends)
                text = ", ".join(f"{ruler} {rulers[ruler][points[0]]:.3f}" for ruler in NAIVE)
                name = f"{bits} bit over {MEDIA[medium]} at {words} Mbit/s"
                verdicts[name] = judged(held, f"at {x[points[0]]:g} Mbit/s {text}")
    return in_all(verdicts)


def near_the_greedy(data: Data, where: str) -> Verdict:
    """DRL-ES against shortest completion and the bound."""

    def one(curves: Curves) -> Verdict:
        excess = final(curves, ES) / curves.rulers[SHORTEST] - 1
        bound = final(curves, ES).mean() / curves.rulers[BOUND] - 1
        text = f"{excess.mean():+.2%} (worst seed {excess.max():+.2%}); {bound:.2%} above the lower bound"
        return judged(excess.max() <= WITHIN, text)

    return in_all({name: one(curves) for name, curves in settings(data, where).items()})


def quick_decisions(data: Data) -> Verdict:
    """The paper measures on a Raspberry Pi; this is the machine of the page."""
    runs = [data.results[name] for name in ("decision_3", "decision_100")]
    text = ", ".join(
        f"{1e6 * run['seconds'][0]:.0f} us ({1e6 * run['seconds'][1]:.0f} at most in 95 %) with {run['slots']} slots"
        for run in runs
    )
    status = Status.HOLDS if max(run["seconds"][1] for run in runs) <= CLAIMED else Status.FAILS
    return Verdict(status, f"{text}, in NumPy on this machine")
