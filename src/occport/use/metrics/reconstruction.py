"""Reconstruction metrics as upstream's `evaluation_reconstruction`: distances between occupied voxels, averaged over the frames.

| name | of one frame |
|---|---|
| Acc | mean distance from a predicted voxel to the nearest true one, metres |
| Comp | mean distance from a true voxel to the nearest predicted one, metres |
| CD | Acc + Comp (Chamfer distance) |
| Prec | share of the predicted voxels that are closer than 0.5 m to a true one |
| Recall | share of the true voxels that are closer than 0.5 m to a predicted one |
| F-score | 2 Prec Recall / (Prec + Recall); 0 where both are 0, where upstream's is NaN |

Lower is better for the first three.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...voxels.classes import EMPTY
from ...voxels.grid import Grid
from ...voxels.occupancy import Occupancy
from .nearest import nearest_distances

NAMES = ("Acc", "Comp", "CD", "Prec", "Recall", "F-score")
OCCUPIED_ABOVE = 0.25  # upstream's metric; its point clouds take 0.5
CLOSE = 0.5  # metres


def occupied(occupancy: Occupancy) -> NDArray[np.bool_]:
    """(X, Y, Z) bool, what the metrics take as occupied: a probability above 0.25, or any class where there are only labels."""
    if occupancy.probabilities is None:
        return np.not_equal(occupancy.labels, EMPTY)
    return np.greater(occupancy.probabilities, OCCUPIED_ABOVE)


def reconstruction(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64] | None:
    """The six metrics of a frame, in the order of NAMES.

    Args:
        predicted, truth: (X, Y, Z) bool, occupied voxels.
        grid: of both.
    Returns:
        (6,) float64; None where one of the two has no voxel: there is no nearest one, and upstream stops with an error.
    """
    assert predicted.shape == truth.shape == grid.size, (predicted.shape, truth.shape, grid.size)
    if not predicted.any() or not truth.any():
        return None
    to_truth, to_predicted = _distances(predicted, truth, grid), _distances(truth, predicted, grid)
    accuracy, completeness = to_truth.mean(), to_predicted.mean()
    precision, recall = (to_truth < CLOSE).mean(), (to_predicted < CLOSE).mean()
    f_score = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return np.array([accuracy, completeness, accuracy + completeness, precision, recall, f_score], np.float64)


def _distances(voxels: NDArray[np.bool_], others: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """(n,) float64 metres, of each of `voxels` to the nearest of `others`. Where both are occupied it is 0 without a search."""
    distances = np.zeros(int(voxels.sum()))
    apart = ~others[voxels]
    if apart.any():
        points, targets = grid.centres(np.argwhere(voxels)[apart]), grid.centres(np.argwhere(others))
        distances[apart] = nearest_distances(points, targets)
    return distances
