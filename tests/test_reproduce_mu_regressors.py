"""Table IV's regressors, on tables that are made up."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from benchmarks.reproduce.mu.regressors import (
    KNOWN,
    REGRESSORS,
    Samples,
    cross_validated,
    fitted,
    read_samples,
    scores,
    table,
    untouched,
)
from mec_jax.physics.accuracy import NOISELESS, input_names, predict, predictor
from mec_jax.profiles.compression import NO_CODEC, SETTINGS, compressible
from mec_jax.profiles.regressors import load_regressor

ALEXNET = compressible("alexnet")


def rows(networks: int) -> list[dict[str, Any]]:
    """Two lines of each network: without noise, and with."""
    rng, found = np.random.default_rng(0), []
    for number in range(networks):
        psi = rng.uniform(0, 0.9, 7)
        codec = [float(rng.choice(each.choices)) if each.choices else rng.uniform(each.least, 1) for each in SETTINGS]
        fixed = {f"sparsity/{unit.name}": value for unit, value in zip(ALEXNET.units, psi, strict=True)}
        fixed |= {"number": number, "cut": int(rng.choice(ALEXNET.cuts[1:-1])), "ignored": "words"}
        fixed |= {each.name: value for each, value in zip(SETTINGS, codec, strict=True)}
        for snr in (99.0, 10.0):
            accuracy = 0.9 - 0.05 * psi[1] ** 2 - 0.02 * (snr < 50) + rng.normal(0, 0.001)
            found.append(fixed | {"snr_db": snr, "accuracy": accuracy, "base_accuracy": 0.91})
    return found


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(content[0]))
        writer.writeheader()
        writer.writerows(content)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return read_samples(write(tmp_path_factory.mktemp("mu") / "samples.csv", rows(60)), ALEXNET)


def test_rows_are_read_as_predictors_read_strategies(samples: Samples) -> None:
    assert samples.inputs.shape == (120, len(input_names(ALEXNET))) and samples.inputs.dtype == np.float32
    assert set(samples.inputs[:, -1]) == {np.float32(NOISELESS), np.float32(10)}
    assert samples.base_accuracy == pytest.approx(0.91) and len(np.unique(samples.network)) == 60
    flat = samples.inputs[:, 7] > 15
    assert (samples.inputs[flat, 8:12] == np.array(NO_CODEC[:4])).all() and flat.any() and not flat.all()


def test_the_base_accuracy_may_stand_in_the_note(tmp_path: Path) -> None:
    content = [{**row, "base": "other" if row["number"] else "one"} for row in rows(4)]
    for row in content:
        del row["base_accuracy"]
    path = write(tmp_path / "samples.csv", content)
    with pytest.raises(ValueError, match=r"samples.json beside it does not say how accurate the network 'one' was"):
        read_samples(path, ALEXNET)
    path.with_suffix(".json").write_text(json.dumps({"one": {"test_accuracy": 0.8}, "other": {"test_accuracy": 0.9}}))
    found = read_samples(path, ALEXNET)
    assert found.base_accuracy == pytest.approx((0.8 + 3 * 0.9) / 4)
    lost = np.array([row["accuracy"] - (0.9 if row["number"] else 0.8) for row in content])
    np.testing.assert_allclose(found.accuracy - found.base_accuracy, lost, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cut": 99}, "alexnet can't be cut after 99 layers"),
        ({"accuracy": 87.4}, "an accuracy is not from 0 to 1"),
        ({"conv_bits": "eight"}, "line 2: conv_bits is 'eight', not a number"),
        ({"snr_db": "nan"}, "snr_db has a value that is not finite"),
    ],
)
def test_a_wrong_table_is_one_clear_error(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    content = rows(2)
    content[0] |= change
    with pytest.raises(ValueError, match=message):
        read_samples(write(tmp_path / "samples.csv", content), ALEXNET)


def test_a_table_of_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no column 'sparsity/stem'"):
        read_samples(write(tmp_path / "samples.csv", rows(2)), compressible("regnet_x_400mf"))


def test_scores_by_hand() -> None:
    accuracy = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    found = scores(accuracy + np.array([0.1, -0.1, 0.1, -0.1, 0.1]), accuracy, 2)
    assert found.mse == pytest.approx(0.01)
    assert found.adjusted_r2 == pytest.approx(1 - 0.01 / 2 * 4 / 2)
    assert found.aic == pytest.approx(5 * math.log(0.01) + 6)
    assert found.bic == pytest.approx(5 * math.log(0.01) + 3 * math.log(5))
    with pytest.raises(ValueError, match="5 samples for 4 variables"):
        scores(accuracy, accuracy, 4)


def test_no_network_is_in_two_folds(samples: Samples) -> None:
    """A regressor that knows the lines of a network by heart gains nothing from the other line of it."""

    class ByHeart:
        def fit(self, seen: np.ndarray, accuracy: np.ndarray) -> "ByHeart":
            self.known = {row.tobytes() for row in seen[:, :-1]}
            return self

        def predict(self, asked: np.ndarray) -> np.ndarray:
            assert not any(row.tobytes() in self.known for row in asked[:, :-1])
            return np.full(len(asked), 0.9)

    first, second = cross_validated(samples, lambda seed: ByHeart(), folds=5, repeats=2)
    assert first == second


def test_what_can_be_learned_is_learned(samples: Samples) -> None:
    found = table(samples, folds=4, repeats=1)
    assert list(found) == list(REGRESSORS)
    assert found["GradientBoostingRegressor"]["adjusted_r2"][0] > 0.8
    shuffled = samples._replace(accuracy=np.random.default_rng(0).permutation(samples.accuracy))
    (worse,) = cross_validated(shuffled, REGRESSORS["GradientBoostingRegressor"], 4, 1)
    assert worse.adjusted_r2 < 0.2, "there is nothing to learn"


def test_what_is_known_is_added_to_all_that_is_fitted_and_to_nothing_that_is_tested(samples: Samples) -> None:
    known, seen = untouched(ALEXNET, samples.base_accuracy), []
    assert known.accuracy.tolist() == [samples.base_accuracy] * len(ALEXNET.cuts)

    class Noting:
        def fit(self, taken: np.ndarray, accuracy: np.ndarray) -> "Noting":
            seen.append((len(taken), (accuracy[-len(known.accuracy) :] == known.accuracy).all()))
            return self

        def predict(self, asked: np.ndarray) -> np.ndarray:
            assert {row.tobytes() for row in asked} <= {row.tobytes() for row in samples.inputs}
            return np.full(len(asked), 0.9)

    cross_validated(samples, lambda seed: Noting(), folds=2, repeats=1, known=known)
    assert all(right for _, right in seen)
    assert sum(count for count, _ in seen) == len(samples.accuracy) + 2 * KNOWN * len(known.accuracy)


@pytest.mark.parametrize("name", ["alexnet"])
def test_the_bundled_predictor_knows_the_network_as_it_was(name: str) -> None:
    """To within the least accuracy budget of the environment, at each cut."""
    space, chosen = compressible(name), load_regressor(name)
    least = mec_jax.make("CompressedInference-v0")[1].budget_min
    known = jnp.asarray(untouched(space, chosen.base_accuracy).inputs)
    predicted = jax.vmap(predict, (None, 0))(predictor(chosen), known)
    assert (np.abs(np.asarray(predicted) - chosen.base_accuracy) < least).all()


def test_the_chosen_one_is_kept_with_its_names(samples: Samples) -> None:
    chosen = fitted(samples, ALEXNET)
    assert chosen.inputs == input_names(ALEXNET) and chosen.base_accuracy == samples.base_accuracy
    assert len(chosen.trees) == 100
