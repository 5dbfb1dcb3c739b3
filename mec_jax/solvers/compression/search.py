"""Random search and CMA-ES: what MQHOA is measured against."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from mec_jax.files import check_count
from mec_jax.solvers.compression.problem import Found, Problem, Space, energy, evaluate

__all__ = ["cma_es", "random_search"]


def random_search(space: Space, problem: Problem, key: Key[Array, ""], samples: int, at_once: int = 256) -> Found:
    """The best of so many points, each as likely.

    Args:
        space: The variables.
        problem: One.
        key: Of the search.
        samples: How many, static; whole blocks of `at_once` are looked at.
        at_once: Points in a block.
    """
    check_count("samples", samples)
    start = jnp.array(jnp.inf), jnp.zeros(space.variables(problem))

    def block(best: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        points = jax.random.uniform(key, (at_once, start[1].shape[0]))
        found = jax.vmap(lambda each: energy(space, problem, each))(points)
        least = jnp.argmin(found)
        better = found[least] < best[0]
        return (jnp.where(better, found[least], best[0]), jnp.where(better, points[least], best[1])), None

    (_, best), _ = jax.lax.scan(block, start, jax.random.split(key, -(-samples // at_once)))
    return evaluate(problem, space.strategy(problem, best))


def cma_es(
    space: Space,
    problem: Problem,
    seed: int,
    evaluations: int = 5000,
    start: Float[np.ndarray, " variable"] | None = None,
) -> Found:
    """CMA-ES of the package `cma`, on the host: a ruler from outside, one problem at a time.

    It ranks points by their energy alone, so that what is beyond the budget needs no other care.

    Args:
        space: The variables; at least two, as `cma` wants it.
        problem: One.
        seed: Of its generator, > 0.
        evaluations: At most.
        start: Where it starts, the middle of the cube if absent.

    Raises:
        ValueError: If `cma` is not installed, or there is one variable.
    """
    try:
        import cma
    except ImportError:
        raise ValueError("CMA-ES needs the package cma: pip install 'mec-jax[compress]'") from None
    size = space.variables(problem)
    if size < 2:
        raise ValueError(f"{space.name} has {size} variable: CMA-ES needs two")
    options = {"bounds": [0, 1], "seed": check_count("seed", seed), "maxfevals": evaluations, "verbose": -9}
    middle = np.full(size, 0.5) if start is None else np.asarray(start, float)
    search = cma.CMAEvolutionStrategy(middle, 0.3, options)
    best_energy, best = np.inf, middle
    while not search.stop():
        points = search.ask()
        found = np.asarray(_energies(space, problem, np.array(points)), float)
        search.tell(points, found.tolist())
        if found.min() < best_energy:
            best_energy, best = float(found.min()), points[int(found.argmin())]
    return jax.jit(lambda each: evaluate(problem, space.strategy(problem, each)))(jnp.asarray(best, float))


@partial(jax.jit, static_argnums=0)
def _energies(space: Space, problem: Problem, points: Float[Array, "point variable"]) -> Float[Array, " point"]:
    return jax.vmap(lambda each: energy(space, problem, each))(points)
