"""A sweep as one interactive page, to be opened without a network."""

import math
from typing import Any

from algos.sweep.extras import needs
from algos.sweep.pictures import curves, measure_name, problem_name
from algos.sweep.space import Axis, written
from algos.sweep.study import Sweep
from mec_jax.files import write_text

__all__ = ["PAGE", "write_page"]

PAGE = "sweep.html"


def write_page(sweep: Sweep) -> str:
    """Write it to the sweep's folder; the name of the file.

    Raises:
        ValueError: If plotly is not installed.
    """
    graphs = needs("plotly.graph_objects", "the interactive page")
    figures = []
    for problem in range(len(sweep.study.problems)):
        figures += [_choices(graphs, sweep, problem), _learning(graphs, sweep, problem)]
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=place == 0, default_height="460px")
        for place, figure in enumerate(figures)
    ]
    title = f"{sweep.study.base.algorithm} on {sweep.study.base.env_id}"
    head = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>'
    write_text(sweep.folder / PAGE, f"{head}<body>{''.join(parts)}</body></html>\n")
    return PAGE


def _choices(graphs: Any, sweep: Sweep, problem: int) -> Any:
    """Parallel coordinates: brush an axis to see what is left."""
    trials = [trial for trial in sweep.finished() if math.isfinite(sweep.mean(trial, problem))]
    worth = [sweep.mean(trial, problem) for trial in trials]
    dimensions = [_dimension(axis, [sweep.choice(trial)[axis.name] for trial in trials]) for axis in _axes(sweep)]
    dimensions.append({"label": measure_name(sweep, problem), "values": worth})
    line = {"color": worth, "colorscale": "Viridis", "showscale": True}
    figure = graphs.Figure(graphs.Parcoords(dimensions=dimensions, line=line))
    figure.update_layout(title=f"{problem_name(sweep, problem)}: {measure_name(sweep, problem)} of each choice")
    return figure


def _axes(sweep: Sweep) -> tuple[Axis, ...]:
    return sweep.study.space.choices


def _dimension(axis: Axis, values: list) -> dict[str, object]:
    if axis.values:
        places = [axis.values.index(value) for value in values]
        texts = [written(value) for value in axis.values]
        return {"label": axis.name, "values": places, "tickvals": [*range(len(texts))], "ticktext": texts}
    if not axis.log:
        return {"label": axis.name, "values": values, "range": [axis.low, axis.high]}
    low, high = math.log10(axis.low), math.log10(axis.high)
    ticks = [low + (high - low) * i / 4 for i in range(5)]
    return {
        "label": axis.name,
        "values": [math.log10(value) for value in values],
        "range": [low, high],
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.2g}" for tick in ticks],
    }


def _learning(graphs: Any, sweep: Sweep, problem: int) -> Any:
    figure = graphs.Figure()
    for name, lines in curves(sweep, problem).items():
        error = {"type": "data", "symmetric": False, "array": lines.high - lines.mean}
        error["arrayminus"] = lines.mean - lines.low
        figure.add_scatter(x=lines.frames, y=lines.mean, error_y=error, name=name)
    figure.update_layout(
        title=f"{problem_name(sweep, problem)}: learning",
        xaxis_title="environment frames",
        yaxis_title=f"{measure_name(sweep, problem)} on the evaluation scenario",
    )
    return figure
