"""A 16-bit file against the float32 graph that it comes from: whatever is changed in it is named, however small; nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporting import export
from occport.export.float_twin import check_twin, float_twin
from occport.export.report import Report
from occport.export.spec import from_json
from occport.export.subject import Subject


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return export(tmp_path_factory.mktemp("twin"), "--precision", "fp16", "--dialect", "tensorrt", "--img-rank", "4")


@pytest.fixture(scope="module")
def twin(half, tiny_network):
    subject = Subject(from_json(half.manifest["spec"]), half.model, None)
    with float_twin(subject, tiny_network.model, tiny_network.loaded.lidar2img) as found:
        yield found


def changed(half, twin, tmp_path: Path, change) -> list[str]:
    """What is said of the file with a change."""
    model = onnx.load(half.model)
    change(model.graph)
    path = tmp_path / half.model.name
    onnx.save(model, path)
    shutil.copy(half.model.with_suffix(".json"), tmp_path)
    report = Report(lambda line: None)
    check_twin(Subject(from_json(half.manifest["spec"]), path, None), twin, report)
    return report.failures


def initializer(graph, part: str):
    return next(one for one in graph.initializer if part in one.name and one.data_type == TensorProto.FLOAT16 and len(one.dims) > 1)


def test_a_good_file_is_told_with_its_counts(half, twin, tmp_path):
    assert changed(half, twin, tmp_path, lambda graph: None) == []
    (told,) = [check["detail"] for check in half.manifest["verification"] if check["name"] == "the float32 graph, in fp16"]
    assert "nodes one by one" in told and "numbers rounded once" in told


def test_kernels_that_have_no_such_type_are_named(tmp_path):
    made = export(tmp_path, "--precision", "fp16", "--dialect", "mmcv")
    (told,) = [check["detail"] for check in made.manifest["verification"] if check["name"] == "the float32 graph, in fp16"]
    assert "mmcv::MMCVModulatedDeformConv2d in float32, as dialect mmcv has no kernel for float16" in told


@pytest.mark.parametrize("factor", [1.1, 1.001, 0.0])
def test_one_channel_of_one_weight(half, twin, tmp_path, factor):
    def change(graph):
        tensor = initializer(graph, "layer1_0_conv1")
        array = numpy_helper.to_array(tensor).copy()
        array[0] = (array[0] * np.float32(factor)).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))

    (line,) = changed(half, twin, tmp_path, change)
    assert "layer1_0_conv1" in line and "are not those of the float32 graph, rounded, first at [0, " in line


def between(graph, name: str, kinds: tuple[int, ...]) -> str:
    """A chain of Casts behind a value; the name of its end."""
    for i, kind in enumerate(kinds):
        made = f"{name}_again_{i}"
        typed = next(info for info in graph.value_info if info.name == name)
        info = graph.value_info.add()
        info.CopyFrom(typed)
        info.name, info.type.tensor_type.elem_type = made, kind
        place = next(j for j, node in enumerate(graph.node) if (f"{name}_again_{i - 1}" if i else name) in node.output) + 1
        graph.node.insert(place, helper.make_node("Cast", [f"{name}_again_{i - 1}" if i else name], [made], name=made, to=kind))
    return made


def test_places_that_are_rounded_on_the_way(half, twin, tmp_path):
    def change(graph):
        add = next(node for node in graph.node if node.op_type == "Cast" and "locations" in node.input[0])
        maker = next(node for node in graph.node if add.input[0] in node.output)
        source = next(name for name in maker.input if any(name in node.output for node in graph.node))
        maker.input[list(maker.input).index(source)] = between(graph, source, (TensorProto.FLOAT16, TensorProto.FLOAT))

    found = changed(half, twin, tmp_path, change)
    assert found and "is rounded and widened again before it is read" in found[0]


def test_geometry_in_half(half, twin, tmp_path):
    def change(graph):
        node = next(one for one in graph.node if one.name.startswith("projection_Div"))
        for info in graph.value_info:
            if info.name == node.output[0]:
                info.type.tensor_type.elem_type = TensorProto.FLOAT16

    found = changed(half, twin, tmp_path, change)
    assert found and "in float16, which has to stay in float32" in found[0]


def test_other_nodes_attributes_wires_and_outputs(half, twin, tmp_path):
    def attribute(graph):
        node = next(one for one in graph.node if one.op_type == "Softmax")
        node.attribute[0].i = 1

    def wire(graph):
        first, second = [one for one in graph.node if one.op_type == "Relu"][:2]
        second.input[0] = first.output[0]

    def kind(graph):
        next(one for one in graph.node if one.op_type == "Relu").op_type = "Identity"

    def missing(graph):
        node = next(one for one in graph.node if one.op_type == "Relu")
        graph.node.remove(node)

    def swapped(graph):
        names = [one.name for one in graph.output[:2]]
        graph.output[0].name, graph.output[1].name = names[1], names[0]

    for change, words in (
        (attribute, "other attributes"), (wire, "reads "), (kind, "the float32 graph has"), (missing, "nodes beside casts"),
        (swapped, "output "),
    ):  # fmt: skip
        found = changed(half, twin, tmp_path, change)
        assert found and words in found[0], (change, found)


def test_the_scratch_folder_goes_away(half, tiny_network):
    subject = Subject(from_json(half.manifest["spec"]), half.model, None)
    with pytest.raises(RuntimeError), float_twin(subject, tiny_network.model, tiny_network.loaded.lidar2img) as found:
        place = found.main.parent
        assert place.is_dir()
        raise RuntimeError
    assert not place.exists()
