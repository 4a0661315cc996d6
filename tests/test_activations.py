"""The custom nodes of a file, and what stands on their inputs in a run."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from lowering_model import run
from occport.errors import ModelFileError
from occport.export.network_file import feeds_of, read_network
from occport.graph import dialect as dialects
from occport.graph.runnable import make_runnable
from occport.kit.vectors import activations as module
from occport.kit.vectors.activations import CustomNode, activations, custom_nodes
from vector_files import WITH_NODES, small_file


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path, inputs = small_file(tmp_path_factory.mktemp("small"), "dl")
    file = read_network(path, "dl")
    return file, custom_nodes(file.model, file.dialect), feeds_of(file, None, inputs)[0]


def test_nodes_with_their_sizes_and_attributes(small):
    _, nodes, _ = small
    assert [(node.name, node.operator) for node in nodes] == [("conv", "dcn"), ("a_msda", "msda"), ("b_msda", "msda")]
    conv, attention = nodes[0], nodes[1]
    assert conv.window is not None and conv.window.kernel == (3, 3) and conv.window.padding == (1, 1)
    assert {letter: conv.letters[letter] for letter in ("A", "C", "H", "W", "O", "Ho", "Wo")} == {
        "A": 2, "C": 4, "H": 5, "W": 7, "O": 6, "Ho": 5, "Wo": 7,
    }  # fmt: skip
    assert list(conv.taps) == ["input", "offset", "mask", "weight"] and "bias" not in conv.taps
    assert {letter: attention.letters[letter] for letter in "AQMDSLP"} == {"A": 2, "Q": 5, "M": 3, "D": 2, "S": 35, "L": 1, "P": 2}
    assert attention.attributes == {"im2col_step": 64} and attention.window is None
    taps = attention.taps
    assert [port for port, tap in taps.items() if tap.per_image] == ["value", "sampling_locations", "attention_weights"]
    assert (taps["value"].nbytes, taps["value"].shape, taps["spatial_shapes"].dtype) == (2 * 35 * 6 * 4, (2, 35, 3, 2), np.int64)


def whole(file, node: CustomNode, feeds) -> dict[str, np.ndarray]:
    """What every port holds, all images, by making the values themselves outputs."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    make_runnable(model, file.dialect)
    onnx.load_external_data_for_model(model, str(file.path.parent))
    names = list(dict.fromkeys(tap.value for tap in node.taps.values()))
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    wanted = [name for name in names if name not in constants]
    infos = {info.name: info for info in (*model.graph.value_info, *model.graph.input)}
    del model.graph.output[:]
    model.graph.output.extend(infos[name] for name in wanted)
    found = constants | dict(zip(wanted, run(model, feeds), strict=True))
    return {port: found[tap.value] for port, tap in node.taps.items()}


@pytest.mark.parametrize("at_once", [1, 2000, 2**31])
def test_one_image_of_every_port_however_many_runs(small, at_once):
    file, nodes, feeds = small
    images = {"conv": 1, "a_msda": 0, "b_msda": 1}
    got = list(activations(file, nodes, feeds, images, at_once))
    assert [node.name for node, _ in got] == list(images)
    for node, ports in got:
        want = whole(file, node, feeds)
        assert list(ports) == list(node.taps)
        for port, tap in node.taps.items():
            expected = want[port][images[node.name] : images[node.name] + 1] if tap.per_image else want[port]
            assert ports[port].dtype == tap.dtype
            np.testing.assert_allclose(ports[port], expected, rtol=1e-5, atol=1e-6)


def test_big_networks_are_tapped_in_several_runs(small, monkeypatch):
    file, nodes, feeds = small
    opened = []
    real = module.open_session

    def counted(model, weights_folder):
        opened.append(len(model.graph.output))
        return real(model, weights_folder=weights_folder)

    monkeypatch.setattr(module, "open_session", counted)
    images = {node.name: 0 for node in nodes}
    assert len(list(activations(file, nodes, feeds, images))) == 3 and opened == [4 + 8 + 8]
    opened.clear()
    sizes = [sum(tap.nbytes for tap in node.taps.values()) for node in nodes]
    assert len(list(activations(file, nodes, feeds, images, sizes[0] + sizes[1]))) == 3 and opened == [4 + 8, 8]
    opened.clear()
    assert len(list(activations(file, nodes, feeds, images, 1))) == 3 and opened == [4, 8, 8]


def test_the_file_itself_is_left_alone(small):
    file, nodes, feeds = small
    before = file.model.SerializeToString(deterministic=True)
    list(activations(file, nodes[:1], feeds, {"conv": 0}))
    assert file.model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("name", WITH_NODES)
def test_nodes_are_found_in_every_dialect(name, tmp_path):
    path, _ = small_file(tmp_path, name)
    file = read_network(path, name)
    nodes = custom_nodes(file.model, file.dialect)
    assert [node.operator for node in nodes] == ["dcn", "msda", "msda"]
    for node in nodes:
        contract = file.dialect.dcn if node.operator == "dcn" else file.dialect.msda
        assert node.contract == contract


def test_a_file_without_such_nodes():
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    wanted = "DL::MultiScaleDeformableAttnFunction or DL::ModulatedDeformConv2d"
    with pytest.raises(ModelFileError, match=f"custom nodes of dl: expected {wanted}, got none in the file"):
        custom_nodes(model, dialects.load("dl"))


def test_a_node_that_is_not_as_its_contract_says(small):
    file, _, _ = small
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    node = next(node for node in model.graph.node if node.name == "conv")
    node.attribute.append(onnx.helper.make_attribute("deformable_groups", 1))
    with pytest.raises(ModelFileError, match=r"conv \(DL::\w+\): attribute deformable_groups: .*did you mean 'deform_groups'"):
        custom_nodes(model, file.dialect)


def test_arrays_that_do_not_fit(small):
    file, nodes, feeds = small
    with pytest.raises(ModelFileError, match=r"input 'img' of .*expected float32"):
        list(activations(file, nodes, feeds | {"img": feeds["img"].astype(np.float64)}, {node.name: 0 for node in nodes}))
