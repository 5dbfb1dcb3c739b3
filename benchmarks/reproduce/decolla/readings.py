"""What is compared in Huang et al. 2022 (DeColla), and what the paper leaves open of it: numbers and names.

The paper's curves are not public as numbers, and it says neither what devices exchange nor over what, nor how fast its
machines are. Each of that is a range here, and claims are judged over it.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

MBPS = 1e6  # bit/s
NETWORK = "mobilenet_v2"
DEVICES = 3
DEVICE_SPEED = 3e9
"""FLOP/s of an idle Raspberry Pi 4, as in `NeuronAllocation`: 6 % of its peak of 48 GFLOP/s."""
EDGE_SPEED = 35e9
"""FLOP/s of the edge server. The paper says six cores of 2.9 GHz: the same 6 % of 32 FLOP a cycle and core."""
EDGE_SPEEDS = (3.5e9, 10e9, EDGE_SPEED, 100e9, 350e9)
"""From hardly faster than a device to the edge's peak, of which `EDGE_SPEED` is 6 %."""
IMAGE_BITS = 8
"""bit of a value of the image: partition-offloading sends it if the edge computes everything."""
USAGE = 0.3
"""Of each device by others, in Fig. 6a, and in 6c to 6f, where the paper gives none."""
USAGE_SPREAD = 0.1
"""In each run of Fig. 6e the usages of the devices that are not varied are uniform within this of `USAGE`."""
WINDOW_TASKS = 2
"""Inferences that fill a device, where use is counted over a window; the paper does not say over what it is."""
COUNTINGS = ("while tasks run", "in a window")
"""Of device use under concurrent tasks: in the time until all are done, or in that of `WINDOW_TASKS` on one device."""

BANDWIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # Mbit/s; the paper's axis is not public
USAGES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
TASKS = (1, 2, 3, 4, 6)  # at once, Fig. 6d
RUNS = 10  # of Fig. 6e, as in the paper
KAPPAS = (1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
TRIALS = 500  # of Fig. 6f

MOBILE, PARTITION, HIERARCHICAL, DECOLLA = "Mobile-only", "Partition-offloading", "Hierarchical", "DeColla"
SYSTEMS = (MOBILE, PARTITION, HIERARCHICAL, DECOLLA)
SHORTEST, RANDOM, AVERAGE, LEAST = "Shortest completion", "Random", "Average", "Least"
RULERS = (SHORTEST, RANDOM, AVERAGE, LEAST)
"""What may stand for DeColla's allocation."""

FLOP_SPLIT, BEST_SPLIT = "blocks by FLOP", "the best blocks"
SPLITS = (FLOP_SPLIT, BEST_SPLIT)
"""How Hierarchical divides the layers, which the paper does not say: in proportion to speeds, or for the least latency.
"""
STALE, REPLANNED = "planned before", "planned anew"
PLANS = (STALE, REPLANNED)
"""Whether Hierarchical knows of the usages of Fig. 6e when it divides the layers."""

MEDIA = {"private": "private links", "half_duplex": "half-duplex links", "shared": "one shared channel"}
"""Of the devices' exchange. The paper shapes the bandwidth of one wireless interface, which all would share."""

RULES = ("own link, input once a layer", "own link, input with every piece", "one channel, inputs multicast")
"""Of exchange: two of the environment, and one medium that carries a layer's input once for all, then all outputs."""


@dataclass(frozen=True)
class Reading:
    """What is exchanged, where the paper does not say."""

    bits: float  # bit of an element that goes from device to device, or to the edge
    decolla_bits: float  # the same within a layer, of DeColla alone
    resend: bool  # DeColla's shared input goes along with every piece
    bandwidth: float  # Mbit/s of each link, where it does not vary


READINGS = {
    # The paper's bandwidth, and the numbers that PyTorch computes with.
    "32 bit at 20 Mbit/s": Reading(32, 32, False, 20),
    # The defaults of the environment.
    "8 bit at 1 Gbit/s": Reading(8, 8, False, 1000),
    # What no implementation can have: the others pay for their exchange, DeColla does not.
    "free for DeColla": Reading(32, 0, False, 20),
}
"""By name. What holds in the last only is owed to an exchange that costs nothing."""

KEYS = {"32 bit at 20 Mbit/s": "32bit", "8 bit at 1 Gbit/s": "8bit", "free for DeColla": "free"}
"""Of readings, in the names of experiments."""


class Testbed(NamedTuple):
    """Where DRL-ES and DRL are compared."""

    env_id: str
    words: str
    early: int  # iterations that are run again and evaluated more often: until shortest completion is reached


TESTBEDS = {
    "testbed": Testbed("NeuronAllocation-v0", "the testbed", 20),
    "dynamic": Testbed("NeuronAllocation-Dynamic-v0", "`NeuronAllocation-Dynamic-v0`", 100),
}
LEARNERS = {"es": "slots", "drl": "slots_drl"}
"""Presets, by key in the names of experiments."""
LEARNING_MEDIA: tuple[Literal["half_duplex", "shared"], ...] = ("shared",)
"""Where it is learned, too; half-duplex links lie between these and private ones."""
