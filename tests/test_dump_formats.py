"""Arrays in files of every format: back as they were, and refused where they are not what the index says."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from occport.bringup.dumps.formats import FORMATS, SUFFIXES, load, read_array, sha256_of_array, write_array
from occport.bringup.dumps.index import Entry, Index
from occport.bringup.dumps.polygraphy import FILE, PolygraphyWriter, spans_of, values_at
from occport.errors import UserError

DTYPES = [np.float32, np.float16, np.float64, np.int64, np.int32, np.uint8, np.bool_, ml_dtypes.bfloat16]


def _array(dtype: type, shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) * 1.5 - 3).astype(dtype)


def _folder(tmp_path: Path, form: str, array: np.ndarray, name: str = "a") -> Index:
    if form == "polygraphy":
        with PolygraphyWriter(tmp_path / FILE) as writer:
            writer.add("first", np.zeros(3, np.float32))
            writer.add(name, array)
        place = FILE
    else:
        place = f"{name}{SUFFIXES[form]}"
        write_array(tmp_path / place, array, name, form)
    entry = Entry(name, "", "", "", "inner", array.dtype.name, array.shape, (), place, sha256_of_array(array))
    return Index("m.onnx", "", "dl", "", form, (entry,))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 3), (), (0, 4)])
def test_every_format_gives_back_every_dtype(tmp_path: Path, form: str, dtype: type, shape: tuple[int, ...]) -> None:
    array = _array(dtype, shape)
    index = _folder(tmp_path, form, array)
    got = load(tmp_path, index, index.tensors[0])
    assert got.dtype == array.dtype and got.shape == shape
    np.testing.assert_array_equal(np.asarray(got).astype(np.float64), array.astype(np.float64))
    assert sha256_of_array(got) == index.tensors[0].sha256


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=arrays(np.float32, array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), elements=st.floats(width=32)),
    form=st.sampled_from(FORMATS), transposed=st.booleans(),
)  # fmt: skip
def test_any_bits_and_any_memory_order_survive(tmp_path: Path, array: np.ndarray, form: str, transposed: bool) -> None:
    array = array.T if transposed else array
    spans_of.cache_clear()
    index = _folder(tmp_path, form, array)
    assert np.asarray(load(tmp_path, index, index.tensors[0])).tobytes() == array.tobytes()


def test_the_hash_is_that_of_the_plain_bytes() -> None:
    array = np.array([[1.0, 2.0]], np.float32)
    assert sha256_of_array(array) == hashlib.sha256(array.tobytes()).hexdigest() == sha256_of_array(np.asfortranarray(array))
    assert sha256_of_array(array.astype(">f4")) == sha256_of_array(array)


@pytest.mark.parametrize(("form", "got"), [("npy", ""), ("raw", "expected 24 bytes, got 20"), ("pb", ""), ("polygraphy", "")])
def test_a_truncated_file_is_named(tmp_path: Path, form: str, got: str) -> None:
    index = _folder(tmp_path, form, _array(np.float32))
    path = tmp_path / index.tensors[0].file
    content = path.read_bytes()
    path.write_bytes(content[:-4] if form != "polygraphy" else content[: content.rindex(b'"values"')])
    spans_of.cache_clear()
    with pytest.raises(UserError, match="make the folder anew") as error:
        load(tmp_path, index, index.tensors[0])
    assert str(path) in str(error.value) and got in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    index = _folder(tmp_path, "npy", _array(np.float32))
    (tmp_path / "a.npy").unlink()
    with pytest.raises(UserError, match=r"a\.npy.*No such file"):
        load(tmp_path, index, index.tensors[0])


def test_arrays_of_another_shape_and_of_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(ValueError, match=r"expected float32 \[2, 3\], got float32 \[3, 2\]"):
        read_array(tmp_path / "a.npy", "npy", "float32", (2, 3))
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_array(tmp_path / "a.npy", "npy", "float32", (1,))


def test_polygraphys_json_is_as_polygraphy_reads_it(tmp_path: Path) -> None:
    """Structure: a list of (runner, iterations); each iteration's outputs by name, arrays as .npy in base64."""
    index = _folder(tmp_path, "polygraphy", _array(np.float32), 'odd "name"/1')
    table = json.loads((tmp_path / FILE).read_text())
    assert table["polygraphy_class"] == "RunResults" and len(table["lst"]) == 1
    _, iterations = table["lst"][0]
    assert iterations[0]["polygraphy_class"] == "IterationResult"
    value = iterations[0]["outputs"][index.tensors[0].name]
    assert value["polygraphy_class"] == "LazyArray" and value["values"]["polygraphy_class"] == "ndarray"
    array = np.load(io.BytesIO(base64.b64decode(value["values"]["array"])))
    np.testing.assert_array_equal(array, _array(np.float32))


def test_polygraphys_saved_inputs_are_read(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, _array(np.float32))
    bare = {"array": base64.b64encode(content.getvalue()).decode(), "polygraphy_class": "ndarray"}
    (tmp_path / "inputs.json").write_text(json.dumps([{"x": bare}], indent=1))
    np.testing.assert_array_equal(values_at(tmp_path / "inputs.json", spans_of(tmp_path / "inputs.json")["x"]), _array(np.float32))


@pytest.mark.parametrize("content", ["", "{}", "no json"])
def test_a_json_without_arrays_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ValueError, match=r"empty file|holds no arrays"):
        spans_of(tmp_path / "x.json")


def test_an_interrupted_writer_leaves_no_readable_end(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), PolygraphyWriter(tmp_path / FILE) as writer:
        writer.add("a", np.zeros(1, np.float32))
        raise KeyboardInterrupt
    with pytest.raises(json.JSONDecodeError):
        json.loads((tmp_path / FILE).read_text())
