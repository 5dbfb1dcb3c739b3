"""A run's folder: config, metrics, checkpoints and the exported policy."""

import csv
import dataclasses
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from jaxtyping import PyTree
from tensorboardX import SummaryWriter

import mec_jax
from algos import mahppo
from mec_jax.envs.offloading import MIN_POWER
from mec_jax.policy import AS_RETURNED, KIND, SCHEMA, Policy, load_policy, save_policy

CONFIG = "config.json"


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run; `config.json` holds it."""

    algorithm: str
    env_id: str
    env_static: dict[str, Any]  # arguments of `mec_jax.make`
    env_params: dict[str, Any]  # fields of the environment's Params that differ from the defaults
    preset: str
    seed: int
    config: mahppo.Config
    hparams: mahppo.HParams

    def make_env(self) -> tuple[Any, Any]:
        """Environment and parameters of the run."""
        env, _ = mec_jax.make(self.env_id, **self.env_static)
        return env, env.params(**self.env_params)


class RunFolder:
    """Writes what a run leaves behind. Nothing is left half-written: whole files are renamed into place.

    Args:
        path: The folder; it must not exist or be empty.
        run: What is run.

    Raises:
        ValueError: If the folder is in use or cannot be written.
    """

    def __init__(self, path: Path, run: RunConfig) -> None:
        try:
            if path.exists() and any(path.iterdir()):
                raise ValueError(f"run folder {str(path)!r} is not empty: name another with --out")
            path.mkdir(parents=True, exist_ok=True)
            write_text(path / CONFIG, json.dumps(dataclasses.asdict(run), indent=2) + "\n")
        except OSError as error:
            raise ValueError(
                f"run folder {str(path)!r} cannot be written ({error.strerror}): name another with --out"
            ) from None
        self.path = path
        self._board = SummaryWriter(str(path / "tensorboard"))
        self._csv_file = (path / "metrics.csv").open("w", newline="")
        self._csv: csv.DictWriter | None = None
        self._checkpoints = _checkpoints(path)

    def log(self, frames: int, metrics: Mapping[str, float]) -> None:
        """Append one row to `metrics.csv` and to the TensorBoard events."""
        row = {"wall_time": time.time(), "frames": frames, **metrics}
        if self._csv is None:
            self._csv = csv.DictWriter(self._csv_file, list(row))
            self._csv.writeheader()
        self._csv.writerow(row)
        self._csv_file.flush()
        for name, value in metrics.items():
            if math.isfinite(value):  # a chunk in which no episode ended has no return
                self._board.add_scalar(name, value, frames, row["wall_time"])

    def save(self, update: int, state: PyTree) -> None:
        """Write a checkpoint in the background; the two newest are kept."""
        self._checkpoints.save(update, args=ocp.args.StandardSave(state))

    def close(self) -> None:
        """Wait until everything is on disk."""
        self._checkpoints.wait_until_finished()
        self._checkpoints.close()
        self._csv_file.close()
        self._board.close()


def load_run(path: Path) -> tuple[RunConfig, mahppo.TrainState]:
    """Configuration and newest checkpoint of a run folder.

    Raises:
        ValueError: If it is no run folder, or its files are damaged.
    """
    file = path / CONFIG
    try:
        fields = json.loads(file.read_text())
        config = fields.pop("config")
        lists = {name: tuple(value) for name, value in config.items() if isinstance(value, list)}
        run = RunConfig(
            config=mahppo.Config(**{**config, **lists}),
            hparams=mahppo.HParams(**fields.pop("hparams")),
            **fields,
        )
    except OSError as error:
        raise ValueError(f"{str(path)!r} is no run folder ({file}: {error.strerror}): name one of `train`'s") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{file} is damaged ({error!r}): train again, or copy the folder again") from None
    if run.algorithm != "mahppo":
        raise ValueError(f"{file} names an algorithm {run.algorithm!r} that is not known: only mahppo is")
    try:
        env, params = run.make_env()
        trainer = mahppo.make_trainer(env, run.config)
        template = jax.eval_shape(trainer.init, as_arrays(run.hparams), params, jax.random.key(0))
    except (TypeError, KeyError, ZeroDivisionError) as error:  # values of another type than `train` writes
        raise ValueError(f"{file} is damaged ({error!r}): train again, or copy the folder again") from None
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # of this machine, not the one that trained
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), template)
    if not (path / "checkpoints").is_dir():
        raise ValueError(f"{str(path)!r} holds no checkpoint: train for longer")
    checkpoints = _checkpoints(path)
    try:
        newest = checkpoints.latest_step()
        if newest is None:
            raise ValueError(f"{str(path)!r} holds no checkpoint: train for longer")
        _check(path / "checkpoints" / str(newest) / "default", template)
        return run, checkpoints.restore(newest, args=ocp.args.StandardRestore(template))
    except ValueError as error:
        if "holds no checkpoint" in str(error):
            raise
        raise _damaged(path, error) from None
    except Exception as error:  # orbax and tensorstore raise many kinds on damaged files
        raise _damaged(path, error) from None
    finally:
        checkpoints.close()


def describe_policy(run: RunConfig) -> dict[str, Any]:
    """What the metadata of an exported policy say of its environment and networks."""
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
    heads = [
        {"name": "cut", "kind": "categorical", "layers": ["cut_0", "cut_1"], "size": env.num_points},
        {
            "name": "channel",
            "kind": "categorical",
            "layers": ["channel_0", "channel_1"],
            "size": env.num_channels,
        },
        {"name": "power", "kind": "gaussian", "layers": ["power_0", "power_1"], "size": 1, **power},
    ]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "env_id": run.env_id,
        "env_static": run.env_static,
        "env_params": flax.serialization.to_state_dict(params),
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
            "trunk": [f"trunk_{i}" for i in range(len(run.config.trunk))],
            "heads": heads,
        },
    }


def export_policy(path: Path, run: RunConfig, actors: PyTree, frames: int, score: Mapping[str, Any]) -> None:
    """Write the actors as a file that `mec_jax.policy.load_policy` reads.

    Raises:
        ValueError: If the file cannot be written.
    """
    about = describe_policy(run) | {
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
    arrays = flax.traverse_util.flatten_dict(actors["params"], sep="/")
    save_policy(path, {name: np.asarray(value) for name, value in arrays.items()}, about)


def import_policy(path: Path) -> tuple[RunConfig, PyTree]:
    """The run's environment and the actors of an exported policy.

    Raises:
        ValueError: If it is no policy file of this algorithm.
    """
    policy: Policy = load_policy(path)
    about = policy.metadata
    network = about["network"]
    arrays = flax.traverse_util.unflatten_dict(policy.arrays, sep="/")
    try:
        config = mahppo.Config(
            trunk=tuple(arrays[name]["bias"].shape[-1] for name in network["trunk"]),
            head=arrays["cut_0"]["bias"].shape[-1],
            power_std=network["heads"][2]["std"],
        )
        run = RunConfig(
            algorithm=about["provenance"]["algorithm"],
            env_id=about["env_id"],
            env_static=about["env_static"],
            env_params=about["env_params"],
            preset=about["provenance"]["preset"],
            seed=about["provenance"]["seed"],
            config=config,
            hparams=mahppo.HParams(),
        )
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"policy file {str(path)!r} is not of MAHPPO (no {error}): export one with `mec-jax export`"
        ) from None
    env, params = run.make_env()
    actors = mahppo.make_actors(env, config)
    parameters = {"params": jax.tree.map(jnp.asarray, arrays)}
    shapes = jax.eval_shape(actors.init, jax.random.key(0), jnp.zeros((1, 4 * env.num_ues)), params.power_max)
    expected = describe_policy(run)
    for what, agree in (
        ("algorithm", run.algorithm == "mahppo"),
        ("observation", about["observation"] == expected["observation"]),
        ("network", network == expected["network"]),
        ("arrays", jax.tree.map(jnp.shape, parameters) == jax.tree.map(jnp.shape, shapes)),
    ):
        if not agree:
            raise ValueError(
                f"policy file {str(path)!r} is not of MAHPPO (its {what} differs): export one with `mec-jax export`"
            )
    return run, parameters


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def as_arrays(hparams: mahppo.HParams) -> mahppo.HParams:
    """Hyper-parameters as arrays, so that other values of them never compile anew."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), hparams)


def _checkpoints(path: Path) -> ocp.CheckpointManager:
    return ocp.CheckpointManager((path / "checkpoints").absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=2))


def _check(folder: Path, template: PyTree) -> None:
    """Read all arrays of a checkpoint, one by one. Orbax reads them at once: if several are damaged or of another
    shape, it raises the error of one, and those of the others land on stderr.
    """
    store = tensorstore.KvStore.open(
        {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.absolute()}/"}}
    ).result()
    values = {key.decode(): store.read(key).result().value for key in store.list().result()}
    header = "/.zarray"
    found = {
        name.removesuffix(header): tuple(json.loads(value)["shape"])
        for name, value in values.items()
        if name.endswith(header)
    }
    template = template._replace(key=jax.eval_shape(jax.random.key_data, template.key))
    for path, leaf in jax.tree_util.tree_leaves_with_path(template):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if found.get(name) != leaf.shape:
            raise ValueError(f"{name} has shape {found.get(name)}, by the configuration {leaf.shape}")


def _damaged(path: Path, error: Exception) -> ValueError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ValueError(
        f"the checkpoint in {str(path)!r} is damaged or of another version ({first_line[:200]}): "
        "remove its newest folder under checkpoints/ to use the one before, or train again"
    )
