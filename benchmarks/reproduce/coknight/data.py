"""What the paper of Dai et al. 2022 (Coknight), the authors' code and its logs say, and what none of them says."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.harness.verdicts import Verdict
from mec_jax.profiles.partition_game import load_cut_table

# What the paper, the authors' code (github.com/daihao42/coknight) and its logs say.

TABLE = load_cut_table("coknight_resnet")
NUM_CUTS = TABLE.num_cuts
WORK = sum(TABLE.flops)  # FLOP of one inference
PIXELS = 4 * 84 * 84
ACTORS = 12  # section 5.2.1
FEW_ACTORS = 6  # of Fig. 10
CROSSING = 36  # actors, section 5.2.3
MIB = 2**20  # B; the logs are dstat's, whose M is 2^20
LOGS = {"Seed-RL": 11.25, "cut 3": 10.56, "cut 4": 9.88, "IMPALA": 2.00}  # MiB/s, means
LOG_CUTS = {"Seed-RL": 0, "cut 3": 3, "cut 4": 4, "IMPALA": NUM_CUTS}
LOGGED_STEP_BYTES = 1923 * 1024 / (1514 / 1448) / 64  # of an upload of 64 steps in IMPALA's log, without headers
UNROLL, PULL_INTERVAL = 64, 512  # steps of an upload, and between two pulls of the model
STEP_BYTES = PIXELS + 57  # of a step in the trajectory: frame, logits of 6 actions, value, rewards, flags
MODEL_BYTES = 4 * 137_296_142  # of the code's network, mostly in layer5

# What none of them says: defaults, and why.

HEADERS = 1514 / 1448  # Ethernet, IP and TCP on a full frame, as dstat counts
FAST_ETHERNET = 100e6 * 1514 / 1538  # bit/s that dstat sees on a full 100 Mbit/s link
LIMIT = 8 * 10e6  # bit/s, Coknight's in section 5.2
TRAJECTORY_BITS = 8 * STEP_BYTES * (UNROLL + 1) / UNROLL
ENVIRONMENT_TIME = 2e-3  # s: four emulated frames and their scaling on one slow core
CALL_TIME = 1e-3  # s: gRPC and pickle of 110 KiB
LOG_RATE = LOGS["IMPALA"] * MIB / (HEADERS * TRAJECTORY_BITS / 8)  # steps/s of IMPALA in its log
DEVICE_SPEED = WORK / (ACTORS / LOG_RATE - ENVIRONMENT_TIME)  # FLOP/s, so that IMPALA runs at its log's rate
V100_SPEED = 0.25e12  # FLOP/s of one frame at a time: 1.9 ms, what about a hundred kernel launches take
TRAINING_TIME = 3 * WORK / 5e12  # s: forward and backward once a step, in batches that use a third of a V100
NEEDED_USE = 0.9  # GPU use of Seed-RL that Fig. 9 shows at least

# Thresholds of the verdicts.

CLOSE = 0.1  # relative difference of what is about the same
SAME = 1e-3  # relative difference of what is equally fast


@dataclass(frozen=True)
class Claim:
    """A claim of section 5.2, in our words, and what decides on it."""

    id: str
    words: str
    judge: Callable[..., Verdict]
