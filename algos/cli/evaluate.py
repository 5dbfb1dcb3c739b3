"""`mec-jax evaluate`: trained policies beside the rulers of their environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from algos.algorithms import algorithm
from algos.cli.console import console
from algos.cli.shared import Compiling, load, print_report, title
from mec_jax.contracts import Policy
from mec_jax.files import check_count, check_file, check_folder, write_text

MAX_EPISODES = 1_000_000
"""That one evaluation plays at once."""

MARKDOWN, JSON, PICTURE = "report.md", "report.json", "curves.png"


@dataclass(frozen=True)
class Evaluate(Compiling):
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
        from mec_jax.episodes import evaluation_keys, play_episodes
        from mec_jax.evaluation import compare
        from mec_jax.memory import check_episodes

        check_count("--episodes", self.episodes, most=MAX_EPISODES)
        if not self.paths:
            raise ValueError("name a run folder or an exported policy.npz, or several")
        if self.deterministic and self.sampled:
            raise ValueError("--deterministic and --sampled exclude each other: leave one out")
        if self.out is not None and check_folder(self.out, "--out").is_dir():
            for file in (MARKDOWN, JSON, PICTURE):
                check_file(self.out / file)
        keys = evaluation_keys(self.episodes)
        names: dict[tuple, str] = {}
        players: list[tuple[str, Any, Any, Policy, Any]] = []
        curves: dict[str, list[Any]] = {}
        first: tuple[Any, Any] | None = None
        for path in self.paths:
            run, learned = load(path)
            env, params = run.make_env()
            check_episodes(env, self.episodes)
            scenario = env.evaluation_params(params)
            problem = (run.env_id, run.env_static)
            if first is None:
                first, first_problem = (env, scenario), problem
            elif problem != first_problem or not _equal(scenario, first[1]):
                raise ValueError(
                    f"{path} is of another environment or scenario than {self.paths[0]}: evaluate it apart"
                )
            learner = algorithm(run.algorithm)
            deterministic = self.deterministic or (learner.deterministic and not self.sampled)
            same = (run.algorithm, run.preset, run.config, repr(run.hparams))  # all but the seed
            name = names.setdefault(same, self._name(run, names))
            policy = learner.make_policy(env, run.config, deterministic)
            players.append((name, env, scenario, policy, learned))
            if path.is_dir():
                curves.setdefault(name, []).append(read_curve(path))
        assert first is not None
        played: dict[str, list[Any]] = {}
        for name, env, scenario, policy, learned in players:  # only now: an error of any path comes before
            played.setdefault(name, []).append(play_episodes(env, scenario, policy, (learned, scenario), keys))
        with console.status("playing the rulers"):
            report = compare(*first, played, keys)
        print_report(report)
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            write_text(self.out / MARKDOWN, report.markdown())
            write_text(self.out / JSON, report.json())
            if curves:
                plot_curves(self.out / PICTURE, curves, report)
            console.print(f"report: {self.out}")

    def _name(self, run: Any, others: Mapping[tuple, str]) -> str:
        """Of a row: presets whose numbers were changed are told apart by a count."""
        if len(self.paths) == 1:
            return title(run.algorithm)
        name = f"{title(run.algorithm)}, {run.preset}"
        alike = sum(other.startswith(name) for other in others.values())
        return name if alike == 0 else f"{name} ({alike + 1})"


def _equal(x: Any, y: Any) -> bool:
    """Whether two sets of an environment's numbers are the same."""
    import jax
    import numpy as np

    leaves = jax.tree.leaves(x), jax.tree.leaves(y)
    return type(x) is type(y) and all(map(np.array_equal, *leaves))
