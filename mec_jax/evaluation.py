"""The protocol: how a policy is measured, and how measurements of several runs are compared.

Episodes are played with fixed keys, usually in the environment's evaluation scenario. Scores of several runs
are summed up by the interquartile mean with a bootstrap interval (Agarwal et al. 2021, "Deep Reinforcement
Learning at the Edge of the Statistical Precipice").
"""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree
from numpy.typing import ArrayLike
from scipy import stats

import mec_jax
from mec_jax.solvers import solver_of

PROTOCOL = 1
"""Version of the protocol: of scenarios (`env.evaluation_params`), keys and statistics. Scores of different versions do
not compare.
"""

EVALUATION_SEED = 2022
"""Seed of `evaluation_keys`."""

_BLOCK = 2**22
"""Scores the bootstrap holds at once."""


class Policy(Hashable, Protocol):
    """Plays one episode, unbatched. It is compiled once per object: keep it, and vary `policy_params`."""

    def __call__(self, policy_params: PyTree, observation: Array, key: Array, /) -> Any:
        """Action for the observation."""


type PlainPolicy = Callable[[Array, Array], Any]
"""`policy(observation, key) -> action` of one episode."""


class Episodes(NamedTuple):
    """What whole episodes cost. `episodes.latency` is short for `episodes.measures["latency"]`."""

    episode_return: Float[Array, " episode"]  # sum of rewards, undiscounted
    frames: Int[Array, " episode"]
    terminated: Bool[Array, " episode"]  # the problem came to its end; if not, the costs are of a part
    measures: dict[str, Array]  # [episode] each: what `env.measures` says, if the environment has that

    def __getattr__(self, name: str) -> Array:
        if isinstance(self.measures, dict) and name in self.measures:
            return self.measures[name]
        raise AttributeError(f"episodes have no {name!r}: choose from {', '.join(Episodes._fields)} or a measure")

    def columns(self) -> dict[str, Array]:
        """All of it by name."""
        return {
            "episode_return": self.episode_return,
            "frames": self.frames,
            "terminated": self.terminated,
            **self.measures,
        }


def evaluation_keys(num_episodes: int) -> Array:
    """Keys `[episode]` of the protocol; more episodes extend fewer."""
    key = jax.random.key(EVALUATION_SEED, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(num_episodes))


@partial(jax.jit, static_argnames=("env", "policy"))
def play_episodes(env: Any, params: Any, policy: Policy, policy_params: PyTree, keys: Array) -> Episodes:
    """Play one whole episode per key, all at once, to termination or truncation.

    An episode depends on its key alone, not on those beside it. (To float tolerance: another batch size
    changes the order of float sums, and that can in rare cases move an event over the end of a frame.)

    Args:
        env: An environment of the suite or of gymnax; static.
        params: Its parameters; traced.
        policy: `(policy_params, observation, key) -> action` of one episode; static.
        policy_params: What the policy reads; traced.
        keys: Typed keys `[episode]`, e.g. `evaluation_keys(16)`.
    """
    return jax.vmap(lambda key: play_episode(env, params, policy, policy_params, key))(keys)


def play_episode(
    env: Any,
    params: Any,
    policy: Policy,
    policy_params: PyTree,
    key: Array,
    goes_on: Callable[[Episodes], Bool[Array, ""]] | None = None,
) -> Episodes:
    """Play one whole episode; `play_episodes` for one key, to be mapped and compiled by the caller.

    Args:
        env: As in `play_episodes`.
        params: As in `play_episodes`.
        policy: As in `play_episodes`.
        policy_params: As in `play_episodes`.
        key: Key of the episode.
        goes_on: Ends the episode early when it turns false of the episode so far.
    """

    def unfinished(carry: tuple) -> Bool[Array, ""]:
        so_far, state = carry[0], carry[2]
        more = ~(so_far.terminated | env.is_truncated(state, params))
        return more if goes_on is None else more & goes_on(so_far)

    def frame(carry: tuple) -> tuple:
        so_far, observation, state, key = carry
        key, policy_key, step_key = jax.random.split(key, 3)
        action = policy(policy_params, observation, policy_key)
        observation, state, reward, terminated, info = env.step_env(step_key, state, action, params)
        frames = so_far.frames + 1
        so_far = Episodes(so_far.episode_return + reward, frames, terminated, _measures(env, info, frames, params))
        return so_far, observation, state, key

    key, reset_key = jax.random.split(key)
    observation, state = env.reset_env(reset_key, params)
    shapes = jax.eval_shape(lambda start: frame(start)[0], (_NOTHING, observation, state, key))
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.while_loop(unfinished, frame, (nothing, observation, state, key))[0]


_NOTHING = Episodes(jnp.zeros(()), jnp.zeros((), jnp.int32), jnp.zeros((), bool), {})


def _measures(env: Any, info: dict[str, Array], frames: Int[Array, ""], params: Any) -> dict[str, Array]:
    return env.measures(info, frames, params) if hasattr(env, "measures") else {}


class Column(NamedTuple):
    """A measure in a table."""

    header: str
    measure: str
    scale: float = 1.0  # from the measure's unit to the header's
    digits: int = 1  # after the point
    savings: Mapping[str, str] = MappingProxyType({})  # header of 1 - measure / Local's: which measure of Local


@dataclass(frozen=True)
class Report:
    """What several policies are worth in one environment, beside its rulers.

    A row holds `runs` (training runs, 1 for what needs no learning), `return` (mean over runs and episodes) and
    `return_interval`, `score` (interquartile mean over runs) and `score_interval` where the environment has rulers,
    `terminated` (share of episodes), the means of all measures, and by `COLUMNS` of the solvers the savings against
    Local. Intervals are 95 % bootstrap intervals over runs or, of a single run, over its episodes.
    """

    env_id: str
    protocol: int
    episodes: int
    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Any]]

    def headers(self) -> list[str]:
        """Of `cells`."""
        named = ["policy", "return"]
        for column in self.columns:
            named += [column.header, *column.savings]
        return [*named, *(["score"] if self._scored() else [])]

    def cells(self, name: str) -> list[str]:
        """A row as a table shows it."""
        row = self.rows[name]
        runs = f", {row['runs']} runs" if row["runs"] > 1 else ""
        # Where no episode ever terminates, truncation is the end that is meant.
        ends = any(other["terminated"] > 0 for other in self.rows.values())
        cut_off = f" ({1 - row['terminated']:.0%} cut off)" if ends and row["terminated"] < 1 else ""
        low, high = row["return_interval"]
        cells = [name + runs + cut_off, f"{row['return']:.3f} ± {(high - low) / 2:.2f}"]
        for column in self.columns:
            cells.append(f"{column.scale * row[column.measure]:.{column.digits}f}")
            cells += [f"{row[header]:.0%}" for header in column.savings]
        if self._scored():
            spread = "[{:.3f}, {:.3f}]".format(*row["score_interval"])
            digits = 0 if abs(row["score"]) >= 100 else 3 if row["runs"] > 1 else 2
            cells.append(f"{row['score']:.{digits}f}" + (f" {spread}" if row["runs"] > 1 else ""))
        return cells

    def table(self) -> list[str]:
        """Lines of the table in Markdown."""
        lines = [f"| {' | '.join(self.headers())} |", "|---" * len(self.headers()) + "|"]
        return lines + [f"| {' | '.join(self.cells(name))} |" for name in self.rows]

    def markdown(self) -> str:
        """A page with the table."""
        return "\n".join([f"# {self.env_id}", "", *self.table(), "", self.caption(), ""])

    def caption(self) -> str:
        """How to read the table."""
        ruler = f" Score: 0 = Random, 1 = {list(self.rows)[-1]}." if self._scored() else ""
        return (
            f"{self.episodes} episodes, protocol {self.protocol}. Return with its 95 % interval, over runs if there "
            f"are several, else over episodes.{ruler}"
        )

    def json(self) -> str:
        """All numbers."""
        about = {"env_id": self.env_id, "protocol": self.protocol, "episodes": self.episodes, "rows": self.rows}
        return json.dumps(about, indent=2) + "\n"

    def _scored(self) -> bool:
        return all("score" in row for row in self.rows.values())


def evaluate(
    env_id: str,
    policies: Mapping[str, PlainPolicy | Sequence[PlainPolicy]],
    episodes: int = 256,
    params: Any = None,
    **static: Any,
) -> Report:
    """Measure policies beside the rulers of an environment, by the protocol.

    Args:
        env_id: Id of an environment of the suite.
        policies: By name `policy(observation, key) -> action` of one episode, in JAX; or several, one a training run.
        episodes: Episodes each plays.
        params: The environment's parameters; the defaults if None. Its evaluation scenario is played.
        **static: Arguments of the environment's constructor.

    Raises:
        ValueError: If there is no such environment.
    """
    env, default = mec_jax.make(env_id, **static)
    scenario = env.evaluation_params(default if params is None else params)
    keys = evaluation_keys(episodes)

    def play(policy: PlainPolicy) -> Episodes:
        return play_episodes(env, scenario, lambda nothing, observation, key: policy(observation, key), None, keys)

    runs = {name: policy if isinstance(policy, Sequence) else [policy] for name, policy in policies.items()}
    return compare(env, scenario, {name: [play(policy) for policy in group] for name, group in runs.items()}, keys)


def compare(env: Any, params: Any, played: Mapping[str, Sequence[Episodes]], keys: Array) -> Report:
    """Report on episodes beside the environment's rulers, played with the same keys.

    Args:
        env: The environment; one that is not of this suite has no rulers and no scores.
        params: The scenario.
        played: By name the episodes of one or several runs.
        keys: What they were played with.
    """
    solver = solver_of(env)
    rows = {name: list(runs) for name, runs in played.items()}
    if solver is not None:
        rows |= {name: [episodes] for name, episodes in solver.rulers(env, params, keys).items()}
    columns = solver.COLUMNS if solver is not None else ()
    returns = {name: np.array([np.mean(run.episode_return) for run in runs], float) for name, runs in rows.items()}
    table: dict[str, dict[str, Any]] = {}
    for name, runs in rows.items():
        several = len(runs) > 1
        samples = returns[name] if several else np.asarray(runs[0].episode_return, float)
        means = {
            column: float(np.mean([np.mean(np.asarray(run.columns()[column], float)) for run in runs]))
            for column in runs[0].columns()
        }
        row: dict[str, Any] = {
            "runs": len(runs),
            "return": means.pop("episode_return"),
            "return_interval": bootstrap_interval(samples, statistic=np.mean),
            **means,
        }
        if solver is not None:
            zero, one = (float(returns[ruler][0]) for ruler in ("Random", list(rows)[-1]))
            scores = normalised_score(returns[name], zero, one)
            row["score"] = float(interquartile_mean(scores))
            row["score_interval"] = bootstrap_interval(scores)
        table[name] = row
    for row in table.values():
        for column in columns:
            for header, measure in column.savings.items():
                row[header] = 1 - row[column.measure] / table["Local"][measure]
    return Report(env.name, PROTOCOL, len(keys), columns, table)


def interquartile_mean(x: ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half of `x`: steadier than the mean, less wasteful than the median."""
    return stats.trim_mean(x, 0.25, axis=axis)


def bootstrap_interval(
    scores: Float[np.ndarray, "run *task"],
    statistic: Callable[..., Any] = interquartile_mean,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Stratified percentile bootstrap interval of a statistic of all scores.

    Stratified: the runs are resampled within each task, the tasks are fixed.

    Args:
        scores: `[run, task]`, or `[run]` for one task.
        statistic: NumPy function of an array and its `axis`.
        level: Probability to cover the true value; in truth it is less for a handful of runs.
        resamples: Number of bootstrap samples.
        seed: Of the generator: the same arguments give the same interval.

    Raises:
        ValueError: If there are no scores or they have another number of axes.
    """
    table = _run_by_task(scores)
    generator = np.random.default_rng(seed)
    values: list[Any] = []
    block = max(1, _BLOCK // table.size)
    for start in range(0, resamples, block):
        run = generator.integers(len(table), size=(min(block, resamples - start), *table.shape))
        sample = np.take_along_axis(table[None], run, axis=1)
        values.extend(statistic(sample.reshape(len(run), -1), axis=-1))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def probability_of_improvement(x: Float[np.ndarray, "run *task"], y: Float[np.ndarray, "run *task"]) -> float:
    """Probability that a run of `x` beats one of `y` on the same task, ties counting half; mean over tasks.

    Args:
        x: Scores `[run, task]` or `[run]`, higher is better.
        y: Scores of the other algorithm; it may have another number of runs.

    Raises:
        ValueError: If there are no scores, or not of the same tasks.
    """
    x, y = _run_by_task(x), _run_by_task(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"scores of {x.shape[1]} and {y.shape[1]} tasks: both must have the same tasks")
    difference = x[:, None] - y[None]
    return float(np.mean((1 + np.sign(difference)) / 2))


def normalised_score(value: ArrayLike, random: ArrayLike, bound: ArrayLike) -> Any:
    """`(value - random) / (bound - random)`: 0 for the random policy, 1 for the best known one."""
    value, random, bound = (np.asarray(x, float) for x in (value, random, bound))
    return (value - random) / (bound - random)


def summary(episodes: Episodes) -> dict[str, dict[str, float]]:
    """Sum up each column of `episodes`: `mean`, `iqm`, and its 95 % bootstrap interval from `low` to `high`.

    The interval is over the episodes of one policy. That of an algorithm needs several training runs.
    """
    metrics = {}
    for name, column in episodes.columns().items():
        values = np.asarray(column, float)
        low, high = bootstrap_interval(values)
        iqm = float(interquartile_mean(values))
        metrics[name] = {"mean": float(values.mean()), "iqm": iqm, "low": low, "high": high}
    return metrics


def _run_by_task(scores: ArrayLike) -> Float[np.ndarray, "run task"]:
    table = np.asarray(scores, float)
    if table.ndim not in (1, 2) or table.size == 0:
        raise ValueError(f"scores of shape {table.shape}: they must be [run] or [run, task] and not empty")
    return table.reshape(len(table), -1)
