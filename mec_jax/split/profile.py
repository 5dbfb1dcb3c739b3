"""Measures what a PyTorch network costs a UE, cut by cut, and writes a profile that the environments load.

The UE computes the network up to the cut, the prefix, and encodes the feature: with a trained codec where there is one
(`split.autoencoder`), elsewhere into 8 bits an element (`split.codec`). All is for one image on this machine.
"""

import csv
import importlib.util
import inspect
import io
import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mec_jax.files import check_count, check_file, did_you_mean, reason, write_text
from mec_jax.profiles.compression import FLOAT_BITS
from mec_jax.split.autoencoder import CodecAbout, TrainedCodec
from mec_jax.split.codec import BITS_PER_ELEMENT, HEADER_BITS, encode
from mec_jax.split.graph import CutGraph, CutPoint

__all__ = ["Cost", "Measurement", "Times", "check_repeats", "choose_cuts", "load_module", "measure", "write_profile"]

INPUT_BITS_PER_ELEMENT = 8
"""Of an image, which is sent as it is."""

MAX_REPEATS = 1_000_000
"""Of one measurement."""

MAX_THREADS = 1024
"""Of PyTorch; more than any CPU has use for end the process."""


@dataclass(frozen=True)
class Times:
    """Of repeated measurements."""

    median: float  # s
    spread: float  # s, interquartile range

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """Of single measurements in s."""
        low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75))
        return cls(float(median), float(high - low))


@dataclass(frozen=True)
class Cost:
    """What one cut point costs the UE for one image."""

    point: CutPoint
    prefix: Times
    encoder: Times  # 0 at the last point, where nothing is sent
    bits: int  # to send; 0 at the last point
    flops: int  # of the prefix by torch's counter: 2 for a multiply-accumulate of convolutions and matrix products
    memory: int  # bytes: parameters and the largest sum of live activations, without the kernels' own workspace
    codec: CodecAbout | None = None  # that encodes here; None: 8 bits an element

    @property
    def time(self) -> float:
        """Of prefix and encoder, s."""
        return self.prefix.median + self.encoder.median


@dataclass(frozen=True)
class Measurement:
    """Costs of a network on one machine."""

    image: CutPoint  # the first: what sending the input means
    costs: tuple[Cost, ...]  # in the network's order; the last computes it whole
    repeats: int
    machine: str  # with threads and versions

    @property
    def spread(self) -> float:
        """Largest interquartile range of a prefix's time, relative to its median."""
        return max(cost.prefix.spread / cost.prefix.median for cost in self.costs)


def load_module(model: str) -> nn.Module:
    """A network in evaluation mode, with random weights if it comes from torchvision.

    Args:
        model: A name that torchvision knows, e.g. "resnet18", or "file.py:factory", a function there that returns an
            nn.Module.

    Raises:
        ValueError: If there is no such network, or making it fails.
    """
    file, colon, name = model.rpartition(":")
    if not colon:
        names = torchvision.models.list_models()
        if model not in names:
            hint = did_you_mean(model, names)
            raise ValueError(f"no network {model!r}, {hint}give a name that torchvision knows, or file.py:factory")
        builder = torchvision.models.get_model_builder(model)
        parts = {"weights_backbone": None} if "weights_backbone" in inspect.signature(builder).parameters else {}
        return builder(weights=None, **parts).eval()  # nothing is downloaded
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise ValueError(f"no Python file {file!r}: give file.py:factory, or a name that torchvision knows")
    python = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(python)
        module = getattr(python, name)()
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        said = f"{type(error).__name__}: {reason(error)}"
        raise ValueError(f"{model!r} gives no network ({said}); mend the file") from None
    if not isinstance(module, nn.Module):
        raise ValueError(f"{model!r} gives a {type(module).__name__}: let it return an nn.Module")
    return module.eval()


def choose_cuts(graph: CutGraph, cuts: Sequence[str]) -> tuple[CutPoint, ...]:
    """The cut points between the input and the end that `cuts` names, in the network's order.

    Args:
        graph: Of the network.
        cuts: Names as in `CutGraph`; or "all"; or "useful", the cuts that send fewer bits than the input and every
            earlier cut. At any other there is more to compute and nothing to gain.

    Raises:
        ValueError: If there is no such cut.
    """
    between = graph.points[1:-1]
    floats = [point for point in between if point.dtype is not None and point.dtype.is_floating_point]
    if tuple(cuts) == ("all",):
        return tuple(floats)
    if tuple(cuts) == ("useful",):
        least = graph.points[0].elements * INPUT_BITS_PER_ELEMENT
        useful = []
        for point in floats:
            if _feature_bits(point) < least:
                useful.append(point)
                least = _feature_bits(point)
        return tuple(useful)
    chosen = {graph.point(cut).index for cut in cuts}
    if ends := chosen & {0, len(graph.points) - 1}:
        raise ValueError(f"{graph.points[min(ends)].name!r} is in every profile: leave it out of the cuts")
    return tuple(graph.points[index] for index in sorted(chosen))


def measure(
    graph: CutGraph,
    example: torch.Tensor,
    points: Sequence[CutPoint],
    repeats: int = 30,
    warm_up: int = 3,
    num_threads: int | None = None,
    codecs: Mapping[int, TrainedCodec] | None = None,
) -> Measurement:
    """Costs of these cut points and of the whole network, which comes last.

    The points take turns, so that what else the machine does meets them alike.

    Args:
        graph: Of the network, on the device to measure.
        example: One image, [1, ...], on that device.
        points: Cut points between the input and the end.
        repeats: Measurements of each point.
        warm_up: Runs before them that don't count.
        num_threads: Threads of PyTorch on the CPU; by default as many as it has now.
        codecs: By the index of the cut point (`autoencoder.codecs_for`), on the same device; elsewhere 8 bits an
            element are sent.

    Raises:
        ValueError: If a number is out of range, or a feature can't be encoded.
    """
    check_repeats(repeats, warm_up, num_threads)
    threads_before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        with torch.inference_mode():
            costs = _measure(graph, example, (*points, graph.points[-1]), repeats, warm_up, codecs or {})
        return Measurement(graph.points[0], costs, repeats, _machine(example.device))
    finally:
        torch.set_num_threads(threads_before)


def check_repeats(repeats: int, warm_up: int, num_threads: int | None) -> None:
    """Refuse numbers that `measure` does not take: to be known before a network is made.

    Raises:
        ValueError: If one is out of range.
    """
    check_count("repeats", repeats, most=MAX_REPEATS)
    check_count("warm_up", warm_up, 0, MAX_REPEATS)
    if num_threads is not None:
        check_count("num_threads", num_threads, most=MAX_THREADS)


def _measure(
    graph: CutGraph,
    example: torch.Tensor,
    points: Sequence[CutPoint],
    repeats: int,
    warm_up: int,
    codecs: Mapping[int, TrainedCodec],
) -> tuple[Cost, ...]:
    encoders = [codecs[point.index].codec.encode if point.index in codecs else encode for point in points]
    bits = [_feature_bits(point) for point in points]
    prefixes = [graph.segment(0, point.index) for point in points]
    local = len(points) - 1
    prefix_times: list[list[float]] = [[] for _ in points]
    encoder_times: list[list[float]] = [[] for _ in points]
    for turn in range(warm_up + repeats):
        for i, prefix in enumerate(prefixes):
            image = example.clone()  # a layer may work in place
            seconds, feature = _timed(prefix, image)
            encoder_seconds = 0.0
            if i != local:
                encoder_seconds, sent = _timed(encoders[i], feature)
                bits[i] = sent.bits
            if turn >= warm_up:
                prefix_times[i].append(seconds)
                encoder_times[i].append(encoder_seconds)
    return tuple(
        Cost(
            point=point,
            prefix=Times.of(prefix_times[i]),
            encoder=Times.of(encoder_times[i]),
            bits=0 if i == local else bits[i],
            flops=_flops(prefixes[i], example),
            memory=point.parameter_bytes + point.activation_bytes,
            codec=codecs[point.index].about if point.index in codecs else None,
        )
        for i, point in enumerate(points)
    )


def _timed(call: Callable[[torch.Tensor], Any], x: torch.Tensor) -> tuple[float, Any]:
    _wait(x.device)
    start = time.perf_counter()
    result = call(x)
    _wait(x.device)
    return time.perf_counter() - start, result


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _flops(module: nn.Module, example: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        module(example.clone())
    return int(counter.get_total_flops())


def _feature_bits(point: CutPoint) -> int:
    return BITS_PER_ELEMENT * point.elements + HEADER_BITS


# Files.


def write_profile(path: Path, name: str, measurement: Measurement, power: float) -> Path:
    """Writes the profile (`mec_jax.profiles.offloading`) and, beside it with the ending .csv, all that was measured.

    Each file is replaced at once: whoever looks sees the old one or the whole new one.

    Args:
        path: Ends in .json.
        name: Of the network.
        measurement: What `measure` gave.
        power: W while the UE computes.

    Returns:
        The path of the .csv.

    Raises:
        ValueError: If the power is not finite and positive, or the path can't be written.
    """
    if not (math.isfinite(power) and power > 0):
        raise ValueError(f"power is {power}: it must be a finite number of W above 0")
    check_file(path, "profile file", (".json",))
    table = check_file(path.with_suffix(".csv"))
    try:
        write_text(table, _table(measurement, power))
        write_text(path, json.dumps(_content(name, measurement, power), indent=2) + "\n")
    except OSError as error:
        raise ValueError(
            f"can't write profile file {str(path)!r}: {reason(error)}; name one in a folder that has room"
        ) from None
    return table


def _content(name: str, measurement: Measurement, power: float) -> dict[str, Any]:
    *cuts, local = measurement.costs
    image = measurement.image
    after = f"cut after {', '.join(cost.point.name for cost in cuts)}" if cuts else "not cut"
    trained = {f"codec at {cost.point.name}": _codec(cost.codec) for cost in cuts if cost.codec is not None}
    plain = f"formula: {BITS_PER_ELEMENT} bit (mec_jax.split.codec), and a header of {HEADER_BITS}"
    if trained:
        plain = f"measured: what a trained codec packs, as the rate of {FLOAT_BITS} bit; without one {plain}"
    return {
        "schema": 1,
        "name": name,
        "description": f"{name} on one {'x'.join(map(str, image.shape[1:]))} input, {after}",
        "source": {
            "time": (
                f"measured by mec-jax profile on {measurement.machine}, {time.strftime('%Y-%m-%d')}: median of "
                f"{measurement.repeats}, the interquartile range of the prefix at most {measurement.spread:.0%} of it. "
                "A cut's front is the prefix plus the encoder"
            ),
            "power": f"declared, not measured: {power:g} W",
            "bits_per_element": plain,
            **trained,
            "input_bits": f"formula: {image.elements} values of {INPUT_BITS_PER_ELEMENT} bits",
        },
        "input_bits": image.elements * INPUT_BITS_PER_ELEMENT,
        "cuts": [
            {
                "name": cost.point.name,
                "feature_shape": _three_axes(cost.point.shape),
                # As eq. 3 counts, and the profiles that come with the package.
                "bits_per_element": FLOAT_BITS if cost.codec else cost.bits / cost.point.elements,
                "compression_rate": FLOAT_BITS * cost.point.elements / cost.bits if cost.codec else 1,
                "front_time_s": cost.time,
                "front_power_w": power,
            }
            for cost in cuts
        ],
        "local": {"time_s": local.time, "power_w": power},
    }


def _codec(about: CodecAbout) -> str:
    sources = "; ".join(f"{what}: {where}" for what, where in about.source)
    return (
        f"{about.sent} of {about.feature_shape[0]} channels, {about.bits} bit, for {about.network}: accuracy "
        f"{about.accuracy:.4f}, {about.accuracy_without:.4f} without it, on {about.data_set}. {sources}"
    )


def _table(measurement: Measurement, power: float) -> str:
    rows = [
        {
            "name": cost.point.name,
            "bits": cost.bits,
            "prefix_time_s": cost.prefix.median,
            "prefix_time_iqr_s": cost.prefix.spread,
            "encoder_time_s": cost.encoder.median,
            "encoder_time_iqr_s": cost.encoder.spread,
            "flops": cost.flops,
            "peak_memory_bytes": cost.memory,
            "energy_j": power * cost.time,
        }
        for cost in measurement.costs
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _three_axes(shape: tuple[int, ...]) -> list[int]:
    """A feature's shape as a profile's [C, H, W], which has as many elements."""
    channels, height, *rest = (*shape[1:], 1, 1)
    return [shape[0] * channels, height, math.prod(rest)]


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
        models = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
        cpu = next(iter(models), platform.processor() or platform.machine())
        name = f"{cpu}, {torch.get_num_threads()} of {os.cpu_count()} cores"
        name = name if device.type == "cpu" else f"{device.type} of {name}"
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in ("torch", "torchvision"))
    return f"{name}, {platform.system()}, Python {platform.python_version()}, {versions}"
