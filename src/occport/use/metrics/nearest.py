"""Distances from points to the nearest point of another set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def nearest_distances(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Exact Euclidean distance of each of `points` (n, 3) to the nearest of `others` (m, 3), m >= 1; (n,) float64, in their unit.

    By a k-d tree: at 200 x 200 x 16 voxels of which 1 to 30 % are occupied it takes 2 to 90 ms, a distance transform of the grid 30 to 100.
    """
    from scipy.spatial import cKDTree

    assert len(others)
    # Voxel centres are a lattice: median splits gain nothing there, and cost as much as the queries.
    tree = cKDTree(others, balanced_tree=False, compact_nodes=False)
    distances: NDArray[np.float64] = tree.query(points)[0]
    return distances
