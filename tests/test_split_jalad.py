"""JALAD: real Huffman codes of real features, as long as they must be, that come back as they were."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mec_jax.split import codec, jalad
from mec_jax.split.graph import CutGraph
from tests.errors import error_of

pytestmark = pytest.mark.usefixtures("one_thread")

TABLE_BYTES = 350
"""Of a block's header at most: 286 + 30 code lengths of up to 7 + 7 bits, and some counts, are less in practice."""


@given(st.binary(max_size=3000))
def test_codes_come_back_as_they_were(content: bytes) -> None:
    codes = torch.tensor(list(content), dtype=torch.uint8)
    payload = jalad.compress(codes)
    assert torch.equal(jalad.decompress(payload, codes.shape), codes)
    # What does not get shorter is stored: 5 bytes a block of up to 65 535, and the end.
    assert len(payload) <= len(content) + 10


@pytest.mark.parametrize(
    ("shares", "bits"),
    [
        ([1.0], 1.0),  # a Huffman code has at least one bit
        ([1 / 2, 1 / 4, 1 / 8, 1 / 8], 1.75),  # powers of two: a Huffman code is as short as the entropy
        ([0.9, 0.1], 1.0),  # no matches are sought, and no bit is shared: the entropy is 0.47
        ([1 / 256] * 256, 8.0),
    ],
)
def test_a_code_is_as_long_as_a_huffman_code(shares: list[float], bits: float) -> None:
    count = 100_000
    codes = np.repeat(np.arange(len(shares)), (np.array(shares) * count).astype(int)).astype(np.uint8)
    np.random.default_rng(0).shuffle(codes)
    found = 8 * len(jalad.compress(torch.from_numpy(codes)))
    blocks = -(-len(codes) // 32_767)
    # Each block has its own shares: 1 % more or less.
    assert bits * len(codes) * 0.99 <= found <= bits * len(codes) * 1.01 + 8 * TABLE_BYTES * blocks


def test_a_feature_is_as_near_as_the_quantisation_alone_and_shorter() -> None:
    feature = torch.randn(1, 8, 20, 20, generator=torch.Generator().manual_seed(0)).relu()
    coded, quantised = jalad.encode(feature), codec.encode(feature)
    assert torch.equal(jalad.decode(coded), codec.decode(quantised))
    assert coded.bits == 8 * len(coded.payload) + 64
    assert coded.bits < 0.7 * quantised.bits, "half of it is zeros"
    assert jalad.decode(coded, torch.float64).dtype == torch.float64


def test_damaged_codes_are_refused_or_others() -> None:
    coded = jalad.encode(torch.rand(1, 4, 16, 16))
    assert "is not 1024 elements" in error_of(jalad.decode, coded._replace(payload=coded.payload[:-9]))
    assert "is not 1025 elements" in error_of(jalad.decode, coded._replace(shape=(1, 1025)))
    assert "is not 1023 elements" in error_of(jalad.decode, coded._replace(shape=(1, 1023)))
    assert "is no Huffman coded feature" in error_of(jalad.decode, coded._replace(payload=b"\xff" * 50))
    assert "is not 1024 elements" in error_of(jalad.decode, coded._replace(payload=coded.payload + b"x"))


def test_a_feature_that_is_not_finite_is_refused() -> None:
    assert "holds a NaN" in error_of(jalad.encode, torch.tensor([1.0, float("nan")]))


def test_costs_are_measured_cut_by_cut() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(512, 4)).eval()
    inputs = torch.randn(6, 3, 8, 8)
    graph = CutGraph(module, inputs[:1])
    dense, sparse = jalad.measure_jalad(graph, inputs, ["0", "1"], repeats=2)
    assert (dense.cut, sparse.cut, dense.elements, sparse.elements) == ("0", "1", 512, 512)
    prefix = graph.segment(0, "1")
    with torch.inference_mode():
        sizes = [jalad.encode(prefix(image.clone())).bits for image in inputs.split(1)]
    assert sparse.bits == np.mean(sizes) and sparse.bits_spread == np.std(sizes)
    assert sparse.bits < dense.bits and sparse.entropy < dense.entropy and 0.3 < sparse.commonest < 0.7
    # A Huffman code is less than a bit an element above the entropy; the table and the header come on top.
    assert 512 * sparse.entropy <= sparse.bits <= 512 * (sparse.entropy + 1) + 8 * TABLE_BYTES + 64
    for cost in (dense, sparse):
        assert cost.rate == 32 * 512 / cost.bits
        assert min(cost.quantise_time, cost.code_time, cost.decode_time) > 0
        assert cost.encode_time == cost.quantise_time + cost.code_time
        assert cost.coder_rate == 8 * 512 / cost.code_time


def test_what_cannot_be_measured_is_refused() -> None:
    graph = CutGraph(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU()).eval(), torch.zeros(1, 3, 4, 4))
    assert "there is no layer '9'" in error_of(jalad.measure_jalad, graph, torch.zeros(1, 3, 4, 4), ["9"])
    assert "repeats is 0" in error_of(jalad.measure_jalad, graph, torch.zeros(1, 3, 4, 4), ["0"], 0)
