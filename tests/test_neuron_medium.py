"""The medium of `NeuronAllocation-v0`: private, half-duplex and shared channels against a simulation of events."""

import heapq
import itertools
import math
from collections import defaultdict, deque
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from mec_jax.envs.neuron_allocation import NeuronAllocation, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.physics.neuron_allocation import (
    MEDIA,
    Channels,
    Devices,
    Medium,
    Pieces,
    after_submission,
    channels_of,
    empty_queue,
    finish_layer,
    plan,
    submit,
)
from mec_jax.solvers import neuron_allocation as solvers
from mec_jax.solvers import neurons
from mec_jax.testing import check_env, check_solver
from tests import tolerance
from tests.documents import NEURONS, write

OTHERS: tuple[Medium, ...] = ("half_duplex", "shared")
KEY = jax.random.key(0)
PIECES, DEVICES = 6, 3
ROUNDINGS = 3 * (2 * PIECES + PIECES)
"""Of a completion time: it is a sum of at most 2 K transmissions and K computations, each of which is rounded once when
its bits are added, once as a quotient, and once when it is added to the time before.
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tiny"), NEURONS)


# --- The same rules, event by event ---


class Layer(NamedTuple):
    """One layer and who computes it, as lists of numbers, or as arrays [layer, ...]."""

    pieces: Any
    devices: Any
    device: Any
    time: Any  # s of each piece's submission; infinite: not submitted
    resend: Any


class Served(NamedTuple):
    """s when each piece's input was sent, when it was computed, and when its output was there; 0 if never."""

    sent: list[float]
    computed: list[float]
    completion: list[float]


def channel_of(medium: Medium, device: int, is_output: bool) -> Hashable:
    return {"private": (device, is_output), "half_duplex": device, "shared": "the only one"}[medium]


def simulate(layer: Layer, medium: Medium) -> Served:
    """What was submitted, event by event."""
    pieces, devices, device, time, resend = layer
    number = range(len(device))
    events: list[tuple[float, str, int]] = []  # (time, what has just happened, piece)
    waiting: dict[Hashable, list[tuple[float, bool, int]]] = defaultdict(list)  # by channel: (since, is output, piece)
    inbox: dict[int, deque[int]] = defaultdict(deque)
    busy: set[Hashable] = set()
    informed: set[int] = set()
    served = Served(*([0.0] * len(device) for _ in range(3)))
    bits = {}
    for piece in number:
        if pieces.flops[piece] > 0 and math.isfinite(time[piece]):
            new = resend or device[piece] not in informed
            informed.add(device[piece])
            bits[piece, False] = pieces.own_bits[piece] + (pieces.shared_bits if new else 0)
            bits[piece, True] = pieces.output_bits[piece]
            heapq.heappush(events, (time[piece], "submitted", piece))
    while events:
        now = events[0][0]
        while events and events[0][0] == now:
            _, what, piece = heapq.heappop(events)
            place, link = device[piece], channel_of(medium, device[piece], what == "output sent")
            if what == "submitted":
                heapq.heappush(waiting[channel_of(medium, place, False)], (now, False, piece))
            elif what == "input sent":
                busy.remove(link)
                served.sent[piece] = now
                inbox[place].append(piece)
            elif what == "computed":
                busy.remove(("processor", place))
                served.computed[piece] = now
                heapq.heappush(waiting[channel_of(medium, place, True)], (now, True, piece))
            else:
                busy.remove(link)
                served.completion[piece] = now
        for link, queue in waiting.items():
            if queue and link not in busy:
                _, is_output, piece = heapq.heappop(queue)
                busy.add(link)
                takes = bits[piece, is_output] / devices.bandwidth[device[piece]]
                heapq.heappush(events, (now + takes, "output sent" if is_output else "input sent", piece))
        for place, arrived in inbox.items():
            if arrived and ("processor", place) not in busy:
                piece = arrived.popleft()
                busy.add(("processor", place))
                heapq.heappush(events, (now + pieces.flops[piece] / devices.speed[place], "computed", piece))
    return served


class Free(NamedTuple):
    """s when each device's channels have sent all inputs, it has computed, and its channels have nothing to send."""

    down: list[float]
    cpu: list[float]
    up: list[float]


def free_after(layer: Layer, medium: Medium, served: Served) -> Free:
    """The queue that is left."""
    free = Free(*([0.0] * len(layer.devices.speed) for _ in range(3)))
    for mine, (piece, theirs) in itertools.product(range(len(layer.devices.speed)), enumerate(layer.device)):
        sends, returns = (channel_of(medium, theirs, is_output) for is_output in (False, True))
        if sends == channel_of(medium, mine, False):
            free.down[mine] = max(free.down[mine], served.sent[piece])
        if mine == theirs:
            free.cpu[mine] = max(free.cpu[mine], served.computed[piece])
        for link, when in ((sends, served.sent[piece]), (returns, served.completion[piece])):
            if link == channel_of(medium, mine, True):
                free.up[mine] = max(free.up[mine], when)
    return free


def finish(layer: Layer, medium: Medium, timeout_factor: float) -> tuple[list[float], int]:
    """Completion times after all timeouts (infinite without a result), and how often a piece was submitted again."""
    pieces, devices, device, time, resend = layer
    existing = [piece for piece, flops in enumerate(pieces.flops) if flops > 0]
    served = simulate(layer, medium)
    free = free_after(layer, medium, served)
    channels: dict[Hashable, float] = {}
    for mine in range(len(devices.speed)):
        channels[channel_of(medium, mine, False)] = free.down[mine] if medium == "private" else free.up[mine]
        channels[channel_of(medium, mine, True)] = free.up[mine]
    informed = {device[piece] for piece in existing}
    completion, reassigned = list(served.completion), 0
    timeouts: list[tuple[float, int]] = []
    for piece in existing:
        if completion[piece] > devices.failure[device[piece]]:
            last = max(when for when in time if math.isfinite(when))
            heapq.heappush(timeouts, (max(timeout_factor * completion[piece], last), piece))
            completion[piece] = math.inf
    while timeouts:
        now, piece = heapq.heappop(timeouts)
        found = []
        for place, failure in enumerate(devices.failure):
            down, up = (channel_of(medium, place, is_output) for is_output in (False, True))
            shared = pieces.shared_bits if resend or place not in informed else 0
            sent = max(channels[down], now) + (shared + pieces.own_bits[piece]) / devices.bandwidth[place]
            computed = max(free.cpu[place], sent) + pieces.flops[piece] / devices.speed[place]
            begins = max(computed, channels[up])
            returned = begins + pieces.output_bits[piece] / devices.bandwidth[place]
            if failure > now:
                found.append((returned, place, sent, computed))
        if found:
            returned, place, sent, computed = min(found)
            reassigned += 1
            informed.add(place)
            channels[channel_of(medium, place, False)] = sent
            channels[channel_of(medium, place, True)] = returned
            free.cpu[place] = computed
            if returned <= devices.failure[place]:
                completion[piece] = returned
            else:
                heapq.heappush(timeouts, (now + timeout_factor * (returned - now), piece))
    return completion, reassigned


# --- Random layers ---


def random_layers(number: int, seed: int) -> Layer:
    """Layers of whole numbers, with powers of two to divide by: exact in float32, whatever the order of additions, and
    with many transmissions that come at once. In half of them decisions take time, in half inputs are sent again, and
    in some of them not all pieces exist or are submitted.
    """
    rng = np.random.default_rng(seed)
    count = rng.integers(1, PIECES + 1, (number, 2))
    exists = np.arange(PIECES) < count.max(1, keepdims=True)
    bits = 4.0 * rng.integers(0, 8, (number, PIECES, 2)) * (rng.uniform(size=(number, 1, 2)) < 0.7)
    flops = np.where(exists, 4.0 * rng.integers(1, 8, (number, PIECES)), 0)
    shared_bits = 4.0 * rng.integers(0, 10, number)
    own_bits, output_bits = (np.where(exists, bits[..., way], 0) for way in range(2))
    speed, bandwidth = 2.0 ** rng.integers(0, 3, (2, number, DEVICES))
    failure = np.where(rng.uniform(size=(number, DEVICES)) < 0.5, rng.integers(1, 60, (number, DEVICES)), np.inf)
    step = rng.integers(1, 16, (number, 1)) * (np.arange(number)[:, None] % 2)
    submitted = np.where(np.arange(number) % 3 == 0, count.min(1), count.max(1))[:, None]
    time = np.where(np.arange(PIECES) < submitted, (np.arange(PIECES) + 1) * step, np.inf)
    return Layer(
        Pieces(*map(jnp.float32, (flops, shared_bits, own_bits, output_bits))),
        Devices(*map(jnp.float32, (speed, bandwidth, failure))),
        jnp.int32(rng.integers(0, DEVICES, (number, PIECES))),
        jnp.float32(time),
        jnp.arange(number) % 4 < 2,
    )


def each(layers: Layer) -> Iterator[Layer]:
    """One after the other, as lists."""
    layers = jax.tree.map(np.asarray, layers)
    for index in range(len(layers.resend)):
        yield jax.tree.map(lambda x, index=index: x[index].tolist(), layers)


@jax.jit
def planned(layers: Layer, channels: Channels) -> Any:
    def one(layer: Layer) -> Any:
        return plan(layer.devices, layer.pieces, layer.device, layer.time, layer.resend, channels)

    return jax.vmap(one)(layers)


def completions(layers: Layer, medium: Medium) -> np.ndarray:
    """[layer, piece] s; 0 for pieces that are not submitted."""
    return np.asarray(planned(layers, channels_of(medium, DEVICES))[1])


@pytest.mark.parametrize("medium", MEDIA)
def test_plans_are_those_of_a_simulation_of_events(medium: Medium) -> None:
    """Exactly: no number here needs rounding."""
    layers = random_layers(600, seed=0)
    queue, completion = planned(layers, channels_of(medium, DEVICES))
    for index, layer in enumerate(each(layers)):
        served = simulate(layer, medium)
        assert completion[index].tolist() == served.completion
        free = free_after(layer, medium, served)
        assert [x[index].tolist() for x in queue[:3]] == list(free)
        went = {
            place
            for place, when, flops in zip(layer.device, layer.time, layer.pieces.flops, strict=True)
            if math.isfinite(when) and flops > 0
        }
        assert set(np.flatnonzero(queue.informed[index])) == went


def test_private_channels_have_the_closed_form() -> None:
    """The whole layer, what failed and was submitted again included."""
    layers = random_layers(600, seed=1)
    everything = jnp.where(layers.pieces.flops > 0, jnp.arange(PIECES) * 3.0 * (jnp.arange(600)[:, None] % 2), jnp.inf)
    layers = layers._replace(time=everything)
    channels = channels_of("private", DEVICES)

    @jax.jit
    @jax.vmap
    def both(layer: Layer) -> Any:
        pieces, devices, device, time, resend = layer
        planned = plan(devices, pieces, device, time, resend, channels)

        def assign(queue: Any, piece: Any) -> Any:
            after = after_submission(queue, devices, pieces, piece, time[piece], resend)
            exists = pieces.flops[piece] > 0
            new = jax.tree.map(lambda new, old: jnp.where(exists, new, old), submit(queue, after, device[piece]), queue)
            return new, jnp.where(exists, after.up[device[piece]], 0)

        closed = jax.lax.scan(assign, empty_queue(DEVICES, time.dtype), jnp.arange(PIECES))

        def outcome(queue: Any, completion: Any, channels: Any) -> Any:
            last, factor = jnp.max(jnp.where(jnp.isfinite(time), time, 0)), jnp.array(2.0)
            return finish_layer(queue, devices, pieces, device, completion, last, resend, factor, channels=channels)

        return (planned, outcome(*planned, channels)), (closed, outcome(*closed, None))

    general, closed = both(layers)
    jax.tree.map(np.testing.assert_array_equal, general, closed)
    assert np.sum(closed[1].reassigned) > 300


@pytest.mark.parametrize("medium", OTHERS)
def test_a_later_submission_changes_nothing_that_lies_before_it(medium: Medium) -> None:
    layers = random_layers(600, seed=2)
    time = np.arange(PIECES) * np.random.default_rng(2).integers(0, 12, (600, 1)) * 1.0
    before = np.zeros((600, PIECES))
    delayed = 0
    for piece in range(PIECES):
        after = completions(layers._replace(time=jnp.where(jnp.arange(PIECES) <= piece, time, jnp.inf)), medium)
        was = before[:, :piece]
        assert (after[:, :piece] >= was).all()
        past = was < time[:, piece : piece + 1]
        np.testing.assert_array_equal(after[:, :piece][past], was[past])
        delayed += int(np.sum(after[:, :piece] > was))
        before = after
    assert delayed > 100  # which on private links never happens


def test_fewer_channels_are_never_faster() -> None:
    """Of the same assignment, for each piece. Between the two that are not private only if all inputs come at once:
    see the next test.
    """
    layers = random_layers(600, seed=3)
    private, half, shared = (completions(layers, medium) for medium in MEDIA)
    assert (half >= private).all() and (shared >= private).all()
    at_once = np.max(np.where(np.isfinite(layers.time), layers.time, 0), axis=1) == 0
    assert (shared >= half)[at_once].all()
    assert (half > private).any(1).sum() > 100 and (shared > half)[at_once].any(1).sum() > 100
    alone = layers._replace(device=jnp.full_like(layers.device, 1))
    np.testing.assert_array_equal(completions(alone, "shared"), completions(alone, "half_duplex"))


def test_a_wait_on_the_shared_channel_can_let_an_input_pass_an_output() -> None:
    """Device 1 gets 2 bit at first. On the shared channel, device 0 so has its first result of 10 bit at 4 s, after
    the input that comes at 3 s; over its own link it has it at 2 s, and sends it for 10 s before that input.
    """
    pieces = Pieces(*map(jnp.array, ([90.0, 1, 5], 0.0, [2.0, 1, 1], [1.0, 10, 10])))
    devices = Devices(jnp.ones(2), jnp.ones(2), jnp.full(2, jnp.inf))
    found = {}
    for medium in OTHERS:
        channels = channels_of(medium, 2)
        time = jnp.array([0.0, 0, 3])
        found[medium] = plan(devices, pieces, jnp.array([1, 0, 0]), time, jnp.array(False), channels)[1].tolist()
    assert found == {"half_duplex": [93, 12, 28], "shared": [93, 14, 24]}


# --- Episodes ---


def steps_of(env: NeuronAllocation, params: Params, key: Any, steps: int) -> Any:
    """States before and after, rewards, ends and infos [step] of random actions; without a reset."""

    def step(state: Any, key: Any) -> Any:
        action_key, step_key = jax.random.split(key)
        action = env.action_space(params).sample(action_key)
        _, after, reward, terminated, info = env.step_env(step_key, state, action, params)
        return after, (state, after, reward, terminated, info)

    reset_key, key = jax.random.split(key)
    return jax.lax.scan(step, env.reset_env(reset_key, params)[1], jax.random.split(key, steps))[1]


rollout = jax.jit(steps_of, static_argnums=(0, 3))
rollouts = jax.jit(jax.vmap(steps_of, (None, None, 0, None)), static_argnums=(0, 3))


def layer_of(env: NeuronAllocation, params: Params, state: Any, layer: int, device: Any, submitted: int) -> Layer:
    """A layer of an episode after some submissions, as lists."""
    pieces, devices = env.pieces(jnp.array(layer), params), env.devices(state.context, params)
    time = (np.arange(env.num_pieces) + 1) * float(params.decision_time)
    time = np.where(np.arange(env.num_pieces) < submitted, time, np.inf)
    return jax.tree.map(lambda x: np.asarray(x).tolist(), Layer(pieces, devices, device, time, params.resend_input))


@pytest.mark.full
@pytest.mark.parametrize("numbers", [{}, {"decision_time": 0.002, "resend_input": True, "timeout_factor": 1.3}])
@pytest.mark.parametrize("medium", OTHERS)
def test_whole_episodes_agree_with_a_simulation_of_events(network: Path, medium: Medium, numbers: Any) -> None:
    """Completion times, reassignments, latency, and that the return is minus the sum of the simulated slowdowns, with
    failures and resubmissions.
    """
    env = NeuronAllocation(network, conditions="dynamic", medium=medium)
    params = env.params(failure_probability=0.3, join_probability=0.5, failure_window=0.6, **numbers)
    counts, episodes = [6, 4, 6], 40
    before, after, reward, terminated, info = jax.tree.map(
        np.asarray, rollouts(env, params, jax.random.split(KEY, episodes), sum(counts))
    )
    stranded = resubmitted = 0
    for episode in range(episodes):
        slowdown, latency, reassigned, finished, step = 0.0, 0.0, 0, 0, -1
        for layer, count in enumerate(counts):
            step += count
            at = (episode, step)
            state = jax.tree.map(lambda x, at=at: x[at], before)
            one = layer_of(env, params, state, layer, after.slot[at], count)
            completion, again = finish(one, medium, float(params.timeout_factor))
            assert info["layer_done"][at]
            seen, expected = info["completion"][at], np.array(completion)
            returned = np.isfinite(expected) & (np.array(one.pieces.flops) > 0)
            np.testing.assert_array_equal(np.isfinite(seen), np.isfinite(expected))
            # A timeout adds what was waited so far, by at most as many roundings again for each device that fails.
            tolerance.close(seen[returned], expected[returned], expected[returned], ROUNDINGS * (1 + DEVICES))
            ideal = np.array(one.pieces.flops)[:count] / float(params.reference_speed)
            lost = float(params.lost_slowdown)
            slowdown += np.sum(np.where(returned[:count], expected[:count] / ideal, lost))
            latency += np.max(expected[returned], initial=0)
            reassigned, finished = reassigned + again, finished + int(returned.sum())
            if terminated[at]:
                break
        assert terminated[at] and not terminated[episode, :step].any()
        slowdown += float(params.lost_slowdown) * sum(counts[layer + 1 :])
        stranded += bool(info["stranded"][at])
        assert (info["finished"][at], info["lost"][at]) == (finished, sum(counts) - finished)
        assert info["reassigned"][at] == reassigned
        resubmitted += reassigned
        # Sums over pieces and steps of what is off by as much; what is charged telescopes, and never exceeds the sum.
        roundings = ROUNDINGS * (1 + DEVICES) + 2 * sum(counts)
        tolerance.close(info["latency"][at], latency, latency, roundings)
        total = reward[episode, : step + 1].astype(float).sum() * float(params.reference_slowdown)
        tolerance.close(total, -slowdown, slowdown, roundings)
    assert stranded >= 1 and resubmitted >= 10  # both happened


@pytest.mark.full
@pytest.mark.parametrize("medium", OTHERS)
def test_what_is_expected_and_seen_follows_each_submission(network: Path, medium: Medium) -> None:
    """Completion times of all pieces submitted so far, and the queue in the next observation."""
    env = NeuronAllocation(network, medium=medium)
    params = env.params(decision_time=1e-3, bandwidth_low=2e7, bandwidth_high=2e7, resend_input=True)
    _, after, *_ = rollout(env, params, KEY, 5)
    delayed = 0
    for step in range(5):
        state = jax.tree.map(lambda x, step=step: x[step], after)
        layer = layer_of(env, params, state, 0, state.slot, step + 1)
        served = simulate(layer, medium)
        tolerance.close(state.completion, served.completion, served.completion, ROUNDINGS)
        free = free_after(layer, medium, served)
        seen = env.situation(env.observe(KEY, state, None, params), params).queue
        now = (step + 2) * float(params.decision_time)
        for found, expected in zip(seen[:3], free, strict=True):
            # Through a logarithm and back: float32's own 6e-8 of log10(1 + backlog / ideal), which is at most some 4,
            # grow by ln 10 and by the backlog's share of what is logged; small ones are lost beside the 1.
            np.testing.assert_allclose(found, np.maximum(np.array(expected) - now, 0), rtol=1e-4, atol=1e-8)
        earlier = np.asarray(after.completion[step - 1]) if step else np.zeros(PIECES)
        delayed += int(np.sum(np.asarray(state.completion)[:step] > earlier[:step]))
    assert delayed > 0
    if medium == "shared":
        assert len(set(seen.up.tolist())) == len(set(seen.down.tolist())) == 1 and seen.up[0] > seen.down[0] > 0


@pytest.mark.full
def test_an_episode_is_the_same_alone_in_a_batch_and_in_a_scan(network: Path) -> None:
    env = NeuronAllocation(network, medium="shared")
    params = env.params(decision_time=1e-4, failure_probability=0.3)
    keys = jax.random.split(KEY, 4)
    batch = rollouts(env, params, keys, 5)
    scanned = rollout(env, params, keys[2], 5)
    step = jax.jit(env.step_env)
    reset_key, key = jax.random.split(keys[2])
    state, rewards = env.reset_env(reset_key, params)[1], []
    for number in jax.random.split(key, 5):
        action_key, step_key = jax.random.split(number)
        _, state, reward, *_ = step(step_key, state, env.action_space(params).sample(action_key), params)
        rewards.append(float(reward))
    # A reward is a difference of what was charged, a sum over the pieces.
    charged = np.sum(np.abs(rewards))
    for found in (scanned[2], batch[2][2]):
        tolerance.close(found, np.array(rewards), np.full(5, charged), 2 * (ROUNDINGS + PIECES))
    np.testing.assert_array_equal(batch[1].slot[2], scanned[1].slot)


@pytest.mark.full
def test_half_duplex_links_keep_the_contract(network: Path) -> None:
    """The shared channel does in `test_every_env`."""
    check_env(NeuronAllocation(network, medium="half_duplex"))


@pytest.mark.full
@pytest.mark.parametrize("medium", OTHERS)
def test_the_solver_keeps_its_contract_where_devices_fail(network: Path, medium: Medium) -> None:
    env = NeuronAllocation(network, conditions="dynamic", num_devices=2, medium=medium)
    check_solver(env, env.params(failure_probability=0.2, decision_time=1e-4))


# --- Bounds ---


@pytest.mark.full
@pytest.mark.parametrize("medium", MEDIA)
def test_the_bound_of_a_layer_is_the_best_of_all_assignments(
    network: Path, medium: Medium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without trying them it is below: that of private links."""
    env = NeuronAllocation(network, num_devices=2, num_pieces=4, medium=medium)
    rng = np.random.default_rng(4)
    bound = jax.jit(lambda layer, devices, params: neurons.layer_bound(env, layer, devices, params, env.channels))
    for instance, layer in itertools.product(range(4), range(3)):
        params = env.params(decision_time=2e-4 * (instance % 2), resend_input=instance > 1)
        speed, bandwidth = 10 ** rng.uniform(8.5, 9.5, 2), 10 ** rng.uniform(7, 8.5, 2)
        devices = Devices(*(jnp.asarray(x, jnp.float32) for x in (speed, bandwidth, [np.inf] * 2)))
        found = bound(jnp.array(layer), devices, params)
        pieces = env.pieces(jnp.array(layer), params)
        time = (np.arange(4) + 1) * float(params.decision_time)
        ideal = np.asarray(pieces.flops, float) / float(params.reference_speed)
        costs = []
        for device in itertools.product(range(2), repeat=4):
            one = jax.tree.map(
                lambda x: np.asarray(x).tolist(), Layer(pieces, devices, device, time, params.resend_input)
            )
            one = one._replace(device=device)
            costs.append(np.sum(np.array(simulate(one, medium).completion) / ideal))
        tolerance.close(found.best, min(costs), min(costs), ROUNDINGS + 8)
        assert found.cost <= min(costs) * (1 + (ROUNDINGS + 8) * tolerance.ROUNDING)
    monkeypatch.setattr(neurons, "BOUND_ASSIGNMENTS", 1)
    untried = neurons.layer_bound(env, jnp.array(layer), devices, params, env.channels)
    assert untried.best == untried.cost
    tolerance.close(untried.cost, float(found.cost), found.cost, ROUNDINGS + 8)  # the same sum in another program


@pytest.mark.full
def test_the_bound_of_an_episode_is_what_the_best_assignments_earn(network: Path) -> None:
    env = NeuronAllocation(network, num_devices=2, num_pieces=3, medium="shared")
    params = env.params(bandwidth_low=3e7, bandwidth_high=3e7)
    bound = solvers.bound(env, params, KEY[None])
    step = jax.jit(jax.vmap(env.step_env, (None, 0, 0, None)))
    start_key = jax.random.split(KEY)[1]  # the protocol's: contexts of the testbed last for the episode
    _, state = env.reset_env(start_key, params)
    best = 0.0
    every = jnp.asarray(neurons.all_assignments(2, 3))
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *jnp.shape(x))), state)
    for _ in range(env.num_layers):
        before = states
        for piece in range(3):
            _, states, *_ = step(KEY, states, every[:, piece], params)
        best += float(jnp.min(states.slowdown - before.slowdown))
    # Differences of sums over three layers.
    tolerance.close(bound.slowdown[0] * 9, best, best, 3 * ROUNDINGS)


@pytest.mark.full
def test_no_policy_exceeds_the_bound_where_pieces_are_lost_on_a_shared_channel(network: Path) -> None:
    env = NeuronAllocation(network, conditions="dynamic", num_devices=2, medium="shared")
    params = env.params(failure_probability=0.2, failure_window=0.5, bandwidth_low=5e7)
    keys = evaluation_keys(64)
    bound = solvers.bound(env, params, keys)
    played = play_episodes(env, params, solvers.baselines(env)["Shortest completion"], params, keys)
    assert np.sum(np.asarray(played.lost) > 0) > 3 and np.sum(np.asarray(played.reassigned) > 0) > 10
    slack = ROUNDINGS * tolerance.ROUNDING
    assert (played.episode_return <= bound.episode_return * (1 - slack)).all()
    assert (played.latency >= bound.latency * (1 - slack)).all()


@pytest.mark.full
def test_sending_the_input_once_can_be_best_on_a_slow_shared_channel() -> None:
    """8 bit: `Least` is better than `Random` and `Average` at 50 Mbit/s, and worse at 1 Gbit/s."""
    env = mec_jax.make("NeuronAllocation-v0", medium="shared")[0]

    def returns(bandwidth: float) -> dict[str, float]:
        params, found = env.params(bandwidth_low=bandwidth, bandwidth_high=bandwidth), {}
        for name in ("Random", "Average", "Least"):
            played = play_episodes(env, params, solvers.baselines(env)[name], params, evaluation_keys(16))
            found[name] = float(played.episode_return.mean())
        return found

    slow, fast = returns(5e7), returns(1e9)
    assert slow["Least"] > 0.95 * max(slow["Random"], slow["Average"])
    assert fast["Least"] < min(fast["Random"], fast["Average"])


def test_an_unknown_medium_is_refused() -> None:
    message = "unknown medium 'share': did you mean 'shared'\\? choose from private, half_duplex, shared"
    with pytest.raises(ValueError, match=message):
        mec_jax.make("NeuronAllocation-Dynamic-v0", medium="share")
