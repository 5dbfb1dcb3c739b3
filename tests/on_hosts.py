"""`tests.on_devices` in one of two processes that share the devices: both are started.

XLA_FLAGS=--xla_force_host_platform_device_count=2 python -m tests.on_hosts HOST:PORT PROCESS CASE 4
"""

import runpy
import sys

from algos import hosts

if __name__ == "__main__":
    _, address, process, *arguments = sys.argv
    hosts.join(address, 2, int(process))  # before anything starts JAX's devices
    sys.argv[1:] = arguments
    runpy.run_module("tests.on_devices", run_name="__main__")
    hosts.part()
