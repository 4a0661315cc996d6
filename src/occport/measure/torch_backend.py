"""The network in PyTorch, as a backend: made ready for inference, or the plain references without native kernels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from ..export.agreement import labels_of
from ..export.device import Setting, running
from ..export.request import Loaded
from ..export.weights import Weights
from ..frames.images import preprocess
from ..memory import usual_pages
from ..model.surroundocc import SurroundOcc
from ..ops import native
from .flops import flops_of_stages
from .labels import Labels
from .operators import Operator, OperatorClock
from .stages import PREPROCESS, WHOLE, StageClock, synchroniser


class TorchBackend:
    """See `backend.Backend`.

    Args:
        name: of the column.
        model: in eval mode, float32.
        weights: where its weights come from.
        loaded: the frame.
        setting: precision and device.
        references: run the network as it is, with the operators in plain PyTorch.
        own: the network may be changed in place.

    Errors: UserError as `Setting.check` and `Setting.ready`.
    """

    def __init__(
        self, name: str, model: SurroundOcc, weights: Weights, loaded: Loaded, setting: Setting, *, references: bool, own: bool
    ) -> None:
        self.name, self.precision, self.weights = name, setting.precision, weights.fingerprint
        kind = ", plain references" if references else ""
        origin = f"seeded with {weights.seed}" if weights.checkpoint is None else f"of {weights.checkpoint}"
        self.described = f"{setting.described}{kind}, weights {origin}"
        self._device, self._loaded, self._references = setting.check(), loaded, references
        self._image = model.config.image
        self._model = model.to(self._device) if references else setting.ready(model, own=own)
        self._wait = synchroniser(self._device)
        self._clock = StageClock(self._model, self._wait)
        self._laps: list[Mapping[str, float]] = []
        self._logits: tuple[Tensor, ...] = ()

    def run(self) -> None:
        """See `Backend.run`."""
        with self._ready():
            begin = time.perf_counter()
            img, lidar2img = self._inputs()
            prepared = time.perf_counter()
            with self._clock.running() as stages:
                self._logits = self._model(img, lidar2img)
            end = time.perf_counter()
        self._laps.append({PREPROCESS: prepared - begin, **stages, WHOLE: end - begin})

    def laps(self) -> list[Mapping[str, float]]:
        """See `Backend.laps`."""
        return self._laps

    def labels(self) -> Labels:
        """See `Backend.labels`."""
        return {scale: labels_of(logits.float().cpu().numpy()) for scale, logits in enumerate(self._logits)}

    def flops(self) -> Mapping[str, int]:
        """See `Backend.flops`."""
        lidar2img = torch.from_numpy(self._loaded.lidar2img)
        return flops_of_stages(self._model.config, self._loaded.img.shape, lidar2img, ready=not self._references)

    def operators(self) -> tuple[Operator, ...]:
        """See `Backend.operators`."""
        with self._ready():
            img, lidar2img = self._inputs()
            clock = OperatorClock(self._wait)
            with clock:
                self._model(img, lidar2img)
        return clock.found()

    def _inputs(self) -> tuple[Tensor, Tensor]:
        """(1, N, 3, H, W), (1, N, 4, 4) on the device."""
        image = self._image
        img = preprocess(self._loaded.frame.images, image.mean, image.std, image.to_rgb, image.size_divisor)
        moved = torch.from_numpy(img).to(self._device), torch.from_numpy(self._loaded.lidar2img).to(self._device)
        self._wait()
        return moved

    @contextmanager
    def _ready(self) -> Iterator[None]:
        """Without gradients; the references without native kernels, and with memory as the C library deals with it by itself."""
        with ExitStack() as stack:
            stack.enter_context(running(self._device))
            if self._references:
                stack.enter_context(native.switched_off())
                stack.enter_context(usual_pages())
            yield
