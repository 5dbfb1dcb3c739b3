"""The protocol: how a policy is measured, and how measurements of several runs are compared.

Episodes are played with fixed keys in the environment's evaluation scenario (`mec_jax.episodes`), beside its rulers.
Scores of several runs are summed up by `mec_jax.statistics`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Array, PyTree
from numpy.typing import ArrayLike

from mec_jax.contracts import Column, Episodes, Problem, Rulers, Solver
from mec_jax.episodes import PROTOCOL, PlainPolicy, evaluation_keys, play_episodes
from mec_jax.memory import check_episodes
from mec_jax.registry import find, make
from mec_jax.statistics import bootstrap_interval, interquartile_mean, normalised_score

__all__ = ["Report", "Scale", "compare", "evaluate", "scale_of", "solver_of"]


def solver_of(env: Problem) -> Solver | None:
    """What rules an environment, if anything does.

    Raises:
        TypeError: If what it names is no `Solver`.
    """
    solver = find(env.solver)
    if solver is not None and not isinstance(solver, Solver):
        raise TypeError(f"{env.name} names a solver {solver!r}: it must be a mec_jax.contracts.Solver")
    return solver


@dataclass(frozen=True)
class Scale:
    """What a return is worth in a scenario: 0 for one ruler, 1 for another."""

    zero: str  # names of rulers
    one: str
    at_zero: float  # their mean returns
    at_one: float

    def score(self, returns: ArrayLike) -> Any:
        """Of mean returns."""
        return normalised_score(returns, self.at_zero, self.at_one)


def scale_of(env: Problem, params: PyTree, keys: Array) -> Scale | None:
    """The scale of a scenario, None where nothing rules the environment or its rulers are worth the same.

    Args:
        env: The environment.
        params: The scenario.
        keys: Of the episodes that it is measured by.
    """
    solver = solver_of(env)
    scale = None if solver is None else _scale(solver.rulers(env, params, keys))
    return None if scale is None or scale.at_zero == scale.at_one else scale


def _scale(rulers: Rulers) -> Scale:
    zero, one = (float(_returns([rulers.episodes[name]])[0]) for name in (rulers.zero, rulers.one))
    return Scale(rulers.zero, rulers.one, zero, one)


@dataclass(frozen=True)
class Report:
    """What several policies are worth in one environment, beside its rulers.

    A row holds `runs` (training runs, 1 for what needs no learning), `return` (mean over runs and episodes) and
    `return_interval`, `score` (interquartile mean over runs) and `score_interval` where the environment has rulers,
    `terminated` (share of episodes), the means of all measures, and by the solver's columns the savings against
    the reference. Of its `actions`, all that were taken, `outside` is the number of those outside their space
    (`mec_jax.spaces.contains`), which the environments of the suite clip. Intervals are 95 % bootstrap intervals over
    runs or, of a single run, over its episodes.
    """

    env_id: str
    protocol: int
    episodes: int
    columns: tuple[Column, ...]
    rows: dict[str, dict[str, Any]]
    zero: str = ""  # row whose score is 0; nothing where there are no scores
    one: str = ""  # row whose score is 1
    bound: str | None = None  # row that no policy exceeds
    reference: str | None = None  # row that savings are counted against
    ruler_returns: Mapping[str, np.ndarray] = field(default_factory=dict)  # [episode], by ruler

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
        """How to read the table, and whose actions were outside their space."""
        ruler = f" Score: 0 = {self.zero}, 1 = {self.one}." if self._scored() else ""
        against = [f"{header}: {name}" for column in self.columns for header, name in column.savings.items()]
        saved = f" Saved against {self.reference}'s ({', '.join(against)})." if self.reference and against else ""
        outside = [f"{name} {row['outside']} of {row['actions']}" for name, row in self.rows.items() if row["outside"]]
        clipped = f" Actions outside their space: {', '.join(outside)}." if outside else ""
        return (
            f"{self.episodes} episodes, protocol {self.protocol}. Return with its 95 % interval, over runs if there "
            f"are several, else over episodes.{ruler}{saved}{clipped}"
        )

    def json(self) -> str:
        """All numbers."""
        about = {"env_id": self.env_id, "protocol": self.protocol, "episodes": self.episodes, "rows": self.rows}
        return json.dumps(about, indent=2) + "\n"

    def _scored(self) -> bool:
        return bool(self.one)


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
        ValueError: If there is no such environment, a policy's actions are of another shape or type, or so many
            episodes need more memory than the limit (`mec_jax.memory`).
    """
    env, default = make(env_id, **static)
    scenario = env.evaluation_params(default if params is None else params)
    check_episodes(env, episodes)
    keys = evaluation_keys(episodes)

    def play(policy: PlainPolicy) -> Episodes:
        return play_episodes(env, scenario, lambda nothing, observation, key: policy(observation, key), None, keys)

    runs = {name: policy if isinstance(policy, Sequence) else [policy] for name, policy in policies.items()}
    return compare(env, scenario, {name: [play(policy) for policy in group] for name, group in runs.items()}, keys)


def compare(env: Problem, params: PyTree, played: Mapping[str, Sequence[Episodes]], keys: Array) -> Report:
    """Report on episodes beside the environment's rulers, played with the same keys.

    Args:
        env: The environment; one without a solver has no rulers and no scores.
        params: The scenario.
        played: By name the episodes of one or several runs.
        keys: What they were played with.

    Raises:
        ValueError: If a name is that of a ruler, or a parameter is out of range.
    """
    env.params(**vars(params))
    solver = solver_of(env)
    rulers = None if solver is None else solver.rulers(env, params, keys)
    rows = {name: list(runs) for name, runs in played.items()}
    if rulers is not None:
        if taken := rows.keys() & rulers.episodes.keys():
            raise ValueError(f"a ruler of {env.name} is called {min(taken)!r}: give the policy another name")
        rows |= {name: [episodes] for name, episodes in rulers.episodes.items()}
    columns = () if solver is None else solver.columns
    table = {name: _row(runs) for name, runs in rows.items()}
    if rulers is not None:
        _add_scores(table, rows, rulers)
        _add_savings(table, columns, rulers)
    report = Report(env.name, PROTOCOL, len(keys), columns, table)
    if rulers is None:
        return report
    returns = {name: np.asarray(episodes.episode_return, float) for name, episodes in rulers.episodes.items()}
    report = replace(report, zero=rulers.zero, one=rulers.one, ruler_returns=returns)
    return replace(report, bound=rulers.bound, reference=rulers.reference)


def _returns(runs: Sequence[Episodes]) -> np.ndarray:
    return np.array([np.mean(run.episode_return) for run in runs], float)


def _row(runs: Sequence[Episodes]) -> dict[str, Any]:
    """Returns, their interval and the means of all measures."""
    samples = _returns(runs) if len(runs) > 1 else np.asarray(runs[0].episode_return, float)
    means = {
        column: float(np.mean([np.mean(np.asarray(run.columns()[column], float)) for run in runs]))
        for column in runs[0].columns()
    }
    interval = bootstrap_interval(samples, statistic=np.mean)
    counts = {
        "actions": int(sum(np.sum(run.frames) for run in runs)),
        "outside": int(sum(np.sum(run.outside) for run in runs)),
    }
    return {"runs": len(runs), "return": means.pop("episode_return"), "return_interval": interval, **counts, **means}


def _add_scores(table: dict[str, dict[str, Any]], rows: Mapping[str, Sequence[Episodes]], rulers: Rulers) -> None:
    scale = _scale(rulers)
    for name, runs in rows.items():
        scores = scale.score(_returns(runs))
        table[name]["score"] = float(interquartile_mean(scores))
        table[name]["score_interval"] = bootstrap_interval(scores)


def _add_savings(table: dict[str, dict[str, Any]], columns: Sequence[Column], rulers: Rulers) -> None:
    if rulers.reference is None:
        return
    reference = table[rulers.reference]
    for row in table.values():
        for column in columns:
            for header, measure in column.savings.items():
                row[header] = 1 - row[column.measure] / reference[measure]
