"""Several requesters on shared devices: an event simulation, the DeepRM identity, one requester, rulers, errors."""

import heapq
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.robustness.failures import three_servers
from mec_jax.envs.neuron_allocation import NeuronAllocation
from mec_jax.envs.neuron_sharing import NeuronSharing, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.evaluation import solver_of
from mec_jax.solvers import neuron_allocation as solvers_alone
from mec_jax.solvers import neuron_sharing as solvers
from tests.documents import NEURONS, write

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
REQUESTERS, DEVICES, COUNTS = 3, 3, (6, 4, 6)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("tiny"), NEURONS)


@pytest.fixture(scope="module")
def tiny(network: Path) -> NeuronSharing:
    return NeuronSharing(network, num_requesters=REQUESTERS)


def random_rollout(env: Any, params: Any, key: Any, steps: int, context: Any = None) -> Any:
    """Observations and states before, actions, rewards, ends and infos [step] of random actions; without a reset."""

    def step(carry: Any, key: Any) -> Any:
        observation, state = carry
        action_key, step_key = jax.random.split(key)
        action = env.action_space(params).sample(action_key)
        after, next_state, reward, terminated, info = env.step_env(step_key, state, action, params)
        return (after, next_state), (observation, state, action, reward, terminated, info)

    reset_key, key = jax.random.split(key)
    observation, state = env.reset_env(reset_key, params)
    if context is not None:
        state = state.replace(context=context)
        observation = env.observe(key, state, None, params)
    return jax.lax.scan(step, (observation, state), jax.random.split(key, steps))[1]


rollout = jax.jit(random_rollout, static_argnums=(0, 3))
rollouts = jax.jit(jax.vmap(random_rollout, (None, None, 0, None)), static_argnums=(0, 3))


# --- A simulation of the same rules, event by event ---


class Job(NamedTuple):
    """A piece on a device."""

    released: float
    durations: tuple[float, float, float]  # s on the link to it, its processor, the link back


class Piece(NamedTuple):
    """What became of a piece."""

    start: float  # s, of its layer
    completion: float  # s; infinite without a result
    ideal: float  # s


class Simulated(NamedTuple):
    """What the simulation found."""

    order: list[int]  # requester of each decision
    begins: list[float]  # s when each decision begins
    pieces: dict[tuple[int, int, int], Piece]  # by requester, layer, piece
    reassigned: int
    stranded: bool
    busy: list[float]


def last_of(jobs: list[Job]) -> tuple[float, float]:
    """When the last job starts to be computed, and when its result is back."""
    return three_servers([job.released for job in jobs], [job.durations for job in jobs])


def simulate(env: NeuronSharing, one: Any, layers: list[Any], context: Any, actions: list[int]) -> Simulated:
    """Whole inferences of these parameters and pieces of layers, all in NumPy; the k-th decision is `actions[k]`."""
    failure = np.asarray(context.failure, float)
    speed = (1 - np.asarray(context.usage, float)) * one.device_speed
    link = np.asarray(context.bandwidth, float)
    found = Simulated([], [], {}, 0, False, [0.0] * env.num_devices)
    jobs: list[list[Job]] = [[] for _ in range(env.num_devices)]
    layer, start = [0] * env.num_requesters, [one.arrival_gap * r for r in range(env.num_requesters)]
    informed: list[set[int]] = [set() for _ in range(env.num_requesters)]
    returned: list[set[int]] = [set() for _ in range(env.num_requesters)]
    events = [(start[r] + one.decision_time, 1, r, 0) for r in range(env.num_requesters)]
    heapq.heapify(events)
    decision = 0

    def job(requester: int, piece: int, device: int, now: float) -> Job:
        work = layers[layer[requester]]
        shared = 0 if device in informed[requester] and not one.resend_input else work.shared_bits
        down = (shared + work.own_bits[piece]) / link[device]
        return Job(now, (down, work.flops[piece] / speed[device], work.output_bits[piece] / link[device]))

    def send(requester: int, piece: int, device: int, now: float, since: float, earliest: float) -> None:
        jobs[device].append(job(requester, piece, device, now))
        informed[requester].add(device)
        computed, expected = last_of(jobs[device])
        end = min(computed + jobs[device][-1].durations[1], failure[device])
        found.busy[device] += max(end - computed, 0)
        if expected <= failure[device]:
            heapq.heappush(events, (expected, 0, requester, piece))
        heapq.heappush(events, (max(since + one.timeout_factor * (expected - since), earliest), 2, requester, piece))

    while events:
        now, kind, requester, piece = heapq.heappop(events)
        count, began = COUNTS[layer[requester]], start[requester]
        name = (requester, layer[requester], piece)
        if kind == 0:
            found.pieces[name] = found.pieces[name]._replace(completion=now)
            returned[requester].add(piece)
            if len(returned[requester]) == count:
                # Timeouts of a layer that has ended mean nothing.
                events = [event for event in events if event[1] != 2 or event[2] != requester]
                heapq.heapify(events)
                if layer[requester] + 1 < env.num_layers:
                    layer[requester], start[requester] = layer[requester] + 1, now
                    informed[requester], returned[requester] = set(), set()
                    heapq.heappush(events, (now + one.decision_time, 1, requester, 0))
        elif kind == 1:
            there = [device for device in range(env.num_devices) if failure[device] > began]
            if not there:
                return found._replace(stranded=True)
            asked = actions[decision]
            device = min(there, key=lambda device: (device - asked) % env.num_devices)
            decision += 1
            found.order.append(requester)
            found.begins.append(now - one.decision_time)
            ideal = layers[layer[requester]].flops[piece] / one.reference_speed
            found.pieces[name] = Piece(began, math.inf, ideal)
            send(requester, piece, device, now, began, began + count * one.decision_time)
            if piece + 1 < count:
                heapq.heappush(events, (began + (piece + 2) * one.decision_time, 1, requester, piece + 1))
        elif piece not in returned[requester]:
            alive = [device for device in range(env.num_devices) if failure[device] > now]
            if not alive:
                return found._replace(stranded=True)
            ends = {device: last_of([*jobs[device], job(requester, piece, device, now)])[1] for device in alive}
            found = found._replace(reassigned=found.reassigned + 1)
            send(requester, piece, min(alive, key=lambda device: ends[device]), now, now, now)
    return found


@pytest.mark.parametrize(
    "numbers",
    [
        {"failure_probability": 0.6, "timeout_factor": 1.7},  # with 2, some timeouts coincide
        {
            "failure_probability": 0.4,
            "decision_time": 0.002,
            "resend_input": True,
            "timeout_factor": 1.3,
            "arrival_gap": 0.013,
        },
    ],
)
def test_whole_episodes_with_failures_agree_with_a_simulation_of_events(tiny: NeuronSharing, numbers: Any) -> None:
    """Order of decisions, results, reassignments, latency, use, and that rewards are the slowdowns as they pass."""
    params = tiny.params(
        bandwidth_low=1e7, bandwidth_high=1e8, present_probability=0.8, failure_window=2.0, usage_high=0.9, **numbers
    )
    total = REQUESTERS * sum(COUNTS)
    plain = jax.tree.map(lambda x: np.asarray(x, float), params)
    layers = [jax.tree.map(lambda x: np.asarray(x, float), tiny.pieces(jnp.array(layer), params)) for layer in range(3)]
    played = jax.tree.map(np.asarray, rollouts(tiny, params, jax.random.split(KEY, 40), total))
    _, states, actions, rewards, terminated, info = played
    lost_slowdown, scale = float(params.lost_slowdown), float(params.reference_slowdown)
    stranded = resubmitted = overtaken = 0
    for episode in range(40):
        last = int(np.argmax(terminated[episode]))
        context = jax.tree.map(lambda x, episode=episode: x[episode, 0], states.context)
        one = simulate(tiny, plain, layers, context, actions[episode].tolist())
        assert terminated[episode, last] and len(one.order) == last + 1
        assert states.requester[episode, : last + 1].tolist() == one.order
        assert info["stranded"][episode, last] == one.stranded
        assert info["reassigned"][episode, last] == one.reassigned
        finished = [piece for piece in one.pieces.values() if math.isfinite(piece.completion)]
        lost = total - len(finished)
        assert (info["finished"][episode, last], info["lost"][episode, last]) == (len(finished), lost)
        assert (lost > 0) == one.stranded
        slowdowns = sum((piece.completion - piece.start) / piece.ideal for piece in finished)
        cost = slowdowns + lost_slowdown * lost
        assert rewards[episode, : last + 1].astype(float).sum() * scale == pytest.approx(-cost, rel=1e-4)
        assert info["slowdown"][episode, last] == pytest.approx(cost, rel=1e-4)
        # Every step has earned what passed until the next decision.
        pieces = np.array(with_unsent(one, layers, float(params.reference_speed)))
        spent = [
            np.sum(np.maximum(np.minimum(pieces[:, 1], until) - pieces[:, 0], 0) / pieces[:, 2])
            for until in one.begins[1:]
        ]
        earned = -np.cumsum(rewards[episode, :last].astype(float)) * scale
        np.testing.assert_allclose(earned[: len(spent)], spent, rtol=1e-3, atol=1e-2)
        ends, starts = [], []
        for requester in range(REQUESTERS):
            own = [piece for name, piece in one.pieces.items() if name[0] == requester]
            arrival = requester * float(params.arrival_gap)
            ends.append(max((piece.completion for piece in own if math.isfinite(piece.completion)), default=arrival))
            ends[-1] = max([ends[-1], *(piece.start for piece in own)])
            starts.append(arrival)
        assert info["latency"][episode, last] == pytest.approx(np.mean(np.subtract(ends, starts)), rel=1e-4, abs=1e-6)
        use = np.array(one.busy)[np.asarray(context.failure) > 0] / max(ends) if max(ends) else np.zeros(1)
        assert info["use_variance"][episode, last] == pytest.approx(np.var(use), rel=1e-3, abs=1e-6)
        stranded, resubmitted = stranded + one.stranded, resubmitted + one.reassigned
        overtaken += one.order != sorted(one.order, key=lambda r: r) and len(set(one.order)) > 1
    assert stranded >= 3 and resubmitted >= 10 and overtaken >= 20  # all of it happened


def with_unsent(one: Simulated, layers: list[Any], reference_speed: float) -> list[Piece]:
    """All pieces of layers that have started, those that were never submitted included."""
    every = []
    for requester, layer in {name[:2] for name in one.pieces}:
        start = one.pieces[requester, layer, 0].start
        for piece, flops in enumerate(layers[layer].flops[: COUNTS[layer]]):
            unsent = Piece(start, math.inf, flops / reference_speed)
            every.append(one.pieces.get((requester, layer, piece), unsent))
    return every


# --- One requester, and several that do not meet ---


@pytest.mark.parametrize(
    ("numbers", "failure"),
    [({}, math.inf), ({"decision_time": 1e-4, "resend_input": True}, math.inf), ({"timeout_factor": 1.3}, 1e-3)],
)
def test_one_requester_is_neuron_allocation(network: Path, numbers: Any, failure: float) -> None:
    """If a device fails, in the first layer: so that in both it is away from the second on."""
    one, alone = NeuronSharing(network, num_requesters=1), NeuronAllocation(network)
    numbers = numbers | {"bandwidth_low": 1e8, "bandwidth_high": 1e8}
    mine, theirs = one.params(**numbers), alone.params(**numbers)
    context = one.context(KEY, mine)._replace(failure=jnp.array([math.inf, failure, math.inf]))
    seen = rollout(one, mine, KEY, sum(COUNTS), context)
    expected = rollout(alone, theirs, KEY, sum(COUNTS), context)
    for place in (0, 2, 3, 4):  # observations, actions, rewards and ends
        np.testing.assert_allclose(seen[place], expected[place], rtol=1e-4, atol=2e-5)
    for name in ("slowdown", "latency", "finished", "reassigned", "lost"):
        np.testing.assert_allclose(seen[-1][name][-1], expected[-1][name][-1], rtol=1e-5)
    assert (seen[-1]["reassigned"][-1] > 0) == math.isfinite(failure)


def test_requesters_that_do_not_meet_cost_what_each_costs_alone(network: Path, tiny: NeuronSharing) -> None:
    one = NeuronSharing(network, num_requesters=1)
    context = one.context(KEY, one.default_params)

    def least(env: NeuronSharing, params: Params) -> Any:
        """All to the device 0."""
        _, state = env.reset_env(KEY, params)
        step = jax.jit(env.step_env)
        total, state = 0.0, state.replace(context=context)
        for _ in range(env.num_requesters * sum(COUNTS)):
            _, state, reward, terminated, info = step(KEY, state, jnp.array(0), params)
            total += float(reward)
        assert terminated
        return total, info

    total, info = least(one, one.default_params)
    apart, apart_info = least(tiny, tiny.params(arrival_gap=1.1 * float(info["latency"])))
    assert apart == pytest.approx(3 * total, rel=1e-4)
    assert apart_info["latency"] == pytest.approx(float(info["latency"]), rel=1e-4)
    together, together_info = least(tiny, tiny.default_params)
    assert together < 1.5 * apart and together_info["latency"] > 2 * info["latency"]
    # Without an exchange the device has all the work, one piece after the other, and the others have none.
    _, free_info = least(tiny, tiny.params(bits_per_element=0))
    assert free_info["use_variance"] == pytest.approx(2 / 9, rel=1e-4)


# --- Episodes ---


def test_the_return_is_minus_the_sum_of_slowdowns() -> None:
    env = NeuronSharing()
    params = env.default_params
    _, states, _, rewards, terminated, info = jax.tree.map(np.asarray, rollout(env, params, KEY, 2 * 318))
    assert terminated[-1] and not terminated[:-1].any()
    flops = np.asarray(jax.vmap(env.pieces, (0, None))(jnp.arange(53), params).flops, float)
    total, layers = 0.0, 0
    for step in range(2 * 318):
        for requester in np.flatnonzero(info["layer_done"][step]):
            start = states.sharing.start[step, requester]
            took = info["completion"][step, requester].astype(float) - start
            total += np.sum(took * float(params.reference_speed) / flops[states.layer[step, requester]])
            layers += 1
    assert layers == 2 * 53 and info["finished"][-1] == 2 * 318
    assert rewards.astype(float).sum() * float(params.reference_slowdown) == pytest.approx(-total, rel=1e-4)
    measures = env.measures({name: x[-1] for name, x in info.items()}, jnp.array(636), params)
    assert float(measures["slowdown"]) == pytest.approx(total / 636, rel=1e-4)
    assert measures["lost"] == 0 and 0 < measures["use_variance"] < 2 / 9


def test_an_episode_says_so_when_no_device_is_left(tiny: NeuronSharing) -> None:
    params = tiny.params(failure_probability=1, failure_window=1e-6, lost_slowdown=500)
    _, _, _, rewards, terminated, info = rollout(tiny, params, KEY, 18)
    # All requesters submit their first layer before the first result is missed.
    assert terminated.tolist() == info["stranded"].tolist() == [False] * 17 + [True]
    assert info["lost"][-1] == 48 and info["finished"][-1] == 0 and np.isfinite(info["use_variance"]).all()
    np.testing.assert_allclose(jnp.sum(rewards) * params.reference_slowdown, -48 * 500, rtol=1e-5)
    # Who asks later finds nobody.
    late = tiny.params(failure_probability=1, failure_window=1e-6, timeout_factor=1e9, arrival_gap=1.0)
    _, _, _, _, terminated, info = rollout(tiny, late, KEY, 18)
    assert terminated[5] and info["stranded"][5] and info["lost"][5] == 48 and not terminated[:5].any()


def test_an_episode_that_is_cut_off_is_truncated_and_a_whole_one_is_not(tiny: NeuronSharing) -> None:
    step = jax.jit(tiny.step)
    for steps, ends in ((5, [False, True]), (48, [True, False])):
        params = tiny.params(max_steps_in_episode=steps)
        _, state = tiny.reset(KEY, params)
        for _ in range(steps):
            _, state, _, terminated, truncated, _ = step(KEY, state, jnp.array(0), params)
        assert [bool(terminated), bool(truncated)] == ends


# --- Contexts and observations ---


def test_contexts_are_in_range_and_somebody_is_there() -> None:
    env = NeuronSharing(num_devices=3000)
    params = env.params(present_probability=0.5, failure_probability=0.25, failure_window=0.5, bandwidth_low=1e8)
    context = env.context(KEY, params)
    assert context.present.mean() == pytest.approx(0.5, abs=0.04)
    np.testing.assert_array_equal(context.failure == 0, ~context.present)
    failed = np.asarray(context.present & np.isfinite(context.failure))
    assert failed.sum() / context.present.sum() == pytest.approx(0.25, abs=0.04)
    half = 0.5 * np.dot(env.network.neurons, env.network.neuron_flops) / float(params.reference_speed)
    assert 0.9 * half < np.asarray(context.failure)[failed].max() <= half
    assert 0.1 <= context.usage.min() < 0.12 and 0.68 < context.usage.max() <= 0.7
    assert context.bandwidth.min() >= 1e8 * 0.999 and context.bandwidth.max() <= 1e9 * 1.001
    nobody = jax.vmap(env.context, (0, None))(jax.random.split(KEY, 3), env.params(present_probability=0))
    np.testing.assert_array_equal(nobody.present.sum(1), 1)


def test_the_situation_is_read_back_from_the_observation(tiny: NeuronSharing) -> None:
    params = tiny.params(present_probability=0.6, failure_probability=0.3, failure_window=2.0, arrival_gap=1e-3)
    keys = jax.random.split(jax.random.key(2), 40)
    observations, states, *_ = rollouts(tiny, params, keys, 48)
    situation = jax.jit(jax.vmap(tiny.situation, (0, None)))
    waited = absent = 0
    for episode in range(10):
        now = situation(observations[episode], params)
        for step in range(40):
            one, state = jax.tree.map(lambda x, step=step: np.asarray(x[step]), now), None
            state = jax.tree.map(lambda x, at=(episode, step): np.asarray(x[at]), states)
            if state.over:
                break
            me = int(state.requester)
            assert (one.layer, one.piece) == (state.layer[me], state.sharing.submitted[me])
            present = state.context.failure > state.sharing.start[me]
            np.testing.assert_array_equal(one.present, present)
            np.testing.assert_array_equal(one.queue.informed[present], state.sharing.informed[me][present])
            speed = (1 - state.context.usage) * np.asarray(params.device_speed)
            np.testing.assert_allclose(one.speed[present], speed[present], rtol=1e-5)
            begins = state.sharing.start[me]
            for read, free in zip(
                one.queue[:3], (state.sharing.down, state.sharing.cpu, state.sharing.up), strict=True
            ):
                np.testing.assert_allclose(read[present], np.maximum(free - begins, 0)[present], rtol=1e-3, atol=1e-7)
            others = [(me + 1) % 3, (me + 2) % 3]
            np.testing.assert_array_equal(one.other_layer, state.layer[others])
            np.testing.assert_array_equal(one.other_pieces, state.sharing.submitted[others])
            back = np.where(np.isfinite(state.sharing.expected), state.sharing.expected, 0).max(1)
            wait = np.maximum(np.maximum(back, state.sharing.start) - begins, 0)[others]
            np.testing.assert_allclose(one.other_wait, wait, rtol=1e-3, atol=1e-7)
            waited, absent = waited + (wait > 0).any(), absent + (~present).any()
    assert waited > 50 and absent > 50


# --- Rulers ---


@pytest.mark.full
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"present_probability": 0.6, "failure_probability": 0.3, "failure_window": 2.0, "bandwidth_low": 1e7},
        {"failure_probability": 0.9, "failure_window": 1.0, "lost_slowdown": 0.5, "arrival_gap": 0.002},
    ],
)
def test_no_baseline_exceeds_the_bound(network: Path, numbers: Any) -> None:
    env = NeuronSharing(network, num_requesters=3, num_pieces=4)
    params = env.params(**numbers)
    played = solvers.rulers(env, params, evaluation_keys(32)).episodes
    assert list(played) == ["Random", "Average", "Least", "Shortest completion", "Lower bound"]
    assert solver_of(env) is solvers.SOLVER
    bound = played.pop("Lower bound")
    for name, episodes in played.items():
        assert episodes.terminated.all()
        assert (episodes.episode_return <= bound.episode_return * (1 - 1e-4) + 1e-6).all(), name
        assert (episodes.latency >= bound.latency * (1 - 1e-4)).all(), name
        assert set(episodes.measures) == set(bound.measures)
    assert set(column.measure for column in solvers.COLUMNS) <= set(bound.measures)
    lost = float(np.mean(played["Random"].lost))
    assert (lost == 0) == (not numbers) and (bound.latency > 0).any()
    if not numbers:
        means = {name: float(episodes.episode_return.mean()) for name, episodes in played.items()}
        latencies = {name: float(episodes.latency.mean()) for name, episodes in played.items()}
        assert min(latencies, key=lambda name: latencies[name]) == "Shortest completion"
        # But short layers then wait behind long ones everywhere, and it is not the least slowdown.
        assert means["Least"] < means["Average"] > means["Shortest completion"]


@pytest.mark.parametrize("failures", [0.0, 0.7])
def test_no_sequence_of_actions_exceeds_the_bound(tmp_path: Path, failures: float) -> None:
    path = write(tmp_path, NEURONS | {"layers": NEURONS["layers"][:2]})
    env = NeuronSharing(path, num_requesters=2, num_devices=2, num_pieces=2)
    params = env.params(failure_probability=failures, failure_window=1.5, bandwidth_low=1e8)
    every = jnp.array(list(itertools.product(range(2), repeat=8)))

    def play(key: Any, actions: Any) -> Any:
        def step(carry: Any, action: Any) -> Any:
            state, total, over = carry
            _, state, reward, terminated, _ = env.step_env(key, state, action, params)
            return (state, total + jnp.where(over, 0, reward), over | terminated), None

        start = (env.reset_env(jax.random.split(key)[1], params)[1], 0.0, jnp.zeros((), bool))
        return jax.lax.scan(step, start, actions)[0][1:]

    keys = evaluation_keys(20)
    returns, over = jax.jit(jax.vmap(jax.vmap(play, (None, 0)), (0, None)))(keys, every)
    bound = np.asarray(solvers.bound(env, params, keys).episode_return)
    best = np.asarray(returns).max(1)
    assert over.all() and (best <= bound * (1 - 1e-5)).all()
    assert failures or np.median(best / bound) < 2  # it is of some use


def test_shortest_completion_is_the_device_that_returns_the_piece_first(tiny: NeuronSharing) -> None:
    params = tiny.params(bandwidth_low=1e8)
    policy = jax.jit(lambda observation: solvers.shortest_completion(tiny, params, observation, KEY))
    step = jax.jit(tiny.step_env)
    observation, state = tiny.reset(KEY, params)
    for number in range(40):
        chosen, me = int(policy(observation)), int(state.requester)
        returns = []
        for device in range(DEVICES):
            *_, info = step(KEY, state, jnp.array(device), params)
            returns.append(float(info["completion"][me, state.sharing.submitted[me]]))
        assert returns[chosen] <= min(returns) * (1 + 1e-5), number
        observation, state, *_ = step(KEY, state, jnp.array(chosen), params)


def test_work_that_all_have_to_share_is_in_the_bound(network: Path) -> None:
    """With 4 requesters on one device without exchange the last latency is all the work: the bound's mean is exact."""
    env = NeuronSharing(network, num_requesters=4, num_devices=1)
    params = env.params(bits_per_element=0, usage_low=0, usage_high=0)
    bound = solvers.bound(env, params, evaluation_keys(1))
    work = sum(layer["neurons"] * layer["neuron_flops"] for layer in NEURONS["layers"]) / 3e9
    assert bound.latency[0] == pytest.approx(2.5 * work, rel=1e-5)
    alone = NeuronSharing(network, num_requesters=1, num_devices=1)
    single = solvers.bound(alone, alone.params(bits_per_element=0, usage_low=0, usage_high=0), evaluation_keys(1))
    assert bound.episode_return[0] < 4 * single.episode_return[0]


@pytest.mark.full
def test_the_bound_of_one_requester_is_that_of_neuron_allocation(network: Path) -> None:
    one = NeuronSharing(network, num_requesters=1, num_pieces=4)
    alone = NeuronAllocation(network, num_pieces=4)
    fixed: dict[str, Any] = {"usage_low": 0.4, "usage_high": 0.4, "device_speed": [1e9, 2e9, 3e9]}
    keys = evaluation_keys(1)
    mine = solvers.bound(one, one.params(**fixed), keys)
    theirs = solvers_alone.bound(alone, alone.params(**fixed), keys)
    np.testing.assert_allclose(mine.episode_return, theirs.episode_return, rtol=1e-5)
    assert mine.latency >= theirs.latency * (1 - 1e-5)  # the work has to be done, too
    name = "Shortest completion"
    played = play_episodes(one, one.params(**fixed), solvers.baselines(one)[name], one.params(**fixed), keys)
    params = alone.params(**fixed)
    expected = play_episodes(alone, params, solvers_alone.baselines(alone)[name], params, keys)
    np.testing.assert_allclose(played.episode_return, expected.episode_return, rtol=1e-5)


# --- Statics, parameters, spaces and errors ---


def test_a_choice_of_an_absent_device_falls_to_the_next(tiny: NeuronSharing) -> None:
    present = jnp.array([False, True, False])
    assert [int(tiny.valid_action(jnp.array(action), present)) for action in (-4, 0, 1, 2, 9)] == [1] * 5
    two = jnp.array([True, False, True])
    assert [int(tiny.valid_action(jnp.array(action), two)) for action in (-4, 0, 1, 2, 9)] == [0, 0, 2, 2, 2]


@pytest.mark.parametrize(
    ("static", "message"),
    [
        ({"network": "mobilenet"}, "can't read neuron table 'mobilenet'"),
        ({"num_requesters": 0}, "num_requesters is 0: it must be a whole number of at least 1"),
        ({"num_requesters": True}, "num_requesters is True"),
        ({"num_devices": 0}, "num_devices is 0: it must be a whole number of at least 1"),
        ({"num_pieces": 2.5}, "num_pieces is 2.5"),
    ],
)
def test_bad_statics_are_refused(static: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeuronSharing(**static)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"usage_change": 0.1}, "no parameter usage_change"),
        ({"arrival_gap": -1}, "arrival_gap is -1: it must be finite and >= 0"),
        ({"timeout_factor": 0.5}, "timeout_factor is 0.5: it must be finite and >= 1"),
        ({"usage_low": 0.95}, "usage_low .* exceeds usage_high"),
    ],
)
def test_bad_numbers_are_refused(tiny: NeuronSharing, numbers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny.params(**numbers)
