"""Backends in turn, and what is made of their times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from occport.export.agreement import labels_of
from occport.measure.labels import Labels, label_agreement
from occport.measure.operators import Operator
from occport.measure.rounds import Seconds, by_stage, seconds_of, take_rounds, times_as_fast


class Fake:
    """A backend that only says that it was called."""

    described, precision, weights = "fake", "fp32", ""

    def __init__(self, name: str, log: list[str], stop: int = -1) -> None:
        self.name, self._log, self._stop = name, log, stop

    def run(self) -> None:
        if len(self._log) == self._stop:
            raise KeyboardInterrupt
        self._log.append(self.name)

    def laps(self) -> list[Mapping[str, float]]:
        return []

    def labels(self) -> Labels:
        return {}

    def operators(self) -> tuple[Operator, ...]:
        return ()


def test_each_round_begins_with_another():
    log: list[str] = []
    take_rounds([Fake(name, log) for name in "abc"], 4)
    assert "".join(log) == "abc" + "bca" + "cab" + "abc"


def test_an_interrupt_ends_the_rounds():
    log: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        take_rounds([Fake("a", log), Fake("b", log, stop=2)], 9)
    assert "".join(log) == "ab"


def test_median_least_and_spread():
    assert seconds_of([2.0]) == Seconds(2.0, 2.0, 0.0)
    assert seconds_of([3.0, 1.0]) == Seconds(2.0, 1.0, 1.0)
    assert seconds_of([5.0, 1.0, 2.0, 4.0, 90.0]) == Seconds(4.0, 1.0, 3.0)


def test_stages_stand_in_the_order_of_a_frame():
    laps = [{"whole": 3.0, "decoder": 1.0, "backbone": 2.0}, {"whole": 5.0, "decoder": 1.0, "backbone": 4.0, "rest": 2.0}]
    found = by_stage(laps)
    assert list(found) == ["backbone", "decoder", "rest", "whole"]
    assert found["backbone"].median == 3.0 and found["rest"].median == 1.0, "a stage that a lap does not have took no time there"


def test_ratios_are_taken_round_by_round():
    slow = [{"whole": 10.0}, {"whole": 40.0}, {"whole": 12.0}]
    fast = [{"whole": 5.0}, {"whole": 20.0}, {"whole": 4.0}]
    assert times_as_fast(fast, slow) == 2.0 and times_as_fast(slow, slow) == 1.0


def test_labels_by_scale():
    a = {0: np.zeros((1, 2, 2, 1), int), 3: np.arange(100).reshape(1, 10, 10, 1)}
    b = {0: np.array([0, 0, 0, 1]).reshape(1, 2, 2, 1), 3: a[3].copy()}
    found = label_agreement(b, a)
    assert found is not None and found.shares == {0: 0.75, 3: 1.0} and found.worst == 0
    assert found.describe() == "100 % of 100 at scale 3; worst scale 0, 75.00 % of 4"
    assert found.to_json() == {"worst_scale": 0, "agreement": {"0": 0.75, "3": 1.0}}
    same = label_agreement(a, a)
    assert same is not None and same.describe() == "all of 104 labels" and same.worst == 3
    assert label_agreement({1: a[0]}, {2: a[0]}) is None


def test_nearly_all_labels_are_not_all():
    want = {3: np.zeros((1, 100, 100, 100), np.uint8)}
    got = {3: want[3].copy()}
    got[3][0, 0, 0, 0] = 1
    found = label_agreement(got, want)
    assert found is not None and found.describe() == "99.99 % of 1,000,000 at scale 3"


def test_labels_of_scores():
    scores = np.array([[[[[0.1]]], [[[0.9]]]]])
    assert labels_of(scores, 0.0).tolist() == [[[[1]]]]
    assert labels_of(np.array([[[[[-0.1, 0.1]]]]]), 0.0).tolist() == [[[[0, 1]]]]
    assert labels_of(np.array([[[[[0.4, 0.6]]]]]), 0.5).tolist() == [[[[0, 1]]]]
