"""What a multi-exit DNN costs, layer by layer, and the devices that run it.

A multi-exit profile is a JSON file, bundled under `data/multi_exit/` or the user's own:

    {
      "schema": 1,
      "name": "vgg16_image",
      "description": "which network, on what",
      "source": {"devices": "who measured them", "flops": "formula"},
      "input_bits": 1204224,
      "layers": [
        {"name": "conv1_1", "flops": 183042048, "branch_flops": 3338264, "feature_shape": [64, 224, 224],
         "bits_per_element": 32, "compression_rate": 1}
      ],
      "devices": [
        {"power_w": 0.5, "transmit_power_w": 0.1, "speed_gflops": 50, "exit_percent": [100]}
      ]
    }

"source" says where each table comes from, under keys of the writer's choice. A layer is what lies between two
points where the network can be cut; "branch_flops" is its exit's own work, and its feature sends
C * H * W * bits_per_element / compression_rate bit, rounded. "exit_percent" says by which layer's exit the tasks of a
device leave, and sums to 100; a table that is printed with other sums names them in "exit_totals", one a device, and
is divided by them. A layer by whose exit no task of a device leaves has none there.
"""

import difflib
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mec_jax.profiles import _decode, _feature_bits, _fields, _number, _show, _source, _text

__all__ = ["MultiExitProfile", "bundled_multi_exit_profiles", "load_multi_exit_profile"]

_SCHEMA = 1

_DATA = resources.files("mec_jax.profiles") / "data" / "multi_exit"
_FILE_FIELDS = ("schema", "name", "description", "source", "input_bits", "layers", "devices")
_LAYER_FIELDS = ("name", "flops", "branch_flops", "feature_shape", "bits_per_element", "compression_rate")
_DEVICE_FIELDS = ("power_w", "transmit_power_w", "speed_gflops", "exit_percent")
_SUM_TOLERANCE = 1e-3  # percent


@dataclass(frozen=True)
class MultiExitProfile:
    """Costs of one network on its devices."""

    name: str
    layer_names: tuple[str, ...]  # [layer]
    layer_flops: tuple[float, ...]  # [layer] FLOP
    branch_flops: tuple[float, ...]  # [layer] FLOP of the exit after the layer
    input_bits: float  # bit
    feature_bits: tuple[float, ...]  # [layer] bit to send if the network is cut after the layer
    device_power: tuple[float, ...]  # [device] W while computing
    transmit_power: tuple[float, ...]  # [device] W
    device_speed: tuple[float, ...]  # [device] FLOP/s
    exit_probability: tuple[tuple[float, ...], ...]  # [device][layer] of a task to leave by the layer's exit; sums to 1
    exit_totals: tuple[float, ...]  # [device] percent, sum of the exits as printed
    source: tuple[tuple[str, str], ...]  # (table, where its numbers come from)

    @property
    def num_layers(self) -> int:
        """Number of layers m; splits go from 0 to m."""
        return len(self.layer_flops)

    @property
    def num_devices(self) -> int:
        """Number of devices n."""
        return len(self.device_speed)


def bundled_multi_exit_profiles() -> tuple[str, ...]:
    """Names of the multi-exit profiles that come with the package, sorted."""
    return tuple(sorted(entry.name.removesuffix(".json") for entry in _DATA.iterdir() if entry.name.endswith(".json")))


def load_multi_exit_profile(name_or_path: str | os.PathLike[str]) -> MultiExitProfile:
    """Loads a bundled multi-exit profile by name, or a user's JSON file.

    Args:
        name_or_path: A name from `bundled_multi_exit_profiles()`, which wins over a file called alike; or a path:
            a `Path`, or a string that ends in `.json` or is an existing file.

    Raises:
        ValueError: No such profile, or a file that is not a valid one; the message says what to change.
    """
    names = bundled_multi_exit_profiles()
    if name_or_path in names:
        return _parse(f"bundled multi-exit profile {name_or_path!r}", (_DATA / f"{name_or_path}.json").read_bytes())
    path = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and not path.endswith(".json") and not os.path.isfile(path):
        close = difflib.get_close_matches(path.lower(), names, n=1)
        hint = f", did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"unknown multi-exit profile {path!r}{hint}; use one of {', '.join(names)}, or the path of a JSON file"
        )
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ValueError(
            f"can't read multi-exit profile file {path!r}: {reason}; give the path of a readable JSON file, "
            f"or one of the names {', '.join(names)}"
        ) from None
    return _parse(f"multi-exit profile file {path!r}", data)


def _parse(origin: str, data: bytes) -> MultiExitProfile:
    try:
        return _profile(_decode(data))
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def _profile(content: object) -> MultiExitProfile:
    # First, so that a file of another version is called that and not misspelt.
    version = content.get("schema", _SCHEMA) if isinstance(content, dict) else _SCHEMA
    if isinstance(version, bool) or version != _SCHEMA:
        raise ValueError(f'schema version {_show(version)} is not known; write "schema": {_SCHEMA} and its fields')
    if not isinstance(content, dict):
        raise ValueError(f"holds {_show(content)}; a profile is one JSON object with fields {', '.join(_FILE_FIELDS)}")
    fields = _fields(content, "", _FILE_FIELDS, ("exit_totals",))
    name = _text(fields, "name")
    _text(fields, "description")
    source = _source(fields["source"])

    names, flops, branches, bits = [], [], [], []
    for index, item in enumerate(_objects(fields, "layers")):
        where = f"layers[{index}]."
        layer = _fields(item, where, _LAYER_FIELDS)
        names.append(_text(layer, "name", where))
        flops.append(_number(layer, "flops", where, positive=True))
        branches.append(_number(layer, "branch_flops", where))
        bits.append(_feature_bits(layer, where))

    devices = _objects(fields, "devices")
    totals = fields.get("exit_totals", [100] * len(devices))
    if not isinstance(totals, list) or len(totals) != len(devices):
        raise ValueError(
            f"field 'exit_totals' must be a list of {len(devices)} sums, one a device, not {_show(totals)}"
        )
    powers, transmit_powers, speeds, exits = [], [], [], []
    for index, (item, total) in enumerate(zip(devices, totals, strict=True)):
        where = f"devices[{index}]."
        device = _fields(item, where, _DEVICE_FIELDS)
        powers.append(_number(device, "power_w", where, positive=True))
        transmit_powers.append(_number(device, "transmit_power_w", where, positive=True))
        speeds.append(1e9 * _number(device, "speed_gflops", where, positive=True))
        exits.append(_exits(device["exit_percent"], where, len(flops), total))

    return MultiExitProfile(
        name=name,
        layer_names=tuple(names),
        layer_flops=tuple(flops),
        branch_flops=tuple(branches),
        input_bits=_number(fields, "input_bits", positive=True),
        feature_bits=tuple(bits),
        device_power=tuple(powers),
        transmit_power=tuple(transmit_powers),
        device_speed=tuple(speeds),
        exit_probability=tuple(exits),
        exit_totals=tuple(float(total) for total in totals),
        source=source,
    )


def _objects(fields: dict[str, object], key: str) -> list[object]:
    value = fields[key]
    if not isinstance(value, list) or not value:
        raise ValueError(f"field '{key}' must be a list of at least one object, not {_show(value)}")
    return value


def _exits(value: object, where: str, num_layers: int, total: object) -> tuple[float, ...]:
    """The distribution of the exits, normalised."""
    field = f"{where}exit_percent"
    if not isinstance(value, list) or len(value) != num_layers:
        raise ValueError(f"field '{field}' must be a list of {num_layers} numbers, one a layer, not {_show(value)}")
    exits = [_number({"x": item}, "x", f"{field}[{index}] ") for index, item in enumerate(value)]
    expected = _number({"exit_totals": total}, "exit_totals", positive=True)
    if abs(sum(exits) - expected) > _SUM_TOLERANCE:
        raise ValueError(
            f"field '{field}' sums to {sum(exits):g}, not {expected:g}: mend it, or name the sums of all devices in "
            "'exit_totals' to divide by them"
        )
    return tuple(exit_ / sum(exits) for exit_ in exits)
