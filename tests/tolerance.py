"""How far two float32 implementations may be apart: one rule, and a policy's forward pass that carries it along.

A float32 operation rounds its result by at most eps / 2 of it. In a sum of `count` products a term is rounded once as a
product and at most `count - 1` times on its way through the additions, in whatever order, fused or not. So a correct
implementation is off the exact value by at most

    c * eps * (sum of the magnitudes added up),    c = count / 2.

No machine and no library can be worse, and nothing is compared with anything but a float64 value: two implementations
are then apart by at most twice that. What comes in with an error is added: a matrix product carries it on by the
magnitudes of its weights, and a monotone function by the interval that it maps it to, which is its Lipschitz constant
there and no more.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

from mec_jax.policy import AS_RETURNED, Policy

ROUNDING = float(np.finfo(np.float32).eps) / 2
"""Of one operation, relative to its result."""

UNDERFLOW = float(np.finfo(np.float32).tiny)
"""Of one operation, absolute: some libraries make zero of what is smaller."""

FUNCTION = 16
"""Roundings of tanh, sigmoid, softplus, exp and of standardising. The most of NumPy, XLA and PyTorch is 5, measured."""

type _Doubles = NDArray[np.float64]
type _Function = Callable[[_Doubles], _Doubles]


class Bounded(NamedTuple):
    """Float64 values and how far a float32 implementation may be off them, of one shape."""

    value: _Doubles
    error: _Doubles


def close(actual: ArrayLike, expected64: ArrayLike, magnitudes: ArrayLike, count: int) -> None:
    """Assert that float32 sums are right.

    Args:
        actual: The sums.
        expected64: What they are, worked out in float64 from the same float32 numbers.
        magnitudes: The sums of their terms' magnitudes; of a product or quotient, its own.
        count: How often a term may be rounded: in a sum, as often as there are terms.
    """
    magnitudes = np.abs(np.asarray(magnitudes, float))
    assert_within(actual, Bounded(np.asarray(expected64, float), count * (ROUNDING * magnitudes + UNDERFLOW)))


def assert_within(actual: ArrayLike, expected: Bounded, name: str = "") -> None:
    """Assert that all of it is as near to its float64 value as float32 must be."""
    found = np.asarray(actual)
    assert found.shape == expected.value.shape, name
    off = np.abs(found.astype(float) - expected.value)
    wrong = ~(off <= expected.error)  # a NaN, too
    if wrong.any():
        worst = np.unravel_index(np.argmax(np.where(wrong, off - expected.error, -np.inf)), off.shape)
        where = tuple(map(int, worst))
        says = f"{found[where]} at {where} of {name or 'the array'} is {off[where]:.3g} off {expected.value[where]:.9g}"
        raise AssertionError(f"{says}, may be {np.broadcast_to(expected.error, off.shape)[where]:.3g}")


# Policies


class Said(NamedTuple):
    """What a head says of observations, and the action that follows."""

    parts: tuple[Bounded, ...]  # logits, or mean and standard deviation
    action: Bounded  # the likeliest; a choice has no error
    clear: NDArray[np.bool_]  # where no rounding error changes it, of the action's shape


def said_by(policy: Policy, observations: NDArray[np.float32]) -> dict[str, Said]:
    """What a policy says of observations [..., size], by head, from the description in `mec_jax.policy_schema`."""
    network = policy.metadata["network"]
    activation = _ACTIVATIONS[network["activation"]]
    lead = observations.shape[:-1]
    seen = observations.reshape(-1, observations.shape[-1])
    x = _standardised(seen.astype(float), policy.metadata["observation"]["normalisation"])
    if "per_slot" in network:
        x = Bounded(*(_rows(part, **network["per_slot"]) for part in x))
    for layer in network["trunk"]:
        x = activation(_dense(policy, layer, x))
    said = {}
    for head in network["heads"]:
        raw = x
        for layer in head["layers"][:-1]:
            raw = activation(_dense(policy, layer, raw))
        raw = _dense(policy, head["layers"][-1], raw)
        raw = Bounded(*(part.swapaxes(0, 1) for part in raw))  # [batch, net, outputs]
        shape = (*lead, *head["shape"])
        if head["kind"] == "categorical":
            logits = Bounded(*(part.reshape(*shape, head["size"]) for part in raw))
            if "allowed" in head:
                allowed = observations[..., head["allowed"]] > 0
                least = float(np.finfo(np.float32).min)
                logits = Bounded(np.where(allowed, logits.value, least), np.where(allowed, logits.error, 0))
            said[head["name"]] = _choice(logits)
        else:
            mean, std = (Bounded(*(np.split(part, 2, -1)[half].reshape(shape) for part in raw)) for half in (0, 1))
            said[head["name"]] = _number(mean, std, head)
    return said


def assert_says(found: Mapping[str, Iterable[ArrayLike]], said: Mapping[str, Said]) -> None:
    """Assert that a `distribution` of a policy is what it must be."""
    assert list(found) == list(said)
    for name, parts in found.items():
        for part, expected in zip(parts, said[name].parts, strict=True):
            assert_within(part, expected, name)


def assert_acts(found: Mapping[str, ArrayLike], said: Mapping[str, Said], share: float = 0.99) -> None:
    """Assert that the likeliest actions are what they must be, as far as that is clear; it is for at least a share."""
    assert list(found) == list(said)
    for name, actual in found.items():
        _, action, clear = said[name]
        if np.issubdtype(np.asarray(actual).dtype, np.floating):
            assert_within(actual, action, name)
            continue
        assert np.shape(actual) == action.value.shape, name
        assert not clear.size or clear.mean() > share, name
        np.testing.assert_array_equal(np.asarray(actual)[clear], action.value[clear], name)


def _through(function: _Function, x: Bounded, roundings: int = FUNCTION) -> Bounded:
    """A monotone function's value, and the errors of its argument and of its own."""
    value, low, high = (function(x.value + sign * x.error) for sign in (0, -1, 1))
    own = ROUNDING * np.maximum(np.abs(low), np.abs(high)) + UNDERFLOW
    return Bounded(value, np.maximum(np.abs(high - value), np.abs(value - low)) + roundings * own)


def _dense(policy: Policy, layer: str, x: Bounded) -> Bounded:
    """[batch, inputs] or [net, batch, inputs] to [net, batch, outputs]."""
    kernel, bias = (policy.arrays[f"{layer}/{part}"].astype(float) for part in ("kernel", "bias"))
    bias, count = bias[:, None], kernel.shape[-2] + 1
    magnitudes = (np.abs(x.value) + x.error) @ np.abs(kernel) + np.abs(bias)
    own = count * (ROUNDING * magnitudes + UNDERFLOW)
    return Bounded(x.value @ kernel + bias, x.error @ np.abs(kernel) + own)


def _scaled(x: Bounded, scale: ArrayLike, offset: ArrayLike) -> Bounded:
    """x * scale + offset."""
    scale, offset = _float32(scale), _float32(offset)
    magnitudes = (np.abs(x.value) + x.error) * scale + np.abs(offset)
    return Bounded(x.value * scale + offset, x.error * scale + 2 * (ROUNDING * magnitudes + UNDERFLOW))


def _standardised(seen: _Doubles, normal: Any) -> Bounded:
    exact = Bounded(seen, np.zeros_like(seen))
    if normal == AS_RETURNED:
        return exact
    mean, std, clip = (_float32(x) for x in (normal["mean"], normal["std"], normal.get("clip", np.inf)))
    return _through(lambda x: np.clip(x, -clip, clip), _through(lambda x: (x - mean) / std, exact), 0)


def _rows(seen: _Doubles, common: int, slots: int, features: int) -> _Doubles:
    """Slot by slot, what all have in common and its own features, [batch * slots, common + features]."""
    starts = (common + slot * features for slot in range(slots))
    rows = [np.concatenate([seen[:, :common], seen[:, start : start + features]], 1) for start in starts]
    return np.stack(rows, 1).reshape(-1, common + features)


def _choice(logits: Bounded) -> Said:
    best = np.argmax(logits.value, -1)
    is_best = np.arange(logits.value.shape[-1]) == best[..., None]
    least = np.max(logits.value - logits.error, -1, where=is_best, initial=-np.inf)
    others = np.max(logits.value + logits.error, -1, where=~is_best, initial=-np.inf)
    none_allowed = np.max(logits.value, -1) == np.finfo(np.float32).min  # then it is the first
    return Said((logits,), Bounded(best.astype(float), np.zeros(best.shape)), (least > others) | none_allowed)


def _number(raw_mean: Bounded, raw_std: Bounded, head: Mapping[str, Any]) -> Said:
    sigmoid = head["mean"] == "sigmoid"
    mean = _scaled(_through(scipy.special.expit, raw_mean) if sigmoid else raw_mean, head["scale"], head["offset"])
    std = _scaled(_through(_STDS[head["std"]], raw_std), head["scale"], head["std_min"])
    if head["kind"] == "simplex":
        action = _softmax(mean)
    else:
        low, high = _float32(head["low"]), _float32(head["high"])
        action = _through(lambda x: np.clip(x, low, high), mean, 0)
    return Said((mean, std), action, np.ones(mean.value.shape, bool))


def _softmax(x: Bounded) -> Bounded:
    """An entry is greatest where it is as great and the others are as small as their errors allow."""
    count = x.value.shape[-1]
    error = x.error + ROUNDING * (np.abs(x.value - x.value.max(-1, keepdims=True)) + 2 * x.error.max(-1, keepdims=True))
    value = scipy.special.softmax(x.value, -1)

    def extreme(sign: int) -> _Doubles:
        own, others = np.exp(sign * error), value * np.exp(-sign * error)
        return value * own / (value * own + others.sum(-1, keepdims=True) - others)

    most = extreme(1)
    own = (FUNCTION + count + 1) * (ROUNDING * most + UNDERFLOW)
    return Bounded(value, np.maximum(most - value, value - extreme(-1)) + own)


def _float32(value: ArrayLike) -> _Doubles:
    """The numbers of the metadata as a policy reads them."""
    return np.asarray(value, np.float32).astype(float)


_ACTIVATIONS: dict[str, Callable[[Bounded], Bounded]] = {
    "relu": lambda x: _through(lambda y: np.maximum(y, 0), x, 0),
    "tanh": lambda x: _through(np.tanh, x),
}
_STDS: dict[str, _Function] = {
    "softplus": lambda x: np.logaddexp(x, 0),
    "sigmoid": scipy.special.expit,
    "exp": np.exp,
}
