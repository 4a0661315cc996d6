"""What `occport retarget` refuses, and that nothing is written then."""

from __future__ import annotations

from functools import partial

import onnx
import onnx_ir as ir
import pytest
from onnx import helper

import foreign_models
from occport import cli
from occport.commands import retarget as command
from occport.errors import ExportError, ModelFileError, VerificationFailed
from occport.graph import canonical
from occport.graph.functions import Arithmetics
from occport.graph.retargeting import retarget as module
from occport.graph.retargeting.retarget import Wish, retarget
from occport.progress import NullProgress
from retargeting import convert, options_of, write_small


@pytest.fixture
def small(tmp_path):
    """Writes the small network in a dialect; returns the path."""
    return partial(write_small, tmp_path)


def test_narrow_to_wide_needs_what_stands_in_front(tmp_path):
    onnx.save(foreign_models.dl().model, tmp_path / "in.onnx")
    with pytest.raises(ModelFileError) as caught:
        convert(tmp_path / "in.onnx", "bevformer_tensorrt")
    assert str(caught.value) == (
        "attn as MultiScaleDeformableAttnTRT: expected offsets and logits: an Add and a Softmax directly in front of the node, "
        "got locations and weights of another origin; choose a target that takes locations and weights"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (2, "attn as own::.* that points or levels share; choose"),
        (1, "attn as own::.*: expected one level for its port reference_points, got 2 levels"),
    ],
)
def test_a_shared_reference_in_other_cuts(tmp_path, references, message):
    """Only between dialects of the very same ports can such a node go as it is."""
    file = foreign_models.bevformer(references, ((3, 4), (2, 5)))
    onnx.save(file.model, tmp_path / "in.onnx")
    own = tmp_path / "own.toml"
    output = '[msda]\ndomain = "own"\noutput = { form = "heads_merged", dtype = "float32", rank = 3 }\n'
    own.write_text(f'base = "bevformer_tensorrt"\nname = "own"\n{output}')
    with pytest.raises((ExportError, ModelFileError), match=message):
        convert(tmp_path / "in.onnx", str(own))


@pytest.mark.parametrize(
    ("to", "wish", "message"),
    [
        ("tensort", {}, "--to tensort: expected one of ascend, .* got an unknown name"),
        ("tensorrt", {"origin": "nobody"}, "--from nobody: expected one of ascend, .* got an unknown name"),
        ("tensorrt", {"origin": "standard"}, "--from standard: expected a dialect with custom nodes, got one without"),
        ("tensorrt", {"origin": "ascend"}, r"expected nodes npu::Multi.* or npu::NPUDeformableConv2d, got DL::Mod.* --from$"),
        ("tensorrt", {"functions": True}, "--functions: expected a target whose nodes have a domain, .* got tensorrt; leave --func"),
        ("standard", {"functions": True}, "--functions: expected a target whose nodes have a domain, .* got standard; leave --func"),
        ("mmdeploy", {"functions": True}, "--functions: expected a file of opset 16 or later, .* got opset 11; leave --functions out"),
        ("mmdeploy", {"arithmetics": Arithmetics("gather")}, "--msda gather: expected a target that holds arithmetic, got mmdeploy"),
        ("standard", {"arithmetics": Arithmetics("", "deformconv")}, "--dcn.*: expected an opset from 19 on, .* got opset 11; leave --dcn"),
    ],
)
def test_wishes_that_cannot_be(small, tmp_path, to, wish, message):
    source = small("dl", 11)
    with pytest.raises((ExportError, ModelFileError), match=message) as caught:
        convert(source, to, **wish)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["dl.onnx"]


def test_names_that_several_dialects_share(small, tmp_path):
    proto = onnx.load(small("tensorrt"))
    attention = [node for node in proto.graph.node if node.op_type.startswith("Multiscale")]
    for node in attention:
        node.op_type, node.domain = "Identity", ""
        del node.input[1:]
    onnx.save(proto, tmp_path / "in.onnx")
    message = r"in\.onnx: ModulatedDeformConv2d: expected nodes of one dialect, got those of autoware, tensorrt; choose"
    with pytest.raises(ModelFileError, match=message):
        convert(tmp_path / "in.onnx", "dl")


def test_nodes_of_two_dialects(small, tmp_path):
    proto = onnx.load(small("dl"))
    for node in proto.graph.node:
        if node.op_type == "ModulatedDeformConv2d":
            node.domain, node.op_type = "mmcv", "MMCVModulatedDeformConv2d"
    proto.opset_import.add(domain="mmcv", version=1)
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(ModelFileError, match=r"nodes of one dialect, got DL::Multi.*, mmcv::MMCV.*; give --from a \.toml file that has"):
        convert(tmp_path / "in.onnx", "tensorrt")
    _, result = convert(tmp_path / "in.onnx", "tensorrt", origin="dl")
    assert result.others == ("mmcv::MMCVModulatedDeformConv2d",)


def test_files_that_cannot_be_retargeted(small, tmp_path):
    standard, _ = convert(small("dl"), "standard")
    with pytest.raises(ModelFileError, match="expected custom nodes of a known dialect, got none; only files with custom nodes"):
        convert(standard, "dl")
    proto = onnx.load(small("dl"))
    proto.opset_import[0].version = 10
    onnx.save(proto, tmp_path / "old.onnx")
    with pytest.raises(ModelFileError, match="expected opset 11 to 22, got opset 10"):
        convert(tmp_path / "old.onnx", "tensorrt")
    with pytest.raises(ModelFileError, match="expected an ONNX model, got No such file"):
        convert(tmp_path / "no.onnx", "tensorrt")


def _two_makers(graph):
    graph.node[0].output[0] = graph.node[1].output[0]


def _no_maker(graph):
    graph.node[-1].output[0] = "another"


def _kernel(graph):
    node = next(one for one in graph.node if one.op_type == "NPUDeformableConv2d")
    next(one for one in node.attribute if one.name == "kernel_sizes").ints[:] = [5, 5]


def _half_output(graph):
    node = next(one for one in graph.node if one.op_type == "NPUDeformableConv2d")
    info = next(one for one in graph.value_info if one.name == node.output[0])
    info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def _second_output(graph):
    node = next(one for one in graph.node if one.op_type == "NPUDeformableConv2d")
    node.output.append("second")
    graph.node.append(helper.make_node("Relu", ["second"], ["reads_it"], "reader"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_two_makers, r"in\.onnx: value .*: expected one maker, got several; no reader can tell"),
        (_no_maker, r"in\.onnx: output .*: expected a node that makes it, got none"),
        (_kernel, r"conv .*: attribute kernel_sizes: expected \[3, 3\], as the weight is, got \[5, 5\]"),
        (_half_output, "conv .*: output .*: expected float32, got float16"),
        (_second_output, "conv .*: outputs: expected 1, got 2; choose another dialect"),
    ],
)
def test_files_that_contradict_themselves(small, tmp_path, spoil, message):
    proto = onnx.load(small("ascend"))
    spoil(proto.graph)
    onnx.save(proto, tmp_path / "in.onnx")
    with pytest.raises(ModelFileError, match=message) as caught:
        convert(tmp_path / "in.onnx", "dl")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ascend.onnx", "in.onnx"]


def test_custom_nodes_in_a_branch(tmp_path):
    file = foreign_models.dl()
    graph = file.model.graph
    attend = graph.node.pop()
    attend.output[0] = "inner"
    inner = helper.make_graph([attend], "inner", [], [helper.make_empty_tensor_value_info("inner")])
    graph.input.append(helper.make_tensor_value_info("flag", onnx.TensorProto.BOOL, []))
    graph.node.append(helper.make_node("If", ["flag"], ["out"], name="choice", then_branch=inner, else_branch=inner))
    onnx.save(file.model, tmp_path / "in.onnx")
    with pytest.raises(ModelFileError, match=r"attn: expected custom nodes in the main graph, got one inside If choice"):
        convert(tmp_path / "in.onnx", "tensorrt")


def test_places_that_cannot_be_written_to(small):
    source = small("dl")
    with pytest.raises(ExportError, match="expected another file than the input, got the same; choose another name"):
        retarget(source, source, Wish("tensorrt"), NullProgress())
    onnx.save(onnx.load(source), source.with_name("moved.onnx"), save_as_external_data=True, location="out.onnx.data", size_threshold=0)
    with pytest.raises(ExportError, match=r"out\.onnx\.data: expected another file than the input's weights, got the same; choose"):
        retarget(source.with_name("moved.onnx"), source.with_name("out.onnx"), Wish("tensorrt", external_data=True), NullProgress())
    with pytest.raises(ExportError, match=r"expected a name that ends in \.onnx, got folder"):
        retarget(source, source.with_name("folder"), Wish("tensorrt"), NullProgress())


def _wrong_padding(model, target):
    node = next(one for one in model.graph if one.op_type == canonical.DCN)
    node.attributes["dilation"] = ir.AttrInt64s("dilation", [2, 2])
    node.attributes["padding"] = ir.AttrInt64s("padding", [2, 2])


def _wrong_weights(model, target):
    node = next(one for one in model.graph if one.op_type in (canonical.SAMPLED, canonical.MSDA))
    value = node.inputs[3]
    other = ir.Node("", "Neg", [value], name="wrong")
    other.outputs[0].name, other.outputs[0].type, other.outputs[0].shape = "wrong", value.type, value.shape
    model.graph.insert_before(node, other)
    node.replace_input_with(3, other.outputs[0])


@pytest.mark.parametrize(("spoil", "node"), [(_wrong_padding, "conv"), (_wrong_weights, "a_msda")])
@pytest.mark.parametrize("to", ["mmdeploy", "bevformer_tensorrt"])
def test_a_node_that_gives_other_numbers_is_found_and_nothing_is_written(small, monkeypatch, capsys, spoil, node, to):
    honest = module.lower
    monkeypatch.setattr(module, "lower", lambda model, target: (spoil(model, target), honest(model, target)))
    source = small("dl")
    options = options_of(str(source), str(source.with_name("out.onnx")), "--to", to)
    assert cli.run(command.run, options) == VerificationFailed.exit_status == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"FAILED {node}: ")
    assert " of the range at [" in said.out
    assert "verification failed: 1 check of the list above; nothing was written" in said.err
    assert [path.name for path in source.parent.iterdir()] == [source.name]
