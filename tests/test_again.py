"""`occport verify`: a file, its manifest, and where the weights and the frame are now."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from exporting import Exported, assert_refused, contents, export, run_cli
from occport.seeds import seed_weights
from test_bad_input import frame_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, traces, tiny_network) -> tuple[Exported, Path]:
    """An export with a checkpoint and a frame of its own, both of which lie in a folder `data`."""
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "data"
    data.mkdir()
    checkpoint = data / "weights.pth"
    torch.save({"state_dict": tiny_network.model.state_dict()}, checkpoint)
    frame = frame_folder(data / "frame")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("occport.export.build.trace", traces)
        made = export(folder / "out", "--checkpoint", checkpoint, "--frame", frame, "--opset", "17")
    return made, data


@pytest.fixture
def brisk(monkeypatch) -> None:
    """Without the checks on other rigs, which have their own tests."""
    monkeypatch.setattr("occport.export.pipeline._check_others", lambda *arguments, **named: None)


@pytest.mark.parametrize("kind", ["functions_export", "standard_export", "tables_export", "fixed_export"])
def test_every_form_passes_again(kind, request, brisk):
    good = request.getfixturevalue(kind)
    before = contents(good.model.parent)
    ran = run_cli("verify", good.model)
    assert ran.status == 0 and ran.lines == [ran.err.splitlines()[-1]], ran
    assert "-[✓] SHA-256 of the manifest: unchanged since the export" in ran.out and "-[x]" not in ran.out
    assert ran.out.splitlines()[-1].startswith("all ") and contents(good.model.parent) == before


def test_all_checks_of_the_export_are_made_again(runtime_export):
    ran = run_cli("verify", runtime_export.model)
    assert ran.status == 0
    told = [line for line in ran.out.splitlines() if line.startswith("-[✓]")]
    first = [line for line in runtime_export.ran.out.splitlines() if line.startswith("-[✓]")]
    assert told == ["-[✓] SHA-256 of the manifest: unchanged since the export", *first]
    assert ran.out.splitlines()[-1] == f"all {len(told)} checks passed"


def test_a_trained_file_does_not_say_untrained(trained):
    made, _ = trained
    assert made.model.name == "tiny_dl_opset17_runtime.onnx"
    assert made.manifest["trained"] is True and "UNTRAINED" not in made.ran.out
    assert made.manifest["weights"]["checkpoint"].endswith("data/weights.pth") and made.manifest["weights"]["seed"] is None
    metadata = {entry.key: entry.value for entry in made.skeleton.metadata_props}
    assert metadata["occport.weights"].startswith("checkpoint ") and made.manifest["weights"]["fingerprint"] in metadata["occport.weights"]
    assert made.manifest["frame"]["spec"].endswith("data/frame") and made.manifest["frame"]["name"] == "frame"


def test_trained_file_passes_again(trained, brisk):
    ran = run_cli("verify", trained[0].model)
    assert ran.status == 0 and "-[✓] frame: logits of scale 3" in ran.out


def test_moved_checkpoint_and_frame(trained, tmp_path, brisk):
    made, data = trained
    moved = tmp_path / "moved"
    data.rename(moved)
    try:
        assert_refused(run_cli("verify", made.model), "give --frame")
        assert_refused(run_cli("verify", made.model, "--frame", moved / "frame"), "weights.pth")
        assert run_cli("verify", made.model, "--frame", moved / "frame", "--checkpoint", moved / "weights.pth").status == 0
    finally:
        moved.rename(data)


def test_other_weights_are_refused(trained, tmp_path, tiny_network):
    state = {name: tensor.clone() for name, tensor in tiny_network.model.state_dict().items()}
    state["pts_bbox_head.occ.3.weight"][0, 0] += 1e-3
    torch.save(state, tmp_path / "other.pth")
    line = assert_refused(run_cli("verify", trained[0].model, "--checkpoint", tmp_path / "other.pth"), "fingerprint of the weights")
    assert trained[0].manifest["weights"]["fingerprint"] in line and "give the checkpoint of the export with --checkpoint" in line


def test_checkpoint_for_an_untrained_file(runtime_export, tmp_path, tiny_network, brisk):
    """The same weights from a file are the same weights; others are not."""
    path = tmp_path / "weights.pth"
    torch.save(tiny_network.model.state_dict(), path)
    assert run_cli("verify", runtime_export.model, "--checkpoint", path).status == 0
    model = type(tiny_network.model)(tiny_network.spec.config)
    seed_weights(model, 1)
    torch.save(model.state_dict(), path)
    assert_refused(run_cli("verify", runtime_export.model, "--checkpoint", path), "fingerprint of the weights")


def test_another_frame(runtime_export, tmp_path, brisk):
    def turn_the_rig(table: dict) -> None:
        for camera in table["cameras"].values():
            camera["lidar2img"] = (np.array(camera["lidar2img"]) @ np.diag([-1.0, -1.0, 1.0, 1.0])).tolist()

    ran = run_cli("verify", runtime_export.model, "--frame", frame_folder(tmp_path / "mine", turn_the_rig))
    assert ran.status == 0 and "-[✓] mine: logits of scale 0" in ran.out


def test_frame_of_another_size(runtime_export, tmp_path):
    frame = frame_folder(tmp_path / "frame", size=(160, 100))
    line = assert_refused(run_cli("verify", runtime_export.model, "--frame", frame), "the frame's padded image size: expected (64, 96)")
    assert "(128, 160)" in line


@pytest.fixture
def copied(runtime_export, tmp_path) -> Path:
    """The good file and its manifest in a folder of their own."""
    for path in (runtime_export.model, runtime_export.model.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / runtime_export.model.name


def test_missing_manifest(copied):
    copied.with_suffix(".json").unlink()
    ran = run_cli("verify", copied)
    assert_refused(ran, "expected the file that occport export wrote beside the model, got none; keep the two together")


def test_renamed_together_with_its_manifest(copied, brisk):
    other = copied.with_name("chip.onnx")
    copied.rename(other)
    copied.with_suffix(".json").rename(other.with_suffix(".json"))
    assert run_cli("verify", other).status == 0


def test_the_file_that_is_named_is_the_one_that_is_hashed(copied, brisk):
    """A copy beside the good file, with a copy of its manifest."""
    other = copied.with_name("chip.onnx")
    content = bytearray(copied.read_bytes())
    content[-1] ^= 0  # the same bytes first
    other.write_bytes(content)
    shutil.copy(copied.with_suffix(".json"), other.with_suffix(".json"))
    assert run_cli("verify", other).status == 0
    place = content.rindex(b"occport.weights") + len(b"occport.weights") + 4
    content[place] ^= 1  # one letter of the metadata
    other.write_bytes(content)
    ran = run_cli("verify", other)
    assert ran.status == 1 and "-[x] SHA-256 of the manifest: chip.onnx is not the file that was exported" in ran.out


@pytest.mark.parametrize("cut", [0, 20, 1_000_000])
def test_truncated_file(cut, copied):
    content = copied.read_bytes()
    copied.write_bytes(content[:cut])
    line = refused_or_failed(copied)
    assert "Traceback" not in line


def refused_or_failed(path: Path) -> str:
    """A truncated file is no model: the line says so."""
    ran = run_cli("verify", path)
    assert ran.status == 2 and len(ran.lines) == 1 and path.name in ran.lines[0]
    return ran.lines[0]


def test_missing_geometry_file(tables_export, tmp_path):
    for path in (tables_export.model, tables_export.model.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    copy = tmp_path / tables_export.model.name
    assert_refused(run_cli("verify", copy), "keep the files together")
    table = json.loads(copy.with_suffix(".json").read_text())
    del table["files"]["geometry"]
    copy.with_suffix(".json").write_text(json.dumps(table))
    assert_refused(run_cli("verify", copy), "expected a geometry file, as calibration is tables")


def test_spoilt_geometry_file_fails_on_its_hash(tables_export, tmp_path, brisk):
    for path in tables_export.model.parent.glob("tiny*"):
        shutil.copy(path, tmp_path)
    geometry = tmp_path / tables_export.geometry.name
    geometry.write_bytes(geometry.read_bytes() + b"\x12\x00")  # an empty field more: still a model
    ran = run_cli("verify", tmp_path / tables_export.model.name)
    assert ran.status == 1 and f"-[x] SHA-256 of the manifest: {geometry.name} is not the file" in ran.out
