"""What the paper of Dai et al. 2022 (Coknight), the authors' code and its logs say, and what none of them says."""

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
FITTED_SPEED = 4.2e10  # FLOP/s of one frame at a time, with which the timeline of the defaults has that use

NETWORKS = {"100 Mbit/s": FAST_ETHERNET, "10 MB/s": LIMIT, "1 Gbit/s": 10 * FAST_ETHERNET}
WIRED, LIMITED, ROOMY = NETWORKS
FITTED, V100 = "GPU fitted", "V100"
BANDWIDTHS = (50, 40, 30, 20, 15, 12, 10, 8, 6, 5, 4, 3, 2)  # MB/s, Fig. 10
MOST_ACTORS = 128
PARTITIONED = tuple(range(1, NUM_CUTS))

# The games of Fig. 12. Where the paper gives no number: three types of devices, the Raspberry Pi 4B among them, and
# what the server has.

FIXED_FOR = 32  # devices: N r_0 of the server that does not grow
DEVICE_SPEEDS = (1e9, DEVICE_SPEED, 1e10)  # FLOP/s
REQUEST_RATE = 1.0  # 1/s, as eqs. 10 and 11 have no rate
SHARE = 0.5  # r_0: this part of a whole inference and of a raw frame per device and second
ELASTIC, FIXED = "elastic", "fixed"
MILP, DEFP, IGREEDY, BY_DENSITY, BY_UTILITY, NASH, RANDOM = (
    "MILP",
    "DEFP",
    "IGreedy",
    "OGreedy, density",
    "OGreedy, utility",
    "Best responses",
    "Random",
)
GREEDY = (IGREEDY, BY_DENSITY, BY_UTILITY)
METRICS = ("reduction", "var_cut", "var_utility", "local")

DEFAULTS = "defaults"
"""Name of the setting with the numbers above, of timelines and of games."""

SMALL_FRAMES = "frames of 1 byte a pixel"
OWN_SPEEDS = "a speed of its own for each device"
