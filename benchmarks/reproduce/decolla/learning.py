"""Fig. 5 of Huang et al. 2022 (DeColla): how DRL-ES and DRL converge, and how long a decision takes.

The curves are those of `benchmarks.learning.curves`; the first iterations, in which most is learned, are run again
here and evaluated more often.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from algos import drl_es
from algos.actor import actor_policy
from algos.export import export_policy
from algos.runs import RunConfig, as_arrays
from benchmarks.harness.results import RESULTS
from benchmarks.harness.verdicts import Status, Verdict
from mec_jax import make, static_arguments
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.policy import load_policy
from mec_jax.solvers import neuron_allocation as solvers
from mec_jax.statistics import bootstrap_interval

LEARNING = RESULTS / "learning"
ENVIRONMENTS = ("NeuronAllocation-v0", "NeuronAllocation-Dynamic-v0")
ES, DRL = "DRL-ES", "DRL"
PRESETS = {ES: "slots", DRL: "slots_drl"}
EPISODES = 16
"""Of each evaluation in `benchmarks.learning.curves`; the rulers play the same ones."""

SHORTEST, RULERS = "Shortest completion", ("Random", "Average", "Least")
EARLY, CHUNK = 100, 2
"""Iterations that are run again, and of each evaluation then."""

NEAR = 0.02  # a curve has converged where it is this near to shortest completion
CLAIMED = 2e-3  # s, of a decision
DECISIONS = 2000


@dataclass(frozen=True)
class Curves:
    """What was learned in one environment."""

    frames: Mapping[str, np.ndarray]  # by algorithm, [chunk]
    iterations: Mapping[str, np.ndarray]  # [chunk]
    slowdown: Mapping[str, np.ndarray]  # mean over pieces, [seed, chunk]
    rulers: Mapping[str, float]  # mean slowdown in the same episodes


def read_curves(env_id: str, folder: Path) -> Curves:
    """The curves in `folder` of an environment.

    Raises:
        FileNotFoundError: If they were not learned.
    """
    env, params = make(env_id)
    episodes = solvers.rulers(env, params, evaluation_keys(EPISODES)).episodes
    runs = {
        name: json.loads((folder / f"drl_es_{preset}_{env_id}.json").read_text()) for name, preset in PRESETS.items()
    }
    # The return is minus the sum of slowdowns over `reference_slowdown`.
    per_piece = float(params.reference_slowdown / env.num_decisions(params))
    frames, iterations, slowdown = {}, {}, {}
    for name, run in runs.items():
        late, curve = np.array(run["frames"]), np.array(run["curve"])
        each = late[0] / run["config"]["updates_per_chunk"]  # frames of an iteration
        early = first_returns(env_id, name, len(curve))
        done = CHUNK * np.arange(1, early.shape[1] + 1)
        later = late > done[-1] * each
        iterations[name] = np.concatenate([done, late[later] / each])
        frames[name] = iterations[name] * each
        slowdown[name] = -np.concatenate([early, curve[:, later]], axis=1) * per_piece
    return Curves(
        frames=frames,
        iterations=iterations,
        slowdown=slowdown,
        rulers={name: -float(np.mean(played.episode_return)) * per_piece for name, played in episodes.items()},
    )


def first_returns(env_id: str, name: str, seeds: int) -> np.ndarray:
    """Mean returns [seed, chunk] of the first iterations of the seeds 0, 1, ..."""
    env, params = make(env_id)
    config, hparams, _ = drl_es.PRESETS[PRESETS[name]]
    config, hparams = dataclasses.replace(config, updates_per_chunk=CHUNK), as_arrays(hparams)
    trainer, policy = drl_es.make_trainer(env, config), actor_policy(env, config, drl_es.ALGORITHM.deterministic)
    keys = evaluation_keys(EPISODES)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None, None))
    def go_on(state: drl_es.TrainState, hparams: drl_es.HParams, params: Any) -> tuple[drl_es.TrainState, jax.Array]:
        state, _ = trainer.run(state, hparams, params)
        played = play_episodes(env, params, policy, (drl_es.learned(state), params), keys)
        return state, jnp.mean(played.episode_return)

    state = jax.jit(jax.vmap(trainer.init, (None, None, 0)))(
        hparams, params, jax.vmap(jax.random.key)(jnp.arange(seeds))
    )
    returns = []
    for _ in range(EARLY // CHUNK):
        state, score = go_on(state, hparams, params)
        returns.append(np.asarray(score))
    return np.stack(returns, axis=1)


def until_near(curves: Curves, name: str, axis: Mapping[str, np.ndarray]) -> np.ndarray:
    """Where each seed's curve first comes within `NEAR` of shortest completion; infinite if never."""
    near = curves.slowdown[name] <= (1 + NEAR) * curves.rulers[SHORTEST]
    return np.where(near.any(1), axis[name][near.argmax(1)], np.inf)


def faster(curves: Curves, unit: str) -> Verdict:
    """Whether DRL-ES comes near shortest completion in fewer iterations, or frames."""
    axis = curves.iterations if unit == "iterations" else curves.frames
    es, drl = until_near(curves, ES, axis), until_near(curves, DRL, axis)
    text = f"within {NEAR:.0%} of shortest completion after {_span(es)} {unit}, DRL {_span(drl)} (medians of seeds)"
    return Verdict(Status.HOLDS if _median(es) < _median(drl) else Status.FAILS, text)


def _median(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.5, method="higher"))  # a seed's, so that one may be infinite


def _span(values: np.ndarray) -> str:
    low, middle, high = values.min(), _median(values), values.max()
    return f"{middle:,.0f} [{low:,.0f}, {high:,.0f}]"


def final(curves: Curves, name: str, last: int = 3) -> np.ndarray:
    """Mean slowdown of the last evaluations, by seed."""
    return curves.slowdown[name][:, -last:].mean(1)


def ends_better(curves: Curves, at: str) -> Verdict:
    """Whether DRL-ES has the smaller slowdown after all iterations, or after as many frames as DRL had."""
    drl, es = final(curves, DRL), final(curves, ES)
    if at == "frames":
        chunk = int(np.searchsorted(curves.frames[ES], curves.frames[DRL][-1]))
        es = curves.slowdown[ES][:, max(0, chunk - 2) : chunk + 1].mean(1)
    low, high = bootstrap_interval(es - drl, statistic=np.mean)
    text = f"slowdown {es.mean():.4f}, DRL {drl.mean():.4f}; difference {low:+.4f} to {high:+.4f}"
    if low <= 0 <= high:
        return Verdict(Status.FAILS, f"no difference: {text}")
    return Verdict(Status.HOLDS if high < 0 else Status.FAILS, text)


def beats_baselines(curves: Curves) -> Verdict:
    """Whether every seed of both is better than Random, Average and Least."""
    worst = max(final(curves, name).max() for name in (ES, DRL))
    best = min(RULERS, key=curves.rulers.__getitem__)
    text = f"worst seed {worst:.3f}; {', '.join(f'{name} {curves.rulers[name]:.3f}' for name in RULERS)}"
    return Verdict(Status.HOLDS if worst < curves.rulers[best] else Status.FAILS, text)


def least_is_better(curves: Curves) -> Verdict:
    """Least against Random and Average."""
    values = [curves.rulers[name] for name in RULERS]
    text = ", ".join(f"{name} {value:.3f}" for name, value in zip(RULERS, values, strict=True))
    return Verdict(Status.HOLDS if values[2] < min(values[:2]) else Status.FAILS, text)


def near_the_greedy(curves: Curves, within: float = 0.05) -> Verdict:
    """DRL-ES against shortest completion and the bound."""
    excess = final(curves, ES) / curves.rulers[SHORTEST] - 1
    bound = final(curves, ES).mean() / curves.rulers["Lower bound"] - 1
    text = f"{excess.mean():+.2%} (worst seed {excess.max():+.2%}); {bound:.2%} above the lower bound"
    return Verdict(Status.HOLDS if excess.max() <= within else Status.FAILS, text)


def decision_seconds(env_id: str) -> np.ndarray:
    """How long decisions of an exported policy take in NumPy, one observation at a time."""
    env, params = make(env_id)
    config, hparams, _ = drl_es.PRESETS["slots"]
    state = drl_es.make_trainer(env, config).init(as_arrays(hparams), params, jax.random.key(0))
    run = RunConfig("drl_es", env_id, static_arguments(env_id), {}, "slots", 0, config, hparams)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.npz"
        export_policy(path, run, drl_es.learned(state), 0, {})
        policy = load_policy(path)
    observation, seconds = np.asarray(env.reset(jax.random.key(0), params)[0]), []
    for _ in range(DECISIONS):
        begin = time.perf_counter()
        policy.act(observation)
        seconds.append(time.perf_counter() - begin)
    return np.array(seconds)


def quick_decisions(env_ids: Sequence[str]) -> Verdict:
    """The paper measures on a Raspberry Pi; this is the machine of the page."""
    seconds = {env_id: decision_seconds(env_id) for env_id in env_ids}
    text = ", ".join(
        f"{1e6 * statistics.median(values):.0f} us ({1e6 * np.quantile(values, 0.95):.0f} at most in 95 %) with "
        f"{make(env_id)[0].num_slots} slots"
        for env_id, values in seconds.items()
    )
    slowest = max(statistics.median(values) for values in seconds.values())
    return Verdict(Status.HOLDS if slowest <= CLAIMED else Status.FAILS, f"{text}, in NumPy on this machine")


def verdicts(curves: Mapping[str, Curves]) -> dict[tuple[str, str], Verdict]:
    """All claims; those on learning in each environment."""
    found: dict[tuple[str, str], Verdict] = {}
    for letter, (env_id, learned) in zip("abcdefgh", curves.items(), strict=False):
        where = "the testbed" if env_id == ENVIRONMENTS[0] else f"`{env_id}`"
        judged = {
            f"DRL-ES converges in fewer iterations than DRL, on {where}": faster(learned, "iterations"),
            f"In fewer environment frames, too (not in the paper), on {where}": faster(learned, "frames"),
            f"DRL-ES ends better than DRL after as many iterations, on {where}": ends_better(learned, "iterations"),
            f"After as many frames, too (not in the paper), on {where}": ends_better(learned, "frames"),
            f"DRL-ES and DRL beat Random, Average and Least, on {where}": beats_baselines(learned),
            f"Least beats Random and Average, on {where}": least_is_better(learned),
            f"DRL-ES is within 5 % of shortest completion (not in the paper), on {where}": near_the_greedy(learned),
        }
        found |= {(f"L{i}{letter}", words): verdict for i, (words, verdict) in enumerate(judged.items(), 1)}
    slots = ("NeuronAllocation-v0", "NeuronAllocation-Slots-v0")
    return found | {("L8", "A decision takes no more than 1 to 2 ms"): quick_decisions(slots)}


def notes(curves: Mapping[str, Curves]) -> list[str]:
    """How to read the figure."""
    first = next(iter(curves.values()))
    ratio = first.frames[ES][-1] / first.frames[DRL][-1]
    return [
        f"Mean and range of {len(first.slowdown[ES])} seeds, each evaluation {EPISODES} episodes, which the rulers "
        f"play, too. An iteration of DRL-ES has {ratio:.3g} times the frames of one of DRL, which is the same without "
        "children. The return is minus the mean slowdown but for a factor, so that Fig. 5b is Fig. 5a turned over. "
        "One network scores each device from the features of the piece and its own; the paper gives none. Figs. 5c "
        "and 5d need Raspberry Pis.",
        "",
    ]


def draw_curves(curves: Mapping[str, Curves]) -> Figure:
    """Slowdown against iterations and against frames, mean and range over seeds."""
    figure = Figure(figsize=(9.2, 3.6 * len(curves)), layout="constrained")
    grid = figure.subplots(len(curves), 2, squeeze=False)
    for row, (env_id, learned) in zip(grid, curves.items(), strict=True):
        for axes, axis, words in zip(
            row, (learned.iterations, learned.frames), ("iterations", "environment frames"), strict=True
        ):
            for name in PRESETS:
                values = learned.slowdown[name]
                (line,) = axes.plot(axis[name], values.mean(0), label=name)
                axes.fill_between(axis[name], values.min(0), values.max(0), alpha=0.2, color=line.get_color())
            for i, ruler in enumerate(("Random", "Average", SHORTEST, "Lower bound")):
                axes.axhline(learned.rulers[ruler], color=f"C{i + 2}", linestyle="--", linewidth=1, label=ruler)
            axes.set_xlabel(words)
            axes.set_ylabel("mean slowdown")
            axes.set_ylim(learned.rulers["Lower bound"] * 0.99, learned.rulers["Random"] * 1.02)
            axes.set_xscale("log")
            axes.set_title(env_id, fontsize="medium")
    grid[0, 1].legend(fontsize=7)
    return figure
