"""The codec of Hao et al.: its equations, what it sends, its training, its files, and profiles made with it."""

import csv
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import mec_jax
from algos.cli.profile import Profile as Command
from mec_jax.profiles import load_profile
from mec_jax.split import codec_training
from mec_jax.split.autoencoder import (
    Autoencoder,
    CodecAbout,
    Packed,
    TrainedCodec,
    channels_at_rate,
    codecs_for,
    load_codec,
    save_codec,
    with_codec,
)
from mec_jax.split.codec import MAX_BITS, pack, unpack
from mec_jax.split.codec_training import CodecTraining, largest_rate, train_codec
from mec_jax.split.graph import CutGraph
from mec_jax.split.images import Images, load_images
from mec_jax.split.training import accuracy, batches, fit
from tests.errors import error_of
from tests.tolerance import close

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SIDE = 8
CLASSIFIER = """
from torch import nn

def small():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.BatchNorm2d(16),
        nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 10),
    )

def fully():
    return small()[:5]
"""


def small() -> nn.Module:
    names: dict[str, Any] = {}
    exec(CLASSIFIER, names)
    return names["small"]()


@pytest.fixture(scope="module")
def digits() -> Images:
    return load_images("digits", SIDE)


@pytest.fixture(scope="module")
def network(digits: Images) -> nn.Module:
    """Right for nine of ten digits."""
    torch.manual_seed(0)
    module = small()
    fit(module, batches(digits, 120, 64, torch.Generator().manual_seed(0)), 120, 5e-3)
    assert accuracy(module, digits, digits.test) > 0.88
    return module


@pytest.fixture(scope="module")
def trained(network: nn.Module, digits: Images) -> TrainedCodec:
    return train_codec(network, "small", "1", digits, 4, CodecTraining(epochs=4, tuning_epochs=2))


def codec(channels: int = 6, sent: int = 3, bits: int = 8, biased: bool = False, seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    result = Autoencoder(channels, sent, bits, biased)
    result.collect([result_features(channels)])
    return result


def result_features(channels: int = 6, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, channels, 5, 4, generator=torch.Generator().manual_seed(1))


# Bits


@given(st.integers(1, MAX_BITS), st.lists(st.integers(0, 2**MAX_BITS - 1), max_size=40))
def test_codes_of_any_width_come_back_from_as_few_bytes_as_hold_them(bits: int, numbers: list[int]) -> None:
    codes = torch.tensor([number % 2**bits for number in numbers], dtype=torch.int32)
    payload = pack(codes, bits)
    assert payload.dtype == torch.uint8 and len(payload) == -(-len(numbers) * bits // 8)
    assert torch.equal(unpack(payload, bits, len(numbers)).to(torch.int32), codes)
    # The bits are those of the binary numbers, one after the other.
    digits = "".join(f"{number:0{bits}b}" for number in codes.tolist())
    assert bytes(payload.tolist()) == bytes(int(digits[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(digits), 8))


def test_what_was_packed_otherwise_is_refused() -> None:
    payload = pack(torch.arange(7), 3)
    assert "is not what 7 codes of 4 bit are packed into: 4 bytes" in error_of(unpack, payload, 4, 7)
    assert "is not what 7 codes of 3 bit" in error_of(unpack, payload.int(), 3, 7)
    assert "bits is 17" in error_of(pack, torch.arange(7), 17)


# Equations


@pytest.mark.parametrize("bits", [1, 2, 5, 8, 11])
def test_encoding_is_eq_1_and_decoding_eq_2(bits: int) -> None:
    module, feature = codec(bits=bits), result_features()
    packed = module.encode(feature)
    codes = unpack(packed.payload, bits, 2 * 3 * 5 * 4).reshape(packed.shape).numpy().astype(float)
    weight, bias = (part.detach().double().numpy() for part in (module.encoder.weight[..., 0, 0], module.encoder.bias))
    x = feature.double().numpy()
    reduced = np.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]
    low, high = float(module.low), float(module.high)
    scaled = (2**bits - 1) * (reduced - low) / (high - low)
    # A code is a rounded number that may be off by what its sum of 7 terms, the range and the scaling round.
    magnitudes = np.einsum("oc,bchw->bohw", np.abs(weight), np.abs(x)) + np.abs(bias)[:, None, None]
    error = (2**bits - 1) / (high - low) * 2**-24 * (7 * magnitudes + 4 * (abs(low) + abs(high)))
    assert (np.abs(codes - np.clip(scaled, 0, 2**bits - 1)) <= 0.5 + error).all()
    assert (codes.min(), codes.max()) == (0, 2**bits - 1)

    recovered = module.decode(packed)
    numbers = codes * (high - low) / (2**bits - 1) + low
    weight, bias = (part.detach().double().numpy() for part in (module.decoder.weight[..., 0, 0], module.decoder.bias))
    expected = np.einsum("co,bohw->bchw", weight, numbers) + bias[:, None, None]
    magnitudes = np.einsum("co,bohw->bchw", np.abs(weight), np.abs(numbers) + abs(low)) + np.abs(bias)[:, None, None]
    close(recovered, expected, magnitudes, 4 + 4)  # three products and the bias; the step, its product, the offset


def test_rounding_is_unbiased_and_the_authors_half_a_step_too_low() -> None:
    errors = {}
    for biased in (False, True):
        module = Autoencoder(1, 1, 4, biased)
        with torch.no_grad():
            for layer in (module.encoder, module.decoder):
                layer.weight.fill_(1)
                layer.bias.zero_()
        inside = torch.linspace(-0.9, 0.9, 10_001)[None, None, None]
        errors[biased] = float((module.decode(module.encode(inside)) - inside).mean() / (2 / 15))
    # Means over whole steps, but for one step's share at the ends.
    assert abs(errors[False]) < 0.01 and errors[True] == pytest.approx(-0.5, abs=0.01)


def test_a_range_of_one_number_is_kept() -> None:
    module = Autoencoder(2, 1)
    nn.init.zeros_(module.encoder.weight)
    module.collect([torch.ones(1, 2, 3, 3)])
    assert module.low == module.high == module.encoder.bias
    assert torch.isfinite(module(torch.ones(1, 2, 3, 3))).all()


def test_what_is_outside_the_collected_range_is_clipped() -> None:
    module, feature = codec(), result_features()
    far = module.encode(1000 * feature)
    assert set(far.payload.tolist()) <= {0, 255} | set(range(256)) and {0, 255} <= set(far.payload.tolist())
    assert torch.isfinite(module.decode(far)).all()


@given(st.integers(1, 40), st.data())
def test_the_rate_is_eq_3_and_what_is_sent(channels: int, data: st.DataObject) -> None:
    sent, bits = data.draw(st.integers(1, channels)), data.draw(st.integers(1, MAX_BITS))
    module = Autoencoder(channels, sent, bits)
    assert module.rate == pytest.approx(channels * 32 / (sent * bits))
    packed = module.encode(torch.zeros(1, channels, 8, 8))  # 64 elements a channel: whole bytes
    assert packed.bits == 64 * sent * bits and packed.bits * module.rate == pytest.approx(32 * 64 * channels)
    assert channels_at_rate(channels, 32 * channels / (sent * 8)) == sent


def test_a_rate_without_whole_channels_is_refused() -> None:
    assert error_of(channels_at_rate, 64, 100).startswith(
        "rate 100 makes 2.56 of 64 channels with 8 bits: give 256 div"
    )
    for rate in (512, 2, 0, -4):
        assert "of 64 channels with 8 bits" in error_of(channels_at_rate, 64, rate)


def test_gradients_pass_the_rounding_in_training_alone() -> None:
    module, feature = codec(bits=2), result_features()
    module.train()
    module(feature).square().sum().backward()
    assert module.encoder.weight.grad is not None and module.encoder.weight.grad.abs().sum() > 0
    with torch.no_grad():
        trains, tests = module(feature), module.eval()(feature)
    # The batch's range is the one collected from it; the path through the gradient's rounding adds a sum of two terms.
    weight = module.decoder.weight[..., 0, 0].detach().double().abs().numpy()
    span = max(abs(float(module.low)), abs(float(module.high)))
    magnitudes = np.broadcast_to((weight.sum(1) * 3 * span + 1)[:, None, None], trains.shape)
    close(trains, tests.double().numpy(), magnitudes, 2 * 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0, 1), "channels is 0"),
        ((4, 5), "the number of channels sent is 5: it must be a whole number of at least 1 and at most 4"),
        ((4, 2, 17), "bits is 17"),
    ],
)
def test_a_codec_that_cannot_be_is_refused(arguments: tuple[int, ...], said: str) -> None:
    assert said in error_of(Autoencoder, *arguments)


def test_a_feature_or_a_message_of_another_codec_is_refused() -> None:
    module = codec()
    assert "does not fit a codec for [image, 6, height, width]" in error_of(module.encode, torch.zeros(1, 5, 4, 4))
    assert "does not fit a codec" in error_of(module.encode, torch.zeros(6, 4, 4))
    packed = module.encode(result_features())
    assert "do not have 3 channels" in error_of(module.decode, Packed(packed.payload, (2, 2, 5, 4)))
    assert "is not what 150 codes of 8 bit" in error_of(module.decode, Packed(packed.payload, (2, 3, 5, 5)))


# Split and whole


def test_split_with_codec_is_the_network_with_the_codec_inserted(network: nn.Module, trained: TrainedCodec) -> None:
    module = trained.tuned(network)
    x = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    graph = CutGraph(module, x)
    prefix, suffix = graph.split(trained.about.cut)
    with torch.inference_mode():
        split = suffix(trained.codec.decode(trained.codec.encode(prefix(x))))
        inserted = with_codec(graph, trained.about.cut, trained.codec)(x)
        # Inserted by hand into the network itself: no graph takes part.
        hook = module.get_submodule("1").register_forward_hook(lambda layer, inputs, output: trained.codec(output))
        by_hand = module(x)
        hook.remove()
        without = module(x)
    # The same operations on the same numbers: nothing rounds otherwise.
    assert torch.equal(split, by_hand) and torch.equal(inserted, by_hand)
    assert not torch.allclose(without, by_hand, rtol=1e-2)
    with torch.inference_mode():
        exact = with_codec(CutGraph(module.double(), x.double()), "1", trained.codec.double())(x.double())
        trained.codec.float()
    # float64 takes other codes at most where a number falls between two: a code more or less, through all that follows.
    assert (split - exact).abs().max() < 0.05 * exact.abs().max()


# Training


def test_the_first_stage_leaves_the_network_and_the_second_fine_tunes_a_copy(
    network: nn.Module, digits: Images, trained: TrainedCodec
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    frozen = train_codec(network, "small", "1", digits, 4, CodecTraining(epochs=4, tuning_epochs=0))
    assert not frozen.network and frozen.about.accuracy == frozen.about.accuracy_frozen
    assert frozen.about.accuracy_frozen == trained.about.accuracy_frozen  # of the same seed
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert not network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert any(not torch.equal(before[name], tensor) for name, tensor in trained.network.items())
    assert trained.about.accuracy > trained.about.accuracy_without - 0.05
    rough = train_codec(network, "small", "1", digits, 4, CodecTraining(epochs=4, tuning_epochs=2, bfloat16=True))
    assert rough.about.accuracy > rough.about.accuracy_without - 0.05
    assert all(tensor.dtype != torch.bfloat16 for tensor in rough.network.values())
    untrained = Autoencoder(16, 4)
    without_training = with_codec(CutGraph(network, digits.inputs(digits.train.images[:1])), "1", untrained)
    assert accuracy(without_training, digits, digits.test) < frozen.about.accuracy_frozen - 0.2
    tuned = with_codec(CutGraph(trained.tuned(network), digits.inputs(digits.train.images[:1])), "1", trained.codec)
    assert accuracy(tuned, digits, digits.test) == trained.about.accuracy


def test_features_are_the_same_kept_or_computed_anew(
    network: nn.Module, digits: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CodecTraining(epochs=2, tuning_epochs=0)
    few = digits.fewer(200)
    kept = train_codec(network, "small", "4", few, 2, settings)
    monkeypatch.setattr(codec_training, "CACHE_BYTES", 0)
    anew = train_codec(network, "small", "4", few, 2, settings)
    # The batches of the prefix differ, and with them the order of its sums; some steps of Adam, which scales small
    # gradients up, carry that on.
    for one, other in zip(kept.codec.parameters(), anew.codec.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)


def test_the_cross_entropy_and_the_distance_count_as_their_settings_say(network: nn.Module, digits: Images) -> None:
    few = digits.fewer(300)
    base = CodecTraining(epochs=1, tuning_epochs=0)
    settings = [base, replace(base, xi=0.0), replace(base, distance="norm"), replace(base, biased=True)]
    weights = [train_codec(network, "small", "1", few, 4, each, base_accuracy=0.5).codec for each in settings]
    distinct = {tuple(each.encoder.weight.detach().flatten().tolist()) for each in weights}
    assert len(distinct) == len(settings)


@pytest.mark.parametrize(
    ("cut", "settings", "said"),
    [
        ("5", {}, "what crosses at '5' is [256]: cut where there are channels in a plane"),
        ("7", {}, "there is no layer '7' to cut after"),
        ("1", {"epochs": 0}, "epochs is 0"),
        ("1", {"rate": float("nan")}, "rate is nan: it must be a finite number"),
        ("1", {"distance": "nrm"}, "unknown distance 'nrm': did you mean 'norm'?"),
        ("1", {"bits": 20}, "bits is 20"),
    ],
)
def test_training_that_cannot_be_is_refused(
    network: nn.Module, digits: Images, cut: str, settings: dict[str, Any], said: str
) -> None:
    assert said in error_of(lambda: train_codec(network, "small", cut, digits, 4, CodecTraining(**settings)))


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_the_search_finds_the_fewest_channels_within_the_budget(channels: int, least: int, data: st.DataObject) -> None:
    start = data.draw(st.integers(1, channels))
    tried = []

    def lost(count: int) -> float:
        tried.append(count)
        return 0.02 if count >= least else 0.021

    found = largest_rate(lost, channels, start)
    halved = [channels >> i for i in range(channels.bit_length())]
    enough = [count for count in halved if count >= least]
    assert found.best == (min(enough) if enough else None)
    assert list(found.tried) == tried and set(tried) <= set(halved) and len(set(tried)) == len(tried)
    assert tried[0] == max(count for count in halved if count <= start)
    if enough and min(enough) > 1:
        assert min(enough) // 2 in tried, "that fewer are too few has been tried"


# Files


def test_a_file_gives_back_what_was_trained(trained: TrainedCodec, network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    save_codec(path, trained)
    loaded = load_codec(path)
    assert loaded.about == trained.about
    feature = torch.rand(1, 16, SIDE, SIDE)
    assert torch.equal(loaded.codec.encode(feature).payload, trained.codec.encode(feature).payload)
    x = torch.rand(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        assert torch.equal(loaded.tuned(network)(x), trained.tuned(network)(x))
        assert not torch.equal(loaded.tuned(network)(x), network(x))
    assert [entry.name for entry in tmp_path.iterdir()] == ["codec.safetensors"]
    about = loaded.about
    assert (about.cut, about.feature_shape, about.sent, about.bits, about.rate) == ("1", (16, SIDE, SIDE), 4, 8, 16)
    assert "epochs 4" in dict(about.source)["settings"] and about.data_set == "digits"


def test_a_damaged_file_is_refused_wherever_the_damage_is(trained: TrainedCodec, tmp_path: Path) -> None:
    path = tmp_path / "codec.safetensors"
    save_codec(path, trained)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [content[: rng.integers(len(content))] for _ in range(30)]
    for place in rng.integers(len(content), size=120):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        damaged.append(bytes(flipped))
    for each in (*damaged, b"", content + b"x"):
        path.write_bytes(each)
        assert repr(str(path)) in error_of(load_codec, path)


def forged(trained: TrainedCodec, path: Path, about: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """A file with another content and the right digest."""
    state = {**trained.codec.state_dict(), **tensors}
    text = json.dumps(about)
    save_file(state, path, {"mec_jax.codec": text, "sha256": autoencoder_digest(text, state)})


def autoencoder_digest(text: str, tensors: Mapping[str, torch.Tensor]) -> str:
    from mec_jax.split import autoencoder

    return autoencoder._sha256(text, tensors)


@pytest.mark.parametrize(
    ("change", "tensors", "said"),
    [
        ({"sent": 5}, {}, "field 'rate' is 16, which its channels and bits do not make"),
        ({"sent": 5, "rate": 12.8}, {}, "its weights are not those of 5 of 16 channels"),
        ({"feature_shape": [16, 8]}, {}, "field 'feature_shape' must be a list of 3 numbers: C, H, W"),
        ({"bits": "8"}, {}, "field 'bits' must be a number, not '8'"),
        ({"bits": 32, "rate": 4.0}, {}, "bits is 32"),
        ({"cut": ""}, {}, "field 'cut' must be a text"),
        ({"schema": 2}, {}, "field 'schema' is 2: this version reads 1"),
        ({"accuracy": 2}, {}, "an accuracy is above 1"),
        ({"acuracy": 1}, {}, "unknown field 'acuracy', did you mean 'accuracy'?"),
        ({"feature_shape": [4e9, 8, 8], "rate": 4e9}, {}, "its weights are not those of 4 of 4000000000 channels"),
        ({}, {"low": torch.zeros(3)}, "its weights are not those of 4 of 16 channels"),
        ({}, {"low": torch.tensor(float("nan"))}, "its weights or its range are not finite"),
        ({}, {"low": torch.tensor(1e9)}, "its weights or its range are not finite"),
    ],
)
def test_a_file_that_does_not_hold_what_it_says_is_refused(
    trained: TrainedCodec, tmp_path: Path, change: dict[str, Any], tensors: dict[str, Any], said: str
) -> None:
    path = tmp_path / "codec.safetensors"
    save_codec(path, trained)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    about = json.loads(header["mec_jax.codec"])
    forged(trained, path, about, {})
    assert load_codec(path).about == trained.about, "the forger is good"
    forged(trained, path, {**about, **change}, tensors)
    assert said in error_of(load_codec, path)


def test_what_is_no_codec_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(2)}, path)
    assert "it is damaged or no codec's" in error_of(load_codec, path)
    assert "No such file" in error_of(load_codec, tmp_path / "none.safetensors")
    assert "Is a directory" in error_of(load_codec, tmp_path)
    assert load_file(path)["x"].shape == (2,)


def test_a_codec_is_written_whole_or_not_at_all(trained: TrainedCodec, tmp_path: Path) -> None:
    assert "its name must end in .safetensors" in error_of(save_codec, tmp_path / "codec.json", trained)
    assert not list(tmp_path.iterdir())


def test_a_codec_for_another_network_or_cut_is_refused(trained: TrainedCodec, network: nn.Module) -> None:
    graph = CutGraph(network, torch.zeros(1, 3, SIDE, SIDE))
    assert codecs_for(graph, [trained]) == {2: trained}
    assert "there are two codecs for the cut '1'" in error_of(codecs_for, graph, [trained, trained])
    wide = CutGraph(nn.Sequential(*list(network)[:5]).eval(), torch.zeros(1, 3, 2 * SIDE, SIDE))
    assert (
        "the codec for '1' of small takes features 16 x 8 x 8, here they are 16 x 16 x 8: give the network and the "
        "image size" in error_of(codecs_for, wide, [trained])
    )
    other = CutGraph(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval(), torch.zeros(1, 3, 4, 4))
    elsewhere = TrainedCodec(trained.codec, replace(trained.about, cut="layer9"), {})
    assert "the codec for 'layer9' of small does not fit: there is no layer 'layer9'" in error_of(
        codecs_for, other, [elsewhere]
    )
    assert "fine-tuned with another network than this one" in error_of(trained.tuned, nn.Linear(3, 2))


# Profiles


@pytest.fixture
def files(trained: TrainedCodec, tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CLASSIFIER)
    save_codec(tmp_path / "codec.safetensors", trained)
    return tmp_path


def command(folder: Path, model: str = "small", **options: Any) -> Command:
    defaults: dict[str, Any] = {
        "image": (3, SIDE, SIDE),
        "repeats": 2,
        "warm_up": 0,
        "out": folder / "measured.json",
        "codec": (folder / "codec.safetensors",),
    }
    return Command(f"{folder / 'nets.py'}:{model}", **(defaults | options))


def test_a_profile_promises_what_its_codec_sends(files: Path, trained: TrainedCodec, network: nn.Module) -> None:
    command(files).run()
    profile = load_profile(files / "measured.json")
    assert profile.points == ("input", "1", "local")
    graph = CutGraph(network, torch.zeros(1, 3, SIDE, SIDE))
    prefix, _ = graph.split("1")
    sent = trained.codec.encode(prefix(torch.rand(1, 3, SIDE, SIDE)))
    assert sent.bits == profile.bits[1] == 4 * 64 * 8
    content = json.loads((files / "measured.json").read_text())
    assert (content["cuts"][0]["bits_per_element"], content["cuts"][0]["compression_rate"]) == (32, trained.about.rate)
    source = dict(profile.source)
    assert "4 of 16 channels, 8 bit, for small: accuracy" in source["codec at 1"] and "digits" in source["codec at 1"]
    assert "what a trained codec packs" in source["bits_per_element"]
    with (files / "measured.csv").open() as file:
        first, *_ = csv.DictReader(file)
    assert float(first["bits"]) == sent.bits and float(first["encoder_time_s"]) > 0
    env, _ = mec_jax.make("MultiUEOffloading-v0", num_ues=1, num_channels=1, profile=str(files / "measured.json"))
    assert env.profiles[0].bits == profile.bits


def test_other_cuts_beside_a_codecs_send_8_bits_an_element(files: Path) -> None:
    command(files, cuts=("1", "4")).run()
    profile = load_profile(files / "measured.json")
    assert profile.bits[1:3] == (4 * 64 * 8, 8 * 256 + 64)


def test_bits_are_counted_in_whole_bytes(network: nn.Module, digits: Images, files: Path) -> None:
    settings = CodecTraining(epochs=1, tuning_epochs=0, bits=3)
    save_codec(files / "codec.safetensors", train_codec(network, "small", "4", digits.fewer(50), 1, settings))
    command(files).run()
    assert load_profile(files / "measured.json").bits[1] == 48  # 16 elements of 3 bit


def test_a_codec_that_the_command_cannot_take_is_refused(files: Path, trained: TrainedCodec) -> None:
    before = sorted(files.iterdir())
    two = (files / "codec.safetensors",) * 2
    larger = command(files, model="fully", image=(3, 16, 16))
    assert "here they are 16 x 16 x 16: give the network" in error_of(larger.run)
    assert "there is a codec for '1', which is not among the cuts" in error_of(command(files, cuts=("4",)).run)
    assert "there are two codecs for the cut '1'" in error_of(command(files, codec=two).run)
    assert "can't read codec file" in error_of(command(files, codec=(files / "none.safetensors",)).run)
    assert sorted(files.iterdir()) == before, "it leaves nothing behind"


def test_about_says_what_a_codec_costs(trained: TrainedCodec) -> None:
    assert isinstance(trained.about, CodecAbout)
    assert trained.loss == trained.about.accuracy_without - trained.about.accuracy
