"""Checks with other rigs and images: what they run, and that each of them can fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from exporting import MICRO, Exported
from occport.config import read_config
from occport.export import follow
from occport.export.follow import (
    MICRO_HW,
    check_following,
    check_hits,
    check_other_image,
    default_budgets,
    is_small,
    micro_model,
    micro_spec,
    rigs,
)
from occport.export.report import Report
from occport.export.spec import from_json
from occport.export.subject import Subject
from occport.frames.rig import nuscenes_like_rig
from occport.model.projection import Budget


class Fake(Subject):
    """A subject whose answers are changed on the way."""

    def __init__(self, good: Exported, change) -> None:
        super().__init__(from_json(good.manifest["spec"]), good.model, good.geometry)
        self.change = change

    def run(self, img: np.ndarray, lidar2img: np.ndarray) -> dict[str, np.ndarray]:
        return self.change(super().run(img, lidar2img))


def test_rigs_have_names_and_differ():
    _, rig = nuscenes_like_rig(4, 60, 96)
    found = dict(rigs(rig, (60, 96)))
    assert list(found) == [
        *(f"rig turned by {degrees:g} degrees" for degrees in (0.5, 3, -5, 20, 90)),
        "blind camera",
        "all cameras facing one way",
        "lenses four times as wide",
    ]
    assert all(matrix.shape == (4, 4, 4) and np.abs(matrix - rig).max() > 0 for matrix in found.values())
    assert (found["all cameras facing one way"] == rig[0]).all()
    assert (found["blind camera"][:3] == rig[:3]).all()
    wide = found["lenses four times as wide"]
    assert np.allclose(wide[:, 2:], rig[:, 2:])
    point = np.array([10.0, 12.0, 0.5, 1.0])
    near, far = (matrix[0] @ point for matrix in (rig, wide))
    assert np.isclose(far[0] / far[2] - 48, (near[0] / near[2] - 48) / 4)


def test_default_budgets_of_the_tiny_network(tiny_network):
    assert tiny_network.spec.budgets == (Budget(192, 3), Budget(48, 3), Budget(6, 3))
    spec = tiny_network.spec
    assert default_budgets(spec.config, tiny_network.loaded.frame.lidar2img, spec.image_hw) == spec.budgets


def test_small_files_are_followed_at_their_own_size(tiny_network):
    spec = tiny_network.spec
    assert is_small(spec)
    assert is_small(replace(spec, config=replace(spec.config, num_cameras=6), image_hw=(256, 448)))
    assert not is_small(replace(spec, config=replace(spec.config, num_cameras=6), image_hw=(928, 1600)))


def test_micro_spec_keeps_everything_but_sizes(tiny_network):
    spec = tiny_network.spec
    full = read_config(MICRO.with_name("surroundocc.py"))
    big = replace(spec, config=full, image_hw=(928, 1600), renames=(("img", "a"),))
    small = micro_spec(big)
    assert small.config.image.size == MICRO_HW and small.image_hw == (128, 224) and small.config.occ_size == (32, 40, 8)
    assert replace(small, config=full, image_hw=big.image_hw, budgets=big.budgets) == big
    assert [level.width for level in small.config.levels] == [level.width for level in full.levels]
    assert len({(level.volume_h, level.volume_w) for level in small.config.levels}) == 3
    assert all(budget.slots >= 1 for budget in small.budgets)


def test_micro_model_has_the_same_weights(tiny_network):
    small = micro_spec(tiny_network.spec)
    levels = tuple(replace(level, volume_h=2) for level in tiny_network.spec.config.levels)  # the micro sizes are larger than the tiny
    model = micro_model(tiny_network.model, replace(small, config=replace(small.config, levels=levels)))
    weights = tiny_network.model.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name][: tensor.shape[0]] if tensor.ndim else weights[name]), name
    assert not model.training


def test_answer_that_ignores_the_calibration_is_found(runtime_export, tiny_network):
    img, lidar2img = tiny_network.loaded.img, tiny_network.loaded.lidar2img
    subject = Fake(runtime_export, lambda got: got)
    always = subject.run(img, lidar2img)
    subject.change = lambda got: always
    report = Report(lambda line: None)
    check_following(subject, tiny_network.model, report)
    failed = "\n".join(report.failures)
    assert "rig turned by 3 degrees: logits of scale 3" in failed
    assert "all cameras facing one way: dropped: [[0, 0, 0]], want" in failed
    assert "each camera's image and matrix change the logits: image of camera 0; lidar2img of camera 0" in failed


def test_wrong_count_of_dropped_voxels_is_found(runtime_export, tiny_network):
    subject = Fake(runtime_export, lambda got: {**got, "dropped": np.zeros_like(got["dropped"])})
    report = Report(lambda line: None)
    check_following(subject, tiny_network.model, report)
    assert len(report.failures) == 1 and report.failures[0].startswith("all cameras facing one way: dropped: [[0, 0, 0]], want [[")


def test_count_of_pytorch_itself_is_held_against_brute_force(runtime_export, tiny_network, monkeypatch):
    monkeypatch.setattr(follow, "overflow", lambda hit, slots, cameras: 0)
    monkeypatch.setattr(follow, "check_sensitivity", lambda *arguments, **named: None)
    report = Report(lambda line: None)
    check_following(Fake(runtime_export, lambda got: got), tiny_network.model, report)
    assert any("dropped against a brute-force count" in line and "counted [0, 0, 0]" in line for line in report.failures)


def test_one_silent_camera_is_found(runtime_export, tiny_network, monkeypatch):
    monkeypatch.setattr(follow, "rigs", lambda *arguments: iter(()))
    subject = Fake(runtime_export, lambda got: got)
    plain = subject.run
    report = Report(lambda line: None)

    def without_camera_2(img: np.ndarray, lidar2img: np.ndarray) -> dict[str, np.ndarray]:
        img, lidar2img = img.copy(), lidar2img.copy()
        img[:, 2] = 0
        lidar2img[:, 2] = tiny_network.loaded.lidar2img[:, 1]
        return plain(img, lidar2img)

    monkeypatch.setattr(subject, "run", without_camera_2)
    check_following(subject, tiny_network.model, report)
    (line,) = report.failures
    assert line == "each camera's image and matrix change the logits: image of camera 2; lidar2img of camera 2"


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("level1_slots", lambda array: array + 1, "level1_slots: 192 of 192 numbers differ"),
        ("level2_back", lambda array: np.roll(array, 1), "level2_back"),
        ("dropped", lambda array: array + 1, "dropped: 3 of 3 numbers differ"),
        ("level0_slots", None, "level0_slots: not found in the file"),
    ],
)
def test_wrong_index_tables_are_found(field, change, words, runtime_export, tiny_network, monkeypatch):
    subject = Fake(runtime_export, lambda got: got)
    plain = subject.hits

    def changed(lidar2img: np.ndarray) -> dict[str, np.ndarray]:
        got = plain(lidar2img)
        return {name: array if name != field else change(array) for name, array in got.items() if name != field or change}

    monkeypatch.setattr(subject, "hits", changed)
    report = Report(lambda line: None)
    check_hits(subject, tiny_network.model, tiny_network.loaded.frame.lidar2img, report)
    assert len(report.failures) == 1 and words in report.failures[0]


@pytest.mark.parametrize(
    ("field", "change"),
    [("level0_ref_uv", lambda x: x + 1e-4), ("level0_ref_uv", lambda x: x * np.nan), ("level1_weight", lambda x: x / 2)],
)
def test_wrong_tables_are_found(field, change, tables_export, tiny_network, monkeypatch):
    subject = Fake(tables_export, lambda got: got)
    plain = subject.tables
    monkeypatch.setattr(subject, "tables", lambda matrix: {name: change(x) if name == field else x for name, x in plain(matrix).items()})
    report = Report(lambda line: None)
    check_hits(subject, tiny_network.model, tiny_network.loaded.frame.lidar2img, report)
    assert len(report.failures) == 1 and field in report.failures[0]


def test_fixed_file_that_ignores_its_image_is_found(fixed_export, tiny_network):
    subject = Fake(fixed_export, lambda got: got)
    report = Report(lambda line: None)
    check_other_image(subject, tiny_network.model, tiny_network.loaded.lidar2img, report)
    assert report.failures == [] and report.checks[0].name == "another image"
    always = subject.run(tiny_network.loaded.img, tiny_network.loaded.lidar2img)
    subject.change = lambda got: always
    check_other_image(subject, tiny_network.model, tiny_network.loaded.lidar2img, report)
    assert report.failures and report.failures[0].startswith("another image: logits of scale 0")
