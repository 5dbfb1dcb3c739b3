"""Pruning, cutting and packing a network, traced: what each costs, and the space of what can be decided (Mu et al.
2024, sections IV and V: the delay calculator and the parameters generator).

The laws are those of `mec_jax.profiles.compression`, which are exact integers on the host; here they take one strategy
of traced numbers, and `jax.vmap` makes millions of them:

    >>> import jax, jax.numpy as jnp
    >>> from mec_jax.physics.compression import costs, latency, strategy_of, total
    >>> from mec_jax.profiles.compression import compressible
    >>> alexnet = costs(compressible("alexnet"))
    >>> strategy = jax.vmap(lambda u: strategy_of(alexnet, u))(jnp.full((2, 16), 0.5))
    >>> times = jax.vmap(lambda each: latency(alexnet, each, 3e9, 1e6, 1e13))(strategy)
    >>> total(times).shape
    (2,)

FLOP of a layer are bilinear in the channels that come in and go out. So those of all layers before a cut are a sum over
the pairs of units that meet in some layer, fewer than there are layers, with coefficients that are whole numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.partition import CutTimes, Number, cut_times, work_after, work_before
from mec_jax.profiles.compression import FLOAT_BITS, MAX_SPARSITY, NO_CODEC, SETTINGS, Compressible
from mec_jax.profiles.layers import Layer

__all__ = [
    "CompressibleCosts",
    "Strategy",
    "canonical",
    "costs",
    "flops",
    "kept",
    "latency",
    "sent_bits",
    "sent_channels",
    "strategy_of",
    "total",
    "unit_cube_of",
    "unpacked",
]

CONV_SETTINGS = 4
"""How many of `SETTINGS` are for a feature with height and width; the others are for a flat one."""


class Strategy(NamedTuple):
    """What is decided."""

    sparsity: Float[Array, " unit"]  # psi, of each prunable unit
    cut: Int[Array, ""]  # place in the list `CompressibleCosts.cuts`, not a number of layers
    codec: Float[Array, " setting"]  # in the order of `mec_jax.profiles.compression.SETTINGS`


class CompressibleCosts(NamedTuple):
    """What a network's layers and features cost, by what its units keep.

    One more unit than can be pruned stands, at the end, for what is fixed: it has one channel, and where an image comes
    in or classes go out their number is in the coefficients.
    """

    width: Float[Array, " unit"]  # channels in each group of a unit; only those that can be pruned
    groups: Float[Array, " unit"]  # of each unit
    source: Int[Array, " layer"]  # unit whose channels come in
    target: Int[Array, " layer"]  # unit whose channels go out
    per_filter: Float[Array, " layer"]  # FLOP, by channels of one source group times channels that go out
    per_channel: Float[Array, " layer"]  # FLOP, by channels that go out
    pair: Int[Array, "2 pair"]  # source and target of some layer
    before: Float[Array, "cut term"]  # FLOP of all layers before a cut: by pair, as `per_filter`, then by unit
    after: Float[Array, "cut term"]  # of those after it
    cuts: Int[Array, " cut"]  # layers that the device runs
    feature: Int[Array, " cut"]  # unit whose channels a cut sends
    channels: Float[Array, " cut"]  # that a cut sends, by one of that unit
    sides: Float[Array, "cut 2"]  # height and width, 1 x 1 of a flat feature; 0 x 0 where nothing is sent
    flat: Bool[Array, " cut"]
    packed: Bool[Array, " cut"]  # whether a codec packs it: no input, no result


def costs(network: Compressible) -> CompressibleCosts:
    """The costs of a network, worked out once on the host.

    Which unit's channels come in to a layer and which go out is found by pruning one unit at a time.

    Raises:
        ValueError: If layers cost something else than a multiple of these channels, as depthwise convolutions do.
    """
    layers, units = network.layers, network.units
    width = [unit.channels // unit.groups for unit in units] + [1]
    groups = [unit.groups for unit in units] + [1]
    sparsities = 0.5 * np.eye(len(units))
    probes = [network.pruned(sparsity) for sparsity in sparsities]
    source, target = (
        np.array([_moved(layers, probes, place, side) for place in range(len(layers))])
        for side in ("input_shape", "output_shape")
    )
    per_filter, per_channel = [], []
    for layer, comes, goes in zip(layers, source, target, strict=True):
        outputs = width[goes] * groups[goes]
        per_filter.append(_divided(2 * layer.macs, width[comes] * outputs, layer))
        per_channel.append(_divided(layer.flops - 2 * layer.macs, outputs, layer))

    pairs = sorted({(int(s), int(t)) for s, t, each in zip(source, target, per_filter, strict=True) if each})
    terms = np.zeros((len(pairs) + len(width), len(layers)))
    for place, (comes, goes) in enumerate(zip(source, target, strict=True)):
        if per_filter[place]:
            terms[pairs.index((comes, goes)), place] = per_filter[place]
        terms[len(pairs) + goes, place] = per_channel[place]

    cuts = network.cuts
    shapes = [layers[0].input_shape, *(layers[cut - 1].output_shape for cut in cuts[1:])]
    feature = [len(units), *(int(target[cut - 1]) for cut in cuts[1:])]
    whole = [width[unit] * groups[unit] for unit in feature]
    sides = [(*shape[1:], 1, 1)[:2] for shape in shapes[:-1]] + [(0, 0)]
    found = CompressibleCosts(
        width=jnp.array(width[:-1], float),
        groups=jnp.array(groups[:-1], float),
        source=jnp.array(source),
        target=jnp.array(target),
        per_filter=jnp.array(per_filter, float),
        per_channel=jnp.array(per_channel, float),
        pair=jnp.array(pairs, int).T,
        before=jnp.array(work_before(terms)[:, cuts].T),
        after=jnp.array(work_after(terms)[:, cuts].T),
        cuts=jnp.array(cuts),
        feature=jnp.array(feature),
        channels=jnp.array([shape[0] // of for shape, of in zip(shapes, whole, strict=True)], float),
        sides=jnp.array(sides, float),
        flat=jnp.array([len(shape) == 1 for shape in shapes]),
        packed=jnp.array([0 < cut < len(layers) for cut in cuts]),
    )
    _check(network, probes, sparsities, source, target, per_filter, per_channel)
    return found


def _moved(layers: Sequence[Layer], probes: Sequence[Sequence[Layer]], place: int, side: str) -> int:
    """The unit that changes a layer's input or output; the number of units if none does."""
    shape = getattr(layers[place], side)
    moved = [unit for unit, probe in enumerate(probes) if getattr(probe[place], side) != shape]
    if len(moved) > 1:
        raise ValueError(f"the {side} of layer {layers[place].name!r} depends on several units: let it be one")
    return moved[0] if moved else len(probes)


def _divided(amount: int, by: int, layer: Layer) -> int:
    quotient, rest = divmod(amount, by)
    if rest:
        raise ValueError(
            f"layer {layer.name!r} costs no whole number of FLOP a channel: its groups do not fit the unit's"
        )
    return quotient


def _check(
    network: Compressible,
    probes: Sequence[Sequence[Layer]],
    sparsities: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    per_filter: Sequence[int],
    per_channel: Sequence[int],
) -> None:
    """That the coefficients give what the pruned networks cost."""
    for probe, sparsity in zip(probes, sparsities, strict=True):
        widths = network.widths(sparsity)
        out = np.array([widths[unit.layers[0]] for unit in network.units] + [1])
        into = out // np.array([unit.groups for unit in network.units] + [1])
        predicted = out[target] * (into[source] * np.array(per_filter) + np.array(per_channel))
        for layer, flop in zip(probe, predicted, strict=True):
            if layer.flops != flop:
                raise ValueError(
                    f"FLOP of layer {layer.name!r} are not bilinear in the channels of units: it can't be pruned"
                )


# The laws


def _exact_product(share: Float[Array, "..."], count: Float[Array, "..."]) -> tuple[Array, Array]:
    """share * count as a whole number and a rest, |rest| <= 0.5 or a little more, for shares in [0, 1] and counts to
    4096: in float32 the product alone is 2e-4 off, and a channel more or less would hang on that.

    The share is split in three parts of 12 binary places, whose products are exact but for the last, 1e-11 off.
    """
    part = 2.0**12
    high = jnp.round(share * part) / part
    low = jnp.round((share - high) * part**2) / part**2
    rest = share - high - low
    whole = jnp.round(share * count)
    return whole, ((high * count - whole) + low * count) + rest * count


def kept(width: Float[Array, "..."], sparsity: Float[Array, "..."]) -> Float[Array, "..."]:
    """Channels that each group of a unit keeps: ceil((1 - psi) C), rounded to a millionth before, at least one; exactly
    `mec_jax.profiles.compression.kept` of the same number psi, in float32 too.

    Args:
        width: C, channels of a group, at most 4096.
        sparsity: psi, clipped to [0, 1].
    """
    pruned, rest = _exact_product(jnp.clip(sparsity, 0, 1), width)
    pruned = pruned - (rest < -5e-7)  # what is a millionth's half from a whole number is that number
    return jnp.maximum(1, width - pruned)


def _counts(costs: CompressibleCosts, sparsity: Float[Array, " unit"]) -> tuple[Array, Array]:
    """Channels in a group, and in all, of each unit and of what is fixed."""
    each = kept(costs.width, sparsity)
    return jnp.append(each, 1), jnp.append(each * costs.groups, 1)


def _terms(
    costs: CompressibleCosts, each: Float[Array, " unit"], all_groups: Float[Array, " unit"]
) -> Float[Array, " term"]:
    """What the coefficients of work are for: of each pair the product of channels, and the channels of each unit."""
    comes, goes = costs.pair
    return jnp.concatenate([each[comes] * all_groups[goes], all_groups])


def flops(costs: CompressibleCosts, sparsity: Float[Array, " unit"]) -> Float[Array, " layer"]:
    """FLOP of each layer of the pruned network by Table I; exact in float64.

    Args:
        costs: Of the network.
        sparsity: Of each unit.
    """
    each, all_groups = _counts(costs, sparsity)
    return all_groups[costs.target] * (each[costs.source] * costs.per_filter + costs.per_channel)


def sent_channels(costs: CompressibleCosts, strategy: Strategy) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Channels of the feature at the cut, and how many of them are sent: round(share C), half to even, at least one."""
    _, all_groups = _counts(costs, strategy.sparsity)
    channels = costs.channels[strategy.cut] * all_groups[costs.feature[strategy.cut]]
    share = jnp.where(costs.flat[strategy.cut], strategy.codec[CONV_SETTINGS], strategy.codec[0])
    share = jnp.where(costs.packed[strategy.cut], jnp.clip(share, 0, 1), 1)
    whole, rest = _exact_product(share, channels)
    odd = whole % 2 == 1
    whole = whole + (rest > 0.5) - (rest < -0.5) + (odd & (rest == 0.5)) - (odd & (rest == -0.5))
    return channels, jnp.maximum(1, whole)


def canonical(costs: CompressibleCosts, strategy: Strategy) -> Strategy:
    """The same strategy in the one form that what is the same to the network has.

    Sparsities and shares are those of the channels that are really pruned and sent. The cut is in range. Settings of
    the codec that does not apply are those of `NO_CODEC`: the linear one's where the feature has height and width, the
    convolutional one's where it is flat, all where the input or nothing is sent, and the width between two linear
    layers where there is one.
    """
    pruned = (costs.width - kept(costs.width, strategy.sparsity)) / costs.width
    strategy = strategy._replace(
        sparsity=pruned * (1 + 2.0**-21),  # a little more, so that rounding leaves no channel more
        cut=jnp.clip(strategy.cut, 0, costs.cuts.shape[0] - 1),
    )
    channels, sent = sent_channels(costs, strategy)
    linear = jnp.arange(len(SETTINGS)) >= CONV_SETTINGS
    applies = costs.packed[strategy.cut] & (linear == costs.flat[strategy.cut])
    share = jnp.array([setting.name.endswith("share") for setting in SETTINGS])
    between = jnp.array([setting.name == "linear_width" for setting in SETTINGS])
    codec = jnp.where(share, sent / channels, strategy.codec)
    applies &= ~between | (strategy.codec[_LAYERS] > 1)
    return strategy._replace(codec=jnp.where(applies, codec, jnp.array(NO_CODEC, codec.dtype)))


_LAYERS = [setting.name for setting in SETTINGS].index("linear_layers")


def sent_bits(costs: CompressibleCosts, strategy: Strategy) -> Float[Array, ""]:
    """What the device sends, bit: the input at cut 0, nothing at the last, else what the codec makes of the feature."""
    _, sent = sent_channels(costs, strategy)
    packed, flat = costs.packed[strategy.cut], costs.flat[strategy.cut]
    _, _, stride, bits, _, _, _, flat_bits = strategy.codec
    stride = jnp.where(packed & ~flat, jnp.maximum(1, stride), 1)
    bits = jnp.where(packed, jnp.where(flat, flat_bits, bits), FLOAT_BITS)
    return sent * jnp.prod(jnp.ceil(costs.sides[strategy.cut] / stride)) * bits


def latency(
    costs: CompressibleCosts, strategy: Strategy, device_speed: Number, rate: Number, server_speed: Number
) -> CutTimes[Array]:
    """What one inference takes at the device, on the link and at the server, s (eq. 2 to 5): see `total`. What encoder
    and decoder take is neglected, as in the paper.

    Args:
        costs: Of the network.
        strategy: Pruning, cut and codec.
        device_speed: FLOP/s, > 0.
        rate: Uplink, bit/s, >= 0: at 0 a strategy that sends something takes forever.
        server_speed: FLOP/s, > 0.
    """
    each, all_groups = _counts(costs, strategy.sparsity)
    terms = _terms(costs, each, all_groups)
    before, after = (jnp.sum(work[strategy.cut] * terms) for work in (costs.before, costs.after))
    bits = sent_bits(costs, strategy)
    times = cut_times(before, bits, after, device_speed, rate, server_speed)
    return times._replace(link=jnp.where(bits > 0, times.link, 0))  # nothing is sent in no time even at a rate of 0


def unpacked(
    costs: CompressibleCosts,
    sparsity: Float[Array, " unit"],
    device_speed: Number,
    rate: Number,
    server_speed: Number,
) -> CutTimes[Array]:
    """`latency` of every cut, [cut], without a codec: the work of all of them is one product of matrices.

    Args:
        costs: Of the network.
        sparsity: Of each unit.
        device_speed: FLOP/s, > 0.
        rate: Uplink, bit/s, > 0.
        server_speed: FLOP/s, > 0.
    """
    each, all_groups = _counts(costs, sparsity)
    terms = _terms(costs, each, all_groups)
    # In full: some accelerators would round FLOP to 11 binary places.
    before, after = (jnp.matmul(work, terms, precision="highest") for work in (costs.before, costs.after))
    bits = costs.channels * all_groups[costs.feature] * (jnp.prod(costs.sides, axis=-1) * FLOAT_BITS)
    return cut_times(before, bits, after, device_speed, rate, server_speed)


def total(times: CutTimes[Array]) -> Array:
    """Latency, s: the three times one after the other (eq. 2)."""
    return times.device + times.link + times.server


# The space


def strategy_of(
    costs: CompressibleCosts, point: Float[Array, " variable"], first_cut: Number = 0, last_cut: Number | None = None
) -> Strategy:
    """The strategy at a point of the unit cube, for optimizers that want numbers of one scale.

    Sparsities are shares of `MAX_SPARSITY`; the cuts, and the choices of a setting, have equal parts of the edge; the
    shares of a codec are uniform in their logarithm. Every point is a strategy that is allowed: it is clipped to the
    cube, and what is no number is 0.

    Args:
        costs: Of the network.
        point: The sparsities, the cut, the codec settings: `unit + 1 + 8` numbers.
        first_cut: Place of the first allowed cut. The paper's range begins with 1, inside the network (Fig. 6).
        last_cut: Place of the last; the last there is if absent. The paper's ends before that.
    """
    units = costs.width.shape[0]
    point = jnp.where(jnp.isnan(point), 0, jnp.clip(point, 0, 1))
    last = costs.cuts.shape[0] - 1 if last_cut is None else last_cut
    number = jnp.floor(point[units] * (last - first_cut + 1)) + first_cut
    settings = [_setting(place, point[units + 1 + place]) for place in range(len(SETTINGS))]
    return Strategy(
        sparsity=point[:units] * MAX_SPARSITY,
        cut=jnp.minimum(number, last).astype(int),
        codec=jnp.stack(settings),
    )


def _setting(place: int, at: Float[Array, ""]) -> Float[Array, ""]:
    _, least, most, choices = SETTINGS[place]
    if choices:
        number = jnp.minimum(jnp.floor(at * len(choices)), len(choices) - 1)
        return jnp.array(choices, at.dtype)[number.astype(int)]
    return most * jnp.exp2((1 - at) * np.log2(least / most))  # exactly the most at 1


def unit_cube_of(
    costs: CompressibleCosts, strategy: Strategy, first_cut: Number = 0, last_cut: Number | None = None
) -> Float[Array, " variable"]:
    """A point of the unit cube at which `strategy_of` gives the strategy; of a part of an edge the middle.

    What `strategy_of` can't give comes to its nearest border or choice.
    """
    last = costs.cuts.shape[0] - 1 if last_cut is None else last_cut
    cut = (strategy.cut - first_cut + 0.5) / (last - first_cut + 1)
    settings = [_place(setting, strategy.codec[place]) for place, setting in enumerate(SETTINGS)]
    return jnp.clip(jnp.concatenate([strategy.sparsity / MAX_SPARSITY, jnp.stack([cut, *settings])]), 0, 1)


def _place(setting: tuple[str, float, float, tuple[float, ...]], value: Float[Array, ""]) -> Float[Array, ""]:
    _, least, most, choices = setting
    if choices:
        return (jnp.argmin(jnp.abs(jnp.array(choices, value.dtype) - value)) + 0.5) / len(choices)
    return 1 - jnp.log2(value / most) / np.log2(least / most)
