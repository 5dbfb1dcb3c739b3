"""Seconds from starting `mec-jax train` until the policy is good, over several seeds.

    python -m benchmarks.speed.time_to_target                            # five seeds, a few minutes
    python -m benchmarks.speed.time_to_target --seeds 3 --target -0.55
    python -m benchmarks.speed.time_to_target --seeds 1 -- --num-ues 3  # what follows -- goes to `mec-jax train mahppo`

Each seed is a fresh process without any compilation cache, one after the other. The clock starts with the process, so
that imports and compiling count, and stops at the third evaluation in a row that reaches the target (the mean return
of 16 episodes on the evaluation scenario, a row of metrics.csv). Run it on an idle machine.

Results go to benchmarks/results/time_to_target.json and .md. Exits 1 when a seed takes longer than the limit.
"""

import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import VERSIONS, described, machine
from benchmarks.harness.results import RESULTS, ROOT, command_line, write_result

IN_A_ROW = 3  # evaluations that must reach the target
LAST = 5  # evaluations whose mean is the end value


def environment() -> dict[str, str]:
    """Of a process that compiles everything anew."""
    kept = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    return {**kept, "JAX_ENABLE_COMPILATION_CACHE": "false"}


def import_seconds(repeats: int = 5) -> float:
    """Median time that `import mec_jax` takes in a fresh process."""
    code = "import time; begin = time.perf_counter(); import mec_jax; print(time.perf_counter() - begin)"
    return statistics.median(
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT).stdout)
        for _ in range(repeats)
    )


def run(command: list[str]) -> tuple[float, float, float]:
    """Run to the end: Unix time of the start, seconds, and peak resident memory in MiB.

    Raises:
        RuntimeError: If it fails.
    """
    begin = time.time()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{errors.read().decode()[-2000:]}")
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB
    return begin, time.time() - begin, peak


def first_in_a_row(returns: list[float], target: float) -> int | None:
    """Index of the last of the first `IN_A_ROW` values in a row that reach the target."""
    reached = 0
    for i, value in enumerate(returns):
        reached = reached + 1 if value >= target else 0
        if reached == IN_A_ROW:
            return i
    return None


def measure(seed: int, preset: str, target: float, extra: list[str]) -> dict[str, Any]:
    """Train one seed and read what it left."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "algos.cli", "train", "mahppo", "--preset", preset, "--seed", str(seed)]
        begin, seconds, peak = run([*command, "--out", str(out), *extra])
        with (out / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        compared = json.loads((out / "comparison.json").read_text())["rows"]
    clock = [float(row["wall_time"]) - begin for row in rows]
    returns = [float(row["evaluation/episode_return"]) for row in rows]
    index = first_in_a_row(returns, target)
    # From the first row to the last: without compiling.
    frames, elapsed = float(rows[-1]["frames"]) - float(rows[0]["frames"]), clock[-1] - clock[0]
    return {
        "seed": seed,
        "seconds_to_target": None if index is None else clock[index],
        "frames_to_target": None if index is None else float(rows[index]["frames"]),
        "seconds_to_first_evaluation": clock[0],
        "seconds_of_training": clock[-1],
        "seconds": seconds,
        "frames": float(rows[-1]["frames"]),
        "frames_per_s": frames / max(elapsed, 1e-9),
        "end_return": statistics.mean(returns[-LAST:]),
        "final_return": compared["MAHPPO"]["return"],
        "final_latency_ms": 1e3 * compared["MAHPPO"]["latency"],
        "final_energy_mj": 1e3 * compared["MAHPPO"]["energy"],
        "final_score": compared["MAHPPO"]["score"],
        "peak_mib": peak,
        "curve": list(zip(clock, returns, strict=True)),
    }


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    about, settings = report["machine"], report["settings"]
    extra = f" {' '.join(settings['extra'])}" if settings["extra"] else ""
    lines = [
        "# Time to target",
        "",
        f"{described(about, ('system', 'python'), VERSIONS)}.",
        "",
        f"`mec-jax train mahppo --preset {settings['preset']}{extra}`, each seed a fresh process that compiles "
        f"everything. To target: seconds from the start of the process to the third evaluation (16 episodes) in a row "
        f"with a return of at least {settings['target']:g}. End: mean of the last {LAST} evaluations; final: 256 "
        "episodes. `import mec_jax` takes "
        f"{report['import_s']:.3f} s (median of 5).",
        "",
        "| seed | to target, s | its frames | first evaluation, s | training, s | whole command, s | frames/s "
        "| end return | final return | ms/task | mJ/task | score | peak MiB |",
        "|" + "---|" * 13,
    ]
    for row in report["runs"]:
        reached = row["seconds_to_target"] is not None
        cells = (
            str(row["seed"]),
            f"{row['seconds_to_target']:.1f}" if reached else "never",
            f"{row['frames_to_target']:,.0f}".replace(",", " ") if reached else "-",
            f"{row['seconds_to_first_evaluation']:.1f}",
            f"{row['seconds_of_training']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['frames_per_s']:,.0f}".replace(",", " "),
            f"{row['end_return']:.3f}",
            f"{row['final_return']:.3f}",
            f"{row['final_latency_ms']:.1f}",
            f"{row['final_energy_mj']:.1f}",
            f"{row['final_score']:.2f}",
            f"{row['peak_mib']:.0f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    slowest = max(seconds_of(row) for row in report["runs"])
    verdict = "ok" if slowest <= settings["limit"] else "FAILED"
    median = statistics.median(seconds_of(row) for row in report["runs"])
    lines += [
        "",
        f"To target: median {median:.1f} s, slowest {slowest:.1f} s, limit {settings['limit']:g} s: {verdict}.",
    ]
    return "\n".join(lines) + "\n"


def seconds_of(row: dict[str, Any]) -> float:
    """To the target; infinite if it was never reached."""
    return math.inf if row["seconds_to_target"] is None else row["seconds_to_target"]


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    split = argv.index("--") if "--" in argv else len(argv)
    parser = command_line(__spec__.name, __doc__, RESULTS)
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0 (default: 5)")
    parser.add_argument("--preset", default="fast", help="of mec-jax train (default: fast)")
    parser.add_argument("--target", type=float, default=-0.6, help="evaluation return (default: -0.6)")
    parser.add_argument("--limit", type=float, default=60, help="seconds to the target (default: 60)")
    args = parser.parse_args(argv[:split])
    if args.seeds < 1:
        parser.error(f"--seeds is {args.seeds}: it must be at least 1")
    extra = argv[split + 1 :]

    names = ("preset", "target", "limit")
    report: dict[str, Any] = {
        "machine": machine(),
        "settings": {"extra": extra, **{name: getattr(args, name) for name in names}},
        "import_s": import_seconds(),
        "runs": [],
    }
    print(f"import mec_jax: {report['import_s']:.3f} s", flush=True)
    for seed in range(args.seeds):
        try:
            row = measure(seed, args.preset, args.target, extra)
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        report["runs"].append(row)
        print(f"seed {seed}: {seconds_of(row):.1f} s to target, end return {row['end_return']:.3f}", flush=True)
    text = table(report)
    print(f"\n{text}")
    write_result(args.out / "time_to_target.json", json.dumps(report, indent=1) + "\n")
    write_result(args.out / "time_to_target.md", text)
    return 0 if all(seconds_of(row) <= args.limit for row in report["runs"]) else 1


if __name__ == "__main__":
    sys.exit(main())
