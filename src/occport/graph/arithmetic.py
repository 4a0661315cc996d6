"""The few operations of which the forms are made, written three ways: on arrays, in front of a node of static shapes, in a body.

A form is stated once (`forms.py`), against `Arithmetic`. Sizes of reshapes: a number, 0 = as before, -1 = the rest, or what
`size` returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from .bodies.body import Body
from .build import Builder

V = TypeVar("V")


class Arithmetic(Protocol[V]):
    """Operations on values of kind V. `name` is a hint for the names of nodes."""

    levels: int  # L
    references: int  # reference points of a query that its points share in turn; 1 but in BEVFormer's spatial attention

    def size(self, value: V, axis: int) -> Any:
        """The size along an axis: a number, or something that `reshape` takes for one."""

    def reshape(self, value: V, *parts: Any, name: str) -> V:
        """Another shape of the same elements."""

    def add(self, left: V, right: V, name: str) -> V:
        """left + right, broadcast; the result has the larger rank's shape."""

    def divide(self, left: V, right: V, name: str) -> V:
        """left / right, broadcast to left."""

    def softmax(self, logits: V, name: str) -> V:
        """Softmax over the last two axes together."""

    def concat(self, values: Sequence[V], axis: int, name: str) -> V:
        """Joined along an axis."""

    def take(self, value: V, axis: int, index: int, name: str) -> V:
        """The slice of one index along an axis; the axis is gone."""

    def map_size(self, spatial_shapes: V) -> V:
        """(L, 2) integers (h, w) → (L, 1, 2) floats (w, h)."""


class Arrays:
    """On NumPy arrays, in float64 where floats are computed."""

    def __init__(self, levels: int, references: int = 1) -> None:
        self.levels, self.references = levels, references

    def size(self, value: np.ndarray, axis: int) -> int:
        """As `Arithmetic`."""
        return int(value.shape[axis])

    def reshape(self, value: np.ndarray, *parts: int, name: str = "") -> np.ndarray:
        """As `Arithmetic`."""
        return value.reshape(full_shape(value.shape, parts))

    def add(self, left: np.ndarray, right: np.ndarray, name: str = "") -> np.ndarray:
        """As `Arithmetic`."""
        total: np.ndarray = np.add(left, right, dtype=np.float64)
        return total

    def divide(self, left: np.ndarray, right: np.ndarray, name: str = "") -> np.ndarray:
        """As `Arithmetic`."""
        quotient: np.ndarray = np.divide(left, right, dtype=np.float64)
        return quotient

    def softmax(self, logits: np.ndarray, name: str = "") -> np.ndarray:
        """As `Arithmetic`."""
        wide = logits.astype(np.float64)
        powers = np.exp(wide - wide.max(axis=(-2, -1), keepdims=True))
        shares: np.ndarray = powers / powers.sum(axis=(-2, -1), keepdims=True)
        return shares

    def concat(self, values: Sequence[np.ndarray], axis: int, name: str = "") -> np.ndarray:
        """As `Arithmetic`."""
        return np.concatenate(values, axis)

    def take(self, value: np.ndarray, axis: int, index: int, name: str = "") -> np.ndarray:
        """As `Arithmetic`."""
        part: np.ndarray = value.take(index, axis)
        return part

    def map_size(self, spatial_shapes: np.ndarray) -> np.ndarray:
        """As `Arithmetic`."""
        sizes: np.ndarray = spatial_shapes[:, ::-1].astype(np.float64).reshape(-1, 1, 2)
        return sizes


class Static:
    """In front of one node of a graph whose shapes are all known; written with a `Builder` that is at that node."""

    def __init__(self, builder: Builder, levels: int, references: int = 1) -> None:
        self.builder, self.levels, self.references = builder, levels, references

    def size(self, value: ir.Value, axis: int) -> int:
        """As `Arithmetic`."""
        return shape_of(value)[axis]

    def reshape(self, value: ir.Value, *parts: int, name: str) -> ir.Value:
        """As `Arithmetic`; nothing is written where the shape is right already."""
        shape = full_shape(shape_of(value), parts)
        if shape == shape_of(value):
            return value
        if name == "reference":  # all layers of a level read the same points
            return self.builder.shared("Reshape", value, shape)
        return self.builder.reshape(value, list(shape), name)

    def add(self, left: ir.Value, right: ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`."""
        shape = np.broadcast_shapes(shape_of(left), shape_of(right))
        return self.builder.op("Add", [left, right], shape, suffix=name)

    def divide(self, left: ir.Value, right: ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`."""
        return self.builder.op("Div", [left, right], shape_of(left), suffix=name)

    def softmax(self, logits: ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`: along the last axis, as its meaning changed at opset 13 for others."""
        shape = shape_of(logits)
        if shape[-2] == 1:
            return self.builder.op("Softmax", [logits], shape, {"axis": len(shape) - 1}, suffix=name)
        flat = self.reshape(logits, *shape[:-2], -1, name="logits_flat")
        along = self.builder.op("Softmax", [flat], shape_of(flat), {"axis": len(shape) - 2}, suffix="softmax")
        return self.builder.reshape(along, list(shape), name)

    def concat(self, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """As `Arithmetic`."""
        shape = list(shape_of(values[0]))
        shape[axis] = sum(shape_of(value)[axis] for value in values)
        return self.builder.op("Concat", list(values), shape, {"axis": axis}, suffix=name)

    def take(self, value: ir.Value, axis: int, index: int, name: str) -> ir.Value:
        """As `Arithmetic`."""
        shape = [size for i, size in enumerate(shape_of(value)) if i != axis]
        which = self.builder.constant(np.array(index, np.int64), "index")
        return self.builder.op("Gather", [value, which], shape, {"axis": axis}, suffix=name)

    def map_size(self, spatial_shapes: ir.Value) -> ir.Value:
        """As `Arithmetic`; a constant in the dtype of the attention's floats."""
        sizes = constant_of(spatial_shapes)[:, ::-1].astype(np.float32).reshape(-1, 1, 2)
        return self.builder.constant(sizes, "map_size")


class InBody:
    """In a function body, where sizes are taken from the inputs at run time."""

    def __init__(self, body: Body, levels: int, references: int = 1) -> None:
        self.body, self.levels, self.references = body, levels, references

    def size(self, value: ir.Value, axis: int) -> ir.Value:
        """As `Arithmetic`."""
        return self.body.size(value, axis)

    def reshape(self, value: ir.Value, *parts: int | ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`."""
        return self.body.reshape(value, *parts)

    def add(self, left: ir.Value, right: ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`."""
        return self.body.op("Add", left, right)

    def divide(self, left: ir.Value, right: ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`."""
        return self.body.op("Div", left, right)

    def softmax(self, logits: ir.Value, name: str) -> ir.Value:
        """As `Arithmetic`; for logits of rank 5."""
        flat = self.body.reshape(logits, 0, 0, 0, -1)
        return self.body.op("Reshape", self.body.op("Softmax", flat, attributes={"axis": 3}), self.body.op("Shape", logits))

    def concat(self, values: Sequence[ir.Value], axis: int, name: str) -> ir.Value:
        """As `Arithmetic`."""
        return self.body.op("Concat", *values, attributes={"axis": axis})

    def take(self, value: ir.Value, axis: int, index: int, name: str) -> ir.Value:
        """As `Arithmetic`."""
        return self.body.op("Gather", value, self.body.constant(index), attributes={"axis": axis})

    def map_size(self, spatial_shapes: ir.Value) -> ir.Value:
        """As `Arithmetic`."""
        hw = self.body.op("Cast", spatial_shapes, attributes={"to": int(ir.DataType.FLOAT)})
        wh = self.body.op("Gather", hw, self.body.constant([1, 0]), attributes={"axis": 1})
        return self.body.on_axes("Unsqueeze", wh, [1])


def full_shape(old: Sequence[int], parts: Sequence[int]) -> tuple[int, ...]:
    """A reshape's target with 0 (as before) and -1 (the rest) filled in."""
    shape = [old[i] if part == 0 else part for i, part in enumerate(parts)]
    rest = int(np.prod([size for size in shape if size != -1], dtype=np.int64))
    return tuple(int(np.prod(old, dtype=np.int64)) // max(rest, 1) if size == -1 else size for size in shape)


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """The static shape of a value; it is our own bug when there is none."""
    assert value.shape is not None and value.shape.is_static(), value
    return value.shape.numpy()


def constant_of(value: ir.Value) -> np.ndarray:
    """The array of a constant value; it is our own bug when it is none."""
    tensor = ir.convenience.get_const_tensor(value)
    assert tensor is not None, f"{value.name} is no constant"
    return tensor.numpy()
