"""PPO on bandwidth-Markov episodes beside the exact optimum by dynamic programming.

    python -m benchmarks.learning.markov_ppo                         # writes results/markov_ppo.txt

At nominal speeds and 20 steps the dynamic program is exact for 2 and for 5 devices (`solvers.multi_exit`). PPO is
trained on that very problem; 5 seeds, at once. Blind: the oracle of each step, which does not look ahead. Bound:
switches for free. All play the same 4096 episodes; in parentheses what the optimum is worth in expectation.
"""

import json
import tempfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
from algos import ppo
from algos.actor import actor_policy
from algos.run_config import as_arrays
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.physics.multi_exit import chosen
from mec_jax.solvers import multi_exit as solvers
from mec_jax.statistics import bootstrap_interval

RESULT = RESULTS / "markov_ppo.txt"
PROFILES = Path(mec_jax.__file__).parent / "profiles" / "data" / "multi_exit"
STEPS = 20
EPISODES = 4096


def first_devices(profile: str, number: int, folder: Path) -> Path:
    """A profile file with the first devices of another."""
    content = json.loads((PROFILES / f"{profile}.json").read_text())
    content["devices"] = content["devices"][:number]
    content["name"] = f"{profile}_{number}"
    path = folder / f"{content['name']}.json"
    path.write_text(json.dumps(content))
    return path


@partial(jax.jit, static_argnames="env")
def play_optimum(env: MultiExitAllocation, params: Params, table: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns `[episode]` of the dynamic program's plan, with the scenarios of `play_episodes`."""

    def episode(key: jax.Array) -> jax.Array:
        def step(carry: tuple, splits: jax.Array) -> tuple[tuple, jax.Array]:
            observation, state, key = carry
            key, _, step_key = jax.random.split(key, 3)
            joint = splits[state.level, *state.split]
            split = jnp.stack(jnp.unravel_index(joint, splits.shape[1:])).astype(jnp.int32)
            scenario = env.situation(observation, params)
            work = chosen(env.options(scenario, params).edge_work, split)
            action = AllocationAction(split, solvers.optimal_shares(work, params.latency_weight))
            observation, state, reward, _, _ = env.step_env(step_key, state, action, params)
            return (observation, state, key), reward

        key, reset_key = jax.random.split(key)
        return jnp.sum(jax.lax.scan(step, (*env.reset_env(reset_key, params), key), table)[1])

    return jax.lax.map(episode, keys, batch_size=256)


def measure(profile: Path, seeds: int) -> str:
    """A row of the table."""
    env, _ = mec_jax.make("MultiExitAllocation-Markov-v0", profile=profile)
    params = env.params(device_speed_spread=1, edge_speed_spread=1, max_steps_in_episode=STEPS)
    keys = evaluation_keys(EPISODES)
    plan = solvers.switching_optimum(env, params)
    expected = -plan.start_cost / float(params.reference_cost)
    optimum = float(np.mean(play_optimum(env, params, jnp.asarray(plan.split), keys)))
    blind = float(np.mean(play_episodes(env, params, solvers.oracle_policy(env), params, keys).episode_return))
    bound = float(np.mean(solvers.bound(env, params, keys).episode_return))
    config, hparams, _ = ppo.PRESETS["markov"]
    trainer, policy = ppo.make_trainer(env, config), actor_policy(env, config, deterministic=True)
    train = jax.jit(jax.vmap(trainer.train, (None, None, 0)))
    state, _ = train(as_arrays(hparams), params, jax.vmap(jax.random.key)(jnp.arange(seeds)))
    play = jax.jit(jax.vmap(lambda learned: play_episodes(env, params, policy, (learned, params), keys).episode_return))
    returns = np.asarray(play(ppo.learned(state))).mean(axis=1)
    low, high = bootstrap_interval(returns, statistic=np.mean)
    return (
        f"| {env.profile.name} | {env.num_devices} | {blind:.3f} | {returns.mean():.3f} [{low:.3f}, {high:.3f}] | "
        f"{optimum:.3f} ({expected:.3f}) | {bound:.3f} | {returns.mean() / optimum - 1:.2%} |"
    )


def main() -> None:
    parser = command_line(__spec__.name, __doc__, RESULT)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--devices", type=int, nargs="+", default=[2, 5], help="first so many of each profile")
    args = parser.parse_args()
    lines = [
        f"{described(machine())}; mean return of {EPISODES} episodes",
        "",
        "| profile | devices | blind oracle | PPO | optimum | bound | PPO's excess cost |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for number in args.devices:
            for profile in ("vgg16_image", "vgg16_compressed"):
                lines.append(measure(first_devices(profile, number, Path(folder)), args.seeds))
                print(lines[-1], flush=True)
    write_result(args.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
