"""The six regressors of Mu et al. 2024, Table IV, fitted to networks that were really compressed (`samples`).

    python -m benchmarks.reproduce.mu.regressors alexnet           # how good all six are, cross-validated
    python -m benchmarks.reproduce.mu.regressors alexnet --bundle  # and the paper's choice into the package

The paper does not say on what its errors were measured. Here they are those of networks that were held out: folds are
of whole networks, as the lines of one over several channels are near each other.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from sklearn.ensemble import AdaBoostRegressor, BaggingRegressor, GradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold
from sklearn.tree import DecisionTreeRegressor

from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, ROOT, command_line, write_result
from mec_jax.physics.accuracy import NOISELESS, input_names, inputs
from mec_jax.physics.compression import Strategy, costs
from mec_jax.profiles.compression import NO_CODEC, SETTINGS, Compressible, compressible
from mec_jax.profiles.regressors import Regressor, from_sklearn, write_regressor

FOLDS, REPEATS = 10, 10
CHOSEN = "GradientBoostingRegressor"
"""The paper's choice (section VI-C)."""

KNOWN = 10
"""How often what is known of the network as it was is added to what a bundled one is fitted to, at each cut."""

REGRESSORS: Mapping[str, Callable[[int], Any]] = {
    "GradientBoostingRegressor": lambda seed: GradientBoostingRegressor(random_state=seed),
    "BaggingRegressor": lambda seed: BaggingRegressor(random_state=seed),
    "AdaBoostRegressor": lambda seed: AdaBoostRegressor(random_state=seed),
    "RandomForestRegressor": lambda seed: RandomForestRegressor(random_state=seed),
    "DecisionTreeRegressor": lambda seed: DecisionTreeRegressor(random_state=seed),
    "LinearRegression": lambda seed: LinearRegression(),
}
"""By seed, with scikit-learn's own settings, as the paper names no others. In Table IV's order."""


class Samples(NamedTuple):
    """Measured accuracies."""

    inputs: Float[np.ndarray, "row input"]  # as a predictor reads them (`mec_jax.physics.accuracy.inputs`), float32
    accuracy: Float[np.ndarray, " row"]  # 0 to 1
    network: Int[np.ndarray, " row"]  # which compressed network it is
    base_accuracy: float  # of the network as it was, 0 to 1


class Scores(NamedTuple):
    """How good a regressor is on what it has not seen; the columns of Table IV."""

    mse: float
    adjusted_r2: float
    aic: float
    bic: float


def read_samples(path: Path, space: Compressible) -> Samples:
    """The samples of a table, strategies in their one form.

    The accuracy of the network as it was stands in a column "base_accuracy", or by the column "base" in the note beside
    the table. Where rows have several, each row's accuracy is moved by what its own is off their mean, so that what is
    predicted is what compression costs. Rows are of one network if their "number" is the same, or without that column
    if their strategy is.

    Raises:
        ValueError: If a column is missing, or a value is no number or none that there can be.
    """
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    units = [f"sparsity/{unit.name}" for unit in space.units]
    settings = [setting.name for setting in SETTINGS]
    if not rows:
        raise ValueError(f"{path.name} has no rows: run benchmarks.reproduce.mu.samples first")
    missing = [name for name in (*units, "cut", *settings, "snr_db", "accuracy") if name not in rows[0]]
    if missing:
        raise ValueError(f"{path.name} has no column {missing[0]!r}: its network is another, or it was cut off")

    def column(name: str) -> np.ndarray:
        values = []
        for line, row in enumerate(rows, start=2):
            try:
                values.append(float(row[name]))
            except (TypeError, ValueError):
                raise ValueError(f"{path.name}, line {line}: {name} is {row[name]!r}, not a number") from None
        found = np.array(values)
        if not np.isfinite(found).all():
            raise ValueError(f"{path.name}: {name} has a value that is not finite")
        return found

    cut, accuracy = column("cut"), column("accuracy")
    if unknown := sorted(set(cut) - set(space.cuts)):
        raise ValueError(f"{path.name}: {space.network} can't be cut after {unknown[0]:g} layers")
    if not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise ValueError(f"{path.name}: an accuracy is not from 0 to 1")
    strategies = Strategy(
        jnp.array(np.stack([column(name) for name in units], 1), float),
        jnp.array([space.cuts.index(int(each)) for each in cut]),
        jnp.array(np.stack([column(name) for name in settings], 1), float),
    )
    of = costs(space)
    read = jax.jit(jax.vmap(lambda strategy, snr: inputs(of, strategy, snr)))
    seen = np.asarray(read(strategies, jnp.array(column("snr_db"), float)))
    base = column("base_accuracy") if "base_accuracy" in rows[0] else _noted(path, [row.get("base") for row in rows])
    kinds = column("number") if "number" in rows[0] else seen[:, :-1]  # without the SNR
    _, network = np.unique(kinds, axis=0, return_inverse=True)
    return Samples(seen, accuracy - base + base.mean(), network.reshape(-1), float(base.mean()))


def samples_table(network: str, data: str) -> Path:
    """Of networks that were compressed at random (`samples`)."""
    return RESULTS / "mu" / f"samples_{network}_{data}.csv"


def rounds_table(network: str, data: str) -> Path:
    """Of what predictors chose (`rounds`)."""
    return RESULTS / "mu" / f"rounds_{network}_{data}.csv"


def read_all(network: str, data: str, space: Compressible, before: float = math.inf) -> Samples:
    """The samples, and of the rounds the networks with smaller numbers than `before`."""
    samples, path = read_samples(samples_table(network, data), space), rounds_table(network, data)
    if not path.exists():
        return samples
    rounds = read_samples(path, space)
    numbers = [int(row["number"]) for row in csv.DictReader(path.open(newline=""))]
    early = np.array(numbers) < before
    apart = samples.network.max() + 1
    some = Samples(rounds.inputs[early], rounds.accuracy[early], apart + rounds.network[early], rounds.base_accuracy)
    return joined([samples, some])


def joined(parts: Sequence[Samples]) -> Samples:
    """Samples one after the other, of the first one's base."""
    return Samples(
        np.concatenate([part.inputs for part in parts]),
        np.concatenate([part.accuracy for part in parts]),
        np.concatenate([part.network for part in parts]),
        parts[0].base_accuracy,
    )


def _noted(path: Path, digests: Sequence[str | None]) -> np.ndarray:
    note = path.with_suffix(".json")
    known: Mapping[str, Any] = json.loads(note.read_text()) if note.exists() else {}
    for digest in digests:
        if digest not in known:
            raise ValueError(f"{path.name}: {note.name} beside it does not say how accurate the network {digest!r} was")
    return np.array([known[str(digest)]["test_accuracy"] for digest in digests], float)


def scores(predicted: np.ndarray, accuracy: np.ndarray, variables: int) -> Scores:
    """MSE; R2 adjusted for the number of variables; and of normal errors AIC = n ln MSE + 2 k, BIC = n ln MSE + k ln n.
    k is the variables and the intercept for all regressors, as the paper's differences of BIC and AIC suggest.
    """
    count = len(accuracy)
    if count <= variables + 1:
        raise ValueError(f"{count} samples for {variables} variables: an adjusted R2 needs at least {variables + 2}")
    mse = float(np.mean((predicted - accuracy) ** 2))
    unexplained = mse / float(np.var(accuracy))
    fit, parameters = count * math.log(mse), variables + 1
    return Scores(
        mse=mse,
        adjusted_r2=1 - unexplained * (count - 1) / (count - variables - 1),
        aic=fit + 2 * parameters,
        bic=fit + parameters * math.log(count),
    )


def untouched(space: Compressible, base_accuracy: float) -> Samples:
    """What needs no measurement: at each cut the network as it was, without noise, as a sample."""
    each = Strategy(
        jnp.zeros((len(space.cuts), len(space.units))),
        jnp.arange(len(space.cuts)),
        jnp.tile(jnp.array(NO_CODEC, float), (len(space.cuts), 1)),
    )
    of = costs(space)
    seen = np.asarray(jax.vmap(lambda strategy: inputs(of, strategy, NOISELESS))(each))
    return Samples(seen, np.full(len(seen), base_accuracy), np.full(len(seen), -1), base_accuracy)


def cross_validated(
    samples: Samples,
    make: Callable[[int], Any],
    folds: int = FOLDS,
    repeats: int = REPEATS,
    seed: int = 0,
    known: Samples | None = None,
) -> list[Scores]:
    """Scores of what is predicted for networks that were held out, of each repeat with other folds; `known` is added to
    all that is fitted.
    """
    found = []
    for repeat in range(repeats):
        predicted = np.empty(len(samples.accuracy))
        split = GroupKFold(folds, shuffle=True, random_state=seed + repeat)
        for fitted, held_out in split.split(samples.inputs, samples.accuracy, samples.network):
            taken = Samples(samples.inputs[fitted], samples.accuracy[fitted], samples.network[fitted], 0.0)
            taken = taken if known is None else joined([taken, *[known] * KNOWN])
            regressor = make(seed + repeat).fit(taken.inputs, taken.accuracy)
            predicted[held_out] = regressor.predict(samples.inputs[held_out])
        found.append(scores(predicted, samples.accuracy, samples.inputs.shape[1]))
    return found


def table(samples: Samples, folds: int = FOLDS, repeats: int = REPEATS) -> dict[str, dict[str, list[float]]]:
    """Each score of each regressor, [repeat], by their names: Table IV for these samples."""
    return {name: columns(cross_validated(samples, make, folds, repeats)) for name, make in REGRESSORS.items()}


def columns(found: Sequence[Scores]) -> dict[str, list[float]]:
    """Each score by its name, [repeat]."""
    return {score: [getattr(each, score) for each in found] for score in Scores._fields}


def fitted(samples: Samples, space: Compressible, name: str = CHOSEN, seed: int = 0) -> Regressor:
    """A regressor that is fitted to all samples, and to the network as it was.

    Else a leaf's mean would say that the network loses accuracy that nothing was done to, by more than an accuracy
    budget: cuts near the input, say, are only seen with a codec.
    """
    whole = joined([samples, *[untouched(space, samples.base_accuracy)] * KNOWN])
    regressor = REGRESSORS[name](seed).fit(whole.inputs, whole.accuracy)
    return from_sklearn(regressor, input_names(space), samples.base_accuracy)


def main(argv: list[str] | None = None) -> None:
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("network", help="a network of `samples`")
    parser.add_argument("--data", default="fashion-mnist", help="its images (default: fashion-mnist)")
    parser.add_argument("--bundle", action="store_true", help="put the chosen one into the package")
    args = parser.parse_args(argv)
    space = compressible(args.network)
    path = samples_table(args.network, args.data)
    samples, whole = read_samples(path, space), read_all(args.network, args.data, space)
    rows: dict[str, Any] = {
        "samples": len(samples.accuracy),
        "networks": len(np.unique(samples.network)),
        "folds": FOLDS,
        "table": table(samples),
        "bundled": columns(cross_validated(whole, REGRESSORS[CHOSEN], known=untouched(space, samples.base_accuracy))),
        "bundled_networks": len(np.unique(whole.network)),
        "machine": machine(),
    }
    write_result(path.with_name(f"regressors_{args.network}_{args.data}.json"), json.dumps(rows, indent=2) + "\n")
    for name, found in (*rows["table"].items(), ("as bundled", rows["bundled"])):
        print(f"{name:27}", *(f"{score} {np.mean(values):.3g}" for score, values in found.items()))
    if args.bundle:
        others = rounds_table(args.network, args.data).name
        source = (
            f"{CHOSEN} of scikit-learn, fitted to {path.name} and {others} in benchmarks/results/mu, and the network "
        )
        source += "as it was"
        chosen = replace(
            fitted(whole, space),
            name=args.network,
            description=f"accuracy of {args.network} on {args.data}, pruned, cut and given a codec",
            source=(("regressor", source),),
        )
        write_regressor(ROOT / "mec_jax" / "profiles" / "data" / "accuracy" / f"{args.network}.json", chosen)


if __name__ == "__main__":
    main()
