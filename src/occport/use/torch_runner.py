"""The network in PyTorch, as a runner."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ..checkpoint import fingerprint
from ..errors import UserError
from ..export.weights import Weights
from ..frames.frame import Frame
from ..model.surroundocc import SurroundOcc
from .runner import Answer, digest, of_probabilities, of_scores

_SHOWN = 12  # hexadecimal digits of a hash in a line for people


class TorchRunner:
    """Exact for every calibration, on the device where the network's weights are. See `runner.Runner`.

    Args:
        model: in eval mode, float32.
        weights: where its weights come from, if known.
        threads: CPU threads while it runs; None leaves PyTorch's number alone.

    Errors: UserError for a network in training mode or of another precision.
    """

    def __init__(self, model: SurroundOcc, weights: Weights | None, threads: int | None) -> None:
        parameter = next(model.parameters())
        if model.training:
            raise UserError("the network", expected="one in eval mode", got="one in training mode", fix="call its eval() first")
        if parameter.dtype != torch.float32:
            got = str(parameter.dtype).removeprefix("torch.")
            raise UserError("the network's weights", expected="float32", got=got, fix="call its float() first")
        self.config = model.config
        self.trained = weights is None or weights.checkpoint is not None
        self._model, self._device, self._weights, self._threads = model, parameter.device, weights, threads
        place = "" if self._device.type == "cpu" else f" on {self._device}"
        self.described = f"PyTorch float32{place}, {_origin(weights)}"

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """Kind, fingerprint of the weights, digest of the config."""
        found = self._weights.fingerprint if self._weights is not None else fingerprint(self._model.state_dict())
        return {"kind": "torch", "weights": found, "config": digest(self.config)}

    def check(self, frame: Frame, image_hw: tuple[int, int]) -> None:
        """Takes every calibration and size."""

    def answer(self, img: NDArray[np.float32], lidar2img: NDArray[np.float32]) -> Answer:
        """(1, N, 3, H, W), (1, N, 4, 4) → labels; see `Runner.answer`."""
        with _threads(self._threads), torch.no_grad():
            tensors = [torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for array in (img, lidar2img)]
            logits = self._model(*tensors)[-1]  # (1, classes, X, Y, Z)
            if logits.shape[1] == 1:
                return of_probabilities(logits[0, 0].sigmoid().cpu().numpy(), self.described)
            return of_scores(logits.cpu().numpy(), self.described)


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
