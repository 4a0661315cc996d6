"""Execution providers: named, installed, started and used, or refused in one line."""

from __future__ import annotations

import onnxruntime
import pytest

from occport.errors import ModelFileError
from occport.session import full_name, installed_providers, open_session
from test_session import X, check_values, model

# A provider that ONNX Runtime knows and that this build lacks.
ABSENT = next(name for name in onnxruntime.get_all_providers() if name not in onnxruntime.get_available_providers())
SHORT = ABSENT.removesuffix("ExecutionProvider")


def test_providers_by_short_or_full_name():
    assert "CPU" in installed_providers()
    assert {full_name(name) for name in ("CPU", "cpu", "CPUExecutionProvider", "cpuexecutionprovider")} == {"CPUExecutionProvider"}
    for name in ("CPU", None):
        session = open_session(model(), provider=name)
        assert (session.provider, dict(session.placed)) == ("CPU", {})
    check_values(session.run({"x": X}))


@pytest.mark.parametrize("name", ["Nothing", "", "ExecutionProvider", "CPUs", SHORT])
def test_a_provider_that_is_not_installed(name):
    listed = ", ".join(installed_providers())
    with pytest.raises(ModelFileError) as caught:
        open_session(model(), provider=name)
    assert str(caught.value) == (
        f"execution provider {name!r}: expected one that is installed: {listed}, got none of these; "
        "install the build of onnxruntime that has it"
    )


def test_a_provider_that_does_not_start(monkeypatch):
    """As where its library is missing: ONNX Runtime goes on with the CPU, and we do not."""
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: [ABSENT, "CPUExecutionProvider"])
    with (
        pytest.warns(UserWarning, match=ABSENT),
        pytest.raises(ModelFileError, match=f"opening model 'small' with {SHORT}: expected this provider to start, got CPU in its pl"),
    ):
        open_session(model(), provider=SHORT.lower())


class Part:
    def __init__(self, ep_name: str, count: int) -> None:
        self.ep_name, self._count = ep_name, count

    def get_nodes(self) -> list[str]:
        return ["node"] * self._count


def test_where_the_nodes_are_placed(monkeypatch):
    """A provider that takes part of the model; one that takes nothing of it is refused."""
    parts = [Part("CPUExecutionProvider", 1), Part(ABSENT, 2), Part(ABSENT, 1)]
    names = [ABSENT, "CPUExecutionProvider"]
    session = "onnxruntime.InferenceSession"
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: names)
    monkeypatch.setattr(f"{session}.get_providers", lambda self: names)
    monkeypatch.setattr(f"{session}.get_provider_graph_assignment_info", lambda self: parts)
    with pytest.warns(UserWarning, match=ABSENT):
        opened = open_session(model(), provider=SHORT)
    assert (opened.provider, dict(opened.placed)) == (SHORT, {"CPU": 1, SHORT: 3})
    del parts[1:]
    with (
        pytest.warns(UserWarning, match=ABSENT),
        pytest.raises(ModelFileError, match=f"with {SHORT}: expected nodes that this provider can run, got none; all would run on CPU"),
    ):
        open_session(model(), provider=SHORT)


@pytest.mark.skipif("Azure" not in installed_providers(), reason="this ONNX Runtime has no provider beside the CPU")
def test_a_real_provider_that_takes_nothing():
    with pytest.raises(ModelFileError, match="opening model 'small' with Azure: expected nodes that this provider can run, got none"):
        open_session(model(), provider="azure")
