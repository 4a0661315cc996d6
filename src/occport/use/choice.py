"""Which network: what the flags say, as data that can travel to other processes. It is loaded there by `open`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelFileError, UserError
from ..memory import keep_pages

if TYPE_CHECKING:
    from .predictor import Predictor


@dataclass(frozen=True)
class Choice:
    """A network in PyTorch (`config`), an exported file (`model`), or the network in PyTorch that a file was made from (`made_from`).

    Attributes:
        config, options: a config file and its overrides, "KEY=VALUE".
        checkpoint: of the PyTorch network; None means seeded weights, or with `made_from` what the manifest says.
        seed: of seeded weights and made-up images, at least 0.
        model: an exported .onnx file with its manifest.
        provider: of `model`, its execution provider; None means the CPU.
        threads: CPU threads; None leaves it to PyTorch or ONNX Runtime.
        made_from: an exported .onnx file whose manifest names config and weights.
        precision: of the PyTorch network: "fp32", "bf16" or "fp16".
        device: of the PyTorch network, as PyTorch calls it.
    """

    config: Path | None = None
    options: tuple[str, ...] = ()
    checkpoint: Path | None = None
    seed: int = 0
    model: Path | None = None
    provider: str | None = None
    threads: int | None = None
    made_from: Path | None = None
    precision: str = "fp32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        given = [str(place) for place in (self.config, self.model, self.made_from) if place is not None]
        if len(given) != 1:
            raise UserError("network", expected="a config or an exported file, one of them", got=" and ".join(given) or "neither")

    def open(self) -> Predictor:
        """Loads the network. On a CPU, PyTorch's memory is kept from then on for the rest of the process (`memory.keep_pages`).

        Errors: UserError for a config, a checkpoint, a file, a provider, a precision or a device that cannot be used; see `Predictor`.
        """
        from ..config import read_config_with_options
        from ..export.weights import load_model
        from .predictor import Predictor

        if self.model is not None:
            return Predictor(self.model, provider=self.provider, threads=self.threads)
        self._settle()
        if self.made_from is not None:
            return self._open_origin(self.made_from)
        assert self.config is not None
        model, weights, _ = load_model(read_config_with_options(self.config, self.options), self.checkpoint, self.seed)
        return Predictor(
            model, provider=self.provider, threads=self.threads, weights=weights, precision=self.precision, device=self.device, own=True
        )

    def _settle(self) -> None:
        """Refuses what cannot run before anything is read, and prepares the process."""
        from ..export.device import Setting

        if Setting(self.precision, self.device).check().type == "cpu":
            keep_pages()

    def torch_of(self) -> Choice:
        """The network in PyTorch that the exported file was made from, by its manifest; `checkpoint` tells where the weights are now.

        Its `open` refuses other weights than those of the export, by their fingerprint (CheckpointError).
        Errors: UserError without `model`.
        """
        if self.model is None:
            raise UserError("the network that a file was made from", expected="an exported file", got="a config")
        return Choice(
            checkpoint=self.checkpoint, seed=self.seed, threads=self.threads, made_from=self.model, precision=self.precision,
            device=self.device,
        )  # fmt: skip

    def _open_origin(self, file: Path) -> Predictor:
        from ..export.again import network_again
        from ..export.manifest import read_manifest
        from ..export.spec import from_json
        from .predictor import Predictor

        if not file.is_file():
            raise ModelFileError(f"model file {file}", expected="an exported .onnx file", got="no such file", fix="check the path")
        table = read_manifest(file)
        model, weights = network_again(table, from_json(table["spec"]).config, self.checkpoint)
        return Predictor(model, threads=self.threads, weights=weights, precision=self.precision, device=self.device, own=True)
