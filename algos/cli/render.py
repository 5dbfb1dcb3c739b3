"""`mec-jax render`: a picture of an episode."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from algos.algorithms import algorithm
from algos.cli.console import console
from algos.cli.shared import Compiling, given, load, title
from mec_jax.contracts import Policy, Problem
from mec_jax.files import did_you_mean
from mec_jax.registry import find, make

BASELINES = ("local", "all-edge", "random", "best-static")


@dataclass(frozen=True)
class Render(Compiling):
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

        from algos.run_config import SEED
        from mec_jax.render import check_path

        check_path(self.out)
        frames = _frames(self.frames)
        SEED._replace(name="--seed").check(self.seed)
        name = self.policy.lower().replace("_", "-")
        episode = self._baseline(name) if name in BASELINES else self._trained()
        chart: Any = find(episode.env.chart)
        recording = chart.record(
            episode.env, episode.params, episode.policy, episode.policy_params, jax.random.key(self.seed)
        )
        with console.status("drawing"):
            chart.write(recording, self.out, frames, episode.title)
        console.print(f"episode: {self.out}")

    def _static(self) -> dict[str, Any]:
        return given(num_ues=self.num_ues, num_channels=self.num_channels, profile=self.profile)

    def _baseline(self, name: str) -> "_Episode":
        import jax

        from mec_jax.solvers.offloading import baselines, best_static, static

        if self.deterministic:
            raise ValueError("--deterministic is for trained policies: leave it out")
        env, _ = make("MultiUEOffloading-v0", **self._static())
        scenario = env.evaluation_params(env.params(**self.params))
        if name == "best-static":
            with console.status("searching for the best static action"):
                action = best_static(env, scenario, jax.random.key(0)).action
            return _Episode("Best static", env, scenario, static, action)
        return _Episode(name.capitalize(), env, scenario, baselines(env)[name.capitalize()], scenario)

    def _trained(self) -> "_Episode":
        path = Path(self.policy)
        if not os.path.exists(path):  # Path.exists raises an error over a name that is too long
            raise ValueError(
                f"no policy {self.policy!r}: {did_you_mean(self.policy, BASELINES)}Name a run folder, an exported "
                f"policy.npz, or one of {', '.join(BASELINES)}"
            )
        if static := self._static():
            options = ", ".join(f"--{name.replace('_', '-')}" for name in static)
            raise ValueError(f"{options}: a trained policy has its own; leave it out")
        run, learned = load(path)
        env, _ = run.make_env()
        if env.chart is None:
            raise ValueError(f"{path} is of {env.name}: there is no chart of its episodes")
        params = env.params(**{**run.env_params, **self.params})
        policy = algorithm(run.algorithm).make_policy(env, run.config, self.deterministic)
        name = f"{title(run.algorithm)}, preset {run.preset}, seed {run.seed}"
        return _Episode(name, env, env.evaluation_params(params), policy, (learned, params))


class _Episode(NamedTuple):
    """What is played."""

    title: str
    env: Problem
    params: Any
    policy: Policy
    policy_params: Any


def _frames(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, _, stop = text.partition(":")
    try:
        return int(first), int(stop or int(first) + 1)
    except ValueError:
        raise ValueError(f"--frames is {text!r}: it must be a frame, as 3, or frames A:B, as 3:5") from None
