"""Hold the offloading environment against recorded episodes, frame by frame or as a whole.

    python -m benchmarks.robustness.replay_traces tests/data/offloading_reference.npz --x64

The format is that of tests/data/README.md: any number of episodes, UEs and channels, any bundled network.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import mec_jax
import mec_jax.profiles
from mec_jax.envs.offloading import INPUT_BITS, MultiUEOffloading, OffloadAction, Params, State
from mec_jax.physics.frame import FREE

DESCRIPTION = """\
Play the frames of a trace file through mec_jax and print the largest differences of each episode.

One frame at a time, from each recorded state, unless --replay is given. The dynamics are chaotic: whether a
task ends just before or just after another one, or a frame, decides much that follows. So float32, frame by
frame, fails when more than 1 % of all frames differ by more than --tol or in anything discrete (--ties sets
that share); with --x64 or --replay any such frame is a failure. Use --replay with --x64."""

COLUMNS = """\
Columns: the largest difference of the states (time left / observation normaliser, bits left / 1204224),
observations, rewards and energies (J); then the number of frames that differ in numbers of tasks (left or
finished), in the tasks in flight (mode, cut, channel; the latter two of UEs that are not free) and in the end
of the episode; then the share of frames that agree."""

UE_STATE = ("tasks_left", "time_left", "bits_left", "point", "channel", "mode")


class Trace(NamedTuple):
    """One recorded episode of T frames."""

    name: str
    net: str
    beta: float  # s/J
    frame_time: float  # s
    num_channels: int
    distance: np.ndarray  # [ue] m
    tasks: np.ndarray  # [ue] at the start
    action: dict[str, np.ndarray]  # [T, ue]; fields of OffloadAction
    states: dict[str, np.ndarray]  # [T + 1, ue]
    obs: np.ndarray  # [T + 1, 4 * ue]
    reward: np.ndarray  # [T]
    done: np.ndarray  # [T]
    energy: np.ndarray  # [T] J
    finished: np.ndarray  # [T]


class Errors(NamedTuple):
    """Differences of each frame of an episode; the real ones in units of the observation, of reward and J."""

    state: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    energy: np.ndarray
    tasks: np.ndarray  # bool: numbers of tasks left or finished
    flight: np.ndarray  # bool: modes, or cuts and channels of the tasks in flight
    done: np.ndarray  # bool

    def within(self, tol: float) -> np.ndarray:
        """Frames in which everything agrees."""
        real = np.max([self.state, self.obs, self.reward, self.energy], axis=0)
        return (real <= tol) & ~self.tasks & ~self.flight & ~self.done


def load_traces(path: str | Path) -> list[Trace]:
    """All episodes of a trace file.

    Raises:
        ValueError: If it can't be read, or is no trace file, or an episode is incomplete or makes no sense.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # whatever NumPy, zipfile and zlib raise at broken bytes
        raise ValueError(f"{path} is no readable .npz trace file: {error}") from error
    names = sorted({key.partition("/")[0] for key in arrays if "/" in key})
    if not names:
        raise ValueError(f"{path} is no trace file: it has no array named KK/field")
    return [_trace(path, name, arrays) for name in names]


def _trace(path: str | Path, name: str, arrays: dict[str, np.ndarray]) -> Trace:
    def fail(what: str) -> ValueError:
        return ValueError(f"{path}, episode {name}: {what}")

    def field(key: str, shape: tuple[int, ...], low: float = -np.inf, high: float = np.inf) -> np.ndarray:
        """The array, if it has this shape and finite entries from low to high; whole if high is finite."""
        try:
            array = arrays[f"{name}/{key}"]
        except KeyError:
            raise fail(f"{key} is missing") from None
        if array.shape != shape:
            raise fail(f"{key} has shape {array.shape} and not {shape}")
        if array.dtype.kind not in "biuf":
            raise fail(f"{key} is not numeric but {array.dtype}")
        if not (np.isfinite(array) & (array >= low) & (array <= high)).all():
            raise fail(f"{key} has entries outside {low:g}..{high:g}")
        if np.isfinite(high) and (array != np.round(array)).any():
            raise fail(f"{key} has entries that are not whole")
        return array

    net = arrays.get(f"{name}/net", np.array(""))
    if net.shape != () or net.dtype.kind not in "US":
        raise fail("net is not a name")
    net_name = net.item().decode() if isinstance(net.item(), bytes) else net.item()
    if net_name not in mec_jax.profiles.bundled_profiles():
        raise fail(f"net {net_name!r} is not one of {', '.join(mec_jax.profiles.bundled_profiles())}")
    num_points = mec_jax.profiles.load_profile(net_name).num_points

    ues, channels, beta, frame_time = field("meta", (4,), 0).tolist()
    if any(number % 1 or not 1 <= number <= 10_000 for number in (ues, channels)) or not frame_time:
        raise fail(f"meta is {[ues, channels, beta, frame_time]} and not N, C, beta, T0")
    ue = int(ues)
    cut, channel, most = num_points - 1, channels - 1, float(2**31 - 1)
    frames = len(np.atleast_1d(arrays.get(f"{name}/reward", [])))
    if not frames:
        raise fail("reward is missing or empty")

    highest = {"tasks_left": most, "point": cut, "channel": channel, "mode": 2}
    states = {
        # -1e-9: what a subtraction may have left of a time or a number of bits
        key: np.maximum(0, field(f"state_{key}", (frames + 1, ue), -1e-9, highest.get(key, np.inf)))
        for key in UE_STATE
    }
    trace = Trace(
        name=name,
        net=net_name,
        beta=beta,
        frame_time=frame_time,
        num_channels=int(channels),
        distance=field("init_distance", (ue,), 1e-6),
        tasks=field("init_tasks", (ue,), 1, most),
        action={
            "cut": field("action_point", (frames, ue), 0, cut),
            "channel": field("action_channel", (frames, ue), 0, channel),
            "power": field("action_power", (frames, ue)),
        },
        states=states,
        obs=field("obs", (frames + 1, 4 * ue)),
        reward=field("reward", (frames,)),
        done=field("done", (frames,), 0, 1),
        energy=field("energy", (frames,)),
        finished=field("finished", (frames,), 0, most),
    )
    for key, start in (("point", cut), ("channel", channel)):
        if (field(f"init_{key}", (ue,), 0, start) != states[key][0]).any():
            raise fail(f"init_{key} and the first row of state_{key} differ")
    return trace


def make(trace: Trace) -> tuple[MultiUEOffloading, Params]:
    """The environment an episode was recorded in."""
    env, _ = mec_jax.make(
        "MultiUEOffloading-v0",
        num_ues=len(trace.distance),
        num_channels=trace.num_channels,
        profile=trace.net,
    )
    return env, env.params(beta=trace.beta, frame_time=trace.frame_time)


def recorded_states(trace: Trace, params: Params) -> State:
    """The states before each frame and after the last, in the dtypes of `params`."""
    frames, ues = trace.states["mode"].shape

    def whole(values: np.ndarray) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(values, jnp.int32), (frames, ues))

    def real(values: Any) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(values, params.frame_time.dtype), (frames, ues))

    states = trace.states
    return State(
        time=jnp.arange(frames, dtype=jnp.int32),
        tasks_given=whole(trace.tasks),
        tasks_left=whole(states["tasks_left"]),
        mode=whole(states["mode"]),
        time_left=real(states["time_left"]),
        bits_left=real(states["bits_left"]),
        cut=whole(states["point"]),
        channel=whole(states["channel"]),
        distance=real(trace.distance),
        energy=real(0),
        busy=real(0),
    )


@partial(jax.jit, static_argnames="env")
def each_frame(env: MultiUEOffloading, states: State, actions: OffloadAction, params: Params) -> tuple:
    """What `step_env` returns from each of the states."""
    step = partial(env.step_env, jax.random.key(0))
    return jax.vmap(step, (0, 0, None))(states, actions, params)


@partial(jax.jit, static_argnames="env")
def whole_episode(env: MultiUEOffloading, state: State, actions: OffloadAction, params: Params) -> tuple:
    """What `step_env` returns in each frame of an episode."""

    def step(state: State, action: OffloadAction) -> tuple[State, tuple]:
        out = env.step_env(jax.random.key(0), state, action, params)
        return out[1], out

    return jax.lax.scan(step, state, actions)[1]


def play(trace: Trace, *, replay: bool = False) -> Errors:
    """The differences between a recorded episode and the same one in the current precision.

    Args:
        trace: The episode.
        replay: Play it as a whole, instead of one frame at a time from each recorded state.
    """
    env, params = make(trace)
    states = recorded_states(trace, params)
    frames = len(trace.reward)
    padding = -frames % 128  # so that episodes of different lengths share a program

    def pad(x: Any) -> jax.Array:
        return jnp.concatenate([x, jnp.repeat(x[-1:], padding, axis=0)])

    actions = OffloadAction(**{key: pad(jnp.asarray(values)) for key, values in trace.action.items()})
    start = jax.tree.map(lambda x: x[0], states)
    if replay:
        out = whole_episode(env, start, actions, params)
    else:
        out = each_frame(env, jax.tree.map(lambda x: pad(x[:-1]), states), actions, params)
    obs, after, reward, done, info = jax.tree.map(lambda x: np.asarray(x)[:frames], out)

    obs = np.vstack([env.observe(jax.random.key(0), start, None, params), obs])
    obs_error = np.abs(obs - trace.obs).max(1)

    want = {key: values[1:] for key, values in trace.states.items()}
    busy = want["mode"] != FREE

    def largest(difference: np.ndarray) -> np.ndarray:
        return np.abs(difference).reshape(frames, -1).max(1)

    time_error = largest((after.time_left - want["time_left"]) / np.asarray(params.time_scale, np.float64))
    bits_error = largest((after.bits_left - want["bits_left"]) / INPUT_BITS)
    flight = (after.mode != want["mode"]) | busy & ((after.cut != want["point"]) | (after.channel != want["channel"]))
    return Errors(
        state=np.maximum(time_error, bits_error),
        obs=np.maximum(obs_error[1:], np.pad(obs_error[:1], (0, frames - 1))),  # the start's in the first frame
        reward=np.abs(reward - trace.reward),
        energy=np.abs(info["energy"] - trace.energy),
        tasks=(after.tasks_left != want["tasks_left"]).any(1) | (info["finished"] != trace.finished),
        flight=flight.any(1),
        done=done != trace.done.astype(bool),
    )


def report(traces: list[Trace], *, replay: bool, tol: float, ties: float) -> bool:
    """Print the differences of each episode; whether all frames but a share of `ties` are within `tol`."""
    columns = "{:>8} {:>11} {:>3} {:>3} {:>6}" + " {:>9}" * 4 + " {:>6}" * 3 + " {:>10}"
    print(columns.format("episode", "net", "N", "C", "frames", *Errors._fields, "within tol"))
    agree: list[np.ndarray] = []
    for trace in traces:
        errors = play(trace, replay=replay)
        agree.append(errors.within(tol))
        labels = (trace.name, trace.net, len(trace.distance), trace.num_channels, len(trace.reward))
        real, discrete = ([f"{x.max():.2e}" for x in errors[:4]], [int(x.sum()) for x in errors[4:]])
        print(columns.format(*labels, *real, *discrete, f"{agree[-1].mean():.2%}"))
    good = np.concatenate(agree)
    passed = bool((~good).sum() <= ties * good.size)
    verdict = "ok" if passed else "FAILED"
    print(f"{good.sum()} of {good.size} frames agree within {tol:g}, {1 - ties:.2%} of them must: {verdict}")
    return passed


def main(argv: list[str] | None = None) -> int:
    """0 when all is within the tolerance, 1 when it is not, 2 when the file can't be used."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog=COLUMNS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", help="trace file (.npz)")
    parser.add_argument("--replay", action="store_true", help="whole episodes from their start")
    parser.add_argument("--x64", action="store_true", help="float64 (default: float32)")
    parser.add_argument(
        "--tol",
        type=float,
        help="largest difference allowed (default: 1e-9 with --x64, 1e-6 with --x64 --replay, else 1e-3)",
    )
    parser.add_argument(
        "--ties",
        type=float,
        help="share of frames that may differ by more (default: 0.01 in float32 frame by frame, else 0)",
    )
    args = parser.parse_args(argv)
    tol = ((1e-6 if args.replay else 1e-9) if args.x64 else 1e-3) if args.tol is None else args.tol
    ties = (0.0 if args.x64 or args.replay else 0.01) if args.ties is None else args.ties
    if not tol > 0:
        parser.error(f"--tol is {tol}: it must be > 0")
    if not 0 <= ties <= 1:
        parser.error(f"--ties is {ties}: it must be from 0 to 1")
    try:
        traces = load_traces(args.file)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with jax.enable_x64(args.x64):
        return 0 if report(traces, replay=args.replay, tol=tol, ties=ties) else 1


if __name__ == "__main__":
    sys.exit(main())
