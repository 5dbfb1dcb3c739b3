"""What Hao et al. 2022 claim in Figs. 8 and 10 to 13, and how the results decide; Fig. 9 is in `tuning`, Theorem 1 in
`theorem`, and what the paper does not say in `beyond_the_paper`.
"""

import numpy as np

from benchmarks.harness.claims import Claim
from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import (
    SIGNIFICANT_RANK,
    STEADY,
    Status,
    Verdict,
    beyond,
    converged,
    greater,
    interval,
    monotone,
    settling_frames,
    shown,
    together,
    trend,
)

LATENCY_SAVING, ENERGY_SAVING = 56, 72
"""%, against Local at N = 3."""

FLAT = 0.1
"""Change from beta = 0.01 to 0.1 that counts as flat, as a share of the whole range over beta."""

OFFLOADS = 0.02
"""Least share of P1 that offloading must save to be called better than Local: below it is the rounding of frames."""

SHRINKS = 6
"""Times that frames of 3 s make an episode's reward smaller."""


# Fig. 8


def of_surrogate(verdict: Verdict) -> Verdict:
    """A verdict on JALAD: what holds, holds for the surrogate; what does not may be the surrogate's fault."""
    if verdict.status is Status.HOLDS:
        return Verdict(Status.ONLY_WHEN, f"the surrogate stands for JALAD: {verdict.text}")
    if verdict.status is Status.NOT_RUN:
        return verdict
    return Verdict(
        Status.NOT_PUBLIC, f"JALAD's sizes and coding times; with the surrogate it {verdict.status}: {verdict.text}"
    )


def fig8_converges(results: Results) -> Verdict:
    """Of the curves at N = 5."""
    ours, jalad = (
        converged("N", [5], [results.curve(name, "episode_return")[0]])
        for name in ("mahppo_resnet18_n5", "jalad_resnet18_n5")
    )
    return together({"MAHPPO": ours, "JALAD surrogate": of_surrogate(jalad)})


def fig8_best(results: Results) -> Verdict:
    """In P1, which does not depend on the length of a frame, and in the return where frames are equally long."""
    ours, jalad = (results.final(name, "objective")[0] for name in ("mahppo_resnet18_n5", "jalad_resnet18_n5"))
    local = results.ruler("rulers_resnet18_n5", "Local", "objective")
    returns = results.final("mahppo_resnet18_n5", "episode_return")
    local_return = results.ruler("rulers_resnet18_n5", "Local", "episode_return")
    return together(
        {
            "return against Local": beyond("N", [5], returns, local_return, below=False, unit=""),
            "P1 against Local": beyond("N", [5], ours[None], local, below=True, unit="s"),
            "P1 against the JALAD surrogate": greater(jalad, ours, ("JALAD", "MAHPPO"), "s"),
        }
    )


def fig8_shrinks(results: Results) -> Verdict:
    """On Local, whose behaviour is the same whatever the frame: holds if the factor rounds to `SHRINKS`."""
    short, long = (
        float(results.ruler(name, "Local", "episode_return")[0])
        for name in ("rulers_resnet18_n5", "rulers_jalad_resnet18_n5")
    )
    factor = short / long
    text = f"Local's return is {short:.3g} with frames of 0.5 s and {long:.3g} with frames of 3 s: {factor:.2f} times"
    return Verdict(Status.HOLDS if round(factor) == SHRINKS else Status.FAILS, text)


def fig8_jalad_worst(results: Results) -> Verdict:
    """By the paper's measure, return times six, and by P1."""
    returns = 6 * results.final("jalad_resnet18_n5", "episode_return")
    objective = results.final("jalad_resnet18_n5", "objective")
    local = {metric: results.ruler("rulers_resnet18_n5", "Local", metric) for metric in ("episode_return", "objective")}
    return of_surrogate(
        together(
            {
                "six-fold return": beyond("N", [5], returns, local["episode_return"], below=True, unit=""),
                "P1": beyond("N", [5], objective, local["objective"], below=False, unit="s"),
            }
        )
    )


def fig8_jalad_local(results: Results) -> Verdict:
    """Holds if the best static action by P1 with the surrogate saves less than `OFFLOADS` of Local's P1."""
    best, local = (
        float(results.ruler("rulers_jalad_resnet18_n5", name, "objective")[0]) for name in ("Best static", "Local")
    )
    text = f"P1 {best:.4g} s of the best static action, {local:.4g} s of Local; {_break_even(results)}"
    return of_surrogate(Verdict(Status.HOLDS if best > (1 - OFFLOADS) * local else Status.FAILS, text))


def _break_even(results: Results) -> str:
    rates = [rate / 1e6 for rate in results["coder_speed"]["experiment"]["coder_rates"]]
    best, local = (results.ruler("coder_speed", name, "objective") for name in ("Best static", "Local"))
    saving = 1 - best / local
    table = ", ".join(f"{100 * s:.0f} % at {rate:g}" for s, rate in zip(saving, rates, strict=True))
    return f"saving in P1 of the best static action by the speed of the coder in Mbit/s (frames of 0.5 s): {table}"


# Figs. 10, 11 and 13

TRAINED, JALAD, RULERS = "mahppo_{}_n", "jalad_{}_n", "rulers_{}_n"


def size_converges(results: Results, profile: str) -> Verdict:
    """Of the curves at every N."""
    prefix = TRAINED.format(profile)
    sizes = results.sizes(prefix)
    return converged("N", sizes, [results.curve(f"{prefix}{n}", "episode_return")[0] for n in sizes])


def fig10_slower(results: Results) -> Verdict:
    """By the frames until a curve stays within a quarter of Local's return of its end value."""
    prefix = TRAINED.format("resnet18")
    sizes = results.sizes(prefix)
    tolerance = abs(results.ruler(f"rulers_resnet18_n{sizes[0]}", "Local", "episode_return")[0]) / 4
    frames = [
        settling_frames(
            results.curve(f"{prefix}{n}", "episode_return")[0], results[f"{prefix}{n}"]["frames"], tolerance
        )
        for n in sizes
    ]
    return trend("N", sizes, np.stack(frames), rising=True, unit="thousand frames to settle", scale=1e-3)


def fig10_lower(results: Results) -> Verdict:
    prefix = TRAINED.format("resnet18")
    sizes = results.sizes(prefix)
    return trend("N", sizes, results.over_sizes(prefix, "episode_return", sizes), rising=False, unit="return")


def size_costs(results: Results, prefix: str, rising: bool = True) -> Verdict:
    """Whether latency and energy per task rise with N."""
    sizes = results.sizes(prefix)
    return together(
        {
            metric: trend("N", sizes, results.over_sizes(prefix, metric, sizes), rising, unit, 1e3)
            for metric, unit in (("latency", "ms"), ("energy", "mJ"))
        }
    )


def against_local(results: Results, profile: str, prefix: str, below: bool = True) -> Verdict:
    """Costs per task below (or above) Local's: latency and energy as the paper measures them, and the true latency."""
    sizes = results.sizes(prefix)
    return together(
        {
            metric.replace("task_", "true "): beyond(
                "N",
                sizes,
                results.over_sizes(prefix, metric, sizes),
                results.rulers_over_sizes(RULERS.format(profile), "Local", metric, sizes),
                below,
                unit,
                1e3,
            )
            for metric, unit in (("latency", "ms"), ("task_latency", "ms"), ("energy", "mJ"))
        }
    )


def savings_fall(results: Results, profile: str) -> Verdict:
    prefix = TRAINED.format(profile)
    sizes = results.sizes(prefix)
    parts = {}
    for metric in ("latency", "energy"):
        local = results.rulers_over_sizes(RULERS.format(profile), "Local", metric, sizes)
        saving = 1 - results.over_sizes(prefix, metric, sizes) / local[:, None]
        parts[metric] = trend("N", sizes, saving, rising=False, unit="% saved", scale=100)
    return together(parts)


def fig11_local_constant(results: Results) -> Verdict:
    sizes = results.sizes(RULERS.format("resnet18"))
    spread = {
        metric: results.rulers_over_sizes(RULERS.format("resnet18"), "Local", metric, sizes)
        for metric in ("task_latency", "energy")
    }
    constant = all(np.ptp(values) < 1e-3 * values.mean() for values in spread.values())
    latency, energy = (1e3 * values.mean() for values in spread.values())
    text = f"{latency:.4g} ms and {energy:.4g} mJ at every N of {sizes[0]} to {sizes[-1]}"
    return Verdict(Status.HOLDS if constant else Status.FAILS, text)


def known_costs(results: Results, profile: str, n: int) -> dict[str, float] | None:
    """s and J per task of the best plan known on the evaluation scenario, if there is one."""
    found: dict[str, dict[str, dict[str, float]]] = results["known_plans"]["plans"]
    return found.get(profile, {}).get(str(n))


def fig11_savings(results: Results) -> Verdict:
    """Holds if the upper ends of the intervals over seeds save both shares against Local's true latency, to the
    percent; holds only for the mean, in whole frames, for the best seed or a ruler, if those do."""
    name, rulers = "mahppo_resnet18_n3", "rulers_resnet18_n3"
    latency, energy = (results.final(name, metric)[0] for metric in ("latency", "energy"))
    worst = interval(latency)[1], interval(energy)[1]
    candidates: dict[str, tuple[float, ...]] = {
        "upper ends over seeds": worst,
        "mean of the seeds": (float(latency.mean()), float(energy.mean())),
        "best seed by latency": (float(latency.min()), float(energy[np.argmin(latency)])),
    }
    candidates["best static"] = tuple(
        float(results.ruler(rulers, "Best static", metric)[0]) for metric in ("latency", "energy")
    )
    if known := known_costs(results, "resnet18", 3):
        candidates["best known plan"] = known["latency"], known["energy"]
    true, whole, joule = (
        float(results.ruler(rulers, "Local", metric)[0]) for metric in ("task_latency", "latency", "energy")
    )
    met, words = [], []
    for label, (seconds, joules) in candidates.items():
        saved = [round(100 * (1 - seconds / local)) for local in (true, whole)]
        saved_energy = round(100 * (1 - joules / joule))
        words.append(
            f"{label} {1e3 * seconds:.3g} ms (-{saved[0]} %, in whole frames -{saved[1]} %), "
            f"{1e3 * joules:.3g} mJ (-{saved_energy} %)"
        )
        if saved_energy >= ENERGY_SAVING:
            met += [label] if saved[0] >= LATENCY_SAVING else []
            met += [f"{label}, in whole frames"] if saved[1] >= LATENCY_SAVING > saved[0] else []
    text = (
        f"{'; '.join(words)}. Local: {1e3 * true:.5g} ms, {1e3 * whole:.3g} ms in whole frames, {1e3 * joule:.4g} mJ; "
        f"true latency of the seeds {shown(results.final(name, 'task_latency')[0], 1e3, 'ms')}"
    )
    if "upper ends over seeds" in met:
        return Verdict(Status.HOLDS, text)
    if met:
        return Verdict(Status.ONLY_WHEN, f"one counts: {'; '.join(met)}. {text}")
    return Verdict(Status.FAILS, text)


# Fig. 12


def _betas(results: Results) -> list[float]:
    return [point["beta"] for point in results["beta"]["experiment"]["points"]]


def fig12_latency(results: Results) -> Verdict:
    """Step by step: a rank correlation would call a fall at small beta a rise."""
    return monotone("beta", _betas(results), results.final("beta", "latency"), True, "ms", 1e3)


def fig12_energy(results: Results) -> Verdict:
    return monotone("beta", _betas(results), results.final("beta", "energy"), False, "mJ", 1e3)


def fig12_flat(results: Results) -> Verdict:
    """By `FLAT`, of the policies and of the best static action, which does not depend on training."""
    betas = _betas(results)
    low, high = betas.index(0.01), betas.index(0.1)
    parts = {}
    for metric, unit in (("latency", "ms"), ("energy", "mJ")):
        learned = results.final("beta", metric)
        constant = results.ruler("rulers_beta", "Best static", metric)[:, None]
        for name, values in (("MAHPPO", learned), ("best static action", constant)):
            spread = float(np.ptp(values.mean(1)))
            change = (values[high].mean() - values[low].mean()) / spread if spread else np.inf  # no effect to judge
            ends = greater(values[high], values[low], ("at 0.1", "at 0.01"), unit, 1e3)
            text = f"{ends.text}, {100 * change:+.0f} % of the range of {1e3 * spread:.3g} {unit}"
            parts[f"{metric} of {name}"] = Verdict(Status.HOLDS if abs(change) <= FLAT else Status.FAILS, text)
    return together(parts)


CURVE = (
    f"at an N, the interval of the change over the last fifth of the curve reaches beyond {100 * STEADY:g} % of its end"
)
RISES = f"the interval of the rank correlation with N reaches below {SIGNIFICANT_RANK:g}"
FALLS = f"the interval of the rank correlation with N reaches above -{SIGNIFICANT_RANK:g}"
BELOW_LOCAL = "at an N, the interval of latency, true latency or energy reaches Local's"
STEPS = "at a step of beta, the interval of the difference lies wholly on the other side"


def _of_profile(profile: str, name: str, id: str) -> tuple[Claim[Results], ...]:
    """The claims of Fig. 13 on a network."""
    return (
        Claim(f"13{id}1", "Fig. 13", f"{name} converges as ResNet18 does", CURVE, lambda x: size_converges(x, profile)),
        Claim(
            f"13{id}2",
            "Fig. 13",
            f"{name}: less than Local at every N",
            BELOW_LOCAL,
            lambda x: against_local(x, profile, TRAINED.format(profile)),
        ),
        Claim(
            f"13{id}3", "Fig. 13", f"{name}: the savings shrink as N grows", FALLS, lambda x: savings_fall(x, profile)
        ),
    )


FIGURE_8: tuple[Claim[Results], ...] = (
    Claim("8a", "Fig. 8", "MAHPPO and JALAD converge at N = 5", CURVE, fig8_converges),
    Claim(
        "8b",
        "Fig. 8",
        "MAHPPO ends best of the three methods",
        "the interval of its return, or of P1, reaches Local's, or that of the difference in P1 to JALAD reaches 0",
        fig8_best,
    ),
    Claim(
        "8c",
        "Section 6.3.2",
        "Frames six times as long shrink the reward of an episode about sixfold",
        f"Local's return shrinks by a factor that does not round to {SHRINKS}",
        fig8_shrinks,
    ),
    Claim(
        "8d",
        "Section 6.3.2",
        "JALAD ends below Local once that is taken into account",
        "the interval of six times its return reaches Local's, or that of P1 does",
        fig8_jalad_worst,
    ),
    Claim(
        "8e",
        "Section 6.3.2",
        "With JALAD's features nothing beats running locally (ResNet18)",
        f"the best static action saves {100 * OFFLOADS:g} % of Local's P1 or more",
        fig8_jalad_local,
    ),
)
FIGURE_10: tuple[Claim[Results], ...] = (
    Claim(
        "10a", "Fig. 10", "Training converges for every N", CURVE, lambda results: size_converges(results, "resnet18")
    ),
    Claim("10b", "Fig. 10", "The more UEs, the slower it converges", f"by frames to settle, {RISES}", fig10_slower),
    Claim("10c", "Fig. 10", "The more UEs, the lower the final return", FALLS, fig10_lower),
)
FIGURE_11: tuple[Claim[Results], ...] = (
    Claim(
        "11a",
        "Fig. 11",
        "Latency and energy of MAHPPO rise with N",
        RISES,
        lambda results: size_costs(results, "mahppo_resnet18_n"),
    ),
    Claim(
        "11b",
        "Fig. 11",
        "MAHPPO needs less than Local at every N",
        BELOW_LOCAL,
        lambda results: against_local(results, "resnet18", "mahppo_resnet18_n"),
    ),
    Claim("11c", "Fig. 11", "Its savings shrink as N grows", FALLS, lambda results: savings_fall(results, "resnet18")),
    Claim(
        "11d",
        "Fig. 11",
        "Local costs the same at every N",
        "latency or energy differs by 0.1 % between two N",
        fig11_local_constant,
    ),
    Claim(
        "11e",
        "Section 6.4.1",
        f"At N = 3: -{LATENCY_SAVING} % latency and -{ENERGY_SAVING} % energy",
        "the upper end of the interval of latency or energy over seeds saves less, to the percent",
        fig11_savings,
    ),
    Claim(
        "11f",
        "Fig. 11",
        "JALAD always needs more than Local",
        BELOW_LOCAL,
        lambda results: of_surrogate(against_local(results, "resnet18", "jalad_resnet18_n", below=False)),
    ),
    Claim(
        "11g",
        "Fig. 11",
        "Latency and energy of JALAD rise with N",
        RISES,
        lambda results: of_surrogate(size_costs(results, "jalad_resnet18_n")),
    ),
)
FIGURE_12: tuple[Claim[Results], ...] = (
    Claim("12a", "Fig. 12", "Latency rises with beta", STEPS, fig12_latency),
    Claim("12b", "Fig. 12", "Energy falls as beta rises", STEPS, fig12_energy),
    Claim(
        "12c",
        "Fig. 12",
        "Below 0.1, beta matters little",
        f"latency or energy changes by more than {100 * FLAT:g} % of its range from beta = 0.01 to 0.1",
        fig12_flat,
    ),
)
FIGURE_13: tuple[Claim[Results], ...] = (
    *_of_profile("vgg11", "VGG11", "v"),
    *_of_profile("mobilenetv2", "MobileNetV2", "m"),
    Claim(
        "13v4",
        "Fig. 13",
        "VGG11: JALAD needs less than Local",
        BELOW_LOCAL,
        lambda results: of_surrogate(against_local(results, "vgg11", "jalad_vgg11_n")),
    ),
)
