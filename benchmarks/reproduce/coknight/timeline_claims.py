"""What Dai et al. 2022 (Coknight) claim in Figs. 8 to 11, and how the timeline decides."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from benchmarks.harness.verdicts import Status, Verdict, by_case
from benchmarks.reproduce.coknight.data import (
    ACTORS,
    CLOSE,
    CROSSING,
    LOG_CUTS,
    LOGS,
    MIB,
    NEEDED_USE,
    NUM_CUTS,
    SAME,
    V100_SPEED,
    WORK,
    Claim,
)
from benchmarks.reproduce.coknight.timeline import (
    FIG9,
    FIG11,
    FITTED,
    PARTITIONED,
    V100,
    Curves,
    World,
    best_partition,
    coknights,
    crossing,
)

MANY_ACTORS = 100  # large-scale in Fig. 11
SHOWN_CUTS = (3, 4, 5, 6)
ABOUT_60 = (0.55, 0.65)  # GPU use
NEAR_CROSSING = (27, 45)  # actors: 36 and a quarter
SIGNIFICANT = 0.5  # part of the throughput that is left after a significant decline, at most
SLIGHTLY = 1.25  # largest ratio of what is slightly faster


def close(value: float, to: float) -> bool:
    """About the same."""
    return bool(abs(value / to - 1) <= CLOSE)


def _name(cuts: Sequence[int], gpu: str, network: str) -> str:
    """Of a case that holds at these cuts, if any."""
    return f"cut {', '.join(map(str, cuts))}, {gpu}, {network}" if cuts else f"{gpu}, {network}"


def _places(world: World, networks: Sequence[str]) -> Iterator[tuple[str, str, Curves]]:
    """Each GPU on each network, and the curves there."""
    return ((gpu, network, world.at(gpu, network)) for gpu in world.curves for network in networks)


def _seed_fills_the_gpu(world: World) -> Verdict:
    use = world.at(V100, "100 Mbit/s").edge_use[0, ACTORS - 1]
    needed = world.edge_time[FITTED]
    text = (
        f"at {V100_SPEED / 1e12:g} TFLOP/s on one frame at a time the GPU is busy {100 * use:.0f} %; "
        f"{100 * NEEDED_USE:.0f} % take {1e3 * needed:.1f} ms a request ({WORK / needed / 1e9:.0f} GFLOP/s), "
        "to which the fitted GPU below is fitted"
    )
    if use >= NEEDED_USE:
        return Verdict(Status.HOLDS, text)
    return Verdict(Status.NOT_PUBLIC, f"how long a request holds the GPU: {text}")


def _sixty_percent(world: World) -> Verdict:
    cases = {}
    for gpu, network, here in _places(world, FIG9):
        use = here.edge_use[:, ACTORS - 1]
        found = [cut for cut in PARTITIONED if ABOUT_60[0] <= use[cut] <= ABOUT_60[1]]
        words = ", ".join(f"{100 * use[cut]:.0f}" for cut in SHOWN_CUTS)
        cases[_name(found, gpu, network)] = bool(found), words
    return by_case(cases, f"% at cuts {', '.join(map(str, SHOWN_CUTS))}: ")


def _saves_gpu_at_no_loss(world: World) -> Verdict:
    cases = {}
    for gpu, network, here in _places(world, FIG9):
        seed = world.at(gpu, "100 Mbit/s")
        saved = seed.edge_use[0, ACTORS - 1] - here.edge_use[:, ACTORS - 1]
        kept = here.throughput[:, ACTORS - 1] / seed.throughput[0, ACTORS - 1]
        found = [cut for cut in PARTITIONED if saved[cut] >= 0.25 and kept[cut] >= 1 - CLOSE]
        words = ", ".join(f"{100 * saved[cut]:.0f} at {100 * kept[cut]:.0f} %" for cut in SHOWN_CUTS)
        cases[_name(found, gpu, network)] = bool(found), words
    return by_case(cases, f"points saved at % of Seed-RL's rate at cuts {', '.join(map(str, SHOWN_CUTS))}: ")


def _seed_traffic(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        traffic = world.at(gpu, "100 Mbit/s").traffic[0, ACTORS - 1] * MIB / 1e6
        cases[gpu] = close(traffic, 12), f"{traffic:.1f} MB/s"
    return by_case(cases)


def _logged_traffic(world: World) -> Verdict:
    cases = {}
    for name, logged in LOGS.items():
        for gpu in world.curves:
            for network in FIG9 if name.startswith("cut") else FIG9[:1]:
                if name == "IMPALA" and gpu == V100:
                    continue
                traffic = world.at(gpu, network).traffic[LOG_CUTS[name], ACTORS - 1]
                note = " (f_d is fitted to it)" if name == "IMPALA" else ""
                cases[f"{name}, {gpu}, {network}"] = close(traffic, logged), f"{traffic:.2f} for {logged:.2f}{note}"
    return by_case(cases, "MiB/s: ")


def _logged_rates(world: World) -> Verdict:
    logged = {name: LOGS[name] / LOGS["Seed-RL"] for name in ("cut 3", "cut 4")}
    cases = {}
    for gpu, network, here in _places(world, FIG9):
        seed = world.at(gpu, "100 Mbit/s").throughput[0, ACTORS - 1]
        for name, ratio in logged.items():
            found = here.throughput[LOG_CUTS[name], ACTORS - 1] / seed
            cases[f"{name}, {gpu}, {network}"] = close(found, ratio), f"{found:.2f} for {ratio:.2f}"
    return by_case(cases)


def _seed_at_the_limit(world: World) -> Verdict:
    cases = {}
    for gpu in world.curves:
        left = (
            world.at(gpu, "10 MB/s").throughput[0, ACTORS - 1] / world.at(gpu, "100 Mbit/s").throughput[0, ACTORS - 1]
        )
        cases[gpu] = bool(0.75 <= left <= 0.99), f"{100 * left:.0f} % of its rate are left"
    return by_case(cases)


def _fig10(world: World) -> Iterator[tuple[str, np.ndarray, Mapping[str, np.ndarray], np.ndarray]]:
    for gpu in world.curves:
        found = world.fig10(gpu)
        yield gpu, found[0], coknights(found), found[NUM_CUTS]


def _seed_declines(world: World) -> Verdict:
    cases = {}
    for gpu, seed, _, _ in _fig10(world):
        cases[gpu] = bool(seed[-1] / seed[0] <= SIGNIFICANT), f"{seed[0]:.0f} to {seed[-1]:.1f} requests/s"
    return by_case(cases)


def _coknight_declines_less(world: World) -> Verdict:
    cases = {}
    for gpu, seed, ours, _ in _fig10(world):
        for name, rate in ours.items():
            left, theirs = rate[-1] / rate[0], seed[-1] / seed[0]
            cases[f"{name}, {gpu}"] = bool(left >= (1 + CLOSE) * theirs), f"{100 * left:.0f} against {100 * theirs:.0f}"
    return by_case(cases, "% of the rate left at 2 MB/s, against Seed-RL's: ")


def _coknight_ends_as_impala(world: World) -> Verdict:
    cases = {}
    for gpu, _, ours, impala in _fig10(world):
        for name, rate in ours.items():
            cases[f"{name}, {gpu}"] = close(rate[-1], impala[-1]), f"{rate[-1]:.1f} for {impala[-1]:.1f}"
    return by_case(cases, "steps/s at 2 MB/s, for IMPALA's: ")


def _fig11(world: World) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rates of Seed-RL and of Coknight, [actor], for each GPU, network and choice of cuts."""
    for gpu, network, here in _places(world, FIG11):
        for name, ours in coknights(here.throughput).items():
            yield f"{name}, {gpu}, {network}", here.throughput[0], ours


def _seed_faster_when_few(world: World) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = seed[: CROSSING - 1] / ours[: CROSSING - 1]
        holds = bool((ratio >= 1 - SAME).all() and ratio.max() <= SLIGHTLY)
        cases[name] = holds, f"{ratio[3]:.2f}, {ratio[11]:.2f}, {ratio[34]:.2f}"
    return by_case(cases, "Seed-RL's rate over Coknight's at 4, 12, 35 actors: ")


def _crosses_near_36(world: World) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        place = crossing(seed, ours)
        holds = place is not None and NEAR_CROSSING[0] <= place <= NEAR_CROSSING[1]
        cases[name] = holds, "no crossing" if place is None else f"from {place} actors"
    return by_case(cases)


def _rates_decline(world: World) -> Verdict:
    cases = {}
    for gpu, network, here in _places(world, FIG11):
        rates = np.stack([here.throughput[0], best_partition(here.throughput)])
        total = bool((rates[:, MANY_ACTORS - 1] < rates[:, ACTORS - 1] * (1 - SAME)).all())
        each = rates[:, MANY_ACTORS - 1] * ACTORS / MANY_ACTORS / rates[:, ACTORS - 1]
        words = f"{100 * each[0]:.0f} and {100 * each[1]:.0f}"
        cases[f"an actor's rate, {gpu}, {network}"] = bool((each < 1 - CLOSE).all()), words
        words = ", ".join(f"{100 * left:.0f}" for left in each * MANY_ACTORS / ACTORS)
        cases[f"all actors' rate, {gpu}, {network}"] = total, words
    return by_case(cases, f"% left at {MANY_ACTORS} actors of the rate at {ACTORS}, Seed-RL and Coknight's best cut: ")


def _coknight_scales(world: World) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = ours[MANY_ACTORS - 1] / seed[MANY_ACTORS - 1]
        cases[name] = bool(ratio >= 1 + CLOSE), f"{ratio:.2f}"
    return by_case(cases, f"Coknight's rate over Seed-RL's at {MANY_ACTORS} actors: ")


def _faster(world: World, coknight: bool) -> Verdict:
    cases = {}
    for name, seed, ours in _fig11(world):
        ratio = ours[ACTORS - 1] / seed[ACTORS - 1]
        cases[name] = bool(ratio > 1 + SAME if coknight else ratio < 1 - SAME), f"{ratio:.2f}"
    return by_case(cases, "Coknight's rate over Seed-RL's: ")


def _not_run(world: World) -> Verdict:
    return Verdict(Status.NOT_RUN, "training on Atari games is not a part of this page")


TIMELINE_CLAIMS = (
    Claim("C1", "Fig. 8: Coknight converges like Seed-RL, IMPALA more slowly", _not_run),
    Claim("G1", "Fig. 9: Seed-RL uses more than 90 % of the GPU", _seed_fills_the_gpu),
    Claim("G2", "Fig. 9: Coknight uses about 60 % of the GPU", _sixty_percent),
    Claim("G3", "Fig. 9: Coknight saves about 30 points of GPU use at almost the same rate", _saves_gpu_at_no_loss),
    Claim("T1", "Fig. 9: Seed-RL sends about 12 MB/s", _seed_traffic),
    Claim(
        "T2", "Logs: traffic of 11.25 (Seed-RL), 10.56 (cut 3), 9.88 (cut 4) and 2.00 MiB/s (IMPALA)", _logged_traffic
    ),
    Claim(
        "T3",
        "Logs: Coknight's rate is 94 % (cut 3) and 88 % (cut 4) of Seed-RL's, as bytes a step are equal",
        _logged_rates,
    ),
    Claim("T4", "Limited to Coknight's 10 MB/s, Seed-RL would decline moderately", _seed_at_the_limit),
    Claim("B1", "Fig. 10: Seed-RL declines significantly from 50 to 2 MB/s", _seed_declines),
    Claim("B2", "Fig. 10: Coknight declines more moderately", _coknight_declines_less),
    Claim("B3", "Fig. 10: Coknight comes into line with IMPALA in the end", _coknight_ends_as_impala),
    Claim("S1", "Fig. 11: with fewer than 36 actors Seed-RL is slightly faster", _seed_faster_when_few),
    Claim("S2", "Fig. 11: the two cross near 36 actors", _crosses_near_36),
    Claim("S3", "Fig. 11: with more actors the rates of both decline", _rates_decline),
    Claim("S4", "Fig. 11: with many actors Coknight is faster", _coknight_scales),
    Claim("R1", "Section 5.2.1: with 12 actors Coknight is slightly faster than Seed-RL", lambda w: _faster(w, True)),
    Claim("R2", "Section 5.2.3: in the same runs Seed-RL is the faster one", lambda w: _faster(w, False)),
)
