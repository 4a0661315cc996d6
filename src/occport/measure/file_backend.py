"""An exported file on ONNX Runtime, as a backend: all its outputs, bodies attached in memory where it needs them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import FrameError, ModelFileError
from ..export.agreement import labels_of
from ..export.baked_rig import baked_rig, check_baked
from ..export.manifest import files_of, read_manifest
from ..export.request import Loaded
from ..export.spec import Spec, from_json
from ..export.subject import Subject, runnable, trimmed
from ..frames.images import preprocess
from ..graph.stages import REST
from ..session import open_session
from .labels import Labels
from .operators import Operator, summed
from .profile import ProfiledRun, read_profile
from .stages import PREPROCESS, STAGES, WHOLE

_OCCUPIED = 0.5  # probability above which a voxel without classes is


def spec_of(path: Path) -> Spec:
    """What an exported file is, from the manifest beside it. Errors: ModelFileError for a file or manifest that cannot be used."""
    if not path.is_file():
        raise ModelFileError(f"model file {path}", expected="an exported .onnx file", got="no such file", fix="check the path")
    return from_json(read_manifest(path)["spec"])


class FileBackend:
    """See `backend.Backend`. ONNX Runtime keeps a profile meanwhile, which costs it a few microseconds a node.

    Args:
        name: of the column.
        path: an exported .onnx file with its manifest.
        loaded: the frame.
        provider, threads: as `session.open_session` takes them.

    Errors: ModelFileError for a file, manifest or provider; FrameError for a frame of another size or rig than the file takes.
    """

    precision = "fp32"

    def __init__(self, name: str, path: Path, loaded: Loaded, *, provider: str | None, threads: int | None) -> None:
        spec, table = spec_of(path), read_manifest(path)
        if tuple(loaded.img.shape[-2:]) != tuple(spec.image_hw) or loaded.img.shape[1] != spec.config.num_cameras:
            (height, width), own = spec.image_hw, loaded.img.shape
            raise FrameError(
                f"images of {loaded.frame.name}, padded", expected=f"{spec.config.num_cameras} of {height} x {width} for {path.name}",
                got=f"{own[1]} of {own[3]} x {own[4]} (height x width)", fix="a file is made for one size: give a frame of it",
            )  # fmt: skip
        rig = baked_rig(table, spec, path)
        if rig is not None:
            check_baked(loaded.frame, rig, path)
        self.name, self.weights = name, str(table["weights"]["fingerprint"])
        self._spec, self._loaded = spec, loaded
        self._folder = tempfile.TemporaryDirectory(prefix="occport-profile-")
        self._subject = Subject(spec, path, files_of(path, table).get("geometry"), threads=threads)
        proto = trimmed(runnable(self._subject.skeleton, spec), [spec.renamed(name) for name in spec.output_names])
        profile = Path(self._folder.name) / "run"
        self._session = open_session(proto, weights_folder=path.parent, threads=threads, provider=provider, profile=profile)
        self.described = f"ONNX Runtime ({self._session.provider}) on {path.name}{spec.rounding}"
        self._times: list[tuple[float, float, float, float]] = []
        self._profiled: list[ProfiledRun] = []
        self._got: Mapping[str, NDArray[np.generic]] = {}

    def run(self) -> None:
        """See `Backend.run`."""
        image, spec = self._spec.config.image, self._spec
        begin = time.perf_counter()
        img = preprocess(self._loaded.frame.images, image.mean, image.std, image.to_rgb, image.size_divisor)
        prepared = time.perf_counter()
        feeds = {"img": img}
        if spec.calibration == "tables":
            feeds |= {name: array for name, array in self._subject.tables(self._loaded.lidar2img).items() if name != "dropped"}
        elif spec.calibration == "runtime":
            feeds["lidar2img"] = self._loaded.lidar2img
        fed = time.perf_counter()
        shapes = {name: shape for name, (_, shape) in spec.input_shapes().items()}
        self._got = self._session.run({spec.renamed(name): array.reshape(shapes[name]) for name, array in feeds.items()})
        self._times.append((begin, prepared, fed, time.perf_counter()))

    def laps(self) -> list[Mapping[str, float]]:
        """See `Backend.laps`."""
        self._profiled = read_profile(self._session.profile())
        self._folder.cleanup()
        found: list[Mapping[str, float]] = []
        for (begin, prepared, fed, end), run in zip(self._times, self._profiled, strict=False):  # the last may have been stopped
            stages = {PREPROCESS: prepared - begin, **run.stages}
            stages["tables"] = stages.get("tables", 0.0) + fed - prepared
            whole = end - begin
            known = sum(stages.get(stage, 0.0) for stage in STAGES if stage != REST)
            found.append({**stages, REST: max(whole - known, 0.0), WHOLE: whole})
        return found

    def labels(self) -> Labels:
        """See `Backend.labels`."""
        kind, found = self._spec.outputs.kind, {}
        for scale in self._spec.outputs.scales:
            array = np.asarray(self._got[self._spec.renamed(f"{kind}_scale{scale}")])
            volume = self._spec.config.output_sizes[scale]
            if kind == "labels":
                found[scale] = array.reshape(1, *volume)
            else:
                threshold = _OCCUPIED if kind == "probabilities" else 0.0
                found[scale] = labels_of(array.reshape(1, -1, *volume), threshold)
        return found

    def flops(self) -> Mapping[str, int]:
        """See `Backend.flops`: of the file's products; what function bodies sample is not counted."""
        return self._profiled[-1].flops if self._profiled else {}

    def operators(self) -> tuple[Operator, ...]:
        """See `Backend.operators`: the mean of all runs but the first, if there is another."""
        counted = self._profiled[1:] or self._profiled
        return summed((call for run in counted for call in run.operators), max(len(counted), 1))
