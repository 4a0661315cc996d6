"""What a file predicts for a frame, as a picture: cameras, the volume in perspective and from above."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import FrameError, ModelFileError
from ...export.network_file import NetworkFile
from ...export.request import Loaded, load_input
from ...use.predictor import Predictor
from ...view.picture import picture
from ...view.scene import Scene
from ..page.picture import Picture
from .section import Told


def prediction(file: NetworkFile, frame: str | None) -> Told:
    """Runs the file on its frame, or on another one.

    Errors: ModelFileError for a file without a manifest, or one that is not what was exported; FrameError for a frame that is gone or
        does not fit; UserError without matplotlib.
    """
    loaded = _loaded(file, frame)
    trained = file.manifest is not None and file.manifest["weights"]["checkpoint"] is not None
    predictor = Predictor(file.path)
    occupancy = predictor.predict(loaded.frame)
    histogram = np.bincount(occupancy.labels.reshape(-1), minlength=len(occupancy.class_names) + 1)
    counts = {name: int(histogram[label]) for label, name in enumerate(("empty", *occupancy.class_names))}
    shown = ", ".join(f"{name} {number:,}" for name, number in counts.items() if number)
    alt = f"Cameras of frame {loaded.frame.name} and the predicted volume, looking forward and from above; voxels: {shown}"
    scene = Scene(loaded.frame, occupancy, None, trained=trained)
    told = {
        "frame": loaded.frame.name, "described": loaded.frame.described, "cameras": list(loaded.frame.camera_names), "trained": trained,
        "run_by": predictor.described, "voxels": counts, "notes": list(occupancy.notes),
    }  # fmt: skip
    return Told(told, (Picture(f"Frame {loaded.frame.name}", alt, picture(scene)),))


def _loaded(file: NetworkFile, frame: str | None) -> Loaded:
    spec, manifest = file.spec, file.manifest
    if spec is None or manifest is None:
        expected, fix = "a manifest beside it, which tells how frames fit", "export it with occport"
        raise ModelFileError(f"prediction of {file.path.name}", expected=expected, got="none", fix=fix)
    wanted = frame if frame is not None else manifest["frame"]["spec"]
    if frame is None and wanted is not None and not Path(wanted.split(":")[0]).exists():
        raise FrameError(f"frame {wanted}", expected="the frame of the export", got="none", fix="give --frame")
    return load_input(spec.config, wanted, manifest["frame"]["seed"])
