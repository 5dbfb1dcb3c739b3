"""What a DNN costs a user device (UE), by the point where it is cut: bits to send, seconds, watts.

A profile is a JSON file, bundled under `data/` or the user's own:

    {
      "schema": 1,
      "name": "resnet18",
      "description": "what was cut, and where",
      "source": {"time_and_power": "who measured, on what", "compression_rate": "..."},
      "input_bits": 1204224,
      "cuts": [
        {"name": "layer2.0", "feature_shape": [128, 28, 28], "bits_per_element": 32, "compression_rate": 64,
         "front_time_s": 0.01647, "front_power_w": 2.6328}
      ],
      "local": {"time_s": 0.045887, "power_w": 2.1454},
      "observation_time_s": 0.045887
    }

A cut sends C * H * W * bits_per_element / compression_rate bit, rounded. "cuts" may be empty: the network then runs as
a whole, at the edge or at the UE. "observation_time_s" may be left out and is then the local time.
"""

import os
from dataclasses import dataclass

from mec_jax.files import content_sha256
from mec_jax.profiles.reader import Fields, Reader, feature_bits

__all__ = ["Profile", "bundled_profiles", "load_profile"]

_CUT_FIELDS = (
    "name",
    "feature_shape",
    "bits_per_element",
    "compression_rate",
    "front_time_s",
    "front_power_w",
)
_LOCAL_FIELDS = ("time_s", "power_w")


@dataclass(frozen=True)
class Profile:
    """Costs of one network, one entry a point: 0 sends the raw input, the last runs wholly at the UE.

    Between them lie the cuts, in the file's order. "Front" is what the UE computes: the network up to the cut
    and the encoder of the feature.
    """

    name: str
    bits: tuple[float, ...]  # [point] bit to send; 0 at the last point and nowhere else
    front_time: tuple[float, ...]  # [point] s; 0 at point 0
    front_power: tuple[float, ...]  # [point] W; 0 at point 0
    observation_time: float  # s; what an observation divides the time left by
    source: tuple[tuple[str, str], ...]  # (table, where its numbers come from)
    points: tuple[str, ...]  # [point] name: "input", those of the cuts, "local"
    sha256: str  # of what the file says (`mec_jax.files.content_sha256`)

    @property
    def num_points(self) -> int:
        """Number of points: the raw input, the cuts, local."""
        return len(self.bits)


def bundled_profiles() -> tuple[str, ...]:
    """Names of the profiles that come with the package, sorted."""
    return _READER.bundled()


def load_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """Loads a bundled profile by name, or a user's JSON file.

    Args:
        name_or_path: A name from `bundled_profiles()`, which wins over a file called alike; or a path.

    Raises:
        ValueError: No such profile, or a file that is not a valid one; the message says what to change.
    """
    return _READER.read(name_or_path)


def _profile(fields: Fields) -> Profile:
    cuts = fields.objects("cuts", _CUT_FIELDS, least=0)
    local = fields.nested("local", _LOCAL_FIELDS)
    local_time = local.number("time_s", positive=True)
    return Profile(
        name=fields.text("name"),
        bits=(fields.number("input_bits", positive=True), *map(feature_bits, cuts), 0.0),
        front_time=(0.0, *(cut.number("front_time_s") for cut in cuts), local_time),
        front_power=(0.0, *(cut.number("front_power_w") for cut in cuts), local.number("power_w")),
        observation_time=(
            fields.number("observation_time_s", positive=True) if "observation_time_s" in fields else local_time
        ),
        source=fields.source(),
        points=("input", *(cut.text("name") for cut in cuts), "local"),
        sha256=content_sha256(fields.values),
    )


_READER = Reader("profile", ("input_bits", "cuts", "local"), _profile, optional=("observation_time_s",), folder="")
