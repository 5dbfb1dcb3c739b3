"""What Dai et al. 2022 (Coknight) claim in Figs. 8 to 11, and how the timeline decides.

A judge gets the timeline in one setting; the page's verdict is over all of them (`cases.over_range`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from benchmarks.harness.claims import Claim
from benchmarks.harness.verdicts import Status, Verdict, nearer
from benchmarks.reproduce.coknight.cases import Case, Cases, OverRange
from benchmarks.reproduce.coknight.data import (
    ACTORS,
    BANDWIDTHS,
    CROSSING,
    DEFAULTS,
    FAST_ETHERNET,
    FEW_ACTORS,
    FITTED,
    LIMITED,
    LOG_CUTS,
    LOGS,
    MIB,
    NEEDED_USE,
    NETWORKS,
    NUM_CUTS,
    ROOMY,
    V100,
    WIRED,
    WORK,
)
from benchmarks.reproduce.coknight.frameworks import best_partition, coknights, crossing
from benchmarks.reproduce.coknight.measured import Measured, World, setting

FIG9, FIG11 = (WIRED, LIMITED), (WIRED, ROOMY)

# Thresholds of the verdicts.

CLOSE = 0.1  # relative difference of what is about the same
ABOUT_60 = (0.55, 0.65)  # GPU use
SAVED = 0.25  # of the GPU, at least, of what saves about 30 points
SEED_TRAFFIC = 12.0  # MB/s
OVERSHOOT = 2  # times the claimed effect, at most
MODERATELY = (0.75, 0.95)  # part of the throughput that is left after a moderate decline
SIGNIFICANT = 0.5  # part of the throughput that is left after a significant decline, at most
FASTER, SLIGHTLY = 1.01, 1.25  # ratios: more than the first is faster, up to the second slightly
NEAR_CROSSING = (27, 45)  # actors: 36 and a quarter
MANY_ACTORS = 100  # large-scale in Fig. 11
SHOWN_ACTORS = (4, ACTORS, CROSSING - 1)

TOLD = setting(DEFAULTS, FITTED), setting(DEFAULTS, V100)
"""Settings whose numbers the verdicts tell."""


def close(value: float, to: float) -> bool:
    """About the same."""
    return bool(abs(value / to - 1) <= CLOSE)


def slightly_faster(ratio: float) -> bool:
    """Faster, but not by much."""
    return bool(FASTER < ratio <= SLIGHTLY)


def _one(holds: bool | np.bool_, words: str) -> Case:
    return Case((bool(holds),), (words,))


def _seed_fills_the_gpu(data: Measured) -> Verdict:
    """Of the V100 alone, as the other GPU is fitted to the claim."""
    use = {row: found[V100].use_on(WIRED)[0] for row, found in data.worlds.items()}
    needed = data.worlds[DEFAULTS][FITTED].edge_time
    text = (
        f"if a request takes a V100 {1e3 * data.worlds[DEFAULTS][V100].edge_time:.1f} ms, as is assumed, it is busy "
        f"{100 * use[DEFAULTS]:.0f} % ({100 * min(use.values()):.0f} to {100 * max(use.values()):.0f} over the rows); "
        f"{100 * NEEDED_USE:.0f} % take {1e3 * needed:.1f} ms ({WORK / needed / 1e9:.0f} GFLOP/s), to which the fitted "
        "GPU is fitted"
    )
    if all(value >= NEEDED_USE for value in use.values()):
        return Verdict(Status.HOLDS, text)
    if any(value >= NEEDED_USE for value in use.values()):
        return Verdict(Status.UNDETERMINED, text)
    return Verdict(Status.NOT_PUBLIC, f"how long a request holds the GPU: {text}")


def _sixty_percent(world: World) -> Cases:
    cases = {}
    for network in FIG9:
        for name, use in _fig9(world, network, world.use_on(network)).items():
            cases[f"{name}, {network}"] = _one(ABOUT_60[0] <= use <= ABOUT_60[1], f"{100 * use:.0f}")
    return Cases("GPU use in %", cases)


def _fig9(world: World, network: str, of: np.ndarray) -> dict[str, float]:
    """What is [cut], of the cuts that Coknight may be; the best is that with the highest rate."""
    best = 1 + int(np.argmax(world.rates(network)[1:NUM_CUTS, ACTORS - 1]))
    return {"cut 3": of[3], "cut 4": of[4], "best cut": of[best]}


def _saves_gpu_at_no_loss(world: World) -> Cases:
    cases = {}
    for network in FIG9:
        saved = _fig9(world, network, world.use_on(WIRED)[0] - world.use_on(network))
        rates = world.rates(network)[:, ACTORS - 1] / world.rates(WIRED)[0, ACTORS - 1]
        for name, kept in _fig9(world, network, rates).items():
            holds = saved[name] >= SAVED and kept >= 1 - CLOSE
            cases[f"{name}, {network}"] = _one(holds, f"{100 * saved[name]:.0f} at {100 * kept:.0f} %")
    return Cases("points of GPU use saved at % of Seed-RL's rate", cases)


def _seed_traffic(world: World) -> Cases:
    found, capped = (world.traffic_on(network)[0] * MIB / 1e6 for network in (ROOMY, WIRED))
    words = f"{found:.1f} ({capped:.1f})"
    return Cases(f"MB/s on {ROOMY} (on {WIRED})", {"Seed-RL": _one(close(found, SEED_TRAFFIC), words)})


def _logged_traffic(world: World) -> Cases:
    logs = {name: logged for name, logged in LOGS.items() if name != "IMPALA"}
    cases = {}
    for name, own in logs.items():
        for network in FIG9 if name.startswith("cut") else FIG9[:1]:
            found = world.traffic_on(network)[LOG_CUTS[name]]
            others = [logged for other, logged in logs.items() if other != name] + [NETWORKS[network] / 8 / MIB]
            holds = all(abs(found - own) < abs(found - other) for other in others)
            cases[f"{name}, {network}"] = _one(holds, f"{found:.2f} for {own:.2f}")
    return Cases("MiB/s", cases)


def _logged_rates(world: World) -> Cases:
    cases = {}
    for network in FIG9:
        for name in ("cut 3", "cut 4"):
            claimed = LOGS[name] / LOGS["Seed-RL"]
            found = world.rates(network)[LOG_CUTS[name], ACTORS - 1] / world.rates(WIRED)[0, ACTORS - 1]
            there = nearer({name: (found, claimed, 1.0)}).status is Status.HOLDS
            holds = there and 1 - found <= OVERSHOOT * (1 - claimed)
            cases[f"{name}, {network}"] = _one(holds, f"{found:.2f} for {claimed:.2f}")
    return Cases("its rate over Seed-RL's", cases)


def _seed_at_the_limit(world: World) -> Cases:
    left = world.rates(LIMITED)[0, ACTORS - 1] / world.rates(WIRED)[0, ACTORS - 1]
    holds = MODERATELY[0] <= left <= MODERATELY[1]
    return Cases(f"% of its rate left on {LIMITED}", {"Seed-RL": _one(holds, f"{100 * left:.0f}")})


def _seed_declines(world: World) -> Cases:
    seed = world.fig10[0]
    case = _one(seed[-1] / seed[0] <= SIGNIFICANT, f"{seed[0]:.0f} to {seed[-1]:.1f}")
    return Cases(f"requests/s at {BANDWIDTHS[0]} and {BANDWIDTHS[-1]} MB/s", {"Seed-RL": case})


def _coknight_declines_less(world: World) -> Cases:
    seed, cases = world.fig10[0], {}
    theirs = seed[-1] / seed[0]
    for name, rate in coknights(world.fig10).items():
        left = rate[-1] / rate[0]
        cases[name] = _one(left >= (1 + CLOSE) * theirs, f"{100 * left:.0f} against {100 * theirs:.0f}")
    return Cases(f"% of the rate left at {BANDWIDTHS[-1]} MB/s, against Seed-RL's", cases)


def _coknight_ends_as_impala(world: World) -> Cases:
    impala, cases = world.fig10[NUM_CUTS, -1], {}
    for name, rate in coknights(world.fig10).items():
        for words, end in ((name, rate[-1]), (f"{name} or y = K", max(rate[-1], impala))):
            cases[words] = _one(close(end, impala), f"{end:.1f} for {impala:.1f}")
    return Cases(f"steps/s at {BANDWIDTHS[-1]} MB/s, for IMPALA's", cases)


def _fig11(world: World) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rates of Seed-RL and of Coknight, [actor], on each network with each choice of cuts."""
    for network in FIG11:
        rates = world.rates(network)
        for name, ours in coknights(rates).items():
            yield f"{name}, {network}", rates[0], ours


def _seed_faster_when_few(world: World) -> Cases:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = seed[: CROSSING - 1] / ours[: CROSSING - 1]
        holds = ratio.min() >= 1 / FASTER and ratio.max() <= SLIGHTLY and np.median(ratio) > FASTER
        cases[name] = _one(holds, ", ".join(f"{ratio[actors - 1]:.2f}" for actors in SHOWN_ACTORS))
    return Cases(f"Seed-RL's rate over Coknight's at {', '.join(map(str, SHOWN_ACTORS))} actors", cases)


def _crosses_near_36(world: World) -> Cases:
    cases = {}
    for name, seed, ours in _fig11(world):
        place = crossing(seed, ours)
        holds = place is not None and NEAR_CROSSING[0] <= place <= NEAR_CROSSING[1]
        cases[name] = _one(holds, "none" if place is None else str(place))
    return Cases("actors from which on Coknight is faster", cases)


def _rates_decline(world: World) -> Cases:
    cases = {}
    for network in FIG11:
        rates = np.stack([world.rates(network)[0], best_partition(world.rates(network))])
        total = rates[:, MANY_ACTORS - 1] / rates[:, ACTORS - 1]
        for name, left in (("all actors' rate", total), ("an actor's rate", total * ACTORS / MANY_ACTORS)):
            cases[f"{name}, {network}"] = _one((left <= 1 - CLOSE).all(), " and ".join(f"{100 * x:.0f}" for x in left))
    return Cases(f"% left at {MANY_ACTORS} actors of the rate at {ACTORS}, Seed-RL and Coknight's best cut", cases)


def _coknight_scales(world: World) -> Cases:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = ours[MANY_ACTORS - 1] / seed[MANY_ACTORS - 1]
        cases[name] = _one(ratio >= 1 + CLOSE, f"{ratio:.2f}")
    return Cases(f"Coknight's rate over Seed-RL's at {MANY_ACTORS} actors", cases)


def _coknight_slightly_faster(world: World) -> Cases:
    ratios = {name: ours[ACTORS - 1] / seed[ACTORS - 1] for name, seed, ours in _fig11(world)}
    cases = {name: _one(slightly_faster(ratio), f"{ratio:.2f}") for name, ratio in ratios.items()}
    return Cases("Coknight's rate over Seed-RL's", cases)


def _seed_slightly_faster(world: World) -> Cases:
    ratios = {name: seed[ACTORS - 1] / ours[ACTORS - 1] for name, seed, ours in _fig11(world)}
    cases = {name: _one(slightly_faster(ratio), f"{ratio:.2f}") for name, ratio in ratios.items()}
    return Cases("Seed-RL's rate over Coknight's", cases)


def _not_run(data: Measured) -> Verdict:
    return Verdict(Status.NOT_RUN, "training on Atari games is not a part of this page")


def _timelines(data: Measured) -> Mapping[str, World]:
    return data.timelines


def _claim(claim_id: str, where: str, words: str, fails_if: str, cases: Callable[[World], Cases]) -> Claim[Measured]:
    return Claim(claim_id, where, words, fails_if, OverRange(cases, _timelines, TOLD))


_FASTER = f"by more than {100 * (FASTER - 1):.0f} % and at most {100 * (SLIGHTLY - 1):.0f} %"
_AT = f"with {ACTORS} actors"

TIMELINE_CLAIMS: Sequence[Claim[Measured]] = (
    Claim(
        "C1",
        "Fig. 8",
        "Coknight converges like Seed-RL, IMPALA more slowly",
        "Coknight scored less than Seed-RL at equal steps, or no more than IMPALA",
        _not_run,
    ),
    Claim(
        "G1",
        "Fig. 9",
        f"Seed-RL uses more than {100 * NEEDED_USE:.0f} % of the GPU",
        f"{_AT} on {WIRED} a V100 whose time for a request is known were busy less than {100 * NEEDED_USE:.0f} %; the "
        "fitted GPU does not count, as it is fitted to this",
        _seed_fills_the_gpu,
    ),
    _claim(
        "G2",
        "Fig. 9",
        "Coknight uses about 60 % of the GPU",
        f"{_AT} the use were not within {100 * ABOUT_60[0]:.0f} to {100 * ABOUT_60[1]:.0f} %",
        _sixty_percent,
    ),
    _claim(
        "G3",
        "Fig. 9",
        "Coknight saves about 30 points of GPU use at almost the same rate",
        f"{_AT} it saved less than {100 * SAVED:.0f} points of the use that Seed-RL has on {WIRED}, or had less than "
        f"{100 * (1 - CLOSE):.0f} % of its rate there",
        _saves_gpu_at_no_loss,
    ),
    _claim(
        "T1",
        "Fig. 9",
        f"Seed-RL sends about {SEED_TRAFFIC:g} MB/s",
        f"{_AT} on {ROOMY}, where there is room, its traffic were off that by more than {100 * CLOSE:.0f} %. On "
        f"{WIRED} it could not fail: that link, {FAST_ETHERNET / 8e6:.1f} MB/s with headers, is inferred from the very "
        "same logs",
        _seed_traffic,
    ),
    _claim(
        "T2",
        "logs",
        f"traffic of {LOGS['Seed-RL']} (Seed-RL), {LOGS['cut 3']} (cut 3) and {LOGS['cut 4']} MiB/s (cut 4)",
        f"{_AT} it were nearer to the log of another of the three, or to what the whole link carries, than to its own; "
        f"IMPALA's {LOGS['IMPALA']:.2f} does not count, as f_d is fitted to it",
        _logged_traffic,
    ),
    _claim(
        "T3",
        "logs",
        f"Coknight's rate is {100 * LOGS['cut 3'] / LOGS['Seed-RL']:.0f} % (cut 3) and "
        f"{100 * LOGS['cut 4'] / LOGS['Seed-RL']:.0f} % (cut 4) of Seed-RL's, as bytes a step are equal",
        f"{_AT} its rate over Seed-RL's on {WIRED} were nearer to 1 than to that, or more than "
        f"{OVERSHOOT} times as far below 1",
        _logged_rates,
    ),
    _claim(
        "T4",
        "section 5.2.2",
        "limited to Coknight's 10 MB/s, Seed-RL would decline moderately",
        f"{_AT} less than {100 * MODERATELY[0]:.0f} % or more than {100 * MODERATELY[1]:.0f} % of its rate on {WIRED} "
        f"were left; less than {100 * NETWORKS[LIMITED] / NETWORKS[WIRED]:.0f} % cannot be, by the links",
        _seed_at_the_limit,
    ),
    _claim(
        "B1",
        "Fig. 10",
        f"Seed-RL declines significantly from {BANDWIDTHS[0]} to {BANDWIDTHS[-1]} MB/s",
        f"with {FEW_ACTORS} actors more than {100 * SIGNIFICANT:.0f} % of its rate were left",
        _seed_declines,
    ),
    _claim(
        "B2",
        "Fig. 10",
        "Coknight declines more moderately",
        f"the part of its rate that is left were less than {1 + CLOSE:g} times Seed-RL's part",
        _coknight_declines_less,
    ),
    _claim(
        "B3",
        "Fig. 10",
        "Coknight comes into line with IMPALA in the end",
        f"its rate were off IMPALA's by more than {100 * CLOSE:.0f} %. With y = K among its cuts it runs all locally "
        "where that is faster, and then is IMPALA",
        _coknight_ends_as_impala,
    ),
    _claim(
        "S1",
        "Fig. 11",
        f"with fewer than {CROSSING} actors Seed-RL is slightly faster",
        f"of the ratios of its rate to Coknight's with 1 to {CROSSING - 1} actors one were below {1 / FASTER:.2f} or "
        f"above {SLIGHTLY:g}, or the median were not above {FASTER:g}",
        _seed_faster_when_few,
    ),
    _claim(
        "S2",
        "Fig. 11",
        f"the two cross near {CROSSING} actors",
        f"Coknight became faster for good outside of {NEAR_CROSSING[0]} to {NEAR_CROSSING[1]} actors, or never",
        _crosses_near_36,
    ),
    _claim(
        "S3",
        "Fig. 11",
        "with more actors the rates of both decline",
        f"with {MANY_ACTORS} actors one of them had more than {100 * (1 - CLOSE):.0f} % of its rate with {ACTORS}",
        _rates_decline,
    ),
    _claim(
        "S4",
        "Fig. 11",
        "with many actors Coknight is faster",
        f"with {MANY_ACTORS} actors its rate were less than {1 + CLOSE:g} times Seed-RL's",
        _coknight_scales,
    ),
    _claim(
        "R1",
        "section 5.2.1",
        f"{_AT} Coknight is slightly faster than Seed-RL",
        f"its rate were not greater {_FASTER}",
        _coknight_slightly_faster,
    ),
    _claim(
        "R2",
        "section 5.2.3",
        "in the same runs Seed-RL is the faster one, slightly",
        f"{_AT} Seed-RL's rate were not greater {_FASTER}",
        _seed_slightly_faster,
    ),
)
