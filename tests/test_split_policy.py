"""An exported policy says and does the same in Flax, NumPy and PyTorch."""

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

import mec_jax
from algos.algorithms import algorithm, algorithms
from benchmarks.robustness.exported import export_random
from mec_jax.envs.offloading import MIN_POWER
from mec_jax.policy import AS_RETURNED, KIND, SCHEMA, Policy, load_policy
from mec_jax.split.policy import TorchPolicy, load_torch_policy
from tests.tolerance import FUNCTION, Said, assert_acts, assert_says, close, said_by

pytestmark = pytest.mark.usefixtures("one_thread")

STATES, SAMPLES = 1000, 10_000
ONE_OF_EACH_KIND = ("MultiUEOffloading-v0", "MultiExitAllocation-v0", "NeuronAllocation-Dynamic-v0")
TRAINED_ON: list[tuple[str, str, dict[str, Any]]] = [
    ("mahppo", "MultiUEOffloading-v0", {"power_std": "softplus", "inputs": "state"}),
    ("mahppo", "MultiUEOffloading-v0", {"power_std": "sigmoid", "inputs": "hinges"}),
    *(("ppo", env_id, {}) for env_id in (*mec_jax.registered_envs, "Pendulum-v1")),
    ("ppo", "CartPole-v1", {"activation": "relu"}),
    ("ppo", "MultiUEOffloading-v0", {"normalise_observation": False, "activation": "relu"}),
    *(("drl_es", env_id, {}) for env_id in ONE_OF_EACH_KIND),
    *(("drl_es", env_id, {"per_slot": True}) for env_id in ("NeuronAllocation-v0", "NeuronAllocation-Slots-v0")),
]


def test_every_trainer_is_covered() -> None:
    assert {name for name, _, _ in TRAINED_ON} == set(algorithms())


def assert_decides_alike(policy: Policy, there: TorchPolicy, states: np.ndarray) -> dict[str, Said]:
    """NumPy and PyTorch, each beside the float64 value, which is returned."""
    want = said_by(policy, states)
    assert_says(policy.distribution(states), want)
    with torch.no_grad():
        assert_says(there(torch.from_numpy(states)), want)
    action, action_there = policy.act(states), there.act(states)
    assert action_there._fields == action._fields and type(action_there).__name__ == type(action).__name__
    assert_acts(action._asdict(), want)
    assert_acts(action_there._asdict(), want)
    return want


@pytest.mark.parametrize(
    ("name", "env_id", "changes"), TRAINED_ON, ids=lambda value: value if isinstance(value, str) else None
)
def test_flax_numpy_and_pytorch_decide_alike(name: str, env_id: str, changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    run, learned = export_random(path, name, env_id, changes)
    env, params = run.make_env()
    policy, there = load_policy(path), load_torch_policy(path)
    assert policy.observation_names == env.table.names()

    size = policy.metadata["observation"]["size"]
    states = np.random.default_rng(6).uniform(0, 1, (STATES, size)).astype(np.float32)
    states[: STATES // 100] *= 20
    want = assert_decides_alike(policy, there, states)
    in_flax = jax.jit(jax.vmap(algorithm(name).make_policy(env, run.config, True), (None, 0, None)))
    shape = env.observation_space(params).shape
    action = in_flax((learned, params), states.reshape(STATES, *shape), jax.random.key(0))
    parts = dict(zip(want, jax.tree.leaves(action), strict=True))
    if name == "mahppo":  # the environment clips
        parts["power"] = jnp.clip(parts["power"], MIN_POWER)
    assert_acts(parts, want)

    contains = jax.jit(jax.vmap(env.action_space(params).contains))
    for given in (parts.values(), policy.act(states, np.random.default_rng(0))):
        assert contains(jax.tree.unflatten(jax.tree.structure(action), map(jnp.asarray, given))).all()


# Every kind of head in one file: none that a trainer writes has all.


def network(stacked: int, heads: list[dict[str, Any]], normalisation: Any, activation: str = "tanh") -> Policy:
    values = 5
    fields = [
        {"name": f"value {i}", "unit": "1", "formula": f"value {i}", "count": 1, "transform": None}
        for i in range(values)
    ]
    metadata = {
        **{"schema": SCHEMA, "kind": KIND, "env_id": "MultiUEOffloading-v0", "action": "Action", "env_params": {}},
        **{"provenance": {}, "score": {}, "env_static": {}, "cuts": None},
        "observation": {
            "size": values * stacked,
            "blocks": [{"of": "UE" if stacked > 1 else "", "repeats": stacked, "fields": fields, "beside": []}],
            "normalisation": normalisation,
        },
        "network": {"stacked": stacked, "activation": activation, "trunk": ["trunk_0"], "heads": heads},
    }
    rng = np.random.default_rng(7)
    arrays = {}
    for layer, inputs, outputs in (
        ("trunk_0", values * stacked, 8),
        *((head["layers"][0], 8, _outputs(head) // stacked) for head in heads),
    ):
        arrays[f"{layer}/kernel"] = rng.normal(size=(stacked, inputs, outputs), scale=0.5)
        arrays[f"{layer}/bias"] = rng.normal(size=(stacked, outputs), scale=0.5)
    return Policy(arrays, metadata)


def _outputs(head: dict[str, Any]) -> int:
    return math.prod(head["shape"]) * (head["size"] if head["kind"] == "categorical" else 2)


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
    choice([3], 4, "cut"),
    real("gaussian", [3], "softplus", low=1e-10, high=[1.0, 0.5, 2.0], scale=[1.0, 0.5, 2.0], offset=0.0)
    | {"name": "power", "layers": ["power_0"], "mean": "sigmoid", "std_min": 1e-6},
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
    want = assert_decides_alike(per_ue, there, states)
    assert all(said.action.value.shape == (*shape, 3) for said in want.values())
    drawn = there.act(states, torch.Generator().manual_seed(0))
    assert all(field.shape == (*shape, 3) for field in drawn)


def test_samples_follow_the_heads() -> None:
    policy = network(1, SHAPED, AS_RETURNED)
    one = np.random.default_rng(11).normal(size=5).astype(np.float32)
    there = TorchPolicy(policy)
    drawn = there.act(np.broadcast_to(one, (SAMPLES, 5)), torch.Generator().manual_seed(1))
    again = there.act(np.broadcast_to(one, (SAMPLES, 5)), torch.Generator().manual_seed(1))
    assert all(torch.equal(x, y) for x, y in zip(drawn, again, strict=True)), "the generator decides alone"
    said = policy.distribution(one)
    for head in SHAPED:
        samples = getattr(drawn, head["name"]).numpy().reshape(SAMPLES, -1)
        if head["kind"] == "categorical":
            logits = np.asarray(said[head["name"]][0]).reshape(-1, head["size"])
            for entry, each in zip(samples.T, logits, strict=True):
                expected = SAMPLES * scipy.special.softmax(each.astype(float))
                counts = np.bincount(entry, minlength=head["size"])
                assert scipy.stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-4
            continue
        mean, std = (np.asarray(part, float) for part in said[head["name"]])
        if head["kind"] == "simplex":
            rows = np.asarray(getattr(drawn, head["name"]))
            close(rows.sum(-1), np.ones(rows.shape[:-1]), 1, FUNCTION + 2 * rows.shape[-1])
            # Differences of logarithms are those of what was drawn.
            samples = (np.log(rows[..., 1:]) - np.log(rows[..., :-1])).reshape(SAMPLES, -1)
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
        (torch.zeros(15, dtype=torch.complex64), "of type torch.complex64, not made of real numbers: give numbers"),
        (torch.ones(15, dtype=torch.bool), "of type torch.bool, not made of real numbers"),
        (np.ones(15, complex), "of type complex128, not made of real numbers: give numbers"),
        (None, "of type object, not made of real numbers"),
        ("x", "of type <U1, not made of real numbers"),
        ([[1.0], [1.0, 2.0]], "is no array"),
        (np.zeros(14), "the observation has shape [14]: give [..., 15]"),
        (np.zeros((15, 1)), "give [..., 15]"),
        (3.4e38 * np.sign(per_ue.arrays["trunk_0/kernel"][0, :, 0]), "the network overflows on this observation"),
    ):
        with pytest.raises(ValueError) as caught:
            there.act(observation)
        assert said in str(caught.value)


def test_an_observation_that_allows_no_choice_is_refused_as_in_numpy() -> None:
    policy = load_policy(Path(__file__).resolve().parent / "data" / "policies" / "schema_3.npz")
    there = TorchPolicy(policy)
    observations = torch.ones(2, 3, policy.metadata["observation"]["size"])
    observations[1, 2, policy.metadata["network"]["heads"][0]["allowed"]] = 0
    for generator in (None, torch.Generator()):
        with pytest.raises(ValueError) as caught:
            there.act(observations, generator)
        with pytest.raises(ValueError) as in_numpy:
            policy.act(observations)
        assert "no choice of head 'action' (row 1, 2 of the batch)" in str(caught.value) == str(in_numpy.value)
    assert there.act(observations[0]).action.shape == (3,)


def test_observation_of_the_other_byte_order_is_read(per_ue: Policy) -> None:
    there, state = TorchPolicy(per_ue), np.linspace(0, 1, 15)
    assert all(torch.equal(x, y) for x, y in zip(there.act(state.astype(">f4")), there.act(state), strict=True))


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
