"""What is measured of Mu et al. 2024: the eight baselines and the joint search over rates, cuts and noise.

Each for one network and one predictor of accuracy: "anchored" is the declared law through the four points that the
paper quotes, and no measurement; "measured" is fitted to networks that were really compressed (`samples`).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, override

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.experiments import rounded
from mec_jax.physics.accuracy import Predictor, anchored, predictor
from mec_jax.physics.compression import CompressibleCosts, costs, latency, sent_bits
from mec_jax.profiles.compression import Compressible, Unit, compressible
from mec_jax.profiles.layers import Layer
from mec_jax.profiles.regressors import bundled_regressors, load_regressor
from mec_jax.solvers.compression import BASELINES, compare, mqhoa, problem
from mec_jax.solvers.compression.mqhoa import Config
from mec_jax.solvers.compression.problem import PER_SCENARIO, SPACES, Found, Problem
from mec_jax.solvers.latency import DEVICES, LINKS, SERVER

METHODS = (*BASELINES, "Joint")
RATES = tuple(float(f"{rate:.4g}") for rate in np.logspace(4, 8, 17))  # bit/s, the axis of Figs. 7 and 8
SNRS = tuple(range(0, 51, 5))  # dB, the axis of Fig. 11
BANDWIDTH = 2e6  # Hz, not given: 25 dB is then some 17 Mbit/s, between 4G and 5G
RESTARTS = 16  # runs of MQHOA for each method and scenario
NETWORKS = ("alexnet", "regnet_x_400mf")
PREDICTORS = ("anchored", "measured")
PI, TK1 = "Raspberry Pi 3B+", "NVIDIA Jetson TK1"
DEPTHS = (4, 8, 16, 32, 64)  # units of the networks that running time is measured on


def model(network: str, name: str) -> Predictor:
    """What predicts the accuracy of a network."""
    return anchored(compressible(network)) if name == "anchored" else predictor(load_regressor(network))


def predictors(network: str) -> list[str]:
    """Those that there are."""
    return [name for name in PREDICTORS if name == "anchored" or network in bundled_regressors()]


def compared(
    network: str, of_predictor: Predictor, scenarios: Mapping[str, Any], paper_cuts: bool = True
) -> tuple[CompressibleCosts, Mapping[str, Found]]:
    """All methods in scenarios side by side.

    Args:
        network: Name.
        of_predictor: What predicts its accuracy.
        scenarios: `device_speed`, `rate`, and perhaps `snr_db`, `first_cut` and `last_cut`, a number or [scenario].
        paper_cuts: Cut inside the network, as in Fig. 6; else also before the first layer and behind the last.
    """
    found = costs(compressible(network))
    last = found.cuts.shape[0] - 1
    given = {"snr_db": np.inf, "first_cut": int(paper_cuts), "last_cut": last - paper_cuts, **scenarios}
    each = [dict(zip(given, values, strict=True)) for values in np.broadcast(*given.values())]
    problems = [problem(found, of_predictor, server_speed=SERVER, **one) for one in each]
    whole = Problem(
        found, of_predictor, *(jnp.stack(values) for values in zip(*(one[2:] for one in problems), strict=True))
    )
    keys = jax.random.split(jax.random.key(0), len(each))
    run = jax.vmap(lambda one, key: compare(one, key, restarts=RESTARTS), (PER_SCENARIO, 0))
    return found, jax.jit(run)(whole, keys)


@dataclass(frozen=True)
class OverRates:
    """Figs. 7 and 8: latency over the rate of the link."""

    name: str
    network: str
    predictor: str
    device: str
    rates: tuple[float, ...] = RATES
    restarts: int = RESTARTS

    def run(self, folder: Path) -> dict[str, Any]:
        """Returns: `latency` of each method, [rate] in s, and `everywhere`, those where all cuts are allowed."""
        scenarios = {"device_speed": DEVICES[self.device], "rate": np.array(self.rates)}
        inside, everywhere = (
            {
                method: rounded(one.latency)
                for method, one in compared(self.network, model(self.network, self.predictor), scenarios, cuts)[
                    1
                ].items()
            }
            for cuts in (True, False)
        )
        return {"latency": inside, "everywhere": everywhere}


@dataclass(frozen=True)
class AtEachCut:
    """Figs. 9 and 10: work on the device and bits to send, at each cut, of a 3B+ over 4G."""

    name: str
    network: str
    predictor: str
    restarts: int = RESTARTS

    def run(self, folder: Path) -> dict[str, Any]:
        """Returns: `flops` and `bits` of each method that compresses or cuts, [cut]."""
        inner = np.arange(1, len(compressible(self.network).cuts) - 1)
        scenarios = {"device_speed": DEVICES[PI], "rate": LINKS["4G"], "first_cut": inner, "last_cut": inner}
        found, methods = compared(self.network, model(self.network, self.predictor), scenarios)

        def of(one: Found) -> tuple[jax.Array, jax.Array]:
            def each(strategy: Any) -> tuple[jax.Array, jax.Array]:
                return latency(found, strategy, 1.0, 1.0, 1.0).device, sent_bits(found, strategy)

            return jax.jit(jax.vmap(each))(one.strategy)

        both = {name: of(one) for name, one in methods.items() if not name.startswith("All_")}
        return {
            "flops": {name: rounded(flops) for name, (flops, _) in both.items()},
            "bits": {name: rounded(bits) for name, (_, bits) in both.items()},
            "layers": [
                compressible(self.network).layers[cut - 1].name for cut in compressible(self.network).cuts[1:-1]
            ],
        }


@dataclass(frozen=True)
class OverNoise:
    """Fig. 11: latency over the signal-to-noise ratio, which sets the rate and the accuracy; AlexNet on a 3B+."""

    name: str
    predictor: str
    bandwidth: float = BANDWIDTH
    snrs: tuple[int, ...] = SNRS
    restarts: int = RESTARTS

    def run(self, folder: Path) -> dict[str, Any]:
        """Returns: `latency` of each method, [snr] in s, and whether it is `allowed` by the accuracy budget."""
        snr = np.array(self.snrs, float)
        rate = self.bandwidth * np.log2(1 + 10 ** (snr / 10))
        _, found = compared(
            "alexnet", model("alexnet", self.predictor), {"device_speed": DEVICES[PI], "rate": rate, "snr_db": snr}
        )
        return {
            "latency": {method: rounded(one.latency) for method, one in found.items()},
            "allowed": {method: np.asarray(one.allowed).tolist() for method, one in found.items()},
        }


@dataclass(frozen=True)
class RunningTime:
    """Section V-D: seconds of one run of MQHOA over the number of variables, of chains of equal layers."""

    name: str
    depths: tuple[int, ...] = DEPTHS
    runs: int = 64
    repeats: int = 5

    def run(self, folder: Path) -> dict[str, Any]:
        """Returns: `variables` and median `seconds` of a run, [depth]."""
        variables, seconds = [], []
        for depth in self.depths:
            network = chain(depth)
            one = problem(costs(network), anchored(network, base_accuracy=0.9), DEVICES[PI], LINKS["4G"], SERVER)
            space, keys = SPACES["Joint"], jax.random.split(jax.random.key(0), self.runs)
            _timed(one, keys)  # compiles
            seconds.append(float(np.median([_timed(one, keys) for _ in range(self.repeats)])) / self.runs)
            variables.append(space.variables(one))
        return {"variables": variables, "seconds": rounded(seconds)}


@dataclass(frozen=True)
class _Chain(Compressible):
    """Linear layers one after the other, each of which can be pruned, and one to the classes."""

    @property
    @override
    def layers(self) -> tuple[Layer, ...]:
        return self.pruned((0.0,) * len(self.units))

    @override
    def pruned(self, sparsity: Sequence[float]) -> tuple[Layer, ...]:
        widths = [self.image[0], *self.widths([float(each) for each in sparsity]).values(), self.num_classes]
        return tuple(
            Layer(f"fc{place}", "linear", (come,), (go,), (2 * come - 1) * go, come * go, (come + 1) * go, True)
            for place, (come, go) in enumerate(pairwise(widths), start=1)
        )


def chain(depth: int, width: int = 256) -> Compressible:
    """So many layers of one width that can be pruned."""
    units = tuple(Unit(f"fc{place}", (f"fc{place}",), width) for place in range(1, depth + 1))
    return _Chain("chain", units, image=(width, 1, 1))


@jax.jit
def _runs(one: Problem, keys: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: mqhoa(SPACES["Joint"], Config(), one, key).best.latency)(keys)


def _timed(one: Problem, keys: jax.Array) -> float:
    begin = time.perf_counter()
    jax.block_until_ready(_runs(one, keys))
    return time.perf_counter() - begin


def plan() -> list[Any]:
    """What is measured, as far as there are predictors."""
    found: list[Any] = []
    for network in NETWORKS:
        for name in predictors(network):
            short = network.partition("_")[0]
            found += [
                OverRates(f"rates_{short}_{name}_{device.split()[-1]}", network, name, device) for device in (PI, TK1)
            ]
            found.append(AtEachCut(f"cuts_{short}_{name}", network, name))
            if network == "alexnet":
                found.append(OverNoise(f"noise_{name}", name))
    return [*found, RunningTime("running_time")]
