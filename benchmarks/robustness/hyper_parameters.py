"""Hostile hyper-parameters: out of range, of another kind, no number at all.

    python -m benchmarks.robustness hyper_parameters

Each input is one value for one field of an algorithm's `Config` or `HParams`, put in by the constructor, by the command
line or by the `config.json` of a run folder. What gets in must be of the field's kind and within its range, and go
together with the other fields as `make_trainer` sees it; nothing is trained.
"""

import contextlib
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from algos import cli
from algos.algorithms import algorithm, algorithms
from algos.cli import train
from algos.run_config import RunConfig
from algos.runs import CONFIG, read_config
from benchmarks.harness.campaign import TAKEN, fate
from mec_jax.ranges import Range, ranges
from mec_jax.registry import make

ENV = "MultiUEOffloading-v0"
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", "x", "tanh", "Tanh", "nan", "1", "-1", "x" * 10_000, [], [1], [1, 0], [[2]], {}, {"x": 1}),
    *(-1, 0, 1, 2, 7, 2**31 - 1, 2**31, 2**63, 10**12, 10**400, -(10**400), 0.0, -0.0, 1.0, 2.0, 2.5, 64.0),
    *(math.nan, math.inf, -math.inf, 1e6, 1e39, 1e308, 1e-46, 5e-324, -1e-9, 1 + 1e-9),
    *(np.float32(0.5), np.float64(2), np.float16(0), np.int64(3), np.bool_(True), np.array([0.5, -1]), np.array("x")),
    *((), (1,), (8, 0), (2.5,), (True,), (8,) * 32, (8,) * 33, 2**16, 2**16 + 1),
)


class Input(NamedTuple):
    """A value for a field of a run that is fine without it."""

    run: RunConfig
    part: str  # "config" or "hparams"
    field: str
    value: Any


def value_for(allowed: Range, rng: np.random.Generator) -> Any:
    """A hostile value, or one at an end of the range or somewhere within."""
    match int(rng.integers(4)):
        case 0 if allowed.choices or allowed.kind is bool:
            return (allowed.choices or (True, False))[int(rng.integers(2))]
        case 0:
            end = (allowed.least, min(allowed.most, 1e38))[int(rng.integers(2))]
            beside = end + int(rng.integers(-1, 2)) if allowed.kind is int else math.nextafter(end, rng.choice([-1, 2]))
            return beside if allowed.max_length is None else (beside,) * int(rng.integers(allowed.max_length + 2))
        case 1:
            number = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-50, 50))
            return int(number) if rng.integers(2) else number
        case _:
            return VALUES[int(rng.integers(len(VALUES)))]


def within(allowed: Range, value: Any) -> bool:
    """Whether a value is of the kind and within the range, written once more."""
    if allowed.max_length is not None:
        one = allowed._replace(max_length=None)
        return type(value) is tuple and len(value) <= allowed.max_length and all(within(one, x) for x in value)
    if allowed.choices:
        return type(value) is str and value in allowed.choices
    if allowed.kind is bool:
        return value is True or value is False
    if allowed.kind is int:
        return type(value) is int and allowed.least <= value <= allowed.most
    if type(value) is int:
        return abs(value) < 2**128 and allowed.least <= value <= allowed.most
    return isinstance(value, float | np.number) and allowed.least <= float(value) <= allowed.most


def verdict(run: RunConfig) -> str:
    """What to say of a run that was accepted."""
    for chosen in (run.config, run.hparams):
        for name, allowed in ranges(type(chosen)).items():
            if not within(allowed, value := getattr(chosen, name)):
                return f"taken though {name} is out of range: {value!r:.80}"
    return TAKEN


def constructed(given: Input, folder: Path) -> RunConfig:
    """By Python."""
    part = dataclasses.replace(getattr(given.run, given.part), **{given.field: given.value})
    return dataclasses.replace(given.run, **{given.part: part})


def parsed(given: Input, folder: Path) -> RunConfig:
    """By the command line, of which one line of error is left."""
    option = f"--{given.part}.{given.field.replace('_', '-')}"
    value = given.value
    texts = [str(x) for x in value] if isinstance(value, list | tuple) else [str(value)]
    arguments = ["train", given.run.algorithm, "--preset", given.run.preset, option, *texts]
    runs: list[RunConfig] = []
    errors = io.StringIO()
    with mock.patch.object(train, "train", lambda run, path: runs.append(run)), contextlib.redirect_stderr(errors):
        try:
            cli.main(arguments)
        except SystemExit as stop:
            said = errors.getvalue()
            if stop.code != 2:
                raise RuntimeError(f"exit {stop.code}: {said}") from None
            if said.startswith("╭"):  # a frame of tyro's: no text of that kind, or more words than the option takes
                said = f"{given.field}: {' '.join(said.split())[:200]}"
            raise ValueError(said.removeprefix("mec-jax: ").removesuffix("\n").replace("-", "_")) from None
    return runs[0]


def read(given: Input, folder: Path) -> RunConfig:
    """By a run folder."""
    content = dataclasses.asdict(given.run)
    content[given.part][given.field] = given.value
    (folder / CONFIG).write_text(json.dumps(content, default=str))
    return read_config(folder)


WAYS: tuple[Callable[[Input, Path], RunConfig], ...] = (constructed, read, constructed, read, parsed)
"""In turn: the last takes most of the time."""


def fates(count: int, seed: int, folder: Path) -> Counter[str]:
    """What becomes of hostile hyper-parameters, by all ways and for all algorithms in turn."""
    rng = np.random.default_rng(seed)
    env, _ = make(ENV)

    def accepted(way: Callable[[Input, Path], RunConfig], given: Input) -> RunConfig:
        """The run, if the trainer takes it."""
        run = way(given, folder)
        algorithm(run.algorithm).make_trainer(env, run.config)
        return run

    runs = []
    for name in algorithms():
        config, hparams, _ = algorithm(name).presets["fast"]
        runs.append(RunConfig(name, ENV, {}, {}, "fast", 0, config, hparams))
    found: Counter[str] = Counter()
    for index in range(count):
        way, run = WAYS[index % len(WAYS)], runs[index // len(WAYS) % len(runs)]
        part = ("config", "hparams")[int(rng.integers(2))]
        fields = ranges(type(getattr(run, part)))
        field = list(fields)[int(rng.integers(len(fields)))]
        given = Input(run, part, field, value_for(fields[field], rng))
        alone = within(fields[field], given.value)  # if so, it may be refused for what it does not go together with
        found[fate(partial(accepted, way, given), verdict, "" if alone else field)] += 1
    return found
