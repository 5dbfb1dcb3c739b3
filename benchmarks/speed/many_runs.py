"""Many runs in one call: 16 seeds x 4 learning rates of PPO vmapped, beside the same runs one by one.

    python -m benchmarks.speed.many_runs                          # writes results/many_runs.txt

Times are of compiled programs: compiling is apart, and paid once in either case. One by one, some of the runs are
timed and the median stands for the others.
"""

import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from algos import ppo
from algos.run_config import as_arrays
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.contracts import preset_for

RESULT = RESULTS / "many_runs.txt"
RATES = (3e-4, 1e-3, 3e-3, 1e-2)


def timed(program: Any, *arguments: Any) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    jax.block_until_ready(program(*arguments))
    return time.perf_counter() - begin


def main() -> None:
    parser = command_line(__spec__.name, __doc__, RESULT)
    parser.add_argument("--env", default="MultiExitAllocation-v0")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--frames", type=int, default=200_000, help="of each run (default: 200000)")
    parser.add_argument("--repeats", type=int, default=3, help="of the whole sweep (default: 3)")
    args = parser.parse_args()
    env, params = mec_jax.make(args.env)
    config, hparams, _ = ppo.PRESETS[preset_for(ppo.PRESETS, env.traits)]
    config = dataclasses.replace(config, num_frames=args.frames)
    trainer = ppo.make_trainer(env, config)
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds))

    def one(rate: Any, key: jax.Array) -> jax.Array:
        numbers = dataclasses.replace(as_arrays(hparams), actor_lr=rate, critic_lr=rate)
        return trainer.train(numbers, params, key)[1].episode_return[-10:].mean()

    rates = jnp.array(RATES)
    begin = time.perf_counter()
    sweep = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None))).lower(rates, keys).compile()
    compiling = time.perf_counter() - begin
    single = jax.jit(one).lower(rates[0], keys[0]).compile()
    returns = np.asarray(sweep(rates, keys))
    together = [timed(sweep, rates, keys) for _ in range(args.repeats)]
    alone = [timed(single, rate, keys[seed]) for seed in range(2) for rate in rates]
    runs = returns.size
    each, apart = statistics.median(together) / runs, statistics.median(alone)
    lines = [
        described(machine()),
        f"PPO on {args.env}, {trainer.num_frames} frames a run, {args.seeds} seeds x {len(RATES)} learning rates",
        f"one vmapped call: {', '.join(f'{x:.1f}' for x in together)} s, {each:.2f} s a run",
        f"compiling it: {compiling:.1f} s",
        f"one by one: {apart:.2f} s a run (median of {len(alone)}, {min(alone):.2f} to {max(alone):.2f}): "
        f"{apart / each:.2f} times as long",
        "return over the last 10 updates, mean over seeds, by learning rate: "
        + ", ".join(f"{rate:g} {x:.4f}" for rate, x in zip(RATES, returns.mean(1), strict=True)),
    ]
    write_result(args.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
