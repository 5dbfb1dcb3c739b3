"""How fast compressed inference is predicted and optimized.

    python -m benchmarks.speed.compression

Candidates a second of each of Table IV's regressors in JAX and in scikit-learn, at a batch of 4096; strategies a second
through all of an optimizer's objective; and runs of MQHOA side by side against the same one after the other.
Regressors are fitted to made-up samples of the size of the measured ones: speed hangs on the trees' number and depth
alone. Medians of several times, on a machine that does nothing else. Results go to
benchmarks/results/compression_speed.txt.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.reproduce.mu.regressors import REGRESSORS
from mec_jax.physics.accuracy import Predictor, anchored, input_names, inputs, predict, predictor
from mec_jax.physics.compression import costs, strategy_of
from mec_jax.profiles.compression import compressible
from mec_jax.profiles.regressors import from_sklearn
from mec_jax.solvers.compression import SPACES, Config, energy, mqhoa, problem

RESULT = RESULTS / "compression_speed.txt"
BATCH, SAMPLES, RUNS = 4096, 600, 1000
TARGET = 2e6  # candidates/s of gradient boosting
ALEXNET = compressible("alexnet")


def seconds(work: Callable[[], object], times: int = 15) -> float:
    """The median of several, after a first that compiles."""
    jax.block_until_ready(work())
    found = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(work())
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def random_inputs(number: int, seed: int) -> np.ndarray:
    """What predictors read of random strategies, [number, input]."""
    of, rng = costs(ALEXNET), np.random.default_rng(seed)
    read = jax.jit(jax.vmap(lambda point, snr: inputs(of, strategy_of(of, point), snr)))
    return np.asarray(read(rng.random((number, 16)), rng.uniform(0, 60, number)))


def predictors() -> list[str]:
    """A line for each regressor, and for the declared law."""
    seen, asked = random_inputs(SAMPLES, 0), random_inputs(BATCH, 1)
    of_batch = jax.jit(jax.vmap(predict, (None, 0)))
    law = anchored(ALEXNET)
    accuracy = np.asarray(of_batch(law, seen)) + np.random.default_rng(2).normal(0, 0.005, SAMPLES)

    def rate(model: Predictor) -> float:
        there = jnp.asarray(asked)
        return BATCH / seconds(lambda: of_batch(model, there))

    lines = [f"Predictors, batch of {BATCH}, candidates/s", f"  {'':<26} {'JAX':>10} {'scikit-learn':>13} {'ratio':>7}"]
    for name, make in REGRESSORS.items():
        fitted = make(0).fit(seen, accuracy)
        ours = rate(predictor(from_sklearn(fitted, input_names(ALEXNET), 0.87)))
        theirs = BATCH / seconds(lambda fitted=fitted: fitted.predict(asked), 5)  # type: ignore[misc]
        lines.append(f"  {name:<26} {ours:10.3g} {theirs:13.3g} {ours / theirs:7.1f}")
        if name == "GradientBoostingRegressor":
            met = "met" if ours >= TARGET else "missed"
            lines[0] += f" (target {TARGET:.0e} for gradient boosting: {met})"
    return [*lines, f"  {'anchored, the declared law':<26} {rate(law):10.3g}"]


def objective() -> str:
    """Strategies a second from a point of the cube to its energy."""
    each = problem(costs(ALEXNET), anchored(ALEXNET), 2e8, 1e6, 1e13)
    points = jax.random.uniform(jax.random.key(0), (BATCH, 16))
    of_batch = jax.jit(jax.vmap(lambda each, point: energy(SPACES["Joint"], each, point), (None, 0)))
    return f"Objective, AlexNet, anchored, batch of {BATCH}: {BATCH / seconds(lambda: of_batch(each, points)):.3g} /s"


def searches() -> list[str]:
    """Runs of MQHOA side by side, and one after the other: each a call of one compiled program."""
    seen = random_inputs(SAMPLES, 0)
    law = anchored(ALEXNET)
    accuracy = np.asarray(jax.jit(jax.vmap(predict, (None, 0)))(law, seen))
    boosted: Any = REGRESSORS["GradientBoostingRegressor"](0).fit(seen, accuracy)
    lines = [f"MQHOA, all 16 variables of AlexNet, {RUNS} runs"]
    keys = jax.random.split(jax.random.key(0), RUNS)
    models = {"anchored": law, "gradient boosting": predictor(from_sklearn(boosted, input_names(ALEXNET), 0.87))}
    for name, model in models.items():
        each = problem(costs(ALEXNET), model, 2e8, 1.19e6, 1e13)
        alone = jax.jit(lambda each, key: mqhoa(SPACES["Joint"], Config(), each, key))
        beside = jax.jit(jax.vmap(alone, (None, 0)))
        together = seconds(lambda beside=beside, each=each: beside(each, keys), 3)  # type: ignore[misc]
        jax.block_until_ready(alone(each, keys[0]))
        start = time.perf_counter()
        for key in keys[:50]:
            jax.block_until_ready(alone(each, key))
        one = (time.perf_counter() - start) / 50
        lines.append(
            f"  {name}: side by side {together:.2f} s, one after the other {1e3 * one:.1f} ms each (50 of them): "
            f"{RUNS * one / together:.1f} times as fast (target 50)"
        )
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure and write."""
    args = command_line(__spec__.name, __doc__, RESULT).parse_args(argv)
    about = {**machine(), "device": jax.devices()[0].device_kind}
    lines = [
        described(about, ["device"], versions=("jax", "jaxlib")),
        "",
        *predictors(),
        "",
        objective(),
        "",
        *searches(),
    ]
    write_result(args.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
