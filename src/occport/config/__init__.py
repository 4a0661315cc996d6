"""What a config means: frozen dataclasses, read once at the edge, handed to everything else.

`read_config` goes from a file to a `Config`: the file as data (`file.py`), each key by itself (`schema.py`, `pipeline.py`),
the keys against each other (`facts.py`). Letters: H x W an image before padding, (X, Y, Z) a volume as it leaves the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from .facts import CAMERAS, PER_LEVEL, PER_NETWORK, RANGES, SEMANTIC, check_agreement, check_network
from .file import apply_overrides, parse_override, read_config_file
from .kinds import FINITE, MAX_COUNT, shown
from .pipeline import NORMALIZE, OCCUPANCY, PAD, Pipeline, read_pipeline
from .schema import FOLDERS, HEAD, SCHEMA, Settings, read_settings


@dataclass(frozen=True)
class BackboneConfig:
    """ResNet in Caffe's style; stage i is 64 * 2^i wide inside."""

    depth: int  # 50 or 101
    stage_with_dcn: tuple[bool, bool, bool, bool]  # whose 3x3 convolutions are deformable
    deform_groups: int


@dataclass(frozen=True)
class NeckConfig:
    """FPN over the last three stages."""

    in_channels: tuple[int, ...]
    out_channels: int


@dataclass(frozen=True)
class LevelConfig:
    """One attention level. Level 0 is the finest."""

    width: int
    volume_h: int  # along y
    volume_w: int  # along x
    volume_z: int
    num_layers: int
    num_points: int
    num_heads: int
    ffn_width: int
    num_convs: int

    @property
    def num_voxels(self) -> int:
        """V."""
        return self.volume_h * self.volume_w * self.volume_z


@dataclass(frozen=True)
class DecoderConfig:
    """The seven 3D deblocks, and behind which of them occupancy is read out."""

    conv_input: tuple[int, ...]
    conv_output: tuple[int, ...]
    upsample_strides: tuple[int, ...]
    out_indices: tuple[int, ...]


@dataclass(frozen=True)
class ImageConfig:
    """Preprocessing. Channels are in the order the network wants: BGR unless `to_rgb`."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    to_rgb: bool
    size_divisor: int  # padded at the bottom and right to a multiple of it
    size: tuple[int, int]  # (H, W) before padding, of the synthetic frame


@dataclass(frozen=True)
class Config:
    """A SurroundOcc network and its input."""

    name: str
    backbone: BackboneConfig
    neck: NeckConfig
    levels: tuple[LevelConfig, ...]  # three, fine to coarse
    decoder: DecoderConfig
    num_cameras: int
    num_classes: int  # channels of an output: the classes with empty, or 1 without semantics
    use_semantic: bool
    class_names: tuple[str, ...]  # of classes 1, 2, ...; class 0 is empty
    pc_range: tuple[float, float, float, float, float, float]  # x, y, z from; x, y, z to; lidar metres
    image: ImageConfig
    notes: tuple[str, ...]  # "dotted.key: why it has no effect here"

    @property
    def output_sizes(self) -> tuple[tuple[int, int, int], ...]:
        """(X, Y, Z) of the four outputs, coarse to fine. X is the volume's w, Y its h."""
        coarsest = self.levels[-1]
        size = (coarsest.volume_w, coarsest.volume_h, coarsest.volume_z)
        sizes = []
        for index, stride in enumerate(self.decoder.upsample_strides):
            size = (size[0] * stride, size[1] * stride, size[2] * stride)
            if index in self.decoder.out_indices:
                sizes.append(size)
        return tuple(sizes)

    @property
    def occ_size(self) -> tuple[int, int, int]:
        """(X, Y, Z) of the finest output."""
        return self.output_sizes[-1]


def read_config(path: str | Path, overrides: Mapping[str, object] | None = None) -> Config:
    """Reads a config file.

    Args:
        path: an mmcv-style Python config of SurroundOcc; it is parsed, never executed.
        overrides: dotted key under `model` → value, as `{"img_backbone.depth": 50, "pts_bbox_head.volume_h": [20, 10, 5]}`.

    Errors: ConfigError, one line, for anything that is wrong with the file, its bases, a key or a value.
    """
    return _read(Path(path), {f"model.{key}": value for key, value in (overrides or {}).items()})


def read_config_with_options(path: str | Path, options: Sequence[str]) -> Config:
    """Reads a config file and the command line's `KEY=VALUE` options, dotted from the config's top: `model.img_backbone.depth=50`.

    Errors: ConfigError, as `read_config`, and for an option that is malformed or given twice.
    """
    overrides: dict[str, object] = {}
    for option in options:
        key, value = parse_override(option)
        if key in overrides:
            raise ConfigError(f"override {key}", expected="each key once", got=f"{shown(overrides[key])} and {shown(value)}")
        overrides[key] = value
    return _read(Path(path), overrides)


def _read(path: Path, overrides: Mapping[str, object]) -> Config:
    raw = apply_overrides(read_config_file(path), overrides, SCHEMA.keys() | FOLDERS)
    if not isinstance(raw.get("model"), dict):
        raise ConfigError(f"config {path}", expected="a dict named model", got=shown(raw.get("model")))
    settings = read_settings(raw)
    pipeline = read_pipeline(raw)
    check_agreement(settings, pipeline)
    config = _build(path.stem, settings, pipeline)
    check_network(config)
    return dataclasses.replace(config, notes=(*settings.notes, *_extra_notes(config, settings, pipeline, overrides)))


def _build(name: str, settings: Settings, pipeline: Pipeline) -> Config:
    values = settings.values
    semantic = values[SEMANTIC[-1]]
    cameras = [values[key] for key in CAMERAS if key in settings.stated]
    backbone = "model.img_backbone"
    return Config(
        name=name,
        backbone=BackboneConfig(values[f"{backbone}.depth"], values[f"{backbone}.stage_with_dcn"], values[f"{backbone}.dcn.deform_groups"]),
        neck=NeckConfig(values["model.img_neck.in_channels"], values["model.img_neck.out_channels"]),
        levels=tuple(_level(values, level) for level in range(3)),
        decoder=DecoderConfig(
            values[f"{HEAD}.conv_input"], values[f"{HEAD}.conv_output"], values[f"{HEAD}.upsample_strides"], values[f"{HEAD}.out_indices"],
        ),
        num_cameras=cameras[0] if cameras else values[CAMERAS[0]],
        num_classes=values[f"{HEAD}.num_classes"] if semantic else 1,
        use_semantic=semantic,
        class_names=values["class_names"],
        pc_range=values[RANGES[1]],
        image=ImageConfig(
            mean=pipeline.value(NORMALIZE, "mean"), std=pipeline.value(NORMALIZE, "std"), to_rgb=pipeline.value(NORMALIZE, "to_rgb"),
            size_divisor=pipeline.value(PAD, "size_divisor"), size=values["image_size"],
        ),
        notes=(),
    )


def _level(values: Mapping[str, Any], level: int) -> LevelConfig:
    each = {field: values[key][level] for field, key in PER_LEVEL.items()}
    return LevelConfig(**each, **{field: values[key] for field, key in PER_NETWORK.items()})


def _extra_notes(config: Config, settings: Settings, pipeline: Pipeline, overrides: Mapping[str, object]) -> list[str]:
    """Notes that `schema.py` cannot know; raises where `occ_size` is another than the network's."""
    notes = []
    read = {"test_pipeline", *(key.split(".")[0] for key in SCHEMA)}
    notes += [f"{key}: acts in training or evaluation only" for key in overrides if key.split(".")[0] not in read]
    if pipeline.value(OCCUPANCY, "use_semantic") not in (None, config.use_semantic):
        notes.append(f"{pipeline.places[OCCUPANCY]}.use_semantic: ground truth follows {SEMANTIC[-1]}")
    if not config.use_semantic and f"{HEAD}.num_classes" in settings.stated:
        notes.append(f"{HEAD}.num_classes: without semantics each output has one channel")
    stated = settings.values["occ_size"]
    if stated is None or stated == config.occ_size:
        return notes
    resized = any(key.startswith((f"{HEAD}.volume_", f"{HEAD}.upsample_strides")) or f"{HEAD}.".startswith(f"{key}.") for key in overrides)
    if not resized or any(key.split(".")[0] == "occ_size" for key in overrides):
        expected = f"{list(config.occ_size)}, which the decoder makes of volume_w, volume_h, volume_z"
        raise ConfigError("occ_size", expected=expected, got=shown(list(stated)))
    notes.append(f"occ_size: follows the overridden volume, {list(config.occ_size)} instead of {list(stated)}")
    return notes


def resolved(config: Config) -> dict[str, Any]:
    """The config as JSON has it: dicts, lists, strings, numbers and booleans. `from_resolved` gives it back."""
    encoded: dict[str, Any] = _encoded(config)
    return encoded


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {field.name: _encoded(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_encoded(item) for item in value] if isinstance(value, tuple) else value


def from_resolved(data: Mapping[str, Any]) -> Config:
    """The config that `resolved` was given.

    Errors: ConfigError for a field that is unknown, missing, of the wrong type or out of range, and for parts that do not fit together.
    """
    config: Config = _decoded(Config, data, "config")
    check_network(config)
    return config


def _decoded(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        names = {field.name for field in dataclasses.fields(kind)}
        if not isinstance(value, Mapping) or set(value) != names:
            got = f"{', '.join(sorted(map(str, value)))}" if isinstance(value, Mapping) else shown(value)
            raise ConfigError(f"resolved {where}", expected=f"the fields {', '.join(sorted(names))}", got=got)
        hints = get_type_hints(kind)
        made: Any = kind
        return made(**{name: _decoded(hints[name], value[name], f"{where}.{name}") for name in names})
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if isinstance(value, list | tuple):
            kinds = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
            if len(value) == len(kinds):
                return tuple(_decoded(inner, item, f"{where}.{i}") for i, (inner, item) in enumerate(zip(kinds, value, strict=True)))
        raise ConfigError(f"resolved {where}", expected="a list" if kinds[-1] is Ellipsis else f"a list of {len(kinds)}", got=shown(value))
    expected, right = _SCALARS[kind]
    if not right(value):
        raise ConfigError(f"resolved {where}", expected=expected, got=shown(value))
    return float(value) if kind is float else value


_SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: (f"a whole number from 0 to {MAX_COUNT:,}", lambda value: type(value) is int and 0 <= value <= MAX_COUNT),
    float: ("a finite number", lambda value: type(value) in (int, float) and abs(value) < FINITE),
    str: ("a string", lambda value: isinstance(value, str)),
}
