"""Whether an algorithm keeps what `mec_jax.contracts.Algorithm` asks."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import PyTree

from mec_jax.contracts import Algorithm, Problem, Trainer, preset_for
from mec_jax.ranges import Range, check, ranges
from mec_jax.testing.common import check_decisions, parts_of, random_play, require, require_alike, works

FLIPS = 0.01
"""Share of choices that may differ where a policy is read back from its file: of two that are equally good."""


def check_algorithm(
    algorithm: Algorithm, env: Problem, config: Any, params: PyTree = None, hparams: PyTree = None
) -> None:
    """Check an algorithm on one environment: presets and ranges, some updates, the policy, and its way to a file.

    Args:
        algorithm: The algorithm.
        env: An environment it trains on.
        config: A small one of its `Config`: two chunks, few frames and units.
        params: Parameters of the environment; the defaults if None.
        hparams: Its hyper-parameters; the defaults if None.

    Raises:
        ConformanceError: If something is wrong; the message names it and the mend.
    """
    require(isinstance(algorithm, Algorithm), f"{algorithm!r} is no mec_jax.contracts.Algorithm")
    params = env.default_params if params is None else params
    hparams = jax.tree.map(jnp.asarray, algorithm.hparams() if hparams is None else hparams)
    _check_presets(algorithm, env)
    _check_ranges(algorithm)
    learned = _check_training(algorithm, env, config, params, hparams)
    _check_policy(algorithm, env, config, params, learned)


def _check_presets(algorithm: Algorithm, env: Problem) -> None:
    name = algorithm.name
    require(name and algorithm.presets, f"algorithm {name!r} needs a name and at least one preset")
    for preset, (config, hparams, _) in algorithm.presets.items():
        require(
            isinstance(config, algorithm.config) and isinstance(hparams, algorithm.hparams),
            f"preset {preset!r} of {name} holds no {algorithm.config.__name__} and {algorithm.hparams.__name__}",
        )
        with works(f"config of preset {preset!r} of {name} can't be hashed", "Make Config a frozen dataclass"):
            hash(config)
    with works(f"presets of {name} for {env.name}", "`suits` takes Traits and returns a truth value"):
        chosen = preset_for(algorithm.presets, env.traits)
    with works(f"preset {chosen!r} of {name}, that of {env.name}", "Let it go together with the environment"):
        algorithm.make_trainer(env, algorithm.presets[chosen].config)


def _check_ranges(algorithm: Algorithm) -> None:
    """Fields declare ranges, presets are within, and what is outside is one ValueError that names the field."""
    presets = algorithm.presets.items()
    for part, kind in (("config", algorithm.config), ("hparams", algorithm.hparams)):
        mend = "Take its ranges from mec_jax.ranges, and derive Config from Checked, HParams from Traced"
        what = f"{kind.__name__} of {algorithm.name}"
        with works(f"{what} declares its ranges", mend):
            declared = ranges(kind)
        for name, preset in presets:
            with works(f"preset {name!r} of {algorithm.name}", "Let its values be within the declared ranges"):
                check(getattr(preset, part))
        for name, allowed in declared.items():
            for value in _outside(allowed):
                wrong = f"{what} with {name}={value!r}"
                try:
                    dataclasses.replace(getattr(next(iter(algorithm.presets.values())), part), **{name: value})
                except ValueError as error:
                    require(name in str(error), f"{wrong}: the error does not name the field: {error}")
                    continue
                except Exception as error:
                    require(False, f"{wrong}: {type(error).__name__}, not ValueError. {mend}")
                require(False, f"{wrong} is not refused. {mend}")
    with works(f"{algorithm.hparams.__name__} of {algorithm.name} is no pytree of whatever JAX puts in", mend):
        jax.tree.map(lambda _: None, algorithm.hparams())


def _outside(allowed: Range) -> list[Any]:
    """Values out of a range, and of another kind."""
    if allowed.max_length is not None:
        one = allowed._replace(max_length=None)
        return [*((value,) for value in _outside(one)), (allowed.least,) * (allowed.max_length + 1)]
    values: list[Any] = [None, "x", math.nan, [allowed.least]]
    if allowed.kind in (int, float):
        values += [True, *(end for end in (allowed.least - 1, 2 * allowed.most + 1) if math.isfinite(end))]
    return [value for value in values if not allowed.has(value)]


def _check_training(algorithm: Algorithm, env: Problem, config: Any, params: PyTree, hparams: PyTree) -> PyTree:
    """What was learned after all chunks, which is what `train` gives at once."""
    name = algorithm.name
    with works(f"{name}.make_trainer on {env.name}", "It takes a problem and a config that go together"):
        trainer = algorithm.make_trainer(env, config)
    require(isinstance(trainer, Trainer), f"{name}.make_trainer returns {trainer!r}: it must be a contracts.Trainer")
    lanes = algorithm.lanes(config)
    require(type(lanes) is int and lanes > 0, f"{name}.lanes gives {lanes!r}: it must be a whole number above 0")
    key = jax.random.key(0)
    with works(f"{name}: init and run under jit", "They are pure functions of traced numbers"):
        state = jax.jit(trainer.init)(hparams, params, key)
        run = jax.jit(trainer.run)
        chunks = []
        for _ in range(trainer.num_chunks):
            state, metrics = run(state, hparams, params)
            chunks.append(metrics)
    per_chunk = getattr(config, "updates_per_chunk", None)
    require(hasattr(metrics, "_asdict") and hasattr(metrics, "frames"), f"{name}: metrics are a NamedTuple with frames")
    rows = jax.tree.map(lambda *x: np.concatenate(x), *chunks)
    frames = np.asarray(rows.frames)
    require(frames.ndim == 1 and frames[-1] == trainer.num_frames, f"{name}: metrics.frames {frames} do not end at "
            f"num_frames, {trainer.num_frames}: one for each update, frames so far")  # fmt: skip
    for metric, values in rows._asdict().items():
        require(len(values) == len(frames), f"{name}: metric {metric} has {np.shape(values)}: one for each update")
        finite = not metric.endswith("loss") or np.isfinite(values).all()
        require(finite, f"{name}: {metric} is not finite after some updates: {values}")
    require(
        per_chunk is not None and len(frames) == per_chunk * trainer.num_chunks,
        f"{name}: {len(frames)} updates in {trainer.num_chunks} chunks of updates_per_chunk={per_chunk}: Config needs "
        "that field, by which a run knows where it was",
    )
    require(hasattr(state, "key"), f"{name}: its state has no field `key`, without which a run can't go on")
    require(int(state.update) == len(frames), f"{name}: state.update is {state.update} after {len(frames)} updates")
    moved = jax.tree.leaves(algorithm.trained(state))
    require(moved and all(np.isfinite(x).all() for x in moved), f"{name}: what it trains is empty or not finite")
    with works(f"{name}: train under jit", "It is init and all chunks of run"):
        at_once, all_metrics = jax.jit(trainer.train)(hparams, params, key)
    mend = "let both go through the same code (algos.updates.in_chunks)"
    require_alike((at_once, all_metrics), (state, rows), f"{name}: train gives other than init and all chunks", mend)
    return algorithm.learned(state)


def _check_policy(algorithm: Algorithm, env: Problem, config: Any, params: PyTree, learned: PyTree) -> None:
    """It plays, and decides alike after the way to a file and back."""
    seen = random_play(env, params).observation
    observations = seen.reshape(-1, seen.shape[-1])
    keys = jax.random.split(jax.random.key(1), len(observations))

    def decide(config: Any, learned: PyTree, deterministic: bool, keys: jax.Array) -> PyTree:
        policy = algorithm.make_policy(env, config, deterministic)
        act = jax.jit(jax.vmap(policy, ((None, None), 0, 0)))
        return jax.tree.map(np.asarray, act((learned, params), jnp.asarray(observations), keys))

    policy = f"policy of {algorithm.name} on {env.name}"
    with works(policy, "Its parameters are (learned(state), env_params)"):
        likeliest, sampled = (decide(config, learned, deterministic, keys) for deterministic in (True, False))
    for what, actions in (("the likeliest action", likeliest), ("a sample", sampled)):
        # Gaussians know no bounds, and environments clip.
        clipped = _clipped(env.action_space(params), actions)
        check_decisions(env, params, observations, clipped, f"{what} of the {policy}")
    with works(f"{algorithm.name}.to_network and from_network", "The second takes what the first returned"):
        network = algorithm.to_network(env, params, config, learned)
        again = decide(*algorithm.from_network(network), True, keys[::-1])
    size = env.table.size
    require(network.observation_size == size, f"{algorithm.name}: the network reads {network.observation_size} entries "
            f"of {size}")  # fmt: skip
    for part, x in enumerate(jax.tree.leaves(likeliest)):
        y = jax.tree.leaves(again)[part]
        near = np.isclose(x, y, rtol=1e-3, atol=1e-4) if x.dtype.kind == "f" else x == y
        require(
            np.mean(near) >= 1 - FLIPS,
            f"{policy}: read back from its network, with other keys, it decides otherwise in part {part}: let "
            "from_network give all that to_network was given, and likeliest actions not depend on keys",
        )


def _clipped(space: spaces.Space, actions: PyTree) -> PyTree:
    """The actions, their numbers within the bounds of the space."""
    leaves, treedef = jax.tree.flatten(actions)
    parts = parts_of(space).values()
    if len(leaves) != len(parts):
        return actions
    bounded = [
        jnp.clip(x, part.low, part.high) if isinstance(part, spaces.Box) and x.dtype.kind == "f" else x
        for x, part in zip(leaves, parts, strict=True)
    ]
    return jax.tree.unflatten(treedef, bounded)
