"""Something that computes a frame and can be timed: the network in PyTorch (`torch_backend.py`) or an exported file (`file_backend.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .labels import Labels
from .operators import Operator


class Backend(Protocol):
    """Ready to run one frame again and again."""

    @property
    def name(self) -> str:
        """Short, for the head of a column."""
        ...

    @property
    def described(self) -> str:
        """One line: what runs it, where, and which weights or file."""
        ...

    @property
    def precision(self) -> str:
        """Of its products: which GEMM speed it is held against."""
        ...

    @property
    def weights(self) -> str:
        """Fingerprint of the weights: labels are compared where it is the same."""
        ...

    def run(self) -> None:
        """Computes the frame, preprocessing included, and keeps what it took. Errors: ModelFileError where a file does not run."""
        ...

    def laps(self) -> list[Mapping[str, float]]:
        """Seconds of every run so far, by stage, with `stages.WHOLE`. Called once, at the end."""
        ...

    def labels(self) -> Labels:
        """Of the last run."""
        ...

    def flops(self) -> Mapping[str, int]:
        """Operations of one frame by stage, as this backend does them. Called after `laps`."""
        ...

    def operators(self) -> tuple[Operator, ...]:
        """Time by operator in one frame, the slowest first. Called after `laps`; PyTorch runs the frame once more for it."""
        ...
