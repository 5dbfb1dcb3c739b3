import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mec_jax.files import content_sha256
from mec_jax.profiles import Profile, bundled_profiles, load_profile
from tests.errors import error_of

INPUT_BITS = 1204224.0  # 3x224x224 values of 8 bits

# The published table: feature elements and compression rate of the cuts, then front time (s) and power (W) of
# points 1 to 5, the last of them local.
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "vgg11": {
        "elements": (64 * 112**2, 128 * 56**2, 256 * 28**2, 512 * 14**2),
        "rate": (128, 128, 128, 128),
        "time": (0.015589, 0.045, 0.100595, 0.136817, 0.1893),
        "power": (2.204, 2.6344, 2.8618, 3.0338, 2.5795),
    },
    "resnet18": {
        "elements": (64 * 56**2, 128 * 28**2, 256 * 14**2, 512 * 7**2),
        "rate": (64, 64, 64, 32),
        "time": (0.004359, 0.01647, 0.025477, 0.03678, 0.045887),
        "power": (2.2885, 2.6328, 2.8815, 3.013, 2.1454),
    },
    "mobilenetv2": {
        "elements": (16 * 112**2, 24 * 56**2, 32 * 28**2, 64 * 14**2),
        "rate": (32, 48, 32, 32),
        "time": (0.005392, 0.009008, 0.015418, 0.024955, 0.052676),
        "power": (1.8811, 2.4805, 2.5565, 2.2014, 1.4797),
    },
}

USER_FILE: dict[str, Any] = {
    "schema": 1,
    "name": "lenet",
    "description": "LeNet-5 on 32x32 digits",
    "source": {"time_and_power": "a wattmeter", "compression_rate": "assumed"},
    "input_bits": 8192,
    "cuts": [
        {
            "name": "pool1",
            "feature_shape": [6, 14, 14],
            "bits_per_element": 32,
            "compression_rate": 5,
            "front_time_s": 0.001,
            "front_power_w": 1.5,
        },
        {
            "name": "pool2",
            "feature_shape": [16, 5, 5],
            "bits_per_element": 8,
            "compression_rate": 1.0,
            "front_time_s": 0.002,
            "front_power_w": 0,
        },
    ],
    "local": {"time_s": 0.0025, "power_w": 1.25},
}


def user_file(folder: Path, content: object, name: str = "lenet.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_published_networks_are_bundled() -> None:
    assert bundled_profiles() == ("mobilenetv2", "resnet18", "vgg11")


@pytest.mark.parametrize("name", PUBLISHED)
def test_bundled_numbers_are_the_published_ones(name: str) -> None:
    published = PUBLISHED[name]
    bits = [round(n * 32 / rate) for n, rate in zip(published["elements"], published["rate"], strict=True)]
    profile = load_profile(name)
    assert profile.name == name
    assert profile.num_points == 6
    assert profile.bits == (INPUT_BITS, *bits, 0.0)
    assert profile.front_time == (0.0, *published["time"])
    assert profile.front_power == (0.0, *published["power"])


def test_mobilenet_bits_that_the_rate_does_not_divide_are_rounded_to_whole_bits() -> None:
    assert load_profile("mobilenetv2").bits == (1204224.0, 200704.0, 50176.0, 25088.0, 12544.0, 0.0)


def test_observation_time_is_the_references_and_for_vgg11_not_the_local_time() -> None:
    times = {name: load_profile(name).observation_time for name in bundled_profiles()}
    assert times == {"mobilenetv2": 0.052676, "resnet18": 0.045887, "vgg11": 0.092876}


@pytest.mark.parametrize("name", bundled_profiles())
def test_every_bundled_number_has_a_source(name: str) -> None:
    tables = {table for table, _ in load_profile(name).source}
    assert {"time_and_power", "compression_rate", "feature_shape", "input_bits"} <= tables
    assert ("observation_time_s" in tables) == (name == "vgg11")


def test_two_loads_are_equal_and_hash_alike_so_that_jit_does_not_compile_anew() -> None:
    assert load_profile("vgg11") == load_profile("vgg11")
    assert hash(load_profile("vgg11")) == hash(load_profile("vgg11"))
    assert len({load_profile(name) for name in bundled_profiles()}) == 3


def test_profiles_need_no_jax() -> None:
    code = "import mec_jax.profiles as p, sys; p.load_profile('vgg11'); sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("as_given", [Path, str], ids=["Path", "str"])
def test_users_file_is_read_back_as_written(tmp_path: Path, as_given: Callable[[Path], str | Path]) -> None:
    assert load_profile(as_given(user_file(tmp_path, USER_FILE))) == Profile(
        name="lenet",
        bits=(8192.0, 7526.0, 3200.0, 0.0),  # 6 * 14 * 14 * 32 / 5 = 7526.4
        front_time=(0.0, 0.001, 0.002, 0.0025),
        front_power=(0.0, 1.5, 0.0, 1.25),
        observation_time=0.0025,
        source=(("time_and_power", "a wattmeter"), ("compression_rate", "assumed")),
        points=("input", *(cut["name"] for cut in USER_FILE["cuts"]), "local"),
        sha256=content_sha256(USER_FILE),
    )


def test_file_without_cuts_is_raw_or_local(tmp_path: Path) -> None:
    profile = load_profile(user_file(tmp_path, USER_FILE | {"cuts": []}))
    assert profile.bits == (8192.0, 0.0)
    assert profile.front_time == (0.0, 0.0025)


def test_observation_time_can_be_set(tmp_path: Path) -> None:
    assert load_profile(user_file(tmp_path, USER_FILE | {"observation_time_s": 0.5})).observation_time == 0.5


def test_existing_file_needs_no_suffix_and_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "lenet"
    path.write_text(json.dumps(USER_FILE), encoding="utf-8-sig")
    assert load_profile(str(path)).name == "lenet"


def test_bundled_name_wins_over_a_file_called_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file(tmp_path, USER_FILE, "vgg11")
    monkeypatch.chdir(tmp_path)
    assert load_profile("vgg11").name == "vgg11"
    assert load_profile("./vgg11").name == "lenet"


def test_unknown_name_lists_the_names_and_the_nearest() -> None:
    message = error_of(load_profile, "ResNet-18")
    assert "can't read profile 'ResNet-18'" in message
    assert "did you mean 'resnet18'? give the path of a readable JSON file" in message
    assert "mobilenetv2, resnet18, vgg11" in message


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800", "\udc80", ".", "x" * 5000])
def test_odd_names_are_no_profiles(name: str) -> None:
    message = error_of(load_profile, name)
    assert f"can't read profile {name!r}: " in message
    assert "mobilenetv2, resnet18, vgg11" in message


@pytest.mark.parametrize("name", ["missing.json", "a\0b.json", "x" * 5000 + ".json"])
def test_missing_or_impossible_path_is_named(tmp_path: Path, name: str) -> None:
    message = error_of(load_profile, str(tmp_path / name))
    assert "can't read profile" in message
    assert "give the path of a readable JSON file" in message


def test_folder_is_no_profile(tmp_path: Path) -> None:
    assert "can't read profile" in error_of(load_profile, tmp_path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "line 1, column 1"),
        (b'{\n  "schema": 1,\n  "name" "x"}', "line 3, column 10"),
        (b"\x89PNG\r\n\x1a\n\x00", "not UTF-8"),
        (json.dumps(USER_FILE).encode("utf-16"), "not UTF-8"),
        (b"null", "holds null; a profile is one JSON object"),
        (b"true", "holds true; a profile is one JSON object"),
        (b"3.5", "holds 3.5; a profile is one JSON object"),
        (b"[]", "holds []; a profile is one JSON object"),
        (b"NaN", "NaN is no number"),
        (b'{"name": -Infinity}', "-Infinity is no number"),
        (b'{"name": "a", "name": "b"}', "'name' stands twice"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
        (b'{"input_bits": 1' + b"0" * 400 + b"}", "an integer of 401 digits"),
        (b'{"input_bits": -1' + b"0" * 5000 + b"}", "an integer of 5001 digits"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_file_that_is_no_json_object_says_where_and_why(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(data)
    message = error_of(load_profile, path)
    assert message.startswith(f"profile {str(path)!r}: ")
    assert said in message
    assert len(message) < 500


def copy_and_parent(keys: tuple[str | int, ...]) -> tuple[Any, Any]:
    """A copy of `USER_FILE`, and the object in it that holds the last key."""
    content: Any = copy.deepcopy(USER_FILE)
    parent = content
    for key in keys[:-1]:
        parent = parent[key]
    return content, parent


def at(*keys: str | int, value: Any) -> Any:
    """`USER_FILE` with the value under `keys` replaced."""
    content, parent = copy_and_parent(keys)
    parent[keys[-1]] = value
    return content


def without(*keys: str | int) -> Any:
    """`USER_FILE` with the last of `keys` left out."""
    content, parent = copy_and_parent(keys)
    del parent[keys[-1]]
    return content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (at("schema", value=2), 'schema version 2 is not known; write "schema": 1'),
        (at("schema", value=True), "schema version true is not known"),
        (at("schema", value="1"), "schema version '1' is not known"),
        (without("schema"), "'schema' is missing"),
        (without("name"), "'name' is missing"),
        (without("local"), "'local' is missing"),
        (without("local", "time_s"), "'local.time_s' is missing"),
        (without("cuts", 1, "compression_rate"), "'cuts[1].compression_rate' is missing"),
        (at("watt", value=1), "unknown field 'watt', known are schema, name"),
        (at("inputs_bits", value=1), "unknown field 'inputs_bits', did you mean 'input_bits'?"),
        (at("cuts", 0, "front_times_s", value=1), "'cuts[0].front_times_s', did you mean 'front_time_s'?"),
        (at("local", "watt", value=1), "unknown field 'local.watt'"),
        (at("name", value=7), "'name' must be a text, not 7"),
        (at("name", value=" "), "'name' must be a text"),
        (at("description", value=None), "'description' must be a text, not null"),
        (at("cuts", 0, "name", value=[]), "'cuts[0].name' must be a text, not []"),
        (at("source", value="me"), "'source' must be an object"),
        (at("source", value={}), "'source' must be an object"),
        (at("source", value={"rate": 3}), "'source.rate' must be a text, not 3"),
        (at("cuts", value={}), "'cuts' must be a list of objects, not {}"),
        (at("cuts", value=[3]), "'cuts[0]' must be an object with name, feature_shape"),
        (at("local", value=0.1), "'local' must be an object with time_s, power_w, not 0.1"),
        (at("input_bits", value=True), "'input_bits' must be a number, not true"),
        (at("input_bits", value="8192"), "'input_bits' must be a number, not '8192'"),
        (at("input_bits", value=0), "'input_bits' must be finite and > 0, not 0"),
        (at("input_bits", value=-1), "'input_bits' must be finite and > 0, not -1"),
        (at("cuts", 0, "front_time_s", value=False), "'cuts[0].front_time_s' must be a number, not false"),
        (at("cuts", 0, "front_time_s", value=-0.1), "'cuts[0].front_time_s' must be finite and >= 0"),
        (at("cuts", 0, "front_power_w", value=-2), "'cuts[0].front_power_w' must be finite and >= 0"),
        (at("cuts", 0, "compression_rate", value=0), "'cuts[0].compression_rate' must be finite and > 0"),
        (at("cuts", 0, "compression_rate", value=1e9), "cuts[0] would send 3.7632e-05 bit"),
        (at("cuts", 0, "compression_rate", value=5e-324), "cuts[0] would send inf bit"),
        (at("cuts", 0, "bits_per_element", value=0), "'cuts[0].bits_per_element' must be finite and > 0"),
        (
            at("cuts", 0, "feature_shape", value=[6, 14]),
            "'cuts[0].feature_shape' must be three whole numbers",
        ),
        (
            at("cuts", 0, "feature_shape", value=[6, 14, 0]),
            "'cuts[0].feature_shape' must be three whole numbers",
        ),
        (at("cuts", 0, "feature_shape", value=[6, 14, 14.5]), "not [6, 14, 14.5]"),
        (at("cuts", 0, "feature_shape", value=[True, 14, 14]), "'cuts[0].feature_shape' must be three"),
        (at("local", "time_s", value=0), "'local.time_s' must be finite and > 0, not 0"),
        (at("local", "power_w", value=-1), "'local.power_w' must be finite and >= 0, not -1"),
        (at("observation_time_s", value=0), "'observation_time_s' must be finite and > 0"),
        (at("observation_time_s", value=None), "'observation_time_s' must be a number, not null"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_field_is_named_with_what_it_must_be(tmp_path: Path, content: object, said: str) -> None:
    path = user_file(tmp_path, content)
    message = error_of(load_profile, path)
    assert message.startswith(f"profile {str(path)!r}: ")
    assert said in message


def test_number_too_large_for_a_float_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps(USER_FILE).replace("0.0025", "1e999"))
    assert "'local.time_s' must be finite and > 0, not inf" in error_of(load_profile, path)


def load_or_value_error(path: Path) -> None:
    """Fails on what a caller must not see: an error that is no plain `ValueError`, or a senseless profile."""
    try:
        profile = load_profile(path)
    except ValueError as error:
        assert type(error) is ValueError
        assert str(error).startswith(f"profile {str(path)!r}: ")
        return
    assert len(profile.front_time) == len(profile.front_power) == profile.num_points >= 2
    assert all(bits >= 1 for bits in profile.bits[:-1]) and profile.bits[-1] == 0
    assert all(0 <= x < float("inf") for x in (*profile.bits, *profile.front_time, *profile.front_power))
    assert 0 < profile.observation_time < float("inf")
    hash(profile)


ONE_FOLDER = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALID = json.dumps(USER_FILE | {"observation_time_s": 0.5}).encode()

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(min_value=10**300), st.floats(), st.text(max_size=5)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths_into(content: Any) -> list[tuple[str | int, ...]]:
    """Every place in a JSON value, as the keys that lead there."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list):
        inner = list(enumerate(content))
    return [path for key, value in inner for path in ((key,), *((key, *rest) for rest in paths_into(value)))]


@ONE_FOLDER
@given(data=st.binary(max_size=200))
@example(data=b"\xef\xbb\xbf")
@example(data=b'"\\ud800"')
@example(data=b'{"\\ud800": 1}')
def test_any_bytes_give_a_value_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "fuzz.json"
    path.write_bytes(data)
    load_or_value_error(path)


@ONE_FOLDER
@given(
    start=st.integers(0, len(VALID)),
    length=st.integers(0, 20) | st.just(len(VALID)),
    patch=st.binary(max_size=6) | st.sampled_from([b"1e999", b"-", b"NaN", b"null", b"[[[", b"9" * 5000]),
)
def test_corrupted_file_loads_sanely_or_gives_a_value_error(
    tmp_path: Path, start: int, length: int, patch: bytes
) -> None:
    path = tmp_path / "fuzz.json"
    path.write_bytes(VALID[:start] + patch + VALID[start + length :])
    load_or_value_error(path)


@ONE_FOLDER
@given(keys=st.sampled_from(paths_into(USER_FILE)), value=json_values)
def test_any_value_in_any_field_loads_sanely_or_gives_a_value_error(
    tmp_path: Path, keys: tuple[str | int, ...], value: object
) -> None:
    load_or_value_error(user_file(tmp_path, at(*keys, value=value), "fuzz.json"))
