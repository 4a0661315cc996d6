"""A bug planted into one node is found at that very node, with its place; rounding alone is not a bug."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from exporting import run_cli
from occport.bringup.diff.blame import judge
from occport.bringup.diff.compare import Request, compare_dumps
from occport.bringup.diff.noise import DRAW, with_noise
from occport.bringup.diff.rounding import FLOAT32, Rounding
from occport.bringup.dumps.index import read_index
from occport.bringup.dumps.marks import custom_nodes_of
from occport.export.network_file import feeds_of, read_network
from occport.progress import NullProgress
from occport.session import open_session
from planting import changed_channel, copied, dumps, golden_index, half_pixel, insert_before, node_of, rounded_weights, swapped_rows

DTYPES = ["float32", "float16", "bfloat16", "int8"]


@pytest.fixture(scope="module")
def file(runtime_export):
    return read_network(runtime_export.model, None)


@pytest.fixture(scope="module")
def indexes(file):
    return {mark: golden_index(file, (mark,)) for mark in ("all", "custom")}


def judgement(file, other, index, dtype="float32", names=None):
    """What their dumps of `names` come to."""
    kept = {entry.name for entry in index.tensors} if names is None else {*names, *index.slots}
    theirs = dumps(other, kept, dtype)
    stored = {name: dtype if array.dtype.kind == "f" else array.dtype.name for name, array in theirs.items()}
    return judge(file, index, feeds_of(file, None, None)[0].__getitem__, theirs.get, stored, NullProgress())


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_alone_is_not_a_bug(file, indexes, dtype):
    other = copied(file)
    rounded_weights(other, dtype)
    found = judgement(file, other, indexes["all"], dtype)
    assert found.blamed == (), found.blamed[0].words
    assert len(found.ratios) > 400 and max(found.ratios.values()) <= 1


@pytest.mark.parametrize("dtype", DTYPES[:2])
@pytest.mark.parametrize(("place", "bug"), [(0, "half_pixel_right"), (-1, "half_pixel_missing")])
def test_half_a_pixel_in_a_custom_node(file, indexes, place, bug, dtype):
    other = copied(file)
    if dtype != "float32":
        rounded_weights(other, dtype)
    node = custom_nodes_of(other)[place]
    half_pixel(other, node)
    found = judgement(file, other, indexes["custom"], dtype)
    assert [one.nodes for one in found.blamed] == [(node.name,)], [one.words for one in found.blamed]
    assert found.blamed[0].stage == ("level 2" if place else "backbone")
    if dtype == "float32":
        assert bug in found.blamed[0].words


@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_one_channel_of_a_convolution(file, indexes, dtype):
    other = copied(file)
    if dtype != "float32":
        rounded_weights(other, dtype)
    node = node_of(other, "img_neck_lateral", "Conv")
    changed_channel(other, node, 5, 1.1)
    found = judgement(file, other, indexes["all"], dtype, None if dtype == "float16" else [node.input[0], *node.output])
    assert [one.nodes for one in found.blamed] == [(node.name,)]
    assert found.blamed[0].place == "channel 5" and found.blamed[0].stage == "neck"


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_two_rows_of_one_camera_exchanged(file, indexes, dtype):
    other = copied(file)
    if dtype != "float32":
        rounded_weights(other, dtype)
    node = node_of(other, "transformer_0_encoder_layers_0_attentions_0_Gather", "Gather")
    slots = next(one for one in dumps(file, [indexes["all"].slots[0]]).values())  # (A, K)
    filled = np.flatnonzero(slots[3])[:2]
    names = [*node.input, *node.output]
    swapped_rows(other, node, *(3 * slots.shape[1] + filled))
    found = judgement(file, other, indexes["all"], dtype, names)
    assert [one.nodes for one in found.blamed] == [(node.name,)], found.judged
    assert f"voxel {slots[3, filled[0]]}" in found.blamed[0].words and "voxel X " in found.blamed[0].words


@pytest.mark.parametrize("blamed", [False, True])
def test_a_voxel_on_the_border_moves_every_later_slot_and_blames_nobody(file, indexes, blamed):
    """The border is put upon a voxel first; theirs sees it, ours does not. A border that is far off is blamed, alone."""
    distance = dumps(file, ["projection_ReduceMin"])["projection_ReduceMin"]
    nearest = float(distance[distance > 0].min())
    step = 1.01 * (nearest - float(distance[distance <= 0].max())) if blamed else 0.0
    ours, other = copied(file), copied(file)
    for one, moved in ((ours, -nearest * (1 + 1e-6)), (other, -nearest * (1 - 1e-6) + step)):
        insert_before(one, node_of(one, "projection_Greater", "Greater"), 0, "Add", [np.array(moved, np.float32)])
    found = judgement(ours, other, indexes["custom"])
    if blamed:
        assert {one.nodes for one in found.blamed} == {("projection_Greater",)}, found.judged
        assert "farther from the border than rounding" in found.blamed[0].words
    else:
        assert found.blamed == (), found.blamed[0].words
        assert "voxels are seen by a camera in only one of both, as near to the border" in found.judged


def test_what_is_not_dumped_is_named_as_a_whole_with_what_to_dump(file, indexes):
    other = copied(file)
    node = node_of(other, "img_neck_fpn", "Conv")
    for channel in range(8):
        changed_channel(other, node, channel, 3.0)
    found = judgement(file, other, indexes["custom"])
    first = found.blamed[0]
    assert len(first.nodes) > 1 and node.name in first.nodes and len(first.op_types) == len(first.nodes)
    assert "to narrow it down" in first.words


def test_numbers_that_are_none_and_damaged_indices_are_told(file, indexes):
    theirs = dumps(file, {entry.name for entry in indexes["custom"].tensors})
    node = custom_nodes_of(file)[0]
    theirs[node.output[0]] = theirs[node.output[0]].copy()
    theirs[node.output[0]][1, 2, 0, 0] = np.nan
    stored = {name: array.dtype.name for name, array in theirs.items()}
    found = judge(file, indexes["custom"], feeds_of(file, None, None)[0].__getitem__, theirs.get, stored, NullProgress())
    assert found.blamed[0].nodes == (node.name,) and found.blamed[0].ratio == np.inf
    assert "1 of" in found.blamed[0].place and "camera 1 (B), channel 2" in found.blamed[0].place
    theirs[indexes["custom"].slots[0]] = theirs[indexes["custom"].slots[0]] + 10**6
    again = judge(file, indexes["custom"], feeds_of(file, None, None)[0].__getitem__, theirs.get, stored, NullProgress())
    assert "not judged" in again.judged


def judged_arrays(file, index, theirs):
    stored = {name: array.dtype.name for name, array in theirs.items()}
    return judge(file, index, feeds_of(file, None, None)[0].__getitem__, theirs.get, stored, NullProgress())


def test_two_slots_exchanged_in_a_table_are_not_rounding(file, indexes):
    """Whole numbers are exact: noise on them would make any table look right."""
    index = indexes["custom"]
    theirs = dumps(file, {entry.name for entry in index.tensors})
    table = theirs[index.slots[0]].copy()
    table[2, [3, 4]] = table[2, [4, 3]]
    theirs[index.slots[0]] = table
    found = judged_arrays(file, index, theirs)
    assert found.blamed[0].tensor == index.slots[0] and found.ratios[index.slots[0]] == np.inf


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_labels_that_no_rounding_moves(file, indexes, dtype):
    """Two labels of many are clearly others; those that hang on a rounding are not told of."""
    index = indexes["all"]
    logits = next(name for name in (entry.name for entry in index.tensors) if name.startswith("logits_scale0"))
    theirs = dumps(file, {logits, "labels_scale0", "logits_scale3_zyx", "labels_scale3", *file.input_names}, dtype)
    theirs = {name: array for name, array in theirs.items() if name in {entry.name for entry in index.tensors}}
    assert judged_arrays(file, index, theirs).blamed == ()
    labels = theirs["labels_scale0"].copy()
    labels.reshape(-1)[[0, 4]] = (labels.reshape(-1)[[0, 4]] + 5) % 17
    theirs["labels_scale0"] = labels
    found = judged_arrays(file, index, theirs)
    assert [one.tensor for one in found.blamed] == ["labels_scale0"]


def test_a_voxel_beyond_the_border_is_not_rounding(file, indexes):
    """The nearest that is not seen and no rounding moves in: by far less than half a pixel."""
    index = indexes["custom"]
    found = dumps(file, ["projection_ReduceMin", index.slots[0]])
    distance, table = found["projection_ReduceMin"].reshape(-1, found["projection_ReduceMin"].shape[-1]), found[index.slots[0]].copy()
    count = int(np.prod(index.grids[0]))
    beyond = np.where(distance[:, :count] < -1e-5, distance[:, :count], -np.inf)
    camera, voxel = np.unravel_index(int(beyond.argmax()), beyond.shape)
    filled = table[camera][table[camera] > 0]
    row = np.sort(np.append(filled, voxel))
    table[camera, : len(row)] = row
    theirs = {**dumps(file, file.input_names), index.slots[0]: table}
    judged = judged_arrays(file, index, theirs)
    assert {one.nodes for one in judged.blamed} == {("projection_Greater",)}, judged.judged
    assert f"camera {camera}" in judged.blamed[0].words and "farther from the border" in judged.blamed[0].words


def test_rows_shifted_without_a_table_are_not_the_attentions_fault(runtime_export, file, tmp_path):
    """One voxel more, and the tables not dumped: the rows tell the shift, the border tells the voxel."""
    folder = tmp_path / "golden"
    assert run_cli("golden", runtime_export.model, "-o", folder).status == 0
    index = read_index(folder)
    distance = dumps(file, ["projection_ReduceMin"])["projection_ReduceMin"]
    count = int(np.prod(index.grids[0]))
    level = distance.reshape(-1, distance.shape[-1])[:, :count]
    seen_later = np.cumsum((level > 0)[:, ::-1], axis=1)[:, ::-1] > 3
    camera, voxel = np.unravel_index(int(np.where((level <= 0) & seen_later, level, -np.inf).argmax()), level.shape)
    moved = np.zeros_like(distance)
    moved.reshape(-1, distance.shape[-1])[camera, voxel] = 1e-6 - level[camera, voxel]
    other = copied(file)
    insert_before(other, node_of(other, "projection_Greater", "Greater"), 0, "Add", [moved])
    theirs = dumps(other, {entry.name for entry in index.tensors} - set(index.slots))
    (tmp_path / "theirs").mkdir()
    for name, array in theirs.items():
        np.save(tmp_path / "theirs" / index.entry(name).file, array)
    result = compare_dumps(Request(folder, tmp_path / "theirs"), NullProgress())
    assert any("rows are shifted against ours, 1 slots more or less" in remark for remark in result.remarks), result.remarks
    assert {one.nodes for one in result.blamed} == {("projection_Greater",)}, [one.words for one in result.blamed]
    assert f"camera {camera}" in result.blamed[0].words


def test_coarser_noise_of_whole_steps_stays_one_of_steps():
    """Four times the step, and not four times the relative error, whatever the size of a number."""
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [tensor("x", 1, [3])], [tensor("y", 1, [3])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    fine = Rounding("int8", 8, 0.1)
    for rounding, step in ((fine, 0.1), (fine.coarser(2), 0.4)):
        session = open_session(with_noise(model, {"y": rounding}, FLOAT32))
        got = session.run({"x": np.array([0.03, 5.17, -9.91], np.float32), DRAW: np.array(1.25, np.float32)})["y"]
        np.testing.assert_allclose(got / step, np.round(got / step), atol=1e-4)
