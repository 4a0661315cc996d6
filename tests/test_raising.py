"""Raising a dialect's nodes to canonical ones: the reverse of lowering, whatever the target's way of cutting the operators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import foreign_models
from occport.errors import ModelFileError
from occport.graph import canonical, dialect
from occport.graph.contract import Attribute, Contract, Port
from occport.graph.dialect import Dialect
from occport.graph.forms import PORT_FORMS
from occport.graph.lower import lower
from occport.graph.retargeting.foreign_file import with_shapes
from occport.graph.retargeting.raising import raise_model
from small_graphs import (
    attention_feeds,
    attention_graph,
    by_name,
    constant_of,
    deform_conv,
    graph,
    network,
    node,
    operators,
    random,
    run,
    with_bodies,
)  # fmt: skip

BUILT_IN = [name for name in dialect.names() if name != "standard"]
STANDARD = dialect.load("standard")
LOCATIONS = (("sampling_locations",), ("sampling_locations_merged",), ("sampling_locations_x", "sampling_locations_y"))
WIDE_PLACES = (("reference_points", "sampling_offsets"), ("reference_points", "sampling_offsets_merged"))
WEIGHTS = (("attention_weights",), ("attention_weights_merged",), ("attention_logits",), ("attention_logits_merged",))
OFFSETS = (("offset", "mask"), ("offset_y", "offset_x", "mask"), ("offset_all",))
STRIDES = (("stride",), ("stride_h", "stride_w"), ("stride_nchw",))
PADDINGS = (("padding",), ("padding_h", "padding_w"), ("padding_sides",), ("padding_begin_end",))


def port(form: str, dtype: str = "float32", **more: object) -> Port:
    return Port(form, dtype, len(PORT_FORMS[form].shape.split()), name=f"in_{form}", **more)


def attribute(form: str) -> Attribute:
    return Attribute(f"a_{form}", "ints" if form[-2:] not in ("_h", "_w") and "groups" not in form else "int", form)


def invented(places=LOCATIONS[2], weights=WEIGHTS[1], offsets=OFFSETS[2], strides=STRIDES[1], paddings=PADDINGS[2], *, heads="heads_split",
             domain="chip", scalars_first=True, bias="optional") -> Dialect:
    """A dialect that nobody has: parts split and packed, scalars at odd places."""
    scalars = [
        port("num_embed", "int32"), replace(port("num_images", "int64"), rank=1), replace(port("num_queries", "int64"), place="constant"),
    ]  # fmt: skip
    main = [port("spatial_shapes", "int32"), *(port(form) for form in (*weights, *places)), port("value")]
    msda = Contract(
        domain, 1, "Attend", tuple([*scalars, *main] if scalars_first else [*main[:2], *scalars, *main[2:]]), Port(heads, "float32", 4),
        (Attribute("speed", "float", default=1.5), Attribute("mode", "string", default="fast")),
    )
    biases = [] if bias == "none" else [port("bias", optional=bias == "optional")]
    dcn = Contract(
        domain, 1, "Bend", (port("weight"), *(port(form) for form in offsets), port("input"), *biases), Port("map", "float32", 4),
        tuple(attribute(form) for form in (*strides, *paddings, "dilation_nchw", "kernel_wh", "deform_groups", "groups")),
    )
    return Dialect("invented", "", "", 17, False, msda=msda, dcn=dcn)


def picture(model: ir.Model) -> list[object]:
    """What tells canonical nodes apart: names, attributes, inputs by name, constants by value."""
    found: list[object] = []
    for each in model.graph:
        if each.domain == canonical.DOMAIN:
            is_number = [value.name.startswith(("const", "shapes", "starts")) for value in each.inputs]
            inputs = [constant_of(value).tolist() if number else value.name for value, number in zip(each.inputs, is_number, strict=True)]
            window = {name: str(one.value).replace("(", "[").replace(")", "]") for name, one in each.attributes.items()}
            found.append((each.op_type, each.name, inputs, window, each.outputs[0].name, list(each.outputs[0].shape)))
    return found


def same_after_a_round_trip(model: ir.Model, target: Dialect, feeds: dict[str, np.ndarray], *, wide: bool = True) -> None:
    before, nodes, want = picture(model), sorted(operators(model)), run(with_bodies(model, STANDARD), feeds)
    lower(model, target)
    assert raise_model(model, target, wide=wide) == len(before)
    assert picture(model) == before
    assert sorted(operators(model)) == nodes
    assert {entry for entry in model.opset_imports if entry} == {canonical.DOMAIN}
    for got, one in zip(run(with_bodies(model, STANDARD), feeds), want, strict=True):
        np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_dialect_and_back(name):
    same_after_a_round_trip(*_network_and(dialect.load(name)))


def _network_and(target):
    model, feeds = network()
    return model, target, feeds


@settings(deadline=None, max_examples=15)
@given(
    places=st.sampled_from(LOCATIONS + WIDE_PLACES), weights=st.sampled_from(WEIGHTS), offsets=st.sampled_from(OFFSETS),
    strides=st.sampled_from(STRIDES), paddings=st.sampled_from(PADDINGS), heads=st.sampled_from(["heads_merged", "heads_split"]),
    domain=st.sampled_from(["", "chip"]), scalars_first=st.booleans(), bias=st.sampled_from(["optional", "demanded", "none"]),
)
def test_invented_dialects_and_back(places, weights, offsets, strides, paddings, heads, domain, scalars_first, bias):
    target = invented(places, weights, offsets, strides, paddings, heads=heads, domain=domain, scalars_first=scalars_first, bias=bias)
    same_after_a_round_trip(*_network_and(target))


@pytest.mark.parametrize("places", LOCATIONS)
@pytest.mark.parametrize("weights", WEIGHTS[:2])
def test_several_levels_and_back(places, weights):
    levels = [(3, 4), (2, 3), (1, 1)]
    same_after_a_round_trip(attention_graph(levels), invented(places, weights), attention_feeds(levels))


@pytest.mark.parametrize("bias", ["optional", "demanded"])
def test_an_uneven_convolution_with_a_bias_and_back(bias):
    feeds = {"x": random(1, 4, 7, 6), "offset": random(1, 36, 3, 6), "mask": np.abs(random(1, 18, 3, 6))}
    conv = deform_conv(["x", "offset", "mask", "w", "b"], stride=[2, 1], padding=[0, 2], dilation=[1, 2], groups=2, deform_groups=2)
    model = graph([conv], feeds, ["y"], {"w": random(6, 2, 3, 3), "b": random(6)}, known={"y": (1, 6, 3, 6)})
    same_after_a_round_trip(model, invented(bias=bias), feeds)


def test_without_wide_the_narrow_form_stays_narrow():
    model, _ = network()
    lower(model, dialect.load("dl"))
    raise_model(model, dialect.load("dl"), wide=False)
    assert operators(model).count(canonical.SAMPLED) == 2
    first = by_name(model)["a_msda"]
    assert [value.name for value in first.inputs[3:]] == ["a_msda_locations", "a_msda_weights"]


def test_without_wide_wide_ports_stay_wide():
    model, _ = network()
    lower(model, dialect.load("bevformer_tensorrt"))
    raise_model(model, dialect.load("bevformer_tensorrt"), wide=False)
    assert operators(model).count(canonical.MSDA) == 2


def test_other_readers_get_the_heads_split_as_before():
    feeds = {"value": random(2, 12, 3, 4), "locations": random(2, 5, 3, 1, 2, 2), "weights": np.abs(random(2, 5, 3, 1, 2))}
    inputs = ["value", "shapes", "starts", "locations", "weights"]
    nodes = [
        helper.make_node("MultiscaleDeformableAttnPlugin_TRT", inputs, ["heads"], name="attn", domain="occport.twin"),
        node("Reshape", ["heads", "axes"], "merged"), node("Relu", ["merged"], "flat"),
        node("Transpose", ["heads"], "turned", perm=[0, 2, 1, 3]),
    ]  # fmt: skip
    constants = {"shapes": np.array([[3, 4]], np.int32), "starts": np.zeros(1, np.int32), "axes": np.array([2, 5, 12])}
    model = graph(nodes, feeds, ["flat", "turned"], constants, known={"heads": (2, 5, 3, 4)})
    target = dialect.load("tensorrt")
    want = run(with_bodies(model, target), feeds)
    raise_model(model, target, wide=True)
    assert sorted(operators(model)) == sorted([canonical.SAMPLED, "Relu", "Reshape", "Transpose"])
    for got, one in zip(run(with_bodies(model, STANDARD), feeds), want, strict=True):
        np.testing.assert_array_equal(got, one)


# patterns in front of the node, as exporters write them

A, Q, M, P = 2, 5, 3, 2
SHAPES = {"one": [(3, 4)], "two": [(3, 4), (2, 5)]}


def around_graph(levels, nodes, constants, feeds, opset=18):
    """A dl node behind the given nodes, which make `locations` and `weights`."""
    L, rows = len(levels), sum(h * w for h, w in levels)
    starts = np.concatenate([[0], np.array(levels).prod(1).cumsum()[:-1]])
    sizes = {"shapes": np.array(levels), "starts": starts, "bs": np.array(A), "nq": np.array(Q), "ne": np.array(12)}
    inputs = ["value", "shapes", "starts", "locations", "weights", "bs", "nq", "ne"]
    attend = helper.make_node("MultiScaleDeformableAttnFunction", inputs, ["out"], name="attn", domain="DL", im2col_step=64)
    axes = {"full": np.array([A, Q, M, L, P, 2]), "weight_axes": np.array([A, Q, M, L, P])}
    feeds = {"value": random(A, rows, M, 4)} | feeds
    return graph([*nodes, attend], feeds, ["out"], sizes | axes | constants, known={"out": (A, Q, 12)}, opset=opset), feeds


def logits_nodes(L):
    nodes = [node("Softmax", ["scores"], "shares", axis=3), node("Reshape", ["shares", "weight_axes"], "weights")]
    return nodes, {"scores": random(A, Q, M, L * P)}


def check_wide(model, feeds, expected_inputs):
    target = dialect.load("dl")
    want = run(with_bodies(model, target), feeds)[0]
    raise_model(model, target, wide=True)
    (found,) = [each for each in model.graph if each.domain == canonical.DOMAIN]
    assert found.op_type == canonical.MSDA
    assert [value.name for value in found.inputs[3:5]] == expected_inputs
    np.testing.assert_allclose(run(with_bodies(model, STANDARD), feeds)[0], want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("levels", SHAPES)
@pytest.mark.parametrize("operator", ["Div", "Mul", "Mul, constant first"])
@pytest.mark.parametrize("reference_first", [True, False])
def test_an_add_of_reference_and_divided_offsets(levels, operator, reference_first):
    levels = SHAPES[levels]
    L = len(levels)
    sizes = np.float32([[w, h] for h, w in levels]).reshape(L, 1, 2)
    share, extra = logits_nodes(L)
    pair = ["sizes", "offsets"] if "first" in operator else ["offsets", "sizes"]
    ends = ["reference6", "normal"] if reference_first else ["normal", "reference6"]
    nodes = [
        node("Reshape", ["reference", "axes"], "reference6"), node(operator[:3], pair, "normal"), node("Add", ends, "locations"), *share,
    ]  # fmt: skip
    feeds = extra | {"reference": random(A, Q, L, 2), "offsets": random(A, Q, M, L, P, 2, scale=2)}
    constants = {"axes": np.array([A, Q, 1, L, 1, 2]), "sizes": sizes if operator == "Div" else 1 / sizes}
    check_wide(*around_graph(levels, nodes, constants, feeds), ["reference", "offsets"])


@pytest.mark.parametrize("levels", SHAPES)
def test_an_add_whose_division_went_into_the_linear_layer(levels):
    levels = SHAPES[levels]
    share, extra = logits_nodes(len(levels))
    feeds = extra | {"reference": random(A, Q, 1, len(levels), 1, 2), "shift": random(A, Q, M, len(levels), P, 2, scale=0.5)}
    model, feeds = around_graph(levels, [node("Add", ["shift", "reference"], "locations"), *share], {}, feeds)
    check_wide(model, feeds, ["attn_reference_points", "attn_sampling_offsets"])


def test_one_reference_for_all_levels():
    levels = SHAPES["two"]
    share, extra = logits_nodes(2)
    feeds = extra | {"reference": random(A, Q, 1, 1, 1, 2), "shift": random(A, Q, M, 2, P, 2, scale=0.5)}
    model, feeds = around_graph(levels, [node("Add", ["reference", "shift"], "locations"), *share], {}, feeds)
    check_wide(model, feeds, ["attn_reference_of_each", "attn_sampling_offsets"])


@pytest.mark.parametrize("axis", [2, 3, -1])
def test_softmax_before_opset_13_goes_over_all_axes_behind(axis):
    """axis 2 of (A,Q,M,P) would mix the heads: no way back from there."""
    feeds = {"reference": random(A, Q, 1, 1, 1, 2), "shift": random(A, Q, M, 1, P, 2), "scores": random(A, Q, M, P)}
    nodes = [
        node("Softmax", ["scores"], "shares", axis=axis), node("Reshape", ["shares", "weight_axes"], "weights"),
        node("Add", ["reference", "shift"], "locations"),
    ]
    model, _ = around_graph([(3, 4)], nodes, {}, feeds, opset=12)
    raise_model(model, dialect.load("dl"), wide=True)
    assert (canonical.MSDA in operators(model)) == (axis != 2)


SUM = node("Add", ["reference", "shift"], "locations")
NO_WAY_BACK = {
    "weights from elsewhere": ([node("Reshape", ["scores", "weight_axes"], "weights"), SUM], {}),
    "softmax over the points of each level": (
        [node("Reshape", ["scores", "weight_axes"], "raw"), node("Softmax", ["raw"], "weights", axis=4), SUM], {},
    ),
    "a reference of each point": ([*logits_nodes(2)[0], node("Add", ["shift", "shift"], "locations")], {}),
    "a reference of each head": (
        [*logits_nodes(2)[0], node("Add", ["of_heads", "shift"], "locations")], {"of_heads": random(A, Q, M, 1, 1, 2)},
    ),
    "no sum": ([*logits_nodes(2)[0], node("Sub", ["reference", "shift"], "locations")], {}),
}


@pytest.mark.parametrize("what", NO_WAY_BACK)
def test_where_there_is_no_way_back(what):
    nodes, more = NO_WAY_BACK[what]
    nodes = [onnx.NodeProto.FromString(each.SerializeToString()) for each in nodes]
    feeds = {"scores": random(A, Q, M, 2 * P), "reference": random(A, Q, 1, 2, 1, 2), "shift": random(A, Q, M, 2, P, 2)} | more
    model, feeds = around_graph(SHAPES["two"], nodes, {}, feeds)
    before = operators(model)
    want = run(with_bodies(model, dialect.load("dl")), feeds)[0]
    raise_model(model, dialect.load("dl"), wide=True)
    assert operators(model) == [canonical.SAMPLED if one == "MultiScaleDeformableAttnFunction" else one for one in before]
    np.testing.assert_array_equal(run(with_bodies(model, STANDARD), feeds)[0], want)


# what is not as the contract says


def refused(file: foreign_models.File, name: str) -> str:
    target = dialect.load(name)
    model = ir.from_proto(with_shapes(file.model, target, Path(), "the file"))
    with pytest.raises(ModelFileError) as caught:
        raise_model(model, target, wide=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("scalars", "message"),
    [
        ((3, 3, 6), "attn (DL::MultiScaleDeformableAttnFunction): bs: expected 2, from the shapes, got [3]"),
        ((2, 6, 6), "attn (DL::MultiScaleDeformableAttnFunction): num_queries: expected 3, from the shapes, got [6]"),
        ((2, 3, 3), "attn (DL::MultiScaleDeformableAttnFunction): num_embed: expected 6, from the shapes, got [3]"),
    ],
)
def test_scalars_that_lie(scalars, message):
    assert refused(foreign_models.dl(scalars=scalars, rank=1), "dl").startswith(message)


def attention_of(changes: dict[str, object]) -> foreign_models.File:
    """The dl file with attributes or constants of its node changed."""
    file = foreign_models.dl()
    attend = file.model.graph.node[-1]
    for name, value in changes.items():
        constants = {each.output[0]: each for each in file.model.graph.node if each.op_type == "Constant"}
        if name in constants:
            constants[name].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array(value)))
        else:
            attend.attribute.append(helper.make_attribute(name, value))
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"im2col_steps": 64}, "im2col_steps: expected one of im2col_step, got a name that is unknown to the dialect; did you mean 'im"),
        ({"zzz": 64}, "zzz: expected one of im2col_step, got a name that is unknown to the dialect; choose another dialect with --from"),
        ({"shapes": [[3, 5]]}, "value: expected values of all maps, 15, got 12"),
        ({"starts": [1]}, "level_start_index: expected [0], got [1]"),
        ({"shapes": [[3, 2], [3, 2]], "starts": [0, 6]}, "shapes: expected sizes as DL::MultiScaleDeformableAttnFunction has them, got "),
    ],
)
def test_attributes_and_sizes_that_do_not_fit(changes, message):
    assert message in refused(attention_of(changes), "dl")


def conv_file(name: str = "groups", value: object = 1, offset: tuple[int, ...] = (1, 18, 5, 5)) -> foreign_models.File:
    feeds = {"x": random(1, 4, 5, 5), "offset": random(*offset), "mask": random(1, 9, 5, 5)}
    window = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": 1} | {name: value}
    conv = helper.make_node("MMCVModulatedDeformConv2d", ["x", "offset", "mask", "w"], ["out"], name="conv", domain="mmcv", **window)
    return foreign_models.File(foreign_models.file([conv], feeds, {"w": random(6, 4, 3, 3)}, 11, ("mmcv",)), feeds, np.zeros(0))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (conv_file("deformable_groups", 1), "attribute deformable_groups: expected one of deform_groups, "),
        (conv_file("stride", 1), "attribute stride: expected ints, got int"),
        (conv_file("stride", [1, 1, 1]), "attribute stride: expected stride (h, w), got [1, 1, 1]"),
        (conv_file("stride", [2, 2]), "Ho of the offsets: expected 3, from its attributes, got 5"),
        (conv_file("deform_groups", 2), "got G*T*2 = 36 elsewhere, 18 here"),
        (conv_file(offset=(1, 20, 5, 5)), "got G*T*2 = 18 elsewhere, 20 here"),
    ],
)
def test_convolutions_that_do_not_fit(file, message):
    got = refused(file, "mmcv")
    assert message in got
    assert got.startswith("conv")


def test_ports_that_are_missing_too_many_or_of_another_kind():
    file = foreign_models.dl()
    attend = file.model.graph.node[-1]
    attend.input.append("bs")
    assert "inputs: expected at most 8 (value, spatial_shapes, " in refused(file, "dl")
    del attend.input[-2:]
    assert "input num_embed: expected num_embed, got none; choose another dialect with --from" in refused(file, "dl")
    attend.input.append("ne")
    attend.input[4] = "shapes"
    assert "input attention_weights, value shapes: expected float32, got int64" in refused(file, "dl")
    attend.input[4], attend.input[1] = "weights", "value"
    assert "input spatial_shapes, value value: expected int64 or int32, got float" in refused(file, "dl")


def test_a_shape_that_nobody_tells_names_the_value():
    file = foreign_models.dl()
    file.model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    got = refused(file, "dl")
    assert got.startswith("attn (DL::MultiScaleDeformableAttnFunction): input value, value value: expected a static shape, got ")
    assert got.endswith("; export it with fixed sizes")


def test_sizes_that_are_computed_are_refused_and_cast_ones_are_not():
    file = foreign_models.dl()
    graph_ = file.model.graph
    graph_.node.insert(1, helper.make_node("Cast", ["shapes"], ["shapes32"], to=6))
    graph_.node[-1].input[1] = "shapes32"
    target = dialect.load("dl")
    model = ir.from_proto(with_shapes(file.model, target, Path(), "the file"))
    assert raise_model(model, target, wide=False) == 1
    assert "Cast" not in operators(model)
    graph_.node[1].CopyFrom(helper.make_node("Add", ["shapes", "shapes"], ["shapes32"]))
    message = "spatial_shapes: expected a constant, got the computed value shapes32; fold the constants of the file first"
    assert message in refused(file, "dl")
