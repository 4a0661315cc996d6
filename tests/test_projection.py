"""The tables hold what brute force finds, for any rig and any budget; they drop nothing in silence; half precision is enough for them."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.config import Config, read_config
from occport.frames.rig import nuscenes_like_rig, turned
from occport.frames.visibility import hits, needs, overflow, voxel_centres
from occport.model.projection import Budget, LevelTable, Projection
from reference import CONFIGS, load_case, recipe

TURNS = (0.5, 3.0, -5.0, 20.0, 90.0)
MICRO_HW = (128, 224)  # padded from 126
OFFICIAL_HW = (928, 1600)  # padded from 900
BORDER = 1e-5  # of the image: so near to its border float32 may decide otherwise than float64


@cache
def config_of(name: str) -> Config:
    return read_config(CONFIGS / f"{name}.py")


@cache
def projection_of(name: str) -> Projection:
    config = config_of(name)
    return Projection(config.levels, config.pc_range)


@cache
def level_points(name: str) -> list[np.ndarray]:
    config = config_of(name)
    return [voxel_centres((level.volume_h, level.volume_w, level.volume_z), config.pc_range) for level in config.levels]


def widened(rig: np.ndarray, image_size: tuple[int, int], factor: float) -> np.ndarray:
    """Focal lengths divided by the factor, about the image centre."""
    wide = rig.copy()
    for row, centre in ((0, image_size[1] / 2), (1, image_size[0] / 2)):
        wide[:, row] = (rig[:, row] - centre * rig[:, 2]) / factor + centre * rig[:, 2]
    return wide


def micro_rigs() -> dict[str, np.ndarray]:
    """Rigs (N, 4, 4) for images of 126 x 224; float32 values, so that every side projects with the very same matrices."""
    _, rig = nuscenes_like_rig(6, 126, 224)
    blind = rig.copy()
    blind[2, :3] = [[100.0, 0, 0, 0], [0, 100.0, 0, 0], [0, 0, 1.0, -100.0]]  # looks up from 100 m above
    rigs = {"as built": rig, "blind camera": blind, "one way": np.repeat(rig[:1], 6, axis=0), "wide lenses": widened(rig, (126, 224), 4)}
    rigs |= {f"turned by {degrees:g}": turned(rig, degrees) for degrees in TURNS}
    rigs["sees nothing"] = np.repeat(blind[2:3], 6, axis=0)
    return {name: matrices.astype(np.float32).astype(np.float64) for name, matrices in rigs.items()}


RIGS = micro_rigs()


class Brute(NamedTuple):
    """A level's table of one sample, filled hit by hit."""

    slots: np.ndarray
    ref_uv: np.ndarray
    back: np.ndarray
    weight: np.ndarray
    dropped: int


def positions(rig: np.ndarray, image_hw: tuple[int, int], points: np.ndarray) -> np.ndarray:
    """Where the cameras (N, 4, 4) see points (V, 3): (N, V, 2) in units of the image, float64; without meaning behind a camera."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    column, row, depth = np.einsum("nij,vj->inv", rig[:, :3], homogeneous)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([column / depth / image_hw[1], row / depth / image_hw[0]], axis=-1)


def brute_table(hit: np.ndarray, uv: np.ndarray, budget: Budget) -> Brute:
    """hit (N, V) and uv (N, V, 2) → the table, by one loop over cameras and voxels."""
    N, V = hit.shape
    slots, ref_uv = np.zeros((N, budget.slots), np.int64), np.zeros((N, budget.slots, 2))
    back = np.full((budget.cameras, V), N * budget.slots)
    rows, dropped = [0] * V, 0
    for camera in range(N):
        for slot, voxel in enumerate(np.flatnonzero(hit[camera])):
            if slot >= budget.slots:
                dropped += 1
                continue
            slots[camera, slot], ref_uv[camera, slot] = voxel, uv[camera, voxel]
            if rows[voxel] >= budget.cameras:
                dropped += 1
                continue
            back[rows[voxel], voxel] = camera * budget.slots + slot
            rows[voxel] += 1
    return Brute(slots, ref_uv, back, 1 / np.maximum(hit.sum(0), 1), dropped)


def check_table(table: LevelTable, sample: int, expected: Brute) -> None:
    assert table.slots.dtype == table.back.dtype == torch.int64
    assert table.ref_uv.dtype == table.weight.dtype == torch.float32
    np.testing.assert_array_equal(table.slots[sample], expected.slots)
    np.testing.assert_array_equal(table.back[sample], expected.back)
    np.testing.assert_allclose(table.ref_uv[sample], expected.ref_uv, rtol=0, atol=1e-5)
    np.testing.assert_allclose(table.weight[sample], expected.weight, rtol=1e-6)
    assert ((table.ref_uv >= 0) & (table.ref_uv <= 1)).all()
    assert not table.ref_uv[sample].numpy()[(expected.ref_uv == 0).all(-1)].any()


def budgets_of(kind: str, exact: list[Budget], num_cameras: int) -> list[Budget] | None:
    """Room for each level: none given, exactly the need, more, or less of slots, rows or both."""
    made = {
        "none": None,
        "exact": exact,
        "larger": [Budget(slots + 13, num_cameras) for slots, _ in exact],
        "few slots": [Budget(max(slots // 2, 1), cameras) for slots, cameras in exact],
        "one row": [Budget(slots, 1) for slots, _ in exact],
        "few of both": [Budget(max(slots * 2 // 3, 1), max(cameras - 1, 1)) for slots, cameras in exact],
        "one of each": [Budget(1, 1) for _ in exact],
        "not all alike": [Budget(exact[0].slots, 1), Budget(1, num_cameras), Budget(exact[2].slots + 1, exact[2].cameras)],
    }
    return made[kind]


@pytest.mark.parametrize("kind", ["none", "exact", "larger", "few slots", "one row", "few of both", "one of each", "not all alike"])
@pytest.mark.parametrize("rig", RIGS)
def test_every_field_of_every_table(rig: str, kind: str):
    points, lidar2img = level_points("surroundocc_micro"), RIGS[rig]
    seen = [hits(lidar2img, MICRO_HW, centres) for centres in points]
    exact = [Budget(*(max(need, 1) for need in needs(hit))) for hit in seen]
    budgets = budgets_of(kind, exact, 6)
    tables, dropped = projection_of("surroundocc_micro")(torch.from_numpy(lidar2img)[None], MICRO_HW, budgets)
    assert len(tables) == 3 and dropped.shape == (1, 3) and dropped.dtype == torch.int64
    for level, (table, hit) in enumerate(zip(tables, seen, strict=True)):
        budget = (budgets or exact)[level]
        expected = brute_table(hit, positions(lidar2img, MICRO_HW, points[level]), budget)
        check_table(table, 0, expected)
        assert dropped[0, level] == expected.dropped == overflow(hit, *budget)
        if kind in ("none", "exact", "larger"):
            assert expected.dropped == 0
    if kind == "one of each" and rig != "sees nothing":
        assert dropped.min() > 0


def test_the_rigs_are_what_they_are_called():
    seen = {name: hits(rig, MICRO_HW, level_points("surroundocc_micro")[0]) for name, rig in RIGS.items()}
    assert seen["as built"].any(1).all() and needs(seen["as built"])[1] in (2, 3)
    assert seen["blind camera"].any(1).tolist() == [True, True, False, True, True, True]
    assert needs(seen["one way"])[1] == 6
    assert needs(seen["wide lenses"])[0] > 1.5 * needs(seen["as built"])[0]
    assert not seen["sees nothing"].any()


@pytest.mark.parametrize("kind", ["none", "larger", "few slots", "one row"])
def test_a_batch_of_different_rigs(kind: str):
    names = ["as built", "wide lenses", "sees nothing", "one way"]
    points = level_points("surroundocc_micro")
    batch = torch.from_numpy(np.stack([RIGS[name] for name in names]))
    every = [[Budget(*needs(hits(RIGS[name], MICRO_HW, centres))) for name in names] for centres in points]
    exact = [Budget(max(need.slots for need in level), max(need.cameras for need in level)) for level in every]
    budgets = budgets_of(kind, exact, 6)
    tables, dropped = projection_of("surroundocc_micro")(batch, MICRO_HW, budgets)
    for sample, name in enumerate(names):
        for level, centres in enumerate(points):
            expected = brute_table(hits(RIGS[name], MICRO_HW, centres), positions(RIGS[name], MICRO_HW, centres), (budgets or exact)[level])
            check_table(tables[level], sample, expected)
            assert dropped[sample, level] == expected.dropped


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    samples=st.integers(1, 3),
    cameras=st.integers(1, 8),
    share=st.floats(0, 1),
    rooms=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), min_size=3, max_size=3),
)
def test_any_hits_and_any_budgets(seed: int, samples: int, cameras: int, share: float, rooms: list[tuple[int, int]]):
    """Hits that no rig would have: all, none, and every mixture."""
    rng = np.random.default_rng(seed)
    projection = projection_of("surroundocc_micro")
    hit = rng.random((samples, cameras, sum(projection.sizes))) < share
    uv = rng.random((samples, cameras, 2, sum(projection.sizes))).astype(np.float32)
    budgets = [Budget(slots, min(rows, cameras)) for slots, rows in rooms]
    tables, dropped = projection.assign(torch.from_numpy(hit), torch.from_numpy(uv), budgets)
    starts = np.cumsum([0, *projection.sizes])
    for sample in range(samples):
        for level, table in enumerate(tables):
            voxels = slice(starts[level], starts[level + 1])
            expected = brute_table(hit[sample, :, voxels], uv[sample, :, :, voxels].swapaxes(1, 2), budgets[level])
            check_table(table, sample, expected)
            assert dropped[sample, level] == expected.dropped


def official_rigs() -> dict[str, np.ndarray]:
    """Real rigs at full size: the made-up one, the reference's, the nuScenes frame's, and each of them turned."""
    rigs = {"made up": nuscenes_like_rig(6, 900, 1600)[1], "recipe": recipe().lidar2img()}
    rigs["nuScenes frame"] = load_case("nuscenes_frame_full")["lidar2img"][0]
    return {f"{name}, turned by {degrees:g}": turned(rig, degrees) for name, rig in rigs.items() for degrees in (0.0, *TURNS)}


def test_hits_at_the_official_sizes():
    projection = projection_of("surroundocc")
    points = np.concatenate(level_points("surroundocc"))
    assert projection.sizes == [80_000, 10_000, 1_250] and len(points) == 91_250
    np.testing.assert_array_equal(projection.points.numpy(), points.T)
    for name, rig in official_rigs().items():
        hit, uv = projection.project(torch.from_numpy(rig)[None], OFFICIAL_HW)
        expected = hits(rig, OFFICIAL_HW, points)
        where = positions(rig, OFFICIAL_HW, points)
        near = np.abs(where * (1 - where)).min(-1) < BORDER
        different = hit[0].numpy() != expected
        assert not (different & ~near).any(), name
        assert different.sum() <= 3, name  # of 101,000
        np.testing.assert_allclose(uv[0].numpy().swapaxes(1, 2)[expected], where[expected], rtol=0, atol=2e-5, err_msg=name)


def test_the_need_at_the_official_sizes():
    rig = recipe().lidar2img()
    projection = projection_of("surroundocc")
    need = projection.needs(projection.project(torch.from_numpy(rig)[None], OFFICIAL_HW)[0])
    assert need == [Budget(18_923, 2), Budget(2_349, 2), Budget(287, 2)]
    assert need == [Budget(*needs(hits(rig, OFFICIAL_HW, points))) for points in level_points("surroundocc")]


def test_half_precision_moves_less_than_one_hit_in_a_thousand():
    exact, config = projection_of("surroundocc"), config_of("surroundocc")
    half = Projection(config.levels, config.pc_range).half()
    assert torch.equal(half.points.float(), exact.points)  # the official centres are exact in half precision
    moved = {}
    for name, rig in official_rigs().items():
        matrix = torch.from_numpy(rig)[None]
        expected, _ = exact.project(matrix, OFFICIAL_HW)
        got, uv = half.project(matrix, OFFICIAL_HW)
        assert uv.dtype == torch.float16
        moved[name] = int((got ^ expected).sum()) / int(expected.sum())
    assert len(moved) == 18 and max(moved.values()) < 1e-3, moved


def test_why_rows_are_divided_first():
    """Pixels times metres reach beyond 65,504: in half precision they become infinite, and every twentieth hit is lost."""
    rig = load_case("nuscenes_frame_full")["lidar2img"][0]
    points = np.concatenate(level_points("surroundocc"))
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    assert np.abs(rig[:, :2] @ homogeneous.T).max() > 65_504 > np.abs((rig[:, :2] / 900) @ homogeneous.T).max()
    with np.errstate(over="ignore", invalid="ignore"):
        products = rig[:, :2].astype(np.float16) @ homogeneous.T.astype(np.float16)
    assert not np.isfinite(products).all()
    expected, _ = projection_of("surroundocc").project(torch.from_numpy(rig)[None], OFFICIAL_HW)
    with np.errstate(over="ignore", invalid="ignore"):
        unscaled = hits(rig, OFFICIAL_HW, points, np.float16)
    assert (unscaled != expected[0].numpy()).sum() > 1e-2 * int(expected.sum())


@pytest.mark.parametrize(("depth", "seen"), [(-1.0, False), (0.0, False), (0.9e-5, False), (1.1e-5, True), (1.0, True)])
def test_the_smallest_depth(depth: float, seen: bool):
    """A camera to which every voxel is in the middle of its image, at one depth."""
    matrix = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    matrix[0, 0, :, 3] = torch.tensor([MICRO_HW[1] / 2 * max(depth, 1e-5), MICRO_HW[0] / 2 * max(depth, 1e-5), depth, 1.0])
    hit, uv = projection_of("surroundocc_micro").project(matrix, MICRO_HW)
    assert bool(hit.all()) == bool(hit.any()) == seen
    torch.testing.assert_close(uv, torch.full_like(uv, 0.5))


@pytest.mark.parametrize(("u", "v"), [(0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)])
def test_the_border_itself_is_outside(u: float, v: float):
    matrix = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    matrix[0, 0, :, 3] = torch.tensor([u * MICRO_HW[1], v * MICRO_HW[0], 1.0, 1.0])
    assert not projection_of("surroundocc_micro").project(matrix, MICRO_HW)[0].any()


def test_geometry_is_not_in_the_state_dict():
    projection = projection_of("surroundocc_micro")
    assert not projection.state_dict() and not list(projection.parameters())


def test_a_matrix_of_float64_and_float32_give_the_same_tables():
    projection = projection_of("surroundocc_micro")
    matrix = torch.from_numpy(turned(nuscenes_like_rig(6, 126, 224)[1], 7.0))[None]
    for one, other in zip(projection(matrix, MICRO_HW, None)[0], projection(matrix.float(), MICRO_HW, None)[0], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
