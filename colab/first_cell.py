# @title Install mec_jax, and JAX for the GPU here
# This cell begins each notebook: it is colab/first_cell.py of the repository.
import importlib.resources
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

REPOSITORY = ""  # what pip can install from, as "git+https://...", once mec_jax has an address


def jax_build():
    """The extra of JAX for the GPU here, cuda13 or cuda12; "", with a sentence that says why, for the CPU alone."""
    query = ["nvidia-smi", "--query-gpu=driver_version,compute_cap", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
        driver = min(int(line.split(".")[0]) for line in lines)
        capability = min(float(line.split(",")[1]) for line in lines)
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        print("nvidia-smi tells of no GPU that JAX can use: everything runs on the CPU.")
        return ""
    if driver >= 580 and capability >= 7.5:
        return "cuda13"
    if driver >= 525 and capability >= 5.2:
        return "cuda12"
    print(f"Driver {driver}, compute capability {capability}: too old for JAX, so everything runs on the CPU.")
    return ""


def pip(*arguments):
    done = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip {arguments[0]} did not succeed: {done.stderr.strip()[-2000:]}")


def wheel(folder):
    """mec_jax as a wheel: of the checkout that this notebook lies in, from beside the notebook, or from its address."""
    here = Path.cwd()
    checkouts = [path for path in (here, here.parent) if (path / "colab" / "first_cell.py").is_file()]
    beside = sorted(here.glob("mec_jax-*.whl"))
    if beside and not checkouts:
        return beside[-1]
    source = str(checkouts[0]) if checkouts else REPOSITORY
    if not source:
        raise SystemExit(
            "There is no mec_jax here: put its wheel, mec_jax-*.whl, beside this notebook, and begin again."
        )
    pip("wheel", "-q", "--no-deps", "-w", folder, source)
    return next(Path(folder).glob("mec_jax-*.whl"))


def install(*extras):
    """Install mec_jax, or more extras of it, in the versions that it is tested with."""
    with tempfile.TemporaryDirectory() as folder:
        if is_installed():
            package = f"mec_jax[{','.join(extras)}]"
            versions = importlib.resources.files("mec_jax").joinpath("constraints.txt").read_bytes()
        else:
            file = wheel(folder)
            package = f"mec_jax[{','.join(extras)}] @ {file.as_uri()}"
            versions = zipfile.ZipFile(file).read("mec_jax/constraints.txt")
        constraints = Path(folder, "constraints.txt")
        constraints.write_bytes(versions)
        pip("install", "-q", "-c", str(constraints), package)
    importlib.invalidate_caches()
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in ("numpy", "matplotlib")}
    if old := [name for name, version in loaded.items() if version not in (None, metadata.version(name))]:
        raise SystemExit(f"{' and '.join(old)} came in another version: restart the runtime, and run this cell again.")


def is_installed():
    try:
        return bool(metadata.version("mec_jax"))
    except metadata.PackageNotFoundError:
        return False


if sys.version_info < (3, 12):
    raise SystemExit(f"mec_jax needs Python 3.12 or newer, and this is {sys.version.split()[0]}: take a newer runtime.")
build = jax_build()
if not is_installed():
    install(*filter(None, [build]))
if build and subprocess.run([sys.executable, "-c", "import jax; jax.devices('gpu')"], capture_output=True).returncode:
    print(f"JAX does not see the GPU, so everything runs on the CPU; install({build!r}) and a restart may mend that.")
    build = ""
if not build:
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax

from algos.compilation_cache import keep_programs
from algos.cores import share_cores

share_cores()  # each core of a CPU is a device
keep_programs()
print(jax.devices())
