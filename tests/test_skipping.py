"""Blocks that rays leap over: they must be empty, and should be large."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.voxels.skipping import HEIGHT, blocks


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    share=st.sampled_from([0.0, 0.003, 0.02, 0.3, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_block_is_empty(size, share, seed):
    solid = np.random.default_rng(seed).random(size) < share
    both = blocks(solid)
    assert both.shape == (2, *size) and both.dtype == np.uint16
    for falling, best in enumerate(both):
        assert np.array_equal(best == 0, solid)
        for x, y, z in np.argwhere(~solid):
            height, reach = divmod(int(best[x, y, z]), HEIGHT)
            assert height >= 1 and reach >= 1
            ahead = slice(max(0, z - height + 1), z + 1) if falling else slice(z, z + height)
            assert not solid[max(0, x - reach + 1) : x + reach, max(0, y - reach + 1) : y + reach, ahead].any()


def test_nothing_solid_gives_the_largest_blocks():
    height, reach = divmod(int(blocks(np.zeros((200, 200, 16), bool)).min()), HEIGHT)
    assert (height, reach) == (16, 48)


def test_blocks_above_a_floor_are_flat():
    """A floor in layer 2 keeps rays from leaping down, but not sideways; those that rise it does not keep at all."""
    solid = np.zeros((200, 200, 16), bool)
    solid[:, :, 2] = True
    rising, falling = blocks(solid)
    for z, expected in ((3, (1, 48)), (4, (2, 48)), (5, (2, 48)), (7, (4, 48))):
        assert divmod(int(falling[100, 100, z]), HEIGHT) == expected
    assert divmod(int(rising[100, 100, 3]), HEIGHT) == (16, 48)
    assert divmod(int(rising[100, 100, 1]), HEIGHT) == (1, 48)


def test_a_block_at_a_wall_is_narrow():
    solid = np.zeros((100, 100, 16), bool)
    solid[50] = True
    for best in blocks(solid):
        assert [int(best[x, 50, 8]) % HEIGHT for x in (49, 48, 47, 46, 45, 44, 40, 51, 52)] == [1, 2, 3, 4, 4, 6, 8, 1, 2]


def test_wide_and_low_is_better_than_narrow_and_high():
    """Rays are rather level: under a bar that hangs two voxels away they leap below it."""
    solid = np.zeros((40, 40, 16), bool)
    solid[:, 22, 1] = True  # two voxels beside (20, 20, 0) and one above
    solid[:, 33, 0] = True
    assert divmod(int(blocks(solid)[0, 20, 20, 0]), HEIGHT) == (1, 12)
