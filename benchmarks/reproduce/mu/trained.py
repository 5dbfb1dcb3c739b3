"""What a predictor chooses, and what the paper quotes, really trained and tested.

    python -m benchmarks.reproduce.mu.trained alexnet    # 50 optima of each predictor, four quoted points: 50 minutes
    python -m benchmarks.reproduce.mu.trained regnet_x_400mf

An optimum is that of the joint search in one drawn scenario, by a predictor that knows the random samples alone, as the
paper's, or by the one that comes with the package, which also knows the rounds (`rounds`). Tests are on images that no
predictor was fitted to. A run that was stopped goes on where it was.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from torch import nn

from benchmarks.harness.experiments import measure_all, rounded
from benchmarks.harness.networks import trained
from benchmarks.harness.results import RESULTS, command_line
from benchmarks.reproduce.mu.experiments import compared, model
from benchmarks.reproduce.mu.quoted import MEASURED, OPTIMA, QUOTED, SAMPLED, optima_name
from benchmarks.reproduce.mu.regressors import fitted, read_samples, samples_table
from benchmarks.reproduce.mu.samples import RECIPES, TESTED
from mec_jax.physics.accuracy import predictor as as_arrays
from mec_jax.profiles.compression import NO_CODEC, compressible
from mec_jax.solvers.compression import Found
from mec_jax.solvers.latency import DEVICES
from mec_jax.split.compress import compress
from mec_jax.split.images import Images, Labelled, load_images
from mec_jax.split.training import accuracy

AFTER_FC1 = 16  # layers of AlexNet up to fc1


@dataclass(frozen=True)
class Trained:
    """Compressed networks, some of a predictor's optima or the quoted points, by their number."""

    name: str
    network: str
    number: int  # of the scenario, or -1: the quoted points
    predictor: str
    data: str = "fashion-mnist"

    def run(self, folder: Path) -> dict[str, Any]:
        """Returns: `accuracy` by what was done, that of the network as it was among them, and what was `predicted`."""
        space, recipe = compressible(self.network), RECIPES[self.network]
        images, base, untouched = start(self.network, self.data)
        part = unseen(images)
        found: dict[str, Any] = {"accuracy": {"as it was": untouched}}
        if self.number < 0:
            for name, (_, pruned, share) in QUOTED.items():
                sparsity = [pruned.get(unit.name, 0.0) for unit in space.units]
                codec = list(NO_CODEC)
                if share is not None:
                    codec[4] = share
                whole = compress(base, space, sparsity, AFTER_FC1, codec, images, recipe, seed=0)
                found["accuracy"][name] = accuracy(whole, images, part)
            return found
        one = jax.tree.map(lambda leaf: leaf[self.number], optima(self.network, self.data, self.predictor))
        cut = space.cuts[one.strategy.cut]
        # All digits: rounded, a unit of thousands of filters would keep one more.
        sparsity, codec = (np.asarray(each, float).tolist() for each in (one.strategy.sparsity, one.strategy.codec))
        whole = compress(base, space, sparsity, cut, codec, images, recipe, seed=self.number)
        found["accuracy"]["compressed"] = accuracy(whole, images, part)
        strategy = {"sparsity": sparsity, "cut": cut, "codec": codec}
        about = {"scenario": scenario(self.number), "strategy": strategy}
        return found | {"predicted": rounded(one.accuracy), "latency": rounded(one.latency), **about}


@functools.cache
def start(network: str, data: str) -> tuple[Images, nn.Module, float]:
    """The images, the network as it was, and its accuracy."""
    images = load_images(data)
    base = trained(network, images)
    return images, base, accuracy(base, images, unseen(images))


def unseen(images: Images) -> Labelled:
    """Images to test on, as many as in the samples, of which no predictor has seen any."""
    return images.test.some(slice(TESTED, 2 * TESTED))


def scenario(number: int) -> dict[str, float]:
    """One of the devices, and a link."""
    rng = np.random.default_rng([2025, number])
    return {"device_speed": float(rng.choice(list(DEVICES.values()))), "rate": float(10 ** rng.uniform(4, 8))}


@functools.cache
def optima(network: str, data: str, predictor: str) -> Found:
    """What the joint search finds in each scenario, arrays [scenario, ...]."""
    drawn = [scenario(number) for number in range(OPTIMA)]
    space = compressible(network)
    samples = as_arrays(fitted(read_samples(samples_table(network, data), space), space))
    of_predictor = samples if predictor == SAMPLED else model(network, predictor)
    scenarios = {name: np.array([one[name] for one in drawn]) for name in drawn[0]}
    _, found = compared(network, of_predictor, scenarios)
    return jax.tree.map(np.asarray, found["Joint"])


def plan(network: str) -> list[Trained]:
    chosen = [
        Trained(f"{optima_name(network, predictor)}{number:02d}", network, number, predictor)
        for predictor in (SAMPLED, MEASURED)
        for number in range(OPTIMA)
    ]
    return [*([Trained("quoted_points", network, -1, MEASURED)] if network == "alexnet" else []), *chosen]


if __name__ == "__main__":
    parser = command_line(__spec__.name, __doc__)
    parser.add_argument("network", choices=RECIPES)
    measure_all(plan(parser.parse_args().network), RESULTS / "mu", jobs=1)
