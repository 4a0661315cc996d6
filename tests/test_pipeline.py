"""Exports from start to end: what each flag makes, that they repeat, and that a planted bug leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from exporting import MICRO, TINY, assert_refused, contents, export, run_cli
from occport.config import read_config
from occport.errors import ExportError, FrameError
from occport.export import follow, pipeline
from occport.export.request import Request, file_name, load_input, make_spec
from occport.export.spec import from_json
from occport.export.subject import Subject
from occport.export.trace import Outputs
from occport.graph.passes import fold_scale, group_norm_affine
from occport.model.projection import Budget, Projection
from test_bad_input import frame_folder


@pytest.fixture
def brisk(quick, monkeypatch) -> None:
    """Exports without the checks on other rigs, which have their own tests."""
    monkeypatch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)


def test_names_of_files(tiny_network):
    spec = tiny_network.spec
    assert file_name(spec, trained=False) == "tiny_UNTRAINED_dl_opset11_runtime"
    assert file_name(spec, trained=True) == "tiny_dl_opset11_runtime"
    functions = replace(spec, opset=17, functions=True, calibration="tables")
    assert file_name(functions, trained=True) == "tiny_dl_opset17_functions_tables"


def test_what_is_left_open_is_chosen(tiny_network):
    loaded = tiny_network.loaded

    def made(**changes: object):
        return make_spec(Request(config=read_config(TINY), **changes), loaded)

    assert made() == tiny_network.spec
    assert made().outputs == Outputs("labels", (0, 1, 2, 3), "int64", False) and made().opset == 11
    assert made(functions=True).opset == 17 and made(functions=True, opset=16).opset == 16
    assert made(dialect="standard").opset >= 16 and made(dialect="standard").functions is False
    assert made(levels="finest").outputs.scales == (3,)
    assert made(budgets=((150, None), (30, 2), (4, None))).budgets == (Budget(150, 3), Budget(30, 2), Budget(4, 3))
    config = replace(read_config(TINY), num_classes=1, use_semantic=False)
    assert make_spec(Request(config=config), loaded).outputs.kind == "probabilities"
    assert make_spec(Request(config=config, outputs="labels"), loaded).outputs.kind == "labels"
    with pytest.raises(ExportError, match="--calibration: expected one of runtime, tables, fixed, got sometimes"):
        made(calibration="sometimes")


def test_input_is_preprocessed_as_upstream(tmp_path):
    config = read_config(TINY)
    loaded = load_input(config, str(frame_folder(tmp_path / "frame")))
    assert loaded.img.shape == (1, 4, 3, 64, 96) and loaded.img.dtype == np.float32
    assert loaded.lidar2img.shape == (1, 4, 4, 4) and loaded.lidar2img.dtype == np.float32
    for channel, mean in enumerate((103.530, 116.280, 123.675)):
        assert np.allclose(loaded.img[0, 2, channel, :60], 120 - mean, atol=1e-4)
    assert (loaded.img[..., 60:, :] == 0).all() and loaded.blind == ()
    assert loaded.origin["spec"] == str(tmp_path / "frame") and loaded.origin["cameras"] == [f"CAM_{i}" for i in range(4)]


def test_blind_camera_is_a_warning_and_a_blind_rig_an_error(tmp_path):
    up = [[80.0, 0, 48, 0], [0, 80.0, 30, 0], [0, 0, 1.0, -100.0], [0, 0, 0, 1]]

    def blinded(*names: str) -> Callable[[dict], None]:
        return lambda table: [table["cameras"][name].update(lidar2img=up) for name in names] and None

    config = read_config(TINY)
    assert load_input(config, str(frame_folder(tmp_path / "one", blinded("CAM_1")))).blind == ("CAM_1",)
    with pytest.raises(FrameError, match="none that sees any"):
        load_input(config, str(frame_folder(tmp_path / "all", blinded(*(f"CAM_{i}" for i in range(4))))))


def test_warning_about_a_blind_camera_is_told(tiny_network):
    lines: list[str] = []
    pipeline._say_choices(tiny_network.spec, replace(tiny_network.loaded, blind=("CAM_3",)), lines.append)
    assert "warning: no voxel is seen by CAM_3" in lines
    assert "budgets (slots:cameras, fine to coarse): 192:3, 48:3, 6:3" in lines
    assert sum(line.startswith("guess: ") and "(change with --" in line for line in lines) == len(tiny_network.spec.dialect.guesses)


OUTPUTS = [
    ("labels", "all"),
    pytest.param("labels", "finest", marks=pytest.mark.full),
    ("logits", "all"),
    pytest.param("logits", "finest", marks=pytest.mark.full),
    pytest.param("probabilities", "all", marks=pytest.mark.full),
    ("probabilities", "finest"),
]


@pytest.mark.parametrize(("kind", "levels"), OUTPUTS)
def test_outputs(kind, levels, tmp_path, brisk, tiny_network):
    made = export(tmp_path / "out", "--outputs", kind, "--levels", levels)
    scales = (3,) if levels == "finest" else (0, 1, 2, 3)
    names = [value.name for value in made.skeleton.graph.output]
    assert names == [*(f"{kind}_scale{scale}" for scale in scales), "dropped"]
    made_values = {name for node in made.skeleton.graph.node for name in node.output}
    assert {f"logits_scale{scale}_zyx" for scale in scales} <= made_values
    subject = Subject(from_json(made.manifest["spec"]), made.model, None)
    got = subject.run(tiny_network.loaded.img, tiny_network.loaded.lidar2img)
    logits = got["logits_scale3"].astype(np.float64)
    if kind == "probabilities":
        soft = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert np.allclose(got["probabilities_scale3"], soft, atol=1e-6)
    if kind == "labels":
        assert np.array_equal(got["labels_scale3"], logits.argmax(1)) and got["labels_scale3"].dtype == np.int64
    assert f"-[✓] synthetic: {'logits of scale 3' if kind == 'logits' else f'{kind}_scale3'}" in made.ran.out


def test_without_semantics_it_gives_probabilities(tmp_path, brisk, tiny_network):
    config = tmp_path / "tiny_nosemantic.py"
    changes = "use_semantic = False\nmodel = dict(use_semantic=False, pts_bbox_head=dict(use_semantic=False))\n"
    config.write_text(f"_base_ = '{TINY}'\n{changes}")
    made = export(tmp_path / "out", config=config)
    graph = made.skeleton.graph
    assert [value.name for value in graph.output] == [*(f"probabilities_scale{scale}" for scale in range(4)), "dropped"]
    assert [dim.dim_value for dim in graph.output[3].type.tensor_type.shape.dim] == [1, 16, 24, 8]
    assert made.manifest["classes"] == ["occupied"] and "Sigmoid" in made.manifest["census"]
    subject = Subject(from_json(made.manifest["spec"]), made.model, None)
    got = subject.run(tiny_network.loaded.img, tiny_network.loaded.lidar2img)
    assert np.allclose(got["probabilities_scale3"], 1 / (1 + np.exp(-got["logits_scale3"][:, 0].astype(np.float64))), atol=1e-6)
    assert got["probabilities_scale3"].std() > 0.01


def test_every_setting_at_once(tmp_path, brisk):
    """All that the bring-up document leaves open, turned round, in one file that is verified."""
    flags = [
        *("--op-name", "dcn=Chip::Dcn", "--op-name", "msda=Chip::Msda", "--scalar-rank", "1", "--scalar-dtype", "int32"),
        *("--scalar-place", "initializer", "--num-embed", "head", "--shapes-dtype", "int32", "--im2col-step", "32", "--dcn-bias", "input"),
        *("--img-rank", "4", "--lidar2img-rank", "3", "--label-dtype", "int32", "--softmax", "--no-dropped", "--rename", "img=images"),
        *("--opset", "13", "--levels", "finest", "--external-data", "--save-io", "bin", "--seed", "3", "--budget", "200:4,40,6:4"),
    ]
    made = export(tmp_path / "out", *flags)
    graph = made.skeleton.graph
    assert [value.name for value in graph.input] == ["images", "lidar2img"] and [value.name for value in graph.output] == ["labels_scale3"]
    census = made.manifest["census"]
    assert census["Chip::Dcn"] == 3 and census["Chip::Msda"] == 4 and census["Softmax"] == 5
    assert made.manifest["weights"]["seed"] == 3 and made.manifest["frame"]["seed"] == 3
    assert [tuple(budget.values()) for budget in made.manifest["spec"]["budgets"]] == [(200, 4), (40, 3), (6, 4)]
    stem = "tiny_UNTRAINED_dl_opset13_runtime"
    assert set(contents(tmp_path / "out") or {}) == {
        *(f"{stem}.json", f"{stem}.onnx", f"{stem}.onnx.data", f"{stem}.io", f"{stem}.io/index.json"),
        *(f"{stem}.io/{name}.bin" for name in ("input_0_images", "input_1_lidar2img", "output_0_labels_scale3")),
    }
    assert made.model.stat().st_size < 2_000_000 and made.manifest["files"].keys() == {"model", "data"}
    assert run_cli("verify", made.model).status == 0
    data = made.model.with_suffix(".onnx.data")
    content = bytearray(data.read_bytes())
    content[5000] ^= 1
    data.write_bytes(content)
    assert run_cli("verify", made.model).status == 1


def test_exporting_twice_gives_the_same_bytes(runtime_export, tmp_path, monkeypatch):
    """Traced anew, without any memory of the first time; the other export of this session is the first."""
    monkeypatch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)
    made = export(tmp_path / "out")
    assert made.model.read_bytes() == runtime_export.model.read_bytes()


def swapped_scale(model: ir.Model) -> int:
    """The bug: offsets divided by (height, width) instead of (width, height)."""
    for node in model.graph:
        divisor = ir.convenience.get_const_tensor(node.inputs[1]) if node.op_type == "Div" and not node.domain else None
        if divisor is not None and divisor.size == 2:
            value = node.inputs[1]
            assert value is not None
            array = divisor.numpy()
            value.const_value = ir.tensor(array.ravel()[::-1].reshape(array.shape).copy(), name=value.name)
    return fold_scale.fold_scale(model)


def forgotten_shift(model: ir.Model) -> int:
    """The bug: GroupNorm without its bias."""
    count = group_norm_affine.group_norm_affine(model)
    for node in model.graph:
        if node.op_type == "BatchNormalization" and node.name and "deblocks_6" in node.name:
            value = node.inputs[2]
            assert value is not None and value.const_value is not None
            value.const_value = ir.tensor(np.zeros_like(value.const_value.numpy()), name=value.name)
    return count


@pytest.mark.parametrize("older", ["no folder", "an empty folder", "an older export"])
def test_planted_bug_leaves_nothing(older, tmp_path, brisk, monkeypatch):
    out = tmp_path / "deep/out"
    if older != "no folder":
        out.mkdir(parents=True)
    if older == "an older export":
        (out / "tiny_UNTRAINED_dl_opset11_runtime.onnx").write_text("the good one of yesterday")
        (out / "tiny_UNTRAINED_dl_opset11_runtime.json").write_text("{}")
    before = contents(tmp_path)
    monkeypatch.setattr("occport.graph.rewrite.fold_scale", swapped_scale)
    ran = run_cli("export", "--config", TINY, "--output-dir", out)
    assert ran.status == 1 and contents(tmp_path) == before
    (line,) = ran.lines
    assert line.startswith("occport: verification failed: ") and line.endswith("nothing was written")
    assert "-[x] synthetic: logits of scale 3 [this file]: max abs" in ran.out and "checks passed" not in ran.out


PLANTED: dict[str, tuple[str, object, str]] = {
    "group norm": ("occport.graph.rewrite.group_norm_affine", forgotten_shift, "-[x] synthetic: logits of scale 3"),
    "contract": ("occport.graph.rewrite.fold_scale", lambda model: other_step(model), "im2col_step: expected int 64, got int 1"),
}


def other_step(model: ir.Model) -> int:
    for node in model.graph:
        if "im2col_step" in node.attributes:
            node.attributes["im2col_step"] = ir.AttrInt64("im2col_step", 1)
    return fold_scale.fold_scale(model)


@pytest.mark.parametrize("name", PLANTED)
def test_other_planted_bugs(name, tmp_path, brisk, monkeypatch):
    place, bug, line = PLANTED[name]
    monkeypatch.setattr(place, bug)
    ran = run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out", "--opset", "13", "--save-io", "npy")
    assert ran.status == 1 and line in ran.out and contents(tmp_path / "out") is None


def baked_rig(model: ir.Model) -> int:
    """The bug: the calibration of the export is a constant; the input is still read, and adds nothing."""
    lidar2img = next(value for value in model.graph.inputs if value.name == "lidar2img")
    readers = list(lidar2img.uses())
    constants = []
    for name, array in (("zero", np.zeros((), np.float32)), ("baked", load_input(read_config(TINY), None).lidar2img)):
        tensor = ir.tensor(array, name=name)
        constants.append(ir.Value(name=name, const_value=tensor, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape)))
        model.graph.register_initializer(constants[-1])
    nothing = ir.node("Mul", [lidar2img, constants[0]], name="nothing")
    still = ir.node("Add", [nothing.outputs[0], constants[1]], name="still")
    for node in (nothing, still):
        node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = node.name, lidar2img.type, lidar2img.shape
    model.graph.insert_before(readers[0].node, [nothing, still])
    for use in readers:
        use.node.replace_input_with(use.idx, still.outputs[0])
    return fold_scale.fold_scale(model)


def test_bug_that_only_other_rigs_show(tmp_path, quick, monkeypatch):
    monkeypatch.setattr("occport.graph.rewrite.fold_scale", baked_rig)
    ran = run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out")
    assert ran.status == 1 and contents(tmp_path / "out") is None
    assert "-[x] voxels of each camera" in ran.out and "-[✓] synthetic: logits of scale 3" in ran.out
    assert "-[x] rig turned by 90 degrees: logits of scale 3" in ran.out


def test_large_files_are_followed_at_micro_sizes(tmp_path, quick, monkeypatch):
    """The way of full-size exports: here the tiny network counts as a large one, and the micro sizes are its own."""
    monkeypatch.setattr(follow, "MICRO_PIXELS", 0)
    monkeypatch.setattr(follow, "MICRO_HW", (60, 96))
    monkeypatch.setattr(follow, "MICRO_VOLUMES", ((12, 8, 4), (6, 4, 2), (3, 2, 1)))
    monkeypatch.setattr(follow, "TURNS", (20.0,))
    ran = run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out")
    assert ran.status == 0, ran.out
    assert "other rigs and images run on the same network, weights and settings at micro sizes: images of (60, 96)" in ran.out
    assert "-[✓] rig turned by 20 degrees [micro sizes]: logits of scale" in ran.out
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".onnx"]  # the micro files are gone


def test_save_io_of_the_command(tmp_path, brisk, runtime_export):
    made = export(tmp_path / "out", "--save-io", "npy")
    folder = made.model.with_suffix(".io")
    index = json.loads((folder / "index.json").read_text())
    assert [entry["name"] for entry in index["inputs"]] == ["img", "lidar2img"]
    assert np.load(folder / "input_0_img.npy").shape == (1, 4, 3, 64, 96)
    assert made.model.read_bytes() == runtime_export.model.read_bytes()


def test_an_older_export_is_replaced(tmp_path, brisk, runtime_export):
    out = tmp_path / "out"
    out.mkdir()
    for suffix in ("onnx", "json"):
        (out / f"{runtime_export.model.stem}.{suffix}").write_text("older")
    (out / "mine.txt").write_text("mine")
    made = export_over(out)
    assert set(contents(out) or {}) == {"mine.txt", runtime_export.model.name, f"{runtime_export.model.stem}.json"}
    assert made.read_bytes() == runtime_export.model.read_bytes() and (out / "mine.txt").read_text() == "mine"


def export_over(out: Path) -> Path:
    ran = run_cli("export", "--config", TINY, "--output-dir", out)
    assert ran.status == 0
    return next(out.glob("*.onnx"))


def test_frame_that_a_budget_does_not_hold(tmp_path):
    """The user's own rig, not the default one, decides what is enough."""
    frame = frame_folder(tmp_path / "frame")
    ran = run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out", "--frame", frame, "--budget", "64,48,6")
    assert_refused(ran, "at least 120:2")
    assert contents(tmp_path / "out") is None


def test_projection_and_brute_force_are_two_codes():
    """What verification compares must not be one code twice."""
    from occport.frames import visibility

    assert "frames" not in Projection.__module__ and "model" not in visibility.__name__
    assert "torch" not in vars(visibility)


def test_config_of_another_size_keeps_its_pixels(tmp_path):
    """A frame with other images than the config's default: the spec takes the frame's size."""
    config = read_config(TINY)
    loaded = load_input(config, str(frame_folder(tmp_path / "frame", size=(130, 70))))
    spec = make_spec(Request(config=config), loaded)
    assert spec.image_hw == (96, 160) and spec.config.image.size == (70, 130)
    assert read_config(MICRO).image.size == (126, 224)


def test_weights_of_both_files_of_tables_are_named_and_hashed(tmp_path, quick):
    made = export(tmp_path, "--calibration", "tables", "--external-data")
    assert made.manifest["files"].keys() == {"model", "geometry", "data", "geometry data"}
    on_disk = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert on_disk == {entry["file"] for entry in made.manifest["files"].values()} | {made.model.with_suffix(".json").name}
