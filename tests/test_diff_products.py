"""Kernels that round factors of products (TF32 of a GPU): blamed without `--math`, which the report advises; explained with it."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from exporting import run_cli
from occport.bringup.diff.blame import judge
from occport.bringup.diff.products import MATH, products_of
from occport.bringup.dumps.marks import custom_nodes_of
from occport.commands.diff import add_arguments
from occport.export.network_file import feeds_of, read_network
from occport.progress import NullProgress
from planting import changed_channel, copied, dumps, golden_index, half_pixel, node_of, rounded_factors


@pytest.fixture(scope="module")
def file(runtime_export):
    return read_network(runtime_export.model, None)


@pytest.fixture(scope="module")
def index(file):
    return golden_index(file, ("custom", "*neck*"))


def judgement(file, other, index, math=None):
    theirs = dumps(other, {entry.name for entry in index.tensors})
    stored = {name: array.dtype.name for name, array in theirs.items()}
    return judge(file, index, feeds_of(file, None, None)[0].__getitem__, theirs.get, stored, NullProgress(), math)


@pytest.mark.parametrize(("bits", "math"), [(11, "tf32"), (8, "bf16")])
def test_rounded_factors_are_explained_when_told_and_advised_when_not(file, index, bits, math):
    other = copied(file)
    rounded_factors(other.model.graph, bits)
    told = judgement(file, other, index, math)
    assert told.blamed == () and told.advice == "" and f"factors of products as in {math}" in told.judged
    assert len(told.ratios) > 40 and max(told.ratios.values()) <= 1
    untold = judgement(file, other, index)
    assert len(untold.blamed) >= 3 and untold.advice.endswith(f"give --math {math}")


@pytest.mark.parametrize("bug", ["half pixel", "channel"])
def test_a_bug_behind_rounded_factors_is_found(file, index, bug):
    other = copied(file)
    node = custom_nodes_of(other)[0] if bug == "half pixel" else node_of(other, "img_neck_lateral", "Conv")
    if bug == "half pixel":
        half_pixel(other, node)
    else:
        changed_channel(other, node, 5, 1.1)
    rounded_factors(other.model.graph, 11)
    found = judgement(file, other, index, "tf32")
    assert node.name in found.blamed[0].nodes and len(found.blamed) == 1, found.blamed
    assert found.blamed[0].nodes == (node.name,) if bug == "half pixel" else "channel 5" in found.blamed[0].words


def test_a_bug_in_many_nodes_is_not_taken_for_rounding(file, index):
    other = copied(file)
    for node in custom_nodes_of(other)[:4]:
        half_pixel(other, node)
    found = judgement(file, other, index)
    assert len(found.blamed) == 4 and found.advice == ""


def test_factors_of_custom_nodes_are_what_is_added_up_not_where(file):
    products = products_of(file, "tf32")
    deform, attention = custom_nodes_of(file)[0], custom_nodes_of(file)[-1]
    ports = [port.name for port in file.dialect.dcn.inputs]
    assert [ports[i] for i in products.factors[deform.output[0]]] == ["input", "weight"]
    assert products.factors[attention.output[0]] == (0,)
    assert len(products.factors) > 60 and not any(name.startswith("projection") for name in products.factors)


def test_the_flag_knows_every_mode_and_the_command_explains_with_it(runtime_export, tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    flag = next(action for action in parser._actions if action.dest == "math_mode")
    assert tuple(flag.choices) == tuple(MATH)
    golden, theirs = tmp_path / "golden", tmp_path / "theirs"
    assert run_cli("golden", runtime_export.model, "-o", golden, "--mark", "*neck*").status == 0
    file = read_network(runtime_export.model, None)
    other = copied(file)
    rounded_factors(other.model.graph, 11)
    theirs.mkdir()
    for name, array in dumps(other, {entry.name for entry in golden_index(file, ("*neck*",)).tensors}).items():
        np.save(theirs / f"{name}.npy", array)
    ran = run_cli("diff", golden, theirs)
    assert ran.status == 1 and "note: rounding the factors of products as in tf32 would explain this" in ran.out
    ran = run_cli("diff", golden, theirs, "--math", "tf32")
    assert ran.status == 0 and "nothing differs beyond" in ran.out
