"""The surface of a class: which faces, where, which way round, and how dark."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from occport.view.faces import SHADES, exposed_faces
from occport.voxels.grid import Grid

GRID = Grid((3, 4, 2), (0.0, 0.0, 0.0, 3.0, 8.0, 6.0))  # voxels of 1 x 2 x 3 metres


def volume(*voxels: tuple[int, int, int, int]) -> np.ndarray:
    labels = np.zeros(GRID.size, np.uint8)
    for x, y, z, label in voxels:
        labels[x, y, z] = label
    return labels


def normals(surface) -> np.ndarray:
    """(2n, 3): twice the area of each triangle, along its outside."""
    corners = surface.vertices[surface.triangles].astype(np.float64)
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def enclosed(surface) -> float:
    """The volume inside a closed surface, by the divergence theorem."""
    corners = surface.vertices[surface.triangles].astype(np.float64)
    return float(np.einsum("ni,ni->n", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6)


def test_one_voxel_has_six_faces_that_look_outwards():
    surface = exposed_faces(volume((1, 2, 0, 7)), 7, GRID)
    assert surface.num_faces == 6 and surface.triangles.shape == (12, 3) and surface.triangles.dtype == np.uint32
    np.testing.assert_array_equal(surface.vertices.min(axis=0), [1, 4, 0])
    np.testing.assert_array_equal(surface.vertices.max(axis=0), [2, 6, 3])
    centre = np.array([1.5, 5, 1.5])
    middle = surface.vertices[surface.triangles].mean(axis=1)
    assert (np.einsum("ni,ni->n", normals(surface), middle - centre) > 0).all()
    assert np.isclose(enclosed(surface), 6)


def test_shades_tell_the_sides_apart_and_chequer_the_voxels():
    even = exposed_faces(volume((0, 0, 0, 1)), 1, GRID).shades.reshape(6, 4)
    np.testing.assert_allclose(even, np.repeat(np.array(SHADES)[:, None], 4, axis=1), atol=1e-6)
    odd = exposed_faces(volume((0, 0, 1, 1)), 1, GRID).shades.reshape(6, 4)
    np.testing.assert_allclose(odd, even * 0.93, atol=1e-6)


def test_neighbours_of_one_class_share_no_face_those_of_two_keep_both():
    labels = volume((0, 0, 0, 1), (1, 0, 0, 1), (0, 1, 0, 2))
    assert exposed_faces(labels, 1, GRID).num_faces == 10
    assert exposed_faces(labels, 2, GRID).num_faces == 6  # whole, also while class 1 is hidden
    assert exposed_faces(labels, 1, GRID, covered=False).num_faces == 9
    assert exposed_faces(labels, 2, GRID, covered=False).num_faces == 5


def test_unknown_voxels_hide_nothing_and_an_absent_class_has_no_faces():
    labels = volume((0, 0, 0, 1), (1, 0, 0, 255))
    assert exposed_faces(labels, 1, GRID, covered=False).num_faces == 6
    absent = exposed_faces(labels, 3, GRID)
    assert absent.num_faces == 0 and absent.vertices.shape == (0, 3) and absent.triangles.shape == (0, 3)


def test_corners_are_darker_where_voxels_crowd():
    labels = volume((1, 1, 0, 1), (2, 1, 1, 1), (1, 2, 1, 1))  # the top of the first lies in a corner of two walls
    surface = exposed_faces(labels, 1, GRID)
    corners = surface.vertices.reshape(-1, 4, 3)
    top = np.flatnonzero((corners[:, :, 2] == 3).all(axis=1) & (corners.mean(axis=1)[:, :2] == [1.5, 3]).all(axis=1))
    assert len(top) == 1
    shades = surface.shades.reshape(-1, 4)[top[0]]
    shade = {(float(x), float(y)): round(float(s), 4) for (x, y, _), s in zip(corners[top[0]], shades, strict=True)}
    assert shade == {(1, 2): 1.0, (2, 2): 0.87, (1, 4): 0.87, (2, 4): 0.61}
    # Cut from light to dark, the triangles would smear the dark corner over the face; it has a triangle of its own instead.
    owners = [triangle for triangle in surface.triangles if (triangle // 4 == top[0]).all()]
    dark = 4 * top[0] + int(np.argmin(shades))
    assert sum(dark in triangle for triangle in owners) == 1


@settings(deadline=None, max_examples=25)
@given(arrays(np.uint8, GRID.size, elements=st.sampled_from([0, 1, 2, 255])))
def test_each_class_is_closed_and_holds_its_voxels(labels):
    for label in (1, 2):
        surface = exposed_faces(labels, label, GRID)
        count = int((labels == label).sum())
        assert np.isclose(enclosed(surface), 6 * count)
        np.testing.assert_allclose(normals(surface).sum(axis=0), 0, atol=1e-5)
        padded = np.pad(labels == label, 1)
        assert surface.num_faces == sum(int(np.abs(np.diff(padded.astype(int), axis=axis)).sum()) for axis in range(3))
        assert surface.num_faces == 0 or (surface.shades.min() > 0.3 and surface.shades.max() <= 1)
