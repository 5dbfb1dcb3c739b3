"""Optimizers of compressed inference in numbers: MQHOA and the enumerated optimum, the baselines, the bound.

    python -m benchmarks.solvers.compression            # all counts
    python -m benchmarks.solvers.compression --part 10  # a tenth of them

Results go to benchmarks/results/compression.txt. Exits 1 when MQHOA is more than 1 % behind the enumerated optimum in
one of the scenarios or better than it, a baseline is better than the joint search, or anything is below the bound.

Scenarios are random devices, links and servers, by their logarithms, for a small network whose optimum can be
enumerated and for AlexNet and RegNetX-400MF; accuracy is the declared law "anchored", and what comes with the package.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.physics.accuracy import Predictor, anchored, predictor
from mec_jax.physics.compression import CompressibleCosts, costs
from mec_jax.profiles.compression import COMPRESSIBLE, compressible
from mec_jax.profiles.regressors import bundled_regressors, load_regressor
from mec_jax.solvers import compression as solvers
from mec_jax.solvers.compression import PER_SCENARIO, SPACES, Config, Found, Problem

RESULT = RESULTS / "compression.txt"
EQUAL = 1e-5  # relative, of two float32 programs of one law
NEAR = 1.01  # of the enumerated optimum
AT_ONCE = 250  # scenarios whose baselines search side by side
RESTARTS = 256  # of MQHOA, whose best counts
LIGHT = Config(scales=8, draws=4, sweeps=2, moves=2)
"""For 10^4 scenarios: searches that are short, as any strategy within the budget may try the bound."""


def scenarios(number: int, of: CompressibleCosts, model: Predictor, seed: int, snr_db: float = np.inf) -> Problem:
    """Problems `[scenario]`. The devices and servers of the small network are as much slower as its work is less."""
    rng = np.random.default_rng(seed)
    times = 1 if of.width.shape[0] == 3 else 1000
    numbers = (times * 10 ** rng.uniform(5, 9, number), 10 ** rng.uniform(4, 8, number))
    each = jax.vmap(
        lambda device, rate, server: solvers.problem(of, model, device, rate, server, snr_db), 0, PER_SCENARIO
    )
    return each(*(jnp.array(x, float) for x in (*numbers, times * 10 ** rng.uniform(9, 11, number))))


def part_of(problems: Problem, start: int, stop: int) -> Problem:
    """Some of the problems."""
    return Problem(problems.costs, problems.model, *(each[start:stop] for each in problems[2:]))


def against_enumeration(number: int) -> list[str]:
    """MQHOA by both rules, random search and CMA-ES beside the optimum of the small network."""
    network = solvers.three_layers()
    of, model = costs(network), anchored(network, 0.9)
    problems = scenarios(number, of, model, 0)
    every = solvers.enumerated(network, of, model)
    optimum, strategies = jax.jit(jax.vmap(solvers.optimum, (None, 0, 0, 0)))(
        every, problems.device_speed, problems.rate, problems.server_speed
    )
    seconds, keys = np.asarray(optimum, float), jax.random.split(jax.random.key(0), number)
    joint = SPACES["Joint"]
    lines = [
        f"Three layers, {number} scenarios, all {every.codec.shape[0]} prunings x {every.codec.shape[1]} cuts, "
        f"with their codecs; the optima have {len(np.unique(strategies.cut))} different cuts",
        "  latency / optimum                         median     worst   within 1 %   of single runs",
    ]

    def line(name: str, found: Found, energies: Any = None) -> None:
        ratio = np.where(found.allowed, np.asarray(found.latency, float) / seconds, np.inf)
        near = int(np.sum(ratio <= NEAR))
        alone = "" if energies is None else f"{np.mean(np.asarray(energies) <= NEAR * seconds[:, None]):19.1%}"
        lines.append(f"  {name:<38} {np.median(ratio):9.5f} {ratio.max():9.5f} {near:6d} of {number} {alone}".rstrip())
        if ratio.min() < 1 - EQUAL:
            raise SystemExit("\n".join([*lines, f"{name} is better than the optimum"]))
        if name.startswith("MQHOA, own") and near < number:
            raise SystemExit("\n".join([*lines, f"{name} is more than 1 % behind"]))

    def mqhoa(config: Config, each: Problem, key: Any) -> tuple[Found, Any]:
        runs = jax.vmap(lambda key: solvers.mqhoa(joint, config, each, key))(jax.random.split(key, RESTARTS))
        best = jnp.argmin(runs.best.energy)
        return jax.tree.map(lambda leaf: leaf[best], runs.best), runs.best.energy

    def solved(search: Callable[[Problem, Any], Any]) -> Any:
        return jax.jit(jax.vmap(search, (PER_SCENARIO, 0)))(problems, keys)

    line(f"MQHOA, own place, {RESTARTS} restarts", *solved(partial(mqhoa, Config())))
    line(f"MQHOA, as printed, {RESTARTS} restarts", *solved(partial(mqhoa, Config(accept="global"))))
    line("Random search, 2^15 points", solved(lambda each, key: solvers.random_search(joint, each, key, 2**15)))
    some = [solvers.cma_es(joint, nth(problems, index), seed=index + 1, evaluations=3000) for index in range(number)]
    line("CMA-ES, at most 3000 points", jax.tree.map(lambda *leaves: jnp.stack(leaves), *some))
    return lines


def nth(problems: Problem, number: int) -> Problem:
    """One of the problems."""
    return Problem(problems.costs, problems.model, *(each[number] for each in problems[2:]))


def against_the_bound(name: str, of: CompressibleCosts, model: Predictor, number: int) -> list[str]:
    """All baselines and the joint search beside each other and the bound."""
    start = time.perf_counter()
    relaxed = solvers.relaxed(of, model)
    problems = scenarios(number, of, model, 1)
    bound = np.asarray(
        jax.jit(jax.vmap(solvers.lower_bound, (None, 0, 0, 0)))(
            relaxed, problems.device_speed, problems.rate, problems.server_speed
        ),
        float,
    )
    compare = jax.jit(jax.vmap(lambda each, key: solvers.compare(each, key, LIGHT, 2), (PER_SCENARIO, 0)))
    keys = jax.random.split(jax.random.key(1), number)
    parts = [
        jax.device_get(compare(part_of(problems, first, first + AT_ONCE), keys[first : first + AT_ONCE]))
        for first in range(0, number, AT_ONCE)
    ]
    found: Mapping[str, Found] = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    joint = np.asarray(found["Joint"].energy, float)
    lines = [
        f"{name}, {number} scenarios",
        "  latency / joint search       least    median     worst   bound / latency, most",
    ]
    for method, each in found.items():
        ratio, allowed = np.asarray(each.energy, float) / joint, np.asarray(each.allowed)
        tight = (bound / np.asarray(each.latency, float))[allowed]
        shown = ratio[allowed]
        lines.append(
            f"  {method:<22} {shown.min():11.6f} {np.median(shown):9.3f} {shown.max():9.1f} {tight.max():16.4f}"
            + ("" if allowed.all() else f"   allowed in {int(allowed.sum())}")
        )
        if ratio.min() < 1 - EQUAL:
            raise SystemExit("\n".join([*lines, f"{method} beats the joint search"]))
        if tight.max() > 1:
            raise SystemExit("\n".join([*lines, f"{method} is below the bound"]))
    tight = bound / np.asarray(found["Joint"].latency, float)
    lines.append(
        f"  bound / joint search: median {np.median(tight):.3f}, from {tight.min():.3f} to {tight.max():.3f}; "
        f"{time.perf_counter() - start:.0f} s"
    )
    return lines


def main(argv: list[str] | None = None) -> None:
    """Compare and write."""
    parser = command_line(__spec__.name, __doc__, RESULT)
    parser.add_argument("--part", type=int, default=1, help="one of so many parts of all scenarios (default: 1, all)")
    parser.add_argument("--networks", nargs="*", default=["three layers", *COMPRESSIBLE], help="beside the bound")
    args = parser.parse_args(argv)
    lines = [described(machine(), versions=("jax", "jaxlib")), "", *against_enumeration(max(100 // args.part, 1))]
    print("\n".join(lines), flush=True)
    for name in args.networks:
        network = solvers.three_layers() if name == "three layers" else compressible(name)
        of = costs(network)
        models = {"anchored": anchored(network, 0.9 if name == "three layers" else None)}
        if name in bundled_regressors():
            models["measured"] = predictor(load_regressor(name))  # type: ignore[assignment]
        for kind, model in models.items():
            more = ["", *against_the_bound(f"{name}, {kind}", of, model, max(10_000 // args.part, AT_ONCE))]
            print("\n".join(more), flush=True)
            lines += more
    write_result(args.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
