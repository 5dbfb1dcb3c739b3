"""One decision frame of UEs that compute a DNN's front part and send the feature (Hao et al. 2022, section 3).

Event driven and exact: between two events nothing changes speed, so the clock jumps from one to the next.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.events import lane_while
from mec_jax.physics.radio import WRITTEN_OUT, interference, uplink_rate

FREE, COMPUTING, TRANSMITTING = 0, 1, 2
"""What a UE does: its tasks are all finished, it runs the front part and encoder, it sends the feature."""


class Task(NamedTuple):
    """What one task of each UE takes."""

    time: Float[Array, " ue"]  # s, front part and encoder
    power: Float[Array, " ue"]  # W, while computing
    bits: Float[Array, " ue"]  # bit, feature to send; 0 = finished when computed
    channel: Int[Array, " ue"]
    bandwidth: Float[Array, " ue"]  # Hz, of the channel
    noise: Float[Array, " ue"]  # W, on the channel

    def first_phase(self) -> tuple[Int[Array, " ue"], Float[Array, " ue"]]:
        """Mode a new task begins in, and the s or bit it begins with."""
        at_once = self.time <= 0
        mode = jnp.where(at_once, TRANSMITTING, COMPUTING).astype(jnp.int32)
        return mode, jnp.where(at_once, self.bits, self.time)


class Uplink(NamedTuple):
    """How the UEs send during the frame."""

    power: Float[Array, " ue"]  # W, transmit power
    received: Float[Array, " ue"]  # W, transmit power times path gain
    all_interfere: Bool[Array, ""]  # eq. 5 as printed: every UE with a non-local task, on any channel


class Frame(NamedTuple):
    """How a frame ended."""

    mode: Int[Array, " ue"]
    left: Float[Array, " ue"]  # s while computing, bit while transmitting
    finished: Int[Array, " ue"]  # tasks
    energy: Float[Array, " ue"]  # J
    busy: Float[Array, " ue"]  # s with a task in hand


class Given(NamedTuple):
    """What holds throughout a frame."""

    current: Task
    upcoming: Task
    uplink: Uplink
    tasks_left: Int[Array, " ue"]  # at the start of the frame


class Clock(NamedTuple):
    """How far a frame has come."""

    remaining: Float[Array, ""]  # s of the frame
    frame: Frame


class Interval(NamedTuple):
    """What the UEs do between two events."""

    duration: Float[Array, ""]  # s
    mode: Int[Array, " ue"]
    task: Task  # in hand; of a FREE UE, the last it had
    rate: Float[Array, " ue"]  # bit/s, of the UEs that transmit
    power: Float[Array, " ue"]  # W, of the UEs that are not FREE


def play_frame(given: Given, start: Clock) -> Frame:
    """Run the clock to the end of the frame, or until all tasks are finished, and return what happened.

    Args:
        given: Tasks and powers.
        start: As `start_clock` makes it.
    """
    return lane_while(goes_on, lambda given, clock: next_event(given, clock)[0], given, start).frame


def start_clock(given: Given, duration: Float[Array, ""], mode: Int[Array, " ue"], left: Float[Array, " ue"]) -> Clock:
    """The clock at the start of a frame.

    Args:
        given: Tasks and powers.
        duration: Length of the frame, s.
        mode: FREE, COMPUTING or TRANSMITTING.
        left: Seconds (computing) or bits (transmitting) left of the phase.
    """
    still = Frame(mode, left, jnp.zeros_like(given.tasks_left), jnp.zeros_like(left), jnp.zeros_like(left))
    return Clock(jnp.asarray(duration, left.dtype), still)


def goes_on(given: Given, clock: Clock) -> Bool[Array, ""]:
    """Whether there is a next event in the frame."""
    return (clock.remaining > 0) & jnp.any(clock.frame.mode != FREE)


def next_event(given: Given, clock: Clock) -> tuple[Clock, Interval]:
    """The clock at the next event or the end of the frame, and what the UEs do until then."""
    current, upcoming, uplink, tasks_left = given
    mode, left, finished, energy, busy = clock.frame
    computing, transmitting = mode == COMPUTING, mode == TRANSMITTING
    active = mode != FREE

    task = Task(*(jnp.where(finished > 0, new, old) for new, old in zip(upcoming, current, strict=True)))
    sending = transmitting | (uplink.all_interfere & active & (task.bits > 0))
    channel = jnp.where(uplink.all_interfere, 0, task.channel)
    sending, channel = jax.lax.optimization_barrier((sending, channel))  # or computed for each pair of UEs: 15 % slower
    others = interference(uplink.received, sending, channel)
    rate = uplink_rate(uplink.received, task.noise + others, task.bandwidth)

    speed = jnp.where(computing, 1, rate)
    due = jnp.where(active, left / speed, jnp.inf)
    step = clock.remaining
    few = due.size <= WRITTEN_OUT  # for the reason given in `interference`
    for soonest in due if few else [jnp.nanmin(due, initial=jnp.inf)]:
        step = jnp.where(soonest < step, soonest, step)  # 0 bit at 0 bit/s are never due
    step = jax.lax.optimization_barrier(step)  # or XLA computes it again for every field below: 45 % slower
    # The UE that sets the step ends its phase by comparison, not by a threshold on what is left, which in
    # float32 would be below one ulp of the clock.
    ends = due <= step

    sends_next = ends & computing & (task.bits > 0)
    finishes = ends & ~sends_next
    finished = finished + finishes
    first_mode, first_left = upcoming.first_phase()
    new_mode = jnp.where(finished < tasks_left, first_mode, FREE)
    power = jnp.where(computing, task.power, uplink.power)
    interval = Interval(step, mode, task, rate, power)
    clock = Clock(
        clock.remaining - step,
        Frame(
            mode=jnp.where(sends_next, TRANSMITTING, jnp.where(finishes, new_mode, mode)),
            left=jnp.where(sends_next, task.bits, jnp.where(finishes, first_left, jnp.maximum(left - step * speed, 0))),
            finished=finished,
            energy=energy + jnp.where(active, step * power, 0),
            busy=busy + jnp.where(active, step, 0),
        ),
    )
    return clock, interval
