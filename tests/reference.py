"""Reference outputs of the original SurroundOcc, and models filled with the weights that made them.

They lie beside the checkout in `shared/reference` (see its README); every test that asks for them is skipped where they are absent.
"""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "projects" / "configs" / "surroundocc"
SHARED = ROOT.parent / "shared"
REFERENCE = SHARED / "reference"


class Inputs(NamedTuple):
    """What the reference network was given."""

    img: Tensor  # (B, 6, 3, H, W) float32
    lidar2img: Tensor  # (B, 6, 4, 4) float64
    image_hw: tuple[int, int]


def reference_file(name: str) -> Path:
    """A file of `shared/reference`; skips the test where the folder is absent."""
    if not REFERENCE.is_dir():
        pytest.skip("no ../shared/reference beside this checkout: the original network's outputs are there")
    return REFERENCE / name


@cache
def load_case(name: str) -> dict[str, np.ndarray]:
    """All arrays of `<name>.npz`."""
    with np.load(reference_file(f"{name}.npz")) as case:
        return {key: case[key] for key in case.files}


@cache
def recipe() -> ModuleType:
    """`recipe.py` of the reference folder: `value(key, shape)`, `inputs(case)`, `lidar2img(...)`."""
    spec = importlib.util.spec_from_file_location("reference_recipe", reference_file("recipe.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs(name: str) -> Inputs:
    """Images and calibration of a case."""
    img, lidar2img, (height, width) = recipe().inputs(load_case(name))
    return Inputs(torch.from_numpy(img), torch.from_numpy(lidar2img), (int(height), int(width)))


def overrides(name: str) -> dict[str, Any]:
    """Config overrides of a case: dotted keys under `model`, as `read_config` takes them."""
    case = load_case(name)
    return dict(json.loads(str(case["overrides"]))) if "overrides" in case else {}


def keys(config: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → (shape, dtype) of the original's state dict, in its order."""
    lines = reference_file(f"keys_{config}.txt").read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: (tuple(int(size) for size in shape.strip("()").split(",") if size.strip()), dtype) for name, shape, dtype in rows}


def fill_with_recipe(model: nn.Module) -> None:
    """Overwrites the model's weights in place with those that made the reference outputs."""
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            tensor.copy_(torch.from_numpy(recipe().value(key, tensor.shape)))


def config_of(name: str) -> Any:
    """The config of a case, read with its overrides."""
    from occport.config import read_config

    return read_config(CONFIGS / f"{load_case(name)['config']}.py", overrides(name))


@cache
def reference_model(name: str) -> Any:
    """The network of a case with the recipe's weights, in eval mode. Shared between tests: do not change it."""
    from occport.model.surroundocc import build_model

    model = build_model(config_of(name))
    fill_with_recipe(model)
    return model
