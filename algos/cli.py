"""`mec-jax`: list, train, evaluate, export, render and profile from the command line."""

import difflib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import mec_jax
from algos.algorithms import ALGORITHMS, algorithm, make_env, scenario_of
from mec_jax.split.cli import Profile

DEFAULT_ENV = "MultiUEOffloading-v0"
BASELINES = ("local", "all-edge", "random", "best-static")

console = Console(width=None if sys.stdout.isatty() else 100)


@dataclass(frozen=True)
class List:
    """Show environments, algorithms, presets and DNN profiles."""

    def run(self) -> None:
        """Print them."""
        from mec_jax.profiles import bundled_profiles
        from mec_jax.profiles.layers import NETWORKS
        from mec_jax.profiles.multi_exit import bundled_multi_exit_profiles

        for title, names in (
            ("environments", mec_jax.registered_envs),
            ("algorithms", ALGORITHMS),
            *((f"presets of {name}", algorithm(name).PRESETS) for name in ALGORITHMS),
            ("profiles", bundled_profiles()),
            ("multi-exit profiles", bundled_multi_exit_profiles()),
            ("networks by layers, for neurons and partition games", NETWORKS),
        ):
            console.print(f"[bold]{title}[/]: {', '.join(names)}")


@dataclass(frozen=True)
class Evaluate:
    """Measure trained policies beside the rulers of their environment, on its evaluation scenario."""

    paths: Annotated[list[Path], tyro.conf.Positional]
    """Run folders or exported policies, all of one environment. Runs that differ by their seed alone are summed up."""
    episodes: int = 256
    """Episodes with fixed keys."""
    deterministic: bool = False
    """Take the likeliest actions, by default of algorithms that are measured by them."""
    sampled: bool = False
    """Take samples."""
    out: Path | None = None
    """Folder for report.md, report.json and, of run folders, the learning curves."""

    def run(self) -> None:
        """Play and print the table."""
        from algos.curves import plot_curves, read_curve
        from algos.runs import write_text
        from mec_jax.evaluation import compare, evaluation_keys, play_episodes

        if self.episodes < 1:
            raise ValueError(f"--episodes is {self.episodes}: it must be at least 1")
        if not self.paths:
            raise ValueError("name a run folder or an exported policy.npz, or several")
        if self.deterministic and self.sampled:
            raise ValueError("--deterministic and --sampled exclude each other: leave one out")
        keys = evaluation_keys(self.episodes)
        names: dict[tuple, str] = {}
        played: dict[str, list[Any]] = {}
        curves: dict[str, list[Any]] = {}
        first: tuple[Any, Any] | None = None
        for path in self.paths:
            run, learned = _load(path)
            env, params = run.make_env()
            scenario = scenario_of(env, params)
            problem = (run.env_id, run.env_static)
            if first is None:
                first, first_problem = (env, scenario), problem
            elif problem != first_problem or not _equal(scenario, first[1]):
                raise ValueError(
                    f"{path} is of another environment or scenario than {self.paths[0]}: evaluate it apart"
                )
            learner = algorithm(run.algorithm)
            deterministic = self.deterministic or (learner.DETERMINISTIC and not self.sampled)
            same = (run.algorithm, run.preset, run.config, repr(run.hparams))  # all but the seed
            name = names.setdefault(same, self._name(run, names))
            policy = learner.make_policy(env, run.config, deterministic)
            played.setdefault(name, []).append(play_episodes(env, scenario, policy, (learned, scenario), keys))
            if path.is_dir():
                curves.setdefault(name, []).append(read_curve(path))
        assert first is not None
        with console.status("playing the rulers"):
            report = compare(*first, played, keys)
        _print_report(report)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(self.out / "report.md", report.markdown())
            write_text(self.out / "report.json", report.json())
            if curves:
                plot_curves(self.out / "curves.png", curves, report)
            console.print(f"report: {self.out}")

    def _name(self, run: Any, others: Mapping[tuple, str]) -> str:
        """Of a row: presets whose numbers were changed are told apart by a count."""
        if len(self.paths) == 1:
            return str(run.algorithm.upper().replace("_", "-"))
        name = f"{run.algorithm.upper().replace('_', '-')}, {run.preset}"
        alike = sum(other.startswith(name) for other in others.values())
        return name if alike == 0 else f"{name} ({alike + 1})"


@dataclass(frozen=True)
class Export:
    """Write the policy of a run folder as an .npz that needs NumPy alone."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    out: Path = Path("policy.npz")
    """The file to write."""

    def run(self) -> None:
        """Write it."""
        from algos import export, runs

        run, state = runs.load_run(self.path)
        frames = int(state.update) * runs.frames_per_update(run)
        export.export_policy(self.out, run, algorithm(run.algorithm).learned(state), frames, score={})
        console.print(f"policy: {self.out}")


@dataclass(frozen=True)
class Render:
    """Draw an episode of the evaluation scenario: who computes, who sends on which channel, and how fast."""

    policy: Annotated[str, tyro.conf.Positional]
    """A run folder, an exported policy.npz, or a baseline: local, all-edge, random, best-static."""
    out: Path = Path("episode.png")
    """Picture (.png, .pdf, .svg), or animation (.gif) that moves through the episode."""
    frames: str | None = None
    """What to show in detail: a frame A, counted from 0, or A:B up to before B. By default what is legible; in a .gif
    all."""
    seed: int = 0
    """Of all that is random in the episode."""
    deterministic: bool = False
    """Take a trained policy's likeliest action instead of a sample."""
    num_ues: int | None = None
    """UEs, for a baseline; by default 5."""
    num_channels: int | None = None
    """Uplink channels, for a baseline; by default 2."""
    profile: str | None = None
    """DNN on the UEs, for a baseline: a bundled name or a JSON file; by default resnet18."""
    params: dict[str, float] = field(default_factory=dict)
    """Environment numbers that differ from the defaults or, for a trained policy, from those of its run."""

    def run(self) -> None:
        """Play, draw and write."""
        import jax

        from mec_jax import render

        render.check_path(self.out)
        frames = _frames(self.frames)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed is {self.seed}: it must be from 0 to {2**32 - 1}")
        name = self.policy.lower().replace("_", "-")
        title, env, params, policy, policy_params = self._baseline(name) if name in BASELINES else self._trained()
        recording = render.record_episode(env, params, policy, policy_params, jax.random.key(self.seed))
        with console.status("drawing"):
            render.write_episode(recording, self.out, frames, title)
        console.print(f"episode: {self.out}")

    def _static(self) -> dict[str, Any]:
        return _given(num_ues=self.num_ues, num_channels=self.num_channels, profile=self.profile)

    def _baseline(self, name: str) -> tuple[str, Any, Any, Any, Any]:
        import jax

        from mec_jax.solvers.offloading import baselines, best_static, static

        if self.deterministic:
            raise ValueError("--deterministic is for trained policies: leave it out")
        env, _ = mec_jax.make("MultiUEOffloading-v0", **self._static())
        scenario = env.evaluation_params(env.params(**self.params))
        if name == "best-static":
            with console.status("searching for the best static action"):
                return "Best static", env, scenario, static, best_static(env, scenario, jax.random.key(0)).action
        title = name.capitalize()
        return title, env, scenario, baselines(env)[title], scenario

    def _trained(self) -> tuple[str, Any, Any, Any, Any]:
        from mec_jax.envs.offloading import MultiUEOffloading

        path = Path(self.policy)
        if not path.exists():
            close = difflib.get_close_matches(self.policy, BASELINES, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(
                f"no policy {self.policy!r}: {hint}Name a run folder, an exported policy.npz, or one of "
                f"{', '.join(BASELINES)}"
            )
        if given := self._static():
            options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ValueError(f"{options}: a trained policy has its own; leave it out")
        run, learned = _load(path)
        env, _ = run.make_env()
        if not isinstance(env, MultiUEOffloading):
            raise ValueError(f"{path} is of {env.name}: only episodes of MultiUEOffloading-v0 can be drawn")
        params = env.params(**{**run.env_params, **self.params})
        learner = algorithm(run.algorithm)
        policy = learner.make_policy(env, run.config, self.deterministic)
        title = f"{run.algorithm.upper().replace('_', '-')}, preset {run.preset}, seed {run.seed}"
        return title, env, env.evaluation_params(params), policy, (learned, params)


def _load(path: Path) -> tuple[Any, Any]:
    """Run and what its policy learned, from a run folder or an exported policy."""
    from algos import export, runs

    if not path.is_dir():
        return export.import_policy(path)
    run, state = runs.load_run(path)
    return run, algorithm(run.algorithm).learned(state)


def _equal(x: Any, y: Any) -> bool:
    """Whether two sets of an environment's numbers are the same."""
    import jax
    import numpy as np

    leaves = jax.tree.leaves(x), jax.tree.leaves(y)
    return type(x) is type(y) and all(map(np.array_equal, *leaves))


def _frames(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, stop = text.partition(":")
    try:
        return int(first), int(stop or int(first) + 1)
    except ValueError:
        raise ValueError(f"--frames is {text!r}: it must be a frame, as 3, or frames A:B, as 3:5") from None


def _train_command(algorithm_name: str, preset_name: str) -> type:
    """The `train` command, whose defaults are those of the algorithm and preset."""
    learner = algorithm(algorithm_name)
    if preset_name not in learner.PRESETS:
        raise ValueError(f"no preset {preset_name!r} of {algorithm_name}: choose from {', '.join(learner.PRESETS)}")
    default_config, default_hparams = learner.PRESETS[preset_name]

    @dataclass(frozen=True)
    class Train:
        """Train, compare with the rulers, and leave curve, checkpoint and policy in a run folder."""

        algorithm: Annotated[str, tyro.conf.Positional] = ""
        """What to train with: mahppo, ppo or drl_es."""
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
        preset: str = preset_name
        """Set of hyper-parameters; `mec-jax list` names them. By default what suits the environment."""
        seed: int = 0
        """Of everything random."""
        out: Path | None = None
        """Run folder; by default runs/ALGORITHM-SEED-TIME."""
        resume: Path | None = None
        """Run folder whose run goes on as if it had never been stopped; takes no other option."""
        config: learner.Config = default_config  # type: ignore[name-defined]
        hparams: learner.HParams = default_hparams  # type: ignore[name-defined]

        def run(self) -> None:
            """Train and report."""
            from algos.runs import RunConfig

            if self.algorithm or self.resume is None:
                algorithm(self.algorithm)
            if self.resume is not None:
                _train(None, self.resume)
                return
            if not 0 <= self.seed < 2**32:
                raise ValueError(f"--seed is {self.seed}: it must be from 0 to {2**32 - 1}")
            static = _given(num_ues=self.num_ues, num_channels=self.num_channels, **_network(self.env, self.profile))
            static |= {name: _read(value) for name, value in self.static.items()}
            if self.env in mec_jax.registered_envs:
                static = mec_jax.static_arguments(self.env, **static)
            run = RunConfig(
                self.algorithm, self.env, static, self.params, self.preset, self.seed, self.config, self.hparams
            )
            name = f"{self.algorithm}-seed{self.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
            _train(run, self.out or Path("runs") / name)

    return Train


def _network(env_id: str, profile: str | None) -> dict[str, str | None]:
    """The profile under the name that the environment gives it."""
    known = mec_jax.static_arguments(env_id) if env_id in mec_jax.registered_envs else {}
    return {"network" if "network" in known else "profile": profile}


def _read(value: str) -> Any:
    """A number or truth value if it is one, else the text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _train(run: Any, path: Path) -> None:
    """Train a new run, or if it is None the one in the folder from its newest checkpoint on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from algos import export, runs, training
    from algos.curves import plot_curves, read_curve
    from mec_jax.evaluation import compare, evaluation_keys, play_episodes

    if run is not None:
        _trainer(run)  # errors of use come before anything is written
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
    with closing(folder):
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=_trainer(run).num_frames, completed=done, speed="", score="")
            start: float | None = None

            def report(progress: training.Progress) -> None:
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

            result = training.train(run, folder, report)
            bar.update(task, description=run.algorithm)
        if not folder.rows:
            console.print(f"stopped before the first checkpoint; {path} holds the configuration only")
            return
        if result.interrupted:
            console.print(f"stopped at {result.frames} frames; `mec-jax train --resume {path}` goes on")
        elif start is None:
            console.print(f"the run had ended, after {result.frames} frames; its results are made again")
        with console.status("evaluating, and playing the rulers"):
            env, params = run.make_env()
            scenario, keys = scenario_of(env, params), evaluation_keys(256)
            learner = algorithm(run.algorithm)
            policy = learner.make_policy(env, run.config, learner.DETERMINISTIC)
            name = run.algorithm.upper().replace("_", "-")
            played = play_episodes(env, scenario, policy, (result.learned, scenario), keys)
            comparison = compare(env, scenario, {name: [played]}, keys)
        _print_report(comparison)
        runs.write_text(path / "comparison.json", comparison.json())
        export.export_policy(path / "policy.npz", run, result.learned, result.frames, comparison.rows[name])
        plot_curves(path / "curve.png", {name: [read_curve(path)]}, comparison)
    console.print(
        f"in {path}: curve.png, policy.npz, checkpoints, metrics.csv, tensorboard, comparison.json, config.json"
    )


def _trainer(run: Any) -> Any:
    env, _ = run.make_env()
    return algorithm(run.algorithm).make_trainer(env, run.config)


def _print_report(report: Any) -> None:
    table = Table(
        title=report.env_id,
        caption=report.caption(),
        box=SIMPLE_HEAD,  # with the one below, all columns fit into 80 characters
        collapse_padding=True,
        pad_edge=False,
    )
    names, *headers = report.headers()
    table.add_column(names, no_wrap=True)
    for header in headers:
        table.add_column(header.replace(" ", "\n"), justify="right", no_wrap=True)
    for name in report.rows:
        table.add_row(*report.cells(name))
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mec-jax`. Errors of use end it with one line and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        commands: dict[str, Any] = {
            "list": List,
            "evaluate": Evaluate,
            "export": Export,
            "render": Render,
            "profile": Profile,
        }
        if not arguments or arguments[0] not in commands:
            commands["train"] = _train_command(*_algorithm_and_preset(arguments))
            _check_resume(arguments)
        command = tyro.extras.subcommand_cli_from_dict(commands, prog="mec-jax", args=arguments)
        command.run()
    except (ValueError, OSError) as error:
        print(f"mec-jax: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mec-jax: stopped", file=sys.stderr)
        sys.exit(130)


def _algorithm_and_preset(arguments: Sequence[str]) -> tuple[str, str]:
    """What the defaults of `train` depend on."""
    name = next((argument for argument in arguments[1:2] if not argument.startswith("-")), ALGORITHMS[0])
    learner = algorithm(name)
    preset = _option(arguments, "--preset")
    if preset is None:
        env, _ = make_env(_option(arguments, "--env") or DEFAULT_ENV, {}, {})
        preset = learner.default_preset(env)
    return name, preset


def _option(arguments: Sequence[str], name: str) -> str | None:
    for position, argument in enumerate(arguments):
        if argument == name and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith(f"{name}="):
            return argument.removeprefix(f"{name}=")
    return None


def _check_resume(arguments: Sequence[str]) -> None:
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    others = [option for option in options if option not in ("--resume", "--help")]
    if "--resume" in options and others:
        raise ValueError(f"--resume takes all from the run's config.json: leave out {', '.join(others)}")


if __name__ == "__main__":
    main()
