"""The protobuf wire format, as far as copying an ONNX model around its big tensors needs it.

A message is a row of fields, each a tag (number and wire type, as a varint) and a payload. Only positions are read here; what a
payload means is left to the protobuf library. Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import NamedTuple

from onnx import GraphProto, ModelProto, TensorProto

BIG = 1024  # bytes; a tensor above it is streamed, one up to it (shapes, axes, scalars) stays in the message, where checkers need it
MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9  # field numbers of ModelProto, GraphProto and TensorProto in onnx.proto
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class WireError(ValueError):
    """The bytes are no protobuf message. Never reaches the user as it is."""


class Field(NamedTuple):
    """Where one field lies, as positions in the buffer: tag at `start`, payload from `payload` up to `end`."""

    number: int
    wire_type: int
    start: int
    payload: int
    end: int


def fields(buffer: bytes | mmap, start: int, end: int) -> Iterator[Field]:
    """Yields the fields of the message in `buffer[start:end]`, in file order, without reading the payloads of long ones.

    Errors: WireError for a damaged tag, an unknown wire type, and a payload that passes `end` (a truncated file).
    """
    place = start
    while place < end:
        tag, payload = _read_varint(buffer, place, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            _, after = _read_varint(buffer, payload, end)
        elif wire_type == FIXED64:
            after = payload + 8
        elif wire_type == FIXED32:
            after = payload + 4
        elif wire_type == LENGTH:
            length, payload = _read_varint(buffer, payload, end)
            after = payload + length
        else:
            raise WireError(f"byte {place} is no field (wire type {wire_type})")
        if number == 0:
            raise WireError(f"byte {place} is no field (number 0)")
        if after > end:
            raise WireError(f"field {number} at byte {place} needs {after - end} bytes more than there are")
        yield Field(number, wire_type, place, payload, after)
        place = after


def _read_varint(buffer: bytes | mmap, place: int, end: int) -> tuple[int, int]:
    """The number at `place` and the position after it."""
    value = 0
    for count in range(_MAX_VARINT_BYTES):
        if place + count >= end:
            raise WireError(f"the bytes end inside a number at byte {place}")
        byte = buffer[place + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise WireError(f"byte {place} is no number")


def varint(value: int) -> bytes:
    """`value` (not negative) as a base-128 varint, least significant group first."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_prefix(number: int, length: int) -> bytes:
    """The tag and length that stand before `length` bytes of the length-delimited field `number`."""
    return varint(number << 3 | LENGTH) + varint(length)


def split_at(message: bytes, number: int) -> tuple[bytes, bytes]:
    """Two parts of a serialised message that lacks field `number`: the fields before its place in numeric order, and those after.

    Serialisers write fields in numeric order, so that `before + field + after` is what one would have written.
    """
    before = [message[field.start : field.end] for field in fields(message, 0, len(message)) if field.number < number]
    after = [message[field.start : field.end] for field in fields(message, 0, len(message)) if field.number > number]
    return b"".join(before), b"".join(after)


def skeleton_of(data: mmap, location: str) -> ModelProto:
    """The model in `data`, with the big initializers of its graph as external data in the file `location`, which `data` maps.

    Errors: WireError, and DecodeError of the protobuf library, for what is no such message.
    """
    model = ModelProto()
    rest = []
    for field in fields(data, 0, len(data)):
        if field.number == MODEL_GRAPH and field.wire_type == LENGTH:
            model.graph.SetInParent()
            _merge_graph(model.graph, data, field.payload, field.end, location)
        else:
            rest.append(data[field.start : field.end])
    model.MergeFromString(b"".join(rest))
    return model


def _merge_graph(graph: GraphProto, data: mmap, start: int, end: int, location: str) -> None:
    rest = []
    for field in fields(data, start, end):
        if field.number == GRAPH_INITIALIZER and field.wire_type == LENGTH:
            _merge_tensor(graph.initializer.add(), data, field.payload, field.end, location)
        else:
            rest.append(data[field.start : field.end])
    graph.MergeFromString(b"".join(rest))


def _merge_tensor(tensor: TensorProto, data: mmap, start: int, end: int, location: str) -> None:
    raw, rest = None, []
    for field in fields(data, start, end):
        if field.number == TENSOR_RAW_DATA and field.wire_type == LENGTH:
            raw = field
        else:
            rest.append(data[field.start : field.end])
    tensor.MergeFromString(b"".join(rest))
    if raw is None:
        return
    if raw.end - raw.payload > BIG:
        point_to_file(tensor, location, raw.payload, raw.end - raw.payload)
    else:
        tensor.raw_data = data[raw.payload : raw.end]


def point_to_file(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Makes `tensor` external: `length` bytes from `offset` of the file `location` in the model's folder."""
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("external_data")
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
