"""Codecs that are trained with their network, and the networks that they make."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mec_jax.physics.compression import Strategy, canonical, costs
from mec_jax.profiles.compression import NO_CODEC, SETTINGS, compressible
from mec_jax.split.bottleneck import Bottleneck, white_noise
from mec_jax.split.compress import Recipe, compress
from mec_jax.split.images import Images, load_images
from mec_jax.split.networks import small_image_network
from mec_jax.split.training import accuracy, batches, fit
from tests.errors import error_of
from tests.tolerance import ROUNDING

pytestmark = pytest.mark.slow

ALEXNET = compressible("alexnet")
UNPRUNED = (0.0,) * len(ALEXNET.units)
PACKED = (0.25, 3.0, 2.0, 4.0, 0.05, 2.0, 0.25, 4.0)
SHORT = Recipe(rate=2e-4, finetune=1, joint=2, batch=8, start=64)


@pytest.fixture(scope="module")
def images() -> Images:
    whole = load_images("digits")
    train, test = (part.some(slice(128)) for part in (whole.train, whole.test))
    return replace(whole, train=train, test=test)


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return small_image_network("alexnet", 10, 0)


def features(channels: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(channels, channels, generator=generator)
    drawn = torch.randn(32, channels, side, side, generator=generator)
    return torch.einsum("nchw,dc->ndhw", drawn, mix).relu()


def test_without_a_codec_a_feature_arrives_as_it_is() -> None:
    for feature in (features(5, 4), features(6, 1).flatten(1)):
        codec = Bottleneck(feature, NO_CODEC)
        assert torch.equal(codec(feature), feature) and not list(codec.parameters())


@pytest.mark.parametrize(("kernel", "bits"), [(1, 4), (1, 8), (3, 4), (3, 8)])
def test_all_channels_start_within_half_a_step_of_each_of_their_codes(kernel: int, bits: int) -> None:
    """All principal components turn back into the feature: what is left is the quantiser's."""
    feature = features(6, 5)
    codec = Bottleneck(feature, (1.0, kernel, 1.0, bits, *NO_CODEC[4:]))
    with torch.no_grad():
        codes = codec.encoder(feature)
        step = (codec.high - codec.low) / (2**bits - 1)
        # A code is a sum of 6 products and a bias, scaled by its range.
        slack = 16 * ROUNDING * codes.abs().max()
        assert ((codec.quantised(codes) - codes).abs() <= step / 2 + slack).all()
        # Rows of an orthogonal matrix: the squared errors of codes and of features are the same.
        error = (codec(feature) - feature).pow(2).sum(1)
        assert (error <= (step / 2 + slack).pow(2).sum() * (1 + 1e-3)).all()


@given(st.integers(0, 10**6), st.sampled_from(ALEXNET.cuts[1:-1]))
def test_what_is_sent_is_what_the_calculator_says(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    codec = tuple(
        float(rng.choice(each.choices) if each.choices else np.exp(rng.uniform(*np.log((each.least, each.most)))))
        for each in SETTINGS
    )
    shape = ALEXNET.layers[cut - 1].output_shape
    feature = torch.randn(3, *shape[:1], *(min(side, 9) for side in shape[1:]))
    with torch.no_grad():
        sent = Bottleneck(feature, codec).encoder(feature)
    whole = torch.zeros(*shape[1:]).numel() if len(shape) > 1 else 1
    sides = [-(-side // int(codec[2])) for side in shape[1:]]
    assert list(sent.shape[2:]) == [-(-min(side, 9) // int(codec[2])) for side in shape[1:]]
    bits = sent.shape[1] * int(np.prod(sides)) * (codec[3] if len(shape) > 1 else codec[7])
    assert bits == ALEXNET.sent_bits(UNPRUNED, cut, codec) and whole >= np.prod(sides)


@pytest.mark.parametrize(
    ("unit", "kept", "after", "flat"), [(2, 300, "features.6", False), (5, 1200, "classifier.1", True)]
)
def test_a_strategy_in_its_one_form_makes_the_codec_that_it_says(unit: int, kept: int, after: str, flat: bool) -> None:
    """The least share of so few channels is rounded down to one of them, which is a smaller share."""
    of, layers = costs(ALEXNET), ALEXNET.layers
    cut = next(place for place, layer in enumerate(layers, start=1) if layer.name == after)
    channels, least = ALEXNET.units[unit].channels, [each.least for each in SETTINGS]
    sparsity = jnp.zeros(len(ALEXNET.units)).at[unit].set(1 - kept / channels)
    form = canonical(of, Strategy(sparsity, jnp.array(ALEXNET.cuts.index(cut)), jnp.array(least)))
    codec = np.asarray(form.codec, float).tolist()
    share = codec[4] if flat else codec[0]
    assert share == pytest.approx(1 / kept, rel=1e-6) and share < least[4 if flat else 0]
    feature = torch.randn(2, kept, *(() if flat else (4, 4)))
    assert Bottleneck(feature, codec).encoder(feature).shape[1] == 1


def test_gradients_pass_the_quantiser() -> None:
    feature = features(6, 4)
    codec = Bottleneck(feature, (0.5, 1.0, 1.0, 2.0, *NO_CODEC[4:]))
    (codec(feature) - feature).pow(2).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in codec.parameters())


@pytest.mark.parametrize("snr", [0.0, 10.0, 30.0])
def test_noise_has_the_power_that_the_snr_leaves_it(snr: float) -> None:
    torch.manual_seed(0)
    signal = 3 * torch.randn(4, 8, 50, 50) + 7
    ratio = signal.flatten(1).var(1) / white_noise(signal, snr).flatten(1).var(1)
    # Two variances of 20 000 normal numbers each: a relative standard error of 1 %, of which 5.
    assert ratio.numpy() == pytest.approx(10 ** (snr / 10), rel=0.07)


def test_settings_out_of_range_are_refused() -> None:
    feature = features(6, 4)
    assert "give 8" in error_of(Bottleneck, feature, NO_CODEC[:7])
    for place, wrong in ((0, 0.0), (0, 2.0), (1, 2.0), (3, 9.0), (7, 16.0)):
        codec = [*NO_CODEC[:place], wrong, *NO_CODEC[place + 1 :]]
        assert f"{SETTINGS[place].name} is {wrong}" in error_of(Bottleneck, feature, codec)


@pytest.mark.parametrize("cut", [0, 3, 15, 17, 21])  # input, a pooling, dropout of an image, a flat feature, the end
def test_a_compressed_network_trains_and_its_halves_make_it(network: nn.Module, images: Images, cut: int) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    sparsity = [0.9] * len(ALEXNET.units)  # few weights are left to train
    found, again = (compress(network, ALEXNET, sparsity, cut, PACKED, images, SHORT, seed) for seed in (3, 3))
    x = images.inputs(images.test.images[:4])
    with torch.inference_mode():
        logits = found(x)
        assert logits.shape == (4, 10) and torch.equal(logits, again(x))  # the same sums by the same threads
        sent = found.prefix(x)
        assert torch.equal(found.suffix(sent if found.codec is None else found.codec(sent)), logits)
    assert (found.codec is None) == (cut in (0, 21)) and not found.training
    assert all(value.is_contiguous() for value in found.state_dict().values())  # safetensors takes no other
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert "can't be cut after 22 layers" in error_of(
        compress, network, ALEXNET, sparsity, 22, PACKED, images, SHORT, 0
    )


def test_settings_out_of_range_are_refused_before_anything_is_trained(
    network: nn.Module, images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("mec_jax.split.compress.prune")
    wrong = (*NO_CODEC[:3], 9.0, *NO_CODEC[4:])
    assert "conv_bits is 9" in error_of(compress, network, ALEXNET, UNPRUNED, 3, wrong, images, SHORT, 0)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_network_learns_the_digits(images: Images, bfloat16: bool) -> None:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Conv2d(3, 8, 5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10))
    before = accuracy(small, images, images.test)
    fit(small, batches(images, 60, 32, torch.Generator().manual_seed(0)), 60, 1e-2, bfloat16=bfloat16)
    assert before < 0.3 and accuracy(small, images, images.test) > 0.7
    assert all(parameter.dtype == torch.float32 for parameter in small.parameters())
