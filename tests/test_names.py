"""Names of nodes and tensors: where they are, valid in C, unique."""

from __future__ import annotations

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occport.errors import ExportError
from occport.graph.names import IDENTIFIER, SCOPES, all_names, identifier, name_everything, rename_ports
from small_graphs import graph, node, random

FEEDS = {"img": random(1, 2, 4, 4), "other": random(1, 2, 4, 4)}
CONV = "['', 'model', 'model.img_backbone', 'model.img_backbone.layer3.0', 'model.img_backbone.layer3.0.conv2', 'conv2d_1']"
OCC = "['', 'model', 'model.pts_bbox_head', 'model.pts_bbox_head.occ.2', 'conv2d_9']"
ENTRY = "['', 'add_3']"


def scoped(made: onnx.NodeProto, scopes: str) -> onnx.NodeProto:
    made.metadata_props.add(key=SCOPES, value=scopes)
    return made


def traced():
    """A graph with names as the exporter gives them."""
    nodes = [
        scoped(node("Conv", ["img", "model.img_backbone.layer3.0.conv2.weight"], "val_1"), CONV),
        scoped(node("Conv", ["val_1", "weight_folded", "bias_folded"], "val_2"), CONV),
        node("Relu", ["val_2"], "val_3"),
        scoped(node("Split", ["val_3", "val_9"], ["a", "b"], axis=1), CONV),
        scoped(node("Conv", ["val_3", "c.weight"], "val_4"), OCC),
        scoped(node("ArgMax", ["val_4"], "labels", axis=1, keepdims=0), ENTRY),
        scoped(node("Add", ["a", "b"], "val_5"), ENTRY),
        scoped(node("Mul", ["val_5", "val_7"], "y"), ENTRY),
        node("Neg", ["other"], "z"),
    ]
    constants = {
        "model.img_backbone.layer3.0.conv2.weight": random(2, 2, 1, 1), "weight_folded": random(2, 2, 1, 1), "bias_folded": random(2),
        "val_9": np.array([1, 1]), "c.weight": random(3, 2, 1, 1), "val_7": random(1),
    }  # fmt: skip
    return graph(nodes, FEEDS, ["labels", "y", "z"], constants)


def named():
    model = traced()
    name_everything(model)
    return model


def test_nodes_say_where_they_are():
    assert [each.name for each in named().graph] == [
        "img_backbone_layer3_0_conv2_Conv",
        "img_backbone_layer3_0_conv2_Conv_1",
        "img_backbone_layer3_0_conv2_Relu",
        "img_backbone_layer3_0_conv2_Split",
        "pts_bbox_head_occ_2_Conv",
        "ArgMax",
        "Add",
        "Mul",
        "Neg",
    ]


def test_tensors_are_called_after_their_nodes_and_ports_keep_their_names():
    model = named()
    outputs = [[value.name for value in each.outputs] for each in model.graph]
    assert outputs == [
        ["img_backbone_layer3_0_conv2_Conv"],
        ["img_backbone_layer3_0_conv2_Conv_1"],
        ["img_backbone_layer3_0_conv2_Relu"],
        ["img_backbone_layer3_0_conv2_Split_0", "img_backbone_layer3_0_conv2_Split_1"],
        ["logits_scale2"],
        ["labels"],
        ["Add"],
        ["y"],
        ["z"],
    ]
    assert [value.name for value in model.graph.inputs] == ["img", "other"]


def test_weights_are_called_after_the_checkpoint_or_their_reader():
    assert set(named().graph.initializers) == {
        "img_backbone_layer3_0_conv2_weight",
        "img_backbone_layer3_0_conv2_Conv_1_weight",
        "img_backbone_layer3_0_conv2_Conv_1_bias",
        "img_backbone_layer3_0_conv2_Split_const1",
        "c_weight",
        "Mul_const1",
    }


def test_logits_that_are_an_output_keep_their_name():
    conv = scoped(node("Conv", ["img", "c.weight"], "logits_scale2"), OCC)
    model = graph([conv], FEEDS, ["logits_scale2"], {"c.weight": random(3, 2, 1, 1)})
    name_everything(model)
    assert [value.name for value in model.graph.outputs] == ["logits_scale2"]
    assert next(iter(model.graph)).name == "pts_bbox_head_occ_2_Conv"


def test_a_node_never_takes_the_name_of_a_port():
    model = graph([node("Relu", ["img"], "Neg"), node("Neg", ["Neg"], "y")], FEEDS, ["Neg", "y"])
    name_everything(model)
    assert [each.name for each in model.graph] == ["Relu", "Neg_1"]
    assert all_names(model) == {"img", "other", "Neg", "y"}


def test_everything_is_an_identifier_unique_and_valid():
    model = named()
    names = [value.name for each in model.graph for value in each.outputs] + [*model.graph.initializers] + ["img", "other"]
    assert len(names) == len(set(names))
    assert all(IDENTIFIER.match(name) for name in names)
    assert all_names(model) == set(names)
    assert not any(each.metadata_props for each in model.graph)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@given(st.text())
def test_any_text_becomes_an_identifier(text):
    made = identifier(text)
    assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", made)
    assert identifier(made) == made


def test_examples_of_identifiers():
    assert [identifier(text) for text in ("a.b-c", "0", "é", "layer 1\n", "ok_9")] == ["a_b_c", "_0", "_", "layer_1_", "ok_9"]


def test_ports_can_be_renamed():
    model = named()
    rename_ports(model, {"img": "camera_images", "y": "occupancy"})
    assert [value.name for value in model.graph.inputs] == ["camera_images", "other"]
    assert [value.name for value in model.graph.outputs] == ["labels", "occupancy", "z"]
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.node[0].input[0] == "camera_images"


@pytest.mark.parametrize(
    ("renames", "message"),
    [
        ({"image": "x"}, r"^--rename image=x: expected one of img, labels, other, y, z, got image$"),
        ({"img": "2d"}, r"^--rename img=2d: expected a name of letters, digits and _, got 2d$"),
        ({"img": ""}, r"^--rename img=: expected a name of letters, digits and _$"),
        ({"img": "a\n"}, r"^--rename img=a : expected a name of letters, digits and _, got a$"),
        ({"img": "y"}, r"^--rename img=y: expected a name that is free, got y is in the graph already$"),
        ({"img": "logits_scale2"}, r"got logits_scale2 is in the graph already$"),
        ({"img": "Mul_const1"}, r"got Mul_const1 is in the graph already$"),
        ({"img": "same", "other": "same"}, r"^--rename other=same: expected a name that is free"),
    ],
)
def test_renames_that_cannot_be(renames, message):
    with pytest.raises(ExportError, match=message):
        rename_ports(named(), renames)
