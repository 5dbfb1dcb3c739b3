"""The systems that Huang et al. 2022 (DeColla) compare, and what each panel of Fig. 6 measures of them.

Latencies are of the model, not of machines: `panels` runs it, and `claims` judges the paper by that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.envs.neuron_sharing import NeuronSharing
from mec_jax.envs.neuron_sharing import Params as SharingParams
from mec_jax.physics.neuron_allocation import Devices, Queue, after_submission, empty_queue, finish_layer, submit
from mec_jax.profiles.layers import layer_table
from mec_jax.profiles.neurons import load_neuron_table
from mec_jax.solvers import neuron_allocation as solvers
from mec_jax.solvers.neurons import shortest_completion

MBPS = 1e6  # bit/s
NETWORK = "mobilenet_v2"
DEVICES = 3
DEVICE_SPEED = 3e9
"""FLOP/s of an idle Raspberry Pi 4, as in `NeuronAllocation`: 6 % of its peak of 48 GFLOP/s."""
EDGE_SPEED = 35e9
"""FLOP/s of the edge server. The paper says six cores of 2.9 GHz: the same 6 % of 32 FLOP a cycle and core."""
IMAGE_BITS = 8
"""bit of a value of the image: partition-offloading sends it if the edge computes everything."""
USAGE = 0.3
"""Of each device by others, in Fig. 6a, and in 6c to 6f, where the paper gives none."""

USAGE_SPREAD = 0.1
"""In each run of Fig. 6e the usages of the devices that are not varied are uniform within this of `USAGE`."""
WINDOW_TASKS = 2
"""Inferences that fill a device, where use is counted over a window; the paper does not say over what it is."""

MOBILE, PARTITION, HIERARCHICAL, DECOLLA = "Mobile-only", "Partition-offloading", "Hierarchical", "DeColla"
SYSTEMS = (MOBILE, PARTITION, HIERARCHICAL, DECOLLA)
REPLANNED = "Hierarchical, planned anew"


@dataclass(frozen=True)
class Reading:
    """What is exchanged, where the paper does not say."""

    bits: float  # bit of an element that goes from device to device, or to the edge
    decolla_bits: float  # the same within a layer, of DeColla alone
    resend: bool  # DeColla's shared input goes along with every piece
    bandwidth: float  # Mbit/s of each link, where it does not vary


# The network between whose parts one tensor goes


class Parts(NamedTuple):
    """Parts of a network that can run on different devices: what is between two residual sums stays together."""

    flops: np.ndarray  # [part] FLOP
    input_elements: np.ndarray  # [part]
    output_elements: np.ndarray  # [part]


def parts_of(network: str = NETWORK) -> Parts:
    """The parts of a generated network; FLOP are those of `load_neuron_table`."""
    table = load_neuron_table(network)
    place = {name: index for index, name in enumerate(table.layer_names)}
    work = np.array(table.neurons) * np.array(table.neuron_flops)
    current, ends = -1, list[int]()
    for layer in layer_table(network):
        current = place.get(layer.name, current)
        if layer.cut and current >= 0 and (not ends or ends[-1] != current):
            ends.append(current)
    starts = [0, *(end + 1 for end in ends[:-1])]
    inputs = np.array(table.input_elements)[starts]
    return Parts(
        np.add.reduceat(work, starts), inputs, np.append(inputs[1:], table.output_elements[-1])
    )  # what the next part reads may be less than the layer put out: pooling comes between


# The systems


class Inference(NamedTuple):
    """One inference by DeColla's mechanism."""

    latency: Any  # s
    busy: Any  # [device] s that each computes, without failures
    piece_time: Any  # [layer, piece] s from the start of the layer, as expected


def decolla(
    env: NeuronAllocation,
    params: Params,
    devices: Devices,
    timeout_factor: Float[Array, ""],
) -> Inference:
    """Each layer divided by shortest completion, as `mec_jax.solvers.neuron_allocation.intra_layer` does, with
    failures that the requester learns of by timeouts alone.

    After a layer in which a result was missing, the requester has asked who is there. Until then it goes on submitting
    to a device that has failed.

    Args:
        env: The environment whose layers these are; static.
        params: Of these, the layers, bits and the rule of exchange count.
        devices: FLOP/s that are free, bit/s, and failures in s after the request, infinite without one.
        timeout_factor: kappa.
    """
    speed, failure = devices.speed, devices.failure
    now = jnp.zeros_like(speed[0])

    def run_layer(carry: tuple, index: Array) -> tuple[tuple, tuple]:
        start, found = carry
        pieces = env.pieces(index, params)
        here = devices._replace(failure=jnp.maximum(failure - start, 0))

        def assign(queue: Queue, piece: Array) -> tuple[Queue, tuple[Array, Array]]:
            after = after_submission(queue, here, pieces, piece, now, params.resend_input)
            device = jnp.argmin(jnp.where(found, jnp.inf, after.up))
            return submit(queue, after, device), (device, after.up[device])

        queue = empty_queue(speed.size, speed.dtype)
        queue, (device, expected) = jax.lax.scan(assign, queue, jnp.arange(env.num_pieces))
        outcome = finish_layer(queue, here, pieces, device, expected, now, params.resend_input, timeout_factor)
        latency = jnp.max(outcome.completion)
        missing = jnp.any((pieces.flops > 0) & (expected > here.failure[device]))
        busy = jnp.zeros_like(speed).at[device].add(pieces.flops) / speed
        return (start + latency, found | (missing & (failure <= start + latency))), (busy, expected)

    (latency, _), (busy, expected) = jax.lax.scan(
        run_layer, (now, jnp.zeros(speed.size, bool)), jnp.arange(env.num_layers)
    )
    return Inference(latency, jnp.sum(busy, axis=0), expected)


@partial(jax.jit, static_argnames="env")
def _decolla(env: NeuronAllocation, params: Params, devices: Devices, timeout_factor: Array) -> Inference:
    return jax.vmap(decolla, (None, None, 0, None))(env, params, devices, timeout_factor)


def decolla_runs(
    env: NeuronAllocation,
    reading: Reading,
    speed: np.ndarray,
    bandwidth: np.ndarray,
    failure: np.ndarray | None = None,
    timeout_factor: float = 1,
) -> Inference:
    """Many inferences; arrays `[run, device]` and `bandwidth` `[run]` of all links (bit/s)."""
    params = env.params(bits_per_element=reading.decolla_bits, resend_input=reading.resend)
    links = np.broadcast_to(np.asarray(bandwidth, float)[:, None], speed.shape)
    failure = np.full(speed.shape, np.inf) if failure is None else failure
    devices = Devices(*(jnp.asarray(x, jnp.float32) for x in (speed, links, failure)))
    found = _decolla(env, params, devices, jnp.asarray(timeout_factor, jnp.float32))
    return jax.tree.map(lambda x: np.asarray(x, float), found)


def blocks(flops: np.ndarray, speed: np.ndarray) -> np.ndarray:
    """The device of each part: contiguous blocks in proportion to speeds, by the rule of `solvers.hierarchical`."""
    middle = (np.cumsum(flops) - flops / 2) / np.sum(flops)
    return np.minimum(np.searchsorted(np.cumsum(speed) / np.sum(speed), middle), speed.size - 1)


def block_times(
    parts: Parts, bits: float, device: np.ndarray, speed: np.ndarray, bandwidth: float
) -> list[tuple[int, int, float, float]]:
    """Of each block in order: device, first part, s to compute it, s to send its output on."""
    starts = np.flatnonzero(np.append(True, device[1:] != device[:-1]))
    ends = np.append(starts[1:], device.size)
    return [
        (
            int(device[start]),
            int(start),
            float(np.sum(parts.flops[start:end]) / speed[device[start]]),
            float(parts.output_elements[end - 1] * bits / bandwidth),
        )
        for start, end in zip(starts, ends, strict=True)
    ]


class Hierarchical(NamedTuple):
    """One inference, block after block."""

    latency: float  # s
    busy: np.ndarray  # [device] s that each computes, without failures
    interrupted: bool  # a device failed before it had handed on its block


def hierarchical(
    parts: Parts,
    bits: float,
    speed: np.ndarray,
    bandwidth: float,
    planned_speed: np.ndarray | None = None,
    failure: np.ndarray | None = None,
    timeout_factor: float = 1,
) -> Hierarchical:
    """Blocks of layers on one device after the other; without failures and with `planned_speed` = `speed` it takes
    what `solvers.hierarchical` says, without upkeep of an IP table.

    A device that fails before it has handed on its block is missed after `timeout_factor` times the time expected of
    the block. The rest of the network, from that block on, is then planned anew for the others, and the block's input
    sent again; whoever had that is taken to have it still.

    Args:
        parts: Of the network.
        bits: bit of an element.
        speed: FLOP/s that are free, `[device]`.
        bandwidth: bit/s of all links.
        planned_speed: By which the blocks are planned; `speed` if absent.
        failure: s after the request, `[device]`; none if absent.
        timeout_factor: kappa.
    """
    planned = speed if planned_speed is None else planned_speed
    failure = np.full(speed.size, np.inf) if failure is None else failure
    there, first, now, interrupted = np.arange(speed.size), 0, 0.0, False
    busy = np.zeros(speed.size)
    while first < parts.flops.size:
        rest = Parts(*(x[first:] for x in parts))
        device = there[blocks(rest.flops, planned[there])]
        for who, start, compute, send in block_times(rest, bits, device, speed, bandwidth):
            if now + compute + send > failure[who]:
                again = rest.input_elements[start] * bits / bandwidth
                now += timeout_factor * (compute + send) + again
                there, first, interrupted = there[there != who], first + start, True
                break
            now += compute + send
            busy[who] += compute
        else:
            break
    return Hierarchical(now, busy, interrupted)


def offloaded(parts: Parts, bits: float, speed: float, bandwidth: float, edge_speed: float) -> solvers.Offloaded:
    """Latency (s) of partition-offloading, and FLOP that stay on the device."""
    cut_bits = np.append(parts.input_elements * bits, 0.0)
    cut_bits[0] = parts.input_elements[0] * min(bits, IMAGE_BITS)
    return solvers.partition_offloading(parts.flops, cut_bits, speed, bandwidth, edge_speed)


# Measuring


def use_variance(busy: np.ndarray, latency: np.ndarray | float) -> np.ndarray:
    """Variance over devices of the part of the time `[...]` in which each computes, busy `[..., device]`."""
    return np.var(busy / np.asarray(latency)[..., None], axis=-1)


def systems(
    env: NeuronAllocation, parts: Parts, reading: Reading, bandwidths: np.ndarray, usages: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """[system][latency (s), variance (of use), edge (part of the FLOP at the edge)] at points of bandwidth (bit/s) and
    usage of all devices.
    """
    speed = (1 - usages) * DEVICE_SPEED
    runs = decolla_runs(env, reading, np.repeat(speed[:, None], DEVICES, 1), bandwidths)
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in SYSTEMS}
    for point, (c, bandwidth) in enumerate(zip(speed, bandwidths, strict=True)):

        def row(latency: float, busy: Sequence[float] | np.ndarray, edge: float = 0.0) -> tuple[float, float, float]:
            return latency, float(use_variance(np.asarray(busy), latency)), edge

        alone = solvers.mobile_only(parts.flops, c)
        others = [0.0] * (DEVICES - 1)
        rows[MOBILE].append(row(alone, [alone, *others]))
        latency, kept = offloaded(parts, reading.bits, c, bandwidth, EDGE_SPEED)
        rows[PARTITION].append(row(latency, [kept / c, *others], 1 - kept / np.sum(parts.flops)))
        in_blocks = hierarchical(parts, reading.bits, np.full(DEVICES, c), bandwidth)
        rows[HIERARCHICAL].append(row(in_blocks.latency, in_blocks.busy))
        rows[DECOLLA].append(row(runs.latency[point], runs.busy[point]))
    names = ("latency", "variance", "edge")
    return {name: dict(zip(names, np.array(row).T, strict=True)) for name, row in rows.items()}


COUNTINGS = ("while tasks run", "in a window")
"""Of device use under concurrent tasks: in the time until all are done, or in that of `WINDOW_TASKS` on one device."""


def concurrent(parts: Parts, reading: Reading, tasks: Sequence[int], network: str = NETWORK) -> dict[str, Any]:
    """Fig. 6d: variance of device use [counting][system] and mean latency (s) [system], [number of tasks].

    Mobile-only and partition-offloading fill one device after the other, as the paper says: the next one is used when
    one has as many inferences as fill it, which is one while tasks run. Inferences wait for those before them on their
    device; the edge and its links are taken to be enough for all.
    """
    c, bandwidth = (1 - USAGE) * DEVICE_SPEED, reading.bandwidth * MBPS
    window = WINDOW_TASKS * solvers.mobile_only(parts.flops, c)
    alone, kept = offloaded(parts, reading.bits, c, bandwidth, EDGE_SPEED)
    # What one inference takes, and what of it the device computes.
    single = {MOBILE: (window / WINDOW_TASKS, window / WINDOW_TASKS), PARTITION: (alone, kept / c)}
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in (*COUNTINGS, "latency")}

    def add(table: str, name: str, value: Any) -> None:
        rows[table].setdefault(name, []).append(float(value))

    for number in tasks:
        for name, (takes, computes) in single.items():
            for counting, full in zip(COUNTINGS, (1, WINDOW_TASKS), strict=True):
                device = np.arange(number) // full % DEVICES
                before = np.array([np.sum(device[:task] == device[task]) for task in range(number)])
                latency = takes + before * computes
                over = np.max(latency) if counting == COUNTINGS[0] else max(window, np.max(latency))
                busy = computes * np.bincount(device, minlength=DEVICES)
                add(counting, name, use_variance(busy, over))
                if counting == COUNTINGS[0]:
                    add("latency", name, np.mean(latency))
        env = NeuronSharing(network, num_requesters=number, num_devices=DEVICES)
        params = env.params(
            usage_low=USAGE,
            usage_high=USAGE,
            device_speed=DEVICE_SPEED,
            bandwidth_low=bandwidth,
            bandwidth_high=bandwidth,
            bits_per_element=reading.decolla_bits,
            resend_input=reading.resend,
        )
        computing, end, mean = _shared(env, params)
        add(COUNTINGS[0], DECOLLA, use_variance(np.asarray(computing), float(end)))
        add(COUNTINGS[1], DECOLLA, use_variance(np.asarray(computing), max(window, float(end))))
        add("latency", DECOLLA, mean)
    return {table: {name: np.array(values) for name, values in row.items()} for table, row in rows.items()}


@partial(jax.jit, static_argnames="env")
def _shared(env: NeuronSharing, params: SharingParams) -> tuple[Array, Array, Array]:
    """One episode by shortest completion: s that each device computes, s until all is done, mean latency (s)."""
    key = jax.random.key(0)

    def step(carry: tuple, _: None) -> tuple[tuple, Array]:
        observation, state = carry
        action = shortest_completion(env, params, observation, key)
        observation, state, _reward, _over, info = env.step_env(key, state, action, params)
        return (observation, state), info["latency"]

    decisions = env.num_requesters * sum(min(neurons, env.num_pieces) for neurons in env.network.neurons)
    (_, state), latency = jax.lax.scan(step, env.reset_env(key, params), length=decisions)
    return state.sharing.busy, jnp.max(state.sharing.completion), latency[-1]


def one_device_loaded(
    env: NeuronAllocation, parts: Parts, reading: Reading, usages: Sequence[float], runs: int
) -> dict[str, dict[str, np.ndarray]]:
    """Fig. 6e: [system][processing, waiting] in s, [usage, run], as one device has each usage.

    Processing is the latency. Waiting is the time in which a device computes nothing for the inference, mean over
    devices. In each run the loaded device and the usages of the others are drawn, the same at each usage.
    """
    rng = np.random.default_rng(0)
    usage = USAGE + rng.uniform(-USAGE_SPREAD, USAGE_SPREAD, (runs, DEVICES))
    loaded = rng.integers(DEVICES, size=runs)
    every = np.repeat(usage[None], len(usages), 0)
    every[:, np.arange(runs), loaded] = np.asarray(usages)[:, None]
    speed = (1 - every.reshape(-1, DEVICES)) * DEVICE_SPEED
    bandwidth = reading.bandwidth * MBPS
    found = decolla_runs(env, reading, speed, np.full(len(speed), bandwidth))
    planned = np.tile((1 - usage) * DEVICE_SPEED, (len(usages), 1))
    stale = [hierarchical(parts, reading.bits, c, bandwidth, p) for c, p in zip(speed, planned, strict=True)]
    anew = [hierarchical(parts, reading.bits, c, bandwidth) for c in speed]

    def table(latency: Any, busy: Any) -> dict[str, np.ndarray]:
        waiting = np.asarray(latency) - np.mean(busy, axis=-1)
        shape = (len(usages), runs)
        return {"processing": np.reshape(latency, shape), "waiting": np.reshape(waiting, shape)}

    return {
        HIERARCHICAL: table([x.latency for x in stale], [x.busy for x in stale]),
        REPLANNED: table([x.latency for x in anew], [x.busy for x in anew]),
        DECOLLA: table(found.latency, found.busy),
    }


def disconnected(
    env: NeuronAllocation, parts: Parts, reading: Reading, kappas: Sequence[float], trials: int
) -> dict[str, Any]:
    """Fig. 6f: latencies (s) when one or two devices disconnect, [lost][system][kappa, trial].

    In each trial the devices are drawn, and the instants, uniform over what each system takes undisturbed: so both are
    disturbed at the same part of their inference.
    """
    rng = np.random.default_rng(0)
    speed, bandwidth = np.full(DEVICES, (1 - USAGE) * DEVICE_SPEED), reading.bandwidth * MBPS
    calm = {
        HIERARCHICAL: hierarchical(parts, reading.bits, speed, bandwidth).latency,
        DECOLLA: float(decolla_runs(env, reading, speed[None], np.array([bandwidth])).latency[0]),
    }
    panel: dict[str, Any] = {"undisturbed": calm}
    speeds, links = np.tile(speed, (trials, 1)), np.full(trials, bandwidth)
    for lost in (1, 2):
        gone = np.argsort(rng.uniform(size=(trials, DEVICES)), axis=1) < lost
        instant = np.where(gone, rng.uniform(size=(trials, DEVICES)), np.inf)
        in_blocks = [
            [
                hierarchical(parts, reading.bits, speed, bandwidth, None, times, kappa)
                for times in instant * calm[HIERARCHICAL]
            ]
            for kappa in kappas
        ]
        panel[str(lost)] = {
            HIERARCHICAL: np.array([[one.latency for one in row] for row in in_blocks]),
            "interrupted": np.array([one.interrupted for one in in_blocks[0]]),
            DECOLLA: np.array(
                [decolla_runs(env, reading, speeds, links, instant * calm[DECOLLA], kappa).latency for kappa in kappas]
            ),
        }
    pieces = decolla_runs(env, reading, speed[None], np.array([bandwidth])).piece_time
    in_order = block_times(parts, reading.bits, blocks(parts.flops, speed), speed, bandwidth)
    panel["expected"] = {
        "piece": float(np.mean(pieces)),
        "longest piece": float(np.max(pieces)),
        "block": float(np.mean([compute + send for _, _, compute, send in in_order])),
    }
    return panel


# Exchange rules

RULES = ("own link, input once a layer", "own link, input with every piece", "one channel, inputs multicast")
"""The two of the environment, and one medium that carries each layer's input once for all, then all outputs."""


def exchange_latencies(env: NeuronAllocation, bits: float, rule: str, bandwidths: Sequence[float]) -> np.ndarray:
    """Latency of DeColla (s) at bandwidths (Mbit/s), all devices at `USAGE`."""
    speed = (1 - USAGE) * DEVICE_SPEED
    links = np.array(bandwidths) * MBPS
    if rule == RULES[2]:
        # No worse than this: the work divided evenly to the last FLOP, whatever the layer.
        elements = sum(env.network.input_elements) + sum(env.network.output_elements)
        work = np.sum(np.array(env.network.neurons) * np.array(env.network.neuron_flops))
        return elements * bits / links + work / (DEVICES * speed)
    reading = Reading(bits, bits, rule == RULES[1], 0)
    return decolla_runs(env, reading, np.full((links.size, DEVICES), speed), links).latency


def crossover(bandwidths: Sequence[float], ours: np.ndarray, theirs: np.ndarray) -> float:
    """Least bandwidth from which on `ours` is less, NaN without one; to the grid."""
    better = np.logical_and.accumulate((ours < theirs)[::-1])[::-1]
    return float(np.asarray(bandwidths)[np.argmax(better)]) if better.any() else float("nan")


@dataclass(frozen=True)
class Exchange:
    """DeColla under one rule of exchange."""

    bits: float
    rule: str
    latency: tuple[float, ...]  # s at 10, 20 and 1000 Mbit/s
    beats_hierarchical: float  # Mbit/s from which on; NaN: nowhere on the grid
    beats_mobile: float  # Mbit/s


def exchanges(env: NeuronAllocation, bandwidths: Sequence[float]) -> list[Exchange]:
    """DeColla under all rules, at 32, 8 and 1 bit an element; the hierarchical system with the same bits.

    Args:
        env: The network and the devices.
        bandwidths: Mbit/s among which it is looked for where DeColla becomes faster.
    """
    parts, speed = parts_of(), np.full(DEVICES, (1 - USAGE) * DEVICE_SPEED)
    grid = sorted({*bandwidths, 10.0, 20.0, 1000.0})
    rows = []
    for bits in (32, 8, 1):
        in_blocks = np.array([hierarchical(parts, bits, speed, b * MBPS).latency for b in grid])
        alone = solvers.mobile_only(parts.flops, speed[0])
        for rule in RULES:
            ours = exchange_latencies(env, bits, rule, grid)
            shown_at = tuple(float(ours[grid.index(b)]) for b in (10.0, 20.0, 1000.0))
            rows.append(
                Exchange(
                    bits, rule, shown_at, crossover(grid, ours, in_blocks), crossover(grid, ours, alone + 0 * ours)
                )
            )
    return rows
