"""What the conformance suites share: their error, tolerance, and some steps of random actions."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, PyTree
from numpy.typing import ArrayLike

from mec_jax.contracts import Problem
from mec_jax.files import reason
from mec_jax.spaces import NamedTupleSpace

ROUNDINGS = 10_000
"""Two batch shapes add floats in another order. How long the sums of an environment or a gradient step are, nobody here
knows: a thousand terms, and a condition of ten, must be allowed. In float32 that is 1.2e-3 of the largest magnitude.
"""

EXTREMES: dict[type, tuple[float, ...]] = {
    int: (-(2**31), -1, 0, 1, 10**6, 2**31 - 1),
    float: (np.nan, np.inf, -np.inf, 3e38, -3e38, -1.0, 0.0, 1e-38, 1e20),
}
"""What nobody should send, and somebody does."""

LANES = 4
LIMIT = 3
"""Episodes are truncated after so many steps, so that each lane sees some ends."""


class ConformanceError(AssertionError):
    """What a contract asks and does not find."""


def require(holds: object, message: str) -> None:
    """Raise a `ConformanceError` of the message unless it holds."""
    if not holds:
        raise ConformanceError(message)


@contextmanager
def works(what: str, mend: str) -> Iterator[None]:
    """Errors inside as a `ConformanceError` that says what does not work, why, and the mend."""
    try:
        yield
    except ConformanceError:
        raise
    except Exception as error:
        raise ConformanceError(f"{what}: {type(error).__name__}: {reason(error)}. {mend}") from error


def parts_of(space: spaces.Space, name: str = "action") -> dict[str, spaces.Space]:
    """Spaces of an action's parts by name."""
    if isinstance(space, NamedTupleSpace | spaces.Tuple):
        names: Iterable[str] = space.names if isinstance(space, NamedTupleSpace) else map(str, range(len(space.spaces)))
        named = dict(zip(names, space.spaces, strict=True))
    elif isinstance(space, spaces.Dict):
        named = dict(space.spaces)
    else:
        return {name: space}
    return {inner: leaf for part, one in named.items() for inner, leaf in parts_of(one, part).items()}


def limit_of(env: Problem, params: PyTree) -> int:
    """Steps after which episodes are truncated here."""
    least = env.parameters()["max_steps_in_episode"].least
    return min(int(params.max_steps_in_episode), max(LIMIT, int(least or 1)))


class Step(NamedTuple):
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


traced: list[Problem] = []
"""A problem each time its random play is traced, that is compiled."""


@partial(jax.jit, static_argnames=("env", "steps"))
def _play(env: Problem, steps: int, params: PyTree, keys: Array, hostile: Array) -> Step:
    """[lane, step] of actions at random, whether they are allowed or not, of which a part is hostile; a new episode
    begins where one ends.
    """
    traced.append(env)

    def spoilt(action: Array, key: Array) -> Array:
        whole = jnp.issubdtype(action.dtype, jnp.integer)
        extremes = jnp.asarray(EXTREMES[int if whole else float], action.dtype)
        pick_key, extreme_key = jax.random.split(key)
        picked = jax.random.uniform(pick_key, action.shape) < hostile
        return jnp.where(picked, jax.random.choice(extreme_key, extremes, action.shape), action)

    def step(carry: tuple, keys: Array) -> tuple[tuple, Step]:
        observation, state, frames = carry
        leaves, form = jax.tree.flatten(env.action_space(params).sample(keys[0]))
        spoil_keys = jax.random.split(jax.random.fold_in(keys[0], 1), len(leaves))
        action = jax.tree.unflatten(form, map(spoilt, leaves, spoil_keys))
        step_key, reset_key = jax.random.split(keys[1])
        after, next_state, reward, terminated, info = env.step_env(step_key, state, action, params)
        truncated = env.is_truncated(next_state, params)
        start = env.reset_env(reset_key, params)
        done = terminated | truncated
        following = jax.tree.map(lambda x, y: jnp.where(done, x, y), start, (after, next_state))
        masks, over = env.action_mask(observation, params), env.is_terminated(next_state, params)
        result = (*following, reward, terminated, truncated)
        measures = env.measures(info, frames + 1, params)
        made = Step(keys[1], state, observation, action, masks, result, after, over, measures)
        return (*following, jnp.where(done, 0, frames + 1)), made

    def lane(key: Array) -> Step:
        reset_key, key = jax.random.split(key)
        start = (*env.reset_env(reset_key, params), jnp.zeros((), jnp.int32))
        return jax.lax.scan(step, start, jax.random.split(key, (steps, 2)))[1]

    return jax.vmap(lane)(keys)


def lane_keys() -> Array:
    """Of the lanes of random play."""
    return jax.random.split(jax.random.key(0), LANES)


def random_play(env: Problem, params: PyTree, steps: int | None = None, hostile: float = 0.0) -> Step:
    """Some steps of random actions, [lane, step], under vmap and scan; by default two episodes and more.

    Args:
        env: The environment.
        params: Its parameters.
        steps: How many.
        hostile: Part of the actions' entries that are `EXTREMES`.
    """
    with works(
        f"{env.name}: random actions under jit, vmap and scan",
        "Every action of the space is valid, all numbers are traced, and a step returns the like of what it was given",
    ):
        count = steps or 2 * limit_of(env, params) + 2
        played = _play(env, count, params, lane_keys(), jnp.float32(hostile))
        return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), played)


def require_alike(found: PyTree, expected: PyTree, what: str, mend: str) -> None:
    """Equal to float tolerance, of the largest magnitude in each array."""
    leaves = jax.tree_util.tree_leaves_with_path(found)
    for (path, x), y in zip(leaves, jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        x, y = np.asarray(x), np.asarray(y)
        scale = np.max(np.abs(y), where=np.isfinite(y), initial=0) if y.dtype.kind == "f" else 0
        slack = ROUNDINGS * float(np.finfo(y.dtype).eps) * scale if y.dtype.kind == "f" else 0
        alike = np.allclose(x, y, rtol=0, atol=slack, equal_nan=True)
        require(alike, f"{what}: {jax.tree_util.keystr(path)} differs: {mend}")


def signature(tree: PyTree) -> object:
    """What jit goes by: structure, shapes and types."""
    leaves, treedef = jax.tree.flatten(jax.eval_shape(lambda tree: tree, tree))
    return treedef, [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in leaves]


def each_entry(mask: np.ndarray, batch: int, shape: tuple[int, ...]) -> np.ndarray:
    """Masks, with `batch` leading axes, as one for each entry of a part: `[*batch, *shape]`."""
    leading, own = mask.shape[:batch], mask.shape[batch:]
    aligned = mask.reshape(*leading, *(1,) * (len(shape) - len(own)), *own)
    return np.broadcast_to(aligned, (*leading, *shape))


def check_decisions(env: Problem, params: PyTree, observations: ArrayLike, actions: PyTree, what: str) -> None:
    """Require actions [decision] of the environment's space that keep to the masks of the observations."""
    space = env.action_space(params)
    with works(f"{what} is not of the form of the action space {space!r}", "Return the space's type and shapes"):
        inside = np.asarray(jax.vmap(space.contains)(actions))
    require(inside.all(), f"{what} is outside the action space {space!r}: clip it")
    masks = jax.vmap(env.action_mask, (0, None))(jnp.asarray(observations), params)
    taken = dict(zip(parts_of(space), jax.tree.leaves(actions), strict=True))
    for name, mask in masks.items():
        choice = np.asarray(taken[name])
        allowed = each_entry(np.asarray(mask), 1, (*choice.shape[1:], mask.shape[-1]))
        kept = np.take_along_axis(allowed, choice[..., None].astype(int), -1)
        require(kept.all(), f"{what} takes a choice that is masked: go by `action_mask`")
