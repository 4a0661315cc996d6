"""Reshapes in a row: one is left, with the same values; what is read elsewhere or copies sizes stays."""

import numpy as np
import onnx_ir as ir
import pytest

from occport.graph.passes.merge_reshapes import merge_reshapes
from occport.session import open_session


def chain(*shapes: list[int], read_middle: bool = False) -> ir.Model:
    """x (2, 3, 4) through one Reshape for each shape."""
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3, 4]))
    nodes, initializers, value = [], [], x
    for i, shape in enumerate(shapes):
        sizes = ir.Value(name=f"s{i}", const_value=ir.tensor(np.array(shape, np.int64), name=f"s{i}"))
        node = ir.Node("", "Reshape", [value, sizes], name=f"reshape{i}")
        node.outputs[0].name, node.outputs[0].type = f"y{i}", x.type
        nodes.append(node)
        initializers.append(sizes)
        value = node.outputs[0]
    outputs = [value, nodes[0].outputs[0]] if read_middle else [value]
    graph = ir.Graph([x], outputs, nodes=nodes, initializers=initializers, opset_imports={"": 17}, name="chain")
    return ir.Model(graph, ir_version=8)


def run(model: ir.Model) -> list[np.ndarray]:
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    return list(open_session(ir.to_proto(model)).run({"x": x}).values())


def test_three_in_a_row_become_one_with_the_same_values():
    model = chain([6, 4], [4, 6], [-1, 3])
    want = run(model)[0]
    assert merge_reshapes(model) == 2
    assert [node.name for node in model.graph] == ["reshape2"]
    np.testing.assert_array_equal(run(model)[0], want)
    assert want.shape == (8, 3)


def test_a_middle_value_that_is_an_output_stays():
    model = chain([6, 4], [4, 6], read_middle=True)
    want = run(model)
    assert merge_reshapes(model) == 0
    for got, expected in zip(run(model), want, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("target", [[0, 2, 2], [0, -1]])
def test_a_target_that_copies_a_size_is_left_alone(target):
    model = chain([6, 4], target)
    want = run(model)[0]
    assert merge_reshapes(model) == 0
    np.testing.assert_array_equal(run(model)[0], want)
