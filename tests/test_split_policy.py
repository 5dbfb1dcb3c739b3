"""An exported policy says and does the same in Flax, NumPy and PyTorch."""

import copy
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch

import mec_jax
from algos.algorithms import ALGORITHMS, algorithm
from algos.export import export_policy
from algos.normalise import Moments
from algos.runs import RunConfig, as_arrays
from mec_jax.policy import AS_RETURNED, KIND, Policy, load_policy
from mec_jax.split.policy import TorchPolicy, load_torch_policy

pytestmark = pytest.mark.usefixtures("one_thread")

STATES = 10_000
ONE_OF_EACH_KIND = ("MultiUEOffloading-v0", "MultiExitAllocation-v0", "NeuronAllocation-Dynamic-v0")
TRAINED_ON = [
    ("mahppo", "MultiUEOffloading-v0", {"power_std": "softplus", "inputs": "state"}),
    ("mahppo", "MultiUEOffloading-v0", {"power_std": "sigmoid", "inputs": "hinges"}),
    *(("ppo", env_id, {}) for env_id in mec_jax.registered_envs),
    ("ppo", "MultiUEOffloading-v0", {"normalise_observation": False, "activation": "relu"}),
    *(("drl_es", env_id, {}) for env_id in ONE_OF_EACH_KIND),
    *(("drl_es", env_id, {"per_slot": True}) for env_id in ("NeuronAllocation-v0", "NeuronAllocation-Slots-v0")),
]


def test_every_trainer_is_covered() -> None:
    assert {name for name, _, _ in TRAINED_ON} == set(ALGORITHMS)


def random_learned(name: str, env: Any, params: Any, config: Any) -> Any:
    """What the algorithm learns, at random, but of a size that decides clearly."""
    module = algorithm(name)
    init = module.make_trainer(env, config).init
    state = jax.eval_shape(init, as_arrays(module.HParams()), params, jax.random.key(0))
    rng = np.random.default_rng(5)

    def draw(leaf: Any) -> Any:
        if isinstance(leaf, Moments):
            return Moments(draw(leaf.mean), jnp.abs(draw(leaf.var)) + 0.5, jnp.ones(leaf.weight.shape))
        width = leaf.shape[-2] if len(leaf.shape) > 1 else 1
        return jnp.asarray(rng.normal(size=leaf.shape) / max(width, 1) ** 0.5, leaf.dtype)

    return jax.tree.map(draw, module.learned(state), is_leaf=lambda leaf: isinstance(leaf, Moments))


def assert_decides_alike(policy: Policy, there: TorchPolicy, states: np.ndarray) -> None:
    """Equal to 1e-5, and the same choices where the best is that clearly the best."""
    with torch.no_grad():
        said_there = there(torch.from_numpy(states))
    action, action_there = policy.act(states), there.act(states)
    assert action_there._fields == action._fields and type(action_there).__name__ == type(action).__name__
    for name, said in policy.distribution(states).items():
        field, field_there = getattr(action, name), getattr(action_there, name).numpy()
        for part, part_there in zip(said, said_there[name], strict=True):
            np.testing.assert_allclose(part_there, part, rtol=1e-5, atol=1e-5)
        assert field_there.shape == field.shape
        if field.dtype == np.float32:
            np.testing.assert_allclose(field_there, field, rtol=1e-5, atol=1e-5)
        else:
            assert_choices_equal(said[0], field, field_there)


def assert_choices_equal(logits: np.ndarray, choice: np.ndarray, other: np.ndarray) -> None:
    if logits.shape[-1] == 1:
        clear = np.ones(choice.shape, bool)
    else:
        second, first = np.moveaxis(np.sort(logits, axis=-1)[..., -2:], -1, 0)
        clear = (first - second > 2e-5) | (first == np.finfo(np.float32).min)  # the first, if none is allowed
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(choice[clear], other[clear])


@pytest.mark.parametrize(("name", "env_id", "changes"), TRAINED_ON)
def test_flax_numpy_and_pytorch_decide_alike(name: str, env_id: str, changes: dict[str, Any], tmp_path: Path) -> None:
    module = algorithm(name)
    config = module.Config(trunk=(16, 8), **changes)
    env, params = mec_jax.make(env_id)
    run = RunConfig(name, env_id, mec_jax.static_arguments(env_id), {}, "small", 0, config, module.HParams())
    learned = random_learned(name, env, params, config)
    path = tmp_path / "policy.npz"
    export_policy(path, run, learned, frames=0, score={})
    policy, there = load_policy(path), load_torch_policy(path)

    size = policy.metadata["observation"]["size"]
    states = np.random.default_rng(6).uniform(0, 1, (STATES, size)).astype(np.float32)
    states[:100] *= 20
    assert_decides_alike(policy, there, states)
    in_flax = jax.jit(jax.vmap(module.make_policy(env, config, deterministic=True), (None, 0, None)))
    action = in_flax((learned, params), states, jax.random.key(0))
    said = policy.distribution(states)
    for field, value in zip(policy.act(states)._fields, there.act(states), strict=True):
        expected = np.asarray(getattr(action, field) if isinstance(action, tuple) else action)
        found = value.numpy()
        if found.dtype == np.float32:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        else:
            assert_choices_equal(np.asarray(said[field][0]), expected, found)


# Every kind of head in one file: none that a trainer writes has all.


def network(stacked: int, heads: list[dict[str, Any]], normalisation: Any, activation: str = "tanh") -> Policy:
    values = 5
    env_static = {"num_ues": stacked}
    metadata = {
        **{"schema": 1, "kind": KIND, "env_id": "MultiUEOffloading-v0", "action": "Action", "env_params": {}},
        **{"provenance": {}, "score": {}, "env_static": env_static},
        "observation": {
            "size": values * stacked,
            "per_ue": [f"value {i}" for i in range(values)],
            "normalisation": normalisation,
        },
        "network": {"stacked": stacked, "activation": activation, "trunk": ["trunk_0"], "heads": heads},
    }
    rng = np.random.default_rng(7)
    arrays = {}
    for layer, inputs, outputs in (
        ("trunk_0", values * stacked, 8),
        *((head["layers"][0], 8, _outputs(head)) for head in heads),
    ):
        arrays[f"{layer}/kernel"] = rng.normal(size=(stacked, inputs, outputs), scale=0.5)
        arrays[f"{layer}/bias"] = rng.normal(size=(stacked, outputs), scale=0.5)
    return Policy(arrays, metadata)


def _outputs(head: dict[str, Any]) -> int:
    return int(np.prod(head.get("shape", ()))) * (head["size"] if head["kind"] == "categorical" else 2)


def real(kind: str, shape: list[int], std: str, **numbers: Any) -> dict[str, Any]:
    name = f"{kind}_{'_'.join(map(str, shape))}"
    bounds = {"offset": 0.25, "scale": 2.0, "low": -1.0, "high": 3.0} | numbers
    about = {"kind": kind, "layers": [f"{name}_0"], "size": 1, "shape": shape, "mean": "linear", "std": std}
    return {"name": name, "std_min": 0.01, **about, **bounds}


def choice(shape: list[int], size: int, name: str) -> dict[str, Any]:
    return {"name": name, "kind": "categorical", "layers": [f"{name}_0"], "size": size, "shape": shape}


SHAPED = [
    choice([], 4, "type"),  # a name that PyTorch's modules have a use for
    choice([3], 2, "channel"),
    choice([2, 3], 5, "exit"),
    real("gaussian", [], "exp"),
    real("gaussian", [3], "softplus", low=[-0.5, 0.0, -1.0], high=[0.5, 1.0, 2.0]),
    real("gaussian", [2, 2], "sigmoid", scale=[[0.5, 1.0], [1.5, 2.0]], offset=[[0.0, 1.0], [2.0, 3.0]]),
    real("simplex", [4], "exp", low=-1e30, high=1e30),
    real("simplex", [2, 3], "softplus", low=-1e30, high=1e30),
]
PER_UE = [
    {"name": "cut", "kind": "categorical", "layers": ["cut_0"], "size": 4},
    {
        **{"name": "power", "kind": "gaussian", "layers": ["power_0"], "size": 1, "mean": "sigmoid", "std": "softplus"},
        **{"std_min": 1e-6, "scale": [1.0, 0.5, 2.0], "low": 1e-10, "high": [1.0, 0.5, 2.0]},
    },
]
NORMALISATIONS = [
    AS_RETURNED,
    {"mean": [-1.0, 0.0, 0.5, 1.0, 2.0], "std": [0.1, 0.5, 1.0, 1.5, 2.0]},
    {"mean": [0.0] * 5, "std": [0.5] * 5, "clip": 1.5},
]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS, ids=["as returned", "scaled", "clipped"])
def test_every_kind_and_shape_of_head_is_numpys(normalisation: Any, activation: str) -> None:
    states = 2 * np.random.default_rng(9).normal(size=(STATES, 5)).astype(np.float32)
    policy = network(1, SHAPED, normalisation, activation)
    assert_decides_alike(policy, TorchPolicy(policy), states)


@pytest.fixture(scope="module")
def per_ue() -> Policy:
    return network(3, PER_UE, AS_RETURNED, "relu")


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3)])
def test_any_batch_shape_is_numpys(per_ue: Policy, shape: tuple[int, ...]) -> None:
    states = np.random.default_rng(10).normal(size=(*shape, 15)).astype(np.float32)
    there = TorchPolicy(per_ue)
    for field, found in zip(per_ue.act(states), there.act(states), strict=True):
        assert found.shape == field.shape == (*shape, 3)
        np.testing.assert_allclose(found, field, rtol=1e-5, atol=1e-5)
    drawn = there.act(states, torch.Generator().manual_seed(0))
    assert all(field.shape == (*shape, 3) for field in drawn)


def test_samples_follow_the_heads() -> None:
    policy = network(1, SHAPED, AS_RETURNED)
    one = np.random.default_rng(11).normal(size=5).astype(np.float32)
    there = TorchPolicy(policy)
    drawn = there.act(np.broadcast_to(one, (STATES, 5)), torch.Generator().manual_seed(1))
    again = there.act(np.broadcast_to(one, (STATES, 5)), torch.Generator().manual_seed(1))
    assert all(torch.equal(x, y) for x, y in zip(drawn, again, strict=True)), "the generator decides alone"
    said = policy.distribution(one)
    for head in SHAPED:
        samples = getattr(drawn, head["name"]).numpy().reshape(STATES, -1)
        if head["kind"] == "categorical":
            logits = np.asarray(said[head["name"]][0]).reshape(-1, head["size"])
            for entry, each in zip(samples.T, logits, strict=True):
                expected = STATES * scipy.special.softmax(each.astype(float))
                counts = np.bincount(entry, minlength=head["size"])
                assert scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4
            continue
        mean, std = (np.asarray(part, float) for part in said[head["name"]])
        if head["kind"] == "simplex":
            rows = np.asarray(getattr(drawn, head["name"]))
            np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-5)
            # Differences of logarithms are those of what was drawn.
            samples = (np.log(rows[..., 1:]) - np.log(rows[..., :-1])).reshape(STATES, -1)
            mean, std = np.diff(mean, axis=-1), np.hypot(std[..., 1:], std[..., :-1])
            bounds: tuple[Any, Any] = (-np.inf, np.inf)
        else:
            bounds = (head["low"], head["high"])
        entries = (np.broadcast_to(x, mean.shape).ravel() for x in (mean, std, *bounds))
        for entry, m, s, least, most in zip(samples.T, *entries, strict=True):
            assert least <= entry.min() and entry.max() <= most
            inside = (entry > least) & (entry < most)  # the ends hold what was clipped
            assert abs(inside.mean() - np.diff(scipy.stats.norm.cdf([least, most], m, s))[0]) < 0.025
            if inside.sum() > 100:
                truncated = scipy.stats.truncnorm((least - m) / s, (most - m) / s, m, s)
                assert scipy.stats.kstest(entry[inside], truncated.cdf).pvalue > 1e-4


def test_observation_that_is_none_says_why(per_ue: Policy) -> None:
    there = TorchPolicy(per_ue)
    for observation, said in (
        (np.full(15, np.nan, np.float32), "holds a NaN"),
        (np.full(15, 1e300), "too large for float32"),
        (np.zeros(14), "the observation has shape [14]: give [..., 15]"),
        (np.zeros((15, 1)), "give [..., 15]"),
        (3.4e38 * np.sign(per_ue.arrays["trunk_0/kernel"][0, :, 0]), "the network overflows on this observation"),
    ):
        with pytest.raises(ValueError) as caught:
            there.act(observation)
        assert said in str(caught.value)


def test_file_that_is_no_policy_says_why(tmp_path: Path) -> None:
    (path := tmp_path / "policy.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="it is damaged or no policy"):
        load_torch_policy(path)


def test_module_can_be_trained_copied_and_pickled(per_ue: Policy) -> None:
    there = TorchPolicy(per_ue)
    states = torch.zeros(2, 15)
    sum(part.sum() for parts in there(states).values() for part in parts).backward()
    assert all(parameter.grad is not None for parameter in there.parameters())
    for other in (copy.deepcopy(there), pickle.loads(pickle.dumps(there))):
        assert all(torch.equal(x, y) for x, y in zip(other.act(states), there.act(states), strict=True))
    untouched = per_ue.arrays["trunk_0/kernel"].copy()
    with torch.no_grad():
        for parameter in there.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(per_ue.arrays["trunk_0/kernel"], untouched)
