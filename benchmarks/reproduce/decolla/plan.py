"""Which experiments the page of Huang et al. 2022 (DeColla) needs."""

from typing import Any

from benchmarks.harness.experiments import Experiment
from benchmarks.reproduce.decolla.experiments import (
    Concurrent,
    Decisions,
    Disconnected,
    Exchanges,
    OneLoaded,
    Optimum,
    Rulers,
    Sweep,
)
from benchmarks.reproduce.decolla.readings import KEYS, LEARNERS, LEARNING_MEDIA, READINGS, TASKS, TESTBEDS
from benchmarks.reproduce.decolla.training import Curve, LearnedAlone, LearnedTogether, OnMedium, PaperSettings


def plan() -> list[Experiment]:
    """All of them; those that take long come last."""
    of_readings: dict[str, Any] = {"sweep": Sweep, "tasks": Concurrent, "loaded": OneLoaded, "lost": Disconnected}
    return [
        *(
            kind(f"{name}_{KEYS[words]}", reading)
            for name, kind in of_readings.items()
            for words, reading in READINGS.items()
        ),
        Exchanges("exchange"),
        Optimum("optimum"),
        Decisions("decision_3", "NeuronAllocation-v0"),
        Decisions("decision_100", "NeuronAllocation-Slots-v0"),
        Rulers("rulers_testbed", "testbed"),
        Rulers("rulers_dynamic", "dynamic", bits=(8,), bandwidths=(10, 100, 1000, 10000)),
        *(
            Curve(f"curve_{name}_{key}", testbed.env_id, preset, testbed.early)
            for name, testbed in TESTBEDS.items()
            for key, preset in LEARNERS.items()
        ),
        PaperSettings("paper_theta"),
        PaperSettings("paper_carried", population="carried"),
        PaperSettings("paper_drl", children=0),
        *(OnMedium(f"{medium}_{key}", medium, preset) for medium in LEARNING_MEDIA for key, preset in LEARNERS.items()),
        LearnedAlone("learned_alone"),
        *(LearnedTogether(f"learned_tasks{tasks}", tasks) for tasks in TASKS),
    ]
