"""The manifest holds what one must know of a file, and is read back with care."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform

import onnx
import pytest

from exporting import TINY, contents
from occport import __version__
from occport.checkpoint import fingerprint
from occport.config import from_resolved, read_config
from occport.errors import ModelFileError
from occport.export.manifest import PACKAGES, read_manifest, write_json
from occport.export.spec import from_json
from occport.graph.model_file import sha256_of


def test_where_it_comes_from(runtime_export, tiny_network):
    table = runtime_export.manifest
    assert table["format"] == 1 and table["occport"] == __version__ and table["trained"] is False
    assert table["weights"] == {"checkpoint": None, "seed": 0, "fingerprint": fingerprint(tiny_network.model.state_dict())}
    assert table["versions"] == {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= table["versions"].keys()
    frame = table["frame"]
    assert frame["spec"] is None and frame["seed"] == 0 and frame["size"] == [60, 96]
    assert frame["lidar2img"] == tiny_network.loaded.frame.lidar2img.tolist()
    assert frame["cameras"] == ["CAM_0", "CAM_1", "CAM_2", "CAM_3"] and "a made-up city (seed 0)" in frame["described"]


def test_resolved_config(runtime_export):
    spec = from_json(runtime_export.manifest["spec"])
    assert spec.config == from_resolved(runtime_export.manifest["spec"]["config"])
    config = read_config(TINY)
    assert spec.config == config and spec.image_hw == (64, 96)
    assert runtime_export.manifest["config_notes"] == list(config.notes)


def test_form_of_the_file(runtime_export, functions_export, standard_export):
    table = runtime_export.manifest
    assert table["dialect"]["name"] == "dl" and len(table["dialect"]["guesses"]) >= 7
    assert all(guess["what"] and guess["flag"].startswith("--") for guess in table["dialect"]["guesses"])
    assert (table["opset"], table["ir_version"]) == (11, 6)
    assert (functions_export.manifest["opset"], functions_export.manifest["ir_version"]) == (17, functions_export.skeleton.ir_version)
    assert standard_export.manifest["dialect"]["name"] == "standard" and standard_export.manifest["opset"] == 20
    assert [tuple(budget.values()) for budget in table["spec"]["budgets"]] == [(192, 3), (48, 3), (6, 3)]


def test_ports_are_those_of_the_file(runtime_export):
    table, graph = runtime_export.manifest, runtime_export.skeleton.graph
    for ports, values in ((table["inputs"], graph.input), (table["outputs"], graph.output)):
        assert [port["name"] for port in ports] == [value.name for value in values]
        for port, value in zip(ports, values, strict=True):
            tensor = value.type.tensor_type
            assert port["dtype"] == str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
            assert port["shape"] == [dim.dim_value for dim in tensor.shape.dim]
            assert port["meaning"] == value.doc_string and len(port["meaning"]) > 20


def test_classes_and_grid(runtime_export):
    table = runtime_export.manifest
    assert len(table["classes"]) == 17 and [table["classes"][i] for i in (0, 4, 16)] == ["empty", "car", "vegetation"]
    assert table["grid"] == {
        "range_metres": [-50.0, -50.0, -5.0, 50.0, 50.0, 3.0],
        "size_xyz": [16, 24, 8],
        "axes": "X right, Y forward, Z up; lidar frame",
    }


def test_census_and_signatures(runtime_export):
    table, graph = runtime_export.manifest, runtime_export.skeleton.graph
    assert table["nodes"] == len(graph.node) == sum(table["census"].values()) == sum(item["count"] for item in table["signatures"])
    assert table["census"]["DL::ModulatedDeformConv2d"] == 3 and table["census"]["DL::MultiScaleDeformableAttnFunction"] == 4
    (conv,) = [item for item in table["signatures"] if item["operator"] == "DL::ModulatedDeformConv2d"]
    assert conv["inputs"] == "float32[4], float32[4], float32[4], float32[4] const" and conv["outputs"] == "float32[4]"
    assert "deform_groups=1" in conv["attributes"] and "padding=[1, 1]" in conv["attributes"]


def test_verification_figures(runtime_export):
    checks = runtime_export.manifest["verification"]
    assert len(checks) > 20 and all(check["passed"] for check in checks)
    assert f"all {len(checks)} checks passed" in runtime_export.ran.out
    logits = next(check for check in checks if check["name"] == "synthetic: logits of scale 3")
    assert "max abs" in logits["detail"] and "rms" in logits["detail"] and logits["where"] == "this file"
    figures = [value for check in checks for value in check["figures"].values()]
    assert figures and all(math.isfinite(value) for value in figures)
    for check in checks:
        assert f"-[✓] {check['name']}" in runtime_export.ran.out


@pytest.mark.parametrize("kind", ["runtime_export", "tables_export"])
def test_hashes_and_sizes(kind, request):
    good = request.getfixturevalue(kind)
    files = good.manifest["files"]
    assert files.keys() == ({"model", "geometry"} if good.geometry else {"model"})
    for entry in files.values():
        path = good.model.with_name(entry["file"])
        assert entry["sha256"] == sha256_of(path) and entry["bytes"] == path.stat().st_size
    assert files["model"]["file"] == good.model.name


def test_untrained_is_said_everywhere(runtime_export):
    assert "UNTRAINED" in runtime_export.model.name
    metadata = {entry.key: entry.value for entry in runtime_export.skeleton.metadata_props}
    assert metadata["occport.weights"].startswith("UNTRAINED: seeded with 0")
    assert metadata["occport.calibration"] == "runtime" and metadata["occport.dialect"] == "dl"
    assert runtime_export.skeleton.producer_name == "occport" and runtime_export.skeleton.producer_version == __version__
    said = [line for line in runtime_export.ran.out.splitlines() if line.startswith("UNTRAINED")]
    assert len(said) == 2 and "Give --checkpoint" in said[1]


def test_one_file_each_and_nothing_else(tables_export):
    assert [name for name in contents(tables_export.model.parent) or {} if name.startswith(("tiny", "."))] == [
        "tiny_UNTRAINED_dl_opset11_tables.geometry.onnx",
        "tiny_UNTRAINED_dl_opset11_tables.json",
        "tiny_UNTRAINED_dl_opset11_tables.onnx",
    ]


def test_no_semantics_in_the_class_names(tmp_path, tiny_network):
    from dataclasses import replace

    from occport.export.manifest import manifest
    from occport.export.weights import Weights

    spec = replace(tiny_network.spec, config=replace(tiny_network.spec.config, use_semantic=False, num_classes=1))
    path = tmp_path / "a.onnx"
    path.write_bytes(b"x")
    table = manifest(spec, Weights("w.pth", None, "f"), {}, onnx.ModelProto(), {"model": path}, [])
    assert table["classes"] == ["occupied"] and table["trained"] is True and table["files"]["model"]["bytes"] == 1


def test_reading(runtime_export):
    assert read_manifest(runtime_export.model) == runtime_export.manifest


def damaged(part: str, key: str | None) -> str:
    table: dict = {
        "format": 1,
        "spec": {},
        "weights": {"checkpoint": None, "seed": 0, "fingerprint": ""},
        "frame": {"spec": None, "seed": 0},
        "files": {"model": {"file": "a.onnx", "sha256": ""}},
    }
    if key is None:
        table[part] = []
    else:
        del table[part][key]
    return json.dumps(table)


MISSING = [("weights", "fingerprint"), ("frame", "seed"), ("files", "model"), ("files", None), ("spec", None), ("weights", None)]


@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "null", '{"format": 1}', *(damaged(*missing) for missing in MISSING)])
def test_damaged_manifest_is_refused(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"a\.json.*export again"):
        read_manifest(tmp_path / "a.onnx")


def test_manifest_that_is_not_text(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelFileError, match="expected JSON"):
        read_manifest(tmp_path / "a.onnx")


def test_missing_manifest(tmp_path):
    with pytest.raises(ModelFileError, match="keep the two together"):
        read_manifest(tmp_path / "a.onnx")


def test_json_is_readable(tmp_path):
    write_json(tmp_path / "a.json", {"cosine": 0.5, "text": "é → b"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.endswith("}\n") and "é → b" in text and json.loads(text) == {"cosine": 0.5, "text": "é → b"}
