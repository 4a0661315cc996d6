"""One table of classes and colours."""

from __future__ import annotations

import numpy as np

from occport.voxels.classes import CLASS_NAMES, EMPTY, IGNORE, OCCUPIED, SURROUNDOCC, colours


def test_upstreams_classes():
    """Sixteen, in the order of the labels: 1 barrier … 16 vegetation (upstream.md)."""
    assert CLASS_NAMES == (
        "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian", "traffic_cone", "trailer", "truck",
        "driveable_surface", "other_flat", "sidewalk", "terrain", "manmade", "vegetation",
    )  # fmt: skip
    assert (EMPTY, IGNORE) == (0, 255)


def test_colours_of_labels():
    table = colours(CLASS_NAMES)
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert table[4].tolist() == [0, 150, 245]  # car
    assert table[11].tolist() == [255, 0, 255]  # driveable surface
    assert [tuple(row) for row in table[1:17].tolist()] == list(SURROUNDOCC.values())
    assert table[EMPTY].tolist() == [0, 0, 0]
    assert (table[17:] == 128).all()


def test_no_two_classes_look_the_same():
    assert len(set(SURROUNDOCC.values())) == 16


def test_classes_of_other_names():
    table = colours(("car", "dragon", "unicorn"))
    assert table[1].tolist() == [0, 150, 245]
    assert len({tuple(row) for row in table[:5].tolist()}) == 5
    assert np.array_equal(table, colours(("car", "dragon", "unicorn")))
    assert colours(OCCUPIED)[1].tolist() == [90, 130, 200]
