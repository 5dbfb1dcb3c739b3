"""The closed network against balance equations, event simulations and closed forms."""

import heapq
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mec_jax.physics.actor_learner import (
    Demands,
    Machines,
    asymptotic_bounds,
    batch_rates,
    link_bits,
    mean_value_analysis,
    step_demands,
)

ACTORS = 6
FLOPS = np.array([2e8, 1e8, 4e8])
BITS = np.array([9e5, 2e5, 1e5, 1e4])
MACHINES = Machines(
    environment_time=0.002,
    call_time=0.003,
    device_speed=1e10,
    edge_speed=1e12,
    dispatch_time=0.0005,
    training_time=0.0004,
    bandwidth=1e8,
    headers=1.05,
    trajectory_bits=2.3e5,
    model_bits=3.2e7,
    pull_interval=512,
    upload_at_zero=0,
)

analyse = jax.jit(mean_value_analysis)
bounded = jax.jit(asymptotic_bounds, static_argnums=1)
demands_at = jax.jit(lambda cut, machines: step_demands(jnp.asarray(FLOPS), jnp.asarray(BITS), cut, machines))


def demands(think: float, link: float, edge: float) -> Demands:
    return Demands(jnp.array(think), jnp.array(link), jnp.array(edge))


def balanced(think: float, link: float, edge: float, rates: np.ndarray) -> tuple[float, float, float, float]:
    """Throughput, queues of link and edge, and use of the edge, from the balance equations of the Markov chain."""
    actors = rates.size
    states = [(i, j) for i in range(actors + 1) for j in range(actors + 1 - i)]
    index = {state: place for place, state in enumerate(states)}
    flow = np.zeros((len(states), len(states)))
    for i, j in states:
        moves = [((i + 1, j), (actors - i - j) / think)]
        if i:
            moves.append(((i - 1, j + 1), 1 / link))
        if j:
            moves.append(((i, j - 1), rates[j - 1] / edge))
        for state, rate in moves:
            if state in index and rate:
                flow[index[i, j], index[state]] += rate
                flow[index[i, j], index[i, j]] -= rate
    system = np.vstack([flow.T, np.ones(len(states))])
    probability = np.linalg.lstsq(system, np.eye(len(states) + 1)[-1], rcond=None)[0]
    weigh = np.array(states)
    thinking = actors - weigh.sum(1)
    queues = probability @ weigh
    return probability @ thinking / think, queues[0], queues[1], 1 - probability @ (weigh[:, 1] == 0)


def simulated(
    mean: Demands, actors: int, steps: int, draw: Callable[[float], float], batches: int = 20
) -> tuple[float, float]:
    """Throughput of an event simulation with first come, first served queues, and half of its 99 % interval.

    The first tenth of the steps is left out; the interval is that of batch means.
    """
    times = [float(x) for x in mean]
    free = [0.0, 0.0]
    arrivals = [(draw(times[0]), actor, 0) for actor in range(actors)]
    heapq.heapify(arrivals)
    ends: list[float] = []
    while len(ends) < steps:
        now, actor, station = heapq.heappop(arrivals)
        free[station] = max(free[station], now) + draw(times[1 + station])
        if station == 0:
            heapq.heappush(arrivals, (free[0], actor, 1))
        else:
            ends.append(free[1])
            heapq.heappush(arrivals, (free[1] + draw(times[0]), actor, 0))
    marks = np.array(ends)[np.linspace(steps // 10, steps - 1, batches + 1).astype(int)]
    rates = (steps - 1 - steps // 10) / batches / np.diff(marks)
    return float(rates.mean()), float(stats.t.ppf(0.995, batches - 1) * rates.std(ddof=1) / batches**0.5)


times = st.floats(1e-3, 1)


@settings(max_examples=25)
@given(think=times, link=times, edge=times, growth=st.lists(st.floats(1, 2), min_size=ACTORS, max_size=ACTORS))
def test_means_solve_the_balance_equations_at_any_rates_of_the_edge(
    think: float, link: float, edge: float, growth: list[float]
) -> None:
    rates = np.cumprod(growth) / growth[0]
    found = analyse(demands(think, link, edge), jnp.asarray(rates, jnp.float32))
    throughput, link_queue, edge_queue, edge_use = balanced(think, link, edge, rates)
    np.testing.assert_allclose(found.throughput[-1], throughput, rtol=1e-4)
    np.testing.assert_allclose(found.link_queue[-1], link_queue, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.edge_queue[-1], edge_queue, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.edge_use[-1], edge_use, rtol=1e-3, atol=1e-5)


@settings(max_examples=50)
@given(think=times, link=times, edge=times)
def test_throughput_keeps_to_its_bounds_and_laws(think: float, link: float, edge: float) -> None:
    mean = demands(think, link, edge)
    found, bounds = analyse(mean, jnp.ones(ACTORS)), bounded(mean, ACTORS)
    throughput, actors = np.asarray(found.throughput), np.arange(1, ACTORS + 1)
    assert (throughput <= np.asarray(bounds.upper) * (1 + 1e-5)).all()
    assert (throughput >= np.asarray(bounds.lower) * (1 - 1e-5)).all()
    assert (np.diff(throughput) >= -1e-5 * throughput[1:]).all(), "an actor more never slows all of them down"
    np.testing.assert_allclose(throughput[0], 1 / (think + link + edge), rtol=1e-5)
    np.testing.assert_allclose(throughput * edge, found.edge_use, rtol=1e-3, atol=1e-5)  # the utilisation law
    np.testing.assert_allclose(found.link_queue + found.edge_queue + throughput * think, actors, rtol=1e-4)  # Little's
    np.testing.assert_allclose(found.step_time * throughput, actors, rtol=1e-5)


@pytest.mark.parametrize(("actors", "edge"), [(2, 0.008), (12, 0.008), (12, 0.012)])
def test_event_simulation_with_exponential_times_agrees_within_its_interval(actors: int, edge: float) -> None:
    mean = demands(0.05, 0.012, edge)
    generator = np.random.default_rng(0)
    throughput, half = simulated(mean, actors, 40_000, generator.exponential)
    expected = analyse(mean, jnp.ones(12)).throughput[actors - 1]
    assert abs(throughput - expected) < half
    assert half < 0.02 * throughput, "the interval is tight enough to tell"


@pytest.mark.parametrize("actors", [1, 3, 5, 12])
def test_event_simulation_with_constant_times_lies_between_the_analysis_and_the_bound(actors: int) -> None:
    mean = demands(0.05, 0.012, 0.008)
    throughput, _ = simulated(mean, actors, 4_000, float)
    least = analyse(mean, jnp.ones(12)).throughput[actors - 1]
    assert least * (1 - 1e-4) <= throughput <= bounded(mean, 12).upper[actors - 1] * (1 + 1e-3)


def test_think_times_of_any_law_with_the_same_mean_leave_the_throughput_as_it_is() -> None:
    mean = demands(0.05, 0.012, 0.008)
    generator = np.random.default_rng(1)

    def draw(time: float) -> float:
        return time if time == float(mean.think) else generator.exponential(time)

    throughput, half = simulated(mean, 6, 40_000, draw)
    assert abs(throughput - analyse(mean, jnp.ones(12)).throughput[5]) < half


def test_idle_time_of_a_full_edge_keeps_its_digits() -> None:
    actors, ratio = 60, 2.0
    found = analyse(demands(1.0, 0.0, ratio), jnp.ones(actors))
    weights = np.cumprod(np.concatenate([[1.0], ratio * np.arange(actors, 0, -1)]))  # machine repair, N!/(N - n)! r^n
    np.testing.assert_allclose(found.throughput[-1], (1 - 1 / weights.sum()) / ratio, rtol=1e-5)
    few = analyse(demands(1.0, 0.0, ratio), jnp.ones(8))
    weights = np.cumprod(np.concatenate([[1.0], ratio * np.arange(8, 0, -1)]))
    np.testing.assert_allclose(1 - few.edge_use[-1], 1 / weights.sum(), atol=1e-6)


def test_an_edge_that_serves_all_at_once_is_a_delay() -> None:
    mean = demands(0.05, 0.0, 0.1)
    rates = batch_rates(20, 20, 1.0)
    np.testing.assert_allclose(rates, np.arange(1, 21))
    np.testing.assert_allclose(analyse(mean, rates).throughput, np.arange(1, 21) / 0.15, rtol=1e-5)


def test_batches_save_what_they_share_up_to_their_size() -> None:
    np.testing.assert_allclose(batch_rates(5, 1, 0.7), 1)
    np.testing.assert_allclose(batch_rates(5, 5, 0.0), 1)
    np.testing.assert_allclose(batch_rates(5, 3, 0.5), [1, 2 / 1.5, 1.5, 1.5, 1.5])
    mean = demands(0.01, 0.001, 0.02)
    plain, batched = (analyse(mean, batch_rates(30, batch, 0.5)).throughput for batch in (1, 8))
    assert (batched[1:] > plain[1:]).all()
    np.testing.assert_allclose(batched[-1], 8 / 4.5 / 0.02, rtol=1e-3)  # of a batch that is always full


def test_a_step_has_the_terms_of_eq_6_at_their_stations() -> None:
    part = demands_at(2, MACHINES)
    np.testing.assert_allclose(part.think, 0.002 + 0.003 + 3e8 / 1e10, rtol=1e-5)
    np.testing.assert_allclose(part.link, 1.05 * (1e5 + 2.3e5 + 3.2e7 / 512) / 1e8, rtol=1e-5)
    np.testing.assert_allclose(part.edge, 0.0005 + 4e8 / 1e12 + 0.0004, rtol=1e-5)


def test_at_the_ends_the_timeline_is_seed_rl_and_impala() -> None:
    seed, impala = demands_at(0, MACHINES), demands_at(3, MACHINES)
    np.testing.assert_allclose(seed.think, 0.005, rtol=1e-5)  # no layer on the device
    np.testing.assert_allclose(seed.link, 1.05 * 9e5 / 1e8, rtol=1e-5)  # the learner has the frames, the actor no layer
    np.testing.assert_allclose(seed.edge, 0.0009 + 7e8 / 1e12, rtol=1e-5)
    np.testing.assert_allclose(impala.think, 0.002 + 7e8 / 1e10, rtol=1e-5)  # no call
    np.testing.assert_allclose(impala.link, 1.05 * (2.3e5 + 3.2e7 / 512) / 1e8, rtol=1e-5)  # no tensor
    np.testing.assert_allclose(impala.edge, 0.0004, rtol=1e-5)  # training alone
    bits = link_bits(jnp.asarray(BITS), jnp.array(0), MACHINES._replace(upload_at_zero=1))
    np.testing.assert_allclose(bits, 1.05 * (9e5 + 2.3e5), rtol=1e-5)


def test_traffic_never_exceeds_the_bandwidth() -> None:
    for cut in range(4):
        found = analyse(demands_at(cut, MACHINES), jnp.ones(100))
        traffic = found.throughput * link_bits(jnp.asarray(BITS), jnp.array(cut), MACHINES)
        np.testing.assert_allclose(traffic, found.link_use * MACHINES.bandwidth, rtol=1e-4)
        assert (traffic <= MACHINES.bandwidth * (1 + 1e-5)).all()


def test_vmap_over_cuts_and_bandwidths_equals_one_at_a_time() -> None:
    bandwidths = jnp.array([1e7, 1e8, 1e9])

    def throughput(cut: jax.Array, bandwidth: jax.Array) -> jax.Array:
        one = step_demands(jnp.asarray(FLOPS), jnp.asarray(BITS), cut, MACHINES._replace(bandwidth=bandwidth))
        return mean_value_analysis(one, jnp.ones(8)).throughput

    grid = jax.jit(jax.vmap(jax.vmap(throughput, (None, 0)), (0, None)))(jnp.arange(4), bandwidths)
    alone = jax.jit(throughput)
    for cut in range(4):
        for place, bandwidth in enumerate(bandwidths):
            np.testing.assert_allclose(grid[cut, place], alone(cut, bandwidth), rtol=1e-5)
