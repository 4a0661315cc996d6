"""Cutting activations down: the smaller operator computes a part of what the bigger one does, and fits its room."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from occport.graph import dialect as dialects
from occport.graph.attributes import Window, lower_window
from occport.graph.contract import Contract, Limit
from occport.graph.port_arrays import lower_arrays, raise_arrays
from occport.kit.cases.case import Case
from occport.kit.cases.golden import golden
from occport.kit.vectors.activations import CustomNode, Tap
from occport.kit.vectors.allowance import case_bytes, fitted, input_length, one_image, shared_out
from occport.kit.vectors.dialect_cases import letters_of
from occport.kit.vectors.sampling import Cut, chosen_queries, cut_out, image_of, kept_outputs, sampled

DL = dialects.load("dl")
few = settings(deadline=None, max_examples=40)


def node_of(contract: Contract, operator: str, quantities: dict[str, np.ndarray], window: Window | None = None) -> tuple[CustomNode, Any]:
    """A node whose images are six and all alike, and the ports of one image."""
    ports = lower_arrays(contract, quantities)
    letters = {**letters_of(contract, ports, window), "A": 6}
    form = {port.name: port.form for port in contract.inputs}
    taps = {name: Tap(name, form[name], array.dtype, array.shape) for name, array in ports.items()}
    attributes = {"im2col_step": 64} if window is None else lower_window(contract, window)
    return CustomNode("layer_1", operator, contract, taps, letters, window, attributes), ports


def attention(seed: int = 0, *, h: int = 12, w: int = 20, Q: int = 300, M: int = 4, D: int = 16, P: int = 2) -> dict[str, np.ndarray]:
    r = np.random.default_rng(seed)
    weights = r.random((1, Q, M, 1, P), np.float32)
    return {
        "value": r.standard_normal((1, h * w, M, D), np.float32), "spatial_shapes": np.array([[h, w]]), "level_start_index": np.array([0]),
        "sampling_locations": r.random((1, Q, M, 1, P, 2), np.float32) * 1.5 - np.float32(0.25),
        "attention_weights": weights / weights.sum((3, 4), keepdims=True),
    }  # fmt: skip


def convolution(window: Window, H: int, W: int, seed: int = 0, C: int = 4, O: int = 8, reach: float = 2.0) -> dict[str, np.ndarray]:  # noqa: E741
    r = np.random.default_rng(seed)
    kh, kw = window.kernel
    Ho, Wo = ((size - input_length(window, "HW"[axis], 1)) // window.stride[axis] + 1 for axis, size in enumerate((H, W)))
    taps = window.deform_groups * kh * kw
    offset = (r.standard_normal((1, 2 * taps, Ho, Wo)) * reach).astype(np.float32)
    offset = np.where(r.random(offset.shape) < 0.2, np.round(offset), offset)  # some on whole pixels
    return {
        "input": r.standard_normal((1, C, H, W), np.float32), "offset": offset,
        "mask": r.random((1, taps, Ho, Wo), np.float32) + np.float32(0.1),
        "weight": r.standard_normal((O, C // window.groups, kh, kw), np.float32), "bias": r.standard_normal(O).astype(np.float32),
    }  # fmt: skip


def case_of(operator: str, quantities, window: Window | None = None) -> Case:
    attributes = {} if window is None else {name: value for name, value in window._asdict().items() if name != "kernel"}
    return Case("c", operator, quantities, attributes, "")


windows = st.builds(
    Window, kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2]), deform_groups=st.sampled_from([1, 2]),
)  # fmt: skip


@few
@given(windows, st.integers(6, 12), st.integers(6, 12), st.data())
def test_a_window_of_the_map_computes_what_the_whole_map_does(window, H, W, data):
    whole = convolution(window, H, W, seed=data.draw(st.integers(0, 99)))
    part = []
    for axis, side in enumerate("HW"):
        size = whole["offset"].shape[2 + axis]
        least = next(count for count in range(1, size + 1) if count == size or input_length(window, side, count) >= 1)
        count = data.draw(st.integers(least, size))
        part.append((data.draw(st.integers(0, size - count)), count))
    cut, masked = cut_out(whole, window, Cut(*part))
    inner = (slice(None), slice(None), *(slice(first, first + count) for first, count in part))
    lost = cut["mask"] == 0
    assert masked == lost.sum()
    np.testing.assert_array_equal(cut["mask"][~lost], whole["mask"][inner][~lost])
    alike = whole["mask"].copy()
    alike[inner][lost] = 0
    want = golden(case_of("dcn", {**whole, "mask": alike}, window))[inner]
    np.testing.assert_allclose(golden(case_of("dcn", cut, window)), want, rtol=0, atol=1e-12 * max(1, np.abs(want).max()))


def test_only_taps_that_read_a_removed_pixel_are_masked():
    """Pixel by pixel: rows 3 to 6 of ten; 1x1 kernel, so that a tap is where its offset says."""
    window = Window((1, 1), (1, 1), (0, 0), (1, 1), 1, 1)
    whole = convolution(window, 10, 4, C=1, O=1)
    moves = {3: (-0.5, True), 4: (-1.0, False), 5: (1.0, False), 6: (0.0, False)}  # row → dy, and whether row 2 or 7 is read
    whole["offset"][:] = 0
    for row, (dy, _) in moves.items():
        whole["offset"][0, 0, row] = dy
    whole["offset"][0, 0, 6, 1] = 0.25  # between rows 6 and 7
    whole["offset"][0, 0, 6, 2] = 100  # far outside of the map: zero in both
    whole["offset"][0, 0, 6, 3] = np.inf
    cut, masked = cut_out(whole, window, Cut((3, 4), (0, 4)))
    lost = cut["mask"][0, 0] == 0
    assert cut["input"].shape == (1, 1, 4, 4) and masked == lost.sum() == 5
    assert lost.tolist() == [[True] * 4, [False] * 4, [False] * 4, [False, True, False, False]]


def test_the_whole_map_is_left_as_it_is():
    window = Window((3, 3), (2, 2), (1, 1), (1, 1), 1, 1)
    whole = convolution(window, 8, 9)
    cut, masked = cut_out(whole, window, Cut((0, 4), (0, 5)))
    assert masked == 0
    for name, array in whole.items():
        np.testing.assert_array_equal(cut[name], array)


@pytest.mark.parametrize("name", ["dl", "ascend"])
def test_a_sampled_convolution(name):
    contract = dialects.load(name).dcn
    assert contract is not None
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), 2, 2)
    whole = convolution(window, 16, 24)
    node, ports = node_of(contract, "dcn", whole, window)
    letters = fitted(node, case_bytes(node, one_image(node)) // 3)
    assert letters["Ho"] < 16 or letters["Wo"] < 24
    sample = sampled(node, ports, letters, seed=3)
    quantities = raise_arrays(contract, sample.ports)
    facts = sample.facts
    rows, columns = (slice(facts[side]["from"], facts[side]["from"] + facts[side]["taken"]) for side in ("rows", "columns"))
    assert quantities["mask"].shape[2:] == (letters["Ho"], letters["Wo"]) == (facts["rows"]["taken"], facts["columns"]["taken"])
    assert facts["image"] == image_of(node, 3) and facts["images"] == 6 and sample.queries is None
    outputs = kept_outputs(8, letters["O"], 2)
    alike = whole["mask"].copy()
    alike[:, :, rows, columns][quantities["mask"] == 0] = 0
    want = golden(case_of("dcn", {**whole, "mask": alike}, window))[:, outputs, rows, columns]
    np.testing.assert_allclose(golden(case_of("dcn", quantities, window)), want, rtol=0, atol=1e-12 * np.abs(want).max())
    assert sorted(sample.ports) == sorted(ports) and all(sample.ports[port].dtype == np.float32 for port in ports)


def test_output_channels_are_the_first_of_each_group():
    assert kept_outputs(8, 4, 2).tolist() == [0, 1, 4, 5] and kept_outputs(6, 6, 3).tolist() == list(range(6))


@pytest.mark.parametrize("share", [1, 2, 5, 12])
def test_a_sampled_attention_is_a_part_of_the_whole(share):
    assert DL.msda is not None
    whole = attention()
    node, ports = node_of(DL.msda, "msda", whole)
    letters = fitted(node, case_bytes(node, one_image(node)) // share)
    sample = sampled(node, ports, letters, seed=1)
    assert sample.queries is not None and len(sample.queries) == letters["Q"] and (np.diff(sample.queries) > 0).all()
    right = golden(case_of("msda", raise_arrays(DL.msda, ports))).reshape(1, 300, 4, 16)
    got = golden(case_of("msda", raise_arrays(DL.msda, sample.ports)))
    want = right[:, sample.queries, : letters["M"], : letters["D"]].reshape(got.shape)
    np.testing.assert_array_equal(got, want)
    embed = letters["M"] * letters["D"]
    assert (int(sample.ports["bs"]), int(sample.ports["num_queries"]), int(sample.ports["num_embed"])) == (1, letters["Q"], embed)
    assert sample.facts["queries"] == {"taken": letters["Q"], "of": 300, "numbers": "sampled_queries.npy"}
    assert sample.facts["heads"]["taken"] == letters["M"] and sample.facts["head_channels"]["taken"] == letters["D"]


def test_queries_are_taken_for_where_they_look():
    places = np.full((100, 1, 1, 1, 2), 0.3)
    places[7], places[8], places[50], places[51] = 9.0, -4.0, 0.5, 0.51
    places[20] = np.inf
    chosen = chosen_queries(places, 12, np.random.default_rng(0))
    assert len(chosen) == 12 == len(set(chosen.tolist()))
    assert {7, 8, 20, 50, 51} <= set(chosen.tolist())


@few
@given(st.integers(1, 30), st.data())
def test_any_number_of_queries(Q, data):
    count = data.draw(st.integers(1, Q))
    places = np.random.default_rng(Q).random((Q, 2, 1, 2, 2)) * 2 - 0.5
    chosen = chosen_queries(places, count, np.random.default_rng(0))
    assert len(chosen) == count and (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < Q


@few
@given(st.integers(8, 400), st.integers(1, 6), st.integers(1, 24), st.integers(1, 20))
def test_attentions_fit_their_room_wherever_the_smallest_does(Q, M, D, share):
    assert DL.msda is not None
    node, _ = node_of(DL.msda, "msda", attention(Q=Q, M=M, D=D))
    least, most = case_bytes(node, fitted(node, 0)), case_bytes(node, one_image(node))
    room = max(least, most // share)
    letters = fitted(node, room)
    assert case_bytes(node, letters) <= room
    assert (letters == one_image(node)) == (room >= most)
    assert 1 <= letters["Q"] <= Q and 1 <= letters["M"] <= M and 1 <= letters["D"] <= D and letters["S"] == 240


@few
@given(windows, st.integers(6, 40), st.integers(6, 40), st.integers(1, 20))
def test_convolutions_fit_their_room_wherever_the_smallest_does(window, H, W, share):
    assert DL.dcn is not None
    whole = convolution(window, H, W)
    node, ports = node_of(DL.dcn, "dcn", whole, window)
    least, most = case_bytes(node, fitted(node, 0)), case_bytes(node, one_image(node))
    room = max(least, most // share)
    letters = fitted(node, room)
    assert case_bytes(node, letters) <= room and letters["O"] % window.groups == 0 and letters["O"] >= window.groups
    assert (letters == one_image(node)) == (room >= most)
    quantities = raise_arrays(DL.dcn, sampled(node, ports, letters, seed=0).ports)
    assert golden(case_of("dcn", quantities, window)).shape == (1, letters["O"], letters["Ho"], letters["Wo"])
    assert all(quantities["input"].shape[2 + axis] <= letters[side] for axis, side in enumerate("HW"))


def test_limits_of_the_target_are_kept_while_shrinking():
    assert DL.msda is not None
    limits = (Limit("head_width", multiple_of=8), Limit("queries", at_least=64))
    contract = replace(DL.msda, limits=limits)
    node, _ = node_of(contract, "msda", attention())
    letters = fitted(node, 0)
    assert letters["D"] == 8 and letters["Q"] == 75 and letters["M"] == 1
    unmet, _ = node_of(replace(DL.msda, limits=(Limit("heads", multiple_of=7),)), "msda", attention())
    assert fitted(unmet, 0)["M"] == 1  # what the network's own node does not keep says nothing


@few
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 500)), min_size=1, max_size=8), st.integers(0, 1000))
def test_room_is_shared_fairly(pairs, extra):
    least, most = [low for low, _ in pairs], [low + more for low, more in pairs]
    total = sum(least) + extra
    shares = shared_out(least, most, total)
    assert all(low <= share <= high for low, share, high in zip(least, shares, most, strict=True))
    assert sum(shares) <= total and (sum(shares) > total - len(pairs) or shares == most)
    beyond = [share - low for low, share, high in zip(least, shares, most, strict=True) if share < high]
    assert not beyond or max(beyond) - min(beyond) <= len(pairs)  # who could use more has as much more as anybody
