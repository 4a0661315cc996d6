"""The network in PyTorch, as a runner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoint import fingerprint
from ..errors import UserError
from ..export.device import EXACT, Setting, hint, running
from ..export.weights import Weights
from ..frames.frame import Frame
from ..model.surroundocc import SurroundOcc
from .runner import Answer, digest, of_probabilities, of_scores

_SHOWN = 12  # hexadecimal digits of a hash in a line for people


class TorchRunner:
    """Exact for every calibration, on any device of PyTorch. What runs is the network made ready for inference. See `runner.Runner`.

    Args:
        model: in eval mode, float32.
        weights: where its weights come from, if known.
        threads: CPU threads while it runs; None leaves PyTorch's number alone.
        precision: one of `model.prepared.PRECISIONS`.
        device: where it runs; None means where its weights are.
        own: the network belongs to the runner, which changes it in place; else the runner makes a copy.

    Attributes:
        precision: as given.
        hints: lines about what makes it slow here.
        identity: kind, fingerprint of the weights, digest of the config; of another precision than fp32, or another device than the CPU,
            that too.

    Errors: UserError for a network in training mode or of another dtype, and as `Setting.check` and `Setting.ready`.
    """

    def __init__(
        self, model: SurroundOcc, weights: Weights | None, threads: int | None, *, precision: str = EXACT, device: str | None = None,
        own: bool = False,
    ) -> None:  # fmt: skip
        parameter = next(model.parameters())
        if model.training:
            raise UserError("the network", expected="one in eval mode", got="one in training mode", fix="call its eval() first")
        if parameter.dtype != torch.float32:
            got = str(parameter.dtype).removeprefix("torch.")
            raise UserError("the network's weights", expected="float32", got=got, fix="call its float() first")
        self.config = model.config
        self.trained = weights is None or weights.checkpoint is not None
        setting = Setting(precision, str(parameter.device) if device is None else device)
        self._device, self._threads, self.precision = setting.check(), threads, precision
        self.described = f"{Setting(precision, str(self._device)).described}, {_origin(weights)}"
        self.identity: Mapping[str, str] = {
            "kind": "torch",
            "weights": fingerprint(model.state_dict()) if weights is None else weights.fingerprint,
            "config": digest(self.config),
            **({"precision": precision} if precision != EXACT else {}),
            **({"device": self._device.type} if self._device.type != "cpu" else {}),
        }
        self._model = setting.ready(model, own=own)
        line = hint(self._device)
        self.hints: tuple[str, ...] = (line,) if line else ()

    def check(self, frame: Frame, image_hw: tuple[int, int]) -> None:
        """Takes every calibration and size."""

    def answer(self, img: NDArray[np.float32], lidar2img: NDArray[np.float32]) -> Answer:
        """(1, N, 3, H, W), (1, N, 4, 4) → labels; see `Runner.answer`."""
        with _threads(self._threads), running(self._device):
            logits = self._run(img, lidar2img)[-1]
            if logits.shape[1] == 1:
                return of_probabilities(logits[0, 0].sigmoid().cpu().numpy(), self.described)
            return of_scores(logits.cpu().numpy(), self.described)

    def logits(self, img: NDArray[np.float32], lidar2img: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
        """(1, N, 3, H, W), (1, N, 4, 4) → four logits (1, classes, X, Y, Z) float32, coarse to fine."""
        with _threads(self._threads), running(self._device):
            return tuple(scale.cpu().numpy() for scale in self._run(img, lidar2img))

    def _run(self, img: NDArray[np.float32], lidar2img: NDArray[np.float32]) -> tuple[torch.Tensor, ...]:
        images, matrices = (torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for array in (img, lidar2img))
        logits: tuple[torch.Tensor, ...] = self._model(images, matrices)
        return logits


def _origin(weights: Weights | None) -> str:
    if weights is None:
        return "weights as they were handed over"
    if weights.checkpoint is None:
        return f"weights seeded with {weights.seed}"
    return f"weights of {weights.checkpoint} (fingerprint {weights.fingerprint[:_SHOWN]})"


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """PyTorch's number of threads belongs to the process: it is put back."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        if number is not None:
            torch.set_num_threads(before)
