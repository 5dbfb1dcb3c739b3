"""Campaigns of hostile inputs: what became of each is counted, and only four ends are good ones."""

import json
import multiprocessing
import resource
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import machine
from benchmarks.harness.results import write_result
from mec_jax.registry import find

REFUSED = "refused with one clear line"
WHOLE = "without effect: what is read is what was written"
TAKEN = "taken: a valid input"
CLIPPED = "clipped into its range, as documented"
GOOD = (REFUSED, WHOLE, TAKEN, CLIPPED)
"""Anything else should not happen."""

MAX_SECONDS = 10.0
"""Of one input."""
MAX_MEMORY = 2 * 2**30
"""Byte, of the process that takes all inputs of a campaign."""

type Fates = Counter[str]
type Campaign = Callable[[int, int, Path], Fates]
"""(number of inputs, seed, folder that is thrown away) -> what became of them."""


def clear(error: BaseException, named: str = "") -> str:
    """`REFUSED` if the error is of use: a plain ValueError of one short line that names the thing."""
    said = str(error)
    fine = type(error) is ValueError and named in said and "\n" not in said and 0 < len(said) < 700
    return REFUSED if fine else f"unclear: {type(error).__name__}: {said}"


def fate(act: Callable[[], Any], verdict: Callable[[Any], str], named: str = "") -> str:
    """What becomes of one input.

    Args:
        act: Takes it.
        verdict: Of what came of it, if it was not refused: one of `GOOD`, or what is wrong.
        named: What an error must name.
    """
    begin = time.perf_counter()
    try:
        done = act()
    except ValueError as error:
        found = clear(error, named)
    except Exception as error:
        found = f"crash: {type(error).__name__}: {error}"
    else:
        found = verdict(done)
    seconds = time.perf_counter() - begin
    return found if seconds <= MAX_SECONDS else f"hang: {found}"


def measure(where: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run one campaign in a process of its own: its counts, time and peak memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (where, count, seed, folder))


def _measure(where: str, count: int, seed: int, folder: Path) -> dict[str, Any]:
    campaign: Any = find(where)
    begin = time.perf_counter()
    fates = campaign(count, seed, folder)
    return {
        "inputs": count,
        "seed": seed,
        "fates": dict(fates.most_common()),
        "seconds": round(time.perf_counter() - begin, 1),
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "machine": machine(),
    }


def wrong(result: Mapping[str, Any]) -> dict[str, int]:
    """What should not have happened in a campaign, with its counts."""
    found = {what: number for what, number in result["fates"].items() if what not in GOOD}
    lost = result["inputs"] - sum(result["fates"].values())
    found |= {"inputs without a fate": lost} if lost else {}
    if result["peak_bytes"] > MAX_MEMORY:
        found["byte at the peak"] = result["peak_bytes"]
    return found


def save(path: Path, result: Mapping[str, Any]) -> None:
    """Keep what a campaign found."""
    write_result(path, json.dumps(result, indent=1) + "\n")
