"""Execution of one DNN layer whose neurons are divided among devices, with failures.

Derived from Huang et al. 2022 ("Toward Decentralized and Collaborative Deep Learning Inference for Intelligent IoT
Devices", DeColla), which gives the mechanism in words: a layer's neurons are cut into pieces, each piece goes to one
device, and the layer ends when the requester's message queue holds the results of all (a barrier). What the paper
leaves open is settled here:

- Exchange. Everything passes through the requester. It sends a piece's input to the device, the device computes, and
  the output comes back. An input that all neurons read goes to a device once a layer, or with every piece, and to each
  device apart; devices keep nothing from one layer to the next.
- Medium. What a device sends or is sent takes bits / its bandwidth, on a channel that carries one transmission at a
  time (`MEDIA`): each direction of each device's link is one (private, full-duplex links: the default), or each link
  is (half-duplex), or there is but one for all (shared: the requester's own wireless interface is what limits it).
- Order. Each channel serves transmissions first come, first served, and without pre-emption. An input comes when its
  piece is submitted, an output when it is computed; of those that come at once, inputs go before outputs, then lower
  pieces before higher ones. Without bits of its own, an input or output still waits its turn. Each processor serves
  pieces in the order in which they were submitted. A device works for no one else.
- Failure. A device that fails answers no more: pieces whose result had not fully arrived are missing. The requester
  calls a piece missing when it has waited `timeout_factor` times the time it expected the piece to take (the paper's
  response time t_2), after all pieces of the layer are out. It then submits the piece again, to the device that
  answers at that time and would return it first. Only missing pieces are submitted again.

Times are seconds after the start of the layer. On private links a layer is first in, first out chains of three
servers, which have closed-form completion times: a submission costs a few operations and no event loop, and only
reassignment loops (`after_submission`). On the other media a submission can delay outputs that are not sent yet, so
that what was submitted is planned anew, by a simulation of its transmissions (`plan`).
"""

from typing import Literal, NamedTuple, get_args

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


LATEST = 1e18
"""s; timeouts end no later, whatever their factor. No device fails after it, so that whoever answers then answers."""

Medium = Literal["private", "half_duplex", "shared"]
MEDIA: tuple[Medium, ...] = get_args(Medium)
"""What pieces are exchanged over: full-duplex links, half-duplex links, or one channel for all."""


class Channels(NamedTuple):
    """Which channel carries what, by any numbers; it serves one transmission at a time."""

    down: Int[Array, " device"]  # the inputs of a device
    up: Int[Array, " device"]  # its outputs


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


def channels_of(medium: Medium, num_devices: int) -> Channels:
    """The channels of a medium.

    Args:
        medium: Static.
        num_devices: That it connects.
    """
    device = jnp.arange(num_devices)
    match medium:
        case "private":
            return Channels(device, num_devices + device)
        case "half_duplex":
            return Channels(device, device)
        case "shared":
            return Channels(jnp.zeros_like(device), jnp.zeros_like(device))


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

    On private links; on other channels, if what was planned on them is sent before, and nothing else.

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


def plan(
    devices: Devices,
    pieces: Pieces,
    device: Int[Array, " piece"],
    time: Float[Array, " piece"],
    resend: Bool[Array, ""],
    channels: Channels,
) -> tuple[Queue, Float[Array, " piece"]]:
    """When all that was submitted so far would be done if nothing else were, on any channels.

    The 2 K transmissions are served in the order in which they come. That of the inputs is known; an output comes no
    earlier than its input, so that the earliest one of those known that wait is the next one of its channel. Hence a
    later submission changes no transmission that came before it: what lies before the present stays.

    Failures are not seen: the channel keeps the slots of what a failed device is not there to send or be sent.

    Args:
        devices: All of them.
        pieces: Of the layer.
        device: Where each piece goes.
        time: s, of its submission, not decreasing; infinite for those that are not submitted. Empty ones never are.
        resend: As in `after_submission`.
        channels: Which carries what.

    Returns:
        The queue, whose `down` is when the channel of a device's inputs has sent all inputs submitted so far, and
        `up` when the channel of its outputs has nothing left to send in either direction; and when each result is
        there (s; 0 for pieces that are not submitted).
    """
    count = device.size
    submitted = jnp.isfinite(time) & (pieces.flops > 0)
    same_device = device[:, None] == device
    earlier = jnp.arange(count) < jnp.arange(count)[:, None]
    informed = jnp.any(same_device & earlier & submitted, axis=1) & ~resend
    input_bits = jnp.where(informed, 0, pieces.shared_bits) + pieces.own_bits
    # Inputs stand before outputs, so that the first minimum is the one that goes first.
    takes = jnp.concatenate([input_bits, pieces.output_bits]) / jnp.tile(devices.bandwidth[device], 2)
    channel = jnp.concatenate([channels.down[device], channels.up[device]])
    same_channel = channel[:, None] == channel
    work = pieces.flops / devices.speed[device]

    def serve(carry: tuple[Array, Array, Array], nothing: None) -> tuple[tuple[Array, Array, Array], None]:
        comes, sent, computed = carry  # infinite: not known, or served; 0: not yet
        number = jnp.argmin(comes)
        now, piece = comes[number], number % count
        waits, is_input = jnp.isfinite(now), number < count
        end = jnp.maximum(now, jnp.max(jnp.where(same_channel[number], sent, 0))) + takes[number]
        result = jnp.maximum(end, jnp.max(jnp.where(same_device[piece], computed, 0))) + work[piece]
        comes = comes.at[number].set(jnp.inf)
        comes = comes.at[count + piece].set(jnp.where(waits & is_input, result, comes[count + piece]))
        sent = sent.at[number].set(jnp.where(waits, end, sent[number]))
        computed = computed.at[piece].set(jnp.where(waits & is_input, result, computed[piece]))
        return (comes, sent, computed), None

    comes = jnp.concatenate([jnp.where(submitted, time, jnp.inf), jnp.full_like(work, jnp.inf)])
    start = (comes, jnp.zeros_like(takes), jnp.zeros_like(work))
    (_, sent, computed), _ = jax.lax.scan(serve, start, length=2 * count)

    def last(served: Float[Array, " work"], mine: Bool[Array, "device work"]) -> Float[Array, " device"]:
        return jnp.max(jnp.where(mine, served, 0), axis=1)

    here = device == jnp.arange(devices.speed.size)[:, None]
    queue = Queue(
        down=last(sent[:count], channels.down[:, None] == channel[:count]),
        cpu=last(computed, here),
        up=last(sent, channels.up[:, None] == channel),
        informed=jnp.any(here & submitted, axis=1),
    )
    return queue, sent[count:]


def submit_after_all(queue: Queue, after: Queue, device: Int[Array, ""], channels: Channels) -> Queue:
    """The queues when one device was chosen for a piece whose input is sent after all that is planned on its channel,
    and whose output after its own input.

    Args:
        queue: Before; `down` and `up` are when the channels have nothing left to send.
        after: From `after_submission`.
        device: The chosen one.
        channels: Which carries what.
    """

    def free(channel: Int[Array, " device"], before: Float[Array, " device"]) -> Float[Array, " device"]:
        before = jnp.where(channel == channels.down[device], after.down[device], before)
        return jnp.where(channel == channels.up[device], after.up[device], before)

    chosen = submit(queue, after, device)
    return chosen._replace(down=free(channels.down, queue.down), up=free(channels.up, queue.up))


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
    channels: Channels | None = None,
) -> Outcome:
    """Wait for all results, and submit what is missing again until it is there or no device is left.

    Conservation: a piece has one copy at a time, and is submitted again only after its device failed, whose result
    can then no longer come; so it is in the message queue once, or never if all devices failed before. As every
    timeout of a piece takes one more failed device out of its choice, a piece is submitted at most once to a device
    and the loop ends.

    On other media than private links the channel keeps the slots of what is missing, and the input of what is
    submitted again is sent after all that is planned on its channel: so no expectation changes any more.

    Args:
        queue: After all pieces were submitted.
        devices: All of them.
        pieces: Of the layer.
        device: Where each piece went.
        completion: s, when each result should be there, from `after_submission` or `plan`.
        time: s, of the last submission: until then, no piece is called missing.
        resend: As in `after_submission`.
        timeout_factor: kappa, >= 1: no live device is ever suspected, as expectations are exact.
        active: Where false, nothing is submitted again: lets a batch wait only for layers that are complete.
        channels: Which carries what, if the queue is from `plan`; private links if absent.
    """
    if channels is not None:
        # Nothing is left to send, in either direction.
        queue = queue._replace(down=jnp.where(channels.down == channels.up, queue.up, queue.down))
    exists = pieces.flops > 0
    missing = exists & (completion > devices.failure[device]) & active
    noticed = jnp.where(missing, jnp.maximum(jnp.minimum(timeout_factor * completion, LATEST), time), jnp.inf)

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
        late = jnp.minimum(now + timeout_factor * (expected - now), LATEST)
        again = jnp.where(possible & ~returns, late, jnp.inf)
        new = submit(queue, after, chosen) if channels is None else submit_after_all(queue, after, chosen, channels)
        queue = jax.tree.map(lambda new, old: jnp.where(possible, new, old), new, queue)
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
