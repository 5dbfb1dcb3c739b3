"""The plain simulators of benchmarks/: Python against recorded episodes, C against Python."""

import math
import random
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import c_loop, reference_loop

TRACES = Path(__file__).parent / "data" / "offloading_reference.npz"
EPISODES = ("00", "01", "02", "03")
STATE = ("tasks_left", "mode", "time_left", "bits_left", "point", "channel")
RESULT = ("obs", "reward", "done", "energy", "finished")
UNITS = {"time_left": 0.045887, "bits_left": 1204224.0, "obs": 1.0, "reward": 1.0, "energy": 1.0}


def load_episode(name):
    """A recorded episode: field -> array, and the Python loop at its start."""
    with np.load(TRACES) as data:
        trace = {key[3:]: data[key] for key in data.files if key.startswith(name)}
    ues, channels, beta, frame_time = trace["meta"].tolist()
    env = reference_loop.OffloadingReference(int(ues), int(channels), beta=beta, frame_time=frame_time)
    env.start(*(trace["init_" + key].tolist() for key in ("distance", "tasks", "point", "channel")))
    return trace, env


def state_at(trace, t):
    return {key: trace["state_" + key][t].tolist() for key in STATE}


def action_at(trace, t):
    return [trace["action_" + key][t].tolist() for key in ("point", "channel", "power")]


def recorded(trace):
    """What the frames of an episode led to, with one row per frame."""
    after = {key: trace["state_" + key][1:] for key in STATE}
    return after | {key: trace[key][1:] if key == "obs" else trace[key] for key in RESULT}


def play(env, action, state=None):
    """A frame of the Python loop, from `state` where given: what it leads to."""
    for key, value in (state or {}).items():
        setattr(env, key, list(value))
    result = env.step(*action)
    return {key: list(getattr(env, key)) for key in STATE} | dict(zip(RESULT, result, strict=True))


def stack(frames):
    return {key: np.array([frame[key] for frame in frames]) for key in frames[0]}


def agree(got, want, tolerance):
    """Which frames agree: in each value within the tolerance in its unit, in everything discrete exactly."""
    good = np.full(len(want["reward"]), True)
    for key in (*STATE, *RESULT):
        error = np.abs(got[key].astype(float) - want[key]).reshape(len(good), -1).max(1)
        good &= error <= tolerance * UNITS[key] if key in UNITS else error == 0
    return good


@pytest.mark.parametrize("name", EPISODES)
def test_python_loop_repeats_each_recorded_frame(name):
    trace, env = load_episode(name)
    assert {key: getattr(env, key) for key in STATE} == state_at(trace, 0)
    np.testing.assert_allclose(env.observe(), trace["obs"][0], rtol=0, atol=1e-12)
    frames = [play(env, action_at(trace, t), state_at(trace, t)) for t in range(len(trace["reward"]))]
    assert agree(stack(frames), recorded(trace), 1e-9).all()


@pytest.mark.parametrize("name", EPISODES)
def test_python_loop_replays_recorded_episodes(name):
    trace, env = load_episode(name)
    frames = [play(env, action_at(trace, t)) for t in range(len(trace["reward"]))]
    assert agree(stack(frames), recorded(trace), 1e-8).all()


def test_python_loop_with_all_tasks_local():
    """Ten tasks of 45.887 ms end in the first frame; the eleventh, the last, in the second."""
    env = reference_loop.OffloadingReference(2)
    env.start([50.0, 50.0], [11, 11], [5, 5], [0, 0])
    action = [5, 5], [0, 0], [1.0, 1.0]
    _, reward, done, energy, finished = env.step(*action)
    assert (finished, done, env.events) == (20, False, 11)
    assert energy == pytest.approx(2 * 0.5 * 2.1454)
    assert reward == pytest.approx(-(0.5 + 0.47 * 0.5 * 2.1454) / 10)
    obs, _, done, energy, finished = env.step(*action)
    assert (finished, done) == (2, True)
    assert energy == pytest.approx(2 * (11 * 0.045887 - 0.5) * 2.1454)
    assert obs == [0.0, 0.0, 0.0, 49 / 99] * 2


def test_python_loop_resets_within_the_stated_ranges():
    rng, env = random.Random(0), reference_loop.OffloadingReference(5)
    distances, tasks = [], []
    for _ in range(400):
        env.reset(rng)
        distances += env.distance
        tasks += env.tasks_left
    assert min(distances) >= 1.0 and max(distances) <= 100.0
    assert np.mean(distances) == pytest.approx(50.5, abs=2.6)
    assert np.mean(tasks) == pytest.approx(200.0, abs=1.3)
    assert np.var(tasks) == pytest.approx(200.0, rel=0.15)


def random_frames(ues, count):
    """Frames of the Python loop under the random policy: states before, actions, what they lead to."""
    rng, env = random.Random(ues), reference_loop.OffloadingReference(ues)
    env.reset(rng)
    states, actions, after = [], [], []
    for _ in range(count):
        states.append({key: list(getattr(env, key)) for key in (*STATE, "distance", "total_tasks")})
        actions.append(reference_loop.random_action(rng, env))
        after.append(play(env, actions[-1]))
        if after[-1]["done"]:
            env.reset(rng)
    return env, states, actions, stack(after)


def float32_agreement(env, states, actions, want):
    """Which frames of the C loop agree within 1e-3, and which ones float32 can decide.

    Whether a task ends just before or just after another one can change all that follows. So a frame is only
    counted if the Python loop itself, in float64, does not care about rounding its inputs to float32.
    """
    options = {"beta": env.beta, "frame_time": env.frame_time}
    loop = c_loop.CLoop(env.num_ues, len(states), env.num_channels, **options)
    for key, value in stack(states).items():
        loop.state[key] = value
    output = loop.run_frame_actions(*(np.array(part) for part in zip(*actions, strict=True)))
    got = {key: loop.state[key] for key in STATE} | {key: output[key] for key in RESULT}

    rounded_frames = []
    for state, (points, channels, powers) in zip(states, actions, strict=True):
        rounded = {key: np.array(state[key], np.float32).tolist() for key in ("time_left", "bits_left", "distance")}
        env.gain = (np.array(rounded["distance"]) ** -env.path_loss).tolist()
        rounded_frames.append(play(env, (points, channels, np.array(powers, np.float32).tolist()), state | rounded))
    return agree(got, want, 1e-3), agree(stack(rounded_frames), want, 1e-3)


@pytest.mark.parametrize("ues", [1, 3, 5, 10])
def test_c_loop_agrees_with_python_loop(ues):
    good, decidable = float32_agreement(*random_frames(ues, 2000))
    assert decidable.mean() > 0.98
    assert good[decidable].mean() >= 0.99
    assert good.mean() >= 0.98


def test_c_loop_repeats_recorded_frames():
    good, decidable = [], []
    for name in EPISODES:
        trace, env = load_episode(name)
        frames = range(len(trace["reward"]))
        start = {"distance": env.distance, "total_tasks": env.total_tasks}
        states = [state_at(trace, t) | start for t in frames]
        result = float32_agreement(env, states, [action_at(trace, t) for t in frames], recorded(trace))
        good.extend(result[0])
        decidable.extend(result[1])
    assert np.mean(decidable) > 0.98
    assert np.mean(np.array(good)[decidable]) >= 0.99


def test_rate_at_the_lowest_power():
    """At 100 m and the least power 1 + SNR rounds in float32; 0.05 bit are sent in 0.5 ln 2 s."""
    state = {
        "tasks_left": [9],
        "mode": [2],
        "time_left": [0.0],
        "bits_left": [0.05],
        "point": [0],
        "channel": [0],
    }
    env, loop = reference_loop.OffloadingReference(1), c_loop.CLoop(1)
    env.start([100.0], [9], [0], [0])
    want = play(env, ([5], [0], [0.0]), state)
    assert want["finished"] == 4  # it, and three local tasks after it
    assert want["energy"] == pytest.approx(2.1454 * (0.5 - 0.5 * math.log(2)), rel=1e-6)
    for key, value in (state | {"distance": env.distance, "total_tasks": [9]}).items():
        loop.state[key] = value
    output = loop.run_frame_actions([[5]], [[0]], [[0.0]])
    assert output["energy"][0] == pytest.approx(want["energy"], rel=1e-4)


def test_c_loop_plays_the_same_random_game():
    """Its own actions and resets: frames are like the Python loop's on average."""
    ues, lanes = 5, 2000
    loop = c_loop.CLoop(ues, lanes)
    loop.reset(1)
    state = loop.state
    assert state["distance"].min() >= 1.0 and state["distance"].max() <= 100.0
    assert state["distance"].mean() == pytest.approx(50.5, abs=1.5)
    assert state["total_tasks"].mean() == pytest.approx(200.0, abs=0.8)
    assert state["total_tasks"].var() == pytest.approx(200.0, rel=0.08)
    assert np.unique(state["point"]).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.unique(state["channel"]).tolist() == [0, 1]

    finished, energy, events, resets = [], [], 0, 0
    for frame in range(100):
        events += loop.run_frames(1, seed=frame + 2)
        finished.append(loop.output["finished"].mean())
        energy.append(loop.output["energy"].mean())
        done = loop.output["done"] == 1
        resets += done.sum()
        assert (state["tasks_left"][done] == state["total_tasks"][done]).all()
        assert (loop.output["obs"][done, ::4] == 1.0).all()
    assert resets > lanes
    assert 50 < events / (100 * lanes) < 85

    python = random_frames(ues, 3000)[3]
    for c_values, python_values in ((finished, python["finished"]), (energy, python["energy"])):
        error = np.std(python_values) / math.sqrt(300)  # about ten frames of an episode count as one
        assert np.mean(c_values) == pytest.approx(np.mean(python_values), abs=4 * error)


def test_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"no-such-compiler.*install gcc"):
        c_loop.find_compiler()
