"""What policies of `MultiUEOffloading-v0` are measured against."""

import jax
from jaxtyping import Array, Key

from mec_jax.contracts import Column, Rulers, Solver
from mec_jax.envs.offloading import MultiUEOffloading, Params
from mec_jax.episodes import play_episodes
from mec_jax.solvers.offloading.plans import best_known, play_plan
from mec_jax.solvers.offloading.policies import baselines, static
from mec_jax.solvers.offloading.search import best_static
from mec_jax.solvers.policies import play_each

COLUMNS = (
    Column("ms/task", "latency", 1e3, 1, {"time saved": "task_latency", "by frames": "latency"}),
    Column("mJ/task", "energy", 1e3, 1, {"energy saved": "energy"}),
)
"""Measures in a table, and their savings against Local: time against its true time, and against its whole frames."""


def rulers(env: MultiUEOffloading, params: Params, keys: Key[Array, " episode"]) -> Rulers:
    """The baselines, the best static action and, if one is stored, the best known plan."""
    played = play_each(env, params, baselines(env), keys)
    action = best_static(env, params, jax.random.key(0)).action
    played["Best static"] = play_episodes(env, params, static, action, keys)
    known = best_known(env, params)
    if known is not None:
        played["Best known"] = play_plan(env, params, known.plan, keys[:1])
    return Rulers(played, zero="Random", one=list(played)[-1], reference="Local")


SOLVER = Solver(COLUMNS, baselines, rulers)
