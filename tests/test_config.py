"""Configs: the facts of the official network, every key's rule, what must agree, and the way through JSON and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.config import Config, from_resolved, read_config, read_config_with_options, resolved
from occport.config.schema import FOLDERS, SCHEMA
from occport.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[1] / "projects/configs/surroundocc"
REFERENCE = Path(__file__).resolve().parents[2] / "shared/reference"
OFFICIAL, MICRO = CONFIGS / "surroundocc.py", CONFIGS / "surroundocc_micro.py"
ALL = sorted(CONFIGS.glob("*.py"))
HEAD = "model.pts_bbox_head"
ENCODER = f"{HEAD}.transformer_template.encoder"
ATTENTION = f"{ENCODER}.transformerlayers.attn_cfgs.0"


def child(folder: Path, text: str, base: Path = OFFICIAL) -> Path:
    path = folder / "child.py"
    path.write_text(f"_base_ = {str(base)!r}\n{text}")
    return path


def refused(path: Path, options: dict[str, object] | None = None) -> str:
    """The line that a config gets, with overrides from its top."""
    with pytest.raises(ConfigError) as caught:
        read_config_with_options(path, [f"{key}={json.dumps(value)}" for key, value in (options or {}).items()])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_name(config: Config) -> Config:
    return dataclasses.replace(config, name="", notes=(), image=dataclasses.replace(config.image, size=(0, 0)))


def test_the_official_network():
    config = read_config(OFFICIAL)
    assert config.name == "surroundocc"
    assert (config.backbone.depth, config.backbone.stage_with_dcn, config.backbone.deform_groups) == (101, (False, False, True, True), 1)
    assert (config.neck.in_channels, config.neck.out_channels) == ((512, 1024, 2048), 512)
    table = [dataclasses.astuple(level) for level in config.levels]
    assert table == [(128, 100, 100, 8, 1, 2, 8, 256, 2), (256, 50, 50, 4, 3, 4, 8, 512, 2), (512, 25, 25, 2, 6, 8, 8, 1024, 2)]
    assert [level.num_voxels for level in config.levels] == [80_000, 10_000, 1_250]
    assert config.decoder.conv_input == (512, 256, 256, 128, 128, 64, 64)
    assert config.decoder.conv_output == (256, 256, 128, 128, 64, 64, 32)
    assert config.decoder.upsample_strides == (1, 2, 1, 2, 1, 2, 1)
    assert config.decoder.out_indices == (0, 2, 4, 6)
    assert (config.num_cameras, config.num_classes, config.use_semantic) == (6, 17, True)
    assert len(config.class_names) == 16 and config.class_names[3] == "car" and config.class_names[-1] == "vegetation"
    assert config.pc_range == (-50.0, -50.0, -5.0, 50.0, 50.0, 3.0)
    assert config.image.mean == (103.530, 116.280, 123.675) and config.image.std == (1.0, 1.0, 1.0)
    assert (config.image.to_rgb, config.image.size_divisor, config.image.size) == (False, 32, (900, 1600))
    assert config.output_sizes == ((25, 25, 2), (50, 50, 4), (100, 100, 8), (200, 200, 16))
    assert config.occ_size == (200, 200, 16)
    assert f"{HEAD}.num_query: upstream swallows it; the queries are the voxels" in config.notes
    assert "model.img_neck.add_extra_convs: num_outs=3 leaves no extra level" in config.notes
    assert hash(config) == hash(read_config(str(OFFICIAL)))


def test_inference_is_the_same_network():
    assert without_name(read_config(CONFIGS / "surroundocc_inference.py")) == without_name(read_config(OFFICIAL))


def test_without_semantics_there_is_one_channel():
    config = read_config(CONFIGS / "surroundocc_nosemantic.py")
    assert (config.num_classes, config.use_semantic) == (1, False)
    assert config.notes[-1] == f"{HEAD}.num_classes: without semantics each output has one channel"
    assert without_name(dataclasses.replace(config, num_classes=17, use_semantic=True)) == without_name(read_config(OFFICIAL))


def test_micro_has_its_axes_apart():
    config = read_config(MICRO)
    assert config.output_sizes == ((4, 5, 1), (8, 10, 2), (16, 20, 4), (32, 40, 8))  # X from w, Y from h
    assert config.image.size == (126, 224)


@pytest.mark.parametrize("name", ["micro_sem", "micro_nosem", "tiny_sem"])
def test_overrides_of_the_reference(name):
    file = REFERENCE / f"{name}.npz"
    if not file.is_file():
        pytest.skip("needs the reference outputs in shared/reference")
    with np.load(file) as npz:
        overrides = json.loads(str(npz["overrides"]))
        config = read_config(CONFIGS / f"{npz['config']}.py", overrides)
        options = [f"model.{key}={json.dumps(value)}" for key, value in overrides.items()]
        assert read_config_with_options(CONFIGS / f"{npz['config']}.py", options) == config
        assert [(config.num_classes, *size) for size in config.output_sizes] == [npz[f"occ_{i}"].shape[1:] for i in range(4)]
    assert "occ_size: follows the overridden volume, [32, 40, 8] instead of [200, 200, 16]" in config.notes
    if name == "micro_sem":
        assert without_name(config) == without_name(read_config(MICRO))


def test_few_overrides():
    config = read_config(OFFICIAL, {"img_backbone.depth": 50, "pts_bbox_head.volume_h": [20, 10, 5]})
    assert config.backbone.depth == 50
    assert config.output_sizes == ((25, 5, 2), (50, 10, 4), (100, 20, 8), (200, 40, 16))


def test_options_of_the_command_line():
    config = read_config_with_options(OFFICIAL, ["model.img_backbone.depth=50", "image_size=126,224", "model.use_grid_mask=false"])
    assert (config.backbone.depth, config.image.size) == (50, (126, 224))
    with pytest.raises(ConfigError, match=r"override image_size: expected each key once, got \[1, 2\] and \[3, 4\]"):
        read_config_with_options(OFFICIAL, ["image_size=[1,2]", "image_size=[3,4]"])


@pytest.mark.parametrize("key", ["transformer_template.num_cams", "transformer_template.encoder.transformerlayers.attn_cfgs.0.num_cams"])
def test_number_of_cameras_follows_where_stated_once(key):
    assert read_config(OFFICIAL, {f"pts_bbox_head.{key}": 4}).num_cameras == 4


def test_number_of_cameras_stated_twice():
    transformer = f"{HEAD}.transformer_template.num_cams"
    assert read_config_with_options(OFFICIAL, [f"{transformer}=8", f"{ATTENTION}.num_cams=8"]).num_cameras == 8
    assert refused(OFFICIAL, {transformer: 4, f"{ATTENTION}.num_cams": 5}) == (
        f"{transformer} is stated 2 times: expected the same value everywhere, got {transformer} = 4, {ATTENTION}.num_cams = 5; "
        "change them together"
    )


def test_upstreams_defaults_may_be_overridden():
    config = read_config_with_options(OFFICIAL, [f"{ATTENTION}.deformable_attention.num_heads=4", "model.img_backbone.dcn.deform_groups=2"])
    assert {level.num_heads for level in config.levels} == {4}
    assert config.backbone.deform_groups == 2


def test_names_of_the_bring_up_document():
    renamed = {"img_backbone.type": "ResNet_DL", f"{ATTENTION}.deformable_attention.type"[6:]: "MSDeformableAttention3D_DL"}
    assert read_config(OFFICIAL, renamed) == read_config(OFFICIAL)


def test_backbone_without_deformable_convolutions():
    plain = read_config(OFFICIAL, {"img_backbone.dcn": None, "img_backbone.stage_with_dcn": [False] * 4})
    assert plain.backbone.stage_with_dcn == (False,) * 4
    assert refused(OFFICIAL, {"model.img_backbone.dcn": None}) == (
        "model.img_backbone.stage_with_dcn: expected no True without model.img_backbone.dcn, got (False, False, True, True); "
        "give dcn=dict(type='DCNv2'), or False for every stage"
    )


def test_the_volume_decides_unless_occ_size_is_given():
    line = refused(OFFICIAL, {f"{HEAD}.volume_z": [4, 2, 1], "occ_size": [200, 200, 16]})
    assert line == "occ_size: expected [200, 200, 8], which the decoder makes of volume_w, volume_h, volume_z, got [200, 200, 16]"
    agreed = read_config_with_options(OFFICIAL, [f"{HEAD}.volume_z=4,2,1", "occ_size=200,200,8"])
    assert agreed.occ_size == (200, 200, 8) and not any(note.startswith("occ_size") for note in agreed.notes)
    halved = read_config_with_options(OFFICIAL, [f"{HEAD}.upsample_strides=1,2,1,2,1,1,1"])
    assert halved.output_sizes[2:] == ((100, 100, 8), (100, 100, 8))
    assert halved.notes[-1] == "occ_size: follows the overridden volume, [100, 100, 8] instead of [200, 200, 16]"


def test_a_file_whose_occ_size_is_wrong(tmp_path):
    path = child(tmp_path, "model = dict(pts_bbox_head=dict(volume_z=[4, 2, 1]))")
    assert refused(path) == "occ_size: expected [200, 200, 8], which the decoder makes of volume_w, volume_h, volume_z, got [200, 200, 16]"


def test_a_config_without_model(tmp_path):
    path = tmp_path / "c.py"
    path.write_text("a = 1")
    assert refused(path) == f"config {path}: expected a dict named model, got None"


def test_unknown_overrides_are_named():
    with pytest.raises(ConfigError, match=r"override 'model\.img_backbone\.dept': .*did you mean model\.img_backbone\.depth"):
        read_config(OFFICIAL, {"img_backbone.dept": 50})
    with pytest.raises(ConfigError, match=r"override 'model\.model\.img_backbone\.depth': .*did you mean model\.img_backbone\.depth"):
        read_config(OFFICIAL, {"model.img_backbone.depth": 50})


def test_keys_without_effect_are_noted(tmp_path):
    path = child(tmp_path, "total_epochs = 24\nmodel = dict(img_backbone=dict(with_cp=True, init_cfg=dict(type='x')), train_cfg=dict(a=1))")
    config = read_config_with_options(path, ["total_epochs=3"])
    assert "model.img_backbone.with_cp: saves memory in training" in config.notes
    assert "model.img_backbone.init_cfg: weights come from a checkpoint or a seed" in config.notes
    assert "model.train_cfg: acts in training only" in config.notes
    assert "total_epochs: acts in training or evaluation only" in config.notes
    assert without_name(config) == without_name(read_config(OFFICIAL))


def test_upstreams_way_of_writing(tmp_path):
    """Two bases whose values are replaced, training settings, names in lists: the arrangement of the original files."""
    for name, text in {
        "datasets/nus.py": "class_names = ['car']\npoint_cloud_range = [-9, -9, -9, 9, 9, 9]\ndata_root = 'd/'\n"
                           "test_pipeline = [dict(type='MultiScaleFlipAug3D', transforms=[dict(type='Collect3D')])]\n"
                           "data = dict(val=dict(ann_file=data_root + 'val.pkl', pipeline=test_pipeline, test_mode=True))",
        "_base_/run.py": "log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook')])\nload_from = None\nworkflow = [('train', 1)]",
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    own = OFFICIAL.read_text() + (
        "_base_ = ['../datasets/nus.py', '../_base_/run.py']\nlr_config = dict(warmup_ratio=1.0 / 3)\nload_from = 'x.pth'\n"
        "data = dict(val=dict(type='Custom', pipeline=test_pipeline, classes=class_names))\n"
    )
    path = tmp_path / "surroundocc/surroundocc.py"
    path.parent.mkdir()
    path.write_text(own)
    assert read_config(path) == read_config(OFFICIAL)


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_way_through_json(path):
    config = read_config(path)
    data = resolved(config)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert from_resolved(json.loads(json.dumps(data))) == config
    assert data["levels"][0]["volume_h"] == config.levels[0].volume_h


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda data: data.pop("name"), "resolved config: expected the fields backbone, class_names,"),
        (lambda data: data.update(extra=1), "resolved config: expected the fields backbone, class_names,"),
        (lambda data: data["levels"][1].pop("width"), "resolved config.levels.1: expected the fields ffn_width,"),
        (lambda data: data["levels"].pop(), f"{HEAD}.embed_dims: expected 3 values, each a whole number from 1 to 65,536, got (128, 256)"),
        (lambda data: data.update(levels=5), "resolved config.levels: expected a list, got 5"),
        (lambda data: data.update(backbone=None), "resolved config.backbone: expected the fields deform_groups, depth, stage_with_dcn"),
        (lambda data: data.update(num_cameras=True), "resolved config.num_cameras: expected a whole number from 0 to 65,536, got True"),
        (lambda data: data.update(num_cameras=9), f"{HEAD}.transformer_template.num_cams: expected a whole number from 1 to 8, got 9"),
        (lambda data: data["levels"][2].update(num_layers=0), f"{ENCODER}.num_layers: expected 3 values, each a whole number from 1"),
        (lambda data: data["levels"][2].update(num_heads=0), f"{ATTENTION}.deformable_attention.num_heads: expected a whole number from 1"),
        (lambda data: data.update(use_semantic=1), "resolved config.use_semantic: expected true or false, got 1"),
        (lambda data: data.update(pc_range=[1, 2]), "resolved config.pc_range: expected a list of 6, got [1, 2]"),
        (lambda data: data["pc_range"].__setitem__(0, float("nan")), "resolved config.pc_range.0: expected a finite number, got nan"),
        (lambda data: data["pc_range"].__setitem__(0, 60), "point_cloud_range: expected 6 finite numbers"),
        (lambda data: data["image"].update(size_divisor=33), "PadMultiViewImage.size_divisor: expected a positive multiple of 32"),
        (lambda data: data["backbone"].update(depth=18), "model.img_backbone.depth: expected 50 or 101, got 18"),
        (lambda data: data["decoder"]["conv_input"].pop(), f"{HEAD}.conv_input: expected 7 values"),
        (lambda data: data["decoder"].update(out_indices=[0, 2]), f"{HEAD}.out_indices: expected (0, 2, 4, 6), got (0, 2)"),
        (lambda data: data["class_names"].pop(), f"{HEAD}.num_classes: expected 16 = the 15 class_names + empty, got 17"),
        (lambda data: data.update(use_semantic=False), "num_classes: expected 1 output channel without semantics, got 17"),
    ],
)
def test_resolved_data_that_is_wrong(change, line):
    data = resolved(read_config(OFFICIAL))
    change(data)
    with pytest.raises(ConfigError) as caught:
        from_resolved(data)
    assert str(caught.value).startswith(line)


WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from([1, 2, 16, 32, 100, "ResNet"]),
    lambda part: st.lists(part, max_size=7) | st.dictionaries(st.sampled_from(["a", "type", "depth", "_delete_"]), part, max_size=2),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.sampled_from(sorted([*SCHEMA, *FOLDERS])), WILD, min_size=1, max_size=3))
def test_any_override_is_taken_or_refused(overrides):
    inner = {key.removeprefix("model."): value for key, value in overrides.items() if key.startswith("model.")}
    try:
        config = read_config(MICRO, inner)
    except ConfigError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert from_resolved(json.loads(json.dumps(resolved(config), allow_nan=False))) == config


def paths_of(data, path=()):
    yield path
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from paths_of(value, (*path, key))


PLACES = list(paths_of(resolved(read_config(MICRO))))[1:]


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(PLACES), WILD)
def test_any_resolved_data_is_taken_or_refused(path, value):
    data = resolved(read_config(MICRO))
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    try:
        config = from_resolved(data)
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert from_resolved(resolved(config)) == config
