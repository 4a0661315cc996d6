"""Attention in standard operators against a loop over single readings, at every opset, as a function and inlined."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bodies import DATA_DEPENDENT, attention_writer, function_of, inlined, node_model, run_node
from lowering_model import run, untyped
from occport.errors import ExportError
from occport.graph.bodies.attention import ATTENTION_FORMS
from occport.graph.bodies.body import FORMS, check_form, default_form
from occport.graph.lowering.old_exporter import TORCH_1_10_OPSET_11_OPS
from occport.ops.msda import sample_weighted
from small_graphs import random

OPSETS = range(11, 23)
INPUTS = ("value", "shapes", "starts", "locations", "weights")
LEVELS = {"one": [(3, 5)], "one row": [(1, 6)], "one column": [(4, 1)], "three": [(7, 3), (2, 5), (1, 1)]}


def feeds_for(levels, *, images=2, heads=3, width=4, queries=5, points=2, seed=0):
    """Locations inside, on the border and many pixels outside; weights that sum to one."""
    sizes = np.array(levels, np.int64)
    L = len(levels)
    weights = np.abs(random(images, queries, heads, L, points, seed=seed))
    return {
        "value": random(images, int(sizes.prod(1).sum()), heads, width, seed=seed),
        "locations": random(images, queries, heads, L, points, 2, seed=seed) + np.float32(0.5),
        "weights": weights / weights.sum((3, 4), keepdims=True),
    }


def split(levels, feeds):
    """The arrays as inputs and constants in the order of the node's inputs."""
    sizes = np.array(levels, np.int64)
    constants = {"shapes": sizes, "starts": np.concatenate([[0], sizes.prod(1).cumsum()[:-1]]).astype(np.int64)}
    return {name: feeds.get(name, constants.get(name)) for name in INPUTS}


def loop(levels, feeds):
    """float64, one reading after the other, as the definition has it."""
    value, locations, weights = (feeds[name].astype(np.float64) for name in ("value", "locations", "weights"))
    A, Q, M, _, P, _ = locations.shape
    out = np.zeros((A, Q, M, value.shape[3]))
    start = 0
    for level, (h, w) in enumerate(levels):
        for a, q, m, p in np.ndindex(A, Q, M, P):
            u, v = locations[a, q, m, level, p]
            x, y = u * w - 0.5, v * h - 0.5
            if -1 < x < w and -1 < y < h:  # false for NaN
                for row in (math.floor(y), math.floor(y) + 1):
                    for column in (math.floor(x), math.floor(x) + 1):
                        if 0 <= row < h and 0 <= column < w:
                            share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[a, q, m, level, p]
                            out[a, q, m] += share * value[a, start + row * w + column, m]
        start += h * w
    return out.reshape(A, Q, -1)


def run_attention(levels, feeds, form, opset):
    A, _, M, D = feeds["value"].shape
    shape = (A, feeds["locations"].shape[1], M * D)
    return run_node(attention_writer(len(levels), form), split(levels, feeds), shape, opset)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("form", ATTENTION_FORMS)
@pytest.mark.parametrize("levels", LEVELS)
def test_each_form_equals_the_loop_at_every_opset(levels, form, opset):
    levels = LEVELS[levels]
    feeds = feeds_for(levels)
    np.testing.assert_allclose(run_attention(levels, feeds, form, opset), loop(levels, feeds), rtol=0, atol=2e-6)


@pytest.mark.parametrize("form", ATTENTION_FORMS)
@pytest.mark.parametrize("points", [1, 3])
def test_the_operator_in_torch_and_the_loop_agree_with_it(points, form):
    levels = [(5, 8), (3, 4)]
    feeds = feeds_for(levels, heads=2, width=6, queries=40, points=points)
    got = run_attention(levels, feeds, form, 17)
    tensors = [torch.from_numpy(feeds[name]) for name in ("value", "locations", "weights")]
    flat = [size for level in levels for size in level]
    np.testing.assert_allclose(got, sample_weighted(tensors[0], flat, *tensors[1:]).numpy(), rtol=0, atol=2e-6)
    np.testing.assert_allclose(got, loop(levels, feeds), rtol=0, atol=2e-6)


H, W = 3, 4
PIXELS = [-1e9, -2.0, -1.0, -0.5, 0.0, 1.0, 1.25, W - 2, W - 1.5, W - 1, W - 0.5, W, W + 1, 1e9]


@pytest.mark.parametrize("form", ATTENTION_FORMS)
@pytest.mark.parametrize("axis", [0, 1], ids=["x", "y"])
@pytest.mark.parametrize("opset", [11, 22])
def test_pixel_centres_borders_and_far_outside(axis, form, opset):
    """Along one axis, the other on pixel 1: between a - 1 and a the pixel's share rises from 0 to 1."""
    size = (W, H)[axis]
    pixels = np.array([pixel if pixel < 1e8 else 1e9 for pixel in PIXELS if pixel <= size + 1 or pixel > 1e8])
    locations = np.full((1, len(pixels), 1, 1, 1, 2), 1.5 / (H if axis == 0 else W))
    locations[..., axis] = ((pixels + 0.5) / size).reshape(-1, 1, 1, 1)
    feeds = {
        "value": np.arange(1, H * W + 1, dtype=np.float32).reshape(1, H * W, 1, 1),
        "locations": locations.astype(np.float32),
        "weights": np.ones((1, len(pixels), 1, 1, 1), np.float32),
    }
    got = run_attention([(H, W)], feeds, form, opset).ravel()
    line = feeds["value"].reshape(H, W)[1] if axis == 0 else feeds["value"].reshape(H, W)[:, 1]
    want = [sum(max(0, 1 - abs(pixel - i)) * float(line[i]) for i in range(size)) for pixel in pixels]
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)
    assert np.count_nonzero(want) < len(want)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("shape", [(3, 5), (1, 6), (1, 1)])
def test_the_gather_form_never_reads_beyond_the_table_and_takes_wild_locations_for_outside(shape, opset):
    wild = np.float32([np.inf, -np.inf, np.nan, 1e9, -1e9, 3e38, -3e38, 1.5, -0.5])
    pairs = np.array([(u, v) for u in (*wild, 0.5) for v in (*wild, 0.5)][:-1], np.float32)
    feeds = feeds_for([shape], images=1, heads=2, queries=len(pairs), points=1)
    feeds["locations"][:] = pairs.reshape(1, -1, 1, 1, 1, 2)
    got = run_attention([shape], feeds, "gather", opset)
    # 1.5 and -0.5 are outside of larger maps; on a map of one pixel they are exactly one pixel away, and weigh nothing either
    np.testing.assert_array_equal(got, np.zeros_like(got))


def test_one_wild_point_leaves_the_others_of_its_query_alone():
    levels = [(3, 5), (2, 2)]
    feeds = feeds_for(levels, points=3)
    feeds["locations"][:, ::2, :, 0, 1] = np.nan
    feeds["locations"][:, 1::2, :, 1, 2, 0] = np.inf
    np.testing.assert_allclose(run_attention(levels, feeds, "gather", 13), loop(levels, feeds), rtol=0, atol=2e-6)


@settings(deadline=None, max_examples=25)
@given(
    levels=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=3),
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
    form=st.sampled_from(ATTENTION_FORMS),
    opset=st.sampled_from(OPSETS),
    seed=st.integers(0, 99),
)
def test_any_sizes(levels, sizes, form, opset, seed):
    images, heads, width, queries, points = sizes
    feeds = feeds_for(levels, images=images, heads=heads, width=width, queries=queries, points=points, seed=seed)
    np.testing.assert_allclose(run_attention(levels, feeds, form, opset), loop(levels, feeds), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("form", "built", "opset"), [
    *(("gather", 18, opset) for opset in OPSETS), *(("gridsample", 18, opset) for opset in range(16, 23)),
    ("gather", 11, 11), ("gather", 12, 12), ("gather", 22, 22),
])  # fmt: skip
def test_inlined_it_is_static_and_right_at_every_opset(form, built, opset):
    levels = LEVELS["three"]
    feeds = feeds_for(levels)
    everything = split(levels, feeds)
    constants = {name: everything.pop(name) for name in ("shapes", "starts")}
    names = [*everything, *constants]
    order = [names.index(name) for name in INPUTS]
    write = attention_writer(len(levels), form)
    model = node_model(lambda b, values: write(b, [values[i] for i in order]), everything, (2, 5, 12), built, constants)
    if built == 18:
        model = inlined(model, opset)
    else:  # `convert_opset` starts at 18 and up; a body that was written for an old opset is inlined as it is
        model = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model), strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    if built == 18:
        assert untyped(model) == []
        assert {"Shape", "Range", "Expand", "Div", "Concat"}.isdisjoint(node.op_type for node in model.graph.node)  # all sizes folded
    np.testing.assert_allclose(run(model, everything)[0], loop(levels, feeds), rtol=0, atol=2e-6)


@pytest.mark.parametrize("opset", OPSETS)
def test_the_gather_form_has_only_old_operators_and_nothing_data_dependent(opset):
    function = function_of(attention_writer(3, "gather"), INPUTS, opset)
    used = {node.op_type for node in function}
    assert not used & DATA_DEPENDENT
    assert used - TORCH_1_10_OPSET_11_OPS == set()
    assert {node.domain for node in function} == {""}
    assert [node.op_type for node in function].count("Where") == 1


def test_the_gather_form_has_four_table_reads_and_as_many_nodes_for_any_number_of_levels():
    bodies = [list(function_of(attention_writer(levels, "gather"), INPUTS, 18)) for levels in (1, 3)]
    for nodes in bodies:
        (table,) = [node for node in nodes if node.op_type == "Reshape" and node.inputs[0].name == "value"]
        assert [reader.op_type for reader, _ in table.outputs[0].uses()] == ["Gather"] * 4
    assert len(bodies[0]) == len(bodies[1])


@pytest.mark.parametrize(("opset", "domain", "mode"), [(11, "com.microsoft", b"bilinear"), (16, "", b"bilinear"), (20, "", b"linear")])
def test_which_grid_sample_the_form_has(opset, domain, mode):
    (sample,) = [node for node in function_of(attention_writer(1, "gridsample"), INPUTS, opset) if node.op_type == "GridSample"]
    assert sample.domain == domain
    assert sample.attributes["mode"].as_string().encode() == mode
    assert (sample.attributes["padding_mode"].as_string(), sample.attributes["align_corners"].as_int()) == ("zeros", 0)


def test_a_form_that_is_none_is_our_own_bug():
    with pytest.raises(AssertionError, match="deformconv"):
        function_of(attention_writer(1, "deformconv"), INPUTS, 18)


@pytest.mark.parametrize(("operator", "opset", "in_file", "best"), [
    ("msda", 11, True, "gather"), ("msda", 15, True, "gather"), ("msda", 16, True, "gridsample"), ("msda", 22, True, "gridsample"),
    ("msda", 11, False, "gridsample"), ("msda", 22, False, "gridsample"),
    ("dcn", 11, True, "gather"), ("dcn", 15, True, "gather"), ("dcn", 16, True, "gridsample"), ("dcn", 18, True, "gridsample"),
    ("dcn", 19, True, "deformconv"), ("dcn", 22, True, "deformconv"), ("dcn", 11, False, "gridsample"), ("dcn", 19, False, "deformconv"),
])  # fmt: skip
def test_the_best_form_of_each_opset(operator, opset, in_file, best):
    assert default_form(operator, opset, in_file=in_file) == best
    check_form(operator, best, opset, what="--form", in_file=in_file)


@pytest.mark.parametrize(("operator", "form", "opset", "in_file", "line"), [
    ("msda", "gridsample", 15, True,
     "--msda-form gridsample: expected an opset from 16 on, where GridSample is standard, got opset 15; "
     "raise --opset, or give --msda-form gather"),
    ("dcn", "gridsample", 11, True,
     "--dcn-form gridsample: expected an opset from 16 on, where GridSample is standard, got opset 11; "
     "raise --opset, or give --dcn-form gather"),
    ("dcn", "deformconv", 18, True,
     "--dcn-form deformconv: expected an opset from 19 on, where DeformConv is standard, got opset 18; "
     "raise --opset, or give --dcn-form gridsample or gather"),
    ("dcn", "deformconv", 12, False,
     "--dcn-form deformconv: expected an opset from 19 on, where DeformConv is standard, got opset 12; "
     "raise --opset, or give --dcn-form gridsample or gather"),
    ("msda", "deformconv", 20, True, "--msda-form: expected one of gridsample, gather, got deformconv"),
    ("dcn", "", 20, True, "--dcn-form: expected one of deformconv, gridsample, gather, got nothing"),
])  # fmt: skip
def test_a_form_that_cannot_be_is_refused_in_one_line(operator, form, opset, in_file, line):
    with pytest.raises(ExportError) as caught:
        check_form(operator, form, opset, what=f"--{operator}-form", in_file=in_file)
    assert str(caught.value) == line


def test_gather_is_allowed_everywhere():
    for operator, forms in FORMS.items():
        assert forms["gather"] == 11
        for opset in OPSETS:
            check_form(operator, "gather", opset, what="--form")


def test_constants_and_sizes_are_written_once():
    nodes = list(function_of(attention_writer(3, "gridsample"), INPUTS, 18))
    constants = [(node.attributes["value"].as_tensor().numpy().tobytes(), node.attributes["value"].as_tensor().shape.numpy())
                 for node in nodes if node.op_type == "Constant"]  # fmt: skip
    assert len(constants) == len(set(constants))
    assert [node.op_type for node in nodes].count("Shape") == 4  # A, Q, P, D
