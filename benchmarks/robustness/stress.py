"""Random actions, extremes among them, in search of a state that can't be.

    python -m benchmarks.robustness.stress                     # 10^6 actions, 1 to 5 UEs

Cuts and channels within and far out of range; powers 0, negative, huge, infinite and NaN; distances of 1 m,
100 m and between. Exits 1 if anything is not finite or not conserved.
"""

import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from benchmarks.harness.results import command_line
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params, State
from mec_jax.physics.frame import COMPUTING, FREE, TRANSMITTING

INT32 = np.iinfo(np.int32)
POWERS = (0.0, -1.0, 1e-45, 1e-10, 1e30, float("inf"), float("-inf"), float("nan"))  # W
DISTANCES = ((1.0, 1.0), (100.0, 100.0), (1.0, 100.0))  # m, lowest and highest


def extreme_action(env: MultiUEOffloading, params: Params, key: jax.Array) -> OffloadAction:
    """A random action, about half of its entries extreme."""
    half, value, extreme = jax.random.uniform(key, (3, 3, env.num_ues))

    def mix(part: int, usual: jax.Array, extremes: tuple) -> jax.Array:
        pick = (extreme[part] * len(extremes)).astype(jnp.int32)
        return jnp.where(half[part] < 0.5, usual, jnp.asarray(extremes, usual.dtype)[pick])

    return OffloadAction(
        mix(0, (value[0] * env.num_points).astype(jnp.int32), (-1, env.num_points, INT32.min, INT32.max)),
        mix(1, (value[1] * env.num_channels).astype(jnp.int32), (-1, env.num_channels, INT32.min, INT32.max)),
        mix(2, value[2] * params.power_max, POWERS),
    )


def violations(before: State, finished_before: jax.Array, out: Any, params: Params) -> dict[str, jax.Array]:
    """What must not be true of one step of one lane."""
    obs, state, reward, terminated, truncated, info = out
    reals = jax.tree.leaves((obs, state, reward, info))
    # What is left when the frame ends, before an automatic reset.
    left = jnp.round(info["final_observation"][::4] * before.tasks_given)
    finished = finished_before + info["finished"]
    most_time = jnp.max(params.front_time)
    return {
        "NaN or infinite": ~jnp.all(jnp.stack([jnp.isfinite(x).all() for x in reals])),
        "finished + left is not given": finished + jnp.sum(left) != jnp.sum(before.tasks_given),
        "episode_finished is not the sum of finished": info["episode_finished"] != finished,
        "terminated with tasks left, or not without": terminated != jnp.all(left == 0),
        "free with tasks left, or not without": jnp.any((state.mode == FREE) != (state.tasks_left == 0)),
        "tasks left out of range": jnp.any((state.tasks_left < 0) | (state.tasks_left > state.tasks_given)),
        "no such mode": jnp.any((state.mode != FREE) & (state.mode != COMPUTING) & (state.mode != TRANSMITTING)),
        "cut or channel out of range": jnp.any(
            (state.cut < 0)
            | (state.cut >= params.front_time.shape[1])
            | (state.channel < 0)
            | (state.channel >= params.bandwidth.shape[0])
        ),
        "time left out of range": jnp.any((state.time_left < 0) | (state.time_left > most_time)),
        "bits left out of range": jnp.any((state.bits_left < 0) | (state.bits_left > jnp.max(params.feature_bits))),
        "negative energy": jnp.any(state.energy < 0) | (info["energy"] < 0),
        "busy for longer than the episode": jnp.any(
            (state.busy < 0) | (state.busy > 1.001 * state.time * params.frame_time)
        ),
        "a reward that is not negative": reward >= 0,
        "not truncated in time": ~(terminated | truncated) & (state.time >= params.max_steps_in_episode),
    }


@partial(jax.jit, static_argnames=("env", "lanes", "frames"))
def count_violations(
    env: MultiUEOffloading, params: Params, key: jax.Array, lanes: int, frames: int
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Number of violations of each kind in `frames` of `lanes`, and of episodes that ended."""
    key_reset, key_flags, key_frames = jax.random.split(key, 3)
    low, high = jnp.array(DISTANCES)[jnp.arange(lanes) % len(DISTANCES)].T
    paper_reward, all_interfere = jax.random.bernoulli(key_flags, 0.3, (2, lanes))

    def with_lane(values: tuple) -> Params:
        low, high, paper_reward, all_interfere = values
        ues = jnp.ones(env.num_ues)
        return params.replace(
            distance_min=low * ues,
            distance_max=high * ues,
            paper_reward=paper_reward,
            all_interfere=all_interfere,
        )

    def reset(key: jax.Array, values: tuple) -> State:
        return env.reset(key, with_lane(values))[1]

    def step(key: jax.Array, state: State, finished: jax.Array, values: tuple) -> tuple:
        lane_params = with_lane(values)
        key_action, key_step = jax.random.split(key)
        out = env.step(key_step, state, extreme_action(env, lane_params, key_action), lane_params)
        done = out[3] | out[4]
        wrong = violations(state, finished, out, lane_params)
        return out[1], jnp.where(done, 0, finished + out[5]["finished"]), wrong, done

    lane_values = (low, high, paper_reward, all_interfere)

    def frame(carry: tuple, key: jax.Array) -> tuple[tuple, tuple]:
        state, finished = carry
        keys = jax.random.split(key, lanes)
        state, finished, wrong, done = jax.vmap(step)(keys, state, finished, lane_values)
        return (state, finished), jax.tree.map(jnp.sum, (wrong, done))

    states = jax.vmap(reset)(jax.random.split(key_reset, lanes), lane_values)
    start = (states, jnp.zeros(lanes, jnp.int32))
    _, counts = jax.lax.scan(frame, start, jax.random.split(key_frames, frames))
    return jax.tree.map(jnp.sum, counts)


def stress(num_ues: int, lanes: int, frames: int, seed: int = 0) -> tuple[dict[str, int], int]:
    """(violations of each kind that occurred, episodes that ended) in `lanes * frames` random actions."""
    # Few tasks, so that episodes end in both ways.
    env, _ = mec_jax.make("MultiUEOffloading-v0", num_ues=num_ues)
    params = env.params(tasks_mean=30.0, max_steps_in_episode=15)
    counts, ended = count_violations(env, params, jax.random.key(seed), lanes, frames)
    return {what: int(count) for what, count in counts.items() if count}, int(ended)


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("--actions", type=int, default=1_000_000, help="in all (default: 10^6)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    frames, failed = 100, False
    lanes = max(1, -(-args.actions // (5 * frames)))
    for num_ues in range(1, 6):
        wrong, ended = stress(num_ues, lanes, frames, args.seed)
        failed = failed or bool(wrong)
        found = ", ".join(f"{what}: {count}" for what, count in wrong.items()) or "ok"
        print(f"{num_ues} UEs, {lanes * frames} actions, {ended} episodes ended: {found}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
