"""Where to cut a network so that one inference ends soonest (Mu et al. 2024, eq. 2 to 7, without compression).

The device runs the first c of N layers, sends what comes out, and the server runs the rest. What the result's way
back, an encoder and a decoder take is neglected, as in the paper.

Functions take one network on one device, server and link, as `latencies` does; `jax.vmap` makes tables of them:

    >>> import jax, jax.numpy as jnp
    >>> from mec_jax.profiles.layers import layer_table
    >>> from mec_jax.solvers.latency import DEVICES, LINKS, SERVER, neurosurgeon, workload
    >>> alexnet = workload(layer_table("alexnet", num_classes=10))
    >>> rates = jnp.array([LINKS["3G"], LINKS["WiFi"]])
    >>> jax.vmap(neurosurgeon, (None, None, None, 0))(alexnet, DEVICES["Raspberry Pi 4B"], SERVER, rates).cut.tolist()
    [16, 3]
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mec_jax.physics.partition import Number, cut_times, work_after, work_before
from mec_jax.profiles.layers import Layer

# Table II of Mu et al. 2024.
DEVICES: Mapping[str, float] = MappingProxyType(  # FLOP/s
    {"Raspberry Pi 3B+": 0.2e9, "Raspberry Pi 4B": 3e9, "NVIDIA Jetson TK1": 326.4e9}
)
SERVER = 10_600e9  # FLOP/s, NVIDIA Tesla P100

# Table III of Mu et al. 2024: average uplinks from SPEEDTEST.
LINKS: Mapping[str, float] = MappingProxyType(  # bit/s
    {"3G": 1.19e6, "4G": 11.22e6, "5G": 52.24e6, "WiFi": 54.19e6}
)


class Workload(NamedTuple):
    """What one inference asks for, layer by layer."""

    flops: Float[Array, " layer"]  # FLOP of each layer
    bits: Float[Array, " layer"]  # bit that a cut after the layer sends
    cuttable: Bool[Array, " layer"]  # whether one tensor is all that crosses a cut after the layer
    input_bits: Float[Array, ""]  # bit of the raw input


class Partition(NamedTuple):
    """A cut and what it costs."""

    cut: Int[Array, ""]  # layers that the device runs: 0 is all-server, N all-local
    latency: Float[Array, ""]  # s


def workload(layers: Sequence[Layer], bits_per_element: float = 32.0) -> Workload:
    """What the layers of a `layer_table` ask for, the input and every feature sent with `bits_per_element` bit.

    The default is the paper's fp32.

    Raises:
        ValueError: No layers.
    """
    if not layers:
        raise ValueError("a workload needs at least one layer, e.g. those of layer_table('alexnet')")
    return Workload(
        flops=jnp.array([layer.flops for layer in layers], float),
        bits=jnp.array([layer.output_elements for layer in layers], float) * bits_per_element,
        cuttable=jnp.array([layer.cut for layer in layers]),
        input_bits=jnp.array(layers[0].input_elements, float) * bits_per_element,
    )


def latencies(network: Workload, device_speed: Number, server_speed: Number, rate: Number) -> Float[Array, " cut"]:
    """Time of one inference in s, by the number of layers 0 to N that the device runs (eq. 2 to 6).

    It is infinite where more than one tensor would have to cross, and where bits meet a rate of 0.

    Args:
        network: N layers.
        device_speed: FLOP/s, > 0.
        server_speed: FLOP/s, > 0.
        rate: Uplink, bit/s, >= 0.
    """
    bits = jnp.concatenate([network.input_bits[None], network.bits[:-1], jnp.zeros(1)])
    time = cut_times(work_before(network.flops), bits, work_after(network.flops), device_speed, rate, server_speed)
    sending = jnp.where(bits > 0, time.link, 0)  # nothing is sent in no time even at a rate of 0
    one_tensor = jnp.pad(network.cuttable[:-1], 1, constant_values=True)
    return jnp.where(one_tensor, time.device + sending + time.server, jnp.inf)


def all_local(network: Workload, device_speed: Number, server_speed: Number, rate: Number) -> Partition:
    """The device runs everything, and sends nothing."""
    latency = latencies(network, device_speed, server_speed, rate)
    return Partition(jnp.array(latency.size - 1), latency[-1])


def all_server(network: Workload, device_speed: Number, server_speed: Number, rate: Number) -> Partition:
    """The device sends its raw input, and the server runs everything."""
    return Partition(jnp.array(0), latencies(network, device_speed, server_speed, rate)[0])


def neurosurgeon(network: Workload, device_speed: Number, server_speed: Number, rate: Number) -> Partition:
    """The fastest cut inside the network, 1 <= c <= N - 1; of equally fast ones the first.

    That range is inferred from Fig. 6, whose "Partition" it gives; eq. 7 has c <= N. So it may be slower than all-local
    or all-server (AlexNet takes 1.2 times as long as all-local on a Raspberry Pi 4B over 3G): see `optimum`.

    Raises:
        ValueError: The network has one layer.
    """
    if network.flops.shape[-1] < 2:
        raise ValueError("a network of one layer can't be cut: give it two, or use all_local, all_server or optimum")
    latency = latencies(network, device_speed, server_speed, rate)
    cut = 1 + jnp.argmin(latency[1:-1])
    return Partition(cut, latency[cut])


def optimum(network: Workload, device_speed: Number, server_speed: Number, rate: Number) -> Partition:
    """The fastest of all cuts, all-server and all-local included; of equally fast ones the first."""
    latency = latencies(network, device_speed, server_speed, rate)
    cut = jnp.argmin(latency)
    return Partition(cut, latency[cut])
