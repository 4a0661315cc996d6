"""Preprocessing, read from a config's `test_pipeline`: images are normalised, then padded, and nothing else happens to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError
from .kinds import FLAG, MAX_COUNT, Kind, numbers, shown
from .schema import Rule, apply_rules, fixed, ignored, used

STRIDE = 32  # of the coarsest backbone stage
NORMALIZE, PAD, OCCUPANCY = "NormalizeMultiviewImage", "PadMultiViewImage", "LoadOccupancy"


def _read_divisor(value: Any) -> int | None:
    right = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_COUNT and value % STRIDE == 0
    return value if right else None


_DIVISOR = Kind(f"a positive multiple of {STRIDE}, the stride of the backbone", _read_divisor)
_UNUSED = ignored("occport loads and collects frames itself")

STEPS: dict[str, dict[str, Rule]] = {
    "LoadMultiViewImageFromFiles": {"to_float32": _UNUSED, "color_type": fixed("unchanged", "color")},
    OCCUPANCY: {"use_semantic": used(FLAG, True)},
    NORMALIZE: {"mean": used(numbers(3)), "std": used(numbers(3, positive=True)), "to_rgb": used(FLAG, True)},
    PAD: {"size_divisor": used(_DIVISOR), "size": fixed(None), "pad_val": fixed(0, 0.0)},
    "DefaultFormatBundle3D": {"class_names": _UNUSED, "with_label": _UNUSED, "with_gt": _UNUSED},
    "CustomCollect3D": {"keys": _UNUSED, "meta_keys": _UNUSED},
}


@dataclass(frozen=True)
class Pipeline:
    """Values of the steps by dotted key, and step → where it stands (`test_pipeline.2`)."""

    values: Mapping[str, Any]
    places: Mapping[str, str]

    def value(self, step: str, name: str) -> Any:
        """The value of an argument, or None where the step is not in the pipeline."""
        return self.values[f"{self.places[step]}.{name}"] if step in self.places else None


def read_pipeline(raw: Mapping[str, Any]) -> Pipeline:
    """Reads `test_pipeline` of a config as `file.py` gives it.

    Errors: ConfigError for a step or argument that would change images in another way, with its dotted key.
    """
    steps = raw.get("test_pipeline")
    if not isinstance(steps, list | tuple) or not all(isinstance(step, dict) for step in steps):
        raise ConfigError("test_pipeline", expected="a list of dicts, the steps of preprocessing", got=shown(steps))
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for index, step in enumerate(steps):
        name, place = step.get("type"), f"test_pipeline.{index}"
        if not isinstance(name, str) or name not in STEPS:
            raise ConfigError(
                f"{place}.type", expected=f"one of {', '.join(STEPS)}", got=shown(name),
                fix="images would be preprocessed in another way than here",
            )
        if name in places:
            raise ConfigError(f"{place}.type", expected="each step once", got=f"{name} again, as {places[name]}")
        rules = STEPS[name]
        if unknown := [key for key in step if key != "type" and key not in rules]:
            expected = f"an argument of {name}: {', '.join(rules)}"
            raise ConfigError(f"{place}.{unknown[0]}", expected=expected, got="one that is not supported")
        places[name] = place
        given = {f"{place}.{key}": item for key, item in step.items()}
        values |= apply_rules({f"{place}.{key}": rule for key, rule in rules.items()}, given)
    order = [name for name in places if name in (NORMALIZE, PAD)]
    if order != [NORMALIZE, PAD]:
        raise ConfigError("test_pipeline", expected=f"{NORMALIZE} and behind it {PAD}", got=", ".join(order) or "neither")
    return Pipeline(values, places)
