"""Which numbers a file computes with, how a 16-bit file agrees with float32, and what half precision would do to a float32 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...export.network_file import NetworkFile, feeds_of
from ..precision.hazards import hazards_of
from .about import about
from .section import Content, Told

_AGREEMENT = "agreement_scale"


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
        "hazards_reason": "nothing was run" if hazards is None else "",
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


def hazards(file: NetworkFile, frame: str | None, inputs: Path | None, low: str) -> Content:
    """Runs a float32 file once and looks at every tensor.

    Args:
        frame, inputs: as `feeds_of` takes them.
        low: "fp16" or "bf16".

    Errors: UserError for a file that is 16-bit already; FrameError and ModelFileError for inputs that are not to be had.
    """
    feeds, source = feeds_of(file, frame, inputs)
    return {**hazards_of(file, feeds, low).to_json(), "source": source}
