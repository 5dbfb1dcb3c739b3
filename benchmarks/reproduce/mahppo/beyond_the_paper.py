"""What the paper of Hao et al. 2022 does not say of its method: a constant action in its place, the method as printed,
and the authors' settings beside the runs of their code.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.harness.claims import Claim, Origin
from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import (
    Verdict,
    beyond,
    by_case,
    converged,
    difference_interval,
    greater,
    interval,
    shown,
    together,
)
from benchmarks.learning.leaderboard import LAST_TESTS, RECORDED
from benchmarks.reproduce.mahppo.claims import BELOW_LOCAL, CURVE, ENERGY_SAVING, LATENCY_SAVING, RULERS, TRAINED
from benchmarks.reproduce.mahppo.plan import PRESET_SIZES

STATIC = "Best static"
PRINTED, AUTHORS, UNIFORM = "paper", "reference", "uniform"
LONGER_SIZES = (3, 5, 10)  # of the longer runs with preset fast
NAMES = {"resnet18": "ResNet18", "vgg11": "VGG11", "mobilenetv2": "MobileNetV2"}
MEASURES = {"episode_return": "the return", "objective": "P1"}


# A constant action in the policy's place


def constant_actions(results: Results, metric: str) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name of each point at which policies were trained, their cost [seed] and that of the best static action."""
    for profile, name in NAMES.items():
        for n in results.sizes(TRAINED.format(profile)):
            static = results.ruler(f"{RULERS.format(profile)}{n}", STATIC, metric)[0]
            yield f"{name}, N = {n}", results.final(f"{TRAINED.format(profile)}{n}", metric)[0], float(static)


def beats_a_constant(results: Results, metric: str) -> Verdict:
    """Whether the whole interval over seeds is better than the best static action, point by point."""
    cases = {}
    for name, values, static in constant_actions(results, metric):
        low, high = interval(values)
        better = low > static if metric == "episode_return" else high < static
        cases[name] = better, f"{shown(values)} against {static:.3g}"
    held = sum(better for better, _ in cases.values())
    return by_case(cases, f"at {held} of {len(cases)} points {MEASURES[metric]} is better. ")


def beats_a_constant_over_beta(results: Results) -> Verdict:
    """The same at N = 5 for each beta, by the return."""
    betas = [point["beta"] for point in results["beta"]["experiment"]["points"]]
    static = results.ruler("rulers_beta", STATIC, "episode_return")
    return beyond("beta", betas, results.final("beta", "episode_return"), static, below=False, unit="")


# The method as printed, and the authors' settings


def preset(results: Results, name: str, n: int, metric: str) -> np.ndarray:
    """A cost of the policies of a preset, [seed]."""
    return np.array(results[f"preset_{name}_n{n}"]["episodes"][metric], float)


def last_tests(results: Results, name: str, n: int) -> np.ndarray:
    """Mean return of the last evaluations of a preset, [seed], as the authors' runs were read."""
    return np.array(results[f"preset_{name}_n{n}"]["curve"], float)[:, -LAST_TESTS:].mean(1)


def longer_converges(results: Results) -> Verdict:
    """Of preset fast with all its frames."""
    runs = [results[f"preset_fast_n{n}"] for n in LONGER_SIZES]
    verdict = converged("N", LONGER_SIZES, [np.array(run["curve"], float) for run in runs])
    return Verdict(verdict.status, f"{verdict.text} after {runs[0]['frames'][-1]} frames")


def printed_converges(results: Results) -> Verdict:
    curves = [np.array(results[f"preset_{PRINTED}_n{n}"]["curve"], float) for n in PRESET_SIZES]
    return converged("N", PRESET_SIZES, curves)


def printed_below_local(results: Results) -> Verdict:
    parts = {}
    for metric, unit in (("latency", "ms"), ("task_latency", "ms"), ("energy", "mJ")):
        values = np.stack([preset(results, PRINTED, n, metric) for n in PRESET_SIZES])
        local = np.concatenate([results.ruler(f"rulers_resnet18_n{n}", "Local", metric) for n in PRESET_SIZES])
        parts[metric.replace("task_", "true ")] = beyond("N", PRESET_SIZES, values, local, True, unit, 1e3)
    return together(parts)


def printed_savings(results: Results) -> Verdict:
    """Holds if the upper ends of the intervals save both shares, to the percent; energy and latency apart."""
    local = {name: results.ruler("rulers_resnet18_n3", "Local", name)[0] for name in ("task_latency", "energy")}
    cases = {}
    for metric, against, claimed, unit in (
        ("latency", "task_latency", LATENCY_SAVING, "ms"),
        ("energy", "energy", ENERGY_SAVING, "mJ"),
    ):
        values = preset(results, PRINTED, 3, metric)
        saved = 100 * (1 - values / local[against])
        cases[metric] = bool(round(interval(saved)[0]) >= claimed), f"{shown(values, 1e3, unit)}, -{shown(saved)} %"
    return by_case(cases)


def as_the_authors(results: Results) -> Verdict:
    """Whether the recorded runs of the authors' code lie within the seeds' range at each N."""
    cases = {}
    for n in PRESET_SIZES:
        ours, theirs = last_tests(results, AUTHORS, n), RECORDED[n]
        inside = [ours.min() <= run <= ours.max() for run in theirs]
        words = (
            f"{shown(ours)}, seeds {ours.min():.2f} to {ours.max():.2f}; theirs {', '.join(f'{x:.2f}' for x in theirs)}"
        )
        cases[f"N = {n}"] = all(inside), words
    return by_case(cases)


def starts_matter(results: Results) -> Verdict:
    """Whether the interval of the difference at N = 5 lies above 0; and how far the recorded runs are from either."""
    he, uniform = (last_tests(results, name, 5) for name in (AUTHORS, UNIFORM))
    verdict = greater(uniform, he, ("uniform start", "He-normal start"))
    theirs = np.array(RECORDED[5])
    apart = [difference_interval(theirs, ours) for ours in (uniform, he)]
    words = " and ".join(f"[{low:.3g}, {high:.3g}]" for low, high in apart)
    return Verdict(verdict.status, f"{verdict.text}; the recorded runs minus these {words}")


CLAIMS: tuple[Claim[Results], ...] = (
    Claim("P0", "Fig. 10, longer runs", "Training converges", CURVE, longer_converges, Origin.REPEAT),
    Claim(
        "P1",
        "Fig. 10, as printed",
        "Training converges",
        CURVE,
        printed_converges,
        Origin.REPEAT,
    ),
    Claim("P2", "Fig. 11, as printed", "MAHPPO needs less than Local", BELOW_LOCAL, printed_below_local, Origin.REPEAT),
    Claim(
        "P3",
        "Section 6.4.1, as printed",
        f"At N = 3: -{LATENCY_SAVING} % latency and -{ENERGY_SAVING} % energy",
        "the lower end of the interval of the share that is saved is less, to the percent",
        printed_savings,
        Origin.REPEAT,
    ),
    Claim(
        "S1",
        "Preset fast",
        "MAHPPO earns more than any constant joint action",
        "at a point, the interval of the return reaches that of the best static action",
        lambda results: beats_a_constant(results, "episode_return"),
        Origin.OURS,
    ),
    Claim(
        "S2",
        "Preset fast",
        "and has the smaller P1",
        "at a point, the interval of P1 reaches that of the best static action by the return",
        lambda results: beats_a_constant(results, "objective"),
        Origin.OURS,
    ),
    Claim(
        "S3",
        "Preset fast",
        "MAHPPO earns more than any constant joint action at every beta, N = 5",
        "at a beta, the interval of the return reaches that of the best static action",
        beats_a_constant_over_beta,
        Origin.OURS,
    ),
    Claim(
        "R1",
        "Preset reference",
        "Their settings end where the recorded runs of the authors' code do",
        "a recorded run lies outside the range of the seeds",
        as_the_authors,
        Origin.OURS,
    ),
    Claim(
        "R2",
        "Preset reference",
        "At N = 5 they end lower than those runs because their networks start otherwise",
        "the interval of the difference of the last tests, PyTorch's uniform start minus He-normal, reaches 0",
        starts_matter,
        Origin.OURS,
    ),
)
