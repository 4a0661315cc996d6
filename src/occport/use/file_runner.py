"""An exported file on ONNX Runtime, as a runner."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, ModelFileError
from ..export.baked_rig import baked_rig, check_baked
from ..export.follow import level_points
from ..export.manifest import altered, files_of, read_manifest
from ..export.spec import from_json
from ..export.subject import Subject
from ..frames.frame import Frame
from ..frames.visibility import hits, overflow
from .runner import Answer, digest, of_labels, of_probabilities, of_scores

_SHOWN = 12  # hexadecimal digits of a hash in a line for people
_ONLY_LABELS = "this file gives labels at the threshold 0.5 and no probabilities; upstream's metric takes 0.25"


class FileRunner:
    """Of the file's outputs only what the labels of the finest scale need is run. See `runner.Runner`.

    Args:
        path: the file; its manifest stands beside it, and all its files are those that were exported, by their SHA-256.
        provider, threads: as `session.open_session` takes them.

    Errors: ModelFileError for a file or manifest that cannot be used, and for a provider.
    """

    def __init__(self, path: Path, provider: str | None, threads: int | None) -> None:
        if not path.is_file():
            raise ModelFileError(f"model file {path}", expected="an exported .onnx file", got="no such file", fix="check the path")
        table = read_manifest(path)
        self._path, self._spec = path, from_json(table["spec"])
        self._rig = baked_rig(table, self._spec, path)
        files = files_of(path, table)
        for file in altered(files, table):
            expected, fix = "the file that was exported, by the SHA-256 in its manifest", "put the right one back, or export again"
            raise ModelFileError(str(file), expected=expected, got="another one", fix=fix)
        self.config = self._spec.config
        self.trained = table["weights"]["checkpoint"] is not None
        self._subject = Subject(self._spec, path, files.get("geometry"), provider=provider, threads=threads)
        self._wanted = self._outputs()
        session = self._subject.open_only(self._wanted)
        hashes = {role: str(table["files"][role]["sha256"]) for role in sorted(files)}
        runs = ", ".join(f"{name} {count} nodes" for name, count in session.placed.items()) or session.provider
        self.described = f"ONNX Runtime ({runs}) on {path.name}, SHA-256 {hashes['model'][:_SHOWN]}{self._spec.rounding}"
        self.identity: Mapping[str, str] = {
            "kind": "onnx",
            "weights": str(table["weights"]["fingerprint"]),
            "config": digest(self.config),
            "provider": session.provider,
            **{f"{role} file": text for role, text in hashes.items()},
        }

    def _outputs(self) -> list[str]:
        """What is run: the finest scale's output, and where it gives labels without semantics, the logits behind them too."""
        spec = self._spec
        finest = len(spec.config.output_sizes) - 1
        if finest not in spec.outputs.scales:
            raise ModelFileError(f"outputs of {self._path}", expected=f"scale {finest}, the finest", got=str(list(spec.outputs.scales)))
        names, logits = [f"{spec.outputs.kind}_scale{finest}"], f"logits_scale{finest}"
        if spec.outputs.kind == "labels" and spec.config.num_classes == 1 and self._subject.holds(logits):
            names.append(logits)
        return [*names, "dropped"] if "dropped" in spec.output_names else names

    def check(self, frame: Frame, image_hw: tuple[int, int]) -> None:
        """Errors: FrameError for a frame of another padded size than the file's, or of another rig than a baked one."""
        if image_hw != self._spec.image_hw:
            (height, width), own = self._spec.image_hw, frame.images.shape[1:3]
            raise FrameError(
                f"images of {frame.name}", expected=f"a size that is padded to {height} x {width} as in {self._path.name}",
                got=f"{own[0]} x {own[1]} (height x width)", fix="a file is made for one size: export with --frame of this one",
            )  # fmt: skip
        if self._rig is not None:
            check_baked(frame, self._rig, self._path)

    def answer(self, img: NDArray[np.float32], lidar2img: NDArray[np.float32]) -> Answer:
        """(1, N, 3, H, W), (1, N, 4, 4) → labels; see `Runner.answer`."""
        got = self._subject.run_only(img, lidar2img, self._wanted)
        answer = self._of(got)
        return answer._replace(notes=(*answer.notes, *self._dropped(got.get("dropped"), lidar2img)))

    def _of(self, got: Mapping[str, NDArray[np.generic]]) -> Answer:
        kind, single = self._spec.outputs.kind, self.config.num_classes == 1
        first, *others = (np.asarray(got[name]) for name in self._wanted if name != "dropped")
        if kind == "labels":
            answer = of_labels(first, self.config, self.described)
            if not single:
                return answer
            if not others:
                return answer._replace(notes=(_ONLY_LABELS,))
            return answer._replace(probabilities=of_probabilities(_sigmoid(others[0][0, 0]), self.described).probabilities)
        if single:
            return of_probabilities(first[0] if kind == "probabilities" else _sigmoid(first[0, 0]), self.described)
        return of_scores(first, self.described)

    def _dropped(self, counts: NDArray[np.int64] | None, lidar2img: NDArray[np.float32]) -> tuple[str, ...]:
        """A note where the budget was too small. Where a file does not tell, it is counted here."""
        spec = self._spec
        if spec.calibration == "fixed":  # the export saw to it that the baked rig fits
            return ()
        if counts is not None:
            lost = [int(count) for count in counts.reshape(-1)]
        else:
            seen = [hits(lidar2img[0], spec.image_hw, level_points(level, spec.config)) for level in spec.config.levels]
            lost = [overflow(hit, budget.slots, budget.cameras) for hit, budget in zip(seen, spec.budgets, strict=True)]
        if not any(lost):
            return ()
        levels = ", ".join(map(str, lost))
        fix = "export with a larger --budget"
        return (f"{sum(lost)} voxel-camera hits found no room in the file's budget ({levels}, fine to coarse); {fix}",)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of any shape, float32. The exponential of a large number is infinity, and 1 / infinity the 0 that is wanted."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-logits)), np.float32)
