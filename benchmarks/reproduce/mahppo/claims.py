"""What Hao et al. 2022 claim in Figs. 8 to 13, and how the results decide; Theorem 1 is in `theorem`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

import mec_jax
from benchmarks.harness.experiments import NotMeasured, Results
from benchmarks.harness.verdicts import (
    Status,
    Verdict,
    beyond,
    converged,
    end_value,
    fluctuation,
    frames_to_reach,
    greater,
    series,
    settling_frames,
    shown,
    together,
    trend,
)
from benchmarks.reproduce.mahppo.theorem import theorem_bound, theorem_large_beta, theorem_order, theorem_reward
from mec_jax.solvers.offloading.plans import best_known

LATENCY_SAVING, ENERGY_SAVING = 56, 72
"""%, against Local at N = 3."""

FLAT = 0.1
"""Change from beta = 0.01 to 0.1 that counts as flat, as a share of the whole range over beta."""

OFFLOADS = 0.02
"""Least share of P1 that offloading must save to be called better than Local: below it is the rounding of frames."""


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, in our words, and what decides on it."""

    figure: str
    words: str
    judge: Callable[[Results], Verdict]

    def verdict(self, results: Results) -> Verdict:
        """`NOT_RUN` if an experiment it needs is missing."""
        try:
            return self.judge(results)
        except NotMeasured as missing:
            return Verdict(Status.NOT_RUN, f"lacks {missing}")


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
    local = results.ruler("rulers_resnet18_n5", "Local", "episode_return")[0]
    names = {"MAHPPO": "mahppo_resnet18_n5", "JALAD surrogate": "jalad_resnet18_n5"}
    return together(
        {label: converged("N", [5], [results.curve(name, "episode_return")[0]], local) for label, name in names.items()}
    )


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
    """On Local, whose behaviour is the same whatever the frame: holds if the factor rounds to 6."""
    short, long = (
        float(results.ruler(name, "Local", "episode_return")[0])
        for name in ("rulers_resnet18_n5", "rulers_jalad_resnet18_n5")
    )
    factor = short / long
    text = f"Local's return is {short:.3g} with frames of 0.5 s and {long:.3g} with frames of 3 s: {factor:.2f} times"
    return Verdict(Status.HOLDS if round(factor) == 6 else Status.FAILS, text)


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


# Fig. 9


def _local_return(results: Results) -> float:
    return float(results.ruler("rulers_resnet18_n5", "Local", "episode_return")[0])


def _sweep(results: Results, prefix: str) -> tuple[list[float], list[np.ndarray], list[np.ndarray], list[list[int]]]:
    """Values of a swept number, and of each the return and the value loss [seed, chunk] and the frames."""
    if prefix == "learning_rate":
        content = results[prefix]
        values = [point["actor_lr"] for point in content["experiment"]["points"]]
        returns, losses = (list(results.curve(prefix, name)) for name in ("episode_return", "value_loss"))
        return values, returns, losses, [content["frames"]] * len(values)
    sizes = results.sizes(f"{prefix}_")
    names = [f"{prefix}_{size}" for size in sizes]
    returns, losses = (
        [results.curve(name, metric)[0] for name in names] for metric in ("episode_return", "value_loss")
    )
    return [float(size) for size in sizes], returns, losses, [results[name]["frames"] for name in names]


def _ends(returns: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([end_value(curve) for curve in returns])


def _speeds(results: Results, returns: Sequence[np.ndarray], frames: Sequence[list[int]]) -> np.ndarray:
    """Frames until a seed is as good as Local, [value, seed]."""
    local = _local_return(results)
    return np.stack([frames_to_reach(curve, f, local) for curve, f in zip(returns, frames, strict=True)])


def poorer(results: Results, prefix: str, index: int) -> Verdict:
    """Whether the end value at one swept value is below that of the best one."""
    values, returns, _, _ = _sweep(results, prefix)
    ends = _ends(returns)
    best = int(np.argmax(ends.mean(1)))
    if best == index % len(values):
        return Verdict(Status.FAILS, f"the best end value is at {values[best]:g}: {series(prefix, values, ends, '')}")
    names = f"end value at {values[best]:g}, the best,", f"at {values[index]:g}"
    return greater(ends[best], ends[index], names)


def slower(results: Results, prefix: str, index: int) -> Verdict:
    """Whether one swept value needs more frames to be as good as Local than the one with the best end value."""
    values, returns, _, frames = _sweep(results, prefix)
    speeds, best = _speeds(results, returns, frames), int(np.argmax(_ends(returns).mean(1)))
    names = f"to Local's return at {values[index]:g}", f"at {values[best]:g}, the best,"
    return greater(speeds[index], speeds[best], names, "thousand frames", 1e-3)


def fig9_small_rate(results: Results) -> Verdict:
    return slower(results, "learning_rate", 0)


def fig9_large_rate(results: Results) -> Verdict:
    values, returns, _, _ = _sweep(results, "learning_rate")
    best = int(np.argmax(_ends(returns).mean(1)))
    noise = np.stack([fluctuation(curve) for curve in returns])
    return together(
        {
            "poorer": poorer(results, "learning_rate", -1),
            "unstable": greater(
                noise[-1], noise[best], (f"steps of the return at {values[-1]:g}", f"at {values[best]:g}, the best,")
            ),
        }
    )


def fig9_best_rate(results: Results) -> Verdict:
    values, returns, _, _ = _sweep(results, "learning_rate")
    ends = _ends(returns)
    best = values[int(np.argmax(ends.mean(1)))]
    text = f"the best is {best:g}; end values {series('rate', values, ends, '')}"
    return Verdict(Status.HOLDS if best == 1e-4 else Status.FAILS, text)


def fig9_little_reuse(results: Results) -> Verdict:
    return together({"slower": slower(results, "reuse", 0), "poorer": poorer(results, "reuse", 0)})


def fig9_much_reuse(results: Results) -> Verdict:
    return poorer(results, "reuse", -1)


def fig9_small_memory(results: Results) -> Verdict:
    values, returns, _, frames = _sweep(results, "memory")
    speeds = _speeds(results, returns, frames)
    faster = trend("memory", values, speeds, rising=True, unit="thousand frames to Local's return", scale=1e-3)
    return together({"faster": faster, "poorer": poorer(results, "memory", 0)})


def fig9_unstable_loss(results: Results) -> Verdict:
    values, _, losses, _ = _sweep(results, "memory")
    noise = np.stack([fluctuation(np.log10(loss)) for loss in losses])
    return trend("memory", values, noise, rising=False, unit="decades, steps of the value loss")


def fig9_large_memory(results: Results) -> Verdict:
    return poorer(results, "memory", -1)


# Figs. 10, 11 and 13

TRAINED, JALAD, RULERS = "mahppo_{}_n", "jalad_{}_n", "rulers_{}_n"


def size_converges(results: Results, profile: str) -> Verdict:
    prefix = TRAINED.format(profile)
    sizes = results.sizes(prefix)
    curves = [results.curve(f"{prefix}{n}", "episode_return")[0] for n in sizes]
    local = results.rulers_over_sizes(RULERS.format(profile), "Local", "episode_return", sizes)
    return converged("N", sizes, curves, float(local[0]))


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


def known_costs(profile: str, n: int) -> dict[str, float] | None:
    """s and J per task of the best plan known on the evaluation scenario, if there is one."""
    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=n, profile=profile)
    known = best_known(env, env.evaluation_params(params))
    return None if known is None else {"latency": known.latency, "energy": known.energy}


def fig11_savings(results: Results) -> Verdict:
    """Holds if the mean policy over seeds saves both shares against Local's true latency, to the percent; holds only
    when taken in whole frames, or only for the best seed or a ruler, if those do."""
    name, rulers = "mahppo_resnet18_n3", "rulers_resnet18_n3"
    latency, energy = (results.final(name, metric)[0] for metric in ("latency", "energy"))
    candidates: dict[str, tuple[float, ...]] = {
        "mean of the seeds": (float(latency.mean()), float(energy.mean())),
        "best seed by latency": (float(latency.min()), float(energy[np.argmin(latency)])),
    }
    candidates["best static"] = tuple(
        float(results.ruler(rulers, "Best static", metric)[0]) for metric in ("latency", "energy")
    )
    if known := known_costs("resnet18", 3):
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
    if "mean of the seeds" in met:
        return Verdict(Status.HOLDS, text)
    if met:
        return Verdict(Status.ONLY_WHEN, f"one counts: {'; '.join(met)}. {text}")
    return Verdict(Status.FAILS, text)


# Fig. 12


def beta_trend(results: Results, metric: str, rising: bool, unit: str) -> Verdict:
    betas = [point["beta"] for point in results["beta"]["experiment"]["points"]]
    return trend("beta", betas, results.final("beta", metric), rising, unit, 1e3)


def fig12_flat(results: Results) -> Verdict:
    """By `FLAT`."""
    betas = [point["beta"] for point in results["beta"]["experiment"]["points"]]
    low, high = betas.index(0.01), betas.index(0.1)
    parts = {}
    for metric, unit in (("latency", "ms"), ("energy", "mJ")):
        values = results.final("beta", metric)
        means = values.mean(1)
        share = abs(means[high] - means[low]) / np.ptp(means)
        text = (
            f"{shown(values[low], 1e3)} to {shown(values[high], 1e3)} {unit}, "
            f"{100 * share:.0f} % of the range of {1e3 * np.ptp(means):.3g} {unit}"
        )
        parts[metric] = Verdict(Status.HOLDS if share <= FLAT else Status.FAILS, text)
    return together(parts)


CLAIMS = (
    Claim("fig8", "MAHPPO and JALAD converge at N = 5", fig8_converges),
    Claim("fig8", "MAHPPO ends best of the three methods", fig8_best),
    Claim("fig8", "Frames six times as long shrink the reward of an episode about sixfold", fig8_shrinks),
    Claim("fig8", "JALAD ends below Local once that is taken into account", fig8_jalad_worst),
    Claim("fig8", "With JALAD's features nothing beats running locally (ResNet18)", fig8_jalad_local),
    Claim("fig9", "A small learning rate is slow", fig9_small_rate),
    Claim("fig9", "A large learning rate is unstable and misses the best policy", fig9_large_rate),
    Claim("fig9", "1e-4 is the best of the four learning rates", fig9_best_rate),
    Claim("fig9", "Little sample reuse is slow and ends poorer", fig9_little_reuse),
    Claim("fig9", "Too much sample reuse ends poorer", fig9_much_reuse),
    Claim("fig9", "A small memory is faster and ends poorer", fig9_small_memory),
    Claim("fig9", "A small memory makes the value loss less steady", fig9_unstable_loss),
    Claim("fig9", "A large memory ends poorer", fig9_large_memory),
    Claim("fig10", "Training converges for every N", lambda results: size_converges(results, "resnet18")),
    Claim("fig10", "The more UEs, the slower it converges", fig10_slower),
    Claim("fig10", "The more UEs, the lower the final return", fig10_lower),
    Claim(
        "fig11", "Latency and energy of MAHPPO rise with N", lambda results: size_costs(results, "mahppo_resnet18_n")
    ),
    Claim(
        "fig11",
        "MAHPPO needs less than Local at every N",
        lambda results: against_local(results, "resnet18", "mahppo_resnet18_n"),
    ),
    Claim("fig11", "Its savings shrink as N grows", lambda results: savings_fall(results, "resnet18")),
    Claim("fig11", "Local costs the same at every N", fig11_local_constant),
    Claim("fig11", f"At N = 3: -{LATENCY_SAVING} % latency and -{ENERGY_SAVING} % energy", fig11_savings),
    Claim(
        "fig11",
        "JALAD always needs more than Local",
        lambda results: of_surrogate(against_local(results, "resnet18", "jalad_resnet18_n", below=False)),
    ),
    Claim(
        "fig11",
        "Latency and energy of JALAD rise with N",
        lambda results: of_surrogate(size_costs(results, "jalad_resnet18_n")),
    ),
    Claim("fig12", "Latency rises with beta", lambda results: beta_trend(results, "latency", True, "ms")),
    Claim("fig12", "Energy falls as beta rises", lambda results: beta_trend(results, "energy", False, "mJ")),
    Claim("fig12", "Below 0.1, beta matters little", fig12_flat),
    Claim("fig13", "VGG11 converges as ResNet18 does", lambda results: size_converges(results, "vgg11")),
    Claim("fig13", "MobileNetV2 converges as ResNet18 does", lambda results: size_converges(results, "mobilenetv2")),
    Claim(
        "fig13",
        "VGG11: less than Local at every N",
        lambda results: against_local(results, "vgg11", "mahppo_vgg11_n"),
    ),
    Claim(
        "fig13",
        "MobileNetV2: less than Local at every N",
        lambda results: against_local(results, "mobilenetv2", "mahppo_mobilenetv2_n"),
    ),
    Claim("fig13", "VGG11: the savings shrink as N grows", lambda results: savings_fall(results, "vgg11")),
    Claim("fig13", "MobileNetV2: the savings shrink as N grows", lambda results: savings_fall(results, "mobilenetv2")),
    Claim(
        "fig13",
        "VGG11: JALAD needs less than Local",
        lambda results: of_surrogate(against_local(results, "vgg11", "jalad_vgg11_n")),
    ),
    Claim("theorem1", "The objective of P2 is an upper bound of that of P1", theorem_bound),
    Claim("theorem1", "For small beta, the better of two policies in P2 is the better in P1", theorem_order),
    Claim("theorem1", "Generally so for large beta too", theorem_large_beta),
    Claim("theorem1", "The cumulative reward is minus the objective of P2", theorem_reward),
)
