"""One forward, every tensor: what a walk hands out is what the file computes, however it is cut."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from occport.bringup.walk import segments, walk
from occport.errors import ModelFileError
from occport.export.network_file import feeds_of, read_network
from occport.graph.runnable import make_runnable
from occport.graph.submodel import value_types
from occport.session import open_session


def opened(export):
    file = read_network(export.model, None, standard=True)
    return file, feeds_of(file, None, None)[0]


def tapped(file, feeds, names) -> dict[str, np.ndarray]:
    """All of them from a single run."""
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    make_runnable(model, file.dialect)
    there = {info.name for info in model.graph.output}
    types = value_types(file.model.graph)
    model.graph.output.extend(types[name] for name in names if name not in there and name not in feeds)
    return {**feeds, **open_session(model, weights_folder=file.folder).run(feeds)}


@pytest.mark.parametrize("at_once", [1, 2**20, 2**40])
@pytest.mark.parametrize("export", ["runtime_export", "standard_export", "tables_export"])
def test_every_tensor_is_that_of_a_single_run(export, at_once, request):
    file, feeds = opened(request.getfixturevalue(export))
    names = list(value_types(file.model.graph))
    want = tapped(file, feeds, names)
    seen = []
    for name, got in walk(file, feeds, names, at_once):
        seen.append(name)
        assert got.dtype == want[name].dtype, name
        if at_once == 2**40:  # one segment
            np.testing.assert_array_equal(got, want[name], err_msg=name)
        elif got.dtype == np.float32:  # other fusions, other last bits
            np.testing.assert_allclose(got, want[name], rtol=1e-5, atol=1e-5 * max(np.abs(want[name]).max(), 1e-3), err_msg=name)
        else:
            assert (got != want[name]).mean() < 1e-3, name
    order = [name for node in file.model.graph.node for name in node.output]
    assert seen == [*file.input_names, *sorted(set(names) - set(feeds), key=order.index)]


def test_a_few_tensors_come_alone_and_in_order(runtime_export):
    file, feeds = opened(runtime_export)
    last, first = file.model.graph.node[-30].output[0], file.model.graph.node[10].output[0]
    assert [name for name, _ in walk(file, feeds, [last, first])] == [first, last]
    assert [name for name, _ in walk(file, feeds, ["img"])] == ["img"]


def test_an_unknown_tensor_is_refused_before_the_work(runtime_export):
    file, feeds = opened(runtime_export)
    with pytest.raises(ModelFileError, match=r"tensor 'labels_scale9'.*did you mean 'labels_scale"):
        next(walk(file, feeds, ["img", "labels_scale9"]))


def test_segments_hold_no_more_than_they_may(runtime_export):
    file, _ = opened(runtime_export)
    graph = file.model.graph
    names = {name for node in graph.node for name in node.output}
    cut = segments(graph, names, 2**20)
    assert [one.last for one in cut[:-1]] == [one.first for one in cut[1:]] and cut[-1].last == len(graph.node)
    sizes = {name: np.prod([dim.dim_value for dim in info.type.tensor_type.shape.dim]) * 4 for name, info in value_types(graph).items()}
    for one in cut:
        if one.last - one.first > 1:
            assert sum(sizes[name] for node in graph.node[one.first : one.last] for name in node.output) <= 2**20
    assert len(segments(graph, names, 2**50)) == 1
