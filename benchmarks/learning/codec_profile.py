"""A profile of the codecs that were trained, and what MAHPPO and PPO learn on it.

    python -m benchmarks.learning.codecs --networks resnet18   # trains the codecs first, and keeps them in the cache
    python -m benchmarks.learning.codec_profile

At each cut the codec of seed 0 with the largest rate within the accuracy budget; `mec-jax profile --codec` measures the
profile on this machine, which stands for a UE. Then 5 seeds of each algorithm play `MultiUEOffloading-v0` with it.
Results go to benchmarks/results/codecs: profile_resnet18.json with its .csv, and profile_resnet18.md.
"""

import tempfile
from pathlib import Path

from algos import cli
from algos.algorithms import make_env
from benchmarks.harness.machine import described, machine
from benchmarks.harness.results import command_line, write_result
from benchmarks.learning.codec_tables import BUDGET, OUT, Row, read_rows
from benchmarks.learning.codecs import codec_file
from benchmarks.learning.curves import EPISODES, Task, train
from benchmarks.learning.leaderboard import label, notes, per_seed
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import compare
from mec_jax.profiles import load_profile

NETWORK, SIDE, NUM_UES, SEEDS = "resnet18", 32, 3, 5
ALGORITHMS = (("mahppo", "fast"), ("ppo", "hybrid"))
FACTORY = f"""from mec_jax.split.networks import small_image_network

def network():
    return small_image_network("{NETWORK}", 10, 0)
"""


def best_codecs(rows: list[Row]) -> dict[str, Row]:
    """By cut, of the first seed's codecs of the network within the budget the one that sends least.

    Raises:
        SystemExit: If a cut has none, or its file is not there.
    """
    found = {}
    for cut in load_profile(NETWORK).points[1:-1]:
        good = [row for row in rows if (row.network, row.side, row.cut, row.seed) == (NETWORK, SIDE, cut, 0)]
        good = [row for row in good if row.loss <= BUDGET and codec_file(row.key).exists()]
        if not good:
            raise SystemExit(f"there is no codec of {NETWORK} at {cut}: run benchmarks.learning.codecs on this machine")
        found[cut] = min(good, key=lambda row: row.sent)
    return found


def measure(codecs: dict[str, Row], path: Path) -> None:
    """Write the profile."""
    with tempfile.TemporaryDirectory() as folder:
        factory = Path(folder) / "nets.py"
        factory.write_text(FACTORY)
        files = [str(codec_file(row.key)) for row in codecs.values()]
        image = ["--image", "3", str(SIDE), str(SIDE)]
        cli.main(["profile", f"{factory}:network", *image, "--codec", *files, "--out", str(path)])


def main(argv: list[str] | None = None) -> None:
    """Measure, train and write."""
    args = command_line(__spec__.name, __doc__, OUT).parse_args(argv)
    codecs = best_codecs(read_rows(args.out / "rates.csv", Row))
    path = args.out / f"profile_{NETWORK}.json"
    measure(codecs, path)
    static = {"num_ues": NUM_UES, "profile": str(path)}
    tasks = [Task(algorithm, preset, "MultiUEOffloading-v0", static, SEEDS) for algorithm, preset in ALGORITHMS]
    runs = [train(task) for task in tasks]
    env, params = make_env("MultiUEOffloading-v0", static, {})
    keys = evaluation_keys(EPISODES)
    found = compare(env, env.evaluation_params(params), {label(run): per_seed(run) for run in runs}, keys)
    lines = [
        *(f"# {NETWORK} with trained codecs, {NUM_UES} UEs", ""),
        f"The profile [{path.name}]({path.name}) is of torchvision's {NETWORK} with stride 1 in its first convolution, "
        f"10 classes at {SIDE} x {SIDE}, and of codecs trained on Fashion-MNIST. A UE is as fast as one core of the "
        "machine that measured it, at 5 W.",
        *("", "| cut after | rate | bit | accuracy lost in % |", "|---|---|---|---|"),
        *(
            f"| {cut} | {row.rate:g} | {bits:.0f} | {100 * row.loss:.2f} |"
            for (cut, row), bits in zip(codecs.items(), load_profile(path).bits[1:-1], strict=True)
        ),
        *("", *found.table(), "", found.caption(), ""),
        *(line for run in runs for line in notes(run, found)),
        *("", f"Machine: {described(machine(), versions=('jax', 'jaxlib'))}."),
    ]
    write_result(path.with_suffix(".md"), "\n".join(lines) + "\n")
    print("\n".join(found.table()))


if __name__ == "__main__":
    main()
