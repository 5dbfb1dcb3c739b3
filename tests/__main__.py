"""`python -m tests`: every check of the repository. All of them run; what failed is summed up at the end.

    python -m tests fast      # before each commit: without what trains or searches for long
    python -m tests           # the whole suite
    python -m tests full      # what is left: long tests, another machine emulated, other Pythons, the wheel, notebooks

Further arguments are pytest's own: `python -m tests fast -k offloading`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TIERS = {"fast": "not slow and not full", "default": "not full", "full": "full"}
"""Marks that pytest selects."""

EVERYWHERE = (
    *("tests/test_baseline.py", "tests/test_policy.py", "tests/test_split_policy.py"),
    "tests/test_offloading.py::test_float32_repeats_each_recorded_frame",
    "tests/test_offloading.py::test_float64_repeats_each_recorded_frame_from_the_command_line",
    "tests/test_offloading.py::test_float64_replays_whole_recorded_episodes",
    *("-k", "not rulers"),
)
"""Tests across implementations and against recorded traces: what another machine's rounding could break."""

MACHINE: Mapping[str, str] = {
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_force_host_platform_device_count=2",
    "ATEN_CPU_CAPABILITY": "default",
    "OPENBLAS_CORETYPE": "Sandybridge",  # not Haswell: 0.3.34 crashes with that on a Zen 4 or 5 (OpenBLAS issue 6021)
}
"""Another machine than this one: XLA, PyTorch and OpenBLAS without the newest instructions, and two devices."""

OPTIMISED = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
"""Programs as users have them: see `conftest.py`."""

OTHER_PYTHON = "python3.13"
DEVICES: Mapping[str, str] = {
    "python3.9": "numpy==1.21.*",
    "python3.10": "numpy==1.26.*",  # Jetson
    "python3.11": "numpy==1.24.*",  # Raspberry Pi
    "python3.12": "numpy",
    "python3.13": "numpy",
}
"""Where exported policies decide: with which NumPy."""


class Check(NamedTuple):
    """A command that must succeed."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = {}


def checks(tier: str, arguments: tuple[str, ...]) -> list[Check]:
    """What a tier runs, in order."""
    python = (sys.executable, "-m")
    found = [
        Check("lint", (*python, "ruff", "check", ".")),
        Check("format", (*python, "ruff", "format", "--check", ".")),
        Check("types", (*python, "mypy")),
        Check(f"tests, {tier}", (*python, "pytest", "-m", TIERS[tier], *arguments)),
    ]
    if tier != "full":
        return found
    command = (*python, "pytest", "-m", "", *EVERYWHERE)
    found.append(Check("tests on another machine", command, {**OPTIMISED, **MACHINE}))
    return found


def in_environments() -> list[Check]:
    """What needs environments of its own, which are made here and thrown away."""
    script = ("bash", "tests/environments.sh")
    return [
        Check("the wheel in an empty environment", (*script, "wheel")),
        *(
            Check(f"policies on {python} with {numpy}", (*script, "device", sys.executable, python, numpy))
            for python, numpy in DEVICES.items()
        ),
        Check(f"fast tests on {OTHER_PYTHON}", (*script, OTHER_PYTHON, TIERS["fast"]), OPTIMISED),
    ]


def main(arguments: list[str]) -> int:
    """Run the checks of a tier; the exit code is that of the first that failed."""
    tier = arguments.pop(0) if arguments and arguments[0] in ("fast", "full") else "default"
    todo = checks(tier, tuple(arguments)) + (in_environments() if tier == "full" else [])
    results = []
    for check in todo:
        print(f"\n$ {check.name}:", *check.command, flush=True)
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, **check.environment, "MEC_JAX_TEMPORARY": folder}
            code = subprocess.run(check.command, cwd=ROOT, env=environment).returncode
        results.append((check.name, code, time.monotonic() - begin))
    print()
    for name, code, seconds in results:
        print(f"{'failed' if code else 'passed':8} {seconds:6.0f} s  {name}", flush=True)
    return next((code for _, code, _ in results if code), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
