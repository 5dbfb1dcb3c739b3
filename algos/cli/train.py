"""`mec-jax train`: a run from its first frame to its report."""

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from algos.algorithms import algorithm, algorithms, make_env
from algos.cli import stop
from algos.cli.console import console
from algos.cli.options import option
from algos.cli.shared import given, print_report, title
from mec_jax.contracts import preset_for
from mec_jax.files import check_folder
from mec_jax.registry import registered_envs, static_arguments

if TYPE_CHECKING:
    from algos.loop import Result
    from algos.runs import RunConfig, RunFolder
    from mec_jax.contracts import Trainer

DEFAULT_ENV = "MultiUEOffloading-v0"


@dataclass(frozen=True)
class Train:
    """Train, compare with the rulers, and leave curve, checkpoint and policy in a run folder."""

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
    seed: int = 0
    """Of everything random."""
    devices: int = 1
    """Devices that share the environments side by side. Those of a CPU are cores, which one device uses as well."""
    out: Path | None = None
    """Run folder; by default runs/ALGORITHM-SEED-TIME."""
    resume: Path | None = None
    """Run folder whose run goes on as if it had never been stopped; takes no other option."""

    def run(self) -> None:
        """Train and report."""
        from algos.runs import DEVICES, SEED, RunConfig

        if self.algorithm or self.resume is None:
            algorithm(self.algorithm)
        if self.resume is not None:
            train(None, self.resume)
            return
        SEED._replace(name="--seed").check(self.seed)
        DEVICES._replace(name="--devices").check(self.devices)
        if self.out is not None:
            check_folder(self.out, "--out")
        static = given(num_ues=self.num_ues, num_channels=self.num_channels, **_network(self.env, self.profile))
        static |= {name: _read(name, value) for name, value in self.static.items()}
        if self.env in registered_envs:
            static = static_arguments(self.env, **static)
        learner, given_here = algorithm(self.algorithm), dataclasses.asdict(self)  # to which `command` adds both parts
        config, hparams = learner.config(**given_here["config"]), learner.hparams(**given_here["hparams"])
        chosen = (self.algorithm, self.env, static, self.params, self.preset, self.seed, config, hparams, self.devices)
        run = RunConfig(*chosen)
        name = f"{self.algorithm}-seed{self.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
        train(run, self.out or Path("runs") / name)


def command(arguments: Sequence[str]) -> type[Train]:
    """The `train` command, whose defaults are those of the algorithm and preset that the arguments name.

    Raises:
        ValueError: If there is no such algorithm, environment or preset, or `--resume` has company.
    """
    _check_resume(arguments)
    name = next((argument for argument in arguments[1:2] if not argument.startswith("-")), algorithms()[0])
    learner = algorithm(name)
    preset = option(arguments, "--preset")
    if preset is None:
        env, _ = make_env(option(arguments, "--env") or DEFAULT_ENV, {}, {})
        preset = preset_for(learner.presets, env.traits)
    if preset not in learner.presets:
        raise ValueError(f"no preset {preset!r} of {name}: choose from {', '.join(learner.presets)}")
    defaults = learner.presets[preset]
    fields = [
        ("preset", str, field(default=preset)),
        ("config", *_taken(defaults.config)),
        ("hparams", *_taken(defaults.hparams)),
    ]
    made = dataclasses.make_dataclass("Train", fields, bases=(Train,), frozen=True)
    made.__doc__ = Train.__doc__
    return made


def _taken(defaults: Any) -> tuple[type, Any]:
    """Type and default of options that are taken as they are: `run` checks them, as tyro would frame an error."""
    kind: Any = type(defaults)
    unchecked = _unchecked(kind)
    return unchecked, field(default=unchecked(**dataclasses.asdict(defaults)))


@cache
def _unchecked(kind: Any) -> Any:
    where = ("__module__", "__qualname__", "__doc__", "__firstlineno__")  # tyro reads what a field means in the source
    about = {name: vars(kind)[name] for name in where if name in vars(kind)}
    return type(kind.__name__, (kind,), {**about, "__post_init__": lambda self: None})


def _check_resume(arguments: Sequence[str]) -> None:
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    others = [option for option in options if option not in ("--resume", "--help")]
    if "--resume" in options and others:
        raise ValueError(f"--resume takes all from the run's config.json: leave out {', '.join(others)}")


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


def train(run: "RunConfig | None", path: Path) -> None:
    """Train a new run, or if it is None the one in the folder from its newest checkpoint on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from algos import loop, runs

    is_new = run is not None
    if run is not None:
        _say_budget(run, _trainer(run))  # errors of use come before anything is written
    folder = runs.RunFolder(path, run)
    run = folder.run
    done = int(folder.rows[-1]["frames"]) if folder.rows else 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames  {task.fields[speed]}  return {task.fields[score]}"),
        TimeElapsedColumn(),
    )
    with _closing(folder, is_new):
        stop.last_words(f"`{runs.resume_command(path)}` goes on", folder.finish)
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=_trainer(run).num_frames, completed=done, speed="", score="")
            start: float | None = None

            def report(progress: loop.Progress) -> None:
                nonlocal start, done
                now = time.perf_counter()
                bar.update(
                    task,
                    description=run.algorithm,
                    completed=progress.frames,
                    total=progress.total_frames,
                    speed="" if start is None else f"{(progress.frames - done) / (now - start):,.0f}/s",
                    score=f"{progress.evaluation.episode_return.mean():.3f}",
                )
                start, done = now, progress.frames

            result = loop.train(run, folder, report)
            bar.update(task, description=run.algorithm)
        if start is None:
            console.print(f"the run had ended, after {result.frames} frames; its results are made again")
        with folder.writing():
            _report(run, result, path)
    console.print(
        f"in {path}: curve.png, policy.npz, checkpoints, metrics.csv, tensorboard, comparison.json, config.json"
    )


def _say_budget(run: "RunConfig", trainer: "Trainer") -> None:
    """Say what will be run, if it is not what was asked for."""
    asked = getattr(run.config, "num_frames", trainer.num_frames)
    if asked != trainer.num_frames:
        chunks = f"{trainer.num_chunks} chunk{'s' * (trainer.num_chunks > 1)}"
        console.print(
            f"{asked:,} frames asked: {trainer.num_frames:,} will be run, {chunks} of "
            f"{trainer.num_frames // trainer.num_chunks:,}; --config.updates-per-chunk makes them longer or shorter",
            soft_wrap=True,
        )


@contextmanager
def _closing(folder: "RunFolder", is_new: bool) -> Iterator[None]:
    """Close the folder; that of a new run which ends with an error before its first checkpoint is removed."""
    try:
        with closing(folder):
            yield
    except ValueError:
        if is_new and not folder.rows:
            folder.remove()
        raise


def _report(run: "RunConfig", result: "Result", path: Path) -> None:
    """Measure the policy, and write what the run leaves."""
    from algos.curves import plot_curves, read_curve
    from algos.export import export_policy
    from mec_jax.episodes import evaluation_keys, play_episodes
    from mec_jax.evaluation import compare
    from mec_jax.files import write_text

    with console.status("evaluating, and playing the rulers"):
        env, params = run.make_env()
        scenario, keys = env.evaluation_params(params), evaluation_keys(256)
        learner = algorithm(run.algorithm)
        policy = learner.make_policy(env, run.config, learner.deterministic)
        name = title(run.algorithm)
        played = play_episodes(env, scenario, policy, (result.learned, scenario), keys)
        comparison = compare(env, scenario, {name: [played]}, keys)
    print_report(comparison)
    write_text(path / "comparison.json", comparison.json())
    export_policy(path / "policy.npz", run, result.learned, result.frames, comparison.rows[name])
    plot_curves(path / "curve.png", {name: [read_curve(path)]}, comparison)


def _trainer(run: "RunConfig") -> "Trainer":
    env, _ = run.make_env()
    return algorithm(run.algorithm).make_trainer(env, run.config)
