"""Event loops that stay fast when thousands of episodes run at once.

A simulation that jumps from event to event takes a different number of steps in every episode, and plain
`jax.vmap` of `jax.lax.while_loop` keeps every lane stepping until the slowest is done. `lane_while` is the same
loop with a batching rule that keeps its vector lanes busy.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.extend.core import Literal
from jaxtyping import Array, Bool, PyTree

BLOCK = 1024
"""Lanes stepped at once on a CPU: the arrays of a block stay in its cache."""

REFILL = 256
"""Finished lanes of a block that are replaced together by waiting ones."""

MIN_LANES = 128
"""Below this many lanes gathering the live ones costs more than stepping them all."""


def lane_while(
    cond: Callable[[Any, Any], Bool[Array, ""]],
    body: Callable[[Any, Any], Any],
    operands: PyTree,
    init: PyTree,
) -> Any:
    """Run `while cond(operands, carry): carry = body(operands, carry)` for one lane.

    Lane by lane equal to `lax.while_loop`, alone and under any nesting of `vmap`, `scan` and `jit`. Under `vmap`
    all nested lane axes become one, which is put last so that XLA vectorises over it. On a CPU a block of
    `BLOCK` lanes is kept busy from a queue: when `REFILL` of them have finished, waiting lanes take their place.
    The last lanes, and all lanes of a small batch or an accelerator, run on ever fewer columns: whenever half of
    them have finished the others are gathered into arrays of half the size.

    Args:
        cond: `(operands, carry) -> bool scalar`. Must not close over traced values.
        body: `(operands, carry) -> carry`. Must not close over traced values.
        operands: What `cond` and `body` read, a pytree of arrays. An unbatched one stays unbatched.
        init: The carry at the start, a pytree of arrays.

    Returns:
        The carry when `cond` has turned false. No gradient flows through it.
    """
    operands, init = jax.tree.map(lambda x: jax.lax.stop_gradient(jnp.asarray(x)), (operands, init))
    operand_leaves, operand_def = jax.tree.flatten(operands)
    init_leaves, init_def = jax.tree.flatten(init)

    def flat_cond(operands: list[Array], carry: list[Array]) -> Bool[Array, ""]:
        return cond(jax.tree.unflatten(operand_def, operands), jax.tree.unflatten(init_def, carry))

    def flat_body(operands: list[Array], carry: list[Array]) -> list[Array]:
        new = jax.tree.leaves(body(jax.tree.unflatten(operand_def, operands), jax.tree.unflatten(init_def, carry)))
        return [jnp.asarray(x, old.dtype) for x, old in zip(new, carry, strict=True)]

    @custom_vmap
    def loop(operands: list[Array], init: list[Array]) -> list[Array]:
        return jax.lax.while_loop(
            lambda carry: flat_cond(operands, carry), lambda carry: flat_body(operands, carry), init
        )

    @loop.def_vmap
    def batched_loop(axis_size: int, in_batched: Any, operands: list[Array], init: list[Array]) -> Any:
        operand_batched, init_batched = in_batched
        lanes = _lanes(flat_cond, flat_body, tuple(operand_batched), axis_size)
        out = lanes(operands, _broadcast(init, init_batched, axis_size))
        return out, [True] * len(out)

    return jax.tree.unflatten(init_def, loop(operand_leaves, init_leaves))


def _broadcast(leaves: list[Array], batched: list[bool], size: int) -> list[Array]:
    return [
        x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
        for x, is_batched in zip(leaves, batched, strict=True)
    ]


def _lanes(cond: Callable, body: Callable, batched: tuple[bool, ...], lanes: int) -> Callable:
    """The loop over `lanes` lanes: lane axis first on `batched` operands and on the whole carry.

    It is a `custom_vmap` itself, so that an outer `vmap` adds its lanes to these instead of nesting the loops.
    """

    @custom_vmap
    def loop(operands: list[Array], init: list[Array]) -> list[Array]:
        to_last = [jnp.moveaxis(x, 0, -1) if b else x for x, b in zip(operands, batched, strict=True)]
        out = _run(_Step(cond, body, batched), to_last, [jnp.moveaxis(x, 0, -1) for x in init])
        return [jnp.moveaxis(x, -1, 0) for x in out]

    @loop.def_vmap
    def merged_loop(axis_size: int, in_batched: Any, operands: list[Array], init: list[Array]) -> Any:
        outer_batched, init_batched = in_batched

        def merge(x: Array) -> Array:
            return x.reshape(axis_size * lanes, *x.shape[2:])

        merged, either = [], []
        for x, outer, inner in zip(operands, outer_batched, batched, strict=True):
            if inner and not outer:
                x = jnp.broadcast_to(x, (axis_size, *x.shape))
            elif outer and not inner:
                x = jnp.broadcast_to(x[:, None], (axis_size, lanes, *x.shape[1:]))
            merged.append(merge(x) if outer or inner else x)
            either.append(outer or inner)
        all_lanes = _lanes(cond, body, tuple(either), axis_size * lanes)
        out = all_lanes(merged, [merge(x) for x in _broadcast(init, init_batched, axis_size)])
        return [x.reshape(axis_size, lanes, *x.shape[1:]) for x in out], [True] * len(out)

    return loop


class _Step:
    """One step of every lane (last axis); lanes that have finished keep their carry."""

    def __init__(self, cond: Callable, body: Callable, batched: tuple[bool, ...]) -> None:
        self.batched = batched
        self._cond = _lane_last(lambda operands, carry: [cond(operands, carry)])
        self._body = _lane_last(body)

    def live(self, operands: list[Array], carry: list[Array]) -> Array:
        return self._cond(self.batched, operands, carry)[0]

    def __call__(self, operands: list[Array], carry: list[Array], live: Array) -> tuple[list[Array], Array]:
        new = self._body(self.batched, operands, carry)
        carry = [jnp.where(live, x, old) for x, old in zip(new, carry, strict=True)]
        return carry, live & self.live(operands, carry)

    def map_operands(self, function: Callable[..., Array], *operands: list[Array]) -> list[Array]:
        """Apply `function` to the batched operands; keep the others."""
        return [function(*x) if b else x[0] for b, *x in zip(self.batched, *operands, strict=True)]


def _lane_last(function: Callable) -> Callable:
    """`jax.vmap` over the last axis of the batched operands and of the whole carry that keeps it last throughout.

    Where a batched vector meets an unbatched one, as in `x > 0`, `jax.vmap` moves the lane axis to the front and
    leaves it to XLA's choice of layouts to undo that. In programs for several devices XLA does not: 3 times slower.
    """

    def mapped(batched: tuple[bool, ...], operands: list[Array], carry: list[Array]) -> list[Array]:
        lanes = carry[0].shape[-1]
        args = [*operands, *carry]
        is_batched = [*batched, *(True for _ in carry)]
        avals = [
            jax.ShapeDtypeStruct(x.shape[:-1] if b else x.shape, x.dtype) for x, b in zip(args, is_batched, strict=True)
        ]
        jaxpr = jax.make_jaxpr(lambda *x: function(list(x[: len(operands)]), list(x[len(operands) :])))(*avals)
        return [_spread(x, b, lanes) for x, b in _evaluate(jaxpr, args, is_batched, lanes)]

    return mapped


def _evaluate(closed: Any, args: list[Array], batched: list[bool], lanes: int) -> list[tuple[Array, bool]]:
    """Outputs of a one-lane jaxpr on lane-last arrays, and which of them are batched."""
    jaxpr = closed.jaxpr
    known = dict(zip(jaxpr.constvars, ((x, False) for x in closed.consts), strict=True))
    known |= zip(jaxpr.invars, zip(args, batched, strict=True), strict=True)

    def read(variable: Any) -> tuple[Array, bool]:
        return (variable.val, False) if isinstance(variable, Literal) else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        any_batched = any(b for _, b in inputs)
        if equation.primitive.name == "jit":
            values, flags = [x for x, _ in inputs], [b for _, b in inputs]
            outputs = _evaluate(equation.params["jaxpr"], values, flags, lanes)
        else:
            apply = partial(equation.primitive.bind, **equation.primitive.get_bind_params(equation.params))
            shapes = {variable.aval.shape for variable in (*equation.invars, *equation.outvars)}
            if any_batched and len(shapes) == 1:  # as elementwise operations have
                inputs = [(_spread(x, b, lanes), True) for x, b in inputs]
            if any_batched:
                apply = jax.vmap(apply, in_axes=[-1 if b else None for _, b in inputs], out_axes=-1)
            out = apply(*(x for x, _ in inputs))
            outputs = [(x, any_batched) for x in (out if equation.primitive.multiple_results else [out])]
        known |= zip(equation.outvars, outputs, strict=True)
    return [read(variable) for variable in jaxpr.outvars]


def _spread(x: Array, batched: bool, lanes: int) -> Array:
    return x if batched else jnp.broadcast_to(jnp.asarray(x)[..., None], (*jnp.shape(x), lanes))


def _run(step: _Step, operands: list[Array], init: list[Array]) -> list[Array]:
    live = step.live(operands, init)
    if live.shape[0] > BLOCK and jax.default_backend() == "cpu":
        return _queue(step, operands, init, live)
    return _halve(step, operands, init, live)


def _halve(step: _Step, operands: list[Array], init: list[Array], live: Array) -> list[Array]:
    """Run until half of the lanes are done, gather the others, go on with those, scatter them back."""
    lanes = live.shape[0]
    half = lanes // 2
    last = half < MIN_LANES
    carry, live = jax.lax.while_loop(
        lambda state: jnp.any(state[1]) if last else jnp.sum(state[1]) > half,
        lambda state: step(operands, *state),
        (init, live),
    )
    if last:
        return carry
    (index,) = jnp.nonzero(live, size=half, fill_value=lanes)

    def take(x: Array) -> Array:
        return x.at[..., index].get(mode="clip")

    live = live.at[index].get(mode="fill", fill_value=False)
    few = _halve(step, step.map_operands(take, operands), [take(x) for x in carry], live)
    return [x.at[..., index].set(y, mode="drop") for x, y in zip(carry, few, strict=True)]


def _queue(step: _Step, operands: list[Array], init: list[Array], live: Array) -> list[Array]:
    """Keep `BLOCK` columns busy: as soon as `REFILL` of them are done, waiting lanes take their places."""
    lanes = live.shape[0]
    padding = -(lanes - BLOCK) % REFILL

    def pad(x: Array) -> Array:
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padding)], mode="edge")

    operands, init = step.map_operands(pad, operands), [pad(x) for x in init]
    live = jnp.pad(live, (0, padding))
    index = jnp.arange(lanes + padding)

    def refill(state: tuple) -> tuple:
        out, start, lane, block_operands, carry, block_live = state
        carry, block_live = jax.lax.while_loop(
            lambda running: jnp.sum(running[1]) > BLOCK - REFILL,
            lambda running: step(block_operands, *running),
            (carry, block_live),
        )
        (free,) = jnp.nonzero(~block_live, size=REFILL)

        def put(block: Array, waiting: Array) -> Array:
            new = jax.lax.dynamic_slice_in_dim(waiting, start, REFILL, axis=-1)
            return block.at[..., free].set(new)

        out = [x.at[..., lane[free]].set(y[..., free]) for x, y in zip(out, carry, strict=True)]
        carry = [put(x, y) for x, y in zip(carry, init, strict=True)]
        block_operands = step.map_operands(put, block_operands, operands)
        return out, start + REFILL, put(lane, index), block_operands, carry, put(block_live, live)

    def head(x: Array) -> Array:
        return x[..., :BLOCK]

    block = (head(index), step.map_operands(head, operands), [head(x) for x in init], head(live))
    out, _, lane, block_operands, carry, block_live = jax.lax.while_loop(
        lambda state: state[1] < lanes + padding, refill, (init, jnp.array(BLOCK), *block)
    )
    carry = _halve(step, block_operands, carry, block_live)
    return [x.at[..., lane].set(y)[..., :lanes] for x, y in zip(out, carry, strict=True)]
