import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array, PyTree
from scipy import special, stats

import mec_jax
from algos import mahppo
from algos.mahppo import (
    Config,
    HParams,
    TrainState,
    Transition,
    advantages,
    make_actors,
    make_policy,
    make_trainer,
    read,
)
from algos.networks import MLP, StackedDense, init_parameters, init_uniform
from algos.run_config import as_arrays
from mec_jax.envs.offloading import MultiUEOffloading, OffloadAction, Params
from mec_jax.episodes import evaluation_keys, play_episodes
from mec_jax.solvers.offloading.policies import baselines
from tests import tolerance

pytestmark = pytest.mark.slow

ADVANTAGES = ("gae", "paper", "reference")
VALUE_TARGETS = ("gae", "monte_carlo", "one_step")
HEADS = ("cut", "channel", "power")
SMALL: dict[str, Any] = {"trunk": (16,), "head": 8, "critic": (16,)}

# Compiling is most of the time these tests take; the programs are run once or twice, on little data.


def assert_trees_close(x: PyTree, y: PyTree, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    assert str(jax.tree.structure(x)) == str(jax.tree.structure(y))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(x), jax.tree.leaves(y), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path))


def random_parameters(module: Any, seed: int, *inputs: Any) -> PyTree:
    """Kernels and biases of ordinary size, in the heads too: a policy that decides."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape) / x.shape[-2] ** 0.5, x.dtype), shapes)


# Advantages and value targets


def plain_advantages(
    config: Config, hparams: HParams, reward: Any, terminated: Any, done: Any, value: Any, next_value: Any
) -> tuple[np.ndarray, np.ndarray]:
    """By the definitions: sums from each frame to the end of its episode, or of the rollout."""
    reward, terminated, done, value, next_value = (
        np.asarray(x, float) for x in (reward, terminated, done, value, next_value)
    )
    gamma, gae_lambda = float(hparams.gamma), float(hparams.gae_lambda)
    frames, envs = reward.shape
    one_step, monte_carlo = np.zeros_like(reward), np.zeros_like(reward)
    last = np.zeros(reward.shape, int)
    for e in range(envs):
        for t in range(frames):
            one_step[t, e] = reward[t, e] + (0 if terminated[t, e] else gamma * next_value[t, e])
            end = t
            while end < frames - 1 and not done[end, e]:
                end += 1
            last[t, e] = end
            for k in range(t, end + 1):
                monte_carlo[t, e] += gamma ** (k - t) * reward[k, e]
            if not terminated[end, e]:
                monte_carlo[t, e] += gamma ** (end - t + 1) * next_value[end, e]
    delta = one_step - (monte_carlo if config.advantage == "paper" else value)
    decay = gae_lambda if config.advantage == "reference" else gamma * gae_lambda
    advantage = np.zeros_like(reward)
    for e in range(envs):
        for t in range(frames):
            for k in range(t, last[t, e] + 1):
                advantage[t, e] += decay ** (k - t) * delta[k, e]
    return advantage, {"gae": advantage + value, "monte_carlo": monte_carlo, "one_step": one_step}[config.value_target]


def transitions(reward: Any, terminated: Any, done: Any) -> Transition:
    nothing: Any = None
    reward, terminated, done = (jnp.asarray(x) for x in (reward, terminated, done))
    return Transition(nothing, nothing, nothing, nothing, reward, terminated, done)


jitted_advantages: Callable[..., Any] = jax.jit(advantages, static_argnums=0)


@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("value_target", VALUE_TARGETS)
def test_advantages_equal_the_plain_sums(advantage: Any, value_target: Any) -> None:
    config = Config(advantage=advantage, value_target=value_target)
    rng = np.random.default_rng(7)
    for ends in (0.0, 0.1, 0.4, 1.0):
        shape = (12, 6)
        done = rng.random(shape) < ends
        terminated = done & (rng.random(shape) < 0.5)
        reward, value, next_value = rng.standard_normal((3, *shape)).astype(np.float32)
        hparams = HParams(gamma=rng.uniform(0.5, 1), gae_lambda=rng.uniform(0, 1))
        found = jitted_advantages(config, hparams, transitions(reward, terminated, done), value, next_value)
        expected = plain_advantages(config, hparams, reward, terminated, done, value, next_value)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-4)


def test_a_truncated_episode_is_bootstrapped_and_a_terminated_one_is_not() -> None:
    hparams = HParams(gamma=0.5, gae_lambda=0.5)
    done = [[False, False], [True, True], [False, False]]
    terminated = [[False, False], [True, False], [False, False]]
    ones = jnp.ones((3, 2))
    frames = transitions(ones, terminated, done)
    advantage, target = advantages(Config(value_target="monte_carlo"), hparams, frames, 0 * ones, 8 * ones)
    # Frames 0 and 2 bootstrap 8 / 2; frame 1 does so where it is truncated. One step: 5 or 1. Decay: 1/4.
    np.testing.assert_allclose(advantage, [[5 + 1 / 4, 5 + 5 / 4], [1.0, 5.0], [5.0, 5.0]])
    np.testing.assert_allclose(target, [[1 + 1 / 2, 1 + 5 / 2], [1.0, 5.0], [5.0, 5.0]])


@pytest.mark.parametrize("advantage", ADVANTAGES)
def test_nothing_leaks_over_the_end_of_an_episode(advantage: Any) -> None:
    rng = np.random.default_rng(3)
    reward, value, next_value = rng.standard_normal((3, 8, 2))
    done = np.zeros((8, 2), bool)
    done[3] = True
    terminated = done & [True, False]
    later = np.arange(8)[:, None] > 3
    value_target: Any
    for value_target in VALUE_TARGETS:
        config = Config(advantage=advantage, value_target=value_target)
        first = jitted_advantages(config, HParams(), transitions(reward, terminated, done), value, next_value)
        other = [np.where(later, 1e6, x) for x in (reward, value, next_value)]
        second = jitted_advantages(config, HParams(), transitions(other[0], terminated, done), *other[1:])
        for x, y in zip(first, second, strict=True):
            np.testing.assert_array_equal(x[:4], y[:4])


# Networks


def test_stacked_dense_equals_a_loop_over_networks() -> None:
    module: Any = StackedDense(3, 5)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, 4)), jnp.float32)
    parameters = random_parameters(module, 1, x)
    kernel, bias = (np.asarray(parameters["params"][name]) for name in ("kernel", "bias"))
    assert kernel.shape == (3, 4, 5)
    assert bias.shape == (3, 5)
    shared = np.stack([x @ kernel[i] + bias[i] for i in range(3)])
    np.testing.assert_allclose(module.apply(parameters, x), shared, rtol=1e-5, atol=1e-6)
    own = jnp.stack([x, 2 * x, -x])
    apart = np.stack([own[i] @ kernel[i] + bias[i] for i in range(3)])
    np.testing.assert_allclose(module.apply(parameters, own), apart, rtol=1e-5, atol=1e-6)


class Heads(NamedTuple):
    cut: np.ndarray  # [batch, ue, point] logits
    channel: np.ndarray  # [batch, ue, channel] logits
    mean: np.ndarray  # [batch, ue] W
    std: np.ndarray  # [batch, ue] W


ENV = MultiUEOffloading(num_ues=3)
POWER_MAX = jnp.array([0.5, 1.0, 2.0])
OBSERVATION = jnp.asarray(np.random.default_rng(5).uniform(0, 1, (50, 12)), jnp.float32)


def apply_actors(config: Config, parameters: PyTree, power_max: Array = POWER_MAX) -> tuple[distrax.Joint, Heads]:
    policy: Any = jax.jit(make_actors(ENV, config).apply)(parameters, OBSERVATION, power_max)
    cut, channel, power = policy.distributions
    return policy, Heads(*(np.asarray(x) for x in (cut.logits, channel.logits, power.loc, power.scale)))


@pytest.fixture(scope="module")
def parameters() -> PyTree:
    return random_parameters(make_actors(ENV, Config(**SMALL)), 2, OBSERVATION, POWER_MAX)


def test_each_ue_depends_on_its_own_parameters_only(parameters: PyTree) -> None:
    _, before = apply_actors(Config(**SMALL), parameters)
    for ue in range(3):
        perturbed = jax.tree.map(lambda x, ue=ue: x.at[ue].multiply(-1.5), parameters)
        _, after = apply_actors(Config(**SMALL), perturbed)
        others = [i for i in range(3) if i != ue]
        for x, y in zip(before, after, strict=True):
            np.testing.assert_array_equal(x[:, others], y[:, others])
            assert not np.isclose(x[:, ue], y[:, ue], rtol=1e-3).all()


def test_heads_are_in_range(parameters: PyTree) -> None:
    power_std: Any
    for power_std in ("softplus", "sigmoid"):
        config = Config(power_std=power_std, **SMALL)
        _, heads = apply_actors(config, parameters)
        assert heads.cut.shape == (50, 3, ENV.num_points)
        assert heads.channel.shape == (50, 3, ENV.num_channels)
        assert (heads.mean > 0).all()
        assert (heads.mean < POWER_MAX).all()
        assert (heads.std > mahppo.STD_MIN).all()
        if power_std == "sigmoid":
            assert (heads.std < POWER_MAX + mahppo.STD_MIN).all()
        _, doubled = apply_actors(config, parameters, 2 * POWER_MAX)
        np.testing.assert_allclose(doubled.mean, 2 * heads.mean, rtol=1e-5)
        np.testing.assert_allclose(doubled.std - mahppo.STD_MIN, 2 * (heads.std - mahppo.STD_MIN), rtol=1e-3)
        np.testing.assert_array_equal(doubled.cut, heads.cut)


def test_log_probabilities_and_entropies_equal_scipys(parameters: PyTree) -> None:
    policy, heads = apply_actors(Config(**SMALL), parameters)

    @jax.jit
    def evaluate(policy: distrax.Joint) -> tuple[OffloadAction, OffloadAction, OffloadAction]:
        action = policy.sample(seed=jax.random.key(0))
        entropy = OffloadAction(*(head.entropy() for head in policy.distributions))
        return action, mahppo.head_log_probs(policy, action), entropy

    action, log_prob, entropy = evaluate(policy)
    for name in ("cut", "channel"):
        log_p = special.log_softmax(getattr(heads, name).astype(float), axis=-1)
        chosen = np.asarray(getattr(action, name))[..., None]
        expected = np.take_along_axis(log_p, chosen, axis=-1)[..., 0]
        np.testing.assert_allclose(getattr(log_prob, name), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(getattr(entropy, name), stats.entropy(np.exp(log_p), axis=-1), rtol=1e-4)
    normal = stats.norm(heads.mean.astype(float), heads.std.astype(float))
    np.testing.assert_allclose(log_prob.power, normal.logpdf(action.power), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(entropy.power, normal.entropy(), rtol=1e-4, atol=1e-5)


def test_sampled_actions_follow_the_heads(parameters: PyTree) -> None:
    policy, heads = apply_actors(Config(**SMALL), parameters)
    number = 4000
    action = jax.jit(lambda policy: policy.sample(seed=jax.random.key(1), sample_shape=(number,)))(policy)
    for name in ("cut", "channel"):
        p = special.softmax(getattr(heads, name), axis=-1)
        share = np.stack([(np.asarray(getattr(action, name)) == i).mean(0) for i in range(p.shape[-1])], -1)
        assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / number) + 1e-3).all()
    power = np.asarray(action.power)
    assert (np.abs(power.mean(0) - heads.mean) < 5 * heads.std / number**0.5).all()
    np.testing.assert_allclose(power.std(0), heads.std, rtol=0.07)


def test_policy_of_the_evaluation_plays_the_heads(parameters: PyTree) -> None:
    config = Config(**SMALL)
    _, heads = apply_actors(config, parameters)
    numbers = ENV.params(power_max=POWER_MAX)
    likeliest = jax.jit(make_policy(ENV, config, deterministic=True))
    for i in range(3):
        action = likeliest((parameters, numbers), OBSERVATION[i], jax.random.key(i))
        np.testing.assert_array_equal(action.cut, heads.cut[i].argmax(-1))
        np.testing.assert_array_equal(action.channel, heads.channel[i].argmax(-1))
        np.testing.assert_allclose(action.power, heads.mean[i], rtol=1e-5)
    sampled = jax.jit(make_policy(ENV, config))
    first, second, again = (
        sampled((parameters, numbers), OBSERVATION[0], jax.random.key(seed)).power for seed in (0, 1, 0)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)


def test_init_parameters() -> None:
    actors = make_actors(ENV, Config(trunk=(128, 64), head=32, critic=(16,)))
    inputs = (OBSERVATION, POWER_MAX)
    key = jax.random.key(4)
    drawn = init_parameters(actors, key, *inputs)
    own = jax.eval_shape(actors.init, key, *inputs)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(lambda x: (x.shape, x.dtype), own)
    layers = drawn["params"]
    assert set(layers) == {"trunk_0", "trunk_1", *(f"{head}_{i}" for head in HEADS for i in range(2))}
    flat = []
    for layer in layers.values():
        assert (layer["bias"] == 0).all()
        kernel = np.asarray(layer["kernel"], float)
        unit = kernel / np.sqrt(2 / kernel.shape[-2])
        assert abs(unit.mean()) < 5 / unit.size**0.5
        assert abs(unit.std() - 1) < 5 / (2 * unit.size) ** 0.5
        flat.append(unit.reshape(-1))
    assert len(np.unique(np.concatenate(flat).astype(np.float32))) > 0.99 * sum(map(len, flat))  # no draw used twice

    assert_trees_close(init_parameters(actors, key, *inputs), drawn, rtol=0, atol=0)
    assert not np.array_equal(
        init_parameters(actors, jax.random.key(5), *inputs)["params"]["cut_0"]["kernel"], layers["cut_0"]["kernel"]
    )
    small = init_parameters(actors, key, *inputs, small=("cut_1", "power_1"))["params"]
    for name, layer in layers.items():
        scale = 0.01 if name in ("cut_1", "power_1") else 1
        np.testing.assert_allclose(small[name]["kernel"], scale * layer["kernel"], rtol=1e-6)


def test_uniform_parameters_are_drawn_as_pytorch_draws_them() -> None:
    actors = make_actors(ENV, Config(trunk=(128, 64), head=32, critic=(16,)))
    inputs, key = (OBSERVATION, POWER_MAX), jax.random.key(4)
    drawn = init_uniform(actors, key, *inputs)
    own = jax.eval_shape(actors.init, key, *inputs)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), drawn) == jax.tree.map(lambda x: (x.shape, x.dtype), own)
    flat = []
    for layer in drawn["params"].values():
        bound = layer["kernel"].shape[-2] ** -0.5
        for values in (layer["kernel"], layer["bias"]):
            unit = np.asarray(values, float).reshape(-1) / bound
            assert np.abs(unit).max() <= 1
            assert abs(unit.mean()) < 5 / (3 * unit.size) ** 0.5  # of a uniform number in -1..1
            flat.append(unit)
    unit = np.concatenate(flat)
    assert abs(unit.std() - 3**-0.5) < 5 * (1 / 5 - 1 / 9) ** 0.5 / unit.size**0.5
    assert len(np.unique(unit.astype(np.float32))) > 0.99 * unit.size  # no draw used twice


def test_eq_18_as_printed_discourages_what_ends_better_than_expected() -> None:
    """With V' the return, r_t + gamma V'(s_t+1) is V'(s_t), so that A_t sums gamma (V - V') of the states to come."""
    frames, zero = 6, jnp.zeros((6, 1))
    ends = zero.at[-1].set(1.0)
    transitions = Transition(
        observation=zero,
        final_observation=zero,
        action=zero,
        log_prob=zero,
        reward=jnp.ones((frames, 1)),
        terminated=ends > 0,
        done=ends > 0,
    )
    usual, printed = (
        advantages(Config(advantage=name), HParams(), transitions, zero, zero)[0] for name in ("gae", "paper")
    )
    assert (usual > 0).all()  # the critic expected nothing, and there was a reward in each frame
    gamma, decay = HParams().gamma, HParams().gamma * HParams().gae_lambda
    returns = [sum(gamma**k for k in range(frames - t)) for t in range(frames + 1)]
    told = [-gamma * sum(decay**k * returns[t + k + 1] for k in range(frames - t)) for t in range(frames)]
    # Each is a sum of `frames` products, of returns that are sums of as many.
    tolerance.close(printed[:, 0], told, [returns[0] * sum(decay**k for k in range(frames))] * frames, 4 * frames**2)
    assert (printed[:-1] < 0).all()


def test_preset_paper_is_the_print_where_the_authors_code_differs() -> None:
    paper, code = mahppo.PAPER, mahppo.REFERENCE
    told = {"ratio": "joint", "value_target": "monte_carlo", "advantage": "paper", "num_frames": 500_000}
    assert {name: getattr(paper.config, name) for name in told} == told
    same = ("num_envs", "rollout", "epochs", "minibatches", "sampling", "trunk", "head", "critic", "inputs")
    assert all(getattr(paper.config, name) == getattr(code.config, name) for name in same)
    assert paper.config.rollout // paper.config.minibatches == 256  # the paper's batch
    assert paper.hparams == code.hparams
    state = make_trainer(ENV, dataclasses.replace(paper.config, trunk=(8,), head=4, critic=(8,))).init(
        as_arrays(paper.hparams), ENV.default_params, jax.random.key(0)
    )
    assert all(np.any(layer["bias"] != 0) for layer in state.actors["params"].values())


# One update, on transitions without physics


class Record(NamedTuple):
    observation: Array  # the next one
    final_observation: Array
    action: OffloadAction
    reward: Array
    terminated: Array
    truncated: Array


ROLLOUT = 4


class Recorder(MultiUEOffloading):
    """No physics: random transitions, which the state remembers."""

    def reset(self, key: Array, params: Params) -> tuple[Array, tuple[Array, Record]]:
        ue, observation = jnp.zeros(self.num_ues), jnp.zeros(4 * self.num_ues)
        action = OffloadAction(ue.astype(jnp.int32), ue.astype(jnp.int32), ue)
        blank = Record(observation, observation, action, jnp.zeros(()), jnp.array(False), jnp.array(False))
        history = jax.tree.map(lambda x: jnp.zeros((ROLLOUT, *x.shape), x.dtype), blank)
        return jax.random.normal(key, observation.shape), (jnp.zeros((), jnp.int32), history)

    def step(self, key: Array, state: tuple[Array, Record], action: OffloadAction, params: Params) -> tuple:
        index, history = state
        observation, final_observation = jax.random.normal(key, (2, 4 * self.num_ues))
        uniform = jax.random.uniform(jax.random.fold_in(key, 1), (2,))
        reward = jnp.mean(action.cut == 0) + 0.1 * jnp.mean(action.power) + observation[0]
        terminated, truncated = uniform[0] < 0.2, uniform[1] < 0.2
        record = Record(observation, final_observation, action, reward, terminated, truncated)
        history = jax.tree.map(lambda x, new: x.at[index % ROLLOUT].set(new), history, record)
        info = {"final_observation": final_observation}
        return observation, (index + 1, history), reward, terminated, truncated, info


RECORDER = Recorder(num_ues=2)
NUMBERS = RECORDER.params(power_max=[0.7, 1.0])
NUM_ENVS = 32
HPARAMS = as_arrays(
    HParams(
        actor_lr=0.03,
        critic_lr=0.02,
        final_lr=0.5,
        clip=0.1,
        entropy=0.02,
        power_entropy=0.05,
        final_entropy=0.2,
        gamma=0.9,
        gae_lambda=0.8,
        max_grad_norm=0.1,
        adam_eps=1e-3,  # so that steps are smooth functions of the gradients
    )
)


def recorder_config(**changes: Any) -> Config:
    """Four updates in all, each one minibatch."""
    base = Config(
        num_frames=4 * NUM_ENVS * ROLLOUT,
        num_envs=NUM_ENVS,
        rollout=ROLLOUT,
        epochs=3,
        minibatches=1,
        updates_per_chunk=1,
        **SMALL,
    )
    return dataclasses.replace(base, **changes)


def one_update(config: Config, hparams: HParams, updates_done: int) -> tuple[TrainState, TrainState, mahppo.Metrics]:
    trainer = make_trainer(RECORDER, config)
    before = jax.jit(trainer.init)(hparams, NUMBERS, jax.random.key(0))
    before = before._replace(update=jnp.asarray(updates_done, jnp.int32))
    after, metrics = jax.jit(trainer.run)(before, hparams, NUMBERS)
    return before, after, jax.tree.map(lambda x: x[0], metrics)


class Plain(NamedTuple):
    """What a rollout was, [sample, ...], and what it was worth."""

    observation: Array
    action: OffloadAction
    advantage: Array
    target: Array
    value: Array
    episode_return: float


def plain_rollout(config: Config, hparams: HParams, before: TrainState, after: TrainState) -> Plain:
    record: Record = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), after.env_state[1])  # [frame, env]
    observation = jnp.concatenate([before.observation[None], record.observation[:-1]])
    critic = jax.jit(MLP((*config.critic, 1)).apply)
    value, next_value = (np.asarray(critic(before.critic, x))[..., 0] for x in (observation, record.final_observation))
    done = np.asarray(record.terminated | record.truncated)
    advantage, target = plain_advantages(config, hparams, record.reward, record.terminated, done, value, next_value)
    advantage = (advantage - advantage.mean()) / max(advantage.std(), 1e-8)

    ended, running = [], np.zeros(done.shape[1])
    for reward, over in zip(np.asarray(record.reward), done, strict=True):
        running += reward
        ended += list(running[over])
        running[over] = 0
    assert ended
    assert record.truncated.any()
    assert record.terminated.any()

    def flat(x: Any) -> Array:
        x = jnp.asarray(x, x.dtype if x.dtype != float else jnp.float32)
        return x.reshape(-1, *x.shape[2:])

    return Plain(
        flat(observation),
        jax.tree.map(flat, record.action),
        flat(advantage),
        flat(target),
        flat(value),
        float(np.mean(ended)),
    )


def plain_heads(config: Config, actors: PyTree, rollout: Plain) -> tuple[Array, Array]:
    """Log-probabilities and entropies, [head, sample, ue], by the formulas."""
    policy: Any = make_actors(RECORDER, config).apply(actors, rollout.observation, NUMBERS.power_max)
    log_probs, entropies = [], []
    for head, choice in zip(policy.distributions[:2], rollout.action[:2], strict=True):
        log_p = head.logits - jax.scipy.special.logsumexp(head.logits, axis=-1, keepdims=True)
        log_probs.append(jnp.take_along_axis(log_p, choice[..., None], -1)[..., 0])
        entropies.append(-jnp.sum(jnp.exp(log_p) * log_p, -1))
    mean, std = policy.distributions.power.loc, policy.distributions.power.scale
    log_probs.append(-(((rollout.action.power - mean) / std) ** 2) / 2 - jnp.log(std) - jnp.log(2 * jnp.pi) / 2)
    entropies.append(jnp.log(std) + (1 + jnp.log(2 * jnp.pi)) / 2)
    return jnp.stack(log_probs), jnp.stack(entropies)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value_target", "power_std"),
    [
        ("joint", "gae", "gae", "softplus"),
        ("joint", "paper", "monte_carlo", "sigmoid"),
        ("per_head", "reference", "one_step", "softplus"),
    ],
)
def test_an_update_equals_a_plain_one(ratio: Any, advantage: Any, value_target: Any, power_std: Any) -> None:
    config = recorder_config(ratio=ratio, advantage=advantage, value_target=value_target, power_std=power_std)
    before, after, metrics = one_update(config, HPARAMS, updates_done=2)
    rollout = plain_rollout(config, HPARAMS, before, after)
    old, _ = jax.jit(plain_heads, static_argnums=0)(config, before.actors, rollout)
    h = HPARAMS
    # Half of the updates are done.
    weights = jnp.stack([h.entropy, h.entropy, h.power_entropy]) * (1 + h.final_entropy) / 2
    lr_scale = (1 + h.final_lr) / 2

    def actor_loss(actors: PyTree) -> tuple[Array, Array]:
        new, entropy = plain_heads(config, actors, rollout)
        log_ratio = new - old
        kl = jnp.mean(jnp.sum(jnp.exp(log_ratio) - 1 - log_ratio, axis=0))
        total_entropy = jnp.mean(jnp.sum(entropy, axis=0))
        bonus = jnp.sum(weights * jnp.mean(entropy, axis=(1, 2)))
        if ratio == "joint":  # of the whole action of a UE: its log-probability is the sum over the heads
            log_ratio = jnp.sum(log_ratio, axis=0)
        else:  # the mean over the heads
            bonus = bonus / 3
        gain = rollout.advantage[:, None]
        # Clipped: the gain of a ratio that has gone too far in the good direction is constant.
        too_far = jnp.where(gain > 0, jnp.exp(log_ratio) > 1 + h.clip, jnp.exp(log_ratio) < 1 - h.clip)
        surrogate = gain * jnp.where(too_far, 1 + h.clip * jnp.sign(gain), jnp.exp(log_ratio))
        clipped = jnp.mean(jnp.abs(jnp.exp(log_ratio) - 1) > h.clip)
        return -jnp.mean(surrogate) - bonus, jnp.stack([total_entropy, kl, clipped])

    def critic_loss(critic: PyTree) -> tuple[Array, Array]:
        value: Any = MLP((*config.critic, 1)).apply(critic, rollout.observation)
        return jnp.mean((value[..., 0] - rollout.target) ** 2), jnp.zeros(())

    def descend(loss: Callable, parameters: PyTree, lr: Any) -> tuple[PyTree, list[Array], list[Array]]:
        optimiser = optax.chain(optax.clip_by_global_norm(h.max_grad_norm), optax.adam(lr * lr_scale, eps=h.adam_eps))

        @jax.jit
        def step(parameters: PyTree, state: PyTree) -> tuple:
            (value, extra), gradient = jax.value_and_grad(loss, has_aux=True)(parameters)
            change, state = optimiser.update(gradient, state)
            return value, extra, optax.apply_updates(parameters, change), state

        state = jax.tree.map(jnp.zeros_like, jax.eval_shape(optimiser.init, parameters))
        losses, extras = [], []
        for _ in range(config.epochs):
            value, extra, parameters, state = step(parameters, state)
            losses.append(value)
            extras.append(extra)
        return parameters, losses, extras

    actors, actor_losses, extras = descend(actor_loss, before.actors, h.actor_lr)
    critic, critic_losses, _ = descend(critic_loss, before.critic, h.critic_lr)
    # If this fails by little: a ratio at the very edge of the clip range falls on either side. Take another clip.
    assert_trees_close(after.actors, actors, rtol=1e-3, atol=3e-5)
    assert_trees_close(after.critic, critic, rtol=1e-3, atol=3e-5)
    assert not np.allclose(after.actors["params"]["cut_0"]["kernel"], before.actors["params"]["cut_0"]["kernel"])
    expected = (np.mean(actor_losses), np.mean(critic_losses), *np.mean(np.stack(extras), axis=0))
    np.testing.assert_allclose(metrics[2:], expected, rtol=1e-3, atol=1e-5)
    assert metrics.frames == 3 * NUM_ENVS * ROLLOUT
    np.testing.assert_allclose(metrics.episode_return, rollout.episode_return, rtol=1e-5)
    if advantage != "paper":  # whose advantages are small corrections
        assert metrics.clipped > 0
    assert after.update == 3


@pytest.mark.full
def test_minibatches_take_every_sample_once_or_are_drawn() -> None:
    zero = jnp.zeros(())
    still = HPARAMS.replace(actor_lr=zero, critic_lr=zero, entropy=zero, power_entropy=zero)
    reference = {name: getattr(mahppo.REFERENCE[0], name) for name in ("ratio", "value_target", "advantage")}
    for config in (
        recorder_config(minibatches=4, epochs=2),
        recorder_config(minibatches=4, epochs=2, sampling="draws", **reference),
    ):
        before, after, metrics = one_update(config, still, updates_done=0)
        assert_trees_close(after.actors, before.actors, rtol=0, atol=0)
        assert_trees_close(after.critic, before.critic, rtol=0, atol=0)
        np.testing.assert_allclose((metrics.kl, metrics.clipped), 0, atol=1e-6)
        rollout = plain_rollout(config, still, before, after)
        # The policy is the old one: mean gain 1 * advantage, and nothing but the choice of samples moves the losses.
        loss = float(np.mean((rollout.value - rollout.target) ** 2))
        gain = float(rollout.advantage.mean())
        actor_loss = float(metrics.actor_loss)
        if config.sampling == "shuffle":
            assert float(metrics.critic_loss) == pytest.approx(loss, rel=1e-5)
            assert actor_loss == pytest.approx(-gain, abs=1e-5)
        else:
            assert float(metrics.critic_loss) != pytest.approx(loss, rel=1e-4)
            assert float(metrics.critic_loss) == pytest.approx(loss, rel=0.5)
            assert actor_loss == pytest.approx(-gain, abs=0.3)


# Whole runs


OFFLOADING = MultiUEOffloading(num_ues=2)
TINY = Config(num_frames=3 * 2 * 4 * 8, num_envs=4, rollout=8, epochs=2, minibatches=2, updates_per_chunk=2, **SMALL)


@pytest.fixture(scope="module")
def trainer() -> mahppo.Trainer:
    return make_trainer(OFFLOADING, TINY)


@pytest.fixture(scope="module")
def train(trainer: mahppo.Trainer) -> Callable[..., tuple[TrainState, mahppo.Metrics]]:
    return jax.jit(trainer.train)


def test_counts_of_a_run(trainer: mahppo.Trainer) -> None:
    assert trainer.num_chunks == 3
    assert trainer.num_frames == TINY.num_frames
    assert make_trainer(OFFLOADING, dataclasses.replace(TINY, num_frames=1)).num_chunks == 1


@pytest.mark.full
def test_lanes_of_a_sweep_equal_single_runs_and_share_one_program(trainer: mahppo.Trainer, train: Callable) -> None:
    traces = []

    def traced(hparams: HParams, params: Params, key: Array) -> tuple[TrainState, mahppo.Metrics]:
        traces.append(key.shape)
        return trainer.train(hparams, params, key)

    @jax.jit
    @jax.vmap
    def problem(number: Array) -> tuple[HParams, Params, Array]:
        """Other values of everything that is traced and usually swept."""
        lr, entropy, gamma, beta, power, noise = jax.random.uniform(jax.random.key(number), (6,), minval=0.5)
        hparams = as_arrays(HParams()).replace(
            actor_lr=1e-2 * lr, critic_lr=2e-2 * lr, entropy=1e-2 * entropy, gamma=gamma
        )
        return hparams, OFFLOADING.params(beta=beta, power_max=power, noise=1e-9 * noise), jax.random.key(number)

    lane = jax.jit(lambda lanes, i: jax.tree.map(lambda x: x[i], lanes))
    sweep = jax.jit(jax.vmap(traced))
    problems = problem(jnp.arange(3))
    results = sweep(*problems)
    for i in range(3):
        assert_trees_close(lane(results, i), train(*lane(problems, i)), rtol=2e-3, atol=2e-4)
    state, metrics = results
    assert (state.update == 6).all() and metrics.frames[0].tolist() == [32 * (i + 1) for i in range(6)]
    losses = np.asarray(metrics.critic_loss)
    assert not np.isclose(losses[0], losses[1:]).any()
    sweep(*problem(jnp.arange(3, 6)))
    assert len(traces) == 1


@pytest.mark.full
def test_a_single_ue_learns_to_offload() -> None:
    """The optimum is known: cut 1 at full power, 12.1 ms per task; local takes 45.9 ms."""
    env, params = mec_jax.make("MultiUEOffloading-v0", num_ues=1)
    config = Config(num_frames=30_000, num_envs=64, rollout=16, updates_per_chunk=1, trunk=(32,), head=16, critic=(32,))
    trainer = make_trainer(env, config)
    hparams, key = as_arrays(HParams(actor_lr=5e-3, critic_lr=5e-3)), jax.random.key(0)
    start = jax.jit(trainer.init)(hparams, params, key)
    state, metrics = jax.jit(trainer.train)(hparams, params, key)
    assert np.isfinite(metrics.critic_loss).all()

    scenario, keys = env.evaluation_params(), evaluation_keys(8)
    policy = make_policy(env, config)
    untrained, trained = (
        play_episodes(env, scenario, policy, (actors, params), keys) for actors in (start.actors, state.actors)
    )
    local = play_episodes(env, scenario, baselines(env)["Local"], scenario, keys)
    assert trained.terminated.all()
    assert trained.task_latency.mean() < 0.014
    # Returns are negative; trained -0.10, local -1.83, untrained -2.2.
    assert trained.episode_return.mean() > 0.1 * local.episode_return.mean()
    assert trained.episode_return.mean() > 0.1 * untrained.episode_return.mean()


# Errors


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"minibatches": 3}, "3 minibatches do not divide 4 environments x 8 frames"),
        ({"num_envs": 0}, "num_envs"),
        ({"rollout": 0}, "rollout"),
        ({"minibatches": 0}, "minibatches"),
        ({"epochs": 0}, "epochs"),
        ({"updates_per_chunk": -1}, "updates_per_chunk"),
        ({"trunk": (16, 0)}, "trunk"),
        ({"head": 0}, "head"),
    ],
)
def test_counts_that_do_not_fit_are_one_error(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_trainer(OFFLOADING, dataclasses.replace(TINY, **changes))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_hinges_scale_what_a_policy_turns_on() -> None:
    share, time, bits, distance = np.random.default_rng(0).uniform(0, 1, (4, 5, 3)).astype(np.float32)
    behind = share - share.mean(1, keepdims=True)
    ends = np.array([0.03, 0.06, 0.09, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.36, 0.44])
    expected = [4 * share, 4 * time, 20 * bits, 4 * distance, 40 * behind, -40 * behind, 80 * behind - 1]
    expected += [-80 * behind - 1, 20 * (0.1 - share), 20 * (0.2 - share), 20 * (ends - share.mean(1, keepdims=True))]
    observation = np.stack([share, time, bits, distance], axis=-1).reshape(5, 12)
    found = read("hinges", jnp.asarray(observation))
    np.testing.assert_allclose(found, np.maximum(np.concatenate(expected, axis=1), 0), atol=1e-4)
    np.testing.assert_array_equal(read("state", jnp.asarray(observation)), observation)


def test_unknown_inputs_are_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"inputs is 'pixels': .*choose from state, hinges"):
        make_trainer(ENV, Config(inputs="pixels"))  # type: ignore[arg-type]
