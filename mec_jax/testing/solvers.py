"""Whether a solver keeps what `mec_jax.contracts.Solver` asks."""

import copy
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from mec_jax.contracts import Problem, Rulers, Solver
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import solver_of
from mec_jax.testing.common import check_decisions, random_play, require, works

REWARD_ROUNDINGS = 1000
"""A reward is itself a sum, over devices and pieces, and a bound is summed in another order than the episode."""


def check_solver(env: Problem, params: PyTree = None, episodes: int = 16) -> None:
    """Check the solver of an environment: its policies, its rulers and their order, and that its bound is one.

    Args:
        env: The environment.
        params: Its parameters; the defaults if None. Its evaluation scenario is played.
        episodes: Episodes of each ruler.

    Raises:
        ConformanceError: If something is wrong; the message names it and the mend.
    """
    with works(f"{env.name}.solver", 'It is a Solver, or "module:NAME" of one'):
        solver = solver_of(env)
    if solver is None:
        require(False, f"{env.name} has no solver: let its `solver` be a mec_jax.contracts.Solver")
        return
    scenario = env.evaluation_params(params)
    _check_baselines(env, solver, scenario)
    with works(f"rulers of {env.name}", "They take (environment, scenario, keys [episode])"):
        rulers = solver.rulers(env, scenario, evaluation_keys(episodes))
    _check_names(env, solver, rulers)
    _check_order(env, rulers)


def _check_baselines(env: Problem, solver: Solver, scenario: PyTree) -> None:
    """They are kept for equal environments, and their actions are allowed."""
    baselines = solver.baselines(env)
    require(baselines, f"{env.name} has no baselines: give it at least a random policy")
    again = solver.baselines(copy.deepcopy(env))
    for name, policy in baselines.items():
        require(
            again.get(name) is policy,
            f"baseline {name!r} of {env.name} is made anew for an equal environment, and compiles anew: put "
            "functools.cache on `baselines`",
        )
    played = random_play(env, scenario)
    observations = played.observation.reshape(-1, played.observation.shape[-1])
    keys = jax.random.split(jax.random.key(1), len(observations))

    @jax.jit
    def decide(params: PyTree) -> Mapping[str, PyTree]:
        def all_of(observation: jax.Array, key: jax.Array) -> Mapping[str, PyTree]:
            return {name: policy(params, observation, key) for name, policy in baselines.items()}

        return jax.vmap(all_of)(jnp.asarray(observations), keys)

    with works(f"baselines of {env.name}", "They take (parameters, observation, key) and return an action"):
        decided = decide(scenario)
    for name in baselines:
        check_decisions(env, scenario, observations, decided[name], f"baseline {name!r} of {env.name}")


def _check_names(env: Problem, solver: Solver, rulers: Rulers) -> None:
    """Rulers name their own rows, columns their measures; all is finite."""
    rows = rulers.episodes
    for role in ("zero", "one", "bound", "reference"):
        row = getattr(rulers, role)
        require(
            row in rows or (row is None and role in ("bound", "reference")),
            f"rulers of {env.name}: {role} is {row!r}, none of their rows {', '.join(rows)}: name one",
        )
    measures = set(rows[rulers.zero].measures)
    for name, episodes in rows.items():
        require(
            set(episodes.measures) == measures,
            f"ruler {name!r} of {env.name} has other measures than {rulers.zero!r}: "
            f"{', '.join(sorted(set(episodes.measures) ^ measures))}. Let all have those of `Problem.measures`",
        )
        for column, values in episodes.columns().items():
            numbers = np.asarray(values)
            require(
                numbers.ndim == 1 and len(numbers) == len(episodes.episode_return) and np.isfinite(numbers).all(),
                f"{column} of ruler {name!r} of {env.name} is no finite number for each episode",
            )
    known = {*measures, "frames", "terminated"}
    for named in solver.columns:
        for measure in (named.measure, *named.savings.values()):
            require(
                measure in known,
                f"column {named.header!r} of {env.name} shows {measure!r}, which is no measure: choose from "
                f"{', '.join(sorted(known))}",
            )


def _check_order(env: Problem, rulers: Rulers) -> None:
    """Zero is below one, and nothing exceeds the bound."""
    returns = {name: np.asarray(episodes.episode_return, float) for name, episodes in rulers.episodes.items()}
    zero, one = (returns[name].mean() for name in (rulers.zero, rulers.one))
    require(
        zero <= one,
        f"rulers of {env.name}: {rulers.zero!r}, whose score is 0, returns {zero:g}, and {rulers.one!r}, whose score "
        f"is 1, {one:g}: swap them, or find a better one",
    )
    if rulers.bound is None:
        return
    bound = returns[rulers.bound]
    for name, played in returns.items():
        if len(played) != len(bound):  # of fewer episodes, which all are alike
            continue
        frames = np.asarray(rulers.episodes[name].frames)
        size = np.maximum(np.maximum(np.abs(played), np.abs(bound)), 1e-3)
        slack = (frames + REWARD_ROUNDINGS) * np.finfo(np.float32).eps * size
        worst = int(np.argmax(played - bound - slack))
        require(
            played[worst] <= bound[worst] + slack[worst],
            f"{name!r} of {env.name} returns {played[worst]:g} in episode {worst}, above the bound {bound[worst]:g}: "
            "either it is no bound, or it is of other episodes (take their keys from mec_jax.episodes)",
        )
