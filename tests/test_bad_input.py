"""Whatever is wrong with the input: exit status 2, one line that helps, no traceback, nothing written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from exporting import MICRO, TINY, assert_refused, contents, run_cli
from occport.frames.rig import nuscenes_like_rig

CAMERAS = 4


def frame_folder(folder: Path, change: Callable[[dict], None] = lambda table: None, size: tuple[int, int] = (96, 60)) -> Path:
    """A good frame of 4 cameras, with one thing changed in its JSON file."""
    folder.mkdir()
    names, rig = nuscenes_like_rig(CAMERAS, size[1], size[0])
    table: dict = {"cameras": {}}
    for number, (name, matrix) in enumerate(zip(names, rig, strict=True)):
        Image.fromarray(np.full((size[1], size[0], 3), 60 * number, np.uint8)).save(folder / f"{name}.png")
        table["cameras"][name] = {"file": f"{name}.png", "lidar2img": matrix.tolist()}
    change(table)
    (folder / "frame.json").write_text(json.dumps(table))
    return folder


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with an older file in it."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "older.onnx").write_text("an older export")
    return folder


def rejected(out: Path, fragment: str, *flags: object, config: object = TINY) -> str:
    before = contents(out)
    line = assert_refused(run_cli("export", "--config", config, "--output-dir", out, *flags), fragment)
    assert contents(out) == before
    return line


CONFIG_TEXTS = {
    "code": ("import os\nos.system('true')", "import"),
    "a call": ("model = dict(type=print('here'))", "print"),
    "no Python": ("model = dict(", "not valid Python"),
    "binary": ("\x00\x01", "config"),
    "no model": ("a = 1", "a dict named model"),
    "unknown key": (f"_base_ = '{TINY}'\nmodel = dict(img_backbone=dict(dpeth=50))", "model.img_backbone.dpeth"),
    "wrong type": (f"_base_ = '{TINY}'\nmodel = dict(img_backbone=dict(depth='50'))", "model.img_backbone.depth"),
    "depth": (f"_base_ = '{TINY}'\nmodel = dict(img_backbone=dict(depth=34))", "34"),
    "two levels": (f"_base_ = '{TINY}'\nmodel = dict(pts_bbox_head=dict(volume_h=[12, 6]))", "model.pts_bbox_head.volume_h"),
    "four levels": (f"_base_ = '{TINY}'\nmodel = dict(pts_bbox_head=dict(embed_dims=[16, 16, 32, 32]))", "embed_dims"),
    "six of seven": (f"_base_ = '{TINY}'\nmodel = dict(pts_bbox_head=dict(conv_input=[32, 16, 16, 16, 16, 16]))", "conv_input"),
    "levels that disagree": (f"_base_ = '{TINY}'\nmodel = dict(pts_bbox_head=dict(volume_h=[12, 6, 4]))", "volume_h"),
    "negative": (f"_base_ = '{TINY}'\nmodel = dict(pts_bbox_head=dict(volume_z=[4, 2, -1]))", "volume_z"),
    "missing base": ("_base_ = './nothing.py'", "nothing.py"),
    "another network": (f"_base_ = '{TINY}'\nmodel = dict(type='BEVFormer')", "BEVFormer"),
}


@pytest.mark.parametrize("name", CONFIG_TEXTS)
def test_config(name, tmp_path, out):
    text, fragment = CONFIG_TEXTS[name]
    config = tmp_path / "config.py"
    config.write_text(text)
    rejected(out, fragment, config=config)


def test_config_that_is_not_there(tmp_path, out):
    rejected(out, "expected a file, got nothing there", config=tmp_path / "missing.py")
    rejected(out, str(tmp_path), config=tmp_path)


FLAGS: dict[str, tuple[list[str], str]] = {
    "opset too low": (["--opset", "10"], "--opset: expected 11 to 22, got 10"),
    "opset too high": (["--opset", "23"], "--opset: expected 11 to 22, got 23"),
    "functions at 11": (["--opset", "11", "--functions"], "--functions: expected an opset from 16 on"),
    "gridsample at 11": (["--opset", "11", "--dialect", "standard", "--msda", "gridsample"], "--msda gridsample: expected an opset"),
    "deformconv at 18": (["--opset", "18", "--dialect", "standard", "--dcn", "deformconv"], "--dcn deformconv: expected an opset from 19"),
    "arithmetic beside nodes": (["--msda", "gather"], "--msda gather: expected a file that holds arithmetic"),
    "functions in the empty domain": (["--dialect", "tensorrt", "--functions"], "expected a dialect whose nodes have a domain"),
    "standard with functions": (["--dialect", "standard", "--functions"], "leave --functions out"),
    "standard with a setting": (["--dialect", "standard", "--dcn-bias", "add"], "dialect standard: expected no operator settings"),
    "standard with an operator name": (["--dialect", "standard", "--op-name", "dcn=A::B"], "no operator settings"),
    "unknown dialect": (["--dialect", "tensorrt9"], "dialect 'tensorrt9': expected one of ascend, "),
    "dialect as a path": (["--dialect", "../dialects/dl"], "or a .toml file; choose with --dialect"),
    "dialect file that is not there": (["--dialect", "my.toml"], "dialect file my.toml: expected a TOML file, got No such file"),
    "budget words": (["--budget", "many"], "--budget: expected slots[:cameras] of each level"),
    "budget half": (["--budget", "192:3,48:,6:3"], "--budget"),
    "budget negative": (["--budget=-1,2,3"], "--budget"),
    "budget float": (["--budget", "1.5,2,3"], "--budget"),
    "two budgets": (["--budget", "192:3,48:3"], "--budget: expected 3 values, fine to coarse, got 2"),
    "four budgets": (["--budget", "192,48,6,6"], "got 4"),
    "budget zero": (["--budget", "0,48,6"], "--budget of level 0: expected 1 to 384 slots and 1 to 4 cameras, got 0:3"),
    "budget over the volume": (["--budget", "385,48,6"], "--budget of level 0: expected 1 to 384 slots"),
    "budget of five cameras": (["--budget", "192:5,48,6"], "1 to 4 cameras, got 192:5"),
    "budget too small": (["--budget", "119,48,6"], "--budget of level 0: expected at least 120:2, what the given frame needs, got 119:3"),
    "too few cameras": (["--budget", "192,48:1,6"], "--budget of level 1: expected at least 16:2"),
    "rename malformed": (["--rename", "img"], "--rename: expected OLD=NEW, got img"),
    "rename of nothing": (["--rename", "image=x"], "--rename image: expected one of img, lidar2img, labels_scale0"),
    "rename to nothing": (["--rename", "img="], "--rename: expected OLD=NEW, got img="),
    "rename to no identifier": (["--rename", "img=a b"], "a b"),
    "rename to a digit": (["--rename", "img=0"], "--rename"),
    "rename to a taken name": (["--rename", "img=lidar2img"], "lidar2img"),
    "two renames to one name": (["--rename", "img=x", "--rename", "lidar2img=x"], "x"),
    "one name renamed twice": (["--rename", "img=x", "--rename", "img=y"], "--rename img: expected one new name, got x, y"),
    "rename of an inner value": (["--rename", "logits_scale0=x"], "--rename logits_scale0: expected one of img"),
    "operator name malformed": (["--op-name", "dcn"], "--op-name: expected dcn=DOMAIN::NAME, got dcn"),
    "operator name without a domain": (["--op-name", "dcn=Conv"], "--op-name: expected dcn=DOMAIN::NAME or msda=DOMAIN::NAME"),
    "operator of another kind": (["--op-name", "conv=A::B"], "--op-name"),
    "operator in ONNX's domain": (["--op-name", "dcn=ai.onnx::Conv"], "outside ONNX's own domain"),
    "two operators of one name": (["--op-name", "dcn=A::B", "--op-name", "msda=A::B"], "two different names"),
    "im2col_step zero": (["--im2col-step", "0"], "--im2col-step: expected a whole number from 1 on, got '0'"),
    "negative seed": (["--seed", "-1"], "--seed: expected a whole number from 0 on, got '-1'"),
    "calibration": (["--calibration", "yes"], "invalid choice: 'yes'"),
    "outputs": (["--outputs", "depth"], "invalid choice: 'depth'"),
    "levels": (["--levels", "coarsest"], "invalid choice: 'coarsest'"),
    "image rank": (["--img-rank", "3"], "--img-rank: invalid choice: 3"),
    "label dtype": (["--label-dtype", "int8"], "invalid choice: 'int8'"),
    "save-io": (["--save-io", "csv"], "invalid choice: 'csv'"),
    "opset in words": (["--opset", "eleven"], "invalid int value: 'eleven'"),
    "unknown flag": (["--fast"], "unrecognized arguments: --fast"),
    "a word too many": (["model.onnx"], "unrecognized arguments: model.onnx"),
    "an option of nothing": (["--cfg-options", "model.img_backbone.dpeth=50"], "model.img_backbone.dpeth"),
    "an option without a value": (["--cfg-options", "model"], "model"),
    "an option with code": (["--cfg-options", "model.img_backbone.depth=__import__('os')"], "model.img_backbone.depth"),
    "an option twice": (["--cfg-options", "model.img_backbone.depth=50", "model.img_backbone.depth=101"], "each key once"),
    "missing checkpoint": (["--checkpoint", "/nowhere/surroundocc.pth"], "/nowhere/surroundocc.pth"),
    "missing frame": (["--frame", "/nowhere"], "no such file or folder"),
    "an empty frame": (["--frame", ""], "an empty text"),
    "a folder without a frame": (["--frame", str(MICRO.parent)], "expected a frame.json in it"),
    "a frame that is code": (["--frame", str(MICRO)], "expected a JSON file"),
}


@pytest.mark.parametrize("name", FLAGS)
def test_flags(name, out, quick):
    flags, fragment = FLAGS[name]
    rejected(out, fragment, *flags)


def test_no_config(out):
    assert_refused(run_cli("export", "--output-dir", out), "the following arguments are required: --config")


def write_lidar2img(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    def edit(table: dict) -> None:
        camera = table["cameras"]["CAM_1"]
        camera["lidar2img"] = change(np.array(camera["lidar2img"])).tolist()

    return edit


def all_upwards(table: dict) -> None:
    for camera in table["cameras"].values():
        camera["lidar2img"] = [[800.0, 0, 48, 0], [0, 800.0, 30, 0], [0, 0, 1.0, -100.0], [0, 0, 0, 1]]


def set_key(key: str, value: object) -> Callable[[dict], None]:
    def edit(table: dict) -> None:
        table["cameras"]["CAM_1"][key] = value

    return edit


FRAMES: dict[str, tuple[Callable[[dict], None], str]] = {
    "3x4": (write_lidar2img(lambda matrix: matrix[:3]), "cameras.CAM_1.lidar2img"),
    "ragged": (set_key("lidar2img", [[1, 2], [3]]), "cameras.CAM_1.lidar2img"),
    "words": (set_key("lidar2img", "unknown"), "cameras.CAM_1.lidar2img"),
    "NaN": (write_lidar2img(lambda matrix: matrix * np.where(np.eye(4), np.nan, 1)), "CAM_1"),
    "infinity": (write_lidar2img(lambda matrix: matrix + np.where(np.eye(4), np.inf, 0)), "CAM_1"),
    "too large for float32": (write_lidar2img(lambda matrix: matrix * 1e39), "CAM_1"),
    "singular": (write_lidar2img(lambda matrix: matrix[[0, 0, 2, 3]]), "CAM_1"),
    "zero": (write_lidar2img(lambda matrix: matrix * 0), "CAM_1"),
    "sees nothing": (all_upwards, "none that sees any"),
    "missing image": (set_key("file", "nothing.png"), "nothing.png"),
    "no file": (set_key("file", None), "cameras.CAM_1.file"),
    "image is text": (set_key("file", "frame.json"), "frame.json"),
    "misspelt key": (set_key("lidar2image", []), "unknown key 'lidar2image'"),
    "declared size": (set_key("width", 1600), "cameras.CAM_1.width: expected 96"),
    "three cameras": (lambda table: table["cameras"].pop("CAM_1"), "got 3"),
    "no cameras": (lambda table: table["cameras"].clear(), "cameras"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame(name, tmp_path, out):
    change, fragment = FRAMES[name]
    rejected(out, fragment, "--frame", frame_folder(tmp_path / "frame", change))


def test_image_of_another_size(tmp_path, out):
    frame = frame_folder(tmp_path / "frame")
    Image.fromarray(np.zeros((30, 96, 3), np.uint8)).save(frame / "CAM_2.png")
    rejected(out, "image of CAM_2", "--frame", frame)


def test_truncated_image(tmp_path, out):
    frame = frame_folder(tmp_path / "frame")
    path = frame / "CAM_2.png"
    path.write_bytes(path.read_bytes()[:60])
    rejected(out, "CAM_2.png", "--frame", frame)


class Code:
    """Runs when it is unpickled without care."""

    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit(77)",))


@pytest.mark.parametrize(("suffix", "fragment"), [("0", "refused"), ("x", "a number from 0"), ("", "add :INDEX")])
def test_pickled_code_as_a_dataset(suffix, fragment, tmp_path, out):
    path = tmp_path / "infos.pkl"
    content: object = {"infos": [{"cams": {}}], "metadata": Code() if suffix == "0" else {}}
    path.write_bytes(pickle.dumps(content))
    rejected(out, fragment, "--frame", f"{path}:{suffix}" if suffix else str(path))


def with_value(state: dict, name: str, value: torch.Tensor | None) -> dict:
    """A state with one other tensor, or without it."""
    return {**{key: tensor for key, tensor in state.items() if key != name}, **({} if value is None else {name: value})}


def backbone_only(state: dict) -> dict:
    return {name.removeprefix("img_"): tensor for name, tensor in state.items() if name.startswith("img_backbone.")}


OCC = "pts_bbox_head.occ.0.weight"
STATES: dict[str, tuple[Callable[[dict], object], str]] = {
    "NaN": (lambda state: with_value(state, OCC, torch.full((17, 16, 1, 1, 1), torch.nan)), f"{OCC}: expected finite values"),
    "infinity": (lambda state: with_value(state, OCC, torch.full((17, 16, 1, 1, 1), torch.inf)), "expected finite values"),
    "shape": (lambda state: with_value(state, OCC, torch.zeros(17, 8, 1, 1, 1)), "misshapen pts_bbox_head.occ.0.weight"),
    "without semantics": (lambda state: with_value(state, OCC, torch.zeros(1, 16, 1, 1, 1)), "use surroundocc_nosemantic.py"),
    "missing tensor": (lambda state: with_value(state, OCC, None), "1 missing"),
    "left-over tensor": (lambda state: with_value(state, "pts_bbox_head.extra", torch.zeros(1)), "unexpected pts_bbox_head.extra"),
    "backbone pretrain": (backbone_only, "this is a backbone pretrain"),
    "empty": (lambda state: {}, "weights.pth"),
    "a list": (lambda state: [1, 2], "weights.pth"),
    "code": (lambda state: {"state_dict": state, "meta": Code()}, "weights.pth"),
}


@pytest.mark.parametrize("name", STATES)
def test_checkpoint(name, tmp_path, out, tiny_network):
    make, fragment = STATES[name]
    path = tmp_path / "weights.pth"
    torch.save(make(dict(tiny_network.model.state_dict())), path)
    rejected(out, fragment, "--checkpoint", path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["truncated", "empty", "text"])
def test_damaged_checkpoint(kind, suffix, tmp_path, out):
    from safetensors.torch import save_file

    path = tmp_path / f"weights{suffix}"
    state = {"a": torch.zeros(1000)}
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes({"truncated": whole[: len(whole) // 2], "empty": b"", "text": b"hello\n"}[kind])
    rejected(out, str(path), "--checkpoint", path)


def test_checkpoint_is_a_folder(tmp_path, out):
    rejected(out, str(tmp_path), "--checkpoint", tmp_path)


PLACES = {
    "a file": (lambda folder: (folder / "file").write_text("x") and folder / "file", "expected a folder that can be written to"),
    "below a file": (lambda folder: (folder / "file").write_text("x") and folder / "file/out", "expected a folder that can be written to"),
    "proc": (lambda folder: Path("/proc/occport"), "output folder /proc/occport"),
    "a name that is too long": (lambda folder: folder / ("x" * 300), "output folder"),
}


@pytest.mark.parametrize("name", PLACES)
def test_output_folder(name, tmp_path):
    make, fragment = PLACES[name]
    place = make(tmp_path)
    before = contents(tmp_path)
    assert_refused(run_cli("export", "--config", TINY, "--output-dir", place), fragment)
    assert contents(tmp_path) == before


def test_a_folder_has_the_name_of_the_file(tmp_path, quick):
    """Found at the very end; everything stays as it was."""
    taken = tmp_path / "out/tiny_UNTRAINED_dl_opset11_runtime.onnx"
    taken.mkdir(parents=True)
    before = contents(tmp_path)
    assert_refused(run_cli("export", "--config", TINY, "--output-dir", tmp_path / "out"), "could not move the finished files")
    assert contents(tmp_path) == before


VERIFY = {
    "missing file": (lambda folder: folder / "none.onnx", "no such file"),
    "a folder": (lambda folder: folder, "no such file"),
    "no manifest": (lambda folder: _model(folder, None), "expected the file that occport export wrote beside the model, got none"),
    "manifest is text": (lambda folder: _model(folder, "hello"), "expected JSON"),
    "manifest is a list": (lambda folder: _model(folder, "[]"), "expected a manifest of format 1"),
    "another manifest": (lambda folder: _model(folder, '{"format": 1}'), "expected a manifest of format 1"),
    "a newer manifest": (lambda folder: _model(folder, '{"format": 2, "spec": {}, "weights": {}, "frame": {}, "files": {}}'), "format 1"),
    "an empty spec": (
        lambda folder: _model(folder, '{"format": 1, "spec": {}, "weights": {}, "frame": {}, "files": {"model": {}}}'),
        "manifest",
    ),
    "files is a list": (lambda folder: _model(folder, '{"format": 1, "spec": {}, "weights": {}, "frame": {}, "files": []}'), "manifest"),
}


def _model(folder: Path, manifest: str | None) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(b"x")
    if manifest is not None:
        path.with_suffix(".json").write_text(manifest)
    return path


@pytest.mark.parametrize("name", VERIFY)
def test_verify(name, tmp_path):
    make, fragment = VERIFY[name]
    assert_refused(run_cli("verify", make(tmp_path)), fragment)


@pytest.mark.parametrize("argv", [["verify"], ["verify", "a.onnx", "b.onnx"], ["verify", "a.onnx", "--seed", "1"], ["dialects", "a", "b"]])
def test_arguments_of_the_other_commands(argv):
    assert_refused(run_cli(*argv), f"see `occport {argv[0]} --help`")


def test_dialects_of_another_name():
    assert_refused(run_cli("dialects", "tensorrt9"), "dialect 'tensorrt9': expected one of ascend, ")
