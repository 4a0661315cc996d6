"""What each key may be and which keys must agree: every refusal in its own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from occport.config import read_config, read_config_with_options
from occport.errors import ConfigError

OFFICIAL = Path(__file__).resolve().parents[1] / "projects/configs/surroundocc/surroundocc.py"
HEAD = "model.pts_bbox_head"
ENCODER = f"{HEAD}.transformer_template.encoder"
ATTENTION = f"{ENCODER}.transformerlayers.attn_cfgs.0"
DEFORMABLE = f"{ATTENTION}.deformable_attention"
EACH = "each a whole number from 1 to 65,536"
NORMALIZE = "dict(type='NormalizeMultiviewImage', mean=[1, 1, 1], std=[1, 1, 1])"


def child(folder: Path, text: str) -> Path:
    path = folder / "child.py"
    path.write_text(f"_base_ = {str(OFFICIAL)!r}\n{text}")
    return path


def refused(path: Path, options: dict[str, object] | None = None) -> str:
    """The line that a config gets, with overrides from its top."""
    with pytest.raises(ConfigError) as caught:
        read_config_with_options(path, [f"{key}={json.dumps(value)}" for key, value in (options or {}).items()])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("model.type", "BEVFormer", "model.type: expected 'SurroundOcc', got 'BEVFormer'"),
        ("model.img_backbone.depth", 18, "model.img_backbone.depth: expected 50 or 101, got 18"),
        ("model.img_backbone.depth", 50.0, "model.img_backbone.depth: expected 50 or 101, got 50.0"),
        ("model.img_backbone.style", "pytorch", "model.img_backbone.style: expected 'caffe', got 'pytorch'"),
        ("model.img_backbone.num_stages", 3, "model.img_backbone.num_stages: expected 4, got 3"),
        ("model.img_backbone.out_indices", [0, 1, 2], "model.img_backbone.out_indices: expected (1, 2, 3), got [0, 1, 2]"),
        ("model.img_backbone.dcn.type", "DCN", "model.img_backbone.dcn.type: expected 'DCNv2', got 'DCN'"),
        ("model.img_backbone.dcn.fallback_on_stride", True, "model.img_backbone.dcn.fallback_on_stride: expected False, got True"),
        ("model.img_backbone.dcn.fallback_on_stride", 0, "model.img_backbone.dcn.fallback_on_stride: expected False, got 0"),
        ("model.img_backbone.dcn.deform_groups", 3,
         "model.img_backbone.dcn.deform_groups: expected a divisor of 256, the width of stage 3, got 3"),
        ("model.img_backbone.plugins", [{}], "model.img_backbone.plugins: expected None, got [{}]"),
        ("model.img_backbone.stage_with_dcn", [0, 0, 1, 1],
         "model.img_backbone.stage_with_dcn: expected 4 values, each True or False, got [0, 0, 1, 1]"),
        ("model.img_backbone", 5, "model.img_backbone: expected a dict, got 5"),
        ("model", None, "expected a dict named model, got None"),
        ("model.img_neck.in_channels", [256, 512, 1024], "model.img_neck.in_channels: expected (512, 1024, 2048), got [256, 512, 1024]"),
        ("model.img_neck.num_outs", 4, "model.img_neck.num_outs: expected 3, got 4"),
        ("model.img_neck.out_channels", 256,
         f"{HEAD}.img_channels: expected model.img_neck.out_channels = 256 for each level, got (512, 512, 512)"),
        ("model.img_neck.out_channels", True, "model.img_neck.out_channels: expected a whole number from 1 to 65,536, got True"),
        (f"{HEAD}.volume_h", [100, 50], f"{HEAD}.volume_h: expected 3 values, {EACH}, got [100, 50]"),
        (f"{HEAD}.volume_h", 100, f"{HEAD}.volume_h: expected 3 values, {EACH}, got 100"),
        (f"{HEAD}.volume_h", [100, 50, 0], f"{HEAD}.volume_h: expected 3 values, {EACH}, got [100, 50, 0]"),
        (f"{HEAD}.volume_h", [100, 50, -25], f"{HEAD}.volume_h: expected 3 values, each a whole number"),
        (f"{HEAD}.volume_h", [100, 50, 25.0], f"{HEAD}.volume_h: expected 3 values, each a whole number"),
        (f"{HEAD}.volume_h", [100, 50, True], f"{HEAD}.volume_h: expected 3 values, each a whole number"),
        (f"{HEAD}.volume_h", [100, 50, 30],
         f"{HEAD}.volume_h: expected item 1 to be 2 x item 2, as the decoder adds the two volumes, got (100, 50, 30)"),
        (f"{HEAD}.volume_h", [90, 50, 25],
         f"{HEAD}.volume_h: expected item 0 to be 2 x item 1, as the decoder adds the two volumes, got (90, 50, 25)"),
        (f"{HEAD}.volume_w", [40_000, 20_000, 10_000],
         f"{HEAD}.volume_h, volume_w, volume_z: expected less than 16,777,216 voxels in a level, got 100 x 40000 x 8 = 32,000,000"),
        (f"{HEAD}.num_classes", 18, f"{HEAD}.num_classes: expected 17 = the 16 class_names + empty, got 18"),
        (f"{HEAD}.out_indices", [1, 3, 5, 6], f"{HEAD}.out_indices: expected (0, 2, 4, 6), got [1, 3, 5, 6]"),
        (f"{HEAD}.upsample_strides", [1, 2, 1, 2, 1, 3, 1],
         f"{HEAD}.upsample_strides: expected 7 values, each 1 or 2, got [1, 2, 1, 2, 1, 3, 1]"),
        (f"{HEAD}.upsample_strides", [1, 1, 1, 2, 1, 2, 1],
         f"{HEAD}.volume_h: expected item 1 to be 1 x item 2, as the decoder adds the two volumes, got (100, 50, 25)"),
        (f"{HEAD}.conv_input.0", 256, f"{HEAD}.conv_input.0: expected 512 = embed_dims.2, the coarsest level's width, got 256"),
        (f"{HEAD}.conv_input.3", 64, f"{HEAD}.conv_input.3: expected 128 = conv_output.2, got 64"),
        (f"{HEAD}.conv_output.1", 128, f"{HEAD}.conv_output.1: expected 256 = embed_dims.1, as that level's volume is added there"),
        (f"{HEAD}.conv_output.3", 64, f"{HEAD}.conv_output.3: expected 128 = embed_dims.0, as that level's volume is added there, got 64"),
        (f"{HEAD}.conv_output.6", 24,
         f"{HEAD}.conv_output: expected multiples of 16, the groups of GroupNorm, got (256, 256, 128, 128, 64, 64, 24)"),
        (f"{HEAD}.transformer_template.num_cams", 9,
         f"{HEAD}.transformer_template.num_cams: expected a whole number from 1 to 8, got 9"),
        (f"{HEAD}.transformer_template.num_cams", 0,
         f"{HEAD}.transformer_template.num_cams: expected a whole number from 1 to 8, got 0"),
        (f"{HEAD}.transformer_template.num_feature_levels", 1, f"{HEAD}.transformer_template.num_feature_levels: expected 4, got 1"),
        (f"{ENCODER}.return_intermediate", True, f"{ENCODER}.return_intermediate: expected False, got True"),
        (f"{ENCODER}.transformerlayers.attn_cfgs", [], f"{ENCODER}.transformerlayers.attn_cfgs: expected a list of one dict, got []"),
        (f"{ENCODER}.transformerlayers.operation_order", ["ffn"],
         f"{ENCODER}.transformerlayers.operation_order: expected ('cross_attn', 'norm', 'ffn', 'norm', 'conv'), got ['ffn']"),
        (f"{ATTENTION}.type", "TemporalSelfAttention", f"{ATTENTION}.type: expected 'SpatialCrossAttention', got 'TemporalSelfAttention'"),
        (f"{DEFORMABLE}.num_levels", 4, f"{DEFORMABLE}.num_levels: expected 1, got 4"),
        (f"{DEFORMABLE}.num_heads", 5,
         f"{DEFORMABLE}.num_heads: expected a divisor of every embed_dims (128, 256, 512), got 5"),
        ("class_names", ["a", "a"], "class_names: expected different names, each some printable characters, got ['a', 'a']"),
        ("class_names", ["a", "\x1b"], "class_names: expected different names, each some printable characters"),
        ("class_names", ["a", "b"], f"{HEAD}.num_classes: expected 3 = the 2 class_names + empty, got 17"),
        ("image_size", [0, 5], f"image_size: expected 2 values, {EACH}, got [0, 5]"),
        ("occ_size", [200, 200, 8],
         "occ_size: expected [200, 200, 16], which the decoder makes of volume_w, volume_h, volume_z, got [200, 200, 8]"),
        ("test_pipeline", [], "test_pipeline: expected NormalizeMultiviewImage and behind it PadMultiViewImage, got neither"),
        ("test_pipeline", None, "test_pipeline: expected a list of dicts, the steps of preprocessing, got None"),
        ("test_pipeline.3.size_divisor", 16,
         "test_pipeline.3.size_divisor: expected a positive multiple of 32, the stride of the backbone, got 16"),
        ("test_pipeline.3.size_divisor", 0, "test_pipeline.3.size_divisor: expected a positive multiple of 32"),
        ("test_pipeline.2.std", [1, 1, 0], "test_pipeline.2.std: expected 3 values, each a finite number above 0, got [1, 1, 0]"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_value_that_is_not_supported(key, value, line):
    assert line in refused(OFFICIAL, {key: value})


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["use_semantic", "model.use_semantic", f"{HEAD}.use_semantic"], False),
        (["point_cloud_range", f"{ENCODER}.pc_range", f"{ATTENTION}.pc_range"], [-40, -40, -1, 40, 40, 5.4]),
        ([f"{HEAD}.embed_dims", f"{HEAD}.transformer_template.embed_dims", f"{ENCODER}.transformerlayers.embed_dims",
          f"{ATTENTION}.embed_dims", f"{DEFORMABLE}.embed_dims"], [64, 256, 512]),
        (["img_norm_cfg.mean", "test_pipeline.2.mean"], [1, 2, 3]),
        (["img_norm_cfg.std", "test_pipeline.2.std"], [1, 2, 3]),
        (["img_norm_cfg.to_rgb", "test_pipeline.2.to_rgb"], True),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_fact_changes_everywhere_or_nowhere(keys, value):
    for key in keys:
        line = refused(OFFICIAL, {key: value})
        assert line.startswith(f"{keys[0]} is stated {len(keys)} times: expected the same value everywhere, got {keys[0]} = ")
        assert all(f"{other} = " in line for other in keys)
    options = [f"{key}={json.dumps(value)}" for key in keys]
    if "embed_dims" in keys[0]:
        options += [f"{HEAD}.conv_input.4=64", f"{HEAD}.conv_output.3=64"]
    changed = read_config_with_options(OFFICIAL, options)
    assert changed != read_config(OFFICIAL)
    if keys[0] == "use_semantic":
        assert changed.num_classes == 1
        assert "test_pipeline.1.use_semantic: ground truth follows model.pts_bbox_head.use_semantic" in changed.notes


@pytest.mark.parametrize("bad", [[0, 0, 0, 0, 1, 1], [1, 0, 0, -1, 1, 1], [0, 0, 0, 1, 1], ["0", 0, 0, 1, 1, 1], [False, 0, 0, 1, 1, 1], 3])
def test_range_of_the_points(bad):
    expected = "expected 6 finite numbers (x, y, z from; x, y, z to; metres), each from below its to"
    assert refused(OFFICIAL, {"point_cloud_range": bad}).startswith(f"point_cloud_range: {expected}")


@pytest.mark.parametrize("number", ["1e999", "1e999 - 1e999", "10**18", "True", "None", "'1'"])
def test_numbers_are_finite(tmp_path, number):
    line = refused(child(tmp_path, f"img_norm_cfg = dict(mean=[1.0, 2.0, {number}])"))
    assert line.startswith("img_norm_cfg.mean: expected 3 values, each a finite number, got [1.0, 2.0, ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model = dict(img_backbone=dict(dept=50))",
         "model.img_backbone.dept: expected a key that SurroundOcc has, got an unknown one with value 50; did you mean model.img_backbone"),
        ("model = dict(pts_bbox_head=dict(loss_occ=dict(a=1)))",
         f"{HEAD}.loss_occ: expected a key that SurroundOcc has, got an unknown one with value {{'a': 1}}; "),
        ("model = {'img_neck.out_channels': 5}",
         "model.img_neck.out_channels: expected a key that SurroundOcc has, got an unknown one with value 5"),
        ("model = {1: 5}", "model.1: expected a key that SurroundOcc has"),
        ("img_norm_cfg = dict(means=[1])", "img_norm_cfg.means: expected a key that SurroundOcc has"),
        ("model = dict(img_backbone=dict(_delete_=True, type='ResNet'))",
         "model.img_backbone.depth is missing: expected 50 or 101; add it to the config"),
        ("model = dict(img_neck=dict(upsample_cfg=3))", "model.img_neck.upsample_cfg: expected a dict, got 3"),
        ("test_pipeline = [dict(type='RandomScaleImageMultiViewImage', scales=[0.5])]",
         "test_pipeline.0.type: expected one of LoadMultiViewImageFromFiles, LoadOccupancy, NormalizeMultiviewImage, PadMultiViewImage, "
         "DefaultFormatBundle3D, CustomCollect3D, got 'RandomScaleImageMultiViewImage'; "
         "images would be preprocessed in another way than here"),
        ("test_pipeline = [dict(scales=1)]", "test_pipeline.0.type: expected one of"),
        ("test_pipeline = [dict(type=[1])]", "test_pipeline.0.type: expected one of"),
        ("p = dict(type='PadMultiViewImage', size_divisor=32)\ntest_pipeline = [p, p]",
         "test_pipeline.1.type: expected each step once, got PadMultiViewImage again, as test_pipeline.0"),
        (f"test_pipeline = [dict(type='PadMultiViewImage', size_divisor=32), {NORMALIZE}]",
         "test_pipeline: expected NormalizeMultiviewImage and behind it PadMultiViewImage, got PadMultiViewImage, NormalizeMultiviewImage"),
        ("test_pipeline = [dict(type='PadMultiViewImage', size=(928, 1600))]",
         "test_pipeline.0.size_divisor is missing: expected a positive multiple of 32, the stride of the backbone; add it to the config"),
        ("test_pipeline = [dict(type='PadMultiViewImage', size_divisor=32, size=(928, 1600))]",
         "test_pipeline.0.size: expected None, got (928, 1600)"),
        ("test_pipeline = [dict(type='PadMultiViewImage', size_divisor=32, pad_val=9)]",
         "test_pipeline.0.pad_val: expected 0 or 0.0, got 9"),
        ("test_pipeline = [dict(type='PadMultiViewImage', size_divisor=32, mode='edge')]",
         "test_pipeline.0.mode: expected an argument of PadMultiViewImage: size_divisor, size, pad_val, got one that is not supported"),
        (f"test_pipeline = [{NORMALIZE}, dict(type='PadMultiViewImage', size_divisor=64)]",
         "img_norm_cfg.mean is stated 2 times: expected the same value everywhere, got img_norm_cfg.mean = (103.53, 116.28, 123.675), "
         "test_pipeline.0.mean = (1.0, 1.0, 1.0); change them together"),
    ],
    ids=lambda text: text[:60],
)
def test_file_that_is_another_network(tmp_path, text, line):
    assert refused(child(tmp_path, text)).startswith(line)
