"""Verification: the written file against the network in PyTorch and against what the spec says. The ladder, from cheap to costly:

1. the ONNX checker, structure, ports, contract of the custom nodes field by field, every input reaches an output;
2. the given frame: logits, labels and `dropped` of ONNX Runtime against PyTorch;
3. other calibrations and other images (`follow.py`).

Rungs 1 and 2 are the same whatever the reference. Rung 3 may be held against a reference of lower precision where the user asks for it;
what it may then differ is measured, not chosen: `Allowance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import torch

from ..compare import Comparison, compare, compare_labels
from ..errors import ModelFileError
from ..graph.lint.network import check_contract, expected_nodes
from ..graph.lint.structure import check_old_operators, check_structure
from ..graph.lint.wiring import unreachable_inputs
from ..graph.model_file import read_skeleton
from ..graph.opset import ir_version_for
from ..graph.precision.dialect import in_precision
from ..graph.twin import checkable
from ..model.surroundocc import SurroundOcc
from .agreement import PrecisionAgreement
from .device import running
from .report import Report
from .spec import Ports, Spec
from .subject import Subject

ATOL = 2e-3  # of a logit; fp32 itself differs from fp64 by up to 4e-3 at full size
RTOL = 1e-3
RMS = 2e-4  # of all logits of a scale
NOISE = 2 * ATOL  # a label may differ only where PyTorch prefers its own by less than this
AXES = ("B", "class", "X", "Y", "Z")
LEEWAY = 3  # how many times the measured difference of a lower precision another frame may show
MARGIN = 0.02  # share of labels that another frame may lose beyond those that the given one loses


@dataclass(frozen=True)
class Allowance:
    """How far a file may be from its reference at one scale.

    Attributes:
        atol, rms: of a logit, and of all logits.
        noise: margin of the reference's label below which a label may differ.
        share: of labels that must agree at least.
        against: precision of the reference; "" is float32.
    """

    atol: float = ATOL
    rms: float = RMS
    noise: float = NOISE
    share: float = 0.0
    against: str = ""

    @property
    def described(self) -> str:
        """(atol 0.002, rtol 0.001, rms < 0.0002)."""
        against = f"against {self.against}: " if self.against else ""
        return f"({against}atol {self.atol:g}, rtol {RTOL:g}, rms < {self.rms:g})"


FLOAT32 = Allowance()


def allowances(agreement: PrecisionAgreement) -> tuple[Allowance, ...]:
    """Of each scale: `LEEWAY` times the difference of the reference's own precision from float32, on top of what float32 is allowed."""
    return tuple(
        Allowance(
            atol=float(f"{ATOL + LEEWAY * scale.max_abs:.3g}"),
            rms=float(f"{RMS + LEEWAY * scale.rms:.3g}"),
            noise=float(f"{NOISE + 2 * LEEWAY * scale.max_abs:.3g}"),
            share=max(0.0, scale.share - MARGIN - 2 / scale.total),
            against=agreement.precision,
        )
        for scale in agreement.scales
    )


@dataclass(frozen=True)
class Sample:
    """One frame as the network takes it, and what PyTorch makes of it."""

    img: np.ndarray  # (1, N, 3, H, W) float32
    lidar2img: np.ndarray  # (1, N, 4, 4) float32
    logits: tuple[np.ndarray, ...]  # four, coarse to fine
    dropped: np.ndarray  # (1, levels) int64, under the spec's budgets


def sample_of(model: SurroundOcc, spec: Spec, img: np.ndarray, lidar2img: np.ndarray) -> Sample:
    """Runs PyTorch where the network's weights are: exact where the budgets suffice, and with the same voxels dropped where they do not.

    Errors: UserError where the memory of that device does not suffice.
    """
    matrix, place = np.ascontiguousarray(lidar2img, np.float32), next(model.parameters()).device
    with running(place):
        images, matrices = torch.from_numpy(img).to(place), torch.from_numpy(matrix).to(place)
        tables, dropped = model.tables(matrices, spec.image_hw, spec.budgets)
        logits = model.logits(images, tables) if dropped.any() else model(images, matrices)
        return Sample(img, matrix, tuple(scale.cpu().numpy() for scale in logits), dropped.cpu().numpy())


def check_file(subject: Subject, report: Report) -> bool:
    """Rung 1: everything that can be said without running the network. Returns whether all of it held: if not, it may not even run."""
    spec, failed_before = subject.spec, len(report.failures)
    findings = []
    for path in (subject.main, subject.geometry):
        if path is not None:
            try:
                empty = spec.dialect.in_empty_domain and path is subject.main
                onnx.checker.check_model(checkable(subject.skeleton, spec.dialect) if empty else str(path), full_check=True)
            except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
                findings.append(f"{path.name}: {' '.join(str(error).split())[:300]}")
    report.findings("ONNX checker, full", findings, "passes")
    ir_version = spec.dialect.ir or ir_version_for(spec.opset)
    structure = check_structure(subject.skeleton, spec.opset, ir_version, spec.functions)
    if subject.geometry is not None:
        structure += [f"geometry: {line}" for line in check_structure(read_skeleton(subject.geometry), spec.opset, ir_version, False)]
    structure += check_old_operators(subject.skeleton, spec.opset)
    good = (
        f"opset {spec.opset}, IR {ir_version}, every tensor typed with a static shape, nothing data-dependent, no scatter with a reduction"
    )
    report.findings("structure", structure, good)
    report.findings("inputs and outputs", _check_ports(subject), "names, dtypes and shapes as the spec says")
    dialect = in_precision(spec.dialect, spec.precision)
    expected = expected_nodes(spec.config, spec.image_hw, [budget.slots for budget in spec.budgets])
    counts = f"{expected.deform_convs} deformable convolutions and {len(expected.attention)} attention nodes"
    good = f"{counts}: names, inputs, scalars, attributes, dtypes and shapes" if dialect.msda else "standard operators only"
    report.findings(f"contract of {dialect.name}", check_contract(subject.skeleton, dialect, expected), good)
    lost = unreachable_inputs(subject.skeleton, spec.renamed("dropped"))
    if subject.geometry is not None:
        lost += [f"geometry: {name}" for name in unreachable_inputs(read_skeleton(subject.geometry), spec.renamed("dropped"))]
    report.findings("every input reaches an output", lost, ", ".join(spec.input_names))
    return len(report.failures) == failed_before


def _check_ports(subject: Subject) -> list[str]:
    spec = subject.spec
    findings = _differing_ports(spec, subject.skeleton.graph, spec.input_shapes(), spec.output_shapes())
    if subject.geometry is not None:
        graph = read_skeleton(subject.geometry).graph
        lines = _differing_ports(spec, graph, spec.geometry_input_shapes(), spec.geometry_output_shapes())
        findings += [f"geometry: {line}" for line in lines]
    return findings


def _differing_ports(spec: Spec, graph: onnx.GraphProto, inputs: Ports, outputs: Ports) -> list[str]:
    findings = []
    for kind, values, wanted in (("input", graph.input, inputs), ("output", graph.output, outputs)):
        names = [value.name for value in values]
        expected = [spec.renamed(name) for name in wanted]
        if names != expected:
            findings.append(f"{kind}s: expected {expected}, got {names}")
            continue
        for value, (dtype, shape) in zip(values, wanted.values(), strict=True):
            tensor = value.type.tensor_type
            got = (str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)), tuple(dim.dim_value for dim in tensor.shape.dim))
            if got != (dtype, shape):
                findings.append(f"{kind} {value.name}: expected {dtype} {list(shape)}, got {got[0]} {list(got[1])}")
    return findings


@dataclass(frozen=True)
class Finding:
    """One comparison of a frame: what of, whether it held, what was seen, and how bad it is among its like."""

    name: str
    passed: bool
    detail: str
    badness: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


def check_sample(
    subject: Subject, sample: Sample, report: Report, name: str, *, brief: bool = False, allowed: Sequence[Allowance] = ()
) -> dict[str, np.ndarray] | None:
    """Rung 2: ONNX Runtime on one frame against PyTorch, a line for each scale, or one line with the worst scale where `brief`.

    Args:
        sample: the frame, and what PyTorch makes of it.
        allowed: of each scale 0 to 3; without, what float32 is allowed.

    Returns what the file gave, or None where it does not run.
    """
    try:
        got = subject.run(sample.img, sample.lidar2img)
    except ModelFileError as error:
        report.add(f"{name}: runs on ONNX Runtime", False, str(error))
        return None
    findings = [_dropped(got, sample)] if "dropped" in got else []
    for i, scale in enumerate(subject.spec.outputs.scales):
        findings += _scale(subject.spec, got, sample, scale, subject.spec.output_names[i], allowed[scale] if allowed else FLOAT32)
    failed = [finding for finding in findings if not finding.passed]
    if brief and not failed:
        logits = max((finding for finding in findings if finding.name.startswith("logits")), key=lambda finding: finding.badness)
        others = [finding for finding in findings if not finding.name.startswith("logits") and finding.name != "dropped"]
        parts = [f"{logits.name}, the worst: {logits.detail}"]
        parts += [f"{worst.name}: {worst.detail}" for worst in sorted(others, key=lambda finding: -finding.badness)[:1]]
        parts += [f"dropped {finding.detail}" for finding in findings if finding.name == "dropped"]
        report.add(name, True, "; ".join(parts), logits.figures)
        return got
    for finding in failed if brief else findings:
        report.add(f"{name}: {finding.name}", finding.passed, finding.detail, finding.figures)
    return got


def _dropped(got: dict[str, np.ndarray], sample: Sample) -> Finding:
    same = np.array_equal(got["dropped"], sample.dropped)
    return Finding("dropped", same, f"{got['dropped'].tolist()}" + ("" if same else f", want {sample.dropped.tolist()}"))


def _scale(spec: Spec, got: dict[str, np.ndarray], sample: Sample, scale: int, output: str, allowed: Allowance) -> list[Finding]:
    """The logits of one scale, and the output made of them."""
    logits, want = got.get(f"logits_scale{scale}"), sample.logits[scale]
    if logits is None:
        return [Finding(f"logits of scale {scale}", False, "not in the file")]
    result = compare(logits, want, atol=allowed.atol, rtol=RTOL, axes=AXES, row_axis=1)
    passed = result.passed and result.rms < allowed.rms and bool(np.isfinite(logits).all())
    findings = [Finding(f"logits of scale {scale}", passed, f"{result.describe()} {allowed.described}", result.max_abs, _figures(result))]
    if spec.outputs.kind == "labels":
        labels = compare_labels(got[output], want, noise=allowed.noise, threshold=0.5)
        agreement = {"agreement": labels.agreement, "differing": labels.differing, "total": labels.total}
        enough = not labels.agreement < allowed.share
        detail = labels.describe() + (f" (against {allowed.against}: at least {allowed.share:.2%})" if allowed.against else "")
        findings.append(Finding(output, labels.passed and enough, detail, labels.differing + labels.total * 1e-9, agreement))
    elif spec.outputs.kind == "probabilities":
        wanted = replace(spec.outputs, scales=(0,)).of([torch.from_numpy(want)])[0].numpy()
        axes = AXES if wanted.ndim == 5 else ("B", "X", "Y", "Z")
        close = compare(got[output], wanted, atol=allowed.atol, rtol=RTOL, axes=axes)
        detail = f"{close.describe()} (atol {allowed.atol:g}, rtol {RTOL:g})"
        findings.append(Finding(output, close.passed, detail, close.max_abs, _figures(close)))
    return findings


def _figures(result: Comparison) -> dict[str, float]:
    return {name: getattr(result, name) for name in ("max_abs", "max_rel", "rms", "cosine", "failing", "total")}


def different(first: dict[str, np.ndarray], second: dict[str, np.ndarray], names: Sequence[str]) -> bool:
    """Whether any of the named arrays differs at all."""
    return any(not np.array_equal(first[name], second[name]) for name in names)
