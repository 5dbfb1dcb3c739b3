"""What needs too much memory is refused before any of it is built."""

import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mec_jax
from algos.algorithms import algorithm
from algos.cli import main
from algos.mahppo import hinges
from mec_jax.evaluation import evaluate
from mec_jax.memory import LIMIT, VARIABLE, check_memory, limit, peak_bytes
from mec_jax.physics.radio import WRITTEN_OUT, interference

FLOATS = jnp.zeros(1000)  # 4000 byte


def traced(function, *arguments):
    return peak_bytes(jax.make_jaxpr(function)(*arguments))


def test_the_peak_of_straight_programs_is_what_is_read_again():
    assert traced(lambda x: x, FLOATS) == 4000
    assert traced(lambda x: jnp.sin(jnp.sin(x)), FLOATS) == 8000  # of three arrays two at a time
    assert traced(lambda x: jnp.outer(x, x).sum(), FLOATS) == pytest.approx(4e6, rel=0.01)


def test_the_peak_of_a_loop_has_what_its_body_keeps_and_what_it_stacks():
    def stack(x):
        return jax.lax.scan(lambda x, _: (x, jnp.sin(x)), x, length=500)

    def pairs(x):
        return jax.lax.fori_loop(0, 500, lambda _, x: jnp.cos(jnp.outer(x, x)).sum(1), x)

    assert traced(stack, FLOATS) == pytest.approx(500 * 4000, rel=0.02)
    assert traced(pairs, FLOATS) == pytest.approx(2 * 4e6, rel=0.02)
    assert traced(jax.jit(jax.vmap(pairs)), jnp.zeros((3, 1000))) == pytest.approx(3 * 2 * 4e6, rel=0.02)


@pytest.mark.parametrize(
    "name, env_id",
    [
        ("ppo", "MultiExitAllocation-v0"),
        pytest.param("drl_es", "NeuronAllocation-v0", marks=pytest.mark.full),
    ],
)
def test_the_estimate_for_a_trainer_is_near_what_xla_says_after_compiling(name, env_id):
    """Between half and twice: XLA fuses and pads; see `peak_bytes`."""
    env, params = mec_jax.make(env_id)
    preset = algorithm(name).presets["bandit" if name == "ppo" else "slots"]
    trainer = algorithm(name).make_trainer(env, preset.config)
    state = jax.eval_shape(trainer.init, preset.hparams, params, jax.random.key(0))
    program = jax.jit(trainer.run).trace(state, preset.hparams, params)
    said = program.lower().compile().memory_analysis()
    total = said.temp_size_in_bytes + said.argument_size_in_bytes + said.output_size_in_bytes
    assert total / 2 < peak_bytes(program.jaxpr) < 2 * total


@pytest.mark.parametrize(
    "env_id, static",
    [
        ("MultiUEOffloading-v0", {"num_channels": 2**31 - 1}),
        ("MultiUEOffloading-v0", {"num_ues": 10**8}),
        ("MultiUEOffloading-v0", {"num_ues": 2**31 - 1}),
        ("NeuronAllocation-v0", {"num_pieces": 10**9}),
        ("NeuronAllocation-Slots-v0", {"num_devices": 10**9}),
        ("NeuronSharing-v0", {"num_requesters": 10**9}),
        ("PartitionGame-v0", {"num_kinds": 10**9}),
    ],
)
def test_a_size_that_no_machine_has_room_for_is_refused_at_once(env_id, static):
    with pytest.raises(ValueError, match=rf"GiB, the limit is 8 GiB: make it smaller, .*{VARIABLE}") as refused:
        mec_jax.make(env_id, **static)
    assert "\n" not in str(refused.value)


def test_hinges_of_too_many_ues_are_refused_before_they_are_built():
    with pytest.raises(ValueError, match="the hinges of 10000 UEs would need about"):
        hinges(10_000)
    kernel, _ = hinges(3)
    assert kernel.shape == (4 * 3, 10 * 3 + 11)


def test_the_limit_can_be_raised_and_lowered(monkeypatch):
    assert limit() == LIMIT
    monkeypatch.setenv(VARIABLE, "0.5")
    with pytest.raises(ValueError, match=re.escape("a dream would need about 1 GiB, the limit is 0.5 GiB")):
        check_memory("a dream", 2**30)
    monkeypatch.setenv(VARIABLE, "2")
    check_memory("a dream", 2**30)
    for nonsense in ("much", "", "-1", "nan", "0"):
        monkeypatch.setenv(VARIABLE, nonsense)
        with pytest.raises(ValueError, match=f"{VARIABLE} is '{nonsense}': it must be a number of GiB above 0"):
            limit()


def test_many_ues_interfere_as_few_do_without_a_line_of_program_each():
    rng = np.random.default_rng(0)
    count = 2 * WRITTEN_OUT
    received = rng.uniform(1e-9, 1e-6, count).astype(np.float32)
    sending, channel = rng.random(count) < 0.7, rng.integers(3, size=count)
    one_by_one = [
        sum(float(received[i]) for i in range(count) if i != n and sending[i] and channel[i] == channel[n])
        for n in range(count)
    ]
    found = interference(jnp.asarray(received), jnp.asarray(sending), jnp.asarray(channel))
    np.testing.assert_allclose(found, one_by_one, rtol=count * np.finfo(np.float32).eps)
    few = slice(0, WRITTEN_OUT)
    written = interference(*(jnp.asarray(x[few]) for x in (received, sending, channel)))
    programs = [
        len(jax.make_jaxpr(interference)(received[few], sending[few], channel[few]).eqns),
        len(jax.make_jaxpr(interference)(received, sending, channel).eqns),
    ]
    assert written.shape == (WRITTEN_OUT,) and programs[1] < 20 < programs[0]


def test_more_episodes_than_there_is_room_for_are_refused_before_any_is_played():
    with pytest.raises(ValueError, match="1000000000 episodes of NeuronAllocation-v0 would need about"):
        evaluate("NeuronAllocation-v0", {}, episodes=10**9)


def test_training_that_needs_too_much_memory_is_refused_before_it_is_compiled(tmp_path, capsys):
    arguments = ["train", "ppo", "--env", "MultiExitAllocation-v0", "--config.trunk", "65536", "65536"]
    begin = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "run")])
    assert ended.value.code == 2 and time.monotonic() - begin < 60
    assert re.search(r"mec-jax: training of ppo on .* would need about .* GiB, the limit is 8", capsys.readouterr().err)


def test_a_baseline_of_too_many_channels_is_not_drawn(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["render", "random", "--num-channels", str(2**31 - 1), "--out", str(tmp_path / "x.png")])
    assert ended.value.code == 2 and "GiB, the limit is 8 GiB" in capsys.readouterr().err
