"""Deformable convolution in standard operators against a loop over single readings, at every opset, as a function and inlined."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bodies import DATA_DEPENDENT, Case, conv_writer, function_of, inlined, node_model, run_node
from lowering_model import run, untyped
from occport.graph.bodies.deform_conv import DCN_FORMS
from occport.graph.lowering.old_exporter import TORCH_1_10_OPSET_11_OPS
from occport.ops import deform_conv as operator
from small_graphs import random

OPSETS = range(11, 23)
FORMS_AND_OPSETS = [(form, opset) for form in DCN_FORMS for opset in OPSETS if form != "deformconv" or opset >= 19]
PLAIN = Case((3, 3), (1, 1), (1, 1), (1, 1), 1, 1, False)
WINDOWS = {
    "as in the network": PLAIN,
    "bias": PLAIN._replace(with_bias=True),
    "stride 2": PLAIN._replace(stride=(2, 2)),
    "dilation 2": PLAIN._replace(dilation=(2, 2), padding=(2, 2)),
    "no padding": PLAIN._replace(padding=(0, 0)),
    "kernel 1x3": PLAIN._replace(kernel=(1, 3), padding=(0, 1)),
    "kernel 2x1": PLAIN._replace(kernel=(2, 1), padding=(1, 0)),
    "kernel 1x1": PLAIN._replace(kernel=(1, 1), padding=(0, 0), with_bias=True),
    "groups 2": PLAIN._replace(groups=2),
    "deform groups 2": PLAIN._replace(deform_groups=2),
    "everything": Case((3, 2), (1, 2), (2, 1), (1, 2), 2, 4, True),
}
MAPS = (2, 4, 6, 6, 7)  # A, C, O, H, W


def feeds_for(window, maps=MAPS, *, seed=0, reach=3.0):
    """Offsets of `reach` pixels: many are outside of the map."""
    A, C, filters, H, W = maps
    Ho, Wo = output_size(window, H, W)
    T, G = window.kernel[0] * window.kernel[1], window.deform_groups
    feeds = {
        "input": random(A, C, H, W, seed=seed),
        "offset": random(A, G * 2 * T, Ho, Wo, seed=seed, scale=reach),
        "mask": np.abs(random(A, G * T, Ho, Wo, seed=seed)),
    }
    constants = {"weight": random(filters, C // window.groups, *window.kernel, seed=seed, scale=0.5)}
    if window.with_bias:
        constants["bias"] = random(filters, seed=seed)
    return feeds, constants


def output_size(window, H, W):
    """(Ho, Wo)."""
    pairs = zip((H, W), window.padding, window.dilation, window.kernel, window.stride, strict=True)
    return tuple((size + 2 * p - d * (k - 1) - 1) // s + 1 for size, p, d, k, s in pairs)


def read(plane, y, x):
    """(channels, H, W) at one position, zero outside, float64."""
    _, H, W = plane.shape
    found = np.zeros(plane.shape[0])
    if -1 < y < H and -1 < x < W:  # false for NaN
        for row in (math.floor(y), math.floor(y) + 1):
            for column in (math.floor(x), math.floor(x) + 1):
                if 0 <= row < H and 0 <= column < W:
                    found += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[:, row, column]
    return found


def loop(window, feeds, constants):
    """float64, one tap after the other, as the definition has it."""
    arrays = {name: array.astype(np.float64) for name, array in {**feeds, **constants}.items()}
    A, C = arrays["input"].shape[:2]
    O, per_group = arrays["weight"].shape[:2]  # noqa: E741
    _, _, Ho, Wo = arrays["offset"].shape
    T, G = window.kernel[0] * window.kernel[1], window.deform_groups
    offset, mask = arrays["offset"].reshape(A, G, T, 2, Ho, Wo), arrays["mask"].reshape(A, G, T, Ho, Wo)
    columns = np.zeros((A, C, T, Ho, Wo))
    for a, g, k, ho, wo in np.ndindex(A, G, T, Ho, Wo):
        i, j = divmod(k, window.kernel[1])
        dy, dx = offset[a, g, k, :, ho, wo]
        y = ho * window.stride[0] - window.padding[0] + i * window.dilation[0] + dy
        x = wo * window.stride[1] - window.padding[1] + j * window.dilation[1] + dx
        channels = slice(g * C // G, (g + 1) * C // G)
        columns[a, channels, k, ho, wo] = read(arrays["input"][a, channels], y, x) * mask[a, g, k, ho, wo]
    out = np.zeros((A, O, Ho, Wo))
    for o in range(O):
        group = o // (O // window.groups)
        part = columns[:, group * per_group : (group + 1) * per_group]
        out[:, o] = np.einsum("ackhw,ck->ahw", part, arrays["weight"][o].reshape(per_group, T)) + arrays.get("bias", np.zeros(O))[o]
    return out


def run_conv(window, feeds, constants, form, opset):
    shape = (feeds["input"].shape[0], constants["weight"].shape[0], *feeds["offset"].shape[2:])
    return run_node(conv_writer(window, form), {**feeds, **constants}, shape, opset)


@pytest.mark.parametrize(("form", "opset"), FORMS_AND_OPSETS)
@pytest.mark.parametrize("window", WINDOWS)
def test_each_form_equals_the_loop_at_every_opset(window, form, opset):
    window = WINDOWS[window]
    feeds, constants = feeds_for(window)
    np.testing.assert_allclose(run_conv(window, feeds, constants, form, opset), loop(window, feeds, constants), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", DCN_FORMS)
@pytest.mark.parametrize("window", ["stride 2", "everything"])
def test_the_operator_in_torch_agrees_with_it(window, form):
    window = WINDOWS[window]
    feeds, constants = feeds_for(window, (3, 8, 4, 9, 12), seed=1)
    tensors = [torch.from_numpy(array) for array in (*feeds.values(), constants["weight"])]
    bias = torch.from_numpy(constants["bias"]) if window.with_bias else None
    sizes = (window.stride, window.padding, window.dilation, window.groups, window.deform_groups)
    want = operator.reference(*tensors, bias, *sizes).numpy()
    np.testing.assert_allclose(run_conv(window, feeds, constants, form, 20), want, rtol=0, atol=2e-5)


POSITIONS = [-1e9, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 1e9]


@pytest.mark.parametrize("form", DCN_FORMS)
@pytest.mark.parametrize("axis", [0, 1], ids=["y", "x"])
def test_pixel_centres_borders_and_far_outside(axis, form):
    """A 1x1 kernel on a map of five pixels along one axis; the output has a row for each position."""
    size, length = 5, len(POSITIONS)
    line = np.arange(1, size + 1, dtype=np.float32)
    window = Case((1, 1), (1, 1), (0, 0), (1, 1), 1, 1, False)
    plane = np.repeat(line[:, None] if axis == 0 else line[None], length, 1 - axis)  # as long as the positions the other way
    offset = np.zeros((1, 2, *plane.shape), np.float32)
    ramp = np.arange(length)
    for place in ramp:  # output pixel (0, place) or (place, 0) looks at position `place`
        at = (0, place) if axis == 0 else (place, 0)
        offset[0, axis, *at] = POSITIONS[place]
    feeds = {"input": plane[None, None].copy(), "offset": offset, "mask": np.ones((1, 1, *plane.shape), np.float32)}
    got = run_conv(window, feeds, {"weight": np.ones((1, 1, 1, 1), np.float32)}, form, 20)
    got = got[0, 0, 0] if axis == 0 else got[0, 0, :, 0]
    want = [sum(max(0, 1 - abs(position - i)) * float(line[i]) for i in range(size)) for position in POSITIONS]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5)
    assert [want[i] for i in (0, 2, 3, 4, 10, 11)] == [0, 0, 0.5, 1, 2.5, 0]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("size", [(6, 7), (1, 7), (6, 1), (1, 1)])
def test_the_gather_form_never_reads_beyond_the_table_and_takes_wild_offsets_for_outside(size, opset):
    wild = np.float32([np.inf, -np.inf, np.nan, 1e9, -1e9, 3e38, -3e38, 40, -40])
    window = PLAIN._replace(with_bias=True)
    feeds, constants = feeds_for(window, (1, 2, 3, *size))
    for axis in (0, 1):  # each tap is outside in one direction at least
        offset = feeds["offset"].reshape(9, 2, -1)
        offset[:, axis] = np.resize(wild, offset[:, axis].shape)
        feeds["offset"] = offset.reshape(feeds["offset"].shape)
        got = run_conv(window, feeds, constants, "gather", opset)
        np.testing.assert_array_equal(got, np.broadcast_to(constants["bias"].reshape(1, 3, 1, 1), got.shape))
        feeds, constants = feeds_for(window, (1, 2, 3, *size))


def test_one_wild_tap_leaves_the_others_alone():
    feeds, constants = feeds_for(PLAIN)
    feeds["offset"][:, 4, ::2], feeds["offset"][:, 11, :, 1::2] = np.nan, np.inf
    np.testing.assert_allclose(run_conv(PLAIN, feeds, constants, "gather", 13), loop(PLAIN, feeds, constants), rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    counts=st.tuples(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.integers(1, 3)),  # groups, deform groups, images
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    with_bias=st.booleans(),
    form=st.sampled_from(FORMS_AND_OPSETS),
)
def test_any_sizes(kernel, stride, padding, dilation, counts, size, with_bias, form):
    window = Case(kernel, stride, padding, dilation, counts[0], counts[1], with_bias)
    assume(all(length > 0 for length in output_size(window, *size)))
    feeds, constants = feeds_for(window, (counts[2], 4, 4, *size), reach=2)
    np.testing.assert_allclose(run_conv(window, feeds, constants, *form), loop(window, feeds, constants), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("form", "opset"), [*(("gather", opset) for opset in OPSETS), *(("gridsample", opset) for opset in range(16, 23))])
@pytest.mark.parametrize("window", ["everything", "bias"])
def test_inlined_it_is_static_and_right_at_every_opset(window, form, opset):
    window = WINDOWS[window]
    feeds, constants = feeds_for(window)
    model = inlined(node_model(conv_writer(window, form), feeds, (2, 6, *feeds["offset"].shape[2:]), 18, constants), opset)
    onnx.checker.check_model(model, full_check=True)
    assert untyped(model) == []
    assert {"Shape", "Range", "Squeeze"}.isdisjoint(node.op_type for node in model.graph.node)  # all sizes are folded
    np.testing.assert_allclose(run(model, feeds)[0], loop(window, feeds, constants), rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", [19, 22])
def test_inlined_deform_conv_is_one_node(opset):
    window = WINDOWS["everything"]
    feeds, constants = feeds_for(window)
    model = inlined(node_model(conv_writer(window, "deformconv"), feeds, (2, 6, *feeds["offset"].shape[2:]), 19, constants), opset)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert list(node.input) == ["input", "weight", "offset", "bias", "mask"]
    got = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    assert got == {"strides": [1, 2], "pads": [2, 1, 2, 1], "dilations": [1, 2], "group": 2, "offset_group": 4}
    np.testing.assert_allclose(run(model, feeds)[0], loop(window, feeds, constants), rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("window", ["as in the network", "everything"])
def test_the_gather_form_has_only_old_operators_and_nothing_data_dependent(window, opset):
    names = ["input", "offset", "mask", "weight", *(["bias"] if WINDOWS[window].with_bias else [])]
    function = function_of(conv_writer(WINDOWS[window], "gather"), names, opset)
    used = {node.op_type for node in function}
    assert not used & DATA_DEPENDENT
    assert used - TORCH_1_10_OPSET_11_OPS == set()
    assert {node.domain for node in function} == {""}


def test_the_constants_of_an_inlined_gather_form_are_no_maps():
    """Index and position tables grow with H + W, not H * W: a network has 26 of these nodes."""
    sizes = {}
    for side in (8, 32):
        feeds, constants = feeds_for(PLAIN, (1, 2, 2, side, side))
        model = inlined(node_model(conv_writer(PLAIN, "gather"), feeds, (1, 2, side, side), 18, constants), 18)
        sizes[side] = max(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert sizes[32] <= 2 * 9 * 32
    assert sizes[32] <= 4 * sizes[8]


def test_each_corner_is_written_before_the_sum_that_it_is_added_to():
    """ONNX Runtime holds all four otherwise."""
    feeds, constants = feeds_for(PLAIN)
    model = inlined(node_model(conv_writer(PLAIN, "gather"), feeds, (2, 6, 6, 7), 18, constants), 18)
    place = {name: index for index, node in enumerate(model.graph.node) for name in node.output}
    reads = {node.output[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0].startswith("reshape")}
    corners = {node.output[0] for node in model.graph.node if node.op_type == "Mul" and reads & set(node.input)}
    sums = [node for node in model.graph.node if node.op_type == "Add" and corners & set(node.input)]
    assert (len(corners), len(sums)) == (4, 3)
    assert all(place[node.input[1]] < place[node.input[0]] for node in sums[1:])


def test_a_form_that_is_none_is_our_own_bug():
    with pytest.raises(AssertionError, match="scatter"):
        function_of(conv_writer(PLAIN, "scatter"), ["input", "offset", "mask", "weight"], 20)
