"""The network computes what the original computes: logits at four scales, labels, image features, tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from occport.model.projection import Budget
from reference import inputs, load_case, reference_model

CASES = ("micro_sem", "micro_nosem", "micro_blind", "micro_batch2", "tiny_sem")
ATOL = 1e-4  # logits have a standard deviation of about 1.5; float32 against float64 differs by 2.5e-5
MARGIN = 1e-3  # labels must agree where the winner is ahead by this much


def check_logits(name: str, logits: tuple[torch.Tensor, ...]) -> None:
    """Logits within `ATOL` of the reference at every scale, and the same labels."""
    case = load_case(name)
    assert len(logits) == 4
    for scale, got in enumerate(logits):
        expected = case[f"occ_{scale}"]
        assert got.dtype == torch.float32 and tuple(got.shape) == expected.shape
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=ATOL, err_msg=f"scale {scale}")
        if expected.shape[1] == 1:
            labels, margin = got[:, 0].numpy() > 0, np.abs(expected[:, 0])
        else:
            ranked = np.sort(expected, axis=1)
            labels, margin = got.numpy().argmax(1), ranked[:, -1] - ranked[:, -2]
        clear = margin > MARGIN
        assert clear.mean() > 0.98
        np.testing.assert_array_equal(labels[clear], case[f"argmax_{scale}"][clear])


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_of_an_exact_forward(name: str):
    given = inputs(name)
    np.testing.assert_allclose(given.lidar2img, load_case(name)["lidar2img"], rtol=0, atol=1e-12)
    check_logits(name, reference_model(name)(given.img, given.lidar2img))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_logits_through_tables_with_room_to_spare(name: str):
    model, given = reference_model(name), inputs(name)
    exact, _ = model.tables(given.lidar2img, given.image_hw)
    budgets = [Budget(table.slots.shape[2] + 13, min(table.back.shape[1] + 2, 6)) for table in exact]
    tables, dropped = model.tables(given.lidar2img, given.image_hw, budgets)
    assert [(table.slots.shape[2], table.back.shape[1]) for table in tables] == budgets
    assert not dropped.any()
    check_logits(name, model.logits(given.img, tables))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_image_features(name: str):
    case, given = load_case(name), inputs(name)
    features = reference_model(name).features(given.img[-1:])  # of two samples, the reference kept the maps of the second
    assert list(given.image_hw) == list(case["img_shape"])
    for level, got in enumerate(features):
        assert tuple(got.shape) == tuple(case[f"fpn_{level}_shape"])
        samples = got.flatten().numpy()[case[f"fpn_{level}_idx"]]
        np.testing.assert_allclose(samples, case[f"fpn_{level}_val"], rtol=0, atol=ATOL, err_msg=f"level {level}")


@torch.no_grad()
def test_each_sample_of_a_batch_is_its_own_single_run():
    model, given = reference_model("micro_batch2"), inputs("micro_batch2")
    both = model(given.img, given.lidar2img)
    for sample in range(2):
        alone = model(given.img[sample : sample + 1], given.lidar2img[sample : sample + 1])
        for scale in range(4):
            torch.testing.assert_close(both[scale][sample : sample + 1], alone[scale], rtol=0, atol=ATOL)


@torch.no_grad()
def test_the_blind_camera_changes_nothing():
    model, given = reference_model("micro_blind"), inputs("micro_blind")
    other = given.img.clone()
    other[:, 3] = 255 - other[:, 3]
    for before, after in zip(model(given.img, given.lidar2img), model(other, given.lidar2img), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_budget_that_is_too_small_is_counted():
    model, given = reference_model("micro_sem"), inputs("micro_sem")
    hit, _ = model.projection.project(given.lidar2img, given.image_hw)
    finest = hit[0, :, : model.config.levels[0].num_voxels]
    budgets = [Budget(100, 6), Budget(1000, 6), Budget(1000, 6)]
    _, dropped = model.tables(given.lidar2img, given.image_hw, budgets)
    assert dropped.tolist() == [[int((finest.sum(1) - 100).clamp(min=0).sum()), 0, 0]]
    _, dropped = model.tables(given.lidar2img, given.image_hw, [Budget(1280, 1), Budget(1000, 6), Budget(1000, 6)])
    assert dropped.tolist() == [[int((finest.sum(0) - 1).clamp(min=0).sum()), 0, 0]]


@pytest.mark.parametrize("wrong", ["cameras", "height", "calibration"])
def test_inputs_of_another_shape_are_refused(wrong: str):
    model, given = reference_model("micro_sem"), inputs("micro_sem")
    img, lidar2img = given.img, given.lidar2img
    if wrong == "cameras":
        img, lidar2img = img[:, :5], lidar2img[:, :5]
    elif wrong == "height":
        img = img[..., :100, :]
    else:
        lidar2img = lidar2img[:, :, :3]
    with pytest.raises(ValueError, match="expected"):
        model(img, lidar2img)
