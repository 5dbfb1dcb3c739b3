"""A policy drives the network whose cuts it was trained on, and no other."""

import copy
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import mec_jax
from algos.export import import_policy
from benchmarks.robustness.exported import export_random
from mec_jax.files import content_sha256
from mec_jax.policy import Policy, load_policy
from mec_jax.profiles import load_profile
from mec_jax.profiles.partition_game import load_cut_table
from mec_jax.split.graph import CutGraph
from mec_jax.split.policy import TorchPolicy
from mec_jax.testing.common import parts_of
from tests.errors import error_of

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = Path(__file__).resolve().parent / "data"
RESNET18: dict[str, Any] = json.loads((resources.files("mec_jax.profiles") / "data" / "resnet18.json").read_bytes())
SIX = ["input", "maxpool", "layer2.0", "layer3.0", "layer4.0", "local"]
FOUR = ("input", "maxpool", "layer2.0", "local")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile with two cuts, and a policy that was trained on it."""
    folder = tmp_path_factory.mktemp("cuts")
    (folder / "phone.json").write_text(json.dumps(RESNET18 | {"cuts": RESNET18["cuts"][:2]}))
    static = {"num_ues": 2, "profile": str(folder / "phone.json")}
    export_random(folder / "policy.npz", "mahppo", "MultiUEOffloading-v0", {"head": 8}, static)
    return folder


@pytest.fixture(scope="module", params=[Policy, TorchPolicy])
def policy(request: pytest.FixtureRequest, folder: Path) -> Any:
    loaded = load_policy(folder / "policy.npz")
    return loaded if request.param is Policy else TorchPolicy(loaded)


@pytest.fixture(scope="module")
def graph() -> CutGraph:
    return CutGraph(torchvision.models.resnet18(weights=None).eval(), torch.zeros(1, 3, 64, 64))


def test_a_list_of_other_cuts_is_refused(policy: Any) -> None:
    """A policy of four choices beside a list of six cuts."""
    said = error_of(policy.check_cuts, SIX)
    assert "chooses from 4 cuts, input, maxpool, layer2.0, local, not from these 6, input, maxpool, layer2.0" in said
    policy.check_cuts(list(FOUR))
    assert "not from these 4, input, layer2.0" in error_of(policy.check_cuts, ["input", "layer2.0", "maxpool", "local"])


def test_a_policy_drives_the_network_of_its_profile(policy: Any, graph: CutGraph) -> None:
    assert policy.cuts == FOUR
    halves = graph.halves(policy.cuts)
    action = policy.act(np.full(8, 0.5))
    image = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        whole = graph.module(image)
        assert all(torch.equal(suffix(prefix(image)), whole) for prefix, suffix in halves)
        prefix, suffix = halves[action.cut[0]]
        assert torch.equal(suffix(prefix(image)), whole)
    assert policy.cut_names(action).tolist() == [FOUR[cut] for cut in action.cut]


def test_another_network_is_refused_whatever_the_policy_would_choose(policy: Any, graph: CutGraph) -> None:
    other = CutGraph(torchvision.models.alexnet(weights=None).eval(), torch.zeros(1, 3, 64, 64))
    assert "there is no layer 'maxpool' to cut after" in error_of(other.halves, policy.cuts)
    assert "cut 'maxpool' comes before 'layer2.0' in this network" in error_of(graph.halves, ["layer2.0", "maxpool"])


def test_another_profile_is_refused(policy: Any, folder: Path, tmp_path: Path) -> None:
    policy.check_profile(folder / "phone.json")
    policy.check_profile(str(folder / "phone.json"))
    policy.check_profile(load_profile(folder / "phone.json"))
    phone = json.loads((folder / "phone.json").read_text())
    path = tmp_path / "other.json"
    words = phone | {
        "description": "other words",
        "source": {"all": "copied"},
        "input_bits": float(phone["input_bits"]),
    }
    path.write_text(json.dumps(dict(reversed(words.items())), indent=3), encoding="utf-8-sig")
    policy.check_profile(path)
    slower = copy.deepcopy(phone)
    slower["cuts"][0]["front_time_s"] *= 1.01
    renamed = copy.deepcopy(phone)
    renamed["cuts"][0]["name"] = "relu"
    for other in (slower, renamed, RESNET18):
        path.write_text(json.dumps(other))
        said = (
            f"profile {str(path)!r} is not the one that the policy was trained on, 'resnet18' with the cuts input, max"
        )
        assert said in error_of(policy.check_profile, path)
    said = "the profile is not the one that the policy was trained on"
    assert said in error_of(policy.check_profile, load_profile("resnet18"))


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"x": ' + b"1" * 5000 + b"}", None])
def test_profile_that_cannot_be_read_says_why(policy: Any, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "phone.json"
    if content is not None:
        path.write_bytes(content)
    said = error_of(policy.check_profile, path)
    assert said.startswith(f"profile {str(path)!r} can't be read (") and said.endswith("give the path of its JSON file")
    assert "no regular file" in error_of(policy.check_profile, "/dev/zero")


@pytest.mark.parametrize("action", [None, (1, 2), "local"])
def test_action_that_is_not_the_policys_says_so(policy: Any, action: Any) -> None:
    assert "the action's 'cut' is of type object" in error_of(policy.cut_names, action)
    own = policy.act(np.full(8, 0.5))
    assert "the action's 'cut' is of type float64" in error_of(policy.cut_names, own._replace(cut=np.zeros(2)))
    for cut in ([0, 4], [-1, 0]):
        assert "the action's 'cut' is not in 0..3: give one" in error_of(policy.cut_names, own._replace(cut=cut))


def test_several_networks_are_told_apart(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "policy.npz"
    static = {"num_ues": 2, "profile": ["vgg11", str(folder / "phone.json")]}
    export_random(path, "mahppo", "MultiUEOffloading-v0", {"head": 8}, static)
    policy = load_policy(path)
    assert "cuts several networks, one for each entry of 'cut': see `cut_names`" in error_of(lambda: policy.cuts)
    action = policy.act(np.full((5, 8), 0.5))._replace(cut=np.array([[1, 1], [5, 5], [0, 3], [2, 2], [4, 4]]))
    assert policy.cut_names(action).tolist() == [
        *(["features.2", "maxpool"], ["local", "local"], ["input", "local"], ["features.5", "layer2.0"]),
        ["features.15", "local"],
    ]
    assert "has shape (3,): give [..., 2]" in error_of(policy.cut_names, action._replace(cut=np.zeros(3, int)))
    policy.check_profile(load_profile("vgg11"), 0)
    policy.check_profile(folder / "phone.json", 1)
    assert "is not the one" in error_of(policy.check_profile, folder / "phone.json", 0)
    assert "there is no entry 2: the policy cuts 2 networks" in error_of(policy.check_profile, folder / "phone.json", 2)


def test_what_has_no_cuts_and_what_does_not_name_them_say_so(tmp_path: Path) -> None:
    export_random(tmp_path / "policy.npz", "ppo", "NeuronAllocation-v0")
    none = load_policy(tmp_path / "policy.npz")
    unknown = "the policy's file is of schema 2 or 1, which did not name cuts: export the policy again"
    for policy, says in (
        (none, "the policy cuts no network: it decides in NeuronAllocation-v0"),
        (load_policy(DATA / "policies" / "schema_2.npz"), unknown),
        (load_policy(DATA / "baseline" / "mahppo_state_MultiUEOffloading-v0.npz"), unknown),
    ):
        calls: list[tuple[Any, ...]] = [(policy.check_cuts, SIX), (policy.check_profile, "phone.json")]
        for call in (*calls, (lambda policy=policy: policy.cuts,), (policy.cut_names, None)):
            assert says in error_of(*call)


def test_a_policy_is_not_imported_beside_a_profile_that_has_changed(folder: Path, tmp_path: Path) -> None:
    profile = tmp_path / "phone.json"
    profile.write_text((folder / "phone.json").read_text())
    path = tmp_path / "policy.npz"
    static = {"num_ues": 2, "profile": str(profile)}
    export_random(path, "mahppo", "MultiUEOffloading-v0", {"head": 8}, static)
    import_policy(path)
    changed = json.loads(profile.read_text())
    changed["cuts"][0]["name"] = "relu"
    profile.write_text(json.dumps(changed))
    says = f"policy file {str(path)!r} was trained on another profile than the environment has now"
    assert says in error_of(import_policy, path)


def test_environments_say_what_they_cut() -> None:
    parts = {
        **{"MultiUEOffloading": "cut", "MultiExitAllocation": "split", "PartitionGame": "action"},
        "CompressedInference": "cut",
    }
    for env_id in mec_jax.registered_envs:
        env, params = mec_jax.make(env_id)
        part = parts.get(env_id.partition("-")[0])
        assert (env.cuts and env.cuts.part) == part
        for profile in env.cuts.profiles if part else ():
            space: Any = parts_of(env.action_space(params))[str(part)]
            assert len(profile.points) == space.n
            assert profile.points[0] == "input" and profile.points[-1] == "local"
    assert mec_jax.make("MultiUEOffloading-v0")[0].cuts.profiles[0].sha256 == content_sha256(RESNET18)


def test_a_generated_table_has_the_digest_of_a_file_that_says_the_same(tmp_path: Path) -> None:
    table = load_cut_table("alexnet")
    layers = zip(table.layer_names, table.flops, table.bits[1:], strict=True)
    content = {
        **{"schema": 1, "name": "alexnet", "description": "by hand", "source": {"all": "the table"}},
        "input_bits": int(table.bits[0]),
        "layers": [{"name": name, "flops": int(flops), "bits": int(bits)} for name, flops, bits in layers],
    }
    (tmp_path / "alexnet.json").write_text(json.dumps(content))
    assert load_cut_table(tmp_path / "alexnet.json").sha256 == table.sha256 == content_sha256(content)
