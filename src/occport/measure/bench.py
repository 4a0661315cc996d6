"""Measuring a plan from its start to a result; what was measured before an interrupt is kept."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..progress import Progress
from .backend import Backend
from .flops import flops_of_stages
from .gemm import GemmSpeed, gemm_speed
from .labels import label_agreement
from .machine import machine
from .peak import peak_of
from .plan import Opened, Plan
from .result import Measured, Result
from .rounds import take_rounds


class Bench:
    """Opens a plan and counts its arithmetic; then `measure`, which may be interrupted, and `result` in any case.

    Args:
        plan: what to measure.
        progress: is told each stage.
        warmup: rounds that do not count, at least 0.
        repeat: rounds that count, at least 1.

    Errors: UserError as `Plan.open`.
    """

    STAGES = 5  # of the progress, without those of each contender

    def __init__(self, plan: Plan, progress: Progress, *, warmup: int, repeat: int) -> None:
        self._plan, self._progress, self._warmup, self._repeat = plan, progress, warmup, repeat
        with progress.stage("opening the backends"):
            self._opened: Opened = plan.open()
        for line in self._opened.hints:
            progress.note(line)
        loaded = self._opened.loaded
        with progress.stage("counting the arithmetic"):
            self._flops = flops_of_stages(self._opened.config, loaded.img.shape, torch.from_numpy(loaded.lidar2img))
        with progress.stage("speed of matrix products"):
            self._gemm = self._speeds()
        self._found: tuple[Measured, ...] = ()

    def _speeds(self) -> dict[str, GemmSpeed]:
        """In each precision that a backend has; for files the CPU's, which is the one that can be measured here."""
        settings = self._plan.settings()
        found = {}
        for contender in self._plan.contenders:
            if contender.precision not in found:
                device = settings[contender.name].check() if contender.name in settings else torch.device("cpu")
                found[contender.precision] = gemm_speed(contender.precision, device)
        return found

    def measure(self, *, operators: bool, memory: bool) -> None:
        """All rounds; then where asked for one more frame by operator, and peak memory in processes of their own.

        Errors: ModelFileError where a file does not run, UserError where a process for the memory fails.
        """
        backends, total = self._opened.backends, self._warmup + self._repeat
        try:
            with self._progress.stage(f"{len(backends)} {'backend' if len(backends) == 1 else 'backends in turn'}, {total} rounds"):
                take_rounds(backends, total)
        except KeyboardInterrupt:
            self._collect()
            raise
        self._collect()
        with self._progress.stage("speed of matrix products, again"):  # the best counts: the machine may have been busy before
            again = self._speeds()
            self._gemm = {name: max(speed, again[name], key=lambda each: each.flops) for name, speed in self._gemm.items()}
        if operators:
            self._by_operator(backends)
        if memory:
            self._by_memory()

    def _collect(self) -> None:
        first = self._opened.backends[0]
        counted = [backend.laps()[self._warmup :] for backend in self._opened.backends]
        whole = min(map(len, counted))  # an interrupted round counts for nobody
        if not whole:
            return
        found = []
        for backend, laps in zip(self._opened.backends, counted, strict=True):
            same = backend is not first and backend.weights == first.weights
            labels = label_agreement(backend.labels(), first.labels()) if same else None
            done = backend.flops()
            found.append(Measured(backend.name, backend.described, backend.precision, tuple(laps[:whole]), done, labels=labels))
        self._found = tuple(found)

    def _by_operator(self, backends: tuple[Backend, ...]) -> None:
        for number, backend in enumerate(backends):
            with self._progress.stage(f"operators of {backend.name}"):
                self._replace(number, replace(self._found[number], operators=backend.operators()))

    def _by_memory(self) -> None:
        for number, contender in enumerate(self._plan.contenders):
            with self._progress.stage(f"memory of {contender.name}"):
                self._replace(number, replace(self._found[number], peak=peak_of(self._plan.alone(contender))))

    def _replace(self, number: int, measured: Measured) -> None:
        self._found = (*self._found[:number], measured, *self._found[number + 1 :])

    def result(self) -> Result | None:
        """What has been measured so far; None before the first round that counts has ended."""
        if not self._found:
            return None
        loaded = self._opened.loaded
        height, width = loaded.img.shape[-2:]
        frame = f"frame {loaded.frame.name}: {loaded.img.shape[1]} images of {height} x {width}"
        device = next((setting.check() for setting in self._plan.settings().values()), torch.device("cpu"))
        return Result(machine(device), frame, self._flops, self._gemm, self._warmup, self._found)
