"""Fitted regressors that predict a compressed network's accuracy, apart from the library that fitted them.

`from_sklearn` takes one of the six of Mu et al. 2024, Table IV, out of scikit-learn; `write_regressor` and
`load_regressor` keep it as JSON, and `mec_jax.physics.accuracy` evaluates it. A file:

    {
      "schema": 1,
      "name": "alexnet_gradient_boosting",
      "description": "which network on which images",
      "source": {"regressor": "where the measurements come from, and what fitted them"},
      "base_accuracy": 0.8742,
      "inputs": ["sparsity/conv1", "cut", "conv_share", "snr_db"],
      "combine": "sum",
      "intercept": 0.85,
      "coefficients": [],
      "trees": [
        {"weight": 1.0, "feature": [1, -1, -1], "threshold": [3.5, 0, 0], "left": [1, -1, -1], "right": [2, -1, -1],
         "value": [0, -0.01, 0.02]}
      ]
    }

Of a tree's node "feature" is the number of an input, or -1 at a leaf; where the input is at most "threshold" it goes to
the node "left", else to "right". What comes of it is a "sum", of the intercept and the trees' values times their
weights, or without trees of the intercept and the inputs times the coefficients; or the weighted "median" of the trees'
values.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
from jaxtyping import Float, Int

from mec_jax.files import check_file, write_text
from mec_jax.profiles.reader import MAX_BYTES, Fields, Reader

__all__ = ["Combine", "Regressor", "Tree", "bundled_regressors", "from_sklearn", "load_regressor", "write_regressor"]

type Combine = Literal["sum", "median"]

_TREE_FIELDS = ("weight", "feature", "threshold", "left", "right", "value")


@dataclass(frozen=True, eq=False)
class Tree:
    """A regression tree; its root is node 0, and children stand behind their parents."""

    feature: Int[np.ndarray, " node"]  # number of an input; -1 at a leaf
    threshold: Float[np.ndarray, " node"]  # float32: at most this goes left
    left: Int[np.ndarray, " node"]
    right: Int[np.ndarray, " node"]
    value: Float[np.ndarray, " node"]  # of a leaf
    weight: float = 1.0

    @property
    def depth(self) -> int:
        """Most splits from the root to a leaf."""
        depth = np.zeros(len(self.feature), int)
        for node in np.flatnonzero(self.feature >= 0):
            depth[[self.left[node], self.right[node]]] = depth[node] + 1
        return int(depth.max())


@dataclass(frozen=True, eq=False)
class Regressor:
    """A fitted regressor."""

    inputs: tuple[str, ...]  # their names
    combine: Combine
    intercept: float
    coefficients: Float[np.ndarray, " input"]  # of a linear one; an empty array if there are trees
    trees: tuple[Tree, ...]
    base_accuracy: float  # of the network as it was, 0 to 1
    name: str = "regressor"
    description: str = "a fitted regressor"
    source: tuple[tuple[str, str], ...] = (("regressor", "fitted"),)


# From scikit-learn


class _FittedTree(Protocol):
    feature: np.ndarray
    threshold: np.ndarray
    children_left: np.ndarray
    children_right: np.ndarray
    value: np.ndarray


def from_sklearn(fitted: Any, inputs: Sequence[str], base_accuracy: float) -> Regressor:
    """A fitted regressor of scikit-learn: gradient boosting, bagging, AdaBoost or a random forest of trees, one tree,
    or a linear one.

    scikit-learn compares inputs in float32 with thresholds in float64. x <= t of a float32 x is x <= t', the greatest
    float32 number that is at most t; so thresholds are rounded down, and every decision is the same.

    Args:
        fitted: The regressor, fitted.
        inputs: Names of its inputs, in order.
        base_accuracy: Of the network as it was, 0 to 1.

    Raises:
        ValueError: If it is none of these, isn't fitted, or has another number of inputs.
    """
    kind = type(fitted).__name__
    if kind not in _KINDS:
        raise ValueError(f"can't take a {kind}: give one of scikit-learn's {', '.join(_KINDS)}")
    if not hasattr(fitted, "n_features_in_"):
        raise ValueError(f"this {kind} isn't fitted: call its fit first")
    if fitted.n_features_in_ != len(inputs):
        raise ValueError(f"this {kind} has {fitted.n_features_in_} inputs, but {len(inputs)} names: give one each")
    intercept, coefficients, combine = 0.0, np.zeros(0), "sum"
    trees: tuple[Tree, ...] = ()
    match kind:
        case "LinearRegression":
            intercept, coefficients = float(fitted.intercept_), np.asarray(fitted.coef_, float)
        case "DecisionTreeRegressor":
            trees = (_tree(fitted, 1.0),)
        case "GradientBoostingRegressor":
            if not hasattr(fitted.init_, "constant_"):
                raise ValueError("this GradientBoostingRegressor starts from an estimator: fit it with init=None")
            intercept = float(np.squeeze(fitted.init_.constant_))
            trees = tuple(_tree(each, fitted.learning_rate) for each in fitted.estimators_[:, 0])
        case "RandomForestRegressor":
            trees = tuple(_tree(each, 1 / len(fitted.estimators_)) for each in fitted.estimators_)
        case "BaggingRegressor":
            chosen = zip(fitted.estimators_, fitted.estimators_features_, strict=True)
            trees = tuple(_tree(each, 1 / len(fitted.estimators_), features) for each, features in chosen)
        case "AdaBoostRegressor":
            combine = "median"
            weighted = zip(fitted.estimators_, fitted.estimator_weights_, strict=False)
            trees = tuple(_tree(each, float(weight)) for each, weight in weighted)
    return Regressor(tuple(inputs), cast(Combine, combine), intercept, coefficients, trees, float(base_accuracy))


_KINDS = (
    "GradientBoostingRegressor",
    "BaggingRegressor",
    "AdaBoostRegressor",
    "RandomForestRegressor",
    "DecisionTreeRegressor",
    "LinearRegression",
)


def _tree(fitted: Any, weight: float, features: np.ndarray | None = None) -> Tree:
    if not hasattr(fitted, "tree_"):
        raise ValueError(f"can't take an ensemble of {type(fitted).__name__}: give one of decision trees")
    tree = cast(_FittedTree, fitted.tree_)
    split = tree.children_left >= 0
    feature = tree.feature if features is None else np.asarray(features)[np.maximum(tree.feature, 0)]
    return Tree(
        feature=np.where(split, feature, -1),
        threshold=np.where(split, _rounded_down(tree.threshold), 0).astype(np.float32),
        left=np.where(split, tree.children_left, -1),
        right=np.where(split, tree.children_right, -1),
        value=np.where(split, 0, tree.value[:, 0, 0]),
        weight=weight,
    )


def _rounded_down(value: np.ndarray) -> np.ndarray:
    nearest = value.astype(np.float32)
    return np.where(nearest > value, np.nextafter(nearest, np.float32(-np.inf)), nearest)


# Files


def write_regressor(path: str | os.PathLike[str], regressor: Regressor) -> None:
    """Writes it, whole or not at all.

    Raises:
        ValueError: If the path can't be written, or the file would be too large to be read.
    """
    check_file(path, "regressor", (".json",))
    content = {
        "schema": 1,
        "name": regressor.name,
        "description": regressor.description,
        "source": dict(regressor.source),
        "base_accuracy": regressor.base_accuracy,
        "inputs": list(regressor.inputs),
        "combine": regressor.combine,
        "intercept": regressor.intercept,
        "coefficients": regressor.coefficients.tolist(),
        "trees": [
            {
                "weight": tree.weight,
                "feature": tree.feature.tolist(),
                "threshold": [float(str(each)) for each in tree.threshold],  # as few digits as float32 needs
                "left": tree.left.tolist(),
                "right": tree.right.tolist(),
                "value": tree.value.tolist(),
            }
            for tree in regressor.trees
        ],
    }
    text = json.dumps(content, allow_nan=False) + "\n"
    if len(text) > MAX_BYTES:
        raise ValueError(f"regressor {os.fspath(path)!r} would have {len(text)} bytes: fit fewer or smaller trees")
    write_text(path, text)


def load_regressor(name_or_path: str | os.PathLike[str]) -> Regressor:
    """A regressor that comes with the package, by its name, or a JSON file.

    Raises:
        ValueError: If there is none, or the file is malformed; the message says what to change.
    """
    return _READER.read(name_or_path)


def bundled_regressors() -> tuple[str, ...]:
    """Names of the regressors that come with the package."""
    return _READER.bundled()


def _content(fields: Fields) -> Regressor:
    inputs = fields.values["inputs"]
    texts = isinstance(inputs, list) and all(isinstance(each, str) and each.strip() for each in inputs)
    if not isinstance(inputs, list) or not texts or not inputs or len(set(inputs)) < len(inputs):
        raise ValueError("field 'inputs' must be a list of different names, one an input")
    combine = fields.text("combine")
    if combine not in ("sum", "median"):
        raise ValueError(f"field 'combine' must be 'sum' or 'median', not {combine!r}")
    base = fields.number("base_accuracy")
    if base > 1:
        raise ValueError(f"field 'base_accuracy' must be at most 1, not {base}")
    trees = tuple(_read_tree(tree, len(inputs)) for tree in fields.objects("trees", _TREE_FIELDS, least=0))
    if combine == "median" and (not trees or sum(tree.weight for tree in trees) <= 0):
        raise ValueError("a median needs trees, of weights that are >= 0 and not all 0")
    return Regressor(
        inputs=tuple(inputs),
        combine=cast(Combine, combine),
        intercept=float(_array([fields.values["intercept"]], "intercept", 1)[0]),
        coefficients=_array(fields.values["coefficients"], "coefficients", 0 if trees else len(inputs)),
        trees=trees,
        base_accuracy=base,
        name=fields.text("name"),
        description=fields.text("description"),
        source=fields.source(),
    )


def _read_tree(fields: Fields, inputs: int) -> Tree:
    feature = _array(fields.values["feature"], f"{fields.place}.feature", None, whole=True)
    size = len(feature)
    if not size or (feature >= inputs).any():
        raise ValueError(f"field '{fields.place}.feature' must name an input 0 to {inputs - 1}, or -1 at a leaf")
    left, right = (_array(fields.values[key], f"{fields.place}.{key}", size, whole=True) for key in ("left", "right"))
    threshold, value = (_array(fields.values[key], f"{fields.place}.{key}", size) for key in ("threshold", "value"))
    split = feature >= 0
    # Each node but the root is the child of one before it: then there is a way to each and no circle.
    children = np.sort(np.concatenate([left[split], right[split]]))
    behind = (np.minimum(left, right)[split] > np.flatnonzero(split)).all()
    if not behind or children.tolist() != list(range(1, size)):
        raise ValueError(f"{fields.place} is no tree: each node but the first must be the child of one before it")
    if (np.abs(threshold) > np.finfo(np.float32).max).any():
        raise ValueError(f"field '{fields.place}.threshold' is beyond float32")
    single = threshold.astype(np.float32)
    weight = fields.number("weight")
    return Tree(feature.astype(int), single, left.astype(int), right.astype(int), value, weight)


def _array(value: object, name: str, length: int | None, whole: bool = False) -> np.ndarray:
    expected = f"a list of {'' if length is None else f'{length} '}{'whole' if whole else 'finite'} numbers"
    kinds = int if whole else int | float
    if not isinstance(value, list) or length not in (None, len(value)):
        raise ValueError(f"field {name!r} must be {expected}")
    if not all(isinstance(each, kinds) and not isinstance(each, bool) and math.isfinite(each) for each in value):
        raise ValueError(f"field {name!r} must be {expected}")
    return np.array(value, float)


_READER = Reader(
    "regressor",
    ("base_accuracy", "inputs", "combine", "intercept", "coefficients", "trees"),
    _content,
    folder="accuracy",
)
