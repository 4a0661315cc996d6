"""The hazard report of half precision, made from a float32 file and one frame before any kernel exists: one forward, every number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...errors import ModelFileError
from ...export.network_file import NetworkFile
from ...graph.precision.emulate import is_low
from ..cost.node_cost import node_costs
from ..dumps.axes import shapes_of
from ..walk import walk
from .geometry import Hits, hits_in, of_geometry
from .hazard import SEVERITIES, SPREADING, TABLES, Hazard
from .looker import Looker, with_first_outputs
from .rounding import Low, low
from .sums import Sum, of_sums, terms_of

_NAMED = 3  # nodes in a line that says what is not looked at
_OF_ITSELF = ("not finite", "geometry")  # kinds that matter in the geometry as well, whatever an export keeps
_ELSEWHERE: Mapping[str, str] = {
    "runtime": "", "tables": "in the geometry file, not in this one", "fixed": "not in this file, which has its tables baked in",
}  # fmt: skip


@dataclass(frozen=True)
class Hazards:
    """What 16 bits would do to a file.

    Attributes:
        file: its name.
        low: the type.
        found: worst first, of one severity in graph order, weights before.
        hits: of both ways of projecting; () where the rig is not known.
        rig: whose rig the hits are of, in words; "" where it is not known.
        tensors: how many were looked at.
        unseen: what was not looked at, one line each.
    """

    file: str
    low: Low
    found: tuple[Hazard, ...]
    hits: tuple[Hits, ...]
    rig: str
    tensors: int
    unseen: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        kinds, severities = [hazard.kind for hazard in self.found], [hazard.severity for hazard in self.found]
        return {
            "file": self.file, "precision": self.low.name, "largest": self.low.largest, "tensors": self.tensors,
            "counts": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            "severities": {severity: severities.count(severity) for severity in SEVERITIES},
            "rig": self.rig, "not_looked_at": list(self.unseen),
            "geometry": [hits.to_json() for hits in self.hits],
            "hazards": [hazard.to_json() for hazard in self.found],
        }  # fmt: skip


def hazards_of(
    file: NetworkFile, feeds: Mapping[str, np.ndarray], precision: str = "fp16", rig: np.ndarray | None = None
) -> Hazards:  # fmt: skip
    """Runs a file once and looks at every float32 tensor.

    Args:
        file: in float32.
        feeds: an array for each input.
        precision: "fp16" or "bf16".
        rig: (N, 4, 4), lidar metres → pixels, that the tables of a `tables` file are fed for; None: that of the export is taken.

    Errors: ModelFileError for a file that has 16 bits already, and what a walk raises.
    """
    if is_low(file.model):
        fix = "give the float32 export: what 16 bits do is worked out from that"
        raise ModelFileError(f"model file {file.path}", expected="numbers in float32", got="some of 16 bits", fix=fix)
    kind = low(precision)
    looker = Looker(file, kind)
    found = list(looker.constants())
    for name, array in walk(file, feeds, [*looker.tables, *looker.wanted]):
        found += looker.look(name, array)
    hits, whose = _hits(file, feeds, kind, rig)
    where = "" if file.spec is None else _ELSEWHERE[file.spec.calibration]
    found += [*of_geometry(hits, kind, where), *of_sums(_sums(file), kind)]
    found = list(_kept(found))
    for spreading in SPREADING:
        found = looker.begins(found, spreading)
    order = sorted(found, key=lambda hazard: SEVERITIES.index(hazard.severity))
    return Hazards(file.path.name, kind, tuple(order), hits, whose, len(looker.wanted), tuple(_unseen(looker.unseen)))


def _kept(found: Iterable[Hazard]) -> Iterator[Hazard]:
    """What is found in the geometry is of no harm to a 16-bit export, which keeps it in float32."""
    for hazard in found:
        kept = hazard.stage == TABLES and hazard.kind not in _OF_ITSELF
        yield replace(hazard, severity="kept") if kept else hazard


def _unseen(unseen: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for why, names in unseen.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        yield f"{why}: {', '.join(names[:_NAMED])}{more}"


def _hits(file: NetworkFile, feeds: Mapping[str, np.ndarray], kind: Low, rig: np.ndarray | None) -> tuple[tuple[Hits, ...], str]:
    """Both ways of projecting, and whose rig it is: the one that is fed, else the one that is given, else that of the export."""
    spec = file.spec
    if spec is None or file.manifest is None:
        return (), ""
    fed = feeds.get(spec.renamed("lidar2img"))
    if fed is not None:
        used, whose = fed, "the rig that is fed"
    elif rig is not None and spec.calibration == "tables":
        used, whose = rig, "the rig of the given frame"
    else:
        used = np.array(file.manifest["frame"]["lidar2img"])
        whose = "the rig of the export"
        whose += ", whatever rig the tables that are fed are of" if spec.calibration == "tables" else ", which is baked in"
    return hits_in(spec, used.reshape(-1, 4, 4), kind), whose


def _sums(file: NetworkFile) -> list[Sum]:
    seen = with_first_outputs(file)
    shapes = shapes_of(seen.model.graph)
    costs = [cost for cost in node_costs(seen) if cost.work.products and cost.stage != TABLES and cost.writes]
    return [Sum(cost, terms_of(cost, math.prod(shapes[cost.writes[0][0]]))) for cost in costs]
