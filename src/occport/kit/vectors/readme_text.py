"""The README of a folder of vectors, for somebody who writes a kernel and has no occport."""

from __future__ import annotations

from ...graph.contract import Contract
from ...graph.dialect import Dialect
from ...graph.forms import PORT_FORMS

_TEXT = """\
Conformance vectors of two operators, in the form of {title}
{rule}

Each folder is one case: one call of one operator, with its inputs and the right output.

  CASE/model.onnx          the one node, nothing else; weights are inputs of the model, too
  CASE/test_data_set_0/    input_0.pb, input_1.pb … in the order of the model's inputs, and output_0.pb (ONNX TensorProto;
                           the layout of ONNX's own backend tests)
  CASE/npy/                each input by its name, output.npy (float32), golden.npy (float64), for numpy
  CASE/raw/                the same as bare numbers, little-endian, last axis fastest (C order)
  CASE/case.json           names, forms, dtypes, shapes, attributes, tolerances, and where the numbers are from
  CASE/sampled_queries.npy of cases from a network: which of its queries these are
  index.json               all cases, the dialect's contracts, and the edge cases that it cannot say ("left_out")

Inputs that case.json gives with "graph_input": false are constants inside the model: they are in npy/ and raw/ only.
The golden output is computed in float64 from the very numbers in the files; output is golden, rounded to float32.

What is computed
----------------
Attention, {msda}. For each image a, query q and head m: the sum over levels l and points p of
weight * bilinear(value of image a, level l, head m; x, y), with x = u*w - 0.5 and y = v*h - 0.5 for the location (u, v) in [0, 1]
and a map of h rows and w columns. Locations hold (x, y), spatial_shapes hold (h, w).
  Where a node has reference points, offsets and logits: location = reference + offset / (w, h); weights = softmax of the logits over
  all levels and points together.
Deformable convolution, {dcn}. Tap k = (i, j) of output (r, c) reads
y = r*stride - padding + i*dilation + dy, x = c*stride - padding + j*dilation + dx, bilinearly, times its mask; then the weighted sum
over channels and taps, plus bias.
In both, each of the four neighbours that is outside the map counts as zero, and so does a place that is infinite or not a number.

Letters: A images, S = sum of h*w over levels, M heads, D channels of a head, Q queries, L levels, P points, R reference points that
points share in turn; C input and O output channels, G deform groups, T = kh*kw taps, H x W input, Ho x Wo output map.

{nodes}
Cases
-----
*_edge_*   small, made up: borders, far and infinite places, strides, groups … Their numbers have at most 8 significant bits, so that
           float16 and bfloat16 hold them exactly (apart from those that case.json says are huge).
{others}
How to grade
------------
Right is: |yours - golden| <= atol + rtol*|golden| for each element, with atol and rtol of case.json for the dtype that your kernel
computes in. They are derived from the arithmetic: every right kernel meets them, whatever order it adds in.
Round the inputs to your dtype first. With occport:
  occport grade FOLDER --outputs YOURS [--dtype float32|float16|bfloat16]
where YOURS holds CASE.npy, CASE.pb or CASE.bin for each case. It names the bug, if it is one that is known.
"""
_OTHERS = """\
others     from a network that has run on {source}: one image, and of it as much as the size of this folder allowed.
           An attention's queries, heads and channels are a part of the network's. A convolution's window of the map takes offsets and
           pixels as they are; taps that would read a pixel of the map outside the window have the mask 0.
"""


def readme_text(dialect: Dialect, source: str) -> str:
    """The README's text. `source`: what the network has run on, in words; "" where there are no cases of a network."""
    assert dialect.msda is not None and dialect.dcn is not None
    title = f"{dialect.title} ({dialect.name})"
    nodes = "\n".join(_ports(contract) for contract in (dialect.msda, dialect.dcn))
    others = _OTHERS.format(source=source) if source else ""
    rule = "=" * len(f"Conformance vectors of two operators, in the form of {title}")
    return _TEXT.format(title=title, rule=rule, msda=dialect.msda.title, dcn=dialect.dcn.title, nodes=nodes, others=others)


def _ports(contract: Contract) -> str:
    lines = [contract.title]
    for number, port in enumerate(contract.inputs):
        form = PORT_FORMS[port.form]
        optional = ", may be absent" if port.optional else ""
        lines.append(f"  {number} {port.name:<26} {port.dtype:<8} ({', '.join(form.shape.split())}): {form.what}{optional}")
    output = PORT_FORMS[contract.output.form]
    lines.append(f"  output {'':<21} {'float32':<8} ({', '.join(output.shape.split())}): {output.what}")
    lines += [f"  attribute {one.name}: {one.form or one.default}" for one in contract.attributes]
    return "\n".join(lines) + "\n"
