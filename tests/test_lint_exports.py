"""Lint on files that were really exported: nothing is wrong with them, and a wrong dialect is told at once."""

from __future__ import annotations

import pytest

from exporting import run_cli
from occport.graph import dialect as dialects
from occport.graph.lint.finding import NOTE
from occport.graph.lint.whole import lint
from occport.graph.model_file import read_skeleton


@pytest.mark.parametrize("name", ["runtime_export", "tables_export", "fixed_export", "standard_export"])
def test_nothing_is_found_in_an_export(name, request):
    exported = request.getfixturevalue(name)
    for path in filter(None, (exported.model, exported.geometry)):
        dialect = exported.manifest["dialect"]["name"] if path == exported.model else "standard"
        found = [str(each) for each in lint(read_skeleton(path), dialects.load(dialect), folder=path.parent)]
        assert found == []
    ran = run_cli("lint", exported.model, "--dialect", exported.manifest["dialect"]["name"])
    assert (ran.status, ran.out) == (0, "0 errors, 0 notes\n")


def test_bodies_of_the_dialects_own_nodes_are_a_note(functions_export):
    found = lint(read_skeleton(functions_export.model), dialects.load("dl"), folder=functions_export.model.parent, opset=17)
    assert [each.severity for each in found] == [NOTE, NOTE]
    assert {each.got for each in found} == {"DL::MultiScaleDeformableAttnFunction", "DL::ModulatedDeformConv2d"}
    assert all("a target that does not know functions chokes on them: export without --functions" in each.fix for each in found)
    assert run_cli("lint", functions_export.model, "--dialect", "dl").status == 0


def test_the_wrong_dialect_is_told_with_the_right_one(runtime_export):
    ran = run_cli("lint", runtime_export.model, "--dialect", "mmdeploy")
    assert ran.status == 1 and "it belongs to dl: give --dialect dl, or `occport retarget --to mmdeploy`" in ran.out
