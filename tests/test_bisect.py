"""`--bisect`: a runtime with a bug in one node is driven to that node; one that fails is told so in a line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from occport.bringup.diff.bisect import bisect
from occport.bringup.diff.bisect_run import Command
from occport.bringup.dumps.index import Index
from occport.errors import UserError
from occport.export.network_file import read_network
from occport.progress import NullProgress

RUNTIME = Path(__file__).with_name("their_runtime.py")
INDEX = Index("small.onnx", "", "dl", "", "npy", ())


@pytest.fixture(scope="module")
def small(tmp_path_factory, small_dl_bytes):
    path = tmp_path_factory.mktemp("small") / "small.onnx"
    path.write_bytes(small_dl_bytes)
    return read_network(path, "dl")


@pytest.fixture(scope="module")
def feeds(small):
    random = np.random.default_rng(3)
    made = {}
    for info in small.model.graph.input:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        whole = info.type.tensor_type.elem_type == 7
        made[info.name] = random.integers(0, 4, shape) if whole else random.uniform(0.1, 0.9, shape).astype(np.float32)
    return made


def python(code: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {{model}} {{inputs}} {{outputs}}"


def searched(small, feeds, command, timeout=60.0):
    return bisect(small, INDEX, feeds.__getitem__, command, timeout, NullProgress())


def runtime(culprit: str) -> str:
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(RUNTIME))} {{model}} {{inputs}} {{outputs}} dl {culprit}"


def test_a_right_runtime_is_found_right(small, feeds):
    result = searched(small, feeds, runtime("none"))
    assert result.blamed == () and result.good and "gives what ONNX Runtime does" in result.judged
    assert {one.status for one in result.tensors} <= {"equal", "explained"}


@pytest.mark.parametrize("culprit", ["a_msda", "conv"])
def test_the_search_ends_at_the_node(small, feeds, culprit):
    names = [node.name for node in small.model.graph.node]
    wanted = next(name for name in names if culprit in name)
    result = searched(small, feeds, runtime(wanted))
    assert [one.nodes for one in result.blamed] == [(wanted,)], (result.judged, names)
    assert not result.good and wanted in result.blamed[0].words
    assert any(one.status == "differs" for one in result.tensors)


def test_what_only_a_whole_does_wrong_is_told(small, feeds, tmp_path):
    """The convolution is wrong only where an attention stands in the same part, as a runtime that fuses too much would have it."""
    names = [node.name for node in small.model.graph.node]
    conv, other = (next(name for name in names if part in name) for part in ("conv", "a_msda"))
    text = RUNTIME.read_text(encoding="utf-8")
    condition = f"if node.name == culprit and any(one.name == {other!r} for one in model.graph.node)), None)"
    changed = text.replace("if node.name == culprit), None)", condition)
    assert changed != text
    script = tmp_path / "whole.py"
    script.write_text(changed, encoding="utf-8")
    result = searched(small, feeds, f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{model}} {{inputs}} {{outputs}} dl {conv}")
    assert "right as two halves" in result.judged and "fusion" in result.blamed[0].words


@pytest.mark.parametrize(
    ("command", "fragment"),
    [
        ("run {model} {inputs}", "got no {outputs}"),
        ("run 'x {model} {inputs} {outputs}", "No closing quotation"),
        ("/no/such/program {model} {inputs} {outputs}", "No such file or directory"),
        (python("import sys; sys.exit('out of memory on core 3')"), "status 1: out of memory on core 3"),
        (python("import os; os.kill(os.getpid(), 9)"), "killed by SIGKILL"),
        (python("pass"), "got an empty folder"),
        (python("import sys, numpy; numpy.save(sys.argv[3] + '/other.npy', numpy.zeros(3))"), "there are other"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_refused_in_a_line(small, feeds, command, fragment):
    with pytest.raises(UserError) as caught:
        searched(small, feeds, command)
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


def test_a_runtime_that_hangs_is_ended(small, feeds):
    with pytest.raises(UserError, match=r"expected an end within 0\.5 s"):
        searched(small, feeds, python("import time; time.sleep(60)"), 0.5)
    with pytest.raises(UserError, match="--timeout 0"):
        Command("run {model} {inputs} {outputs}", 0.0)


def test_a_runtime_that_rounds_factors_is_told_so(small, feeds):
    found = searched(small, feeds, runtime("tf32"))
    assert found.blamed[0].op_types == ("Conv",) and found.remarks[0].endswith("give --math tf32")
    result = bisect(small, INDEX, feeds.__getitem__, runtime("tf32"), 60.0, NullProgress(), "tf32")
    assert result.good and result.blamed == ()
