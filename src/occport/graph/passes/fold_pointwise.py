"""A convolution and the 1x1 convolution behind it are one convolution.

    Conv(Conv(x; W, b); V, c)  =  Conv(x; V·W, V·b + c)

for a 1x1 kernel V with stride 1, no padding and no groups: it mixes channels position by position, borders included. Done where it
does not multiply more than the two together, so it is left alone where V makes many channels of few.

The neck ends in a 3x3 convolution to 512 channels that the head reads only through 1x1 ones to 128, 256 and 512: 13 % of all
products of the network at full size. The weights are joined in double precision.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from ..build import Builder
from ..lowering.site import Array, constant_array


class Kernel(NamedTuple):
    """A convolution's constants: weight (O, C/groups, k, …), bias (O)."""

    weight: Array
    bias: Array


def fold_pointwise(model: ir.Model) -> int:
    """Folds every such pair, in place. Returns how many."""
    builder = Builder(model.graph)
    return sum(_fold(builder, node) for node in list(model.graph) if node.op_type == "Conv" and not node.domain)


def _fold(builder: Builder, last: ir.Node) -> bool:
    first = _only_producer(last.inputs[0])
    if first is None or not _is_plain(last) or _group(first) != 1:
        return False
    inner, outer = _kernel(first), _kernel(last)
    if inner is None or outer is None or any(size != 1 for size in outer.weight.shape[2:]):
        return False
    mixing = outer.weight.reshape(outer.weight.shape[:2]).astype(np.float64)
    taps = inner.weight.reshape(inner.weight.shape[0], -1).astype(np.float64)
    made, middle, read = len(mixing), len(taps), taps.shape[1]
    if made * read > middle * read + made * middle:
        return False
    weight = (mixing @ taps).astype(np.float32).reshape(made, *inner.weight.shape[1:])
    bias = (mixing @ inner.bias.astype(np.float64) + outer.bias.astype(np.float64)).astype(np.float32)
    constants = [builder.constant(array, f"{last.name}_{what}") for what, array in (("weight", weight), ("bias", bias))]
    attributes = {name: attribute.value for name, attribute in first.attributes.items()}
    builder.at(last).replace(last, "", "Conv", [first.inputs[0], *constants], attributes)
    builder.graph.remove(first, safe=True)
    return True


def _only_producer(value: ir.Value | None) -> ir.Node | None:
    """The Conv that makes a value, if nobody else reads the value."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    return node if node is not None and node.op_type == "Conv" and not node.domain else None


def _is_plain(node: ir.Node) -> bool:
    """Whether a Conv has stride 1, no padding and no groups."""
    strides, pads = (node.attributes[name].as_ints() if name in node.attributes else () for name in ("strides", "pads"))
    auto = node.attributes["auto_pad"].as_string() if "auto_pad" in node.attributes else "NOTSET"
    return _group(node) == 1 and math.prod(strides) == 1 and not any(pads) and auto == "NOTSET"


def _group(node: ir.Node) -> int:
    return node.attributes["group"].as_int() if "group" in node.attributes else 1


def _kernel(node: ir.Node) -> Kernel | None:
    """The constants of a Conv; None where a run could change them, or they are not float32."""
    arrays = [constant_array(value) for value in node.inputs[1:] if value is not None]
    known = [array for array in arrays if array is not None and array.dtype == np.float32]
    if len(known) != len(arrays):
        return None
    return Kernel(known[0], known[1] if len(known) > 1 else np.zeros(len(known[0]), np.float32))
