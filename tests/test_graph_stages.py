"""Every tensor of an exported file has its stage, also those whose names tell nothing."""

from __future__ import annotations

import onnx
import pytest

from occport.graph.model_file import read_skeleton
from occport.graph.stages import PLACES, REST, first_output, stages_of

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
toy (float[2] img) => (float[2] out, float[2] lost)
{
   cast = Identity(img)
   img_backbone_x = Neg(cast)
   copy = Identity(img_backbone_x)
   out = Neg(copy)
   lost = Abs(img)
}
"""


def test_nameless_nodes_belong_to_their_neighbours():
    model = onnx.parser.parse_model(TEXT)
    model.graph.node[1].name = "img_backbone_Neg"
    model.graph.node[3].name = "pts_bbox_head_occ_0_Neg"
    found = stages_of(model.graph)
    assert found == {"cast": "backbone", "img_backbone_x": "backbone", "copy": "backbone", "out": "decoder", "lost": REST}


def test_a_first_output_that_is_left_out():
    model = onnx.parser.parse_model(TEXT.replace("copy = Identity(img_backbone_x)", "copy, rest = Split(img_backbone_x)"))
    model.graph.node[1].name = "img_backbone_Neg"
    split = model.graph.node[2]
    split.output[0], split.output[1] = "", "copy"
    found = stages_of(model.graph)
    assert first_output(split) == "copy" and found["copy"] == "backbone" and "" not in found
    assert found[split.output[0]] == REST  # who asks for the very first output gets an answer
    with pytest.raises(KeyError):
        found["nothing"]


@pytest.mark.parametrize("export", ["runtime_export", "standard_export", "tables_export"])
def test_an_exported_file_has_every_stage_in_order(export, request):
    exported = request.getfixturevalue(export)
    graph = read_skeleton(exported.model).graph
    found = stages_of(graph)
    assert set(found) == {name for node in graph.node for name in node.output if name}
    present = [place for place in PLACES if place in found.values()]
    assert present[-6:] == ["backbone", "neck", "level 0", "level 1", "level 2", "decoder"]
    assert sum(stage == REST for stage in found.values()) < 0.02 * len(found)
    assert found[graph.output[0].name] == "decoder"
