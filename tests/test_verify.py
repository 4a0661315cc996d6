"""Verification can fail: one thing is changed in a good file, and the right check says so although the SHA-256 is in order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exporting import Exported, attribute, edit_initializer, failures, first, node, run_cli, spoilt, write_manifest
from occport.export import pipeline

CONTRACT, STRUCTURE, PORTS, CHECKER = "contract of dl", "structure", "inputs and outputs", "ONNX checker, full"
HITS, REACH, VALUES = "voxels of each camera", "every input reaches an output", "synthetic: logits of scale"
ATTENTION, DCN = "MultiScaleDeformableAttnFunction", "ModulatedDeformConv2d"
DEBLOCK = "pts_bbox_head_deblocks_6"

Edit = Callable[[onnx.ModelProto, Path], None]  # a model and the folder of its weights


class Case(NamedTuple):
    """One thing to change, the check that must see it, and words of what it must say."""

    edit: Edit
    check: str
    words: str = ""


def set_values(name: str, index: object, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Changes some numbers of an initializer."""

    def edit(proto: onnx.ModelProto, folder: Path) -> None:
        def apply(array: np.ndarray) -> None:
            array[index] = change(array[index])

        edit_initializer(proto, name, folder, apply)

    return edit


def set_input_values(op_type: str, port: int, index: object, change: Callable[[np.ndarray], np.ndarray], name: str = "") -> Edit:
    """The same, of the weight that the first node of a kind reads."""

    def edit(proto: onnx.ModelProto, folder: Path) -> None:
        reader = next(item for item in proto.graph.node if item.op_type == op_type and name in item.name)
        set_values(reader.input[port], index, change)(proto, folder)

    return edit


def set_attribute(op_type: str, name: str, value: object, node_name: str = "") -> Edit:
    """Replaces an attribute of the first node of a kind."""

    def edit(proto: onnx.ModelProto, folder: Path) -> None:
        place = next(item for item in proto.graph.node if item.op_type == op_type and node_name in item.name)
        attribute(place, name).CopyFrom(helper.make_attribute(name, value))

    return edit


def set_constant(part: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Changes the first Constant node whose name has the part."""

    def edit(proto: onnx.ModelProto, folder: Path) -> None:
        place = next(item for item in proto.graph.node if item.op_type == "Constant" and part in item.name)
        array = change(numpy_helper.to_array(place.attribute[0].t))
        place.attribute[0].t.CopyFrom(numpy_helper.from_array(np.asarray(array)))

    return edit


def img_becomes_constant(proto: onnx.ModelProto, folder: Path) -> None:
    reader = next(item for item in proto.graph.node if "img" in item.input)
    shape = [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim]
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), "baked"))
    reader.input[0] = "baked"


def projection_ignores_lidar2img(proto: onnx.ModelProto, folder: Path) -> None:
    reader = next(item for item in proto.graph.node if "lidar2img" in item.input)
    proto.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32).reshape(1, 1, 4, 4).repeat(4, axis=1), "baked"))
    reader.input[0] = "baked"


def scatter_adds(proto: onnx.ModelProto, folder: Path) -> None:
    first(proto, "ScatterElements").attribute.append(helper.make_attribute("reduction", "add"))


def output_int32(proto: onnx.ModelProto, folder: Path) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32


def outputs_swapped(proto: onnx.ModelProto, folder: Path) -> None:
    one, two, *rest = (onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in proto.graph.output)
    del proto.graph.output[:]
    proto.graph.output.extend([two, one, *rest])


def output_renamed(proto: onnx.ModelProto, folder: Path) -> None:
    output_renamed_at(proto, 3)


def output_renamed_at(proto: onnx.ModelProto, place: int) -> None:
    old = proto.graph.output[place].name
    writer = next(item for item in proto.graph.node if old in item.output)
    writer.output[list(writer.output).index(old)] = proto.graph.output[place].name = "other"


def input_shape(proto: onnx.ModelProto, folder: Path) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def dynamic_input(proto: onnx.ModelProto, folder: Path) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def opset_12(proto: onnx.ModelProto, folder: Path) -> None:
    next(entry for entry in proto.opset_import if not entry.domain).version = 12


def ir_8(proto: onnx.ModelProto, folder: Path) -> None:
    proto.ir_version = 8


def function_added(proto: onnx.ModelProto, folder: Path) -> None:
    body = [helper.make_node("Identity", ["x"], ["y"])]
    proto.functions.append(helper.make_function("DL", "Unused", ["x"], ["y"], body, [helper.make_opsetid("", 11)]))
    proto.ir_version = 8


def value_info_lost(proto: onnx.ModelProto, folder: Path) -> None:
    names = [value.name for value in proto.graph.value_info]
    del proto.graph.value_info[names.index("projection_Div")]


def node_renamed_operator(proto: onnx.ModelProto, folder: Path) -> None:
    first(proto, DCN).op_type = "DeformConv2d"


def dcn_mask_for_offset(proto: onnx.ModelProto, folder: Path) -> None:
    """The mask of another layer: the same shapes everywhere."""
    convs = [item for item in proto.graph.node if item.op_type == DCN]
    convs[1].input[2] = convs[0].input[2]


def cameras_swapped(proto: onnx.ModelProto, folder: Path) -> None:
    """The slots of level 0 for the wrong cameras: the same set of numbers in another order."""
    cut = node(proto, "projection_Split_7")
    value = cut.output[1]
    order = numpy_helper.from_array(np.array([1, 0, 2, 3]), "order")
    proto.graph.initializer.append(order)
    cut.output[1] = "unswapped"
    gather = helper.make_node("Gather", ["unswapped", "order"], [value], "swap", axis=1)
    proto.graph.node.insert(list(proto.graph.node).index(cut) + 1, gather)
    (info,) = (item for item in proto.graph.value_info if item.name == value)
    extra = onnx.ValueInfoProto.FromString(info.SerializeToString())
    extra.name = "unswapped"
    proto.graph.value_info.append(extra)


def dropped_is_silent(proto: onnx.ModelProto, folder: Path) -> None:
    """`dropped` says 0 whatever happens."""
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 4, 438), np.float32), "nothing"))
    index = next(i for i, item in enumerate(proto.graph.node) if item.name == "projection_ReduceSum_1")
    proto.graph.node[index].input[0] = "nothing"


RUNTIME: dict[str, Case] = {
    # one weight
    "conv weight": Case(set_values("img_backbone_layer4_0_conv1_weight", (3, 5, 0, 0), lambda x: x + 5), VALUES, "worst at"),
    "whole conv weight": Case(set_values("img_backbone_layer1_0_conv1_weight", ..., lambda x: x[::-1].copy()), VALUES),
    "decoder weight": Case(set_values(f"{DEBLOCK}_0_weight_zyx", (0, 0, 1, 1, 1), lambda x: x + 1), f"{VALUES} 3"),
    "deformable weight": Case(set_values("img_backbone_layer4_1_conv2_weight", 7, lambda x: x * 2), VALUES),
    "offset bias": Case(set_values("img_backbone_layer4_1_conv2_conv_offset_bias", 4, lambda x: x + 1), VALUES),
    "gemm weight": Case(set_input_values("Gemm", 1, (0, 0), lambda x: x + 4), VALUES),
    "group norm scale": Case(set_input_values("BatchNormalization", 1, 0, lambda x: x * 1.5, f"{DEBLOCK}_1"), f"{VALUES} 3"),
    "group norm shift": Case(set_input_values("BatchNormalization", 2, 0, lambda x: x + 0.5, f"{DEBLOCK}_1"), f"{VALUES} 3"),
    "NaN in a weight": Case(set_values(f"{DEBLOCK}_0_weight_zyx", (0, 0, 0, 0, 0), lambda x: x * np.nan), f"{VALUES} 3"),
    # one axis
    "transposed features": Case(set_attribute("Transpose", "perm", [0, 3, 2, 1], "pts_bbox_head_transformer_0"), VALUES),
    "transposed volume": Case(
        set_attribute("Transpose", "perm", [0, 4, 2, 3, 1], "transformer_2_encoder_layers_0"), "synthetic: runs on ONNX Runtime", "Add"
    ),
    "softmax axis": Case(set_attribute("Softmax", "axis", 1), VALUES),
    "argmax axis": Case(set_attribute("ArgMax", "axis", 2), "synthetic: labels_scale0", "expected labels of shape [1, 2, 3, 1]"),
    "concat axis": Case(set_attribute("Concat", "axis", 1), CHECKER),
    "cumsum exclusive": Case(set_attribute("CumSum", "exclusive", 1), HITS, "level0_slots"),
    "scatter axis": Case(set_attribute("ScatterElements", "axis", 2), HITS),
    # one attribute
    "im2col_step": Case(set_attribute(ATTENTION, "im2col_step", 63), CONTRACT, "im2col_step: expected int 64, got int 63"),
    "dcn padding": Case(set_attribute(DCN, "padding", [0, 0]), CONTRACT, "padding: expected ints [1, 1]"),
    "dcn stride": Case(set_attribute(DCN, "stride", [2, 1]), CONTRACT, "stride"),
    "dcn deform_groups": Case(set_attribute(DCN, "deform_groups", 2), CONTRACT, "deform_groups: expected int 1, got int 2"),
    "attribute of another type": Case(set_attribute(DCN, "groups", 1.0), CONTRACT, "groups: expected int 1, got float"),
    "epsilon": Case(set_attribute("InstanceNormalization", "epsilon", 0.1), VALUES),
    # one scalar
    "bs": Case(set_constant("num_images", lambda x: x + 1), CONTRACT, "expected 4, got 5"),
    "num_queries": Case(set_constant("num_queries", lambda x: x - 1), CONTRACT, "num_queries"),
    "num_embed": Case(set_constant("num_embed", lambda x: x // 8), CONTRACT, "num_embed"),
    "num_embed as int32": Case(set_constant("num_embed", lambda x: x.astype(np.int32)), CONTRACT, "expected int64 of rank 0, got int32"),
    "num_queries of rank 1": Case(set_constant("num_queries", lambda x: x.reshape(1)), CONTRACT, "of rank 0, got int64 of shape (1,)"),
    "spatial_shapes": Case(set_constant("spatial_shapes", lambda x: x[:, ::-1].copy()), CONTRACT, "spatial_shapes"),
    "level_start_index": Case(set_constant("level_start_index", lambda x: x + 1), CONTRACT, "expected [0], got [1]"),
    "another operator": Case(node_renamed_operator, CONTRACT, "got DL::DeformConv2d"),
    # geometry
    "points of the projection": Case(set_values("projection_Mul_const1", ..., lambda x: x + 4), HITS),
    "one point": Case(set_values("projection_Mul_const1", (..., slice(20, 21)), lambda x: x - 30), HITS),
    "image size": Case(set_values("projection_Div_const1", (0, 0), lambda x: x * 1.1), HITS),
    "cameras swapped": Case(cameras_swapped, HITS, "level0_slots"),
    "dropped is always 0": Case(dropped_is_silent, HITS, "dropped"),
    "scatter with a reduction": Case(scatter_adds, STRUCTURE, "expected no reduction"),
    # ports
    "output dtype": Case(output_int32, PORTS, "output labels_scale0: expected int64 [1, 2, 3, 1], got int32"),
    "output order": Case(outputs_swapped, PORTS, "outputs: expected ['labels_scale0', 'labels_scale1'"),
    "output name": Case(output_renamed, PORTS, "'other'"),
    "input shape": Case(input_shape, PORTS, "input img: expected float32 [1, 4, 3, 64, 96], got float32 [2, 4, 3, 64, 96]"),
    "dynamic axis": Case(dynamic_input, PORTS, "got float32 [0, 4, 3, 64, 96]"),
    # the file
    "opset": Case(opset_12, STRUCTURE, "opset_import: expected 11, got 12"),
    "ir version": Case(ir_8, STRUCTURE, "ir_version: expected 6, got 8"),
    "a function": Case(function_added, STRUCTURE, "functions: expected none, got 1"),
    "a value without a type": Case(value_info_lost, STRUCTURE, "expected a static shape"),
    # inputs that do nothing
    "img replaced by a constant": Case(img_becomes_constant, REACH, "img"),
    "lidar2img replaced by a constant": Case(projection_ignores_lidar2img, REACH, "lidar2img"),
    "a mask of another layer": Case(dcn_mask_for_offset, VALUES),
}


def assert_judged(good: Exported, name: str, case: Case, network) -> list[str]:
    path = spoilt(good, name, lambda proto: case.edit(proto, good.model.parent))
    found = failures(good, path, network)
    named = [line for line in found if line.startswith(case.check)]
    assert named, found
    assert any(case.words in line for line in named), named
    return found


def test_good_file_passes(runtime_export, tiny_network):
    assert failures(runtime_export, runtime_export.model, tiny_network, following=True) == []


@pytest.mark.parametrize("name", RUNTIME)
def test_one_change_in_a_runtime_file_is_found(name, runtime_export, tiny_network):
    assert_judged(runtime_export, name, RUNTIME[name], tiny_network)


def test_changed_file_fails_on_its_hash(runtime_export, tmp_path, monkeypatch):
    """A real file with one other weight, first with the old manifest, then with a manifest that has its hash."""
    monkeypatch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)  # they would find it too
    proto = onnx.load(runtime_export.model)
    set_values(f"{DEBLOCK}_0_weight_zyx", (0, 0, 1, 1, 1), lambda x: x + 1)(proto, tmp_path)
    path = tmp_path / runtime_export.model.name
    onnx.save(proto, path)
    path.with_suffix(".json").write_bytes(runtime_export.model.with_suffix(".json").read_bytes())
    ran = run_cli("verify", path)
    assert ran.status == 1
    assert f"-[x] SHA-256 of the manifest: {path.name} is not the file that was exported" in ran.out
    assert "verification failed" in ran.lines[-1] and len(ran.lines) == 1
    write_manifest(runtime_export, path)
    ran = run_cli("verify", path)
    assert ran.status == 1 and "-[✓] SHA-256 of the manifest" in ran.out
    failed = [line for line in ran.out.splitlines() if line.startswith("-[x]")]
    assert failed and all("scale" in line for line in failed)
    assert any(line.startswith("-[x] synthetic: logits of scale 3 [this file]: max abs") for line in failed)
    assert not any("scale 2" in line for line in failed)


@pytest.mark.parametrize("name", ["im2col_step", "bs", "scatter with a reduction", "img replaced by a constant"])
def test_command_line_exits_1_with_a_right_hash(name, runtime_export):
    case = RUNTIME[name]
    path = spoilt(runtime_export, f"{name} again", lambda proto: case.edit(proto, runtime_export.model.parent))
    ran = run_cli("verify", path)
    assert ran.status == 1 and ran.lines[-1].startswith("occport: verification failed")
    assert "-[✓] SHA-256 of the manifest" in ran.out
    assert any(line.startswith(f"-[x] {case.check}") and case.words in line for line in ran.out.splitlines()), ran.out
    assert "checks passed" not in ran.out


def bake(proto: onnx.ModelProto, name: str, value: np.ndarray) -> None:
    """An input becomes a constant, and is added to it times 0: it reaches every output and changes none."""
    reader = next(item for item in proto.graph.node if name in item.input)
    proto.graph.initializer.append(numpy_helper.from_array(value, "baked"))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    proto.graph.node.insert(0, helper.make_node("Add", ["nothing", "baked"], ["still"], "still"))
    proto.graph.node.insert(0, helper.make_node("Mul", [name, "zero"], ["nothing"], "nothing"))
    reader.input[0] = "still"
    shapes = (helper.make_tensor_value_info(made, onnx.TensorProto.FLOAT, value.shape) for made in ("nothing", "still"))
    proto.graph.value_info.extend(shapes)


def test_baked_calibration_is_found(runtime_export, tiny_network):
    """The frame's own rig baked in: right for this frame, structure and all; only other rigs tell."""
    path = spoilt(runtime_export, "baked rig", lambda proto: bake(proto, "lidar2img", tiny_network.loaded.lidar2img))
    found = failures(runtime_export, path, tiny_network, following=True)
    assert found[0].startswith(HITS) and "rig turned by 3 degrees: level0_slots" in found[0]
    assert any(line.startswith("rig turned by 20 degrees: logits of scale") for line in found)
    silent = [line for line in found if line.startswith("each camera's image and matrix change the logits")]
    assert len(silent) == 1 and silent[0].count("lidar2img of camera") == 4 and "image of camera" not in silent[0]
    assert not any(line.startswith(("synthetic", CONTRACT, STRUCTURE, PORTS, REACH)) for line in found)


def test_baked_image_is_found(fixed_export, tiny_network):
    """The frame's own images baked in: only another image tells."""
    path = spoilt(fixed_export, "baked image", lambda proto: bake(proto, "img", tiny_network.loaded.img))
    found = failures(fixed_export, path, tiny_network, following=True)
    assert found and all(line.startswith("another image: ") for line in found)
    assert any("logits of scale 3" in line for line in found)


LAYERS = "pts_bbox_head_transformer_2_encoder_layers"  # the first layer's queries are constants, so that much of it is folded

POSITIONS = "0_attentions_0_deformable_attention_MultiScaleDeformableAttention_const3"


def baked(node_name: str, port: int, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Changes the constant that a node reads."""

    def edit(proto: onnx.ModelProto, folder: Path) -> None:
        set_values(node(proto, f"{LAYERS}_{node_name}").input[port], ..., change)(proto, folder)

    return edit


FIXED = {
    "baked slots": Case(baked("1_attentions_0_deformable_attention_Gather", 1, lambda x: np.roll(x, 1)), VALUES),
    "baked positions": Case(set_values(f"{LAYERS}_{POSITIONS}", ..., lambda x: x * 0.9), VALUES),
    "baked rows": Case(baked("1_attentions_0_Gather", 1, lambda x: np.roll(x, 1, -1)), VALUES),
    "baked weights": Case(baked("1_attentions_0_Mul", 1, lambda x: x / 2), VALUES),
    "a weight of a fixed file": Case(set_values("img_backbone_layer4_0_conv1_weight", (3, 5, 0, 0), lambda x: x + 5), VALUES),
    "an input": Case(img_becomes_constant, REACH, "img"),
    "a scalar": Case(set_constant("num_images", lambda x: x + 1), CONTRACT, "expected 4, got 5"),
}


@pytest.mark.parametrize("name", FIXED)
def test_one_change_in_a_fixed_file_is_found(name, fixed_export, tiny_network):
    assert_judged(fixed_export, name, FIXED[name], tiny_network)


def functions_removed(proto: onnx.ModelProto, folder: Path) -> None:
    del proto.functions[:]


def function_changed(proto: onnx.ModelProto, folder: Path) -> None:
    """In the body of the attention node the softmax runs over another axis."""
    body = next(function for function in proto.functions if function.name == ATTENTION)
    place = next(item for item in body.node if item.op_type == "GridSample")
    attribute(place, "align_corners").i = 1


FUNCTIONS = {
    "functions removed": Case(functions_removed, STRUCTURE, "functions: expected some, got 0"),
    "a body changed": Case(function_changed, VALUES),
    "a weight": Case(set_values(f"{DEBLOCK}_0_weight_zyx", (0, 0, 1, 1, 1), lambda x: x + 1), f"{VALUES} 3"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_change_in_a_file_with_functions_is_found(name, functions_export, tiny_network):
    assert_judged(functions_export, name, FUNCTIONS[name], tiny_network)


def custom_node_added(proto: onnx.ModelProto, folder: Path) -> None:
    first(proto, "Relu").domain = "DL"
    proto.opset_import.append(helper.make_opsetid("DL", 1))


STANDARD = {
    "a custom node": Case(custom_node_added, "contract of standard", "expected standard operators only, got DL::Relu"),
    "grid sample": Case(set_attribute("GridSample", "align_corners", 1), VALUES),
    "softmax axis": Case(set_attribute("Softmax", "axis", 1), VALUES),
    "group norm scale": Case(set_input_values("BatchNormalization", 1, 0, lambda x: x * 1.5, f"{DEBLOCK}_1"), f"{VALUES} 3"),
}


@pytest.mark.parametrize("name", STANDARD)
def test_one_change_in_a_standard_file_is_found(name, standard_export, tiny_network):
    assert_judged(standard_export, name, STANDARD[name], tiny_network)


def test_spoilt_geometry_file_is_found(tables_export, tmp_path, tiny_network):
    """The companion of a `tables` export is held to the same: its points, and its ports."""
    good = tables_export.geometry
    assert good is not None
    proto = onnx.load(good)
    set_values("projection_Mul_const1", ..., lambda x: x + 4)(proto, tmp_path)
    found = geometry_failures(tables_export, proto, tmp_path, tiny_network)
    assert any(line.startswith(HITS) and "level0_slots" in line for line in found), found
    assert any(line.startswith(VALUES) for line in found)


def test_geometry_file_with_other_ports_is_found(tables_export, tmp_path, tiny_network):
    good = tables_export.geometry
    assert good is not None
    proto = onnx.load(good)
    output_renamed_at(proto, 2)
    (line,) = geometry_failures(tables_export, proto, tmp_path, tiny_network)
    assert line.startswith(f"{PORTS}: geometry: outputs: expected") and "'other'" in line


def test_geometry_file_that_ignores_its_input_is_found(tables_export, tmp_path, tiny_network):
    good = tables_export.geometry
    assert good is not None
    proto = onnx.load(good)
    projection_ignores_lidar2img(proto, tmp_path)
    (line,) = geometry_failures(tables_export, proto, tmp_path, tiny_network)
    assert line == f"{REACH}: geometry: lidar2img"


def geometry_failures(good: Exported, proto: onnx.ModelProto, folder: Path, network) -> list[str]:
    """The checks that a `tables` export fails with another geometry file."""
    changed = Exported(folder / good.model.name, good.manifest, good.ran)
    changed.model.symlink_to(good.model)
    onnx.save(proto, changed.model.with_suffix(".geometry.onnx"))
    return failures(changed, changed.model, network)


def test_main_file_of_tables_is_held_to_the_network(tables_export, tiny_network):
    case = Case(set_values("img_backbone_layer4_0_conv1_weight", (3, 5, 0, 0), lambda x: x + 5), VALUES)
    assert_judged(tables_export, "weight", case, tiny_network)
