"""What the page says beside the verdicts: findings, the numbers that went in, rates and reductions."""

from collections.abc import Iterator

import numpy as np

from benchmarks.reproduce.coknight.data import (
    ACTORS,
    BY_DENSITY,
    BY_UTILITY,
    CALL_TIME,
    CROSSING,
    DEFAULTS,
    DEFP,
    DEVICE_SPEED,
    ELASTIC,
    ENVIRONMENT_TIME,
    FAST_ETHERNET,
    FEW_ACTORS,
    FITTED,
    FIXED,
    GREEDY,
    HEADERS,
    LOG_CUTS,
    LOG_RATE,
    LOGGED_STEP_BYTES,
    LOGS,
    MIB,
    MILP,
    MODEL_BYTES,
    NASH,
    NEEDED_USE,
    NUM_CUTS,
    OWN_SPEEDS,
    PULL_INTERVAL,
    SMALL_FRAMES,
    TRAINING_TIME,
    TRAJECTORY_BITS,
    UNROLL,
    V100,
    V100_SPEED,
    WIRED,
    WORK,
)
from benchmarks.reproduce.coknight.frameworks import coknights
from benchmarks.reproduce.coknight.measured import Measured, Table
from benchmarks.reproduce.coknight.timeline_claims import FIG9, FIG11


def findings(data: Measured) -> Iterator[str]:
    """What the numbers say beside the verdicts."""
    worlds = data.worlds[DEFAULTS]
    pulled = LOG_RATE * HEADERS * (TRAJECTORY_BITS / 8 + MODEL_BYTES / PULL_INTERVAL) / 1e6
    gain = 100 * (1 / NEEDED_USE - 1)
    fitted = worlds[FITTED].edge_time
    yield "## Findings"
    yield ""
    yield (
        "- The logs are of a full 100 Mbit/s link. They are dstat's, whose M is 2^20 byte, and the largest second is "
        f"11.7 of Seed-RL and 11.6 of either cut: 100 Mbit/s give {FAST_ETHERNET / 8 / MIB:.2f}. So cuts 3 and 4 were "
        'not held to 10 MB/s, and Seed-RL\'s "12 MB/s" is the limit of the link, not its need.'
    )
    yield (
        "- The authors' code divides frames by 255 before the cut, so that Seed-RL sends them in 32 bit: 110.25 KiB, "
        "exactly what cuts 3 and 4 send, and every actor uploads its trajectory. Traffic is then in proportion to "
        "steps, and these cuts save no bandwidth: only cuts from 5 on do, from 6 on if a pixel has one byte."
    )
    if SMALL_FRAMES in data.worlds:
        small = data.worlds[SMALL_FRAMES][FITTED]
        rates = small.rates(WIRED)[:, ACTORS - 1]
        yield (
            f"- With a byte a pixel {100 * NEEDED_USE:.0f} % GPU use would take "
            f"{1e3 * small.edge_time:.1f} ms a request, which is nearer to a V100; but then cut 3 has "
            f"{100 * rates[3] / rates[0]:.0f} % of Seed-RL's rate, against almost the same in the paper."
        )
    yield (
        f"- IMPALA's log is {LOG_RATE:.0f} steps/s of trajectories, in uploads of {UNROLL} steps, and nothing else. "
        f"Pulling the code's network ({MODEL_BYTES / 1e6:.0f} MB) once in {PULL_INTERVAL} steps would make it "
        f"{pulled:.0f} MB/s. So by default the model is not pulled over the link; two rows of the table below do it."
    )
    yield (
        f"- Figs. 9 and 11 do not fit one GPU. A use of {100 * NEEDED_USE:.0f} % with {ACTORS} actors leaves Seed-RL "
        f"at most {gain:.0f} % to gain from more actors, whatever the service times, so that a cut that relieves the "
        f"GPU overtakes it long before {CROSSING} actors. A crossing near that number takes a GPU that is several "
        "times faster (the map below; the crosses are the two GPUs)."
    )
    parts = []
    for gpu, world in worlds.items():
        for network in FIG11:
            rates = world.rates(network)[:, ACTORS - 1]
            parts.append(f"{rates[3] / rates[0]:.2f} and {rates[4] / rates[0]:.2f} ({gpu}, {network})")
    yield (
        "- Which is faster, Seed-RL or Coknight? The text says both. By the logs Seed-RL is: cuts 3 and 4 send "
        f"{LOGS['cut 3'] / LOGS['Seed-RL']:.2f} and {LOGS['cut 4'] / LOGS['Seed-RL']:.2f} of its bytes, which are as "
        f"many a step. By the timeline with {ACTORS} actors they have {'; '.join(parts)} of its rate: on a full link "
        "they are nearly equal, Coknight is faster where the GPU is the bottleneck, Seed-RL where nothing is full."
    )
    ends = []
    for gpu, world in worlds.items():
        rate, impala = coknights(world.fig10)["best cut"][-1], world.fig10[NUM_CUTS, -1]
        ends.append(f"{100 * rate / impala:.0f} % ({gpu})")
    yield (
        "- Coknight may choose y = K, and then is IMPALA. If it has cut 3 or 4, or y = K where that is faster, it "
        "comes into line with IMPALA at 2 MB/s; without y = K it ends as Seed-RL does. The best cut inside the network "
        f"does better: it ends at {', '.join(ends)} of IMPALA's rate, with y = K among its cuts or without."
    )
    yield (
        "- In a closed network one actor more never slows all of them down. That the rates of both decline can only "
        "mean an actor's own rate, or contention that the paper does not describe."
    )
    yield (
        f"- A GPU of 15.7 TFLOP/s that spends {1e3 * fitted:.1f} ms on {WORK / 1e6:.0f} MFLOP runs at "
        f"{100 * WORK / fitted / 15.7e12:.1f} % of its peak. The network has {MODEL_BYTES / 1e6:.0f} MB of weights, "
        "99.9 % of them after cut 4, and one frame at a time is bound by reading them and by launching kernels: FLOP "
        "(eq. 5) overstate what early cuts save."
    )
    for name in (DEFAULTS, SMALL_FRAMES):
        if name in data.tables:
            table = data.tables[name]
            found = table.found[ELASTIC]
            shares = [
                f"{100 * (found[rule]['reduction'] / found[MILP]['reduction']).mean(1)[-1]:.0f} % ({rule})"
                for rule in (DEFP, *GREEDY, NASH)
            ]
            yield (
                f"- Of the optimum of Fig. 12, elastic server, {table.sizes[-1]} devices, {name}: {', '.join(shares)}."
            )
    if OWN_SPEEDS in data.tables:
        worst = {
            (name, server): 100 * (found[DEFP]["reduction"] / found[MILP]["reduction"]).mean(1).min()
            for name in (DEFAULTS, OWN_SPEEDS)
            for server, found in data.tables[name].found.items()
        }
        yield (
            "- DEFP is near the optimum where devices come in three speeds, at worst "
            f"{worst[DEFAULTS, ELASTIC]:.0f} % (elastic) and {worst[DEFAULTS, FIXED]:.0f} % (fixed server) on "
            f"average at a size. With {OWN_SPEEDS} it is at {worst[OWN_SPEEDS, ELASTIC]:.0f} and "
            f"{worst[OWN_SPEEDS, FIXED]:.0f} %."
        )
    yield (
        "- The proof of Theorem 1 gives each device the weight of an item, but C_e(y) of eqs. 10 and 19 is the same "
        "for all devices. With rates of requests of their own, as here, or networks of their own, it goes through; as "
        "printed it covers only knapsacks whose weights are alike, which sorting solves."
    )
    yield (
        "- Theorem 2 needs both states to fit. A move that makes the state not fit, with "
        f"{-data.potential.penalty:g} for every player there, changes the mover's utility by its own penalty and the "
        "potential by everyone's; with minus infinity differences between such states are not defined."
    )
    least = {
        rule: min(
            float((found[rule]["reduction"] / found[DEFP]["reduction"]).mean(1).min())
            for table in data.tables.values()
            for found in table.found.values()
        )
        for rule in (BY_DENSITY, BY_UTILITY)
    }
    yield (
        "- Sorted by density, offline greedy first gives everyone a late cut that uses next to nothing, saves little, "
        "and stays there: so it can lie far below DEFP, as the paper's does, unless raw frames are small. At the worst "
        f"size of all rows below it has {100 * least[BY_DENSITY]:.0f} % of DEFP's reduction, and "
        f"{100 * least[BY_UTILITY]:.0f} % sorted by utility."
    )


def numbers(data: Measured) -> Iterator[str]:
    """What was given, fitted or assumed."""
    yield "| | value | from |"
    yield "|---|---|---|"
    fitted = data.worlds[DEFAULTS][FITTED].edge_time
    for name, value, source in (
        ("actors", f"{ACTORS}; {FEW_ACTORS} in Fig. 10", "section 5.2"),
        ("network", f"{WORK / 1e6:.0f} MFLOP, {NUM_CUTS} cuts", "the code"),
        ("raw frame", "4 x 84 x 84 in 32 bit", "the code"),
        (
            "trajectory",
            f"{TRAJECTORY_BITS / 8e3:.1f} kB a step, at every cut",
            f"the code; IMPALA's log has {LOGGED_STEP_BYTES / 1e3:.1f} kB",
        ),
        ("model", "not pulled over the link", "IMPALA's log"),
        (
            "link",
            f"{FAST_ETHERNET / 8e6:.1f} MB/s with headers, or 10 MB/s, or 1 Gbit/s",
            "the logs; section 5.2; assumed",
        ),
        ("f_d", f"{DEVICE_SPEED / 1e9:.1f} GFLOP/s", f"fitted: IMPALA's log if it has {ACTORS} actors"),
        (
            f"f_e, {FITTED}",
            f"{WORK / fitted / 1e9:.0f} GFLOP/s, {1e3 * fitted:.1f} ms",
            f"fitted: Seed-RL keeps it busy {100 * NEEDED_USE:.0f} %",
        ),
        (
            f"f_e, {V100}",
            f"{V100_SPEED / 1e9:.0f} GFLOP/s, {1e3 * WORK / V100_SPEED:.1f} ms",
            "assumed: about a hundred kernel launches",
        ),
        ("environment step", f"{1e3 * ENVIRONMENT_TIME:g} ms", "assumed: four emulated frames and their scaling"),
        ("remote call", f"{1e3 * CALL_TIME:g} ms", "assumed: gRPC and pickle of 110 KiB"),
        (
            "training",
            f"{1e3 * TRAINING_TIME:.2f} ms a step",
            "assumed: each step once, forward and backward, 5 TFLOP/s in batches",
        ),
    ):
        yield f"| {name} | {value} | {source} |"


def distributions(data: Measured) -> str:
    """What the densities are of, and how far their means are off those of the law."""
    off = []
    for gpu, found in data.windows.items():
        world = data.worlds[DEFAULTS][gpu]
        for name, windows in found.items():
            framework, network = name.split(", ")
            cut = LOG_CUTS[framework]
            use, traffic = world.use_on(network)[cut], world.traffic_on(network)[cut] * MIB / 1e6
            off.append((abs(windows.use.mean - use), abs(windows.traffic.mean - traffic)))
    use, traffic = np.max(off, axis=0)
    return (
        "How GPU use and traffic of a second are distributed, as in the paper's Fig. 9, in an hour of the same network "
        "with exponential times, simulated; dashed on a link of 10 MB/s, IMPALA's GPU use cut off. Means are off the "
        f"table's by at most {100 * use:.1f} points and {traffic:.2f} MB/s, with the width of the bins. How long the "
        "paper's monitor averages is not known; over shorter times the densities are wider."
    )


def by_cut(data: Measured) -> Iterator[str]:
    """Rate, GPU use and traffic at each cut."""
    worlds = data.worlds[DEFAULTS]
    cases = [(gpu, network) for gpu in worlds for network in FIG9]
    yield f"Steps/s / GPU use, % / MiB/s with {ACTORS} actors:"
    yield ""
    yield f"| cut | {' | '.join(f'{gpu}, {network}' for gpu, network in cases)} |"
    yield "|" + "---|" * (1 + len(cases))
    for cut in range(NUM_CUTS + 1):
        cells = []
        for gpu, network in cases:
            world = worlds[gpu]
            rate = world.rates(network)[cut, ACTORS - 1]
            use, traffic = world.use_on(network)[cut], world.traffic_on(network)[cut]
            cells.append(f"{rate:.1f} / {100 * use:.0f} / {traffic:.2f}")
        yield f"| {cut} | {' | '.join(cells)} |"


def reductions(table: Table) -> Iterator[str]:
    """Every algorithm at every size."""
    yield "Total latency reduction in s / Var(y) / Var(u) in 10^-3 s^2 / local devices in %:"
    for server, found in table.found.items():
        yield ""
        yield f"| {server} | {' | '.join(f'N = {size}' for size in table.sizes)} |"
        yield "|" + "---|" * (1 + len(table.sizes))
        for name, values in found.items():
            mean = {metric: x.mean(1) for metric, x in values.items()}
            cells = [
                f"{size * mean['reduction'][place]:.2f} / {mean['var_cut'][place]:.1f} / "
                f"{1e3 * mean['var_utility'][place]:.1f} / {100 * mean['local'][place]:.0f}"
                for place, size in enumerate(table.sizes)
            ]
            yield f"| {name} | {' | '.join(cells)} |"
