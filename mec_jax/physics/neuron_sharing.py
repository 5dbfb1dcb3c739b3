"""Execution of several DNN inferences, layer by layer, on devices that they share, with failures.

The rules of a layer are those of `mec_jax.physics.neuron_allocation`: pieces on devices, a barrier at the layer's end,
failures that are found by timeouts. What several requesters add:

- Each has a barrier of its own. Its next layer starts when all results of its layer are there.
- Link directions and processors serve the pieces of all requesters, first in, first out in the order of submission.
- Submissions happen in time order, those after a timeout among them. Of submissions at the same time, first ones come
  before those after a timeout, then those of lower requesters, then those of lower pieces.

Times are seconds since the first request. As submissions are made in time order, the chain of link, processor and link
has closed-form completion times, which no later submission changes; so an event is a submission, and only submissions
after timeouts loop.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.neuron_allocation import LATEST, Devices, Pieces, Queue, after_submission, quickest, submit


class Sharing(NamedTuple):
    """What was submitted, and what comes of it. Of each requester only its current layer is kept."""

    down: Float[Array, " device"]  # s when its link is free to send inputs
    cpu: Float[Array, " device"]  # s when it is free to compute
    up: Float[Array, " device"]  # s when its link is free to return outputs
    busy: Float[Array, " device"]  # s that it computes, until it fails
    informed: Bool[Array, "requester device"]  # the shared input of the requester's layer was sent to it
    start: Float[Array, " requester"]  # s, of the layer
    submitted: Int[Array, " requester"]  # pieces of the layer that were submitted
    expected: Float[Array, "requester piece"]  # s, as when it was last submitted; infinite before
    completion: Float[Array, "requester piece"]  # s when the result is there; infinite while none is on its way
    missed: Float[Array, "requester piece"]  # s when it will be called missing; infinite if it won't
    reassigned: Int[Array, ""]  # submissions beyond the first ones


class Rules(NamedTuple):
    """Numbers of the protocol."""

    resend: Bool[Array, ""]  # the shared input goes along with every piece
    timeout_factor: Float[Array, ""]  # kappa, >= 1
    decision_time: Float[Array, ""]  # s from a layer's start to its first submission, and between submissions


def idle(arrival: Float[Array, " requester"], num_devices: int, num_pieces: int) -> Sharing:
    """Before any submission.

    Args:
        arrival: s when each requester asks: its first layer starts.
        num_devices: Of all requesters.
        num_pieces: Of a layer.
    """
    free = jnp.zeros(num_devices, arrival.dtype)
    never = jnp.full((arrival.size, num_pieces), jnp.inf, arrival.dtype)
    return Sharing(
        down=free,
        cpu=free,
        up=free,
        busy=free,
        informed=jnp.zeros((arrival.size, num_devices), bool),
        start=arrival,
        submitted=jnp.zeros(arrival.size, jnp.int32),
        expected=never,
        completion=never,
        missed=never,
        reassigned=jnp.zeros((), jnp.int32),
    )


def next_layer(sharing: Sharing, requester: Int[Array, ""], start: Float[Array, ""]) -> Sharing:
    """A requester starts its next layer.

    Args:
        sharing: Before.
        requester: Which.
        start: s, when its layer ended.
    """
    return sharing._replace(
        informed=sharing.informed.at[requester].set(False),
        start=sharing.start.at[requester].set(start),
        submitted=sharing.submitted.at[requester].set(0),
        expected=sharing.expected.at[requester].set(jnp.inf),
        completion=sharing.completion.at[requester].set(jnp.inf),
        missed=sharing.missed.at[requester].set(jnp.inf),
    )


def layer_end(sharing: Sharing, pieces: Pieces) -> Float[Array, " requester"]:
    """s when each requester's layer ends; infinite while a result is not on its way.

    Args:
        sharing: As it is.
        pieces: `[requester, piece]`.
    """
    return jnp.max(jnp.where(pieces.flops > 0, sharing.completion, sharing.start[:, None]), axis=1)


def next_submission(
    sharing: Sharing, pieces: Pieces, more_layers: Bool[Array, " requester"], rules: Rules
) -> Float[Array, " requester"]:
    """s of each requester's next first submission, in this layer or the next; infinite if that is not known yet, or
    there is none.

    Args:
        sharing: As it is.
        pieces: `[requester, piece]`.
        more_layers: Whether there is a layer after this one.
        rules: Of the protocol.
    """
    count = jnp.sum(pieces.flops > 0, axis=1)
    here = sharing.start + (sharing.submitted + 1) * rules.decision_time
    after = jnp.where(more_layers, layer_end(sharing, pieces) + rules.decision_time, jnp.inf)
    return jnp.where(sharing.submitted < count, here, after)


def _as_seen_by(requester: Int[Array, ""], sharing: Sharing, pieces: Pieces) -> tuple[Queue, Pieces]:
    """The devices' queues, informed as of the requester's layer, and the pieces of that layer."""
    queue = Queue(sharing.down, sharing.cpu, sharing.up, sharing.informed[requester])
    return queue, Pieces(*(x[requester] for x in pieces))


def send(
    sharing: Sharing,
    devices: Devices,
    pieces: Pieces,
    rules: Rules,
    requester: Int[Array, ""],
    piece: Int[Array, ""],
    device: Int[Array, ""],
    now: Float[Array, ""],
    waits_from: Float[Array, ""],
    not_missed_before: Float[Array, ""],
) -> Sharing:
    """Submit a piece to a device, whether it answers or not.

    Args:
        sharing: Before.
        devices: All of them; failures are s since the first request.
        pieces: `[requester, piece]`.
        rules: Of the protocol.
        requester: Whose piece.
        piece: Which.
        device: Where to.
        now: s, no earlier than any submission before.
        waits_from: s from which the timeout counts.
        not_missed_before: s, the earliest at which it may be called missing.
    """
    queue, own = _as_seen_by(requester, sharing, pieces)
    after = after_submission(queue, devices, own, piece, now, rules.resend)
    expected = after.up[device]
    returns = expected <= devices.failure[device]
    late = jnp.minimum(waits_from + rules.timeout_factor * (expected - waits_from), LATEST)
    missed = jnp.maximum(late, not_missed_before)
    work = own.flops[piece] / devices.speed[device]
    until = jnp.minimum(after.cpu[device], devices.failure[device])
    queue = submit(queue, after, device)
    return sharing._replace(
        down=queue.down,
        cpu=queue.cpu,
        up=queue.up,
        busy=sharing.busy.at[device].add(jnp.maximum(until - (after.cpu[device] - work), 0)),
        informed=sharing.informed.at[requester].set(queue.informed),
        expected=sharing.expected.at[requester, piece].set(expected),
        completion=sharing.completion.at[requester, piece].set(jnp.where(returns, expected, jnp.inf)),
        missed=sharing.missed.at[requester, piece].set(jnp.where(returns, jnp.inf, missed)),
    )


def send_first(
    sharing: Sharing,
    devices: Devices,
    pieces: Pieces,
    rules: Rules,
    requester: Int[Array, ""],
    device: Int[Array, ""],
) -> Sharing:
    """Submit the next piece of a requester's layer: at the time that `next_submission` says.

    Its timeout counts from the start of the layer, and it is not called missing before all pieces are out.

    Args:
        sharing: Before.
        devices: All of them.
        pieces: `[requester, piece]`.
        rules: Of the protocol.
        requester: Whose.
        device: Where to.
    """
    start, piece = sharing.start[requester], sharing.submitted[requester]
    last = start + jnp.sum(pieces.flops[requester] > 0) * rules.decision_time
    now = start + (piece + 1) * rules.decision_time
    sharing = send(sharing, devices, pieces, rules, requester, piece, device, now, start, last)
    return sharing._replace(submitted=sharing.submitted.at[requester].add(1))


def send_again(
    sharing: Sharing, devices: Devices, pieces: Pieces, more_layers: Bool[Array, " requester"], rules: Rules
) -> tuple[Sharing, Bool[Array, ""]]:
    """Submit again what is missing, up to the next first submission of any requester, or until no device answers.

    Each goes to the device that answers at that time and would return it first.

    Args:
        sharing: Before.
        devices: All of them.
        pieces: `[requester, piece]`.
        more_layers: As in `next_submission`.
        rules: Of the protocol.

    Returns:
        What it is then, and whether a piece was called missing when no device was left.
    """

    def due(sharing: Sharing) -> Bool[Array, ""]:
        return jnp.min(sharing.missed) < jnp.min(next_submission(sharing, pieces, more_layers, rules))

    def goes_on(sharing: Sharing) -> Bool[Array, ""]:
        return due(sharing) & (jnp.max(devices.failure) > jnp.min(sharing.missed))

    def again(sharing: Sharing) -> Sharing:
        requester, piece = jnp.unravel_index(jnp.argmin(sharing.missed), sharing.missed.shape)
        now = sharing.missed[requester, piece]
        queue, own = _as_seen_by(requester, sharing, pieces)
        after = after_submission(queue, devices, own, piece, now, rules.resend)
        device = quickest(after, devices, now)
        sharing = send(sharing, devices, pieces, rules, requester, piece, device, now, now, now)
        return sharing._replace(reassigned=sharing.reassigned + 1)

    sharing = jax.lax.while_loop(goes_on, again, sharing)
    return sharing, due(sharing)
