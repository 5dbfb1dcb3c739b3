"""Frames per second of the offloading environment, beside a plain Python loop and a scalar C loop.

    python -m benchmarks.speed.throughput                 # CPU: one device, then all cores
    python -m benchmarks.speed.throughput --platform gpu
    python -m benchmarks.speed.throughput --quick

What is timed is `env.step` of a batch of lanes inside `lax.scan`, with the policy, the automatic reset and
the observation. Compiling is timed apart. All programs of one number of UEs take turns with the two loops, so
that a noisy machine slows all alike. Results go to benchmarks/results/throughput_<platform>.json and .md. Exits 1
when a pass condition fails.
"""

import functools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec

import mec_jax
from benchmarks.harness.machine import machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from benchmarks.speed import c_loop, reference_loop

if TYPE_CHECKING:  # importing it (gymnax, that is) starts the backend, which must know its devices before
    from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params

type Policy = Callable[[jax.Array, jax.Array], OffloadAction]
"""`policy(obs, key) -> action` of one lane."""

UES = (3, 5, 10)
BATCHES = (1, 16, 256, 1024, 4096, 16384)
NESTED = (16, 256)  # seeds x environments; to be compared with their product in one vmap
JUDGED_UES, JUDGED_BATCH = 5, 4096
WARM_UP = 40  # frames, to spread the lanes over their episodes; as in c_loop


def random_policy(env: "MultiUEOffloading", params: "Params") -> Policy:
    """Uniform cuts, channels and powers."""
    space = env.action_space(params)
    return lambda obs, key: space.sample(key)


POLICIES: dict[str, "Callable[[MultiUEOffloading, Params], Policy]"] = {"random": random_policy}
"""What `--policy` offers."""


class Program:
    """A compiled run of some frames of a batch of lanes, and where the lanes are.

    Args:
        env: The environment.
        params: Its parameters, the same in all lanes.
        policy: What acts.
        shape: Lanes of each `vmap`, from the outermost.
        frames: Frames of a run.
        devices: Over which the (first) lane axis is divided.
    """

    def __init__(
        self,
        env: "MultiUEOffloading",
        params: "Params",
        policy: Policy,
        shape: tuple[int, ...],
        frames: int,
        devices: int = 1,
    ) -> None:
        self.label = "x".join(map(str, shape))
        self.devices = devices
        self.frames = frames * math.prod(shape)
        self.params = params
        self.seconds: list[float] = []
        self.cores: list[float] = []

        def act(carry: tuple, key: jax.Array, params: "Params") -> tuple[tuple, jax.Array]:
            obs, state = carry
            key_action, key_step = jax.random.split(key)
            obs, state, reward, *_ = env.step(key_step, state, policy(obs, key_action), params)
            return (obs, state), reward

        reset: Callable = env.reset
        for _ in shape:
            act, reset = jax.vmap(act, (0, 0, None)), jax.vmap(reset, (0, None))
        local = (shape[0] // devices, *shape[1:])

        def run(carry: tuple, key: jax.Array, params: "Params") -> tuple[tuple, jax.Array]:
            if devices > 1:
                key = jax.random.fold_in(key, jax.lax.axis_index("lane"))

            def frame(carry: tuple, key: jax.Array) -> tuple[tuple, jax.Array]:
                return act(carry, jax.random.split(key, local), params)

            carry, rewards = jax.lax.scan(frame, carry, jax.random.split(key, frames))
            return carry, rewards.mean(0)

        self.carry = jax.jit(reset)(jax.random.split(jax.random.key(1), shape), params)
        if devices > 1:
            mesh = jax.make_mesh((devices,), ("lane",), axis_types=(AxisType.Auto,))
            lane, all_ = PartitionSpec("lane"), PartitionSpec()
            self.carry = jax.device_put(self.carry, jax.sharding.NamedSharding(mesh, lane))
            self.params = jax.device_put(params, jax.sharding.NamedSharding(mesh, all_))
            run = jax.shard_map(run, mesh=mesh, in_specs=(lane, all_, all_), out_specs=(lane, lane), check_vma=False)
        lowered = jax.jit(run).lower(self.carry, jax.random.key(0), self.params)
        begin = time.perf_counter()
        self._run = lowered.compile()
        self.compile_seconds = time.perf_counter() - begin
        for seed in range(math.ceil(WARM_UP / frames)):
            self.run(seed)
        self.seconds.clear()
        self.cores.clear()

    def run(self, seed: int) -> None:
        """Time a run of all frames, from where the last one ended."""
        key = jax.random.key(seed)
        begin, cpu = time.perf_counter(), time.process_time()
        self.carry, reward = jax.block_until_ready(self._run(self.carry, key, self.params))
        elapsed = time.perf_counter() - begin
        if not np.isfinite(reward).all():
            raise AssertionError("a reward is not finite")
        self.seconds.append(elapsed)
        self.cores.append((time.process_time() - cpu) / elapsed)

    def speeds(self) -> list[float]:
        """Frames per second of each run."""
        return [self.frames / seconds for seconds in self.seconds]


def frames_of_a_run(batch: int, quick: bool) -> int:
    """Such that a run takes some tenths of a second."""
    return min(1024, max(8, (16_384 if quick else 65_536) // batch))


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(
    num_ues: int,
    batches: tuple[int, ...],
    *,
    policy: str = "random",
    devices: int = 1,
    repeats: int = 5,
    quick: bool = False,
) -> dict[str, Any]:
    """Speeds of one number of UEs: of each batch, nested, over several devices and of the two loops.

    Args:
        num_ues: Number of UEs.
        batches: Lanes.
        policy: One of `POLICIES`.
        devices: Over how many the large batches are also divided; 1: not.
        repeats: Timed runs of each.
        quick: Short runs.
    """
    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=num_ues)
    make = functools.partial(Program, env, params, POLICIES[policy](env, params))

    def programs() -> Iterator[Program]:
        for batch in batches:
            yield make((batch,), frames_of_a_run(batch, quick))
        if math.prod(NESTED) in batches:
            yield make(NESTED, frames_of_a_run(math.prod(NESTED), quick))
        for batch in batches:
            if devices > 1 and batch >= 1024:
                yield make((batch,), frames_of_a_run(batch, quick), devices)

    built = []
    for program in programs():
        print(f"  {program.label:>7} x{program.devices} compiled in {program.compile_seconds:.1f} s", flush=True)
        built.append(program)

    seconds = 0.3 if quick else 1.0
    python: list[float] = []
    c: list[float] = []
    for repeat in range(repeats):
        python.append(reference_loop.frames_per_second(num_ues, seconds, seed=repeat)[0])
        try:
            c.append(c_loop.frames_per_second(num_ues, seconds=seconds, seed=repeat)[0])
        except RuntimeError as error:  # no compiler
            if not repeat:
                print(f"  no C loop: {error}")
        for program in built:
            program.run(repeat)

    def ratio(speeds: list[float], others: list[float]) -> dict[str, float] | None:
        return spread([x / y for x, y in zip(speeds, others, strict=True)]) if others else None

    rows = [
        {
            "lanes": program.label,
            "devices": program.devices,
            "compile_s": program.compile_seconds,
            "frames_per_s": spread(program.speeds()),
            "to_python": ratio(program.speeds(), python),
            "to_c": ratio(program.speeds(), c),
            "cores_busy": statistics.median(program.cores),
        }
        for program in built
    ]
    flat, nested = (
        [program.speeds() for program in built if program.label == label and program.devices == 1]
        for label in (str(math.prod(NESTED)), "x".join(map(str, NESTED)))
    )
    return {
        "num_ues": num_ues,
        "python_frames_per_s": spread(python),
        "c_frames_per_s": spread(c) if c else None,
        "nested_to_flat": ratio(nested[0], flat[0]) if nested else None,
        "rows": rows,
    }


def conditions(results: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """(what, measured median, least allowed) of what this benchmark asks for, as far as it was measured."""
    found: list[tuple[str, float, float]] = []
    for result in results:
        if result["num_ues"] != JUDGED_UES:
            continue
        where = f"N = {JUDGED_UES}, {JUDGED_BATCH} lanes, one device"
        for row in result["rows"]:
            if row["lanes"] == str(JUDGED_BATCH) and row["devices"] == 1:
                found.append((f"times the Python loop, {where}", row["to_python"]["median"], 50))
                if row["to_c"]:
                    found.append((f"times the C loop, {where}", row["to_c"]["median"], 0.6))
        if result["nested_to_flat"]:
            outer, inner = NESTED
            what = f"vmap({outer}) of vmap({inner}) to vmap({outer * inner}), N = {JUDGED_UES}"
            found.append((what, result["nested_to_flat"]["median"], 0.8))
    return found


def compiler() -> str:
    """Of the C loop."""
    try:
        return c_loop.compiler_report()
    except RuntimeError:
        return "none"


def load_average() -> float | None:
    """Of the last minute. Well above 0 before the first run, it tells of a machine shared with others."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""

    def show(values: dict[str, float] | None, form: Callable[[float], str]) -> str:
        if values is None:
            return "-"
        return f"{form(values['median'])} ({form(values['min'])} to {form(values['max'])})"

    def count(value: float) -> str:
        return f"{value:,.0f}".replace(",", " ")

    def times(value: float) -> str:
        return f"{value:.3g}"

    about, settings = report["machine"], report["settings"]
    lines = [
        f"# Frames per second, {report['platform']}",
        "",
        f"{about['device'] if report['platform'] == 'gpu' else about['cpu']}, {about['cores']} CPU cores "
        f"({about['cpu']}), JAX {about['jax']}, Python {about['python']}; C loop: {about['c_compiler']}.",
        f"Policy: {settings['policy']}. `env.step` with automatic reset and observation inside `lax.scan`; "
        f"median (least to most) of {settings['repeats']} runs that took turns with both loops. "
        f'"Cores" is the CPU time used by the time that passed. Load average before and after: '
        f"{' and '.join(map(str, about['load_average']))}.",
    ]
    for result in report["results"]:
        lines += [
            "",
            f"## N = {result['num_ues']} UEs",
            "",
            f"Python loop {show(result['python_frames_per_s'], count)}, C loop on one core "
            f"{show(result['c_frames_per_s'], count)} frames/s. "
            f"Nested to flat vmap: {show(result['nested_to_flat'], times)}.",
            "",
            "| lanes | devices | frames/s | times Python | times C | cores | compiling, s |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in result["rows"]:
            cells = (
                row["lanes"],
                row["devices"],
                show(row["frames_per_s"], count),
                show(row["to_python"], times),
                show(row["to_c"], times),
                f"{row['cores_busy']:.2f}",
                f"{row['compile_s']:.1f}",
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "## Pass conditions", ""]
    for what, value, least in report["conditions"]:
        lines.append(f"- {what}: {value:.3g}, at least {least:g}: {'ok' if value >= least else 'FAILED'}")
    return "\n".join(lines) + "\n"


def main(argv: list[str] | None = None) -> int:
    parser = command_line(__spec__.name, __doc__, RESULTS)
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--policy", choices=sorted(POLICIES), default="random")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each program (default: 5)")
    parser.add_argument("--quick", action="store_true", help="5 UEs only, three batches, short runs; writes nothing")
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f"--repeats is {args.repeats}: it must be at least 1")
    cores = os.cpu_count() or 1
    devices = min(2, cores) if args.platform == "cpu" else 1
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is timed
    if args.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)
    elif jax.default_backend() != "gpu":
        print(
            f"error: JAX {jax.__version__} sees no GPU, only {jax.default_backend()}: install the [cuda] extra on "
            "a machine with an NVIDIA GPU, or use --platform cpu",
            file=sys.stderr,
        )
        return 2

    load_before = load_average()
    report: dict[str, Any] = {
        "platform": args.platform,
        "machine": machine() | {"device": jax.devices()[0].device_kind, "c_compiler": compiler()},
        "settings": {"policy": args.policy, "repeats": args.repeats, "quick": args.quick},
        "results": [],
    }
    for num_ues in (JUDGED_UES,) if args.quick else UES:
        print(f"N = {num_ues}", flush=True)
        batches = (1, 256, JUDGED_BATCH) if args.quick else BATCHES
        report["results"].append(
            measure(
                num_ues,
                batches,
                policy=args.policy,
                devices=devices,
                repeats=args.repeats,
                quick=args.quick,
            )
        )
    report["machine"]["load_average"] = [load_before, load_average()]
    report["conditions"] = conditions(report["results"])
    text = table(report)
    print(text)
    if not args.quick:
        name = f"throughput_{args.platform}"
        write_result(args.out / f"{name}.json", json.dumps(report, indent=1) + "\n")
        write_result(args.out / f"{name}.md", text)
    return 0 if all(value >= least for _, value, least in report["conditions"]) else 1


if __name__ == "__main__":
    sys.exit(main())
