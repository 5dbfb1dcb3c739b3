"""What Hao et al. 2022 claim in Fig. 9 of learning rate, sample reuse and memory, and how the results decide."""

from collections.abc import Sequence

import numpy as np

from benchmarks.harness.claims import Claim
from benchmarks.harness.experiments import Results
from benchmarks.harness.verdicts import (
    SIGNIFICANT_RANK,
    Status,
    Verdict,
    end_value,
    fluctuation,
    frames_to_reach,
    greater,
    series,
    together,
    trend,
)

BEST_RATE = 1e-4
"""The paper's choice."""


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
    """Holds if its end value lies above each other's with the interval of the difference."""
    values, returns, _, _ = _sweep(results, "learning_rate")
    ends = dict(zip(values, _ends(returns), strict=True))
    ours = ends.pop(BEST_RATE)
    above = [greater(ours, other, ("", "")).status is Status.HOLDS for other in ends.values()]
    text = f"end values {series('rate', values, _ends(returns), '')}"
    return Verdict(Status.HOLDS if all(above) else Status.FAILS, text)


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


POORER = "the interval of the difference of the end values, best minus this, reaches 0"
SLOWER = "the interval of the difference of the frames until as good as Local, this minus the best, reaches 0"
RANKS = f"the interval of the rank correlation reaches {SIGNIFICANT_RANK:g} from the other side"

FIGURE_9: tuple[Claim[Results], ...] = (
    Claim("9a", "Fig. 9a", "A small learning rate is slow", SLOWER, fig9_small_rate),
    Claim(
        "9b",
        "Fig. 9a",
        "A large learning rate is unstable and misses the best policy",
        f"{POORER}, or that of the steps of the return does",
        fig9_large_rate,
    ),
    Claim(
        "9c",
        "Fig. 9a",
        "1e-4 is the best of the four learning rates",
        "the interval of the difference of its end value to another's reaches 0",
        fig9_best_rate,
    ),
    Claim("9d", "Fig. 9b", "Little sample reuse is slow and ends poorer", f"{SLOWER}; {POORER}", fig9_little_reuse),
    Claim("9e", "Fig. 9b", "Too much sample reuse, e.g. 80, ends poorer", POORER, fig9_much_reuse),
    Claim("9f", "Fig. 9c", "A small memory is faster and ends poorer", f"{RANKS}; {POORER}", fig9_small_memory),
    Claim("9g", "Fig. 9d", "A small memory makes the value loss less steady", RANKS, fig9_unstable_loss),
    Claim("9h", "Fig. 9c", "A large memory ends poorer", POORER, fig9_large_memory),
)
