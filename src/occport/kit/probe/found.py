"""From the plan to the dialect that writes it."""

from __future__ import annotations

import datetime
from dataclasses import replace

from ...graph.dialect import Defaults, Dialect, Guess, load
from .plan import STANDARD, WITH_FUNCTIONS, Found, Plan, attention_of, convolution_of
from .questions import QUESTIONS
from .results import NOT_RUN, Results

NAME = "probed"


def dialect_of(results: Results, found: Found, today: datetime.date) -> Dialect:
    """The dialect that lets the plan's file be written. It takes the plan as it is, also one that the compiler refuses in part."""
    plan, base = found.plan, results.dialect
    count = len(results.results) - results.count(NOT_RUN)
    asked = f"probed on {today.isoformat()} with {count} probes around dialect {base.name}"
    guesses = tuple(
        Guess(f"{QUESTIONS[question].title}: {value}, which no probe has answered", QUESTIONS[question].flag)
        for question, value in found.unknown
    )
    common = replace(
        load("standard") if plan.way == STANDARD else base, name=NAME, default=False, title="What occport probe has found",
        checked_against=asked, opset=plan.opset, ir=found.ir, functions=plan.way == WITH_FUNCTIONS, export=_defaults(plan, base.export),
        guesses=guesses,
    )  # fmt: skip
    if plan.way == STANDARD:
        return replace(common, export=replace(common.export, msda=plan.msda, dcn=plan.dcn))
    return replace(common, msda=attention_of(plan, base), dcn=convolution_of(plan, base))


def base_name(results: Results, plan: Plan) -> str | None:
    """The built-in dialect under the found one; None where there is none, and everything is written out."""
    if plan.way == STANDARD:
        return "standard"
    return results.dialect.name if results.built_in else None


def _defaults(plan: Plan, own: Defaults) -> Defaults:
    outputs = own.outputs if plan.labels else ("logits" if own.outputs in ("", "labels") else own.outputs)
    return replace(
        own, calibration=plan.calibration, outputs=outputs, label_dtype="int32" if plan.labels == "int32" else "int64",
        softmax=plan.labels == "softmax", dropped=plan.dropped, img_rank=plan.img_rank, lidar2img_rank=plan.lidar2img_rank, msda="", dcn="",
    )  # fmt: skip
