"""Where the weights of an export come from, and saying so: a checkpoint with its fingerprint, or a seed, loudly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import Report, fingerprint, load_checkpoint
from ..config import Config
from ..model.surroundocc import SurroundOcc, build_model
from ..seeds import seed_weights

UNTRAINED = "UNTRAINED"


@dataclass(frozen=True)
class Weights:
    """Origin of the weights. Exactly one of `checkpoint` and `seed` is set."""

    checkpoint: str | None
    seed: int | None
    fingerprint: str

    @property
    def described(self) -> str:
        """One line for the terminal and the file's metadata."""
        if self.checkpoint is None:
            return f"{UNTRAINED}: seeded with {self.seed}, no checkpoint was given; what the network predicts is meaningless"
        return f"checkpoint {self.checkpoint}, fingerprint {self.fingerprint}"


def load_model(config: Config, checkpoint: Path | None, seed: int) -> tuple[SurroundOcc, Weights, Report | None]:
    """The network with its weights: the checkpoint's, or seeded ones where none is given. CheckpointError for a bad file."""
    model = build_model(config)
    report = None
    if checkpoint is None:
        seed_weights(model, seed)
    else:
        report = load_checkpoint(model, checkpoint)
    origin = Weights(None if checkpoint is None else str(checkpoint), seed if checkpoint is None else None, fingerprint(model.state_dict()))
    return model, origin, report
