"""`MultiUEOffloading-v0`: recorded episodes, closed forms, parameters, spaces and errors."""

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import mec_jax
from benchmarks.robustness import precision, replay_traces, stress
from mec_jax.envs.offloading import INPUT_BITS, MultiUEOffloading, OffloadAction, Params, State, poisson
from mec_jax.physics.frame import COMPUTING, FREE, TRANSMITTING
from mec_jax.profiles import load_profile
from tests.documents import document, write
from tests.errors import error_of

ID = "MultiUEOffloading-v0"
ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT / "tests" / "data" / "offloading_reference.npz"
KEY = jax.random.key(0)
RESNET18 = load_profile("resnet18")
LOCAL = 5  # the last point of the bundled profiles


def make(num_ues: int = 2, **static: Any) -> MultiUEOffloading:
    return mec_jax.make(ID, num_ues=num_ues, **static)[0]


def action(cut: Any, channel: Any = 0, power: Any = 1.0, num_ues: int = 2) -> OffloadAction:
    """The same for all UEs where a number is given."""
    cut, channel = (jnp.broadcast_to(jnp.asarray(x, jnp.int32), num_ues) for x in (cut, channel))
    return OffloadAction(cut, channel, jnp.broadcast_to(jnp.asarray(power, jnp.float32), num_ues))


def fresh(env: MultiUEOffloading, params: Params, cut: Any, channel: Any = 0) -> State:
    """A reset state whose first tasks have the given cut and channel, just begun."""
    _, state = env.reset(KEY, params)
    cut, channel, _ = action(cut, channel, num_ues=env.num_ues)
    time = params.front_time[jnp.arange(env.num_ues), cut]
    return state.replace(
        cut=cut,
        channel=channel,
        mode=jnp.where(time > 0, COMPUTING, TRANSMITTING),
        time_left=time,
        bits_left=params.feature_bits[jnp.arange(env.num_ues), cut],
    )


def play_out(env: MultiUEOffloading, params: Params, state: State, act: OffloadAction) -> dict[str, Any]:
    """The `info` of the last frame under a constant action."""
    for _ in range(int(params.max_steps_in_episode)):
        _, state, _, terminated, _, info = env.step(KEY, state, act, params)
        if terminated:
            return info
    raise AssertionError("the episode has no end")


def rate(power: float, distance: float, noise: float = 1e-9, bandwidth: float = 1e6) -> float:
    """bit/s by eq. 5; interference is part of the noise."""
    return bandwidth * math.log2(1 + power * distance**-3 / noise)


# --- Recorded episodes of the authors' implementation ---


def test_float32_repeats_each_recorded_frame(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_traces.main([str(TRACES)]) == 0
    assert "207 of 207 frames" in capsys.readouterr().out


@pytest.mark.full
def test_float64_repeats_each_recorded_frame_from_the_command_line() -> None:
    """To 1e-9, with no difference in tasks, modes and ends."""
    command = [sys.executable, "-m", "benchmarks.robustness.replay_traces", str(TRACES), "--x64"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "207 of 207 frames agree within 1e-09" in done.stdout


def test_float64_replays_whole_recorded_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_traces.main([str(TRACES), "--x64", "--replay"]) == 0
    assert "207 of 207 frames agree within 1e-06" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("state_bits_left", lambda x: x + 5_000),
        ("energy", lambda x: x + 0.01),
        ("finished", lambda x: x + 1),
        ("done", lambda x: 1 - x),
        ("action_channel", lambda x: 1 - x),
        ("obs", lambda x: x + 0.01),
    ],
)
def test_traces_that_differ_are_found(
    field: str,
    change: Callable[[Any], Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    traces: dict[str, np.ndarray],
) -> None:
    """So that the checks above can fail."""
    key = f"02/{field}"
    changed: dict[str, Any] = traces | {key: change(traces[key])}
    np.savez(tmp_path / "changed.npz", **changed)
    assert replay_traces.main([str(tmp_path / "changed.npz")]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.fixture(scope="module")
def traces() -> dict[str, np.ndarray]:
    with np.load(TRACES) as archive:
        return {key: archive[key] for key in archive.files}


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("net", "resnet19", "resnet19"),
        ("net", 3, "net is not a name"),
        ("meta", [3, 2, 0.47], "meta has shape"),
        ("meta", [3, 0, 0.47, 0.5], "N, C, beta, T0"),
        ("meta", [float("nan"), 2, 0.47, 0.5], "meta"),
        ("reward", [], "reward"),
        ("reward", ["a"] * 17, "reward"),
        ("energy", [1.0], "energy"),
        ("init_point", [0.5, 1, 2], "init_point"),
        ("init_channel", [0, 0, 2], "init_channel"),
        ("state_mode", None, "state_mode is missing"),
    ],
)
def test_malformed_traces_are_one_clear_error(
    field: str,
    value: Any,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    traces: dict[str, np.ndarray],
) -> None:
    changed: dict[str, Any] = traces | {f"00/{field}": np.asarray(value)}
    if value is None:
        del changed[f"00/{field}"]
    np.savez(tmp_path / "bad.npz", **changed)
    assert replay_traces.main([str(tmp_path / "bad.npz")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert word in error and "bad.npz" in error


@pytest.mark.parametrize("content", [b"", b"PK", b"text\n", TRACES.read_bytes()[:20_000], None])
def test_files_that_are_no_traces_are_one_clear_error(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    assert replay_traces.main([str(path)]) == 2
    assert "bad.npz" in capsys.readouterr().err
    np.savez(path, weights=np.zeros(3))
    assert replay_traces.main([str(path)]) == 2
    assert "KK/field" in capsys.readouterr().err


def test_float32_and_float64_play_the_random_policy_alike() -> None:
    """One hundredth of `benchmarks.robustness.precision`: too few episodes to be within its limit for sure."""
    result = precision.compare(100, num_ues=3, copies=2)
    assert result.low < precision.LIMIT and result.high > -precision.LIMIT
    assert result.high - result.low < 0.1
    assert result.same > 0.5


# --- The same wherever it runs ---


def rollout(env: MultiUEOffloading, params: Params, frames: int, key: jax.Array) -> Any:
    """Observations, rewards and states of some frames under the random policy."""
    key_reset, key_frames = jax.random.split(key)

    def frame(state: State, key: jax.Array) -> tuple[State, Any]:
        key_action, key_step = jax.random.split(key)
        out = env.step(key_step, state, env.action_space(params).sample(key_action), params)
        return out[1], (out[0], out[2], out[1].tasks_left)

    return jax.lax.scan(frame, env.reset(key_reset, params)[1], jax.random.split(key_frames, frames))[1]


@pytest.mark.full
def test_same_key_gives_the_same_trajectory_among_few_and_many_lanes() -> None:
    """To float tolerance, and though finished lanes are gathered away; the dynamics are chaotic: only a few frames."""
    env = make()
    params = env.params(max_steps_in_episode=2)  # the third frame follows a reset
    run = partial(rollout, env, params, 3)
    keys = jax.random.split(KEY, 1500)
    many = jax.jit(jax.vmap(run))(keys)
    few = jax.jit(jax.vmap(jax.vmap(run)))(keys[:15].reshape(3, 5))
    for x, y in zip(jax.tree.leaves(few), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(x.reshape(y[:15].shape), y[:15], rtol=1e-3, atol=1e-3)


def test_a_step_within_an_episode_uses_no_key() -> None:
    env = make()
    params = env.default_params
    _, state = env.reset(KEY, params)
    some, other = (env.step(jax.random.key(seed), state, action(1), params) for seed in (1, 2))
    chex.assert_trees_all_equal(some, other)


@pytest.mark.parametrize("num_ues", [1, 2, 3, 4, 5])
def test_random_and_extreme_actions_conserve_tasks_and_make_no_nan(num_ues: int) -> None:
    """One hundredth of `benchmarks.robustness.stress`."""
    wrong, ended = stress.stress(num_ues, lanes=20, frames=100)
    assert wrong == {}
    assert ended > 100


# --- Every number is traced, only shapes are static ---


def test_every_parameter_has_an_effect() -> None:
    env = make()
    base = env.default_params

    @jax.jit
    def play(params: Params) -> Any:
        _, state = env.reset(KEY, params)
        first = env.step(KEY, state, action([1, 2]), params)
        return state, first, env.step(KEY, first[1], action([3, 4], 1, 2.0), params)

    want = play(base)
    changed = {
        "max_steps_in_episode": 1,
        "finished_floor": 100.0,
        "paper_reward": True,
        "all_interfere": True,
        "tasks_poisson": False,
        "first_random": False,
    }
    for name in base.__dataclass_fields__:
        old = getattr(base, name)
        new = changed[name] if name in changed else old * 1.25
        params = base.replace(**{name: jnp.asarray(new, old.dtype) if isinstance(old, jax.Array) else new})
        with pytest.raises(AssertionError):
            chex.assert_trees_all_close(play(params), want)


def test_sweeps_are_vmaps_over_parameters() -> None:
    env = make()
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def rewards(betas: jax.Array) -> jax.Array:
        def reward(beta: jax.Array) -> jax.Array:
            params = env.params(beta=beta)
            return env.step(KEY, env.reset(KEY, params)[1], action([1, 2]), params)[2]

        return jax.vmap(reward)(betas)

    low = rewards(jnp.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(low[1] - low[0], low[2] - low[1], rtol=1e-4)
    assert low[2] < low[0]
    assert rewards(jnp.array([5.0, 6.0, 7.0]))[0] < low[2]


# --- Closed forms ---


def test_one_ue_sending_at_full_power_takes_12_ms_and_18_mj_a_task() -> None:
    """-74 % and -82 % against all-local: the authors' best single-UE case."""
    env = make(1)
    params = env.evaluation_params()
    info = play_out(env, params, fresh(env, params, cut=1), action(1, num_ues=1))
    sending = 100_352 / rate(1, 50)
    latency = 0.004359 + sending
    energy = 0.004359 * 2.2885 + sending * 1.0
    assert (round(latency * 1e3, 1), round(energy * 1e3, 1)) == (12.1, 17.7)
    assert info["episode_finished"] == 200
    np.testing.assert_allclose(info["latency"], latency, rtol=1e-5)
    np.testing.assert_allclose(info["episode_energy"] / 200, energy, rtol=1e-5)
    np.testing.assert_allclose(info["objective"], 200 * latency + 0.47 * 200 * energy, rtol=1e-5)


def test_all_local_takes_the_profiles_time_and_power() -> None:
    env = make(1)
    params = env.evaluation_params()
    info = play_out(env, params, env.reset(KEY, params)[1], action(LOCAL, num_ues=1))
    np.testing.assert_allclose(info["latency"], 0.045887, rtol=1e-5)
    np.testing.assert_allclose(info["episode_energy"] / 200, 0.045887 * 2.1454, rtol=1e-5)


def test_each_channel_has_its_own_bandwidth_and_noise() -> None:
    env = make(1)
    params = env.evaluation_params(env.params(bandwidth=[1e6, 3e6], noise=[1e-9, 1e-7]))
    info = play_out(env, params, fresh(env, params, cut=1, channel=1), action(1, 1, num_ues=1))
    latency = 0.004359 + 100_352 / rate(1, 50, noise=1e-7, bandwidth=3e6)
    np.testing.assert_allclose(info["latency"], latency, rtol=1e-5)


def test_each_ue_has_its_own_power_limit_and_range_of_distances() -> None:
    env = make()
    params = env.params(
        power_max=[0.25, 2.0],
        distance_min=[10.0, 80.0],
        distance_max=[20.0, 80.0],
        tasks_mean=[30.0, 20.0],
        tasks_poisson=False,
    )
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, 7), params)
    assert ((states.distance[:, 0] >= 10) & (states.distance[:, 0] <= 20)).all()
    assert len(np.unique(states.distance[:, 0])) == 7
    assert (states.distance[:, 1] == 80).all()
    assert (states.tasks_given == jnp.array([30, 20])).all()

    state = fresh(env, params, cut=1, channel=[0, 1])
    *_, info = env.step(KEY, state, action(1, [0, 1], 9.0), params)  # all tasks end in the one frame
    assert info["finished"] == 50
    want = 0.0
    for power, distance, tasks in ((0.25, float(state.distance[0]), 30), (2.0, 80.0, 20)):
        want += tasks * (0.004359 * 2.2885 + power * 100_352 / rate(power, distance))
    np.testing.assert_allclose(info["energy"], want, rtol=1e-5)


def sent(env: MultiUEOffloading, params: Params, state: State, act: OffloadAction) -> np.ndarray:
    """bit/s of each UE in a frame in which no phase ends."""
    _, after, *_ = env.step(KEY, state, act, params)
    np.testing.assert_array_equal(after.mode, state.mode)
    return np.asarray((state.bits_left - after.bits_left) / params.frame_time)


def test_rates_are_those_of_equation_5() -> None:
    env = make()
    quiet = env.params(frame_time=0.001, distance_min=[20.0, 40.0], distance_max=[20.0, 40.0])
    printed = quiet.replace(all_interfere=jnp.array(True))
    act = action(0, 0, [0.5, 1.0])
    alone = [rate(0.5, 20), rate(1.0, 40)]
    disturbed = [rate(0.5, 20, 1e-9 + 1.0 * 40**-3), rate(1.0, 40, 1e-9 + 0.5 * 20**-3)]

    same_channel = fresh(env, quiet, cut=0, channel=0)
    np.testing.assert_allclose(sent(env, quiet, same_channel, act), disturbed, rtol=1e-3)
    np.testing.assert_allclose(sent(env, printed, same_channel, act), disturbed, rtol=1e-3)

    other_channels = fresh(env, quiet, cut=0, channel=[0, 1])
    np.testing.assert_allclose(sent(env, quiet, other_channels, act), alone, rtol=1e-3)
    # As printed, the sum is over all UEs whose task is not local, whatever their channel ...
    np.testing.assert_allclose(sent(env, printed, other_channels, act), disturbed, rtol=1e-3)

    computing = fresh(env, quiet, cut=[0, 4], channel=0)
    np.testing.assert_allclose(sent(env, quiet, computing, act), [alone[0], 0], rtol=1e-3)
    # ... and also while they compute.
    np.testing.assert_allclose(sent(env, printed, computing, act), [disturbed[0], 0], rtol=1e-3)

    local = fresh(env, quiet, cut=[0, LOCAL], channel=0)
    np.testing.assert_allclose(sent(env, printed, local, act), [alone[0], 0], rtol=1e-3)


@pytest.mark.parametrize("frame_time", [0.5, 0.001])  # with and without tasks finished
def test_rewards_are_the_references_and_equation_12(frame_time: float) -> None:
    env = make()
    params = env.params(frame_time=frame_time, beta=2.0)
    state = fresh(env, params, cut=2)
    *_, reference, _, _, info = env.step(KEY, state, action([1, 2]), params)
    *_, paper, _, _, same_info = env.step(KEY, state, action([1, 2]), params.replace(paper_reward=jnp.array(True)))
    energy, finished = float(info["energy"]), int(info["finished"])
    assert (finished > 0) == (frame_time == 0.5)
    assert energy == same_info["energy"]
    np.testing.assert_allclose(reference, -(frame_time + 2.0 * energy / 2) / max(finished / 2, 0.8), rtol=1e-5)
    np.testing.assert_allclose(paper, -(frame_time + 2.0 * energy) / max(finished, 0.8), rtol=1e-5)


def test_choices_apply_to_the_next_task_and_powers_at_once() -> None:
    env = make()
    params = env.params(frame_time=0.01, distance_min=50, distance_max=50)
    state = fresh(env, params, cut=[4, 0], channel=[0, 1])
    _, after, *_ = env.step(KEY, state, action(LOCAL, 1, [1.0, 0.5]), params)
    np.testing.assert_array_equal((after.cut, after.channel), ([4, 0], [0, 1]))
    np.testing.assert_allclose(after.time_left, [0.03678 - 0.01, 0], atol=1e-6)
    np.testing.assert_allclose(after.bits_left, [25_088, INPUT_BITS - 0.01 * rate(0.5, 50)], rtol=1e-5)
    np.testing.assert_allclose(after.energy, [3.013 * 0.01, 0.5 * 0.01], rtol=1e-5)


# --- Start and end of an episode ---


def test_episodes_start_as_the_reference_starts_them() -> None:
    env = make()
    _, states = jax.jit(jax.vmap(env.reset, (0, None)))(jax.random.split(KEY, 20_000), env.default_params)
    tasks, distance = np.asarray(states.tasks_given), np.asarray(states.distance)
    assert (distance.min(), distance.max()) == pytest.approx((1, 100), abs=0.1)
    assert distance.mean() == pytest.approx(50.5, abs=0.6)
    assert tasks.mean() == pytest.approx(200, abs=0.3) and tasks.var() == pytest.approx(200, rel=0.03)
    for choice, count in ((states.cut, 6), (states.channel, 2)):
        np.testing.assert_allclose(np.bincount(choice.ravel()) / choice.size, np.full(count, 1 / count), rtol=0.05)
    assert np.corrcoef(tasks[:, 0], tasks[:, 1])[0, 1] == pytest.approx(0, abs=0.03)
    np.testing.assert_array_equal(states.mode, np.where(states.cut == 0, TRANSMITTING, COMPUTING))
    np.testing.assert_array_equal(states.time_left, np.array(RESNET18.front_time, np.float32)[states.cut])
    np.testing.assert_array_equal(states.bits_left, np.array(RESNET18.bits, np.float32)[states.cut])
    assert (states.tasks_left == states.tasks_given).all() and (states.time == 0).all()


def test_evaluation_starts_at_50_m_with_200_tasks_the_first_of_them_local() -> None:
    env = make()
    params = env.evaluation_params(env.params(beta=3.0))
    assert params.beta == 3.0 and params.max_steps_in_episode >= 500
    obs, state = env.reset(KEY, params)
    np.testing.assert_array_equal(state.distance, 50)
    np.testing.assert_array_equal(state.tasks_given, 200)
    np.testing.assert_array_equal((state.cut, state.channel), ([LOCAL, LOCAL], [0, 0]))
    np.testing.assert_array_equal(state.mode, COMPUTING)
    np.testing.assert_allclose(obs, [1, 1, 0, 49 / 99] * 2, rtol=1e-6)
    assert env.evaluation_params(max_frames=60).max_steps_in_episode == 60


def test_tasks_of_an_episode_are_at_least_one() -> None:
    env = make()
    params = env.params(tasks_mean=0.01)
    _, states = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, 7), params)
    assert (states.tasks_given == 1).all()


def test_termination_is_not_truncation() -> None:
    env = make()
    params = env.params(tasks_mean=3, tasks_poisson=False)
    _, state = env.reset(KEY, params)
    obs, state, _, terminated, truncated, info = env.step(KEY, state, action(LOCAL), params)
    assert terminated and not truncated
    assert info["finished"] == info["episode_finished"] == 6
    np.testing.assert_array_equal(info["final_observation"].reshape(2, 4)[:, :3], 0)
    assert (state.time, state.energy.sum(), state.busy.sum()) == (0, 0, 0)
    np.testing.assert_array_equal(obs[::4], 1)


def test_ues_that_are_free_stay_free_and_cost_nothing() -> None:
    env = make()
    params = env.params(tasks_mean=[1, 500], tasks_poisson=False)
    _, state, *_ = env.step(KEY, fresh(env, params, LOCAL), action(LOCAL), params)
    np.testing.assert_array_equal(state.mode, [FREE, COMPUTING])
    _, after, _, terminated, *_ = env.step(KEY, state, action(1), params)
    assert not terminated
    assert after.mode[0] == FREE and after.tasks_left[0] == 0
    assert (after.energy[0], after.busy[0]) == (state.energy[0], state.busy[0])


@pytest.mark.parametrize("mean", [1.0, 5.0, 200.0, 1500.0])
def test_tasks_are_poisson_quantiles(mean: float) -> None:
    uniform = (np.arange(4000) + 0.5) / 4000
    got = np.asarray(poisson(jnp.asarray(uniform, jnp.float32), jnp.full(4000, mean, jnp.float32)))
    want = scipy.stats.poisson.ppf(uniform, mean)
    # Next to a step of the distribution float32 may take its other side.
    steps = scipy.stats.poisson.cdf(np.stack([want - 1, want]), mean)
    clear = np.abs(steps - uniform).min(0) > 1e-5
    assert clear.mean() > 0.95
    np.testing.assert_array_equal(got[clear], want[clear])
    assert np.abs(got - want).max() <= 1


# --- Profiles ---


def test_each_ue_may_have_its_own_network() -> None:
    env = make(3, profile=["resnet18", "vgg11", "mobilenetv2"])
    params = env.evaluation_params()
    obs, state = env.reset(KEY, params)
    np.testing.assert_allclose(state.time_left, [0.045887, 0.1893, 0.052676], rtol=1e-6)
    np.testing.assert_allclose(obs[1::4], [1, 0.1893 / 0.092876, 1], rtol=1e-6)
    _, state, *_ = env.step(KEY, state, action(LOCAL, num_ues=3), params)
    np.testing.assert_array_equal(200 - state.tasks_left, [10, 2, 9])
    np.testing.assert_allclose(state.energy, [0.5 * 2.1454, 0.5 * 2.5795, 0.5 * 1.4797], rtol=1e-5)


def test_profiles_from_files_with_fewer_cuts_repeat_their_local_point(tmp_path: Path) -> None:
    fields = {"input_bits": 8000, "cuts": [], "local": {"time_s": 0.02, "power_w": 1.5}}
    path = write(tmp_path, document("small", "no cuts", **fields))
    env = make(2, profile=[path, "resnet18"])
    assert env.num_points == 6
    params = env.evaluation_params()
    np.testing.assert_allclose(params.front_time[0], [0, *[0.02] * 5], rtol=1e-6)
    np.testing.assert_array_equal(params.feature_bits[0], [8000, 0, 0, 0, 0, 0])
    _, state, *_ = env.step(KEY, env.reset(KEY, params)[1], action([3, LOCAL]), params)
    np.testing.assert_allclose(state.energy, [0.5 * 1.5, 0.5 * 2.1454], rtol=1e-5)
    assert make(2, profile=path).num_points == 2


# --- Spaces and gymnax ---


def test_sampled_actions_are_named_valid_and_in_their_space() -> None:
    env = make()
    params = env.params(power_max=[0.5, 2.0])
    space = env.action_space(params)
    act = jax.jit(space.sample)(KEY)
    assert isinstance(act, OffloadAction)
    assert space.contains(act)
    samples = jax.vmap(space.sample)(jax.random.split(KEY, 1000))
    assert isinstance(samples, OffloadAction) and jax.vmap(space.contains)(samples).all()
    assert np.unique(samples.cut).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.unique(samples.channel).tolist() == [0, 1]
    np.testing.assert_allclose(samples.power.max(0), [0.5, 2.0], rtol=0.02)
    for wrong in (action(6), action(-1), action(0, 2), action(0, 0, 2.5), action(0, 0, float("nan"))):
        assert not space.contains(wrong)
    env.step(KEY, env.reset(KEY, params)[1], act, params)


@pytest.mark.parametrize("order", list(itertools.permutations(["mec_jax", "gymnax"])), ids="-".join)
def test_gymnax_finds_the_environment_whatever_is_imported_first(order: tuple[str, str]) -> None:
    code = (
        f"import {order[0]}, {order[1]}; env, params = gymnax.make('{ID}', num_ues=3, num_channels=4);"
        f"assert '{ID}' in gymnax.registered_envs; assert (env.num_ues, params.noise.shape) == (3, (4,))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_jax() -> None:
    code = "import mec_jax, sys; sys.exit(any(m in sys.modules for m in ('jax', 'gymnax', 'flax')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- Errors ---


@pytest.mark.parametrize(
    ("static", "words"),
    [
        ({"num_ues": 0}, ["num_ues", "0", "at least 1"]),
        ({"num_ues": -3}, ["num_ues", "-3", "at least 1"]),
        ({"num_ues": 2.5}, ["num_ues", "2.5", "whole"]),
        ({"num_channels": 0}, ["num_channels", "0", "at least 1"]),
        ({"num_ues": 3, "profile": ["resnet18", "vgg11"]}, ["2 profiles", "3 UEs", "one per UE"]),
        ({"profile": "resnet81"}, ["resnet81", "resnet18", "JSON file"]),
        ({"num_ue": 3}, ["num_ue", "num_ues"]),
    ],
)
def test_wrong_statics_are_one_clear_error(static: dict[str, Any], words: list[str]) -> None:
    message = error_of(mec_jax.make, ID, **static)
    assert all(word in message for word in words), message


def test_unknown_id_names_the_nearest() -> None:
    message = error_of(mec_jax.make, "MultiUEOfloading-v0")
    assert "'MultiUEOfloading-v0'" in message and f"did you mean '{ID}'" in message
    assert ID in error_of(mec_jax.make, "CartPole")
    assert "taken" in error_of(mec_jax.register, ID, make)
    assert ID in mec_jax.registered_envs and ID in gymnax.registered_envs


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"betta": 1.0}, ["betta", "did you mean 'beta'"]),
        ({"power_max": [1.0, 2.0, 3.0]}, ["power_max", "(3,)", "(2,)"]),
        ({"beta": "high"}, ["beta", "high"]),
        ({"bandwidth": [1e6, -1e6]}, ["bandwidth", ">= 1"]),
        ({"noise": 1e-60}, ["noise", "1e-60", ">= 1e-21"]),  # 0 in float32
        ({"power_max": float("inf")}, ["power_max", "inf", "finite"]),
        ({"max_steps_in_episode": 2**40}, ["max_steps_in_episode", "whole"]),
        ({"paper_reward": "no"}, ["paper_reward", "no", "True or False"]),
        ({"distance_max": [50.0, 0.5]}, ["distance_min", "distance_max"]),
    ],
)
def test_wrong_parameters_are_one_clear_error(numbers: dict[str, Any], words: list[str]) -> None:
    message = error_of(make().params, **numbers)
    assert all(word in message for word in words), message


def test_traced_parameters_are_clipped() -> None:
    env = make()
    made = jax.jit(jax.vmap(lambda x: env.params(beta=x, distance_min=x)))(jnp.array([-1.0, 200.0]))
    np.testing.assert_array_equal(made.beta, [0.0, 200.0])
    np.testing.assert_array_equal(made.distance_max[:, 0], [100.0, 200.0])


@pytest.mark.parametrize(
    "wrong",
    [
        action(0, num_ues=3),
        action(0)._replace(power=jnp.ones(())),
        jax.tree.map(lambda x: x[None], action(0)),
    ],
)
def test_actions_of_the_wrong_shape_are_one_clear_error(wrong: OffloadAction) -> None:
    env = make()
    params = env.default_params
    message = error_of(env.step, KEY, env.reset(KEY, params)[1], wrong, params)
    assert "action" in message and "(2,)" in message and "vmap" in message
