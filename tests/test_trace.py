"""From PyTorch to the canonical graph, and what a file gives out."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

import occport.ops.deform_conv
import occport.ops.msda  # noqa: F401 - registers the operators
from occport.export.trace import FixedEntry, GeometryEntry, Outputs, RuntimeEntry, TablesEntry, flatten, table_names, trace, unflatten
from occport.graph import canonical

LOGITS = [torch.from_numpy(np.random.default_rng(scale).normal(size=(1, 17, 2, 3, 1 + scale)).astype(np.float32)) for scale in range(4)]
SINGLE = [logits[:, :1] for logits in LOGITS]


def test_labels_are_the_largest_logit():
    labels = Outputs("labels", (0, 3)).of(LOGITS)
    assert [tuple(label.shape) for label in labels] == [(1, 2, 3, 1), (1, 2, 3, 4)]
    assert all(label.dtype == torch.int64 for label in labels)
    for label, logits in zip(labels, (LOGITS[0], LOGITS[3]), strict=True):
        assert np.array_equal(label.numpy(), logits.numpy().argmax(1))
    assert torch.equal(Outputs("labels", (3,), softmax=True).of(LOGITS)[0], labels[1])


def test_labels_as_int32():
    (label,) = Outputs("labels", (1,), "int32").of(LOGITS)
    assert label.dtype == torch.int32 and np.array_equal(label.numpy(), LOGITS[1].numpy().argmax(1))


def test_one_class_is_occupied_above_one_half():
    (label,) = Outputs("labels", (2,)).of(SINGLE)
    assert np.array_equal(label.numpy(), (1 / (1 + np.exp(-SINGLE[2].numpy()[:, 0])) > 0.5).astype(np.int64))
    assert label.shape == (1, 2, 3, 3) and 0 < label.sum() < label.numel()


def test_probabilities_and_logits():
    (soft,) = Outputs("probabilities", (0,)).of(LOGITS)
    exponent = np.exp(LOGITS[0].numpy().astype(np.float64))
    assert np.allclose(soft.numpy(), exponent / exponent.sum(1, keepdims=True), atol=1e-6)
    (sigmoid,) = Outputs("probabilities", (0,)).of(SINGLE)
    assert sigmoid.shape == (1, 2, 3, 1)
    assert np.allclose(sigmoid.numpy(), 1 / (1 + np.exp(-SINGLE[0].numpy()[:, 0])), atol=1e-6)
    assert torch.equal(Outputs("logits", (2,)).of(LOGITS)[0], LOGITS[2])


def test_tables_as_a_flat_row(tiny_network):
    spec, loaded = tiny_network.spec, tiny_network.loaded
    tables, _ = tiny_network.model.tables(torch.from_numpy(loaded.lidar2img), spec.image_hw, spec.budgets)
    fields = flatten(tables)
    assert table_names(2) == [f"level{level}_{field}" for level in (0, 1) for field in ("slots", "ref_uv", "back", "weight")]
    assert len(fields) == len(table_names(3)) == 12
    for one, other in zip(unflatten(fields), tables, strict=True):
        assert one._fields == other._fields and all(a is b for a, b in zip(one, other, strict=True))


def test_entries_give_the_same(tiny_network):
    """Calibration as input, as tables and as constants: the same network, number for number."""
    model, spec = tiny_network.model, tiny_network.spec
    img, lidar2img = torch.from_numpy(tiny_network.loaded.img), torch.from_numpy(tiny_network.loaded.lidar2img)
    outputs = Outputs("logits", (0, 1, 2, 3))
    with torch.no_grad():
        *fields, dropped = GeometryEntry(model, spec.image_hw, spec.budgets)(lidar2img)
        *runtime, counted = RuntimeEntry(model, spec.image_hw, spec.budgets, outputs)(img, lidar2img)
        tables = TablesEntry(model, outputs)(img, *fields)
        fixed = FixedEntry(model, unflatten(fields), outputs)(img)
        exact = model(img, lidar2img)
    assert torch.equal(dropped, counted) and dropped.tolist() == [[0, 0, 0]]
    for scale in range(4):
        assert torch.equal(runtime[scale], tables[scale]) and torch.equal(runtime[scale], fixed[scale])
        assert torch.allclose(runtime[scale], exact[scale], atol=1e-4)


class Both(nn.Module):
    """One node of each custom kind."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 4, 3, 3))

    def forward(self, x, offset, mask, value, points, offsets, logits):
        conv = torch.ops.occport.deform_conv2d(x, offset, mask, self.weight, None, [2, 1], [1, 0], [1, 2], 1, 1)
        return conv, torch.ops.occport.multi_scale_deformable_attention(value, [2, 3, 1, 2], points, offsets, logits)


@pytest.fixture(scope="module")
def both() -> ir.Model:
    shapes = [(2, 4, 7, 8), (2, 18, 4, 4), (2, 9, 4, 4), (2, 8, 2, 4), (2, 5, 2, 2), (2, 5, 2, 2, 3, 2), (2, 5, 2, 2, 3)]
    names = ["x", "offset", "mask", "value", "points", "offsets", "logits"]
    return trace(Both().eval(), [torch.zeros(shape) for shape in shapes], names, ["conv", "attention"])


def test_custom_nodes_are_canonical(both):
    nodes = {node.op_type: node for node in both.graph if node.domain}
    assert {node.domain for node in nodes.values()} == {canonical.DOMAIN} and nodes.keys() == {canonical.DCN, canonical.MSDA}
    assert both.opset_imports[""] == 18
    conv = nodes[canonical.DCN]
    attributes = {name: attribute.value for name, attribute in conv.attributes.items()}
    assert [list(attributes[name]) for name in ("stride", "padding", "dilation")] == [[2, 1], [1, 0], [1, 2]]
    assert attributes["groups"] == 1 and attributes["deform_groups"] == 1
    assert [value.name for value in conv.inputs if value is not None][:3] == ["x", "offset", "mask"] and len(conv.inputs) == 4


def test_attention_sizes_are_constants(both):
    node = next(node for node in both.graph if node.op_type == canonical.MSDA)
    shapes, starts = (ir.convenience.get_const_tensor(value).numpy() for value in node.inputs[1:3])
    assert shapes.tolist() == [[2, 3], [1, 2]] and starts.tolist() == [0, 6] and shapes.dtype == starts.dtype == np.int64
    assert [value.name for value in (node.inputs[0], *node.inputs[3:])] == ["value", "points", "offsets", "logits"]


def test_traced_values_have_static_shapes(both):
    assert [value.name for value in both.graph.outputs] == ["conv", "attention"]
    for node in both.graph:
        assert all(value.shape is not None and value.shape.is_static() and value.dtype is not None for value in node.outputs)


def test_trace_says_nothing(capfd):
    graph = trace(nn.ReLU(), [torch.zeros(2, 3)], ["x"], ["y"])
    assert [node.op_type for node in graph.graph] == ["Relu"]
    captured = capfd.readouterr()
    assert captured.out == "" and captured.err == ""
