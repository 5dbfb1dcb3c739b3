"""Pictures of an episode of `MultiUEOffloading`: who computes, who sends on which channel, and how fast.

`draw_episode` and `animate_episode` make a Gantt chart of a recording, `write_episode` a file of either kind. No
display is needed.
"""

import os
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib import colormaps
from matplotlib.animation import PillowWriter
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from mec_jax.contracts import Chart
from mec_jax.envs.offloading import MultiUEOffloading, Params
from mec_jax.physics.frame import COMPUTING, FREE, TRANSMITTING
from mec_jax.render.offloading_recording import Recording, record_episode
from mec_jax.render.pictures import check_path, whole_picture

LEGIBLE_PHASES, LEGIBLE_FRAMES = 50, 12
"""Bars that a row of the Gantt chart may have for its numbers to be read, and frames for theirs."""

_BAR = 0.4
"""Half the height of a bar, in rows."""

_SMALL: dict[str, Any] = {"fontsize": 8, "frameon": False}
"""Style of legends."""


def draw_episode(recording: Recording, frames: tuple[int, int] | None = None, title: str = "") -> Figure:
    """Gantt chart of some frames, with the tasks left on the same time axis, above the course of the whole episode.

    A row is a UE. Grey bars compute, the darker the later the cut; coloured bars send. The height of those is the
    rate, so that their area is the bits sent; their pale part reaches up to the highest rate of the episode. A number
    is the cut point of the task that begins there.

    Args:
        recording: What to draw.
        frames: The first, counted from 0, and the one after the last. By default as many as are legible, from the
            second on: the first begins with tasks that the policy did not choose.
        title: Whose episode it is.

    Raises:
        ValueError: If there are no such frames.
    """
    if frames is None:
        first = min(1, len(recording.reward) - 1)
        stop = first + _legible_frames(recording, first)
    else:
        first, stop = _check_frames(recording, frames)
    chart = _Gantt(recording, title)
    chart.show(first, stop)
    return chart.figure


def animate_episode(
    recording: Recording,
    path: str | os.PathLike[str],
    frames: tuple[int, int] | None = None,
    title: str = "",
    pictures_per_frame: int = 8,
    max_pictures: int = 160,
    dpi: int = 80,
) -> None:
    """Write a GIF in which the chart of `draw_episode` moves through time.

    Args:
        recording: What to draw.
        path: File to write; it is replaced at once, when it is whole.
        frames: The first, counted from 0, and the one after the last; by default all.
        title: Whose episode it is.
        pictures_per_frame: At 10 pictures a second.
        max_pictures: A long episode moves faster, not longer.
        dpi: Pixels per inch; the figure is 11 inch wide.

    Raises:
        ValueError: If there are no such frames or the file cannot be written.
    """
    path = check_path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"animation {str(path)!r}: its name must end in .gif")
    first, stop = (0, len(recording.reward)) if frames is None else _check_frames(recording, frames)
    shown = min(_legible_frames(recording, first), stop - first)
    number = 1 + min((stop - first - shown) * pictures_per_frame, max_pictures - 1)
    chart = _Gantt(recording, title)
    writer = PillowWriter(fps=10)
    with whole_picture(path) as unfinished, writer.saving(chart.figure, str(unfinished), dpi):
        for start in np.linspace(first, stop - shown, number):
            chart.show(start, start + shown)
            writer.grab_frame()
            chart.figure.set_layout_engine("none")  # that of the first picture stays: nothing jumps


def write_episode(
    recording: Recording, path: str | os.PathLike[str], frames: tuple[int, int] | None = None, title: str = ""
) -> None:
    """Write the picture or, if the name ends in `.gif`, the animation.

    Args:
        recording: What to draw.
        path: File to write; it is replaced at once, when it is whole.
        frames: As in `draw_episode` or `animate_episode`.
        title: Whose episode it is.

    Raises:
        ValueError: If there are no such frames or the file cannot be written.
    """
    path = check_path(path)
    if path.suffix.lower() == ".gif":
        animate_episode(recording, path, frames, title)
        return
    figure = draw_episode(recording, frames, title)
    with whole_picture(path) as unfinished:
        figure.savefig(unfinished, dpi=120)


class OffloadingChart:
    """What `MultiUEOffloading` declares."""

    record = staticmethod(record_episode)
    write = staticmethod(write_episode)


CHART: Chart[MultiUEOffloading, Params, Recording] = OffloadingChart()


def _check_frames(recording: Recording, frames: tuple[int, int]) -> tuple[int, int]:
    first, stop = frames
    number = len(recording.reward)
    if not 0 <= first < stop <= number:
        raise ValueError(f"frames {first}:{stop}: the episode has {number}, 0:{number}, and at least one must be drawn")
    return first, stop


def _legible_frames(recording: Recording, first: int) -> int:
    """Number of frames from the first on that are legible; at least 1."""
    starts = [recording.frame[_phases(recording, ue).first] for ue in range(recording.mode.shape[1])]
    number = min(len(recording.reward) - first, LEGIBLE_FRAMES)
    frames = np.arange(first, first + number)
    bars = np.max([(start[:, None] == frames).sum(axis=0).cumsum() for start in starts], axis=0)
    return int(np.clip(np.searchsorted(bars, LEGIBLE_PHASES, "right"), 1, number))


class _Phases(NamedTuple):
    """The computing and transmitting of one UE; one phase is often many events, and may go over a frame's end."""

    first: Int[np.ndarray, " phase"]  # event it starts with
    last: Int[np.ndarray, " phase"]  # event it ends with
    begins_task: Bool[np.ndarray, " phase"]
    ends_task: Bool[np.ndarray, " phase"]


def _phases(recording: Recording, ue: int) -> _Phases:
    mode, left = recording.mode[:, ue], recording.tasks_left[:, ue]
    new_task = np.diff(left) != 0
    changes = new_task | (np.diff(mode) != 0)
    first = np.flatnonzero(np.r_[True, changes])
    last = np.flatnonzero(np.r_[changes, True])
    # A terminated episode ends with the last tasks; in a truncated one they are still in hand.
    begins, ends = np.r_[True, new_task][first], np.r_[new_task, recording.terminated][last]
    busy = mode[first] != FREE
    return _Phases(first[busy], last[busy], begins[busy], ends[busy])


class _Gantt:
    """A figure whose upper panels show some frames of the episode, and whose lower ones the whole."""

    def __init__(self, recording: Recording, title: str) -> None:
        self.recording = recording
        self.num_ues = recording.mode.shape[1]
        self.phases = [_phases(recording, ue) for ue in range(self.num_ues)]
        # Greys compute, colours send: however many there are, one is not taken for the other.
        self.cut_colours = colormaps["Greys"](np.linspace(0.1, 0.5, recording.num_points))
        self.channel_colours = colormaps["viridis"](np.linspace(0.25, 0.75, recording.num_channels))
        self.ue_colours = colormaps["Dark2"](np.arange(self.num_ues) % 8)
        self.fastest = max(float(recording.rate.max()), 1.0)
        self.drawn: list[Artist] = []

        rows = 0.5 * self.num_ues
        self.figure = Figure(figsize=(11, 4.5 + rows), layout="constrained")
        panels = self.figure.subplot_mosaic(
            [["legend", "legend"], ["gantt", "gantt"], ["tasks", "tasks"], ["episode", "cost"]],
            height_ratios=[0.1, rows, 1.2, 1.2],
        )
        self.gantt, self.tasks, self.episode, self.cost = (
            panels[name] for name in ("gantt", "tasks", "episode", "cost")
        )
        self._draw_legend(panels["legend"])
        self._prepare_rows()
        self._draw_tasks_left(self.tasks)
        self.tasks.legend(loc="center left", bbox_to_anchor=(1, 0.5), ncols=-(-self.num_ues // 6), **_SMALL)
        self._draw_tasks_left(self.episode)
        self._draw_cost()
        summary = _summary(recording)
        self.figure.suptitle(f"{title}: {summary}" if title else summary, fontsize=11)

    def show(self, first: float, stop: float) -> None:
        """Draw the upper panels anew, from one time to another, both counted in frames."""
        while self.drawn:
            self.drawn.pop().remove()
        recording = self.recording
        start, end = first * recording.frame_time, stop * recording.frame_time
        for ue in range(self.num_ues):
            self._draw_row(ue, start, end)
        frames = np.arange(int(first), int(np.ceil(stop)), 1 + int(stop - first) // (2 * LEGIBLE_FRAMES))
        left, right = np.maximum(frames, first), np.minimum(frames + 1, stop)
        names = [f"frame {frame}" if part > 0.3 else "" for frame, part in zip(frames, right - left, strict=True)]
        self.gantt.set_xticks((left + right) / 2 * recording.frame_time, names)
        for axes in (self.gantt, self.tasks):
            axes.set_xlim(start, end)
            lines = np.append(frames, int(stop)) * recording.frame_time
            self.drawn += [axes.axvline(x, color="0.4", linestyle=(0, (4, 3)), linewidth=0.8) for x in lines]
        tasks_left = recording.tasks_left[(recording.end > start) & (recording.start < end)]
        self.tasks.set_ylim(max(tasks_left.min() - 1, 0), tasks_left.max() + 1)
        self.drawn += [
            axes.axvspan(start, end, color="gold", alpha=0.35, zorder=3) for axes in (self.episode, self.cost)
        ]

    def _draw_row(self, ue: int, start: float, end: float) -> None:
        recording = self.recording
        phases = self.phases[ue]
        seen = (recording.end[phases.last] > start) & (recording.start[phases.first] < end)
        first, last, begins, ends = (column[seen] for column in phases)
        left, right, cut = recording.start[first], recording.end[last], recording.cut[first, ue]
        computes = recording.mode[first, ue] == COMPUTING
        sent_on = self.channel_colours[recording.channel[first, ue]]
        self._draw_bars(ue, left[computes], right[computes], 1, self.cut_colours[cut[computes]])
        self._draw_bars(ue, left[~computes], right[~computes], 1, sent_on[~computes], alpha=0.25)

        sending = (recording.end > start) & (recording.start < end) & (recording.mode[:, ue] == TRANSMITTING)
        self._draw_bars(
            ue,
            recording.start[sending],
            recording.end[sending],
            recording.rate[sending, ue] / self.fastest,
            self.channel_colours[recording.channel[sending, ue]],
            edgecolor="none",
        )

        visible_left, visible_right = np.maximum(left, start), np.minimum(right, end)
        wide = begins & (visible_right - visible_left > 0.008 * (end - start))
        for phase in np.flatnonzero(wide):
            middle = (visible_left[phase] + visible_right[phase]) / 2
            label = self.gantt.text(middle, ue, str(cut[phase]), ha="center", va="center_baseline", fontsize=7)
            label.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
            self.drawn.append(label)
        finished = right[ends]
        row = np.full(len(finished), ue - _BAR - 0.04)
        self.drawn.append(self.gantt.scatter(finished, row, marker="v", s=9, color="k", linewidth=0))

    def _draw_bars(
        self,
        ue: int,
        left: Float[np.ndarray, " bar"],
        right: Float[np.ndarray, " bar"],
        height: Float[np.ndarray, " bar"] | float,
        colours: Float[np.ndarray, "bar rgba"],
        **style: Any,
    ) -> None:
        base = np.full(len(left), ue + _BAR)
        top = base - 2 * _BAR * height
        corners = np.stack([[left, base], [left, top], [right, top], [right, base]]).transpose(2, 0, 1)
        style = {"edgecolor": "white", "linewidth": 0.5, **style}
        self.drawn.append(self.gantt.add_collection(PolyCollection(list(corners), facecolor=colours, **style)))

    def _prepare_rows(self) -> None:
        axes, ues = self.gantt, np.arange(self.num_ues)
        axes.set_ylim(self.num_ues - 0.5, -0.6)
        axes.set_yticks(ues, [f"UE {ue}" for ue in ues])
        for label, colour in zip(axes.get_yticklabels(), self.ue_colours, strict=True):
            label.set(color=colour, fontweight="bold")
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        rate = axes.secondary_yaxis("right")
        rate.set_yticks(
            np.r_[ues + _BAR, ues - _BAR], ["0"] * self.num_ues + [f"{self.fastest / 1e6:.3g}"] * self.num_ues
        )
        rate.tick_params(length=2, labelsize=7)
        rate.spines[:].set_visible(False)
        rate.set_ylabel("rate (Mbit/s)")

    def _draw_tasks_left(self, axes: Axes) -> None:
        recording = self.recording
        edges = np.r_[recording.start, recording.end[-1], len(recording.reward) * recording.frame_time]
        at_end = np.where(recording.terminated, 0, recording.tasks_left[-1])
        for ue, colour in enumerate(self.ue_colours):
            tasks_left = np.r_[recording.tasks_left[:, ue], at_end[ue]]
            dashes = ("-", "--", ":")[ue // 8 % 3]
            axes.stairs(tasks_left, edges, baseline=None, color=colour, linestyle=dashes, label=f"UE {ue}")
        axes.set(xlabel="time (s)", ylabel="tasks left", xlim=(0, edges[-1]), ylim=(0, None))
        axes.locator_params(axis="y", integer=True)

    def _draw_cost(self) -> None:
        recording = self.recording
        number = len(recording.reward)
        # Of a long episode, means over so many frames that the steps can be told apart.
        edges = np.r_[np.arange(0, number, 1 + number // 100), number]
        finished, energy = (
            np.add.reduceat(column, edges[:-1]) / np.diff(edges) for column in (recording.finished, recording.energy)
        )
        edges = edges * recording.frame_time
        self.cost.stairs(finished, edges, fill=True, color="0.7")
        self.cost.set(xlabel="time (s)", ylabel="tasks per frame", xlim=(0, edges[-1]))
        self.cost.set_ylim(0, 1.1 * max(finished) or 1)
        joules = self.cost.twinx()
        joules.stairs(energy, edges, baseline=None, color="tab:red", linewidth=1.5)
        joules.set_ylim(0, 1.1 * max(energy) or 1)
        joules.set_ylabel("J per frame", color="tab:red")
        joules.tick_params(axis="y", colors="tab:red")

    def _draw_legend(self, axes: Axes) -> None:
        recording = self.recording

        def heading(text: str) -> Artist:
            return Line2D([], [], linestyle="none", label=text)

        handles = [heading("computes up to")]
        ends = {0: " = input", recording.num_points - 1: " = local"}
        for cut in np.unique(recording.cut[recording.mode != FREE]):
            handles.append(Patch(color=self.cut_colours[cut], label=f"cut {cut}{ends.get(cut, '')}"))
        if (sending := recording.mode == TRANSMITTING).any():
            handles.append(heading("sends on"))
        for channel in np.unique(recording.channel[sending]):
            handles.append(Patch(color=self.channel_colours[channel], label=f"channel {channel}"))
        handles.append(Line2D([], [], linestyle="none", marker="v", color="k", markersize=4, label="task finished"))
        style = _SMALL | {"fontsize": min(8, 88 / len(handles))}  # one line, whatever their number
        legend = axes.legend(
            handles=handles, loc="center", ncols=len(handles), columnspacing=1, handlelength=1, **style
        )
        legend.set_in_layout(False)  # it may be as wide as the figure
        axes.axis("off")


def _summary(recording: Recording) -> str:
    frames, tasks = len(recording.reward), max(int(recording.finished.sum()), 1)
    milliseconds = 1e3 * frames * recording.frame_time * recording.mode.shape[1] / tasks
    millijoules = 1e3 * float(recording.energy.sum()) / tasks
    end = "" if recording.terminated else ", cut off"
    return (
        f"return {recording.reward.sum():.2f} in {frames} frames{end}; "
        f"per task {milliseconds:.1f} ms (whole frames), {millijoules:.1f} mJ"
    )
