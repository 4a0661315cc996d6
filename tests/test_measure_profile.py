"""ONNX Runtime's profile: nodes of each run by stage, and their arithmetic by their shapes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from occport.errors import ModelFileError
from occport.measure.operators import Operator
from occport.measure.profile import ProfiledRun, read_profile


def run(ts: int, dur: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}


def node(name: str, kind: str, ts: int, dur: int, into: list[list[int]] = [], out: list[list[int]] = []) -> dict[str, Any]:  # noqa: B006
    shapes = {"input_type_shape": [{"float": shape} for shape in into], "output_type_shape": [{"float": shape} for shape in out]}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": {"op_name": kind, **shapes}}


def read(folder: Path, events: object) -> list[ProfiledRun]:
    path = folder / "profile.json"
    path.write_text(events if isinstance(events, str) else json.dumps(events))
    return read_profile(path)


def test_runs_and_stages(tmp_path: Path):
    events = [
        {"cat": "Session", "name": "model_loading", "ts": 0, "dur": 9},
        node("img_backbone_conv1_Conv", "Conv", 101, 10),
        node("img_backbone_conv1_Conv", "Conv", 301, 20),
        {**node("img_backbone_conv1_Conv", "Conv", 102, 1000), "name": "img_backbone_conv1_Conv_fence_before"},
        node("reorder", "ReorderOutput", 115, 5),
        node("pts_bbox_head_occ_0_Conv", "Conv", 125, 7),
        node("const", "Cast", 100, 3),
        run(300, 90),
        run(100, 50),
    ]
    first, second = read(tmp_path, events)
    assert first.stages == pytest.approx({"rest": 3e-6, "backbone": 15e-6, "decoder": 7e-6}), "a nameless node is of the stage before"
    assert [each.name for each in first.operators] == ["Cast", "Conv", "ReorderOutput", "Conv"]
    assert second == ProfiledRun({"backbone": pytest.approx(20e-6)}, {}, (Operator("Conv", 1, pytest.approx(20e-6), 0),))


@pytest.mark.parametrize(
    ("kind", "into", "out", "flops"),
    [
        ("Conv", [[2, 6, 5, 7], [4, 3, 3, 3], [4]], [[2, 4, 3, 5]], 2 * (2 * 4 * 3 * 5) * 27),
        ("FusedConv", [[1, 3, 4, 4], [8, 3, 1, 1]], [[1, 8, 4, 4]], 2 * (8 * 16) * 3),
        ("ConvTranspose", [[1, 4, 2, 3, 5], [4, 6, 2, 2, 2]], [[1, 6, 4, 6, 10]], 2 * (4 * 30) * 48),
        ("MatMul", [[5, 3], [3, 4]], [[5, 4]], 2 * 5 * 3 * 4),
        ("FusedMatMul", [[2, 3, 5], [2, 3, 4]], [[2, 5, 4]], 2 * 2 * 5 * 3 * 4),
        ("Gemm", [[3, 5], [4, 3], [4]], [[5, 4]], 2 * 5 * 3 * 4),
        ("DeformConv", [[2, 4, 5, 7], [6, 4, 3, 3], [2, 18, 5, 7]], [[2, 6, 5, 7]], 2 * 70 * 6 * 36 + 8 * 70 * 36),
        ("Relu", [[2, 2]], [[2, 2]], 0),
        ("Conv", [[2, 2]], [[2, 2]], 0),
        ("MatMul", [[], [3, 4]], [[4]], 2 * 4),
    ],
)
def test_arithmetic(tmp_path: Path, kind: str, into: list[list[int]], out: list[list[int]], flops: int):
    (found,) = read(tmp_path, [run(0, 9), node("n", kind, 1, 1, into, out)])
    assert found.operators[0].flops == flops
    assert found.flops == ({"rest": flops} if flops else {})


@pytest.mark.parametrize("text", ["", "[", "{}", '[{"cat": "Node"}]', "[1]", '[{"name": "model_run"}]', "null"])
def test_what_is_no_profile(tmp_path: Path, text: str):
    if text == "{}":
        assert read(tmp_path, text) == []
        return
    with pytest.raises(ModelFileError, match=r"profile .*expected one that ONNX Runtime has written"):
        read(tmp_path, text)


def test_a_profile_that_is_not_there(tmp_path: Path):
    with pytest.raises(ModelFileError, match=r"nothing\.json"):
        read_profile(tmp_path / "nothing.json")
