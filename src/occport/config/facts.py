"""What must hold between the keys of a config: a fact that is stated twice is the same twice, and the parts of the network fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .kinds import shown
from .pipeline import NORMALIZE, PAD, STEPS, Pipeline
from .schema import ATTENTION, DEFORMABLE, ENCODER, HEAD, LAYER, SCHEMA, TRANSFORMER, Settings

if TYPE_CHECKING:
    from . import Config

GROUPS = 16  # of every GroupNorm
MAX_VOXELS = 2**24  # of a level: the projection counts voxels in float32
CAMERAS = (f"{TRANSFORMER}.num_cams", f"{ATTENTION}.num_cams")
SEMANTIC = ("use_semantic", "model.use_semantic", f"{HEAD}.use_semantic")
RANGES = ("point_cloud_range", f"{ENCODER}.pc_range", f"{ATTENTION}.pc_range")
PER_LEVEL = {  # field of a level → the key that lists it, fine to coarse
    "width": f"{HEAD}.embed_dims",
    "volume_h": f"{HEAD}.volume_h",
    "volume_w": f"{HEAD}.volume_w",
    "volume_z": f"{HEAD}.volume_z",
    "num_layers": f"{ENCODER}.num_layers",
    "num_points": f"{DEFORMABLE}.num_points",
    "ffn_width": f"{LAYER}.feedforward_channels",
}
PER_NETWORK = {"num_heads": f"{DEFORMABLE}.num_heads", "num_convs": f"{LAYER}.conv_num"}  # the same at every level
WIDTHS = tuple(f"{place}.embed_dims" for place in (HEAD, TRANSFORMER, LAYER, ATTENTION, DEFORMABLE))


def check_agreement(settings: Settings, pipeline: Pipeline) -> None:
    """Compares the facts that a config states more than once, where it states them.

    Errors: ConfigError that lists every dotted key of the fact with its value.
    """
    values = settings.values
    for keys in (SEMANTIC, WIDTHS, RANGES, CAMERAS):
        _agree({key: values[key] for key in keys if key in settings.stated})
    for name in ("mean", "std", "to_rgb"):
        if f"img_norm_cfg.{name}" in settings.stated:
            key = f"{pipeline.places[NORMALIZE]}.{name}"
            _agree({f"img_norm_cfg.{name}": values[f"img_norm_cfg.{name}"], key: pipeline.values[key]})
    channels, neck = values[f"{HEAD}.img_channels"], values["model.img_neck.out_channels"]
    if set(channels) != {neck}:
        raise ConfigError(f"{HEAD}.img_channels", expected=f"model.img_neck.out_channels = {neck} for each level", got=shown(channels))
    dcn = settings.values["model.img_backbone.dcn.type"]
    stages = settings.values["model.img_backbone.stage_with_dcn"]
    if any(stages) and dcn is None:
        raise ConfigError(
            "model.img_backbone.stage_with_dcn", expected="no True without model.img_backbone.dcn", got=shown(stages),
            fix="give dcn=dict(type='DCNv2'), or False for every stage",
        )


def _agree(values: Mapping[str, Any]) -> None:
    if len(set(values.values())) > 1:
        raise ConfigError(
            f"{next(iter(values))} is stated {len(values)} times", expected="the same value everywhere",
            got=", ".join(f"{key} = {value!r}" for key, value in values.items()), fix="change them together",
        )


def check_network(config: Config) -> None:
    """Checks that channels, volumes and classes fit together.

    Errors: ConfigError that names the dotted keys and their values.
    """
    _check_values(config)
    _check_widths(config)
    _check_decoder(config)
    _check_volumes(config)
    for stage, deformable in enumerate(config.backbone.stage_with_dcn):
        width, groups = 64 * 2**stage, config.backbone.deform_groups
        if deformable and width % groups:
            expected = f"a divisor of {width}, the width of stage {stage + 1}"
            raise ConfigError("model.img_backbone.dcn.deform_groups", expected=expected, got=str(groups))
    if config.use_semantic and config.num_classes != len(config.class_names) + 1:
        raise ConfigError(
            f"{HEAD}.num_classes", expected=f"{len(config.class_names) + 1} = the {len(config.class_names)} class_names + empty",
            got=str(config.num_classes),
        )
    if not config.use_semantic and config.num_classes != 1:
        raise ConfigError("num_classes", expected="1 output channel without semantics", got=str(config.num_classes))


def _check_values(config: Config) -> None:
    """Each value by itself: nothing new for a config that was read, but a config may also come from the manifest of an exported file."""
    decoder, image = config.decoder, config.image
    rules = {**SCHEMA, **{f"{step}.{name}": rule for step, rules in STEPS.items() for name, rule in rules.items()}}
    values: dict[str, object] = {
        "model.img_backbone.depth": config.backbone.depth,
        "model.img_backbone.dcn.deform_groups": config.backbone.deform_groups,
        "model.img_neck.in_channels": config.neck.in_channels,
        "model.img_neck.out_channels": config.neck.out_channels,
        **{key: tuple(getattr(level, field) for level in config.levels) for field, key in PER_LEVEL.items()},
        f"{HEAD}.conv_input": decoder.conv_input,
        f"{HEAD}.conv_output": decoder.conv_output,
        f"{HEAD}.upsample_strides": decoder.upsample_strides,
        f"{HEAD}.out_indices": decoder.out_indices,
        CAMERAS[0]: config.num_cameras,
        RANGES[0]: config.pc_range,
        "class_names": config.class_names,
        "image_size": image.size,
        f"{NORMALIZE}.mean": image.mean,
        f"{NORMALIZE}.std": image.std,
        f"{PAD}.size_divisor": image.size_divisor,
    }
    checks = [*values.items(), *((key, getattr(level, field)) for field, key in PER_NETWORK.items() for level in config.levels)]
    for key, value in checks:
        kind = rules[key].kind
        assert kind is not None, key
        if kind.read(value) is None:
            raise ConfigError(key, expected=kind.expected, got=shown(value))


def _check_widths(config: Config) -> None:
    widths = tuple(level.width for level in config.levels)
    for level in config.levels:
        if level.width % GROUPS:
            raise ConfigError(WIDTHS[0], expected=f"multiples of {GROUPS}, the groups of GroupNorm", got=shown(widths))
        if level.width % level.num_heads:
            raise ConfigError(f"{DEFORMABLE}.num_heads", expected=f"a divisor of every embed_dims {widths}", got=str(level.num_heads))


def _check_decoder(config: Config) -> None:
    decoder = config.decoder
    given, made = decoder.conv_input, decoder.conv_output
    widths = tuple(level.width for level in config.levels)
    if any(width % GROUPS for width in made):
        raise ConfigError(f"{HEAD}.conv_output", expected=f"multiples of {GROUPS}, the groups of GroupNorm", got=shown(made))
    if given[0] != widths[2]:
        raise ConfigError(f"{HEAD}.conv_input.0", expected=f"{widths[2]} = embed_dims.2, the coarsest level's width", got=str(given[0]))
    for i, level in ((1, 1), (3, 0)):
        if made[i] != widths[level]:
            expected = f"{widths[level]} = embed_dims.{level}, as that level's volume is added there"
            raise ConfigError(f"{HEAD}.conv_output.{i}", expected=expected, got=str(made[i]))
    for i in range(len(made) - 1):
        if given[i + 1] != made[i]:
            raise ConfigError(f"{HEAD}.conv_input.{i + 1}", expected=f"{made[i]} = conv_output.{i}", got=str(given[i + 1]))


def _check_volumes(config: Config) -> None:
    for level in config.levels:
        if level.num_voxels >= MAX_VOXELS:
            raise ConfigError(
                f"{HEAD}.volume_h, volume_w, volume_z", expected=f"less than {MAX_VOXELS:,} voxels in a level",
                got=f"{level.volume_h} x {level.volume_w} x {level.volume_z} = {level.num_voxels:,}",
            )
    strides = config.decoder.upsample_strides
    factors = {1: strides[0] * strides[1], 0: strides[2] * strides[3]}  # from the next coarser level to this one
    for name in ("volume_h", "volume_w", "volume_z"):
        sizes = tuple(getattr(level, name) for level in config.levels)
        for finer, factor in factors.items():
            if sizes[finer] != sizes[finer + 1] * factor:
                expected = f"item {finer} to be {factor} x item {finer + 1}, as the decoder adds the two volumes"
                raise ConfigError(f"{HEAD}.{name}", expected=expected, got=shown(sizes))
