"""Random failures while a layer is divided among devices: is every piece in the result once?

    python -m benchmarks.robustness.failures    # 10^5 layers of MobileNetV2; writes results/failures.txt

Each has 6 pieces on 1 to 8 devices that fail at random times, some of them absent from the start, kappa from 1.1 to 4.
Every outcome of `mec_jax.physics.neuron_allocation` is checked and compared with a simulation of the same rules, event
by event, in plain Python. Exits 1 if a piece is lost while a device lives, or any check fails.
"""

import heapq
import itertools
import math
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.physics.neuron_allocation import (
    Devices,
    Outcome,
    Pieces,
    after_submission,
    empty_queue,
    finish_layer,
    submit,
)

MAX_DEVICES = 8
NUM_PIECES = 6


class Schedule(NamedTuple):
    """One layer, who computes it, and when they fail."""

    pieces: Pieces
    devices: Devices
    device: Any  # [piece] of the first submission
    decision_time: Any  # s
    resend: Any
    timeout_factor: Any


class Simulated(NamedTuple):
    """What the event simulation found."""

    completion: list[float]  # [piece] s; infinite without a result
    queue: list[int]  # pieces in the message queue, in the order of arrival
    reassigned: int


def random_schedules(env: NeuronAllocation, number: int, seed: int) -> Schedule:
    """Schedules [schedule, ...]."""
    rng = np.random.default_rng(seed)
    params = env.params(bits_per_element=1.0)
    layer = jnp.asarray(rng.integers(env.num_layers, size=number))
    pieces = jax.vmap(env.pieces, (0, None))(layer, params)
    shape = (number, MAX_DEVICES)
    speed, bandwidth = 10 ** rng.uniform(8.5, 9.5, shape), 10 ** rng.uniform(7.5, 9.5, shape)
    alone = np.asarray(pieces.flops, float).sum(1, keepdims=True) / 1e9
    fails = rng.uniform(size=shape) < rng.uniform(size=(number, 1))
    failure = np.where(fails, rng.uniform(0, 2, shape) * alone, np.inf)
    # At least one device is there at the start.
    there = rng.uniform(size=shape) < rng.uniform(size=(number, 1))
    there[np.arange(number), rng.integers(MAX_DEVICES, size=number)] = True
    failure = np.where(there, failure, 0)
    draw = rng.uniform(size=(number, NUM_PIECES, MAX_DEVICES))
    device = np.argmin(np.where(there[:, None], draw, 2), axis=2)
    return Schedule(
        pieces,
        Devices(*(jnp.asarray(x, jnp.float32) for x in (speed, bandwidth, failure))),
        jnp.asarray(device, jnp.int32),
        jnp.asarray(rng.uniform(0, 1e-3, number) * (rng.uniform(size=number) < 0.5), jnp.float32),
        jnp.asarray(rng.uniform(size=number) < 0.5),
        jnp.asarray(rng.uniform(1.1, 4, number), jnp.float32),
    )


def execute(schedule: Schedule) -> Outcome:
    """One layer as the environment executes it."""
    pieces, devices, device, decision_time, resend, timeout_factor = schedule

    def assign(queue: Any, piece: Any) -> Any:
        after = after_submission(queue, devices, pieces, piece, (piece + 1) * decision_time, resend)
        return submit(queue, after, device[piece]), after.up[device[piece]]

    start = empty_queue(devices.speed.size, devices.speed.dtype)
    queue, completion = jax.lax.scan(assign, start, jnp.arange(device.size))
    last = jnp.sum(pieces.flops > 0) * decision_time
    return finish_layer(queue, devices, pieces, device, completion, last, resend, timeout_factor)


def three_servers(released: Sequence[float], durations: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Jobs through three servers in a row, each in the order of arrival: input, computing, output.

    Args:
        released: When each job comes to the first server, s.
        durations: Of each job at the three servers, s.

    Returns:
        When the second server begins the last job, and when the third has done all.
    """
    waiting: list[deque[int]] = [deque(), deque(), deque()]
    busy = [False, False, False]
    begun = now = 0.0
    happen = [(when, job, -1) for job, when in enumerate(released)]
    heapq.heapify(happen)
    while happen:
        now, job, server = heapq.heappop(happen)
        if server >= 0:
            busy[server] = False
        if server < 2:
            waiting[server + 1].append(job)
        for free in range(3):
            if not busy[free] and waiting[free]:
                busy[free] = True
                first = waiting[free].popleft()
                if free == 1 and first == len(durations) - 1:
                    begun = now
                heapq.heappush(happen, (now + durations[first][free], first, free))
    return begun, now


def simulate(schedule: Schedule) -> Simulated:
    """The same rules, event by event."""
    pieces, devices, device, decision_time, resend, timeout_factor = jax.tree.map(
        lambda x: np.asarray(x, float).tolist(), schedule
    )
    existing = [piece for piece, flops in enumerate(pieces.flops) if flops > 0]
    submitted: list[list[tuple[int, float]]] = [[] for _ in devices.speed]  # by device: (piece, time)
    events: list[tuple[float, int, int, str, int]] = []  # (time, rank, number, kind, piece)
    number = itertools.count()
    queue: list[int] = []
    completion = [0.0 if piece not in existing else math.inf for piece in range(len(pieces.flops))]
    reassigned = 0

    def durations(index: int, piece: int, first: bool) -> tuple[float, float, float]:
        shared = pieces.shared_bits if first or resend else 0
        speed, bandwidth = devices.speed[index], devices.bandwidth[index]
        down = (shared + pieces.own_bits[piece]) / bandwidth
        return down, pieces.flops[piece] / speed, pieces.output_bits[piece] / bandwidth

    def last_return(index: int, jobs: list[tuple[int, float]]) -> float:
        """When a device returns the last of these, if it does not fail."""
        steps = [durations(index, piece, place == 0) for place, (piece, _) in enumerate(jobs)]
        return three_servers([when for _, when in jobs], steps)[1]

    def send(piece: int, index: int, now: float, waits_from: float) -> None:
        submitted[index].append((piece, now))
        expected = last_return(index, submitted[index])
        if expected <= devices.failure[index]:
            heapq.heappush(events, (expected, 0, next(number), "result", piece))
        timeout = max(waits_from + timeout_factor * (expected - waits_from), last)
        heapq.heappush(events, (timeout, 1, next(number), "timeout", piece))

    last = len(existing) * decision_time
    for piece in existing:
        # The first wait counts from the start of the layer.
        send(piece, int(device[piece]), (piece + 1) * decision_time, 0.0)
    while events:
        now, _, _, kind, piece = heapq.heappop(events)
        if kind == "result":
            queue.append(piece)
            completion[piece] = now
        elif piece not in queue:
            alive = [index for index, failure in enumerate(devices.failure) if failure > now]
            if alive:
                reassigned += 1
                send(piece, min(alive, key=lambda i: last_return(i, [*submitted[i], (piece, now)])), now, now)
    return Simulated(completion, queue, reassigned)


def violations(schedule: Schedule, outcome: Outcome, simulated: int) -> dict[str, int]:
    """Layers in which what must not be is so; the first `simulated` ones are also simulated event by event."""
    exists = np.asarray(schedule.pieces.flops) > 0
    results, completion = np.asarray(outcome.results), np.asarray(outcome.completion)
    failure = np.asarray(schedule.devices.failure)
    lives = np.isinf(failure).any(1)
    lost = (exists & (results == 0)).any(1)
    found = {
        "a piece has no result though a device lives": np.sum(lost & lives),
        "a result of an empty piece, or more than one": np.sum(((results > 1) | (results > exists)).any(1)),
        "a result without a time, or after all devices failed": np.sum(
            (np.isfinite(completion) != ((results == 1) | ~exists)).any(1)
            | (np.where(results == 1, completion, 0).max(1) > failure.max(1))
        ),
        "submitted again though no device failed": np.sum(
            ~(np.isfinite(failure) & (failure > 0)).any(1) & (np.asarray(outcome.reassigned) > 0)
        ),
    }
    twice = differs = 0
    for index in range(simulated):
        one = simulate(jax.tree.map(lambda x, index=index: np.asarray(x)[index], schedule))
        twice += len(set(one.queue)) != len(one.queue)
        same = sorted(one.queue) == np.flatnonzero(results[index]).tolist()
        same &= one.reassigned == outcome.reassigned[index]
        differs += not (same and np.allclose(one.completion, completion[index], rtol=1e-4))
    return {
        **{name: int(count) for name, count in found.items()},
        "a piece twice in the simulated message queue": twice,
        "not as simulated": differs,
    }


def main() -> int:
    parser = command_line(__spec__.name, __doc__, RESULTS / "failures.txt")
    parser.add_argument("--schedules", type=int, default=100_000)
    args = parser.parse_args()
    start = time.perf_counter()
    env = NeuronAllocation()
    schedules = random_schedules(env, args.schedules, seed=0)
    outcome = jax.tree.map(np.asarray, jax.jit(jax.vmap(execute))(schedules))
    schedules = jax.tree.map(np.asarray, schedules)
    found = violations(schedules, outcome, args.schedules)
    failure = schedules.devices.failure
    about = machine()
    lines = [
        f"{args.schedules} layers with random failures on {about['cpu']}, JAX {about['jax']}",
        f"devices that failed: {np.sum(np.isfinite(failure) & (failure > 0))}; pieces submitted again: "
        f"{np.sum(outcome.reassigned)}, at most {np.max(outcome.reassigned)} in a layer",
        f"layers that no device survived: {np.sum(~np.isinf(failure).any(1))}, of which without all results: "
        f"{np.sum(np.isinf(outcome.completion).any(1))}",
        *(f"{count:6d}  {name}" for name, count in found.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text + f"{time.perf_counter() - start:.0f} s")
    write_result(args.out, text)
    return int(any(found.values()))


if __name__ == "__main__":
    sys.exit(main())
