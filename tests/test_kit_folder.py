"""The vectors folder: what lies where, that it reads back as it was, and every way in which it can be damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from kit import write_vectors
from occport.errors import ModelFileError
from occport.kit.cases.case import output_shape
from occport.kit.cases.folder import Held, read_case, write_case
from occport.kit.cases.golden import golden
from occport.kit.cases.precision import PRECISIONS
from occport.kit.cases.record import read_index
from occport.kit.cases.tolerance import pair
from occport.kit.vectors.edge_cases import edge_cases

ATTENTION = edge_cases("msda")[1]
CONVOLUTION = edge_cases("dcn")[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_vectors(tmp_path / "vectors", [ATTENTION, CONVOLUTION])
    return tmp_path / "vectors"


def test_what_lies_where(folder):
    place = folder / CONVOLUTION.name
    assert sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()) == sorted([
        "case.json", "model.onnx", *(f"test_data_set_0/input_{i}.pb" for i in range(5)), "test_data_set_0/output_0.pb",
        *(f"{kind}/{name}.{suffix}" for kind, suffix in (("npy", "npy"), ("raw", "bin"))
          for name in ("input", "offset", "mask", "weight", "bias", "output", "golden")),
    ])  # fmt: skip
    want = golden(CONVOLUTION)
    for number, name in enumerate(("input", "offset", "mask", "weight", "bias")):
        tensor = onnx.load_tensor(place / "test_data_set_0" / f"input_{number}.pb")
        assert tensor.name == name
        np.testing.assert_array_equal(numpy_helper.to_array(tensor), CONVOLUTION.quantities[name])
        raw = np.frombuffer((place / "raw" / f"{name}.bin").read_bytes(), "<f4")
        np.testing.assert_array_equal(raw, CONVOLUTION.quantities[name].ravel())
    rounded = want.astype(np.float32)
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load_tensor(place / "test_data_set_0" / "output_0.pb")), rounded)
    np.testing.assert_array_equal(np.load(place / "npy" / "output.npy"), rounded)
    np.testing.assert_array_equal(np.load(place / "npy" / "golden.npy"), want)
    np.testing.assert_array_equal(np.frombuffer((place / "raw" / "golden.bin").read_bytes(), "<f8"), want.ravel())
    assert (place / "model.onnx").read_bytes() == b"model"


def test_the_record_says_it_all(folder):
    index = json.loads((folder / "index.json").read_text())
    assert index["format"] == "occport vectors 1" and index["dialect"] == "dl" and set(index["contracts"]) == {"msda", "dcn"}
    record = json.loads((folder / CONVOLUTION.name / "case.json").read_text())
    assert index["cases"][1] == record
    assert {"name": "dcn_edge_plain", "operator": "dcn", "source": "edge", "what": CONVOLUTION.what, "seed": 0}.items() <= record.items()
    assert record["attributes"] == {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "deform_groups": 1}
    assert record["inputs"][0] == {"name": "input", "form": "input", "dtype": "float32", "shape": [2, 4, 5, 7], "graph_input": True}
    assert record["output"] == {"dtype": "float32", "shape": [2, 6, 5, 7]}
    for dtype in PRECISIONS:
        atol, rtol = pair(CONVOLUTION, dtype, golden(CONVOLUTION))
        assert record["tolerance"][dtype] == {"atol": atol, "rtol": rtol}
    assert index["cases"][0]["inputs"][1]["dtype"] == "int64"


def test_it_reads_back_as_it_was(folder):
    for record, case in zip(read_index(folder).records, (ATTENTION, CONVOLUTION), strict=True):
        stored = read_case(folder, record)
        assert stored.case.name == case.name and stored.case.what == case.what and stored.record == record
        assert set(stored.case.quantities) == set(case.quantities)
        assert all((stored.case.quantities[name] == array).all() for name, array in case.quantities.items())
        np.testing.assert_array_equal(stored.golden, golden(case))


def test_ports_in_other_forms_are_raised(tmp_path):
    """A dialect with merged points, int32 shapes, a constant inside the model, a scalar, and heads on an axis of their own."""
    A, Q, M, _, _, _ = ATTENTION.quantities["sampling_locations"].shape
    merged = ATTENTION.quantities["sampling_locations"].reshape(A, Q, M, -1)
    ports = [
        Held("value", "value", ATTENTION.quantities["value"]),
        Held("shapes", "spatial_shapes", ATTENTION.quantities["spatial_shapes"].astype(np.int32), graph_input=False),
        Held("places", "sampling_locations_merged", merged),
        Held("weights", "attention_weights", ATTENTION.quantities["attention_weights"]),
        Held("bs", "num_images", np.array(A)),
    ]
    write_case(tmp_path, ATTENTION, ports, golden(ATTENTION), (A, Q, M, 3), b"", {})
    record = written_record(tmp_path)
    inputs = [onnx.load_tensor(path).name for path in sorted((tmp_path / ATTENTION.name / "test_data_set_0").glob("input_*.pb"))]
    assert inputs == ["value", "places", "weights", "bs"]
    assert np.load(tmp_path / ATTENTION.name / "npy" / "output.npy").shape == (A, Q, M, 3)
    stored = read_case(tmp_path, record)
    assert set(stored.case.quantities) == {"value", "spatial_shapes", "level_start_index", "sampling_locations", "attention_weights"}
    np.testing.assert_array_equal(stored.golden, golden(ATTENTION))
    np.testing.assert_array_equal(golden(stored.case), golden(ATTENTION))

    other = read_case(tmp_path, record, lambda record, arrays: ATTENTION.quantities | {"value": arrays["value"] * 2})
    np.testing.assert_allclose(golden(other.case), 2 * golden(ATTENTION))

    def line(number: int, **changes: object) -> str:
        inputs = [replace(port, **changes) if i == number else port for i, port in enumerate(record.inputs)]
        with pytest.raises(ModelFileError) as caught:
            read_case(tmp_path, replace(record, inputs=tuple(inputs)))
        return str(caught.value)

    assert "input places, form: expected one of value, spatial_shapes, " in line(2, form="locations")
    assert "got locations; write the vectors again" in line(2, form="locations")
    assert "input places, form: expected one of value" in line(2, form="offset")
    assert "inputs: expected arrays that fit together, got KeyError: 'spatial_shapes'" in line(1, form="num_queries")
    assert "attention_weights: expected an array of shape [A, Q, M, L, P], got none" in line(3, form="num_queries")


def written_record(folder: Path):
    """The record that case.json holds, read by way of an index."""
    case = json.loads((folder / ATTENTION.name / "case.json").read_text())
    (folder / "index.json").write_text(json.dumps({"format": "occport vectors 1", "dialect": "own", "contracts": {}, "cases": [case]}))
    return read_index(folder).records[0]


def test_what_cannot_be_written(tmp_path):
    def write(case=CONVOLUTION, ports=(), values=None):
        values = golden(CONVOLUTION) if values is None else values
        write_case(tmp_path, case, ports, values, output_shape(CONVOLUTION), b"", {})

    for name in ("../up", "", "a/b", ".hidden", "ö"):
        with pytest.raises(ModelFileError, match=r"name: expected letters, digits, _, \. and -, got"):
            write(ports=[Held(name, "input", np.zeros(1))])
    with pytest.raises(ModelFileError, match="expected inputs not named output or golden, got golden"):
        write(ports=[Held("golden", "input", np.zeros(1))])
    with pytest.raises(ModelFileError, match="expected finite golden values, got inf or nan; give the network finite inputs"):
        write(values=golden(CONVOLUTION) * np.nan)
    with pytest.raises(ModelFileError, match="mask: expected an array"):
        write(CONVOLUTION.with_quantities({"mask": None}))
    assert not any(tmp_path.iterdir())


def damaged(folder: Path, change) -> str:
    """The one line about an index.json that was changed."""
    path = folder / "index.json"
    content = json.loads(path.read_text())
    changed = change(content)
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed or content))
    with pytest.raises(ModelFileError) as caught:
        read_index(folder)
    line = str(caught.value)
    assert str(folder) in line and "occport vectors MODEL.onnx -o DIR" in line and "\n" not in line
    return line


CHANGES = [
    (lambda index: "{", "expected JSON, got"),
    (lambda index: [1], "format: expected 'occport vectors 1', got list"),
    (lambda index: index.update(format="occport vectors 2"), "expected 'occport vectors 1', got 'occport vectors 2'"),
    (lambda index: index.pop("dialect") and None, "expected dialect, contracts and cases, got the fields format, contracts, cases"),
    (lambda index: index["cases"].append(index["cases"][0]), "expected each case once, got msda_edge_levels twice"),
    (lambda index: index["cases"].append(3), "case 2: expected the fields name, operator, source, what, attributes, inputs, output,"),
    (lambda index: index["cases"][0].pop("output") and None, "case 0: expected the fields"),
    (lambda index: index["cases"][0].update(output={"dtype": "float32"}), "case 0: expected a record of a case, got KeyError: 'shape'"),
    (lambda index: index["cases"][0].update(inputs=3), "case 0: expected a record of a case, got TypeError"),
    (lambda index: index["cases"][0]["inputs"][0].update(dtype="float33"), "case 0: expected a record of a case, got TypeError"),
    (lambda index: index["cases"][0].update(name="../up"), "case 0, name: expected letters, digits, _, . and -, got '../up'"),
    (lambda index: index["cases"][1].update(operator="conv"), "case 1, operator: expected msda or dcn, got 'conv'"),
]


@pytest.mark.parametrize(("change", "line"), CHANGES)
def test_a_damaged_index_is_one_line(folder, change, line):
    assert line in damaged(folder, change)


def test_a_folder_without_an_index_is_one_line(tmp_path):
    with pytest.raises(ModelFileError, match=r"vectors folder .*nowhere: expected an index.json in it, got No such file or"):
        read_index(tmp_path / "nowhere")


def test_a_damaged_case_is_one_line(folder):
    record = read_index(folder).records[1]
    place = folder / record.name / "npy"

    def line() -> str:
        with pytest.raises(ModelFileError) as caught:
            read_case(folder, record)
        return str(caught.value)

    np.save(place / "golden.npy", np.zeros((1, 2)))
    assert "golden.npy: expected float64 [2, 6, 5, 7] as the record says, got float64 [1, 2]" in line()
    (place / "mask.npy").write_bytes(b"no npy")
    assert "mask.npy: expected an npy file, got" in line()
    with (place / "mask.npy").open("wb") as file:
        np.savez(file, a=np.zeros(1))
    assert "got an npz archive" in line()
    np.save(place / "mask.npy", np.array([{}], object), allow_pickle=True)
    assert "mask.npy: expected an npy file, got Object arrays cannot be loaded" in line()
    (place / "mask.npy").unlink()
    assert "mask.npy: expected an npy file, got No such file or directory" in line()
    np.save(place / "offset.npy", np.zeros((2, 18, 5, 7), np.float64))
    assert "offset.npy: expected float32 [2, 18, 5, 7] as the record says, got float64 [2, 18, 5, 7]" in line()
