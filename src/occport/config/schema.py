"""Every key of a SurroundOcc config: what it may be, and whether it has an effect.

`SCHEMA` is the one table. A key is *used* (it becomes part of `Config`), *fixed* (upstream allows more than this network, so the value is
checked), or *ignored* (upstream swallows it, or it acts in training only; the reason becomes a note). Under `model` everything else is an
error. Defaults are upstream's own: SurroundOcc, and mmdet 2.14 and mmcv 1.4 for backbone and neck.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError
from .kinds import FLAG, FLAGS, NAMES, RANGE, STRIDES, Kind, numbers, one_of, shown, whole, wholes

REQUIRED = object()  # in place of a default
LEVELS = wholes(3)  # one value for each level, fine to coarse


@dataclass(frozen=True)
class Rule:
    """What is known about one key."""

    status: Literal["used", "fixed", "ignored"]
    kind: Kind | None = None
    default: Any = REQUIRED
    reason: str = ""


@dataclass(frozen=True)
class Settings:
    """The used and fixed values of a config by dotted key, with defaults; `stated` are the keys that the config gives."""

    values: Mapping[str, Any]
    stated: frozenset[str]
    notes: tuple[str, ...]


def used(kind: Kind, default: Any = REQUIRED) -> Rule:
    """A key that becomes part of `Config`."""
    return Rule("used", kind, default)


def fixed(*allowed: Any) -> Rule:
    """A key that must have one of these values where it is given; the first is upstream's default."""
    return Rule("fixed", one_of(*allowed), allowed[0])


def stated(*allowed: Any) -> Rule:
    """A key that must be given with one of these values, as upstream's default would be another network."""
    return Rule("fixed", one_of(*allowed))


def ignored(reason: str) -> Rule:
    """A key without effect here, whatever its value."""
    return Rule("ignored", reason=reason)


_TRAINING = "acts in training only"
_NO_EXTRA = "num_outs=3 leaves no extra level"
HEAD = "model.pts_bbox_head"
TRANSFORMER = f"{HEAD}.transformer_template"
ENCODER = f"{TRANSFORMER}.encoder"
LAYER = f"{ENCODER}.transformerlayers"
ATTENTION = f"{LAYER}.attn_cfgs.0"
DEFORMABLE = f"{ATTENTION}.deformable_attention"
_CAMERAS = whole(8)

_TABLE: dict[str, dict[str, Rule]] = {
    "": {
        "point_cloud_range": used(RANGE, None),
        "occ_size": used(wholes(3), None),
        "use_semantic": used(FLAG, None),
        "class_names": used(NAMES),
        "image_size": used(wholes(2), (900, 1600)),  # occport's own: (H, W) of a synthetic frame, before padding
    },
    "img_norm_cfg": {"mean": used(numbers(3), None), "std": used(numbers(3, positive=True), None), "to_rgb": used(FLAG, None)},
    "model": {
        "type": stated("SurroundOcc"),
        "use_semantic": used(FLAG, None),
        "use_grid_mask": ignored("a training augmentation"),
        "is_vis": ignored("chooses whether upstream's test loop writes files or metrics; the network is the same"),
        "version": ignored("upstream stores it and never reads it"),
        **{f"pts_{part}": fixed(None) for part in ("voxel_layer", "voxel_encoder", "middle_encoder", "fusion_layer", "backbone", "neck")},
        "img_roi_head": fixed(None),
        "img_rpn_head": fixed(None),
    },
    "model.img_backbone": {
        "type": stated("ResNet", "ResNet_DL"),
        "depth": used(one_of(50, 101)),
        "in_channels": fixed(3),
        "stem_channels": fixed(64),
        "base_channels": fixed(64),
        "num_stages": fixed(4),
        "strides": fixed((1, 2, 2, 2)),
        "dilations": fixed((1, 1, 1, 1)),
        "out_indices": stated((1, 2, 3)),
        "style": stated("caffe"),
        "deep_stem": fixed(False),
        "avg_down": fixed(False),
        "conv_cfg": fixed(None),
        "plugins": fixed(None),
        "stage_with_dcn": used(FLAGS, (False, False, False, False)),
        "frozen_stages": ignored(_TRAINING),
        "norm_eval": ignored("batch normalisation always uses its running statistics here"),
        "zero_init_residual": ignored("weights come from a checkpoint or a seed"),
    },
    "model.img_backbone.norm_cfg": {
        "type": fixed("BN", "BN2d", "SyncBN"),
        "eps": fixed(1e-5),
        "requires_grad": ignored(_TRAINING),
        "momentum": ignored(_TRAINING),
    },
    "model.img_backbone.dcn": {
        "type": used(one_of("DCNv2"), None),
        "deform_groups": used(whole(), 1),
        "fallback_on_stride": fixed(False),
    },
    "model.img_neck": {
        "type": stated("FPN"),
        "in_channels": stated((512, 1024, 2048)),
        "out_channels": used(whole()),
        "start_level": fixed(0),
        "end_level": fixed(-1, 3),
        "num_outs": stated(3),
        "add_extra_convs": ignored(_NO_EXTRA),
        "extra_convs_on_inputs": ignored(_NO_EXTRA),
        "relu_before_extra_convs": ignored(_NO_EXTRA),
        "no_norm_on_lateral": ignored("the neck has no norms"),
        "conv_cfg": fixed(None),
        "norm_cfg": fixed(None),
        "act_cfg": fixed(None),
    },
    "model.img_neck.upsample_cfg": {"mode": fixed("nearest")},
    HEAD: {
        "type": stated("OccHead"),
        "volume_h": used(LEVELS),
        "volume_w": used(LEVELS),
        "volume_z": used(LEVELS),
        "num_classes": used(whole(), 17),
        "conv_input": used(wholes(7)),
        "conv_output": used(wholes(7)),
        "upsample_strides": used(STRIDES),
        "out_indices": fixed((0, 2, 4, 6)),
        "embed_dims": used(LEVELS),
        "img_channels": used(LEVELS),
        "use_semantic": used(FLAG),
        "num_query": ignored("upstream swallows it; the queries are the voxels"),
    },
    TRANSFORMER: {
        "type": stated("PerceptionTransformer"),
        "embed_dims": used(LEVELS),
        "num_cams": used(_CAMERAS, 6),
        "num_feature_levels": fixed(4),
        "use_cams_embeds": fixed(True),
        "two_stage_num_proposals": ignored("upstream stores it and never reads it"),
        "rotate_center": ignored("upstream stores it and never reads it"),
    },
    ENCODER: {
        "type": stated("OccEncoder"),
        "num_layers": used(LEVELS),
        "pc_range": used(RANGE),
        "return_intermediate": fixed(False),
        "dataset_type": ignored("upstream never reads it"),
    },
    LAYER: {
        "type": stated("OccLayer"),
        "embed_dims": used(LEVELS),
        "feedforward_channels": used(LEVELS),
        "conv_num": used(whole(), 1),
        "operation_order": stated(("cross_attn", "norm", "ffn", "norm", "conv")),
        "ffn_num_fcs": fixed(2),
        "batch_first": fixed(True),
        "ffn_dropout": ignored(_TRAINING),
        "act_cfg": ignored("upstream does not hand it on; the activation is ReLU"),
    },
    f"{LAYER}.norm_cfg": {"type": fixed("LN"), "eps": fixed(1e-5)},
    ATTENTION: {
        "type": stated("SpatialCrossAttention"),
        "embed_dims": used(LEVELS),
        "num_cams": used(_CAMERAS, 6),
        "pc_range": used(RANGE, None),
        "batch_first": fixed(True),
        "dropout": ignored(_TRAINING),
    },
    DEFORMABLE: {
        "type": stated("MSDeformableAttention3D", "MSDeformableAttention3D_DL"),
        "embed_dims": used(LEVELS),
        "num_points": used(LEVELS),
        "num_levels": stated(1),
        "num_heads": used(whole(), 8),
        "batch_first": fixed(True),
        "dropout": ignored(_TRAINING),
        "norm_cfg": ignored("upstream stores it and never reads it"),
        "im2col_step": ignored("splits the work of upstream's CUDA kernel; the result is the same"),
    },
}
_ANYWHERE = {  # below `model`
    "init_cfg": ignored("weights come from a checkpoint or a seed"),
    "pretrained": ignored("weights come from a checkpoint or a seed"),
    "train_cfg": ignored(_TRAINING),
    "test_cfg": ignored("upstream's occupancy head has no test settings"),
    "with_cp": ignored("saves memory in training"),
}

SCHEMA: dict[str, Rule] = {
    f"{prefix}.{key}" if prefix else key: rule
    for prefix, rules in _TABLE.items()
    for key, rule in {**(_ANYWHERE if prefix.startswith("model") and not prefix.endswith(("_cfg", ".dcn")) else {}), **rules}.items()
}
FOLDERS = {".".join(key.split(".")[:depth]) for key in SCHEMA for depth in range(1, key.count(".") + 1)}
_MAY_BE_NONE = {"model.img_backbone.dcn"}
_LISTS = {f"{LAYER}.attn_cfgs"}  # of one dict


def read_settings(raw: Mapping[str, Any]) -> Settings:
    """Checks every key under `model`, and the other keys of `SCHEMA`, by itself; `facts.py` checks them against each other.

    Args:
        raw: a config as `file.py` gives it. Other top-level keys are training's, and left alone.

    Errors: ConfigError with the dotted key, the value and what is supported.
    """
    given: dict[str, Any] = {}
    for key, value in raw.items():
        if key in SCHEMA or key in FOLDERS:
            given.update(_leaves(value, key))
    notes = tuple(f"{key}: {rule.reason}" for key, rule in SCHEMA.items() if rule.status == "ignored" and key in given)
    return Settings(apply_rules(SCHEMA, given), frozenset(given), notes)


def apply_rules(rules: Mapping[str, Rule], given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the used and fixed keys, defaults included.

    Errors: ConfigError with the dotted key, the value and what is supported.
    """
    values: dict[str, Any] = {}
    for key, rule in rules.items():
        if rule.kind is None:
            continue
        if key in given:
            values[key] = rule.kind.read(given[key])
            if values[key] is None:
                raise ConfigError(key, expected=rule.kind.expected, got=shown(given[key]))
        elif rule.default is REQUIRED:
            raise ConfigError(f"{key} is missing", expected=rule.kind.expected, fix="add it to the config")
        else:
            values[key] = rule.default
    return values


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything that `SCHEMA` has a rule for."""
    if path in SCHEMA:
        yield path, value
    elif path in _LISTS:
        if not isinstance(value, list | tuple) or len(value) != 1:
            raise ConfigError(path, expected="a list of one dict", got=shown(value))
        yield from _leaves(value[0], f"{path}.0")
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{path}.{key}"
            if not isinstance(key, str) or "." in key or (inner not in SCHEMA and inner not in FOLDERS):
                close = difflib.get_close_matches(inner[:200], SCHEMA.keys() | FOLDERS, n=2, cutoff=0.8)
                hint = f"did you mean {' or '.join(close)}?" if close else "remove it, or check that this network is SurroundOcc"
                raise ConfigError(inner, expected="a key that SurroundOcc has", got=f"an unknown one with value {shown(item)}", fix=hint)
            yield from _leaves(item, inner)
    elif value is not None or path not in _MAY_BE_NONE:
        raise ConfigError(path, expected="a dict", got=shown(value))
