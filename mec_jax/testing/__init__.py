"""Conformance suites: whether an environment, its solver or an algorithm keeps what `mec_jax.contracts` asks.

    from mec_jax.testing import check_algorithm, check_env, check_solver

    check_env(MyEnvironment())
    check_solver(MyEnvironment())
    check_algorithm(ALGORITHM, MyEnvironment(), small_config)

Each returns nothing if all is well, and else raises a `ConformanceError` that names what is wrong and the mend. They
compile as little as they can: choose small statics all the same.
"""

from mec_jax.testing.algorithms import check_algorithm
from mec_jax.testing.common import ConformanceError
from mec_jax.testing.environments import check_env
from mec_jax.testing.solvers import check_solver

__all__ = ["ConformanceError", "check_algorithm", "check_env", "check_solver"]
