"""One run on several devices: they share its lanes, environments side by side, and gradients are means over all.

A program that is traced within `on` computes what one device would, from the same random numbers, but for the order in
which floats are added up. On one device, and wherever nobody said `on`, all here leaves a program as it is.

The devices may be those of several processes (`algos.hosts`).

One device is the default. On a CPU XLA spreads its work over the cores anyway, and with no default preset were two
devices faster each time. On two cores that others kept busy, chunks in turns, twice, the best of 12 to 60 on two
devices ran at 0.91 and 0.92 times the speed of the best on one with PPO, 0.70 and 1.08 times with MAHPPO, 0.92 and 0.94
times with DRL-ES (all in MultiUEOffloading-v0), and 0.71 and 0.81 times with DRL-ES in NeuronAllocation-v0. Compiling
took up to 2.3 times as long. Of idle cores or of accelerators nothing is known.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped

LANE = "lane"
"""The axis of the mesh."""


# For the host


def mesh(num_devices: int) -> Mesh:
    """The first devices of this machine; of several processes (`algos.hosts`) each gives as many of its own.

    Raises:
        ValueError: If there are fewer, or they are no multiple of the processes.
    """
    processes = jax.process_count()
    if num_devices % processes:
        raise ValueError(f"devices is {num_devices}, no multiple of the {processes} processes that share them")
    count = num_devices // processes
    owned = [[device for device in jax.devices() if device.process_index == of] for of in range(processes)]
    there = min(owned, key=len)
    if processes > 1 and count > len(there):
        raise ValueError(
            f"devices is {num_devices}, {count} of each process, but process {there[0].process_index} has "
            f"{len(there)} ({there[0].device_kind}): give each the same --devices, or take fewer"
        )
    if count > len(there):
        mend = "; the environment variable XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of a CPU"
        raise ValueError(
            f"devices is {num_devices}, but JAX has {len(there)} here ({there[0].device_kind}): take fewer"
            f"{mend if there[0].platform == 'cpu' else ''}"
        )
    taken = [device for own in owned for device in own[:count]]
    return jax.make_mesh((num_devices,), (LANE,), (AxisType.Auto,), devices=taken)


def on(devices: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Within it, programs are traced for these devices."""
    return jax.set_mesh(devices) if devices.size > 1 else contextlib.nullcontext()


def whole(devices: Mesh) -> NamedSharding | None:
    """Where an array is that each of the devices has all of; None if one does not need to be told."""
    return NamedSharding(devices, PartitionSpec()) if devices.size > 1 else None


def placed(arrays: PyTree, place: NamedSharding | None) -> Any:
    """Arrays there. Of those of several processes each places what it has: it must be the same."""
    if place is None or place.is_fully_addressable:
        return arrays if place is None else jax.device_put(arrays, place)
    own = place.mesh.local_devices

    def spread(x: Any) -> jax.Array:
        copies = [jax.device_put(x, device) for device in own]
        return jax.make_array_from_single_device_arrays(copies[0].shape, place, copies)

    return jax.tree.map(spread, arrays)


def first(arrays: PyTree) -> Any:
    """Of arrays that each device has all of, those of the first."""
    return jax.tree.map(lambda x: x.addressable_data(0), arrays)


# For programs


def over_lanes[**A, R](function: Callable[A, R], in_axes: tuple[int | None, ...]) -> Callable[A, R]:
    """`jax.vmap` whose lanes the devices share: each runs its own as if there were no others.

    XLA alone would let them wait for each other in every turn of a loop.

    Args:
        function: Of one lane; closes over nothing that is traced.
        in_axes: 0 for an argument with lanes, None for one that all lanes have in common.

    Raises:
        ValueError: By what it returns, if the number of devices does not divide that of lanes.
    """
    mapped = jax.vmap(function, in_axes)
    if _count() == 1:
        return mapped
    specs = tuple(PartitionSpec() if axis is None else PartitionSpec(LANE) for axis in in_axes)
    return jax.shard_map(mapped, in_specs=specs, out_specs=PartitionSpec(LANE), check_vma=False)


def shared(rows: PyTree) -> Any:
    """Arrays [row, ...] whose rows the devices share from here on; if their number divides that of rows."""
    divide = all(x.shape[0] % _count() == 0 for x in jax.tree.leaves(rows))
    return _constrained(rows, PartitionSpec(LANE)) if divide else rows


def gathered(rows: PyTree) -> Any:
    """Arrays of which each device has all from here on."""
    return _constrained(rows, PartitionSpec())


def lane_sum(x: Shaped[Array, " lane"]) -> Shaped[Array, "*device"]:
    """The sum; or those of each device's lanes, so that in a loop none waits for the others."""
    return jnp.sum(x) if (count := _count()) == 1 else jnp.sum(shared(x.reshape(count, -1)), axis=1)


def _constrained(rows: PyTree, spec: PartitionSpec) -> Any:
    return rows if _count() == 1 else jax.lax.with_sharding_constraint(rows, spec)


def _count() -> int:
    """Devices that the program which is being traced is for."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[LANE] if LANE in mesh.auto_axes else 1
