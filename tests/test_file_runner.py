"""Exported files of every form, in use: outputs, ranks, names; budgets that overflow; files that are not what was exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporting import TINY, Exported, Network, seeded_network
from occport.config import read_config
from occport.errors import FrameError, ModelFileError
from occport.export import pipeline
from occport.export.manifest import manifest, write_json
from occport.export.request import Request, make_spec
from occport.export.subject import Subject
from occport.export.weights import Weights
from occport.frames.images import synthetic_images
from occport.frames.visibility import hits, overflow
from occport.model.surroundocc import build_model
from occport.seeds import seed_weights
from occport.use.file_runner import FileRunner
from occport.use.predictor import Predictor
from test_predictor import frame

NO_SEMANTIC = replace(read_config(TINY), use_semantic=False, num_classes=1)


@pytest.fixture(scope="module")
def networks() -> dict[bool, Network]:
    """The tiny network with semantics (True) and without."""
    some = seeded_network()
    model = build_model(NO_SEMANTIC)
    seed_weights(model, 0)
    return {True: some, False: replace(some, model=model)}


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path, quick, networks) -> Write:
    """Writes a file and its manifest as an export does, but unverified."""

    def written(semantic: bool, **request: Any) -> Path:
        network = networks[semantic]
        spec = make_spec(Request(config=network.model.config, **request), network.loaded)
        files = pipeline.write_graphs(network.model, spec, network.loaded.lidar2img, tmp_path, "file", Weights(None, 0, "f"))
        skeleton = Subject(spec, files["model"], None).skeleton
        write_json(tmp_path / "file.json", manifest(spec, Weights(None, 0, "f"), network.loaded.origin, skeleton, files, []))
        return files["model"]

    return written


FORMS: dict[str, tuple[bool, dict[str, Any]]] = {
    "logits, other ranks": (True, {"outputs": "logits", "levels": "finest", "img_rank": 4, "lidar2img_rank": 3}),
    "probabilities, other names": (
        True,
        {
            "outputs": "probabilities", "levels": "finest",
            "renames": (("img", "pixels"), ("lidar2img", "rig"), ("probabilities_scale3", "finest"), ("dropped", "lost")),
        },
    ),
    "other names of tables": (
        True, {"calibration": "tables", "renames": (("level0_slots", "a"), ("lidar2img", "rig"), ("labels_scale3", "z"))},
    ),
    "fixed, without semantics": (False, {"calibration": "fixed"}),
    "int32 labels without semantics": (False, {"outputs": "labels", "levels": "finest", "label_dtype": "int32", "with_dropped": False}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form(form, write, networks):
    semantic, request = FORMS[form]
    file = Predictor(write(semantic, **request))
    some = frame(degrees=0 if "fixed" in form else 12)
    got, want = file.predict(some), Predictor(networks[semantic].model).predict(some)
    assert (got.labels == want.labels).mean() > 0.999 and got.labels.dtype == np.uint8 and got.notes == ()
    assert len(np.unique(want.labels)) > 1
    if semantic:
        assert got.probabilities is None
    else:
        assert got.class_names == ("occupied",) and got.probabilities.dtype == np.float32
        assert np.abs(got.probabilities - want.probabilities).max() < 1e-5


def test_only_what_the_labels_need_is_run(runtime_export):
    runner = FileRunner(runtime_export.model, None, None)
    session = runner._subject.open_only(runner._wanted)
    assert [port.name for port in session.outputs] == ["labels_scale3", "dropped"]
    assert list(runner._subject._sessions.values()) == [session]


@pytest.mark.parametrize("kind", ["runtime_export", "tables_export", "int32 labels without semantics"])
def test_a_budget_that_overflows_is_noted(kind, request, write, networks):
    path = request.getfixturevalue(kind).model if kind not in FORMS else write(FORMS[kind][0], **FORMS[kind][1])
    file = Predictor(path)
    some = frame()
    crowd = replace(some, lidar2img=np.repeat(some.lidar2img[:1], 4, axis=0))  # four cameras look one way, a voxel takes three
    network = networks[True]
    counts = []
    for level, budget, points in zip(network.model.config.levels, network.spec.budgets, file._points, strict=True):
        seen = hits(crowd.lidar2img.astype(np.float32), (64, 96), points)
        assert seen.shape == (4, level.num_voxels)
        counts.append(overflow(seen, budget.slots, budget.cameras))
    assert all(counts)
    lost, levels = sum(counts), ", ".join(map(str, counts))
    assert file.predict(crowd).notes == (
        f"{lost} voxel-camera hits found no room in the file's budget ({levels}, fine to coarse); export with a larger --budget",
    )
    with torch.no_grad():
        _, dropped = network.model.tables(torch.from_numpy(crowd.lidar2img[None].astype(np.float32)), (64, 96), network.spec.budgets)
    assert dropped.tolist() == [counts] and file.predict(some).notes == ()


def test_another_size_of_image(runtime_export):
    some = frame()
    wide = replace(some, images=synthetic_images(4, 60, 97, 0))
    message = r"images of frame5: expected a size that is padded to 64 x 96 as in .*\.onnx, got 60 x 97 \(height x width\); a file is made"
    with pytest.raises(FrameError, match=message):
        Predictor(runtime_export.model).predict(wide)
    assert Predictor(runtime_export.model).predict(replace(some, images=synthetic_images(4, 64, 90, 0))).labels.shape == (16, 24, 8)


@pytest.fixture
def copied(runtime_export, tmp_path) -> Path:
    """The good file and its manifest in a folder of their own."""
    for path in (runtime_export.model, runtime_export.model.with_suffix(".json")):
        shutil.copy(path, tmp_path)
    return tmp_path / runtime_export.model.name


def change(model: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = model.with_suffix(".json")
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))


def test_a_file_that_was_changed_since(copied):
    copied.write_bytes(copied.read_bytes() + b"\x12\x00")
    with pytest.raises(ModelFileError, match=r"\.onnx: expected the file that was exported, by the SHA-256 in its manifest, got another"):
        Predictor(copied)


def test_files_that_are_not_there(copied, tables_export, tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.onnx: expected an exported \.onnx file, got no such file; check the path"):
        Predictor(tmp_path / "none.onnx")
    copied.with_suffix(".json").unlink()
    with pytest.raises(ModelFileError, match=r"expected the file that occport export wrote beside the model, got none; keep the two"):
        Predictor(copied)
    other = tmp_path / "other"
    other.mkdir()
    for path in (tables_export.model, tables_export.model.with_suffix(".json")):
        shutil.copy(path, other)
    with pytest.raises(ModelFileError, match=r"geometry file .*\.geometry\.onnx: expected the file that the manifest names, got none"):
        Predictor(other / tables_export.model.name)


def test_renamed_together_with_its_manifest(copied):
    other = copied.with_name("chip.onnx")
    copied.rename(other)
    copied.with_suffix(".json").rename(other.with_suffix(".json"))
    assert Predictor(other).described.startswith("ONNX Runtime (CPU) on chip.onnx, SHA-256 ")


def without_finest(table: dict[str, Any]) -> None:
    table["spec"]["outputs"]["scales"] = [0, 1]


def test_a_file_without_the_finest_scale(copied):
    change(copied, without_finest)
    with pytest.raises(ModelFileError, match=r"outputs of .*: expected scale 3, the finest, got \[0, 1\]"):
        Predictor(copied)


def test_a_provider_that_is_wrong_gives_no_labels(runtime_export, monkeypatch):
    predictor = Predictor(runtime_export.model)
    monkeypatch.setattr(Subject, "run_only", lambda *arguments: {"labels_scale3": np.full((1, 16, 24, 8), 17)})
    with pytest.raises(ModelFileError, match=r"labels that ONNX Runtime \(CPU\) on .* gives: expected 0 to 16, got 17 to 17; run it on"):
        predictor.predict(frame())


def test_labels_alone_are_noted(write, monkeypatch):
    """A file in which nothing is known of the logits behind its labels."""
    real = Subject.__init__

    def bare(self: Subject, *arguments: Any, **settings: Any) -> None:
        real(self, *arguments, **settings)
        kept = [info for info in self.skeleton.graph.value_info if info.name != "logits_scale3_zyx"]
        del self.skeleton.graph.value_info[:]
        self.skeleton.graph.value_info.extend(kept)

    path = write(False, outputs="labels", levels="finest")
    monkeypatch.setattr(Subject, "__init__", bare)
    got = Predictor(path).predict(frame())
    assert got.probabilities is None and got.notes == (
        "this file gives labels at the threshold 0.5 and no probabilities; upstream's metric takes 0.25",
    )


def test_who_it_is(runtime_export, tables_export):
    made: Mapping[str, Exported] = {"runtime": runtime_export, "tables": tables_export}
    for kind, one in made.items():
        file = Predictor(one.model, threads=2)
        sha256 = {role: entry["sha256"] for role, entry in one.manifest["files"].items()}
        assert file.described == f"ONNX Runtime (CPU) on {one.model.name}, SHA-256 {sha256['model'][:12]}" and file.trained is False
        identity = dict(file.identity)
        assert identity.pop("config") == Predictor(seeded_network().model).identity["config"]
        assert identity == {
            "kind": "onnx", "provider": "CPU", "weights": one.manifest["weights"]["fingerprint"], "model file": sha256["model"],
            **({"geometry file": sha256["geometry"]} if kind == "tables" else {}),
        }  # fmt: skip
    assert Predictor(runtime_export.model, provider="cpu").identity == Predictor(runtime_export.model).identity


def test_a_checkpoint_makes_it_trained(copied):
    change(copied, lambda table: table["weights"].update(checkpoint="weights.pth", seed=None))
    assert Predictor(copied).trained is True


def test_providers(runtime_export):
    with pytest.raises(ModelFileError, match=r"execution provider 'Nothing': expected one that is installed: .*CPU.*, got none of"):
        Predictor(runtime_export.model, provider="Nothing")
