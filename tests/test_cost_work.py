"""The arithmetic of single nodes, against counts that were made by hand."""

from __future__ import annotations

import pytest

from occport.bringup.cost.layer import layer_of
from occport.bringup.cost.work import Work, attention, deformable_convolution, work_of


def test_a_convolution():
    # 6 images of 50 x 80 places; each of 64 channels is a sum over 32 channels and a 3 x 3 window
    work = work_of("Conv", [(6, 32, 100, 160), (64, 32, 3, 3), (64,)], [(6, 64, 50, 80)])
    assert work == Work("products", 6 * 50 * 80 * 64 * 32 * 3 * 3) and work.products == 442_368_000
    assert work.macs == work.products and work.flops == 884_736_000


def test_a_grouped_convolution_sums_over_a_group():
    # 4 groups: the weight has 8 of the 32 channels
    assert work_of("Conv", [(1, 32, 10, 10), (32, 8, 1, 1)], [(1, 32, 10, 10)]).products == 100 * 32 * 8


def test_a_volume_convolution():
    assert work_of("Conv", [(1, 2, 4, 4, 4), (3, 2, 3, 3, 3)], [(1, 3, 4, 4, 4)]).products == 64 * 3 * 2 * 27 == 10_368


def test_a_transposed_convolution():
    # every number that goes in is spread over 2 x 2 x 2 places of 16 channels, whatever comes out
    assert work_of("ConvTranspose", [(1, 32, 5, 5, 2), (32, 16, 2, 2, 2)], [(1, 16, 10, 10, 4)]).products == 32 * 50 * 16 * 8


@pytest.mark.parametrize(
    ("op_type", "into", "out", "want"),
    [
        ("MatMul", [(160, 32), (32, 64)], [(160, 64)], 160 * 64 * 32),
        ("Gemm", [(160, 32), (64, 32), (64,)], [(160, 64)], 160 * 64 * 32),
        ("Gemm", [(32, 160), (64, 32)], [(160, 64)], 160 * 64 * 32),  # transA
        ("MatMul", [(6, 8, 10, 4), (6, 8, 4, 7)], [(6, 8, 10, 7)], 6 * 8 * 10 * 7 * 4),
        ("MatMul", [(32,), (32, 5)], [(5,)], 5 * 32),
        ("MatMul", [(32,), (3, 32, 8)], [(3, 8)], 3 * 8 * 32),
        ("MatMul", [(64, 32), (32,)], [(64,)], 2_048),  # a vector on the right
        ("MatMul", [(3, 64, 32), (32,)], [(3, 64)], 6_144),
        ("MatMul", [(32,), (32,)], [()], 32),
        ("MatMul", [(5, 1, 16, 32), (7, 32, 8)], [(5, 7, 16, 8)], 5 * 7 * 16 * 8 * 32),  # stacks are repeated to fit
        ("Gemm", [(160, 32), (32, 64)], [(160, 64)], 160 * 64 * 32),
        ("Gemm", [(32, 16), (8, 32), (8,)], [(16, 8)], 16 * 8 * 32),  # transA and transB
        ("Gemm", [(0, 32), (32, 8)], [(0, 8)], 0),
    ],
)
def test_a_matrix_product(op_type, into, out, want):
    assert work_of(op_type, into, out).products == want


def test_a_deformable_convolution():
    # 6 images, 29 x 50 places. Product: 512 channels, each over 512 x 9. Columns: 9 taps of 512 channels at every place
    work = deformable_convolution([(6, 512, 29, 50), (512, 512, 3, 3)], [(6, 512, 29, 50)])
    assert work.products == 6 * 1450 * 512 * 512 * 9 == 20_525_875_200
    assert work.sampled == 6 * 1450 * 512 * 9 == 40_089_600
    assert work.macs == 20_525_875_200 + 160_358_400
    assert work == work_of("DeformConv", [(6, 512, 29, 50), (512, 512, 3, 3), (6, 18, 29, 50)], [(6, 512, 29, 50)])


def test_an_attention():
    # 6 images, 100 queries, 8 heads, 1 level, 4 points, 16 channels of a head
    work = attention({"A": 6, "Q": 100, "M": 8, "L": 1, "P": 4, "D": 16, "S": 999})
    assert work == Work("sampling", 0, 6 * 100 * 8 * 4 * 16) and work.macs == 4 * 307_200
    # its standard form samples the same numbers: (A*M, D, Q, P)
    assert work_of("GridSample", [(48, 16, 9, 9), (48, 100, 4, 2)], [(48, 16, 100, 4)]) == work


@pytest.mark.parametrize(
    ("op_type", "into", "out", "want"),
    [
        ("Relu", [(2, 3)], [(2, 3)], Work("elementwise", operations=6)),
        ("Add", [(2, 3), (3,)], [(2, 3)], Work("elementwise", operations=6)),
        ("Softmax", [(2, 3)], [(2, 3)], Work("elementwise", operations=30)),
        ("ReduceSum", [(4, 5), (1,)], [(4,)], Work("reduction", operations=20)),
        ("Transpose", [(2, 3)], [(3, 2)], Work("movement")),
        ("Reshape", [(2, 3), (1,)], [(6,)], Work("view")),
        ("Split", [(4, 2)], [(1, 2), (3, 2)], Work("movement")),
        ("Strange", [(4, 2)], [(1, 2), (3, 2)], Work("unknown", operations=8)),
    ],
)
def test_everything_else(op_type, into, out, want):
    assert work_of(op_type, into, out) == want


def test_a_pooling_counts_its_window():
    assert work_of("MaxPool", [(1, 1, 4, 4)], [(1, 1, 2, 2)], window=9) == Work("reduction", operations=36)


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("img_backbone_layer3_5_conv2_Conv", "img_backbone_layer3_5_conv2"),
        ("a_norms_0_LayerNormalization_mean", "a_norms_0"),
        ("/model/head/Conv", "model/head"),
        ("Conv_12", "Conv_12"),
        ("labels_scale1_zyx", "labels_scale1_zyx"),
    ],
)
def test_layers_are_modules(name, want):
    assert layer_of(name) == want
