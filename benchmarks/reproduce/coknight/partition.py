"""The partition game of Fig. 12 of Dai et al. 2022 (Coknight): every algorithm and the optimum on the same games."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.reproduce.coknight.data import (
    BY_DENSITY,
    BY_UTILITY,
    DEFAULTS,
    DEFP,
    DEVICE_SPEEDS,
    ELASTIC,
    FAST_ETHERNET,
    FITTED_SPEED,
    FIXED,
    FIXED_FOR,
    IGREEDY,
    METRICS,
    MILP,
    NASH,
    OWN_SPEEDS,
    PIXELS,
    RANDOM,
    REQUEST_RATE,
    SHARE,
    SMALL_FRAMES,
    TABLE,
    V100_SPEED,
)
from benchmarks.reproduce.coknight.measured import Table
from mec_jax.physics.partition_game import (
    Allocation,
    Game,
    allowed,
    arrival,
    make_game,
    nobody,
    resource_use,
    response_times,
    take,
    utilities,
)
from mec_jax.solvers import partition_game as solvers

SIZES = (8, 16, 32, 64, 128, 256)  # devices
DRAWS = 6
"""Draws of devices that results are means over."""

GAMES: dict[str, dict[str, float]] = {
    DEFAULTS: {},
    OWN_SPEEDS: {"own_speeds": 1},
    SMALL_FRAMES: {"pixel_bytes": 1},
    "r_0 = 25 %": {"compute": 0.25, "bandwidth": 0.25},
    "r_0 = 75 %": {"compute": 0.75, "bandwidth": 0.75},
    "compute alone is scarce": {"bandwidth": 8},
    "bandwidth alone is scarce": {"compute": 8},
    "the fitted GPU": {"edge_speed": FITTED_SPEED},
}


def game(speeds: Any, elastic: Any, numbers: Mapping[str, Any]) -> Game:
    """The game of devices of these speeds, [device].

    Args:
        speeds: FLOP/s.
        elastic: Whether the server grows with the devices.
        numbers: Bytes of a pixel, f_e, and r_0 of compute and bandwidth as parts of an inference and a raw frame.
    """
    flops = jnp.asarray(TABLE.flops)
    bits = jnp.asarray(TABLE.bits).at[0].set(8 * PIXELS * numbers["pixel_bytes"])
    gains = utilities(response_times(flops, bits, speeds, numbers["edge_speed"], jnp.asarray(FAST_ETHERNET)))
    rate = jnp.full(speeds.shape, REQUEST_RATE)
    own = REQUEST_RATE * jnp.stack([numbers["compute"] * flops.sum(), numbers["bandwidth"] * bits[0]])
    return make_game(gains, resource_use(flops, bits, rate, rate), jnp.where(elastic, 1, FIXED_FOR) * own, elastic)


def game_numbers(changes: Mapping[str, float]) -> dict[str, float]:
    """The numbers of `game`, some of them changed."""
    return {"pixel_bytes": 4.0, "edge_speed": V100_SPEED, "compute": SHARE, "bandwidth": SHARE} | dict(changes)


def everyone(of: Game) -> Allocation:
    """All devices are there and run all themselves."""
    return nobody(of)._replace(present=jnp.ones(of.utility.shape[0], bool))


def random_cuts(of: Game, key: Any) -> Allocation:
    """Devices come in the order of their numbers, and each takes a random one of the cuts that fit."""

    def come(so_far: Allocation, turn: tuple[Any, Any]) -> tuple[Allocation, None]:
        device, key = turn
        so_far = arrival(of, so_far, device)
        logits = jnp.where(allowed(of, so_far, device), 0.0, -jnp.inf)
        return take(of, so_far, device, jax.random.categorical(key, logits)), None

    devices = of.utility.shape[0]
    return jax.lax.scan(come, nobody(of), (jnp.arange(devices), jax.random.split(key, devices)))[0]


ALGORITHMS: dict[str, Callable[[Game, Any], Allocation]] = {
    DEFP: lambda of, key: solvers.defp(of),
    IGREEDY: lambda of, key: solvers.igreedy(of),
    BY_DENSITY: lambda of, key: solvers.ogreedy(of, everyone(of).present, "density"),
    BY_UTILITY: lambda of, key: solvers.ogreedy(of, everyone(of).present, "utility"),
    NASH: lambda of, key: solvers.best_response_dynamics(of, everyone(of)),
    RANDOM: random_cuts,
}


@partial(jax.jit, static_argnames="algorithm")
def _cuts(algorithm: str, games: Game, keys: Any) -> Any:
    """Of many games, [game, device]."""
    return jax.vmap(ALGORITHMS[algorithm])(games, keys).cut


_games = jax.jit(jax.vmap(jax.vmap(jax.vmap(game, (0, None, 0)), (None, 0, None)), (0, None, None)))
"""`game` of many, [draw, server, row], with speeds of [draw, row, device]."""


def measures(gains: np.ndarray, cut: np.ndarray) -> dict[str, float]:
    """Of one allocation: mean latency reduction (s), variances of cut and reduction (s^2), part of local devices."""
    own = np.take_along_axis(gains, cut[:, None], axis=1)[:, 0]
    local = float(np.mean(cut == gains.shape[1] - 1))
    return dict(zip(METRICS, (float(own.mean()), float(cut.var()), float(own.var()), local), strict=True))


def partitions(rows: Sequence[Mapping[str, float]], sizes: Sequence[int], draws: int) -> list[Table]:
    """Every algorithm and the optimum on the same games, one table for each row of numbers."""
    servers = (ELASTIC, FIXED)
    empty = np.zeros((len(sizes), draws))
    tables: list[dict[str, dict[str, dict[str, np.ndarray]]]] = [
        {
            server: {name: {metric: empty.copy() for metric in METRICS} for name in (MILP, *ALGORITHMS)}
            for server in servers
        }
        for _ in rows
    ]
    own = np.array([bool(row.get("own_speeds", 0)) for row in rows])
    numbers = [game_numbers({name: value for name, value in row.items() if name != "own_speeds"}) for row in rows]
    stacked = {name: jnp.array([row[name] for row in numbers]) for name in numbers[0]}
    elastic = jnp.array([server == ELASTIC for server in servers])
    for place, size in enumerate(sizes):
        generator = np.random.default_rng(size)
        alike = generator.permuted(np.tile(np.resize(DEVICE_SPEEDS, size), (draws, 1)), axis=1)
        unlike = np.exp(generator.uniform(*np.log([min(DEVICE_SPEEDS), max(DEVICE_SPEEDS)]), size=alike.shape))
        speeds = np.where(own[:, None], unlike[:, None], alike[:, None])
        games = _games(speeds, elastic, stacked)
        lanes = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), games)
        keys = jax.random.split(jax.random.key(size), lanes.elastic.size)
        shape = draws, len(servers), len(rows)
        cuts = {name: np.asarray(_cuts(name, lanes, keys)).reshape(*shape, size) for name in ALGORITHMS}
        gains = np.asarray(games.utility, float)
        for draw, server, row in np.ndindex(*shape):
            one = jax.tree.map(lambda x, at=(draw, server, row): np.asarray(x[at]), games)
            found = {name: cut[draw, server, row] for name, cut in cuts.items()} | {MILP: solvers.optimum(one).cut}
            for name, cut in found.items():
                for metric, value in measures(gains[draw, server, row], cut).items():
                    tables[row][servers[server]][name][metric][place, draw] = value
    return [Table(tuple(sizes), table) for table in tables]
