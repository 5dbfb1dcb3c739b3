"""Judge what Mu et al. 2024 claim of pruning, cutting and packing a network together, and draw their figures.

    python -m benchmarks.reproduce.mu           # some 5 minutes on 2 cores by "anchored" alone
    python -m benchmarks.reproduce.mu --page    # judge and draw what is measured

What predicts accuracy is the declared law "anchored", and where networks were really compressed
(`python -m benchmarks.reproduce.mu.samples`) what is fitted to them. Results: OUT/README.md and pictures.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.claims import Judged
from benchmarks.harness.experiments import Results
from benchmarks.harness.machine import described
from benchmarks.harness.page import (
    Reproduction,
    claim_table,
    legend,
    measure_and_judge,
    picture,
    sensitivity_table,
)
from benchmarks.reproduce.mu.claims import CLAIMS, NAMES, Data
from benchmarks.reproduce.mu.experiments import BANDWIDTH, NETWORKS, PREDICTORS, RESTARTS, plan
from benchmarks.reproduce.mu.figures import at_each_cut, over_noise, over_rates


def load(folder: Path) -> Data:
    """What the files in `folder/data` hold; the verdicts are with the predictor that was fitted, if there is one."""
    results = Results.load(folder)
    return Data(results, _there(results)[-1], _tables(folder))


def _tables(folder: Path) -> dict[str, Any]:
    """Of regressors, by network, on whatever images they were measured."""
    found = {name: sorted(folder.glob(f"regressors_{name}_*.json")) for name in NETWORKS}
    return {name: json.loads(files[0].read_text()) for name, files in found.items() if files}


def _there(results: Results) -> list[str]:
    return [name for name in PREDICTORS if name == PREDICTORS[0] or any(f"_{name}" in each for each in results)]


def body(data: Data, judged: Sequence[Judged], drawn: Collection[str]) -> Iterator[str]:
    """What is assumed, the claims, the pictures."""
    yield (
        "AlexNet and RegNetX-400MF of torchvision with 10 classes at 224 x 224 in 32 bit, devices, server and links of "
        "Tables II and III, FLOP of Table I. What the paper leaves open:"
    )
    yield ""
    yield (
        "- The eight codec settings are ours: share of channels, kernel, stride and bits of a convolutional codec; "
        "share of features, layers, width of the layer between and bits of a linear one "
        "(`mec_jax.profiles.compression`)."
    )
    yield "- RegNet's sparsities: nine, of the stem and of the outside and the inside of each stage."
    yield (
        "- The paper's 300 samples of accuracy are not public. "
        + (
            'Here it is the declared law "anchored": monotone, through the four points that the paper quotes. It is no '
            "measurement, and no claim about accuracy is judged by it."
            if data.predictor == "anchored"
            else "Here they are of networks that were really compressed, on Fashion-MNIST at 32 x 32 with stride 1 "
            "in the first convolution, as CIFAR-10 is not at hand."
        )
    )
    if data.predictor != "anchored":
        yield (
            "- **Latencies are those of networks that a predictor takes to be within the accuracy budget.** Once they "
            "are really trained, hardly one is (p, q): where a search ends, the predictor errs upwards, however well "
            "it predicts networks that were drawn at random. The paper never checks."
        )
    yield f"- The bandwidth of Fig. 11: {BANDWIDTH / 1e6:g} MHz. The cuts: those inside the network, as in Fig. 6."
    yield (
        f"- All methods that search do it by MQHOA, the best of {RESTARTS} runs; the joint search also starts from "
        "what the others found."
    )
    yield ""
    yield from claim_table(judged)
    yield ""
    yield from picture("rates", "Latency over the rate of the link", drawn)
    yield from picture("cuts", "Work and bits at each cut", drawn)
    yield from picture("noise", "Latency over the signal-to-noise ratio", drawn)
    there = {name: Data(data.results, name, data.tables) for name in _there(data.results)}
    if len(there) > 1:
        yield from ("## With each predictor", "")
        yield from sensitivity_table(there, CLAIMS)
        yield from ("", legend(), "")
    yield from predictors_table(data.tables)
    machines = sorted({described(content["machine"]) for content in data.results.values()})
    seconds = sum(content["wall_s"] for content in data.results.values())
    if machines:
        yield f"Machine: {'; '.join(machines)}. Time: {seconds:.0f} s in all, beside other jobs."


def predictors_table(tables: Mapping[str, Any]) -> Iterator[str]:
    """Table IV for what was measured here."""
    if not tables:
        return
    yield from ("## Predictors on networks that were held out", "")
    about = next(iter(tables.values()))
    yield (
        f"Table IV's regressors with scikit-learn's settings, cross-validated in {about['folds']} folds of whole "
        f"networks; means of {len(next(iter(about['table'].values()))['mse'])} repeats. The paper does not say on what "
        'its errors were measured. "As bundled" is gradient boosting that also knows what searches chose by earlier '
        "ones (`rounds`), and at each cut the network as it was: the predictor of `CompressedInference-v0` and "
        "`-RegNet-v0`."
    )
    yield from ("", "| network | regressor | MSE | adjusted R2 | AIC | BIC |", "|---|---|---|---|---|---|")
    for network, found in tables.items():
        bundled = f"as bundled, {found['bundled_networks']} networks"
        of = f"{NAMES[network]}: {found['networks']} networks, {found['samples']} samples"
        for name, scores in (*found["table"].items(), (bundled, found["bundled"])):
            mse, *others = (np.mean(scores[score]) for score in ("mse", "adjusted_r2", "aic", "bic"))
            yield f"| {of} | {name} | {mse:.5f} | {others[0]:.3f} | {others[1]:.0f} | {others[2]:.0f} |"
    yield ""


REPRODUCTION = Reproduction(
    name="mu",
    title="Joint pruning, partition and feature compression, Mu et al. 2024",
    paper='L. Mu et al., "A Fine-Grained End-to-End Latency Optimization Framework for Wireless Collaborative '
    'Inference", IEEE Internet of Things Journal 11(4), 2024.',
    about_verdicts="Verdicts are computed from the latencies below.",
    load=load,
    claims=CLAIMS,
    figures={"rates": over_rates, "cuts": at_each_cut, "noise": over_noise},
    body=body,
)


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    measure_and_judge(REPRODUCTION, __doc__, plan, argv)
