"""What a lower precision costs in labels: the first frame of a run is predicted in float32 too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import FrameError
from ..export.agreement import PrecisionAgreement, precision_agreement
from ..export.device import EXACT
from ..frames.listing import Entry
from .predict import read_frame

if TYPE_CHECKING:
    from .choice import Choice
    from .predictor import Predictor


def agreement_with_fp32(choice: Choice, predictor: Predictor, entries: Iterable[Entry]) -> PrecisionAgreement | None:
    """Runs one frame in the predictor's precision and in float32, on the same device; the second network is there only meanwhile.

    Args:
        choice: what the predictor was opened from.
        predictor: in PyTorch.
        entries: frames; the first that can be read and predicted is taken.

    Returns: how many labels agree at every scale; None in fp32, of an exported file, and where no frame can be used.
    Errors: as `Choice.open`.
    """
    if predictor.precision in ("", EXACT):
        return None
    for entry in entries:
        try:
            frame = read_frame(entry, predictor, choice.seed)
            got = predictor.logits(frame)
        except FrameError:  # the run itself will tell
            continue
        want = replace(choice, precision=EXACT).open().logits(frame)
        return precision_agreement(predictor.precision, entry.name, got, want)
    return None
