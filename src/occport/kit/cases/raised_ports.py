"""From a dialect's ports to quantities: the one place where the arrays of a stored case become what the operators compute with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...errors import ModelFileError
from ...graph.contract import Contract
from ...graph.contract import Port as ContractPort
from ...graph.forms import PORT_FORMS
from ...graph.port_arrays import raise_arrays
from .record import AGAIN, Record

RaisePorts = Callable[[Record, Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]


def raised_ports(record: Record, ports: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Quantity → array, by the forms that the record gives its ports.

    Args:
        record: of the case; its inputs name the forms (`graph/forms.py`).
        ports: port name → array, of the record's dtypes and shapes.

    Raises:
        ModelFileError: a form that is not known or of the other operator, or ports that do not fit together.
    """
    for port in record.inputs:
        if port.form not in PORT_FORMS or PORT_FORMS[port.form].operator != record.operator:
            known = ", ".join(name for name, form in PORT_FORMS.items() if form.operator == record.operator)
            raise ModelFileError(f"case {record.name}, input {port.name}, form", expected=f"one of {known}", got=port.form, fix=AGAIN)
    inputs = tuple(ContractPort(port.form, port.dtype, len(port.shape), port.name) for port in record.inputs)
    output = ContractPort("map" if record.operator == "dcn" else "heads_merged", record.dtype, len(record.shape))
    try:
        return raise_arrays(Contract("", 1, "", inputs, output), ports)
    except (KeyError, ValueError, IndexError) as error:
        got = f"{type(error).__name__}: {error}"
        raise ModelFileError(f"case {record.name}, inputs", expected="arrays that fit together", got=got, fix=AGAIN) from error
