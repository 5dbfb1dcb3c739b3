"""What Theorems 1 to 3 of Dai et al. 2022 (Coknight) say, checked on small instances and counted."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.reproduce.coknight.data import NUM_CUTS
from benchmarks.reproduce.coknight.measured import Knapsacks, Operations, Potential
from mec_jax.physics.partition_game import Game, make_game, resource_use, response_times, utilities
from mec_jax.solvers import partition_game as solvers

KNAPSACKS, FEWEST_ITEMS, MOST_ITEMS = 200, 3, 10
MOVES, PENALTY = 2000, 10.0
SIZES_COUNTED, CUTS_COUNTED, DEVICES_COUNTED = (16, 32, 64, 128), (5, 10, 20, 40), 32
SIZES_TIMED, REPEATS = (128, 256, 512), 15

# Theorem 1


class Knapsack(NamedTuple):
    """Eqs. 12 to 14."""

    values: np.ndarray
    weights: np.ndarray
    capacity: int


def knapsack(generator: np.random.Generator) -> Knapsack:
    """A small one of whole numbers, in which some items do not fit together."""
    items = int(generator.integers(FEWEST_ITEMS, MOST_ITEMS + 1))
    weights = generator.integers(1, 13, items)
    return Knapsack(generator.integers(1, 21, items), weights, int(generator.integers(1, weights.sum() + 1)))


def best_value(of: Knapsack) -> int:
    """By trying all subsets."""
    choices = np.array(list(itertools.product((0, 1), repeat=len(of.values))))
    fits = choices @ of.weights <= of.capacity
    return int((choices @ of.values)[fits].max())


def as_game(of: Knapsack) -> Game:
    """The game of the proof: a device for each item, a network of one layer, so that a device is at the edge or local.

    The layer has 1 FLOP and no tensors, the edge takes 1 s for it and a device v + 1 s, so that u_i(0) = v_i. Its
    requests take w_i of R_c = C a second, and R_b is out of reach. The paper's C_e(y) is the same for all devices, so
    that weights that differ need a rate of requests (or a network) of their own.
    """
    flops, bits = jnp.ones(1), jnp.zeros(2)
    times = response_times(flops, bits, jnp.asarray(1 / (of.values + 1.0)), jnp.ones(()), jnp.ones(()))
    rate = jnp.asarray(of.weights, float)
    return make_game(
        utilities(times), resource_use(flops, bits, rate, rate), jnp.array([of.capacity, 1.0]), jnp.array(False)
    )


def check_knapsacks(number: int) -> Knapsacks:
    """How often the optimum of the game is the best value of the knapsack."""
    generator = np.random.default_rng(1)
    same = alike = 0
    for _ in range(number):
        one = knapsack(generator)
        game = as_game(one)
        best = solvers.optimum(game)
        chosen = best.cut == 0
        fits = one.weights[chosen].sum() <= one.capacity
        same += bool(fits and one.values[chosen].sum() == best_value(one))
        alike += bool(np.ptp(one.weights) == 0)
    return Knapsacks(number, (FEWEST_ITEMS, MOST_ITEMS), same, alike)


# Theorem 2


def check_potential(moves: int) -> Potential:
    """How often a random move of one of four players changes the potential by as much as the mover's utility, where
    every player has minus `PENALTY` in a state that does not fit. `tests/test_solvers_partition_game.py` has the
    identity for the package's games.
    """
    generator = np.random.default_rng(2)
    counts = {True: [0, 0], False: [0, 0]}
    for _ in range(moves):
        gains, use = generator.uniform(size=(4, 4)), generator.exponential(size=(4, 4))
        gains[:, -1], use[:, -1] = 0, 0
        before = generator.integers(4, size=4)
        after = before.copy()
        mover = int(generator.integers(4))
        after[mover] = (before[mover] + generator.integers(1, 4)) % 4
        states = [_utilities(gains, use, 2.0, cut) for cut in (before, after)]
        change = states[1] - states[0]
        both = all(use[np.arange(4), cut].sum() <= 2.0 for cut in (before, after))
        counts[both][0] += 1
        counts[both][1] += bool(abs(change.sum() - change[mover]) < 1e-9)
    return Potential(
        feasible=counts[True][0],
        feasible_equal=counts[True][1],
        infeasible=counts[False][0],
        infeasible_equal=counts[False][1],
        penalty=PENALTY,
    )


def _utilities(gains: np.ndarray, use: np.ndarray, room: float, cut: np.ndarray) -> np.ndarray:
    """Of each player in a state."""
    player = np.arange(len(cut))
    return np.where(use[player, cut].sum() <= room, gains[player, cut], -PENALTY)


# Theorem 3


def counted_defp(game: Game) -> tuple[list[int], int]:
    """The cuts of Algorithm 1 with the repairs of `mec_jax.solvers.partition_game`, in plain Python, and its
    operations: a cut that is checked for room is one, and the sum of a pair's utilities that is compared is another.
    """
    utility = np.asarray(game.utility)
    use = np.asarray(game.use, np.int64).transpose(1, 2, 0).tolist()  # [device][cut][resource]
    worth = utility.tolist()
    units = np.asarray(game.capacity, np.int64).tolist()
    devices, cuts = utility.shape
    cut, operations = [cuts - 1] * devices, 0
    free = [0, 0] if game.elastic else list(units)

    def best_response(device: int, room: Sequence[int]) -> int:
        nonlocal operations
        best, found = -np.inf, -1
        for t, (compute, bandwidth) in enumerate(use[device]):
            operations += 1
            if compute <= room[0] and bandwidth <= room[1] and worth[device][t] > best:
                best, found = worth[device][t], t
        return found

    for new in range(devices):
        if game.elastic:
            free = [have + more for have, more in zip(free, units, strict=True)]
        cut[new] = best_response(new, free)
        free = _less(free, use[new][cut[new]])
        for i in range(new):
            pool = _less(free, [-a - b for a, b in zip(use[i][cut[i]], use[new][cut[new]], strict=True)])
            most, pair = np.float32(-np.inf), (cut[i], cut[new])
            for s in range(cuts):
                operations += 1
                room = _less(pool, use[new][s])
                if min(room) < 0:
                    continue
                t = best_response(i, room)
                operations += 1
                total = utility[i, t] + utility[new, s]  # rounded as the solver's
                if total >= most:
                    most, pair = total, (t, s)
            cut[i], cut[new] = pair
            free = _less(_less(pool, use[i][cut[i]]), use[new][cut[new]])
    return cut, operations


def _less(have: Sequence[int], taken: Sequence[int]) -> list[int]:
    return [a - b for a, b in zip(have, taken, strict=True)]


def random_game(size: int, num_cuts: int) -> Game:
    """Random utilities and uses, and a server that has room for some of them."""
    generator = np.random.default_rng(size)
    gains, use = generator.uniform(size=(size, num_cuts + 1)), generator.uniform(size=(2, size, num_cuts + 1))
    gains[:, -1], use[:, :, -1] = 0, 0
    return make_game(jnp.asarray(gains), jnp.asarray(use), jnp.full(2, size / 4), jnp.array(False))


def count_operations(
    sizes: Sequence[int], cuts: Sequence[int], devices: int, timed: Sequence[int], repeats: int
) -> Operations:
    """What DEFP does for all to come; and how long the solver takes, without compiling.

    Args:
        sizes: Devices with the network's cuts.
        cuts: K with so many `devices`.
        devices: Of the counts by cuts.
        timed: Devices of the times.
        repeats: Times are medians of so many.
    """
    agreed = 0

    def count(size: int, num_cuts: int) -> int:
        nonlocal agreed
        game = random_game(size, num_cuts)
        found, operations = counted_defp(game)
        agreed += np.asarray(jax.jit(solvers.defp)(game).cut).tolist() == found
        return operations

    by_size = np.array([count(size, NUM_CUTS) for size in sizes])
    by_cuts = np.array([count(devices, num_cuts) for num_cuts in cuts])
    seconds = {size: _seconds(jax.jit(solvers.defp), random_game(size, NUM_CUTS), repeats) for size in timed}
    games = len(sizes) + len(cuts)
    return Operations(tuple(sizes), by_size, tuple(cuts), by_cuts, devices, agreed, games, seconds)


def _seconds(program: Callable[[Game], Any], game: Game, repeats: int) -> float:
    jax.block_until_ready(program(game))
    marks = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(program(game))
        marks.append(time.perf_counter() - start)
    return float(np.median(marks))
