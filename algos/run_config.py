"""What defines a run: made of options, of JSON, of a preset."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from algos.algorithms import algorithm, make_env
from algos.integrity import unsealed
from mec_jax.contracts import Problem, preset_for
from mec_jax.files import check_choice, did_you_mean, read_text, reason
from mec_jax.ranges import Range, check
from mec_jax.registry import registered_envs, static_arguments

MAX_BYTES = 2**20
"""Of a JSON file that defines a run."""

SEED = Range("seed", int, 0, 2**32 - 1)
DEVICES = Range("devices", int, 1, 2**16)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunConfig:
    """All that defines a run; `config.json` holds it.

    Raises:
        ValueError: If the seed, a hyper-parameter or the number of devices is out of its range.
    """

    algorithm: str
    env_id: str
    env_static: dict[str, Any]  # arguments of `mec_jax.make`
    env_params: dict[str, Any]  # fields of the environment's Params that differ from the defaults
    preset: str
    seed: int
    config: Any  # the algorithm's Config
    hparams: Any  # the algorithm's HParams
    devices: int = 1  # that share its lanes

    def __post_init__(self) -> None:
        SEED.check(self.seed)
        DEVICES.check(self.devices)
        check(self.config)
        check(self.hparams)
        for name, value in dataclasses.asdict(self.hparams).items():
            if np.shape(value):
                raise ValueError(f"{name} has shape {np.shape(value)}: a run takes one number, a sweep is a vmap")
        if self.devices > 1 and (lanes := algorithm(self.algorithm).lanes(self.config)) % self.devices:
            fewer = next(count for count in range(self.devices, 0, -1) if lanes % count == 0)
            raise ValueError(
                f"devices is {self.devices}, which does not divide {lanes}, the lanes of {self.algorithm} that they "
                f"would share: take {fewer}, or other counts of environments or episodes"
            )

    def make_env(self) -> tuple[Problem, Any]:
        """Problem and parameters of the run."""
        return make_env(self.env_id, self.env_static, self.env_params)

    @property
    def own_static(self) -> dict[str, Any]:
        """Arguments of the environment that differ from its defaults."""
        usual = static_arguments(self.env_id) if self.env_id in registered_envs else {}
        return {name: value for name, value in self.env_static.items() if name not in usual or usual[name] != value}

    def within(self, frames: int | None) -> "RunConfig":
        """The run with a budget of environment frames, in whole chunks of its updates, one at least; None leaves it.

        Raises:
            ValueError: If the counts do not fit together.
        """
        if frames is None:
            return self
        env, _ = self.make_env()
        return dataclasses.replace(self, config=algorithm(self.algorithm).within(env, self.config, frames))


def new_run(
    algorithm_name: str,
    env_id: str,
    *,
    static: Mapping[str, Any] = MappingProxyType({}),
    params: Mapping[str, Any] = MappingProxyType({}),
    preset: str = "",
    seed: int = 0,
    config: Mapping[str, Any] = MappingProxyType({}),
    hparams: Mapping[str, Any] = MappingProxyType({}),
    frames: int | None = None,
) -> RunConfig:
    """What `mec-jax train` runs with these options.

    Args:
        algorithm_name: What to train with.
        env_id: Environment id, of the suite or of gymnax.
        static: Arguments of its constructor.
        params: Its numbers that differ from the defaults.
        preset: Set of hyper-parameters; by default what suits the environment.
        seed: Of everything random.
        config: Fields of the algorithm's Config that differ from the preset.
        hparams: Fields of its HParams that differ from the preset.
        frames: Budget of environment frames; by default the preset's.

    Raises:
        ValueError: If something is not there, or out of its range.
    """
    learner = algorithm(algorithm_name)
    if env_id in registered_envs:
        static = static_arguments(env_id, **static)
    env, _ = make_env(env_id, static, params)
    chosen = preset or preset_for(learner.presets, env.traits)
    check_choice("preset", chosen, learner.presets)
    defaults = learner.presets[chosen]
    made = [
        _replaced(part, kind, changed)
        for part, kind, changed in (("config", defaults.config, config), ("hparams", defaults.hparams, hparams))
    ]
    run = RunConfig(algorithm_name, env_id, dict(static), dict(params), chosen, seed, *made)
    return run.within(frames)


def _replaced(part: str, defaults: Any, changed: Mapping[str, Any]) -> Any:
    known = vars(defaults)
    for name in changed:
        if name not in known:
            raise ValueError(f"{part} has no field {name!r}: {did_you_mean(name, known)}choose from {', '.join(known)}")
    return dataclasses.replace(defaults, **changed)


def read_run(file: Path) -> RunConfig:
    """The run that a JSON file defines: a run's `config.json`, or a sweep's `best.json`.

    Raises:
        ValueError: If it is none, damaged or out of range.
    """
    try:
        fields, _ = unsealed(read_text(file, MAX_BYTES))
        return run_of(fields)
    except OSError as error:
        raise ValueError(f"{str(file)!r} can't be read ({reason(error)}): name the JSON file of a run") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = reason(error) if type(error) is ValueError else repr(error)
        raise ValueError(f"{str(file)!r} defines no run, or is damaged ({why}): name the JSON file of a run") from None


def run_of(fields: dict[str, Any]) -> RunConfig:
    """A run of what JSON holds of it.

    Raises:
        ValueError: If a field of its parts is not known, or out of its range.
        TypeError: If other fields are there, or not all.
        KeyError: If it lacks its algorithm or a part.
    """
    learner = algorithm(fields["algorithm"])
    kinds = {"config": learner.config, "hparams": learner.hparams}
    return RunConfig(**{**fields, **{part: _made(part, kind, fields[part]) for part, kind in kinds.items()}})


def _made(part: str, kind: Any, values: dict[str, Any]) -> Any:
    """A `Config` or `HParams` of what JSON holds of it. A field that it does not name may be younger than the file: its
    default holds, and a warning says so.
    """
    known = {field.name: field.default for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - known):
        hint = did_you_mean(unknown[0], known)
        raise ValueError(f"{part} has no field {unknown[0]!r}: {hint}choose from {', '.join(known)}")
    for name in (name for name in known if name not in values):
        _log.warning("%s", f"config.json does not say {part}.{name}: {known[name]!r}, its default, is taken")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def as_arrays[T](hparams: T) -> T:
    """Hyper-parameters as arrays, so that other values of them never compile anew.

    Raises:
        ValueError: If one is out of its range; traced ones can't be checked.
    """
    check(hparams)
    with np.errstate(over="ignore"):  # of what may be infinite
        return jax.tree.map(lambda x: jnp.asarray(x, float), hparams)
