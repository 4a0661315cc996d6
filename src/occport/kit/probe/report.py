"""The page that tells what was found, in Markdown: what to do next, question by question, and every probe."""

from __future__ import annotations

import shlex
from pathlib import Path

from ...graph.dialect import Dialect
from .candidates import attentions, convolutions, describe_numbers
from .evidence import Evidence
from .operators import FAMILIES
from .plan import CUSTOM, Found, needs
from .questions import QUESTIONS
from .results import COMPILED, FAILED, NOT_RUN, PASSED, WRONG, Result, Results

Row = tuple[str, str, list[Result]]
NO_WAY = "Each of these probes is a tiny model that shows it, for whoever makes the compiler; `run.sh` with its name runs it alone."


def report(
    results: Results, evidence: Evidence, found: Found, dialect: Dialect, file: Path, again: str, export: str
) -> str:
    """The report's text.

    Args:
        dialect, file: what was found, and where it is written.
        again, export: the commands of the next round, and of the network's export.
    """
    lines = [f"# What this compiler takes: {dialect.checked_against}", "", _counts(results), "", *_outcome(results, found, file, again), ""]
    if not found.refused:
        lines += ["To export:", "", f"    {export}", ""]
    lines += ["## Answers", "", "| question | answer | evidence |", "|---|---|---|"]
    for title, answer, probes in answers(results, evidence, found, dialect):
        lines.append(f"| {_cell(title)} | {_cell(answer)} | {_cell(_evidence(probes))} |")
    for title, found_lines, none in (
        ("What contradicts", evidence.contradictions(), "Nothing."),
        ("What remains unknown", unknowns(results, found, again), "Nothing that the network needs."),
    ):
        lines += ["", f"## {title}", "", *([f"- {line}" for line in found_lines] or [none])]
    lines += ["", "## Every probe", "", "| probe | asks | result | detail |", "|---|---|---|---|"]
    lines += [f"| {one.name} | {_cell(one.asks)} | {one.grade} | {_cell(one.detail)} |" for one in results.results]
    return "\n".join(lines) + "\n"


def export_command(file: Path, results: Results) -> str:
    """The command that exports the network in the found dialect."""
    inside_refused = any(one.grade == FAILED for one in results.of("conv2d")) and any(one.taken for one in results.of("external_data"))
    extra = " --external-data" if inside_refused else ""
    return f"occport export --config CONFIG --checkpoint CHECKPOINT --dialect {shlex.quote(str(file))}{extra}"


def refusals(results: Results, found: Found) -> list[str]:
    """What the network needs and the compiler refuses, in sentences, with the probes that show it and the compiler's own words."""
    lines = []
    for question, value in found.refused:
        shown = [one for one in results.of(question) if one.value == value and not one.taken]
        why = "; ".join(f"{one.name}: {one.detail}" for one in shown)
        lines.append(f"{QUESTIONS[question].title}: {value} is needed and was refused{f' ({why})' if why else ''}")
    return lines


def unknowns(results: Results, found: Found, again: str) -> list[str]:
    """What the network needs and no probe has answered, what was not run, and how to go on."""
    lines = [f"{QUESTIONS[question].title}: {value} is needed, and no probe has answered it" for question, value in found.unknown]
    plan = found.plan
    if plan.way == CUSTOM and plan.dcn != "dcn":
        lines.append(f"what stands behind the deformable convolution was asked under another name; {plan.bias} is taken for granted")
    missing = [one.name for one in results.results if one.grade == NOT_RUN]
    if missing:
        lines.append(f"not run: {', '.join(missing)}")
    if lines and results.count(COMPILED) and any(one.taken for one in results.of("control")):
        lines.append("the compiler takes operators that nobody has: let the command write outputs, so that values can tell")
    if lines:
        lines.append(f"to ask around what was found: `{again}`")
    return lines


def answers(results: Results, evidence: Evidence, found: Found, dialect: Dialect) -> list[Row]:
    """Question, answer, and the probes that it rests on."""
    return [
        *_file_rows(evidence, found), *_operator_rows(results, evidence, found, dialect), *_port_rows(results, evidence, found, dialect),
        *_need_rows(results, evidence, found), *_other_rows(results),
    ]  # fmt: skip


def _file_rows(evidence: Evidence, found: Found) -> list[Row]:
    plan = found.plan
    opsets, irs = (", ".join(str(one) for one in sorted(every)) or "none" for every in (evidence.opsets, evidence.irs))
    return [
        ("how the two operators are written", plan.way, []),
        ("opset", f"{plan.opset} (taken: {opsets})", evidence.about("opset", str(plan.opset))),
        ("IR version", f"{found.ir or 'the usual of the opset'} (taken: {irs})", []),
    ]


def _operator_rows(results: Results, evidence: Evidence, found: Found, dialect: Dialect) -> list[Row]:
    plan, base = found.plan, results.dialect
    if dialect.msda is None or dialect.dcn is None:
        return [
            (QUESTIONS[question].title, form, [one for one in results.of(question) if one.value.split()[0] == form])
            for question, form in (("msda_form", plan.msda), ("dcn_form", plan.dcn))
        ]
    numbers = describe_numbers(dialect.msda)
    names = {one.key: one.contract.title for one in (*attentions(base), *convolutions(base))}
    chosen = (plan.msda, plan.dcn)
    others = [one for question in ("msda", "dcn") for one in results.of(question) if one.taken and one.value not in chosen]
    return [
        (QUESTIONS["msda"].title, f"{dialect.msda.title}{'; ' if numbers else ''}{numbers}", evidence.about("msda", plan.msda)),
        (QUESTIONS["dcn"].title, dialect.dcn.title, evidence.about("dcn", plan.dcn)),
        (QUESTIONS["dcn_bias"].title, plan.bias, evidence.about("dcn_bias", plan.bias) if plan.dcn == "dcn" else []),
        ("other ways that were taken", ", ".join(dict.fromkeys(names[one.value] for one in others)) or "none", others),
    ]


def _port_rows(results: Results, evidence: Evidence, found: Found, dialect: Dialect) -> list[Row]:
    plan, wanted = found.plan, dialect.export
    rows: list[Row] = [
        ("calibration", plan.calibration, [one for one in results.of("gather") if one.value in ("constant", "input")]),
        ("outputs", f"labels in {wanted.label_dtype}" if plan.labels else wanted.outputs, results.of("labels")),
        (QUESTIONS["img_rank"].title, str(plan.img_rank), evidence.about("img_rank", str(plan.img_rank))),
    ]
    if plan.calibration == "runtime":
        rank = str(plan.lidar2img_rank)
        rows.append((QUESTIONS["lidar2img_rank"].title, rank, evidence.about("lidar2img_rank", rank)))
        rows.append(("dropped, the count of voxels without room", "an output" if plan.dropped else "left out", results.of("count")))
    return rows


def _need_rows(results: Results, evidence: Evidence, found: Found) -> list[Row]:
    """The operators of ONNX itself."""
    keys = {family.key for family in FAMILIES} - {"count"}
    wanted = [need for need in needs(found.plan, results.dialect) if need[0] in keys]
    return [(QUESTIONS[need[0]].title, f"needed; taken: {evidence.verdict(*need).value}", evidence.about(*need)) for need in wanted]


def _other_rows(results: Results) -> list[Row]:
    """What decides nothing, as the dialect has no field for it or the default went through; good to know."""
    rows: list[Row] = []
    for question in ("value_info", "constants", "external_data", "functions", "control"):
        probes = results.of(question)
        said = ", ".join(f"{one.value}: {'taken' if one.taken else one.grade}" for one in probes)
        rows.append((QUESTIONS[question].title, said or "not asked", probes))
    return rows


def _outcome(results: Results, found: Found, file: Path, again: str) -> list[str]:
    if found.refused:
        lines = [f"- {line}" for line in refusals(results, found)]
        return ["**No way is left for the network as it is.** What comes closest lacks:", "", *lines, "", NO_WAY]
    if found.unknown:
        missing = results.count(NOT_RUN)
        on = f"{missing} probes were not run: go on with `run.sh`." if missing else f"Ask again around it: `{again}`"
        return [f"**Not finished**: `{file}` goes as far as the answers do. {on}"]
    return [f"**A way was found**: `{file}`."]


def _counts(results: Results) -> str:
    grades = (PASSED, COMPILED, WRONG, FAILED, NOT_RUN)
    return f"{len(results.results)} probes: " + ", ".join(f"{results.count(grade)} {grade}" for grade in grades) + "."


def _evidence(probes: list[Result]) -> str:
    return ", ".join(f"{one.name} {one.grade}" for one in probes) or "-"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
