"""What an exported policy's file says beside how to decide: what to observe, and where the choices cut which network.

NumPy and PyTorch policies share it (`mec_jax.policy`, `mec_jax.split.policy`).
"""

from __future__ import annotations

import functools
import json
import math
import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mec_jax.files import content_sha256, did_you_mean, read_bytes, reason
from mec_jax.policy_schema import UNKNOWN, observation_names
from mec_jax.transforms import FLAG, LINEAR, LOG10, LOG10_1P, ONE_HOT, PARAMS, Transform, argument, entries

__all__ = ["About", "Quantity", "numbers", "refuse_no_choice"]

_MAX_PROFILE_BYTES = 2**22


class Quantity(NamedTuple):
    """What `About.observation` is to be given."""

    unit: str  # "1" if it has none
    shape: tuple[int, ...]  # after the axes of a batch
    each: str  # what its first axis counts, e.g. "UE"; nothing if there is one
    as_it_stands: str  # how to work out its entries, where the file has no rule for it


class Profiled(Protocol):
    """A loaded profile (`mec_jax.profiles.load_profile`)."""

    @property
    def sha256(self) -> str:
        """Of what it says."""


class About:
    """What the metadata of a policy say."""

    metadata: Mapping[str, Any]

    # What it observes.

    @property
    def observation_names(self) -> list[str]:
        """What each entry of the observation is, e.g. "UE 0: tasks left / tasks given"."""
        return observation_names(self.metadata["observation"]["blocks"])

    @functools.cached_property
    def quantities(self) -> Mapping[str, Quantity]:
        """What to give `observation`, by name.

        Raises:
            ValueError: If the file has two of one name.
        """
        found: dict[str, Quantity] = {}
        for block in self.metadata["observation"]["blocks"]:
            each = (block["repeats"],) if block["of"] else ()
            fields = [*block["fields"], *({**one, "count": 1, "transform": {}} for one in block["beside"])]
            for field in fields:
                rule = field["transform"]
                one = field["count"] == 1 or (rule or {}).get("function") == ONE_HOT
                shape = each if one else (*each, field["count"])
                if field["name"] in found:
                    raise ValueError(f"the policy has two quantities {field['name']!r}: give `act` the observation")
                words = field["formula"] if rule is None else ""
                found[field["name"]] = Quantity(field["unit"], shape, block["of"], words)
        return found

    def observation(self, **quantities: ArrayLike) -> NDArray[np.float32]:
        """The observation, from quantities in their units.

        Args:
            **quantities: All that `quantities` names, each of its shape, or [batch, *shape] with any number of batch
                axes, the same for all. Of what is not there (`present` is 0 or false) anything will do. A quantity for
                which the file has no rule is given as it stands in the observation.

        Returns:
            What `act` takes, [*batch, size].

        Raises:
            ValueError: If a quantity is missing, unknown, of another shape or out of its range.
        """
        known, params = self.quantities, self.metadata["env_params"]
        for name in (*known, *quantities):
            if name not in quantities:
                raise ValueError(f"quantity {name!r} is missing: give {_wanted(name, known[name])}")
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(f"unknown quantity {name!r}: {hint}known are {', '.join(known)}")
        given = {name: _given(name, quantities[name], about) for name, about in known.items()}
        batch = _batch(given, known)

        def term(name: str) -> NDArray[np.float64]:
            if not name.startswith(PARAMS):
                return given[name]
            number = np.asarray(params[name[len(PARAMS) :]], float)
            return number.reshape((1,) * len(batch) + number.shape)

        parts = []
        with np.errstate(all="ignore"):  # what has no value is refused
            for block in self.metadata["observation"]["blocks"]:
                for beside in block["beside"]:
                    _refuse(beside["name"], given, ~np.isfinite(given[beside["name"]]), "give finite numbers")
                rows = [
                    _entries(field, given, term).reshape(*batch, block["repeats"], field["count"])
                    for field in block["fields"]
                ]
                joined = np.concatenate(rows, axis=-1)
                parts.append(joined.reshape(*batch, math.prod(joined.shape[len(batch) :])))
        return np.concatenate(parts, axis=-1)

    # What it cuts.

    @property
    def cuts(self) -> tuple[str, ...]:
        """Where its choices cut the network, in order: "input" (send it), layers, "local" (send nothing).

        Raises:
            ValueError: If it cuts nothing, the file does not say where, or there are several networks.
        """
        head, profiles = self._cuts()
        if any(profile["points"] != profiles[0]["points"] for profile in profiles):
            raise ValueError(f"the policy cuts several networks, one for each entry of {head!r}: see `cut_names`")
        return tuple(profiles[0]["points"])

    def cut_names(self, action: Any) -> NDArray[np.str_]:
        """Where an action of this policy cuts, one name for each entry of the part that cuts.

        Raises:
            ValueError: If the policy cuts nothing, the file does not say where, or the action is not one of its own.
        """
        head, profiles = self._cuts()
        choice = numbers(f"the action's {head!r}", getattr(action, head, None), "iu")
        names = np.array([profile["points"] for profile in profiles])
        if len(names) > 1 and choice.shape[-1:] != (len(names),):
            raise ValueError(f"the action's {head!r} has shape {choice.shape}: give [..., {len(names)}]")
        if not ((choice >= 0) & (choice < names.shape[1])).all():
            raise ValueError(f"the action's {head!r} is not in 0..{names.shape[1] - 1}: give one that the policy took")
        return names[np.arange(len(names)) if len(names) > 1 else 0, choice]

    def check_cuts(self, cuts: Sequence[str]) -> None:
        """Refuse to drive a network that is cut elsewhere.

        Args:
            cuts: Names of the places by choice, as of the network or of what cuts it.

        Raises:
            ValueError: If they are not those of `cuts`, or those are not known.
        """
        if list(cuts) != list(self.cuts):
            raise ValueError(
                f"the policy chooses from {len(self.cuts)} cuts, {', '.join(self.cuts)}, not from these "
                f"{len(cuts)}, {_shortened(', '.join(map(str, cuts)))}: take its own (`cuts`), or train one on these"
            )

    def check_profile(self, profile: str | os.PathLike[str] | Profiled, entry: int = 0) -> None:
        """Refuse a profile that the policy was not trained on.

        Args:
            profile: A JSON file, or what `mec_jax.profiles` loads.
            entry: Of the part that cuts, e.g. the UE that has this profile, where there are several.

        Raises:
            ValueError: If the profile says something else, or can't be read, or the policy's is not known.
        """
        _, profiles = self._cuts()
        if not 0 <= entry < len(profiles) and len(profiles) > 1:
            raise ValueError(f"there is no entry {entry}: the policy cuts {len(profiles)} networks, 0 and on")
        own = profiles[entry if len(profiles) > 1 else 0]
        if isinstance(profile, (str, os.PathLike)):
            what, sha256 = f"profile {os.fspath(profile)!r}", _sha256_of(profile)
        else:
            what, sha256 = "the profile", profile.sha256
        if sha256 != own["sha256"]:
            raise ValueError(
                f"{what} is not the one that the policy was trained on, {own['name']!r} with the cuts "
                f"{', '.join(own['points'])}: its sha256 is {sha256[:12]}..., not {own['sha256'][:12]}...; take that "
                "profile, or train on this one"
            )

    def _cuts(self) -> tuple[str, list[dict[str, Any]]]:
        """The part of the action that cuts, and the profiles."""
        cuts = self.metadata["cuts"]
        if cuts is None:
            raise ValueError(f"the policy cuts no network: it decides in {self.metadata['env_id']}")
        if cuts == UNKNOWN:
            raise ValueError("the policy's file is of schema 2 or 1, which did not name cuts: export the policy again")
        return cuts["head"], cuts["profiles"]


def numbers(what: str, value: Any, kinds: str, wanted: Callable[[], str] = lambda: "give numbers") -> NDArray[Any]:
    """A value as an array.

    Args:
        what: Errors begin with it.
        value: The value.
        kinds: Of its type, as NumPy calls them.
        wanted: What errors say to give instead; only called for them.

    Raises:
        ValueError: If it is none, or one of another kind.
    """
    try:
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:  # ragged lists, tensors on another device
        raise ValueError(f"{what} is no array ({reason(error)}): {wanted()}") from None
    if array.dtype.kind not in kinds:
        raise ValueError(f"{what} is of type {array.dtype}, not made of real numbers: {wanted()}")
    return array


def refuse_no_choice(head: Mapping[str, Any], allowed: NDArray[np.bool_]) -> None:
    """Refuse observations that allow no choice of a head.

    Args:
        head: Of the network, with "allowed".
        allowed: [..., size].

    Raises:
        ValueError: If there are any; it names head, entries and the place in the batch.
    """
    some = allowed.any(axis=-1)
    if not some.all():
        rows = tuple(map(int, np.argwhere(~some)[0]))
        row = f" (row {', '.join(map(str, rows))} of the batch)" if rows else ""
        listed = _shortened(", ".join(map(str, head["allowed"])))
        raise ValueError(
            f"the observation allows no choice of head {head['name']!r}{row}: none of its entries {listed} is "
            "positive; one of them must be"
        )


def _shortened(text: str) -> str:
    return textwrap.shorten(text, 120, placeholder=" ...")


def _sha256_of(profile: str | os.PathLike[str]) -> str:
    start = f"profile {os.fspath(profile)!r}"
    try:
        content = json.loads(read_bytes(profile, _MAX_PROFILE_BYTES).decode("utf-8-sig"))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        return content_sha256(content)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{start} can't be read ({reason(error)}): give the path of its JSON file") from None


# Quantities.


def _wanted(name: str, about: Quantity) -> str:
    """What to give, in words."""
    axes = ", ".join(["...", *map(str, about.shape)])
    each = f", one for each {about.each}" if about.each else ""
    stands = f", as it stands in the observation: {about.as_it_stands}" if about.as_it_stands else ""
    return f"{name} in {about.unit}, [{axes}]{each}{stands}"


def _given(name: str, value: Any, about: Quantity) -> NDArray[np.float64]:
    """A quantity that the user gives."""
    array = numbers(f"quantity {name!r}", value, "fiub", lambda: f"give {_wanted(name, about)}")
    if array.shape[max(array.ndim - len(about.shape), 0) :] != about.shape:
        raise ValueError(f"quantity {name!r} has shape {array.shape}: give {_wanted(name, about)}")
    with np.errstate(over="ignore"):
        return array.astype(np.float64)


def _batch(given: Mapping[str, NDArray[np.float64]], known: Mapping[str, Quantity]) -> tuple[int, ...]:
    """The axes that stand before those of the quantities."""
    batches = {name: array.shape[: array.ndim - len(known[name].shape)] for name, array in given.items()}
    first, batch = next(iter(batches.items()))
    for name, other in batches.items():
        if other != batch:
            raise ValueError(
                f"quantity {name!r} has batch axes {list(other)}, {first!r} has {list(batch)}: give all the same ones"
            )
    return batch


_RANGES: dict[str, tuple[str, Callable[[NDArray[np.float64], int], NDArray[np.bool_]]]] = {
    LINEAR: ("give finite numbers that float32 holds", lambda x, count: np.isfinite(x.astype(np.float32))),
    LOG10: ("its logarithm is taken, so give finite numbers above 0", lambda x, count: (x > 0) & np.isfinite(x)),
    LOG10_1P: (
        "the logarithm of it plus something is taken, so give finite numbers of at least 0",
        lambda x, count: (x >= 0) & np.isfinite(x),
    ),
    ONE_HOT: (
        "it counts from 0, so give whole numbers below the number of entries",
        lambda x, count: (x >= 0) & (x < count) & (x == np.floor(x)),
    ),
    FLAG: ("give 0 or 1", lambda x, count: (x == 0) | (x == 1)),
}
"""Of what a transform's function is taken, by the function."""


def _entries(
    field: Mapping[str, Any],
    given: Mapping[str, NDArray[np.float64]],
    term: Callable[[str], NDArray[np.float64]],
) -> NDArray[np.float32]:
    """Entries of a field."""
    rule = Transform(**(field["transform"] or {}))
    name, count = field["name"], field["count"]
    for divisor in rule.over:
        if divisor in given:
            _refuse(divisor, given, ~(given[divisor] > 0), f"{name!r} is divided by it, so give numbers above 0")
    there = None
    if rule.where:
        there = given[rule.where] > 0
        _refuse(rule.where, given, there != given[rule.where], "it says what is there, so give 0 or 1")
    x = argument(rule, given[name], term)
    says, holds = _RANGES[rule.function]
    wrong = ~holds(x, count)
    if there is not None:
        wrong &= there.reshape(there.shape + (1,) * (x.ndim - there.ndim))
    _refuse(name, given, wrong, says)
    return entries(np, rule, x, count, there).astype(np.float32)


def _refuse(name: str, given: Mapping[str, NDArray[np.float64]], wrong: NDArray[np.bool_], mend: str) -> None:
    if not wrong.any():
        return
    at = tuple(map(int, np.argwhere(wrong)[0]))
    place = f" at [{', '.join(map(str, at))}]" if at else ""
    raise ValueError(f"quantity {name!r} is {given[name][at]:g}{place}: {mend}")
