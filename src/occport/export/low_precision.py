"""Verification of a 16-bit file, in two halves, as 16 bits alone hide a wrong weight:

    its graph       the file is the float32 graph node by node and weight by weight (`float_twin.py`), and that graph's results are held
                    against PyTorch as strictly as those of any float32 file
    the file        with every result rounded it may differ by what PyTorch in 16 bits does; and where a kernel takes sampling places
                    in 16 bits only, which PyTorch keeps in float32, by what the rounding of these places alone costs the graph: each
                    `LEEWAY` times, on top of what float32 is allowed

A scale of few voxels shows less than the network loses, by chance: the largest difference of all scales counts for each. PyTorch on a CPU
has bfloat16 alone; what it loses is taken for float16 in the ratio of their roundoffs, 2^-11 to 2^-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..graph.precision.emulate import LOW
from ..graph.precision.plan import LOCATION_FORMS
from ..graph.precision.types import EXACT, PRECISIONS
from ..memory import give_back
from ..model.surroundocc import SurroundOcc
from .agreement import PrecisionAgreement, ScaleAgreement, precision_agreement
from .device import Setting
from .float_twin import check_twin, float_twin
from .metric_change import say_metric_change
from .report import Report
from .request import Loaded
from .spec import Spec
from .subject import Subject
from .verify import LEEWAY, Allowance, Sample, allowances, check_sample, sample_of

_ON_A_CPU = "bf16"


def check_reference(spec: Spec, setting: Setting) -> None:
    """UserError where a 16-bit file is to be held against a lower precision than float32: its own is what is allowed for already."""
    if spec.precision != EXACT and setting != setting.exact:
        fix = f"leave --reference-precision out: what PyTorch in 16 bits loses is measured for a file in {spec.precision} anyway"
        raise UserError(f"--reference-precision {setting.precision}", expected="fp32", got=f"a file in {spec.precision}", fix=fix)


def check_low(
    subject: Subject, model: SurroundOcc, sample: Sample, report: Report, loaded: Loaded, setting: Setting
) -> tuple[Allowance, ...]:  # fmt: skip
    """Rung 2 of a 16-bit file: its float32 graph, then itself; with the labels that agree with float32, and what metrics change.

    Args:
        model: the network in PyTorch, float32; it stays as it is.
        sample: of the frame, in float32.
        loaded: the frame.
        setting: its device.

    Returns: what the file may differ by.
    """
    spec, name = subject.spec, loaded.frame.name
    with float_twin(subject, model, loaded.lidar2img) as twin:
        check_twin(subject, twin, report)
        give_back()
        check_sample(twin, sample, report, f"{name}, its float32 graph")
    give_back()
    allowed = with_places(subject, sample, name, low_network(model, spec, setting).allowances(spec, sample, name))
    got = check_sample(subject, sample, report, f"{name}, rounded to {spec.precision}", allowed=allowed)
    if got is not None:
        say_agreement(spec, sample, got, report, name)
        finest = len(sample.logits) - 1
        say_metric_change(spec, loaded.origin["spec"], sample.logits[finest], got[f"logits_scale{finest}"], report)
    return allowed


class Low(NamedTuple):
    """The network in PyTorch in 16 bits: the file's type, or bfloat16 where PyTorch has no other."""

    network: SurroundOcc
    precision: str

    def allowances(self, spec: Spec, sample: Sample, name: str) -> tuple[Allowance, ...]:
        """What a file may differ by on a sample in float32: `LEEWAY` times what this does, in the ratio of the roundoffs."""
        low = sample_of(self.network, spec, sample.img, sample.lidar2img)
        ratio = PRECISIONS[spec.precision].roundoff / PRECISIONS[self.precision].roundoff
        scale = "" if ratio == 1 else f" times {ratio:g}"
        found = allowances(_scaled(precision_agreement(self.precision, name, low.logits, sample.logits), ratio))
        return tuple(replace(one, against=f"fp32, with {LEEWAY} times what PyTorch in {self.precision} loses{scale}") for one in found)


def low_network(model: SurroundOcc, spec: Spec, setting: Setting) -> Low:
    """The network of `Low` on the setting's device; `model` stays as it is."""
    there = spec.precision if setting.device != "cpu" else _ON_A_CPU
    return Low(replace(setting, precision=there).ready(model), there)


def following_allowances(
    model: SurroundOcc, spec: Spec, name: str, sample: Sample, samples: Sequence[tuple[str, Sample]], setting: Setting
) -> tuple[Allowance, ...]:  # fmt: skip
    """What a file may differ by on other rigs and images: the most that PyTorch in 16 bits does on any of them, and on the frame itself.

    Args:
        name, sample: of the frame.
        samples: of the others, by name; all in float32.
    """
    low = low_network(model, spec, setting)
    found = [low.allowances(spec, one, rig) for rig, one in ((name, sample), *samples)]
    return tuple(
        replace(
            scales[0], atol=max(one.atol for one in scales), rms=max(one.rms for one in scales), noise=max(one.noise for one in scales),
            share=min(one.share for one in scales),
        )
        for scales in zip(*found, strict=True)
    )  # fmt: skip


def with_places(
    subject: Subject, sample: Sample, name: str, allowed: Sequence[Allowance]
) -> tuple[Allowance, ...]:
    """Adds what the rounding of sampling places at the kernels' ports costs; as it is where they are taken in float32."""
    places = _places(subject)
    if not places:
        return tuple(allowed)
    runs = []
    for rounding in (places, False):
        one = Subject(subject.spec, subject.main, subject.geometry, rounding=rounding)
        runs.append(one.run(sample.img, sample.lidar2img))
        one.close()
        give_back()
    got, want = runs
    names = [f"logits_scale{scale}" for scale in subject.spec.outputs.scales]
    cost = _scaled(precision_agreement("places", name, [got[one] for one in names], [want[one] for one in names]), 1.0).scales[0]
    return tuple(
        replace(
            one, atol=one.atol + LEEWAY * cost.max_abs, rms=one.rms + LEEWAY * cost.rms, noise=one.noise + 2 * LEEWAY * cost.max_abs,
            share=max(0.0, one.share - cost.differing / cost.total),
        )
        for one in allowed
    )  # fmt: skip


def _places(subject: Subject) -> set[str]:
    """Values of 16 bits on ports of sampling places."""
    graph = subject.skeleton.graph
    low = {info.name for info in graph.value_info if info.type.tensor_type.elem_type in LOW}
    contracts = {(one.domain, one.op_type): one for one in (subject.spec.dialect.msda,) if one is not None}
    found = set()
    for node in graph.node:
        contract = contracts.get((node.domain, node.op_type))
        if contract is not None:
            found |= {name for name, port in zip(node.input, contract.inputs, strict=False) if port.form in LOCATION_FORMS and name in low}
    return found


def say_agreement(spec: Spec, sample: Sample, got: Mapping[str, np.ndarray], report: Report, name: str) -> None:
    """Reports how many labels agree with float32, scale by scale; passes where all logits are numbers."""
    agreement = _agreement(spec, sample.logits, got, name)
    known = all(np.isfinite(scale.max_abs) for scale in agreement.scales)
    figures = {f"agreement_scale{scale.scale}": scale.share for scale in agreement.scales}
    figures |= {f"{key}_scale{scale.scale}": getattr(scale, key) for scale in agreement.scales for key in ("max_abs", "rms") if known}
    report.add(f"{spec.precision} against fp32", known, agreement.describe() if known else "not all of its logits are numbers", figures)


def _agreement(spec: Spec, want: Sequence[np.ndarray], got: Mapping[str, np.ndarray], name: str) -> PrecisionAgreement:
    scales: list[ScaleAgreement] = []
    for scale in spec.outputs.scales:
        (one,) = precision_agreement(spec.precision, name, [got[f"logits_scale{scale}"]], [want[scale]]).scales
        scales.append(replace(one, scale=scale))
    return PrecisionAgreement(spec.precision, name, tuple(scales))


def _scaled(agreement: PrecisionAgreement, ratio: float) -> PrecisionAgreement:
    """The agreement that another roundoff would have, and the worst scale for all: differences in its ratio, and labels that flip, too."""
    max_abs, rms = (max(getattr(one, key) for one in agreement.scales) * ratio for key in ("max_abs", "rms"))
    share = max(one.differing / one.total for one in agreement.scales) * ratio
    scales = tuple(
        replace(one, max_abs=max_abs, rms=rms, differing=min(int(np.ceil(LEEWAY * one.total * share)), one.total))
        for one in agreement.scales
    )
    return PrecisionAgreement(agreement.precision, agreement.frame, scales)

