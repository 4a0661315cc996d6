"""A result as tables and as JSON, from figures made up here."""

from __future__ import annotations

import json

import pytest

from occport.measure.gemm import GemmSpeed
from occport.measure.labels import LabelAgreement
from occport.measure.operators import Operator
from occport.measure.peak import Peak
from occport.measure.result import Measured, Result, stages_of
from occport.measure.tables import text_of

MACHINE = {
    "cpu": "Some CPU", "cores": 2, "threads": 2, "system": "Linux x86_64", "python": "3.11", "torch": "2.13", "onnxruntime": "1.32",
    "kernels": "native kernels",
}  # fmt: skip

OWN = {"backbone": 3 * 10**12, "neck": 10**12}


def result(*, operators: bool = True, device: str = "") -> Result:
    slow = Measured(
        "references", "PyTorch", "fp32", ({"backbone": 8.0, "rest": 2.0, "whole": 10.0}, {"backbone": 16.0, "whole": 16.0}), OWN
    )
    many = tuple(Operator(f"op{number}", 1, 0.1, 0) for number in range(14))
    fast = Measured(
        "torch bf16", "PyTorch bfloat16", "bf16", ({"backbone": 1.0, "whole": 2.0}, {"backbone": 2.0, "whole": 4.0}),
        {"backbone": 3 * 10**12},
        operators=(Operator("aten.convolution", 3, 0.5, 10**12), *many) if operators else (), peak=Peak(3 * 2**30, 2**30 if device else 0),
        labels=LabelAgreement({3: 0.995, 1: 0.99}, {3: 640_000, 1: 10_000}),
    )  # fmt: skip
    gemm = {"fp32": GemmSpeed("fp32", 4e12, "mm"), "bf16": GemmSpeed("bf16", 8e12, "1x1 convolution")}
    machine = {**MACHINE, "device": device} if device else MACHINE
    return Result(machine, "frame X: 6 images of 928 x 1600", OWN, gemm, 1, (slow, fast))


def test_figures():
    whole = result()
    _, fast = whole.backends
    assert whole.total_flops == 4 * 10**12 and fast.flops_of("whole") == 3 * 10**12 and fast.flops_of("neck") == 0
    assert whole.bound("fp32") == 1.0 and whole.bound("bf16") == 0.5
    assert whole.times(fast) == 4.5, "the median of 10 / 2 and 16 / 4"
    assert whole.fraction(fast, 2e12) == 0.25
    assert whole.of_bound(fast) == pytest.approx(0.5 / 3), "by the network's own arithmetic, however much less was done"
    assert stages_of(whole.backends) == ["backbone", "rest", "whole"]


def test_text():
    text = text_of(result())
    lines = text.splitlines()
    assert "Some CPU, 2 cores, 2 threads" in lines[0]
    assert "GEMM bf16: 8,000 GFLOP/s (1x1 convolution); bound of a frame's 4 TFLOP: 0.5000 s" in lines
    assert "frame X: 6 images of 928 x 1600; 2 rounds after 1 of warm-up; median, least and interquartile range (iqr)" in lines
    rows = [line.split() for line in lines]
    assert ["backbone", "12.0", "8.00", "4.00", "1.50", "1.00", "0.5000"] in rows
    assert ["backbone", "250", "6%", "3,000.0", "2,000", "25%", "3,000.0"] in rows
    assert ["whole", "308", "8%", "4,000.0", "1,000", "12%", "3,000.0"] in rows
    assert ["rest", "1.00", "0.0000", "1.00", "–", "–", "–"] in rows
    assert ["references", "1.00", "8%", "–", "–"] in rows
    (fast,) = [line for line in lines if line.startswith("torch bf16  ") and "GiB" in line]
    assert fast.split(maxsplit=6)[2:] == ["4.50", "17%", "3.00", "GiB", "99.50 % of 640,000 at scale 3; worst scale 1, 99.00 % of 10,000"]
    assert ["aten.convolution", "3", "0.5000", "26.3%", "2,000", "25%"] in rows
    assert ["3", "others", "3", "0.3000", "15.8%", "–", "–"] in rows
    assert "op10" in text and "op11" not in text
    assert text.endswith("\n") and all(line == line.rstrip() for line in lines)


def test_a_device_has_its_name_and_memory():
    text = text_of(result(device="Some GPU"))
    assert text.splitlines()[0].endswith("; Some GPU") and "3.00 GiB + 1.00 GiB" in text


def test_json():
    table = json.loads(json.dumps(result().to_json(), allow_nan=False))
    assert set(table) == {"machine", "frame", "rounds", "warmup", "flops", "gemm", "backends"}
    assert table["flops"] == {"backbone": 3e12, "neck": 1e12, "whole": 4e12}
    assert table["gemm"]["bf16"] == {"flops_per_second": 8e12, "how": "1x1 convolution", "bound_s": 0.5}
    first, second = table["backends"]
    assert first["times_as_fast_as_first"] == 1.0 and first["peak_bytes"] is None and first["labels_against_first"] is None
    assert second["peak_bytes"] == 3 * 2**30 and second["peak_device_bytes"] == 0
    assert second["labels_against_first"] == {"worst_scale": 1, "agreement": {"3": 0.995, "1": 0.99}}
    assert second["stages"]["backbone"] == {
        "median_s": 1.5, "least_s": 1.0, "interquartile_s": 0.5, "flops": 3e12, "flops_per_second": 2e12, "of_gemm": 0.25,
    }  # fmt: skip
    assert set(first["stages"]["rest"]) == {"median_s", "least_s", "interquartile_s"}
    assert second["operators"][0] == {
        "name": "aten.convolution",
        "calls": 3,
        "seconds": 0.5,
        "flops": 1e12,
        "flops_per_second": 2e12,
        "of_gemm": 0.25,
    }


@pytest.mark.parametrize("operators", [True, False])
def test_operators_only_where_asked_for(operators: bool):
    assert ("operators of torch bf16" in text_of(result(operators=operators))) == operators
