"""What a measurement was taken on."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

VERSIONS = ("mec-jax", "jax", "jaxlib", "flax")


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, and versions."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return {
        "cpu": name,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in VERSIONS},
    }


def commit() -> str:
    """The commit that is checked out, with a + if files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True).stdout

    return git("rev-parse", "--short", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno") else "")


def described(about: Mapping[str, Any], more: Sequence[str] = (), versions: Sequence[str] = ("jax",)) -> str:
    """A machine in words.

    Args:
        about: What `machine` says, and what a script adds.
        more: Keys of what to say after processor and cores.
        versions: Keys of the packages to name.
    """
    words = [about["cpu"], f"{about['cores']} cores"]
    words += [f"Python {about[key]}" if key == "python" else about[key] for key in more]
    return f"{', '.join(words)}; {', '.join(f'{name} {about[name]}' for name in versions)}"
