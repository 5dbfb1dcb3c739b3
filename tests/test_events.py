"""`lane_while` against `jax.lax.while_loop` run by plain `vmap`."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import jaxprs_in_params

from mec_jax.physics import events
from mec_jax.physics.events import BLOCK, REFILL, lane_while

pytestmark = pytest.mark.slow

Loop = Callable[[Callable, Callable, Any, Any], Any]


def plain_while(cond: Callable, body: Callable, operands: Any, init: Any) -> Any:
    """The oracle, with the signature of `lane_while`."""
    return jax.lax.while_loop(partial(cond, operands), partial(body, operands), init)


def count_below_trips(operands: Any, carry: Any) -> jax.Array:
    return carry["count"] < operands["trips"]


def advance(operands: Any, carry: Any) -> Any:
    """Contractions, so that rounding does not grow, that notice when an axis is taken for another."""

    def next_leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        if x.dtype == bool:
            return ~jnp.flip(x) ^ y
        if jnp.issubdtype(x.dtype, jnp.integer):
            return (3 * jnp.flip(x) + y + carry["count"]) % 101
        return 0.5 * x.T + y

    leaves = [next_leaf(x, y) for x, y in zip(carry["leaves"], operands["leaves"], strict=True)]
    return {"count": carry["count"] + 1, "leaves": leaves}


def run(loop: Loop, operands: Any, init: Any) -> Any:
    return loop(count_below_trips, advance, operands, init)


def assert_same(got: Any, want: Any) -> None:
    for (path, x), (same_path, y) in zip(*map(jax.tree.leaves_with_path, (got, want)), strict=True):
        assert path == same_path
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        if jnp.issubdtype(x.dtype, jnp.floating):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(x, y)


def random_array(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> jax.Array:
    values = {
        "int32": rng.integers(0, 101, shape),
        "float32": rng.normal(size=shape),
        "bool": rng.random(shape) < 0.5,
    }
    return jnp.asarray(values[dtype], dtype)


class Drawn(NamedTuple):
    """An array of a random loop, and its axis in each vmap from the outermost."""

    value: jax.Array
    axes: tuple[int | None, ...]


@st.composite
def batched_loops(draw: st.DrawFn) -> tuple[Any, Any, list[Any]]:
    """(operands, init, in_axes of each vmap from the outermost) of a random loop."""
    kind = st.sampled_from(["int32", "float32", "bool"])
    kinds = draw(st.lists(st.tuples(kind, st.sampled_from([(), (3,), (2, 2)])), min_size=1, max_size=4))
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def array(dtype: str, shape: tuple[int, ...], is_trips: bool = False) -> Drawn:
        axes: list[int | None] = []
        for size in reversed(sizes):  # the innermost vmap sees the shape closest to the lane's
            # Each vmap needs something to map: the trips.
            axis = draw(st.integers(-1, len(shape))) if is_trips or draw(st.booleans()) else None
            if axis is not None:
                at = axis % (len(shape) + 1)
                shape = (*shape[:at], size, *shape[at:])
            axes.insert(0, axis)
        value = rng.choice([0, 1, 2, 5, 30], shape) if is_trips else random_array(rng, dtype, shape)
        return Drawn(jnp.asarray(value, dtype), tuple(axes))

    trips_in_carry = draw(st.booleans())  # so that operands alone, or the carry alone, may be batched
    operands = {"trips": array("int32", (), not trips_in_carry), "leaves": [array(*kind) for kind in kinds]}
    count = array("int32", (), trips_in_carry)
    init = {"count": count._replace(value=10 - count.value), "leaves": [array(*kind) for kind in kinds]}

    def pick(function: Callable[[Drawn], Any]) -> tuple[Any, Any]:
        tree = operands, init
        return jax.tree.map(function, tree, is_leaf=lambda x: isinstance(x, Drawn))

    in_axes = [pick(lambda drawn: drawn.axes[level]) for level in range(len(sizes))]  # noqa: B023 called at once
    return *pick(lambda drawn: drawn.value), in_axes


@contextlib.contextmanager
def sizes(block: int, refill: int, min_lanes: int) -> Iterator[None]:
    """Bring a few lanes to the queue and to the halving: they compile fast."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, size in (("BLOCK", block), ("REFILL", refill), ("MIN_LANES", min_lanes)):
            monkeypatch.setattr(events, name, size)
        yield


@pytest.mark.full
@settings(max_examples=20)
@given(
    batched_loops(),
    st.sampled_from([(BLOCK, REFILL, events.MIN_LANES), (8, 3, 2), (4, 2, 1), (3, 3, 1), (1, 1, 1)]),
    st.sampled_from(["vmap", "vmap of scan", "scan of vmap"]),
)
def test_random_loops_under_nested_vmaps(batched: tuple, queue: tuple[int, int, int], where: str) -> None:
    """One to three vmaps over any axes, each operand and carry batched in any of them or in none."""
    operands, init, in_axes = batched

    def twice(function: Callable, operands: Any, init: Any) -> Any:
        def again(count: Any, _: None) -> tuple[Any, Any]:
            out = function(operands, init | {"count": count})
            return count - 1, out["leaves"]

        return jax.lax.scan(again, init["count"], None, length=2)[1]

    def of(loop: Loop) -> Any:
        function = partial(run, loop)
        if where == "vmap of scan":
            function = partial(twice, function)
        for axes in reversed(in_axes):
            function = jax.vmap(function, axes)
        if where == "scan of vmap":
            function = partial(twice, function)
        return jax.jit(function)(operands, init)

    with sizes(*queue):
        got = of(lane_while)
    assert_same(got, of(plain_while))


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("trips", [0, 1, 7])
def test_one_lane(wrap: Callable, trips: int) -> None:
    rng = np.random.default_rng(trips)
    kinds = [(dtype, shape) for dtype in ("int32", "float32", "bool") for shape in ((), (3,), (2, 2))]
    operands = {"trips": jnp.array(trips), "leaves": [random_array(rng, *kind) for kind in kinds]}
    init = {"count": jnp.array(0), "leaves": [random_array(rng, *kind) for kind in kinds]}
    got = wrap(partial(run, lane_while))(operands, init)
    assert_same(got, partial(run, plain_while)(operands, init))


def many_lanes(lanes: int) -> tuple[Any, Any, Any]:
    """Operands, init and in_axes with a batched and an unbatched leaf of each."""
    rng = np.random.default_rng(lanes)
    operands = {
        "trips": jnp.zeros(lanes, jnp.int32),
        "leaves": [random_array(rng, "float32", (lanes, 3)), jnp.array(7)],
    }
    init = {
        "count": jnp.array(0),
        "leaves": [jnp.array([1.0, 2.0, 3.0]), random_array(rng, "int32", (2, lanes))],
    }
    in_axes = ({"trips": 0, "leaves": [0, None]}, {"count": None, "leaves": [None, -1]})
    return operands, init, in_axes


@pytest.mark.parametrize("lanes", [1, 2, 3, 1000, BLOCK + 1, 2 * BLOCK + REFILL - 1, 5000])
def test_every_size_of_batch(lanes: int) -> None:
    """Below, at and above the block, with trip counts that empty it evenly, at once or lane by lane."""
    operands, init, in_axes = many_lanes(lanes)
    ours, oracle = (jax.jit(jax.vmap(partial(run, loop), in_axes)) for loop in (lane_while, plain_while))
    rng = np.random.default_rng(0)
    long_tail = np.minimum(rng.geometric(0.05, lanes) - 1, 200)
    one_long = np.where(np.arange(lanes) == lanes - 1, 200, 0)
    for trips in (
        long_tail,
        np.sort(long_tail),
        -np.sort(-long_tail),
        one_long,
        np.zeros(lanes),
        np.full(lanes, 9),
    ):
        operands["trips"] = jnp.asarray(trips, jnp.int32)
        assert_same(ours(operands, init), oracle(operands, init))


def test_nested_vmaps_are_one_loop_over_all_lanes_and_these_stay_last() -> None:
    """So that vmap(4) of vmap(9) runs as vmap(36) does, and vectorised over lanes whatever layouts XLA chooses."""
    operands, init, in_axes = many_lanes(9)
    operands["trips"] = jnp.arange(36, dtype=jnp.int32).reshape(4, 9) % 23
    nested = ({"trips": 0, "leaves": None}, None)
    with sizes(64, 16, 2):
        ours = jax.vmap(jax.vmap(partial(run, lane_while), in_axes), nested)
        loops = [str(loop) for loop in while_loops(jax.make_jaxpr(ours)(operands, init).jaxpr)]
        got = jax.jit(ours)(operands, init)
    oracle = jax.vmap(jax.vmap(partial(run, plain_while), in_axes), nested)
    assert_same(got, jax.jit(oracle)(operands, init))
    assert "f32[3,36]" in loops[0]
    assert not any("4,9]" in loop for loop in loops)
    lines = "\n".join(loops).splitlines()
    arithmetic = [line for line in lines if " = mul " in line or " = rem " in line or " = select_n " in line]
    assert any("36] =" in line for line in arithmetic)
    assert not any("[36," in line for line in arithmetic)


def while_loops(jaxpr: Any) -> Iterator[Any]:
    """The while equations of a jaxpr, outermost first."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "while":
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from while_loops(inner)


@pytest.mark.parametrize("queue", [(256, 64, 8), (8, 3, 2)], ids=["halved", "queued"])
def test_finished_lanes_keep_their_carry(queue: tuple[int, int, int]) -> None:
    """The body of a lane that has finished divides zero by zero; its carry must stay as it was."""

    def body(trips: jax.Array, carry: Any) -> Any:
        count, x = carry
        left = (trips - count).astype(x.dtype)
        return count + 1, x + left / left

    trips = jnp.asarray(np.random.default_rng(0).integers(0, 40, 100), jnp.int32)
    init = jnp.array(0), jnp.array(0.0)
    with sizes(*queue):
        per_lane = partial(lane_while, lambda trips, carry: carry[0] < trips, body)
        count, x = jax.jit(jax.vmap(per_lane, (0, None)))(trips, init)
    np.testing.assert_array_equal(count, trips)
    np.testing.assert_array_equal(x, trips)


def rich_body(operands: Any, carry: Any) -> Any:
    """Control flow, derivatives' rules, tables, products and randomness inside the body."""
    table, matrix, key = operands
    count, x = carry
    x = jax.nn.relu(matrix @ x) + table[count % 3, None] + jnp.sort(jnp.sin(x)) - jnp.cumsum(x) / 9
    x = jax.lax.cond(x[0] > 0, lambda x: x / 2, lambda x: -x / 3, x)
    x = jax.lax.fori_loop(0, count, lambda i, x: x.at[i % 3].multiply(0.9), x)
    x = x + jax.random.uniform(jax.random.fold_in(key, count), (3,))
    _, x = lane_while(lambda _, c: c[0] < 2, lambda table, c: (c[0] + 1, 0.5 * c[1] + table), table, (0, x))
    return count + 1, x / jnp.linalg.norm(x) + jnp.where(jnp.array([1.0, 0.0, 2.0]) > x, 0.0, x[::-1])


@pytest.mark.parametrize("operand_axes", [(None, None, None), (0, 2, 0)])
def test_bodies_may_hold_anything(operand_axes: tuple) -> None:
    rng, lanes = np.random.default_rng(0), 20

    def array(axis: int | None, *shape: int) -> jax.Array:
        full = shape if axis is None else (*shape[:axis], lanes, *shape[axis:])
        return jnp.asarray(rng.normal(size=full), jnp.float32)

    key = jax.random.key(0) if operand_axes[2] is None else jax.random.split(jax.random.key(0), lanes)
    operands = array(operand_axes[0], 3), array(operand_axes[1], 3, 3), key
    init = jnp.asarray(rng.integers(0, 6, lanes)), array(0, 3)
    with sizes(64, 16, 64):  # one loop: this body takes long to compile

        def of(loop: Loop) -> Any:
            per_lane = partial(loop, lambda _, carry: carry[0] < 6, rich_body)
            return jax.jit(jax.vmap(per_lane, (operand_axes, 0)))(operands, init)

        assert_same(of(lane_while), of(plain_while))


def doubled(operands: Any, x: jax.Array) -> jax.Array:
    return lane_while(lambda limit, x: x < limit, lambda limit, x: 2 * x, operands, x)


@pytest.mark.parametrize("lanes", [3, 20])
def test_no_gradient_flows_through_a_loop(lanes: int) -> None:
    x, limit = jnp.linspace(1, 2, lanes), jnp.linspace(3, 90, lanes)

    def loss(x: jax.Array, limit: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = jax.vmap(doubled)(limit, x)
        return jnp.sum(value * x), value

    with sizes(8, 3, 2):
        (by_x, by_limit), value = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, limit)
        _, tangent = jax.jit(partial(jax.jvp, jax.vmap(doubled)))((limit, x), (limit, x))
    np.testing.assert_allclose(by_x, value, rtol=1e-6)  # as if the loop were a constant
    np.testing.assert_array_equal(by_limit, 0)
    np.testing.assert_array_equal(tangent, 0)


def test_gradients_of_single_lanes_scans_and_nested_vmaps_are_zero_too() -> None:
    x, limit = jnp.linspace(1, 2, 6).reshape(2, 3), jnp.linspace(3, 90, 3)

    def scanned(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda total, limit: (total + doubled(limit, x), None), x, limit)[0]

    np.testing.assert_array_equal(jax.grad(doubled, 1)(limit[0], x[0, 0]), 0)
    np.testing.assert_array_equal(jax.vmap(jax.vmap(jax.grad(doubled, 1), (None, 0)), (None, 0))(limit[0], x), 0)
    np.testing.assert_array_equal(jax.vmap(jax.vmap(jax.grad(scanned)))(x), 1)
    np.testing.assert_array_equal(jax.grad(lambda x: jnp.sum(jax.vmap(jax.vmap(scanned))(x)))(x), 1)


def test_numbers_and_empty_operands_are_accepted() -> None:
    got = lane_while(lambda _, carry: carry[0] < 3, lambda _, carry: (carry[0] + 1, carry[1] * 2), (), (0, 1.5))
    assert (int(got[0]), float(got[1])) == (3, 12.0)
    starts = jnp.arange(5)
    got = jax.vmap(lambda i: lane_while(lambda _, i: i < 3, lambda _, i: i + 1, None, i))(starts)
    np.testing.assert_array_equal(got, [3, 3, 3, 3, 4])


def test_carry_keeps_its_dtype() -> None:
    """A body that promotes, int8 to float32 here, would make `lax.while_loop` refuse."""

    def count(i: jax.Array) -> jax.Array:
        return lane_while(lambda step, i: i < 9, lambda step, i: i + step, jnp.float32(2), i)

    for got in (count(jnp.int8(1)), jax.vmap(count)(jnp.array([1, 2, 9], jnp.int8))):
        assert got.dtype == jnp.int8
