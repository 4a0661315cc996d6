"""Bring-up at full size, minutes each: `make test-full`. A planted bug is found at its node; fp16 noise alone blames nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from exporting import MICRO
from occport.bringup.cost.cost import cost_of
from occport.bringup.diff.blame import judge
from occport.bringup.dumps.axes import levels_of
from occport.bringup.dumps.marks import custom_nodes_of, marked
from occport.config import read_config
from occport.export.graph_files import write_graphs
from occport.export.manifest import manifest, write_json
from occport.export.network_file import feeds_of, read_network
from occport.export.request import Request, file_name, load_input, make_spec
from occport.export.weights import load_model
from occport.graph.model_file import read_skeleton
from occport.progress import NullProgress
from planting import changed_channel, copied, dumps, golden_index, half_pixel, node_of, rounded_factors, rounded_weights, swapped_rows

pytestmark = [pytest.mark.full, pytest.mark.xdist_group("full")]
FRAME = Path(__file__).resolve().parents[2] / "shared/data/nuscenes_frame"
LEVEL_0 = "transformer_0_encoder_layers_0_attentions_0"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The official config's file with its manifest, without the checks, which other tests hold."""
    folder = tmp_path_factory.mktemp("official")
    request = Request(read_config(MICRO.with_name("surroundocc.py")), frame=str(FRAME) if FRAME.exists() else None)
    loaded = load_input(request.config, request.frame)
    spec = make_spec(request, loaded)
    model, weights, _ = load_model(spec.config, None, 0)
    stem = file_name(spec, trained=False)
    files = write_graphs(model, spec, loaded.lidar2img, folder, stem, weights)
    del model
    write_json(folder / f"{stem}.json", manifest(spec, weights, loaded.origin, read_skeleton(files["model"]), files, []))
    return read_network(files["model"], None)


def judged(file, other, names, dtype, math=None):
    slots = [level.slots for level in levels_of(file).values()]
    theirs = dumps(other, {*names, *slots}, dtype)
    stored = {name: dtype if array.dtype.kind == "f" else array.dtype.name for name, array in theirs.items()}
    index = golden_index(file, tuple(theirs))
    return judge(file, index, feeds_of(file, None, None)[0].__getitem__, theirs.get, stored, NullProgress(), math)


def planted(file, bug):
    """A copy with a bug and fp16 weights, the node that has it, and the tensors on both sides of it."""
    other = copied(file)
    rounded_weights(other, "float16")
    if bug == "channel":
        node = node_of(other, "img_neck_lateral_convs_0", "Conv")
        names = [node.input[0], *node.output]
        changed_channel(other, node, 5, 1.1)
    elif bug == "rows":
        node = node_of(other, f"{LEVEL_0}_Gather", "Gather")
        names = [*node.input, *node.output]
        level = levels_of(file)["level 0"]
        ((_, table),) = dumps(file, [level.slots]).items()
        swapped_rows(other, node, *(3 * level.room + np.flatnonzero(table[3])[:2]))
    else:
        first = bug == "deformable convolution"
        node = custom_nodes_of(other)[0] if first else node_of(other, f"{LEVEL_0}_def", "MultiScaleDeformableAttnFunction")
        names = [*node.input, *node.output]
        half_pixel(other, node)
    return other, node, [name for name in names if name in marked(file, ["all"])]


@pytest.mark.parametrize("bug", ["deformable convolution", "attention", "channel", "rows"])
def test_a_planted_bug_is_found_at_its_node(file, bug):
    other, node, names = planted(file, bug)
    found = judged(file, other, names, "float16")
    assert [one.nodes for one in found.blamed] == [(node.name,)], [one.words for one in found.blamed]
    if bug == "channel":
        assert found.blamed[0].place == "channel 5"


def test_noise_of_fp16_blames_nobody(file):
    other = copied(file)
    rounded_weights(other, "float16")
    found = judged(file, other, marked(file, ["stages"]), "float16")
    assert found.blamed == () and max(found.ratios.values()) <= 1


def test_tf32_blames_nobody_when_told_and_is_advised_when_not(file):
    other = copied(file)
    rounded_factors(other.model.graph, 11)
    names = marked(file, ["stages", "*neck*"])
    told = judged(file, other, names, "float32", "tf32")
    assert told.blamed == () and len(told.ratios) > 20
    untold = judged(file, other, names, "float32")
    assert untold.blamed and untold.advice.endswith("give --math tf32")


def test_the_cost_is_that_of_the_data_sheet(file):
    cost = cost_of(file)
    assert cost.network is not None
    assert round(cost.network.total / 1e12, 2) == 2.32 and round(cost.network.parameters / 1e6, 1) == 180.4
    assert sorted(cost.custom.values()) == [10, 26]
