"""What the ports of a node hold, as arrays: made of quantities, and read back. For vectors, probes and the judging of kernels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .arithmetic import Arrays
from .contract import Contract
from .forms import PORT_FORMS, SCALARS, Raised, scalar


def lower_arrays(contract: Contract, quantities: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each port of a contract's node holds, for one node's quantities; an optional port without its quantity is left out.

    Args:
        quantities: canonical ones, or locations and weights in the place of what they follow from; float arrays of one dtype.

    Returns:
        Port name → array of the port's dtype and rank, in the order of the ports.

    Raises:
        KeyError: a port needs a quantity that is not there and does not follow, or cannot hold it.
    """
    is_attention = "value" in quantities
    levels = len(quantities["spatial_shapes"]) if is_attention else 1
    w = Arrays(levels)
    q = Raised(quantities, w)
    sizes: dict[str, int] = {}
    if is_attention:
        A, _, M, D = quantities["value"].shape
        weights = quantities["attention_weights"] if "attention_weights" in quantities else quantities["attention_logits"]
        sizes = {"A": A, "M": M, "D": D, "Q": weights.shape[1]}
    ports = {}
    for port in contract.inputs:
        form = PORT_FORMS[port.form]
        if port.form in SCALARS:
            ports[port.name] = np.full((1,) * port.rank, scalar(port.form, contract, sizes), port.dtype)
            continue
        if port.optional and any(q.get_or_none(need) is None for need in form.needs):
            continue
        if port.form == "bias" and q.get_or_none("bias") is None:
            ports[port.name] = np.zeros(quantities["weight"].shape[0], port.dtype)
            continue
        for need in form.needs:
            if q.get_or_none(need) is None:
                raise KeyError(need)
        held = form.lower(w, q)
        if held is None:
            raise KeyError(port.form)
        ports[port.name] = np.asarray(held).astype(port.dtype)
    return ports


def raise_arrays(contract: Contract, ports: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The quantities that the arrays of a node's ports hold, floats that had to be computed in float64; scalars are left out.

    Args:
        ports: port name → array.

    Returns:
        For an attention: value, spatial_shapes, level_start_index, and locations and weights or what they follow from. For a
        deformable convolution: input, offset, mask, weight, bias where there is one.
    """
    forms = {port.form: np.asarray(ports[port.name]) for port in contract.inputs if port.name in ports and port.form not in SCALARS}
    levels = len(forms["spatial_shapes"]) if "spatial_shapes" in forms else 1
    shared = forms.get("reference_points_shared")
    q = Raised(forms, Arrays(levels, 1 if shared is None else shared.shape[-1] // 2))
    if "value" not in forms:
        wanted = ["input", "offset", "mask", "weight", "bias"]
    elif q.get_or_none("reference_points") is not None:
        wanted = ["value", "spatial_shapes", "level_start_index", "reference_points", "sampling_offsets"]
    else:
        wanted = ["value", "spatial_shapes", "level_start_index", "sampling_locations"]
    if "value" in forms:
        wanted.append("attention_logits" if q.get_or_none("attention_logits") is not None else "attention_weights")
    found = {quantity: np.asarray(q.get_or_none(quantity)) for quantity in wanted if q.get_or_none(quantity) is not None}
    if "value" in forms and "level_start_index" not in found:
        areas = forms["spatial_shapes"].astype(np.int64).prod(1)
        found["level_start_index"] = np.concatenate([[0], np.cumsum(areas)[:-1]]).astype(np.int64)
    return found


def lower_output(contract: Contract, output: np.ndarray, quantities: Mapping[str, np.ndarray]) -> np.ndarray:
    """A canonical output, (A, Q, M*D) or (A, O, Ho, Wo), in the contract's form."""
    lowered: np.ndarray = PORT_FORMS[contract.output.form].lower(Arrays(1), {**quantities, "output": output})
    return lowered


def raise_output(contract: Contract, output: np.ndarray) -> np.ndarray:
    """An output in the contract's form as the canonical (A, Q, M*D) or (A, O, Ho, Wo)."""
    return output.reshape(*output.shape[:2], -1) if contract.output.form == "heads_split" else output
