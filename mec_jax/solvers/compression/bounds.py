"""A latency that no strategy within the accuracy budget goes below, whatever the predictor.

Proof. A strategy, in its one form, has a cut, and at it a stride, a number of bits and a share of channels in one of
some intervals: call that its case. `most_accurate` is no less than what is predicted anywhere in a box; so if the box
of all strategies of a case is below the budget, no strategy of that case is allowed. Likewise, if with a unit's
sparsity in [p, MAX_SPARSITY] the box is below the budget, the unit's sparsity is less than p in every allowed strategy
of the case; the least such p of a grid is its limit there. FLOP of each layer and the bits of a feature do not grow
with a sparsity, and bits do not fall with the share. So the latency of an allowed strategy of the case is no less than
that of the one with all units at their limits and the share at the least of its interval; and that of any allowed
strategy no less than the least over all cases that are allowed. Rounding is allowed for on both sides
(`ACCURACY_SLACK`, `LATENCY_SLACK`).

It is not reached, as the units share one budget, of which here each has all.

Which cases are allowed, and the limits, hang on the predictor, the SNR and the budget alone: `relaxed` works them out
once, and `lower_bound` is then cheap for any number of devices and links.
"""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.accuracy import NOISELESS, Predictor, most_accurate
from mec_jax.physics.compression import CONV_SETTINGS, CompressibleCosts, Strategy, latency, total
from mec_jax.physics.partition import Number
from mec_jax.profiles.compression import MAX_SPARSITY, NO_CODEC, SETTINGS
from mec_jax.solvers.compression.problem import BUDGET

__all__ = ["ACCURACY_SLACK", "LATENCY_SLACK", "Relaxed", "lower_bound", "relaxed"]

ACCURACY_SLACK = 1e-5
"""By so much a box may be below the budget and count as allowed: some 150 roundings of a number below 1."""

LATENCY_SLACK = 1e-5
"""By this part a latency is taken to be less: as many roundings of it."""

SHARES = 20
"""Intervals of the share of channels, equal in its logarithm."""

GRID = 40
"""Limits of a sparsity that are tried."""


class Relaxed(NamedTuple):
    """What a budget allows each unit alone, by cut and case."""

    costs: CompressibleCosts
    sparsity: Float[Array, "cut case unit"]  # each unit's limit
    codec: Float[Array, "case setting"]  # stride, bits and the least share
    allowed: Bool[Array, "cut case"]


def relaxed(costs: CompressibleCosts, model: Predictor, snr_db: float = np.inf, budget: float = BUDGET) -> Relaxed:
    """Which cases are allowed, and how far each unit can be pruned in them.

    Args:
        costs: Of the network.
        model: What predicts accuracy.
        snr_db: dB.
        budget: Accuracy that may be lost.
    """
    low, high = _cases()
    cuts = jnp.arange(costs.cuts.shape[0])
    sparsity, allowed = _limits(costs, model, cuts, low, high, jnp.asarray(snr_db, float), jnp.asarray(budget, float))
    return Relaxed(costs, sparsity, low, allowed)


def lower_bound(
    relaxed: Relaxed,
    device_speed: Number,
    rate: Number,
    server_speed: Number,
    first_cut: Number = 0,
    last_cut: Number | None = None,
) -> Float[Array, ""]:
    """What no strategy goes below that is within the budget and cuts there, s; infinite if there is none.

    Args:
        relaxed: Of the network, the predictor, the SNR and the budget.
        device_speed: FLOP/s.
        rate: bit/s.
        server_speed: FLOP/s.
        first_cut: Place of the first allowed cut.
        last_cut: Place of the last; the last there is if absent.
    """
    cuts = jnp.arange(relaxed.allowed.shape[0])
    last = cuts.shape[0] - 1 if last_cut is None else last_cut

    def of_case(cut: Int[Array, ""], psi: Float[Array, " unit"], codec: Float[Array, " setting"]) -> Array:
        return total(latency(relaxed.costs, Strategy(psi, cut, codec), device_speed, rate, server_speed))

    by_case = jax.vmap(jax.vmap(of_case, (None, 0, 0)), (0, 0, None))
    seconds = by_case(cuts, relaxed.sparsity, relaxed.codec)
    allowed = relaxed.allowed & ((cuts >= first_cut) & (cuts <= last))[:, None]
    return jnp.min(jnp.where(allowed, seconds, jnp.inf)) * (1 - LATENCY_SLACK)


def _cases() -> tuple[Float[Array, "case setting"], Float[Array, "case setting"]]:
    """The least and the most of each codec setting, by case: the same share, bits and stride for both codecs, as but
    one applies.
    """
    places = {setting.name: place for place, setting in enumerate(SETTINGS)}
    strides, bits = (SETTINGS[places[name]].choices for name in ("conv_stride", "conv_bits"))
    least = min(SETTINGS[places[name]].least for name in ("conv_share", "linear_share"))
    edges = least ** (1 - np.arange(SHARES + 1) / SHARES)
    low, high = [], []
    for stride, bit, number in itertools.product(strides, bits, range(SHARES)):
        case_low, case_high = (np.array([getattr(each, end) for each in SETTINGS]) for end in ("least", "most"))
        for codec in ("conv", "linear"):
            case_low[places[f"{codec}_bits"]] = case_high[places[f"{codec}_bits"]] = bit
            # Fewer channels are sent than the least share where that rounds down; and an edge may be rounded.
            case_low[places[f"{codec}_share"]] = edges[number] * (1 - 1e-6) if number else 0
            case_high[places[f"{codec}_share"]] = min(edges[number + 1] * (1 + 1e-6), 1)
        case_low[places["conv_stride"]] = case_high[places["conv_stride"]] = stride
        low.append(case_low)
        high.append(case_high)
    return jnp.array(low, float), jnp.array(high, float)


@jax.jit
def _limits(
    costs: CompressibleCosts,
    model: Predictor,
    cuts: Int[Array, " cut"],
    low: Float[Array, "case setting"],
    high: Float[Array, "case setting"],
    snr_db: Float[Array, ""],
    budget: Float[Array, ""],
) -> tuple[Float[Array, "cut case unit"], Bool[Array, "cut case"]]:
    units = costs.width.shape[0]
    most = MAX_SPARSITY * (1 + 1e-6)  # in the one form a sparsity is rounded up
    grid = jnp.linspace(0, most, GRID)
    linear = jnp.arange(len(SETTINGS)) >= CONV_SETTINGS
    threshold = model.base - budget - ACCURACY_SLACK

    def fits(cut: Array, low: Array, high: Array, least_sparsity: Array) -> Bool[Array, ""]:
        applies = costs.packed[cut] & (linear == costs.flat[cut])
        codec_low, codec_high = (jnp.where(applies, side, jnp.array(NO_CODEC)) for side in (low, high))
        snr = jnp.where(cut < costs.cuts.shape[0] - 1, jnp.minimum(snr_db, NOISELESS), NOISELESS)
        layers = costs.cuts[cut].astype(float)
        box = (
            jnp.concatenate([psi, layers[None], codec, snr[None]])
            for psi, codec in ((least_sparsity, codec_low), (jnp.full(units, most), codec_high))
        )
        return most_accurate(model, *box) >= threshold

    def of_case(cut: Array, low: Array, high: Array) -> tuple[Array, Array]:
        def of_unit(unit: Array) -> Array:
            starts = jnp.where(jnp.arange(units) == unit, grid[:, None], 0)
            fit = jax.vmap(partial(fits, cut, low, high))(starts)
            # The first start that does not fit is the limit, and there is none behind it.
            return jnp.where(jnp.all(fit), most, grid[jnp.argmin(fit)])

        limits = jax.vmap(of_unit)(jnp.arange(units))
        return limits, fits(cut, low, high, jnp.zeros(units))

    # Cut by cut, so that boxes are not all there at once.
    return jax.lax.map(lambda cut: jax.vmap(of_case, (None, 0, 0))(cut, low, high), cuts)
