"""A custom node under its contract, with everything that the checks of a node ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx

from ...errors import ModelFileError
from ..attributes import Window, read_window
from ..contract import Contract, Port
from ..dialect import Dialect
from ..forms import PORT_FORMS
from .facts import Facts, Shape
from .scopes import STANDARD_DOMAINS, label


@dataclass(frozen=True)
class Site:
    """One node, its contract, and the facts of the graph that it stands in."""

    node: onnx.NodeProto
    contract: Contract
    facts: Facts

    @property
    def name(self) -> str:
        """What findings call the node."""
        return label(self.node)

    @property
    def is_attention(self) -> bool:
        """True for deformable attention, False for a deformable convolution."""
        return any(PORT_FORMS[port.form].operator == "msda" for port in self.contract.inputs)

    @property
    def counts_fit(self) -> bool:
        """Whether the inputs can be told apart: as many as the contract has, at least up to the optional ones at the end."""
        return self.fewest <= len(self.node.input) <= len(self.contract.inputs) and bool(self.node.output)

    @property
    def fewest(self) -> int:
        """The number of inputs without the optional ones at the end."""
        return max((i + 1 for i, port in enumerate(self.contract.inputs) if not port.optional), default=0)

    def ports(self) -> list[tuple[Port, str]]:
        """Each port with the value that stands there, the output last; ports without one are left out."""
        pairs = zip(self.contract.inputs, self.node.input, strict=False)
        return [(port, name) for port, name in pairs if name] + [(self.contract.output, self.node.output[0])]

    def attributes(self) -> dict[str, tuple[str, Any]]:
        """Name → kind ("int", "ints", …) and value; bytes as text."""
        found: dict[str, tuple[str, Any]] = {}
        for attribute in self.node.attribute:
            if attribute.ref_attr_name or attribute.type == onnx.AttributeProto.UNDEFINED:  # of a function, or of no kind: no value here
                found[attribute.name] = ("reference" if attribute.ref_attr_name else "undefined", attribute.ref_attr_name or None)
                continue
            kind = onnx.AttributeProto.AttributeType.Name(attribute.type).lower()
            value = onnx.helper.get_attribute_value(attribute)
            found[attribute.name] = (kind, value.decode(errors="replace") if isinstance(value, bytes) else value)
        return found

    def sizes(self) -> dict[str, tuple[str, Shape]]:
        """Port → its form's shape and the sizes that the file tells; scalars, and ports of another rank, are left out."""
        found = {}
        for port, name in self.ports():
            terms, sizes = PORT_FORMS[port.form].shape.split(), self.facts.type(name)[1]
            if terms and sizes is not None and len(sizes) == len(terms):
                known = [(term, size) for term, size in zip(terms, sizes, strict=True) if size >= 0]
                found[port.name] = (" ".join(term for term, _ in known), tuple(size for _, size in known))
        return found

    def window(self) -> Window | None:
        """The window of a deformable convolution; None where weight or attributes do not tell one that can be, or one is missing."""
        weight = next((self.facts.static_shape(name) for port, name in self.ports() if port.form == "weight"), None)
        if weight is None or len(weight) != 4:
            return None
        wanted = {attribute.name: attribute.type for attribute in self.contract.attributes}
        values = {name: value for name, (kind, value) in self.attributes().items() if wanted.get(name) == kind}
        if any(attribute.form and attribute.name not in values for attribute in self.contract.attributes):
            return None
        try:
            window = read_window(self.contract, values, (weight[2], weight[3]), self.name)
        except ModelFileError:
            return None
        least = (*window.stride, *window.dilation, window.groups, window.deform_groups)
        return window if min(least) > 0 and min(window.padding) >= 0 else None


def contract_of(node: onnx.NodeProto, dialect: Dialect) -> Contract | None:
    """The contract that a node stands under by its domain and name, or None."""
    domain = "" if node.domain in STANDARD_DOMAINS else node.domain
    contracts = (contract for contract in (dialect.msda, dialect.dcn) if contract is not None)
    return next((contract for contract in contracts if (contract.domain, contract.op_type) == (domain, node.op_type)), None)
