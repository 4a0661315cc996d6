"""How a file was verified, as its manifest records, and whether it still is the file that was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import ModelFileError
from ...export.manifest import altered, files_of
from ...export.network_file import NetworkFile
from .section import Told


def verification(file: NetworkFile) -> Told:
    """Every check with its figures, the worst ones apart, and the hashes. All bytes of the files are read.

    Errors: ModelFileError for a file without a manifest.
    """
    if file.manifest is None:
        expected, fix = "the manifest that an export writes", "export it with occport; `occport lint` tells whether it fits its dialect"
        raise ModelFileError(f"verification of {file.path.name}", expected=expected, got="none", fix=fix)
    checks = [_check(check) for check in file.manifest.get("verification", [])]
    state, words = _state(file, file.manifest)
    return Told(
        {
            "verdict": _verdict(checks, state), "files": {"state": state, "words": words},
            "passed": sum(check["passed"] for check in checks), "failed": sum(not check["passed"] for check in checks),
            "worst": {"logits": _worst(checks, "max_abs", 1), "labels": _worst(checks, "agreement", -1)},
            "checks": checks,
        }
    )  # fmt: skip


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": str(check.get("name", "")), "passed": check.get("passed") is True, "detail": str(check.get("detail", "")),
        "where": str(check.get("where", "")), "figures": dict(check.get("figures") or {}),
    }  # fmt: skip


def _state(file: NetworkFile, manifest: Mapping[str, Any]) -> tuple[str, str]:
    """ "same", "changed" or "missing", and that in words."""
    try:
        files = files_of(file.path, manifest)
    except ModelFileError as error:
        return "missing", str(error)
    names = [path.name for path in altered(files, manifest)]
    if names:
        return "changed", f"{', '.join(names)}: another SHA-256 than the manifest's: what was verified is another file; export again"
    return "same", f"SHA-256 of {', '.join(path.name for path in files.values())} as in the manifest"


def _verdict(checks: list[dict[str, Any]], state: str) -> str:
    """ "verified", "unverified" (no checks on record), "failed", or the files' state."""
    if state != "same":
        return state
    if not checks:
        return "unverified"
    return "verified" if all(check["passed"] for check in checks) else "failed"


def _worst(checks: list[dict[str, Any]], key: str, sign: int) -> dict[str, Any] | None:
    """The check with the worst figure of a kind on this very file, or on any where none was made on it."""
    known = [check for check in checks if isinstance(check["figures"].get(key), int | float)]
    own = [check for check in known if check["where"] == "this file"] or known
    return max(own, key=lambda check: sign * float(check["figures"][key]), default=None)
