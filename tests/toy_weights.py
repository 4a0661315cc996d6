"""Weights files for tests: a small module with the names that matter, and every way in which such files are written."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from occport.checkpoint import load_checkpoint
from occport.errors import CheckpointError
from occport.seeds import seed_weights

State = Mapping[str, Tensor]


def meta_of_mmcv() -> dict[str, Any]:
    """What mmcv writes beside the weights: texts, a date, a class list, and a numpy score among the hook messages."""
    return {
        "mmcv_version": "1.4.0",
        "epoch": 24,
        "CLASSES": ["car"],
        "hook_msgs": {"best_score": np.float64(0.203), "count": np.int64(3), "curve": np.arange(3.0)},
    }


def save_mmcv(state: State, path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999)}]}
    torch.save({"meta": meta_of_mmcv(), "state_dict": OrderedDict(state), "optimizer": optimizer}, path)


def save_bare(state: State, path: Path) -> None:
    torch.save(dict(state), path)


def save_legacy(state: State, path: Path) -> None:
    torch.save({"meta": {}, "state_dict": OrderedDict(state)}, path, _use_new_zipfile_serialization=False)


def save_safetensors(state: State, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def save_parameters(state: State, path: Path) -> None:
    torch.save({name: nn.Parameter(value, requires_grad=value.is_floating_point()) for name, value in state.items()}, path)


FORMATS = {"mmcv": save_mmcv, "bare": save_bare, "legacy": save_legacy, "safetensors": save_safetensors, "parameters": save_parameters}


class Toy(nn.Module):
    """A small module with the names that matter."""

    def __init__(self, classes: int = 17, width: int = 4) -> None:
        super().__init__()
        self.img_backbone = nn.Module()
        self.img_backbone.conv1 = nn.Conv2d(3, width, 3, bias=False)
        self.img_backbone.bn1 = nn.BatchNorm2d(width)
        block = nn.Module()
        block.conv2 = nn.Module()
        block.conv2.conv_offset = nn.Conv2d(width, 27, 3)
        self.img_backbone.layer3 = nn.ModuleList([block])
        self.img_neck = nn.Linear(width, 2)
        self.pts_bbox_head = nn.Module()
        self.pts_bbox_head.occ = nn.ModuleList([nn.Conv3d(width, classes, 1, bias=False)])
        self.pts_bbox_head.transformer = nn.ModuleList([nn.Linear(width, 3)])
        seed_weights(self, 1)


def other_weights(classes: int = 17, width: int = 4) -> dict[str, Tensor]:
    """A state that fits the toy, with other values than its own."""
    model = Toy(classes, width)
    seed_weights(model, 2)
    return dict(model.state_dict())


def refused(model: nn.Module, path: Path) -> str:
    """Loading fails with one line and leaves the model as it was; returns the line."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, path)
    line = str(caught.value)
    assert "\n" not in line and "\x1b" not in line and str(path) in line and len(line) < 1000
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    return line


@cache
def good_file(kind: str) -> bytes:
    """A good file of each format."""
    state = {"img_neck.weight": torch.linspace(-1, 1, 24).view(4, 6), "img_neck.bias": torch.ones(4, dtype=torch.float16)}
    if kind == "safetensors":
        return bytes(save(state))
    buffer = io.BytesIO()
    torch.save({"meta": meta_of_mmcv(), "state_dict": OrderedDict(state)}, buffer, _use_new_zipfile_serialization=kind == "mmcv")
    return buffer.getvalue()
