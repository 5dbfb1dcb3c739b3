"""Reproduce the curves of Ma et al. 2025 (multi-exit partitioning) over bandwidth, and judge the paper's claims.

    python benchmarks/reproduce/multi_exit.py    # about four minutes on 2 cores

Of the paper only the outline, the symbols and the tables are at hand: the model is derived from them, and the curves
are compared with what the text says of the paper's. Results: OUT/README.md, curves.png and curves.json.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

if __name__ == "__main__" and not __package__:  # run as a file: find the packages beside and above this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

matplotlib.use("Agg")

from matplotlib.figure import Figure

import mec_jax
from algos import ppo
from algos.runs import as_arrays
from benchmarks.machine import machine
from benchmarks.reproduce.verdicts import Status, Verdict, together
from benchmarks.time_to_target import write
from mec_jax.envs.multi_exit import MultiExitAllocation, Params
from mec_jax.evaluation import Policy, evaluation_keys
from mec_jax.physics.multi_exit import Costs, split_costs
from mec_jax.solvers import multi_exit as solvers

RESULTS = Path(__file__).resolve().parents[1] / "results" / "multi_exit"

SETUPS = {
    "image": "MultiExitAllocation-v0",
    "video": "MultiExitAllocation-Video-v0",
    "compressed": "MultiExitAllocation-Compressed-v0",
}
BANDWIDTHS = (1, 2, 3, 5, 7, 10, 15, 20, 25, 30, 40, 50, 60, 70, 80, 90, 100)  # Mbit/s
DRAWS = 8
"""Draws that FP-AR and Random are averaged over."""


def trained(env: MultiExitAllocation, config: ppo.Config | None = None) -> Policy:
    """PPO's policy, preset `bandit`, seed 0: trained at the defaults of all but bandwidth and speeds, which vary."""
    default, hparams = ppo.PRESETS["bandit"]
    config = config or default
    trainer = ppo.make_trainer(env, config)
    state, _ = jax.jit(trainer.train)(as_arrays(hparams), env.default_params, jax.random.key(0))
    policy, learned = ppo.make_policy(env, config, deterministic=True), ppo.learned(state)
    return lambda params, observation, key: policy((learned, params), observation, key)


LEARNED: dict[str, Callable[[MultiExitAllocation], Policy]] = {"ACO-DRL": trained}
"""Learned policies by name: each is measured and drawn with the rest at the defaults it was trained for, and the claims
on ACO-DRL are judged by that of this name. Elsewhere, and if there is none, the optimum stands in for it."""

OPTIMUM, DEVICE_ONLY, EDGE_ONLY, FIXED, RANDOM = "Optimum", "Device-only-EAR", "Edge-only-EAR", "FP-AR", "Random"
ACO, SPINN = "ACO-EAR", "SPINN-EAR"
SHARED_ACO, SHARED_SPINN = "ACO-EAR, shared", "SPINN-EAR, shared"
PAPERS = (ACO, SPINN, DEVICE_ONLY, EDGE_ONLY, FIXED)
METRICS = {"latency": "s", "energy": "J", "cost": ""}

# Thresholds of the verdicts.
COMPARABLE = 0.05  # relative difference of what is called comparable, and least of what is called significant
STABLE = 0.1  # largest part of the fall from the lowest to the highest bandwidth of what is called stable
SAME = 1e-4  # relative difference within which two methods are equally good: float32, and ties
TABLE_BANDWIDTHS = (1, 10, 30, 100)

Curves = Mapping[str, Mapping[str, np.ndarray]]
"""[method][metric] of one set-up and setting: means over devices, [bandwidth]."""

SENSITIVITY: dict[str, dict[str, Any]] = {
    "defaults": {},
    "f_e = 0.25 TFLOP/s": {"edge_speed": 0.25e12},
    "f_e = 0.5 TFLOP/s": {"edge_speed": 0.5e12},
    "f_e = 2 TFLOP/s": {"edge_speed": 2e12},
    "f_e = 5 TFLOP/s": {"edge_speed": 5e12},
    "input of 1 bit a value (JPEG)": {"input_bits": 3 * 224 * 224},
    "input of 32 bit a value": {"input_bits": 32 * 3 * 224 * 224},
    "h = 0": {"branch_flops": 0.0},
    "h = 2 % of a mean layer": {"branch_flops": 0.02 * 30e9 / 13},
    "h = 10 % of a mean layer": {"branch_flops": 0.1 * 30e9 / 13},
    "w = 0.1": {"latency_weight": 0.1},
    "w = 0.3": {"latency_weight": 0.3},
    "w = 0.7": {"latency_weight": 0.7},
    "w = 0.9": {"latency_weight": 0.9},
}


# Measuring


def own_slices(env: MultiExitAllocation, params: Params, observation: Any, key: Any) -> Costs:
    """The best splits if each device owns 1/n of the edge, used or not, as the paper words EAR.

    The environment grants what is not used to the others, so that this is no policy of it.
    """
    scenario = env.scenario(observation, params)
    options = env.options(scenario, params)
    fixed, root = solvers.cost_terms(options, scenario.edge_speed, params.latency_weight)
    split = jnp.argmin(fixed + env.num_devices * root**2, axis=1)
    share = jnp.full(env.num_devices, 1 / env.num_devices)
    return split_costs(options, split, share, scenario.edge_speed, params.latency_weight)


def of_policy(policy: Policy, env: MultiExitAllocation, params: Params, observation: Any, key: Any) -> Costs:
    """What a policy costs."""
    return env.costs(env.scenario(observation, params), policy(params, observation, key), params)


def methods(env: MultiExitAllocation) -> dict[str, Callable[..., Costs]]:
    """What is compared but for learned policies, by name: functions of environment, parameters, observation and key."""
    policies = {OPTIMUM: solvers.oracle_policy(env)}
    baselines = dict(solvers.baselines(env))
    shared = {SHARED_ACO: baselines.pop(ACO), SHARED_SPINN: baselines.pop(SPINN)}
    costs = {name: partial(of_policy, policy) for name, policy in (policies | baselines | shared).items()}
    return costs | {ACO: own_slices, SPINN: own_slices}


def measure(
    env: MultiExitAllocation, settings: Sequence[Mapping[str, Any]], bandwidths: Sequence[float]
) -> list[Curves]:
    """Curves of all methods at nominal speeds, one for each setting of the parameters."""
    points = [env.params(**_scenario(setting, bandwidth)) for setting in settings for bandwidth in bandwidths]
    columns = jax.tree.map(lambda *x: jnp.stack(x), *points)
    keys = evaluation_keys(DRAWS)
    curves: list[dict[str, dict[str, np.ndarray]]] = [{} for _ in settings]
    learned = {name: partial(of_policy, make(env)) for name, make in LEARNED.items()}
    for name, method in (methods(env) | learned).items():
        count = 1 if name in learned else len(settings)
        params = jax.tree.map(lambda x, count=count: x[: count * len(bandwidths)], columns)
        own = solvers.spinn_exits if name in (SPINN, SHARED_SPINN) else lambda x: x

        def means(one: Params, key: Any, method: Any = method, own: Any = own) -> Any:
            one = own(one)
            costs = method(env, one, env.reset_env(key, one)[0], key)
            return {metric: jnp.mean(getattr(costs, metric)) for metric in METRICS}

        # One point after the other: FP-AR tries 1000 shares for each key.
        measured = jax.jit(partial(jax.lax.map, lambda one, means=means: jax.vmap(means, (None, 0))(one, keys)))(params)
        for metric, values in measured.items():
            table = np.asarray(values, float).mean(1).reshape(count, len(bandwidths))
            for curve, row in zip(curves, table, strict=False):
                curve.setdefault(name, {})[metric] = row
    return list(curves)


def _scenario(setting: Mapping[str, Any], bandwidth: float) -> dict[str, Any]:
    """Parameters at nominal speeds and one bandwidth (Mbit/s)."""
    fixed = {"device_speed_spread": 1, "edge_speed_spread": 1}
    return fixed | {"bandwidth_min": 1e6 * bandwidth, "bandwidth_max": 1e6 * bandwidth} | dict(setting)


def optimal_splits(env: MultiExitAllocation, setting: Mapping[str, Any], bandwidths: Sequence[float]) -> np.ndarray:
    """Splits of the optimum at nominal speeds, [bandwidth, device]."""
    rows = []
    for bandwidth in bandwidths:
        params = env.params(**_scenario(setting, bandwidth))
        observation, _ = env.reset(jax.random.key(0), params)
        rows.append(np.asarray(_decide(env, params, observation)))
    return np.array(rows)


@partial(jax.jit, static_argnames="env")
def _decide(env: MultiExitAllocation, params: Params, observation: Any) -> Any:
    return solvers.oracle_policy(env)(params, observation, jax.random.key(0)).split


# Claims


def proposed(curves: Curves) -> Mapping[str, np.ndarray]:
    """The paper's ACO-DRL: learned if there is a learned one, or else the optimum."""
    return curves["ACO-DRL" if "ACO-DRL" in curves else OPTIMUM]


def at(bandwidths: Sequence[float], values: np.ndarray, unit: str) -> str:
    """Values at some bandwidths, as text."""
    places = [list(bandwidths).index(b) for b in TABLE_BANDWIDTHS if b in bandwidths] or range(len(bandwidths))
    cells = ", ".join(f"{values[place]:.4g}" for place in places)
    return f"{cells}{' ' + unit if unit else ''} at {', '.join(f'{bandwidths[place]:g}' for place in places)} Mbit/s"


def ranges(bandwidths: Sequence[float], holds: np.ndarray) -> str:
    """Bandwidths at which something holds, as runs."""
    runs: list[list[float]] = []
    previous = False
    for bandwidth, held in zip(bandwidths, holds, strict=True):
        if held and not previous:
            runs.append([bandwidth, bandwidth])
        elif held:
            runs[-1][1] = bandwidth
        previous = bool(held)
    return ", ".join(f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in runs) + " Mbit/s"


def over(bandwidths: Sequence[float], holds: np.ndarray, text: str) -> Verdict:
    """Holds at all bandwidths, only at some, or at none."""
    if np.all(holds):
        return Verdict(Status.HOLDS, text)
    if not np.any(holds):
        return Verdict(Status.FAILS, text)
    return Verdict(Status.ONLY_WHEN, f"B = {ranges(bandwidths, holds)}: {text}")


def best(bandwidths: Sequence[float], curves: Curves, others: Sequence[str], metrics: Sequence[str]) -> Verdict:
    """ACO-DRL is at least as good as each of the others, and better than some."""
    parts = {}
    for metric in metrics:
        ours = proposed(curves)[metric]
        rest = np.array([curves[name][metric] for name in others])
        holds = np.all(ours <= rest * (1 + SAME), axis=0) & np.any(ours < rest * (1 - SAME), axis=0)
        ratio = rest.min(0) / ours
        parts[metric] = over(bandwidths, holds, f"best of the others / ACO-DRL {at(bandwidths, ratio, '')}")
    return together(parts) if len(parts) > 1 else next(iter(parts.values()))


def slightly_better(bandwidths: Sequence[float], curves: Curves, better: str, worse: str) -> Verdict:
    """Lower in every metric at every bandwidth, equality not counting as worse."""
    parts = {}
    for metric in METRICS:
        ratio = curves[worse][metric] / curves[better][metric]
        parts[metric] = over(bandwidths, ratio >= 1 - SAME, f"{worse} / {better} {at(bandwidths, ratio, '')}")
    return together(parts)


def worse_than_most(
    bandwidths: Sequence[float], curves: Curves, name: str, others: Sequence[str], metrics: Sequence[str]
) -> Verdict:
    """Higher than more than half of the others."""
    parts = {}
    for metric in metrics:
        beaten = sum(curves[name][metric] > curves[other][metric] * (1 + SAME) for other in others)
        text = f"higher than {at(bandwidths, np.asarray(beaten), f'of {len(others)}')}"
        parts[f"{metric} of {name}"] = over(bandwidths, np.asarray(beaten) > len(others) / 2, text)
    return together(parts) if len(parts) > 1 else next(iter(parts.values()))


def above(bandwidths: Sequence[float], limit: float, curves: Curves) -> tuple[Sequence[float], Curves]:
    """What lies above a bandwidth."""
    keep = [index for index, bandwidth in enumerate(bandwidths) if bandwidth > limit]
    cut = {name: {metric: x[keep] for metric, x in curve.items()} for name, curve in curves.items()}
    return [bandwidths[index] for index in keep], cut


def both_readings(judge: Callable[[str], Verdict]) -> Verdict:
    """Of a claim on ACO-EAR, by what equal shares mean."""
    return together({"1/n each": judge(ACO), "shared by those who use it": judge(SHARED_ACO)})


def _exits(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return slightly_better(bandwidths, curves, ACO, SPINN)


def _beats_equal_shares(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return both_readings(lambda aco: best(bandwidths, curves, (aco, DEVICE_ONLY, EDGE_ONLY), ("latency", "cost")))


def _beats_all(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return best(bandwidths, curves, PAPERS, ("latency", "cost"))


def _fixed_is_poor(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    others = [name for name in PAPERS if name != FIXED]
    return worse_than_most(bandwidths, curves, FIXED, others, ("latency", "cost", "energy"))


def _edge_only_saves_energy(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    edge = curves[EDGE_ONLY]["energy"]
    rest = np.array([curves[name]["energy"] for name in (OPTIMUM, *PAPERS) if name != EDGE_ONLY]).min(0)
    text = f"least of the others / Edge-only-EAR {at(bandwidths, rest / edge, '')}"
    return over(bandwidths, edge <= rest * (1 + SAME), text)


def _edge_only_is_slow(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    latency = curves[EDGE_ONLY]["latency"]
    slow = latency > 2 * latency[-1]
    text = f"latency {at(bandwidths, latency, 's')}; considerable is twice that at the largest bandwidth"
    if not np.any(slow):
        return Verdict(Status.FAILS, text)
    return Verdict(Status.HOLDS if slow[0] else Status.FAILS, f"B = {ranges(bandwidths, slow)}: {text}")


def _energy_is_alike(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    bandwidths, curves = above(bandwidths, 10, curves)

    def judge(aco: str) -> Verdict:
        ratio = curves[aco]["energy"] / proposed(curves)["energy"]
        return over(bandwidths, np.abs(ratio - 1) <= COMPARABLE, f"{aco} / ACO-DRL {at(bandwidths, ratio, '')}")

    return both_readings(judge)


def _shares_matter(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    bandwidths, curves = above(bandwidths, 10, curves)

    def judge(aco: str) -> Verdict:
        parts = {}
        for metric in ("latency", "cost"):
            ratio = curves[aco][metric] / proposed(curves)[metric]
            text = f"{aco} / ACO-DRL {at(bandwidths, ratio, '')}"
            parts[metric] = over(bandwidths, ratio >= 1 + COMPARABLE, text)
        return together(parts)

    return both_readings(judge)


def _costs_settle(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    middle = list(bandwidths).index(30)
    change, settled = {}, []
    for name in (OPTIMUM, *PAPERS):
        first, at_30, last = curves[name]["cost"][[0, middle, -1]]
        change[name] = at_30 - last
        if change[name] <= STABLE * (first - last):
            settled.append(name)
        change[name] /= max(first - last, 1e-12)
    text = "part of the fall that lies above 30 Mbit/s: " + ", ".join(
        f"{100 * value:.1f} % ({name})" for name, value in change.items()
    )
    if len(settled) == len(change):
        return Verdict(Status.HOLDS, text)
    if not settled:
        return Verdict(Status.FAILS, text)
    return Verdict(Status.ONLY_WHEN, f"of {', '.join(settled)}: {text}")


def _lowest_above_30(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    return best(*above(bandwidths, 30, curves), PAPERS, ("cost",))


def _comparable_exits(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    parts = {}
    for metric in METRICS:
        ratio = curves[SPINN][metric] / curves[ACO][metric]
        holds = np.abs(ratio - 1) <= 2 * COMPARABLE
        parts[metric] = over(bandwidths, holds, f"SPINN-EAR / ACO-EAR {at(bandwidths, ratio, '')}")
    return together(parts)


def _fixed_above_40(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    bandwidths, curves = above(bandwidths, 40, curves)
    others = [name for name in (OPTIMUM, *PAPERS) if name != FIXED]
    less = np.asarray(sum(curves[FIXED]["energy"] < curves[name]["energy"] for name in others))
    text = f"lower than {at(bandwidths, less, f'of {len(others)}')}, {at(bandwidths, curves[FIXED]['energy'], 'J')}"
    return together(
        {
            "energy": over(bandwidths, less > len(others) / 2, text),
            "latency": worse_than_most(bandwidths, curves, FIXED, others, ("latency",)),
        }
    )


def _one_sided_is_poor(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    others = (OPTIMUM, ACO, SPINN, FIXED)
    return together(
        {
            name: worse_than_most(bandwidths, curves, name, others, ("latency", "cost"))
            for name in (DEVICE_ONLY, EDGE_ONLY)
        }
    )


def _adapts(bandwidths: Sequence[float], curves: Curves) -> Verdict:
    scarce = np.array([bandwidth <= 5 for bandwidth in bandwidths])
    parts = {}
    for metric in ("latency", "cost"):
        rest = {name: curves[name][metric][-1] for name in PAPERS}
        ours = proposed(curves)[metric][scarce]
        least = [bandwidth for bandwidth, held in zip(bandwidths, scarce, strict=True) if held]
        matched = np.array([[value <= other * (1 + COMPARABLE) for other in rest.values()] for value in ours])
        text = (
            f"as good as {', '.join(str(int(count)) for count in matched.sum(1))} of {len(rest)} others at "
            f"{bandwidths[-1]:g} Mbit/s, itself at {', '.join(f'{x:g}' for x in least)}"
        )
        parts[metric] = over(least, matched.all(1), text)
    return together(parts)


@dataclass(frozen=True)
class Claim:
    """A claim of section 5.3, in our words, and what decides on it."""

    id: str
    setup: str
    words: str
    judge: Callable[[Sequence[float], Curves], Verdict]


CLAIMS = (
    Claim("I1", "image", "ACO-EAR is always slightly better than SPINN-EAR in latency, energy and cost", _exits),
    Claim("I2", "image", "ACO-DRL beats equal shares in latency and cost", _beats_equal_shares),
    Claim("I3", "image", "ACO-DRL is always the best in latency and cost", _beats_all),
    Claim("I4", "image", "FP-AR is worse than most in latency and cost, and in energy", _fixed_is_poor),
    Claim("I5", "image", "Edge-only-EAR always has the lowest energy", _edge_only_saves_energy),
    Claim("I6", "image", "Edge-only-EAR is considerably slow where bandwidth is scarce", _edge_only_is_slow),
    Claim("I7", "image", "Above 10 Mbit/s ACO-EAR and ACO-DRL use like energy", _energy_is_alike),
    Claim(
        "I8",
        "image",
        "Above 10 Mbit/s ACO-DRL is significantly better than ACO-EAR in latency and cost",
        _shares_matter,
    ),
    Claim("I9", "image", "Above 30 Mbit/s the costs of all methods tend to be stable", _costs_settle),
    Claim("I10", "image", "Above 30 Mbit/s the joint optimisation has the lowest cost", _lowest_above_30),
    Claim("V1", "video", "ACO-EAR and SPINN-EAR are comparable in latency, energy and cost", _comparable_exits),
    Claim("V2", "video", "ACO-EAR is always slightly better than SPINN-EAR", _exits),
    Claim("V3", "video", "ACO-DRL beats equal shares in latency and cost", _beats_equal_shares),
    Claim(
        "V4",
        "video",
        "Above 40 Mbit/s FP-AR uses less energy than most methods and is slower than most",
        _fixed_above_40,
    ),
    Claim(
        "V5",
        "video",
        "Device-only-EAR and Edge-only-EAR are worse than most in latency and cost",
        _one_sided_is_poor,
    ),
    Claim(
        "V6",
        "video",
        "ACO-DRL with little bandwidth (up to 5 Mbit/s) is as fast and cheap as others with much",
        _adapts,
    ),
)


# The page


def draw(curves: Mapping[str, Curves], bandwidths: Sequence[float]) -> Figure:
    """Latency, energy and cost against bandwidth, one row for each set-up."""
    figure = Figure(figsize=(14, 3.6 * len(curves)), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(curves), len(METRICS)))
    for row, (setup, curve) in zip(grid, curves.items(), strict=True):
        for axes, (metric, unit) in zip(row, METRICS.items(), strict=True):
            for index, (name, values) in enumerate(curve.items()):
                style = {OPTIMUM: "k-", SHARED_ACO: ":", SHARED_SPINN: ":"}.get(name, "-")
                color = {} if name == OPTIMUM else {"color": f"C{index}"}
                axes.plot(bandwidths, values[metric], style, label=name, linewidth=1.4, **color)
            axes.set_yscale("log")
            axes.set_xlabel("bandwidth, Mbit/s")
            axes.set_ylabel(f"{metric}{', ' + unit if unit else ''}, mean over devices")
            axes.set_title(setup)
    grid[0, -1].legend(fontsize=7, ncols=2)
    return figure


def write_page(
    folder: Path,
    curves: Mapping[str, Sequence[Curves]],
    splits: Mapping[str, np.ndarray],
    bandwidths: Sequence[float],
    command: str,
    seconds: float,
) -> dict[Claim, Verdict]:
    """Write README.md, the figure and the curves at the defaults; the verdicts on those.

    Args:
        folder: Where to.
        curves: Of each set-up, for each setting of `SENSITIVITY`.
        splits: Of the optimum at the defaults, [bandwidth, device], of each set-up.
        bandwidths: Mbit/s.
        command: What made them.
        seconds: How long that took.
    """
    verdicts = {claim: claim.judge(bandwidths, curves[claim.setup][0]) for claim in CLAIMS}
    folder.mkdir(parents=True, exist_ok=True)
    draw({setup: settings[0] for setup, settings in curves.items()}, bandwidths).savefig(folder / "curves.png", dpi=100)
    statuses = [verdict.status for verdict in verdicts.values()]
    count = ", ".join(f'{statuses.count(status)} "{status}"' for status in Status if status in statuses)
    about = machine()
    head = [
        "# Latency, energy and cost against bandwidth, Ma et al. 2025",
        "",
        'Y. Ma, Y. Wang, B. Tang, "Joint Optimization of Model Partitioning and Resource Allocation for Multi-Exit '
        'DNNs in Edge-Device Collaboration", Electronics 2025, 14, 1647.',
        "",
        f"    {command}",
        "",
        f"{len(verdicts)} claims: {count}. Verdicts are computed from the curves; the thresholds are in "
        "`benchmarks/reproduce/multi_exit.py`.",
        "",
        "Only the outline, the symbols and the tables of the paper are at hand, neither its equations nor its curves: "
        "the model is derived from the symbols, and f_e, the input's bits, h, w and the image size are defaults of "
        "ours (`MultiExitAllocation.params`), swept below. The two tables are taken for the image (n = 5) and the "
        "video set-up (n = 7), whose exit rows do not sum to 100 % and are divided by their sums. "
        + (
            "ACO-DRL is PPO here, trained at the defaults (seed 0); in the sweep the exact optimum stands in for it. "
            if "ACO-DRL" in LEARNED
            else "The exact joint optimum stands in for ACO-DRL: the best that it could be. "
        )
        + "ACO's exits are all those that some task leaves by.",
        "",
        '"EAR" has two readings: each device owns 1/n of the edge, used or not, as the paper words it (ACO-EAR, '
        'SPINN-EAR), or the devices that use the edge share it equally ("shared"), which is what equal shares mean in '
        f"the environment. Costs are means over devices. Random and FP-AR are means over {DRAWS} draws.",
        "",
        f"Machine: {about['cpu']}, {about['cores']} cores; jax {about['jax']}. Time: {seconds:.0f} s.",
        "",
        "![Latency, energy and cost against bandwidth](curves.png)",
        "",
        "| | The paper says | Verdict | Measured |",
        "|---|---|---|---|",
        *(f"| {c.id} | {c.words} | **{v.status}** | {v.text} |" for c, v in verdicts.items()),
        "",
        *_summary(curves, splits, bandwidths),
        "",
        *_costs(curves, bandwidths),
        "",
        *_sensitivity(curves, bandwidths),
    ]
    write(folder / "README.md", "\n".join(head) + "\n")
    content = {
        "bandwidths_mbps": list(bandwidths),
        "machine": about,
        "curves": {
            setup: {
                name: {metric: [float(f"{x:.6g}") for x in values] for metric, values in curve.items()}
                for name, curve in settings[0].items()
            }
            for setup, settings in curves.items()
        },
        "splits": {setup: table.tolist() for setup, table in splits.items()},
    }
    write(folder / "curves.json", json.dumps(content) + "\n")
    return verdicts


def _summary(
    curves: Mapping[str, Sequence[Curves]], splits: Mapping[str, np.ndarray], bandwidths: Sequence[float]
) -> Iterator[str]:
    """Where splits and shares matter."""
    yield "## Where splits and shares matter"
    yield ""
    yield (
        "Splits of the optimum over all bandwidths and devices, and the mean over bandwidths of cost / optimum. "
        '"compressed" is not in the paper: its features are 128 times smaller, as measured elsewhere for VGG-11.'
    )
    yield ""
    compared = (ACO, SHARED_ACO, SPINN, FIXED, RANDOM)
    yield f"| set-up | all at the edge | between | all on the device | {' | '.join(compared)} |"
    yield "|" + "---|" * 9
    for setup, table in splits.items():
        last = mec_jax.make(SETUPS[setup])[0].num_layers
        parts = [np.mean(table == 0), np.mean((table > 0) & (table < last)), np.mean(table == last)]
        curve = curves[setup][0]
        ratios = [np.mean(curve[name]["cost"] / curve[OPTIMUM]["cost"]) for name in compared]
        cells = [f"{100 * part:.0f} %" for part in parts] + [f"{ratio:.4f}" for ratio in ratios]
        yield f"| {setup} | {' | '.join(cells)} |"


def _costs(curves: Mapping[str, Sequence[Curves]], bandwidths: Sequence[float]) -> Iterator[str]:
    """Latency, energy and cost at some bandwidths."""
    places = [(b, list(bandwidths).index(b)) for b in TABLE_BANDWIDTHS if b in bandwidths]
    yield "## Latency (ms) / energy (mJ) / cost (10^-3)"
    for setup, settings in curves.items():
        yield ""
        yield f"| {setup} | {' | '.join(f'{b} Mbit/s' for b, _ in places)} |"
        yield "|" + "---|" * (1 + len(places))
        for name, curve in settings[0].items():
            cells = [" / ".join(f"{1e3 * curve[metric][place]:.4g}" for metric in METRICS) for _, place in places]
            yield f"| {name} | {' | '.join(cells)} |"


def _sensitivity(curves: Mapping[str, Sequence[Curves]], bandwidths: Sequence[float]) -> Iterator[str]:
    """How the verdicts depend on what the paper leaves out."""
    marks = {Status.HOLDS: "yes", Status.ONLY_WHEN: "partly", Status.FAILS: "no"}
    yield "## What the paper leaves out"
    yield ""
    yield "Verdicts (holds, holds only when, does not hold) with one number changed at a time."
    yield ""
    yield f"| | {' | '.join(claim.id for claim in CLAIMS)} |"
    yield "|" + "---|" * (1 + len(CLAIMS))
    for index, setting in enumerate(SENSITIVITY):
        cells = [marks[claim.judge(bandwidths, curves[claim.setup][index]).status] for claim in CLAIMS]
        yield f"| {setting} | {' | '.join(cells)} |"
    yield ""
    yield "Mean over bandwidths of cost / optimum: ACO-EAR, the same shared, SPINN-EAR."
    yield ""
    yield f"| | {' | '.join(curves)} |"
    yield "|" + "---|" * (1 + len(curves))
    for index, setting in enumerate(SENSITIVITY):
        cells = []
        for settings in curves.values():
            cost = {name: settings[index][name]["cost"] for name in (OPTIMUM, ACO, SHARED_ACO, SPINN)}
            cells.append(" / ".join(f"{np.mean(cost[name] / cost[OPTIMUM]):.4f}" for name in (ACO, SHARED_ACO, SPINN)))
        yield f"| {setting} | {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> None:
    """Measure, draw and judge."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    curves, splits = {}, {}
    for setup, env_id in SETUPS.items():
        env, _ = mec_jax.make(env_id)
        curves[setup] = measure(env, list(SENSITIVITY.values()), BANDWIDTHS)
        splits[setup] = optimal_splits(env, {}, BANDWIDTHS)
    command = shlex.join(["python", "benchmarks/reproduce/multi_exit.py", *argv])
    seconds = time.perf_counter() - start
    for claim, verdict in write_page(args.out, curves, splits, BANDWIDTHS, command, seconds).items():
        print(f"{claim.id}: {claim.words}: {verdict.status}")
    print(f"page: {args.out / 'README.md'}")


if __name__ == "__main__":
    main()
