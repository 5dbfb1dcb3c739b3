"""The one law of cutting a network: a device runs the first c of N layers, sends what comes out, a server the rest.

Cut c in 0..N; 0 sends the raw input, N leaves the server nothing to do. What a problem makes of the three times - their
sum, a cost, the demands on shared queues - is its own. The functions take JAX and NumPy arrays alike, of any leading
axes, and return the same kind.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

type Number = float | Array | np.ndarray


class CutTimes[T: (Array, np.ndarray)](NamedTuple):
    """What one inference takes where, in s."""

    device: T
    link: T
    server: T


def work_before[T: (Array, np.ndarray)](work: Float[T, "*batch layer"]) -> Float[T, "*batch cut"]:
    """Work of the layers before each cut.

    Args:
        work: Of each layer, FLOP.
    """
    xp = work.__array_namespace__()
    return xp.concat([xp.zeros_like(work[..., :1]), xp.cumsum(work, axis=-1)], axis=-1)


def work_after[T: (Array, np.ndarray)](work: Float[T, "*batch layer"]) -> Float[T, "*batch cut"]:
    """Work of the layers after each cut, added from the end: in float32 the total minus what comes before would drown
    the work of a last few layers in rounding.

    Args:
        work: Of each layer, FLOP.
    """
    return work_before(work[..., ::-1])[..., ::-1]


def cut_times[T: (Array, np.ndarray)](
    before: Float[T, "..."],
    bits: Float[T, "..."],
    after: Float[T, "..."],
    device_speed: Number,
    rate: Number,
    server_speed: Number,
) -> CutTimes[T]:
    """What one inference takes at the device, on the link and at the server, of one cut or of many.

    Args:
        before: FLOP before the cut.
        bits: bit that the cut sends.
        after: FLOP after the cut.
        device_speed: FLOP/s.
        rate: bit/s.
        server_speed: FLOP/s.
    """
    return CutTimes(before / device_speed, bits / rate, after / server_speed)
