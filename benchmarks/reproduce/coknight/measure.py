"""Measuring for the page on Dai et al. 2022 (Coknight): everything that it needs goes to one file."""

import json
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.experiments import rounded
from benchmarks.harness.machine import machine
from benchmarks.harness.results import write_result
from benchmarks.reproduce.coknight.measured import DATA, Density, World
from benchmarks.reproduce.coknight.partition import DRAWS, GAMES, SIZES, partitions
from benchmarks.reproduce.coknight.theorems import (
    CUTS_COUNTED,
    DEVICES_COUNTED,
    KNAPSACKS,
    MOVES,
    REPEATS,
    SIZES_COUNTED,
    SIZES_TIMED,
    check_knapsacks,
    check_potential,
    count_operations,
)
from benchmarks.reproduce.coknight.timeline import (
    EDGE_TIMES,
    MAPPED_CUTS,
    SENSITIVITY,
    SPEEDS,
    crossing_map,
    measure,
    simulate_windows,
)

WINDOWS = 3600  # s that are simulated
shortened = partial(rounded, digits=5)


def measure_all(folder: Path) -> None:
    """Measure and write `DATA`."""
    start = time.perf_counter()
    worlds = {row: measure(changes) for row, changes in SENSITIVITY.items()}
    crossings = crossing_map(MAPPED_CUTS, EDGE_TIMES, SPEEDS)
    windows = simulate_windows(WINDOWS)
    tables = partitions(list(GAMES.values()), SIZES, DRAWS)
    operations = count_operations(SIZES_COUNTED, CUTS_COUNTED, DEVICES_COUNTED, SIZES_TIMED, REPEATS)
    content = {
        "worlds": {row: {gpu: _world(world) for gpu, world in found.items()} for row, found in worlds.items()},
        "crossings": {
            "edge_time_s": shortened(crossings.edge_times),
            "device_speed": shortened(crossings.speeds),
            "actors": {str(cut): shortened(found) for cut, found in crossings.actors.items()},
        },
        "windows": {
            gpu: {name: [_histogram(pair.use), _histogram(pair.traffic)] for name, pair in found.items()}
            for gpu, found in windows.items()
        },
        "sizes": list(SIZES),
        "fig12": {row: _nested(table.found) for row, table in zip(GAMES, tables, strict=True)},
        "operations": {
            **operations._asdict(),
            "by_size": operations.by_size.tolist(),
            "by_cuts": operations.by_cuts.tolist(),
            "seconds": {str(size): shortened(seconds) for size, seconds in operations.seconds.items()},
        },
        "knapsacks": check_knapsacks(KNAPSACKS)._asdict(),
        "potential": check_potential(MOVES)._asdict(),
    }
    about = {"machine": machine(), "seconds": round(time.perf_counter() - start)}
    write_result(folder / DATA, json.dumps(about | content) + "\n")


def _world(world: World) -> dict[str, Any]:
    numbers = world._asdict()
    del numbers["gpu"]
    return {name: shortened(values) for name, values in numbers.items()}


def _histogram(of: Density) -> list[Any]:
    return [shortened(of.edges), of.counts.tolist()]


def _nested(found: Mapping[str, Any]) -> Any:
    """Arrays below any number of names, rounded."""
    return {
        name: _nested(values) if isinstance(values, Mapping) else shortened(values) for name, values in found.items()
    }
