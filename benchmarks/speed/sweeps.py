"""64 points of MAHPPO as `mec-jax sweep` runs them, against vmap, one by one, and fresh processes.

    XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m benchmarks.speed.sweeps   # results/sweep_speed.md
    python -m benchmarks.speed.sweeps --page                                               # its page alone

Every way trains the same runs, 3 UEs and 20 480 frames each, and plays 64 episodes of the evaluation scenario.
Compiling is apart, except in processes, each of which does it again. The ways take turns. On a GPU the same command
fills another file, and the page a line.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from algos.algorithms import algorithm
from algos.run_config import RunConfig, as_arrays, new_run
from algos.sweep.lanes import batch, devices
from algos.sweep.proposals import propose
from algos.sweep.scoring import Runner
from algos.sweep.space import space, with_point
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import RESULTS, command_line, write_result
from mec_jax.episodes import evaluation_keys, play_episode

EPISODES = 64
POINTS = 64
PROCESSES = 16
OVER = {"hparams.actor_lr": "log:1e-4..1e-2", "hparams.entropy": "log:1e-4..1e-1", "hparams.clip": "0.1..0.3"}
WAYS = {
    "lanes": "`mec-jax sweep`: one device a core, runs in sequence on each",
    "vmap": "`jit(vmap(train))`, one device",
    "one": "one by one in one process, one device",
    "processes": "a fresh process each, one after another",
}


def runs() -> list[RunConfig]:
    """The runs."""
    base = new_run("mahppo", "MultiUEOffloading-v0", static={"num_ues": 3}, frames=20_480)
    found = space(base, OVER)
    return [with_point(base, choice) for choice in propose("sobol", found, 0, [], POINTS)]


def alone(run: RunConfig) -> Callable[..., Any]:
    """`(hparams, params, seed) -> returns [episode]` of one run, to be compiled or vmapped."""
    env, _ = run.make_env()
    learner = algorithm(run.algorithm)
    trainer, policy = learner.make_trainer(env, run.config), learner.make_policy(env, run.config, learner.deterministic)

    def one(hparams: Any, params: Any, seed: Any) -> Any:
        state, _ = trainer.train(hparams, params, jax.random.key(seed))
        scenario, reads = env.evaluation_params(params), (learner.learned(state), params)
        play = jax.vmap(lambda key: play_episode(env, scenario, policy, reads, key))
        return play(evaluation_keys(EPISODES)).episode_return

    return one


def compiled(function: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    """The program and the seconds that compiling it took."""
    begin = time.perf_counter()
    return jax.jit(function).lower(*given).compile(), time.perf_counter() - begin


def in_a_process() -> None:
    """One run, as a process of its own does it."""
    run = runs()[0]
    program, _ = compiled(alone(run), as_arrays(run.hparams), run.make_env()[1], np.uint32(0))
    jax.block_until_ready(program(as_arrays(run.hparams), run.make_env()[1], np.uint32(0)))


def measure(repeats: int) -> dict[str, Any]:
    """Seconds of all ways, which take turns."""
    todo, runner = runs(), Runner(EPISODES)
    given = batch(todo)
    lanes = runner.lanes(todo[0], len(todo))
    begin = time.perf_counter()
    lanes.compile()
    compiling = {"lanes": time.perf_counter() - begin}
    function = alone(todo[0])
    together, compiling["vmap"] = compiled(jax.vmap(function), given.hparams, given.params, given.seed)
    first = jax.tree.map(lambda x: x[0], given)
    single, compiling["one"] = compiled(function, first.hparams, first.params, first.seed)

    def in_lanes() -> np.ndarray:
        found = np.zeros(len(todo))
        for some in runner.results(todo):
            for place, result in some:
                found[place] = result.episode_return
        return found

    def one_by_one() -> np.ndarray:
        found = []
        for place in range(len(todo)):
            each = jax.tree.map(lambda x, place=place: x[place], given)
            found.append(np.asarray(single(each.hparams, each.params, each.seed)).mean())
        return np.array(found)

    def vmapped() -> np.ndarray:
        return np.asarray(together(given.hparams, given.params, given.seed)).mean(1)

    ways: dict[str, Callable[[], np.ndarray]] = {"lanes": in_lanes, "vmap": vmapped, "one": one_by_one}
    runner.scale(todo[0])  # the rulers are played once, whatever runs
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    returns: dict[str, np.ndarray] = {}
    for _ in range(repeats):
        for way, do in ways.items():
            begin = time.perf_counter()
            returns[way] = do()
            seconds[way].append(time.perf_counter() - begin)
    code = f"from {__spec__.name} import in_a_process; in_a_process()"
    begin = time.perf_counter()
    for _ in range(PROCESSES):
        subprocess.run([sys.executable, "-c", code], check=True)
    seconds["processes"] = [(time.perf_counter() - begin) * POINTS / PROCESSES]
    difference = max(float(np.max(np.abs(returns[way] - returns["lanes"]))) for way in ways)
    return {"seconds": seconds, "compiling": compiling, "greatest_difference": difference, "asking": asking(todo)}


def asking(todo: list[RunConfig]) -> list[float]:
    """Seconds in which TPE is told 64 trials and asked for 64 more."""
    found = space(todo[0], OVER)
    history = [(choice, float(place % 7)) for place, choice in enumerate(propose("sobol", found, 0, [], POINTS))]
    seconds = []
    for repeat in range(5):
        begin = time.perf_counter()
        propose("tpe", found, repeat, history, POINTS)
        seconds.append(time.perf_counter() - begin)
    return seconds


def page(kept: dict[str, dict[str, Any]]) -> str:
    """The table, by platform."""
    lines = ["# 64 runs of MAHPPO, 3 UEs, 20 480 frames each", ""]
    about = kept["cpu"]
    own = statistics.median(about["seconds"]["lanes"])
    lines += [
        f"{described(about['machine'])}; {about['devices']} devices. Seconds for all 64, median of "
        f"{len(about['seconds']['lanes'])} and range; {PROCESSES} processes scaled up. "
        "`python -m benchmarks.speed.sweeps`.",
        "",
        "| | compiling | running | times as long | with compiling |",
        "|---|---|---|---|---|",
    ]
    own_whole = own + about["compiling"]["lanes"]
    for way, words in WAYS.items():
        times = about["seconds"][way]
        middle, compiling = statistics.median(times), about["compiling"].get(way)
        shown = f"{middle:.1f}" + (f" ({min(times):.1f} to {max(times):.1f})" if len(times) > 1 else "")
        first = "in each" if compiling is None else f"{compiling:.1f}"
        whole = (middle + (compiling or 0)) / own_whole
        lines.append(f"| {words} | {first} | {shown} | {middle / own:.2f} | {whole:.2f} |")
    share = statistics.median(about["asking"]) / own
    lines += [
        "",
        f"Telling the tree-structured Parzen estimator 64 trials and asking for 64 takes "
        f"{statistics.median(about['asking']):.2f} s, {share:.1%} of running them. Returns of all ways differ by at "
        f"most {about['greatest_difference']:.2g}: sums are rounded in another order, and training amplifies it.",
        "",
    ]
    gpu = kept.get("gpu")
    lines.append("GPU: not measured." if gpu is None else f"GPU: {statistics.median(gpu['seconds']['lanes']):.1f} s.")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, and write the page."""
    parser = command_line(__spec__.name, __doc__, RESULTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--page", action="store_true", help="write the page alone")
    args = parser.parse_args()
    platform = "cpu" if args.page else devices()[0].platform
    if not args.page:
        found = {"machine": machine(), "devices": len(devices()), "points": POINTS, **measure(args.repeats)}
        write_result(args.out / f"sweep_speed_{platform}.json", json.dumps(found, indent=1) + "\n")
    files = {name: args.out / f"sweep_speed_{name}.json" for name in ("cpu", "gpu")}
    kept = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    write_result(args.out / "sweep_speed.md", page(kept))


if __name__ == "__main__":
    main()
