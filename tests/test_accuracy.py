"""Accuracy predictors against scikit-learn, their files, boxes, and the declared law."""

import doctest
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import (
    AdaBoostRegressor,
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.tree import DecisionTreeRegressor

import mec_jax.physics.accuracy
from mec_jax.physics.accuracy import (
    ANCHORED,
    NOISELESS,
    PERFECT_DEPTH,
    Anchored,
    anchored,
    input_names,
    inputs,
    most_accurate,
    predict,
    predictor,
)
from mec_jax.physics.compression import Strategy, costs, strategy_of
from mec_jax.profiles.compression import NO_CODEC, SETTINGS, Compressible, Unit, compressible, kept
from mec_jax.profiles.regressors import (
    Regressor,
    Tree,
    bundled_regressors,
    from_sklearn,
    load_regressor,
    write_regressor,
)
from tests.tolerance import close

ALEXNET = compressible("alexnet")
COSTS = costs(ALEXNET)
NAMES = input_names(ALEXNET)
CUT, CODEC, SNR = 7, slice(8, 16), 16  # places among the inputs

FITTED: dict[str, Callable[[], Any]] = {
    "gradient boosting": lambda: GradientBoostingRegressor(random_state=0),
    "deep gradient boosting": lambda: GradientBoostingRegressor(n_estimators=9, max_depth=7, random_state=0),
    "bagging": lambda: BaggingRegressor(random_state=0),
    "bagging of some inputs": lambda: BaggingRegressor(max_features=0.5, bootstrap_features=True, random_state=0),
    "AdaBoost": lambda: AdaBoostRegressor(random_state=0),
    "deep AdaBoost": lambda: AdaBoostRegressor(DecisionTreeRegressor(max_depth=8), n_estimators=9, random_state=0),
    "forest": lambda: RandomForestRegressor(25, random_state=0),
    "tree": lambda: DecisionTreeRegressor(random_state=0),
    "stump of no split": lambda: DecisionTreeRegressor(min_samples_split=1.0, random_state=0),
    "linear": LinearRegression,
}


@jax.jit
@jax.vmap
def read(point: jax.Array, snr_db: jax.Array) -> jax.Array:
    return inputs(COSTS, strategy_of(COSTS, point), snr_db)


def random_inputs(number: int, seed: int) -> np.ndarray:
    """Inputs of strategies from all over the space, [number, input]."""
    rng = np.random.default_rng(seed)
    return np.asarray(read(rng.random((number, 16)), rng.uniform(0, 70, number)))


SEEN, ASKED = random_inputs(200, 0), random_inputs(300, 1)
batched = jax.jit(jax.vmap(predict, (None, 0)))
batched_box = jax.jit(jax.vmap(most_accurate, (None, 0, 0)))


@pytest.fixture(scope="module", params=FITTED)
def fitted(request: pytest.FixtureRequest) -> Any:
    rng = np.random.default_rng(2)
    accuracy = np.asarray(batched(anchored(ALEXNET), SEEN)) + rng.normal(0, 0.005, len(SEEN))
    return FITTED[request.param]().fit(SEEN, accuracy)


@pytest.fixture(scope="module")
def regressor(fitted: Any) -> Regressor:
    return from_sklearn(fitted, NAMES, 0.87)


# Against scikit-learn


def magnitudes(regressor: Regressor, asked: np.ndarray) -> np.ndarray:
    """At most what is added up for inputs [number, input], and of how many terms."""
    trees = sum(tree.weight * np.abs(tree.value).max() for tree in regressor.trees) if regressor.trees else 0
    linear = np.abs(asked) @ np.abs(regressor.coefficients) if regressor.coefficients.size else 0
    return np.abs(regressor.intercept) + trees + linear + np.zeros(len(asked))


def agrees(regressor: Regressor, fitted: Any, asked: np.ndarray) -> None:
    # Each term is rounded once, a product once more, and the sums as often as there are terms; a median is one number.
    size = magnitudes(regressor, asked) if regressor.combine == "sum" else np.abs(fitted.predict(asked))
    count = 2 + len(regressor.trees) + regressor.coefficients.size
    close(batched(predictor(regressor), asked), fitted.predict(asked), size, count)


def test_predictions_are_scikit_learns(regressor: Regressor, fitted: Any) -> None:
    agrees(regressor, fitted, ASKED)


def test_decisions_are_the_same_next_to_every_threshold(regressor: Regressor, fitted: Any) -> None:
    """Where an input is the float32 number next to a threshold, or that itself, a tree must turn as scikit-learn's."""
    found = [
        (feature, threshold)
        for tree in regressor.trees[:10]
        for feature, threshold in zip(tree.feature, tree.threshold, strict=True)
        if feature >= 0
    ][:150]
    asked = []
    for index, (feature, threshold) in enumerate(found):
        for value in (threshold, np.nextafter(threshold, np.float32(9e9)), np.nextafter(threshold, np.float32(-9e9))):
            point = ASKED[index % len(ASKED)].copy()
            point[feature] = value
            asked.append(point)
    if asked:
        agrees(regressor, fitted, np.array(asked))


def test_shapes_of_vmap_do_not_matter(regressor: Regressor) -> None:
    model = predictor(regressor)
    flat = np.asarray(batched(model, ASKED[:24]))
    nested = jax.jit(jax.vmap(jax.vmap(predict, (None, 0)), (None, 0)))(model, ASKED[:24].reshape(4, 6, -1))
    alone = jax.jit(predict)(model, ASKED[3])
    of_models = jax.jit(jax.vmap(predict, (0, None)))(jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), model), ASKED[3])
    size, count = magnitudes(regressor, ASKED[:24]), 4 + 2 * len(regressor.trees) + regressor.coefficients.size
    close(nested.reshape(-1), flat, size, count)
    close(alone, flat[3], size[3], count)
    close(of_models, [flat[3]] * 2, size[3], count)


def test_small_trees_are_filled_up_and_deep_ones_not() -> None:
    grown = np.linspace(0, 1, 64)[:, None]
    for depth in (PERFECT_DEPTH, PERFECT_DEPTH + 1):
        tree = DecisionTreeRegressor(max_depth=depth).fit(grown, np.sin(20 * grown[:, 0]))
        assert (predictor(from_sklearn(tree, ["x"], 1.0)).child is None) == (depth == PERFECT_DEPTH)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: KNeighborsRegressor().fit(SEEN, SEEN[:, 0]), "can't take a KNeighborsRegressor: give one of"),
        (lambda: LinearRegression(), "isn't fitted"),
        (lambda: LinearRegression().fit(SEEN[:, :3], SEEN[:, 0]), "has 3 inputs, but 17 names"),
        (lambda: BaggingRegressor(LinearRegression()).fit(SEEN, SEEN[:, 0]), "an ensemble of LinearRegression"),
        (lambda: GradientBoostingRegressor(init="zero").fit(SEEN, SEEN[:, 0]), "fit it with init=None"),
        (lambda: ExtraTreesRegressor(3).fit(SEEN, SEEN[:, 0]), "can't take a ExtraTreesRegressor"),
    ],
)
def test_what_can_not_be_taken_is_refused(wrong: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_sklearn(wrong(), NAMES, 0.9)


# Boxes


@given(seed=st.integers(0, 2**16), width=st.sampled_from([0.0, 0.01, 0.3, 5.0]))
def test_no_point_of_a_box_is_more_accurate_than_the_box(regressor: Regressor, seed: int, width: float) -> None:
    rng = np.random.default_rng(seed)
    low = ASKED[rng.integers(len(ASKED), size=20)]
    high = (low + width * rng.random(low.shape) * np.ptp(SEEN, axis=0)).astype(np.float32)
    points = np.clip(low + (high - low) * rng.random(low.shape), low, high).astype(np.float32)
    model = predictor(regressor)
    most = np.asarray(batched_box(model, low, high), float)
    slack = (4 + len(regressor.trees) + regressor.coefficients.size) * 2.0**-24 * magnitudes(regressor, high)
    for inside in (points, low, high):
        assert (np.asarray(batched(model, inside), float) <= most + slack).all()
    if width == 0 and regressor.trees:
        assert np.array_equal(batched_box(model, low, low), batched(model, low)), "a box of one point is that point"


def test_a_box_of_all_is_the_best_of_all_leaves() -> None:
    tree = DecisionTreeRegressor(max_depth=8, random_state=0).fit(SEEN, SEEN[:, 0] - SEEN[:, SNR])
    low, high = np.full((2, 1, len(NAMES)), 1e9) * np.array([-1, 1])[:, None, None]
    best = float(tree.tree_.value.reshape(-1)[tree.tree_.feature < 0].max())
    close(batched_box(predictor(from_sklearn(tree, NAMES, 1.0)), low, high), [best], 60, 3)


# The declared law


@pytest.mark.parametrize(("loss", "psi"), [(0.02, 0.74), (0.05, 0.89)])
def test_pruning_conv2_costs_what_the_paper_says(loss: float, psi: float) -> None:
    x = jnp.array([0.0] * 7 + [21.0, *NO_CODEC, NOISELESS]).at[1].set(psi)
    # What the power makes of a number of 2 e is at most some 16 roundings off.
    close(predict(anchored(ALEXNET), x), ANCHORED["alexnet"] - loss, 1, 16)


@pytest.mark.parametrize(("loss", "share"), [(0.02, 0.065), (0.07, 0.002)])
def test_packing_the_first_linear_layer_costs_what_the_paper_says(loss: float, share: float) -> None:
    x = jnp.array([0.0] * 7 + [16.0, *NO_CODEC, NOISELESS]).at[CODEC.start + 4].set(share)
    close(predict(anchored(ALEXNET), x), ANCHORED["alexnet"] - loss, 1, 32)


@pytest.mark.parametrize("name", ANCHORED)
def test_as_it_was_a_network_is_as_accurate_as_it_was(name: str) -> None:
    network = compressible(name)
    plain = Strategy(jnp.zeros(len(network.units)), jnp.array(5), jnp.array(NO_CODEC))
    assert predict(anchored(network), inputs(costs(network), plain, 99.0)) == np.float32(ANCHORED[name])


@given(seed=st.integers(0, 2**16), step=st.floats(0.01, 1))
def test_the_declared_law_is_monotone(seed: int, step: float) -> None:
    """Accuracy falls with every sparsity and with the stride; it rises with shares, bits and SNR."""
    rng, model = np.random.default_rng(seed), anchored(ALEXNET)
    x = np.concatenate(
        [
            rng.uniform(0, 0.9, 7),
            [rng.integers(22)],
            [rng.choice(each.choices) if each.choices else rng.uniform(each.least, 0.9) for each in SETTINGS],
            [rng.uniform(0, 50)],
        ]
    ).astype(np.float32)
    grown = np.tile(x, (len(x), 1))
    grown[np.arange(len(x)), np.arange(len(x))] += np.float32(step) * np.where(np.arange(len(x)) < 7, 0.05, 0.1)
    change = np.asarray(batched(model, grown), float) - float(jax.jit(predict)(model, x))
    falling = {*range(7), CODEC.start + 2}
    rising = {CODEC.start + place for place in (0, 3, 4, 7)} | {SNR}
    noise = 64 * 2.0**-24  # of a difference of two numbers below 1
    for place, each in enumerate(change):
        if place in falling:
            assert each <= noise
        elif place in rising:
            assert each >= -noise
        else:
            assert abs(each) <= noise
    assert change[0] < 0 < change[CODEC.start + 3], "sparsity and bits must matter"


def test_a_network_of_unknown_accuracy_needs_one() -> None:
    network = Compressible("alexnett", (Unit("a", ("a",), 8),))
    with pytest.raises(ValueError, match="did you mean 'alexnet'"):
        anchored(network)
    assert isinstance(anchored(network, 0.5), Anchored)


# What is read


def test_inputs_are_the_strategy_in_its_one_form() -> None:
    assert NAMES[:8] == (*(f"sparsity/{unit.name}" for unit in ALEXNET.units), "cut")
    assert NAMES[8:] == (*(setting.name for setting in SETTINGS), "snr_db")
    codec = jnp.array([0.5, 3, 2, 4, 0.25, 2, 0.5, 6.0])
    psi = jnp.linspace(0, 0.9, 7)

    def read(cut: int, snr_db: float) -> list[float]:
        return inputs(COSTS, Strategy(psi, jnp.array(cut), codec), snr_db).tolist()

    conv, flat, nothing = read(3, 20.0), read(20, 99.0), read(21, 20.0)
    assert conv[CODEC] == [*codec[:4].tolist(), 1, 1, 1, 32] and conv[CUT] == 3 and conv[SNR] == 20
    assert flat[CODEC][:4] == list(NO_CODEC[:4]) and flat[SNR] == NOISELESS
    assert nothing[CODEC] == list(NO_CODEC) and nothing[SNR] == NOISELESS, "nothing is sent: there is no noise"
    for unit, share, wanted in zip(ALEXNET.units, conv[:7], psi.tolist(), strict=True):
        pruned = unit.channels - kept(unit.channels, 1, wanted)
        assert share == pytest.approx(pruned / unit.channels, rel=1e-6), "what is really pruned"


# Files


def test_a_file_gives_the_same_predictions(regressor: Regressor, tmp_path: Path) -> None:
    path = tmp_path / "regressor.json"
    write_regressor(path, regressor)
    again = load_regressor(path)
    for one, other in zip(jax.tree.leaves(predictor(again)), jax.tree.leaves(predictor(regressor)), strict=True):
        assert np.array_equal(one, other)
    assert (again.inputs, again.combine, again.base_accuracy) == (regressor.inputs, regressor.combine, 0.87)


def stump() -> dict[str, Any]:
    tree = {"weight": 1.0, "feature": [0, -1, -1], "threshold": [0.5, 0, 0], "left": [1, -1, -1], "right": [2, -1, -1]}
    return {
        "schema": 1,
        "name": "stump",
        "description": "a stump",
        "source": {"regressor": "made up"},
        "base_accuracy": 0.9,
        "inputs": ["x", "y"],
        "combine": "sum",
        "intercept": 0.1,
        "coefficients": [],
        "trees": [tree | {"value": [0, -1.0, 2.0]}],
    }


def test_a_stump_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "stump.json"
    path.write_text(json.dumps(stump()))
    asked = np.array([[0.5, 9], [0.50001, 9]], np.float32)
    close(batched(predictor(load_regressor(path)), asked), [-0.9, 2.1], 3, 4)


def in_tree(**changed: object) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["trees"][0].update(changed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("inputs"), "'inputs' is missing"),
        (lambda content: content.update(inputs=["x", "x"]), "list of different names"),
        (lambda content: content.update(combine="mean"), "'combine' must be 'sum' or 'median', not 'mean'"),
        (lambda content: content.update(base_accuracy=87.4), "must be at most 1"),
        (lambda content: content.update(coefficients=[1, 2]), "'coefficients' must be a list of 0 finite numbers"),
        (lambda content: content.update(trees=[]), "'coefficients' must be a list of 2 finite numbers"),
        (lambda content: content.update(intercept="0"), "'intercept' must be a list of 1 finite"),
        (in_tree(weight=-1), "finite and >= 0"),
        (in_tree(feature=[2, -1, -1]), "must name an input 0 to 1, or -1"),
        (in_tree(feature=[True, -1, -1]), "list of whole numbers"),
        (in_tree(feature=[]), "must name an input"),
        (in_tree(left=[0, -1, -1]), "is no tree"),
        (in_tree(left=[2, -1, -1]), "is no tree"),
        (in_tree(feature=[0, 0, -1], left=[1, 0, -1], right=[2, 1, -1]), "is no tree"),
        (in_tree(threshold=[1e300, 0, 0]), "beyond float32"),
        (in_tree(value=[0, 1]), "list of 3 finite numbers"),
        (lambda content: (content.update(combine="median"), in_tree(weight=0)(content)), "a median needs trees"),
        (lambda content: content.update(schema=2), "schema version 2 is not known"),
    ],
)
def test_a_wrong_file_is_one_clear_error(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    content = stump()
    change(content)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        load_regressor(path)
    assert "wrong.json" in str(caught.value) and "\n" not in str(caught.value)


def test_a_regressor_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    nothing = np.zeros(1)
    leaf = Tree(nothing - 1, nothing, nothing, nothing, nothing)
    large = Regressor(("x",), "sum", 0.0, np.zeros(0), (leaf,) * 60_000, 0.9)
    with pytest.raises(ValueError, match="fit fewer or smaller trees"):
        write_regressor(tmp_path / "large.json", large)
    with pytest.raises(ValueError, match="must end in"):
        write_regressor(tmp_path / "small.txt", large)
    assert not list(tmp_path.iterdir())


def test_all_that_comes_with_the_package_can_be_read() -> None:
    files = (resources.files("mec_jax.profiles") / "data" / "accuracy").iterdir()
    names = {file.name.removesuffix(".json") for file in files if file.name.endswith(".json")}
    assert set(bundled_regressors()) == names
    for name in names:
        regressor = load_regressor(name)
        assert regressor.inputs[-1] == "snr_db"
        assert np.isfinite(batched(predictor(regressor), np.zeros((1, len(regressor.inputs))))).all()


def test_its_example() -> None:
    assert doctest.testmod(mec_jax.physics.accuracy).failed == 0
