"""What accuracy a compressed network keeps (Mu et al. 2024, section VI-C: the accuracy predictor).

`inputs` makes the numbers that a predictor reads of a strategy, in their one form, so that what is fitted and what is
asked are the same. Three kinds of predictors take them: `Trees` and `Linear`, which are fitted to measurements
(`mec_jax.profiles.regressors`), and `Anchored`, a declared law through the four points that the paper quotes.

    >>> import jax.numpy as jnp
    >>> from mec_jax.physics.accuracy import anchored, inputs, predict
    >>> from mec_jax.physics.compression import Strategy, costs
    >>> from mec_jax.profiles.compression import NO_CODEC, compressible
    >>> network = compressible("alexnet")
    >>> conv2 = Strategy(jnp.zeros(7).at[1].set(0.74), jnp.array(3), jnp.array(NO_CODEC))
    >>> round(float(predict(anchored(network), inputs(costs(network), conv2, 60.0))), 4)
    0.8542

Gradients are zero or none: a tree is constant between its thresholds.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float, Int
from scipy.optimize import brentq

from mec_jax.files import did_you_mean
from mec_jax.physics.compression import CompressibleCosts, Strategy, canonical
from mec_jax.physics.partition import Number
from mec_jax.profiles.compression import FLOAT_BITS, SETTINGS, Compressible
from mec_jax.profiles.regressors import Regressor, Tree

__all__ = [
    "ANCHORED",
    "NOISELESS",
    "Anchored",
    "Linear",
    "Predictor",
    "Trees",
    "anchored",
    "input_names",
    "inputs",
    "most_accurate",
    "predict",
    "predictor",
]

NOISELESS = 60.0
"""SNR in dB at and above which a channel is taken to add no noise."""

PERFECT_DEPTH = 5
"""Trees up to this depth are filled up to perfect ones, whose splits are written out; beyond it they would outgrow what
that saves.
"""


# What it reads


def input_names(network: Compressible) -> tuple[str, ...]:
    """What `inputs` are, in order."""
    units = (f"sparsity/{unit.name}" for unit in network.units)
    return (*units, "cut", *(setting.name for setting in SETTINGS), "snr_db")


def inputs(costs: CompressibleCosts, strategy: Strategy, snr_db: Number) -> Float[Array, " input"]:
    """What a predictor reads of a strategy in its one form (`mec_jax.physics.compression.canonical`): the sparsities,
    the number of layers on the device, the codec settings, and the SNR in dB up to `NOISELESS`, which it also is where
    nothing is sent.
    """
    form = canonical(costs, strategy)
    cut = costs.cuts[form.cut]
    sends = form.cut < costs.cuts.shape[0] - 1
    snr = jnp.where(sends, jnp.minimum(snr_db, NOISELESS), NOISELESS)
    return jnp.concatenate([form.sparsity, jnp.stack([cut.astype(float)]), form.codec, jnp.stack([snr.astype(float)])])


# The predictors


class Trees(NamedTuple):
    """An ensemble of regression trees.

    Where `child` is None the trees are perfect: the children of split n are 2 n + 1 and 2 n + 2, and those of the last
    level the values. Else a node's children are `child` and the one after it, and a leaf's is itself.
    """

    base: Float[Array, ""]  # accuracy of the network as it was
    feature: Int[Array, "tree split"]
    threshold: Float[Array, "tree split"]  # an input that is greater goes to the second child
    value: Float[Array, "tree leaf"]
    child: Int[Array, "tree node"] | None
    depth: Int[Array, ""]  # steps from the root to the deepest leaf
    intercept: Float[Array, ""]
    weight: Int[Array, " tree"] | None  # None: the values are added up; else they give a weighted median


class Linear(NamedTuple):
    """A linear regression."""

    base: Float[Array, ""]
    intercept: Float[Array, ""]
    coefficients: Float[Array, " input"]


class Anchored(NamedTuple):
    """The declared law "anchored": monotone, through the paper's four points, and no measurement. See `anchored`."""

    base: Float[Array, ""]
    prune_scale: Float[Array, " unit"]
    prune_power: Float[Array, ""]
    pack_scale: Float[Array, ""]
    pack_power: Float[Array, ""]
    noise: Float[Array, ""]  # accuracy lost at an SNR of 0 dB


type Predictor = Trees | Linear | Anchored


def predictor(regressor: Regressor) -> Trees | Linear:
    """The arrays of a fitted regressor."""
    base, intercept = jnp.array(regressor.base_accuracy, float), regressor.intercept
    if not regressor.trees:
        return Linear(base, jnp.array(intercept, float), jnp.array(regressor.coefficients, float))
    median = regressor.combine == "median"
    weights = np.array([tree.weight for tree in regressor.trees])
    if median:
        trees = regressor.trees
    else:
        # Trees say how far they are off their middles, so that float32 adds up small numbers.
        middles = [_middle(tree) for tree in regressor.trees]
        intercept += np.dot(weights, middles)
        trees = tuple(
            replace(tree, value=(tree.value - middle) * tree.weight)
            for tree, middle in zip(regressor.trees, middles, strict=True)
        )
    depth = max(tree.depth for tree in trees)
    if depth <= PERFECT_DEPTH:
        feature, threshold, value = _stacked([_perfect(tree, depth) for tree in trees])
        child = None
    else:
        feature, threshold, value, children = _stacked([_linked(tree) for tree in trees])
        child = jnp.array(children.astype(int))
    return Trees(
        base=base,
        feature=jnp.array(feature.astype(int)),
        threshold=jnp.array(threshold, float),
        value=jnp.array(value, float),
        child=child,
        depth=jnp.array(depth),
        intercept=jnp.array(intercept, float),
        # Whole numbers, whose sum is the same in any order: whether it reaches the half hangs on no rounding.
        weight=jnp.array(np.round(weights / weights.sum() * 2**30).astype(int)) if median else None,
    )


def _middle(tree: Tree) -> float:
    leaves = tree.value[tree.feature < 0]
    return float((leaves.min() + leaves.max()) / 2)


def predict(model: Predictor, inputs: Float[Array, " input"]) -> Float[Array, ""]:
    """The accuracy that is left, 0 to 1 where the model is right; `jax.vmap` makes a batch.

    Args:
        model: A predictor.
        inputs: As `inputs` makes them, finite.
    """
    match model:
        case Anchored():
            return model.base - _loss(model, inputs)
        case Linear():
            return model.intercept + jnp.sum(model.coefficients * inputs)
        case Trees():
            return _at_points(model, inputs[:, None])[0]


def most_accurate(model: Predictor, low: Float[Array, " input"], high: Float[Array, " input"]) -> Float[Array, ""]:
    """No less than what is predicted for any inputs in a box, but for rounding.

    Args:
        model: A predictor.
        low: The least of each input.
        high: The most of each.

    Proof. What `Anchored` loses grows with sparsities and stride, and falls with shares, bits and SNR (`anchored`). A
    `Linear` one is greatest at the ends that its coefficients' signs say. In a tree an input of the box reaches a leaf
    on whose way no split rules out the whole box; the greatest value of such leaves is no less than that leaf's. A sum,
    and a weighted median, do not fall when a part of them rises.
    """
    match model:
        case Anchored():
            units = model.prune_scale.shape[0]
            falling = jnp.array([True] * units + [False] + [each.name == "conv_stride" for each in SETTINGS] + [False])
            return model.base - _loss(model, jnp.where(falling, low, high))
        case Linear():
            return model.intercept + jnp.sum(jnp.maximum(model.coefficients * low, model.coefficients * high))
        case Trees():
            return _in_boxes(model, low[:, None], high[:, None])[0]


# The declared law

ANCHORED = MappingProxyType({"alexnet": 0.8742, "regnet_x_400mf": 0.9171})
"""Accuracies of the networks as they were, section VI-A: those that `anchored` knows."""

PRUNED_ANCHORS = (0.74, 0.02), (0.89, 0.05)
"""Sparsity of AlexNet's conv2 and the accuracy that it costs (section I)."""

PACKED_ANCHORS = (0.065, 0.02), (0.002, 0.07)
"""Share of the feature's bits that is sent, at AlexNet's first fully connected layer, and what it costs (section I; the
first is "no greater than", and taken for that much).
"""

NOISE_AT_0_DB = 0.01
"""Accuracy that noise costs at 0 dB. Assumed: the paper gives none; in its Fig. 11 some stay within 2 % there.
"""


def anchored(network: Compressible, base_accuracy: float | None = None) -> Anchored:
    """The declared law "anchored": of the least kind that is monotone and goes through the four points that the paper
    quotes. It is no measurement, and what it says of Table IV is nothing.

        accuracy = base - a sum_u ((1 - psi_u)^-b - 1) - c (r^-d - 1) - n (10^(-SNR / 20 dB) - 10^-3)

    r is the share of the feature's bits that a codec leaves: its share of channels, times its bits of 32, over its
    stride squared. It falls with each sparsity and with the stride, and rises with shares, bits and SNR. a, b, c and d
    follow from the anchors. That all units lose like AlexNet's conv2, those of another network too, that losses add up,
    and all of the noise is assumed; so is that kernels and depth of a codec do not matter.

    Args:
        network: What is pruned.
        base_accuracy: Of the network as it was; of those in `ANCHORED` the paper's if absent.

    Raises:
        ValueError: If nobody says how accurate the network is.
    """
    if base_accuracy is None:
        if network.network not in ANCHORED:
            hint = did_you_mean(network.network, ANCHORED)
            raise ValueError(f"no base accuracy of {network.network!r} is known: {hint}give base_accuracy")
        base_accuracy = ANCHORED[network.network]
    prune_scale, prune_power = _through(*((1 - psi, loss) for psi, loss in PRUNED_ANCHORS))
    pack_scale, pack_power = _through(*PACKED_ANCHORS)
    return Anchored(
        base=jnp.array(base_accuracy, float),
        prune_scale=jnp.full(len(network.units), prune_scale),
        prune_power=jnp.array(prune_power),
        pack_scale=jnp.array(pack_scale),
        pack_power=jnp.array(pack_power),
        noise=jnp.array(NOISE_AT_0_DB),
    )


def _through(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """Scale and power of a loss scale * (left^-power - 1), by two points (left, loss)."""
    (left, loss), (other_left, other_loss) = first, second

    def off(power: float) -> float:
        return (other_left**-power - 1) / (left**-power - 1) - other_loss / loss

    power = float(brentq(off, 1e-3, 5))
    return loss / (left**-power - 1), power


def _loss(model: Anchored, inputs: Float[Array, " input"]) -> Float[Array, ""]:
    units = model.prune_scale.shape[0]
    conv_share, _, stride, conv_bits, linear_share, _, _, linear_bits = inputs[units + 1 : -1]
    left = 1 - jnp.clip(inputs[:units], 0, 1 - 1e-6)
    pruning = jnp.sum(model.prune_scale * (jnp.exp(-model.prune_power * jnp.log(left)) - 1))
    # In one form the codec that does not apply leaves all.
    share = conv_share * linear_share * (conv_bits / FLOAT_BITS) * (linear_bits / FLOAT_BITS) / stride**2
    packing = model.pack_scale * (jnp.exp(-model.pack_power * jnp.log(share)) - 1)
    noise = model.noise * 10 ** (-NOISELESS / 20) * (jnp.exp((NOISELESS - inputs[-1]) * (np.log(10) / 20)) - 1)
    return pruning + packing + noise


# Trees. Lanes are last, and one tree is done for all of them at a time: so XLA vectorises over lanes, and what is read
# of them stays in the cache.


def _over_lanes(evaluate: Callable[..., Array]) -> Callable[..., Array]:
    """`evaluate(model, *inputs [input, lane]) -> [lane]`, which takes the lanes of any `jax.vmap` at once."""
    of = custom_vmap(evaluate)

    @of.def_vmap
    def batched(size: int, in_batched: Sequence[Any], model: Trees, *sides: Array) -> tuple[Array, bool]:
        of_model, *of_sides = in_batched
        if any(jax.tree.leaves(of_model)):
            axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, (of_model, *of_sides))
            return jax.vmap(evaluate, axes)(model, *sides), True
        each = (
            jnp.moveaxis(side, 0, 1)
            if is_batched
            else jnp.broadcast_to(side[:, None], (len(side), size, side.shape[1]))
            for side, is_batched in zip(sides, of_sides, strict=True)
        )
        return of(model, *(side.reshape(len(side), -1) for side in each)).reshape(size, -1), True

    return of


@_over_lanes
def _at_points(model: Trees, inputs: Float[Array, "input lane"]) -> Float[Array, " lane"]:
    def of_perfect(tree: _OneTree) -> Float[Array, " lane"]:
        splits = tree.feature.shape[0]

        def below(node: int) -> Array:
            if node >= splits:
                return tree.value[node - splits]
            second = inputs[tree.feature[node]] > tree.threshold[node]
            return jnp.where(second, below(2 * node + 2), below(2 * node + 1))

        return jnp.broadcast_to(below(0), inputs.shape[1:])

    def of_linked(tree: _OneTree) -> Float[Array, " lane"]:
        assert tree.child is not None
        child, lane = tree.child, jnp.arange(inputs.shape[1])

        def step(_: Array, node: Array) -> Array:
            return child[node] + (inputs[tree.feature[node], lane] > tree.threshold[node])

        return tree.value[jax.lax.fori_loop(0, model.depth, step, jnp.zeros(inputs.shape[1], int))]

    return _combined(model, of_perfect if model.child is None else of_linked, inputs)


@_over_lanes
def _in_boxes(model: Trees, low: Float[Array, "input lane"], high: Float[Array, "input lane"]) -> Float[Array, " lane"]:
    def greater(tree: _OneTree, node: Number, first: Array, second: Array) -> Array:
        feature, threshold = tree.feature[node], tree.threshold[node]
        first = jnp.where(low[feature] <= threshold, first, -jnp.inf)
        return jnp.maximum(first, jnp.where(high[feature] > threshold, second, -jnp.inf))

    def of_perfect(tree: _OneTree) -> Float[Array, " lane"]:
        splits = tree.feature.shape[0]

        def below(node: int) -> Array:
            if node >= splits:
                return tree.value[node - splits]
            return greater(tree, node, below(2 * node + 1), below(2 * node + 2))

        return jnp.broadcast_to(below(0), low.shape[1:])

    def of_linked(tree: _OneTree) -> Float[Array, " lane"]:
        assert tree.child is not None
        child, nodes = tree.child, tree.child.shape[0]

        def step(count: Array, values: Array) -> Array:
            node = nodes - 1 - count  # children first
            first = child[node]
            best = greater(tree, node, values[first], values[first + 1])
            return values.at[node].set(jnp.where(first == node, tree.value[node], best))

        start = jnp.zeros((nodes + 1, low.shape[1]), tree.value.dtype)  # a last leaf has none after it
        return jax.lax.fori_loop(0, nodes, step, start)[0]

    return _combined(model, of_perfect if model.child is None else of_linked, low)


class _OneTree(NamedTuple):
    feature: Int[Array, " split"]
    threshold: Float[Array, " split"]
    value: Float[Array, " leaf"]
    child: Int[Array, " node"] | None


def _combined(
    model: Trees, evaluate: Callable[[_OneTree], Float[Array, " lane"]], inputs: Float[Array, "input lane"]
) -> Float[Array, " lane"]:
    trees = _OneTree(model.feature, model.threshold, model.value, model.child)
    if model.weight is None:
        start = jnp.zeros(inputs.shape[1:], model.value.dtype)
        return model.intercept + jax.lax.scan(lambda total, tree: (total + evaluate(tree), None), start, trees)[0]
    values = jax.lax.map(evaluate, trees)
    return _weighted_median(values, model.weight)


def _weighted_median(values: Float[Array, "tree lane"], weight: Int[Array, " tree"]) -> Float[Array, " lane"]:
    """The least value at which the weights of all that are no greater reach half of all weights (AdaBoost.R2)."""
    half = (jnp.sum(weight) + 1) // 2

    def step(least: Array, value: Array) -> tuple[Array, None]:
        reached = jnp.sum(jnp.where(values <= value, weight[:, None], 0), axis=0) >= half
        return jnp.where(reached, jnp.minimum(least, value), least), None

    return jax.lax.scan(step, jnp.full(values.shape[1:], jnp.inf, values.dtype), values)[0]


# From trees to arrays


def _perfect(tree: Tree, depth: int) -> tuple[np.ndarray, ...]:
    """Features, thresholds and values of the tree filled up to a perfect one: below a leaf all is that leaf."""
    splits = 2**depth - 1
    feature, threshold, value = np.zeros(splits), np.full(splits, np.inf), np.zeros(splits + 1)

    def fill(place: int, node: int) -> None:
        leaf = tree.feature[node] < 0
        if place >= splits:
            value[place - splits] = tree.value[node]
            return
        if not leaf:
            feature[place], threshold[place] = tree.feature[node], tree.threshold[node]
        fill(2 * place + 1, node if leaf else int(tree.left[node]))
        fill(2 * place + 2, node if leaf else int(tree.right[node]))

    fill(0, 0)
    return feature, threshold, value


def _linked(tree: Tree) -> tuple[np.ndarray, ...]:
    """Features, thresholds, values and first children by node, level by level, the second child after the first."""
    order, first = [0], {}
    for place, node in enumerate(order):  # which grows on the way
        first[place] = place if tree.feature[node] < 0 else len(order)
        if tree.feature[node] >= 0:
            order += [int(tree.left[node]), int(tree.right[node])]
    leaf = tree.feature[order] < 0
    threshold = np.where(leaf, np.inf, tree.threshold[order])
    return np.where(leaf, 0, tree.feature[order]), threshold, tree.value[order], np.array(list(first.values()))


def _stacked(trees: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Arrays `[tree, ...]`; what shorter ones lack is no node of any way."""
    parts = zip(*trees, strict=True)
    return tuple(
        np.stack([np.pad(each, (0, length - len(each))) for each in part])
        for part in map(list, parts)
        for length in (max(map(len, part)),)
    )
