"""What float32 does to the value of a policy: the same episodes in float32 and in float64.

    python -m benchmarks.robustness.precision                  # 10^4 episodes of the random policy, 5 UEs

Starts and actions are drawn once, in float32. The dynamics are chaotic: 94 % of single episodes drift apart with
5 UEs, and any other rounding would make them drift elsewhere. So each episode is played `--copies` times in both
precisions, its distances wiggled by the rounding error of float32, and its return is the mean over the copies:
what is left of the paired difference is what the precision does, not which rounding it was. Exits 1 unless the
95 % interval of that difference, over episodes, lies within 0.3 % of the mean. (With `--copies 1`, the plain
pairs, the interval is by itself 0.54 % wide.)
"""

import sys
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from benchmarks.harness.results import command_line
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params, State

LIMIT = 0.003
"""Largest relative difference."""

CHUNK = 10_000
"""Episodes played at once: bounds the memory for their actions."""


class Difference(NamedTuple):
    """Returns in both precisions, and how far apart they are."""

    float32: float  # mean return
    float64: float
    low: float  # of the 95 % interval of the paired difference, relative to the mean
    high: float
    same: float  # share of episodes whose returns agree within 1e-3

    def negligible(self) -> bool:
        return max(-self.low, self.high) <= LIMIT


@partial(jax.jit, static_argnames=("env", "episodes", "frames"))
def draw(
    env: MultiUEOffloading, params: Params, key: jax.Array, episodes: int, frames: int
) -> tuple[State, OffloadAction]:
    """Starts `[episode]` and actions `[frame, episode]` of the random policy."""
    key_reset, key_action = jax.random.split(key)
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, episodes), params)
    sample = jax.vmap(jax.vmap(env.action_space(params).sample))
    return states, sample(jax.random.split(key_action, (frames, episodes)))


@partial(jax.jit, static_argnames="env")
def returns(env: MultiUEOffloading, params: Params, states: State, actions: OffloadAction) -> jax.Array:
    """Sum of rewards of each episode, up to its end or its truncation."""
    step = jax.vmap(partial(env.step_env, jax.random.key(0)), (0, 0, None))

    def frame(carry: tuple, action: OffloadAction) -> tuple[tuple, None]:
        states, done, total = carry
        _, states, reward, terminated, _ = step(states, action, params)
        total = total + jnp.where(done, 0, reward)
        return (states, done | terminated | (states.time >= params.max_steps_in_episode), total), None

    nothing = jnp.zeros(states.time.shape, params.frame_time.dtype)
    return jax.lax.scan(frame, (states, nothing > 0, nothing), actions)[0][2]


def wiggled(states: State, key: jax.Array) -> State:
    """The same starts with distances moved by up to one rounding error of float32."""
    wiggle = jax.random.uniform(key, states.distance.shape, states.distance.dtype, -1, 1)
    return states.replace(distance=states.distance * (1 + jnp.finfo(jnp.float32).eps * wiggle))


def in_precision(tree: Any, dtype: type) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def compare(episodes: int, num_ues: int = 5, seed: int = 0, copies: int = 1) -> Difference:
    """Play the same episodes of the random policy, default parameters, in both precisions, each `copies` times."""
    env, _ = mec_jax.make("MultiUEOffloading-v0", num_ues=num_ues)
    pairs: list[np.ndarray] = []
    for chunk in range(-(-episodes // CHUNK)):
        key = jax.random.fold_in(jax.random.key(seed), chunk)
        size = min(CHUNK, episodes - chunk * CHUNK)
        with jax.enable_x64(False):
            params = env.params()
            states, actions = draw(env, params, key, size, int(params.max_steps_in_episode))
        means = np.zeros((2, size))
        for copy in range(copies):
            with jax.enable_x64(False):
                start = wiggled(states, jax.random.fold_in(key, copy)) if copy else states
                single = np.asarray(returns(env, params, start, actions), np.float64)
            with jax.enable_x64(True):
                start, again = in_precision((start, actions), jnp.float64)
                double = np.asarray(returns(env, env.params(), start, again))
            means += np.stack([single, double]) / copies
        pairs.append(means)
    single, double = np.concatenate(pairs, axis=1)
    difference, scale = single - double, abs(double.mean())
    middle = difference.mean() / scale
    error = 1.96 * difference.std(ddof=1) / np.sqrt(episodes) / scale
    same = float((np.abs(difference) < 1e-3).mean())
    return Difference(float(single.mean()), float(double.mean()), middle - error, middle + error, same)


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("--episodes", type=int, default=10_000, help="(default: 10^4)")
    parser.add_argument("--copies", type=int, default=10, help="of each episode (default: 10)")
    parser.add_argument("--ues", type=int, default=5, help="(default: 5)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    result = compare(args.episodes, args.ues, args.seed, args.copies)
    print(
        f"mean return of {args.episodes} episodes, {args.copies} copies each: "
        f"float32 {result.float32:.5f}, float64 {result.float64:.5f}"
    )
    print(f"float32 - float64: {result.low:+.4%} to {result.high:+.4%} of it (95 % interval)")
    print(f"{result.same:.1%} of the episodes have the same return (mean over copies) within 1e-3")
    print(f"within {LIMIT:.1%}: {'ok' if result.negligible() else 'FAILED'}")
    return 0 if result.negligible() else 1


if __name__ == "__main__":
    sys.exit(main())
