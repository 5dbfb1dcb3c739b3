"""Conformance suites: whether an environment, its solver or an algorithm keeps what `mec_jax.contracts` asks.

    from mec_jax.testing import check_algorithm, check_env, check_solver

    check_env(MyEnvironment())
    check_solver(MyEnvironment())
    check_algorithm(ALGORITHM, MyEnvironment(), small_config)

Each returns nothing if all is well, and else raises a `ConformanceError` that names what is wrong and the mend. They
compile as little as they can: choose small statics all the same.
"""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PyTree

from mec_jax.contracts import Algorithm, Episodes, Policy, Problem, Rulers, preset_for
from mec_jax.episodes import evaluation_keys
from mec_jax.evaluation import solver_of
from mec_jax.files import reason
from mec_jax.parameters import Parameter, shape_of
from mec_jax.spaces import DiscreteArray, NamedTupleSpace

__all__ = ["ConformanceError", "check_algorithm", "check_env", "check_solver"]

ROUNDINGS = 10_000
"""Two batch shapes add floats in another order. How long the sums of an environment or a gradient step are, nobody here
knows: a thousand terms, and a condition of ten, must be allowed. In float32 that is 1.2e-3 of the largest magnitude.
"""

LANES = 4
LIMIT = 3
"""Steps after which episodes are truncated here, so that each lane sees some ends."""


class ConformanceError(AssertionError):
    """What a contract asks and does not find."""


def _require(holds: object, message: str) -> None:
    if not holds:
        raise ConformanceError(message)


@contextmanager
def _works(what: str, mend: str) -> Iterator[None]:
    """Errors inside as a `ConformanceError` that says what does not work, why, and the mend."""
    try:
        yield
    except ConformanceError:
        raise
    except Exception as error:
        raise ConformanceError(f"{what}: {type(error).__name__}: {reason(error)}. {mend}") from error


# Environments


def check_env(env: Problem, params: PyTree = None) -> None:
    """Check an environment: what it declares, its parameters, its episodes, and that all numbers are traced.

    Args:
        env: The environment; a view of one whose parameters are not declared (`mec_jax.interop.foreign`) won't do.
        params: What its episodes are played with; the defaults if None.

    Raises:
        ConformanceError: If something is wrong; the message names it and the mend.
    """
    _check_equality(env)
    with _works(f"{env.name}.default_params", "Every parameter needs a default, of the table or of `given`"):
        params = env.default_params if params is None else params
    _check_parameters(env)
    _check_refusals(env)
    _check_traced_parameters(env)
    _check_scenario(env, params)
    _check_action_space(env, params)
    _check_table(env, params)
    limit = _limit(env, params)
    params = params.replace(max_steps_in_episode=limit)
    played = _random_play(env, params)
    _check_types(env, params)
    _check_observations(env, params, played)
    _check_ends(env, played, limit)
    _check_masks(env, params, played)
    _check_alone(env, params, played)
    _check_recompiling(env, params)


def _check_equality(env: Problem) -> None:
    """Environments of equal statics are one to jit."""
    name, statics = type(env).__name__, {key: value for key, value in vars(env).items() if key != "env_id"}
    for key, value in statics.items():
        with _works(f"{name}.{key} can't be hashed", "Keep tuples and frozen dataclasses, no arrays, lists or dicts"):
            hash(value)
        same = copy.deepcopy(value) == value
        _require(same is True, f"{name}.{key} does not equal its own copy: keep what compares by value, no functions")
    twin = copy.deepcopy(env).called("another id")
    _require(
        twin == env and hash(twin) == hash(env),
        f"{name}: equal statics, but not equal environments, so that each `make` compiles anew: leave __eq__ and "
        "__hash__ to `Problem`, and only what sets shapes in the constructor's attributes",
    )


def _check_parameters(env: Problem) -> None:
    """The defaults are what the table declares."""
    with _works(f"{env.name}.parameters()", "Declare each field of Params with mec_jax.parameters.parameter"):
        table, axes, params = env.parameters(), env.axes, env.default_params
    _require(
        type(params) is env.params_type, f"{env.name}.default_params is no {env.params_type.__name__}: leave it alone"
    )
    limit = params.max_steps_in_episode
    _require(
        type(limit) is int,
        f"{env.name}: max_steps_in_episode is {limit!r}: annotate it as `int`, so that it is one of Python's, which "
        "other libraries expect",
    )
    for name, about in table.items():
        if missing := [axis for axis in about.axes if axis not in axes]:
            raise ConformanceError(f"{env.name}: parameter {name} has an axis {missing[0]!r}: name its length in `axes`")
        value = getattr(params, name)
        shape, found = shape_of(about, axes), np.shape(value)
        _require(found == shape, f"{env.name}: parameter {name} has shape {found}, declared is {shape}: mend one")
        kind = {"b": bool, "i": int, "f": float}.get(jnp.asarray(value).dtype.kind)
        _require(kind is about.kind, f"{env.name}: parameter {name} is {value!r}, no {about.kind.__name__}: mend one")
        _require(np.all(np.isfinite(value)), f"{env.name}: parameter {name} is not finite: give it a finite default")
        _require(about.unit and about.source, f"{env.name}: parameter {name} lacks a unit ('1' if none) or a source")


def _check_refusals(env: Problem) -> None:
    """Unknown names, wrong shapes and values out of range are one ValueError that names the parameter."""
    default = env.default_params
    _must_refuse(env, "no_such_parameter", 1.0, "there is none of that name")
    for name, about in env.parameters().items():
        value = np.asarray(getattr(default, name))
        for wrong, why in _out_of_range(about, value):
            _must_refuse(env, name, wrong, why)
        if about.not_below is not None:
            low = np.asarray(getattr(default, about.not_below))
            if np.any(low < value):
                _must_refuse(env, name, low, f"it is below {about.not_below}", **{about.not_below: value})


def _out_of_range(about: Parameter, value: np.ndarray) -> Iterator[tuple[object, str]]:
    """Values that a parameter must refuse, and why."""
    too_many = (value.shape[-1] if value.shape else 0) + 2
    first = value.ravel()[0] if value.size else about.kind(1)
    yield np.full(too_many, first), "the shape is wrong"
    if about.kind is bool:
        yield 2, "it is no truth value"
        return
    yield (0 if about.least is None else about.least - 1), "it is below its range"
    if about.most is not None:
        yield about.most + 1, "it is above its range"
    yield (float("nan"), "it is not finite") if about.kind is float else (float(first) + 0.5, "it is not whole")


def _must_refuse(env: Problem, name: str, value: object, why: str, **others: Any) -> None:
    given: dict[str, Any] = {name: value, **others}
    wrong = f"{env.name}.params({name}={value!r}), where {why}"
    try:
        env.params(**given)
    except ValueError as error:
        named = name in str(error)
        _require(named, f"{wrong}: the error does not name it ({reason(error)}): let `Problem.params` check it")
        return
    except Exception as error:
        raise ConformanceError(f"{wrong}: {type(error).__name__}, not ValueError: check before you calculate") from error
    raise ConformanceError(f"{wrong}, is not refused: let `Problem.params` check it against its table")


def _check_traced_parameters(env: Problem) -> None:
    """Parameters can be made of traced numbers, those worked out from others too."""
    default, table = env.default_params, env.parameters()
    numbers = {name: jnp.asarray(getattr(default, name)) for name, about in table.items() if not about.is_python}
    own = {name: value for name, value in numbers.items() if not isinstance(table[name].default, str)}
    for some in (numbers, own):
        with _works(
            f"{env.name}.params of traced numbers", "`given`, `derived` and `check_params` must not ask for values"
        ):
            jax.eval_shape(lambda some: env.params(**some), some)


def _check_scenario(env: Problem, params: PyTree) -> None:
    with _works(f"{env.name}.evaluation_params", "It takes parameters or None, and returns parameters"):
        env.evaluation_params()
        once = env.evaluation_params(params)
        twice = env.evaluation_params(once)
    _require(
        _signature(once) == _signature(params),
        f"{env.name}.evaluation_params changes types or shapes, so that the scenario compiles anew: keep them",
    )
    same = all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True))
    _require(same, f"{env.name}.evaluation_params of a scenario is another scenario: set numbers, don't scale them")


def _parts(space: spaces.Space, name: str = "action") -> dict[str, spaces.Space]:
    """Spaces of an action's parts by name."""
    if isinstance(space, NamedTupleSpace | spaces.Tuple):
        names: Iterable[str] = space.names if isinstance(space, NamedTupleSpace) else map(str, range(len(space.spaces)))
        named = zip(names, space.spaces, strict=True)
    elif isinstance(space, spaces.Dict):
        named = iter(space.spaces.items())
    else:
        return {name: space}
    return {inner: leaf for part, one in named for inner, leaf in _parts(one, part).items()}


def _check_action_space(env: Problem, params: PyTree) -> None:
    """Its parts are what the traits say, and masks are about them."""
    space = env.action_space(params)
    choices = {name: isinstance(x, spaces.Discrete | DiscreteArray) for name, x in _parts(space).items()}
    traits = env.traits
    for said, found, kind in (
        (traits.discrete, any(choices.values()), "discrete"),
        (traits.continuous, not all(choices.values()), "continuous"),
    ):
        _require(
            said == found, f"{env.name}: traits say {kind}={said}, the action space {space!r} says {found}: mend one"
        )
    with _works(f"{env.name}.num_actions", "Its action space must work with the default parameters"):
        _require(isinstance(env.num_actions, int), f"{env.name}.num_actions is {env.num_actions!r}: it must be an int")
    if traits.slots is not None:
        n = space.n if isinstance(space, spaces.Discrete) else None
        _require(
            n == traits.slots.slots and traits.slots == env.table.slots,
            f"{env.name}: traits say {traits.slots}, its table {env.table.slots}, and an action is one of {n}: slots "
            "are the last block of the table, and an action chooses one of them",
        )
    for name, entries in env.mask_entries.items():
        _require(choices.get(name), f"{env.name}.mask_entries has {name!r}: it must be one of {_named(choices)}")
        part = _parts(space)[name]
        _require(
            len(entries) in (part.n, part.n * int(np.prod(part.shape)))
            and all(0 <= entry < env.table.size for entry in entries),
            f"{env.name}.mask_entries[{name!r}] is {entries}: it must be {part.n} entries of the observation",
        )


def _named(choices: Mapping[str, bool]) -> str:
    return ", ".join(name for name, choice in choices.items() if choice) or "no part, as no part is a choice"


def _check_table(env: Problem, params: PyTree) -> None:
    """The observation table describes one vector, which it joins and splits."""
    table, space = env.table, env.observation_space(params)
    fields = [field for block in table.blocks for field in block.fields]
    names = [field.name for field in fields]
    _require(len(set(names)) == len(names), f"{env.name}: its observation table has a field twice: {names}")
    for field in fields:
        _require(field.unit and field.formula, f"{env.name}: observation field {field.name!r} lacks a unit or formula")
    _require(len(table.names()) == table.size, f"{env.name}: its table names {len(table.names())} of {table.size}")
    _require(
        space.shape == (table.size,), f"{env.name}: observations of {space.shape}, its table says {(table.size,)}"
    )
    vector = jnp.arange(table.size, dtype=space.dtype)
    with _works(f"{env.name}: its table can't join what it split", "Let the fields' counts and repeats be what is due"):
        parts = table.split(vector)
        _require(np.array_equal(table.join(*parts), vector), f"{env.name}: its table joins other than it splits")
    for values in parts:
        for name, value in values.items():
            first = np.ravel(value)[0] if np.size(value) else None
            where = table.entries(name)
            _require(first is None or where[0] == first, f"{env.name}: field {name!r} is not where its table says")


def _limit(env: Problem, params: PyTree) -> int:
    least = env.parameters()["max_steps_in_episode"].least
    return min(int(params.max_steps_in_episode), max(LIMIT, int(least or 1)))


class _Step(NamedTuple):
    """One step of an episode: before it, what was done, and what came of it."""

    key: Array
    state: environment.EnvState
    observation: Float[Array, " observation"]
    action: PyTree
    masks: dict[str, Bool[Array, "..."]]
    result: PyTree  # as of `Environment.step`: what is next, of the next episode if this one ended
    final_observation: Float[Array, " observation"]
    over: Bool[Array, ""]  # what `is_terminated` says of the state after it
    measures: dict[str, Array]


_traced: list[Problem] = []
"""A problem each time its random play is traced, that is compiled."""


@partial(jax.jit, static_argnames=("env", "steps"))
def _play(env: Problem, steps: int, params: PyTree, keys: Array) -> _Step:
    """[lane, step] of actions at random, whether they are allowed or not; a new episode begins where one ends."""
    _traced.append(env)

    def step(carry: tuple, keys: Array) -> tuple[tuple, _Step]:
        observation, state, frames = carry
        action = env.action_space(params).sample(keys[0])
        step_key, reset_key = jax.random.split(keys[1])
        after, next_state, reward, terminated, info = env.step_env(step_key, state, action, params)
        truncated = env.is_truncated(next_state, params)
        start = env.reset_env(reset_key, params)
        done = terminated | truncated
        following = jax.tree.map(lambda x, y: jnp.where(done, x, y), start, (after, next_state))
        masks, over = env.action_mask(observation, params), env.is_terminated(next_state, params)
        result = (*following, reward, terminated, truncated)
        measures = env.measures(info, frames + 1, params)
        made = _Step(keys[1], state, observation, action, masks, result, after, over, measures)
        return (*following, jnp.where(done, 0, frames + 1)), made

    def lane(key: Array) -> _Step:
        reset_key, key = jax.random.split(key)
        start = (*env.reset_env(reset_key, params), jnp.zeros((), jnp.int32))
        return jax.lax.scan(step, start, jax.random.split(key, (steps, 2)))[1]

    return jax.vmap(lane)(keys)


def _keys() -> Array:
    return jax.random.split(jax.random.key(0), LANES)


def _random_play(env: Problem, params: PyTree) -> _Step:
    """Some steps of random actions, [lane, step], under vmap and scan."""
    with _works(
        f"{env.name}: random actions under jit, vmap and scan",
        "Every action of the space is valid, all numbers are traced, and a step returns what it was given the like of",
    ):
        played = _play(env, 2 * _limit(env, params) + 2, params, _keys())
        return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), played)


def _check_types(env: Problem, params: PyTree) -> None:
    """State and observation after a step are of the very types before it: else a loop compiles twice."""
    key = _keys()[0]
    action = env.action_space(params).sample(key)
    before = jax.eval_shape(env.reset_env, key, params)
    after, state, reward, terminated, _ = jax.eval_shape(env.step_env, key, before[1], action, params)
    for path, x in jax.tree_util.tree_leaves_with_path((before, (after, state))):
        _require(
            not x.weak_type,
            f"{env.name}: {jax.tree_util.keystr(path[1:])} of observation and state is weakly typed, a number of "
            "Python: make it an array of fixed type, e.g. jnp.zeros((), jnp.int32)",
        )
    _require(
        _signature(before) == _signature((after, state)),
        f"{env.name}: observation and state have other types or shapes after a step than before it: keep them",
    )
    _require(
        (reward.shape, terminated.shape) == ((), ()) and terminated.dtype == bool,
        f"{env.name}: a step's reward is {reward}, terminated {terminated}: one number, one truth value",
    )


def _check_observations(env: Problem, params: PyTree, played: _Step) -> None:
    """Observations are in their space, rewards and measures finite."""
    space, (_, _, reward, terminated, truncated) = env.observation_space(params), played.result
    for what, x in (("an observation", played.observation), ("a final observation", played.final_observation)):
        found = (x.shape[2:], x.dtype)
        _require(found == (space.shape, space.dtype), f"{env.name}: {what} is {found}, not {space.shape, space.dtype}")
        _require(np.isfinite(x).all(), f"{env.name}: {what} is not finite: {_where(env, ~np.isfinite(x))}")
        inside = jax.vmap(jax.vmap(space.contains))(x)
        _require(np.all(inside), f"{env.name}: {what} is outside its space: widen observation_space or clip")
    _require(np.isfinite(reward).all(), f"{env.name}: a reward is not finite; clip what can be infinite")
    taken = {*Episodes._fields, "return", "runs", "score"}
    for name, value in played.measures.items():
        _require(name not in taken, f"{env.name}: a measure is called {name!r}, which is taken: rename it")
        _require(value.ndim == 2, f"{env.name}: measure {name!r} has shape {value.shape[2:]}: it must be one number")
        ended = value[terminated | truncated]
        _require(np.isfinite(ended).all(), f"{env.name}: measure {name!r} of an ended episode is not finite")


def _where(env: Problem, wrong: np.ndarray) -> str:
    return env.table.names()[int(np.argwhere(wrong)[0][-1])]


def _check_ends(env: Problem, played: _Step, limit: int) -> None:
    """Episodes end; termination and truncation are told apart."""
    _, _, _, terminated, truncated = played.result
    _require(
        np.array_equal(terminated, played.over),
        f"{env.name}: step_env and is_terminated differ on whether an episode is over: mend one",
    )
    _require(
        not (terminated & truncated).any(),
        f"{env.name}: an episode is terminated and truncated at once: what is over was not cut off, so leave "
        "is_truncated to `Problem`",
    )
    length = np.zeros(terminated.shape[0], int)
    for step in range(terminated.shape[1]):
        length += 1
        done = terminated[:, step] | truncated[:, step]
        _require(
            not truncated[:, step][length < limit].any() and done[length >= limit].all(),
            f"{env.name}: with max_steps_in_episode={limit}, an episode of random actions is not truncated after just "
            "so many steps: count them in `state.time`, from 0 at reset",
        )
        one = env.traits.one_decision
        _require(not one or done.all(), f"{env.name}: traits say one_decision, but an episode goes on after it")
        length = np.where(done, 0, length)


def _check_masks(env: Problem, params: PyTree, played: _Step) -> None:
    """Masks are about the action's choices, allow one, and can be read from the observation."""
    parts = {name: part for name, part in _parts(env.action_space(params)).items() if hasattr(part, "n")}
    for name, mask in played.masks.items():
        _require(name in parts, f"{env.name}.action_mask has {name!r}: it must be one of {', '.join(parts)}")
        shape = (*mask.shape[:2], *parts[name].shape, parts[name].n)
        with _works(f"{env.name}: mask of {name!r} is {mask.shape[2:]}", f"It must fit {shape[2:]}"):
            np.broadcast_to(_lined_up(mask, len(shape)), shape)
        _require(mask.dtype == bool, f"{env.name}: mask of {name!r} holds {mask.dtype}, not truth values")
        _require(mask.any(-1).all(), f"{env.name}: mask of {name!r} allows no choice at all: one must be left")
        entries = env.mask_entries.get(name)
        _require(
            entries is not None and np.array_equal(played.observation[..., list(entries)] > 0, mask),
            f"{env.name}: mask of {name!r} can't be read from the observation, so that an exported policy would not "
            "keep it: say in mask_entries which entries are positive where a choice is allowed, and leave action_mask",
        )


def _lined_up(mask: np.ndarray, ndim: int) -> np.ndarray:
    """[lane, step, choice] with an axis for each of the part's own."""
    return mask.reshape(*mask.shape[:2], *(1,) * (ndim - mask.ndim), *mask.shape[2:])


def _check_alone(env: Problem, params: PyTree, played: _Step) -> None:
    """`reset` and `step` alone give what they gave beside others, and under scan."""
    first = jax.tree.map(lambda x: x[0], played)
    observation, state = env.reset(jax.random.split(_keys()[0])[0], params)
    start = jax.tree.map(lambda x: x[0], (first.observation, first.state))
    what = f"{env.name}: the same key gives another episode alone than under vmap and scan"
    mend = "draw from keys alone, and write for one episode: no axis of lanes, no state kept outside"
    _require_alike((observation, state), start, f"{what}, at reset", mend)
    for number in range(len(first.key)):
        now = jax.tree.map(lambda x, number=number: x[number], first)
        *found, info = env.step(now.key, now.state, now.action, params)
        _require_alike(tuple(found), now.result, f"{what}, in step {number}", mend)
        final = (info["final_observation"],)
        _require_alike(final, (now.final_observation,), f"{what}, in step {number}", mend)


def _require_alike(found: PyTree, expected: PyTree, what: str, mend: str) -> None:
    """Equal to float tolerance, of the largest magnitude in each array."""
    leaves = jax.tree_util.tree_leaves_with_path(found)
    for (path, x), y in zip(leaves, jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        scale = np.max(np.abs(y), where=np.isfinite(y), initial=0) if y.dtype.kind == "f" else 0
        slack = ROUNDINGS * float(np.finfo(y.dtype).eps) * scale if y.dtype.kind == "f" else 0
        alike = np.allclose(x, y, rtol=0, atol=slack, equal_nan=True)
        _require(alike, f"{what}: {jax.tree_util.keystr(path)} differs: {mend}")


def _signature(tree: PyTree) -> object:
    """What jit goes by: structure, types and shapes."""
    return jax.tree.structure(tree), [jax.typeof(leaf) for leaf in jax.tree.map(_abstract, jax.tree.leaves(tree))]


def _abstract(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.eval_shape(lambda: leaf)


def _check_recompiling(env: Problem, params: PyTree) -> None:
    """Any parameter can be changed without compiling anew, and episodes stay finite."""
    before = len(_traced)
    for name, about in env.parameters().items():
        changed = _changed(env, about)
        if changed is None or name == "max_steps_in_episode":
            continue
        other = params.replace(**{name: changed})
        played = _random_play(env, other)
        _require(
            len(_traced) == before,
            f"{env.name}: changing parameter {name} compiles anew: leave it a traced leaf of Params, of one type",
        )
        finite = np.isfinite(played.observation).all() and np.isfinite(played.result[2]).all()
        _require(finite, f"{env.name}: with {name}={np.asarray(changed)} a reward or observation is not finite")
    played = _play(env, 2 * _limit(env, params) + 2, params.replace(max_steps_in_episode=1), _keys())
    _require(
        len(_traced) == before, f"{env.name}: another max_steps_in_episode compiles anew: leave it a traced leaf too"
    )


def _changed(env: Problem, about: Parameter) -> Array | None:
    """Another value that the parameter may have beside the defaults of the others; None if none is found."""
    value = np.asarray(getattr(env.default_params, about.name))
    ways = {bool: [~value], int: [value + 1, value - 1], float: [value * 1.1, value * 0.9, value + 0.1]}
    for other in ways[about.kind]:
        try:
            return getattr(env.params(**{about.name: other}), about.name)
        except ValueError:
            continue
    return None
