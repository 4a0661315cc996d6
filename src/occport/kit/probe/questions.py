"""All probes: which question each is for, and the answer that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ...graph.bodies.body import FORMS
from ...graph.dialect import Dialect
from ...graph.functions import OPSETS_IN_FILES
from ...graph.opset import FIRST_IR_WITH_FUNCTIONS, IR_VERSIONS, OPSETS, ir_version_for
from . import custom, network
from .candidates import attentions, biases, convolutions
from .operators import FAMILIES, LAST
from .small import Small

IRS = range(5, 12)  # IR 4 and older demand initializers among the graph's inputs, which no export writes


class Question(NamedTuple):
    """What nobody has told us about the target. `flag` is what changes it by hand, "" where there is none."""

    title: str
    flag: str = ""


QUESTIONS: dict[str, Question] = {
    "control": Question("does it refuse an operator that nobody has?"),
    "opset": Question("opsets", "--opset"),
    "ir": Question("IR versions"),
    "msda": Question("the attention node", "--op-name msda=DOMAIN::NAME"),
    "dcn": Question("the deformable convolution", "--op-name dcn=DOMAIN::NAME"),
    "dcn_bias": Question("what stands behind the deformable convolution", "--dcn-bias"),
    "functions": Question("custom nodes with their bodies as functions in the file", "--functions"),
    "msda_form": Question("the attention by standard operators", "--msda"),
    "dcn_form": Question("the deformable convolution by standard operators", "--dcn"),
    "img_rank": Question("rank of the images", "--img-rank"),
    "lidar2img_rank": Question("rank of the calibration", "--lidar2img-rank"),
    "labels": Question("labels as outputs", "--outputs, --label-dtype, --softmax"),
    "gather": Question("Gather, by where its index comes from"),
    "value_info": Question("types of values inside the graph"),
    "constants": Question("a weight as a Constant node"),
    "external_data": Question("weights in a file of their own", "--external-data"),
    **{family.key: Question(family.asks) for family in FAMILIES},
}


@dataclass(frozen=True)
class Probe:
    """One tiny model.

    Attributes:
        name: of its folder; lower-case letters, digits and _.
        question: key of QUESTIONS.
        value: the answer that it stands for.
        asks: in words.
        opset, ir: of the file.
        make: the model with inputs and outputs; its IR version is still to be set.
        external_data: the weights go into a file of their own.
    """

    name: str
    question: str
    value: str
    asks: str
    opset: int
    ir: int
    make: Callable[[], Small]
    external_data: bool = False

    def small(self) -> Small:
        """The finished model with its inputs and outputs."""
        small = self.make()
        small.model.ir_version = self.ir
        small.model.graph.name = self.name
        small.model.producer_name = "occport"
        return small


def probes_of(base: Dialect) -> list[Probe]:
    """All probes around a dialect: each differs from what the dialect says in one thing, as far as that is possible."""
    probes = [*_file_probes(base), *_custom_probes(base), *_standard_probes(base), *_network_probes(base), *_operator_probes(base)]
    assert len({probe.name for probe in probes}) == len(probes)
    return probes


def base_ir(base: Dialect) -> int:
    """The IR version in which the probes of a dialect are written."""
    return base.ir or ir_version_for(base.opset)


def _file_probes(base: Dialect) -> list[Probe]:
    opset, ir = base.opset, base_ir(base)
    asks = "a node that does not exist: it must be refused"
    probes = [Probe("control", "control", "anything", asks, opset, ir, partial(custom.unknown, opset))]
    for one in OPSETS:
        probes.append(Probe(f"opset_{one}", "opset", str(one), f"a file of opset {one}", one, ir, partial(network.plain, one)))
    usual = set(IR_VERSIONS.values())
    for one in IRS:
        if one != ir and (one in usual or one == IRS[0]):
            probes.append(Probe(f"ir_{one}", "ir", str(one), f"a file of IR version {one}", opset, one, partial(network.plain, opset)))
    rows: tuple[tuple[str, str, str, str, Callable[[int], Small]], ...] = (
        ("value_info_absent", "value_info", "absent", "a file without types of inner values", network.without_value_info),
        ("constant_node", "constants", "node", "a weight as a Constant node", network.with_constant_node),
        ("external_data", "external_data", "external", "weights in a file beside the model", network.with_large_weight),
    )
    for name, question, value, asks, make in rows:
        probes.append(Probe(name, question, value, asks, opset, ir, partial(make, opset), name == "external_data"))
    return probes


def _custom_probes(base: Dialect) -> list[Probe]:
    opset, ir = base.opset, base_ir(base)
    probes = []
    for question, candidates, make in (
        ("msda", attentions(base), custom.attention), ("dcn", convolutions(base), custom.convolution),
    ):  # fmt: skip
        for one in candidates:
            asks = f"{one.contract.title}: {one.what}"
            probes.append(Probe(one.key, question, one.key, asks, opset, ir, partial(make, base, one.contract, opset)))
    if base.dcn is None:
        return probes
    words = {"batchnorm": "a BatchNormalization behind it", "add": "an Add behind it", "input": "its bias as an input of its own"}
    for bias in biases(base):
        asks, make_biased = f"{base.dcn.title} with {words[bias]}", partial(custom.convolution_with_bias, base, bias, opset)
        probes.append(Probe(f"dcn_bias_{bias}", "dcn_bias", bias, asks, opset, ir, make_biased))
    if not base.in_empty_domain:
        own = functions_opset(base)
        for operator, contract in (("msda", base.msda), ("dcn", base.dcn)):
            assert contract is not None
            asks, make_function = f"{contract.title} with its body in the file", partial(custom.with_function, base, operator, own)
            probes.append(Probe(f"functions_{operator}", "functions", operator, asks, own, max(ir, FIRST_IR_WITH_FUNCTIONS), make_function))
    return probes


def functions_opset(base: Dialect) -> int:
    """The opset at which functions are asked for."""
    return max(base.opset, OPSETS_IN_FILES[0])


def _standard_probes(base: Dialect) -> list[Probe]:
    """Each arithmetic that can stand for a custom node, in each way that ONNX has had of writing it."""
    probes = []
    for operator, make in (("msda", custom.attention_in_standard), ("dcn", custom.convolution_in_standard)):
        for form in FORMS[operator]:
            for first, last in form_spans(form):
                opset = min(max(base.opset, first), last)
                question, value = f"{operator}_form", f"{form} {first}-{last}"
                asks = f"{QUESTIONS[question].title}: {form}, as opsets {first} to {last} have it"
                name = f"{operator}_{form}_{opset}"
                probes.append(Probe(name, question, value, asks, opset, base_ir(base), partial(make, form, opset)))
    return probes


def form_spans(form: str) -> list[tuple[int, int]]:
    """First and last opset of each way of writing a form of `graph/bodies`."""
    return {"gridsample": [(16, 19), (20, LAST)], "deformconv": [(19, 21), (22, LAST)], "gather": [(OPSETS[0], LAST)]}[form]


def form_value(form: str, opset: int) -> str | None:
    """The value of the question for a form at an opset; None where it cannot stand there."""
    return next((f"{form} {first}-{last}" for first, last in form_spans(form) if first <= opset <= last), None)


def _network_probes(base: Dialect) -> list[Probe]:
    opset, ir = base.opset, base_ir(base)
    rows: list[tuple[str, str, str, str, Callable[[int], Small]]] = []
    for rank, words in ((5, "(1, N, 3, H, W)"), (4, "(N, 3, H, W)")):
        rows.append((f"img_rank_{rank}", "img_rank", str(rank), f"images of shape {words}", partial(network.images, rank)))
    for rank, words in ((4, "(1, N, 4, 4)"), (3, "(N, 4, 4)")):
        rows.append((f"lidar2img_rank_{rank}", "lidar2img_rank", str(rank), f"matrices of shape {words}", partial(network.matrices, rank)))
    for kind, words in (("int64", "int64 from ArgMax"), ("int32", "int32 behind a Cast"), ("softmax", "int64, with a Softmax in front")):
        rows.append((f"labels_{kind}", "labels", kind, f"labels in {words}", partial(network.labels, kind)))
    for index, words in (("constant", "an int64 constant"), ("input", "an int64 value"), ("int32", "an int32 value")):
        rows.append((f"gather_{index}", "gather", index, f"Gather by {words}", partial(network.gather, index)))
    return [Probe(name, question, value, asks, opset, ir, partial(make, opset)) for name, question, value, asks, make in rows]


def _operator_probes(base: Dialect) -> list[Probe]:
    probes = []
    for family in FAMILIES:
        for first, last in family.spans:
            opset = min(max(base.opset, first), last)
            name = f"{family.key}_{opset}" if len(family.starts) > 1 else family.key
            asks = f"{family.asks}; as opsets {first} to {last} have it" if len(family.starts) > 1 else family.asks
            probes.append(Probe(name, family.key, family.form_at(opset), asks, opset, base_ir(base), partial(family.small, opset)))
    return probes
