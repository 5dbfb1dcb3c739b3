"""Pictures of an episode of `CompressedInference`: what is pruned, where the network is cut, what is sent, and how long
it takes. No display is needed.
"""

import os
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree
from matplotlib.animation import PillowWriter
from matplotlib.figure import Figure

from mec_jax.contracts import Chart
from mec_jax.envs.compressed_inference import CompressedInference, Params, State
from mec_jax.episodes import Policy, start_key, step_keys
from mec_jax.physics.compression import Strategy, latency
from mec_jax.profiles.compression import NO_CODEC, SETTINGS
from mec_jax.render.pictures import check_path, whole_picture

__all__ = ["CHART", "Recording", "draw_episode", "record_episode", "write_episode"]

_PARTS = ("device", "link", "server")
_COLOURS = {"device": "C0", "link": "C1", "server": "C2"}


class Recording(NamedTuple):
    """One episode, decision by decision; what was not decided yet is as it was and all local."""

    units: tuple[str, ...]  # names
    points: tuple[str, ...]  # names of the cuts
    device_speed: float  # FLOP/s
    rate: float  # bit/s
    budget: float  # accuracy that may be lost
    base: float  # accuracy of the network as it was
    sparsity: Float[np.ndarray, "decision unit"]
    cut: Int[np.ndarray, " decision"]
    codec: Float[np.ndarray, "decision setting"]
    accuracy: Float[np.ndarray, " decision"]  # predicted
    latency: Float[np.ndarray, " decision"]  # s, of what would be deployed
    times: Float[np.ndarray, "decision cut 3"]  # s at device, link and server, of each cut without a codec
    decided: Float[np.ndarray, "decision 3"]  # the same of what was decided, with its codec
    reward: Float[np.ndarray, " decision"]


def record_episode(
    env: CompressedInference, params: Params, policy: Policy, policy_params: PyTree, key: Array
) -> Recording:
    """Play the episode that `mec_jax.episodes.play_episode` plays with the same arguments, and note all of it.

    Args:
        env: The environment; static.
        params: Its parameters.
        policy: `(policy_params, observation, key) -> action`; static.
        policy_params: What the policy reads.
        key: Key of the episode, as one of `evaluation_keys`.

    Raises:
        ValueError: If the environment is another.
    """
    if not isinstance(env, CompressedInference):
        raise ValueError(f"environment {env.name} cannot be drawn: only a CompressedInference can")
    played = jax.device_get(_play(env, policy, env.bounded(params), policy_params, key))
    state, reward, over, info, times, decided = played
    length = int(np.argmax(over)) + 1
    some: Any = jax.tree.map(lambda x: x[:length], (state, reward, info, times, decided))
    state, reward, info, times, decided = some
    assert env.cuts is not None
    return Recording(
        units=tuple(unit.name for unit in env.network.units),
        points=env.cuts.profiles[0].points,
        **{name: float(value[0]) for name, value in state.situation._asdict().items()},
        base=float(env.model.base),
        sparsity=state.sparsity,
        cut=state.cut,
        codec=state.codec,
        accuracy=info["accuracy"],
        latency=info["latency"],
        times=np.stack(times, axis=-1),
        decided=np.stack(decided, axis=-1),
        reward=reward,
    )


@partial(jax.jit, static_argnames=("env", "policy"))
def _play(env: CompressedInference, policy: Policy, params: Params, policy_params: PyTree, key: Array) -> tuple:
    def step(carry: tuple, _: None) -> tuple[tuple, tuple]:
        observation, state, key = carry
        key, policy_key, step_key = step_keys(key)
        action = policy(policy_params, observation, policy_key)
        observation, state, reward, terminated, info = env.step_env(step_key, state, action, params)
        over = terminated | env.is_truncated(state, params)
        now: State = state
        times = env.times(now.situation, now.sparsity, params)
        strategy = Strategy(now.sparsity, now.cut, now.codec)
        link = now.situation.device_speed, now.situation.rate
        decided = latency(env.costs, strategy, *link, params.server_speed)
        return (observation, state, key), (state, reward, over, info, times, decided)

    key, reset_key = start_key(key)
    return jax.lax.scan(step, (*env.reset_env(reset_key, params), key), length=env.num_decisions)[1]


def draw_episode(recording: Recording, decisions: int | None = None, title: str = "") -> Figure:
    """What is decided after some decisions: sparsities, predicted accuracy, and what each cut takes.

    Args:
        recording: What to draw.
        decisions: How many, from the first; all if absent.
        title: Whose episode it is.
    """
    count = len(recording.reward) if decisions is None else decisions
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    pruned, accurate, cuts = figure.subplot_mosaic([["pruned", "accurate"], ["cuts", "cuts"]]).values()
    now = count - 1

    place = np.arange(len(recording.units))
    pruned.bar(place, recording.sparsity[now], color="0.5")
    pruned.set_xticks(place, recording.units, rotation=30, ha="right", fontsize=8)
    pruned.set(ylim=(0, 1), ylabel="sparsity")

    steps = np.arange(len(recording.reward) + 1)
    accuracy = np.r_[recording.base, recording.accuracy[:count]]
    accurate.plot(steps[: count + 1], accuracy, marker="o", markersize=3, color="C3")
    accurate.axhline(recording.base - recording.budget, color="0.3", linestyle="--", linewidth=1, label="budget")
    accurate.set(xlabel="decisions", ylabel="predicted accuracy", xlim=(-0.3, steps[-1] + 0.3))
    accurate.set_ylim(min(accuracy.min(), recording.base - recording.budget) - 0.01, recording.base + 0.01)
    accurate.legend(loc="best", fontsize=8, frameon=False)

    _draw_cuts(cuts, recording, now)
    summary = _summary(recording, now)
    figure.suptitle(f"{title}: {summary}" if title else summary, fontsize=11)
    return figure


def _draw_cuts(axes: Any, recording: Recording, now: int) -> None:
    """Stacked times of each cut without a codec, and beside them of what is decided."""
    place = np.arange(len(recording.points))
    bottom = np.zeros(len(recording.points) + 1)
    both = np.concatenate([recording.times[now], recording.decided[now][None]])
    for part, column in zip(_PARTS, both.T, strict=True):
        axes.bar([*place, place[-1] + 2], column, bottom=bottom, color=_COLOURS[part], label=part, width=0.8)
        bottom += column
    every = max(1, len(recording.points) // 25)  # so many names are legible
    axes.set_xticks(
        [*place[::every], place[-1] + 2],
        [*recording.points[::every], "decided"],
        rotation=45,
        ha="right",
        fontsize=7,
    )
    axes.axvline(recording.cut[now], color="k", linestyle=":", linewidth=1, label="cut")
    # What takes a hundred times the best would hide the others.
    axes.set(ylabel="s", ylim=(0, 1.05 * min(bottom.max(), 20 * bottom.min())))
    axes.legend(loc="upper right", fontsize=8, frameon=False)


def _summary(recording: Recording, now: int) -> str:
    lost = recording.base - recording.accuracy[now]
    kept = "" if lost <= recording.budget else ", too much: it is deployed as it was"
    codec = ", ".join(
        f"{setting.name.replace('_', ' ')} {value:.3g}"
        for setting, value, usual in zip(SETTINGS, recording.codec[now], NO_CODEC, strict=True)
        if value != usual
    )
    return (
        f"{recording.device_speed / 1e9:.3g} GFLOP/s, {recording.rate / 1e6:.3g} Mbit/s, budget "
        f"{recording.budget:.1%}\ncut {recording.points[recording.cut[now]]}, {codec or 'no codec'}: "
        f"{1e3 * recording.latency[now]:.3g} ms, accuracy {-lost:+.1%}{kept}"
    )


def write_episode(
    recording: Recording, path: str | os.PathLike[str], frames: tuple[int, int] | None = None, title: str = ""
) -> None:
    """Write the picture after the last decision or, if the name ends in `.gif`, decision by decision.

    Args:
        recording: What to draw.
        path: File to write; it is replaced at once, when it is whole.
        frames: The first decision, counted from 0, and the one after the last; by default all.
        title: Whose episode it is.

    Raises:
        ValueError: If there are no such decisions or the file cannot be written.
    """
    path = check_path(path)
    number = len(recording.reward)
    first, stop = (0, number) if frames is None else frames
    if not 0 <= first < stop <= number:
        raise ValueError(f"frames {first}:{stop}: the episode has {number}, 0:{number}, and at least one must be drawn")
    if path.suffix.lower() != ".gif":
        with whole_picture(path) as unfinished:
            draw_episode(recording, stop, title).savefig(unfinished, dpi=120)
        return
    figure = draw_episode(recording, first + 1, title)
    writer = PillowWriter(fps=2)
    with whole_picture(path) as unfinished, writer.saving(figure, str(unfinished), 80):
        for count in range(first + 1, stop + 1):
            writer.fig = draw_episode(recording, count, title)
            writer.grab_frame()


class CompressedChart:
    """What `CompressedInference` declares."""

    record = staticmethod(record_episode)
    write = staticmethod(write_episode)


CHART: Chart[CompressedInference, Params, Recording] = CompressedChart()
