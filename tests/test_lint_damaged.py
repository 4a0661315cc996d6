"""Lint of files that are damaged or odd beyond any contract: findings, or one line for the user, and never a traceback."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, TensorProto, helper

from linting import CUSTOM, clean, findings, node, run_lint, saved
from occport.errors import UserError
from occport.graph import dialect as dialects
from occport.graph.lint.facts import Facts, dtype_name
from occport.graph.lint.finding import Finding
from occport.graph.lint.whole import lint

TEXTS = ("", "x", "conv_out", "msda", "DL", "é", "Loop", "Conv")
NUMBERS, BYTES = (0, 1, 2, -1, 7, 99, 2**31 - 1), (b"", b"\xff\xfe", b"abc" * 7)


def messages(message: Any) -> Iterator[Any]:
    """A protobuf message and all those inside it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from messages(inner)


def mutate(model: onnx.ModelProto, dice: random.Random) -> None:
    """One field of one message somewhere is lost, doubled, added or replaced."""
    target = dice.choice(list(messages(model)))
    field = dice.choice(list(target.DESCRIPTOR.fields))
    values = {field.TYPE_STRING: TEXTS, field.TYPE_BYTES: BYTES}.get(field.type, NUMBERS)
    if field.type == field.TYPE_ENUM:
        values = tuple(field.enum_type.values_by_number)
    if field.is_repeated:
        held = getattr(target, field.name)
        if len(held) and dice.random() < 0.5:
            del held[dice.randrange(len(held))]
        elif len(held):
            held.extend([dice.choice(list(held))])
        elif field.type == field.TYPE_MESSAGE:
            held.add()
        else:
            held.append(dice.choice(values) if field.type in (field.TYPE_STRING, field.TYPE_BYTES) else 1)
    elif field.type != field.TYPE_MESSAGE:
        small = field.type in (field.TYPE_UINT32, field.TYPE_UINT64)
        setattr(target, field.name, 3 if small else dice.choice(values))
    elif target.HasField(field.name):
        target.ClearField(field.name)
    else:
        getattr(target, field.name).SetInParent()


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(CUSTOM), st.integers(0, 2**32), st.integers(1, 5))
def test_a_damaged_file_brings_findings_or_one_line(name, seed, count):
    dialect, dice = dialects.load(name), random.Random(seed)
    model = clean(dialect)
    for _ in range(count):
        mutate(model, dice)
    try:
        told = lint(onnx.ModelProto.FromString(model.SerializeToString()), dialect, folder=Path("nowhere"))
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert all(isinstance(each, Finding) and "\n" not in str(each) and str(each) for each in told)


def test_an_attribute_that_refers_to_a_function():
    def edit(model):
        attribute = next(each for each in node(model, "conv").attribute if each.name == "stride")
        attribute.CopyFrom(AttributeProto(name="stride", type=AttributeProto.INTS, ref_attr_name="strides"))

    assert [str(each) for each in findings("dl", edit)] == ["conv: attribute stride: expected ints, stride (h, w), got reference strides"]


def test_an_attribute_of_no_type():
    def edit(model):
        next(each for each in node(model, "msda").attribute).type = AttributeProto.UNDEFINED

    told = [str(each) for each in findings("dl", edit)]
    assert told[0] == "msda: attribute im2col_step: expected int 64, got undefined None"


def test_a_graph_that_readers_refuse():
    def edit(model):
        model.graph.initializer.append(TensorProto(name="odd", data_type=99))

    told = [str(each) for each in findings("tensorrt", edit)]
    assert any(line.startswith("graph: expected one that ONNX's own readers take, got ValueError: 99") for line in told), told


def test_unsound_wiring_puts_off_the_schemas():
    def edit(model):
        node(model, "conv_relu_node").input[0] = "lost"
        node(model, "msda_relu_node").op_type = "Mish"

    told = [str(each) for each in findings("dl", edit)]
    assert "schemas: expected values that hang together, got the errors above: not looked at" in told
    assert not any("Mish: expected as opset 11" in line for line in told)


def test_a_subgraph_may_read_what_stands_around_it_and_nothing_else():
    dialect = dialects.load("dl")
    for name, words in (("conv_relu", ""), ("lost", "inner: input lost: expected a graph input, an initializer or a node that makes it")):
        model = clean(dialect)
        inner = helper.make_node("Exp", [name], ["e"], "inner")
        branch = helper.make_graph([inner], "b", [], [helper.make_tensor_value_info("e", 1, [2, 12, 5, 7])])
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "flag"))
        model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], "choice", then_branch=branch, else_branch=branch))
        model.graph.output.append(helper.make_tensor_value_info("chosen", 1, [2, 12, 5, 7]))
        told = [str(each) for each in lint(model, dialect)]
        assert any(line.startswith(words) for line in told) if words else not any("inner: input" in line for line in told)


def test_a_file_without_nodes(tmp_path):
    graph = helper.make_graph([], "empty", [], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    status, out, err = run_lint(saved(model, tmp_path), "--dialect", "dl")
    assert status == 1 and err == "" and "error: custom nodes" in out


@pytest.mark.parametrize(
    ("code", "name"), [(0, "no type"), (1, "float32"), (8, "string"), (16, "bfloat16"), (99, "type 99"), (TensorProto.BOOL, "bool")]
)
def test_names_of_element_types(code, name):
    assert dtype_name(code) == name


def test_facts_of_constants_of_every_kind():
    kinds = {
        "value_int": (3, ("int64", ()), 3), "value_ints": ([1, 2], ("int64", (2,)), [1, 2]), "value_float": (0.5, ("float32", ()), 0.5),
        "value_floats": ([0.5], ("float32", (1,)), [0.5]), "value_string": ("a", ("string", ()), None),
        "value_strings": (["a", "b"], ("string", (2,)), None),
    }  # fmt: skip
    nodes = [helper.make_node("Constant", [], [name], **{name: value}) for name, (value, _, _) in kinds.items()]
    nodes.append(helper.make_node("Constant", [], ["bare"]))
    facts = Facts(helper.make_model(helper.make_graph(nodes, "g", [], [])))
    for name, (_, type_, number) in kinds.items():
        array = facts.constant(name)
        assert facts.type(name) == type_ and (None if array is None else array.tolist()) == number
        assert facts.place(name) == "constant"
    assert facts.type("bare") == ("no type", None) and facts.constant("bare") is None and facts.place("bare") == "value"
