"""Execution of one DNN layer whose neurons are divided among devices, with failures.

Derived from Huang et al. 2022 ("Toward Decentralized and Collaborative Deep Learning Inference for Intelligent IoT
Devices", DeColla), which gives the mechanism in words: a layer's neurons are cut into pieces, each piece goes to one
device, and the layer ends when the requester's message queue holds the results of all (a barrier). What the paper
leaves open is settled here:

- Exchange. Everything passes through the requester. It sends a piece's input over the device's own full-duplex link,
  the device computes, and the output comes back on the same link. An input that all neurons read goes to a device
  once a layer, or with every piece; devices keep nothing from one layer to the next.
- Order. Each link direction and each processor serves pieces in the order in which they were submitted, one at a time
  and without pre-emption. A device works for no one else.
- Failure. A device that fails answers no more: pieces whose result had not fully arrived are missing. The requester
  calls a piece missing when it has waited `timeout_factor` times the time it expected the piece to take (the paper's
  response time t_2), after all pieces of the layer are out. It then submits the piece again, to the device that
  answers at that time and would return it first. Only missing pieces are submitted again.

Times are seconds after the start of the layer. A first in, first out chain of three servers has closed-form
completion times, so that a submission costs a few operations and no event loop; only reassignment loops.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Pieces(NamedTuple):
    """The pieces of one layer. Empty ones have no FLOP."""

    flops: Float[Array, " piece"]  # FLOP
    shared_bits: Float[Array, ""]  # bit of input that every device needs, whichever piece it computes
    own_bits: Float[Array, " piece"]  # bit of input for this piece alone
    output_bits: Float[Array, " piece"]  # bit of its result


class Devices(NamedTuple):
    """Who computes, constant while a layer lasts."""

    speed: Float[Array, " device"]  # FLOP/s that are free, > 0
    bandwidth: Float[Array, " device"]  # bit/s of each direction of its link, > 0
    failure: Float[Array, " device"]  # s; infinite if it does not fail in this layer, 0 if it is absent


class Queue(NamedTuple):
    """When each device has done what was submitted to it."""

    down: Float[Array, " device"]  # s, its link is free to send inputs
    cpu: Float[Array, " device"]  # s, it is free to compute
    up: Float[Array, " device"]  # s, its link is free to return outputs
    informed: Bool[Array, " device"]  # the shared input was sent to it


class Outcome(NamedTuple):
    """How a layer ended."""

    completion: Float[Array, " piece"]  # s when the result was there; infinite without one, 0 for empty pieces
    results: Int[Array, " piece"]  # of this piece in the message queue: 1, or 0 if all devices were lost or it is empty
    reassigned: Int[Array, ""]  # submissions beyond the first ones


def piece_sizes(neurons: Int[Array, ""], num_pieces: int) -> Int[Array, " piece"]:
    """Neurons of each piece, as equal as can be, the smaller ones first.

    Of pieces on one device the shorter is better done first (it weighs more in the sum of slowdowns, and waits less).
    A layer with fewer neurons than pieces has empty pieces, which come last.

    Args:
        neurons: Of the layer.
        num_pieces: Static, the paper's K.
    """
    piece = jnp.arange(num_pieces)
    size = neurons // num_pieces + (piece >= num_pieces - neurons % num_pieces)
    return jnp.where(neurons < num_pieces, (piece < neurons).astype(size.dtype), size)


def empty_queue(num_devices: int, dtype: jnp.dtype) -> Queue:
    """Every device idle and without input, as at the start of a layer."""
    free = jnp.zeros(num_devices, dtype)
    return Queue(free, free, free, jnp.zeros(num_devices, bool))


def after_submission(
    queue: Queue,
    devices: Devices,
    pieces: Pieces,
    piece: Int[Array, ""],
    time: Float[Array, ""],
    resend: Bool[Array, ""],
) -> Queue:
    """Every device's queue if the piece were submitted to it; `up` is then when its result would be there.

    Args:
        queue: Before.
        devices: All of them.
        pieces: Of the layer.
        piece: Which one.
        time: s, of the submission.
        resend: Whether the shared input goes along with every piece instead of once to a device.
    """
    shared = jnp.where(queue.informed & ~resend, 0, pieces.shared_bits)
    down = jnp.maximum(queue.down, time) + (shared + pieces.own_bits[piece]) / devices.bandwidth
    cpu = jnp.maximum(queue.cpu, down) + pieces.flops[piece] / devices.speed
    up = jnp.maximum(queue.up, cpu) + pieces.output_bits[piece] / devices.bandwidth
    return Queue(down, cpu, up, jnp.ones_like(queue.informed))


def submit(queue: Queue, after: Queue, device: Int[Array, ""]) -> Queue:
    """The queues when one device was chosen.

    Args:
        queue: Before.
        after: From `after_submission`.
        device: The chosen one.
    """
    chosen = jnp.arange(queue.up.size) == device
    return Queue(*(jnp.where(chosen, new, old) for new, old in zip(after, queue, strict=True)))


def quickest(after: Queue, devices: Devices, time: Float[Array, ""]) -> Int[Array, ""]:
    """Of the devices that answer at that time, the one that would return the piece first.

    Args:
        after: From `after_submission`.
        devices: All of them.
        time: s, as that of the submission.
    """
    return jnp.argmin(jnp.where(devices.failure > time, after.up, jnp.inf))


def finish_layer(
    queue: Queue,
    devices: Devices,
    pieces: Pieces,
    device: Int[Array, " piece"],
    completion: Float[Array, " piece"],
    time: Float[Array, ""],
    resend: Bool[Array, ""],
    timeout_factor: Float[Array, ""],
    active: Bool[Array, ""] | bool = True,
) -> Outcome:
    """Wait for all results, and submit what is missing again until it is there or no device is left.

    Conservation: a piece has one copy at a time, and is submitted again only after its device failed, whose result
    can then no longer come; so it is in the message queue once, or never if all devices failed before. As every
    timeout of a piece takes one more failed device out of its choice, a piece is submitted at most once to a device
    and the loop ends.

    Args:
        queue: After all pieces were submitted.
        devices: All of them.
        pieces: Of the layer.
        device: Where each piece went.
        completion: s, when each result should be there, from `after_submission`.
        time: s, of the last submission: until then, no piece is called missing.
        resend: As in `after_submission`.
        timeout_factor: kappa, >= 1: no live device is ever suspected, as expectations are exact.
        active: Where false, nothing is submitted again: lets a batch wait only for layers that are complete.
    """
    exists = pieces.flops > 0
    missing = exists & (completion > devices.failure[device]) & active
    noticed = jnp.where(missing, jnp.maximum(timeout_factor * completion, time), jnp.inf)

    def waits(carry: tuple) -> Bool[Array, ""]:
        return jnp.any(jnp.isfinite(carry[1]))

    def submit_again(carry: tuple) -> tuple:
        queue, noticed, completion, reassigned = carry
        piece = jnp.argmin(noticed)
        now = noticed[piece]
        after = after_submission(queue, devices, pieces, piece, now, resend)
        chosen = quickest(after, devices, now)
        expected, possible = after.up[chosen], jnp.any(devices.failure > now)
        returns = possible & (expected <= devices.failure[chosen])
        again = jnp.where(possible & ~returns, now + timeout_factor * (expected - now), jnp.inf)
        queue = jax.tree.map(lambda new, old: jnp.where(possible, new, old), submit(queue, after, chosen), queue)
        return (
            queue,
            noticed.at[piece].set(again),
            completion.at[piece].set(jnp.where(returns, expected, jnp.inf)),
            reassigned + possible,
        )

    completion = jnp.where(missing, jnp.inf, jnp.where(exists, completion, 0))
    start = (queue, noticed, completion, jnp.zeros((), jnp.int32))
    *_, completion, reassigned = jax.lax.while_loop(waits, submit_again, start)
    return Outcome(completion, (exists & jnp.isfinite(completion)).astype(jnp.int32), reassigned)
