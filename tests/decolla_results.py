"""Made-up results of the reproduction of DeColla, in which its claims hold, and changes of these."""

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.reproduce.decolla import settings
from benchmarks.reproduce.decolla.readings import (
    COUNTINGS,
    DECOLLA,
    HIERARCHICAL,
    LEARNERS,
    LEARNING_MEDIA,
    MEDIA,
    MOBILE,
    PARTITION,
    PLANS,
    READINGS,
    RULERS,
    RULES,
    SPLITS,
    TESTBEDS,
)

SEEDS = 0.001 * np.arange(-2, 3)


def learned_curve(slowdown: list[float]) -> dict[str, Any]:
    steps = 2 * np.arange(len(slowdown))
    rulers = {"Random": 1.3, "Average": 1.2, "Least": 1.1, "Shortest completion": 1.0, "Lower bound": 0.99}
    return {
        "iterations": steps.tolist(),
        "frames": (10 * steps).tolist(),
        "slowdown": (np.array(slowdown) + SEEDS[:, None]).tolist(),
        "rulers": rulers,
        "experiment": {"iterations": 10, "children": 10, "fitness_episodes": 2, "starts": 2, "episodes": 4},
    }


def sweep() -> dict[str, Any]:
    x, usage = np.array([1.0, 5, 10, 50, 100, 1000]), np.array([0.0, 0.5, 0.9])

    def along(mobile: Any, partition: Any, blocks: Any, ours: Any, variance: list[Any]) -> dict[str, Any]:
        rows = [{"latency": y, "variance": v} for y, v in zip((mobile, partition, blocks, ours), variance, strict=True)]
        rows[1] = rows[1] | {"edge": np.linspace(0.2, 0.9, len(np.array(mobile)))}
        return {
            MOBILE: rows[0],
            PARTITION: {edge: rows[1] for edge in settings.EDGES},
            HIERARCHICAL: {split: rows[2] for split in SPLITS},
            DECOLLA: {medium: {ruler: rows[3] for ruler in RULERS} for medium in MEDIA},
        }

    rise = np.linspace(0, 0.01, x.size)
    variances = [0.1 + rise, 0.1 + rise, 0.2 + 0 * x, np.linspace(0.09, 0.05, x.size)]
    by_usage = along(1 / (1 - usage), 0.5 + 0.01 * usage, 0.8 / (1 - usage), 0.6 / (1 - usage), [0.1 + 0 * usage] * 4)
    by_bandwidth = along(4 + 0 * x, 0.5 + 0.05 / x, 3 + 10 / x, 1 + 25 / x, variances)
    axes = {"bandwidths": x, "usages": usage}
    return {"bandwidth": by_bandwidth, "usage": by_usage, "experiment": axes}


def as_said() -> dict[str, dict[str, Any]]:
    """Results as the paper describes them, and as is said of it here."""
    found: dict[str, dict[str, Any]] = {}
    for key in settings.KEYS.values():
        found[f"sweep_{key}"] = sweep()
        fills = {"latency": [1.0, 1.0, 1.0]} | {name: [0.1, 0.3, 0.05] for name in COUNTINGS}
        ours = {"latency": [0.5, 0.5, 0.5]} | {name: [0.04, 0.03, 0.02] for name in COUNTINGS}
        edges = {edge: fills for edge in settings.EDGES}
        tasks = {MOBILE: fills, PARTITION: edges, DECOLLA: ours, "window": 1.0}
        found[f"tasks_{key}"] = {**tasks, "experiment": {"tasks": [1, 2, 3]}}
        slows = {"processing": [[1.0, 1.1, 1.2], [2.0, 2.2, 2.4]], "waiting": [[1.0, 1.1, 1.2], [2.0, 2.2, 2.4]]}
        halves = {name: (0.5 * np.array(rows)).tolist() for name, rows in slows.items()}
        plans = {split: {plan: slows for plan in PLANS} for split in SPLITS}
        found[f"loaded_{key}"] = {HIERARCHICAL: plans, DECOLLA: halves, "experiment": {"usages": [0.0, 0.9]}}
        row = {HIERARCHICAL: [3.0, 3.0], DECOLLA: [1.0, 1.0], "ratio": [[3.0, 2.8, 3.2], [3.0, 2.9, 3.1]]}
        trials: dict[str, Any] = {
            split: {lost: {cut: row for cut in ("all", "interrupted")} for lost in ("1", "2")} for split in SPLITS
        }
        expected = {"piece": 0.1, "longest piece": 0.2, **dict.fromkeys(SPLITS, 0.5)}
        found[f"lost_{key}"] = {**trials, "expected": expected, "experiment": {"kappas": [1.0, 2.0]}}
    points = {
        axis: {"latency": np.ones((count, 5)), "variance": np.full((count, 5), 0.01)}
        for axis, count in (("bandwidth", 6), ("usage", 3))
    }
    found["learned_alone"] = {"learned": {reading: points for reading in READINGS}}
    for number, variance in ((1, 0.04), (2, 0.03), (3, 0.02)):
        busy = [[math.sqrt(4.5 * variance), 0, 0]] * 5
        run = {"busy": busy, "end": [1.0] * 5, "latency": [0.5] * 5}
        found[f"learned_tasks{number}"] = {"learned": {reading: run for reading in READINGS}}
    best = {"Shortest completion": [1.0, 1.0], "Random": [3.0, 3.0], "Average": [2.0, 2.0], "Least": [1.5, 1.5]}
    rulers = {medium: {"8": best} for medium in MEDIA}
    for where in TESTBEDS:
        axes = {"bandwidths": [10, 100], "bits": [8]}
        found[f"rulers_{where}"] = {"slowdown": rulers, "experiment": axes}
        found[f"curve_{where}_es"] = learned_curve([5, 1.01, 1.0, 1.0, 1.0, 1.0])
        found[f"curve_{where}_drl"] = learned_curve([5, 2, 2, 1.01, 1.01, 1.01])
    for name in ("paper_theta", "paper_carried"):
        found[name] = learned_curve([5, 1.01, 1.0, 1.0, 1.0, 1.0])
    found["paper_drl"] = learned_curve([5, 2, 2, 1.01, 1.01, 1.01])
    for medium, key in itertools.product(LEARNING_MEDIA, LEARNERS):
        on = {"slowdown": [1.0, 1.01], "rulers": dict(found["paper_drl"]["rulers"])}
        found[f"{medium}_{key}"] = {reading: on for reading in list(READINGS)[:2]}
    found["decision_3"] = found["decision_100"] = {"seconds": [1e-4, 2e-4], "slots": 3}
    rules = {rule: [2.0, 2.0, 0.5] for rule in RULES}
    grid = {"grid": [10.0, 20.0, 1000.0]}
    costs = {bits: {HIERARCHICAL: [1.0, 1.0, 1.0], **rules} for bits in ("32", "8", "1")}
    found["exchange"] = {"elements": [6.77e6, 6.68e6], "mobile": 0.286, **costs, "experiment": grid}
    found["optimum"] = {"excess": [0.0, 0.001]}
    machine = {"cpu": "none", "cores": 1, "jax": "0"}
    whole = {name: {**content, "machine": machine, "wall_s": 1.0} for name, content in found.items()}
    return json.loads(json.dumps(whole, default=np.ndarray.tolist))  # as files have it, and nothing of it is shared


type Change = Callable[[dict[str, Any]], None]


def on(path: str, change: Callable[[np.ndarray], Any]) -> Change:
    """Change arrays everywhere a path leads; "*" is any name, and results are named without their reading."""

    def apply(results: dict[str, Any]) -> None:
        first, *rest = path.split("/")
        places = [results[name] for name in results if name == first or name.rsplit("_", 1)[0] == first]
        assert places, path
        for step in rest[:-1]:
            inner = [place for place in places if isinstance(place, dict)]
            places = [place[name] for place in inner for name in place if step in (name, "*")]
        places = [place for place in places if isinstance(place, dict) and rest[-1] in place]
        assert places, path
        for place in places:
            place[rest[-1]] = np.array(change(np.array(place[rest[-1]], float))).tolist()

    return apply
