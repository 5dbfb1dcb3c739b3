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

A layer is what lies between two points where the network can be cut; "branch_flops" is its exit's own work, and its
feature sends C * H * W * bits_per_element / compression_rate bit, rounded. "exit_percent" says by which layer's exit
the tasks of a device leave, and sums to 100; a table that is printed with other sums names them in "exit_totals", one
a device, and is divided by them. A layer by whose exit no task of a device leaves has none there.
"""

import os
from dataclasses import dataclass

from mec_jax.files import content_sha256
from mec_jax.profiles.reader import Fields, Reader, feature_bits

__all__ = ["MultiExitProfile", "bundled_multi_exit_profiles", "load_multi_exit_profile"]

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
    sha256: str  # of what the file says (`mec_jax.files.content_sha256`)

    @property
    def points(self) -> tuple[str, ...]:
        """Names of the splits: "input", after each layer but the last, "local"."""
        return ("input", *self.layer_names[:-1], "local")

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
    return _READER.bundled()


def load_multi_exit_profile(name_or_path: str | os.PathLike[str]) -> MultiExitProfile:
    """Loads a bundled multi-exit profile by name, or a user's JSON file.

    Args:
        name_or_path: A name from `bundled_multi_exit_profiles()`, which wins over a file called alike; or a path.

    Raises:
        ValueError: No such profile, or a file that is not a valid one; the message says what to change.
    """
    return _READER.read(name_or_path)


def _profile(fields: Fields) -> MultiExitProfile:
    layers = fields.objects("layers", _LAYER_FIELDS)
    devices = fields.objects("devices", _DEVICE_FIELDS)
    totals = (100.0,) * len(devices)
    if "exit_totals" in fields:
        totals = fields.numbers("exit_totals", len(devices), "sums, one a device", positive=True)
    return MultiExitProfile(
        name=fields.text("name"),
        layer_names=tuple(layer.text("name") for layer in layers),
        layer_flops=tuple(layer.number("flops", positive=True) for layer in layers),
        branch_flops=tuple(layer.number("branch_flops") for layer in layers),
        input_bits=fields.number("input_bits", positive=True),
        feature_bits=tuple(map(feature_bits, layers)),
        device_power=tuple(device.number("power_w", positive=True) for device in devices),
        transmit_power=tuple(device.number("transmit_power_w", positive=True) for device in devices),
        device_speed=tuple(1e9 * device.number("speed_gflops", positive=True) for device in devices),
        exit_probability=tuple(
            _exits(device, len(layers), total) for device, total in zip(devices, totals, strict=True)
        ),
        exit_totals=totals,
        source=fields.source(),
        sha256=content_sha256(fields.values),
    )


def _exits(device: Fields, num_layers: int, total: float) -> tuple[float, ...]:
    """The distribution of the exits, normalised."""
    exits = device.numbers("exit_percent", num_layers, "numbers, one a layer")
    if abs(sum(exits) - total) > _SUM_TOLERANCE:
        raise ValueError(
            f"field '{device.place}.exit_percent' sums to {sum(exits):g}, not {total:g}: mend it, or name the sums of "
            "all devices in 'exit_totals' to divide by them"
        )
    return tuple(exit_ / sum(exits) for exit_ in exits)


_READER = Reader(
    "multi-exit profile",
    ("input_bits", "layers", "devices"),
    _profile,
    optional=("exit_totals",),
    folder="multi_exit",
)
