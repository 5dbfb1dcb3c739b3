"""Whether a run on several devices is that of one.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python -m tests.on_devices CASE 2 4    # of CASES
    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m tests.on_devices --long

Devices add floats up in another order than one, and a run answers to that. How much it may is measured: each initial
parameter is moved up or down, at random, by as many roundings as a gradient has samples, so far the mean of so many
terms may be off (`tests.tolerance`), times the steps that are taken. The terms are of order one, logits, standardised
observations and advantages, so a rounding is one of a parameter or of 1, whichever is greater. What several devices
come to is no further off. That is a fiftieth of what is learned, or less; a few millionths are what is found.
"""

import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnax
import jax
import numpy as np
from jaxtyping import PyTree

import mec_jax
from algos import devices
from algos.algorithms import algorithm
from algos.run_config import as_arrays
from mec_jax.contracts import Problem, Trainer
from mec_jax.interop.foreign import as_problem
from tests.tolerance import ROUNDING, UNDERFLOW, Bounded, assert_within
from tests.toys import Target

UPDATES = 3
CHANGES = 8
NETWORKS = ("actor", "actors", "critic")


class Case(NamedTuple):
    algorithm: str
    make: Callable[[], Problem]
    config: dict[str, Any]
    roundings: int  # samples of a gradient, times steps


ACTOR = {"updates_per_chunk": UPDATES, "trunk": (8,)}
CRITIC = {**ACTOR, "critic": (8,), "num_envs": 4, "rollout": 4, "epochs": 2, "minibatches": 2}
ES = {**ACTOR, "num_iterations": UPDATES, "starts": 2, "episodes": 2, "fitness_episodes": 4, "children": 4}


def _cart_pole() -> Problem:
    return as_problem(gymnax.make("CartPole-v1")[0])


def _offloading() -> Problem:
    return mec_jax.make("MultiUEOffloading-v0", num_ues=2)[0]


def _allocation() -> Problem:
    return mec_jax.make("NeuronAllocation-v0")[0]


CASES = {
    "ppo": Case("ppo", _cart_pole, CRITIC, 8 * 12),
    "ppo, all kinds of actions": Case("ppo", Target, CRITIC, 8 * 12),
    "ppo, scaled rewards": Case("ppo", _offloading, {**CRITIC, "normalise_reward": True}, 8 * 12),
    "ppo, odd minibatches": Case("ppo", Target, {**CRITIC, "rollout": 1, "minibatches": 4}, 24),
    "mahppo": Case("mahppo", _offloading, {**CRITIC, "head": 8}, 8 * 12),
    "mahppo, draws": Case(
        "mahppo", _offloading, {**CRITIC, "head": 8, "sampling": "draws", "ratio": "per_head"}, 8 * 12
    ),
    "drl_es": Case("drl_es", _allocation, {**ES, "horizon": 8}, 32 * 3),
    "drl_es, gradient": Case("drl_es", Target, {**ES, "evolution": "gradient", "mirrored": True}, 4 * 3),
    "drl_es, carried": Case("drl_es", Target, {**ES, "population": "carried", "parents": 2}, 4 * 3),
    "drl_es, no children": Case("drl_es", _allocation, {**ES, "children": 0, "horizon": 8}, 32 * 3),
}


def prepared(case: Case) -> tuple[Trainer, tuple[PyTree, PyTree], Any]:
    """Trainer, its other arguments, and its first state."""
    env, learner = case.make(), algorithm(case.algorithm)
    trainer = learner.make_trainer(env, learner.config(**case.config))
    # Where a gradient is next to nothing, Adam makes much of its rounding errors: not with this.
    arguments = (as_arrays(learner.hparams(adam_eps=1e-3)), env.default_params)
    return trainer, arguments, jax.jit(trainer.init)(*arguments, jax.random.key(1))


def compiled(trainer: Trainer, arguments: tuple[PyTree, PyTree], state: PyTree, count: int) -> Any:
    """A chunk on so many devices, as `algos.loop.train` has it."""
    if count == 1:  # of each process, where there are several
        return jax.jit(trainer.run).lower(state, *arguments).compile()
    mesh = devices.mesh(count)
    place = devices.whole(mesh)
    with devices.on(mesh):
        return jax.jit(trainer.run, in_shardings=place, out_shardings=place).lower(state, *arguments).compile()


def flops(program: Any) -> float:
    """Of one device; those of a loop's body count once."""
    return float(program.cost_analysis()["flops"])


def ran(program: Any, arguments: tuple[PyTree, PyTree], state: PyTree, count: int) -> dict[str, np.ndarray]:
    """State and metrics afterwards, by path."""
    place = None if count == 1 else devices.whole(devices.mesh(count))
    state, *arguments = devices.placed((state, *arguments), place)
    new_state, metrics = devices.first(program(state, *arguments))
    new_state = new_state._replace(key=jax.random.key_data(new_state.key))
    leaves = jax.tree_util.tree_leaves_with_path((new_state, metrics))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def changed(state: Any, rng: np.random.Generator, roundings: int) -> Any:
    """The state, its parameters so many roundings up or down."""

    def change(x: jax.Array) -> np.ndarray:
        old = np.asarray(x)
        return (old + roundings * ROUNDING * rng.choice((-1, 1), old.shape) * np.maximum(np.abs(old), 1)).astype(
            x.dtype
        )

    networks = {name: getattr(state, name) for name in NETWORKS if hasattr(state, name)}
    return state._replace(**jax.tree.map(change, networks))


def check(case: Case, counts: tuple[int, ...]) -> None:
    """Assert that it makes no difference whether there are so many devices."""
    trainer, arguments, state = prepared(case)
    one = compiled(trainer, arguments, state, 1)
    run = functools.partial(ran, one, arguments, count=1)
    alone, rng = run(state), np.random.default_rng(0)
    near = [run(changed(state, rng, case.roundings)) for _ in range(CHANGES)]
    for count in counts:
        program = compiled(trainer, arguments, state, count)
        assert flops(program) < flops(one), f"{count} devices share nothing"
        together = ran(program, arguments, state, count)
        assert together.keys() == alone.keys()
        for name, x in alone.items():
            if not np.issubdtype(x.dtype, np.floating):
                np.testing.assert_array_equal(together[name], x, f"{name} on {count} devices")
                continue
            answer = max(np.nanmax(np.abs(other[name] - x), initial=0) for other in near)
            terms = max(np.nanmax(np.abs(x), initial=0), name.startswith("[1]"))  # of metrics, of order one
            own = case.roundings * (ROUNDING * terms + UNDERFLOW)
            defined = ~np.isnan(x)  # no episode ended
            assert (np.isnan(together[name]) == ~defined).all(), name
            bound = Bounded(x[defined].astype(float), np.full(np.sum(defined), answer + own))
            assert_within(together[name][defined], bound, f"{name} on {count} devices")


LONG = Case("ppo", _offloading, {**CRITIC, "num_envs": 16, "rollout": 8, "updates_per_chunk": 100}, 0)
SEEDS = 8


def check_long() -> None:
    """Assert that long runs, which come to differ, learn as much: one in fifty of what is learned is let pass, and four
    standard errors of the mean over seeds of the differences.
    """
    trainer, arguments, _ = prepared(LONG)
    init = jax.jit(trainer.init)
    programs = [compiled(trainer, arguments, init(*arguments, jax.random.key(0)), count) for count in (1, 2)]
    returns = np.empty((SEEDS, 2, LONG.config["updates_per_chunk"]))
    for seed, (at, program) in itertools.product(range(SEEDS), enumerate(programs)):
        state = init(*arguments, jax.random.key(seed))
        returns[seed, at] = ran(program, arguments, state, at + 1)["[1].episode_return"]
    first, last = (np.nanmean(returns[..., updates], -1) for updates in (slice(10), slice(-30, None)))
    learned, gain = np.mean(last - first), last[:, 1] - last[:, 0]
    error = np.std(gain, ddof=1) / SEEDS**0.5
    said = f"from {first.mean():.3f} to {last.mean():.3f}, two devices {gain.mean():.4f} +- {error:.4f} better"
    print(said)
    assert learned > 0 and np.abs(gain.mean()) < learned / 50 + 4 * error, said


if __name__ == "__main__":
    if sys.argv[1] == "--long":
        check_long()
    else:
        check(CASES[sys.argv[1]], tuple(map(int, sys.argv[2:])))
