"""The options that define a run, whatever command makes something of it."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from algos.algorithms import algorithm, algorithms, make_env
from algos.cli.arguments import option
from algos.cli.shared import Compiling, given
from mec_jax.contracts import preset_for
from mec_jax.registry import registered_envs, static_arguments

if TYPE_CHECKING:
    from algos.run_config import RunConfig

DEFAULT_ENV = "MultiUEOffloading-v0"


@dataclass(frozen=True)
class RunOptions(Compiling):
    """What is run."""

    algorithm: Annotated[str, tyro.conf.Positional] = ""
    """What to train with; `mec-jax list` names them."""
    env: str = DEFAULT_ENV
    """Environment id, of the suite or of gymnax."""
    num_ues: int | None = None
    """UEs; by default 5."""
    num_channels: int | None = None
    """Uplink channels; by default 2."""
    profile: str | None = None
    """DNN on the UEs or devices: a bundled name or a JSON file; by default the environment's."""
    static: dict[str, str] = field(default_factory=dict)
    """Other arguments of the environment's constructor, e.g. `--static num_devices 20`."""
    params: dict[str, float] = field(default_factory=dict)
    """Environment numbers that differ from the defaults, e.g. `--params beta 0.1`."""
    preset: str = ""
    """Set of hyper-parameters; `mec-jax list` names them. By default what suits the environment."""
    frames: int | None = None
    """Budget of environment frames, in whole chunks of updates; by default the preset's."""
    seed: int = 0
    """Of everything random."""

    def chosen(self) -> "RunConfig":
        """The run that they define.

        Raises:
            ValueError: If something is not there, or out of its range.
        """
        from algos.run_config import SEED, new_run
        from mec_jax.files import check_count

        SEED._replace(name="--seed").check(self.seed)
        if self.frames is not None:
            check_count("--frames", self.frames)
        static = {name: _read(name, value) for name, value in self.static.items()}
        static |= given(num_ues=self.num_ues, num_channels=self.num_channels, **_network(self.env, self.profile))
        said = dataclasses.asdict(self)  # `with_parts` added both parts
        parts = {name: said[name] for name in ("params", "preset", "seed", "config", "hparams", "frames")}
        return new_run(self.algorithm, self.env, static=static, **parts)


def with_parts[O: RunOptions](kind: type[O], arguments: Sequence[str]) -> type[O]:
    """Options whose defaults are those of the algorithm and preset that the arguments name, and with each field of its
    Config and HParams; or those of the run in the file that `--from` names.

    Raises:
        ValueError: If there is no such algorithm, environment, preset or file.
    """
    source = option(arguments, "--from")
    if source is not None:
        from algos.run_config import read_run

        return _from(kind, read_run(Path(source)))
    name = next((argument for argument in arguments[1:2] if not argument.startswith("-")), algorithms()[0])
    learner = algorithm(name)
    preset = option(arguments, "--preset")
    if preset is None:
        env, _ = make_env(option(arguments, "--env") or DEFAULT_ENV, {}, {})
        preset = preset_for(learner.presets, env.traits)
    if preset not in learner.presets:
        raise ValueError(f"no preset {preset!r} of {name}: choose from {', '.join(learner.presets)}")
    defaults = learner.presets[preset]
    return _made(kind, {"preset": preset}, defaults.config, defaults.hparams)


def _from[O: RunOptions](kind: type[O], run: "RunConfig") -> type[O]:
    static = run.own_static
    defaults = {
        "algorithm": run.algorithm,
        "env": run.env_id,
        "static": {name: value if isinstance(value, str) else json.dumps(value) for name, value in static.items()},
        "params": run.env_params,
        "preset": run.preset,
        "seed": run.seed,
        "devices": run.devices,
    }
    known = {about.name for about in dataclasses.fields(kind)}
    defaults = {name: value for name, value in defaults.items() if name in known}
    return _made(kind, defaults, run.config, run.hparams)


def _made[O: RunOptions](kind: type[O], defaults: Mapping[str, Any], config: Any, hparams: Any) -> type[O]:
    types = {about.name: about.type for about in dataclasses.fields(kind)}
    fields: list[Any] = [
        (name, types[name], field(default_factory=value.copy) if isinstance(value, dict) else field(default=value))
        for name, value in defaults.items()
    ]
    fields += [("config", *_taken(config)), ("hparams", *_taken(hparams))]
    made = dataclasses.make_dataclass(kind.__name__, fields, bases=(kind,), frozen=True)
    made.__doc__ = kind.__doc__
    return made


def _taken(defaults: Any) -> tuple[type, Any]:
    """Type and default of options that are taken as they are: `chosen` checks them, as tyro would frame an error."""
    kind: Any = type(defaults)
    unchecked = _unchecked(kind)
    return unchecked, field(default=unchecked(**dataclasses.asdict(defaults)))


@cache
def _unchecked(kind: Any) -> Any:
    where = ("__module__", "__qualname__", "__doc__", "__firstlineno__")  # tyro reads what a field means in the source
    about = {name: vars(kind)[name] for name in where if name in vars(kind)}
    return type(kind.__name__, (kind,), {**about, "__post_init__": lambda self: None})


def _network(env_id: str, profile: str | None) -> dict[str, str | None]:
    """The profile under the name that the environment gives it."""
    known = static_arguments(env_id) if env_id in registered_envs else {}
    return {"network" if "network" in known else "profile": profile}


def _read(name: str, value: str) -> Any:
    """What a text says in JSON, such as a number, a truth value or a list; else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value
    except (ValueError, RecursionError):
        raise ValueError(f"--static {name} has too many digits or brackets: shorten it") from None
