"""Whether an environment keeps what `mec_jax.contracts.Problem` asks."""

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, PyTree

from mec_jax.contracts import Episodes, Problem
from mec_jax.files import reason
from mec_jax.parameters import Parameter, shape_of
from mec_jax.spaces import DiscreteArray
from mec_jax.testing.common import (
    EXTREMES,
    ConformanceError,
    Step,
    each_entry,
    lane_keys,
    limit_of,
    parts_of,
    random_play,
    require,
    require_alike,
    signature,
    traced,
    works,
)


def check_env(env: Problem, params: PyTree = None) -> None:
    """Check an environment: what it declares, its parameters, its episodes, and that all numbers are traced.

    Args:
        env: The environment; a view of one whose parameters are not declared (`mec_jax.interop.foreign`) won't do.
        params: What its episodes are played with; the defaults if None.

    Raises:
        ConformanceError: If something is wrong; the message names it and the mend.
    """
    _check_equality(env)
    with works(f"{env.name}.parameters()", "Declare each field of Params with mec_jax.parameters.parameter"):
        env.parameters()
    with works(f"{env.name}.default_params", "Every parameter needs a default, of the table or of `given`"):
        params = env.default_params if params is None else params
    _check_parameters(env)
    _check_refusals(env)
    _check_traced_parameters(env)
    _check_scenario(env, params)
    _check_action_space(env, params)
    _check_table(env, params)
    limit = limit_of(env, params)
    params = params.replace(max_steps_in_episode=limit)
    played = random_play(env, params)
    _check_types(env, params)
    _check_observations(env, params, played)
    _check_quantities(env, params)
    _check_ends(env, played, limit)
    _check_masks(env, params, played)
    _check_alone(env, params, played)
    _check_recompiling(env, params)
    _check_hostile(env, params, played)


def _check_equality(env: Problem) -> None:
    """Environments of equal statics are one to jit."""
    name, statics = type(env).__name__, {key: value for key, value in vars(env).items() if key != "env_id"}
    for key, value in statics.items():
        with works(f"{name}.{key} can't be hashed", "Keep tuples and frozen dataclasses, no arrays, lists or dicts"):
            hash(value)
        same = copy.deepcopy(value) == value
        require(same is True, f"{name}.{key} does not equal its own copy: keep what compares by value, no functions")
    twin = copy.deepcopy(env).called("another id")
    require(
        twin == env and hash(twin) == hash(env),
        f"{name}: equal statics, but not equal environments, so that each `make` compiles anew: leave __eq__ and "
        "__hash__ to `Problem`, and only what sets shapes in the constructor's attributes",
    )


def _check_parameters(env: Problem) -> None:
    """The defaults are what the table declares."""
    table, axes, params = env.parameters(), env.axes, env.default_params
    require(
        type(params) is env.params_type, f"{env.name}.default_params is no {env.params_type.__name__}: leave it alone"
    )
    limit = params.max_steps_in_episode
    require(
        type(limit) is int,
        f"{env.name}: max_steps_in_episode is {limit!r}: annotate it as `int`, so that it is one of Python's, which "
        "other libraries expect",
    )
    for name, about in table.items():
        if missing := [axis for axis in about.axes if axis not in axes]:
            raise ConformanceError(
                f"{env.name}: parameter {name} has an axis {missing[0]!r}: name its length in `axes`"
            )
        value = getattr(params, name)
        shape, found = shape_of(about, axes), np.shape(value)
        require(found == shape, f"{env.name}: parameter {name} has shape {found}, declared is {shape}: mend one")
        kind = {"b": bool, "i": int, "f": float}.get(jnp.asarray(value).dtype.kind)
        require(kind is about.kind, f"{env.name}: parameter {name} is {value!r}, no {about.kind.__name__}: mend one")
        require(np.all(np.isfinite(value)), f"{env.name}: parameter {name} is not finite: give it a finite default")
        require(about.unit and about.source, f"{env.name}: parameter {name} lacks a unit ('1' if none) or a source")


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
    yield about.least - 1, "it is below its range"
    yield 2 * about.most + 1, "it is above its range"
    yield (float("nan"), "it is not finite") if about.kind is float else (float(first) + 0.5, "it is not whole")


def _must_refuse(env: Problem, name: str, value: object, why: str, **others: Any) -> None:
    given: dict[str, Any] = {name: value, **others}
    wrong = f"{env.name}.params({name}={value!r}), where {why}"
    try:
        env.params(**given)
    except ValueError as error:
        named = name in str(error)
        require(named, f"{wrong}: the error does not name it ({reason(error)}): let `Problem.params` check it")
        return
    except Exception as error:
        raise ConformanceError(
            f"{wrong}: {type(error).__name__}, not ValueError: check before you calculate"
        ) from error
    raise ConformanceError(f"{wrong}, is not refused: let `Problem.params` check it against its table")


def _check_traced_parameters(env: Problem) -> None:
    """Parameters can be made of traced numbers, those worked out from others too."""
    default, table = env.default_params, env.parameters()
    for field in dataclasses.fields(env.params_type):
        require(
            field.metadata.get("pytree_node", True),
            f"{env.name}: changing parameter {field.name} compiles anew: leave it a traced leaf of Params",
        )
    numbers = {name: jnp.asarray(getattr(default, name)) for name, about in table.items() if not about.is_python}
    own = {name: value for name, value in numbers.items() if not isinstance(table[name].default, str)}
    for some in (numbers, own):
        with works(
            f"{env.name}.params of traced numbers", "`given`, `derived` and `check_params` must not ask for values"
        ):
            jax.eval_shape(lambda some: env.params(**some), some)


def _check_scenario(env: Problem, params: PyTree) -> None:
    with works(f"{env.name}.evaluation_params", "It takes parameters or None, and returns parameters"):
        env.evaluation_params()
        once = env.evaluation_params(params)
        twice = env.evaluation_params(once)
    require(
        signature(once) == signature(params),
        f"{env.name}.evaluation_params changes types or shapes, so that the scenario compiles anew: keep them",
    )
    same = all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(once), jax.tree.leaves(twice), strict=True))
    require(same, f"{env.name}.evaluation_params of a scenario is another scenario: set numbers, don't scale them")


def _check_action_space(env: Problem, params: PyTree) -> None:
    """Its parts are what the traits say, and masks are about them."""
    space, choices, traits = env.action_space(params), _choices(env, params), env.traits
    for said, found, kind in (
        (traits.discrete, bool(choices), "discrete"),
        (traits.continuous, len(choices) < len(parts_of(space)), "continuous"),
    ):
        require(said == found, f"{env.name}: traits say {kind}={said}, {space!r} says {found}: mend one")
    samples = jax.vmap(space.sample)(jax.random.split(jax.random.key(0), 100))
    require(np.all(jax.vmap(space.contains)(samples)), f"{env.name}: {space!r} does not contain its own samples")
    with works(f"{env.name}.num_actions", "Its action space must work with the default parameters"):
        require(isinstance(env.num_actions, int), f"{env.name}.num_actions is {env.num_actions!r}: it must be an int")
    if traits.slots is not None:
        n = space.n if isinstance(space, spaces.Discrete) else None
        require(
            n == traits.slots.slots and traits.slots == env.table.slots,
            f"{env.name}: traits say {traits.slots}, its table {env.table.slots}, and an action is one of {n}: slots "
            "are the last block of the table, and an action chooses one of them",
        )
    for name, entries in env.mask_entries.items():
        require(name in choices, f"{env.name}.mask_entries has {name!r}: it must be one of {_named(choices)}")
        shape, n = choices[name].shape, int(choices[name].n)
        require(
            shape == () and len(entries) == n and all(0 <= entry < env.table.size for entry in entries),
            f"{env.name}.mask_entries[{name!r}] is {entries}, for a part of shape {shape}: it must be the {n} entries "
            "of one choice in the observation",
        )


def _choices(env: Problem, params: PyTree) -> dict[str, spaces.Discrete | DiscreteArray]:
    """Parts of an action that are choices."""
    parts = parts_of(env.action_space(params))
    return {name: part for name, part in parts.items() if isinstance(part, spaces.Discrete | DiscreteArray)}


def _named(choices: Mapping[str, object]) -> str:
    return ", ".join(choices) or "none, as no part of an action is a choice"


def _check_table(env: Problem, params: PyTree) -> None:
    """The observation table describes one vector, which it joins and splits."""
    table, space = env.table, env.observation_space(params)
    fields = [field for block in table.blocks for field in block.fields]
    names = [field.name for field in fields]
    require(len(set(names)) == len(names), f"{env.name}: its observation table has a field twice: {names}")
    for field in fields:
        require(field.unit and field.formula, f"{env.name}: observation field {field.name!r} lacks a unit or formula")
    require(len(table.names()) == table.size, f"{env.name}: its table names {len(table.names())} of {table.size}")
    require(space.shape == (table.size,), f"{env.name}: observations of {space.shape}, its table says {(table.size,)}")
    vector = jnp.arange(table.size, dtype=space.dtype)
    with works(f"{env.name}: its table can't join what it split", "Let the fields' counts and repeats be what is due"):
        parts = table.split(vector)
        require(np.array_equal(table.join(*parts), vector), f"{env.name}: its table joins other than it splits")
    for values in parts:
        for name, value in values.items():
            first = np.ravel(value)[0] if np.size(value) else None
            where = table.entries(name)
            require(first is None or where[0] == first, f"{env.name}: field {name!r} is not where its table says")


def _check_quantities(env: Problem, params: PyTree) -> None:
    """Where the table has transforms, they make the observation of the quantities: a device goes by them."""
    if all(field.transform is None for block in env.table.blocks for field in block.fields):
        return

    def seen(key: Array) -> tuple[Array, Array]:
        _, state = env.reset_env(key, params)
        own = env.observe(key, state, None, params)
        return env.table.observe(env.quantities(state, params), params, own.dtype), own

    with works(f"{env.name}.quantities", "Name each quantity of its table, those beside the fields included"):
        by_table, own = jax.jit(jax.vmap(seen))(lane_keys())
    mend = "let `observe` be `table.observe` of the `quantities`"
    require_alike(by_table, own, f"{env.name}: what its table makes of its quantities", mend)


def _check_types(env: Problem, params: PyTree) -> None:
    """State and observation after a step are of the very types before it: else a loop compiles twice."""
    key = lane_keys()[0]
    action = env.action_space(params).sample(key)
    before = jax.eval_shape(env.reset_env, key, params)
    after, state, reward, terminated, _ = jax.eval_shape(env.step_env, key, before[1], action, params)
    for path, x in jax.tree_util.tree_leaves_with_path((before, (after, state))):
        require(
            not x.weak_type,
            f"{env.name}: {jax.tree_util.keystr(path[1:])} of observation and state is weakly typed, a number of "
            "Python: make it an array of fixed type, e.g. jnp.zeros((), jnp.int32)",
        )
    require(
        signature(before) == signature((after, state)),
        f"{env.name}: observation and state have other types or shapes after a step than before it: keep them",
    )
    require(
        (reward.shape, terminated.shape) == ((), ()) and terminated.dtype == bool,
        f"{env.name}: a step's reward is {reward}, terminated {terminated}: one number, one truth value",
    )


def _check_observations(env: Problem, params: PyTree, played: Step) -> None:
    """Observations are in their space, rewards and measures finite."""
    space, (_, _, reward, terminated, truncated) = env.observation_space(params), played.result
    for what, x in (("an observation", played.observation), ("a final observation", played.final_observation)):
        found = (x.shape[2:], x.dtype)
        require(found == (space.shape, space.dtype), f"{env.name}: {what} is {found}, not {space.shape, space.dtype}")
        wrong = [env.table.names()[entry] for entry in np.unique(np.argwhere(~np.isfinite(x))[:, -1])]
        require(not wrong, f"{env.name}: {what} is not finite: {', '.join(wrong)}; clip what can be infinite")
        inside = jax.vmap(jax.vmap(space.contains))(x)
        require(np.all(inside), f"{env.name}: {what} is outside its space: widen observation_space or clip")
    require(np.isfinite(reward).all(), f"{env.name}: a reward is not finite; clip what can be infinite")
    taken = {*Episodes._fields, "return", "runs", "actions", "score"}
    for name, value in played.measures.items():
        require(name not in taken, f"{env.name}: a measure is called {name!r}, which is taken: rename it")
        require(value.ndim == 2, f"{env.name}: measure {name!r} has shape {value.shape[2:]}: it must be one number")
        ended = value[terminated | truncated]
        require(np.isfinite(ended).all(), f"{env.name}: measure {name!r} of an ended episode is not finite")


def _check_ends(env: Problem, played: Step, limit: int) -> None:
    """Episodes end; termination and truncation are told apart."""
    _, _, _, terminated, truncated = played.result
    require(
        np.array_equal(terminated, played.over),
        f"{env.name}: step_env and is_terminated differ on whether an episode is over: mend one",
    )
    require(
        not (terminated & truncated).any(),
        f"{env.name}: an episode is terminated and truncated at once: what is over was not cut off, so leave "
        "is_truncated to `Problem`",
    )
    length = np.zeros(terminated.shape[0], int)
    for step in range(terminated.shape[1]):
        length += 1
        done = terminated[:, step] | truncated[:, step]
        require(
            not truncated[:, step][length < limit].any() and done[length >= limit].all(),
            f"{env.name}: with max_steps_in_episode={limit}, an episode of random actions is not truncated after just "
            "so many steps: count them in `state.time`, from 0 at reset",
        )
        one = env.traits.one_decision
        require(not one or done.all(), f"{env.name}: traits say one_decision, but an episode goes on after it")
        length = np.where(done, 0, length)


def _check_masks(env: Problem, params: PyTree, played: Step) -> None:
    """Masks are about the action's choices, allow one, and can be read from the observation."""
    choices = _choices(env, params)
    for name, mask in played.masks.items():
        require(name in choices, f"{env.name}.action_mask has {name!r}: it must be one of {_named(choices)}")
        shape = (*choices[name].shape, int(choices[name].n))
        with works(f"{env.name}: mask of {name!r} has shape {mask.shape[2:]}", f"It must fit {shape}"):
            each_entry(np.asarray(mask), 2, shape)
        require(mask.dtype == bool, f"{env.name}: mask of {name!r} holds {mask.dtype}, not truth values")
        require(mask.any(-1).all(), f"{env.name}: mask of {name!r} allows no choice at all: one must be left")
        entries = env.mask_entries.get(name)
        require(
            entries is not None and np.array_equal(played.observation[..., list(entries)] > 0, mask),
            f"{env.name}: mask of {name!r} can't be read from the observation, so that an exported policy would not "
            "keep it: say in mask_entries which entries are positive where a choice is allowed, and leave action_mask",
        )


def _check_alone(env: Problem, params: PyTree, played: Step) -> None:
    """`reset` and `step` alone give what they gave beside others, and under scan."""
    first = jax.tree.map(lambda x: x[0], played)
    observation, state = env.reset(jax.random.split(lane_keys()[0])[0], params)
    start = jax.tree.map(lambda x: x[0], (first.observation, first.state))
    what = f"{env.name}: the same key gives another episode alone than under vmap and scan"
    mend = "draw from keys alone, and write for one episode: no axis of lanes, no state kept outside"
    require_alike((observation, state), start, f"{what}, at reset", mend)
    for number in range(len(first.key)):
        now = jax.tree.map(lambda x, number=number: x[number], first)
        *found, info = env.step(now.key, now.state, now.action, params)
        require_alike(tuple(found), now.result, f"{what}, in step {number}", mend)
        final = (info["final_observation"],)
        require_alike(final, (now.final_observation,), f"{what}, in step {number}", mend)


def _check_recompiling(env: Problem, params: PyTree) -> None:
    """Any parameter can be changed without compiling anew, and episodes stay finite."""
    before = len(traced)
    for name, about in env.parameters().items():
        changed = _changed(env, about)
        if changed is None or name == "max_steps_in_episode":
            continue
        other = params.replace(**{name: changed})
        played = random_play(env, other)
        require(
            len(traced) == before,
            f"{env.name}: changing parameter {name} compiles anew: leave it a traced leaf of Params, of one type",
        )
        finite = np.isfinite(played.observation).all() and np.isfinite(played.result[2]).all()
        require(finite, f"{env.name}: with {name}={np.asarray(changed)} a reward or observation is not finite")
    random_play(env, params.replace(max_steps_in_episode=1), steps=2 * limit_of(env, params) + 2)
    require(
        len(traced) == before, f"{env.name}: another max_steps_in_episode compiles anew: leave it a traced leaf too"
    )


def _check_hostile(env: Problem, params: PyTree, played: Step) -> None:
    """Actions and parameters that nobody should send leave observations, rewards and states finite."""
    mend = "clip what is out of range, and let NaN mean the least"
    _require_finite(env, params, played, random_play(env, params, hostile=0.5), "actions out of range or NaN", mend)
    mend = "declare a `least` and `most` of it beside which nothing overflows"
    for name, about in env.parameters().items():
        value = getattr(params, name)
        for extreme in EXTREMES.get(about.kind, ()):
            wrong = int(extreme) if about.is_python else np.full(np.shape(value), extreme, np.asarray(value).dtype)
            other = params.replace(**{name: wrong})
            after = random_play(env, other, played.over.shape[1])
            _require_finite(env, other, played, after, f"{name}={extreme} put in by `replace`", mend)


def _require_finite(env: Problem, params: PyTree, usual: Step, played: Step, what: str, mend: str) -> None:
    """Require observations of their space, and numbers that are finite where those of usual play are."""
    space = env.observation_space(env.bounded(params))
    seen = np.concatenate([played.observation, played.final_observation])
    inside = np.isfinite(seen).all() and np.all(jax.vmap(jax.vmap(space.contains))(seen))
    require(inside, f"{env.name}: with {what}, an observation is not finite or outside its space: {mend}")
    require(np.isfinite(played.result[2]).all(), f"{env.name}: with {what}, a reward is not finite: {mend}")
    for (path, x), before in zip(
        jax.tree_util.tree_leaves_with_path(played.result[1]), jax.tree.leaves(usual.result[1]), strict=True
    ):
        fine = x.dtype.kind != "f" or np.isfinite(x).all() or not np.isfinite(before).all()
        require(fine, f"{env.name}: with {what}, {jax.tree_util.keystr(path)} of the state is not finite: {mend}")


def _changed(env: Problem, about: Parameter) -> Array | None:
    """Another value that the parameter may have beside the defaults of the others; None if none is found."""
    value = np.asarray(getattr(env.default_params, about.name))
    ways: dict[type, tuple[Any, ...]] = {bool: (1,), int: (1, -1), float: (0.1 * value, -0.1 * value, 0.1)}
    for step in ways[about.kind]:
        other = np.logical_not(value) if about.kind is bool else value + step
        try:
            return getattr(env.params(**{about.name: other}), about.name)
        except ValueError:
            continue
    return None
