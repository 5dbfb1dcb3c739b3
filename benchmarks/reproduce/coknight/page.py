"""The page on Figs. 9 to 12 of Dai et al. 2022 (Coknight), of what was measured.

Figs. 9 to 11 come from the timeline of `mec_jax.physics.actor_learner`, Fig. 12 from the partition game and its
solvers. The pictures have the paper's quantities on their axes as far as its text names them. The paper's curves are
not public as numbers: what is compared is what the text says of them, the authors' code and its traffic logs.
"""

from collections.abc import Collection, Iterator, Sequence

from benchmarks.harness.claims import Judged
from benchmarks.harness.machine import described
from benchmarks.harness.page import Reproduction, claim_table, legend, picture, sensitivity_table
from benchmarks.reproduce.coknight.cases import in_one_setting
from benchmarks.reproduce.coknight.data import (
    DEFAULTS,
    DEVICE_SPEEDS,
    FIXED_FOR,
    MILP,
    REQUEST_RATE,
    SHARE,
    V100_SPEED,
)
from benchmarks.reproduce.coknight.figures import FIGURES
from benchmarks.reproduce.coknight.measured import Measured, load
from benchmarks.reproduce.coknight.partition_claims import PARTITION_CLAIMS
from benchmarks.reproduce.coknight.sections import by_cut, distributions, findings, numbers, reductions
from benchmarks.reproduce.coknight.timeline_claims import NEAR_CROSSING, TIMELINE_CLAIMS

ABOUT = (
    "What the paper leaves out makes the settings: the numbers in the rows of the tables below, and how long a request "
    "holds the GPU, which is either fitted to Fig. 9 or assumed. What one can choose makes the cases of a claim: the "
    "network, the cut, the server, the algorithm, the number of devices. A case is undetermined if it holds in some "
    "settings and not in others; in brackets is in how many it does. A claim holds if all its cases hold in all "
    "settings, and only when if some do; if none does, it is undetermined if a case is. Intervals are of 95 %, by "
    "bootstrap over draws, and clear a threshold as a whole; the timeline has no chance in it. The paper's curves are "
    "not public as numbers, only what the text says of them, the authors' code (github.com/daihao42/coknight) and its "
    "traffic logs; the pictures' axes are the paper's where it names them. Fig. 8, the convergence of the three "
    "frameworks with V-trace, is not reproduced here, nor the memory use of Fig. 9."
)


def body(data: Measured, judged: Sequence[Judged], drawn: Collection[str]) -> Iterator[str]:
    """All below the head."""
    table = data.tables[DEFAULTS]
    draws = table.found[next(iter(table.found))][MILP]["reduction"].shape[1]
    yield f"Machine: {described(data.machine)}. Time: {data.seconds:.0f} s."
    yield ""
    yield from claim_table(judged)
    yield ""
    yield from findings(data)
    yield from ("", "## Figs. 9 to 11", "")
    yield (
        "Means of a closed queueing network (`mec_jax.physics.actor_learner`). Coknight is what its logs name, cuts 3 "
        'and 4 for all actors, or "best cut": the cut inside the network that is fastest at each place, for all actors '
        "alike, which is more than its algorithm promises."
    )
    yield ""
    yield from numbers(data)
    yield ""
    yield from picture("fig9", "Densities of GPU use and traffic", drawn)
    yield distributions(data)
    yield ""
    yield from picture("fig9_cuts", "Means of GPU use and traffic against the cut", drawn)
    yield from by_cut(data)
    yield ""
    yield from picture("fig10", "Rate against bandwidth", drawn)
    yield from picture("fig11", "Rate against actors, and where the two cross", drawn)
    yield (
        f"White lines in the maps are {NEAR_CROSSING[0]} and {NEAR_CROSSING[1]} actors, crosses the two GPUs; where a "
        "map is white, the two do not cross."
    )
    yield from ("", f"In each setting ({legend()}):", "")
    yield from sensitivity_table(data.timelines, in_one_setting(TIMELINE_CLAIMS))
    yield from ("", "## Fig. 12", "")
    yield (
        f"Devices of {', '.join(f'{speed / 1e9:.2g}' for speed in DEVICE_SPEEDS)} GFLOP/s, as many of each, in random "
        f"order; f_e = {V100_SPEED / 1e12:g} TFLOP/s for a request, 100 Mbit/s for each, {REQUEST_RATE:g} request/s. "
        f"The elastic server has N r_0, r_0 being {100 * SHARE:.0f} % of an inference and of a raw frame a second; the "
        f"fixed one has what that gives {FIXED_FOR} devices. The paper gives none of these. Means over {draws} draws. "
        "The paper does not define OGreedy: choices are sorted by utility, or by utility over the sum of the parts of "
        "the two capacities that they use. Best responses start from all-local and end in a Nash equilibrium."
    )
    yield ""
    yield from picture("fig12", "Reduction, variances and operations", drawn)
    yield from reductions(table)
    yield from ("", f"In each setting ({legend()}):", "")
    yield from sensitivity_table(data.tables, in_one_setting(PARTITION_CLAIMS))


REPRODUCTION = Reproduction(
    name="coknight",
    title="Timeline and partition game, Dai et al. 2022 (Coknight)",
    paper='H. Dai, J. Wu, Y. Wang, C. Xu, "Towards Scalable and Efficient Deep-RL in Edge Computing: A Game-based '
    'Partition Approach", Journal of Parallel and Distributed Computing 168, 2022.',
    about_verdicts=ABOUT,
    load=load,
    claims=(*TIMELINE_CLAIMS, *PARTITION_CLAIMS),
    figures=FIGURES,
    body=body,
)
