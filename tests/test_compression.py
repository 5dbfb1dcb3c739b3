"""The traced laws of compression against the integer laws of `mec_jax.profiles.compression`."""

import doctest
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, override

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import mec_jax.physics.compression
from mec_jax.physics.compression import (
    CompressibleCosts,
    Strategy,
    canonical,
    costs,
    flops,
    kept,
    latency,
    sent_bits,
    strategy_of,
    total,
    unit_cube_of,
)
from mec_jax.profiles import compression as exact
from mec_jax.profiles.compression import (
    COMPRESSIBLE,
    MAX_SPARSITY,
    NO_CODEC,
    SETTINGS,
    Compressible,
    Unit,
    compressible,
)
from mec_jax.profiles.layers import Layer
from tests.tolerance import close

COSTS: Mapping[str, CompressibleCosts] = {name: costs(compressible(name)) for name in COMPRESSIBLE}
jitted_flops, jitted_bits, jitted_canonical = jax.jit(flops), jax.jit(sent_bits), jax.jit(canonical)
jitted_kept, jitted_latency, jitted_strategy = jax.jit(kept), jax.jit(latency), jax.jit(strategy_of)
jitted_cube = jax.jit(unit_cube_of)


class Case(NamedTuple):
    network: Compressible
    costs: CompressibleCosts
    strategy: Strategy  # of float32 numbers


@st.composite
def points(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """A network, and a point of its unit cube."""
    name = draw(st.sampled_from(COMPRESSIBLE))
    size = len(compressible(name).units) + 1 + len(SETTINGS)
    edge = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.5, 1.0]) | st.integers(0, 64).map(lambda k: k / 64)
    return name, np.array(draw(st.lists(edge, min_size=size, max_size=size)), np.float32)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name, point = draw(points())
    return Case(compressible(name), COSTS[name], jitted_strategy(COSTS[name], point))


def numbers(values: jax.Array) -> list[float]:
    """As the host's laws take them."""
    return [float(value) for value in values]


# Against the integer laws


@given(case=cases())
def test_flops_and_bits_are_those_of_the_integer_laws(case: Case) -> None:
    network, costs, strategy = case
    psi, cut = numbers(strategy.sparsity), int(costs.cuts[strategy.cut])
    layers = network.pruned(psi)
    expected = np.array([layer.flops for layer in layers], float)
    # Three products and a sum of whole numbers, each rounded once; a linear layer takes a term off another.
    close(jitted_flops(costs, strategy.sparsity), expected, 2 * expected, 4)
    bits = network.sent_bits(psi, cut, numbers(strategy.codec))
    assert jitted_bits(costs, strategy) == bits, "less than 2**24 bit: exact in float32"


@given(case=cases(), exponents=st.tuples(st.floats(8, 12), st.floats(4, 9), st.floats(10, 14)))
def test_latency_is_that_of_the_integer_laws(case: Case, exponents: tuple[float, float, float]) -> None:
    network, costs, strategy = case
    speed, rate, server = (np.float32(10**exponent) for exponent in exponents)
    psi, cut = numbers(strategy.sparsity), int(costs.cuts[strategy.cut])
    work = [layer.flops for layer in network.pruned(psi)]
    bits = network.sent_bits(psi, cut, numbers(strategy.codec))
    times = jitted_latency(costs, strategy, speed, rate, server)
    expected = sum(work[:cut]) / float(speed), bits / float(rate), sum(work[cut:]) / float(server)
    # A sum of so many terms, each a product of three, its coefficient rounded; then a quotient. What a linear layer
    # takes off is less than one part in its inputs.
    count = costs.before.shape[1] + 4
    for found, time in zip(times, expected, strict=True):
        close(found, time, 2 * time, count)
    close(total(times), sum(expected), 2 * sum(expected), count + 2)


@pytest.mark.parametrize("name", COMPRESSIBLE)
def test_flops_are_exact_in_float64(name: str) -> None:
    network, rng = compressible(name), np.random.default_rng(0)
    with jax.enable_x64(True):
        of, each = costs(network), jax.jit(flops)
        for psi in rng.uniform(0, MAX_SPARSITY, (30, len(network.units))):
            assert each(of, jnp.array(psi)).tolist() == [layer.flops for layer in network.pruned(psi)]


@pytest.mark.parametrize("width", [2, 10, 16, 25, 64, 160, 192, 384, 400, 4096])
def test_kept_channels_are_exact_where_float32_is_tempted(width: int) -> None:
    """Just where a channel more is kept: at the numbers next to (m - 5e-7) / C, to m / C, and at random ones."""
    pruned = np.arange(1, width)
    borders = np.concatenate([(pruned - 5e-7) / width, pruned / width, 1 - pruned / width]).astype(np.float32)
    psi = np.concatenate(
        [
            borders,
            np.nextafter(borders, np.float32(0)),
            np.nextafter(borders, np.float32(1)),
            np.random.default_rng(0).uniform(0, 1, 2000).astype(np.float32),
            np.array([0, 1e-12, 1e-7, 1 - 2**-24], np.float32),
        ]
    )
    expected = [exact.kept(width, 1, float(each)) for each in psi]
    assert jitted_kept(jnp.array(width, float), psi).tolist() == expected


def test_a_share_on_the_border_is_rounded_as_on_the_host() -> None:
    """Half a channel to the even number, and the float32 numbers next to it to either side."""
    network, of = compressible("alexnet"), COSTS["alexnet"]
    cut = network.cuts.index(20)  # 4096 flat features
    halves = (np.arange(1, 4096, 7) + 0.5) / 4096
    shares = np.concatenate([halves, np.nextafter(np.float32(halves), np.float32(1)), np.float32(halves) - 2.0**-26])
    shares = shares.astype(np.float32)
    codecs = np.tile(np.array(NO_CODEC, np.float32), (len(shares), 1))
    codecs[:, 4] = shares
    strategies = Strategy(jnp.zeros((len(shares), 7)), jnp.full(len(shares), cut), jnp.array(codecs))
    found = jax.jit(jax.vmap(sent_bits, (None, 0)))(of, strategies)
    assert found.tolist() == [network.sent_bits([0.0] * 7, 20, codec.astype(float)) for codec in codecs]


@pytest.mark.parametrize("name", COMPRESSIBLE)
def test_every_cut_sends_what_the_law_says(name: str) -> None:
    network, of = compressible(name), COSTS[name]
    codec = (0.3, 3.0, 2.0, 5.0, 0.2, 2.0, 0.5, 3.0)
    psi = [0.4] * len(network.units)
    strategy = Strategy(jnp.array(psi), jnp.array(0), jnp.array(codec))
    found = jax.jit(jax.vmap(lambda cut: sent_bits(of, strategy._replace(cut=cut))))(jnp.arange(len(network.cuts)))
    psi32 = [float(np.float32(each)) for each in psi]
    codec32 = [float(np.float32(each)) for each in codec]
    assert found.tolist() == [network.sent_bits(psi32, cut, codec32) for cut in network.cuts]
    assert of.cuts.tolist() == list(network.cuts)


def test_a_rate_of_nothing_stops_all_but_what_sends_nothing() -> None:
    of = COSTS["alexnet"]
    last = of.cuts.shape[0] - 1
    for cut, finite in ((0, False), (3, False), (last, True)):
        strategy = Strategy(jnp.zeros(7), jnp.array(cut), jnp.array(NO_CODEC))
        assert jnp.isfinite(total(jitted_latency(of, strategy, 1e9, 0.0, 1e13))) == finite


# The one form


@given(case=cases())
def test_the_one_form_is_the_same_strategy_and_its_own(case: Case) -> None:
    network, costs, strategy = case
    form = jitted_canonical(costs, strategy)
    assert jitted_bits(costs, form) == jitted_bits(costs, strategy)
    assert network.widths(numbers(form.sparsity)) == network.widths(numbers(strategy.sparsity))
    again = jitted_canonical(costs, form)
    assert all(np.array_equal(one, other) for one, other in zip(form, again, strict=True))
    for unit, psi, before in zip(network.units, numbers(form.sparsity), numbers(strategy.sparsity), strict=True):
        pruned = unit.channels - network.widths(numbers(form.sparsity))[unit.layers[0]]
        assert psi == pytest.approx(pruned / unit.channels, rel=1e-6), "what is really pruned"
        assert psi <= before + 1e-6, "no more than was wanted"


@given(case=cases())
def test_settings_that_do_not_apply_are_no_codec(case: Case) -> None:
    network, costs, strategy = case
    codec = numbers(jitted_canonical(costs, strategy).codec)
    cut = int(costs.cuts[strategy.cut])
    if cut in (0, len(network.layers)):
        assert codec == list(NO_CODEC)
        return
    channels, *size = network.pruned(numbers(strategy.sparsity))[cut - 1].output_shape
    mine, others = (slice(0, 4), slice(4, 8)) if size else (slice(4, 8), slice(0, 4))
    assert codec[others] == list(NO_CODEC)[others]
    sent = max(1, round(float(strategy.codec[mine.start]) * channels))
    assert np.float32(codec[mine.start]) == np.float32(sent) / np.float32(channels)
    assert size or codec[6] == 1 or codec[5] == 2, "without a second layer there is none between"
    bits = 3 if size else 7
    assert codec[bits] == strategy.codec[bits]


def test_a_cut_out_of_range_is_taken_for_the_nearest() -> None:
    of = COSTS["alexnet"]
    strategy = Strategy(jnp.zeros(7), jnp.array(99), jnp.array(NO_CODEC))
    assert jitted_canonical(of, strategy).cut == of.cuts.shape[0] - 1


# The space


@given(case=points(), wrong=st.sampled_from([0.0, 7.0, -3.0, np.nan, np.inf]), place=st.integers(0, 15))
@example(case=("alexnet", np.ones(16, np.float32)), wrong=1.0, place=0)
def test_every_point_is_a_strategy_that_is_allowed(case: tuple[str, np.ndarray], wrong: float, place: int) -> None:
    name, point = case
    point = point.copy()
    point[place] = wrong
    network, strategy = compressible(name), jitted_strategy(COSTS[name], point)
    assert all(0 <= psi <= np.float32(MAX_SPARSITY) for psi in strategy.sparsity)
    assert 0 <= strategy.cut < len(network.cuts)
    for setting, value in zip(SETTINGS, numbers(strategy.codec), strict=True):
        assert value in setting.choices if setting.choices else setting.least <= value <= setting.most


@given(case=points())
def test_a_strategy_has_a_point_that_gives_it(case: tuple[str, np.ndarray]) -> None:
    name, point = case
    strategy = jitted_strategy(COSTS[name], point)
    again = jitted_strategy(COSTS[name], jitted_cube(COSTS[name], strategy))
    assert again.cut == strategy.cut
    np.testing.assert_allclose(again.sparsity, strategy.sparsity, rtol=2**-22)  # a quotient and a product
    # Of a logarithm of at most 10, times ln 2, comes back what float32 leaves of it: 10 ln 2 times some roundings.
    np.testing.assert_allclose(again.codec, strategy.codec, rtol=10 * math.log(2) * 8 * 2**-24)


def test_ends_of_the_space_are_what_is_declared() -> None:
    of = COSTS["alexnet"]
    least, most = (jitted_strategy(of, np.full(16, end)) for end in (0, 1))
    assert (least.cut, most.cut) == (0, len(compressible("alexnet").cuts) - 1)
    np.testing.assert_allclose(least.codec, [setting.least for setting in SETTINGS], rtol=1e-6)
    assert most.codec.tolist() == [1, 3, 2, 32, 1, 2, 1, 32]
    assert least.sparsity.tolist() == [0] * 7 and most.sparsity.tolist() == [np.float32(MAX_SPARSITY)] * 7


def test_cuts_can_be_held_inside_the_network_each_as_often() -> None:
    of = COSTS["alexnet"]
    edge = jnp.linspace(0, 1, 2001)
    all_points = jnp.zeros((2001, 16)).at[:, 7].set(edge)
    cut = jax.vmap(lambda point: strategy_of(of, point, 1, 20).cut)(all_points)
    found, count = np.unique(cut, return_counts=True)
    assert found.tolist() == list(range(1, 21))
    assert count.min() >= 99 and count.max() <= 102  # 2001 points in 20 equal parts, the last with the end


@pytest.mark.parametrize(("place", "setting"), [(i, each) for i, each in enumerate(SETTINGS) if each.choices])
def test_each_choice_has_an_equal_part(place: int, setting: exact.Setting) -> None:
    edge = (np.arange(len(setting.choices)) + 0.5) / len(setting.choices)
    at = jnp.full((len(edge), 16), 0.3).at[:, 8 + place].set(edge)
    assert jax.vmap(lambda point: strategy_of(COSTS["alexnet"], point).codec[place])(at).tolist() == list(
        setting.choices
    )


# What can't be pruned so


@dataclass(frozen=True)
class Odd(Compressible):
    """Two layers whose second costs the same whatever comes in."""

    macs: int = 0

    @property
    @override
    def layers(self) -> tuple[Layer, ...]:
        return self.pruned((0.0,))

    @override
    def pruned(self, sparsity: object) -> tuple[Layer, ...]:
        psi = tuple(np.asarray(sparsity, float))
        width = self.widths(psi)["a"]
        first = Layer("a", "conv", (3, 4, 4), (width, 4, 4), 0, 0, 0, True)
        return first, replace(first, name="b", input_shape=(width, 4, 4), macs=self.macs, flops=2 * self.macs)


@pytest.mark.parametrize(("macs", "message"), [(1, "'b' costs no whole number"), (64, "'b' are not bilinear")])
def test_layers_that_do_not_follow_their_channels_are_refused(macs: int, message: str) -> None:
    network = Odd("odd", (Unit("a", ("a",), 8),), macs=macs)
    with pytest.raises(ValueError, match=message):
        costs(network)


def test_vmap_equals_one_at_a_time() -> None:
    of = COSTS["regnet_x_400mf"]
    points = jax.random.uniform(jax.random.key(0), (5, len(of.width) + 9))
    strategies = jax.vmap(lambda point: strategy_of(of, point))(points)
    speeds = jnp.array([2e8, 3e9])
    grid = jax.jit(jax.vmap(jax.vmap(latency, (None, 0, None, None, None)), (None, None, 0, None, None)))
    found = total(grid(of, strategies, speeds, 1e6, 1e13))
    for (i, speed), j in product(enumerate(speeds), range(5)):
        one = total(jitted_latency(of, jax.tree.map(lambda leaf, j=j: leaf[j], strategies), speed, 1e6, 1e13))
        close(found[i, j], float(one), 2 * float(one), 2 * (of.before.shape[1] + 6))


def test_its_example() -> None:
    assert doctest.testmod(mec_jax.physics.compression).failed == 0
