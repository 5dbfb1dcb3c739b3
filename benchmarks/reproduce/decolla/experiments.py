"""What is measured for Fig. 6 of Huang et al. 2022 (DeColla): each panel in several readings of the exchange."""

from typing import Any

import numpy as np

from benchmarks.reproduce.decolla.systems import (
    MBPS,
    USAGE,
    Reading,
    concurrent,
    disconnected,
    one_device_loaded,
    parts_of,
    systems,
)
from mec_jax.envs.neuron_allocation import NeuronAllocation

BANDWIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # Mbit/s; the paper's axis is not public
USAGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TASKS = (1, 2, 3, 4, 6)  # at once, Fig. 6d
RUNS = 10  # of Fig. 6e, as in the paper
KAPPAS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
TRIALS = 500  # of Fig. 6f

READINGS = {
    # The paper's bandwidth, and the numbers that PyTorch computes with.
    "32 bit, 20 Mbit/s": Reading(32, 32, False, 20),
    # The defaults of the environment.
    "8 bit, 1 Gbit/s": Reading(8, 8, False, 1000),
    # What no implementation can have: the others pay for their exchange, DeColla does not.
    "free for DeColla": Reading(32, 0, False, 20),
}
"""By name. What holds in the last only is owed to an exchange that costs nothing."""

Panels = dict[str, Any]
"""What was measured in one reading, arrays by panel and name: `figure_6` draws it, `CLAIMS` are judged by it."""


def measure(env: NeuronAllocation, reading: Reading) -> Panels:
    """All panels in one reading."""
    parts = parts_of()
    bandwidths, usages = np.array(BANDWIDTHS) * MBPS, np.array(USAGES)
    return {
        "bandwidth": systems(env, parts, reading, bandwidths, np.full(bandwidths.size, USAGE)),
        "usage": systems(env, parts, reading, np.full(usages.size, reading.bandwidth * MBPS), usages),
        "tasks": concurrent(parts, reading, TASKS),
        "loaded": one_device_loaded(env, parts, reading, USAGES, RUNS),
        "failure": disconnected(env, parts, reading, KAPPAS, TRIALS),
    }
