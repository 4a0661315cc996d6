"""Verification against a lower precision: good files pass, one changed weight is found, and the given frame is held to fp32."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from exporting import Exported, edit_initializer, export, run_cli, spoilt
from occport.export import follow, pipeline, verify
from occport.export.agreement import PrecisionAgreement, ScaleAgreement
from occport.export.device import Setting
from occport.export.follow import check_following
from occport.export.report import Report
from occport.export.spec import from_json
from occport.export.subject import Subject
from occport.export.verify import ATOL, NOISE, RMS, Allowance, allowances, check_sample, sample_of
from occport.progress import NullProgress

LOW = Setting("bf16")


@pytest.fixture
def two_rigs(monkeypatch, runtime_export, fixed_export) -> None:
    """Rung 3 with two rigs only."""
    rigs = follow.rigs
    monkeypatch.setattr(follow, "rigs", lambda *arguments: list(rigs(*arguments))[3:5])


def planted(good: Exported, name: str, change) -> Exported:
    """The good file with one initializer changed, and a right hash; layouts may have put an ending behind its name."""
    name = next(tensor.name for tensor in good.skeleton.graph.initializer if tensor.name.startswith(name))
    path = spoilt(good, f"{name} bf16", lambda proto: edit_initializer(proto, name, good.model.parent, change))
    return Exported(path, good.manifest, good.ran)


def checked(good: Exported, network, setting: Setting = LOW) -> Report:
    report = Report(lambda line: None)
    subject = Subject(from_json(good.manifest["spec"]), good.model, good.geometry)
    pipeline.verify(subject, network.model, network.loaded, report, NullProgress(), setting)
    return report


def test_what_is_allowed_follows_from_what_was_measured():
    scales = (ScaleAgreement(0, 1000, 10, 0.1, 0.01), ScaleAgreement(1, 50, 50, 0.0, 0.0))
    first, second = allowances(PrecisionAgreement("bf16", "f", scales))
    approx = pytest.approx
    assert first == Allowance(approx(ATOL + 0.3), approx(RMS + 0.03), approx(NOISE + 0.6), approx(0.968), "bf16")
    assert second == Allowance(pytest.approx(ATOL), pytest.approx(RMS), pytest.approx(NOISE), 0.0, "bf16")
    assert Allowance() == Allowance(ATOL, RMS, NOISE, 0.0, "")
    assert Allowance().described == "(atol 0.002, rtol 0.001, rms < 0.0002)"
    assert first.described == "(against bf16: atol 0.302, rtol 0.001, rms < 0.0302)"


@pytest.mark.parametrize("kind", ["runtime_export", "fixed_export"])
def test_a_good_file_passes_and_the_report_says_how(kind, request, tiny_network, two_rigs):
    report = checked(request.getfixturevalue(kind), tiny_network)
    assert report.failures == []
    (told,) = [check for check in report.checks if check.name == "reference in bf16"]
    assert told.detail.startswith("bf16 against fp32 on frame synthetic: scale 3 ") and "up to 3 times its difference" in told.detail
    assert 0.9 < told.figures["agreement_scale3"] < 1 and 0 < told.figures["rms_scale3"] < told.figures["max_abs_scale3"] < 1
    given = [check for check in report.checks if check.name.startswith("synthetic: logits")]
    others = [check for check in report.checks if check.name.startswith(("rig turned", "another image"))]
    assert len(given) == 4 and all("(atol 0.002, rtol 0.001, rms < 0.0002)" in check.detail for check in given)
    assert others and all("(against bf16: atol" in check.detail and "(against bf16: at least" in check.detail for check in others)


def test_float32_is_held_to_what_it_always_was(runtime_export, tiny_network, two_rigs):
    report = checked(runtime_export, tiny_network, Setting())
    assert report.failures == [] and not any("bf16" in check.name + check.detail for check in report.checks)
    values = [check for check in report.checks if "logits of scale" in check.name + check.detail]
    assert len(values) == 6 and all("(atol 0.002, rtol 0.001, rms < 0.0002)" in check.detail for check in values)


def test_a_changed_weight_fails_on_the_given_frame(runtime_export, tiny_network, monkeypatch):
    """A change far below what bf16 would forgive: the given frame is held against fp32."""
    monkeypatch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)

    def change(array: np.ndarray) -> None:
        array.reshape(-1)[100] += 0.05

    found = checked(planted(runtime_export, "pts_bbox_head_deblocks_6_0_weight", change), tiny_network).failures
    assert found and all(line.startswith("synthetic: ") for line in found)
    assert any(line.startswith("synthetic: logits of scale 3") for line in found)


def test_a_changed_weight_fails_on_other_rigs_too(runtime_export, tiny_network, two_rigs):
    def change(array: np.ndarray) -> None:
        array[:] = array[::-1].copy()

    found = checked(planted(runtime_export, "img_backbone_layer1_0_conv1_weight", change), tiny_network).failures
    assert any(line.startswith("rig turned by 20 degrees: logits of scale") and "(against bf16: atol" in line for line in found)


def test_labels_may_not_agree_less_than_the_given_frames(runtime_export, tiny_network):
    """Everything else is allowed; a share that cannot be reached is not."""
    subject = Subject(from_json(runtime_export.manifest["spec"]), runtime_export.model, None)
    model, spec, loaded = LOW.ready(tiny_network.model), tiny_network.spec, tiny_network.loaded
    sample = sample_of(model, spec, loaded.img, loaded.lidar2img)
    loose = Allowance(atol=9.0, rms=9.0, noise=9.0, share=0.9, against="bf16")
    for share, passed in ((0.9, True), (0.9999, False)):
        report = Report(lambda line: None)
        check_sample(subject, sample, report, "f", allowed=[replace(loose, share=share)] * 4)
        (check,) = [check for check in report.checks if check.name == "f: labels_scale3"]
        assert check.passed is passed and f"(against bf16: at least {share:.2%})" in check.detail


def test_a_reference_that_is_no_number_fails(runtime_export, tiny_network, monkeypatch):
    monkeypatch.setattr(pipeline, "_check_others", lambda *arguments, **named: None)
    plain = verify.sample_of

    def sample(model, spec, img, lidar2img):
        made = plain(model, spec, img, lidar2img)
        exact = {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        return made if exact else replace(made, logits=tuple(x * np.nan for x in made.logits))

    monkeypatch.setattr(pipeline, "sample_of", sample)
    (line,) = checked(runtime_export, tiny_network).failures
    assert line.startswith("reference in bf16: bf16 against fp32") and line.endswith("not all of its logits are numbers")


def test_following_takes_a_plain_network_as_before(runtime_export, tiny_network, two_rigs):
    report = Report(lambda line: None)
    check_following(Subject(tiny_network.spec, runtime_export.model, None), tiny_network.model, report)
    assert report.failures == [] and len(report.checks) >= 3


def test_command_lines(tmp_path, quick, two_rigs):
    made = export(tmp_path, "--reference-precision", "bf16")
    names = [check["name"] for check in json.loads(made.model.with_suffix(".json").read_text())["verification"]]
    assert "reference in bf16" in names and "-[✓] reference in bf16" in made.ran.out
    ran = run_cli("verify", made.model, "--reference-precision", "bf16", "--device", "cpu")
    assert ran.status == 0 and ran.out.count("reference in bf16") == 1 and "(against bf16: atol" in ran.out
    plain = run_cli("verify", made.model)
    assert plain.status == 0 and "bf16" not in plain.out
    assert onnx.load(made.model, load_external_data=False).graph.name.startswith("tiny")
