"""What a third party brings works with nothing else touched, and what it does wrong is found."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, override

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from jaxtyping import Array, Float

import mec_jax
from algos import algorithms
from algos.export import export_policy, import_policy
from algos.loop import train
from algos.run_config import RunConfig
from algos.runs import RunFolder
from mec_jax.contracts import Column, Preset, Rulers, Solver, Traits
from mec_jax.evaluation import evaluate
from mec_jax.observations import Block, ObservationField, ObservationTable
from mec_jax.parameters import parameter
from mec_jax.policy import load_policy
from mec_jax.ranges import Checked, NonNegative, Share
from mec_jax.solvers.policies import for_env, play_each
from mec_jax.testing import ConformanceError, check_algorithm, check_env, check_solver
from mec_jax.transforms import Transform
from tests.toys import Target

pytestmark = pytest.mark.slow

ENV_ID, LEARNER = "FadingChannel-v0", "reinforce"
SMALL: dict[str, dict[str, Any]] = {
    LEARNER: {"num_frames": 64, "num_envs": 4, "rollout": 4},
    "ppo": {"num_frames": 64, "num_envs": 4, "rollout": 4, "minibatches": 2, "critic": (8,)},
    "drl_es": {"num_iterations": 4, "children": 2, "fitness_episodes": 2, "starts": 2, "episodes": 2},
}
"""Fields of each Config that make two chunks of two updates; MAHPPO is for one environment alone."""


pytestmark = pytest.mark.usefixtures("toys")


def small_config(name: str) -> Any:
    return dataclasses.replace(algorithms.algorithm(name).config(), updates_per_chunk=2, trunk=(8,), **SMALL[name])


def test_each_is_one_short_file() -> None:
    for name in ("toy_env", "toy_algorithm"):
        assert len((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 120


def test_they_keep_the_contracts() -> None:
    env, _ = gymnax.make(ENV_ID)
    assert env.name == ENV_ID and env == mec_jax.make(ENV_ID)[0]
    check_env(env)
    check_solver(env)
    check_algorithm(algorithms.algorithm(LEARNER), env, small_config(LEARNER))


def test_policies_are_scored_beside_the_rulers() -> None:
    report = evaluate(ENV_ID, {"Local": lambda observation, key: jnp.zeros((), jnp.int32)}, episodes=16)
    assert list(report.rows) == ["Local", "Random", "Optimum"] and report.bound == "Optimum"
    assert (report.rows["Random"]["score"], report.rows["Optimum"]["score"]) == (0, 1)
    assert report.rows["Local"]["return"] == pytest.approx(-20) and report.rows["Local"]["score"] < 1
    assert report.headers() == ["policy", "return", "mJ", "score"] and report.cells("Local")[2] == "1000.0"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", SMALL)
def test_all_fitting_trainers_train_and_their_policies_leave_as_numpy_and_pytorch(name: str, tmp_path: Path) -> None:
    from mec_jax.split.policy import load_torch_policy
    from tests.tolerance import assert_acts, said_by

    learner, config = algorithms.algorithm(name), small_config(name)
    run = RunConfig(name, ENV_ID, {}, {}, "small", 0, config, learner.hparams())
    folder = RunFolder(tmp_path / "run", run)
    result = train(run, folder, lambda progress: None)
    folder.close()
    env, params = run.make_env()
    assert result.frames == learner.make_trainer(env, config).num_frames

    path = tmp_path / "policy.npz"
    export_policy(path, run, result.learned, result.frames, score={})
    policy, there = load_policy(path), load_torch_policy(path)
    assert policy.observation_names == env.table.names()
    gain = np.random.default_rng(0).exponential(size=(1000, 1))
    states = np.concatenate([gain, np.ones_like(gain), gain > 0.2], 1).astype(np.float32)
    want = said_by(policy, states)
    in_flax = jax.jit(jax.vmap(learner.make_policy(env, config, True), (None, 0, None)))
    action = np.asarray(in_flax((result.learned, params), states, jax.random.key(0)))
    assert not action[gain[:, 0] <= 0.2].any()
    for found in ({"action": action}, policy.act(states)._asdict(), there.act(states)._asdict()):
        assert_acts(found, want)
    again, learned = import_policy(path)
    assert (again.env_id, again.algorithm) == (ENV_ID, name)
    np.testing.assert_array_equal(learned[0]["params"]["head"]["kernel"], result.learned[0]["params"]["head"]["kernel"])


def test_a_trainer_for_another_environment_says_so() -> None:
    mahppo = algorithms.algorithm("mahppo")
    with pytest.raises(ValueError, match="MultiUEOffloading"):
        mahppo.make_trainer(mec_jax.make(ENV_ID)[0], mahppo.config())


# What is wrong is found: environments


def broken_envs() -> dict[str, tuple[str, Any]]:
    """By defect: what the error says, and the environment."""
    from tests.toy_env import TABLE, Params
    from tests.toy_env import FadingChannel as Fading

    def variant(**members: Any) -> Any:
        return type("Fading", (Fading,), members)()

    def with_static(value: Any) -> Any:
        env = Fading()
        vars(env)["sizes"] = value
        return env

    def step(change: Any) -> Any:
        """A step whose results are changed: `change(env, key, state, results)`."""

        def step_env(self: Any, key: Array, state: Any, action: Array, params: Any) -> tuple:
            return tuple(change(self, state, list(Fading.step_env(self, key, state, action, params))))

        return variant(step_env=step_env)

    def replaced(place: int, value: Any) -> Any:
        return step(lambda env, state, results: [*results[:place], value(results[place]), *results[place + 1 :]])

    class Unchecked(Fading):
        @override
        def params(self, **numbers: Any) -> Any:
            return Fading().default_params.replace(**numbers)

    class Asking(Fading):
        @override
        def check_params(self, values: Any) -> None:
            if values["outage"] > 100:
                raise ValueError("outage is too much")

    @struct.dataclass(kw_only=True)
    class Undeclared(environment.EnvParams):
        max_steps_in_episode: int = 20

    @struct.dataclass(kw_only=True)
    class Uneven(Params):
        weight: Float[Array, " user"] = parameter(1.0, "1", "ours")

    @struct.dataclass(kw_only=True)
    class Nameless(Params):
        weight: Float[Array, ""] = parameter(1.0, "", "ours")

    twice = ObservationTable((Block((ObservationField("gain", "1", "gain"), ObservationField("gain", "1", "gain"))),))
    longer = ObservationTable((*TABLE.blocks, Block((ObservationField("more", "1", "more"),))))
    halved = ObservationField("gain", "1", "channel gain / 2", 1, Transform(scale=2.0))
    ruled = ObservationTable((Block((halved,)), *TABLE.blocks[1:]))
    drawn = np.random.default_rng(0)
    nan = jnp.nan
    return {
        "a list": ("can't be hashed", with_static([1, 2])),
        "no value": ("does not equal its own copy", with_static(object())),
        "equality": ("not equal environments", variant(__eq__=object.__eq__, __hash__=object.__hash__)),
        "fields": ("Declare each field", variant(params_type=Undeclared)),
        "axis": ("default_params|axis", variant(params_type=Uneven)),
        "unit": ("lacks a unit", variant(params_type=Nameless)),
        "unchecked": ("not refused|not ValueError", Unchecked()),
        "asks for values": ("traced numbers", Asking()),
        "scenario": (
            "another scenario",
            variant(evaluation_params=lambda self, p=None: (p := p or self.params()).replace(outage=2 * p.outage)),
        ),
        "scenario's type": (
            "compiles anew",
            variant(evaluation_params=lambda self, p=None: (p or self.params()).replace(outage=0)),
        ),
        "traits": ("traits say discrete", variant(traits=Traits(discrete=False, continuous=False))),
        "slots": ("slots are the last block", variant(traits=Traits(True, False, slots=longer.slots))),
        "mask of nothing": ("it must be one of action", variant(mask_entries={"cut": range(2)})),
        "mask's size": ("entries of one choice", variant(mask_entries={"action": range(1)})),
        "a field twice": ("a field twice", variant(table=twice, mask_entries={})),
        "observation": ("observation|step returns", variant(table=longer)),
        "no quantities": ("Name each quantity of its table", variant(table=ruled)),
        "other quantities": (
            "makes of its quantities",
            variant(table=ruled, quantities=lambda self, state, params: {"gain": state.gain, "possible": jnp.ones(2)}),
        ),
        "concrete": ("all numbers are traced", step(lambda env, state, results: results if state.gain > 0 else [])),
        "weak": (
            "weakly typed",
            step(lambda env, state, results: [results[0], results[1].replace(energy=0.0), *results[2:]]),
        ),
        "time": (
            "is not truncated",
            step(lambda env, state, results: [results[0], results[1].replace(time=state.time), *results[2:]]),
        ),
        "nan": ("observation is not finite: channel gain", replaced(0, lambda x: x.at[0].set(nan))),
        "space": (
            "outside its space",
            variant(observation_space=lambda self, params: spaces.Box(0.0, 0.5, (3,), jnp.float32)),
        ),
        "reward": ("reward is not finite", replaced(2, lambda x: x * nan)),
        "hostile action": (
            "with actions out of range or NaN, a reward is not finite",
            variant(
                step_env=lambda self, key, state, action, params: (
                    *(results := Fading.step_env(self, key, state, action, params))[:2],
                    results[2] * jnp.exp(jnp.abs(action).astype(float)),
                    *results[3:],
                )
            ),
        ),
        "hostile parameter": (
            "with outage=.* put in by `replace`, a reward is not finite",
            variant(
                step_env=lambda self, key, state, action, params: (
                    *(results := Fading.step_env(self, key, state, action, params))[:2],
                    results[2] * params.outage**8,
                    *results[3:],
                )
            ),
        ),
        "end": ("step_env and is_terminated differ", replaced(3, lambda x: ~x)),
        "cut off": (
            "terminated and truncated at once",
            variant(
                is_terminated=lambda self, state, params: state.time >= 3,
                is_truncated=lambda self, state, params: state.time >= 3,
            ),
        ),
        "one decision": ("goes on after it", variant(traits=Traits(True, False, one_decision=True))),
        "measure": ("is not finite", variant(measures=lambda self, info, frames, params: {"energy": nan * frames})),
        "measure's name": ("is taken", variant(measures=lambda self, info, frames, params: {"frames": 1.0 * frames})),
        "mask's name": ("must be one of", variant(action_mask=lambda self, x, params: {"cut": x[1:] > 0})),
        "none allowed": ("allows no choice", variant(action_mask=lambda self, x, params: {"action": x[1:] < 0})),
        "mask unseen": ("exported policy would not", Target(masked=True)),
        "outside": ("another episode alone", replaced(2, lambda x: x + drawn.random())),
    }


def error_of(check: Callable[..., None], *given: Any) -> str:
    try:
        check(*given)
    except ConformanceError as error:
        return str(error)
    return "nothing is found"


def assert_found(errors: Mapping[str, str], messages: Mapping[str, str]) -> None:
    """Assert that each error matches its message; all that do not are shown."""
    assert not {defect: error for defect, error in errors.items() if not re.search(messages[defect], error)}


@pytest.mark.full
def test_what_is_wrong_with_an_environment_is_found() -> None:
    broken = broken_envs()
    errors = {defect: error_of(check_env, env) for defect, (_, env) in broken.items()}
    assert_found(errors, {defect: message for defect, (message, _) in broken.items()})


def test_a_static_parameter_is_found() -> None:
    """It would compile anew for each value."""
    from tests.toy_env import FadingChannel
    from tests.toy_env import Params as Declared

    declared = parameter(1, "1", "ours", least=0)
    about = {**declared.metadata, "pytree_node": False}

    @struct.dataclass(kw_only=True)
    class Params(Declared):
        users: int = dataclasses.field(metadata=about)

    class Fading(FadingChannel):
        params_type = Params

    with pytest.raises(ConformanceError, match="changing parameter users compiles anew"):
        check_env(Fading())


# Solvers


def broken_solvers() -> dict[str, tuple[str, Any]]:
    from tests import toy_env as toy

    def rulers(env: Any, params: Any, keys: Array, **roles: Any) -> Rulers:
        told = {"zero": "Random", "one": "Optimum", "bound": "Optimum"} | roles
        return Rulers(play_each(env, params, toy.baselines(env), keys), **told)

    def ruling(**roles: Any) -> Solver:
        return dataclasses.replace(toy.SOLVER, rulers=partial(rulers, **roles))

    def playing(policy: Any) -> Solver:
        return dataclasses.replace(toy.SOLVER, baselines=cache(lambda env: for_env(env, {"Random": policy})))

    return {
        "none": ("has no solver", None),
        "another thing": ("TypeError", "tests.toy_env:TABLE"),
        "anew": (
            "made anew",
            dataclasses.replace(toy.SOLVER, baselines=lambda env: for_env(env, {"Random": toy.uniform})),
        ),
        "outside": ("outside the action space", playing(lambda env, params, x, key: jnp.array(7))),
        "masked": ("masked", playing(lambda env, params, x, key: jnp.array(1))),
        "no row": ("none of their rows", ruling(one="Best")),
        "order": ("swap them", ruling(zero="Optimum", one="Random")),
        "bound": ("above the bound", ruling(bound="Random")),
        "column": ("no measure", dataclasses.replace(toy.SOLVER, columns=(Column("ms", "latency"),))),
    }


def test_what_is_wrong_with_a_solver_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toy_env import FadingChannel

    errors = {}
    for defect, (_, solver) in broken_solvers().items():
        monkeypatch.setattr(FadingChannel, "solver", solver)
        errors[defect] = error_of(check_solver, FadingChannel())
    assert_found(errors, {defect: message for defect, (message, _) in broken_solvers().items()})


# Algorithms


def test_what_is_wrong_with_an_algorithm_is_found() -> None:
    learner: Any = algorithms.algorithm(LEARNER)
    config, env = small_config(LEARNER), mec_jax.make(ENV_ID)[0]

    @dataclasses.dataclass(frozen=True)
    class Unchecked(learner.config):
        def __post_init__(self) -> None:
            pass

    @dataclasses.dataclass(frozen=True)
    class Undeclared(Unchecked):
        slack: float = 0.5

    @struct.dataclass
    class Strict(Checked):
        lr: NonNegative = 1e-2
        gamma: Share = 0.9

    def config_of(kind: Any, hparams: Any = None, **wrong: Any) -> dict[str, Any]:
        presets = {"default": Preset(kind(**wrong), hparams or learner.hparams())}
        return {"config": kind, "presets": presets, "hparams": type(hparams) if hparams else learner.hparams}

    def diverging(env: Any, config: Any) -> Any:
        trainer = learner.make_trainer(env, config)

        def run(*given: Any) -> Any:
            state, metrics = trainer.run(*given)
            return state, metrics._replace(actor_loss=metrics.actor_loss * jnp.nan)

        return trainer._replace(run=run)

    def otherwise(found: Any) -> Any:
        config, (actor, observed) = learner.from_network(found)
        layers = actor["params"]
        return config, ({"params": {**layers, "head": jax.tree.map(jnp.negative, layers["head"])}}, observed)

    broken: dict[str, dict[str, Any]] = {
        "at least one preset": {"presets": {}},
        "holds no Config": {"presets": {"default": (None, learner.hparams(), bool)}},
        "num_frames=None is not refused": config_of(Unchecked),
        "preset 'default' of reinforce: ValueError: rollout is 2.5": config_of(Unchecked, rollout=2.5),
        "slack: <class 'float'> declares no range": config_of(Undeclared),
        "is no pytree of whatever JAX puts in": config_of(learner.config, Strict()),
        "lanes gives 0": {"lanes": lambda config: 0},
        "actor_loss is not finite": {"make_trainer": diverging},
        "decides otherwise": {"from_network": otherwise},
    }
    errors = {
        message: error_of(check_algorithm, dataclasses.replace(learner, **change), env, config)
        for message, change in broken.items()
    }
    assert_found(errors, {message: message for message in broken})
