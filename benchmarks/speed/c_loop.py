"""Compiles event_loop.c with the system's C compiler and calls it: the scalar C baseline.

python -m benchmarks.speed.c_loop        # frames per second under a random policy, one thread
"""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.speed.reference_loop import Model

SOURCE = Path(__file__).with_name("event_loop.c")
# Loops here are over the few UEs of one lane: vector code for them is slower.
FLAGS = ["-std=c99", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-tree-vectorize"]
MAX_TASKS = 1024  # as in event_loop.c


def _struct(int32, float32, size):
    """The dtype of a C struct of int32 arrays, then float32 arrays."""
    return np.dtype(
        [(name, np.int32, (size,)) for name in int32.split()]
        + [(name, np.float32, (size,)) for name in float32.split()]
    )


def find_compiler():
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for name in names:
        if shutil.which(name):
            return shutil.which(name)
    raise RuntimeError(
        f"the C baseline needs a C compiler, and found none of {names}: install gcc, or set CC to a compiler"
    )


def compiler_report():
    """Version of the compiler, and the flags."""
    version = subprocess.run([find_compiler(), "--version"], capture_output=True, text=True).stdout
    return f"{version.splitlines()[0]}, {' '.join(FLAGS)}"


@functools.cache
def load(ues, channels, points):
    """The library, built for this machine and this size of problem in a temporary folder."""
    sizes = [f"-DUES={ues}", f"-DCHANNELS={channels}", f"-DPOINTS={points}"]
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "event_loop.so")
        command = [find_compiler(), *FLAGS, *sizes, "-shared", "-fPIC", str(SOURCE), "-o", target, "-lm"]
        built = subprocess.run(command, capture_output=True, text=True)
        if built.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{built.stderr}")
        library = ctypes.CDLL(target)
    pointer, integer, seed = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64
    library.reset.argtypes = [pointer, integer, pointer, seed]
    library.run_frames.argtypes = [pointer, integer, integer, pointer, pointer, seed]
    library.run_frame_actions.argtypes = [pointer, integer, pointer, pointer, pointer]
    library.reset.restype = library.run_frame_actions.restype = None
    library.run_frames.restype = ctypes.c_int64
    return library


class CLoop:
    """Lanes of the environment.

    `state` and `output` are structured arrays with one entry per lane, worked on in place:
    state["bits_left"] is lanes x UEs, output["reward"] lanes, output["obs"] lanes x 4 UEs.
    """

    def __init__(self, num_ues=5, lanes=1, num_channels=2, **numbers):
        """`numbers` are fields of `Model`; its mean_tasks must be well below MAX_TASKS."""
        model = Model(**numbers)
        count = np.arange(MAX_TASKS)
        log_factorial = np.cumsum(np.log(np.maximum(count, 1)))
        tasks_cdf = np.cumsum(np.exp(count * np.log(model.mean_tasks) - model.mean_tasks - log_factorial))

        scalars = (
            *(model.frame_time, model.unit_of_time, model.beta, model.bandwidth),
            *(model.noise, model.path_loss, model.max_power),
        )
        tables = (model.bits, model.front_time, model.front_power)
        self._model = np.concatenate([scalars, *tables, tasks_cdf]).astype(np.float32)
        integers, floats = "tasks_left total_tasks mode point channel", "time_left bits_left distance gain"
        self.state = np.zeros(lanes, _struct(integers, floats, num_ues))
        self.output = np.zeros(
            lanes,
            [("obs", np.float32, (4 * num_ues,))]
            + [(name, np.float32) for name in ("reward", "energy")]
            + [(name, np.int32) for name in ("finished", "done", "events")],
        )
        self._action = np.zeros(lanes, _struct("point channel", "power", num_ues))
        self.lanes, self._library = lanes, load(num_ues, num_channels, len(model.bits))

    def reset(self, seed=0):
        self._library.reset(self._model.ctypes.data, self.lanes, self.state.ctypes.data, seed)

    def run_frames(self, frames, seed=0):
        """Frames of every lane under the random policy, with resets. Returns the number of events."""
        return self._library.run_frames(
            self._model.ctypes.data, self.lanes, frames, self.state.ctypes.data, self.output.ctypes.data, seed
        )

    def run_frame_actions(self, points, channels, powers):
        """One frame with given actions, lanes x UEs, without reset. Returns output."""
        self._action["point"], self._action["channel"], self._action["power"] = points, channels, powers
        arrays = (self.state.ctypes.data, self._action.ctypes.data, self.output.ctypes.data)
        self._library.run_frame_actions(self._model.ctypes.data, self.lanes, *arrays)
        return self.output


def frames_per_second(num_ues=5, lanes=4096, seconds=2.0, seed=0, frames=4, **kwargs):
    """(frames per second, events per frame) under the random policy, resets included; one thread.

    The lanes first play 40 frames, to be spread over their episodes. `frames` of a lane are run in a row.
    """
    loop = CLoop(num_ues, lanes, **kwargs)
    loop.reset(seed)
    loop.run_frames(40, seed + 1)
    calls, events, begin = 0, 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        calls += 1
        events += loop.run_frames(frames, seed + 1 + calls)
    elapsed, total = time.perf_counter() - begin, calls * frames * lanes
    return total / elapsed, events / total


if __name__ == "__main__":
    print(compiler_report())
    for ues in (3, 5, 10):
        speed, events = frames_per_second(ues)
        print(f"C, one thread, N = {ues}: {speed:.0f} frames/s, {events:.1f} events a frame")
