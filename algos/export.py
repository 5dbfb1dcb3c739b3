"""Trained policies as files that need NumPy alone, and back (`mec_jax.policy` describes the file)."""

import math
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from algos import mahppo
from algos.actor import make_actor
from algos.algorithms import algorithm
from algos.distributions import Head, heads_of
from algos.normalise import CLIP, Moments
from algos.runs import RunConfig, as_arrays
from mec_jax.envs.offloading import MIN_POWER
from mec_jax.policy import AS_RETURNED, KIND, SCHEMA, Policy, load_policy, save_policy

type Arrays = dict[str, np.ndarray]


def export_policy(path: Path, run: RunConfig, learned: PyTree, frames: int, score: Mapping[str, Any]) -> None:
    """Write a policy as a file that `mec_jax.policy.load_policy` reads.

    Args:
        path: The file.
        run: How it was trained.
        learned: What the algorithm's `learned` returned.
        frames: Frames it was trained for.
        score: What the file says of its score.

    Raises:
        ValueError: If the file cannot be written.
    """
    arrays, about = _FORMATS[run.algorithm][0](run, learned)
    _, params = run.make_env()
    about = {
        "schema": SCHEMA,
        "kind": KIND,
        "env_id": run.env_id,
        "env_static": run.env_static,
        "env_params": flax.serialization.to_state_dict(params),
        **about,
        "provenance": {
            "algorithm": run.algorithm,
            "preset": run.preset,
            "seed": run.seed,
            "frames": frames,
            "date": time.strftime("%Y-%m-%d"),
            "versions": {name: metadata.version(name) for name in ("mec-jax", "jax", "flax", "numpy")},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}",
        },
        "score": dict(score),
    }
    save_policy(path, arrays, about)


def import_policy(path: Path) -> tuple[RunConfig, PyTree]:
    """The run's environment, and what the algorithm's policy learned, from an exported file.

    Raises:
        ValueError: If it is no policy file of an algorithm of this package.
    """
    policy: Policy = load_policy(path)
    about = policy.metadata
    name = about["provenance"].get("algorithm")
    if name not in _FORMATS:
        raise ValueError(_foreign(path, f"its algorithm is {name!r}, not one of {', '.join(_FORMATS)}"))
    write, read = _FORMATS[name]
    try:
        config, learned = read(policy)
        run = RunConfig(
            algorithm=name,
            env_id=about["env_id"],
            env_static=about["env_static"],
            env_params=about["env_params"],
            preset=about["provenance"]["preset"],
            seed=about["provenance"]["seed"],
            config=config,
            hparams=algorithm(name).HParams(),
        )
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(_foreign(path, f"no {error}")) from None
    env, params = run.make_env()
    try:
        trainer = algorithm(name).make_trainer(env, config)
        state = jax.eval_shape(trainer.init, as_arrays(run.hparams), params, jax.random.key(0))
        shapes = jax.tree.map(jnp.shape, (learned, algorithm(name).learned(state)))
        if shapes[0] != shapes[1]:
            raise ValueError("they are of other shapes than its networks")
        arrays, expected = write(run, learned)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(_foreign(path, f"its arrays differ: {error}")) from None
    for part in ("action", "observation", "network"):
        if not _same(expected[part], about[part]):
            raise ValueError(_foreign(path, f"its {part} differs"))
    if arrays.keys() != policy.arrays.keys() or any(
        not np.array_equal(array, policy.arrays[name]) for name, array in arrays.items()
    ):
        raise ValueError(_foreign(path, "its arrays differ"))
    return run, learned


def _foreign(path: Path, why: str) -> str:
    return f"policy file {str(path)!r} is not of this package's trainers ({why}): export one with `mec-jax export`"


def _same(x: Any, y: Any) -> bool:
    """Whether two pieces of metadata agree, numbers to rounding errors."""
    if isinstance(x, Mapping):
        return isinstance(y, Mapping) and x.keys() == y.keys() and all(_same(x[name], y[name]) for name in x)
    if isinstance(x, list | tuple):
        return isinstance(y, list | tuple) and len(x) == len(y) and all(map(_same, x, y))
    if isinstance(x, float) and isinstance(y, int | float):
        return math.isclose(x, y, rel_tol=1e-5)
    return bool(x == y)


# MAHPPO: one network a UE


def _write_mahppo(run: RunConfig, learned: PyTree) -> tuple[Arrays, dict[str, Any]]:
    env, params = run.make_env()
    power_max = np.asarray(params.power_max).tolist()
    power = {
        "mean": "sigmoid",
        "std": run.config.power_std,
        "std_min": mahppo.STD_MIN,
        "scale": power_max,
        "low": MIN_POWER,
        "high": power_max,
    }
    fixed = _fixed_layers(env.num_ues, run.config)
    about = {
        "action": "OffloadAction",
        "observation": {
            "size": 4 * env.num_ues,
            "per_ue": [
                "tasks left / tasks given",
                "time left / local time",
                "bits left / 1204224",
                "(distance - 1) / 99",
            ],
            "normalisation": AS_RETURNED,
        },
        "network": {
            "stacked": env.num_ues,
            "activation": "relu",
            "trunk": [*fixed, *(f"trunk_{i}" for i in range(len(run.config.trunk)))],
            "heads": [
                {"name": "cut", "kind": "categorical", "layers": ["cut_0", "cut_1"], "size": env.num_points},
                {
                    "name": "channel",
                    "kind": "categorical",
                    "layers": ["channel_0", "channel_1"],
                    "size": env.num_channels,
                },
                {"name": "power", "kind": "gaussian", "layers": ["power_0", "power_1"], "size": 1, **power},
            ],
        },
    }
    arrays = flax.traverse_util.flatten_dict(fixed | learned["params"], sep="/")
    return {name: np.asarray(value) for name, value in arrays.items()}, about


def _read_mahppo(policy: Policy) -> tuple[mahppo.Config, PyTree]:
    network = policy.metadata["network"]
    arrays = flax.traverse_util.unflatten_dict(policy.arrays, sep="/")
    fixed = [name for name in network["trunk"] if not name.startswith("trunk_")]
    config = mahppo.Config(
        trunk=tuple(arrays[name]["bias"].shape[-1] for name in network["trunk"] if name not in fixed),
        head=arrays["cut_0"]["bias"].shape[-1],
        inputs="hinges" if fixed else "state",
        power_std=network["heads"][2]["std"],
    )
    actors = {name: value for name, value in arrays.items() if name not in fixed}
    return config, {"params": jax.tree.map(jnp.asarray, actors)}


def _fixed_layers(num_ues: int, config: mahppo.Config) -> dict[str, dict[str, np.ndarray]]:
    """Layers of an exported policy that are not trained, with the axis of the networks."""
    if config.inputs == "state":
        return {}
    layer = dict(zip(("kernel", "bias"), mahppo.hinges(num_ues), strict=True))
    return {"hinges": {name: np.broadcast_to(array, (num_ues, *array.shape)) for name, array in layer.items()}}


# The actor of PPO and DRL-ES: one network whose last layer is cut into the heads of the file

NO_BOUND = float(np.finfo(np.float32).max)


def _write_actor(run: RunConfig, learned: PyTree) -> tuple[Arrays, dict[str, Any]]:
    env, params = run.make_env()
    actor, observed = learned
    layers = {name: {part: np.asarray(x) for part, x in layer.items()} for name, layer in actor["params"].items()}
    last, log_std = layers.pop("head"), layers.pop("log_std", {"bias": np.zeros(0)})["bias"]
    slots = make_actor(env, run.config).slots
    masks = getattr(env, "mask_entries", {})
    heads, first, first_std = [], 0, 0
    for head in heads_of(env.action_space(params)):
        num_outputs = 1 if slots else head.num_outputs
        outputs = slice(first, first + num_outputs)
        first += num_outputs
        kernel, bias = last["kernel"][..., outputs], last["bias"][..., outputs]
        if head.kind != "categorical":
            std = log_std[None, first_std : first_std + head.num_entries]
            first_std += head.num_entries
            kernel = np.concatenate([kernel, np.zeros_like(kernel)], axis=-1)
            bias = np.concatenate([bias, std], axis=-1)
        layers[f"head_{head.name}"] = {"kernel": kernel, "bias": bias}
        allowed = {"allowed": list(masks[head.name])} if head.name in masks else {}
        heads.append(_describe_head(head) | allowed)
    normalisation: Any = AS_RETURNED
    if run.config.normalise_observation:
        std = np.sqrt(np.asarray(observed.var) + np.float32(1e-8))
        normalisation = {"mean": np.asarray(observed.mean).tolist(), "std": std.tolist(), "clip": CLIP}
    size = np.asarray(observed.mean).size
    names = getattr(env, "observation_names", None) or [f"observation {i}" for i in range(size)]
    about = {
        "action": getattr(getattr(env.action_space(params), "type", None), "__name__", "Action"),
        "observation": {"size": size, "per_ue": names, "normalisation": normalisation},
        "network": {
            "stacked": 1,
            "activation": run.config.activation,
            "trunk": [f"trunk_{i}" for i in range(len(run.config.trunk))],
            "heads": heads,
            **({"per_slot": slots._asdict()} if slots else {}),
        },
    }
    return flax.traverse_util.flatten_dict(layers, sep="/"), about


def _describe_head(head: Head) -> dict[str, Any]:
    about = {
        "name": head.name,
        "kind": head.kind,
        "layers": [f"head_{head.name}"],
        "size": head.size,
        "shape": list(head.shape),
    }
    if head.kind == "categorical":
        return about
    offset, scale = (0.0, 1.0)
    low, high = -NO_BOUND, NO_BOUND
    if head.kind == "gaussian":
        offset, scale = (np.broadcast_to(x, head.shape).tolist() for x in head.scaling())
        low, high = (
            np.broadcast_to(np.clip(x, -NO_BOUND, NO_BOUND), head.shape).tolist() for x in (head.low, head.high)
        )
    bounds = {"low": low, "high": high}
    return about | {"mean": "linear", "offset": offset, "scale": scale, "std": "exp", "std_min": 0.0, **bounds}


def _read_actor(policy: Policy) -> tuple[Any, PyTree]:
    network, seen = policy.metadata["network"], policy.metadata["observation"]["normalisation"]
    arrays = flax.traverse_util.unflatten_dict(policy.arrays, sep="/")
    config = algorithm(policy.metadata["provenance"]["algorithm"]).Config(
        trunk=tuple(arrays[name]["bias"].shape[-1] for name in network["trunk"]),
        activation=network["activation"],
        per_slot="per_slot" in network,
        normalise_observation=seen != AS_RETURNED,
    )
    layers = {name: arrays[name] for name in network["trunk"]}
    parts: dict[str, list[np.ndarray]] = {"kernel": [], "bias": []}
    log_std: list[np.ndarray] = []
    for head in network["heads"]:
        layer = arrays[f"head_{head['name']}"]
        outputs = 1 if config.per_slot else head["size"] * int(np.prod(head["shape"]))
        for name, found in parts.items():
            found.append(layer[name][..., :outputs])
        log_std.append(layer["bias"][0, outputs:])
    layers["head"] = {name: np.concatenate(found, axis=-1) for name, found in parts.items()}
    if any(map(len, log_std)):
        layers["log_std"] = {"bias": np.concatenate(log_std)}
    size = policy.metadata["observation"]["size"]
    mean, std = (np.float32(seen[name]) if seen != AS_RETURNED else np.ones(size) for name in ("mean", "std"))
    observed = Moments(jnp.asarray(mean), jnp.asarray(std, jnp.float32) ** 2 - 1e-8, jnp.asarray(1.0))
    return config, ({"params": jax.tree.map(jnp.asarray, layers)}, observed)


_FORMATS: dict[str, tuple[Any, Any]] = {
    "mahppo": (_write_mahppo, _read_mahppo),
    "ppo": (_write_actor, _read_actor),
    "drl_es": (_write_actor, _read_actor),
}
