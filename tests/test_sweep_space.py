"""What may be swept, how it is written, and what is proposed."""

import ast
import dataclasses
import json
import math
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st

from algos.cli.sweep import command as sweep_command
from algos.run_config import RunConfig, new_run
from algos.sweep.call import study_of
from algos.sweep.proposals import SAMPLERS, check_sampler, propose, told
from algos.sweep.space import Axis, Space, space, with_point, written

OFFLOADING = "MultiUEOffloading-v0"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def base() -> RunConfig:
    return new_run("mahppo", OFFLOADING, static={"num_ues": 2})


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("hparams.actor_lr=log:1e-4..1e-2", Axis("hparams.actor_lr", (), 1e-4, 1e-2, log=True)),
        ("hparams.actor-lr=0..1", Axis("hparams.actor_lr", (), 0.0, 1.0)),
        ("hparams.clip=0.1..0.3:3", Axis("hparams.clip", (0.1, 0.2, 0.3))),
        ("hparams.actor_lr=log:1e-4..1e-2:3", Axis("hparams.actor_lr", (1e-4, 1e-3, 1e-2))),
        ("hparams.max_grad_norm=0.5,inf", Axis("hparams.max_grad_norm", (0.5, math.inf))),
        ("hparams.clip=0.2..0.2", Axis("hparams.clip", (0.2,))),
        ("config.trunk=64x32,128,none", Axis("config.trunk", ((64, 32), (128,), ()))),
        ("config.num_envs=log:16..64", Axis("config.num_envs", (), 16, 64, log=True, whole=True)),
        ("config.num_envs=16..18:3", Axis("config.num_envs", (16, 17, 18))),
        ("config.inputs=state,hinges", Axis("config.inputs", ("state", "hinges"))),
        ("params.beta=0.1, 0.47", Axis("params.beta", (0.1, 0.47))),
        ("params.tasks_poisson=true,false", Axis("params.tasks_poisson", (True, False))),
        ("params.beta=0.1..0.5:2", Axis("params.beta", (0.1, 0.5))),
        ("static.num_ues=2,3", Axis("static.num_ues", (2, 3))),
        ("static.num_ues=2..4:3", Axis("static.num_ues", (2, 3, 4))),
        ("config.num_envs=16..16", Axis("config.num_envs", (16,))),
        ("static.profile=resnet18,vgg11", Axis("static.profile", ("resnet18", "vgg11"))),
    ],
)
def test_a_text_is_an_axis_and_an_axis_such_a_text(base: RunConfig, text: str, axis: Axis) -> None:
    found = space(base, [text]).axes
    assert found == (axis,)
    assert space(base, [axis.text()]).axes == found


def test_values_of_python_are_axes_too(base: RunConfig) -> None:
    over = {"params.beta": np.array([0.1, 1.0]), "config.trunk": [[64, 32], (128,)], "hparams.clip": 0.3}
    found = space(base, over)
    assert found.choices == (Axis("config.trunk", ((64, 32), (128,))), Axis("hparams.clip", (0.3,)))
    assert found.problems == (Axis("params.beta", (0.1, 1.0)),)
    assert all(type(value) is float for value in found.problems[0].values)


@pytest.mark.parametrize(
    ("over", "said"),
    [
        (["actor_lr=1"], "did you mean 'hparams.actor_lr'?"),
        (["hparams.actr_lr=1"], "did you mean 'hparams.actor_lr'?"),
        (["hparams.sigma=1"], "hparams.sigma can't be swept with mahppo on MultiUEOffloading-v0"),
        (["params.betta=1"], "did you mean 'params.beta'?"),
        (["hparams.clip"], "'hparams.clip' has no =: write NAME=VALUES"),
        (["hparams.clip="], "write values with commas between, or a range LOW..HIGH"),
        (["hparams.clip=0.1,,0.2"], "write values with commas between"),
        (["hparams.clip=0.3..0.1"], "the range must go up: swap its ends"),
        (["hparams.clip=0.1..0.1:3"], "the range must go up"),
        (["hparams.clip=log:0..1"], "a logarithmic range begins above 0, not at 0"),
        (["hparams.clip=0.1..0.2:0"], "0 is no count from 1 to"),
        (["hparams.clip=0.1..0.2:1e99"], "1e99 is no count"),
        (["hparams.clip=0.1..x"], "hparams.clip: 'x' is no number"),
        (["hparams.clip=nan"], "hparams.clip: 'nan' is no number"),
        (["hparams.clip=1..2..3"], "'2..3' is no number"),
        (["hparams.gamma=0.9..1.5"], "hparams.gamma is 1.5: it must be a number from 0 to 1"),
        (["config.num_envs=1.5"], "config.num_envs is 1.5: it must be a whole number"),
        (["config.inputs=hinge"], "did you mean 'hinges'?"),
        (["config.trunk=64x-1"], "config.trunk is (64, -1)"),
        (["params.beta=-1"], "params.beta is -1"),
        (["params.beta=0.1..1"], "params.beta is a problem, not a choice"),
        (["static.num_ues=0"], "static.num_ues=0: "),
        (["static.num_ues=2..4"], "static.num_ues is a problem, not a choice"),
        (["static.num_ues=2..5:3"], "static.num_ues=3.5: "),
        (["config.num_envs=1.5..4"], "it takes whole numbers"),
        ({"hparams.clip": []}, "hparams.clip has no values"),
        ("hparams.clap=0.1", "did you mean 'hparams.clip'?"),
        (["static.num_uez=1"], "did you mean 'static.num_ues'?"),
        (["hparams.clip=0.1", "hparams.clip=0.2"], "hparams.clip is given twice"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_runs(base: RunConfig, over: Any, said: str) -> None:
    with pytest.raises(ValueError) as error:
        space(base, over)
    assert said in str(error.value)


def test_numbers_of_foreign_environments_are_problems() -> None:
    found = space(new_run("ppo", "Pendulum-v1"), ["params.g=9.81,1.62"])
    assert found.problem_points() == [{"params.g": 9.81}, {"params.g": 1.62}]
    with pytest.raises(ValueError, match=r"params\.gravity can't be swept"):
        space(new_run("ppo", "Pendulum-v1"), ["params.gravity=1"])
    found = space(new_run("ppo", "CartPole-v1"), ["params.gravity=9,9.8", "params.max_steps_in_episode=100..200:3"])
    assert found.axes[1].values == (100, 150, 200)
    with pytest.raises(ValueError, match=r"params\.gravity is inf: it must be a number and finite"):
        space(new_run("ppo", "CartPole-v1"), ["params.gravity=inf"])


def test_whole_numbers_are_of_the_program_of_others() -> None:
    """Programs are compiled for the kinds of what they are given."""
    numbers: list[dict[str, Any]] = [{}, {"gravity": 9, "max_steps_in_episode": 100.0}, {"gravity": 9.8}]
    params = [new_run("ppo", "CartPole-v1", params=given).make_env()[1] for given in numbers]
    kinds = [[type(value) for value in vars(each).values()] for each in params]
    assert kinds[0] == kinds[1] == kinds[2]


def test_nothing_is_written_as_a_constructor_reads_it() -> None:
    base = new_run("drl_es", "NeuronAllocation-v0")
    (axis,) = space(base, {"static.num_devices": [None, 3]}).axes
    assert space(base, [axis.text()]).axes == (axis,)


def test_a_point_changes_what_it_names_and_nothing_else(base: RunConfig) -> None:
    run = with_point(
        base, {"hparams.clip": 0.3, "config.trunk": (8,), "params.beta": 1.0, "static.num_ues": 3, "seed": 7}
    )
    assert (run.hparams.clip, run.config.trunk, run.env_params, run.env_static["num_ues"]) == (
        0.3,
        (8,),
        {"beta": 1.0},
        3,
    )
    assert run.seed == 7
    back = dataclasses.replace(
        run, seed=0, config=base.config, hparams=base.hparams, env_params=base.env_params, env_static=base.env_static
    )
    assert back == base
    with pytest.raises(ValueError, match=r"'hparams\.clips' is no field of a run"):
        with_point(base, {"hparams.clips": 0.3})
    with pytest.raises(ValueError, match="clip is -1"):
        with_point(base, {"hparams.clip": -1.0})


@given(
    low=st.floats(1e-6, 1e3), width=st.floats(1.001, 1e6), share=st.floats(0, 1, exclude_max=True), log=st.booleans()
)
def test_what_is_drawn_is_in_the_range_and_grows_with_the_share(
    low: float, width: float, share: float, log: bool
) -> None:
    axis = Axis("x", (), low, low * width, log)
    assert low <= axis.at(share) <= low * width
    assert axis.at(share / 2) <= axis.at(share)


@given(low=st.integers(1, 50), more=st.integers(1, 50), log=st.booleans())
def test_whole_numbers_are_whole_and_their_ends_are_reached(low: int, more: int, log: bool) -> None:
    axis = Axis("x", (), low, low + more, log, whole=True)
    found = [axis.at(i / 1000) for i in range(1000)]
    assert all(type(value) is int for value in found)
    assert (found[0], found[-1]) == (low, low + more)


RANGES = Space(
    (
        Axis("hparams.a", (), 1e-4, 1e-2, log=True),
        Axis("hparams.b", (0.1, 0.2)),
        Axis("config.c", (), 1, 9, whole=True),
    ),
    (),
)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_what_is_asked_in_parts_is_what_is_asked_at_once(sampler: str) -> None:
    """Sobol points and random ones; TPE asks by what it was told, so the same history gives the same choices."""
    rest = [(choice, float(place)) for place, choice in enumerate(propose(sampler, RANGES, 3, [], 5))]
    again = propose(sampler, RANGES, 3, rest, 4)
    assert again == propose(sampler, RANGES, 3, rest, 4)
    if sampler != "tpe":
        assert [choice for choice, _ in rest] + again == propose(sampler, RANGES, 3, [], 9)
    assert propose(sampler, RANGES, 4, rest, 4) != again
    for choice in again:
        assert 1e-4 <= choice["hparams.a"] <= 1e-2
        assert choice["hparams.b"] in (0.1, 0.2)
        assert choice["config.c"] in range(1, 10)


def test_sobol_points_fill_a_range_more_evenly_than_random_ones() -> None:
    line = Space((Axis("hparams.a", (), 0.0, 1.0),), ())

    def widest(sampler: str) -> float:
        found = sorted(choice["hparams.a"] for choice in propose(sampler, line, 0, [], 64))
        return max(np.diff([0.0, *found, 1.0]))

    assert widest("sobol") <= 2 / 64
    assert widest("random") > 2 / 64


def test_tpe_finds_a_peak_that_random_search_does_not() -> None:
    """Of a smooth function with a narrow top, 60 trials each."""

    def peak(choice: dict[str, Any]) -> float:
        return -(math.log10(choice["hparams.a"] / 3e-3) ** 2) - abs(choice["config.c"] - 7)

    def best(sampler: str, seed: int) -> float:
        history: list[tuple[dict[str, Any], float]] = []
        while len(history) < 60:
            history += [(choice, peak(choice)) for choice in propose(sampler, RANGES, seed, history, 4)]
        return max(value for _, value in history)

    assert np.mean([best("tpe", seed) for seed in range(5)]) > np.mean([best("random", seed) for seed in range(5)])


def test_the_grid_has_every_choice_once() -> None:
    finite = Space((Axis("hparams.a", (1.0, 2.0)), Axis("hparams.b", (3.0, 4.0, 5.0))), ())
    found = propose("grid", finite, 0, [], 6)
    assert len(found) == len({tuple(choice.values()) for choice in found}) == 6
    assert propose("grid", finite, 0, [(choice, 0.0) for choice in found[:4]], 2) == found[4:]
    assert check_sampler("grid", finite, None) == 6
    with pytest.raises(ValueError, match=r"a grid has values: give hparams\.a=log:0\.0001\.\.0\.01 a count"):
        RANGES.grid()
    with pytest.raises(ValueError, match="say how many points"):
        check_sampler("sobol", RANGES, None)


@pytest.mark.parametrize(
    ("scores", "as_told"),
    [([1.0, math.nan, 0.5], [1.0, 0.5, 0.5]), ([math.nan], [0.0]), ([-math.inf, 2.0], [2.0, 2.0]), ([], [])],
)
def test_what_diverged_is_told_as_the_worst(scores: Sequence[float], as_told: Sequence[float]) -> None:
    assert told(scores) == as_told


@pytest.mark.parametrize("value", [0.1, 3, True, (64, 32), (), "hinges"])
def test_a_value_is_written_as_it_is_read(base: RunConfig, value: Any) -> None:
    names = {float: "hparams.clip", int: "config.num_envs", bool: "params.tasks_poisson", tuple: "config.trunk"}
    name = names.get(type(value), "config.inputs")
    assert space(base, [f"{name}={written(value)}"]).axes[0].values == (value,)


def test_readme_notebook_and_call_define_the_same_sweep() -> None:
    """What defines it decides its table (tests/test_sweep.py): so the three give the same."""
    readme = (ROOT / "README.md").read_text()
    command = next(block for block in re.findall(r"```sh\n(.*?)```", readme, re.S) if " sweep " in block)
    words = shlex.split(command)[1:]
    of_readme = tyro.cli(sweep_command(words), args=words[1:])._study()
    cells = nbformat.read(ROOT / "colab" / "sweep.ipynb", as_version=4).cells
    source = next(cell.source for cell in cells if "OVER = " in cell.source)
    names: dict[str, Any] = {"os": os, "json": json}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("OVER", "OPTIONS"):
            exec(ast.unparse(node), names)
    options = {name: value for name, value in names["OPTIONS"].items() if name != "out"}
    call = next(line for line in source.splitlines() if "sweep(" in line)
    assert (
        'sweep("mahppo", "MultiUEOffloading-v0", OVER, seeds=3, planned=planned, progress=progress, **OPTIONS)' in call
    )
    base = new_run("mahppo", OFFLOADING, static=options.pop("static"), config=options.pop("config"))
    of_notebook = study_of(base, names["OVER"], seeds=3, **options)
    over = {
        "hparams.actor_lr": "log:1e-4..1e-1:4",
        "hparams.entropy": "log:1e-4..1e-1:4",
        "params.beta": (0.1, 0.47, 1, 3),
    }
    of_call = study_of(
        new_run("mahppo", OFFLOADING, static={"num_ues": 3}, config={"updates_per_chunk": 2}),
        over,
        seeds=3,
        frames=20_480,
    )
    assert of_readme.fields() == of_notebook.fields() == of_call.fields()


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from algos.sweep import extras

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(extras.importlib, "import_module", missing)
    with pytest.raises(ValueError, match=r"the sampler tpe needs optuna: pip install 'mec-jax\[sweep\]'"):
        check_sampler("tpe", RANGES, 3)
