"""The module of the network that a node belongs to, by the node's name."""

from __future__ import annotations

import re

_OPERATOR = re.compile(r"_(?=[A-Z])")  # modules are written small; operators, and what they are lowered to, begin with a capital


def layer_of(name: str) -> str:
    """img_backbone_layer3_5_conv2_Conv → img_backbone_layer3_5_conv2; of a foreign name /a/b/Conv the part before the last slash."""
    if "/" in name:
        return name.rpartition("/")[0].strip("/") or name
    found = _OPERATOR.search(name)
    return name[: found.start()] if found and found.start() else name
