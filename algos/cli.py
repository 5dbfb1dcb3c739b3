"""`mec-jax`: list, train, evaluate and export from the command line."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

import mec_jax

ALGORITHMS = ("mahppo",)

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


def _train_command(preset_name: str) -> type:
    """The `train` command, whose defaults are those of the preset."""
    from algos.mahppo import PRESETS, Config, HParams

    if preset_name not in PRESETS:
        raise ValueError(f"no preset {preset_name!r}: choose from {', '.join(PRESETS)}")
    default_config, default_hparams = PRESETS[preset_name]

    @dataclass(frozen=True)
    class Train:
        """Train, compare with the baselines, and leave curve, checkpoint and policy in a run folder."""

        algorithm: Annotated[str, tyro.conf.Positional]
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
        config: Config = default_config
        hparams: HParams = default_hparams

        def run(self) -> None:
            """Train and report."""
            from algos.runs import RunConfig

            if self.algorithm not in ALGORITHMS:
                raise ValueError(f"no algorithm {self.algorithm!r}: choose from {', '.join(ALGORITHMS)}")
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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from algos import mahppo, runs, training

    env, _ = run.make_env()
    mahppo.make_trainer(env, run.config)  # errors of use come before anything is written
    folder = runs.RunFolder(path, run)
    curve: list[tuple[int, float]] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames  {task.fields[speed]}  return {task.fields[score]}"),
        TimeElapsedColumn(),
    )
    try:
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("compiling", total=run.config.num_frames, speed="", score="")
            start = time.perf_counter()

            def report(progress: training.Progress) -> None:
                nonlocal start
                now = time.perf_counter()
                frames = progress.frames - (curve[-1][0] if curve else 0)
                score = float(progress.evaluation.episode_return.mean())
                curve.append((progress.frames, score))
                bar.update(
                    task,
                    description=run.algorithm,
                    completed=progress.frames,
                    total=progress.total_frames,
                    speed=f"{frames / (now - start):,.0f}/s" if len(curve) > 1 else "",
                    score=f"{score:.3f}",
                )
                start = now

            result = training.train(run, folder, report)
    finally:
        folder.close()
    if not curve:
        console.print(f"stopped before the first checkpoint; {path} holds the configuration only")
        return
    if result.interrupted:
        console.print(f"stopped at {result.frames} frames; the last checkpoint is kept")
    with console.status("evaluating, and searching for the best static action"):
        comparison = _compare(run, result.actors, episodes=256)
    _print_comparison(comparison)
    score = {key: value for key, value in comparison["MAHPPO"].items() if key != "terminated"}
    runs.write_text(path / "comparison.json", json.dumps(comparison, indent=2) + "\n")
    runs.export_policy(path / "policy.npz", run, result.actors, result.frames, score)
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

    env, params = run.make_env()
    scenario = env.evaluation_params(params)
    keys = evaluation_keys(episodes)
    policy = mahppo.make_policy(env, run.config, deterministic)
    played = {"MAHPPO": play_episodes(env, scenario, policy, (actors, params.power_max), keys)}
    for name, baseline in baselines(env).items():
        played[name] = play_episodes(env, scenario, baseline, scenario, keys)
    solution = best_static(env, scenario, jax.random.key(0))
    played["Best static"] = play_episodes(env, scenario, static, solution.action, keys)

    random, best = (float(played[name].episode_return.mean()) for name in ("Random", "Best static"))
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
    table = Table(
        title="Evaluation scenario: every UE at 50 m with 200 tasks",
        caption="Return with its 95 % interval over episodes. Saved: against Local, time\n"
        "against its true time per task (and against its time in whole frames).\n"
        "Score: 0 = Random, 1 = best static joint action.",
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


def _plot(path: Path, curve: Sequence[tuple[int, float]], comparison: Mapping[str, Mapping[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    frames, returns = zip(*curve, strict=True)
    axes.plot(frames, returns, label="MAHPPO, mean of 16 episodes")
    for i, name in enumerate(("Best static", "Local", "All-edge", "Random")):
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
        commands: dict[str, Any] = {"list": List, "evaluate": Evaluate, "export": Export}
        if arguments[:1] not in (["list"], ["evaluate"], ["export"]):
            commands["train"] = _train_command(_preset(arguments))
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


if __name__ == "__main__":
    main()
