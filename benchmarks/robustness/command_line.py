"""Hostile argument lists of `mec-jax`: one line and exit code 2, never a traceback, and nothing is left behind.

    python -m benchmarks.robustness command_line

Each list names a command and some of its options. Of the values none, one in ten or one in two is hostile: of another
kind, at or beyond the ends of its range, or a text or path that no one expects. Paths lead to folders, links, pipes,
sockets and damaged files. `list` runs whole; the others run up to where they would train, play or measure, and what
they have taken so far must be sound. Ranges of `--config` and `--hparams` are another campaign's.
"""

import contextlib
import inspect
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import gymnax
import numpy as np

from algos import cli
from algos.algorithms import algorithm, algorithms
from algos.cli import render, train
from algos.cli.console import console
from algos.run_config import RunConfig
from algos.runs import load_run
from benchmarks.harness.campaign import REFUSED, TAKEN, fate
from benchmarks.robustness.corrupt_files import example_policy
from mec_jax.registry import registered_envs, static_arguments
from mec_jax.render import check_path
from mec_jax.render import offloading as chart
from mec_jax.solvers import offloading
from mec_jax.split import profile

NUMBERS = (
    *("0", "-0", "-1", "1.5", "1e999", "-1e-9", "NaN", "inf", "1_0", "0x10", "1" * 5000, "five"),
    *map(str, (2**31, 2**32, 2**63, -(2**63) - 1, 10**30, 10**400)),
)
TEXTS = (
    *("", " ", "\n", "a\nb", "x\0y", "\ud800", "é" * 300, "x" * 5000, "--", "-", "-h", "--help", "=", "%s", "{}", "~"),
    *("[/]", "[red]", ":smile:", "\x1b[31m", "None", "*", "$HOME", "../" * 50, "/", ".", ".."),
)
NESTED = (
    *("[]", "[[1]]", '{"a": 1}', "null", "true", "NaN", "[" * 10**5, '["resnet18", 3]', "[null]", '"x\\u0000y"'),
    *(f"[{10**400}]", '[{"a": [[[[]]]]}]', "[1, 2]", '"resnet18', '["resnet18", "resnet18", "vgg"]'),
)
GYMNAX = ("Catch-bsuite", "DeepSea-bsuite", "FourRooms-misc", "FrozenLake-misc", "MemoryChain-bsuite", "CartPole-v1")
VALID: Mapping[str, tuple[str, ...]] = {
    "env": (*registered_envs, *GYMNAX),
    "algorithm": algorithms(),
    "name": ("resnet18", "vgg11", "mobilenet_v2", "vgg16_video", "coknight_resnet"),
    "count": ("1", "2", "3", "4"),
    "number": ("0.1", "1", "5"),
    "param": ("beta", "bandwidth", "elastic", "arrival_gap", "max_steps_in_episode"),
    "value": ("2", "3", "4", "true", "resnet18", "slots", "shared", '["resnet18", "vgg11"]'),
    "policy": ("local", "random", "all_edge", "best-static"),
    "frames": ("3", "0:4", "1:"),
    "model": ("nets.py:small",),
    "cut": ("useful", "all", "0", "1"),
    "device": ("cpu",),
    "dataset": ("digits", "cifar10", "caltech101", "folder"),
    "preset": tuple(name for algorithm_name in algorithms() for name in algorithm(algorithm_name).presets),
}
OTHER: Mapping[str, tuple[str, ...]] = {
    "frames": (":", "3:3", "4:2", "-1:2", "a:b", "1:2:3", "0:9"),
    "model": ("nets.py:number", "nets.py:failing", "nets.py:leaving", "nets.py:", ":x", "full:x", "resnet_18"),
    "device": ("cuda", "meta", "cpu:7", "abacus"),
    "param": ("gravity", "self", "numbers", "betta"),
    "static": ("scenario", "self", "env_id", "static"),
}
NETWORK = """
import sys
from torch import nn

number = 3

def small():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))

def failing():
    raise RuntimeError("two\\nlines")

def leaving():
    sys.exit(0)
"""


class Option(NamedTuple):
    """An option, and what its values are."""

    name: str  # "" if it is known by its place
    kinds: tuple[str, ...] = ()  # of its values


DRAWN = (Option("--num-ues", ("count",)), Option("--num-channels", ("count",)), Option("--params", ("param", "number")))
COMMANDS: Mapping[str, tuple[Option, ...]] = {
    "list": (Option("", ("env",)),),
    "train": (
        *(Option("", ("algorithm",)), Option("--profile", ("name",)), Option("--preset", ("preset",)), *DRAWN),
        *(Option("--static", ("static", "value")), Option("--static", ("static", "value", "static", "value"))),
        *(Option("--seed", ("count",)), Option("--out", ("path",)), Option("--resume", ("path",))),
    ),
    "evaluate": (
        *(Option("", ("path",)), Option("", ("path",)), Option("--episodes", ("count",)), Option("--out", ("path",))),
        *(Option("--deterministic"), Option("--sampled")),
    ),
    "export": (Option("", ("path",)), Option("--out", ("path",))),
    "render": (
        *(Option("", ("policy",)), Option("--out", ("path",)), Option("--frames", ("frames",)), *DRAWN),
        *(Option("--seed", ("count",)), Option("--deterministic"), Option("--profile", ("name",))),
    ),
    "profile": (
        *(Option("", ("model",)), Option("--cuts", ("cut",)), Option("--out", ("path",))),
        *(Option("--device", ("device",)), Option("--power", ("number",)), Option("--image", ("count",) * 3)),
        *(Option(name, ("count",)) for name in ("--repeats", "--warm-up", "--threads")),
        Option("--codec", ("path",)),
    ),
    "dataset": (Option("", ("dataset",)), Option("--folder", ("path",)), Option("--side", ("count",))),
}


class Reached(BaseException):
    """What would take long begins here."""

    def __init__(self, wrong: str = "") -> None:
        self.wrong = wrong  # in what has come so far


def furnish(folder: Path) -> tuple[str, ...]:
    """Fill the folder with what a path may lead to; the paths, and some where there is nothing."""
    example_policy(folder / "policy.npz")
    for name in ("full", "empty", "piped", "run", "odd", "list", "digits"):
        (folder / name).mkdir()
    files = {
        "nets.py": NETWORK.encode(),
        "full/notes.txt": b"mine",
        "zeros": b"",
        "[red].npz": b"",
        "latin.json": b"\xe9",
    }
    configs = {"run": b"{}", "odd": b"[1]", "list": b'{"algorithm": []}', "digits": b"1" * 5000}
    files |= {f"{name}/config.json": content for name, content in configs.items()}
    for name, content in (files | {"deep.json": b"[" * 10**5}).items():
        (folder / name).write_bytes(content)
    os.truncate(folder / "zeros", 2**31)  # a hole: it takes no room
    for name in ("pipe.npz", "piped/config.json"):
        os.mkfifo(folder / name)
    os.mknod(folder / "socket", stat.S_IFSOCK | 0o600)
    links = {"link.json": "policy.npz", "dangling.png": "nowhere", "loop.npz": "loop.npz", "linked": "full"}
    for name, target in (links | {"zero.json": "/dev/zero"}).items():
        (folder / name).symlink_to(target)
    there = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    new = ("new.npz", "new.json", "new.png", "new.gif", "new.onnx", "new", "no/where/new.npz", "policy.npz/x.npz")
    return (*there, *new, "y\n.npz", f"{'n' * 250}.npz", f"{'n' * 251}.json", "/proc/self/mem", "/proc/self/pagemap")


def arguments(rng: np.random.Generator, paths: tuple[str, ...]) -> list[str]:
    """A list of arguments."""

    def pick(values: tuple[Any, ...]) -> Any:
        return values[int(rng.integers(len(values)))]

    hostile = pick((0.0, 0.1, 0.1, 0.5))
    command = pick(("list", "train", "train", "train", "evaluate", "export", "render", "profile", "profile", "dataset"))
    env = pick(VALID["env"])
    valid = {**VALID, "path": paths, "static": _arguments_of(env)}

    def value(kind: str) -> str:
        strange = (*NUMBERS, *TEXTS, *NESTED, *paths) if rng.random() < 0.8 else OTHER.get(kind, NUMBERS)
        return str(pick(strange if rng.random() < hostile else valid[kind]))

    by_place = [option for option in COMMANDS[command] if not option.name]
    named = [option for option in COMMANDS[command] if option.name]
    chosen = [named[int(at)] for at in rng.permutation(len(named))[: int(rng.integers(min(4, len(named) + 1)))]]
    given = [value(kind) for option in by_place if rng.random() > hostile / 4 for kind in option.kinds]
    if command == "train":
        given += ["--env", env]
    for option in chosen:
        values = [value(kind) for kind in option.kinds]
        given += [f"{option.name}={values[0]}"] if len(values) == 1 and rng.random() < 0.2 else [option.name, *values]
    if rng.random() < hostile / 5:
        given.insert(int(rng.integers(len(given) + 1)), pick(TEXTS))
    return [pick(TEXTS) if rng.random() < hostile / 10 else command, *given]


def _arguments_of(env_id: str) -> tuple[str, ...]:
    """Names of the arguments of an environment's constructor."""
    if env_id in registered_envs:
        return tuple(static_arguments(env_id))
    return tuple(inspect.signature(type(gymnax.make(env_id)[0])).parameters) or ("none",)


def _check_run(run: RunConfig | None, path: Path) -> None:
    """Instead of training: whether what is to be trained is there and in range."""
    if run is None:
        load_run(path)
        raise Reached("goes on with no run")
    env, params = run.make_env()
    numbers = [np.asarray(number, float) for number in vars(params).values()]
    finite = env.table.size > 0 and all(np.isfinite(number).all() for number in numbers)
    sound = finite and 0 <= run.seed < 2**32 and (path.is_dir() or not os.path.lexists(path))
    json.dumps(run.env_static, allow_nan=False)
    raise Reached("" if sound else f"would train {run}")


def _check_measurement(
    graph: Any, example: Any, points: Any, repeats: int, warm_up: int, threads: int, codecs: Any
) -> None:
    """Instead of measuring."""
    sound = 1 <= repeats <= 10**6 and 0 <= warm_up <= 10**6 and 1 <= threads <= 1024 and 1 <= example.numel() <= 2**28
    raise Reached("" if sound else f"would measure {repeats}, {warm_up}, {threads}, {tuple(example.shape)}")


class _Chart:
    """Instead of playing and drawing: an episode of four frames."""

    def record(self, env: Any, params: Any, policy: Any, policy_params: Any, key: Any) -> SimpleNamespace:
        return SimpleNamespace(reward=np.zeros(4))

    def write(self, recording: Any, out: Path, frames: tuple[int, int] | None, title: str) -> None:
        check_path(out)
        if frames is not None:
            chart._check_frames(recording, frames)
        raise Reached


def _run(given: list[str]) -> tuple[int, str, str]:
    """Exit code, what is said on stderr, and what is wrong with what was taken."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(given)
        except SystemExit as end:
            return int(end.code or 0), errors.getvalue(), ""
        except Reached as reached:
            return 0, errors.getvalue(), reached.wrong
    return 0, errors.getvalue(), ""


def _verdict(code: int, errors: str, wrong: str) -> str:
    """`REFUSED` by one line of `mec-jax`, or by a usage error of tyro; `TAKEN` in silence."""
    line = errors.startswith("mec-jax: ") and errors.endswith("\n") and errors[:-1].isprintable() and len(errors) < 700
    usage = "For full helptext" in errors and "Traceback" not in errors
    if code == 2 and (line or usage):
        return REFUSED
    return TAKEN if code == 0 and not errors and not wrong else f"exit code {code}: {wrong}{errors[-300:]}"


def _contents(folder: Path) -> dict[str, tuple[int, ...]]:
    """What is in a folder, and would change if it were written to."""
    abouts = {str(path): path.lstat() for path in folder.rglob("*")}
    return {path: (about.st_ino, about.st_mode, about.st_size, about.st_mtime_ns) for path, about in abouts.items()}


@contextlib.contextmanager
def _no_long_work() -> Iterator[None]:
    """Commands end where their long work would begin; a bug shows its traceback."""
    with (
        patch.object(train, "train", _check_run),
        patch.object(render, "find", lambda _: _Chart()),
        patch.object(offloading, "best_static", lambda *_: SimpleNamespace(action=None)),
        patch.object(profile, "measure", _check_measurement),
        patch.object(console, "_width", 100),
        patch.dict(os.environ, {cli.TRACEBACK: "1"}),
    ):
        yield


def fates(count: int, seed: int, folder: Path) -> Counter[str]:
    """What becomes of argument lists."""
    paths = furnish(folder)
    rng = np.random.default_rng(seed)
    found: Counter[str] = Counter()
    with contextlib.chdir(folder), _no_long_work():
        for env in VALID["env"]:  # what is imported and compiled once
            _run(["train", "ppo", "--env", env])
        _run(["profile", "nets.py:small", "--image", "3", "4", "4"])
        before = _contents(folder)
        for _ in range(count):
            given = arguments(rng, paths)
            ended = fate(lambda given=given: _run(given), lambda done: _verdict(*done))  # type: ignore[misc]
            if (after := _contents(folder)) != before:
                ended, before = f"left behind: {sorted(set(after.items()) ^ set(before.items()))[:3]}", after
            found[ended if ended in (REFUSED, TAKEN) else f"{ended} of {[text[:60] for text in given]}"] += 1
    return found
