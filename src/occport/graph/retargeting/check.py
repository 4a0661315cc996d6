"""Every rewritten node against what it was: the region around it, before and after, in ONNX Runtime, on the same numbers.

Weights are the real ones, read from both files; everything else is random, of the real shapes: locations inside and outside of the
map, weights that sum to 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from ...errors import ModelFileError
from ...session import open_session
from ..contract import TWIN_DOMAIN, Contract
from ..dialect import Dialect
from ..functions import Arithmetics
from ..runnable import make_runnable
from .region import Region, Whole, roles

SAME_NUMBERS, COMPUTED_AGAIN = 1e-5, 1e-4  # of the range of the values
_LOGITS = {"attention_logits", "attention_logits_merged"}


Made = dict[tuple[str, int, tuple[int, ...]], np.ndarray]  # by role, how many of the kind stand before it in its region, and shape


class Side(NamedTuple):
    """A model before or after: its skeleton, custom nodes in memory's domains, where its weights are, and its dialect."""

    model: onnx.ModelProto
    folder: Path
    dialect: Dialect


class Checked(NamedTuple):
    """One node's comparison: the largest difference, as a share of the range of the values, and where it is."""

    node: str
    operator: str
    share: float
    tolerance: float
    place: tuple[int, ...]
    got: float
    want: float

    @property
    def passed(self) -> bool:
        """True within the tolerance."""
        return self.share <= self.tolerance

    def describe(self) -> str:
        """One line: node, difference, place."""
        return (
            f"{self.node}: {self.share:.1e} of the range at {list(self.place)}, {self.got:.6g} for {self.want:.6g} "
            f"(at most {self.tolerance:g})"
        )  # fmt: skip


def check_nodes(before: Side, after: Side, arithmetics: Arithmetics | None) -> list[Checked]:
    """Compares every custom node of `before` with what stands in its place.

    Args:
        before: values typed; its nodes have their twin's domain where their own is empty.
        after: the same network, rewritten; likewise.
        arithmetics: of all bodies; None takes the fastest.

    Raises:
        ModelFileError: ONNX Runtime cannot run a region.
    """
    old, new = Whole(before.model), Whole(after.model)
    custom = [(node, contract) for node in before.model.graph.node if (contract := _contract_of(node, before.dialect)) is not None]
    # What a rewritten node gives is common too: a region never reaches back into the node before it.
    same = old.same_values(new) | {_common_output(old, new, node) for node, _ in custom}
    made: Made = {}
    checked = []
    for node, contract in custom:
        output = _common_output(old, new, node)
        changed = new.region(output, same)
        stops = set(changed.inputs)
        region = old.region(output, stops)
        ports = _ports(changed, after.dialect) | _ports(region, before.dialect)
        names = {**roles(new, changed, ports), **roles(old, region, ports)}
        shapes = {name: _shape_of(name, old, new) for name in {*region.inputs, *changed.inputs}}
        feeds = feeds_for(shapes, names, made)
        got = _run(new, changed, old, after, feeds, arithmetics)
        want = _run(old, region, new, before, feeds, arithmetics)
        checked.append(_compare(node, contract, after.dialect, got, want))
    return checked


def _contract_of(node: onnx.NodeProto, dialect: Dialect) -> Contract | None:
    for contract in (dialect.msda, dialect.dcn):
        if contract is not None and (node.domain, node.op_type) == (contract.domain or TWIN_DOMAIN, contract.op_type):
            return contract
    return None


def _common_output(old: Whole, new: Whole, node: onnx.NodeProto) -> str:
    """The node's output, or that of a Reshape behind it, by a name that both graphs have."""
    behind = [str(reader.output[0]) for reader in old.readers.get(node.output[0], []) if reader.op_type == "Reshape"]
    for name in (*behind, str(node.output[0])):
        if name in new.producers and name in new.types and _sizes(new.types[name]) == _sizes(old.types.get(name, new.types[name])):
            return name
    raise AssertionError(f"nothing stands in the place of {node.name}")


def _ports(region: Region, dialect: Dialect) -> dict[str, str]:
    """Value → form, for the inputs of the region's custom nodes."""
    found: dict[str, str] = {}
    for node in region.nodes:
        contract = _contract_of(node, dialect)
        if contract is not None:
            found |= {name: port.form for port, name in zip(contract.inputs, node.input, strict=False) if name}
    return found


def _run(
    whole: Whole, region: Region, types: Whole, side: Side, feeds: dict[str, np.ndarray], arithmetics: Arithmetics | None
) -> np.ndarray:
    model = whole.cut(region, types)
    make_runnable(model, side.dialect, arithmetics)
    session = open_session(model, weights_folder=side.folder)
    return session.run({name: feeds[name] for name in region.inputs})[region.output]


def feeds_for(shapes: Mapping[str, tuple[int, ...]], roles: Mapping[str, str], made: Made) -> dict[str, np.ndarray]:
    """Random numbers for the inputs of a region, float32; nodes of the same shapes share them.

    Within a region no two are the same, such as x and y in ports of their own: exchanged, they would not be noticed.

    Args:
        shapes: input → its sizes.
        roles: input → what it holds (`region.roles`); without an entry: anything.
        made: those of other regions; new ones are added.
    """
    counts: Counter[tuple[str, tuple[int, ...]]] = Counter()
    feeds = {}
    for name, shape in sorted(shapes.items()):
        role = roles.get(name, "")
        key = role, counts[role, shape], shape
        counts[role, shape] += 1
        if key not in made:
            made[key] = _random(*key)
        feeds[name] = made[key]
    return feeds


def _random(role: str, number: int, shape: tuple[int, ...]) -> np.ndarray:
    """The numbers that a value of this role can have."""
    rng = np.random.default_rng([*role.encode(), number, *shape])
    if role in ("value", "input", "weight", "bias"):
        array = rng.standard_normal(shape, np.float32)
    elif role in ("attention_logits", "sampling_offsets", "offset", "offset_all"):
        array = 2 * rng.standard_normal(shape, np.float32)
    elif role == "mask":
        array = rng.random(shape, np.float32)
    elif role == "attention_weights":
        array = rng.random(shape, np.float32)
        array /= array.sum(axis=-1 if len(shape) == 4 else (-2, -1), keepdims=True)
    else:
        array = rng.random(shape, np.float32) * np.float32(1.4) - np.float32(0.2)
    return array


def _compare(node: onnx.NodeProto, contract: Contract, target: Dialect, got: np.ndarray, want: np.ndarray) -> Checked:
    boundaries = {port.form for one in (contract, target.msda) if one is not None for port in one.inputs}
    tolerance = COMPUTED_AGAIN if "value" in {port.form for port in contract.inputs} and boundaries & _LOGITS else SAME_NUMBERS
    if got.shape != want.shape:
        raise AssertionError(f"{node.name}: {got.shape} for {want.shape}")
    difference = np.abs(got - want)
    difference[~np.isfinite(difference)] = math.inf
    index = tuple(int(i) for i in np.unravel_index(int(difference.argmax()), difference.shape))
    span = float(want.max() - want.min())
    worst = float(difference[index])
    share = worst / span if span else (0.0 if worst == 0 else math.inf)
    return Checked(node.name, contract.title, share, tolerance, index, float(got[index]), float(want[index]))


def _shape_of(name: str, old: Whole, new: Whole) -> tuple[int, ...]:
    for whole in (old, new):
        sizes = _sizes(whole.types[name]) if name in whole.types else None
        if sizes is not None:
            kind = whole.types[name].tensor_type.elem_type
            if kind != onnx.TensorProto.FLOAT:
                got = onnx.TensorProto.DataType.Name(kind)
                raise ModelFileError(f"value {name}", expected="float32, to try the rewritten nodes on", got=got)
            return sizes
    raise ModelFileError(f"value {name}", expected="a static shape", got="none that can be inferred", fix="export it with fixed sizes")


def _sizes(kind: onnx.TypeProto) -> tuple[int, ...] | None:
    dims = kind.tensor_type.shape.dim
    known = kind.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
    return tuple(dim.dim_value for dim in dims) if known else None
