"""How the difference of a precision is counted and told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from occport.export.agreement import PrecisionAgreement, ScaleAgreement, precision_agreement


def logits(*labels: int, classes: int = 3) -> np.ndarray:
    """(1, classes, voxels, 1, 1): 1 for the label's class, else 0."""
    return np.eye(classes, dtype=np.float32)[list(labels)].T.reshape(1, classes, -1, 1, 1).copy()


def test_labels_are_counted_at_every_scale():
    want = [logits(0, 1, 2, 1), logits(2, 2)]
    got = [logits(0, 1, 1, 1), logits(2, 2)]
    found = precision_agreement("bf16", "f", got, want)
    coarse, fine = found.scales
    assert (coarse.scale, coarse.total, coarse.differing, coarse.share, coarse.max_abs) == (0, 4, 1, 0.75, 1.0)
    assert coarse.rms == pytest.approx((2 / 12) ** 0.5) and (fine.total, fine.differing, fine.share, fine.rms) == (2, 0, 1.0, 0.0)
    assert found.worst == coarse
    assert found.describe() == "bf16 against fp32 on frame f: scale 1 100 % of 2 labels agree (worst: scale 0, 75.00 % of 4)"


def test_one_class_is_occupied_above_0():
    want = np.array([1.0, -1, 0.5, -0.5], np.float32).reshape(1, 1, 4, 1, 1)
    (scale,) = precision_agreement("fp16", "f", [want - 0.75], [want]).scales
    assert (scale.total, scale.differing, scale.max_abs, scale.rms) == (4, 1, 0.75, 0.75)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_agrees(value):
    want, got = logits(0, 1, 2), logits(0, 1, 2)
    got[0, 2, 0] = value
    found = precision_agreement("bf16", "f", [got], [want])
    assert (found.worst.differing, found.worst.max_abs, found.worst.rms) == (1, np.inf, np.inf)
    (table,) = json.loads(json.dumps(found.to_json(), allow_nan=False))["scales"]
    assert (table["max_abs"], table["rms"], table["differing"]) == (None, None, 1)


def test_it_is_told_with_the_worst_scale():
    scales = (ScaleAgreement(0, 10_000, 13, 0.1, 0.01), ScaleAgreement(1, 640_000, 1, 0.2, 0.02))
    both = PrecisionAgreement("bf16", "X", scales)
    # a rounded 100 % would be a lie
    assert both.describe() == "bf16 against fp32 on frame X: scale 1 99.99 % of 640,000 labels agree (worst: scale 0, 99.87 % of 10,000)"
    alone = PrecisionAgreement("bf16", "X", scales[:1])
    assert alone.describe() == "bf16 against fp32 on frame X: scale 0 99.87 % of 10,000 labels agree (the worst scale)"
    assert both.to_json() == {
        "precision": "bf16", "frame": "X", "worst_scale": 0,
        "scales": [
            {"scale": 0, "total": 10_000, "differing": 13, "max_abs": 0.1, "rms": 0.01, "agreement": 0.9987},
            {"scale": 1, "total": 640_000, "differing": 1, "max_abs": 0.2, "rms": 0.02, "agreement": 1 - 1 / 640_000},
        ],
    }  # fmt: skip


def test_of_equal_scales_the_finest_is_the_worst():
    same = PrecisionAgreement("bf16", "X", tuple(ScaleAgreement(scale, 10, 0, 0.0, 0.0) for scale in range(3)))
    assert same.worst.scale == 2 and same.describe().endswith("scale 2 100 % of 10 labels agree (the worst scale)")
