"""Split: `num_outputs` (opset 18) → the sizes as an input (13) → the sizes as an attribute (11).

`num_outputs = n` of a length L gives pieces of ceil(L / n), the last one smaller; without it the older versions take equal
pieces and nothing else. The sizes are therefore always written out, as the outputs have them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .site import Site, sites, static_shape


def _sizes(site: Site) -> tuple[int, ...]:
    if site.input(1) is not None:
        return site.constant_ints(1, "sizes of the pieces")
    axis = site.int_attribute("axis", 0)
    shapes = [static_shape(output) for output in site.node.outputs]
    known = tuple(shape[axis] for shape in shapes if shape is not None)
    if len(known) != len(shapes):
        raise site.refuse(expected="static shapes of the outputs", got="unknown ones", fix="give Split its sizes as an input")
    return known


def lower_split_num_outputs(model: ir.Model) -> int:
    """Split of opset 18 → 13: no `num_outputs`, sizes as an input, in place. Returns the number of nodes changed.

    Errors: ExportError where neither sizes nor output shapes are known.
    """
    count = 0
    for site in sites(model, "Split"):
        if site.input(1) is None and "split" not in site.node.attributes:
            sizes = site.constant("split", np.asarray(_sizes(site), np.int64))
            site.set_inputs([site.required(0), sizes])
            site.node.attributes.pop("num_outputs", None)
            count += 1
    return count


def lower_split_input(model: ir.Model) -> int:
    """Split of opset 13 → 11: sizes as attribute `split`, in place. Returns the number of nodes changed.

    Errors: ExportError where the sizes are computed, or unknown.
    """
    count = 0
    for site in sites(model, "Split"):
        if "split" not in site.node.attributes:
            sizes = _sizes(site)
            site.set_inputs([site.required(0)])
            site.node.attributes["split"] = ir.AttrInt64s("split", sizes)
            count += 1
    return count
