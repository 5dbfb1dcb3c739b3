"""What a DNN costs: bits, seconds, watts and FLOP of its layers and of the points where it can be cut.

Numbers come from JSON files, each with its source (`reader`), or are worked out from a description of the network
(`layers`). One module a problem says what its file holds: `offloading`, `multi_exit`, `neurons`, `partition_game`.
"""

from mec_jax.profiles.offloading import Profile, bundled_profiles, load_profile

__all__ = ["Profile", "bundled_profiles", "load_profile"]
