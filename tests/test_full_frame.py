"""The real frame at full size, as a user has it: export, predict both ways, evaluate one against the other, and a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from exporting import ROOT, run_cli

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("full")]
INFOS = Path(__file__).resolve().parents[2] / "shared/data/nuscenes_frame/infos.pkl"
CONFIG = str(ROOT / "projects/configs/surroundocc/surroundocc.py")


@pytest.mark.skipif(not INFOS.is_file(), reason="the real frame is not here")
def test_the_exported_file_labels_the_real_frame_as_pytorch_does(tmp_path):
    frame = f"{INFOS}:0"
    assert run_cli("export", "--config", CONFIG, "--frame", frame, "--output-dir", str(tmp_path)).status == 0
    (model,) = tmp_path.glob("*.onnx")
    for name, network in (("torch", ("--config", CONFIG)), ("onnx", ("--model", str(model)))):
        assert run_cli("predict", frame, *network, "-o", str(tmp_path / name)).status == 0
    (first,), (second,) = ((tmp_path / name).glob("*.npz") for name in ("torch", "onnx"))
    labels = [np.load(path)["labels"] for path in (first, second)]
    assert (labels[0] == labels[1]).mean() >= 0.9999
    places = ("--predictions", str(tmp_path / "onnx"), "--against", str(tmp_path / "torch"), "--json", str(tmp_path / "s.json"))
    ran = run_cli("evaluate", frame, *places)
    assert ran.status == 0, ran.err
    table = json.loads((tmp_path / "s.json").read_text())
    assert table["frames"] == 1 and 0 < table["IoU"] < 1
    picture = tmp_path / "frame.png"
    assert run_cli("view", frame, "--predictions", str(tmp_path / "onnx"), "-o", str(picture)).status == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
