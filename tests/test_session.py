"""ONNX Runtime sessions: weights mapped from the file, and every error as one line."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from occport.errors import ModelFileError
from occport.graph.model_file import read_skeleton
from occport.session import Port, open_session

RNG = np.random.default_rng(3)
X = RNG.standard_normal((3, 64), dtype=np.float32)
W = RNG.standard_normal((64, 64), dtype=np.float32)
HALF = RNG.standard_normal((64, 64)).astype(np.float16)
ORDER = RNG.permutation(200)


def model(op_type: str = "MatMul", domain: str = "") -> onnx.ModelProto:
    """y = x @ w, by a node of the given type; z = half[order % 64] in float32, where order is a big int64 constant."""
    nodes = [
        helper.make_node(op_type, ["x", "w"], ["y"], name="product", domain=domain),
        helper.make_node("Mod", ["order", "modulus"], ["rows"]),
        helper.make_node("Gather", ["half", "rows"], ["picked"]),
        helper.make_node("Cast", ["picked"], ["z"], to=TensorProto.FLOAT),
    ]
    tensors = [
        numpy_helper.from_array(W, "w"), numpy_helper.from_array(HALF, "half"), numpy_helper.from_array(ORDER, "order"),
        numpy_helper.from_array(np.array(64), "modulus"),
    ]
    shapes = {"x": ["rows", 64], "y": ["rows", 64], "z": [200, 64]}
    x, y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph(nodes, "small", [x], [y, z], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def one_node(kind: str, inputs: dict[str, tuple[int, list]], output: tuple[int, list | None]) -> onnx.ModelProto:
    node = helper.make_node(kind, list(inputs), ["out"], name="the node")
    ports = [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()]
    graph = helper.make_graph([node], "one", ports, [helper.make_tensor_value_info("out", *output)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def check_values(results: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(results["y"], X @ W, rtol=1e-4, atol=1e-5)
    assert np.array_equal(results["z"], HALF[ORDER % 64].astype(np.float32))


@pytest.mark.parametrize("pad", range(8))
def test_skeleton_runs_with_the_bytes_on_disk_at_any_alignment(tmp_path, pad):
    proto = model()
    proto.producer_name = "p" * (pad + 1)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    skeleton = read_skeleton(path)
    assert skeleton.ByteSize() < 1500
    check_values(open_session(skeleton, weights_folder=tmp_path).run({"x": X}))


def test_changed_skeleton_runs_with_the_bytes_on_disk(tmp_path):
    onnx.save(model(), tmp_path / "m.onnx")
    skeleton = read_skeleton(tmp_path / "m.onnx")
    skeleton.graph.node.append(helper.make_node("Neg", ["y"], ["minus"]))
    skeleton.graph.output.append(helper.make_tensor_value_info("minus", TensorProto.FLOAT, None))
    results = open_session(skeleton, weights_folder=tmp_path).run({"x": X}, ["minus", "y"])
    assert list(results) == ["minus", "y"]
    assert np.array_equal(results["minus"], -results["y"])


def test_path_proto_and_skeleton_give_the_same_bits(tmp_path):
    onnx.save(model(), tmp_path / "m.onnx")
    onnx.save(model(), tmp_path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0)
    skeleton = read_skeleton(tmp_path / "m.onnx")
    sessions = [
        open_session(tmp_path / "m.onnx"), open_session(model()), open_session(tmp_path / "apart.onnx"),
        open_session(skeleton, weights_folder=tmp_path, threads=1),
    ]
    results = [session.run({"x": X}) for session in sessions]
    check_values(results[0])
    assert all(np.array_equal(result[name], results[0][name]) for result in results for name in ("y", "z"))


def test_custom_node_with_a_function_body_runs_from_a_skeleton(tmp_path):
    proto = model(op_type="Product", domain="DL")
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    proto.functions.append(helper.make_function("DL", "Product", ["a", "b"], ["c"], body, [helper.make_opsetid("", 18)]))
    proto.opset_import.append(helper.make_opsetid("DL", 1))
    onnx.save(proto, tmp_path / "m.onnx")
    check_values(open_session(read_skeleton(tmp_path / "m.onnx"), weights_folder=tmp_path).run({"x": X}))


def test_links_as_in_a_download_cache(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    onnx.save(model(), tmp_path / "blobs" / "0123")
    (tmp_path / "snapshot" / "m.onnx").symlink_to(tmp_path / "blobs" / "0123")
    skeleton = read_skeleton(tmp_path / "snapshot" / "m.onnx")
    before = skeleton.SerializeToString()
    check_values(open_session(skeleton, weights_folder=tmp_path / "snapshot").run({"x": X}))
    assert skeleton.SerializeToString() == before


def test_ports():
    session = open_session(model())
    assert session.inputs == (Port("x", np.dtype(np.float32), ("rows", 64)),)
    assert session.outputs == (Port("y", np.dtype(np.float32), ("rows", 64)), Port("z", np.dtype(np.float32), (200, 64)))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.bool_, np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_dtypes_go_through(dtype):
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    result = open_session(one_node("Identity", {"a": (kind, [4])}, (kind, [4]))).run({"a": np.array([0, 1, 1, 0], dtype)})["out"]
    assert result.dtype == dtype
    assert result.tolist() == [0, 1, 1, 0]


def test_feeds_of_any_memory_layout():
    turned = np.asfortranarray(X[:, ::-1])
    np.testing.assert_allclose(open_session(model()).run({"x": turned})["y"], X[:, ::-1] @ W, rtol=1e-4, atol=1e-5)


def test_undeclared_rank_takes_every_shape():
    session = open_session(one_node("Neg", {"a": (TensorProto.FLOAT, None)}, (TensorProto.FLOAT, None)))
    assert session.run({"a": np.ones((2, 1, 3), np.float32)})["out"].shape == (2, 1, 3)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "input 'x' of model 'small': expected float32 ['rows', 64], got nothing; feed all of x"),
        ({"x": X, "q": X}, "input 'q' of model 'small': expected one of x, got an unknown name"),
        ({"x": X[:, :9]}, "input 'x' of model 'small': expected float32 ['rows', 64], got float32 [3, 9]"),
        ({"x": X[0]}, "input 'x' of model 'small': expected float32 ['rows', 64], got float32 [64]"),
        ({"x": X.astype(np.float64)}, "expected float32 ['rows', 64], got float64 [3, 64]; convert it with astype"),
    ],
)
def test_wrong_inputs(feeds, message):
    with pytest.raises(ModelFileError) as caught:
        open_session(model()).run(feeds)
    assert message in str(caught.value)


def test_unknown_output():
    with pytest.raises(ModelFileError, match="output 'q' of model 'small': expected one of y, z, got an unknown name"):
        open_session(model()).run({"x": X}, ["y", "q"])


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (model(op_type="Nope"), "No Op registered for Nope with domain_version of 18; the operator needs a function body in the file"),
        (model(op_type="MSDA", domain="DL"), "No opset import for domain 'DL'"),
    ],
)
def test_models_that_do_not_open(proto, message):
    with pytest.raises(ModelFileError) as caught:
        open_session(proto)
    assert message in str(caught.value)
    assert str(caught.value).startswith("opening model 'small': got ")
    assert "ONNXRuntimeError" not in str(caught.value)


def test_custom_node_without_a_body_names_it_and_the_way_out():
    proto = model(op_type="MSDA", domain="DL")
    proto.opset_import.append(helper.make_opsetid("DL", 1))
    with pytest.raises(ModelFileError, match=r"DL:MSDA\(-1\) is not a registered function/op; the operator needs a function body"):
        open_session(proto)


@pytest.mark.parametrize(
    ("opset", "ir_version", "message"),
    [(99, 10, "ONNX Runtime only *guarantees* support"), (18, 99, "Unsupported model IR version: 99")],
)
def test_versions_from_the_future(opset, ir_version, message):
    proto = model()
    proto.opset_import[0].version = opset
    proto.ir_version = ir_version
    with pytest.raises(ModelFileError) as caught:
        open_session(proto)
    assert str(caught.value).startswith(f"opening model 'small': got {message}")


def test_a_node_that_fails_is_named(capfd):
    inputs = {"a": (TensorProto.FLOAT, [2, 4]), "i": (TensorProto.INT64, [1])}
    session = open_session(one_node("Gather", inputs, (TensorProto.FLOAT, [1, 4])))
    with pytest.raises(ModelFileError) as caught:
        session.run({"a": np.ones((2, 4), np.float32), "i": np.array([9])})
    assert str(caught.value) == (
        "running model 'one': got node 'the node' (Gather): "
        "indices element out of data bounds, idx=9 must be within the inclusive range [-2,1]"
    )
    assert capfd.readouterr() == ("", "")  # ONNX Runtime itself says nothing


def test_sources_of_onnx_runtime_are_not_in_the_message():
    inputs = {"a": (TensorProto.FLOAT, [3, 4]), "s": (TensorProto.INT64, [2])}
    session = open_session(one_node("Reshape", inputs, (TensorProto.FLOAT, None)))
    with pytest.raises(ModelFileError) as caught:
        session.run({"a": np.ones((3, 4), np.float32), "s": np.array([2, 5])})
    assert "node 'the node' (Reshape): " in str(caught.value)
    assert "Input shape:{3,4}, requested shape:{2,5}" in str(caught.value)
    assert "onnxruntime" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ModelFileError, match=r"no\.onnx: expected an ONNX file, got no such file; check the path"):
        open_session(tmp_path / "no.onnx")
    (tmp_path / "text.onnx").write_text("hello " * 99)
    with pytest.raises(ModelFileError, match=r"text\.onnx: got Protobuf parsing failed"):
        open_session(tmp_path / "text.onnx")


def test_skeleton_without_its_weights(tmp_path, monkeypatch):
    onnx.save(model(), tmp_path / "m.onnx")
    skeleton = read_skeleton(tmp_path / "m.onnx")
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would find them by chance
    with pytest.raises(ModelFileError, match="model 'small': expected the folder of its external data, got none; pass weights_folder"):
        open_session(skeleton)
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelFileError, match=r"external data .*other/m\.onnx: expected the weights of model 'small', got no such file; "):
        open_session(skeleton, weights_folder=tmp_path / "other")
    with (tmp_path / "m.onnx").open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(ModelFileError, match=r"opening model 'small': got .*out of bounds or can not be read in full"):
        open_session(skeleton, weights_folder=tmp_path)


def test_model_that_points_out_of_its_folder_is_refused(tmp_path):
    (tmp_path / "inner").mkdir()
    onnx.save(model(), tmp_path / "m.onnx")
    skeleton = read_skeleton(tmp_path / "m.onnx")
    for tensor in skeleton.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace("m.onnx", "../m.onnx")
    with pytest.raises(ModelFileError, match="External data path escapes model directory"):
        open_session(skeleton, weights_folder=tmp_path / "inner")


def test_custom_operator_library_that_is_none(tmp_path):
    with pytest.raises(ModelFileError, match=r"custom operator library .*none\.so: got .*cannot open shared object file"):
        open_session(model(), custom_op_library=tmp_path / "none.so")
    (tmp_path / "text.so").write_text("hello")
    with pytest.raises(ModelFileError, match=r"text\.so: got "):
        open_session(model(), custom_op_library=tmp_path / "text.so")


@pytest.mark.parametrize("threads", [0, -1])
def test_thread_numbers(threads):
    with pytest.raises(ModelFileError, match=f"number of threads: expected at least 1, got {threads}"):
        open_session(model(), threads=threads)


def test_types_that_numpy_lacks():
    proto = one_node("Identity", {"a": (TensorProto.BFLOAT16, [2])}, (TensorProto.BFLOAT16, [2]))
    with pytest.raises(ModelFileError, match=r"'a' of model 'one': expected a tensor type that NumPy has, got tensor\(bfloat16\); put"):
        open_session(proto)


def test_warnings_stay_off_the_terminal(capfd):
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "i"], ["y"])], "warns", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(W, "w"), numpy_helper.from_array(np.array([10**6]), "i"), numpy_helper.from_array(W, "unused")],
    )
    open_session(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    assert capfd.readouterr() == ("", "")
