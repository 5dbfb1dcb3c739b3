"""The one law of cutting a network."""

import jax
import jax.numpy as jnp
import numpy as np

from mec_jax.physics.partition import cut_times, work_after, work_before

WORK = np.array([[8.0, 2, 4], [1, 0, 5]])
BITS = np.array([[6.0, 3, 9, 0], [1, 1, 2, 0]])
SPEED = np.array([[2.0], [1]])


def test_work_on_both_sides_of_each_cut_adds_up() -> None:
    np.testing.assert_array_equal(work_before(WORK), [[0, 8, 10, 14], [0, 1, 1, 6]])
    np.testing.assert_array_equal(work_after(WORK), [[14, 6, 4, 0], [6, 5, 5, 0]])


def check_times[T: (np.ndarray, jax.Array)](work: T, bits: T, device_speed: T, kind: type) -> None:
    time = cut_times(work_before(work), bits, work_after(work), device_speed, 3.0, 10.0)
    assert all(isinstance(part, kind) for part in time)
    np.testing.assert_allclose(time.device, [[0, 4, 5, 7], [0, 1, 1, 6]], rtol=1e-6)
    np.testing.assert_allclose(time.link, BITS / 3, rtol=1e-6)
    np.testing.assert_allclose(time.server, [[1.4, 0.6, 0.4, 0], [0.6, 0.5, 0.5, 0]], rtol=1e-6)


def test_times_are_those_computed_by_hand_in_the_kind_of_array_that_comes_in() -> None:
    check_times(WORK, BITS, SPEED, np.ndarray)
    check_times(jnp.asarray(WORK), jnp.asarray(BITS), jnp.asarray(SPEED), jax.Array)


def test_the_last_layers_are_not_drowned_in_rounding() -> None:
    assert work_after(jnp.array([1e9, 1.0]))[1] == 1
