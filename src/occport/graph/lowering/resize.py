"""Resize: the attributes of opset 18 (`antialias`, `axes`, `keep_aspect_ratio_policy`), and the inputs that opset 11 insists on.

With `axes` the newer operator scales those axes only; scales of 1, or the input's own sizes, on all the others are the same.
Opset 11 has `roi` and `scales` as inputs that must be there: both are given as empty float32 constants where they do not
count, in the way torch 1.10 wrote them.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .site import Array, Site, constant_array, sites


def lower_resize_attributes(model: ir.Model) -> int:
    """Resize of opset 18 → 13, in place. Returns the number of nodes changed.

    Errors: ExportError for anti-aliasing, for a policy other than "stretch", and for `axes` with computed scales or sizes.
    """
    count = 0
    for site in sites(model, "Resize"):
        names = [name for name in ("antialias", "axes", "keep_aspect_ratio_policy") if site.attribute(name) is not None]
        if not names:
            continue
        if site.int_attribute("antialias", 0):
            raise site.refuse(expected="antialias = 0", got="antialias = 1", fix="choose opset 18 or later")
        policy = site.attribute("keep_aspect_ratio_policy")
        if policy is not None and policy.as_string() != "stretch":
            raise site.refuse(expected="keep_aspect_ratio_policy = stretch", got=policy.as_string(), fix="choose opset 18 or later")
        if "axes" in names:
            _without_axes(site)
        for name in names:
            del site.node.attributes[name]
        count += 1
    return count


def _without_axes(site: Site) -> None:
    attribute = site.attribute("axes")
    assert attribute is not None
    axes, shape = list(attribute.as_ints()), site.shape(0, "to scale some axes only")
    # roi is (starts of each axis …, ends of each axis …), scales and sizes have one entry an axis.
    rest: dict[int, Array] = {
        1: np.repeat(np.asarray([0, 1], np.float32), len(shape)), 2: np.ones(len(shape), np.float32), 3: np.asarray(shape, np.int64),
    }
    inputs = [site.input(index) for index in range(4)]
    for index, name in ((1, "roi"), (2, "scales"), (3, "sizes")):
        given = constant_array(inputs[index])
        if inputs[index] is None or (given is not None and given.size == 0):
            continue
        if given is None:
            raise site.refuse(expected=f"constant {name} beside axes", got="values that are computed", fix="choose opset 18 or later")
        full = rest[index].astype(given.dtype).reshape(-1, len(shape))
        full[:, axes] = given.reshape(full.shape[0], -1)
        inputs[index] = site.constant(name, full.reshape(-1))
    site.set_inputs(inputs[: len(site.node.inputs)])


def lower_resize_inputs(model: ir.Model) -> int:
    """Resize of opset 13 → 11: roi and scales are there, empty where they do not count, in place. Returns the number of nodes changed."""
    count = 0
    for site in sites(model, "Resize"):
        inputs = [site.input(index) for index in range(4)]
        if inputs[1] is not None and inputs[2] is not None:
            continue
        for index, name in ((1, "roi"), (2, "scales")):
            if inputs[index] is None:
                inputs[index] = site.constant(name, np.zeros(0, np.float32))
        site.set_inputs(inputs if inputs[3] is not None else inputs[:3])
        count += 1
    return count
