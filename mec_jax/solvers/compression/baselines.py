"""The eight methods that Mu et al. 2024 compare with (section VI-B), and the joint search over all variables.

Those that search do it with the same optimizer, MQHOA, each in its own space (`SPACES`); the joint search's space has
all of theirs in it, and its first particles start at what they found. So with the same cuts no baseline is better.
"""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from mec_jax.solvers.compression.mqhoa import Config, best_of_restarts
from mec_jax.solvers.compression.problem import SPACES, Found, Problem, evaluate, plain

__all__ = ["BASELINES", "all_local", "all_server", "compare", "neurosurgeon"]

BASELINES = ("All_Local", "All_Server", "Neurosurgeon", *(name for name in SPACES if name != "Joint"))
"""The paper's names of the eight."""


def all_local(problem: Problem) -> Found:
    """The device runs the network as it was, whatever cuts are allowed."""
    return evaluate(problem, plain(problem, jnp.array(problem.costs.cuts.shape[0] - 1)))


def all_server(problem: Problem) -> Found:
    """The server runs the network as it was, whatever cuts are allowed."""
    return evaluate(problem, plain(problem, jnp.array(0)))


def neurosurgeon(problem: Problem) -> Found:
    """The best cut of the network as it was, among those that are allowed: exact, by trying them all."""
    cuts = jnp.arange(problem.costs.cuts.shape[0])
    found = jax.vmap(lambda cut: evaluate(problem, plain(problem, cut)))(cuts)
    allowed = (cuts >= problem.first_cut) & (cuts <= problem.last_cut)
    best = jnp.argmin(jnp.where(allowed, found.energy, jnp.inf))
    return jax.tree.map(lambda leaf: leaf[best], found)


@partial(jax.jit, static_argnames=("config", "restarts"))
def compare(
    problem: Problem, key: Key[Array, ""], config: Config | None = None, restarts: int = 16
) -> Mapping[str, Found]:
    """All eight baselines and the joint search, by name ("Joint"); `jax.vmap` with `PER_SCENARIO` makes scenarios.

    Where All_Local and All_Server lie outside the allowed cuts they may beat the joint search, as in the paper; where
    not, no baseline is better than it.

    Args:
        problem: One.
        key: Of all searches.
        config: Of MQHOA, static; the paper's if absent.
        restarts: Runs of MQHOA for each method, static.
    """
    config = config or Config()
    found = {"All_Local": all_local(problem), "All_Server": all_server(problem), "Neurosurgeon": neurosurgeon(problem)}
    keys = jax.random.split(key, len(SPACES))
    points = [_point_of_cut(problem, found["Neurosurgeon"])]
    for number, (name, space) in enumerate(SPACES.items()):
        if name != "Joint":
            run = best_of_restarts(space, config, problem, jax.random.split(keys[number], restarts))
            found[name] = run.best
            points.append(space.point(problem, run.variables))
    starts = jnp.stack(points)
    joint = best_of_restarts(SPACES["Joint"], config, problem, jax.random.split(keys[0], restarts), starts)
    # A run keeps the best it saw. With fewer restarts than starts some are not seen.
    seen = jax.vmap(lambda point: evaluate(problem, SPACES["Joint"].strategy(problem, point)))(starts)
    every = jax.tree.map(lambda one, others: jnp.concatenate([one[None], others]), joint.best, seen)
    best = jnp.argmin(every.energy)
    return found | {"Joint": jax.tree.map(lambda leaf: leaf[best], every)}


def _point_of_cut(problem: Problem, found: Found) -> Array:
    """The point of all variables where the network is as it was, cut as in what was found."""
    space, part = SPACES["FPGM"], problem.last_cut - problem.first_cut + 1
    cut = (found.strategy.cut - problem.first_cut + 0.5) / part
    return space.point(problem, jnp.stack([jnp.zeros(()), cut]))
