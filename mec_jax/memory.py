"""What a program costs in memory, estimated before anything of it is built, and the limit that it must keep.

The limit is `LIMIT`, or as many GiB as the environment variable MEC_JAX_MEMORY says. It is there so that a slip of the
finger ends with a sentence, not with a machine that swaps; raise it as you like.
"""

import functools
import math
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import jax
from jax.extend import core

if TYPE_CHECKING:
    from mec_jax.contracts import Problem

__all__ = ["LIMIT", "VARIABLE", "check_episodes", "check_memory", "check_problem", "limit", "operations", "peak_bytes"]

LIMIT = 8 * 2**30
"""Byte, if the environment variable does not say another."""

VARIABLE = "MEC_JAX_MEMORY"
"""GiB, of all that a program keeps at once."""


def limit() -> float:
    """The limit in force, byte.

    Raises:
        ValueError: If the environment variable is no number above 0.
    """
    text = os.environ.get(VARIABLE)
    if text is None:
        return LIMIT
    try:
        gib = float(text)
    except ValueError:
        gib = math.nan
    if not gib > 0:
        raise ValueError(f"{VARIABLE} is {text!r}: it must be a number of GiB above 0")
    return gib * 2**30


def check_memory(what: str, needed: float) -> None:
    """Refuse what needs more memory than the limit.

    Args:
        what: What needs it, as an error calls it.
        needed: Byte.

    Raises:
        ValueError: If that is above the limit.
    """
    if needed > (most := limit()):
        raise ValueError(
            f"{what} would need about {needed / 2**30:.3g} GiB, the limit is {most / 2**30:g} GiB: make it smaller, or "
            f"set the environment variable {VARIABLE} to more GiB"
        )


def check_problem(env: "Problem") -> None:
    """Refuse an environment whose parameters, or one step of one episode, need more memory than the limit.

    Nothing of it is built. A step is traced where sizes are large enough that arrays over pairs could matter.

    Raises:
        ValueError: If they do.
    """
    axes = env.axes
    numbers = sum(math.prod(axes[axis] for axis in about.axes) for about in env.parameters().values())
    numbers += env.table.size
    check_memory(f"the parameters and observation of {env.name}", _NUMBER_BYTES * numbers)
    counts = [count for count in vars(env).values() if isinstance(count, int)]
    if max(numbers, *counts, 0) > _MANY:
        check_memory(f"a step of {env.name}", episode_bytes(env))


_NUMBER_BYTES = 64
"""Byte of a number: in NumPy, where some are worked out and all are checked, and then in JAX."""

_MANY = 2048
"""Numbers in parameters and observation, or a count: with fewer, arrays over pairs of them take less than 100 MB."""


def check_episodes(env: "Problem", count: int) -> None:
    """Refuse to play more episodes side by side than fit into the limit.

    Raises:
        ValueError: If they do not.
    """
    check_memory(f"{count} episodes of {env.name}", count * episode_bytes(env))


@functools.lru_cache(maxsize=64)
def episode_bytes(env: "Problem") -> int:
    """Estimate of what an episode keeps, byte: the peak of its first step, parameters included."""

    def start_and_step(key: jax.Array) -> Any:
        params = env.params()
        _, state = env.reset_env(key, params)
        return env.step_env(key, state, env.action_space(params).sample(key), params)

    return peak_bytes(jax.make_jaxpr(start_and_step)(jax.random.key(0)))


def peak_bytes(program: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Estimate of what a traced program keeps at once: operands, results, and between them whatever is read again.

    Programs of one operation after the other keep that much; XLA fuses some, and pads others. For the trainers here it
    is 0.6 to 1.3 times what XLA says after compiling.

    Args:
        program: `jax.make_jaxpr(function)(*arguments)`, or `jax.jit(function).trace(*arguments).jaxpr`; shapes alone do
            for arguments.
    """
    jaxpr = program.jaxpr if isinstance(program, core.ClosedJaxpr) else program
    last = {variable: at for at, equation in enumerate(jaxpr.eqns) for variable in _variables(equation.invars)}
    last |= dict.fromkeys(_variables(jaxpr.outvars), len(jaxpr.eqns))
    kept = {variable: _bytes([variable]) for variable in (*jaxpr.invars, *jaxpr.constvars)}
    now = peak = sum(kept.values())
    for at, equation in enumerate(jaxpr.eqns):
        within = max((peak_bytes(inner) - _bytes(inner.invars) for inner in _bodies(equation)), default=0)
        peak = max(peak, now + _bytes(equation.outvars) + max(within, 0))
        for variable in equation.outvars:
            if variable in last:
                kept[variable] = _bytes([variable])
                now += kept[variable]
        for variable in set(_variables(equation.invars)):
            if last[variable] == at:
                now -= kept.pop(variable)
    return peak


def operations(program: core.ClosedJaxpr | core.Jaxpr) -> float:
    """Estimate of how many numbers a traced program works out: those of loops in each turn, and of a loop whose turns
    nobody knows in `TURNS` of them. A sum of products counts as its length over a vector's.

    For the trainers here a core of a CPU does some 3e9 a second, half as many or twice.

    Args:
        program: As of `peak_bytes`.
    """
    jaxpr = program.jaxpr if isinstance(program, core.ClosedJaxpr) else program

    def size(atom: Any) -> int:
        return math.prod(getattr(atom.aval, "shape", ()))

    total = 0.0
    for equation in jaxpr.eqns:
        inner = sum(map(operations, _bodies(equation)))
        numbers = sum(map(size, equation.outvars))
        if inner:
            turns = {"scan": equation.params.get("length", 1), "while": TURNS}.get(equation.primitive.name, 1)
            total += turns * inner
        elif equation.primitive.name == "dot_general":
            _, (batched, _) = equation.params["dimension_numbers"]
            both = size(equation.invars[0]) * size(equation.invars[1])
            shared: Any = equation.invars[0].aval
            same = math.prod(shared.shape[axis] for axis in batched)
            total += math.sqrt(numbers * both / max(same, 1)) / 8
        else:
            total += numbers + STARTED
    return total


TURNS, STARTED = 8, 200
"""Of a loop without a count; and the numbers that are worked out while an operation starts."""


def _variables(atoms: Iterable[Any]) -> Iterator[core.Var]:
    return (atom for atom in atoms if not isinstance(atom, core.Literal))


def _bytes(atoms: Iterable[Any]) -> int:
    arrays = (atom.aval for atom in atoms if hasattr(atom.aval, "shape"))
    return sum(math.prod(array.shape) * array.dtype.itemsize for array in arrays)


def _bodies(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """Of loops, branches and calls."""
    for value in jax.tree.leaves(equation.params, is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr)):
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
