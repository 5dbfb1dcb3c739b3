"""Claims on compression, from features that were really compressed: Figs. 4, 7 and 13 (b), and JALAD judged anew.

Rates are those of `benchmarks.learning.codecs`: other images, and smaller ones, than the paper's. JALAD's verdicts
elsewhere stand on a surrogate; here its sizes and its coder's speed are measured, and what stays open is how much
slower than that machine a UE codes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.harness.claims import Claim, Origin
from benchmarks.harness.experiments import NotMeasured, Results
from benchmarks.harness.verdicts import Status, Verdict, beyond, together
from benchmarks.learning.codec_tables import PROFILES, JaladRow, Row, best_rates
from benchmarks.reproduce.mahppo.claims import BELOW_LOCAL, OFFLOADS, RISES, against_local, size_costs
from benchmarks.reproduce.mahppo.experiments import Measured, bundled_content, coding_time, jalad_rows
from benchmarks.reproduce.mahppo.plan import SLOWDOWNS
from mec_jax.profiles import load_profile

NETWORKS = {"resnet18": "ResNet18", "mobilenetv2": "MobileNetV2"}
WHERE = "on Fashion-MNIST at 32 x 32"

MOST = 0.5
"""Share of the cuts that "in most cases" exceeds."""


def codec_rates(results: Results, profile: str) -> tuple[dict[str, list[float]], dict[str, float]]:
    """By cut, the largest rate within the budget for each seed (0 if there is none), and JALAD's.

    Raises:
        NotMeasured: If a cut is missing.
    """
    tables = results["codecs"]
    about = Measured()
    cuts = load_profile(profile).points[1:-1]
    network = next(name for name, bundled in PROFILES.items() if bundled == profile)
    rows = [Row(**row) for row in tables["rates"]]
    rows = [row for row in rows if (row.network, row.side) == (network, about.side)]
    rows = [row for row in rows if row.data_set.startswith(about.data_set)]
    ours = {cut: best_rates([row for row in rows if row.cut == cut]) for cut in cuts}
    coded = jalad_rows([JaladRow(**row) for row in tables["jalad"]], profile, about.data_set, about.side)
    if not coded or len({len(seeds) for seeds in ours.values()}) != 1 or not ours[cuts[0]]:
        raise NotMeasured(f"the rates of {NETWORKS[profile]}, all cuts with as many seeds")
    return ours, {cut: 32 * row.elements / row.bits for cut, row in coded.items()}


def _listed(rates: Mapping[str, Sequence[float] | float]) -> str:
    def word(rate: Sequence[float] | float) -> str:
        return f"{rate:.3g}" if isinstance(rate, float) else ", ".join(f"{one:g}" for one in rate)

    return "; ".join(f"{word(rate)} at {cut}" for cut, rate in rates.items())


def more_than_jalad(results: Results, profile: str) -> Verdict:
    """Holds if every seed's rate exceeds JALAD's at every cut."""
    ours, jalad = codec_rates(results, profile)
    good = [min(ours[cut]) > jalad[cut] for cut in ours]
    text = f"{WHERE}: autoencoder {_listed(ours)}; JALAD {_listed(jalad)}"
    if any(good) and not all(good):
        where = ", ".join(cut for cut, one in zip(ours, good, strict=True) if one)
        return Verdict(Status.ONLY_WHEN, f"at {where}. {text}")
    return Verdict(Status.HOLDS if all(good) else Status.FAILS, text)


def falls_with_depth(results: Results, profile: str) -> Verdict:
    """Holds if the mean over seeds never rises from a cut to the next, and the last is below the first."""
    ours, _ = codec_rates(results, profile)
    means = [float(np.mean(rates)) for rates in ours.values()]
    good = means == sorted(means, reverse=True) and means[-1] < means[0]
    return Verdict(Status.HOLDS if good else Status.FAILS, f"{WHERE}: {_listed(ours)}")


def jalad_rises_with_depth(results: Results, profile: str) -> Verdict:
    """Holds if JALAD's rate never falls from a cut to the next, and the last is above the first."""
    _, jalad = codec_rates(results, profile)
    rates = list(jalad.values())
    good = rates == sorted(rates) and rates[-1] > rates[0]
    return Verdict(Status.HOLDS if good else Status.FAILS, f"{WHERE}: {_listed(jalad)}")


def slower_than_local(results: Results, profile: str) -> Verdict:
    """By time alone: at a slowdown, if at more than `MOST` of the cuts front and coding take longer than Local."""
    about = Measured()
    tables = [JaladRow(**row) for row in results["codecs"]["jalad"]]
    coded = jalad_rows(tables, profile, about.data_set, about.side)
    if not coded:
        raise NotMeasured(f"JALAD's times on {NETWORKS[profile]}")
    bundled = load_profile(profile)
    elements = [math.prod(cut["feature_shape"]) for cut in bundled_content(profile)["cuts"]]
    shares = []
    for slowdown in SLOWDOWNS:
        fronts = [
            front + slowdown * coding_time(row, count)
            for front, row, count in zip(bundled.front_time[1:-1], coded.values(), elements, strict=True)
        ]
        shares.append(np.mean(np.array(fronts) > bundled.front_time[-1]))
    return over_slowdowns([bool(share > MOST) for share in shares], "cuts slower than Local", 100 * np.array(shares))


def static_savings(results: Results) -> np.ndarray:
    """Share of Local's P1 that the best static action saves, [slowdown]."""
    best, local = (results.ruler("coder_slowdown", name, "objective") for name in ("Best static", "Local"))
    return 1 - best / local


def nothing_beats_local(results: Results) -> Verdict:
    """Holds at a slowdown if the best static action by P1 saves less than `OFFLOADS` of Local's P1."""
    saving = static_savings(results)
    return over_slowdowns([bool(one < OFFLOADS) for one in saving], "P1 saved by the best static action", 100 * saving)


def over_slowdowns(good: list[bool], what: str, percent: np.ndarray) -> Verdict:
    """Open where it depends on how much slower than the machine that measured a UE codes."""
    table = ", ".join(f"{one:.0f} % at {slowdown:g}" for one, slowdown in zip(percent, SLOWDOWNS, strict=True))
    text = f"{what}, by the UE's slowdown against the machine that measured: {table}"
    if all(good) or not any(good):
        return Verdict(Status.HOLDS if all(good) else Status.FAILS, text)
    return Verdict(Status.UNDETERMINED, text)


PREFIX = "measured_resnet18_n"
AS_FAST = "UEs code as fast as the machine that measured, which favours JALAD. "


def _as_fast(verdict: Verdict) -> Verdict:
    return Verdict(verdict.status, AS_FAST + verdict.text)


def worst(results: Results) -> Verdict:
    """By P1, which takes true times."""
    objective = results.final(f"{PREFIX}5", "objective")
    local = results.ruler("rulers_resnet18_n5", "Local", "objective")
    return _as_fast(together({"P1": beyond("N", [5], objective, local, below=False, unit="s")}))


MORE = "at a cut, a seed's largest rate within 2 % is not above JALAD's"
FALLS = "the mean over seeds rises from a cut to the next, or does not end lower"
GROWS = "it falls from a cut to the next, or does not end higher"
MOSTLY = f"at some slowdown of the UE's coder, the same for all cuts, {100 * MOST:g} % of the cuts or fewer take longer"
SAVES = f"at some slowdown of the UE's coder, the best static action saves {100 * OFFLOADS:g} % of Local's P1 or more"


def _claims(profile: str, where: str, prefix: str) -> tuple[Claim[Results], ...]:
    network = NETWORKS[profile]
    return (
        Claim(
            f"{prefix}a",
            where,
            f"{network}: the autoencoder compresses more than JALAD at every cut",
            MORE,
            lambda results: more_than_jalad(results, profile),
        ),
        Claim(
            f"{prefix}b",
            where,
            f"{network}: its rate falls towards the tail",
            FALLS,
            lambda results: falls_with_depth(results, profile),
        ),
        Claim(
            f"{prefix}c",
            where,
            f"{network}: JALAD's rate rises towards the tail",
            GROWS,
            lambda results: jalad_rises_with_depth(results, profile),
        ),
    )


CLAIMS: tuple[Claim[Results], ...] = (
    *_claims("resnet18", "Fig. 4", "4"),
    Claim(
        "7a",
        "Fig. 7",
        "With JALAD the UE takes longer than with the whole network in most cases (ResNet18)",
        MOSTLY,
        lambda results: slower_than_local(results, "resnet18"),
    ),
    # Of this picture the text says nothing: it is asked what was said of Fig. 4.
    *(replace(claim, origin=Origin.REPEAT) for claim in _claims("mobilenetv2", "Fig. 13 (b)", "13m")),
    Claim(
        "M8d",
        "Section 6.3.2",
        "JALAD, as measured, ends below Local",
        "the interval of P1 reaches Local's",
        worst,
        Origin.REPEAT,
    ),
    Claim(
        "M8e",
        "Section 6.3.2",
        "With JALAD's features, as measured, nothing beats running locally (ResNet18)",
        SAVES,
        nothing_beats_local,
        Origin.REPEAT,
    ),
    Claim(
        "M11f",
        "Fig. 11",
        "JALAD, as measured, always needs more than Local",
        BELOW_LOCAL,
        lambda results: _as_fast(against_local(results, "resnet18", PREFIX, below=False)),
        Origin.REPEAT,
    ),
    Claim(
        "M11g",
        "Fig. 11",
        "Latency and energy of JALAD, as measured, rise with N",
        RISES,
        lambda results: _as_fast(size_costs(results, PREFIX)),
        Origin.REPEAT,
    ),
)
