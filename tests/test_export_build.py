"""The finished graphs: names, types, ports, and what each setting changes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from exporting import Network
from occport.errors import ExportError
from occport.export import build
from occport.export.build import LAYOUT, build_main, meaning
from occport.export.report import Report
from occport.export.spec import Spec
from occport.export.subject import Subject
from occport.export.verify import check_file
from occport.graph import dialect as dialects
from occport.graph.model_file import write_model
from occport.graph.settings import Settings, with_settings

ATTENTION, DCN = "MultiScaleDeformableAttnFunction", "ModulatedDeformConv2d"
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


DL = dialects.load("dl")


class Built:
    """A graph on disk, checked without running it."""

    def __init__(self, network: Network, spec: Spec, folder: Path) -> None:
        path = folder / "model.onnx"
        write_model(build_main(network.model, spec, None), path)
        self.subject = Subject(spec, path, None)
        self.proto = self.subject.skeleton
        report = Report(lambda line: None)
        check_file(self.subject, report)
        assert report.failures == []

    def nodes(self, op_type: str) -> list[onnx.NodeProto]:
        return [node for node in self.proto.graph.node if node.op_type == op_type]

    @property
    def census(self) -> Counter[str]:
        return Counter(node.op_type for node in self.proto.graph.node)

    def constant(self, name: str) -> onnx.TensorProto:
        for node in self.nodes("Constant"):
            if node.output[0] == name:
                return node.attribute[0].t
        return next(tensor for tensor in self.proto.graph.initializer if tensor.name == name)


@pytest.fixture
def built(tiny_network, quick, tmp_path):
    """Builds with some fields of the spec changed."""

    def make(**changes: object) -> Built:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return Built(tiny_network, replace(tiny_network.spec, **changes), folder)

    return make


@pytest.fixture
def plain(built) -> Built:
    return built()


def named(proto: onnx.ModelProto) -> list[str]:
    graph = proto.graph
    names = [value.name for value in (*graph.input, *graph.output, *graph.initializer)]
    return names + [node.name for node in graph.node] + [name for node in graph.node for name in node.output]


def test_every_name_is_an_identifier_and_every_value_is_typed(plain):
    names = named(plain.proto)
    assert all(IDENTIFIER.fullmatch(name) for name in names)
    nodes = [node.name for node in plain.proto.graph.node]
    assert len(set(nodes)) == len(nodes)
    graph = plain.proto.graph
    typed = {value.name: value.type.tensor_type for value in (*graph.value_info, *graph.output)}
    for node in graph.node:
        for name in node.output:
            if node.op_type == "Constant":
                continue
            assert typed[name].elem_type != 0 and typed[name].HasField("shape")
            assert all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in typed[name].shape.dim)
    assert "pts_bbox_head_transformer_0_encoder_layers_0_attentions_0_deformable_attention_value_proj_weight" in names
    assert "img_backbone_layer4_0_conv2_DeformConv2d" in names


def test_nothing_is_data_dependent(plain):
    assert not {"If", "Loop", "Scan", "NonZero", "ScatterND", "Where_unknown", "Unique", "Compress"} & set(plain.census)
    assert all("reduction" not in [item.name for item in node.attribute] for node in plain.nodes("ScatterElements"))


def test_ports_and_their_meaning(plain):
    graph = plain.proto.graph
    assert [value.name for value in graph.input] == ["img", "lidar2img"]
    assert [value.name for value in graph.output] == [*(f"labels_scale{scale}" for scale in range(4)), "dropped"]
    assert all(value.doc_string == meaning(value.name) for value in (*graph.input, *graph.output))
    assert "BGR" in graph.input[0].doc_string and "X right, Y forward, Z up" in graph.output[0].doc_string


@pytest.mark.parametrize("name", ["img", "lidar2img", "labels_scale3", "logits_scale0", "probabilities_scale1", "dropped", "level0_slots",
                                  "level1_ref_uv", "level2_back", "level0_weight"])  # fmt: skip
def test_meaning_of_every_port(name):
    assert meaning(name) in LAYOUT.values()


def test_counts(plain):
    assert plain.census[DCN] == 3 and plain.census[ATTENTION] == 4
    assert plain.proto.ir_version == 6 and {entry.domain: entry.version for entry in plain.proto.opset_import} == {"": 11, "DL": 1}
    assert not plain.proto.functions
    assert plain.census["ArgMax"] == 4 and plain.census["Softmax"] == 4  # one before each attention node


def test_scalars_of_the_attention_nodes(plain):
    found = [[numpy_helper.to_array(plain.constant(name)).tolist() for name in node.input[-3:]] for node in plain.nodes(ATTENTION)]
    assert found == [[4, 192, 16], [4, 48, 16], [4, 6, 32], [4, 6, 32]]


@pytest.mark.parametrize(
    ("settings", "dtype", "rank", "place"),
    [
        (Settings(), onnx.TensorProto.INT64, 0, "constant"),
        (Settings(scalar_dtype="int32"), onnx.TensorProto.INT32, 0, "constant"),
        (Settings(scalar_rank=1), onnx.TensorProto.INT64, 1, "constant"),
        (Settings(scalar_place="initializer"), onnx.TensorProto.INT64, 0, "initializer"),
        (Settings(scalar_rank=1, scalar_dtype="int32", scalar_place="initializer"), onnx.TensorProto.INT32, 1, "initializer"),
    ],
)
def test_scalar_settings(settings, dtype, rank, place, built):
    model = built(dialect=with_settings(DL, settings))
    constants = {node.output[0] for node in model.nodes("Constant")}
    for node in model.nodes(ATTENTION):
        for name in node.input[-3:]:
            tensor = model.constant(name)
            assert (tensor.data_type, len(tensor.dims), name in constants) == (dtype, rank, place == "constant")


def test_num_embed_of_one_head(built):
    model = built(dialect=with_settings(DL, Settings(num_embed="head")))
    assert [numpy_helper.to_array(model.constant(node.input[-1])).item() for node in model.nodes(ATTENTION)] == [2, 2, 4, 4]


def test_shapes_dtype(built):
    model = built(dialect=with_settings(DL, Settings(shapes_dtype="int32")))
    for node in model.nodes(ATTENTION):
        assert [model.constant(name).data_type for name in node.input[1:3]] == [onnx.TensorProto.INT32] * 2


def test_im2col_step(built):
    model = built(dialect=with_settings(DL, Settings(im2col_step=8)))
    steps = [item.i for node in model.nodes(ATTENTION) for item in node.attribute if item.name == "im2col_step"]
    assert steps == [8] * 4


@pytest.mark.parametrize(("bias", "follows", "inputs"), [("batchnorm", "BatchNormalization", 4), ("add", "Add", 4), ("input", "Relu", 5)])
def test_dcn_bias(bias, follows, inputs, built):
    model = built(dialect=with_settings(DL, Settings(dcn_bias=bias)))
    for node in model.nodes(DCN):
        assert len(node.input) == inputs
        (reader,) = [other for other in model.proto.graph.node if node.output[0] in other.input]
        assert reader.op_type == follows


def test_operator_names(built):
    model = built(dialect=with_settings(DL, Settings(op_names=(("dcn", "A::Conv"), ("msda", "B::Attention")))))
    kinds = Counter((node.domain, node.op_type) for node in model.proto.graph.node if node.domain)
    assert kinds == {("A", "Conv"): 3, ("B", "Attention"): 4}
    assert {entry.domain for entry in model.proto.opset_import} == {"", "A", "B"}


def dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_ranks_of_the_inputs(built):
    graph = built(img_rank=4, lidar2img_rank=3).proto.graph
    assert [dims(value) for value in graph.input] == [[4, 3, 64, 96], [4, 4, 4]]


def test_renames(built):
    renames = (("img", "images"), ("lidar2img", "camera_matrix"), ("labels_scale3", "occupancy"), ("dropped", "lost"))
    graph = built(renames=renames).proto.graph
    assert [value.name for value in graph.input] == ["images", "camera_matrix"]
    assert [value.name for value in graph.output] == ["labels_scale0", "labels_scale1", "labels_scale2", "occupancy", "lost"]
    assert graph.input[0].doc_string == meaning("img") and graph.output[4].doc_string == meaning("dropped")
    assert any("images" in node.input for node in graph.node) and not any("img" in node.input for node in graph.node)


@pytest.mark.parametrize("new", ["a b", "0", "é", "lidar2img", "projection_Div", "img_backbone_conv1_weight"])
def test_renames_that_cannot_be(new, built):
    with pytest.raises(ExportError, match="--rename img="):
        built(renames=(("img", new),))


def test_without_dropped_nothing_of_its_count_is_left(plain, built):
    lean = built(with_dropped=False)
    assert [value.name for value in lean.proto.graph.output] == [f"labels_scale{scale}" for scale in range(4)]
    assert plain.census["Xor"] == 1 and lean.census["Xor"] == 0
    outputs = {name for node in lean.proto.graph.node for name in node.output}
    read = {name for node in lean.proto.graph.node for name in node.input} | {value.name for value in lean.proto.graph.output}
    multiple = {name for node in lean.proto.graph.node if len(node.output) > 1 for name in node.output}
    assert outputs - read - multiple == set()


@pytest.mark.parametrize(
    ("dialect", "opset", "functions"), [("dl", 13, False), ("dl", 16, True), ("dl", 22, False), ("dl", 21, True), ("standard", 16, False),
                                        ("standard", 19, False), ("standard", 22, False)],
)  # fmt: skip
def test_opsets(dialect, opset, functions, built):
    model = built(dialect=dialects.load(dialect), opset=opset, functions=functions)
    assert {entry.domain: entry.version for entry in model.proto.opset_import}[""] == opset
    assert bool(model.proto.functions) is functions
    custom = {node.domain for node in model.proto.graph.node} - {""}
    assert custom == ({"DL"} if dialect == "dl" else set())


def test_batch_axis_of_an_input_of_another_kind_is_left(tiny_network, monkeypatch):
    """`img` alone has its batch axis dropped where lidar2img keeps it; both settings are apart."""
    seen: list[str] = []
    monkeypatch.setattr(build, "drop_batch_axis", lambda graph, name: seen.append(name))
    monkeypatch.setattr(build, "to_dialect", lambda *arguments, **options: None)
    monkeypatch.setattr(build, "name_everything", lambda graph: None)
    graph = ir.Model(
        ir.Graph([ir.Value(name="img"), ir.Value(name="lidar2img")], [], nodes=[], opset_imports={"": 18}, name="g"), ir_version=8
    )
    build._finish(graph, replace(tiny_network.spec, img_rank=4))
    assert seen == ["img"]
