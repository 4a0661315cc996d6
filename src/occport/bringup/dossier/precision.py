"""Which numbers a file computes with, how a 16-bit file agrees with float32, and what half precision would do to a float32 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ...errors import ModelFileError, UserError
from ...export.network_file import NetworkFile
from ..precision.hazards import hazards_of
from .about import about, dtype_of, shape_of
from .section import Content, Told

LEFT_OUT = "left out by --no-run"
_AGREEMENT = "agreement_scale"
Feeds = tuple[Mapping[str, np.ndarray], str]  # as `feeds_of` gives them: input → array, and where they are from


def precision(file: NetworkFile, hazards: Callable[[], Content] | None) -> Told:
    """Reads the manifest, and asks for the hazards of half precision.

    Args:
        hazards: works them out, as `occport hazards` does; None where nothing is run. What the user can mend is told instead of them.
    """
    spec = file.spec
    told: dict[str, Any] = {
        "precision": "" if spec is None else spec.precision,
        "weights_by_dtype": about(file).content["weights_by_dtype"],
        "agreement": [] if file.manifest is None else _agreements(file.manifest),
        "hazards": None,
        "hazards_reason": LEFT_OUT if hazards is None else "",
    }
    if hazards is not None:
        try:
            told["hazards"] = hazards()
        except UserError as error:
            told["hazards_reason"] = str(error)
    return Told(told)


def _agreements(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Checks that tell, scale by scale, how many labels agree with float32."""
    found = []
    for check in manifest.get("verification", []):
        figures = check.get("figures") or {}
        scales = sorted(key.removeprefix(_AGREEMENT) for key in figures if key.startswith(_AGREEMENT))
        if scales:
            rows = [
                {"scale": scale, **{key: figures.get(f"{key}_scale{scale}") for key in ("agreement", "max_abs", "rms")}} for scale in scales
            ]
            found.append({"name": check["name"], "where": check.get("where", ""), "detail": check.get("detail", ""), "scales": rows})
    return found


def check_feeds(file: NetworkFile, feeds: Mapping[str, np.ndarray]) -> None:
    """Holds an array for each input against the file. Errors: ModelFileError for another dtype or shape."""
    for info in file.model.graph.input:
        if info.name in feeds:
            array, dtype, shape = feeds[info.name], dtype_of(info), shape_of(info)
            same = len(shape) == array.ndim and all(isinstance(one, str) or one == got for one, got in zip(shape, array.shape, strict=True))
            if array.dtype.name != dtype or not same:
                expected, got = f"{dtype} {shape}", f"{array.dtype.name} {list(array.shape)}"
                fix = "give an array of the file's own type and shape"
                raise ModelFileError(f"input {info.name!r} of {file.path.name}", expected=expected, got=got, fix=fix)


def hazards(file: NetworkFile, given: Callable[[], Feeds], low: str) -> Content:
    """Runs a float32 file once and looks at every tensor.

    Args:
        given: gives the inputs.
        low: "fp16" or "bf16".

    Errors: UserError for a file that is 16-bit already, and those of `given`.
    """
    feeds, source = given()
    return {**hazards_of(file, feeds, low).to_json(), "source": source}
