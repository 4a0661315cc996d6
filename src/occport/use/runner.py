"""What runs the network: PyTorch (`torch_runner.py`) or ONNX Runtime on an exported file (`file_runner.py`).

Both take a preprocessed frame, and both make their answer of the finest scale's scores here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import Config, resolved
from ..errors import ModelFileError
from ..frames.frame import Frame
from ..voxels.occupancy import POINT_THRESHOLD


class Answer(NamedTuple):
    """What the network says: labels (X, Y, Z) uint8; without semantics probabilities (X, Y, Z) float32; notes as in `Occupancy`."""

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    notes: tuple[str, ...] = ()


class Runner(Protocol):
    """A network that is ready to run; for the attributes see `Predictor`."""

    @property
    def config(self) -> Config:
        """Of the network."""
        ...

    @property
    def described(self) -> str:
        """One line."""
        ...

    @property
    def trained(self) -> bool:
        """False for seeded weights."""
        ...

    @property
    def identity(self) -> Mapping[str, str]:
        """What decides the labels."""
        ...

    def check(self, frame: Frame, image_hw: tuple[int, int]) -> None:
        """FrameError for a frame, or a size of the padded image, that this network cannot take."""
        ...

    def answer(self, img: NDArray[np.float32], lidar2img: NDArray[np.float32]) -> Answer:
        """(1, N, 3, H, W) preprocessed images and (1, N, 4, 4) matrices → labels. ModelFileError where it gives no numbers."""
        ...


def digest(config: Config) -> str:
    """A hash of everything in a config that decides the labels: not its name, its notes, or the size of made-up images."""
    table = resolved(config)
    image = {name: value for name, value in table["image"].items() if name != "size"}
    decisive = {name: value for name, value in table.items() if name not in ("name", "notes")} | {"image": image}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def of_scores(scores: NDArray[np.float32], described: str) -> Answer:
    """Logits or probabilities (1, classes, X, Y, Z) of at least two classes → the first of the largest, as in PyTorch.

    Args:
        described: of the network, for the message.

    Errors: ModelFileError for NaN and infinity, of which an argmax would make a label like any other.
    """
    _check_finite(scores, described)
    return Answer(np.asarray(scores[0].argmax(0), np.uint8), None)


def of_probabilities(probabilities: NDArray[np.float32], described: str) -> Answer:
    """Probabilities (X, Y, Z) of being occupied → those, and labels 1 where above 0.5. Args, Errors: as `of_scores`."""
    _check_finite(probabilities, described)
    return Answer((probabilities > POINT_THRESHOLD).astype(np.uint8), np.ascontiguousarray(probabilities, np.float32))


def of_labels(labels: NDArray[np.integer], config: Config, described: str) -> Answer:
    """Labels (1, X, Y, Z) that a file gives → the same. Errors: ModelFileError for a label that is no class of the config."""
    low, high, most = int(labels.min()), int(labels.max()), max(config.num_classes - 1, 1)
    if not 0 <= low <= high <= most:
        raise ModelFileError(f"labels that {described} gives", expected=f"0 to {most}", got=f"{low} to {high}", fix="run it on the CPU")
    return Answer(np.asarray(labels[0], np.uint8), None)


def _check_finite(scores: NDArray[np.float32], described: str) -> None:
    bad = scores.size - int(np.count_nonzero(np.isfinite(scores)))
    if bad:
        got, fix = f"NaN or infinity in {bad:,} of {scores.size:,}", "look at its weights, or run it on the CPU in float32"
        raise ModelFileError(f"scores that {described} gives", expected="finite numbers", got=got, fix=fix)
