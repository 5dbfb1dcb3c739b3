"""The partition game in numbers: optimum and brute force, heuristics and optimum, churn, speed.

    python -m benchmarks.solvers.partition_game            # all counts, about five minutes on two cores
    python -m benchmarks.solvers.partition_game --part 10  # a tenth of them

Results go to benchmarks/results/partition_game.txt. Exits 1 when an optimum differs from brute force, a heuristic's
state does not fit, a ledger differs from its recomputation, or the speed is below its target.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, ROOT, command_line, write_result
from mec_jax.physics import partition_game as law
from mec_jax.physics.partition_game import Allocation, Game
from mec_jax.profiles.partition_game import FLOAT_FRAMES, load_cut_table
from mec_jax.solvers import partition_game as solvers

SPEEDS = (2e9, 8e9, 32e9)  # FLOP/s
EDGE_SPEED, LINK_RATE = 1e12, 8e7  # FLOP/s, bit/s: the paper's 10 MB/s
TARGET = 1000  # instances/s of DEFP


def _everyone(game: Game) -> Any:
    return jnp.ones(game.utility.shape[0], bool)


HEURISTICS: dict[str, Callable[[Game], Allocation]] = {
    "DEFP": solvers.defp,
    "IGreedy": solvers.igreedy,
    "OGreedy, density": lambda game: solvers.ogreedy(game, _everyone(game)),
    "OGreedy, utility": lambda game: solvers.ogreedy(game, _everyone(game), "utility"),
    "Best responses": lambda game: solvers.best_response_dynamics(
        game, law.nobody(game)._replace(present=_everyone(game))
    ),
}


# --- Instances ---


def random_games(number: int, devices: int, cuts: int, seed: int, elastic: bool = False) -> Game:
    """Games `[instance]` of any utilities, some of them losses, and any uses. `cuts` counts the local run."""
    rng = np.random.default_rng(seed)
    shape = (number, devices, cuts)
    utility = rng.uniform(-0.2, 1, shape) * rng.uniform(0.1, 3, (number, devices, 1))
    use = rng.exponential(size=(number, 2, devices, cuts))
    utility[..., -1], use[..., -1] = 0, 0
    room = rng.uniform(0.1, 1.5, (number, 2)) * (1 if elastic else devices)
    return _games(utility, use, room, elastic)


def network_games(
    number: int,
    devices: int,
    seed: int,
    elastic: bool = False,
    alike: bool = True,
    room: float | None = None,
    network: str = FLOAT_FRAMES,
) -> Game:
    """Games `[instance]` of the authors' network.

    Args:
        number: Of instances.
        devices: In each.
        seed: Of the generator.
        elastic: Whether the server grows as devices come, to the same size.
        alike: Whether there are three speeds; else each device has its own, log-uniform between the outer two.
        room: The capacity, as a part of what all devices would take with the raw input; if absent, 10 to 80 % of each
            resource.
        network: Which, for `load_cut_table`.
    """
    rng = np.random.default_rng(seed)
    table = load_cut_table(network)
    shape = (number, devices)
    speed = rng.choice(SPEEDS, shape) if alike else SPEEDS[0] * (SPEEDS[-1] / SPEEDS[0]) ** rng.uniform(size=shape)
    flops, bits, ones = jnp.asarray(table.flops), jnp.asarray(table.bits), jnp.ones(devices)
    times = jax.vmap(law.response_times, (None, None, 0, None, None))(
        flops, bits, jnp.asarray(speed), jnp.asarray(EDGE_SPEED), jnp.asarray(LINK_RATE)
    )
    whole = np.array([sum(table.flops), table.bits[0]]) * (1 if elastic else devices)
    limits = whole * (rng.uniform(0.1, 0.8, (number, 2)) if room is None else np.full((number, 2), room))
    use = jnp.broadcast_to(law.resource_use(flops, bits, ones, ones), (number, 2, devices, len(table.bits)))
    return _games(jax.vmap(law.utilities)(times), use, limits, elastic)


def _games(utility: Any, use: Any, room: Any, elastic: bool) -> Game:
    make = jax.vmap(law.make_game, (0, 0, 0, None))
    return make(jnp.asarray(utility, float), jnp.asarray(use, float), jnp.asarray(room, float), jnp.array(elastic))


def one(games: Game, index: int) -> Game:
    return jax.tree.map(lambda x: np.asarray(x)[index], games)


def brute_force(game: Game) -> float:
    """The greatest sum of utilities of all choices that fit."""
    utility, use = np.asarray(game.utility, float), np.asarray(game.use, np.int64)
    devices, cuts = utility.shape
    choice = np.array(list(itertools.product(range(cuts), repeat=devices)))
    number = np.arange(devices)
    units = np.asarray(game.capacity, np.int64) * (devices if game.elastic else 1)
    fits = (use[:, number, choice].sum(2) <= units[:, None]).all(0)
    return float(utility[number, choice].sum(1)[fits].max())


class Counterexample(NamedTuple):
    """A move into an infeasible state, where each player is charged a penalty."""

    own_change: float  # of the mover's utility
    potential_change: float  # of the sum of utilities


def infeasible_counterexample(penalty: float) -> Counterexample:
    """Two devices gain 3 and 2 from all of a server that has room for one; the second moves there beside the first.

    Args:
        penalty: Minus the utility of every player in a state that does not fit; infinite in the paper.
    """
    before, after = np.array([3.0, 0.0]), np.array([-penalty, -penalty])
    return Counterexample(float(after[1] - before[1]), float(after.sum() - before.sum()))


def poor_equilibrium() -> tuple[Game, Allocation]:
    """A game and a Nash state of it that is worth 3 where 4 is possible, and which no two can improve either."""
    use = np.zeros((2, 3, 2))
    use[0, :, 0] = [2, 1, 1]
    utility = jnp.array([[3.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    game = law.make_game(utility, jnp.asarray(use), jnp.array([2.0, 1.0]), jnp.array(False))
    everyone = jnp.ones(3, bool)
    cut = jnp.array([0, 1, 1])
    return game, Allocation(cut, everyone, law.used(game, cut, everyone))


# --- Churn ---


@partial(jax.jit, static_argnums=(0, 1))
def churn(arrive: Callable, leave: Callable, games: Game, device: Any) -> tuple[Allocation, Any]:
    """Allocations `[event, instance]` while devices `[event, instance]` come, or leave if they are there; and whether
    each fits and has a ledger that equals its recomputation.
    """

    def event(game: Game, allocation: Allocation, device: Any) -> tuple[Allocation, Any]:
        comes = arrive(game, allocation, device)
        goes = leave(game, allocation, device)
        here = allocation.present[device]
        allocation = jax.tree.map(lambda a, b: jnp.where(here, a, b), goes, comes)
        right = jnp.all(allocation.used == law.used(game, allocation.cut, allocation.present))
        return allocation, right & law.is_feasible(game, allocation.cut, allocation.present)

    def step(allocation: Allocation, device: Any) -> tuple[Allocation, Any]:
        allocation, right = jax.vmap(event)(games, allocation, device)
        return allocation, (allocation, right)

    return jax.lax.scan(step, jax.vmap(law.nobody)(games), device)[1]


# --- Reports ---


def distribution(ratio: Any) -> str:
    quantiles = np.quantile(ratio, [0, 0.01, 0.1, 0.5])
    return f"mean {np.mean(ratio):.4f}, least {{:.3f}}, 1 % {{:.3f}}, 10 % {{:.4f}}, median {{:.4f}}".format(*quantiles)


def optimum_against_brute_force(number: int) -> tuple[list[str], bool]:
    differences = []
    for seed, (devices, cuts) in enumerate(((4, 4), (5, 4), (6, 4), (4, 8), (3, 11))):
        games = random_games(number // 5, devices, cuts, seed)
        for index in range(number // 5):
            game = one(games, index)
            differences.append(abs(solvers.optimum(game).utility - brute_force(game)))
    line = f"MILP and brute force, {len(differences)} random games: largest difference {max(differences):.1e} s"
    return [line], max(differences) <= 1e-6


def feasibility(number: int) -> tuple[list[str], bool]:
    lines, wrong_ones = [], 0
    for name, heuristic in HEURISTICS.items():
        wrong = tried = 0
        for seed, elastic in enumerate((False, True)):
            games = random_games(number // 4, 8, 6, seed, elastic), network_games(number // 4, 10, seed, elastic)
            for batch in games:
                found = jax.jit(jax.vmap(heuristic))(batch)
                fits = jax.vmap(law.is_feasible)(batch, found.cut, found.present)
                same = jnp.all(found.used == jax.vmap(law.used)(batch, found.cut, found.present), axis=1)
                wrong += int(jnp.sum(~(fits & same)))
                tried += fits.size
        lines.append(f"{wrong:6d} of {tried} states of {name} do not fit, or have a wrong ledger")
        wrong_ones += wrong
    return lines, not wrong_ones


@jax.jit
def _gains(games: Game, allocation: Allocation) -> Any:
    return jax.lax.map(lambda both: solvers.largest_gains(*both), (games, allocation), batch_size=16)


def ratios(number: int) -> tuple[list[str], bool]:
    lines = [
        "Sum of utilities over the optimum, how often it is reached, whether moves of one or two devices still gain, "
        "and over devices the variance of cuts and the coefficient of variation of utilities:"
    ]
    byte_frames = "coknight_resnet"
    settings: list[tuple[str, Game]] = [
        ("any utilities and uses, 8 devices, 6 cuts", random_games(number, 8, 6, 11)),
        *((f"float frames, {n} devices of three speeds", network_games(number, n, 12)) for n in (10, 20, 40)),
        ("float frames, 20 devices of all speeds", network_games(number, 20, 13, alike=False)),
        ("float frames, 20 devices, a server that grows as they come", network_games(number, 20, 14, elastic=True)),
        ("8-bit frames, 20 devices of three speeds", network_games(number, 20, 12, network=byte_frames)),
        ("8-bit frames, 20 devices of all speeds", network_games(number, 20, 13, alike=False, network=byte_frames)),
    ]
    for title, games in settings:
        optima = [solvers.optimum(one(games, index)) for index in range(number)]
        best = np.array([each.utility for each in optima])
        games, best = jax.tree.map(lambda x, some=best > 0: x[some], games), best[best > 0]
        lines.append(f"- {title}, {len(best)} games")
        cut = np.array([each.cut for each in optima if each.utility > 0])
        lines.append(f"  {'MILP':16s} {_spread(games, cut)}")
        for name, heuristic in HEURISTICS.items():
            found = jax.jit(jax.vmap(heuristic))(games)
            ratio = np.asarray(jax.vmap(law.total_utility)(games, found.cut, found.present)) / best
            line = f"  {name:16s} {distribution(ratio)}; reached in {np.mean(ratio > 1 - 1e-5):.1%}"
            if name in ("DEFP", "Best responses"):
                alone, together = (np.asarray(gain) / best for gain in _gains(games, found))
                line += f"; one can gain in {np.mean(alone > 1e-5):.1%}, two in {np.mean(together > 1e-5):.1%}"
            lines.append(f"{line}; {_spread(games, np.asarray(found.cut))}")
    return lines, True


def _spread(games: Game, cut: np.ndarray) -> str:
    utility = np.take_along_axis(np.asarray(games.utility), cut[..., None], axis=2)[..., 0]
    variation = np.std(utility, axis=1) / np.maximum(np.mean(utility, axis=1), 1e-9)
    return f"Var(y) {np.var(cut, axis=1).mean():.1f}, sd(u)/mean(u) {np.median(variation):.2f}"


def growth(number: int) -> tuple[list[str], bool]:
    """Fig. 12 with this network: totals by the number of devices, the capacity growing with it or not."""
    lines = [f"Latency saved by all devices together, ms, mean of {number} games, by the number of devices:"]
    sizes = (5, 10, 20, 40, 80)
    for network, fixed in itertools.product((FLOAT_FRAMES, "coknight_resnet"), (False, True)):
        rows: dict[str, list[str]] = {name: [] for name in ("MILP", *HEURISTICS)}
        for size in sizes:
            games = network_games(number, size, 18, room=0.25 * (20 / size if fixed else 1), network=network)
            best = np.array([solvers.optimum(one(games, index)).utility for index in range(number)])
            rows["MILP"].append(f"{1e3 * best.mean():8.0f}")
            for name, heuristic in HEURISTICS.items():
                found = jax.jit(jax.vmap(heuristic))(games)
                total = jax.vmap(law.total_utility)(games, found.cut, found.present)
                rows[name].append(f"{1e3 * float(total.mean()):8.0f}")
        lines.append(f"- {network}, {'R fixed, that of 20 devices' if fixed else 'R = N r_0'}")
        lines.append("  " + " " * 16 + "".join(f"{size:8d}" for size in sizes))
        lines += [f"  {name:16s}{''.join(row)}" for name, row in rows.items()]
    return lines, True


def identities() -> tuple[list[str], bool]:
    lines, largest, pairs = [], 0.0, 0
    rng = np.random.default_rng(0)
    games = random_games(500, 6, 5, 15)
    everyone = jnp.ones(6, bool)
    feasible, total = (
        jax.jit(jax.vmap(law.is_feasible, (0, 0, None))),
        jax.jit(jax.vmap(law.total_utility, (0, 0, None))),
    )
    for _ in range(20):
        cut = rng.integers(5, size=(500, 6))
        mover, moved = rng.integers(6, size=500), cut.copy()
        moved[np.arange(500), mover] = rng.integers(5, size=500)
        states = jnp.asarray(cut), jnp.asarray(moved)
        both = np.asarray(feasible(games, states[0], everyone) & feasible(games, states[1], everyone))
        change = np.asarray(total(games, states[1], everyone) - total(games, states[0], everyone))
        utility = np.asarray(games.utility)[np.arange(500), mover]
        own = (
            utility[np.arange(500), moved[np.arange(500), mover]] - utility[np.arange(500), cut[np.arange(500), mover]]
        )
        largest = max(largest, float(np.max(np.abs(change - own)[both], initial=0)))
        pairs += int(both.sum())
    lines.append(f"Potential identity on {pairs} feasible pairs of random games: largest difference {largest:.1e} s")
    finite, infinite = infeasible_counterexample(10.0), infeasible_counterexample(float("inf"))
    lines.append(
        "Not on infeasible ones: utilities 3 and 2, room for one, the second moves in beside the first. Every player "
        f"charged 10: own change {finite.own_change:g}, potential {finite.potential_change:g}. Charged infinity: both "
        f"{infinite.own_change:g}, and the move back to another infeasible state is -inf - -inf, undefined."
    )
    game, state = poor_equilibrium()
    alone, together = solvers.largest_gains(game, state)
    lines.append(
        "A Nash state that is not optimal: capacity 2, utilities 3 2 2 from using 2 1 1, the first alone at the edge: "
        f"{law.total_utility(game, state.cut, state.present):g} of {solvers.optimum(game).utility:g}; one can gain "
        f"{alone:g}, two {together:g}"
    )
    return lines, largest < 1e-5


def long_churn(instances: int, events: int) -> tuple[list[str], bool]:
    lines, sound = [f"Churn of 30 devices, half of them there, {instances} servers x {events} events:"], True
    rng = np.random.default_rng(1)
    for elastic in (False, True):
        games = network_games(instances, 30, 16, elastic)
        # Every second device comes first, then any come or go.
        first = np.tile(np.arange(0, 30, 2)[:, None], instances)
        device = np.concatenate([first, rng.integers(30, size=(events, instances))])
        sampled = np.linspace(len(device) // 2, len(device) - 1, 8).astype(int)
        for name, arrive, leave in (
            ("DEFP", solvers.defp_arrive, solvers.defp_leave),
            ("IGreedy", solvers.igreedy_arrive, law.departure),
        ):
            allocation, right = churn(arrive, leave, games, jnp.asarray(device))
            sound &= bool(right.all())
            ratio = []
            for event in sampled:
                for index in range(instances):
                    game = one(games, index)
                    here, cut = allocation.present[event, index], allocation.cut[event, index]
                    best = solvers.optimum(game, here).utility
                    if best > 0:
                        ratio.append(float(law.total_utility(jax.tree.map(jnp.asarray, game), cut, here)) / best)
            kind = "server that grows and shrinks" if elastic else "fixed server"
            lines.append(
                f"- {name}, {kind}: over the optimum {distribution(ratio)}; states that do not fit or have a wrong "
                f"ledger: {int(np.sum(~right))}"
            )
    return lines, sound


# --- Speed ---


def speed() -> dict[str, Any]:
    """DEFP of 100 devices, all arrivals, on all CPU devices that there are."""
    devices, lanes = 100, 512
    count = jax.device_count()
    games = network_games(count * lanes, devices, 17)
    mesh = jax.make_mesh((count,), ("lane",), axis_types=(AxisType.Auto,))
    lane = PartitionSpec("lane")
    games = jax.device_put(games, NamedSharding(mesh, lane))
    run = jax.jit(
        jax.shard_map(
            jax.vmap(lambda game: solvers.defp(game).cut), mesh=mesh, in_specs=lane, out_specs=lane, check_vma=False
        )
    )
    begin = time.perf_counter()
    jax.block_until_ready(run(games))
    first = time.perf_counter() - begin
    rates, cores = [], []
    for _ in range(15):
        begin, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(run(games))
        taken = time.perf_counter() - begin
        rates.append(count * lanes / taken)
        cores.append((time.process_time() - cpu) / taken)
    return {"first": first, "rates": rates, "cores": cores, "devices": count}


def speeds(number: int) -> tuple[list[str], bool]:
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={os.cpu_count()}"}
    printed = subprocess.run(
        [sys.executable, "-m", __spec__.name, "--speed"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = json.loads(printed)
    rate = float(np.median(found["rates"]))
    lines = [
        f"DEFP of 100 devices x 10 cuts, all 100 arrivals, sharded over {found['devices']} CPU devices: median "
        f"{rate:.0f} instances/s ({min(found['rates']):.0f} to {max(found['rates']):.0f} in {len(found['rates'])} runs "
        f"of {512 * found['devices']}, on {np.median(found['cores']):.1f} cores; first call {found['first']:.1f} s); "
        f"target {TARGET}"
    ]
    for alike in (True, False):
        games = network_games(number, 100, 17, alike=alike)
        times = []
        for index in range(number):
            game = one(games, index)
            begin = time.perf_counter()
            solvers.optimum(game)
            times.append(time.perf_counter() - begin)
        kind = (
            "three speeds, devices that are alike counted"
            if alike
            else "all speeds, a variable for each device and cut"
        )
        lines.append(
            f"HiGHS, 100 devices of {kind}: median {np.median(times) * 1e3:.0f} ms ({min(times) * 1e3:.0f} to "
            f"{max(times) * 1e3:.0f}) an instance, {np.median(times) * rate:.0f} times what DEFP takes"
        )
    return lines, rate >= TARGET


def main() -> int:
    parser = command_line(__spec__.name, __doc__, RESULTS / "partition_game.txt")
    parser.add_argument("--part", type=int, default=1, help="one part in so many of the counts")
    parser.add_argument("--speed", action="store_true", help="print the speed on the devices that there are as JSON")
    args = parser.parse_args()
    if args.speed:
        print(json.dumps(speed()))
        return 0
    about = machine()
    lines = [f"Partition game on {about['cpu']}, {about['cores']} cores, JAX {about['jax']}"]
    passed = True
    for report in (
        partial(optimum_against_brute_force, 500 // args.part),
        partial(feasibility, 100_000 // args.part),
        partial(ratios, 200 // args.part),
        partial(growth, 30 // args.part),
        identities,
        partial(long_churn, 32 // args.part, 1000 // args.part),
        partial(speeds, max(20 // args.part, 1)),
    ):
        begin = time.perf_counter()
        more, ok = report()
        passed &= ok
        lines += ["", *more, *([] if ok else ["FAILED"])]
        print("\n".join(more), f"[{time.perf_counter() - begin:.0f} s]", sep="\n", flush=True)
    write_result(args.out, "\n".join(lines) + "\n")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
