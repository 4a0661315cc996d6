"""The weights of a model in memory that lie in files: where ONNX Runtime will look for them, and the model's own bytes for it."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped, unused-ignore]

from .errors import ModelFileError


def beside_its_data(model: onnx.ModelProto, folder: Path | None, name: str) -> tuple[onnx.ModelProto, Path | None]:
    """The model in memory and the folder of its external data (None without), as ONNX Runtime will have them.

    It refuses a link that leads out of the folder, which in a download cache every file is: then the data's real places are named.

    Args:
        folder: that the locations are relative to; None where the model has none.
        name: of the model, for errors.

    Errors: ModelFileError for data without a folder, and for a file that is not there.
    """
    tensors = [tensor for tensor in model.graph.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
    locations = {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
    if not locations:
        return model, None
    if folder is None:  # ONNX Runtime would look in the working directory
        raise ModelFileError(name, expected="the folder of its external data", got="none", fix="pass weights_folder")
    for location in sorted(locations):
        if not (folder / location).is_file():
            what = f"external data {folder / location}"
            raise ModelFileError(what, expected=f"the weights of {name}", got="no such file", fix="copy it there too")
    root = folder.resolve()
    real = {location: (root / location).resolve() for location in locations}
    climbs = any(Path(location).is_absolute() or ".." in Path(location).parts for location in locations)
    if climbs or all(path.is_relative_to(root) for path in real.values()):
        return model, root  # a model that itself points elsewhere is ONNX Runtime's to refuse
    root = Path(os.path.commonpath([path.parent for path in real.values()]))
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for tensor in moved.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = real[entry.value].relative_to(root).as_posix()
    return moved, root


def serialised(model: onnx.ModelProto, name: str) -> bytes:
    """The model's bytes without its external data. ModelFileError where they are too many for protobuf."""
    try:
        data: bytes = model.SerializeToString()
    except EncodeError as error:
        raise ModelFileError(name, expected="less than 2 GiB in memory", got=str(error), fix="open a skeleton of its file") from error
    return data
