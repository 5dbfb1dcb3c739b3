"""Decisions a second of compressed inference: 4096 lanes of random actions on one device.

    python -m benchmarks.speed.decisions

`env.step` with automatic reset and observation inside `lax.scan`, as in `benchmarks.speed.throughput`, on a machine
that does nothing else. Results go to benchmarks/results/compression_decisions.txt.
"""

import statistics
from typing import Any

import jax

import mec_jax
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.speed.throughput import Program, random_policy

RESULT = RESULTS / "compression_decisions.txt"
LANES, FRAMES, REPEATS = 4096, 64, 7
TARGET = 3e5
ENVIRONMENTS = tuple(f"CompressedInference{variant}-v0" for variant in ("", "-RegNet", "-Anchored", "-Anchored-RegNet"))


def line(env_id: str, lanes: int = LANES, frames: int = FRAMES, repeats: int = REPEATS) -> str:
    """The speed of an environment, in a line."""
    env: Any
    env, params = mec_jax.make(env_id)
    program = Program(env, params, random_policy(env, params), (lanes,), frames)
    for seed in range(repeats):
        program.run(seed)
    speeds = program.speeds()
    met = "met" if statistics.median(speeds) >= TARGET else "missed"
    return (
        f"{env_id:<38} {statistics.median(speeds):9.3g} ({min(speeds):.3g} to {max(speeds):.3g}) decisions/s, "
        f"{statistics.median(program.cores):.2f} cores busy, compiled in {program.compile_seconds:.1f} s; target "
        f"{TARGET:.0e}: {met}"
    )


def main(argv: list[str] | None = None) -> None:
    """Measure and write."""
    args = command_line(__spec__.name, __doc__, RESULT).parse_args(argv)
    about = {**machine(), "device": jax.devices()[0].device_kind}
    lines = [described(about, ["device"], versions=("jax", "jaxlib")), "", *map(line, ENVIRONMENTS)]
    write_result(args.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
