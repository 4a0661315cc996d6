"""A dossier as one self-contained page. It shows what the JSON file holds, and the pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..page.render import render
from .section import Section

_TITLES: Mapping[str, str] = {
    "about": "What it is", "verification": "How it was verified", "cost": "Cost", "precision": "Precision",
    "operators": "Custom operators and their vectors", "prediction": "What it predicts",
}  # fmt: skip
_VERDICTS: Mapping[str, tuple[str, str]] = {
    "verified": ("good", "Verified: every check passed, and the files are those that were checked"),
    "unverified": ("warn", "No check is on record"),
    "failed": ("bad", "Verification failed"),
    "changed": ("bad", "Not the file that was verified: its bytes have changed"),
    "missing": ("bad", "A file of the export is missing"),
    "": ("warn", "Not known to be verified"),
}
_FIRST_LAYERS = 30
_SEVERITIES = {"breaks": "bad", "loses": "warn"}


def page_text(sections: Sequence[Section]) -> str:
    """The page as HTML.

    Args:
        sections: in the order of the page; the first one is `about`.
    """
    contents = {one.key: one.content for one in sections}
    about, checked = contents["about"], contents.get("verification")
    assert about is not None
    tone, verdict = _VERDICTS[checked["verdict"] if checked is not None else ""]
    return render(
        "dossier.html",
        {
            "sections": [
                {
                    "key": one.key, "title": _TITLES[one.key], "reason": one.reason, "pictures": one.pictures,
                    "template": f"dossier_{one.key}.html",
                }
                for one in sections
            ],
            "about": about, "export": about["export"], "verdict": verdict, "verdict_tone": tone, "verification": checked,
            "cost": contents.get("cost"), "precision": contents.get("precision"), "operators": contents.get("operators"),
            "prediction": contents.get("prediction"), "first_layers": _FIRST_LAYERS,
            "hazard_rows": _hazard_rows(contents.get("precision")), "geometry": _geometry(contents.get("precision")),
        },
    )  # fmt: skip


def _hazard_rows(told: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The hazards with a colour each."""
    if told is None or told["hazards"] is None:
        return []
    keys = ("kind", "severity", "tensor", "node", "op_type", "stage", "low", "high", "words", "advice")
    rows = [{key: hazard.get(key) for key in keys} for hazard in told["hazards"].get("hazards", [])]
    return [{**row, "tone": _SEVERITIES.get(str(row["severity"]), "")} for row in rows]


def _geometry(told: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """What 16 bits do to the hits: each way of projecting, with its levels."""
    if told is None or told["hazards"] is None:
        return []
    found = told["hazards"].get("geometry") or {}
    return [one for one in (found.values() if isinstance(found, Mapping) else found) if isinstance(one, Mapping) and "levels" in one]
