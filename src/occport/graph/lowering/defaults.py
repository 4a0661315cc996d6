"""Attributes that a later version of an operator added: dropped where they say what the older version does anyhow.

An attribute with another value stays, and the check against the schemas then names it.
"""

from __future__ import annotations

import onnx_ir as ir

from .site import sites


def drop_default(model: ir.Model, *, op: str, attribute: str, default: int | str) -> int:
    """Removes `attribute` from every `op` where it equals `default` (for INTS: where each entry does), in place.

    Returns: the number of nodes changed.
    """
    count = 0
    for site in sites(model, op):
        found = site.attribute(attribute)
        if found is None:
            continue
        entries = found.as_ints() if found.type == ir.AttributeType.INTS else [found.value]
        if all(entry == default for entry in entries):
            del site.node.attributes[attribute]
            count += 1
    return count
