"""Where a file is cut: into the stages of the network, or between tensors of any file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from occport.bringup.split.chain import Link, Runner, differences, watched_floats
from occport.bringup.split.model import part_model
from occport.bringup.split.parts import BETWEEN, chosen, part_between, stage_parts
from occport.errors import ModelFileError, UserError
from occport.export.network_file import feeds_of, read_network

EIGHT = ["tables", "backbone", "neck", "level_0", "level_1", "level_2", "decoder", "heads"]


def opened(export):
    return read_network(export.model, None, standard=True)


def small_file(tmp_path: Path, names: dict[str, str] | None = None):
    """x → a → b → c → d and b + d → y; also a → z; w (a Constant) is read by a and c. `names`: output → name of its node."""
    types = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "abcdwxyz"]
    by_name = {info.name: info for info in types}
    weight = numpy_helper.from_array(np.array([2.0, 3.0], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Mul", ["x", "w"], ["a"]), helper.make_node("Neg", ["a"], ["b"]), helper.make_node("Mul", ["b", "w"], ["c"]),
        helper.make_node("Abs", ["c"], ["d"]), helper.make_node("Add", ["b", "d"], ["y"]), helper.make_node("Neg", ["a"], ["z"]),
    ]  # fmt: skip
    for node in nodes:
        node.name = (names or {}).get(node.output[0], node.output[0])
    graph = helper.make_graph(nodes, "small", [by_name["x"]], [by_name["y"], by_name["z"]], value_info=[by_name[name] for name in "abcdw"])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "small.onnx")
    return read_network(tmp_path / "small.onnx", None, standard=True)


def refused(file, begin: list[str], end: list[str]) -> str:
    with pytest.raises(ModelFileError) as caught:
        part_between(file, begin, end)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("export", "names"),
    [
        ("runtime_export", EIGHT), ("standard_export", EIGHT), ("functions_export", EIGHT), ("fixed_export", EIGHT[1:]),
        ("tables_export", EIGHT[1:]),
    ],
)  # fmt: skip
def test_stages_are_a_partition_in_an_order_that_runs(export, names, request):
    file = opened(request.getfixturevalue(export))
    parts = stage_parts(file)
    assert [part.name for part in parts] == names
    there, follows = set(file.input_names), live(file)
    made = []
    for part in parts:
        assert set(part.inputs) <= there and not part.others
        there |= set(part.outputs)
        model = part_model(file, part)
        made += [node.name for node in model.graph.node if set(node.output) & follows]
        assert [info.name for info in model.graph.input] == list(part.inputs)
        assert [info.name for info in model.graph.output] == list(part.outputs)
        assert part.nodes == sum(bool(set(node.output) & follows) for node in model.graph.node)
    assert {info.name for info in file.model.graph.output} <= there
    assert sorted(made) == sorted(node.name for node in file.model.graph.node if set(node.output) & follows)


def live(file) -> set[str]:
    """Everything that follows from the inputs."""
    found = set(file.input_names)
    for node in file.model.graph.node:  # in an order that runs
        if not found.isdisjoint(node.input):
            found |= set(node.output)
    return found - set(file.input_names)


def test_neck_and_heads_have_the_ports_that_one_expects(runtime_export):
    parts = {part.name: part for part in stage_parts(opened(runtime_export))}
    assert parts["backbone"].inputs == ("img",) and parts["tables"].inputs == ("lidar2img",)
    assert parts["neck"].inputs == parts["backbone"].outputs and len(parts["neck"].outputs) == 3
    assert [len(parts[f"level_{i}"].inputs) for i in range(3)] == [5, 5, 5]
    assert parts["heads"].inputs == parts["decoder"].outputs and len(parts["heads"].inputs) == 4
    assert parts["heads"].outputs == tuple(f"labels_scale{i}" for i in range(4))
    assert parts["tables"].outputs[-1] == "dropped" and len(parts["tables"].outputs) == 13


def test_chosen_parts_keep_their_order(runtime_export):
    parts = stage_parts(opened(runtime_export))
    assert [part.name for part in chosen(parts, ["level 1", "neck"])] == ["neck", "level_1"]
    assert chosen(parts, ["stages"]) == parts
    with pytest.raises(ModelFileError, match=r"--parts nek: expected stages, or some of tables, .*; did you mean 'neck'"):
        chosen(parts, ["neck", "nek"])


def test_a_file_of_other_names_has_no_stages(tmp_path):
    with pytest.raises(ModelFileError, match=r"none of these names; cut it between tensors with --from and --to"):
        stage_parts(small_file(tmp_path))


def test_stages_that_need_each_other_are_refused(tmp_path):
    names = {"a": "img_neck_a", "b": "img_backbone_b", "c": "img_neck_c", "d": "img_neck_d", "y": "img_neck_y", "z": "img_neck_z"}
    with pytest.raises(ModelFileError, match="got backbone, neck that need each other"):
        stage_parts(small_file(tmp_path, names))


def test_a_part_by_its_ends_and_what_is_around_it(tmp_path):
    file = small_file(tmp_path)
    before, part, after = part_between(file, ["b"], ["d"])
    assert (before.inputs, before.outputs) == (("x",), ("b", "z"))
    assert (part.name, part.inputs, part.outputs, part.nodes) == (BETWEEN, ("b",), ("d",), 2)
    assert (after.inputs, after.outputs) == (("b", "d"), ("y",))
    assert [node.op_type for node in part_model(file, part).graph.node] == ["Constant", "Mul", "Abs"]


def test_what_is_read_from_inside_is_no_port(tmp_path):
    part, after = part_between(small_file(tmp_path), [], ["d"])
    assert (part.inputs, part.outputs, part.others) == (("x",), ("d",), ("a", "b"))
    assert after.inputs == ("b", "d", "a")


def test_without_an_end_it_goes_to_the_outputs_that_follow(tmp_path):
    before, part = part_between(small_file(tmp_path), ["b"], [])
    assert part.outputs == ("y",) and before.outputs == ("b", "z")


def test_ends_that_do_not_fit_are_refused(tmp_path):
    file = small_file(tmp_path)
    assert refused(file, ["bb"], ["y"]).startswith("--from bb: expected one of 7 tensors that follow from the inputs, got none of them")
    assert refused(file, [], ["w"]).startswith("--to w: ")  # a constant
    assert refused(file, ["b"], ["x"]) == "--to x: expected a tensor behind the beginning, got where it begins; name a later one"
    assert refused(file, ["b"], ["b"]).startswith("--to b: ")
    assert refused(file, ["d"], ["y"]) == "--to y: expected to follow from d, got b needed, too; begin at it, too, or earlier"
    assert [part.name for part in part_between(file, ["d", "b"], ["y"])] == ["before", BETWEEN]
    assert refused(file, ["d"], ["b"]) == "--to b: expected to follow from d, got one that lies before it; exchange --from and --to"
    assert refused(file, ["d"], ["z"]) == "--to z: expected to follow from d, got one that does not; leave it out"
    assert refused(file, ["y"], []).startswith("--from y: expected a tensor that an output follows from, got nothing behind it")
    assert refused(file, ["b", "z"], ["d"]).startswith("--from z: expected a tensor that d is made from, got one that nothing")
    assert refused(file, ["a", "d"], ["y"]).startswith("--from d: expected tensors that do not follow from each other")


def test_a_cut_beside_a_residual_names_the_other_summand(runtime_export):
    file = opened(runtime_export)
    add = next(node for node in file.model.graph.node if node.name == "img_backbone_layer1_0_Add")
    line = refused(file, ["img_backbone_layer1_0_bn2_Conv"], [add.output[0]])
    assert f"got {add.input[1]} needed, too; begin at it, too" in line
    parts = part_between(file, ["img_backbone_layer1_0_bn2_Conv", add.input[1]], [add.output[0]])
    assert next(part for part in parts if part.name == BETWEEN).inputs == ("img_backbone_layer1_0_bn2_Conv", add.input[1])


def test_outputs_that_are_left_out_are_no_ports(tmp_path):
    """The first output of an LSTM is not there, nor are some of its inputs: "" goes from no part to another."""
    port, weight = helper.make_tensor_value_info, numpy_helper.from_array
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], name="first", hidden_size=8),
        helper.make_node("Squeeze", ["h", "axis"], ["s"], name="s"),
        helper.make_node("LSTM", ["s", "w2", "r", "", "", "h"], ["", "y"], name="second", hidden_size=8),
    ]
    weights = [weight(np.ones((1, 32, size), np.float32) / 9, name) for name, size in (("w", 4), ("w2", 8), ("r", 8))]
    weights.append(weight(np.array([0]), "axis"))
    nodes[1] = helper.make_node("Tanh", ["h"], ["s"], name="s")
    types = ([port("x", 1, [5, 1, 4])], [port("y", 1, [1, 1, 8])])
    onnx.save(
        helper.make_model(helper.make_graph(nodes, "g", *types, weights[:3]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "m.onnx",
    )
    before, part = part_between(read_network(tmp_path / "m.onnx", None, standard=True), ["s", "h"], [])
    assert (before.outputs, part.inputs, part.outputs) == (("h", "s"), ("s", "h"), ("y",))


def test_numbers_behind_labels_are_watched(runtime_export):
    watched = watched_floats(opened(runtime_export).model.graph)
    assert [name for name in watched if name.startswith("logits")] == [f"logits_scale{i}_zyx" for i in range(4)]
    assert len(watched) == 5  # and what `dropped` is a sum of


def test_differences_are_those_of_bits():
    zero, nan = np.zeros(2, np.float32), np.array([np.nan, 1], np.float32)
    assert differences({"a": nan, "b": zero, "c": zero}, {"a": nan.copy(), "b": zero}) == []
    (line,) = differences({"a": -zero}, {"a": zero})
    assert line.startswith("a: ")
    (line,) = differences({"a": zero + np.float32(1e-30)}, {"a": zero})
    assert "max abs 1.0e-30" in line
    assert len(differences({"a": zero.astype(np.float64)}, {"a": zero})) == 1
    assert differences({"a": np.array(3)}, {"a": np.array(3)}) == []


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_gives_the_whole_with_every_operator_by_itself(runtime_export, data):
    file = opened(runtime_export)
    names = [name for node in file.model.graph.node for name in node.output]
    end = data.draw(st.integers(0, len(names) - 1))
    back = data.draw(st.integers(1, 12))
    try:
        parts = part_between(file, [names[max(0, end - back)]] if data.draw(st.booleans()) else [], [names[end]])
    except UserError:
        return
    feeds, watched = feeds_of(file, None, None)[0], watched_floats(file.model.graph)
    runner = Runner(file, None, optimise=False)
    got = runner.chain([Link(part, part_model(file, part), file.folder) for part in parts], feeds, watched, lambda part, values: None)
    assert differences(got, runner.whole(feeds, watched)) == []
    assert all(not set(later.outputs) & set(part.inputs) for part, later in pairwise(parts))
