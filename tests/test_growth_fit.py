"""The fits of bench/growth.py, and that its points are networks and frames that there can be."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]


def _loaded() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_growth", ROOT / "bench/growth.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


growth = _loaded()
positive = st.floats(0.01, 100)


@settings(deadline=None, max_examples=25)
@given(factor=positive, power=st.floats(0, 3), sizes=st.lists(st.integers(1, 10**7), min_size=2, max_size=6, unique=True))
def test_a_power_of_the_size_is_found_again(factor: float, power: float, sizes: list[int]):
    sizes.sort()
    fit = growth.fitted(sizes, [factor * size**power for size in sizes])
    assert fit.exponent == pytest.approx(power, abs=1e-6)
    assert fit.last == pytest.approx(power, abs=1e-4)


def test_the_slope_is_that_of_least_squares():
    fit = growth.fitted([1, math.e, math.e**2], [1, math.e, math.e])  # logarithms (0, 0), (1, 1), (2, 1)
    assert fit.exponent == pytest.approx(0.5)
    assert fit.last == pytest.approx(0.0)


def test_a_part_that_does_not_grow_flattens_the_whole_and_the_last_step_less():
    sizes = [1, 2, 4, 8]
    fit = growth.fitted(sizes, [1 + size for size in sizes])
    assert 0.5 < fit.exponent < fit.last < 1


def test_stages_are_summed_and_absent_ones_count_nothing():
    assert growth.summed({"backbone": 1.5, "neck": 0.25, "decoder": 9.0}, ("backbone", "neck", "tables")) == 1.75


@pytest.mark.parametrize("name", growth.AXES)
def test_an_axis_changes_one_thing_only_and_grows(name: str):
    axis = growth.AXES[name]
    changed = {field for field in growth.Point._fields if len({getattr(point, field) for point in axis.points}) > 1}
    assert changed == {{"images": "hw", "cameras": "cameras", "voxels": "occ", "batch": "batch"}[name]}
    assert list(axis.sizes) == sorted(set(axis.sizes))
    assert len(axis.sizes) >= 4 and axis.sizes[-1] >= 8 * axis.sizes[0]
    for point in axis.points:
        assert not any(size % 32 for size in point.hw) and not any(size % 8 for size in point.occ)


def test_a_point_is_measured_by_stage():
    point = growth.Point((32, 64), cameras=2, occ=(16, 24, 8), batch=2)
    axis = growth.Axis("samples", (1, 2), (point._replace(batch=1), point), growth.IMAGE_STAGES, "volumes")
    found = growth.measure(axis, rounds=1)
    assert [len(found["least s"]), len(found["growing s"])] == [2, 2]
    for lap, growing in zip(found["least s"], found["growing s"], strict=True):
        assert {*growth.IMAGE_STAGES, *growth.VOLUME_STAGES, growth.WHOLE} <= set(lap)
        assert 0 < growing <= lap[growth.WHOLE]
    assert set(found["fits"]) == set(found["least s"][0])
    img, lidar2img = growth.frame(point)
    assert (img.shape, lidar2img.shape) == ((2, 2, 3, 32, 64), (2, 2, 4, 4))


def test_cameras_beyond_the_rig_stand_in_the_places_of_the_first():
    _, lidar2img = growth.frame(growth.Point((32, 64), cameras=8))
    assert (lidar2img[0, 6:] == lidar2img[0, :2]).all()
    assert len({tuple(matrix.flatten().tolist()) for matrix in lidar2img[0]}) == 6
