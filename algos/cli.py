"""`mec-jax`: list, train, evaluate, export and render from the command line."""

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

ALGORITHMS = ("mahppo",)
BASELINES = ("local", "all-edge", "random", "best-static")

console = Console(width=None if sys.stdout.isatty() else 100)


@dataclass(frozen=True)
class List:
    """Show environments, algorithms, presets and DNN profiles."""

    def run(self) -> None:
        """Print them."""
        from algos.mahppo import PRESETS
        from mec_jax.profiles import bundled_profiles

        for title, names in (
            ("environments", mec_jax.registered_envs),
            ("algorithms", ALGORITHMS),
            ("presets of mahppo", PRESETS),
            ("profiles", bundled_profiles()),
        ):
            console.print(f"[bold]{title}[/]: {', '.join(names)}")


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained policy beside the baselines on the evaluation scenario."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run folder or an exported policy.npz."""
    episodes: int = 256
    """Episodes with fixed keys."""
    deterministic: bool = False
    """Take the likeliest action instead of a sample."""

    def run(self) -> None:
        """Play and print the table."""
        from algos import runs

        if self.episodes < 1:
            raise ValueError(f"--episodes is {self.episodes}: it must be at least 1")
        if self.path.is_dir():
            run, state = runs.load_run(self.path)
            actors = state.actors
        else:
            run, actors = runs.import_policy(self.path)
        _print_comparison(_compare(run, actors, self.episodes, self.deterministic))


@dataclass(frozen=True)
class Export:
    """Write the policy of a run folder as an .npz that needs NumPy alone."""

    path: Annotated[Path, tyro.conf.Positional]
    """A run folder."""
    out: Path = Path("policy.npz")
    """The file to write."""

    def run(self) -> None:
        """Write it."""
        from algos import runs

        run, state = runs.load_run(self.path)
        frames = int(state.update) * run.config.num_envs * run.config.rollout
        runs.export_policy(self.out, run, state.actors, frames, score={})
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
        given = {"num_ues": self.num_ues, "num_channels": self.num_channels, "profile": self.profile}
        return {name: value for name, value in given.items() if value is not None}

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
        from algos import mahppo, runs

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
        if path.is_dir():
            run, state = runs.load_run(path)
            actors = state.actors
        else:
            run, actors = runs.import_policy(path)
        env, _ = run.make_env()
        params = env.params(**{**run.env_params, **self.params})
        policy = mahppo.make_policy(env, run.config, self.deterministic)
        title = f"{run.algorithm.upper()}, preset {run.preset}, seed {run.seed}"
        return title, env, env.evaluation_params(params), policy, (actors, params.power_max)


def _frames(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, stop = text.partition(":")
    try:
        return int(first), int(stop or int(first) + 1)
    except ValueError:
        raise ValueError(f"--frames is {text!r}: it must be a frame, as 3, or frames A:B, as 3:5") from None


def _train_command(preset_name: str) -> type:
    """The `train` command, whose defaults are those of the preset."""
    from algos.mahppo import PRESETS, Config, HParams

    if preset_name not in PRESETS:
        raise ValueError(f"no preset {preset_name!r}: choose from {', '.join(PRESETS)}")
    default_config, default_hparams = PRESETS[preset_name]

    @dataclass(frozen=True)
    class Train:
        """Train, compare with the baselines, and leave curve, checkpoint and policy in a run folder."""

        algorithm: Annotated[str, tyro.conf.Positional] = ""
        """What to train with: mahppo."""
        env: str = "MultiUEOffloading-v0"
        """Environment id."""
        num_ues: int = 5
        """UEs."""
        num_channels: int = 2
        """Uplink channels."""
        profile: str = "resnet18"
        """DNN on the UEs: a bundled name or a JSON file."""
        params: dict[str, float] = field(default_factory=dict)
        """Environment numbers that differ from the defaults, e.g. `--params beta 0.1`."""
        preset: str = preset_name
        """Set of hyper-parameters: fast or reference (the authors' code)."""
        seed: int = 0
        """Of everything random."""
        out: Path | None = None
        """Run folder; by default runs/ALGORITHM-SEED-TIME."""
        resume: Path | None = None
        """Run folder whose run goes on as if it had never been stopped; takes no other option."""
        config: Config = default_config
        hparams: HParams = default_hparams

        def run(self) -> None:
            """Train and report."""
            from algos.runs import RunConfig

            if self.algorithm not in ALGORITHMS and (self.algorithm or self.resume is None):
                raise ValueError(f"no algorithm {self.algorithm!r}: choose from {', '.join(ALGORITHMS)}")
            if self.resume is not None:
                _train(None, self.resume)
                return
            if not 0 <= self.seed < 2**32:
                raise ValueError(f"--seed is {self.seed}: it must be from 0 to {2**32 - 1}")
            static = {"num_ues": self.num_ues, "num_channels": self.num_channels, "profile": self.profile}
            run = RunConfig(
                self.algorithm, self.env, static, self.params, self.preset, self.seed, self.config, self.hparams
            )
            name = f"{self.algorithm}-seed{self.seed}-{time.strftime('%Y%m%d-%H%M%S')}"
            _train(run, self.out or Path("runs") / name)

    return Train


def _train(run: Any, path: Path) -> None:
    """Train a new run, or if it is None the one in the folder from its newest checkpoint on."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from algos import mahppo, runs, training

    if run is not None:
        env, _ = run.make_env()
        mahppo.make_trainer(env, run.config)  # errors of use come before anything is written
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
            task = bar.add_task("compiling", total=run.config.num_frames, completed=done, speed="", score="")
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
        with console.status("evaluating, and searching for the best static action"):
            comparison = _compare(run, result.actors, episodes=256)
        _print_comparison(comparison)
        score = {key: value for key, value in comparison["MAHPPO"].items() if key != "terminated"}
        runs.write_text(path / "comparison.json", json.dumps(comparison, indent=2) + "\n")
        runs.export_policy(path / "policy.npz", run, result.actors, result.frames, score)
        curve = [(row["frames"], row["evaluation/episode_return"]) for row in folder.rows]
        _plot(path / "curve.png", curve, comparison)
    console.print(
        f"in {path}: curve.png, policy.npz, checkpoints, metrics.csv, tensorboard, comparison.json, config.json"
    )


def _compare(run: Any, actors: Any, episodes: int, deterministic: bool = False) -> dict[str, dict[str, Any]]:
    """Results of the policy and its rulers by name, each a mapping of metrics."""
    import jax
    import numpy as np

    from algos import mahppo
    from mec_jax.evaluation import bootstrap_interval, evaluation_keys, normalised_score, play_episodes
    from mec_jax.solvers.offloading import baselines, best_static, static
    from mec_jax.solvers.offloading_plans import best_known, play_plan

    env, params = run.make_env()
    scenario = env.evaluation_params(params)
    keys = evaluation_keys(episodes)
    policy = mahppo.make_policy(env, run.config, deterministic)
    played = {"MAHPPO": play_episodes(env, scenario, policy, (actors, params.power_max), keys)}
    for name, baseline in baselines(env).items():
        played[name] = play_episodes(env, scenario, baseline, scenario, keys)
    solution = best_static(env, scenario, jax.random.key(0))
    played["Best static"] = play_episodes(env, scenario, static, solution.action, keys)
    known = best_known(env, scenario)
    if known is not None:
        played["Best known"] = play_plan(env, scenario, known.plan, keys[:1])

    random, best = (float(played[name].episode_return.mean()) for name in ("Random", list(played)[-1]))
    local_time = float(np.mean(played["Local"].task_latency))
    rounded_time = float(np.mean(played["Local"].latency))
    local_energy = float(np.mean(played["Local"].energy))
    comparison = {}
    for name, result in played.items():
        returns = np.asarray(result.episode_return, float)
        latency, energy = float(np.mean(result.latency)), float(np.mean(result.energy))
        comparison[name] = {
            "return": float(returns.mean()),
            "return_interval": bootstrap_interval(returns, statistic=np.mean),
            "latency_ms": 1e3 * latency,
            "task_latency_ms": 1e3 * float(np.mean(result.task_latency)),
            "energy_mj": 1e3 * energy,
            "latency_saving": 1 - latency / local_time,
            "latency_saving_rounded": 1 - latency / rounded_time,
            "energy_saving": 1 - energy / local_energy,
            "score": float(normalised_score(returns.mean(), random, best)),
            "terminated": float(np.mean(result.terminated)),
        }
    return comparison


def _print_comparison(comparison: Mapping[str, Mapping[str, Any]]) -> None:
    ruler = list(comparison)[-1].lower()
    table = Table(
        title="Evaluation scenario: every UE at 50 m with 200 tasks",
        caption="Return with its 95 % interval over episodes. Saved: against Local, time\n"
        "against its true time per task (and against its time in whole frames).\n"
        f"Score: 0 = Random, 1 = {ruler}.",
        box=SIMPLE_HEAD,  # with the one below, all columns fit into 80 characters
        collapse_padding=True,
    )
    table.add_column("policy", min_width=len("Best static"))
    for header in ("return", "ms/task", "mJ/task", "time saved", "energy\nsaved", "score"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, row in comparison.items():
        low, high = row["return_interval"]
        unfinished = "" if row["terminated"] == 1 else f" ({1 - row['terminated']:.0%} cut off)"
        table.add_row(
            name + unfinished,
            f"{row['return']:.3f} ± {(high - low) / 2:.3f}",
            f"{row['latency_ms']:.1f}",
            f"{row['energy_mj']:.1f}",
            f"{row['latency_saving']:.0%} ({row['latency_saving_rounded']:.0%})",
            f"{row['energy_saving']:.0%}",
            f"{row['score']:.2f}",
        )
    console.print(table)


def _plot(path: Path, curve: Sequence[tuple[float, float]], comparison: Mapping[str, Mapping[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    frames, returns = zip(*curve, strict=True)
    axes.plot(frames, returns, label="MAHPPO, mean of 16 episodes")
    for i, name in enumerate(list(comparison)[:0:-1]):
        axes.axhline(comparison[name]["return"], color=f"C{i + 1}", linestyle="--", label=name)
    low = min(*returns, comparison["Local"]["return"])
    axes.set_ylim(max(low, 4 * comparison["Local"]["return"]) - 0.05, 0)
    axes.set_xlabel("environment frames")
    axes.set_ylabel("return on the evaluation scenario")
    axes.legend(loc="lower right")
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120)
    partial.replace(path)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `mec-jax`. Errors of use end it with one line and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        commands: dict[str, Any] = {"list": List, "evaluate": Evaluate, "export": Export, "render": Render}
        if arguments[:1] not in (["list"], ["evaluate"], ["export"], ["render"]):
            commands["train"] = _train_command(_preset(arguments))
            _check_resume(arguments)
        command = tyro.extras.subcommand_cli_from_dict(commands, prog="mec-jax", args=arguments)
        command.run()
    except (ValueError, OSError) as error:
        print(f"mec-jax: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("mec-jax: stopped", file=sys.stderr)
        sys.exit(130)


def _preset(arguments: Sequence[str]) -> str:
    for position, argument in enumerate(arguments):
        if argument == "--preset" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset=")
    return "fast"


def _check_resume(arguments: Sequence[str]) -> None:
    options = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    others = [option for option in options if option not in ("--resume", "--help")]
    if "--resume" in options and others:
        raise ValueError(f"--resume takes all from the run's config.json: leave out {', '.join(others)}")


if __name__ == "__main__":
    main()
