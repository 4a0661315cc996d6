"""The way through: of everything that a file can be, the most wanted that no probe speaks against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeVar

from ...graph.bodies.body import FORMS
from ...graph.contract import Contract
from ...graph.dialect import Defaults, Dialect
from ...graph.functions import OPSETS_IN_FILES
from ...graph.opset import OPSETS, ir_version_for
from .candidates import Candidate, attentions, biases, convolutions, has_rank6, has_softmax_in_front
from .evidence import Evidence, Verdict
from .operators import FAMILIES
from .questions import base_ir, form_value

T = TypeVar("T")
Need = tuple[str, str]  # question and answer
CUSTOM, WITH_FUNCTIONS, STANDARD = "custom nodes", "custom nodes with bodies in the file", "standard operators"
CALIBRATIONS = ("runtime", "tables", "fixed")
LABELS = ("int64", "int32", "softmax", "")  # "" = logits, which need no ArgMax


@dataclass(frozen=True)
class Plan:
    """What a file would be.

    Attributes:
        way: how the two operators are written.
        opset: of the file.
        calibration: as `occport export` has it.
        labels: an answer of the question "labels"; "" = logits.
        dropped: whether the count of dropped voxels is an output.
        img_rank, lidar2img_rank: of the inputs.
        msda, dcn: keys of candidates, or forms of standard operators.
        bias: what stands behind the convolution; "" for standard operators.
    """

    way: str
    opset: int
    calibration: str
    labels: str
    msda: str
    dcn: str
    bias: str = ""
    dropped: bool = True
    img_rank: int = 5
    lidar2img_rank: int = 4


@dataclass(frozen=True)
class Found:
    """The plan, and how sure it is.

    Attributes:
        plan: the most wanted without a refusal; where there is none, the one that comes closest (`find`).
        ir: the IR version of the file; 0 = the usual of its opset.
        refused: what the plan needs and the compiler refused: with any, no way is left.
        unknown: what the plan needs and nothing was learned about.
    """

    plan: Plan
    ir: int
    refused: tuple[Need, ...]
    unknown: tuple[Need, ...]


def find(base: Dialect, evidence: Evidence) -> Found:
    """The first plan without a refusal, in the order of preference.

    Where each has one: of those at an opset that is taken, if any is, the first with the fewest refused and unknown needs. At an opset that
    is refused nothing else can be known, so that such a plan says little about what the compiler lacks.
    """
    best: Found | None = None
    least = (True, 0)
    for plan in plans(base, evidence):
        verdicts = {need: evidence.verdict(*need) for need in needs(plan, base)}
        if evidence.refuses_opset(plan.opset):
            verdicts["opset", str(plan.opset)] = Verdict.NO  # whatever the reason
        refused = tuple(need for need, verdict in verdicts.items() if verdict is Verdict.NO)
        unknown = tuple(need for need, verdict in verdicts.items() if verdict is Verdict.UNKNOWN)
        found = Found(plan, _ir(base, plan, evidence), refused, unknown)
        if not refused:
            return found
        short = (evidence.refuses_opset(plan.opset), len(refused) + len(unknown))
        if best is None or short < least:
            best, least = found, short
    assert best is not None
    return best


def plans(base: Dialect, evidence: Evidence) -> Iterator[Plan]:
    """Every plan, the most wanted first: custom nodes before standard operators, the dialect's defaults before other answers."""
    ways = list(_ways(base, evidence))
    calibrations, labels = _first(base.export.calibration, CALIBRATIONS), _first(_labels_of(base.export), LABELS)
    for wanted, calibration, label in product((CUSTOM, WITH_FUNCTIONS, STANDARD), calibrations, labels):
        for way, msda, dcn, bias in ways:
            for opset in _opsets(way, base, msda, dcn) if way == wanted else ():
                yield _with_ranks(Plan(way, opset, calibration, label, msda, dcn, bias), base.export, evidence)


def _ways(base: Dialect, evidence: Evidence) -> Iterator[tuple[str, str, str, str]]:
    """(way, attention, convolution, bias), of each way in the order of preference."""
    msda = _candidates("msda", attentions(base), evidence)
    dcn = _candidates("dcn", convolutions(base), evidence)
    if base.dcn is not None:
        own = biases(base)
        working = [bias for bias in own if evidence.verdict("dcn_bias", bias) is Verdict.YES]
        if working and "dcn" not in dcn:  # the node alone was refused, with something behind it it was not
            dcn.insert(0, "dcn")
        contracts = {one.key: one.contract for one in convolutions(base)}
        for attention, conv in product(msda, dcn):
            for bias in (working or own) if conv == "dcn" else [contracts[conv].bias]:
                yield CUSTOM, attention, conv, bias
        if all(evidence.verdict("functions", operator) is Verdict.YES for operator in FORMS):
            yield WITH_FUNCTIONS, "msda", "dcn", base.dcn.bias
    for conv, attention in product(FORMS["dcn"], FORMS["msda"]):
        yield STANDARD, attention, conv, ""


def _candidates(question: str, every: tuple[Candidate, ...], evidence: Evidence) -> list[str]:
    """Keys of what was taken; the dialect's own too where nothing was learned about it: the next round asks again."""
    taken = [one.key for one in every if evidence.verdict(question, one.key) is Verdict.YES]
    open_still = [one.key for one in every[:1] if evidence.verdict(question, one.key) is Verdict.UNKNOWN]
    return taken or open_still


def _opsets(way: str, base: Dialect, msda: str, dcn: str) -> list[int]:
    """Opsets at which a way can stand: the dialect's own first, then the nearest."""
    if way == STANDARD:
        allowed = [opset for opset in OPSETS if form_value(msda, opset) and form_value(dcn, opset)]
    else:
        allowed = [opset for opset in OPSETS if way == CUSTOM or opset in OPSETS_IN_FILES]
    return sorted(allowed, key=lambda opset: (abs(opset - base.opset), opset))


def needs(plan: Plan, base: Dialect) -> list[Need]:
    """Everything that the compiler must take for a plan to go through."""
    wanted = [("opset", str(plan.opset)), ("img_rank", str(plan.img_rank))]
    if plan.way == STANDARD:
        for operator, form in (("msda", plan.msda), ("dcn", plan.dcn)):
            value = form_value(form, plan.opset)
            assert value is not None
            wanted.append((f"{operator}_form", value))
        rank6 = softmax = True
    else:
        contract = attention_of(plan, base)
        rank6, softmax = has_rank6(contract), has_softmax_in_front(contract)
        wanted += [("functions", operator) for operator in FORMS] if plan.way == WITH_FUNCTIONS else [("msda", plan.msda)]
        if plan.way == CUSTOM:
            wanted.append(("dcn_bias", plan.bias) if plan.dcn == "dcn" else ("dcn", plan.dcn))
    wanted.append(("gather", "constant" if plan.calibration == "fixed" else "input"))
    if plan.calibration == "runtime":
        wanted.append(("lidar2img_rank", str(plan.lidar2img_rank)))
    if plan.labels:
        wanted.append(("labels", plan.labels))
    special = {"rank6": rank6, "softmax": softmax, "count": plan.calibration == "runtime" and plan.dropped}
    special["batch_norm"] = plan.bias == "batchnorm"
    for family in FAMILIES:
        if special.get(family.key, family.needed == "always" or (family.needed == "runtime" and plan.calibration == "runtime")):
            wanted.append((family.key, family.form_at(plan.opset)))
    return wanted


def attention_of(plan: Plan, base: Dialect) -> Contract:
    """The attention node of a plan with custom nodes."""
    return next(one.contract for one in attentions(base) if one.key == plan.msda)


def convolution_of(plan: Plan, base: Dialect) -> Contract:
    """The deformable convolution of a plan with custom nodes, and what stands behind it."""
    return replace(next(one.contract for one in convolutions(base) if one.key == plan.dcn), bias=plan.bias)


def _with_ranks(plan: Plan, wanted: Defaults, evidence: Evidence) -> Plan:
    """The plan with the ranks of inputs that are taken, and without `dropped` where no count can leave the graph."""

    def rank(question: str, own: int, both: tuple[int, int]) -> int:
        allowed = [one for one in _first(own, both) if evidence.verdict(question, str(one)) is not Verdict.NO]
        return allowed[0] if allowed else own

    count = next(family for family in FAMILIES if family.key == "count")
    counted = evidence.verdict("count", count.form_at(plan.opset)) is not Verdict.NO
    return replace(
        plan, img_rank=rank("img_rank", wanted.img_rank, (5, 4)), lidar2img_rank=rank("lidar2img_rank", wanted.lidar2img_rank, (4, 3)),
        dropped=wanted.dropped and counted,
    )  # fmt: skip


def _labels_of(wanted: Defaults) -> str:
    """The dialect's own outputs as an answer of the question "labels"."""
    if wanted.outputs not in ("", "labels"):
        return ""
    return "softmax" if wanted.softmax else wanted.label_dtype


def _first(own: T, every: tuple[T, ...]) -> list[T]:
    return [own, *(one for one in every if one != own)]


def _ir(base: Dialect, plan: Plan, evidence: Evidence) -> int:
    """0 where the usual IR version of the opset is taken or nothing is known; else the nearest that is, older ones first."""
    usual = ir_version_for(plan.opset)
    own = base_ir(base) if plan.opset == base.opset else usual
    if plan.way == WITH_FUNCTIONS:
        return 0  # functions need the usual one of their opset, or a newer one
    if own in evidence.irs or not evidence.irs:
        return 0 if own == usual else own
    older = [ir for ir in evidence.irs if ir < own]
    return max(older) if older else min(evidence.irs)
