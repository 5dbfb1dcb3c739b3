"""Rulers of `MultiExitAllocation-v0` and its variants: the exact joint optimum and the paper's baselines."""

from mec_jax.solvers.multi_exit.bounds import SwitchingPlan, bound, sum_over_devices, switching_optimum
from mec_jax.solvers.multi_exit.optimum import (
    CAPACITY,
    JointOptimum,
    Terms,
    cost_terms,
    host_optimum,
    joint_optima,
    joint_optimum,
    optimal_shares,
)
from mec_jax.solvers.multi_exit.policies import (
    baselines,
    equal_share_splits,
    oracle_policy,
    play_baselines,
    spinn_exits,
)
from mec_jax.solvers.multi_exit.rulers import COLUMNS, SOLVER, rulers

__all__ = [
    "CAPACITY",
    "COLUMNS",
    "SOLVER",
    "JointOptimum",
    "SwitchingPlan",
    "Terms",
    "baselines",
    "bound",
    "cost_terms",
    "equal_share_splits",
    "host_optimum",
    "joint_optima",
    "joint_optimum",
    "optimal_shares",
    "oracle_policy",
    "play_baselines",
    "rulers",
    "spinn_exits",
    "sum_over_devices",
    "switching_optimum",
]
