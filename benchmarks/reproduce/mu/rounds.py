"""What a predictor chooses, really trained, and fitted to it again: so it learns where it was too hopeful.

    python -m benchmarks.reproduce.mu.rounds alexnet 2         # two rounds of 25 networks, some 25 s each on one core
    python -m benchmarks.reproduce.mu.rounds regnet_x_400mf 4

A search goes where a predictor errs upwards, and what is drawn at random is seldom near the border of an accuracy
budget. In each round the joint search chooses for scenarios of `CompressedInference-v0`, by a predictor that knows the
samples (`samples`) and all rounds before; what it chose is compressed, trained, tested, and a row as of the samples. A
run that was stopped goes on where it was. `regressors NAME --bundle` then fits to samples and rounds.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Key

from benchmarks.harness.networks import trained
from benchmarks.harness.results import command_line
from benchmarks.reproduce.mu.regressors import fitted, read_all, rounds_table
from benchmarks.reproduce.mu.samples import RECIPES, Drawn, append, measured, noted, numbers_in
from mec_jax.envs.compressed_inference import CompressedInference, Params
from mec_jax.profiles.compression import compressible
from mec_jax.profiles.regressors import write_regressor
from mec_jax.solvers.compression import Config, Found, compare
from mec_jax.solvers.compression.rulers import RESTARTS, problem_of, situation_of
from mec_jax.split.images import load_images

SIZE = 25
FIRST = 1000  # number of the first network of a round is a multiple of it, beyond those of the samples


@partial(jax.jit, static_argnames="env")
def chosen(env: CompressedInference, params: Params, keys: Key[Array, " scenario"]) -> Found:
    """What the joint search finds, [scenario]."""

    def scenario(key: Key[Array, ""]) -> Found:
        problem = problem_of(env, params, situation_of(env, params, key))
        return compare(problem, jax.random.fold_in(key, 1), Config(), RESTARTS)["Joint"]

    return jax.vmap(scenario)(keys)


def draws(network: str, data: str, number: int) -> list[Drawn]:
    """What the round of this number trains, by what was measured before it."""
    space, first = compressible(network), FIRST * (number + 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictor.json"
        write_regressor(path, fitted(read_all(network, data, space, before=first), space))
        env = CompressedInference(network, path)
        params = env.bounded(env.default_params)
        found = jax.device_get(chosen(env, params, jax.random.split(jax.random.key(first), SIZE)))
    noise = np.random.default_rng([2026, number]).uniform(0, 50, SIZE).round(2)
    sparsity, cut, codec = (np.asarray(each) for each in found.strategy)
    return [
        Drawn(tuple(map(float, sparsity[i])), space.cuts[cut[i]], tuple(map(float, codec[i])), float(noise[i]))
        for i in range(SIZE)
    ]


def main(network: str, data: str, rounds: int) -> None:
    space, images, path = compressible(network), load_images(data), rounds_table(network, data)
    base = trained(network, images)
    digest = noted(path, base, space, images)
    for number in range(rounds):
        numbers = range(FIRST * (number + 1), FIRST * (number + 1) + SIZE)
        if set(numbers) <= numbers_in(path):
            continue
        for place, drawn in zip(numbers, draws(network, data, number), strict=True):
            if place not in numbers_in(path):
                start = time.perf_counter()
                accuracies = measured(base, space, drawn, images, place)
                append(path, space, place, drawn, accuracies, time.perf_counter() - start, digest)


if __name__ == "__main__":
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("network", choices=RECIPES)
    parser.add_argument("rounds", type=int, help="in all, those that are there among them")
    args = parser.parse_args()
    main(args.network, "fashion-mnist", args.rounds)
