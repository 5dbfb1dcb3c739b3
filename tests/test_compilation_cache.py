"""Compiled programs are kept for later runs, where nobody else can write, and loading one changes nothing."""

import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import pytest

from algos import compilation_cache
from algos.cli.train import Train, command
from algos.compilation_cache import keep_programs
from algos.runs import load_run
from benchmarks.robustness.run_folders import arrays_of
from tests.test_loggers import rows

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import logging, resource, signal, sys
import jax
from algos.compilation_cache import compile_anew, keep_programs
logging.basicConfig(format="%(message)s")
if "full" in sys.argv:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name.rpartition("/")[2]))
x = jax.numpy.arange(12.0).reshape(3, 4)
print(keep_programs() if "anew" not in sys.argv else compile_anew())
def program(x): return jax.numpy.sin(x) @ jax.numpy.exp(x.T)
print(jax.jit(program)(x).tobytes().hex())
print(events.count("cache_hits"), events.count("cache_misses"))
"""
"""Compiles something before the cache is set, then a program that is kept."""

TINY = (
    *("train", "ppo", "--env", "CartPole-v1", "--config.num-frames", "48", "--config.num-envs", "2"),
    *("--config.rollout", "8", "--config.epochs", "1", "--config.minibatches", "1", "--config.updates-per-chunk", "1"),
)


class Done(NamedTuple):
    folder: str
    result: str
    hits: int
    kept: int
    said: str


def python(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
    """Another process, without what the tests' own settings say of the cache."""
    ours = ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS")
    environment = {name: value for name, value in os.environ.items() if name not in ours} | settings
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def program(cache: Path, *arguments: str, **settings: str) -> Done:
    done = python("-c", PROGRAM, *arguments, XDG_CACHE_HOME=str(cache), **settings)
    folder, result, counts = done.stdout.splitlines()
    hits, kept = map(int, counts.split())
    return Done(folder, result, hits, kept, done.stderr)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*-cache"))


def test_the_second_process_loads_what_the_first_compiled_and_gets_the_same_bits(tmp_path: Path) -> None:
    first, second = program(tmp_path), program(tmp_path)
    assert (first.hits, first.kept > 0, first.said) == (0, True, "")
    assert (second.hits, second.kept, second.said) == (first.kept, 0, "")
    assert first.result == second.result and first.folder == second.folder
    folder = Path(first.folder)
    assert folder.parent == tmp_path / "mec_jax"
    for private in (folder, folder.parent):
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert len(entries(tmp_path)) == first.kept and {entry.parent for entry in entries(tmp_path)} == {folder}


def test_an_entry_that_a_kill_cut_off_is_removed_and_made_again(tmp_path: Path) -> None:
    first = program(tmp_path)
    cut = entries(tmp_path)
    for entry in cut:
        entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])
    second = program(tmp_path)
    assert (second.hits, second.kept, second.result, second.said) == (0, first.kept, first.result, "")
    assert entries(tmp_path) == cut
    assert program(tmp_path).hits == first.kept


def test_a_damaged_entry_costs_time_alone(tmp_path: Path) -> None:
    first, _ = program(tmp_path), program(tmp_path)
    for entry in entries(tmp_path):  # whole when it was looked at
        assert stat.S_IMODE(entry.stat().st_mode) == 0o400
        entry.chmod(0o600)
        entry.write_bytes(b"x" * 1000)
        entry.chmod(0o400)
    again = program(tmp_path)
    assert (again.hits, again.result, again.said) == (0, first.result, "")


def test_the_users_own_folder_wins(tmp_path: Path) -> None:
    own = tmp_path / "own"
    done = program(tmp_path / "cache", JAX_COMPILATION_CACHE_DIR=str(own))
    assert done.folder == str(own) and len(entries(own)) >= done.kept > 0
    assert not (tmp_path / "cache").exists()


def test_nothing_is_kept_that_is_not_wanted(tmp_path: Path) -> None:
    """Not even where the environment names a folder that is in use already."""
    for settings in ({}, {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "own")}):
        done = program(tmp_path, "anew", **settings)
        assert (done.folder, done.hits, done.said) == ("None", 0, "")
        assert [entry.name for entry in entries(tmp_path) if entry.name.startswith("jit_program")] == []
    assert program(tmp_path, JAX_ENABLE_COMPILATION_CACHE="0").folder == "None"
    assert not (tmp_path / "mec_jax").exists()


def test_a_place_that_cannot_be_used_is_one_line_and_no_end(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = program(tmp_path / "file")
    assert (done.folder, done.hits, done.kept) == ("None", 0, 0)
    assert done.said == f"compiled programs are not kept: {tmp_path}/file/mec_jax: Not a directory\n"
    (tmp_path / "open" / "mec_jax").mkdir(parents=True)
    (tmp_path / "open" / "mec_jax").chmod(0o777)
    done = program(tmp_path / "open")
    assert done.folder == "None" and done.said.count("\n") == 1
    assert "open/mec_jax: others may write to it, and JAX would run what lies there: chmod go-w" in done.said
    assert list((tmp_path / "open" / "mec_jax").iterdir()) == []


def test_a_full_disk_costs_time_alone(tmp_path: Path) -> None:
    """Files end after 500 bytes, which leaves them cut off."""
    full = program(tmp_path, "full")
    cut = entries(tmp_path)
    assert (full.hits, full.said) == (0, "") and {entry.stat().st_size for entry in cut} == {500}
    assert program(tmp_path, "full")[1:] == full[1:]
    after = program(tmp_path)
    assert (after.hits, after.result, entries(tmp_path)) == (0, full.result, cut)
    assert program(tmp_path).hits == len(cut)


# Whose folder


def test_a_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compilation_cache._make_private(tmp_path / "new" / "mine")
    assert stat.S_IMODE((tmp_path / "new" / "mine").stat().st_mode) == 0o700
    compilation_cache._make_private(tmp_path / "new" / "mine")
    (tmp_path / "link").symlink_to(tmp_path / "new")
    for folder, said in ((tmp_path / "link", "no folder"), (Path("relative"), "no absolute path")):
        with pytest.raises(OSError, match=said):
            compilation_cache._make_private(folder)
    assert not Path("relative").exists()
    for mode in (0o720, 0o702, 0o777):
        (tmp_path / "new").chmod(mode)
        with pytest.raises(PermissionError, match="others may write"):
            compilation_cache._make_private(tmp_path / "new")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PermissionError, match="belongs to someone else"):
        compilation_cache._make_private(tmp_path / "new" / "mine")


# For which machine


def test_programs_of_another_cpu_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = "processor\t: {}\nmodel\t\t: 85\nflags\t\t: fpu avx2 {}\ncpu MHz\t\t: {}\n\n"
    names = []
    for text in (
        about.format(0, "avx512f", 2400) + about.format(1, "avx512f", 2500),
        about.format(0, "avx512f", 3000),
        about.format(0, "", 2400),
        about.format(0, "avx512f", 2400).replace("85", "86"),
    ):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(compilation_cache, "CPUINFO", tmp_path / "cpuinfo")
        names.append(compilation_cache._machine())
    monkeypatch.setattr(compilation_cache, "CPUINFO", tmp_path / "absent")
    names.append(compilation_cache._machine())
    assert names[0] == names[1] and len(set(names)) == 4  # clocks and the number of cores don't count
    monkeypatch.setattr("jaxlib.__version__", "0.0.1")
    names.append(compilation_cache._machine())
    assert len(set(names)) == 5 and names[-1].startswith(f"jaxlib-0.0.1-{jax.default_backend()}-")


def test_this_cpu_says_what_it_can_do() -> None:
    if compilation_cache.CPUINFO.exists():
        assert "flags" in compilation_cache._cpu() or "Features" in compilation_cache._cpu()


# What goes


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = zlib.compress(os.urandom(1000))
    monkeypatch.setattr(compilation_cache, "MAX_BYTES", 2.5 * len(content))
    for position, name in enumerate(("a/new-cache", "b/old-cache", "a/used-cache", "a/cut-cache")):
        entry = tmp_path / name
        entry.parent.mkdir(exist_ok=True)
        entry.write_bytes(content if "cut" not in name else content[:-1])
        entry.chmod(0o400 if "cut" not in name else 0o600)
        os.utime(entry, (2000 - position if name != "a/used-cache" else 3000, 1000 - position))
    compilation_cache._tidy(tmp_path)
    assert [entry.name for entry in entries(tmp_path)] == ["new-cache", "used-cache"]


# The command line


def test_the_tests_keep_out_of_the_users_folder() -> None:
    folder = keep_programs()
    assert folder is None or folder == Path(os.environ["JAX_COMPILATION_CACHE_DIR"])


def test_a_run_may_go_on_without_the_cache() -> None:
    for option in ("--no-cache", "--cache"):
        assert issubclass(command(["train", "--resume", "run", option]), Train)


@pytest.mark.full
@pytest.mark.slow
def test_a_run_of_loaded_programs_is_the_run_of_compiled_ones_bit_for_bit(tmp_path: Path) -> None:
    """Without the cache, with an empty one, and with its programs; the option leaves nothing behind."""
    settings = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    runs, kept = [], []
    for name, options in (("anew", ["--no-cache"]), ("cold", []), ("warm", [])):
        done = python("-m", "algos.cli", *TINY, "--out", tmp_path / name, *options, **settings)
        assert (done.returncode, done.stderr) == (0, "")
        table = [{name: x for name, x in row.items() if name != "wall_time"} for row in rows(tmp_path / name)]
        runs.append((arrays_of(load_run(tmp_path / name)[1]), repr(table)))
        kept.append({entry.name for entry in entries(tmp_path / "cache")})
    assert runs[0] == runs[1] == runs[2]
    assert kept[0] == set() and len(kept[1]) >= 3 and kept[1] == kept[2]
