"""Settings that must stand before the first test module imports jax."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import settings

# Compiling is five sixths of the test time, and most of that is optimising programs that run for milliseconds. So XLA
# optimises little here, as in JAX's own tests; `python -m tests full` also runs the fast tests, and on an emulated
# machine those across implementations, with all optimisations.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Programs of earlier runs and of the other worker are kept: small ones, too, as modules let go of theirs. Here, and not
# in the user's own folder, which `mec-jax` and the notebooks leave alone if another is named.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).resolve().parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# What is no error of use is a failure with its traceback.
os.environ.setdefault("MEC_JAX_TRACEBACK", "1")

# The first example of a test may compile for seconds; the same examples every run make a failure repeatable.
settings.register_profile("mec_jax", deadline=None, derandomize=True)
settings.load_profile("mec_jax")


@pytest.fixture(autouse=True, scope="module")
def no_old_programs() -> Iterator[None]:
    """Let go of what was compiled. A process may have 65 530 mappings of memory; a program takes dozens, and a worker
    that kept those of all modules came to crash for want of them.
    """
    yield
    if (jax := sys.modules.get("jax")) is not None:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def foreground() -> Iterator[None]:
    """Children of a shell's background job would ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def toys() -> Iterator[None]:
    """The environment and the algorithm of a third party: registered on import, here and not while other files are
    collected, and forgotten afterwards.
    """
    import gymnax
    from gymnax.registration import _registry

    from algos import algorithms
    from mec_jax import registry

    environment, learner = "FadingChannel-v0", "reinforce"
    for name in ("tests.toy_env", "tests.toy_algorithm"):
        sys.modules.pop(name, None)
        import_module(name)
    yield
    for ids in (registry.registered_envs, gymnax.registered_envs):
        ids.remove(environment)
    for entries in (registry._entries, _registry):
        del entries[environment]
    del algorithms._ALGORITHMS[learner]


@pytest.fixture(scope="module")
def optimised() -> Iterator[None]:
    """Programs with all optimisations: for those that run longer than they compile."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: two workers share two cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
