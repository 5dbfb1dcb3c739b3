"""What measuring leaves for the page: `data.json`, and its contents as arrays."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.reproduce.coknight.data import (
    BANDWIDTHS,
    ELASTIC,
    FIXED,
    METRICS,
    NETWORKS,
)

DATA = "data.json"


class World(NamedTuple):
    """The timeline in one setting: one row of `SENSITIVITY` with one of the two GPUs."""

    gpu: str
    edge_time: float  # s of one whole inference on the GPU
    throughput: np.ndarray  # requests/s, or steps/s, of all actors, [network, cut, actor]
    edge_use: np.ndarray  # of the GPU with `ACTORS`, [network, cut]
    traffic: np.ndarray  # MiB/s with `ACTORS`, [network, cut]
    fig10: np.ndarray  # throughput with `FEW_ACTORS`, [cut, bandwidth]

    def rates(self, network: str) -> np.ndarray:
        """Throughput on one network, [cut, actor]."""
        return self.throughput[_place(network)]

    def use_on(self, network: str) -> np.ndarray:
        """GPU use on one network, [cut]."""
        return self.edge_use[_place(network)]

    def traffic_on(self, network: str) -> np.ndarray:
        """Traffic on one network, MiB/s, [cut]."""
        return self.traffic[_place(network)]


def _place(network: str) -> int:
    return list(NETWORKS).index(network)


class CrossingMap(NamedTuple):
    """Actors from which on Coknight is faster than Seed-RL for good."""

    edge_times: np.ndarray  # s of one whole inference on the GPU
    speeds: np.ndarray  # f_d, FLOP/s
    actors: Mapping[int, np.ndarray]  # by cut, [edge time, speed]; NaN if never


class Density(NamedTuple):
    """How often a value was seen in windows of one second."""

    edges: np.ndarray  # [bin + 1]
    counts: np.ndarray  # [bin]

    @property
    def density(self) -> np.ndarray:
        """Integrates to 1."""
        return self.counts / self.counts.sum() / np.diff(self.edges)

    @property
    def mean(self) -> float:
        """Of the windows, to the width of a bin."""
        return float(self.counts @ (self.edges[1:] + self.edges[:-1]) / 2 / self.counts.sum())


class Windows(NamedTuple):
    """Simulated seconds of one framework on one network."""

    use: Density  # of the GPU
    traffic: Density  # MB/s


class Table(NamedTuple):
    """One row of `GAMES`: means over devices of each algorithm."""

    sizes: tuple[int, ...]  # devices
    found: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]  # [server][algorithm][metric], [size, draw]


class Operations(NamedTuple):
    """What DEFP does when all have come: cuts checked for room, and sums of utilities of pairs compared."""

    sizes: tuple[int, ...]  # devices
    by_size: np.ndarray  # [size], with the network's cuts
    cuts: tuple[int, ...]  # K
    by_cuts: np.ndarray  # [cuts]
    devices: int  # of the counts by cuts
    agreed: int  # games in which the counted algorithm ends in the cuts of the solver
    games: int
    seconds: Mapping[int, float]  # of the solver on one game, by devices


class Knapsacks(NamedTuple):
    """Theorem 1's reduction on small knapsacks."""

    number: int
    items: tuple[int, int]  # fewest and most
    same: int  # of them, whose best value is that of the game
    alike: int  # of them, whose weights are all the same


class Potential(NamedTuple):
    """Theorem 2's identity on random moves of one player."""

    feasible: int  # moves between states that fit
    feasible_equal: int  # of them, where the potential changes by as much as the mover's utility
    infeasible: int  # moves into or out of a state that does not fit
    infeasible_equal: int
    penalty: float  # minus the utility of every player in a state that does not fit


class Measured(NamedTuple):
    """All that the page is made of."""

    machine: Mapping[str, Any]
    seconds: float
    worlds: Mapping[str, Mapping[str, World]]  # by the rows of SENSITIVITY and the GPU
    crossings: CrossingMap
    windows: Mapping[str, Mapping[str, Windows]]  # by the GPU and what runs
    tables: Mapping[str, Table]  # by the rows of GAMES
    operations: Operations
    knapsacks: Knapsacks
    potential: Potential

    @property
    def timelines(self) -> dict[str, World]:
        """Every setting of the timeline by name."""
        return {setting(row, gpu): world for row, found in self.worlds.items() for gpu, world in found.items()}


def setting(row: str, gpu: str) -> str:
    """Name of a setting of the timeline."""
    return f"{row}, {gpu}"


def load(folder: Path) -> Measured:
    """Read `data.json`."""
    content = json.loads((folder / DATA).read_text())
    crossings, operations = content["crossings"], content["operations"]
    sizes = tuple(content["sizes"])
    return Measured(
        machine=content["machine"],
        seconds=content["seconds"],
        worlds={
            row: {gpu: _world(gpu, numbers) for gpu, numbers in found.items()}
            for row, found in content["worlds"].items()
        },
        crossings=CrossingMap(
            np.array(crossings["edge_time_s"], float),
            np.array(crossings["device_speed"], float),
            {int(cut): np.array(found, float) for cut, found in crossings["actors"].items()},
        ),
        windows={
            gpu: {
                name: Windows(*(Density(*(np.array(x, float) for x in histogram)) for histogram in pair))
                for name, pair in found.items()
            }
            for gpu, found in content["windows"].items()
        },
        tables={
            row: Table(
                sizes,
                {
                    server: {
                        name: {metric: np.array(values[metric], float) for metric in METRICS}
                        for name, values in table[server].items()
                    }
                    for server in (ELASTIC, FIXED)
                },
            )
            for row, table in content["fig12"].items()
        },
        operations=Operations(
            sizes=tuple(operations["sizes"]),
            by_size=np.array(operations["by_size"], float),
            cuts=tuple(operations["cuts"]),
            by_cuts=np.array(operations["by_cuts"], float),
            devices=operations["devices"],
            agreed=operations["agreed"],
            games=operations["games"],
            seconds={int(size): seconds for size, seconds in operations["seconds"].items()},
        ),
        knapsacks=Knapsacks(**content["knapsacks"]),
        potential=Potential(**content["potential"]),
    )


def _world(gpu: str, numbers: Mapping[str, Any]) -> World:
    arrays = {name: np.array(numbers[name], float) for name in ("throughput", "edge_use", "traffic", "fig10")}
    assert arrays["fig10"].shape[1] == len(BANDWIDTHS) and len(arrays["throughput"]) == len(NETWORKS)
    return World(gpu=gpu, edge_time=numbers["edge_time"], **arrays)
