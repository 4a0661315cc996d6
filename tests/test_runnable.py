"""Bodies in memory: every node gets one, those that are there stay, and nodes of the empty domain move to their twin's."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from occport.graph import dialect as dialects
from occport.graph.contract import TWIN_DOMAIN
from occport.graph.rewrite import STANDARD, to_dialect
from occport.graph.runnable import make_runnable
from occport.session import open_session
from small_graphs import network


@pytest.mark.parametrize("name", ["dl", "tensorrt", "bevformer_tensorrt", "mmdeploy"])
def test_a_network_runs_and_gives_what_the_canonical_one_gives(name):
    model, feeds = network()
    canonical = ir.to_proto(model)
    make_runnable(canonical, STANDARD)
    want = open_session(canonical).run(feeds)
    dialect = dialects.load(name)
    to_dialect(model, dialect, 11, functions=False)
    written = ir.to_proto(model)
    make_runnable(written, dialect)
    assert written.ir_version >= 8 and len(written.functions) == 2
    assert (TWIN_DOMAIN in {node.domain for node in written.graph.node}) == dialect.in_empty_domain
    for output, array in open_session(written).run(feeds).items():
        np.testing.assert_allclose(array, want[output], rtol=1e-4, atol=1e-5)


def test_bodies_that_are_there_stay_and_twice_is_once():
    model, _ = network()
    dialect = dialects.load("dl")
    to_dialect(model, dialect, 17, functions=True)
    written = ir.to_proto(model)
    before = written.SerializeToString(deterministic=True)
    make_runnable(written, dialect)
    after = onnx.ModelProto.FromString(before)
    assert list(written.functions) == list(after.functions) and list(written.graph.node) == list(after.graph.node)
    once = written.SerializeToString(deterministic=True)
    make_runnable(written, dialect)
    assert written.SerializeToString(deterministic=True) == once


def test_a_model_without_custom_nodes_is_left_alone():
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 11)], ir_version=6)
    before = model.SerializeToString(deterministic=True)
    make_runnable(model, dialects.load("dl"))
    assert model.SerializeToString(deterministic=True) == before
