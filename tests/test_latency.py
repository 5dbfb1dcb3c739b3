import doctest
from itertools import product
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mec_jax.profiles.layers
import mec_jax.solvers.latency
from mec_jax.profiles.layers import layer_table
from mec_jax.solvers.latency import (
    DEVICES,
    LINKS,
    SERVER,
    Workload,
    all_local,
    all_server,
    latencies,
    neurosurgeon,
    optimum,
    workload,
)

ALEXNET = workload(layer_table("alexnet", num_classes=10))
PI_3B, PI_4B, TK1 = DEVICES


class Speedup(NamedTuple):
    """How many times as long all-local and all-server take as the best cut inside the network."""

    over_local: jax.Array
    over_server: jax.Array


@pytest.fixture(scope="module")
def fig6() -> dict[tuple[str, str], Speedup]:
    def speedup(device_speed: jax.Array, rate: jax.Array) -> Speedup:
        scenario = ALEXNET, device_speed, SERVER, rate
        cut = neurosurgeon(*scenario).latency
        return Speedup(all_local(*scenario).latency / cut, all_server(*scenario).latency / cut)

    devices, rates = jnp.array(list(DEVICES.values())), jnp.array(list(LINKS.values()))
    over_local, over_server = jax.jit(jax.vmap(jax.vmap(speedup, (None, 0)), (0, None)))(devices, rates)
    return {
        (device, link): Speedup(over_local[i, j], over_server[i, j])
        for (i, device), (j, link) in product(enumerate(DEVICES), enumerate(LINKS))
    }


def computed(value: float) -> object:
    """Two decimals, and a third that float32 may turn either way."""
    return pytest.approx(value, abs=0.0055)


def test_fig_6a_raspberry_pi_3b(fig6: dict[tuple[str, str], Speedup]) -> None:
    slow = fig6[PI_3B, "3G"]
    assert slow.over_local == computed(3.62)
    assert slow.over_server == computed(2.06)
    assert slow == pytest.approx((3.7, 2.0), rel=0.04)  # the paper's
    fast = [fig6[PI_3B, link].over_local for link in ("4G", "5G", "WiFi")]
    assert (min(fast), max(fast)) == (computed(8.46), computed(9.67))
    assert (min(fast), max(fast)) == pytest.approx((8.5, 9.7), rel=0.03)


def test_fig_6b_raspberry_pi_4b_on_5g_and_wifi(fig6: dict[tuple[str, str], Speedup]) -> None:
    speedups = [each for link in ("5G", "WiFi") for each in fig6[PI_4B, link]]
    assert (max(speedups), min(speedups)) == (computed(6.33), computed(1.19))
    assert (max(speedups), min(speedups)) == pytest.approx((6.4, 1.2), rel=0.03)


def test_fig_6b_conflict_on_3g_where_no_cut_beats_all_local(fig6: dict[tuple[str, str], Speedup]) -> None:
    assert fig6[PI_4B, "3G"].over_local == computed(0.83)  # the paper: "consistently" faster, by 1.2 to 6.4
    assert fig6[PI_4B, "3G"].over_server == computed(7.06)
    assert optimum(ALEXNET, DEVICES[PI_4B], SERVER, LINKS["3G"]).cut == ALEXNET.flops.size


def test_fig_6c_jetson_tk1_against_the_server(fig6: dict[tuple[str, str], Speedup]) -> None:
    speedups = [fig6[TK1, link].over_server for link in LINKS]
    assert (min(speedups), max(speedups)) == (computed(13.33), computed(35.38))
    assert (min(speedups), max(speedups)) == pytest.approx((13, 35), rel=0.03)
    assert all(fig6[TK1, link].over_local < 1 for link in LINKS), "the paper's fastest is all-local"


def test_with_1000_classes_the_maximum_of_fig_6b_is_another() -> None:
    scenario = workload(layer_table("alexnet")), DEVICES[PI_4B], SERVER, LINKS["WiFi"]
    assert all_local(*scenario).latency / neurosurgeon(*scenario).latency == computed(6.37)


def test_alexnet_is_cut_after_its_first_pooling_or_its_last() -> None:
    names = [layer.name for layer in layer_table("alexnet", num_classes=10)]
    cuts = {
        int(neurosurgeon(ALEXNET, speed, SERVER, rate).cut) for speed, rate in product(DEVICES.values(), LINKS.values())
    }
    assert {names[cut - 1] for cut in cuts} == {"features.2", "classifier.1"}


class Scenario(NamedTuple):
    network: Workload
    device_speed: float
    server_speed: float
    rate: float


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    size = draw(st.sampled_from((2, 3, 12)))  # each size compiles anew
    costs = st.lists(st.integers(0, 10**9), min_size=size, max_size=size)
    flops, bits = draw(costs), draw(costs)
    cuttable = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    speed = st.floats(6, 13).map(lambda exponent: 10**exponent)
    rate = st.just(0.0) | st.floats(3, 10).map(lambda exponent: 10**exponent)
    input_bits = draw(st.integers(1, 10**9))
    network = Workload(
        jnp.array(flops, float), jnp.array(bits, float), jnp.array(cuttable), jnp.array(input_bits, float)
    )
    return Scenario(network, draw(speed), draw(speed), draw(rate))


def brute_force(scenario: Scenario) -> np.ndarray:
    """Latency in s of every cut 0 to N, one after the other in float64."""
    network, device_speed, server_speed, rate = scenario
    flops = [float(layer) for layer in network.flops]
    size = len(flops)
    latency = np.full(size + 1, np.inf)
    for cut in range(size + 1):
        if 0 < cut < size and not network.cuttable[cut - 1]:
            continue
        bits = 0.0 if cut == size else float(network.bits[cut - 1] if cut else network.input_bits)
        if bits and not rate:
            continue
        latency[cut] = sum(flops[:cut]) / device_speed + sum(flops[cut:]) / server_speed + (bits and bits / rate)
    return latency


jitted_latencies, jitted_neurosurgeon, jitted_optimum = jax.jit(latencies), jax.jit(neurosurgeon), jax.jit(optimum)


@given(scenario=scenarios())
def test_solvers_agree_with_brute_force(scenario: Scenario) -> None:
    expected = brute_force(scenario)
    np.testing.assert_allclose(jitted_latencies(*scenario), expected, rtol=1e-5)
    for solver, first, last in ((jitted_neurosurgeon, 1, -1), (jitted_optimum, 0, None)):
        found = solver(*scenario)
        np.testing.assert_allclose(found.latency, expected[first:last].min(), rtol=1e-5)
        np.testing.assert_allclose(expected[found.cut], expected[first:last].min(), rtol=1e-5)
        assert first <= found.cut < len(expected) + (last or 0)
    for baseline, cut in ((all_server, 0), (all_local, len(expected) - 1)):
        found = baseline(*scenario)
        np.testing.assert_allclose(found.latency, expected[cut], rtol=1e-5)
        assert found.cut == cut


def test_server_with_little_left_to_do_is_not_drowned_in_rounding() -> None:
    network = Workload(jnp.array([1e9, 1.0]), jnp.zeros(2), jnp.array([True, True]), jnp.array(0.0))
    latency = latencies(network, 1e15, 1.0, 1.0)
    np.testing.assert_allclose(latency[1], 1 + 1e-6, rtol=1e-6)


def test_of_equally_fast_cuts_the_first_is_given() -> None:
    network = Workload(jnp.zeros(4), jnp.zeros(4), jnp.ones(4, bool), jnp.array(0.0))
    assert neurosurgeon(network, 1.0, 1.0, 1.0).cut == 1
    assert optimum(network, 1.0, 1.0, 1.0).cut == 0


def test_without_a_link_only_all_local_ends() -> None:
    assert optimum(ALEXNET, 1e9, SERVER, 0.0).cut == ALEXNET.flops.size
    assert all_server(ALEXNET, 1e9, SERVER, 0.0).latency == jnp.inf
    assert neurosurgeon(ALEXNET, 1e9, SERVER, 0.0).latency == jnp.inf


def test_no_cut_falls_inside_a_residual_block() -> None:
    table = layer_table("resnet18")
    network = workload(table)
    latency = np.asarray(latencies(network, 1e9, SERVER, 1e7))
    assert np.isfinite(latency[1:-1]).tolist() == [layer.cut for layer in table[:-1]]
    # Features that cost nothing inside the blocks would tempt a solver that ignores the second tensor.
    tempting = network._replace(bits=jnp.where(network.cuttable, network.bits, 0))
    for rate in 10.0 ** np.arange(4, 10):
        assert table[int(neurosurgeon(tempting, 1e9, SERVER, rate).cut) - 1].cut


def test_vmap_over_speeds_and_rates_equals_one_at_a_time_and_compiles_once() -> None:
    devices, servers, rates = np.array([2e8, 3e9, 3e11]), np.array([1e11, 1e13]), np.array([1e4, 1e6, 5e7, 1e9])

    @jax.jit
    @chex.assert_max_traces(1)
    def grid(devices: jax.Array, servers: jax.Array, rates: jax.Array) -> tuple[jax.Array, jax.Array]:
        solve = jax.vmap(neurosurgeon, (None, None, None, 0))
        solve = jax.vmap(solve, (None, None, 0, None))
        return jax.vmap(solve, (None, 0, None, None))(ALEXNET, devices, servers, rates)

    cuts, latency = grid(devices, servers, rates)
    grid(2 * devices, servers / 2, rates + 1)
    assert cuts.shape == latency.shape == (3, 2, 4)
    assert len(np.unique(cuts)) > 2, "the grid must tell cuts apart"
    for (i, device), (j, server), (k, rate) in product(enumerate(devices), enumerate(servers), enumerate(rates)):
        alone = jitted_neurosurgeon(ALEXNET, device, server, rate)
        assert cuts[i, j, k] == alone.cut
        np.testing.assert_allclose(latency[i, j, k], alone.latency, rtol=1e-6)


def test_workload_of_a_table_in_its_units() -> None:
    table = layer_table("vgg16", (3, 32, 32), 10)
    network = workload(table, bits_per_element=8)
    assert network.input_bits == 3 * 32 * 32 * 8
    assert network.bits[0] == 64 * 32 * 32 * 8
    assert network.bits[-1] == 10 * 8
    assert network.flops.tolist() == pytest.approx([layer.flops for layer in table])
    assert workload(table).input_bits == 3 * 32 * 32 * 32


def test_networks_without_a_cut_are_refused_with_a_mend() -> None:
    one = Workload(jnp.ones(1), jnp.ones(1), jnp.ones(1, bool), jnp.array(1.0))
    with pytest.raises(
        ValueError, match=r"one layer can't be cut: give it two, or use all_local, all_server or optimum"
    ):
        neurosurgeon(one, 1.0, 1.0, 1.0)
    assert optimum(one, 2.0, 1.0, 1.0).cut == 1
    with pytest.raises(ValueError, match="needs at least one layer"):
        workload(())


def test_examples_in_docstrings() -> None:
    for module in (mec_jax.profiles.layers, mec_jax.solvers.latency):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0
