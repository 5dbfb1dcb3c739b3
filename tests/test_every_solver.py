"""Every solver keeps the contract of `mec_jax.testing.check_solver`. What is special has its own file."""

import pytest

import mec_jax
from mec_jax.testing import check_solver
from tests.test_every_env import SMALL

pytestmark = pytest.mark.slow


@pytest.mark.full
@pytest.mark.parametrize(
    "env_id",
    [
        # A variant has the solver of its class.
        pytest.param(env_id, marks=pytest.mark.full) if env_id.count("-") > 1 else env_id
        for env_id in mec_jax.registered_envs
    ],
)
def test_it_keeps_the_contract(env_id: str) -> None:
    check_solver(mec_jax.make(env_id, **SMALL.get(env_id, {}))[0])
