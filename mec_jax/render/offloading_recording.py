"""Episodes of `MultiUEOffloading`, played event by event and noted as NumPy arrays."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from mec_jax.envs.offloading import MultiUEOffloading, Params, State
from mec_jax.episodes import Policy, start_key, step_keys
from mec_jax.physics.frame import (
    FREE,
    TRANSMITTING,
    Clock,
    Given,
    Interval,
    goes_on,
    next_event,
)


class Recording(NamedTuple):
    """One episode, event by event. An event lasts until the next: meanwhile nothing changes speed."""

    start: Float[np.ndarray, " event"]  # s since the start of the episode
    end: Float[np.ndarray, " event"]  # s, the start of the next event
    frame: Int[np.ndarray, " event"]  # frame it lies in, from 0
    mode: Int[np.ndarray, "event ue"]  # FREE, COMPUTING or TRANSMITTING
    tasks_left: Int[np.ndarray, "event ue"]  # the one in hand included
    cut: Int[np.ndarray, "event ue"]  # of the task in hand; of a FREE UE, the last it had
    channel: Int[np.ndarray, "event ue"]  # of the task in hand
    rate: Float[np.ndarray, "event ue"]  # bit/s; 0 unless TRANSMITTING
    power: Float[np.ndarray, "event ue"]  # W that the UE draws; 0 when FREE
    reward: Float[np.ndarray, " frame"]
    energy: Float[np.ndarray, " frame"]  # J, all UEs
    finished: Int[np.ndarray, " frame"]  # tasks, all UEs
    terminated: bool  # all tasks finished; if not, the episode was truncated
    frame_time: float  # s
    num_points: int  # cut points; the last is local
    num_channels: int


def record_episode(
    env: MultiUEOffloading, params: Params, policy: Policy, policy_params: PyTree, key: Array
) -> Recording:
    """Play the episode that `play_episode` plays with the same arguments, and note every event.

    The frames are those of `env.step_env`; the events within a frame are found by the body of its event loop, one at
    a time. The two programs agree to float tolerance, and each frame starts from the environment's state again.

    Args:
        env: The environment; static.
        params: Its parameters.
        policy: `(policy_params, observation, key) -> action`; static.
        policy_params: What the policy reads.
        key: Key of the episode, as one of `evaluation_keys`.

    Raises:
        ValueError: If the environment is another, or the action does not fit it.
    """
    if not isinstance(env, MultiUEOffloading):
        raise ValueError(f"environment {env.name} cannot be drawn: only a MultiUEOffloading can")
    key, reset_key = start_key(key)
    observation, state = jax.jit(env.reset_env)(reset_key, params)
    frames: list[tuple[Array, Array, Array]] = []
    events: list[_Events] = []
    over = False
    while not over:
        key, policy_key, step_key = step_keys(key)
        start, played = _play_frame(env, policy, params, policy_params, observation, state, policy_key, step_key)
        given, clock, cut = start
        more = True
        while more:
            clock, some = jax.device_get(_play_events(given, clock, cut, len(frames)))
            events.append(jax.tree.map(lambda x, happens=some.happens: x[happens], some))
            more = some.happens[-1]
        observation, state, reward, terminated, info = played
        over = terminated | env.is_truncated(state, params)
        frames.append((reward, info["energy"], info["finished"]))

    rewards, energy, finished = (np.array(column) for column in zip(*jax.device_get(frames), strict=True))
    event: _Events = jax.tree.map(lambda *some: np.concatenate(some), *events)
    doing: Any = event.interval
    frame_time = float(params.frame_time)
    frame_end = (event.frame + 1) * frame_time
    return Recording(
        start=frame_end - event.remaining,
        end=frame_end - event.remaining_after,  # of the last event of a frame exactly 0
        frame=event.frame,
        mode=doing.mode,
        tasks_left=event.tasks_left,
        cut=event.cut,
        channel=doing.task.channel,
        rate=np.where(doing.mode == TRANSMITTING, doing.rate, 0),
        power=np.where(doing.mode == FREE, 0, doing.power),
        reward=rewards,
        energy=energy,
        finished=finished,
        terminated=bool(terminated),
        frame_time=frame_time,
        num_points=env.num_points,
        num_channels=env.num_channels,
    )


class _Events(NamedTuple):
    """Events as they are played, `[event]` first."""

    happens: Bool[Any, " event"]  # the frame may be over before a batch of events is
    frame: Int[Any, " event"]
    remaining: Float[Any, " event"]  # s of the frame, at the start of the event
    remaining_after: Float[Any, " event"]  # s, at its end
    tasks_left: Int[Any, "event ue"]
    cut: Int[Any, "event ue"]
    interval: Interval


@partial(jax.jit, static_argnames=("env", "policy"))
def _play_frame(
    env: MultiUEOffloading,
    policy: Policy,
    params: Params,
    policy_params: PyTree,
    observation: Float[Array, " observation"],
    state: State,
    policy_key: Array,
    step_key: Array,
) -> tuple[tuple[Given, Clock, tuple], tuple]:
    """What the frame's event loop starts from, the cuts of current and upcoming tasks, and what `step_env` returns."""
    action = env.valid_action(policy(policy_params, observation, policy_key), params)
    given, clock = env.open_frame(state, action, params)
    return (given, clock, (state.cut, action.cut)), env.step_env(step_key, state, action, params)


@jax.jit
def _play_events(given: Given, clock: Clock, cut: tuple[Array, Array], frame: int) -> tuple[Clock, _Events]:
    """The next events of a frame: several at once, as each call takes longer than they do."""

    def event(clock: Clock, _: None) -> tuple[Clock, _Events]:
        happens = goes_on(given, clock)
        after, interval = next_event(given, clock)
        after = jax.tree.map(lambda new, old: jnp.where(happens, new, old), after, clock)
        finished = clock.frame.finished
        return after, _Events(
            happens=happens,
            frame=jnp.asarray(frame),
            remaining=clock.remaining,
            remaining_after=after.remaining,
            tasks_left=given.tasks_left - finished,
            cut=jnp.where(finished > 0, cut[1], cut[0]),
            interval=interval,
        )

    return jax.lax.scan(event, clock, length=32)
