"""The frame's inputs and expected outputs as raw files beside the model, for the first run on a chip.

`input_<i>_<name>` in the order of the graph's inputs, `output_<i>_<name>` as PyTorch computed them, `index.json` with names,
dtypes and shapes. Formats: npy; bin (raw little-endian, C order); pb (ONNX TensorProto).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from .manifest import write_json
from .subject import Subject
from .verify import Sample

FORMATS = ("npy", "bin", "pb")


def save_io(subject: Subject, sample: Sample, folder: Path, form: str) -> None:
    """Writes the files into `folder`, which must not exist. `form` is one of FORMATS."""
    folder.mkdir()
    spec = subject.spec
    inputs = {"img": sample.img}
    if spec.calibration == "runtime":
        inputs["lidar2img"] = sample.lidar2img
    if spec.calibration == "tables":
        inputs.update({name: array for name, array in subject.tables(sample.lidar2img).items() if name != "dropped"})
    wanted = spec.outputs.of([torch.from_numpy(logits) for logits in sample.logits])
    outputs = {name: tensor.numpy() for name, tensor in zip(spec.output_names, wanted, strict=False)}
    if "dropped" in spec.output_names:
        outputs["dropped"] = sample.dropped
    index: dict[str, list[dict[str, Any]]] = {"inputs": [], "outputs": []}
    for kind, arrays, shapes in (("input", inputs, spec.input_shapes()), ("output", outputs, spec.output_shapes())):
        for number, (name, (dtype, shape)) in enumerate(shapes.items()):
            array = np.ascontiguousarray(arrays[name].reshape(shape))
            path = folder / f"{kind}_{number}_{spec.renamed(name)}.{form}"
            _write(path, array, spec.renamed(name), form)
            index[f"{kind}s"].append({"name": spec.renamed(name), "file": path.name, "dtype": dtype, "shape": list(shape)})
    write_json(folder / "index.json", index)


def _write(path: Path, array: np.ndarray, name: str, form: str) -> None:
    if form == "npy":
        np.save(path, array)
    elif form == "bin":
        path.write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
    else:
        path.write_bytes(onnx.numpy_helper.from_array(array, name).SerializeToString())
