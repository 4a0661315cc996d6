"""Hold any ONNX file against a dialect's contract, field by field, without running it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from .network_flags import PRECISIONS

if TYPE_CHECKING:
    from ..graph.lint.finding import Finding, Folded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a file of any origin; its weights stay on disk")
    parser.add_argument("--dialect", required=True, metavar="NAME|FILE.toml", help="the contract; see `occport dialects`")
    parser.add_argument("--opset", type=int, help="the opset that the file must have, 11 to 22")
    parser.add_argument("--precision", choices=PRECISIONS, default=PRECISIONS[0], help="that its custom nodes must have (default: fp32)")
    lines = "operators that the chip knows, one a line: Conv, chip::Name, `Add float32,int64`, `Resize >=13`"
    parser.add_argument("--support-list", type=Path, metavar="FILE", help=lines)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every finding there too")


def run(options: argparse.Namespace) -> int:
    """Prints the findings, those that say the same of several nodes as one. Returns 1 where one is an error."""
    from ..errors import ExportError
    from ..graph import dialect as dialects
    from ..graph.lint.finding import ERROR, NOTE, count_of, fold
    from ..graph.lint.support import read_support
    from ..graph.lint.whole import lint
    from ..graph.model_file import read_skeleton
    from ..graph.opset import OPSETS
    from ..graph.precision.dialect import in_precision

    if options.opset is not None and options.opset not in OPSETS:
        raise ExportError("--opset", expected=f"{OPSETS[0]} to {OPSETS[-1]}", got=str(options.opset))
    if options.json is not None and options.json.resolve() == options.model.resolve():
        raise ExportError(f"--json {options.json}", expected="another file than the model", got="the same", fix="choose another name")
    dialect = in_precision(dialects.load(options.dialect), options.precision)
    support = read_support(options.support_list) if options.support_list is not None else None
    model = read_skeleton(options.model)
    findings = lint(model, dialect, folder=options.model.parent, opset=options.opset, support=support)
    for severity in (ERROR, NOTE):
        for folded in fold(finding for finding in findings if finding.severity == severity):
            print(_paragraph(folded))
    if options.json is not None:
        _write(options.json, findings)
    errors, notes = count_of(findings, ERROR), count_of(findings, NOTE)
    print(f"{errors} {'error' if errors == 1 else 'errors'}, {notes} {'note' if notes == 1 else 'notes'}")
    return int(errors > 0)


def _paragraph(folded: Folded) -> str:
    """A finding in a few lines."""
    finding, more = folded.first, folded.count - 1
    others = f" and {more} more" if more else ""
    title = ": ".join(part for part in (finding.severity, finding.node and f"{finding.node}{others}", finding.what) if part)
    got = finding.got if folded.same_everywhere else f"{finding.got}, and others"
    rows = [("expected", finding.expected), ("got", got), ("fix", finding.fix)]
    return "\n".join([title if finding.node else f"{title}{others}", *(f"    {key:<9}{text}" for key, text in rows if text)])


def _write(path: Path, findings: list[Finding]) -> None:
    """Every finding as JSON, not folded. ExportError where the file cannot be written."""
    import json
    from dataclasses import asdict

    from ..errors import ExportError

    try:
        path.write_text(json.dumps([asdict(finding) for finding in findings], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ExportError(f"--json {path}", expected="a place that can be written to", got=error.strerror or str(error)) from error
