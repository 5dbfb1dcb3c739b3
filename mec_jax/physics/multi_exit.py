"""Expected latency and energy of a multi-exit DNN that is split between devices and an edge server.

Derived from the symbol table of Ma et al. 2025 ("Joint Optimization of Model Partitioning and Resource Allocation for
Multi-Exit DNNs in Edge-Device Collaboration"); the paper's equations are not at hand.

Split s in 0..m: the first s of m layers run on the device, the others at the edge. A task leaves by the first
installed exit that is not before its own. All is for one task of each device, in expectation over its exit.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.partition import work_after, work_before

MIN_SHARE = 1e-4
"""Least share of the edge for a device that has work there, before shares are scaled to sum to 1."""


class Options(NamedTuple):
    """What each split costs each device, apart from the time at the edge."""

    local_time: Float[Array, "device split"]  # s
    transmit_time: Float[Array, "device split"]  # s
    edge_work: Float[Array, "device split"]  # FLOP
    local_energy: Float[Array, "device split"]  # J
    transmit_energy: Float[Array, "device split"]  # J


class Costs(NamedTuple):
    """What the chosen splits and shares cost."""

    latency: Float[Array, " device"]  # s
    energy: Float[Array, " device"]  # J, of the device
    cost: Float[Array, " device"]  # weighted sum of the two


def survival(
    exit_probability: Float[Array, "device layer"], exit_installed: Bool[Array, "device layer"]
) -> Float[Array, "device split"]:
    """Probability that a task has not left after the first s layers, for s in 0..m; 0 after the last.

    Args:
        exit_probability: By which exit a task would leave if all were installed; scaled to sum to 1. If all are 0,
            tasks leave by the last.
        exit_installed: Which are; the last one counts as installed.
    """
    # From the end, so that it is exactly 0 where all have left and nowhere negative.
    still = jnp.cumsum(exit_probability[:, ::-1], axis=1)[:, ::-1]
    still = jnp.where(still[:, :1] > 0, still / still[:, :1], 1)
    after = jnp.where(exit_installed[:, :-1], still[:, 1:], 1)
    ends = jnp.ones_like(still[:, :1])
    return jnp.concatenate([ends, jax.lax.cummin(after, axis=1), 0 * ends], axis=1)


def split_options(
    layer_flops: Float[Array, "device layer"],
    branch_flops: Float[Array, "device layer"],
    input_bits: Float[Array, " device"],
    feature_bits: Float[Array, "device layer"],
    exit_probability: Float[Array, "device layer"],
    exit_installed: Bool[Array, "device layer"],
    device_speed: Float[Array, " device"],
    device_power: Float[Array, " device"],
    transmit_power: Float[Array, " device"],
    bandwidth: Float[Array, ""],
) -> Options:
    """Costs of all splits.

    With S_j the `survival` after j layers and x_j = 1 where exit j is installed, the work up to split s is
    W_loc = sum over j <= s of S_(j-1) (l_j + x_j h_j), the rest is W_edge; T_loc = W_loc / f, T_tr = S_s D_s / B,
    E_loc = P T_loc and E_tr = P_tr T_tr.

    Args:
        layer_flops: FLOP of each layer, l.
        branch_flops: FLOP of each exit, h.
        input_bits: bit of the raw input, D_0.
        feature_bits: bit sent if the split is after the layer, D_1 to D_m; the last is never sent.
        exit_probability: As in `survival`.
        exit_installed: As in `survival`.
        device_speed: FLOP/s, f.
        device_power: W while computing, P.
        transmit_power: W while sending, P_tr.
        bandwidth: bit/s of each device's link, B.
    """
    left = survival(exit_probability, exit_installed)
    installed = exit_installed.at[:, -1].set(True)
    work = left[:, :-1] * (layer_flops + jnp.where(installed, branch_flops, 0))
    bits = left * jnp.concatenate([input_bits[:, None], feature_bits], axis=1)
    local_time = work_before(work) / device_speed[:, None]
    transmit_time = bits / bandwidth
    return Options(
        local_time=local_time,
        transmit_time=transmit_time,
        edge_work=work_after(work),
        local_energy=device_power[:, None] * local_time,
        transmit_energy=transmit_power[:, None] * transmit_time,
    )


def chosen(table: Float[Array, "device split"], split: Int[Array, " device"]) -> Float[Array, " device"]:
    """The entry of each device's split."""
    return jnp.take_along_axis(table, split[:, None], axis=1)[:, 0]


def edge_shares(share: Float[Array, " device"], edge_work: Float[Array, " device"]) -> Float[Array, " device"]:
    """Shares of the edge as they are granted: over the devices that have work there, summing to 1.

    A device without work gets 0. NaN and negative shares count as 0; if all are 0, they are equal. Shares below
    `MIN_SHARE` are lifted to it before the last scaling, so that no time is infinite.

    Args:
        share: Wishes, up to a common factor.
        edge_work: FLOP at the edge.
    """
    needs = edge_work > 0
    # By the largest first: the sum of large numbers, infinity among them, would not be finite.
    wish = jnp.where(needs, jnp.maximum(jnp.nan_to_num(share, nan=0.0), 0), 0)
    largest = jnp.max(wish, initial=0)
    scaled = jnp.where(largest > 0, wish / jnp.where(largest > 0, largest, 1), needs)
    scaled = scaled / jnp.maximum(jnp.sum(scaled), 1)
    granted = jnp.where(needs, jnp.maximum(scaled, MIN_SHARE), 0)
    return granted / jnp.maximum(jnp.sum(granted), MIN_SHARE)


def split_costs(
    options: Options,
    split: Int[Array, " device"],
    share: Float[Array, " device"],
    edge_speed: Float[Array, ""],
    latency_weight: Float[Array, " device"],
) -> Costs:
    """Latency, energy and cost w (T_loc + T_tr + T_edge) + (1 - w) (E_loc + E_tr), T_edge = W_edge / (share f_e).

    Args:
        options: Costs of all splits.
        split: Layers on the device, 0..m.
        share: Of the edge, as granted; not 0 where there is work at the edge.
        edge_speed: FLOP/s, f_e.
        latency_weight: w, in 0..1.
    """
    local_time, transmit_time, edge_work, local_energy, transmit_energy = (chosen(table, split) for table in options)
    needs = edge_work > 0
    edge_time = jnp.where(needs, edge_work / (jnp.where(needs, share, 1) * edge_speed), 0)
    latency = local_time + transmit_time + edge_time
    energy = local_energy + transmit_energy
    return Costs(latency, energy, latency_weight * latency + (1 - latency_weight) * energy)
