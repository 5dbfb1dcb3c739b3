"""Compiled programs are kept for later runs: JAX's persistent compilation cache, in the user's cache folder.

JAX runs what it loads from there, so nobody else may write to it. A program serves the machines it was compiled for:
the folder's name has jaxlib's version, the platform, and a digest of the kind of device and what the CPU can do.
"""

import contextlib
import hashlib
import logging
import os
import platform
import stat
import warnings
from pathlib import Path

import jax
import jaxlib
from jax._src.compilation_cache import decompress_executable  # no public name; constraints and a test hold it
from jax.experimental.compilation_cache import compilation_cache
from platformdirs import user_cache_path

from mec_jax.files import reason

__all__ = ["compile_anew", "keep_programs"]

SHORTEST = 0.1
"""Seconds of compiling from which a program is kept."""

MAX_BYTES = 2**30
"""Of all that is kept; beyond, what was not used for longest goes."""

CPUINFO = Path("/proc/cpuinfo")
_OF_CPU = ("vendor_id", "cpu family", "model", "flags", "CPU implementer", "CPU architecture", "CPU part", "Features")
_CHECKED = stat.S_IRUSR  # permissions of an entry that was found to be whole
_log = logging.getLogger(__name__)


def keep_programs() -> Path | None:
    """Keep what will be compiled, and load what this or an earlier process compiled, instead of compiling it again.

    A loaded program is the one that was kept, so its results are the same bit for bit. A folder named by
    `JAX_COMPILATION_CACHE_DIR` is taken as it is, and `JAX_ENABLE_COMPILATION_CACHE=0` is heeded. A disk that is full,
    read-only or damaged costs the time to compile, no more. Call it before anything is compiled, and after
    `jax.distributed.initialize`.

    Returns:
        The folder; None if nothing is kept, with a warning that says why unless it was asked for.
    """
    if not jax.config.jax_enable_compilation_cache:
        return None
    if (named := jax.config.jax_compilation_cache_dir) is not None:
        return Path(named)
    base = user_cache_path("mec_jax")
    folder = base / _machine()
    try:
        _make_private(base)
        _make_private(folder)
    except OSError as error:
        _log.warning("%s", f"compiled programs are not kept: {error.filename}: {reason(error)}")
        return None
    _tidy(base)
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)
    return folder


def compile_anew() -> None:
    """Load nothing and keep nothing, whatever the environment says."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it may be in use


def _machine() -> str:
    """Name of the folder for programs of this jaxlib, device and CPU."""
    device = jax.devices()[0]
    about = hashlib.sha256(f"{device.device_kind}\n{_cpu()}".encode())
    return f"jaxlib-{jaxlib.__version__}-{device.platform}-{about.hexdigest()[:16]}"


def _cpu() -> str:
    """What the CPU is and can do: a program compiled for AVX-512 is killed where there is none."""
    try:
        lines = CPUINFO.read_text(errors="replace").splitlines()
    except OSError:  # no Linux
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.partition(":")[0].strip() in _OF_CPU}))


def _make_private(folder: Path) -> None:
    """Make a folder that its owner alone may write to, if it is not there.

    Raises:
        OSError: If it can't be made, or is there and belongs to someone else or others may write to it.
    """
    if not folder.is_absolute():
        raise FileNotFoundError(0, "it is no absolute path, as there is no home folder", str(folder))
    with contextlib.suppress(FileExistsError):
        folder.mkdir(0o700, parents=True)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(0, "it is no folder", str(folder))
    if about.st_uid != os.geteuid():
        raise PermissionError(0, "it belongs to someone else, and JAX would run what lies there", str(folder))
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(0, "others may write to it, and JAX would run what lies there: chmod go-w", str(folder))


def _tidy(base: Path) -> None:
    """Remove entries that a kill or a full disk cut off, and beyond `MAX_BYTES` those not used for longest.

    JAX takes an entry that was cut off for none, but would never replace it. Each is read once: a whole one is marked
    by its permissions. One that another process is writing may go as well; it is compiled once more.
    """
    found: list[tuple[float, int, Path]] = []
    for entry in base.glob("*/*-cache"):
        with contextlib.suppress(OSError):
            about = entry.stat()
            if stat.S_IMODE(about.st_mode) != _CHECKED:
                if not _is_whole(entry):
                    entry.unlink()
                    continue
                entry.chmod(_CHECKED)
            found.append((max(about.st_atime, about.st_mtime), about.st_size, entry))
    size = 0
    for _, bytes_, entry in sorted(found, reverse=True):
        size += bytes_
        if size > MAX_BYTES:
            with contextlib.suppress(OSError):
                entry.unlink()


def _is_whole(entry: Path) -> bool:
    with entry.open("rb") as file:
        content = file.read()
        os.fsync(file.fileno())  # whole after a power failure, too
    try:
        decompress_executable(content)
    except Exception:  # zlib's or zstandard's
        return False
    return True
