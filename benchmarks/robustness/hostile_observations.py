"""Hostile observations, masks and quantities, to policies with every kind of head: what is taken is decided soundly.

    python -m benchmarks.robustness observations

An input is made to be valid or, by one change, invalid. A valid one must be taken and end in an action that is allowed,
finite and within its bounds; an invalid one must be refused with one clear line.
"""

import datetime
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.campaign import REFUSED, TAKEN, fate
from benchmarks.robustness.exported import export_random
from mec_jax.policy import Policy, load_policy
from mec_jax.split.policy import TorchPolicy
from mec_jax.transforms import FLAG, LOG10, LOG10_1P, ONE_HOT

POLICIES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("mahppo", "MultiUEOffloading-v0", {"head": 8}),  # stacked; choices, and a gaussian that a sigmoid bounds
    ("ppo", "MultiUEOffloading-v0", {}),
    ("ppo", "MultiExitAllocation-Markov-v0", {}),  # a simplex
    ("drl_es", "NeuronAllocation-v0", {"per_slot": True}),  # masks, and a network for each slot
    ("drl_es", "NeuronSharing-v0", {}),
    ("ppo", "PartitionGame-v0", {}),  # masks
    ("ppo", "CompressedInference-Anchored-v0", {}),  # masks of several choices, and numbers beside them
    ("ppo", "Pendulum-v1", {}),  # no rules for its observation
)
BATCHES: tuple[tuple[int, ...], ...] = ((), (), (), (1,), (3,), (2, 2), (0,))


def policies(folder: Path) -> list[Policy]:
    """One of each of `POLICIES`."""
    found = []
    for index, (name, env_id, changes) in enumerate(POLICIES):
        export_random(path := folder / f"{index}.npz", name, env_id, changes)
        found.append(load_policy(path))
    return found


def wrong_action(policy: Policy, observation: Any, action: Any) -> str:
    """What is wrong with an action, or nothing."""
    seen = np.asarray(observation).astype(np.float32)
    for head, part in zip(policy.metadata["network"]["heads"], map(np.asarray, action), strict=True):
        name, shape = head["name"], (*seen.shape[:-1], *head["shape"])
        if part.shape != shape:
            return f"{name} has shape {part.shape}, not {shape}"
        if head["kind"] == "categorical":
            if part.dtype.kind != "i" or not ((part >= 0) & (part < head["size"])).all():
                return f"{name} is no choice"
            if "allowed" in head:
                allowed = seen[..., head["allowed"]] > 0
                if not np.take_along_axis(allowed, part[..., None], -1).all():
                    return f"{name} is a choice that is not allowed"
        elif not np.isfinite(part).all():
            return f"{name} is not finite"
        elif head["kind"] == "simplex":
            if not ((part >= 0).all() and np.allclose(part.sum(-1), 1, atol=1e-5)):
                return f"{name} is no simplex"
        elif not ((part >= np.float32(head["low"])) & (part <= np.float32(head["high"]))).all():
            return f"{name} is out of its bounds"
    return ""


# Observations


def valid_observation(policy: Policy, rng: np.random.Generator) -> np.ndarray:
    """Like those that it was trained on, and with a choice allowed."""
    size = policy.metadata["observation"]["size"]
    x = rng.normal(size=(*BATCHES[rng.integers(len(BATCHES))], size)) * 10 ** rng.uniform(-3, 1)
    for head in policy.metadata["network"]["heads"]:
        if "allowed" in head:
            x[..., head["allowed"][rng.integers(head["size"])]] = 1
    x = x.astype(("f4", "f8", ">f4", "f4")[rng.integers(4)])
    return np.asfortranarray(x) if rng.integers(2) else x


def invalid_observation(x: np.ndarray, policy: Policy, rng: np.random.Generator) -> tuple[Any, str]:
    """One that is none, and why."""
    x = x if x.size else np.ones((1, x.shape[-1]))
    masks = [head["allowed"] for head in policy.metadata["network"]["heads"] if "allowed" in head]
    broken = x.astype(float)
    spot = tuple(int(rng.integers(size)) for size in x.shape)
    odd: tuple[Any, ...] = (None, {}, "x", b"x", x.tolist()[0:0], datetime.date(2026, 1, 1), object(), [x, 1], 1j * x)
    match int(rng.integers(6 + bool(masks))):
        case 0:
            broken[spot] = (np.nan, np.inf, -np.inf, 1e39, -1e300)[rng.integers(5)]
            return broken, "it is not finite"
        case 1:
            return x[..., : rng.integers(x.shape[-1])], "it is too short"
        case 2:
            return np.concatenate([x, x[..., :1]], -1), "it is too long"
        case 3:
            return x[..., None], "it has an axis too many"
        case 4:
            return x.astype((bool, complex, str, object, "M8[s]")[rng.integers(5)]), "it is not made of real numbers"
        case 5:
            return odd[rng.integers(len(odd))], "it is no array of numbers"
        case _:
            broken[..., masks[0]] = -np.abs(broken[..., masks[0]]) * rng.integers(2)
            return broken, "it allows no choice"


# Quantities


def valid_quantities(policy: Policy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Of which each is in its range."""
    batch = BATCHES[rng.integers(len(BATCHES))]
    rules = _rules(policy)
    flags = {rule["where"] for rule in rules.values() if rule}
    return {
        name: np.asarray(_draw(rules.get(name), name in flags, (*batch, *about.shape), rng))
        for name, about in policy.quantities.items()
    }


def _rules(policy: Policy) -> dict[str, Any]:
    """The transforms by field, with the fields' numbers of entries."""
    blocks = policy.metadata["observation"]["blocks"]
    return {
        field["name"]: field["transform"] and {**field["transform"], "count": field["count"]}
        for block in blocks
        for field in block["fields"]
    }


def _draw(rule: Mapping[str, Any] | None, flag: bool, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    function = FLAG if flag else rule and rule["function"]
    if function == FLAG:
        return np.ones(shape, bool) if rng.random() < 0.5 else rng.integers(2, size=shape)
    if function == ONE_HOT:
        assert rule
        return rng.integers(rule["count"], size=shape)
    return rng.uniform(1, 100, shape) * 10 ** rng.uniform(0, 6 if function == LOG10 else 0.5)


def invalid_quantities(
    given: dict[str, np.ndarray], policy: Policy, rng: np.random.Generator
) -> tuple[dict[str, Any], str]:
    """With one that is none, and why."""
    rules = _rules(policy)
    name = str(rng.choice(list(given)))
    x, rule = given[name], rules.get(name) or {}
    rest = {other: value for other, value in given.items() if other != name}
    odd: tuple[Any, ...] = (None, {}, "x", object(), [[1], [1, 2]], x.astype(complex), x.astype(str), x.astype("M8[s]"))
    match int(rng.integers(5)):
        case 0:
            return rest, f"{name} is missing"
        case 1:
            return {**given, f"{name}_": x}, "one is unknown"
        case 2:
            return {**rest, name: np.stack([x, x], -1)}, f"{name} has another shape"
        case 3:
            return {**rest, name: odd[rng.integers(len(odd))]}, f"{name} is not made of real numbers"
    if not x.size:
        return rest, f"{name} is missing"
    wrong = [np.nan, np.inf, -np.inf]
    divides = any(rule and name in rule["over"] for rule in rules.values())
    is_flag = rule.get("function") == FLAG or any(rule and name == rule["where"] for rule in rules.values())
    wrong += (
        [0, -1] if divides or rule.get("function") == LOG10 else [-1e-3] if rule.get("function") == LOG10_1P else []
    )
    wrong += [2, 0.5, -1] if is_flag else []
    wrong += [-1, rule["count"], 0.5] if rule.get("function") == ONE_HOT else []
    broken = np.array(x, float)
    broken[tuple(int(rng.integers(size)) for size in x.shape)] = value = wrong[rng.integers(len(wrong))]
    there = {rule["where"]: np.ones_like(given[rule["where"]])} if rule.get("where") else {}
    return {**given, **there, name: broken}, f"{name} holds {value}"


# The campaign


def observation_fates(count: int, seed: int, folder: Path, act: Callable[..., Any] | None = None) -> Counter[str]:
    """What becomes of observations and quantities, half of them invalid; an eighth of the observations in PyTorch.

    Args:
        count: Number of inputs.
        seed: Of what is drawn.
        folder: Where policies are written.
        act: Takes (policy, observation, generator) instead of `Policy.act`.
    """
    rng = np.random.default_rng(seed)
    there = policies(folder)
    in_torch = [TorchPolicy(policy) for policy in there]
    fates: Counter[str] = Counter()
    for index in range(count):
        which = int(rng.integers(len(there)))
        policy, module = there[which], in_torch[which]
        if index % 2:
            decide = act or Policy.act
            generator = (None, np.random.default_rng(index))[rng.integers(2)]
            if rng.integers(4) == 0:
                decide, generator = module_act, (None, torch.Generator().manual_seed(index))[rng.integers(2)]
            fates[_observed(policy, module if decide is module_act else policy, decide, generator, rng)] += 1
        else:
            fates[_built(policy, rng)] += 1
    return fates


def module_act(policy: TorchPolicy, observation: Any, generator: torch.Generator | None) -> Any:
    """What a PyTorch policy does, in NumPy."""
    action = policy.act(observation, generator)
    return type(action)(*(part.numpy() for part in action))


def _observed(policy: Policy, whose: Any, decide: Callable[..., Any], generator: Any, rng: np.random.Generator) -> str:
    x: Any = valid_observation(policy, rng)
    why = ""
    if rng.integers(2):
        x, why = invalid_observation(x, policy, rng)

    def verdict(action: Any) -> str:
        if why:
            return f"taken though {why}"
        wrong = wrong_action(policy, x, action)
        return f"unsound: {wrong}" if wrong else TAKEN

    return _as_expected(fate(lambda: decide(whose, x, generator), verdict), why)


def _built(policy: Policy, rng: np.random.Generator) -> str:
    given: dict[str, Any] = dict(valid_quantities(policy, rng))
    why = ""
    if rng.integers(2):
        given, why = invalid_quantities(given, policy, rng)
    if not why and rng.integers(4) == 0:
        given = {name: value.tolist() if value.size else value for name, value in given.items()}
    if not why and rng.integers(4) == 0:
        given = {name: torch.as_tensor(np.asarray(value)) for name, value in given.items()}

    def verdict(x: np.ndarray) -> str:
        if why:
            return f"taken though {why}"
        batch = np.shape(next(iter(given.values())))
        batch = batch[: len(batch) - len(next(iter(policy.quantities.values())).shape)]
        if x.shape != (*batch, policy.metadata["observation"]["size"]) or not np.isfinite(x).all():
            return f"unsound: an observation of shape {x.shape}"
        try:
            wrong = wrong_action(policy, x, policy.act(x))
        except ValueError as error:  # the flags that were drawn may allow nothing
            return TAKEN if "allows no choice" in str(error) else f"unsound: {error}"
        return f"unsound: {wrong}" if wrong else TAKEN

    return _as_expected(fate(lambda: policy.observation(**given), verdict), why)


def _as_expected(found: str, why: str) -> str:
    """The fate, unless what is valid was refused."""
    return found if why or found != REFUSED else "refused though it is valid"
