"""Part of a model as one of its own: the same numbers, the same weights, and every way that it can be refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from occport.errors import ModelFileError
from occport.export.network_file import feeds_of, read_network
from occport.graph.runnable import make_runnable
from occport.graph.submodel import needed, submodel, value_types
from occport.session import open_session

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
toy (float[2,3] x, float[2,3] y) => (float[2,3] out, float[2,3] side)
<float[3] w = {1, 2, 3}, float[2,3] a, float[2,3] b>
{
   a = Add(x, w)
   b = Mul(a, y)
   side = Neg(a)
   out = Sub(b, w)
}
"""


@pytest.fixture(scope="module")
def toy() -> onnx.ModelProto:
    return onnx.parser.parse_model(TEXT)


def names(values) -> list[str]:
    return [value.name for value in values]


def test_what_lies_between(toy):
    part = submodel(toy, ["a", "y", "x"], ["out"], "part")
    assert names(part.graph.input) == ["a", "y"] and names(part.graph.output) == ["out"]
    assert [node.op_type for node in part.graph.node] == ["Mul", "Sub"]
    assert names(part.graph.initializer) == ["w"] and names(part.graph.value_info) == ["b"]
    onnx.checker.check_model(part, full_check=True)
    a, y = np.random.default_rng(0).normal(size=(2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(open_session(part).run({"a": a, "y": y})["out"], a * y - np.float32([1, 2, 3]))


def test_several_outputs_in_their_order(toy):
    part = submodel(toy, ["x", "y"], ["side", "a", "out"], "part")
    assert names(part.graph.output) == ["side", "a", "out"] and names(part.graph.input) == ["x", "y"]


def test_an_output_that_is_an_input_passes_through(toy):
    part = submodel(toy, ["a"], ["a", "side"], "part")
    assert names(part.graph.input) == ["a"] and [node.op_type for node in part.graph.node] == ["Neg"]


def test_what_the_inputs_do_not_give_is_named(toy):
    with pytest.raises(ModelFileError, match="part p: expected tensors from which out follows, got a; begin at y, too"):
        submodel(toy, ["a"], ["out"], "p")


@pytest.mark.parametrize("name, near", [("sid", "did you mean 'side'"), ("w", "an unknown name"), ("zzzz", "--list")])
def test_unknown_tensors(toy, name, near):
    with pytest.raises(ModelFileError, match=f"tensor {name!r}: expected one of the 6 typed tensors.*{near}"):
        submodel(toy, ["x"], [name], "p")


def test_needed_stops_at_the_inputs(toy):
    nodes, read = needed(toy.graph, ["a"], ["out", "side"])
    assert [node.output[0] for node in nodes] == ["b", "side", "out"] and read == {"a", "b", "y", "w"}


def test_two_halves_of_a_network_make_the_whole(runtime_export):
    file = read_network(runtime_export.model, None)
    feeds, _ = feeds_of(file, None, None)
    outputs = names(file.model.graph.output)
    middle = len(file.model.graph.node) // 2
    made = {name for node in file.model.graph.node[:middle] for name in node.output} | set(feeds)
    read = {name for node in file.model.graph.node[middle:] for name in node.input}
    cut = [name for name in value_types(file.model.graph) if name in made and (name in read or name in outputs)]
    values = feeds
    for inputs, ends in ((list(feeds), cut), (cut, outputs)):
        part = submodel(file.model, inputs, ends, "half")
        make_runnable(part, file.dialect)
        values = open_session(part, weights_folder=file.folder).run({name: values[name] for name in names(part.graph.input)})
    whole = onnx.ModelProto()
    whole.CopyFrom(file.model)
    make_runnable(whole, file.dialect)
    for name, want in open_session(whole, weights_folder=file.folder).run(feeds).items():
        np.testing.assert_array_equal(values[name], want)
