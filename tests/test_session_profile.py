"""The recording of a session: ONNX Runtime's events of every run, in the file that was asked for."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper

from occport.errors import ModelFileError
from occport.session import open_session


def product():
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "x"], ["y"], name="square")], "small", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_every_run_is_in_the_file_that_was_asked_for(tmp_path):
    path = tmp_path / "a profile.json"
    session = open_session(product(), profile=path)
    x = np.eye(2, dtype=np.float32)
    for _ in range(3):
        assert np.array_equal(session.run({"x": x})["y"], x)
    assert session.profile() == path
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    events = json.loads(path.read_text())
    kernels = [event for event in events if event["name"] == "square_kernel_time"]
    assert len(kernels) == 3
    assert all(event["args"]["op_name"] == "MatMul" and event["dur"] >= 0 for event in kernels)
    assert np.array_equal(session.run({"x": x})["y"], x)  # the session lives on


def test_a_profile_is_read_once(tmp_path):
    session = open_session(product(), profile=tmp_path / "p.json")
    session.profile()
    with pytest.raises(ModelFileError, match=r"profile of .*: expected a session that is recorded, got none; open it with profile="):
        session.profile()


def test_a_session_without_recording_has_no_profile():
    with pytest.raises(ModelFileError, match="expected a session that is recorded, got none"):
        open_session(product()).profile()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ModelFileError, match=r"expected a folder to write in, got .*missing; make it first"):
        open_session(product(), profile=tmp_path / "missing" / "p.json")
