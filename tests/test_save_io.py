"""Inputs and expected outputs as files: what is read back is what was written, and the model makes one of the other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from occport.export.save_io import FORMATS, save_io
from occport.export.spec import from_json
from occport.export.subject import Subject
from occport.export.trace import Outputs
from occport.export.verify import sample_of


def read(path: Path, form: str, dtype: str, shape: list[int]) -> np.ndarray:
    """As a user would read it, with nothing but the index at hand."""
    if form == "npy":
        return np.load(path)
    if form == "bin":
        return np.frombuffer(path.read_bytes(), np.dtype(dtype).newbyteorder("<")).reshape(shape)
    tensor = onnx.TensorProto.FromString(path.read_bytes())
    assert path.stem.endswith(tensor.name)
    return onnx.numpy_helper.to_array(tensor)


def saved(folder: Path, form: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """All inputs and outputs by name, in order, with dtypes and shapes as the index says."""
    index = json.loads((folder / "index.json").read_text())
    files = sorted(path.name for path in folder.iterdir())
    assert files == sorted(["index.json", *(entry["file"] for entry in (*index["inputs"], *index["outputs"]))])
    found: list[dict[str, np.ndarray]] = []
    for kind in ("input", "output"):
        arrays = {}
        for number, entry in enumerate(index[f"{kind}s"]):
            assert entry["file"] == f"{kind}_{number}_{entry['name']}.{form}"
            array = read(folder / entry["file"], form, entry["dtype"], entry["shape"])
            assert (str(array.dtype), list(array.shape)) == (entry["dtype"], entry["shape"])
            arrays[entry["name"]] = array
        found.append(arrays)
    return found[0], found[1]


def subject_and_sample(good, network):
    subject = Subject(from_json(good.manifest["spec"]), good.model, good.geometry)
    return subject, sample_of(network.model, subject.spec, network.loaded.img, network.loaded.lidar2img)


@pytest.mark.parametrize("form", FORMATS)
def test_saved_inputs_give_saved_outputs(form, runtime_export, tiny_network, tmp_path):
    subject, sample = subject_and_sample(runtime_export, tiny_network)
    save_io(subject, sample, tmp_path / "io", form)
    inputs, outputs = saved(tmp_path / "io", form)
    graph = runtime_export.skeleton.graph
    assert list(inputs) == [value.name for value in graph.input] and list(outputs) == [value.name for value in graph.output]
    assert np.array_equal(inputs["img"], tiny_network.loaded.img) and np.array_equal(inputs["lidar2img"], tiny_network.loaded.lidar2img)
    got = subject.run_main(inputs)
    for name, array in outputs.items():
        assert got[name].dtype == array.dtype and got[name].shape == array.shape
        assert (got[name] == array).mean() > 0.999


def test_tables_are_saved_as_inputs(tables_export, tiny_network, tmp_path):
    subject, sample = subject_and_sample(tables_export, tiny_network)
    save_io(subject, sample, tmp_path / "io", "npy")
    inputs, outputs = saved(tmp_path / "io", "npy")
    assert list(inputs) == [value.name for value in tables_export.skeleton.graph.input] and "dropped" not in outputs
    got = subject.run_main(inputs)
    assert all((got[name] == array).mean() > 0.999 for name, array in outputs.items())


def test_fixed_takes_the_image_alone(fixed_export, tiny_network, tmp_path):
    subject, sample = subject_and_sample(fixed_export, tiny_network)
    save_io(subject, sample, tmp_path / "io", "bin")
    inputs, outputs = saved(tmp_path / "io", "bin")
    assert list(inputs) == ["img"] and list(outputs) == [f"labels_scale{scale}" for scale in range(4)]


def test_names_ranks_and_dtypes_of_the_file(runtime_export, tiny_network, tmp_path):
    """The spec's renaming, ranks and label dtype reach the files; values stay."""
    subject, sample = subject_and_sample(runtime_export, tiny_network)
    renames = (("img", "images"), ("dropped", "lost"))
    subject.spec = replace(subject.spec, img_rank=4, lidar2img_rank=3, outputs=Outputs("labels", (3,), "int32"), renames=renames)
    save_io(subject, sample, tmp_path / "io", "bin")
    inputs, outputs = saved(tmp_path / "io", "bin")
    assert {name: array.shape for name, array in inputs.items()} == {"images": (4, 3, 64, 96), "lidar2img": (4, 4, 4)}
    assert list(outputs) == ["labels_scale3", "lost"] and outputs["labels_scale3"].dtype == np.int32
    assert np.array_equal(inputs["images"], tiny_network.loaded.img[0])
    assert np.array_equal(outputs["labels_scale3"], sample.logits[3].argmax(1))


def test_probabilities_are_saved(runtime_export, tiny_network, tmp_path):
    subject, sample = subject_and_sample(runtime_export, tiny_network)
    subject.spec = replace(subject.spec, outputs=Outputs("probabilities", (0,)))
    save_io(subject, sample, tmp_path / "io", "npy")
    _, outputs = saved(tmp_path / "io", "npy")
    assert np.allclose(outputs["probabilities_scale0"].sum(1), 1, atol=1e-5)
