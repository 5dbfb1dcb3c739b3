"""Search the hyper-parameters of MAHPPO's preset `fast`: seeds x values in one vmapped program.

    python -m benchmarks.learning.sweep_fast --hparams actor_lr=2e-3,3e-3 entropy=1e-3,5e-3 --config num_envs=64

`--hparams` are traced: their grid is one program. `--config` changes the program, one value each. Every run is
measured as `mec-jax train` does, by sampled actions on the evaluation scenario; printed are, of the last five
evaluations, mean and worst over seeds, and the share of seeds that reached the target three times in a row.
"""

import ast
import dataclasses
import itertools
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from algos.mahppo import PRESETS, make_policy, make_trainer
from algos.run_config import as_arrays
from benchmarks.harness.results import command_line
from mec_jax.episodes import evaluation_keys, play_episodes

TARGET = -0.60


def main() -> None:
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("--preset", default="fast", choices=PRESETS)
    parser.add_argument("--num-ues", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--hparams", nargs="*", default=[], metavar="NAME=V,V,...")
    parser.add_argument("--config", nargs="*", default=[], metavar="NAME=V")
    parser.add_argument("--out", type=Path, help="append the results to this JSON-lines file")
    arguments = parser.parse_args()

    config, hparams, _ = PRESETS[arguments.preset]
    changed: dict[str, Any] = {
        name: _value(value) for name, _, value in (item.partition("=") for item in arguments.config)
    }
    config = dataclasses.replace(config, **changed)
    lists = {
        name: [float(v) for v in values.split(",")]
        for name, _, values in (item.partition("=") for item in arguments.hparams)
    }
    points = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]

    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=arguments.num_ues)
    trainer = make_trainer(env, config)
    policy, scenario = make_policy(env, config), env.evaluation_params(params)
    grid = [as_arrays(dataclasses.replace(hparams, **point)) for point in points]
    stacked = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), arguments.seeds, axis=0), *grid)
    seeds = arguments.first_seed + jnp.arange(arguments.seeds)
    keys = jnp.tile(jax.vmap(jax.random.key)(seeds), len(points))

    def evaluate(actors):
        episodes = play_episodes(env, scenario, policy, (actors, params), evaluation_keys(16))
        return jnp.mean(episodes.episode_return)

    start = time.perf_counter()
    state = jax.jit(jax.vmap(trainer.init, (0, None, 0)))(stacked, params, keys)
    run = jax.jit(jax.vmap(trainer.run, (0, 0, None)))
    evaluate_all = jax.jit(jax.vmap(evaluate))
    curve = []
    for _ in range(trainer.num_chunks):
        state, _ = run(state, stacked, params)
        curve.append(np.asarray(evaluate_all(state.actors)))
    returns = np.stack(curve, -1).reshape(len(points), arguments.seeds, -1)
    good = returns >= TARGET
    reached = (good[..., 2:] & good[..., 1:-1] & good[..., :-2]).any(-1)
    final = returns[..., -5:].mean(-1)

    print(f"{config}\n{len(points) * arguments.seeds} runs, {time.perf_counter() - start:.0f} s")
    for point, end, hit in zip(points, final, reached, strict=True):
        print(f"{point}: mean {end.mean():.3f} worst {end.min():.3f} reached {hit.mean():.0%}  {np.round(end, 3)}")
        if arguments.out:
            row = {"config": changed, "hparams": point, "end": end.tolist(), "reached": hit.tolist()}
            with arguments.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
