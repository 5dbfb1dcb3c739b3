"""Uplink radio: path gain, interference and rate (Hao et al. 2022, eq. 5 and section 6.3.1)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def path_gain[X: (Array, np.ndarray)](distance: X, exponent: X) -> X:
    """Channel gain `distance ** -exponent` of each UE, distance in m (section 6.3.1); arrays of JAX or NumPy."""
    return distance**-exponent


def interference(
    received: Float[Array, " ue"], sending: Bool[Array, " ue"], channel: Int[Array, " ue"]
) -> Float[Array, " ue"]:
    """Power each UE receives from the other `sending` UEs on its channel, in W (the sum of eq. 5).

    Args:
        received: Power that arrives from each UE when it sends, W.
        sending: UEs that interfere.
        channel: Channel of each UE; equal numbers interfere.

    Up to `WRITTEN_OUT` UEs the pairs are written out, UE by UE, because XLA vectorises over lanes through sums but not
    through a reduction (2.5 times slower under `vmap`); beyond that the program would grow with the square of their
    number. They are added up without the UE's own power because subtracting that from a total would drown weak
    interference in rounding.
    """
    power = jnp.where(sending, received, 0)
    count = received.shape[0]
    ues = range(count)
    if count > WRITTEN_OUT:
        n = jnp.arange(count)
        others = (channel[:, None] == channel) & (n[:, None] != n)
        return jnp.sum(jnp.where(others, power, 0), axis=1)
    return jnp.stack(
        [
            sum(
                (jnp.where(channel[i] == channel[n], power[i], 0) for i in ues if i != n),
                jnp.zeros_like(power[n]),
            )
            for n in ues
        ]
    )


WRITTEN_OUT = 32
"""Most UEs whose pairs are written out, each a line of the program."""


def uplink_rate(
    received: Float[Array, " ue"],
    noise_and_interference: Float[Array, " ue"],
    bandwidth: Float[Array, " ue"],
) -> Float[Array, " ue"]:
    """Shannon rate in bit/s for powers in W and a bandwidth in Hz (eq. 5).

    `log1p` keeps the rate of a weak signal: in float32 `log2(1 + x)` is 19 % off at x = 1e-7.
    """
    return bandwidth * (jnp.log1p(received / noise_and_interference) / np.log(2))
