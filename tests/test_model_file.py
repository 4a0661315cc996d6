"""Streaming ONNX files: the same model as the onnx package writes and reads, without the weights in memory."""

import contextlib
import hashlib
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from occport.errors import ExportError, ModelFileError
from occport.graph import model_file, wire
from occport.graph.model_file import iter_initializers, read_skeleton, sha256_of, stays_inside, tensor_of, write_model

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((64, 64), dtype=np.float32)
HALF = RNG.standard_normal((40, 30)).astype(np.float16)
INDICES = RNG.integers(0, 9, 300)


def rich_model() -> onnx.ModelProto:
    """A model that has something in every corner of the file: function, metadata, doc strings, value_info, small and big tensors."""
    double = helper.make_function(
        "DL", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)], doc_string="a function",
    )
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"], name="product", doc_string="a node"),
        helper.make_node("Twice", ["y"], ["z"], name="twice", domain="DL"),
        helper.make_node("Reshape", ["z", "shape"], ["out"], name="flat"),
    ]
    initializers = [
        numpy_helper.from_array(WEIGHT, "weight"),
        numpy_helper.from_array(np.array([-1, 32], np.int64), "shape"),
        numpy_helper.from_array(HALF, "half"),
        numpy_helper.from_array(INDICES, "indices"),
        numpy_helper.from_array(np.array(["a", "ü" * 2000], np.object_), "words"),
        numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty"),
    ]
    initializers[0].doc_string = "a weight"
    initializers[0].metadata_props.add(key="tensor", value="property")
    graph = helper.make_graph(
        nodes, "rich", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["pairs", 32])], initializers, doc_string="a graph",
        value_info=[helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 64])],
    )
    graph.metadata_props.add(key="graph", value="property")
    model = helper.make_model(
        graph, functions=[double], opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("DL", 1)], ir_version=10,
        producer_name="test", doc_string="a model",
    )
    helper.set_model_props(model, {"b": "2", "a": "1"})
    return model


def normal(model: onnx.ModelProto) -> onnx.ModelProto:
    """As onnx_ir serialises it, so that both sides of a comparison went through the same hands."""
    proto = ir.serde.serialize_model(ir.serde.deserialize_model(model))
    for tensor in proto.graph.initializer:
        del tensor.metadata_props[1:]  # onnx_ir 1.1 writes those of a tensor that it read from a file twice
    return proto


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "rich.onnx"
    write_model(ir.serde.deserialize_model(rich_model()), path)
    return path


def test_single_file_is_what_onnx_reads_and_the_checker_accepts(written):
    assert onnx.load(written) == normal(rich_model())
    onnx.checker.check_model(written, full_check=True)


def test_external_data_is_what_onnx_reads_and_the_checker_accepts(tmp_path):
    path = tmp_path / "rich.onnx"
    write_model(ir.serde.deserialize_model(rich_model()), path, external_data=True)
    bare = onnx.load(path, load_external_data=False)
    entries = {entry.key: entry.value for entry in next(t for t in bare.graph.initializer if t.name == "half").external_data}
    assert entries == {"location": "rich.onnx.data", "offset": str(64 * 64 * 4), "length": str(HALF.nbytes)}
    assert (tmp_path / "rich.onnx.data").read_bytes()[64 * 64 * 4 :][: HALF.nbytes] == HALF.tobytes()
    assert path.stat().st_size < WEIGHT.nbytes
    onnx.checker.check_model(path, full_check=True)
    loaded = onnx.load(path)
    for tensor in loaded.graph.initializer:  # onnx leaves this mark on what it loaded
        tensor.ClearField("data_location")
    assert loaded == normal(rich_model())


def test_external_offsets_are_aligned(tmp_path):
    model = rich_model()
    model.graph.initializer.insert(0, numpy_helper.from_array(np.arange(1025, dtype=np.uint8), "odd"))
    write_model(ir.serde.deserialize_model(model), tmp_path / "a.onnx", external_data=True)
    found = onnx.load(tmp_path / "a.onnx", load_external_data=False).graph.initializer
    offsets = [int(entry.value) for tensor in found for entry in tensor.external_data if entry.key == "offset"]
    assert offsets[0] == 0
    assert offsets[1] == 1088  # 1025 rounded up to 64
    assert all(offset % 64 == 0 for offset in offsets)


def test_a_file_past_the_limit_gets_external_data(tmp_path, monkeypatch):
    model = ir.serde.deserialize_model(rich_model())
    write_model(model, tmp_path / "one.onnx")
    size = (tmp_path / "one.onnx").stat().st_size
    monkeypatch.setattr(model_file, "MAX_FILE", size)
    write_model(model, tmp_path / "fits.onnx")
    assert not (tmp_path / "fits.onnx.data").exists()
    monkeypatch.setattr(model_file, "MAX_FILE", size - 1)
    write_model(model, tmp_path / "two.onnx")
    assert (tmp_path / "two.onnx.data").exists()
    assert np.array_equal(tensor_of(read_skeleton(tmp_path / "two.onnx"), "weight", tmp_path), WEIGHT)


def test_the_limit_is_protobufs():
    assert model_file.MAX_FILE == 2**31 - 1


def test_the_same_model_gives_the_same_bytes(written, tmp_path):
    write_model(ir.serde.deserialize_model(rich_model()), tmp_path / "again.onnx")
    assert written.read_bytes() == (tmp_path / "again.onnx").read_bytes()


def test_the_model_is_as_before(tmp_path):
    model = ir.serde.deserialize_model(rich_model())
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    write_model(model, tmp_path / "a.onnx")
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in tensors.items())
    with pytest.raises(ExportError):
        write_model(model, tmp_path / "no" / "a.onnx")
    assert all(model.graph.initializers[name].const_value is tensor for name, tensor in tensors.items())


def lazy_model(count: int, values: int, alive: list[int]) -> ir.Model:
    """`count` float32 initializers that are made anew whenever they are asked for; `alive` notes each time."""
    graph = ir.Graph([], [], nodes=[], name="lazy", opset_imports={"": 18})
    for number in range(count):

        def make(number: int = number) -> ir.Tensor:
            alive.append(number)
            return ir.Tensor(np.full(values, number, np.float32), name=f"w{number}")

        tensor = ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=ir.Shape([values]), name=f"w{number}", cache=False)
        graph.register_initializer(ir.Value(name=f"w{number}", const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype)))
    return ir.Model(graph, ir_version=10)


@pytest.mark.parametrize("external_data", [False, True])
def test_weights_are_asked_for_once_and_one_at_a_time(tmp_path, external_data):
    asked: list[int] = []
    model = lazy_model(count=10, values=1_000_000, alive=asked)
    tracemalloc.start()
    try:
        write_model(model, tmp_path / "lazy.onnx", external_data=external_data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert asked == list(range(10))
    assert peak < 2.2 * 4_000_000  # of 40 MB: one tensor and its bytes
    skeleton = read_skeleton(tmp_path / "lazy.onnx")
    assert [float(array[-1]) for _, array in iter_initializers(skeleton, tmp_path)] == list(range(10))


def test_reading_a_skeleton_takes_no_memory_for_weights(tmp_path):
    write_model(lazy_model(count=10, values=1_000_000, alive=[]), tmp_path / "lazy.onnx")
    tracemalloc.start()
    try:
        skeleton = read_skeleton(tmp_path / "lazy.onnx")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000
    assert skeleton.ByteSize() < 10_000


def test_torch_backed_weights_of_any_layout_and_bfloat16(tmp_path):
    torch = pytest.importorskip("torch")
    plain = torch.arange(4096, dtype=torch.float32).reshape(64, 64)
    graph = ir.Graph([], [], nodes=[], name="torch", opset_imports={"": 18})
    for name, tensor in (("turned", plain.T), ("brain", plain.to(torch.bfloat16))):
        wrapped = ir.tensor_adapters.TorchTensor(tensor, name=name)
        graph.register_initializer(ir.Value(name=name, const_value=wrapped, shape=wrapped.shape, type=ir.TensorType(wrapped.dtype)))
    write_model(ir.Model(graph, ir_version=10), tmp_path / "torch.onnx")
    skeleton = read_skeleton(tmp_path / "torch.onnx")
    assert np.array_equal(tensor_of(skeleton, "turned", tmp_path), plain.T.numpy())
    brain = tensor_of(skeleton, "brain", tmp_path)
    assert brain.dtype == ml_dtypes.bfloat16
    assert np.array_equal(brain.astype(np.float32), plain.to(torch.bfloat16).float().numpy())


def test_weights_in_other_files_are_taken_in(tmp_path):
    onnx.save(rich_model(), tmp_path / "apart.onnx", save_as_external_data=True, location="elsewhere.bin", size_threshold=0)
    write_model(ir.load(tmp_path / "apart.onnx"), tmp_path / "whole.onnx")
    whole = onnx.load(tmp_path / "whole.onnx", load_external_data=False)
    assert all(tensor.data_location != TensorProto.EXTERNAL for tensor in whole.graph.initializer)
    assert np.array_equal(tensor_of(whole, "weight", tmp_path), WEIGHT)
    assert tensor_of(whole, "shape", tmp_path).tolist() == [-1, 32]


def test_refuses_to_overwrite_the_weights_it_reads(tmp_path):
    write_model(ir.serde.deserialize_model(rich_model()), tmp_path / "a.onnx", external_data=True)
    before = (tmp_path / "a.onnx.data").read_bytes()
    with pytest.raises(ExportError, match=r"a\.onnx\.data: got weights \(weight\) that are still read from it; write to another name"):
        write_model(ir.load(tmp_path / "a.onnx"), tmp_path / "a.onnx", external_data=True)
    assert (tmp_path / "a.onnx.data").read_bytes() == before


def test_no_such_folder_is_one_line(tmp_path):
    with pytest.raises(ExportError, match=r"a\.onnx: expected a place that can be written to, got No such file or directory; free"):
        write_model(ir.serde.deserialize_model(rich_model()), tmp_path / "no" / "a.onnx")


def test_a_full_disk_is_one_line(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    (tmp_path / "a.onnx").symlink_to(full)
    with pytest.raises(ExportError, match="got No space left on device"):
        write_model(lazy_model(count=1, values=100_000, alive=[]), tmp_path / "a.onnx")


def check_skeleton(path: Path, model: onnx.ModelProto) -> None:
    """The skeleton of `path` is `model`, its big tensors pointing to their bytes in the file."""
    skeleton = read_skeleton(path)
    data = path.read_bytes()
    again = onnx.ModelProto()
    again.CopyFrom(skeleton)
    for tensor, original in zip(again.graph.initializer, model.graph.initializer, strict=True):
        if len(original.raw_data) > 1024:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == path.name
            assert tensor.data_location == TensorProto.EXTERNAL
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = data[int(entries["offset"]) :][: int(entries["length"])]
    assert again == model


def test_skeleton_of_a_file_of_ours(written):
    check_skeleton(written, normal(rich_model()))


def test_skeleton_of_a_file_of_onnx(tmp_path):
    onnx.save(rich_model(), tmp_path / "other.onnx")
    check_skeleton(tmp_path / "other.onnx", rich_model())


def test_skeleton_keeps_typed_fields_and_external_data(tmp_path):
    model = rich_model()
    model.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [500], np.arange(500.0)))
    onnx.save(model, tmp_path / "typed.onnx")
    check_skeleton(tmp_path / "typed.onnx", model)
    assert tensor_of(read_skeleton(tmp_path / "typed.onnx"), "typed", tmp_path)[499] == 499
    onnx.save(rich_model(), tmp_path / "apart.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    assert read_skeleton(tmp_path / "apart.onnx") == onnx.load(tmp_path / "apart.onnx", load_external_data=False)
    assert np.array_equal(tensor_of(read_skeleton(tmp_path / "apart.onnx"), "half", tmp_path), HALF)


@settings(deadline=None, max_examples=25)
@given(sizes=st.lists(st.sampled_from([0, 1, 256, 257, 5000]), max_size=6), pad=st.text(max_size=9))
def test_any_mix_of_sizes_survives(tmp_path_factory, sizes, pad):
    folder = tmp_path_factory.mktemp("mix")
    tensors = [numpy_helper.from_array(np.arange(size, dtype=np.float32), f"t{number}") for number, size in enumerate(sizes)]
    graph = helper.make_graph([], "mix", [], [], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name=pad)
    write_model(ir.serde.deserialize_model(model), folder / "a.onnx")
    assert onnx.load(folder / "a.onnx") == normal(model)
    check_skeleton(folder / "a.onnx", normal(model))


KINDS = [
    "float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "int8", "int64", "uint16", "bool", "complex64",
    "int4", "uint4",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_comes_back(tmp_path, kind):
    dtype = np.dtype(getattr(ml_dtypes, kind, kind))
    values = RNG.integers(0, 7, (3, 1025)).astype(dtype)
    tensors = [numpy_helper.from_array(np.zeros(401, np.int8), "shift"), numpy_helper.from_array(values, "w")]
    graph = helper.make_graph([], "dtypes", [], [], tensors)
    onnx.save(helper.make_model(graph, ir_version=11), tmp_path / "a.onnx")
    found = tensor_of(read_skeleton(tmp_path / "a.onnx"), "w", tmp_path)
    assert found.dtype == dtype
    assert np.array_equal(found, values)


def test_mapped_arrays_cannot_be_written(written):
    array = tensor_of(read_skeleton(written), "weight", written.parent)
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0] = 1


def test_iter_initializers_gives_all_in_order(written):
    found = dict(iter_initializers(read_skeleton(written), written.parent))
    assert list(found) == ["weight", "shape", "half", "indices", "words", "empty"]
    assert found["shape"].tolist() == [-1, 32]
    assert found["empty"].shape == (0, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an ONNX model, got an empty file"),
        (b"hello, this is a text file\n" * 9, "got damaged or other data"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "got damaged or other data"),
        (b"PK\x03\x04" + bytes(99), "got damaged or other data"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "got a Git LFS pointer; run `git lfs pull`"),
        (b"\x08\x0a", "got data without graph, opset_import"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        read_skeleton(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"no\.onnx: expected an ONNX model, got No such file or directory; check the path"):
        read_skeleton(tmp_path / "no.onnx")
    with pytest.raises(ModelFileError, match="got Is a directory"):
        read_skeleton(tmp_path)


def test_every_truncation_within_the_graph_is_refused(written, tmp_path):
    whole = written.read_bytes()
    graph_end = next(field.end for field in wire.fields(whole, 0, len(whole)) if field.number == wire.MODEL_GRAPH)
    cut = tmp_path / "cut.onnx"
    for size in [1, 5, 100, len(whole) // 3, len(whole) // 2, graph_end - 1, graph_end]:
        cut.write_bytes(whole[:size])
        with pytest.raises(ModelFileError, match="export it again or copy it anew"):
            read_skeleton(cut)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_damage_never_ends_in_a_traceback(tmp_path_factory, data):
    content = bytearray(normal(rich_model()).SerializeToString()[:3000])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damage") / "a.onnx"
    path.write_bytes(bytes(content))
    with contextlib.suppress(ModelFileError):
        read_skeleton(path)


def test_unknown_initializer_names_the_nearest(written):
    with pytest.raises(ModelFileError) as caught:
        tensor_of(read_skeleton(written), "wieght", written.parent)
    assert str(caught.value) == "initializer 'wieght': expected one of the 6 of the graph, got an unknown name; did you mean 'weight'?"


def test_external_data_that_are_missing_short_or_outside(tmp_path):
    write_model(ir.serde.deserialize_model(rich_model()), tmp_path / "a.onnx", external_data=True)
    skeleton = read_skeleton(tmp_path / "a.onnx")
    with (tmp_path / "a.onnx.data").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(ModelFileError, match=r"a\.onnx\.data: expected 16384 bytes from offset 0 for 'weight', got 100; "):
        tensor_of(skeleton, "weight", tmp_path)
    (tmp_path / "a.onnx.data").unlink()
    with pytest.raises(ModelFileError, match="for 'weight', got no such file"):
        tensor_of(skeleton, "weight", tmp_path)
    skeleton.graph.initializer[0].external_data[0].value = "../secret"
    with pytest.raises(ModelFileError, match=r"expected external data inside the model's folder, got location '\.\./secret'"):
        tensor_of(skeleton, "weight", tmp_path)


@pytest.mark.parametrize("location", ["", "/etc/passwd", "../a", "a/../../b", "..\\a", "C:\\a", "C:a", "\\a"])
def test_locations_that_lead_out(location):
    assert not stays_inside(location)


@pytest.mark.parametrize("location", ["a.data", "weights/a.data", "./a", "a..b"])
def test_locations_that_stay(location):
    assert stays_inside(location)


def test_sha256_of(tmp_path):
    (tmp_path / "a").write_bytes(b"occ" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"occ" * 100_000).hexdigest()
    with pytest.raises(ModelFileError, match="expected a file that can be read, got No such file or directory"):
        sha256_of(tmp_path / "b")


@settings(deadline=None, max_examples=100)
@given(value=st.integers(0, 2**63))
def test_varint_is_read_back(value):
    message = wire.varint(3 << 3 | wire.VARINT) + wire.varint(value)
    assert wire.fields(message, 0, len(message)).__next__() == (3, 0, 0, 1, len(message))
    assert onnx.OperatorSetIdProto.FromString(wire.varint(2 << 3) + wire.varint(value % 2**63)).version == value % 2**63
