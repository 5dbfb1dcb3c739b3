"""What runs are worth: trained side by side, measured, and put on the scale of the rulers of their scenario."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from algos.run_config import RunConfig
from algos.sweep.lanes import Lanes, Outcome, devices, group
from algos.sweep.space import with_point
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import Scale, scale_of
from mec_jax.statistics import bootstrap_interval

__all__ = ["Result", "Runner", "Scorer", "result_of"]


class Result(NamedTuple):
    """What a run came to. All but `seconds` follows from the run."""

    score: float  # 0 at one ruler, 1 at the other; NaN where nothing rules the environment, and if it diverged
    score_low: float  # 95 % interval over episodes
    score_high: float
    episode_return: float  # mean over episodes of the evaluation scenario
    training_return: float  # mean over the episodes that ended in the last update; NaN if none did
    terminated: float  # share of episodes
    measures: dict[str, float]  # means over episodes
    frames: int  # environment frames
    seconds: float  # its share of the time of the program that ran it
    diverged: bool
    curve: tuple[tuple[int, float], ...]  # environment frames, mean return of the evaluation scenario

    @property
    def worth(self) -> float:
        """What it is ranked by: score, or where there is none return; NaN if it diverged."""
        return math.nan if self.diverged else self.score if math.isfinite(self.score) else self.episode_return


def problem_of(run: RunConfig) -> str:
    """What decides the scenario of a run."""
    return repr((run.env_id, sorted(run.env_static.items()), sorted(run.env_params.items())))


class Runner:
    """Trains and measures runs; keeps compiled programs and scales.

    Args:
        episodes: Of the evaluation scenario.
    """

    def __init__(self, episodes: int) -> None:
        self.episodes = episodes
        self._lanes: dict[tuple[str, str, str, int], Lanes] = {}
        self._scales: dict[str, Future[Scale | None]] = {}
        self._rulers = ThreadPoolExecutor(1)  # rulers are played while programs compile and run

    def lanes(self, run: RunConfig, most: int) -> Lanes:
        """The programs of a run's group."""
        # A CPU runs as many at once whatever there is; where a GPU's programs were made for fewer, others are made.
        count = 0 if devices()[0].platform == "cpu" else 1 << (most - 1).bit_length()
        key = (*group(run), count)
        if key not in self._lanes:
            self._lanes[key] = Lanes(run, self.episodes, max(most, count))
        return self._lanes[key]

    def scale(self, run: RunConfig) -> Scale | None:
        """Of a run's scenario."""
        return self._scale(run).result()

    def _scale(self, run: RunConfig) -> Future[Scale | None]:
        key = problem_of(run)
        if key not in self._scales:
            self._scales[key] = self._rulers.submit(_scale, run, self.episodes)
        return self._scales[key]

    def results(
        self, runs: Sequence[RunConfig], report: Callable[[float], None] = lambda done: None
    ) -> Iterator[list[tuple[int, Result]]]:
        """Results as they come, with the place of their run; after each call of a program.

        Args:
            runs: Of any groups.
            report: Called meanwhile with the number of runs done, parts of them included.
        """
        places: dict[tuple[str, str, str], list[int]] = {}
        for place, run in enumerate(runs):
            places.setdefault(group(run), []).append(place)
            self._scale(run)
        done = 0
        for members in places.values():
            lanes = self.lanes(runs[members[0]], len(members))
            lanes.compile()
            for first in range(0, len(members), lanes.size):
                now = members[first : first + lanes.size]

                def told(chunks: int, count: int = len(now), before: int = done, of: Lanes = lanes) -> None:
                    report(before + count * chunks / of.trainer.num_chunks)

                begin = time.perf_counter()
                outcomes = lanes([runs[place] for place in now], told)
                each = (time.perf_counter() - begin) / len(now)
                yield [
                    (place, result_of(outcome, self.scale(runs[place]), each))
                    for place, outcome in zip(now, outcomes, strict=True)
                ]
                done += len(now)


def _scale(run: RunConfig, episodes: int) -> Scale | None:
    env, params = run.make_env()
    return scale_of(env, env.evaluation_params(params), evaluation_keys(episodes))


def result_of(outcome: Outcome, scale: Scale | None, seconds: float) -> Result:
    """What a run came to, on the scale of its scenario.

    Args:
        outcome: Of the run.
        scale: Of its scenario.
        seconds: That it took.
    """
    episodes = outcome.episodes
    returns = np.asarray(episodes.episode_return, float)
    is_scored = scale is not None and not outcome.diverged
    low, high = bootstrap_interval(returns, statistic=np.mean) if is_scored else (math.nan, math.nan)
    score, low, high = (math.nan if scale is None else float(scale.score(x)) for x in (returns.mean(), low, high))
    means = {name: float(np.mean(np.asarray(column, float))) for name, column in episodes.columns().items()}
    return Result(
        score=score if is_scored else math.nan,
        score_low=low,
        score_high=high,
        episode_return=means.pop("episode_return"),
        training_return=outcome.training_return,
        terminated=means.pop("terminated"),
        measures={name: value for name, value in means.items() if name != "frames"},
        frames=int(outcome.frames[-1]),
        seconds=seconds,
        diverged=outcome.diverged,
        curve=tuple((int(frames), float(mean)) for frames, mean in zip(outcome.frames, outcome.curve, strict=True)),
    )


class Scorer:
    """`score(points) -> [point]`: mean score of each over seeds. Made by `scorer`."""

    def __init__(self, base: RunConfig, frames: int | None, seeds: Sequence[int], runner: Runner) -> None:
        self.base, self.frames, self.seeds, self.runner = base, frames, seeds, runner

    def runs(self, point: Mapping[str, Any]) -> list[RunConfig]:
        """The runs that a point stands for, one a seed."""
        return [with_point(self.base, {**point, "seed": seed}).within(self.frames) for seed in self.seeds]

    def __call__(self, points: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, " point"]:
        """Mean scores over seeds, or where nothing rules the environment mean returns; NaN of what diverged.

        Args:
            points: Values by name, such as `{"hparams.actor_lr": 1e-3}`; what is not named is the preset's.

        Raises:
            ValueError: If a field is not there or a value is out of its range.
        """
        runs = [run for point in points for run in self.runs(point)]
        worth = np.full(len(runs), np.nan)
        for found in self.runner.results(runs):
            for place, result in found:
                worth[place] = result.worth
        return worth.reshape(len(points), len(self.seeds)).mean(1)
