"""What is measured against what, as data that can travel to another process, and opening it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..config import Config, read_config_with_options
from ..errors import UserError
from ..export.device import Setting, hint
from ..export.request import Loaded, load_input
from ..export.weights import load_model
from ..memory import keep_pages
from .backend import Backend
from .file_backend import FileBackend, spec_of
from .torch_backend import TorchBackend


@dataclass(frozen=True)
class Contender:
    """One backend. With `model` an exported file; else the network in PyTorch.

    Attributes:
        name: for the head of its column.
        precision: of PyTorch.
        references: of PyTorch: the network as it is, without native kernels, instead of one made ready for inference.
        model: an exported .onnx file with its manifest.
    """

    name: str
    precision: str = "fp32"
    references: bool = False
    model: Path | None = None


@dataclass(frozen=True)
class Opened:
    """Ready to run.

    Attributes:
        loaded: the frame.
        config: of the network whose arithmetic is counted.
        backends: one for each contender.
        hints: lines about what slows PyTorch down here.
    """

    loaded: Loaded
    config: Config
    backends: tuple[Backend, ...]
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Contenders, and what they share.

    Attributes:
        contenders: at least one.
        config, options: a config file and its overrides, "KEY=VALUE"; None where all contenders are files.
        checkpoint: of the network; None means seeded weights.
        seed: of seeded weights and the made-up frame.
        frame: as `frames.source.load_frame` takes it; None means the synthetic city's first frame.
        device: of PyTorch.
        provider: of ONNX Runtime; None means the CPU.
        threads: CPU threads of each; None leaves it to PyTorch and ONNX Runtime.
    """

    contenders: tuple[Contender, ...]
    config: Path | None = None
    options: tuple[str, ...] = ()
    checkpoint: Path | None = None
    seed: int = 0
    frame: str | None = None
    device: str = "cpu"
    provider: str | None = None
    threads: int | None = None

    def alone(self, contender: Contender) -> Plan:
        """The same with one contender."""
        return replace(self, contenders=(contender,))

    def settings(self) -> dict[str, Setting]:
        """Precision and device of each contender in PyTorch, by name. Errors: UserError for those that cannot be here."""
        found = {each.name: Setting(each.precision, self.device) for each in self.contenders if each.model is None}
        for setting in found.values():
            setting.check()
        return found

    def open(self) -> Opened:
        """Loads the frame and all contenders. PyTorch's threads and the allocator are set for the rest of the process.

        Errors: UserError for a config, checkpoint, frame, file, provider, precision or device that cannot be used.
        """
        settings = self.settings()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        keep_pages()
        config = self._config()
        loaded = load_input(config, self.frame, self.seed)
        found: dict[str, Backend] = {}
        for contender in self.contenders:
            if contender.model is not None:
                found[contender.name] = FileBackend(contender.name, contender.model, loaded, provider=self.provider, threads=self.threads)
        found |= self._open_torch(config, loaded, settings)
        hints = {line for setting in settings.values() if (line := hint(setting.check()))}
        return Opened(loaded, config, tuple(found[each.name] for each in self.contenders), tuple(hints))

    def _config(self) -> Config:
        if self.config is not None:
            return read_config_with_options(self.config, self.options)
        file = next((each.model for each in self.contenders if each.model is not None), None)
        if file is None:
            raise UserError("network", expected="a config, or an exported file", got="neither")
        return spec_of(file).config

    def _open_torch(self, config: Config, loaded: Loaded, settings: dict[str, Setting]) -> dict[str, Backend]:
        """The networks. Weights are read once: the prepared ones are copies, but for the last where nobody needs the plain one."""
        chosen = [each for each in self.contenders if each.model is None]
        if not chosen:
            return {}
        model, weights, _ = load_model(config, self.checkpoint, self.seed)
        shared = any(each.references for each in chosen)
        found: dict[str, Backend] = {}
        for each in chosen:
            own = not shared and each is chosen[-1]
            found[each.name] = TorchBackend(each.name, model, weights, loaded, settings[each.name], references=each.references, own=own)
        return found
