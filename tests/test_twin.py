"""Empty-domain nodes in memory: there and back, and nothing else is touched."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from foreign_models import bevformer, mmdeploy
from occport.graph import dialect
from occport.graph.contract import TWIN_DOMAIN
from occport.graph.settings import Settings, with_settings
from occport.graph.twin import empty_domain_names, from_twin, proto_to_twin, to_twin

BEVFORMER = dialect.load("bevformer_tensorrt")


def normal(model: onnx.ModelProto) -> onnx.ModelProto:
    """As onnx_ir serialises it."""
    return ir.to_proto(ir.from_proto(model))


def test_there_only_the_domain_of_the_dialects_nodes_changes():
    proto = bevformer().model
    before = onnx.ModelProto.FromString(proto.SerializeToString())
    assert proto_to_twin(proto, BEVFORMER) == 1
    assert [(node.domain, node.op_type) for node in proto.graph.node] == [(TWIN_DOMAIN, "MultiScaleDeformableAttnTRT"), ("", "Reshape")]
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 13, TWIN_DOMAIN: 1}
    proto.graph.node[0].ClearField("domain")
    del proto.opset_import[1]
    assert proto == before


def test_there_and_back_is_the_same_file():
    before = normal(bevformer().model)
    model = ir.from_proto(before)
    assert to_twin(model, BEVFORMER) == 1
    assert ir.to_proto(model) != before
    assert from_twin(model) == 1
    assert ir.to_proto(model) == before


def test_both_ways_there_give_the_same():
    proto, model = normal(bevformer().model), ir.from_proto(bevformer().model)
    proto_to_twin(proto, BEVFORMER)
    to_twin(model, BEVFORMER)
    assert normal(proto) == ir.to_proto(model)


@pytest.mark.parametrize("name", ["dl", "standard", "bevformer_tensorrt"])
def test_a_file_without_such_nodes_stays_as_it_is(name):
    proto = normal(mmdeploy().model)
    before, model = onnx.ModelProto.FromString(proto.SerializeToString()), ir.from_proto(proto)
    assert proto_to_twin(proto, dialect.load(name)) == 0
    assert proto == before
    assert (to_twin(model, dialect.load(name)), from_twin(model)) == (0, 0)
    assert ir.to_proto(model) == before


def test_the_domain_is_imported_once():
    proto = bevformer().model
    proto_to_twin(proto, BEVFORMER)
    proto.graph.node[0].domain = ""
    proto_to_twin(proto, BEVFORMER)
    assert [entry.domain for entry in proto.opset_import] == ["", TWIN_DOMAIN]


def test_names():
    assert empty_domain_names(dialect.load("dl")) == set()
    mixed = with_settings(dialect.load("vad_trt"), Settings(op_names=(("dcn", "::ModulatedDeformConv2d"),)))
    assert empty_domain_names(mixed) == {"ModulatedDeformConv2d"} and empty_domain_names(dialect.load("vad_trt")) == set()
    assert empty_domain_names(BEVFORMER) == {"MultiScaleDeformableAttnTRT", "ModulatedDeformableConv2dTRT"}
