"""Running moments of observations and returns."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

CLIP = 10.0
"""Normalised observations lie within this many standard deviations."""


class Moments(NamedTuple):
    """Mean and variance of all samples so far."""

    mean: Float[Array, " *shape"]
    var: Float[Array, " *shape"]
    weight: Float[Array, ""]  # number of samples


def moments(samples: Float[Array, "sample *shape"], counts: Bool[Array, " sample"] | None = None) -> Moments:
    """Of one batch, or of those of its samples that count."""
    if counts is None:
        return Moments(jnp.mean(samples, 0), jnp.var(samples, 0), jnp.array(float(samples.shape[0])))
    which = counts.reshape(-1, *(1 for _ in samples.shape[1:]))
    return Moments(jnp.mean(samples, 0, where=which), jnp.var(samples, 0, where=which), jnp.sum(counts, dtype=float))


def merge(x: Moments, y: Moments) -> Moments:
    """Of the samples of both (Chan et al. 1983)."""
    weight = x.weight + y.weight
    delta = y.mean - x.mean
    square = x.var * x.weight + y.var * y.weight + delta**2 * x.weight * y.weight / weight
    return Moments(x.mean + delta * y.weight / weight, square / weight, weight)


def standardise(by: Moments, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """To mean 0 and variance 1, clipped."""
    return jnp.clip((x - by.mean) / jnp.sqrt(by.var + 1e-8), -CLIP, CLIP)
