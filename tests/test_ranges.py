"""Hyper-parameters: what is declared of each, and that nothing else gets in by any way."""

import copy
import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from annotated_types import Interval, MaxLen, MultipleOf
from hypothesis import given
from hypothesis import strategies as st

import mec_jax
from algos import cli, drl_es, mahppo, ppo, runs
from algos.algorithms import algorithm, algorithms
from algos.run_config import RunConfig, as_arrays
from algos.runs import read_config
from benchmarks.robustness import hyper_parameters
from mec_jax.files import MAX_COUNT
from mec_jax.ranges import (
    HUGE,
    TINY,
    Checked,
    Count,
    Layers,
    NonNegative,
    Norm,
    Positive,
    Share,
    Traced,
    Width,
    check,
    ranges,
)
from tests.errors import error_of

KINDS = [kind for name in algorithms() for kind in (algorithm(name).config, algorithm(name).hparams)]
FIELDS = [(kind, field) for kind in KINDS for field in ranges(kind)]


def within_ranges(kind: type) -> st.SearchStrategy[Any]:
    """Objects all of whose fields are somewhere in what their annotations allow, as hypothesis reads them."""
    hints = get_type_hints(kind, include_extras=True)
    return st.fixed_dictionaries({name: st.from_type(hints[name]) for name in ranges(kind)})


ANYTHING: st.SearchStrategy[Any] = st.one_of(
    *(st.none(), st.booleans(), st.text(max_size=9), st.floats(), st.integers(), st.integers(0, 2**17)),
    *(st.floats(-1, 2), st.lists(st.integers(), max_size=3), st.tuples(st.integers(-1, 9)), st.just(10**5000)),
    *(st.floats(width=16).map(np.float16), st.just("tanh"), st.complex_numbers(), st.binary(max_size=3)),
)


@given(st.data())
def test_what_is_within_its_range_is_taken_as_it_is(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    values = data.draw(within_ranges(kind))
    made = kind(**values)
    assert {name: getattr(made, name) for name in values} == values
    if issubclass(kind, Traced):
        arrays = dataclasses.asdict(as_arrays(made))
        assert not any(np.isnan(x) for x in arrays.values())
        assert all(np.isfinite(x) for name, x in arrays.items() if name != "max_grad_norm")


@given(st.sampled_from(FIELDS), ANYTHING)
def test_what_is_outside_of_its_range_is_one_error_that_names_field_and_range(field: Any, value: Any) -> None:
    kind, name = field
    allowed = ranges(kind)[name]
    if hyper_parameters.within(allowed, value):
        kind(**{name: value})
    else:
        message = error_of(lambda: kind(**{name: value}))
        assert message.startswith(f"{name} is ") and (allowed.words() in message)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ppo.HParams(gamma=2.0), "gamma is 2.0: it must be a number from 0 to 1"),
        (lambda: ppo.HParams(gamma=math.nan), "gamma is nan: it must be a number from 0 to 1"),
        (lambda: ppo.HParams(gamma=True), "gamma is True: it must be a number from 0 to 1"),
        (lambda: ppo.HParams(gamma=[0.5]), "gamma is [0.5]: it must be a number from 0 to 1"),  # type: ignore[arg-type]
        (lambda: ppo.HParams(actor_lr=math.inf), "actor_lr is inf: it must be a number >= 0 and finite"),
        (lambda: ppo.HParams(adam_eps=1e-46), "adam_eps is 1e-46: it must be a number > 0 and finite"),
        (lambda: ppo.HParams(max_grad_norm=-1.0), "max_grad_norm is -1.0: it must be a number > 0 or infinite"),
        (lambda: ppo.HParams(max_grad_norm=10**400), "it must be a number > 0 or infinite"),
        (lambda: ppo.HParams(log_std=21), "log_std is 21: it must be a number from -20 to 20"),
        (lambda: ppo.HParams().replace(clip=0.0), "clip is 0.0: it must be a number > 0 and finite"),
        (lambda: ppo.HParams(gamma=jnp.array([0.5, 2.0])), "gamma is Array([0.5, 2. ], dtype=float32): it must be"),  # type: ignore[arg-type]
        (lambda: ppo.HParams(gamma=jax.random.key(0)), "gamma is Array"),  # type: ignore[arg-type]
        (lambda: ppo.Config(num_frames=-1), "num_frames is -1: it must be a whole number from 1 to 2147483647"),
        (lambda: ppo.Config(num_frames=10**12), "num_frames is 1000000000000: it must be a whole number from 1"),
        (lambda: ppo.Config(num_envs=2.5), "num_envs is 2.5: it must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda: ppo.Config(num_envs=True), "num_envs is True: it must be a whole number from 1"),
        (lambda: ppo.Config(num_envs=None), "num_envs is None: it must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda: ppo.Config(num_envs="8"), "num_envs is '8': it must be a whole number from 1"),  # type: ignore[arg-type]
        (lambda: ppo.Config(num_envs=10**5000), "num_envs is an int of thousands of digits: it must be"),
        (lambda: ppo.Config(trunk=[8]), "trunk is [8]: it must be a tuple of at most 32, each of them a whole number"),  # type: ignore[arg-type]
        (lambda: ppo.Config(trunk=(8,) * 33), "it must be a tuple of at most 32"),
        (lambda: ppo.Config(per_slot=1), "per_slot is 1: it must be True or False"),  # type: ignore[arg-type]
        (lambda: mahppo.Config(sampling="x"), "sampling is 'x': choose from shuffle, draws"),  # type: ignore[arg-type]
        (lambda: mahppo.Config(sampling="drows"), "did you mean 'draws'? choose from shuffle, draws"),  # type: ignore[arg-type]
    ],
)
def test_an_error_says_field_value_and_range(make: Any, says: str) -> None:
    assert says in error_of(make)


def test_presets_are_within_their_ranges() -> None:
    for name in algorithms():
        for config, hparams, _ in algorithm(name).presets.values():
            check(config)
            check(hparams)
    assert mahppo.REFERENCE.hparams.max_grad_norm == math.inf


def test_the_ranges_are_data() -> None:
    found = ranges(mahppo.HParams)["gamma"]
    assert (found.name, found.kind, found.least, found.most, found.choices) == ("gamma", float, 0, 1, ())
    assert ranges(mahppo.Config)["ratio"].choices == ("joint", "per_head")
    assert ranges(mahppo.Config)["trunk"][1:4] == (int, 1, 2**16)
    assert ranges(mahppo.Config)["trunk"].max_length == 32


def test_a_field_without_a_range_is_found() -> None:
    for annotation in (
        *(float, int, str, list[int], tuple[Count, ...], float | None, tuple[Count, Count]),
        Annotated[float, Interval(gt=0)],  # in float32, 1e-60 is 0
        Annotated[float, Interval(ge=0, lt=1)],
        Annotated[int, MultipleOf(2)],
        Annotated[tuple[int, ...], MaxLen(3)],
    ):
        kind = dataclasses.make_dataclass("Config", [("field", annotation, dataclasses.field(default=1))])
        with pytest.raises(TypeError, match=r"field: .* declares no range: take one of mec_jax.ranges"):
            ranges(kind)


def test_a_range_says_where_it_ends() -> None:
    @dataclasses.dataclass
    class Fields:
        count: Count
        width: Width
        layers: Layers
        share: Share
        free: NonNegative
        positive: Positive
        norm: Norm
        shift: Annotated[float, Interval(le=2)]
        choice: Literal["a", "b"]
        flag: bool

    assert [allowed.words() for allowed in ranges(Fields).values()] == [
        *("from 1 to 2147483647", "from 1 to 65536", "from 1 to 65536", "from 0 to 1", ">= 0 and finite"),
        *("> 0 and finite", "> 0 or infinite", "<= 2", "a, b", "True or False"),
    ]
    for value, fits in ((TINY, True), (TINY / 2, False), (HUGE, True), (2 * HUGE, False), (np.float16(0), False)):
        assert ranges(Fields)["positive"].has(value) == fits


# JAX puts anything into a pytree


def test_what_jax_puts_together_again_is_not_checked() -> None:
    hparams = ppo.HParams()
    for leaf in (None, object(), "name", -1.0, math.nan, (1, 2)):
        assert jax.tree.map(lambda _, leaf=leaf: leaf, hparams).gamma is leaf
    gradient = jax.grad(lambda h: -3 * h.gamma)(as_arrays(hparams))
    assert (gradient.gamma, gradient.clip) == (-3, 0)
    assert jax.eval_shape(lambda: as_arrays(hparams)).gamma.shape == ()
    copies = (copy.deepcopy(hparams), pickle.loads(pickle.dumps(hparams)), jax.tree.map(lambda x: x, hparams))
    assert all(again == hparams and type(again) is ppo.HParams for again in copies)
    assert next(jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(hparams)) == ".actor_lr"


def test_a_sweep_is_traced_and_taken_for_within() -> None:
    rates = jnp.array([1e-3, -1.0, jnp.nan])
    swept = jax.jit(jax.vmap(lambda lr: ppo.HParams(actor_lr=lr).replace(clip=2 * lr)))(rates)
    np.testing.assert_array_equal(swept.actor_lr, rates)
    assert "actor_lr is" in error_of(as_arrays, swept)  # no longer traced
    assert "actor_lr is" in error_of(as_arrays, jax.tree.map(jnp.negative, as_arrays(ppo.HParams())))
    with pytest.raises(dataclasses.FrozenInstanceError):
        ppo.HParams().gamma = 0.5  # type: ignore[misc]


# What does not go together


@pytest.mark.parametrize(
    ("learner", "config", "says"),
    [
        (
            ppo,
            ppo.Config(num_envs=MAX_COUNT, rollout=MAX_COUNT),
            "updates of 4611686014132420609: of more than 2147483647",
        ),
        (ppo, ppo.Config(num_envs=2**14, rollout=2**14, minibatches=1), "takes fewer|the count overflows"),
        (mahppo, mahppo.Config(updates_per_chunk=MAX_COUNT), "the count overflows"),
        (drl_es, drl_es.Config(num_iterations=MAX_COUNT - 1, updates_per_chunk=1), "the count overflows"),
        (drl_es, drl_es.Config(starts=MAX_COUNT, episodes=MAX_COUNT), "the count overflows"),
    ],
)
def test_runs_whose_frames_no_int32_counts_are_refused(learner: Any, config: Any, says: str) -> None:
    env, _ = mec_jax.make("MultiUEOffloading-v0", num_ues=2)
    if isinstance(config, ppo.Config | mahppo.Config):
        config = dataclasses.replace(config, minibatches=1)
    with pytest.raises(ValueError, match=says):
        learner.make_trainer(env, config)


def test_as_many_frames_as_an_int32_counts_can_be_run() -> None:
    env, _ = mec_jax.make("MultiUEOffloading-v0", num_ues=2)
    trainer = ppo.make_trainer(env, ppo.Config(num_frames=MAX_COUNT, num_envs=1, rollout=1, minibatches=1))
    assert trainer.num_frames == MAX_COUNT // 10 * 10


# Ways in


def run_of(name: str = "mahppo", preset: str = "fast", **changes: Any) -> RunConfig:
    config, hparams, _ = algorithm(name).presets[preset]
    return dataclasses.replace(RunConfig(name, "MultiUEOffloading-v0", {}, {}, preset, 0, config, hparams), **changes)


def written(folder: Path, run: RunConfig, part: str = "", field: str = "", value: Any = None) -> Path:
    """A run folder's configuration with one value exchanged, or without it if it is None."""
    content = dataclasses.asdict(run)
    inside = content[part] if part else content
    if field and value is None:
        del inside[field]
    elif field:
        inside[field] = value
    (folder / "config.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("preset", ["fast", "reference", "paper"])
def test_a_configuration_is_read_as_it_was_written(preset: str, tmp_path: Path) -> None:
    run = run_of(preset=preset)
    assert read_config(written(tmp_path, run)) == run


@pytest.mark.parametrize(
    ("part", "field", "value", "says"),
    [
        ("config", "sampling", "x", "sampling is 'x': choose from shuffle, draws"),
        ("config", "num_envs", 2.5, "num_envs is 2.5: it must be a whole number"),
        ("config", "num_envs", 64.0, "num_envs is 64.0: it must be a whole number"),
        ("config", "num_envs", True, "num_envs is True: it must be a whole number"),
        ("config", "num_frames", -1, "num_frames is -1: it must be a whole number"),
        ("config", "trunk", 8, "trunk is 8: it must be a tuple"),
        ("config", "trunk", [8, -1], "trunk is (8, -1): it must be a tuple"),
        ("config", "head", [8], "head is (8,): it must be a whole number"),
        ("config", "haed", 8, "config has no field 'haed': did you mean 'head'?"),
        ("hparams", "gamma", 2, "gamma is 2: it must be a number from 0 to 1"),
        ("hparams", "gamma", math.nan, "gamma is nan: it must be a number from 0 to 1"),
        ("hparams", "clip", "0.2", "clip is '0.2': it must be a number > 0 and finite"),
        ("hparams", "entropie", 0.1, "hparams has no field 'entropie': did you mean 'entropy'?"),
        ("", "seed", -1, "seed is -1: it must be a whole number from 0 to 4294967295"),
        ("", "seed", 0.5, "seed is 0.5: it must be a whole number from 0 to 4294967295"),
    ],
)
def test_a_changed_configuration_is_refused_by_file_and_field(
    part: str, field: str, value: Any, says: str, tmp_path: Path
) -> None:
    message = error_of(read_config, written(tmp_path, run_of(), part, field, value))
    assert message.startswith(str(tmp_path / "config.json")) and says in message


def test_fields_of_a_configuration_that_do_not_go_together_are_named_with_their_file(tmp_path: Path) -> None:
    message = error_of(runs.load_run, written(tmp_path, run_of(), "config", "minibatches", 7))
    assert message.startswith(str(tmp_path / "config.json")) and "7 minibatches do not divide" in message


def test_a_field_younger_than_the_run_has_its_default_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of("drl_es")
    assert read_config(written(tmp_path, run, "config", "population")) == run
    assert "does not say config.population: 'theta', its default, is taken" in caplog.text


def test_a_run_takes_single_numbers(tmp_path: Path) -> None:
    several = ppo.HParams(gamma=jnp.array([0.5, 0.9]))  # type: ignore[arg-type]
    assert "gamma has shape (2,): a run takes one number" in error_of(run_of, hparams=several)
    assert "actor_lr is" in error_of(run_of, hparams=jax.tree.map(lambda _: -1.0, mahppo.HParams()))
    runs.RunFolder(tmp_path, run_of(hparams=as_arrays(mahppo.HParams()))).close()
    assert as_arrays(read_config(tmp_path).hparams) == as_arrays(mahppo.HParams())


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("mec-jax: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("mahppo", "--hparams.gamma", "2"), "gamma is 2.0: it must be a number from 0 to 1"),
        (("ppo", "--hparams.gamma", "nan"), "gamma is nan: it must be a number from 0 to 1"),
        (("ppo", "--hparams.actor-lr=-1"), "actor_lr is -1.0: it must be a number >= 0 and finite"),
        (("ppo", "--hparams.clip", "inf"), "clip is inf: it must be a number > 0 and finite"),
        (("ppo", "--config.num-frames", "-1"), "num_frames is -1: it must be a whole number"),
        (("ppo", "--config.num-frames", "0"), "num_frames is 0: it must be a whole number"),
        (("ppo", "--config.num-frames", "1000000000000"), "num_frames is 1000000000000: it must be a whole number"),
        (("drl_es", "--config.num-iterations", "0"), "num_iterations is 0: it must be a whole number"),
        (("drl_es", "--config.episodes", "1"), "episodes is 1: it must be a whole number from 2"),
        (("ppo", "--config.trunk", *["8"] * 33), "trunk is (8, 8"),
        (("ppo", "--config.num-envs", "60000", "--config.rollout", "60000"), "the count overflows"),
    ],
)
def test_the_command_line_refuses_in_a_line_before_a_folder_is_made(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in refusal(capsys, "train", *options, "--out", str(tmp_path / "run"))
    assert not any(tmp_path.iterdir())


def test_the_command_line_names_what_a_configuration_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path, run_of(), "hparams", "gamma")
    assert "no checkpoint" in refusal(capsys, "evaluate", str(tmp_path))
    assert caplog.messages == ["config.json does not say hparams.gamma: 0.95, its default, is taken"]


def test_help_says_what_each_option_is(capsys: pytest.CaptureFixture[str]) -> None:
    """The options' class is made on the fly, and tyro reads comments in the source."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "mahppo", "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert stop.value.code == 0
    assert "hidden layer of each actor head" in printed and "environments side by side" in printed
    assert "fraction of the learning rates reached at the end" in printed


def test_list_shows_an_algorithms_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list", "mahppo"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["--hparams.gamma", "0.95", "from", "0", "to", "1"] in lines
    assert ["--config.trunk", "256", "128", "from", "1", "to", "65536,", "at", "most", "32", "of", "them"] in lines
    assert ["--config.sampling", "shuffle", "shuffle,", "draws"] in lines


# Budgets


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--config.num-frames", "60000"), "60,000 frames asked: 40,960 will be run, 2 chunks of 20,480;"),
        (("--config.num-frames", "100"), "100 frames asked: 20,480 will be run, 1 chunk of 20,480;"),
        (("--config.num-frames", "40960"), ""),
    ],
)
def test_train_says_what_will_be_run_of_what_was_asked(
    options: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    def failed(*_: Any) -> None:
        raise ValueError("not today")

    monkeypatch.setattr(runs, "RunFolder", failed)
    with pytest.raises(SystemExit):
        cli.main(["train", "ppo", "--preset", "fast", *options, "--out", str(tmp_path / "run")])
    out, error = capsys.readouterr()
    assert out.startswith(says) and out.count("\n") == bool(says)
    assert error == "mec-jax: not today\n"


# The campaign


def test_the_campaign_finds_a_way_that_checks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hyper_parameters, "WAYS", (hyper_parameters.constructed, hyper_parameters.read))
    assert not [end for end in hyper_parameters.fates(100, 3, tmp_path) if "out of range" in end]
    for checked in (Checked, RunConfig):
        monkeypatch.setattr(checked, "__post_init__", lambda self: None)
    found = hyper_parameters.fates(100, 3, tmp_path)
    assert sum(number for end, number in found.items() if "out of range" in end) > 10
