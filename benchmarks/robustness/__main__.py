"""Every campaign of hostile inputs, or those that are named.

    python -m benchmarks.robustness                 # 10^4 inputs a surface; resumes where it was stopped
    python -m benchmarks.robustness policies --count 1000 --out /tmp/robustness

What each found is kept in results/robustness/SURFACE.json, and all of them stand in results/robustness.md. Exits 1 if
an input ended as none should: with a traceback, taken in silence, after more than 10 s or with more than 2 GB.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.campaign import GOOD, measure, save, wrong
from benchmarks.harness.machine import described
from benchmarks.harness.results import RESULTS, command_line, write_result

CAMPAIGNS: Mapping[str, str] = {
    "profiles": "benchmarks.robustness.corrupt_files:profile_fates",
    "policies": "benchmarks.robustness.corrupt_files:policy_fates",
    "run_folders": "benchmarks.robustness.run_folders:run_folder_fates",
    "command_line": "benchmarks.robustness.command_line:fates",
    "outputs": "benchmarks.robustness.outputs:fates",
    "sizes": "benchmarks.robustness.sizes:size_fates",
    "hyper_parameters": "benchmarks.robustness.hyper_parameters:fates",
    "observations": "benchmarks.robustness.hostile_observations:observation_fates",
    "actions": "benchmarks.robustness.hostile_environments:action_fates",
    "parameters": "benchmarks.robustness.hostile_environments:parameter_fates",
}
"""By surface, where its campaign is."""


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table of all campaigns."""
    lines = [
        "# Hostile inputs",
        "",
        "`python -m benchmarks.robustness` writes this page from `robustness/`, its campaigns say what they try.",
        "",
        "| surface | inputs | refused | without effect | valid | clipped | wrong | peak memory, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for surface, result in found.items():
        counts = [str(result["fates"].get(end, 0)) for end in GOOD]
        bad = sum(number for end, number in result["fates"].items() if end not in GOOD)
        peak = f"{result['peak_bytes'] / 2**20:.0f}"
        lines.append(f"| {surface} | {' | '.join([str(result['inputs']), *counts, str(bad), peak])} |")
    machines = dict.fromkeys(described(result["machine"]) for result in found.values())
    return "\n".join([*lines, "", *(f"On {name}." for name in machines)]) + "\n"


def results(folder: Path) -> dict[str, Any]:
    """What is kept of each campaign."""
    files = {surface: folder / f"{surface}.json" for surface in CAMPAIGNS}
    return {surface: json.loads(file.read_text()) for surface, file in files.items() if file.exists()}


def main() -> int:
    """Run what is not there yet."""
    parser = command_line("benchmarks.robustness", __doc__, RESULTS / "robustness")
    parser.add_argument("surfaces", nargs="*", help="by default all that have no result")
    parser.add_argument("--count", type=int, default=10_000, help="inputs a surface")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if unknown := set(options.surfaces) - set(CAMPAIGNS):
        parser.error(f"no surface {min(unknown)!r}: choose from {', '.join(CAMPAIGNS)}")
    there = results(options.out)
    for surface in options.surfaces or [surface for surface in CAMPAIGNS if surface not in there]:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(CAMPAIGNS[surface], options.count, options.seed, Path(folder))
        save(options.out / f"{surface}.json", result)
        print(f"{surface}: {json.dumps({key: result[key] for key in ('inputs', 'fates', 'seconds')})}", flush=True)
    found = results(options.out)
    write_result(options.out.parent / f"{options.out.name}.md", page(found))
    return int(any(wrong(result) for result in found.values()))


if __name__ == "__main__":
    sys.exit(main())
