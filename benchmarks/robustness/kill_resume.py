"""End training runs at random moments, resume them, and compare them bit for bit with one that was left alone.

    python -m benchmarks.robustness.kill_resume                # 50 trials, about an hour
    python -m benchmarks.robustness.kill_resume --trials 3 --seed 1

Each trial is `mec-jax train` in a process of its own that gets a signal, `mec-jax train --resume` that may get one too,
and one more `--resume` that is left to end. Signal and moment are drawn anew each time: SIGINT, as of Ctrl-C, SIGTERM
or SIGKILL; while the program is imported, compiles, trains, evaluates or writes a checkpoint, or after the last chunk,
while the results are made. After SIGINT and SIGTERM the process must end within 5 s with exit code 130 or 143, and its
one line must say how to go on.

The run that is left alone compiles everything. The others share a compilation cache that is empty at first, so that
kills also meet a cache that is being written; a half-written entry is removed when the next process starts.

Results go to benchmarks/results/kill_resume.txt. Exits 1 on any difference.
"""

import csv
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from algos.algorithms import algorithm
from algos.curves import CURVE_EPISODES
from algos.runs import load_run
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, ROOT, command_line, write_result
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.policy import load_policy

CHUNKS = 8
OPTIONS = (
    *("mahppo", "--seed", "3", "--num-ues", "2", "--params", "beta", "0.3", "--config.num-frames", str(32 * CHUNKS)),
    *("--config.num-envs", "4", "--config.rollout", "8", "--config.epochs", "2", "--config.minibatches", "2"),
    *("--config.updates-per-chunk", "1", "--config.trunk", "16", "--config.head", "8", "--config.critic", "16"),
)
LIMIT = 1800  # s of one process
PROMPT = 5.0  # s from a signal that can be caught to the end of the process
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MOMENTS = ("starting", "compiling", "training", "evaluation", "saving", "ending")


class Train:
    """`mec-jax train` in a process of its own."""

    def __init__(self, *options: str, cache: Path | None = None) -> None:
        command = [sys.executable, "-m", "algos.cli", "train", *options]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        if cache is None:
            environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        else:
            environment |= {"XDG_CACHE_HOME": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        self.begin = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until it holds or the process has ended."""
        while self.process.poll() is None and not condition():
            if time.monotonic() > self.begin + LIMIT:
                self.process.kill()
                raise RuntimeError(f"a process has not ended after {LIMIT} s")
            time.sleep(0.001)

    def catches_signals(self) -> bool:
        """Whether the program has begun: before, for some tenths of a second, Python itself starts."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except FileNotFoundError:
            return False
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def stop(self, number: signal.Signals) -> tuple[int, str, float]:
        """Send it a signal: exit code, what it wrote to stderr, and seconds until then."""
        begin = time.monotonic()
        self.process.send_signal(number)
        code, errors = self.end()
        return code, errors, time.monotonic() - begin

    def end(self) -> tuple[int, str]:
        """Wait for it: exit code and what it wrote to stderr."""
        _, errors = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, errors


def rows(path: Path) -> list[list[str]]:
    """Whole rows of metrics.csv without `wall_time`."""
    table = path / "metrics.csv"
    lines = table.read_text().splitlines(keepends=True) if table.exists() else []
    return [row[1:] for row in csv.reader(line for line in lines[1:] if line.endswith("\n"))]


def checkpoints(path: Path, pattern: str) -> list[str]:
    """Names of the folders of checkpoints."""
    return sorted(folder.name for folder in (path / "checkpoints").glob(pattern))


def wrong_end(number: signal.Signals, code: int, errors: str, seconds: float, path: Path) -> str:
    """What is wrong with how a process ended by a signal; nothing if all is well."""
    if code == 0:  # it had ended
        return ""
    if number == signal.SIGKILL:
        return "" if code == -number else f"exit code {code}"
    *_, last = ["", *errors.splitlines()]
    advice = f"; `mec-jax train --resume {shlex.quote(str(path))}` goes on"
    found = {
        f"exit code {code}": code != 128 + number,
        f"{seconds:.1f} s": seconds > PROMPT,
        f"last line {last!r}": last not in ("mec-jax: stopped", f"mec-jax: stopped{advice}"),
        "a traceback": "Traceback" in errors,
    }
    return ", ".join(what for what, so in found.items() if so)


def kill(train: Train, path: Path, seconds: dict[str, float], rng: random.Random) -> tuple[str, str]:
    """End the process at a random moment: what was on disk then, and what is wrong with how it ended."""
    when, number = rng.choice(MOMENTS), rng.choice(SIGNALS)
    new_rows, delay = rng.randint(1, 3), rng.random() * seconds[when]
    before = len(rows(path))
    train.wait_for(train.catches_signals)
    if when == "compiling":
        train.wait_for(lambda: len(list((path / "tensorboard").glob("*"))) > 0)
    if when in ("training", "evaluation", "saving"):
        train.wait_for(lambda: len(rows(path)) >= min(before + new_rows, CHUNKS))
    if when == "evaluation":  # after the training of a chunk
        delay += seconds["training"]
    if when == "saving":
        train.wait_for(lambda: bool(checkpoints(path, "*.unfinished*")))
    if when == "ending":
        train.wait_for(lambda: len(rows(path)) == CHUNKS)

    made = (path / "curve.png").exists()
    over = {
        "starting": lambda: len(rows(path)) > before,
        "compiling": lambda: len(rows(path)) > before,
        "ending": lambda: not made and (path / "curve.png").exists(),
    }.get(when, lambda: False)
    begin = time.monotonic()
    train.wait_for(lambda: time.monotonic() >= begin + delay or over())
    if over():  # faster than the run that compiled everything
        seconds[when] = time.monotonic() - begin
    code, errors, took = train.stop(number)
    wrong = wrong_end(number, code, errors, took, path)
    what = f"{number.name} {when}"
    if code == 0:
        return f"{what}: it had ended", wrong
    if not (path / "config.json").exists():
        return f"{what} (no configuration)", wrong
    whole, partial = checkpoints(path, "[0-9]"), checkpoints(path, "*.unfinished*")
    results = [name for name in ("comparison.json", "policy.npz", "curve.png") if (path / name).exists()]
    return f"{what} ({', '.join([f'{len(rows(path))} rows', f'checkpoints {whole}', *partial, *results])})", wrong


def begin_or_resume(path: Path, cache: Path) -> Train:
    """Resume the run. Where there is none yet, see that this is an error that says so, and begin."""
    if (path / "config.json").exists():
        return Train("--resume", str(path), cache=cache)
    code, errors = Train("--resume", str(path), cache=cache).end()
    if code != 2 or "no run folder" not in errors:
        raise RuntimeError(f"resuming no run is no error of use:\n{errors[-2000:]}")
    shutil.rmtree(path, ignore_errors=True)
    return Train(*OPTIONS, "--out", str(path), cache=cache)


def leaves(path: Path) -> dict[str, Any]:
    """All that the run left but times, by name, to be compared with `==`."""
    run, state = load_run(path)
    state = state._replace(key=jax.random.key_data(state.key))
    arrays = {jax.tree_util.keystr(name): np.asarray(x) for name, x in jax.tree_util.tree_leaves_with_path(state)}
    arrays |= {f"policy.npz {name}": x for name, x in load_policy(path / "policy.npz").arrays.items()}
    return {
        **{name: (x.dtype, x.shape, x.tobytes()) for name, x in arrays.items()},
        "config.json": run,
        "metrics.csv": rows(path),
        "comparison.json": (path / "comparison.json").read_text(),
        "curve.png": (path / "curve.png").read_bytes(),
        "files": sorted(file.name for file in path.iterdir()),
        "checkpoints": checkpoints(path, "*"),
    }


def kill_and_resume(
    path: Path, expected: dict[str, Any], seconds: dict[str, float], cache: Path, rng: random.Random
) -> list[str]:
    """End a run once or twice, then resume it to the end: what happened, and what is wrong as the last item."""
    story = []
    for _ in range(rng.choice((1, 1, 2))):
        happened, wrong = kill(begin_or_resume(path, cache), path, seconds, rng)
        story.append(happened)
        if wrong:
            return [*story, f"WRONG END: {wrong}"]
    code, errors = begin_or_resume(path, cache).end()
    if code != 0:
        return [*story, f"FAILED: {errors.strip().splitlines()[-1:]}"]
    found = leaves(path)
    different = [name for name in expected if found.get(name) != expected[name]]
    return [*story, f"DIFFERENT: {', '.join(different)}" if different else "equal"]


def uninterrupted(path: Path) -> dict[str, float]:
    """Train without a break; seconds that each part takes, from which the moments of the kills are drawn."""
    train = Train(*OPTIONS, "--out", str(path))
    train.wait_for(lambda: len(list((path / "tensorboard").glob("*"))) > 0)
    imported = time.monotonic()
    train.wait_for(lambda: bool(rows(path)))
    first = time.monotonic()
    train.wait_for(lambda: len(rows(path)) == CHUNKS)
    last = time.monotonic()
    code, errors = train.end()
    if code != 0:
        raise RuntimeError(f"the run that was left alone failed:\n{errors[-2000:]}")
    chunk = (last - first) / (CHUNKS - 1)
    evaluation = min(evaluation_time(path), 0.8 * chunk)
    return {
        **{"starting": imported - train.begin, "compiling": first - imported, "training": chunk - evaluation},
        **{"evaluation": evaluation, "saving": chunk / 4, "ending": time.monotonic() - last},
    }


def evaluation_time(path: Path) -> float:
    """Seconds that the evaluation of a chunk takes."""
    run, state = load_run(path)
    env, params = run.make_env()
    learner = algorithm(run.algorithm)
    policy = learner.make_policy(env, run.config, learner.deterministic)

    def play() -> None:
        learned = learner.learned(state)
        scenario = env.evaluation_params(params)
        jax.block_until_ready(
            play_episodes(env, scenario, policy, (learned, params), evaluation_keys(CURVE_EPISODES)).episode_return
        )

    play()  # compiles
    begin = time.monotonic()
    play()
    return time.monotonic() - begin


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__spec__.name, __doc__, RESULTS / "kill_resume.txt")
    parser.add_argument("--trials", type=int, default=50, help="number of runs that are ended (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of signals and moments (default: 0)")
    args = parser.parse_args(argv)
    heading = [
        described(machine(), ("system", "python")),
        f"kill_resume --trials {args.trials} --seed {args.seed}: {CHUNKS} chunks, one checkpoint a chunk",
    ]
    print("\n".join(heading), flush=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a shell's background job would ignore it
    rng, trials = random.Random(args.seed), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = uninterrupted(folder / "uninterrupted")
        expected = leaves(folder / "uninterrupted")
        for i in range(args.trials):
            begin = time.monotonic()
            *story, verdict = kill_and_resume(folder / f"trial-{i}", expected, seconds, folder / "cache", rng)
            trials.append(f"trial {i}: {', then '.join(story)}: {verdict} ({time.monotonic() - begin:.0f} s)")
            print(trials[-1], flush=True)
            write_result(args.out, "\n".join([*heading, *trials, summary(trials)]) + "\n")  # it may be stopped, too
    print(summary(trials))
    return int(not all(map(is_equal, trials)))


def is_equal(trial: str) -> bool:
    """Whether a trial's line says that all was as it should be."""
    return ": equal (" in trial


def summary(trials: Sequence[str]) -> str:
    """The last line of the results."""
    equal, ends = sum(map(is_equal, trials)), sum(trial.count("SIG") for trial in trials)
    return (
        f"{equal} of {len(trials)} runs, ended {ends} times, ended as they should and, resumed, equal the "
        f"uninterrupted one bit for bit (parameters, optimiser, keys, environments, metrics, results): "
        f"{'ok' if equal == len(trials) else 'FAILED'}"
    )


if __name__ == "__main__":
    sys.exit(main())
