"""Hostile actions and parameters for every registered environment: clipped as documented, and nothing infinite or NaN.

    python -m benchmarks.robustness actions parameters

Episodes are stepped with what is hostile, and once more, by the same program, with what NumPy makes of it by the
documentation: the two must be equal bit for bit. So must their observations be in their space, states finite where
those of ordinary play are, and the laws of conservation hold. What is wrong by its type is refused.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

import mec_jax
from benchmarks.harness.campaign import CLIPPED, MAX_SECONDS, TAKEN, Fates, fate
from benchmarks.robustness.stress import violations
from mec_jax.contracts import Problem
from mec_jax.envs.compressed_inference import CompressAction, CompressedInference
from mec_jax.envs.multi_exit import AllocationAction, MultiExitAllocation
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.envs.neuron_sharing import NeuronSharing
from mec_jax.envs.offloading import MIN_POWER, MultiUEOffloading, OffloadAction
from mec_jax.envs.partition_game import PartitionGame
from mec_jax.parameters import Parameter
from mec_jax.physics.partition_game import is_feasible, used
from mec_jax.spaces import contains

WARM_UP = 4
"""Steps that are played before, so that hostile ones come in the midst of episodes."""
STEPS = 4
"""Hostile ones of each lane."""

INTEGERS = (-(2**31), -(10**6), -1, 0, 1, 2**20, 2**31 - 1)
FLOATS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30, 1e20, 1e10, 1.0, 1e-10, 1e-38, 1e-45, 0.0, -0.0, -1e-38, -1.0)


class Outcome(NamedTuple):
    """Of each hostile step, [lane, step]."""

    seen: PyTree  # observation, state, reward, whether it is over, info
    inside: jax.Array  # the observation is in its space
    lawful: jax.Array  # what must be conserved is
    taken: jax.Array  # the action is in its space


def _offloading_laws(env: MultiUEOffloading, params: Any, before: Any, out: Any) -> jax.Array:
    finished = jnp.sum(before.tasks_given - before.tasks_left)
    return ~jnp.any(jnp.stack([jnp.any(wrong) for wrong in violations(before, finished, out, params).values()]))


def _exit_laws(env: MultiExitAllocation, params: Any, before: Any, out: Any) -> jax.Array:
    split, info = out[1].split, out[-1]
    costs = jnp.stack([info["cost"], info["latency"], info["energy"], -out[2]])
    return jnp.all((split >= 0) & (split <= env.num_layers)) & jnp.all(costs >= 0)


def _neuron_laws(env: NeuronAllocation | NeuronSharing, params: Any, before: Any, out: Any) -> jax.Array:
    info, pieces = out[-1], env.num_decisions(params)
    done = info["finished"] + info["lost"]
    return (done <= pieces) & (~out[3] | (done == pieces))


def _game_laws(env: PartitionGame, params: Any, before: Any, out: Any) -> jax.Array:
    context, (cut, present, ledger) = out[1].context, out[1].allocation
    game = env.game(context.kind, params)
    return is_feasible(game, cut, present) & jnp.all(ledger == used(game, cut, present))


def _compression_laws(env: CompressedInference, params: Any, before: Any, out: Any) -> jax.Array:
    _, state, reward, _, _, info = out
    whole = sum(layer.flops for layer in env.network.layers)
    at_end = before.time + 1 == env.num_decisions
    fits = jnp.all((state.sparsity >= 0) & (state.sparsity < 1)) & (info["latency"] > 0)
    fits &= (info["device_flops"] >= 0) & (info["device_flops"] <= whole * (1 + 1e-5))  # a sum of some 50 terms
    # What breaks the budget pays for it.
    return fits & jnp.where(at_end, reward <= -jnp.log(info["latency"]), reward == 0)


LAWS: Mapping[type[Problem], Callable[[Any, Any, Any, Any], jax.Array]] = {
    MultiUEOffloading: _offloading_laws,
    MultiExitAllocation: _exit_laws,
    NeuronAllocation: _neuron_laws,
    NeuronSharing: _neuron_laws,
    PartitionGame: _game_laws,
    CompressedInference: _compression_laws,
}
"""What must be true of a step, of (environment, parameters, state before, what `step` returned)."""


def play(env: Problem, before: PyTree, params: PyTree, keys: jax.Array, actions: PyTree) -> Outcome:
    """Steps of each lane: some with the parameters before, the others with those after.

    Args:
        env: The environment.
        before: Parameters [lane] of the first `WARM_UP` steps.
        params: Parameters [lane] of the others.
        keys: [lane].
        actions: [lane, step] of all of them.
    """

    def lane(before: PyTree, params: PyTree, key: jax.Array, actions: PyTree) -> Outcome:
        def step(state: Any, given: tuple) -> tuple[Any, Outcome]:
            number, key, action = given
            now = jax.tree.map(lambda x, y: jnp.where(number < WARM_UP, x, y), before, params)
            out = env.step(key, state, action, now)
            counted, observation = env.bounded(now), out[-1]["final_observation"]
            inside = contains(env.observation_space(counted), observation)
            # A law speaks of one set of parameters.
            changed = jax.tree.leaves(jax.tree.map(lambda x, y: jnp.any(x != y), before, params))
            mixed = jnp.any(jnp.stack(changed))
            lawful = mixed | LAWS[type(env)](env, counted, state, out)
            return out[1], Outcome(out, inside, lawful, contains(env.action_space(counted), action))

        reset_key, key = jax.random.split(key)
        _, state = env.reset(reset_key, before)
        count = WARM_UP + STEPS
        given = (jnp.arange(count), jax.random.split(key, count), actions)
        return jax.tree.map(lambda x: x[WARM_UP:], jax.lax.scan(step, state, given)[1])

    return jax.vmap(lane)(before, params, keys, actions)


class Lanes:
    """A compiled `play` of one environment.

    Args:
        env_id: Of the environment.
        lanes: How many.
        seed: Of its keys and ordinary actions.
    """

    def __init__(self, env_id: str, lanes: int, seed: int) -> None:
        self.env, default = mec_jax.make(env_id)
        arrays = jax.tree.map(lambda x: np.asarray(jnp.asarray(x)), default)
        self.default = jax.tree.map(lambda x: np.broadcast_to(x, (lanes, *x.shape)), arrays)
        self.keys = jax.random.split(jax.random.key(seed), lanes)
        keys = jax.random.split(jax.random.key(seed + 1), (lanes, WARM_UP + STEPS))
        sample = jax.jit(jax.vmap(jax.vmap(self.env.action_space(default).sample)))
        self.actions = jax.tree.map(np.asarray, sample(keys))
        arguments = (self.default, self.default, self.keys, self.actions)
        self._play = jax.jit(play, static_argnums=0).lower(self.env, *arguments).compile()
        self.ordinary = self.play(self.default, self.default, self.actions)

    def play(self, before: PyTree, params: PyTree, actions: PyTree) -> Outcome:
        """`play`, as NumPy arrays."""
        return jax.tree.map(np.asarray, self._play(before, params, self.keys, actions))

    def judge(self, play: Callable[[PyTree], Outcome], hostile: PyTree, clean: PyTree) -> tuple[Outcome, np.ndarray]:
        """What came of hostile inputs, and what is wrong with it, [lane, step]; nothing if all is well.

        Args:
            play: Takes either.
            hostile: The inputs.
            clean: What the documentation makes of them.
        """
        begin = time.perf_counter()
        found = play(hostile)
        seconds = time.perf_counter() - begin
        said = np.full(found.inside.shape, f"hang: {self.env.name}" if seconds > MAX_SECONDS else "", object)

        def say(holds: Any, what: str) -> None:
            said[~holds.reshape(*said.shape, -1).all(-1) & (said == "")] = f"{self.env.name}: {what}"

        leaves = jax.tree_util.tree_leaves_with_path(found.seen)
        for (path, x), y, usual in zip(
            leaves, jax.tree.leaves(play(clean).seen), jax.tree.leaves(self.ordinary.seen), strict=True
        ):
            name = jax.tree_util.keystr(path)
            if x.dtype.kind == "f":
                # Results that never come are infinitely late.
                endless = "completion" in name or not np.isfinite(usual).all()
                say(~np.isnan(x) if endless else np.isfinite(x), f"{name} is not finite")
            say((x == y) | (x != x), f"{name} is not that of what it is clipped to")
        say(found.inside, "an observation is outside its space")
        say(found.lawful, "a law does not hold")
        return found, said


def _mixed(rng: np.random.Generator, usual: np.ndarray, share: np.ndarray) -> np.ndarray:
    """An array [lane, ...], of whose entries a share [lane] is hostile."""
    size, kind = usual.shape, usual.dtype.kind
    share = _of_lane(share, usual)
    if kind == "b":
        return np.where(rng.random(size) < share, rng.random(size) < 0.5, usual)
    extremes = np.array(INTEGERS if kind == "i" else FLOATS, usual.dtype)
    bits = rng.integers(0, 2**32, size, np.uint32).view(np.int32 if kind == "i" else np.float32).astype(usual.dtype)
    picked = np.where(rng.random(size) < 0.6, extremes[rng.integers(len(extremes), size=size)], bits)
    return np.where(rng.random(size) < share, picked, usual)


# Actions


def clipped_action(env: Any, params: Any, action: Any) -> PyTree:
    """The actions [lane, step] that the documentation makes of hostile ones."""
    parts: dict[str, Any]
    if isinstance(action, OffloadAction):
        power = np.where(np.isnan(action.power), np.float32(MIN_POWER), action.power)
        parts = {
            "cut": np.clip(action.cut, 0, env.num_points - 1),
            "channel": np.clip(action.channel, 0, env.num_channels - 1),
            "power": np.clip(power, np.float32(MIN_POWER), params.power_max[:, None]),
        }
        return OffloadAction(**parts)
    if isinstance(action, AllocationAction):
        share = np.minimum(np.where(action.share > 0, action.share, 0), np.finfo(np.float32).max)
        parts = {"split": np.clip(action.split, 0, env.num_layers), "share": share}
        return AllocationAction(**parts)
    if isinstance(action, CompressAction):
        space = env.action_space(params)
        parts = {
            name: np.clip(np.where(np.isnan(x), np.float32(0), x), 0, 1)
            if x.dtype.kind == "f"
            else np.clip(x, 0, part.n - 1)
            for name, part, x in zip(space.names, space.spaces, action, strict=True)
        }
        return CompressAction(**parts)
    return np.clip(action, 0, env.num_actions - 1)


def _of_wrong_type(env: Problem, rng: np.random.Generator, action: PyTree) -> str:
    """What becomes of an action that has no whole number for a choice, or another shape."""
    leaves, treedef = jax.tree.flatten(action)
    part = int(rng.choice([number for number, x in enumerate(leaves) if x.dtype.kind == "i"]))
    hostile: list[Any] = [np.float32(np.nan), np.float64(0.5), np.complex64(1), np.float16(1)]
    ways = [np.broadcast_to(x, leaves[part].shape) for x in hostile]
    ways += [np.stack([leaves[part]] * 2), np.concatenate([leaves[part].reshape(-1)] * 2)]
    leaves[part] = ways[int(rng.integers(len(ways)))]
    wrong = jax.tree.unflatten(treedef, leaves)

    def act() -> None:
        _, state = jax.eval_shape(env.reset_env, jax.random.key(0), env.default_params)
        jax.eval_shape(env.step_env, jax.random.key(0), state, wrong, env.default_params)

    return fate(act, lambda done: f"{env.name} takes an action of {leaves[part].dtype} {leaves[part].shape}")


def action_fates(count: int, seed: int, folder: Path) -> Fates:
    """What becomes of hostile actions: one in a hundred of a wrong type, the others out of range."""
    rng, fates = np.random.default_rng(seed), Counter[str]()
    for env_id, number in _shares(count):
        mistyped = -(-number // 100)
        lanes = Lanes(env_id, max(1, -(-(number - mistyped) // STEPS)), seed)
        one = jax.tree.map(lambda x: x[0, 0], lanes.actions)
        fates.update(_of_wrong_type(lanes.env, rng, one) for _ in range(mistyped))
        fates.update(_action_fates(lanes, rng)[: number - mistyped])
    return fates


def _action_fates(lanes: Lanes, rng: np.random.Generator) -> list[str]:
    """An action for each step of each lane."""
    share = rng.choice([0.3, 1.0], len(lanes.keys))
    wild = jax.tree.map(lambda x: _mixed(rng, x[:, WARM_UP:], share), lanes.actions)
    hostile = jax.tree.map(lambda x, y: np.concatenate([x[:, :WARM_UP], y], 1), lanes.actions, wild)
    clean = clipped_action(lanes.env, lanes.default, hostile)
    found, wrong = lanes.judge(partial(lanes.play, lanes.default, lanes.default), hostile, clean)
    ends: list[str] = np.where(wrong != "", wrong, np.where(found.taken, TAKEN, CLIPPED)).reshape(-1).tolist()
    return ends


# Parameters


def clipped_parameters(table: Mapping[str, Parameter], params: Any) -> Any:
    """The parameters [lane] that the documentation makes of hostile ones."""
    values = {}
    for name, about in table.items():
        x = values[name] = getattr(params, name)
        if about.kind is not bool:
            least, most = (np.asarray(bound, x.dtype) for bound in (about.least, about.most))
            values[name] = np.clip(np.where(x == x, x, least), least, most)
    for name, about in table.items():
        if about.not_below is not None:
            values[name] = np.maximum(values[name], values[about.not_below])
    return params.replace(**values)


def parameter_fates(count: int, seed: int, folder: Path) -> Fates:
    """What becomes of hostile parameters: one, some or all of them, from the start of an episode or in its midst."""
    rng, fates = np.random.default_rng(seed), Counter[str]()
    for env_id, number in _shares(count):
        fates.update(_parameter_fates(Lanes(env_id, number, seed), rng))
    return fates


def _parameter_fates(lanes: Lanes, rng: np.random.Generator) -> list[str]:
    """A set of parameters for each lane."""
    table, default, number = lanes.env.parameters(), lanes.default, len(lanes.keys)
    share = rng.choice([1 / len(table), 0.3, 1.0], number)
    hostile = default.replace(
        **{
            name: _hostile(rng, about, getattr(default, name), rng.random(number) < share)
            for name, about in table.items()
        }
    )
    clean, fresh = clipped_parameters(table, hostile), rng.random(number) < 0.5

    def play(params: Any) -> Outcome:
        start = jax.tree.map(lambda x, y: np.where(_of_lane(fresh, x), x, y), params, default)
        return lanes.play(start, params, lanes.actions)

    same = jax.tree.leaves(jax.tree.map(lambda x, y: (x == y).reshape(number, -1).all(1), hostile, clean))
    _, wrong = lanes.judge(play, hostile, clean)
    first = [next((what for what in steps if what), "") for steps in wrong.tolist()]
    return [what or (TAKEN if valid else CLIPPED) for what, valid in zip(first, np.all(same, axis=0), strict=True)]


def _of_lane(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Values [lane] beside an array [lane, ...]."""
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _hostile(rng: np.random.Generator, about: Parameter, usual: np.ndarray, picked: np.ndarray) -> np.ndarray:
    """Values [lane] of a parameter, hostile in the lanes that are picked."""
    edges = np.array([about.least, about.most, about.kind(2 * about.most)], usual.dtype)
    wild = _mixed(rng, usual, rng.choice([0.5, 1.0], len(usual)))
    near = edges[rng.integers(3, size=usual.shape)]
    if about.kind is float:
        scaled = usual * np.exp(rng.normal(0, 8, usual.shape))
        near = np.where(rng.random(usual.shape) < 0.5, near, scaled.astype(usual.dtype))
    values = np.where(_of_lane(rng.random(len(usual)) < 0.5, usual), wild, near)
    return np.where(_of_lane(picked, usual), values, usual)


def _shares(count: int) -> list[tuple[str, int]]:
    """How many inputs each registered environment gets."""
    ids = mec_jax.registered_envs
    shares = [(env_id, count // len(ids) + (number < count % len(ids))) for number, env_id in enumerate(ids)]
    return [(env_id, number) for env_id, number in shares if number]
