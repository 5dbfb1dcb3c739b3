"""What Ma et al. 2025 claim of the curves in section 5.3, and how these decide."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from benchmarks.harness.claims import Claim
from benchmarks.harness.verdicts import Status, Verdict, in_part, in_settings, together
from benchmarks.reproduce.multi_exit.curves import (
    ACO,
    DEFAULTS,
    DEVICE_ONLY,
    EDGE_ONLY,
    FIXED,
    LEARNED,
    METRICS,
    OPTIMUM,
    PAPERS,
    SHARED_ACO,
    SPINN,
    Curves,
    Measured,
)

# Thresholds.
COMPARABLE = 0.05  # relative difference of what is called comparable, and least of what is called significant
SLIGHT = 0.15  # largest relative difference of what is slightly better
STABLE = 0.1  # largest part of the fall from the lowest to the highest bandwidth of what is called stable
SAME = 1e-4  # relative difference within which two methods are equally good: float32, and ties
TABLE_BANDWIDTHS = (1, 10, 30, 100)


def proposed(curves: Curves) -> Mapping[str, np.ndarray]:
    """The paper's ACO-DRL: learned if there is a learned one, or else the optimum."""
    return curves[LEARNED if LEARNED in curves else OPTIMUM]


def at(bandwidths: Sequence[float], values: np.ndarray, unit: str) -> str:
    """Values at some bandwidths, as text."""
    places = [list(bandwidths).index(b) for b in TABLE_BANDWIDTHS if b in bandwidths] or range(len(bandwidths))
    cells = ", ".join(f"{values[place]:.4g}" for place in places)
    return f"{cells}{' ' + unit if unit else ''} at {', '.join(f'{bandwidths[place]:g}' for place in places)} Mbit/s"


def ranges(bandwidths: Sequence[float], holds: np.ndarray) -> str:
    """Bandwidths at which something holds, as runs."""
    runs: list[list[float]] = []
    previous = False
    for bandwidth, held in zip(bandwidths, holds, strict=True):
        if held and not previous:
            runs.append([bandwidth, bandwidth])
        elif held:
            runs[-1][1] = bandwidth
        previous = bool(held)
    return ", ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in runs) + " Mbit/s"


def over(bandwidths: Sequence[float], holds: np.ndarray, text: str) -> Verdict:
    """Holds at all bandwidths, only at some, or at none."""
    return in_part(holds.tolist(), f"B = {ranges(bandwidths, holds)}: {text}", text)


def best(bandwidths: Sequence[float], curves: Curves, others: Sequence[str], metrics: Sequence[str]) -> Verdict:
    """ACO-DRL is at least as good as each of the others, and better than some."""
    parts = {}
    for metric in metrics:
        ours = proposed(curves)[metric]
        rest = np.array([curves[name][metric] for name in others])
        holds = np.all(ours <= rest * (1 + SAME), axis=0) & np.any(ours < rest * (1 - SAME), axis=0)
        ratio = rest.min(0) / ours
        parts[metric] = over(bandwidths, holds, f"best of the others / ACO-DRL {at(bandwidths, ratio, '')}")
    return together(parts) if len(parts) > 1 else next(iter(parts.values()))


def slightly_better(bandwidths: Sequence[float], curves: Curves, better: str, worse: str) -> Verdict:
    """Lower in every metric at every bandwidth, by no more than `SLIGHT`."""
    parts = {}
    for metric in METRICS:
        ratio = curves[worse][metric] / curves[better][metric]
        holds = (ratio > 1 + SAME) & (ratio <= 1 + SLIGHT)
        parts[metric] = over(bandwidths, holds, f"{worse} / {better} {at(bandwidths, ratio, '')}")
    return together(parts)


def worse_than_most(
    bandwidths: Sequence[float], curves: Curves, name: str, others: Sequence[str], metrics: Sequence[str]
) -> Verdict:
    """Higher than more than half of the others."""
    parts = {}
    for metric in metrics:
        beaten = sum(curves[name][metric] > curves[other][metric] * (1 + SAME) for other in others)
        text = f"higher than {at(bandwidths, np.asarray(beaten), f'of {len(others)}')}"
        parts[f"{metric} of {name}"] = over(bandwidths, np.asarray(beaten) > len(others) / 2, text)
    return together(parts) if len(parts) > 1 else next(iter(parts.values()))


def above(bandwidths: Sequence[float], limit: float, curves: Curves) -> tuple[Sequence[float], Curves]:
    """What lies above a bandwidth."""
    keep = [index for index, bandwidth in enumerate(bandwidths) if bandwidth > limit]
    cut = {name: {metric: x[keep] for metric, x in curve.items()} for name, curve in curves.items()}
    return [bandwidths[index] for index in keep], cut


def both_readings(judge: Callable[[str], Verdict]) -> Verdict:
    """Of a claim on ACO-EAR, by what equal shares mean."""
    return together({"1/n each": judge(ACO), "shared by those who use it": judge(SHARED_ACO)})


def _exits(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return slightly_better(bandwidths, curves, ACO, SPINN)


def _beats_equal_shares(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return both_readings(lambda aco: best(bandwidths, curves, (aco, DEVICE_ONLY, EDGE_ONLY), ("latency", "cost")))


def _beats_all(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return best(bandwidths, curves, PAPERS, ("latency", "cost"))


def _fixed_is_poor(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    others = [name for name in PAPERS if name != FIXED]
    return worse_than_most(bandwidths, curves, FIXED, others, ("latency", "cost", "energy"))


def _edge_only_saves_energy(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    edge = curves[EDGE_ONLY]["energy"]
    rest = np.array([curves[name]["energy"] for name in (OPTIMUM, *PAPERS) if name != EDGE_ONLY]).min(0)
    text = f"least of the others / Edge-only-EAR {at(bandwidths, rest / edge, '')}"
    return over(bandwidths, edge <= rest * (1 + SAME), text)


def _edge_only_is_slow(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    latency = curves[EDGE_ONLY]["latency"]
    slow = latency > 2 * latency[-1]
    text = f"latency {at(bandwidths, latency, 's')}; considerable is twice that at the largest bandwidth"
    if not np.any(slow):
        return Verdict(Status.FAILS, text)
    return Verdict(Status.HOLDS if slow[0] else Status.FAILS, f"B = {ranges(bandwidths, slow)}: {text}")


def _energy_is_alike(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    bandwidths, curves = above(bandwidths, 10, curves)

    def judge(aco: str) -> Verdict:
        ratio = curves[aco]["energy"] / proposed(curves)["energy"]
        return over(bandwidths, np.abs(ratio - 1) <= COMPARABLE, f"{aco} / ACO-DRL {at(bandwidths, ratio, '')}")

    return both_readings(judge)


def _shares_matter(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    bandwidths, curves = above(bandwidths, 10, curves)

    def judge(aco: str) -> Verdict:
        parts = {}
        for metric in ("latency", "cost"):
            ratio = curves[aco][metric] / proposed(curves)[metric]
            text = f"{aco} / ACO-DRL {at(bandwidths, ratio, '')}"
            parts[metric] = over(bandwidths, ratio >= 1 + COMPARABLE, text)
        return together(parts)

    return both_readings(judge)


def _costs_settle(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    middle = list(bandwidths).index(30)
    change, settled = {}, []
    for name in (OPTIMUM, *PAPERS):
        first, at_30, last = curves[name]["cost"][[0, middle, -1]]
        change[name] = at_30 - last
        if change[name] <= STABLE * (first - last):
            settled.append(name)
        change[name] /= max(first - last, 1e-12)
    text = "part of the fall that lies above 30 Mbit/s: " + ", ".join(
        f"{100 * value:.1f} % ({name})" for name, value in change.items()
    )
    return in_part([name in settled for name in change], f"of {', '.join(settled)}: {text}", text)


def _lowest_above_30(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return best(*above(bandwidths, 30, curves), PAPERS, ("cost",))


def _comparable_exits(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    parts = {}
    for metric in METRICS:
        ratio = curves[SPINN][metric] / curves[ACO][metric]
        holds = np.abs(ratio - 1) <= COMPARABLE
        parts[metric] = over(bandwidths, holds, f"SPINN-EAR / ACO-EAR {at(bandwidths, ratio, '')}")
    return together(parts)


def _fixed_above_40(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    bandwidths, curves = above(bandwidths, 40, curves)
    others = [name for name in (OPTIMUM, *PAPERS) if name != FIXED]
    less = np.asarray(sum(curves[FIXED]["energy"] < curves[name]["energy"] for name in others))
    text = f"lower than {at(bandwidths, less, f'of {len(others)}')}, {at(bandwidths, curves[FIXED]['energy'], 'J')}"
    return together(
        {
            "energy": over(bandwidths, less > len(others) / 2, text),
            "latency": worse_than_most(bandwidths, curves, FIXED, others, ("latency",)),
        }
    )


def _one_sided_is_poor(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    others = (OPTIMUM, ACO, SPINN, FIXED)
    return together(
        {
            name: worse_than_most(bandwidths, curves, name, others, ("latency", "cost"))
            for name in (DEVICE_ONLY, EDGE_ONLY)
        }
    )


def _adapts(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    scarce = np.array([bandwidth <= 5 for bandwidth in bandwidths])
    parts = {}
    for metric in ("latency", "cost"):
        rest = {name: curves[name][metric][-1] for name in PAPERS}
        ours = proposed(curves)[metric][scarce]
        least = [bandwidth for bandwidth, held in zip(bandwidths, scarce, strict=True) if held]
        matched = np.array([[value <= other * (1 + COMPARABLE) for other in rest.values()] for value in ours])
        text = (
            f"as good as {', '.join(str(int(count)) for count in matched.sum(1))} of {len(rest)} others at "
            f"{bandwidths[-1]:g} Mbit/s, itself at {', '.join(f'{x:g}' for x in least)}"
        )
        parts[metric] = over(least, matched.all(1), text)
    return together(parts)


def _over_settings(setup: str, judge: Callable[[Sequence[float], Curves], Verdict], measured: Measured) -> Verdict:
    found = {
        name: judge(one.bandwidths, one.curves[setup]) for name, one in measured.settings.items() if setup in one.curves
    }
    return in_settings(found, DEFAULTS) if len(found) > 1 else found[DEFAULTS]


def _claim(
    id: str, setup: str, words: str, fails_if: str, judge: Callable[[Sequence[float], Curves], Verdict]
) -> Claim[Measured]:
    """Of section 5.3 on the image or video set-up, judged over all settings."""
    where = {"image": "Section 5.3.1", "video": "Section 5.3.2"}[setup]
    return Claim(id, where, words, fails_if, partial(_over_settings, setup, judge))


_OTHER = f"at a bandwidth it is worse than one of these by more than {SAME:g}, or better than none by as much"
_SLIGHTLY = (
    f"at a bandwidth SPINN-EAR is not worse in a metric by more than {SAME:g}, or worse by more than {100 * SLIGHT:g} %"
)
_MOST = "at a bandwidth, half of the other methods or more are no better"

CLAIMS = (
    _claim(
        "I1",
        "image",
        "ACO-EAR is always slightly better than SPINN-EAR in latency, energy and cost",
        _SLIGHTLY,
        _exits,
    ),
    _claim("I2", "image", "ACO-DRL beats equal shares in latency and cost", _OTHER, _beats_equal_shares),
    _claim("I3", "image", "ACO-DRL is always the best in latency and cost", _OTHER, _beats_all),
    _claim("I4", "image", "FP-AR is worse than most in latency and cost, and in energy", _MOST, _fixed_is_poor),
    _claim(
        "I5",
        "image",
        "Edge-only-EAR always has the lowest energy",
        f"at a bandwidth another has less, by more than {SAME:g}",
        _edge_only_saves_energy,
    ),
    _claim(
        "I6",
        "image",
        "Edge-only-EAR is considerably slow where bandwidth is scarce",
        "its latency at the smallest bandwidth is at most twice that at the largest",
        _edge_only_is_slow,
    ),
    _claim(
        "I7",
        "image",
        "Above 10 Mbit/s ACO-EAR and ACO-DRL use like energy",
        f"at a bandwidth above 10 Mbit/s they differ by more than {100 * COMPARABLE:g} %",
        _energy_is_alike,
    ),
    _claim(
        "I8",
        "image",
        "Above 10 Mbit/s ACO-DRL is significantly better than ACO-EAR in latency and cost",
        f"at a bandwidth above 10 Mbit/s it is better by less than {100 * COMPARABLE:g} %",
        _shares_matter,
    ),
    _claim(
        "I9",
        "image",
        "Above 30 Mbit/s the costs of all methods tend to be stable",
        f"more than {100 * STABLE:g} % of a method's fall in cost lies above 30 Mbit/s",
        _costs_settle,
    ),
    _claim("I10", "image", "Above 30 Mbit/s the joint optimisation has the lowest cost", _OTHER, _lowest_above_30),
    _claim(
        "V1",
        "video",
        "ACO-EAR and SPINN-EAR are comparable in latency, energy and cost",
        f"at a bandwidth they differ in a metric by more than {100 * COMPARABLE:g} %",
        _comparable_exits,
    ),
    _claim("V2", "video", "ACO-EAR is always slightly better than SPINN-EAR", _SLIGHTLY, _exits),
    _claim("V3", "video", "ACO-DRL beats equal shares in latency and cost", _OTHER, _beats_equal_shares),
    _claim(
        "V4",
        "video",
        "Above 40 Mbit/s FP-AR uses less energy than most methods and is slower than most",
        "at a bandwidth above 40 Mbit/s, half of the other methods or more have less energy, or are no faster",
        _fixed_above_40,
    ),
    _claim(
        "V5",
        "video",
        "Device-only-EAR and Edge-only-EAR are worse than most in latency and cost",
        _MOST,
        _one_sided_is_poor,
    ),
    _claim(
        "V6",
        "video",
        "ACO-DRL with little bandwidth (up to 5 Mbit/s) is as fast and cheap as others with much",
        f"at such a bandwidth it is worse by more than {100 * COMPARABLE:g} % than another method at the largest",
        _adapts,
    ),
)
