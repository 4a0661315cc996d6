"""The rig in the manifest of a `fixed` file: read back with care, and held against every frame."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporting import assert_refused, run_cli
from occport.errors import FrameError, ModelFileError
from occport.export.baked_rig import baked_rig, check_baked
from occport.export.spec import from_json
from test_bad_input import frame_folder
from test_predictor import frame

FILE = Path("folder/file.onnx")


def test_the_rig_of_the_export_is_in_its_manifest(fixed_export, runtime_export, tiny_network):
    spec = from_json(fixed_export.manifest["spec"])
    rig = baked_rig(fixed_export.manifest, spec, FILE)
    assert rig.dtype == np.float64 and np.array_equal(rig, tiny_network.loaded.frame.lidar2img)
    assert baked_rig(runtime_export.manifest, from_json(runtime_export.manifest["spec"]), FILE) is None


WRONG: dict[str, tuple[Callable[[list], object], str]] = {
    "missing": (lambda rig: None, "frame.lidar2img: expected the rig that is baked into the file, 4 x 4 x 4 numbers, got nothing"),
    "too few": (lambda rig: rig[:3], "frame.lidar2img: expected the rig .*, got 3 x 4 values; export again"),
    "text": (lambda rig: [*rig[:3], "rig"], "frame.lidar2img: expected 4 x 4 numbers, got 'rig'; export again"),
    "no camera": (lambda rig: [*rig[:3], np.zeros((4, 4)).tolist()], "lidar2img of camera 3: expected the last row .*; export again"),
}


@pytest.mark.parametrize("name", WRONG)
def test_manifests_without_a_sound_rig(name, fixed_export):
    change, message = WRONG[name]
    spec, table = from_json(fixed_export.manifest["spec"]), json.loads(json.dumps(fixed_export.manifest))
    table["frame"]["lidar2img"] = change(table["frame"]["lidar2img"])
    with pytest.raises(ModelFileError, match=message):
        baked_rig(table, spec, FILE)


def test_the_cameras_that_differ_are_named():
    some = frame()
    rig = some.lidar2img
    check_baked(some, rig, FILE)
    check_baked(some, np.round(rig, 5), FILE)  # the rounding of written-down numbers
    other = rig.copy()
    other[2, 0, 3] += 0.01 * np.abs(rig[2, 0]).max()
    with pytest.raises(FrameError, match=r"frame5: expected the one that is baked into file\.onnx \(.*got another for CAM_2; export with"):
        check_baked(replace(some, lidar2img=other), rig, FILE)
    with pytest.raises(FrameError, match="got another for every camera; export with --calibration runtime or tables"):
        check_baked(some, other[::-1], FILE)


def turn(table: dict[str, Any]) -> None:
    for camera in table["cameras"].values():
        camera["lidar2img"] = (np.array(camera["lidar2img"]) @ np.diag([-1.0, -1.0, 1.0, 1.0])).tolist()


def test_verify_takes_a_frame_of_the_baked_rig_only(fixed_export, tmp_path, monkeypatch):
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    assert run_cli("verify", fixed_export.model, "--frame", frame_folder(tmp_path / "same")).status == 0
    line = assert_refused(run_cli("verify", fixed_export.model, "--frame", frame_folder(tmp_path / "other", turn)), "calibration of other")
    assert "baked into" in line and line.endswith("export with --calibration runtime or tables for a rig that may change")


def test_verify_of_an_older_manifest(fixed_export, tmp_path, monkeypatch):
    """Its own frame is taken; for another one, nothing tells whether it fits."""
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)
    model = Path(shutil.copy(fixed_export.model, tmp_path))
    table = json.loads(json.dumps(fixed_export.manifest))
    del table["frame"]["lidar2img"]
    model.with_suffix(".json").write_text(json.dumps(table))
    assert run_cli("verify", model).status == 0
    assert_refused(run_cli("verify", model, "--frame", frame_folder(tmp_path / "frame")), "got nothing; export again")
